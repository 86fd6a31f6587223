//! The other side lies: it writes whatever it likes into the region that it may write.
//! Nothing panics, no view leaves its buffer, the liar's connection is closed and
//! reported, and nobody else loses anything.

mod common;

use common::{Intruder, Rings, Shared, TestSink, TestSource, assert_pattern, join, join_direct, send};
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::heap::BufferId;
use insane_shm::Violation;
use insane_shm::cell::Meta;
use insane_shm::heap::SenderHeap;
use insane_shm::port::Earlier;
use insane_shm::ring::Popped;
use proptest::prelude::*;
use std::sync::Arc;

const LIAR: ConnId = ConnId(1);
const DEPTH: u32 = 8;
const CLASSES: &[(u32, u32)] = &[(200, 16), (5000, 4)];

/// Words of a cell.
const CELL: usize = 16;

fn words() -> impl Strategy<Value = u64> {
    let entry = (0..40_u64, 0..24_u64).prop_map(|(position, id)| (position << 32) | id);
    prop_oneof![0..40_u64, entry, any::<u64>(), any::<u32>().prop_map(u64::from)]
}

#[derive(Clone, Debug)]
enum Step {
    Send { len: usize },
    Consume { honest: bool },
    Write { word: usize, value: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop_oneof![0..97_usize, 97..201_usize, 1000..5000_usize].prop_map(|len| Step::Send { len }),
        3 => any::<bool>().prop_map(|honest| Step::Consume { honest }),
        // The head, or one of the first completions.
        2 => (prop_oneof![Just(0_usize), CELL..CELL + 20], words()).prop_map(|(word, value)| Step::Write { word, value }),
    ];
    prop::collection::vec(step, 1..200)
}

/// An honest sink beside a liar: it gets every message that fits, whole.
fn receiver_lies(steps: &[Step]) {
    let source = TestSource::new(CLASSES, false);
    let (liar, honest) = (TestSink::new(), TestSink::new());
    let intruder = join(&source, &liar, LIAR.0, DEPTH).returns.intruder();
    join(&source, &honest, 2, 64);
    let (mut sent, mut seen) = (0, 0);
    let mut consume_honest = |sent: u64| {
        let Some(message) = honest.port.consume().unwrap() else { return };
        assert_eq!((message.sequence(), message.lost()), (seen, 0));
        assert!(seen < sent);
        assert_pattern(&message.shared().to_vec(), seen);
        seen += 1;
    };
    for step in steps {
        match *step {
            Step::Send { len } => {
                // The honest sink never falls behind.
                consume_honest(sent);
                sent += u64::from(send(&source.port, len));
            }
            Step::Consume { honest: true } => consume_honest(sent),
            // What the liar reads is its own affair, but it reads inside its maps.
            Step::Consume { honest: false } => {
                liar.port.consume().unwrap().map(|message| message.shared().to_vec());
            }
            Step::Write { word, value } => intruder.write(word, value),
        }
    }
    for _ in 0..sent {
        consume_honest(sent);
    }
    assert_eq!(seen, sent);
    let accused = source.mailbox.collect();
    assert!(accused.is_empty() || accused == [LIAR], "{accused:?}");
    assert_eq!(source.count(PortCounter::Violations), accused.len() as u64);
    assert!(source.mailbox.remove(LIAR));
    assert!(source.port.has_receivers());
    assert_eq!(source.port.buffers_in_use(), 0, "what the liar held came back");
}

/// Writes of a lying sender: cells that look like messages, and noise.
#[derive(Clone, Debug)]
enum Lie {
    /// A message at the position that is read next.
    Message {
        ahead: u64,
        shape: u64,
        place: u64,
    },
    Noise {
        word: usize,
        value: u64,
    },
    Honest {
        len: usize,
    },
    ConsumeAll {
        keep: bool,
    },
    Release,
}

