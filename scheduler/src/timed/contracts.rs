//! Arrival contracts of lanes: what a certificate assumes of sporadic messages, held against what
//! is sent.
//!
//! The bound of a lane rests on what arrives in those above it: a burst, and one frame more each
//! interval. What is sent is policed as what arrived would be: while something waits its lane
//! earns what its contract allows, without a limit, and when nothing waits, no more than the
//! burst. So who keeps the contract is never held up by it, however long slots and other lanes
//! kept it waiting, and who does not sends in no stretch of time more than one who does.
//!
//! - A lane that runs empty keeps no more than the burst at that instant, also where it has
//!   something again by the next look.
//! - What comes to an empty lane waits from when it came, not from when it was found: messages
//!   bunch up while nobody looks, by no fault of their sender. When they came is what the caller
//!   says, and it may be a claim: at most [`FOUND_LATE_MAX`] are believed.
//! - What the link does not take goes on waiting, though the caller reports it idle until the link
//!   has room.
//!
//! What a flow's own bucket, or its client's budget, holds back has not arrived: it does not wait,
//! or a lane would save up without limit beside it. A frame that is larger than the contract says
//! is owed whole. Rates are rounded up to whole bytes a second, so that a contract of any interval
//! is never short of what it promises.
//!
//! # Bounds
//! O(1) a lane that has a contract and something to send. Memory is fixed.

use super::words::Arrivals;
use crate::bucket::Bucket;
use crate::{FlowIndex, LANES, Policing};
use core::num::{NonZeroU32, NonZeroU64};
use insane_core::{MonoTime, Nanos};
use insane_mutation::mutate;

/// For how long at most a message counts as having waited before it was found.
const FOUND_LATE_MAX: Nanos = Nanos::from_millis(10);

#[derive(Clone, Copy)]
struct Contract {
    arrivals: Arrivals,
    bucket: Bucket,
    /// Who sent last.
    last: FlowIndex,
}

/// The contracts of all lanes.
#[derive(Clone, Copy)]
pub(super) struct Contracts {
    lanes: [Option<Contract>; LANES],
    /// Bit i: lane i has one.
    named: u8,
    /// Lanes that had something that could go at the last look, and have not run empty since.
    waited: u8,
    /// Lanes to which something came since then, and when the first of it did.
    came: u8,
    came_at: [MonoTime; LANES],
    /// Flows of each lane that have something which the link did not take.
    stuck: [u16; LANES],
    /// Lanes that had something which their contract did not allow.
    is_cut: u8,
    told: Option<(u8, FlowIndex)>,
}

impl Arrivals {
    fn policing(self) -> Policing {
        const SECOND: u64 = 1_000_000_000;
        let bytes = u64::from(self.frame_bytes.get());
        // Rounded down it would be short of a frame once in a while, and of all if nothing is left.
        let rate = bytes.saturating_mul(SECOND).div_ceil(self.interval_ns.get());
        let burst = bytes.saturating_mul(u64::from(self.burst_frames.max(1)));
        Policing {
            rate_bytes_per_s: NonZeroU64::new(rate).unwrap_or(NonZeroU64::MIN),
            burst_bytes: u32::try_from(burst).unwrap_or(u32::MAX),
        }
    }
}

impl Contracts {
    pub(super) const fn new() -> Self {
        Contracts {
            lanes: [None; LANES],
            named: 0,
            waited: 0,
            came: 0,
            came_at: [MonoTime(0); LANES],
            stuck: [0; LANES],
            is_cut: 0,
            told: None,
        }
    }

    /// Others hold from now on; a lane whose contract stays has what it had.
    pub(super) fn set(&mut self, arrivals: &[Option<Arrivals>; LANES], now: MonoTime) {
        self.named = 0;
        for (lane, (contract, arrivals)) in self.lanes.iter_mut().zip(arrivals).enumerate() {
            if contract.map(|contract| contract.arrivals) != *arrivals {
                *contract = arrivals.map(|arrivals| {
                    let bucket = Bucket::full(arrivals.policing(), now);
                    Contract { arrivals, bucket, last: FlowIndex(0) }
                });
                // What was told of another contract is not told of this one.
                self.told = self.told.filter(|(of, _)| usize::from(*of) != lane);
                self.is_cut &= !(1 << lane);
            }
            self.named |= u8::from(contract.is_some()) << lane;
        }
        self.is_cut &= self.named;
        self.stuck = [0; LANES];
    }

