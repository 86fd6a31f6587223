//! A mutex whose holder inherits the priority of who waits for it.
//!
//! For the few places where a real-time thread and an ordinary one share state: a
//! holder that was preempted runs on at the waiter's priority, so the wait is
//! bounded by the critical section.
//!
//! The word is the kernel's (futex(2), "Priority-inheritance futexes"): 0 while nobody
//! holds it, else the holder's thread number, with a bit that the kernel sets while
//! somebody waits. Without contention neither taking nor giving back calls the kernel:
//! one compare-and-exchange each, a third of what the C library's mutex of this kind costs.

use crate::error::{Errno, OsError};
use crate::thread::current_tid;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

const FREE: u32 = 0;

thread_local! {
    /// This thread's number, asked for once; 0: not yet.
    static OWN: Cell<u32> = const { Cell::new(0) };
}

#[inline(always)]
fn own_tid() -> u32 {
    OWN.with(|own| match own.get() {
        0 => ask_tid(own),
        tid => tid,
    })
}

#[cold]
fn ask_tid(own: &Cell<u32>) -> u32 {
    let tid = current_tid() as u32;
    own.set(tid);
    tid
}

/// Mutual exclusion with priority inheritance. There is no poisoning: who panics
/// while holding it leaves the value as it was at that moment.
///
/// Not for a forked child: it does not hold what its parent's threads held.
pub struct PiMutex<T: ?Sized> {
    /// Waiters know it by its address; they, and the holder, borrow the mutex, so it stays.
    word: AtomicU32,
    value: UnsafeCell<T>,
}

// SAFETY: the value moves with the mutex; nobody holds it then, or the guard was leaked.
unsafe impl<T: ?Sized + Send> Send for PiMutex<T> {}
// SAFETY: the word gives the value to one thread at a time.
unsafe impl<T: ?Sized + Send> Sync for PiMutex<T> {}

impl<T> PiMutex<T> {
    /// A mutex nobody holds.
    ///
    /// # Errors
    /// The kernel has no priority inheritance (`ENOSYS`).
    pub fn new(value: T) -> Result<Self, OsError> {
        let probe = AtomicU32::new(FREE);
        futex(&probe, libc::FUTEX_TRYLOCK_PI)
            .map_err(|errno| OsError::new("making a mutex with priority inheritance", errno))?;
        Ok(PiMutex { word: AtomicU32::new(FREE), value: UnsafeCell::new(value) })
    }
}

/// One of the calls that take nothing but the word.
fn futex(word: &AtomicU32, operation: libc::c_int) -> Result<(), Errno> {
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: `word` is a live, aligned u32 that only this module and the kernel write.
    let result = unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), operation | libc::FUTEX_PRIVATE_FLAG, 0, no_timeout, 0, 0)
    };
    if result >= 0 { Ok(()) } else { Err(Errno::last()) }
}

impl<T: ?Sized> PiMutex<T> {
    /// Takes the mutex if nobody holds it.
    #[inline]
    #[must_use]
    pub fn try_lock(&self) -> Option<PiMutexGuard<'_, T>> {
        // Acquire pairs with the Release of the last holder's compare-and-exchange.
        self.word.compare_exchange(FREE, own_tid(), Ordering::Acquire, Ordering::Relaxed).ok()?;
        Some(PiMutexGuard { mutex: self, here: PhantomData })
    }

    /// Takes the mutex, waiting for its holder.
    ///
    /// # Panics
    /// This thread holds it already, or its holder ended without giving it back: bugs.
    pub fn lock(&self) -> PiMutexGuard<'_, T> {
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            match futex(&self.word, libc::FUTEX_LOCK_PI) {
                Ok(()) => return PiMutexGuard { mutex: self, here: PhantomData },
                // A signal, or the holder is just ending.
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => panic!("locking a mutex failed: {errno}"),
            }
        }
    }

    /// The value; needs no lock, since nobody else can have the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: ?Sized> std::fmt::Debug for PiMutex<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PiMutex")
    }
}

