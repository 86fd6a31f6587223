//! The control protocol between an application (client) and its runtime.
//!
//! One `SOCK_SEQPACKET` connection a session; one packet a message, at most
//! [`PACKET_BYTES_MAX`]. The first packet of a client is a [`Hello`] behind a fixed
//! [`HelloPrefix`] that no version will change; the runtime answers
//! [`Event::Welcome`] or [`Event::Closing`]. After that every packet is a
//! postcard-encoded [`Request`] (client to runtime) or [`Event`] (runtime to client).
//! Memory travels beside the packet as memfds in `SCM_RIGHTS`: each message says
//! which and in what order; more or fewer close the session. A client sends none, but for memory that survived a
//! restart of the runtime: beside HELLO its sealed counters page, beside `CreateSource` its sealed heap, beside `CreateSink` its
//! sealed wake page and then the writable end of its wake socket; the answer then
//! brings none.
//!
//! Setting up a connection (source to sink, or either to a datapath), every step
//! acknowledged by [`Request::Mapped`] with the step's number:
//!
//! ```text
//!   runtime                 producer's agent          consumer's agent
//!     | TxPrepare [cells]  ---->|  maps read-write           |
//!     | RxPrepare [returns] --- | -------------------------->|  maps read-write
//!     |<------- Mapped(conn, 1) |<---------------------------|
//!     |  seals both: FUTURE_WRITE, SEAL                      |
//!     | TxOpen [returns, wake] >|  maps read-only            |
//!     | RxOpen [cells, heap] -- | -------------------------->|  maps read-only, polls
//!     |<------- Mapped(conn, 2) |<---------------------------|
//!     | Activate          ----->|  fan-out table swapped     |
//! ```
//!
//! Where a datapath is the producer or consumer, the runtime itself takes that part.
//! Where both ends are of one session, that session gets the events of both, and
//! acknowledges each: twice for one connection and step.
//!
//! The runtime may end a connection at any step, by [`Event::Retire`]. What a client has
//! acknowledged by then without knowing is no fault; neither is an event that reaches a
//! client about something it has closed: it ignores it. An acknowledgement of what was
//! never asked, or given before, ends the session.

pub use insane_core::heap::ClassSpec;
use insane_core::limits::{CLASSES_MAX, MESSAGE_BYTES_MAX, NAME_BYTES_MAX};
use insane_core::{
    ChannelId, ConnId, Datapath, Lane, Priority, Qos, Schema, SessionId, SinkId, SourceId, StreamId, StreamKey, TaiTime,
};
use insane_mutation::mutate;
use serde::{Deserialize, Serialize};

/// First four bytes of a client's first packet: `"INSN"`.
pub const MAGIC: u32 = u32::from_le_bytes(*b"INSN");
/// Oldest protocol version this code speaks.
pub const VERSION_MIN: u16 = 4;
/// Newest protocol version this code speaks. Messages of one version cannot be told from those
/// of another, so no earlier one is spoken. Version 2 said what a stream was given, with
/// `StreamOpened`. Version 3 has what came since: schedules, threads and memory that are handed
/// over, moves, changes of what a stream asks for, traces, recaps of the past, the cores of
/// datapaths, and cells of rings that say in other words that a payload is in line. Version 4
/// has clients ring for sources that a datapath does not look at, and say in which line of their
/// counters page each source and sink counts.
///
/// Whoever changes a message, or the layout of memory that both sides map (rings, heaps,
/// counters, records of a trace), raises both numbers; `tests/formats.rs` sees to the messages.
/// What never changes: [`HelloPrefix`], and [`Event::Closing`] with [`Code::Version`], which an
/// older client is refused with.
pub const VERSION_MAX: u16 = 4;
/// Largest packet, bytes.
pub const PACKET_BYTES_MAX: usize = 16 * 1024;
/// Most descriptors beside one packet.
pub const FDS_MAX: usize = 3;

/// What never changes: the first eight bytes of the first packet, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HelloPrefix {
    /// Oldest version the client speaks.
    pub version_min: u16,
    /// Newest version the client speaks.
    pub version_max: u16,
}

/// Who is calling. The kernel says which process and user; this says only what
/// the process would like to be called.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Name in reports, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// Domain asked for; `None`: the first that the access rules allow.
    pub domain: Option<String>,
    /// What the session is for.
    pub role: Role,
}

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// An application with streams.
    Application,
    /// A tool: may ask for [`Request::Status`], and, if its user runs the runtime, for
    /// [`Request::Reload`], [`Request::Schedule`], [`Request::MoveStream`],
    /// [`Request::SetQos`] and [`Request::Trace`].
    Observer,
}

