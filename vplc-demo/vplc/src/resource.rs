//! Shared resources and their ceilings.
//!
//! A lock raises the thread to the resource's ceiling before it takes the mutex: on one core
//! under `SCHED_FIFO` no other user of the resource can run then. This is what a POSIX mutex
//! with `PTHREAD_PRIO_PROTECT` does, by the same system calls, without being undone where
//! the right is missing. Where the daemon gave the priority, or the limit of the process is
//! below the ceiling, a lender raises ([`crate::lender`]). The mutex inside makes it safe wherever
//! threads run.

use crate::ending::or_end;
use crate::lender::{Lender, Lent};
use insane_sys::OsError;
use insane_sys::pi_mutex::PiMutex;
use insane_sys::thread::{SchedPolicy, set_policy_current};
use std::sync::Arc;

/// How urgent the thread of a task is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rank {
    /// `SCHED_FIFO` at that priority, which the thread took itself.
    Fifo(u8),
    /// The ordinary policy, with the right to `SCHED_FIFO`: idle.
    Idle,
    /// Without any right to raise itself, at the priority that the daemon gave (`None`: idle,
    /// under the ordinary policy): lenders raise it, where there are any.
    Given(Option<u8>),
    /// Without the right, under the ordinary policy: nothing is raised, and the mutex's
    /// inheritance is what bounds waiting.
    Unprivileged,
}

/// A value that tasks share.
#[derive(Debug)]
pub struct Resource<T> {
    value: PiMutex<T>,
    ceiling: u8,
    lender: Option<Arc<Lender>>,
}

impl<T> Resource<T> {
    /// With the `SCHED_FIFO` priority of its most urgent user.
    ///
    /// # Errors
    /// The system has no mutexes with inheritance.
    pub fn new(value: T, ceiling: u8) -> Result<Self, OsError> {
        Ok(Resource { value: PiMutex::new(value)?, ceiling, lender: None })
    }

    /// Raised by that lender, which has the resource's ceiling.
    #[must_use]
    pub fn lent_by(self, lender: Option<Arc<Lender>>) -> Self {
        Resource { lender, ..self }
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
    /// meanwhile. Locks of different resources may be nested, in any order while ceilings hold.
    pub fn lock<R>(&mut self, section: impl FnOnce(&mut T) -> R) -> R {
        let Resource { ceiling, lender, .. } = self.resource;
        let own = match self.rank {
            Rank::Fifo(own) => Some((SchedPolicy::Fifo(own), true)),
            Rank::Idle => Some((SchedPolicy::Other, true)),
            Rank::Given(Some(own)) => Some((SchedPolicy::Fifo(own), false)),
            Rank::Given(None) => Some((SchedPolicy::Other, false)),
            Rank::Unprivileged => None,
        };
        let raised = own.and_then(|(own, by_itself)| raise(*ceiling, own, by_itself, lender.as_deref()));
        let mut value = self.resource.value.lock();
        let result = or_end("a section of a lock", || section(&mut value));
        drop(value);
        drop(raised);
        result
    }
}

thread_local! {
    /// What locks have raised the thread to; `None`: it runs at its own rank.
    static RAISED: std::cell::Cell<Option<u8>> = const { std::cell::Cell::new(None) };
}

/// Lowers the thread to what it was before the lock.
struct Raised<'a> {
    before: Option<u8>,
    /// What the thread sets itself back to.
    policy: Option<SchedPolicy>,
    /// What it gives back.
    _lent: Option<Lent<'a>>,
}

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        RAISED.set(self.before);
        if let Some(policy) = self.policy {
            // What could be set before can be set again.
            let _ = set_policy_current(policy);
        }
    }
}

