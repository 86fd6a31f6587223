//! Streams with slots whose hosts are joined by two links: they have the slots of one link until
//! a boundary of the cycle, and those of the other from it on. Virtual time.

mod world;

use insane_clock::ServoConfig;
use insane_core::counters::DatapathCounter;
use insane_core::time::Clock;
use insane_core::{ChannelId, HostId, Incarnation, Lane, Nanos, PeerIndex, TaiTime};
use insane_engine::{
    Command, EngineConfig, SlotConfig, SlotLinks, SlotTable, StageSlots, TIMED_MAX, Topic, timed_flow,
};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkSetup, SendOutcome, SwapRefused};
use insane_scheduler::{LatePolicy, LinkRate, LinkTiming, Recurrence, TimedStream};
use insane_shm::port::{SinkPort, SourcePort};
use insane_sim::{Chance, Faults, SimClock, SimConfig, SimLink, SimNet, SimPeer};
use insane_sys::SharedBytes;
use insane_wire::data::{DataHeader, Kind};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use world::{Host, TOPIC, pattern};

const US: u64 = 1_000;
const PERIOD: u64 = 1_000 * US;
const TURN_NS: u64 = 10_000;
const OVERHEAD: u32 = 66;
const STREAMS: u16 = 3;
const SIZE: usize = 64;
const LANE: Lane = Lane::new(0).unwrap();
/// Between two looks of an engine; less than e_turn.
const STEP: Nanos = Nanos::from_micros(5);

/// Where the slots of each stream begin, on each link.
const OFFSETS: [[u64; STREAMS as usize]; 2] = [[100 * US, 300 * US, 600 * US], [700 * US, 200 * US, 450 * US]];

/// A message that was handed to a link.
#[derive(Clone, Copy, Debug)]
struct Handed {
    at_ns: u64,
    link: u8,
    stream: u16,
}

/// A link that notes when it was handed messages.
struct Noted {
    inner: SimLink,
    clock: SimClock,
    at: u8,
    handed: Rc<RefCell<Vec<Handed>>>,
}

impl Link for Noted {
    type Peer = SimPeer;

    fn capabilities(&self) -> LinkCapabilities {
        self.inner.capabilities()
    }

    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let outcome = self.inner.send(peer, lane, head, payload);
        let header = DataHeader::decode(head).expect("a header");
        if header.kind == Kind::Data && outcome == SendOutcome::Sent {
            let (at_ns, stream) = (self.clock.now().0, header.channel.0 as u16 - 1);
            self.handed.borrow_mut().push(Handed { at_ns, link: self.at, stream });
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

fn address(host: u8, link: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, link, host], 7400))
}

fn config() -> SlotConfig {
    let rate = LinkRate::from_bits_per_s(100_000_000).unwrap();
    let timing = LinkTiming {
        rate,
        turn_ns: TURN_NS,
        foreign_bytes: 0,
        in_flight_bytes: 4_000,
        lead_ns: 0,
        step_ns: 1_000 * US,
    };
    SlotConfig { timing, overhead_bytes: OVERHEAD, servo: ServoConfig::default(), asked_links: 0 }
}

/// What a stream has on a link.
fn stream(number: u16, link: usize) -> TimedStream {
    let bytes = config().message_bytes(SIZE as u32, 1_400, 1);
    let length = 2 * TURN_NS + config().timing.rate.duration_ns(bytes.into());
    TimedStream {
        flow: timed_flow(number),
        slots: Recurrence::new(PERIOD, OFFSETS[link][usize::from(number)], length).unwrap(),
        bytes,
        early_ns: PERIOD / 2,
        deadline_ns: PERIOD,
        late: LatePolicy::NextSlot,
    }
}

/// One host that sends in slots, and one that listens.
struct Pair {
    net: SimNet,
    sender: Host<Noted>,
    receiver: Host<Noted>,
    handed: Rc<RefCell<Vec<Handed>>>,
    talks: Vec<(SourcePort, SinkPort)>,
    emitted: Vec<u64>,
    lost: u64,
    taken: Vec<u64>,
    tables: u32,
    links: [Option<u8>; STREAMS as usize],
    emit_at: u64,
}

fn topic(number: u16) -> Topic {
    Topic { channel: ChannelId(1 + u32::from(number)), ..TOPIC }
}

