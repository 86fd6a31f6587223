//! Gates from configuration to wire, with two real daemons over loopback: what left when is told
//! by the kernel's own stamps, so it does not matter when anybody who looks is run.

mod common;

use common::{Daemon, text, wait_for};
use insane_rt::{
    ChannelId, Code, Determinism, Nanos, Priority, Qos, RequestError, Session, SinkOptions, SourceOptions,
};
use insane_wire::data::Kind;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeSpec;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CYCLE_MS: u64 = 100;
const CYCLE: Nanos = Nanos::from_millis(CYCLE_MS);
/// Of the cycle: best effort may send then.
const BEST_EFFORT_MS: u64 = 40;
/// A thread that has decided may be put aside before it sends: a fourth of what is shut.
const SLACK_MS: u64 = 15;
const CYCLES: u32 = 20;
/// Bytes of a message of best effort; what is smaller is the overlay's.
const BULK: usize = 1024;

/// A datagram on loopback: when it left, to which port, and its bytes.
#[derive(Clone, Copy)]
struct Seen {
    at: Nanos,
    port: u16,
    bytes: usize,
    /// A message, and nothing that the control plane says: that has no gate.
    is_message: bool,
}

/// Sees every datagram of this machine; `None` without the right to.
fn tap() -> Option<OwnedFd> {
    let tap = socket(AddressFamily::Packet, SockType::Datagram, SockFlag::SOCK_NONBLOCK, SockProtocol::EthAll).ok()?;
    setsockopt(&tap, sockopt::ReceiveTimestampns, &true).unwrap();
    setsockopt(&tap, sockopt::RcvBufForce, &(16 << 20)).ok()?;
    Some(tap)
}

/// The next one, if it is UDP over IPv4.
fn look(tap: &OwnedFd) -> Option<Option<Seen>> {
    let mut head = [0_u8; 31];
    let mut parts = [IoSliceMut::new(&mut head)];
    let mut space = nix::cmsg_space!(TimeSpec);
    let message = recvmsg::<()>(tap.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_TRUNC).ok()?;
    let at = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(at) => {
            Some(Nanos(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64))
        }
        _ => None,
    });
    let bytes = message.bytes;
    let at = at.expect("each has a stamp");
    // Version 4, a head of 20 bytes, and UDP in it.
    let is_udp = bytes >= head.len() && head[0] == 0x45 && head[9] == 17;
    let is_message = head[30] == Kind::Data as u8;
    Some(is_udp.then(|| Seen { at, port: u16::from_be_bytes([head[22], head[23]]), bytes, is_message }))
}

/// The shortest part of the cycle that has 99 of 100 of these, milliseconds: where it begins, and
/// how long it is.
fn arc(phases: &[f64]) -> (f64, f64) {
    let cycle = CYCLE_MS as f64;
    let mut sorted = phases.to_vec();
    sorted.sort_by(f64::total_cmp);
    let inside = sorted.len() * 99 / 100;
    let length = |first: usize| {
        let last = first + inside - 1;
        let turn = if last >= sorted.len() { cycle } else { 0.0 };
        sorted[last % sorted.len()] + turn - sorted[first]
    };
    let first = (0..sorted.len()).min_by(|one, other| length(*one).total_cmp(&length(*other))).unwrap();
    (sorted[first], length(first))
}

