//! The time-triggered scheduler: reserved slots above the lanes.
//!
//! It joins behind the two calls of [`Scheduler`](crate::Scheduler): `poll` says what
//! may be sent at `now` or until when nothing changes by itself, `sent` reports.
//!
//! # Rules
//! - **A slot belongs to its stream.** From its start, while the largest message of the
//!   stream can still end within it, nothing else is begun. A message goes if
//!   `max(start, now + e_turn + below / rate) + bytes / rate <= end`.
//! - **The guard.** Anything else goes only if
//!   `now + e_turn + (below + its bytes) / rate <= start of the next slot`, its bytes
//!   with the overrun that the contract of a chunk allows. The same holds against the
//!   shutting of the lane's gate. So best effort fills what is between, in chunks that
//!   grow smaller towards a slot.
//! - **Late messages** follow their [`LatePolicy`]. `SendNow` goes before all lanes, which have
//!   nothing while it only waits for room below us. Under `Drop`
//!   a message that waited through a slot of its flow gives way to one behind it: otherwise each
//!   that follows would be as late as that one, for ever.
//! - **A gate holds for slots, too**, where the flow has a lane and a gate list is in force:
//!   its message goes in its slot only if it ends before the lane's gate shuts.
//! - **A lane may have an arrival contract**: it sends no more than who keeps it would
//!   ([`Arrivals`]), whoever of its flows sends it.
//! - **Below the slots**: gates, then the rules of [`Scheduler`](crate::Scheduler).
//! - **One table is in force, one may be staged.** It takes over at its instant. A slot
//!   of the old one that began before keeps its right to the end of its window; slots
//!   of the new one that would begin before that end are not used.
//!
//! # What the caller passes for `below`
//! All bytes that it handed to the link, or that others did on the same queue, and that
//! have not left, frames with a launch instant included. What others may add unseen is
//! [`LinkTiming::foreign_bytes`]. Too many bytes cost link time,
//! too few break slots.
//!
//! # Invariants
//! - What is granted for a slot ends in it, and what is granted besides ends before the
//!   next, if link and turn keep to [`LinkTiming`].
//! - Each slot is granted once, or told as missed.
//! - A poll changes nothing that a second one at the same instant would decide upon,
//!   except that a missed slot is told once.
//!
//! # Bounds
//! | call | table written down | recurrences |
//! |---|---|---|
//! | `poll`, `sent` | O(1), and what the lanes cost | O(log STREAMS), and what the lanes cost |
//! | `ready`, `idle` | O(1) and the lanes | the same |
//! | taking the staged table over | O(1) | O(1) |
//! | `stage` | O(streams squared) | the same |
//! | `realign` | O(log SLOTS) | O(streams) |
//!
//! A table is written down where one hyperperiod has at most `SLOTS` slots. Memory is
//! fixed at construction.

mod contracts;
mod filled;
mod late;
mod table;
mod words;

pub use words::{Action, Arrivals, Besides, LatePolicy, LinkTiming, MissCause, Now, TableError, TimedStream, Window};

use crate::{Decision, FlowIndex, GateState, Gates, LANES, Scheduler};
use contracts::Contracts;
pub use filled::FilledTable;
use insane_core::{MonoTime, Nanos, TaiTime};
use insane_mutation::mutate;
use late::{Late, LateQueue};
use table::{Head, Table};

/// What the flow of the last action has to report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Granted {
    Nothing,
    Slot(Head),
    /// A late message, and whether it is dropped.
    Late(FlowIndex, bool),
}

/// No lane.
const NO_LANE: u8 = u8::MAX;

/// What is known of a flow: but for the last of it, of one that has slots.
#[derive(Clone, Copy)]
struct Timed {
    /// It has a message.
    waiting: bool,
    /// It is in the queue of late flows.
    queued: bool,
    /// Its message is late.
    late: bool,
    /// Its message was there, as far as is known, while the one before used its slot or missed it.
    waited: bool,
    /// When the message came, at the latest; of one that waited behind another in the ring,
    /// an instant before that.
    came: u64,
    /// The start of the last slot that was missed, unless one was used since, and the
    /// epoch of its table.
    missed: Option<(u64, u64)>,
    /// It has no slots, and has something in this lane that the link did not take.
    stuck: u8,
}

impl Timed {
    const NEW: Timed =
        Timed { waiting: false, queued: false, late: false, waited: false, came: 0, missed: None, stuck: NO_LANE };
}

