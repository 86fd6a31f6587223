//! One host of a mesh: the hub and the membership of production, joined as the control
//! plane joins them, above [`Data`] and a simulated link.

use super::data::{Data, OVERLAY_FRAMES_MAX};
use crate::defect::Defect;
use crate::hub_host::{self, World as HubHost};
use crate::plan::{DOMAINS, Plan, StreamPlan, domain_name};
use insane_control::spec::{DatapathSpec, DomainSpec, HubSpec};
use insane_core::time::Clock;
use insane_core::{HostId, Incarnation, Lane, MonoTime, PeerIndex, Qos, Schema, SessionId, SinkId, SourceId, StreamId};
use insane_engine::Topic;
use insane_link::{Link, SendOutcome};
use insane_overlay::flow::FlowKey;
use insane_overlay::lanes::Pace;
use insane_overlay::membership::{Event, Limits, Membership};
use insane_sim::{SimClock, SimLink};
use insane_wire::control::{Event as Reply, Request, SinkWake};
use insane_wire::data::{CLOSING, DataHeader, Flags, FragmentPlan, HEADER_BYTES, Kind};
use insane_wire::overlay::{BODY_BYTES_MAX, Interest};
use std::collections::{BTreeMap, BTreeSet};

/// Overlay frames that leave in one step, as the control plane sends them.
const FRAMES_MAX: usize = 256;
/// Behind one message in so many its source says that it has closed.
const CLOSING_ONE_IN: u64 = 8;
/// Frames that a host takes in in one step.
const RECEIVE_MAX: u32 = 4096;
/// Largest payload of a frame, bytes.
const PAYLOAD_MAX: u32 = 1472 - HEADER_BYTES as u32;

/// A source of this host.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    id: SourceId,
    next: u64,
}

/// What a host sent, and what it could not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SendCounts {
    /// Data frames handed to the link.
    pub frames: u64,
    /// Data frames that the link refused: the network is full.
    pub refused: u64,
    /// Messages without anybody who listens.
    pub no_peer: u64,
    /// Overlay frames sent.
    pub overlay: u64,
}

/// One host. See the module.
pub struct Host {
    /// Its place in the plan.
    pub place: usize,
    /// What it calls itself.
    pub id: HostId,
    /// Which life.
    pub life: Incarnation,
    /// The data half.
    pub data: Data,
    /// Membership of production.
    pub membership: Membership,
    lanes: Pace,
    /// What it sent.
    pub sent: SendCounts,
    /// Events of membership at this step, for the trace.
    pub events: Vec<Event>,
    clock: SimClock,
    link: SimLink,
    hub: HubHost,
    sessions: BTreeMap<usize, SessionId>,
    streams: BTreeMap<usize, (SessionId, StreamId)>,
    /// By number of the stream.
    sinks: BTreeMap<usize, (SessionId, SinkId)>,
    sources: BTreeMap<usize, Source>,
    checks: BTreeMap<Topic, u64>,
    announced: BTreeSet<(Topic, Option<Schema>, u32)>,
    requests: u32,
}

/// The place of `peer` in the table of `host`: tables leave out oneself.
#[must_use]
pub fn index_of(host: usize, peer: usize) -> PeerIndex {
    PeerIndex(if peer < host { peer } else { peer - 1 } as u16)
}

/// The host at a place of the table of `host`.
#[must_use]
pub fn host_at(host: usize, peer: PeerIndex) -> usize {
    if peer.index() < host { peer.index() } else { peer.index() + 1 }
}

fn hub_spec(peers: usize) -> HubSpec {
    let own: Vec<u16> = (0..peers as u16).collect();
    let datapath = hub_host::datapath(&own, false);
    let heap = datapath.heaps[0].clone();
    let datapath = DatapathSpec { heaps: vec![heap; DOMAINS], ..datapath };
    let domain = |at: usize| -> DomainSpec { hub_host::domain(&domain_name(at), uid(at)..uid(at) + 1) };
    HubSpec { domains: (0..DOMAINS).map(domain).collect(), ..hub_host::spec(vec![datapath]) }
}

/// The user that is in a domain. Not 0, who may see all.
const fn uid(domain: usize) -> u32 {
    domain as u32 + 1
}

impl Host {
    /// A host in a new life, with its streams open.
    #[must_use]
    pub fn new(
        plan: &Plan,
        place: usize,
        (id, life): (HostId, Incarnation),
        link: SimLink,
        clock: SimClock,
        defect: Option<Defect>,
    ) -> Self {
        let peers = plan.members.len() - 1;
        let mut hub = HubHost::new(hub_spec(peers));
        let sessions = plan.members[place].iter().map(|domain| (*domain, hub.attach(uid(*domain)))).collect();
        hub.settle();
        let mut host = Host {
            place,
            id,
            life,
            data: Data::new(peers, life.0 ^ id.0.rotate_left(32), defect),
            membership: Membership::new(id, life, peers, Limits::default()),
            lanes: Pace::new(),
            sent: SendCounts::default(),
            events: Vec::new(),
            clock,
            link,
            hub,
            sessions,
            streams: BTreeMap::new(),
            sinks: BTreeMap::new(),
            sources: BTreeMap::new(),
            checks: plan.streams.iter().map(|stream| (stream.topic, stream.check)).collect(),
            announced: BTreeSet::new(),
            requests: 0,
        };
        for (number, stream) in plan.streams.iter().enumerate() {
            if stream.source == place {
                host.open_source(number, stream);
            }
            if stream.sinks.contains(&place) {
                host.open_sink(number, stream);
            }
        }
        host
    }

