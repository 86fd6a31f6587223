//! A fleet: a few hosts with whole engines, rings and heaps, and membership, over a simulated
//! network that loses, delays, repeats, reorders and parts.
//!
//! A million messages go through it, and all are accounted for. Streams of domain 0 have
//! messages of one frame, those of domain 1 are fragmented. At the end, when nothing is under
//! way:
//!
//! 1. each sink: messages consumed + told as lost = messages emitted;
//! 2. each host and domain: told as lost by its sinks = `lost` + `dropped_ring_full` +
//!    `dropped_no_buffer` of whole messages;
//! 3. each host, domain 0: `messages_from_sources` + dropped by the sources = emitted, and
//!    `frames_sent` + `frames_failed` = the sum of the peers each message was meant for;
//!    `dropped_no_peer` = the messages meant for none;
//! 4. each host: frames of the network = `frames_sent` of both domains + overlay frames;
//! 5. each direction: sent + duplicated = delivered + lost;
//! 6. each host: frames delivered by the network = `frames_received` of both domains +
//!    `overlay_frames` + `overlay_frames_dropped` + `frames_malformed` + `frames_unknown_peer`
//!    + `frames_other_life` + `frames_no_listener`;
//! 7. each host, domain 0: `frames_received` = `messages_to_sinks` + `dropped_ring_full` +
//!    `dropped_no_buffer` + `dropped_duplicate` + `dropped_late` + `dropped_no_flow` +
//!    `dropped_no_sink`.
//!
//! Together, for domain 0: emitted = delivered + every drop, each counted where it happened.
//! Fragments are not followed one by one: for domain 1 the rules 1, 2, 4, 5 and 6 hold.

mod host;

pub use host::{DEPTH, Host};

use crate::ledger::{Delivery, Ledger, PAYLOAD_BYTES_MIN, Rule, Violation};
use crate::plan::{Plan, StreamPlan};
use crate::random::Random;
use crate::trace::Trace;
use insane_core::counters::{DatapathCounter as Count, TurnCounter};
use insane_core::time::Clock;
use insane_core::{ChannelId, HostId, Incarnation, MonoTime, Nanos, stream_check, stream_key};
use insane_engine::Topic;
use insane_link::LinkSetup;
use insane_overlay::flow::FlowKey;
use insane_sim::{Chance, Faults, SimConfig, SimNet};
use insane_wire::overlay::Interest;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// Length of a step.
const STEP: Nanos = Nanos::from_micros(40);
/// Turns of each engine in a step.
const TURNS: usize = 2;
/// Every how many steps the control planes run.
const CONTROL_STRIDE: u64 = 25;
/// Streams of each host: in domain 0, and in domain 1.
const SMALL: usize = 3;
const LARGE: usize = 1;
/// Frames under way, at most: never reached, so that no frame is refused.
const FRAMES_MAX: u32 = 16_384;
/// One message in so many is of domain 1.
const LARGE_ONE_IN: u64 = 24;
/// Longest time, in steps, for which a sink takes nothing: long enough to fill its ring.
const LAZY_STEPS_MAX: u64 = 3_000;
/// A fair network.
const FAIR: Faults = Faults { delay: Nanos::from_micros(80), ..Faults::NONE };

/// What a fleet is made of.
#[derive(Clone, Copy, Debug)]
pub struct FleetConfig {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Hosts, 2 to 32.
    pub hosts: usize,
    /// Messages emitted.
    pub messages: u64,
    /// Whether the streams are reliable: then rules 3, 4, 6 and 7 are not looked at, since
    /// repairs and reports are frames, too.
    pub reliable: bool,
    /// Something wrong on purpose: one frame is sent beside the engines.
    pub stray: bool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was broken.
    pub violations: Vec<Violation>,
    /// What happened around the first of it.
    pub trace: Vec<String>,
    /// How often each rule was looked at.
    pub checks: Vec<(Rule, u64)>,
    /// Messages emitted, and consumed by sinks.
    pub totals: (u64, u64),
    /// Every counter of domain 0 and of domain 1, all hosts together.
    pub counters: [BTreeMap<&'static str, u64>; 2],
    /// Frames that the network lost, and duplicated.
    pub network: (u64, u64),
    /// Peers that went down.
    pub downs: u64,
    /// Emits refused by reliable sources, or without a free buffer.
    pub refused: u64,
}

/// What one sink got.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    consumed: u64,
    told: u64,
    next: u64,
}

