//! When a link is left, and when it is trusted again. A pure state machine, one for each link
//! and peer.
//!
//! ```text
//!            heard                        gone, silent
//! unproven ---------> good --------------------------------> failed
//!     |                ^                                     |   ^
//!     | gone, or       | good for the hold-down        heard |   | gone, silent
//!     | silent for     |                                     v   |
//!     | `silent_after` +----------------------------------- held down
//!     +--> failed
//! ```
//! A link that was never heard, and is heard after all, is good: it does not flap.
//!
//! A link that fails is left at once. The hold-down is [`Limits::return_after`], and twice as
//! long with each failure, up to [`Limits::hold_down_max`]; a link that was good for
//! [`Limits::hold_down_max`] is forgiven one. So of failures in quick succession only few find
//! the link in use: in a time T at most `log2(hold_down_max / return_after) + 1 +
//! T / hold_down_max` leave it, and as many return.

use insane_core::{MonoTime, Nanos};

/// How a link to one peer is, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Health {
    /// Heartbeats pass.
    Good,
    /// Heartbeats pass again, but not for long enough after it failed.
    HeldDown,
    /// Nothing is known of it yet.
    #[default]
    Unproven,
    /// It is gone, or silent while another link hears the same peer.
    Failed,
}

impl Health {
    /// All of them.
    pub const ALL: [Health; 4] = [Health::Good, Health::HeldDown, Health::Unproven, Health::Failed];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Health::Good => "good",
            Health::HeldDown => "held down",
            Health::Unproven => "unproven",
            Health::Failed => "failed",
        }
    }
}

/// What is seen of a link and a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Heartbeats pass by it, both ways.
    Heard,
    /// None pass, while another link hears the peer.
    Silent,
    /// The link itself says that it does not work, or it is not there.
    Gone,
    /// Nothing can be said: no link hears the peer, or no heartbeats go by this one.
    Unknown,
}

/// The times. Peers need not agree on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// A link of which nothing was known yet is silent for so long before it counts as failed.
    pub silent_after: Nanos,
    /// The first hold-down.
    pub return_after: Nanos,
    /// The longest one; at least as long.
    pub hold_down_max: Nanos,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            silent_after: Nanos::from_millis(500),
            return_after: Nanos::from_secs(2),
            hold_down_max: Nanos::from_secs(60),
        }
    }
}

impl Limits {
    /// The hold-down after so many failures: one or more.
    #[must_use]
    pub const fn hold_down(&self, failures: u32) -> Nanos {
        let doublings = failures.saturating_sub(1);
        let doublings = if doublings > 63 { 63 } else { doublings };
        let long = self.return_after.0.saturating_mul(1 << doublings);
        Nanos(if long > self.hold_down_max.0 { self.hold_down_max.0 } else { long })
    }
}

/// The state machine of one link to one peer. See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tracker {
    health: Health,
    /// Since when it is so.
    since: MonoTime,
    /// Since when it is unproven and silent, or held down and heard, or when it was last
    /// forgiven.
    mark: Option<MonoTime>,
    /// Failures that are not forgiven.
    failures: u32,
}

impl Tracker {
    /// A link of which nothing is known.
    #[must_use]
    pub const fn new(now: MonoTime) -> Self {
        Tracker { health: Health::Unproven, since: now, mark: None, failures: 0 }
    }

