//! The parts that this program plays as a child of one of its tests. A child says what
//! it has to say in lines with an `@`, and stops when its standard input ends.

use crate::peer::Peer;
use crate::world::Noise;
use insane_rt::{
    ChannelId, Emit, Message, Nanos, ProcessSourceOptions, Qos, Reliability, Session, Sink, SinkOptions, Source,
    SourceOptions, StreamOptions,
};
use insane_sys::seqpacket;
use insane_sys::thread::{SchedPolicy, cores, policy};
use insane_wire::control::{Event, Hello, Role, encode_hello};
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A child ends by itself after so long, whatever its parent does.
const LIFE_MAX: Duration = Duration::from_secs(80);
const FORTH: ChannelId = ChannelId(1);
const BACK: ChannelId = ChannelId(2);
/// What the messages of a pair start with; noise does not.
const TAG: [u8; 8] = *b"the pair";
const HEADER_BYTES: usize = 16;

/// Runs only as a child: the part that the environment names.
#[test]
#[ignore = "a part of the tests that start it"]
fn role() {
    let Ok(role) = std::env::var("INSANED_ROLE") else { return };
    std::thread::spawn(|| {
        std::thread::sleep(LIFE_MAX);
        std::process::exit(99);
    });
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        stopped.store(true, Ordering::Relaxed);
    });
    let stopped = move || stop.load(Ordering::Relaxed);
    let socket = std::env::var("INSANED_SOCKET").unwrap();
    match role.as_str() {
        "pair_a" => pair_a(&socket, &stopped),
        "pair_b" => pair_b(&socket, &stopped),
        "victim" => victim(&socket),
        "large" => large(&socket, &stopped),
        "burst" => burst(&socket, &stopped),
        "attach" => attach(&socket),
        "beat" => beat(&socket),
        "no_huge_pages" => no_huge_pages(),
        "watch" => watch(&socket, &stopped),
        "partner" => partner(&socket),
        "reader" => reader(&socket),
        "narrow" => narrow(&socket, &stopped),
        "cyclic" => cyclic(&socket, &stopped),
        "lock" => lock(&socket),
        other => panic!("{other} is no part"),
    }
}

