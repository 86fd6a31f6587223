//! Waking the thread that runs spawned tasks.
//!
//! ```text
//!         ┌──────── the thread, before it looks once more and sleeps ───┐
//!         │                                                             ▼
//!       AWAKE ◀── the thread, when it runs again ── RUNG ◀── a ringer ── ASLEEP
//!         ▲                                                             │
//!         └──────── the thread: there was work, or it is time ──────────┘
//! ```
//!
//! The thread says that it sleeps, looks once more whether there is work, and sleeps on the
//! word. Who has left work looks at the word; a fence on both sides sees to it that one of the
//! two sees the other. Who finds the thread awake calls the kernel for nothing: a thread that is
//! held up by more urgent ones in the middle of its work, or spawns for itself, costs no call.
//!
//! Only the thread itself says that it is awake. Who finds it asleep, or rung for and not run
//! since, calls the kernel: the one that rang first may have been preempted before its call, and
//! the thread, however urgent, would sleep for as long as that one does not run. Whatever the
//! priorities, a thread that is not runnable is run by nobody.

use crate::sync::{AtomicU32, Ordering, fence};
use insane_core::MonoTime;

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
/// Somebody calls the kernel, or has; the thread has not run since.
const RUNG: u32 = 2;

/// Wakes one thread; anybody may ring.
#[derive(Debug)]
pub struct Bell {
    word: AtomicU32,
    /// The kernel's list of who sleeps on the word, and its lock.
    #[cfg(loom)]
    queued: loom::sync::Mutex<bool>,
}

impl Bell {
    /// Of a thread that is awake.
    #[must_use]
    pub fn new() -> Self {
        Bell {
            word: AtomicU32::new(AWAKE),
            #[cfg(loom)]
            queued: loom::sync::Mutex::new(false),
        }
    }

    /// Wakes the thread if it sleeps: it is runnable when this returns. What was written before
    /// is seen by it.
    pub fn ring(&self) {
        // Pairs with the fence of `sleep`.
        fence(Ordering::SeqCst);
        if self.word.load(Ordering::Relaxed) == AWAKE {
            return;
        }
        // Release pairs with the Acquire of `wait`. Whoever loses finds it rung, or awake.
        if self.word.compare_exchange(ASLEEP, RUNG, Ordering::Release, Ordering::Relaxed) != Err(AWAKE) {
            self.wake();
        }
    }

    /// Sleeps until somebody rings, or until that instant. True: it was woken, or there was
    /// work already. One thread only.
    pub fn sleep(&self, until: Option<MonoTime>, has_work: impl Fn() -> bool) -> bool {
        self.word.store(ASLEEP, Ordering::Relaxed);
        // Pairs with the fence of `ring`.
        fence(Ordering::SeqCst);
        let is_woken = has_work() || self.wait(until);
        self.word.store(AWAKE, Ordering::Relaxed);
        is_woken
    }

    #[cfg(not(loom))]
    fn wake(&self) {
        // The word is this process's own: the call cannot fail.
        let _ = insane_sys::futex::wake(&self.word, 1);
    }

    /// Without end but for signals, each of which ends one sleep.
    #[cfg(not(loom))]
    fn wait(&self, until: Option<MonoTime>) -> bool {
        use insane_sys::futex::{WaitOutcome, wait, wait_until};
        while self.word.load(Ordering::Acquire) == ASLEEP {
            let outcome = match until {
                Some(until) => wait_until(&self.word, ASLEEP, until),
                None => wait(&self.word, ASLEEP, None),
            };
            if outcome.expect("the word is there for as long as the thread") == WaitOutcome::TimedOut {
                return false;
            }
        }
        true
    }

    #[cfg(loom)]
    fn wake(&self) {
        *self.queued.lock().unwrap() = false;
    }

    /// The kernel's: it sleeps if the word says so, until somebody calls. A lost wake-up is a
    /// wait without end.
    #[cfg(loom)]
    fn wait(&self, _: Option<MonoTime>) -> bool {
        while self.word.load(Ordering::Acquire) == ASLEEP {
            let mut queued = self.queued.lock().unwrap();
            *queued = self.word.load(Ordering::Relaxed) == ASLEEP;
            drop(queued);
            while self.is_queued() {
                loom::thread::yield_now();
            }
        }
        true
    }

    /// The thread sleeps, and is not runnable.
    #[cfg(loom)]
    pub(crate) fn is_queued(&self) -> bool {
        *self.queued.lock().unwrap()
    }
}

impl Default for Bell {
    fn default() -> Self {
        Bell::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use insane_core::Nanos;
    use insane_sys::clock::mono_now;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn a_sleep_ends_with_the_bell_with_work_or_with_its_time() {
        let (bell, work) = (Bell::new(), AtomicBool::new(false));
        let until = mono_now() + Nanos::from_millis(3);
        assert!(!bell.sleep(Some(until), || false));
        assert!(mono_now() >= until);
        assert!(bell.sleep(None, || true));
        bell.ring();
        assert!(!bell.sleep(Some(mono_now()), || false), "who is awake hears nothing");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                work.store(true, Ordering::Relaxed);
                bell.ring();
            });
            assert!(bell.sleep(None, || work.load(Ordering::Relaxed)));
        });
    }
}