/// Slots above a [`Scheduler`]. The value is large (about 70 bytes a stream, 16 a slot,
/// twice): make it where it will stay. `STREAMS` is a power of two.
pub struct TimedScheduler<const FLOWS: usize, const STREAMS: usize, const SLOTS: usize> {
    timing: LinkTiming,
    below: Scheduler<FLOWS>,
    tables: [Table<FLOWS, STREAMS, SLOTS>; 2],
    gates: [Option<Gates>; 2],
    contracts: Contracts,
    active: usize,
    /// When the other table takes over.
    staged: Option<TaiTime>,
    now: Now,
    /// The first poll has no clock to compare with.
    is_aligned: bool,
    gate: Option<(TaiTime, GateState)>,
    flows: [Timed; FLOWS],
    late: LateQueue<FLOWS>,
    /// How much slower than it should be the link is, as a power of two.
    slower: u8,
    /// A slot that was handed over before its start.
    launched: Option<(TaiTime, u32)>,
    granted: Granted,
    /// What was below us kept the head from its slot.
    was_busy: bool,
    /// A shut gate did.
    was_shut: bool,
    /// Counts the tables that took over.
    epoch: u64,
    misuses: u64,
}

impl<const FLOWS: usize, const STREAMS: usize, const SLOTS: usize> TimedScheduler<FLOWS, STREAMS, SLOTS> {
    const FITS: () = assert!(STREAMS.is_power_of_two() && STREAMS >= 2 && STREAMS < u16::MAX as usize);

    /// Without slots and gates, above the given lanes.
    #[must_use]
    pub const fn new(timing: LinkTiming, below: Scheduler<FLOWS>) -> Self {
        let () = Self::FITS;
        TimedScheduler {
            timing,
            below,
            tables: [const { Table::new() }; 2],
            gates: [None; 2],
            contracts: Contracts::new(),
            active: 0,
            staged: None,
            now: Now { mono: MonoTime(0), tai: TaiTime(0) },
            is_aligned: false,
            gate: None,
            flows: [Timed::NEW; FLOWS],
            late: LateQueue::new(),
            slower: 0,
            launched: None,
            granted: Granted::Nothing,
            was_busy: false,
            was_shut: false,
            epoch: 0,
            misuses: 0,
        }
    }

    /// The lanes below the slots: flows are added to and removed from them there.
    pub fn lanes(&mut self) -> &mut Scheduler<FLOWS> {
        &mut self.below
    }

    /// Reports that no action asked for, since construction, those of the lanes included.
    #[must_use]
    pub fn misuses(&self) -> u64 {
        self.misuses.saturating_add(self.below.misuses())
    }

    /// Whether the table in force is written down.
    #[must_use]
    pub fn is_expanded(&self) -> bool {
        self.tables[self.active].is_expanded()
    }

    /// e_turn has been estimated anew.
    pub fn set_turn_ns(&mut self, turn_ns: u64) {
        self.timing.turn_ns = turn_ns;
    }

    /// Puts a table beside the one in force, in place of one that was staged before. It
    /// takes over at `at`, or at the latest poll if that is later.
    ///
    /// # Errors
    /// [`TableError`]; then nothing is staged any more, and the table in force stays.
    pub fn stage(
        &mut self,
        base: TaiTime,
        streams: &[TimedStream],
        gates: Option<&Gates>,
        at: TaiTime,
    ) -> Result<(), TableError> {
        self.staged = None;
        let (other, at) = (1 - self.active, at.max(self.now.tai));
        self.tables[other].fill(base, streams, &self.timing)?;
        self.gates[other] = gates.copied();
        let first = self.tables[self.active].last_end_before(at);
        self.tables[other].position(first);
        self.gate = None;
        self.staged = Some(at);
        Ok(())
    }

    /// As [`stage`](Self::stage), of a table that was filled elsewhere: the pairs were tested
    /// there, and what is left is a copy of fixed size and a look for the first slot. `table`
    /// is afterwards what was staged or in force before the one in force.
    ///
    /// # Errors
    /// [`TableError::OtherTiming`]: it was filled for a link of another timing, e_turn apart;
    /// nothing has changed.
    pub fn stage_filled(
        &mut self,
        table: &mut FilledTable<FLOWS, STREAMS, SLOTS>,
        gates: Option<&Gates>,
        at: TaiTime,
    ) -> Result<(), TableError> {
        if (LinkTiming { turn_ns: self.timing.turn_ns, ..table.timing }) != self.timing {
            return Err(TableError::OtherTiming);
        }
        let (other, at) = (1 - self.active, at.max(self.now.tai));
        core::mem::swap(&mut self.tables[other], &mut table.table);
        self.gates[other] = gates.copied();
        let first = self.tables[self.active].last_end_before(at);
        self.tables[other].position(first);
        self.gate = None;
        self.staged = Some(at);
        Ok(())
    }