    fn ask(&mut self, session: SessionId, request: impl FnOnce(u32) -> Request) -> u32 {
        self.requests += 1;
        let req = self.requests;
        let client = self.hub.clients.get_mut(&session).unwrap_or_else(|| panic!("session {session} is gone"));
        client.asked.insert(req, u64::from(req));
        client.events.clear();
        self.hub.request(session, &request(req));
        self.hub.settle();
        self.announce();
        req
    }

    fn stream(&mut self, number: usize, stream: &StreamPlan) -> (SessionId, StreamId) {
        if let Some(open) = self.streams.get(&number) {
            return *open;
        }
        let session = self.sessions[&stream.domain];
        let name = stream.name.clone();
        self.ask(session, |req| Request::OpenStream { req, name, qos: Qos::default(), isolated: false });
        let events = &self.hub.clients[&session].events;
        let opened = events.iter().find_map(|event| match event {
            Reply::StreamOpened { stream, .. } => Some(*stream),
            _ => None,
        });
        let open = (session, opened.unwrap_or_else(|| panic!("the stream is not opened: {events:?}")));
        self.streams.insert(number, open);
        open
    }

    /// Opens a source of a stream.
    fn open_source(&mut self, number: usize, plan: &StreamPlan) {
        let (session, stream) = self.stream(number, plan);
        let channel = plan.topic.channel;
        let uid = u64::from(self.requests + 1);
        self.ask(session, |req| Request::CreateSource {
            req,
            stream,
            channel,
            uid,
            classes: Vec::new(),
            schema: None,
            keeps: false,
            line: None,
        });
        let sources = &self.hub.clients[&session].sources;
        let Some((id, _)) = sources.iter().find(|(_, of)| **of == uid) else { panic!("the source is refused") };
        self.sources.insert(number, Source { id: *id, next: 0 });
    }

    /// Opens a sink of a stream.
    pub fn open_sink(&mut self, number: usize, plan: &StreamPlan) {
        let (session, stream) = self.stream(number, plan);
        let channel = plan.topic.channel;
        let uid = u64::from(self.requests + 1);
        let wake = SinkWake::Page;
        self.ask(session, |req| Request::CreateSink {
            req,
            stream,
            channel,
            uid,
            depth: 8,
            wake,
            schema: None,
            line: None,
        });
        let sinks = &self.hub.clients[&session].sinks;
        let Some((id, _)) = sinks.iter().find(|(_, of)| **of == uid) else { panic!("the sink is refused") };
        self.sinks.insert(number, (session, *id));
        self.data.sinks.insert(plan.topic);
    }

    /// Closes it.
    pub fn close_sink(&mut self, number: usize, plan: &StreamPlan) {
        let Some((session, sink)) = self.sinks.remove(&number) else { return };
        self.data.sinks.remove(&plan.topic);
        if let Some(client) = self.hub.clients.get_mut(&session) {
            client.forget_sink(sink);
        }
        self.ask(session, |req| Request::CloseSink { req, sink });
    }

    /// Tells membership what the hub wants told.
    fn announce(&mut self) {
        let now = self.hub.told.clone();
        for (topic, schema, joins) in now.symmetric_difference(&self.announced) {
            let interest = Interest {
                stream: topic.key,
                check: self.checks[topic],
                channel: topic.channel,
                schema: *schema,
                joins: *joins,
            };
            let on = now.contains(&(*topic, *schema, *joins));
            self.membership.set_interest(interest, on).unwrap_or_else(|error| panic!("{error}"));
        }
        self.announced = now;
    }

    /// What this host itself tells the others, as it should be.
    #[must_use]
    pub fn wants(&self, plan: &Plan) -> BTreeSet<Interest> {
        let streams = plan.streams.iter().filter(|stream| stream.sinks.contains(&self.place));
        let interest = |stream: &StreamPlan| Interest {
            stream: stream.topic.key,
            check: stream.check,
            channel: stream.topic.channel,
            schema: None,
            joins: 0,
        };
        streams.map(interest).collect()
    }

    /// The hosts to which the messages of a conversation go.
    #[must_use]
    pub fn route(&self, topic: Topic) -> BTreeSet<usize> {
        let route = self.hub.datapaths[0].routes.get(&topic);
        route.into_iter().flat_map(|route| &route.peers).map(|peer| host_at(self.place, *peer)).collect()
    }

