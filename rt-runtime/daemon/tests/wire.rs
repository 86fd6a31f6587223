//! Daemons whose links are of different technologies, and what goes between them as tshark sees it
//! in a network namespace of its own: at the ports of the bridge that joins them, where no program
//! of XDP takes frames away before they are seen. Our dissector is all that it knows of us.
//!
//! The tests need root, `ip` and tshark; without, they say so and pass over themselves.
#![forbid(unsafe_code)]

mod hosts;
#[path = "../../control/tests/peer/mod.rs"]
mod peer;

use hosts::{Daemon, Plant, wait_for};
use insane_conformance::shark::{Row, Shark};
use insane_core::Nanos;
use insane_rt::{
    ChannelId, Determinism, Priority, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions,
};
use insane_xdp_sys::interface::finish_frames;
use nix::sys::signal::{Signal, kill};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Messages of each stream from each host: one after the other, and the last of them at once, so
/// that some share a datagram. Those are fewer than half of what the capture of several ports
/// keeps beside its file before it drops frames without a word (1,000): each goes to two hosts, and
/// past two ports.
const APART: u16 = 20;
const TOGETHER: u16 = 6;
const COUNT: u16 = APART + TOGETHER;
/// The number of what is emitted before it counts.
const BEFORE: u16 = u16::MAX;
/// The stream of the marks that say how far tshark has seen.
const MARKS: u8 = 6;
/// The table of the specification: DSCP and port by class, priority in the tag by lane.
const PRIORITIES: [u8; 8] = [6, 5, 4, 3, 2, 0, 0, 1];
const VLAN: u16 = 5;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Udp,
    Xdp,
    /// Over packet sockets.
    Dpdk,
}

impl Way {
    /// Where the link of a host is: one past the kernel has an address for itself.
    fn address(self, host: usize) -> String {
        let net = if self == Way::Udp { 0 } else { 1 };
        format!("10.77.{net}.{}", host + 1)
    }

    fn link(self, host: usize, vlan: Option<u16>) -> String {
        let at = format!("bind: \"{}:7400\"", self.address(host));
        let own = format!("{at}, prefix_bits: Some(16), vlan: {vlan:?}");
        match self {
            Way::Udp => format!("udp({at})"),
            Way::Xdp => format!("xdp(interface: \"eth0\", {own})"),
            Way::Dpdk => format!("dpdk(device: \"net_af_packet0,iface=eth0\", {own})"),
        }
    }
}

fn has_shim() -> bool {
    Path::new(env!("CARGO_BIN_EXE_insaned")).with_file_name("libinsane_dpdk.so").exists()
}

/// What each lane that applications have is asked for by.
fn qos(lane: u8) -> Qos {
    let time_sensitive = Determinism::periodic(Nanos::from_millis(5), 8);
    let (determinism, priority) = match lane {
        0 => (time_sensitive, 7),
        1 => (time_sensitive, 4),
        2 => (time_sensitive, 1),
        _ => (Determinism::BestEffort, 2 * (7 - lane)),
    };
    let reliability = if lane == 5 { Reliability::Reliable } else { Reliability::Unreliable };
    let priority = Priority::new(priority).unwrap();
    assert_eq!(Qos { determinism, priority, ..Qos::default() }.lane().get(), lane);
    Qos { determinism, priority, reliability, ..Qos::default() }
}

fn lanes() -> impl Iterator<Item = u8> {
    (0..8).filter(|lane| *lane != 3)
}

fn channel(lane: u8) -> ChannelId {
    ChannelId(100 + u32::from(lane))
}

/// A source and a sink of each stream at a host.
struct Ends {
    by_lane: BTreeMap<u8, (Source, Sink)>,
    _session: Session,
}

impl Ends {
    fn new(daemon: &Daemon) -> Ends {
        let session = Session::attach(daemon.socket(), "app").unwrap();
        let by_lane = lanes().map(|lane| {
            let stream = session.stream(&format!("lane {lane}"), qos(lane)).unwrap();
            let sink = stream.sink(channel(lane), SinkOptions::default().depth(1024)).unwrap();
            let source = stream.source(channel(lane), SourceOptions::small()).unwrap();
            (lane, (source, sink))
        });
        Ends { by_lane: by_lane.collect(), _session: session }
    }

