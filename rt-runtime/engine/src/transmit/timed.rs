//! Slots above the lanes: a [`Transmitter`] that obeys the time-triggered scheduler.
//!
//! A source with slots has a number that the control plane gave it, and by that a place
//! among the last [`TIMED_MAX`]: so tables can be filled where there is time for it, and
//! name sources before the datapath has them.
//!
//! # Rules
//! - Without a table that has streams or gates, nothing of this runs: the lanes decide alone. The
//!   first table takes the lanes over, the first without both gives them back.
//! - The clock is read before each decision, not once a turn: a decision that rests on an old
//!   look would be wrong by what was sent since.
//! - What is below us is counted: each frame that was handed to a link occupies it for its
//!   time at the configured rate. Frames of the overlay go between slots ([`overlay`](super::overlay))
//!   and are counted with them, as are reports on reliable flows, which go when they come: those by
//!   real time, and what else passes (other sockets), are `foreign_bytes` of the link's timing. Where a
//!   link can say that something has not left that should have, it is heard ([`told`]).
//! - Where the links honour launch times, a slot is handed over up to `lead_ns` ahead, with its
//!   start as the launch time; then it does not matter when exactly the thread woke. What was
//!   handed over ahead occupies the link from its start on.
//! - The link belongs to the table: a source goes by the one that the table in force names for
//!   it, and by another from the boundary on at which another table takes over.
//! - A message larger than its slot is dropped and counted; it harms nobody else.
//! - What tells that sources have closed goes when nothing else does, and ends before the next slot.
//!
//! # Bounds
//! [`GRANTS_PER_TURN`] grants a turn, [`TELLS_PER_TURN`] things told besides (frames of the control
//! plane among them), [`APPROACH`] of waiting for a slot (as often as slots come that near to each
//! other), one chunk of best effort, [`REPLACED_PER_GRANT`](message::REPLACED_PER_GRANT) messages
//! dropped for a newer one.

mod account;
mod between;
mod message;
mod told;

use super::evidence::Evidence;
use super::fences::Fences;
use super::source::{Grant, condemn, send_reliable, send_some};
use super::{FlowIndex, Progress, Transmitter};
use crate::command::Port;
use crate::deliver::Outlets;
use crate::epsilons::Epsilons;
use crate::links::Links;
use crate::routes::{Hops, Way};
use crate::slot_log::{SlotLog, SlotUse};
use crate::turn::Turn;
use crate::{GRANTS_PER_TURN, SOURCES_MAX};
use insane_clock::{ClockState, Followed, Servo, ServoConfig};
use insane_core::counters::{DatapathCounter, TurnCounter};
use insane_core::limits::LANES;
use insane_core::time::{Clock, PairedRead};
use insane_core::{Cause, Fate, Lane, MonoTime, Nanos, PeerIndex, TaiTime};
use insane_link::Link;
use insane_scheduler::{
    Action, Arrivals, Besides, FilledTable, Gates, LatePolicy, Limits, LinkTiming, MissCause, Now, Scheduler,
    TableError, TimedScheduler,
};
use insane_shm::counters::CounterBlock;
use insane_shm::misses::MissLog;
use insane_shm::trace::{SlotFate, SlotRecord};
use insane_wire::data::HEADER_BYTES;
use message::OneMessage;
use std::sync::Arc;
use told::Told;

/// Sources with slots of one datapath.
pub const TIMED_MAX: usize = 256;
/// Slots of one hyperperiod up to which a table is written down.
pub const SLOTS_WRITTEN_MAX: usize = 4096;
/// The first place of a source with slots.
pub(super) const FIRST_TIMED: usize = SOURCES_MAX - TIMED_MAX;
/// Slots that went by, steps and takeovers told in one turn, with frames of the control plane; what is
/// left waits for the next.
const TELLS_PER_TURN: usize = 32;
/// From how near on a slot is waited for within the turn.
const APPROACH: Nanos = Nanos::from_micros(3);
/// Looks at the clock meanwhile, at most: a clock that stands still ends them, too.
const APPROACH_LOOKS: usize = 512;
/// How often the kernel's clock is read.
const READ_PERIOD: Nanos = Nanos::from_millis(10);

/// How tables name the source with slots of this number, below [`TIMED_MAX`].
#[must_use]
pub const fn timed_flow(number: u16) -> FlowIndex {
    FlowIndex(FIRST_TIMED as u16 + number)
}

/// A table of slots, filled on the control plane.
pub type SlotTable = FilledTable<SOURCES_MAX, TIMED_MAX, SLOTS_WRITTEN_MAX>;
type SlotScheduler = TimedScheduler<SOURCES_MAX, TIMED_MAX, SLOTS_WRITTEN_MAX>;

