//! Streams that move between a udp link and one of tcp or xdp while 10,000 messages a second go by them:
//! real daemons, each in a network namespace of its own.
//!
//! They need root and `ip`; without, they say so and pass over themselves.
#![forbid(unsafe_code)]

mod hosts;
#[path = "../../control/tests/peer/mod.rs"]
mod peer;

use hosts::{Daemon, Plant, wait_for};
use insane_rt::{ChannelId, Emit, Outcome, Qos, RequestError, Session, Sink, SinkOptions, Source, SourceOptions};
use std::time::{Duration, Instant};

const CHANNEL: ChannelId = ChannelId(3);
/// From one message to the next.
const PERIOD: Duration = Duration::from_micros(100);
/// From one move to the next.
const REST: Duration = Duration::from_millis(60);

/// The technology of the other link, at this host.
fn tcp(own: u32) -> String {
    format!("tcp(bind: \"{}\")", other(own))
}

fn xdp(own: u32) -> String {
    format!("xdp(interface: \"eth0\", bind: \"{}\", prefix_bits: Some(16))", other(own))
}

/// Where the other link of a host is.
fn other(own: u32) -> String {
    format!("10.78.0.{own}:7500")
}

/// Two hosts, joined by a udp link, which is preferred, and another one, each at an address of
/// its own.
fn start(technology: fn(u32) -> String) -> Option<(Plant, Vec<Daemon>)> {
    let mut plant = Plant::new()?;
    let mut daemons = Vec::new();
    for own in 1..=2 {
        let at = plant.add(&format!("10.77.0.{own}"));
        // An xdp link has its address for itself.
        assert!(technology(own) == xdp(own) || plant.hosts[at].ip(&format!("addr add 10.78.0.{own}/16 dev eth0")));
        let peer = 3 - own;
        let rest = format!(
            "datapaths: [(name: \"main\", links: [\"quick\", \"safe\"])],
             links: [(name: \"quick\", technology: udp(bind: \"10.77.0.{own}:7400\")),
                     (name: \"safe\", technology: {})],
             peers: [(name: \"h{peer}\", links: {{\"quick\": \"10.77.0.{peer}:7400\", \"safe\": \"{}\"}})]",
            technology(own),
            other(peer)
        );
        daemons.push(Daemon::start(&plant.hosts[at], &format!("m{own}"), &rest));
    }
    for daemon in &daemons {
        wait_for("both links are up", || {
            let status = daemon.status();
            status.peers[0].ways.len() == 2 && status.peers[0].ways.iter().all(|way| way.up)
        });
    }
    Some((plant, daemons))
}

/// A source at the one host and a sink at the other.
struct Flow {
    source: Source,
    sink: Sink,
    session: Session,
    _other: Session,
    emitted: u64,
    next: u64,
    lost: u64,
    due: Instant,
    /// The longest time without a message so far.
    gap: Duration,
    heard: Instant,
}

impl Flow {
    fn new(from: &Daemon, to: &Daemon, name: &str) -> Flow {
        let attach = |daemon: &Daemon| Session::attach(daemon.socket(), "app").unwrap();
        let (session, other) = (attach(from), attach(to));
        // The machine may have other things to do for longer than an ordinary ring holds.
        let sink = SinkOptions::default().depth(4096);
        let sink = other.stream(name, Qos::default()).unwrap().sink(CHANNEL, sink).unwrap();
        let source = session.stream(name, Qos::default()).unwrap();
        let source = source.source(CHANNEL, SourceOptions::default().buffers(8192, 256)).unwrap();
        wait_for("the source sends to the peer", || source.receivers() == 1 && link_of(from, name).is_some());
        let now = Instant::now();
        let (emitted, next, lost, gap) = (0, 0, 0, Duration::ZERO);
        Flow { source, sink, session, _other: other, emitted, next, lost, due: now, gap, heard: now }
    }

    /// Emits what is due and takes what came, for so long.
    fn run(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            // After a pause of this thread no more than a ring holds at once.
            self.due = self.due.max(Instant::now() - 64 * PERIOD);
            while self.due <= Instant::now() {
                self.due += PERIOD;
                self.emit();
            }
            self.take();
            std::thread::sleep(PERIOD / 2);
        }
    }

    fn emit(&mut self) {
        let len = if self.emitted.is_multiple_of(50) { 4_000 } else { 64 };
        let Ok(mut buffer) = self.source.get_buffer(len) else { return };
        buffer.fill(self.emitted as u8);
        buffer[..8].copy_from_slice(&self.emitted.to_le_bytes());
        // What the source's own ring has no room for, since the datapath was not run for so long, is
        // no message of any link: its number is used again.
        if let Emit::Sent(token) = self.source.emit(buffer)
            && matches!(self.source.outcome(token), Outcome::Published { dropped: 0, .. })
        {
            self.emitted += 1;
        }
    }

    /// In order, once, and whole.
    fn take(&mut self) {
        while let Some(message) = self.sink.consume().unwrap() {
            let bytes = message.to_vec();
            let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(bytes[8..].iter().all(|byte| *byte == number as u8), "message {number} is damaged");
            assert!(number >= self.next, "message {number} came twice or late, {} was next", self.next);
            self.lost += number - self.next;
            self.next = number + 1;
            self.gap = self.gap.max(self.heard.elapsed());
            self.heard = Instant::now();
        }
    }

    /// Waits for the last message.
    fn settle(&mut self) {
        wait_for("the last message comes", || {
            self.take();
            self.next == self.emitted
        });
    }
}

/// By which link the host sends the stream to its peer.
fn link_of(daemon: &Daemon, name: &str) -> Option<String> {
    let status = daemon.status();
    let stream = status.streams.iter().find(|stream| stream.name == name)?;
    stream.links.values().next().cloned()
}

/// What the hosts have counted, for whoever reads of a failure.
fn told(daemons: &[Daemon]) -> String {
    let of = |daemon: &Daemon| {
        let status = daemon.status();
        let counts = status.domains[0].counters.iter().filter(|(_, count)| **count > 0);
        format!("{:?}", counts.collect::<Vec<_>>())
    };
    daemons.iter().map(of).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_stream_moves_between_udp_and_tcp_and_nothing_is_lost_repeated_or_reordered() {
    moves(tcp);
}

#[test]
fn a_stream_moves_between_udp_and_xdp_and_nothing_is_lost_repeated_or_reordered() {
    moves(xdp);
}

fn moves(technology: fn(u32) -> String) {
    let Some((_plant, daemons)) = start(technology) else { return };
    // Both directions move, at instants of their own.
    let mut there = Flow::new(&daemons[0], &daemons[1], "there");
    let mut back = Flow::new(&daemons[1], &daemons[0], "back");
    // A machine with much to do loses heartbeats at the start, and the policy the link with them.
    wait_for("the preferred link is taken", || link_of(&daemons[0], "there").unwrap() == "quick");
    let frames = |daemon: &Daemon| daemon.status().domains[0].counters["frames_sent"];
    let before = frames(&daemons[0]);
    for number in 0..50_u32 {
        let (link, other) = if number.is_multiple_of(2) { ("safe", "quick") } else { ("quick", "safe") };
        there.session.move_stream("there", Some(link), None).unwrap();
        there.run(REST / 4);
        back.session.move_stream("back", Some(other), Some("h1")).unwrap();
        back.run(REST / 4);
        assert_eq!(link_of(&daemons[0], "there").unwrap(), link);
        assert_eq!(link_of(&daemons[1], "back").unwrap(), other);
        std::thread::scope(|scope| {
            scope.spawn(|| there.run(REST));
            scope.spawn(|| back.run(REST));
        });
    }
    for flow in [&mut there, &mut back] {
        flow.settle();
        println!("{} messages, {} lost, longest gap {:?}", flow.emitted, flow.lost, flow.gap);
        assert!(flow.emitted > 10_000, "{}", flow.emitted);
        assert_eq!(flow.lost, 0, "{}", told(&daemons));
    }
    assert!(frames(&daemons[0]) > before);
    let counters = &daemons[1].status().domains[0].counters;
    let counts = ["dropped_late", "dropped_duplicate", "holds_ended"].map(|name| counters[name]);
    assert_eq!(counts, [0, 0, 0], "{} kept", counters["held_back"]);
    // What cannot be is refused, with the reason, and changes nothing.
    let refusal = |stream: &str, link: &str, peer: Option<&str>| match there
        .session
        .move_stream(stream, Some(link), peer)
        .unwrap_err()
    {
        RequestError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert!(refusal("there", "wet string", None).contains("it has quick, safe"));
    assert!(refusal("there", "safe", Some("h7")).contains("no peer \"h7\""));
    assert!(refusal("elsewhere", "safe", None).contains("no stream \"elsewhere\""));
    // This thread may be kept from its core between the two.
    wait_for("a move right behind another one is refused", || {
        let _ = there.session.move_stream("there", None, None);
        match there.session.move_stream("there", Some("safe"), None) {
            Err(RequestError::Refused { reason, .. }) => reason.contains("less than"),
            Err(error) => panic!("{error}"),
            Ok(()) => false,
        }
    });
    std::thread::sleep(REST);
    there.session.move_stream("there", None, None).unwrap();
    wait_for("it goes by the preferred link", || link_of(&daemons[0], "there").unwrap() == "quick");
}

#[test]
fn a_link_that_fails_is_left_and_returned_to() {
    let Some((plant, daemons)) = start(tcp) else { return };
    let mut flow = Flow::new(&daemons[0], &daemons[1], "there");
    flow.run(Duration::from_millis(200));
    let lost = flow.lost;
    assert_eq!(lost, 0, "{}", told(&daemons));
    // The address of the udp link is gone at the other host: nothing comes by it any more.
    assert!(plant.hosts[1].ip("addr del 10.77.0.2/16 dev eth0"));
    let at = Instant::now();
    let emitted = flow.emitted;
    while link_of(&daemons[0], "there").unwrap() != "safe" {
        assert!(at.elapsed() < hosts::PATIENCE, "it does not leave the dead link");
        flow.run(Duration::from_millis(20));
    }
    let noticed = flow.emitted;
    flow.run(Duration::from_millis(500));
    flow.settle();
    println!("left after {} messages, {} lost, longest gap {:?}", noticed - emitted, flow.lost, flow.gap);
    let most = noticed - emitted + 256;
    assert!(flow.lost > 0 && flow.lost <= most, "{} lost, {most} at most: {}", flow.lost, told(&daemons));
    // It works again, and is taken again; what is planned loses nothing.
    let lost = flow.lost;
    assert!(plant.hosts[1].ip("addr add 10.77.0.2/16 dev eth0"));
    let at = Instant::now();
    while link_of(&daemons[0], "there").unwrap() != "quick" {
        assert!(at.elapsed() < hosts::PATIENCE, "it does not return");
        flow.run(Duration::from_millis(50));
    }
    flow.run(Duration::from_millis(200));
    flow.settle();
    assert_eq!(flow.lost, lost, "{}", told(&daemons));
}
