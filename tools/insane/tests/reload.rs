//! `insane reload` against real daemons: under load, broken, forbidden, at once, killed.

mod common;

use common::{Daemon, PATIENCE, Process, insane, text, wait_for};
use insane_rt::{
    ChannelId, ConsumeError, Emit, Message, Qos, Reliability, RequestError, Session, Sink, SinkOptions, Source,
    SourceOptions,
};
use insane_sys::seqpacket;
use insane_wire::control::{Hello, Request, Role, encode, encode_hello};
use insane_wire::reload::{Outcome, ReloadReport};
use nix::sys::signal::Signal;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Output;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const CHANNEL: ChannelId = ChannelId(3);
/// Messages a second, of each of the two streams.
const RATE: u64 = 10_000;
/// Messages of each stream that are sent at least, 3 s at the rate.
const MESSAGES: u64 = 3 * RATE;
/// Unreliable messages under way, at most: fewer than the smallest ring on their way holds.
const IN_FLIGHT: u64 = 100;

/// Ports that nobody listens at now: so many in a row, from the number returned; none that the
/// kernel gives to whoever asks for any (from 32768 on).
fn ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let first = 12_000 + (std::process::id() % 2_500) as u16 * 8 + NEXT.fetch_add(count, Ordering::Relaxed);
        let free = |port| {
            let udp = std::net::UdpSocket::bind(("127.0.0.1", port));
            udp.is_ok() && std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
        };
        if (first..first + count).all(free) {
            return first;
        }
    }
}

