//! Causes of misses against what was done on purpose, in virtual time: each case injects one
//! cause (or two at once, where the order of causes decides), a wire that knows nothing of
//! causes says which messages missed their slots, and the record says why. The confusion matrix
//! of both is printed and judged.

mod world;

use insane_clock::ServoConfig;
use insane_core::counters::TurnCounter;
use insane_core::time::{Clock, PairedRead};
use insane_core::{
    Cause, Fate, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, SourceId, SourceInstant, Stamp, StreamKey,
    TaiTime,
};
use insane_engine::{Command, EngineConfig, SlotConfig, SlotTable, StageSlots, TIMED_MAX, Topic, timed_flow};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkSetup, SendOutcome, SwapRefused, Unfinished};
use insane_scheduler::{GateEntry, Gates, LatePolicy, LinkRate, LinkTiming, Recurrence, TimedStream};
use insane_shm::misses::{Miss, MissReader};
use insane_shm::port::{Emit, SourcePort};
use insane_sim::{SimClock, SimConfig, SimLink, SimNet, SimPeer};
use insane_sys::SharedBytes;
use insane_wire::data::DataHeader;
use insane_wire::reliable::{Body, Position, Sync};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use world::{Host, TOPIC, address};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const PERIOD: u64 = MS;
const OFFSET: u64 = 300 * US;
/// UDP, IPv4, Ethernet, preamble, check, gap.
const OVERHEAD: u32 = 8 + 20 + 14 + 4 + 8 + 12;
const WIRE_NS_PER_BYTE: u64 = 80;
const TURN_NS: u64 = 4_000;
const SIZE: usize = 64;
const APART: u64 = 1_790_000_000 * 1_000 * MS;
const BULK: Topic = Topic { channel: insane_core::ChannelId(9), ..TOPIC };
/// Periods of a case, in the last of which nothing is emitted, so that nothing is left.
const PERIODS: u64 = 16;
const DRAIN: u64 = 10;
/// Of one in which the clock steps: it is believed after three reads, 10 ms apart.
const PERIODS_LONG: u64 = 64;
/// The message that it happens to, counted from the first of the case.
const TARGET: u64 = 2;
/// Cases of each kind and policy. Clock steps are longer, and fewer.
const CASES: u64 = 40;

/// What is done to a case.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Injected {
    Nothing,
    EmitsLate,
    LinkTakesNothing,
    GateShut,
    LinkFilled,
    /// What should have left before the slot has not, as the link says.
    LinkSlow,
    Sleeps,
    /// The thread is not run.
    Stalls,
    /// A turn is stretched in the middle of a send.
    Stretched,
    NotTurned,
    ClockSteps,
    TableMoves,
    EmitsLateAndSleeps,
    EmitsLateAndLinkTakesNothing,
    SleepsAndLinkTakesNothing,
    /// In the slot before, or in the one after, the link takes a message at the second try:
    /// that is no cause of a miss, and hides none.
    SleepsNextToRefusal,
}

impl Injected {
    const ALL: [Injected; 16] = [
        Injected::Nothing,
        Injected::EmitsLate,
        Injected::LinkTakesNothing,
        Injected::GateShut,
        Injected::LinkFilled,
        Injected::LinkSlow,
        Injected::Sleeps,
        Injected::Stalls,
        Injected::Stretched,
        Injected::NotTurned,
        Injected::ClockSteps,
        Injected::TableMoves,
        Injected::EmitsLateAndSleeps,
        Injected::EmitsLateAndLinkTakesNothing,
        Injected::SleepsAndLinkTakesNothing,
        Injected::SleepsNextToRefusal,
    ];

    /// The cause of what it makes late.
    const fn truth(self) -> Cause {
        match self {
            Injected::Nothing => Cause::Unexplained,
            Injected::EmitsLate | Injected::EmitsLateAndSleeps | Injected::EmitsLateAndLinkTakesNothing => {
                Cause::ApplicationLate
            }
            Injected::LinkTakesNothing | Injected::SleepsAndLinkTakesNothing => Cause::RingFull,
            Injected::GateShut => Cause::GateShut,
            Injected::LinkFilled | Injected::LinkSlow => Cause::LinkBusy,
            Injected::Sleeps | Injected::SleepsNextToRefusal => Cause::WakeLate,
            Injected::Stalls | Injected::Stretched => Cause::TurnOverrun,
            Injected::NotTurned => Cause::NotTurned,
            Injected::ClockSteps => Cause::ClockStep,
            Injected::TableMoves => Cause::Remap,
        }
    }