fn lies() -> impl Strategy<Value = Vec<Lie>> {
    let shape = (prop_oneof![0..97_u32, 0..300_u32, any::<u32>()], 0..4_u64, any::<u16>())
        .prop_map(|(len, kind, lost)| u64::from(len) | (kind << 32) | (u64::from(lost) << 40));
    let lie = prop_oneof![
        4 => (0..2_u64, shape, words()).prop_map(|(ahead, shape, place)| Lie::Message { ahead, shape, place }),
        1 => (0..CELL * 9, words()).prop_map(|(word, value)| Lie::Noise { word, value }),
        3 => (0..200_usize).prop_map(|len| Lie::Honest { len }),
        3 => any::<bool>().prop_map(|keep| Lie::ConsumeAll { keep }),
        1 => Just(Lie::Release),
    ];
    prop::collection::vec(lie, 1..120)
}

fn write_cell(cells: &Intruder, position: u64, shape: u64, place: u64) {
    let cell = CELL * (1 + (position % u64::from(DEPTH)) as usize);
    cells.write(cell + 1, shape);
    cells.write(cell + 2, 1_000_000 + position);
    cells.write(cell + 4, place);
    cells.write(cell, position + 1);
}

fn sender_lies(lies: &[Lie]) {
    let (liar, honest, sink) = (TestSource::new(CLASSES, false), TestSource::new(CLASSES, false), TestSink::new());
    let cells = join(&liar, &sink, LIAR.0, DEPTH).cells.intruder();
    join(&honest, &sink, 2, 256);
    let (mut at, mut sent, mut seen) = (0, 0, 0);
    let mut held = Vec::new();
    for lie in lies {
        match *lie {
            Lie::Message { ahead, shape, place } => write_cell(&cells, at + ahead, shape, place),
            Lie::Noise { word, value } => cells.write(word, value),
            Lie::Honest { len } => sent += u64::from(send(&honest.port, len)),
            Lie::Release => held.clear(),
            Lie::ConsumeAll { keep } => {
                // A liar may keep one look busy only for as long as its ring is.
                for _ in 0..20 {
                    let Some(message) = sink.port.consume().unwrap() else { continue };
                    let bytes = message.shared().to_vec();
                    assert!(bytes.len() <= 5000 && bytes.len() == message.len());
                    // Noise may hit the sequence word; its messages all bear the liar's.
                    let is_honest = message.sequence() == seen && message.lost() == 0 && seen < sent && {
                        bytes.iter().enumerate().all(|(at, byte)| *byte == common::pattern(seen, at))
                    };
                    if is_honest {
                        seen += 1;
                    } else {
                        at += 1;
                    }
                    if keep && held.len() < 40 {
                        held.push(message);
                    }
                }
            }
        }
    }
    held.clear();
    // At most a ring of the liar's is left; then all that the honest source sent is here.
    for _ in 0..600 {
        if let Some(message) = sink.port.consume().unwrap()
            && message.sequence() == seen
            && message.shared().to_vec().iter().enumerate().all(|(at, byte)| *byte == common::pattern(seen, at))
        {
            seen += 1;
        }
    }
    assert_eq!(seen, sent, "the honest sender's messages arrive");
    let accused = sink.mailbox.collect();
    assert!(accused.is_empty() || accused == [LIAR], "{accused:?}");
    assert_eq!(sink.count(PortCounter::Violations), accused.len() as u64);
    assert_eq!(honest.port.buffers_in_use(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_lying_receiver_harms_nobody(steps in steps()) {
        receiver_lies(&steps);
    }

    #[test]
    fn a_lying_sender_harms_nobody(lies in lies()) {
        sender_lies(&lies);
    }
}

fn lying_receiver(lie: impl FnOnce(&Intruder)) -> (TestSource, TestSink, Intruder) {
    let (source, sink) = (TestSource::new(CLASSES, false), TestSink::new());
    let intruder = join(&source, &sink, LIAR.0, 2).returns.intruder();
    for _ in 0..2 {
        assert!(send(&source.port, 200));
    }
    lie(&intruder);
    (source, sink, intruder)
}

#[test]
fn a_head_beyond_the_tail_is_reported_at_once() {
    let (source, _sink, intruder) = lying_receiver(|returns| returns.write(0, 3));
    assert!(send(&source.port, 1));
    // Even if the liar takes it back, and the application never calls again.
    intruder.write(0, 2);
    assert_eq!(source.mailbox.collect(), [LIAR]);
    assert!(!source.port.has_receivers());
    assert_eq!(source.port.buffers_in_use(), 0);
    assert_eq!(source.count(PortCounter::Violations), 1);
}

#[test]
fn a_head_that_goes_back_is_reported() {
    let (source, sink, intruder) = lying_receiver(|_| {});
    while sink.port.consume().unwrap().is_some() {}
    assert!(send(&source.port, 1) && send(&source.port, 1));
    intruder.write(0, 1);
    assert!(send(&source.port, 1));
    assert_eq!(source.mailbox.collect(), [LIAR]);
}

#[test]
fn a_return_of_what_is_not_held_is_reported() {
    for id in [5, 19, 20, 64, u64::from(u32::MAX)] {
        let (source, _sink, intruder) = lying_receiver(|returns| returns.write(CELL, (1 << 32) | id));
        assert_eq!(source.port.buffers_in_use(), 0, "looked, caught it, and took all back");
        intruder.write(CELL, 0);
        assert_eq!(source.mailbox.collect(), [LIAR], "buffer {id}");
    }
}

#[test]
fn a_buffer_is_returned_once() {
    let (source, _sink, _intruder) = lying_receiver(|returns| {
        // The first buffer loaned is buffer 0.
        returns.write(CELL, 1 << 32);
        returns.write(CELL + 1, 2 << 32);
    });
    assert_eq!(source.port.buffers_in_use(), 0);
    assert_eq!(source.mailbox.collect(), [LIAR]);
}

#[test]
fn cells_that_cannot_be_are_reported() {
    let kinds = [1_u64, 3, 255].map(|kind| (kind << 32, 0));
    let too_long = [(97, 0), (u64::from(u32::MAX), 0)];
    let no_buffer = [(1 | (2 << 32), 20), (1 | (2 << 32), u64::MAX), (201 | (2 << 32), 0), (5001 | (2 << 32), 16)];
    for (shape, place) in kinds.into_iter().chain(too_long).chain(no_buffer) {
        let (liar, honest, sink) = (TestSource::new(CLASSES, false), TestSource::new(CLASSES, false), TestSink::new());
        let cells = join(&liar, &sink, LIAR.0, DEPTH).cells.intruder();
        join(&honest, &sink, 2, DEPTH);
        assert!(send(&honest.port, 50));
        write_cell(&cells, 0, shape, place);
        assert_eq!(sink.port.consume().unwrap().unwrap().sequence(), 0, "the honest message came");
        assert!(sink.port.consume().unwrap().is_none());
        assert_eq!(sink.mailbox.collect(), [LIAR], "{shape:x} {place}");
        assert!(sink.port.has_senders());
    }
}

#[test]
fn an_accused_feed_keeps_its_memory_until_its_messages_are_released() {
    let (liar, sink) = (TestSource::new(CLASSES, false), TestSink::new());
    let cells = join(&liar, &sink, LIAR.0, DEPTH).cells.intruder();
    assert!(send(&liar.port, 150) && send(&liar.port, 150));
    let first = sink.port.consume().unwrap().unwrap();
    let second = sink.port.consume().unwrap().unwrap();
    write_cell(&cells, 2, 1 << 32, 0);
    assert!(sink.port.consume().unwrap().is_none());
    assert_eq!(sink.mailbox.collect(), [LIAR]);
    drop(liar);
    assert_pattern(&first.shared().to_vec(), 0);
    drop(first);
    assert!(sink.port.consume().unwrap().is_none());
    assert_pattern(&second.shared().to_vec(), 1);
    drop(second);
    assert!(sink.port.consume().unwrap().is_none());
    assert!(sink.mailbox.collect().is_empty(), "reported once");
    assert!(!sink.port.has_senders());
}

#[test]
fn a_feed_that_is_over_goes_although_another_is_alone_and_busy() {
    let (liar, honest, sink) = (TestSource::new(CLASSES, false), TestSource::new(CLASSES, false), TestSink::new());
    let rings = join(&liar, &sink, LIAR.0, DEPTH);
    let cells = rings.cells.intruder();
    assert!(send(&liar.port, 150));
    let held = sink.port.consume().unwrap().unwrap();
    join(&honest, &sink, 2, DEPTH);
    write_cell(&cells, 1, 1 << 32, 0);
    assert!(sink.port.consume().unwrap().is_none());
    assert_eq!(sink.mailbox.collect(), [LIAR]);
    let next = || {
        assert!(send(&honest.port, 50));
        assert!(sink.port.consume().unwrap().is_some());
        assert!(sink.mailbox.collect().is_empty());
        Arc::strong_count(&rings.returns.writer)
    };
    assert_eq!((next(), next()), (3, 3), "its message is out: the ring and what gives back");
    drop(held);
    assert_eq!(next(), 1, "the next look at the sink lets it go");
}

#[test]
fn a_connection_stays_distrusted() {
    let geometry = insane_core::heap::Geometry::new(&common::specs(CLASSES)).unwrap();
    let memory = Shared::new(geometry.bytes());
    let mut heap = SenderHeap::new(Arc::clone(&memory.writer), geometry.clone());
    let rings = Rings::new(2, &geometry);
    let mut tx = rings.tx(1, 2, &geometry, None);
    let intruder = rings.returns.intruder();
    let id = heap.loan(100).unwrap();
    heap.lend(id);
    tx.push_heap(&mut heap, Meta::default(), id, 100);
    heap.release(id);
    intruder.write(CELL, (1 << 32) | 7);
    assert_eq!(tx.reclaim(&mut heap), Err(Violation::Return));
    intruder.write(CELL, 0);
    assert_eq!((tx.reclaim(&mut heap), tx.has_room()), (Err(Violation::Return), Err(Violation::Return)));
    assert_eq!((tx.lie(), tx.held()), (Some(Violation::Return), 1));
    tx.abandon(Some(&mut heap));
    assert_eq!((tx.held(), heap.in_use()), (0, 0));
}

#[test]
fn a_receiver_without_the_heap_takes_no_buffer() {
    let source = TestSource::new(CLASSES, false);
    let rings = Rings::new(2, &source.geometry);
    let mut rx = rings.rx(1, 2, &source.geometry, None);
    source.mailbox.add(rings.tx(1, 2, &source.geometry, None)).unwrap();
    assert!(send(&source.port, 200));
    let mut popped = Popped::EMPTY;
    assert_eq!(rx.pop(&mut popped), Err(Violation::Cell));
    assert!(rx.view(BufferId(0), 1).is_empty());
}

#[test]
fn a_liar_that_is_found_out_while_history_is_sent_costs_the_new_sink_nothing() {
    let source = TestSource::new(&[(5000, 4)], false);
    let (liar, new) = (TestSink::new(), TestSink::new());
    let intruder = join(&source, &liar, LIAR.0, DEPTH).returns.intruder();
    assert!(send(&source.port, 4000));
    let held: Vec<_> = (0..3).map(|_| source.port.get_buffer(4000).unwrap()).collect();
    // It gives back a buffer that it does not hold. That comes out with the next look,
    // which is when the new sink's history needs the buffer that the liar does hold.
    intruder.write(CELL, (1 << 32) | 99);
    let _rings = join_direct(&source, &new, 2, DEPTH);
    let large = [5; 4000];
    assert_eq!(source.port.replay(&[Earlier { sequence: 7, source_ns: 1, bytes: &large }]), 1);
    assert_eq!(source.mailbox.collect(), [LIAR]);
    let message = new.port.consume().unwrap().unwrap();
    assert!(message.sequence() == 7 && message.shared().to_vec() == large);
    drop((message, held));
    assert_eq!(source.port.buffers_in_use(), 0);
}

#[test]
fn a_liar_is_no_reason_to_put_another_receiver_out() {
    let (source, stands, liar) = (TestSource::new(&[], true), TestSink::new(), TestSink::new());
    let _honest = join_direct(&source, &stands, 1, 8);
    let rings = join_direct(&source, &liar, 2, 4);
    for _ in 0..4 {
        assert!(send(&source.port, 1));
        while liar.port.consume().unwrap().is_some() {}
    }
    // The fuller of the two has room in its ring, and the other lies about its own.
    for _ in 0..4 {
        assert!(send(&source.port, 1));
    }
    rings.returns.intruder().write(0, 1 << 40);
    let start = std::time::Instant::now();
    while start.elapsed() < std::time::Duration::from_millis(800) {
        assert!(!send(&source.port, 1), "nobody goes on");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!((source.count(PortCounter::PutOut), source.port.receivers()), (0, 1));
    assert_eq!(source.mailbox.collect(), [ConnId(2)]);
}
