//! Sessions share lanes equally and keep to their budgets, in virtual time.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::time::Clock;
use insane_core::{ChannelId, Lane, MonoTime, Nanos, SessionId};
use insane_engine::Topic;
use insane_scheduler::Policing;
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{SimConfig, SimNet};
use insane_wire::data::HEADER_BYTES;
use std::num::NonZeroU64;
use world::{Host, TOPIC, pair};

const MESSAGE_BYTES: u64 = 80;
const FRAME_BYTES: u64 = MESSAGE_BYTES + HEADER_BYTES as u64;

fn topic(channel: u32) -> Topic {
    Topic { channel: ChannelId(channel), ..TOPIC }
}

fn budget(rate: u64, burst_bytes: u32) -> Option<Policing> {
    Some(Policing { rate_bytes_per_s: NonZeroU64::new(rate).unwrap(), burst_bytes })
}

fn source(host: &mut Host, session: u32, budget: Option<Policing>, channel: u32) -> SourcePort {
    (host.session, host.budget) = (SessionId(session), budget);
    let source = host.source(topic(channel), Lane::LAST, &[]);
    host.route(topic(channel), &[0], false);
    source
}

/// Emits whatever the rings take, for `time`; messages that came to each sink.
fn flood(net: &SimNet, (a, b): (&mut Host, &mut Host), ends: &[(SourcePort, SinkPort)], time: Nanos) -> Vec<u64> {
    let mut came = vec![0; ends.len()];
    let until = net.clock().now() + time;
    while net.clock().now() < until {
        for (at, (source, sink)) in ends.iter().enumerate() {
            let _ = source.emit_copy(&[7; MESSAGE_BYTES as usize], 0);
            while sink.consume().unwrap().is_some() {
                came[at] += 1;
            }
        }
        a.engine.turn();
        b.engine.turn();
        a.engine.note_time(net.clock().now());
        net.advance(Nanos::from_micros(5));
    }
    came
}

#[test]
fn the_sources_of_a_session_keep_to_its_budget_together_and_others_do_not_wait() {
    const RATE: u64 = 4_000_000;
    const BURST: u32 = 20_000;
    let net = SimNet::new(31, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 64)]);
    let mut ends = Vec::new();
    for channel in 1..=4 {
        let (session, budget) = if channel < 4 { (1, budget(RATE, BURST)) } else { (2, None) };
        let sink = b.sink(topic(channel)).0;
        ends.push((source(&mut a, session, budget, channel), sink));
    }
    let time = Nanos::from_millis(100);
    let came = flood(&net, (&mut a, &mut b), &ends, time);
    let bytes = (came[0] + came[1] + came[2]) * FRAME_BYTES;
    let most = u64::from(BURST) + RATE * time.0 / 1_000_000_000;
    assert!(bytes <= most, "{bytes} bytes of {most}");
    assert!(bytes >= most * 9 / 10, "{bytes} bytes of {most}");
    // Each of its sources has its part, and the other session all that it emitted but a ring.
    assert!(came[..3].iter().all(|one| one * 4 >= came[0]), "{came:?}");
    assert!(came[3] * FRAME_BYTES > 2 * most, "{came:?}");
    assert!(a.count(DatapathCounter::BudgetUsedUp) > 10);
}

#[test]
fn a_session_alone_keeps_to_its_budget_and_lets_the_thread_sleep_until_it_can_pay() {
    let net = SimNet::new(32, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 64)]);
    let sink = b.sink(topic(1)).0;
    // One frame every second or so: a burst of one byte counts as a frame of the link.
    let source = source(&mut a, 1, budget(1_500, 1), 1);
    for _ in 0..40 {
        let _ = source.emit_copy(&[7; MESSAGE_BYTES as usize], 0);
    }
    let mut came = 0;
    for _ in 0..200 {
        a.engine.turn();
        b.engine.turn();
        net.advance(Nanos::from_micros(5));
        came += u64::from(sink.consume().unwrap().is_some());
    }
    assert!((1..40).contains(&came), "{came} came at once");
    assert!(!a.engine.has_work(), "what waits for a budget is no work");
    let due = a.engine.slot_due().expect("it says when it can pay");
    assert!(due > net.clock().now() && due < net.clock().now() + Nanos::from_secs(2));
    net.advance(due.since(net.clock().now()));
    a.engine.note_time(net.clock().now());
    a.engine.turn();
    assert_ne!(a.engine.slot_due(), Some(due), "then it goes on");
    assert!(net.clock().now() > MonoTime(0));
}