/// What is known in time of the links of a datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SlotConfig {
    /// Rate, e_turn, and what may be below.
    pub timing: LinkTiming,
    /// What a frame is longer on the link than its wire header and payload, bytes: headers
    /// below ours, preamble, check and gap.
    pub overhead_bytes: u32,
    /// How TAI is followed.
    pub servo: ServoConfig,
    /// Links that are asked before slots what has not left, a bit each, if they tell.
    pub asked_links: u8,
}

impl SlotConfig {
    /// Bytes on the link of a message of `len` bytes to `peers` peers, in frames of at most
    /// `payload_max` bytes of payload. Saturates.
    #[must_use]
    pub fn message_bytes(&self, len: u32, payload_max: u32, peers: u32) -> u32 {
        let frames = len.div_ceil(payload_max.max(1)).max(1);
        let head = self.overhead_bytes.saturating_add(HEADER_BYTES as u32);
        len.saturating_add(frames.saturating_mul(head)).saturating_mul(peers)
    }
}

/// Of each source with slots, by its number: the place of the link by which it goes to all its
/// peers; `None`: as its route says. It holds from the instant on at which the table takes
/// over, so that a source has the slots of one link until a boundary and those of another one
/// from it on.
pub type SlotLinks = [Option<u8>; TIMED_MAX];

/// Arrival contracts, by lane.
pub type LaneArrivals = [Option<Arrivals>; LANES];

/// A table on its way to the datapath.
#[derive(Debug)]
pub struct StageSlots {
    /// The table; afterwards one that is not used any more.
    pub table: Box<SlotTable>,
    /// How many streams it has.
    pub streams: usize,
    /// Its cycle, nanoseconds: the least common multiple of the periods. Zero: there is none
    /// that could be written down.
    pub cycle_ns: u64,
    /// When it is to take over, at the boundary of its cycle that is nearest; `None`: as soon
    /// as it may.
    pub at: Option<MonoTime>,
    /// Gates of the lanes, which hold for slots, too.
    pub gates: Option<Box<Gates>>,
    /// By which link each source goes.
    pub links: Box<SlotLinks>,
    /// What arrives in each lane at most: it is held to that.
    pub arrivals: Box<LaneArrivals>,
    /// A number of its own, told again when it has taken over.
    pub number: u32,
}

/// The slots of a datapath.
pub(crate) struct Slots {
    timed: Box<SlotScheduler>,
    servo: Servo,
    config: SlotConfig,
    counters: CounterBlock,
    log: Arc<SlotLog>,
    epsilons: Arc<Epsilons>,
    /// The lanes are here.
    active: bool,
    /// Streams of the table in force, and of the one that is staged; gates count as one, and so do
    /// contracts.
    streams: (usize, Option<usize>),
    /// Links of the table in force, and of the one that is staged.
    links: SlotLinks,
    links_staged: SlotLinks,
    /// Contracts of the table that is staged.
    arrivals_staged: LaneArrivals,
    /// Number of the table that was staged last.
    number: u32,
    /// When what was handed over has left.
    busy_until: MonoTime,
    /// What the links say of it.
    told: Told,
    /// What was handed over ahead and has not begun: when it does, and bytes. There is one at
    /// most: the scheduler grants the next slot when this one has begun.
    launched: Option<(MonoTime, u64)>,
    /// Nothing is to be done before. `None`: there may be something at once.
    due: Option<MonoTime>,
    /// Since when messages without slots have waited for a guard.
    held_since: Option<MonoTime>,
    read_at: MonoTime,
    /// The last look at both clocks.
    last: Now,
    /// Since when, at the latest, nobody has looked at the rings: the look before this one, or
    /// the end of a sleep behind it, which what comes ends.
    unseen: MonoTime,
    evidence: Evidence,
    /// Of each source with slots: why its last slot went by.
    causes: [Option<MissCause>; TIMED_MAX],
}

impl std::fmt::Debug for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slots").field("streams", &self.streams).field("servo", &self.servo).finish_non_exhaustive()
    }
}

/// Without a table. The scheduler is large, and made on a thread that has the stack for it.
///
/// # Panics
/// Without memory for a thread: set-up only.
pub(crate) fn slots_of(
    config: SlotConfig,
    limits: Limits,
    counters: &CounterBlock,
    (log, epsilons, misses): (Arc<SlotLog>, Arc<Epsilons>, MissLog),
) -> Box<Slots> {
    const STACK_BYTES: usize = 16 << 20;
    let build = move || Box::new(SlotScheduler::new(config.timing, Scheduler::new(limits)));
    let builder = std::thread::Builder::new().name("insane-setup".into()).stack_size(STACK_BYTES);
    let timed = builder.spawn(build).ok().and_then(|thread| thread.join().ok());
    Box::new(Slots {
        timed: timed.expect("a thread can be had at set-up"),
        servo: Servo::new(config.servo),
        config,
        counters: counters.clone(),
        log,
        epsilons,
        active: false,
        streams: (0, None),
        links: [None; TIMED_MAX],
        links_staged: [None; TIMED_MAX],
        arrivals_staged: [None; LANES],
        number: 0,
        busy_until: MonoTime(0),
        told: Told::new(),
        launched: None,
        due: None,
        held_since: None,
        read_at: MonoTime(0),
        last: Now { mono: MonoTime(0), tai: TaiTime(0) },
        unseen: MonoTime(u64::MAX),
        evidence: Evidence::new(misses, config.timing.turn_ns),
        causes: [None; TIMED_MAX],
    })
}

