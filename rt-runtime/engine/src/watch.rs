//! Which sources a turn looks at: a turn costs what is active, not what exists.
//!
//! Best-effort sources that had nothing for [`QUIET_AFTER`] looks are *quiet*. Since their
//! memory is in no cache, a look at one costs as much as relaying a small message, and is
//! paid for with *credit*: a turn brings a sixteenth of a look, and each KiB that it moves one
//! more. A datapath that has found nothing for [`IDLE_TURNS`] turns looks at
//! [`QUIET_LOOKS_MAX`] in each. So of `n` quiet sources the one that has something is found
//! within `16 n` turns of a datapath that relays small messages (2 ms of 4,096), while it
//! moves `n` KiB of bulk, or within `n / 64` turns of an idle one.
//!
//! A datapath that is about to sleep looks at the watched ones only. The client of a quiet one
//! is asked to ring its session's doorbell with the next message ([`RxConn::be_quiet`]), and the
//! sleep ends at once if one rang before it began: the quiet sources of that session are looked
//! at in the next turns that find nothing new at a watched one, [`QUIET_LOOKS_MAX`] in each, and
//! before others in all turns. A sleep that nothing ended brings a turn with as many looks: a
//! backstop, should a ring ever be missed. Only clients of datapaths that sleep have a doorbell;
//! what they are asked for costs the others nothing. A source that is let go is watched until it
//! has gone: its doorbell may go before.
//!
//! Real-time and reliable sources are never quiet, nor where the datapath sleeps those of a
//! session whose doorbell it could not take (their owner sees to that), nor are the last
//! [`WATCHED_MIN`], nor any of an engine that is turned by who emits, within whose emit a
//! message is to leave.
//!
//! Invariants: `places[..watched]` are watched, the others are quiet; each place stands once,
//! and `standing` says where.
//!
//! [`RxConn::be_quiet`]: insane_shm::conn::RxConn::be_quiet

use crate::rung::Rung;
use insane_core::SessionId;

/// Looks without anything after which a source is quiet.
pub(crate) const QUIET_AFTER: u32 = 1024;
/// So many are looked at in every turn in any case.
const WATCHED_MIN: usize = 4;
/// Sources that become quiet in one turn at most: the last look at each costs a memory barrier.
pub(crate) const RESTS_PER_TURN: u32 = 16;
/// Quiet sources looked at in one turn at most.
const QUIET_LOOKS_MAX: u32 = 64;
/// What a look at a quiet source costs; a turn brings 1.
const LOOK_CREDIT: u32 = 16;
/// What a turn moves to bring 1 more.
const BYTES_PER_CREDIT: u32 = 1024 / LOOK_CREDIT;
/// Turns without anything after which a datapath has nothing better to do than to look.
const IDLE_TURNS: u32 = 256;

/// The places of all sources.
#[derive(Debug)]
pub(crate) struct WatchList {
    places: Vec<u16>,
    /// By place: where it stands among those.
    standing: Vec<u16>,
    watched: usize,
    /// Quiet ones among these are looked at first.
    rung: Rung,
    /// The quiet one that was looked at last, counted from the first.
    quiet_at: usize,
    credit: u32,
    /// Turns since a source had something.
    idle_turns: u32,
    /// None is ever quiet.
    keeps_all: bool,
}

impl WatchList {
    /// Room for `capacity` sources; nothing allocates afterwards.
    pub fn new(capacity: usize) -> Self {
        WatchList {
            places: Vec::with_capacity(capacity),
            standing: vec![0; capacity],
            watched: 0,
            rung: Rung::new(capacity),
            quiet_at: 0,
            credit: 0,
            idle_turns: 0,
            keeps_all: false,
        }
    }

    /// All sources, in no order that means anything.
    pub fn all(&self) -> &[u16] {
        &self.places
    }

    /// From now on no source becomes quiet; those that are are watched again.
    pub fn keep_all(&mut self) {
        (self.watched, self.keeps_all) = (self.places.len(), true);
    }

