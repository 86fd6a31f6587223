//! What becomes of slots and messages, counted and told with its cause.

use super::message::OneMessage;
use super::{FIRST_TIMED, Slots, TIMED_MAX, timed_flow};
use crate::transmit::FlowIndex;
use crate::transmit::evidence::{Leaving, mono_of, tai_of};
use insane_core::counters::TurnCounter;
use insane_core::{Cause, Fate, MonoTime, Nanos, TaiTime};
use insane_scheduler::{MissCause, Now};

impl Slots {
    /// What just happened moves slots that messages wait for, in the table in force or in the
    /// `former` one: when they were to begin is kept.
    #[cold]
    pub(super) fn displace(&mut self, cause: Cause, former: bool) {
        for flow in (0..TIMED_MAX as u16).map(timed_flow) {
            let Some(window) = self.timed.window(flow).filter(|_| self.timed.is_waiting(flow)) else { continue };
            // The first slot in which it could still have gone when it came.
            let since = tai_of(self.last, self.evidence.seen(flow));
            let since = TaiTime(since.0.saturating_sub(window.slack_ns));
            if let Some(start) = self.timed.next_start(flow, since, former) {
                let planned = mono_of(self.last, start);
                self.evidence.displace(flow, planned, Nanos(window.slack_ns), cause);
            }
        }
    }

    /// Slots went by unused, the last of which began at `start`.
    pub(super) fn missed(&mut self, now: Now, flow: FlowIndex, start: TaiTime, count: u64, told: MissCause) {
        if let Some(last) = self.cause_of(flow) {
            *last = Some(told);
        }
        let Some(window) = self.timed.window(flow) else { return };
        // The message belongs to the first of them.
        let first = start.0.saturating_sub(count.saturating_sub(1).saturating_mul(window.period_ns));
        let cause = self.evidence.missed(flow, mono_of(now, TaiTime(first)), told, window);
        let counter = match cause {
            None => TurnCounter::SlotsUnused,
            Some(Cause::LinkBusy) => TurnCounter::LateLinkBusy,
            Some(Cause::RingFull) => TurnCounter::LateRingFull,
            Some(Cause::WakeLate) => TurnCounter::LateWake,
            Some(Cause::TurnOverrun) => TurnCounter::LateTurn,
            Some(Cause::NotTurned) => TurnCounter::LateUnturned,
            Some(Cause::Unexplained | Cause::HostStolen | Cause::ApplicationLate) => TurnCounter::LateUnexplained,
            // They are counted with the misses, by cause.
            Some(Cause::ClockStep | Cause::Remap | Cause::GateShut) => return,
        };
        self.count(counter, count);
    }

    /// A message of the flow leaves: whether it missed its slot, and why, is noted. The start of
    /// that slot, if it did.
    pub(super) fn leaves(
        &mut self,
        flow: FlowIndex,
        leaving: &Leaving,
        start: Option<MonoTime>,
        more: bool,
    ) -> Option<MonoTime> {
        let window = self.timed.window(flow)?;
        self.evidence.leaves(flow, leaving, (self.last.mono, start), window, more)
    }

    /// What the link took, or did not take, of one message. The start of the slot that it
    /// missed, if it did.
    pub(super) fn one_left(
        &mut self,
        flow: FlowIndex,
        source: u32,
        sent: &OneMessage,
        fate: Fate,
        start: Option<MonoTime>,
    ) -> Option<MonoTime> {
        if let Some((sequence, stamp, messages)) = sent.replaced {
            let leaving = Leaving { source, sequence, stamp, fate: self.fate_of_older(flow), messages };
            let _missed = self.leaves(flow, &leaving, start, true);
        }
        let (sequence, stamp) = sent.message?;
        let leaving = Leaving { source, sequence, stamp, fate, messages: 1 };
        if sent.is_cut {
            self.evidence.cut(&leaving, self.last.mono, start);
            start
        } else {
            self.leaves(flow, &leaving, start, sent.more)
        }
    }

    pub(super) fn cause_of(&mut self, flow: FlowIndex) -> Option<&mut Option<MissCause>> {
        self.causes.get_mut(usize::from(flow.0).checked_sub(FIRST_TIMED)?)
    }

    /// A message is late: because it came after its slot, unless the slot had another cause,
    /// which is counted already.
    pub(super) fn late(&mut self, flow: FlowIndex, counter: TurnCounter) {
        self.count(counter, 1);
        let cause = self.cause_of(flow).and_then(Option::take);
        if cause.is_none_or(|cause| cause == MissCause::NoMessage) {
            self.count(TurnCounter::LateApplication, 1);
        }
    }

    /// A frame was on its way `after` a decision, which came `looked` after its slot began.
    pub(super) fn took(&mut self, looked: Nanos, after: Nanos) {
        self.counters.raise(TurnCounter::SlotTurnNsMax as usize, after.0);
        self.epsilons.turn.note(looked.max(after));
        self.count_overrun(after);
    }

    /// Chunks and late messages were on their way by `now`, the first of which was decided upon
    /// at `since`.
    pub(super) fn took_chunks(&mut self, since: MonoTime, now: MonoTime) {
        let after = now.since(since);
        self.epsilons.chunk.note(after);
        self.count_overrun(after);
    }

    pub(super) fn count_overrun(&self, after: Nanos) {
        if after.0 > self.config.timing.turn_ns {
            self.count(TurnCounter::TurnOverruns, 1);
        }
    }
}
