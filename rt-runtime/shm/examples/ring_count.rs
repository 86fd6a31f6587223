//! Counts the instructions of one message through a source and a sink on one thread,
//! beside a bare copying ring, and with `pin` measures the round trip between two
//! pinned threads.
//!
//! ```text
//! ring_count MODE ROUNDS     MODE: bare, inline, token, idle
//! ring_count ping ROUNDS     bare ring and ports in interleaved rounds; two cores
//! valgrind --tool=callgrind --collect-atstart=no --toggle-collect='*measured*' ring_count inline 10000
//! ```
//! One round of `bare`, `inline`: 64 bytes written, sent, received, copied out,
//! released. Of `token`: a buffer of 1 KiB loaned, sent, received, released, untouched.

use insane_core::ConnId;
use insane_core::heap::{ClassSpec, Geometry};
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::counters::CounterBlock;
use insane_shm::heap::{ForeignHeap, SenderHeap};
use insane_shm::port::{SinkPort, SourcePort};
use insane_shm::region::Region;
use insane_shm::returns::places;
use std::cell::UnsafeCell;
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const DEPTH: u32 = 64;
const MESSAGE: usize = 64;

/// The bare rival: a single-producer, single-consumer ring that copies in and out and
/// keeps a copy of the other side's index.
struct Bare {
    head: Line,
    tail: Line,
    slots: Box<[Slot]>,
}

#[repr(align(128))]
struct Line(AtomicU64);

#[repr(align(64))]
struct Slot(UnsafeCell<[u8; MESSAGE]>);

// SAFETY: a slot is written only before the tail, and read only after it, is published.
unsafe impl Sync for Bare {}

#[derive(Default)]
struct BareEnd {
    own: u64,
    other: u64,
}

impl Bare {
    fn new() -> Self {
        let slots = (0..DEPTH).map(|_| Slot(UnsafeCell::new([0; MESSAGE]))).collect();
        Bare { head: Line(AtomicU64::new(0)), tail: Line(AtomicU64::new(0)), slots }
    }

    #[inline(never)]
    fn push(&self, end: &mut BareEnd, message: &[u8; MESSAGE]) -> bool {
        if end.own - end.other == u64::from(DEPTH) {
            end.other = self.head.0.load(Ordering::Acquire);
            if end.own - end.other == u64::from(DEPTH) {
                return false;
            }
        }
        let slot = &self.slots[(end.own & u64::from(DEPTH - 1)) as usize];
        // SAFETY: the slot is free (checked above) and the producer is one thread.
        unsafe { *slot.0.get() = *message };
        end.own += 1;
        self.tail.0.store(end.own, Ordering::Release);
        true
    }

    #[inline(never)]
    fn pop(&self, end: &mut BareEnd, into: &mut [u8; MESSAGE]) -> bool {
        if end.own == end.other {
            end.other = self.tail.0.load(Ordering::Acquire);
            if end.own == end.other {
                return false;
            }
        }
        let slot = &self.slots[(end.own & u64::from(DEPTH - 1)) as usize];
        // SAFETY: the slot is full (checked above) and the consumer is one thread.
        unsafe { *into = *slot.0.get() };
        end.own += 1;
        self.head.0.store(end.own, Ordering::Release);
        true
    }
}

fn connected() -> (SourcePort, SinkPort) {
    let geometry = Geometry::new(&[ClassSpec { size: 1024, count: 64 }]).expect("a good geometry");
    let region = |len: u64| Region::anonymous(len as usize).expect("memory");
    let heap = region(geometry.bytes());
    let cells = region(cells_bytes(DEPTH));
    let returns = region(returns_bytes(places(geometry.buffers())));
    let id = ConnId(1);
    let tx = TxConn::new(id, Arc::clone(&cells), Arc::clone(&returns), DEPTH, geometry.buffers(), None);
    let foreign = ForeignHeap::new(Arc::clone(&heap), geometry.clone());
    let rx = RxConn::new(id, cells, returns, DEPTH, foreign, true);
    let sender = SenderHeap::new(heap, geometry);
    let (source, to_source) = SourcePort::new(Some(sender), false, CounterBlock::private()).expect("memory");
    let (sink, to_sink) = SinkPort::new(None, CounterBlock::private()).expect("memory");
    to_source.add(Box::new(tx)).expect("an empty mailbox");
    to_sink.add(Box::new(rx)).expect("an empty mailbox");
    // Both read their mail.
    assert!(source.has_receivers() && sink.has_senders());
    (source, sink)
}

#[inline(never)]
fn measured_bare(ring: &Bare, tx: &mut BareEnd, rx: &mut BareEnd, rounds: u64) -> u64 {
    let mut sum = 0;
    for round in 0..rounds {
        let message = black_box([round as u8; MESSAGE]);
        assert!(ring.push(tx, &message));
        let mut out = [0; MESSAGE];
        assert!(ring.pop(rx, &mut out));
        sum += u64::from(black_box(&out)[5]);
    }
    sum
}

