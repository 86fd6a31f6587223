//! Ports over plain memory of one process, so that Miri can follow every access (`cargo xtask test
//! --only miri`): no two references meet that must not, nothing is read that nobody wrote, nothing
//! is used after it is gone. Elsewhere these are ordinary tests.

use insane_core::ConnId;
use insane_core::heap::{ClassSpec, Geometry};
use insane_core::limits::INLINE_BYTES_MAX;
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::counters::CounterBlock;
use insane_shm::heap::{ForeignHeap, SenderHeap};
use insane_shm::port::{Loan, Mailbox, Outcome, Received, SinkPort, SourcePort};
use insane_shm::region::{Region, RegionCells};
use insane_shm::returns::places;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const DEPTH: u32 = 4;
/// One length of each way to copy, and of each way to travel.
const LENS: [usize; 9] = [0, 1, 3, 8, 31, 64, 65, INLINE_BYTES_MAX, 150];

struct Write {
    port: SourcePort,
    mailbox: Arc<Mailbox<TxConn>>,
    heap: Arc<Region>,
    geometry: Geometry,
}

struct Read {
    port: SinkPort,
    mailbox: Arc<Mailbox<RxConn>>,
}

fn plain(len: u64) -> Arc<Region> {
    Region::anonymous(len as usize).unwrap()
}

fn source(reliable: bool) -> Write {
    let geometry = Geometry::new(&[ClassSpec { size: 200, count: 4 }]).unwrap();
    let heap = plain(geometry.bytes());
    let sender = SenderHeap::new(Arc::clone(&heap), geometry.clone());
    let (port, mailbox) = SourcePort::new(Some(sender), reliable, CounterBlock::private()).unwrap();
    Write { port, mailbox, heap, geometry }
}

fn sink() -> Read {
    let (port, mailbox) = SinkPort::new(None, CounterBlock::private()).unwrap();
    Read { port, mailbox }
}

/// Joins them; returns the memory that the sender writes.
fn join(source: &Write, sink: &Read, id: u32) -> Arc<Region> {
    let buffers = source.geometry.buffers();
    let (cells, returns) = (plain(cells_bytes(DEPTH)), plain(returns_bytes(places(buffers))));
    let tx = TxConn::new(ConnId(id), Arc::clone(&cells), Arc::clone(&returns), DEPTH, buffers, None);
    let heap = ForeignHeap::new(Arc::clone(&source.heap), source.geometry.clone());
    let rx = RxConn::new(ConnId(id), Arc::clone(&cells), returns, DEPTH, heap, true);
    source.mailbox.add(Box::new(tx)).unwrap();
    sink.mailbox.add(Box::new(rx)).unwrap();
    cells
}

fn fill(loan: &mut Loan<'_>, value: u8) {
    loan.iter_mut().zip(0_u8..).for_each(|(byte, at)| *byte = value.wrapping_add(at));
}

fn check(message: &Received<'_>, len: usize, value: u8) {
    assert_eq!(message.len(), len);
    let is_whole = |bytes: &[u8]| bytes.iter().zip(0_u8..).all(|(byte, at)| *byte == value.wrapping_add(at));
    assert!(is_whole(message.bytes().unwrap()) && is_whole(&message.shared().to_vec()));
}

fn send(source: &Write, len: usize, value: u8) {
    let mut loan = source.port.get_buffer(len).unwrap();
    fill(&mut loan, value);
    assert!(source.port.emit(loan, 0).is_sent());
}

#[test]
fn every_length_comes_one_by_one() {
    for reliable in [false, true] {
        let (source, sink) = (source(reliable), sink());
        join(&source, &sink, 1);
        for (value, len) in (0..).zip(LENS.into_iter().chain(LENS)) {
            send(&source, len, value);
            let message = sink.port.consume().unwrap().unwrap();
            check(&message, len, value);
            assert_eq!((message.sequence(), message.lost()), (u64::from(value), 0));
            drop(message);
            assert!(sink.port.consume().unwrap().is_none());
        }
        assert_eq!(source.port.buffers_in_use(), 0);
    }
}

