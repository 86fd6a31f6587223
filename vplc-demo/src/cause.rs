//! Why a cycle missed: what was measured, and the rule that names a cause.
//!
//! A cycle misses when, at its start, no command is there that answers a sample of
//! the last [`FRESH_CYCLES`] cycles. The evidence comes partly later, with the next
//! commands, which say how late the controller was; [`Misses`] keeps a miss open
//! until then. What no measurement explains stays [`Cause::Unexplained`].

use insane_core::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A command is fresh while the sample it answers is at most this many cycles old.
pub const FRESH_CYCLES: u64 = 2;
/// Misses that wait for evidence; older ones are closed with what is known.
const OPEN_MAX: usize = 256;
/// Cycles after which a miss is closed with what is known.
const OPEN_CYCLES: u64 = 200;

/// Why a cycle missed. The first that applies, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The device's own wake-up was late.
    WakeLate,
    /// The device's own code ran past its cycle.
    ApplicationOverrun,
    /// The device's thread lost the processor inside its cycle.
    Preempted,
    /// The controller says that it was late, or passed over cycles.
    PeerLate,
    /// A sequence number is missing, of samples or of commands.
    MessageLost,
    /// The answer to a sample came too late to be fresh, and none of the above held it up:
    /// sample or command was under way for too long.
    MessageLate,
    /// Nothing measured explains it.
    Unexplained,
}

impl Cause {
    /// All, in the order of the rule.
    pub const ALL: [Cause; 7] = [
        Cause::WakeLate,
        Cause::ApplicationOverrun,
        Cause::Preempted,
        Cause::PeerLate,
        Cause::MessageLost,
        Cause::MessageLate,
        Cause::Unexplained,
    ];

    /// As it stands in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Cause::WakeLate => "wake late",
            Cause::ApplicationOverrun => "application overrun",
            Cause::Preempted => "preempted",
            Cause::PeerLate => "peer late",
            Cause::MessageLost => "message lost",
            Cause::MessageLate => "message late",
            Cause::Unexplained => "unexplained",
        }
    }
}

/// How the device came to start a cycle behind time, if it had not gone to sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stall {
    /// It had gone to sleep in time.
    #[default]
    None,
    /// Its code used the processor for more than half the time.
    Overrun,
    /// Something else had the processor.
    Preempted,
}

/// What was measured around a miss.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Evidence {
    /// The device's worst wake-up.
    pub late: Nanos,
    /// The device's code overran.
    pub overrun: bool,
    /// The device's thread lost the processor.
    pub preempted: bool,
    /// The controller's worst lateness by its own account.
    pub peer_late: Nanos,
    /// Cycles that the controller passed over.
    pub peer_skipped: u64,
    /// Samples and commands that never came.
    pub lost: u64,
    /// An answer came later than a fresh one can.
    pub slow: bool,
}

impl Evidence {
    /// What either knows.
    #[must_use]
    pub fn and(self, other: Evidence) -> Evidence {
        Evidence {
            late: self.late.max(other.late),
            overrun: self.overrun || other.overrun,
            preempted: self.preempted || other.preempted,
            peer_late: self.peer_late.max(other.peer_late),
            peer_skipped: self.peer_skipped + other.peer_skipped,
            lost: self.lost + other.lost,
            slow: self.slow || other.slow,
        }
    }

    /// The cause; lateness counts from `threshold`.
    #[must_use]
    pub fn cause(&self, threshold: Nanos) -> Cause {
        if self.late >= threshold {
            Cause::WakeLate
        } else if self.overrun {
            Cause::ApplicationOverrun
        } else if self.preempted {
            Cause::Preempted
        } else if self.peer_late >= threshold || self.peer_skipped > 0 {
            Cause::PeerLate
        } else if self.lost > 0 {
            Cause::MessageLost
        } else if self.slow {
            Cause::MessageLate
        } else {
            Cause::Unexplained
        }
    }
}

/// How many misses had which cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Causes([u64; Cause::ALL.len()]);

impl Causes {
    /// Misses with this cause.
    #[must_use]
    pub fn of(&self, cause: Cause) -> u64 {
        self.0[cause as usize]
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Counts `count` more.
    pub fn add(&mut self, cause: Cause, count: u64) {
        self.0[cause as usize] += count;
    }
}

/// The book of misses.
#[derive(Debug)]
pub struct Misses {
    threshold: Nanos,
    /// Evidence of the cycles in which a command could still have been fresh; the
    /// newest last.
    recent: VecDeque<Evidence>,
    open: VecDeque<(u64, Evidence)>,
    causes: Causes,
}

impl Misses {
    /// An empty book; lateness counts from `threshold`.
    #[must_use]
    pub fn new(threshold: Nanos) -> Self {
        Misses { threshold, recent: VecDeque::new(), open: VecDeque::new(), causes: Causes::default() }
    }

    /// A cycle started, `own` being what the device measured of itself.
    pub fn cycle(&mut self, cycle: u64, own: Evidence, missed: bool) {
        self.recent.push_back(own);
        if self.recent.len() > FRESH_CYCLES as usize + 1 {
            self.recent.pop_front();
        }
        if missed {
            let known = self.recent.iter().fold(Evidence::default(), |all, one| all.and(*one));
            self.open.push_back((cycle, known));
        }
        while self.open.len() > OPEN_MAX || self.open.front().is_some_and(|(at, _)| at + OPEN_CYCLES < cycle) {
            self.close_first();
        }
    }