struct Fleet {
    config: FleetConfig,
    plan: Plan,
    ledger: Ledger,
    trace: Trace,
    random: Random,
    net: SimNet,
    hosts: Vec<Host>,
    domain_of: BTreeMap<Topic, usize>,
    steps: u64,
    read: BTreeMap<(usize, usize), Read>,
    emitted: Vec<u64>,
    /// Of each host, domain 0: frames and messages without a peer that should be counted.
    expected: Vec<(u64, u64)>,
    /// Sinks that take nothing until this step.
    lazy: BTreeMap<(usize, usize), u64>,
    refused: u64,
}

fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([10, 1, 0, host as u8 + 1], 7400))
}

/// Runs one; with `aloud` it prints what it does.
///
/// # Panics
/// With fewer than 2 or more than 32 hosts.
#[must_use]
pub fn run(config: FleetConfig, aloud: bool) -> Outcome {
    let mut fleet = Fleet::new(config);
    fleet.trace.aloud = aloud;
    fleet.settle(Nanos::from_millis(300));
    // Without faults, so that every sink knows where each source began.
    fleet.emit_each();
    fleet.settle(Nanos::from_millis(50));
    fleet.storm();
    fleet.calm();
    fleet.check_accounts();
    fleet.outcome()
}

impl Fleet {
    fn new(config: FleetConfig) -> Self {
        assert!((2..=32).contains(&config.hosts), "a fleet has 2 to 32 hosts");
        let mut random = Random::new(config.seed ^ 0xf1ee7);
        let plan = plan(&mut random, config.hosts);
        let net_config = SimConfig { frames_max: FRAMES_MAX, faults: FAIR, ..SimConfig::default() };
        let net = SimNet::new(random.next(), net_config);
        let hosts = (0..config.hosts).map(|host| {
            let peers: Vec<_> =
                (0..config.hosts).filter(|peer| *peer != host).map(|peer| Some(address(peer))).collect();
            let link = net.setup(address(host)).open(&peers).unwrap_or_else(|error| panic!("{error}"));
            Host::new(HostId(host as u64 + 1), Incarnation(1), link, peers.len(), net.clock())
        });
        let mut fleet = Fleet {
            hosts: hosts.collect(),
            ledger: Ledger::new(&plan),
            trace: Trace::new(),
            domain_of: plan.streams.iter().map(|stream| (stream.topic, stream.domain)).collect(),
            steps: 0,
            read: BTreeMap::new(),
            emitted: vec![0; plan.streams.len()],
            expected: vec![(0, 0); config.hosts],
            lazy: BTreeMap::new(),
            refused: 0,
            plan,
            random,
            net,
            config,
        };
        fleet.open_all();
        fleet
    }

    fn open_all(&mut self) {
        for (number, stream) in self.plan.streams.iter().enumerate() {
            self.hosts[stream.source].open_source(number, stream.topic, stream.domain, self.config.reliable);
            for sink in &stream.sinks {
                let host = &mut self.hosts[*sink];
                host.open_sink(number, stream.topic, stream.domain);
                let (stream, check, channel) = (stream.topic.key, stream.check, stream.topic.channel);
                let interest = Interest { stream, check, channel, schema: None, joins: 0 };
                host.membership.set_interest(interest, true).unwrap_or_else(|error| panic!("{error}"));
                self.ledger.sink(*sink, self.plan.streams[number].topic, true);
                self.read.insert((*sink, number), Read::default());
            }
        }
    }

    fn now(&self) -> MonoTime {
        self.net.clock().now()
    }

    fn step(&mut self) {
        self.net.advance(STEP);
        self.steps += 1;
        for host in &mut self.hosts {
            for _ in 0..TURNS {
                host.engine.turn();
            }
        }
        if self.steps.is_multiple_of(CONTROL_STRIDE) {
            for host in &mut self.hosts {
                host.control(&self.domain_of);
            }
        }
        self.consume_all();
    }

    fn settle(&mut self, span: Nanos) {
        let end = self.now() + span;
        while self.now() < end {
            self.step();
        }
    }