impl Slots {
    #[inline]
    pub(super) const fn is_active(&self) -> bool {
        self.active
    }

    /// e_turn.
    pub(super) const fn turn(&self) -> Nanos {
        Nanos(self.config.timing.turn_ns)
    }

    /// The link of the slots of this number.
    pub(super) fn link_of(&self, number: u16) -> Option<u8> {
        self.links.get(usize::from(number)).copied().flatten()
    }

    pub(super) fn lanes(&mut self) -> &mut Scheduler<SOURCES_MAX> {
        self.timed.lanes()
    }

    /// A message was found at `now`. The last look may be a sleep ago: when within it the
    /// message came is what its stamp claims. In a lane that is held to a contract one without a
    /// claim may have come when nobody had looked for longest: its sender has no part in that.
    pub(super) fn ready(&mut self, flow: FlowIndex, now: MonoTime, stamp: Option<u64>) {
        self.due = None;
        let came = if self.timed.has_slots(flow) {
            stamp.map_or(now, |stamp| self.evidence.came(stamp, now))
        } else {
            let claimed = stamp.and_then(|stamp| Evidence::claimed(stamp, now));
            claimed.unwrap_or(self.unseen.min(now))
        };
        self.timed.ready(flow, self.servo.tai(came));
        self.evidence.ready(flow, came);
    }

    /// Whether a source that is ready may have its turn now.
    pub(super) const fn is_due(&self) -> bool {
        !self.active || self.due.is_none()
    }

    fn count(&self, counter: TurnCounter, by: u64) {
        self.counters.add(counter as usize, by);
    }

    /// Bytes handed over that have not left, rounded up.
    fn below(&mut self, now: MonoTime) -> u64 {
        let ahead = match self.launched {
            Some((start, bytes)) if start <= now => {
                self.launched = None;
                self.occupy(start, bytes);
                0
            }
            Some((_, bytes)) => bytes,
            None => 0,
        };
        ahead + self.unfinished(now)
    }

    /// Bytes of it that are not held back.
    fn unfinished(&self, now: MonoTime) -> u64 {
        match self.busy_until.since(now) {
            Nanos::ZERO => 0,
            left => self.config.timing.rate.bytes_in(left.0) + 1,
        }
    }

    /// When a slot that begins at `launch` does so by the monotonic clock, if it was granted
    /// ahead and is to be held back.
    fn launch(&self, now: Now, launch: TaiTime) -> Option<MonoTime> {
        let ahead = launch.since(now.tai);
        (self.config.timing.lead_ns > 0 && ahead > Nanos::ZERO).then(|| now.mono + ahead)
    }

    /// Whether the links are to be asked what has not left. Not where slots are handed over
    /// ahead: those are held back on purpose, and on a queue of their own.
    #[inline]
    fn asks(&self, now: Now) -> bool {
        let may_ask = self.config.asked_links != 0 && self.config.timing.lead_ns == 0;
        may_ask && self.told.is_asked(now.mono, || self.timed.is_near(now, APPROACH))
    }

    /// Bytes were handed over after a look at `now`.
    fn occupy(&mut self, now: MonoTime, bytes: u64) {
        if bytes > 0 {
            self.told.hand_over(now);
        }
        self.busy_until = self.busy_until.max(now) + Nanos(self.config.timing.rate.duration_ns(bytes));
    }

    /// The first look of a turn. Whether the kernel's clock was read.
    fn begin(&mut self, now: MonoTime, pair: impl FnOnce() -> Option<PairedRead>) -> bool {
        self.evidence.look(now);
        self.due = None;
        let reads = now.since(self.read_at) >= READ_PERIOD;
        if reads {
            self.read_at = now;
            match self.servo.read(now, pair()) {
                Followed::Plainly | Followed::Unused | Followed::Pending | Followed::Lost(_) => {}
                Followed::WholeCycles(_) | Followed::HoldoverOver(_) => self.count(TurnCounter::ClockStep, 1),
            }
        }
        reads
    }

    /// Both clocks.
    fn now(&mut self, mono: MonoTime) -> Now {
        self.evidence.look(mono);
        if self.servo.relock(mono).is_some() {
            self.count(TurnCounter::ClockStep, 1);
            self.displace(Cause::ClockStep, false);
            let now = Now { mono, tai: self.servo.tai(mono) };
            self.timed.realign(now);
        }
        self.last = Now { mono, tai: self.servo.tai(mono) };
        self.last
    }

    fn is_halted(&self) -> bool {
        matches!(self.servo.state(), ClockState::Halted(_))
    }