    /// A new source of a session; it is watched.
    pub fn add(&mut self, session: SessionId, place: u16) {
        self.standing[usize::from(place)] = self.places.len() as u16;
        self.places.push(place);
        self.watch(self.places.len() - 1);
        self.rung.add(session, place);
    }

    /// Takes out a source of a session.
    pub fn remove(&mut self, session: SessionId, place: u16) {
        self.rung.remove(session, place);
        let mut at = usize::from(self.standing[usize::from(place)]);
        if at < self.watched {
            self.rest(at);
            at = self.watched;
        }
        self.swap(at, self.places.len() - 1);
        self.places.pop();
    }

    fn swap(&mut self, one: usize, other: usize) {
        self.places.swap(one, other);
        for at in [one, other] {
            self.standing[usize::from(self.places[at])] = at as u16;
        }
    }

    /// How many are watched: so many are the first of [`all`](Self::all).
    pub const fn watched_count(&self) -> usize {
        self.watched
    }

    /// The watched source at `at`; `None` behind the last.
    #[inline]
    pub fn watched(&self, at: usize) -> Option<u16> {
        if at < self.watched { Some(self.places[at]) } else { None }
    }

    /// Whether a source that is watched may become quiet.
    #[inline]
    pub const fn may_rest(&self) -> bool {
        self.watched > WATCHED_MIN && !self.keeps_all
    }

    /// The watched source at `at` is quiet from now on; another one stands there then.
    pub fn rest(&mut self, at: usize) {
        self.watched -= 1;
        self.swap(at, self.watched);
    }

    /// The source at `at` of all is watched from now on, if it was quiet.
    pub fn watch(&mut self, at: usize) {
        if at >= self.watched {
            self.swap(at, self.watched);
            self.watched += 1;
        }
    }

    /// The doorbell of a session rang: one of its quiet sources may have something.
    pub fn ring(&mut self, session: SessionId) {
        self.rung.ring(session);
    }

    /// Whether quiet sources of who rang are still to be looked at.
    #[inline]
    pub fn is_rung(&self) -> bool {
        self.rung.is_waiting() && self.watched < self.places.len()
    }

    /// The next turn looks at as many quiet sources as a turn may.
    pub const fn look_more(&mut self) {
        self.credit = QUIET_LOOKS_MAX * LOOK_CREDIT;
    }

    /// A turn moved so much.
    #[inline]
    pub const fn moved(&mut self, bytes: u32) {
        self.credit = self.credit.saturating_add(bytes / BYTES_PER_CREDIT);
    }

    /// How many quiet sources this turn looks at; `busy`: there is something, if only something
    /// that waits for its slot or its budget; `found`: a watched one was found to have something
    /// by this turn.
    #[inline]
    pub fn quiet_looks(&mut self, busy: bool, found: bool) -> u32 {
        if self.watched == self.places.len() {
            return 0;
        }
        self.idle_turns = if busy { 0 } else { self.idle_turns.saturating_add(1) };
        self.credit =
            if self.idle_turns > IDLE_TURNS { QUIET_LOOKS_MAX * LOOK_CREDIT } else { self.credit.saturating_add(1) };
        // What was found goes first: those of who rang have their looks in the next turn.
        let rung = if found { 0 } else { self.rung.left() };
        if self.credit < LOOK_CREDIT && rung == 0 {
            return 0;
        }
        let paid = self.credit / LOOK_CREDIT;
        self.credit %= LOOK_CREDIT;
        (paid + rung).min(QUIET_LOOKS_MAX)
    }

    /// The next source to look at, and where it stands in [`all`](Self::all): one of who rang,
    /// or a quiet one in turn.
    pub fn next_quiet(&mut self) -> Option<(usize, u16)> {
        if let Some(place) = self.rung.next() {
            return Some((usize::from(self.standing[usize::from(place)]), place));
        }
        let quiet = self.places.len() - self.watched;
        // Some may have left since the last look.
        self.quiet_at = if self.quiet_at + 1 < quiet { self.quiet_at + 1 } else { 0 };
        let at = self.watched + self.quiet_at;
        self.places.get(at).map(|place| (at, *place))
    }
}
