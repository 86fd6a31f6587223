//! e_turn and e_wake, estimated while the datapath runs, and held against what the certificate
//! in force assumes of them.
//!
//! The datapath counts samples by class (`insane_engine::Epsilons`); here counts become a
//! quantile over the last samples, with their number, and the longest.
//!
//! # Rules
//! - A stream of class `assured` rests on the longest that is assumed: every sample beyond it
//!   is a violation.
//! - A stream of class `statistical` rests on a quantile: samples beyond it are violations when
//!   they are more than the share that the quantile leaves, of the last samples or of as many
//!   as carry the quantile, whichever are more.
//! - A slot that was missed for a turn, or slept through, is a sample beyond everything.
//! - A quantile is told only if ten samples may lie beyond it.
//!
//! Pure: counts are given.

use insane_core::Nanos;
use insane_engine::Counted;
use insane_wire::status::MeasuredStatus;

/// Samples beyond a quantile that make it one.
const BEYOND_MIN: u64 = 10;
/// Samples of a window at least: what is rarer than that is not followed faster.
const WINDOW_MIN: u64 = 4_096;

/// What the certificate in force assumes of one of the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Basis {
    /// A stream of class `assured` rests on the longest.
    pub is_assured: bool,
    /// A stream of class `statistical` rests on the quantile.
    pub is_statistical: bool,
    /// The quantile.
    pub quantile: Nanos,
    /// Which, parts in a million.
    pub quantile_ppm: u32,
    /// The longest.
    pub max: Nanos,
}

impl Basis {
    /// The stricter of both, for a datapath on which two certificates rest.
    #[must_use]
    pub fn and(self, other: Basis) -> Basis {
        Basis {
            is_assured: self.is_assured || other.is_assured,
            is_statistical: self.is_statistical || other.is_statistical,
            quantile: self.quantile.min(other.quantile),
            quantile_ppm: self.quantile_ppm.max(other.quantile_ppm),
            max: self.max.min(other.max),
        }
    }
}

/// How many samples carry a quantile.
#[must_use]
pub fn samples_for(ppm: u32) -> u64 {
    (BEYOND_MIN * 1_000_000).div_ceil(u64::from(1_000_000_u32.saturating_sub(ppm).max(1)))
}

/// Counts and misses at an instant.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    counted: Counted,
    missed: u64,
}

impl Mark {
    /// All so far: it never goes back.
    fn samples(&self) -> u64 {
        self.counted.samples() + self.missed
    }
}

/// The estimate of one of the two on one datapath.
#[derive(Clone, Debug)]
pub struct Estimate {
    quantile_ppm: u32,
    basis: Option<Basis>,
    /// When that began to be assumed.
    assumed: Mark,
    /// Where the window before the current one begins, where the current one does, and now.
    begin: Mark,
    middle: Mark,
    now: Mark,
    /// The share that the quantile leaves was exceeded at the last look.
    is_beyond: bool,
}

impl Estimate {
    /// Nothing is known yet; this quantile is told.
    #[must_use]
    pub fn new(quantile_ppm: u32) -> Self {
        let none = Mark::default();
        Estimate { quantile_ppm, basis: None, assumed: none, begin: none, middle: none, now: none, is_beyond: false }
    }

    /// A look: what was counted, slots that were missed for it, and what is assumed now. Says
    /// how many violations there are since the last look.
    pub fn look(&mut self, counted: Counted, missed: u64, basis: Option<Basis>) -> u64 {
        let before = std::mem::replace(&mut self.now, Mark { counted, missed });
        if self.basis != basis {
            // What was beyond other bounds says nothing about these.
            self.basis = basis;
            self.begin_anew();
        }
        let carries = samples_for(basis.map_or(self.quantile_ppm, |basis| basis.quantile_ppm.max(self.quantile_ppm)));
        let current = self.now.counted.since(&self.middle.counted).samples();
        if current >= carries.max(WINDOW_MIN) {
            (self.begin, self.middle) = (self.middle, self.now);
        }
        let Some(basis) = basis else { return 0 };
        let beyond = |at: usize, from: &Mark| {
            self.now.counted.since(&from.counted).beyond[at] + self.now.missed.saturating_sub(from.missed)
        };
        let later = |one: Mark, other: Mark| if one.samples() > other.samples() { one } else { other };
        let (before, begin) = (later(before, self.assumed), later(self.begin, self.assumed));
        let of_longest = if basis.is_assured { beyond(1, &before) } else { 0 };
        let in_window = beyond(0, &begin);
        let samples = self.now.samples() - begin.samples();
        let left = u128::from(1_000_000_u32.saturating_sub(basis.quantile_ppm));
        let share = u128::from(samples.max(samples_for(basis.quantile_ppm))) * left;
        let is_beyond = basis.is_statistical && u128::from(in_window) * 1_000_000 > share;
        let was_beyond = std::mem::replace(&mut self.is_beyond, is_beyond);
        let of_quantile = match (is_beyond, was_beyond) {
            (false, _) => 0,
            (true, true) => beyond(0, &before),
            (true, false) => in_window,
        };
        of_longest.max(of_quantile)
    }

    /// What was beyond until now is held against nobody: another schedule is in force.
    pub fn begin_anew(&mut self) {
        (self.assumed, self.is_beyond) = (self.now, false);
    }

    /// The last samples: those of a window at least, and of two at most.
    fn window(&self) -> Counted {
        self.now.counted.since(&self.begin.counted)
    }

    fn missed(&self) -> u64 {
        self.now.missed.saturating_sub(self.begin.missed)
    }