    /// Nothing may go before `until`.
    fn wait(&mut self, now: MonoTime, until: MonoTime) {
        self.due = Some(until);
        let timing = self.config.timing;
        let frame = u64::from(self.timed.lanes().limits().frame_bytes_max.get());
        let is_full = self.unfinished(now) + frame > u64::from(timing.in_flight_bytes);
        if self.held_since.is_none() && !is_full && self.timed.lanes().waiting_lanes() != 0 {
            self.held_since = Some(now);
        }
    }

    /// Looks at nothing but the clock until a slot that is near, and that has its message,
    /// begins: the rest of a turn takes as long as a look at a socket does. Whether it has begun.
    fn approach(&self, now: MonoTime, until: MonoTime, look: impl Fn() -> MonoTime) -> bool {
        let is_near = until.since(now) <= APPROACH && self.timed.has_message_at(until);
        is_near && (0..APPROACH_LOOKS).any(|_| look() >= until)
    }

    #[cold]
    fn lane_is_cut(&mut self, lane: u8) {
        self.epsilons.note_lane_cut(lane);
        self.count(TurnCounter::LanesCut, 1);
    }

    /// Tells of some sources that have closed, as nothing else goes now: as many frames as end
    /// before the next slot. Whether there was one.
    #[cold]
    fn close_some<L: Link>(
        &mut self,
        now: MonoTime,
        mut below: u64,
        fences: &mut Fences,
        links: &mut Links<L>,
    ) -> bool {
        let frame = HEADER_BYTES as u64 + u64::from(self.config.overhead_bytes);
        let timed = &mut self.timed;
        let sent = fences.send_closings(now, links, |lane| {
            let fits = timed.besides(Besides::Lane(lane.get()), below) >= frame;
            if fits {
                below = below.saturating_add(frame);
            }
            fits
        });
        if sent > 0 {
            self.told.has_best_effort();
            self.occupy(now, u64::from(sent) * frame);
        }
        sent > 0
    }

    /// Something goes.
    fn goes(&mut self, now: MonoTime) {
        if let Some(since) = self.held_since.take() {
            self.count(TurnCounter::GuardNs, now.since(since).0);
        }
    }
}

impl Transmitter {
    /// A place for a source: that of its number, or any.
    pub(super) fn take_place(&mut self, slots: Option<u16>) -> Option<u16> {
        let Some(number) = slots else { return self.free.pop() };
        let place = FIRST_TIMED + usize::from(number);
        let is_free = self.slots.is_some() && self.sources.get(place).is_some_and(Option::is_none);
        is_free.then_some(place as u16)
    }

    pub(super) fn free_place(&mut self, place: u16) {
        if self.slots.is_none() || usize::from(place) < FIRST_TIMED {
            self.free.push(place);
        }
    }

    pub(super) fn forget_flow(&mut self, flow: FlowIndex) {
        if let Some(slots) = self.slots.as_mut().filter(|slots| slots.active) {
            slots.timed.idle(flow);
            slots.evidence.forget(flow);
        }
        self.lanes().remove(flow);
    }

    /// Puts a table beside the one in force. It takes over at the next boundary of its cycle
    /// by which all that is handed over has left, or at the boundary nearest to its instant.
    pub fn stage(&mut self, stage: &mut StageSlots, mono: MonoTime) -> Result<(), TableError> {
        let Some(slots) = self.slots.as_mut() else { return Err(TableError::OtherTiming) };
        let timing = slots.config.timing;
        slots.servo.set_cycle(stage.cycle_ns);
        if !slots.active {
            slots.evidence.begin(mono);
            let now = Now { mono, tai: slots.servo.tai(mono) };
            slots.last = now;
            slots.timed.realign(now);
        }
        let tai = slots.servo.tai(mono);
        // A late message may be larger than what lanes have below us.
        let below = timing.rate.duration_ns(timing.in_flight_bytes.into()).max(slots.busy_until.since(mono).0);
        let soonest = tai.0.saturating_add(timing.turn_ns).saturating_add(below);
        // The instant was a boundary of TAI; two paired reads have moved it by less than half a cycle.
        let at = match (stage.at.map(|at| slots.servo.tai(at).0), stage.cycle_ns) {
            (None, 0) => soonest,
            (None, cycle) => soonest.div_ceil(cycle).saturating_mul(cycle),
            (Some(at), 0) => at.max(soonest),
            (Some(at), cycle) => {
                let nearest = at.saturating_add(cycle / 2) / cycle;
                nearest.saturating_mul(cycle).max(soonest.div_ceil(cycle).saturating_mul(cycle))
            }
        };
        slots.timed.stage_filled(&mut stage.table, stage.gates.as_deref(), TaiTime(at))?;
        // Gates and contracts without streams are kept as well.
        let others = [stage.gates.is_some(), stage.arrivals.iter().any(Option::is_some)];
        slots.streams.1 = Some(stage.streams + others.into_iter().filter(|has| *has).count());
        slots.links_staged = *stage.links;
        slots.arrivals_staged = *stage.arrivals;
        slots.number = stage.number;
        slots.due = None;
        if !slots.active {
            self.give_lanes();
        }
        Ok(())
    }

