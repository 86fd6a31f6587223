//! Runtimes of two hosts: one over an xdp link, the other over a kernel udp link.

#[path = "../../../plugins/xdp/tests/common/mod.rs"]
mod common;

use common::Namespace;
use insane_config::raw::XdpMode;
use insane_config::{InterfaceName, LinkPlan, Technology, UdpPlan, XdpPlan};
use insane_rt::{
    ChannelId, ClassSpec, Emit, Hosting, Plan, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions,
};
use insane_wire::status::LinkStatus;
use insane_xdp_sys::interface;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const LARGEST: usize = 1_000_000;

/// `x0` of the one host is an xdp link's, `p0` of the other the kernel's.
fn hosts() -> Option<(Namespace, Namespace)> {
    let (ours, kernel) = (Namespace::make()?, Namespace::make()?);
    ours.ip(&format!("link add x0 type veth peer name p0 netns {}\nlink set x0 up\n", kernel.path()));
    kernel.ip("address add 10.9.0.1/24 dev p0\naddress add fd00::1/64 dev p0 nodad\nlink set p0 up\n");
    kernel.inside(|| interface::finish_frames("p0")).unwrap();
    Some((ours, kernel))
}

fn plan(name: &str, technology: Technology, peer: (&str, SocketAddr)) -> Plan {
    let mut plan = Plan::embedded_over(name, technology);
    let classes = [(256, 1024), (20_000, 256), (LARGEST as u32, 4)];
    plan.domains[0].receive = classes.map(|(size, count)| ClassSpec { size, count }).to_vec();
    plan.add_peer(peer.0, &[(technology.name(), peer.1)]);
    plan
}