#[test]
fn best_effort_leaves_only_in_its_window_and_slots_are_in_the_other() {
    let Some(tap) = tap() else {
        eprintln!("passed over: no right to see what leaves");
        return;
    };
    let base = 46_000 + (std::process::id() % 3_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base..60_000).step_by(2).filter(|port| free(*port)).take(2).collect();
    let (shut_us, open_us) = ((CYCLE_MS - BEST_EFFORT_MS) * 1_000, BEST_EFFORT_MS * 1_000);
    let gates = format!(
        ", gates: (cycle_us: {}, windows: [(lanes: [0, 1, 2], us: {shut_us}), (lanes: [3, 4, 5, 6, 7], us: {open_us})])",
        CYCLE_MS * 1_000
    );
    let start = |name: &str, own: u16, peer: u16, other: &str, gates: &str| {
        let config = format!(
            r#"datapaths: [(name: "main", idle: spin_then_block(us: 20), links: ["l0"]{gates})],
            links: [(name: "l0", technology: udp(bind: "127.0.0.1:{own}"), rate_mbps: 100, turn_us: 200)],
            peers: [(name: "{other}", links: {{"l0": "127.0.0.1:{peer}"}})],
            domains: [(name: "line", members: [any], receive: [(size: 2048, count: 256)])]"#
        );
        Daemon::start(name, &config)
    };
    let here = start("gates-a", ports[0], ports[1], "gates-b", &gates);
    let there = start("gates-b", ports[1], ports[0], "gates-a", "");
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let every =
        |period| Qos { determinism: Determinism::periodic(period, 64), priority: Priority::MAX, ..Qos::default() };

    // Admission counts the gates: ten times a cycle meets those that are shut.
    let often = a.stream("often", every(Nanos::from_millis(CYCLE_MS / 10))).unwrap();
    match often.source(ChannelId(1), SourceOptions::default()).map(|_| ()) {
        Err(RequestError::Refused { code: Code::NotAdmitted, reason }) => {
            assert!(reason.contains("Blocked"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let axis = a.stream("axis", every(CYCLE)).unwrap();
    let source = axis.source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = b.stream("axis", every(CYCLE)).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    let flood = a.stream("bulk", Qos::default()).unwrap();
    let flood = flood.source(ChannelId(2), SourceOptions::default().buffers(BULK as u32, 32)).unwrap();
    let drain = b.stream("bulk", Qos::default()).unwrap().sink(ChannelId(2), SinkOptions::default()).unwrap();
    wait_for("both are joined", || source.receivers() == 1 && flood.receivers() == 1);
    wait_for("the slots are in force", || here.status().datapaths[0].counters["slots_unused"] > 0);
    let told = here.status().datapaths.remove(0).gates;
    assert_eq!(told.as_deref(), Some("lanes 0 1 2 for 60.00 ms, lanes 3 4 5 6 7 for 40.00 ms, from TAI 0 ns"));

    let ends = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut seen = Vec::new();
            while !ends.load(Ordering::Relaxed) {
                match look(&tap) {
                    Some(one) => seen.extend(one.filter(|one| one.port == ports[1] || one.port == ports[1] + 1)),
                    None => std::thread::sleep(Duration::from_micros(500)),
                }
            }
            seen
        });
        let (start, mut emitted) = (Instant::now(), 0);
        while start.elapsed() < Duration::from(CYCLE) * CYCLES {
            while let Ok(buffer) = flood.get_buffer(BULK) {
                if !flood.emit(buffer).is_sent() {
                    break;
                }
            }
            if start.elapsed() >= Duration::from(CYCLE) * emitted {
                let buffer = source.get_buffer(64).unwrap();
                let _ = source.emit(buffer);
                emitted += 1;
            }
            while let Ok(Some(_)) = drain.consume() {}
            while let Ok(Some(_)) = sink.consume() {}
            std::thread::sleep(Duration::from_micros(200));
        }
        ends.store(true, Ordering::Relaxed);
        watch.join().unwrap()
    });

    let phase = |one: &Seen| (one.at.0 % CYCLE.0) as f64 / 1e6;
    let bulk: Vec<f64> = seen.iter().filter(|one| one.port == ports[1] + 1 && one.bytes > BULK).map(phase).collect();
    let timed: Vec<f64> = seen.iter().filter(|one| one.port == ports[1] && one.is_message).map(phase).collect();
    let (begins, length) = arc(&bulk);
    println!("{} of best effort in {length:.1} ms from {begins:.1}, {} in slots", bulk.len(), timed.len());
    assert!(bulk.len() > 1_000 && timed.len() >= CYCLES as usize / 2, "{} and {}", bulk.len(), timed.len());
    assert!(length > BEST_EFFORT_MS as f64 / 2.0, "its window is used: {length}");
    assert!(length <= (BEST_EFFORT_MS + SLACK_MS) as f64, "best effort leaves in {length} ms of each {CYCLE_MS} ms");
    // Where best effort may not, by as much as the two are apart for certain.
    let into = |phase: &f64| (phase - begins).rem_euclid(CYCLE_MS as f64);
    let apart = timed.iter().filter(|phase| into(phase) >= BEST_EFFORT_MS as f64 - 2.0).count();
    assert!(apart * 10 >= timed.len() * 9, "{apart} of {} slots are where best effort is not: {timed:?}", timed.len());

    let exported = common::insane()
        .args(["schedule", "taprio", "gates"])
        .arg(here.folder.join("insaned.ron"))
        .args(["main", "--dev", "eth0"])
        .output()
        .unwrap();
    let exported = text(&exported.stdout);
    for line in ["cycle-time 100000000", "sched-entry S 01 60000000", "sched-entry S 02 40000000"] {
        assert!(exported.contains(line), "{line:?} is missing in {exported}");
    }
}
