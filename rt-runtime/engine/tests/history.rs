//! The past for peers that join: what a source keeps reaches their sinks, once and in order,
//! and nobody else's.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::time::Clock;
use insane_core::{ConnId, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, SourceId, SourceInstant, Stamp};
use insane_engine::Command;
use insane_shm::port::{Earlier, SinkPort, SourcePort};
use insane_sim::{Chance, Faults, SimConfig, SimNet};
use insane_wire::data::{DataHeader, Flags};
use insane_wire::reliable::{Body, Position, Sync};
use proptest::prelude::*;
use std::collections::VecDeque;
use world::{Host, TOPIC, data_header, pattern, run};

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
        Keeper::of(host, len, false)
    }

    fn of(host: &mut Host, len: usize, reliable: bool) -> Self {
        host.keeps = true;
        let port = host.source_of((reliable, reliable), TOPIC, Lane::LAST, &CLASSES).0;
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
    let peers = [0, 1].map(|peer| PeerIndex(peer).into()).into_iter().collect();
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

/// A sink: its host, when it leaves, its connection, and what it has got.
type Joined = (usize, usize, ConnId, SinkPort, Vec<(u64, bool)>);

/// Two hosts that receive from a reliable source of the first one, over such a network.
fn reliable(seed: u64, len: usize, faults: Faults) -> (SimNet, [Host; 3], Keeper) {
    let net = SimNet::new(seed, SimConfig { frames_max: 4096, faults, ..SimConfig::default() });
    let mut a = Host::new(&net, 1, &[2, 3], &CLASSES);
    let (b, c) = (Host::new(&net, 2, &[1], &CLASSES), Host::new(&net, 3, &[1], &CLASSES));
    let source = Keeper::of(&mut a, len, true);
    (net, [a, b, c], source)
}

/// The same, where a sink of the second host has got ten values.
fn under_way(seed: u64, len: usize, faults: Faults) -> (SimNet, [Host; 3], Keeper, SinkPort) {
    let (net, mut hosts, mut source) = reliable(seed, len, faults);
    let sink = hosts[1].sink(TOPIC).0;
    join(&mut hosts[0], 0, &[0]);
    source.attend();
    turns(&net, &mut hosts, 50);
    for _ in 0..10 {
        emit_when_possible(&net, &mut hosts, &mut source);
    }
    assert_eq!(all_of(&net, &mut hosts, &sink, len, 10), now(0..10), "{len}");
    (net, hosts, source, sink)
}

fn turns(net: &SimNet, hosts: &mut [Host; 3], count: usize) {
    let [a, b, c] = hosts;
    run(net, &mut [a, b, c], count);
}

/// Emits once there is room.
fn emit_when_possible(net: &SimNet, hosts: &mut [Host; 3], source: &mut Keeper) -> u64 {
    for _ in 0..20_000 {
        source.attend();
        let sequence = source.port.next_sequence();
        let value = pattern(sequence, source.len);
        if let Ok(mut buffer) = source.port.get_buffer(source.len) {
            buffer.copy_from_slice(&value);
            if source.port.emit(buffer, word(sequence, false)).is_sent() {
                if source.past.len() == KEPT {
                    source.past.pop_front();
                }
                source.past.push_back((sequence, value));
                return sequence;
            }
        }
        turns(net, hosts, 1);
    }
    panic!("no room for a value");
}

/// Turns until nothing more comes; all that came.
fn all_of(net: &SimNet, hosts: &mut [Host; 3], sink: &SinkPort, len: usize, count: usize) -> Vec<(u64, bool)> {
    let mut all = Vec::new();
    for _ in 0..20_000 {
        turns(net, hosts, 1);
        all.extend(got(sink, len));
        if all.len() >= count {
            break;
        }
    }
    turns(net, hosts, 100);
    all.extend(got(sink, len));
    all
}

const LOSSY: Faults = Faults {
    loss: Chance::percent(10),
    duplication: Chance::percent(10),
    reordering: Chance::percent(10),
    ..Faults::NONE
};

/// In line, in one frame and in several; over a network that keeps everything, and one that
/// does not: the past, then what follows it, each once, in order, without a gap.
#[test]
fn a_peer_that_joins_a_reliable_stream_gets_the_past_and_all_that_follows() {
    for (seed, (len, faults)) in
        [16, 1000, 5000].into_iter().flat_map(|len| [(len, Faults::NONE), (len, LOSSY)]).enumerate()
    {
        let (net, mut hosts, mut source, there) = under_way(seed as u64, len, faults);

        let late = hosts[2].sink(TOPIC).0;
        join(&mut hosts[0], 1, &[0, 1]);
        turns(&net, &mut hosts, 50);
        assert_eq!(got(&late, len), [], "the source was not called yet");
        assert_eq!((source.attend(), source.attend()), (1, 0), "once");
        for _ in 0..10 {
            emit_when_possible(&net, &mut hosts, &mut source);
        }
        let expected = [past(6..10), now(10..20)].concat();
        assert_eq!(all_of(&net, &mut hosts, &late, len, expected.len()), expected, "{len}");
        assert_eq!(all_of(&net, &mut hosts, &there, len, 10), now(10..20), "{len}");
        assert_eq!((hosts[1].count(DatapathCounter::Lost), hosts[2].count(DatapathCounter::Lost)), (0, 0));
        turns(&net, &mut hosts, 2000);
        source.attend();
        assert_eq!(source.port.buffers_in_use(), 0, "all came back: {len}");
    }
}

/// A sink that joins where there is one gets the same, and the other notices nothing.
#[test]
fn a_second_sink_of_a_host_gets_the_past_of_a_reliable_stream_and_all_that_follows() {
    for (seed, (len, faults)) in
        [16, 1000, 5000].into_iter().flat_map(|len| [(len, Faults::NONE), (len, LOSSY)]).enumerate()
    {
        let (net, mut hosts, mut source, first) = under_way(seed as u64, len, faults);

        let second = hosts[1].sink(TOPIC).0;
        join(&mut hosts[0], 0, &[0]);
        turns(&net, &mut hosts, 50);
        assert_eq!(got(&second, len), [], "the source was not called yet");
        assert_eq!((source.attend(), source.attend()), (1, 0), "once");
        assert_eq!(all_of(&net, &mut hosts, &second, len, KEPT), past(6..10), "without another value: {len}");
        // Two more, and one that only watches, while values go on coming.
        for _ in 0..3 {
            emit_when_possible(&net, &mut hosts, &mut source);
        }
        let (third, fourth, tap) = (hosts[1].sink(TOPIC).0, hosts[1].sink(TOPIC).0, hosts[1].tap(TOPIC));
        join(&mut hosts[0], 0, &[0]);
        for _ in 0..10 {
            emit_when_possible(&net, &mut hosts, &mut source);
        }
        let of_third = all_of(&net, &mut hosts, &third, len, 14);
        assert_eq!((of_third[0].1, of_third.last()), (true, Some(&(22, false))), "{of_third:?}");
        assert!(of_third.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1 && pair[0].1 >= pair[1].1), "{of_third:?}");
        assert!(of_third.iter().filter(|(_, is_past)| *is_past).count() <= KEPT, "{of_third:?}");
        assert_eq!(all_of(&net, &mut hosts, &fourth, len, 14), of_third, "one recap for both");
        assert_eq!(all_of(&net, &mut hosts, &second, len, 13), now(10..23), "{len}");
        assert_eq!(all_of(&net, &mut hosts, &first, len, 13), now(10..23), "{len}");
        assert!(got(&tap, len).iter().all(|(_, is_past)| !is_past), "who watches sees what comes from now on");
        assert_eq!((hosts[1].count(DatapathCounter::Lost), hosts[1].count(DatapathCounter::Evictions)), (0, 0));
        turns(&net, &mut hosts, 2000);
        source.attend();
        assert_eq!(source.port.buffers_in_use(), 0, "all came back: {len}");
    }
}

