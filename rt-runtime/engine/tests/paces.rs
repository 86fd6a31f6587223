//! Best effort of a link is held to what the link may carry of it, in virtual time.

mod world;

use insane_core::counters::DatapathCounter;
use insane_core::time::Clock;
use insane_core::{ChannelId, Lane, Nanos, PeerIndex, SessionId};
use insane_engine::{Command, Hop, Pace, Topic};
use insane_scheduler::Policing;
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{SimConfig, SimNet};
use insane_wire::data::HEADER_BYTES;
use std::num::NonZeroU64;
use world::{DOMAIN, Host, TOPIC, pair};

const MESSAGE_BYTES: u64 = 80;
const FRAME_BYTES: u64 = MESSAGE_BYTES + HEADER_BYTES as u64;
const RATE: u64 = 8_000_000;
const BURST: u32 = 8_000;

fn topic(channel: u32) -> Topic {
    Topic { channel: ChannelId(channel), ..TOPIC }
}

fn pace(host: &mut Host, link: u8, rate: Option<u64>) {
    let most = rate.map(|rate| Policing { rate_bytes_per_s: NonZeroU64::new(rate).unwrap(), burst_bytes: BURST });
    assert!(matches!(host.command(Command::SetPace(Pace { link, most })), Command::Spent));
}

fn lane(number: u8) -> Lane {
    Lane::new(number).unwrap()
}

/// A stream from one host to the other; sources of several sessions.
struct Talk {
    source: SourcePort,
    sink: SinkPort,
    /// Messages emitted a step, at most.
    each: u32,
    emitted: u64,
    came: u64,
}

fn talk((a, b): (&mut Host, &mut Host), channel: u32, lane: Lane, each: u32) -> Talk {
    a.session = SessionId(channel);
    let source = a.source(topic(channel), lane, &[]);
    let sink = b.sink(topic(channel)).0;
    a.route(topic(channel), &[0], false);
    Talk { source, sink, each, emitted: 0, came: 0 }
}

/// All emit what they want to and their rings take, for `time`.
fn run(net: &SimNet, (a, b): (&mut Host, &mut Host), talks: &mut [Talk], time: Nanos) -> Vec<u64> {
    let before: Vec<u64> = talks.iter().map(|talk| talk.came).collect();
    let until = net.clock().now() + time;
    while net.clock().now() < until {
        for talk in talks.iter_mut() {
            for _ in 0..talk.each {
                let sent = talk.source.emit_copy(&[7; MESSAGE_BYTES as usize], 0).unwrap();
                talk.emitted += u64::from(sent.is_sent());
            }
        }
        for _ in 0..3 {
            a.engine.turn();
            b.engine.turn();
        }
        for talk in talks.iter_mut() {
            while talk.sink.consume().unwrap().is_some() {
                talk.came += 1;
            }
        }
        a.engine.note_time(net.clock().now());
        net.advance(Nanos::from_micros(10));
    }
    talks.iter().zip(before).map(|(talk, before)| talk.came - before).collect()
}

fn bytes(messages: u64) -> u64 {
    messages * FRAME_BYTES
}

/// What the pace lets go in this time, at most.
fn most(rate: u64, time: Nanos) -> u64 {
    u64::from(BURST) + rate * time.0 / 1_000_000_000
}

#[test]
fn premium_and_real_time_keep_their_rates_beside_a_flood_that_waits_in_its_ring() {
    let net = SimNet::new(41, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 64)]);
    pace(&mut a, 0, Some(RATE));
    // Premium sends one message in 50 us, a third of the pace; real time as much as floods do.
    let mut talks: Vec<Talk> = (1..=4).map(|channel| talk((&mut a, &mut b), channel, lane(6), 2)).collect();
    talks.push(talk((&mut a, &mut b), 5, lane(3), 0));
    talks.push(talk((&mut a, &mut b), 6, Lane::LAST_REAL_TIME, 2));
    let (mut premium, mut total, mut floods) = (0, 0, [0; 4]);
    let steps = 400;
    for _ in 0..steps {
        talks[4].each = 1;
        let first = run(&net, (&mut a, &mut b), &mut talks, Nanos::from_micros(10));
        talks[4].each = 0;
        let rest = run(&net, (&mut a, &mut b), &mut talks, Nanos::from_micros(40));
        premium += first[4] + rest[4];
        for (at, flood) in floods.iter_mut().enumerate() {
            *flood += first[at] + rest[at];
        }
        total += first[5] + rest[5];
    }
    let time = Nanos::from_micros(50 * steps);
    assert!(premium + 3 >= steps, "{premium} of {steps}");
    let best_effort = bytes(premium + floods.iter().sum::<u64>());
    let most = most(RATE, time);
    assert!((most * 95 / 100..=most).contains(&best_effort), "{best_effort} of {most}");
    // Equally, but for what is there at first.
    let burst = u64::from(BURST) / FRAME_BYTES;
    assert!(floods.iter().all(|one| one + burst > floods[0]), "{floods:?}");
    assert!(bytes(total) > 2 * most, "real time waits for no pace: {total}");
    assert!(a.count(DatapathCounter::BudgetUsedUp) > 100);
    // What waits in the rings comes, all of it. (What a full ring has no room for, its source counts.)
    talks.iter_mut().for_each(|talk| talk.each = 0);
    run(&net, (&mut a, &mut b), &mut talks, Nanos::from_millis(100));
    talks.iter_mut().for_each(|talk| (talk.each, talk.emitted) = (200, 0));
    let at_once = run(&net, (&mut a, &mut b), &mut talks, Nanos::from_micros(10));
    talks.iter_mut().for_each(|talk| talk.each = 0);
    let later = run(&net, (&mut a, &mut b), &mut talks, Nanos::from_millis(100));
    for ((talk, at_once), later) in talks.iter().zip(at_once).zip(later) {
        assert_eq!((talk.emitted, at_once + later), (200, 200));
    }
}

