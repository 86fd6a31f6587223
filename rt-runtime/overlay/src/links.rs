//! Liveness of links: by which of several ways a peer is reached, and how long a round trip
//! takes.
//!
//! A *way* is one link of this runtime to one peer; runtimes are often joined by several,
//! each of another datapath. By each way a heartbeat goes every [`Limits::heartbeat`]. It
//! echoes the stamp of the newest one that came from there, so that each side knows whether
//! frames pass in both directions: a way is *up* while heartbeats come in and echoes of
//! one's own come back. Format: [`insane_wire::link`].
//!
//! The overlay *speaks* to a peer by one way that is up: the first of its ways, until that
//! fails; then the first that is up. It changes only when the one it uses fails, so a link
//! that comes and goes is left alone. While none is up nobody is to be asked, and what the
//! configuration prefers is used.
//!
//! A failed way is noticed sooner than a silent peer ([`crate::membership::Limits::down_after`]),
//! so that membership does not take the peer for dead while another way is up. A peer with
//! one way only has nothing to choose: its heartbeats are rare and serve the round trip.
//!
//! For a time in which this runtime itself was not run no way is blamed: all is measured by a clock
//! that stands still then ([`crate::seen`]), and so are the stamps.
//!
//! Nothing is decided by clocks of others, and nothing that comes in causes more than one
//! frame to leave: a flood costs [`Limits::frames_max`] looks a heartbeat, and the rest is
//! counted ([`Counters::flooded`]).
//!
//! Bounds: 152 bytes a way. Events queue until drained: [`Monitor::next_event`] is to be
//! called until `None` after each `on_frame` and `poll`; each adds at most two for each way.

use crate::seen::SeenClock;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, PeerIndex};
use insane_wire::link::{LINK_BYTES, LinkBeat};

/// Times and bounds. Peers need not agree on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Time between heartbeats by one of several ways.
    pub heartbeat: Nanos,
    /// Time between heartbeats by the only way to a peer.
    pub heartbeat_lone: Nanos,
    /// A way by which nothing came for so many heartbeats is down.
    pub missed_max: u32,
    /// Frames by one way that are looked at in the time of one heartbeat.
    pub frames_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            heartbeat: Nanos::from_millis(50),
            heartbeat_lone: Nanos::from_millis(500),
            missed_max: 4,
            frames_max: 8,
        }
    }
}

/// What the control plane has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Frames pass by this way, in both directions.
    Up {
        /// To which peer.
        peer: PeerIndex,
        /// Which of its ways.
        way: usize,
    },
    /// They no longer do.
    Down {
        /// To which peer.
        peer: PeerIndex,
        /// Which of its ways.
        way: usize,
    },
    /// The overlay speaks by another way from now on.
    Speaks {
        /// To which peer.
        peer: PeerIndex,
        /// By which of its ways.
        way: usize,
    },
}

/// What the monitor counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Frames that no rule accepts, or by no way that is known.
    pub malformed: u64,
    /// Frames in another name, or of another life, than the peer's.
    pub foreign: u64,
    /// Frames that were overtaken, or came before.
    pub stale: u64,
    /// Frames beyond what is looked at.
    pub flooded: u64,
}

/// A way, as reports show it. Instants lie as far back as was seen of the time since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WayStatus {
    /// Since when it is up; `None`: it is not.
    pub up_since: Option<MonoTime>,
    /// Since when it is down; `None`: it is up, or never was.
    pub down_since: Option<MonoTime>,
    /// When a heartbeat last came by it.
    pub heard_at: Option<MonoTime>,
    /// Estimate of the round trip, the waking of both control planes included; `None` while
    /// there is none.
    pub rtt: Option<Nanos>,
    /// How often it went down.
    pub downs: u64,
    /// Whether the overlay speaks by it.
    pub speaks: bool,
}