/// The configuration of a host with one link, its peers, and what else stands there.
fn config(technology: &str, port: u16, peers: &[(&str, u16)], domain: &str) -> String {
    let peer = |(name, port): &(&str, u16)| format!("(name: {name:?}, links: {{\"net\": \"127.0.0.1:{port}\"}}),");
    let peers: String = peers.iter().map(peer).collect();
    format!(
        "datapaths: [(name: \"main\", links: [\"net\"])],
         links: [(name: \"net\", technology: {technology}(bind: \"127.0.0.1:{port}\"))],
         peers: [{peers}],
         domains: [(name: \"line\", members: [any], {domain})],"
    )
}

/// A daemon, and its file to be written anew.
struct Host {
    daemon: Daemon,
    name: &'static str,
}

impl Host {
    fn start(name: &'static str, rest: &str) -> Host {
        Host { daemon: Daemon::start(name, rest), name }
    }

    /// Writes another file beside that of the daemon.
    fn write(&self, file: &str, rest: &str) -> String {
        let path = self.daemon.folder.join(file);
        let socket = self.daemon.socket();
        std::fs::write(&path, format!("(host: (name: {:?}), control: (socket: {socket:?}), {rest})", self.name))
            .unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn reload(&self, rest: &str, arguments: &[&str]) -> Output {
        let path = self.write("new.ron", rest);
        self.daemon.command("reload", arguments).arg(path).output().unwrap()
    }

    /// Reloads, which has to go well.
    fn must_reload(&self, rest: &str) -> ReloadReport {
        let output = self.reload(rest, &["--json"]);
        let report: ReloadReport = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
        assert!(output.status.success() && report.is_good(), "{report:?}");
        report
    }

    fn peers(&self) -> Vec<(String, bool)> {
        self.daemon.status().peers.into_iter().map(|peer| (peer.name, peer.up)).collect()
    }
}

fn streams(host: &Host) -> (Session, [insane_rt::Stream; 2]) {
    let session = Session::attach(host.daemon.socket(), "app").unwrap();
    let reliable = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let streams =
        [session.stream("reliable", reliable).unwrap(), session.stream("unreliable", Qos::default()).unwrap()];
    (session, streams)
}

fn sink_of(stream: &insane_rt::Stream) -> Result<Sink, RequestError> {
    stream.sink(CHANNEL, SinkOptions::default().depth(8192))
}

fn source_of(stream: &insane_rt::Stream) -> Source {
    stream.source(CHANNEL, SourceOptions::default()).unwrap()
}

/// Takes all there is, of which nothing may be missing; returns the number of the next.
fn drain(sink: &Sink, mut next: u64) -> u64 {
    loop {
        let taken: Result<Option<Message<'_>>, ConsumeError> = sink.consume();
        let Some(message) = taken.expect("nobody lies") else { return next };
        assert_eq!((message.sequence(), message.lost()), (next, 0), "none lost, none twice, in order");
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&message.bytes().unwrap()[..8]);
        assert_eq!(u64::from_le_bytes(bytes), next);
        next += 1;
    }
}

/// Emits until a message arrives: where a stream begins is none of a reload's business.
/// Returns the number of the next.
fn begin(source: &Source, sink: &Sink) -> u64 {
    let mut next = 0_u64;
    wait_for("the first message arrives", || {
        let Ok(Emit::Sent(_)) = source.emit_copy(&next.to_le_bytes()) else { return false };
        next += 1;
        let until = Instant::now() + Duration::from_millis(50);
        while Instant::now() < until {
            if sink.consume().unwrap().is_some_and(|message| message.sequence() + 1 == next) {
                return true;
            }
        }
        false
    });
    next
}

/// The promise: two streams of 10,000 messages a second each between two daemons, one
/// reliable, one not, while a third peer comes, moves and goes at both, quotas, rules and
/// declarations of streams change, so that both change lanes again and again. Not one is lost.
fn none_is_lost(technology: &str, names: [&'static str; 2]) {
    let first = ports(8);
    let [a, b] = [0, 1].map(|at: u16| {
        let other = if at == 0 { ("right", first + 2) } else { ("left", first) };
        Host::start(names[at as usize], &config(technology, first + 2 * at, &[other], ""))
    });
    let (_left, sending) = streams(&a);
    let (_right, receiving) = streams(&b);
    let sinks = receiving.each_ref().map(|stream| sink_of(stream).unwrap());
    let sources = sending.each_ref().map(source_of);
    sources.iter().for_each(|source| source.wait_for_receivers(PATIENCE).unwrap());

    let first_of = [0, 1].map(|at: usize| begin(&sources[at], &sinks[at]));
    let start = Instant::now();
    let done = AtomicBool::new(false);
    let (emitted, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
    let ([sent, rounds], received, reloads) = std::thread::scope(|scope| {
        let (done, emitted, arrived) = (&done, &emitted, &arrived);
        let emitter = scope.spawn(move || {
            let mut sent = [0_u64; 2];
            // Rounds in which the whole rate was offered, and in which it was not.
            let mut rounds = [0_u64; 2];
            let mut due_at = Instant::now();
            while !done.load(Ordering::Relaxed) || sent[0] != sent[1] {
                // Ten of each every millisecond; who was late does not catch up all at once, for
                // that would be a test of buffers.
                due_at = (due_at + Duration::from_millis(1)).max(Instant::now() - Duration::from_millis(5));
                std::thread::sleep(due_at.saturating_duration_since(Instant::now()));
                // Nor is the receiver let fall behind, on a machine that has other things to do.
                let falls_behind = sent[1] - arrived.load(Ordering::Relaxed) > IN_FLIGHT;
                let pauses = falls_behind || done.load(Ordering::Relaxed);
                rounds[usize::from(pauses)] += 1;
                let upto = sent[1] + if pauses { 0 } else { RATE / 1000 };
                for ((source, sent), first) in sources.iter().zip(&mut sent).zip(first_of).rev() {
                    while *sent < upto {
                        match source.emit_copy(&(first + *sent).to_le_bytes()).unwrap() {
                            Emit::Sent(_) => *sent += 1,
                            // Of the reliable one: its peer has not acknowledged enough. Later.
                            _ => break,
                        }
                    }
                }
                emitted.store(sent[0].min(sent[1]), Ordering::Relaxed);
            }
            [sent, rounds]
        });
        let receiver = scope.spawn(move || {
            let mut next = first_of;
            let mut quiet_since = Instant::now();
            while !done.load(Ordering::Relaxed) || quiet_since.elapsed() < Duration::from_secs(1) {
                for (sink, next) in sinks.iter().zip(&mut next) {
                    let before = *next;
                    *next = drain(sink, before);
                    if *next > before {
                        quiet_since = Instant::now();
                    }
                }
                arrived.store(next[1] - first_of[1], Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(500));
            }
            [next[0] - first_of[0], next[1] - first_of[1]]
        });
        let mut lanes_changed = 0;
        let mut reloads = 0;
        // A slow machine takes longer for as many: what is offered is the rate, or a pause.
        while reloads < 60 || emitted.load(Ordering::Relaxed) < MESSAGES {
            assert!(start.elapsed() < PATIENCE, "it does not go on: {emitted:?} messages");
            for (host, at, other) in [(&a, 0, ("right", first + 2)), (&b, 2, ("left", first))] {
                let third = first + 4 + 2 * (reloads % 2);
                let peers = [other, ("third", third)];
                let peers = if reloads % 3 == 0 { &peers[..1] } else { &peers[..] };
                let (sinks, uid) = (10 + reloads % 7, reloads % 5);
                let quota = format!("quota: (sinks: {sinks}, bytes: {})", (64 + u64::from(reloads)) << 20);
                let rest = config(technology, first + at, peers, &quota);
                let rest = rest.replace("[any]", &format!("[any, uid({uid})]"));
                let (priority, most) = (reloads % 8, 7 - reloads % 4);
                let streams = format!(
                    "streams: [(name: \"rel*\", priority: {priority}), (name: \"unreliable\", priority_max: {most})], quota:"
                );
                let rest = rest.replace("quota:", &streams);
                let report = host.must_reload(&rest);
                assert_eq!(report.outcome, Outcome::Applied, "{report:?}");
                lanes_changed += report.streams.iter().filter(|effect| effect.what.contains("at once")).count();
                assert_eq!(host.peers().len(), peers.len());
                reloads += 1;
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(lanes_changed >= 30, "{lanes_changed}");
        (emitter.join().unwrap(), receiver.join().unwrap(), reloads)
    });
    assert!(sent[0] >= MESSAGES && sent[1] >= MESSAGES, "{sent:?}");
    // Each round that did not pause offered its share of the rate.
    assert_eq!(sent[1], rounds[0] * (RATE / 1000), "{rounds:?}");
    assert_eq!(received, sent, "over {reloads} reloads");
    let status = b.daemon.status();
    assert_eq!(status.domains[0].counters["lost"], 0);
    println!(
        "{technology}: {sent:?} messages in {:?}, {reloads} reloads; {rounds:?} rounds and pauses",
        start.elapsed()
    );
}

#[test]
fn ten_thousand_messages_a_second_over_udp_survive_reloads() {
    none_is_lost("udp", ["load-udp-a", "load-udp-b"]);
}

#[test]
fn ten_thousand_messages_a_second_over_tcp_survive_reloads() {
    none_is_lost("tcp", ["load-tcp-a", "load-tcp-b"]);
}

/// Hosts that start without peers come to know each other, lose each other, and find each
/// other again, while their applications stay as they are.
#[test]
fn the_first_peer_is_added_the_last_removed() {
    for (technology, names) in [("udp", ["grow-udp-a", "grow-udp-b"]), ("tcp", ["grow-tcp-a", "grow-tcp-b"])] {
        let first = ports(6);
        let alone = [0, 1].map(|at: u16| config(technology, first + 2 * at, &[], ""));
        let hosts = [0, 1].map(|at: usize| Host::start(names[at], &alone[at]));
        let joined = [("right", first + 2), ("left", first)];
        let (_left, sending) = streams(&hosts[0]);
        let (_right, receiving) = streams(&hosts[1]);
        let sinks = receiving.each_ref().map(|stream| sink_of(stream).unwrap());
        let sources = sending.each_ref().map(source_of);
        for round in 0..3 {
            for (at, host) in hosts.iter().enumerate() {
                let peer = [joined[at]];
                host.must_reload(&config(technology, first + 2 * at as u16, &peer, ""));
            }
            for (source, sink) in sources.iter().zip(&sinks) {
                source.wait_for_receivers(PATIENCE).unwrap();
                let mut bytes = Vec::new();
                wait_for("a message crosses", || {
                    let _ = source.emit_copy(&[round; 9]).unwrap();
                    while let Some(message) = sink.consume().unwrap() {
                        bytes = message.to_vec();
                    }
                    bytes == [round; 9]
                });
            }
            // One side is enough to part them.
            let report = hosts[0].must_reload(&alone[0]);
            assert_eq!((report.changes.len(), report.changes[0].kind.as_str()), (1, "removed"));
            assert_eq!(hosts[0].peers(), []);
            wait_for("the other notices", || hosts[1].peers() == [("left".to_owned(), false)]);
            wait_for("nobody listens", || sources.iter().all(|source| source.receivers() == 0));
            hosts[1].must_reload(&alone[1]);
            for sink in &sinks {
                while sink.consume().unwrap().is_some() {}
            }
        }
    }
}

#[test]
fn a_difference_is_shown_tried_and_applied() {
    let port = ports(8);
    let host = Host::start("shown", &config("udp", port, &[("b", port + 2)], ""));
    let new = config("udp", port, &[("c", port + 4)], "quota: (bytes: 536870912)");
    let before = host.daemon.status();
    let output = host.reload(&new, &["--dry-run"]);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    for line in [
        "peers:\n".to_owned(),
        format!("  - peers[\"b\"]: links[\"net\"]: 127.0.0.1:{}\n", port + 2),
        format!("  + peers[\"c\"]: links[\"net\"]: 127.0.0.1:{}\n", port + 4),
        "domains:\n".to_owned(),
        "  ~ domains[\"line\"].quota.bytes: 256 MiB (268_435_456 bytes) -> 512 MiB (536_870_912 bytes)\n".to_owned(),
        "3 changes would be applied; nothing was done\n".to_owned(),
    ] {
        assert!(shown.contains(&line), "{line}{shown}");
    }
    assert_eq!(host.peers(), [("b".to_owned(), false)]);
    assert_eq!(host.daemon.status().domains[0].quotas, before.domains[0].quotas);
    let report = host.must_reload(&new);
    assert_eq!((report.outcome, report.changes.len()), (Outcome::Applied, 3));
    let status = host.daemon.status();
    assert_eq!((status.peers[0].name.as_str(), status.peers[0].source.as_str()), ("c", "configuration"));
    assert_eq!(status.domains[0].quotas["bytes"].limit, 536_870_912);
    assert_eq!(host.must_reload(&new).outcome, Outcome::Unchanged);
    // The daemon's own file is still the first: it goes back.
    let output = host.daemon.command("reload", &[]).output().unwrap();
    assert!(output.status.success() && text(&output.stdout).contains("3 changes applied"), "{output:?}");
    assert_eq!(host.peers(), [("b".to_owned(), false)]);
    host.write("insaned.ron", &new);
    host.daemon.signal(Signal::SIGHUP);
    wait_for("SIGHUP reads the file again", || host.peers() == [("c".to_owned(), false)]);
    host.write("insaned.ron", "peers: (((");
    host.daemon.signal(Signal::SIGHUP);
    wait_for("the log says it", || host.daemon.log().contains("the configuration stays as it was"));
    assert_eq!(host.peers(), [("c".to_owned(), false)]);
}

#[test]
fn what_is_wrong_is_said_clearly_and_changes_nothing() {
    let port = ports(8);
    let good = config("udp", port, &[("b", port + 2)], "");
    let host = Host::start("wrong", &good);
    let with_c = config("udp", port, &[("c", port + 4)], "");
    let refused = |output: Output, words: &[&str]| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let shown = text(&output.stderr);
        assert!(words.iter().all(|word| shown.contains(word)), "{words:?}: {shown}");
        assert_eq!(host.peers(), [("b".to_owned(), false)]);
        assert_eq!(host.daemon.status().domains[0].quotas["sinks"].limit, 256);
    };
    let edits: [(&str, &str, &[&str]); 8] = [
        ("peers: [", "peers: [[[", &["error", "new.ron:"]),
        ("peers:", "pears:", &["pears", "did you mean"]),
        ("127.0.0.1:", "localhost:", &["is a name", "new.ron:"]),
        ("\"net\": ", "\"nett\": ", &["there is no link \"nett\"", "\"net\""]),
        ("datapaths: [(name: \"main\",", "datapaths: [(name: \"main\", core: Some(0),", &["core", "needs a restart"]),
        ("udp(", "tcp(", &["links[\"net\"].technology", "needs a restart"]),
        ("members: [any],", "members: [any], quota: (bytes: 99000000000),", &["memory.limit_bytes"]),
        ("members: [any],", "members: [any], receive: Some([(size: 64, count: 9)]),", &["receive", "needs a restart"]),
    ];
    for (from, to, words) in edits {
        assert!(with_c.contains(from));
        let broken = with_c.replacen(from, to, 1);
        refused(host.reload(&broken, &[]), words);
        refused(host.reload(&broken, &["--dry-run"]), words);
        let json = host.reload(&broken, &["--json"]);
        let report: ReloadReport = serde_json::from_slice(&json.stdout).unwrap();
        assert!(report.outcome == Outcome::Refused && !report.errors.is_empty(), "{report:?}");
    }
    refused(host.daemon.command("reload", &["/nowhere/x.ron"]).output().unwrap(), &["cannot read", "/nowhere/x.ron"]);
    let huge = host.write("huge.ron", &format!("/* {} */", "x".repeat(2 << 20)));
    refused(host.daemon.command("reload", &[&huge]).output().unwrap(), &["more than 1048576 bytes"]);
    let binary = host.daemon.folder.join("binary.ron");
    std::fs::write(&binary, [0xff, 0xfe, 0]).unwrap();
    refused(host.daemon.command("reload", &[binary.to_str().unwrap()]).output().unwrap(), &["cannot read"]);
    std::fs::remove_file(host.daemon.folder.join("insaned.ron")).unwrap();
    refused(host.daemon.command("reload", &[]).output().unwrap(), &["cannot read", "insaned.ron"]);
    let usage = insane().args(["reload", "--socket"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    let nowhere = insane().args(["reload", "--socket", "/nowhere/x.sock"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).starts_with("error: no runtime answers at /nowhere/x.sock"));
    assert_eq!(host.must_reload(&good).outcome, Outcome::Unchanged);
}

#[test]
fn another_user_may_not_reload() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("passed over: only root can become another user");
        return;
    }
    let port = ports(4);
    let host = Host::start("user", &config("udp", port, &[], ""));
    let path = host.write("new.ron", &config("udp", port, &[("b", port + 2)], ""));
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Once it answers, it has set the mode of its socket itself.
    host.daemon.status();
    open(&host.daemon.socket(), 0o666);
    open(&host.daemon.folder, 0o755);
    let program = host.daemon.folder.join("insane");
    std::fs::copy(env!("CARGO_BIN_EXE_insane"), &program).unwrap();
    open(&program, 0o755);
    for own_file in [false, true] {
        let mut command = std::process::Command::new(&program);
        command.args(["reload", "--socket"]).arg(host.daemon.socket()).uid(65_534).gid(65_534);
        command.current_dir("/");
        if !own_file {
            command.arg(&path);
        }
        // Another test may start a process while the copy is still open for writing there.
        let mut output = None;
        wait_for("the copy can be run", || match command.output() {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => false,
            ran => {
                output = Some(ran.unwrap());
                true
            }
        });
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let shown = text(&output.stderr);
        assert!(shown.contains("user 65534 may not change the configuration"), "{shown}");
        assert_eq!(host.peers(), []);
    }
    let output = host.daemon.command("reload", &[&path]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Sessions that new rules and quotas leave outside stay, are told, and are marked.
#[test]
fn who_is_beyond_the_new_configuration_is_told_and_stays() {
    let port = ports(8);
    let rest = |domain: &str| config("udp", port, &[], domain);
    let host = Host::start("beyond", &rest(""));
    let (_session, [stream, _]) = streams(&host);
    let (source, sink) = (source_of(&stream), sink_of(&stream).unwrap());
    let _second = sink_of(&stream).unwrap();
    source.wait_for_receivers(PATIENCE).unwrap();
    let narrow = rest("quota: (sinks: 1)").replace("[any]", "[uid(4000111)]");
    for arguments in [&["--dry-run"][..], &[]] {
        let output = host.reload(&narrow, arguments);
        assert!(output.status.success(), "{output:?}");
        let shown = text(&output.stdout);
        assert!(shown.contains("2 sinks are in use, 1 are the quota") && shown.contains("\"app\" of user"), "{shown}");
    }
    assert!(host.daemon.status().domains[0].sessions[0].outside_rules);
    let table = text(&host.daemon.command("status", &["--once"]).output().unwrap().stdout);
    assert!(table.contains("outside") && table.contains("(over)"), "{table}");
    assert!(matches!(source.emit_copy(b"12345678").unwrap(), Emit::Sent(_)));
    wait_for("what is there goes on", || sink.consume().unwrap().is_some());
    let Err(error) = sink_of(&stream) else { panic!("it got something new") };
    assert!(error.to_string().contains("the access rules have changed"), "{error}");
    host.must_reload(&rest(""));
    sink_of(&stream).unwrap();
    assert!(!host.daemon.status().domains[0].sessions[0].outside_rules);
}

/// Many at once, and some killed in the middle: each is whole or nothing, and the daemon
/// goes on.
#[test]
fn reloads_at_once_and_reloads_that_are_killed_leave_it_whole() {
    let port = ports(8);
    let host = Host::start("chaos", &config("tcp", port, &[], ""));
    let texts = [1_u16, 2].map(|at| {
        let peers = [("x", port + 2 * at), ("y", port + 2 * at + 2)];
        config("tcp", port, &peers, &format!("quota: (sinks: {at})"))
    });
    let files = [host.write("one.ron", &texts[0]), host.write("two.ron", &texts[1])];
    for round in 0..8_u64 {
        let commands: Vec<Process> =
            (0..6).map(|at: usize| Process::spawn(&mut host.daemon.command("reload", &[&files[at % 2]]))).collect();
        for (at, command) in commands.into_iter().enumerate() {
            if at >= 3 {
                std::thread::sleep(Duration::from_micros(700 * (round + 1)));
                command.signal(Signal::SIGKILL);
                command.wait();
                continue;
            }
            let output = command.wait();
            let under_way = text(&output.stderr).contains("another reload is under way");
            let numbers = text(&output.stderr).contains("no numbers are left");
            assert!(output.status.success() || under_way || numbers, "{output:?}");
        }
        let status = host.daemon.status();
        assert_eq!(status.peers.len(), 2, "one or the other, as a whole");
        assert!([1, 2].contains(&status.domains[0].quotas["sinks"].limit));
    }
    // Half a file, and nobody to send the rest.
    let caller = seqpacket::connect(&host.daemon.socket()).unwrap();
    let hello = Hello { name: "half".into(), domain: None, role: Role::Observer };
    let half = texts[0].as_bytes()[..40].to_vec();
    let piece = Request::Reload { req: 1, dry_run: false, file: Some("half".into()), last: false, piece: half };
    for packet in [encode_hello(&hello), encode(&piece)] {
        let _ = seqpacket::send(&caller, &packet, &[]).unwrap();
    }
    drop(caller);
    for at in [0, 1, 0] {
        host.must_reload(&texts[at]);
        assert_eq!(host.daemon.status().domains[0].quotas["sinks"].limit, at as u64 + 1);
    }
    assert!(!host.daemon.log().contains("a bug"));
}

/// The reload says of an open stream what it changes at once and what later; a dry run says the
/// same; a part of the file that is wrong keeps everything as it was.
#[test]
fn declarations_change_under_open_streams() {
    let first = ports(2);
    let file = |streams: &str| config("udp", first, &[], &format!("streams: [{streams}],"));
    let host = Host::start("declared", &file(""));
    let session = Session::attach(host.daemon.socket(), "app").unwrap();
    let stream = session.stream("axis", Qos::default()).unwrap();
    let lane = || host.daemon.status().streams[0].lane;
    assert_eq!(lane(), 6);
    let declared = file("(name: \"ax*\", priority: 7, reliability: reliable)");
    let dry = text(&host.reload(&declared, &["--dry-run"]).stdout);
    for part in [
        "+ domains[\"line\"].streams[\"ax*\"].priority: 7\n",
        "].reliability: reliable  (for streams that are opened from now on; an open one keeps what it has)",
        "open stream \"axis\": priority 3 -> 7, lane 6 -> 4: at once",
        "opened anew it is (reliable",
    ] {
        assert!(dry.contains(part), "{part:?} is missing in:\n{dry}");
    }
    assert_eq!(lane(), 6, "nothing was done");
    let wrong = file("(name: \"ax*\", priority: 7), (name: \"ax*\", priority: 8)");
    assert!(!host.reload(&wrong, &[]).status.success());
    let other_link = declared.replace("udp(bind", "udp(busy_poll_us: 5, bind");
    let refused = host.reload(&other_link, &[]);
    assert!(!refused.status.success() && text(&refused.stdout).contains("refused"), "{refused:?}");
    assert_eq!(lane(), 6, "all or nothing");
    host.must_reload(&declared);
    assert_eq!(lane(), 4);
    assert_eq!(stream.qos().reliability, Reliability::Unreliable);
    drop(stream);
    wait_for("the stream is closed", || host.daemon.status().streams.is_empty());
    assert_eq!(session.stream("axis", Qos::default()).unwrap().qos().reliability, Reliability::Reliable);
    host.must_reload(&file(""));
}
