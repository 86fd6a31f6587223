//! Who hears the group of a link: which peers may be served by one frame to the group.
//!
//! A switch may filter multicast, a peer may not be a member, or may be one at another
//! interface. So nobody is believed by configuration: a runtime sends a *probe* to the group
//! every [`Limits::probe_every`], and each peer that gets it answers to the prober alone,
//! over the way that it has anyway. A peer *hears* the group once it has answered
//! [`Limits::confirm`] probes in a row. It is *deaf* again when [`Limits::missed_max`] probes
//! in a row stayed without an answer, and then has to answer [`Limits::confirm_again`] in a
//! row, so that a path that loses much is left alone. Format: [`insane_wire::group`].
//!
//! Invariants:
//! - who hears is a fact about one life of a peer, and about this life of this runtime: an
//!   answer of any other, or to any other, changes nothing;
//! - a peer that never answered is never served by the group;
//! - each message goes to a peer by the group or to the peer alone, never by neither: the
//!   set of those that hear is looked at once, when a message begins, and everybody
//!   interested who is not in it gets a frame of its own;
//! - a peer can lie about itself only: who says that it hears, and does not, misses frames.
//!
//! From the moment the group stops reaching a peer until that is noticed, at most
//! [`deaf_after`] passes; messages of that time are lost for the peer, and counted there.
//! A probe or answer that is lost by itself costs nothing until `missed_max` in a row are.
//!
//! Nothing that comes in causes more than one frame to leave, and a [`Responder`] answers
//! each peer at most once in [`ANSWER_EVERY`].
//!
//! Bounds: a [`Prober`] has a place for each peer. Events queue until drained, at most one
//! for each peer between two calls.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use insane_core::limits::PEERS_MAX;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, PeerIndex};
use insane_wire::group::{GROUP_BYTES, GroupBody};

/// Least time between two answers to one peer.
pub const ANSWER_EVERY: Nanos = Nanos::from_millis(50);

/// Times and bounds. Peers need not agree on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Time between probes; not below [`ANSWER_EVERY`].
    pub probe_every: Nanos,
    /// A peer hears once it has answered so many in a row.
    pub confirm: u32,
    /// As `confirm`, for a peer that was deaf after it had heard.
    pub confirm_again: u32,
    /// A peer is deaf when so many in a row stayed without an answer.
    pub missed_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { probe_every: Nanos::from_millis(200), confirm: 2, confirm_again: 10, missed_max: 3 }
    }
}

/// The longest time from the last probe that reached a peer until the peer is known to be
/// deaf, if the prober is polled in time.
#[must_use]
pub const fn deaf_after(limits: &Limits) -> Nanos {
    Nanos(limits.probe_every.0.saturating_mul(limits.missed_max as u64 + 1))
}

/// What the datapath has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The peer may be served by the group.
    Hears(PeerIndex),
    /// It may no longer.
    Deaf(PeerIndex),
}

/// A peer of the link.
#[derive(Clone, Copy, Debug)]
struct Member {
    hears: bool,
    /// It has been deaf after it had heard.
    has_failed: bool,
    /// The newest probe that it answered; before the first, the newest when it became known.
    answered: u64,
    /// Probes in a row that it answered up to that one.
    streak: u32,
}

/// The state machine for the group of one link. See the module.
#[derive(Debug)]
pub struct Prober {
    own: (HostId, Incarnation),
    limits: Limits,
    /// There is nothing to win with fewer peers, and no probe is sent.
    peers_min: usize,
    members: Box<[Option<Member>; PEERS_MAX]>,
    /// The newest probe.
    number: u64,
    next_at: MonoTime,
    events: VecDeque<Event>,
}

impl Prober {
    /// A prober of runtime `own` for a link without peers; it probes while there are
    /// `peers_min` of them.
    #[must_use]
    pub fn new(own: (HostId, Incarnation), peers_min: usize, limits: Limits) -> Self {
        Prober {
            own,
            limits,
            peers_min,
            members: Box::new([None; PEERS_MAX]),
            number: 0,
            next_at: MonoTime(0),
            events: VecDeque::new(),
        }
    }

    /// The link reaches one more peer.
    pub fn add(&mut self, peer: PeerIndex) {
        let answered = self.number;
        if let Some(place) = self.members.get_mut(peer.index()) {
            *place = Some(Member { hears: false, has_failed: false, answered, streak: 0 });
        }
    }

    /// It no longer does.
    pub fn remove(&mut self, peer: PeerIndex) {
        let old = self.members.get_mut(peer.index()).and_then(Option::take);
        if old.is_some_and(|old| old.hears) {
            self.events.push_back(Event::Deaf(peer));
        }
    }