    #[inline]
    pub(super) const fn are_none(&self) -> bool {
        self.named == 0
    }

    /// Something came to a lane at `at`.
    #[cold]
    #[inline(never)]
    pub(super) fn came(&mut self, lane: u8, at: MonoTime) {
        let bit = 1 << lane;
        if let Some(first) = self.came_at.get_mut(usize::from(lane)) {
            *first = if self.came & bit == 0 { at } else { at.min(*first) };
            self.came |= bit;
        }
    }

    /// Nothing is left in a lane that could go.
    #[cold]
    #[inline(never)]
    pub(super) fn emptied(&mut self, lane: u8, now: MonoTime) {
        let bit = 1 << lane;
        if self.stuck.get(usize::from(lane)).is_some_and(|stuck| *stuck > 0) {
            return;
        }
        if let Some(Some(contract)) = self.lanes.get_mut(usize::from(lane)) {
            contract.bucket.refill(now);
        }
        self.waited &= !bit;
        self.came &= !bit;
        self.is_cut &= !bit;
    }

    /// A flow of the lane has something that the link did not take.
    pub(super) fn stick(&mut self, lane: u8) {
        if let Some(stuck) = self.stuck.get_mut(usize::from(lane)) {
            *stuck += 1;
        }
    }

    /// It has not, or is asked again.
    pub(super) fn unstick(&mut self, lane: u8) {
        if let Some(stuck) = self.stuck.get_mut(usize::from(lane)) {
            *stuck -= 1;
        }
    }

    /// A look at which these lanes have something that could go but for contract and room.
    #[cold]
    #[inline(never)]
    pub(super) fn look(&mut self, now: MonoTime, ready: u8) {
        for lane in 0..LANES {
            let bit = 1 << lane;
            if ready & bit == 0 {
                // What a budget holds back has not arrived. Of a lane that had nothing, something
                // may be there already that nobody has found: it is not touched.
                if (self.waited | self.came) & bit != 0 {
                    self.emptied(lane as u8, now);
                }
            } else if let Some(contract) = &mut self.lanes[lane] {
                if self.waited & bit == 0 {
                    let came = if self.came & bit == 0 { now } else { self.came_at[lane] };
                    contract.bucket.refill(came.max(now - FOUND_LATE_MAX).min(now));
                }
                contract.bucket.accrue(now);
            }
        }
        self.waited |= ready;
        self.came = 0;
    }

    /// How much a lane that was looked at may send, if it may send anything.
    ///
    /// # Errors
    /// When it may.
    #[cold]
    #[inline(never)]
    pub(super) fn budget(&mut self, lane: usize, now: MonoTime) -> Result<u64, MonoTime> {
        let Some(contract) = &self.lanes[lane] else { return Ok(u64::MAX) };
        let frame: NonZeroU32 = contract.arrivals.frame_bytes;
        let able_at = contract.bucket.able_at(frame);
        if mutate!(ContractIgnored, able_at <= now, true) {
            self.is_cut &= !(1 << lane);
            return Ok(contract.bucket.budget_bytes(frame).max(1).unsigned_abs());
        }
        if self.is_cut & 1 << lane == 0 && self.told.is_none() {
            self.is_cut |= 1 << lane;
            self.told = Some((lane as u8, contract.last));
        }
        Err(able_at)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn charge(&mut self, lane: u8, flow: FlowIndex, bytes: u32) {
        if let Some(Some(contract)) = self.lanes.get_mut(usize::from(lane)).filter(|_| bytes > 0) {
            contract.bucket.owe(bytes);
            contract.last = flow;
        }
    }

    #[inline]
    pub(super) fn take_told(&mut self) -> Option<(u8, FlowIndex)> {
        self.told.take()
    }
}
