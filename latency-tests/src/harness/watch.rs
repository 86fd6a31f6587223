//! Bounds for loops that poll. Every busy-polling loop of this program asks a
//! [`Watch`] after each poll that found nothing.

use super::fault::Fault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a party does between two polls that found nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// Polls again at once: the party has its core to itself.
    Spin,
    /// Gives the core to the other party that shares it.
    Yield,
}

/// How many empty polls pass between two looks at the clock and the stop flag.
/// A look costs about 30 ns, so it is a small part of 256 polls.
const POLLS_PER_LOOK: u32 = 256;

/// Bounds one party's polling in time.
pub struct Watch<'a> {
    what: &'static str,
    idle: Idle,
    deadline: Instant,
    stop: &'a AtomicBool,
    polls_left: u32,
}

/// Why polling ended without a message.
#[derive(Debug)]
pub enum Ended {
    /// Another party raised the stop flag.
    Stopped,
    /// The bound passed.
    TimedOut(Fault),
}

impl<'a> Watch<'a> {
    /// A watch for `what` that runs out after `bound` or when `stop` is raised.
    #[must_use]
    pub fn new(what: &'static str, idle: Idle, bound: Duration, stop: &'a AtomicBool) -> Self {
        Watch { what, idle, deadline: Instant::now() + bound, stop, polls_left: POLLS_PER_LOOK }
    }

    /// To be called after each poll that found nothing.
    ///
    /// # Errors
    /// Polling has to end.
    #[inline(always)]
    pub fn idle(&mut self) -> Result<(), Ended> {
        match self.idle {
            // No PAUSE instruction: with one party a core nobody profits from it,
            // and it adds up to 40 ns between a message's arrival and its discovery.
            Idle::Spin => {}
            Idle::Yield => std::thread::yield_now(),
        }
        self.polls_left -= 1;
        if self.polls_left == 0 { self.look() } else { Ok(()) }
    }

    #[cold]
    fn look(&mut self) -> Result<(), Ended> {
        self.polls_left = POLLS_PER_LOOK;
        // Relaxed: the flag carries no data, only the wish to end.
        if self.stop.load(Ordering::Relaxed) {
            return Err(Ended::Stopped);
        }
        if Instant::now() >= self.deadline {
            return Err(Ended::TimedOut(Fault::Timeout(self.what)));
        }
        Ok(())
    }
}

impl From<Ended> for Fault {
    fn from(ended: Ended) -> Fault {
        match ended {
            Ended::Stopped => Fault::Party("another party stopped".into()),
            Ended::TimedOut(fault) => fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_ends_when_the_bound_passes_or_the_flag_is_raised() {
        let stop = AtomicBool::new(false);
        let mut watch = Watch::new("nobody", Idle::Spin, Duration::from_millis(5), &stop);
        let ended = loop {
            if let Err(ended) = watch.idle() {
                break ended;
            }
        };
        assert!(matches!(ended, Ended::TimedOut(Fault::Timeout("nobody"))));

        stop.store(true, Ordering::Relaxed);
        let mut watch = Watch::new("nobody", Idle::Yield, Duration::from_secs(60), &stop);
        let polls = (1..).find(|_| watch.idle().is_err());
        assert_eq!(polls, Some(POLLS_PER_LOOK));
    }
}
