//! Sources that close: what their receivers remember of them.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::{ChannelId, ConnId, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex};
use insane_core::{SourceInstant, Stamp, StreamKey};
use insane_engine::{Command, EngineConfig, Topic};
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_shm::port::{Earlier, SinkPort, SourcePort};
use insane_sim::{Chance, Faults, SimConfig, SimLink, SimNet};
use insane_sys::SharedBytes;
use insane_wire::data::{CLOSING, DataHeader, Kind};
use std::collections::HashMap;
use world::{Host, TOPIC, address, data_header, run};

const CLASSES: [(u32, u32); 1] = [(2048, 64)];
/// What sources that come and go are on.
const BUSY: Topic = Topic { key: StreamKey(9), channel: ChannelId(1) };

fn word(sequence: u64, is_history: bool) -> u64 {
    Stamp { instant: SourceInstant::Monotonic(MonoTime(1_000 + sequence)), is_history }.encode()
}

/// A source that keeps its last two values.
struct Quiet {
    port: SourcePort,
    kept: Vec<u64>,
}

impl Quiet {
    fn attend(&self) {
        let bytes = self.kept.iter().map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let earlier = |(bytes, sequence): (&'_ [u8; 8], u64)| (sequence, word(sequence, true), bytes.to_vec());
        let all: Vec<_> = bytes.iter().zip(self.kept.iter().copied()).map(earlier).collect();
        let all = all.iter().map(|(sequence, source_ns, bytes)| Earlier {
            sequence: *sequence,
            source_ns: *source_ns,
            bytes,
        });
        self.port.replay(&all.collect::<Vec<Earlier<'_>>>());
    }

    fn emit(&mut self) {
        self.attend();
        let sequence = self.port.next_sequence();
        let emitted = self.port.emit_copy(&sequence.to_le_bytes(), word(sequence, false));
        assert!(emitted.is_some_and(|emitted| emitted.is_sent()));
        if self.kept.len() == 2 {
            self.kept.remove(0);
        }
        self.kept.push(sequence);
    }
}

fn numbers(sink: &SinkPort) -> Vec<u64> {
    std::iter::from_fn(|| sink.consume().unwrap().map(|message| message.sequence())).collect()
}

fn open(host: &mut Host, topic: Topic, is_reliable: bool) -> (SourcePort, ConnId) {
    let port = host.source_of((is_reliable, is_reliable), topic, Lane::LAST, &[]).0;
    (port, ConnId(host.next))
}

/// Lets a source go; the world goes on until it has.
fn close(net: &SimNet, hosts: &mut [&mut Host; 2], conn: ConnId) {
    hosts[0].port.send(Command::RemoveSource(conn)).unwrap();
    for _ in 0..100_000 {
        run(net, hosts, 1);
        if let Some(command) = hosts[0].port.collect() {
            assert!(matches!(*command, Command::Removed { .. }));
            return;
        }
    }
    panic!("the source is not let go");
}

fn welcome(host: &mut Host, topic: Topic) {
    assert!(matches!(host.command(Command::Welcome { topic, peer: PeerIndex(0) }), Command::Spent));
    host.route(topic, &[0], false);
}

/// Many times as many sources come and go as a host remembers flows, beside one that is quiet.
fn come_and_go(is_reliable: bool, sources: u32) {
    let net = SimNet::new(1, SimConfig { frames_max: 4096, ..SimConfig::default() });
    let (mut a, mut b) = world::pair(&net, &CLASSES);
    let early = b.sink(TOPIC).0;
    a.keeps = true;
    let port = a.source_of((is_reliable, is_reliable), TOPIC, Lane::LAST, &[]).0;
    a.keeps = false;
    let mut quiet = Quiet { port, kept: Vec::new() };
    let hears = b.sink(BUSY).0;
    welcome(&mut a, TOPIC);
    a.route(BUSY, &[0], false);
    for _ in 0..3 {
        quiet.emit();
        run(&net, &mut [&mut a, &mut b], 100);
    }
    assert_eq!(numbers(&early), [0, 1, 2]);

    let mut heard = Vec::new();
    for number in 0..sources {
        let (source, conn) = open(&mut a, BUSY, is_reliable);
        assert!(source.emit_copy(&number.to_le_bytes(), 0).is_some_and(|emitted| emitted.is_sent()));
        run(&net, &mut [&mut a, &mut b], 20);
        close(&net, &mut [&mut a, &mut b], conn);
        net.advance(Nanos::from_micros(800));
        run(&net, &mut [&mut a, &mut b], 4);
        while let Some(message) = hears.consume().unwrap() {
            heard.push(u32::from_le_bytes(message.bytes().unwrap().try_into().unwrap()));
        }
    }
    assert!(heard.iter().copied().eq(0..sources), "each once: {} of {sources}", heard.len());
    assert_eq!(b.count(DatapathCounter::DroppedNoFlow), 0);

    // The past goes to whoever has not got it, and to nobody else.
    let late = b.sink(TOPIC).0;
    welcome(&mut a, TOPIC);
    run(&net, &mut [&mut a, &mut b], 100);
    quiet.attend();
    run(&net, &mut [&mut a, &mut b], 1_000);
    quiet.emit();
    run(&net, &mut [&mut a, &mut b], 1_000);
    assert_eq!((numbers(&early), numbers(&late)), (vec![3], vec![1, 2, 3]));
    assert_eq!(b.count(DatapathCounter::Lost), 0);
}

#[test]
fn two_thousand_sources_that_come_and_go_take_no_place_from_a_quiet_one() {
    come_and_go(false, 2_000);
}

#[test]
fn reliable_sources_that_come_and_go_take_no_place_from_a_quiet_one() {
    come_and_go(true, 1_000);
}

/// Few places, and a network that loses, doubles and reorders messages and what is said of their
/// end alike.
#[test]
fn whatever_becomes_of_the_word_that_a_source_closed_nothing_comes_twice() {
    for is_reliable in [false, true] {
        let faults = Faults {
            loss: Chance::percent(5),
            duplication: Chance::percent(20),
            reordering: Chance::percent(20),
            reorder_by: Nanos::from_millis(20),
            ..Faults::NONE
        };
        let net = SimNet::new(7, SimConfig { frames_max: 4096, faults, ..SimConfig::default() });
        let mut a = Host::new(&net, 1, &[2], &CLASSES);
        let config = EngineConfig { flows: 64, reliable_flows: 64, ..EngineConfig::new(HostId(2), Incarnation(1)) };
        let link = net.setup(address(2)).open(&[Some(address(1))]).unwrap();
        let mut b = Host::of(config, link, net.clock(), 1, &CLASSES, None);
        let sink = b.sink(BUSY).0;
        a.route(BUSY, &[0], false);
        let mut heard: HashMap<u32, Vec<u64>> = HashMap::new();
        let mut total = 0;
        for number in 0..600_u32 {
            let (source, conn) = open(&mut a, BUSY, is_reliable);
            let count = number % 4;
            for _ in 0..count {
                assert!(source.emit_copy(&number.to_le_bytes(), 0).is_some_and(|emitted| emitted.is_sent()));
            }
            total += u64::from(count);
            close(&net, &mut [&mut a, &mut b], conn);
            net.advance(Nanos::from_millis(4));
            run(&net, &mut [&mut a, &mut b], 10);
            while let Some(message) = sink.consume().unwrap() {
                let source = u32::from_le_bytes(message.bytes().unwrap().try_into().unwrap());
                let of_source = heard.entry(source).or_default();
                assert!(of_source.last().is_none_or(|last| *last < message.sequence()), "{source}: {of_source:?}");
                of_source.push(message.sequence());
            }
        }
        assert_eq!(b.count(DatapathCounter::DroppedNoFlow), 0);
        let came: u64 = heard.values().map(|all| all.len() as u64).sum();
        if is_reliable {
            assert_eq!(came, total);
        } else {
            assert!(came > total * 3 / 5 && came < total, "{came} of {total}");
        }
    }
}

/// A host of which the test says what it sends.
struct Liar {
    link: SimLink,
}

impl Liar {
    fn say(&mut self, kind: Kind, sequence: u64, source_instant: u64) {
        let header = DataHeader { kind, source_instant, ..data_header((1, 1), sequence, 0) };
        let none = SharedBytes::from(&[][..]);
        assert_eq!(self.link.send(PeerIndex(0), Lane::LAST, &header.encode(), none), SendOutcome::Sent);
        self.link.flush();
    }
}

#[test]
fn a_false_word_that_a_source_closed_drops_no_message() {
    let net = SimNet::new(9, SimConfig::default());
    let mut b = Host::new(&net, 2, &[1], &CLASSES);
    let sink = b.sink(TOPIC).0;
    let mut liar = Liar { link: net.setup(address(1)).open(&[Some(address(2))]).unwrap() };
    liar.say(Kind::Fence, 1, CLOSING);
    let mut next = 0;
    for wait_ms in [0, 1, 200, 2_000, 11_000] {
        for number in [0, 1, next + 1, next + 5, next + 1, next + (1 << 40), u64::MAX] {
            for _ in 0..2 {
                liar.say(Kind::Fence, number, CLOSING);
            }
            liar.say(Kind::Data, next, 0);
            next += 1;
            run(&net, &mut [&mut b], 4);
            for _ in 0..wait_ms / 50 {
                net.advance(Nanos::from_millis(50));
                run(&net, &mut [&mut b], 1);
            }
        }
    }
    assert!(numbers(&sink).into_iter().eq(0..next));
    let counts = [DatapathCounter::Lost, DatapathCounter::DroppedLate, DatapathCounter::DroppedDuplicate]
        .map(|counter| b.count(counter));
    assert_eq!(counts, [0; 3]);
}
