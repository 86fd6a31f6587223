//! The instant that a message bears, and of which clock it is: one word, which rings and
//! frames carry unchanged.
//!
//! ```text
//!  63   62   61   60                                                     0
//! +---------+----+--------------------------------------------------------+
//! |  clock  |hist|  nanoseconds: since boot, or since 2020-01-01 TAI      |
//! +---------+----+--------------------------------------------------------+
//! ```
//!
//! Clock 1 is `CLOCK_MONOTONIC` of the source's host, 2 is TAI of a synchronised clock; they
//! end in 2093. Any other word is what an ordinary source gave with its message: nanoseconds
//! of a clock that only the applications know, 0 for none. The bit *hist* says that the
//! message was emitted before its receiver joined.

use crate::time::{MonoTime, TaiTime};

const CLOCK_SHIFT: u32 = 62;
const CLOCK_MONOTONIC: u64 = 1;
const CLOCK_TAI: u64 = 2;
const HISTORY: u64 = 1 << 61;
const NS_MASK: u64 = HISTORY - 1;
/// 2020-01-01 00:00:00 TAI, nanoseconds since 1970-01-01 TAI.
const TAI_BASE_NS: u64 = 1_577_836_800 * 1_000_000_000;

/// What is known of the clock of an instant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClockQuality {
    /// Nothing: there is no instant, or only its application knows the clock.
    None,
    /// The monotonic clock of the source's host: it runs freely, and counts from another
    /// moment on every host.
    Monotonic,
    /// TAI of a clock that was synchronised when the instant was taken.
    Tai,
}

/// The instant at which a source emitted a message, as the source says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SourceInstant {
    /// None.
    None,
    /// Nanoseconds of a clock that only the applications know.
    Unnamed(u64),
    /// Of the monotonic clock of the source's host (of its initial time namespace).
    Monotonic(MonoTime),
    /// TAI, of a synchronised clock.
    Tai(TaiTime),
}

impl SourceInstant {
    /// What is known of its clock.
    #[must_use]
    pub const fn quality(self) -> ClockQuality {
        match self {
            SourceInstant::None | SourceInstant::Unnamed(_) => ClockQuality::None,
            SourceInstant::Monotonic(_) => ClockQuality::Monotonic,
            SourceInstant::Tai(_) => ClockQuality::Tai,
        }
    }
}

/// What the word of a message says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stamp {
    /// When it was emitted.
    pub instant: SourceInstant,
    /// It was emitted before its receiver joined. Only instants of a known clock say so.
    pub is_history: bool,
}

impl Stamp {
    /// The word. An instant outside of its clock's range is none.
    #[must_use]
    pub const fn encode(self) -> u64 {
        let (clock, ns) = match self.instant {
            SourceInstant::None => return 0,
            SourceInstant::Unnamed(ns) => return ns,
            SourceInstant::Monotonic(at) => (CLOCK_MONOTONIC, at.0),
            SourceInstant::Tai(at) if at.0 < TAI_BASE_NS => return 0,
            SourceInstant::Tai(at) => (CLOCK_TAI, at.0 - TAI_BASE_NS),
        };
        if ns > NS_MASK {
            return 0;
        }
        let history = if self.is_history { HISTORY } else { 0 };
        clock << CLOCK_SHIFT | history | ns
    }

    /// The word of an instant, marked as of the past; one without a clock cannot be.
    #[must_use]
    pub const fn of_past(word: u64) -> u64 {
        if matches!(word >> CLOCK_SHIFT, CLOCK_MONOTONIC | CLOCK_TAI) { word | HISTORY } else { word }
    }

    /// Whether a word says that its message was emitted before its receiver joined: as
    /// [`decode`](Self::decode) has it.
    #[must_use]
    #[inline]
    pub const fn is_of_history(word: u64) -> bool {
        word & HISTORY != 0 && matches!(word >> CLOCK_SHIFT, CLOCK_MONOTONIC | CLOCK_TAI)
    }

    /// What a word says. Every word says something.
    #[must_use]
    pub const fn decode(word: u64) -> Self {
        let ns = word & NS_MASK;
        let instant = match word >> CLOCK_SHIFT {
            CLOCK_MONOTONIC => SourceInstant::Monotonic(MonoTime(ns)),
            CLOCK_TAI => SourceInstant::Tai(TaiTime(ns + TAI_BASE_NS)),
            _ if word == 0 => return Stamp { instant: SourceInstant::None, is_history: false },
            _ => return Stamp { instant: SourceInstant::Unnamed(word), is_history: false },
        };
        Stamp { instant, is_history: word & HISTORY != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(instant: SourceInstant, is_history: bool) -> Stamp {
        Stamp::decode(Stamp { instant, is_history }.encode())
    }

    #[test]
    fn every_instant_survives_the_way_with_its_clock() {
        for instant in [
            SourceInstant::Monotonic(MonoTime(0)),
            SourceInstant::Monotonic(MonoTime(NS_MASK)),
            SourceInstant::Tai(TaiTime(TAI_BASE_NS)),
            SourceInstant::Tai(TaiTime(TAI_BASE_NS + NS_MASK)),
        ] {
            for is_history in [false, true] {
                assert_eq!(there_and_back(instant, is_history), Stamp { instant, is_history });
                assert_eq!(Stamp::is_of_history(Stamp { instant, is_history }.encode()), is_history);
            }
        }
    }

    #[test]
    fn what_an_ordinary_source_gave_is_of_no_known_clock() {
        for ns in [1, 1_790_000_000_000_000_000, HISTORY | 1, 3 << CLOCK_SHIFT | 5] {
            let stamp = Stamp::decode(ns);
            assert_eq!(stamp, Stamp { instant: SourceInstant::Unnamed(ns), is_history: false });
            assert!(!Stamp::is_of_history(ns));
            assert_eq!((stamp.encode(), stamp.instant.quality()), (ns, ClockQuality::None));
        }
        assert_eq!(Stamp::decode(0).instant, SourceInstant::None);
    }

    #[test]
    fn what_has_no_place_is_none() {
        let none = Stamp { instant: SourceInstant::None, is_history: false };
        assert_eq!(there_and_back(SourceInstant::Monotonic(MonoTime(NS_MASK + 1)), true), none);
        assert_eq!(there_and_back(SourceInstant::Tai(TaiTime(TAI_BASE_NS - 1)), true), none);
        assert_eq!(there_and_back(SourceInstant::Tai(TaiTime(u64::MAX)), false), none);
    }
}