fn conversation(from: &Session, to: &Session, reliability: Reliability) -> (Source, Sink) {
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
fn exchange((source, sink): (Source, Sink), reliability: Reliability) {
    let attempts = if reliability == Reliability::Reliable { 1 } else { 5 };
    for len in [0, 8, 96, 97, 1400, 16_321, 60_000, LARGEST] {
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

#[test]
fn every_size_crosses_between_xdp_and_udp_reliable_and_not() {
    for (mode, ours, theirs) in
        [(XdpMode::Native, "10.9.0.2:7400", "10.9.0.1:7400"), (XdpMode::Skb, "[fd00::2]:7400", "[fd00::1]:7400")]
    {
        let Some((namespace, kernel)) = hosts() else { return };
        let (ours, theirs) = (ours.parse().unwrap(), theirs.parse().unwrap());
        let xdp = XdpPlan { mode, ..XdpPlan::at(InterfaceName::new("x0").unwrap(), ours) };
        let a = plan("a", Technology::Xdp(xdp), ("b", theirs));
        let b = plan("b", Technology::Udp(UdpPlan::at(theirs)), ("a", ours));
        let start = |plan| Session::embedded_with(plan, Hosting::Thread, "xdp").unwrap();
        // Threads that a runtime makes are in the namespace of the one that starts it.
        let a = namespace.inside(|| start(a));
        let b = kernel.inside(|| start(b));
        for reliability in [Reliability::Reliable, Reliability::Unreliable] {
            exchange(conversation(&a, &b, reliability), reliability);
            exchange(conversation(&b, &a, reliability), reliability);
        }
    }
}

/// Emits again and again until a message comes.
fn reaches((source, sink): &(Source, Sink), what: &str) {
    let end = Instant::now() + PATIENCE;
    while sink.consume_timeout(Duration::from_millis(20)).unwrap().is_none() {
        assert!(Instant::now() < end, "{what}: nothing comes");
        if let Ok(mut buffer) = source.get_buffer(8) {
            buffer.copy_from_slice(b"12345678");
            let _ = source.emit(buffer);
        }
    }
}

/// Until a counter of the xdp link is above zero: a copy is left every 100 ms at least.
fn wait_for_count(of: &Session, name: &str) {
    let end = Instant::now() + PATIENCE;
    loop {
        let report = of.runtime().unwrap().status().unwrap();
        let link = report.datapaths[0].links.iter().find(|link| link.technology == "xdp").unwrap();
        if link.counters[name] > 0 {
            return;
        }
        assert!(Instant::now() < end, "{name}: {:?}", link.counters);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What the status says of the xdp link, once it says so.
fn wait_for_status(of: &Session, is_up: bool) -> LinkStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        let report = of.runtime().unwrap().status().unwrap();
        let link = report.datapaths[0].links.iter().find(|link| link.technology == "xdp").unwrap().clone();
        if link.up == is_up {
            let is_told = report.degraded.iter().any(|line| line.contains("link \"xdp\" of datapath"));
            assert_eq!(is_told, !is_up, "{:?}", report.degraded);
            assert_eq!(link.missing.is_some(), !is_up);
            return link;
        }
        assert!(Instant::now() < end, "{link:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Three runtimes: ours has an xdp link to a host that is not there yet, and a udp link to
/// another runtime in the same namespace.
#[test]
fn a_link_that_is_missing_stops_nothing_and_comes_back() {
    let (Some(namespace), Some(kernel)) = (Namespace::make(), Namespace::make()) else { return };
    let address = |text: &str| text.parse::<SocketAddr>().unwrap();
    let join = || {
        namespace.ip(&format!("link add x0 type veth peer name p0 netns {}\nlink set x0 up\n", kernel.path()));
        kernel.ip("address add 10.9.0.1/24 dev p0\nlink set p0 up\n");
        kernel.inside(|| interface::finish_frames("p0")).unwrap();
    };
    namespace.ip("link set lo up\n");
    let (near, far) = (address("127.0.0.1:7500"), address("10.9.0.1:7400"));
    let (at_udp, at_xdp) = (address("127.0.0.1:7400"), address("10.9.0.2:7400"));
    let mut ours = plan("ours", Technology::Udp(UdpPlan::at(at_udp)), ("near", near));
    let technology = Technology::Xdp(XdpPlan::at(InterfaceName::new("x0").unwrap(), at_xdp));
    let xdp = LinkPlan { name: "xdp".into(), technology, rate: None, peers: vec![None] };
    ours.datapaths[0].links.push(xdp);
    ours.add_peer("far", &[("xdp", far)]);
    let start = |plan| Session::embedded_with(plan, Hosting::Thread, "xdp").unwrap();
    let ours = namespace.inside(|| start(ours));
    let near = namespace.inside(|| start(plan("near", Technology::Udp(UdpPlan::at(near)), ("ours", at_udp))));

    let link = wait_for_status(&ours, false);
    assert!(link.missing.unwrap().contains("interface x0: finding the interface"));
    let to_near = conversation(&ours, &near, Reliability::Unreliable);
    reaches(&to_near, "over udp, while xdp is missing");

    let report = near.runtime().unwrap().status().unwrap();
    assert!(report.datapaths[0].links[0].counters.contains_key("frames_lost"), "udp tells what it counts, too");

    join();
    wait_for_status(&ours, true);
    let far = kernel.inside(|| start(plan("far", Technology::Udp(UdpPlan::at(far)), ("ours", at_xdp))));
    let to_far = conversation(&ours, &far, Reliability::Unreliable);
    reaches(&to_far, "over xdp, once it is there");
    // The far host asked where we are.
    wait_for_count(&ours, "answers_sent");

    namespace.ip("link delete x0\n");
    wait_for_status(&ours, false);
    reaches(&to_near, "over udp, while xdp is away");
    // Messages or heartbeats.
    let _ = to_far.0.get_buffer(8).map(|buffer| to_far.0.emit(buffer));
    wait_for_count(&ours, "frames_interface_missing");
    join();
    wait_for_status(&ours, true);
    reaches(&to_far, "over xdp, once it is back");
    wait_for_count(&ours, "interfaces_lost");
}

#[test]
fn a_link_that_does_not_open_is_told_with_its_reason() {
    let Some((namespace, _kernel)) = hosts() else { return };
    let xdp = XdpPlan::at(InterfaceName::new("x7").unwrap(), "10.9.0.2:7400".parse().unwrap());
    let plan = plan("a", Technology::Xdp(xdp), ("b", "10.9.0.1:7400".parse().unwrap()));
    let error = namespace.inside(|| Session::embedded_with(plan, Hosting::Thread, "xdp").map(|_| ()).unwrap_err());
    let text = error.to_string();
    assert!(text.contains("link \"xdp\": interface x7: finding the interface failed"), "{text}");
}
