//! Streams with slots between two real daemons that are joined by two links, each over a cable of
//! its own: they have the slots of one link and then those of the other, move when a cable is
//! dead, and stay or go without slots where they hold no certificate for another link. How well
//! slots are kept is not judged: the machine is shared.

mod common;

use common::{Daemon, Namespaces, insane, ip, text, wait_for};
use insane_rt::{ChannelId, Determinism, Emit, Nanos, Qos, Session, Sink, SinkOptions, Source, SourceOptions};
use insane_sys::clock::mono_now;
use insane_wire::status::StandingStatus;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const MS: u64 = 1_000_000;
const PERIOD: Nanos = Nanos::from_millis(20);
/// Where the slots of the schedule begin on either link.
const STARTS: [u64; 2] = [3 * MS, 13 * MS];
const LINKS: [&str; 2] = ["one", "two"];
/// Every payload begins with it; the number of the message follows.
const MARK: [u8; 8] = *b"in slots";

/// Two daemons, each in a namespace, and two cables between them.
struct Pair {
    namespaces: Namespaces,
    hosts: [Daemon; 2],
}

impl Pair {
    /// `streams`: what the first one declares. `None`: there is no right to make namespaces.
    fn new(test: &str, streams: &str) -> Option<Pair> {
        let namespaces = Namespaces::pair(test)?;
        let [a, b] = [0, 1].map(|at| namespaces.name(at));
        assert!(ip(&format!("-n {a} link add eth1 type veth peer name eth1 netns {b}")));
        for (at, name) in [a, b].into_iter().enumerate() {
            assert!(ip(&format!("-n {name} addr add 10.78.0.{}/24 dev eth1", at + 1)));
            assert!(ip(&format!("-n {name} link set eth1 up")));
        }
        let hosts = [0, 1].map(|at| {
            let (own, other) = (at + 1, 2 - at);
            let streams = if at == 0 { streams } else { "" };
            let config = format!(
                r#"datapaths: [(name: "main", idle: spin_then_block(us: 20), links: ["one", "two"])],
                links: [
                    (name: "one", technology: udp(bind: "10.77.0.{own}:4000"), rate_mbps: 100, turn_us: 200),
                    (name: "two", technology: udp(bind: "10.78.0.{own}:4000"), rate_mbps: 1000, turn_us: 200),
                ],
                peers: [(name: "{test}{other}", links: {{"one": "10.77.0.{other}:4000", "two": "10.78.0.{other}:4000"}})],
                domains: [(name: "line", members: [any], receive: [(size: 2048, count: 256)], streams: [{streams}])]"#
            );
            Daemon::start_in(Some(namespaces.name(at)), &format!("{test}{own}"), &config)
        });
        for host in &hosts {
            wait_for("both links are up", || {
                let peers = host.status().peers;
                peers[0].ways.len() == 2 && peers[0].ways.iter().all(|way| way.up)
            });
        }
        Some(Pair { namespaces, hosts })
    }

    /// A cable is pulled at the second host, or put in again.
    fn plug(&self, cable: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        assert!(ip(&format!("-n {} link set eth{cable} {state}", self.namespaces.name(1))));
    }

    fn standing(&self, stream: &str) -> StandingStatus {
        let streams = self.hosts[0].status().streams;
        let found = streams.into_iter().find(|row| row.name == stream).expect("it is open");
        found.standing.expect("it has slots")
    }

    fn count(&self, counter: &str) -> u64 {
        self.hosts[0].status().datapaths[0].counters[counter]
    }
}

/// A message as it came to the second host.
#[derive(Clone, Copy, Debug)]
struct Seen {
    number: u64,
    link: usize,
    at_ns: u64,
}

/// Sees every frame that comes to a namespace, by whatever cable.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<Seen>>>,
}

