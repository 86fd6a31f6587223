//! Who is woken when, and by whom: budget, lanes, the waker thread, the sessions' rates.

mod world;

use insane_core::counters::DatapathCounter::{Wakes, WakesHandedOver, WakesRefused};
use insane_core::{ConnId, Lane, Nanos};
use insane_engine::waker::{QUEUE_PLACES, WakerThread};
use insane_engine::{Command, WAKES_PER_TURN};
use insane_shm::port::SinkPort;
use insane_sim::{SimConfig, SimNet};
use std::time::{Duration, Instant};
use world::{Host, TOPIC};

/// Long beside any delay of a scheduler, and short enough for a test that fails.
const BACKSTOP: Duration = Duration::from_secs(20);
const QUICK: u32 = 10_000_000;
const REAL_TIME: Lane = Lane::new(0).unwrap();

fn net() -> SimNet {
    SimNet::new(1, SimConfig::default())
}

/// Takes what has come and asks to be woken for the next.
fn doze(sink: &SinkPort) {
    while sink.consume().unwrap().is_some() {}
    assert_eq!(sink.arm(), Ok(false));
}

#[test]
fn a_turn_wakes_its_budget_and_the_next_ones_the_rest() {
    let net = net();
    let mut host = Host::new(&net, 1, &[], &[(2048, 8)]);
    let source = host.source(TOPIC, Lane::LAST, &[]);
    let sinks: Vec<SinkPort> = (0..5).map(|_| host.sleepy_sink(TOPIC, Lane::LAST, 1, QUICK)).collect();
    host.route(TOPIC, &[], true);
    sinks.iter().for_each(doze);
    assert!(source.emit_copy(b"up", 0).unwrap().is_sent());
    for woken in [2, 4, 5, 5] {
        assert!(host.engine.turn() || woken == 5);
        assert_eq!(host.count(Wakes), woken);
        assert_eq!(host.engine.has_work(), woken < 5, "a datapath does not sleep before all are woken");
    }
    assert_eq!(host.count(WakesHandedOver), 0, "there is no waker");
}

#[test]
fn real_time_sinks_are_woken_first() {
    let net = net();
    let mut host = Host::new(&net, 1, &[], &[(2048, 8)]);
    let source = host.source(TOPIC, Lane::LAST, &[]);
    // The lane is the sink's own, so that one message reaches both kinds.
    let ordinary: Vec<SinkPort> = (0..4).map(|_| host.sleepy_sink(TOPIC, Lane::LAST, 1, QUICK)).collect();
    let urgent: Vec<SinkPort> = (0..WAKES_PER_TURN).map(|_| host.sleepy_sink(TOPIC, REAL_TIME, 2, 1)).collect();
    host.route(TOPIC, &[], true);
    ordinary.iter().chain(&urgent).for_each(doze);
    assert!(source.emit_copy(b"up", 0).unwrap().is_sent());
    host.engine.turn();
    // The urgent session may ask for one wake-up only, and did: it was looked at first.
    assert_eq!((host.count(Wakes), host.count(WakesRefused)), (2, 1));
    let mut woken = 2;
    for _ in 0..4 {
        host.engine.turn();
        woken = host.count(Wakes);
    }
    assert_eq!(woken, 5, "one urgent, four ordinary");
}

#[test]
fn a_session_beyond_its_rate_is_put_off_and_others_are_not() {
    let net = net();
    let mut host = Host::new(&net, 1, &[], &[(2048, 8)]);
    let source = host.source(TOPIC, Lane::LAST, &[]);
    let greedy = host.sleepy_sink(TOPIC, Lane::LAST, 1, 100);
    let modest = host.sleepy_sink(TOPIC, Lane::LAST, 2, QUICK);
    host.route(TOPIC, &[], true);
    net.advance(Nanos::from_secs(1));
    host.engine.housekeeping();
    // A tenth of a second's worth beforehand, and the one under way.
    let paid = 11;
    for round in 0..50 {
        doze(&greedy);
        doze(&modest);
        assert!(source.emit_copy(b"up", 0).unwrap().is_sent());
        host.engine.turn();
        host.engine.turn();
        let woken = host.count(Wakes);
        assert_eq!(woken, (round + 1) + (round + 1).min(paid), "round {round}");
        assert_eq!(host.count(WakesRefused) > 0, round >= paid);
    }
    assert!(host.engine.is_collecting(), "the datapath sleeps shortly only");
    let woken = host.count(Wakes);
    assert!(greedy.consume().unwrap().is_some(), "what was sent is there all the same");
    doze(&greedy);
    host.engine.turn();
    assert_eq!(host.count(Wakes), woken, "still too early");
    net.advance(Nanos::from_millis(10));
    host.engine.housekeeping();
    host.engine.turn();
    assert_eq!(host.count(Wakes), woken + 1, "put off, not forgotten");
}

