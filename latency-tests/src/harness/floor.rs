//! The cache-line floor: what one hand-over of one line between the two cores
//! costs, without any program around it.
//!
//! Virtual processors are moved between near cores (same cluster) and far ones
//! while a test runs, and everything that crosses cores scales with that. So the
//! floor is probed before and after each cell; a cell during which it moved by
//! more than [`MOVED_RATIO`] is dropped and counted, and near and far are
//! reported apart.

use super::clock::{TickRate, ticks};
use super::cores::{Cores, pin};
use super::fault::Fault;
use super::watch::{Idle, Watch};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// A floor at or above this is called far. Near pairs measure 0.06 us and far
/// ones 0.24 us one way; the line lies between the two.
pub const FAR_US: f64 = 0.15;
/// The floor moved if it changed by more than this share.
pub const MOVED_RATIO: f64 = 0.3;
/// Round trips in one probe: about 5 ms on far cores.
const ROUND_TRIPS: u64 = 10_000;
/// The first ones are not counted: the threads are still meeting.
const WARM_UP: u64 = 1_000;
/// A probe that takes longer is given up (the machine is overloaded).
const BOUND: Duration = Duration::from_secs(10);

/// Whether two cores are close to each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Distance {
    /// Floor below [`FAR_US`].
    Near,
    /// Floor at or above it.
    Far,
}

impl Distance {
    /// The word in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Distance::Near => "near",
            Distance::Far => "far",
        }
    }
}

/// One probe: the median one-way time of a cache line, microseconds.
#[derive(Clone, Copy, PartialEq, PartialOrd, Debug)]
pub struct Floor {
    /// Half the median round trip, microseconds.
    pub one_way_us: f64,
}

impl Floor {
    /// Near or far.
    #[must_use]
    pub fn distance(self) -> Distance {
        if self.one_way_us < FAR_US { Distance::Near } else { Distance::Far }
    }

    /// Whether a cell between the probes `self` and `after` has to be dropped.
    #[must_use]
    pub fn moved(self, after: Floor) -> bool {
        (after.one_way_us / self.one_way_us - 1.0).abs() > MOVED_RATIO || self.distance() != after.distance()
    }
}

/// One line; alone in it and in the one beside it.
#[repr(align(128))]
struct Line(AtomicU64);

/// Probes the floor between the two cores.
///
/// # Errors
/// A core refused its thread, or the probe ran out of time.
pub fn probe(cores: Cores, rate: TickRate) -> Result<Floor, Fault> {
    let line = Line(AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| answer(&line, cores, &stop));
        let asking = scope.spawn(|| {
            let times = ask(&line, cores, &stop);
            stop.store(true, Ordering::Relaxed);
            times
        });
        let times = asking.join().expect("the probe does not panic");
        answering.join().expect("the probe does not panic")?;
        let times = rate.sorted_ns(&times?);
        Ok(Floor { one_way_us: times[times.len() / 2] / 2_000.0 })
    })
}

/// Odd numbers are questions, the even number above each is its answer.
fn ask(line: &Line, cores: Cores, stop: &AtomicBool) -> Result<Vec<u64>, Fault> {
    pin(cores.app)?;
    let mut watch = Watch::new("the floor probe", Idle::Spin, BOUND, stop);
    let mut times = Vec::with_capacity(ROUND_TRIPS as usize);
    let mut last = ticks();
    for round in 0..ROUND_TRIPS + WARM_UP {
        let question = 2 * round + 1;
        line.0.store(question, Ordering::Release);
        while line.0.load(Ordering::Acquire) == question {
            watch.idle()?;
        }
        let now = ticks();
        if round >= WARM_UP {
            times.push(now.wrapping_sub(last));
        }
        last = now;
    }
    Ok(times)
}

fn answer(line: &Line, cores: Cores, stop: &AtomicBool) -> Result<(), Fault> {
    pin(cores.other)?;
    let mut watch = Watch::new("the floor probe", Idle::Spin, BOUND, stop);
    for round in 0..ROUND_TRIPS + WARM_UP {
        let question = 2 * round + 1;
        while line.0.load(Ordering::Acquire) != question {
            watch.idle()?;
        }
        line.0.store(question + 1, Ordering::Release);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_dropped_when_the_floor_moved_by_more_than_a_third_or_crossed_the_line() {
        let floor = |one_way_us| Floor { one_way_us };
        assert!(!floor(0.06).moved(floor(0.075)));
        assert!(floor(0.06).moved(floor(0.08)));
        assert!(floor(0.06).moved(floor(0.24)));
        assert!(floor(0.24).moved(floor(0.06)));
        assert!(floor(0.14).moved(floor(0.16)), "near before, far after");
    }

    #[test]
    fn a_probe_finds_a_time_above_zero() {
        let Ok(cores) = Cores::find().inspect_err(|fault| eprintln!("passed over: {fault}")) else { return };
        let floor = probe(cores, TickRate::calibrate()).unwrap();
        assert!(floor.one_way_us > 0.0);
    }
}