    fn consume_all(&mut self) {
        let now = self.now();
        for place in 0..self.hosts.len() {
            for (number, sink) in &self.hosts[place].sinks {
                if self.lazy.get(&(place, *number)).is_some_and(|until| *until > self.steps) {
                    continue;
                }
                let stream = &self.plan.streams[*number];
                let source = self.hosts[stream.source].sources[number].id;
                let key = FlowKey {
                    host: HostId(stream.source as u64 + 1),
                    incarnation: Incarnation(1),
                    source,
                    stream: stream.topic.key,
                };
                let Some(read) = self.read.get_mut(&(place, *number)) else { continue };
                while let Some(message) = sink.consume().unwrap_or_else(|error| panic!("{error:?}")) {
                    let (sequence, told) = (message.sequence(), u64::from(message.lost()));
                    let exact = sequence == read.next + told;
                    read.consumed += 1;
                    read.told += told;
                    let wanted = std::mem::replace(&mut read.next, sequence + 1);
                    self.ledger.judge(Rule::Accounts, now, Some(place), exact, || {
                        format!("{} of {}: wanted {wanted}, told of {told} lost", sequence, stream.name)
                    });
                    let payload = message.bytes().map(<[u8]>::to_vec).unwrap_or_default();
                    let delivery = Delivery { key, topic: stream.topic, sequence, payload };
                    self.trace.deliver(now, place, &delivery);
                    self.ledger.deliver(now, place, 1, &delivery);
                }
            }
        }
    }

    fn emit(&mut self, number: usize) {
        let stream = &self.plan.streams[number];
        let len = match stream.domain {
            0 if self.random.permille(800) => PAYLOAD_BYTES_MIN + self.random.place(80),
            0 => PAYLOAD_BYTES_MIN + self.random.place(1_392),
            _ => 1_409 + self.random.place(16_000),
        };
        let host = &self.hosts[stream.source];
        let source = &host.sources[&number];
        let Ok(mut buffer) = source.port.get_buffer(len) else {
            self.refused += 1;
            return;
        };
        let key = FlowKey {
            host: HostId(stream.source as u64 + 1),
            incarnation: Incarnation(1),
            source: source.id,
            stream: stream.topic.key,
        };
        let sequence = source.port.next_sequence();
        buffer.copy_from_slice(&crate::ledger::payload(&key, sequence, len));
        if !source.port.emit(buffer, 0).is_sent() {
            self.refused += 1;
            return;
        }
        self.ledger.emit(key, number, sequence, len);
        self.emitted[number] = sequence + 1;
        if stream.domain == 0 {
            let peers = host.routes.get(&stream.topic).map_or(0, BTreeSet::len) as u64;
            let (frames, unheard) = &mut self.expected[stream.source];
            *frames += peers;
            *unheard += u64::from(peers == 0);
        }
    }

    fn emit_each(&mut self) {
        for number in 0..self.plan.streams.len() {
            self.emit(number);
        }
    }

    /// Messages, and everything that a network does to them.
    fn storm(&mut self) {
        let mut next_change = self.now();
        while self.ledger.totals.0 < self.config.messages {
            if self.now() >= next_change {
                next_change = self.now() + Nanos(20_000_000 + self.random.below(200_000_000));
                self.change_weather();
            }
            for host in 0..self.hosts.len() {
                // A burst now and then fills rings and heaps.
                let burst = if self.random.permille(2) { 300 } else { 1 };
                for _ in 0..burst {
                    let large = self.random.below(LARGE_ONE_IN) == 0;
                    let own = host * (SMALL + LARGE);
                    let number =
                        if large { own + SMALL + self.random.place(LARGE) } else { own + self.random.place(SMALL) };
                    self.emit(number);
                }
            }
            if self.random.permille(5) {
                let sinks: Vec<(usize, usize)> = self.read.keys().copied().collect();
                let sink = sinks[self.random.place(sinks.len())];
                self.lazy.insert(sink, self.steps + self.random.below(LAZY_STEPS_MAX));
            }
            self.step();
        }
    }