    /// The lanes change places: one copy of fixed size, when the first stream with slots
    /// comes and when the last one went.
    fn give_lanes(&mut self) {
        let Some(slots) = self.slots.as_mut() else { return };
        std::mem::swap(&mut *self.scheduler, slots.timed.lanes());
        slots.active = !slots.active;
    }

    /// The next instant of the slots or, where there are none, of a budget that all waits for.
    #[inline]
    pub fn slot_due(&self) -> Option<MonoTime> {
        match self.slots.as_ref().filter(|slots| slots.active) {
            Some(slots) => slots.due,
            None => self.held_until,
        }
    }

    /// Whether who sleeps until `due` may wake late: it is when a slot begins that has no message, or
    /// when a budget can pay again.
    pub fn may_wake_late(&self, due: MonoTime) -> bool {
        let slots = self.slots.as_ref().filter(|slots| slots.active);
        slots.is_none_or(|slots| slots.timed.lacks_message_at(due))
    }

    pub fn slot_clock(&self) -> Option<ClockState> {
        self.slots.as_ref().map(|slots| slots.servo.state())
    }

    /// The host slept until `now`.
    pub fn note_wake(&mut self, now: MonoTime) {
        if let Some(slots) = &mut self.slots {
            slots.evidence.woke(now);
            slots.unseen = now;
        }
    }

    /// A sleep that a slot ended did so that late.
    pub fn note_late_wake(&mut self, late: Nanos) {
        if let Some(slots) = &mut self.slots {
            slots.epsilons.wake.note(late);
        }
    }

    pub fn is_turned_by_callers(&mut self) {
        self.watch.keep_all();
        if let Some(slots) = &mut self.slots {
            slots.evidence.by_callers = true;
        }
    }

    /// A frame that no source sent was handed to a link.
    pub fn note_frame(&mut self, now: MonoTime, lane: Lane, bytes: usize) {
        self.note_frames(now, lane, (1, bytes));
    }

    /// So many of them, with so many bytes together.
    pub fn note_frames(&mut self, now: MonoTime, lane: Lane, (frames, bytes): (usize, usize)) {
        if let Some(slots) = self.slots.as_mut().filter(|slots| slots.active) {
            if !lane.is_real_time() {
                slots.told.has_best_effort();
            }
            slots.occupy(now, bytes as u64 + frames as u64 * u64::from(slots.config.overhead_bytes));
        }
    }

