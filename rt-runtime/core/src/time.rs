//! Time. Instants of different clocks are different types; a length of time is
//! [`Nanos`]. All are 64-bit nanoseconds: 584 years.

use core::fmt;
use core::ops::{Add, AddAssign, Sub};
use serde::{Deserialize, Serialize};

/// A length of time in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// No time at all.
    pub const ZERO: Nanos = Nanos(0);

    /// `micros` microseconds; saturates.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Nanos(micros.saturating_mul(1_000))
    }

    /// `millis` milliseconds; saturates.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Nanos(millis.saturating_mul(1_000_000))
    }

    /// `secs` seconds; saturates.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Nanos(secs.saturating_mul(1_000_000_000))
    }
}

impl From<core::time::Duration> for Nanos {
    fn from(value: core::time::Duration) -> Self {
        Nanos(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX))
    }
}

impl From<Nanos> for core::time::Duration {
    fn from(value: Nanos) -> Self {
        core::time::Duration::from_nanos(value.0)
    }
}

impl fmt::Display for Nanos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n < 1_000 => write!(f, "{n} ns"),
            n if n < 1_000_000 => write!(f, "{}.{:01} us", n / 1_000, n % 1_000 / 100),
            n if n < 1_000_000_000 => write!(f, "{}.{:02} ms", n / 1_000_000, n % 1_000_000 / 10_000),
            n => write!(f, "{}.{:02} s", n / 1_000_000_000, n % 1_000_000_000 / 10_000_000),
        }
    }
}

macro_rules! instant {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);
        impl $name {
            /// The time since `earlier`; zero if `earlier` is later.
            #[must_use]
            pub const fn since(self, earlier: Self) -> Nanos {
                Nanos(self.0.saturating_sub(earlier.0))
            }
        }
        impl Add<Nanos> for $name {
            type Output = Self;
            fn add(self, rhs: Nanos) -> Self {
                $name(self.0.saturating_add(rhs.0))
            }
        }
        impl AddAssign<Nanos> for $name {
            fn add_assign(&mut self, rhs: Nanos) {
                *self = *self + rhs;
            }
        }
        impl Sub<Nanos> for $name {
            type Output = Self;
            fn sub(self, rhs: Nanos) -> Self {
                $name(self.0.saturating_sub(rhs.0))
            }
        }
    };
}

instant!(
    /// An instant of `CLOCK_MONOTONIC` of one host, nanoseconds.
    MonoTime
);
instant!(
    /// An instant of `CLOCK_BOOTTIME` of one host, nanoseconds: as monotonic time, and it goes on
    /// while the host is suspended.
    BootTime
);
instant!(
    /// An instant of `CLOCK_TAI`, nanoseconds since 1970-01-01 TAI.
    TaiTime
);

/// A source of monotonic time. Production reads the kernel; the simulator steps its own.
pub trait Clock {
    /// The current instant.
    fn now(&self) -> MonoTime;

    /// An instant not after now, without the cost of a look: `before`, the last one that
    /// was looked at, unless a look costs nothing.
    fn about(&self, before: MonoTime) -> MonoTime {
        before
    }

    /// TAI beside monotonic time, as the kernel has them. `None`: there is no such clock.
    fn pair(&self) -> Option<PairedRead> {
        None
    }
}

/// TAI, read between two looks at monotonic time, and what the kernel says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PairedRead {
    /// Monotonic time before.
    pub before: MonoTime,
    /// TAI.
    pub tai: TaiTime,
    /// Monotonic time after.
    pub after: MonoTime,
    /// The kernel knows the offset of TAI from UTC. Otherwise its TAI is UTC.
    pub has_offset: bool,
    /// Somebody disciplines the clock, and it is not marked as unsynchronised.
    pub is_synchronised: bool,
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn lengths_print_in_the_unit_a_person_would_choose() {
        assert_eq!(Nanos(999).to_string(), "999 ns");
        assert_eq!(Nanos(1_550).to_string(), "1.5 us");
        assert_eq!(Nanos(1_550_000).to_string(), "1.55 ms");
        assert_eq!(Nanos::from_secs(2).to_string(), "2.00 s");
    }

    #[test]
    fn instants_saturate_and_do_not_wrap() {
        assert_eq!(MonoTime(5).since(MonoTime(9)), Nanos::ZERO);
        assert_eq!(MonoTime(u64::MAX) + Nanos(1), MonoTime(u64::MAX));
    }
}
