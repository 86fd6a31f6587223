//! A mutex whose holder inherits the priority of who waits for it.
//!
//! For the few places where a real-time thread and an ordinary one share state: a
//! holder that was preempted runs on at the waiter's priority, so the wait is
//! bounded by the critical section.

use crate::error::{Errno, OsError};
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

/// Mutual exclusion with priority inheritance. There is no poisoning: who panics
/// while holding it leaves the value as it was at that moment.
pub struct PiMutex<T: ?Sized> {
    /// Boxed: waiters know a pthread mutex by its address.
    raw: Box<UnsafeCell<libc::pthread_mutex_t>>,
    value: UnsafeCell<T>,
}

// SAFETY: the value moves with the mutex; the pthread mutex is not bound to a thread
// while nobody holds it, and a guard (which borrows it) keeps it from moving.
unsafe impl<T: ?Sized + Send> Send for PiMutex<T> {}
// SAFETY: the pthread mutex gives the value to one thread at a time.
unsafe impl<T: ?Sized + Send> Sync for PiMutex<T> {}

impl<T> PiMutex<T> {
    /// A mutex nobody holds.
    ///
    /// # Errors
    /// The C library has no priority inheritance (`ENOTSUP`) or no memory.
    pub fn new(value: T) -> Result<Self, OsError> {
        let mut attributes = MaybeUninit::uninit();
        let failed = |errno| OsError::new("making a mutex with priority inheritance", Errno::from_raw(errno));
        let raw = Box::new(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));
        // SAFETY: the attributes are initialised before they are used and destroyed
        // after; the mutex is not in use yet, and does not move out of its box.
        let result = unsafe {
            match libc::pthread_mutexattr_init(attributes.as_mut_ptr()) {
                0 => {}
                errno => return Err(failed(errno)),
            }
            // A relock by its holder is a bug that shall be told, not a deadlock.
            let mut result = libc::pthread_mutexattr_settype(attributes.as_mut_ptr(), libc::PTHREAD_MUTEX_ERRORCHECK);
            if result == 0 {
                result = libc::pthread_mutexattr_setprotocol(attributes.as_mut_ptr(), libc::PTHREAD_PRIO_INHERIT);
            }
            if result == 0 {
                result = libc::pthread_mutex_init(raw.get(), attributes.as_ptr());
            }
            libc::pthread_mutexattr_destroy(attributes.as_mut_ptr());
            result
        };
        if result == 0 { Ok(PiMutex { raw, value: UnsafeCell::new(value) }) } else { Err(failed(result)) }
    }
}

impl<T: ?Sized> PiMutex<T> {
    /// Takes the mutex if nobody holds it.
    #[must_use]
    pub fn try_lock(&self) -> Option<PiMutexGuard<'_, T>> {
        // SAFETY: initialised by `new`, alive while `self` is borrowed.
        match unsafe { libc::pthread_mutex_trylock(self.raw.get()) } {
            0 => Some(PiMutexGuard { mutex: self, here: PhantomData }),
            _ => None,
        }
    }

    /// Takes the mutex, waiting for its holder.
    ///
    /// # Panics
    /// This thread holds it already: a bug.
    pub fn lock(&self) -> PiMutexGuard<'_, T> {
        // SAFETY: initialised by `new`, alive while `self` is borrowed.
        let result = unsafe { libc::pthread_mutex_lock(self.raw.get()) };
        assert_eq!(result, 0, "locking a mutex failed: {}", Errno::from_raw(result));
        PiMutexGuard { mutex: self, here: PhantomData }
    }

    /// The value; needs no lock, since nobody else can have the mutex.
    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: ?Sized> Drop for PiMutex<T> {
    fn drop(&mut self) {
        // SAFETY: initialised by `new`. A guard that was leaked leaves the mutex locked,
        // and a locked one must not be destroyed; a PI mutex owns nothing but its memory.
        unsafe {
            if libc::pthread_mutex_trylock(self.raw.get()) == 0 {
                libc::pthread_mutex_unlock(self.raw.get());
                libc::pthread_mutex_destroy(self.raw.get());
            }
        }
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

impl<T: ?Sized> Deref for PiMutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: this guard holds the mutex, so nobody else reaches the value.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for PiMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as `deref`, and the guard itself is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for PiMutexGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: locked by this thread when the guard was made.
        unsafe { libc::pthread_mutex_unlock(self.mutex.raw.get()) };
    }
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
            }
            drop(guard);
        });
    }
}
