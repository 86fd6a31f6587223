//! `insane move` against two real daemons that are joined by two links.

mod common;

use common::{Daemon, text, wait_for};
use insane_rt::{ChannelId, Qos, Session, SinkOptions, SourceOptions};

const DOMAINS: &str = r#"domains: [(name: "line", members: [any], receive: [(size: 2048, count: 64)])]"#;

/// Two daemons over loopback, each with two links to the other.
fn pair() -> [Daemon; 2] {
    let base = 40_000 + (std::process::id() % 10_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base..64_000).step_by(2).filter(|port| free(*port)).take(4).collect();
    let config = |own: usize, peer: usize, name: &str| {
        let (a, b, c, d) = (ports[own], ports[own + 1], ports[peer], ports[peer + 1]);
        format!(
            r#"datapaths: [(name: "main", idle: block, serves: all, links: ["l0", "l1"])],
            links: [(name: "l0", technology: udp(bind: "127.0.0.1:{a}")), (name: "l1", technology: udp(bind: "127.0.0.1:{b}"))],
            peers: [(name: "{name}", links: {{"l0": "127.0.0.1:{c}", "l1": "127.0.0.1:{d}"}}),
                (name: "nobody", links: {{"l0": "127.0.0.1:9"}})], {DOMAINS}"#
        )
    };
    [Daemon::start("here", &config(0, 2, "there")), Daemon::start("there", &config(2, 0, "here"))]
}

#[test]
fn a_stream_is_moved_and_what_cannot_be_moved_is_told() {
    let [here, there] = pair();
    let (a, b) = (Session::attach(here.socket(), "a").unwrap(), Session::attach(there.socket(), "b").unwrap());
    let source = a.stream("s", Qos::default()).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    let sink = b.stream("s", Qos::default()).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    source.wait_for_receivers(common::PATIENCE).unwrap();
    let link = || here.status().streams[0].links.get("there").cloned();
    wait_for("the stream goes by its first link", || link().as_deref() == Some("l0"));
    let run = |arguments: &[&str]| {
        let output = here.command("move", arguments).output().unwrap();
        (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
    };
    let told = |arguments: &[&str], code: i32, words: &str| {
        let (status, out, err) = run(arguments);
        assert!(status == Some(code) && (out.clone() + &err).contains(words), "{arguments:?}: {status:?} {out}{err}");
    };
    told(&["s", "--link", "l1"], 0, "stream \"s\" goes by link \"l1\"");
    assert_eq!(link().as_deref(), Some("l1"));
    let _ = source.emit_copy(b"by the other link");
    let message = sink.consume_timeout(common::PATIENCE).unwrap().expect("it comes");
    assert_eq!(message.to_vec(), b"by the other link");
    std::thread::sleep(std::time::Duration::from_millis(60));
    told(&["s", "--link", "l2"], 1, "it has l0, l1");
    told(&["s", "--link", "l1", "--peer", "nobody"], 1, "link \"l1\" has no address of peer \"nobody\"");
    told(&["s", "--link", "l1", "--peer", "stranger"], 1, "no peer \"stranger\"");
    told(&["t", "--link", "l1"], 1, "no stream \"t\" is open");
    told(&["s", "--peer", "there"], 0, "stream \"s\" goes as everything else to peer \"there\"");
    assert_eq!(link().as_deref(), Some("l0"));
    // The log has the names of reports.
    let (other, log) = (there.status().host, here.log());
    for words in [
        format!("host={}", other.id),
        format!("life={}", other.incarnation),
        "the overlay speaks by this link".into(),
        "link=\"l0\"".into(),
        "domain=\"line\"".into(),
    ] {
        assert!(log.contains(&words), "{words:?} is missing in {log}");
    }
    // Not again at once; to start the tool may take longer than that.
    wait_for("a move right behind another one is refused", || {
        let _ = a.move_stream("s", Some("l1"), None);
        let (status, _, err) = run(&["s", "--link", "l1"]);
        status == Some(1) && err.contains("try again")
    });
}

#[test]
fn a_stream_that_can_go_nowhere_is_not_moved_and_that_is_told() {
    let alone = Daemon::start("alone", &format!("datapaths: [(name: \"main\", idle: block, serves: all)], {DOMAINS}"));
    let a = Session::attach(alone.socket(), "a").unwrap();
    let _stream = a.stream("s", Qos::default()).unwrap();
    for (arguments, words) in [
        (&["s"][..], "there is no peer that stream \"s\" could go to"),
        (&["s", "--link", "x"], "has no link \"x\"; it has none"),
    ] {
        let output = alone.command("move", arguments).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(words), "{arguments:?}: {said}");
    }
}