    fn emit(&self, lane: u8, payload: &[u8]) {
        wait_for("there is room for a message", || self.by_lane[&lane].0.emit_copy(payload).unwrap().is_sent());
    }
}

/// One frame as tshark shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    from: usize,
    to: usize,
    kind: String,
    lane: u8,
    channel: u32,
    sequence: u64,
    stream: String,
    payload: String,
    /// It shared its datagram.
    is_shared: bool,
}

const FIELDS: [&str; 18] = [
    "frame.interface_name",
    "ip.src",
    "ip.dst",
    "udp.dstport",
    "ip.dsfield.dscp",
    "vlan.id",
    "vlan.priority",
    "ip.checksum.status",
    "udp.checksum.status",
    "insane.kind",
    "insane.lane",
    "insane.channel",
    "insane.sequence",
    "insane.stream",
    "insane.check.good",
    "insane.payload",
    "insane.short",
    "_ws.malformed",
];

/// Dropped in this order: what runs before what it runs in.
struct Net {
    shark: Shark,
    daemons: Vec<Daemon>,
    ways: Vec<Way>,
    vlan: Option<u16>,
    _plant: Plant,
}

impl Net {
    fn start(ways: &[Way], vlan: Option<u16>) -> Option<Net> {
        let mut plant = Plant::new()?;
        for host in 0..ways.len() {
            plant.add(&Way::Udp.address(host));
            // What the kernel sends at once is cut before it leaves, as a card would do it, and what
            // the bridge passes on has its tag in the frame.
            assert!(plant.hosts[host].ip("link set eth0 gso_max_segs 1"));
            plant.hub.inside(|| finish_frames(&format!("v{host}"))).unwrap();
        }
        let shark = watch(&plant)?;
        let start = |host: usize| {
            let peers = (0..ways.len())
                .filter(|peer| *peer != host)
                .map(|peer| format!("(name: \"h{peer}\", links: {{\"l\": \"{}:7400\"}})", ways[peer].address(peer)));
            let rest = format!(
                "datapaths: [(name: \"main\", links: [\"l\"], idle: block, unscheduled: allow)], \
                 links: [(name: \"l\", technology: {})], peers: [{}]",
                ways[host].link(host, vlan),
                peers.collect::<Vec<_>>().join(", ")
            );
            Daemon::start(&plant.hosts[host], &format!("h{host}"), &rest)
        };
        let daemons = (0..ways.len()).map(start).collect();
        Some(Net { shark, daemons, ways: ways.to_vec(), vlan, _plant: plant })
    }

    /// What is in a row, if it is of the host at whose port it was seen.
    fn read(&self, row: &Row) -> Vec<Seen> {
        let [at, src, dst, port, dscp, vlan, pcp, ip_sum, udp_sum, rest @ ..] = &row[..] else { panic!("{row:?}") };
        let [kinds, lanes, channels, sequences, streams, checks, payloads, short, malformed] = rest else {
            panic!("{row:?}")
        };
        let host_of = |address: &String| (0..self.ways.len()).find(|host| self.ways[*host].address(*host) == *address);
        let (Some(from), Some(to)) = (host_of(src), host_of(dst)) else { panic!("between strangers: {row:?}") };
        if *at != format!("v{from}") {
            return Vec::new();
        }
        assert!(short.is_empty() && malformed.is_empty(), "malformed: {row:?}");
        if self.ways[from] != Way::Udp {
            // The kernel leaves its own to the card.
            assert_eq!([ip_sum.as_str(), udp_sum], ["1", "1"], "checksums: {row:?}");
        }
        assert_eq!(*vlan, self.vlan.map_or(String::new(), |vlan| vlan.to_string()), "{row:?}");
        let split = |field: &str| field.split(';').map(str::to_owned).collect::<Vec<String>>();
        let (kinds, lanes, channels) = (split(kinds), split(lanes), split(channels));
        let (sequences, streams, checks) = (split(sequences), split(streams), split(checks));
        let mut payloads = split(payloads).into_iter();
        let frames = 0..kinds.len();
        let seen = frames.map(|at| {
            let lane: usize = lanes[at].parse().unwrap_or_else(|_| panic!("no frame of ours: {row:?}"));
            assert_eq!(checks[at], "1", "{row:?}");
            let marks = if lane < 3 { ("7400", "46") } else { ("7401", "0") };
            assert_eq!((port.as_str(), dscp.as_str()), marks, "port and DSCP of lane {lane}: {row:?}");
            if self.vlan.is_some() {
                assert_eq!(*pcp, PRIORITIES[lane].to_string(), "the tag's priority of lane {lane}: {row:?}");
            }
            Seen {
                from,
                to,
                lane: lane as u8,
                channel: channels[at].parse().unwrap(),
                sequence: sequences[at].parse().unwrap(),
                stream: streams[at].clone(),
                payload: if kinds[at] == "1" { payloads.next().unwrap() } else { String::new() },
                kind: kinds[at].clone(),
                is_shared: kinds.len() > 1,
            }
        });
        seen.collect()
    }