/// What is lost on its way to the host when a sink joins there comes with all that follows, and is
/// of now to the sink, too; of what its host has already it gets the past by itself.
#[test]
fn what_has_not_come_to_its_host_a_further_sink_gets_with_the_flow() {
    for lost in 0..8 {
        let (net, mut hosts, mut source, first) = under_way(10, 16, Faults::NONE);
        let arrived = 20 - lost;
        for _ in 10..arrived {
            emit_when_possible(&net, &mut hosts, &mut source);
            turns(&net, &mut hosts, 10);
        }
        net.set_partitioned(world::address(1), world::address(2), true);
        for _ in arrived..20 {
            source.emit();
            hosts[0].engine.turn();
        }
        net.set_partitioned(world::address(1), world::address(2), false);
        let second = hosts[1].sink(TOPIC).0;
        join(&mut hosts[0], 0, &[0]);
        source.attend();
        let from = arrived.min(20 - KEPT as u64);
        let expected = [past(from..arrived), now(arrived..20)].concat();
        assert_eq!(all_of(&net, &mut hosts, &second, 16, expected.len()), expected, "{lost}");
        source.emit();
        assert_eq!(all_of(&net, &mut hosts, &second, 16, 1), now(20..21), "{lost}");
        assert_eq!(all_of(&net, &mut hosts, &first, 16, 11), now(10..21), "{lost}");
        assert_eq!((hosts[1].count(DatapathCounter::Lost), hosts[0].count(DatapathCounter::Evictions)), (0, 0));
    }
}