    /// The link was found to take up to two to the power of `slower` times as long as its rate says
    /// (0: no longer). What is begun before a slot then ends before it all the same; slots stay as
    /// they are.
    #[inline]
    pub const fn set_slower(&mut self, slower: u8) {
        self.slower = slower;
    }

    /// From now on these arrival contracts hold, by lane.
    pub fn set_arrivals(&mut self, arrivals: &[Option<Arrivals>; LANES]) {
        // Whoever a link refused may be in no lane any more; who still is comes again.
        self.flows.iter_mut().for_each(|flow| flow.stuck = NO_LANE);
        self.contracts.set(arrivals, self.now.mono);
    }

    /// A lane that had something to send which its contract did not allow, and who had sent there
    /// last: told once, until the lane was within its contract again.
    #[inline]
    pub fn take_cut(&mut self) -> Option<(u8, FlowIndex)> {
        self.contracts.take_told()
    }

    /// Whether the flow has slots in the table that is in force.
    #[must_use]
    pub fn has_slots(&self, flow: FlowIndex) -> bool {
        self.tables[self.active].stream_of(flow).is_some()
    }

    /// Whether the slot that comes next begins at `at` and has its message already: who waits
    /// for that needs no other look than one at the clock.
    #[must_use]
    pub fn has_message_at(&self, at: MonoTime) -> bool {
        let head = self.tables[self.active].head();
        head.is_some_and(|head| {
            let flow = self.tables[self.active].stream(head.stream).flow;
            let starts = self.now.mono + Nanos(head.start.saturating_sub(self.now.tai.0));
            starts == at && self.flows[flow.0 as usize].waiting
        })
    }

    /// Whether the slot that comes next begins at `at`, or later, and has no message yet: until one
    /// is [`ready`](Self::ready), there is nothing to do for it. Once it has begun, the next one may
    /// follow right behind its last instant.
    #[must_use]
    pub fn lacks_message_at(&self, at: MonoTime) -> bool {
        self.tables[self.active].head().is_some_and(|head| {
            let flow = self.tables[self.active].stream(head.stream).flow;
            let starts = self.now.mono + Nanos(head.start.saturating_sub(self.now.tai.0));
            starts >= at && !self.flows[flow.0 as usize].waiting
        })
    }

    /// Whether the slot that comes next begins at most `within` after `now`, or has begun, and has
    /// its message already.
    #[must_use]
    pub fn is_near(&self, now: Now, within: Nanos) -> bool {
        self.tables[self.active].head().is_some_and(|head| {
            let flow = self.tables[self.active].stream(head.stream).flow;
            head.start <= now.tai.0.saturating_add(within.0) && self.flows[flow.0 as usize].waiting
        })
    }

    /// When messages of the flow may go; `None`: it has no slots in the table in force.
    #[must_use]
    pub fn window(&self, flow: FlowIndex) -> Option<Window> {
        let table = &self.tables[self.active];
        let at = table.stream_of(flow)?;
        let stream = table.stream(at);
        let foreign_ns = self.timing.rate.duration_ns(u64::from(self.timing.foreign_bytes));
        let taken = table.duration_ns(at).saturating_add(foreign_ns).saturating_add(self.timing.turn_ns);
        let slack_ns = stream.slots.length_ns().saturating_sub(taken);
        Some(Window { period_ns: stream.slots.period_ns(), early_ns: stream.early_ns, slack_ns })
    }

    /// The start of the first slot of the flow at or after `at`, in the table in force or, with
    /// `former`, in the one before it (until another is staged).
    #[must_use]
    pub fn next_start(&self, flow: FlowIndex, at: TaiTime, former: bool) -> Option<TaiTime> {
        let table = &self.tables[if former { 1 - self.active } else { self.active }];
        let stream = table.stream(table.stream_of(flow)?);
        let start = stream.slots.next_start(at.0.saturating_sub(table.base()))?;
        table.base().checked_add(start).map(TaiTime)
    }

    /// Whether the flow has a message that waits for its slot.
    #[must_use]
    pub fn is_waiting(&self, flow: FlowIndex) -> bool {
        self.flows.get(flow.0 as usize).is_some_and(|state| state.waiting)
    }

    /// Whether a table waits for its instant.
    #[must_use]
    pub const fn is_staged(&self) -> bool {
        self.staged.is_some()
    }

    /// What the scheduler was told of the link.
    #[must_use]
    pub const fn timing(&self) -> LinkTiming {
        self.timing
    }

    /// The staged table will not take over.
    pub fn unstage(&mut self) {
        self.staged = None;
        self.gate = None;
    }

