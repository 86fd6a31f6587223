//! Reliable streams between engines over a simulated network, in virtual time.

mod world;

use insane_core::counters::{DatapathCounter, TurnCounter};
use insane_core::{ConnId, HostId, Incarnation, Lane, Nanos, PeerIndex, SourceId};
use insane_engine::{Command, Notice};
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{Chance, Faults, SimConfig, SimNet};
use insane_wire::data::DataHeader;
use insane_wire::reliable::{Ack, Body, Position};
use world::{DEPTH, Host, TOPIC, address, pair, pass, pattern, run};

const CLASSES: [(u32, u32); 2] = [(2048, 64), (20_000, 16)];
/// What an engine uses unless it is told otherwise.
const EVICT_AFTER: Nanos = Nanos::from_millis(500);

/// Emits as long as it is let; the number of the next message.
fn emit_all(source: &SourcePort, upto: u64) -> u64 {
    while source.next_sequence() < upto {
        let sequence = source.next_sequence();
        let len = [8, 0, 700, 96, 5_000, 20_000, 1_409][sequence as usize % 7];
        let Ok(mut buffer) = source.get_buffer(len) else { break };
        buffer.copy_from_slice(&pattern(sequence, len));
        if !source.emit(buffer, 0).is_sent() {
            break;
        }
    }
    source.next_sequence()
}

/// Consumes all there is. Checks order and content, and that gaps are told; returns how
/// many messages came and how many were told as lost.
struct Reader {
    next: Option<u64>,
    got: u64,
    lost: u64,
}

impl Reader {
    const fn new() -> Self {
        Reader { next: None, got: 0, lost: 0 }
    }

    fn read(&mut self, sink: &SinkPort) {
        while let Some(message) = sink.consume().expect("nobody lies") {
            let (sequence, lost) = (message.sequence(), u64::from(message.lost()));
            assert_eq!(message.bytes(), Some(&pattern(sequence, message.len())[..]), "torn");
            if let Some(next) = self.next {
                assert_eq!(sequence, next + lost, "exactly once, in order, or told as lost");
            }
            self.next = Some(sequence + 1);
            self.got += 1;
            self.lost += lost;
        }
    }
}

fn advance(net: &SimNet, hosts: &mut [&mut Host], time: Nanos) {
    for _ in 0..time.0 / 20_000 {
        run(net, hosts, 1);
        net.advance(Nanos::from_micros(10));
    }
}

fn settle(net: &SimNet, hosts: &mut [&mut Host], source: &SourcePort) {
    for _ in 0..20 {
        advance(net, hosts, Nanos::from_millis(10));
        for host in hosts.iter_mut() {
            host.engine.housekeeping();
        }
    }
    assert!(hosts.iter().all(|host| !host.engine.is_repairing()), "it comes to rest");
    assert_eq!(source.buffers_in_use(), 0, "the sender has all its buffers");
}

#[test]
fn under_faults_everything_arrives_exactly_once_and_in_order() {
    let mut repairs = 0;
    for seed in 0..12 {
        let net = SimNet::new(seed, SimConfig { frames_max: 8192, ..SimConfig::default() });
        let (mut a, mut b) = pair(&net, &CLASSES);
        let faults = Faults {
            delay: Nanos::from_micros(50),
            jitter: Nanos::from_micros(10),
            loss: Chance::per_million(10_000 * (seed as u32 % 4)),
            duplication: Chance::per_million(30_000),
            reordering: Chance::per_million(5_000),
            reorder_by: Nanos::from_micros(200),
            ..Faults::NONE
        };
        net.set_faults(address(1), address(2), faults);
        net.set_faults(address(2), address(1), faults);
        let source = a.reliable_source(TOPIC, &CLASSES);
        let (sink, _) = b.sink(TOPIC);
        a.route(TOPIC, &[0], false);
        let mut reader = Reader::new();
        let mut turns = 0;
        while reader.got < 1_000 {
            emit_all(&source, 1_000);
            run(&net, &mut [&mut a, &mut b], 4);
            reader.read(&sink);
            turns += 4;
            assert!(turns < 400_000, "seed {seed}: {} of 1000 after {turns} turns", reader.got);
        }
        assert_eq!((reader.next, reader.lost), (Some(1_000), 0), "seed {seed}");
        settle(&net, &mut [&mut a, &mut b], &source);
        assert!(sink.consume().unwrap().is_none());
        assert_eq!(a.count(DatapathCounter::Evictions) + b.count(DatapathCounter::Evictions), 0);
        assert_eq!(b.count(DatapathCounter::MessagesToSinks), 1_000);
        assert_eq!(a.turn_counters.get(TurnCounter::FramesMalformed as usize), 0);
        if seed % 4 > 0 {
            assert!(b.count(DatapathCounter::Naks) > 0);
        }
        repairs += a.count(DatapathCounter::Repairs);
    }
    assert!(repairs > 1_000, "{repairs}");
}

