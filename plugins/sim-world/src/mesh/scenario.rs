//! What goes wrong in a mesh, and how long it may take until all is well again.

use super::{DataCounts, FAIR, Mesh, MeshConfig, SendCounts, host_id};
use crate::defect::Defect;
use crate::ledger::{PAYLOAD_BYTES_MIN, Rule, Violation, payload};
use insane_core::{Incarnation, Nanos};
use insane_overlay::flow::FlowKey;
use insane_overlay::membership::Counters;
use insane_sim::{Chance, Faults};
use insane_wire::data::{DataHeader, Flags, Kind};
use insane_wire::overlay::{self, BODY_BYTES_MAX, Change, Digest, Head, Interest};
use std::collections::BTreeSet;

/// All must know each other this long after the start.
pub const JOINED_WITHIN: Nanos = Nanos::from_secs(2);
/// All must agree this long after the last fault.
pub const AGREED_WITHIN: Nanos = Nanos::from_secs(4);
/// The same, after frames were forged: a false life is forgotten after ten seconds.
pub const AGREED_AFTER_FORGERY: Nanos = Nanos::from_secs(16);
/// How long things go wrong.
const MISCHIEF: Nanos = Nanos::from_secs(3);
/// How long everything must arrive after that.
const PROOF: Nanos = Nanos::from_millis(500);
/// Longest pause between two pieces of mischief.
const PAUSE_MAX: Nanos = Nanos::from_millis(60);
/// Heartbeats in one step of a flood, to one host.
const FLOOD_FRAMES: usize = 400;

/// A kind of trouble. In each, sinks come and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// None.
    Calm,
    /// Loss, delay, reordering, duplication.
    Weather,
    /// Groups are cut off from each other, single directions fail, and heal.
    Partition,
    /// Hosts die and come back in new lives.
    Crash,
    /// Hosts start under the name of another.
    Twins,
    /// Some directions carry small frames only.
    Mtu,
    /// Clocks differ by up to a year, and drift.
    Clocks,
    /// Frames are forged: false lives, JOINs for channels of other domains; and garbage.
    Forge,
    /// Heartbeats come by the thousand.
    Flood,
    /// Everything at once.
    Storm,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 10] = [
        Scenario::Calm,
        Scenario::Weather,
        Scenario::Partition,
        Scenario::Crash,
        Scenario::Twins,
        Scenario::Mtu,
        Scenario::Clocks,
        Scenario::Forge,
        Scenario::Flood,
        Scenario::Storm,
    ];

    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Scenario::Calm => "calm",
            Scenario::Weather => "weather",
            Scenario::Partition => "partition",
            Scenario::Crash => "crash",
            Scenario::Twins => "twins",
            Scenario::Mtu => "mtu",
            Scenario::Clocks => "clocks",
            Scenario::Forge => "forge",
            Scenario::Flood => "flood",
            Scenario::Storm => "storm",
        }
    }

    fn has(self, part: Scenario) -> bool {
        self == part || self == Scenario::Storm
    }

    /// All must agree this long after the last fault.
    #[must_use]
    pub fn agreed_within(self) -> Nanos {
        if self.has(Scenario::Forge) { AGREED_AFTER_FORGERY } else { AGREED_WITHIN }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long all needed to know each other; `None`: they did not.
    pub joined: Option<Nanos>,
    /// How long after the faults all agreed; `None`: they did not.
    pub agreed: Option<Nanos>,
    /// What was broken.
    pub violations: Vec<Violation>,
    /// What happened around the first of it.
    pub trace: Vec<String>,
    /// How often each rule was looked at.
    pub checks: Vec<(Rule, u64)>,
    /// Messages emitted and delivered.
    pub totals: (u64, u64),
    /// What hosts counted.
    pub counts: (DataCounts, SendCounts, Counters),
    /// Peers that came up, went down, had a new life; other events of membership.
    pub events: [u64; 4],
    /// Most buffers, messages being collected and flows of one host, seen at the end of the
    /// faults.
    pub most_in_use: (usize, usize, usize),
}

