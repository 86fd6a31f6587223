//! How long to wait before connecting again. Pure.

use insane_core::Nanos;

/// The first wait.
pub(crate) const FIRST: Nanos = Nanos::from_millis(50);
/// The longest.
pub(crate) const LONGEST: Nanos = Nanos::from_secs(2);

/// Waits that double, each give or take a quarter, so that hosts that lost the same
/// switch do not come back in step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Nanos,
    random: u64,
}

impl Backoff {
    /// `seed`: different for each connection.
    pub(crate) fn new(seed: u64) -> Self {
        Backoff { next: FIRST, random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Nanos {
        let wait = self.next.0;
        self.next = Nanos(wait.saturating_mul(2).min(LONGEST.0));
        // Marsaglia's xorshift64 (2003).
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        Nanos(wait - wait / 4 + self.random % (wait / 2 + 1))
    }

    /// What was tried worked.
    pub(crate) fn reset(&mut self) {
        self.next = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        for seed in 0..100 {
            let mut backoff = Backoff::new(seed);
            let mut expected = FIRST.0;
            for _ in 0..10 {
                let wait = backoff.next().0;
                assert!((expected * 3 / 4..=expected * 5 / 4).contains(&wait), "{wait} instead of {expected}");
                expected = (expected * 2).min(LONGEST.0);
            }
            backoff.reset();
            assert!(backoff.next() <= Nanos(FIRST.0 * 5 / 4));
        }
        assert_ne!(Backoff::new(1).next(), Backoff::new(2).next());
    }
}
