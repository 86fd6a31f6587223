//! What the hub wants done. The host carries actions out in order, one by one.

use crate::hub::stands::Stand;
use crate::spec::Credentials;
use insane_core::{
    ConnId, DatapathIndex, DomainIndex, Lane, MonoTime, PeerIndex, Qos, Schema, SessionId, SinkId, SourceId, StreamKey,
};
use insane_engine::LaneArrivals;
pub use insane_engine::Topic;
use insane_scheduler::TimedStream;
use insane_wire::control::{ClassSpec, Code, Event, ScheduleOrder, SinkWake};
use std::collections::BTreeMap;

/// A kernel object that the runtime makes for a session and passes as a descriptor.
/// Never reused within one life of the runtime.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ObjectId(pub u64);

/// What an object is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ObjectKind {
    /// Memory: cells of a ring.
    Cells {
        /// Messages it holds.
        depth: u32,
    },
    /// Memory: a consumer's head and completions.
    Returns {
        /// Places for completions.
        places: u32,
    },
    /// Memory: the wake page of a sink.
    WakePage,
    /// Memory: the buffers of a source.
    Heap {
        /// Its classes.
        classes: Vec<ClassSpec>,
    },
    /// Memory: the counters page of a session.
    Counters {
        /// Its lines.
        lines: u32,
    },
    /// A socket pair: the reader is a sink's, the writer its senders'.
    WakeSocket,
    /// An eventfd by which one session wakes one datapath.
    Doorbell,
}

impl ObjectKind {
    /// Whether it is memory, which will be sealed.
    #[must_use]
    pub const fn is_memory(&self) -> bool {
        !matches!(self, ObjectKind::WakeSocket | ObjectKind::Doorbell)
    }
}

/// Who writes a piece of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// The session that gets it read-write.
    Session(SessionId),
    /// A datapath: the host maps it before it is sealed.
    Datapath(DatapathIndex),
    /// Whoever wrote it before the runtime's restart: the object is not made but came
    /// beside the packet under way, in order, and is sealed already; the host checks that.
    Adopted,
}

/// A descriptor that travels beside an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beside {
    /// Memory that this session shall write; not sealed yet.
    ReadWrite(ObjectId),
    /// Sealed memory.
    ReadOnly(ObjectId),
    /// The readable end of a wake socket.
    WakeReader(ObjectId),
    /// The writable end of a wake socket.
    WakeWriter(ObjectId),
    /// A doorbell.
    Doorbell(ObjectId),
    /// The wake page of a datapath, read-only.
    DatapathWakePage(DatapathIndex),
    /// The receive heap of a datapath for a domain, read-only.
    DatapathHeap(DatapathIndex, DomainIndex),
    /// The record of the trace of a datapath, read-only.
    DatapathTrace(DatapathIndex),
}

impl Beside {
    /// The object it is, unless it is the runtime's own.
    #[must_use]
    pub const fn object(&self) -> Option<ObjectId> {
        match self {
            Beside::ReadWrite(id)
            | Beside::ReadOnly(id)
            | Beside::WakeReader(id)
            | Beside::WakeWriter(id)
            | Beside::Doorbell(id) => Some(*id),
            Beside::DatapathWakePage(_) | Beside::DatapathHeap(..) | Beside::DatapathTrace(_) => None,
        }
    }
}

/// The two rings of a connection that has a datapath at one end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rings {
    /// The cells.
    pub cells: ObjectId,
    /// The returns.
    pub returns: ObjectId,
    /// Messages it holds.
    pub depth: u32,
    /// Places for completions.
    pub places: u32,
}