    /// One turn's worth, by the slots. Returns how many messages or chunks moved.
    #[inline(never)]
    pub(super) fn run_timed<L: Link, C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> u32 {
        // Before the look at the rings: what comes after it was not seen by it.
        let begins = turn.now();
        if let Some(lone) = self.look(turn, links.payload_bytes_max()) {
            self.enlist(turn, lone);
        }
        let Some(slots) = self.slots.as_mut() else { return 0 };
        slots.unseen = begins;
        if slots.begin(turn.now(), || turn.pair()) {
            port.set_slot_clock(slots.servo.state().number());
            let now = turn.now();
            port.set_slot_offset(slots.servo.tai(now).0.wrapping_sub(now.0));
        }
        let (mut moved, mut grants, mut is_flushed) = (0, 0, true);
        // When the first of what is not flushed was decided upon.
        let mut since = None;
        let mut may_close = !self.fences.is_empty();
        for _ in 0..TELLS_PER_TURN {
            let Some(slots) = self.slots.as_mut() else { break };
            let mono = turn.look();
            let before = slots.last;
            let now = slots.now(mono);
            if slots.is_halted() {
                slots.due = Some(mono + READ_PERIOD);
                slots.evidence.halt(mono);
                moved += self.say_all(mono, links);
                break;
            }
            let mut below = slots.below(mono);
            if slots.asks(now) {
                // Of what is held back for the flush it would know nothing.
                if !std::mem::replace(&mut is_flushed, true) {
                    links.flush();
                }
                let said = links.unfinished(slots.config.asked_links, slots.told.of_best_effort());
                if slots.told.hear(mono, slots.busy_until, said) {
                    below = told::BLOCKED;
                }
            } else {
                slots.told.forget();
            }
            slots.timed.set_slower(slots.told.slower(mono));
            match slots.timed.poll(now, below) {
                Action::Slot { flow, launch, bytes_max, newest } => {
                    slots.goes(mono);
                    links.launch = slots.launch(now, launch);
                    let sent = self.send_one(flow, bytes_max, newest, links, outlets, port);
                    let launched = links.launch.take();
                    links.flush();
                    let flushed = turn.look();
                    is_flushed = true;
                    if let (Some(since), Some(slots)) = (since.take(), &mut self.slots) {
                        slots.took_chunks(since, flushed);
                    }
                    // Without time for launching, no slot is granted before its start.
                    let planned = launched.unwrap_or(mono - Nanos(now.tai.0.saturating_sub(launch.0)));
                    self.slot_sent((mono, launched), flow, &sent, SlotUse { planned, sent: flushed });
                    moved += u32::from(sent.bytes > 0);
                    grants += 1;
                    if sent.bytes == 0 {
                        // The link takes nothing: the next turn tries again.
                        break;
                    }
                }
                Action::Late { flow, bytes_max } => {
                    slots.goes(mono);
                    let sent = self.send_one(flow, bytes_max, false, links, outlets, port);
                    if sent.bytes == 0 {
                        // The link takes nothing: the next turn tries again.
                        break;
                    }
                    if let Some(slots) = &mut self.slots {
                        slots.late(flow, TurnCounter::LateSent);
                    }
                    let missed = self.left(flow, &sent, Fate::SentLate, None);
                    if self.trace.is_on() {
                        let slot = SlotUse { planned: missed.unwrap_or(mono), sent: mono };
                        self.trace_slot(flow, &sent, SlotFate::SentLate, mono, slot);
                    }
                    since.get_or_insert(mono);
                    self.reported(mono, flow, sent.bytes, sent.more);
                    self.tell_next(flow, mono);
                    is_flushed = false;
                    (moved, grants) = (moved + 1, grants + 1);
                }
                Action::Drop { flow } => {
                    slots.late(flow, TurnCounter::LateDropped);
                    let dropped = self.drop_one(flow, outlets, port);
                    let missed = self.left(flow, &dropped, Fate::Dropped, None);
                    if self.trace.is_on() {
                        let slot = SlotUse { planned: missed.unwrap_or(mono), sent: mono };
                        self.trace_slot(flow, &dropped, SlotFate::Dropped, mono, slot);
                    }
                    self.reported(mono, flow, 0, dropped.more);
                    self.tell_next(flow, mono);
                    grants += 1;
                }
                Action::Chunk { flow, budget_bytes } => {
                    slots.goes(mono);
                    let lane_is_real_time = slots.lanes().lane_of(flow).is_some_and(|lane| lane < 3);
                    if self.may_say(mono, lane_is_real_time) && self.say_between(mono, (below, true), links) {
                        moved += 1;
                        self.chunk_left(mono, flow, &Progress { bytes: 0, more: true, blocked: true });
                        break;
                    }
                    let progress = self.send_chunk(turn, flow, budget_bytes, links, outlets, port);
                    is_flushed = false;
                    if progress.bytes > 0 {
                        since.get_or_insert(mono);
                    }
                    if let (false, Some(slots)) = (lane_is_real_time, &mut self.slots) {
                        slots.told.has_best_effort();
                    }
                    self.watch.moved(progress.bytes);
                    self.chunk_left(mono, flow, &progress);
                    self.count_budget(flow, outlets);
                    (moved, grants) = (moved + 1, grants + 1);
                    if !lane_is_real_time {
                        break;
                    }
                }
                Action::Missed { flow, start, count, cause } => slots.missed(now, flow, start, count, cause),
                Action::Skipped { ns } => slots.count(TurnCounter::SlotsSkippedNs, ns),
                Action::TookOver => {
                    port.set_slot_table(slots.number);
                    slots.timed.set_arrivals(&slots.arrivals_staged);
                    slots.displace(Cause::Remap, true);
                    self.change_links(mono, links, outlets);
                    if self.took_over() {
                        break;
                    }
                }
                Action::Stepped(_) => {
                    slots.count(TurnCounter::ClockStep, 1);
                    slots.last = before;
                    slots.displace(Cause::ClockStep, false);
                    slots.last = now;
                    slots.timed.realign(now);
                }
                Action::Wait(until) => {
                    if let Some((lane, flow)) = slots.timed.take_cut() {
                        slots.lane_is_cut(lane);
                        self.cut(flow, outlets);
                        continue;
                    }
                    if self.may_say(mono, false) && self.say_between(mono, (below, false), links) {
                        moved += 1;
                        continue;
                    }
                    let may_say_at = self.may_say_at(mono);
                    let Some(slots) = self.slots.as_mut() else { break };
                    if std::mem::take(&mut may_close) && slots.close_some(mono, below, &mut self.fences, links) {
                        continue;
                    }
                    let until = until.min(may_say_at.unwrap_or(until));
                    let again = if slots.told.is_blocked() { mono + told::AGAIN } else { until };
                    let until = until.min(again);
                    slots.wait(mono, until);
                    if !slots.approach(mono, until, || turn.look()) {
                        break;
                    }
                }
                Action::Idle => {
                    if self.may_say(mono, false) && self.say_between(mono, (below, false), links) {
                        moved += 1;
                        continue;
                    }
                    let may_say_at = self.may_say_at(mono);
                    let Some(slots) = self.slots.as_mut() else { break };
                    if std::mem::take(&mut may_close) && slots.close_some(mono, below, &mut self.fences, links) {
                        continue;
                    }
                    slots.due = Some(may_say_at.unwrap_or(MonoTime(u64::MAX)));
                    break;
                }
            }
            if grants >= GRANTS_PER_TURN {
                break;
            }
        }
        if !is_flushed {
            links.flush();
        }
        if let Some(since) = since {
            let flushed = turn.look();
            if let Some(slots) = &mut self.slots {
                slots.took_chunks(since, flushed);
            }
        }
        moved
    }

