//! What became of the last slots: when each was to begin, and when its message was on its way.
//!
//! One writer, the datapath; any number of readers, which may find the entry that is being
//! overwritten torn and leave out what is older than the log is long.
//!
//! # Bounds
//! [`ENTRIES`] slots are remembered: two seconds at 250 us.

use insane_core::MonoTime;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots that are remembered.
pub const ENTRIES: usize = 8192;

/// The log of one datapath.
#[derive(Debug)]
pub struct SlotLog {
    /// Slots that were ever written.
    written: AtomicU64,
    entries: Box<[[AtomicU64; 2]]>,
}

/// One slot that was used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotUse {
    /// When it was to begin.
    pub planned: MonoTime,
    /// The first look at the clock after the message was handed to the link.
    pub sent: MonoTime,
}

impl Default for SlotLog {
    fn default() -> Self {
        SlotLog { written: AtomicU64::new(0), entries: (0..ENTRIES).map(|_| Default::default()).collect() }
    }
}

impl SlotLog {
    /// Notes a slot. Called by the datapath alone.
    #[inline]
    pub(crate) fn note(&self, slot: SlotUse) {
        let at = self.written.load(Ordering::Relaxed);
        let [planned, sent] = &self.entries[at as usize % ENTRIES];
        planned.store(slot.planned.0, Ordering::Relaxed);
        sent.store(slot.sent.0, Ordering::Relaxed);
        // Release: who reads the count finds the entries below it.
        self.written.store(at + 1, Ordering::Release);
    }

    /// How many slots were used so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The slots from number `from` on, the oldest first, as far as they are remembered, with
    /// the number of the first. Not for a hot path.
    #[must_use]
    pub fn since(&self, from: u64) -> (u64, Vec<SlotUse>) {
        let written = self.written();
        let first = from.max(written.saturating_sub(ENTRIES as u64 - 1)).min(written);
        let read = |at: u64| {
            let [planned, sent] = &self.entries[at as usize % ENTRIES];
            SlotUse { planned: MonoTime(planned.load(Ordering::Relaxed)), sent: MonoTime(sent.load(Ordering::Relaxed)) }
        };
        let slots: Vec<SlotUse> = (first..written).map(read).collect();
        // What the writer came round to meanwhile is not what it was.
        let overrun = (self.written() + 1).saturating_sub(ENTRIES as u64).saturating_sub(first).min(slots.len() as u64);
        (first + overrun, slots[overrun as usize..].to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered_with_their_numbers() {
        let log = SlotLog::default();
        assert_eq!(log.since(0), (0, Vec::new()));
        let slot = |at: u64| SlotUse { planned: MonoTime(at), sent: MonoTime(at + 1) };
        (0..10).for_each(|at| log.note(slot(at)));
        assert_eq!(log.since(8), (8, vec![slot(8), slot(9)]));
        assert_eq!(log.since(11).1, Vec::new());
        (10..2 * ENTRIES as u64).for_each(|at| log.note(slot(at)));
        let (first, slots) = log.since(0);
        assert_eq!(slots.first(), Some(&slot(first)));
        assert_eq!(first as usize + slots.len(), 2 * ENTRIES);
        assert!(slots.len() >= ENTRIES - 1);
    }
}
