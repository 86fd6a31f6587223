//! Discovery: who becomes a peer by what is told of hosts, and who does not.
//!
//! A back end hears facts of other hosts (who they are, and by which address each of their
//! links is reached) and passes each on when it is *fresh*: the host it is about has said
//! something since the last time. This machine decides: a host that is found is to be added
//! as a peer, moved to other addresses, removed when it has neither been heard of nor answered
//! for [`Rules::forget_after`], or refused, with a [`Reason`]. Whoever steps it carries decisions
//! out one at a time and says how it went ([`Discovery::done`], [`Discovery::failed`]).
//!
//! Facts are claims of whoever can reach the back end. So
//! - a host that is not where [`Rules::allow`] says is none;
//! - the configuration wins: nobody takes the name or an address of a configured peer;
//! - who was there first stays: while a host is heard of, another one of its identifier, name
//!   or address is refused. A host that comes back elsewhere takes its place when the old one
//!   has been silent for [`Limits::settle_after`];
//! - no clock of another is looked at: incarnations are compared for equality only.
//!
//! Links of two hosts belong together if they have the same name, technology and family of
//! addresses.
//!
//! Bounds: 64 hosts, [`Limits::refused_max`] refused ones, [`Limits::facts_per_second`] facts;
//! what is beyond is counted and dropped. A fact is kept only if its host is.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use insane_core::limits::{NAME_BYTES_MAX, PEERS_MAX};
use insane_core::{HostId, Incarnation, MonoTime, Nanos, Network};

/// Links of one host that are looked at.
pub const LINKS_MAX: usize = 16;

/// Bounds and times of the machine itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// After so long without a word from where a host was, it may be elsewhere.
    pub settle_after: Nanos,
    /// After so long a decision that could not be carried out is made again.
    pub retry_after: Nanos,
    /// Facts looked at in a second.
    pub facts_per_second: u32,
    /// Refused hosts that are remembered; the one refused longest ago makes room.
    pub refused_max: usize,
    /// Events in the queue; others are left out.
    pub events_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            settle_after: Nanos::from_secs(5),
            retry_after: Nanos::from_secs(5),
            facts_per_second: 1000,
            refused_max: 32,
            events_max: 32,
        }
    }
}

/// What the configuration says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Where hosts have to be.
    pub allow: Vec<Network>,
    /// Peers by discovery, at most.
    pub peers_max: usize,
    /// After so long without a word a host is forgotten.
    pub forget_after: Nanos,
}

impl Rules {
    fn admit(&self, address: SocketAddr) -> bool {
        self.allow.iter().any(|network| network.contains(address.ip()))
    }
}

/// A link of this host, or what is told of another's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkFact {
    /// Its name in the host's configuration.
    pub name: String,
    /// What carries it: `udp`.
    pub technology: String,
    /// By which address others reach it.
    pub address: SocketAddr,
}

impl LinkFact {
    fn joins(&self, other: &LinkFact) -> bool {
        self.name == other.name
            && self.technology == other.technology
            && self.address.is_ipv4() == other.address.is_ipv4()
    }
}

/// What is told of a host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    /// Who it is.
    pub host: HostId,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Its name in reports.
    pub name: String,
    /// Where its gossip comes from, as it says.
    pub origin: SocketAddr,
    /// Its links.
    pub links: Vec<LinkFact>,
}

/// A host that is, or is to be, a peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// Who it is.
    pub host: HostId,
    /// Its name in reports.
    pub name: String,
    /// Its address by each own link that leads there, by the link's place.
    pub addresses: Vec<(usize, SocketAddr)>,
}

impl Peer {
    fn is_near(&self, other: &[(usize, SocketAddr)]) -> bool {
        let near =
            |(link, address): &(usize, SocketAddr)| other.iter().any(|(l, a)| l == link && overlap(*a, *address));
        self.addresses.iter().any(near)
    }
}

/// A peer of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configured {
    /// Its name.
    pub name: String,
    /// Its address by each own link that leads there, by the link's place.
    pub addresses: Vec<(usize, SocketAddr)>,
}

