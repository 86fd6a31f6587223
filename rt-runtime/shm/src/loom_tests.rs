//! Every interleaving of two threads, as far as the memory model allows it, over rings so
//! short that they wrap around.
//!
//! Run by `RUSTFLAGS="--cfg loom" cargo test -p insane-shm --release --lib loom`.

use crate::cell::{BELL, CELL_WORDS, Cell, Cells, Meta, QUIET};
use crate::returns::{Giver, Taker};
use crate::ring::{Consumer, Next, Payload, Popped, Producer};
use crate::stamped;
use crate::sync::{AtomicU64, Ordering};
use crate::wish::{Answer, Quiet, Wish};
use insane_core::heap::BufferId;
use insane_core::limits::INLINE_BYTES_MAX;
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// Memory made of loom's atomics.
#[derive(Clone)]
struct Memory(Arc<Vec<Cell>>);

impl Memory {
    fn new(cells: usize) -> Self {
        let words = || std::array::from_fn::<_, CELL_WORDS, _>(|_| AtomicU64::new(0));
        let cell = || Cell { words: words(), payload: UnsafeCell::new([0; INLINE_BYTES_MAX]) };
        Memory(Arc::new((0..cells).map(|_| cell()).collect()))
    }
}

impl Cells for Memory {
    fn cell(&self, index: usize) -> &Cell {
        &self.0[index]
    }

    fn cell_count(&self) -> usize {
        self.0.len()
    }

    unsafe fn write_payload(cell: &Cell, bytes: &[u8]) {
        // SAFETY: nobody else looks, says the caller; loom checks it.
        cell.payload.with_mut(|payload| unsafe { (&mut *payload)[..bytes.len()].copy_from_slice(bytes) });
    }

    unsafe fn read_payload(cell: &Cell, len: usize, into: *mut u8) {
        // SAFETY: nobody writes, loom checks it; `into` holds 96 bytes, and `len` is at most that.
        cell.payload.with(|payload| unsafe { into.copy_from_nonoverlapping(payload.cast(), len) });
    }
}

const DEPTH: u32 = 2;

fn ring() -> (Producer<Memory, Memory>, Consumer<Memory, Memory>) {
    let (cells, returns) = (Memory::new(1 + DEPTH as usize), Memory::new(1));
    (Producer::new(cells.clone(), returns.clone(), DEPTH), Consumer::new(cells, returns, DEPTH))
}

fn pop(consumer: &mut Consumer<Memory, Memory>) -> Option<u64> {
    let mut popped = Popped::EMPTY;
    // The short ways that ports take, and the long one.
    match consumer.take_next(&mut popped.inline) {
        Next::Inline(meta, len) => (popped.meta, popped.len, popped.payload) = (meta, len, Payload::Inline),
        Next::Heap(meta, len, id) => {
            (popped.meta, popped.len, popped.payload) = (meta, len, Payload::Heap(id));
            consumer.pass();
        }
        Next::Nothing if consumer.pop(&mut popped).expect("nobody lies") => {}
        Next::Nothing => return None,
        Next::Odd => panic!("nobody lies"),
    }
    let sequence = popped.meta.sequence;
    // Each part of the cell belongs to this very message.
    assert_eq!(popped.meta.source_ns, sequence * 3);
    match popped.payload {
        Payload::Inline => assert_eq!(popped.inline.0[..popped.len as usize], [sequence as u8 + 1; 9]),
        Payload::Heap(id) => assert_eq!((id.0, popped.len), (sequence as u32, 77)),
    }
    Some(sequence)
}

fn push(producer: &mut Producer<Memory, Memory>, sequence: u64) {
    let meta = Meta { sequence, source_ns: sequence * 3, lost: 0 };
    if sequence < 3 {
        producer.push_inline(meta, &[sequence as u8 + 1; 9]);
    } else {
        producer.push_heap(meta, BufferId(sequence as u32), 77);
    }
}

