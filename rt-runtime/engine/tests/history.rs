//! The past for peers that join: what a source keeps reaches their sinks, once and in order,
//! and nobody else's.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::{Lane, MonoTime, PeerIndex, SourceInstant, Stamp};
use insane_engine::Command;
use insane_shm::port::{Earlier, SinkPort, SourcePort};
use insane_sim::{Chance, Faults, SimConfig, SimNet};
use proptest::prelude::*;
use std::collections::VecDeque;
use world::{Host, TOPIC, pattern, run};

const KEPT: usize = 4;
const CLASSES: [(u32, u32); 1] = [(8192, 64)];

fn word(sequence: u64, is_history: bool) -> u64 {
    Stamp { instant: SourceInstant::Monotonic(MonoTime(1_000 + sequence)), is_history }.encode()
}

/// A source that keeps its last values, as the client library does.
struct Keeper {
    port: SourcePort,
    past: VecDeque<(u64, Vec<u8>)>,
    len: usize,
}

impl Keeper {
    fn new(host: &mut Host, len: usize) -> Self {
        host.keeps = true;
        let port = host.source(TOPIC, Lane::LAST, &CLASSES);
        host.keeps = false;
        Keeper { port, past: VecDeque::new(), len }
    }

    /// How many receivers got the past.
    fn attend(&self) -> usize {
        let earlier = self.past.iter().map(|(sequence, bytes)| Earlier {
            sequence: *sequence,
            source_ns: word(*sequence, true),
            bytes,
        });
        let earlier: Vec<Earlier<'_>> = earlier.collect();
        self.port.replay(&earlier)
    }

    /// The number of the value; it is kept, whoever got it.
    fn emit(&mut self) -> u64 {
        self.attend();
        let sequence = self.port.next_sequence();
        let value = pattern(sequence, self.len);
        let mut buffer = self.port.get_buffer(self.len).expect("a buffer is free");
        buffer.copy_from_slice(&value);
        assert!(self.port.emit(buffer, word(sequence, false)).is_sent());
        if self.past.len() == KEPT {
            self.past.pop_front();
        }
        self.past.push_back((sequence, value));
        sequence
    }
}

/// What a sink has got since the last look: numbers, and whether they are of the past.
fn got(sink: &SinkPort, len: usize) -> Vec<(u64, bool)> {
    let mut all = Vec::new();
    while let Some(message) = sink.consume().unwrap() {
        let stamp = Stamp::decode(message.source_ns());
        assert_eq!(stamp.instant, SourceInstant::Monotonic(MonoTime(1_000 + message.sequence())), "its own instant");
        assert_eq!(message.bytes(), Some(&pattern(message.sequence(), len)[..]));
        all.push((message.sequence(), stamp.is_history));
    }
    all
}

fn join(host: &mut Host, peer: u16, route: &[u16]) {
    let welcome = Command::Welcome { topic: TOPIC, peer: PeerIndex(peer) };
    assert!(matches!(host.command(welcome), Command::Spent));
    host.route(TOPIC, route, false);
}

fn past(numbers: std::ops::Range<u64>) -> Vec<(u64, bool)> {
    numbers.map(|number| (number, true)).collect()
}

fn now(numbers: std::ops::Range<u64>) -> Vec<(u64, bool)> {
    numbers.map(|number| (number, false)).collect()
}

/// Three hosts; the first one sends.
fn three() -> (SimNet, Host, Host, Host) {
    let net = SimNet::new(1, SimConfig { frames_max: 4096, ..SimConfig::default() });
    let (a, b) = (Host::new(&net, 1, &[2, 3], &CLASSES), Host::new(&net, 2, &[1], &CLASSES));
    let c = Host::new(&net, 3, &[1], &CLASSES);
    (net, a, b, c)
}