    /// What is seen at `now`, which never goes back. Returns how it is; to be called whenever
    /// something changes, and now and then otherwise.
    pub fn observe(&mut self, now: MonoTime, signal: Signal, limits: &Limits) -> Health {
        match (self.health, signal) {
            // It was only late.
            (Health::Failed, Signal::Heard) if self.failures == 0 => self.become_(now, Health::Good),
            (Health::Failed, Signal::Heard) => {
                self.become_(now, Health::HeldDown);
                self.mark = Some(now);
            }
            (Health::Failed, _) => {}
            (_, Signal::Gone) | (Health::Good | Health::HeldDown, Signal::Silent) => self.fail(now),
            (Health::Unproven, Signal::Silent) => {
                let silent_since = *self.mark.get_or_insert(now);
                if now.since(silent_since) >= limits.silent_after {
                    self.become_(now, Health::Failed);
                }
            }
            (Health::Unproven, Signal::Heard) => self.become_(now, Health::Good),
            (Health::Unproven, Signal::Unknown) => self.mark = None,
            (Health::HeldDown, Signal::Heard) => {
                let heard_since = *self.mark.get_or_insert(now);
                if now.since(heard_since) >= limits.hold_down(self.failures) {
                    self.become_(now, Health::Good);
                }
            }
            // Nothing was seen of it meanwhile: it has to be good for the whole time anew.
            (Health::HeldDown, Signal::Unknown) => self.mark = None,
            (Health::Good, Signal::Heard | Signal::Unknown) => self.forgive(now, limits),
        }
        self.health
    }

    fn become_(&mut self, now: MonoTime, health: Health) {
        (self.health, self.since, self.mark) = (health, now, None);
    }

    fn fail(&mut self, now: MonoTime) {
        self.failures = self.failures.saturating_add(1);
        self.become_(now, Health::Failed);
    }

    fn forgive(&mut self, now: MonoTime, limits: &Limits) {
        let last = *self.mark.get_or_insert(self.since);
        if self.failures > 0 && now.since(last) >= limits.hold_down_max {
            self.failures -= 1;
            self.mark = Some(now);
        }
    }

    /// How it is.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Since when.
    #[must_use]
    pub const fn since(&self) -> MonoTime {
        self.since
    }

    /// Failures that are not forgiven.
    #[must_use]
    pub const fn failures(&self) -> u32 {
        self.failures
    }