    fn change_weather(&mut self) {
        let hosts = self.hosts.len();
        for from in 0..hosts {
            for to in (0..hosts).filter(|to| *to != from) {
                let random = &mut self.random;
                let chance = |random: &mut Random, most| Chance::per_million(random.below(most) as u32);
                let faults = Faults {
                    delay: Nanos(random.below(500_000)),
                    jitter: Nanos(random.below(200_000)),
                    loss: chance(random, 50_000),
                    duplication: chance(random, 50_000),
                    reordering: chance(random, 50_000),
                    reorder_by: Nanos(random.below(1_000_000)),
                    ..FAIR
                };
                self.net.set_faults(address(from), address(to), faults);
            }
        }
        let first = self.ledger.totals.0 <= self.plan.streams.len() as u64;
        if first || self.random.permille(400) {
            let one = self.random.place(hosts);
            let now = self.now();
            self.trace.say(now, Some(one), "is cut off".to_owned());
            for other in (0..hosts).filter(|other| *other != one) {
                self.net.set_partitioned(address(one), address(other), true);
                self.net.set_partitioned(address(other), address(one), true);
            }
            // Long enough, at times, to be taken for dead; the first time surely.
            let least = if first { 600_000_000 } else { 0 };
            let span = Nanos(least + self.random.below(800_000_000));
            if self.config.reliable || span.0 > 400_000_000 {
                self.settle(span);
            }
        }
    }

