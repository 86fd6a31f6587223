//! The sending side of one source.

use super::{Ack, Limits, PEERS_MAX, Position, RECAP_SHARE, RECAPS_MAX, Sync, WINDOW_MAX};
use alloc::boxed::Box;
use insane_core::{MonoTime, Nanos, PeerIndex};
use insane_wire::data::{FRAGMENT_UNIT, HEADER_BYTES};

/// One frame of a message, to be sent to one peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Data {
    /// To whom.
    pub peer: PeerIndex,
    /// Which bytes: from here
    pub from: Position,
    /// this many.
    pub len: u32,
    /// It was sent before.
    pub is_repair: bool,
    /// Its message was taken from the source before the peer joined.
    pub is_past: bool,
    place: usize,
}

/// A message that is held.
#[derive(Clone, Copy)]
struct Held {
    len: u32,
    /// Bytes charged for all messages before it, since the sender began.
    before: u64,
}

/// Where the sum of charges begins, so that there is room for messages before the first one:
/// a window of the largest.
const CHARGED_AT_FIRST: u64 = 1 << 40;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// It is sent to, and messages are held for it.
    In,
    /// It was put out, and is asked whether it is back.
    Out,
}

#[derive(Clone, Copy)]
struct Peer {
    index: PeerIndex,
    /// This is a recap for the peer, or 0: the flow itself.
    recap: u32,
    state: State,
    /// It knows that its part begins at `base`.
    confirmed: bool,
    /// See [`Sync::fresh`].
    fresh: bool,
    /// Where its part begins. While it is out: where it would have begun at once; an
    /// answer that is not behind it comes from a receiver that is back.
    base: u64,
    acked: Position,
    /// Messages before this one are of the past to it.
    past_until: u64,
    /// Since when it is a recap.
    began_at: MonoTime,
    /// What is sent next.
    cursor: Position,
    /// What was never sent.
    high: Position,
    /// Messages before this one may be sent.
    limit: u64,
    /// When it last acknowledged something new, or got something to acknowledge.
    progress_at: MonoTime,
    sync_at: MonoTime,
    sync_gap: Nanos,
    rewound: Option<(Position, MonoTime)>,
}

/// The sending side of one source: which frames go to whom, what is still held. See the
/// module.
pub struct Sender {
    limits: Limits,
    token: u64,
    peers: [Option<Peer>; PEERS_MAX + RECAPS_MAX],
    /// Places of `peers` that may be taken: none from here on.
    places: usize,
    /// Whose turn it is.
    turn: usize,
    /// How many of `peers` are recaps.
    recaps: usize,
    /// By then the recaps to each peer have had no more than their share of the time: also of one
    /// that left meanwhile, or was put out.
    recaps_paid_at: [MonoTime; PEERS_MAX],
    held: [Held; WINDOW_MAX],
    /// The oldest message held.
    first: u64,
    /// The next one to be taken.
    end: u64,
    /// Bytes charged for all messages before `end`.
    charged: u64,
    /// Of the time that its thread missed, what its peers were excused for.
    excused: Nanos,
}

impl Sender {
    /// A sender whose first message is number `first`. `token` is repeated by receivers:
    /// the caller finds this sender by it.
    ///
    /// # Panics
    /// If the window is 0 or above [`WINDOW_MAX`].
    #[must_use]
    pub fn new(limits: Limits, token: u64, first: u64) -> Self {
        assert!((1..=WINDOW_MAX as u32).contains(&limits.window), "a window holds 1 to {WINDOW_MAX} messages");
        Sender {
            limits,
            token,
            peers: [None; PEERS_MAX + RECAPS_MAX],
            places: 0,
            turn: 0,
            recaps: 0,
            recaps_paid_at: [MonoTime(0); PEERS_MAX],
            held: [Held { len: 0, before: 0 }; WINDOW_MAX],
            first,
            end: first,
            charged: CHARGED_AT_FIRST,
            excused: Nanos(0),
        }
    }

    /// As [`Sender::new`], on the heap.
    #[must_use]
    pub fn boxed(limits: Limits) -> Box<Self> {
        Box::new(Sender::new(limits, 0, 0))
    }

    /// The name that receivers repeat.
    #[must_use]
    pub const fn token(&self) -> u64 {
        self.token
    }

