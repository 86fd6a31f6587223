//! The completion ring: the consumer of a connection gives buffers back.
//!
//! It lies in the returns region behind the consumer's head and has at least as many
//! places as the sender's heap has buffers; a consumer holds each buffer at most once,
//! so the ring never fills and needs no head of its own. An entry carries its position,
//! so entries appear one by one; the consumer writes them up to eight at a time, one
//! cache line. What waits for its batch waits only while messages wait in the ring, and
//! is never more than a quarter of any class ([`RxConn`](crate::conn::RxConn) sees to it):
//! a receiver that sleeps or does something else keeps nothing back.

use crate::Violation;
use crate::cell::{CELL_WORDS, Cells};
use crate::sync::Ordering;
use insane_core::heap::BufferId;

/// Entries that wait for a full line, at most.
pub const BATCH: usize = 8;

/// Places a completion ring needs for a heap of `buffers` buffers: a power of two, or
/// 0 without a heap.
#[must_use]
pub const fn places(buffers: u32) -> u32 {
    if buffers == 0 { 0 } else { buffers.next_power_of_two() }
}

const fn entry(position: u64, id: BufferId) -> u64 {
    ((position as u32).wrapping_add(1) as u64) << 32 | id.0 as u64
}

/// The end that gives back.
#[derive(Debug)]
pub struct Giver<R> {
    returns: R,
    places: u64,
    position: u64,
    batch: [BufferId; BATCH],
    batched: usize,
    batch_max: usize,
}

impl<R: Cells> Giver<R> {
    /// # Panics
    /// If `places` is neither 0 nor a power of two, or the memory is too small.
    pub fn new(returns: R, places: u32) -> Self {
        assert!(places == 0 || places.is_power_of_two());
        assert!(returns.cell_count() > (places as usize).div_ceil(CELL_WORDS));
        Giver {
            returns,
            places: u64::from(places),
            position: 0,
            batch: [BufferId(0); BATCH],
            batched: 0,
            batch_max: (places as usize / 4).clamp(1, BATCH),
        }
    }

    /// Lets at most `entries` (1 to [`BATCH`]) wait, however many places there are.
    #[must_use]
    pub fn with_batch_max(mut self, entries: usize) -> Self {
        self.batch_max = entries.clamp(1, BATCH);
        self
    }

    /// Whether something waits for its batch.
    #[inline]
    #[must_use]
    pub const fn is_holding_back(&self) -> bool {
        self.batched > 0
    }

    /// Gives `id` back; it may wait for its batch.
    ///
    /// # Panics
    /// On a connection without a heap.
    #[inline]
    pub fn give(&mut self, id: BufferId) {
        assert!(self.places > 0, "a connection without a heap has nothing to give back");
        self.batch[self.batched] = id;
        self.batched += 1;
        if self.batched >= self.batch_max {
            self.flush();
        }
    }

    /// Writes out what waits.
    #[inline]
    pub fn flush(&mut self) {
        if self.batched > 0 {
            self.write_batch();
        }
    }

    #[inline(never)]
    fn write_batch(&mut self) {
        for at in 0..self.batched {
            self.write(self.batch[at]);
        }
        self.batched = 0;
    }

    /// Gives `id` back at once. What waits for a batch is older, and goes first.
    #[inline(always)]
    pub(crate) fn give_now(&mut self, id: BufferId) {
        assert!(self.places > 0, "a connection without a heap has nothing to give back");
        self.flush();
        self.write(id);
    }

    #[inline(always)]
    fn write(&mut self, id: BufferId) {
        let at = (self.position & (self.places - 1)) as usize;
        // SAFETY: `new` checked that there are cells for all places, behind the first.
        let word = unsafe { self.returns.word_unchecked(CELL_WORDS + at) };
        // Release pairs with the taker's Acquire: our reads of the buffer are over.
        word.store(entry(self.position, id), Ordering::Release);
        self.position += 1;
    }
}

/// The end that takes back: the sender.
#[derive(Debug)]
pub struct Taker<R> {
    returns: R,
    places: u64,
    position: u64,
}

impl<R: Cells> Taker<R> {
    /// # Panics
    /// If `places` is neither 0 nor a power of two, or the memory is too small.
    pub fn new(returns: R, places: u32) -> Self {
        assert!(places == 0 || places.is_power_of_two());
        assert!(returns.cell_count() > (places as usize).div_ceil(CELL_WORDS));
        Taker { returns, places: u64::from(places), position: 0 }
    }

    /// How many buffers were taken back.
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// The next buffer that was given back: a claim, to be checked against what the
    /// connection holds.
    #[inline]
    pub fn take(&mut self) -> Option<BufferId> {
        if self.places == 0 {
            return None;
        }
        let at = (self.position & (self.places - 1)) as usize;
        // SAFETY: `new` checked that there are cells for all places, behind the first.
        let word = unsafe { self.returns.word_unchecked(CELL_WORDS + at) }.load(Ordering::Acquire);
        if (word >> 32) as u32 != (self.position as u32).wrapping_add(1) {
            return None;
        }
        self.position += 1;
        Some(BufferId(word as u32))
    }
}

