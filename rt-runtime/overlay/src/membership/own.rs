//! What this runtime itself wants, as a numbered history that peers can copy.
//!
//! Every change takes the next version. Of each interest only the last change is kept,
//! so the history from any version on leads a peer to the present state. A LEAVE is
//! kept until every peer that could need it has applied it, and at most
//! `leaves_max` of them: a peer that was promised one that is gone (its version is above
//! 0 and below [`OwnInterests::floor`]) has to copy the whole set again.

use alloc::collections::{BTreeMap, BTreeSet};
use insane_wire::overlay::{CHANGES_MAX, Change, Digest, Interest};

pub(super) struct OwnInterests {
    version: u64,
    /// The version of each interest's last change.
    versions: BTreeMap<Interest, u64>,
    history: BTreeMap<u64, Change>,
    /// Versions of the LEAVEs in the history.
    leaves: BTreeSet<u64>,
    floor: u64,
    digest: Digest,
    interests_max: usize,
    leaves_max: usize,
}

/// What [`OwnInterests::set`] did.
#[must_use]
pub(super) enum Set {
    Changed,
    Unchanged,
    Full,
}

impl OwnInterests {
    pub(super) fn new(interests_max: usize, leaves_max: usize) -> Self {
        OwnInterests {
            // Not 0, so that even an empty set is something a peer has yet to apply.
            version: 1,
            versions: BTreeMap::new(),
            history: BTreeMap::new(),
            leaves: BTreeSet::new(),
            floor: 0,
            digest: Digest::default(),
            interests_max,
            leaves_max,
        }
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) const fn digest(&self) -> Digest {
        self.digest
    }

    /// The newest version whose LEAVE is no longer in the history.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    pub(super) fn contains(&self, interest: &Interest) -> bool {
        self.versions.get(interest).is_some_and(|version| !self.leaves.contains(version))
    }

    pub(super) fn set(&mut self, change: Change) -> Set {
        let Change { interest, on } = change;
        if self.contains(&interest) == on {
            return Set::Unchanged;
        }
        if on && self.digest.count >= self.interests_max as u64 {
            return Set::Full;
        }
        self.version += 1;
        if let Some(previous) = self.versions.insert(interest, self.version) {
            self.history.remove(&previous);
            self.leaves.remove(&previous);
        }
        self.history.insert(self.version, change);
        if on {
            self.digest.hash = self.digest.hash.wrapping_add(interest.fingerprint());
            self.digest.count += 1;
        } else {
            self.digest.hash = self.digest.hash.wrapping_sub(interest.fingerprint());
            self.digest.count -= 1;
            self.leaves.insert(self.version);
            if self.leaves.len() > self.leaves_max {
                self.forget_oldest_leave();
            }
        }
        Set::Changed
    }

    /// The changes after `base`, oldest first, as many as fit one frame, and the version
    /// that they lead to.
    pub(super) fn page(&self, base: u64) -> (u64, impl Iterator<Item = Change>) {
        let after = || self.history.range(base.saturating_add(1)..);
        let to = match after().nth(CHANGES_MAX) {
            Some(_) => after().nth(CHANGES_MAX - 1).map_or(self.version, |(version, _)| *version),
            None => self.version,
        };
        (to, after().take(CHANGES_MAX).map(|(_, change)| *change))
    }

    /// Forgets the LEAVEs up to `version`: nobody needs them.
    pub(super) fn forget_leaves(&mut self, version: u64) {
        while self.leaves.first().is_some_and(|oldest| *oldest <= version) {
            self.forget_oldest_leave();
        }
    }

    fn forget_oldest_leave(&mut self) {
        let Some(version) = self.leaves.pop_first() else { return };
        if let Some(change) = self.history.remove(&version) {
            self.versions.remove(&change.interest);
        }
        self.floor = version;
    }
}
