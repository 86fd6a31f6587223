//! Whole runtimes on real sockets, memory and threads.
#![forbid(unsafe_code)]

mod peer;

use insane_config::{Member, Plan};
use insane_control::{Hosting, Runtime, StartError};
use insane_core::counters::{COUNTERS_MAX, PORT_BASE, PortCounter};
use insane_core::{Nanos, Qos};
use insane_shm::counters::CounterBlock;
use insane_sys::memfd;
use insane_sys::seqpacket::{self, PathError};
use insane_wire::control::{Code, Event, Request, Role, SinkWake, encode};
use insane_wire::status::StatusReport;
use peer::{HEAP, Peer};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn embedded() -> Runtime {
    Runtime::start(Plan::embedded_default(), Hosting::Thread).unwrap()
}

/// A plan with a socket of its own.
fn daemon_plan(name: &str) -> (Plan, PathBuf) {
    let path = std::env::temp_dir().join(format!("insane-control-{name}-{}.sock", std::process::id()));
    let mut plan = Plan::embedded_default();
    plan.domains[0].members = vec![Member::Any];
    plan.control.socket = Some(path.clone());
    (plan, path)
}

/// Waits for something that another thread brings about.
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn objects(runtime: &Runtime) -> u64 {
    runtime.status().expect("a report").memory.regions
}

#[test]
fn two_sessions_exchange_messages_through_a_direct_ring() {
    let runtime = embedded();
    let mut a = Peer::attach(runtime.attach_in_process().unwrap());
    let mut b = Peer::attach(runtime.attach_in_process().unwrap());
    let (stream_a, stream_b) = (a.open("io", Qos::default(), false), b.open("io", Qos::default(), false));
    a.source(stream_a, &HEAP).unwrap();
    b.sink(stream_b, SinkWake::Page).unwrap();
    // Each waits for the other's step: they take turns.
    while a.tx.is_empty() {
        a.settle();
        b.settle();
    }
    a.emit(1, b"small");
    a.emit_large(2, &[7; 3000]);
    assert_eq!(b.consume(), b"small");
    assert_eq!(b.consume(), [7; 3000]);
    let status = runtime.status().unwrap();
    assert_eq!(status.domains[0].sessions.len(), 2);
    assert_eq!((status.streams[0].sources, status.streams[0].sinks), (1, 1));
    assert_eq!(status.domains[0].quotas["connections"].used, 1);

    drop(a);
    b.until(|peer, _| !peer.retired.is_empty());
    drop(b);
    let empty = objects(&embedded());
    eventually("objects leaked", || objects(&runtime) == empty);
}

#[test]
fn an_isolated_stream_is_relayed_by_a_datapath() {
    let runtime = embedded();
    let mut a = Peer::attach(runtime.attach_in_process().unwrap());
    let mut b = Peer::attach(runtime.attach_in_process().unwrap());
    let (stream_a, stream_b) = (a.open("io", Qos::default(), true), b.open("io", Qos::default(), true));
    a.source(stream_a, &HEAP).unwrap();
    b.sink(stream_b, SinkWake::Fd).unwrap();
    while a.tx.is_empty() || b.rx.is_empty() {
        a.settle();
        b.settle();
    }
    assert!(a.tx_to_datapath.values().all(|to_datapath| *to_datapath));
    a.emit(1, b"small");
    assert_eq!(b.consume(), b"small");
    a.emit_large(2, &[9; 4000]);
    assert_eq!(b.consume(), [9; 4000]);
    let status = runtime.status().unwrap();
    assert_eq!(status.domains[0].counters["messages_from_sources"], 2);
    assert_eq!(status.domains[0].counters["messages_to_sinks"], 2);
}

/// Two runtimes on loopback; ports are tried until a pair is free.
fn pair(hosting: Hosting) -> (Runtime, Runtime) {
    for attempt in 0..50_u16 {
        let base = 20_000 + (std::process::id() % 20_000) as u16 + attempt * 8;
        let (a, b) = Plan::loopback_pair(base, base + 2);
        match (Runtime::start(a, hosting), Runtime::start(b, hosting)) {
            (Ok(a), Ok(b)) => return (a, b),
            (Err(StartError::Link { .. }), _) | (_, Err(StartError::Link { .. })) => {}
            (a, b) => panic!("{a:?} {b:?}"),
        }
    }
    panic!("no free ports");
}