    const fn emits_late(self) -> bool {
        matches!(self, Injected::EmitsLate | Injected::EmitsLateAndSleeps | Injected::EmitsLateAndLinkTakesNothing)
    }

    const fn refuses(self) -> bool {
        matches!(
            self,
            Injected::LinkTakesNothing | Injected::EmitsLateAndLinkTakesNothing | Injected::SleepsAndLinkTakesNothing
        )
    }

    const fn periods(self) -> u64 {
        if matches!(self, Injected::ClockSteps) { PERIODS_LONG } else { PERIODS }
    }
}

struct Random(u64);

impl Random {
    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        from + (self.0 >> 33) % (to - from).max(1)
    }
}

/// What a test does to a link.
#[derive(Default)]
struct Trouble {
    /// Real-time frames are refused from, until.
    refuses: Cell<(u64, u64)>,
    has_refused: Cell<bool>,
    /// What was handed over is held from, until.
    holds: Cell<(u64, u64)>,
    /// When the link was asked for that.
    asked: RefCell<Vec<u64>>,
    /// The next best-effort frame from the first on takes until the second.
    stretch: Cell<Option<(u64, u64)>>,
}

/// Notes when which message was handed over.
struct WireLink {
    inner: SimLink,
    net: Rc<SimNet>,
    trouble: Rc<Trouble>,
    handed: Rc<RefCell<BTreeMap<u64, u64>>>,
}

impl Link for WireLink {
    type Peer = SimPeer;

    fn capabilities(&self) -> LinkCapabilities {
        self.inner.capabilities()
    }

    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let now = self.net.clock().now().0;
        if lane == Lane::LAST {
            if let Some((from, until)) = self.trouble.stretch.get()
                && now >= from
            {
                self.trouble.stretch.set(None);
                self.net.advance_to(MonoTime(until));
            }
        } else if payload.len() == SIZE {
            let (from, until) = self.trouble.refuses.get();
            if (from..until).contains(&now) {
                self.trouble.has_refused.set(true);
                return SendOutcome::Busy;
            }
            let mut number = [0; 8];
            payload.copy_to(&mut number);
            self.handed.borrow_mut().entry(u64::from_le_bytes(number)).or_insert(now);
        }
        self.inner.send(peer, lane, head, payload)
    }

    fn unfinished(&mut self, _best_effort: bool) -> Option<Unfinished> {
        let (from, until) = self.trouble.holds.get();
        let now = self.net.clock().now().0;
        self.trouble.asked.borrow_mut().push(now);
        let is_held = (from..until).contains(&now);
        Some(Unfinished { amount: u64::from(is_held), lag: Nanos::ZERO })
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn receive<S: FrameSink>(&mut self, budget: u32, thorough: bool, sink: &mut S) -> u32 {
        self.inner.receive(budget, thorough, sink)
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.inner.readable_fds()
    }

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<SimPeer>) -> Result<(), SwapRefused> {
        self.inner.swap_peer(peer, with)
    }
}

#[derive(Clone)]
struct HostClock {
    local: SimClock,
    apart_ns: Rc<Cell<u64>>,
}

impl Clock for HostClock {
    fn now(&self) -> MonoTime {
        self.local.now()
    }

    fn pair(&self) -> Option<PairedRead> {
        let now = self.local.now();
        let tai = TaiTime(now.0 + self.apart_ns.get());
        Some(PairedRead { before: now, tai, after: now, has_offset: true, is_synchronised: true })
    }
}

fn slot_config() -> SlotConfig {
    let rate = LinkRate::from_bits_per_s(100_000_000).unwrap();
    let timing =
        LinkTiming { rate, turn_ns: TURN_NS, foreign_bytes: 0, in_flight_bytes: 4_000, lead_ns: 0, step_ns: MS };
    SlotConfig { timing, overhead_bytes: OVERHEAD, servo: ServoConfig::default(), asked_links: 1 }
}

