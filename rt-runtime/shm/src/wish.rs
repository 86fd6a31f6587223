//! The words of the wake-up protocol, without the memory they lie in nor the system
//! calls, so that loom can check them.
//!
//! A *wish* is a word that the receiver alone writes, and that is odd while it wants to be
//! told of the next message. It tells of two things:
//! - *asleep*, in the receiver's wake page, for all of its rings: it wants to be woken;
//! - *quiet*, in the returns region of one connection: a datapath has stopped looking at this
//!   ring, whether it sleeps or not, and goes on only when it is told.
//!
//! The *bell* is what the receiver sleeps on: a word in each connection's cells region, written
//! by its sender alone and counted up to wake; or, of a datapath, an eventfd of the sender's
//! session, which keeps that it was signalled until the datapath has heard of it.
//!
//! | receiver | sender |
//! |---|---|
//! | 1. wish = odd; SeqCst fence | 1. publish; SeqCst fence |
//! | 2. read the bells | 2. a wish odd, and not answered? |
//! | 3. look at the rings once more | 3. bell + 1; wake its sleepers |
//! | 4. sleep if the bells are as read | |
//!
//! Nobody is missed. By the fences, 3 of the receiver sees the message or 2 of the
//! sender sees the wish. In the second case the bell is counted up, either before 2 of
//! the receiver (which then sees the message in 3, by Release and Acquire), or after
//! (and then 4 does not sleep, or is woken). A word that the *receiver* alone writes
//! could not do it: a wake-up between 3 and 4 would leave no trace. An eventfd needs no 2:
//! what was signalled before 4 ends the sleep.
//!
//! A quiet ring goes through 1 and 3 once, when it becomes quiet, and not before each sleep. Its
//! wish stays, so a message that comes later rings the eventfd, and however many turns and
//! sleeps lie between, the next sleep ends with that at the latest. So the last look before a
//! sleep goes to the rings that are not quiet.
//!
//! Since it stays, it must not be spent on a message that the datapath has taken before: the
//! look that follows would find nothing, and the next message would not ring. So the wish says
//! how many messages were taken, and a sender answers it only if it has published more. Then
//! the ring that was heard has a message, and the datapath looks at it again from there on.

use crate::sync::{AtomicU64, Ordering, fence};

/// The receiver's side of a wish.
#[derive(Debug)]
pub(crate) struct Wish {
    value: u64,
}

impl Wish {
    /// The wish whose word is `word`; not armed.
    pub(crate) fn new(word: &AtomicU64) -> Self {
        Wish { value: word.load(Ordering::Relaxed) & !1 }
    }

    pub(crate) fn arm(&mut self, word: &AtomicU64) {
        // A new odd value: a wish that no sender has answered.
        self.value = self.value.wrapping_add(1) | 1;
        word.store(self.value, Ordering::Relaxed);
        // SeqCst pairs with the fence in `Answer::is_wanted`.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn disarm(&mut self, word: &AtomicU64) {
        if self.is_armed() {
            self.value = self.value.wrapping_add(1);
            word.store(self.value, Ordering::Relaxed);
        }
    }

    pub(crate) const fn is_armed(&self) -> bool {
        self.value & 1 == 1
    }
}

/// The receiver's side of a wish of one quiet ring.
#[derive(Debug)]
pub(crate) struct Quiet {
    armed: bool,
}

impl Quiet {
    /// Not armed: nobody has looked away yet.
    pub(crate) const fn new() -> Self {
        Quiet { armed: false }
    }

    /// `taken`: how many messages were, so many that the next is to be told of.
    pub(crate) fn arm(&mut self, word: &AtomicU64, taken: u64) {
        self.armed = true;
        word.store(taken << 1 | 1, Ordering::Relaxed);
        // SeqCst pairs with the fence in `Answer::is_wanted`.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn disarm(&mut self, word: &AtomicU64) {
        if self.armed {
            self.armed = false;
            word.store(0, Ordering::Relaxed);
        }
    }

    #[cfg(all(test, loom))]
    pub(crate) const fn is_armed(&self) -> bool {
        self.armed
    }
}

/// A sender's side: which wishes of the two kinds it answered last.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    asleep: u64,
    quiet: u64,
}

impl Answer {
    /// Whether one of the two wishes is there and was not answered; it counts as answered then.
    /// `published`: how many messages were.
    #[inline]
    pub(crate) fn is_wanted(&mut self, (asleep, quiet): (&AtomicU64, &AtomicU64), published: u64) -> bool {
        // SeqCst pairs with the fence in `Wish::arm`.
        fence(Ordering::SeqCst);
        let (asleep, quiet) = (asleep.load(Ordering::Relaxed), quiet.load(Ordering::Relaxed));
        // One comparison for both, since mostly there is neither.
        (asleep | quiet) & 1 == 1 && self.answers(asleep, quiet, published)
    }

    /// One bell answers both, so both count as answered.
    fn answers(&mut self, asleep: u64, quiet: u64, published: u64) -> bool {
        let is_new = |wish: u64, answered: &mut u64| wish & 1 == 1 && std::mem::replace(answered, wish) != wish;
        // The same wish twice: then the message for which it was answered waits still.
        let has_more = published > quiet >> 1;
        is_new(asleep, &mut self.asleep) | (has_more && is_new(quiet, &mut self.quiet))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_wish_is_answered_once_and_one_bell_answers_both() {
        let words = [AtomicU64::new(0), AtomicU64::new(0)];
        let [asleep, quiet] = &words;
        let (mut sleeps, mut rests) = (Wish::new(asleep), Quiet::new());
        let mut answer = Answer::default();
        let mut is_wanted = |published: u64| answer.is_wanted((asleep, quiet), published);
        assert!(!is_wanted(1));
        rests.arm(quiet, 1);
        assert!(!is_wanted(1), "that one was taken");
        assert!(is_wanted(2) && !is_wanted(3));
        sleeps.arm(asleep);
        assert!(is_wanted(4) && !is_wanted(5), "who is quiet wakes who sleeps meanwhile");
        sleeps.disarm(asleep);
        rests.disarm(quiet);
        assert!(!is_wanted(6));
        sleeps.arm(asleep);
        rests.arm(quiet, 6);
        assert!(is_wanted(7) && !is_wanted(8));
        sleeps.disarm(asleep);
        assert!(!is_wanted(9), "the quiet one has rung");
    }
}