fn across(hosting: Hosting) {
    let (left, right) = pair(hosting);
    let mut a = Peer::attach(left.attach_in_process().unwrap());
    let mut b = Peer::attach(right.attach_in_process().unwrap());
    let (stream_a, stream_b) = (a.open("io", Qos::default(), false), b.open("io", Qos::default(), false));
    a.source(stream_a, &HEAP).unwrap();
    let sink = b.sink(stream_b, SinkWake::Page).unwrap();
    // JOIN travels, and brings the connection.
    while a.tx.is_empty() {
        a.settle();
        b.settle();
    }
    a.emit(1, b"over the wire");
    assert_eq!(b.consume(), b"over the wire");
    a.emit_large(2, &[3; 4000]);
    assert_eq!(b.consume(), [3; 4000], "reassembled from fragments");
    let status = left.status().unwrap();
    assert_eq!(status.streams[0].peers, ["b"]);
    assert!(status.peers[0].up && status.peers[0].heard_ms_ago.is_some());
    // LEAVE takes it away.
    b.close_sink(sink);
    a.until(|peer, _| !peer.retired.is_empty());
    assert!(a.tx.is_empty());
    // And a peer that is gone is noticed.
    right.stop();
    eventually("the peer stays up", || left.status().is_some_and(|status| !status.peers[0].up));
}

#[test]
fn a_program_may_emit_and_exit() {
    // Hosted inline and turned by nobody but its keeper, the engine is slow enough to
    // hear of the end before it has seen the messages.
    let (left, right) = pair(Hosting::Inline);
    let mut a = Peer::attach(left.attach_in_process().unwrap());
    let mut b = Peer::attach(right.attach_in_process().unwrap());
    let (stream_a, stream_b) = (a.open("io", Qos::default(), false), b.open("io", Qos::default(), false));
    a.source(stream_a, &HEAP).unwrap();
    b.sink(stream_b, SinkWake::Page).unwrap();
    while a.tx.is_empty() {
        a.settle();
        b.settle();
    }
    for number in 0..60_u8 {
        a.emit(number.into(), &[number]);
    }
    drop(a);
    for number in 0..60_u8 {
        assert_eq!(b.consume(), [number]);
    }
}

#[test]
fn messages_cross_between_two_runtimes() {
    across(Hosting::Thread);
}

#[test]
fn messages_cross_between_two_runtimes_hosted_inline() {
    // The keepers turn the engines, since nobody else does here.
    across(Hosting::Inline);
    let inline = Runtime::start(Plan::embedded_default(), Hosting::Inline).unwrap();
    assert!(inline.inline().is_some() && embedded().inline().is_none());
}

#[test]
fn a_daemon_listens_knows_its_callers_and_leaves_no_socket_behind() {
    let (plan, path) = daemon_plan("listen");
    let runtime = Runtime::start(plan.clone(), Hosting::Thread).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, plan.control.mode);
    let second = Runtime::start(plan, Hosting::Thread);
    assert!(matches!(second, Err(StartError::Socket(PathError::InUse { .. }))), "{second:?}");
    let _peer = Peer::attach(seqpacket::connect(&path).unwrap());
    let session = runtime.status().unwrap().domains[0].sessions[0].clone();
    assert_eq!(session.pid, std::process::id());
    assert!(runtime.threads().len() >= 2 && runtime.failure().is_none());
    runtime.stop();
    assert!(!path.exists());
    let _ = std::fs::remove_file(path.with_extension("sock.lock"));
}

#[test]
fn strangers_are_turned_away_in_words() {
    let (mut plan, path) = daemon_plan("access");
    plan.domains[0].members = vec![Member::Uid(4_000_000)];
    let _runtime = Runtime::start(plan, Hosting::Thread).unwrap();
    let stranger = Peer::attach(seqpacket::connect(&path).unwrap());
    let (code, reason) = stranger.closed.expect("closed");
    assert_eq!(code, Code::Access);
    assert!(reason.contains("no access rule"), "{reason}");
    // Who runs the daemon may watch it all the same.
    let mut observer = Peer::new(seqpacket::connect(&path).unwrap());
    observer.hello(Role::Observer);
    assert!(observer.closed.is_none());
    let _ = std::fs::remove_file(path.with_extension("sock.lock"));
}