/// Which buffers a connection holds: the sender's private memory.
#[derive(Debug)]
pub struct Borrowed {
    bits: Box<[u64]>,
    count: u32,
}

impl Borrowed {
    /// For a heap of `buffers` buffers.
    #[must_use]
    pub fn new(buffers: u32) -> Self {
        Borrowed { bits: vec![0; (buffers as usize).div_ceil(64)].into(), count: 0 }
    }

    /// Buffers held.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The connection now holds `id`.
    ///
    /// # Panics
    /// If it already does, or there is no such buffer: a bug of the sender.
    #[inline]
    pub fn set(&mut self, id: BufferId) {
        let word = &mut self.bits[id.0 as usize / 64];
        let bit = 1 << (id.0 % 64);
        assert!(*word & bit == 0, "a buffer was lent twice on one connection");
        *word |= bit;
        self.count += 1;
    }

    /// The one check of a completion: the connection held `id` and holds it no more.
    ///
    /// # Errors
    /// It did not hold it, or there is no such buffer.
    #[inline]
    pub fn clear(&mut self, id: BufferId) -> Result<(), Violation> {
        let word = self.bits.get_mut(id.0 as usize / 64).ok_or(Violation::Return)?;
        let bit = 1 << (id.0 % 64);
        if *word & bit == 0 {
            return Err(Violation::Return);
        }
        *word &= !bit;
        self.count -= 1;
        Ok(())
    }

    /// Takes back everything the connection holds, for a receiver that died.
    pub fn drain(&mut self, mut each: impl FnMut(BufferId)) {
        for (at, word) in self.bits.iter_mut().enumerate() {
            while *word != 0 {
                let bit = word.trailing_zeros();
                *word &= *word - 1;
                each(BufferId(at as u32 * 64 + bit));
            }
        }
        self.count = 0;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cell::returns_bytes;
    use crate::region::{Region, RegionCells};
    use proptest::prelude::*;
    use std::collections::{BTreeSet, VecDeque};

    fn ends(places: u32) -> (Giver<RegionCells>, Taker<RegionCells>) {
        let cells = RegionCells::new(Region::anonymous(returns_bytes(places) as usize).unwrap());
        (Giver::new(cells.clone(), places), Taker::new(cells, places))
    }

    proptest! {
        #[test]
        fn what_is_given_is_taken_in_order(places_log in 0..7_u32, steps in prop::collection::vec(0..3_u8, 0..600)) {
            let places = 1 << places_log;
            let (mut giver, mut taker) = ends(places);
            let mut out = VecDeque::new();
            let mut given = 0;
            for step in steps {
                match step {
                    // A consumer gives back no more than it holds, and that is no more than there are places.
                    0 if out.len() < places as usize => {
                        giver.give(BufferId(given));
                        out.push_back(BufferId(given));
                        given += 1;
                    }
                    1 => giver.flush(),
                    _ => {
                        let held_back = giver.batched;
                        prop_assert!(held_back < BATCH && held_back <= (places as usize / 4));
                        match taker.take() {
                            Some(id) => prop_assert_eq!(out.pop_front(), Some(id)),
                            None => prop_assert_eq!(out.len(), held_back),
                        }
                    }
                }
            }
        }

        #[test]
        fn borrowed_is_a_set(steps in prop::collection::vec((any::<bool>(), 0..140_u32), 0..300)) {
            let mut borrowed = Borrowed::new(130);
            let mut model = BTreeSet::new();
            for (lend, id) in steps {
                if !lend {
                    prop_assert_eq!(borrowed.clear(BufferId(id)).is_ok(), model.remove(&id));
                } else if id < 130 && model.insert(id) {
                    borrowed.set(BufferId(id));
                }
                prop_assert_eq!(borrowed.count() as usize, model.len());
            }
            let mut drained = Vec::new();
            borrowed.drain(|id| drained.push(id.0));
            prop_assert_eq!(drained, model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(borrowed.count(), 0);
        }
    }

    #[test]
    fn without_a_heap_nothing_comes_back() {
        let (_, mut taker) = ends(0);
        assert_eq!(taker.take(), None);
        assert_eq!([0, 1, 3, 65_536].map(places), [0, 1, 4, 65_536]);
    }

    #[test]
    #[should_panic(expected = "lent twice")]
    fn a_buffer_is_lent_once_a_connection() {
        let mut borrowed = Borrowed::new(1);
        borrowed.set(BufferId(0));
        borrowed.set(BufferId(0));
    }
}