    /// Goes on after a step of the clock, or after a long rest, with the slots that
    /// begin at `now` or later. Slots between are not told as missed.
    pub fn realign(&mut self, now: Now) {
        self.now = now;
        self.is_aligned = true;
        self.gate = None;
        self.launched = None;
        self.granted = Granted::Nothing;
        self.was_busy = false;
        self.was_shut = false;
        // What waits was there before, by whatever clock.
        self.flows.iter_mut().for_each(|flow| (flow.missed, flow.came) = (None, now.tai.0));
        self.tables[self.active].position(now.tai);
        if let Some(at) = self.staged {
            let first = self.tables[self.active].last_end_before(at.max(now.tai));
            self.tables[1 - self.active].position(first);
        }
    }

    /// The flow has a message, which came at `at`, as far as is known: when it was found, or
    /// before. Not the time of the last poll: the caller may have slept since, and a message
    /// that is early for its slot would count as late for the one before. Of a flow without slots
    /// the arrival contract of its lane wants to know it.
    pub fn ready(&mut self, flow: FlowIndex, at: TaiTime) {
        let Some(stream) = self.tables[self.active].stream_of(flow) else {
            self.below.ready(flow);
            if !self.contracts.are_none() {
                self.came_to_lane(flow, at);
            }
            return;
        };
        let at = mutate!(ReadyAtLastPoll, at, self.now.tai);
        let state = &mut self.flows[flow.0 as usize];
        if state.waiting {
            return;
        }
        (state.waiting, state.waited, state.came) = (true, false, at.0);
        if let Some((missed, _)) = state.missed.filter(|missed| missed.1 == self.epoch)
            && self.came_too_late(stream, missed)
        {
            let timed = *self.tables[self.active].stream(stream);
            self.is_late(flow, timed.late);
        }
    }

    /// What waits behind a message that is done came at `at`, not before that one. Who does not
    /// say has it count as come with the first: late for each slot that it waits through.
    pub fn came(&mut self, flow: FlowIndex, at: TaiTime) {
        let Some(state) = self.flows.get_mut(flow.0 as usize).filter(|state| state.waiting && !state.late) else {
            return;
        };
        state.came = state.came.max(at.0);
        // Which slot it waited through is known better now.
        let missed = state.missed.filter(|(_, epoch)| *epoch == self.epoch);
        if let (Some((missed, _)), Some(stream)) = (missed, self.tables[self.active].stream_of(flow)) {
            self.flows[flow.0 as usize].waited = self.came_too_late(stream, missed);
        }
    }

    /// What becomes of late messages of the flow; `None`: it has no slots in the table in force.
    #[must_use]
    pub fn late_policy(&self, flow: FlowIndex) -> Option<LatePolicy> {
        let table = &self.tables[self.active];
        Some(table.stream(table.stream_of(flow)?).late)
    }

    /// Whether the message of the stream belongs to the slot that began at `start`, or to one
    /// before: it was there while it could still begin in it, or is too early for the next.
    #[cold]
    fn came_too_late(&self, stream: u16, start: u64) -> bool {
        let timed = self.tables[self.active].stream(stream);
        let came = self.flows[timed.flow.0 as usize].came;
        let next = start.saturating_add(timed.slots.period_ns());
        let early = mutate!(EarlyIsLate, timed.early_ns, 0);
        came.saturating_add(early) < next || came <= self.last_begin(stream, start)
    }

    /// The last instant at which the largest message of the stream can be granted in its slot
    /// that began at `start`, if nothing of ours is below.
    fn last_begin(&self, stream: u16, start: u64) -> u64 {
        let timed = self.tables[self.active].stream(stream);
        let bytes = u64::from(self.timing.foreign_bytes).saturating_add(u64::from(timed.bytes));
        let end = start.saturating_add(timed.slots.length_ns());
        end.saturating_sub(self.timing.rate.duration_ns(bytes)).saturating_sub(self.timing.turn_ns)
    }

    /// The flow has no message, or may not send.
    pub fn idle(&mut self, flow: FlowIndex) {
        if let Some(state) = self.flows.get_mut(flow.0 as usize) {
            (state.waiting, state.late) = (false, false);
        }
        self.unstick(flow);
        if let Some(lane) = self.below.lane_of(flow) {
            self.below.idle(flow);
            self.look_at_lane(lane);
        }
    }

    #[cold]
    #[inline(never)]
    fn came_to_lane(&mut self, flow: FlowIndex, at: TaiTime) {
        self.unstick(flow);
        let Some(lane) = self.below.lane_of(flow) else { return };
        let Now { mono, tai } = self.now;
        let at = if at >= tai { mono + at.since(tai) } else { mono - tai.since(at) };
        self.contracts.came(lane, at);
    }

