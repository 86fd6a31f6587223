//! The time that a state machine has seen.
//!
//! A thread that is not run for a while (its processor taken away, stopped by a signal or a
//! debugger) finds afterwards that nothing was heard of anybody for that long: what came waits to be
//! read, and who should have spoken may have stood still with it. So silence is measured by a clock
//! that stands still, too, while nobody looks: a machine says when it wants to be run next, and of
//! what it is run later than that only [`TOLERATED`] counts. The silence of others is then noticed
//! as long after the pause as it would have been without it.
//!
//! It goes as fast as the clock it is made of, and never back where that does not. No instant of it
//! leaves the machine but in stamps that only their sender reads.

use insane_core::{MonoTime, Nanos};

/// So late a machine may be run each time without missing anything.
pub const TOLERATED: Nanos = Nanos::from_millis(25);

/// A clock that stands still while nobody looks. See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeenClock {
    /// When the machine wanted to be run next, and when it was last.
    due: MonoTime,
    looked_at: MonoTime,
    missed: Nanos,
}

impl SeenClock {
    /// Nothing was missed, and nothing is wanted.
    pub const fn new() -> Self {
        SeenClock { due: MonoTime(u64::MAX), looked_at: MonoTime(0), missed: Nanos::ZERO }
    }

    /// The machine is run: what the clock shows.
    pub fn look(&mut self, now: MonoTime) -> MonoTime {
        let late = now.since(self.due.max(self.looked_at));
        self.missed.0 += late.0.saturating_sub(TOLERATED.0);
        self.looked_at = self.looked_at.max(now);
        MonoTime(now.0.saturating_sub(self.missed.0))
    }

    /// When the machine wants to be run next, by this clock; `None`: it does not mind.
    pub fn want(&mut self, due: Option<MonoTime>) {
        self.due = due.map_or(MonoTime(u64::MAX), |due| self.of(due));
    }

    /// An instant of this clock by the other one, as of the last look.
    pub fn of(&self, seen: MonoTime) -> MonoTime {
        MonoTime(seen.0.saturating_add(self.missed.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn only_what_is_later_than_wanted_is_missed() {
        let mut clock = SeenClock::new();
        assert_eq!(clock.look(MonoTime(5_000 * MS)), MonoTime(5_000 * MS), "nobody wanted anything");
        clock.want(Some(MonoTime(5_400 * MS)));
        assert_eq!(clock.look(MonoTime(5_400 * MS)), MonoTime(5_400 * MS), "a sleep is no pause");
        assert_eq!(clock.look(MonoTime(5_425 * MS)), MonoTime(5_425 * MS));
        assert_eq!(clock.look(MonoTime(6_425 * MS)), MonoTime(5_450 * MS), "a second, less what is tolerated");
        clock.want(Some(MonoTime(5_550 * MS)));
        assert_eq!(clock.of(MonoTime(5_550 * MS)), MonoTime(6_525 * MS));
        assert_eq!(clock.look(MonoTime(6_525 * MS)), MonoTime(5_550 * MS));
        assert_eq!(clock.look(MonoTime(6_000 * MS)), MonoTime(5_025 * MS), "what goes back goes back here, too");
        assert_eq!(clock.look(MonoTime(6_550 * MS)), MonoTime(5_575 * MS));
    }
}
