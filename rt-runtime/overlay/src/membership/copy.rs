//! A peer's interests, as far as they are known here.
//!
//! The copy is made in numbered attempts. A new attempt asks the peer for the whole
//! set, but keeps what is known until it is complete: what was not confirmed by then is
//! dropped. So a repair does not interrupt the interests that were right all along.

use alloc::collections::BTreeMap;
use insane_wire::overlay::{Changes, Digest, Interest};

pub(super) struct Copy {
    /// Number of the present attempt; never 0.
    attempt: u32,
    /// Version of the peer's set that is applied, in this attempt.
    applied: u64,
    /// Whether this attempt has reached the peer's version once.
    complete: bool,
    /// Each interest with the attempt that confirmed it.
    interests: BTreeMap<Interest, u32>,
    /// Interests confirmed by this attempt.
    confirmed: usize,
    /// Of all in the table.
    digest: Digest,
    /// Interests of this attempt that did not fit.
    refused: bool,
}

/// What applying a delta led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Applied {
    /// Interests that did not fit.
    pub(super) refused: u32,
}

impl Copy {
    pub(super) const fn new() -> Self {
        Copy {
            attempt: 1,
            applied: 0,
            complete: false,
            interests: BTreeMap::new(),
            confirmed: 0,
            digest: Digest { hash: 0, count: 0 },
            refused: false,
        }
    }

    pub(super) const fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(super) const fn applied(&self) -> u64 {
        self.applied
    }

    pub(super) const fn is_complete(&self) -> bool {
        self.complete
    }

    pub(super) fn contains(&self, interest: &Interest) -> bool {
        self.interests.contains_key(interest)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Interest> {
        self.interests.keys()
    }

    /// Begins a new attempt; keeps what is known.
    pub(super) fn renew(&mut self) {
        self.attempt = self.attempt.checked_add(1).unwrap_or(1);
        self.applied = 0;
        self.complete = false;
        self.confirmed = 0;
        self.refused = false;
    }

    /// Forgets everything and begins a new attempt.
    pub(super) fn clear(&mut self) {
        self.renew();
        self.interests.clear();
        self.digest = Digest::default();
    }

    /// Applies a delta of this attempt that leads from `base` to `to`; the peer's version
    /// is `version`. Calls `changed` for each interest that came or went. Does nothing if
    /// the delta does not join on, or leads nowhere new.
    pub(super) fn apply(
        &mut self,
        (base, to, version): (u64, u64, u64),
        changes: Changes<'_>,
        interests_max: usize,
        mut changed: impl FnMut(Interest, bool),
    ) -> Applied {
        let mut applied = Applied::default();
        if base > self.applied || to <= self.applied {
            return applied;
        }
        for change in changes.iter() {
            if !change.on {
                self.remove(&change.interest, &mut changed);
            } else if !self.insert(change.interest, interests_max, &mut changed) {
                applied.refused += 1;
                self.refused = true;
            }
        }
        self.applied = to;
        if to == version && !self.complete {
            self.complete = true;
            self.drop_unconfirmed(&mut changed);
        }
        applied
    }

    /// Whether the peer's digest at `version` shows that the copy is wrong.
    pub(super) fn contradicts(&self, version: u64, digest: Digest, interests_max: usize) -> bool {
        if version != self.applied || !self.complete || digest == self.digest {
            return false;
        }
        // After refusals the copy differs for a known cause, until the peer's set fits again.
        !(self.refused && digest.count > interests_max as u64)
    }

    fn insert(&mut self, interest: Interest, interests_max: usize, changed: &mut impl FnMut(Interest, bool)) -> bool {
        let known = self.interests.get_mut(&interest);
        if known.as_ref().is_some_and(|attempt| **attempt == self.attempt) {
            return true;
        }
        // What is not confirmed yet does not count: so the table holds at most twice the limit.
        if self.confirmed >= interests_max {
            return false;
        }
        self.confirmed += 1;
        if let Some(attempt) = known {
            *attempt = self.attempt;
            return true;
        }
        self.interests.insert(interest, self.attempt);
        self.digest.hash = self.digest.hash.wrapping_add(interest.fingerprint());
        self.digest.count += 1;
        changed(interest, true);
        true
    }

    fn remove(&mut self, interest: &Interest, changed: &mut impl FnMut(Interest, bool)) {
        let Some(attempt) = self.interests.remove(interest) else { return };
        if attempt == self.attempt {
            self.confirmed -= 1;
        }
        self.digest.hash = self.digest.hash.wrapping_sub(interest.fingerprint());
        self.digest.count -= 1;
        changed(*interest, false);
    }

    fn drop_unconfirmed(&mut self, changed: &mut impl FnMut(Interest, bool)) {
        let Copy { attempt, interests, digest, .. } = self;
        interests.retain(|interest, confirmed_by| {
            let keep = confirmed_by == attempt;
            if !keep {
                digest.hash = digest.hash.wrapping_sub(interest.fingerprint());
                digest.count -= 1;
                changed(*interest, false);
            }
            keep
        });
    }
}
