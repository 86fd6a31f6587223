//! How long to wait before calling again. Pure.

use insane_core::Nanos;

/// The first wait.
const FIRST: Nanos = Nanos::from_millis(50);
/// The longest.
pub(crate) const LONGEST: Nanos = Nanos::from_secs(2);

/// Waits that double, each give or take a quarter: hosts that lost the same switch do not come
/// back in step.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Nanos,
    state: u64,
}

impl Backoff {
    /// `seed`: different for each connection.
    pub(crate) fn new(seed: u64) -> Self {
        Backoff { next: FIRST, state: seed }
    }

    pub(crate) fn next(&mut self) -> Nanos {
        let wait = self.next.0;
        self.next = Nanos((2 * wait).min(LONGEST.0));
        // The linear congruential generator of MMIX (Knuth); its high bits are the better ones.
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let spread = (self.state >> 33) % (wait / 2 + 1);
        Nanos(wait - wait / 4 + spread)
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
    fn waits_grow_to_the_longest_differ_and_begin_anew() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            let all: Vec<u64> = (0..9).map(|_| backoff.next().0).collect();
            backoff.reset();
            (all, backoff.next().0)
        };
        for seed in 0..50 {
            let (all, anew) = waits(seed);
            for (at, wait) in all.iter().enumerate() {
                let middle = (FIRST.0 << at).min(LONGEST.0);
                assert!((middle * 3 / 4..=middle * 5 / 4).contains(wait), "{wait} instead of {middle}");
            }
            assert!(anew <= FIRST.0 * 5 / 4);
        }
        assert_ne!(waits(1), waits(2));
    }
}
