//! The hub under random operations: honest clients beside liars, deaths at any
//! moment, failing memory, restarts. The world checks every action on the way; here
//! stands what must hold once everything is at rest, and once everybody is gone.
//!
//! A failing seed is printed; set `HUB_SEED` to replay it alone.
#![forbid(unsafe_code)]

mod world;

use insane_control::action::Topic;
use insane_control::hub::Packet;
use insane_control::quota::{Amounts, Quota};
use insane_control::spec::HubSpec;
use insane_core::limits::FANOUT_MAX;
use insane_core::{
    ChannelId, ConnId, Lane, Nanos, PeerIndex, Qos, Schema, SessionId, SinkId, SourceId, StreamId, stream_key,
};
use insane_wire::control::{ClassSpec, Request, SinkWake, encode};
use std::collections::{BTreeMap, BTreeSet};
use world::client::{Client, EndState};
use world::{World, datapath, spec};

const NAMES: [&str; 3] = ["io", "video", "isolated"];
const OPERATIONS: usize = 400;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        if from.is_empty() { None } else { Some(from[self.below(from.len())]) }
    }
}

fn some_spec(random: &mut Random) -> HubSpec {
    let mut spec = match random.below(3) {
        0 => spec(vec![datapath(&[], true)]),
        1 => spec(vec![datapath(&[0, 1], random.chance(2))]),
        _ => {
            let mut datapaths = vec![datapath(&[0, 1], true), datapath(&[1], false)];
            datapaths[0].lanes = std::array::from_fn(|lane| lane < 3);
            datapaths[1].lanes = std::array::from_fn(|lane| lane >= 3);
            spec(datapaths)
        }
    };
    if random.chance(3) {
        let most =
            Amounts { sessions: 4, streams: 6, sources: 5, sinks: 5, connections: 12, bytes: 2 << 20, buffers: 300 };
        spec.domains[0].quota = Quota { most, requests_per_second: 1_000_000 };
    }
    spec
}

/// One run: the world, and what the test knows beyond it.
struct Run {
    random: Random,
    world: World,
    uids: u64,
    wanted: BTreeSet<(u16, Topic)>,
    /// Something happened after which two ends may rightly stay apart.
    excused: bool,
}

impl Run {
    fn session(&mut self) -> Option<SessionId> {
        let sessions: Vec<SessionId> = self.world.clients.keys().copied().collect();
        self.random.pick(&sessions)
    }

    fn operate(&mut self, lies: bool) {
        match self.random.below(40) {
            0..=2 => self.attach(),
            3..=5 => self.open(),
            6..=9 => self.create_source(),
            10..=13 => self.create_sink(),
            14..=24 => {
                if let Some(session) = self.session() {
                    self.world.step(session);
                }
            }
            25..=26 => self.close(),
            27 => self.die(),
            28 if lies => self.lie(),
            29 if lies => self.garbage(),
            30 if lies => self.violate(),
            28..=33 => self.interest(),
            34..=35 => self.world.detach_all(),
            36 => self.world.wait(Nanos::from_millis(400)),
            37 => self.fail_some(),
            38 => self.world.settle(),
            _ => self.restart(),
        }
    }

    fn attach(&mut self) {
        if self.world.clients.len() < 8 {
            let uid = [1, 2, 3, 11, 12][self.random.below(5)];
            let session = self.world.attach(uid);
            if self.random.chance(4)
                && let Some(client) = self.world.clients.get_mut(&session)
            {
                client.honest = false;
            }
        }
    }

    fn request(&mut self, session: SessionId, request: &Request) {
        self.world.request(session, request);
    }

    fn open(&mut self) {
        let Some(session) = self.session() else { return };
        let name = NAMES[self.random.below(NAMES.len())];
        let isolated = name == "isolated";
        self.request(session, &Request::OpenStream { req: 1, name: name.into(), qos: Qos::default(), isolated });
    }

    fn stream(&mut self) -> Option<(SessionId, StreamId)> {
        let session = self.session()?;
        let streams: Vec<StreamId> = self.world.clients[&session].streams.iter().copied().collect();
        Some((session, self.random.pick(&streams)?))
    }

    fn ask(&mut self, session: SessionId) -> (u32, u64) {
        self.uids += 1;
        let asked = &mut self.world.clients.get_mut(&session).expect("it is there").asked;
        let req = 100 + asked.len() as u32;
        asked.insert(req, self.uids);
        (req, self.uids)
    }

