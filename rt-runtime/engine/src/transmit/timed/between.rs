//! Frames of the control plane among slots; the rules are in [`overlay`](crate::transmit::overlay).

use super::{TELLS_PER_TURN, told};
use crate::links::Links;
use crate::transmit::Transmitter;
use crate::transmit::overlay::HeldBack;
use insane_core::{MonoTime, Nanos};
use insane_link::Link;
use insane_scheduler::Besides;

impl Transmitter {
    /// Whether a frame waits; where a real-time lane has something, one that is overdue.
    #[inline]
    pub(super) fn may_say(&self, now: MonoTime, is_real_time: bool) -> bool {
        let overdue_at = self.held_back.as_ref().and_then(HeldBack::overdue_at);
        overdue_at.is_some_and(|at| !is_real_time || at <= now)
    }

    /// Sends one frame, if it ends before the next slot or is overdue: `below` as the last poll had
    /// it; `chunk`: or in place of the chunk of a lane that may go. Whether one went.
    #[cold]
    pub(super) fn say_between<L: Link>(
        &mut self,
        now: MonoTime,
        (below, chunk): (u64, bool),
        links: &mut Links<L>,
    ) -> bool {
        let (Some(held_back), Some(slots)) = (&mut self.held_back, &mut self.slots) else { return false };
        let overhead = u64::from(slots.config.overhead_bytes);
        // A chunk has room for a frame, even while a late message waits that lets others by.
        let frame = if chunk { u64::from(slots.timed.lanes().limits().frame_bytes_max.get()) } else { 0 };
        let room = slots.timed.besides(Besides::Ungated, below).max(frame).saturating_sub(overhead);
        let mut said = held_back.take_fitting(room);
        if said.is_none() && slots.unfinished(now) == 0 {
            let room = slots.timed.besides(Besides::AsForeign, below).saturating_sub(overhead);
            let rate = slots.config.timing.rate;
            said = held_back.take_overdue(now, room, |bytes| Nanos(rate.duration_ns(bytes as u64 + overhead)));
        }
        let Some(said) = said else { return false };
        let bytes = said.send((self.host, self.incarnation), links);
        self.note_frame(now, said.lane, bytes);
        true
    }

    /// Sends what is held, as nothing else goes. How many frames.
    #[cold]
    pub(super) fn say_all<L: Link>(&mut self, now: MonoTime, links: &mut Links<L>) -> u32 {
        let mut count = 0;
        while (count as usize) < TELLS_PER_TURN
            && let Some(said) = self.held_back.as_mut().and_then(HeldBack::take)
        {
            let bytes = said.send((self.host, self.incarnation), links);
            self.note_frame(now, said.lane, bytes);
            count += 1;
        }
        count
    }

    /// When one may go for which there is no room now, unless a slot or a table before then
    /// changes that.
    pub(super) fn may_say_at(&self, now: MonoTime) -> Option<MonoTime> {
        let (held_back, slots) = (self.held_back.as_ref()?, self.slots.as_ref()?);
        let overdue_at = held_back.overdue_at()?;
        if slots.told.is_blocked() {
            return Some(now + told::AGAIN);
        }
        let timing = slots.config.timing;
        let bytes = held_back.least() as u64 + u64::from(slots.config.overhead_bytes);
        let below = slots.unfinished(now);
        // As much as has to leave first, and can.
        let surplus = (below + bytes).saturating_sub(timing.in_flight_bytes.into()).min(below);
        let room_at = now + Nanos(timing.rate.duration_ns(surplus));
        let at = match (surplus, below) {
            (1.., _) => room_at,
            (0, _) if now < overdue_at => overdue_at,
            (0, 0) => held_back.forced_at()?,
            (0, _) => slots.busy_until,
        };
        Some(at.max(now + Nanos(1)))
    }
}
