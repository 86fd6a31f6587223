//! `insane-rt`: one small API over whatever network technology is there.
//!
//! ```
#![doc = include_str!("../examples/first.rs")]
//! ```
//!
//! # Words
//! A [`Session`] attaches an application to a runtime: the daemon `insaned`
//! ([`Session::attach`]), or one inside this process ([`Session::embedded`]). A
//! [`Stream`] is a contract of quality of service ([`Qos`]) under a name; a channel is
//! a conversation on it. A [`Source`] is the write end of a channel, a [`Sink`] the
//! read end; any number of either may share a channel, on one host and across hosts.
//!
//! # The four calls
//! [`Source::get_buffer`] borrows memory, [`Source::emit`] publishes it to every sink of
//! the channel, [`Sink::consume`] takes the next message, and dropping the
//! [`Message`] (or [`release`](Message::release)) gives its memory back. None of them
//! blocks; the `_timeout` forms do.
//!
//! # Memory
//! Up to 96 bytes travel inside the ring. Larger messages stay where they were written
//! and receivers read them there; [`SourceOptions::buffers`] says how many of which
//! size a source has. A buffer is reusable once every receiver has released it.
//! [`Message::bytes`] gives a slice where nobody else can write the memory, and
//! [`Message::shared`] a view that copies, anywhere.
//!
//! # Process data
//! Cyclic tasks do not want a queue of messages, but a value and how good it is: a
//! [`ProcessSink`] shows the newest, held or substituted once it is stale; a
//! [`ProcessSource`] stamps what it emits and keeps the last values for late joiners; a
//! [`ProcessImage`] shows several channels as they were in one cycle.
//!
//! ```
#![doc = include_str!("../examples/process_data.rs")]
//! ```
//!
//! # Cyclic tasks
//! [`Session::cyclic`] makes a thread run once a period, at instants of a grid that tasks
//! and hosts share; see [`Cyclic`] and [`CyclicTask`].
//!
//! # Threads
//! Sources and sinks are `Send` and not `Sync`: one thread at a time uses one. A session
//! has one agent thread of its own (`insane-agent`, ordinary priority), which maps
//! memory when peers come and go. Streams and sessions may be shared.
//!
//! # Fork
//! A child that uses its parent's sources or sinks gets an error; attach anew instead.
#![forbid(unsafe_code)]

mod agent;
mod callback;
mod counters;
mod cyclic;
mod error;
mod hosting;
mod message;
mod options;
mod ports;
mod process;
mod registry;
mod session;
mod sink;
mod source;
mod stream;

pub use callback::CallbackSink;
pub use cyclic::{
    Activation, BadGrid, Base, Cyclic, CyclicError, CyclicStatistics, CyclicTask, CyclicWatch, DeadlineMiss, Doing,
    Ended, Histogram, Misplaced, Overrun, Place, Spin, Waited, Worst,
};
pub use error::{ConsumeTimeoutError, GetBufferTimeoutError, LockError, RequestError, SessionError};
pub use hosting::Hosting;
pub use insane_config::Plan;
pub use insane_core::heap::ClassSpec;
pub use insane_core::{
    ChannelId, ClockQuality, Consumption, Datapath, Determinism, Lane, LatePolicy, MonoTime, Nanos, Priority, Qos,
    Reliability, Schema, SourceInstant, TaiTime,
};
pub use insane_shm::port::{ConsumeError, Emit, GetBufferError, Loan as Buffer, Outcome, Refusal, Token};
pub use insane_sys::SharedBytes;
pub use insane_wire::control::Code;
pub use message::Message;
pub use options::{SinkOptions, SourceOptions, StreamOptions};
pub use process::{
    Cycle, CycleImage, Edge, HISTORY_MAX, Image, ImageOptions, ImageRead, Lost, Member, OnStale, Part, ProcessImage,
    ProcessOptions, ProcessSink, ProcessSource, ProcessSourceOptions, Sample, Validity,
};
pub use session::{Attachment, Session};
pub use sink::Sink;
pub use source::Source;
pub use stream::Stream;
