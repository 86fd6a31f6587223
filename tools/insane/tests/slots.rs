//! Slots from configuration to wire, with two real daemons over loopback: order, count,
//! certificate, refusal. How well slots are kept is printed and not judged: the machine is
//! shared.

mod common;

use common::{Daemon, text, wait_for};
use insane_rt::{
    ChannelId, Code, Determinism, Nanos, Priority, Qos, RequestError, Session, SinkOptions, SourceOptions,
};
use serde_json::Value;
use std::time::{Duration, Instant};

const MESSAGES: u64 = 200;
const PERIOD: Nanos = Nanos::from_millis(2);

/// Two daemons whose link has a rate.
fn pair(test: u16) -> [Daemon; 2] {
    // Tests run at a time, each in a range of its own.
    let base = 20_000 + (std::process::id() % 9_000) as u16 + 500 * test;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base..40_000).step_by(2).filter(|port| free(*port)).take(2).collect();
    let start = |name: &str, own: u16, peer: u16, other: &str| {
        let config = format!(
            r#"datapaths: [(name: "main", idle: spin_then_block(us: 20), links: ["l0"], epsilon_quantile_ppm: 990_000)],
            links: [(name: "l0", technology: udp(bind: "127.0.0.1:{own}"), rate_mbps: 100, turn_us: 200)],
            peers: [(name: "{other}", links: {{"l0": "127.0.0.1:{peer}"}})],
            domains: [(name: "line", members: [any], receive: [(size: 2048, count: 256)])]"#
        );
        Daemon::start(name, &config)
    };
    let names = [format!("slots-a{test}"), format!("slots-b{test}")];
    [start(&names[0], ports[0], ports[1], &names[1]), start(&names[1], ports[1], ports[0], &names[0])]
}

fn every(period: Nanos, size: u32) -> Qos {
    Qos { determinism: Determinism::periodic(period, size), priority: Priority::MAX, ..Qos::default() }
}

