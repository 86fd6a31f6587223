//! Two engines in virtual time that send in slots, over a wire of 100 Mbit/s that is modelled here,
//! with clocks that drift, beside best effort that never ends; and what the wire saw.

use crate::world::{Host, TOPIC, address};
use insane_clock::{AfterHoldover, ServoConfig};
use insane_core::counters::TurnCounter;
use insane_core::time::{Clock, PairedRead};
use insane_core::{HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, TaiTime};
use insane_engine::{
    Command, EngineConfig, LaneArrivals, SlotConfig, SlotTable, StageSlots, TIMED_MAX, Topic, timed_flow,
};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkSetup, SendOutcome, SwapRefused};
use insane_scheduler::{Gates, LatePolicy, LinkRate, LinkTiming, Recurrence, TimedStream};
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{SimClock, SimConfig, SimLink, SimNet, SimPeer};
use insane_sys::SharedBytes;
use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;
use std::rc::Rc;

pub const US: u64 = 1_000;
pub const MS: u64 = 1_000_000;
pub const PERIOD: u64 = MS;
/// What a frame has on the wire around it: UDP, IPv4, Ethernet, preamble, check, gap.
pub const OVERHEAD: u32 = 8 + 20 + 14 + 4 + 8 + 12;
/// The wire: 100 Mbit/s.
pub const WIRE_NS_PER_BYTE: u64 = 80;
/// e_turn; a simulated host looks at most so late.
pub const TURN_NS: u64 = 4_000;
/// How far a servo that reads every 10 ms may be off at 100 ppm, twice that for what is under
/// way, and a nanosecond for each rounding.
pub const CLOCK_NS: u64 = 2_500;
/// Of a message in a slot.
pub const SIZE: usize = 64;
pub const BULK: Topic = Topic { channel: insane_core::ChannelId(9), ..TOPIC };

/// A frame that was handed to a link.
#[derive(Clone, Copy, Debug)]
pub struct Handed {
    pub at_ns: u64,
    pub bytes: u64,
    pub lane: Lane,
}

/// A link that notes what it is handed, and when by true time.
pub struct WireLink {
    pub inner: SimLink,
    pub base: SimClock,
    pub local: SimClock,
    /// It holds frames back until their launch times.
    pub launches: bool,
    /// It takes nothing of real time.
    pub is_full: Rc<Cell<bool>>,
    pub handed: Rc<RefCell<Vec<Handed>>>,
}

impl Link for WireLink {
    type Peer = SimPeer;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities { launch_time: self.launches, ..self.inner.capabilities() }
    }

    fn send_at(
        &mut self,
        peer: PeerIndex,
        lane: Lane,
        head: &[u8],
        payload: SharedBytes<'_>,
        launch: MonoTime,
    ) -> SendOutcome {
        let bytes = (head.len() + payload.len()) as u64 + u64::from(OVERHEAD);
        let ahead = launch.since(self.local.now());
        assert!(self.launches && ahead > Nanos::ZERO, "a frame that is not ahead has no launch time");
        let at_ns = self.base.now().0 + ahead.0;
        let last = self.handed.borrow().iter().filter(|frame| frame.lane.is_real_time()).map(|frame| frame.at_ns).max();
        assert!(last.is_none_or(|last| last <= at_ns), "in the order of their launch times");
        let outcome = self.inner.send(peer, lane, head, payload);
        if outcome == SendOutcome::Sent {
            self.handed.borrow_mut().push(Handed { at_ns, bytes, lane });
        }
        outcome
    }

    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        if self.is_full.get() && lane.is_real_time() {
            return SendOutcome::Busy;
        }
        let bytes = (head.len() + payload.len()) as u64 + u64::from(OVERHEAD);
        let outcome = self.inner.send(peer, lane, head, payload);
        if outcome == SendOutcome::Sent {
            self.handed.borrow_mut().push(Handed { at_ns: self.base.now().0, bytes, lane });
        }
        outcome
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

/// A host's monotonic clock, which drifts, and TAI, which is true.
#[derive(Clone)]
pub struct HostClock {
    pub local: SimClock,
    pub base: SimClock,
    /// TAI less the time of the net; it may step.
    pub apart_ns: Rc<RefCell<u64>>,
    pub is_synchronised: Rc<Cell<bool>>,
}

impl Clock for HostClock {
    fn now(&self) -> MonoTime {
        self.local.now()
    }

