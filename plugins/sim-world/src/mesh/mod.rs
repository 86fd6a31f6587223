//! A mesh: hundreds of hosts, each with the production's hub, membership, flows and
//! reassembly, over a simulated network, in virtual time.
//!
//! What of a runtime is left out is what needs memory shared between processes: rings and
//! the turn. [`crate::fleet`] has those, with fewer hosts.

mod data;
mod host;
pub mod scenario;

pub use data::{BUFFERS, DataCounts, FLOWS_MAX, MESSAGE_BYTES_MAX, OVERLAY_FRAMES_MAX, PLACES};
pub use host::{Host, SendCounts, host_at, index_of};

use crate::defect::Defect;
use crate::ledger::{Delivery, Ledger, PAYLOAD_BYTES_MIN, Rule};
use crate::plan::Plan;
use crate::random::Random;
use crate::trace::Trace;
use insane_core::{HostId, Incarnation, Lane, MonoTime, Nanos};
use insane_overlay::membership::{Counters, Limits};
use insane_sim::{Faults, SimConfig, SimNet};
use insane_wire::overlay::Interest;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Length of a step.
pub const STEP: Nanos = Nanos::from_millis(1);
/// Frames under way in the whole network, at most: one of every host to every other, 200 of
/// them, and as much again for a flood.
pub const FRAMES_UNDER_WAY_MAX: u32 = 49_152;
/// Hosts that start in one step, at the beginning.
const STARTS_A_STEP: usize = 2;
/// A network without faults: every frame takes this long.
pub const FAIR: Faults = Faults { delay: Nanos::from_micros(200), ..Faults::NONE };
/// Smallest frame that every hop carries, bytes: IPv6 without its headers and UDP's.
pub const NARROW_BYTES: u32 = 1280 - 48;
/// Every how many steps the bounds are looked at.
const BOUNDS_STRIDE: u64 = 50;
/// Every how many steps hosts give up what stands still.
const HOUSEKEEPING_STRIDE: u64 = 10;
/// Of the traffic, one in so many goes on while agreement is waited for.
const WAITING_SHARE: usize = 8;
/// How often it is looked whether all agree, while they should soon.
const LOOK_EVERY: Nanos = Nanos::from_millis(100);

/// What a mesh is made of.
#[derive(Clone, Copy, Debug)]
pub struct MeshConfig {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Hosts, at least 2.
    pub hosts: usize,
    /// Streams.
    pub streams: usize,
    /// Something wrong on purpose.
    pub defect: Option<Defect>,
    /// Whether clocks of hosts differ by up to a year and drift.
    pub skewed: bool,
}

/// The whole of it. See the module.
pub struct Mesh {
    /// What should be.
    pub plan: Plan,
    /// What was, judged.
    pub ledger: Ledger,
    /// What happened lately.
    pub trace: Trace,
    /// The numbers that everything is drawn from.
    pub random: Random,
    /// The network.
    pub net: SimNet,
    /// Hosts that are alive, by place.
    pub hosts: Vec<Option<Host>>,
    /// Lives so far, by place.
    pub lives: Vec<u64>,
    /// Messages that are emitted in one step.
    pub traffic: usize,
    config: MeshConfig,
    weather: Faults,
    cut: BTreeSet<(usize, usize)>,
    narrow: BTreeSet<(usize, usize)>,
    steps: u64,
    /// What hosts that are gone have counted.
    past: (DataCounts, SendCounts, Counters),
}

/// The address of a host.
#[must_use]
pub fn address(host: usize) -> SocketAddr {
    let (high, low) = ((host / 250) as u8, (host % 250) as u8);
    SocketAddr::from(([10, 0, high, low + 1], 7400))
}

/// The name of a host.
#[must_use]
pub const fn host_id(host: usize) -> HostId {
    HostId(host as u64 + 1)
}