/// A source's connection for a datapath to take messages from.
#[derive(Clone, PartialEq, Debug)]
pub struct AddTx {
    /// Which datapath.
    pub datapath: DatapathIndex,
    /// Number of the connection.
    pub conn: ConnId,
    /// The source.
    pub source: SourceId,
    /// Its session.
    pub session: SessionId,
    /// Its domain.
    pub domain: DomainIndex,
    /// Its conversation.
    pub topic: Topic,
    /// Quality of service of the stream.
    pub qos: Qos,
    /// Its lane.
    pub lane: Lane,
    /// Its number among the sources with slots, if it has slots.
    pub slots: Option<u16>,
    /// The rings.
    pub rings: Rings,
    /// The source's heap, if it has one.
    pub heap: Option<ObjectId>,
    /// The classes of that heap.
    pub classes: Vec<ClassSpec>,
    /// It keeps its last values for sinks that join later.
    pub keeps: bool,
}

/// A sink's connection for a datapath to put messages into.
#[derive(Clone, PartialEq, Debug)]
pub struct AddRx {
    /// Which datapath.
    pub datapath: DatapathIndex,
    /// Number of the connection.
    pub conn: ConnId,
    /// The sink.
    pub sink: SinkId,
    /// Its session.
    pub session: SessionId,
    /// Its domain.
    pub domain: DomainIndex,
    /// Its conversation.
    pub topic: Topic,
    /// Quality of service of the stream.
    pub qos: Qos,
    /// The rings.
    pub rings: Rings,
    /// How the sink is woken.
    pub wake: SinkWake,
    /// Its wake page, unless it is never woken.
    pub wake_page: Option<ObjectId>,
    /// Its wake socket, if it is woken by one.
    pub wake_socket: Option<ObjectId>,
    /// It only watches.
    pub observes: bool,
}

/// Where a datapath sends what the local sources of a conversation emit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Route {
    /// The peers that have a sink and are reached by this datapath, in rising order.
    pub peers: Vec<PeerIndex>,
    /// Those of them that are not reached as whatever else goes to them, and by which link of
    /// the datapath instead.
    pub links: BTreeMap<PeerIndex, u8>,
    /// Whether the sinks of this host get it from here, too: an isolated stream.
    pub local: bool,
}