fn bytes() -> u32 {
    slot_config().message_bytes(SIZE as u32, 1_400, 1)
}

/// One host that sends a message in each period, and what is done to it.
struct World {
    net: Rc<SimNet>,
    host: Host<WireLink, HostClock>,
    timed: SourcePort,
    bulk: SourcePort,
    trouble: Rc<Trouble>,
    handed: Rc<RefCell<BTreeMap<u64, u64>>>,
    apart_ns: Rc<Cell<u64>>,
    reader: MissReader,
    random: Random,
    policy: LatePolicy,
    /// Offset of the slots and TAI less the monotonic clock, as they are in force.
    in_force: (u64, u64),
    staged: u64,
    tables: u32,
    steps: u64,
    /// Of each message: its sequence, its slot.
    planned: BTreeMap<u64, (u64, u64)>,
    emitted: u64,
}

impl World {
    fn new(injected: Injected, policy: LatePolicy, seed: u64) -> World {
        let net = Rc::new(SimNet::new(seed, SimConfig { frames_max: 8_192, ..SimConfig::default() }));
        let inner = net.setup(address(1)).open(&[Some(address(2))]).unwrap();
        let (trouble, handed) = (Rc::new(Trouble::default()), Rc::default());
        let link = WireLink { inner, net: Rc::clone(&net), trouble: Rc::clone(&trouble), handed: Rc::clone(&handed) };
        let apart_ns = Rc::new(Cell::new(APART));
        let clock = HostClock { local: net.clock(), apart_ns: Rc::clone(&apart_ns) };
        let engine = EngineConfig { slots: Some(slot_config()), ..EngineConfig::new(HostId(1), Incarnation(1)) };
        let mut host = Host::of(engine, link, clock, 1, &[(2048, 64)], None);
        if injected == Injected::NotTurned {
            host.engine.is_turned_by_callers();
        }
        host.slots = Some(0);
        let timed = host.source(TOPIC, Lane::new(0).unwrap(), &[]);
        host.slots = None;
        let bulk = host.source(BULK, Lane::LAST, &[(1_300, 64)]);
        host.route(TOPIC, &[0], false);
        host.route(BULK, &[0], false);
        let reader = host.port.misses().expect("links have a rate");
        let mut world = World {
            net,
            host,
            timed,
            bulk,
            trouble,
            handed,
            apart_ns,
            reader,
            random: Random(seed),
            policy,
            in_force: (OFFSET, APART),
            staged: OFFSET,
            tables: 0,
            steps: 0,
            planned: BTreeMap::new(),
            emitted: 0,
        };
        world.stage(OFFSET, injected == Injected::GateShut);
        // The clock locks, and the table takes over.
        let start = world.now();
        while world.now() < start + 100 * MS {
            world.turn();
            world.advance(u64::MAX);
        }
        world
    }

    fn now(&self) -> u64 {
        self.net.clock().now().0
    }

    fn stage(&mut self, offset: u64, has_gates: bool) {
        self.staged = offset;
        self.tables += 1;
        let stream = TimedStream {
            flow: timed_flow(0),
            slots: Recurrence::new(PERIOD, offset, 2 * TURN_NS + u64::from(bytes()) * WIRE_NS_PER_BYTE).unwrap(),
            bytes: bytes(),
            early_ns: PERIOD * 3 / 4,
            deadline_ns: 400 * US,
            late: self.policy,
        };
        let mut table = Box::new(SlotTable::new(slot_config().timing));
        table.fill(TaiTime(0), &[stream]).unwrap();
        // In each case, lane 0 is shut for the period of the target.
        let open = |open_lanes, periods| GateEntry { open_lanes, interval_ns: periods * PERIOD };
        let entries = [open(0xff, TARGET + 1), open(0xfe, 1), open(0xff, PERIODS - TARGET - 2)];
        let gates = Gates::new(TaiTime(0), None, 0, &entries).unwrap();
        let stage = StageSlots {
            table,
            streams: 1,
            cycle_ns: PERIOD,
            at: None,
            gates: has_gates.then(|| Box::new(gates)),
            links: Box::new([None; TIMED_MAX]),
            arrivals: Box::default(),
            number: self.tables,
        };
        let staged = self.host.command(Command::StageSlots(stage));
        assert!(matches!(staged, Command::SlotsStaged(_, Ok(()))), "{staged:?}");
    }

