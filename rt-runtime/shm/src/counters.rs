//! Counters in mapped pages: any permitted tool reads them without asking anybody.
//!
//! ```text
//! counters page: one block of 32 words (256 bytes) a domain, source, sink or cyclic task
//! ```
//! A line of a session's page has one port after the other. Its counters go on where they were,
//! and from [`PORT_BASE`](insane_core::counters::PORT_BASE) on it keeps where that was.
//!
//! One writer a block. A counter is a relaxed load, add and store: no lock prefix.

use crate::region::Region;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of one block.
pub const BLOCK_WORDS: usize = insane_core::counters::COUNTERS_MAX;
/// Bytes of one block.
pub const BLOCK_BYTES: usize = BLOCK_WORDS * 8;

/// One block of counters.
#[derive(Clone, Debug)]
pub struct CounterBlock {
    words: *const [AtomicU64; BLOCK_WORDS],
    region: Arc<Region>,
}

// SAFETY: the pointer is into `region`, which is `Send + Sync`, and leads to atomics.
unsafe impl Send for CounterBlock {}
// SAFETY: as above; two writers would lose counts, not memory safety.
unsafe impl Sync for CounterBlock {}

impl CounterBlock {
    /// Block `block` of `region`; `None` past its end.
    #[must_use]
    pub fn new(region: Arc<Region>, block: u32) -> Option<Self> {
        let at = (block as usize).checked_mul(BLOCK_BYTES)?;
        if at + BLOCK_BYTES > region.len() {
            return None;
        }
        // SAFETY: `at` lies inside the mapping; a block is a multiple of 8 bytes from
        // its page-aligned start.
        let words = unsafe { region.as_ptr().add(at) }.cast();
        Some(CounterBlock { words, region })
    }

    /// A block of private memory, for tests and for what has no page.
    ///
    /// # Panics
    /// Without memory.
    #[must_use]
    pub fn private() -> Self {
        let region = Region::anonymous(BLOCK_BYTES).expect("one page of memory");
        CounterBlock::new(region, 0).expect("one block fits a page")
    }

    #[inline]
    fn word(&self, counter: usize) -> &AtomicU64 {
        // SAFETY: `new` checked that the block lies inside the region, which lives as
        // long as `self`; the index is checked by the array.
        unsafe { &(&(*self.words))[counter] }
    }

    /// Adds to a counter. Only the block's one writer calls this.
    ///
    /// # Panics
    /// In a region mapped read-only the process is ended by the kernel; past 31 it panics.
    #[inline]
    pub fn add(&self, counter: usize, amount: u64) {
        debug_assert!(self.region.is_writable());
        let word = self.word(counter);
        word.store(word.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Adds one to a counter and `amount` to the next.
    #[inline(always)]
    pub(crate) fn add_one_and(&self, counter: usize, amount: u64) {
        debug_assert!(self.region.is_writable());
        // SAFETY: as in `word`; taken once, since stores might change `self` for all the
        // compiler knows.
        let words = unsafe { &*self.words };
        words[counter].store(words[counter].load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        words[counter + 1].store(words[counter + 1].load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
    }

    /// Raises a counter that holds a maximum.
    #[inline]
    pub fn raise(&self, counter: usize, value: u64) {
        let word = self.word(counter);
        if value > word.load(Ordering::Relaxed) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The value of a counter.
    #[inline]
    #[must_use]
    pub fn get(&self, counter: usize) -> u64 {
        self.word(counter).load(Ordering::Relaxed)
    }
}
