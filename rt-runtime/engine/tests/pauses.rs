//! Threads that are not run for a while (stolen processors, a debugger), in virtual time: nobody is
//! put out, and nothing is given up, for a time in which nobody could do anything.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::{ChannelId, Lane, Nanos, StreamKey};
use insane_engine::{Command, RELIABLE_PER_TURN, Topic};
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{SimConfig, SimNet};
use world::{DEPTH, Host, TOPIC, address, pair, pattern, run};

const CLASSES: [(u32, u32); 2] = [(2048, 64), (40_000, 32)];
const PAUSE: Nanos = Nanos::from_secs(2);

fn net() -> SimNet {
    SimNet::new(3, SimConfig { frames_max: 8_192, ..SimConfig::default() })
}

fn emit(source: &SourcePort, len: usize) -> bool {
    let sequence = source.next_sequence();
    source.get_buffer(len).is_ok_and(|mut buffer| {
        buffer.copy_from_slice(&pattern(sequence, len));
        source.emit(buffer, 0).is_sent()
    })
}

/// Takes all there is, which follows what was taken before, whole; how many by now.
fn read(sink: &SinkPort, got: &mut u64) -> u64 {
    while let Some(message) = sink.consume().expect("nobody lies") {
        assert_eq!((message.sequence(), message.lost()), (*got, 0), "in order, and none lost");
        assert_eq!(message.bytes(), Some(&pattern(*got, message.len())[..]));
        *got += 1;
    }
    *got
}

/// Everybody stands still, and what has no hurry is the first thing that is done afterwards.
fn pause(net: &SimNet, hosts: &mut [&mut Host]) {
    net.advance(PAUSE);
    hosts.iter_mut().for_each(|host| host.engine.housekeeping());
}

fn evictions(host: &Host) -> u64 {
    host.count(DatapathCounter::Evictions)
}

/// A stream goes to a sink that takes nothing until its ring is full, and more is there.
fn filled(is_local: bool) {
    let net = net();
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let sink = if is_local { a.sink(TOPIC).0 } else { b.sink(TOPIC).0 };
    a.route(TOPIC, if is_local { &[] } else { &[0] }, is_local);
    let total = u64::from(DEPTH) + 40;
    for _ in 0..4_000 {
        if source.next_sequence() < total {
            emit(&source, 8);
        }
        run(&net, &mut [&mut a, &mut b], 1);
    }
    let mut got = 0;
    pause(&net, &mut [&mut a, &mut b]);
    run(&net, &mut [&mut a, &mut b], 2);
    assert_eq!((evictions(&a), evictions(&b)), (0, 0), "local: {is_local}");
    for _ in 0..4_000 {
        if source.next_sequence() < total {
            emit(&source, 8);
        }
        read(&sink, &mut got);
        run(&net, &mut [&mut a, &mut b], 1);
    }
    assert_eq!(read(&sink, &mut got), total, "local: {is_local}");
}

#[test]
fn a_local_sink_is_not_put_out_for_a_pause_of_the_datapath() {
    filled(true);
}

#[test]
fn a_sink_of_another_host_is_not_put_out_for_a_pause_of_its_datapath() {
    filled(false);
}

/// A source is let go while most of what it emitted waits for its peer.
fn let_go(lane: Lane, is_reliable: bool) {
    let net = net();
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.source_of((is_reliable, is_reliable), TOPIC, lane, &CLASSES).0;
    let conn = insane_core::ConnId(a.next);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let mut got = 0;
    assert!(emit(&source, 8));
    run(&net, &mut [&mut a, &mut b], 20);
    for _ in 0..20 {
        assert!(emit(&source, 40_000));
    }
    a.port.send(Command::RemoveSource(conn)).unwrap();
    a.engine.turn();
    assert!(a.port.collect().is_none(), "it has something left");
    pause(&net, &mut [&mut a, &mut b]);
    for _ in 0..2_000 {
        run(&net, &mut [&mut a, &mut b], 1);
        read(&sink, &mut got);
    }
    assert_eq!(got, 21, "reliable: {is_reliable}");
    assert!(matches!(*a.port.collect().expect("it goes then"), Command::Removed { .. }));
}

#[test]
fn what_a_closed_source_has_left_is_not_lost_for_a_pause() {
    let_go(Lane::LAST, true);
    let_go(Lane::LAST, false);
}

/// A large message is half here when everybody stands still.
fn half_here(is_reliable: bool) {
    let net = net();
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.source_of((is_reliable, is_reliable), TOPIC, Lane::LAST, &CLASSES).0;
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let mut got = 0;
    assert!(emit(&source, 8));
    run(&net, &mut [&mut a, &mut b], 20);
    assert_eq!(read(&sink, &mut got), 1);
    assert!(emit(&source, 40_000));
    run(&net, &mut [&mut a, &mut b], 1);
    assert_eq!(read(&sink, &mut got), 1, "more than a chunk");
    pause(&net, &mut [&mut a, &mut b]);
    for _ in 0..2_000 {
        run(&net, &mut [&mut a, &mut b], 1);
    }
    assert_eq!(read(&sink, &mut got), 2, "reliable: {is_reliable}");
    assert_eq!(b.count(DatapathCounter::DroppedIncomplete), 0);
}

#[test]
fn a_message_that_is_half_here_is_not_given_up_for_a_pause() {
    half_here(true);
    half_here(false);
}

/// The mends excuse nobody who stands still by himself.
#[test]
fn who_takes_nothing_while_all_others_run_is_put_out_as_ever() {
    let net = net();
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let sink = a.sink(TOPIC).0;
    a.route(TOPIC, &[], true);
    while emit(&source, 8) {
        run(&net, &mut [&mut a, &mut b], 1);
    }
    for _ in 0..30_000 {
        run(&net, &mut [&mut a, &mut b], 1);
    }
    assert_eq!(evictions(&a), 1, "300 ms");
    drop(sink);
    net.set_partitioned(address(1), address(2), true);
}

/// Not all sources are served in each turn: the time of one that has to wait at once begins when it
/// is looked at.
#[test]
fn a_sink_that_stands_still_is_put_out_however_many_sources_there_are_and_were_pauses() {
    const SOURCES: u64 = 3 * RELIABLE_PER_TURN as u64;
    let net = net();
    let mut a = Host::new(&net, 1, &[], &CLASSES);
    let topic = |number: u64| Topic { key: StreamKey(number), channel: ChannelId(1) };
    let sinks: Vec<_> = (0..SOURCES)
        .map(|number| {
            let filler = a.source(topic(number), Lane::LAST, &[]);
            let sink = a.sink(topic(number)).0;
            a.route(topic(number), &[], true);
            while filler.next_sequence() < 2 * u64::from(DEPTH) {
                emit(&filler, 8);
                a.engine.turn();
            }
            sink
        })
        .collect();
    let mut sources = vec![a.reliable_source(topic(0), &CLASSES)];
    net.advance(Nanos::from_secs(20));
    run(&net, &mut [&mut a], 1);
    sources.extend((1..SOURCES).map(|number| {
        let source = a.reliable_source(topic(number), &CLASSES);
        emit(&source, 8);
        run(&net, &mut [&mut a], 1);
        source
    }));
    emit(&sources[0], 8);
    run(&net, &mut [&mut a], 20_000);
    assert_eq!(evictions(&a), 0, "200 ms");
    run(&net, &mut [&mut a], 10_000);
    assert_eq!(evictions(&a), SOURCES, "300 ms");
    drop(sinks);
}
