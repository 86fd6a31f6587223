//! Pools: flows of several clients that pay from one bucket, in every lane.
//!
//! What a link may carry of best effort is such a bucket. A flow that its pool cannot pay for
//! waits by itself in the heap of its lane, so the flows of its client that are in no pool, or in
//! another, go on.
//!
//! In a lane, flows that wait for one pool go by **tags**, the least first (start-time fair
//! queueing, Goyal et al., SIGCOMM 1996). A flow begins to wait with the tag at which what its
//! client had served ends, or what it had itself where it has none; at least with that of whom the
//! pool served last. So clients share what a pool lets go equally, however many
//! flows they have there.
//!
//! The first of them stands in the heap of its lane for all of them, so that a poll looks at one
//! flow of a pool however many wait. A flow in a ring is looked at when its turn comes: a pool that
//! runs empty costs nothing for those that are not looked at.

use crate::bucket::Bucket;
use crate::{Decision, FlowIndex, PoliceError, Policing, RELEASES_MAX, Scheduler, State};
use core::num::NonZeroU32;
use insane_core::limits::{LANES, LINKS_MAX};
use insane_core::{MonoTime, Nanos};
use insane_mutation::mutate;

/// Pools of one scheduler.
pub const POOLS_MAX: usize = LINKS_MAX;

/// A pool, by its place in the scheduler's table; chosen by the caller, below [`POOLS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PoolIndex(pub u8);

/// From what a flow pays, beside the budget of its client.
#[derive(Clone, Copy)]
pub(crate) enum Pays {
    Nothing,
    /// Its own bucket.
    Own(Bucket),
    /// That of a pool.
    Pool(PoolIndex),
}

#[derive(Clone, Copy)]
pub(crate) struct Pool {
    bucket: Option<Bucket>,
    /// The tag of what was served last.
    tag: u64,
}

impl Pool {
    pub(crate) const NEW: Pool = Pool { bucket: None, tag: 0 };

    /// What may go; nothing: not even a frame.
    pub(crate) fn budget_bytes(&mut self, now: MonoTime, frame: NonZeroU32) -> Option<i64> {
        let Some(bucket) = &mut self.bucket else { return Some(i64::MAX) };
        bucket.refill(now);
        Some(bucket.budget_bytes(frame)).filter(|budget| *budget >= 1)
    }

    fn able_at(&self, frame: NonZeroU32) -> MonoTime {
        self.bucket.as_ref().map_or(MonoTime(0), |bucket| bucket.able_at(frame))
    }

    /// Takes bytes that a flow of this tag sent: whether they were there, and whether the pool can
    /// pay for one more frame.
    pub(crate) fn charge(&mut self, tag: u64, bytes: u32, now: MonoTime, frame: NonZeroU32) -> (bool, bool) {
        self.tag = self.tag.max(tag);
        let Some(bucket) = &mut self.bucket else { return (true, true) };
        bucket.refill(now);
        let had = bucket.take(mutate!(PoolNotCharged, bytes, 0));
        (had, bucket.able_at(frame) <= now)
    }
}

impl<const FLOWS: usize> Scheduler<FLOWS> {
    /// From now on the flow pays from this pool, or from nothing (`None`), in place of a bucket of
    /// its own.
    ///
    /// # Errors
    /// [`PoliceError::NoSuchFlow`]; nothing is changed.
    pub fn join_pool(&mut self, flow: FlowIndex, pool: Option<PoolIndex>) -> Result<(), PoliceError> {
        let state = self.state(flow);
        if state == State::Absent || pool.is_some_and(|pool| usize::from(pool.0) >= POOLS_MAX) {
            return Err(PoliceError::NoSuchFlow);
        }
        if self.pool_of(flow.0) == pool && !matches!(self.flows[flow.0 as usize].pays, Pays::Own(_)) {
            return Ok(());
        }
        self.pay_from(flow, state, pool.map_or(Pays::Nothing, Pays::Pool));
        Ok(())
    }

