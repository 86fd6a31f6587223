//! The clocks of a host, for stamps and ages.

use super::rest::Rest;
use insane_core::{MonoTime, Nanos, SourceInstant, Stamp};
use insane_sys::{clock, host};

/// How long the answer to "is TAI synchronised" holds.
const LOOK_AGAIN: Nanos = Nanos::from_secs(1);

/// What is known of this host's clocks.
#[derive(Debug)]
pub(crate) struct Clocks {
    /// By how much this process's monotonic clock leads the host's; `None`: unknown.
    lead_ns: Option<i64>,
    is_tai: bool,
    /// A lived instant for a sink.
    looked_at: MonoTime,
    pub(super) rest: Rest,
}

impl Clocks {
    pub fn new(now: MonoTime) -> Self {
        Clocks { lead_ns: clock::mono_lead_ns(), is_tai: is_tai(), looked_at: now, rest: Rest::new() }
    }

    /// Whether TAI is known and disciplined: one system call a second at most.
    fn has_tai(&mut self, now: MonoTime) -> bool {
        if now.since(self.looked_at) >= LOOK_AGAIN {
            (self.is_tai, self.looked_at) = (is_tai(), now);
        }
        self.is_tai
    }

    /// The present, on the best clock there is.
    pub fn stamp(&mut self, now: MonoTime) -> SourceInstant {
        if self.has_tai(now) {
            return SourceInstant::Tai(clock::tai_now());
        }
        self.of_host(now).map_or(SourceInstant::None, SourceInstant::Monotonic)
    }

    /// An instant of this process's monotonic clock on that of the host.
    pub fn of_host(&self, at: MonoTime) -> Option<MonoTime> {
        at.0.checked_add_signed(self.lead_ns?.checked_neg()?).map(MonoTime)
    }

    /// An instant of the host's monotonic clock on that of this process.
    fn of_process(&self, at: MonoTime) -> Option<MonoTime> {
        at.0.checked_add_signed(self.lead_ns?).map(MonoTime)
    }

    /// How old what bears `stamp` is at `lived`, where that can be known: the stamp is TAI and
    /// both hosts' clocks are synchronised, or it is of this host's own clock. What is ahead has
    /// no age.
    pub fn age(&mut self, instant: SourceInstant, is_of_this_host: bool, lived: MonoTime) -> Option<Nanos> {
        if matches!(instant, SourceInstant::Tai(_)) && !is_of_this_host {
            self.look(lived);
        }
        self.age_as_known(instant, is_of_this_host, lived)
    }

    /// Looks whether TAI is disciplined, once a second at most.
    pub fn look(&mut self, lived: MonoTime) {
        self.has_tai(lived);
    }

    /// As [`age`](Self::age), by the last [look](Self::look).
    pub fn age_as_known(&self, instant: SourceInstant, is_of_this_host: bool, lived: MonoTime) -> Option<Nanos> {
        match instant {
            SourceInstant::Tai(at) if is_of_this_host || self.is_tai => Some(clock::tai_now().since(at)),
            SourceInstant::Monotonic(at) if is_of_this_host => {
                Some(lived.since(self.rest.lived_then(self.of_process(at)?)))
            }
            _ => None,
        }
    }
}

fn is_tai() -> bool {
    host::clock_state().is_ok_and(|state| state.is_synchronised && state.tai_offset_s != 0)
}

/// The word that a message bears.
pub(crate) const fn word(instant: SourceInstant, is_history: bool) -> u64 {
    Stamp { instant, is_history }.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(lead_ns: Option<i64>, is_tai: bool) -> Clocks {
        Clocks { lead_ns, is_tai, looked_at: MonoTime(u64::MAX), rest: Rest::new() }
    }

    #[test]
    fn an_age_is_given_only_where_the_clock_is_the_same() {
        let now = MonoTime(1_000_000);
        let mono = SourceInstant::Monotonic(MonoTime(999_000));
        assert_eq!(clocks(Some(0), true).age(mono, true, now), Some(Nanos(1_000)));
        assert_eq!(
            clocks(Some(0), true).age(mono, false, now),
            None,
            "another host's clock counts from another moment"
        );
        assert_eq!(clocks(None, true).age(mono, true, now), None, "nor is an unknown time namespace the host's");
        let tai = SourceInstant::Tai(clock::tai_now());
        assert!(clocks(Some(0), true).age(tai, false, now).is_some());
        assert_eq!(clocks(Some(0), false).age(tai, false, now), None, "this host is not synchronised");
        assert!(clocks(Some(0), false).age(tai, true, now).is_some(), "but it is the very same clock");
        for unknown in [SourceInstant::None, SourceInstant::Unnamed(5)] {
            assert_eq!(clocks(Some(0), true).age(unknown, true, now), None);
        }
    }

    #[test]
    fn time_namespaces_are_taken_out() {
        let (sender, receiver) = (clocks(Some(5_000), false).stamp(MonoTime(25_000)), MonoTime(23_000));
        assert_eq!(sender, SourceInstant::Monotonic(MonoTime(20_000)));
        assert_eq!(clocks(Some(2_000), false).age(sender, true, receiver), Some(Nanos(1_000)));
        assert_eq!(clocks(None, false).stamp(MonoTime(25_000)), SourceInstant::None);
        assert!(matches!(clocks(None, true).stamp(MonoTime(0)), SourceInstant::Tai(_)));
    }
}