impl Mesh {
    /// All hosts alive, and a fair network.
    ///
    /// # Panics
    /// With fewer than 2 hosts.
    #[must_use]
    pub fn new(config: MeshConfig) -> Self {
        assert!(config.hosts >= 2, "a mesh has two hosts at least");
        let mut random = Random::new(config.seed);
        let plan = Plan::new(&mut random, config.hosts, config.streams);
        let net_config = SimConfig {
            frames_max: FRAMES_UNDER_WAY_MAX,
            peers_max: config.hosts,
            faults: FAIR,
            ..SimConfig::default()
        };
        let net = SimNet::new(random.next(), net_config);
        let mut mesh = Mesh {
            ledger: Ledger::new(&plan),
            trace: Trace::new(),
            net,
            hosts: (0..config.hosts).map(|_| None).collect(),
            lives: vec![0; config.hosts],
            traffic: config.streams.div_ceil(50),
            weather: FAIR,
            cut: BTreeSet::new(),
            narrow: BTreeSet::new(),
            steps: 0,
            past: Default::default(),
            plan,
            random,
            config,
        };
        for stream in &mesh.plan.streams {
            for host in &stream.sinks {
                mesh.ledger.sink(*host, stream.topic, true);
            }
        }
        let traffic = std::mem::replace(&mut mesh.traffic, 0);
        for host in 0..config.hosts {
            mesh.start(host, host_id(host));
            // Not all at once: else all heartbeats would go in the same step for ever.
            if host % STARTS_A_STEP == 0 {
                mesh.step();
            }
        }
        mesh.traffic = traffic;
        mesh
    }

