//! Slots through the public API over udp: hosted by a thread and by the application itself,
//! and with values that are kept for sinks that join later. How well slots are kept is not
//! judged: the machine is shared.

use insane_config::{RatePlan, Technology, UdpPlan};
use insane_rt::{
    ChannelId, ClassSpec, Determinism, Hosting, LatePolicy, Nanos, Plan, ProcessSource, ProcessSourceOptions, Qos,
    Session, Sink, SinkOptions, Source, SourceOptions,
};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

const CHANNEL: ChannelId = ChannelId(1);
const PATIENCE: Duration = Duration::from_secs(20);
const PERIOD: Duration = Duration::from_millis(4);
const BYTES: u32 = 40;
const KEPT: usize = 3;

/// A free pair of ports (a link uses its port and the next).
fn free_ports() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 13_000 + (std::process::id() % 17_000) as u16;
    for _ in 0..1000 {
        let port = base + 2 * NEXT.fetch_add(1, Ordering::Relaxed);
        if [port, port + 1].iter().all(|port| UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()) {
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
    panic!("no free pair of ports")
}

/// Two runtimes whose link has a rate.
fn pair() -> [Plan; 2] {
    let (at_a, at_b) = (free_ports(), free_ports());
    let plan = |own: (&str, SocketAddr), peer: (&str, SocketAddr)| {
        let mut plan = Plan::embedded_over(own.0, Technology::Udp(UdpPlan::at(own.1)));
        plan.domains[0].receive = vec![ClassSpec { size: 256, count: 1024 }];
        plan.datapaths[0].links[0].rate = Some(RatePlan { turn: Nanos::from_micros(200), ..RatePlan::of(100) });
        plan.add_peer(peer.0, &[("udp", peer.1)]);
        plan
    };
    [plan(("a", at_a), ("b", at_b)), plan(("b", at_b), ("a", at_a))]
}

fn in_slots() -> Qos {
    in_slots_as(LatePolicy::NextSlot)
}

fn in_slots_as(late: LatePolicy) -> Qos {
    let period = Nanos(PERIOD.as_nanos() as u64);
    let determinism = Determinism::TimeSensitive { period, offset: Nanos::ZERO, deadline: period, size: BYTES, late };
    Qos { determinism, ..Qos::default() }
}

/// A counter of the slots of a runtime.
fn count(session: &Session, counter: &str) -> u64 {
    let report = session.runtime().expect("it is embedded").status().expect("a report");
    report.datapaths[0].counters[counter]
}

/// Waits while the engines turn that their applications turn.
#[track_caller]
fn wait_for(sessions: &[&Session], what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        let turned = sessions.iter().filter(|session| session.turn()).count();
        if turned == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

fn value(number: u64) -> Vec<u8> {
    (0..u64::from(BYTES)).map(|at| (at * 7 + number) as u8).collect()
}

fn emit(source: &Source, number: u64) {
    let mut buffer = source.get_buffer(BYTES as usize).unwrap();
    buffer.copy_from_slice(&value(number));
    assert!(source.emit(buffer).is_sent());
}

/// What came: numbers, and whether they are of the past.
fn take(sink: &Sink, into: &mut Vec<(u64, bool)>) {
    while let Some(message) = sink.consume().unwrap() {
        assert_eq!((message.to_vec(), message.lost()), (value(message.sequence()), 0));
        into.push((message.sequence(), message.is_history()));
    }
}

#[test]
fn messages_go_in_slots_whoever_turns_the_engine() {
    for hosting in [Hosting::Thread, Hosting::Inline] {
        let [plan_a, plan_b] = pair();
        let here = Session::embedded_with(plan_a, hosting, "source").unwrap();
        let there = Session::embedded_with(plan_b, hosting, "sink").unwrap();
        let both = [&here, &there];
        let source = here.stream("axis", in_slots()).unwrap().source(CHANNEL, SourceOptions::default()).unwrap();
        let sink = there.stream("axis", in_slots()).unwrap().sink(CHANNEL, SinkOptions::default()).unwrap();
        wait_for(&both, "both are joined", || source.receivers() == 1);
        wait_for(&both, "slots are in force", || count(&here, "slots_unused") > 0);
        let sent = count(&here, "slots_sent");
        let mut came = Vec::new();
        for number in 0..50 {
            emit(&source, number);
            // The next one when this one is there: a source that turns nothing meanwhile waits.
            wait_for(&both, "it comes", || {
                take(&sink, &mut came);
                came.len() as u64 == number + 1
            });
        }
        assert_eq!(came, (0..50).map(|number| (number, false)).collect::<Vec<_>>(), "{hosting:?}");
        wait_for(&both, "each was counted in a slot", || count(&here, "slots_sent") == sent + 50);
        assert_eq!(count(&here, "slots_oversize") + count(&here, "late_dropped"), 0);
        // Left alone by its application, the keeper turns for it.
        emit(&source, 50);
        let end = Instant::now() + PATIENCE;
        while came.len() < 51 {
            assert!(Instant::now() < end, "{hosting:?}: nobody turns for an application that does not");
            std::thread::sleep(Duration::from_millis(1));
            take(&sink, &mut came);
        }
        assert_eq!(count(&here, "late_dropped"), 0);
    }
}

#[test]
fn who_joins_late_gets_the_past_in_slots_and_then_what_follows() {
    let cases = [LatePolicy::NextSlot, LatePolicy::NewestWins];
    for (hosting, late) in [Hosting::Thread, Hosting::Inline].into_iter().flat_map(|one| cases.map(|late| (one, late)))
    {
        let [plan_a, plan_b] = pair();
        let here = Session::embedded_with(plan_a, hosting, "source").unwrap();
        let options = ProcessSourceOptions::new(BYTES).history(KEPT);
        let mut source: ProcessSource =
            here.stream("axis", in_slots_as(late)).unwrap().process_source(CHANNEL, options).unwrap();
        wait_for(&[&here], "slots are in force", || count(&here, "slots_unused") > 0);
        let mut next = 0;
        for _ in 0..10 {
            let _nobody_listens = source.emit(&value(next)).unwrap();
            next += 1;
            here.turn();
        }
        // Two lives of the other runtime.
        for life in 0..2 {
            let there = Session::embedded_with(plan_b.clone(), hosting, "sinks").unwrap();
            let both = [&here, &there];
            let sink = there.stream("axis", in_slots_as(late)).unwrap().sink(CHANNEL, SinkOptions::default()).unwrap();
            let mut came = Vec::new();
            wait_for(&both, "the past comes", || {
                source.attend();
                take(&sink, &mut came);
                came.len() >= KEPT
            });
            let sent = count(&here, "slots_sent");
            let first = next;
            while next < first + 20 {
                assert!(source.emit(&value(next)).unwrap().is_sent());
                next += 1;
                let want = KEPT + (next - first) as usize;
                wait_for(&both, "what follows comes", || {
                    take(&sink, &mut came);
                    came.len() >= want
                });
            }
            let past = (first - KEPT as u64..first).map(|number| (number, true));
            let all: Vec<_> = past.chain((first..next).map(|number| (number, false))).collect();
            assert_eq!(came, all, "{hosting:?}, {late:?}, life {life}");
            wait_for(&both, "each was counted in a slot", || count(&here, "slots_sent") >= sent + 20);
        }
        assert_eq!(count(&here, "slots_oversize") + count(&here, "late_dropped"), 0, "{hosting:?}");
    }
}
