//! A host and clients in miniature: carries out what the hub wants and checks, on
//! the way, everything that must always hold.
#![allow(dead_code, reason = "each test uses its part")]

pub mod client;
pub mod script;

use client::Client;
use insane_control::action::{Action, Beside, Note, ObjectId, ObjectKind, Route, Topic, Writer};
use insane_control::hub::{Hub, Packet};
use insane_control::quota::{Amounts, Quota};
use insane_control::spec::{
    AccessRule, Credentials, DatapathSpec, DomainSpec, HeapSpec, HubSpec, Origin, RealtimeRule, RegionSizes,
};
use insane_core::{
    ConnId, DatapathIndex, DomainIndex, Lane, MonoTime, Nanos, PeerIndex, Schema, SessionId, StreamKey, stream_check,
    stream_key,
};
use insane_wire::control::{ClassSpec, Code, Event, Hello, Request, Role, encode, encode_hello};
use std::collections::{BTreeMap, BTreeSet};

/// Users 0 to 9 are in domain "line1", 10 to 19 in "line2".
pub fn domain(name: &str, uids: std::ops::Range<u32>) -> DomainSpec {
    DomainSpec {
        name: name.into(),
        access: vec![AccessRule { uids: uids.collect(), gids: BTreeSet::new() }],
        quota: Quota { most: Amounts { bytes: 64 << 20, ..Amounts::UNLIMITED }, requests_per_second: 1_000_000 },
        isolated: false,
        streams: Vec::new(),
        realtime: RealtimeRule::default(),
    }
}

pub fn datapath(peers: &[u16], may_sleep: bool) -> DatapathSpec {
    let heap = HeapSpec::new(&[ClassSpec { size: 1500, count: 100 }]).unwrap();
    DatapathSpec {
        may_sleep,
        lanes: [true; 8],
        has_links: !peers.is_empty(),
        peers: peers.iter().map(|peer| PeerIndex(*peer)).collect(),
        tx_depth: 64,
        heaps: vec![heap.clone(), heap],
        slots: None,
        allows_unscheduled: true,
    }
}

pub fn spec(datapaths: Vec<DatapathSpec>) -> HubSpec {
    let sizes = RegionSizes {
        cells: |depth| (u64::from(depth) + 1) * 128,
        returns: |places| 128 + u64::from(places) * 8,
        counters: |lines| u64::from(lines) * 128,
        wake_page: 4096,
    };
    HubSpec {
        domains: vec![domain("line1", 0..10), domain("line2", 10..20)],
        datapaths,
        operators: BTreeSet::from([0]),
        counter_lines: 64,
        sizes,
        cores: Vec::new(),
    }
}

#[derive(Debug)]
pub struct Object {
    pub kind: ObjectKind,
    pub writer: Writer,
    pub domain: Option<DomainIndex>,
    pub given: bool,
    pub mapped: bool,
    pub sealed: bool,
}

/// What one datapath was told.
#[derive(Debug, Default)]
pub struct DatapathModel {
    pub tx: BTreeMap<ConnId, Topic>,
    pub rx: BTreeMap<ConnId, Topic>,
    /// The lane of each source.
    pub lanes: BTreeMap<ConnId, Lane>,
    pub routes: BTreeMap<Topic, Route>,
    pub doorbells: BTreeSet<SessionId>,
    /// Given, and not there yet.
    pub coming: BTreeSet<ConnId>,
    /// The last table of slots.
    pub slots: Vec<insane_scheduler::TimedStream>,
    /// Links of those that go by another than their routes say, by number.
    pub slot_links: Vec<(u16, u8)>,
    /// How many tables it was told.
    pub tables: u32,
    /// When it was to take over, if that was said.
    pub slots_at: Option<insane_core::MonoTime>,
    /// The arrival contracts of the last table.
    pub arrivals: insane_engine::LaneArrivals,
    /// Told to remove; not confirmed yet.
    pub leaving: BTreeSet<ConnId>,
    /// By which links it was told to go, in order.
    pub ways: Vec<WayTold>,
}

/// What a datapath is told of the link to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WayTold {
    /// For messages of one route.
    Route(PeerIndex, Option<u8>),
    /// For all others.
    Reach(PeerIndex, u8),
}

