//! A table of slots: which comes next, whose it is.
//!
//! Where the slots of one hyperperiod are few enough they are written down in order,
//! and the next one is a cursor: O(1). Otherwise each stream keeps its next start, and
//! a tournament over them says which comes first: a slot that is done costs one match
//! at each of log2(streams) levels. Nothing else differs.

use super::words::LinkTiming;
use super::words::{TableError, TimedStream};
use crate::recurrence::lcm;
use crate::{FlowIndex, Recurrence};
use insane_core::TaiTime;
use insane_mutation::mutate;

const NIL: u16 = u16::MAX;
/// No start: it does not come.
const NEVER: u64 = u64::MAX;

const VACANT: TimedStream = TimedStream {
    flow: FlowIndex(NIL),
    slots: Recurrence::SECOND,
    bytes: 1,
    early_ns: 0,
    deadline_ns: 0,
    late: super::LatePolicy::Drop,
};

#[derive(Clone, Copy)]
struct Slot {
    offset_ns: u64,
    stream: u16,
}

/// The slot that comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Head {
    pub start: u64,
    pub stream: u16,
}

pub(super) struct Table<const FLOWS: usize, const STREAMS: usize, const SLOTS: usize> {
    base: u64,
    length: usize,
    streams: [TimedStream; STREAMS],
    /// How long the largest message of each stream takes.
    durations: [u64; STREAMS],
    stream_of: [u16; FLOWS],
    /// Above zero: the table is written down.
    slot_count: usize,
    cycle_ns: u64,
    slots: [Slot; SLOTS],
    cursor: usize,
    /// Where the cycle of the cursor begins; `NEVER` where time ends before.
    cycle_start: u64,
    /// Leaves of the tournament: the next start of each stream.
    next: [u64; STREAMS],
    /// Inner nodes, the root at 1: the stream that comes first below.
    winners: [u16; STREAMS],
    leaves: usize,
}

impl<const FLOWS: usize, const STREAMS: usize, const SLOTS: usize> Table<FLOWS, STREAMS, SLOTS> {
    pub(super) const fn new() -> Self {
        Table {
            base: 0,
            length: 0,
            streams: [VACANT; STREAMS],
            durations: [0; STREAMS],
            stream_of: [NIL; FLOWS],
            slot_count: 0,
            cycle_ns: 1,
            slots: [Slot { offset_ns: 0, stream: 0 }; SLOTS],
            cursor: 0,
            cycle_start: NEVER,
            next: [NEVER; STREAMS],
            winners: [0; STREAMS],
            leaves: 2,
        }
    }

    /// Fills the table. Set-up: O(streams squared) for the pairs.
    pub(super) fn fill(
        &mut self,
        base: TaiTime,
        streams: &[TimedStream],
        timing: &LinkTiming,
    ) -> Result<(), TableError> {
        check::<FLOWS, STREAMS>(base, streams, timing)?;
        self.base = mutate!(BaseOffByOne, base.0, base.0 + 1);
        self.length = streams.len();
        self.stream_of = [NIL; FLOWS];
        for (at, stream) in streams.iter().enumerate() {
            self.streams[at] = *stream;
            self.durations[at] = timing.rate.duration_ns(u64::from(stream.bytes));
            self.stream_of[stream.flow.0 as usize] = at as u16;
        }
        self.leaves = self.length.next_power_of_two().max(2);
        self.write_down();
        Ok(())
    }

    pub(super) fn is_expanded(&self) -> bool {
        self.slot_count > 0
    }

    pub(super) const fn base(&self) -> u64 {
        self.base
    }

    pub(super) fn stream(&self, stream: u16) -> &TimedStream {
        &self.streams[stream as usize]
    }

    pub(super) fn duration_ns(&self, stream: u16) -> u64 {
        self.durations[stream as usize]
    }

    pub(super) fn stream_of(&self, flow: FlowIndex) -> Option<u16> {
        self.stream_of.get(flow.0 as usize).copied().filter(|&stream| stream != NIL)
    }

    /// Makes the first slot that begins at or after `at` the next one of every stream.
    pub(super) fn position(&mut self, at: TaiTime) {
        let since = at.0.saturating_sub(self.base);
        if self.is_expanded() {
            let into = since % self.cycle_ns;
            self.cycle_start = self.base.saturating_add(since - into);
            self.cursor = self.slots[..self.slot_count].partition_point(|slot| slot.offset_ns < into);
            if self.cursor == self.slot_count {
                self.next_cycle();
            }
            return;
        }
        self.next = [NEVER; STREAMS];
        for stream in 0..self.length {
            let start = self.streams[stream].slots.next_start(since);
            self.next[stream] = start.and_then(|start| self.base.checked_add(start)).unwrap_or(NEVER);
        }
        if STREAMS >= self.leaves {
            (1..self.leaves).rev().for_each(|node| self.play(node));
        }
    }

    /// The end of the last window that begins before `at`; `at` where all have ended.
    pub(super) fn last_end_before(&self, at: TaiTime) -> TaiTime {
        let end = |stream: &TimedStream| {
            // The next start at or after `at`, one period back.
            let next = stream.slots.next_start(at.0.saturating_sub(self.base))?;
            let start = next.checked_sub(stream.slots.period_ns())?;
            Some(self.base.saturating_add(start).saturating_add(stream.slots.length_ns()))
        };
        self.streams[..self.length].iter().filter_map(end).map(TaiTime).fold(at, TaiTime::max)
    }

