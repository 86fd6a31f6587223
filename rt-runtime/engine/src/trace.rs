//! What turns leave for whoever takes a trace.
//!
//! # Rules
//! - Off, it costs a turn one branch and a few stores, and no look at the clock; a slot costs it
//!   one branch.
//! - On, each turn is measured with two looks at the clock. One that moved something is recorded,
//!   and so is one that took longer than e_turn (without slots: [`LONG`]); of the others the
//!   next record tells how many there were, since they would overwrite all else.
//! - Slots are recorded as they are used, before the turn that used them.
//!
//! # Bounds
//! A record is eight words written to memory that was touched before; no call, no allocation.
//! At most one a turn and one a grant of it.

use insane_core::Nanos;
use insane_shm::trace::{Record, SlotRecord, TraceLog, TurnRecord};

/// From how long on a turn that did nothing is recorded, where there are no slots.
pub(crate) const LONG: Nanos = Nanos::from_micros(20);

/// The writing end of a trace, while there is one.
#[derive(Debug)]
pub(crate) struct Tracer {
    log: Option<TraceLog>,
    long: Nanos,
    /// Turns since the last record that are not recorded.
    idle: u32,
}

impl Tracer {
    /// `turn`: e_turn, where there are slots.
    pub fn new(turn: Option<Nanos>) -> Self {
        Tracer { log: None, long: turn.unwrap_or(LONG), idle: 0 }
    }

    #[inline]
    pub const fn is_on(&self) -> bool {
        self.log.is_some()
    }

    /// Begins or ends; what was there is handed back, to be let go elsewhere.
    pub fn replace(&mut self, log: Option<TraceLog>) -> Option<TraceLog> {
        self.idle = 0;
        std::mem::replace(&mut self.log, log)
    }

    /// A turn is over, whose record would be `turn`.
    pub fn turn(&mut self, turn: &TurnRecord) {
        let Some(log) = &mut self.log else { return };
        let did_something = turn.messages > 0 || turn.frames > 0 || turn.took_commands || turn.woke;
        if !did_something && turn.ends.since(turn.begins) <= self.long {
            self.idle = self.idle.saturating_add(1);
            return;
        }
        let idle_before = std::mem::take(&mut self.idle);
        log.note(&Record::Turn(TurnRecord { idle_before, ..*turn }));
    }

    /// A slot was used, or what had missed its own left otherwise.
    pub fn slot(&mut self, slot: &SlotRecord) {
        if let Some(log) = &mut self.log {
            log.note(&Record::Slot(*slot));
        }
    }
}
