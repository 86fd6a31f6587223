//! `insane tap` against a real daemon, with this process as the applications.

mod common;

use common::{Daemon, Process, text, wait_for};
use insane_rt::{
    ChannelId, Determinism, Emit, Nanos, Qos, Reliability, Session, SinkOptions, Source, SourceOptions, StreamOptions,
};
use insane_wire::data::{DataHeader, Flags};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;

const CONFIG: &str = r#"datapaths: [(name: "main", idle: block, serves: all)], domains: [
    (name: "line", members: [any], receive: [(size: 2048, count: 64), (size: 400_000, count: 4)]),
    (name: "other", members: [uid(4_000_111)]),
]"#;
const CHANNEL: ChannelId = ChannelId(3);

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// One packet of a file.
#[derive(Debug)]
struct Packet {
    interface: String,
    header: DataHeader,
    payload: Vec<u8>,
    len: u32,
    lost: u64,
}

/// The value of an option in a block's options, if it is there.
fn option(mut bytes: &[u8], code: u32) -> Option<&[u8]> {
    loop {
        let (found, len) = (word(bytes, 0) & 0xffff, (word(bytes, 0) >> 16) as usize);
        if found == 0 {
            return None;
        }
        if found == code {
            return Some(&bytes[4..4 + len]);
        }
        bytes = &bytes[4 + len.next_multiple_of(4)..];
    }
}

/// All packets of a file, and of each interface what came and what was lost.
fn read(path: &Path) -> (Vec<Packet>, BTreeMap<String, (u64, u64)>) {
    let file = std::fs::read(path).unwrap();
    let (mut names, mut packets, mut seen) = (Vec::new(), Vec::new(), BTreeMap::new());
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let mut rest = &file[..];
    while !rest.is_empty() {
        let (kind, len) = (word(rest, 0), word(rest, 4) as usize);
        let body = &rest[8..len - 4];
        match kind {
            1 => names.push(text(option(&body[8..], 2).unwrap())),
            5 => {
                let count = |code| number(option(&body[12..], code).unwrap());
                seen.insert(names[word(body, 0) as usize].clone(), (count(4), count(5)));
            }
            6 => {
                let kept = word(body, 12) as usize;
                let (header, payload) = DataHeader::decode_frame(&body[20..20 + kept]).expect("a frame of ours");
                packets.push(Packet {
                    interface: names[word(body, 0) as usize].clone(),
                    header,
                    payload: payload.to_vec(),
                    len: word(body, 16),
                    lost: option(&body[20 + kept.next_multiple_of(4)..], 4).map_or(0, number),
                });
            }
            kind => assert_eq!(kind, 0x0a0d_0d0a),
        }
        rest = &rest[len..];
    }
    (packets, seen)
}

fn payload(sequence: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (sequence as usize * 31 + at) as u8).collect()
}

/// A source, and the number of its next message.
struct Feed {
    source: Source,
    next: u64,
}

impl Feed {
    fn new(source: Source) -> Feed {
        Feed { source, next: 0 }
    }

    /// Emits a message if it is taken.
    fn emit(&mut self, len: usize) -> bool {
        let Ok(mut buffer) = self.source.get_buffer(len) else { return false };
        buffer.copy_from_slice(&payload(self.next, len));
        let sent = matches!(self.source.emit_at(buffer, 77), Emit::Sent(_));
        self.next += u64::from(sent);
        sent
    }
}

