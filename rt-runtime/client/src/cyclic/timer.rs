//! The clocks of a cyclic task: the kernel's, or a test's.

use super::cadence::Look;
use insane_core::{MonoTime, Nanos, TaiTime};
use insane_sys::clock::{mono_now, sleep_until, tai_now};

/// Attempts to read two clocks without being interrupted between them.
const TRIES: usize = 3;

/// The clock and the instant to which a task's phase is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Base {
    /// The runtime's clock, `CLOCK_MONOTONIC`: tasks of one host share it. Nobody steps it.
    Mono(MonoTime),
    /// `CLOCK_TAI`: tasks of all hosts share it where it is synchronised.
    Tai(TaiTime),
}

impl Base {
    pub(super) fn ns(self) -> u64 {
        match self {
            Base::Mono(instant) => instant.0,
            Base::Tai(instant) => instant.0,
        }
    }
}

/// What a task waits with.
pub(super) trait Timer {
    /// The monotonic clock.
    fn now(&self) -> MonoTime;
    /// The monotonic clock and the base clock.
    fn look(&self, base: Base) -> Look;
    /// Returns no earlier than `until`.
    fn sleep_until(&self, until: MonoTime);
}

/// The kernel's clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel;

impl Timer for Kernel {
    fn now(&self) -> MonoTime {
        mono_now()
    }

    /// The reading of TAI that was between two of the monotonic clock with the least
    /// between them, of a few.
    fn look(&self, base: Base) -> Look {
        if let Base::Mono(_) = base {
            let mono = mono_now();
            return Look { mono, base_ns: mono.0, blur: Nanos::ZERO };
        }
        let one = || {
            let before = mono_now();
            let base_ns = tai_now().0;
            let after = mono_now();
            let blur = after.since(before);
            Look { mono: before + Nanos(blur.0 / 2), base_ns, blur }
        };
        let mut best = one();
        for _ in 1..TRIES {
            let next = one();
            if next.blur < best.blur {
                best = next;
            }
        }
        best
    }

    fn sleep_until(&self, until: MonoTime) {
        sleep_until(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_are_read_as_one() {
        let before = tai_now();
        let look = Kernel.look(Base::Tai(TaiTime(0)));
        let after = tai_now();
        assert!(look.base_ns >= before.0 && look.base_ns <= after.0);
        let mono = Kernel.look(Base::Mono(MonoTime(5)));
        assert_eq!((mono.mono.0, mono.blur), (mono.base_ns, Nanos::ZERO));
    }
}
