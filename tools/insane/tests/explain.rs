//! `insane explain` against real daemons.

mod common;

use common::{Daemon, text, wait_for};
use insane_rt::{
    ChannelId, Determinism, Nanos, Priority, Qos, Reliability, Session, SinkOptions, SourceOptions, StreamOptions,
};
use serde_json::Value;

const DOMAINS: &str = r#"domains: [
    (name: "line", members: [any], receive: [(size: 2048, count: 64)]),
    (name: "apart", members: [any], isolation: session, receive: [(size: 2048, count: 64)]),
]"#;

/// What the command prints, as text and as JSON.
fn explain(daemon: &Daemon, arguments: &[&str]) -> (String, Value) {
    let run = |more: &[&str]| {
        let output = daemon.command("explain", arguments).args(more).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        output.stdout
    };
    (text(&run(&[])), serde_json::from_slice(&run(&["--json"])).unwrap())
}

/// What is said about something, and why; several facts about it one after the other.
fn about(facts: &Value, about: &str) -> (String, String) {
    let found: Vec<&Value> = facts.as_array().unwrap().iter().filter(|fact| fact["about"] == about).collect();
    assert!(!found.is_empty(), "nothing about {about} in {facts:#}");
    let part = |name: &str| found.iter().filter_map(|fact| fact[name].as_str()).collect::<Vec<_>>().join("\n");
    (part("what"), part("why"))
}

fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn one_host_direct_rings_isolation_and_wake_ups() {
    let paths = "datapaths: [(name: \"quick\", idle: block, serves: real_time), \
                 (name: \"bulk\", idle: block, serves: best_effort)]";
    let daemon = Daemon::start("explain", &format!("{paths}, {DOMAINS}"));
    let session = Session::attach(daemon.socket(), "plc").unwrap();
    let cycle = Determinism::periodic(Nanos::from_millis(2), 400);
    let qos = Qos { determinism: cycle, priority: Priority::MAX, ..Qos::default() };
    let axis = session.stream("axis", qos).unwrap();
    let source = axis.source(ChannelId(5), SourceOptions::default().buffers(4096, 8)).unwrap();
    let sinks = [SinkOptions::default(), SinkOptions::default().polled(), SinkOptions::default().pollable()]
        .map(|options| axis.sink(ChannelId(5), options).unwrap());
    let tap = axis.sink(ChannelId(5), SinkOptions::default().observer()).unwrap();
    wait_for("all are joined", || source.receivers() == sinks.len());
    wait_for("the tap, too", || {
        let _ = tap.consume();
        tap.has_senders()
    });
    let (shown, json) = explain(&daemon, &["axis"]);
    assert_eq!((json["stream"].as_str(), json["domain"].as_str()), (Some("axis"), Some("line")));
    let facts = &json["facts"];
    assert_has(&about(facts, "asked for").0, &["unreliable", "period 2.00 ms", "priority 7", "400 bytes"]);
    let (lane, why) = about(facts, "lane");
    assert_has(&lane, &["0 of 0 (first) to 7, real-time"]);
    assert_eq!(why, "the rule: time-sensitive, priority 6 or 7");
    assert_has(&about(facts, "datapath").0, &["quick", "idle: block"]);
    assert_has(&about(facts, "datapath").1, &["for lane 0", "serves real-time lanes"]);
    assert_has(&about(facts, "local delivery").0, &["direct rings"]);
    assert_has(&about(facts, "reliability").0, &["newest data"]);
    assert_has(&about(facts, "memory").0, &["8 buffers in 32 KiB of heaps"]);
    let channel = &json["channels"][0];
    assert_eq!(channel["channel"], 5);
    assert_has(&about(&channel["facts"], "source 0").0, &["\"plc\"", "8 buffers", "to 3 local sinks by direct ring"]);
    for (sink, parts) in [
        ("sink 0", ["1 local source by direct ring", "futex"]),
        ("sink 1", ["rings of 64 messages", "never woken"]),
        ("sink 2", ["plc", "descriptor"]),
        ("tap 3", ["1 local source", "polls"]),
    ] {
        assert_has(&about(&channel["facts"], sink).0, &parts);
    }
    assert_has(&shown, &["stream \"axis\" of domain \"line\"", "because: the rule: time-sensitive", "channel 5"]);
    assert!(shown.lines().all(|line| line.chars().count() <= 100), "{shown}");

    // Isolated, once by its opener and once by its domain.
    let options = StreamOptions::default().isolated(true);
    let own = session.stream_with("own", Qos::default(), options).unwrap();
    let apart = Session::attach_in(daemon.socket(), "other", "apart").unwrap();
    let lent = apart.stream("axis", Qos { reliability: Reliability::Reliable, ..Qos::default() }).unwrap();
    let source = lent.source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = lent.sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("the datapath serves it", || source.receivers() == 1);
    let (_, json) = explain(&daemon, &["own"]);
    let (delivery, why) = about(&json["facts"], "local delivery");
    assert_has(&delivery, &["through datapath bulk"]);
    assert_eq!(why, "it was opened as isolated");
    assert_eq!(json["channels"].as_array().unwrap().len(), 0);
    let (_, json) = explain(&daemon, &["axis", "--domain", "apart"]);
    assert_has(&about(&json["facts"], "local delivery").1, &["the domain has isolation: session"]);
    assert_has(&about(&json["facts"], "reliability").0, &["refuses the emit", "at most 64 messages and 16 MiB"]);
    let (what, why) = about(&json["channels"][0]["facts"], "source 1");
    assert_has(&what, &["to datapath bulk"]);
    assert_has(&why, &["the datapath serves 1 isolated local sink"]);
    drop((own, sink, tap));
}