    /// The first slot in force at or after `at`.
    fn slot_after(&self, at: u64) -> u64 {
        let (offset, apart) = self.in_force;
        let tai = at + apart;
        tai + (offset + PERIOD - tai % PERIOD) % PERIOD - apart
    }

    fn turn(&mut self) {
        while let Ok(buffer) = self.bulk.get_buffer(1_300) {
            if !self.bulk.emit(buffer, 0).is_sent() {
                break;
            }
        }
        for _ in 0..64 {
            if !self.host.engine.turn() {
                break;
            }
        }
        let steps = self.host.turn_counters.get(TurnCounter::ClockStep as usize);
        if std::mem::replace(&mut self.steps, steps) != steps {
            self.in_force.1 = self.apart_ns.get();
        }
        if self.host.port.slot_table() == self.tables {
            self.in_force.0 = self.staged;
        }
    }

    /// Until the engine or the test has something to do; a host looks a little late.
    fn advance(&mut self, until: u64) {
        let now = self.now();
        let due = self.host.engine.slot_due().map_or(u64::MAX, |due| due.0);
        // Who has work does not sleep.
        let rest = if self.host.engine.has_work() { 200 } else { 50 * US };
        let next = due.min(until).clamp(now + 200, now + rest);
        let late = self.random.between(0, TURN_NS * 2 / 3);
        self.net.advance(Nanos(next - now + late));
    }

    /// So many heartbeats of reliable flows of real time come in, each of which is answered: what
    /// leaves when it comes, and not between slots.
    fn ask_for_reports(&self, count: u64) {
        for number in 0..count {
            let of = (StreamKey(100 + number), TOPIC.channel);
            let lane = Lane::LAST_REAL_TIME;
            let head = DataHeader { lane, ..DataHeader::reliable((HostId(2), Incarnation(1)), of, SourceId(1)) };
            let start = Position::start_of(0);
            let sync = Sync { token: 1, base: 0, sent: start, fresh: true, keeps: false, recap: 0, past: 0 };
            let frame = [&head.encode()[..], &Body::Sync(sync).encode()[..]].concat();
            assert_eq!(self.net.inject(address(2), address(1), lane, &frame), SendOutcome::Sent);
        }
    }

    fn emit(&mut self, planned: u64, has_stamp: bool) {
        let mut payload = [0; SIZE];
        payload[..8].copy_from_slice(&self.emitted.to_le_bytes());
        let instant = if has_stamp { SourceInstant::Monotonic(MonoTime(self.now())) } else { SourceInstant::None };
        let stamp = Stamp { instant, is_history: false }.encode();
        let Some(Emit::Sent(token)) = self.timed.emit_copy(&payload, stamp) else { panic!("the ring has room") };
        self.planned.insert(self.emitted, (token.sequence(), planned));
        self.emitted += 1;
    }