/// Becomes a cyclic task on the first core with the priority of its environment, and says what
/// came of it. Then it stays, or lets its session go, or goes to another core.
fn cyclic(socket: &str, stopped: &dyn Fn() -> bool) {
    let session = Session::attach(socket, "cyclic").unwrap();
    let variable = |name| std::env::var(name).unwrap();
    let priority: u8 = variable("INSANED_FIFO").parse().unwrap();
    let own = || policy(0).unwrap();
    let _ = cores();
    let task = session.cyclic(Nanos::from_millis(1), Nanos::ZERO).fifo(priority).core(0).start().unwrap();
    let how = if task.is_placed_by_runtime() { "by runtime" } else { "itself" };
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
    let count = (0..nix::sched::CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap()).count();
    let child = std::thread::spawn(move || policy(0).unwrap()).join().unwrap();
    println!("\n@placed {how}: {:?} cores {count} child {child:?} {:?}", own(), task.misplaced());
    let then = variable("INSANED_THEN");
    match then.as_str() {
        "leave" => {
            drop(task);
            drop(session);
        }
        "move" => {
            let mut elsewhere = nix::sched::CpuSet::new();
            elsewhere.set(1).unwrap();
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &elsewhere).unwrap();
            let start = Instant::now();
            while own() != Some(SchedPolicy::Other) && start.elapsed() < LIFE_MAX / 4 {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        _ => {
            while !stopped() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    let start = Instant::now();
    while then == "leave" && own() != Some(SchedPolicy::Other) && start.elapsed() < LIFE_MAX / 4 {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("\n@done back to {:?}", own());
}

/// Locks its memory, and says how that went.
fn lock(socket: &str) {
    let session = Session::attach(socket, "lock").unwrap();
    match session.lock_memory(256 << 20) {
        Ok(()) => println!("\n@done locked"),
        Err(error) => println!("\n@done {error}"),
    }
}

/// The channel of a beat, and the size of its values.
pub const BEAT: ChannelId = ChannelId(3);
pub const BEAT_BYTES: usize = 32;

/// Sends a value a millisecond, direct and through the runtime, until it is killed.
fn beat(socket: &str) {
    let session = Session::attach(socket, "beat").unwrap();
    let mut sources = ["beat-direct", "beat-isolated"].map(|name| {
        let options = StreamOptions::default().isolated(name == "beat-isolated");
        let stream = session.stream_with(name, Qos::default(), options).unwrap();
        stream.process_source(BEAT, ProcessSourceOptions::new(BEAT_BYTES as u32)).unwrap()
    });
    loop {
        for source in &mut sources {
            let _ = source.emit(&[7; BEAT_BYTES]);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Becomes the daemon, to which the kernel gives no huge pages.
fn no_huge_pages() {
    use std::os::unix::process::CommandExt;
    nix::sys::prctl::set_thp_disable(true).unwrap();
    let config = std::env::var("INSANED_CONFIG").unwrap();
    panic!("{}", std::process::Command::new(env!("CARGO_BIN_EXE_insaned")).args(["--config", &config]).exec());
}

/// Takes as many places of those who watch as it gets, and holds them.
fn watch(socket: &str, stopped: &dyn Fn() -> bool) {
    let hello = encode_hello(&Hello { name: "watcher".into(), domain: None, role: Role::Observer });
    let mut held = Vec::new();
    let reason = loop {
        assert!(held.len() < 100, "there is no end to it");
        let mut peer = Peer::new(seqpacket::connect(std::path::Path::new(socket)).unwrap());
        peer.send_bytes(&hello);
        match peer.wait() {
            Some((Event::Closing { reason, .. }, _)) => break reason,
            Some((Event::Welcome { .. }, _)) => held.push(peer),
            other => panic!("{other:?}"),
        }
    };
    println!("\n@ready {} {reason}", held.len());
    while !stopped() {
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("\n@done");
}

/// Sends on channel 2 of a reliable stream, and takes what comes on channel 1, until it is killed.
fn partner(socket: &str) {
    let session = Session::attach(socket, "client").unwrap();
    let qos = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let stream = session.stream(&std::env::var("INSANED_STREAM").unwrap(), qos).unwrap();
    let source = stream.source(ChannelId(2), SourceOptions::default()).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
    println!("\n@ready");
    loop {
        let _ = source.emit_copy(b"here");
        while let Ok(Some(_)) = sink.consume() {}
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Takes what comes on channel 1, slower than it comes. All bytes of a message are its number.
fn reader(socket: &str) {
    let session = Session::attach(socket, "reader").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let sink = stream.sink(ChannelId(1), SinkOptions::default().depth(64)).unwrap();
    println!("\n@ready");
    loop {
        if let Ok(Some(message)) = sink.consume() {
            let number = message.sequence();
            assert!(message.to_vec().iter().all(|byte| *byte == number as u8), "other bytes in {number}");
            println!("\n@{number} whole");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Takes descriptors until there is none, and goes on with what it has, until it is told to take
/// more.
fn narrow(socket: &str, stopped: &dyn Fn() -> bool) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let session = Session::attach(socket, "narrow").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let own = session.stream("own", Qos::default()).unwrap();
    let source = own.source(FORTH, SourceOptions::default()).unwrap();
    let sink = own.sink(FORTH, SinkOptions::default()).unwrap();
    source.wait_for_receivers(Duration::from_secs(20)).unwrap();
    let goes_on = || {
        assert!(source.emit_copy(b"mine").unwrap().is_sent());
        assert_eq!(sink.consume().unwrap().unwrap().to_vec(), b"mine");
    };
    println!("\n@ready");
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, used + 12, hard).unwrap();
    let mut sinks = Vec::new();
    let error = loop {
        match stream.sink(FORTH, SinkOptions::default().pollable()) {
            Ok(sink) => sinks.push(sink),
            Err(error) => break error,
        }
        goes_on();
    };
    // Nor is one left for what comes: not those, either, that came with what failed.
    let mut rest = Vec::new();
    for _ in 0..100 {
        rest.extend(std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()));
        std::thread::sleep(Duration::from_millis(2));
    }
    println!("\n@narrow {} {error}", sinks.len() + 1);
    while !stopped() {
        goes_on();
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(rest);
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard).unwrap();
    println!("\n@wide");
    let start = Instant::now();
    while !sinks.iter().any(|sink| sink.consume().unwrap().is_some()) {
        goes_on();
        assert!(start.elapsed() < LIFE_MAX / 4, "nothing comes");
    }
    println!("\n@done");
}

/// Says whether it may attach, and in which words not.
fn attach(socket: &str) {
    match Session::attach(socket, "stranger") {
        Ok(session) => println!("\n@done in {}", session.domain()),
        Err(error) => println!("\n@done out {error}"),
    }
}

/// Has two large heaps and a small one, and sends from each large one now and then.
fn large(socket: &str, stopped: &dyn Fn() -> bool) {
    let session = Session::attach(socket, "large").unwrap();
    let open = |name: &str, size, count| {
        let options = StreamOptions::default().isolated(name == "large-isolated");
        let stream = session.stream_with(name, Qos::default(), options).unwrap();
        stream.source(FORTH, SourceOptions::default().buffers(size, count)).unwrap()
    };
    let sources = [open("large-direct", 1 << 20, 5), open("large-isolated", 1 << 20, 5)];
    let _small = open("small", 2048, 64);
    println!("\n@ready");
    while !stopped() {
        for source in &sources {
            let _ = source.emit_copy(&vec![7; 1 << 20]);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("\n@done");
}

/// What comes before a burst.
pub const PROBE: &[u8] = b"probe";
/// Messages of a burst; they fit the ring.
pub const BURST: u64 = 100;

/// Sends a burst when it is told to, and stays.
fn burst(socket: &str, stopped: &dyn Fn() -> bool) {
    let session = Session::attach(socket, "burst").unwrap();
    let stream = session.stream_with("burst", Qos::default(), StreamOptions::default().isolated(true)).unwrap();
    let source = stream.source(FORTH, SourceOptions::default().buffers(2048, BURST as u32)).unwrap();
    source.wait_for_receivers(Duration::from_secs(20)).unwrap();
    println!("\n@ready");
    while !stopped() {
        // Until then, so that somebody can hear when the way stands.
        assert!(source.emit_copy(PROBE).unwrap().is_sent());
        std::thread::sleep(Duration::from_millis(5));
    }
    for number in 0..BURST {
        assert!(source.emit_copy(&content(number)).unwrap().is_sent());
    }
    println!("\n@emitted");
    std::thread::sleep(LIFE_MAX);
}

/// Whether this is message `number` of a burst.
pub fn is_of_burst(bytes: &[u8], number: u64) -> bool {
    bytes == content(number)
}

fn paths() -> Vec<String> {
    std::env::var("INSANED_PATHS").unwrap().split(',').map(str::to_owned).collect()
}

/// The message of this number: small ones travel in the ring, large ones in a buffer.
fn content(number: u64) -> Vec<u8> {
    let len = if number.is_multiple_of(4) { 1500 } else { 32 };
    let mut bytes = vec![number as u8; len];
    bytes[..8].copy_from_slice(&TAG);
    bytes[8..HEADER_BYTES].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// The number of a message of a pair; `None`: noise.
fn number_of(bytes: &[u8]) -> Option<u64> {
    (bytes.get(..8)? == TAG).then_some(())?;
    Some(u64::from_le_bytes(bytes.get(8..HEADER_BYTES)?.try_into().ok()?))
}

/// One path of a pair, at either end.
struct Path {
    name: String,
    source: Source,
    sink: Sink,
    /// Messages sent, or taken; the first is number 0.
    count: u64,
    acknowledged: u64,
    last_sequence: Option<u64>,
    heard: bool,
    /// Most messages under way.
    window: u64,
}

fn open_paths(session: &Session, sends: ChannelId, takes: ChannelId) -> Vec<Path> {
    let open = |name: String| {
        let isolated = name == "isolated";
        let stream = session
            .stream_with(&format!("pair-{name}"), Qos::default(), StreamOptions::default().isolated(isolated))
            .unwrap();
        let sink = stream.sink(takes, SinkOptions::default().depth(1024)).unwrap();
        // Receivers share the buffers out: a whole window for the other half of the pair,
        // beside a dozen strangers that may hoard.
        let source = stream.source(sends, SourceOptions::default().buffers(2048, 1024)).unwrap();
        let window = if isolated { 16 } else { 64 };
        Path { name, source, sink, count: 0, acknowledged: 0, last_sequence: None, heard: false, window }
    };
    paths().into_iter().map(open).collect()
}

fn say_done(paths: &[Path]) {
    let counts: Vec<String> = paths.iter().map(|path| path.count.to_string()).collect();
    println!("\n@done {}", counts.join(","));
}

/// Sends numbered messages, as many as are acknowledged in time.
fn pair_a(socket: &str, stopped: &dyn Fn() -> bool) {
    let session = Session::attach(socket, "pair a").unwrap();
    let mut paths = open_paths(&session, FORTH, BACK);
    for path in &mut paths {
        // Message 0 is a probe until somebody hears it: before that, the way may not stand.
        path.source.wait_for_receivers(Duration::from_secs(20)).unwrap();
        let start = Instant::now();
        while !take_acknowledgements(path) {
            assert!(start.elapsed() < Duration::from_secs(20), "{}: nobody hears", path.name);
            let _ = path.source.emit_copy(&content(0)[..HEADER_BYTES]).unwrap();
            std::thread::sleep(Duration::from_millis(2));
        }
        path.count = 1;
    }
    println!("\n@ready");
    while !stopped() {
        let mut idle = true;
        for path in &mut paths {
            take_acknowledgements(path);
            while path.count - path.acknowledged < path.window && send(path) {
                idle = false;
            }
        }
        if idle {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    finish(&mut paths);
    say_done(&paths);
}

fn send(path: &mut Path) -> bool {
    let bytes = content(path.count);
    // No buffer is free: others hold them. The message waits, it is not lost.
    let Ok(emitted) = path.source.emit_copy(&bytes) else { return false };
    assert!(matches!(emitted, Emit::Sent(_)), "{}: {emitted:?}", path.name);
    path.count += 1;
    true
}

fn take_acknowledgements(path: &mut Path) -> bool {
    while let Ok(Some(message)) = path.sink.consume() {
        if let Some(number) = number_of(&message.to_vec()) {
            path.acknowledged = path.acknowledged.max(number);
            path.heard = true;
        }
    }
    path.heard
}

/// Everything arrives, and every buffer comes back.
fn finish(paths: &mut [Path]) {
    let start = Instant::now();
    for path in paths {
        while path.acknowledged < path.count || path.source.buffers_in_use() > 0 {
            take_acknowledgements(path);
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "{}: {} sent, {} acknowledged, {} buffers out",
                path.name,
                path.count,
                path.acknowledged,
                path.source.buffers_in_use()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Takes messages, checks every one, and says how far it is.
fn pair_b(socket: &str, stopped: &dyn Fn() -> bool) {
    let session = Session::attach(socket, "pair b").unwrap();
    let mut paths = open_paths(&session, BACK, FORTH);
    println!("\n@ready");
    while !stopped() {
        let mut idle = true;
        for path in &mut paths {
            let mut taken = 0;
            while taken < 64 && take(path) {
                taken += 1;
            }
            if taken > 0 {
                idle = false;
                let mut answer = [0; HEADER_BYTES];
                answer[..8].copy_from_slice(&TAG);
                answer[8..].copy_from_slice(&path.count.to_le_bytes());
                let _ = path.source.emit_copy(&answer).unwrap();
            }
        }
        if idle {
            std::thread::sleep(Duration::from_micros(300));
        }
    }
    say_done(&paths);
}

fn take(path: &mut Path) -> bool {
    let Ok(Some(message)) = path.sink.consume() else { return false };
    let bytes = message.to_vec();
    let Some(number) = number_of(&bytes) else { return true };
    let sequence = message.sequence();
    if let Some(last) = path.last_sequence {
        assert_eq!((sequence, message.lost()), (last + 1, 0), "{}: sequence and losses", path.name);
    }
    path.last_sequence = Some(sequence);
    if number == 0 && path.count <= 1 {
        path.count = 1;
        return true;
    }
    assert_eq!(number, path.count, "{}", path.name);
    assert!(bytes == content(number), "{}: message {number} was changed on its way", path.name);
    path.count += 1;
    true
}

/// Makes and closes ports, sends, takes and keeps messages, also on the channels of the
/// pair, until it is killed.
fn victim(socket: &str) {
    let seed = std::env::var("INSANED_SEED").unwrap().parse().unwrap();
    let mut noise = Noise(seed);
    let session = Session::attach(socket, "victim").unwrap();
    let stream = |name, isolated| {
        session.stream_with(name, Qos::default(), StreamOptions::default().isolated(isolated)).unwrap()
    };
    let streams =
        [stream("pair-direct", false), stream("pair-isolated", true), stream("load", false), stream("relayed", true)];
    println!("\n@ready");
    loop {
        let stream = &streams[noise.below(4) as usize];
        let sink = stream.sink(FORTH, SinkOptions::default()).unwrap();
        let source = (seed % 3 > 0).then(|| stream.source(FORTH, SourceOptions::default()).unwrap());
        let mut kept: Vec<Message<'_>> = Vec::new();
        for _ in 0..noise.below(100) {
            if let Some(source) = &source {
                let len = if noise.below(2) == 0 { 20 } else { 1800 };
                for _ in 0..noise.below(20) {
                    let _ = source.emit_copy(&vec![0; len]);
                }
            }
            while let Ok(Some(message)) = sink.consume() {
                if kept.len() < 8 {
                    kept.push(message);
                }
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}
