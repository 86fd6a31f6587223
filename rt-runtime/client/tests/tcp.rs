//! Runtimes that reach each other over tcp links, alone and beside udp.

use insane_config::{LinkPlan, TcpPlan, Technology, UdpPlan};
use insane_rt::{
    ChannelId, ClassSpec, Emit, Hosting, Plan, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LARGEST: usize = 10_000_000;

/// A free pair of ports (a link uses its port and the next).
fn free_ports(ip: IpAddr) -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + (std::process::id() % 20_000) as u16;
    for _ in 0..1000 {
        let port = base + 2 * NEXT.fetch_add(1, Ordering::Relaxed);
        let free = |port: u16| TcpListener::bind((ip, port)).is_ok() && std::net::UdpSocket::bind((ip, port)).is_ok();
        if free(port) && free(port + 1) {
            return (ip, port).into();
        }
    }
    panic!("no free pair of ports")
}

/// Room for the largest message that these tests send.
fn roomy(mut plan: Plan) -> Plan {
    let classes = [(256, 1024), (20_000, 256), (1_048_576, 8), (LARGEST as u32, 4)];
    plan.domains[0].receive = classes.map(|(size, count)| ClassSpec { size, count }).to_vec();
    plan
}

/// The plans of two runtimes at these addresses.
fn pair_at(at_a: SocketAddr, at_b: SocketAddr) -> [Plan; 2] {
    let plan = |own: (&str, SocketAddr), peer: (&str, SocketAddr)| {
        let mut plan = roomy(Plan::embedded_over(own.0, Technology::Tcp(TcpPlan::at(own.1))));
        plan.add_peer(peer.0, &[("tcp", peer.1)]);
        plan
    };
    [plan(("a", at_a), ("b", at_b)), plan(("b", at_b), ("a", at_a))]
}

fn pair(ip: IpAddr) -> [Plan; 2] {
    pair_at(free_ports(ip), free_ports(ip))
}

fn start(plan: Plan, hosting: Hosting) -> Session {
    Session::embedded_with(plan, hosting, "tcp").unwrap()
}

fn qos(reliability: Reliability) -> Qos {
    Qos { reliability, ..Qos::default() }
}

fn conversation(from: &Session, to: &Session, reliability: Reliability) -> (Source, Sink) {
    let name = format!("{reliability:?}");
    let options = SourceOptions::default().buffers(LARGEST as u32, 2);
    let sink = to.stream(&name, qos(reliability)).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    let source = from.stream(&name, qos(reliability)).unwrap().source(ChannelId(1), options).unwrap();
    wait_for(from, "the sink is heard of", || source.receivers() > 0);
    (source, sink)
}

/// Waits while the session's engine turns, should it be an inline one.
#[track_caller]
fn wait_for(session: &Session, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        if !session.turn() {
            std::thread::sleep(Duration::from_micros(100));
        }
    }
}

fn byte(at: usize, len: usize) -> u8 {
    (at.wrapping_mul(7) ^ (at >> 9) ^ len) as u8
}

/// Emits `len` bytes; false if refused.
fn emit(source: &Source, len: usize) -> bool {
    let mut buffer = source.get_buffer_timeout(len, PATIENCE).unwrap();
    buffer.iter_mut().enumerate().for_each(|(at, to)| *to = byte(at, len));
    matches!(source.emit(buffer), Emit::Sent(_))
}

/// Sends messages of every kind of size, one after another, and checks each. An
/// unreliable one may be lost where a receiver has to wait for its core.
fn exchange(from: &Session, source: &Source, sink: &Sink, reliability: Reliability) {
    let attempts = if reliability == Reliability::Reliable { 1 } else { 5 };
    for len in [0, 8, 96, 97, 1400, 16_320, 16_321, 60_000, 1_000_000, LARGEST] {
        let came = (0..attempts).any(|_| {
            assert!(emit(source, len), "{len} bytes");
            comes(from, sink, len, PATIENCE / attempts)
        });
        assert!(came, "{reliability:?}: {len} bytes");
    }
}

/// Whether a message of this length comes in time; checks what is in it.
fn comes(from: &Session, sink: &Sink, len: usize, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        from.turn();
        let Some(message) = sink.consume_timeout(Duration::from_millis(1)).unwrap() else { continue };
        assert_eq!(message.len(), len);
        let bytes = message.bytes().expect("the runtime wrote it");
        assert!(bytes.iter().enumerate().all(|(at, is)| *is == byte(at, len)), "{len} bytes");
        return true;
    }
    false
}

#[test]
fn every_size_crosses_reliable_and_not_in_both_directions() {
    for ip in [V4, Ipv6Addr::LOCALHOST.into()] {
        let [a, b] = pair(ip).map(|plan| start(plan, Hosting::Thread));
        for reliability in [Reliability::Unreliable, Reliability::Reliable] {
            for (from, to) in [(&a, &b), (&b, &a)] {
                let (source, sink) = conversation(from, to, reliability);
                exchange(from, &source, &sink, reliability);
            }
        }
    }
}

#[test]
fn an_application_may_turn_the_engine_itself() {
    let [plan_a, plan_b] = pair(V4);
    let (a, b) = (start(plan_a, Hosting::Inline), start(plan_b, Hosting::Thread));
    for reliability in [Reliability::Unreliable, Reliability::Reliable] {
        let (source, sink) = conversation(&a, &b, reliability);
        exchange(&a, &source, &sink, reliability);
    }
}

