//! What one cell measured, and the figures that are read from it.

use super::clock::TickRate;
use hdrhistogram::Histogram;

/// Histograms count tenths of a nanosecond, so that 0.1 us keeps three digits.
pub const UNITS_PER_US: f64 = 10_000.0;
/// Largest time a histogram tells apart: 100 s.
const UNITS_MAX: u64 = 1_000_000_000_000;
/// A quantile is reported only with this many samples beyond it.
const BEYOND_MIN: f64 = 10.0;

/// What one cell measured.
#[derive(Clone, Debug)]
pub enum Sample {
    /// Times.
    Times(Histogram<u64>),
    /// One number, such as a rate, and how many messages stand behind it.
    Value {
        /// The number, in the row's unit.
        value: f64,
        /// Messages.
        n: u64,
    },
}

/// Quantiles of one cell, microseconds. `None`: too few samples beyond it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Quantiles {
    /// The median.
    pub p50: Option<f64>,
    /// The 99th percentile.
    pub p99: Option<f64>,
    /// The 99.9th percentile.
    pub p999: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

impl Sample {
    /// Times in ticks.
    #[must_use]
    pub fn from_ticks(times: &[u64], rate: TickRate) -> Self {
        let mut histogram = empty();
        for ns in rate.sorted_ns(times) {
            let units = (ns * UNITS_PER_US / 1_000.0).round() as u64;
            histogram.saturating_record(units.max(1));
        }
        Sample::Times(histogram)
    }

    /// Times in nanoseconds.
    #[must_use]
    pub fn from_ns(times: impl IntoIterator<Item = u64>) -> Self {
        let mut histogram = empty();
        for ns in times {
            histogram.saturating_record((ns as f64 * UNITS_PER_US / 1_000.0) as u64);
        }
        Sample::Times(histogram)
    }

    /// Messages that stand behind the sample.
    #[must_use]
    pub fn n(&self) -> u64 {
        match self {
            Sample::Times(histogram) => histogram.len(),
            Sample::Value { n, .. } => *n,
        }
    }
}

/// An empty histogram of the shape that all use.
///
/// # Panics
/// Never: the bounds are constants that the histogram accepts.
#[must_use]
pub fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, UNITS_MAX, 3).expect("constant bounds")
}

/// Reads the quantiles of a histogram.
#[must_use]
pub fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    let n = histogram.len() as f64;
    let at = |quantile: f64| {
        let enough = n * (1.0 - quantile) >= BEYOND_MIN - 1e-6;
        enough.then(|| histogram.value_at_quantile(quantile) as f64 / UNITS_PER_US)
    };
    Quantiles {
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        max: (n > 0.0).then(|| histogram.max() as f64 / UNITS_PER_US),
    }
}

/// The median of some numbers; `None` without any.
#[must_use]
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_need_ten_samples_beyond_them() {
        let mut histogram = empty();
        for n in 1..=1_000_u64 {
            histogram.record(n * 10_000).unwrap();
        }
        let read = quantiles(&histogram);
        assert!((read.p50.unwrap() - 500.0).abs() < 1.0, "{read:?}");
        assert!((read.p99.unwrap() - 990.0).abs() < 1.5, "{read:?}");
        assert_eq!(read.p999, None);
        assert!((read.max.unwrap() - 1_000.0).abs() < 1.5, "{read:?}");
        assert_eq!(quantiles(&empty()), Quantiles::default());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        assert_eq!(median([]), None);
        assert_eq!(median([3.0]), Some(3.0));
        assert_eq!(median([4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }
}