    fn pair(&self) -> Option<PairedRead> {
        let (now, tai) = (self.local.now(), TaiTime(self.base.now().0 + *self.apart_ns.borrow()));
        let is_synchronised = self.is_synchronised.get();
        Some(PairedRead { before: now, tai, after: now, has_offset: true, is_synchronised })
    }
}

/// Where an engine sends in slots.
pub struct Talker {
    pub host: Host<WireLink, HostClock>,
    pub local: SimClock,
    pub is_full: Rc<Cell<bool>>,
    /// Somebody disciplines its kernel's clock.
    pub is_synchronised: Rc<Cell<bool>>,
    pub handed: Rc<RefCell<Vec<Handed>>>,
    pub timed: SourcePort,
    pub bulk: SourcePort,
    pub sink: SinkPort,
    pub offset_ns: u64,
    pub emitted: u64,
    pub taken: u64,
    pub emit_at: u64,
    /// Messages and counters when the clocks were locked.
    pub before: (u64, Vec<u64>),
}

/// How a world differs from the good one.
#[derive(Clone, Copy)]
pub struct Setting {
    /// What the engine is told of the rate.
    pub bits_per_s: u64,
    /// The stream has slots, and not only a real-time lane.
    pub has_slots: bool,
    /// The kernel's clock is disciplined.
    pub is_synchronised: bool,
    pub late: LatePolicy,
    /// Every how many messages one comes after its slot.
    pub late_every: Option<u64>,
    /// How far ahead slots are handed over, to a link with launch times.
    pub lead_ns: u64,
    /// How late a host may look.
    pub sleeps_ns: u64,
    /// How much of the lanes may be handed over at a time.
    pub in_flight_bytes: u32,
    /// What others may have on the wire at a time.
    pub foreign_bytes: u32,
    /// What slots do without discipline.
    pub after_holdover: AfterHoldover,
}

pub const GOOD: Setting = Setting {
    bits_per_s: 100_000_000,
    has_slots: true,
    is_synchronised: true,
    late: LatePolicy::NextSlot,
    late_every: None,
    lead_ns: 0,
    // Two thirds of e_turn.
    sleeps_ns: TURN_NS * 2 / 3,
    in_flight_bytes: 4_000,
    foreign_bytes: 0,
    after_holdover: AfterHoldover::FreeRun,
};

pub fn config(setting: Setting) -> SlotConfig {
    let rate = LinkRate::from_bits_per_s(setting.bits_per_s).unwrap();
    let step_ns = MS;
    let Setting { lead_ns, in_flight_bytes, foreign_bytes, after_holdover, .. } = setting;
    let timing = LinkTiming { rate, turn_ns: TURN_NS, foreign_bytes, in_flight_bytes, lead_ns, step_ns };
    let servo = ServoConfig { after: after_holdover, holdover: Nanos::from_millis(100), ..ServoConfig::default() };
    SlotConfig { timing, overhead_bytes: OVERHEAD, servo, asked_links: 0 }
}

pub fn slot_ns(config: &SlotConfig) -> u64 {
    // Two looks late, the message, and what it may have to wait for on its own.
    let bytes = config.message_bytes(SIZE as u32, 1_400, 1);
    2 * TURN_NS + u64::from(bytes + config.timing.foreign_bytes) * WIRE_NS_PER_BYTE
}

pub fn stream_at(offset_ns: u64, setting: Setting) -> TimedStream {
    let slots = config(setting);
    TimedStream {
        flow: timed_flow(0),
        slots: Recurrence::new(PERIOD, offset_ns, slot_ns(&slots)).unwrap(),
        bytes: slots.message_bytes(SIZE as u32, 1_400, 1),
        early_ns: PERIOD * 3 / 4,
        deadline_ns: 400 * US,
        late: setting.late,
    }
}

