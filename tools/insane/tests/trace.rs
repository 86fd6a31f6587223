//! `insane trace` beside a real daemon whose core a thread of higher priority takes now and
//! then: the misses that follow are on the timeline with who ran. Where tracing is not possible
//! or a core must be left free, it says so and passes over itself.
#![cfg(feature = "trace")]

mod common;

use common::{Process, peers_over_loopback, text, wait_for};
use insane_rt::{ChannelId, Determinism, Nanos, Priority, Qos, Session, SinkOptions, SourceOptions};
use insane_sys::thread::{SchedPolicy, cores, pin_current, set_name, set_policy_current};
use std::time::{Duration, Instant};

const PERIOD: Nanos = Nanos::from_millis(2);
/// Each time, and in all: a core is taken for 120 ms at most.
const HOG: Duration = Duration::from_millis(6);
const HOGS: usize = 20;

#[test]
fn a_thread_that_takes_the_core_is_on_the_timeline_of_the_misses_it_caused() {
    let cores = cores();
    if cores.len() < 2 || insane_sys::privileges::can_use_fifo().is_err() {
        eprintln!("passed over: it takes two cores and SCHED_FIFO");
        return;
    }
    let core = *cores.last().unwrap();
    let (here, there) = peers_over_loopback("trace", &format!("core: {core}, policy: fifo(40)"));
    let (a, b) = (Session::attach(here.socket(), "plc").unwrap(), Session::attach(there.socket(), "drive").unwrap());
    let qos = Qos { determinism: Determinism::periodic(PERIOD, 64), priority: Priority::MAX, ..Qos::default() };
    let source = a.stream("axis", qos).unwrap().source(ChannelId(1), SourceOptions::default()).unwrap();
    let _sink = b.stream("axis", qos).unwrap().sink(ChannelId(1), SinkOptions::default()).unwrap();
    wait_for("they are joined", || source.receivers() == 1);
    wait_for("the slots are in force", || here.status().datapaths[0].counters["slots_unused"] > 0);
    let kept = std::env::var_os("INSANE_TRACE_PAGE").map(std::path::PathBuf::from);
    let page = kept.unwrap_or_else(|| here.folder.join("trace.html"));
    let mut command = here.command("trace", &["--seconds", "4", "--html", page.to_str().unwrap()]);
    let mut tracer = Process::spawn(&mut command);
    let hog = std::thread::spawn(move || {
        set_name("insane-hog");
        pin_current(core).unwrap();
        std::thread::sleep(Duration::from_millis(500));
        for _ in 0..HOGS {
            set_policy_current(SchedPolicy::Fifo(60)).unwrap();
            let start = Instant::now();
            while start.elapsed() < HOG {
                std::hint::spin_loop();
            }
            set_policy_current(SchedPolicy::Other).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let start = Instant::now();
    while !tracer.has_ended() && start.elapsed() < common::PATIENCE {
        if let Ok(mut buffer) = source.get_buffer(8) {
            buffer.copy_from_slice(&[1; 8]);
            let _ = source.emit(buffer);
        }
        std::thread::sleep(PERIOD.into());
    }
    hog.join().unwrap();
    let output = tracer.wait();
    let (shown, error) = (text(&output.stdout), text(&output.stderr));
    if !output.status.success() && error.contains("BPF") && !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        eprintln!("passed over: {error}");
        return;
    }
    println!("{shown}{error}");
    assert!(output.status.success(), "{error}");
    assert!(shown.contains("main on core"), "{shown}");
    assert!(shown.contains("missed their slots:"), "{shown}");
    assert!(shown.contains("insane-hog") && shown.contains("ran for"), "who took the core is named: {shown}");
    assert!(shown.contains("* the slot begins"), "{shown}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("insane-hog") && page.contains("<svg"), "it is drawn, too");
}
