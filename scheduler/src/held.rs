//! The flows that wait for tokens: one binary heap a lane, ordered by the instant at
//! which the flow can pay again, then by the flow's number.
//!
//! A heap a lane, because a poll must not spend its time on releases in lanes that
//! it will not serve. Insertion and removal are O(log FLOWS), the first is O(1).

use crate::LANES;
use crate::rings::NIL;
use insane_core::MonoTime;

pub(crate) struct Held<const FLOWS: usize> {
    occupied: u8,
    lengths: [u16; LANES],
    heaps: [[u16; FLOWS]; LANES],
    /// When each held flow can pay again.
    due: [MonoTime; FLOWS],
    /// Where in its lane's heap each held flow is.
    position: [u16; FLOWS],
}

impl<const FLOWS: usize> Held<FLOWS> {
    pub(crate) const fn new() -> Self {
        Held {
            occupied: 0,
            lengths: [0; LANES],
            heaps: [[NIL; FLOWS]; LANES],
            due: [MonoTime(0); FLOWS],
            position: [0; FLOWS],
        }
    }

    /// Bit i: lane i has a held flow.
    pub(crate) fn occupied(&self) -> u8 {
        self.occupied
    }

    pub(crate) fn first(&self, lane: u8) -> Option<(MonoTime, u16)> {
        if self.occupied & (1 << lane) == 0 {
            return None;
        }
        let flow = self.heaps[lane as usize][0];
        Some((self.due[flow as usize], flow))
    }

    pub(crate) fn push(&mut self, lane: u8, flow: u16, due: MonoTime) {
        let length = self.lengths[lane as usize];
        self.due[flow as usize] = due;
        self.lengths[lane as usize] = length + 1;
        self.occupied |= 1 << lane;
        self.put(lane, length, flow);
        self.rise(lane, length);
    }

    pub(crate) fn remove(&mut self, lane: u8, flow: u16) {
        let at = self.position[flow as usize];
        let last = self.lengths[lane as usize] - 1;
        self.lengths[lane as usize] = last;
        if last == 0 {
            self.occupied &= !(1 << lane);
        }
        if at != last {
            self.put(lane, at, self.heaps[lane as usize][last as usize]);
            self.rise(lane, at);
            self.sink(lane, at);
        }
    }

    /// At most log2 FLOWS rounds.
    fn rise(&mut self, lane: u8, mut at: u16) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.key(lane, parent) <= self.key(lane, at) {
                return;
            }
            self.swap(lane, parent, at);
            at = parent;
        }
    }

    /// At most log2 FLOWS rounds.
    fn sink(&mut self, lane: u8, mut at: u16) {
        loop {
            let mut least = at;
            for child in [2 * u32::from(at) + 1, 2 * u32::from(at) + 2] {
                if child < u32::from(self.lengths[lane as usize])
                    && self.key(lane, child as u16) < self.key(lane, least)
                {
                    least = child as u16;
                }
            }
            if least == at {
                return;
            }
            self.swap(lane, least, at);
            at = least;
        }
    }

    fn key(&self, lane: u8, at: u16) -> (MonoTime, u16) {
        let flow = self.heaps[lane as usize][at as usize];
        (self.due[flow as usize], flow)
    }

    fn put(&mut self, lane: u8, at: u16, flow: u16) {
        self.heaps[lane as usize][at as usize] = flow;
        self.position[flow as usize] = at;
    }

    fn swap(&mut self, lane: u8, left: u16, right: u16) {
        let (flow_left, flow_right) =
            (self.heaps[lane as usize][left as usize], self.heaps[lane as usize][right as usize]);
        self.put(lane, left, flow_right);
        self.put(lane, right, flow_left);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;

    const FLOWS: usize = 40;

    proptest! {
        #[test]
        fn the_first_is_always_the_least(calls in prop::collection::vec((0..FLOWS as u16, 0..1_000u64), 1..300)) {
            let mut held = Held::<FLOWS>::new();
            let mut model: [BTreeSet<(MonoTime, u16)>; 2] = Default::default();
            for (flow, due) in calls {
                // Flows of two lanes, so that one lane's heap could damage the other's.
                let lane = (flow % 2) as u8;
                let set = &mut model[lane as usize];
                match set.iter().copied().find(|entry| entry.1 == flow) {
                    Some(entry) => {
                        held.remove(lane, flow);
                        set.remove(&entry);
                    }
                    None => {
                        held.push(lane, flow, MonoTime(due));
                        set.insert((MonoTime(due), flow));
                    }
                }
                let firsts: Vec<_> = model.iter().map(|set| set.first().copied()).collect();
                prop_assert_eq!([held.first(0), held.first(1)].to_vec(), firsts);
            }
            for (lane, set) in model.into_iter().enumerate() {
                for entry in set {
                    prop_assert_eq!(held.first(lane as u8), Some(entry));
                    held.remove(lane as u8, entry.1);
                }
            }
            prop_assert_eq!(held.occupied(), 0);
        }
    }
}
