//! Runtimes of two hosts: one over a dpdk link, the other over a kernel udp link.

#[path = "../../../plugins/xdp/tests/common/mod.rs"]
mod common;

use common::Namespace;
use insane_config::{DeviceName, DpdkPlan, LinkPlan, Technology, UdpPlan};
use insane_rt::{
    ChannelId, ClassSpec, Emit, Hosting, Plan, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions,
};
use insane_wire::status::LinkStatus;
use insane_xdp_sys::interface;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const LARGEST: usize = 1_000_000;

/// `x0` of the one host is a dpdk link's, and the kernel's; `p0` of the other the kernel's.
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
fn exchange((source, sink): (Source, Sink), reliability: Reliability, largest: usize) {
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

/// Also where nobody spins: frames come without a word, and are looked for.
#[test]
fn every_size_crosses_between_dpdk_and_udp_reliable_and_not() {
    if let Err(reason) = dpdk_sys::check_shim(None) {
        eprintln!("passed over: {reason}");
        return;
    }
    for (number, (ours, theirs)) in
        [("10.9.0.2:7400", "10.9.0.1:7400"), ("[fd00::2]:7400", "[fd00::1]:7400")].into_iter().enumerate()
    {
        let Some((namespace, kernel)) = hosts() else { return };
        let (ours, theirs) = (ours.parse().unwrap(), theirs.parse().unwrap());
        let device = DeviceName::new(&format!("net_af_packet{number},iface=x0")).unwrap();
        let mut a = plan("a", Technology::Dpdk(DpdkPlan::at(device, ours)), ("b", theirs));
        a.datapaths[0].idle = insane_config::Idle::Block;
        let b = plan("b", Technology::Udp(UdpPlan::at(theirs)), ("a", ours));
        let start = |plan| Session::embedded_with(plan, Hosting::Thread, "dpdk").unwrap();
        // Threads that a runtime makes are in the namespace of the one that starts it.
        let a = namespace.inside(|| start(a));
        let b = kernel.inside(|| start(b));
        exchange(conversation(&a, &b, Reliability::Reliable), Reliability::Reliable, LARGEST);
        exchange(conversation(&b, &a, Reliability::Reliable), Reliability::Reliable, LARGEST);
        exchange(conversation(&a, &b, Reliability::Unreliable), Reliability::Unreliable, LARGEST);
        // A larger one may be more than the device's ring holds while the datapath sleeps.
        exchange(conversation(&b, &a, Reliability::Unreliable), Reliability::Unreliable, 60_000);
    }
}

fn dpdk_at(device: &str) -> Technology {
    Technology::Dpdk(DpdkPlan::at(DeviceName::new(device).unwrap(), "10.9.0.2:7400".parse().unwrap()))
}

#[test]
fn a_link_that_is_the_only_one_and_does_not_open_is_told_with_its_reason() {
    let Some((namespace, _kernel)) = hosts() else { return };
    let plan = plan("a", dpdk_at("net_af_packet7,iface=x7"), ("b", "10.9.0.1:7400".parse().unwrap()));
    let error = namespace.inside(|| Session::embedded_with(plan, Hosting::Thread, "dpdk").map(|_| ()).unwrap_err());
    let text = error.to_string();
    assert!(text.contains("link \"dpdk\"") && text.contains("interface x7: finding the interface"), "{text}");
}

/// Waits until the status says so of the dpdk link, the second of its datapath.
fn wait_for_link(session: &Session, what: &str, is_it: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        let link = session.runtime().unwrap().status().unwrap().datapaths[0].links[1].clone();
        if is_it(&link) {
            return link;
        }
        assert!(Instant::now() < end, "never {what}: {link:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

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
    let (near, far, at_udp) = (address("127.0.0.1:7500"), address("10.9.0.1:7400"), address("127.0.0.1:7400"));
    let mut ours = plan("ours", Technology::Udp(UdpPlan::at(at_udp)), ("near", near));
    let technology = dpdk_at("net_af_packet8,iface=x0");
    ours.datapaths[0].links.push(LinkPlan { name: "dpdk".into(), technology, rate: None, peers: vec![None] });
    ours.add_peer("far", &[("dpdk", far)]);
    let start = |plan| Session::embedded_with(plan, Hosting::Thread, "dpdk").unwrap();
    let ours = namespace.inside(|| start(ours));
    let near = namespace.inside(|| start(plan("near", Technology::Udp(UdpPlan::at(near)), ("ours", at_udp))));
    let link = wait_for_link(&ours, "missing", |link| !link.up);
    assert!(link.missing.unwrap().contains("interface x0: finding the interface"));
    let exchange_near = || {
        exchange(conversation(&ours, &near, Reliability::Reliable), Reliability::Reliable, 60_000);
    };
    exchange_near();
    join();
    let link = wait_for_link(&ours, "up, or without DPDK", |link| {
        link.up || link.missing.as_ref().is_some_and(|why| why.contains("library for DPDK"))
    });
    if !link.up {
        return eprintln!("passed over: {}", link.missing.unwrap());
    }
    let at_dpdk = address("10.9.0.2:7400");
    let far = kernel.inside(|| start(plan("far", Technology::Udp(UdpPlan::at(far)), ("ours", at_dpdk))));
    let exchange_far = || {
        exchange(conversation(&ours, &far, Reliability::Reliable), Reliability::Reliable, 60_000);
    };
    exchange_far();
    wait_for_link(&ours, "counting", |link| link.counters.get("answers_sent").is_some_and(|count| *count > 0));
    namespace.ip("link delete x0\n");
    wait_for_link(&ours, "missing again", |link| !link.up);
    exchange_near();
    join();
    wait_for_link(&ours, "up again", |link| link.up);
    exchange_far();
    wait_for_link(&ours, "counting", |link| link.counters.get("devices_lost") == Some(&1));
}