#[test]
fn the_last_message_is_repaired_without_any_after_it() {
    let net = SimNet::new(1, SimConfig::default());
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    emit_all(&source, 1);
    run(&net, &mut [&mut a, &mut b], 20);
    assert!(sink.consume().unwrap().is_some());
    net.set_partitioned(address(1), address(2), true);
    emit_all(&source, 2);
    run(&net, &mut [&mut a, &mut b], 20);
    net.set_partitioned(address(1), address(2), false);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(5));
    assert_eq!(sink.consume().unwrap().expect("repaired").sequence(), 1);
    settle(&net, &mut [&mut a, &mut b], &source);
}

#[test]
fn a_slow_sink_refuses_emits_and_loses_nothing() {
    let net = SimNet::new(2, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let mut reader = Reader::new();
    let total = 3_000;
    let mut refused = 0;
    while reader.got < total {
        // The sink sleeps for 100 ms, then takes all it finds.
        for _ in 0..10 {
            refused += u64::from(emit_all(&source, total) < total);
            advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(10));
        }
        let before = reader.got;
        reader.read(&sink);
        assert!(reader.got > before, "it goes on");
    }
    assert!(refused > 20);
    assert_eq!((reader.got, reader.lost), (total, 0));
    let evictions = a.count(DatapathCounter::Evictions) + b.count(DatapathCounter::Evictions);
    assert_eq!((evictions, b.count(DatapathCounter::DroppedRingFull)), (0, 0));
    settle(&net, &mut [&mut a, &mut b], &source);
}