/// The right to the value; given back when dropped, by the thread that took it.
#[must_use]
pub struct PiMutexGuard<'a, T: ?Sized> {
    mutex: &'a PiMutex<T>,
    /// Not `Send`: only the thread that locked may unlock.
    here: PhantomData<*const ()>,
}

// SAFETY: sharing a guard shares `&T`, no more.
unsafe impl<T: ?Sized + Sync> Sync for PiMutexGuard<'_, T> {}

impl<T: ?Sized> PiMutexGuard<'_, T> {
    /// Whether somebody waits for the mutex in the kernel now, and lends its priority.
    #[must_use]
    pub fn is_waited_for(&self) -> bool {
        self.mutex.word.load(Ordering::Relaxed) & libc::FUTEX_WAITERS != 0
    }
}

impl<T: ?Sized> Deref for PiMutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the mutex, so nobody else reaches the value.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for PiMutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as `deref`, and the guard itself is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for PiMutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let word = &self.mutex.word;
        // Release pairs with the Acquire of the next holder. It fails if somebody waits:
        // then the kernel hands the mutex over.
        if word.compare_exchange(own_tid(), FREE, Ordering::Release, Ordering::Relaxed).is_err() {
            hand_over(word);
        }
    }
}

#[cold]
fn hand_over(word: &AtomicU32) {
    let result = futex(word, libc::FUTEX_UNLOCK_PI);
    assert_eq!(result, Ok(()), "a mutex is given back by the thread that holds it");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_thread_at_a_time() {
        let mutex = PiMutex::new(0u64).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        *mutex.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*mutex.lock(), 40_000);
    }

    #[test]
    fn try_lock_does_not_wait() {
        let mut mutex = PiMutex::new(1).unwrap();
        let guard = mutex.lock();
        assert!(std::thread::scope(|scope| scope.spawn(|| mutex.try_lock().is_none()).join().unwrap()));
        drop(guard);
        assert_eq!(*mutex.try_lock().unwrap(), 1);
        *mutex.get_mut() = 2;
        assert_eq!(*mutex.lock(), 2);
    }

    #[test]
    #[should_panic(expected = "EDEADLK")]
    fn a_relock_by_its_holder_is_told() {
        let mutex = PiMutex::new(()).unwrap();
        let _guard = mutex.lock();
        let _again = mutex.lock();
    }

    #[test]
    fn a_leaked_guard_does_not_harm_the_drop() {
        let mutex = PiMutex::new(String::from("value")).unwrap();
        std::mem::forget(mutex.lock());
        drop(mutex);
    }

    #[test]
    fn a_waiter_of_higher_priority_lends_it_to_the_holder() {
        use crate::thread::{SchedPolicy, current_tid, set_policy_current};
        use std::sync::mpsc::channel;
        let mutex = PiMutex::new(()).unwrap();
        let (tids, tid) = channel();
        std::thread::scope(|scope| {
            let guard = mutex.lock();
            assert!(!guard.is_waited_for());
            let own = current_tid();
            scope.spawn(|| {
                let permitted = set_policy_current(SchedPolicy::Fifo(2)).is_ok();
                tids.send(permitted).unwrap();
                if permitted {
                    drop(mutex.lock());
                }
            });
            // Without the right to FIFO there is nothing to lend.
            if tid.recv().unwrap() {
                // The kernel's view of this thread's effective priority: field 18 of stat
                // is -1 - (real-time priority) while one is lent.
                let lent = (0..10_000).any(|_| {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    let stat = std::fs::read_to_string(format!("/proc/self/task/{own}/stat")).unwrap();
                    stat.rsplit(')').next().unwrap().split_whitespace().nth(15) == Some("-3")
                });
                assert!(lent, "priority was not lent");
                assert!(guard.is_waited_for());
            }
            drop(guard);
        });
    }
}