impl Pair {
    fn new(seed: u64, faults: [Faults; 2]) -> Pair {
        let net = SimNet::new(seed, SimConfig::default());
        let handed = Rc::new(RefCell::new(Vec::new()));
        let host = |own: u8, slots: Option<SlotConfig>| {
            let links = [0, 1].map(|at| {
                let inner = net.setup(address(own, at)).open(&[Some(address(3 - own, at))]).expect("a free address");
                Noted { inner, clock: net.clock(), at, handed: Rc::clone(&handed) }
            });
            let engine = EngineConfig { slots, ..EngineConfig::new(HostId(own.into()), Incarnation(1)) };
            Host::with_links(engine, links.into(), net.clock(), 1, &[(2048, 64)], None)
        };
        let (mut sender, mut receiver) = (host(1, Some(config())), host(2, None));
        for (at, faults) in faults.into_iter().enumerate() {
            net.set_faults(address(1, at as u8), address(2, at as u8), faults);
        }
        let talk = |number: u16| {
            sender.slots = Some(number);
            let source = sender.source(topic(number), LANE, &[]);
            sender.route(topic(number), &[0], false);
            (source, receiver.sink(topic(number)).0)
        };
        let talks = (0..STREAMS).map(talk).collect();
        let count = usize::from(STREAMS);
        let (emitted, taken) = (vec![0; count], vec![0; count]);
        let mut pair = Pair {
            net,
            sender,
            receiver,
            handed,
            talks,
            emitted,
            lost: 0,
            taken,
            tables: 0,
            links: [None; 3],
            emit_at: 0,
        };
        pair.stage([Some(0); STREAMS as usize]);
        pair
    }

    /// Each stream is to have its slots on this link; `None`: it is to go by the second link
    /// without any.
    fn stage(&mut self, links: [Option<u8>; STREAMS as usize]) {
        self.tables += 1;
        self.links = links;
        let with_slots = (0..STREAMS).zip(links).filter_map(|(number, link)| Some(stream(number, link?.into())));
        let streams: Vec<TimedStream> = with_slots.collect();
        let mut table = Box::new(SlotTable::new(config().timing));
        table.fill(TaiTime(0), &streams).unwrap();
        let mut by: Box<SlotLinks> = Box::new([None; TIMED_MAX]);
        // The first one is that by which the peer is reached anyway.
        by.iter_mut().zip(links).for_each(|(by, link)| *by = Some(link.unwrap_or(1)).filter(|link| *link != 0));
        let (cycle_ns, number) = (if streams.is_empty() { 0 } else { PERIOD }, self.tables);
        let stage = StageSlots {
            table,
            streams: streams.len(),
            cycle_ns,
            at: None,
            gates: None,
            links: by,
            arrivals: Box::default(),
            number,
        };
        let staged = self.sender.command(Command::StageSlots(stage));
        assert!(matches!(staged, Command::SlotsStaged(_, Ok(()))), "{staged:?}");
    }

    /// The instant of the slots' own time.
    fn slot_time(&self, at: u64) -> u64 {
        at.wrapping_add(self.sender.port.slot_offset())
    }

    fn is_in_force(&self) -> bool {
        self.sender.port.slot_table() == self.tables
    }

    /// One message a period and stream, and what came, in order and once.
    fn step(&mut self) {
        let now = self.net.clock().now().0;
        if now >= self.emit_at {
            self.emit_at = now + PERIOD;
            for ((source, _), emitted) in self.talks.iter().zip(&mut self.emitted) {
                assert!(
                    source.emit_copy(&pattern(*emitted, SIZE), now).is_some_and(|emit| emit.is_sent()),
                    "the ring has room"
                );
                *emitted += 1;
            }
        }
        self.sender.engine.turn();
        self.receiver.engine.turn();
        for ((_, sink), taken) in self.talks.iter().zip(&mut self.taken) {
            while let Some(message) = sink.consume().unwrap() {
                let sequence = message.sequence();
                assert!(sequence >= *taken, "{sequence} came twice or late, {taken} was next");
                assert_eq!(u64::from(message.lost()), sequence - *taken, "a gap that is not told");
                assert_eq!(message.bytes(), Some(&pattern(sequence, SIZE)[..]));
                self.lost += sequence - *taken;
                *taken = sequence + 1;
            }
        }
        self.net.advance(STEP);
    }

    fn run(&mut self, time: Nanos) {
        let until = self.net.clock().now() + time;
        while self.net.clock().now() < until {
            self.step();
        }
    }

    /// What was emitted comes, all of it.
    fn settle(&mut self) {
        self.emit_at = u64::MAX;
        self.run(Nanos::from_millis(60));
        assert_eq!(self.emitted, self.taken);
    }

    /// Runs until the last table is in force; the boundary by the slots' time.
    fn boundary(&mut self) -> u64 {
        self.handed.borrow_mut().clear();
        let start = self.net.clock().now();
        while !self.is_in_force() {
            self.step();
            assert!(self.net.clock().now().since(start) < Nanos::from_millis(20), "it takes over");
        }
        let now = self.slot_time(self.net.clock().now().0);
        // The engine looks at most a step late; a table without slots has no cycle.
        if self.links.iter().all(Option::is_none) { now - STEP.0 } else { now / PERIOD * PERIOD }
    }

