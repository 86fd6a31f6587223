//! `insane status` against a runtime that this test plays: the real sockets and the real
//! protocol, with a made-up report.

use insane_sys::seqpacket::{self, RecvOutcome, SendOutcome};
use insane_wire::control::{self, Code, Event, Hello, PACKET_BYTES_MAX, Request, Role};
use insane_wire::status::{
    DatapathStatus, DiscoveryStatus, DomainStatus, HostStatus, LinkStatus, PeerStatus, RefusedStatus, SeedStatus,
    SessionStatus, StatusReport, StreamStatus, Usage, WayStatus,
};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A listening socket of this test alone, removed at its end.
struct Runtime {
    listener: OwnedFd,
    path: PathBuf,
}

impl Runtime {
    fn new(name: &str) -> Runtime {
        let path = std::env::temp_dir().join(format!("insane-cli-{}-{name}.sock", std::process::id()));
        Runtime { listener: seqpacket::listen(&path).unwrap(), path }
    }

    fn status(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_insane"));
        command.args(["status", "--socket"]).arg(&self.path).args(arguments);
        command
    }

    /// Takes a caller and its HELLO.
    fn accept(&self) -> (OwnedFd, Hello) {
        let caller = poll(|| seqpacket::accept(&self.listener).unwrap());
        let hello = control::decode_hello(&receive(&caller).unwrap()).unwrap();
        (caller, hello)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension("sock.lock"));
    }
}

