//! Late messages: which of them goes next, and what waits for them.
//!
//! A flow whose message missed its slot, and that has a policy for that, stands in a queue, the
//! one that has been late longest first. What cannot go before the next slot, or because its gate
//! is shut, lets others by: those behind it, and the lanes, which are kept from that slot by the
//! guard as ever. What only waits for room below us lets nobody by. The lanes would take what
//! leaves again and again, in frames smaller than the message, and it would never go.
//!
//! A late message that is larger than all that lanes may have below us goes when nothing of ours
//! is there.
//!
//! # Bounds
//! [`LOOKS`] flows a poll, and each that is not late any more once. Memory is fixed: a flow is in
//! the queue at most once.

use super::{Action, Granted, LatePolicy, TimedScheduler, TimedStream};
use crate::FlowIndex;
use insane_mutation::mutate;

/// Late flows that are looked at in one poll.
const LOOKS: usize = 17;

/// What is to be done about a late flow.
pub(super) enum Late {
    Acts(Action),
    /// It goes when there is room below us, then at the soonest; nothing else does before.
    Waits(u64),
    /// It cannot go before the next slot, or while its gate is shut.
    Rests,
}

/// The flows that have a late message, in the order in which it became late.
pub(super) struct LateQueue<const FLOWS: usize> {
    ring: [u16; FLOWS],
    head: usize,
    count: usize,
}

impl<const FLOWS: usize> LateQueue<FLOWS> {
    pub(super) const fn new() -> Self {
        LateQueue { ring: [0; FLOWS], head: 0, count: 0 }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn at(&self, place: usize) -> FlowIndex {
        FlowIndex(self.ring[(self.head + place) % FLOWS])
    }

    /// The flow is not in it: so it has room.
    fn push(&mut self, flow: FlowIndex) {
        self.ring[(self.head + self.count) % FLOWS] = flow.0;
        self.count += 1;
    }

    fn pop(&mut self) {
        self.head = (self.head + 1) % FLOWS;
        self.count -= 1;
    }
}

impl<const FLOWS: usize, const STREAMS: usize, const SLOTS: usize> TimedScheduler<FLOWS, STREAMS, SLOTS> {
    pub(super) fn is_late(&mut self, flow: FlowIndex, policy: LatePolicy) {
        let acts = mutate!(
            LateDropIsSent,
            matches!(policy, LatePolicy::Drop | LatePolicy::SendNow),
            policy == LatePolicy::SendNow
        );
        if !acts {
            return;
        }
        let state = &mut self.flows[flow.0 as usize];
        state.late = true;
        if !core::mem::replace(&mut state.queued, true) {
            self.late.push(flow);
        }
    }

    /// What to do about the first late flow that does not rest; `None`: there is none.
    #[inline]
    pub(super) fn late_message(&mut self, end: u64, below: u64) -> Option<Late> {
        if self.late.is_empty() {
            return None;
        }
        self.first_of_late(end, below)
    }

    fn first_of_late(&mut self, end: u64, below: u64) -> Option<Late> {
        while !self.late.is_empty() && self.late_at(0).is_none() {
            // It is not late any more.
            let state = &mut self.flows[self.late.at(0).0 as usize];
            (state.queued, state.late) = (false, false);
            self.late.pop();
        }
        for place in 0..self.late.count.min(LOOKS) {
            match self.late_at(place).map(|late| self.judge_late(late, end, below)) {
                Some(Late::Rests) | None => {}
                found => return found,
            }
        }
        None
    }

    fn judge_late(&mut self, (flow, timed, missed): (FlowIndex, TimedStream, u64), end: u64, below: u64) -> Late {
        if !self.is_of_use(&timed, missed) {
            self.granted = Granted::Late(flow, true);
            return Late::Acts(Action::Drop { flow });
        }
        let bytes = u64::from(timed.bytes);
        if bytes > self.room_of(end, below, u32::MAX) {
            return Late::Rests;
        }
        let taken = self.timing.rate.duration_ns(below.saturating_add(bytes));
        let ends = self.now.tai.0.saturating_add(self.timing.turn_ns).saturating_add(taken);
        if self.shut_until(flow, ends).is_some() {
            return Late::Rests;
        }
        let limit = self.timing.in_flight_bytes.max(timed.bytes);
        if bytes > self.room_of(end, below, limit) {
            return Late::Waits(self.when_room(below, bytes, limit));
        }
        self.granted = Granted::Late(flow, false);
        Late::Acts(Action::Late { flow, bytes_max: timed.bytes })
    }

    /// The flow at a place of the queue, if it still is late, and the slot that it missed.
    fn late_at(&self, place: usize) -> Option<(FlowIndex, TimedStream, u64)> {
        let flow = self.late.at(place);
        let table = &self.tables[self.active];
        Some((flow, *table.stream(table.stream_of(flow)?), self.late_since(flow)?))
    }

    /// The start of the slot that the flow's message came too late for.
    pub(super) fn late_since(&self, flow: FlowIndex) -> Option<u64> {
        let state = self.flows[flow.0 as usize];
        let (missed, epoch) = state.missed?;
        (state.waiting && state.late && epoch == self.epoch).then_some(missed)
    }

    /// Whether a late message may still go.
    pub(super) fn is_of_use(&self, stream: &TimedStream, missed: u64) -> bool {
        let until = missed.saturating_add(stream.deadline_ns);
        let in_time = mutate!(LateSendIgnoresDeadline, self.now.tai.0 <= until, true);
        stream.late == LatePolicy::SendNow && in_time
    }
}
