//! How many instructions a slot costs, counted by callgrind: they do not depend on the
//! machine, and hardly on how many streams there are. This program runs itself under
//! valgrind; without valgrind it says so and passes over itself.
//!
//! A debug build, in which staging a table of recurrences takes long under valgrind,
//! counts 1,024 streams in place of 4,096; the bounds are the same.

use insane_core::{MonoTime, TaiTime};
use insane_scheduler::{
    Action, FlowIndex, LatePolicy, Limits, LinkRate, LinkTiming, Now, Recurrence, Scheduler, TimedScheduler,
    TimedStream,
};
use std::process::Command;

const MANY: u16 = if cfg!(debug_assertions) { 1_024 } else { 4_096 };
const FLOWS: usize = 4_096;
const SLOTS_COUNTED: u64 = 4_096;
/// What the child counts: the name of the table, a dash, the number of streams.
const CASE: &str = "INSANE_COUNTED_CASE";

fn now(ns: u64) -> Now {
    Now { mono: MonoTime(ns), tai: TaiTime(ns) }
}

/// With `SLOTS` of zero no table has room to be written down.
fn staged<const SLOTS: usize>(streams: u16) -> Box<TimedScheduler<FLOWS, FLOWS, SLOTS>> {
    let rate = LinkRate::from_bits_per_s(1_000_000_000).unwrap();
    let timing = LinkTiming { rate, turn_ns: 0, foreign_bytes: 0, in_flight_bytes: 20_000, lead_ns: 0, step_ns: 1_000 };
    let mut timed = Box::new(TimedScheduler::new(timing, Scheduler::new(Limits::default())));
    let period = u64::from(streams) * 2_000;
    let stream = |flow: u16| TimedStream {
        flow: FlowIndex(flow),
        slots: Recurrence::new(period, u64::from(flow) * 2_000, 1_000).unwrap(),
        bytes: 100,
        early_ns: period,
        deadline_ns: 0,
        late: LatePolicy::NextSlot,
    };
    let streams: Vec<_> = (0..streams).map(stream).collect();
    timed.stage(TaiTime(0), &streams, None, TaiTime(0)).unwrap();
    assert_eq!(timed.poll(now(0), 0), Action::TookOver);
    streams.iter().for_each(|stream| timed.ready(stream.flow, TaiTime(0)));
    timed
}

/// A slot: the poll that grants it, the report, the poll that says when the next begins.
#[inline(never)]
fn counted_slots<const SLOTS: usize>(timed: &mut TimedScheduler<FLOWS, FLOWS, SLOTS>) -> u64 {
    let mut at = 0;
    for _ in 0..SLOTS_COUNTED {
        let Action::Slot { flow, .. } = timed.poll(now(at), 0) else { return 0 };
        timed.sent(flow, 100, true);
        let Action::Wait(until) = timed.poll(now(at), 100) else { return 0 };
        at = until.0;
    }
    at
}

#[test]
#[ignore = "a part of a_slot_costs_hardly_more_with_many_streams_than_with_four"]
fn counted() {
    let Ok(case) = std::env::var(CASE) else { return };
    let (table, streams) = case.split_once('-').unwrap();
    let streams = streams.parse().unwrap();
    let end = match table {
        "expanded" => counted_slots(&mut *staged::<4_096>(streams)),
        _ => counted_slots(&mut *staged::<0>(streams)),
    };
    assert_eq!(end, SLOTS_COUNTED * 2_000);
}

/// Instructions of a slot; `None` without valgrind.
fn count(case: &str) -> Option<u64> {
    let out = std::env::temp_dir().join(format!("insane-scheduler.{}.{case}", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*counted_slots*"]);
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(std::env::current_exe().unwrap());
    let ran = valgrind
        .args(["--exact", "counted", "--ignored", "--test-threads=1"])
        .env(CASE, case)
        .env("RUST_MIN_STACK", "67108864")
        .output()
        .ok()?;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let text = std::fs::read_to_string(&out).unwrap();
    let _ = std::fs::remove_file(&out);
    let total =
        text.lines().filter_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: "))).next_back();
    let total: u64 = total.unwrap().trim().parse().unwrap();
    assert!(total > SLOTS_COUNTED, "callgrind found no such function");
    Some(total / SLOTS_COUNTED)
}

#[test]
fn a_slot_costs_hardly_more_with_many_streams_than_with_four() {
    for (table, most_percent) in [("expanded", 120), ("recurrences", 300)] {
        let counts = [4, MANY].map(|streams| count(&format!("{table}-{streams}")));
        let [Some(few), Some(many)] = counts else {
            eprintln!("passed over: valgrind is not installed (Debian: apt install valgrind)");
            return;
        };
        println!("{table}: {few} instructions a slot with 4 streams, {many} with {MANY}");
        assert!(many * 100 <= few * most_percent, "{table}: {few} and {many}");
    }
}
