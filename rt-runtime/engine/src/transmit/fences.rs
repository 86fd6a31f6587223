//! Fences: what tells the receivers of a flow that no more of it comes by the link it left.
//!
//! A fence goes behind the last message, in its lane and by its link. It may be lost, and its
//! loss costs nothing but time ([`crate::HOLD_MAX`]), so it is sent [`TIMES`] times, and what
//! finds no place here is left out.

use crate::engine::Links;
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
/// Fences looked at in one turn.
const PER_TURN: usize = 32;
/// Fences under way, at most.
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
    queue: VecDeque<Fence>,
}

impl Fences {
    pub fn new() -> Self {
        Fences { queue: VecDeque::with_capacity(UNDER_WAY_MAX) }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub fn push(&mut self, now: MonoTime, (peer, link): (PeerIndex, u8), lane: Lane, head: [u8; HEADER_BYTES]) {
        if self.queue.len() < UNDER_WAY_MAX {
            self.queue.push_back(Fence { peer, link, lane, head, left: TIMES, at: now, until: now + PATIENCE });
        }
    }

    /// Sends what is due; how many went.
    #[cold]
    pub fn send<L: Link>(&mut self, now: MonoTime, links: &mut Links<L>) -> u32 {
        let mut sent = 0;
        for _ in 0..self.queue.len().min(PER_TURN) {
            let Some(mut fence) = self.queue.pop_front() else { break };
            if fence.at <= now {
                let none = SharedBytes::from(&[][..]);
                match links.send_by(fence.link, fence.peer, fence.lane, &fence.head, none) {
                    SendOutcome::Sent => {
                        sent += 1;
                        fence.left -= 1;
                    }
                    // The link is gone, and so is what it held.
                    SendOutcome::Failed => fence.left = 0,
                    SendOutcome::Busy if now >= fence.until => fence.left = 0,
                    SendOutcome::Busy => {}
                }
                fence.at = now + APART;
            }
            if fence.left > 0 {
                self.queue.push_back(fence);
            }
        }
        if sent > 0 {
            links.flush();
        }
        sent
    }
}