/// Every interleaving with up to three switches that no thread asked for.
fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// Five messages through a ring of two: wrapped around twice.
#[test]
fn loom_ring_delivers_in_order_and_whole() {
    check(|| {
        const MESSAGES: u64 = 5;
        let (mut producer, mut consumer) = ring();
        let sender = thread::spawn(move || {
            for sequence in 0..MESSAGES {
                while !producer.has_room().expect("nobody lies") {
                    thread::yield_now();
                }
                push(&mut producer, sequence);
            }
        });
        for expected in 0..MESSAGES {
            let sequence = loop {
                match pop(&mut consumer) {
                    Some(sequence) => break sequence,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(sequence, expected);
        }
        assert_eq!(pop(&mut consumer), None);
        sender.join().unwrap();
    });
}

/// Two buffers go round: what the receiver read is over before the sender writes again.
/// The buffers are cells whose concurrent access loom reports.
#[test]
fn loom_returns_hand_buffers_back() {
    check(|| {
        const BUFFERS: u32 = 2;
        const MESSAGES: u64 = 4;
        let (mut producer, mut consumer) = ring();
        let returns = Memory::new(2);
        let (mut giver, mut taker) = (Giver::new(returns.clone(), BUFFERS), Taker::new(returns, BUFFERS));
        let heap = Arc::new([UnsafeCell::new(0_u64), UnsafeCell::new(0_u64)]);
        let theirs = Arc::clone(&heap);
        let sender = thread::spawn(move || {
            let mut free = vec![BufferId(0), BufferId(1)];
            for sequence in 0..MESSAGES {
                let id = loop {
                    while let Some(id) = taker.take() {
                        free.push(id);
                    }
                    match free.pop() {
                        Some(id) => break id,
                        None => thread::yield_now(),
                    }
                };
                // SAFETY: the buffer is free; loom checks it.
                theirs[id.0 as usize].with_mut(|word| unsafe { *word = sequence });
                while !producer.has_room().expect("nobody lies") {
                    thread::yield_now();
                }
                producer.push_heap(Meta { sequence, ..Meta::default() }, id, 8);
            }
        });
        let mut popped = Popped::EMPTY;
        for sequence in 0..MESSAGES {
            while !consumer.pop(&mut popped).expect("nobody lies") {
                thread::yield_now();
            }
            let Payload::Heap(id) = popped.payload else { panic!("all travel in the heap") };
            // SAFETY: the buffer is lent to us; loom checks it.
            assert_eq!(heap[id.0 as usize].with(|word| unsafe { *word }), sequence);
            giver.give(id);
            giver.flush();
        }
        sender.join().unwrap();
    });
}

/// The sender takes a buffer back and writes it anew: a receiver that has read what it was not sent
/// finds out when it looks afterwards.
#[test]
fn loom_who_reads_what_was_taken_back_finds_out() {
    check(|| {
        let (mut producer, mut consumer) = ring();
        let buffer = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let theirs = Arc::clone(&buffer);
        let sender = thread::spawn(move || {
            theirs.iter().for_each(|word| word.store(1, Ordering::Relaxed));
            producer.push_heap(Meta::default(), BufferId(0), 16);
            producer.close();
            producer.take_back();
            theirs.iter().for_each(|word| word.store(2, Ordering::Relaxed));
            // A second end changes nothing.
            producer.close();
        });
        let mut popped = Popped::EMPTY;
        if consumer.pop(&mut popped).expect("nobody lies") {
            let read: [u64; 2] = std::array::from_fn(|at| buffer[at].load(Ordering::Relaxed));
            assert!(consumer.is_taken_back() || read == [1, 1], "{read:?}");
        }
        sender.join().unwrap();
        assert!(consumer.is_taken_back());
    });
}

/// A futex as the kernel has it: the look at the word and falling asleep are one step, as
/// seen from who wakes.
struct Futex {
    asleep: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    fn new() -> Self {
        Futex { asleep: Mutex::new(()), woken: Condvar::new() }
    }

    /// Sleeps until woken, unless the word has changed. Without a timeout: a wake-up that
    /// is lost is a deadlock, which loom reports.
    fn wait(&self, word: &AtomicU64, expected: u64) {
        let asleep = self.asleep.lock().unwrap();
        if word.load(Ordering::Relaxed) == expected {
            drop(self.woken.wait(asleep).unwrap());
        }
    }

    fn wake(&self) {
        let _asleep = self.asleep.lock().unwrap();
        self.woken.notify_all();
    }
}

/// The receiver's wish and the sender's bell, around a ring: no sleep is missed.
#[test]
fn loom_no_wake_is_lost() {
    check(|| {
        const MESSAGES: u64 = 2;
        let cells = Memory::new(1 + DEPTH as usize);
        let returns = Memory::new(1);
        let mut producer = Producer::new(cells.clone(), returns.clone(), DEPTH);
        let mut consumer = Consumer::new(cells.clone(), returns, DEPTH);
        let wish_word = Arc::new(AtomicU64::new(0));
        let futex = Arc::new(Futex::new());
        let (their_word, their_futex) = (Arc::clone(&wish_word), Arc::clone(&futex));
        let sender = thread::spawn(move || {
            let mut answer = Answer::default();
            for sequence in 0..MESSAGES {
                push(&mut producer, sequence);
                if answer.is_wanted((&their_word, &AtomicU64::new(0)), sequence + 1) {
                    producer.ring_bell();
                    their_futex.wake();
                }
            }
        });
        let mut wish = Wish::new(&wish_word);
        for expected in 0..MESSAGES {
            let sequence = loop {
                if let Some(sequence) = pop(&mut consumer) {
                    break sequence;
                }
                wish.arm(&wish_word);
                let bell = consumer.bell().load(Ordering::Acquire);
                if !consumer.is_ready() {
                    futex.wait(&cells.cell(0)[BELL], bell);
                }
                wish.disarm(&wish_word);
            };
            assert_eq!(sequence, expected);
        }
        sender.join().unwrap();
    });
}

/// A ring of one place: every record overwrites the one before, and the reader is lapped at
/// each of its steps. Two words are enough for a record to be of two.
#[test]
fn loom_a_record_is_read_whole_or_not_at_all() {
    loom::model(|| {
        let word = || AtomicU64::new(0);
        let place = Arc::new((word(), [word(), word()], word()));
        let of_writer = Arc::clone(&place);
        let writer = thread::spawn(move || {
            let (stamp, words, written) = &*of_writer;
            for number in 1..=2 {
                stamped::write(stamp, words, number, [number; 2]);
                // Release: as `TraceLog::note` has it.
                written.store(number, Ordering::Release);
            }
        });
        let (stamp, words, written) = &*place;
        // Acquire: as `TraceReader::take` has it.
        let newest = written.load(Ordering::Acquire);
        for number in 1..=2 {
            match stamped::read(stamp, words, number) {
                Some(content) => assert_eq!(content, [number; 2], "no word is of another record"),
                None => assert!(number < 2 || newest < 2, "the last one is not overwritten any more"),
            }
        }
        writer.join().unwrap();
        assert_eq!(stamped::read(stamp, words, 2), Some([2; 2]), "what is there last is read");
    });
}

/// An eventfd in an epoll set that waits for its edges: it keeps that it was signalled until
/// somebody has heard of it.
struct Doorbell {
    rung: Mutex<bool>,
    woken: Condvar,
}

impl Doorbell {
    fn new() -> Self {
        Doorbell { rung: Mutex::new(false), woken: Condvar::new() }
    }

    /// Without a timeout, as in `Futex::wait`.
    fn hear(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.woken.wait(rung).unwrap();
        }
        *rung = false;
    }

    fn ring(&self) {
        let mut rung = self.rung.lock().unwrap();
        *rung = true;
        self.woken.notify_all();
    }
}

/// A datapath that sleeps, with one source: it looks at it for so many messages, before each
/// sleep as well; then the source is quiet after each message, and is looked at only once it has
/// rung.
fn sleep_with_one_source(watched: u64) {
    const MESSAGES: u64 = 2;
    let cells = Memory::new(1 + DEPTH as usize);
    let returns = Memory::new(1);
    let mut producer = Producer::new(cells.clone(), returns.clone(), DEPTH);
    let mut consumer = Consumer::new(cells, returns.clone(), DEPTH);
    let asleep = Arc::new(AtomicU64::new(0));
    let doorbell = Arc::new(Doorbell::new());
    let (their_asleep, their_doorbell) = (Arc::clone(&asleep), Arc::clone(&doorbell));
    let sender = thread::spawn(move || {
        let mut answer = Answer::default();
        for sequence in 0..MESSAGES {
            push(&mut producer, sequence);
            if answer.is_wanted((&their_asleep, &returns.cell(0)[QUIET]), sequence + 1) {
                their_doorbell.ring();
            }
        }
    });
    let (mut sleeps, mut quiet) = (Wish::new(&asleep), Quiet::new());
    for expected in 0..MESSAGES {
        let sequence = loop {
            if !quiet.is_armed() {
                // A turn.
                if let Some(sequence) = pop(&mut consumer) {
                    break sequence;
                }
                if expected >= watched {
                    // As in `RxConn::be_quiet`.
                    quiet.arm(consumer.quiet_word(), consumer.position());
                    if consumer.is_ready() {
                        quiet.disarm(consumer.quiet_word());
                        continue;
                    }
                }
            }
            sleeps.arm(&asleep);
            if quiet.is_armed() || !consumer.is_ready() {
                doorbell.hear();
            }
            sleeps.disarm(&asleep);
            if quiet.is_armed() && consumer.is_ready() {
                quiet.disarm(consumer.quiet_word());
            }
        };
        assert_eq!(sequence, expected);
    }
    sender.join().unwrap();
}

#[test]
fn loom_a_quiet_source_is_heard_before_and_after_the_datapath_sleeps() {
    check(|| sleep_with_one_source(0));
}

#[test]
fn loom_a_source_that_was_watched_is_heard_once_it_is_quiet() {
    check(|| sleep_with_one_source(1));
}
