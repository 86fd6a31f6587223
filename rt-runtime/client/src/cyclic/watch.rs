//! A task seen from outside: which cycle runs, since when, and which were too late.
//!
//! The task writes, anybody reads; nobody waits. A task that never ends its cycle is
//! noticed by who looks, since it can no longer tell.

use super::statistics::CyclicStatistics;
use crate::callback::Attended;
use insane_core::{MonoTime, Nanos};
use insane_sys::clock::mono_now;
use insane_sys::queue::TryQueue;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Late cycles under way to the callback.
const MISSES: usize = 64;
/// Between two looks of the callback thread at a task: the deadline, within these.
const LOOK_MIN: Nanos = Nanos::from_millis(10);
const LOOK_MAX: Nanos = Nanos::from_millis(100);
/// Attempts to read a cycle that does not change meanwhile.
const READS: usize = 64;
/// `since` of a task that waits.
const WAITING: u64 = u64::MAX;

/// A cycle that was not done at its deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeadlineMiss {
    /// Number of the cycle.
    pub cycle: u64,
    /// When it was due to start.
    pub due: MonoTime,
    /// When it was to end.
    pub deadline: MonoTime,
    /// When it ended; `None`: it still runs.
    pub ended: Option<MonoTime>,
}

/// What a cyclic task is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// It waits for its next instant, or has not begun.
    Waiting,
    /// It runs a cycle.
    Running {
        /// Number of the cycle.
        cycle: u64,
        /// Since when.
        since: MonoTime,
    },
    /// It runs a cycle that should have ended.
    Overdue(DeadlineMiss),
    /// It is over.
    Ended,
}

/// A task from outside; clones watch the same.
#[derive(Clone, Debug)]
pub struct CyclicWatch {
    pub(super) progress: Arc<Progress>,
}

impl CyclicWatch {
    /// What the task is doing now.
    #[must_use]
    pub fn doing(&self) -> Doing {
        self.progress.doing(mono_now())
    }

    /// Cycles that ran so far.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.progress.cycles.load(Ordering::Relaxed)
    }

    /// Cycles that were left out so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.progress.skipped.load(Ordering::Relaxed)
    }

    /// Cycles that ended after their deadline so far.
    #[must_use]
    pub fn deadline_misses(&self) -> u64 {
        self.progress.deadline_misses.load(Ordering::Relaxed)
    }

    /// Late cycles that no callback was told of, because too many came at once.
    #[must_use]
    pub fn misses_untold(&self) -> u64 {
        self.progress.untold.load(Ordering::Relaxed)
    }
}

/// Written by the task alone.
#[derive(Debug)]
pub(super) struct Progress {
    /// From the instant of a cycle to its deadline.
    deadline: Nanos,
    cycle: AtomicU64,
    due: AtomicU64,
    /// When the cycle started, or [`WAITING`]. Stored after `cycle` and `due`.
    since: AtomicU64,
    ended: AtomicBool,
    cycles: AtomicU64,
    skipped: AtomicU64,
    deadline_misses: AtomicU64,
    untold: AtomicU64,
    /// Whether somebody takes the misses.
    is_told: bool,
    misses: TryQueue<DeadlineMiss>,
}

impl Progress {
    pub fn new(deadline: Nanos, is_told: bool) -> Self {
        Progress {
            deadline,
            cycle: AtomicU64::new(0),
            due: AtomicU64::new(0),
            since: AtomicU64::new(WAITING),
            ended: AtomicBool::new(false),
            cycles: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            deadline_misses: AtomicU64::new(0),
            untold: AtomicU64::new(0),
            is_told,
            misses: TryQueue::new(MISSES),
        }
    }

    pub fn started(&self, cycle: u64, due: MonoTime, woke: MonoTime) {
        self.cycle.store(cycle, Ordering::Relaxed);
        self.due.store(due.0, Ordering::Relaxed);
        // Release, with the reader's acquire: who sees the cycle run sees which it is.
        self.since.store(woke.0.min(WAITING - 1), Ordering::Release);
    }

    /// The cycle is over; says whether after its deadline.
    pub fn done(&self, cycle: u64, due: MonoTime, now: MonoTime) -> bool {
        self.since.store(WAITING, Ordering::Release);
        let deadline = due + self.deadline;
        if now <= deadline {
            return false;
        }
        let miss = DeadlineMiss { cycle, due, deadline, ended: Some(now) };
        if self.is_told && self.misses.push(miss).is_err() {
            self.untold.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    pub fn count(&self, statistics: &CyclicStatistics) {
        self.cycles.store(statistics.cycles, Ordering::Relaxed);
        self.skipped.store(statistics.skipped, Ordering::Relaxed);
        self.deadline_misses.store(statistics.deadline_misses, Ordering::Relaxed);
    }

    pub fn end(&self) {
        self.since.store(WAITING, Ordering::Release);
        self.ended.store(true, Ordering::Release);
    }

    pub fn doing(&self, now: MonoTime) -> Doing {
        if self.ended.load(Ordering::Acquire) {
            return Doing::Ended;
        }
        for _ in 0..READS {
            let since = self.since.load(Ordering::Acquire);
            if since == WAITING {
                return Doing::Waiting;
            }
            // Acquire, so that the second look at `since` comes after these.
            let cycle = self.cycle.load(Ordering::Acquire);
            let due = MonoTime(self.due.load(Ordering::Acquire));
            if self.since.load(Ordering::Relaxed) == since {
                let deadline = due + self.deadline;
                return match now > deadline {
                    true => Doing::Overdue(DeadlineMiss { cycle, due, deadline, ended: None }),
                    false => Doing::Running { cycle, since: MonoTime(since) },
                };
            }
        }
        // It changes faster than it can be read: it is not stuck.
        Doing::Waiting
    }
}

/// Tells late cycles, on the session's callback thread.
pub(super) struct Told<C> {
    pub progress: Arc<Progress>,
    pub callback: C,
    /// The last cycle that was told while it still ran.
    pub running: Option<u64>,
}

impl<C: FnMut(DeadlineMiss) + Send> Attended for Told<C> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// At most as many misses as the queue holds, and one that still runs.
    fn attend(&mut self) -> bool {
        for _ in 0..MISSES {
            let Some(miss) = self.progress.misses.pop() else { break };
            (self.callback)(miss);
        }
        if let Doing::Overdue(miss) = self.progress.doing(mono_now())
            && self.running != Some(miss.cycle)
        {
            self.running = Some(miss.cycle);
            (self.callback)(miss);
        }
        false
    }

    fn deadline(&self) -> Option<MonoTime> {
        Some(mono_now() + self.progress.deadline.clamp(LOOK_MIN, LOOK_MAX))
    }
}