pub struct World {
    pub hub: Hub,
    pub now: MonoTime,
    pub clients: BTreeMap<SessionId, Client>,
    pub objects: BTreeMap<ObjectId, Object>,
    pub datapaths: Vec<DatapathModel>,
    pub announced: BTreeSet<(Topic, Option<Schema>)>,
    /// The same, with the numbers of joins.
    pub told: BTreeSet<(Topic, Option<Schema>, u32)>,
    /// Peers that were told of another schema.
    pub refusals: Vec<(PeerIndex, Topic, Schema)>,
    /// Peers for which sources were asked for the past.
    pub welcomed: Vec<(Topic, PeerIndex)>,
    pub offered: BTreeSet<StreamKey>,
    pub notes: Vec<Note>,
    pub closed: BTreeMap<SessionId, (Code, String)>,
    pub statuses: Vec<(SessionId, u32)>,
    pub reloads: Vec<(SessionId, u32)>,
    /// Schedules, threads and memory that the server was asked for.
    pub favours: Vec<(SessionId, u32)>,
    /// Of the next objects, which cannot be made.
    pub fail_objects: Box<dyn FnMut(&ObjectKind) -> bool + Send>,
    pub creates: u64,
    /// Connections of sources that go on: their datapath was to read nothing more of them.
    pub ended: BTreeSet<ConnId>,
}

impl World {
    pub fn new(spec: HubSpec) -> Self {
        let datapaths = spec.datapaths.iter().map(|_| DatapathModel::default()).collect();
        World {
            hub: Hub::new(spec),
            now: MonoTime(1),
            clients: BTreeMap::new(),
            objects: BTreeMap::new(),
            datapaths,
            announced: BTreeSet::new(),
            told: BTreeSet::new(),
            welcomed: Vec::new(),
            refusals: Vec::new(),
            offered: BTreeSet::new(),
            notes: Vec::new(),
            closed: BTreeMap::new(),
            statuses: Vec::new(),
            reloads: Vec::new(),
            favours: Vec::new(),
            fail_objects: Box::new(|_| false),
            creates: 0,
            ended: BTreeSet::new(),
        }
    }

    /// Connects without a HELLO.
    pub fn connect(&mut self, uid: u32) -> Option<SessionId> {
        let who = Credentials { pid: 1000 + uid, uid, gid: uid, groups: Vec::new() };
        self.hub.accept(Origin::Socket(who), self.now).ok()
    }

    /// Connects and says HELLO; the session is in `clients` if it was let in.
    pub fn attach(&mut self, uid: u32) -> SessionId {
        let session = self.connect(uid).expect("accepted");
        self.greet(session, uid, Role::Application, None);
        session
    }

    pub fn greet(&mut self, session: SessionId, uid: u32, role: Role, domain: Option<&str>) {
        self.clients.insert(session, Client::new(uid));
        let hello = Hello { name: format!("client {uid}"), domain: domain.map(str::to_owned), role };
        self.bytes(session, &encode_hello(&hello));
    }

    /// Sends raw bytes.
    pub fn bytes(&mut self, session: SessionId, bytes: &[u8]) {
        self.hub.packet(session, Packet::plain(bytes), self.now);
        self.pump();
    }

    pub fn request(&mut self, session: SessionId, request: &Request) {
        self.bytes(session, &encode(request));
    }

    /// Each of these, all of this number, is asked for by a tenant, by a tool and by who runs the
    /// runtime: the last gets it, the others are told `words`.
    pub fn is_for_operators_only(&mut self, requests: &[Request], number: u32, words: &str) {
        let user = self.attach(1);
        let tool = self.connect(3).unwrap();
        self.greet(tool, 3, Role::Observer, None);
        let operator = self.connect(0).unwrap();
        self.greet(operator, 0, Role::Observer, None);
        for request in requests {
            for session in [user, tool, operator] {
                self.request(session, request);
                self.settle();
            }
            for session in [user, tool] {
                let (_, code, reason) = self.clients[&session].failures.last().unwrap();
                assert!(*code == Code::Access && reason.contains(words), "{reason}");
            }
            assert_eq!(std::mem::take(&mut self.favours), [(operator, number)], "{request:?}");
        }
    }

    pub fn kill(&mut self, session: SessionId) {
        self.clients.remove(&session);
        self.hub.gone(session);
        self.pump();
    }

    pub fn wait(&mut self, time: Nanos) {
        self.now += time;
        self.hub.tick(self.now);
        self.hub.tend_stands(self.now);
        self.pump();
    }

    pub fn interest(&mut self, peer: u16, topic: Topic, on: bool) {
        let check = self.check_of(topic);
        self.interest_in(peer, topic, check, None, on);
    }