#[test]
fn another_pace_holds_at_once_and_none_frees() {
    let net = SimNet::new(42, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 64)]);
    let mut talks = vec![talk((&mut a, &mut b), 1, Lane::LAST, 2)];
    let time = Nanos::from_millis(20);
    let mut rate_of = |a: &mut Host, rate: Option<u64>| {
        pace(a, 0, rate);
        run(&net, (a, &mut b), &mut talks, Nanos::from_millis(1));
        bytes(run(&net, (a, &mut b), &mut talks, time)[0])
    };
    let free = rate_of(&mut a, None);
    let slow = rate_of(&mut a, Some(RATE / 100));
    let fast = rate_of(&mut a, Some(RATE));
    assert!(free > 2 * most(RATE, time), "{free}");
    assert!(slow <= most(RATE / 100, time), "{slow}");
    assert!((most(RATE, time) * 9 / 10 - u64::from(BURST)..=most(RATE, time)).contains(&fast), "{fast}");
    assert!(rate_of(&mut a, Some(RATE / 1_000)) <= most(RATE / 1_000, time));
    assert_eq!(rate_of(&mut a, None), free);
}

/// Alone, it is held to it too, and the thread may sleep until it can go on.
#[test]
fn who_is_paced_alone_lets_the_thread_sleep() {
    let net = SimNet::new(43, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 64)]);
    pace(&mut a, 0, Some(1_500));
    let mut talks = vec![talk((&mut a, &mut b), 1, Lane::LAST, 2)];
    let came = run(&net, (&mut a, &mut b), &mut talks, Nanos::from_millis(5))[0];
    assert!(bytes(came) <= u64::from(BURST) + 100 && came > 40, "{came}");
    assert!(!a.engine.has_work(), "what waits for its link's budget is no work");
    let due = a.engine.slot_due().expect("it says when it can go on");
    assert!(due > net.clock().now() && due < net.clock().now() + Nanos::from_secs(2));
}

#[test]
fn who_goes_by_another_link_is_not_held_and_pays_from_when_it_comes_back() {
    let net = SimNet::new(44, SimConfig::default());
    let (mut a, mut b) = pair(&net, &[(2048, 64)]);
    // Link 1 is paced, by which nobody goes.
    pace(&mut a, 1, Some(RATE / 100));
    let mut talks = vec![talk((&mut a, &mut b), 1, Lane::LAST, 2)];
    let time = Nanos::from_millis(10);
    let free = bytes(run(&net, (&mut a, &mut b), &mut talks, time)[0]);
    assert!(free > most(RATE, time), "{free}");
    let by = |a: &mut Host, link| {
        let peers = heapless::Vec::from_slice(&[Hop { peer: PeerIndex(0), link }]).unwrap();
        a.command(Command::SetRoute { topic: topic(1), domain: DOMAIN, peers, local: false });
    };
    pace(&mut a, 0, Some(RATE / 10));
    run(&net, (&mut a, &mut b), &mut talks, Nanos::from_millis(1));
    let held = bytes(run(&net, (&mut a, &mut b), &mut talks, time)[0]);
    assert!(held <= most(RATE / 10, time), "{held}");
    // By name, too, and after the route went nowhere for a while.
    by(&mut a, Some(0));
    assert!(bytes(run(&net, (&mut a, &mut b), &mut talks, time)[0]) <= most(RATE / 10, time));
    pace(&mut a, 0, None);
    assert!(bytes(run(&net, (&mut a, &mut b), &mut talks, time)[0]) > most(RATE, time));
    assert_eq!(a.count(DatapathCounter::FramesFailed), 0);
}