    /// The peer has another life: nothing is known of it.
    pub fn forget(&mut self, peer: PeerIndex) {
        if self.is_member(peer) {
            self.remove(peer);
            self.add(peer);
        }
    }

    /// Whether the link reaches the peer.
    #[must_use]
    pub fn is_member(&self, peer: PeerIndex) -> bool {
        self.members.get(peer.index()).is_some_and(Option::is_some)
    }

    /// Whether the peer may be served by the group.
    #[must_use]
    pub fn hears(&self, peer: PeerIndex) -> bool {
        self.members.get(peer.index()).copied().flatten().is_some_and(|member| member.hears)
    }

    /// Everybody who may.
    pub fn hearing(&self) -> impl Iterator<Item = PeerIndex> + '_ {
        (0..PEERS_MAX as u16).map(PeerIndex).filter(|peer| self.hears(*peer))
    }

    /// Takes an answer that came from a peer. `life` is what membership knows of the peer.
    /// Returns whether it was one to a recent probe.
    pub fn on_answer(&mut self, peer: PeerIndex, life: Option<(HostId, Incarnation)>, answer: &GroupBody) -> bool {
        let (limits, newest) = (self.limits, self.number);
        let is_honest = answer.to == Some(self.own.1) && life == Some((answer.host, answer.incarnation));
        let Some(Some(member)) = self.members.get_mut(peer.index()) else { return false };
        let is_recent = answer.number <= newest && newest - answer.number < u64::from(limits.missed_max);
        if !is_honest || !is_recent || answer.number <= member.answered {
            return false;
        }
        let follows = answer.number == member.answered + 1;
        member.streak = if follows { member.streak.saturating_add(1) } else { 1 };
        member.answered = answer.number;
        let needed = if member.has_failed { limits.confirm_again } else { limits.confirm };
        if !member.hears && member.streak >= needed {
            member.hears = true;
            self.events.push_back(Event::Hears(peer));
        }
        true
    }

    /// Writes the next probe, if one is due, into `into`; it goes to the group. Who missed
    /// too many becomes deaf here.
    pub fn poll(&mut self, now: MonoTime, into: &mut [u8; GROUP_BYTES]) -> bool {
        if !self.is_probing() || self.next_at > now {
            return false;
        }
        for (at, member) in self.members.iter_mut().enumerate() {
            let Some(member) = member else { continue };
            if self.number - member.answered < u64::from(self.limits.missed_max) {
                continue;
            }
            member.streak = 0;
            if member.hears {
                (member.hears, member.has_failed) = (false, true);
                self.events.push_back(Event::Deaf(PeerIndex(at as u16)));
            }
        }
        self.number += 1;
        self.next_at = now + self.limits.probe_every;
        let (host, incarnation) = self.own;
        *into = GroupBody { host, incarnation, to: None, number: self.number }.encode();
        true
    }

    /// When [`Prober::poll`] has something to do next; may lie in the past. `None`: never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        self.is_probing().then_some(self.next_at)
    }

    /// What changed, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// One that hears goes on being asked, so that it can be found deaf.
    fn is_probing(&self) -> bool {
        let members = || self.members.iter().flatten();
        members().count() >= self.peers_min || members().any(|member| member.hears)
    }
}

/// Answers the probes of all peers. See the module.
#[derive(Debug)]
pub struct Responder {
    own: (HostId, Incarnation),
    answered_at: Box<[Option<MonoTime>; PEERS_MAX]>,
}

impl Responder {
    /// The one of runtime `own`.
    #[must_use]
    pub fn new(own: (HostId, Incarnation)) -> Self {
        Responder { own, answered_at: Box::new([None; PEERS_MAX]) }
    }

    /// Takes a probe that came from a peer; the answer, if it gets one. A peer whose life is
    /// not known yet gets none: it asks again.
    pub fn on_probe(
        &mut self,
        now: MonoTime,
        peer: PeerIndex,
        life: Option<(HostId, Incarnation)>,
        probe: &GroupBody,
    ) -> Option<[u8; GROUP_BYTES]> {
        let last = self.answered_at.get_mut(peer.index())?;
        let is_honest = probe.to.is_none() && life == Some((probe.host, probe.incarnation));
        if !is_honest || last.is_some_and(|last| now.since(last) < ANSWER_EVERY) {
            return None;
        }
        *last = Some(now);
        let (host, incarnation) = self.own;
        Some(GroupBody { host, incarnation, to: Some(probe.incarnation), number: probe.number }.encode())
    }
}