    fn create_source(&mut self) {
        let Some((session, stream)) = self.stream() else { return };
        let (req, uid) = self.ask(session);
        let classes = if self.random.chance(2) { vec![ClassSpec { size: 512, count: 20 }] } else { Vec::new() };
        let channel = ChannelId(self.random.below(2) as u32);
        let schema = self.schema();
        let (keeps, line) = (false, self.line());
        self.request(session, &Request::CreateSource { req, stream, channel, uid, classes, schema, keeps, line });
    }

    /// Mostly none; else one of two, so that some ends are refused.
    fn schema(&mut self) -> Option<Schema> {
        [None, None, Schema::new("v1", 1), Schema::new("v2", 2)][self.random.below(4)]
    }

    /// None, one of few, so that several ends say the same, or one beyond the page.
    fn line(&mut self) -> Option<u32> {
        [None, Some(0), Some(1), Some(u32::MAX)][self.random.below(4)]
    }

    fn create_sink(&mut self) {
        let Some((session, stream)) = self.stream() else { return };
        let (req, uid) = self.ask(session);
        let wake = [SinkWake::Never, SinkWake::Page, SinkWake::Fd][self.random.below(3)];
        let channel = ChannelId(self.random.below(2) as u32);
        let schema = self.schema();
        let (depth, line) = (16, self.line());
        self.request(session, &Request::CreateSink { req, stream, channel, uid, depth, wake, schema, line });
    }

    fn close(&mut self) {
        let Some(session) = self.session() else { return };
        let client = &self.world.clients[&session];
        let sources: Vec<SourceId> = client.sources.keys().copied().collect();
        let sinks: Vec<SinkId> = client.sinks.keys().copied().collect();
        match (self.random.below(5), self.random.pick(&sources), self.random.pick(&sinks)) {
            (0, ..) => self.close_stream(session),
            (1 | 2, Some(source), _) => {
                self.world.clients.get_mut(&session).expect("it is there").forget_source(source);
                self.request(session, &Request::CloseSource { req: 2, source });
            }
            (_, _, Some(sink)) => {
                self.world.clients.get_mut(&session).expect("it is there").forget_sink(sink);
                self.request(session, &Request::CloseSink { req: 2, sink });
            }
            _ => {}
        }
    }

    /// Closes a stream once the client has heard of all that is on it.
    fn close_stream(&mut self, session: SessionId) {
        while self.world.step(session) {}
        let Some(client) = self.world.clients.get_mut(&session) else { return };
        let Some(stream) = client.streams.pop_first() else { return };
        self.request(session, &Request::CloseStream { req: 3, stream });
        // The client does not track which port is of which stream: the others go, too,
        // and what the runtime no longer knows is refused, which is fine.
        let Some(client) = self.world.clients.get_mut(&session) else { return };
        let (sources, sinks) = (client.sources.clone(), client.sinks.clone());
        sources.keys().for_each(|source| client.forget_source(*source));
        sinks.keys().for_each(|sink| client.forget_sink(*sink));
        sources.into_keys().for_each(|source| self.request(session, &Request::CloseSource { req: 4, source }));
        sinks.into_keys().for_each(|sink| self.request(session, &Request::CloseSink { req: 4, sink }));
    }

    fn die(&mut self) {
        if let Some(session) = self.session() {
            self.world.kill(session);
        }
    }

    fn liar(&mut self) -> Option<SessionId> {
        let liars: Vec<SessionId> =
            self.world.clients.iter().filter(|(_, client)| !client.honest).map(|(id, _)| *id).collect();
        self.random.pick(&liars)
    }

    /// A liar acknowledges something at random.
    fn lie(&mut self) {
        let Some(session) = self.liar() else { return };
        self.excused = true;
        let number = self.random.below(30) as u32;
        let conn = ConnId(number);
        let lie = match self.random.below(7) {
            0 => Request::Mapped { conn, step: 1 },
            1 => Request::Mapped { conn, step: 2 },
            2 => Request::Kept { conn },
            3 => Request::SourceMapped { source: SourceId(number) },
            4 => Request::SinkMapped { sink: SinkId(number) },
            5 => Request::SessionMapped,
            _ => Request::Violation { conn },
        };
        // What a liar acknowledges without mapping it is its own loss.
        self.world.objects.values_mut().for_each(|object| object.mapped |= object.given);
        self.request(session, &lie);
    }