/// Client to runtime. `req` is the client's own number for the request and comes
/// back in the answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Answered by [`Event::StreamOpened`].
    OpenStream {
        /// Request number.
        req: u32,
        /// Name inside the domain.
        name: String,
        /// What is asked of it.
        qos: Qos,
        /// Whether local messages, too, go through the runtime and are copied there.
        isolated: bool,
    },
    /// Closes a stream with all its sources and sinks; answered by [`Event::Done`].
    CloseStream {
        /// Request number.
        req: u32,
        /// Which.
        stream: StreamId,
    },
    /// Answered by [`Event::SourceCreated`].
    CreateSource {
        /// Request number.
        req: u32,
        /// Of which stream.
        stream: StreamId,
        /// On which channel.
        channel: ChannelId,
        /// Chosen at random by the client; survives a reattachment.
        uid: u64,
        /// The heap, at most [`CLASSES_MAX`] classes by rising size; empty: messages
        /// travel in line only.
        classes: Vec<ClassSpec>,
        /// What its messages are, if it says so.
        schema: Option<Schema>,
        /// Whether it keeps its last values for sinks that join later.
        keeps: bool,
        /// The line of the session's counters page that it counts in; `None`: it counts where
        /// nobody sees it. What is not the session's own line only makes its own figures wrong.
        line: Option<u32>,
    },
    /// Answered by [`Event::Done`].
    CloseSource {
        /// Request number.
        req: u32,
        /// Which.
        source: SourceId,
    },
    /// Answered by [`Event::SinkCreated`].
    CreateSink {
        /// Request number.
        req: u32,
        /// Of which stream.
        stream: StreamId,
        /// On which channel.
        channel: ChannelId,
        /// Chosen at random by the client; survives a reattachment.
        uid: u64,
        /// Messages each of its rings holds: a power of two, 2 to 65,536.
        depth: u32,
        /// How the receiver wants to be woken.
        wake: SinkWake,
        /// What messages it expects, if it says so.
        schema: Option<Schema>,
        /// As of a source.
        line: Option<u32>,
    },
    /// Answered by [`Event::Done`].
    CloseSink {
        /// Request number.
        req: u32,
        /// Which.
        sink: SinkId,
    },
    /// The memory of step 1 or 2 of a connection is mapped.
    Mapped {
        /// Which connection.
        conn: ConnId,
        /// 1 or 2.
        step: u8,
    },
    /// Answer to `TxPrepare` or `RxPrepare` after a reattachment: these two ends are
    /// already joined by a ring of their own; nothing new is needed, and no further step
    /// follows. Where one end says so and the other does not, both get `Retire`, forget
    /// that ring, and are joined anew.
    Kept {
        /// The connection that is not needed.
        conn: ConnId,
    },
    /// The source's heap is mapped and may be sealed and shown to receivers. Said only by
    /// a source that has one.
    SourceMapped {
        /// Which.
        source: SourceId,
    },
    /// The sink's wake page is mapped and may be sealed and shown to senders. Said only by
    /// a sink that has one.
    SinkMapped {
        /// Which.
        sink: SinkId,
    },
    /// The client's counters page is mapped and may be sealed.
    SessionMapped,
    /// What the other side of a connection wrote there was not possible; close it. Both
    /// ends get `Retire`.
    Violation {
        /// Which connection.
        conn: ConnId,
    },
    /// Asks for the state of the runtime; answered by [`Event::Status`] chunks.
    Status {
        /// Request number.
        req: u32,
    },
    /// A sink that only watches, and polls: no peer hears of it, no source counts it as a
    /// receiver, and nobody waits for it, on a reliable stream either: what it has no room
    /// for it misses, and is told how much. Answered by [`Event::SinkCreated`]; closed by
    /// `CloseSink`.
    CreateTap {
        /// Request number.
        req: u32,
        /// Of which stream.
        stream: StreamId,
        /// On which channel.
        channel: ChannelId,
        /// Chosen at random by the client; survives a reattachment.
        uid: u64,
        /// Messages each of its rings holds: a power of two, 2 to 65,536.
        depth: u32,
        /// As of a source.
        line: Option<u32>,
    },
    /// Asks for another configuration to hold, as a whole or not at all; answered by
    /// [`Event::Reload`] chunks. The text comes in pieces of one number, in order; nothing
    /// happens before the last.
    Reload {
        /// Request number.
        req: u32,
        /// Only say what would change.
        dry_run: bool,
        /// How messages call the file that the pieces are of; `None`: the runtime reads the
        /// file that it was started with, and there is one empty piece.
        file: Option<String>,
        /// Whether this is the last piece.
        last: bool,
        /// The piece.
        piece: Vec<u8>,
    },
    /// One step on the way of a schedule of several hosts into force; answered by
    /// [`Event::Schedule`], except for pieces before the last.
    Schedule {
        /// Request number.
        req: u32,
        /// The step.
        order: ScheduleOrder,
    },
    /// Hands over a thread of the client's own process: the runtime gives it a priority and
    /// a core, as far as the rule of the domain allows, or nothing; it takes them back when
    /// the session ends. Answered by [`Event::Done`].
    PlaceThread {
        /// Request number.
        req: u32,
        /// What the thread calls itself (`gettid`). The kernel says which thread that is.
        tid: u32,
        /// `SCHED_FIFO` at that priority, 1 to 99.
        priority: Option<u8>,
        /// That core; `None`: those of the rule.
        core: Option<u16>,
    },
    /// Asks that the client's process may lock so many bytes of memory; answered by
    /// [`Event::Done`].
    LockMemory {
        /// Request number.
        req: u32,
        /// In all.
        bytes: u64,
    },
    /// Moves a stream of the session's domain to another link, for its messages to one peer or
    /// to all; only for who runs the runtime. Answered by [`Event::Done`].
    MoveStream {
        /// Request number.
        req: u32,
        /// Name of the stream.
        stream: String,
        /// Name of the link; `None`: the one by which whatever else goes to the peers.
        link: Option<String>,
        /// Name of the peer; `None`: all that the link reaches.
        peer: Option<String>,
    },
    /// Changes what a stream of the session's domain that is open asks for, where that is no
    /// promise: for who has it open, and who runs the runtime. Answered by [`Event::Done`].
    SetQos {
        /// Request number.
        req: u32,
        /// Name of the stream.
        stream: String,
        /// Which kind of technology; `None`: as it is, or, where `priority` is `None`, too, both
        /// as its first opener asked for.
        datapath: Option<Datapath>,
        /// The importance; `None`: likewise.
        priority: Option<Priority>,
    },
    /// Asks a datapath to record its turns and slots until the session ends; answered by
    /// [`Event::Traced`]. One session at a time traces a datapath.
    Trace {
        /// Request number.
        req: u32,
        /// Name of the datapath.
        datapath: String,
    },
}