    pub fn interest_in(&mut self, peer: u16, topic: Topic, check: u64, schema: Option<Schema>, on: bool) {
        self.hub.remote_interest(PeerIndex(peer), topic, check, (schema, 0), on);
        self.pump();
    }

    /// Another sink has joined at a peer that had some: the new word comes before the old one goes.
    pub fn join_again(&mut self, peer: u16, topic: Topic, joins: u32) {
        let check = self.check_of(topic);
        self.hub.remote_interest(PeerIndex(peer), topic, check, (None, joins), true);
        self.hub.remote_interest(PeerIndex(peer), topic, check, (None, joins - 1), false);
        self.pump();
    }

    /// The check of the stream that the tests mean by a key.
    pub fn check_of(&self, topic: Topic) -> u64 {
        let names = ["io", "video", "isolated"].map(|name| (name, ["line1", "line2"]));
        let all = names.iter().flat_map(|(name, domains)| domains.iter().map(move |domain| (*domain, *name)));
        let mut found = all.filter(|(domain, name)| stream_key(domain, name) == topic.key);
        found.next().map_or(0, |(domain, name)| stream_check(domain, name))
    }

    /// The datapaths get all that they were given.
    pub fn attach_all(&mut self) {
        let coming: Vec<ConnId> =
            self.datapaths.iter_mut().flat_map(|datapath| std::mem::take(&mut datapath.coming)).collect();
        for conn in coming {
            self.hub.attached(conn);
            self.pump();
        }
    }

    /// The datapaths confirm all that they were told to remove.
    pub fn detach_all(&mut self) {
        let leaving: Vec<ConnId> =
            self.datapaths.iter_mut().flat_map(|datapath| std::mem::take(&mut datapath.leaving)).collect();
        for conn in leaving {
            self.hub.detached(conn);
            self.pump();
        }
    }

    /// Lets one client handle its next event; false if it has none.
    pub fn step(&mut self, session: SessionId) -> bool {
        let Some(client) = self.clients.get_mut(&session) else { return false };
        let Some((event, beside)) = client.inbox.pop_front() else { return false };
        let answers = client.handle(&event, &beside);
        for (answer, object) in answers {
            if let Some(object) = object.and_then(|object| self.objects.get_mut(&object)) {
                object.mapped = true;
            }
            self.request(session, &answer);
        }
        true
    }

    /// Lets all clients handle all events, and the datapaths confirm.
    pub fn settle(&mut self) {
        loop {
            let sessions: Vec<SessionId> = self.clients.keys().copied().collect();
            let moved = sessions.into_iter().filter(|session| self.step(*session)).count();
            let busy = |datapath: &DatapathModel| !(datapath.leaving.is_empty() && datapath.coming.is_empty());
            let is_busy = self.datapaths.iter().any(busy);
            self.attach_all();
            self.detach_all();
            if moved == 0 && !is_busy {
                return;
            }
        }
    }

    /// Carries out what the hub wants.
    pub fn pump(&mut self) {
        self.pump_once();
        while self.hub.is_readmitting() {
            self.hub.go_on();
            self.pump_once();
        }
    }

    /// The same, without what the hub goes on with between events.
    pub fn pump_once(&mut self) {
        while let Some(action) = self.hub.next_action() {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send { session, event, beside } => self.deliver(session, event, beside),
            Action::Close { session, code, reason } => {
                let fate = format!("{code:?}: {reason}");
                if let Some(client) = self.clients.remove(&session) {
                    let innocent = client.honest && !matches!(code, Code::Shutdown | Code::Resources);
                    assert!(!innocent || !client.welcomed, "an honest session {session} was closed: {fate}");
                }
                self.closed.insert(session, (code, reason));
            }
            Action::Create { object, kind, writer } => self.create(object, kind, writer),
            Action::Seal(object) => {
                let row = self.objects.get_mut(&object).expect("sealed after its end");
                assert!(row.kind.is_memory() && !row.sealed, "sealed twice, or no memory");
                assert!(row.mapped || matches!(row.writer, Writer::Datapath(_)), "sealed before its writer mapped it");
                row.sealed = true;
            }
            Action::Drop(object) => {
                self.objects.remove(&object).expect("dropped twice");
            }
            Action::Interest { topic, schema, joins, on, .. } => {
                let there = |datapath: &DatapathModel| {
                    datapath.rx.iter().any(|(conn, of)| *of == topic && !datapath.coming.contains(conn))
                };
                assert!(!on || self.datapaths.iter().any(there), "peers are told of a sink that no message finds yet");
                let told = (topic, schema, joins);
                let changed = if on { self.told.insert(told) } else { self.told.remove(&told) };
                assert!(changed, "interest repeated");
                self.announced = self.told.iter().map(|(topic, schema, _)| (*topic, *schema)).collect();
            }
            Action::Refuse { peer, topic, ours, .. } => self.refusals.push((peer, topic, ours)),
            Action::Offer { key, on, .. } => {
                let changed = if on { self.offered.insert(key) } else { self.offered.remove(&key) };
                assert!(changed, "offer repeated");
            }
            Action::Status { session, req } => self.statuses.push((session, req)),
            Action::Reload { session, req, .. } => self.reloads.push((session, req)),
            Action::Schedule { session, req, .. }
            | Action::PlaceThread { session, req, .. }
            | Action::LockMemory { session, req, .. }
            | Action::Trace { session, req, .. }
            | Action::MoveStream { session, req, .. } => self.favours.push((session, req)),
            Action::Note(note) => self.notes.push(note),
            other => self.command(other),
        }
    }