#[inline(never)]
fn send(source: &SourcePort, byte: u8) {
    let mut loan = source.get_buffer(MESSAGE).expect("a buffer");
    loan.copy_from_slice(&black_box([byte; MESSAGE]));
    assert!(source.emit(loan, 0).is_sent());
}

#[inline(never)]
fn receive(sink: &SinkPort, out: &mut [u8; MESSAGE]) -> bool {
    let Some(message) = sink.consume().expect("attached") else { return false };
    out.copy_from_slice(message.bytes().expect("in line"));
    true
}

#[inline(never)]
fn measured_inline(source: &SourcePort, sink: &SinkPort, rounds: u64) -> u64 {
    let mut sum = 0;
    for round in 0..rounds {
        send(source, round as u8);
        let mut out = [0; MESSAGE];
        assert!(receive(sink, &mut out));
        sum += u64::from(black_box(&out)[5]);
    }
    sum
}

#[inline(never)]
fn send_token(source: &SourcePort) {
    let loan = source.get_buffer(1024).expect("a buffer");
    assert!(source.emit(loan, 0).is_sent());
}

#[inline(never)]
fn receive_token(sink: &SinkPort) -> bool {
    let Some(message) = sink.consume().expect("attached") else { return false };
    black_box(message.len());
    true
}

#[inline(never)]
fn measured_token(source: &SourcePort, sink: &SinkPort, rounds: u64) -> u64 {
    let mut received = 0;
    for _ in 0..rounds {
        send_token(source);
        received += u64::from(receive_token(sink));
    }
    received
}

#[inline(never)]
fn measured_idle(sink: &SinkPort, rounds: u64) -> u64 {
    let mut received = 0;
    let mut out = [0; MESSAGE];
    for _ in 0..rounds {
        received += u64::from(receive(sink, &mut out));
    }
    received
}

fn pin(core: usize) {
    if let Err(error) = insane_sys::thread::pin_current(insane_sys::thread::cores()[core]) {
        eprintln!("not pinned: {error}");
    }
}

fn percentile(times: &mut [u64], of_thousand: usize) -> u64 {
    times.sort_unstable();
    times[(times.len() - 1) * of_thousand / 1000]
}

fn ping_bare(rounds: u64) -> Vec<u64> {
    let (there, back) = (Bare::new(), Bare::new());
    let mut times = Vec::with_capacity(rounds as usize);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            let (mut rx, mut tx, mut out) = (BareEnd::default(), BareEnd::default(), [0; MESSAGE]);
            for _ in 0..rounds {
                while !there.pop(&mut rx, &mut out) {
                    spin_loop();
                }
                assert!(back.push(&mut tx, &out));
            }
        });
        let (mut rx, mut tx, mut out) = (BareEnd::default(), BareEnd::default(), [0; MESSAGE]);
        for round in 0..rounds {
            let start = Instant::now();
            assert!(there.push(&mut tx, &black_box([round as u8; MESSAGE])));
            while !back.pop(&mut rx, &mut out) {
                spin_loop();
            }
            times.push(start.elapsed().as_nanos() as u64);
            assert!(black_box(&out)[63] == round as u8);
        }
    });
    times
}

fn ping_ports(rounds: u64) -> Vec<u64> {
    let ((source_a, sink_b), (source_b, sink_a)) = (connected(), connected());
    let mut times = Vec::with_capacity(rounds as usize);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            pin(1);
            let mut out = [0; MESSAGE];
            for _ in 0..rounds {
                while !receive(&sink_b, &mut out) {
                    spin_loop();
                }
                send(&source_b, out[63]);
            }
        });
        let mut out = [0; MESSAGE];
        for round in 0..rounds {
            let start = Instant::now();
            send(&source_a, round as u8);
            while !receive(&sink_a, &mut out) {
                spin_loop();
            }
            times.push(start.elapsed().as_nanos() as u64);
            assert!(black_box(&out)[63] == round as u8);
        }
    });
    times
}

fn ping(rounds: u64) {
    pin(0);
    const CELLS: usize = 9;
    let mut ratios = Vec::new();
    for _ in 0..CELLS {
        let (mut bare, mut ours) = (ping_bare(rounds), ping_ports(rounds));
        let (bare, ours) = (percentile(&mut bare, 500), percentile(&mut ours, 500));
        println!("p50 round trip: bare {bare} ns, ports {ours} ns");
        ratios.push(ours * 1000 / bare);
    }
    println!("median ratio: {:.3}", percentile(&mut ratios, 500) as f64 / 1000.0);
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mode = arguments.next().unwrap_or_else(|| "inline".into());
    let rounds = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let sum = match mode.as_str() {
        "bare" => measured_bare(&Bare::new(), &mut BareEnd::default(), &mut BareEnd::default(), rounds),
        "ping" => {
            ping(rounds);
            0
        }
        mode => {
            let (source, sink) = connected();
            match mode {
                "inline" => measured_inline(&source, &sink, rounds),
                "token" => measured_token(&source, &sink, rounds),
                "idle" => measured_idle(&sink, rounds),
                other => {
                    eprintln!("no such mode: {other}");
                    std::process::exit(2);
                }
            }
        }
    };
    println!("{mode}: {rounds} rounds, sum {sum}");
}
