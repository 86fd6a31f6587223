//! One host, one link, one schedule after another.

use crate::random::Random;
use crate::schedule::{self, STREAMS_MAX, Schedule};
use crate::wire::{Frame, Sender, Wire};
use insane_core::{Lane, MonoTime, TaiTime};
use insane_scheduler::{
    Action, FlowIndex, GateEntry, Gates, LatePolicy, Limits, LinkTiming, MissCause, Now, Policing, Scheduler,
    TimedScheduler, TimedStream,
};
use std::num::NonZeroU64;

const FLOWS: usize = 16;
type Timed = TimedScheduler<FLOWS, 16, 64>;

/// Slots of one world; then another schedule, link and load are drawn.
const SLOTS_A_WORLD: u64 = 2_000;
/// Polls of one world at most: more is a scheduler that spins.
const POLLS_A_WORLD: u64 = 200_000;

/// What happened.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Worlds.
    pub worlds: u64,
    /// Polls.
    pub polls: u64,
    /// Slots that were settled one by one.
    pub slots: u64,
    /// Slots that went by in whole cycles while the host slept.
    pub skipped: u64,
    /// Of them used.
    pub used: u64,
    /// Slots without a message.
    pub empty: u64,
    /// Slots missed because the host polled too late, or the link refused.
    pub polled_late: u64,
    /// Late messages sent between slots.
    pub sent_late: u64,
    /// Late messages dropped.
    pub dropped: u64,
    /// Bytes of the lanes.
    pub lane_bytes: u64,
    /// Frames of others.
    pub foreign: u64,
    /// Tables that took over.
    pub took_over: u64,
    /// Steps of the clock.
    pub steps: u64,
}

/// What should not have happened, and how to see it again.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}, at {tai} ns TAI: {what}")]
pub struct Fault {
    /// Of the world.
    pub seed: u64,
    /// When.
    pub tai: u64,
    /// What.
    pub what: String,
}

/// Goes through worlds from `seed` on until `slots` slots are settled.
///
/// # Errors
/// The first [`Fault`].
pub fn run(seed: u64, slots: u64) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    let mut next = seed;
    while tally.slots < slots {
        let mut world = World::new(next);
        let ended = world.live(&mut tally);
        ended.map_err(|what| Fault { seed: next, tai: world.tai, what })?;
        tally.worlds += 1;
        next = next.wrapping_add(1);
    }
    Ok(tally)
}

/// What is expected of a stream.
#[derive(Clone, Debug)]
struct Expected {
    stream: TimedStream,
    base: u64,
    /// Start of the next slot that is not settled.
    start: u64,
    /// A message waits.
    waiting: bool,
    /// It was there while the one before it used or missed its slot, as far as was told.
    waited: bool,
    /// When the waiting message came: after the last poll, and not after the next.
    told: u64,
    /// The time of the last poll when it was told.
    found: u64,
    /// The last slot, if it was missed.
    missed: Option<u64>,
    /// The waiting message was there while it could still begin in the slot that was missed.
    was_there: bool,
}

impl Expected {
    fn end(&self) -> u64 {
        self.start + self.stream.slots.length_ns()
    }

    /// Whether the waiting message came too late for its slot.
    fn is_late(&self) -> bool {
        let Some(missed) = self.missed.filter(|_| self.waiting) else { return false };
        self.was_there || self.told + self.stream.early_ns < missed + self.stream.slots.period_ns()
    }
}