    #[inline]
    pub(super) fn head(&self) -> Option<Head> {
        let head = if self.is_expanded() {
            let slot = self.slots[self.cursor];
            Head { start: self.cycle_start.saturating_add(slot.offset_ns), stream: slot.stream }
        } else if self.length == 0 {
            return None;
        } else {
            let stream = self.winners[1];
            Head { start: self.next[stream as usize], stream }
        };
        Some(head).filter(|head| head.start != NEVER)
    }

    /// The head is done. Of a stream that is far behind, so are all slots before `now`:
    /// how many.
    #[inline]
    pub(super) fn advance(&mut self, head: Head, now: TaiTime) -> u64 {
        if !self.is_expanded() {
            return self.advance_stream(head, now);
        }
        self.cursor += mutate!(CursorSkips, 1, if self.cursor + 2 < self.slot_count { 2 } else { 1 });
        if self.cursor == self.slot_count {
            self.next_cycle();
        }
        1
    }

    /// Leaves out the whole cycles that a written table is behind, if they are more than
    /// it would do to go through; how long they are.
    pub(super) fn skip_cycles(&mut self, now: TaiTime) -> Option<u64> {
        let behind = now.0.saturating_sub(self.cycle_start) / self.cycle_ns;
        if !self.is_expanded() || behind < 3 {
            return None;
        }
        let ns = (behind - 1) * self.cycle_ns;
        self.cycle_start += ns;
        Some(ns)
    }

    fn next_cycle(&mut self) {
        self.cursor = 0;
        self.cycle_start = self.cycle_start.saturating_add(mutate!(CursorWrapsLate, self.cycle_ns, self.cycle_ns + 1));
    }

    fn advance_stream(&mut self, head: Head, now: TaiTime) -> u64 {
        let period = self.streams[head.stream as usize].slots.period_ns();
        let behind = now.0.saturating_sub(head.start);
        let steps = if behind >= 2 * period { behind / period } else { 1 };
        self.next[head.stream as usize] = head.start.saturating_add(steps.saturating_mul(period));
        // At most log2(STREAMS) matches.
        let mut node = (self.leaves + head.stream as usize) / 2;
        while node > mutate!(TreeForgetsLevel, 0, 1) {
            self.play(node);
            node /= 2;
        }
        steps
    }

    /// Lets the two below a node play.
    #[inline]
    fn play(&mut self, node: usize) {
        let (left, right) = if 2 * node >= self.leaves {
            ((2 * node - self.leaves) as u16, (2 * node - self.leaves + 1) as u16)
        } else {
            (self.winners[2 * node], self.winners[2 * node + 1])
        };
        let start = |stream: u16| self.next.get(stream as usize).copied().unwrap_or(NEVER);
        self.winners[node] = if start(right) < start(left) { right } else { left };
    }

    /// Writes the slots of the hyperperiod down, if there is room for them.
    fn write_down(&mut self) {
        self.slot_count = 0;
        let streams = &self.streams[..self.length];
        let Some(cycle) = streams.iter().try_fold(1, |cycle, stream| lcm(cycle, stream.slots.period_ns())) else {
            return;
        };
        let count = streams.iter().fold(0_u64, |sum, stream| sum.saturating_add(cycle / stream.slots.period_ns()));
        if count > SLOTS as u64 || cycle > crate::PERIOD_NS_MAX {
            return;
        }
        let mut at = 0;
        for (number, stream) in streams.iter().enumerate() {
            for k in 0..cycle / stream.slots.period_ns() {
                let offset_ns = stream.slots.offset_ns() + k * stream.slots.period_ns();
                self.slots[at] = Slot { offset_ns, stream: number as u16 };
                at += 1;
            }
        }
        self.slots[..at].sort_unstable_by_key(|slot| slot.offset_ns);
        self.slot_count = at;
        self.cycle_ns = cycle;
    }
}

fn check<const FLOWS: usize, const STREAMS: usize>(
    base: TaiTime,
    streams: &[TimedStream],
    timing: &LinkTiming,
) -> Result<(), TableError> {
    if streams.len() > STREAMS {
        return Err(TableError::TooManyStreams(streams.len()));
    }
    let mut seen = [NIL; FLOWS];
    for (at, stream) in streams.iter().enumerate() {
        let seen = seen.get_mut(stream.flow.0 as usize).ok_or(TableError::FlowOutOfRange(at))?;
        if *seen != NIL {
            return Err(TableError::FlowTwice(*seen as usize, at));
        }
        *seen = at as u16;
        if stream.bytes == 0 {
            return Err(TableError::ZeroBytes(at));
        }
        let bytes = u64::from(stream.bytes) + u64::from(timing.foreign_bytes);
        let turn = timing.turn_ns.saturating_sub(timing.lead_ns);
        if timing.rate.duration_ns(bytes).saturating_add(turn) > stream.slots.length_ns() {
            return Err(TableError::LargerThanSlot(at));
        }
        if stream.early_ns > stream.slots.period_ns() {
            return Err(TableError::EarlyBeyondPeriod(at));
        }
        if base.0.checked_add(stream.slots.offset_ns()).is_none() {
            return Err(TableError::BeyondTime(at));
        }
        if let Some(other) = streams[..at].iter().position(|other| other.slots.overlaps(stream.slots)) {
            return Err(TableError::Overlap(other, at));
        }
    }
    Ok(())
}
