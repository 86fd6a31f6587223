//! What reports may know of the hub's tables.

use super::Hub;
use super::tables::{Channel, Contract, Session, Stage};
use crate::action::{ObjectId, Topic};
use crate::quota::Account;
use crate::spec::Credentials;
use insane_config::StreamPlan;
use insane_core::{
    ChannelId, ConnId, DatapathIndex, DomainIndex, Lane, PeerIndex, Qos, Schema, SessionId, SinkId, SourceId, StreamKey,
};
use insane_scheduler::TimedStream;
use insane_wire::control::{Role, SinkWake};
use std::collections::{BTreeMap, BTreeSet};

/// How full the tables are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableSizes {
    /// Sockets that have not said HELLO.
    pub greeting: usize,
    /// Sessions.
    pub sessions: usize,
    /// Streams, once for each domain and name.
    pub contracts: usize,
    /// Opened streams.
    pub streams: usize,
    /// Sources.
    pub sources: usize,
    /// Sinks.
    pub sinks: usize,
    /// Conversations.
    pub channels: usize,
    /// Connections.
    pub conns: usize,
    /// Objects that the control plane holds.
    pub objects: usize,
    /// Uids in use.
    pub uids: usize,
    /// Pairs of ends that could not be joined yet.
    pub unjoined: usize,
}

/// A session.
#[derive(Clone, Debug)]
pub struct SessionView<'a> {
    /// Its number.
    pub id: SessionId,
    /// What it calls itself.
    pub name: &'a str,
    /// Who it is.
    pub who: &'a Credentials,
    /// Where it is.
    pub domain: DomainIndex,
    /// What it is for.
    pub role: Role,
    /// Streams it has open.
    pub streams: usize,
    /// Bytes of shared memory that are charged for it, direct connections apart.
    pub bytes: u64,
    /// Its counters page.
    pub counters: Option<ObjectId>,
    /// The access rules would not let it in any more.
    pub outside_rules: bool,
}

/// A stream.
#[derive(Clone, Debug)]
pub struct StreamView<'a> {
    /// Its wire name.
    pub key: StreamKey,
    /// Its domain.
    pub domain: DomainIndex,
    /// Its name.
    pub name: &'a str,
    /// Its quality of service.
    pub qos: Qos,
    /// What its first opener asked for.
    pub asked: Qos,
    /// What the configuration fixes or bounds of it.
    pub declared: Option<&'a StreamPlan>,
    /// What of that holds only when it is opened anew, in words.
    pub later: String,
    /// Its lane.
    pub lane: Lane,
    /// Whether local messages, too, go through a datapath.
    pub isolated: bool,
    /// The datapath that serves its lane.
    pub datapath: Option<DatapathIndex>,
    /// Peers that have a sink.
    pub peers: BTreeSet<PeerIndex>,
    /// Its channels that have a source or a sink here.
    pub channels: Vec<ChannelView>,
}

/// A stream that has a source here, as far as the policy looks at it.
#[derive(Clone, Debug)]
pub struct FlowView<'a> {
    /// Its wire name.
    pub key: StreamKey,
    /// Its domain.
    pub domain: DomainIndex,
    /// Its name.
    pub name: &'a str,
    /// Its quality of service.
    pub qos: Qos,
    /// The datapath that serves its lane.
    pub datapath: Option<DatapathIndex>,
    /// Peers that have a sink of a channel which has a source here.
    pub peers: BTreeSet<PeerIndex>,
}

/// A channel of a stream.
#[derive(Clone, Debug)]
pub struct ChannelView {
    /// Its number.
    pub channel: ChannelId,
    /// Its sources on this host.
    pub sources: Vec<SourceView>,
    /// Its sinks on this host.
    pub sinks: Vec<SinkView>,
    /// Peers that have a sink.
    pub peers: BTreeSet<PeerIndex>,
    /// Whether the peers were told that there is a sink here.
    pub announced: bool,
    /// Peers whose sinks expect another schema: they get nothing of these sources' schema.
    pub refuses: Vec<(PeerIndex, Schema, Schema)>,
    /// Peers whose sources are of another schema: sinks here, of this schema, get nothing.
    pub refused_by: Vec<(PeerIndex, Schema, Schema)>,
}

/// A source.
#[derive(Clone, Debug)]
pub struct SourceView {
    /// Its number.
    pub id: SourceId,
    /// Whose it is.
    pub session: SessionId,
    /// The line of its session's counters page that it counts in, as the client says.
    pub line: Option<u32>,
    /// Buffers of its heap.
    pub buffers: u32,
    /// Bytes of its heap.
    pub heap_bytes: u64,
    /// Active connections to sinks of this host that do not only watch.
    pub direct: usize,
    /// Datapaths with an active connection.
    pub datapaths: Vec<DatapathIndex>,
    /// Its slots, if it has any.
    pub slot: Option<TimedStream>,
    /// A schedule of several hosts reserves them.
    pub is_reserved: bool,
}

