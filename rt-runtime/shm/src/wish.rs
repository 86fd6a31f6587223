//! The words of the wake-up protocol, without the memory they lie in nor the system
//! calls, so that loom can check them.
//!
//! The *wish* (in the receiver's wake page, written by the receiver alone) is odd while
//! it wants to be woken. The *bell* (in each connection's cells region, written by its
//! sender alone) is counted up to wake, and is what a receiver sleeps on.
//!
//! | receiver | sender |
//! |---|---|
//! | 1. wish = odd; SeqCst fence | 1. publish; SeqCst fence |
//! | 2. read the bells | 2. wish odd, and not answered? |
//! | 3. look at the rings once more | 3. bell + 1; wake its sleepers |
//! | 4. sleep if the bells are as read | |
//!
//! Nobody is missed. By the fences, 3 of the receiver sees the message or 2 of the
//! sender sees the wish. In the second case the bell is counted up, either before 2 of
//! the receiver (which then sees the message in 3, by Release and Acquire), or after
//! (and then 4 does not sleep, or is woken). A word that the *receiver* alone writes
//! could not do it: a wake-up between 3 and 4 would leave no trace.

use crate::sync::{AtomicU32, Ordering, fence};

/// The receiver's side of a wish.
#[derive(Debug)]
pub(crate) struct Wish {
    value: u32,
}

impl Wish {
    /// The wish whose word is `word`; not armed.
    pub(crate) fn new(word: &AtomicU32) -> Self {
        Wish { value: word.load(Ordering::Relaxed) & !1 }
    }

    pub(crate) fn arm(&mut self, word: &AtomicU32) {
        // A new odd value: a wish that no sender has answered.
        self.value = self.value.wrapping_add(1) | 1;
        word.store(self.value, Ordering::Relaxed);
        // SeqCst pairs with the fence in `Answer::is_wanted`.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn disarm(&mut self, word: &AtomicU32) {
        if self.is_armed() {
            self.value = self.value.wrapping_add(1);
            word.store(self.value, Ordering::Relaxed);
        }
    }

    pub(crate) const fn is_armed(&self) -> bool {
        self.value & 1 == 1
    }
}

/// A sender's side of a wish: which one it answered last.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    answered: u32,
}

impl Answer {
    #[inline]
    pub(crate) fn is_wanted(&mut self, word: &AtomicU32) -> bool {
        // SeqCst pairs with the fence in `Wish::arm`.
        fence(Ordering::SeqCst);
        let wish = word.load(Ordering::Relaxed);
        if wish & 1 == 0 || wish == self.answered {
            return false;
        }
        self.answered = wish;
        true
    }
}
