//! A copying single-producer single-consumer ring with cached indices.
//!
//! ```text
//! offset   0  head: messages taken,  written by the consumer alone
//! offset 128  tail: messages put in, written by the producer alone
//! offset 256  places, each a multiple of 64 bytes
//! ```
//! Head and tail are two lines apart, because processors fetch lines in pairs.
//! Each end keeps its own index and a cached copy of the other's, and looks at
//! the other's line only when the cached copy says full or empty.
//!
//! Invariants: `tail - head <= capacity`; the producer writes only places in
//! `tail .. head + capacity`, the consumer reads only places in `head .. tail`.
//! Bounds: capacity is a power of two, fixed at creation.

use crate::memory::Memory;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const HEAD_OFFSET: usize = 0;
const TAIL_OFFSET: usize = 128;
const PLACES_OFFSET: usize = 256;
const LINE_BYTES: usize = 64;

const fn stride(place_bytes: usize) -> usize {
    place_bytes.div_ceil(LINE_BYTES) * LINE_BYTES
}

pub(crate) const fn memory_bytes(capacity: usize, place_bytes: usize) -> usize {
    PLACES_OFFSET + capacity * stride(place_bytes)
}

/// The memory shared by both ends, and its geometry.
struct Shared {
    base: NonNull<u8>,
    mask: u64,
    stride: usize,
    _memory: Arc<Memory>,
}

impl Shared {
    fn new(memory: &Arc<Memory>, capacity: usize, place_bytes: usize) -> Self {
        assert!(capacity.is_power_of_two(), "the capacity is a power of two");
        assert!(memory.len() >= memory_bytes(capacity, place_bytes), "the memory holds the ring");
        Shared {
            base: memory.base(),
            mask: capacity as u64 - 1,
            stride: stride(place_bytes),
            _memory: Arc::clone(memory),
        }
    }

    #[inline(always)]
    fn head(&self) -> &AtomicU64 {
        // SAFETY: inside the memory (asserted in `new`), aligned to a page plus
        // HEAD_OFFSET, alive as long as `_memory`, and only ever used atomically.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(HEAD_OFFSET).cast()) }
    }

    #[inline(always)]
    fn tail(&self) -> &AtomicU64 {
        // SAFETY: as in `head`.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(TAIL_OFFSET).cast()) }
    }

    #[inline(always)]
    fn place(&self, index: u64) -> *mut u8 {
        // SAFETY: the masked index is below the capacity, so the place lies
        // inside the memory (asserted in `new`).
        unsafe { self.base.as_ptr().add(PLACES_OFFSET + (index & self.mask) as usize * self.stride) }
    }
}

/// The producer's indices.
struct PutEnd {
    shared: Shared,
    tail: u64,
    head_cached: u64,
}

impl PutEnd {
    /// The next place to write, unless the ring is full.
    #[inline(always)]
    fn claim(&mut self) -> Option<*mut u8> {
        if self.tail - self.head_cached > self.shared.mask {
            // Acquire pairs with the Release in `TakeEnd::release`: the consumer
            // has finished reading a place before it is written again.
            self.head_cached = self.shared.head().load(Ordering::Acquire);
            if self.tail - self.head_cached > self.shared.mask {
                return None;
            }
        }
        Some(self.shared.place(self.tail))
    }

    #[inline(always)]
    fn is_full(&mut self) -> bool {
        self.claim().is_none()
    }

    #[inline(always)]
    fn publish(&mut self) {
        self.tail += 1;
        // Release pairs with the Acquire in `TakeEnd::peek`: the payload is
        // written before the tail that covers it.
        self.shared.tail().store(self.tail, Ordering::Release);
    }
}

/// The consumer's indices.
struct TakeEnd {
    shared: Shared,
    head: u64,
    tail_cached: u64,
}

impl TakeEnd {
    /// The oldest message's place, unless the ring is empty.
    #[inline(always)]
    fn peek(&mut self) -> Option<*const u8> {
        if self.head == self.tail_cached {
            self.tail_cached = self.shared.tail().load(Ordering::Acquire);
            if self.head == self.tail_cached {
                return None;
            }
        }
        Some(self.shared.place(self.head).cast_const())
    }

    #[inline(always)]
    fn release(&mut self) {
        self.head += 1;
        self.shared.head().store(self.head, Ordering::Release);
    }
}