    /// A flow of the lane has gone from it, or waits for a budget: it may be empty now.
    #[inline]
    fn look_at_lane(&mut self, lane: u8) {
        if !self.contracts.are_none() && self.below.able_lanes(self.now.mono) & 1 << lane == 0 {
            self.contracts.emptied(lane, self.now.mono);
        }
    }

    fn unstick(&mut self, flow: FlowIndex) {
        let Some(state) = self.flows.get_mut(flow.0 as usize) else { return };
        match core::mem::replace(&mut state.stuck, NO_LANE) {
            NO_LANE => {}
            lane => self.contracts.unstick(lane),
        }
    }

    /// What to do at `now`, with `below` bytes handed over that have not left.
    #[inline]
    pub fn poll(&mut self, now: Now, below: u64) -> Action {
        if let Some(step) = self.step_to(now) {
            return Action::Stepped(step);
        }
        self.granted = Granted::Nothing;
        if self.takes_over() {
            return Action::TookOver;
        }
        let foreign = mutate!(ForeignForgotten, u64::from(self.timing.foreign_bytes), 0);
        let below = below.saturating_add(foreign);
        let head = self.tables[self.active].head();
        let mut slot_wait = None;
        if let Some(head) = head {
            match self.slot(head, below) {
                Ok(action) => return action,
                Err(wait) => slot_wait = Some(wait),
            }
        }
        let end = self.free_until(head);
        match self.late_message(end, below) {
            Some(Late::Acts(action)) => action,
            Some(Late::Waits(room_at)) => {
                // Its own gate may shut meanwhile: then it lets others by.
                let gate = self.gate_state().map_or(u64::MAX, |gate| gate.until.0);
                self.wait(room_at.min(gate).min(slot_wait.unwrap_or(u64::MAX)), MonoTime(u64::MAX))
            }
            Some(Late::Rests) | None => self.fill(end, below, slot_wait),
        }
    }

    /// Bytes that may go besides all flows at the instant of the last poll, with `below` as that had
    /// it: what the guard leaves. While a late message waits, nothing but [`Besides::AsForeign`].
    #[must_use]
    #[cold]
    pub fn besides(&mut self, what: Besides, below: u64) -> u64 {
        let is_foreign = what == Besides::AsForeign;
        if !is_foreign && !self.late.is_empty() {
            return 0;
        }
        let mut end = self.free_until(self.tables[self.active].head());
        if let Besides::Lane(lane) = what
            && let Some(gate) = self.gate_state()
        {
            let lane = lane as usize % LANES;
            if gate.open_lanes & 1 << lane == 0 {
                return 0;
            }
            end = end.min(gate.shuts[lane].0);
        }
        let foreign_bytes = if is_foreign { 0 } else { self.timing.foreign_bytes };
        self.room(end, below.saturating_add(u64::from(foreign_bytes)))
    }

    /// Reports what was done after an action: `bytes` that went, and whether the flow
    /// has `more`. Zero bytes after `Slot` or `Late`: the link took nothing.
    #[inline]
    pub fn sent(&mut self, flow: FlowIndex, bytes: u32, more: bool) {
        match core::mem::replace(&mut self.granted, Granted::Nothing) {
            Granted::Slot(head) if self.tables[self.active].stream(head.stream).flow == flow => {
                if bytes > 0 {
                    self.slot_done(head, bytes);
                    self.message_done(flow, more);
                }
            }
            Granted::Late(of, is_dropped) if of == flow => {
                if is_dropped || bytes > 0 {
                    self.message_done(flow, more);
                }
            }
            _ if self.tables[self.active].stream_of(flow).is_some() => self.misuses += 1,
            _ if self.contracts.are_none() => self.below.sent(flow, bytes, more),
            _ => self.sent_under_contract(flow, bytes, more, false),
        }
    }

    /// As [`sent`](Self::sent) after a chunk, where the link does not take what is left of it: the
    /// flow is idle until it is said to be ready again. Its lane goes on waiting.
    pub fn blocked(&mut self, flow: FlowIndex, bytes: u32) {
        if self.contracts.are_none() || self.tables[self.active].stream_of(flow).is_some() {
            return self.sent(flow, bytes, false);
        }
        self.granted = Granted::Nothing;
        self.sent_under_contract(flow, bytes, false, true);
    }