/// A receiver forgets a flow of which it hears nothing for a minute, as of one that is at rest. Its
/// sinks miss nothing for that, and others still get the past.
#[test]
fn after_a_long_silence_a_flow_goes_on_and_a_new_sink_gets_the_past() {
    for len in [16, 5000] {
        let (net, mut hosts, mut source, first) = under_way(9, len, Faults::NONE);
        let silence = |hosts: &mut [Host; 3]| {
            turns(&net, hosts, 2000);
            net.advance(Nanos::from_secs(61));
            for host in &mut *hosts {
                host.engine.housekeeping();
            }
            turns(&net, hosts, 10);
        };
        silence(&mut hosts);
        for next in 10..14 {
            emit_when_possible(&net, &mut hosts, &mut source);
            assert_eq!(all_of(&net, &mut hosts, &first, len, 1), now(next..next + 1), "{len}");
        }
        silence(&mut hosts);
        let second = hosts[1].sink(TOPIC).0;
        join(&mut hosts[0], 0, &[0]);
        turns(&net, &mut hosts, 50);
        source.attend();
        assert_eq!(all_of(&net, &mut hosts, &second, len, KEPT), past(10..14), "{len}");
        emit_when_possible(&net, &mut hosts, &mut source);
        assert_eq!(all_of(&net, &mut hosts, &second, len, 1), now(14..15), "{len}");
        assert_eq!(all_of(&net, &mut hosts, &first, len, 1), now(14..15), "{len}");
        for host in &hosts[..2] {
            let counts = [DatapathCounter::Lost, DatapathCounter::Evictions].map(|counter| host.count(counter));
            assert_eq!(counts, [0, 0], "{len}");
        }
    }
}

/// Where the source never answers, or the network takes all that it says of it, a sink waits its
/// time and then hears what comes; others do not wait with it.
#[test]
fn a_sink_that_waits_for_a_past_that_does_not_come_waits_a_second() {
    let (net, mut hosts, mut source) = reliable(6, 16, Faults::NONE);
    let first = hosts[1].sink(TOPIC).0;
    join(&mut hosts[0], 0, &[0]);
    source.attend();
    turns(&net, &mut hosts, 50);
    source.emit();
    assert_eq!(all_of(&net, &mut hosts, &first, 16, 1), now(0..1));
    // Its host knows of the second sink, that of the source never hears of it.
    let second = hosts[1].sink(TOPIC).0;
    let (mut heard, mut emitted, mut missed) = (Vec::new(), 1, None);
    let (clock, begin) = (net.clock(), net.clock().now());
    while clock.now().since(begin) < Nanos::from_millis(1200) {
        source.emit();
        emitted += 1;
        assert_eq!(all_of(&net, &mut hosts, &first, 16, 1), now(emitted - 1..emitted));
        let after = clock.now().since(begin);
        if missed.is_none()
            && let Some(message) = second.consume().unwrap()
        {
            missed = Some(u64::from(message.lost()));
            heard.push((after, (message.sequence(), false)));
        }
        heard.extend(got(&second, 16).into_iter().map(|value| (after, value)));
    }
    let (after, (from, _)) = heard[0];
    assert_eq!(missed, Some(from - 1), "it is told what was kept from it");
    assert!(after >= Nanos::from_millis(1000), "{after:?}");
    assert_eq!(heard.iter().map(|(_, value)| *value).collect::<Vec<_>>(), now(from..emitted));
}