    /// The lane of a flow had more to send than it may.
    #[cold]
    fn cut(&mut self, flow: FlowIndex, outlets: &Outlets) {
        if let Some(Some(entry)) = self.sources.get(flow.0 as usize) {
            outlets.count(entry.domain, DatapathCounter::ContractUsedUp, 1);
        }
    }

    /// A message of the flow left, in a slot that starts at `start` or otherwise. The start of
    /// the slot that it missed, if it did.
    fn left(&mut self, flow: FlowIndex, sent: &OneMessage, fate: Fate, start: Option<MonoTime>) -> Option<MonoTime> {
        let source = self.sources[flow.0 as usize].as_ref().map_or(0, |entry| entry.source.0);
        self.slots.as_mut()?.one_left(flow, source, sent, fate, start)
    }

    /// For who takes a trace.
    #[cold]
    fn trace_slot(&mut self, flow: FlowIndex, sent: &OneMessage, fate: SlotFate, decided: MonoTime, slot: SlotUse) {
        if sent.is_nothing() {
            return;
        }
        let entry = self.sources[flow.0 as usize].as_ref();
        self.trace.slot(&SlotRecord {
            planned: slot.planned,
            decided,
            sent: slot.sent,
            source: entry.map_or(0, |entry| entry.source.0),
            number: flow.0.saturating_sub(FIRST_TIMED as u16),
            lane: entry.map_or(Lane::LAST, |entry| entry.lane),
            bytes: sent.bytes,
            sequence: sent.message.map_or(u64::MAX, |(sequence, _)| sequence),
            fate: if sent.is_cut { SlotFate::Dropped } else { fate },
        });
    }

    /// `launch`: when it begins, if it was handed over ahead.
    fn slot_sent(
        &mut self,
        (mono, launch): (MonoTime, Option<MonoTime>),
        flow: FlowIndex,
        sent: &OneMessage,
        slot: SlotUse,
    ) {
        let seen = self.slots.as_ref().map_or(mono, |slots| slots.evidence.seen(flow));
        // Before a refusal is noted: what made way for a message is gone even if that waits.
        let _missed = self.left(flow, sent, Fate::LaterSlot, Some(slot.planned));
        if self.trace.is_on() {
            let fate = match launch {
                _ if sent.bytes == 0 => SlotFate::Refused,
                Some(_) => SlotFate::HandedAhead,
                None => SlotFate::Used,
            };
            self.trace_slot(flow, sent, fate, mono, slot);
        }
        if let Some(slots) = &mut self.slots {
            if sent.bytes == 0 {
                slots.evidence.refuse(flow, mono);
            } else {
                slots.count(TurnCounter::SlotsSent, 1);
                slots.count(TurnCounter::SlotsLaunched, u64::from(launch.is_some()));
                // A message that came in its slot was not waited for.
                let looked = if seen <= slot.planned { mono.since(slot.planned) } else { Nanos::ZERO };
                slots.took(looked, slot.sent.since(mono));
                slots.log.note(slot);
                if let Some(cause) = slots.cause_of(flow) {
                    *cause = None;
                }
            }
        }
        match launch {
            Some(start) if sent.bytes > 0 => {
                if let Some(slots) = &mut self.slots {
                    slots.launched = Some((start, sent.bytes.into()));
                }
                self.told(flow, sent.bytes, sent.more);
            }
            _ => self.reported(mono, flow, sent.bytes, sent.more),
        }
    }

    /// Tells the scheduler what became of its grant.
    fn reported(&mut self, mono: MonoTime, flow: FlowIndex, bytes: u32, more: bool) {
        let Some(slots) = self.slots.as_mut() else { return };
        slots.occupy(mono, bytes.into());
        self.told(flow, bytes, more);
    }

    fn told(&mut self, flow: FlowIndex, bytes: u32, more: bool) {
        let Some(slots) = self.slots.as_mut() else { return };
        slots.timed.sent(flow, bytes, more);
        if !more {
            self.rests(flow);
        }
    }

    /// The same of a chunk of a lane. What the link did not take goes on waiting there.
    fn chunk_left(&mut self, mono: MonoTime, flow: FlowIndex, progress: &Progress) {
        if !progress.blocked {
            return self.reported(mono, flow, progress.bytes, progress.more);
        }
        let Some(slots) = self.slots.as_mut() else { return };
        slots.occupy(mono, progress.bytes.into());
        slots.timed.blocked(flow, progress.bytes);
        self.rests(flow);
    }