/// Each link uses its port and the next one.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    a.ip() == b.ip() && a.port().abs_diff(b.port()) <= 1
}

/// What is to be done about the peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// There is one more.
    Add(Peer),
    /// One is elsewhere, or is called otherwise: it leaves, and comes anew.
    Move(Peer),
    /// One has not been heard of for too long, or is outside new rules.
    Remove(HostId),
}

impl Decision {
    /// About which host.
    #[must_use]
    pub const fn host(&self) -> HostId {
        match self {
            Decision::Add(peer) | Decision::Move(peer) => peer.host,
            Decision::Remove(host) => *host,
        }
    }
}

/// Why a host is no peer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// What is told of it makes no sense.
    Malformed,
    /// It is told of in another format, of this number.
    OtherFormat(u32),
    /// It is where the rules allow nobody.
    Outside,
    /// It has the identifier of this host.
    OwnHost,
    /// Another one of its identifier is heard of elsewhere.
    TwinHost,
    /// It has the name of this host, or of another that was found.
    NameTaken,
    /// It has an address of this host, or of another that was found.
    AddressTaken,
    /// It has the name or an address of a configured peer.
    Configured,
    /// No link of it and of this host belong together.
    NoLink,
    /// There are as many as may be.
    Full,
}

impl Reason {
    /// Every one, in the order of the counters, which count all other formats as one.
    pub const ALL: [Reason; 10] = [
        Reason::Malformed,
        Reason::OtherFormat(0),
        Reason::Outside,
        Reason::OwnHost,
        Reason::TwinHost,
        Reason::NameTaken,
        Reason::AddressTaken,
        Reason::Configured,
        Reason::NoLink,
        Reason::Full,
    ];

    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::OtherFormat(_) => "other_format",
            Reason::Outside => "outside",
            Reason::OwnHost => "own_host",
            Reason::TwinHost => "twin_host",
            Reason::NameTaken => "name_taken",
            Reason::AddressTaken => "address_taken",
            Reason::Configured => "configured",
            Reason::NoLink => "no_link",
            Reason::Full => "full",
        }
    }
}

/// In words, with what to do about it.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Malformed => "what is told of it makes no sense",
            Reason::OtherFormat(format) => {
                return write!(
                    f,
                    "it tells of itself in format {format}, another than this runtime does: run one build on both hosts"
                );
            }
            Reason::Outside => "an address of it is outside `discovery.gossip.allow`",
            Reason::OwnHost => "it has the identifier of this host; give one of them another `host.id` or name",
            Reason::TwinHost => {
                "another host of its identifier is heard of elsewhere; give one of them another `host.id` or name"
            }
            Reason::NameTaken => "its name is that of this host or of another one that was found",
            Reason::AddressTaken => "an address of it is that of this host or of another one that was found",
            Reason::Configured => "a peer of the configuration has its name or an address of it, and goes first",
            Reason::NoLink => "no link of it has the name, technology and family of addresses of a link here",
            Reason::Full => "there are `discovery.gossip.peers_max` of them already",
        })
    }
}

/// A host that was refused, as reports show it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// Who it says it is; 0: it is not known.
    pub host: HostId,
    /// Its name, as it says; empty where that makes no sense.
    pub name: String,
    /// Where what is told of it comes from.
    pub origin: SocketAddr,
    /// Why.
    pub reason: Reason,
    /// How often.
    pub times: u64,
    /// When last.
    pub last_at: MonoTime,
}

/// For the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A host is refused for the first time.
    Refused {
        /// Who.
        host: HostId,
        /// Its name.
        name: String,
        /// Where from.
        origin: SocketAddr,
        /// Why.
        reason: Reason,
    },
    /// A configured peer has taken the place of a found one.
    Displaced {
        /// Who was found.
        host: HostId,
        /// Its name.
        name: String,
    },
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Facts that came.
    pub facts: u64,
    /// Of those, beyond what is looked at in a second.
    pub dropped: u64,
    /// Of those, refused, in the order of [`Reason::ALL`].
    pub refused: [u64; Reason::ALL.len()],
    /// Peers added, peers moved, peers removed.
    pub changes: [u64; 3],
    /// Decisions that could not be carried out.
    pub failed: u64,
}

