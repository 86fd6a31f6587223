//! Peers that joined, and are to get what a source keeps of the past.
//!
//! The source is asked for it, by a count in the ring's memory, and puts it into the ring
//! behind what it has emitted so far: marked messages, and one that ends them. They go to the
//! peers that wait for them and to nobody else; what follows in the ring is of now, so that
//! a peer gets all in order. Of what was in the ring before it joined a new peer gets
//! nothing: it is part of the past, and would come before the rest of it.
//!
//! A source that lies about any of this sends wrong messages of its own, and nothing else.

use crate::deliver::Joined;
use insane_core::limits::PEERS_MAX;
use insane_core::{PeerIndex, Stamp};
use insane_shm::cell::Meta;
use insane_shm::port::end_of_past;

/// A set of peers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PeerSet(u64);

const _: () = assert!(PEERS_MAX <= u64::BITS as usize);

impl PeerSet {
    pub const NONE: PeerSet = PeerSet(0);

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn contains(self, peer: PeerIndex) -> bool {
        self.0 & bit(peer) != 0
    }

    pub fn add(&mut self, peer: PeerIndex) {
        self.0 |= bit(peer);
    }

    const fn without(self, others: Self) -> Self {
        PeerSet(self.0 & !others.0)
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = PeerIndex> {
        (0..PEERS_MAX as u16).map(PeerIndex).filter(move |peer| self.contains(*peer))
    }

    /// Keeps those of which it holds.
    pub fn retain(&mut self, mut holds: impl FnMut(PeerIndex) -> bool) {
        for index in self.iter() {
            if !holds(index) {
                self.remove(index);
            }
        }
    }

    pub fn remove(&mut self, peer: PeerIndex) {
        self.0 &= !bit(peer);
    }

    /// Those that are in either.
    pub const fn or(self, other: Self) -> Self {
        PeerSet(self.0 | other.0)
    }

    /// Those that are in both.
    pub const fn and(self, other: Self) -> Self {
        PeerSet(self.0 & other.0)
    }

    pub const fn len(self) -> u32 {
        self.0.count_ones()
    }

    const fn others(self) -> Self {
        PeerSet(!self.0)
    }
}

fn bit(peer: PeerIndex) -> u64 {
    // Peers have numbers below `PEERS_MAX`; any other is in no set.
    1_u64.checked_shl(peer.index() as u32).unwrap_or(0)
}

/// What a message from the ring of a source that keeps its values is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kept {
    /// One of now: for all but these.
    Now(PeerSet),
    /// One of the past: for all but these.
    Past(PeerSet),
    /// No message: the past is complete, for these.
    End(PeerSet),
}

/// The newcomers of one source.
#[derive(Debug, Default)]
pub(crate) struct Newcomers {
    /// How often the source was asked.
    asks: u64,
    /// They wait for the past.
    waiting: PeerSet,
    /// Of these, those that get nothing of what was in the ring when they joined.
    held_back: PeerSet,
    /// Messages that were, and still are.
    before: u64,
    /// Sinks of this host, up to this number, got a message, or the past.
    heard: u64,
    /// The answer that is coming is for those up to this number.
    upto: Option<u64>,
}

impl Newcomers {
    /// A peer joined; `ask` asks the source, and says how often it was asked. `before`:
    /// messages in its ring; `is_new`: it got none of the source's so far.
    pub fn join(&mut self, peer: PeerIndex, is_new: bool, before: u64, ask: impl FnOnce() -> u64) {
        self.asks = ask();
        self.waiting.add(peer);
        if is_new && before > 0 {
            self.held_back.add(peer);
            self.before = before;
        }
    }

    /// A sink of this host joined, which gets local messages from here.
    pub fn join_here(&mut self, ask: impl FnOnce() -> u64) {
        self.asks = ask();
    }

    /// Sinks of this host up to this number are given a message.
    pub fn heard_by(&mut self, joined: u64) {
        self.heard = self.heard.max(joined);
    }

    /// Which sinks of this host a message of the past is for. `joined`: how many have joined by
    /// now.
    pub fn is_past_to(&mut self, joined: u64) -> Joined {
        Joined::between(self.heard, *self.upto.get_or_insert(joined))
    }

    /// Peers that wait for the past.
    pub const fn waiting(&self) -> PeerSet {
        self.waiting
    }

    /// What the message is that was just taken from the ring.
    pub fn sort(&mut self, meta: &Meta) -> Kept {
        let held_back = self.held_back;
        self.before = self.before.saturating_sub(1);
        if self.before == 0 {
            self.held_back = PeerSet::NONE;
        }
        if !Stamp::is_of_history(meta.source_ns) {
            return Kept::Now(held_back);
        }
        if meta.sequence != u64::MAX {
            return Kept::Past(self.waiting.others());
        }
        self.heard = self.heard.max(self.upto.take().unwrap_or(0));
        // An earlier answer was not for those who joined after it: theirs follows.
        let answered = if end_of_past(meta, self.asks) { self.waiting } else { PeerSet::NONE };
        self.waiting = self.waiting.without(answered);
        Kept::End(answered)
    }
}
