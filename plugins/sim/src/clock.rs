//! Virtual time.

use insane_core::time::Clock;
use insane_core::{MonoTime, Nanos};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A view of the net's time, as one host's clock shows it. It stands still until
/// the net is advanced.
#[derive(Clone, Debug)]
pub struct SimClock {
    /// The net's time. Relaxed: whoever steps it and whoever reads it are in step by
    /// other means (one test drives both).
    base: Arc<AtomicU64>,
    ahead: Nanos,
    drift_ppb: i64,
}

impl SimClock {
    /// Where every net starts: not zero, so that a time "one second ago" exists.
    pub(crate) const START: u64 = 1_000_000_000_000;

    pub(crate) fn new() -> Self {
        SimClock { base: Arc::new(AtomicU64::new(Self::START)), ahead: Nanos::ZERO, drift_ppb: 0 }
    }

    /// A clock over the same time that started `ahead` of it and gains `drift_ppb`
    /// nanoseconds each second (loses, where negative).
    #[must_use]
    pub fn skewed(&self, ahead: Nanos, drift_ppb: i64) -> SimClock {
        SimClock { base: Arc::clone(&self.base), ahead, drift_ppb }
    }

    pub(crate) fn base(&self) -> MonoTime {
        MonoTime(self.base.load(Ordering::Relaxed))
    }

    pub(crate) fn set_base(&self, now: MonoTime) {
        self.base.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> MonoTime {
        let base = self.base();
        let passed = i128::from(base.0 - Self::START);
        let gained = passed * i128::from(self.drift_ppb) / 1_000_000_000;
        let now = i128::from(base.0) + i128::from(self.ahead.0) + gained;
        MonoTime(u64::try_from(now.max(0)).unwrap_or(u64::MAX))
    }

    /// A look at virtual time costs nothing.
    fn about(&self, _before: MonoTime) -> MonoTime {
        self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skewed_clock_starts_ahead_and_drifts() {
        let clock = SimClock::new();
        let fast = clock.skewed(Nanos(500), 100_000);
        let slow = clock.skewed(Nanos::ZERO, -100_000);
        assert_eq!(fast.now().since(clock.now()), Nanos(500));
        clock.set_base(clock.base() + Nanos::from_secs(2));
        assert_eq!(fast.now().since(clock.now()), Nanos(500 + 200_000));
        assert_eq!(clock.now().since(slow.now()), Nanos(200_000));
    }
}
