//! `insane qos` against a real daemon of two links: what a stream asks for is changed while it is
//! used, and it goes where the policy then wants it.

mod common;

use common::{Daemon, text, wait_for};
use insane_rt::{ChannelId, Datapath, Emit, Qos, Session, SinkOptions, SourceOptions};

/// Fast streams are to go by tcp here, all others by udp.
const POLICY: &str = r#"policy: (rules: [
    (when: (datapath: fast), order: [tcp, udp]),
    (when: (), order: [udp, tcp]),
])"#;

/// Two daemons over loopback, with a udp and a tcp link between them.
fn pair() -> [Daemon; 2] {
    let base = 42_000 + (std::process::id() % 8_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base..64_000).step_by(2).filter(|port| free(*port)).take(4).collect();
    let config = |own: usize, peer: usize, name: &str| {
        let (a, b, c, d) = (ports[own], ports[own + 1], ports[peer], ports[peer + 1]);
        format!(
            r#"datapaths: [(name: "main", idle: block, serves: all, links: ["datagrams", "bytes"])], {POLICY},
            links: [(name: "datagrams", technology: udp(bind: "127.0.0.1:{a}")), (name: "bytes", technology: tcp(bind: "127.0.0.1:{b}"))],
            peers: [(name: "{name}", links: {{"datagrams": "127.0.0.1:{c}", "bytes": "127.0.0.1:{d}"}})],
            domains: [(name: "line", members: [any], receive: [(size: 2048, count: 64)],
                streams: [(name: "bounded", priority_max: 3)])]"#
        )
    };
    [Daemon::start("qosa", &config(0, 2, "qosb")), Daemon::start("qosb", &config(2, 0, "qosa"))]
}

#[test]
fn a_stream_that_asks_for_something_else_goes_where_the_policy_then_wants_it() {
    let [here, there] = pair();
    let (a, b) = (Session::attach(here.socket(), "a").unwrap(), Session::attach(there.socket(), "b").unwrap());
    let source = a.stream("s", Qos::default()).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = b.stream("s", Qos::default()).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    source.wait_for_receivers(common::PATIENCE).unwrap();
    let _bounded = a.stream("bounded", Qos::default()).unwrap();
    let link = || here.status().streams.iter().find(|row| row.name == "s").unwrap().links.get("qosb").cloned();
    let run = |arguments: &[&str], code: i32, words: &str| {
        let output = here.command("qos", arguments).output().unwrap();
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.code() == Some(code) && said.contains(words), "{arguments:?}: {said}");
    };
    let mut number = 0_u64;
    let mut passes = |by: &str| {
        wait_for("the policy's link is used", || link().as_deref() == Some(by));
        let emitted = source.emit_copy(&number.to_le_bytes()).unwrap();
        assert!(matches!(emitted, Emit::Sent(_)));
        let message = sink.consume_timeout(common::PATIENCE).unwrap().expect("it comes");
        assert_eq!((message.to_vec(), message.lost()), (number.to_le_bytes().to_vec(), 0));
        number += 1;
    };
    passes("datagrams");
    run(&["s", "--datapath", "fast", "--priority", "7"], 0, "stream \"s\": datapath fast, priority 7");
    passes("bytes");
    let qos = here.status().streams.iter().find(|row| row.name == "s").unwrap().qos.clone().unwrap();
    assert_eq!((qos.datapath.as_str(), qos.priority), ("fast", 7));
    run(&["s", "--datapath", "fast"], 0, "datapath fast, priority as it was");
    let qos = here.status().streams.iter().find(|row| row.name == "s").unwrap().qos.clone().unwrap();
    assert_eq!((qos.datapath.as_str(), qos.priority), ("fast", 7), "what is not named stays");
    a.set_qos("s", Some(Datapath::Standard), None).unwrap();
    passes("datagrams");
    a.set_qos("s", Some(Datapath::Fast), None).unwrap();
    passes("bytes");
    run(&["s"], 0, "datapath as asked for, priority as asked for");
    passes("datagrams");
    run(&["t", "--priority", "1"], 1, "no stream \"t\" is open");
    run(&["bounded", "--priority", "4"], 1, "the configuration declares otherwise");
    run(&["bounded", "--priority", "3"], 0, "priority 3");
}
