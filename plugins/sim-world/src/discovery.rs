//! Many hosts that find each other by gossip: the production's [`Discovery`] on each, over a
//! simple epidemic of heartbeats in place of a back end.
//!
//! Hosts live in cells of up to 50. All gossip with all; the rules of a host allow its own cell
//! only. Every virtual second each host shows a sign of life and tells three others (or a
//! seed) all it knows; a fifth of that is lost. Then comes trouble, one kind after the other:
//!
//! | from | what |
//! |---|---|
//! | 0 s | all start, some hosts later, knowing two seeds |
//! | 60 s | the network falls apart in two halves, for 80 s |
//! | 140 s | it is whole again |
//! | 220 s | a fifth of the hosts restarts with other addresses, some with clocks a year back |
//! | 300 s | forged facts, garbage, and a second host of an identifier, for 60 s |
//! | 360 s | rest |
//!
//! At the end of each it is checked, with knowledge of the whole, that each host has exactly
//! the peers it should have, where they are. In every second: none outside its cell, none
//! twice, not oneself, no more than allowed.

use crate::random::Random;
use insane_core::{HostId, Incarnation, MonoTime, Nanos};
use insane_overlay::discovery::{Decision, Discovery, Fact, Limits, LinkFact, Peer, Reason, Rules};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

const CELL: usize = 50;
const FORGET_AFTER: Nanos = Nanos::from_secs(30);
/// Of each host, more than its cell has.
const PEERS_MAX: usize = 60;
/// Whom a host tells in a second.
const TELLS: usize = 3;
/// Lost of a thousand.
const LOSS: u64 = 200;
const YEAR: u64 = 365 * 24 * 3600 * 1_000_000_000;

/// What to run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiscoveryConfig {
    /// Everything is drawn from it.
    pub seed: u64,
    /// 4 at least.
    pub hosts: usize,
    /// The network stays apart: a checker has to notice.
    pub never_heals: bool,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DiscoveryOutcome {
    /// Rules that were broken, at most some.
    pub violations: Vec<String>,
    /// Peers added, moved, removed, over all hosts.
    pub changes: [u64; 3],
    /// Facts refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Facts beyond what is looked at.
    pub dropped: u64,
    /// Looks of the checkers.
    pub looks: u64,
}

/// One life of a host, as gossip knows it.
#[derive(Clone, Debug)]
struct Node {
    fact: Fact,
    /// Which host it is; `None`: a forged one.
    host: Option<usize>,
}

struct Host {
    machine: Discovery,
    /// As it carried decisions out.
    peers: BTreeMap<HostId, Peer>,
    /// The newest heartbeat of each node; 0: it was never heard of.
    heartbeats: Vec<u64>,
    /// Its own node.
    node: usize,
    /// Silent before that second.
    starts_at: u64,
    /// Part of its address.
    place: u8,
}

/// A world.
struct World {
    random: Random,
    nodes: Vec<Node>,
    hosts: Vec<Host>,
    second: u64,
    outcome: DiscoveryOutcome,
}

/// Runs one; aloud: says what comes.
#[must_use]
pub fn run(config: DiscoveryConfig, aloud: bool) -> DiscoveryOutcome {
    let mut world = World::new(config);
    let say = |what: &str| {
        if aloud {
            println!("  {what}");
        }
    };
    say("all start");
    world.go(60, |_, _| true);
    world.check_all("all started", |_, _| true);
    say("the network falls apart");
    let is_left = |host: usize| host.is_multiple_of(2);
    world.go(140, |a, b| is_left(a) == is_left(b));
    world.check_all("it fell apart", |a, b| is_left(a) == is_left(b));
    say("it is whole again");
    world.go(220, |a, b| !config.never_heals || is_left(a) == is_left(b));
    world.check_all("it was whole again", |_, _| true);
    say("some restart elsewhere");
    world.restart_some();
    world.go(300, |_, _| true);
    world.check_all("some restarted elsewhere", |_, _| true);
    say("forged facts");
    let twin = world.forge();
    world.go(360, |_, _| true);
    world.check_twin(twin);
    say("rest");
    world.silence_forged();
    world.go(430, |_, _| true);
    world.check_all("forged facts stopped", |_, _| true);
    world.sum_up();
    world.outcome
}