/// Something the host does.
#[derive(Clone, PartialEq, Debug)]
pub enum Action {
    /// Sends an event.
    Send {
        /// To whom.
        session: SessionId,
        /// What.
        event: Event,
        /// The descriptors beside it, in order.
        beside: Vec<Beside>,
    },
    /// Sends `Closing` and closes the socket. The hub has forgotten the session.
    Close {
        /// Whose.
        session: SessionId,
        /// Which kind of reason.
        code: Code,
        /// The reason in words.
        reason: String,
    },
    /// Gives a datapath another table of slots.
    StageSlots {
        /// Which.
        datapath: DatapathIndex,
        /// Every stream that has slots there.
        streams: Vec<TimedStream>,
        /// By number: links of those that go to all their peers by one, whatever their routes say.
        links: Vec<(u16, u8)>,
        /// What arrives in each lane at most.
        arrivals: Box<LaneArrivals>,
        /// When it takes over; `None`: as soon as it may.
        at: Option<MonoTime>,
    },
    /// Makes an object.
    Create {
        /// Its number from now on.
        object: ObjectId,
        /// What it is.
        kind: ObjectKind,
        /// Who writes it.
        writer: Writer,
    },
    /// Seals memory against everything but reading through new mappings.
    Seal(ObjectId),
    /// Lets go of the control plane's own handle.
    Drop(ObjectId),
    /// Gives a datapath a source's connection.
    AddTx(Box<AddTx>),
    /// A source's connection goes on in another lane of its group.
    SetLane {
        /// At which datapath.
        datapath: DatapathIndex,
        /// Which.
        conn: ConnId,
        /// Its lane from now on.
        lane: Lane,
    },
    /// Takes it away once it has sent what is still in the ring, or has had its time for
    /// that; [`Hub::detached`](crate::hub::Hub::detached) when it is gone.
    RemoveTx {
        /// From which datapath.
        datapath: DatapathIndex,
        /// Which.
        conn: ConnId,
        /// Now, whatever is still in the ring: the source goes on and writes its buffers anew.
        at_once: bool,
    },
    /// Gives a datapath a sink's connection.
    AddRx(Box<AddRx>),
    /// Takes it away; [`Hub::detached`](crate::hub::Hub::detached) when it is gone.
    RemoveRx {
        /// From which datapath.
        datapath: DatapathIndex,
        /// Which.
        conn: ConnId,
    },
    /// Lets a session wake a datapath.
    AddDoorbell {
        /// Which datapath.
        datapath: DatapathIndex,
        /// Whose.
        session: SessionId,
        /// The doorbell.
        object: ObjectId,
    },
    /// No longer.
    RemoveDoorbell {
        /// Which datapath.
        datapath: DatapathIndex,
        /// Whose.
        session: SessionId,
    },
    /// Sets where the messages of a conversation go.
    SetRoute {
        /// On which datapath.
        datapath: DatapathIndex,
        /// The conversation.
        topic: Topic,
        /// Its domain.
        domain: DomainIndex,
        /// Where.
        route: Route,
    },
    /// A sink joined at a peer: it is to get what sources keep of the past. Before the peer
    /// is put on the route, if it is not on it.
    Welcome {
        /// On which datapath.
        datapath: DatapathIndex,
        /// The conversation.
        topic: Topic,
        /// Where the sink is.
        peer: PeerIndex,
    },
    /// A peer is reached by another link: whatever names none goes there.
    SetReach {
        /// Which datapath.
        datapath: DatapathIndex,
        /// Which peer.
        peer: PeerIndex,
        /// Place of the link among those of the datapath.
        link: u8,
    },
    /// They go nowhere.
    RemoveRoute {
        /// On which datapath.
        datapath: DatapathIndex,
        /// The conversation.
        topic: Topic,
    },
    /// Tells the peers whether this host has a sink that can receive.
    Interest {
        /// The conversation.
        topic: Topic,
        /// Second hash of the stream's name.
        check: u64,
        /// What messages the sinks expect, if they say so.
        schema: Option<Schema>,
        /// Another number whenever a sink has joined.
        joins: u32,
        /// Whether it has.
        on: bool,
    },
    /// Tells a peer that its sinks get nothing, since they expect another schema. Said
    /// again as long as it is so.
    Refuse {
        /// Whom.
        peer: PeerIndex,
        /// The conversation.
        topic: Topic,
        /// Second hash of the stream's name.
        check: u64,
        /// What the messages of the sources of this host are.
        ours: Schema,
    },
    /// Tells the overlay which streams are in use here, so that it notices others with
    /// the same wire name.
    Offer {
        /// The stream.
        key: StreamKey,
        /// Second hash of its name.
        check: u64,
        /// Whether it is in use.
        on: bool,
    },
    /// Takes a piece of a new configuration; answers
    /// [`Request::Reload`](insane_wire::control::Request::Reload) after the last.
    Reload {
        /// Who asks: one of those who run the runtime.
        session: SessionId,
        /// Its number of the request.
        req: u32,
        /// Only say what would change.
        dry_run: bool,
        /// How the file is called; `None`: the runtime's own.
        file: Option<String>,
        /// Whether this is the last piece.
        last: bool,
        /// The piece.
        piece: Vec<u8>,
    },
    /// Answers [`Request::Schedule`](insane_wire::control::Request::Schedule).
    Schedule {
        /// Who asks: one of those who run the runtime.
        session: SessionId,
        /// Its number of the request.
        req: u32,
        /// What is to be done.
        order: ScheduleOrder,
    },
    /// Places a thread, and answers
    /// [`Request::PlaceThread`](insane_wire::control::Request::PlaceThread).
    PlaceThread {
        /// Whose it is.
        session: SessionId,
        /// Its number of the request.
        req: u32,
        /// What it calls the thread.
        tid: u32,
        /// What is asked for.
        priority: Option<u8>,
        /// What is asked for.
        core: Option<u16>,
    },
    /// Lets a process lock memory, and answers
    /// [`Request::MoveStream`](insane_wire::control::Request::MoveStream); the host names links
    /// and peers, asks [`Hub::move_stream`](crate::hub::Hub::move_stream), and answers.
    MoveStream {
        /// Who asks.
        session: SessionId,
        /// Number of the request.
        req: u32,
        /// Name of the stream in the session's domain.
        stream: String,
        /// Name of the link; `None`: as whatever else goes to the peers.
        link: Option<String>,
        /// Name of the peer; `None`: all that the link reaches.
        peer: Option<String>,
    },
    /// [`Request::LockMemory`](insane_wire::control::Request::LockMemory).
    LockMemory {
        /// Whose process.
        session: SessionId,
        /// Its number of the request.
        req: u32,
        /// So much.
        bytes: u64,
    },
    /// Begins a trace, which ends with the session, and answers
    /// [`Request::Trace`](insane_wire::control::Request::Trace).
    Trace {
        /// Who asks: one of those who run the runtime.
        session: SessionId,
        /// Its number of the request.
        req: u32,
        /// Name of the datapath.
        datapath: String,
    },
    /// Answers [`Request::Status`](insane_wire::control::Request::Status).
    Status {
        /// Whom.
        session: SessionId,
        /// The client's number for the request.
        req: u32,
    },
    /// For the event log.
    Note(Note),
}

