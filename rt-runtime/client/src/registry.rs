//! What a session has, as its agent sees it: which connection belongs to which port.

use crate::agent::What;
use crate::counters::Line;
use crate::error::RequestError;
use insane_core::heap::ClassSpec;
use insane_core::{ChannelId, ConnId, Qos, Schema, SinkId, SourceId, StreamId};
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::port::Mailbox;
use insane_shm::region::Region;
use insane_wire::control::{Code, Receiver, Sender, SinkWake};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

/// A stream of this session, by its local number.
#[derive(Clone, Debug)]
pub(crate) struct StreamRecord {
    pub name: String,
    /// What was asked for.
    pub qos: Qos,
    /// What it was given; `None`: it was not open yet.
    pub given: Option<Qos>,
    pub isolated: bool,
    /// Its number at the runtime; `None` while detached.
    pub id: Option<StreamId>,
    /// Why the runtime that came back has not opened it again, if it has not.
    pub refused: Option<RequestError>,
}

impl StreamRecord {
    /// Its number at the runtime, for a request.
    pub fn number(&self) -> Result<StreamId, RequestError> {
        self.id.ok_or_else(|| self.refused.clone().unwrap_or(RequestError::Detached))
    }

    /// It is not open again after the runtime's restart: asking again would not change that, so
    /// the application is told.
    pub fn refuse(&mut self, code: Code, reason: &str) {
        let StreamRecord { name, qos, .. } = self;
        tracing::error!(stream = name, ?code, reason, asked = ?qos, "the runtime that came back does not take a stream");
        let reason = format!("stream {name:?} is not open again after the runtime's restart: {reason}");
        self.refused = Some(RequestError::Refused { code, reason });
    }
}

/// A source of this session, by its uid.
#[derive(Debug)]
pub(crate) struct SourceRecord {
    pub stream: u32,
    pub channel: ChannelId,
    pub classes: Vec<ClassSpec>,
    pub schema: Option<Schema>,
    pub keeps: bool,
    pub buffers: u32,
    pub mailbox: Arc<Mailbox<TxConn>>,
    /// Its sealed heap, to be shown to the runtime's next life.
    pub heap: Option<OwnedFd>,
    /// Its line of the counters page.
    pub line: Option<Line>,
    pub id: Option<SourceId>,
}

/// A sink of this session, by its uid.
#[derive(Debug)]
pub(crate) struct SinkRecord {
    pub stream: u32,
    pub channel: ChannelId,
    pub depth: u32,
    pub wake: SinkWake,
    pub schema: Option<Schema>,
    /// It only watches.
    pub observes: bool,
    /// The schema of sources of another host, which is not its own.
    pub refused: Option<Schema>,
    pub mailbox: Arc<Mailbox<RxConn>>,
    /// Its sealed wake page and the writable end of its wake socket, to be shown to the
    /// runtime's next life.
    pub wake_fds: Vec<OwnedFd>,
    /// Its line of the counters page.
    pub line: Option<Line>,
    pub id: Option<SinkId>,
}

/// How far a connection of this session is.
#[derive(Debug)]
pub(crate) enum ConnState {
    /// Producer: its cells are mapped.
    TxPrepared { cells: Arc<Region>, depth: u32 },
    /// Producer: ready, waiting for activation.
    TxReady(Box<TxConn>),
    /// Producer: in use.
    TxActive,
    /// Producer: nothing is sent any more, and what its receiver, which may still read, holds
    /// is kept. Whether the port was told.
    TxLetGo { is_told: bool },
    /// Consumer: its returns are mapped. The hold is to last as long as it can read.
    RxPrepared { returns: Arc<Region>, depth: u32, hold: Option<OwnedFd> },
    /// Consumer: in use.
    RxActive,
}

/// Whom a connection joins this session's port to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Far {
    To(Receiver),
    From(Sender),
}

/// Which end of a connection is this session's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Producer,
    Consumer,
}

impl Far {
    pub fn end(self) -> End {
        match self {
            Far::To(_) => End::Producer,
            Far::From(_) => End::Consumer,
        }
    }

    pub fn is_datapath(self) -> bool {
        matches!(self, Far::To(Receiver::Datapath) | Far::From(Sender::Datapath))
    }
}