#[test]
fn a_sink_that_never_consumes_is_put_out_and_told() {
    let net = SimNet::new(3, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let classes = [(2048, 700), (20_000, 64)];
    let (mut a, mut b) = pair(&net, &classes);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let (slow, _) = b.sink(TOPIC);
    let (quick, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let mut reader = Reader::new();
    let total = 2_000;
    for _ in 0..400 {
        emit_all(&source, total);
        advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(2));
        reader.read(&quick);
    }
    assert_eq!((reader.got, reader.lost), (total, 0), "the quick one gets everything");
    assert_eq!(a.count(DatapathCounter::Evictions), 0, "the host is not put out with its sink");
    assert_eq!(b.count(DatapathCounter::Evictions), 1);
    let mut late = Reader::new();
    late.read(&slow);
    assert!(late.got >= 8 && late.got <= u64::from(DEPTH) && late.lost == 0, "{}", late.got);
    // It takes part again, and the next message says what it missed.
    emit_all(&source, total + 500);
    for _ in 0..400 {
        emit_all(&source, total + 500);
        advance(&net, &mut [&mut a, &mut b], Nanos::from_micros(400));
        reader.read(&quick);
        late.read(&slow);
    }
    assert_eq!(late.got + late.lost, total + 500);
    assert_eq!(reader.got, total + 500);
    assert_eq!(b.count(DatapathCounter::Evictions), 1);
    settle(&net, &mut [&mut a, &mut b], &source);
}

#[test]
fn a_tap_that_never_consumes_holds_nobody_up_and_is_put_out_of_nothing() {
    let net = SimNet::new(3, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let classes = [(2048, 64), (20_000, 8)];
    let (mut a, mut b) = pair(&net, &classes);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let tap = b.tap(TOPIC);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let mut reader = Reader::new();
    let total = 500;
    for _ in 0..200 {
        emit_all(&source, total);
        advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
        reader.read(&sink);
    }
    assert_eq!((reader.got, reader.lost), (total, 0), "well within the time of an eviction");
    for counter in [DatapathCounter::Evictions, DatapathCounter::DroppedRingFull, DatapathCounter::DroppedNoBuffer] {
        assert_eq!(b.count(counter), 0, "{counter:?}");
    }
    let mut seen = Reader::new();
    seen.read(&tap);
    assert!(seen.got > 2 && seen.got <= u64::from(DEPTH), "{}", seen.got);
    // Now that it has room it is told what it missed.
    emit_all(&source, total + 8);
    for _ in 0..20 {
        advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
        emit_all(&source, total + 8);
        reader.read(&sink);
        seen.read(&tap);
    }
    assert_eq!((reader.got, seen.got + seen.lost), (total + 8, total + 8));
    settle(&net, &mut [&mut a, &mut b], &source);
}

#[test]
fn a_dead_peer_stalls_the_others_until_its_eviction_and_learns_its_gap() {
    let net = SimNet::new(4, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let mut a = Host::new(&net, 1, &[2, 3], &CLASSES);
    let (mut b, mut c) = (Host::new(&net, 2, &[1], &CLASSES), Host::new(&net, 3, &[1], &CLASSES));
    let source = a.reliable_source(TOPIC, &CLASSES);
    let ((at_b, _), (at_c, _)) = (b.sink(TOPIC), c.sink(TOPIC));
    a.route(TOPIC, &[0, 1], false);
    let (mut from_b, mut from_c) = (Reader::new(), Reader::new());
    let (mut stall, mut stall_max, mut total) = (0, 0, 0);
    let mut step =
        |net: &SimNet, a: &mut Host, b: &mut Host, c: &mut Host, from_b: &mut Reader, from_c: &mut Reader| {
            total += 2;
            emit_all(&source, total);
            let before = from_b.got;
            advance(net, &mut [a, b, c], Nanos::from_millis(1));
            from_b.read(&at_b);
            from_c.read(&at_c);
            stall = if from_b.got > before { 0 } else { stall + 1 };
            stall_max = stall_max.max(stall);
        };
    for _ in 0..100 {
        step(&net, &mut a, &mut b, &mut c, &mut from_b, &mut from_c);
    }
    assert!(from_c.got > 190 && from_b.got == from_c.got);
    net.set_partitioned(address(1), address(3), true);
    net.set_partitioned(address(3), address(1), true);
    for _ in 0..900 {
        step(&net, &mut a, &mut b, &mut c, &mut from_b, &mut from_c);
    }
    assert_eq!(a.count(DatapathCounter::Evictions), 1);
    net.set_partitioned(address(1), address(3), false);
    net.set_partitioned(address(3), address(1), false);
    for _ in 0..300 {
        step(&net, &mut a, &mut b, &mut c, &mut from_b, &mut from_c);
    }
    assert!(stall_max > 300 && stall_max <= EVICT_AFTER.0 / 1_000_000 + 2, "stalled for {stall_max} ms");
    settle(&net, &mut [&mut a, &mut b, &mut c], &source);
    from_b.read(&at_b);
    from_c.read(&at_c);
    let emitted = source.next_sequence();
    assert_eq!((from_b.got, from_b.lost), (emitted, 0));
    assert!(from_c.lost > 100, "{}", from_c.lost);
    assert_eq!(from_c.got + from_c.lost, emitted);
    assert_eq!(c.count(DatapathCounter::Lost), from_c.lost);
}

/// A datapath that is not run for long, alone or with that of its peer: what the peer has said
/// meanwhile, or would have, it does not know yet.
#[test]
fn nobody_is_put_out_by_a_datapath_that_overslept() {
    for is_peer_awake in [true, false] {
        let net = SimNet::new(1, SimConfig::default());
        let (mut a, mut b) = pair(&net, &CLASSES);
        let source = a.reliable_source(TOPIC, &CLASSES);
        let (sink, _) = b.sink(TOPIC);
        a.route(TOPIC, &[0], false);
        let mut reader = Reader::new();
        for round in 1..=10 {
            emit_all(&source, 2 * round - 1);
            a.engine.turn();
            if is_peer_awake {
                net.advance(Nanos::from_micros(10));
                b.engine.turn();
            }
            net.advance(Nanos(2 * EVICT_AFTER.0));
            // When the datapath is run again there is another message.
            emit_all(&source, 2 * round);
            run(&net, &mut [&mut a, &mut b], 10);
            reader.read(&sink);
        }
        advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(5));
        reader.read(&sink);
        assert_eq!((reader.got, reader.lost), (20, 0), "the peer is awake: {is_peer_awake}");
        assert_eq!(a.count(DatapathCounter::Evictions), 0);
        settle(&net, &mut [&mut a, &mut b], &source);

        // One that is dead is put out all the same, if the datapath is run at all.
        net.set_partitioned(address(1), address(2), true);
        emit_all(&source, 21);
        for turns in 0..20 {
            assert!(turns < 10, "it is never put out");
            a.engine.turn();
            if a.count(DatapathCounter::Evictions) == 1 {
                break;
            }
            net.advance(EVICT_AFTER);
        }
    }
}

#[test]
fn a_late_joiner_gets_no_history_and_a_new_life_begins_anew() {
    let net = SimNet::new(5, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &CLASSES);
    let life = |peer, host, life| Command::SetPeerLife {
        peer: PeerIndex(peer),
        host: HostId(host),
        incarnation: Some(Incarnation(life)),
    };
    assert!(matches!(a.command(life(0, 2, 1)), Command::Spent));
    let source = a.reliable_source(TOPIC, &CLASSES);
    emit_all(&source, 10);
    run(&net, &mut [&mut a, &mut b], 20);
    assert_eq!(a.count(DatapathCounter::DroppedNoPeer), 10);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    emit_all(&source, 20);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(5));
    let mut reader = Reader::new();
    reader.read(&sink);
    assert_eq!((reader.got, reader.lost, reader.next), (10, 0, Some(20)));
    // The peer dies with messages under way, and comes again.
    emit_all(&source, 30);
    // All are taken: a turn takes one chunk of best effort.
    for _ in 0..10 {
        a.engine.turn();
    }
    drop((b, sink));
    let mut b = Host::in_life(&net, 2, 2, &[1], &CLASSES);
    let (sink, _) = b.sink(TOPIC);
    assert!(matches!(a.command(life(0, 2, 2)), Command::Spent));
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(5));
    emit_all(&source, 40);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(5));
    let mut reader = Reader::new();
    reader.read(&sink);
    assert_eq!((reader.got, reader.lost, reader.next), (10, 0, Some(40)), "no history, and no loss before it joined");
    settle(&net, &mut [&mut a, &mut b], &source);
    // Its sink leaves; nobody waits for it.
    let id = ConnId(b.next);
    assert!(matches!(b.command(Command::RemoveSink(id)), Command::Removed { dead: Some(_), .. }));
    let mut sent = 0;
    for round in 1..20 {
        assert_eq!(emit_all(&source, 40 + round * 10), 40 + round * 10, "no emit is refused");
        advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(20));
        if round == 1 {
            sent = a.count(DatapathCounter::FramesSent);
        }
    }
    assert_eq!(a.count(DatapathCounter::FramesSent), sent, "nothing more is sent to where nobody listens");
    let (sink, _) = b.sink(TOPIC);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(150));
    emit_all(&source, 240);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(5));
    let mut reader = Reader::new();
    reader.read(&sink);
    assert_eq!((reader.got, reader.lost, reader.next), (10, 0, Some(240)));
    assert_eq!(a.count(DatapathCounter::Evictions), 0);
}