/// Runs one; with `aloud` it prints what it does.
#[must_use]
pub fn run(config: MeshConfig, scenario: Scenario, aloud: bool) -> Outcome {
    let skewed = scenario.has(Scenario::Clocks);
    let mut mesh = Mesh::new(MeshConfig { skewed, ..config });
    mesh.trace.aloud = aloud;
    let traffic = std::mem::replace(&mut mesh.traffic, 0);
    let joined = mesh.agree(JOINED_WITHIN);
    mesh.traffic = traffic;
    let mut trouble = Trouble { scenario, claims: Vec::new(), flooded: BTreeSet::new() };
    trouble.make(&mut mesh);
    let most_in_use = mesh.most_in_use();
    trouble.end(&mut mesh);
    let agreed = mesh.agree(scenario.agreed_within());
    if agreed.is_some() {
        mesh.prove_complete(PROOF);
    }
    mesh.traffic = 0;
    mesh.run(Nanos::from_millis(500));
    mesh.check_rest();
    let violations = mesh.ledger.violations().to_vec();
    let trace = violations.first().map(|first| mesh.trace.around(first)).unwrap_or_default();
    Outcome {
        joined,
        agreed,
        trace,
        violations,
        checks: mesh.ledger.checks().collect(),
        totals: mesh.ledger.totals,
        counts: mesh.counts(),
        events: mesh.trace.events,
        most_in_use,
    }
}

struct Trouble {
    scenario: Scenario,
    /// What hosts say they want and have no sink for.
    claims: Vec<(usize, Interest)>,
    flooded: BTreeSet<(usize, usize)>,
}

impl Trouble {
    fn make(&mut self, mesh: &mut Mesh) {
        let end = mesh.now() + MISCHIEF;
        self.begin(mesh);
        while mesh.now() < end {
            self.mischief(mesh);
            let pause = mesh.random.below(PAUSE_MAX.0);
            let until = mesh.now() + Nanos(pause);
            while mesh.now() < until {
                self.flood(mesh);
                mesh.step();
            }
            mesh.step();
        }
    }

    /// What holds all the while.
    fn begin(&mut self, mesh: &mut Mesh) {
        if self.scenario.has(Scenario::Weather) {
            let chance = |mesh: &mut Mesh, most| Chance::per_million(mesh.random.below(most) as u32);
            let weather = Faults {
                delay: Nanos(mesh.random.below(3_000_000)),
                jitter: Nanos(mesh.random.below(5_000_000)),
                loss: chance(mesh, 200_000),
                duplication: chance(mesh, 100_000),
                reordering: chance(mesh, 100_000),
                reorder_by: Nanos(mesh.random.below(50_000_000)),
                ..FAIR
            };
            let now = mesh.now();
            mesh.trace.say(now, None, format!("weather: {weather:?}"));
            mesh.set_weather(weather);
        }
        if self.scenario.has(Scenario::Mtu) {
            let hosts = mesh.hosts.len();
            for _ in 0..2 * hosts {
                let (from, to) = (mesh.random.place(hosts), mesh.random.place(hosts));
                if from != to {
                    mesh.narrow(from, to, true);
                }
            }
            let now = mesh.now();
            mesh.trace.say(now, None, format!("up to {} directions carry small frames only", 2 * hosts));
        }
    }

