//! Sources that a turn does not look at, and what a datapath looks at before it sleeps; the rules
//! are in [`watch`](crate::watch).

use super::Transmitter;
use crate::turn::Turn;
use insane_core::SessionId;
use insane_core::time::Clock;
use insane_scheduler::FlowIndex;

impl Transmitter {
    /// Whether any source may have something, for a datapath about to sleep: whose clients see
    /// by now that it does. Quiet ones are not looked at: who emits by one of them has rung, and
    /// the sleep ends with that. `naps`: nor are those whose link has no room.
    pub fn has_work(&mut self, payload_max: u32, naps: bool) -> bool {
        let is_due = self.slots.as_ref().is_none_or(|slots| slots.is_due()) && self.held_until.is_none();
        // The last table went, and with it what frames of the control plane waited for.
        let is_let_go = !self.has_slots() && self.held_back.as_ref().is_some_and(|held_back| !held_back.is_empty());
        if (self.ready > 0 && is_due) || self.watch.is_rung() || is_let_go {
            return true;
        }
        (0..self.watch.watched_count()).any(|at| self.could_send(at, is_due, payload_max, naps))
    }

    /// Whether the watched source at this place has something; `is_due`: also where the scheduler
    /// knows of it already; `naps`: not where its link has no room.
    #[inline]
    fn could_send(&mut self, at: usize, is_due: bool, payload_max: u32, naps: bool) -> bool {
        let place = usize::from(self.watch.all()[at]);
        let Some(source) = &mut self.sources[place] else { return false };
        let has = !source.dead && source.has_something(payload_max);
        // What it had may have gone otherwise: a receiver was put out, a peer went.
        source.is_stuck &= has;
        let waits = (source.ready && !is_due) || (source.is_stuck && naps);
        let could = has && !waits;
        if could {
            source.idle_looks = 0;
        }
        could
    }

    /// Whether something waits for room at a link. Without slots: with them the scheduler
    /// says when it is tried again.
    pub fn is_stuck(&self) -> bool {
        let watched = &self.watch.all()[..self.watch.watched_count()];
        let is_stuck = |place: &u16| self.sources[usize::from(*place)].as_ref().is_some_and(|source| source.is_stuck);
        watched.iter().any(is_stuck)
    }

    /// Whether slots decide what goes.
    pub fn has_slots(&self) -> bool {
        self.slots.as_ref().is_some_and(|slots| slots.is_active())
    }

    /// A session rang its doorbell: the next turns look at its quiet sources.
    pub fn note_ring(&mut self, session: SessionId) {
        self.watch.ring(session);
    }

    /// A sleep ended and nothing had happened: the next turn looks at some quiet sources all the
    /// same.
    pub const fn note_silence(&mut self) {
        self.watch.look_more();
    }

    #[inline(never)]
    pub(super) fn look_at_quiet<C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        looks: u32,
        payload_max: u32,
        lone: &mut Option<FlowIndex>,
    ) {
        for _ in 0..looks {
            let Some((at, place)) = self.watch.next_quiet() else { return };
            if at < self.watch.watched_count() {
                // One of who rang. The turn has looked at it.
                continue;
            }
            let Some(source) = &mut self.sources[place as usize] else { continue };
            if !source.dead && source.has_something(payload_max) {
                source.idle_looks = 0;
                source.conn.heed();
                let must_ask = source.must_ask;
                self.watch.watch(at);
                self.found(turn, place, must_ask, lone);
            }
        }
    }
}
