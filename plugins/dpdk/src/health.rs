//! Whether the device still takes frames.
//!
//! Drivers do not return what became of a frame: one that is down takes it and throws it away,
//! or takes none for ever. So what the device counts is looked at now and then, and compared
//! with what it was given. While it fails, one frame a look goes to it, to see whether it does
//! again.

use insane_core::{MonoTime, Nanos};

/// How long a device may take nothing of what waits for it.
const STUCK_FOR: Nanos = Nanos::from_millis(100);

/// What a look sees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// There is a carrier, as far as the device says.
    pub(crate) is_up: bool,
    /// Frames that the device counts as sent, and those that it threw away, since it was opened.
    pub(crate) sent: u64,
    pub(crate) errors: u64,
    /// Frames that the driver took, since it was opened.
    pub(crate) taken: u64,
    /// Frames wait for it.
    pub(crate) are_waiting: bool,
}

/// Why nothing is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Working,
    /// No carrier.
    Down,
    /// It throws frames away, or takes none.
    Refusing,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Health {
    state: State,
    /// One frame may be tried.
    may_try: bool,
    sent: u64,
    errors: u64,
    taken: u64,
    stuck_since: Option<MonoTime>,
}

impl Health {
    pub(crate) const fn new() -> Self {
        Health { state: State::Working, may_try: false, sent: 0, errors: 0, taken: 0, stuck_since: None }
    }

    /// Whether a frame may go to the device.
    #[inline]
    pub(crate) fn allows(&mut self) -> bool {
        self.state == State::Working || std::mem::take(&mut self.may_try)
    }

    pub(crate) fn is_failing(&self) -> bool {
        self.state != State::Working
    }

    /// Judges the time since the last look.
    pub(crate) fn look(&mut self, look: Look, now: MonoTime) {
        let has_sent = look.sent > self.sent;
        let has_thrown_away = look.errors > self.errors;
        let has_taken = look.taken > self.taken;
        (self.sent, self.errors, self.taken) = (look.sent, look.errors, look.taken);
        if has_taken || !look.are_waiting {
            self.stuck_since = None;
        }
        let since = if look.are_waiting { *self.stuck_since.get_or_insert(now) } else { now };
        self.state = match self.state {
            _ if !look.is_up => State::Down,
            _ if has_thrown_away && !has_sent => State::Refusing,
            _ if now.since(since) >= STUCK_FOR => State::Refusing,
            State::Refusing if !has_sent => State::Refusing,
            _ => State::Working,
        };
        self.may_try = self.state != State::Working;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Look = Look { is_up: true, sent: 0, errors: 0, taken: 0, are_waiting: false };

    fn at(millis: u64) -> MonoTime {
        MonoTime(0) + Nanos::from_millis(millis)
    }

    #[test]
    fn a_device_that_throws_everything_away_is_tried_until_it_sends() {
        let mut health = Health::new();
        health.look(Look { sent: 5, taken: 5, ..GOOD }, at(0));
        assert!(health.allows() && health.allows() && !health.is_failing());
        health.look(Look { sent: 6, errors: 3, taken: 9, ..GOOD }, at(10));
        assert!(!health.is_failing(), "some went");
        health.look(Look { sent: 6, errors: 4, taken: 10, ..GOOD }, at(20));
        assert!(health.is_failing());
        assert!(health.allows() && !health.allows(), "one a look");
        health.look(Look { sent: 6, errors: 4, taken: 10, ..GOOD }, at(30));
        assert!(health.is_failing() && health.allows() && !health.allows(), "nothing was tried");
        health.look(Look { sent: 7, errors: 4, taken: 11, ..GOOD }, at(40));
        assert!(!health.is_failing() && health.allows() && health.allows());
    }

    #[test]
    fn a_device_without_carrier_is_one_that_fails() {
        let mut health = Health::new();
        health.look(Look { is_up: false, ..GOOD }, at(0));
        assert!(health.is_failing());
        health.look(GOOD, at(10));
        assert!(!health.is_failing(), "it says so itself");
    }

    #[test]
    fn a_device_that_takes_nothing_is_waited_for_only_so_long() {
        let waiting = Look { are_waiting: true, taken: 3, ..GOOD };
        let mut health = Health::new();
        for millis in [0, 10, 60, 99] {
            health.look(waiting, at(millis));
            assert!(!health.is_failing(), "{millis} ms");
        }
        health.look(waiting, at(100));
        assert!(health.is_failing());
        health.look(Look { taken: 4, sent: 1, ..waiting }, at(110));
        assert!(!health.is_failing(), "it takes again");
        health.look(Look { taken: 5, sent: 1, ..waiting }, at(300));
        assert!(!health.is_failing(), "slow, but it takes");
    }
}