/// A host that was found.
#[derive(Debug)]
struct Found {
    wanted: Peer,
    incarnation: Incarnation,
    origin: SocketAddr,
    /// As which it is a peer now.
    applied: Option<Peer>,
    heard_at: MonoTime,
    is_gone: bool,
    /// No decision about it before.
    not_before: MonoTime,
}

impl Found {
    fn decision(&self) -> Option<Decision> {
        match &self.applied {
            Some(_) if self.is_gone => Some(Decision::Remove(self.wanted.host)),
            None if !self.is_gone => Some(Decision::Add(self.wanted.clone())),
            Some(applied) if *applied != self.wanted => Some(Decision::Move(self.wanted.clone())),
            _ => None,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Discovery {
    host: HostId,
    name: String,
    links: Vec<LinkFact>,
    rules: Rules,
    limits: Limits,
    configured: Vec<Configured>,
    found: Vec<Found>,
    /// Being carried out.
    pending: Option<Decision>,
    refused: Vec<Refused>,
    events: VecDeque<Event>,
    counters: Counters,
    /// Facts looked at since.
    looked: (MonoTime, u32),
}

impl Discovery {
    /// This host, its links as others are told of them, and the rules.
    #[must_use]
    pub fn new(host: HostId, name: String, links: Vec<LinkFact>, rules: Rules, limits: Limits) -> Self {
        Discovery {
            host,
            name,
            links,
            rules,
            limits,
            configured: Vec::new(),
            found: Vec::new(),
            pending: None,
            refused: Vec::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            looked: (MonoTime(0), 0),
        }
    }

    /// Other rules. Who is outside of them leaves; who is beyond a smaller number stays.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        for found in &mut self.found {
            let addresses = || found.wanted.addresses.iter().map(|(_, address)| *address);
            let is_inside = addresses().chain([found.origin]).all(|address| self.rules.admit(address));
            found.is_gone |= !is_inside;
        }
        self.sweep();
    }

    /// The peers of the configuration. Who was found and is like one of them is a peer no
    /// more: whoever put the configured one in its place has taken it away.
    pub fn set_configured(&mut self, configured: Vec<Configured>) {
        self.configured = configured;
        let (configured, events, most) = (&self.configured, &mut self.events, self.limits.events_max);
        self.found.retain(|found| {
            let is_like = |peer: &Peer| configured.iter().any(|other| is_configured(other, peer));
            let displaced = is_like(&found.wanted) || found.applied.as_ref().is_some_and(is_like);
            if displaced && events.len() < most {
                events.push_back(Event::Displaced { host: found.wanted.host, name: found.wanted.name.clone() });
            }
            !displaced
        });
    }

    /// Something fresh was told of a host.
    pub fn on_fact(&mut self, now: MonoTime, fact: &Fact) {
        if !self.may_look(now) {
            return;
        }
        let verdict = self.judge(now, fact);
        if let Err(reason) = verdict {
            self.refuse(now, (fact.host, &fact.name, fact.origin), reason);
        }
    }

    /// A host answers as a peer, where it is one: that is a sign of life, too. So a peer whose
    /// messages pass is not lost with the back end.
    pub fn on_answer(&mut self, now: MonoTime, host: HostId) {
        let is_it = |found: &&mut Found| found.wanted.host == host && found.applied.as_ref() == Some(&found.wanted);
        if let Some(found) = self.found.iter_mut().find(is_it) {
            found.heard_at = now;
        }
    }

    /// What was told of somebody could not be read.
    pub fn on_malformed(&mut self, now: MonoTime, origin: SocketAddr) {
        self.refuse_unread(now, origin, Reason::Malformed);
    }

    /// Somebody tells of himself in another format, of this number.
    pub fn on_other_format(&mut self, now: MonoTime, origin: SocketAddr, format: u32) {
        self.refuse_unread(now, origin, Reason::OtherFormat(format));
    }

    fn refuse_unread(&mut self, now: MonoTime, origin: SocketAddr, reason: Reason) {
        if self.may_look(now) {
            self.refuse(now, (HostId(0), "", origin), reason);
        }
    }

    /// Somebody who is not allowed has tried to tell something.
    pub fn on_stranger(&mut self, now: MonoTime, origin: SocketAddr) {
        if self.may_look(now) {
            self.refuse(now, (HostId(0), "", origin), Reason::Outside);
        }
    }

    fn may_look(&mut self, now: MonoTime) -> bool {
        self.counters.facts += 1;
        if now.since(self.looked.0) >= Nanos::from_secs(1) {
            self.looked = (now, 0);
        }
        self.looked.1 = self.looked.1.saturating_add(1);
        let may = self.looked.1 <= self.limits.facts_per_second;
        self.counters.dropped += u64::from(!may);
        may
    }

    fn judge(&mut self, now: MonoTime, fact: &Fact) -> Result<(), Reason> {
        check_form(fact)?;
        if fact.host == self.host {
            return Err(Reason::OwnHost);
        }
        let peer = self.reach(fact)?;
        if self.configured.iter().any(|configured| is_configured(configured, &peer)) {
            return Err(Reason::Configured);
        }
        if peer.name == self.name {
            return Err(Reason::NameTaken);
        }
        let own: Vec<_> = self.links.iter().enumerate().map(|(at, link)| (at, link.address)).collect();
        if peer.is_near(&own) {
            return Err(Reason::AddressTaken);
        }
        let at = self.found.iter().position(|found| found.wanted.host == fact.host);
        if let Some(found) = at.map(|at| &self.found[at])
            && found.wanted != peer
            && now.since(found.heard_at) < self.limits.settle_after
        {
            return Err(Reason::TwinHost);
        }
        // A name and an address are free when who had them is no peer by them any more.
        let others = || self.found.iter().filter(|found| found.wanted.host != fact.host);
        let taken = || others().flat_map(|found| found.applied.iter().chain([&found.wanted]));
        if taken().any(|other| other.name == peer.name) {
            return Err(Reason::NameTaken);
        }
        if taken().any(|other| peer.is_near(&other.addresses)) {
            return Err(Reason::AddressTaken);
        }
        let (incarnation, origin) = (fact.incarnation, fact.origin);
        match at {
            Some(at) => {
                let found = &mut self.found[at];
                (found.wanted, found.incarnation, found.origin) = (peer, incarnation, origin);
                (found.heard_at, found.is_gone) = (now, false);
            }
            None if self.found.len() >= self.rules.peers_max.min(PEERS_MAX) => return Err(Reason::Full),
            None => self.found.push(Found {
                wanted: peer,
                incarnation,
                origin,
                applied: None,
                heard_at: now,
                is_gone: false,
                not_before: now,
            }),
        }
        Ok(())
    }

    /// By which addresses the host is reached.
    fn reach(&self, fact: &Fact) -> Result<Peer, Reason> {
        if !self.rules.admit(fact.origin) {
            return Err(Reason::Outside);
        }
        let mut addresses = Vec::new();
        for (at, own) in self.links.iter().enumerate() {
            let Some(theirs) = fact.links.iter().find(|theirs| own.joins(theirs)) else { continue };
            if !self.rules.admit(theirs.address) {
                return Err(Reason::Outside);
            }
            addresses.push((at, theirs.address));
        }
        if addresses.is_empty() {
            return Err(Reason::NoLink);
        }
        Ok(Peer { host: fact.host, name: fact.name.clone(), addresses })
    }

    fn refuse(&mut self, now: MonoTime, (host, name, origin): (HostId, &str, SocketAddr), reason: Reason) {
        let at = Reason::ALL.iter().position(|other| other.name() == reason.name()).unwrap_or(0);
        self.counters.refused[at] += 1;
        let is_it = |other: &&mut Refused| other.host == host && other.origin == origin && other.reason == reason;
        if let Some(known) = self.refused.iter_mut().find(is_it) {
            known.times += 1;
            known.last_at = now;
            return;
        }
        let name: String = if name_fits(name) { name.into() } else { String::new() };
        if self.events.len() < self.limits.events_max {
            self.events.push_back(Event::Refused { host, name: name.clone(), origin, reason });
        }
        if self.refused.len() >= self.limits.refused_max {
            let oldest = self.refused.iter().enumerate().min_by_key(|(_, refused)| refused.last_at).map(|(at, _)| at);
            oldest.map(|at| self.refused.swap_remove(at));
        }
        self.refused.push(Refused { host, name, origin, reason, times: 1, last_at: now });
    }

    /// What is to be done now; nothing while something is being carried out.
    pub fn poll(&mut self, now: MonoTime) -> Option<Decision> {
        if self.pending.is_some() {
            return None;
        }
        for found in &mut self.found {
            found.is_gone |= now.since(found.heard_at) >= self.rules.forget_after;
        }
        self.sweep();
        let due = self.found.iter().filter(|found| now >= found.not_before);
        // Who leaves makes room and gives its addresses back.
        let decision =
            due.filter_map(Found::decision).max_by_key(|decision| matches!(decision, Decision::Remove(_)))?;
        self.pending = Some(decision.clone());
        Some(decision)
    }

    /// What [`poll`](Self::poll) said has been done.
    pub fn done(&mut self) {
        let Some(decision) = self.pending.take() else { return };
        let kind = match decision {
            Decision::Add(_) => 0,
            Decision::Move(_) => 1,
            Decision::Remove(_) => 2,
        };
        self.counters.changes[kind] += 1;
        let host = decision.host();
        if let Some(found) = self.found.iter_mut().find(|found| found.wanted.host == host) {
            found.applied = match decision {
                Decision::Add(peer) | Decision::Move(peer) => Some(peer),
                Decision::Remove(_) => None,
            };
        }
        self.sweep();
    }

    /// It could not be done, and everything is as before. It is tried again later.
    pub fn failed(&mut self, now: MonoTime) {
        let Some(decision) = self.pending.take() else { return };
        self.counters.failed += 1;
        let host = decision.host();
        if let Some(found) = self.found.iter_mut().find(|found| found.wanted.host == host) {
            found.not_before = now + self.limits.retry_after;
        }
    }

    /// Lets go of who is gone and no peer.
    fn sweep(&mut self) {
        let pending = self.pending.as_ref().map(Decision::host);
        self.found.retain(|found| !found.is_gone || found.applied.is_some() || pending == Some(found.wanted.host));
    }

    /// When something is due, if ever.
    #[must_use]
    pub fn next_deadline(&self) -> Option<MonoTime> {
        if self.pending.is_some() {
            return None;
        }
        let due = |found: &Found| match found.decision() {
            Some(_) => found.not_before,
            None => found.heard_at + self.rules.forget_after,
        };
        self.found.iter().map(due).min()
    }

    /// What is to be logged.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Everybody who was found: who it is, which life, and when it was heard of last.
    pub fn found(&self) -> impl Iterator<Item = (&Peer, Incarnation, MonoTime)> {
        self.found.iter().map(|found| (&found.wanted, found.incarnation, found.heard_at))
    }

    /// Those who were refused lately.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// What was counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }
}

fn is_configured(configured: &Configured, peer: &Peer) -> bool {
    configured.name == peer.name || peer.is_near(&configured.addresses)
}

fn name_fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

fn check_form(fact: &Fact) -> Result<(), Reason> {
    let is_place = |address: SocketAddr| {
        let ip = address.ip();
        let broadcast = ip == core::net::IpAddr::V4(core::net::Ipv4Addr::BROADCAST);
        !(ip.is_unspecified() || ip.is_multicast() || broadcast || address.port() == 0)
    };
    let is_link = |link: &LinkFact| {
        name_fits(&link.name) && is_place(link.address) && link.address.port() < u16::MAX && link.technology.len() <= 16
    };
    let is_fine = fact.host != HostId(0)
        && name_fits(&fact.name)
        && is_place(fact.origin)
        && fact.links.len() <= LINKS_MAX
        && fact.links.iter().all(is_link);
    if is_fine { Ok(()) } else { Err(Reason::Malformed) }
}
