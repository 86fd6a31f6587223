//! Frames of the control plane: heartbeats of links and membership, mostly.
//!
//! Without slots they go when they come. Where there are slots, they are the last of real time: one
//! goes where it ends before the next slot, and no late message waits and nothing of the lanes may go
//! now, or only a chunk of best effort, which waits for it. So they displace no slot, and a guard is
//! not touched. Gates are not asked (ADR 0044). While the clock of the slots is halted, so that
//! nothing else goes, they go at once.
//!
//! A small frame (heartbeats) passes a large one that does not fit, and the other way round; among
//! frames of one size the order stays.
//!
//! One that has waited for [`PATIENCE`] is overdue. It goes before a chunk of any lane. While none of
//! our frames is under way it takes the place of the `foreign_bytes` of the link's timing: it ends
//! before the next slot, if others send nothing meanwhile.
//!
//! A table that leaves no room at all does not cut its own link off: after twice that time one goes
//! between decisions about slots, while none of our frames is under way. A slot that begins before it
//! has left may be displaced. All such frames together take one part in [`FORCED_SHARE`] of the
//! link's time at most, each followed by seven times its own without one: they make no queue.
//!
//! Bounds: [`HELD_MAX`] of each size are held, 1.5 KB each, and only where slots may be had. What
//! comes beyond that is lost: the control plane says everything again.

use crate::OVERLAY_BODY_MAX;
use crate::links::Links;
use insane_core::{HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{Link, SendOutcome};
use insane_sys::SharedBytes;
use insane_wire::data::{DataHeader, HEADER_BYTES};
use std::collections::VecDeque;

/// For so long one waits for room between slots: less than a heartbeat of a link may be late.
const PATIENCE: Nanos = Nanos::from_millis(20);
/// Frames held of each size: two heartbeats to each peer.
const HELD_MAX: usize = 128;
/// Up to so many bytes with the header a frame is small: heartbeats are.
const SMALL_MAX: usize = 256;
/// Which part of the link goes to frames that a table leaves no room for: an eighth.
const FORCED_SHARE: u64 = 8;

/// A frame of the control plane.
#[derive(Debug)]
pub(crate) struct Said {
    /// To whom; `None`: to the group of the link.
    pub peer: Option<PeerIndex>,
    /// Place of the link.
    pub link: usize,
    pub lane: Lane,
    pub body: heapless::Vec<u8, OVERLAY_BODY_MAX>,
}

impl Said {
    /// Hands it to its link; one that finds no room is lost, and said again. Bytes with the header.
    pub fn send<L: Link>(&self, (host, incarnation): (HostId, Incarnation), links: &mut Links<L>) -> usize {
        let head = DataHeader::overlay(host, incarnation, self.body.len() as u32);
        let head = DataHeader { lane: self.lane, ..head }.encode();
        let body = SharedBytes::from(self.body.as_slice());
        match links.say(self.link, self.peer, self.lane, &head, body) {
            SendOutcome::Sent | SendOutcome::Busy | SendOutcome::Failed => {}
        }
        self.bytes()
    }

    /// With the header.
    fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }
}

/// Those that wait for room between slots: small ones and large ones, each with the instant from
/// which on it is overdue.
#[derive(Debug)]
pub(super) struct HeldBack {
    queues: [VecDeque<(MonoTime, Said)>; 2],
    /// No other one is forced before.
    forced_until: MonoTime,
}

impl HeldBack {
    pub fn new() -> Self {
        let queues = [(); 2].map(|()| VecDeque::with_capacity(HELD_MAX));
        HeldBack { queues, forced_until: MonoTime(0) }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    pub fn push(&mut self, now: MonoTime, said: Said) {
        let queue = &mut self.queues[usize::from(said.bytes() > SMALL_MAX)];
        if queue.len() < HELD_MAX {
            queue.push_back((now + PATIENCE, said));
        }
    }

    /// Those to a peer that was removed.
    pub fn forget(&mut self, peer: PeerIndex) {
        self.queues.iter_mut().for_each(|queue| queue.retain(|(_, said)| said.peer != Some(peer)));
    }

    /// From when on one is overdue.
    pub fn overdue_at(&self) -> Option<MonoTime> {
        self.queues.iter().filter_map(|queue| queue.front()).map(|(until, _)| *until).min()
    }

    /// Bytes with the header of the least that would go next.
    pub fn least(&self) -> usize {
        self.queues.iter().filter_map(|queue| queue.front()).map(|(_, said)| said.bytes()).min().unwrap_or(0)
    }

    /// From when on one may be forced.
    pub fn forced_at(&self) -> Option<MonoTime> {
        self.overdue_at().map(|until| (until + PATIENCE).max(self.forced_until))
    }

    /// The first one of either size, the older one before: of that is told from when on it is
    /// overdue, and its bytes with the header.
    fn take_if(&mut self, may: impl Fn(MonoTime, usize) -> bool) -> Option<Said> {
        let until = |queue: &VecDeque<(MonoTime, Said)>| queue.front().map_or(MonoTime(u64::MAX), |(until, _)| *until);
        let older = usize::from(until(&self.queues[1]) < until(&self.queues[0]));
        let queues = [older, 1 - older].into_iter();
        let goes = |at: &usize| self.queues[*at].front().is_some_and(|(until, said)| may(*until, said.bytes()));
        let at = queues.into_iter().find(goes)?;
        self.queues[at].pop_front().map(|(_, said)| said)
    }

    pub fn take(&mut self) -> Option<Said> {
        self.take_if(|_, _| true)
    }

    /// One that fits so many bytes.
    pub fn take_fitting(&mut self, room: u64) -> Option<Said> {
        self.take_if(|_, bytes| bytes as u64 <= room)
    }

    /// One that is overdue and fits so many bytes or, if nothing else helps, one that does not; so
    /// long does what is sent take.
    pub fn take_overdue(&mut self, now: MonoTime, room: u64, takes: impl Fn(usize) -> Nanos) -> Option<Said> {
        if let Some(said) = self.take_if(|until, bytes| until <= now && bytes as u64 <= room) {
            return Some(said);
        }
        let may_force = self.forced_until <= now;
        let said = self.take_if(|until, _| may_force && until + PATIENCE <= now)?;
        self.forced_until = now + Nanos(takes(said.bytes()).0.saturating_mul(FORCED_SHARE));
        Some(said)
    }
}
