//! One series of wake-ups: fixed memory, and recording allocates nothing.

use super::evidence::Since;
use insane_core::{MonoTime, Nanos};
use insane_rt::Histogram;

/// The worst wake-ups that are kept.
pub const WORST: usize = 8;
/// Upper ends of the classes that are shown, nanoseconds: 10 ns to 1 s in steps of about two.
pub const EDGES: [u64; 25] = edges();

const fn edges() -> [u64; 25] {
    let (mut edges, mut at, mut decade) = ([0; 25], 0, 10);
    while at < edges.len() {
        edges[at] = decade * [1, 2, 5][at % 3];
        decade *= if at % 3 == 2 { 10 } else { 1 };
        at += 1;
    }
    edges
}

/// One wake-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wake {
    /// Number of its cycle.
    pub cycle: u64,
    /// When it was planned.
    pub planned: MonoTime,
    /// How late it was.
    pub late: Nanos,
    /// What the thread can tell of it.
    pub own: Since,
}

/// A series.
#[derive(Clone, Debug)]
pub struct Metric {
    /// All of them by size.
    pub histogram: Histogram,
    /// Wake-ups by size: `classes[n]` is below `EDGES[n]` and not below the edge before; the
    /// last is beyond all edges.
    pub classes: [u64; EDGES.len() + 1],
    /// Beyond the bound.
    pub outliers: u64,
    /// Cycles that passed during a late wake-up.
    pub missed: u64,
    bound: Nanos,
    mean: f64,
    squares: f64,
    worst: [Option<Wake>; WORST],
}

impl Metric {
    /// None yet; wake-ups later than `bound` are outliers.
    pub fn new(bound: Nanos) -> Self {
        Metric {
            histogram: Histogram::new(),
            classes: [0; EDGES.len() + 1],
            outliers: 0,
            missed: 0,
            bound,
            mean: 0.0,
            squares: 0.0,
            worst: [None; WORST],
        }
    }

    /// Takes one.
    pub fn record(&mut self, wake: Wake) {
        self.histogram.record(wake.late);
        self.classes[EDGES.partition_point(|edge| *edge <= wake.late.0)] += 1;
        self.outliers += u64::from(wake.late > self.bound);
        // Welford's way: the difference of two large sums would lose what matters.
        let before = wake.late.0 as f64 - self.mean;
        self.mean += before / self.histogram.count() as f64;
        self.squares += before * (wake.late.0 as f64 - self.mean);
        let least = self.worst.iter_mut().min_by_key(|kept| kept.map(|wake| wake.late));
        if let Some(least) = least
            && least.is_none_or(|kept| kept.late < wake.late)
        {
            *least = Some(wake);
        }
    }

    /// The mean, nanoseconds; `None` of none.
    pub fn mean(&self) -> Option<f64> {
        (self.histogram.count() > 0).then_some(self.mean)
    }

    /// The standard deviation, nanoseconds; `None` of fewer than two.
    pub fn stddev(&self) -> Option<f64> {
        let count = self.histogram.count();
        (count > 1).then(|| (self.squares / (count - 1) as f64).sqrt())
    }

    /// The worst, the latest first.
    pub fn worst(&self) -> Vec<Wake> {
        let mut worst: Vec<Wake> = self.worst.iter().flatten().copied().collect();
        worst.sort_by_key(|wake| std::cmp::Reverse(wake.late));
        worst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(lates: impl IntoIterator<Item = u64>) -> Metric {
        let mut metric = Metric::new(Nanos(1_000));
        for (cycle, late) in lates.into_iter().enumerate() {
            let own = Since::default();
            metric.record(Wake { cycle: cycle as u64, planned: MonoTime(0), late: Nanos(late), own });
        }
        metric
    }

    #[test]
    fn the_worst_are_kept_whatever_their_order() {
        for lates in [(0..100).collect::<Vec<_>>(), (0..100).rev().collect()] {
            let kept: Vec<u64> = series(lates).worst().iter().map(|wake| wake.late.0).collect();
            assert_eq!(kept, [99, 98, 97, 96, 95, 94, 93, 92]);
        }
        assert_eq!(series([5, 5]).worst().len(), 2);
    }

    #[test]
    fn mean_deviation_classes_and_outliers_are_as_computed_by_hand() {
        let metric = series([2, 4, 4, 4, 5, 5, 7, 9]);
        assert_eq!(metric.mean(), Some(5.0));
        assert!((metric.stddev().unwrap() - (32.0_f64 / 7.0).sqrt()).abs() < 1e-9);
        assert_eq!((EDGES[0], EDGES[4], EDGES[24]), (10, 200, 1_000_000_000));
        assert_eq!(&series([9, 10, 19, 20, u64::MAX]).classes[..3], &[1, 2, 1]);
        assert_eq!(series([u64::MAX, 1_000_000_000]).classes[25], 2);
        assert_eq!(series([1_000, 1_001, u64::MAX]).outliers, 2);
        assert_eq!((series([]).mean(), series([3]).stddev()), (None, None));
    }
}
