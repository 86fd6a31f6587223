//! The receiving side of one source.

use super::{Ack, Limits, Position, Sync, WINDOW_MAX};
use insane_core::{Incarnation, MonoTime, Nanos};

/// What is to be done with a frame.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It is the next one. Put it at its offset, then report it as
    /// [`stored`](Receiver::stored); or, if there is no room, as
    /// [`refused`](Receiver::refused).
    Next {
        /// The message is whole with it.
        completes: bool,
    },
    /// Of a message that was given up: drop it. It counts as received.
    Skipped,
    /// It was received before: drop it.
    Duplicate,
    /// Something before it is missing: drop it, it will come again.
    Ahead,
    /// Not a frame of this message: drop it.
    Inconsistent,
}

/// The receiving side of one source: what comes next, and what is asked for. See the
/// module.
#[derive(Clone, Copy, Debug)]
pub struct Receiver {
    token: u64,
    next: Position,
    /// Length of message `next`, if some of it is there.
    message_len: u32,
    /// The rest of message `next` is dropped, and counts as lost.
    skipping: bool,
    /// Losses that the next message will tell.
    lost: u64,
    /// Messages asked for at once.
    grant: u32,
    /// Since when frames are refused.
    blocked_at: Option<MonoTime>,
    ack_due: bool,
    nak_due: bool,
    /// The last loss that was reported, and when.
    naked: Option<(Position, MonoTime)>,
    progress_at: MonoTime,
    heard_at: MonoTime,
}

impl Receiver {
    /// A receiver that begins where the sender says.
    #[must_use]
    pub fn new(now: MonoTime, sync: &Sync) -> Self {
        let mut receiver = Receiver {
            token: sync.token,
            next: Position::start_of(sync.base),
            message_len: 0,
            skipping: false,
            lost: 0,
            grant: WINDOW_MAX as u32,
            blocked_at: None,
            ack_due: true,
            nak_due: false,
            naked: None,
            progress_at: now,
            heard_at: now,
        };
        receiver.nak_due = receiver.next < sync.sent;
        receiver
    }

    /// The sender's name for the flow.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// What comes next.
    #[must_use]
    pub const fn next(&self) -> Position {
        self.next
    }

    /// When anything was last heard of the sender.
    #[must_use]
    pub const fn heard_at(&self) -> MonoTime {
        self.heard_at
    }

    /// A frame of the sender's has begun to come in.
    pub const fn hear(&mut self, now: MonoTime) {
        self.heard_at = now;
    }

    /// When the last frame was taken.
    #[must_use]
    pub const fn progress_at(&self) -> MonoTime {
        self.progress_at
    }

    /// Whether some of a message is stored, and the rest is not there yet.
    #[must_use]
    pub const fn is_partial(&self) -> bool {
        self.next.offset > 0 && !self.skipping
    }

    /// A heartbeat came in. True if the flow goes on at a later message: what was stored
    /// of the current one is void.
    #[must_use]
    pub fn on_sync(&mut self, now: MonoTime, sync: &Sync) -> bool {
        self.heard_at = now;
        if sync.token < self.token {
            // Of an earlier attachment of the source.
            return false;
        }
        self.token = sync.token;
        self.ack_due = true;
        let base = Position::start_of(sync.base);
        let jumps = base > self.next;
        if jumps {
            self.lost = if sync.fresh { 0 } else { self.lost.saturating_add(base.sequence - self.next.sequence) };
            self.next = base;
            self.skipping = false;
            self.naked = None;
            self.progress_at = now;
        }
        self.nak_due |= self.next < sync.sent;
        jumps
    }

    /// Whether [`on_frame`](Self::on_frame) would answer [`Arrival::Next`].
    #[must_use]
    pub fn awaits(&self, from: Position, len: u32, message_len: u32) -> bool {
        from == self.next && !self.skipping && self.is_consistent(from, len, message_len)
    }

    fn is_consistent(&self, from: Position, len: u32, message_len: u32) -> bool {
        (from.offset == 0 || message_len == self.message_len)
            && len <= message_len - from.offset.min(message_len)
            && (len > 0 || message_len == 0)
    }

    /// A frame came in: bytes `from.offset` to `from.offset + len` of message
    /// `from.sequence`, which is `message_len` bytes long.
    #[inline]
    pub fn on_frame(&mut self, now: MonoTime, limits: &Limits, from: Position, len: u32, message_len: u32) -> Arrival {
        self.heard_at = now;
        if from > self.next {
            let is_new =
                self.naked.is_none_or(|(at, since)| at != self.next || now.since(since) >= limits.repair_after);
            if is_new {
                (self.nak_due, self.naked) = (true, Some((self.next, now)));
            }
            return Arrival::Ahead;
        }
        if from < self.next {
            // Perhaps the acknowledgement was lost.
            self.ack_due = true;
            return Arrival::Duplicate;
        }
        if !self.is_consistent(from, len, message_len) {
            return Arrival::Inconsistent;
        }
        self.message_len = message_len;
        let completes = from.offset + len == message_len;
        if self.skipping {
            self.advance(now, len);
            return Arrival::Skipped;
        }
        Arrival::Next { completes }
    }

    /// The frame just asked about was put where it belongs, and its message, if whole,
    /// handed on. `len` is the frame's. Returns, with a whole message, how many were
    /// lost before it.
    #[inline]
    pub fn stored(&mut self, now: MonoTime, len: u32) -> Option<u64> {
        let at = self.next.sequence;
        self.advance(now, len);
        (self.next.sequence > at).then(|| {
            self.grant = (self.grant + 1).min(WINDOW_MAX as u32);
            core::mem::take(&mut self.lost)
        })
    }

    /// How many messages were lost before the one that comes next.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    fn advance(&mut self, now: MonoTime, len: u32) {
        self.progress_at = now;
        self.blocked_at = None;
        self.ack_due = true;
        let end = self.next.offset + len;
        if end < self.message_len {
            self.next.offset = end;
            return;
        }
        self.next = Position::start_of(self.next.sequence.saturating_add(1));
        if self.skipping {
            self.skipping = false;
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// There is no room for the frame just asked about: no credit until
    /// [`reopen`](Self::reopen) or a frame that is stored.
    pub fn refused(&mut self, now: MonoTime) {
        self.grant = 1;
        self.nak_due = true;
        self.blocked_at.get_or_insert(now);
    }

    /// For how long there was no room; `None` if there is.
    #[must_use]
    pub fn blocked_for(&self, now: MonoTime) -> Option<Nanos> {
        self.blocked_at.map(|since| now.since(since))
    }

    /// There is room again: credit is granted, and the sender told.
    pub fn reopen(&mut self) {
        if self.blocked_at.take().is_some() {
            self.ack_due = true;
            self.nak_due = true;
        }
    }

    /// Gives up the message that comes next: it is too large, or the memory of what is
    /// there of it is needed. It will count as lost.
    pub const fn skip(&mut self) {
        self.skipping = true;
    }

    /// Whether an acknowledgement is due.
    #[must_use]
    pub const fn is_due(&self) -> bool {
        self.ack_due || self.nak_due
    }

    /// The acknowledgement of what was received so far. It counts as sent.
    pub fn ack(&mut self, life: Incarnation) -> Ack {
        let grant = if self.blocked_at.is_some() { 0 } else { self.grant };
        let limit = self.next.sequence.saturating_add(u64::from(grant));
        let nak = self.nak_due;
        (self.ack_due, self.nak_due) = (false, false);
        Ack { token: self.token, life, next: self.next, limit, nak, gone: false, recap: 0 }
    }
}