#[test]
fn messages_of_every_kind_of_stream_are_written_as_they_pass() {
    let daemon = Daemon::start("kinds", CONFIG);
    let session = Session::attach(daemon.socket(), "app").unwrap();
    let periodic = Qos { determinism: Determinism::periodic(Nanos::from_millis(1), 400), ..Qos::default() };
    let reliable = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let isolated = StreamOptions::default().isolated(true);
    let streams = [
        ("cycle", session.stream("cycle", periodic).unwrap()),
        ("log", session.stream("log", reliable).unwrap()),
        ("apart", session.stream_with("apart", reliable, isolated).unwrap()),
    ];
    let options = || SourceOptions::default().buffers(400_000, 4);
    let mut feeds = streams.each_ref().map(|(_, stream)| Feed::new(stream.source(CHANNEL, options()).unwrap()));
    // The first has no receiver: the tap sees it all the same.
    let sinks = [&streams[1].1, &streams[2].1].map(|stream| stream.sink(CHANNEL, SinkOptions::default()).unwrap());
    let file = daemon.folder.join("all.pcapng");
    let path = file.to_str().unwrap();
    let mut tap = Process::spawn(&mut daemon.command("tap", &["--domain", "line", "--count", "90", "-w", path]));
    let lens = [8, 96, 400, 300_000];
    wait_for("the tap has seen enough", || {
        for feed in &mut feeds {
            feed.emit(lens[feed.next as usize % lens.len()]);
        }
        for sink in &sinks {
            while sink.consume().unwrap().is_some() {}
        }
        tap.has_ended()
    });
    let output = tap.wait();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).starts_with("90 messages of 3 channels, "), "{}", text(&output.stderr));
    let (packets, seen) = read(&file);
    assert_eq!(packets.len(), 90);
    for (name, stream) in &streams {
        let interface = format!("line/{name}:3");
        let of: Vec<&Packet> = packets.iter().filter(|packet| packet.interface == interface).collect();
        assert!(of.len() >= 10, "{interface}: {}", of.len());
        let mut next = None;
        for packet in &of {
            let header = &packet.header;
            if let Some(next) = next {
                assert_eq!(header.sequence, next + packet.lost, "in order, and losses told");
            }
            next = Some(header.sequence + 1);
            let len = lens[header.sequence as usize % lens.len()];
            assert_eq!((header.message_len as usize, packet.len as usize), (len, len + 64));
            let kept = len.min(256 * 1024 - 64);
            assert!(packet.payload == payload(header.sequence, len)[..kept], "{interface} #{}", header.sequence);
            assert_eq!((header.channel, header.lane, header.source_instant), (CHANNEL, stream.lane(), 77));
            assert_eq!(header.flags.contains(Flags::RELIABLE), *name != "cycle");
            assert_eq!(header.stream, insane_core::stream_key("line", name));
        }
        let lost: u64 = of.iter().map(|packet| packet.lost).sum();
        assert_eq!(seen[&interface], (of.len() as u64 + lost, lost));
    }
}