#[test]
fn an_isolated_reliable_stream_waits_for_local_sinks_and_puts_out_the_dead() {
    let net = SimNet::new(6, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(2048, 700), (20_000, 64)]);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let (quick, _) = a.sink(TOPIC);
    let (dead, _) = a.sink(TOPIC);
    a.route(TOPIC, &[], true);
    let mut reader = Reader::new();
    for _ in 0..600 {
        emit_all(&source, 1_500);
        advance(&net, &mut [&mut a], Nanos::from_millis(1));
        reader.read(&quick);
    }
    assert_eq!((reader.got, reader.lost), (1_500, 0));
    assert_eq!(a.count(DatapathCounter::Evictions), 1);
    let mut late = Reader::new();
    late.read(&dead);
    assert!(late.got > 0 && late.got < 1_500);
    assert_eq!(source.buffers_in_use(), 0);
}

#[test]
fn removal_with_messages_under_way_leaks_nothing() {
    let net = SimNet::new(7, SimConfig::default());
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let id = ConnId(a.next);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    emit_all(&source, 3);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
    net.set_partitioned(address(2), address(1), true);
    emit_all(&source, 5);
    a.engine.turn();
    // Half a message of 5,000 bytes arrives, then its source is gone.
    net.set_partitioned(address(1), address(2), true);
    a.port.send(Command::RemoveSource(id)).unwrap();
    a.port.send(Command::RemoveSource(id)).unwrap();
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(400));
    assert!(matches!(*a.port.collect().unwrap(), Command::Removed { dead: None, .. }), "the second has nothing to do");
    assert!(a.port.collect().is_none(), "the first waits for the peer");
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(110));
    assert!(matches!(*a.port.collect().unwrap(), Command::Removed { dead: Some(_), .. }));
    assert_eq!(source.buffers_in_use(), 0);
    assert!(!a.engine.is_repairing());
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1_200));
    for _ in 0..5_000 {
        b.engine.housekeeping();
    }
    let mut reader = Reader::new();
    reader.read(&sink);
    assert!(reader.got >= 3);
    // Its place is free for others.
    for _ in 0..100 {
        let _source = a.reliable_source(TOPIC, &[]);
        let id = ConnId(a.next);
        assert!(matches!(a.command(Command::RemoveSource(id)), Command::Removed { dead: Some(_), .. }));
    }
}

