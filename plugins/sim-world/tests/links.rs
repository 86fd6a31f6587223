//! Hosts joined by two networks, of which now one and now the other fails: membership does
//! not lose a peer that can be reached, and the interests arrive.
#![forbid(unsafe_code)]

use insane_core::time::Clock;
use insane_core::{ChannelId, HostId, Incarnation, Lane, Nanos, PeerIndex, StreamKey};
use insane_link::{FrameSink, Link, LinkSetup};
use insane_overlay::lanes::Pace;
use insane_overlay::links::{self, Monitor};
use insane_overlay::membership::{Event, Limits, Membership};
use insane_sim::{Chance, Faults, SimConfig, SimLink, SimNet, WhenFull};
use insane_sim_world::random::Random;
use insane_wire::link::{LINK_BYTES, is_link_beat};
use insane_wire::overlay::{BODY_BYTES_MAX, Interest};
use std::net::SocketAddr;

const HOSTS: usize = 6;
const NETS: usize = 2;
const STEP: Nanos = Nanos::from_millis(1);

#[derive(Default)]
struct Inbox(Vec<(PeerIndex, Vec<u8>)>);

impl FrameSink for Inbox {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        self.0.extend(from.map(|from| (from, frame.to_vec())));
    }
}

/// A control plane and its links, joined as the runtime joins them.
struct Host {
    links: Vec<SimLink>,
    membership: Membership,
    monitor: Monitor,
    lanes: Pace,
    /// Without fall-over: always by the first.
    stubborn: bool,
    downs: u32,
    changes: u32,
    /// Ways that went down.
    ways_down: u32,
}

fn address(net: usize, host: usize) -> SocketAddr {
    SocketAddr::from(([10, net as u8, 0, host as u8 + 1], 7400))
}

fn interest(host: usize, number: u64) -> Interest {
    Interest { stream: StreamKey(host as u64), check: 1, channel: ChannelId(number as u32), schema: None, joins: 0 }
}

impl Host {
    fn new(net: &SimNet, place: usize, stubborn: bool) -> Self {
        let link = |way| {
            let peers = (0..HOSTS).filter(|peer| *peer != place).map(|peer| Some(address(way, peer)));
            net.setup(address(way, place)).open(&peers.collect::<Vec<_>>()).unwrap()
        };
        let (id, life) = (HostId(place as u64 + 1), Incarnation(1));
        Host {
            links: (0..NETS).map(link).collect(),
            membership: Membership::new(id, life, HOSTS - 1, Limits::default()),
            monitor: Monitor::new(id, life, [NETS; HOSTS - 1], links::Limits::default()),
            lanes: Pace::new(),
            stubborn,
            downs: 0,
            changes: 0,
            ways_down: 0,
        }
    }

    fn step(&mut self, net: &SimNet) {
        let now = net.clock().now();
        for way in 0..NETS {
            let mut inbox = Inbox::default();
            self.links[way].receive(1000, true, &mut inbox);
            for (peer, body) in inbox.0 {
                if is_link_beat(&body) {
                    let life = self.membership.peer(peer).and_then(|status| status.life);
                    self.monitor.on_frame(now, peer, way, life, &body);
                } else {
                    self.membership.on_frame(now, peer, &body);
                }
            }
        }
        let mut beat = [0; LINK_BYTES];
        while let Some((peer, way)) = self.monitor.poll(now, &mut beat) {
            let lane = self.lanes.lane(now, peer, &beat);
            let _ = self.links[way].send(peer, lane, &beat, (&[][..]).into());
        }
        while let Some(event) = self.monitor.next_event() {
            self.ways_down += u32::from(matches!(event, links::Event::Down { .. }));
            if let links::Event::Speaks { peer, .. } = event {
                self.membership.speak_anew(peer);
                self.changes += 1;
            }
        }
        let mut body = [0; BODY_BYTES_MAX];
        while let Some((peer, len)) = self.membership.poll(now, &mut body) {
            let way = if self.stubborn { 0 } else { self.monitor.speaks_by(peer).unwrap_or(0) };
            let lane = self.lanes.lane(now, peer, &body[..len]);
            let _ = self.links[way].send(peer, lane, &body[..len], (&[][..]).into());
        }
        while let Some(event) = self.membership.next_event() {
            self.downs += u32::from(matches!(event, Event::PeerDown { .. }));
        }
    }
}