#[test]
fn a_tap_that_stands_still_costs_only_itself() {
    let daemon = Daemon::start("still", CONFIG);
    let session = Session::attach(daemon.socket(), "app").unwrap();
    let reliable = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let stream = session.stream("log", reliable).unwrap();
    let mut feed = Feed::new(stream.source(CHANNEL, SourceOptions::default()).unwrap());
    let sink = stream.sink(CHANNEL, SinkOptions::default()).unwrap();
    feed.source.wait_for_receivers(common::PATIENCE).unwrap();
    let file = daemon.folder.join("still.pcapng");
    let mut tap = Process::spawn(&mut daemon.command("tap", &["--depth", "8", "-w", file.to_str().unwrap()]));
    let mut got = 0;
    let mut step = |feed: &mut Feed| {
        let sent = feed.emit(200);
        while let Some(message) = sink.consume().unwrap() {
            assert_eq!((message.sequence(), message.lost()), (got, 0));
            got += 1;
        }
        sent
    };
    wait_for("the tap sees something", || {
        step(&mut feed);
        assert!(!tap.has_ended());
        std::fs::metadata(&file).is_ok_and(|file| file.len() > 1000)
    });
    assert_eq!(feed.source.receivers(), 1);
    tap.signal(Signal::SIGSTOP);
    for _ in 0..1000 {
        // One at a time, and each is taken: the tap has no say in it.
        assert!(step(&mut feed), "refused for the tap's sake");
    }
    tap.signal(Signal::SIGCONT);
    for _ in 0..50 {
        step(&mut feed);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    tap.signal(Signal::SIGINT);
    let output = tap.wait();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let (packets, _) = read(&file);
    let lost: Vec<u64> = packets.iter().map(|packet| packet.lost).filter(|lost| *lost > 0).collect();
    assert!(lost.iter().sum::<u64>() > 900, "what it missed is told: {lost:?}");
    for pair in packets.windows(2) {
        assert_eq!(pair[1].header.sequence, pair[0].header.sequence + 1 + pair[1].lost);
    }
}

#[test]
fn a_stream_is_not_kept_open_by_the_tap_and_filters_hold() {
    let daemon = Daemon::start("filters", CONFIG);
    let session = Session::attach(daemon.socket(), "app").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let source = |channel| Feed::new(stream.source(ChannelId(channel), SourceOptions::default()).unwrap());
    let mut feeds = [1, 2].map(source);
    let other = session.stream("t", Qos::default()).unwrap();
    let mut elsewhere = Feed::new(other.source(ChannelId(2), SourceOptions::default()).unwrap());
    let mut tap = Process::spawn(&mut daemon.command("tap", &["--stream", "s", "--channel", "2"]));
    wait_for("the tap is there", || daemon.status().streams.iter().any(|stream| stream.taps == 1));
    for _ in 0..50 {
        feeds.iter_mut().chain([&mut elsewhere]).for_each(|feed| assert!(feed.emit(100)));
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let report = daemon.status();
    assert!(report.streams.iter().all(|stream| stream.sinks == 0), "a tap is no sink");
    assert_eq!(report.streams.iter().map(|stream| stream.taps).sum::<u32>(), 1);
    drop((feeds, stream));
    wait_for("the stream is gone", || !daemon.status().streams.iter().any(|stream| stream.name == "s"));
    assert!(!tap.has_ended());
    tap.signal(Signal::SIGTERM);
    let output = tap.wait();
    assert!(output.status.success());
    let shown = text(&output.stdout);
    assert!(shown.lines().count() > 10, "{shown}");
    for line in shown.lines() {
        assert!(line.contains(" line/s:2 #") && line.contains(" 100 B "), "{line}");
    }
}

#[test]
fn a_tap_of_what_is_not_there_says_so_and_waits_for_it() {
    let daemon = Daemon::start("nothing", CONFIG);
    let session = Session::attach(daemon.socket(), "app").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let _feed = stream.source(CHANNEL, SourceOptions::default()).unwrap();
    let said = |arguments: &[&str]| {
        let output = daemon.command("tap", &[&["--seconds", "1"], arguments].concat()).output().unwrap();
        assert!(output.status.success());
        text(&output.stderr)
    };
    for (arguments, words) in [
        (&["--stream", "nope"][..], "no stream \"nope\" is open in domain \"line\"; waiting"),
        (&["--stream", "nope", "--channel", "3"], "no stream \"nope\" is open"),
        (&["--stream", "s", "--channel", "7"], "stream \"s\" has no channel 7 in use"),
        (&["--channel", "7"], "no stream has a channel 7 in use"),
    ] {
        let said = said(arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert!(!said(&["--stream", "s"]).contains("nothing to tap"));
}

#[test]
fn who_is_no_member_may_not_tap() {
    let daemon = Daemon::start("members", CONFIG);
    let output = daemon.command("tap", &["--domain", "other", "--seconds", "1"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let shown = text(&output.stderr);
    assert!(shown.starts_with("error: this user may not tap here: "), "{shown}");
    assert!(shown.contains("no access rule lets user") && shown.contains("`members`"), "{shown}");
    let nowhere = common::insane().args(["tap", "--socket", "/nowhere/x.sock"]).output().unwrap();
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).starts_with("error: no runtime answers at /nowhere/x.sock"));
}

#[test]
fn a_reader_that_goes_away_ends_it_well() {
    let daemon = Daemon::start("reader", CONFIG);
    let session = Session::attach(daemon.socket(), "app").unwrap();
    let stream = session.stream("s", Qos::default()).unwrap();
    let mut feed = Feed::new(stream.source(CHANNEL, SourceOptions::default()).unwrap());
    let mut tap = Process::spawn(&mut daemon.command("tap", &["-w", "-"]));
    drop(tap.0.as_mut().unwrap().stdout.take());
    wait_for("the tap ends", || {
        feed.emit(50);
        tap.has_ended()
    });
    let output = tap.wait();
    assert!(output.status.success(), "{}", text(&output.stderr));
}