/// The newest heartbeat that came by a way.
#[derive(Clone, Copy, Debug)]
struct Heard {
    stamp: u64,
    at: MonoTime,
}

#[derive(Clone, Copy, Debug)]
struct Way {
    life: Option<(HostId, Incarnation)>,
    heard: Option<Heard>,
    /// The newest of one's own stamps that came back.
    echoed: Option<MonoTime>,
    /// Stamps up to here count no more.
    failed_at: MonoTime,
    rtt: Option<Nanos>,
    up_since: Option<MonoTime>,
    send_at: MonoTime,
    downs: u64,
    /// When it last went down, if it ever did.
    down_at: MonoTime,
    /// Frames looked at since then.
    looks: u32,
    looks_since: MonoTime,
}

#[derive(Debug)]
struct Peer {
    ways: Box<[Way]>,
    speaks: Option<usize>,
}

impl Peer {
    fn new(ways: usize) -> Self {
        Peer { ways: (0..ways).map(|_| Way::new()).collect(), speaks: None }
    }
}

/// The state machine of one runtime, for all its peers. See the module.
#[derive(Debug)]
pub struct Monitor {
    host: HostId,
    incarnation: Incarnation,
    limits: Limits,
    clock: SeenClock,
    peers: Vec<Peer>,
    /// The peer to look at first in the next poll.
    cursor: usize,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Monitor {
    /// The state machine of runtime `host` in its life `incarnation`; `ways` says for each
    /// peer by how many ways it is reached.
    #[must_use]
    pub fn new(host: HostId, incarnation: Incarnation, ways: impl IntoIterator<Item = usize>, limits: Limits) -> Self {
        Monitor {
            host,
            incarnation,
            limits,
            clock: SeenClock::new(),
            peers: ways.into_iter().map(Peer::new).collect(),
            cursor: 0,
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// From now on a peer is reached by so many ways, of which nothing is known yet; by none
    /// if it is no peer any more.
    pub fn set_ways(&mut self, peer: PeerIndex, ways: usize) {
        while self.peers.len() <= peer.index() {
            self.peers.push(Peer::new(0));
        }
        self.peers[peer.index()] = Peer::new(ways);
    }

    /// Takes a body that [`insane_wire::link::is_link_beat`] accepts, and that came by a way
    /// of a peer. `life` is what membership knows of the peer: a heartbeat of any other is
    /// ignored.
    pub fn on_frame(
        &mut self,
        now: MonoTime,
        peer: PeerIndex,
        way: usize,
        life: Option<(HostId, Incarnation)>,
        body: &[u8],
    ) {
        let now = self.clock.look(now);
        let own = (self.host, self.incarnation);
        let limits = self.limits;
        let Some(entry) = self.peers.get_mut(peer.index()) else {
            self.counters.malformed += 1;
            return;
        };
        let period = period(&limits, entry.ways.len());
        let Some(state) = entry.ways.get_mut(way) else {
            self.counters.malformed += 1;
            return;
        };
        if !state.may_look(now, period, limits.frames_max) {
            self.counters.flooded += 1;
            return;
        }
        let Ok(beat) = LinkBeat::decode(body) else {
            self.counters.malformed += 1;
            return;
        };
        let from = (beat.host, beat.incarnation);
        if beat.host == own.0 || life.is_some_and(|life| life != from) {
            self.counters.foreign += 1;
            return;
        }
        let silent = silence(&limits, period);
        if !state.take(now, own.1, (from, life.is_some()), &beat, silent) {
            self.counters.stale += 1;
            return;
        }
        self.judge(now, peer.index(), way);
        self.choose(peer.index());
    }

    /// A way cannot work: what it runs on is gone. It is down at once, and up again when a
    /// heartbeat that is sent from now on has come back.
    pub fn fail(&mut self, now: MonoTime, peer: PeerIndex, way: usize) {
        let now = self.clock.look(now);
        let Some(state) = self.peers.get_mut(peer.index()).and_then(|entry| entry.ways.get_mut(way)) else { return };
        if state.up_since.is_some() {
            state.echoed = None;
            state.failed_at = now;
            self.judge(now, peer.index(), way);
            self.choose(peer.index());
        }
    }

    /// Writes the next heartbeat that is due into `into`; returns for whom and by which way.
    /// Call it until `None`. Ways that failed go down here.
    pub fn poll(&mut self, now: MonoTime, into: &mut [u8; LINK_BYTES]) -> Option<(PeerIndex, usize)> {
        let now = self.clock.look(now);
        for step in 0..self.peers.len() {
            let at = (self.cursor + step) % self.peers.len();
            for way in 0..self.peers[at].ways.len() {
                self.judge(now, at, way);
            }
            self.choose(at);
            let peer = &mut self.peers[at];
            let period = period(&self.limits, peer.ways.len());
            let Some(way) = peer.ways.iter().position(|way| way.send_at <= now) else { continue };
            let state = &mut peer.ways[way];
            state.send_at = now + period;
            let (echo, held) = state.heard.map_or((0, Nanos::ZERO), |heard| (heard.stamp, now.since(heard.at)));
            let beat = LinkBeat {
                host: self.host,
                incarnation: self.incarnation,
                to: state.life.map_or(Incarnation(0), |(_, incarnation)| incarnation),
                stamp: now.0.max(1),
                echo,
                held,
            };
            *into = beat.encode();
            self.cursor = at;
            return Some((PeerIndex(at as u16), way));
        }
        self.clock.want(self.due());
        None
    }

    /// When [`Monitor::poll`] has something to do next; may lie in the past. `None`: never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        self.due().map(|due| self.clock.of(due))
    }

    /// The same by the clock of what was seen.
    fn due(&self) -> Option<MonoTime> {
        let of_peer = |peer: &Peer| {
            let period = period(&self.limits, peer.ways.len());
            let of_way = |way: &Way| {
                let fails = way.up_since.and_then(|_| way.fails_at(period, &self.limits));
                fails.map_or(way.send_at, |fails| fails.min(way.send_at))
            };
            peer.ways.iter().map(of_way).min()
        };
        self.peers.iter().filter_map(of_peer).min()
    }

    /// What happened, oldest first.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The way by which the overlay speaks to a peer; `None`: none is up.
    #[must_use]
    pub fn speaks_by(&self, peer: PeerIndex) -> Option<usize> {
        self.peers.get(peer.index())?.speaks
    }

    /// The state of a way; `None` if there is no such one.
    #[must_use]
    pub fn way(&self, peer: PeerIndex, way: usize) -> Option<WayStatus> {
        let entry = self.peers.get(peer.index())?;
        let Way { up_since, heard, rtt, downs, down_at, .. } = *entry.ways.get(way)?;
        Some(WayStatus {
            up_since: up_since.map(|since| self.clock.of(since)),
            down_since: (up_since.is_none() && downs > 0).then_some(self.clock.of(down_at)),
            heard_at: heard.map(|heard| self.clock.of(heard.at)),
            rtt: rtt.filter(|_| up_since.is_some()),
            downs,
            speaks: entry.speaks == Some(way),
        })
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Takes note of a way that came up or failed.
    fn judge(&mut self, now: MonoTime, at: usize, way: usize) {
        let entry = &mut self.peers[at];
        let period = period(&self.limits, entry.ways.len());
        let state = &mut entry.ways[way];
        let passes = state.fails_at(period, &self.limits).is_some_and(|fails| now < fails);
        let peer = PeerIndex(at as u16);
        match (state.up_since, passes) {
            (None, true) => {
                state.up_since = Some(now);
                self.events.push_back(Event::Up { peer, way });
            }
            (Some(_), false) => {
                state.up_since = None;
                state.downs += 1;
                state.down_at = now;
                self.events.push_back(Event::Down { peer, way });
            }
            _ => {}
        }
    }

    /// Speaks by another way if the present one is not up.
    fn choose(&mut self, at: usize) {
        let entry = &mut self.peers[at];
        let is_up = |way: usize| entry.ways[way].up_since.is_some();
        if entry.speaks.is_some_and(is_up) {
            return;
        }
        let chosen = (0..entry.ways.len()).find(|way| is_up(*way));
        if let Some(way) = chosen {
            self.events.push_back(Event::Speaks { peer: PeerIndex(at as u16), way });
        }
        entry.speaks = chosen;
    }
}

const fn period(limits: &Limits, ways: usize) -> Nanos {
    if ways > 1 { limits.heartbeat } else { limits.heartbeat_lone }
}

/// A way by which nothing came for this long is down.
const fn silence(limits: &Limits, period: Nanos) -> Nanos {
    Nanos(period.0.saturating_mul(limits.missed_max as u64))
}

impl Way {
    const fn new() -> Self {
        Way {
            life: None,
            heard: None,
            echoed: None,
            failed_at: MonoTime(0),
            rtt: None,
            up_since: None,
            send_at: MonoTime(0),
            downs: 0,
            down_at: MonoTime(0),
            looks: 0,
            looks_since: MonoTime(0),
        }
    }

    fn may_look(&mut self, now: MonoTime, period: Nanos, frames_max: u32) -> bool {
        if now.since(self.looks_since) >= period {
            (self.looks, self.looks_since) = (0, now);
        }
        self.looks = self.looks.saturating_add(1);
        self.looks <= frames_max
    }

    /// When the way fails unless more comes; `None`: it has not been up.
    fn fails_at(&self, period: Nanos, limits: &Limits) -> Option<MonoTime> {
        let silent = silence(limits, period);
        // One's own stamp waits for the other's next heartbeat, and is then as old again
        // until the one after that.
        let unheard = Nanos(silent.0.saturating_add(period.0.saturating_mul(2)));
        Some((self.heard?.at + silent).min(self.echoed? + unheard))
    }

    /// Takes a heartbeat; false if it is old. A stamp or life that was forged counts until
    /// nothing came for `silent`, or membership knows better.
    fn take(
        &mut self,
        now: MonoTime,
        own: Incarnation,
        (from, is_confirmed): ((HostId, Incarnation), bool),
        beat: &LinkBeat,
        silent: Nanos,
    ) -> bool {
        let is_known = self.life == Some(from);
        let is_recent = self.heard.is_some_and(|heard| now.since(heard.at) < silent);
        let is_older = |life: (HostId, Incarnation)| life.0 == from.0 && from.1 < life.1;
        let is_ghost = !is_confirmed && is_recent && self.life.is_some_and(is_older);
        let is_stale = is_known && is_recent && self.heard.is_some_and(|heard| beat.stamp <= heard.stamp);
        if is_stale || is_ghost {
            return false;
        }
        if !is_known {
            (self.life, self.echoed, self.rtt) = (Some(from), None, None);
            // The other side is new: let it know at once that it is heard.
            self.send_at = now;
        }
        self.heard = Some(Heard { stamp: beat.stamp, at: now });
        let stamp = MonoTime(beat.echo);
        let is_own = beat.to == own && beat.echo != 0 && stamp <= now;
        let is_newer = stamp > self.failed_at && self.echoed.is_none_or(|newest| stamp > newest);
        if is_own && is_newer && beat.held <= now.since(stamp) {
            self.echoed = Some(stamp);
            let sample = Nanos(now.since(stamp).0 - beat.held.0);
            // The smoothing of RFC 6298: an eighth of the way to each new sample.
            self.rtt = Some(self.rtt.map_or(sample, |rtt| Nanos(rtt.0 - rtt.0 / 8 + sample.0 / 8)));
        }
        true
    }
}

const _: () = assert!(size_of::<Way>() <= 152);