    /// Cycles that never started are misses of their own, for the device's reason.
    pub fn skipped(&mut self, count: u64, own: Evidence) {
        self.causes.add(own.cause(self.threshold), count);
    }

    /// A command came: it answers `echo_cycle` and tells about the controller.
    pub fn command(&mut self, echo_cycle: u64, peer: Evidence) {
        if let Some(newest) = self.recent.back_mut() {
            *newest = newest.and(peer);
        }
        for (_, evidence) in &mut self.open {
            *evidence = evidence.and(peer);
        }
        // A command that answers a later sample than the missing one: whatever held
        // that up has been told by now.
        while self.open.front().is_some_and(|(at, _)| echo_cycle >= *at) {
            self.close_first();
        }
    }

    /// What is known so far: open misses count with the evidence there is.
    #[must_use]
    pub fn causes(&self) -> Causes {
        let mut causes = self.causes;
        for (_, evidence) in &self.open {
            causes.add(evidence.cause(self.threshold), 1);
        }
        causes
    }

    fn close_first(&mut self) {
        if let Some((_, evidence)) = self.open.pop_front() {
            self.causes.add(evidence.cause(self.threshold), 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: Nanos = Nanos::from_micros(200);

    fn only(misses: &Misses, cause: Cause, count: u64) {
        assert_eq!(misses.causes().of(cause), count, "{:?}", misses.causes());
        assert_eq!(misses.causes().total(), count, "{:?}", misses.causes());
    }

    #[test]
    fn the_order_of_the_rule() {
        let mut all = Evidence {
            late: LATE,
            overrun: true,
            preempted: true,
            peer_late: LATE,
            peer_skipped: 0,
            lost: 1,
            slow: true,
        };
        assert_eq!(all.cause(LATE), Cause::WakeLate);
        all.late = Nanos(LATE.0 - 1);
        assert_eq!(all.cause(LATE), Cause::ApplicationOverrun);
        all.overrun = false;
        assert_eq!(all.cause(LATE), Cause::Preempted);
        all.preempted = false;
        assert_eq!(all.cause(LATE), Cause::PeerLate);
        all.peer_late = Nanos(LATE.0 - 1);
        assert_eq!(all.cause(LATE), Cause::MessageLost);
        all.peer_skipped = 1;
        assert_eq!(all.cause(LATE), Cause::PeerLate);
        all.peer_skipped = 0;
        all.lost = 0;
        assert_eq!(all.cause(LATE), Cause::MessageLate);
        all.slow = false;
        assert_eq!(all.cause(LATE), Cause::Unexplained);
        assert!(Cause::ALL.is_sorted(), "causes are counted by their place");
    }

    #[test]
    fn lateness_of_the_device_before_the_miss_explains_it() {
        let mut misses = Misses::new(LATE);
        misses.cycle(10, Evidence { late: LATE, ..Evidence::default() }, false);
        misses.cycle(11, Evidence::default(), false);
        misses.cycle(12, Evidence::default(), true);
        only(&misses, Cause::WakeLate, 1);
    }

    #[test]
    fn lateness_long_before_the_miss_does_not_explain_it() {
        let mut misses = Misses::new(LATE);
        misses.cycle(10, Evidence { late: LATE, ..Evidence::default() }, false);
        for cycle in 11..14 {
            misses.cycle(cycle, Evidence::default(), false);
        }
        misses.cycle(14, Evidence::default(), true);
        only(&misses, Cause::Unexplained, 1);
    }

    #[test]
    fn what_the_controller_tells_later_explains_an_open_miss_only() {
        let mut misses = Misses::new(LATE);
        let late = Evidence { peer_late: LATE, ..Evidence::default() };
        misses.cycle(10, Evidence::default(), true);
        misses.cycle(11, Evidence::default(), true);
        only(&misses, Cause::Unexplained, 2);
        // Answers a sample before the second miss: that one stays open.
        misses.command(10, late);
        misses.command(12, Evidence { lost: 1, ..Evidence::default() });
        only(&misses, Cause::PeerLate, 2);
        misses.cycle(12, Evidence::default(), false);
        for cycle in 13..20 {
            misses.command(cycle - 1, Evidence::default());
            misses.cycle(cycle, Evidence::default(), false);
        }
        misses.cycle(20, Evidence::default(), true);
        misses.command(20, Evidence::default());
        misses.command(21, late);
        assert_eq!(misses.causes().of(Cause::Unexplained), 1);
    }

    #[test]
    fn a_gap_in_the_sequence_explains_it() {
        let mut misses = Misses::new(LATE);
        misses.cycle(10, Evidence::default(), true);
        misses.command(11, Evidence { lost: 3, ..Evidence::default() });
        only(&misses, Cause::MessageLost, 1);
    }

    #[test]
    fn skipped_cycles_count_for_the_devices_reason() {
        let mut misses = Misses::new(LATE);
        misses.skipped(4, Evidence { late: Nanos::from_millis(4), ..Evidence::default() });
        only(&misses, Cause::WakeLate, 4);
    }

    #[test]
    fn the_book_is_bounded_and_loses_no_miss() {
        let mut misses = Misses::new(LATE);
        for cycle in 0..10_000 {
            misses.cycle(cycle, Evidence::default(), true);
            assert!(misses.open.len() <= OPEN_MAX);
        }
        only(&misses, Cause::Unexplained, 10_000);
    }
}
