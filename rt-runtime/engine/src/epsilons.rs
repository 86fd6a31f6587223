//! How long what a certificate assumes takes in truth: e_turn and e_wake, measured; e_turn of
//! slots and of what goes besides apart, since that is much more.
//!
//! The datapath counts each measured time in classes (four to each power of two, as
//! [`margin`](crate::margin) does), keeps the longest, and counts what is beyond two bounds that
//! the control plane sets: those that the certificate in force assumes. Everything else, windows
//! and quantiles, is reckoned by who reads.
//!
//! # Samples
//! - *e_turn*: one for each slot that is used. The longer one of two: from the slot's start
//!   until it was looked at (where its message was there before), and from that look until its
//!   frame was on its way.
//! - *e_chunk*: one for each flush of chunks and late messages: from the look that decided upon
//!   the first of them until all were on their way. The guard assumes e_turn of it.
//! - *e_wake*: one for each sleep that a slot ended: how late.
//!
//! # Bounds
//! Fixed memory, one writer, a few stores a sample and none without slots; one more look at the
//! clock for each flush of chunks. Counters never go
//! back.

use crate::margin::{CLASSES, above, class_of};
use insane_core::Nanos;
use std::sync::atomic::{AtomicU64, Ordering};

/// One time, measured by the datapath.
#[derive(Debug)]
pub struct Sketch {
    counts: [AtomicU64; CLASSES],
    max_ns: AtomicU64,
    /// What a certificate assumes: of its quantile, and of the longest.
    bounds_ns: [AtomicU64; 2],
    beyond: [AtomicU64; 2],
}

/// The times of one datapath.
#[derive(Debug, Default)]
pub struct Epsilons {
    /// e_turn of slots.
    pub turn: Sketch,
    /// e_turn of chunks.
    pub chunk: Sketch,
    /// e_wake.
    pub wake: Sketch,
    /// Lanes that were held to their arrival contracts since a table took over: bit i is lane i.
    lanes_cut: AtomicU64,
}

impl Epsilons {
    /// A lane had more to send than its contract says arrives. Called by the datapath alone.
    pub(crate) fn note_lane_cut(&self, lane: u8) {
        self.lanes_cut.store(self.lanes_cut.load(Ordering::Relaxed) | 1 << (lane & 63), Ordering::Relaxed);
    }

    /// The lanes that were held to their contracts under the table in force, bit i for lane i.
    #[must_use]
    pub fn lanes_cut(&self) -> u64 {
        self.lanes_cut.load(Ordering::Relaxed)
    }
}

impl Default for Sketch {
    fn default() -> Self {
        Sketch {
            counts: [const { AtomicU64::new(0) }; CLASSES],
            max_ns: AtomicU64::new(0),
            bounds_ns: [const { AtomicU64::new(u64::MAX) }; 2],
            beyond: [const { AtomicU64::new(0) }; 2],
        }
    }
}

impl Epsilons {
    /// Another table is in force: who was cut under the one before is not of its lanes. Called by
    /// the datapath alone.
    pub(crate) fn forget_lanes_cut(&self) {
        self.lanes_cut.store(0, Ordering::Relaxed);
    }
}

/// One writer: a load and a store, no locked instruction. Relaxed: numbers for reports, nothing
/// hangs on their order.
fn add_one(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

impl Sketch {
    /// A measured time. Called by the datapath alone.
    #[inline]
    pub fn note(&self, time: Nanos) {
        add_one(&self.counts[class_of(time.0)]);
        if time.0 > self.max_ns.load(Ordering::Relaxed) {
            self.max_ns.store(time.0, Ordering::Relaxed);
        }
        for (bound, beyond) in self.bounds_ns.iter().zip(&self.beyond) {
            if time.0 > bound.load(Ordering::Relaxed) {
                add_one(beyond);
            }
        }
    }

    /// From now on what is beyond these two is counted.
    pub fn set_bounds(&self, quantile: Nanos, max: Nanos) {
        for (bound, value) in self.bounds_ns.iter().zip([quantile, max]) {
            bound.store(value.0, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counted(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            classes: std::array::from_fn(|at| read(&self.counts[at])),
            max: Nanos(read(&self.max_ns)),
            beyond: std::array::from_fn(|at| read(&self.beyond[at])),
        }
    }
}

/// What a [`Sketch`] had counted at an instant, or between two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Samples by class.
    pub classes: [u64; CLASSES],
    /// The longest since the start.
    pub max: Nanos,
    /// Samples beyond the assumed quantile, and beyond the assumed longest.
    pub beyond: [u64; 2],
}

impl Default for Counted {
    fn default() -> Self {
        Counted { classes: [0; CLASSES], max: Nanos::ZERO, beyond: [0; 2] }
    }
}

impl Counted {
    /// How many samples there are.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// What was counted after `before`; the longest is that of all time.
    #[must_use]
    pub fn since(&self, before: &Counted) -> Counted {
        Counted {
            classes: std::array::from_fn(|at| self.classes[at].saturating_sub(before.classes[at])),
            max: self.max,
            beyond: std::array::from_fn(|at| self.beyond[at].saturating_sub(before.beyond[at])),
        }
    }

    /// The quantile, rounded up by at most a quarter and never above the longest. `None`:
    /// there are no samples, or it is among the `missed` ones, which took nobody knows how
    /// long.
    #[must_use]
    pub fn quantile(&self, ppm: u32, missed: u64) -> Option<Nanos> {
        let samples = self.samples().saturating_add(missed);
        let wanted = u64::try_from((u128::from(samples) * u128::from(ppm)).div_ceil(1_000_000)).ok()?;
        let mut seen = 0;
        let class = self.classes.iter().position(|count| {
            seen += count;
            *count > 0 && seen >= wanted
        })?;
        Some(if class + 1 == CLASSES { self.max } else { Nanos(above(class)).min(self.max) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quantile_covers_its_share_and_is_near_the_truth() {
        let sketch = Sketch::default();
        assert_eq!(sketch.counted().quantile(990_000, 0), None, "nothing was measured");
        (1..=1_000_u64).for_each(|at| sketch.note(Nanos(at * 100)));
        let counted = sketch.counted();
        assert_eq!((counted.samples(), counted.max), (1_000, Nanos(100_000)));
        for (ppm, truth) in [(500_000, 50_000), (990_000, 99_000), (999_000, 99_900)] {
            let quantile = counted.quantile(ppm, 0).unwrap().0;
            assert!((truth..=truth + truth / 4).contains(&quantile), "{ppm}: {quantile}");
        }
        assert_eq!(counted.quantile(1_000_000, 0), Some(Nanos(100_000)), "the longest, to the nanosecond");
        assert_eq!(counted.quantile(1_000_000, 1), None, "one more was missed, and took longer than all");
        sketch.note(Nanos(u64::MAX / 2));
        assert_eq!(sketch.counted().quantile(1_000_000, 0), Some(Nanos(u64::MAX / 2)));
    }

    #[test]
    fn what_is_beyond_the_bounds_is_counted_exactly_and_windows_are_differences() {
        let sketch = Sketch::default();
        sketch.note(Nanos(500));
        assert_eq!(sketch.counted().beyond, [0, 0], "nobody has assumed anything");
        sketch.set_bounds(Nanos(100), Nanos(200));
        let before = sketch.counted();
        [99, 100, 101, 200, 201].into_iter().for_each(|ns| sketch.note(Nanos(ns)));
        let window = sketch.counted().since(&before);
        assert_eq!((window.samples(), window.beyond, window.max), (5, [3, 1], Nanos(500)));
    }
}
