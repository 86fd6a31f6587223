//! Which of the two connections to a peer.

use insane_core::Lane;

/// A class of lanes; the number is its place in arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
    RealTime = 0,
    BestEffort = 1,
}

impl Class {
    /// Both, in the order in which they are served.
    pub(crate) const BOTH: [Class; 2] = [Class::RealTime, Class::BestEffort];

    #[inline]
    pub(crate) fn of(lane: Lane) -> Self {
        if lane.is_real_time() { Class::RealTime } else { Class::BestEffort }
    }
}