    #[cold]
    #[inline(never)]
    fn sent_under_contract(&mut self, flow: FlowIndex, bytes: u32, more: bool, is_stuck: bool) {
        let lane = self.below.lane_of(flow);
        if let Some(lane) = lane {
            self.contracts.charge(lane, flow, bytes);
        }
        self.below.sent(flow, bytes, more);
        self.unstick(flow);
        if let (Some(lane), Some(state)) = (lane, self.flows.get_mut(flow.0 as usize)) {
            if is_stuck {
                state.stuck = lane;
                self.contracts.stick(lane);
            }
            self.look_at_lane(lane);
        }
    }

    /// Takes the time; tells a step of TAI.
    fn step_to(&mut self, now: Now) -> Option<i64> {
        let apart = |now: Now| now.tai.0.wrapping_sub(now.mono.0);
        if !self.is_aligned {
            self.now = now;
            self.is_aligned = true;
            return None;
        }
        let step = apart(now).wrapping_sub(apart(self.now)) as i64;
        if step.unsigned_abs() > self.timing.step_ns {
            return mutate!(SteppedIgnored, Some(step), None);
        }
        self.now = now;
        None
    }

    /// The staged table takes over when it is time and no old slot is under way.
    fn takes_over(&mut self) -> bool {
        let Some(at) = self.staged else { return false };
        let is_time = self.now.tai.0 >= mutate!(SwapLate, at.0, at.0 + 1);
        let takes = is_time && self.tables[self.active].head().is_none_or(|head| head.start >= at.0);
        if takes {
            self.active = mutate!(SwapForgetsStreams, 1 - self.active, self.active);
            self.staged = None;
            self.gate = None;
            self.was_busy = false;
            self.was_shut = false;
            self.epoch += 1;
        }
        takes
    }

    /// What to do about the slot that comes next; if nothing, when to look again.
    fn slot(&mut self, head: Head, below: u64) -> Result<Action, u64> {
        let now = self.now.tai.0;
        if self.staged.is_some_and(|at| head.start >= at.0) {
            return Err(u64::MAX);
        }
        let due = mutate!(DueEarly, head.start, head.start.saturating_sub(1)).saturating_sub(self.timing.lead_ns);
        // In launch order: the one before has begun.
        let due = self.launched.map_or(due, |(start, _)| due.max(start.0));
        if now < due {
            return Err(due);
        }
        let table = &self.tables[self.active];
        let (stream, duration) = (*table.stream(head.stream), table.duration_ns(head.stream));
        let end = head.start.saturating_add(stream.slots.length_ns());
        let end = mutate!(WindowEndLate, end, end + 1);
        let foreign = u64::from(self.timing.foreign_bytes);
        let below = mutate!(BelowForgottenInSlot, below, foreign);
        let turn = mutate!(TurnForgottenInSlot, self.timing.turn_ns, 0);
        let soonest = now.saturating_add(turn);
        let rate = self.timing.rate;
        let behind = |before: u64| rate.duration_ns(before.saturating_add(u64::from(stream.bytes)));
        let ends = |before| head.start.saturating_add(duration).max(soonest.saturating_add(behind(before)));
        let state = self.flows[stream.flow.0 as usize];
        if state.waiting && self.late_since(stream.flow).is_some_and(|missed| !self.is_of_use(&stream, missed)) {
            self.granted = Granted::Late(stream.flow, true);
            return Ok(Action::Drop { flow: stream.flow });
        }
        if ends(foreign) > end {
            let cause = match (state.waiting, self.was_shut, self.was_busy) {
                (false, ..) => MissCause::NoMessage,
                (true, true, _) => MissCause::GateShut,
                (true, false, true) => MissCause::LinkBusy,
                (true, false, false) => MissCause::PolledLate,
            };
            if let Some(ns) = self.tables[self.active].skip_cycles(self.now.tai) {
                return Ok(Action::Skipped { ns });
            }
            return Ok(self.miss(head, cause));
        }
        // The first instant at which a message could not end in time.
        let too_late = end.saturating_sub(behind(foreign)).saturating_sub(turn).max(now).saturating_add(1);
        if !state.waiting {
            return Err(too_late);
        }
        if let Some(until) = self.shut_until(stream.flow, ends(below)) {
            self.was_shut = true;
            return Err(until.clamp(now.saturating_add(1), too_late));
        }
        if ends(below) > end {
            self.was_busy = true;
            let drained = now.saturating_add(self.timing.rate.duration_ns(below.saturating_sub(foreign)));
            return Err(drained.clamp(now.saturating_add(1), too_late));
        }
        self.granted = Granted::Slot(head);
        Ok(Action::Slot {
            flow: stream.flow,
            launch: TaiTime(head.start),
            bytes_max: stream.bytes,
            newest: match stream.late {
                LatePolicy::NewestWins => mutate!(NewestIsOldest, true, false),
                LatePolicy::Drop => mutate!(DropStaysBehind, state.waited, false),
                LatePolicy::SendNow | LatePolicy::NextSlot => false,
            },
        })
    }