#[test]
fn two_hosts_links_peers_and_interest() {
    let base = 30_000 + (std::process::id() % 10_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base..60_000).step_by(2).filter(|port| free(*port)).take(2).collect();
    let config = |own: u16, peer: u16, name: &str| {
        format!(
            r#"datapaths: [(name: "main", idle: block, serves: all, links: ["l0"])],
            links: [(name: "l0", technology: udp(bind: "127.0.0.1:{own}"))],
            peers: [(name: "{name}", links: {{"l0": "127.0.0.1:{peer}"}}),
                (name: "nobody", links: {{"l0": "127.0.0.1:9"}})], {DOMAINS}"#
        )
    };
    let here = Daemon::start("here", &config(ports[0], ports[1], "there"));
    let there = Daemon::start("there", &config(ports[1], ports[0], "here"));
    let (a, b) = (Session::attach(here.socket(), "a").unwrap(), Session::attach(there.socket(), "b").unwrap());
    let stream = a.stream("s", Qos::default()).unwrap();
    let source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    wait_for("the peers are up", || here.status().peers.iter().any(|peer| peer.up));
    let (_, json) = explain(&here, &["s"]);
    assert_has(&about(&json["facts"], "peer there").1, &["it is there and has no sink of the stream"]);
    assert_has(&about(&json["facts"], "peer nobody").1, &["it was never heard"]);
    assert_has(&about(&json["facts"], "link").0, &[&format!("l0: udp at 127.0.0.1:{}", ports[0]), "up"]);
    assert_has(&about(&json["facts"], "technology").1, &["`standard` was asked for"]);
    assert_has(&about(&json["channels"][0]["facts"], "source 0").1, &["the channel has no sink anywhere"]);
    let sink = b.stream("s", Qos::default()).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    source.wait_for_receivers(common::PATIENCE).unwrap();
    let (_, json) = explain(&here, &["s"]);
    assert_has(&about(&json["facts"], "peer there").0, &["gets messages by link l0, up"]);
    let (what, why) = about(&json["channels"][0]["facts"], "source 0");
    assert_has(&what, &["to datapath main"]);
    assert_eq!(why, "the datapath serves peers there");
    let (_, json) = explain(&there, &["s"]);
    let (interest, why) = about(&json["channels"][0]["facts"], "interest");
    assert_eq!(interest, "the peers were told to send");
    assert_eq!(why, "there is a sink here that can receive");
    assert_has(&about(&json["channels"][0]["facts"], "sink 0").0, &["from datapath main"]);
    drop(sink);
}

