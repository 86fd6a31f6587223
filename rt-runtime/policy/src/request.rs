//! What a stream asks for, as far as the choice of a technology depends on it.

use crate::offer::Amount;
use insane_core::{Determinism, Qos};

/// Best-effort streams of at least this priority are premium: the two that share the first
/// best-effort lane.
pub const PREMIUM_FROM: u8 = 6;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// The quality of service.
    pub qos: Qos,
}

/// Who goes first where capacity is scarce: time-sensitive before best effort, and in each the
/// higher priority. The order of the lanes, but finer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Importance(u8);

impl Importance {
    /// Most important first, 15 to 0.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl Request {
    /// Of this quality of service.
    #[must_use]
    pub const fn new(qos: Qos) -> Self {
        Request { qos }
    }

    /// Largest payload of a message, bytes; `None`: not known, as it has no time.
    #[must_use]
    pub const fn bytes(&self) -> Option<u32> {
        match self.qos.determinism {
            Determinism::TimeSensitive { size, .. } => Some(size),
            Determinism::BestEffort => None,
        }
    }

    /// Whether it has a time.
    #[must_use]
    pub const fn is_time_sensitive(&self) -> bool {
        matches!(self.qos.determinism, Determinism::TimeSensitive { .. })
    }

    /// Whether it is one of those that scarce technologies are for.
    #[must_use]
    pub const fn is_premium(&self) -> bool {
        self.qos.priority.get() >= PREMIUM_FROM
    }

    /// See [`Importance`].
    #[must_use]
    pub const fn importance(&self) -> Importance {
        let group = if self.is_time_sensitive() { 8 } else { 0 };
        Importance(group + self.qos.priority.get())
    }

    /// What it takes of the budget of a link, for one peer: one stream, and the bits of its
    /// payloads; a best-effort stream, whose messages nobody knows in advance, counts as
    /// `best_effort_bits_per_s`.
    #[must_use]
    pub fn need(&self, best_effort_bits_per_s: u64) -> Amount {
        let bits_per_s = match self.qos.determinism {
            Determinism::BestEffort => best_effort_bits_per_s,
            Determinism::TimeSensitive { period, size, .. } => {
                let bits = u128::from(size) * 8 * 1_000_000_000;
                u64::try_from(bits.div_ceil(u128::from(period.0.max(1)))).unwrap_or(u64::MAX)
            }
        };
        Amount { streams: 1, bits_per_s }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::{Nanos, Priority};

    #[test]
    fn time_goes_first_then_priority() {
        let of = |determinism, priority| {
            Request::new(Qos { determinism, priority: Priority::new(priority).unwrap(), ..Qos::default() })
        };
        let timed = Determinism::periodic(Nanos::from_millis(1), 64);
        assert!(of(timed, 0).importance() > of(Determinism::BestEffort, 7).importance());
        assert!(of(timed, 1).importance() > of(timed, 0).importance());
        assert!(of(Determinism::BestEffort, 6).is_premium() && !of(Determinism::BestEffort, 5).is_premium());
        for (low, high) in [(0, 1), (5, 6), (6, 7)] {
            let lanes = [low, high].map(|priority| of(timed, priority).qos.lane());
            assert!(lanes[1] <= lanes[0] && of(timed, high).importance() > of(timed, low).importance());
        }
    }

    #[test]
    fn a_need_is_rounded_up_and_never_wraps() {
        let timed =
            |period, size| Request::new(Qos { determinism: Determinism::periodic(period, size), ..Qos::default() });
        assert_eq!(timed(Nanos::from_millis(1), 125).need(7).bits_per_s, 1_000_000);
        assert_eq!(timed(Nanos(3), 1).need(7).bits_per_s, 2_666_666_667);
        assert_eq!(timed(Nanos(0), u32::MAX).need(7).bits_per_s, u64::MAX);
        assert_eq!(Request::new(Qos::default()).need(7), Amount { streams: 1, bits_per_s: 7 });
    }
}
