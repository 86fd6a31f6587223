//! What the tests of runtimes over links that bypass the kernel share.

use insane_config::{LinkPlan, Technology, UdpPlan};
use insane_conformance::wire::{Hosts, PATIENCE, WORLD_LINK, WORLD_PEER};
use insane_rt::{
    ChannelId, ClassSpec, Emit, Hosting, Plan, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions,
};
use insane_wire::status::LinkStatus;
use insane_xdp_sys::interface;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub const LARGEST: usize = 1_000_000;

/// `x0` of the one host is the link's, `p0` of the other the kernel's.
pub fn hosts() -> Option<Hosts> {
    let hosts = Hosts::make()?;
    join(&hosts);
    Some(hosts)
}

fn join(hosts: &Hosts) {
    hosts.join();
    hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
}

pub fn start(plan: Plan) -> Session {
    Session::embedded_with(plan, Hosting::Thread, "bypass").unwrap()
}

pub fn plan(name: &str, technology: Technology, peer: (&str, SocketAddr)) -> Plan {
    let mut plan = Plan::embedded_over(name, technology);
    let classes = [(256, 1024), (20_000, 256), (LARGEST as u32, 4)];
    plan.domains[0].receive = classes.map(|(size, count)| ClassSpec { size, count }).to_vec();
    plan.add_peer(peer.0, &[(technology.name(), peer.1)]);
    plan
}

pub fn conversation(from: &Session, to: &Session, reliability: Reliability) -> (Source, Sink) {
    let (name, qos) = (format!("{reliability:?}"), Qos { reliability, ..Qos::default() });
    let options = SourceOptions::default().buffers(LARGEST as u32, 2);
    let sink = to.stream(&name, qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = from.stream(&name, qos).unwrap().source(ChannelId(1), options).unwrap();
    let end = Instant::now() + PATIENCE;
    while source.receivers() == 0 {
        assert!(Instant::now() < end, "the sink is never heard of");
        std::thread::sleep(Duration::from_millis(1));
    }
    (source, sink)
}

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(7) ^ (at >> 9) ^ len) as u8).collect()
}

/// Sends messages of every kind of size, one after another, and checks each. An unreliable one
/// may be lost where a receiver has to wait for its core.
pub fn exchange((source, sink): (Source, Sink), reliability: Reliability, largest: usize) {
    let attempts = if reliability == Reliability::Reliable { 1 } else { 5 };
    for len in [0, 8, 96, 97, 1400, 16_321, 60_000, LARGEST].into_iter().filter(|len| *len <= largest) {
        let sent = message(len);
        let comes = |_| {
            let mut buffer = source.get_buffer_timeout(len, PATIENCE).unwrap();
            buffer.copy_from_slice(&sent);
            assert!(matches!(source.emit(buffer), Emit::Sent(_)), "{len} bytes");
            let came = sink.consume_timeout(PATIENCE / attempts).unwrap();
            came.inspect(|message| assert_eq!(message.bytes(), Some(&sent[..]), "{len} bytes")).is_some()
        };
        assert!((0..attempts).any(comes), "{reliability:?}: {len} bytes");
    }
}

/// Waits until the status says so of the link of this technology.
fn wait_for_link(of: &Session, technology: &str, what: &str, is_it: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        let report = of.runtime().unwrap().status().unwrap();
        let link = report.datapaths[0].links.iter().find(|link| link.technology == technology).unwrap().clone();
        assert_eq!(link.missing.is_some(), !link.up);
        let line = format!("link {technology:?} of datapath");
        assert_eq!(report.degraded.iter().any(|told| told.contains(&line)), !link.up, "{:?}", report.degraded);
        if is_it(&link) {
            return link;
        }
        assert!(Instant::now() < end, "never {what}: {link:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Three runtimes: ours has a link at `x0` to a host that is not there yet, and a udp link to
/// another runtime in the same namespace. The link counts frames refused without it, and how
/// often it went, under these names. Passed over if it `cannot_be`, for a reason that it tells.
pub fn a_missing_link_stops_nothing_and_comes_back(
    technology: Technology,
    [refused, lost]: [&str; 2],
    cannot_be: impl Fn(&str) -> bool,
) {
    let Some(hosts) = Hosts::make() else { return };
    let name = technology.name();
    let [near, far, at_udp, at_link] =
        ["127.0.0.1:7500", WORLD_PEER, "127.0.0.1:7400", WORLD_LINK].map(|text| text.parse::<SocketAddr>().unwrap());
    hosts.ours.ip("link set lo up\n");
    let mut ours = plan("ours", Technology::Udp(UdpPlan::at(at_udp)), ("near", near));
    ours.datapaths[0].links.push(LinkPlan { name: name.into(), technology, rate: None, peers: vec![None] });
    ours.add_peer("far", &[(name, far)]);
    let ours = hosts.ours.inside(|| start(ours));
    let near = hosts.ours.inside(|| start(plan("near", Technology::Udp(UdpPlan::at(near)), ("ours", at_udp))));

    let link = wait_for_link(&ours, name, "missing", |link| !link.up);
    assert!(link.missing.unwrap().contains("interface x0: finding the interface"));
    let exchange_with = |other: &Session| {
        exchange(conversation(&ours, other, Reliability::Reliable), Reliability::Reliable, 60_000);
    };
    exchange_with(&near);
    let report = near.runtime().unwrap().status().unwrap();
    assert!(report.datapaths[0].links[0].counters.contains_key("frames_lost"), "udp tells what it counts, too");

    join(&hosts);
    let is_settled = |link: &LinkStatus| link.missing.as_deref().is_none_or(&cannot_be);
    if let Some(why) = wait_for_link(&ours, name, "up, or impossible", is_settled).missing {
        return eprintln!("passed over: {why}");
    }
    let far = hosts.kernel.inside(|| start(plan("far", Technology::Udp(UdpPlan::at(far)), ("ours", at_link))));
    exchange_with(&far);
    // The far host asked where we are.
    wait_for_link(&ours, name, "counting answers", |link| link.counters["answers_sent"] > 0);

    let (source, _sink) = conversation(&ours, &far, Reliability::Unreliable);
    hosts.ours.ip("link delete x0\n");
    wait_for_link(&ours, name, "missing again", |link| !link.up);
    exchange_with(&near);
    // Messages or heartbeats.
    let _ = source.get_buffer(8).map(|buffer| source.emit(buffer));
    wait_for_link(&ours, name, "counting what it refuses", |link| link.counters[refused] > 0);
    join(&hosts);
    wait_for_link(&ours, name, "up again", |link| link.up);
    exchange_with(&far);
    wait_for_link(&ours, name, "counting its losses", |link| link.counters[lost] == 1);
}
