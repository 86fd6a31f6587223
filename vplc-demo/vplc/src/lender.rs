//! Ceilings for threads that may not raise themselves (ADR 0053).
//!
//! Where the daemon gave the priorities, no thread of the program can raise its own. But who
//! holds a mutex with inheritance runs at the priority of whoever waits for it. So there is a
//! thread for each ceiling, with the ceiling as its priority, also given by the daemon, that
//! does nothing but wait for a mutex when it is asked to:
//!
//! ```text
//! borrower, below the ceiling      lender, at the ceiling
//! takes the mutex                  sleeps
//! rings ─────────────────────────▶ wakes up, is more urgent, runs at once
//!                                  wants the mutex: lends its priority, sleeps
//! runs on, at the ceiling ◀───────
//! gives the mutex back ──────────▶ gets it, runs at once, gives it back, sleeps
//! runs on, as before ◀────────────
//! ```
//!
//! On one core this is the immediate ceiling: the resource is taken after the thread was
//! raised, so nobody below the ceiling finds it taken. A mutex of a lender is free whenever
//! somebody wants it, since whoever has it runs at the ceiling, and who wants it runs below.
//! It costs two system calls and four changes of threads, which are the borrower's time.

use crate::bell::Bell;
use insane_rt::{CyclicError, Misplaced, Session};
use insane_sys::OsError;
use insane_sys::pi_mutex::{PiMutex, PiMutexGuard};
use insane_sys::thread::set_name;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;

/// Lends one ceiling.
#[derive(Debug)]
pub struct Lender {
    ceiling: u8,
    mutex: PiMutex<()>,
    bell: Bell,
    /// Times that the priority was asked for.
    asked: AtomicU64,
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
    /// The place was refused.
    Refused(String),
}

impl Lender {
    fn new(ceiling: u8) -> Result<Self, OsError> {
        Ok(Lender {
            ceiling,
            mutex: PiMutex::new(())?,
            bell: Bell::new(),
            asked: AtomicU64::new(0),
            unraised: AtomicU64::new(0),
            ends: AtomicBool::new(false),
        })
    }

    /// Starts its thread, where one is needed and can be had.
    ///
    /// # Errors
    /// The system has no mutexes with inheritance, or no thread.
    pub fn start(session: &Session, core: Option<usize>, ceiling: u8) -> Result<(Arc<Self>, Found), String> {
        let session = session.clone();
        let place = move || session.place_current(ceiling, core).map(|place| (place.misplaced, place.is_by_runtime));
        Self::start_with(ceiling, place, true)
    }

    /// As `start`; without `only_given` also where the process may raise its threads.
    fn start_with<P>(ceiling: u8, place: P, only_given: bool) -> Result<(Arc<Self>, Found), String>
    where
        P: FnOnce() -> Result<(Vec<Misplaced>, bool), CyclicError> + Send + 'static,
    {
        let lender = Arc::new(Lender::new(ceiling).map_err(|error| error.to_string())?);
        let (tell, told) = channel();
        let of_thread = Arc::clone(&lender);
        let run = move || {
            set_name(&format!("vplc-ceiling-{ceiling}"));
            let found = match place() {
                Ok((misplaced, _)) if !misplaced.is_empty() => Found::Refused(misplaced[0].to_string()),
                Ok((_, false)) if only_given => Found::NotNeeded,
                Ok(_) => Found::Lends,
                Err(error) => Found::Refused(error.to_string()),
            };
            let lends = found == Found::Lends;
            let _ = tell.send(found);
            if lends {
                of_thread.serve();
            }
        };
        std::thread::Builder::new().spawn(run).map_err(|error| error.to_string())?;
        let found = told.recv().unwrap_or_else(|_| Found::Refused("the thread ended".to_owned()));
        Ok((lender, found))
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

    /// Raises the current thread, which is below the ceiling, to it. `None`: not now.
    pub fn lend(&self) -> Option<Lent<'_>> {
        let lent = self.mutex.try_lock().and_then(|held| {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.bell.ring();
            held.is_waited_for().then_some(Lent(held))
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

    fn serve(&self) {
        let mut served = 0;
        let is_asked = |served| self.asked.load(Ordering::Relaxed) != served;
        while !self.ends.load(Ordering::Relaxed) {
            if is_asked(served) {
                served = self.asked.load(Ordering::Relaxed);
                drop(self.mutex.lock());
            } else {
                self.bell.sleep(None, || is_asked(served) || self.ends.load(Ordering::Relaxed));
            }
        }
    }
}

/// The lenders of a program; they end with it.
#[derive(Debug, Default)]
pub struct Lenders(Vec<Arc<Lender>>);

impl Lenders {
    /// One more.
    pub fn add(&mut self, lender: Arc<Lender>) {
        self.0.push(lender);
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
        let place = move || {
            pin_current(*cores().last().unwrap()).unwrap();
            set_policy_current(SchedPolicy::Fifo(ceiling)).unwrap();
            Ok((Vec::new(), true))
        };
        let (lender, found) = Lender::start_with(ceiling, place, true).unwrap();
        assert_eq!(found, Found::Lends);
        lender
    }

    #[test]
    fn no_thread_stays_where_none_is_needed_or_none_can_be_had() {
        let refused =
            Misplaced::Policy { priority: 9, reason: OsError::new("setting", insane_sys::Errno::EPERM), runtime: None };
        let (_, found) = Lender::start_with(9, || Ok((Vec::new(), false)), true).unwrap();
        assert_eq!(found, Found::NotNeeded);
        let (lender, found) = Lender::start_with(9, move || Ok((vec![refused], false)), true).unwrap();
        assert!(matches!(found, Found::Refused(why) if why.contains("SCHED_FIFO priority 9")));
        assert!(lender.lend().is_none(), "nobody waits for the mutex");
        assert_eq!(lender.unraised(), 1);
    }
}