/// The network parts in the middle of a recap: whoever got a part of it is told what it misses,
/// and hears what comes.
#[test]
fn who_got_a_part_of_the_past_is_told_of_the_rest() {
    let (net, mut hosts, mut source) = reliable(7, 5000, Faults::NONE);
    let first = hosts[1].sink(TOPIC).0;
    join(&mut hosts[0], 0, &[0]);
    source.attend();
    turns(&net, &mut hosts, 50);
    for _ in 0..8 {
        emit_when_possible(&net, &mut hosts, &mut source);
    }
    assert_eq!(all_of(&net, &mut hosts, &first, 5000, 8), now(0..8));
    let second = hosts[1].sink(TOPIC).0;
    join(&mut hosts[0], 0, &[0]);
    source.attend();
    let to_second = (world::address(1), world::address(2));
    let mut part = Vec::new();
    for _ in 0..200 {
        // A frame is lost of what follows the first value.
        hosts[0].engine.turn();
        hosts[1].engine.turn();
        net.advance(Nanos::from_micros(1));
        part.extend(got(&second, 5000));
        if !part.is_empty() {
            net.set_partitioned(to_second.0, to_second.1, true);
        }
    }
    // What was under way still arrives.
    let until = net.clock().now() + Nanos::from_millis(1500);
    while net.clock().now() < until {
        turns(&net, &mut hosts, 10);
    }
    part.extend(got(&second, 5000));
    net.set_partitioned(to_second.0, to_second.1, false);
    source.emit();
    let until = net.clock().now() + Nanos::from_millis(50);
    while net.clock().now() < until {
        turns(&net, &mut hosts, 10);
    }
    assert_eq!(got(&first, 5000), now(8..9));
    let message = second.consume().unwrap().expect("it hears what comes");
    assert_eq!((message.sequence(), u64::from(message.lost())), (8, 4 - part.len() as u64), "after {part:?}");
    assert_eq!(part, past(4..4 + part.len() as u64));
    drop(message);
    turns(&net, &mut hosts, 200);
    source.attend();
    assert_eq!(source.port.buffers_in_use(), 0, "all came back");
}

/// What is not acknowledged by others when one joins is of its past, too.
#[test]
fn the_past_of_a_reliable_stream_may_be_under_way_to_others() {
    let (net, mut hosts, mut source) = reliable(3, 1000, Faults::NONE);
    let (slow, late) = (hosts[1].sink(TOPIC).0, hosts[2].sink(TOPIC).0);
    join(&mut hosts[0], 0, &[0]);
    source.attend();
    turns(&net, &mut hosts, 20);
    // The receiver stands still: its host is not turned.
    for _ in 0..6 {
        source.emit();
        hosts[0].engine.turn();
    }
    join(&mut hosts[0], 1, &[0, 1]);
    source.emit();
    assert_eq!(all_of(&net, &mut hosts, &late, 1000, 5), [past(2..6), now(6..7)].concat());
    assert_eq!(all_of(&net, &mut hosts, &slow, 1000, 7), now(0..7));
}

#[test]
fn values_from_before_anybody_listened_reach_a_reliable_sink() {
    let (net, mut hosts, mut source) = reliable(4, 16, Faults::NONE);
    // As before the source had a connection: the values are older than it, and so are its numbers.
    for _ in 0..3 {
        source.emit();
    }
    turns(&net, &mut hosts, 20);
    let sink = hosts[1].sink(TOPIC).0;
    join(&mut hosts[0], 0, &[0]);
    source.attend();
    assert_eq!(all_of(&net, &mut hosts, &sink, 16, 3), past(0..3));
    source.emit();
    assert_eq!(all_of(&net, &mut hosts, &sink, 16, 1), now(3..4));
    // The last sink goes, another comes: for it, all of that is of the past.
    let conn = ConnId(hosts[1].next);
    assert!(matches!(hosts[1].command(Command::RemoveSink(conn)), Command::Removed { .. }));
    hosts[0].route(TOPIC, &[], false);
    turns(&net, &mut hosts, 20);
    let next = hosts[1].sink(TOPIC).0;
    join(&mut hosts[0], 0, &[0]);
    source.emit();
    assert_eq!(all_of(&net, &mut hosts, &next, 16, 5), [past(0..4), now(4..5)].concat());
}