/// Two links to one peer: what the policy says of them, and that streams follow it.
#[test]
fn the_table_of_the_policy_is_shown_and_carried_out() {
    let base = 30_000 + (std::process::id() % 10_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base..60_000).step_by(2).filter(|port| free(*port)).take(4).collect();
    let config = |own: [u16; 2], peer: [u16; 2], name: &str| {
        format!(
            r#"datapaths: [(name: "main", idle: block, serves: all, links: ["quick", "slow"])],
            links: [(name: "quick", technology: udp(bind: "127.0.0.1:{}")),
                (name: "slow", technology: tcp(bind: "127.0.0.1:{}"))],
            peers: [(name: "{name}", links: {{"quick": "127.0.0.1:{}", "slow": "127.0.0.1:{}"}})],
            policy: (budgets: {{"quick": (streams: 1)}}), {DOMAINS}"#,
            own[0], own[1], peer[0], peer[1]
        )
    };
    let (one, two) = ([ports[0], ports[1]], [ports[2], ports[3]]);
    let here = Daemon::start("policy-here", &config(one, two, "there"));
    let there = Daemon::start("policy-there", &config(two, one, "here"));
    let (a, b) = (Session::attach(here.socket(), "a").unwrap(), Session::attach(there.socket(), "b").unwrap());
    let open = |name: &str, priority: Priority| {
        let qos = Qos { priority, ..Qos::default() };
        let source = a.stream(name, qos).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
        let sink = b.stream(name, qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
        source.wait_for_receivers(common::PATIENCE).unwrap();
        (source, sink)
    };
    let flow = |stream: &str| {
        let (shown, json) = explain(&here, &[stream]);
        let flow = json["choices"]["flows"][0].clone();
        assert_eq!((flow["stream"].as_str(), flow["peer"].as_str()), (Some(stream), Some("there")), "{json:#}");
        (shown, flow)
    };
    let _logs = open("logs", Priority::MIN);
    assert_eq!(flow("logs").1["takes"], "quick");
    let _premium = open("premium", Priority::MAX);
    let (shown, premium) = flow("premium");
    assert_eq!(premium["takes"], "quick");
    assert_eq!((&premium["used"], &premium["fallback"]), (&"quick".into(), &"slow".into()));
    assert_has(
        &shown,
        &[
            "links to peer there by rule 5, for all others",
            "chosen   quick, ",
            "used     quick",
            "if the chosen one failed  slow",
            "budget of link quick: 1 of 1 streams",
        ],
    );
    let (shown, logs) = flow("logs");
    assert_eq!(logs["takes"], "slow");
    wait_for("it has moved", || flow("logs").1["used"] == "slow");
    assert_eq!(flow("logs").1["used_because"], "it is the policy's choice");
    assert_eq!(flow("premium").1["used"], "quick");
    assert_has(logs["because"].as_str().unwrap(), &["it gave way to stream \"premium\" to peer there"]);
    assert_has(&shown, &["its budget of streams is used up"]);
    assert_eq!(logs["links"].as_array().unwrap().len(), 2);
    let health = |link: &str| {
        let (_, flow) = flow("logs");
        let row = flow["links"].as_array().unwrap().iter().find(|row| row["link"] == link).cloned().unwrap();
        row["health"].as_str().unwrap().to_owned()
    };
    wait_for("heartbeats pass by both", || health("quick") == "good" && health("slow") == "good");
    // Another budget, without a restart.
    let file = here.folder.join("insaned.ron");
    let config = std::fs::read_to_string(&file).unwrap().replace("streams: 1)", "streams: 2)");
    std::fs::write(&file, config).unwrap();
    let output = here.command("reload", &[]).arg(&file).output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.contains("policy.budgets[\"quick\"]: 1 streams, any Mbit/s"), "{shown}");
    let (shown, logs) = flow("logs");
    assert_eq!((&logs["takes"], &logs["because"]), (&"quick".into(), &"room became free".into()), "{shown}");
    wait_for("it has moved back", || flow("logs").1["used"] == "quick");
    // By hand goes before the policy, and no longer than that is wanted.
    let moves = |options: &[&str]| {
        let moved = || here.command("move", &["logs"]).args(options).output().unwrap().status.success();
        wait_for("it may be moved", moved);
    };
    moves(&["--link", "slow"]);
    assert_eq!((&flow("logs").1["used"], &flow("logs").1["takes"]), (&"slow".into(), &"quick".into()));
    assert_eq!(flow("logs").1["used_because"], "it was moved there by hand");
    moves(&[]);
    wait_for("the policy is followed again", || flow("logs").1["used"] == "quick");
}

