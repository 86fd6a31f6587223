//! Scenario `idle`: what a machine pays while nothing happens, and what a message costs
//! that finds everybody asleep.

use super::{Cost, Findings, ours, pace};
use crate::baseline::futex;
use crate::harness::Bench;
use crate::harness::converse::Pace;
use crate::harness::fault::Fault;
use crate::harness::rounds::{Side, Table};
use crate::harness::sample::Sample;
use crate::harness::topology::t1;
use crate::harness::watch::Idle;
use crate::report::row::{Figures, Ratio, Row};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two messages: longer than any end looks before it sleeps, and falls asleep.
const THINK: Duration = Duration::from_micros(150);

/// The pace of a conversation whose ends sleep between messages.
#[must_use]
pub fn sleepy_pace(bench: &Bench) -> Pace {
    let pace = pace(bench, Cost::Kernel, Idle::Spin);
    let count = if bench.effort.smoke { 500 } else { 5_000 };
    Pace { warm_up: 200, count, think: THINK, ..pace }
}

/// T1: two threads on a bare futex.
pub fn futex_t1(bench: &Bench) -> Result<Sample, Fault> {
    let (asking, answering) = futex::pair();
    t1(bench, &sleepy_pace(bench), move || Ok(asking), move || Ok(answering))
}

/// The two sides of the blocking round trip.
pub fn sides<'b>(bench: &'b Bench) -> Vec<Side<'b>> {
    vec![Side::new("insane-rt", || ours::blocking_t1(bench)), Side::new("futex ping-pong", || futex_t1(bench))]
}

/// Processor time that a daemon and two applications use together while nothing happens,
/// per cent of a core.
pub fn cpu(bench: &Bench, program: Option<&Path>, findings: &mut Findings) {
    let name = "idle/cpu";
    let length = if bench.effort.smoke { Duration::from_millis(500) } else { Duration::from_secs(5) };
    match ours::idle_applications(program, |daemon| used(daemon, length)) {
        Ok(value) => findings.add(row(name, value)),
        Err(fault) => findings.note(name, &fault),
    }
}

fn row(name: &str, value: f64) -> Table {
    let row = Row {
        name: name.to_owned(),
        unit: "% of a core".to_owned(),
        ours: Figures::Value { value },
        baseline: Figures::Value { value: 0.0 },
        ratio: Ratio::Value { value: None },
        n: 1,
        topology: "a daemon and two applications in low mode".to_owned(),
        floor_before_us: None,
        floor_after_us: None,
    };
    Table { row, labels: ["insane-rt".to_owned(), "nothing".to_owned()], curves: Vec::new() }
}

/// Per cent of a core that this process and another used in the time.
fn used(daemon: u32, length: Duration) -> Result<f64, Fault> {
    let both = || Ok::<u64, Fault>(on_processor(std::process::id())? + on_processor(daemon)?);
    let (start, before) = (Instant::now(), both()?);
    std::thread::sleep(length);
    let (after, passed) = (both()?, start.elapsed());
    // A thread that ended meanwhile takes its time with it.
    Ok(after.saturating_sub(before) as f64 / passed.as_nanos() as f64 * 100.0)
}

/// Nanoseconds that the threads of a process have run: the first field of `schedstat`.
fn on_processor(process: u32) -> Result<u64, Fault> {
    let folder = format!("/proc/{process}/task");
    let mut sum = 0;
    for thread in fs::read_dir(folder).map_err(Fault::os("list threads"))? {
        let path = thread.map_err(Fault::os("list threads"))?.path().join("schedstat");
        // One that has just ended.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let field = text.split_whitespace().next().and_then(|field| field.parse::<u64>().ok());
        sum += field.ok_or_else(|| Fault::Party(format!("{} is not as expected", path.display())))?;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_shows_and_another_process_of_no_number_does_not() {
        let before = on_processor(std::process::id()).unwrap();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        assert!(on_processor(std::process::id()).unwrap() > before);
        assert!(on_processor(0).is_err());
    }
}