/// A connection of this session, by its local number: the runtime's numbers begin
/// anew after its restart, and a direct ring outlives it.
#[derive(Debug)]
pub(crate) struct ConnRecord {
    /// The runtime's number; `None` if it does not know the connection (any more).
    pub id: Option<ConnId>,
    /// Uid of this session's source or sink.
    pub port: u64,
    pub far: Far,
    pub state: ConnState,
    /// Producer of a direct ring: memory of the receiver's that it [holds](insane_sys::memfd::hold)
    /// as long as it can read. `None`: not known.
    pub held_by_receiver: Option<OwnedFd>,
}

impl ConnRecord {
    /// Whether the receiver is known to read no more.
    pub fn receiver_is_gone(&self) -> bool {
        self.held_by_receiver.as_ref().is_some_and(|memory| insane_sys::memfd::is_held(memory).is_ok_and(|held| !held))
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    pub streams: HashMap<u32, StreamRecord>,
    pub sources: HashMap<u64, SourceRecord>,
    pub sinks: HashMap<u64, SinkRecord>,
    pub conns: HashMap<u32, ConnRecord>,
    /// Removals (port, connection) for which a mailbox had no room yet.
    pub removals: Vec<(u64, u32)>,
    /// Connections (local numbers) whose other end wrote what cannot be, still to be told
    /// to the runtime.
    pub accused: Vec<ConnId>,
    /// Heaps of senders that are mapped here. One heap serves many connections: all sinks
    /// behind a datapath read the same.
    pub heaps: Heaps,
    conn_next: u32,
}

/// Mapped heaps, by the identity of their memory.
#[derive(Debug, Default)]
pub(crate) struct Heaps(HashMap<(u64, u64), Weak<Region>>);

impl Heaps {
    /// The heap behind a descriptor: mapped and touched now, unless it is here already.
    pub fn map(&mut self, fd: OwnedFd, bytes: usize) -> std::io::Result<Arc<Region>> {
        let identity = insane_sys::memfd::identity(&fd).map_err(std::io::Error::other)?;
        if let Some(region) = self.0.get(&identity).and_then(Weak::upgrade)
            && region.len() >= bytes
        {
            return Ok(region);
        }
        let region = Region::map_read_only(fd.as_fd(), bytes)?;
        region.prefault()?;
        self.0.retain(|_, region| region.strong_count() > 0);
        self.0.insert(identity, Arc::downgrade(&region));
        Ok(region)
    }
}

impl Registry {
    /// The runtime refused what it was asked for. Of what it had before its restart nobody waits
    /// for the answer.
    pub fn note_refusal(&mut self, what: &What, code: Code, reason: &str) {
        let port = match what {
            What::Stream { local } => {
                if let Some(stream) = self.streams.get_mut(local).filter(|stream| stream.given.is_some()) {
                    stream.refuse(code, reason);
                }
                return;
            }
            What::SourceAgain { uid } => self.sources.get(uid).map(|source| ("source", source.stream, source.channel)),
            What::SinkAgain { uid } => self.sinks.get(uid).map(|sink| ("sink", sink.stream, sink.channel)),
            What::Source { .. } | What::Sink { .. } | What::Favour => return,
        };
        let Some((port, local, channel)) = port else { return };
        let stream = self.streams.get(&local).map_or("", |stream| &stream.name);
        tracing::error!(
            port,
            stream,
            channel = channel.0,
            ?code,
            reason,
            "the runtime that came back does not take a port"
        );
    }

    pub fn source_uid(&self, id: SourceId) -> Option<u64> {
        self.sources.iter().find(|(_, source)| source.id == Some(id)).map(|(uid, _)| *uid)
    }

    pub fn sink_uid(&self, id: SinkId) -> Option<u64> {
        self.sinks.iter().find(|(_, sink)| sink.id == Some(id)).map(|(uid, _)| *uid)
    }

    pub fn add_conn(&mut self, record: ConnRecord) -> u32 {
        self.conn_next += 1;
        self.conns.insert(self.conn_next, record);
        self.conn_next
    }

    /// The local number of one end of one of the runtime's connections. Both ends may
    /// be in this session.
    pub fn conn_of(&self, id: ConnId, end: End) -> Option<u32> {
        self.conns.iter().find(|(_, conn)| conn.id == Some(id) && conn.far.end() == end).map(|(local, _)| *local)
    }

    /// A direct ring that already joins this port to that far end.
    pub fn kept(&self, port: u64, far: Far) -> Option<u32> {
        let is_it = |conn: &ConnRecord| {
            conn.port == port
                && conn.far == far
                && conn.id.is_none()
                && matches!(conn.state, ConnState::TxActive | ConnState::RxActive)
        };
        self.conns.iter().find(|(_, conn)| is_it(conn)).map(|(local, _)| *local)
    }
}
