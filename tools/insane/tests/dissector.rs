//! The dissector for Wireshark, run by tshark over a file of `insane tap` and over
//! datagrams: every field that it shows is compared with what was sent.

mod common;

use common::{Daemon, Process, text, wait_for};
use insane_core::{
    ChannelId, HostId, Incarnation, Lane, Nanos, Schema, SourceId, SourceInstant, Stamp, StreamKey, TaiTime,
};
use insane_rt::{Emit, Qos, Reliability, Session, SourceOptions};
use insane_wire::bundle::{HEAD_BYTES, Packer};
use insane_wire::data::{CLOSING, DataHeader, Flags, Kind, VERSION};
use insane_wire::group::{GROUP_BYTES, GroupBody};
use insane_wire::link::{LINK_BYTES, LinkBeat};
use insane_wire::overlay::{self, Change, Head, Interest};
use insane_wire::refusal::{REFUSAL_BYTES, Refusal};
use insane_wire::reliable::{Ack, Body, Position, Sync};
use std::path::Path;
use std::process::Command;

/// Whether tshark is there; else the test says that it is not.
fn has_tshark() -> bool {
    let found = Command::new("tshark").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("passed over: tshark is not installed");
    }
    found
}

/// These fields of every packet, as tshark shows them. Wireshark's own settings of this
/// user do not count.
fn fields(file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let home = file.with_extension("home");
    std::fs::create_dir_all(&home).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dissector/insane.lua");
    let mut tshark = Command::new("tshark");
    tshark.env("HOME", &home).env("XDG_CONFIG_HOME", &home);
    tshark.arg("-X").arg(format!("lua_script:{}", script.display())).arg("-r").arg(file);
    tshark.args(["-T", "fields", "-E", "separator=|", "-E", "aggregator=;"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let output = tshark.output().unwrap();
    let errors = text(&output.stderr);
    assert!(output.status.success() && !errors.contains("Lua"), "{errors}");
    text(&output.stdout).lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

#[test]
fn a_file_of_the_tap_shows_what_was_emitted() {
    if !has_tshark() {
        return;
    }
    let config = r#"domains: [(name: "line", members: [any])]"#;
    let daemon = Daemon::start("tshark", config);
    let session = Session::attach(daemon.socket(), "app").unwrap();
    let reliable = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let stream = session.stream("axis", reliable).unwrap();
    let source = stream.source(ChannelId(70_000), SourceOptions::default().buffers(500_000, 4)).unwrap();
    let file = daemon.folder.join("tap.pcapng");
    let arguments = ["--count", "20", "--depth", "4", "-w", file.to_str().unwrap()];
    let mut tap = Process::spawn(&mut daemon.command("tap", &arguments));
    let lens = [0, 5, 1000, 500_000];
    let mut next = 0_u64;
    wait_for("the tap has seen enough", || {
        for _ in 0..10 {
            if let Ok(mut buffer) = source.get_buffer(lens[next as usize % lens.len()]) {
                buffer.fill(next as u8);
                next += u64::from(matches!(source.emit_at(buffer, 1_000 + next), Emit::Sent(_)));
            }
        }
        tap.has_ended()
    });
    assert!(tap.wait().status.success());
    let shown = fields(
        &file,
        &[
            "frame.interface_name",
            "insane.kind",
            "insane.lane",
            "insane.flags.reliable",
            "insane.check.good",
            "insane.stream",
            "insane.channel",
            "insane.sequence",
            "insane.instant",
            "insane.length",
            "insane.payload",
            "frame.comment",
            "frame.len",
        ],
    );
    assert_eq!(shown.len(), 20);
    let mut told = 0;
    let mut expected: Option<u64> = None;
    for row in &shown {
        let key = format!("0x{:016x}", insane_core::stream_key("line", "axis").0);
        assert_eq!(row[..7], ["line/axis:70000", "1", "6", "1", "1", &key, "70000"], "{row:?}");
        let sequence: u64 = row[7].parse().unwrap();
        let len = lens[sequence as usize % lens.len()];
        assert_eq!(row[8..10], [(1_000 + sequence).to_string(), len.to_string()]);
        let kept = len.min(256 * 1024 - 64);
        assert!(row[10] == format!("{:02x}", sequence as u8).repeat(kept), "the payload of #{sequence}");
        assert_eq!(row[12], (len + 64).to_string());
        let lost = sequence - expected.unwrap_or(sequence);
        let words = row[11].split(' ').next().unwrap();
        assert_eq!(words, if lost == 0 { String::new() } else { lost.to_string() }, "{}", row[11]);
        told += u64::from(lost > 0);
        expected = Some(sequence + 1);
    }
    assert!(told > 0, "ten at once and a ring of four: some are lost");
}

/// A file with one UDP datagram for each frame, of the older pcap format (link type: bare
/// IP), each to another port.
fn datagrams(file: &Path, frames: &[Vec<u8>]) {
    let mut bytes: Vec<u8> = Vec::new();
    let mut put = |words: &[u32]| words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    put(&[0xa1b2_c3d4, 4 << 16 | 2, 0, 0, 65_535, 101]);
    for (at, frame) in frames.iter().enumerate() {
        let (udp, ip) = (frame.len() + 8, frame.len() + 28);
        let mut packet = vec![0x45, 0];
        packet.extend((ip as u16).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        for half in [40_000 + at, 21_400 + 2 * at, udp, 0] {
            packet.extend((half as u16).to_be_bytes());
        }
        packet.extend(frame);
        let len = packet.len() as u32;
        for word in [at as u32, 0, len, len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(packet);
    }
    std::fs::write(file, bytes).unwrap();
}

fn frame(header: DataHeader, payload: &[u8]) -> Vec<u8> {
    [&header.encode()[..], payload].concat()
}

const DATA: DataHeader = DataHeader {
    kind: Kind::Data,
    lane: Lane::CONTROL,
    flags: Flags::NONE,
    stream: StreamKey(0xfedc_ba98_7654_3210),
    host: HostId(0x8000_0000_0000_0001),
    incarnation: Incarnation(7),
    sequence: u64::MAX - 1,
    source_instant: Stamp { instant: SourceInstant::Tai(TaiTime(1_700_000_000_000_000_001)), is_history: true }
        .encode(),
    channel: ChannelId(u32::MAX),
    source: SourceId(9),
    message_len: 200,
    fragment_offset: 128,
};
const ALL: [&str; 14] = [
    "insane.version",
    "insane.kind",
    "insane.lane",
    "insane.instant.clock",
    "insane.check.good",
    "insane.stream",
    "insane.host",
    "insane.incarnation",
    "insane.sequence",
    "insane.instant",
    "insane.channel",
    "insane.source",
    "insane.length",
    "insane.offset",
];

fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("insane-dissector-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn a_fence_shows_whether_it_ends_a_leg_or_the_flow() {
    if !has_tshark() {
        return;
    }
    let folder = folder("fence");
    let file = folder.join("udp.pcap");
    let fence = |source_instant| {
        frame(DataHeader { kind: Kind::Fence, source_instant, message_len: 0, fragment_offset: 0, ..DATA }, &[])
    };
    datagrams(&file, &[fence(0), fence(CLOSING), frame(DATA, &[0xab; 72])]);
    let shown = fields(&file, &["insane.kind", "insane.fence.closes", "insane.instant.clock"]);
    assert_eq!(shown[0], ["4", "0", ""]);
    assert_eq!(shown[1], ["4", "1", ""]);
    assert_eq!(shown[2], ["1", "", "2"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn datagrams_are_known_on_any_port_and_others_left_alone() {
    if !has_tshark() {
        return;
    }
    let folder = folder("data");
    let file = folder.join("udp.pcap");
    let good = frame(DATA, &[0xab; 72]);
    let (mut flipped, mut other) = (good.clone(), good.clone());
    flipped[33] ^= 1;
    other[0] = b'J';
    datagrams(&file, &[good, flipped, other, vec![b'I'; 20], b"I".to_vec()]);
    let shown = fields(&file, &[&ALL[..], &["insane.payload"]].concat());
    let version = VERSION.to_string();
    let expected = [
        &version,
        "1",
        "3",
        "2",
        "1",
        "0xfedcba9876543210",
        "0x8000000000000001",
        "7",
        "18446744073709551614",
        "1700000000000000001",
        "4294967295",
        "9",
        "200",
        "128",
        &"ab".repeat(72),
    ];
    assert_eq!(shown[0], expected);
    for row in &shown[1..] {
        assert!(row.iter().all(String::is_empty), "not ours: {row:?}");
    }
    assert_eq!(shown.len(), 5);
    std::fs::remove_dir_all(folder).unwrap();
}

/// The first whole, and behind it successors in their short form and a frame that is none.
fn bundle(frames: &[(DataHeader, Vec<u8>)]) -> Vec<u8> {
    let first = frame(frames[0].0, &frames[0].1);
    let mut packer = Packer::new(&first).unwrap();
    let mut bytes = [&[0; HEAD_BYTES][..], &first].concat();
    for (header, payload) in &frames[1..] {
        let mut room = [0; 200];
        let front = packer.push(&header.encode(), payload.len(), &mut room).unwrap();
        bytes.extend(&room[..front]);
        bytes.extend(payload);
    }
    packer.finish(&mut bytes);
    bytes
}

#[test]
fn every_frame_of_a_bundle_is_shown_and_one_with_a_wrong_length_is_none() {
    if !has_tshark() {
        return;
    }
    let folder = folder("bundles");
    let file = folder.join("udp.pcap");
    let of = |sequence: u64, bytes: usize| {
        let instant = 0x0100_0000_ffff_ffff + sequence;
        let (message_len, fragment_offset) = (bytes as u32, 0);
        (
            DataHeader { sequence, source_instant: instant, message_len, fragment_offset, ..DATA },
            vec![sequence as u8; bytes],
        )
    };
    // The sequence number is carried over all its bytes, and so is the instant.
    let successors = [of(0xffff_ffff, 3), of(0x1_0000_0000, 0), of(0x1_0000_0001, 5)];
    let other = (DataHeader { channel: ChannelId(4), ..of(9, 2).0 }, vec![4; 2]);
    let sound = bundle(&[&successors[..], &[other]].concat());
    assert!(sound.len() < HEAD_BYTES + 3 * 64 + 40, "two are in the short form");
    let (mut longer, mut fewer, mut padded) = (sound.clone(), sound.clone(), sound.clone());
    longer[4] += 1;
    fewer[6] -= 1;
    padded.extend([0; 20]);
    datagrams(&file, &[sound, longer, fewer, padded]);
    let shown = fields(
        &file,
        &[
            "insane.bundle.frames",
            "insane.sequence",
            "insane.channel",
            "insane.length",
            "insane.check.good",
            "insane.payload",
        ],
    );
    let channel = u32::MAX;
    let expected = [
        "4",
        "4294967295;4294967296;4294967297;9",
        &format!("{channel};{channel};{channel};4"),
        "3;0;5;2",
        "1;1;1;1",
        "ffffff;0101010101;0404",
    ];
    assert_eq!(shown[0], expected);
    assert_eq!(shown[3], expected, "padding is no part of it");
    for row in &shown[1..3] {
        assert!(row.iter().all(String::is_empty), "not ours: {row:?}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn bodies_of_overlay_and_reliable_frames_are_shown() {
    if !has_tshark() {
        return;
    }
    let folder = folder("bodies");
    let file = folder.join("udp.pcap");
    let own = (HostId(5), Incarnation(6));
    let report = |body: Body| {
        let header = DataHeader::reliable(own, (StreamKey(1), ChannelId(2)), SourceId(3));
        frame(header, &body.encode())
    };
    let position = Position { sequence: 33, offset: 128 };
    let sync = report(Body::Sync(Sync {
        token: 0x11,
        base: 22,
        sent: position,
        fresh: true,
        keeps: true,
        recap: 7,
        past: 21,
    }));
    let ack = Ack { token: 0x11, life: Incarnation(44), next: position, limit: 55, nak: true, gone: false, recap: 66 };
    let ack = report(Body::Ack(ack));
    let head = Head {
        host: own.0,
        incarnation: own.1,
        to: Incarnation(8),
        version: 90,
        applied: 10,
        serves: 3,
        follows: 4,
        restart: true,
    };
    let schema = |channel| (channel == 1).then(|| Schema::new("valve", 0x5c).unwrap());
    let change = |channel, on| Change {
        interest: Interest {
            stream: StreamKey(0x77),
            check: 0x88,
            channel: ChannelId(channel),
            schema: schema(channel),
            joins: channel * 100,
        },
        on,
    };
    let mut body = [0; overlay::BODY_BYTES_MAX];
    let len = overlay::encode_delta(&head, 80, 90, [change(1, true), change(2, false)].into_iter(), &mut body);
    let delta = frame(DataHeader::overlay(own.0, own.1, len as u32), &body[..len]);
    let len = overlay::encode_digest(&head, overlay::Digest { hash: 0x99, count: 12 }, &mut body);
    let digest = frame(DataHeader::overlay(own.0, own.1, len as u32), &body[..len]);
    let (host, incarnation) = own;
    let beat = LinkBeat { host, incarnation, to: Incarnation(8), stamp: 1001, echo: 1002, held: Nanos(1003) };
    let beat = frame(DataHeader::overlay(own.0, own.1, LINK_BYTES as u32), &beat.encode());
    let refusal = Refusal {
        host,
        incarnation,
        to: Incarnation(8),
        stream: StreamKey(0x77),
        check: 0x88,
        channel: ChannelId(3),
        schema: Schema::new("pump", 0x5d).unwrap(),
    };
    let refusal = frame(DataHeader::overlay(own.0, own.1, REFUSAL_BYTES as u32), &refusal.encode());
    let answer = GroupBody { host, incarnation, to: Some(Incarnation(8)), number: 1004 };
    let answer = frame(DataHeader::overlay(own.0, own.1, GROUP_BYTES as u32), &answer.encode());
    datagrams(&file, &[sync, ack, delta, digest, beat, refusal, answer]);
    let reports = fields(
        &file,
        &[
            "insane.reliable.kind",
            "insane.reliable.token",
            "insane.reliable.base",
            "insane.reliable.sent",
            "insane.reliable.fresh",
            "insane.reliable.next",
            "insane.reliable.limit",
            "insane.reliable.life",
            "insane.reliable.nak",
            "insane.reliable.gone",
            "insane.reliable.offset",
            "insane.reliable.keeps",
            "insane.reliable.recap",
            "insane.reliable.past",
        ],
    );
    let token = "0x0000000000000011";
    assert_eq!(reports[0], ["1", token, "22", "33", "1", "", "", "", "", "", "128", "1", "7", "21"]);
    assert_eq!(reports[1], ["2", token, "", "", "", "33", "55", "44", "1", "0", "128", "", "66", ""]);
    let bodies = fields(
        &file,
        &[
            "insane.overlay.kind",
            "insane.overlay.restart",
            "insane.overlay.host",
            "insane.overlay.incarnation",
            "insane.overlay.to",
            "insane.overlay.version",
            "insane.overlay.applied",
            "insane.overlay.serves",
            "insane.overlay.follows",
            "insane.overlay.base",
            "insane.overlay.upto",
            "insane.overlay.stream",
            "insane.overlay.channel",
            "insane.overlay.on",
            "insane.overlay.joins",
            "insane.overlay.schema",
            "insane.overlay.schema.hash",
            "insane.overlay.hash",
            "insane.overlay.number",
        ],
    );
    let link = ["insane.overlay.kind", "insane.overlay.host", "insane.overlay.incarnation", "insane.overlay.to"];
    let stamps = ["insane.overlay.stamp", "insane.overlay.echo", "insane.overlay.held", "insane.overlay.version"];
    let links = fields(&file, &[link, stamps].concat());
    assert_eq!(links[4], ["5", "0x0000000000000005", "6", "8", "1001", "1002", "1003", ""]);
    let head = ["1", "0x0000000000000005", "6", "8", "90", "10", "3", "4"];
    let stream = "0x0000000000000077;0x0000000000000077";
    assert_eq!(bodies[2][0], "6");
    assert_eq!(bodies[2][1..9], head);
    assert_eq!(bodies[2][9..], ["80", "90", stream, "1;2", "1;0", "100;200", "valve", "0x000000000000005c", "", ""]);
    assert_eq!(bodies[3][0], "2");
    assert_eq!(bodies[3][1..9], head);
    assert_eq!(bodies[3][9..], ["", "", "", "", "", "", "", "", "0x0000000000000099", "12"]);
    assert_eq!(bodies[5][..5], ["7", "", "0x0000000000000005", "6", "8"]);
    assert_eq!(bodies[5][11..], ["0x0000000000000077", "3", "", "", "pump", "0x000000000000005d", "", ""]);
    let asked = ["insane.overlay.kind", "insane.overlay.what", "insane.overlay.host", "insane.overlay.to"];
    let groups = fields(&file, &[&asked[..], &["insane.overlay.probe"]].concat());
    assert_eq!(groups[6], ["8", "2", "0x0000000000000005", "8", "1004"]);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn cut_bodies_are_told_and_break_nothing() {
    if !has_tshark() {
        return;
    }
    let folder = folder("cut");
    let file = folder.join("udp.pcap");
    let own = (HostId(5), Incarnation(6));
    let overlay = |len: usize, kind: u8| {
        let mut body = vec![0; len];
        body.iter_mut().take(1).for_each(|byte| *byte = kind);
        body.iter_mut().skip(2).take(2).for_each(|byte| *byte = 0xff);
        frame(DataHeader::overlay(own.0, own.1, len as u32), &body)
    };
    let mut frames: Vec<Vec<u8>> = [1, 55, 56, 60, 72, 100].map(|len| overlay(len, 6)).to_vec();
    frames.push(overlay(80, 7));
    frames.push(overlay(1, 8));
    frames.push(overlay(39, 8));
    frames.push(frame(DataHeader::reliable(own, (StreamKey(1), ChannelId(2)), SourceId(3)), &[1; 20]));
    datagrams(&file, &frames);
    let shown = fields(&file, &["insane.kind", "insane.short"]);
    for (row, kind) in shown.iter().zip(["2", "2", "2", "2", "2", "2", "2", "2", "2", "3"]) {
        assert_eq!(row[0], kind);
        assert_ne!(row[1], "", "told as cut");
    }
    assert_eq!(shown.len(), frames.len());
    std::fs::remove_dir_all(folder).unwrap();
}