    /// All that passes until each host's mark was seen on its way to each other.
    fn watch_until(&self, ends: &[Ends], mark: u8) -> Vec<Seen> {
        let hosts = ends.len();
        let (mut seen, mut marked) = (Vec::new(), BTreeSet::new());
        let payload = format!("{mark:02x}");
        let is_last = |row: &Row| {
            let frames = self.read(row);
            let marks = frames.iter().filter(|frame| frame.lane == MARKS && frame.payload == payload);
            marked.extend(marks.map(|frame| (frame.from, frame.to)));
            seen.extend(frames);
            marked.len() == hosts * (hosts - 1)
        };
        self.shark.rows_until(is_last, || ends.iter().for_each(|end| end.emit(MARKS, &[mark])));
        seen
    }
}

/// tshark at the ports of all hosts.
fn watch(plant: &Plant) -> Option<Shark> {
    let ports: Vec<String> = (0..plant.hosts.len()).map(|host| format!("v{host}")).collect();
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/dissector/insane.lua");
    let start = |command: &mut Command| {
        command.arg("-X").arg(format!("lua_script:{}", script.display()));
        command.args(["-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]);
        // Whole frames, and room for those of seconds in which nobody reads them.
        command.args(["-s", "2048", "-B", "16"]);
        // Wireshark's own settings of this user do not count.
        command.env("HOME", "/nonexistent").env("XDG_CONFIG_HOME", "/nonexistent");
        plant.hub.inside(|| command.spawn())
    };
    Shark::watch(&ports, "(udp.port == 7400 || udp.port == 7401) && !icmp", &FIELDS, start)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Each emits on every stream once: whether each has heard each other one on all of them.
fn everybody_hears(ends: &[Ends]) -> bool {
    for (host, end) in ends.iter().enumerate() {
        lanes().for_each(|lane| end.emit(lane, &payload(host, BEFORE)));
    }
    std::thread::sleep(Duration::from_millis(20));
    let heard = |sink: &Sink| {
        let messages = std::iter::from_fn(|| sink.consume().unwrap().map(|message| message.to_vec()[0]));
        messages.collect::<BTreeSet<u8>>().len() == ends.len()
    };
    // All are emptied, whatever the first of them has.
    ends.iter().flat_map(|end| end.by_lane.values()).filter(|(_, sink)| !heard(sink)).count() == 0
}

fn payload(host: usize, number: u16) -> Vec<u8> {
    [&[host as u8][..], &number.to_be_bytes()].concat()
}

/// Lanes whose messages are numbered.
fn numbered() -> impl Iterator<Item = u8> {
    lanes().filter(|lane| *lane != MARKS)
}

/// What counts: a message after the other, and then as many in one turn of each datapath, since
/// the daemons stand still while they are emitted.
fn emit_all(daemons: &[Daemon], ends: &[Ends]) {
    let emit = |number: u16| {
        for (host, end) in ends.iter().enumerate() {
            numbered().for_each(|lane| end.emit(lane, &payload(host, number)));
        }
    };
    for number in 0..APART {
        emit(number);
        std::thread::sleep(Duration::from_millis(2));
    }
    let signal = |signal| daemons.iter().for_each(|daemon| kill(daemon.pid(), signal).unwrap());
    signal(Signal::SIGSTOP);
    (APART..COUNT).for_each(emit);
    signal(Signal::SIGCONT);
}

/// Waits until each has heard all of it, of itself, too.
fn take_all(ends: &[Ends]) {
    for (lane, end) in numbered().flat_map(|lane| ends.iter().map(move |end| (lane, end))) {
        let mut came = 0;
        wait_for("every message comes", || {
            while let Some(message) = end.by_lane[&lane].1.consume().unwrap() {
                came += usize::from(!message.to_vec().ends_with(&BEFORE.to_be_bytes()));
            }
            came == ends.len() * usize::from(COUNT)
        });
    }
}

/// What one host sent another: every message once, in order, with what belongs to it.
fn judge(who: &str, from: usize, between: &[&Seen]) {
    for lane in numbered() {
        let before = hex(&payload(from, BEFORE));
        let is_of_it = |frame: &&&Seen| frame.kind == "1" && frame.lane == lane && frame.payload != before;
        let mut frames: Vec<&Seen> = between.iter().filter(is_of_it).copied().collect();
        if lane == 5 {
            // Reliable: it may have been sent again.
            frames.sort_by_key(|frame| frame.sequence);
            frames.dedup_by_key(|frame| frame.sequence);
        }
        let key = format!("0x{:016x}", insane_core::stream_key("d", &format!("lane {lane}")).0);
        let first = frames.first().unwrap_or_else(|| panic!("{who}: nothing of lane {lane}")).sequence;
        let message = |number: u16| (first + u64::from(number), hex(&payload(from, number)));
        let found: Vec<_> = frames.iter().map(|frame| (frame.sequence, frame.payload.clone())).collect();
        assert_eq!(found, (0..COUNT).map(message).collect::<Vec<_>>(), "{who}, lane {lane}");
        assert!(frames.iter().all(|frame| frame.channel == channel(lane).0 && frame.stream == key), "{frames:?}");
    }
    assert!(between.iter().any(|frame| frame.kind == "2" && frame.lane == 2), "{who}: the overlay's own");
    assert!(between.iter().any(|frame| frame.kind == "3"), "{who}: reports on the reliable stream");
}

fn converse(ways: &[Way], vlan: Option<u16>) {
    let Some(net) = Net::start(ways, vlan) else { return };
    let ends: Vec<Ends> = net.daemons.iter().map(Ends::new).collect();
    wait_for("everybody hears everybody", || everybody_hears(&ends));
    net.watch_until(&ends, 0xa1);
    emit_all(&net.daemons, &ends);
    take_all(&ends);
    let mut seen = net.watch_until(&ends, 0xb1);
    // What was shown behind the last mark.
    seen.extend(net.watch_until(&ends, 0xc1));
    for (from, to) in (0..ways.len()).flat_map(|from| (0..ways.len()).map(move |to| (from, to))) {
        if from != to {
            let between: Vec<&Seen> = seen.iter().filter(|frame| (frame.from, frame.to) == (from, to)).collect();
            judge(&format!("{:?} to {:?}", ways[from], ways[to]), from, &between);
        }
    }
    // Small messages of xdp share datagrams, of one peer each: with two peers they alternate.
    let shared = |way: Way| seen.iter().any(|frame| ways[frame.from] == way && frame.is_shared);
    assert!(ways.len() > 2 || !ways.contains(&Way::Xdp) || shared(Way::Xdp), "bundles of xdp are seen");
    assert!(!shared(Way::Dpdk), "those of dpdk do not");
}

#[test]
fn what_udp_xdp_and_dpdk_send_each_other_is_what_tshark_reads() {
    if has_shim() {
        converse(&[Way::Udp, Way::Xdp, Way::Dpdk], None);
    } else {
        eprintln!("without dpdk: its library is missing (cargo xtask dpdk-shim)");
        converse(&[Way::Udp, Way::Xdp], None);
    }
}

#[test]
fn in_a_vlan_the_tags_of_xdp_and_dpdk_bear_the_priorities_of_their_lanes() {
    if has_shim() {
        converse(&[Way::Xdp, Way::Dpdk], Some(VLAN));
    } else {
        eprintln!("passed over: the library for DPDK is missing (cargo xtask dpdk-shim)");
    }
}