fn address(host: usize, place: u8, port: u16) -> SocketAddr {
    let (cell, at) = (host / CELL, host % CELL);
    SocketAddr::new(Ipv4Addr::new(10, cell as u8, place, at as u8 + 1).into(), port)
}

fn id(host: usize) -> HostId {
    HostId(host as u64 + 1)
}

fn fact(host: usize, place: u8, life: u64) -> Fact {
    let link = |name: &str, technology: &str, port| LinkFact {
        name: name.into(),
        technology: technology.into(),
        address: address(host, place, port),
    };
    Fact {
        host: id(host),
        incarnation: Incarnation(life),
        name: format!("host-{host}"),
        origin: address(host, place, 7100),
        links: vec![link("net", "udp", 7400), link("spare", "tcp", 7500)],
    }
}

impl World {
    fn new(config: DiscoveryConfig) -> World {
        let mut random = Random::new(config.seed);
        let nodes = (0..config.hosts).map(|host| Node { fact: fact(host, 0, 2 * YEAR), host: Some(host) }).collect();
        let hosts = (0..config.hosts).map(|host| Host {
            machine: machine(host, 0),
            peers: BTreeMap::new(),
            heartbeats: vec![0; config.hosts],
            node: host,
            // The seeds are there at once, others within 20 s.
            starts_at: if host < 2 { 0 } else { random.below(20) },
            place: 0,
        });
        let hosts = hosts.collect();
        World { random, nodes, hosts, second: 0, outcome: DiscoveryOutcome::default() }
    }

    fn now(&self) -> MonoTime {
        MonoTime((1000 + self.second) * 1_000_000_000)
    }

    /// Goes on up to a second; `joins` says who hears whom.
    fn go(&mut self, until: u64, joins: impl Fn(usize, usize) -> bool) {
        while self.second < until {
            self.gossip(&joins);
            self.check_bounds();
            self.second += 1;
        }
    }

    fn lives(&self, host: usize) -> bool {
        self.second >= self.hosts[host].starts_at
    }

    fn gossip(&mut self, joins: &impl Fn(usize, usize) -> bool) {
        let before: Vec<Vec<u64>> = self.hosts.iter().map(|host| host.heartbeats.clone()).collect();
        for host in 0..self.hosts.len() {
            if self.lives(host) {
                let node = self.hosts[host].node;
                self.hosts[host].heartbeats[node] += 1;
            }
        }
        self.forged_live();
        for host in 0..self.hosts.len() {
            for _ in 0..TELLS {
                let other = self.whom(host);
                let lost = self.random.permille(LOSS);
                if other != host && self.lives(host) && self.lives(other) && joins(host, other) && !lost {
                    self.tell(host, other);
                }
            }
        }
        for (host, before) in before.iter().enumerate() {
            if self.lives(host) {
                self.hear(host, before);
            }
        }
    }

    /// Somebody who was heard of, or a seed.
    fn whom(&mut self, host: usize) -> usize {
        let known: Vec<usize> = (0..self.nodes.len())
            .filter(|node| self.hosts[host].heartbeats[*node] > 0)
            .filter_map(|node| self.nodes[node].host)
            .collect();
        if known.len() < 2 || self.random.permille(100) {
            return self.random.place(2);
        }
        known[self.random.place(known.len())]
    }

    /// Both know what either knew.
    fn tell(&mut self, a: usize, b: usize) {
        for node in 0..self.nodes.len() {
            let newest = self.hosts[a].heartbeats[node].max(self.hosts[b].heartbeats[node]);
            self.hosts[a].heartbeats[node] = newest;
            self.hosts[b].heartbeats[node] = newest;
        }
    }