    /// The number of the next message.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.end
    }

    /// Messages held.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.end - self.first
    }

    /// Whether a message may be taken from the source.
    #[must_use]
    #[inline]
    pub fn has_room(&self) -> bool {
        let held = self.held();
        held < u64::from(self.limits.window) && (held == 0 || self.charge_held() < self.limits.window_bytes)
    }

    fn charge_held(&self) -> u64 {
        self.charged - self.charge(Position::start_of(self.first))
    }

    /// Takes a message of `len` bytes; returns its number.
    ///
    /// # Panics
    /// Without room.
    pub fn push(&mut self, now: MonoTime, len: u32) -> u64 {
        assert!(self.has_room(), "a message beyond the window");
        let end = Position::start_of(self.end);
        for peer in self.peers[..self.places].iter_mut().flatten() {
            // Whoever had nothing to do has all its time for this one.
            if peer.confirmed && peer.acked == end {
                peer.progress_at = now;
                peer.sync_gap = self.limits.sync_after;
                peer.sync_at = now + peer.sync_gap;
            }
        }
        self.held[self.end as usize % WINDOW_MAX] = Held { len, before: self.charged };
        self.charged += u64::from(len) + HEADER_BYTES as u64;
        self.end += 1;
        self.end - 1
    }

    /// The next message that nobody needs any more, to be freed by the caller.
    #[inline]
    pub fn release(&mut self) -> Option<u64> {
        if self.first == self.end {
            return None;
        }
        let members = self.peers[..self.places].iter().flatten().filter(|peer| peer.state == State::In);
        let needed = members.map(|peer| peer.acked.sequence).min().unwrap_or(self.end);
        (self.first < needed).then(|| {
            self.first += 1;
            self.first - 1
        })
    }

    /// Holds messages again that were released, down to number `from`, so that peers can join
    /// there; `len` says how long each is. Returns which ones: the caller has their bytes.
    ///
    /// # Panics
    /// If they are more than a window.
    pub fn recall(&mut self, from: u64, len: impl Fn(u64) -> u32) -> core::ops::Range<u64> {
        assert!(self.end.saturating_sub(from) <= WINDOW_MAX as u64, "messages beyond the window");
        let again = from.min(self.first)..self.first;
        for number in again.clone().rev() {
            let len = len(number);
            let behind = self.charge(Position::start_of(number + 1));
            let before = behind.saturating_sub(u64::from(len) + HEADER_BYTES as u64);
            self.held[number as usize % WINDOW_MAX] = Held { len, before };
        }
        self.first = again.start;
        again
    }

    /// A peer has a sink now: it gets what is pushed from here on. Nothing if it is known.
    pub fn join(&mut self, now: MonoTime, index: PeerIndex) {
        self.join_at(now, index, self.end);
    }

    /// A peer has a sink now, and gets messages from number `base` on, which is held: those
    /// that were taken already are of the past to it. Nothing if it is known.
    pub fn join_at(&mut self, now: MonoTime, index: PeerIndex, base: u64) {
        if self.find(index).is_none() {
            self.add(now, index, base, 0);
        }
    }

    /// Sinks that joined later at a peer that is in get messages from number `base` on, which
    /// is held, by recap `number` (above 0; numbers rise). False: one of the peer is under way,
    /// or there are [`RECAPS_MAX`].
    pub fn recap(&mut self, now: MonoTime, index: PeerIndex, base: u64, number: u32) -> bool {
        if !self.can_recap(now, index) || self.find(index).is_none() {
            return false;
        }
        self.add(now, index, base, number);
        self.recaps += 1;
        true
    }

    /// Whether [`recap`](Self::recap) would find room for one to this peer, if it is in.
    #[must_use]
    pub fn can_recap(&self, now: MonoTime, index: PeerIndex) -> bool {
        let burst = Nanos(RECAP_SHARE * self.limits.evict_after.0);
        let is_paid = self.recaps_paid_at.get(index.index()).is_none_or(|paid_at| *paid_at <= now + burst);
        is_paid && self.recaps < RECAPS_MAX && !self.is_recapping(index)
    }

    /// Whether a recap is under way to a peer.
    #[must_use]
    pub fn is_recapping(&self, index: PeerIndex) -> bool {
        self.recaps > 0 && self.find_recap(index, None).is_some()
    }

    fn find_recap(&self, index: PeerIndex, number: Option<u32>) -> Option<usize> {
        let is_it =
            |peer: &Peer| peer.index == index && peer.recap > 0 && number.is_none_or(|number| number == peer.recap);
        self.peers[..self.places].iter().position(|peer| peer.as_ref().is_some_and(is_it))
    }

    /// A recap is over, or nobody can get it any more.
    #[cold]
    fn end_recap(&mut self, now: MonoTime, index: PeerIndex) {
        let Some(recap) = self.find_recap(index, None).and_then(|place| self.peers[place].take()) else { return };
        self.recaps -= 1;
        if let Some(paid_at) = self.recaps_paid_at.get_mut(index.index()) {
            let cost = Nanos(now.since(recap.began_at).0.saturating_mul(RECAP_SHARE));
            *paid_at = (*paid_at).max(now) + cost;
        }
    }

    fn add(&mut self, now: MonoTime, index: PeerIndex, base: u64, recap: u32) {
        let start = Position::start_of(base.clamp(self.first, self.end));
        let Some(place) = self.peers.iter().position(Option::is_none) else { return };
        self.places = self.places.max(place + 1);
        self.peers[place] = Some(Peer {
            index,
            recap,
            state: State::In,
            confirmed: false,
            fresh: true,
            base: start.sequence,
            acked: start,
            past_until: self.end,
            began_at: now,
            cursor: start,
            high: start,
            // Nothing before it knows where it begins.
            limit: start.sequence,
            progress_at: now,
            sync_at: now,
            sync_gap: self.limits.sync_after,
            rewound: None,
        });
    }

    /// Messages taken that a peer has not acknowledged wholly; 0 if it is unknown or out.
    #[must_use]
    pub fn owed_to(&self, index: PeerIndex) -> u64 {
        let peer = self.find(index).and_then(|place| self.peers[place]).filter(|peer| peer.state == State::In);
        peer.map_or(0, |peer| self.end.saturating_sub(peer.acked.sequence.max(peer.base)))
    }

    /// A peer has no sink any more, or is to join anew. What its recaps cost is not forgotten.
    pub fn leave(&mut self, now: MonoTime, index: PeerIndex) {
        if let Some(place) = self.find(index) {
            self.peers[place] = None;
        }
        self.end_recap(now, index);
    }

    /// A peer is gone, or has another life, which owes nothing.
    pub fn forget(&mut self, index: PeerIndex) {
        self.leave(MonoTime(0), index);
        if let Some(paid_at) = self.recaps_paid_at.get_mut(index.index()) {
            *paid_at = MonoTime(0);
        }
    }

    /// The peers, those that were put out included.
    pub fn peers(&self) -> impl Iterator<Item = PeerIndex> {
        self.peers[..self.places].iter().flatten().filter(|peer| peer.recap == 0).map(|peer| peer.index)
    }

    /// Whether a peer is put out; false if it is unknown.
    #[must_use]
    pub fn is_out(&self, index: PeerIndex) -> bool {
        self.find(index).and_then(|place| self.peers[place]).is_some_and(|peer| peer.state == State::Out)
    }

    /// Whether everything taken was acknowledged by every peer that is in.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let end = Position::start_of(self.end);
        let mut members = self.peers[..self.places].iter().flatten().filter(|peer| peer.state == State::In);
        members.all(|peer| peer.confirmed && peer.acked == end)
    }

    /// Whether the passing of time alone may make something due.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.is_settled()
    }

    fn find(&self, index: PeerIndex) -> Option<usize> {
        self.peers[..self.places]
            .iter()
            .position(|peer| peer.is_some_and(|peer| peer.index == index && peer.recap == 0))
    }

    /// Bytes charged for everything before a position that is held, or is the end.
    fn charge(&self, at: Position) -> u64 {
        if at.sequence >= self.end {
            return self.charged;
        }
        self.held[at.sequence as usize % WINDOW_MAX].before + u64::from(at.offset)
    }

    /// The next heartbeat that is due; `None` if there is none. It counts as sent. Whether the
    /// source keeps its values the caller knows.
    pub fn next_sync(&mut self, now: MonoTime) -> Option<(PeerIndex, Sync)> {
        let (token, end, limits) = (self.token, self.end, self.limits);
        let peer =
            self.peers[..self.places].iter_mut().flatten().find(|peer| now >= peer.sync_at && peer.needs_sync(end))?;
        peer.sync_at = now + peer.sync_gap;
        // Who forgot a flow that was silent for long goes on with what it has not had: it cannot
        // have what is before that any more. To others that says nothing new.
        let mut base = peer.base.max(peer.acked.sequence);
        if peer.state == State::Out {
            // What it could not have now is not offered.
            base = end;
        } else {
            peer.sync_gap = Nanos((peer.sync_gap.0 * 2).min(limits.sync_after_max.0));
        }
        let past = if peer.recap > 0 { peer.past_until } else { 0 };
        let sent = if peer.confirmed { peer.cursor } else { Position::start_of(base) };
        Some((peer.index, Sync { token, base, sent, fresh: peer.fresh, keeps: false, recap: peer.recap, past }))
    }

    /// The next frame that may be sent, of at most `payload_max` bytes: peers take turns.
    /// Nothing changes until it is reported as [`sent`](Self::sent).
    #[inline]
    pub fn next_data(&mut self, payload_max: u32) -> Option<Data> {
        if self.recaps > 0
            && let Some(data) = self.next_of_recaps(payload_max)
        {
            return Some(data);
        }
        for step in 0..self.places {
            let place = (self.turn + step) % self.places;
            if self.peers[place].is_some_and(|peer| peer.recap > 0) {
                continue;
            }
            if let Some(data) = self.data_for(place, payload_max) {
                self.turn = place;
                return Some(data);
            }
        }
        None
    }

    /// Recaps go first, or they would never come to where the flow is, and no further than
    /// that: the rest is the flow's.
    #[cold]
    fn next_of_recaps(&self, payload_max: u32) -> Option<Data> {
        (0..self.places).find_map(|place| {
            let recap = self.peers[place].as_ref().filter(|peer| peer.recap > 0)?;
            let flow = self.peers[self.find(recap.index)?].as_ref()?;
            if recap.cursor.sequence < flow.cursor.sequence { self.data_for(place, payload_max) } else { None }
        })
    }

    fn data_for(&self, place: usize, payload_max: u32) -> Option<Data> {
        let peer = self.peers[place].as_ref()?;
        let from = peer.cursor;
        if peer.state == State::Out || from.sequence >= self.end.min(peer.limit) {
            return None;
        }
        let rest = self.held[from.sequence as usize % WINDOW_MAX].len - from.offset;
        let len = if rest <= payload_max { rest } else { payload_max - payload_max % FRAGMENT_UNIT };
        if len == 0 && rest > 0 {
            return None;
        }
        let flight = self.charge(from) - self.charge(peer.acked);
        if flight > 0 && flight + u64::from(len) > u64::from(self.limits.flight_bytes) {
            return None;
        }
        // What a recap brings the receiver marks: to others it may be of now.
        let is_past = peer.recap == 0 && from.sequence < peer.past_until;
        Some(Data { peer: peer.index, from, len, is_repair: from < peer.high, is_past, place })
    }

    /// A frame was sent, or failed in a way that sending again may repair.
    #[inline]
    pub fn sent(&mut self, now: MonoTime, data: &Data) {
        let len = self.held[data.from.sequence as usize % WINDOW_MAX].len;
        let Some(peer) = &mut self.peers[data.place] else { return };
        let end = data.from.offset + data.len;
        peer.cursor = if end >= len {
            Position::start_of(data.from.sequence + 1)
        } else {
            Position { sequence: data.from.sequence, offset: end }
        };
        peer.high = peer.high.max(peer.cursor);
        peer.sync_at = now + peer.sync_gap;
        self.turn = (data.place + 1) % self.places;
    }

    /// An acknowledgement came in. False if it cannot be one: it changes nothing then.
    pub fn on_ack(&mut self, now: MonoTime, from: PeerIndex, ack: &Ack) -> bool {
        let place = if ack.recap == 0 { self.find(from) } else { self.find_recap(from, Some(ack.recap)) };
        let Some(place) = place else { return true };
        let Some(mut peer) = self.peers[place] else { return true };
        if !self.is_possible(&peer, ack) {
            return false;
        }
        if ack.gone {
            self.end_recap(now, from);
            if peer.recap > 0 {
                return true;
            }
            peer.put_out(now, self.end, &self.limits);
            peer.fresh = true;
        } else if ack.next < Position::start_of(peer.base) {
            // It has not heard yet where its part begins.
            peer.sync_at = peer.sync_at.min(now);
        } else if peer.state == State::Out {
            if ack.limit > ack.next.sequence {
                peer.come_back(now, self.end, ack, &self.limits);
            }
        } else {
            peer.acknowledge(now, ack, &self.limits);
        }
        self.peers[place] = Some(peer);
        true
    }

    fn is_possible(&self, peer: &Peer, ack: &Ack) -> bool {
        let next = ack.next;
        if ack.gone || next < Position::start_of(peer.base).max(peer.acked) {
            // Late: what it is about may be forgotten already.
            return true;
        }
        // One that listened all the while may have more than it is offered of the past.
        // A recap may have more than it was sent, of the flow.
        let is_joining = peer.state == State::Out || !peer.confirmed || peer.recap > 0;
        let furthest = if is_joining { Position::start_of(self.end) } else { peer.high };
        let inside = next.offset == 0
            || (next.sequence < self.end && next.offset < self.held[next.sequence as usize % WINDOW_MAX].len);
        next <= furthest && inside
    }

    /// To be called each time before [`give_up_recap`](Self::give_up_recap) and
    /// [`evict`](Self::evict), with what [`Attention::turn`](super::Attention::turn) said: that
    /// time is held against nobody.
    #[inline]
    pub fn look(&mut self, now: MonoTime, missed: Nanos) {
        if missed > self.excused {
            self.excuse(now, Nanos(missed.0 - self.excused.0));
            self.excused = missed;
        }
    }

    #[cold]
    fn excuse(&mut self, now: MonoTime, time: Nanos) {
        for peer in self.peers[..self.places].iter_mut().flatten() {
            peer.progress_at = (peer.progress_at + time).min(now);
            peer.began_at = (peer.began_at + time).min(now);
        }
    }

    /// Puts out one peer that acknowledged nothing new for too long; call it until `None`.
    pub fn evict(&mut self, now: MonoTime) -> Option<PeerIndex> {
        let (end, limits) = (Position::start_of(self.end), self.limits);
        let peer = self.peers[..self.places].iter_mut().flatten().find(|peer| {
            let owes = !peer.confirmed || peer.acked < end;
            peer.recap == 0 && peer.state == State::In && owes && now.since(peer.progress_at) >= limits.evict_after
        })?;
        peer.put_out(now, end.sequence, &limits);
        let index = peer.index;
        self.end_recap(now, index);
        Some(index)
    }

    /// Gives up one recap that stands still, and says whose; the flow goes on there without. Call
    /// it until `None`, before [`evict`](Self::evict).
    pub fn give_up_recap(&mut self, now: MonoTime) -> Option<PeerIndex> {
        if self.recaps == 0 { None } else { self.give_up_stale_recap(now) }
    }

    #[cold]
    fn give_up_stale_recap(&mut self, now: MonoTime) -> Option<PeerIndex> {
        let is_stale = |peer: &&Peer| peer.recap > 0 && now.since(peer.progress_at) >= self.limits.evict_after;
        let index = self.peers[..self.places].iter().flatten().find(is_stale)?.index;
        self.end_recap(now, index);
        Some(index)
    }
}