    fn create(&mut self, object: ObjectId, kind: ObjectKind, writer: Writer) {
        self.creates += 1;
        if (self.fail_objects)(&kind) {
            self.hub.object_failed(object, "no descriptors left");
            return;
        }
        let domain = match writer {
            Writer::Session(session) => self.hub.domain_of(session),
            Writer::Datapath(_) | Writer::Adopted => None,
        };
        // What is adopted was mapped and sealed in an earlier life.
        let adopted = writer == Writer::Adopted;
        let row = Object { kind, writer, domain, given: adopted, mapped: adopted, sealed: adopted };
        assert!(self.objects.insert(object, row).is_none(), "an object's number was reused");
    }

    fn deliver(&mut self, session: SessionId, event: Event, beside: Vec<Beside>) {
        assert!(beside.len() <= insane_wire::control::FDS_MAX);
        assert!(encode(&event).len() <= insane_wire::control::PACKET_BYTES_MAX);
        for item in &beside {
            self.check_beside(session, *item);
        }
        if let Some(client) = self.clients.get_mut(&session) {
            if let Event::Retire { conn } = &event
                && client.tx.contains_key(conn)
            {
                let reads =
                    |datapath: &DatapathModel| datapath.tx.contains_key(conn) || datapath.leaving.contains(conn);
                assert!(!self.datapaths.iter().any(reads), "its buffers are its own while a datapath reads them");
            }
            client.inbox.push_back((event, beside));
        }
    }

    fn check_beside(&mut self, session: SessionId, item: Beside) {
        let domain = self.hub.domain_of(session);
        if let Beside::DatapathHeap(_, of) = item {
            assert!(domain.is_none_or(|domain| domain == of), "the heap of another domain was shown");
        }
        let Some(object) = item.object() else { return };
        let row = self.objects.get_mut(&object).expect("sent after its end");
        if let (Some(of), Some(to)) = (row.domain, domain) {
            assert_eq!(of, to, "an object crossed a domain's border");
        }
        match item {
            Beside::ReadWrite(_) => {
                assert!(row.kind.is_memory() && !row.sealed && !row.given && row.writer == Writer::Session(session));
                row.given = true;
            }
            Beside::ReadOnly(_) => assert!(row.kind.is_memory() && row.sealed, "shown before it was sealed"),
            Beside::WakeReader(_) => {
                assert!(row.kind == ObjectKind::WakeSocket && row.writer == Writer::Session(session));
            }
            Beside::WakeWriter(_) => assert_eq!(row.kind, ObjectKind::WakeSocket),
            Beside::Doorbell(_) => {
                assert!(row.kind == ObjectKind::Doorbell && row.writer == Writer::Session(session));
            }
            Beside::DatapathWakePage(_) | Beside::DatapathHeap(..) | Beside::DatapathTrace(_) => {}
        }
    }

