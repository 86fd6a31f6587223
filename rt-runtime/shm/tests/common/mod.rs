//! Connections over real memfds: each region mapped writable once, and read-only by the
//! other side, as two processes would.
#![allow(dead_code, reason = "each test uses its part")]

use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::heap::{ClassSpec, Geometry};
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::counters::CounterBlock;
use insane_shm::heap::{ForeignHeap, SenderHeap};
use insane_shm::port::{Mailbox, SinkPort, SourcePort};
use insane_shm::region::Region;
use insane_shm::returns::places;
use insane_shm::wake::{How, Sleeper, WAKE_PAGE_BYTES, Waker};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// A memfd that has its one writer.
pub struct Shared {
    fd: OwnedFd,
    len: usize,
    pub writer: Arc<Region>,
}

impl Shared {
    pub fn new(len: u64) -> Self {
        let fd = insane_sys::memfd::create("shm-test", len).unwrap();
        let writer = Region::map_writable(fd.as_fd(), len as usize).unwrap();
        Shared { fd, len: len as usize, writer }
    }

    pub fn reader(&self) -> Arc<Region> {
        Region::map_read_only(self.fd.as_fd(), self.len).unwrap()
    }

    /// A second writer, for tests in which one side lies.
    pub fn intruder(&self) -> Intruder {
        Intruder(memmap2::MmapOptions::new().len(self.len).map_raw(&self.fd).unwrap())
    }
}

pub struct Intruder(memmap2::MmapRaw);

impl Intruder {
    pub fn words(&self) -> usize {
        self.0.len() / 8
    }

    pub fn write(&self, word: usize, value: u64) {
        assert!(word < self.words());
        // SAFETY: inside the mapping, aligned; volatile, as the other side races.
        unsafe { self.0.as_mut_ptr().cast::<u64>().add(word).write_volatile(value) };
    }

    pub fn read(&self, word: usize) -> u64 {
        assert!(word < self.words());
        // SAFETY: as above.
        unsafe { self.0.as_ptr().cast::<u64>().add(word).read_volatile() }
    }
}

pub fn specs(classes: &[(u32, u32)]) -> Vec<ClassSpec> {
    classes.iter().map(|&(size, count)| ClassSpec { size, count }).collect()
}

/// A source with its heap.
pub struct TestSource {
    pub port: SourcePort,
    pub mailbox: Arc<Mailbox<TxConn>>,
    pub counters: CounterBlock,
    pub heap: Option<Shared>,
    pub geometry: Geometry,
}

impl TestSource {
    pub fn new(classes: &[(u32, u32)], reliable: bool) -> Self {
        let geometry = Geometry::new(&specs(classes)).unwrap();
        let heap = (geometry.bytes() > 0).then(|| Shared::new(geometry.bytes()));
        let sender = heap.as_ref().map(|heap| SenderHeap::new(Arc::clone(&heap.writer), geometry.clone()));
        let counters = CounterBlock::private();
        let (port, mailbox) = SourcePort::new(sender, reliable, counters.clone()).unwrap();
        TestSource { port, mailbox, counters, heap, geometry }
    }

    pub fn count(&self, counter: PortCounter) -> u64 {
        self.counters.get(counter as usize)
    }
}

/// A sink that may sleep.
pub struct TestSink {
    pub port: SinkPort,
    pub mailbox: Arc<Mailbox<RxConn>>,
    pub counters: CounterBlock,
    pub wake: Shared,
}

impl TestSink {
    pub fn new() -> Self {
        let wake = Shared::new(WAKE_PAGE_BYTES as u64);
        let counters = CounterBlock::private();
        let sleeper = Sleeper::new(Arc::clone(&wake.writer));
        let (port, mailbox) = SinkPort::new(Some(sleeper), counters.clone()).unwrap();
        TestSink { port, mailbox, counters, wake }
    }

    pub fn count(&self, counter: PortCounter) -> u64 {
        self.counters.get(counter as usize)
    }
}

/// The memory of one connection.
pub struct Rings {
    pub cells: Shared,
    pub returns: Shared,
}

impl Rings {
    pub fn new(depth: u32, geometry: &Geometry) -> Self {
        Rings {
            cells: Shared::new(cells_bytes(depth)),
            returns: Shared::new(returns_bytes(places(geometry.buffers()))),
        }
    }

    pub fn tx(&self, id: u32, depth: u32, geometry: &Geometry, waker: Option<Waker>) -> Box<TxConn> {
        let (cells, returns) = (Arc::clone(&self.cells.writer), self.returns.reader());
        Box::new(TxConn::new(ConnId(id), cells, returns, depth, geometry.buffers(), waker))
    }

    pub fn rx(&self, id: u32, depth: u32, geometry: &Geometry, heap: Option<&Shared>) -> Box<RxConn> {
        let heap = heap.map(|heap| ForeignHeap::new(heap.reader(), geometry.clone()).unwrap());
        let (cells, returns) = (self.cells.reader(), Arc::clone(&self.returns.writer));
        Box::new(RxConn::new(ConnId(id), cells, returns, depth, heap, false))
    }
}

/// Joins a source and a sink.
pub fn join(source: &TestSource, sink: &TestSink, id: u32, depth: u32) -> Rings {
    let rings = Rings::new(depth, &source.geometry);
    let waker = Waker::new(sink.wake.reader(), How::Futex);
    source.mailbox.add(rings.tx(id, depth, &source.geometry, Some(waker))).unwrap();
    sink.mailbox.add(rings.rx(id, depth, &source.geometry, source.heap.as_ref())).unwrap();
    rings
}

/// Joins a source and a sink by a ring that is told to be direct; nobody wakes the sink.
pub fn join_direct(source: &TestSource, sink: &TestSink, id: u32, depth: u32) -> Rings {
    let rings = Rings::new(depth, &source.geometry);
    source.mailbox.add(Box::new((*rings.tx(id, depth, &source.geometry, None)).direct())).unwrap();
    sink.mailbox.add(Box::new((*rings.rx(id, depth, &source.geometry, source.heap.as_ref())).direct())).unwrap();
    rings
}

/// Bytes that belong to one message alone.
pub fn fill(bytes: &mut [u8], sequence: u64) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = pattern(sequence, at);
    }
}

pub fn pattern(sequence: u64, at: usize) -> u8 {
    (sequence.wrapping_mul(31) as usize + at * 7) as u8
}

pub fn assert_pattern(bytes: &[u8], sequence: u64) {
    let is_whole = bytes.iter().enumerate().all(|(at, byte)| *byte == pattern(sequence, at));
    assert!(is_whole, "message {sequence} of {} bytes arrived with other bytes", bytes.len());
}

/// Sends one message that bears its sequence number's pattern.
pub fn send(source: &SourcePort, len: usize) -> bool {
    let Ok(mut loan) = source.get_buffer(len) else { return false };
    fill(&mut loan, source.next_sequence());
    source.emit(loan, 0).is_sent()
}