/// Three hosts on the loopback interface, of which two are in one group.
#[test]
fn a_group_is_told_with_whom_it_serves() {
    let base = 30_000 + (std::process::id() % 10_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base + 1_000..60_000).step_by(2).filter(|port| free(*port)).take(4).collect();
    // The process makes the group its own.
    let [high, low] = (std::process::id() as u16).to_be_bytes();
    let group = format!("239.193.{high}.{low}:{}", ports[3]);
    let config = |own: usize, is_member: bool| {
        let peers = (0..3).filter(|peer| *peer != own);
        let peers = peers.map(|peer| format!("(name: \"g{peer}\", links: {{\"l0\": \"127.0.0.1:{}\"}})", ports[peer]));
        let multicast =
            if is_member { format!("multicast: (group: \"{group}\", from_peers: 2)") } else { String::new() };
        format!(
            r#"datapaths: [(name: "main", idle: block, links: ["l0"])],
            links: [(name: "l0", technology: udp(bind: "127.0.0.1:{}", {multicast}))],
            peers: [{}], {DOMAINS}"#,
            ports[own],
            peers.collect::<Vec<_>>().join(", ")
        )
    };
    let here = Daemon::start("g0", &config(0, true));
    let second = Daemon::start("g1", &config(1, true));
    let third = Daemon::start("g2", &config(2, false));
    let open = |daemon: &Daemon| Session::attach(daemon.socket(), "a").unwrap();
    let (a, b, c) = (open(&here), open(&second), open(&third));
    let source = a.stream("s", Qos::default()).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    let sinks =
        [&b, &c].map(|host| host.stream("s", Qos::default()).unwrap().sink(ChannelId(1), SinkOptions::default()));
    source.wait_for_receivers(common::PATIENCE).unwrap();
    let hears = |names: &[&str]| here.status().datapaths[0].links[0].group.clone().unwrap().hears == names;
    wait_for("the member hears, both are interested", || {
        hears(&["g1"]) && here.status().streams[0].channels[0].peers.len() == 2
    });
    let (_, json) = explain(&here, &["s"]);
    let (what, why) = about(&json["channels"][0]["facts"], "group");
    assert_eq!(what, "not used: each peer gets frames of its own");
    assert_has(&why, &["1 of 2 peers that have a sink hear the group of link l0", &group, "from 2 on"]);
    drop((c, third));
    let third = Daemon::start("g2", &config(2, true));
    let c = open(&third);
    let again = c.stream("s", Qos::default()).unwrap().sink(ChannelId(1), SinkOptions::default());
    wait_for("both hear and are interested", || {
        hears(&["g1", "g2"]) && here.status().streams[0].channels[0].peers.len() == 2
    });
    let (_, json) = explain(&here, &["s"]);
    let (what, why) = about(&json["channels"][0]["facts"], "group");
    assert_eq!(what, "one frame to the group of link l0 for peers g1, g2");
    assert_eq!(why, "2 of 2 peers hear it");
    let reliable = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let orders = a.stream("r", reliable).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    let _taken = b.stream("r", reliable).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    orders.wait_for_receivers(common::PATIENCE).unwrap();
    let (_, json) = explain(&here, &["r"]);
    assert_has(&about(&json["channels"][0]["facts"], "group").1, &["the stream is reliable"]);
    let shown = text(&here.command("status", &["--once"]).output().unwrap().stdout);
    assert_has(&shown, &[&format!("{group}, heard by g1, g2")]);
    drop((sinks, again));
}