fn ends(memory: &Arc<Memory>, capacity: usize, place_bytes: usize) -> (PutEnd, TakeEnd) {
    let put = PutEnd { shared: Shared::new(memory, capacity, place_bytes), tail: 0, head_cached: 0 };
    let take = TakeEnd { shared: Shared::new(memory, capacity, place_bytes), head: 0, tail_cached: 0 };
    (put, take)
}

/// The write end of a ring of messages of `SIZE` bytes.
pub struct Producer<const SIZE: usize>(PutEnd);
/// The read end of a ring of messages of `SIZE` bytes.
pub struct Consumer<const SIZE: usize>(TakeEnd);

// SAFETY: there is one `PutEnd` and one `TakeEnd` for each ring, neither can be
// cloned, and each uses places only as the module's invariants allow; the atomics
// carry the hand-over, so either end may live on any thread.
unsafe impl<const SIZE: usize> Send for Producer<SIZE> {}
// SAFETY: as above.
unsafe impl<const SIZE: usize> Send for Consumer<SIZE> {}

/// A ring of `capacity` messages of `SIZE` bytes on the heap.
///
/// # Panics
/// If the capacity is not a power of two.
#[must_use]
pub fn ring<const SIZE: usize>(capacity: usize) -> (Producer<SIZE>, Consumer<SIZE>) {
    let memory = Arc::new(Memory::heap(memory_bytes(capacity, SIZE)));
    let (put, take) = ends(&memory, capacity, SIZE);
    (Producer(put), Consumer(take))
}

impl<const SIZE: usize> Producer<SIZE> {
    /// Whether there is no room now; asked before a message is composed.
    #[inline(always)]
    #[must_use]
    pub fn is_full(&mut self) -> bool {
        self.0.is_full()
    }

    /// Copies a message in. False when the ring is full.
    #[inline(always)]
    #[must_use]
    pub fn push(&mut self, message: &[u8; SIZE]) -> bool {
        let Some(place) = self.0.claim() else { return false };
        // SAFETY: the place has at least SIZE bytes and is the producer's until
        // `publish`; the message is a borrow and cannot overlap the ring.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), place, SIZE) };
        self.0.publish();
        true
    }

    /// Moves the oldest message of another ring into this one with one copy, from
    /// place to place. False when there is none or this ring is full.
    #[inline(always)]
    #[must_use]
    pub fn forward(&mut self, from: &mut Consumer<SIZE>) -> bool {
        let Some(source) = from.0.peek() else { return false };
        let Some(place) = self.0.claim() else { return false };
        // SAFETY: `source` is the consumer's until `release`, `place` the producer's
        // until `publish`; they lie in the memories of two different rings, since
        // one relay holds one end of each.
        unsafe { std::ptr::copy_nonoverlapping(source, place, SIZE) };
        self.0.publish();
        from.0.release();
        true
    }
}

impl<const SIZE: usize> Consumer<SIZE> {
    /// Copies the oldest message out. False when the ring is empty.
    #[inline(always)]
    #[must_use]
    pub fn pop(&mut self, message: &mut [u8; SIZE]) -> bool {
        let Some(place) = self.0.peek() else { return false };
        // SAFETY: the place holds SIZE initialised bytes that the producer does not
        // write until `release`; the message is a borrow and cannot overlap it.
        unsafe { std::ptr::copy_nonoverlapping(place, message.as_mut_ptr(), SIZE) };
        self.0.release();
        true
    }
}

/// The write end of a ring whose message size is known only at run time.
pub struct BytesProducer(PutEnd, usize);
/// The read end of a ring whose message size is known only at run time.
pub struct BytesConsumer(TakeEnd, usize);

// SAFETY: as for `Producer`.
unsafe impl Send for BytesProducer {}
// SAFETY: as for `Consumer`.
unsafe impl Send for BytesConsumer {}

/// A ring of `capacity` messages of `size` bytes on the heap.
///
/// # Panics
/// If the capacity is not a power of two.
#[must_use]
pub fn bytes_ring(capacity: usize, size: usize) -> (BytesProducer, BytesConsumer) {
    let memory = Arc::new(Memory::heap(memory_bytes(capacity, size)));
    let (put, take) = ends(&memory, capacity, size);
    (BytesProducer(put, size), BytesConsumer(take, size))
}

impl BytesProducer {
    /// The write end of a fresh, zeroed ring in memory that another mapping shares.
    ///
    /// # Safety
    /// No other `BytesProducer` exists for this memory, in any mapping of it.
    pub(crate) unsafe fn over(memory: &Arc<Memory>, capacity: usize, size: usize) -> Self {
        BytesProducer(PutEnd { shared: Shared::new(memory, capacity, size), tail: 0, head_cached: 0 }, size)
    }