impl Watcher {
    fn new(namespace: &str) -> Watcher {
        let stop = Arc::new(AtomicBool::new(false));
        let (ends, path) = (Arc::clone(&stop), format!("/var/run/netns/{namespace}"));
        let (ready, is_ready) = std::sync::mpsc::channel();
        let watch = move || {
            let file = std::fs::File::open(path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let (kind, all) = (SockType::Datagram, SockProtocol::EthAll);
            let packets = socket(AddressFamily::Packet, kind, SockFlag::SOCK_CLOEXEC, all).unwrap();
            setsockopt(&packets, sockopt::ReceiveTimeout, &TimeVal::new(0, 20_000)).unwrap();
            ready.send(()).unwrap();
            let (mut seen, mut frame) = (Vec::new(), [0_u8; 2048]);
            while !ends.load(Ordering::Relaxed) {
                let Ok(len) = recv(packets.as_raw_fd(), &mut frame, MsgFlags::empty()) else { continue };
                let at_ns = mono_now().0;
                let frame = &frame[..len];
                let Some(at) = frame.windows(MARK.len()).position(|part| part == MARK) else { continue };
                let number = u64::from_le_bytes(frame[at + 8..at + 16].try_into().unwrap());
                // Of an IPv4 header: the second byte of where it goes.
                let link = usize::from(frame[17] - 77);
                seen.push(Seen { number, link, at_ns });
            }
            seen
        };
        let thread = std::thread::spawn(watch);
        is_ready.recv().expect("it watches");
        Watcher { stop, thread: Some(thread) }
    }

    fn end(mut self) -> Vec<Seen> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

/// A source at the first host and a sink at the second one.
struct Flow {
    source: Source,
    sink: Sink,
    session: Session,
    _other: Session,
    emitted: u64,
    received: u64,
    lost: u64,
}

impl Flow {
    fn new(pair: &Pair, name: &str) -> Flow {
        let qos = Qos { determinism: Determinism::periodic(PERIOD, 64), ..Qos::default() };
        let attach = |at: usize| Session::attach(pair.hosts[at].socket(), "app").unwrap();
        let (session, other) = (attach(0), attach(1));
        let sink = other.stream(name, qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
        let source = session.stream(name, qos).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
        wait_for("they are joined", || source.receivers() == 1);
        Flow { source, sink, session, _other: other, emitted: 0, received: 0, lost: 0 }
    }

    /// One message a period, and what came: in order, once.
    fn run(&mut self, messages: u32) {
        for _ in 0..messages {
            let mut buffer = self.source.get_buffer(16).unwrap();
            buffer[..8].copy_from_slice(&MARK);
            buffer[8..].copy_from_slice(&self.emitted.to_le_bytes());
            assert!(matches!(self.source.emit(buffer), Emit::Sent(_)), "there is room for one a period");
            self.emitted += 1;
            std::thread::sleep(Duration::from_nanos(PERIOD.0));
            self.take();
        }
    }

    fn take(&mut self) {
        while let Some(message) = self.sink.consume().unwrap() {
            let number = u64::from_le_bytes(message.to_vec()[8..].try_into().unwrap());
            assert!(number >= self.received, "{number} came twice or late, {} was next", self.received);
            self.lost += number - self.received;
            self.received = number + 1;
        }
    }

    /// Waits for the last message.
    fn settle(&mut self) {
        wait_for("the last message comes", || {
            self.take();
            self.received == self.emitted
        });
    }

    /// Goes on until something is so.
    fn run_until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        for _ in 0..1_000 {
            if is_so() {
                return;
            }
            self.run(1);
        }
        panic!("it never happens: {what}");
    }
}

/// "axis" by the first link, and by the second one in other slots.
fn certificate(pair: &Pair, test: &str) -> String {
    let link = |name: &str, rate: u64| {
        format!(
            r#"(name: "{name}", host: "{test}1", rate_mbps: {rate}, foreign_bytes: 1538, in_flight_bytes: 62_500, frame_bytes_max: 1538, boundary: KernelSocket)"#
        )
    };
    let stream = |name: &str, link: usize| {
        format!(
            r#"(name: "{name}", class: Statistical, period_ns: {}, bytes: 256, release_ns: {}, deadline_ns: {}, path: [(link: "{}")])"#,
            PERIOD.0,
            STARTS[link],
            PERIOD.0 - MS,
            LINKS[link]
        )
    };
    // The datapath counts all its links as the slowest.
    let plant = format!(
        r#"(hosts: [(name: "{test}1", clock_error_ns: 0,
                wake: (quantile_ppm: 990_000, quantile_ns: 100_000, max_ns: 100_000, samples: 1),
                turn: (quantile_ppm: 990_000, quantile_ns: 400_000, max_ns: 400_000, samples: 1))],
            links: [{}, {}], streams: [{}, {}])"#,
        link("one", 100),
        link("two", 100),
        stream("axis", 0),
        stream("axis@two", 1)
    );
    let folder = &pair.hosts[0].folder;
    let (file, path) = (folder.join("plant.ron"), folder.join("plant.cert"));
    std::fs::write(&file, plant).unwrap();
    let output = insane().args(["schedule", "synth"]).arg(&file).arg("-o").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    path.display().to_string()
}