    /// The streams that it is the source of.
    pub fn sources(&self) -> impl Iterator<Item = usize> + '_ {
        self.sources.keys().copied()
    }

    /// What is kept of the peers' interests: the hub's table, and the largest copy of one peer.
    #[must_use]
    pub fn interests_kept(&self) -> usize {
        (0..self.data.lives.len())
            .map(|peer| self.membership.interests_of(PeerIndex(peer as u16)).count())
            .max()
            .unwrap_or(0)
    }

    /// The host's own clock.
    #[must_use]
    pub fn now(&self) -> MonoTime {
        self.clock.now()
    }

    /// Takes in what has arrived, and does what is due.
    pub fn step(&mut self) {
        let now = self.clock.now();
        self.data.now = now;
        self.link.receive(RECEIVE_MAX, true, &mut self.data);
    }

    /// The control plane's turn.
    pub fn control(&mut self) {
        let now = self.clock.now();
        let mut taken = 0;
        while let Some((peer, body)) = self.data.overlay.pop_front() {
            self.membership.on_frame(now, peer, &body);
            self.pass_events();
            taken += 1;
            assert!(taken <= 64 * OVERLAY_FRAMES_MAX, "frames do not come faster than time");
        }
        if self.membership.next_deadline().is_none_or(|due| due > now) {
            return;
        }
        let mut body = [0; BODY_BYTES_MAX];
        for _ in 0..FRAMES_MAX {
            let Some((peer, len)) = self.membership.poll(now, &mut body) else { break };
            let head = DataHeader::overlay(self.id, self.life, len as u32).encode();
            // What is refused is repeated by the overlay itself.
            let lane = self.lanes.lane(now, peer, &body[..len]);
            let outcome = self.link.send(peer, lane, &head, body[..len].into());
            self.sent.overlay += u64::from(outcome == SendOutcome::Sent);
        }
        self.pass_events();
    }

    fn pass_events(&mut self) {
        while let Some(event) = self.membership.next_event() {
            match event {
                Event::PeerUp { peer, host, incarnation } | Event::PeerIncarnation { peer, host, incarnation } => {
                    self.hub.hub.peer_gone(peer);
                    self.data.set_life(peer, host, incarnation);
                }
                Event::PeerDown { peer } => self.hub.hub.peer_gone(peer),
                Event::RemoteInterest { peer, interest, on } => {
                    let topic = Topic { key: interest.stream, channel: interest.channel };
                    self.hub.hub.remote_interest(peer, topic, interest.check, (interest.schema, interest.joins), on);
                }
                Event::Collision { .. } | Event::DuplicateHostId { .. } | Event::InterestRefused { .. } => {}
            }
            self.hub.pump();
            if !matches!(event, Event::RemoteInterest { .. }) {
                self.events.push(event);
            }
        }
        self.hub.settle();
    }

    /// The flow and the number of the next message of a stream.
    #[must_use]
    pub fn next_message(&self, number: usize, topic: Topic) -> Option<(FlowKey, u64)> {
        let source = self.sources.get(&number)?;
        let key = FlowKey { host: self.id, incarnation: self.life, source: source.id, stream: topic.key };
        Some((key, source.next))
    }

    /// Sends a message to everybody who listens; behind some of them, that the source has closed.
    pub fn emit(&mut self, number: usize, topic: Topic, payload: &[u8]) {
        let Some(source) = self.sources.get_mut(&number) else { return };
        let sequence = source.next;
        source.next += 1;
        let Some(route) = self.hub.datapaths[0].routes.get(&topic) else {
            self.sent.no_peer += 1;
            return;
        };
        let Some(plan) = FragmentPlan::new(payload.len() as u32, PAYLOAD_MAX) else { return };
        let (host, incarnation, source) = (self.id, self.life, source.id);
        let of = |message_len, fragment_offset| DataHeader {
            kind: Kind::Data,
            lane: Lane::LAST,
            flags: Flags::NONE,
            stream: topic.key,
            host,
            incarnation,
            sequence,
            source_instant: 0,
            channel: topic.channel,
            source,
            message_len,
            fragment_offset,
        };
        for fragment in plan {
            let head = of(payload.len() as u32, fragment.offset);
            let part = &payload[fragment.offset as usize..][..fragment.len as usize];
            for peer in &route.peers {
                match self.link.send(*peer, Lane::LAST, &head.encode(), part.into()) {
                    SendOutcome::Sent => self.sent.frames += 1,
                    SendOutcome::Busy | SendOutcome::Failed => self.sent.refused += 1,
                }
            }
        }
        if sequence.is_multiple_of(CLOSING_ONE_IN) {
            // True of the last message at most.
            let end = DataHeader { kind: Kind::Fence, sequence: sequence + 1, source_instant: CLOSING, ..of(0, 0) };
            for peer in &route.peers {
                let none: &[u8] = &[];
                match self.link.send(*peer, Lane::LAST, &end.encode(), none.into()) {
                    SendOutcome::Sent => self.sent.frames += 1,
                    SendOutcome::Busy | SendOutcome::Failed => self.sent.refused += 1,
                }
            }
        }
    }
}
