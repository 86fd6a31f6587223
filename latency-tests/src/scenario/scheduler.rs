//! Scenario `scheduler`: what a slot costs among 4,096 streams and among four, in
//! instructions, which do not depend on the machine, and in time when nothing of it is in
//! a cache.
//!
//! A slot is the poll that grants it, the report, and the poll that says when the next one
//! begins. A table is *expanded* where all slots of a hyperperiod are written down, else
//! *recurrences*. The same is held, in smaller, by `scheduler/tests/instructions.rs`.

use super::counting::collected;
use super::{Findings, values};
use crate::cli::Counted;
use crate::harness::Bench;
use crate::harness::clock::ticks;
use crate::harness::cores::pin;
use crate::harness::fault::Fault;
use crate::harness::rounds::Table;
use crate::harness::sample::{Quantiles, Sample, quantiles};
use crate::report::row::{Figures, Ratio, Row};
use insane_core::{MonoTime, TaiTime};
use insane_scheduler::{
    Action, FlowIndex, LatePolicy, Limits, LinkRate, LinkTiming, Now, Recurrence, Scheduler, TimedScheduler,
    TimedStream,
};

/// Streams of the large tables.
const MANY: u16 = 4_096;
/// Streams of the small ones.
const FEW: u16 = 4;
const FLOWS: usize = 4_096;
/// From slot to slot, nanoseconds.
const STEP_NS: u64 = 2_000;
/// More than the caches of one processor hold, bytes.
const EVICTION_BYTES: usize = 64 << 20;
const LINE_BYTES: usize = 64;
/// The scheduler is built on a stack before it is in its place.
const STACK_BYTES: usize = 64 << 20;

/// With `SLOTS` of zero no table has room to be written down.
type Timed<const SLOTS: usize> = TimedScheduler<FLOWS, FLOWS, SLOTS>;

fn now(ns: u64) -> Now {
    Now { mono: MonoTime(ns), tai: TaiTime(ns) }
}

/// A scheduler whose streams all have a message, one slot every [`STEP_NS`].
fn staged<const SLOTS: usize>(streams: u16) -> Result<Box<Timed<SLOTS>>, Fault> {
    let wrong = |what: &str| Fault::Party(format!("the table is refused: {what}"));
    let rate = LinkRate::from_bits_per_s(1_000_000_000).ok_or_else(|| wrong("its rate"))?;
    let timing =
        LinkTiming { rate, turn_ns: 0, foreign_bytes: 0, in_flight_bytes: 20_000, lead_ns: 0, step_ns: STEP_NS / 2 };
    let mut timed = Box::new(Timed::<SLOTS>::new(timing, Scheduler::new(Limits::default())));
    let period = u64::from(streams) * STEP_NS;
    let stream = |flow: u16| {
        let slots = Recurrence::new(period, u64::from(flow) * STEP_NS, STEP_NS / 2)?;
        let (bytes, early_ns, deadline_ns, late) = (100, period, 0, LatePolicy::NextSlot);
        Ok(TimedStream { flow: FlowIndex(flow), slots, bytes, early_ns, deadline_ns, late })
    };
    let streams: Result<Vec<_>, _> = (0..streams).map(stream).collect();
    let streams = streams.map_err(|error: insane_scheduler::RecurrenceError| wrong(&format!("{error:?}")))?;
    timed.stage(TaiTime(0), &streams, None, TaiTime(0)).map_err(|error| wrong(&format!("{error:?}")))?;
    if timed.poll(now(0), 0) != Action::TookOver {
        return Err(wrong("it did not take over"));
    }
    streams.iter().for_each(|stream| timed.ready(stream.flow, TaiTime(0)));
    Ok(timed)
}

/// One slot, at `at`; when the next one begins.
#[inline(always)]
fn slot<const SLOTS: usize>(timed: &mut Timed<SLOTS>, at: u64) -> Result<u64, Fault> {
    let Action::Slot { flow, .. } = timed.poll(now(at), 0) else {
        return Err(Fault::Party(format!("no slot was granted at {at} ns")));
    };
    timed.sent(flow, 100, true);
    match timed.poll(now(at), 100) {
        Action::Wait(until) => Ok(until.0),
        other => Err(Fault::Party(format!("after a slot at {at} ns: {other:?}"))),
    }
}

/// Counted by its name, as the messages of the other counts are.
#[inline(never)]
fn counted_messages_of_slots<const SLOTS: usize>(timed: &mut Timed<SLOTS>, count: u64) -> Result<(), Fault> {
    let mut at = 0;
    for _ in 0..count {
        at = slot(timed, at)?;
    }
    if at == count * STEP_NS { Ok(()) } else { Err(Fault::Corrupt { expected: count * STEP_NS, found: at }) }
}

