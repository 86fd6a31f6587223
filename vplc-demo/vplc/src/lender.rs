//! Ceilings for threads that may not raise themselves (ADR 0053).
//!
//! Where the daemon gave the priorities, no thread of the program can raise its own. But who
//! holds a mutex with inheritance runs at the priority of whoever waits for it. So there is a
//! thread for each ceiling, with the ceiling as its priority, also given by the daemon, that
//! does nothing but wait for a borrower's mutex when it is asked to:
//!
//! ```text
//! borrower, below the ceiling      lender, at the ceiling
//! takes its own mutex              sleeps
//! asks, rings ───────────────────▶ wakes up, is more urgent, runs at once
//!                                  wants that mutex: lends its priority, sleeps
//! runs on, at the ceiling ◀───────
//! gives the mutex back ──────────▶ gets it, runs at once, gives it back, sleeps
//! runs on, as before ◀────────────
//! ```
//!
//! On one core this is the immediate ceiling: the resource is taken after the thread was
//! raised, so nobody below the ceiling finds it taken. It costs two system calls and four
//! changes of threads, which are the borrower's time.
//!
//! **Until the lender waits, a borrower is where it was**, and a more urgent one may come and
//! borrow, too. Neither may wait for the other: the one that came may be inside a section that
//! the one before needs next. So each priority has a mutex of its own with each lender, which
//! nobody but that lender ever waits for, and no circle can be. The lender serves the most urgent
//! of those that ask, which is the one that runs, and forgets the others: to raise one of them
//! now would raise it above the one that runs. Who runs on and finds that the lender does not
//! wait for its mutex asks again.

use crate::bell::Bell;
use crate::ending::or_end;
use insane_rt::{CyclicError, Misplaced, Place, Session};
use insane_sys::OsError;
use insane_sys::pi_mutex::{PiMutex, PiMutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;

/// Times that a lock asks before it does without. Each that fails means that it was preempted
/// in the middle, by one that borrowed.
const TRIES: usize = 8;

/// What the borrower of one priority has with a lender.
#[derive(Debug)]
struct Desk {
    /// Held by the borrower; the lender waits for it.
    mutex: PiMutex<()>,
    asks: AtomicBool,
}

/// Lends one ceiling.
#[derive(Debug)]
pub struct Lender {
    ceiling: u8,
    /// Of the priorities below the ceiling; 0 is the ordinary policy.
    desks: Box<[Desk]>,
    bell: Bell,
    lends: AtomicBool,
    unraised: AtomicU64,
    ends: AtomicBool,
}

/// The priority, until it is given back.
pub struct Lent<'a>(#[expect(dead_code, reason = "held")] PiMutexGuard<'a, ()>);

/// What a lender's thread found at its start.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// It lends.
    Lends,
    /// The process may raise its threads itself.
    NotNeeded,
    /// The priority was refused, also by the daemon if there is one to ask.
    Refused {
        /// By whom and why.
        why: String,
        /// There is a daemon, which may give it under another rule.
        by_runtime: bool,
    },
}

impl Lender {
    /// One that does not lend yet.
    ///
    /// # Errors
    /// The system has no mutexes with inheritance.
    pub fn new(ceiling: u8) -> Result<Self, OsError> {
        let desk = |_| Ok(Desk { mutex: PiMutex::new(())?, asks: AtomicBool::new(false) });
        Ok(Lender {
            ceiling,
            desks: (0..ceiling).map(desk).collect::<Result<_, OsError>>()?,
            bell: Bell::new(),
            lends: AtomicBool::new(false),
            unraised: AtomicU64::new(0),
            ends: AtomicBool::new(false),
        })
    }

    /// Starts its thread, where one is needed and can be had.
    pub fn start(self: &Arc<Self>, session: &Session, core: Option<usize>) -> Found {
        let (session, ceiling) = (session.clone(), self.ceiling);
        self.start_in(move || session.place_current(Some(ceiling), core))
    }

    fn start_in(self: &Arc<Self>, place: impl FnOnce() -> Result<Place, CyclicError> + Send + 'static) -> Found {
        let (tell, told) = channel();
        let lender = Arc::clone(self);
        let run = move || {
            let found = found(place());
            let lends = found == Found::Lends;
            lender.lends.store(lends, Ordering::Relaxed);
            let _ = tell.send(found);
            if lends {
                or_end("the lender of a ceiling", || lender.serve());
            }
        };
        match std::thread::Builder::new().name(format!("vplc-ceiling-{}", self.ceiling)).spawn(run) {
            Ok(_) => told.recv().unwrap_or_else(|_| refused("its thread ended")),
            Err(error) => refused(error),
        }
    }

    /// Which priority it lends.
    #[must_use]
    pub const fn ceiling(&self) -> u8 {
        self.ceiling
    }

    /// Times that a lock had to do without: two threads of the program ran at once, or the
    /// lender was not where it was placed.
    #[must_use]
    pub fn unraised(&self) -> u64 {
        self.unraised.load(Ordering::Relaxed)
    }

