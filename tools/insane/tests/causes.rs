//! Causes of misses with the truth known, on the kernel's own clock and scheduler: an application
//! that sleeps beyond its slot, and a thread of higher priority that takes the datapath's core
//! while it sleeps. What could not be injected as it was meant, since the machine is shared, is
//! left out; the matrix is printed.

mod common;

use common::{peers_over_loopback, wait_for};
use insane_core::{Cause, LatePolicy};
use insane_rt::{ChannelId, Determinism, Emit, MonoTime, Nanos, Priority, Qos, Session, SinkOptions, SourceOptions};
use insane_shm::misses::{file_of, read};
use insane_sys::clock::mono_now;
use insane_sys::thread::{SchedPolicy, cores, pin_current, set_policy_current};
use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::Duration;

const MS: u64 = 1_000_000;
const PERIOD: Nanos = Nanos::from_millis(20);
/// Of each kind; the core is taken for 4 ms each time, 160 ms in all.
const EACH: usize = 40;
/// So many of each kind have to be injected as they were meant, or nothing is judged.
const FEWEST: usize = 15;

/// What is done to a message.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Truth {
    InTime,
    ApplicationLate,
    WakeLate,
}

fn sleep_until(at: MonoTime) {
    std::thread::sleep(Duration::from(at.since(mono_now())));
}

/// Takes a core from an instant to another, and says from when to when it really had it.
fn hog(core: usize, orders: &mpsc::Receiver<(MonoTime, MonoTime)>, done: &mpsc::Sender<(MonoTime, MonoTime)>) {
    pin_current(core).unwrap();
    set_policy_current(SchedPolicy::Fifo(60)).unwrap();
    while let Ok((from, to)) = orders.recv() {
        sleep_until(from);
        let begun = mono_now();
        while mono_now() < to {
            std::hint::spin_loop();
        }
        done.send((begun, mono_now())).unwrap();
    }
}

#[test]
fn causes_that_are_injected_on_a_real_kernel_are_told_as_they_are() {
    let all = cores();
    let (Some(core), true) = (all.last().copied(), all.len() >= 2 && insane_sys::privileges::can_use_fifo().is_ok())
    else {
        eprintln!("passed over: it takes two cores and SCHED_FIFO");
        return;
    };
    let (here, there) = peers_over_loopback("causes", &format!("core: {core}, policy: fifo(40)"));
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let determinism = Determinism::TimeSensitive {
        period: PERIOD,
        offset: Nanos::ZERO,
        deadline: PERIOD,
        size: 64,
        late: LatePolicy::Drop,
    };
    let qos = Qos { determinism, priority: Priority::MAX, ..Qos::default() };
    let source = a.stream("axis", qos).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    let _sink = b.stream("axis", qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("they are joined", || source.receivers() == 1);
    wait_for("the slots are in force", || here.status().datapaths[0].counters["slots_unused"] > 2);
    let status = here.status();
    let slot = status.streams.iter().flat_map(|stream| &stream.channels).flat_map(|channel| &channel.sources);
    let slot = slot.filter_map(|source| source.slot.as_ref()).next().expect("it has slots").start_ns;
    let offset = status.datapaths[0].slot_offset_ns.expect("slots have a clock");

    let ((order, orders), (tell, done)) = (mpsc::channel(), mpsc::channel());
    let hogging = std::thread::spawn(move || hog(core, &orders, &tell));
    let mut truths: BTreeMap<u64, Truth> = BTreeMap::new();
    for round in 0..EACH * 3 {
        let truth = [Truth::InTime, Truth::ApplicationLate, Truth::WakeLate][round % 3];
        // The slot after the next: there is time to prepare it.
        let tai = mono_now().0.wrapping_add(offset);
        let planned = MonoTime((tai / PERIOD.0 + 2).wrapping_mul(PERIOD.0).wrapping_add(slot).wrapping_sub(offset));
        if truth == Truth::WakeLate {
            order.send((planned - Nanos(2 * MS), planned + Nanos(2 * MS))).unwrap();
        }
        sleep_until(if truth == Truth::ApplicationLate { planned + Nanos(3 * MS) } else { planned - Nanos(6 * MS) });
        let before = mono_now();
        let Ok(Emit::Sent(token)) = source.emit_copy(&[1; 8]) else { panic!("there is room for one a cycle") };
        let after = mono_now();
        let taken = (truth == Truth::WakeLate).then(|| done.recv().unwrap());
        let is_as_meant = match truth {
            Truth::InTime => after + Nanos(4 * MS) < planned,
            Truth::ApplicationLate => before > planned + Nanos(2 * MS) && after < planned + Nanos(9 * MS),
            Truth::WakeLate => taken.is_some_and(|(from, to)| {
                after + Nanos(3 * MS) < planned && from + Nanos(MS) < planned && to > planned + Nanos(MS)
            }),
        };
        if is_as_meant {
            truths.insert(token.sequence(), truth);
        }
        sleep_until(planned + Nanos(11 * MS));
    }
    drop(order);
    hogging.join().unwrap();
    let records = read(&file_of(&here.socket())).unwrap();
    let noted: BTreeMap<u64, Cause> = records[0].since(0).iter().map(|(_, miss)| (miss.sequence, miss.cause)).collect();
    let mut matrix: BTreeMap<(Truth, &str), usize> = BTreeMap::new();
    for (sequence, truth) in &truths {
        *matrix.entry((*truth, noted.get(sequence).map_or("in time", |cause| cause.name()))).or_default() += 1;
    }
    println!("{matrix:#?}");
    let count = |truth: Truth| truths.values().filter(|other| **other == truth).count();
    let told = |truth: Truth, name: &str| matrix.get(&(truth, name)).copied().unwrap_or(0);
    if [Truth::InTime, Truth::ApplicationLate, Truth::WakeLate].iter().any(|truth| count(*truth) < FEWEST) {
        eprintln!("passed over: too little could be injected as it was meant: {matrix:?}");
        return;
    }
    // What the host does besides has causes of its own: nine of ten are as injected.
    for (truth, name) in [(Truth::ApplicationLate, "application late"), (Truth::WakeLate, "wake late")] {
        assert!(told(truth, name) * 10 >= count(truth) * 9, "{truth:?}: {matrix:?}");
    }
    assert!(told(Truth::InTime, "in time") * 10 >= count(Truth::InTime) * 9, "{matrix:?}");
    // Nobody is blamed for what another did.
    assert_eq!(told(Truth::InTime, "application late") + told(Truth::WakeLate, "application late"), 0, "{matrix:?}");
    assert_eq!(told(Truth::ApplicationLate, "wake late"), 0, "{matrix:?}");
}
