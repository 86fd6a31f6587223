//! What a session, a stream and a peer cost the daemon, bytes: measured at a real one,
//! held to a bound that fails when it grows, and to what the planner says.
//!
//! Private memory is what the kernel counts as anonymous (`/proc/PID/smaps_rollup`): the
//! tables of the control plane and of the datapaths. Shared memory is what the status
//! counts against the domain's quota: the pages and rings that applications map too.
#![forbid(unsafe_code)]

#[path = "../../control/tests/peer/mod.rs"]
mod peer;

use insane_config::planner::Kind;
use insane_config::{Budget, LayoutSizes, Machine, Plan};
use insane_core::Qos;
use insane_shm::cell::{cells_bytes, returns_bytes};
use insane_shm::returns::places;
use insane_sys::seqpacket;
use insane_wire::control::{Event, Request, Role, SinkWake};
use insane_wire::status::StatusReport;
use peer::Peer;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

const FEW: usize = 100;
const MANY: usize = 1_000;
/// Peers that a runtime may have.
const PEERS: usize = 64;
/// Sessions that share the streams: one has counters for 256 sources and sinks.
const HOLDERS: usize = 10;

/// Messages that a sink of these tests has room for.
const SINK_DEPTH: u32 = 64;

/// Private bytes of a session without streams: its names, tables and buffers, and its part of
/// the status report by which this is measured, whose buffer doubles as it grows.
const SESSION_PRIVATE_MAX: u64 = 4_096;
/// Private bytes of a stream with one source and one sink that goes through a datapath, in
/// the control plane and in the datapath together.
const STREAM_PRIVATE_MAX: u64 = 6_656;
/// Private bytes of a peer beside the connections of its tcp links.
const PEER_PRIVATE_MAX: u64 = 8_192;

/// A daemon with this configuration beside its socket, killed and removed at the end.
struct Daemon {
    child: Child,
    place: PathBuf,
}

/// What it has, bytes.
#[derive(Clone, Copy, Debug)]
struct Memory {
    private: u64,
    shared: u64,
}

impl Daemon {
    fn start(name: &str, rest: &str) -> Self {
        let place = std::env::temp_dir().join(format!("insaned-memory-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let (config, socket) = (place.join("insaned.ron"), place.join("insaned.sock"));
        let text = format!("(host: (name: \"test\"), control: (socket: {socket:?}), {rest})");
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_insaned"));
        command.arg("--config").arg(&config).env_remove("NOTIFY_SOCKET");
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let daemon = Daemon { child, place };
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the daemon did not start");
        }
        // Whatever else it says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        daemon
    }

    fn attach(&self) -> Peer {
        Peer::attach(seqpacket::connect(&self.place.join("insaned.sock")).unwrap())
    }

    fn status(&self) -> StatusReport {
        let mut tool = Peer::new(seqpacket::connect(&self.place.join("insaned.sock")).unwrap());
        tool.hello(Role::Observer);
        tool.send(&Request::Status { req: 1 });
        let mut json = Vec::new();
        loop {
            let Some((Event::Status { last, piece, .. }, _)) = tool.wait() else { panic!("a piece") };
            json.extend(piece);
            if last {
                return serde_json::from_slice(&json).unwrap();
            }
        }
    }

    fn memory(&self) -> Memory {
        // The report first: what it takes to write one is then part of both measurements.
        let shared = self.status().domains[0].quotas["bytes"].used;
        Memory { private: self.bytes("Anonymous:"), shared }
    }

    /// What the kernel counts under that name.
    fn bytes(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        1024 * line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap()
    }

    /// What its configuration is planned to take at most.
    fn planned(&self) -> Budget {
        let loaded = insane_config::load(&self.place.join("insaned.ron"), &Machine::unknown()).unwrap();
        Budget::of(&loaded.plan, &LayoutSizes::default())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.place);
    }
}

/// Bytes that one of `count` things took.
fn each(what: &str, before: Memory, after: Memory, count: usize) -> Memory {
    let share = |before: u64, after: u64| after.saturating_sub(before) / count as u64;
    let each = Memory { private: share(before.private, after.private), shared: share(before.shared, after.shared) };
    println!("{what}: {each:?}");
    each
}

fn roomy() -> String {
    let quota = "sessions: 1100, streams: 1100, sources: 1100, sinks: 1100, connections: 2300, bytes: 1073741824";
    format!("domains: [(name: \"d\", members: [any], quota: ({quota}))], memory: (limit_bytes: 4294967296)")
}

#[test]
fn a_session_takes_what_is_documented() {
    let daemon = Daemon::start("sessions", &roomy());
    let mut sessions: Vec<Peer> = (0..FEW).map(|_| daemon.attach()).collect();
    let few = daemon.memory();
    sessions.extend((FEW..MANY).map(|_| daemon.attach()));
    let one = each("a session", few, daemon.memory(), MANY - FEW);
    assert_eq!(one.shared, LayoutSizes::default().session_counters_bytes());
    assert!(one.private <= SESSION_PRIVATE_MAX, "{one:?}");
}