    /// The scheduler does not know any more that the flow has something.
    fn rests(&mut self, flow: FlowIndex) {
        if let Some(entry) = &mut self.sources[flow.0 as usize]
            && std::mem::replace(&mut entry.ready, false)
        {
            self.ready -= 1;
        }
    }

    /// A late message is done: when the one behind it came is what its stamp claims.
    fn tell_next(&mut self, flow: FlowIndex, now: MonoTime) {
        let stamp = self.sources[flow.0 as usize].as_ref().and_then(|entry| entry.conn.next_source_ns());
        let came = stamp.and_then(|stamp| Evidence::claimed(stamp, now));
        if let (Some(slots), Some(came)) = (&mut self.slots, came) {
            slots.timed.came(flow, slots.servo.tai(came));
        }
    }

    /// A staged table is in force: sources go by its links. All slots of the one before that
    /// began are done with.
    #[cold]
    fn change_links<L: Link>(&mut self, now: MonoTime, links: &Links<L>, outlets: &Outlets) {
        for number in 0..TIMED_MAX {
            let Some(slots) = self.slots.as_mut() else { return };
            let link = slots.links_staged[number];
            if std::mem::replace(&mut slots.links[number], link) == link {
                continue;
            }
            let place = FIRST_TIMED + number;
            let route = self.sources[place].as_ref().and_then(|entry| outlets.routes.get(entry.route));
            let hops = route.map(|route| {
                let hop = |peer: &PeerIndex| (*peer, links.place_of(*peer, route.way(*peer)));
                route.peers.iter().map(hop).collect::<Hops>()
            });
            if let Some(hops) = hops {
                self.go_by(now, place as u16, Way::by(link), &hops);
            }
        }
    }

    /// A staged table is in force. Whether the lanes decide alone from now on.
    #[cold]
    fn took_over(&mut self) -> bool {
        let Some(slots) = self.slots.as_mut() else { return true };
        slots.streams.0 = slots.streams.1.take().unwrap_or(slots.streams.0);
        let mut period_ns = None;
        for place in FIRST_TIMED..SOURCES_MAX {
            let window = slots.timed.window(FlowIndex(place as u16));
            period_ns = window.map(|window| window.period_ns.min(period_ns.unwrap_or(u64::MAX))).or(period_ns);
            // What it has is reported anew, to the slots or to the lanes.
            if let Some(entry) = &mut self.sources[place]
                && std::mem::replace(&mut entry.ready, false)
            {
                self.ready -= 1;
                slots.timed.idle(FlowIndex(place as u16));
            }
        }
        slots.told.set_period(period_ns);
        slots.epsilons.forget_lanes_cut();
        slots.due = None;
        let is_over = slots.streams.0 == 0;
        if is_over {
            self.give_lanes();
        }
        is_over
    }

    /// Sends whole frames while fewer than `budget` bytes of the link have gone.
    fn send_chunk<L: Link, C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        flow: FlowIndex,
        budget: u32,
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> Progress {
        let nothing = Progress { bytes: 0, more: false, blocked: false };
        let overhead = self.slots.as_ref().map_or(0, |slots| slots.config.overhead_bytes);
        let Some(entry) = self.sources[flow.0 as usize].as_mut() else {
            self.forget_flow(flow);
            return nothing;
        };
        let result = if entry.reliable.is_none() {
            send_some(entry, Grant { bytes: budget, overhead, alone: false }, links, outlets, port)
        } else {
            // It counts without the overhead: as if all of its frames were the smallest.
            let head = HEADER_BYTES as u32;
            let inner = (u64::from(budget) * u64::from(head) / u64::from(head + overhead)).max(1) as u32;
            let before = outlets.counted(entry.domain, DatapathCounter::FramesSent);
            let own = (self.host, self.incarnation);
            let progress = send_reliable(turn.now(), entry, own, inner, links, outlets, port);
            let frames = outlets.counted(entry.domain, DatapathCounter::FramesSent).wrapping_sub(before);
            let added = (frames as u32).saturating_mul(overhead);
            progress.map(|progress| Progress { bytes: progress.bytes.saturating_add(added), ..progress })
        };
        let progress = result.unwrap_or_else(|violation| condemn(entry, violation, outlets, port));
        entry.is_stuck = progress.is_stuck();
        progress
    }
}

impl SlotConfig {
    /// What the scheduler calls a late policy.
    #[must_use]
    pub const fn late_policy(late: insane_core::LatePolicy) -> LatePolicy {
        match late {
            insane_core::LatePolicy::Drop => LatePolicy::Drop,
            insane_core::LatePolicy::SendNow => LatePolicy::SendNow,
            insane_core::LatePolicy::NextSlot => LatePolicy::NextSlot,
            insane_core::LatePolicy::NewestWins => LatePolicy::NewestWins,
        }
    }
}
