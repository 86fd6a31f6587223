//! The doorbells of sessions: descriptors that end the sleep of a datapath.
//!
//! A client rings as often as it likes, and each ring that ends a sleep costs the datapath a
//! wake-up, which all sessions of its core pay. So what is rung for nothing is paid for: a
//! wake-up is *in vain* if nothing moved between it and the next sleep, and each session whose
//! doorbell was part of it pays [`PRICE`] out of a token bucket of [`BURST`]. One that cannot
//! pay first gets back a token for each message that was taken from it since it was last asked:
//! an honest client whose ring comes a moment late, when its message has gone already, is never
//! short. One that still cannot pay is *put out*: its doorbell is not waited for, for [`REST`].
//! Meanwhile its messages are found by whatever turns there are, and no sleep is longer than
//! that, so none waits for longer than [`REST`] and the wake-up that ends it.
//!
//! The engine alone puts doorbells into the port's set and takes them out. Nothing here is
//! part of a turn: it is looked at before and after a sleep.

use insane_core::{MonoTime, Nanos, SessionId};
use insane_sys::OsError;
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a wake-up in vain costs: a thousand a second are free.
const PRICE: Nanos = Nanos::from_millis(1);
/// So much of it at once, of a session that rang for nothing for a while.
const BURST: Nanos = Nanos::from_millis(100);
/// How long a doorbell is not waited for that rang too often, and so the longest sleep then.
pub(crate) const REST: Nanos = Nanos::from_millis(10);
/// Descriptors of which one wake-up tells at most.
pub(crate) const READY_MAX: usize = 8;

/// How often a doorbell rang in vain; written by the datapath, read by the control plane.
#[derive(Debug, Default)]
pub struct DoorbellTally {
    in_vain: AtomicU64,
    put_out: AtomicU64,
}

impl DoorbellTally {
    /// Wake-ups of which nothing came.
    #[must_use]
    pub fn in_vain(&self) -> u64 {
        // Relaxed: a number for reports, nothing hangs on it.
        self.in_vain.load(Ordering::Relaxed)
    }

    /// Times that it was not waited for because of them.
    #[must_use]
    pub fn put_out(&self) -> u64 {
        self.put_out.load(Ordering::Relaxed)
    }
}

/// A session's doorbell.
#[derive(Debug)]
pub struct Doorbell {
    /// Whose it is.
    pub session: SessionId,
    /// The descriptor. It is never read: only its edges count, so a client that fills or drains
    /// it harms nobody else.
    pub fd: Arc<OwnedFd>,
    /// What is counted of it.
    pub tally: Arc<DoorbellTally>,
}

#[derive(Debug)]
struct Entry {
    bell: Doorbell,
    /// The token bucket: until when wake-ups so far are paid for.
    paid_until: MonoTime,
    /// Messages that were taken from the session when it was last asked.
    taken: u64,
    /// It is not waited for until then.
    out_until: Option<MonoTime>,
}

impl Entry {
    /// Pays for a wake-up in vain; `taken` says how many messages were taken from the session.
    fn pay(&mut self, now: MonoTime, taken: impl FnOnce() -> u64) -> bool {
        if self.owes(now) > BURST {
            let taken = taken();
            let back = taken.saturating_sub(self.taken).min(BURST.0 / PRICE.0);
            self.taken = taken;
            self.paid_until = MonoTime(self.paid_until.0.saturating_sub(back * PRICE.0));
        }
        let can = self.owes(now) <= BURST;
        if can {
            self.paid_until = self.paid_until.max(now) + PRICE;
        }
        can
    }

    fn owes(&self, now: MonoTime) -> Nanos {
        self.paid_until.max(now).since(now)
    }
}

/// The doorbells of one datapath.
#[derive(Debug)]
pub(crate) struct Doorbells {
    /// In the order of the sessions.
    entries: Vec<Entry>,
    /// Sessions whose doorbells ended the last sleep, until that is settled.
    rang: heapless::Vec<SessionId, READY_MAX>,
    /// Something else was ready then, too.
    others: bool,
    /// Doorbells that are not waited for.
    out: usize,
    /// What is counted of all.
    tally: Arc<DoorbellTally>,
}

