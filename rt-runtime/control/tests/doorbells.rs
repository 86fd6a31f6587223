//! Who rings the doorbell of a sleeping datapath without end, on a whole runtime.
#![forbid(unsafe_code)]

mod peer;

use insane_config::{Idle, Plan};
use insane_control::{Hosting, Runtime};
use insane_core::{Nanos, Qos};
use insane_sys::event::signal;
use insane_wire::control::SinkWake;
use insane_wire::status::StatusReport;
use peer::{HEAP, Peer};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a flood lasts.
const FLOOD: Duration = Duration::from_secs(1);
/// Wake-ups in vain that a session has a second, and at once.
const FREE: (f64, f64) = (1000.0, 101.0);

fn runtime(idle: Idle) -> Runtime {
    let mut plan = Plan::embedded_default();
    plan.datapaths[0].idle = idle;
    Runtime::start(plan, Hosting::Thread).unwrap()
}

/// A source and a sink with the datapath between them.
fn conversation(runtime: &Runtime, name: &str) -> (Peer, Peer) {
    let mut a = Peer::attach(runtime.attach_in_process().unwrap());
    let mut b = Peer::attach(runtime.attach_in_process().unwrap());
    let (stream_a, stream_b) = (a.open(name, Qos::default(), true), b.open(name, Qos::default(), true));
    a.source(stream_a, &HEAP).unwrap();
    b.sink(stream_b, SinkWake::Never).unwrap();
    while a.tx.is_empty() || b.rx.is_empty() {
        a.settle();
        b.settle();
    }
    (a, b)
}

/// Rings as fast as it can until it is dropped.
struct Flood {
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Flood {
    fn start(doorbell: OwnedFd) -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut rings = 0;
            while !seen.load(Ordering::Relaxed) {
                signal(&doorbell).unwrap();
                rings += 1;
            }
            rings
        });
        Flood { ends, thread: Some(thread) }
    }

    fn end(&mut self) -> u64 {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().map_or(0, |thread| thread.join().unwrap())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

fn count(report: &StatusReport, name: &str) -> u64 {
    report.datapaths[0].counters[name]
}

/// Doorbell counts of the one session of four that floods, and the most of any other.
fn of_sessions(report: &StatusReport, name: &str) -> (u64, u64) {
    let mut counts: Vec<u64> = report.domains[0].sessions.iter().map(|session| session.counters[name]).collect();
    counts.sort_unstable();
    let most = counts.pop().unwrap();
    (most, counts.pop().unwrap())
}

/// Floods a datapath that has nothing else to do; what its counters grew by, and how long it was.
fn flooded(idle: Idle) -> (Runtime, impl Fn(&str) -> f64, f64) {
    let runtime = runtime(idle);
    let (mut floods, _hears) = conversation(&runtime, "flood");
    let before = runtime.status().unwrap();
    let start = Instant::now();
    let mut flood = Flood::start(floods.doorbell.take().unwrap());
    std::thread::sleep(FLOOD);
    let rings = flood.end();
    let after = runtime.status().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    let grown = move |name: &str| (count(&after, name) - count(&before, name)) as f64;
    println!("{idle:?}: {rings} rings, {} sleeps, {} turns", grown("sleeps"), grown("turns"));
    assert!(grown("doorbells_in_vain") > 0.0 && rings as f64 > 5.0 * FREE.0);
    (runtime, grown, seconds)
}

#[test]
fn a_flood_wakes_a_datapath_as_often_as_its_session_may() {
    let (_runtime, grown, seconds) = flooded(Idle::Block);
    let free = FREE.0 * seconds + FREE.1;
    // One more for each time that it was put out, and the sleeps while it was.
    let most = free + 2.0 * grown("doorbells_put_out") + 30.0 * seconds;
    assert!(grown("doorbells_put_out") > 0.0);
    assert!(grown("doorbells_in_vain") <= most && grown("sleeps") <= most, "of {most}");
}

#[test]
fn a_flood_does_not_keep_a_datapath_spinning() {
    // Longer than the time between two wake-ups that it is still granted.
    let (_runtime, grown, _) = flooded(Idle::SpinThenBlock { spin: Nanos::from_millis(5) });
    // It looks at the clock every 16 turns.
    assert!(grown("turns") <= 40.0 * grown("sleeps"), "{} turns, {} sleeps", grown("turns"), grown("sleeps"));
}

#[test]
fn messages_of_others_and_of_who_floods_arrive() {
    let runtime = runtime(Idle::Block);
    let (mut floods, mut hears) = conversation(&runtime, "flood");
    let (mut honest, mut sink) = conversation(&runtime, "honest");
    let mut flood = Flood::start(floods.doorbell.take().unwrap());
    let put_out = || count(&runtime.status().unwrap(), "doorbells_put_out");
    let start = Instant::now();
    while put_out() == 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "it is never put out");
        std::thread::sleep(Duration::from_millis(1));
    }
    // Others are heard at once, by their own doorbells.
    for number in 0..500_u32 {
        honest.emit(number.into(), &number.to_le_bytes());
        assert_eq!(sink.consume(), number.to_le_bytes());
    }
    // Its own come when it is heard again, half of a rest later if the time is random. A datapath
    // that slept its longest sleep meanwhile would need ten times as long, five seconds in all.
    let mut waited = Duration::ZERO;
    for number in 0..100_u32 {
        std::thread::sleep(Duration::from_micros(3_000 + u64::from(number) * 70));
        let start = Instant::now();
        floods.emit(number.into(), &number.to_le_bytes());
        assert_eq!(hears.consume(), number.to_le_bytes());
        waited += start.elapsed();
    }
    flood.end();
    let report = runtime.status().unwrap();
    println!("100 messages waited for {waited:?}");
    assert!(waited < Duration::from_secs(2), "{waited:?}");
    let (worst, others) = of_sessions(&report, "doorbells_put_out");
    assert!(worst > 0 && others == 0, "{worst}, {others}");
    assert_eq!(report.domains[0].counters["violations"], 0);
}

#[test]
fn who_emits_as_fast_as_it_can_is_never_put_out() {
    let runtime = runtime(Idle::Block);
    let (mut honest, mut sink) = conversation(&runtime, "honest");
    // Some of a burst are rung for while the datapath has them already.
    for burst in 0..2_000_u32 {
        let numbers = || (0..16).map(|number| (burst * 16 + number).to_le_bytes());
        numbers().for_each(|number| honest.emit(0, &number));
        numbers().for_each(|number| assert_eq!(sink.consume(), number));
    }
    let report = runtime.status().unwrap();
    assert_eq!(count(&report, "doorbells_put_out"), 0);
    println!("{} rings in vain of 32,000 messages", count(&report, "doorbells_in_vain"));
}