#[test]
fn a_peer_that_joins_gets_the_past_and_others_do_not() {
    // In line, in one frame, and in several.
    for len in [16, 1000, 5000] {
        let (net, mut a, mut b, mut c) = three();
        let mut source = Keeper::new(&mut a, len);
        let there = b.sink(TOPIC).0;
        join(&mut a, 0, &[0]);
        for _ in 0..10 {
            source.emit();
            run(&net, &mut [&mut a, &mut b, &mut c], 10);
        }
        assert_eq!(got(&there, len), now(0..10), "nothing was emitted before it joined");

        let late = c.sink(TOPIC).0;
        join(&mut a, 1, &[0, 1]);
        run(&net, &mut [&mut a, &mut b, &mut c], 20);
        assert_eq!(got(&late, len), [], "the source was not called yet");
        assert_eq!((source.attend(), source.attend()), (1, 0), "once");
        run(&net, &mut [&mut a, &mut b, &mut c], 40);
        assert_eq!(got(&late, len), past(6..10), "{len}");
        for _ in 0..3 {
            source.emit();
            run(&net, &mut [&mut a, &mut b, &mut c], 10);
        }
        assert_eq!(got(&late, len), now(10..13));
        assert_eq!(got(&there, len), now(10..13));
        assert_eq!((b.count(DatapathCounter::Lost), c.count(DatapathCounter::Lost)), (0, 0));
        assert_eq!(c.count(DatapathCounter::DroppedDuplicate), 0);
        assert_eq!(b.count(DatapathCounter::DroppedDuplicate), 0, "nothing came for it");
        // A sink joins where there is one already.
        let later = c.sink(TOPIC).0;
        join(&mut a, 1, &[0, 1]);
        source.attend();
        run(&net, &mut [&mut a, &mut b, &mut c], 40);
        assert_eq!(got(&later, len), past(9..13), "{len}");
        assert_eq!((got(&late, len), got(&there, len)), (vec![], vec![]));
        let tap = c.tap(TOPIC);
        join(&mut a, 1, &[0, 1]);
        source.attend();
        run(&net, &mut [&mut a, &mut b, &mut c], 40);
        assert_eq!(got(&tap, len), [], "who watches sees what comes from now on");
        run(&net, &mut [&mut a, &mut b, &mut c], 4);
        drop(there);
        assert_eq!(source.port.buffers_in_use(), 0, "all came back");
    }
}

#[test]
fn what_was_in_the_ring_before_is_no_hindrance() {
    let (net, mut a, mut b, mut c) = three();
    let mut source = Keeper::new(&mut a, 16);
    let (there, late) = (b.sink(TOPIC).0, c.sink(TOPIC).0);
    join(&mut a, 0, &[0]);
    for _ in 0..6 {
        source.emit();
    }
    // Six wait in the ring when the second peer joins, as behind each emit of an engine that
    // its application turns. The past follows, and the next value.
    let welcome = Command::Welcome { topic: TOPIC, peer: PeerIndex(1) };
    a.port.send(welcome).unwrap();
    let peers = [0, 1].map(PeerIndex).into_iter().collect();
    a.port.send(Command::SetRoute { topic: TOPIC, domain: world::DOMAIN, peers, local: false }).unwrap();
    run(&net, &mut [&mut a, &mut b, &mut c], 20);
    assert_eq!(got(&late, 16), []);
    source.emit();
    run(&net, &mut [&mut a, &mut b, &mut c], 20);
    assert_eq!(got(&late, 16), [past(2..6), now(6..7)].concat());
    assert_eq!(got(&there, 16), now(0..7));
}

#[test]
fn several_join_at_once_and_one_leaves_meanwhile() {
    let (net, mut a, mut b, mut c) = three();
    let mut source = Keeper::new(&mut a, 16);
    let (one, two) = (b.sink(TOPIC).0, c.sink(TOPIC).0);
    for _ in 0..5 {
        source.emit();
    }
    run(&net, &mut [&mut a, &mut b, &mut c], 10);
    join(&mut a, 0, &[0]);
    join(&mut a, 1, &[0, 1]);
    assert_eq!(source.attend(), 1, "one answer does for both");
    a.route(TOPIC, &[1], false);
    run(&net, &mut [&mut a, &mut b, &mut c], 20);
    assert_eq!((got(&one, 16), got(&two, 16)), (vec![], past(1..5)));
    // The answer is there, but its end has not gone, when another joins.
    join(&mut a, 1, &[1]);
    source.attend();
    join(&mut a, 0, &[0, 1]);
    source.attend();
    run(&net, &mut [&mut a, &mut b, &mut c], 20);
    assert_eq!((got(&one, 16), got(&two, 16)), (past(1..5), vec![]));
    source.emit();
    run(&net, &mut [&mut a, &mut b, &mut c], 20);
    assert_eq!((got(&one, 16), got(&two, 16)), (now(5..6), now(5..6)));
}

