//! The rows of the hub's tables.

use crate::action::{ObjectId, Route, Topic};
use crate::quota::{Amounts, Bucket};
use crate::spec::{HeapSpec, Origin};
use insane_core::{
    ConnId, DatapathIndex, DomainIndex, MonoTime, PeerIndex, Qos, Schema, SessionId, SinkId, SourceId, StreamId,
    StreamKey,
};
use insane_wire::control::{Role, SinkWake};
use std::collections::{BTreeMap, BTreeSet};

/// The next number of each kind. Numbers are never reused, so that a late message
/// about something gone is never taken for one about something new.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    session: u32,
    stream: u32,
    source: u32,
    sink: u32,
    conn: u32,
    object: u64,
}

fn next(counter: &mut u32) -> Option<u32> {
    let id = *counter;
    *counter = counter.checked_add(1)?;
    Some(id)
}

impl Ids {
    pub(crate) fn session(&mut self) -> Option<SessionId> {
        next(&mut self.session).map(SessionId)
    }

    pub(crate) fn stream(&mut self) -> Option<StreamId> {
        next(&mut self.stream).map(StreamId)
    }

    pub(crate) fn source(&mut self) -> Option<SourceId> {
        next(&mut self.source).map(SourceId)
    }

    pub(crate) fn sink(&mut self) -> Option<SinkId> {
        next(&mut self.sink).map(SinkId)
    }

    pub(crate) fn conn(&mut self) -> Option<ConnId> {
        next(&mut self.conn).map(ConnId)
    }

    pub(crate) fn object(&mut self) -> ObjectId {
        self.object += 1;
        ObjectId(self.object)
    }

    /// Whether a connection of this number has ever been.
    pub(crate) fn was_conn(&self, conn: ConnId) -> bool {
        conn.0 < self.conn
    }

    pub(crate) fn was_source(&self, source: SourceId) -> bool {
        source.0 < self.source
    }

    pub(crate) fn was_sink(&self, sink: SinkId) -> bool {
        sink.0 < self.sink
    }
}

/// Whose an object is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Owner {
    Session(SessionId),
    Source(SourceId),
    Sink(SinkId),
    Conn(ConnId),
    Doorbell(SessionId, DatapathIndex),
}

/// A socket whose HELLO is still to come.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) origin: Origin,
    pub(crate) deadline: MonoTime,
}

/// A session that was let in.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) origin: Origin,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) domain: DomainIndex,
    pub(crate) bucket: Bucket,
    pub(crate) counters: Option<ObjectId>,
    pub(crate) counters_mapped: bool,
    /// Sources and sinks it has; each counts in a line of its page.
    pub(crate) ports: u32,
    pub(crate) streams: BTreeSet<StreamId>,
    pub(crate) doorbells: BTreeMap<DatapathIndex, ObjectId>,
    /// Acknowledgements still to come for things that are gone: they crossed with
    /// their end, and are no fault.
    pub(crate) stale: u64,
    pub(crate) charge: Amounts,
}

/// The quality of service that all openers of a stream share.
#[derive(Debug)]
pub(crate) struct Contract {
    pub(crate) domain: DomainIndex,
    pub(crate) name: String,
    pub(crate) check: u64,
    pub(crate) qos: Qos,
    pub(crate) isolated: bool,
    /// Whether its first opener asked for that, or its domain did at that time.
    pub(crate) asked_isolated: bool,
    /// What its first opener asked for.
    pub(crate) asked: Qos,
    /// What was asked for in place of some of it, while it is open.
    pub(crate) hints: Hints,
    /// Values that its sources may keep for late joiners.
    pub(crate) history_max: u8,
    /// How often it is open.
    pub(crate) opened: usize,
}

/// What is asked of an open stream in place of what its first opener asked for, where that is
/// no promise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Hints {
    pub(crate) datapath: Option<insane_core::Datapath>,
    pub(crate) priority: Option<insane_core::Priority>,
}

impl Hints {
    /// These over those that held: what is not said stays as it is. Nothing said takes all back.
    pub(crate) fn over(self, before: Hints) -> Hints {
        let Hints { datapath, priority } = self;
        if datapath.is_none() && priority.is_none() {
            return Hints::default();
        }
        Hints { datapath: datapath.or(before.datapath), priority: priority.or(before.priority) }
    }

    /// Of what the first opener asked for.
    pub(crate) fn on(self, asked: Qos) -> Qos {
        let Hints { datapath, priority } = self;
        Qos { datapath: datapath.unwrap_or(asked.datapath), priority: priority.unwrap_or(asked.priority), ..asked }
    }
}

/// A stream opened by a session.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) session: SessionId,
    pub(crate) key: StreamKey,
    pub(crate) sources: BTreeSet<SourceId>,
    pub(crate) sinks: BTreeSet<SinkId>,
}

/// A kind of end: sources and sinks have uids of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Port {
    Source,
    Sink,
}