/// Raises to the ceiling if the thread is below it: by itself, where it has the right to that
/// ceiling, else by the lender. Refused: the mutex protects all the same.
fn raise(ceiling: u8, own: SchedPolicy, by_itself: bool, lender: Option<&Lender>) -> Option<Raised<'_>> {
    let before = RAISED.get();
    let now = before.map_or(own, SchedPolicy::Fifo);
    // The ordinary policy is below all.
    let priority = |policy| if let SchedPolicy::Fifo(priority) = policy { priority } else { 0 };
    if priority(now) >= ceiling {
        return None;
    }
    // RLIMIT_RTPRIO may allow the priority of the task, and not the ceiling.
    let is_set = by_itself && set_policy_current(SchedPolicy::Fifo(ceiling)).is_ok();
    let _lent = if is_set { None } else { Some(lender?.lend(priority(own))?) };
    RAISED.set(Some(ceiling));
    Some(Raised { before, policy: is_set.then_some(now), _lent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lender::tests::{given, given_at};
    use insane_sys::privileges::can_use_fifo;
    use insane_sys::thread::{cores, current_tid, pin_current, policy};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// What the kernel runs the current thread at: lent priorities count. Field 18 of `stat` is
    /// -1 - (real-time priority).
    fn runs_at() -> i32 {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", current_tid())).unwrap();
        let fields = stat.rsplit(')').next().unwrap();
        -1 - fields.split_whitespace().nth(15).unwrap().parse::<i32>().unwrap()
    }

    /// On the core of the lenders, with a priority that it may not raise itself.
    fn placed<R: Send>(priority: u8, run: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let placed = || {
                pin_current(*cores().last().unwrap()).unwrap();
                set_policy_current(SchedPolicy::Fifo(priority)).unwrap();
                run()
            };
            scope.spawn(placed).join().unwrap()
        })
    }

    fn lent(value: u32, lender: &Arc<Lender>) -> Resource<u32> {
        Resource::new(value, lender.ceiling()).unwrap().lent_by(Some(Arc::clone(lender)))
    }

    #[test]
    fn a_lender_raises_to_the_ceiling_and_back_also_nested_and_idle() {
        if can_use_fifo().is_err() {
            eprintln!("passed over: needs the right to SCHED_FIFO");
            return;
        }
        let (of_low, of_high) = (given(3), given(5));
        let (low, high) = (lent(1, &of_low), lent(2, &of_high));
        placed(2, || {
            let rank = Rank::Given(Some(2));
            for _ in 0..1_000 {
                low.of(rank).lock(|_| assert_eq!(runs_at(), 3));
                assert_eq!(runs_at(), 2);
            }
            low.of(rank).lock(|_| {
                high.of(rank).lock(|_| assert_eq!(runs_at(), 5));
                assert_eq!(runs_at(), 3, "the outer lock is still held");
            });
            high.of(rank).lock(|_| low.of(rank).lock(|_| assert_eq!(runs_at(), 5, "never lowered")));
            assert_eq!(policy(0).unwrap(), Some(SchedPolicy::Fifo(2)), "it was never set");
            set_policy_current(SchedPolicy::Other).unwrap();
            high.of(Rank::Given(None)).lock(|_| assert_eq!(runs_at(), 5));
            assert!(runs_at() < 0, "an ordinary thread again");
        });
        assert_eq!((of_low.unraised(), of_high.unraised()), (0, 0));
        [of_low, of_high].iter().for_each(|lender| lender.end());
    }

    /// As under RLIMIT_RTPRIO: 120, which is no priority, is refused to everybody.
    #[test]
    fn a_ceiling_that_the_thread_may_not_take_is_lent_also_nested_and_to_idle() {
        if can_use_fifo().is_err() {
            eprintln!("passed over: needs the right to SCHED_FIFO");
            return;
        }
        let lender = given_at(120, 9);
        let (low, high) = (Resource::new(1, 3).unwrap(), lent(2, &lender));
        placed(2, || {
            let rank = Rank::Fifo(2);
            high.of(rank).lock(|_| {
                assert_eq!(runs_at(), 9);
                low.of(rank).lock(|_| assert_eq!(runs_at(), 9, "never lowered"));
                assert_eq!(runs_at(), 9);
            });
            low.of(rank).lock(|_| {
                high.of(rank).lock(|_| assert_eq!(runs_at(), 9));
                assert_eq!(runs_at(), 3, "the outer lock is still held");
            });
            assert_eq!(runs_at(), 2);
            set_policy_current(SchedPolicy::Other).unwrap();
            high.of(Rank::Idle).lock(|_| assert_eq!(runs_at(), 9));
            assert!(runs_at() < 0, "an ordinary thread again");
        });
        assert_eq!(lender.unraised(), 0);
        lender.end();
    }

    /// The attack: a less urgent task is preempted after it asked for a ceiling and before it has
    /// it, and the one that comes borrows the same, inside a section that the other needs next.
    #[test]
    fn who_preempts_a_borrower_is_raised_and_neither_waits_for_the_other() {
        if can_use_fifo().is_err() {
            eprintln!("passed over: needs the right to SCHED_FIFO");
            return;
        }
        let (of_low, of_high) = (given(4), given(5));
        let (low, high) = (lent(0, &of_low), lent(0, &of_high));
        let (bell, called, ran) = (crate::bell::Bell::new(), AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (low, high, bell, called, ran) = (&low, &high, &bell, &called, &ran);
            let middle = move || {
                let rank = Rank::Given(Some(3));
                bell.sleep(None, || called.load(Ordering::Relaxed));
                low.of(rank).lock(|_| {
                    high.of(rank).lock(|_| assert_eq!(runs_at(), 5, "though another asked before"));
                    assert_eq!(runs_at(), 4);
                });
                ran.store(true, Ordering::SeqCst);
            };
            let middle = scope.spawn(move || placed(3, middle));
            std::thread::sleep(std::time::Duration::from_millis(20));
            placed(2, || {
                let mut asked = 0;
                let lent = of_high.lend_by(2, || {
                    asked += 1;
                    called.store(true, Ordering::Relaxed);
                    bell.ring();
                    assert!(ran.load(Ordering::SeqCst), "it runs at once, and waits for nobody");
                });
                assert!(lent.is_some() && asked == 2, "what it asked was forgotten meanwhile: {asked}");
                assert_eq!(runs_at(), 5);
                assert!(low.value.try_lock().is_some(), "nobody is inside");
                drop(lent);
                assert_eq!(runs_at(), 2);
            });
            middle.join().unwrap();
        });
        assert_eq!((of_low.unraised(), of_high.unraised()), (0, 0));
        [of_low, of_high].iter().for_each(|lender| lender.end());
    }

    /// The attack: a less urgent task holds the lock, and one between it and the ceiling comes.
    /// With inheritance alone that one would run inside the section, and whoever wants the
    /// resource would wait for it, too.
    #[test]
    fn nobody_below_the_ceiling_runs_inside_a_lent_section() {
        if can_use_fifo().is_err() {
            eprintln!("passed over: needs the right to SCHED_FIFO");
            return;
        }
        let lender = given(5);
        let resource = lent(0, &lender);
        let ran_inside = |rank| {
            let (bell, called, ran) = (crate::bell::Bell::new(), AtomicBool::new(false), AtomicBool::new(false));
            std::thread::scope(|scope| {
                let (bell, called, ran) = (&bell, &called, &ran);
                let middle = move || {
                    bell.sleep(None, || called.load(Ordering::Relaxed));
                    ran.store(true, Ordering::SeqCst);
                };
                let middle = scope.spawn(move || placed(4, middle));
                let low = || {
                    // Until the one between sleeps it is more urgent, and this one does not run.
                    let inside = resource.of(rank).lock(|_| {
                        called.store(true, Ordering::Relaxed);
                        bell.ring();
                        ran.load(Ordering::SeqCst)
                    });
                    (inside, ran.load(Ordering::SeqCst))
                };
                std::thread::sleep(std::time::Duration::from_millis(20));
                let told = placed(2, low);
                middle.join().unwrap();
                told
            })
        };
        assert_eq!(ran_inside(Rank::Given(Some(2))), (false, true), "not inside, and at once afterwards");
        assert!(ran_inside(Rank::Unprivileged).0, "without a lender it does");
        lender.end();
    }

    #[test]
    fn a_lock_raises_to_the_ceiling_and_back_also_nested() {
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