impl Doorbells {
    /// Room for so many; nothing allocates afterwards.
    pub fn new(capacity: usize, tally: Arc<DoorbellTally>) -> Self {
        let entries = Vec::with_capacity(capacity);
        Doorbells { entries, rang: heapless::Vec::new(), others: false, out: 0, tally }
    }

    fn find(&self, session: SessionId) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&session, |entry| entry.bell.session)
    }

    /// Whether a session has one here.
    pub fn has(&self, session: SessionId) -> bool {
        self.find(session).is_ok()
    }

    /// Waits for one more; it comes back if there is no place, the session has one already, or
    /// the kernel refuses.
    #[cold]
    pub fn add(&mut self, epoll: &Epoll, bell: Doorbell) -> Result<(), Doorbell> {
        let Err(at) = self.find(bell.session) else { return Err(bell) };
        if self.entries.len() == self.entries.capacity() || listen(epoll, &bell).is_err() {
            return Err(bell);
        }
        self.entries.insert(at, Entry { bell, paid_until: MonoTime(0), taken: 0, out_until: None });
        Ok(())
    }

    /// Waits for it no longer.
    #[cold]
    pub fn remove(&mut self, epoll: &Epoll, session: SessionId) -> Option<Doorbell> {
        let entry = self.entries.remove(self.find(session).ok()?);
        match entry.out_until {
            Some(_) => self.out -= 1,
            None => {
                let _ = epoll.remove(&entry.bell.fd);
            }
        }
        Some(entry.bell)
    }

    /// Takes note of what ended a sleep; other tokens than those of sessions are above them.
    pub fn note(&mut self, ready: &[Ready]) {
        let sessions = ready.iter().filter_map(|ready| u32::try_from(ready.token()).ok());
        self.rang = sessions.take(READY_MAX).map(SessionId).collect();
        self.others = self.rang.len() < ready.len();
    }

    /// Whether something besides doorbells, and besides its time, ended the last sleep.
    pub const fn had_others(&self) -> bool {
        self.others
    }

    /// Before a sleep: makes those pay that ended the one before, if that was in vain. False:
    /// one was put out, so that the sleep's length is to be chosen anew.
    pub fn settle(
        &mut self,
        epoll: &Epoll,
        now: MonoTime,
        in_vain: bool,
        mut taken: impl FnMut(SessionId) -> u64,
    ) -> bool {
        let out = self.out;
        for session in std::mem::take(&mut self.rang) {
            let Ok(at) = self.find(session) else { continue };
            if !in_vain {
                continue;
            }
            let entry = &mut self.entries[at];
            count(&entry.bell.tally.in_vain);
            count(&self.tally.in_vain);
            if !entry.pay(now, || taken(session)) && epoll.remove(&entry.bell.fd).is_ok() {
                entry.out_until = Some(now + REST);
                self.out += 1;
                count(&entry.bell.tally.put_out);
                count(&self.tally.put_out);
            }
        }
        self.out == out
    }

    /// Whether any doorbell is not waited for.
    #[inline]
    pub const fn has_put_out(&self) -> bool {
        self.out > 0
    }

    /// Waits again for those whose rest is over. One that rang meanwhile ends the next sleep at
    /// once.
    #[cold]
    pub fn take_back(&mut self, epoll: &Epoll, now: MonoTime) {
        for entry in &mut self.entries {
            if entry.out_until.is_some_and(|until| until <= now) && listen(epoll, &entry.bell).is_ok() {
                entry.out_until = None;
                self.out -= 1;
            }
        }
    }
}

fn listen(epoll: &Epoll, bell: &Doorbell) -> Result<(), OsError> {
    epoll.add(&bell.fd, u64::from(bell.session.0), Interest::Read, Trigger::Edge)
}