fn poll<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    for _ in 0..20_000 {
        if let Some(value) = attempt() {
            return value;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("nothing came for twenty seconds");
}

/// The next packet; `None` at the end of the connection.
fn receive(socket: &OwnedFd) -> Option<Vec<u8>> {
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    poll(|| match seqpacket::recv(socket, &mut buffer).unwrap() {
        RecvOutcome::Packet(packet) => Some(Some(buffer[..packet.len].to_vec())),
        RecvOutcome::WouldBlock => None,
        RecvOutcome::Closed => Some(None),
    })
}

fn send(socket: &OwnedFd, event: &Event) {
    assert_eq!(seqpacket::send(socket, &control::encode(event), &[]).unwrap(), SendOutcome::Sent);
}

fn welcome() -> Event {
    Event::Welcome {
        version: 1,
        session: insane_core::SessionId(1),
        domain: "d".into(),
        counters_bytes: 0,
        cores: vec![],
    }
}

/// Answers one request with the report in pieces of `size` bytes; `false` at the end.
fn answer(socket: &OwnedFd, json: &[u8], size: usize) -> bool {
    let Some(packet) = receive(socket) else { return false };
    let Request::Status { req } = control::decode(&packet).unwrap() else { panic!("an observer asks for status only") };
    let mut pieces = json.chunks(size).peekable();
    while let Some(piece) = pieces.next() {
        let event = Event::Status { req, last: pieces.peek().is_none(), piece: piece.to_vec() };
        poll(|| match seqpacket::send(socket, &control::encode(&event), &[]).unwrap() {
            SendOutcome::Sent => Some(()),
            SendOutcome::WouldBlock => None,
            SendOutcome::Closed => panic!("the reader left in the middle of a report"),
        });
    }
    true
}

fn report() -> StatusReport {
    StatusReport {
        version: "0.1.0".into(),
        host: HostStatus { name: "zelle-ä".into(), id: insane_wire::status::hex(0xab), incarnation: 3 },
        uptime_s: 62.0,
        pid: 77,
        datapaths: vec![DatapathStatus {
            name: "fast".into(),
            links: vec![LinkStatus {
                name: "bypass".into(),
                missing: Some("interface x0 is down".into()),
                counters: [("frames_interface_missing".to_owned(), 12), ("answers_lost".to_owned(), 0)].into(),
                ..LinkStatus::default()
            }],
            ..DatapathStatus::default()
        }],
        domains: vec![DomainStatus {
            name: "line-1".into(),
            counters: [("messages_from_sources".to_owned(), 1_000), ("dropped_ring_full".to_owned(), 12)].into(),
            sessions: vec![SessionStatus {
                id: 9,
                name: "plc".into(),
                pid: 4711,
                uid: 1000,
                threads: vec![insane_wire::status::ThreadStatus {
                    name: "vplc-fifo-50".into(),
                    tid: 4712,
                    core: Some(1),
                    policy: "fifo".into(),
                    priority: 50,
                }],
                ..SessionStatus::default()
            }],
            quotas: [("bytes".to_owned(), Usage { used: 1 << 20, limit: 256 << 20, refused: 2 })].into(),
            ..DomainStatus::default()
        }],
        streams: vec![StreamStatus {
            name: "axis".into(),
            lane: 1,
            peers: vec!["cell-b".into()],
            ..StreamStatus::default()
        }],
        peers: vec![PeerStatus {
            name: "cell-b".into(),
            up: true,
            rtt_ns: Some(85_000),
            links: vec!["fibre".into(), "radio".into()],
            ways: vec![
                WayStatus { link: "fibre".into(), downs: 3, ..WayStatus::default() },
                WayStatus {
                    link: "radio".into(),
                    up: true,
                    rtt_ns: Some(85_000),
                    speaks: true,
                    ..WayStatus::default()
                },
            ],
            ..PeerStatus::default()
        }],
        discovery: Some(DiscoveryStatus {
            backend: "gossip".into(),
            bind: "10.0.0.1:7100".into(),
            cluster: "plant".into(),
            allow: vec!["10.0.0.0/24".into()],
            peers_max: 32,
            hosts: 5,
            refused: vec![RefusedStatus {
                name: "cell\u{1b}[2J".into(),
                from: "10.0.9.9:7100".into(),
                why: "an address of it is outside".into(),
                times: 3,
                ms_ago: 1500,
                ..RefusedStatus::default()
            }],
            seeds: vec![SeedStatus { address: "10.0.0.2:7100".into(), state: "silent".into() }],
            counters: [("refused_outside".to_owned(), 3), ("datagrams_outside".to_owned(), 7)].into(),
            ..DiscoveryStatus::default()
        }),
        degraded: vec!["no right to lock memory (RLIMIT_MEMLOCK): pages may be swapped out".into()],
        ..StatusReport::default()
    }
}

/// Plays one session with `play`, and returns what the command printed.
fn session(name: &str, arguments: &[&str], play: impl FnOnce(OwnedFd, Hello)) -> Output {
    let runtime = Runtime::new(name);
    let child = runtime.status(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (caller, hello) = runtime.accept();
    play(caller, hello);
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn one_report_as_a_table() {
    let output = session("table", &["--once"], |caller, hello| {
        assert_eq!(hello.role, Role::Observer);
        send(&caller, &welcome());
        assert!(answer(&caller, &serde_json::to_vec(&report()).unwrap(), 8192));
    });
    assert!(output.status.success(), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    for part in [
        "insaned 0.1.0 on \"zelle-ä\" (id 00000000000000ab, life 3), process 77, up 1 min 2 s",
        "  ! no right to lock memory",
        "line-1 dropped: ring full 12",
        "bypass counted: frames interface missing 12\n",
        "line-1 uses: bytes 1 MiB of 256 MiB (2 refused)",
        "fibre (down), radio (up 85.0 us, overlay)",
        "4711",
        "vplc-fifo-50",
        "fifo 50",
        "axis",
        "discovery by gossip at 10.0.0.1:7100, cluster \"plant\": 5 hosts heard of, 0 of at most 32 peers",
        "seeds 10.0.0.2:7100 (silent)",
        "(3 refused, 0 dropped); datagrams 0, of those outside 7",
        "10.0.9.9:7100",
        "1.50 s ago",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'), "no name steers the terminal: {shown}");
}

#[test]
fn pieces_may_split_anything_and_json_comes_out_as_it_went_in() {
    let output = session("json", &["--once", "--json"], |caller, _| {
        send(&caller, &welcome());
        // An event of no concern to an observer is passed over.
        send(&caller, &Event::Done { req: 0 });
        assert!(answer(&caller, &serde_json::to_vec(&report()).unwrap(), 1));
    });
    let shown: StatusReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(shown, report());
}

#[test]
fn reports_of_other_versions_are_read_as_far_as_they_go() {
    let older = br#"{"version": "0.0.9", "tomorrow": {"x": 1}, "domains": [{"name": "d", "colour": 3}]}"#;
    let output = session("older", &["--once", "--json"], |caller, _| {
        send(&caller, &welcome());
        assert!(answer(&caller, older, 8192));
    });
    let shown: StatusReport = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((shown.version.as_str(), shown.domains[0].name.as_str()), ("0.0.9", "d"));
}

#[test]
fn the_live_view_asks_again_with_rates_and_comes_back_with_the_runtime() {
    let runtime = Runtime::new("live");
    let mut child =
        runtime.status(&["--interval", "50"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut report = report();
    let (caller, _) = runtime.accept();
    send(&caller, &welcome());
    assert!(answer(&caller, &serde_json::to_vec(&report).unwrap(), 8192));
    report.domains[0].counters.insert("messages_from_sources".into(), 1_000_000_000);
    assert!(answer(&caller, &serde_json::to_vec(&report).unwrap(), 8192));
    drop(caller);
    let (caller, _) = runtime.accept();
    send(&caller, &welcome());
    assert!(answer(&caller, &serde_json::to_vec(&report).unwrap(), 8192));
    // The next question says that the last answer was shown.
    assert!(receive(&caller).is_some());
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let shown = text(&output.stdout);
    assert_eq!(shown.matches("from sources/s").count(), 1, "{shown}");
    assert_eq!(shown.matches("from sources ").count(), 2, "{shown}");
    assert!(text(&output.stderr).contains("the runtime is gone"), "{}", text(&output.stderr));
}

/// Standard error of a session that is to fail.
fn failure(name: &str, play: impl FnOnce(OwnedFd, Hello)) -> String {
    let output = session(name, &["--once", "--timeout", "300"], play);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    text(&output.stderr)
}

#[test]
fn refusals_and_nonsense_are_told_in_words() {
    let refused = failure("refused", |caller, _| {
        send(&caller, &Event::Closing { code: Code::Access, reason: "user 1000 is in no domain".into() });
    });
    assert_eq!(refused, "error: the runtime refuses: user 1000 is in no domain\n");
    let gone = failure("gone", |caller, _| drop(caller));
    assert_eq!(gone, "error: the runtime is gone\n");
    let silent = failure("silent", |caller, _| {
        send(&caller, &welcome());
        while receive(&caller).is_some() {}
    });
    assert_eq!(silent, "error: the runtime did not answer within 300.00 ms\n");
    let garbage = failure("garbage", |caller, _| {
        assert_eq!(seqpacket::send(&caller, &[0xff; 64], &[]).unwrap(), SendOutcome::Sent);
        while receive(&caller).is_some() {}
    });
    assert!(garbage.contains("its packet cannot be decoded"), "{garbage}");
    let no_json = failure("no-json", |caller, _| {
        send(&caller, &welcome());
        assert!(answer(&caller, b"\xff[[[", 8192));
    });
    assert!(no_json.contains("its report is no status report"), "{no_json}");
}

#[test]
fn a_runtime_that_is_not_there_is_told_with_what_to_try() {
    let output = Command::new(env!("CARGO_BIN_EXE_insane"))
        .args(["status", "--once", "--socket", "/nowhere/x.sock"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stderr);
    assert!(shown.starts_with("error: no runtime answers at /nowhere/x.sock\nIs insaned running?"), "{shown}");
}