#[test]
fn a_stream_has_the_slots_of_one_link_until_it_moves_and_those_of_the_other_from_then_on() {
    let Some(pair) = Pair::new("smva", "") else { return };
    let path = certificate(&pair, "smva");
    let socket = pair.hosts[0].socket().display().to_string();
    let activate = ["schedule", "activate", &path, "--local-clock", "--hosts", &socket, "--lead", "1000"];
    let output = insane().args(activate).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));

    let watcher = Watcher::new(pair.namespaces.name(1));
    let mut flow = Flow::new(&pair, "axis");
    wait_for("it may go by either link", || pair.standing("axis").certificates == ["two"]);
    assert_eq!(pair.standing("axis").link, None);
    wait_for("slots are in force", || pair.count("slots_unused") > 0);
    flow.run(40);
    let moves = [Some("two"), None, Some("two"), Some("one"), Some("two")];
    for link in moves {
        flow.session.move_stream("axis", link, None).unwrap();
        flow.run_until("it has moved", || pair.standing("axis").link.as_deref() == link.filter(|link| *link != "one"));
        flow.run(20);
    }
    flow.settle();
    assert_eq!(flow.lost, 0, "the cables lose nothing");
    let offset = pair.hosts[0].status().datapaths[0].slot_offset_ns.unwrap();
    let seen = watcher.end();
    assert_eq!(seen.len() as u64, flow.emitted, "each message went once, by one link");
    assert!(seen.windows(2).all(|two| two[0].number < two[1].number), "in order: {seen:?}");
    let changes = seen.windows(2).filter(|two| two[0].link != two[1].link).count();
    assert_eq!(changes, moves.len(), "{seen:?}");
    // By the phase of the cycle, as far as threads were run in time.
    for (link, start) in STARTS.into_iter().enumerate() {
        let by_link: Vec<&Seen> = seen.iter().filter(|seen| seen.link == link).collect();
        let into = |seen: &&&Seen| (seen.at_ns.wrapping_add(offset) - start) % PERIOD.0;
        let near = by_link.iter().filter(|seen| into(seen) < STARTS[1] - STARTS[0]).count();
        assert!(by_link.len() > 30 && near * 4 > by_link.len() * 3, "{near} of {} by {}", by_link.len(), LINKS[link]);
    }
    // What went, went in slots.
    wait_for("each message was counted in a slot", || pair.count("slots_sent") == flow.emitted);
    assert_eq!(pair.standing("axis").moves, moves.len() as u64);
    let streams = pair.hosts[0].status().streams;
    let sources = streams.iter().flat_map(|stream| &stream.channels).flat_map(|channel| &channel.sources);
    let starts: Vec<u64> = sources.filter_map(|source| Some(source.slot.as_ref()?.start_ns)).collect();
    assert_eq!(starts, [STARTS[1]], "its slots are those of the link that it is on");

    // The cable of the link dies: it leaves, and is back when that is good again.
    let lost = flow.lost;
    pair.plug(1, false);
    flow.run_until("it has left the dead link", || pair.standing("axis").link.is_none());
    flow.run(20);
    flow.settle();
    assert!(flow.lost > lost && pair.standing("axis").state == "in slots");
    let lost = flow.lost;
    pair.plug(1, true);
    flow.run_until("it is where it was placed", || pair.standing("axis").link.as_deref() == Some("two"));
    flow.run(20);
    flow.settle();
    assert_eq!(flow.lost, lost, "what is planned loses nothing");
    assert!(text(&pair.hosts[0].command("explain", &["axis"]).output().unwrap().stdout).contains("certificates on"));
}

#[test]
fn who_holds_no_certificate_elsewhere_stays_or_goes_without_slots_and_that_is_told() {
    let streams = r#"(name: "stays", alternates: []), (name: "degrades", alternates: [], on_link_loss: degrade)"#;
    let Some(pair) = Pair::new("smvb", streams) else { return };
    let mut flows = ["stays", "degrades", "moves"].map(|name| Flow::new(&pair, name));
    wait_for("one holds certificates", || pair.standing("moves").certificates == LINKS);
    assert!(pair.standing("stays").certificates.is_empty() && pair.standing("degrades").certificates.is_empty());
    flows.iter_mut().for_each(|flow| flow.run(10));
    let refused = flows[0].session.move_stream("stays", Some("two"), None).unwrap_err().to_string();
    assert!(refused.contains("holds no certificate on that link"), "{refused}");

    flows.iter_mut().for_each(Flow::settle);
    pair.plug(0, false);
    let states = || ["stays", "degrades", "moves"].map(|name| pair.standing(name).state);
    wait_for("each is where it may be", || states() == ["stays", "degraded", "in slots"]);
    wait_for("the third has moved", || pair.standing("moves").link.as_deref() == Some("two"));
    let told = pair.hosts[0].status().degraded;
    for words in ["\"stays\" has slots and stays with", "\"degrades\" has slots on", "it goes without slots"] {
        assert!(told.iter().any(|line| line.contains(words)), "{words:?} is missing in {told:?}");
    }
    let received = flows.each_ref().map(|flow| flow.received);
    flows.iter_mut().for_each(|flow| flow.run(10));
    flows[1..].iter_mut().for_each(Flow::settle);
    assert_eq!(flows[0].received, received[0], "its link is dead");
    let counts =
        ["stays", "degrades"].map(|name| pair.standing(name)).map(|row| (row.moves, row.stays, row.degradations));
    assert_eq!(counts, [(0, 1, 0), (0, 0, 1)]);
    let explained = text(&pair.hosts[0].command("explain", &["degrades"]).output().unwrap().stdout);
    assert!(explained.contains("it goes without") && explained.contains("on_link_loss: degrade"), "{explained}");

    pair.plug(0, true);
    wait_for("all have their slots where they were", || {
        states() == ["in slots"; 3] && pair.standing("moves").link.is_none()
    });
    assert!(pair.hosts[0].status().degraded.iter().all(|line| !line.contains("has slots")));
    for flow in &mut flows {
        flow.run(5);
        flow.settle();
    }
}
