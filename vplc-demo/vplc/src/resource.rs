//! Shared resources and their ceilings.
//!
//! A lock raises the thread to the resource's ceiling before it takes the mutex: on one core
//! under `SCHED_FIFO` no other user of the resource can run then. This is what a POSIX mutex
//! with `PTHREAD_PRIO_PROTECT` does, by the same system calls, without being undone where
//! the right is missing. The mutex inside makes it safe wherever threads run.

use insane_sys::OsError;
use insane_sys::pi_mutex::PiMutex;
use insane_sys::thread::{SchedPolicy, set_policy_current};

/// How urgent the thread of a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rank {
    /// `SCHED_FIFO` at that priority.
    Fifo(u8),
    /// The ordinary policy, with the right to `SCHED_FIFO`: idle.
    Idle,
    /// Without the right to raise itself, under the ordinary policy or at a priority that the
    /// daemon gave: nothing is raised, and the mutex's inheritance is what bounds waiting.
    Unprivileged,
}

/// A value that tasks share.
#[derive(Debug)]
pub struct Resource<T> {
    value: PiMutex<T>,
    ceiling: u8,
}

impl<T> Resource<T> {
    /// With the `SCHED_FIFO` priority of its most urgent user.
    ///
    /// # Errors
    /// The system has no mutexes with inheritance.
    pub fn new(value: T, ceiling: u8) -> Result<Self, OsError> {
        Ok(Resource { value: PiMutex::new(value)?, ceiling })
    }

    /// The resource as a thread of that rank sees it.
    pub fn of(&self, rank: Rank) -> Locked<'_, T> {
        Locked { resource: self, rank }
    }
}

/// A resource in the hands of one task.
#[derive(Debug)]
pub struct Locked<'a, T> {
    resource: &'a Resource<T>,
    rank: Rank,
}

impl<T> Locked<'_, T> {
    /// Gives access to the value until `section` returns. No other user of it runs
    /// meanwhile. Locks of different resources may be nested, in any order.
    pub fn lock<R>(&mut self, section: impl FnOnce(&mut T) -> R) -> R {
        let ceiling = self.resource.ceiling;
        let raised = match self.rank {
            Rank::Fifo(own) => raise(ceiling, SchedPolicy::Fifo(own)),
            Rank::Idle => raise(ceiling, SchedPolicy::Other),
            Rank::Unprivileged => None,
        };
        let result = section(&mut self.resource.value.lock());
        drop(raised);
        result
    }
}

thread_local! {
    /// What locks have raised the thread to; `None`: it runs at its own rank.
    static RAISED: std::cell::Cell<Option<u8>> = const { std::cell::Cell::new(None) };
}

/// Lowers the thread to what it was before the lock, also if the section panics.
struct Raised {
    policy: SchedPolicy,
    before: Option<u8>,
}

impl Drop for Raised {
    fn drop(&mut self) {
        // What could be set before can be set again.
        let _ = set_policy_current(self.policy);
        RAISED.set(self.before);
    }
}

/// Raises to the ceiling if the thread is below it.
fn raise(ceiling: u8, own: SchedPolicy) -> Option<Raised> {
    let before = RAISED.get();
    let policy = before.map_or(own, SchedPolicy::Fifo);
    let is_below = match policy {
        SchedPolicy::Fifo(now) => now < ceiling,
        SchedPolicy::Other => true,
    };
    // Refused: the mutex protects all the same.
    if !is_below || set_policy_current(SchedPolicy::Fifo(ceiling)).is_err() {
        return None;
    }
    RAISED.set(Some(ceiling));
    Some(Raised { policy, before })
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_sys::privileges::can_use_fifo;
    use insane_sys::thread::policy;

    #[test]
    fn a_lock_raises_to_the_ceiling_and_back_also_nested_and_in_a_panic() {
        if can_use_fifo().is_err() {
            eprintln!("passed over: needs the right to SCHED_FIFO");
            return;
        }
        std::thread::spawn(|| {
            let (low, high) = (Resource::new(1, 3).unwrap(), Resource::new(2, 5).unwrap());
            set_policy_current(SchedPolicy::Fifo(2)).unwrap();
            let now = || policy(0).unwrap();
            low.of(Rank::Fifo(2)).lock(|_| {
                assert_eq!(now(), Some(SchedPolicy::Fifo(3)));
                high.of(Rank::Fifo(2)).lock(|_| assert_eq!(now(), Some(SchedPolicy::Fifo(5))));
                assert_eq!(now(), Some(SchedPolicy::Fifo(3)), "the outer lock is still held");
            });
            high.of(Rank::Fifo(2)).lock(|_| {
                low.of(Rank::Fifo(2)).lock(|_| assert_eq!(now(), Some(SchedPolicy::Fifo(5)), "never lowered"));
            });
            assert_eq!(now(), Some(SchedPolicy::Fifo(2)));
            set_policy_current(SchedPolicy::Other).unwrap();
            high.of(Rank::Idle).lock(|_| assert_eq!(now(), Some(SchedPolicy::Fifo(5))));
            assert_eq!(now(), Some(SchedPolicy::Other));
            let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                high.of(Rank::Idle).lock(|_| panic!("in the section"));
            }));
            assert!(panicked.is_err());
            assert_eq!(now(), Some(SchedPolicy::Other));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn without_ceilings_the_mutex_protects() {
        let count = Resource::new(0_u64, 50).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        count.of(Rank::Unprivileged).lock(|count| *count += 1);
                    }
                });
            }
        });
        assert_eq!(count.of(Rank::Unprivileged).lock(|count| *count), 40_000);
    }
}
