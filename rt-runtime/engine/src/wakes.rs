//! Which sinks are to be woken, in which order, and what their sessions may still ask for.
//!
//! A sink is in at most one of the lists, once. Real-time sinks come first. A session
//! whose purse is empty is put off, not forgotten: its sinks wait in a list of their own,
//! of which a turn looks at one, and sleep no longer than their own timeout meanwhile.

use crate::SINKS_MAX;
use crate::waker::WakeQueue;
use insane_core::{MonoTime, Nanos, SessionId};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;

/// A session that has not asked for a while may have this much of its rate at once; and
/// the time that purses go by may be this late.
const BURST: Nanos = Nanos::from_millis(100);

/// Purses of sessions without a sink that are kept for them.
const LEFT_MAX: usize = 64;

/// A session's purse: a token bucket, kept as the instant until which the wake-ups so far
/// are paid for at its rate.
#[derive(Clone, Copy, Debug)]
struct Purse {
    session: SessionId,
    sinks: u32,
    price: Nanos,
    paid_until: MonoTime,
}

impl Purse {
    /// Pays for one wake-up. `now` may be late: that errs on the strict side.
    fn pay(&mut self, now: MonoTime) -> bool {
        let from = self.paid_until.max(now);
        let can = from.since(now) <= BURST;
        if can {
            self.paid_until = from + self.price;
        }
        can
    }

    fn refund(&mut self) {
        self.paid_until = MonoTime(self.paid_until.0.saturating_sub(self.price.0));
    }
}

/// Index of a purse.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PurseIndex(u16);

/// The sinks to be woken, and the purses of their sessions.
#[derive(Debug)]
pub(crate) struct Wakes {
    urgent: VecDeque<u16>,
    ordinary: VecDeque<u16>,
    put_off: VecDeque<u16>,
    purses: Vec<Purse>,
    pub thread: Option<Arc<WakeQueue>>,
}

impl Wakes {
    pub fn new(thread: Option<Arc<WakeQueue>>) -> Self {
        // As many places as sinks in each: a sink is in one list, once.
        let list = || VecDeque::with_capacity(SINKS_MAX);
        Wakes { urgent: list(), ordinary: list(), put_off: list(), purses: Vec::with_capacity(SINKS_MAX), thread }
    }

    /// The purse of a session, for one more sink. There are never more than places for sinks. A
    /// session that comes back finds its own as it left it, so that it does not fill it by
    /// closing its last sink: the last [`LEFT_MAX`] that were left are kept, and beyond that
    /// those that owe most.
    pub fn hold(&mut self, session: SessionId, rate: NonZeroU32) -> PurseIndex {
        let price = Nanos(1_000_000_000 / u64::from(rate.get()));
        if let Some(at) = self.purses.iter().position(|purse| purse.session == session) {
            let purse = &mut self.purses[at];
            if purse.sinks == 0 {
                purse.price = price;
            }
            purse.sinks += 1;
            return PurseIndex(at as u16);
        }
        let purse = Purse { session, sinks: 1, price, paid_until: MonoTime(0) };
        let left = self.purses.iter().enumerate().filter(|(_, purse)| purse.sinks == 0);
        let is_kept = left.clone().count() < LEFT_MAX && self.purses.len() < SINKS_MAX;
        let emptiest = left.min_by_key(|(_, purse)| purse.paid_until).map(|(at, _)| at);
        match emptiest.filter(|_| !is_kept) {
            Some(at) => {
                self.purses[at] = purse;
                PurseIndex(at as u16)
            }
            None => {
                self.purses.push(purse);
                PurseIndex((self.purses.len() - 1) as u16)
            }
        }
    }

    /// One sink less.
    pub fn release(&mut self, purse: PurseIndex) {
        self.purses[purse.0 as usize].sinks -= 1;
    }

    pub fn pay(&mut self, purse: PurseIndex, now: MonoTime) -> bool {
        self.purses[purse.0 as usize].pay(now)
    }

    pub fn refund(&mut self, purse: PurseIndex) {
        self.purses[purse.0 as usize].refund();
    }

    /// Lists a sink that got something.
    #[inline]
    pub fn list(&mut self, place: u16, urgent: bool) {
        if urgent { self.urgent.push_back(place) } else { self.ordinary.push_back(place) }
    }

    /// Lists a sink as the next one.
    pub fn list_first(&mut self, place: u16, urgent: bool) {
        if urgent { self.urgent.push_front(place) } else { self.ordinary.push_front(place) }
    }

