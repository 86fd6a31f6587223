//! Best effort of a link with a budget of bandwidth, against real daemons: a flood is held to it
//! and loses nothing, premium goes first, and a reload frees it.

mod common;

use common::{Daemon, text, wait_for};
use insane_rt::{ChannelId, Emit, Priority, Qos, Session, Sink, SinkOptions, Source, SourceOptions};
use serde_json::Value;
use std::time::{Duration, Instant};

const BYTES: usize = 1_000;
/// The budget, bytes a second.
const BUDGET: u64 = 8_000_000 / 8;
const FLOOD: Duration = Duration::from_secs(1);

struct Talk {
    source: Source,
    sink: Sink,
    emitted: u64,
    came: u64,
}

impl Talk {
    fn open((a, b): (&Session, &Session), name: &str, priority: Priority) -> Talk {
        let qos = Qos { priority, ..Qos::default() };
        let source = a.stream(name, qos).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
        let sink = b.stream(name, qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
        source.wait_for_receivers(common::PATIENCE).unwrap();
        Talk { source, sink, emitted: 0, came: 0 }
    }

    /// One message, if there is room for it.
    fn emit(&mut self) {
        if let Ok(buffer) = self.source.get_buffer(BYTES) {
            self.emitted += u64::from(matches!(self.source.emit(buffer), Emit::Sent(_)));
        }
    }

    fn consume(&mut self) {
        while self.sink.consume().unwrap().is_some() {
            self.came += 1;
        }
    }
}

/// Bytes of the flood and messages of premium that came, and in what time: one premium message in
/// ten milliseconds.
fn flood(flood: &mut Talk, premium: &mut Talk) -> (u64, u64, Duration) {
    let (before, started) = ((flood.came, premium.came), Instant::now());
    let mut next = Duration::ZERO;
    while started.elapsed() < FLOOD {
        for _ in 0..8 {
            flood.emit();
        }
        if started.elapsed() >= next {
            premium.emit();
            next += Duration::from_millis(10);
        }
        flood.consume();
        premium.consume();
        std::thread::yield_now();
    }
    let time = started.elapsed();
    ((flood.came - before.0) * BYTES as u64, premium.came - before.1, time)
}

#[test]
fn a_flood_is_held_to_the_budget_and_freed_by_a_reload() {
    let base = 30_000 + (std::process::id() % 10_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base + 2_000..60_000).step_by(2).filter(|port| free(*port)).take(2).collect();
    let config = |own: u16, peer: u16, name: &str| {
        format!(
            r#"datapaths: [(name: "main", idle: block, serves: all, links: ["net"])],
            links: [(name: "net", technology: udp(bind: "127.0.0.1:{own}"))],
            peers: [(name: "{name}", links: {{"net": "127.0.0.1:{peer}"}})],
            policy: (budgets: {{"net": (mbps: 8)}}),
            domains: [(name: "line", members: [any], receive: [(size: 2048, count: 512)])]"#
        )
    };
    let here = Daemon::start("pace-here", &config(ports[0], ports[1], "there"));
    let there = Daemon::start("pace-there", &config(ports[1], ports[0], "here"));
    let (a, b) = (Session::attach(here.socket(), "a").unwrap(), Session::attach(there.socket(), "b").unwrap());
    let mut bulk = Talk::open((&a, &b), "bulk", Priority::MIN);
    let mut premium = Talk::open((&a, &b), "premium", Priority::MAX);
    let explain = || -> Value {
        let output = here.command("explain", &["bulk", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };
    let because = |json: &Value| json["choices"]["flows"][0]["used_because"].as_str().unwrap_or_default().to_owned();
    let json = explain();
    assert!(because(&json).contains("all best effort there together is held to 8 Mbit/s"), "{json:#}");
    assert_eq!(json["choices"]["budgets"][0]["best_effort_bits_per_s"], 8_000_000, "{json:#}");
    let used_up = || here.status().domains[0].counters["budget_used_up"];
    // From the next look at the links on.
    wait_for("it is held", || {
        (0..300).for_each(|_| bulk.emit());
        bulk.consume();
        used_up() > 0
    });
    // What went before that is gone, one way or the other.
    let mut last = (bulk.came, Instant::now());
    wait_for("nothing is under way", || {
        bulk.consume();
        if bulk.came != last.0 {
            last = (bulk.came, Instant::now());
        }
        last.1.elapsed() > Duration::from_millis(500)
    });
    bulk.emitted = bulk.came;
    let (bytes, urgent, time) = flood(&mut bulk, &mut premium);
    // A burst may go at once besides.
    let most = BUDGET * time.as_millis() as u64 / 1_000 + 100_000;
    assert!(bytes + urgent * BYTES as u64 <= most, "{bytes} bytes of {most}");
    assert!(bytes > 100_000, "{bytes}");
    wait_for("all that was emitted has come", || {
        bulk.consume();
        premium.consume();
        bulk.came == bulk.emitted && premium.came == premium.emitted
    });
    assert!(urgent > 0);

    let file = here.folder.join("insaned.ron");
    let text_of = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text_of.replace("\"net\": (mbps: 8)", "")).unwrap();
    let output = here.command("reload", &[]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!because(&explain()).contains("held"));
    let before = used_up();
    wait_for("nobody is held any more", || {
        let (bytes, ..) = flood(&mut bulk, &mut premium);
        bytes > 2 * most
    });
    let last = used_up();
    let _ = flood(&mut bulk, &mut premium);
    assert!(used_up() == last && last >= before);
}
