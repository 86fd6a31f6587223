//! The clock of the measurements: the processor's cycle counter, calibrated
//! against the kernel's monotonic clock.

use std::time::{Duration, Instant};

pub use insane_raw_baselines::ticks;

/// How long the calibration takes; the error is the jitter of two clock reads
/// (well under 1 us) over this length.
const CALIBRATION: Duration = Duration::from_millis(50);

/// Reads for the grain.
const GRAIN_READS: u32 = 20_000;

/// The rate of the cycle counter.
#[derive(Clone, Copy, Debug)]
pub struct TickRate {
    ns_per_tick: f64,
    /// Step of the counter, ticks. Some processors count in tens of nanoseconds,
    /// whatever unit they report.
    grain: f64,
}

impl TickRate {
    /// Measures rate and grain. Blocks for 50 ms.
    #[must_use]
    pub fn calibrate() -> Self {
        let (start, start_ticks) = (Instant::now(), ticks());
        std::thread::sleep(CALIBRATION);
        let (length, length_ticks) = (start.elapsed(), ticks().wrapping_sub(start_ticks));
        let ns_per_tick = length.as_nanos() as f64 / length_ticks.max(1) as f64;
        TickRate { ns_per_tick, grain: grain(&differences()) }
    }

    /// A difference of two counter reads in nanoseconds. A negative difference
    /// (two processors whose counters differ) counts as zero.
    #[must_use]
    pub fn ns(self, ticks: u64) -> f64 {
        (ticks.cast_signed().max(0)) as f64 * self.ns_per_tick
    }

    /// Differences of counter reads in nanoseconds, sorted. Where the counter steps
    /// by a grain, equal readings stand for times that lie evenly within the grain,
    /// and are spread so; otherwise a median could only be a multiple of the grain,
    /// which is five percent of a round trip between near cores.
    #[must_use]
    pub fn sorted_ns(self, times: &[u64]) -> Vec<f64> {
        let mut sorted: Vec<f64> = times.iter().map(|time| time.cast_signed().max(0) as f64).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        for group in sorted.chunk_by_mut(|a, b| b - a < self.grain / 4.0) {
            let (middle, count) = (group.iter().sum::<f64>() / group.len() as f64, group.len() as f64);
            for (at, time) in group.iter_mut().enumerate() {
                *time = middle + self.grain * ((at as f64 + 0.5) / count - 0.5);
            }
        }
        sorted.iter().map(|ticks| ticks.max(0.0) * self.ns_per_tick).collect()
    }
}

/// Differences of reads that follow each other after varying work.
fn differences() -> Vec<u64> {
    let mut last = ticks();
    (0..GRAIN_READS)
        .map(|read| {
            let mut work = 0;
            for step in 0..read % 29 {
                work = std::hint::black_box(work + step);
            }
            let now = ticks();
            let difference = now.wrapping_sub(last);
            last = now;
            difference
        })
        .collect()
}

/// The step of a counter by differences of its values: they stand in heaps, whose
/// distance is the step. Differences of a fine counter stand in one heap.
fn grain(differences: &[u64]) -> f64 {
    let mut sorted = differences.to_vec();
    sorted.sort_unstable();
    // The tail is interrupts; its values are rare and far apart.
    sorted.truncate(differences.len() * 9 / 10);
    let heaps: Vec<f64> = sorted
        .chunk_by(|a, b| b - a <= 1)
        .filter(|heap| heap.len() * 200 >= differences.len())
        .map(|heap| heap.iter().sum::<u64>() as f64 / heap.len() as f64)
        .collect();
    match heaps[..] {
        [first, .., last] => (last - first) / (heaps.len() - 1) as f64,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_sleep_is_not_shorter_than_it_was() {
        let rate = TickRate::calibrate();
        let start = ticks();
        std::thread::sleep(Duration::from_millis(20));
        let ns = rate.ns(ticks().wrapping_sub(start));
        assert!(ns >= 19.0e6, "{ns} ns");
    }

    #[test]
    fn a_negative_difference_is_zero() {
        assert!(TickRate { ns_per_tick: 1.0, grain: 1.0 }.ns(u64::MAX) < f64::EPSILON);
    }

    #[test]
    fn the_grain_of_a_coarse_and_of_a_fine_counter_is_found() {
        let coarse: Vec<u64> = (0..10_000_u64).map(|n| (n % 3 + 1) * 49 / 2 + n % 2).collect();
        assert!((grain(&coarse) - 24.5).abs() < 1.0, "{}", grain(&coarse));
        let fine: Vec<u64> = (0..10_000_u64).map(|n| 30 + n % 40).collect();
        assert!((grain(&fine) - 1.0).abs() < f64::EPSILON, "{}", grain(&fine));
    }

    #[test]
    fn equal_readings_are_spread_over_their_grain() {
        let rate = TickRate { ns_per_tick: 1.0, grain: 10.0 };
        let times: Vec<u64> = [20_u64, 30].into_iter().flat_map(|time| std::iter::repeat_n(time, 1_000)).collect();
        let sorted = rate.sorted_ns(&times);
        assert!(sorted.is_sorted());
        assert!((sorted[1_000] - 25.0).abs() < 0.1, "the median lies between the two readings: {}", sorted[1_000]);
        let mean = sorted.iter().sum::<f64>() / 2_000.0;
        assert!((mean - 25.0).abs() < 0.1, "the mean does not change: {mean}");
    }
}