/// A sink.
#[derive(Clone, Debug)]
pub struct SinkView {
    /// Its number.
    pub id: SinkId,
    /// Whose it is.
    pub session: SessionId,
    /// The line of its session's counters page that it counts in, as the client says.
    pub line: Option<u32>,
    /// Messages of each of its rings.
    pub depth: u32,
    /// How it is woken.
    pub wake: SinkWake,
    /// Whether it only watches.
    pub observes: bool,
    /// Active connections from sources of this host.
    pub direct: usize,
    /// Datapaths with an active connection.
    pub datapaths: Vec<DatapathIndex>,
    /// Bytes of its active rings.
    pub ring_bytes: u64,
}

impl Hub {
    /// How full the tables are.
    #[must_use]
    pub fn table_sizes(&self) -> TableSizes {
        TableSizes {
            greeting: self.greeting.len(),
            sessions: self.sessions.len(),
            contracts: self.contracts.len(),
            streams: self.streams.len(),
            sources: self.sources.len(),
            sinks: self.sinks.len(),
            channels: self.channels.len(),
            conns: self.conns.len(),
            objects: self.objects.len(),
            uids: self.uids.len(),
            unjoined: self.unjoined.len(),
        }
    }

    /// All sessions that were let in.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView<'_>> {
        self.sessions.iter().map(|(id, row)| SessionView {
            id: *id,
            name: &row.name,
            who: row.origin.credentials(),
            domain: row.domain,
            role: row.role,
            streams: row.streams.len(),
            bytes: self.bytes_of(*id),
            counters: row.counters,
            outside_rules: row.role == Role::Application && self.is_outside_rules(row),
        })
    }

    /// Whether the access rules would not let a session in any more.
    pub(super) fn is_outside_rules(&self, row: &Session) -> bool {
        !self.spec.domain(row.domain).admits(&row.origin)
    }

    fn bytes_of(&self, session: SessionId) -> u64 {
        let own = self.sessions.get(&session).map_or(0, |row| row.charge.bytes);
        let sources = self.sources.values().filter(|row| row.session == session).map(|row| row.charge.bytes);
        let sinks = self.sinks.values().filter(|row| row.session == session).map(|row| row.charge.bytes);
        own + sources.sum::<u64>() + sinks.sum::<u64>()
    }

    /// The domain of a session.
    #[must_use]
    pub fn domain_of(&self, session: SessionId) -> Option<DomainIndex> {
        self.sessions.get(&session).map(|row| row.domain)
    }

    /// The process of a session, as the kernel numbered it when it attached; 0: out of sight.
    #[must_use]
    pub fn pid_of(&self, session: SessionId) -> Option<u32> {
        self.sessions.get(&session).map(|row| row.origin.credentials().pid)
    }

    /// Whether a session may see the state of all domains.
    #[must_use]
    pub fn is_operator(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|row| self.spec.is_operator(&row.origin))
    }

    /// What a session calls itself.
    #[must_use]
    pub fn name_of(&self, session: SessionId) -> Option<&str> {
        self.sessions.get(&session).map(|row| row.name.as_str())
    }

    /// All streams that are open.
    pub fn streams(&self) -> impl Iterator<Item = StreamView<'_>> {
        self.contracts.iter().map(|(key, row)| {
            let first = Topic { key: *key, channel: ChannelId(0) };
            let last = Topic { key: *key, channel: ChannelId(u32::MAX) };
            let channels = || self.channels.range(first..=last);
            let interested = |channel: &Channel| -> BTreeSet<PeerIndex> {
                channel.peers.iter().filter(|sinks| sinks.check == row.check).map(|sinks| sinks.peer).collect()
            };
            let in_use = |channel: &Channel| !channel.sources.is_empty() || !channel.sinks.is_empty();
            StreamView {
                key: *key,
                domain: row.domain,
                name: &row.name,
                qos: row.qos,
                asked: row.asked,
                declared: self.declared(row),
                later: self.later(row),
                lane: row.qos.lane(),
                isolated: row.isolated,
                datapath: self.spec.datapath_of(row.qos.lane()),
                peers: channels().flat_map(|(_, channel)| interested(channel)).collect(),
                channels: channels()
                    .filter(|(_, channel)| in_use(channel))
                    .map(|(topic, channel)| ChannelView {
                        channel: topic.channel,
                        sources: channel.sources.iter().map(|id| self.source_view(*id)).collect(),
                        sinks: channel.sinks.iter().map(|id| self.sink_view(*id)).collect(),
                        peers: interested(channel),
                        announced: channel.announced.is_some(),
                        refuses: self.refuses(channel),
                        refused_by: self.refused_by(channel),
                    })
                    .collect(),
            }
        })
    }

    /// All streams whose messages go to other hosts.
    pub fn flows(&self) -> impl Iterator<Item = FlowView<'_>> {
        let flow = |(key, row): (&StreamKey, &'_ Contract)| {
            let first = Topic { key: *key, channel: ChannelId(0) };
            let last = Topic { key: *key, channel: ChannelId(u32::MAX) };
            let sending = self.channels.range(first..=last).filter(|(_, channel)| !channel.sources.is_empty());
            let meant = sending.flat_map(|(_, channel)| channel.peers.iter().filter(|sinks| sinks.check == row.check));
            meant.map(|sinks| sinks.peer).collect::<BTreeSet<PeerIndex>>()
        };
        self.contracts.iter().map(move |(key, row)| FlowView {
            key: *key,
            domain: row.domain,
            name: &row.name,
            qos: row.qos,
            datapath: self.spec.datapath_of(row.qos.lane()),
            peers: flow((key, row)),
        })
    }

    /// Peer, schema of the sources, schema of the sinks.
    fn refuses(&self, channel: &Channel) -> Vec<(PeerIndex, Schema, Schema)> {
        let theirs = |of: PeerIndex, ours: Schema| {
            let mut schemas = channel.peers.iter().filter(|sinks| sinks.peer == of).filter_map(|sinks| sinks.schema);
            schemas.find(|theirs| !ours.matches(theirs))
        };
        channel.refuses.iter().filter_map(|(peer, ours)| Some((*peer, *ours, theirs(*peer, *ours)?))).collect()
    }

    /// As [`refuses`](Self::refuses), where the sinks are here.
    fn refused_by(&self, channel: &Channel) -> Vec<(PeerIndex, Schema, Schema)> {
        let ours = |theirs: &Schema| {
            let mut schemas = channel.sinks.iter().filter_map(|sink| self.sinks.get(sink)?.schema);
            schemas.find(|ours| !ours.matches(theirs))
        };
        channel.refused_by.iter().filter_map(|(peer, (theirs, _))| Some((*peer, *theirs, ours(theirs)?))).collect()
    }

    fn source_view(&self, id: SourceId) -> SourceView {
        let row = &self.sources[&id];
        let watches = |conn: &ConnId| {
            let sink = self.conns.get(conn).and_then(|row| row.ends.sink());
            sink.and_then(|sink| self.sinks.get(&sink)).is_some_and(|row| row.observes)
        };
        SourceView {
            id,
            session: row.session,
            line: row.line,
            buffers: row.heap_spec.buffers,
            heap_bytes: row.heap_spec.bytes,
            direct: row.direct.iter().filter(|conn| self.is_active(**conn) && !watches(conn)).count(),
            datapaths: self.active_datapaths(&row.datapaths),
            slot: self.slot_of(id),
            is_reserved: self.slots.iter().flatten().any(|book| book.is_seated(id)),
        }
    }

    fn sink_view(&self, id: SinkId) -> SinkView {
        let row = &self.sinks[&id];
        let active = || row.direct.iter().chain(row.datapaths.values()).filter(|conn| self.is_active(**conn));
        let bytes = |conn: &ConnId| {
            let row = &self.conns[conn];
            (self.spec.sizes.cells)(row.depth) + (self.spec.sizes.returns)(row.places)
        };
        SinkView {
            id,
            session: row.session,
            line: row.line,
            depth: row.depth,
            wake: row.wake,
            observes: row.observes,
            direct: row.direct.iter().filter(|conn| self.is_active(**conn)).count(),
            datapaths: self.active_datapaths(&row.datapaths),
            ring_bytes: active().map(bytes).sum(),
        }
    }

    fn active_datapaths(&self, conns: &BTreeMap<DatapathIndex, ConnId>) -> Vec<DatapathIndex> {
        conns.iter().filter(|(_, conn)| self.is_active(**conn)).map(|(datapath, _)| *datapath).collect()
    }

    /// What the domains use of their quotas, by [`DomainIndex`].
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Sources and sinks of a conversation on this host.
    #[must_use]
    pub fn members_of(&self, topic: Topic) -> (usize, usize) {
        self.channels.get(&topic).map_or((0, 0), |channel| (channel.sources.len(), channel.sinks.len()))
    }

    /// Whether a connection is in use.
    #[must_use]
    pub fn is_active(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|row| row.stage == Stage::Active)
    }

    /// Connections that a datapath has not let go of yet.
    #[must_use]
    pub fn retiring(&self) -> Vec<ConnId> {
        self.conns.iter().filter(|(_, row)| row.stage == Stage::Retiring).map(|(id, _)| *id).collect()
    }
}
