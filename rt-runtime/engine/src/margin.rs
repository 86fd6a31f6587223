//! How long before an instant a thread must stop sleeping: the margin, learnt.
//!
//! Each sleep with an instant gives one sample, the lateness of the wake-up. They fall into
//! classes, four to each power of two, and the margin is the upper bound of the class in which
//! the quantile lies. Half of the samples are forgotten when [`WINDOW`] are there, so that the
//! margin follows. A margin that is too small costs slots, one that is too large only
//! processor time: it is bounded on both sides, and until [`SAMPLES_MIN`] are there it is the
//! default.

use insane_core::Nanos;

/// Which quantile of the lateness the margin covers, parts in a million.
pub const QUANTILE_PPM: u64 = 990_000;
/// Samples before the margin is an estimate.
pub const SAMPLES_MIN: u64 = 100;
/// Samples that are remembered at most.
pub const WINDOW: u64 = 4096;
/// The margin without samples.
pub const DEFAULT: Nanos = Nanos::from_micros(100);
/// The least.
pub const MIN: Nanos = Nanos::from_micros(5);
/// The greatest.
pub const MAX: Nanos = Nanos::from_micros(500);

/// Classes: four to each power of two, up to 2^24 ns.
pub(crate) const CLASSES: usize = 100;

/// The margin of one thread.
#[derive(Clone, Debug)]
pub struct Margin {
    counts: [u32; CLASSES],
    samples: u64,
    margin: Nanos,
}

impl Default for Margin {
    fn default() -> Self {
        Margin { counts: [0; CLASSES], samples: 0, margin: DEFAULT }
    }
}

/// The class of a lateness: its power of two and the two bits below the first.
pub(crate) const fn class_of(ns: u64) -> usize {
    if ns < 8 {
        return 0;
    }
    let power = ns.ilog2() as usize;
    let class = 4 * (power - 3) + ((ns >> (power - 2)) & 3) as usize + 1;
    if class < CLASSES { class } else { CLASSES - 1 }
}

/// The least lateness that is above a class, nanoseconds.
pub(crate) const fn above(class: usize) -> u64 {
    let (power, quarter) = (class / 4 + 3, class % 4);
    (4 + quarter as u64) << (power - 2)
}

impl Margin {
    /// How long before an instant sleep ends.
    #[inline]
    #[must_use]
    pub const fn get(&self) -> Nanos {
        self.margin
    }

    /// How many samples it rests on.
    #[must_use]
    pub const fn samples(&self) -> u64 {
        self.samples
    }

    /// A sleep ended so late.
    pub fn learn(&mut self, late: Nanos) {
        if self.samples >= WINDOW {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.samples = self.counts.iter().map(|count| u64::from(*count)).sum();
        }
        self.counts[class_of(late.0)] += 1;
        self.samples += 1;
        if self.samples >= SAMPLES_MIN {
            self.margin = self.quantile().max(MIN).min(MAX);
        }
    }

    fn quantile(&self) -> Nanos {
        let wanted = (self.samples * QUANTILE_PPM).div_ceil(1_000_000);
        let mut seen = 0;
        for (class, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= wanted {
                return Nanos(above(class));
            }
        }
        MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lateness_lies_below_the_bound_of_its_class_and_near_it() {
        for ns in (0..100_000).chain([1 << 20, (1 << 24) - 1]) {
            let bound = above(class_of(ns));
            assert!(ns < bound, "{ns} in a class up to {bound}");
            assert!(ns < 8 || bound <= ns + ns / 4 + 1, "{ns}: {bound}");
        }
        assert_eq!(class_of(u64::MAX), CLASSES - 1);
    }

    #[test]
    fn the_margin_covers_its_quantile_and_follows() {
        let mut margin = Margin::default();
        (0..SAMPLES_MIN - 1).for_each(|_| margin.learn(Nanos(20_000)));
        assert_eq!(margin.get(), DEFAULT, "too few samples");
        for at in 0..2_000_u64 {
            // One in fifty is late.
            margin.learn(Nanos(if at % 50 == 0 { 70_000 } else { 20_000 }));
        }
        assert!((70_000..90_000).contains(&margin.get().0), "{:?}", margin.get());
        (0..40_000).for_each(|_| margin.learn(Nanos(10_000)));
        assert!((10_000..13_000).contains(&margin.get().0), "{:?}", margin.get());
        (0..40_000).for_each(|_| margin.learn(Nanos(5_000_000)));
        assert_eq!(margin.get(), MAX);
        (0..40_000).for_each(|_| margin.learn(Nanos(1)));
        assert_eq!(margin.get(), MIN);
        assert!(margin.samples() <= WINDOW);
    }
}
