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

/// See the module's documentation. Nothing is known of rests before it was made.
#[derive(Debug)]
pub(crate) struct Rest {
    /// By how much the one clock led the other in the beginning: rests until then, and what
    /// time namespaces add to either. Modulo 2^64.
    lead_ns: u64,
    /// All rests since.
    total: Nanos,
    /// All but the last.
    before: Nanos,
    /// The look that found the last one.
    found_at: MonoTime,
}

impl Rest {
    pub fn new() -> Self {
        let lead_ns = clock::boot_now().0.wrapping_sub(clock::mono_now().0);
        Rest { lead_ns, total: Nanos::ZERO, before: Nanos::ZERO, found_at: MonoTime(0) }
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
        Nanos(self.total.0 + REST_MIN.0)
    }

    /// Both clocks, `mono` read last: so a thread that was kept from running in between sees a
    /// shorter rest, never one that was not.
    fn see(&mut self, boot: BootTime, mono: MonoTime) {
        let gain = self.gain(boot, mono);
        if gain > self.noticed() {
            (self.before, self.total, self.found_at) = (self.total, gain, mono);
        }
    }

    /// A present instant as a lived one.
    pub fn lived(&self, now: MonoTime) -> MonoTime {
        now + self.total
    }

    /// The monotonic instant of a lived one of the present or future.
    pub fn mono(&self, lived: MonoTime) -> MonoTime {
        lived - self.total
    }

    /// An instant at which something was emitted, as a lived one. What was before the look that
    /// found the last rest counts as before that rest: it may look older than it is, once, and
    /// never fresher.
    pub fn lived_then(&self, then: MonoTime) -> MonoTime {
        then + if then < self.found_at { self.before } else { self.total }
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
        let mut rest = Rest { lead_ns: 7, total: Nanos::ZERO, before: Nanos::ZERO, found_at: MonoTime(0) };
        rest.see(BootTime(1_000_007), MonoTime(1_000_000));
        assert_eq!((rest.total, rest.lived(MonoTime(5))), (Nanos::ZERO, MonoTime(5)));
        // Kept from running between the two, either way round: no rest.
        rest.see(BootTime(1_000_007), MonoTime(900_000_000));
        rest.see(BootTime(49_000_000), MonoTime(1_000_000));
        assert_eq!(rest.total, Nanos::ZERO);

        let woke = MonoTime(2_000_000_000);
        rest.see(BootTime(woke.0 + 7 + HOUR.0), woke);
        assert_eq!(rest.total, HOUR);
        let (now, then) = (woke + Nanos(100), MonoTime(1_999_999_000));
        assert_eq!(rest.lived(now).since(rest.lived_then(then)), Nanos(HOUR.0 + 1_100), "emitted before");
        assert_eq!(rest.lived(now).since(rest.lived_then(woke)), Nanos(100), "emitted after");
        assert_eq!(rest.mono(rest.lived(now)), now);

        // Another rest: what came between the two lived through the second alone.
        let woke_again = MonoTime(3_000_000_000);
        rest.see(BootTime(woke_again.0 + 7 + 3 * HOUR.0), woke_again);
        assert_eq!(rest.lived(woke_again).since(rest.lived_then(woke)), Nanos(2 * HOUR.0 + 1_000_000_000));
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