    /// All that was handed over lies in the slots of these links.
    fn is_kept(&self, before: [Option<u8>; STREAMS as usize], after: [Option<u8>; STREAMS as usize], boundary: u64) {
        for frame in self.handed.borrow().iter() {
            let at = self.slot_time(frame.at_ns);
            let links = if at < boundary { before } else { after };
            let Some(link) = links[usize::from(frame.stream)] else {
                assert_eq!(frame.link, 1, "{frame:?} at {at}, boundary {boundary}");
                continue;
            };
            assert_eq!(frame.link, link, "{frame:?} at {at}, boundary {boundary}");
            let slots = stream(frame.stream, link.into()).slots;
            let into = at.wrapping_sub(slots.offset_ns()) % PERIOD;
            assert!(into < slots.length_ns(), "{frame:?} is {into} ns into its period's slot");
        }
    }
}

fn ordered(delay_us: u64, jitter_us: u64) -> Faults {
    Faults { delay: Nanos::from_micros(delay_us), jitter: Nanos::from_micros(jitter_us), ..Faults::NONE }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn a_stream_has_the_slots_of_one_link_until_a_boundary_and_those_of_the_other_from_it_on() {
    // What goes by the first link comes up to 5 ms after what went by the second one.
    let mut pair = Pair::new(1, [ordered(5_000, 300), ordered(30, 10)]);
    pair.run(Nanos::from_millis(30));
    let mut random = Random(7);
    let (mut before, mut per_link) = ([Some(0); 3], [0_usize; 2]);
    for _ in 0..200 {
        let after = std::array::from_fn(|_| Some(random.below(2) as u8));
        pair.stage(after);
        let boundary = pair.boundary();
        pair.run(Nanos::from_micros(6_000 + random.below(3_000)));
        pair.is_kept(before, after, boundary);
        for frame in pair.handed.borrow().iter() {
            per_link[usize::from(frame.link)] += 1;
        }
        before = after;
    }
    pair.settle();
    assert!(pair.emitted.iter().all(|emitted| *emitted > 1_000), "{:?}", pair.emitted);
    assert_eq!(pair.lost, 0);
    assert!(per_link.iter().all(|frames| *frames > 500), "{per_link:?}");
    let counted = [DatapathCounter::DroppedLate, DatapathCounter::DroppedDuplicate, DatapathCounter::HoldsEnded];
    assert_eq!(counted.map(|counter| pair.receiver.count(counter)), [0; 3]);
    assert!(pair.receiver.count(DatapathCounter::HeldBack) > 0, "the links differ by more than a period");
}

#[test]
fn a_stream_whose_link_dies_loses_what_was_sent_there_and_nothing_else() {
    let mut pair = Pair::new(2, [ordered(20, 0), ordered(20, 0)]);
    pair.run(Nanos::from_millis(30));
    let dead = Faults { loss: Chance::ALWAYS, ..Faults::NONE };
    pair.net.set_faults(address(1, 0), address(2, 0), dead);
    pair.run(Nanos::from_millis(10));
    pair.stage([Some(1); 3]);
    let _ = pair.boundary();
    pair.settle();
    // One a period and stream until it was left.
    assert!((30..=36).contains(&pair.lost), "{}", pair.lost);
}

#[test]
fn one_that_is_to_have_no_slots_goes_by_the_other_link_from_the_boundary_on_and_returns() {
    let mut pair = Pair::new(3, [ordered(500, 100), ordered(20, 10)]);
    pair.run(Nanos::from_millis(30));
    let mut before = [Some(0); 3];
    for after in [[None, Some(0), Some(0)], [Some(0); 3], [None; 3], [Some(1), Some(0), Some(0)]] {
        pair.stage(after);
        let boundary = pair.boundary();
        pair.run(Nanos::from_millis(10));
        pair.is_kept(before, after, boundary);
        before = after;
    }
    pair.settle();
    assert_eq!(pair.lost, 0);
    assert_eq!(pair.receiver.count(DatapathCounter::DroppedLate), 0);
}

#[test]
fn a_source_that_comes_later_goes_by_the_link_of_its_slots_at_once() {
    let mut pair = Pair::new(4, [ordered(20, 0), ordered(20, 0)]);
    pair.stage([Some(1); 3]);
    let _ = pair.boundary();
    pair.settle();
    let late = Topic { channel: ChannelId(9), ..TOPIC };
    // The one that had the number leaves, and another takes it.
    pair.sender.slots = Some(0);
    let old = insane_core::ConnId(1);
    assert!(matches!(pair.sender.command(Command::RemoveSource(old)), Command::Removed { dead: Some(_), .. }));
    let source = pair.sender.source(late, LANE, &[]);
    pair.sender.route(late, &[0], false);
    let sink = pair.receiver.sink(late).0;
    pair.handed.borrow_mut().clear();
    assert!(source.emit_copy(b"late", 0).is_some_and(|emit| emit.is_sent()));
    pair.run(Nanos::from_millis(3));
    assert_eq!(sink.consume().unwrap().expect("it came").bytes(), Some(&b"late"[..]));
    let by: Vec<u8> = pair.handed.borrow().iter().filter(|frame| frame.stream == 8).map(|frame| frame.link).collect();
    assert_eq!(by, [1]);
}