    /// The network's time.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        use insane_core::time::Clock;
        self.net.clock().now()
    }

    /// Starts a host that is not there, in a new life, under this name.
    pub fn start(&mut self, place: usize, id: HostId) {
        self.lives[place] += 1 + self.random.below(3);
        let life = Incarnation(self.lives[place]);
        let clock = if self.config.skewed {
            let year = Nanos::from_secs(365 * 24 * 3600);
            let drift = self.random.below(1_000_000) as i64 - 500_000;
            self.net.clock().skewed(Nanos(self.random.below(year.0)), drift)
        } else {
            self.net.clock()
        };
        let peers: Vec<_> =
            (0..self.hosts.len()).filter(|peer| *peer != place).map(|peer| Some(address(peer))).collect();
        let link = insane_link::LinkSetup::open(self.net.setup(address(place)), &peers);
        let link = link.unwrap_or_else(|error| panic!("{error}"));
        // One host of the mesh is enough to see a checker fail.
        let defect = self.config.defect.filter(|defect| place == 1 || !matches!(defect, Defect::Deaf));
        self.hosts[place] = Some(Host::new(&self.plan, place, (id, life), link, clock, defect));
        let now = self.now();
        self.trace.say(now, Some(place), format!("starts as host {id}, life {life}"));
    }

    /// A host dies, and all it held with it.
    pub fn crash(&mut self, place: usize) {
        let Some(host) = self.hosts[place].take() else { return };
        add_counts(&mut self.past, &host);
        let now = self.now();
        self.trace.say(now, Some(place), "dies".to_owned());
    }

    /// What all directions do to frames from now on.
    pub fn set_weather(&mut self, weather: Faults) {
        self.weather = weather;
        self.apply_all();
    }

    /// Cuts a direction, or joins it.
    pub fn cut(&mut self, from: usize, to: usize, on: bool) {
        if on {
            self.cut.insert((from, to))
        } else {
            self.cut.remove(&(from, to))
        };
        self.apply(from, to);
    }

    /// Cuts everything between two groups.
    pub fn part(&mut self, one: &BTreeSet<usize>) {
        for from in 0..self.hosts.len() {
            for to in 0..self.hosts.len() {
                if one.contains(&from) != one.contains(&to) {
                    self.cut(from, to, true);
                }
            }
        }
        let now = self.now();
        self.trace.say(now, None, format!("{} hosts are cut off from the others", one.len()));
    }

    /// Joins all that was cut.
    pub fn join_all(&mut self) {
        self.cut.clear();
        self.apply_all();
        let now = self.now();
        self.trace.say(now, None, "all cuts are joined".to_owned());
    }

    /// A direction loses large frames, or no longer.
    pub fn narrow(&mut self, from: usize, to: usize, on: bool) {
        if on {
            self.narrow.insert((from, to))
        } else {
            self.narrow.remove(&(from, to))
        };
        self.apply(from, to);
    }

    /// Everything heals: no faults, no cuts, all hosts alive under their own names.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.narrow.clear();
        self.set_weather(FAIR);
        for place in 0..self.hosts.len() {
            if self.hosts[place].as_ref().is_some_and(|host| host.id != host_id(place)) {
                self.crash(place);
            }
            if self.hosts[place].is_none() {
                self.start(place, host_id(place));
            }
        }
        let now = self.now();
        self.trace.say(now, None, "everything heals".to_owned());
    }

    fn apply(&mut self, from: usize, to: usize) {
        let narrow = self.narrow.contains(&(from, to));
        let faults = Faults {
            partitioned: self.cut.contains(&(from, to)),
            frame_bytes_max: narrow.then_some(NARROW_BYTES),
            ..self.weather
        };
        self.net.set_faults(address(from), address(to), faults);
    }

    fn apply_all(&mut self) {
        for from in 0..self.hosts.len() {
            for to in (0..self.hosts.len()).filter(|to| *to != from) {
                self.apply(from, to);
            }
        }
    }

    /// A host begins, or ends, to listen to a stream of its domain.
    pub fn toggle_sink(&mut self, number: usize, place: usize) {
        let stream = &mut self.plan.streams[number];
        if stream.source == place || !self.plan.members[place].contains(&stream.domain) {
            return;
        }
        let on = !stream.sinks.remove(&place);
        if on {
            stream.sinks.insert(place);
        }
        self.ledger.sink(place, stream.topic, on);
        let stream = &self.plan.streams[number];
        if let Some(host) = &mut self.hosts[place] {
            if on { host.open_sink(number, stream) } else { host.close_sink(number, stream) }
        }
        let now = self.now();
        let what = if on { "opens" } else { "closes" };
        self.trace.say(now, Some(place), format!("{what} a sink of {}", self.plan.streams[number].name));
    }

    /// Sends bytes to a host as if they came from the address of another, or of nobody.
    pub fn inject(&mut self, from: Option<usize>, to: usize, bytes: &[u8]) {
        let from = from.map_or_else(|| SocketAddr::from(([10, 9, 9, 9], 9)), address);
        let _ = self.net.inject(from, address(to), Lane::CONTROL, bytes);
    }

    /// Lets time pass.
    pub fn run(&mut self, span: Nanos) {
        let end = self.now() + span;
        while self.now() < end {
            self.step();
        }
    }

    /// One step of all hosts.
    pub fn step(&mut self) {
        self.net.advance(STEP);
        self.steps += 1;
        let now = self.now();
        for _ in 0..self.traffic {
            self.emit();
        }
        for place in 0..self.hosts.len() {
            let Some(host) = &mut self.hosts[place] else { continue };
            host.step();
            self.check_queue(now, place);
            let Some(host) = &mut self.hosts[place] else { continue };
            host.control();
            if self.steps.is_multiple_of(HOUSEKEEPING_STRIDE) {
                host.data.housekeeping(host.now());
            }
            for event in host.events.drain(..) {
                self.trace.say_event(now, place, &event);
            }
            self.deliver(now, place);
        }
        if self.steps.is_multiple_of(BOUNDS_STRIDE) {
            self.check_bounds(now);
        }
    }

    fn emit(&mut self) {
        let number = self.random.place(self.plan.streams.len());
        let len = match self.random.below(100) {
            0..80 => PAYLOAD_BYTES_MIN + self.random.place(184),
            80..97 => 200 + self.random.place(1200),
            97..99 => 1409 + self.random.place(6_000),
            _ => MESSAGE_BYTES_MAX - self.random.place(4_000),
        };
        let stream = &self.plan.streams[number];
        let Some(host) = &mut self.hosts[stream.source] else { return };
        let Some((key, sequence)) = host.next_message(number, stream.topic) else { return };
        let payload = self.ledger.emit(key, number, sequence, len);
        host.emit(number, stream.topic, &payload);
    }

    fn deliver(&mut self, now: MonoTime, place: usize) {
        let Some(host) = &mut self.hosts[place] else { return };
        let life = host.life.0;
        let deliveries = std::mem::take(&mut host.data.deliveries);
        for delivery in &deliveries {
            self.trace.deliver(now, place, delivery);
            self.ledger.deliver(now, place, life, delivery);
            if let Some(wrong) = self.misdelivered(place, delivery) {
                self.ledger.deliver(now, wrong, life, delivery);
            }
        }
        let Some(host) = &mut self.hosts[place] else { return };
        host.data.deliveries = deliveries;
        host.data.deliveries.clear();
    }

    /// For tests: the host that a message reaches wrongly.
    fn misdelivered(&self, place: usize, delivery: &Delivery) -> Option<usize> {
        let stream = self.plan.streams.iter().find(|stream| stream.topic == delivery.topic);
        let is_member = match self.config.defect? {
            Defect::Unasked => true,
            Defect::Leaky => false,
            _ => return None,
        };
        let stream = stream?;
        let fits = |host: &usize| {
            *host != place
                && self.plan.members[*host].contains(&stream.domain) == is_member
                && !stream.sinks.contains(host)
        };
        (0..self.hosts.len()).find(fits)
    }

    fn check_queue(&mut self, now: MonoTime, place: usize) {
        let Some(host) = &self.hosts[place] else { return };
        let waiting = host.data.overlay.len();
        self.ledger.judge(Rule::Bounds, now, Some(place), waiting <= OVERLAY_FRAMES_MAX, || {
            format!("{waiting} overlay frames wait; {OVERLAY_FRAMES_MAX} may")
        });
    }

    /// Bounds of a host: buffers, messages being collected, flows, and twice the interests
    /// of each peer that it keeps. Every buffer in use is of a message being collected.
    fn check_bounds(&mut self, now: MonoTime) {
        let interests_max = 2 * Limits::default().interests_max;
        for place in 0..self.hosts.len() {
            let Some(host) = &self.hosts[place] else { continue };
            let (buffers, collected, flows) = host.data.in_use();
            let interests = if self.steps.is_multiple_of(10 * BOUNDS_STRIDE) { host.interests_kept() } else { 0 };
            let bounded = buffers <= BUFFERS && collected <= PLACES && flows <= FLOWS_MAX && interests <= interests_max;
            self.ledger.judge(Rule::Bounds, now, Some(place), bounded, || {
                format!("{buffers} buffers, {collected} messages, {flows} flows, {interests} interests of a peer")
            });
            self.ledger.judge(Rule::Leaks, now, Some(place), buffers == collected, || {
                format!("{buffers} buffers are in use for {collected} messages")
            });
        }
    }

    /// Nothing is under way any more: no host holds a buffer, and flows are forgotten in time.
    pub fn check_rest(&mut self) {
        let now = self.now();
        for place in 0..self.hosts.len() {
            let Some(host) = &mut self.hosts[place] else { continue };
            let later = host.now() + Nanos::from_secs(61);
            host.data.housekeeping(later);
            let left = host.data.in_use();
            self.ledger.judge(Rule::Leaks, now, Some(place), left == (0, 0, 0), || {
                format!("(buffers, messages, flows) left at rest: {left:?}")
            });
        }
    }

    /// Whether every host knows who lives, and who wants what, and routes by it.
    ///
    /// # Errors
    /// The first that is not so: at which host, and what.
    pub fn check_agreement(&self) -> Result<(), (usize, String)> {
        let wants: Vec<Option<_>> =
            self.hosts.iter().map(|host| host.as_ref().map(|host| host.wants(&self.plan))).collect();
        // When sinks joined is not planned.
        let interests = |host: &Host, of| {
            let all: Vec<Interest> = host.membership.interests_of(of).collect();
            all.into_iter().map(|interest| Interest { joins: 0, ..interest })
        };
        for (place, host) in self.hosts.iter().enumerate().filter_map(|(place, host)| Some((place, host.as_ref()?))) {
            for (other, peer) in self.hosts.iter().enumerate().filter(|(other, _)| *other != place) {
                let index = index_of(place, other);
                let Some(status) = host.membership.peer(index) else { return Err((place, "no such peer".into())) };
                let is_true = match (peer, &wants[other]) {
                    (Some(peer), Some(wants)) => {
                        status.up
                            && status.life == Some((peer.id, peer.life))
                            && status.complete
                            && status.acknowledged
                            && interests(host, index).eq(wants.iter().copied())
                    }
                    _ => !status.up && host.membership.interests_of(index).next().is_none(),
                };
                if !is_true {
                    let known = host.membership.interests_of(index).count();
                    let wanted = wants[other].as_ref().map(BTreeSet::len);
                    return Err((place, format!("of host {other}: {status:?}, {known} interests known of {wanted:?}")));
                }
            }
            for number in host.sources() {
                let stream = &self.plan.streams[number];
                let mut listening = stream.sinks.clone();
                listening.retain(|sink| self.hosts[*sink].is_some());
                let route = host.route(stream.topic);
                if route != listening {
                    return Err((place, format!("{} goes to {route:?} and should to {listening:?}", stream.name)));
                }
            }
        }
        Ok(())
    }

    /// Waits until all agree, at most `within`; returns how long it took.
    pub fn agree(&mut self, within: Nanos) -> Option<Nanos> {
        // Some traffic goes on, but it is not what is waited for.
        let traffic = self.traffic;
        self.traffic = traffic.div_ceil(WAITING_SHARE);
        let took = self.wait_for_agreement(within);
        self.traffic = traffic;
        took
    }

    fn wait_for_agreement(&mut self, within: Nanos) -> Option<Nanos> {
        let start = self.now();
        loop {
            let now = self.now();
            let took = now.since(start);
            match self.check_agreement() {
                Ok(()) => {
                    self.ledger.judge(Rule::Convergence, now, None, true, String::new);
                    return Some(took);
                }
                Err((place, why)) if took >= within => {
                    let what = format!("after {within} without faults: {why}");
                    self.ledger.judge(Rule::Convergence, now, Some(place), false, || what);
                    return None;
                }
                Err(_) => self.run(LOOK_EVERY),
            }
        }
    }

    /// A time without any fault, in which everything must arrive and nothing must be sent
    /// where nobody listens.
    pub fn prove_complete(&mut self, span: Nanos) {
        let traffic = std::mem::replace(&mut self.traffic, 0);
        self.run(Nanos::from_millis(500));
        let (before, _, _) = self.counts();
        self.traffic = traffic;
        self.ledger.begin_exact();
        self.run(span);
        self.traffic = 0;
        self.run(Nanos::from_millis(500));
        let now = self.now();
        let alive: Vec<bool> = self.hosts.iter().map(Option::is_some).collect();
        self.ledger.end_exact(now, &self.plan, |host| alive[host]);
        let (after, sent, _) = self.counts();
        let strays = after.no_listener - before.no_listener;
        self.ledger.judge(Rule::Complete, now, None, strays == 0, || {
            format!("{strays} frames came where nobody listens, without any fault ({sent:?})")
        });
    }

    /// What all hosts counted, those that are gone included.
    #[must_use]
    pub fn counts(&self) -> (DataCounts, SendCounts, Counters) {
        let mut sum = self.past;
        for host in self.hosts.iter().flatten() {
            add_counts(&mut sum, host);
        }
        sum
    }

    /// Buffers, messages and flows in use at the host that uses most of each.
    #[must_use]
    pub fn most_in_use(&self) -> (usize, usize, usize) {
        let all = self.hosts.iter().flatten().map(|host| host.data.in_use());
        all.fold((0, 0, 0), |most, now| (most.0.max(now.0), most.1.max(now.1), most.2.max(now.2)))
    }
}

