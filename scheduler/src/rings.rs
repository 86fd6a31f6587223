//! The active flows of each lane: one circular doubly linked list a lane, in plain
//! arrays. Every operation is O(1).
//!
//! A flow is in at most one list; callers keep that (a flow's state says where it is).

use crate::LANES;

/// No flow.
pub(crate) const NIL: u16 = u16::MAX;

// One bit a lane in a u8.
const _: () = assert!(LANES == 8);

pub(crate) struct Rings<const FLOWS: usize> {
    heads: [u16; LANES],
    occupied: u8,
    next: [u16; FLOWS],
    previous: [u16; FLOWS],
}

impl<const FLOWS: usize> Rings<FLOWS> {
    pub(crate) const fn new() -> Self {
        Rings { heads: [NIL; LANES], occupied: 0, next: [NIL; FLOWS], previous: [NIL; FLOWS] }
    }

    /// Bit i: lane i has an active flow.
    pub(crate) fn occupied(&self) -> u8 {
        self.occupied
    }

    pub(crate) fn head(&self, lane: u8) -> Option<u16> {
        Some(self.heads[lane as usize]).filter(|&head| head != NIL)
    }

    pub(crate) fn push_tail(&mut self, lane: u8, flow: u16) {
        let Some(head) = self.head(lane) else {
            self.heads[lane as usize] = flow;
            self.occupied |= 1 << lane;
            self.link(flow, flow);
            return;
        };
        let tail = self.previous[head as usize];
        self.link(tail, flow);
        self.link(flow, head);
    }

    pub(crate) fn remove(&mut self, lane: u8, flow: u16) {
        let next = self.next[flow as usize];
        if next == flow {
            self.heads[lane as usize] = NIL;
            self.occupied &= !(1 << lane);
            return;
        }
        self.link(self.previous[flow as usize], next);
        if self.heads[lane as usize] == flow {
            self.heads[lane as usize] = next;
        }
    }

    /// The head becomes the tail.
    pub(crate) fn rotate(&mut self, lane: u8) {
        if let Some(head) = self.head(lane) {
            self.heads[lane as usize] = self.next[head as usize];
        }
    }

    /// `new` takes the place of `old`.
    pub(crate) fn replace(&mut self, lane: u8, old: u16, new: u16) {
        let (before, after) = (self.previous[old as usize], self.next[old as usize]);
        if after == old {
            self.link(new, new);
        } else {
            self.link(before, new);
            self.link(new, after);
        }
        if self.heads[lane as usize] == old {
            self.heads[lane as usize] = new;
        }
    }

    /// A chain apart from the lanes, of flows that are in none of them: `first` becomes its
    /// first if it had none, else `flow` its last.
    pub(crate) fn chain(&mut self, first: &mut u16, flow: u16) {
        if *first == NIL {
            *first = flow;
            self.link(flow, flow);
            return;
        }
        let last = self.previous[*first as usize];
        self.link(last, flow);
        self.link(flow, *first);
    }

    /// Takes a flow out of its chain.
    pub(crate) fn unchain(&mut self, first: &mut u16, flow: u16) {
        let next = self.next[flow as usize];
        if next == flow {
            *first = NIL;
            return;
        }
        self.link(self.previous[flow as usize], next);
        if *first == flow {
            *first = next;
        }
    }

    fn link(&mut self, before: u16, after: u16) {
        self.next[before as usize] = after;
        self.previous[after as usize] = before;
    }
}