/// A source that keeps values may have a connection that began with them.
#[test]
fn a_connection_of_a_reliable_source_may_begin_with_the_past() {
    let (net, mut hosts, _first) = reliable(5, 16, Faults::NONE);
    let sink = hosts[1].sink(TOPIC).0;
    hosts[0].route(TOPIC, &[0], false);
    let mut source = Keeper::of(&mut hosts[0], 16, true);
    // Values that are not the last ones say nothing of what follows them.
    source.past.push_back((7, pattern(7, 16)));
    assert_eq!(source.attend(), 1);
    turns(&net, &mut hosts, 50);
    source.past.clear();
    source.emit();
    assert_eq!(all_of(&net, &mut hosts, &sink, 16, 1), now(0..1), "what follows arrives all the same");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Hosts join a reliable stream, and further sinks at them, at any time, over a network that
    /// loses, duplicates and reorders; some leave: from its first value on each sink gets every
    /// one, once, in order, and those of the past are marked.
    #[test]
    fn whenever_a_sink_joins_nothing_is_missing_behind_its_first_value(
        emits in prop::collection::vec((0..4_usize, 0..30_usize), 1..40),
        first in (0..40_usize, 0..40_usize),
        more in prop::collection::vec((0..2_usize, 0..40_usize, 1..60_usize), 0..6),
        seed: u64,
        is_faulty: bool,
    ) {
        let faults = Faults {
            loss: Chance::percent(if is_faulty { 5 } else { 0 }),
            duplication: Chance::percent(if is_faulty { 10 } else { 0 }),
            reordering: Chance::percent(if is_faulty { 5 } else { 0 }),
            ..Faults::NONE
        };
        let (net, mut hosts, mut source) = reliable(seed, 200, faults);
        // Host, when it joins, when it leaves: the first ones stay.
        let joins: Vec<_> = [(0, first.0, usize::MAX), (1, first.1, usize::MAX)].into_iter().chain(more).collect();
        let mut sinks: Vec<Joined> = Vec::new();
        let mut route = Vec::new();
        let mut last = None;
        let look = |sinks: &mut Vec<Joined>| {
            sinks.iter_mut().for_each(|(.., sink, all)| all.extend(got(sink, 200)));
        };
        for (step, (count, rest)) in emits.iter().enumerate() {
            for (host, _, leaves) in joins.iter().filter(|(_, at, _)| *at.min(&(emits.len() - 1)) == step) {
                let sink = hosts[host + 1].sink(TOPIC).0;
                sinks.push((*host, *leaves, ConnId(hosts[host + 1].next), sink, Vec::new()));
                route.push(*host as u16);
                route.sort_unstable();
                route.dedup();
                join(&mut hosts[0], *host as u16, &route);
            }
            for _ in 0..*count {
                last = Some(emit_when_possible(&net, &mut hosts, &mut source));
            }
            turns(&net, &mut hosts, *rest);
            look(&mut sinks);
            // The last sink of a host does not go: another test has that.
            while let Some(at) = sinks.iter().position(|(_, leaves, ..)| *leaves == step)
                && sinks.iter().filter(|(host, ..)| *host == sinks[at].0).count() > 1
            {
                let (host, _, conn, _, all) = sinks.remove(at);
                let gone = hosts[host + 1].command(Command::RemoveSink(conn));
                let is_removed = matches!(gone, Command::Removed { .. });
                prop_assert!(is_removed);
                prop_assert!(all.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "{:?}", all);
            }
        }
        for _ in 0..400 {
            // Who joined while a recap was under way is asked for once more.
            source.attend();
            turns(&net, &mut hosts, 10);
            look(&mut sinks);
        }
        for (.., all) in &sinks {
            prop_assert!(all.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "{:?}", all);
            prop_assert!(all.windows(2).all(|pair| pair[0].1 || !pair[1].1), "the past comes first: {:?}", all);
            prop_assert_eq!(all.last().map(|(number, _)| *number), last);
            let kept = all.iter().filter(|(_, is_past)| *is_past).count();
            // A source keeps four; one that joins while they are under way to others gets no more.
            prop_assert!(kept <= KEPT, "{:?}", all);
        }
    }
}

/// On an isolated stream local messages go through the datapath, and so does the past: to the
/// sinks that joined since, once, and to nobody else, reliable or not.
#[test]
fn sinks_of_isolated_streams_get_the_past() {
    for is_reliable in [false, true] {
        for len in [16, 1000, 5000] {
            let (net, mut a, mut b, mut c) = three();
            let early = a.sink(TOPIC).0;
            a.route(TOPIC, &[], true);
            let mut source = Keeper::of(&mut a, len, is_reliable);
            source.attend();
            let mut step = |a: &mut Host| run(&net, &mut [a, &mut b, &mut c], 20);
            step(&mut a);
            for _ in 0..6 {
                source.emit();
                step(&mut a);
            }
            assert_eq!(got(&early, len), now(0..6));
            let late = a.sink(TOPIC).0;
            step(&mut a);
            assert_eq!(got(&late, len), [], "the source was not called yet");
            assert_eq!(source.attend(), 1);
            step(&mut a);
            assert_eq!(got(&late, len), past(2..6), "{len}, reliable: {is_reliable}");
            // Two at once, one of them while the answer to the other is in the ring.
            let (third, tap) = (a.sink(TOPIC).0, a.tap(TOPIC));
            assert_eq!(source.attend(), 1);
            let fourth = a.sink(TOPIC).0;
            step(&mut a);
            source.emit();
            step(&mut a);
            let expected = [past(2..6), now(6..7)].concat();
            assert_eq!(got(&third, len), expected);
            assert_eq!(got(&fourth, len), expected);
            assert_eq!(got(&tap, len), now(6..7), "who watches sees what comes from now on");
            assert_eq!((got(&early, len), got(&late, len)), (now(6..7), now(6..7)));
            step(&mut a);
            source.attend();
            assert_eq!(source.port.buffers_in_use(), 0, "all came back");
        }
    }
}