#[test]
fn a_source_that_comes_to_a_runtime_with_peers_brings_its_past() {
    let (net, mut a, mut b, _c) = three();
    let sink = b.sink(TOPIC).0;
    let mut plain = a.source(TOPIC, Lane::LAST, &CLASSES);
    a.route(TOPIC, &[0], false);
    assert_eq!(plain.replay(&[]), 0, "nobody asks a source that keeps nothing");
    let mut source = Keeper::new(&mut a, 16);
    // As after a restart of its runtime: the values are older than the connection.
    source.past.extend([(7, pattern(7, 16)), (8, pattern(8, 16))]);
    assert_eq!(source.attend(), 1);
    run(&net, &mut [&mut a, &mut b], 20);
    assert_eq!(got(&sink, 16), past(7..9));
    plain = Keeper::new(&mut a, 16).port;
    assert_eq!(plain.replay(&[]), 1, "asked, it has nothing");
    run(&net, &mut [&mut a, &mut b], 20);
    assert_eq!(got(&sink, 16), []);
}

/// Whatever its client claims, messages marked as of the past go to newcomers alone.
#[test]
fn a_liar_reaches_nobody_with_the_past() {
    let (net, mut a, mut b, mut c) = three();
    let source = Keeper::new(&mut a, 16);
    let (there, late) = (b.sink(TOPIC).0, c.sink(TOPIC).0);
    a.route(TOPIC, &[0], false);
    for number in [3, 0, 9] {
        assert!(source.port.emit_copy(&pattern(0, 16), word(number, true)).unwrap().is_sent());
    }
    run(&net, &mut [&mut a, &mut b, &mut c], 20);
    assert!(there.consume().unwrap().is_none() && late.consume().unwrap().is_none());
    assert_eq!(a.count(DatapathCounter::FramesSent), 0);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Emit,
    Attend,
    Turn,
    /// A sink joins at a host, and the source's host hears of it.
    Join(usize),
    /// The last sinks of a host leave.
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Emit),
        2 => Just(Step::Attend),
        4 => Just(Step::Turn),
        2 => (0..2_usize).prop_map(Step::Join),
        1 => (0..2_usize).prop_map(Step::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Peers and sinks come and go while values are sent, over a network that loses,
    /// duplicates and reorders: no sink gets a value twice or behind a newer one, and those
    /// that are there in the end have the last value after a quiet moment.
    #[test]
    fn whatever_happens_no_value_comes_twice_or_late(
        steps in prop::collection::vec(step(), 1..120), seed: u64, is_faulty: bool,
    ) {
        let faults = Faults {
            loss: Chance::percent(if is_faulty { 5 } else { 0 }),
            duplication: Chance::percent(if is_faulty { 10 } else { 0 }),
            ..Faults::NONE
        };
        let net = SimNet::new(seed, SimConfig { frames_max: 4096, faults, ..SimConfig::default() });
        let mut a = Host::new(&net, 1, &[2, 3], &CLASSES);
        let mut others = [2, 3].map(|own| Host::new(&net, own, &[1], &CLASSES));
        let mut source = Keeper::new(&mut a, 16);
        let mut sinks: Vec<(usize, SinkPort, Vec<u64>)> = Vec::new();
        let mut route: Vec<u16> = Vec::new();
        let mut last = None;
        let turn = |a: &mut Host, others: &mut [Host; 2], count| {
            let [b, c] = others;
            run(&net, &mut [a, b, c], count);
        };
        let look = |sinks: &mut Vec<(usize, SinkPort, Vec<u64>)>| {
            for (_, sink, all) in sinks.iter_mut() {
                all.extend(got(sink, 16).iter().map(|(number, _)| *number));
                assert!(all.is_sorted_by(|a, b| a < b), "{all:?}");
            }
        };
        for step in steps {
            match step {
                Step::Emit => last = Some(source.emit()),
                Step::Attend => {
                    source.attend();
                }
                Step::Turn => turn(&mut a, &mut others, 3),
                Step::Join(host) => {
                    if sinks.iter().filter(|(of, ..)| *of == host).count() < 8 {
                        sinks.push((host, others[host].sink(TOPIC).0, Vec::new()));
                        route.push(host as u16);
                        route.sort_unstable();
                        route.dedup();
                        join(&mut a, host as u16, &route);
                    }
                }
                Step::Leave(host) => {
                    route.retain(|of| *of != host as u16);
                    a.route(TOPIC, &route, false);
                }
            }
            look(&mut sinks);
        }
        turn(&mut a, &mut others, 30);
        for host in route.clone() {
            join(&mut a, host, &route);
        }
        source.attend();
        turn(&mut a, &mut others, 30);
        look(&mut sinks);
        for (host, _, all) in sinks.iter().filter(|(host, ..)| route.contains(&(*host as u16))) {
            prop_assert!(is_faulty || all.last() == last.as_ref(), "{}: {:?} of {:?}", host, all, last);
        }
    }
}
