//! Formats keep their numbers honest: what each version looks like is kept in `golden/`, and who
//! changes a format without raising its number sees a test fail that says what to do.
//!
//! What is kept has every variant and every field. For formats that serde writes it is made of
//! what the types say of themselves ([`sampler`]); for the others a variant without a sample
//! does not compile, nor does a sample that lacks a field.

mod golden;
mod sampler;

use golden::{hex, hold};
use insane_core::{ChannelId, HostId, Incarnation, Lane, Nanos, Schema, SourceId, StreamKey, TaiTime};
use insane_wire::bundle::{self, Packer};
use insane_wire::control::{
    Code, DecodeError, Event, Hello, Request, VERSION_MAX, VERSION_MIN, decode, decode_hello_prefix, encode,
    encode_hello,
};
use insane_wire::data::{self, DataHeader, Flags, Kind, Leg};
use insane_wire::group::GroupBody;
use insane_wire::link::LinkBeat;
use insane_wire::overlay::{
    BODY_BYTES_MAX, Body, Change, Digest, Head, Interest, decode as decode_overlay, encode_delta, encode_digest,
    encode_heartbeat,
};
use insane_wire::refusal::Refusal;
use insane_wire::reload::ReloadReport;
use insane_wire::schedule::ScheduleBody;
use insane_wire::status::{FORMAT, StatusReport};
use insane_wire::{flow_head::FlowHead, reliable};
use sampler::samples;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Debug;

/// Each sample in words and bytes; every one is read as it was written.
fn packets<T: Serialize + DeserializeOwned + PartialEq + Debug>() -> Vec<String> {
    let line = |sample: T| {
        let bytes = encode(&sample);
        assert_eq!(decode(&bytes).as_ref(), Ok(&sample));
        format!("{} = {}", format!("{sample:?}").escape_debug(), hex(&bytes))
    };
    samples::<T>().into_iter().map(line).collect()
}

