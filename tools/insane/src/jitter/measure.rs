//! The measurement: one thread that sleeps and wakes, and one that watches its core.

use super::Arguments;
use super::evidence::{Own, Record};
use super::metric::{Metric, Wake};
use insane_core::{MonoTime, Nanos};
use insane_rt::{CyclicTask, Session, Spin};
use insane_sys::clock::{mono_now, sleep_until};
use insane_sys::privileges::{Limit, rlimit_memlock};
use insane_sys::thread::{cores, lock_all_memory, pin_current, set_name};
use std::sync::atomic::{AtomicBool, Ordering};

/// Times that the two series take turns, at most.
const ROUNDS_MAX: u64 = 8;
/// Cycles that a round has at least, if there is time for it.
const ROUND_CYCLES: u64 = 10;

/// What came out.
pub struct Measured {
    /// The core that was measured.
    pub core: usize,
    /// Whether under `SCHED_FIFO`.
    pub is_fifo: bool,
    /// What was not as it should be.
    pub notices: Vec<String>,
    /// `clock_nanosleep`.
    pub timer: Metric,
    /// The cyclic task.
    pub task: Metric,
    /// What it had learnt at the end.
    pub margin: Nanos,
    /// Counters of the core.
    pub record: Record,
}

/// Measures for as long as asked.
pub fn measure(session: &Session, arguments: &Arguments) -> Result<Measured, String> {
    let available = cores();
    let core = arguments.core.or(available.last().copied()).ok_or("this process has no core")?;
    if !available.contains(&core) {
        return Err(format!("core {core} is not among the cores of this process: {available:?}"));
    }
    let rest = available.iter().copied().find(|other| *other != core);
    let stop = AtomicBool::new(false);
    let length = Nanos::from_secs(arguments.seconds);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            set_name("jitter-watch");
            rest.map(pin_current);
            Record::keep(core, length, &stop)
        });
        let measured = scope.spawn(|| {
            set_name("jitter");
            on_this_thread(session, arguments, core, rest.is_some())
        });
        let measured = measured.join();
        stop.store(true, Ordering::Release);
        let record = watcher.join().map_err(|_| "the thread that watches the core panicked")?;
        let measured = measured.map_err(|_| "the measuring thread panicked")??;
        Ok(Measured { record, ..measured })
    })
}

fn on_this_thread(session: &Session, arguments: &Arguments, core: usize, has_rest: bool) -> Result<Measured, String> {
    let period = arguments.period();
    let mut task =
        session.cyclic(period, Nanos::ZERO).core(core).spin(Spin::Learnt(Nanos::from_micros(arguments.margin_us)));
    let mut notices = Vec::new();
    if has_rest {
        task = task.fifo(arguments.priority);
    } else {
        notices
            .push("runs without SCHED_FIFO: this process has one core only, and everything else needs it".to_owned());
    }
    let mut task = task.start().map_err(|error| error.to_string())?;
    notices.extend(task.misplaced().iter().map(ToString::to_string));
    // Where the lock has a limit, later allocations could fail for it.
    let is_locked = matches!(rlimit_memlock(), Ok(Limit::Unlimited)) && lock_all_memory().is_ok();
    if !is_locked {
        notices.push("memory is not locked: page faults count as lateness".to_owned());
    }
    let mut series = [Metric::new(arguments.outlier()), Metric::new(arguments.outlier())];
    let total = Nanos::from_secs(arguments.seconds);
    let rounds = (total.0 / (2 * ROUND_CYCLES * period.0)).clamp(1, ROUNDS_MAX);
    let (begin, part) = (mono_now(), Nanos(total.0 / (2 * rounds)));
    let mut own = Own::new();
    for round in 0..2 * rounds {
        let end = begin + Nanos(part.0 * (round + 1));
        match round % 2 {
            0 => timer(&mut series[0], &mut own, period, end),
            _ => cyclic(&mut series[1], &mut own, &mut task, end),
        }
    }
    let [timer, of_task] = series;
    let is_fifo = has_rest && !task.misplaced().iter().any(|what| matches!(what, insane_rt::Misplaced::Policy { .. }));
    Ok(Measured { core, is_fifo, notices, timer, task: of_task, margin: task.margin(), record: Record::default() })
}

/// The bare timer, until no instant is left before `end`.
fn timer(metric: &mut Metric, own: &mut Own, period: Nanos, end: MonoTime) {
    let mut cycle = mono_now().0 / period.0 + 1;
    own.since();
    loop {
        let planned = MonoTime(cycle * period.0);
        if planned >= end {
            return;
        }
        sleep_until(planned);
        let late = mono_now().since(planned);
        metric.record(Wake { cycle, planned, late, own: own.since() });
        let passed = late.0 / period.0;
        metric.missed += passed;
        cycle += 1 + passed;
        // What the bookkeeping itself took is no lateness of the next wake-up.
        cycle = cycle.max(mono_now().0 / period.0 + 1);
    }
}

/// The cyclic task, likewise.
fn cyclic(metric: &mut Metric, own: &mut Own, task: &mut CyclicTask, end: MonoTime) {
    let mut is_first = true;
    own.since();
    while mono_now() < end {
        let Some(activation) = task.wait() else { return };
        let Some(late) = activation.late else { continue };
        // The turn of the other series is nothing that this one missed.
        metric.missed += if is_first { 0 } else { activation.skipped };
        is_first = false;
        // The lateness is of the instant it slept for, before those that passed meanwhile.
        let planned = activation.woke - late;
        metric.record(Wake { cycle: activation.cycle, planned, late, own: own.since() });
    }
}
