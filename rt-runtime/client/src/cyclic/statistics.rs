//! What a cyclic task counts: fixed memory, made when it starts.

use super::cadence::Activation;
use insane_core::{MonoTime, Nanos};

/// Bits of a value that are told apart: buckets are at most 1/32 of their value wide.
const PRECISION: u32 = 5;
/// Values from this power of two on (18 minutes) count in the last bucket.
const LARGEST: u32 = 40;
/// One bucket a value below 32, then 32 for each doubling.
const BUCKETS: usize = ((LARGEST - PRECISION + 1) << PRECISION) as usize;
/// Samples that must lie beyond a quantile for it to be told.
pub const BEYOND_MIN: u64 = 10;

/// Lengths of time by size, in 9 KB. Recording one is a few instructions and allocates
/// nothing.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Box<[u64; BUCKETS]>,
    count: u64,
    sum_ns: u128,
    min: Nanos,
    max: Nanos,
}

impl Histogram {
    /// An empty one; allocates.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn new() -> Self {
        let buckets: Box<[u64]> = vec![0; BUCKETS].into();
        let buckets = buckets.try_into().expect("made with as many");
        Histogram { buckets, count: 0, sum_ns: 0, min: Nanos(u64::MAX), max: Nanos::ZERO }
    }

    /// Takes one.
    pub fn record(&mut self, time: Nanos) {
        self.buckets[bucket(time.0)] += 1;
        self.count += 1;
        self.sum_ns += u128::from(time.0);
        self.min = self.min.min(time);
        self.max = self.max.max(time);
    }

    /// How many were taken.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest; `None` of none.
    #[must_use]
    pub fn min(&self) -> Option<Nanos> {
        (self.count > 0).then_some(self.min)
    }

    /// The largest, exactly; `None` of none.
    #[must_use]
    pub fn max(&self) -> Option<Nanos> {
        (self.count > 0).then_some(self.max)
    }

    /// The mean; `None` of none.
    #[must_use]
    pub fn mean(&self) -> Option<Nanos> {
        u64::try_from(self.sum_ns.checked_div(u128::from(self.count))?).ok().map(Nanos)
    }

    /// What all but one in `beyond` do not exceed (2: the median, 100: p99), at most 1/32
    /// too large. `None` if fewer than ten samples lie beyond: chance, not system.
    #[must_use]
    pub fn quantile(&self, beyond: u64) -> Option<Nanos> {
        let larger = self.count.checked_div(beyond).filter(|larger| *larger >= BEYOND_MIN)?;
        let mut seen = 0;
        let at = self.buckets.iter().rposition(|bucket| {
            seen += bucket;
            seen > larger
        })?;
        Some(Nanos(upper(at)).min(self.max))
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram::new()
    }
}

fn bucket(value: u64) -> usize {
    let value = value.min((1 << LARGEST) - 1);
    let doublings = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION + 1);
    ((u64::from(doublings) << PRECISION) + (value >> doublings)) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let doublings = (bucket >> PRECISION).saturating_sub(1);
    let first = (bucket - (doublings << PRECISION)) as u64;
    ((first + 1) << doublings) - 1
}

/// The worst of something, and in which cycle it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Worst {
    /// How long.
    pub time: Nanos,
    /// Number of the cycle.
    pub cycle: u64,
    /// When the cycle was due.
    pub due: MonoTime,
}

/// What happened to a cyclic task since it started.
#[derive(Clone, Debug, Default)]
pub struct CyclicStatistics {
    /// Cycles that ran.
    pub cycles: u64,
    /// Cycles that were left out.
    pub skipped: u64,
    /// Times the task came back after its next instant had passed.
    pub overruns: u64,
    /// Cycles that ended after their deadline.
    pub deadline_misses: u64,
    /// Steps of the base clock.
    pub clock_steps: u64,
    /// How late wake-ups were.
    pub wake: Histogram,
    /// From the start of a cycle to its end.
    pub execution: Histogram,
    /// The latest wake-up.
    pub wake_worst: Worst,
    /// The longest cycle.
    pub execution_worst: Worst,
}

impl CyclicStatistics {
    pub(super) fn started(&mut self, activation: &Activation) {
        self.cycles += 1;
        self.skipped += activation.skipped;
        self.clock_steps += u64::from(activation.stepped);
        if let Some(late) = activation.late {
            self.wake.record(late);
            worse(&mut self.wake_worst, late, activation);
        }
    }

    pub(super) fn ended(&mut self, activation: &Activation, now: MonoTime) {
        let time = now.since(activation.woke);
        self.execution.record(time);
        worse(&mut self.execution_worst, time, activation);
    }
}

fn worse(worst: &mut Worst, time: Nanos, activation: &Activation) {
    if time > worst.time {
        *worst = Worst { time, cycle: activation.cycle, due: activation.due };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_quantile_needs_samples_beyond_it() {
        let mut histogram = Histogram::new();
        assert_eq!((histogram.quantile(2), histogram.max(), histogram.mean()), (None, None, None));
        (1..=999).for_each(|ns| histogram.record(Nanos(ns)));
        assert!(histogram.quantile(2).is_some());
        assert_eq!(histogram.quantile(100), None, "nine samples lie beyond");
        histogram.record(Nanos(1_000));
        assert!(histogram.quantile(100).is_some());
        assert_eq!(histogram.max(), Some(Nanos(1_000)));
        assert_eq!(histogram.mean(), Some(Nanos(500)));
        assert_eq!(histogram.quantile(0), None);
    }

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for at in 0..BUCKETS - 1 {
            assert_eq!(bucket(upper(at)), at);
            assert_eq!(bucket(upper(at) + 1), at + 1);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_sorting(mut samples in proptest::collection::vec(0_u64..10_000_000_000, 20..2_000)) {
            let mut histogram = Histogram::new();
            samples.iter().for_each(|ns| histogram.record(Nanos(*ns)));
            samples.sort_unstable();
            for beyond in [2, 10, 100] {
                let Some(told) = histogram.quantile(beyond) else { continue };
                let larger = samples.len() as u64 / beyond;
                let true_one = samples[samples.len() - 1 - larger as usize];
                prop_assert!(told.0 >= true_one && told.0 <= true_one + true_one / 32 + 1, "{} {}", told, true_one);
            }
        }
    }
}