    /// Lists a sink that cannot pay.
    pub fn put_off(&mut self, place: u16) {
        self.put_off.push_back(place);
    }

    pub fn unlist(&mut self, place: u16) {
        for list in [&mut self.urgent, &mut self.ordinary, &mut self.put_off] {
            list.retain(|at| *at != place);
        }
    }

    /// The next sink to look at.
    #[inline]
    pub fn next(&mut self) -> Option<u16> {
        self.urgent.pop_front().or_else(|| self.ordinary.pop_front())
    }

    /// The next sink that could not pay.
    pub fn next_put_off(&mut self) -> Option<u16> {
        self.put_off.pop_front()
    }

    /// Whether any sink waits for a look now.
    #[inline]
    pub fn is_pending(&self) -> bool {
        !self.urgent.is_empty() || !self.ordinary.is_empty()
    }

    /// Whether any sink could not pay.
    #[inline]
    pub fn has_put_off(&self) -> bool {
        !self.put_off.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn paid(wakes: &mut Wakes, purse: PurseIndex, now: MonoTime) -> u32 {
        (0..100_000).take_while(|_| wakes.pay(purse, now)).count() as u32
    }

    #[test]
    fn a_purse_pays_its_rate_and_a_tenth_of_a_second_beforehand() {
        let mut wakes = Wakes::new(None);
        let purse = wakes.hold(SESSION, NonZeroU32::new(1_000).unwrap());
        let start = MonoTime(5_000_000_000);
        assert_eq!(paid(&mut wakes, purse, start), 101);
        assert_eq!(paid(&mut wakes, purse, start), 0);
        assert_eq!(paid(&mut wakes, purse, start + Nanos::from_millis(10)), 10);
        assert_eq!(paid(&mut wakes, purse, start + Nanos::from_secs(60)), 101, "nothing is saved up beyond that");
        wakes.refund(purse);
        assert_eq!(paid(&mut wakes, purse, start + Nanos::from_secs(60)), 1);
    }

    #[test]
    fn the_smallest_rate_still_wakes_once_a_second() {
        let mut wakes = Wakes::new(None);
        let purse = wakes.hold(SESSION, NonZeroU32::MIN);
        let start = MonoTime(5_000_000_000);
        assert_eq!(paid(&mut wakes, purse, start), 1);
        assert_eq!(paid(&mut wakes, purse, start + Nanos::from_millis(800)), 0);
        assert_eq!(paid(&mut wakes, purse, start + Nanos::from_secs(1)), 1);
    }

    #[test]
    fn sinks_of_a_session_share_a_purse_and_other_sessions_have_theirs() {
        let mut wakes = Wakes::new(None);
        let rate = NonZeroU32::new(10).unwrap();
        let now = MonoTime(1_000_000_000);
        let purse = wakes.hold(SESSION, rate);
        assert_eq!(wakes.hold(SESSION, rate), purse);
        let other = wakes.hold(SessionId(2), rate);
        assert_ne!(other, purse);
        assert!(paid(&mut wakes, purse, now) > 0 && paid(&mut wakes, purse, now) == 0);
        wakes.release(purse);
        wakes.release(purse);
        let next = wakes.hold(SessionId(3), rate);
        assert!(paid(&mut wakes, next, now) > 0);
        assert_eq!(wakes.purses.len(), 3);
    }

    #[test]
    fn a_session_that_closes_its_last_sink_finds_its_purse_as_empty_as_it_was() {
        let mut wakes = Wakes::new(None);
        let rate = NonZeroU32::new(10).unwrap();
        let now = MonoTime(1_000_000_000);
        let purse = wakes.hold(SESSION, rate);
        assert!(paid(&mut wakes, purse, now) > 0);
        wakes.release(purse);
        let again = wakes.hold(SESSION, rate);
        assert_eq!(paid(&mut wakes, again, now), 0);
        wakes.release(again);
        // Others come and go in any number: the places are used again, of those first that owe nothing.
        for other in 2..10_000 {
            let purse = wakes.hold(SessionId(other), rate);
            wakes.release(purse);
        }
        assert_eq!(wakes.purses.len(), LEFT_MAX);
        let again = wakes.hold(SESSION, rate);
        assert_eq!(paid(&mut wakes, again, now), 0);
        assert!(paid(&mut wakes, again, now + Nanos::from_secs(1)) > 0);
    }
}