#[test]
fn a_stream_takes_what_is_documented() {
    let daemon = Daemon::start("streams", &roomy());
    let mut holders: Vec<Peer> = (0..HOLDERS).map(|_| daemon.attach()).collect();
    let mut open = 0;
    let mut open_up_to = |count: usize| {
        while open < count {
            let holder = &mut holders[open % HOLDERS];
            let stream = holder.open(&format!("stream-{open}"), Qos::default(), true);
            holder.source(stream, &[]).unwrap();
            holder.sink(stream, SinkWake::Page).unwrap();
            open += 1;
            let ready = |holder: &Peer| {
                let wanted = open.div_ceil(HOLDERS);
                holder.tx.len() == wanted && holder.rx.len() == wanted
            };
            if !ready(holder) {
                holder.until(|holder, _| ready(holder));
            }
        }
        daemon.memory()
    };
    let few = open_up_to(FEW);
    let one = each("a stream with a source and a sink", few, open_up_to(MANY), MANY - FEW);
    // From the source to the datapath as planned; from there to the sink a shorter ring, whose
    // returns have a place for each buffer of the receive heap.
    let sizes = LayoutSizes::default();
    let buffers = Plan::embedded_default().domains[0].receive.iter().map(|class| class.count).sum();
    let to_sink = [cells_bytes(SINK_DEPTH), returns_bytes(places(buffers))];
    let to_sink: u64 = to_sink.iter().map(|bytes| bytes.next_multiple_of(sizes.page_bytes)).sum();
    assert_eq!(one.shared, sizes.wake_page_bytes + sizes.ring_bytes() + to_sink);
    assert!(one.private <= STREAM_PRIVATE_MAX, "{one:?}");
}

/// Peers at addresses of this host where nobody is.
fn with_peers(technology: &str, port: u16, count: usize) -> Memory {
    let peers: Vec<String> = (0..count)
        .map(|number| format!("(name: \"p{number}\", links: {{\"l\": \"127.0.0.{}:{port}\"}})", number + 2))
        .collect();
    let rest = format!(
        "datapaths: [(name: \"main\", links: [\"l\"])], \
         links: [(name: \"l\", technology: {technology}(bind: \"127.0.0.1:{port}\"))], peers: [{}], \
         domains: [(name: \"d\", members: [any])], memory: (limit_bytes: 4294967296)",
        peers.join(", ")
    );
    Daemon::start(&format!("{technology}-{count}"), &rest).memory()
}

#[test]
fn a_peer_takes_what_is_documented() {
    let port = free_port();
    let one = each("a peer on udp", with_peers("udp", port, 1), with_peers("udp", port, PEERS), PEERS - 1);
    assert_eq!(one.shared, 0, "a peer needs no memory that applications map");
    assert!(one.private <= PEER_PRIVATE_MAX, "{one:?}");
    let one = each("a peer on tcp", with_peers("tcp", port, 1), with_peers("tcp", port, PEERS), PEERS - 1);
    let sizes = LayoutSizes::default();
    let connections = sizes.tcp_connections * sizes.tcp_connection_bytes(16 * 1024);
    assert_eq!(one.shared, 0);
    assert!(one.private <= connections + PEER_PRIVATE_MAX, "{one:?}, of which connections {connections}");
}

/// The plan bounds what a daemon takes as soon as it is there: with quotas so small that nothing
/// but what is fixed is left, and one datapath or two.
#[test]
fn a_datapath_takes_what_is_planned() {
    let with = |name: &str, datapaths: &str| {
        let quota = "sessions: 4, streams: 4, sources: 4, sinks: 4, connections: 8, bytes: 1048576, buffers: 64";
        let domain = format!("(name: \"d\", members: [any], receive: [(size: 256, count: 64)], quota: ({quota}))");
        let daemon = Daemon::start(name, &format!("datapaths: [{datapaths}], domains: [{domain}]"));
        let (memory, resident, planned) = (daemon.memory(), daemon.bytes("Rss:"), daemon.planned());
        assert!(resident <= planned.total_bytes, "{resident} bytes are resident: {planned:?}");
        (memory, planned)
    };
    let (one, _) = with("one-datapath", "(name: \"a\", idle: block)");
    let both = "(name: \"a\", idle: block, serves: real_time), (name: \"b\", idle: block, serves: best_effort)";
    let (two, planned) = with("two-datapaths", both);
    let second = each("a datapath", one, two, 1);
    let group = planned.groups.iter().find(|group| group.name == "datapath \"b\"").unwrap();
    let private: u64 = group.items.iter().filter(|item| item.kind == Kind::Private).map(|item| item.bytes).sum();
    // Not less than it takes, and at most a third more.
    assert!((private * 3 / 4..=private).contains(&second.private), "{} of {private}", second.private);
}

/// The first of two ports in a row that nobody has at this moment.
fn free_port() -> u16 {
    let port = 30_000 + 2 * (std::process::id() % 10_000) as u16;
    let free = |port: &u16| {
        std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok()
            && std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()
    };
    (port..port + 1_000).step_by(2).find(|port| free(port) && free(&(port + 1))).expect("two free ports")
}
