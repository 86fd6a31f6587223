//! Why messages miss their slots: what the datapath saw is kept until the message leaves, and
//! then the miss is noted with its cause.
//!
//! A miss belongs to a message, not to a slot: a slot that nobody needed is none, and a message
//! that misses three slots is one. So nothing is noted when a slot goes by; what is known then
//! stays *open* with its flow until its message goes or is dropped, which tells its sequence
//! and when it was emitted.
//!
//! # Rules
//! - The order of causes is that of [`Cause::ALL`]; `core/src/miss.rs` has the table.
//! - An instant of emission is the application's claim. It moves no cause but those of its own
//!   messages, and counts only if it is of the monotonic clock and not in the future. Without it
//!   a message was there when it was first seen.
//! - Messages that wait behind a late one in the ring, and go late for it, have its cause.
//!
//! # Bounds
//! O(1) a slot, and for each message that leaves; O([`TIMED_MAX`]) when the clock steps or a
//! table takes over.

use super::FlowIndex;
use super::timed::{FIRST_TIMED, TIMED_MAX};
use insane_core::{Cause, Fate, MonoTime, Nanos, SourceInstant, Stamp, TaiTime};
use insane_scheduler::{MissCause, Now, Window};
use insane_shm::misses::{Miss, MissLog};

/// What is known of a slot that its message may have missed.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// The start of the slot.
    planned: MonoTime,
    /// The last instant at which the message could have begun in it.
    latest: MonoTime,
    /// Why it was missed, if its message was there.
    cause: Cause,
    /// No message had been seen when the slot went by: whose it is shows when one comes.
    is_empty: bool,
    from: MonoTime,
    to: MonoTime,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// When the message that waits was first seen, at the latest.
    seen: MonoTime,
    open: Option<Open>,
    /// Why the message before left late, if this one waited behind it.
    trail: Option<Cause>,
}

/// A time in which nobody looked at the clock for longer than e_turn.
#[derive(Clone, Copy, Debug)]
struct Away {
    from: MonoTime,
    /// The end of a sleep in it.
    woke: Option<MonoTime>,
    to: MonoTime,
}

/// A message that leaves the datapath, by whatever way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving {
    pub source: u32,
    pub sequence: u64,
    /// The word in which it bears its instant.
    pub stamp: u64,
    pub fate: Fate,
    /// How many messages it stands for.
    pub messages: u16,
}

/// The evidence of one datapath.
#[derive(Debug)]
pub(super) struct Evidence {
    log: MissLog,
    flows: [Known; TIMED_MAX],
    turn: Nanos,
    looked_at: MonoTime,
    woke: Option<MonoTime>,
    away: Away,
    /// The link took nothing from this flow, since when.
    refused: Option<(FlowIndex, MonoTime)>,
    /// When the slots had no clock last.
    halted: Option<(MonoTime, MonoTime)>,
    /// The application turns the engine.
    pub by_callers: bool,
}

impl Evidence {
    pub fn new(log: MissLog, turn_ns: u64) -> Self {
        let never = MonoTime(0);
        Evidence {
            log,
            flows: [Known { seen: never, open: None, trail: None }; TIMED_MAX],
            turn: Nanos(turn_ns),
            looked_at: never,
            woke: None,
            away: Away { from: never, woke: None, to: never },
            refused: None,
            halted: None,
            by_callers: false,
        }
    }

    fn known(&mut self, flow: FlowIndex) -> Option<&mut Known> {
        self.flows.get_mut(usize::from(flow.0).checked_sub(FIRST_TIMED)?)
    }

    /// The slots begin, or begin again: nobody was to look before.
    pub fn begin(&mut self, now: MonoTime) {
        self.looked_at = now;
        self.woke = None;
    }

    /// The host slept until `now`.
    pub fn woke(&mut self, now: MonoTime) {
        self.woke = Some(now);
    }

    /// A look at the clock.
    #[inline]
    pub fn look(&mut self, now: MonoTime) {
        let woke = self.woke.take();
        if now.since(self.looked_at) > self.turn {
            self.away = Away { from: self.looked_at, woke, to: now };
        }
        self.looked_at = now;
    }

    /// When a message that was found at `now` came, by its stamp: after the last look, and now at
    /// the latest. What it claims beyond that is not believed, so that it can move nothing but
    /// how its own message is judged after a time in which nobody looked.
    pub fn came(&self, stamp: u64, now: MonoTime) -> MonoTime {
        Self::claimed(stamp, now).map_or(now, |at| at.max(self.looked_at.min(now)))
    }