    /// The next thing that goes wrong, or changes.
    fn mischief(&mut self, mesh: &mut Mesh) {
        let hosts = mesh.hosts.len();
        let (one, two) = (mesh.random.place(hosts), mesh.random.place(hosts));
        for _ in 0..1 + hosts / 20 {
            let number = mesh.random.place(mesh.plan.streams.len());
            let place = mesh.random.place(hosts);
            mesh.toggle_sink(number, place);
        }
        if self.scenario.has(Scenario::Partition) {
            self.part(mesh, one, two);
        }
        if self.scenario.has(Scenario::Crash) && mesh.random.permille(500) {
            if mesh.hosts[one].is_some() { mesh.crash(one) } else { mesh.start(one, host_id(one)) }
        }
        if self.scenario.has(Scenario::Twins) && mesh.random.permille(200) && one != two {
            mesh.crash(one);
            let name = if mesh.random.permille(700) { host_id(two) } else { host_id(one) };
            mesh.start(one, name);
        }
        if self.scenario.has(Scenario::Forge) {
            for _ in 0..1 + hosts / 10 {
                forge(mesh);
                garbage(mesh);
            }
            self.claim(mesh, one);
        }
        if self.scenario.has(Scenario::Flood) && mesh.random.permille(200) && one != two {
            if self.flooded.len() >= 3 {
                self.flooded.pop_first();
            }
            self.flooded.insert((one, two));
            let now = mesh.now();
            mesh.trace.say(now, Some(two), format!("is flooded with heartbeats from the address of host {one}"));
        }
    }

    fn part(&self, mesh: &mut Mesh, one: usize, two: usize) {
        match mesh.random.below(10) {
            0 => {
                let half = mesh.random.next();
                let group: BTreeSet<usize> =
                    (0..mesh.hosts.len()).filter(|host| half >> (host % 61) & 1 == 1).collect();
                mesh.part(&group);
            }
            1 => {
                let group = BTreeSet::from([one]);
                mesh.part(&group);
            }
            2..7 if one != two => {
                let now = mesh.now();
                mesh.trace.say(now, Some(one), format!("is not heard by host {two}"));
                mesh.cut(one, two, true);
            }
            7 | 8 => mesh.join_all(),
            _ => {}
        }
    }

    /// A host says that it wants a channel of a domain that it is not in.
    fn claim(&mut self, mesh: &mut Mesh, place: usize) {
        let number = mesh.random.place(mesh.plan.streams.len());
        let stream = &mesh.plan.streams[number];
        let foreign = !mesh.plan.members[place].contains(&stream.domain);
        let (stream, check, channel) = (stream.topic.key, stream.check, stream.topic.channel);
        let Some(host) = mesh.hosts[place].as_mut().filter(|_| foreign) else { return };
        let claim = Interest { stream, check, channel, schema: None, joins: 0 };
        if host.membership.set_interest(claim, true).is_ok() {
            self.claims.push((place, claim));
            let now = mesh.now();
            mesh.trace.say(now, Some(place), format!("claims a sink of another domain, stream {number}"));
        }
    }

    fn flood(&self, mesh: &mut Mesh) {
        for (from, to) in &self.flooded {
            let (Some(liar), Some(victim)) = (&mesh.hosts[*from], &mesh.hosts[*to]) else { continue };
            let head = head_of((liar.id, liar.life), victim.life);
            let mut body = [0; BODY_BYTES_MAX];
            let len = overlay::encode_heartbeat(&head, &mut body);
            let frame = frame(&head, &body[..len]);
            for _ in 0..FLOOD_FRAMES {
                let from = mesh.random.permille(800).then_some(*from);
                mesh.inject(from, *to, &frame);
            }
        }
    }

    fn end(&mut self, mesh: &mut Mesh) {
        for (place, claim) in self.claims.drain(..) {
            if let Some(host) = &mut mesh.hosts[place] {
                // A host that died meanwhile has forgotten it.
                let _ = host.membership.set_interest(claim, false);
            }
        }
        mesh.heal();
    }
}

fn head_of((host, incarnation): (insane_core::HostId, Incarnation), to: Incarnation) -> Head {
    Head { host, incarnation, to, version: 1, applied: 0, serves: 0, follows: 0, restart: false }
}

fn frame(head: &Head, body: &[u8]) -> Vec<u8> {
    let header = DataHeader::overlay(head.host, head.incarnation, body.len() as u32);
    [&header.encode()[..], body].concat()
}

