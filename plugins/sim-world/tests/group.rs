//! Hosts of one group whose network filters, loses and delays: who is served by the group at
//! any time really hears it, but for the time that it takes to notice, and comes back.
#![forbid(unsafe_code)]

use insane_core::time::Clock;
use insane_core::{HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{FrameSink, Link, LinkSetup, SendOutcome};
use insane_overlay::group::{Limits, Prober, Responder, deaf_after};
use insane_sim::{Chance, Faults, SimConfig, SimLink, SimNet};
use insane_sim_world::random::Random;
use insane_wire::group::{GROUP_BYTES, GroupBody};
use std::net::SocketAddr;

const HOSTS: usize = 5;
const STEP: Nanos = Nanos::from_millis(1);

#[derive(Default)]
struct Inbox(Vec<(PeerIndex, Vec<u8>)>);

impl FrameSink for Inbox {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        self.0.extend(from.map(|from| (from, frame.to_vec())));
    }
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host as u8 + 1], 7400))
}

fn life(host: usize) -> (HostId, Incarnation) {
    (HostId(host as u64 + 1), Incarnation(7))
}

/// A control plane and its link; `PeerIndex(i)` is host `i` everywhere.
struct Host {
    link: SimLink,
    prober: Prober,
    responder: Responder,
}

impl Host {
    fn new(net: &SimNet, place: usize) -> Self {
        let peers: Vec<_> = (0..HOSTS).map(|peer| (peer != place).then(|| address(peer))).collect();
        let mut prober = Prober::new(life(place), 2, Limits::default());
        (0..HOSTS).filter(|peer| *peer != place).for_each(|peer| prober.add(PeerIndex(peer as u16)));
        let link = net.setup(address(place)).in_group().open(&peers).unwrap();
        Host { link, prober, responder: Responder::new(life(place)) }
    }

    fn step(&mut self, now: MonoTime) {
        let mut inbox = Inbox::default();
        self.link.receive(64, true, &mut inbox);
        for (peer, frame) in inbox.0 {
            let body = GroupBody::decode(&frame).unwrap();
            let of = Some(life(peer.index()));
            if body.to.is_some() {
                self.prober.on_answer(peer, of, &body);
            } else if let Some(answer) = self.responder.on_probe(now, peer, of, &body) {
                assert_eq!(self.link.send(peer, Lane::CONTROL, &answer, (&[][..]).into()), SendOutcome::Sent);
            }
        }
        let mut probe = [0; GROUP_BYTES];
        while self.prober.poll(now, &mut probe) {
            assert_eq!(self.link.send_group(Lane::CONTROL, &probe, (&[][..]).into()), SendOutcome::Sent);
        }
    }
}

/// Filters come and go at each host by themselves; frames take up to 20 ms, and three in
/// a thousand are lost.
#[test]
fn who_is_served_hears_and_who_hears_is_served() {
    let limits = Limits::default();
    for seed in 1..=10 {
        let faults = Faults {
            delay: Nanos::from_millis(10),
            jitter: Nanos::from_millis(10),
            loss: Chance::per_million(3_000),
            ..Faults::NONE
        };
        let net = SimNet::new(seed, SimConfig { faults, ..SimConfig::default() });
        let mut random = Random::new(seed);
        let mut hosts: Vec<Host> = (0..HOSTS).map(|place| Host::new(&net, place)).collect();
        let mut deaf = [None::<MonoTime>; HOSTS];
        let mut hearing_since = [net.clock().now(); HOSTS];
        let (mut served, mut changes) = (0_u32, 0_u32);
        for _ in 0..60_000 {
            let now = net.clock().now();
            hosts.iter_mut().for_each(|host| host.step(now));
            if random.below(4_000) == 0 {
                let place = random.place(HOSTS);
                deaf[place] = if deaf[place].is_some() { None } else { Some(now) };
                hearing_since[place] = now;
                net.set_deaf(address(place), deaf[place].is_some());
                changes += 1;
            }
            for (from, host) in hosts.iter().enumerate() {
                for to in (0..HOSTS).filter(|to| *to != from) {
                    let hears = host.prober.hears(PeerIndex(to as u16));
                    served += u32::from(hears);
                    // A probe that was on its way then, and its answer, may come later.
                    let noticed = Nanos(deaf_after(&limits).0 + Nanos::from_millis(50).0);
                    let late = deaf[to].is_some_and(|since| now.since(since) > noticed);
                    assert!(!(hears && late), "seed {seed}: host {to} is deaf and served by host {from}");
                    let long = Nanos(limits.probe_every.0 * 200);
                    let is_settled = deaf[to].is_none() && now.since(hearing_since[to]) > long;
                    assert!(hears || !is_settled, "seed {seed}: host {to} hears and is not served by host {from}");
                }
            }
            net.advance(STEP);
        }
        assert!(served > 100_000 && changes > 5, "{served}, {changes}");
    }
}