#[test]
fn bad_packets_end_their_session_and_no_other() {
    let (plan, path) = daemon_plan("bad");
    let runtime = Runtime::start(plan, Hosting::Thread).unwrap();
    let mut good = Peer::attach(seqpacket::connect(&path).unwrap());
    let memfd = memfd::create("test", 4096).unwrap();
    let status = encode(&Request::Status { req: 1 });
    let cases: [(&[u8], usize); 6] =
        [(b"x", 0), (&[0xff; 300], 0), (&[0; 17_000], 0), (&status, 1), (&status, 8), (&[1, 2, 3], 3)];
    for attached in [false, true] {
        for (bytes, fds) in cases {
            let socket = seqpacket::connect(&path).unwrap();
            let mut bad = if attached { Peer::attach(socket) } else { Peer::new(socket) };
            let fds: Vec<_> = (0..fds).map(|_| memfd.as_fd()).collect();
            assert_eq!(seqpacket::send(&bad.socket, bytes, &fds).unwrap(), seqpacket::SendOutcome::Sent);
            bad.settle();
            let (code, reason) = bad.closed.clone().expect("a last word");
            assert_eq!(code, Code::Protocol, "{reason}");
            assert!(bad.gone);
        }
    }
    let stream = good.open("io", Qos::default(), false);
    good.source(stream, &HEAP).unwrap();
    assert_eq!(runtime.status().unwrap().domains[0].sessions.len(), 1);
    let _ = std::fs::remove_file(path.with_extension("sock.lock"));
}

