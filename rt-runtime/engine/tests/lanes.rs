//! What floods the best-effort queue of a link, in virtual time: reliable streams of real time do
//! not notice, and those of best effort put nobody out for an answer that cannot come back. And a
//! queue that takes no more: who waits for it lets a datapath sleep, and holds up nobody.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::{ChannelId, Lane, Nanos};
use insane_engine::Topic;
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{Faults, SimConfig, SimNet, WhenFull};
use world::{Host, TOPIC, address, pair, pattern, run};

const CLASSES: [(u32, u32); 1] = [(2048, 64)];
/// Frames that a queue of the link holds.
const QUEUE: u32 = 16;
const REAL_TIME: Lane = Lane::new(1).unwrap();

fn flooded(seed: u64) -> SimNet {
    let faults = Faults { queue_frames_max: Some(QUEUE), when_full: WhenFull::Lose, ..Faults::NONE };
    SimNet::new(seed, SimConfig { frames_max: 1024, faults, ..SimConfig::default() })
}

/// Fills the best-effort queues of these directions with what is no frame of ours.
fn flood(net: &SimNet, directions: &[(u8, u8)]) {
    for (from, to) in directions {
        for _ in 0..=QUEUE {
            let _ = net.inject(address(*from), address(*to), Lane::LAST, &[0xEE; 64]);
        }
    }
}

/// Sends `total` messages of a reliable stream of this lane, while these directions are flooded
/// before each host's turn. How many came within a second.
fn sent_in_a_flood(lane: Lane, directions: &[(u8, u8)], total: u64) -> (u64, Host, Host) {
    let net = flooded(7);
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.source_of((true, true), TOPIC, lane, &CLASSES).0;
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let mut got = 0;
    let read = |sink: &SinkPort, got: &mut u64| {
        while let Some(message) = sink.consume().expect("nobody lies") {
            assert_eq!((message.sequence(), message.lost()), (*got, 0), "in order, and none lost");
            assert_eq!(message.bytes(), Some(&pattern(*got, 700)[..]));
            *got += 1;
        }
    };
    for _ in 0..25_000 {
        if source.next_sequence() < total
            && let Ok(mut buffer) = source.get_buffer(700)
        {
            buffer.copy_from_slice(&pattern(source.next_sequence(), 700));
            let _ = source.emit(buffer, 0);
        }
        for host in [&mut a, &mut b] {
            flood(&net, directions);
            host.engine.turn();
        }
        net.advance(Nanos::from_micros(40));
        read(&sink, &mut got);
    }
    (got, a, b)
}

#[test]
fn a_flood_of_best_effort_stalls_no_reliable_stream_of_real_time() {
    let (got, a, b) = sent_in_a_flood(REAL_TIME, &[(1, 2), (2, 1)], 2_000);
    assert_eq!(got, 2_000);
    assert_eq!((a.count(DatapathCounter::Evictions), b.count(DatapathCounter::Evictions)), (0, 0));
}

#[test]
fn a_flood_at_the_sender_puts_nobody_out_of_a_stream_of_best_effort() {
    let (got, a, _) = sent_in_a_flood(Lane::LAST, &[(2, 1)], 500);
    assert_eq!(got, 500, "answers to heartbeats come by real time");
    assert_eq!(a.count(DatapathCounter::Evictions), 0);
}

/// Of all reports on streams of best effort only answers go by real time, and those within a bound.
#[test]
fn reports_on_best_effort_take_little_of_real_time() {
    let net = flooded(8);
    let (mut a, mut b) = pair(&net, &CLASSES);
    let topics: Vec<Topic> = (0..32).map(|at| Topic { channel: ChannelId(at), ..TOPIC }).collect();
    let sources: Vec<_> = topics.iter().map(|topic| a.reliable_source(*topic, &CLASSES)).collect();
    let sinks: Vec<_> = topics.iter().map(|topic| b.sink(*topic).0).collect();
    topics.iter().for_each(|topic| a.route(*topic, &[0], false));
    let emit_one = |source: &SourcePort| {
        let buffer = source.get_buffer(700).unwrap();
        assert!(source.emit(buffer, 0).is_sent());
    };
    let arrived = || sources.iter().filter(|source| source.buffers_in_use() == 0).count();
    let read = || sinks.iter().filter(|sink| sink.consume().unwrap().is_some()).count();
    // One after the other: the queues are short.
    for source in &sources {
        emit_one(source);
        run(&net, &mut [&mut a, &mut b], 200);
    }
    assert_eq!((read(), arrived()), (32, 32));
    sources.iter().for_each(emit_one);
    let mut after = |ms: u32| {
        for _ in 0..ms * 100 {
            for host in [&mut a, &mut b] {
                flood(&net, &[(2, 1)]);
                host.engine.turn();
            }
            net.advance(Nanos::from_micros(10));
            read();
        }
        arrived()
    };
    let soon = after(40);
    assert!((1..=(40 + 64) / 4 + 1).contains(&soon), "one each 4 ms, and 16 more at once: {soon}");
    assert_eq!(after(400), 32, "and all of them in time");
    assert_eq!(a.count(DatapathCounter::Evictions), 0);
}