    fn garbage(&mut self) {
        let Some(session) = self.liar() else { return };
        self.excused = true;
        let len = 1 + self.random.below(40);
        let bytes: Vec<u8> = (0..len).map(|_| self.random.next() as u8).collect();
        let fds = self.random.below(2);
        self.world.hub.packet(session, Packet { bytes: &bytes, fds, truncated: false }, self.world.now);
        self.world.pump();
    }

    /// An honest end, or a datapath, reports what the other end wrote.
    fn violate(&mut self) {
        self.excused = true;
        if let Some(conn) = self.world.datapaths.iter().flat_map(|d| d.tx.keys().chain(d.rx.keys())).next().copied() {
            self.world.hub.violated(conn);
            self.world.pump();
        }
        let Some(session) = self.session() else { return };
        let client = &self.world.clients[&session];
        let opened: Vec<ConnId> =
            client.rx.iter().filter(|(_, end)| end.1 == EndState::Opened).map(|(conn, _)| *conn).collect();
        if let Some(conn) = self.random.pick(&opened) {
            self.request(session, &Request::Violation { conn });
        }
    }

    fn interest(&mut self) {
        let domain = ["line1", "line2"][self.random.below(2)];
        let key = stream_key(domain, NAMES[self.random.below(NAMES.len())]);
        let topic = Topic { key, channel: ChannelId(self.random.below(2) as u32) };
        let peer = self.random.below(2) as u16;
        let on = !self.wanted.remove(&(peer, topic));
        if on {
            self.wanted.insert((peer, topic));
        }
        self.world.interest(peer, topic, on);
    }

    /// Memory fails for a while. What could not be joined may then find its quota used
    /// by others.
    fn fail_some(&mut self) {
        self.excused |= self.world.hub.spec().domains[0].quota.most.connections < 100;
        let mut left = 1 + self.random.below(3);
        let mut skip = self.random.below(6);
        self.world.fail_objects = Box::new(move |_| {
            let fails = skip == 0 && left > 0;
            left -= usize::from(fails);
            skip = skip.saturating_sub(1);
            fails
        });
    }

    /// A new life of the runtime: the clients come back with their uids and rings.
    fn restart(&mut self) {
        self.world.settle();
        let old = std::mem::replace(&mut self.world, World::new(some_spec(&mut self.random)));
        let wanted = std::mem::take(&mut self.wanted);
        self.world.now = old.now;
        for (peer, topic) in wanted {
            self.wanted.insert((peer, topic));
            self.world.interest(peer, topic, true);
        }
        for client in old.clients.into_values() {
            self.reattach(client);
        }
    }

    fn reattach(&mut self, old: Client) {
        let session = self.world.attach(old.uid);
        let Some(client) = self.world.clients.get_mut(&session) else { return };
        client.honest = old.honest;
        client.rings_tx = old.rings_tx;
        client.rings_rx = old.rings_rx;
        self.request(session, &Request::OpenStream { req: 1, name: "io".into(), qos: Qos::default(), isolated: false });
        while self.world.step(session) {}
        let Some(client) = self.world.clients.get_mut(&session) else { return };
        let Some(stream) = client.streams.first().copied() else { return };
        let channel = ChannelId(0);
        for uid in old.sources.into_values() {
            let Some(client) = self.world.clients.get_mut(&session) else { return };
            let req = 100 + client.asked.len() as u32;
            client.asked.insert(req, uid);
            let (classes, schema, keeps, line) = (Vec::new(), None, false, None);
            self.request(session, &Request::CreateSource { req, stream, channel, uid, classes, schema, keeps, line });
        }
        for uid in old.sinks.into_values() {
            let Some(client) = self.world.clients.get_mut(&session) else { return };
            let req = 100 + client.asked.len() as u32;
            client.asked.insert(req, uid);
            let (depth, wake, schema, line) = (16, SinkWake::Page, None, None);
            let request = Request::CreateSink { req, stream, channel, uid, depth, wake, schema, line };
            self.request(session, &request);
        }
    }