    /// The instant that a stamp claims, if it is of the monotonic clock and not in the future.
    pub fn claimed(stamp: u64, now: MonoTime) -> Option<MonoTime> {
        match Stamp::decode(stamp).instant {
            SourceInstant::Monotonic(at) if at <= now => Some(at),
            _ => None,
        }
    }

    /// A message of the flow is there, and came then. (The last look at the clock may be a sleep
    /// ago, and slots went by meanwhile that were never its own.)
    pub fn ready(&mut self, flow: FlowIndex, came: MonoTime) {
        if let Some(known) = self.known(flow) {
            known.seen = came;
        }
    }

    /// The slots have no clock.
    pub fn halt(&mut self, now: MonoTime) {
        let before = self.halted.filter(|(_, to)| now.since(*to) <= Nanos::from_millis(100));
        self.halted = Some((before.map_or(now, |(from, _)| from), now));
    }

    /// The link took nothing from the flow.
    pub fn refuse(&mut self, flow: FlowIndex, now: MonoTime) {
        if self.refused.is_none_or(|(other, _)| other != flow) {
            self.refused = Some((flow, now));
        }
    }

    /// What the link did not take of the flow is gone, one way or the other: it is no cause of
    /// what comes after it.
    fn taken(&mut self, flow: FlowIndex) {
        self.refused = self.refused.filter(|(of, _)| *of != flow);
    }

    /// The flow was let go.
    pub fn forget(&mut self, flow: FlowIndex) {
        self.taken(flow);
        if let Some(known) = self.known(flow) {
            (known.open, known.trail) = (None, None);
        }
    }

    /// A slot of the flow went by unused, whose start was `planned`. The cause if its message
    /// was there.
    pub fn missed(&mut self, flow: FlowIndex, planned: MonoTime, told: MissCause, window: Window) -> Option<Cause> {
        let now = self.looked_at;
        let latest = planned + Nanos(window.slack_ns);
        let away = self.away;
        let no_clock = self.halted.filter(|(from, to)| *from <= latest && *to >= planned);
        let refused = self.refused.filter(|(of, _)| *of == flow);
        let (cause, from, to) = match told {
            _ if no_clock.is_some() => {
                let (from, to) = no_clock.unwrap_or((planned, now));
                (Cause::ClockStep, from, to)
            }
            MissCause::GateShut => (Cause::GateShut, planned, now),
            MissCause::LinkBusy => (Cause::LinkBusy, planned, now),
            MissCause::NoMessage | MissCause::PolledLate => match refused {
                Some((_, since)) if told == MissCause::PolledLate => (Cause::RingFull, since, now),
                _ => self.why_late(away, latest, planned, now),
            },
        };
        if refused.is_some() {
            self.refused = None;
        }
        let is_empty = told == MissCause::NoMessage;
        let open = Open { planned, latest, cause, is_empty, from, to };
        let known = self.known(flow)?;
        let goes_on = match known.open {
            // Its message missed a slot before this one.
            Some(before) if !before.is_empty => true,
            Some(before) => !is_empty && belongs(known.seen, before.planned, window),
            None => false,
        };
        if !goes_on {
            known.open = Some(open);
        }
        (!is_empty).then_some(cause)
    }

    /// Nobody looked in time.
    fn why_late(&self, away: Away, latest: MonoTime, planned: MonoTime, now: MonoTime) -> (Cause, MonoTime, MonoTime) {
        if away.to <= latest || away.from > latest {
            return (Cause::Unexplained, planned, now);
        }
        let cause = match away.woke {
            // A turn may take e_turn: who wakes later than that before it is too late.
            Some(woke) if woke + self.turn > latest => Cause::WakeLate,
            _ if self.by_callers => Cause::NotTurned,
            _ => Cause::TurnOverrun,
        };
        (cause, away.from, away.to)
    }

    /// The message that waits was to go in the slot at `planned`; what just happened may move
    /// it to another.
    pub fn displace(&mut self, flow: FlowIndex, planned: MonoTime, slack: Nanos, cause: Cause) {
        let now = self.looked_at;
        if let Some(known) = self.known(flow)
            && known.open.is_none_or(|open| open.is_empty)
        {
            let latest = planned + slack;
            known.open = Some(Open { planned, latest, cause, is_empty: false, from: known.seen, to: now });
        }
    }

    /// Since when the message of the flow has waited, at the latest.
    pub fn seen(&self, flow: FlowIndex) -> MonoTime {
        let place = usize::from(flow.0).checked_sub(FIRST_TIMED);
        place.and_then(|place| self.flows.get(place)).map_or(self.looked_at, |known| known.seen)
    }