/// What the event log should hold.
#[derive(Clone, PartialEq, Debug)]
pub enum Note {
    /// A session said HELLO and was let in.
    SessionOpened {
        /// Its number.
        session: SessionId,
        /// What it calls itself.
        name: String,
        /// Who it is.
        who: Credentials,
        /// Where it is.
        domain: DomainIndex,
    },
    /// A session is over.
    SessionClosed {
        /// Its number.
        session: SessionId,
        /// Why: the runtime closed it. `None`: it left or died.
        reason: Option<(Code, String)>,
    },
    /// A request was refused.
    Refused {
        /// Whose.
        session: SessionId,
        /// Which kind of reason.
        code: Code,
        /// The reason in words.
        reason: String,
    },
    /// A connection was closed since one end wrote what it may not.
    Violated {
        /// Which.
        conn: ConnId,
        /// The session that says so; `None`: the runtime itself.
        by: Option<SessionId>,
    },
    /// A peer's sinks expect messages of another schema: it gets none.
    SchemaMismatch {
        /// Which peer.
        peer: PeerIndex,
        /// The conversation.
        topic: Topic,
        /// The schema of the sources of this host.
        ours: Schema,
        /// The schema of the peer's sinks.
        theirs: Schema,
    },
    /// A peer's sources are of another schema than the sinks of this host, and send them
    /// nothing.
    SchemaRefused {
        /// Which peer.
        peer: PeerIndex,
        /// The conversation.
        topic: Topic,
        /// The schema of the sinks of this host.
        ours: Schema,
        /// The schema of the peer's sources.
        theirs: Schema,
    },
    /// The peers of a datapath are others, and its slots stay as they were: messages for more
    /// peers than that are too large for them.
    SlotsNotWidened {
        /// Which.
        datapath: DatapathIndex,
        /// How many peers it has.
        peers: u32,
        /// Why.
        reason: String,
    },
    /// A stream with slots stands elsewhere than before, or something is wrong or right again.
    SlotsStand {
        /// Of which datapath its slots are.
        datapath: DatapathIndex,
        /// Its name.
        stream: String,
        /// Where it stood.
        before: Stand,
        /// Where it stands.
        after: Stand,
    },
    /// Two ends could not be joined for want of a resource; tried again later.
    Unjoined {
        /// Which connection failed.
        conn: ConnId,
        /// Why.
        reason: String,
    },
}
