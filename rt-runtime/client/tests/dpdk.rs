//! Runtimes of two hosts: one over a dpdk link, the other over a kernel udp link.

#[path = "../../../plugins/xdp/tests/common/mod.rs"]
mod common;

use common::Namespace;
use insane_config::{DeviceName, DpdkPlan, Technology, UdpPlan};
use insane_rt::{
    ChannelId, ClassSpec, Emit, Hosting, Plan, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions,
};
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

#[test]
fn a_runtime_starts_without_its_device_and_serves_its_own_host() {
    let Some((namespace, _kernel)) = hosts() else { return };
    let device = DeviceName::new("net_af_packet7,iface=x7").unwrap();
    let dpdk = Technology::Dpdk(DpdkPlan::at(device, "10.9.0.2:7400".parse().unwrap()));
    let plan = plan("a", dpdk, ("b", "10.9.0.1:7400".parse().unwrap()));
    let session = namespace.inside(|| Session::embedded_with(plan, Hosting::Thread, "dpdk").unwrap());
    exchange(conversation(&session, &session, Reliability::Reliable), Reliability::Reliable, 60_000);
}