#[test]
fn a_recap_that_was_lost_is_counted_and_asked_for_again() {
    let (net, mut a, mut b, mut c) = three();
    let mut source = Keeper::of(&mut a, 16, true);
    let early = b.sink(TOPIC).0;
    join(&mut a, 0, &[0]);
    for _ in 0..5 {
        source.emit();
        run(&net, &mut [&mut a, &mut b, &mut c], 20);
    }
    assert_eq!(got(&early, 16), now(0..5));
    let dead = Faults { partitioned: true, ..Faults::NONE };
    net.set_faults(world::address(1), world::address(2), dead);
    let late = b.sink(TOPIC).0;
    join(&mut a, 0, &[0]);
    run(&net, &mut [&mut a, &mut b, &mut c], 20);
    assert_eq!(source.attend(), 1);
    for _ in 0..60 {
        run(&net, &mut [&mut a, &mut b, &mut c], 10);
        net.advance(Nanos::from_millis(10));
    }
    assert_eq!((a.count(DatapathCounter::RecapsGivenUp), got(&late, 16)), (1, vec![]));
    net.set_faults(world::address(1), world::address(2), Faults::NONE);
    source.attend();
    run(&net, &mut [&mut a, &mut b, &mut c], 400);
    assert_eq!(got(&late, 16), past(1..5));
    source.emit();
    run(&net, &mut [&mut a, &mut b, &mut c], 100);
    assert_eq!((got(&early, 16), got(&late, 16)), (now(5..6), now(5..6)));
    assert_eq!(a.count(DatapathCounter::RecapsGivenUp), 1);
}

/// A host comes back in another life, and hears of a flow what was for its last one, before it has a
/// sink and the source is attached anew for that: the sink gets the past.
#[test]
fn what_is_left_of_an_earlier_attachment_takes_the_past_from_nobody() {
    let cases = [2, 22, 25].into_iter().flat_map(|begun_at| [(begun_at, false), (begun_at, true)]);
    for (begun_at, is_early) in cases {
        let net = SimNet::new(1, SimConfig::default());
        let mut b = Host::new(&net, 2, &[1], &CLASSES);
        drop(Host::new(&net, 1, &[2], &CLASSES));
        let own = (HostId(1), Incarnation(1));
        let hear = |b: &mut Host, bytes: &[u8]| {
            let _ = net.inject(world::address(1), world::address(2), Lane::LAST, bytes);
            run(&net, &mut [b], 200);
        };
        let sync = |token, base| {
            let header = DataHeader::reliable(own, (TOPIC.key, TOPIC.channel), SourceId(1));
            let sent = Position::start_of(25);
            let body = Body::Sync(Sync { token, base, sent, fresh: false, keeps: true, recap: 0, past: 0 });
            [&header.encode()[..], &body.encode()[..]].concat()
        };
        let early = is_early.then(|| b.sink(TOPIC).0);
        hear(&mut b, &sync(1, begun_at));
        let sink = early.unwrap_or_else(|| b.sink(TOPIC).0);
        // Once more, when somebody listens.
        hear(&mut b, &sync(1, begun_at));
        hear(&mut b, &sync(2, 22));
        let frame = |sequence| {
            let header = DataHeader {
                flags: Flags::RELIABLE,
                source_instant: word(sequence, true),
                ..data_header((1, 1), sequence, 16)
            };
            [&header.encode()[..], &pattern(sequence, 16)].concat()
        };
        (22..25).for_each(|sequence| hear(&mut b, &frame(sequence)));
        assert_eq!(got(&sink, 16), past(22..25), "begun at {begun_at}, early: {is_early}");
        // Who got them gets them from no further attachment.
        hear(&mut b, &sync(3, 22));
        hear(&mut b, &frame(24));
        assert_eq!(got(&sink, 16), []);
    }
}
