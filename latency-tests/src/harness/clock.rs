//! The clock of the measurements: the processor's cycle counter, calibrated
//! against the kernel's monotonic clock.

use std::time::{Duration, Instant};

pub use insane_raw_baselines::ticks;

/// How long the calibration takes; the error is the jitter of two clock reads
/// (well under 1 us) over this length.
const CALIBRATION: Duration = Duration::from_millis(50);

/// The rate of the cycle counter.
#[derive(Clone, Copy, Debug)]
pub struct TickRate {
    ns_per_tick: f64,
}

impl TickRate {
    /// Measures the rate. Blocks for 50 ms.
    #[must_use]
    pub fn calibrate() -> Self {
        let (start, start_ticks) = (Instant::now(), ticks());
        std::thread::sleep(CALIBRATION);
        let (length, length_ticks) = (start.elapsed(), ticks().wrapping_sub(start_ticks));
        TickRate { ns_per_tick: length.as_nanos() as f64 / length_ticks.max(1) as f64 }
    }

    /// A difference of two counter reads in nanoseconds. A negative difference
    /// (two processors whose counters differ) counts as zero.
    #[must_use]
    pub fn ns(self, ticks: u64) -> f64 {
        (ticks.cast_signed().max(0)) as f64 * self.ns_per_tick
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
        assert!(TickRate { ns_per_tick: 1.0 }.ns(u64::MAX) < f64::EPSILON);
    }
}
