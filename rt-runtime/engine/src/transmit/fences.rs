//! Fences: what tells the receivers of a flow that no more of it comes by the link it left, or
//! that none comes at all, because its source has closed.
//!
//! A fence goes behind the last message, in its lane and by its link. It may be lost, and its
//! loss costs nothing but time ([`crate::HOLD_MAX`]), or a place for longer, so it is sent
//! [`TIMES`] times, and what finds no place here is left out. Those of closed sources are in no
//! hurry: few go in a turn, they take no place from those of moves, and where there are slots they
//! go when nothing else does, and end before the next slot.

use crate::links::Links;
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{Link, SendOutcome};
use insane_sys::SharedBytes;
use insane_wire::data::HEADER_BYTES;
use std::collections::VecDeque;

/// How often one is sent.
const TIMES: u8 = 3;
/// Time between: a burst of losses shall not take all of them.
const APART: Nanos = Nanos::from_millis(1);
/// A link without room is asked for so long.
const PATIENCE: Nanos = Nanos::from_millis(20);
/// So long those of closed sources wait for their turn.
const CLOSING_PATIENCE: Nanos = Nanos::from_secs(1);
/// Fences looked at in one turn.
const PER_TURN: usize = 32;
/// Of closed sources.
const CLOSINGS_PER_TURN: usize = 4;
/// Fences under way, at most; the same of closed sources.
const UNDER_WAY_MAX: usize = 1024;

#[derive(Debug)]
struct Fence {
    peer: PeerIndex,
    link: u8,
    lane: Lane,
    head: [u8; HEADER_BYTES],
    left: u8,
    at: MonoTime,
    until: MonoTime,
}

/// The fences of a datapath that are to be sent.
#[derive(Debug)]
pub(super) struct Fences {
    moves: VecDeque<Fence>,
    closings: VecDeque<Fence>,
    /// There is one.
    any: bool,
}

impl Fences {
    pub fn new() -> Self {
        let queue = || VecDeque::with_capacity(UNDER_WAY_MAX);
        Fences { moves: queue(), closings: queue(), any: false }
    }

    #[inline]
    pub const fn is_empty(&self) -> bool {
        !self.any
    }

    /// The leg of a flow has ended at this peer.
    pub fn push(&mut self, now: MonoTime, to: (PeerIndex, u8), lane: Lane, head: [u8; HEADER_BYTES]) {
        self.any = true;
        push(&mut self.moves, Fence::new(now, to, lane, head, PATIENCE));
    }

    /// The flow itself has ended.
    pub fn push_closing(&mut self, now: MonoTime, to: (PeerIndex, u8), lane: Lane, head: [u8; HEADER_BYTES]) {
        self.any = true;
        push(&mut self.closings, Fence::new(now, to, lane, head, CLOSING_PATIENCE));
    }

    /// Sends what is due of moves; how many went.
    #[cold]
    pub fn send_moves<L: Link>(&mut self, now: MonoTime, links: &mut Links<L>) -> u32 {
        let sent = send(&mut self.moves, PER_TURN, now, links, |_| true);
        self.sent(sent, links)
    }

    /// Sends a few that are due of closed sources, each if its lane `may` send one more; how many
    /// went.
    #[cold]
    pub fn send_closings<L: Link>(
        &mut self,
        now: MonoTime,
        links: &mut Links<L>,
        may: impl FnMut(Lane) -> bool,
    ) -> u32 {
        let sent = send(&mut self.closings, CLOSINGS_PER_TURN, now, links, may);
        self.sent(sent, links)
    }

    fn sent<L: Link>(&mut self, sent: u32, links: &mut Links<L>) -> u32 {
        self.any = !(self.moves.is_empty() && self.closings.is_empty());
        if sent > 0 {
            links.flush();
        }
        sent
    }
}

impl Fence {
    fn new(
        now: MonoTime,
        (peer, link): (PeerIndex, u8),
        lane: Lane,
        head: [u8; HEADER_BYTES],
        patience: Nanos,
    ) -> Self {
        Fence { peer, link, lane, head, left: TIMES, at: now, until: now + patience }
    }
}

fn push(queue: &mut VecDeque<Fence>, fence: Fence) {
    if queue.len() < UNDER_WAY_MAX {
        queue.push_back(fence);
    }
}

fn send<L: Link>(
    queue: &mut VecDeque<Fence>,
    per_turn: usize,
    now: MonoTime,
    links: &mut Links<L>,
    mut may: impl FnMut(Lane) -> bool,
) -> u32 {
    let mut sent = 0;
    for _ in 0..queue.len().min(per_turn) {
        let Some(mut fence) = queue.pop_front() else { break };
        if fence.at <= now && may(fence.lane) {
            let none = SharedBytes::from(&[][..]);
            match links.send_by(fence.link, fence.peer, fence.lane, &fence.head, none) {
                SendOutcome::Sent => {
                    sent += 1;
                    fence.left -= 1;
                }
                // The link is gone, and so is what it held.
                SendOutcome::Failed => fence.left = 0,
                SendOutcome::Busy => {}
            }
            fence.at = now + APART;
        }
        if fence.left > 0 && now < fence.until {
            queue.push_back(fence);
        }
    }
    sent
}