    /// The faults end; a last message of each stream tells what was lost before it.
    fn calm(&mut self) {
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|to| *to != from) {
                self.net.set_faults(address(from), address(to), FAIR);
            }
        }
        self.lazy.clear();
        let now = self.now();
        self.trace.say(now, None, "the faults end".to_owned());
        self.settle(Nanos::from_secs(3));
        if self.config.stray {
            let frame = [0_u8; 100];
            let _ = self.net.inject(address(0), address(1), insane_core::Lane::LAST, &frame);
        }
        self.emit_each();
        self.settle(Nanos::from_secs(1));
    }

    fn check_accounts(&mut self) {
        for (place, number) in self.read.keys().copied().collect::<Vec<_>>() {
            let Read { consumed, told, .. } = self.read[&(place, number)];
            self.account(place, "a sink's messages", consumed + told, self.emitted[number]);
        }
        for place in 0..self.hosts.len() {
            self.check_received(place);
            if !self.config.reliable {
                self.check_sent(place);
                self.check_frames(place);
            }
            self.check_leaks(place);
        }
    }

    /// Rules 2 and 7.
    fn check_received(&mut self, place: usize) {
        for domain in 0..2 {
            let told = self
                .read
                .iter()
                .filter(|((host, number), _)| *host == place && self.plan.streams[*number].domain == domain);
            let told: u64 = told.map(|(_, read)| read.told).sum();
            let count = |counter| self.hosts[place].count(domain, counter);
            let missed = count(Count::DroppedRingFull);
            // Of a fragmented message without a buffer the flow never hears: it is lost there.
            let unbuffered = if domain == 0 { count(Count::DroppedNoBuffer) } else { 0 };
            let lost = count(Count::Lost) + missed + unbuffered;
            let received = count(Count::FramesReceived);
            let accounted = count(Count::MessagesToSinks)
                + missed
                + unbuffered
                + count(Count::DroppedDuplicate)
                + count(Count::DroppedLate)
                + count(Count::DroppedNoFlow)
                + count(Count::DroppedNoSink);
            if !self.config.reliable {
                self.account(place, "told as lost", told, lost);
                if domain == 0 {
                    self.account(place, "frames received and what became of them", received, accounted);
                }
            }
        }
    }

    /// Rule 3.
    fn check_sent(&mut self, place: usize) {
        let own = |number: usize| self.plan.streams[number].source == place && self.plan.streams[number].domain == 0;
        let emitted: u64 =
            (0..self.emitted.len()).filter(|number| own(*number)).map(|number| self.emitted[number]).sum();
        let host = &self.hosts[place];
        let taken = host.count(0, Count::MessagesFromSources) + host.dropped_at_sources(own);
        let frames = host.count(0, Count::FramesSent) + host.count(0, Count::FramesFailed);
        let unheard = host.count(0, Count::DroppedNoPeer);
        let dropped = host.dropped_at_sources(own);
        let (expected_frames, expected_unheard) = self.expected[place];
        self.account(place, "messages emitted and taken", emitted, taken);
        if dropped == 0 {
            self.account(place, "frames meant for peers", expected_frames, frames);
            self.account(place, "messages for nobody", expected_unheard, unheard);
        }
    }

    /// Rules 4, 5 and 6.
    fn check_frames(&mut self, place: usize) {
        let others: Vec<usize> = (0..self.hosts.len()).filter(|other| *other != place).collect();
        let (mut sent, mut delivered) = (0, 0);
        for other in &others {
            let out = self.net.counts(address(place), address(*other));
            sent += out.sent;
            delivered += self.net.counts(address(*other), address(place)).delivered;
            let came = out.delivered + out.lost;
            self.account(place, "frames of one direction", out.sent + out.duplicated, came);
        }
        let host = &self.hosts[place];
        let both = |counter| host.count(0, counter) + host.count(1, counter);
        let given = both(Count::FramesSent) + host.overlay_sent;
        let turn = |counter| host.turn_count(counter);
        let taken = both(Count::FramesReceived)
            + turn(TurnCounter::OverlayFrames)
            + turn(TurnCounter::OverlayFramesDropped)
            + turn(TurnCounter::FramesMalformed)
            + turn(TurnCounter::FramesUnknownPeer)
            + turn(TurnCounter::FramesOtherLife)
            + turn(TurnCounter::FramesNoListener);
        self.account(place, "frames given to the network", sent, given);
        self.account(place, "frames taken from the network", delivered, taken);
    }

    fn check_leaks(&mut self, place: usize) {
        let now = self.now();
        let host = &mut self.hosts[place];
        host.engine.housekeeping();
        let collecting = host.engine.is_collecting();
        let in_use: u32 = host.sources.values().map(|source| source.port.buffers_in_use()).sum();
        self.ledger.judge(Rule::Leaks, now, Some(place), !collecting && in_use == 0, || {
            format!("{in_use} buffers of sources in use at rest; collecting: {collecting}")
        });
        // Every buffer of the receive heaps can be lent again.
        let repairing = self.hosts[place].engine.is_repairing();
        self.ledger.judge(Rule::Bounds, now, Some(place), !repairing, || "it does not come to rest".to_owned());
    }

    fn account(&mut self, place: usize, what: &str, one: u64, other: u64) {
        let now = self.now();
        self.ledger.judge(Rule::Accounts, now, Some(place), one == other, || format!("{what}: {one} and {other}"));
    }

    fn outcome(mut self) -> Outcome {
        let mut network = (0, 0);
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|to| *to != from) {
                let counts = self.net.counts(address(from), address(to));
                network = (network.0 + counts.lost, network.1 + counts.duplicated);
            }
        }
        let sum = |domain: usize| {
            let all = Count::ALL.iter().map(|counter| {
                (counter.name(), self.hosts.iter().map(|host| host.count(domain, *counter)).sum::<u64>())
            });
            all.filter(|(_, count)| *count > 0).collect()
        };
        let counters = [sum(0), sum(1)];
        let violations = self.ledger.violations().to_vec();
        let trace = violations.first().map(|first| self.trace.around(first)).unwrap_or_default();
        self.trace.aloud = false;
        Outcome {
            trace,
            violations,
            checks: self.ledger.checks().collect(),
            totals: self.ledger.totals,
            counters,
            network,
            downs: self.hosts.iter().map(|host| host.downs).sum(),
            refused: self.refused,
        }
    }
}

/// Each host has its streams; each goes to one to three others.
fn plan(random: &mut Random, hosts: usize) -> Plan {
    let members = (0..hosts).map(|_| BTreeSet::from([0, 1])).collect();
    let streams = (0..hosts * (SMALL + LARGE)).map(|number| {
        let source = number / (SMALL + LARGE);
        let domain = usize::from(number % (SMALL + LARGE) >= SMALL);
        let name = format!("f{number}");
        let mut sinks = BTreeSet::new();
        for _ in 0..1 + random.place(3) {
            let other = random.place(hosts - 1);
            sinks.insert(if other < source { other } else { other + 1 });
        }
        let domain_name = crate::plan::domain_name(domain);
        StreamPlan {
            domain,
            topic: Topic { key: stream_key(&domain_name, &name), channel: ChannelId(1) },
            check: stream_check(&domain_name, &name),
            source,
            sinks,
            name,
        }
    });
    Plan { members, streams: streams.collect() }
}