    /// Runs one case; what was missed and what was recorded goes into the matrix.
    fn case(&mut self, injected: Injected, matrix: &mut Matrix) {
        let slack = TURN_NS;
        let (first, written, before_case) = (self.emitted, self.reader.written(), self.in_force);
        self.trouble.has_refused.set(false);
        self.handed.borrow_mut().clear();
        self.planned.clear();
        // A case begins with a cycle of the gates.
        let cycle = PERIODS * PERIOD;
        let tai = self.now() + self.in_force.1;
        let start = self.now() + cycle - tai % cycle;
        let periods = injected.periods();
        let end = start + periods * PERIOD;
        let last_emit = end - DRAIN * PERIOD;
        let target = start + (TARGET + 1) * PERIOD + self.staged;
        // Without stamps what was seen decides; that is enough unless two things happen at once.
        let has_stamps = injected.emits_late() || self.random.between(0, 2) == 0;
        let late_by = self.random.between(TURN_NS, PERIOD / 5);
        let missed_by = slack + TURN_NS + self.random.between(US, 1_500 * US);
        let early = self.random.between(30 * US, 250 * US);
        let away = match injected {
            Injected::Sleeps | Injected::Stalls | Injected::NotTurned | Injected::SleepsNextToRefusal => {
                Some((target - early, target + missed_by))
            }
            Injected::EmitsLateAndSleeps => {
                Some((target - early, target + slack + late_by + missed_by % (PERIOD / 50)))
            }
            // It looks once, is refused, and sleeps on.
            Injected::SleepsAndLinkTakesNothing => Some((target + TURN_NS * 3 / 4, target + missed_by)),
            _ => None,
        };
        self.trouble.refuses.set(match injected {
            Injected::SleepsNextToRefusal => {
                let slot = target - PERIOD + self.random.between(0, 2) * 2 * PERIOD;
                (slot - 1, slot + TURN_NS / 4)
            }
            _ if injected.refuses() => (target - 1, target + slack + TURN_NS + late_by),
            _ => (0, 0),
        });
        let is_slow = injected == Injected::LinkSlow;
        self.trouble.holds.set(if is_slow { (target - early, target + missed_by) } else { (0, 0) });
        if injected == Injected::Stretched {
            self.trouble.stretch.set(Some((target - early - 150 * US, target + missed_by)));
        }
        let acts_at = start + PERIOD / 7;
        let (mut has_acted, mut has_flooded) = (false, false);
        let mut index = 0;
        let mut emit_at = start + PERIOD + self.staged - PERIOD / 2;
        while self.now() < end {
            let now = self.now();
            if now >= acts_at && !std::mem::replace(&mut has_acted, true) {
                if injected == Injected::ClockSteps {
                    let by = self.random.between(120 * US, 880 * US);
                    self.apart_ns.set(self.apart_ns.get() + by);
                } else if injected == Injected::TableMoves {
                    let offset = self.random.between(100, 450) * US;
                    self.stage(offset, false);
                }
            }
            if now >= emit_at && now < last_emit {
                let is_late = injected.emits_late() && index == TARGET;
                let planned = if is_late { target } else { self.slot_after(now) };
                if planned > now + 700 * US {
                    // The slots have moved: so early it would belong to the one before.
                    emit_at = planned - self.random.between(300, 650) * US;
                    continue;
                }
                self.emit(planned, has_stamps);
                index += 1;
                let lead = self.random.between(300, 650) * US;
                emit_at = planned + PERIOD - lead;
                if injected.emits_late() && index == TARGET {
                    emit_at = target + slack + late_by;
                }
            }
            if injected == Injected::LinkFilled && now + 20 * US >= target && !has_flooded {
                has_flooded = true;
                self.ask_for_reports(32);
            }
            match away {
                Some((from, until)) if (from..until).contains(&now) => {
                    // Its clock goes on: the application emits meanwhile.
                    let next = until.min(emit_at.max(now + 1));
                    self.net.advance_to(MonoTime(next));
                    if next == until && injected != Injected::Stalls && injected != Injected::NotTurned {
                        self.host.engine.note_wake(MonoTime(until));
                    }
                    continue;
                }
                _ => self.turn(),
            }
            let flood_at = if injected == Injected::LinkFilled && !has_flooded { target - 20 * US } else { u64::MAX };
            let leaves_at = away.map_or(u64::MAX, |(from, _)| if now < from { from } else { u64::MAX });
            let acts_at = if has_acted { u64::MAX } else { acts_at };
            self.advance(emit_at.min(flood_at).min(leaves_at).min(acts_at));
        }
        self.judge(injected, (first, written), before_case, matrix);
    }