    /// Whether there is no room now; asked before a message is composed.
    #[inline(always)]
    #[must_use]
    pub fn is_full(&mut self) -> bool {
        self.0.is_full()
    }

    /// Copies a message in. False when the ring is full.
    ///
    /// # Panics
    /// If the message is larger than the ring's size.
    #[inline(always)]
    #[must_use]
    pub fn push(&mut self, message: &[u8]) -> bool {
        assert!(message.len() <= self.1, "the message fits a place");
        let Some(place) = self.0.claim() else { return false };
        // SAFETY: the place has at least `self.1` bytes (asserted above) and is the
        // producer's until `publish`; a borrow cannot overlap the ring.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), place, message.len()) };
        self.0.publish();
        true
    }
}

impl BytesConsumer {
    /// The read end of a fresh, zeroed ring in memory that another mapping shares.
    ///
    /// # Safety
    /// No other `BytesConsumer` exists for this memory, in any mapping of it.
    pub(crate) unsafe fn over(memory: &Arc<Memory>, capacity: usize, size: usize) -> Self {
        BytesConsumer(TakeEnd { shared: Shared::new(memory, capacity, size), head: 0, tail_cached: 0 }, size)
    }

    /// Copies the first `message.len()` bytes of the oldest message out. False when
    /// the ring is empty.
    ///
    /// # Panics
    /// If more is asked for than the ring's size.
    #[inline(always)]
    #[must_use]
    pub fn pop(&mut self, message: &mut [u8]) -> bool {
        assert!(message.len() <= self.1, "a place holds that much");
        let Some(place) = self.0.peek() else { return false };
        // SAFETY: the place has at least `self.1` initialised bytes (zeroed at
        // creation) that the producer does not write until `release`.
        unsafe { std::ptr::copy_nonoverlapping(place, message.as_mut_ptr(), message.len()) };
        self.0.release();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A small deterministic generator, so that a failure can be repeated.
    fn next(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    #[test]
    fn random_operations_agree_with_a_queue() {
        let (mut put, mut take) = ring::<64>(8);
        let mut oracle = VecDeque::new();
        let mut state = 7;
        for step in 0..100_000_u64 {
            let mut message = [0_u8; 64];
            if next(&mut state).is_multiple_of(2) {
                message[..8].copy_from_slice(&step.to_le_bytes());
                message[63] = step as u8;
                let taken = put.push(&message);
                assert_eq!(taken, oracle.len() < 8, "step {step}");
                if taken {
                    oracle.push_back(message);
                }
            } else {
                let got = take.pop(&mut message).then_some(message);
                assert_eq!(got, oracle.pop_front(), "step {step}");
            }
        }
    }

    #[test]
    fn a_relay_keeps_order_and_stops_at_a_full_ring() {
        let (mut put, mut middle_take) = ring::<8>(8);
        let (mut middle_put, mut take) = ring::<8>(4);
        for n in 0..8_u64 {
            assert!(put.push(&n.to_le_bytes()));
        }
        for _ in 0..4 {
            assert!(middle_put.forward(&mut middle_take));
        }
        assert!(!middle_put.forward(&mut middle_take), "the second ring is full");
        let mut message = [0; 8];
        for n in 0..8_u64 {
            assert!(take.pop(&mut message));
            assert_eq!(u64::from_le_bytes(message), n);
            let _ = middle_put.forward(&mut middle_take);
        }
        assert!(!take.pop(&mut message));
    }

    #[test]
    fn two_threads_see_every_byte_in_order() {
        const MESSAGES: u64 = 200_000;
        let (mut put, mut take) = bytes_ring(64, 100);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for n in 0..MESSAGES {
                    while !put.push(&[n as u8; 100]) {
                        std::thread::yield_now();
                    }
                }
            });
            let mut message = [0; 100];
            for n in 0..MESSAGES {
                while !take.pop(&mut message) {
                    std::thread::yield_now();
                }
                assert!(message.iter().all(|byte| *byte == n as u8), "message {n}");
            }
        });
    }

    #[test]
    #[should_panic(expected = "the message fits a place")]
    fn a_message_that_does_not_fit_is_refused() {
        let (mut put, _take) = bytes_ring(2, 64);
        let _ = put.push(&[0; 65]);
    }
}
