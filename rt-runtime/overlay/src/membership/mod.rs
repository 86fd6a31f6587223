//! Membership: which peers live, and which of them want what.
//!
//! The state machine of one runtime. It sends each peer a heartbeat every
//! [`Limits::heartbeat`], its changes of interest (JOIN, LEAVE) until they are
//! acknowledged, and every [`Limits::digest`] a fingerprint of all its interests, with
//! which the peer finds out when its copy is wrong and asks for the whole set. Every
//! frame acknowledges what was applied, and names the lives of both sides, so that
//! nothing meant for an earlier life counts. Formats: [`insane_wire::overlay`].
//!
//! Nothing is decided by how often or in what order frames come: each says how things
//! stand, so lost, repeated, late and reordered frames only cost time. Even a forged
//! frame is forgotten when the true peer goes on speaking: a false life once nothing was
//! heard of it for [`Limits::forget_after`], a false version at the third digest.
//!
//! For a time in which this runtime itself was not run no peer is taken for dead: silence is
//! measured by a clock that stands still then ([`crate::seen`]).
//!
//! Bounds: `peers` peers, [`Limits::interests_max`] own interests, and at most twice as
//! many of each peer while its set is copied anew; [`Limits::leaves_max`] remembered
//! LEAVEs. Events queue until drained: [`Membership::next_event`] is to be called until
//! `None` after each `on_frame`, `poll` and `set_…`, of which each adds at most
//! `2 * interests_max` and one for each peer.

mod copy;
mod own;

use crate::seen::SeenClock;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use copy::Copy;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, PeerIndex, StreamKey};
use insane_wire::overlay::{self, BODY_BYTES_MAX, Body, Change, Changes, Head, Interest};
use own::{OwnInterests, Set};

/// Frames of a peer in a row that must say that it is astray before it is told to begin
/// anew; one alone may have been overtaken by better news.
const ASTRAY_MIN: u8 = 2;

/// Bounds and times of the overlay. Peers need not agree on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Interests of this runtime, and of each peer.
    pub interests_max: usize,
    /// LEAVEs remembered for peers that have not acknowledged them.
    pub leaves_max: usize,
    /// Time between heartbeats.
    pub heartbeat: Nanos,
    /// A peer that was not heard of for this long is down.
    pub down_after: Nanos,
    /// A peer that was not heard of for this long may come back as anybody: another host,
    /// or with a lower incarnation.
    pub forget_after: Nanos,
    /// Time between digests.
    pub digest: Nanos,
    /// First pause before an unacknowledged change is sent again; doubles each time.
    pub resend_min: Nanos,
    /// Longest such pause.
    pub resend_max: Nanos,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            interests_max: 4096,
            leaves_max: 4096,
            heartbeat: Nanos::from_millis(100),
            down_after: Nanos::from_millis(500),
            forget_after: Nanos::from_secs(10),
            digest: Nanos::from_secs(1),
            resend_min: Nanos::from_millis(20),
            resend_max: Nanos::from_millis(640),
        }
    }
}

/// What the control plane has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A peer is heard; nothing of its interest is known yet.
    PeerUp {
        /// Which.
        peer: PeerIndex,
        /// The name it gives itself.
        host: HostId,
        /// Its life.
        incarnation: Incarnation,
    },
    /// A peer is not heard any more: all its interest is gone.
    PeerDown {
        /// Which.
        peer: PeerIndex,
    },
    /// A peer that was up has restarted: all its interest is gone, and it is up.
    PeerIncarnation {
        /// Which.
        peer: PeerIndex,
        /// Its name, unchanged.
        host: HostId,
        /// Its new life.
        incarnation: Incarnation,
    },
    /// A peer has, or no longer has, sinks. It concerns a local stream only if both the
    /// key and the check are that stream's.
    RemoteInterest {
        /// Which peer.
        peer: PeerIndex,
        /// In what.
        interest: Interest,
        /// Whether it came or went.
        on: bool,
    },
    /// A peer's stream has the same key as a local one, but is another.
    Collision {
        /// Which peer.
        peer: PeerIndex,
        /// The key of both.
        stream: StreamKey,
    },
    /// A peer's address sends frames in the name of this runtime or of another peer; they
    /// are ignored. Reported once until the peer sends others.
    DuplicateHostId {
        /// Whose address.
        peer: PeerIndex,
        /// The name that is used twice.
        host: HostId,
    },
    /// Interests of a peer did not fit; it gets none of those messages.
    InterestRefused {
        /// Which peer.
        peer: PeerIndex,
        /// How many of the frame just received.
        count: u32,
    },
}