    fn judge(
        &mut self,
        injected: Injected,
        (first, written): (u64, u64),
        before_case: (u64, u64),
        matrix: &mut Matrix,
    ) {
        let mut recorded: BTreeMap<u64, Miss> = BTreeMap::new();
        for (_, miss) in self.reader.since(written) {
            for at in 0..u64::from(miss.messages) {
                let before = recorded.insert(miss.sequence + at, miss);
                assert!(before.is_none(), "a message is noted once: {before:?} {miss:?}");
            }
        }
        let handed = self.handed.borrow();
        let truth = match injected {
            // Nobody may have looked while it took nothing.
            Injected::SleepsAndLinkTakesNothing if !self.trouble.has_refused.get() => Cause::WakeLate,
            _ => injected.truth(),
        };
        for number in first..self.emitted {
            let (sequence, planned) = self.planned[&number];
            let at = handed.get(&number).copied();
            // It went in its slot or, where slots moved, in an earlier one.
            let is_in = |at: u64, (offset, apart): (u64, u64)| (at + apart + PERIOD - offset) % PERIOD <= TURN_NS;
            let is_missed =
                at.is_none_or(|at| at > planned + TURN_NS || !(is_in(at, before_case) || is_in(at, self.in_force)));
            let got = recorded.remove(&sequence);
            let truth = is_missed.then_some(truth);
            matrix.add(injected, truth, got.map(|miss| miss.cause));
            if let (Some(miss), true) = (got, is_missed) {
                assert!(miss.to >= miss.from, "{miss:?}");
                // What a step or a table moved may be dropped before it was to go.
                let is_moved = matches!(miss.cause, Cause::ClockStep | Cause::Remap);
                assert!(is_moved || miss.noticed >= miss.planned, "{miss:?}");
                let is_gone = matches!(miss.fate, Fate::Dropped | Fate::Replaced);
                assert_eq!(is_gone, at.is_none(), "{injected:?}: {miss:?} {at:?}");
                matrix.planned_wrong += u64::from(miss.planned.0.abs_diff(planned) > 10);
            }
        }
        assert!(recorded.is_empty(), "{injected:?}: nobody emitted {recorded:?}");
    }
}

/// What was true, and what was told.
#[derive(Default)]
struct Matrix {
    counts: BTreeMap<(Option<u8>, Option<u8>), u64>,
    of: BTreeMap<String, (u64, u64, u64)>,
    planned_wrong: u64,
}

impl Matrix {
    fn add(&mut self, injected: Injected, truth: Option<Cause>, got: Option<Cause>) {
        *self.counts.entry((truth.map(|c| c as u8), got.map(|c| c as u8))).or_default() += 1;
        let of = self.of.entry(format!("{injected:?}")).or_default();
        of.0 += u64::from(truth.is_some());
        of.1 += u64::from(truth.is_some() && truth == got);
        of.2 += u64::from(truth.is_none() && got.is_some());
    }

    fn count(&self, accept: impl Fn(Option<Cause>, Option<Cause>) -> bool) -> u64 {
        let cause = |number: &Option<u8>| number.and_then(Cause::from_number);
        self.counts.iter().filter(|((truth, got), _)| accept(cause(truth), cause(got))).map(|(_, count)| count).sum()
    }

    fn print(&self) {
        let columns: Vec<Option<Cause>> = Cause::ALL.into_iter().map(Some).chain([None]).collect();
        let name = |cause: Option<Cause>| cause.map_or("none", Cause::name);
        println!("rows: what was done; columns: what was told");
        print!("{:>17}", "");
        columns.iter().for_each(|told| print!("{:>17}", name(*told)));
        println!();
        for truth in &columns {
            if self.count(|of, _| of == *truth) == 0 {
                continue;
            }
            print!("{:>17}", name(*truth));
            columns.iter().for_each(|told| print!("{:>17}", self.count(|of, got| of == *truth && got == *told)));
            println!();
        }
        self.of.iter().for_each(|(kind, (missed, right, invented))| {
            println!("{kind}: {missed} missed, {right} told right, {invented} told that were none");
        });
    }
}