pub fn talker(net: &SimNet, own: u8, peer: u8, drift_ppb: i64, offset_ns: u64, setting: Setting) -> Talker {
    let handed = Rc::new(RefCell::new(Vec::new()));
    let inner = net.setup(address(own)).open(&[Some(address(peer))]).unwrap();
    let local = net.clock().skewed(Nanos(u64::from(own) * 777_777), drift_ppb);
    let launches = setting.lead_ns > 0;
    let is_full = Rc::new(Cell::new(false));
    let link = WireLink {
        inner,
        base: net.clock(),
        local: local.clone(),
        launches,
        is_full: Rc::clone(&is_full),
        handed: Rc::clone(&handed),
    };
    let apart_ns = Rc::new(RefCell::new(1_790_000_000 * 1_000 * MS));
    let is_synchronised = Rc::new(Cell::new(setting.is_synchronised));
    let clock =
        HostClock { local: local.clone(), base: net.clock(), apart_ns, is_synchronised: Rc::clone(&is_synchronised) };
    let slots = config(setting);
    let engine = EngineConfig { slots: Some(slots), ..EngineConfig::new(HostId(own.into()), Incarnation(1)) };
    let mut host = Host::of(engine, link, clock, 1, &[(2048, 64)], None);
    stage(&mut host, &slots, &[stream_at(offset_ns, setting)], PERIOD);
    host.slots = setting.has_slots.then_some(0);
    let timed = host.source(TOPIC, Lane::new(0).unwrap(), &[]);
    host.slots = None;
    let bulk = host.source(BULK, Lane::LAST, &[(1_300, 64)]);
    let (sink, _) = host.sink(TOPIC);
    host.route(TOPIC, &[0], false);
    host.route(BULK, &[0], false);
    Talker {
        host,
        local,
        is_full,
        is_synchronised,
        handed,
        timed,
        bulk,
        sink,
        offset_ns,
        emitted: 0,
        taken: 0,
        emit_at: 0,
        before: (0, Vec::new()),
    }
}

pub fn stage(host: &mut Host<WireLink, HostClock>, config: &SlotConfig, streams: &[TimedStream], cycle_ns: u64) {
    stage_at(host, config, streams, cycle_ns, None);
}

pub fn stage_at(
    host: &mut Host<WireLink, HostClock>,
    config: &SlotConfig,
    streams: &[TimedStream],
    cycle_ns: u64,
    at: Option<MonoTime>,
) {
    stage_with(host, config, (streams, None, LaneArrivals::default()), cycle_ns, at);
}

pub fn stage_with(
    host: &mut Host<WireLink, HostClock>,
    config: &SlotConfig,
    (streams, gates, arrivals): (&[TimedStream], Option<Gates>, LaneArrivals),
    cycle_ns: u64,
    at: Option<MonoTime>,
) {
    let mut table = Box::new(SlotTable::new(config.timing));
    table.fill(TaiTime(0), streams).unwrap();
    let gates = gates.map(Box::new);
    let links = Box::new([None; TIMED_MAX]);
    let arrivals = Box::new(arrivals);
    let stage = StageSlots { table, streams: streams.len(), cycle_ns, at, gates, links, arrivals, number: 1 };
    let staged = host.command(Command::StageSlots(stage));
    assert!(matches!(staged, Command::SlotsStaged(_, Ok(()))), "{staged:?}");
}

impl Talker {
    pub fn count(&self, counter: TurnCounter) -> u64 {
        self.host.turn_counters.get(counter as usize)
    }

    pub fn remember(&mut self) {
        self.before = (self.emitted, TurnCounter::ALL.iter().map(|counter| self.count(*counter)).collect());
    }

    /// Counted since the clocks were locked.
    pub fn since(&self, counter: TurnCounter) -> u64 {
        self.count(counter) - self.before.1[counter as usize]
    }

    /// Bulk without end, one message a period, and turns until nothing moves.
    pub fn act(&mut self, now: u64, setting: Setting) {
        while let Ok(buffer) = self.bulk.get_buffer(1_300) {
            if !self.bulk.emit(buffer, 0).is_sent() {
                break;
            }
        }
        if now >= self.emit_at {
            let mut bytes = [0; SIZE];
            bytes[..8].copy_from_slice(&self.emitted.to_le_bytes());
            assert!(self.timed.emit_copy(&bytes, 0).is_some_and(|emit| emit.is_sent()));
            self.emitted += 1;
            // Half a period before its slot; or, where it is late, after the next one.
            let period = (now + PERIOD).wrapping_sub(self.offset_ns) / PERIOD;
            let is_late = setting.late_every.is_some_and(|every| self.emitted.is_multiple_of(every));
            let lead = if is_late { 0 } else { PERIOD / 2 };
            let slack = if is_late { slot_ns(&config(setting)) + 60 * US } else { 0 };
            self.emit_at = (period + 1) * PERIOD + self.offset_ns - lead + slack;
        }
        for _ in 0..64 {
            if !self.host.engine.turn() {
                break;
            }
        }
        while let Some(message) = self.sink.consume().unwrap() {
            assert!(message.sequence() >= self.taken, "in order");
            assert!(setting.late == LatePolicy::Drop || message.lost() == 0, "none lost");
            self.taken = message.sequence() + 1;
        }
    }

