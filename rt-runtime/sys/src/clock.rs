//! The kernel's clocks.

use insane_core::time::{BootTime, Clock, PairedRead};
use insane_core::{MonoTime, TaiTime};

/// `CLOCK_MONOTONIC`, for production.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> MonoTime {
        mono_now()
    }

    fn pair(&self) -> Option<PairedRead> {
        let state = kernel_clock()?;
        let before = mono_now();
        let tai = tai_now();
        let (has_offset, is_synchronised) = (state.tai != 0, state.status & libc::STA_UNSYNC == 0);
        Some(PairedRead { before, tai, after: mono_now(), has_offset, is_synchronised })
    }
}

/// The current instant of `CLOCK_MONOTONIC`.
#[must_use]
pub fn mono_now() -> MonoTime {
    MonoTime(read(libc::CLOCK_MONOTONIC))
}

/// The current instant of `CLOCK_BOOTTIME`.
#[must_use]
pub fn boot_now() -> BootTime {
    BootTime(read(libc::CLOCK_BOOTTIME))
}

/// The current instant of `CLOCK_TAI`. It equals UTC where nobody told the kernel
/// the offset; see [`tai_offset_is_set`].
#[must_use]
pub fn tai_now() -> TaiTime {
    TaiTime(read(libc::CLOCK_TAI))
}

/// Whether the kernel knows the offset of TAI from UTC.
#[must_use]
pub fn tai_offset_is_set() -> bool {
    kernel_clock().is_some_and(|state| state.tai != 0)
}

/// What the kernel says of its wall clock.
fn kernel_clock() -> Option<libc::timex> {
    // SAFETY: all zero asks for nothing to be changed.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel fills `state`.
    let result = unsafe { libc::adjtimex(&mut state) };
    (result != -1).then_some(state)
}

/// By how much `CLOCK_MONOTONIC` of this process leads that of the host, nanoseconds: other
/// than 0 only in a time namespace. `None`: the kernel's answer is not understood.
#[must_use]
pub fn mono_lead_ns() -> Option<i64> {
    match std::fs::read_to_string("/proc/self/timens_offsets") {
        Ok(text) => monotonic_lead(&text),
        // A kernel without time namespaces has one clock.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Some(0),
        Err(_) => None,
    }
}

/// The line of the monotonic clock: its name, seconds and nanoseconds.
fn monotonic_lead(text: &str) -> Option<i64> {
    let line = text.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let mut fields = line.split_whitespace().map(str::parse::<i64>);
    let (seconds, nanos) = (fields.next()?.ok()?, fields.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// Sleeps until `until`; at once if it has passed. A signal does not end the sleep.
pub fn sleep_until(until: MonoTime) {
    let time = libc::timespec {
        tv_sec: libc::time_t::try_from(until.0 / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (until.0 % 1_000_000_000) as libc::c_long,
    };
    let (clock, flags) = (libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME);
    // SAFETY: `time` lives through the call; an absolute sleep reports no rest.
    while unsafe { libc::clock_nanosleep(clock, flags, &time, std::ptr::null_mut()) } == libc::EINTR {}
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills `time`.
    let result = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(result, 0, "CLOCK_MONOTONIC, CLOCK_BOOTTIME and CLOCK_TAI exist since Linux 3.10");
    // All are past zero, and nanoseconds are below a second.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::Nanos;

    #[test]
    fn time_goes_forward_and_a_sleep_ends_no_earlier_than_asked() {
        let clock = MonotonicClock;
        let start = clock.now();
        let until = start + Nanos::from_millis(2);
        sleep_until(until);
        assert!(clock.now() >= until);
        sleep_until(start);
    }

    #[test]
    fn a_paired_read_holds_tai_between_two_looks() {
        let read = MonotonicClock.pair().expect("adjtimex may be read by everybody");
        assert!(read.before <= read.after);
        assert_eq!(read.has_offset, tai_offset_is_set());
        let later = MonotonicClock.pair().unwrap();
        assert!(later.before >= read.after);
    }

    #[test]
    fn the_lead_of_a_time_namespace_is_read() {
        let text = "monotonic           7          5\nboottime           -1          0\n";
        assert_eq!(monotonic_lead(text), Some(7_000_000_005));
        assert_eq!(monotonic_lead("monotonic -1 0"), Some(-1_000_000_000));
        for odd in ["", "boottime 0 0", "monotonic 1", "monotonic x 0", "monotonic 9223372036854775807 0"] {
            assert_eq!(monotonic_lead(odd), None, "{odd:?}");
        }
        assert_eq!(mono_lead_ns(), Some(0), "tests run outside of time namespaces");
    }

    #[test]
    fn tai_is_near_the_wall_clock() {
        let utc = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let tai = tai_now().0 / 1_000_000_000;
        assert!(tai + 60 > utc && tai < utc + 3600);
        // Where the offset is unknown both clocks agree; where it is known TAI leads by more than 30 s.
        assert_eq!(tai_offset_is_set(), tai > utc + 5);
    }
}