/// Runs half a minute in which, every second, each pair of hosts loses one of its two ways, in
/// one direction or in both. Peers that went down, and changes of the way.
fn run(seed: u64, stubborn: bool) -> (u32, u32) {
    let mut random = Random::new(seed);
    let fair = Faults {
        delay: Nanos::from_micros(300),
        jitter: Nanos::from_micros(500),
        loss: Chance::percent(1),
        ..Faults::NONE
    };
    let net = SimNet::new(seed, SimConfig { faults: fair, ..SimConfig::default() });
    let mut hosts: Vec<Host> = (0..HOSTS).map(|place| Host::new(&net, place, stubborn)).collect();
    let mut number = 0;
    for second in 0..30 {
        for one in 0..HOSTS {
            for two in 0..one {
                let fails = if second == 0 { NETS } else { random.place(NETS) };
                let directions = 1 + random.below(3);
                for way in 0..NETS {
                    let cut = |bit: u64| way == fails && directions & bit != 0;
                    net.set_partitioned(address(way, one), address(way, two), cut(1));
                    net.set_partitioned(address(way, two), address(way, one), cut(2));
                }
            }
        }
        number += 1;
        for (place, host) in hosts.iter_mut().enumerate() {
            host.membership.set_interest(interest(place, number), true).unwrap();
            let _ = host.membership.set_interest(interest(place, number - 1), false);
        }
        for _ in 0..1000 {
            net.advance(STEP);
            hosts.iter_mut().for_each(|host| host.step(&net));
        }
        // Both ways rest, so that each pair has one that works before the next one fails.
        for one in 0..HOSTS {
            for two in (0..HOSTS).filter(|two| *two != one) {
                (0..NETS).for_each(|way| net.set_partitioned(address(way, one), address(way, two), false));
            }
        }
        for _ in 0..500 {
            net.advance(STEP);
            hosts.iter_mut().for_each(|host| host.step(&net));
        }
        for (place, host) in hosts.iter().enumerate().filter(|_| !stubborn) {
            for other in (0..HOSTS).filter(|other| *other != place) {
                let peer = PeerIndex(if other < place { other } else { other - 1 } as u16);
                let known: Vec<Interest> = host.membership.interests_of(peer).collect();
                assert_eq!(known, [interest(other, number)], "seed {seed}, second {second}: of {other} at {place}");
            }
        }
    }
    (hosts.iter().map(|host| host.downs).sum(), hosts.iter().map(|host| host.changes).sum())
}

#[test]
fn a_peer_that_one_link_reaches_is_not_lost() {
    for seed in 0..4 {
        let (downs, changes) = run(seed, false);
        assert_eq!(downs, 0, "seed {seed}");
        assert!(changes > 100, "seed {seed}: the links did fail");
    }
    assert!(run(0, true).0 > 100, "without fall-over peers are lost");
}

/// For two seconds the best-effort queues of one network are full whenever somebody sends; the other
/// network is idle.
#[test]
fn a_flood_of_best_effort_makes_nobody_leave_a_link_or_a_peer() {
    const QUEUE: u32 = 16;
    let faults = Faults { queue_frames_max: Some(QUEUE), when_full: WhenFull::Lose, ..Faults::NONE };
    for flooded in [&[0][..], &[0, 1][..]] {
        let net = SimNet::new(1, SimConfig { faults, frames_max: 4_096, ..SimConfig::default() });
        let mut hosts: Vec<Host> = (0..HOSTS).map(|place| Host::new(&net, place, false)).collect();
        for _ in 0..500 {
            net.advance(STEP);
            hosts.iter_mut().for_each(|host| host.step(&net));
        }
        let before: Vec<_> = hosts.iter().map(|host| (host.changes, host.downs, host.ways_down)).collect();
        for step in 0..2_000_u64 {
            for (place, host) in hosts.iter_mut().enumerate() {
                // What a host sends finds the queue as full as what it reads has left it.
                for from in 0..HOSTS {
                    for to in (0..HOSTS).filter(|to| *to != from) {
                        for net_of in flooded {
                            let (from, to) = (address(*net_of, from), address(*net_of, to));
                            for _ in 0..=QUEUE {
                                let _ = net.inject(from, to, Lane::LAST, &[0xEE; 64]);
                            }
                        }
                    }
                }
                if step % 500 == 0 {
                    host.membership.set_interest(interest(place, step), true).unwrap();
                }
                host.step(&net);
            }
            net.advance(STEP);
        }
        let after: Vec<_> = hosts.iter().map(|host| (host.changes, host.downs, host.ways_down)).collect();
        assert_eq!(after, before, "nothing was left");
        for (place, host) in hosts.iter().enumerate() {
            for other in (0..HOSTS).filter(|other| *other != place) {
                let peer = PeerIndex(if other < place { other } else { other - 1 } as u16);
                assert_eq!(host.membership.interests_of(peer).count(), 4, "changes arrive, too");
            }
        }
    }
}