#[test]
fn who_never_says_hello_is_closed() {
    let (plan, path) = daemon_plan("silent");
    let _runtime = Runtime::start(plan, Hosting::Thread).unwrap();
    let mut silent = Peer::new(seqpacket::connect(&path).unwrap());
    match silent.wait() {
        Some((Event::Closing { code, reason }, _)) => {
            assert_eq!(code, Code::Protocol);
            assert!(reason.contains("HELLO"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let _ = std::fs::remove_file(path.with_extension("sock.lock"));
}

#[test]
fn who_does_not_read_is_closed_and_others_are_served() {
    let (plan, path) = daemon_plan("deaf");
    let runtime = Runtime::start(plan, Hosting::Thread).unwrap();
    let deaf = Peer::attach(seqpacket::connect(&path).unwrap());
    let mut sent = 0_u32;
    eventually("the deaf session stays", || {
        let packet = encode(&Request::CloseSink { req: sent, sink: insane_core::SinkId(0) });
        for _ in 0..50 {
            sent += 1;
            if !matches!(seqpacket::send(&deaf.socket, &packet, &[]), Ok(seqpacket::SendOutcome::Sent)) {
                break;
            }
        }
        runtime.status().is_some_and(|status| status.domains[0].sessions.is_empty())
    });
    let mut other = Peer::attach(seqpacket::connect(&path).unwrap());
    other.open("io", Qos::default(), false);
    let _ = std::fs::remove_file(path.with_extension("sock.lock"));
}

#[test]
fn a_thousand_sources_and_sinks_leave_nothing_behind() {
    // With and without a preparer between control plane and datapath.
    for (prefault, rounds) in [(false, 700), (true, 300)] {
        let mut plan = Plan::embedded_default();
        plan.memory.prefault = prefault;
        come_and_go(&Runtime::start(plan, Hosting::Thread).unwrap(), rounds);
    }
}

/// What was closed counts until the datapath has let it go, so that a client that is
/// quicker than the datapath meets its quota, and asks again.
fn in_quota<T>(peer: &mut Peer, mut ask: impl FnMut(&mut Peer) -> Result<T, (Code, String)>) -> T {
    let mut made = None;
    eventually("the quota stays used up", || {
        made = match ask(peer) {
            Ok(made) => Some(made),
            Err((Code::Quota, _)) => None,
            Err(other) => panic!("{other:?}"),
        };
        made.is_some()
    });
    made.expect("eventually")
}

fn come_and_go(runtime: &Runtime, rounds: usize) {
    let mut peer = Peer::attach(runtime.attach_in_process().unwrap());
    let stream = peer.open("io", Qos::default(), true);
    let mut before = None;
    for _ in 0..rounds {
        let source = in_quota(&mut peer, |peer| peer.source(stream, &[]));
        let sink = in_quota(&mut peer, |peer| peer.sink(stream, SinkWake::Never));
        peer.until(|peer, _| !peer.tx.is_empty());
        peer.close_source(source);
        peer.close_sink(sink);
        peer.rx.clear();
        before.get_or_insert_with(|| objects(runtime));
    }
    peer.settle();
    eventually("connections stay in use", || {
        runtime.status().is_some_and(|status| status.domains[0].quotas["connections"].used == 0)
    });
    assert_eq!(Some(objects(runtime)), before);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().count();
    assert!(open < 500, "{open} descriptors are open");
}

#[test]
fn a_status_report_comes_in_pieces_and_a_shutdown_is_announced() {
    let (plan, path) = daemon_plan("status");
    let runtime = Runtime::start(plan, Hosting::Thread).unwrap();
    let mut tool = Peer::new(seqpacket::connect(&path).unwrap());
    tool.hello(Role::Observer);
    tool.send(&Request::Status { req: 5 });
    let mut json = Vec::new();
    loop {
        let Some((Event::Status { req: 5, last, piece }, _)) = tool.wait() else { panic!("a piece") };
        json.extend(piece);
        if last {
            break;
        }
    }
    let report: StatusReport = serde_json::from_slice(&json).unwrap();
    assert_eq!(report.threads[0].name, "control");
    assert!(report.threads.iter().all(|thread| thread.tid > 0));
    assert_eq!(report.datapaths[0].idle, "spin_then_block");
    eventually("no turn's time is taken", || {
        runtime.status().is_some_and(|status| status.datapaths[0].counters["turn_ns_max"] > 0)
    });
    runtime.stop();
    let Some((Event::Closing { code: Code::Shutdown, .. }, _)) = tool.wait() else { panic!("a last word") };
    assert!(tool.wait().is_none());
    let _ = std::fs::remove_file(path.with_extension("sock.lock"));
}

#[test]
fn what_this_host_does_not_give_is_said_and_the_rest_runs() {
    let mut plan = Plan::embedded_default();
    plan.datapaths[0].core = Some(60_000);
    let runtime = Runtime::start(plan, Hosting::Thread).unwrap();
    assert!(runtime.degraded().iter().any(|reason| reason.contains("60000")), "{:?}", runtime.degraded());
    assert!(runtime.status().unwrap().degraded.len() == 1);
    assert!(runtime.status().unwrap().datapaths[0].core.is_none());
    let mut peer = Peer::attach(runtime.attach_in_process().unwrap());
    peer.open("io", Qos::default(), false);
}

#[test]
fn what_cannot_be_is_refused_before_anything_runs() {
    let mut plan = Plan::embedded_default();
    plan.memory.limit_bytes = 1 << 20;
    assert!(matches!(Runtime::start(plan, Hosting::Thread), Err(StartError::DoesNotFit(_))));
    let plan = Plan::embedded_udp("x", "192.0.2.1:7400".parse().unwrap());
    let error = Runtime::start(plan, Hosting::Thread).unwrap_err().to_string();
    assert!(error.contains("192.0.2.1"), "{error}");
    let (mut plan, _) = daemon_plan("nowhere");
    plan.control.socket = Some("/nowhere/at/all/insane.sock".into());
    let error = Runtime::start(plan, Hosting::Thread).unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all"), "{error}");
}

#[test]
fn a_lying_client_loses_its_connection_and_the_runtime_lives() {
    let runtime = embedded();
    let mut liar = Peer::attach(runtime.attach_in_process().unwrap());
    let mut b = Peer::attach(runtime.attach_in_process().unwrap());
    let (stream_a, stream_b) = (liar.open("io", Qos::default(), true), b.open("io", Qos::default(), true));
    liar.source(stream_a, &HEAP).unwrap();
    b.sink(stream_b, SinkWake::Never).unwrap();
    while liar.tx.is_empty() {
        liar.settle();
        b.settle();
    }
    // A buffer that does not exist: the datapath notices and says so.
    let (_, conn) = liar.tx.values_mut().next().unwrap();
    let mut heap = insane_shm::heap::SenderHeap::new(
        insane_shm::region::Region::anonymous(16 << 20).unwrap(),
        insane_core::heap::Geometry::new(&[insane_core::heap::ClassSpec { size: 1_000_000, count: 4 }]).unwrap(),
    );
    let id = heap.loan(1_000_000).unwrap();
    heap.lend(id);
    conn.push_heap(&mut heap, insane_shm::cell::Meta::default(), id, 1_000_000);
    if conn.wants_wake() {
        conn.wake();
    }
    liar.until(|peer, _| !peer.retired.is_empty());
    eventually("the violation is not counted", || {
        runtime.status().is_some_and(|status| status.domains[0].counters["violations"] == 1)
    });
    assert!(runtime.failure().is_none());
    let beat = runtime.last_beat();
    eventually("the control plane stands still", || runtime.last_beat() > beat + Nanos::from_millis(100));
}

/// Who writes its page as it likes, and names lines as it likes, shows figures of its own that are
/// wrong, and nothing else.
#[test]
fn lines_that_are_claimed_twice_or_beyond_the_page_show_nobody_elses_figures() {
    const MESSAGES: usize = PortCounter::Messages as usize;
    let runtime = embedded();
    let mut honest = Peer::attach(runtime.attach_in_process().unwrap());
    let mut liar = Peer::attach(runtime.attach_in_process().unwrap());
    let (ours, theirs) = (honest.open("io", Qos::default(), false), liar.open("io", Qos::default(), false));
    let block = |peer: &Peer, line| CounterBlock::new(peer.counters.clone().unwrap(), line).unwrap();
    honest.line = Some(3);
    let source = honest.source(ours, &[]).unwrap();
    block(&honest, 3).add(MESSAGES, 9);
    block(&honest, 3).add(PORT_BASE + MESSAGES, 2);
    // One line for three ends, one of which nobody says that it counts there, and none.
    let mut ends = Vec::new();
    for line in [Some(3), Some(3), Some(255), None] {
        liar.line = line;
        ends.push(liar.source(theirs, &[]).unwrap());
    }
    liar.line = Some(3);
    let sink = liar.sink(theirs, SinkWake::Page).unwrap();
    for line in [256, 257, u32::MAX] {
        liar.line = Some(line);
        let (code, reason) = liar.source(theirs, &[]).unwrap_err();
        assert_eq!(code, Code::Invalid);
        assert!(reason.contains("0 to 255") && reason.contains(&line.to_string()), "{reason}");
        assert_eq!(liar.sink(theirs, SinkWake::Page).unwrap_err().0, Code::Invalid);
    }
    block(&liar, 3).add(MESSAGES, u64::MAX);
    block(&liar, 255).add(PORT_BASE + MESSAGES, u64::MAX);
    (MESSAGES..COUNTERS_MAX).for_each(|counter| block(&liar, 200).add(counter, u64::MAX));
    let status = runtime.status().unwrap();
    let channel = &status.streams[0].channels[0];
    let of = |id| channel.sources.iter().find(|row| row.id == id).unwrap().counters.clone();
    let only = |count| Some([("messages".to_owned(), count)].into());
    assert_eq!(of(source.0), only(7), "what was counted there before is not its own");
    assert_eq!([0, 1, 2, 3].map(|at| of(ends[at].0)), [only(u64::MAX), only(u64::MAX), Some([].into()), None]);
    assert_eq!(channel.sinks.iter().find(|row| row.id == sink.0).unwrap().counters, only(u64::MAX));
    let session =
        |messages| status.domains[0].sessions.iter().filter(|row| row.counters["messages"] == messages).count();
    assert_eq!((session(9), session(u64::MAX.wrapping_mul(2))), (1, 1));
}