/// A well-formed frame that says nearly possible things.
fn forge(mesh: &mut Mesh) {
    let hosts = mesh.hosts.len();
    let (from, to) = (mesh.random.place(hosts), mesh.random.place(hosts));
    let Some(victim) = mesh.hosts[to].as_ref().filter(|_| from != to) else { return };
    let to_life = victim.life;
    let random = &mut mesh.random;
    let life = if random.permille(20) { mesh.lives[from] + 1 } else { mesh.lives[from] };
    let name = if random.permille(100) { random.place(hosts) } else { from };
    let head = Head {
        version: [1, 2, 30, 60, 1000][random.place(5)],
        applied: [0, 1, 20, 1000][random.place(4)],
        serves: 1 + random.below(3) as u32,
        follows: 1 + random.below(3) as u32,
        restart: random.permille(100),
        ..head_of((host_id(name), Incarnation(life.max(1))), to_life)
    };
    let mut body = [0; BODY_BYTES_MAX];
    let len = match random.below(4) {
        0 => overlay::encode_heartbeat(&head, &mut body),
        1 => overlay::encode_digest(&head, Digest { hash: random.next(), count: random.below(100) }, &mut body),
        _ => {
            let base = if random.permille(500) { 0 } else { head.version - 1 };
            let room = (head.version - base).min(1 + random.below(15));
            let streams = &mesh.plan.streams;
            let changes = (0..room).map(|_| {
                let stream = &streams[random.place(streams.len())];
                // One in four names the stream of one domain with the check of another.
                let other = &streams[random.place(streams.len())];
                let check = if random.permille(250) { other.check } else { stream.check };
                let (key, channel) = (stream.topic.key, stream.topic.channel);
                Change {
                    interest: Interest { stream: key, check, channel, schema: None, joins: 0 },
                    on: random.permille(800),
                }
            });
            let changes: Vec<Change> = changes.collect();
            overlay::encode_delta(&head, base, head.version, changes.into_iter(), &mut body)
        }
    };
    mesh.inject(Some(from), to, &frame(&head, &body[..len]));
}

/// A frame that is none, or no longer.
fn garbage(mesh: &mut Mesh) {
    let hosts = mesh.hosts.len();
    let (from, to) = (mesh.random.place(hosts), mesh.random.place(hosts));
    let stream = &mesh.plan.streams[mesh.random.place(mesh.plan.streams.len())];
    let random = &mut mesh.random;
    let len = PAYLOAD_BYTES_MIN + random.place(1000);
    let (host, incarnation) = (host_id(from), Incarnation(mesh.lives[from].max(1)));
    let key = FlowKey { host, incarnation, source: insane_core::SourceId(1), stream: stream.topic.key };
    let header = DataHeader {
        kind: Kind::Data,
        lane: insane_core::Lane::LAST,
        flags: Flags::NONE,
        stream: stream.topic.key,
        host,
        incarnation,
        sequence: random.below(1000),
        source_instant: 0,
        channel: stream.topic.channel,
        source: key.source,
        message_len: len as u32,
        fragment_offset: 0,
    };
    let mut bytes = [&header.encode()[..], &payload(&key, 0, len)].concat();
    match random.below(3) {
        // Cut, a bit of the header turned, or nothing but noise.
        0 => bytes.truncate(random.place(bytes.len() - 1)),
        1 => {
            let bit = random.place(64 * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        _ => bytes.iter_mut().for_each(|byte| *byte = random.next() as u8),
    }
    let from = random.permille(800).then_some(from).filter(|from| *from != to);
    mesh.inject(from, to, &bytes);
}

/// A mesh small enough for a test that is built without optimisation.
#[must_use]
pub const fn small(seed: u64, defect: Option<Defect>) -> MeshConfig {
    MeshConfig { seed, hosts: 10, streams: 40, defect, skewed: false }
}
