//! How long before its instant a task stops sleeping and looks at the clock.
//!
//! The learnt margin follows a quantile of how late the kernel ends sleeps, without
//! keeping them: a sleep that ends later than the margin raises it by one step, any other
//! lowers it by a share of a step, and both are in balance where one in
//! [`BEYOND`] sleeps ends later. (Robbins and Monro, "A Stochastic Approximation Method",
//! 1951, with a step that stays.) A single stolen millisecond therefore moves it by one
//! step only.

use insane_core::Nanos;

/// One in so many sleeps may end later than the learnt margin.
const BEYOND: u64 = 100;
/// What a sleep that ended too late adds, nanoseconds; the others together take it away.
const RISE_NS: u64 = 1_980;
const FALL_NS: u64 = RISE_NS / (BEYOND - 1);

/// Whether a task looks at the clock before its instant, instead of sleeping to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Spin {
    /// It sleeps: no processor time, and the whole lateness of the kernel's wake-ups.
    #[default]
    Never,
    /// From so long before the instant on.
    Fixed(Nanos),
    /// From as long before as is enough for 99 of 100 wake-ups, and no longer than this.
    Learnt(Nanos),
}

/// The margin in force.
#[derive(Clone, Copy, Debug)]
pub struct Margin {
    ns: u64,
    max_ns: u64,
    learns: bool,
}

impl Margin {
    /// As asked for, and never more than half a period, so that a task always sleeps. A
    /// margin that learns begins at its largest.
    pub fn new(spin: Spin, period: Nanos) -> Self {
        let (ns, learns) = match spin {
            Spin::Never => (0, false),
            Spin::Fixed(margin) => (margin.0, false),
            Spin::Learnt(max) => (max.0, true),
        };
        let ns = ns.min(period.0 / 2);
        Margin { ns, max_ns: ns, learns }
    }

    /// The margin for the next sleep.
    pub fn get(&self) -> Nanos {
        Nanos(self.ns)
    }

    /// Learns from a sleep that ended so much later than it was to.
    pub fn learn(&mut self, oversleep: Nanos) {
        if self.learns {
            self.ns = match oversleep.0 > self.ns {
                true => (self.ns + RISE_NS).min(self.max_ns),
                false => self.ns.saturating_sub(FALL_NS),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_stays_and_leaves_half_a_period_to_sleep() {
        let mut fixed = Margin::new(Spin::Fixed(Nanos::from_millis(9)), Nanos::from_millis(1));
        fixed.learn(Nanos::from_secs(1));
        fixed.learn(Nanos::ZERO);
        assert_eq!(fixed.get(), Nanos::from_micros(500));
        assert_eq!(Margin::new(Spin::Never, Nanos::from_millis(1)).get(), Nanos::ZERO);
    }

    #[test]
    fn it_finds_the_quantile_from_above_and_from_below() {
        // Sleeps end 0 to 100 us late, each as often: the 99th percentile is 99 us.
        let mut seed = 1_u64;
        let mut draw = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            Nanos((seed >> 33) % 100_000)
        };
        let mut margin = Margin::new(Spin::Learnt(Nanos::from_micros(300)), Nanos::from_millis(1));
        assert_eq!(margin.get(), Nanos::from_micros(300));
        (0..50_000).for_each(|_| margin.learn(draw()));
        assert!((90_000..106_000).contains(&margin.get().0), "{:?}", margin.get());
        margin.ns = 0;
        (0..50_000).for_each(|_| margin.learn(draw()));
        assert!((90_000..106_000).contains(&margin.get().0), "{:?}", margin.get());
    }

    #[test]
    fn one_stolen_second_hardly_moves_it_and_nothing_exceeds_its_bound() {
        let mut margin = Margin::new(Spin::Learnt(Nanos::from_micros(50)), Nanos::from_millis(1));
        (0..1_000).for_each(|_| margin.learn(Nanos::from_micros(10)));
        let before = margin.get();
        margin.learn(Nanos::from_secs(1));
        assert!(margin.get().0 - before.0 <= RISE_NS);
        (0..1_000).for_each(|_| margin.learn(Nanos::from_secs(1)));
        assert_eq!(margin.get(), Nanos::from_micros(50));
    }
}