/// One writer, the datapath.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_sys::event::Event;
    use std::os::fd::AsFd;

    const START: MonoTime = MonoTime(5_000_000_000);
    const BURST_BELLS: u64 = BURST.0 / PRICE.0 + 1;

    struct Set {
        epoll: Epoll,
        bells: Doorbells,
        events: Vec<Arc<OwnedFd>>,
    }

    impl Set {
        fn new(sessions: u32) -> Self {
            let mut set =
                Set { epoll: Epoll::new().unwrap(), bells: Doorbells::new(4, Arc::default()), events: Vec::new() };
            (0..sessions).for_each(|session| set.add(session).unwrap());
            set
        }

        fn add(&mut self, session: u32) -> Result<(), Doorbell> {
            let fd = Arc::new(Event::new().unwrap().as_fd().try_clone_to_owned().unwrap());
            self.events.push(Arc::clone(&fd));
            self.bells.add(&self.epoll, Doorbell { session: SessionId(session), fd, tally: Arc::default() })
        }

        /// A session rings; whether that ends a sleep. It is settled as if nothing came of it.
        fn ring(&mut self, session: usize, now: MonoTime, taken: u64) -> bool {
            insane_sys::event::signal(&*self.events[session]).unwrap();
            let woke = self.wakes();
            self.bells.settle(&self.epoll, now, true, |_| taken);
            woke
        }

        fn wakes(&mut self) -> bool {
            let mut ready = [Ready::NONE; READY_MAX];
            let count = self.epoll.wait(&mut ready, Some(Nanos::ZERO)).unwrap();
            self.bells.note(&ready[..count]);
            count > 0
        }

        fn rings_until_put_out(&mut self, session: usize, now: MonoTime, taken: u64) -> u64 {
            (0..100_000).take_while(|_| self.ring(session, now, taken)).count() as u64
        }
    }

    #[test]
    fn who_rings_in_vain_is_put_out_for_a_while_and_nobody_else_is() {
        let mut set = Set::new(2);
        // The ring that it cannot pay ended a sleep, too.
        assert_eq!(set.rings_until_put_out(0, START, 0), BURST_BELLS + 1);
        assert!(set.bells.has_put_out());
        assert!(set.ring(1, START, 0), "the other one is heard");
        set.bells.take_back(&set.epoll, START + Nanos(REST.0 - 1));
        assert!(!set.ring(0, START, 0));
        let later = START + REST;
        set.bells.take_back(&set.epoll, later);
        assert!(!set.bells.has_put_out());
        // It rang meanwhile, and that is heard now.
        assert!(set.wakes());
        set.bells.settle(&set.epoll, later, true, |_| 0);
        assert_eq!(set.rings_until_put_out(0, later, 0), REST.0 / PRICE.0);
        let of = |at: usize| (set.bells.entries[at].bell.tally.in_vain(), set.bells.entries[at].bell.tally.put_out());
        assert_eq!((of(0), of(1)), ((BURST_BELLS + 2 + REST.0 / PRICE.0, 2), (1, 0)));
        assert_eq!((set.bells.tally.in_vain(), set.bells.tally.put_out()), (of(0).0 + 1, 2));
    }

    #[test]
    fn who_rings_for_something_pays_nothing() {
        let mut set = Set::new(1);
        for _ in 0..10 * BURST_BELLS {
            insane_sys::event::signal(&*set.events[0]).unwrap();
            assert!(set.wakes());
            assert!(set.bells.settle(&set.epoll, START, false, |_| 0));
        }
        assert_eq!(set.bells.tally.in_vain(), 0);
    }

    #[test]
    fn who_rings_late_for_each_message_is_never_put_out() {
        let mut set = Set::new(1);
        for message in 1..10 * BURST_BELLS {
            assert!(set.ring(0, START, message));
        }
        assert_eq!((set.bells.tally.in_vain(), set.bells.tally.put_out()), (10 * BURST_BELLS - 1, 0));
        // What was taken once is of use once, and never for more than one bucket.
        let messages = 1_000_000;
        assert!(set.rings_until_put_out(0, START, messages) <= 2 * BURST_BELLS);
    }

    #[test]
    fn it_is_removed_whether_it_is_put_out_or_not() {
        let mut set = Set::new(4);
        assert!(set.add(4).is_err(), "four have a place");
        set.rings_until_put_out(0, START, 0);
        for session in 0..4 {
            assert_eq!(set.bells.remove(&set.epoll, SessionId(session)).unwrap().session, SessionId(session));
            assert!(set.bells.remove(&set.epoll, SessionId(session)).is_none());
            assert!(!set.ring(session as usize, START, 0));
        }
        assert!(!set.bells.has_put_out());
        set.add(0).unwrap();
        assert!(set.add(0).is_err(), "it has one");
    }
}
