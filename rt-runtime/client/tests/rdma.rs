//! Runtimes that reach each other over rdma links, alone and beside udp, on a verbs device of
//! this host that speaks with itself: one whose address INSANE_RDMA names (and INSANE_RDMA_V6).
//! `cargo xtask rt-guest` has one.

use insane_config::{Idle, LinkPlan, RdmaPlan, Technology, UdpPlan};
use insane_rt::{
    ChannelId, ClassSpec, Emit, Hosting, Nanos, Plan, Qos, Reliability, Session, Sink, SinkOptions, Source,
    SourceOptions,
};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Emulated machines are slow.
const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST: usize = 1_000_000;

fn device(variable: &str) -> Option<IpAddr> {
    let ip = std::env::var(variable).ok().map(|text| text.parse().expect("an address"));
    if ip.is_none() {
        eprintln!("passed over: {variable} names no address of a verbs device");
    }
    ip
}

/// A pair of ports that no other test of this program has.
fn ports(ip: IpAddr) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    (ip, 10_000 + (std::process::id() % 20_000) as u16 + 2 * NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

fn roomy(mut plan: Plan) -> Plan {
    let classes = [(256, 1024), (20_000, 256), (LARGEST as u32, 4)];
    plan.domains[0].receive = classes.map(|(size, count)| ClassSpec { size, count }).to_vec();
    plan
}

fn plan(name: &str, technology: Technology, peer: (&str, SocketAddr), idle: Idle) -> Plan {
    let mut plan = roomy(Plan::embedded_over(name, technology));
    plan.datapaths[0].idle = idle;
    plan.add_peer(peer.0, &[(technology.name(), peer.1)]);
    plan
}

fn rdma(at: SocketAddr) -> Technology {
    Technology::Rdma(RdmaPlan::at(at))
}

fn start(plan: Plan, hosting: Hosting) -> Session {
    Session::embedded_with(plan, hosting, "rdma").unwrap()
}

/// Waits while the sessions' engines turn, should they be inline ones.
#[track_caller]
fn wait_for(sessions: &[&Session], what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        let turned = sessions.iter().fold(false, |turned, session| session.turn() | turned);
        if !turned {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn conversation(from: &Session, to: &Session, reliability: Reliability) -> (Source, Sink) {
    let (name, qos) = (format!("{reliability:?}"), Qos { reliability, ..Qos::default() });
    let options = SourceOptions::default().buffers(LARGEST as u32, 2);
    let sink = to.stream(&name, qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = from.stream(&name, qos).unwrap().source(ChannelId(1), options).unwrap();
    wait_for(&[from, to], "the sink is heard of", || source.receivers() > 0);
    (source, sink)
}

fn message(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(7) ^ (at >> 9) ^ len) as u8).collect()
}

fn emit(source: &Source, len: usize) -> bool {
    let Ok(mut buffer) = source.get_buffer(len) else { return false };
    buffer.copy_from_slice(&message(len));
    matches!(source.emit(buffer), Emit::Sent(_))
}

/// Sends messages of every kind of size, one after another, and checks each. Between two links
/// that stand nothing is lost, whatever the contract.
fn exchange(sessions: &[&Session], (source, sink): &(Source, Sink)) {
    for len in [0, 8, 96, 97, 1_400, 16_320, 16_384, 60_000, LARGEST] {
        wait_for(sessions, "there is a buffer", || emit(source, len));
        wait_for(sessions, "the message comes", || {
            let came = sink.consume().unwrap();
            came.is_some_and(|came| came.bytes().is_some_and(|bytes| bytes == message(len)))
        });
    }
}

#[test]
fn every_size_crosses_reliable_and_not_however_the_datapath_waits() {
    let spin_then_block = Idle::SpinThenBlock { spin: Nanos::from_micros(50) };
    let cases = [
        ("INSANE_RDMA", Idle::Block, Hosting::Thread),
        ("INSANE_RDMA_V6", spin_then_block, Hosting::Thread),
        ("INSANE_RDMA", spin_then_block, Hosting::Inline),
    ];
    for (variable, idle, hosting) in cases {
        let Some(ip) = device(variable) else { return };
        let (at_a, at_b) = (ports(ip), ports(ip));
        let a = start(plan("a", rdma(at_a), ("b", at_b), idle), hosting);
        let b = start(plan("b", rdma(at_b), ("a", at_a), idle), Hosting::Thread);
        for reliability in [Reliability::Reliable, Reliability::Unreliable] {
            exchange(&[&a, &b], &conversation(&a, &b, reliability));
            exchange(&[&a, &b], &conversation(&b, &a, reliability));
        }
    }
}

#[test]
fn a_datapath_that_never_sleeps_needs_no_interrupts() {
    let Some(ip) = device("INSANE_RDMA") else { return };
    let (at_a, at_b) = (ports(ip), ports(ip));
    let a = start(plan("a", rdma(at_a), ("b", at_b), Idle::Spin), Hosting::Thread);
    let b = start(plan("b", rdma(at_b), ("a", at_a), Idle::Block), Hosting::Thread);
    exchange(&[&a, &b], &conversation(&a, &b, Reliability::Reliable));
    exchange(&[&a, &b], &conversation(&b, &a, Reliability::Reliable));
}

/// A peer that is started again is reached again, and reliable streams go on.
#[test]
fn a_peer_that_comes_back_is_connected_again() {
    let Some(ip) = device("INSANE_RDMA") else { return };
    let (at_a, at_b) = (ports(ip), ports(ip));
    let a = start(plan("a", rdma(at_a), ("b", at_b), Idle::Block), Hosting::Thread);
    for _ in 0..2 {
        let b = start(plan("b", rdma(at_b), ("a", at_a), Idle::Block), Hosting::Thread);
        let there = conversation(&a, &b, Reliability::Reliable);
        exchange(&[&a, &b], &there);
        drop(there);
        drop(b);
    }
}

/// One datapath with both technologies: one peer is reached by udp, the other by rdma.
#[test]
fn a_datapath_may_mix_rdma_and_udp() {
    let Some(ip) = device("INSANE_RDMA") else { return };
    let free = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port() & !1;
    let udp = || SocketAddr::from((Ipv4Addr::LOCALHOST, free()));
    let (hub_udp, by_udp, hub_rdma, by_rdma) = (udp(), udp(), ports(ip), ports(ip));
    let mut hub = roomy(Plan::embedded_over("hub", rdma(hub_rdma)));
    let of_udp = Technology::Udp(UdpPlan::at(hub_udp));
    hub.datapaths[0].links.push(LinkPlan { name: "udp".into(), technology: of_udp, rate: None, peers: Vec::new() });
    hub.add_peer("by udp", &[("udp", by_udp)]);
    hub.add_peer("by rdma", &[("rdma", by_rdma)]);
    let by_udp = plan("by udp", Technology::Udp(UdpPlan::at(by_udp)), ("hub", hub_udp), Idle::Block);
    let by_rdma = plan("by rdma", rdma(by_rdma), ("hub", hub_rdma), Idle::Block);
    let (hub, by_udp, by_rdma) =
        (start(hub, Hosting::Thread), start(by_udp, Hosting::Thread), start(by_rdma, Hosting::Thread));
    exchange(&[&hub, &by_udp], &conversation(&by_udp, &hub, Reliability::Reliable));
    exchange(&[&hub, &by_rdma], &conversation(&by_rdma, &hub, Reliability::Unreliable));
}

/// Nowhere is a device with this address; this needs no guest.
#[test]
fn a_link_without_a_device_stops_nothing_and_its_reason_is_told() {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (at_a, at_b) = (ports(loopback), ports(loopback));
    let mut a = plan("a", Technology::Udp(UdpPlan::at(at_a)), ("b", at_b), Idle::Block);
    let technology = rdma("192.0.2.1:7600".parse().unwrap());
    a.datapaths[0].links.push(LinkPlan { name: "rdma".into(), technology, rate: None, peers: vec![None] });
    a.add_peer("c", &[("rdma", "192.0.2.2:7600".parse().unwrap())]);
    let a = start(a, Hosting::Thread);
    let b = start(plan("b", Technology::Udp(UdpPlan::at(at_b)), ("a", at_a), Idle::Block), Hosting::Thread);
    let report = a.runtime().unwrap().status().unwrap();
    let links = &report.datapaths[0].links;
    let why = links[1].missing.clone().expect("no host has this address");
    assert!(links[0].up && links[0].missing.is_none() && !links[1].up);
    assert!(report.degraded.iter().any(|line| line.contains("link \"rdma\"") && line.contains(&why)));
    exchange(&[&a, &b], &conversation(&a, &b, Reliability::Reliable));
    // Heartbeats are refused, and counted.
    let refused = || a.runtime().unwrap().status().unwrap().datapaths[0].links[1].counters["frames_device_missing"];
    wait_for(&[&a, &b], "frames for the peer there are counted", || refused() > 0);
    // Alone it is a reason not to start.
    let alone =
        plan("d", rdma("192.0.2.1:7600".parse().unwrap()), ("c", "192.0.2.2:7600".parse().unwrap()), Idle::Block);
    let text = Session::embedded_with(alone, Hosting::Thread, "rdma").map(|_| ()).unwrap_err().to_string();
    assert!(text.contains("link \"rdma\"") && text.contains(&why), "{text}");
}