    /// For reports.
    #[must_use]
    pub fn report(&self) -> MeasuredStatus {
        let (window, missed) = (self.window(), self.missed());
        let samples = window.samples() + missed;
        let carries = samples >= samples_for(self.quantile_ppm);
        let basis = self.basis;
        MeasuredStatus {
            quantile_ppm: self.quantile_ppm,
            quantile_ns: window.quantile(self.quantile_ppm, missed).filter(|_| carries).map(|quantile| quantile.0),
            samples,
            max_ns: window.max.0,
            assumed_quantile_ns: basis.filter(|basis| basis.is_statistical).map(|basis| basis.quantile.0),
            assumed_max_ns: basis.filter(|basis| basis.is_assured).map(|basis| basis.max.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_engine::Sketch;

    const QUANTILE: u32 = 990_000;

    fn basis(is_assured: bool) -> Basis {
        let (quantile, max) = (Nanos(100), Nanos(1_000));
        Basis { is_assured, is_statistical: !is_assured, quantile, quantile_ppm: QUANTILE, max }
    }

    fn looked(estimate: &mut Estimate, sketch: &Sketch, samples: &[(u64, u64)], basis: Basis) -> u64 {
        samples.iter().for_each(|(ns, count)| (0..*count).for_each(|_| sketch.note(Nanos(*ns))));
        estimate.look(sketch.counted(), 0, Some(basis))
    }

    fn begun(basis: Basis) -> (Estimate, Sketch) {
        let (mut estimate, sketch) = (Estimate::new(QUANTILE), Sketch::default());
        sketch.set_bounds(basis.quantile, basis.max);
        assert_eq!(looked(&mut estimate, &sketch, &[], basis), 0);
        (estimate, sketch)
    }

    #[test]
    fn statistical_rests_on_the_quantile_and_not_on_single_samples() {
        let basis = basis(false);
        let (mut estimate, sketch) = begun(basis);
        assert_eq!(samples_for(QUANTILE), 1_000);
        assert_eq!(looked(&mut estimate, &sketch, &[(50, 90), (5_000, 10)], basis), 0, "as many as it leaves of 1,000");
        assert_eq!(looked(&mut estimate, &sketch, &[(500, 1)], basis), 11, "one more: all of them");
        assert_eq!(looked(&mut estimate, &sketch, &[(500, 2)], basis), 2, "those that came since");
        assert_eq!(looked(&mut estimate, &sketch, &[(50, 1_300)], basis), 0, "it is kept again");
        let report = estimate.report();
        assert_eq!((report.samples, report.max_ns, report.assumed_quantile_ns), (1_403, 5_000, Some(100)));
        assert_eq!(report.assumed_max_ns, None, "nobody rests on it");
    }

    #[test]
    fn assured_rests_on_the_longest_and_every_sample_beyond_it_counts() {
        let basis = basis(true);
        let (mut estimate, sketch) = begun(basis);
        assert_eq!(looked(&mut estimate, &sketch, &[(500, 900), (1_000, 5)], basis), 0, "the quantile is not assumed");
        assert_eq!(looked(&mut estimate, &sketch, &[(1_001, 3)], basis), 3);
        assert_eq!(looked(&mut estimate, &sketch, &[(50, 10)], basis), 0);
        assert_eq!(estimate.report().assumed_max_ns, Some(1_000));
    }

    #[test]
    fn a_slot_that_was_missed_for_it_is_beyond_everything() {
        let (mut estimate, sketch) = begun(basis(true));
        (0..10).for_each(|_| sketch.note(Nanos(10)));
        assert_eq!(estimate.look(sketch.counted(), 2, Some(basis(true))), 2);
        let (mut estimate, sketch) = begun(basis(false));
        assert_eq!(estimate.look(sketch.counted(), 10, Some(basis(false))), 0);
        assert_eq!(estimate.look(sketch.counted(), 11, Some(basis(false))), 11);
    }

    #[test]
    fn a_quantile_needs_its_samples_follows_them_and_forgets() {
        let basis = basis(false);
        let (mut estimate, sketch) = begun(basis);
        looked(&mut estimate, &sketch, &[(40, 999)], basis);
        assert_eq!((estimate.report().quantile_ns, estimate.report().samples), (None, 999));
        looked(&mut estimate, &sketch, &[(40, 1)], basis);
        assert_eq!(estimate.report().quantile_ns, Some(40), "the longest bounds it");
        looked(&mut estimate, &sketch, &[(80, 20)], basis);
        assert!((80..=96).contains(&estimate.report().quantile_ns.unwrap()));
        for _ in 0..3 {
            looked(&mut estimate, &sketch, &[(20, WINDOW_MIN)], basis);
        }
        let report = estimate.report();
        assert!((20..=25).contains(&report.quantile_ns.unwrap()), "{report:?}");
        assert!(report.samples <= 2 * WINDOW_MIN && report.max_ns == 80, "{report:?}");
    }

    #[test]
    fn another_certificate_is_not_blamed_for_what_was_beyond_the_one_before() {
        let (mut estimate, sketch) = begun(basis(false));
        assert_eq!(looked(&mut estimate, &sketch, &[(5_000, 30)], basis(false)), 30);
        let looser = Basis { quantile: Nanos(10_000), ..basis(false) };
        assert_eq!(looked(&mut estimate, &sketch, &[], looser), 0);
        assert_eq!(looked(&mut estimate, &sketch, &[(50, 10)], looser), 0);
        // Nor one that assumes the same.
        let (mut estimate, sketch) = begun(basis(false));
        assert_eq!(looked(&mut estimate, &sketch, &[(5_000, 10)], basis(false)), 0);
        estimate.begin_anew();
        assert_eq!(looked(&mut estimate, &sketch, &[(5_000, 10)], basis(false)), 0);
        assert_eq!(looked(&mut estimate, &sketch, &[(5_000, 1)], basis(false)), 11);
    }
}
