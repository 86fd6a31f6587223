//! Arrival contracts of lanes: what a certificate assumes of sporadic messages, held against what
//! is sent.
//!
//! The bound of a lane rests on what arrives in those above it: a burst, and one frame more each
//! interval. What is sent is policed as what arrived would be: while something waits its lane
//! earns what its contract allows, without a limit, and when nothing waits, no more than the
//! burst. So who keeps the contract is never held up by it, however long slots and other lanes
//! kept it waiting, and who does not sends in no stretch of time more than one who does.
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
use insane_core::MonoTime;
use insane_mutation::mutate;

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
    /// Lanes that had something that could go at the last look.
    waited: u8,
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
        Contracts { lanes: [None; LANES], named: 0, waited: 0, is_cut: 0, told: None }
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
            }
            self.named |= u8::from(contract.is_some()) << lane;
        }
        self.is_cut &= self.named;
    }

    #[inline]
    pub(super) const fn are_none(&self) -> bool {
        self.named == 0
    }

    /// A look at which these lanes have something that could go but for contract and room.
    #[cold]
    #[inline(never)]
    pub(super) fn look(&mut self, now: MonoTime, ready: u8) {
        for (lane, contract) in self.lanes.iter_mut().enumerate() {
            let Some(contract) = contract else { continue };
            if self.waited & ready & 1 << lane != 0 {
                contract.bucket.accrue(now);
            } else {
                contract.bucket.refill(now);
            }
        }
        self.waited = ready;
        self.is_cut &= ready;
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