/// Steps of a schedule into force (`insane_overlay::activation`). A schedule is named by the
/// digest of the text of its certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ScheduleOrder {
    /// Check it, and keep it aside. The text comes in pieces of one request number, in order;
    /// nothing happens before the last.
    Stage {
        /// Accept it although the clock of this host is not disciplined: all its hosts share
        /// one kernel.
        local_clock: bool,
        /// Whether this is the last piece.
        last: bool,
        /// The piece.
        piece: Vec<u8>,
    },
    /// Let it take over at this instant.
    Commit {
        /// Which.
        schedule: u64,
        /// When.
        at: TaiTime,
    },
    /// Forget it, if it has not taken over.
    Abort {
        /// Which.
        schedule: u64,
    },
    /// Say what holds.
    Ask {
        /// Which.
        schedule: u64,
    },
    /// Be under no schedule, whichever is in force. Answered with [`ScheduleWord::Aborted`].
    Forget,
}

/// Answers to a [`ScheduleOrder`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum ScheduleWord {
    /// It is kept aside.
    Staged,
    /// It cannot be, for this reason.
    Refused(String),
    /// It will take over.
    Committed,
    /// The old one stays, for this reason.
    Cannot(String),
    /// Nothing of it is left.
    Aborted,
    /// It has taken over.
    InForce,
}

/// The core of a datapath, and who else may run there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DatapathCore {
    /// Which.
    pub core: u16,
    /// The datapath's name.
    pub datapath: String,
    /// It never sleeps.
    pub spins: bool,
    /// Its `SCHED_FIFO` priority; `None`: the ordinary policy.
    pub priority: Option<u8>,
}