#[test]
fn datapaths_that_sleep_at_once_find_each_other_and_miss_nothing() {
    let [a, b] = pair(V4).map(|mut plan| {
        plan.datapaths[0].idle = insane_config::Idle::Block;
        start(plan, Hosting::Thread)
    });
    let (source, sink) = conversation(&a, &b, Reliability::Unreliable);
    exchange(&a, &source, &sink, Reliability::Unreliable);
}

#[test]
fn a_thousand_reliable_messages_arrive_in_order_while_the_connection_is_busy() {
    let [a, b] = pair(V4).map(|plan| start(plan, Hosting::Thread));
    let (source, sink) = conversation(&a, &b, Reliability::Reliable);
    let mut received = 0_u64;
    for number in 0..1000 {
        let len = 1000 + number * 7919 % 50_000;
        while !emit(&source, len) {
            take(&sink, &mut received);
        }
        take(&sink, &mut received);
    }
    wait_for(&a, "all arrive", || {
        take(&sink, &mut received);
        received == 1000
    });
}

fn take(sink: &Sink, received: &mut u64) {
    while let Some(message) = sink.consume().unwrap() {
        assert_eq!((message.sequence(), message.lost()), (*received, 0));
        let len = 1000 + (*received as usize) * 7919 % 50_000;
        assert_eq!(message.len(), len);
        assert!(message.bytes().unwrap().iter().enumerate().all(|(at, is)| *is == byte(at, len)));
        *received += 1;
    }
}

#[test]
fn a_runtime_that_restarts_is_reached_again() {
    let (at_a, at_b) = (free_ports(V4), free_ports(V4));
    let plans = || pair_at(at_a, at_b);
    let [plan_a, plan_b] = plans();
    let a = start(plan_a, Hosting::Thread);
    let mut b = start(plan_b, Hosting::Thread);
    for _ in 0..3 {
        let (source, sink) = conversation(&a, &b, Reliability::Unreliable);
        exchange(&a, &source, &sink, Reliability::Unreliable);
        drop((source, sink, b));
        let [_, plan_b] = plans();
        b = start(plan_b, Hosting::Thread);
    }
    // And the side that accepts, too.
    drop(a);
    let [plan_a, _] = plans();
    let a = start(plan_a, Hosting::Thread);
    let (source, sink) = conversation(&b, &a, Reliability::Reliable);
    exchange(&b, &source, &sink, Reliability::Reliable);
}

/// One datapath with both technologies: one peer is reached by udp, the other by tcp.
#[test]
fn a_datapath_may_mix_technologies() {
    for hosting in [Hosting::Thread, Hosting::Inline] {
        let [hub_udp, hub_tcp, by_udp, by_tcp] = [0; 4].map(|_| free_ports(V4));
        let mut hub = roomy(Plan::embedded_over("hub", Technology::Tcp(TcpPlan::at(hub_tcp))));
        let udp = Technology::Udp(UdpPlan::at(hub_udp));
        hub.datapaths[0].links.push(LinkPlan { name: "udp".into(), technology: udp, rate: None, peers: Vec::new() });
        hub.add_peer("by udp", &[("udp", by_udp)]);
        hub.add_peer("by tcp", &[("tcp", by_tcp)]);
        let leaf = |name: &str, technology: Technology, to| {
            let link = technology.name();
            let mut plan = roomy(Plan::embedded_over(name, technology));
            plan.add_peer("hub", &[(link, to)]);
            start(plan, Hosting::Thread)
        };
        let by_udp = leaf("by udp", Technology::Udp(UdpPlan::at(by_udp)), hub_udp);
        let by_tcp = leaf("by tcp", Technology::Tcp(TcpPlan::at(by_tcp)), hub_tcp);
        let hub = start(hub, hosting);
        let (source, over_udp) = conversation(&hub, &by_udp, Reliability::Reliable);
        let (_other, over_tcp) = conversation(&hub, &by_tcp, Reliability::Reliable);
        // For a source all remote sinks are one receiver: whether both are there, only their
        // messages tell.
        let mut heard = [false; 2];
        wait_for(&hub, "both are heard of", || {
            let _ = emit(&source, 1);
            for (heard, sink) in heard.iter_mut().zip([&over_udp, &over_tcp]) {
                *heard |= sink.consume().unwrap().is_some();
            }
            heard == [true; 2]
        });
        for len in [8, 1000, 100_000] {
            wait_for(&hub, "there is room", || emit(&source, len));
            for sink in [&over_udp, &over_tcp] {
                wait_for(&hub, "the message comes", || {
                    let came = sink.consume().unwrap().map(|message| message.len());
                    assert!(came.is_none_or(|came| came == 1 || came == len), "{came:?}");
                    came == Some(len)
                });
            }
        }
    }
}

#[test]
fn links_tell_what_they_count() {
    let [a, b] = pair(V4);
    let (a, b) = (start(a, Hosting::Thread), start(b, Hosting::Thread));
    let _joined = conversation(&a, &b, Reliability::Unreliable);
    let end = Instant::now() + PATIENCE;
    loop {
        let counters = a.runtime().unwrap().status().unwrap().datapaths[0].links[0].counters.clone();
        // Both classes; which end of a pair connects does not matter.
        if counters["connections_made"] >= 2 {
            assert_eq!(counters["connections_lost"], 0, "{counters:?}");
            break;
        }
        assert!(Instant::now() < end, "{counters:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
