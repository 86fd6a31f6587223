//! One frame for several hosts: real daemons, each in a network namespace of its own, joined
//! by a bridge. What is counted is what the sender handed to its link, and what its interface
//! sent.
//!
//! They need root and `ip`; without, they say so and pass over themselves.
#![forbid(unsafe_code)]

mod hosts;
#[path = "../../control/tests/peer/mod.rs"]
mod peer;

use hosts::{Daemon, Plant, wait_for};
use insane_rt::{ChannelId, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions};
use std::time::Duration;

const CHANNEL: ChannelId = ChannelId(3);
const V4_GROUP: &str = "multicast: (group: \"239.192.7.1:7420\")";
const V6_GROUP: &str = "multicast: (group: \"[ff15::77:1]:7420\")";

fn v4(host: usize) -> String {
    format!("10.77.0.{host}")
}

fn v6(host: usize) -> String {
    format!("[fd00:77::{host}]")
}

/// A host for each of these groups (empty: it is in none), named `h1` and so on, all peers of
/// each other.
fn start(address: fn(usize) -> String, groups: &[&str]) -> Option<(Plant, Vec<Daemon>)> {
    let mut plant = Plant::new()?;
    let mut daemons = Vec::new();
    for own in 1..=groups.len() {
        let at = plant.add(&v4(own));
        assert!(plant.hosts[at].ip(&format!("addr add fd00:77::{own}/64 dev eth0 nodad")));
        let peers: Vec<String> = (1..=groups.len())
            .filter(|peer| *peer != own)
            .map(|peer| format!("(name: \"h{peer}\", links: {{\"net\": \"{}:7400\"}})", address(peer)))
            .collect();
        let rest = format!(
            "datapaths: [(name: \"main\", links: [\"net\"])],
             links: [(name: \"net\", technology: udp(bind: \"{}:7400\", {}))], peers: [{}]",
            address(own),
            groups[own - 1],
            peers.join(", ")
        );
        daemons.push(Daemon::start(&plant.hosts[at], &format!("h{own}"), &rest));
    }
    Some((plant, daemons))
}

fn session(daemon: &Daemon) -> Session {
    Session::attach(daemon.socket(), "app").unwrap()
}

/// Who hears the group of the first host's link.
fn hears(sender: &Daemon) -> Vec<String> {
    sender.status().datapaths[0].links[0].group.clone().unwrap().hears
}

/// Frames of the first domain so far: all that were handed to links, and those to the group.
fn frames(daemon: &Daemon) -> (u64, u64) {
    let counters = &daemon.status().domains[0].counters;
    (counters["frames_sent"], counters["group_frames"])
}

/// Packets that the interface has sent.
fn packets(daemon: &Daemon) -> u64 {
    let table = std::fs::read_to_string(format!("/proc/{}/net/dev", daemon.child.id())).unwrap();
    let row = table.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
    row.split_whitespace().nth(9).unwrap().parse().unwrap()
}

/// A source at the first host and a sink at each other.
struct Flow {
    source: Source,
    sinks: Vec<Sink>,
    /// The next number.
    next: u64,
    /// What each sink has to get next, and what it missed so far: (first missing, how many).
    expected: Vec<u64>,
    gaps: Vec<Vec<(u64, u64)>>,
    _sessions: Vec<Session>,
}

impl Flow {
    fn new(daemons: &[Daemon], name: &str, reliability: Reliability) -> Flow {
        let sessions: Vec<Session> = daemons.iter().map(session).collect();
        let qos = Qos { reliability, ..Qos::default() };
        let stream = |at: usize| sessions[at].stream(name, qos).unwrap();
        let source = stream(0).source(CHANNEL, SourceOptions::default().buffers(8192, 64)).unwrap();
        let sinks: Vec<_> =
            (1..daemons.len()).map(|at| stream(at).sink(CHANNEL, SinkOptions::default()).unwrap()).collect();
        wait_for("the peers are joined", || {
            let status = daemons[0].status();
            let channel = status.streams.iter().find(|stream| stream.name == name).map(|stream| &stream.channels[0]);
            channel.is_some_and(|channel| channel.peers.len() == sinks.len())
        });
        wait_for("the source sends to them", || source.receivers() == 1);
        let others = sinks.len();
        Flow { source, sinks, next: 0, expected: vec![0; others], gaps: vec![Vec::new(); others], _sessions: sessions }
    }

    /// Emits one message of this length and takes what arrived.
    fn step(&mut self, len: usize) {
        let mut buffer = self.source.get_buffer(len).unwrap();
        buffer.fill(self.next as u8);
        buffer[..8].copy_from_slice(&self.next.to_le_bytes());
        assert!(matches!(self.source.emit(buffer), insane_rt::Emit::Sent(_)));
        self.next += 1;
        std::thread::sleep(Duration::from_millis(1));
        self.take();
    }

    fn take(&mut self) {
        for (at, sink) in self.sinks.iter().enumerate() {
            while let Some(message) = sink.consume().unwrap() {
                let bytes = message.to_vec();
                let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                assert!(bytes[8..].iter().all(|byte| *byte == number as u8), "message {number} is damaged");
                let expected = &mut self.expected[at];
                assert!(number >= *expected, "message {number} again, or late, at sink {at}");
                if number > *expected {
                    self.gaps[at].push((*expected, number - *expected));
                }
                *expected = number + 1;
            }
        }
    }

    /// Emits `count` messages.
    fn run(&mut self, count: u64, len: usize) {
        (0..count).for_each(|_| self.step(len));
    }

    /// Waits until every sink has the last message.
    fn settle(&mut self) {
        let next = self.next;
        wait_for("the last message arrives everywhere", || {
            self.take();
            self.expected.iter().all(|expected| *expected == next)
        });
    }
}

fn goes_once_to_those_that_hear(address: fn(usize) -> String, group: &str) {
    let Some((_plant, daemons)) = start(address, &[group, group, group, ""]) else { return };
    wait_for("two hear the group", || hears(&daemons[0]) == ["h2", "h3"]);
    let mut flow = Flow::new(&daemons, "state", Reliability::Unreliable);
    let before = (frames(&daemons[0]), packets(&daemons[0]));
    flow.run(500, 64);
    flow.settle();
    let after = (frames(&daemons[0]), packets(&daemons[0]));
    let sent = (after.0.0 - before.0.0, after.0.1 - before.0.1);
    assert_eq!(sent, (1000, 500), "one frame to the group, and one to the host that is not in it");
    // With heartbeats and what else a host sends, and fewer where messages went together.
    let on_the_wire = after.1 - before.1;
    assert!(on_the_wire < 1500, "{on_the_wire} packets; three for each message would be more");
    // Six fragments each.
    flow.run(50, 8000);
    flow.settle();
    let large = frames(&daemons[0]);
    assert_eq!((large.0 - after.0.0, large.1 - after.0.1), (600, 300));
    assert_eq!(flow.gaps, vec![Vec::new(); 3], "nobody missed anything");
    let status = daemons[0].status();
    let by = status.streams[0].channels[0].group.clone().unwrap();
    assert_eq!((by.link.as_str(), by.peers), ("net", vec!["h2".to_owned(), "h3".to_owned()]));
    // The others have no frame that is nobody's, and none of their own.
    for daemon in &daemons {
        assert_eq!(daemon.status().datapaths[0].counters["frames_unknown_peer"], 0);
    }
    let mut orders = Flow::new(&daemons, "orders", Reliability::Reliable);
    let before = frames(&daemons[0]);
    orders.run(20, 64);
    orders.settle();
    assert_eq!(frames(&daemons[0]).1, before.1, "reliable streams go to each alone");
}

#[test]
fn a_message_goes_once_over_ipv4_to_those_that_hear() {
    goes_once_to_those_that_hear(v4, V4_GROUP);
}

#[test]
fn a_message_goes_once_over_ipv6_to_those_that_hear() {
    goes_once_to_those_that_hear(v6, V6_GROUP);
}

/// A switch stops passing the group to one host, and passes it again.
#[test]
fn a_group_that_is_filtered_costs_one_gap_and_comes_back() {
    let Some((plant, daemons)) = start(v4, &[V4_GROUP; 4]) else { return };
    let filter = |state: &str| {
        assert!(plant.hub.ip(&format!("link set v2 type bridge_slave mcast_flood {state}")), "{state}");
    };
    // Without a querier a bridge that snoops knows no members for long.
    assert!(plant.hub.ip("link set br0 type bridge mcast_snooping 0"));
    let all = ["h2", "h3", "h4"];
    wait_for("all hear the group", || hears(&daemons[0]) == all);
    let mut flow = Flow::new(&daemons, "state", Reliability::Unreliable);
    flow.run(200, 64);
    flow.settle();
    filter("off");
    let blocked_at = flow.next;
    wait_for("it is noticed", || {
        flow.run(50, 64);
        hears(&daemons[0]) == ["h2", "h4"]
    });
    let noticed_at = flow.next;
    flow.run(300, 64);
    flow.settle();
    let [first, second, third] = &flow.gaps[..] else { panic!("three sinks") };
    assert_eq!((first.len(), third.len()), (0, 0), "who still hears missed nothing");
    let [(from, count)] = second[..] else { panic!("one gap, not {second:?}") };
    assert!(from >= blocked_at && from + count <= noticed_at, "{second:?} of {blocked_at}..{noticed_at}");
    filter("on");
    wait_for("it is heard again", || {
        flow.run(50, 64);
        hears(&daemons[0]) == all
    });
    let before = frames(&daemons[0]);
    flow.run(200, 64);
    flow.settle();
    let after = frames(&daemons[0]);
    assert_eq!((after.0 - before.0, after.1 - before.1), (200, 200), "one frame for all three");
    assert_eq!(flow.gaps.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0], "coming back costs nothing");
}

#[test]
fn what_a_stranger_sends_to_the_group_is_nobodys() {
    let Some((plant, daemons)) = start(v4, &[V4_GROUP; 3]) else { return };
    wait_for("both hear the group", || hears(&daemons[0]) == ["h2", "h3"]);
    assert!(plant.hub.ip("route add 239.0.0.0/8 dev br0"));
    let stranger = plant.stranger();
    for number in 0..100_u8 {
        stranger.send_to(&[number; 100], ("239.192.7.1", 7420 + u16::from(number % 2))).unwrap();
    }
    for daemon in &daemons {
        wait_for("strangers are counted", || daemon.status().datapaths[0].counters["frames_unknown_peer"] == 100);
    }
    assert_eq!(hears(&daemons[0]), ["h2", "h3"]);
}