    /// When the gate of the flow's lane may be otherwise, if it is shut, or shuts before `ends`.
    fn shut_until(&mut self, flow: FlowIndex, ends: u64) -> Option<u64> {
        // Most datapaths have no gates: then nothing is looked up.
        self.gates[self.active].as_ref()?;
        let lane = self.below.lane_of(flow)?;
        let gate = self.gate_state()?;
        let is_open = gate.open_lanes & 1 << lane != 0 && ends <= gate.shuts[lane as usize].0;
        (!is_open).then_some(gate.until.0)
    }

    fn miss(&mut self, head: Head, cause: MissCause) -> Action {
        let stream = *self.tables[self.active].stream(head.stream);
        let count = self.tables[self.active].advance(head, self.now.tai);
        let start = head.start.saturating_add((count - 1).saturating_mul(stream.slots.period_ns()));
        self.was_busy = false;
        self.was_shut = false;
        self.flows[stream.flow.0 as usize].missed = Some((start, self.epoch));
        // A message that came after the slot, while nobody looked, may be early for the next.
        let is_waiting = self.flows[stream.flow.0 as usize].waiting;
        if is_waiting && mutate!(MissTakesAll, self.came_too_late(head.stream, start), true) {
            self.is_late(stream.flow, stream.late);
        }
        Action::Missed { flow: stream.flow, start: TaiTime(start), count, cause }
    }

    /// When the next slot begins, of either table, handed over or not.
    fn free_until(&self, head: Option<Head>) -> u64 {
        let mut end = head.map_or(u64::MAX, |head| head.start);
        if let Some(at) = self.staged.filter(|at| end >= at.0) {
            end = self.tables[1 - self.active].head().map_or(u64::MAX, |head| head.start.max(at.0));
        }
        match self.launched {
            Some((start, _)) if start > self.now.tai => mutate!(GuardForgetsLaunch, end.min(start.0), end),
            _ => end,
        }
    }

    /// What of the bytes below us leaves by itself: not what waits for its launch.
    fn leaving(&self, below: u64) -> u64 {
        let launched = self.launched.filter(|(start, _)| *start > self.now.tai).map_or(0, |(_, bytes)| bytes);
        below.saturating_sub(u64::from(launched))
    }

    /// How many bytes of the lanes may still be handed over so that all end before `end`.
    fn room(&self, end: u64, below: u64) -> u64 {
        self.room_of(end, below, self.timing.in_flight_bytes)
    }

    /// The same of what may have so many bytes below us.
    fn room_of(&self, end: u64, below: u64, in_flight_bytes: u32) -> u64 {
        let below = mutate!(GuardForgetsBelow, self.leaving(below), 0);
        let turn = mutate!(GuardForgetsTurn, self.timing.turn_ns, 0);
        let free = end.saturating_sub(self.now.tai.0).saturating_sub(turn) >> (self.slower & 63);
        let in_flight = u64::from(in_flight_bytes) + u64::from(self.timing.foreign_bytes);
        let in_flight = mutate!(InFlightForgotten, in_flight, u64::MAX);
        let room = self.timing.rate.bytes_in(free).min(in_flight).saturating_sub(below);
        mutate!(GuardMinusOneByte, room, room + 1)
    }