    /// A message leaves, in a slot of its own that starts at `start`, or otherwise. `more`
    /// messages wait behind it. The start of the slot that it missed, if it did.
    pub fn leaves(
        &mut self,
        flow: FlowIndex,
        leaving: &Leaving,
        (now, start): (MonoTime, Option<MonoTime>),
        window: Window,
        more: bool,
    ) -> Option<MonoTime> {
        let turn = self.turn;
        self.taken(flow);
        let known = self.known(flow)?;
        let emitted = Self::claimed(leaving.stamp, now);
        let arrived = emitted.unwrap_or(known.seen);
        let slack = Nanos(window.slack_ns);
        // What did not move it beyond its own slot was no miss.
        let open = known.open.take().filter(|open| start.is_none_or(|start| start > open.planned + slack));
        let open = open.filter(|open| !open.is_empty || belongs(arrived, open.planned, window));
        let found = match open {
            Some(open) => Some((open.cause_for(emitted, arrived, turn), open)),
            None => {
                let late = start.map_or(Some(now), |start| missed_before(arrived, start, window));
                // Not in a slot, and nothing is known: that is a miss all the same.
                let cause = known.trail.or(start.is_none().then_some(Cause::Unexplained));
                late.zip(cause).map(|(planned, cause)| {
                    let latest = planned + slack;
                    (cause, Open { planned, latest, cause, is_empty: false, from: planned, to: now })
                })
            }
        };
        known.trail = found.map(|(cause, _)| cause).filter(|_| more);
        known.seen = now;
        if let Some((cause, open)) = found {
            let is_application = cause == Cause::ApplicationLate;
            self.log.note(&Miss {
                sequence: leaving.sequence,
                source: leaving.source,
                planned: open.planned,
                noticed: now,
                emitted: emitted.unwrap_or(MonoTime(0)),
                cause,
                fate: leaving.fate,
                messages: leaving.messages,
                from: if is_application { open.planned } else { open.from },
                to: if is_application { arrived.max(open.planned) } else { open.to },
            });
        }
        found.map(|(_, open)| open.planned)
    }

    /// Half a message went and the rest found no room.
    pub fn cut(&mut self, leaving: &Leaving, now: MonoTime, start: Option<MonoTime>) {
        let planned = start.unwrap_or(now);
        self.log.note(&Miss {
            sequence: leaving.sequence,
            source: leaving.source,
            planned,
            noticed: now,
            emitted: MonoTime(0),
            cause: Cause::RingFull,
            fate: Fate::Dropped,
            messages: 1,
            from: planned,
            to: now,
        });
    }
}

impl Open {
    /// The cause, when it is known when the message came.
    fn cause_for(&self, emitted: Option<MonoTime>, arrived: MonoTime, turn: Nanos) -> Cause {
        if matches!(self.cause, Cause::ClockStep | Cause::Remap) && !self.is_empty {
            return self.cause;
        }
        // A look every e_turn is all that is promised: what comes later may not be seen in time.
        let was_there = arrived + turn <= self.latest;
        match (emitted.is_some(), self.is_empty) {
            (true, _) if was_there => self.cause,
            (true, _) | (false, true) => Cause::ApplicationLate,
            (false, false) => self.cause,
        }
    }
}

/// Whether a message that came then belongs to the slot at `planned` or to one before.
fn belongs(arrived: MonoTime, planned: MonoTime, window: Window) -> bool {
    arrived + Nanos(window.early_ns) < planned + Nanos(window.period_ns)
}

/// The start of the slot that a message belonged to, if that was before the one at `start`.
fn missed_before(arrived: MonoTime, start: MonoTime, window: Window) -> Option<MonoTime> {
    let behind = start.since(arrived + Nanos(window.early_ns)).0;
    let slots = behind.div_ceil(window.period_ns.max(1));
    (slots > 0).then(|| start - Nanos(slots.saturating_mul(window.period_ns)))
}

/// An instant of TAI by the monotonic clock, as the two stood at `now`.
pub(super) fn mono_of(now: Now, tai: TaiTime) -> MonoTime {
    if tai >= now.tai { now.mono + tai.since(now.tai) } else { now.mono - now.tai.since(tai) }
}

/// An instant of the monotonic clock by TAI, as the two stood at `now`.
pub(super) fn tai_of(now: Now, mono: MonoTime) -> TaiTime {
    TaiTime(if mono >= now.mono {
        now.tai.0.saturating_add(mono.since(now.mono).0)
    } else {
        now.tai.0.saturating_sub(now.mono.since(mono).0)
    })
}
