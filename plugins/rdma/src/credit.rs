//! Who may send how much, so that no message ever finds no buffer. Pure.
//!
//! Both sides count messages with frames. A side has [`WINDOW`] buffers posted for each
//! connection and grants as many messages beyond those that it has taken and whose buffers are
//! posted again. A grant travels with every message; where none goes the other way, half a
//! window that was not told makes one of its own. Such a message needs a buffer, too, and no
//! grant: [`SPARE`] are posted for them. More are never under way: the other side counts none
//! beyond the newest grant that it has heard, so at most a whole window can have become free
//! since, in two halves; and it posts the buffer again before it acts on what it heard.

/// Messages with frames that may be under way in one direction of a connection.
pub(crate) const WINDOW: u32 = 16;
/// Buffers of a connection for messages that only grant.
pub(crate) const SPARE: u32 = 2;

/// The state of one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Credit {
    /// What the other side has room for at a time.
    theirs: u32,
    /// Messages that may have been sent in all; these counters wrap.
    granted: u32,
    sent: u32,
    came: u32,
    /// Of those: taken, and the buffer is posted again.
    taken: u32,
    /// What was granted last.
    told: u32,
}

impl Credit {
    pub(crate) fn new(window_of_other: u32) -> Self {
        Credit { theirs: window_of_other, granted: window_of_other, sent: 0, came: 0, taken: 0, told: WINDOW }
    }

    /// A message with frames may go.
    #[inline]
    pub(crate) fn may_send(&self) -> bool {
        self.granted != self.sent
    }

    /// One goes.
    pub(crate) fn send(&mut self) {
        self.sent = self.sent.wrapping_add(1);
    }

    /// What stands in the next message.
    pub(crate) fn tell(&mut self) -> u32 {
        self.told = self.taken.wrapping_add(WINDOW);
        self.told
    }

    /// So much was not told that it needs a message of its own.
    pub(crate) fn is_due(&self) -> bool {
        self.taken.wrapping_add(WINDOW).wrapping_sub(self.told) >= WINDOW / 2
    }

    /// A message with frames came. False: it had no grant.
    #[must_use]
    pub(crate) fn arrive(&mut self) -> bool {
        self.came = self.came.wrapping_add(1);
        self.told.wrapping_sub(self.came) <= WINDOW
    }

    /// Its buffer is posted again.
    pub(crate) fn take(&mut self) {
        self.taken = self.taken.wrapping_add(1);
    }

    /// A grant came. False: nobody who counts grants that.
    #[must_use]
    pub(crate) fn hear(&mut self, granted: u32) -> bool {
        let is_possible =
            granted.wrapping_sub(self.granted) <= self.theirs && granted.wrapping_sub(self.sent) <= self.theirs;
        if is_possible {
            self.granted = granted;
        }
        is_possible
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// One side: its count, its posted buffers, what came and was not taken, and what is on the
    /// way to the other side (true: with frames).
    struct Side {
        credit: Credit,
        posted: u32,
        waiting: u32,
        way: VecDeque<(bool, u32)>,
    }

    fn side() -> Side {
        Side { credit: Credit::new(WINDOW), posted: WINDOW + SPARE, waiting: 0, way: VecDeque::new() }
    }

    /// Whatever two sides do in whatever order, a message finds a buffer, and neither waits for
    /// ever for a grant.
    #[test]
    fn no_message_finds_no_buffer_whatever_happens_when() {
        for seed in 1..200_u64 {
            let mut random = seed;
            let mut sides = [side(), side()];
            let mut passed = [0; 2];
            for _ in 0..4_000 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let (who, what) = ((random >> 8) as usize % 2, random >> 16 & 3);
                let [a, b] = &mut sides;
                let (own, other) = if who == 0 { (a, b) } else { (b, a) };
                match what {
                    0 if own.credit.may_send() => {
                        own.credit.send();
                        let grant = own.credit.tell();
                        own.way.push_back((true, grant));
                    }
                    1 if own.waiting > 0 => {
                        own.waiting -= 1;
                        own.posted += 1;
                        own.credit.take();
                        passed[who] += 1;
                        // Now or a little later.
                        if own.credit.is_due() {
                            let grant = own.credit.tell();
                            own.way.push_back((false, grant));
                        }
                    }
                    2 | 3 => {
                        let Some((has_frames, grant)) = other.way.pop_front() else { continue };
                        assert!(own.posted > 0, "seed {seed}: no buffer");
                        own.posted -= 1;
                        if has_frames {
                            assert!(own.credit.arrive());
                            own.waiting += 1;
                        } else {
                            own.posted += 1;
                        }
                        assert!(own.credit.hear(grant), "seed {seed}");
                    }
                    _ => {}
                }
            }
            assert!(passed.iter().all(|passed| *passed > 100), "seed {seed}: {passed:?}");
        }
    }

    #[test]
    fn the_device_s_queue_is_as_deep_as_what_is_posted_before_it_is_looked_at() {
        // Nobody looks at what came: a whole window with frames, and the spare ones.
        let mut receiver = side();
        let mut sender = Credit::new(WINDOW);
        let mut sent = 0;
        while sender.may_send() {
            sender.send();
            receiver.posted -= 1;
            sent += 1;
        }
        assert_eq!((sent, receiver.posted), (WINDOW, SPARE));
    }

    #[test]
    fn who_cheats_is_noticed() {
        let mut credit = Credit::new(WINDOW);
        for _ in 0..WINDOW {
            assert!(credit.arrive());
        }
        assert!(!credit.arrive(), "one more than was granted");
        let mut credit = Credit::new(WINDOW);
        assert!(!credit.hear(WINDOW + 1) && !credit.hear(WINDOW - 1) && credit.hear(WINDOW));
        credit.send();
        assert!(credit.hear(WINDOW + 1) && !credit.hear(WINDOW));
    }

    #[test]
    fn counters_wrap() {
        let near = u32::MAX - 3;
        let mut credit = Credit {
            theirs: WINDOW,
            granted: near + 2,
            sent: near,
            came: near,
            taken: near,
            told: near.wrapping_add(WINDOW),
        };
        for _ in 0..40 {
            assert!(credit.may_send());
            credit.send();
            assert!(credit.hear(credit.sent.wrapping_add(WINDOW / 2)));
            assert!(credit.arrive());
            credit.take();
            if credit.is_due() {
                assert_eq!(credit.tell(), credit.taken.wrapping_add(WINDOW));
            }
        }
    }
}
