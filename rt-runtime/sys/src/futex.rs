//! Sleeping on a word that processes share.
//!
//! The waker may map the word read-only: waking reads the page's identity, not its
//! content. A word that a peer can write is a hint, so a waiter re-checks what it
//! waits for, and bounds its wait.

use crate::error::{Errno, OsError};
use insane_core::MonoTime;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Why a wait ended.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WaitOutcome {
    /// Somebody woke this waiter (or the kernel did, for no reason).
    Woken,
    /// The word was not as expected; the thread did not sleep.
    Changed,
    /// The time is over.
    TimedOut,
    /// A signal came.
    Interrupted,
}

/// Sleeps while `word` is `expected`, at most `timeout` (`None`: without end).
///
/// # Errors
/// The word's page is gone (`EFAULT`) or the kernel refuses for a reason that is
/// none of the outcomes.
pub fn wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Result<WaitOutcome, OsError> {
    let time = timeout.map(timespec);
    let time: *const libc::timespec = time.as_ref().map_or(std::ptr::null(), |time| time);
    // SAFETY: `word` is a live, aligned u32; `time` is null or points to the local above.
    outcome(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, time) })
}

/// Sleeps while `word` is `expected`, until an instant at the latest.
///
/// # Errors
/// As [`wait`].
pub fn wait_until(word: &AtomicU32, expected: u32, until: MonoTime) -> Result<WaitOutcome, OsError> {
    let time = timespec(Duration::from_nanos(until.0));
    let (time, no_second) = (&raw const time, std::ptr::null::<u32>());
    let (operation, anybody) = (libc::FUTEX_WAIT_BITSET, libc::FUTEX_BITSET_MATCH_ANY);
    // The time of this call is absolute, and of the monotonic clock where no other is asked for.
    // SAFETY: `word` is a live, aligned u32; `time` points to the local above.
    outcome(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, time, no_second, anybody) })
}

fn outcome(result: libc::c_long) -> Result<WaitOutcome, OsError> {
    if result == 0 {
        return Ok(WaitOutcome::Woken);
    }
    match Errno::last() {
        Errno::EAGAIN => Ok(WaitOutcome::Changed),
        Errno::ETIMEDOUT => Ok(WaitOutcome::TimedOut),
        Errno::EINTR => Ok(WaitOutcome::Interrupted),
        errno => Err(OsError::new("waiting on a futex", errno)),
    }
}

/// Wakes at most `count` waiters; returns how many there were. Never blocks and
/// never writes the word.
///
/// # Errors
/// The word's page is gone (`EFAULT`).
pub fn wake(word: &AtomicU32, count: u32) -> Result<u32, OsError> {
    let count = i32::try_from(count).unwrap_or(i32::MAX);
    // SAFETY: `word` is a live, aligned u32; waking only identifies its page.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    u32::try_from(woken).map_err(|_| OsError::last("waking a futex"))
}

pub(crate) fn timespec(length: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(length.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(length.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::mono_now;
    use insane_core::Nanos;
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
    use std::num::NonZeroUsize;
    use std::ptr::NonNull;
    use std::sync::atomic::Ordering;

    struct Mapped(NonNull<AtomicU32>);
    // SAFETY: the tests share the word only as an atomic.
    unsafe impl Send for Mapped {}
    impl Mapped {
        fn new(fd: &std::os::fd::OwnedFd, prot: ProtFlags) -> Self {
            // SAFETY: a new mapping at an address the kernel chooses.
            let at = unsafe { mmap(None, NonZeroUsize::new(4096).unwrap(), prot, MapFlags::MAP_SHARED, fd, 0) };
            Mapped(at.unwrap().cast())
        }
        fn word(&self) -> &AtomicU32 {
            // SAFETY: mapped and aligned until drop.
            unsafe { self.0.as_ref() }
        }
    }
    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: mapped by `new`.
            unsafe { munmap(self.0.cast(), 4096).unwrap() };
        }
    }

    #[test]
    fn a_waker_with_a_read_only_mapping_wakes() {
        let fd = crate::memfd::create("futex", 4096).unwrap();
        let waiter = Mapped::new(&fd, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
        crate::memfd::seal_writers(&fd).unwrap();
        let waker = Mapped::new(&fd, ProtFlags::PROT_READ);
        let thread = std::thread::spawn(move || {
            let outcome = wait(waiter.word(), 0, Some(Duration::from_secs(20))).unwrap();
            waiter.word().store(1, Ordering::Release);
            outcome
        });
        // Until the thread sleeps there is nobody to wake.
        while wake(waker.word(), 1).unwrap() == 0 {
            assert!(!thread.is_finished(), "the waiter gave up before a wake reached it");
            std::thread::yield_now();
        }
        assert_eq!(thread.join().unwrap(), WaitOutcome::Woken);
        assert_eq!(waker.word().load(Ordering::Acquire), 1, "both mappings are one page");
    }

    #[test]
    fn the_other_outcomes() {
        let word = AtomicU32::new(5);
        assert_eq!(wait(&word, 4, None).unwrap(), WaitOutcome::Changed);
        assert_eq!(wait(&word, 5, Some(Duration::from_millis(1))).unwrap(), WaitOutcome::TimedOut);
        let until = mono_now() + Nanos::from_millis(2);
        assert_eq!(wait_until(&word, 4, until).unwrap(), WaitOutcome::Changed);
        assert_eq!(wait_until(&word, 5, until).unwrap(), WaitOutcome::TimedOut);
        assert!(mono_now() >= until);
        assert_eq!(wait_until(&word, 5, until).unwrap(), WaitOutcome::TimedOut, "it has passed");
        assert_eq!(wake(&word, u32::MAX).unwrap(), 0);
    }
}