#[test]
fn the_waker_thread_wakes_whom_the_turn_has_no_time_for() {
    const SINKS: usize = 12;
    const ROUNDS: usize = 10;
    let net = net();
    let waker = WakerThread::start().unwrap();
    let mut host = Host::with_waker(&net, 1, 1, &[], &[(2048, 8)], Some(waker.queue()));
    let source = host.source(TOPIC, Lane::LAST, &[]);
    let sinks: Vec<SinkPort> = (0..SINKS).map(|_| host.sleepy_sink(TOPIC, Lane::LAST, 1, QUICK)).collect();
    host.route(TOPIC, &[], true);
    let (took, taken) = std::sync::mpsc::channel();
    let threads: Vec<_> = sinks
        .into_iter()
        .map(|sink| {
            let took = took.clone();
            std::thread::spawn(move || {
                let mut slept = Duration::ZERO;
                for _ in 0..ROUNDS {
                    while sink.consume().unwrap().is_none() {
                        let asleep = Instant::now();
                        sink.sleep(BACKSTOP).unwrap();
                        slept = slept.max(asleep.elapsed());
                    }
                    took.send(()).unwrap();
                }
                slept
            })
        })
        .collect();
    for _ in 0..ROUNDS {
        // So that most of them sleep by now; the test holds without.
        std::thread::sleep(Duration::from_millis(20));
        let (wakes, handed) = (host.count(Wakes), host.count(WakesHandedOver));
        assert!(source.emit_copy(b"up", 0).unwrap().is_sent());
        host.engine.turn();
        let (wakes, handed) = (host.count(Wakes) - wakes, host.count(WakesHandedOver) - handed);
        assert_eq!(wakes, handed + wakes.min(WAKES_PER_TURN as u64), "the rest of one turn is handed over in it");
        (0..SINKS).for_each(|_| taken.recv().unwrap());
    }
    for thread in threads {
        assert!(thread.join().unwrap() < BACKSTOP, "only the backstop made progress");
    }
    assert!(host.count(WakesHandedOver) > 0, "all were awake every time");
    assert!(waker.is_alive());
}

#[test]
fn what_finds_no_place_with_the_waker_waits_for_the_next_turn() {
    // A waker that has ended takes errands and makes none of them.
    let net = net();
    let waker = WakerThread::start().unwrap();
    let queue = waker.queue();
    drop(waker);
    let places = QUEUE_PLACES as u64;
    let mut host = Host::with_waker(&net, 1, 1, &[], &[(2048, 8)], Some(queue));
    let source = host.source(TOPIC, Lane::LAST, &[]);
    let sinks: Vec<SinkPort> = (0..20).map(|_| host.sleepy_sink(TOPIC, Lane::LAST, 1, QUICK)).collect();
    host.route(TOPIC, &[], true);
    let mut rounds = 0;
    while host.count(WakesHandedOver) < places {
        sinks.iter().for_each(doze);
        assert!(source.emit_copy(b"up", 0).unwrap().is_sent());
        host.engine.turn();
        net.advance(Nanos::from_millis(1));
        host.engine.housekeeping();
        rounds += 1;
        assert!(rounds < 1_000);
    }
    for _ in 0..20 {
        host.engine.turn();
    }
    let before = host.count(Wakes);
    sinks.iter().for_each(doze);
    assert!(source.emit_copy(b"up", 0).unwrap().is_sent());
    for turn in 1..=10 {
        host.engine.turn();
        assert_eq!(host.count(Wakes) - before, turn * 2, "all are woken, two a turn");
    }
    assert!(!host.engine.has_work());
    assert_eq!((host.count(WakesHandedOver), host.count(WakesRefused)), (places, 0));
}

#[test]
fn a_sink_may_go_while_its_wake_up_is_under_way() {
    let net = net();
    let waker = WakerThread::start().unwrap();
    let mut host = Host::with_waker(&net, 1, 1, &[], &[(2048, 8)], Some(waker.queue()));
    let source = host.source(TOPIC, Lane::LAST, &[]);
    host.route(TOPIC, &[], true);
    for _ in 0..200 {
        let first = host.next + 1;
        let sinks: Vec<SinkPort> = (0..8).map(|_| host.sleepy_sink(TOPIC, Lane::LAST, 1, QUICK)).collect();
        sinks.iter().for_each(doze);
        assert!(source.emit_copy(b"up", 0).unwrap().is_sent());
        host.engine.turn();
        // Both ends let go at once: the errand alone keeps the memory.
        drop(sinks);
        for id in first..first + 8 {
            assert!(matches!(host.command(Command::RemoveSink(ConnId(id))), Command::Removed { dead: Some(_), .. }));
        }
        net.advance(Nanos::from_millis(1));
        host.engine.housekeeping();
    }
    // All but two of each eight; as many at least as find a place if the waker never runs.
    let handed = host.count(WakesHandedOver);
    assert!(handed >= QUEUE_PLACES as u64 && handed <= 200 * 6, "{handed}");
    assert!(waker.is_alive());
}