/// A write end.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) session: SessionId,
    pub(crate) domain: DomainIndex,
    pub(crate) stream: StreamId,
    pub(crate) topic: Topic,
    pub(crate) uid: u64,
    pub(crate) schema: Option<Schema>,
    /// It keeps its last values for sinks that join later.
    pub(crate) keeps: bool,
    /// Where it counts in its session's page, as the client says.
    pub(crate) line: Option<u32>,
    pub(crate) heap_spec: HeapSpec,
    pub(crate) heap: Option<ObjectId>,
    /// Whether the heap is mapped and sealed, or there is none.
    pub(crate) ready: bool,
    pub(crate) direct: BTreeSet<ConnId>,
    pub(crate) datapaths: BTreeMap<DatapathIndex, ConnId>,
    /// What it uses, connections to datapaths included.
    pub(crate) charge: Amounts,
}

/// A read end.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) session: SessionId,
    pub(crate) domain: DomainIndex,
    pub(crate) stream: StreamId,
    pub(crate) topic: Topic,
    pub(crate) uid: u64,
    pub(crate) schema: Option<Schema>,
    /// Where it counts in its session's page, as the client says.
    pub(crate) line: Option<u32>,
    pub(crate) depth: u32,
    pub(crate) wake: SinkWake,
    /// It only watches: neither peers nor routes are for it.
    pub(crate) observes: bool,
    /// Peers were told, by another number of joins, that it is here.
    pub(crate) has_joined: bool,
    /// A peer whose sources are of another schema, as the client was told.
    pub(crate) refused_by: Option<(PeerIndex, Schema)>,
    pub(crate) wake_page: Option<ObjectId>,
    pub(crate) wake_socket: Option<ObjectId>,
    /// Whether the wake page is mapped and sealed, or there is none.
    pub(crate) ready: bool,
    pub(crate) direct: BTreeSet<ConnId>,
    pub(crate) datapaths: BTreeMap<DatapathIndex, ConnId>,
    /// What it uses, connections from datapaths included.
    pub(crate) charge: Amounts,
}

/// A peer that has sinks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct RemoteSinks {
    pub(crate) peer: PeerIndex,
    /// The check of the stream that it means.
    pub(crate) check: u64,
    /// What messages they expect, if they say so.
    pub(crate) schema: Option<Schema>,
    /// Another number whenever one of them has joined.
    pub(crate) joins: u32,
}

/// What the peers were told of the sinks of this host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Announced {
    /// What messages they expect, if they say so.
    pub(crate) schema: Option<Schema>,
    /// Another number whenever one of them has joined.
    pub(crate) joins: u32,
}

/// A conversation, as far as this host takes part in it.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    pub(crate) sources: BTreeSet<SourceId>,
    pub(crate) sinks: BTreeSet<SinkId>,
    /// Peers that have a sink.
    pub(crate) peers: BTreeSet<RemoteSinks>,
    /// Whether the peers were told that there is a sink here, and what.
    pub(crate) announced: Option<Announced>,
    /// Peers whose sinks expect another schema, which get nothing; and the schema of the
    /// sources here.
    pub(crate) refuses: BTreeMap<PeerIndex, Schema>,
    /// Peers whose sources are of another schema than sinks here, and when they said so last.
    pub(crate) refused_by: BTreeMap<PeerIndex, (Schema, MonoTime)>,
    /// What the datapaths were told.
    pub(crate) routes: BTreeMap<DatapathIndex, Route>,
    /// Connections to a datapath that it has not let go of yet; it needs its route
    /// until then, for what is still in them.
    pub(crate) draining: BTreeMap<DatapathIndex, usize>,
}

impl Channel {
    pub(crate) fn is_unused(&self) -> bool {
        self.sources.is_empty()
            && self.sinks.is_empty()
            && self.peers.is_empty()
            && self.draining.is_empty()
            && self.routes.is_empty()
    }
}

/// What a connection joins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Ends {
    Direct { source: SourceId, sink: SinkId },
    ToDatapath { source: SourceId, datapath: DatapathIndex },
    FromDatapath { datapath: DatapathIndex, sink: SinkId },
}

impl Ends {
    pub(crate) const fn source(&self) -> Option<SourceId> {
        match self {
            Ends::Direct { source, .. } | Ends::ToDatapath { source, .. } => Some(*source),
            Ends::FromDatapath { .. } => None,
        }
    }

    pub(crate) const fn sink(&self) -> Option<SinkId> {
        match self {
            Ends::Direct { sink, .. } | Ends::FromDatapath { sink, .. } => Some(*sink),
            Ends::ToDatapath { .. } => None,
        }
    }
}

/// What an end said to its first step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// Nothing yet.
    Owed,
    /// Mapped; a datapath's end from the beginning.
    Mapped,
    /// It has a ring with the other end already.
    Kept,
}

/// How far a connection is. See the diagram in `insane_wire::control`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Step 1: the producer maps cells, the consumer maps returns.
    Preparing { tx: Answer, rx: Answer },
    /// Step 2: each maps what the other writes; true: done.
    Opening { tx: bool, rx: bool },
    /// In use.
    Active,
    /// The client was told; the datapath has not let go yet.
    Retiring,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) ends: Ends,
    pub(crate) domain: DomainIndex,
    pub(crate) topic: Topic,
    pub(crate) stage: Stage,
    /// Its datapath has it; later than it is active.
    pub(crate) attached: bool,
    pub(crate) cells: Option<ObjectId>,
    pub(crate) returns: Option<ObjectId>,
    pub(crate) depth: u32,
    pub(crate) places: u32,
    pub(crate) charge: Amounts,
    /// It replaces one about which the ends disagreed; there is no second replacement.
    pub(crate) replacement: bool,
}