#[test]
fn what_is_not_there_is_told_with_what_is() {
    let daemon = Daemon::start("none", DOMAINS);
    let fails = |arguments: &[&str]| {
        let output = daemon.command("explain", arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    assert_eq!(fails(&["x"]), "error: no stream \"x\" is open; none is\n");
    let line = Session::attach(daemon.socket(), "a").unwrap();
    let _first = line.stream("s", Qos::default()).unwrap();
    let _other = line.stream("t", Qos::default()).unwrap();
    let shown = fails(&["x"]);
    assert!(shown.contains("\"s\"") && shown.contains("\"t\""), "{shown}");
    let apart = Session::attach_in(daemon.socket(), "b", "apart");
    // Whoever sees several domains (who runs the runtime does) has to choose.
    if let Ok(apart) = apart
        && let Ok(_same) = apart.stream("s", Qos::default())
    {
        let shown = fails(&["s"]);
        assert!(shown.contains("choose one with --domain: "), "{shown}");
        assert!(daemon.command("explain", &["s", "--domain", "line"]).output().unwrap().status.success());
    }
    let nowhere = common::insane().args(["explain", "s", "--socket", "/nowhere/x.sock"]).output().unwrap();
    assert!(text(&nowhere.stderr).starts_with("error: no runtime answers at /nowhere/x.sock"));
}

/// Where each value comes from: from who opened it, or from which place of the file.
#[test]
fn what_is_declared_is_told_with_its_place() {
    let domains = r#"domains: [(name: "line", members: [any], receive: [(size: 2048, count: 64)], streams: [
        (name: "axis/*", reliability: reliable, priority_max: 5, history_max: 2),
        (name: "axis/2", isolated: true),
    ])]"#;
    let daemon = Daemon::start("explain-declared", domains);
    let session = Session::attach(daemon.socket(), "plc").unwrap();
    let asked = Qos { priority: Priority::MAX, ..Qos::default() };
    let axis = session.stream("axis/1", asked).unwrap();
    assert_eq!(axis.qos().reliability, Reliability::Reliable, "the application is told what it was given");
    assert_eq!((axis.qos().priority.get(), axis.lane().get()), (5, 5));
    let _second = session.stream("axis/2", asked).unwrap();
    let (shown, json) = explain(&daemon, &["axis/1"]);
    let (asked_for, _) = about(&json["facts"], "asked for");
    assert_has(&asked_for, &["unreliable", "priority 7"]);
    let (what, why) = about(&json["facts"], "declared");
    assert_has(&what, &["reliability reliable", "priority at most 5", "history at most 2"]);
    assert_has(&why, &["domains[\"line\"].streams[\"axis/*\"].priority_max"]);
    assert_has(&about(&json["facts"], "given").0, &["reliable, standard", "priority 5"]);
    assert_has(&about(&json["facts"], "reliability").1, &["reliable is declared by the configuration"]);
    assert_has(&shown, &["declared", "given"]);
    let (_, json) = explain(&daemon, &["axis/2"]);
    assert_has(&about(&json["facts"], "local delivery").1, &["declared as isolated"]);
    assert_has(&about(&json["facts"], "reliability").1, &["unreliable was asked for"]);
    let refused = session.stream_with("axis/1", Qos { priority: Priority::MIN, ..asked }, StreamOptions::default());
    assert_has(&refused.unwrap_err().to_string(), &["is open as", "priority 5"]);
}