impl DatapathCore {
    /// Why a thread of that `SCHED_FIFO` priority may not be put there, and what helps; `None`:
    /// it may.
    #[must_use]
    pub fn refuses(&self, priority: Option<u8>) -> Option<String> {
        let DatapathCore { core, datapath, spins, priority: urgent } = self;
        if *spins {
            return Some(format!(
                "core {core} is that of datapath {datapath:?}, which spins there and never sleeps: each would keep the \
                 other from running. Take another core, or let the datapath sleep (`idle: spin_then_block(us: ...)` \
                 with a `fifo` priority above that of its core's other threads)"
            ));
        }
        let urgent = (*urgent)?;
        let asked = priority.filter(|asked| *asked >= urgent)?;
        Some(format!(
            "core {core} is that of datapath {datapath:?} with priority {urgent}, and the thread asks for {asked}: it would \
             keep the datapath from sending in time. Ask for less than {urgent}, take another core, or give the datapath \
             more (`policy: fifo(...)`)"
        ))
    }
}

/// Whom a connection leads to, seen from the producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Receiver {
    /// A sink of this host, by its uid.
    Sink(u64),
    /// A datapath of the runtime (network, and isolated local delivery).
    Datapath,
    /// A sink of this host that only watches, by its uid.
    Tap(u64),
}

/// Whom a connection comes from, seen from the consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Sender {
    /// A source of this host, by its uid.
    Source(u64),
    /// A datapath of the runtime.
    Datapath,
}

/// Runtime to client.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub enum Event {
    /// HELLO accepted. Beside it, for an application that brought none: [counters page,
    /// client-written]. The client divides it among its sources and sinks.
    Welcome {
        /// The version both will speak.
        version: u16,
        /// Number of the session.
        session: SessionId,
        /// The domain it is in.
        domain: String,
        /// Bytes of the counters page.
        counters_bytes: u32,
        /// The cores of datapaths that are pinned, where threads of applications may not be.
        cores: Vec<DatapathCore>,
    },
    /// The session is over; the last packet.
    Closing {
        /// Which kind of reason.
        code: Code,
        /// The reason in words.
        reason: String,
    },
    /// Answer to `OpenStream`.
    StreamOpened {
        /// Request number.
        req: u32,
        /// Its number.
        stream: StreamId,
        /// Its wire name.
        key: StreamKey,
        /// The lane it was given.
        lane: Lane,
        /// What it was given: what was asked for, as far as the configuration fixes nothing
        /// else.
        qos: Qos,
        /// Values that its sources may keep for late joiners, at most.
        history_max: u8,
    },
    /// Answer to `CreateSource`. Beside it: [heap, client-written] if `heap_bytes` > 0.
    SourceCreated {
        /// Request number.
        req: u32,
        /// Its number.
        source: SourceId,
        /// Bytes of the heap; 0: none.
        heap_bytes: u64,
    },
    /// Answer to `CreateSink`. Beside it: nothing if its wake is `Never`; else [wake page,
    /// client-written], then [the readable end of the wake socket] and [its writable end, to
    /// be kept for a restart of the runtime] if it is `Fd`.
    SinkCreated {
        /// Request number.
        req: u32,
        /// Its number.
        sink: SinkId,
    },
    /// The request was carried out.
    Done {
        /// Request number.
        req: u32,
    },
    /// The request was refused.
    Failed {
        /// Request number.
        req: u32,
        /// Which kind of reason.
        code: Code,
        /// The reason in words.
        reason: String,
    },
    /// Step 1, producer. Beside it: [cells, client-written].
    TxPrepare {
        /// Number of the connection.
        conn: ConnId,
        /// Whose it is.
        source: SourceId,
        /// Whom it leads to.
        to: Receiver,
        /// Messages the ring holds: a power of two.
        depth: u32,
    },
    /// Step 1, consumer. Beside it: [returns, client-written].
    RxPrepare {
        /// Number of the connection.
        conn: ConnId,
        /// Whose it is.
        sink: SinkId,
        /// Whom it comes from.
        from: Sender,
        /// Messages the ring holds: a power of two.
        depth: u32,
        /// Places of the completion ring: a power of two, or 0 without a heap.
        returns: u32,
    },
    /// Step 2, producer. Beside it: [returns, read-only]; then, unless `wake` is `Never`,
    /// [wake page, read-only]; then [wake socket or eventfd] if `wake` is `Fd` or `Event`.
    TxOpen {
        /// Number of the connection.
        conn: ConnId,
        /// Places of the completion ring.
        returns: u32,
        /// How the receiver is woken.
        wake: WakeKind,
    },
    /// Step 2, consumer. Beside it: [cells, read-only], then [heap, read-only] if
    /// `heap_bytes` > 0.
    RxOpen {
        /// Number of the connection.
        conn: ConnId,
        /// Bytes of the sender's heap; 0: none.
        heap_bytes: u64,
        /// The classes of that heap.
        classes: Vec<ClassSpec>,
        /// The writer is the runtime or this very process: its memory may be read as `&[u8]`.
        trusted: bool,
    },
    /// Both ends are mapped: the producer may use the connection.
    Activate {
        /// Which.
        conn: ConnId,
    },
    /// The other end is gone (or the connection is no longer needed). A producer
    /// forgets it; a consumer drains it first.
    Retire {
        /// Which.
        conn: ConnId,
    },
    /// A piece of the JSON answer to `Status`.
    Status {
        /// Request number.
        req: u32,
        /// Whether it is the last piece.
        last: bool,
        /// At most 8 KiB of UTF-8; pieces may split a character.
        piece: Vec<u8>,
    },
    /// A piece of the answer to `Reload`: JSON of
    /// [`ReloadReport`](crate::reload::ReloadReport).
    Reload {
        /// Request number.
        req: u32,
        /// Whether this is the last piece.
        last: bool,
        /// The piece.
        piece: Vec<u8>,
    },
    /// Sources of another host send this sink nothing, since their schema is not its own;
    /// or, `None`, nothing is heard of that any more.
    SinkRefused {
        /// Which.
        sink: SinkId,
        /// What the sources' messages are.
        theirs: Option<Schema>,
    },
    /// Answer to `Schedule`.
    Schedule {
        /// Request number.
        req: u32,
        /// The answer.
        word: ScheduleWord,
    },
    /// Answer to `Trace`. Beside it: [record of the trace, read-only].
    Traced {
        /// Request number.
        req: u32,
        /// Bytes of the record.
        bytes: u64,
    },
}

