//! The flows that wait for pools: one leftist tree a pool and lane (Crane, 1972), ordered by the
//! flows' tags, then by their numbers, in plain arrays that all trees share: a flow is in one at
//! most.
//!
//! The rank of a node is the length of the way down its right side, which is the shorter one: at
//! most log2 FLOWS + 1. Insertion and removal are O(log FLOWS), the first is O(1).

use crate::LANES;
use crate::pools::POOLS_MAX;
use crate::rings::NIL;

pub(crate) struct Waiting<const FLOWS: usize> {
    roots: [[u16; LANES]; POOLS_MAX],
    tags: [u64; FLOWS],
    parent: [u16; FLOWS],
    left: [u16; FLOWS],
    right: [u16; FLOWS],
    rank: [u8; FLOWS],
}

impl<const FLOWS: usize> Waiting<FLOWS> {
    pub(crate) const fn new() -> Self {
        Waiting {
            roots: [[NIL; LANES]; POOLS_MAX],
            tags: [0; FLOWS],
            parent: [NIL; FLOWS],
            left: [NIL; FLOWS],
            right: [NIL; FLOWS],
            rank: [0; FLOWS],
        }
    }

    pub(crate) fn first(&self, pool: u8, lane: u8) -> Option<u16> {
        Some(self.roots[pool as usize][lane as usize]).filter(|first| *first != NIL)
    }

    pub(crate) fn push(&mut self, (pool, lane): (u8, u8), flow: u16, tag: u64) {
        let at = flow as usize;
        (self.tags[at], self.left[at], self.right[at], self.rank[at]) = (tag, NIL, NIL, 1);
        let root = self.merge(self.roots[pool as usize][lane as usize], flow);
        self.set_root((pool, lane), root);
    }

    pub(crate) fn remove(&mut self, (pool, lane): (u8, u8), flow: u16) {
        let (left, right) = (self.left[flow as usize], self.right[flow as usize]);
        let rest = self.merge(left, right);
        let mut at = self.parent[flow as usize];
        if at == NIL {
            return self.set_root((pool, lane), rest);
        }
        if rest != NIL {
            self.parent[rest as usize] = at;
        }
        if self.left[at as usize] == flow {
            self.left[at as usize] = rest;
        } else {
            self.right[at as usize] = rest;
        }
        // Ranks rise on the way up where they change: at most log2 FLOWS + 1 rounds.
        while at != NIL && self.settle(at) {
            at = self.parent[at as usize];
        }
    }

    fn set_root(&mut self, (pool, lane): (u8, u8), root: u16) {
        self.roots[pool as usize][lane as usize] = root;
        if root != NIL {
            self.parent[root as usize] = NIL;
        }
    }

    /// One of two trees. As deep as the right sides of both together.
    fn merge(&mut self, one: u16, other: u16) -> u16 {
        if one == NIL || other == NIL {
            return if one == NIL { other } else { one };
        }
        let (top, below) = if self.key(one) < self.key(other) { (one, other) } else { (other, one) };
        let right = self.merge(self.right[top as usize], below);
        self.right[top as usize] = right;
        self.parent[right as usize] = top;
        self.settle(top);
        top
    }

    /// Puts the shorter side to the right; whether the rank is another than before.
    fn settle(&mut self, at: u16) -> bool {
        let index = at as usize;
        if self.rank_of(self.left[index]) < self.rank_of(self.right[index]) {
            core::mem::swap(&mut self.left[index], &mut self.right[index]);
        }
        let rank = self.rank_of(self.right[index]) + 1;
        core::mem::replace(&mut self.rank[index], rank) != rank
    }

    fn rank_of(&self, flow: u16) -> u8 {
        self.rank.get(flow as usize).copied().unwrap_or(0)
    }

    fn key(&self, flow: u16) -> (u64, u16) {
        (self.tags[flow as usize], flow)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    const FLOWS: usize = 60;

    proptest! {
        #[test]
        fn the_first_is_always_the_least_and_ranks_are_short(
            calls in prop::collection::vec((0..FLOWS as u16, 0..100_u64), 1..500),
        ) {
            let mut waiting = Waiting::<FLOWS>::new();
            let mut model: [BTreeSet<(u64, u16)>; 2] = Default::default();
            for (flow, tag) in calls {
                // Two trees, so that one could damage the other's.
                let side = usize::from(flow % 2);
                let tree = (side as u8, 7 - side as u8);
                match model[side].iter().copied().find(|entry| entry.1 == flow) {
                    Some(entry) => {
                        waiting.remove(tree, flow);
                        model[side].remove(&entry);
                    }
                    None => {
                        waiting.push(tree, flow, tag);
                        model[side].insert((tag, flow));
                    }
                }
                for (side, set) in model.iter().enumerate() {
                    prop_assert_eq!(waiting.first(side as u8, 7 - side as u8), set.first().map(|entry| entry.1));
                    for (_, flow) in set {
                        let at = *flow as usize;
                        let (left, right) = (waiting.rank_of(waiting.left[at]), waiting.rank_of(waiting.right[at]));
                        prop_assert!(left >= right && waiting.rank[at] == right + 1 && waiting.rank[at] <= 6);
                        let up = waiting.parent[at];
                        prop_assert!(up == NIL || [waiting.left[up as usize], waiting.right[up as usize]].contains(flow));
                    }
                }
            }
        }
    }
}