    /// How long it still has to be good; `None`: it is not held down.
    #[must_use]
    pub fn held_for(&self, now: MonoTime, limits: &Limits) -> Option<Nanos> {
        let hold = limits.hold_down(self.failures);
        (self.health == Health::HeldDown).then(|| {
            let heard_for = self.mark.map_or(Nanos::ZERO, |mark| now.since(mark));
            Nanos(hold.0.saturating_sub(heard_for.0))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { silent_after: Nanos(50), return_after: Nanos(200), hold_down_max: Nanos(3_200) };

    const SIGNALS: [Signal; 4] = [Signal::Heard, Signal::Silent, Signal::Gone, Signal::Unknown];

    /// The health after each of these, one every ten nanoseconds.
    fn run(tracker: &mut Tracker, now: &mut u64, signals: &[(Signal, u32)]) -> Health {
        for (signal, times) in signals {
            for _ in 0..*times {
                *now += 10;
                tracker.observe(MonoTime(*now), *signal, &LIMITS);
            }
        }
        tracker.health()
    }

    #[test]
    fn it_is_left_at_once_and_returned_to_later() {
        let (mut tracker, mut now) = (Tracker::new(MonoTime(0)), 0);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Unknown, 100)]), Health::Unproven);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Heard, 1)]), Health::Good);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Silent, 1)]), Health::Failed);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Heard, 20)]), Health::HeldDown);
        assert_eq!(tracker.held_for(MonoTime(now), &LIMITS), Some(Nanos(10)));
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Heard, 1)]), Health::Good);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Gone, 1)]), Health::Failed);
        // Twice as long now.
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Heard, 40)]), Health::HeldDown);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Heard, 1)]), Health::Good);
    }

    #[test]
    fn what_begins_silent_has_some_time_to_be_heard() {
        let (mut tracker, mut now) = (Tracker::new(MonoTime(0)), 0);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Silent, 5)]), Health::Unproven);
        // Nobody hears the peer: that says nothing about this link.
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Unknown, 1), (Signal::Silent, 5)]), Health::Unproven);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Silent, 1)]), Health::Failed);
        // Late, and no more than that.
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Heard, 1)]), Health::Good);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Silent, 1), (Signal::Heard, 1)]), Health::HeldDown);
    }

    #[test]
    fn a_peer_that_nobody_hears_makes_no_link_fail_and_none_good() {
        let (mut tracker, mut now) = (Tracker::new(MonoTime(0)), 0);
        run(&mut tracker, &mut now, &[(Signal::Heard, 1)]);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Unknown, 1_000)]), Health::Good);
        run(&mut tracker, &mut now, &[(Signal::Silent, 1), (Signal::Heard, 19)]);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Unknown, 1_000)]), Health::HeldDown);
        assert_eq!(run(&mut tracker, &mut now, &[(Signal::Heard, 19)]), Health::HeldDown);
    }

    #[test]
    fn failures_are_forgiven_one_by_one() {
        let (mut tracker, mut now) = (Tracker::new(MonoTime(0)), 0);
        for _ in 0..3 {
            run(&mut tracker, &mut now, &[(Signal::Heard, 100), (Signal::Gone, 1)]);
        }
        run(&mut tracker, &mut now, &[(Signal::Heard, 82)]);
        assert_eq!((tracker.health(), tracker.failures()), (Health::Good, 3));
        run(&mut tracker, &mut now, &[(Signal::Heard, 318)]);
        assert_eq!(tracker.failures(), 3);
        run(&mut tracker, &mut now, &[(Signal::Heard, 1)]);
        assert_eq!(tracker.failures(), 2);
        run(&mut tracker, &mut now, &[(Signal::Heard, 640)]);
        assert_eq!(tracker.failures(), 0);
    }

    /// How often a link is left by who uses it while it is good: what was promised.
    fn bound(time: u64) -> u64 {
        u64::from((LIMITS.hold_down_max.0 / LIMITS.return_after.0).ilog2()) + 1 + time / LIMITS.hold_down_max.0
    }

    #[test]
    fn an_interface_that_flaps_a_hundred_times_causes_few_moves() {
        // Up for long enough to be trusted the first times, then never again.
        for up in [1, 5, 21, 50, 100, 321] {
            let (mut tracker, mut now, mut moves) = (Tracker::new(MonoTime(0)), 0, 0);
            for _ in 0..100 {
                let health = run(&mut tracker, &mut now, &[(Signal::Heard, up)]);
                moves += u64::from(health == Health::Good);
                run(&mut tracker, &mut now, &[(Signal::Silent, 5)]);
            }
            assert!(moves >= 1 && moves <= bound(now), "{moves} of at most {} with {up}", bound(now));
            // Where it is up more briefly than the longest hold-down, that does not grow with time.
            if up <= 320 {
                assert!(moves <= bound(0), "{moves} with {up}");
            }
        }
    }

    proptest! {
        /// Whatever happens: a failure is seen at once, nothing failed is called good before
        /// its hold-down is over, and the moves are bounded.
        #[test]
        fn hysteresis_holds(
            steps in proptest::collection::vec(
                (0..400u64, proptest::sample::select(&SIGNALS[..])),
                1..400,
            ),
        ) {
            let (mut tracker, mut now, mut left) = (Tracker::new(MonoTime(0)), 0, 0);
            let mut heard_since = None;
            let mut last_failure = None;
            for (wait, signal) in steps {
                now += wait;
                let before = tracker.health();
                let health = tracker.observe(MonoTime(now), signal, &LIMITS);
                if signal == Signal::Gone || (signal == Signal::Silent && before != Health::Unproven) {
                    prop_assert_eq!(health, Health::Failed);
                }
                if health == Health::Failed && before == Health::Good {
                    left += 1;
                }
                if health == Health::Failed && tracker.failures() > 0 {
                    last_failure = Some(now);
                }
                heard_since = if signal == Signal::Heard { heard_since.or(Some(now)) } else { None };
                if health == Health::Good && before != Health::Good && last_failure.is_some() {
                    let since = heard_since.unwrap();
                    prop_assert!(now - since >= LIMITS.return_after.0, "{} {}", now, since);
                    prop_assert!(now - since >= LIMITS.hold_down(tracker.failures()).0);
                }
                prop_assert!(tracker.failures() < 400);
            }
            prop_assert!(left <= bound(now), "{} of {}", left, bound(now));
        }
    }
}