#[test]
fn who_waits_for_room_at_a_link_lets_a_datapath_sleep_shortly_and_holds_up_nobody() {
    const TOTAL: u32 = 2 * QUEUE;
    let delay = Nanos::from_millis(10);
    let faults = Faults { delay, queue_frames_max: Some(QUEUE), when_full: WhenFull::Busy, ..Faults::NONE };
    let net = SimNet::new(8, SimConfig { faults, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &CLASSES);
    let other = Topic { channel: ChannelId(2), ..TOPIC };
    let sources = [(TOPIC, Lane::LAST), (other, REAL_TIME)].map(|(topic, lane)| {
        let source = a.source(topic, lane, &CLASSES);
        a.route(topic, &[0], false);
        source
    });
    let sinks = [TOPIC, other].map(|topic| b.sink(topic).0);
    let emit = |source: &SourcePort| source.emit_copy(&[1; 16], 0).is_some_and(|emit| emit.is_sent());
    // More than the queue holds, and nobody takes any of it.
    for _ in 0..TOTAL {
        assert!(emit(&sources[0]));
        a.engine.turn();
    }
    assert!(a.engine.has_work());
    (0..256).for_each(|_| _ = a.engine.turn());
    assert!(!a.engine.turn(), "what is refused is no work");
    assert!(!a.engine.has_work());
    assert_eq!(a.engine.sleep_max(), Some(Nanos::from_micros(100)));
    // Who has room is work all the same, and goes.
    assert!(emit(&sources[1]));
    assert!(a.engine.has_work());
    assert!(a.engine.turn());
    net.advance(delay);
    b.engine.turn();
    assert!(sinks[1].consume().unwrap().is_some());
    // When there is room again, all of it goes, and nothing was lost.
    let mut came = 0;
    for _ in 0..1_000 {
        a.engine.turn();
        net.advance(Nanos::from_millis(1));
        b.engine.turn();
        while let Some(message) = sinks[0].consume().unwrap() {
            assert_eq!((message.sequence(), message.lost()), (came, 0));
            came += 1;
        }
    }
    assert_eq!(came, u64::from(TOTAL));
    assert!(!a.engine.has_work());
    assert_eq!(a.engine.sleep_max(), None);
}

#[test]
fn a_reliable_source_that_waits_for_room_lets_a_datapath_sleep_shortly_and_for_long_when_nobody_hears_it() {
    let delay = Nanos::from_millis(10);
    let faults = Faults { delay, queue_frames_max: Some(2), when_full: WhenFull::Busy, ..Faults::NONE };
    let net = SimNet::new(9, SimConfig { faults, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &CLASSES);
    let source = a.reliable_source(TOPIC, &CLASSES);
    let (sink, _) = b.sink(TOPIC);
    a.route(TOPIC, &[0], false);
    let emit = || assert!(source.emit_copy(&[1; 16], 0).is_some_and(|emit| emit.is_sent()));
    emit();
    for _ in 0..100 {
        a.engine.turn();
        b.engine.turn();
        net.advance(Nanos::from_millis(1));
    }
    assert!(sink.consume().unwrap().is_some());
    (0..8).for_each(|_| emit());
    (0..300).for_each(|_| _ = a.engine.turn());
    assert!(!a.engine.has_work(), "its link has no room");
    assert_eq!(a.engine.sleep_max(), Some(Nanos::from_micros(100)));
    // The peer has no sink any more: nothing is owed.
    a.route(TOPIC, &[], false);
    (0..300).for_each(|_| _ = a.engine.turn());
    assert!(!a.engine.has_work());
    assert_eq!(a.engine.sleep_max(), None, "nothing waits");
}