/// How a sink wants to be woken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SinkWake {
    /// It polls: senders never look.
    Never,
    /// By futex on its wake page.
    Page,
    /// By a byte on its wake socket, which any event loop can wait for.
    Fd,
}

/// How a sender wakes the receiver of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WakeKind {
    /// Not at all.
    Never,
    /// By futex on the wake page, when the page asks for it.
    Page,
    /// By one byte (never blocking) on the wake socket, when the wake page asks for it.
    Fd,
    /// By the eventfd that this session and this datapath share, when the datapath's
    /// wake page asks for it.
    Event,
}

/// Kinds of refusal.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Code {
    /// No common protocol version.
    Version,
    /// A message that cannot be decoded, or not now.
    Protocol,
    /// The access rules say no.
    Access,
    /// A quota is used up.
    Quota,
    /// A value out of its range, or a name too long.
    Invalid,
    /// No such stream, source or sink.
    Unknown,
    /// The same stream was opened with another quality of service, or the configuration gives
    /// it a lesser one.
    Mismatch,
    /// The runtime is out of memory, descriptors or table places.
    Resources,
    /// The runtime is shutting down.
    Shutdown,
    /// The client wrote what it may not.
    Violation,
    /// Other ends of the channel have messages of another schema.
    Schema,
    /// There is no place for its slots; the reason says why, and what there would be.
    NotAdmitted,
}

/// Why a packet could not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not `"INSN"`.
    #[error("the first packet does not start with the magic number")]
    Magic,
    /// Too short, or not what the version's messages look like.
    #[error("the packet is no message of this protocol version")]
    Malformed,
    /// A field is out of its range.
    #[error("a field of the message is out of range")]
    Range,
}

/// Encodes a client's first packet.
#[must_use]
pub fn encode_hello(hello: &Hello) -> Vec<u8> {
    let mut packet = MAGIC.to_le_bytes().to_vec();
    packet.extend(VERSION_MIN.to_le_bytes());
    packet.extend(VERSION_MAX.to_le_bytes());
    packet.extend(encode(hello));
    packet
}

/// Decodes the part of a first packet that every version understands.
///
/// # Errors
/// The packet is too short or is no HELLO.
pub fn decode_hello_prefix(packet: &[u8]) -> Result<HelloPrefix, DecodeError> {
    let [m0, m1, m2, m3, a0, a1, b0, b1, ..] = *packet else { return Err(DecodeError::Malformed) };
    if u32::from_le_bytes([m0, m1, m2, m3]) != MAGIC {
        return Err(DecodeError::Magic);
    }
    Ok(HelloPrefix { version_min: u16::from_le_bytes([a0, a1]), version_max: u16::from_le_bytes([b0, b1]) })
}