    fn command(&mut self, action: Action) {
        match action {
            Action::AddTx(add) => {
                self.datapath(add.datapath).coming.insert(add.conn);
                let objects = [Some(add.rings.cells), Some(add.rings.returns), add.heap];
                self.check_handed_over(&objects);
                let datapath = self.datapath(add.datapath);
                assert!(datapath.routes.contains_key(&add.topic), "a connection without a route");
                assert!(datapath.tx.insert(add.conn, add.topic).is_none());
                datapath.lanes.insert(add.conn, add.lane);
            }
            Action::AddRx(add) => {
                self.check_handed_over(&[Some(add.rings.cells), Some(add.rings.returns), add.wake_page]);
                let datapath = self.datapath(add.datapath);
                assert!(datapath.rx.insert(add.conn, add.topic).is_none());
                datapath.coming.insert(add.conn);
            }
            Action::RemoveTx { datapath, conn, at_once } => {
                if at_once {
                    self.ended.insert(conn);
                }
                let datapath = self.datapath(datapath);
                datapath.coming.remove(&conn);
                datapath.lanes.remove(&conn);
                let topic = datapath.tx.remove(&conn).expect("removed what was never there");
                assert!(datapath.routes.contains_key(&topic), "the route went before the last messages");
                datapath.leaving.insert(conn);
            }
            Action::SetLane { datapath, conn, lane } => {
                let datapath = self.datapath(datapath);
                assert!(datapath.tx.contains_key(&conn), "a lane for what is not there");
                let before = datapath.lanes.insert(conn, lane).expect("it has a lane");
                assert_eq!(before.is_real_time(), lane.is_real_time(), "from one group to the other");
            }
            Action::RemoveRx { datapath, conn } => {
                let datapath = self.datapath(datapath);
                datapath.coming.remove(&conn);
                datapath.rx.remove(&conn).expect("removed what was never there");
                datapath.leaving.insert(conn);
            }
            Action::AddDoorbell { datapath, session, object } => {
                assert!(self.objects.contains_key(&object));
                assert!(self.datapath(datapath).doorbells.insert(session));
            }
            Action::RemoveDoorbell { datapath, session } => {
                assert!(self.datapath(datapath).doorbells.remove(&session));
            }
            Action::Welcome { datapath, topic, peer } => {
                assert!(self.hub.spec().datapaths[datapath.index()].peers.contains(&peer));
                self.welcomed.push((topic, peer));
            }
            Action::SetRoute { datapath, topic, route, .. } => {
                assert!(!route.peers.is_empty() || route.local, "a route to nowhere");
                let there = |datapath: &DatapathModel| {
                    datapath.rx.iter().any(|(conn, of)| *of == topic && !datapath.coming.contains(conn))
                };
                let is_whole = !route.local || !route.peers.is_empty() || there(self.datapath(datapath));
                assert!(is_whole, "a route to sinks that no message finds yet");
                let reached = &self.hub.spec().datapaths[datapath.index()].peers;
                assert!(route.peers.iter().all(|peer| reached.contains(peer)));
                let way = |peer: &PeerIndex| WayTold::Route(*peer, route.links.get(peer).copied());
                self.datapath(datapath).ways.extend(route.peers.iter().map(way));
                self.datapath(datapath).routes.insert(topic, route);
            }
            Action::StageSlots { datapath, streams, links, arrivals, at } => {
                let datapath = &mut self.datapaths[datapath.index()];
                (datapath.slots, datapath.slot_links, datapath.slots_at) = (streams, links, at);
                datapath.arrivals = *arrivals;
                datapath.tables += 1;
            }
            Action::SetReach { datapath, peer, link } => {
                self.datapath(datapath).ways.push(WayTold::Reach(peer, link));
            }
            Action::RemoveRoute { datapath, topic } => {
                let datapath = self.datapath(datapath);
                datapath.routes.remove(&topic).expect("removed what was never there");
                assert!(datapath.tx.values().all(|of| *of != topic), "a connection lost its route");
            }
            other => unreachable!("{other:?}"),
        }
    }

    fn check_handed_over(&self, objects: &[Option<ObjectId>]) {
        for object in objects.iter().flatten() {
            assert!(self.objects[object].sealed, "handed to a datapath before it was sealed");
        }
    }

    fn datapath(&mut self, at: DatapathIndex) -> &mut DatapathModel {
        &mut self.datapaths[at.index()]
    }

    /// Everything is gone: nothing may be left anywhere.
    pub fn assert_empty(&mut self) {
        self.detach_all();
        self.wait(Nanos::from_secs(3));
        assert_eq!(self.hub.table_sizes(), insane_control::hub::view::TableSizes::default());
        assert!(self.objects.is_empty(), "objects leaked: {:?}", self.objects);
        for datapath in &self.datapaths {
            assert!(datapath.tx.is_empty() && datapath.rx.is_empty() && datapath.doorbells.is_empty());
            assert!(datapath.routes.is_empty() && datapath.leaving.is_empty());
        }
        assert!(self.announced.is_empty() && self.offered.is_empty());
        for account in self.hub.accounts() {
            assert_eq!(*account.used(), Amounts::default());
        }
    }
}