#[test]
fn what_was_emitted_arrives_though_the_source_is_let_go() {
    let net = SimNet::new(10, SimConfig::default());
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.reliable_source(TOPIC, &[(2048, 300), (20_000, 100)]);
    let id = ConnId(a.next);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    emit_all(&source, 3);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
    net.set_partitioned(address(1), address(2), true);
    let emitted = emit_all(&source, 200);
    assert!(emitted > 100, "more than the window holds waits in the ring");
    a.engine.turn();
    a.port.send(Command::RemoveSource(id)).unwrap();
    a.port.send(Command::RemoveRoute(TOPIC)).unwrap();
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(100));
    net.set_partitioned(address(1), address(2), false);
    let mut reader = Reader::new();
    for _ in 0..100 {
        advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
        reader.read(&sink);
    }
    assert_eq!((reader.got, reader.lost), (emitted, 0));
    let answers: Vec<_> = std::iter::from_fn(|| a.port.collect()).collect();
    assert_eq!(answers.iter().filter(|it| matches!(***it, Command::Removed { dead: Some(_), .. })).count(), 1);
    assert_eq!((answers.len(), source.buffers_in_use()), (2, 0));
}

#[test]
fn of_a_source_that_goes_on_without_its_datapath_nothing_more_is_read() {
    let net = SimNet::new(10, SimConfig::default());
    let (mut a, mut b) = pair(&net, &CLASSES);
    for reliable in [true, false] {
        let source = match reliable {
            true => a.reliable_source(TOPIC, &[(2048, 300), (20_000, 100)]),
            false => a.source(TOPIC, Lane::LAST, &[(2048, 300), (20_000, 100)]),
        };
        let id = ConnId(a.next);
        let (sink, _) = b.sink(TOPIC);
        a.route(TOPIC, &[0], false);
        emit_all(&source, 3);
        advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
        net.set_partitioned(address(1), address(2), true);
        assert!(emit_all(&source, 200) > 100, "more than a turn takes");
        a.engine.turn();
        // Answered in that turn: from then on its client writes the buffers anew.
        assert!(matches!(a.command(Command::EndSource(id)), Command::Removed { dead: Some(_), .. }));
        net.set_partitioned(address(1), address(2), false);
        let mut reader = Reader::new();
        for _ in 0..100 {
            advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
            reader.read(&sink);
        }
        assert_eq!((reader.got, reader.lost), (3, 0), "reliable: {reliable}");
    }
}

