//! Windows that come again: a start, a length, a period, all in nanoseconds.
//!
//! A recurrence is the set of windows `[offset + k * period, offset + k * period +
//! length)` for all integers k. Two of them never overlap exactly where their residues
//! modulo the gcd of the periods do not: the differences of their starts are all the
//! numbers that are congruent to the difference of the offsets. So a schedule is
//! tested in pairs and its hyperperiod, which may be longer than the age of the world,
//! is never written down.
//!
//! Everything is exact: integers, and 128 bits where 64 could overflow.

use core::fmt;
use insane_mutation::mutate;

/// Longest period, nanoseconds: 73 years. Sums of two periods and an instant of today
/// stay within 64 bits.
pub const PERIOD_NS_MAX: u64 = 1 << 61;

/// Windows `[offset + k * period, offset + k * period + length)`, nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Recurrence {
    period_ns: u64,
    offset_ns: u64,
    length_ns: u64,
}

/// Why three numbers are no recurrence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecurrenceError {
    /// The period is zero.
    ZeroPeriod,
    /// The period is above [`PERIOD_NS_MAX`].
    PeriodTooLong,
    /// The length is zero.
    ZeroLength,
    /// The length is above the period: a window would overlap the next one.
    LongerThanPeriod,
    /// The offset is not below the period.
    OffsetBeyondPeriod,
}

impl fmt::Display for RecurrenceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecurrenceError::ZeroPeriod => "the period is zero",
            RecurrenceError::PeriodTooLong => "the period is longer than 73 years",
            RecurrenceError::ZeroLength => "the length is zero",
            RecurrenceError::LongerThanPeriod => "the length is above the period",
            RecurrenceError::OffsetBeyondPeriod => "the offset is not below the period",
        })
    }
}

impl core::error::Error for RecurrenceError {}

impl Recurrence {
    /// One nanosecond a second: what a place without a stream holds.
    pub(crate) const SECOND: Recurrence = Recurrence { period_ns: 1_000_000_000, offset_ns: 0, length_ns: 1 };

    /// A recurrence of `length_ns` every `period_ns`, first at `offset_ns` after the base.
    ///
    /// # Errors
    /// [`RecurrenceError`].
    pub const fn new(period_ns: u64, offset_ns: u64, length_ns: u64) -> Result<Self, RecurrenceError> {
        if period_ns == 0 {
            return Err(RecurrenceError::ZeroPeriod);
        }
        if period_ns > PERIOD_NS_MAX {
            return Err(RecurrenceError::PeriodTooLong);
        }
        if length_ns == 0 {
            return Err(RecurrenceError::ZeroLength);
        }
        if length_ns > period_ns {
            return Err(RecurrenceError::LongerThanPeriod);
        }
        if offset_ns >= period_ns {
            return Err(RecurrenceError::OffsetBeyondPeriod);
        }
        Ok(Recurrence { period_ns, offset_ns, length_ns })
    }

    /// From one start to the next, nanoseconds.
    #[must_use]
    pub const fn period_ns(self) -> u64 {
        self.period_ns
    }

    /// From the base to the first start, nanoseconds; below the period.
    #[must_use]
    pub const fn offset_ns(self) -> u64 {
        self.offset_ns
    }

    /// Length of each window, nanoseconds; 1 to the period.
    #[must_use]
    pub const fn length_ns(self) -> u64 {
        self.length_ns
    }

    /// Whether any window of one ever overlaps any window of the other. Source: the
    /// equation `k * p - m * q = d` has integer solutions exactly where gcd(p, q)
    /// divides d (Bezout).
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let gcd = mutate!(OverlapPeriodForGcd, gcd(self.period_ns, other.period_ns), self.period_ns);
        let (mine, others) = (self.offset_ns % gcd, other.offset_ns % gcd);
        let (mine, others) = mutate!(OverlapSwapped, (mine, others), (others, mine));
        // Where the other's window begins after this one's, modulo the gcd.
        let after = if others >= mine { others - mine } else { others + (gcd - mine) };
        let first = mutate!(OverlapFirstLength, self.length_ns, self.length_ns - 1);
        let second = mutate!(OverlapSecondLength, other.length_ns, other.length_ns - 1);
        first > after || second > gcd - after
    }

    /// The first start at or after an instant, both counted from the base. `None` where
    /// it is beyond 64 bits.
    #[must_use]
    pub fn next_start(self, at_ns: u64) -> Option<u64> {
        if at_ns <= self.offset_ns {
            return Some(self.offset_ns);
        }
        let into = (at_ns - self.offset_ns) % self.period_ns;
        if mutate!(NextStartLate, into == 0, false) { Some(at_ns) } else { at_ns.checked_add(self.period_ns - into) }
    }

    /// The share of time that the windows take, in units of 2^-64, rounded down.
    #[must_use]
    pub const fn share(self) -> u128 {
        ((self.length_ns as u128) << 64) / self.period_ns as u128
    }
}

/// One in units of [`Recurrence::share`]: shares whose sum is above it do not fit.
pub const WHOLE_SHARE: u128 = 1 << 64;

/// The greatest common divisor, by Euclid: at most 90 rounds for 64 bits.
#[must_use]
pub const fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The least common multiple, `None` above 64 bits.
#[must_use]
pub const fn lcm(a: u64, b: u64) -> Option<u64> {
    if a == 0 || b == 0 {
        return None;
    }
    (a / gcd(a, b)).checked_mul(b)
}