    /// At rest, every two ends that belong together are joined.
    fn assert_joined(&mut self) {
        self.world.fail_objects = Box::new(|_| false);
        for _ in 0..3 {
            self.world.settle();
            self.world.wait(Nanos::from_secs(2));
        }
        self.world.settle();
        self.assert_bounds();
        if self.excused {
            return;
        }
        assert_eq!(self.world.hub.table_sizes().unjoined, 0);
        let stages: BTreeMap<ConnId, bool> = self
            .world
            .clients
            .values()
            .flat_map(|client| client.tx.keys().chain(client.rx.keys()))
            .map(|conn| (*conn, self.world.hub.is_active(*conn)))
            .collect();
        assert!(stages.values().all(|active| *active), "a connection got stuck: {stages:?}");
        let expected: usize = self.world.hub.streams().map(|stream| self.expected_conns(stream.key)).sum();
        assert_eq!(stages.len(), expected, "connections at rest");
    }

    /// Connections that the sources and sinks of a stream should have.
    fn expected_conns(&self, key: insane_core::StreamKey) -> usize {
        let spec = self.world.hub.spec();
        let lane: Lane = Qos::default().lane();
        let isolated = key == stream_key("line1", "isolated") || key == stream_key("line2", "isolated");
        let reached = |peer: PeerIndex| spec.datapath_to(lane, peer).is_some();
        let topics = [0, 1].map(|channel| Topic { key, channel: ChannelId(channel) });
        topics
            .iter()
            .map(|topic| {
                let (sources, sinks) = self.world.hub.members_of(*topic);
                let remote = self.wanted.iter().any(|(peer, of)| of == topic && reached(PeerIndex(*peer)));
                let direct = if isolated { 0 } else { sources * sinks };
                let to = if remote || (isolated && sinks > 0) { sources } else { 0 };
                direct + to + sinks * spec.rx_datapaths(lane, isolated).len()
            })
            .sum()
    }

    fn assert_bounds(&self) {
        for client in self.world.clients.values() {
            for source in client.sources.values() {
                let direct = client.tx.values().filter(|(pair, _)| pair.0 == Some(*source) && pair.1.is_some());
                assert!(direct.count() <= FANOUT_MAX);
            }
        }
        for (account, domain) in self.world.hub.accounts().iter().zip(&self.world.hub.spec().domains) {
            let limits = domain.quota.most.named();
            assert!(account.used().named().zip(limits).all(|((_, used), (_, limit))| used <= limit));
        }
    }

    fn end(mut self) {
        let sessions: Vec<SessionId> = self.world.clients.keys().copied().collect();
        for session in sessions {
            self.world.kill(session);
        }
        for (peer, topic) in std::mem::take(&mut self.wanted) {
            self.world.interest(peer, topic, false);
        }
        self.world.assert_empty();
    }
}

fn run(seed: u64, lies: bool) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let world = World::new(some_spec(&mut random));
    let mut run = Run { random, world, uids: 0, wanted: BTreeSet::new(), excused: false };
    for _ in 0..OPERATIONS {
        run.operate(lies);
        if run.random.chance(60) {
            run.assert_joined();
        }
    }
    run.assert_joined();
    run.end();
}

fn run_seeds(lies: bool) {
    if let Ok(seed) = std::env::var("HUB_SEED") {
        return run(seed.parse().expect("HUB_SEED is a number"), lies);
    }
    for seed in 0..60 {
        let result = std::panic::catch_unwind(|| run(seed, lies));
        assert!(result.is_ok(), "seed {seed} fails; replay it with HUB_SEED={seed}");
    }
}

#[test]
fn liars_harm_nobody_and_nothing_leaks() {
    run_seeds(true);
}

#[test]
fn among_honest_clients_everything_that_belongs_together_is_joined() {
    run_seeds(false);
}

#[test]
fn random_packets_never_panic() {
    let mut random = Random(77);
    let mut world = World::new(spec(vec![datapath(&[0], true)]));
    for _ in 0..3_000 {
        let session = match random.chance(2) {
            true => world.attach(1),
            false => world.connect(2).expect("accepted"),
        };
        world.clients.get_mut(&session).into_iter().for_each(|client| client.honest = false);
        // Mostly valid messages with some bytes changed.
        let mut bytes = encode(&Request::CreateSink {
            req: 1,
            stream: StreamId(0),
            channel: ChannelId(0),
            uid: 1,
            depth: 8,
            wake: SinkWake::Fd,
            schema: None,
            line: None,
        });
        for _ in 0..random.below(4) {
            let at = random.below(bytes.len());
            bytes[at] = random.next() as u8;
        }
        bytes.truncate(1 + random.below(bytes.len()));
        world.bytes(session, &bytes);
        world.settle();
        world.kill(session);
    }
    world.assert_empty();
}
