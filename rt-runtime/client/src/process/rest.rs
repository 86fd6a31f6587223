//! What this host slept through. `CLOCK_MONOTONIC` stands still while a host is suspended, so on
//! it a value from before looks as fresh afterwards as it was then. `CLOCK_BOOTTIME` goes on: by
//! how much it has gained is how long the host was suspended.
//!
//! A monotonic instant with all rests added to it is a *lived* one here. Ages and silence are
//! differences of those.

use insane_core::time::BootTime;
use insane_core::{MonoTime, Nanos};
use insane_sys::clock;

/// A shorter gain is no rest: the two clocks are read one after the other, and a thread may be
/// kept from running in between.
const REST_MIN: Nanos = Nanos::from_millis(50);
/// So many rests are told apart: more than one, since what a sink finds may have lain there through
/// several.
const RESTS_MAX: usize = 8;

/// See the module's documentation. Nothing is known of rests before it was made.
#[derive(Debug)]
pub(crate) struct Rest {
    /// By how much the one clock led the other in the beginning: rests until then, and what
    /// time namespaces add to either. Modulo 2^64.
    lead_ns: u64,
    /// The last rests since, the very last one first: the look that found it, and all rests up to
    /// and with it. What is older than these looks counts as before all rests: it may look older
    /// than it is.
    found: [(MonoTime, Nanos); RESTS_MAX],
}

impl Rest {
    pub fn new() -> Self {
        Self::by(clock::mono_now, clock::boot_now)
    }

    /// The monotonic clock is read first: so a thread that was kept from running in between sees
    /// shorter rests, never one that was not.
    fn by(mono: impl FnOnce() -> MonoTime, boot: impl FnOnce() -> BootTime) -> Self {
        let mono = mono();
        Rest { lead_ns: boot().0.wrapping_sub(mono.0), found: [(MonoTime(0), Nanos::ZERO); RESTS_MAX] }
    }

    /// All rests.
    const fn total(&self) -> Nanos {
        self.found[0].1
    }

    /// Looks, at about `now`, whether the host was suspended since the last look, and gives that
    /// instant as a lived one. One look at a clock, as long as it was not.
    pub fn look(&mut self, now: MonoTime) -> MonoTime {
        if self.gain(clock::boot_now(), now) > self.noticed() {
            // `now` may be a planned instant, or long past.
            let boot = clock::boot_now();
            self.see(boot, clock::mono_now());
        }
        self.lived(now)
    }

    /// By how much the one clock has gained on the other; 0 if it has lost.
    const fn gain(&self, boot: BootTime, mono: MonoTime) -> Nanos {
        let gain = boot.0.wrapping_sub(mono.0).wrapping_sub(self.lead_ns);
        Nanos(if gain > u64::MAX / 2 { 0 } else { gain })
    }

    /// A gain beyond this is another rest.
    const fn noticed(&self) -> Nanos {
        Nanos(self.total().0 + REST_MIN.0)
    }

    /// Both clocks, `mono` read last: so a thread that was kept from running in between sees a
    /// shorter rest, never one that was not.
    fn see(&mut self, boot: BootTime, mono: MonoTime) {
        let gain = self.gain(boot, mono);
        if gain > self.noticed() {
            self.found.rotate_right(1);
            self.found[0] = (mono, gain);
        }
    }

    /// A present instant as a lived one.
    pub fn lived(&self, now: MonoTime) -> MonoTime {
        now + self.total()
    }

    /// The monotonic instant of a lived one of the present or future.
    pub fn mono(&self, lived: MonoTime) -> MonoTime {
        lived - self.total()
    }

    /// An instant at which something was emitted, as a lived one. What was before the look that
    /// found a rest counts as before that rest: it may look older than it is, never fresher.
    pub fn lived_then(&self, then: MonoTime) -> MonoTime {
        let until_then = self.found.iter().find(|(found_at, _)| *found_at <= then);
        then + until_then.map_or(Nanos::ZERO, |(_, total)| *total)
    }