    /// Fills what is free before `end` from the lanes.
    fn fill(&mut self, end: u64, below: u64, slot_wait: Option<u64>) -> Action {
        let ready = self.below.waiting_lanes();
        let gate = self.gate_state();
        let overrun = u64::from(self.below.limits().frame_bytes_max.get()) - 1;
        let overrun = mutate!(GuardForgetsFrame, overrun, 0);
        let mut rooms = [0; LANES];
        let mut open = 0;
        // When a lane may send again that has used up its contract.
        let mut covered = MonoTime(u64::MAX);
        let has_contracts = !self.contracts.are_none();
        if has_contracts {
            self.contracts.look(self.now.mono, self.below.able_lanes(self.now.mono));
        }
        // At most LANES rounds.
        let mut lanes = gate.map_or(ready, |gate| ready & gate.open_lanes);
        // Mostly nobody waits, and it costs a division.
        let whole = if lanes == 0 { 0 } else { self.room(end, below) };
        while lanes != 0 {
            let lane = lanes.trailing_zeros() as usize;
            lanes &= lanes - 1;
            let shuts = gate.map_or(u64::MAX, |gate| mutate!(GateCloseIgnored, gate.shuts[lane].0, u64::MAX));
            let room = if shuts < end { self.room(shuts, below) } else { whole };
            if room <= overrun {
                continue;
            }
            rooms[lane] = room - overrun;
            if has_contracts {
                match self.contracts.budget(lane, self.now.mono) {
                    Ok(budget) => rooms[lane] = rooms[lane].min(budget),
                    Err(at) => {
                        covered = covered.min(at);
                        continue;
                    }
                }
            }
            open |= 1 << lane;
        }
        let mono = match self.below.poll_lanes(self.now.mono, open) {
            Decision::Send { flow, budget_bytes } => {
                let room = self.below.lane_of(flow).map_or(0, |lane| rooms[lane as usize]);
                return Action::Chunk { flow, budget_bytes: u64::from(budget_bytes).min(room) as u32 };
            }
            Decision::Wait(until) => until.min(covered),
            Decision::Idle => covered,
        };
        let mut wait = slot_wait.unwrap_or(u64::MAX);
        // The least that would go.
        if ready != 0 {
            wait = wait.min(self.when_room(below, overrun + 1, self.timing.in_flight_bytes));
        }
        if ready != 0 || !self.late.is_empty() {
            if let Some(gate) = gate {
                wait = mutate!(WaitPastGate, wait.min(gate.until.0), wait);
            }
            // What was handed over ahead keeps a guard until it begins.
            if let Some((start, _)) = self.launched.filter(|(start, _)| *start > self.now.tai) {
                wait = wait.min(start.0);
            }
        }
        self.wait(wait, mono)
    }

    /// Nothing goes until `tai`, until a staged table takes over, or until `mono`.
    fn wait(&self, tai: u64, mono: MonoTime) -> Action {
        let staged = self.staged.filter(|at| *at > self.now.tai).map_or(u64::MAX, |at| at.0);
        let tai = mutate!(WaitPastSlot, tai.min(staged), tai.min(staged).saturating_add(1));
        let slot = match tai {
            u64::MAX => MonoTime(u64::MAX),
            tai => self.now.mono + Nanos(tai.saturating_sub(self.now.tai.0)),
        };
        match mono.min(slot) {
            MonoTime(u64::MAX) if self.below.waiting_lanes() == 0 => Action::Idle,
            until => Action::Wait(until.max(self.now.mono + Nanos(1))),
        }
    }

    /// When enough has left of what is below us that so many bytes may follow, with at most
    /// `in_flight_bytes` there; never, if that is not what they wait for.
    fn when_room(&self, below: u64, bytes: u64, in_flight_bytes: u32) -> u64 {
        let below = self.leaving(below);
        let in_flight = u64::from(in_flight_bytes) + u64::from(self.timing.foreign_bytes);
        // No more can leave than is there.
        match below.saturating_add(bytes).saturating_sub(in_flight).min(below) {
            0 => u64::MAX,
            surplus => self.now.tai.0.saturating_add(self.timing.rate.duration_ns(surplus).max(1)),
        }
    }

    /// What the gates say now; looked up anew when that may have changed.
    fn gate_state(&mut self) -> Option<GateState> {
        let now = self.now.tai;
        if let Some((since, state)) = self.gate
            && since <= now
            && now < state.until
        {
            return Some(state);
        }
        let next = self.staged.filter(|at| *at > now);
        let open = |until| GateState { open_lanes: u8::MAX, until, shuts: [until; LANES] };
        let mut state = match &self.gates[self.active] {
            // Before its base time a list shuts nothing, but it will.
            Some(gates) => gates.state(now, next).unwrap_or(open(gates.base())),
            None => open(TaiTime(u64::MAX)),
        };
        if let Some(at) = next.filter(|_| self.gates[1 - self.active].is_some()) {
            state.until = state.until.min(at);
            state.shuts = state.shuts.map(|shuts| shuts.min(at));
        }
        if state == open(TaiTime(u64::MAX)) {
            return None;
        }
        self.gate = Some((now, state));
        Some(state)
    }

    fn slot_done(&mut self, head: Head, bytes: u32) {
        self.launched = Some((TaiTime(head.start), bytes)).filter(|(start, _)| *start > self.now.tai);
        let flow = self.tables[self.active].stream(head.stream).flow;
        self.flows[flow.0 as usize].missed = None;
        self.was_busy = false;
        self.was_shut = false;
        // Only a slot that was missed may take others with it.
        let _one = self.tables[self.active].advance(head, TaiTime(head.start));
    }

    fn message_done(&mut self, flow: FlowIndex, more: bool) {
        // What is there now was there in the slot that the message before it used or missed.
        let state = &mut self.flows[flow.0 as usize];
        (state.waiting, state.waited) = (more, more);
        state.late = false;
    }
}