    /// What moved since the last second is told to the machine, and decisions are carried out.
    fn hear(&mut self, at: usize, before: &[u64]) {
        let now = self.now();
        let host = &mut self.hosts[at];
        for (node, known) in self.nodes.iter().enumerate() {
            let old = before.get(node).copied().unwrap_or(0);
            if node != host.node && old > 0 && host.heartbeats[node] > old {
                host.machine.on_fact(now, &known.fact);
            }
        }
        while let Some(decision) = host.machine.poll(now) {
            // Now and then a link refuses.
            if self.random.permille(20) {
                host.machine.failed(now);
                continue;
            }
            match decision {
                Decision::Add(peer) | Decision::Move(peer) => drop(host.peers.insert(peer.host, peer)),
                Decision::Remove(id) => drop(host.peers.remove(&id)),
            }
            host.machine.done();
        }
    }

    fn restart_some(&mut self) {
        for host in (0..self.hosts.len()).filter(|host| host % 5 == 3) {
            let place = self.hosts[host].place + 1;
            // Half of their clocks are a year back.
            let life = if self.random.permille(500) { YEAR } else { 3 * YEAR };
            let node = self.nodes.len();
            self.nodes.push(Node { fact: fact(host, place, life), host: Some(host) });
            self.hosts.iter_mut().for_each(|host| host.heartbeats.push(0));
            let starts_at = self.second + 1 + self.random.below(15);
            let nodes = self.nodes.len();
            let (machine, peers, heartbeats) = (machine(host, place), BTreeMap::new(), vec![0; nodes]);
            self.hosts[host] = Host { machine, peers, heartbeats, node, starts_at, place };
        }
    }

    /// Forged hosts of many kinds, and a second one of an identifier, whose number is returned.
    fn forge(&mut self) -> usize {
        let twin = 2;
        let mut forged = Vec::new();
        for number in 0..40 {
            let host = self.random.place(self.hosts.len());
            let good = fact(host, 100 + number as u8, 7);
            forged.push(match number % 6 {
                // Of a cell, and nobody there: it can take a place, for a while.
                0 => Fact { host: HostId(1_000_000 + number), name: format!("forged-{number}"), ..good },
                1 => Fact { host: HostId(0), ..good },
                2 => Fact { name: "\u{1b}[2J".into(), ..good },
                3 => Fact { host: HostId(2_000_000 + number), ..good },
                4 => Fact {
                    host: HostId(3_000_000 + number),
                    name: format!("f-{number}"),
                    links: fact(host, 0, 7).links,
                    ..good
                },
                _ => good,
            });
        }
        forged.push(Fact { name: format!("host-{twin}"), ..fact(twin, 99, 9) });
        for fact in forged {
            self.nodes.push(Node { fact, host: None });
            self.hosts.iter_mut().for_each(|host| host.heartbeats.push(0));
        }
        twin
    }