#[test]
fn sessions_share_a_lane_equally_however_many_sources_they_have() {
    let net = SimNet::new(33, SimConfig { frames_max: 64, ..SimConfig::default() });
    let (mut a, mut b) = pair(&net, &[(65_536, 64)]);
    let mut ends = Vec::new();
    for channel in 1..=6 {
        (a.session, a.budget) = (SessionId(if channel < 6 { 1 } else { 2 }), None);
        let source = a.source(topic(channel), Lane::LAST, &[(40_000, 16)]);
        a.route(topic(channel), &[0], false);
        ends.push((source, b.sink(topic(channel)).0));
    }
    let mut came = [0_u64; 6];
    for _ in 0..3_000 {
        for (at, (source, sink)) in ends.iter().enumerate() {
            if let Ok(buffer) = source.get_buffer(40_000) {
                let _ = source.emit(buffer, 0);
            }
            while sink.consume().unwrap().is_some() {
                came[at] += 1;
            }
        }
        a.engine.turn();
        b.engine.turn();
        net.advance(Nanos::from_micros(50));
    }
    let (many, one) = (came[..5].iter().sum::<u64>(), came[5]);
    assert!(many + one > 300, "{came:?}");
    assert!(many.abs_diff(one) <= 6, "{came:?}");
}

/// What is ready and only waits has no need of a turn: quiet sources of who rang have their looks.
#[test]
fn who_rings_is_found_at_once_while_another_session_waits_for_its_budget() {
    const BURST: u32 = 2_000;
    let net = SimNet::new(34, SimConfig::default());
    let (mut a, _b) = pair(&net, &[]);
    a.session = SessionId(2);
    let sources: Vec<_> = (0..200).map(|_| a.source(TOPIC, Lane::LAST, &[])).collect();
    let sink = a.sink(TOPIC).0;
    a.route(TOPIC, &[], true);
    for _ in 0..3_000 {
        a.engine.turn();
    }
    let waits = source(&mut a, 1, budget(1_000, BURST), 9);
    for _ in 0..100 {
        assert!(waits.emit_copy(&[7; MESSAGE_BYTES as usize], 0).unwrap().is_sent());
    }
    for _ in 0..100 {
        a.engine.turn();
    }
    assert!(a.count(DatapathCounter::BudgetUsedUp) > 0 && a.count(DatapathCounter::FramesSent) < 30);
    let mut most = 0;
    for source in &sources[20..30] {
        assert!(source.emit_copy(b"found", 0).unwrap().is_sent());
        a.engine.note_ring(SessionId(2));
        let found = (1..=3_200).find(|_| {
            a.engine.turn();
            sink.consume().unwrap().is_some()
        });
        most = most.max(found.expect("it is found"));
    }
    assert!(most <= 200 / 64 + 2, "{most} turns");
}

/// The quotas bound how many sessions have a budget, and nothing how many have none.
#[test]
fn a_session_with_a_budget_has_a_place_for_it_whoever_without_one_came_before() {
    const RATE: u64 = 4_000_000;
    const BURST: u32 = 20_000;
    let net = SimNet::new(35, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 64)]);
    let sinks: Vec<SinkPort> = (1..=2).map(|channel| b.sink(topic(channel)).0).collect();
    let before: Vec<_> = (1..=256).map(|session| source(&mut a, session, None, 1)).collect();
    let bounded = source(&mut a, 300, budget(RATE, BURST), 2);
    let (mut came, mut emitted) = ([0_u64; 2], 0_u64);
    let time = Nanos::from_millis(20);
    let until = net.clock().now() + time;
    while net.clock().now() < until {
        let _ = bounded.emit_copy(&[7; MESSAGE_BYTES as usize], 0);
        for source in [&before[0], &before[255]] {
            emitted += u64::from(source.emit_copy(&[7; MESSAGE_BYTES as usize], 0).unwrap().is_sent());
        }
        for (came, sink) in came.iter_mut().zip(&sinks) {
            while sink.consume().unwrap().is_some() {
                *came += 1;
            }
        }
        a.engine.turn();
        b.engine.turn();
        a.engine.note_time(net.clock().now());
        net.advance(Nanos::from_micros(5));
    }
    let most = u64::from(BURST) + RATE * time.0 / 1_000_000_000;
    let bytes = came[1] * FRAME_BYTES;
    assert!((most * 9 / 10..=most).contains(&bytes), "{bytes} bytes of {most}");
    // Whoever made room goes on.
    assert!(came[0] + 600 > emitted && came[0] > 2 * came[1], "{came:?} of {emitted}");
}