impl Event {
    /// The peer that it is about.
    #[must_use]
    pub const fn peer(&self) -> PeerIndex {
        match self {
            Event::PeerUp { peer, .. }
            | Event::PeerDown { peer }
            | Event::PeerIncarnation { peer, .. }
            | Event::RemoteInterest { peer, .. }
            | Event::Collision { peer, .. }
            | Event::DuplicateHostId { peer, .. }
            | Event::InterestRefused { peer, .. } => *peer,
        }
    }
}

/// What membership counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames that no rule accepts.
    pub malformed: u64,
    /// Frames of an earlier life of a peer.
    pub stale: u64,
    /// Frames in another name than the peer at that address has.
    pub foreign: u64,
    /// Frames in the name of this runtime, or of another peer.
    pub duplicate_host: u64,
    /// Copies of a peer's interests that were made anew because they were wrong or too old.
    pub resyncs: u64,
    /// Changes sent again for want of an acknowledgement, in frames.
    pub resends: u64,
    /// Interests of peers that did not fit.
    pub interests_refused: u64,
}

/// Why an interest or offer of this runtime was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LocalError {
    /// Another local stream has the same key.
    #[error("another stream of this runtime has the same wire name")]
    Collision,
    /// No room.
    #[error("the runtime has as many interests as the overlay carries")]
    Full,
}

/// A peer, as reports show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerStatus {
    /// The name and life it was last known by.
    pub life: Option<(HostId, Incarnation)>,
    /// Whether it is heard.
    pub up: bool,
    /// When it was last heard: as far back as was seen of the time since.
    pub heard_at: MonoTime,
    /// Whether its interests are completely known.
    pub complete: bool,
    /// Whether it has acknowledged all of this runtime's interests.
    pub acknowledged: bool,
}

/// A peer's attempt to copy this runtime's interests, as it last reported it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Served {
    attempt: u32,
    applied: u64,
}

/// The beginning of such an attempt: LEAVEs that the history lacked even then are
/// nothing that it could miss.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Begun {
    attempt: u32,
    floor: u64,
}

struct Peer {
    /// There is no peer of this number.
    absent: bool,
    life: Option<(HostId, Incarnation)>,
    up: bool,
    heard_at: MonoTime,
    duplicate_reported: bool,
    /// What the peer wants.
    copy: Copy,
    /// What the peer knows of what this runtime wants.
    served: Option<Served>,
    begun: Option<Begun>,
    /// How often in a row the peer's word was that it is astray.
    astray: u8,
    /// When to send changes (again), and the pause after that.
    resend_at: MonoTime,
    resend_pause: Nanos,
    /// The version that changes were last sent up to, in the attempt served.
    sent: u64,
    heartbeat_at: MonoTime,
    digest_at: MonoTime,
    /// Something to acknowledge: send a frame at once.
    reply: bool,
}

/// A local stream: its check, and what uses it.
struct LocalStream {
    check: u64,
    offered: bool,
    interests: usize,
}

