//! `insane trace` beside a real daemon whose core a thread of higher priority takes now and
//! then: the misses that follow are on the timeline with who ran, beside the datapath's turns and
//! the slots that it used. And tracers, or the daemon, that are killed meanwhile. Where tracing is
//! not possible or a core must be left free, it says so and passes over itself.
#![cfg(feature = "trace")]

mod common;

use common::{Daemon, Process, peers_over_loopback, text, wait_for};
use insane_rt::{ChannelId, Determinism, Nanos, Priority, Qos, Session, SinkOptions, SourceOptions};
use insane_sys::thread::{SchedPolicy, cores, pin_current, set_name, set_policy_current};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PERIOD: Nanos = Nanos::from_millis(2);
/// Each time, and in all: a core is taken for 120 ms at most.
const HOG: Duration = Duration::from_millis(6);
const HOGS: usize = 20;
/// One after the other: they use the same core and, since both belong to this process, ports.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn a_thread_that_takes_the_core_is_on_the_timeline_of_the_misses_it_caused() {
    let cores = cores();
    if cores.len() < 2 || insane_sys::privileges::can_use_fifo().is_err() {
        eprintln!("passed over: it takes two cores and SCHED_FIFO");
        return;
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
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
    // 4 s with a slot every 2 ms, most of which were used; the application emits as often.
    assert!(number_after(&shown, "slots used: ") > 500, "{shown}");
    assert!(number_after(&shown, "the datapath: ") > 500, "a turn for each of them: {shown}");
    assert!(shown.contains("none of its records were overwritten"), "{shown}");
    assert!(shown.contains("- the slot of stream axis, source ") && shown.contains(", lane 0 begins"), "{shown}");
    assert!(shown.contains("- a turn begins, and takes ") && shown.contains("1 message sent"), "{shown}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains("insane-hog") && page.contains("<svg"), "it is drawn, too");
    assert!(page.contains("<title>a turn at ") && page.contains("<title>stream axis, source "), "so are its own");
}

fn number_after(text: &str, what: &str) -> u64 {
    let behind = text.split_once(what).unwrap_or_else(|| panic!("{what}: {text}")).1;
    behind.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap()
}

/// Whether a trace of this daemon can be taken here; else why not.
fn cannot_trace(here: &Daemon) -> Option<String> {
    let output = Process::spawn(&mut here.command("trace", &["--seconds", "1"])).wait();
    let error = text(&output.stderr);
    (!output.status.success() && error.contains("BPF")).then_some(error)
}

#[test]
fn one_trace_at_a_time_and_none_is_left_by_who_is_killed() {
    let cores = cores();
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut here, there) = peers_over_loopback("traces", &format!("core: {}", cores.last().unwrap()));
    if let Some(why) = cannot_trace(&here) {
        assert!(!std::path::Path::new("/sys/kernel/btf/vmlinux").exists(), "{why}");
        eprintln!("passed over: {why}");
        return;
    }
    let traces = |here: &Daemon| here.log().matches("a trace begins").count();
    let begin = |here: &Daemon, seconds: &str| {
        let before = traces(here);
        let tracer = Process::spawn(&mut here.command("trace", &["--datapath", "main", "--seconds", seconds]));
        wait_for("a trace begins", || traces(here) > before);
        tracer
    };
    let first = begin(&here, "60");
    let second = Process::spawn(&mut here.command("trace", &["--datapath", "main", "--seconds", "1"])).wait();
    assert!(!second.status.success(), "one at a time");
    let error = text(&second.stderr);
    assert!(error.contains("datapath main is being traced by insane trace, and can be by one at a time"), "{error}");
    // Dropped is killed, with SIGKILL: its session ends, and the datapath records no more.
    drop(first);
    wait_for("the trace has ended", || here.log().matches("a trace has ended").count() == traces(&here));
    let third = begin(&here, "1").wait();
    let shown = text(&third.stdout);
    assert!(third.status.success(), "{}", text(&third.stderr));
    assert!(shown.contains("the datapath: ") && !shown.contains("the runtime ended"), "{shown}");
    // The daemon dies: what was told until then is shown, and that it ends there.
    let fourth = begin(&here, "2");
    here.kill();
    let output = fourth.wait();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(shown.contains("the runtime ended meanwhile"), "{shown}");
    drop(there);
}