impl Peer {
    fn needs_sync(&self, end: u64) -> bool {
        let has_all = self.confirmed && self.acked == Position::start_of(end);
        self.state == State::Out || !has_all
    }

    fn put_out(&mut self, now: MonoTime, end: u64, limits: &Limits) {
        self.state = State::Out;
        self.confirmed = false;
        self.base = end;
        self.sync_gap = limits.probe_after;
        self.sync_at = now + self.sync_gap;
    }

    fn come_back(&mut self, now: MonoTime, end: u64, ack: &Ack, limits: &Limits) {
        let start = Position::start_of(end);
        self.state = State::In;
        (self.base, self.acked, self.cursor, self.high) = (end, start, start, start);
        self.confirmed = ack.next == start;
        self.limit = if self.confirmed { ack.limit } else { end };
        self.fresh &= !self.confirmed;
        self.progress_at = now;
        self.sync_gap = limits.sync_after;
        self.sync_at = now;
        self.rewound = None;
    }

    fn acknowledge(&mut self, now: MonoTime, ack: &Ack, limits: &Limits) {
        if !self.confirmed {
            (self.confirmed, self.fresh) = (true, false);
            self.progress_at = now;
        }
        if ack.next < self.acked {
            return;
        }
        if ack.next > self.acked {
            self.acked = ack.next;
            self.progress_at = now;
            self.sync_gap = limits.sync_after;
            self.sync_at = now + self.sync_gap;
        }
        self.limit = ack.limit;
        self.cursor = self.cursor.max(self.acked);
        self.high = self.high.max(self.acked);
        // The receiver limits its reports; this is for those that the network repeats.
        let just_done =
            self.rewound.is_some_and(|(to, at)| to == self.acked && now.since(at) < Nanos(limits.repair_after.0 / 2));
        if ack.nak && self.acked < self.cursor && !just_done {
            self.cursor = self.acked;
            self.rewound = Some((self.acked, now));
        }
    }
}