#[test]
fn a_client_that_skips_numbers_is_put_out() {
    let net = SimNet::new(8, SimConfig::default());
    let (mut a, mut b) = pair(&net, &CLASSES);
    // It drops instead of being refused, as if its stream were unreliable.
    let (source, _) = a.source_of((false, true), TOPIC, Lane::LAST, &CLASSES);
    let (_sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    for _ in 0..DEPTH + 10 {
        assert!(source.emit_copy(b"flood", 0).unwrap().is_sent());
    }
    for _ in 0..500 {
        run(&net, &mut [&mut a, &mut b], 4);
        let _ = source.emit_copy(b"flood", 0);
    }
    assert_eq!(a.count(DatapathCounter::Violations), 1);
    assert!(matches!(a.port.notice(), Some(Notice::Violation { .. })));
}

#[test]
fn a_peer_that_acknowledges_what_it_never_got_is_not_believed() {
    let net = SimNet::new(9, SimConfig::default());
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let number = SourceId(a.next);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    emit_all(&source, 1);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
    net.set_partitioned(address(1), address(2), true);
    emit_all(&source, 7);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
    let held = source.buffers_in_use();
    assert!(held > 0);
    let head = DataHeader::reliable((HostId(2), Incarnation(1)), (TOPIC.key, TOPIC.channel), number).encode();
    for token in 0..4 * 65_536_u64 {
        // Of all tokens that the first source of an engine may have, one is right.
        if token % 65_536 > 2 {
            continue;
        }
        for next in [Position::start_of(u64::MAX), Position::start_of(8), Position { sequence: 6, offset: 1 << 20 }] {
            let ack = Ack { token, life: Incarnation(1), next, limit: u64::MAX, nak: true, gone: false, recap: 0 };
            let frame = [&head[..], &Body::Ack(ack).encode()[..]].concat();
            let _ = net.inject(address(2), address(1), Lane::CONTROL, &frame);
        }
        let _ = net.inject(address(2), address(1), Lane::CONTROL, &[&head[..], &[7; 64][..]].concat());
    }
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(1));
    assert_eq!(source.buffers_in_use(), held, "nothing is freed");
    assert!(a.turn_counters.get(TurnCounter::FramesMalformed as usize) > 10);
    net.set_partitioned(address(1), address(2), false);
    advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(100));
    let mut reader = Reader::new();
    reader.read(&sink);
    assert_eq!((reader.got, reader.lost), (7, 0), "and everything arrives");
    settle(&net, &mut [&mut a, &mut b], &source);
}

const LARGE: usize = 300_000;
const LARGE_CLASSES: [(u32, u32); 2] = [(2048, 64), (LARGE as u32, 8)];

/// Every third message is large: it takes some twenty grants to copy.
fn emit_large(source: &SourcePort, upto: u64) -> u64 {
    while source.next_sequence() < upto {
        let sequence = source.next_sequence();
        let Ok(mut buffer) = source.get_buffer([20, LARGE, 700][sequence as usize % 3]) else { break };
        let len = buffer.len();
        buffer.copy_from_slice(&pattern(sequence, len));
        if !source.emit(buffer, 0).is_sent() {
            break;
        }
    }
    source.next_sequence()
}