    /// Forged hosts show signs of life, by the mouth of somebody.
    fn forged_live(&mut self) {
        for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].host.is_none()) {
            let mouth = self.random.place(self.hosts.len());
            let newest = self.hosts.iter().map(|host| host.heartbeats[node]).max().unwrap_or(0);
            self.hosts[mouth].heartbeats[node] = newest + 1;
        }
    }

    fn silence_forged(&mut self) {
        // As hosts that are left out of everything.
        for node in &mut self.nodes {
            node.host = node.host.or(Some(usize::MAX));
        }
        let forged: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].host == Some(usize::MAX)).collect();
        for host in &mut self.hosts {
            forged.iter().for_each(|node| host.heartbeats[*node] = 0);
        }
    }

    fn fault(&mut self, what: String) {
        if self.outcome.violations.len() < 20 {
            self.outcome.violations.push(format!("second {}: {what}", self.second));
        }
    }

    /// Each host has exactly those of its cell whom it hears, where they are.
    fn check_all(&mut self, when: &str, joins: impl Fn(usize, usize) -> bool) {
        for at in 0..self.hosts.len() {
            let others = (0..self.hosts.len()).filter(|other| *other != at && other / CELL == at / CELL);
            let wanted: BTreeMap<HostId, SocketAddr> = others
                .filter(|other| joins(at, *other))
                .map(|other| (id(other), address(other, self.hosts[other].place, 7400)))
                .collect();
            let has: BTreeMap<HostId, SocketAddr> =
                self.hosts[at].peers.values().map(|peer| (peer.host, peer.addresses[0].1)).collect();
            self.outcome.looks += 1;
            if has != wanted {
                let missing = wanted.iter().filter(|(host, at)| has.get(host) != Some(at)).count();
                let more = has.keys().filter(|host| !wanted.contains_key(host)).count();
                self.fault(format!("after {when} host {at} lacks {missing} peers and has {more} too many"));
            }
        }
    }

    /// The first of an identifier is where it was, everywhere, and no true peer is lost.
    fn check_twin(&mut self, twin: usize) {
        for at in (0..self.hosts.len()).filter(|at| *at != twin && at / CELL == twin / CELL) {
            let has = self.hosts[at].peers.get(&id(twin)).map(|peer| peer.addresses[0].1);
            if has != Some(address(twin, self.hosts[twin].place, 7400)) {
                self.fault(format!("host {at} has the identifier of host {twin} at {has:?}"));
            }
            let cell = (0..self.hosts.len()).filter(|other| *other != at && other / CELL == at / CELL);
            let lost = cell.filter(|other| !self.hosts[at].peers.contains_key(&id(*other))).count();
            if lost > 0 {
                self.fault(format!("forged facts cost host {at} {lost} peers"));
            }
            self.outcome.looks += 1;
        }
    }

    fn check_bounds(&mut self) {
        let mut faults = Vec::new();
        for (at, host) in self.hosts.iter().enumerate() {
            self.outcome.looks += 1;
            let mut addresses: Vec<SocketAddr> = Vec::new();
            for peer in host.peers.values() {
                addresses.extend(peer.addresses.iter().map(|(_, address)| *address));
            }
            let cell = |address: &SocketAddr| matches!(address.ip(), std::net::IpAddr::V4(v4) if v4.octets()[1] as usize == at / CELL);
            let (all, inside) = (addresses.len(), addresses.iter().all(cell));
            addresses.sort_unstable();
            addresses.dedup();
            let is_fine = host.peers.len() <= PEERS_MAX
                && host.machine.refused().len() <= Limits::default().refused_max
                && !host.peers.contains_key(&id(at))
                && inside
                && addresses.len() == all;
            if !is_fine {
                faults.push(format!("host {at} has peers that it should not have: {:?}", host.peers));
            }
        }
        faults.into_iter().for_each(|fault| self.fault(fault));
    }

    fn sum_up(&mut self) {
        for host in &self.hosts {
            let counters = host.machine.counters();
            for (sum, count) in self.outcome.changes.iter_mut().zip(counters.changes) {
                *sum += count;
            }
            for (reason, count) in Reason::ALL.iter().zip(counters.refused) {
                *self.outcome.refused.entry(reason.name()).or_default() += count;
            }
            self.outcome.dropped += counters.dropped;
        }
    }
}

fn machine(host: usize, place: u8) -> Discovery {
    let cell = std::net::IpAddr::from([10, (host / CELL) as u8, 0, 0]);
    let allow = insane_core::Network::new(cell, 16).into_iter().collect();
    let rules = Rules { allow, peers_max: PEERS_MAX, forget_after: FORGET_AFTER };
    let own = fact(host, place, 0);
    Discovery::new(own.host, own.name, own.links, rules, Limits::default())
}