/// The counted half: so many slots.
///
/// # Errors
/// The scheduler did not do as it should.
pub fn count(side: Counted, slots: u64) -> Result<(), Fault> {
    let streams = if matches!(side, Counted::ExpandedFew | Counted::RecurrencesFew) { FEW } else { MANY };
    on_large_stack(move || match side {
        Counted::ExpandedFew | Counted::ExpandedMany => {
            counted_messages_of_slots(&mut *staged::<{ MANY as usize }>(streams)?, slots)
        }
        _ => counted_messages_of_slots(&mut *staged::<0>(streams)?, slots),
    })
}

fn on_large_stack<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    let thread =
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work).map_err(Fault::os("start a thread"))?;
    thread.join().unwrap_or_else(|_| Err(Fault::Party("the scheduler panicked".into())))
}

/// All rows.
pub fn run(bench: &Bench, findings: &mut Findings) {
    let slots = if bench.effort.smoke { 1_000 } else { u64::from(MANY) };
    let counts = [
        ("expanded", Counted::ExpandedMany, Counted::ExpandedFew),
        ("recurrences", Counted::RecurrencesMany, Counted::RecurrencesFew),
    ];
    for (table, many, few) in counts {
        let name = format!("scheduler/poll-{table}-{MANY}");
        let both = collected(many, slots).and_then(|many| Ok((many, collected(few, slots)?)));
        match both {
            Ok(figures) => findings.add(values(&name, "instructions/slot", figures, slots, LABELS, "one thread")),
            Err(fault) => findings.note(&name, &fault),
        }
        let name = format!("scheduler/cold-{table}-{MANY}");
        match cold(bench, table == "expanded") {
            Ok([many, few]) => findings.add(cold_table(&name, &many, &few)),
            Err(fault) => findings.note(&name, &fault),
        }
    }
}

const LABELS: [&str; 2] = ["among 4,096", "among 4"];

/// Times of slots that find nothing in a cache, of both tables by turns.
fn cold(bench: &Bench, is_expanded: bool) -> Result<[Sample; 2], Fault> {
    let bench = *bench;
    on_large_stack(move || if is_expanded { cold_slots::<{ MANY as usize }>(&bench) } else { cold_slots::<0>(&bench) })
}

fn cold_slots<const SLOTS: usize>(bench: &Bench) -> Result<[Sample; 2], Fault> {
    pin(bench.cores.app)?;
    let samples = if bench.effort.smoke { 20 } else { 250 };
    let mut sides = [(staged::<SLOTS>(MANY)?, 0), (staged::<SLOTS>(FEW)?, 0)];
    let mut times = [Vec::with_capacity(samples), Vec::with_capacity(samples)];
    let mut eviction = vec![0_u8; EVICTION_BYTES];
    for _ in 0..samples {
        for ((timed, at), times) in sides.iter_mut().zip(&mut times) {
            eviction.iter_mut().step_by(LINE_BYTES).for_each(|byte| *byte = byte.wrapping_add(1));
            std::hint::black_box(&mut eviction);
            let start = ticks();
            *at = slot(timed, *at)?;
            times.push(ticks().wrapping_sub(start));
        }
    }
    Ok(times.map(|times| Sample::from_ticks(&times, bench.rate)))
}

fn cold_table(name: &str, many: &Sample, few: &Sample) -> Table {
    let read = |sample: &Sample| match sample {
        Sample::Times(histogram) => quantiles(histogram),
        Sample::Value { .. } => Quantiles::default(),
    };
    let (ours, baseline) = (read(many), read(few));
    let share = |ours: Option<f64>, baseline: Option<f64>| Some(ours? / baseline?);
    let figures = |read: Quantiles| Figures::Times { p50: read.p50, p99: read.p99, p999: read.p999, max: read.max };
    let row = Row {
        name: name.to_owned(),
        unit: "us".to_owned(),
        ours: figures(ours),
        baseline: figures(baseline),
        ratio: Ratio::Times { p50: share(ours.p50, baseline.p50), p99: share(ours.p99, baseline.p99) },
        n: many.n(),
        topology: "one thread, caches emptied before each".to_owned(),
        floor_before_us: None,
        floor_after_us: None,
    };
    Table { row, labels: LABELS.map(str::to_owned), curves: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_granted_and_a_wrong_walk_is_told() {
        for side in [Counted::ExpandedFew, Counted::RecurrencesFew] {
            count(side, 100).unwrap();
        }
        let told = on_large_stack(|| {
            let mut timed = staged::<0>(FEW)?;
            Ok(slot(&mut timed, STEP_NS / 2 + 1).is_err())
        });
        assert!(told.unwrap(), "the slot has gone by");
    }
}