#[test]
fn large_isolated_messages_reach_near_and_far_sinks_exactly_once() {
    let net = SimNet::new(21, SimConfig { frames_max: 8192, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &LARGE_CLASSES);
    let source = a.reliable_source(TOPIC, &LARGE_CLASSES);
    let (near, _) = a.sink(TOPIC);
    let (far, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], true);
    let (mut near_reader, mut far_reader) = (Reader::new(), Reader::new());
    let total = 90;
    let mut rounds = 0;
    while near_reader.got < total || far_reader.got < total {
        emit_large(&source, total);
        advance(&net, &mut [&mut a, &mut b], Nanos::from_millis(20));
        near_reader.read(&near);
        // The far one is slower.
        if rounds % 4 == 0 {
            far_reader.read(&far);
        }
        rounds += 1;
        assert!(rounds < 2_000, "{} near, {} far", near_reader.got, far_reader.got);
    }
    assert_eq!((near_reader.got, near_reader.lost, far_reader.got, far_reader.lost), (total, 0, total, 0));
    assert_eq!(a.count(DatapathCounter::DroppedNoBuffer) + a.count(DatapathCounter::DroppedRingFull), 0);
    settle(&net, &mut [&mut a, &mut b], &source);
}

#[test]
fn a_near_sink_that_keeps_large_messages_is_put_out_and_leaves_the_others_theirs() {
    let net = SimNet::new(22, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &LARGE_CLASSES);
    let source = a.reliable_source(TOPIC, &LARGE_CLASSES);
    let (slow, _) = a.sink(TOPIC);
    let (quick, _) = a.sink(TOPIC);
    a.route(TOPIC, &[], true);
    let mut reader = Reader::new();
    let total = 60;
    for _ in 0..400 {
        emit_large(&source, total);
        advance(&net, &mut [&mut a], Nanos::from_millis(4));
        reader.read(&quick);
    }
    assert_eq!((reader.got, reader.lost), (total, 0));
    assert_eq!(a.count(DatapathCounter::Evictions), 1);
    let mut late = Reader::new();
    late.read(&slow);
    assert!(late.got < total);
    settle(&net, &mut [&mut a], &source);
}

#[test]
fn a_large_message_under_way_is_finished_though_its_source_goes() {
    const HUGE: usize = 1_000_000;
    let net = SimNet::new(23, SimConfig::default());
    let mut a = Host::new(&net, 1, &[], &[(HUGE as u32, 1)]);
    a.route(TOPIC, &[], true);
    let (sink, _) = a.sink(TOPIC);
    for abrupt in [false, true] {
        let source = a.reliable_source(TOPIC, &[(HUGE as u32, 1)]);
        let id = ConnId(a.next);
        let mut buffer = source.get_buffer(HUGE).unwrap();
        buffer.copy_from_slice(&pattern(0, HUGE));
        assert!(source.emit(buffer, 0).is_sent());
        a.engine.turn();
        assert!(sink.consume().unwrap().is_none(), "it is under way");
        a.port.send(Command::RemoveSource(id)).unwrap();
        a.engine.turn();
        if abrupt {
            pass(&net, &mut a, Nanos::from_secs(1));
        }
        run(&net, &mut [&mut a], 100);
        assert!(matches!(*a.port.collect().unwrap(), Command::Removed { dead: Some(_), .. }));
        let got = sink.consume().unwrap().map(|message| message.bytes() == Some(&pattern(0, HUGE)[..]));
        assert_eq!(got, (!abrupt).then_some(true));
        run(&net, &mut [&mut a], 2);
        assert_eq!(a.count(DatapathCounter::DroppedSourceClosed), u64::from(abrupt));
    }
    assert_eq!(a.count(DatapathCounter::DroppedNoBuffer), 0, "the one buffer was free again");
}