    /// Raises the current thread, which is below the ceiling, to it; `own` is the priority that it
    /// was placed at, 0: the ordinary policy. There is one thread of each. `None`: not now.
    pub fn lend(&self, own: u8) -> Option<Lent<'_>> {
        self.lend_by(own, || {})
    }

    /// `asked` is called where a preemption hurts most.
    pub(crate) fn lend_by(&self, own: u8, mut asked: impl FnMut()) -> Option<Lent<'_>> {
        if !self.lends.load(Ordering::Relaxed) {
            return None;
        }
        let desk = self.desks.get(usize::from(own));
        // Taken: by the lender, which runs elsewhere, or by another thread of this priority.
        let lent = desk.and_then(|desk| desk.mutex.try_lock().map(|held| (desk, held))).and_then(|(desk, held)| {
            let mut is_lent = false;
            for _ in 0..TRIES {
                desk.asks.store(true, Ordering::Relaxed);
                asked();
                self.bell.ring();
                is_lent = held.is_waited_for();
                if is_lent {
                    break;
                }
            }
            is_lent.then_some(Lent(held))
        });
        if lent.is_none() {
            self.unraised.fetch_add(1, Ordering::Relaxed);
        }
        lent
    }

    /// Ends its thread.
    pub fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
        self.bell.ring();
    }

    #[cfg(test)]
    pub(crate) fn has_ended(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    fn serve(&self) {
        while !self.ends.load(Ordering::Relaxed) {
            if let Some(desk) = self.asking() {
                drop(desk.mutex.lock());
            } else {
                self.bell.sleep(None, || self.ends.load(Ordering::Relaxed) || self.desks.iter().any(Desk::asks));
            }
        }
    }

    /// The most urgent that asks; nobody asks afterwards.
    fn asking(&self) -> Option<&Desk> {
        let mut first = None;
        for desk in self.desks.iter().rev().filter(|desk| desk.asks()) {
            desk.asks.store(false, Ordering::Relaxed);
            first = first.or(Some(desk));
        }
        first
    }
}

/// As a task's rank: what was refused of the core is no matter of the ceiling, and told of the
/// tasks, which have the same.
fn found(place: Result<Place, CyclicError>) -> Found {
    let place = match place {
        Ok(place) => place,
        Err(error) => return refused(error),
    };
    for misplaced in &place.misplaced {
        if let Misplaced::Policy { runtime, .. } = misplaced {
            return Found::Refused { why: misplaced.to_string(), by_runtime: runtime.is_some() };
        }
    }
    if place.is_by_runtime { Found::Lends } else { Found::NotNeeded }
}

fn refused(why: impl ToString) -> Found {
    Found::Refused { why: why.to_string(), by_runtime: false }
}

impl Desk {
    fn asks(&self) -> bool {
        self.asks.load(Ordering::Relaxed)
    }
}

/// The lenders of a program. They end with the last of those that hold this: each of its
/// threads does, so that ceilings are lent for as long as a task runs, whoever is watching.
#[derive(Debug, Default)]
pub struct Lenders(Vec<Arc<Lender>>);

impl Lenders {
    /// For these ceilings; none lends yet.
    ///
    /// # Errors
    /// The system has no mutexes with inheritance.
    pub fn new(ceilings: &[u8]) -> Result<Self, OsError> {
        let lenders = ceilings.iter().map(|ceiling| Lender::new(*ceiling).map(Arc::new));
        lenders.collect::<Result<_, _>>().map(Lenders)
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Lender>> {
        self.0.iter()
    }

    /// Who lends that ceiling.
    #[must_use]
    pub fn of(&self, ceiling: u8) -> Option<Arc<Lender>> {
        self.0.iter().find(|lender| lender.ceiling == ceiling).map(Arc::clone)
    }

    /// Locks that had to do without, of all.
    #[must_use]
    pub fn unraised(&self) -> u64 {
        self.0.iter().map(|lender| lender.unraised()).sum()
    }
}

impl Drop for Lenders {
    fn drop(&mut self) {
        for lender in &self.0 {
            lender.end();
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use insane_sys::thread::{SchedPolicy, cores, pin_current, set_policy_current};

    /// A lender as the daemon would have placed it.
    pub fn given(ceiling: u8) -> Arc<Lender> {
        given_at(ceiling, ceiling)
    }

    /// Of a ceiling that is called otherwise than its priority.
    pub fn given_at(ceiling: u8, priority: u8) -> Arc<Lender> {
        let place = move || {
            pin_current(*cores().last().unwrap()).unwrap();
            set_policy_current(SchedPolicy::Fifo(priority)).unwrap();
            Ok(Place { is_by_runtime: true, ..Place::default() })
        };
        let lender = Arc::new(Lender::new(ceiling).unwrap());
        assert_eq!(lender.start_in(place), Found::Lends);
        lender
    }

    #[test]
    fn no_thread_stays_where_none_is_needed_or_none_can_be_had() {
        let reason = OsError::new("setting", insane_sys::Errno::EPERM);
        let policy = Misplaced::Policy { priority: 9, reason, runtime: None };
        let core = Misplaced::Core(pin_current(usize::MAX).unwrap_err());
        let misplaced = vec![core.clone(), policy];
        let lender = Arc::new(Lender::new(9).unwrap());
        assert_eq!(lender.start_in(|| Ok(Place::default())), Found::NotNeeded);
        let found = lender.start_in(move || Ok(Place { misplaced, is_by_runtime: false }));
        assert!(
            matches!(found, Found::Refused { why, by_runtime: false } if why.contains("SCHED_FIFO priority 9")),
            "the reason is that of the priority"
        );
        let found = lender.start_in(move || Ok(Place { misplaced: vec![core], is_by_runtime: false }));
        assert_eq!(found, Found::NotNeeded, "who is on another core may raise itself all the same");
        assert!(lender.lend(1).is_none());
        assert_eq!(lender.unraised(), 0, "nobody was to raise it");
        lender.lends.store(true, Ordering::Relaxed);
        assert!(lender.lend(1).is_none(), "nobody waits for the mutex");
        assert_eq!(lender.unraised(), 1);
    }
}