    /// As if the host had been suspended just now, for so long.
    #[cfg(test)]
    pub fn suspend(&mut self, rest: Nanos) {
        self.lead_ns = self.lead_ns.wrapping_sub(rest.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Nanos = Nanos::from_secs(3600);

    #[test]
    fn a_rest_counts_for_what_was_before_it_and_not_for_what_came_after() {
        let mut rest = Rest::by(|| MonoTime(0), || BootTime(7));
        rest.see(BootTime(1_000_007), MonoTime(1_000_000));
        assert_eq!((rest.total(), rest.lived(MonoTime(5))), (Nanos::ZERO, MonoTime(5)));
        // Kept from running between the two, either way round: no rest.
        rest.see(BootTime(1_000_007), MonoTime(900_000_000));
        rest.see(BootTime(49_000_000), MonoTime(1_000_000));
        assert_eq!(rest.total(), Nanos::ZERO);

        let woke = MonoTime(2_000_000_000);
        rest.see(BootTime(woke.0 + 7 + HOUR.0), woke);
        assert_eq!(rest.total(), HOUR);
        let (now, then) = (woke + Nanos(100), MonoTime(1_999_999_000));
        assert_eq!(rest.lived(now).since(rest.lived_then(then)), Nanos(HOUR.0 + 1_100), "emitted before");
        assert_eq!(rest.lived(now).since(rest.lived_then(woke)), Nanos(100), "emitted after");
        assert_eq!(rest.mono(rest.lived(now)), now);

        // Another rest: what came between the two lived through the second alone.
        let woke_again = MonoTime(3_000_000_000);
        rest.see(BootTime(woke_again.0 + 7 + 3 * HOUR.0), woke_again);
        assert_eq!(rest.lived(woke_again).since(rest.lived_then(woke)), Nanos(2 * HOUR.0 + 1_000_000_000));
        assert_eq!(
            rest.lived(woke_again).since(rest.lived_then(then)),
            Nanos(3 * HOUR.0 + 1_000_001_000),
            "emitted before the first, found after the second"
        );
    }

    /// By an account of all rests: of the last ones ages are exact, older ones too long.
    #[test]
    fn of_many_rests_none_makes_anything_look_fresher() {
        let mut rest = Rest::by(|| MonoTime(0), || BootTime(0));
        let second = |number: u64| MonoTime(number * 1_000_000_000);
        let rests = RESTS_MAX as u64 + 4;
        for number in 1..=rests {
            rest.see(BootTime(second(number).0 + number * HOUR.0), second(number));
        }
        let now = second(rests);
        for number in 0..=rests {
            let age = rest.lived(now).since(rest.lived_then(second(number)));
            let is_known = number > rests - RESTS_MAX as u64;
            let slept = if is_known { rests - number } else { rests };
            assert_eq!(age, Nanos((rests - number) * 1_000_000_000 + slept * HOUR.0), "rest {number}");
        }
    }

    #[test]
    fn a_thread_that_is_kept_between_its_first_two_looks_sees_no_rest() {
        let time = std::cell::Cell::new(0);
        let hour_later = || {
            time.set(time.get() + HOUR.0);
            time.get()
        };
        let mut rest = Rest::by(|| MonoTime(hour_later()), || BootTime(hour_later()));
        let now = hour_later();
        rest.see(BootTime(now), MonoTime(now));
        assert_eq!(rest.total(), Nanos::ZERO);
    }

    #[test]
    fn the_kernels_clocks_show_no_rest_where_there_is_none_and_a_planned_instant_harms_nothing() {
        let mut rest = Rest::new();
        for now in [clock::mono_now(), MonoTime(77), MonoTime(u64::MAX / 4)] {
            assert_eq!(rest.look(now), now);
        }
        rest.suspend(HOUR);
        let lived = rest.look(MonoTime(77)).0 - 77;
        assert!((HOUR.0 - 1_000_000_000..=HOUR.0 + 1_000_000_000).contains(&lived), "{lived}");
    }
}