    /// A message a period, at its instant and without bulk, and turns until nothing moves.
    pub fn act_alone(&mut self, now: u64) {
        if now >= self.emit_at {
            assert!(self.timed.emit_copy(&[0; SIZE], 0).is_some_and(|emit| emit.is_sent()));
            (self.emitted, self.emit_at) = (self.emitted + 1, self.emit_at + PERIOD);
        }
        while self.host.engine.turn() {}
    }

    /// The next instant of true time at which it has something to do.
    pub fn next(&self, now: u64) -> u64 {
        let due = self.host.engine.slot_due().map_or(u64::MAX, |due| match due.since(self.local.now()) {
            Nanos(u64::MAX) => u64::MAX,
            left => now.saturating_add(left.0 + 1),
        });
        due.min(self.emit_at)
    }
}

/// What the wire says.
#[derive(Debug, PartialEq)]
pub struct Seen {
    pub timed: u64,
    pub outside: u64,
    pub bulk_share_percent: u64,
}

/// The wire is first in, first out, at its own rate. Knows nothing of the scheduler.
pub fn look_at_wire(handed: &[Handed], offset_ns: u64, length_ns: u64, tolerance_ns: u64) -> Seen {
    // What was handed over ahead leaves when it is launched.
    let mut handed = handed.to_vec();
    handed.sort_by_key(|frame| frame.at_ns);
    let handed = &handed[..];
    let (mut free_at, mut timed, mut outside, mut bulk) = (0, 0, 0, 0);
    for frame in handed {
        let begin = frame.at_ns.max(free_at);
        free_at = begin + frame.bytes * WIRE_NS_PER_BYTE;
        if !frame.lane.is_real_time() {
            bulk += frame.bytes;
            continue;
        }
        timed += 1;
        // The instant zero of the net is a multiple of the period in TAI.
        let into = (begin + tolerance_ns).wrapping_sub(offset_ns) % PERIOD;
        let ends = into + (free_at - begin);
        outside += u64::from(into > length_ns + tolerance_ns || ends > length_ns + 2 * tolerance_ns);
    }
    let whole = handed.last().map_or(1, |last| last.at_ns - handed[0].at_ns);
    Seen { timed, outside, bulk_share_percent: bulk * WIRE_NS_PER_BYTE * 100 / whole }
}

/// Runs two talkers for so many milliseconds; the first 200 are for the clocks to lock, and
/// are not looked at.
pub fn run(setting: Setting, milliseconds: u64) -> [(Seen, Talker); 2] {
    run_beside(setting, milliseconds, |_| ())
}

/// As [`run`], with somebody who looks at the first talker each time.
pub fn run_beside(setting: Setting, milliseconds: u64, mut beside: impl FnMut(&mut Talker)) -> [(Seen, Talker); 2] {
    let net = SimNet::new(7, SimConfig { frames_max: 8_192, ..SimConfig::default() });
    let mut a = talker(&net, 1, 2, 80_000, 300 * US, setting);
    let mut b = talker(&net, 2, 1, -60_000, 650 * US, setting);
    let start = net.clock().now().0;
    (a.emit_at, b.emit_at) = (start + 10 * US, start + 10 * US);
    let mut late = 1_u64;
    loop {
        let now = net.clock().now().0;
        if now >= start + milliseconds * MS {
            break;
        }
        a.act(now, setting);
        b.act(now, setting);
        beside(&mut a);
        if now < start + 200 * MS {
            a.handed.borrow_mut().clear();
            b.handed.borrow_mut().clear();
            a.remember();
            b.remember();
        }
        // A host looks a little late.
        late = late.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let next = a.next(now).min(b.next(now)).clamp(now + 200, now + 50 * US);
        net.advance(Nanos(next - now + (late >> 33) % setting.sleeps_ns));
    }
    let length = slot_ns(&config(GOOD));
    [a, b].map(|talker| {
        let seen = look_at_wire(&talker.handed.borrow(), talker.offset_ns, length, CLOCK_NS);
        (seen, talker)
    })
}
