//! Percentiles, and the rule which of them may be printed.
//!
//! A quantile with fewer than [`BEYOND_MIN`] samples beyond it says more about chance
//! than about the system; it is left out.

use hdrhistogram::Histogram;
use insane_core::Nanos;
use serde::{Deserialize, Serialize};

/// Samples that must lie beyond a quantile for it to be told.
pub const BEYOND_MIN: u64 = 10;
/// Largest length of time that is told apart, nanoseconds; longer ones count as this.
const LARGEST_NS: u64 = 10_000_000_000;

/// The quantiles that are told: name, and the share of samples beyond as `1 / n`.
pub const LEVELS: [(&str, u64); 5] = [("p50", 2), ("p90", 10), ("p99", 100), ("p99.9", 1_000), ("p99.99", 10_000)];

/// Lengths of time as they were measured.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Times {
    /// None yet.
    ///
    /// # Panics
    /// Never: the bounds are constants within the histogram's own.
    #[must_use]
    pub fn new() -> Self {
        Times(Histogram::new_with_bounds(1, LARGEST_NS, 3).expect("constant bounds"))
    }

    /// Takes one.
    pub fn add(&mut self, time: Nanos) {
        self.0.saturating_record(time.0);
    }

    /// What may be said about them.
    #[must_use]
    pub fn quantiles(&self) -> Quantiles {
        let count = self.0.len();
        let level = |beyond: u64| {
            (count / beyond >= BEYOND_MIN).then(|| Nanos(self.0.value_at_quantile(1.0 - 1.0 / beyond as f64)))
        };
        Quantiles {
            count,
            levels: LEVELS.map(|(_, beyond)| level(beyond)),
            max: (count > 0).then(|| Nanos(self.0.max())),
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Times::new()
    }
}

/// What may be said about lengths of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Quantiles {
    /// How many were measured.
    pub count: u64,
    /// By [`LEVELS`]; `None`: too few samples beyond. Nanoseconds.
    pub levels: [Option<Nanos>; 5],
    /// The largest, nanoseconds.
    pub max: Option<Nanos>,
}

impl Quantiles {
    /// The quantile of that name.
    #[must_use]
    pub fn level(&self, name: &str) -> Option<Nanos> {
        let place = LEVELS.iter().position(|(level, _)| *level == name)?;
        self.levels[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: u64) -> Quantiles {
        let mut times = Times::new();
        (1..=count).for_each(|n| times.add(Nanos::from_micros(n)));
        times.quantiles()
    }

    #[test]
    fn a_quantile_needs_ten_samples_beyond_it() {
        for (_, beyond) in LEVELS {
            let place = LEVELS.iter().position(|(_, other)| *other == beyond).unwrap();
            assert_eq!(of(beyond * BEYOND_MIN - 1).levels[place], None);
            assert!(of(beyond * BEYOND_MIN).levels[place].is_some());
        }
    }

    #[test]
    fn quantiles_are_what_they_say() {
        let quantiles = of(1_000);
        for (name, expected) in [("p50", 500), ("p90", 900), ("p99", 990)] {
            let found = quantiles.level(name).unwrap().0 as f64 / 1_000.0;
            assert!((found / f64::from(expected) - 1.0).abs() < 0.003, "{name}: {found}");
        }
        assert_eq!(quantiles.level("p99.9"), None);
        assert!(quantiles.max.unwrap() >= Nanos::from_millis(1));
    }

    #[test]
    fn nothing_measured_says_nothing() {
        assert_eq!(Times::new().quantiles(), Quantiles::default());
    }

    #[test]
    fn a_length_beyond_the_bounds_counts_as_the_largest() {
        let mut times = Times::new();
        times.add(Nanos(u64::MAX));
        assert!(times.quantiles().max.unwrap() >= Nanos(LARGEST_NS));
    }
}