#[test]
fn causes_are_told_as_they_were_injected() {
    let mut matrix = Matrix::default();
    for (seed, policy) in
        [LatePolicy::NextSlot, LatePolicy::SendNow, LatePolicy::Drop, LatePolicy::NewestWins].into_iter().enumerate()
    {
        for injected in Injected::ALL {
            let mut world = World::new(injected, policy, 1 + seed as u64 * 100 + injected as u64);
            let cases = if injected == Injected::ClockSteps { CASES / 2 } else { CASES };
            (0..cases).for_each(|_| world.case(injected, &mut matrix));
        }
    }
    matrix.print();
    let missed = matrix.count(|truth, _| truth.is_some());
    let right = matrix.count(|truth, got| truth.is_some() && truth == got);
    let unexplained = matrix.count(|truth, got| truth.is_some() && got == Some(Cause::Unexplained));
    let wrong = matrix
        .count(|truth, got| (truth.is_some() || got.is_some()) && truth != got && got != Some(Cause::Unexplained));
    println!("{missed} missed: {right} right, {wrong} wrong or invented, {unexplained} unexplained");
    println!("{} with another slot than theirs", matrix.planned_wrong);
    assert!(missed > 3_000, "{missed}");
    for injected in Injected::ALL {
        let (missed, ..) = matrix.of[&format!("{injected:?}")];
        assert_eq!(missed > 0, injected != Injected::Nothing, "{injected:?}: {missed}");
    }
    assert!(right * 100 >= missed * 95, "at least 95 % are right");
    assert!(wrong * 100 <= missed, "1 % at most are wrong");
    assert_eq!(matrix.count(|truth, got| truth.is_none() && got.is_some()), 0, "nothing is invented");
}

/// What waited through a late wake-up is late; what is emitted afterwards is not.
#[test]
fn after_one_late_wake_a_stream_without_stamps_that_drops_is_in_time_again() {
    const SENT: u64 = 20;
    let mut world = World::new(Injected::Nothing, LatePolicy::Drop, 11);
    let first = world.slot_after(world.now() + PERIOD);
    let planned = |number: u64| first + number * PERIOD;
    // It sleeps through two slots, until the next message is early for the third.
    let (asleep, woken) = (planned(4) - 100 * US, planned(5) + PERIOD * 6 / 10);
    while world.now() < planned(SENT) {
        let (now, emit_at) = (world.now(), planned(world.emitted) - PERIOD / 2);
        if now >= emit_at {
            world.emit(planned(world.emitted), false);
            continue;
        }
        if (asleep..woken).contains(&now) {
            world.net.advance_to(MonoTime(woken.min(emit_at)));
            if world.now() == woken {
                world.host.engine.note_wake(MonoTime(woken));
            }
            continue;
        }
        world.turn();
        world.advance(emit_at.min(if now < asleep { asleep } else { u64::MAX }));
    }
    let handed = world.handed.borrow();
    let is_in_time = |number: &u64| {
        handed.get(number).is_some_and(|at| (planned(*number)..=planned(*number) + TURN_NS).contains(at))
    };
    let late: Vec<u64> = (0..SENT).filter(|number| !is_in_time(number)).collect();
    assert!(late.contains(&4) && late.iter().all(|number| (4..8).contains(number)), "{late:?}, {handed:?}");
    // Each that did not go was dropped, with a cause.
    let (gone, missed) = (SENT - handed.len() as u64, world.reader.since(0));
    assert_eq!(world.host.turn_counters.get(TurnCounter::LateDropped as usize), gone);
    let told: u64 = missed.iter().map(|(_, miss)| u64::from(miss.messages)).sum();
    assert_eq!(told, late.len() as u64, "{missed:?}");
    assert!(missed.iter().all(|(_, miss)| miss.cause == Cause::WakeLate), "{missed:?}");
}

/// A system call more for each slot is affordable, and for each turn or chunk is not.
#[test]
fn a_link_is_asked_what_has_not_left_only_right_before_a_slot_that_is_used() {
    let mut world = World::new(Injected::Nothing, LatePolicy::NextSlot, 7);
    world.trouble.asked.borrow_mut().clear();
    let mut matrix = Matrix::default();
    (0..CASES).for_each(|_| world.case(Injected::Nothing, &mut matrix));
    let messages = CASES * (PERIODS - DRAIN - 1);
    let (asked, (offset, apart)) = (world.trouble.asked.borrow(), world.in_force);
    // Best effort goes without end meanwhile: nobody is asked for that.
    for at in asked.iter() {
        let into = (at + apart + PERIOD - offset) % PERIOD;
        assert!(into <= TURN_NS || into >= PERIOD - 3 * US - TURN_NS, "asked {into} ns after a slot");
    }
    let count = asked.len() as u64;
    assert!(count >= messages / 2 && count <= 2 * messages, "{count} times for {messages} messages");
}