#[test]
fn several_are_out_at_once_on_both_sides() {
    let (source, sink) = (source(false), sink());
    join(&source, &sink, 1);
    let mut loans: Vec<Loan<'_>> = [8, 150, 64, 96].map(|len| source.port.get_buffer(len).unwrap()).into();
    for (value, loan) in (0..).zip(&mut loans) {
        fill(loan, value);
    }
    let spare = source.port.get_buffer(5).unwrap();
    // The last first: what is at hand goes out last.
    for loan in loans.into_iter().rev() {
        assert!(source.port.emit(loan, 7).is_sent());
    }
    drop(spare);
    let mut held: Vec<Received<'_>> = (0..4).map(|_| sink.port.consume().unwrap().unwrap()).collect();
    let expected = [(96, 3), (64, 2), (150, 1), (8, 0)];
    for release in [0, 1, 0, 0] {
        held.iter().for_each(|message| {
            let (len, value) = expected[message.sequence() as usize];
            check(message, len, value);
        });
        drop(held.remove(release));
        // Others come and go beside those that stay.
        send(&source, 40, 99);
        check(&sink.port.consume().unwrap().unwrap(), 40, 99);
    }
    assert_eq!(source.port.buffers_in_use(), 0);
}

#[test]
fn copies_losses_and_outcomes() {
    let (source, sink) = (source(false), sink());
    join(&source, &sink, 1);
    let tokens: Vec<_> =
        (0..6_u8).map(|value| source.port.emit_copy(&[value; 64], 0).unwrap().sent().unwrap()).collect();
    for value in 0..4 {
        assert_eq!(sink.port.consume().unwrap().unwrap().bytes().unwrap(), [value; 64]);
    }
    assert!(sink.port.consume().unwrap().is_none());
    send(&source, 150, 3);
    let message = sink.port.consume().unwrap().unwrap();
    assert_eq!(message.lost(), 2);
    check(&message, 150, 3);
    let outcome = |receivers, dropped| Outcome::Published { receivers, dropped, released: true };
    assert_eq!([source.port.outcome(tokens[0]), source.port.outcome(tokens[5])], [outcome(1, 0), outcome(0, 1)]);
}

#[test]
fn connections_come_and_go_while_messages_are_out() {
    let (first, second, sink) = (source(false), source(false), sink());
    join(&first, &sink, 1);
    send(&first, 64, 1);
    let held = sink.port.consume().unwrap().unwrap();
    join(&second, &sink, 2);
    send(&second, 150, 2);
    let other = sink.port.consume().unwrap().unwrap();
    assert!(first.mailbox.remove(ConnId(1)) && sink.mailbox.remove(ConnId(1)));
    assert!(!first.port.has_receivers() && sink.port.consume().unwrap().is_none());
    assert!(first.mailbox.collect().is_empty() && sink.mailbox.collect().is_empty());
    check(&held, 64, 1);
    drop(held);
    for value in 3..9 {
        send(&second, if value % 2 == 0 { 150 } else { 10 }, value);
        check(&sink.port.consume().unwrap().unwrap(), if value % 2 == 0 { 150 } else { 10 }, value);
    }
    check(&other, 150, 2);
    drop(other);
    drop((second, first));
    assert!(sink.port.consume().unwrap().is_none());
}

#[test]
fn a_liar_goes_and_what_it_sent_stays_until_it_is_released() {
    let (liar, sink) = (source(false), sink());
    let cells = join(&liar, &sink, 1);
    send(&liar, 150, 1);
    send(&liar, 64, 2);
    let held = [sink.port.consume().unwrap().unwrap(), sink.port.consume().unwrap().unwrap()];
    // A third cell of a kind that there is not.
    let cells = RegionCells::new(cells);
    let cell = insane_shm::cell::Cells::cell(&cells, 3);
    cell[1].store(7 << 32, Ordering::Relaxed);
    cell[0].store(3, Ordering::Release);
    assert!(sink.port.consume().unwrap().is_none());
    assert_eq!(sink.mailbox.collect(), [ConnId(1)]);
    check(&held[0], 150, 1);
    check(&held[1], 64, 2);
    drop(held);
    assert!(sink.port.consume().unwrap().is_none() && !sink.port.has_senders());
}

#[test]
fn two_threads() {
    let messages = if cfg!(miri) { 24_u8 } else { 200 };
    let (source, sink) = (source(true), sink());
    join(&source, &sink, 1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for value in 0..messages {
                let len = LENS[value as usize % LENS.len()];
                let mut loan = loop {
                    if let Ok(loan) = source.port.get_buffer(len) {
                        break loan;
                    }
                    std::thread::yield_now();
                };
                fill(&mut loan, value);
                while let insane_shm::port::Emit::Refused(back, _) = source.port.emit(loan, 0) {
                    std::thread::yield_now();
                    loan = back;
                }
            }
        });
        for value in 0..messages {
            let message = loop {
                if let Some(message) = sink.port.consume().unwrap() {
                    break message;
                }
                std::thread::yield_now();
            };
            check(&message, LENS[value as usize % LENS.len()], value);
        }
    });
}