    /// What all flows of the pool together may send; `None`: no bound, as at first. A pool that had
    /// none begins with a full bucket, another one keeps what it has of it.
    ///
    /// # Errors
    /// [`PoliceError`]; nothing is changed.
    pub fn set_pool(&mut self, pool: PoolIndex, policing: Option<Policing>) -> Result<(), PoliceError> {
        if policing.is_some_and(|policing| policing.burst_bytes < self.limits.frame_bytes_max.get()) {
            return Err(PoliceError::BurstTooSmall);
        }
        let now = self.now;
        let entry = self.pools.get_mut(usize::from(pool.0)).ok_or(PoliceError::NoSuchFlow)?;
        if entry.bucket.map(|bucket| bucket.policing()) == policing {
            return Ok(());
        }
        entry.bucket = policing.map(|policing| match entry.bucket {
            Some(bucket) => bucket.with(policing, now),
            None => Bucket::full(policing, now),
        });
        for lane in 0..LANES as u8 {
            if let Some(first) = self.waiting.first(pool.0, lane) {
                self.held.remove(lane, first);
                self.held.push(lane, first, self.pool_able_at(pool));
            }
        }
        Ok(())
    }

    /// How often a flow with something to send had used up its pool, since construction.
    #[must_use]
    pub const fn pools_used_up(&self) -> u64 {
        self.pools_used_up
    }

    pub(crate) fn pool_of(&self, flow: u16) -> Option<PoolIndex> {
        match self.flows[flow as usize].pays {
            Pays::Pool(pool) => Some(pool),
            Pays::Nothing | Pays::Own(_) => None,
        }
    }

    /// When the pool can pay for a frame.
    pub(crate) fn pool_able_at(&self, pool: PoolIndex) -> MonoTime {
        self.pools[usize::from(pool.0)].able_at(self.limits.frame_bytes_max)
    }

    /// The tag of a flow that begins to wait, or might have to.
    pub(crate) fn tag(&self, flow: u16, pool: PoolIndex) -> u64 {
        let entry = &self.flows[flow as usize];
        let at = usize::from(pool.0);
        let ends = self.clients.get(entry.client as usize).map_or(entry.tag, |client| client.tags[at]);
        ends.max(self.pools[at].tag)
    }

    /// A flow, which is in no ring, waits for its pool.
    pub(crate) fn wait_for(&mut self, pool: PoolIndex, flow: u16) {
        let tag = self.tag(flow, pool);
        let able_at = self.pool_able_at(pool);
        let entry = &mut self.flows[flow as usize];
        (entry.state, entry.tag) = (State::Held, tag);
        let lane = entry.lane;
        let before = self.waiting.first(pool.0, lane);
        self.waiting.push((pool.0, lane), flow, tag);
        if self.waiting.first(pool.0, lane) == Some(flow) {
            if let Some(before) = before {
                self.held.remove(lane, before);
            }
            self.held.push(lane, flow, able_at);
        }
    }

    /// It does so no longer; the next one stands for those that do.
    pub(crate) fn wait_no_more(&mut self, pool: PoolIndex, flow: u16) {
        let lane = self.flows[flow as usize].lane;
        let was_first = self.waiting.first(pool.0, lane) == Some(flow);
        self.waiting.remove((pool.0, lane), flow);
        if was_first {
            self.held.remove(lane, flow);
            if let Some(next) = self.waiting.first(pool.0, lane) {
                self.held.push(lane, next, self.pool_able_at(pool));
            }
        }
    }

    /// Takes a flow that is held by itself, and not as the front of its client, out of where it
    /// waits.
    pub(crate) fn unhold(&mut self, flow: u16) {
        match self.pool_of(flow) {
            Some(pool) => self.wait_no_more(pool, flow),
            None => self.held.remove(self.flows[flow as usize].lane, flow),
        }
    }

    /// An active flow whose turn it is, and whose pool cannot pay for it, waits; and so do those of
    /// its lane behind it, a few of them.
    #[cold]
    #[inline(never)]
    pub(crate) fn put_off(&mut self, lane: u8, mut flow: u16, open: u8) -> Decision {
        for _ in 0..RELEASES_MAX {
            self.leave(flow);
            self.enter(flow);
            let can_pay = |flow| self.pool_of(flow).is_none_or(|pool| self.pool_able_at(pool) <= self.now);
            match self.rings.head(lane) {
                Some(next) if !can_pay(next) => flow = next,
                // One level for each lane at most: in this one somebody can pay now, or nobody waits.
                _ => return self.poll_lanes(self.now, open),
            }
        }
        Decision::Wait(self.now + Nanos(1))
    }
}