/// The membership state machine of one runtime. See the module.
pub struct Membership {
    host: HostId,
    incarnation: Incarnation,
    limits: Limits,
    clock: SeenClock,
    own: OwnInterests,
    local: BTreeMap<StreamKey, LocalStream>,
    peers: Vec<Peer>,
    /// The peer to look at first in the next poll, so that each gets its turn.
    cursor: usize,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Membership {
    /// The state machine of runtime `host` in its life `incarnation`, with `peers` peers.
    ///
    /// # Panics
    /// If `incarnation` is 0, which stands for "unknown", or `peers` exceeds `u16`.
    #[must_use]
    pub fn new(host: HostId, incarnation: Incarnation, peers: usize, limits: Limits) -> Self {
        assert!(incarnation.0 != 0, "an incarnation is not 0");
        assert!(peers <= usize::from(u16::MAX), "a peer index has 16 bits");
        Membership {
            host,
            incarnation,
            limits,
            clock: SeenClock::new(),
            own: OwnInterests::new(limits.interests_max, limits.leaves_max),
            local: BTreeMap::new(),
            peers: (0..peers).map(|_| Peer::new(limits.resend_min)).collect(),
            cursor: 0,
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// There is a peer of this number from now on; it is spoken to at the next poll. Nothing
    /// if there is one already.
    pub fn add_peer(&mut self, peer: PeerIndex) {
        while self.peers.len() <= peer.index() {
            self.peers.push(Peer::absent(self.limits.resend_min));
        }
        let place = &mut self.peers[peer.index()];
        if place.absent {
            *place = Peer::new(self.limits.resend_min);
        }
    }

    /// There is no peer of this number any more: it is neither heard nor spoken to, and no
    /// event names it, not even to say so. The caller drops its interest itself.
    pub fn remove_peer(&mut self, peer: PeerIndex) {
        let Some(place) = self.peers.get_mut(peer.index()) else { return };
        *place = Peer::absent(self.limits.resend_min);
        self.events.retain(|event| event.peer() != peer);
        self.forget_leaves();
    }

    /// This runtime has, or no longer has, a sink for `interest`. Repetition has no effect:
    /// the caller counts its sinks.
    ///
    /// # Errors
    /// Refused, and nothing has changed.
    pub fn set_interest(&mut self, interest: Interest, on: bool) -> Result<(), LocalError> {
        if on {
            self.check_local(interest.stream, interest.check)?;
        }
        match self.own.set(Change { interest, on }) {
            Set::Unchanged => return Ok(()),
            Set::Full => return Err(LocalError::Full),
            Set::Changed => {}
        }
        self.change_local(interest.stream, interest.check, |local| {
            local.interests = if on { local.interests + 1 } else { local.interests.saturating_sub(1) };
        });
        for peer in &mut self.peers {
            peer.hurry(self.limits.resend_min);
        }
        Ok(())
    }

    /// This runtime has, or no longer has, a source on a stream. Nothing is sent: it only
    /// serves to notice a peer's stream of the same key.
    ///
    /// # Errors
    /// Refused, and nothing has changed.
    pub fn set_offer(&mut self, stream: StreamKey, check: u64, on: bool) -> Result<(), LocalError> {
        if on {
            self.check_local(stream, check)?;
        } else if self.local.get(&stream).is_none_or(|local| local.check != check) {
            return Ok(());
        }
        self.change_local(stream, check, |local| local.offered = on);
        Ok(())
    }

    /// Takes the body of an overlay frame that bore the address of `from`.
    pub fn on_frame(&mut self, now: MonoTime, from: PeerIndex, body: &[u8]) {
        let now = self.clock.look(now);
        let Ok((head, body)) = overlay::decode(body) else {
            self.counters.malformed += 1;
            return;
        };
        let for_this_life = head.to == self.incarnation;
        if self.peers.get(from.index()).is_none_or(|peer| peer.absent) {
            self.counters.malformed += 1;
            return;
        }
        if !self.accept_life(from, &head) {
            return;
        }
        let peer = &mut self.peers[from.index()];
        peer.heard_at = peer.heard_at.max(now);
        peer.duplicate_reported = false;
        if !for_this_life {
            // It has not heard of this life yet.
            peer.reply = true;
            return;
        }
        self.take_acknowledgement(from, &head);
        if head.serves == self.peers[from.index()].copy.attempt() {
            self.take_body(from, &head, body);
        }
    }

    /// A peer is spoken to by another way from now on: what it may not have got is sent again
    /// at once.
    pub fn speak_anew(&mut self, peer: PeerIndex) {
        if let Some(peer) = self.peers.get_mut(peer.index()) {
            peer.reply = true;
            peer.hurry(self.limits.resend_min);
        }
    }

    /// Writes the next frame that is due into `into`; returns for whom, and its length.
    /// Call it until `None`. Peers not heard of for too long go down here.
    pub fn poll(&mut self, now: MonoTime, into: &mut [u8; BODY_BYTES_MAX]) -> Option<(PeerIndex, usize)> {
        let now = self.clock.look(now);
        self.expire_peers(now);
        for step in 0..self.peers.len() {
            let at = (self.cursor + step) % self.peers.len();
            if let Some(len) = self.poll_peer(now, at, into) {
                self.cursor = at + 1;
                return Some((PeerIndex(at as u16), len));
            }
        }
        self.clock.want(self.due());
        None
    }

    /// When [`Membership::poll`] has something to do next; may lie in the past.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        self.due().map(|due| self.clock.of(due))
    }

    /// The same by the clock of what was seen.
    fn due(&self) -> Option<MonoTime> {
        let present = self.peers.iter().filter(|peer| !peer.absent);
        present.map(|peer| peer.next_deadline(&self.own, &self.limits)).min()
    }

    /// What happened, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The peers that have a sink for `interest`.
    pub fn peers_with(&self, interest: Interest) -> impl Iterator<Item = PeerIndex> {
        let with = self.peers.iter().enumerate().filter(move |(_, peer)| peer.copy.contains(&interest));
        with.map(|(at, _)| PeerIndex(at as u16))
    }

    /// All that a peer wants, as far as it is known.
    pub fn interests_of(&self, peer: PeerIndex) -> impl Iterator<Item = Interest> {
        self.peers.get(peer.index()).into_iter().flat_map(|peer| peer.copy.iter().copied())
    }

    /// The state of a peer; `None` if there is none of this number.
    #[must_use]
    pub fn peer(&self, peer: PeerIndex) -> Option<PeerStatus> {
        let peer = self.peers.get(peer.index()).filter(|peer| !peer.absent)?;
        Some(PeerStatus {
            life: peer.life,
            up: peer.up,
            heard_at: self.clock.of(peer.heard_at),
            complete: peer.copy.is_complete(),
            acknowledged: peer.served.is_some_and(|served| served.applied == self.own.version()),
        })
    }

    fn check_local(&self, stream: StreamKey, check: u64) -> Result<(), LocalError> {
        match self.local.get(&stream) {
            Some(local) if local.check != check => Err(LocalError::Collision),
            _ => Ok(()),
        }
    }

    /// Changes what uses a local stream. A stream that was not used before is compared with
    /// what the peers want.
    fn change_local(&mut self, stream: StreamKey, check: u64, change: impl FnOnce(&mut LocalStream)) {
        let is_new = !self.local.contains_key(&stream);
        let local = self.local.entry(stream).or_insert(LocalStream { check, offered: false, interests: 0 });
        change(local);
        if !local.offered && local.interests == 0 {
            self.local.remove(&stream);
        } else if is_new {
            for (at, peer) in self.peers.iter().enumerate() {
                if peer.copy.iter().any(|theirs| theirs.stream == stream && theirs.check != check) {
                    self.events.push_back(Event::Collision { peer: PeerIndex(at as u16), stream });
                }
            }
        }
    }

    /// Whether the frame is of a life of the peer that counts. Takes note of new lives.
    fn accept_life(&mut self, from: PeerIndex, head: &Head) -> bool {
        let (host, incarnation) = (head.host, head.incarnation);
        let is_of = |peer: &Peer| peer.up && peer.life.is_some_and(|(name, _)| name == host);
        let taken = self.peers.iter().enumerate().any(|(at, peer)| at != from.index() && is_of(peer));
        if host == self.host || taken {
            self.report_duplicate(from, host);
            return false;
        }
        let peer = &mut self.peers[from.index()];
        let known = match peer.life {
            Some((name, life)) if name == host && incarnation < life => {
                self.counters.stale += 1;
                return false;
            }
            Some((name, _)) if name != host && peer.up => {
                self.counters.foreign += 1;
                return false;
            }
            Some((name, life)) => name == host && life == incarnation,
            None => false,
        };
        if !known {
            peer.life = Some((host, incarnation));
            peer.forget_served();
            peer.copy.clear();
            peer.hurry(self.limits.resend_min);
        }
        if !peer.up {
            peer.up = true;
            self.events.push_back(Event::PeerUp { peer: from, host, incarnation });
        } else if !known {
            self.events.push_back(Event::PeerIncarnation { peer: from, host, incarnation });
        }
        true
    }

    fn report_duplicate(&mut self, from: PeerIndex, host: HostId) {
        self.counters.duplicate_host += 1;
        let peer = &mut self.peers[from.index()];
        if !peer.duplicate_reported {
            peer.duplicate_reported = true;
            self.events.push_back(Event::DuplicateHostId { peer: from, host });
        }
    }

    /// What the peer says it has applied of this runtime's interests. The latest word
    /// counts, even if it is less than before: a frame that was overtaken costs a
    /// repetition, but a false one does no lasting harm.
    fn take_acknowledgement(&mut self, from: PeerIndex, head: &Head) {
        if head.follows == 0 {
            return;
        }
        let peer = &mut self.peers[from.index()];
        let served = Served { attempt: head.follows, applied: head.applied };
        let progress = match peer.served {
            Some(before) => before.attempt != served.attempt || before.applied < served.applied,
            None => true,
        };
        if peer.served.is_none_or(|before| before.attempt != served.attempt) {
            peer.sent = 0;
            if served.applied == 0 {
                peer.begun = Some(Begun { attempt: served.attempt, floor: self.own.floor() });
            }
        }
        peer.served = Some(served);
        peer.astray = if peer.is_astray(&self.own) { peer.astray.saturating_add(1) } else { 0 };
        if progress {
            peer.hurry(self.limits.resend_min);
        }
        if served.applied == self.own.version() {
            self.forget_leaves();
        }
    }

    /// Forgets the LEAVEs that every peer that is up has applied. One that is down may
    /// need them, but it is cheaper to let it copy the whole set when it is back.
    fn forget_leaves(&mut self) {
        let served = self.peers.iter().filter(|peer| peer.up).filter_map(|peer| peer.served);
        let applied_by_all = served.map(|served| served.applied).min().unwrap_or(0);
        self.own.forget_leaves(applied_by_all);
    }

    /// A digest or changes, meant for the present attempt.
    fn take_body(&mut self, from: PeerIndex, head: &Head, body: Body<'_>) {
        let renew = match body {
            Body::Heartbeat => false,
            Body::Digest(digest) => {
                self.peers[from.index()].copy.contradicts(head.version, digest, self.limits.interests_max)
            }
            Body::Delta { base, to, changes } => {
                self.apply(from, (base, to, head.version), changes);
                false
            }
        };
        if renew || head.restart {
            self.counters.resyncs += 1;
            let peer = &mut self.peers[from.index()];
            peer.copy.renew();
            peer.reply = true;
        }
    }

    fn apply(&mut self, from: PeerIndex, versions: (u64, u64, u64), changes: Changes<'_>) {
        let peer = &mut self.peers[from.index()];
        peer.reply = true;
        let (local, events) = (&self.local, &mut self.events);
        let applied = peer.copy.apply(versions, changes, self.limits.interests_max, |interest, on| {
            events.push_back(Event::RemoteInterest { peer: from, interest, on });
            let collides = local.get(&interest.stream).is_some_and(|local| local.check != interest.check);
            if on && collides {
                events.push_back(Event::Collision { peer: from, stream: interest.stream });
            }
        });
        if applied.refused > 0 {
            self.counters.interests_refused += u64::from(applied.refused);
            self.events.push_back(Event::InterestRefused { peer: from, count: applied.refused });
        }
    }

    fn expire_peers(&mut self, now: MonoTime) {
        for (at, peer) in self.peers.iter_mut().enumerate() {
            let silent = now.since(peer.heard_at);
            if peer.up && silent >= self.limits.down_after {
                peer.up = false;
                peer.copy.clear();
                self.events.push_back(Event::PeerDown { peer: PeerIndex(at as u16) });
            }
            if !peer.up && silent >= self.limits.forget_after {
                peer.life = None;
                peer.forget_served();
            }
        }
    }

    fn poll_peer(&mut self, now: MonoTime, at: usize, into: &mut [u8; BODY_BYTES_MAX]) -> Option<usize> {
        let peer = &mut self.peers[at];
        if peer.absent {
            return None;
        }
        let head = Head {
            host: self.host,
            incarnation: self.incarnation,
            to: peer.life.map_or(Incarnation(0), |(_, incarnation)| incarnation),
            version: self.own.version(),
            applied: peer.copy.applied(),
            serves: peer.served.map_or(0, |served| served.attempt),
            follows: peer.copy.attempt(),
            restart: peer.astray >= ASTRAY_MIN && peer.is_astray(&self.own),
        };
        let len = if let Some(base) = peer.unacknowledged(&self.own).filter(|_| now >= peer.resend_at) {
            let (to, changes) = self.own.page(base);
            self.counters.resends += u64::from(to <= peer.sent);
            peer.sent = to;
            peer.resend_at = now + peer.resend_pause;
            peer.resend_pause = Nanos(peer.resend_pause.0.saturating_mul(2)).min(self.limits.resend_max);
            overlay::encode_delta(&head, base, to, changes, into)
        } else if peer.up && now >= peer.digest_at {
            peer.digest_at = now + self.limits.digest;
            overlay::encode_digest(&head, self.own.digest(), into)
        } else if peer.reply || now >= peer.heartbeat_at {
            overlay::encode_heartbeat(&head, into)
        } else {
            return None;
        };
        peer.reply = false;
        peer.heartbeat_at = now + self.limits.heartbeat;
        Some(len)
    }
}

impl Peer {
    const fn new(resend_pause: Nanos) -> Self {
        Peer {
            absent: false,
            life: None,
            up: false,
            heard_at: MonoTime(0),
            duplicate_reported: false,
            copy: Copy::new(),
            served: None,
            begun: None,
            astray: 0,
            resend_at: MonoTime(0),
            resend_pause,
            sent: 0,
            heartbeat_at: MonoTime(0),
            digest_at: MonoTime(0),
            reply: false,
        }
    }

    const fn absent(resend_pause: Nanos) -> Self {
        let mut peer = Peer::new(resend_pause);
        peer.absent = true;
        peer
    }

    /// Changes are sent at the next poll, and the pauses begin anew.
    const fn hurry(&mut self, resend_min: Nanos) {
        self.resend_at = MonoTime(0);
        self.resend_pause = resend_min;
    }

    /// Whether no changes lead from what the peer has applied to the present state: it is
    /// behind a LEAVE that is no longer in the history, or was told of a version that
    /// never was.
    fn is_astray(&self, own: &OwnInterests) -> bool {
        let Some(Served { attempt, applied }) = self.served else { return false };
        let floor_at_start = self.begun.filter(|begun| begun.attempt == attempt).map_or(0, |begun| begun.floor);
        let misses_a_leave = applied > 0 && applied < own.floor() && floor_at_start < own.floor();
        misses_a_leave || applied > own.version()
    }

    const fn forget_served(&mut self) {
        self.served = None;
        self.begun = None;
        self.astray = 0;
        self.sent = 0;
    }

    /// The version from which on the peer is to be sent changes; `None` if none.
    fn unacknowledged(&self, own: &OwnInterests) -> Option<u64> {
        let served = self.served.filter(|served| self.up && served.applied < own.version())?;
        if self.is_astray(own) { None } else { Some(served.applied) }
    }

    fn next_deadline(&self, own: &OwnInterests, limits: &Limits) -> MonoTime {
        if self.reply {
            return MonoTime(0);
        }
        let mut deadline = self.heartbeat_at;
        if self.unacknowledged(own).is_some() {
            deadline = deadline.min(self.resend_at);
        }
        if self.up {
            deadline = deadline.min(self.digest_at).min(self.heard_at + limits.down_after);
        }
        deadline
    }
}