fn add_counts((data, sent, members): &mut (DataCounts, SendCounts, Counters), host: &Host) {
    let DataCounts {
        frames,
        unknown,
        malformed,
        other_life,
        no_listener,
        duplicate,
        late,
        inconsistent,
        no_buffer,
        closings,
        incomplete,
        stored,
        delivered,
        lost,
        overlay,
        overlay_dropped,
    } = host.data.counts;
    data.frames += frames;
    data.unknown += unknown;
    data.malformed += malformed;
    data.other_life += other_life;
    data.no_listener += no_listener;
    data.duplicate += duplicate;
    data.late += late;
    data.inconsistent += inconsistent;
    data.no_buffer += no_buffer;
    data.closings += closings;
    data.incomplete += incomplete;
    data.stored += stored;
    data.delivered += delivered;
    data.lost += lost;
    data.overlay += overlay;
    data.overlay_dropped += overlay_dropped;
    sent.frames += host.sent.frames;
    sent.refused += host.sent.refused;
    sent.no_peer += host.sent.no_peer;
    sent.overlay += host.sent.overlay;
    let counted = host.membership.counters();
    members.malformed += counted.malformed;
    members.stale += counted.stale;
    members.foreign += counted.foreign;
    members.duplicate_host += counted.duplicate_host;
    members.resyncs += counted.resyncs;
    members.resends += counted.resends;
    members.interests_refused += counted.interests_refused;
}