struct World {
    random: Random,
    timing: LinkTiming,
    limits: Limits,
    timed: Box<Timed>,
    wire: Wire,
    tai: u64,
    /// TAI minus monotonic time.
    apart: u64,
    last_poll: Option<u64>,
    /// The time that the scheduler was told last.
    told_now: u64,
    /// When the last bytes were on their way.
    handed_ps: u128,
    refused: bool,
    is_exact: bool,
    force: Schedule,
    expected: Vec<Expected>,
    staged: Option<(u64, Schedule, Vec<Expected>)>,
    load_percent: u64,
    last_launch: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let timing = schedule::timing(&mut random);
        let frame = random.between(64, 1_538) as u32;
        let chunk = random.between(u64::from(frame), 16_384) as u32;
        let limits = Limits::new(chunk, frame).unwrap_or_default();
        let mut timed = Box::new(Timed::new(timing, Scheduler::new(limits)));
        for flow in STREAMS_MAX as u16..FLOWS as u16 {
            let lane = Lane::new(random.between(0, 7) as u8).unwrap_or(Lane::LAST);
            let added = timed.lanes().add(FlowIndex(flow), lane, limits.frame_bytes_max.get());
            debug_assert!(added.is_ok());
            if random.chance(25) {
                let rate_bytes_per_s = NonZeroU64::MIN.saturating_add(random.between(1_000_000, 100_000_000));
                let policing = Policing { rate_bytes_per_s, burst_bytes: 2 * frame };
                let policed = timed.lanes().police(FlowIndex(flow), Some(policing));
                debug_assert!(policed.is_ok());
            }
        }
        let tai = random.between(0, 2_000_000_000_000_000_000);
        let apart = random.between(0, tai);
        let load_percent = random.pick(&[0, 50, 100, 100]);
        World {
            is_exact: random.chance(50),
            wire: Wire::new(timing.rate.ps_per_byte()),
            random,
            timing,
            limits,
            timed,
            tai,
            apart,
            last_poll: None,
            told_now: 0,
            handed_ps: 0,
            refused: false,
            force: Schedule { base: 0, streams: Vec::new(), gates: None },
            expected: Vec::new(),
            staged: None,
            load_percent,
            last_launch: 0,
        }
    }

    fn live(&mut self, tally: &mut Tally) -> Result<(), String> {
        let end = tally.slots + SLOTS_A_WORLD;
        let first = tally.polls;
        while tally.slots < end && tally.polls - first < POLLS_A_WORLD {
            if self.staged.is_none() && (self.expected.is_empty() || self.random.chance(1) && self.random.chance(20)) {
                self.stage()?;
            }
            self.others(tally)?;
            self.applications();
            let below = self.wire.below(u128::from(self.tai) * 1_000, self.is_exact);
            let now = self.now();
            tally.polls += 1;
            if below > u64::from(self.timing.in_flight_bytes) + 1_538 * STREAMS_MAX as u64 {
                return Err(format!("{below} bytes are below us"));
            }
            let action = self.timed.poll(now, below);
            self.judge_take_over(action)?;
            let took = self.act(action, tally)?;
            (self.last_poll, self.told_now) = (Some(self.tai), self.tai);
            self.pass(took, tally)?;
        }
        match self.timed.misuses() {
            0 => Ok(()),
            count => Err(format!("{count} misuses were counted")),
        }
    }

    fn now(&self) -> Now {
        Now { mono: MonoTime(self.tai - self.apart), tai: TaiTime(self.tai) }
    }

    fn stage(&mut self) -> Result<(), String> {
        let next = schedule::schedule(&mut self.random, &self.timing, self.tai);
        // What is below us has left by then.
        let bytes = u64::from(self.timing.in_flight_bytes) + u64::from(self.timing.foreign_bytes);
        let soonest = self.timing.turn_ns + self.timing.rate.duration_ns(bytes) + 1;
        let at = self.tai + soonest + self.random.between(0, 2_000_000);
        let gates = next.gates.as_ref().map(|list| {
            let entries: &[GateEntry] = &list.entries;
            Gates::new(TaiTime(list.base), Some(list.cycle), 0, entries).map_err(|error| error.to_string())
        });
        let gates = gates.transpose()?;
        let staged = self.timed.stage(TaiTime(next.base), &next.streams, gates.as_ref(), TaiTime(at));
        staged.map_err(|error| format!("a valid schedule was refused: {error}"))?;
        // Slots of the new one begin when the last old one has ended.
        let first = self.old_window_at(at).map_or(at, |end| end.max(at));
        let expect = |stream: &TimedStream| Expected {
            stream: *stream,
            base: next.base,
            start: first_start(stream, next.base, first),
            waiting: false,
            waited: false,
            told: 0,
            found: 0,
            missed: None,
            was_there: false,
        };
        let expected = next.streams.iter().map(expect).collect();
        self.staged = Some((at, next, expected));
        Ok(())
    }

    /// The end of the window of the table in force that begins before `at` and ends after.
    fn old_window_at(&self, at: u64) -> Option<u64> {
        let ends = self.expected.iter().filter_map(|one| {
            let next = first_start(&one.stream, one.base, at);
            let start = next.checked_sub(one.stream.slots.period_ns()).filter(|&start| start >= one.base)?;
            Some(start + one.stream.slots.length_ns()).filter(|&end| end > at)
        });
        ends.max()
    }

    /// Others put frames on the queue, at most `foreign_bytes` at a time.
    fn others(&mut self, tally: &mut Tally) -> Result<(), String> {
        let most = u64::from(self.timing.foreign_bytes);
        let at_ps = u128::from(self.tai) * 1_000;
        let left = most.saturating_sub(self.wire.foreign(at_ps));
        if left > 0 && self.random.chance(40) {
            let bytes = if self.random.chance(60) { left } else { self.random.between(1, left) };
            tally.foreign += 1;
            let gone = self.wire.hand_over(Sender::Foreign, bytes, at_ps);
            gone.iter().try_for_each(|frame| self.judge_frame(frame))?;
        }
        Ok(())
    }

    /// Applications emit, early, in time, late or not at all.
    fn applications(&mut self) {
        for one in 0..self.expected.len() {
            if !self.expected[one].waiting && self.random.chance(30) {
                // While the host slept, or just now.
                let since = self.told_now.clamp(1, self.tai);
                let came = if self.random.chance(50) { self.tai } else { self.random.between(since, self.tai) };
                self.tell(one, came);
            }
        }
        for flow in STREAMS_MAX as u16..FLOWS as u16 {
            if self.random.chance(self.load_percent) {
                self.timed.ready(FlowIndex(flow), TaiTime(self.tai));
            }
        }
    }

    fn tell(&mut self, one: usize, told: u64) {
        let expected = &mut self.expected[one];
        (expected.waiting, expected.waited, expected.told, expected.was_there) = (true, false, told, false);
        expected.found = self.told_now;
        self.timed.ready(expected.stream.flow, TaiTime(told));
    }

    fn judge_take_over(&mut self, action: Action) -> Result<(), String> {
        let Some((at, ..)) = &self.staged else { return Ok(()) };
        let is_due = self.tai >= *at && self.expected.iter().all(|one| one.start >= *at);
        match action {
            Action::TookOver if self.tai < *at => Err("a table took over before its instant".into()),
            Action::TookOver | Action::Stepped(_) => Ok(()),
            _ if is_due => Err(format!("the staged table did not take over at {at}: {action:?}")),
            _ => Ok(()),
        }
    }

    /// Does as told; returns how long it took, `None` for a wait.
    fn act(&mut self, action: Action, tally: &mut Tally) -> Result<Pass, String> {
        match action {
            Action::Slot { flow, launch, bytes_max, newest } => self.slot(flow, launch.0, bytes_max, newest, tally),
            Action::Late { flow, bytes_max } => self.late(flow, bytes_max, tally),
            Action::Drop { flow } => self.drop_one(flow, tally),
            Action::Missed { flow, start, count, cause } => self.missed(flow, start.0, count, cause, tally),
            Action::Skipped { ns } => self.skipped(ns, tally),
            Action::Chunk { flow, budget_bytes } => self.chunk(flow, budget_bytes, tally),
            Action::TookOver => {
                let Some((_, force, expected)) = self.staged.take() else {
                    return Err("a table took over that was not staged".into());
                };
                (self.force, self.expected) = (force, expected);
                tally.took_over += 1;
                // Messages that waited still do.
                for flow in 0..STREAMS_MAX as u16 {
                    self.timed.idle(FlowIndex(flow));
                }
                Ok(Pass::Nothing)
            }
            Action::Wait(until) => {
                self.judge_wait(until.0)?;
                Ok(Pass::Until(until.0))
            }
            Action::Idle if !self.expected.is_empty() => Err("idle though slots are to come".into()),
            Action::Idle => Ok(Pass::Some),
            Action::Stepped(step) => Err(format!("a step of {step} ns that did not happen")),
        }
    }

    fn find(&mut self, flow: FlowIndex) -> Result<usize, String> {
        let found = self.expected.iter().position(|one| one.stream.flow == flow);
        found.ok_or_else(|| format!("flow {} has no slots", flow.0))
    }

    fn slot(
        &mut self,
        flow: FlowIndex,
        launch: u64,
        bytes_max: u32,
        newest: bool,
        tally: &mut Tally,
    ) -> Result<Pass, String> {
        let number = self.find(flow)?;
        let one = self.expected[number].clone();
        if launch != one.start {
            return Err(format!("a slot at {launch} where {} was next", one.start));
        }
        if self.tai + self.timing.lead_ns < launch {
            return Err("a slot was granted before its start".into());
        }
        if !one.waiting || bytes_max != one.stream.bytes || launch < self.last_launch {
            return Err("a slot was granted without a message, too large, or out of order".into());
        }
        if one.is_late() && matches!(one.stream.late, LatePolicy::Drop) {
            return Err("a late message that is to be dropped got the next slot".into());
        }
        let gives_way = match one.stream.late {
            LatePolicy::NewestWins => true,
            LatePolicy::Drop => one.waited,
            LatePolicy::SendNow | LatePolicy::NextSlot => false,
        };
        if newest != gives_way {
            return Err("which message goes does not follow the policy".into());
        }
        if self.random.chance(2) {
            // The link takes nothing.
            self.refused = true;
            self.timed.sent(flow, 0, true);
            return Ok(Pass::Some);
        }
        let bytes =
            if self.random.chance(70) { u64::from(bytes_max) } else { self.random.between(1, u64::from(bytes_max)) };
        let at_ps = self.turn_ps();
        let (mut gone, slot) = (Vec::new(), Sender::Slot { start: one.start, end: one.end() });
        if self.timing.lead_ns > 0 {
            // A launch queue holds the frame until its instant, or sends it at once.
            let launch_ps = at_ps.max(u128::from(launch) * 1_000);
            gone.extend(self.wire.hand_over_launch(slot, bytes, launch_ps));
        } else {
            gone = self.wire.hand_over(slot, bytes, at_ps);
        }
        gone.iter().try_for_each(|frame| self.judge_frame(frame))?;
        let more = self.random.chance(20);
        self.timed.sent(flow, bytes as u32, more);
        let expected = &mut self.expected[number];
        expected.start += expected.stream.slots.period_ns();
        (expected.waiting, expected.waited, expected.missed, expected.was_there) = (more, more, None, false);
        self.last_launch = launch;
        tally.slots += 1;
        tally.used += 1;
        Ok(Pass::Little)
    }

    fn missed(
        &mut self,
        flow: FlowIndex,
        start: u64,
        count: u64,
        cause: MissCause,
        tally: &mut Tally,
    ) -> Result<Pass, String> {
        let number = self.find(flow)?;
        let timing = self.timing;
        let one = &mut self.expected[number];
        let period = one.stream.slots.period_ns();
        if count == 0 || start != one.start + (count - 1) * period {
            return Err(format!("{count} slots were missed up to {start} where {} was next", one.start));
        }
        let need_ps = u128::from(one.stream.bytes + timing.foreign_bytes) * u128::from(timing.rate.ps_per_byte());
        let latest = (one.end() - timing.turn_ns).saturating_sub(need_ps.div_ceil(1_000) as u64);
        let was_polled = self.last_poll.is_some_and(|poll| poll >= one.start && poll <= latest);
        let fault = match cause {
            MissCause::NoMessage if one.waiting => "no message, though one waited",
            MissCause::NoMessage if self.tai <= latest => "a slot was given up while a message could still come",
            MissCause::GateShut => "a gate was shut for a flow that has no lane",
            MissCause::LinkBusy if self.tai <= latest => "a busy link was given up in time",
            MissCause::LinkBusy if !self.refused && timing.lead_ns == 0 => "the link was busy at a slot",
            MissCause::PolledLate if self.tai <= latest => "polled in time, and called late",
            MissCause::PolledLate
                if was_polled && !self.refused && one.found < self.last_poll.unwrap_or(0) && !one.was_there =>
            {
                "a message was ready when its slot was polled in time, and did not go"
            }
            _ => "",
        };
        if !fault.is_empty() {
            return Err(fault.into());
        }
        one.start = start + period;
        one.missed = Some(start);
        one.was_there |= one.waiting && one.told <= latest + (count - 1) * period;
        self.refused = false;
        tally.slots += 1;
        tally.empty += u64::from(cause == MissCause::NoMessage);
        tally.polled_late += u64::from(cause != MissCause::NoMessage);
        Ok(Pass::Nothing)
    }

    fn skipped(&mut self, ns: u64, tally: &mut Tally) -> Result<Pass, String> {
        for one in &mut self.expected {
            let period = one.stream.slots.period_ns();
            if !ns.is_multiple_of(period) {
                return Err(format!("{ns} ns were skipped, no multiple of {period}"));
            }
            let passed = one.start.saturating_add(ns).saturating_sub(period) + one.stream.slots.length_ns();
            if ns > 0 && passed > self.tai {
                return Err(format!("slots that have not ended were skipped: {ns} ns, {one:?}"));
            }
            one.start += ns;
            tally.skipped += ns / period;
        }
        Ok(Pass::Nothing)
    }

    fn late(&mut self, flow: FlowIndex, bytes_max: u32, tally: &mut Tally) -> Result<Pass, String> {
        let number = self.find(flow)?;
        let one = self.expected[number].clone();
        let until = one.missed.unwrap_or(0) + one.stream.deadline_ns;
        if !one.is_late() || one.stream.late != LatePolicy::SendNow || self.tai > until {
            return Err("a message was sent between slots against its policy".into());
        }
        if self.random.chance(10) {
            // The link takes nothing: it stays late.
            self.timed.sent(flow, 0, true);
            return Ok(Pass::Some);
        }
        let at_ps = self.turn_ps();
        let gone = self.wire.hand_over(Sender::Late, u64::from(bytes_max), at_ps);
        gone.iter().try_for_each(|frame| self.judge_frame(frame))?;
        self.done_late(number, bytes_max);
        tally.sent_late += 1;
        Ok(Pass::Little)
    }

    fn drop_one(&mut self, flow: FlowIndex, tally: &mut Tally) -> Result<Pass, String> {
        let number = self.find(flow)?;
        let one = &self.expected[number];
        let until = one.missed.unwrap_or(0) + one.stream.deadline_ns;
        let may = match one.stream.late {
            LatePolicy::Drop => true,
            LatePolicy::SendNow => self.tai > until,
            LatePolicy::NextSlot | LatePolicy::NewestWins => false,
        };
        if !one.is_late() || !may {
            return Err(format!("a message was dropped against its policy: {one:?}"));
        }
        self.done_late(number, 0);
        tally.dropped += 1;
        Ok(Pass::Nothing)
    }

    /// What waits behind a late message is not late for the same slot; when it came may be known.
    fn done_late(&mut self, number: usize, bytes: u32) {
        let more = self.random.chance(20);
        let expected = &mut self.expected[number];
        let need = u64::from(expected.stream.bytes + self.timing.foreign_bytes);
        let need_ns = self.timing.turn_ns + (need * u64::from(self.timing.rate.ps_per_byte())).div_ceil(1_000);
        // The slot that the first missed says whether this one had waited through it, too.
        expected.was_there = false;
        self.timed.sent(expected.stream.flow, bytes, more);
        (expected.waiting, expected.waited) = (more, more);
        if more {
            if self.random.chance(50) {
                expected.told = self.random.between(expected.told.min(self.tai), self.tai);
                self.timed.came(expected.stream.flow, TaiTime(expected.told));
                let latest = expected.missed.map_or(0, |missed| missed + expected.stream.slots.length_ns() - need_ns);
                expected.waited = expected.is_late() || expected.told <= latest;
            }
            (expected.missed, expected.was_there) = (None, false);
        }
    }

    fn chunk(&mut self, flow: FlowIndex, budget: u32, tally: &mut Tally) -> Result<Pass, String> {
        let lane = self.timed.lanes().lane_of(flow).ok_or("a chunk of a flow that there is not")?;
        let at_ps = self.turn_ps();
        let largest = u64::from(self.limits.frame_bytes_max.get());
        let small = self.random.chance(30);
        let mut sent = 0;
        while sent < u64::from(budget) {
            // The worst that the contract allows is a last frame that runs over by all but one byte.
            let left = u64::from(budget) - sent;
            let frame = if small {
                self.random.between(1, largest)
            } else if left > largest {
                left.min(2 * largest - 1) - largest
            } else {
                largest
            }
            .max(1);
            let gone = self.wire.hand_over(Sender::Lane(lane), frame.min(largest), at_ps);
            gone.iter().try_for_each(|frame| self.judge_frame(frame))?;
            sent += frame.min(largest);
        }
        tally.lane_bytes += sent;
        let more = self.random.chance(90);
        self.timed.sent(flow, sent as u32, more);
        Ok(Pass::Little)
    }

    /// When bytes of this turn are on their way: at most e_turn after the poll.
    fn turn_ps(&mut self) -> u128 {
        let turn =
            if self.random.chance(60) { self.timing.turn_ns } else { self.random.between(0, self.timing.turn_ns) };
        // One thread hands over in order.
        self.handed_ps = self.handed_ps.max(u128::from(self.tai + turn) * 1_000);
        self.handed_ps
    }

    fn judge_frame(&mut self, frame: &Frame) -> Result<(), String> {
        match frame.sender {
            Sender::Foreign => Ok(()),
            Sender::Slot { start, end } => {
                let inside = frame.begin_ps >= u128::from(start) * 1_000 && frame.end_ps <= u128::from(end) * 1_000;
                if inside { Ok(()) } else { Err(format!("a frame was outside its slot: {frame:?}")) }
            }
            Sender::Late => self.judge_free(frame),
            Sender::Lane(lane) => {
                let gates = self.force.gates.as_ref();
                if gates.is_some_and(|list| !list.is_open(lane, frame.begin_ps, frame.end_ps)) {
                    return Err(format!("a frame went while its gate was shut: {frame:?}"));
                }
                if let Some((at, next, _)) =
                    self.staged.as_ref().filter(|(at, ..)| u128::from(*at) * 1_000 < frame.end_ps)
                {
                    let from = frame.begin_ps.max(u128::from(*at) * 1_000);
                    if next.gates.as_ref().is_some_and(|list| !list.is_open(lane, from, frame.end_ps)) {
                        return Err(format!("a frame went while its gate of the next table was shut: {frame:?}"));
                    }
                }
                self.judge_free(frame)
            }
        }
    }

    /// A frame that has no slot ends before the next one that is not settled.
    fn judge_free(&self, frame: &Frame) -> Result<(), String> {
        let at = self.staged.as_ref().map_or(u64::MAX, |staged| staged.0);
        let old = self.expected.iter().map(|one| one.start).filter(|&start| start < at).min();
        let new = self.staged.iter().flat_map(|staged| staged.2.iter()).map(|one| one.start).min();
        let next = old.unwrap_or(u64::MAX).min(new.unwrap_or(u64::MAX));
        if frame.end_ps > u128::from(next) * 1_000 {
            return Err(format!("a frame was in the way of the slot at {next}: {frame:?}"));
        }
        Ok(())
    }

    fn judge_wait(&mut self, until: u64) -> Result<(), String> {
        let until = until.saturating_add(self.apart);
        let at = self.staged.as_ref().map(|staged| staged.0).filter(|&at| at > self.tai);
        // A slot may be handed over by its lead before: then what comes next is its end.
        let lead = self.timing.lead_ns;
        let slot =
            self.expected.iter().map(|one| if one.start > self.tai + lead { one.start } else { one.end() }).min();
        let gate = match (&self.force.gates, self.timed.lanes().waiting_lanes()) {
            (Some(list), lanes) if lanes != 0 => Some(list.at(self.tai).map_or(list.base, |(_, end)| end)),
            _ => None,
        };
        match [at, slot.filter(|&start| at.is_none_or(|at| start < at)), gate].into_iter().flatten().min() {
            Some(event) if until > event => Err(format!(
                "waits until {until}, past the event at {event}; staged {at:?}, slot {slot:?}, gate {gate:?}"
            )),
            _ => Ok(()),
        }
    }

    /// Time passes; clocks drift, and sometimes step.
    fn pass(&mut self, pass: Pass, tally: &mut Tally) -> Result<(), String> {
        let mono = self.tai - self.apart;
        let until = match pass {
            Pass::Nothing => return Ok(()),
            Pass::Little => mono + self.random.pick(&[0, 1, 50, 900]),
            Pass::Some => mono + self.random.between(1, 20_000),
            // An event may come before; the host may oversleep.
            Pass::Until(until) if self.random.chance(25) => {
                mono + self.random.between(0, until.saturating_sub(mono).min(200_000))
            }
            Pass::Until(until) if until == u64::MAX => mono + 50_000,
            Pass::Until(until) if self.random.chance(3) => {
                until + self.random.pick(&[1, 1, 500, 500, 20_000, 20_000, 1_000_000, 1_000_000, 40_000_000])
            }
            Pass::Until(until) => until,
        };
        let passed = until.saturating_sub(mono);
        self.tai += passed;
        // Drift: at most 100 ppm, so a wait for TAI ends a little off.
        if passed > 10_000 && self.random.chance(5) {
            let drift = self.random.between(0, passed.min(1_000_000) / 10_000);
            if self.random.chance(50) {
                self.tai += drift;
                self.apart += drift
            } else {
                self.tai -= drift;
                self.apart = self.apart.saturating_sub(drift)
            }
        }
        let gone = self.wire.launch_until(u128::from(self.tai) * 1_000);
        gone.iter().try_for_each(|frame| self.judge_frame(frame))?;
        if self.random.chance(1) && self.random.chance(5) { self.step(tally) } else { Ok(()) }
    }

    /// TAI steps by the offset to UTC, or by hours, or by little more than is tolerated.
    fn step(&mut self, tally: &mut Tally) -> Result<(), String> {
        let by = self.random.pick(&[37_000_000_000, 3 * 3_600_000_000_000, 2 * self.timing.step_ns]);
        let back = self.random.chance(50) && self.apart > by && self.tai > by;
        let gone = self.wire.launch_until(u128::MAX);
        gone.iter().try_for_each(|frame| self.judge_frame(frame))?;
        (self.tai, self.apart) = if back { (self.tai - by, self.apart - by) } else { (self.tai + by, self.apart + by) };
        let expected = if back { -(by as i64) } else { by as i64 };
        let told = self.timed.poll(self.now(), 0);
        let is_right = matches!(told, Action::Stepped(step) if (step - expected).unsigned_abs() <= self.timing.step_ns);
        if !is_right {
            return Err(format!("a step of {expected} ns was told as {told:?}"));
        }
        tally.steps += 1;
        self.timed.realign(self.now());
        self.told_now = self.tai;
        let tai = self.tai;
        for one in &mut self.expected {
            one.start = first_start(&one.stream, one.base, tai);
            (one.missed, one.was_there, one.told) = (None, false, tai);
        }
        let at = self.staged.as_ref().map_or(0, |staged| staged.0.max(tai));
        let from = self.old_window_at(at).unwrap_or(at);
        if let Some((_, _, expected)) = &mut self.staged {
            expected.iter_mut().for_each(|one| one.start = first_start(&one.stream, one.base, from));
        }
        self.wire = Wire::new(self.timing.rate.ps_per_byte());
        (self.last_poll, self.last_launch, self.handed_ps) = (None, 0, 0);
        Ok(())
    }
}

enum Pass {
    Nothing,
    Little,
    Some,
    Until(u64),
}

/// The first start at or after `at`, by division of what is between.
fn first_start(stream: &TimedStream, base: u64, at: u64) -> u64 {
    let first = base + stream.slots.offset_ns();
    first + at.saturating_sub(first).div_ceil(stream.slots.period_ns()) * stream.slots.period_ns()
}