fn json(daemon: &Daemon, command: &str, arguments: &[&str]) -> Value {
    let output = daemon.command(command, arguments).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn messages_go_in_their_slots_beside_best_effort_in_order_and_none_is_lost() {
    let [here, there] = pair(0);
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let axis = a.stream("axis", every(PERIOD, 64)).unwrap();
    let source = axis.source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = b.stream("axis", every(PERIOD, 64)).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    let bulk = a.stream("bulk", Qos::default()).unwrap();
    let flood = bulk.source(ChannelId(2), SourceOptions::default().buffers(1024, 32)).unwrap();
    let drain = b.stream("bulk", Qos::default()).unwrap().sink(ChannelId(2), SinkOptions::default()).unwrap();
    wait_for("both are joined", || source.receivers() == 1 && flood.receivers() == 1);
    let counters = || here.status().datapaths[0].counters.clone();
    // Slots are staged before the first message: wait until one went by.
    wait_for("the slots are in force", || counters()["slots_unused"] > 0);
    let (mut emitted, mut received) = (0_u64, 0_u64);
    let start = Instant::now();
    while received < MESSAGES {
        assert!(
            start.elapsed() < common::PATIENCE,
            "{received} of {MESSAGES} came, {emitted} emitted: {:?}",
            counters()
        );
        while let Ok(buffer) = flood.get_buffer(1024) {
            if !flood.emit(buffer).is_sent() {
                break;
            }
        }
        while let Ok(Some(_)) = drain.consume() {}
        if emitted < MESSAGES && start.elapsed() >= Duration::from(PERIOD) * emitted as u32 {
            let mut buffer = source.get_buffer(8).unwrap();
            buffer.copy_from_slice(&emitted.to_le_bytes());
            assert!(source.emit(buffer).is_sent());
            emitted += 1;
        }
        while let Some(message) = sink.consume().unwrap() {
            assert_eq!((message.sequence(), message.lost()), (received, 0));
            assert_eq!(message.to_vec(), received.to_le_bytes());
            received += 1;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    let counted = counters();
    assert_eq!(counted["slots_sent"], MESSAGES, "each in a slot: {counted:?}");
    assert_eq!(counted["slots_oversize"] + counted["late_dropped"], 0);
    let kept: Vec<String> = counted
        .iter()
        .filter(|(name, _)| ["slot", "late", "guard", "clock", "turn_over"].iter().any(|part| name.starts_with(part)))
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    println!("{}", kept.join(", "));

    // What it was given, by which clock, and the certificate.
    let explained = json(&here, "explain", &["axis"]);
    let facts = explained["facts"].as_array().unwrap();
    let slots = facts.iter().find(|fact| fact["about"] == "slots").expect("a fact about slots");
    assert!(slots["what"].as_str().unwrap().contains("in every 2.00 ms"), "{slots}");
    assert!(facts.iter().any(|fact| fact["about"] == "slots run by"));
    let status = json(&here, "status", &["--once"]);
    let certificate = status["datapaths"][0]["certificate"].as_str().expect("a certificate");
    let certificate = insane_certificate::text::read(certificate).unwrap();
    assert_eq!(insane_checker::check(&certificate.plant, &certificate), Ok(()));
    assert_eq!(certificate.plant.links[0].ps_per_byte, 80_000);
    assert_eq!(certificate.plant.hosts[0].turn.quantile_ppm, 990_000, "as configured");

    // What a turn took in truth was measured for each slot, and what rests on it is told.
    wait_for("a status has all samples", || {
        let measured = here.status().datapaths.remove(0).monitors[0].measured.clone().expect("e_turn is measured");
        measured.samples >= MESSAGES && measured.assumed_quantile_ns == Some(200_000)
    });
    let explained = json(&here, "explain", &["axis"]);
    let turn = explained["facts"].as_array().unwrap().iter().find(|fact| fact["about"] == "e_turn").unwrap();
    // Too few for the quantile; a machine that slept through slots has samples of those, too.
    let what = turn["what"].as_str().unwrap();
    assert!(what.contains("too few for 99 %") || what.contains("slots missed for it"), "{turn}");
    assert!(turn["why"].as_str().unwrap().starts_with("statistical:"), "{turn}");
    let measured = common::insane().args(["schedule", "measured", "--socket"]).arg(here.socket()).output().unwrap();
    assert!(text(&measured.stdout).contains("// turn: "), "{}", text(&measured.stdout));
    let shown = here.command("status", &["--once"]).output().unwrap();
    assert!(text(&shown.stdout).contains("slots run by"), "{}", text(&shown.stdout));
    // The receiver has no source, and no slots.
    assert_eq!(json(&there, "status", &["--once"])["datapaths"][0]["certificate"], Value::Null);
}

#[test]
fn a_stream_that_does_not_fit_is_refused_through_the_api_and_the_first_one_stays() {
    let [here, _there] = pair(1);
    let session = Session::attach(here.socket(), "plc").unwrap();
    let open = |name: &str| {
        let stream = session.stream(name, every(PERIOD, 8_000)).unwrap();
        stream.source(ChannelId(1), SourceOptions::default().buffers(8_000, 2)).map(|source| (stream, source))
    };
    let first = open("one").unwrap();
    match open("two").map(|_| ()) {
        Err(RequestError::Refused { code: Code::NotAdmitted, reason }) => {
            for part in ["no slots on link", "there is no schedule", "it would with"] {
                assert!(reason.contains(part), "{part:?} is missing in {reason}");
            }
        }
        other => panic!("{other:?}"),
    }
    drop(first);
    wait_for("its slots are free", || open("two").is_ok());
}

#[test]
fn an_assumption_that_does_not_hold_is_counted_alarmed_and_kept() {
    let [here, there] = pair(2);
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let axis = a.stream("axis", every(PERIOD, 64)).unwrap();
    let source = axis.source(ChannelId(1), SourceOptions::default().buffers(1_024, 8)).unwrap();
    let _sink = b.stream("axis", every(PERIOD, 64)).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("they are joined", || source.receivers() == 1);
    let size = || {
        let monitors = here.status().datapaths.remove(0).monitors;
        monitors.into_iter().find(|monitor| monitor.assumption == "size").expect("it is watched")
    };
    assert_eq!((size().violations, size().out_of_spec_s), (0, None), "in spec");
    // More than the stream said.
    wait_for("it is noticed", || {
        let buffer = source.get_buffer(1_000).unwrap();
        let _ = source.emit(buffer);
        std::thread::sleep(Duration::from_millis(10));
        size().violations > 0
    });
    let explained = json(&here, "explain", &["axis"]);
    let facts = explained["facts"].as_array().unwrap();
    let says = |fact: &Value| {
        fact["what"].as_str().unwrap().contains("out of spec") && fact["what"].to_string().contains("size")
    };
    assert!(facts.iter().any(|fact| fact["about"] == "assumptions" && says(fact)), "{facts:?}");
    wait_for("it is alarmed", || here.log().contains("out of spec: a message was larger than its slot"));
    let shown = text(&here.command("status", &["--once"]).output().unwrap().stdout);
    assert!(shown.contains("out of spec for") && shown.contains("size"), "{shown}");
    // The mark stays although nothing more happens.
    std::thread::sleep(Duration::from_millis(300));
    assert!(size().out_of_spec_s.is_some());
}

#[test]
fn a_link_without_a_rate_gives_no_slots_and_explain_says_so() {
    let domains = r#"domains: [(name: "line", members: [any], receive: [(size: 2048, count: 64)])]"#;
    let daemon = Daemon::start("slots-none", domains);
    let session = Session::attach(daemon.socket(), "plc").unwrap();
    let _stream = session.stream("axis", every(PERIOD, 64)).unwrap();
    let explained = json(&daemon, "explain", &["axis"]);
    let facts = explained["facts"].as_array().unwrap();
    let slots = facts.iter().find(|fact| fact["about"] == "slots").expect("a fact about slots");
    assert!(slots["why"].as_str().unwrap().contains("rate_mbps"), "{slots}");
}

#[test]
fn a_source_that_could_reach_a_peer_without_slots_is_refused_unless_the_datapath_allows_it() {
    let start = |name: &str, port: u16, leave: &str| {
        let rest = format!(
            r#"datapaths: [(name: "main", idle: block, links: ["l0"]{leave})],
            links: [(name: "l0", technology: udp(bind: "127.0.0.1:{port}"))],
            domains: [(name: "line", members: [any], receive: [(size: 2048, count: 64)])]"#
        );
        Daemon::start(name, &rest)
    };
    let free =
        |port: &u16| [*port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let port = |from: u16| (from + (std::process::id() % 9_000) as u16..45_000).step_by(2).find(free).unwrap();
    let refusing = start("unscheduled-a", port(30_000), "");
    let session = Session::attach(refusing.socket(), "plc").unwrap();
    let stream = session.stream("axis", every(PERIOD, 64)).unwrap();
    match stream.source(ChannelId(1), SourceOptions::default()).map(|_| ()) {
        Err(RequestError::Refused { code: Code::NotAdmitted, reason }) => {
            assert!(reason.contains("rate_mbps") && reason.contains("unscheduled: allow"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let allowing = start("unscheduled-b", port(31_000), ", unscheduled: allow");
    let session = Session::attach(allowing.socket(), "plc").unwrap();
    let stream = session.stream("axis", every(PERIOD, 64)).unwrap();
    stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    let explained = json(&allowing, "explain", &["axis"]);
    let facts = explained["facts"].as_array().unwrap();
    assert!(facts.iter().any(|fact| fact["what"].as_str().unwrap().contains("without a bound in time")), "{facts:?}");
}

#[test]
fn a_datapath_that_was_stopped_has_missed_slots_told_live_and_after_its_death() {
    let [here, there] = pair(3);
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let axis = a.stream("axis", every(PERIOD, 64)).unwrap();
    let source = axis.source(ChannelId(1), SourceOptions::default()).unwrap();
    let _sink = b.stream("axis", every(PERIOD, 64)).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("they are joined", || source.receivers() == 1);
    wait_for("the slots are in force", || here.status().datapaths[0].counters["slots_unused"] > 0);
    let stopped = |row: &Value| ["wake late", "turn overrun"].iter().any(|cause| row["cause"] == **cause);
    let live = || json(&here, "misses", &["--count", "500"])[0]["misses"].as_array().unwrap().clone();
    wait_for("a message is late because the process was stopped", || {
        here.signal(nix::sys::signal::Signal::SIGSTOP);
        for _ in 0..5 {
            let mut buffer = source.get_buffer(8).unwrap();
            buffer.copy_from_slice(&[7; 8]);
            let _ = source.emit(buffer);
            std::thread::sleep(PERIOD.into());
        }
        here.signal(nix::sys::signal::Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(40));
        live().iter().any(stopped)
    });
    let shown = text(&here.command("status", &["--once"]).output().unwrap().stdout);
    assert!(shown.contains("missed their slots:"), "{shown}");
    let explained = json(&here, "explain", &["axis"]);
    assert!(explained["facts"].as_array().unwrap().iter().any(|fact| fact["about"] == "missed"), "{explained}");
    let row = live().into_iter().find(stopped).unwrap();
    let ns = |name: &str| row[name].as_u64().unwrap();
    assert!(ns("planned_ns") < ns("noticed_ns") && ns("from_ns") < ns("to_ns"), "{row}");
    here.signal(nix::sys::signal::Signal::SIGKILL);
    wait_for("nobody answers", || !here.command("status", &["--once"]).output().unwrap().status.success());
    let after = live();
    assert!(after.contains(&row), "{row} is in {after:?}");
    let words = here.command("misses", &[]).output().unwrap();
    assert!(text(&words.stdout).contains("after its slot"), "{}", text(&words.stdout));
    let none = insane_command_on_nothing(&here);
    assert!(none.contains("records misses where"), "{none}");
}

/// What a reload changes beside them, and a peer that comes by it, leaves slots in force: a
/// message to each peer has room, and those that go meanwhile arrive.
#[test]
fn slots_survive_a_reload_and_have_room_for_a_peer_that_comes_by_it() {
    let [here, there] = pair(4);
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let axis = a.stream("axis", every(PERIOD, 64)).unwrap();
    let source = axis.source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = b.stream("axis", every(PERIOD, 64)).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("they are joined", || source.receivers() == 1);
    wait_for("the slots are in force", || here.status().datapaths[0].counters["slots_unused"] > 0);
    let slot = || {
        let report = here.status();
        let stream = report.streams.iter().find(|stream| stream.name == "axis").expect("it is open");
        stream.channels[0].sources[0].slot.clone().expect("it has slots")
    };
    let before = slot();
    let file = here.folder.join("insaned.ron");
    let config = std::fs::read_to_string(&file).unwrap();
    // Another quota, and a peer that is not there yet.
    let changed = config
        .replace("receive: [(size: 2048, count: 256)]", "receive: [(size: 2048, count: 256)], quota: (streams: 99)")
        .replace("peers: [", r#"peers: [(name: "third", links: {"l0": "127.0.0.1:9"}), "#);
    assert_ne!(changed, config);
    let reload = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let output = here.command("reload", &[]).output().unwrap();
        assert!(output.status.success(), "{}{}", text_of(&output.stdout), text_of(&output.stderr));
    };
    let mut taken = 0;
    let mut go_on = |until: &dyn Fn() -> bool| {
        wait_for("it holds, and messages go", || {
            let mut buffer = source.get_buffer(8).unwrap();
            buffer.copy_from_slice(&[7; 8]);
            assert!(source.emit(buffer).is_sent());
            wait_for("it arrives", || sink.consume().unwrap().is_some_and(|message| message.lost() == 0));
            taken += 1;
            taken % 20 == 0 && until()
        });
    };
    go_on(&|| true);
    reload(&changed);
    go_on(&|| slot().bytes == 2 * before.bytes);
    assert_eq!(slot().period_ns, before.period_ns);
    reload(&config);
    go_on(&|| slot().bytes == before.bytes);
    let counters = here.status().datapaths.remove(0).counters;
    assert_eq!(counters["slots_oversize"] + counters["late_dropped"], 0, "{counters:?}");
}

fn text_of(bytes: &[u8]) -> String {
    text(bytes).to_owned()
}

fn insane_command_on_nothing(daemon: &Daemon) -> String {
    let output = daemon.command("misses", &["--last"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    text(&output.stderr)
}