/// The version both sides speak, the newest first.
#[must_use]
pub fn negotiate(theirs: HelloPrefix) -> Option<u16> {
    let newest = theirs.version_max.min(VERSION_MAX);
    let oldest = theirs.version_min.max(VERSION_MIN);
    (oldest <= newest).then_some(newest)
}

/// Decodes the rest of a first packet, of the version that is spoken.
///
/// # Errors
/// Not a HELLO of this version, or a name out of range.
pub fn decode_hello(packet: &[u8]) -> Result<Hello, DecodeError> {
    let hello: Hello = decode(packet.get(8..).ok_or(DecodeError::Malformed)?)?;
    let names_fit = name_fits(&hello.name) && hello.domain.as_deref().is_none_or(name_fits);
    if mutate!(NameOfAnyLength, names_fit, true) { Ok(hello) } else { Err(DecodeError::Range) }
}

/// Whether a name is 1 to [`NAME_BYTES_MAX`] bytes of printable text.
#[must_use]
pub fn name_fits(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// Whether the classes of a heap are at most [`CLASSES_MAX`], of rising size, and each in range.
#[must_use]
pub fn classes_fit(classes: &[ClassSpec]) -> bool {
    classes.len() <= CLASSES_MAX
        && classes.iter().all(|c| c.size >= 1 && c.size <= MESSAGE_BYTES_MAX && c.count >= 1 && c.count <= 65_536)
        && classes.windows(2).all(|pair| pair[0].size < pair[1].size)
}

/// Encodes a message.
///
/// # Panics
/// Never for the types of this module: they hold nothing that cannot be encoded.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec(message).expect("the protocol's types can be encoded")
}

/// Decodes a message; trailing bytes are an error.
///
/// # Errors
/// The bytes are no such message.
pub fn decode<'a, T: Deserialize<'a>>(packet: &'a [u8]) -> Result<T, DecodeError> {
    match postcard::take_from_bytes(packet) {
        Ok((message, [])) => Ok(message),
        _ => Err(DecodeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_survives_the_way() {
        let hello = Hello { name: "plc".into(), domain: Some("line1".into()), role: Role::Application };
        let packet = encode_hello(&hello);
        let prefix = decode_hello_prefix(&packet).unwrap();
        assert_eq!(negotiate(prefix), Some(VERSION_MAX));
        assert_eq!(decode_hello(&packet).unwrap(), hello);
    }

    #[test]
    fn versions_apart_do_not_meet() {
        assert_eq!(negotiate(HelloPrefix { version_min: VERSION_MAX + 1, version_max: 9 }), None);
        assert_eq!(negotiate(HelloPrefix { version_min: 1, version_max: VERSION_MIN - 1 }), None);
        assert_eq!(negotiate(HelloPrefix { version_min: 0, version_max: 9 }), Some(VERSION_MAX));
        assert_eq!(negotiate(HelloPrefix { version_min: 0, version_max: 0 }), None);
    }

    #[test]
    fn garbage_is_an_error_and_never_a_panic() {
        let mut state = 1_u64;
        for len in 0..200 {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            let _ = decode_hello_prefix(&bytes);
            let _ = decode_hello(&bytes);
            let _ = decode::<Request>(&bytes);
        }
        let mut packet = encode(&Request::Status { req: 1 });
        packet.push(0);
        assert_eq!(decode::<Request>(&packet), Err(DecodeError::Malformed));
    }

    #[test]
    fn names_and_classes_are_bounded() {
        assert!(!name_fits("") && !name_fits(&"x".repeat(65)) && !name_fits("a\nb") && name_fits("ok"));
        assert!(classes_fit(&[]));
        assert!(classes_fit(&[ClassSpec { size: 64, count: 1 }, ClassSpec { size: 65, count: 1 }]));
        assert!(!classes_fit(&[ClassSpec { size: 64, count: 1 }, ClassSpec { size: 64, count: 1 }]));
        assert!(!classes_fit(&[ClassSpec { size: 0, count: 1 }]));
        assert!(!classes_fit(&[ClassSpec { size: MESSAGE_BYTES_MAX + 1, count: 1 }]));
    }
}