/// A report in JSON, in lines.
fn json<T: Serialize + DeserializeOwned + PartialEq + Debug>() -> Vec<String> {
    let text = |sample: T| serde_json::to_string_pretty(&sample).unwrap();
    samples::<T>().into_iter().map(text).flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn control_protocol() {
    assert_eq!(VERSION_MIN, VERSION_MAX, "one packet looks the same in all versions that are spoken");
    let hello = samples::<Hello>();
    let hellos = hello.iter().map(|hello| format!("{hello:?} = {}", hex(&encode_hello(hello))));
    let mut lines: Vec<String> = hellos.collect();
    lines.extend(packets::<Request>());
    lines.extend(packets::<Event>());
    lines.extend(json::<ReloadReport>());
    hold("control", "insane_wire::control::VERSION_MIN and VERSION_MAX", VERSION_MAX.into(), &lines);
}

/// What clients and runtimes of all versions understand of each other: that they do not.
#[test]
fn a_refusal_for_its_version_reads_the_same_in_every_version() {
    let refusal = Event::Closing { code: Code::Version, reason: "why".into() };
    assert_eq!(encode(&refusal), [1, 0, 3, b'w', b'h', b'y']);
    let prefix = decode_hello_prefix(b"INSN\x02\x00\x07\x01and whatever").unwrap();
    assert_eq!((prefix.version_min, prefix.version_max), (2, 0x107));
    assert_eq!(decode_hello_prefix(b"INSn\x02\x00\x07\x01"), Err(DecodeError::Magic));
}

#[test]
fn status_report() {
    hold("status", "insane_wire::status::FORMAT", FORMAT, &json::<StatusReport>());
}

const HOST: HostId = HostId(0x0102_0304_0506_0708);
const LIFE: Incarnation = Incarnation(0x1112_1314_1516_1718);
const PEER_LIFE: Incarnation = Incarnation(0x2122_2324_2526_2728);

/// Every variant of an enum with its name, each with all that it holds: one without a sample does
/// not compile. Of what cannot be made by itself, with the bytes of each, which are read as it.
macro_rules! every {
    ($kind:ident { $($variant:ident $content:tt)* }) => {{
        const fn _each_has_a_sample(it: &$kind) { match it { $($kind::$variant { .. } => {})* } }
        [$((stringify!($variant), $kind::$variant $content)),*]
    }};
    ($read:expr => $kind:ident { $($variant:ident = $bytes:expr;)* }) => {{
        const fn _each_has_a_sample(it: &$kind) { match it { $($kind::$variant { .. } => {})* } }
        [$({
            let bytes = $bytes;
            assert!(matches!($read(&bytes), $kind::$variant { .. }), stringify!($variant));
            (stringify!($variant), bytes)
        }),*]
    }};
}

#[test]
fn frames_between_runtimes() {
    let mut lines = Vec::new();
    frames(&mut lines);
    overlay(&mut lines);
    reports(&mut lines);
    hold("frames", "insane_wire::data::VERSION", data::VERSION.into(), &lines);
}

fn frames(lines: &mut Vec<String>) {
    let header = |kind, flags| DataHeader {
        kind,
        lane: Lane::new(5).unwrap(),
        flags,
        stream: StreamKey(0x3132_3334_3536_3738),
        host: HOST,
        incarnation: LIFE,
        sequence: 0x4142_4344_4546_4748,
        source_instant: 0x5152_5354_5556_5758,
        channel: ChannelId(0x6162_6364),
        source: SourceId(0x7172_7374),
        message_len: 0x0182_8384,
        fragment_offset: 0x0092_9380,
    };
    for (name, kind) in every!(Kind { Data {} Overlay {} Reliable {} Fence {} }) {
        for flags in [Flags::NONE, Flags::RELIABLE, Flags::NONE.with_leg(Leg::FIRST.before())] {
            let bytes = header(kind, flags).encode();
            assert_eq!(DataHeader::decode(&bytes), Ok(header(kind, flags)));
            lines.push(format!("{name} {flags:?} {}", hex(&bytes)));
        }
    }
    let fence = FlowHead::new(&header(Kind::Data, Flags::NONE)).fence(Leg::FIRST.next(), 9);
    lines.push(format!("fence of a flow {}", hex(&fence)));
}

fn overlay(lines: &mut Vec<String>) {
    let head = |restart| Head {
        host: HOST,
        incarnation: LIFE,
        to: PEER_LIFE,
        version: 9,
        applied: 8,
        serves: 7,
        follows: 6,
        restart,
    };
    let schema = Schema::new("axis", 0x77);
    let interest = |schema| Interest { stream: StreamKey(1), check: 2, channel: ChannelId(3), schema, joins: 4 };
    let changes = [Change { interest: interest(schema), on: true }, Change { interest: interest(None), on: false }];
    let written = |write: &dyn Fn(&mut [u8; BODY_BYTES_MAX]) -> usize| {
        let mut bytes = [0; BODY_BYTES_MAX];
        let len = write(&mut bytes);
        bytes[..len].to_vec()
    };
    fn body(bytes: &[u8]) -> Body<'_> {
        decode_overlay(bytes).unwrap().1
    }
    let heartbeat = |restart| written(&|bytes| encode_heartbeat(&head(restart), bytes));
    let bodies = every!(body => Body {
        Heartbeat = heartbeat(false);
        Digest = written(&|bytes| encode_digest(&head(false), Digest { hash: 5, count: 6 }, bytes));
        Delta = written(&|bytes| encode_delta(&head(false), 3, 9, changes.into_iter(), bytes));
    });
    let [first, others @ ..] = bodies;
    for (name, bytes) in [first, ("Heartbeat", heartbeat(true))].into_iter().chain(others) {
        lines.push(format!("{} {}", name.to_lowercase(), hex(&bytes)));
    }
    lines.push(format!("fingerprint {:016x}", interest(schema).fingerprint()));

    let beat = LinkBeat { host: HOST, incarnation: LIFE, to: PEER_LIFE, stamp: 1, echo: 2, held: Nanos(3) };
    lines.push(format!("heartbeat of a link {}", hex(&beat.encode())));
    for to in [None, Some(PEER_LIFE)] {
        let body = GroupBody { host: HOST, incarnation: LIFE, to, number: 5 };
        lines.push(format!("group {}", hex(&body.encode())));
    }
    let schema = schema.unwrap();
    let (stream, channel) = (StreamKey(1), ChannelId(3));
    let refusal = Refusal { host: HOST, incarnation: LIFE, to: PEER_LIFE, stream, check: 2, channel, schema };
    lines.push(format!("refusal {}", hex(&refusal.encode())));
    for (asks, names_receiver) in [(true, false), (false, true)] {
        let since = TaiTime(4);
        let body =
            ScheduleBody { host: HOST, incarnation: LIFE, to: PEER_LIFE, schedule: 3, since, asks, names_receiver };
        lines.push(format!("schedule {}", hex(&body.encode())));
    }
}

fn reports(lines: &mut Vec<String>) {
    use reliable::{Ack, Body, Position, Sync};
    let at = Position { sequence: 5, offset: 64 };
    for (one, other) in [(true, false), (false, true)] {
        let sync = Sync { token: 1, base: 2, sent: at, fresh: one, keeps: other, recap: 3, past: 4 };
        let ack = Ack { token: 1, life: LIFE, next: at, limit: 6, nak: one, gone: other, recap: 3 };
        for (name, body) in every!(Body { Sync(sync) Ack(ack) }) {
            assert_eq!(Body::decode(&body.encode()), Ok(body));
            lines.push(format!("{name} {}", hex(&body.encode())));
        }
    }
}

#[test]
fn bundles() {
    let header = DataHeader::overlay(HOST, LIFE, 3);
    let following = DataHeader { sequence: 1, source_instant: 7, ..header };
    let mut bundle = vec![0; bundle::HEAD_BYTES];
    bundle.extend([&header.encode()[..], b"one"].concat());
    let mut packer = Packer::new(&bundle[bundle::HEAD_BYTES..]).unwrap();
    for header in [following, header] {
        let mut room = [0; 200];
        let front = packer.push(&header.encode(), 3, &mut room).unwrap();
        bundle.extend([&room[..front], b"two"].concat());
    }
    packer.finish(&mut bundle);
    // The headers in it have a version of their own.
    let header = hex(&header.encode());
    let text = hex(&bundle).replace(&header, "(header)");
    let check = hex(&following.encode()[4..8]);
    hold("bundles", "insane_wire::bundle::VERSION", bundle::VERSION.into(), &[text.replace(&check, "(check)")]);
}
