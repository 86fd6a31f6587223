//! Options of streams, sources and sinks.

use insane_core::Schema;
use insane_core::heap::{ClassSpec, Geometry};
use insane_wire::control::SinkWake;

/// Options of a stream beyond its quality of service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StreamOptions {
    pub(crate) isolated: bool,
}

impl StreamOptions {
    /// Local messages, too, go through the runtime, which copies them: receivers never
    /// see the sender's memory, so not what it does there after it has sent. The copy lies in
    /// memory that every session of the domain may map: it keeps no secret from them. Default:
    /// off, local receivers read the sender's memory in place.
    #[must_use]
    pub const fn isolated(mut self, isolated: bool) -> Self {
        self.isolated = isolated;
        self
    }
}

/// Options of a source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceOptions {
    pub(crate) classes: Vec<ClassSpec>,
    pub(crate) schema: Option<Schema>,
    /// The last values are kept for sinks that join later.
    pub(crate) keeps: bool,
}

impl Default for SourceOptions {
    /// 64 buffers of 2 KiB.
    fn default() -> Self {
        SourceOptions { classes: vec![ClassSpec { size: 2048, count: 64 }], schema: None, keeps: false }
    }
}

impl SourceOptions {
    /// No buffers: messages of up to 96 bytes only, which travel in the ring.
    #[must_use]
    pub const fn small() -> Self {
        SourceOptions { classes: Vec::new(), schema: None, keeps: false }
    }

    /// `count` buffers of `size` bytes instead of the default.
    ///
    /// Several local receivers share the buffers out: each may hold an equal part of all
    /// but one, so that a receiver which never releases starves nobody. For every one to
    /// fill its ring, `count` is receivers times their depth, and one.
    #[must_use]
    pub fn buffers(self, size: u32, count: u32) -> Self {
        SourceOptions { classes: vec![ClassSpec { size, count }], ..self }
    }

    /// Buffers of several sizes, by rising size; at most eight.
    #[must_use]
    pub fn classes(self, classes: &[ClassSpec]) -> Self {
        SourceOptions { classes: classes.to_vec(), ..self }
    }

    /// What its messages are. Ends of one channel that say different things do not come
    /// together: the later one is refused on its host, and across hosts nothing is sent from
    /// one to the other. Ends that say nothing are joined with any.
    #[must_use]
    pub const fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    pub(crate) fn geometry(&self) -> Option<Geometry> {
        Geometry::new(&self.classes)
    }
}

/// Options of a sink.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SinkOptions {
    pub(crate) depth: u32,
    pub(crate) wake: Option<SinkWake>,
    pub(crate) schema: Option<Schema>,
    pub(crate) observes: bool,
}

impl Default for SinkOptions {
    /// 64 messages a sender; woken as the stream's `consumption` says.
    fn default() -> Self {
        SinkOptions { depth: 64, wake: None, schema: None, observes: false }
    }
}

impl SinkOptions {
    /// Messages that each sender's ring to this sink holds, rounded up to a power of
    /// two; 2 to 65,536.
    #[must_use]
    pub const fn depth(mut self, depth: u32) -> Self {
        self.depth = depth;
        self
    }

    /// What messages it expects: see [`SourceOptions::schema`].
    #[must_use]
    pub const fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    /// The sink never sleeps and is never woken, whatever the stream's `consumption`.
    #[must_use]
    pub const fn polled(mut self) -> Self {
        self.wake = Some(SinkWake::Never);
        self
    }

    /// The sink only watches, and polls. No source counts it as a receiver and nobody
    /// waits for it, on a reliable stream either: what it has no room for it misses, and
    /// the next message tells how much ([`Message::lost`](crate::Message::lost)). It asks no
    /// other host for messages: it sees those of local sources, and what comes for local sinks. On
    /// an isolated stream it sees what is sent to others.
    #[must_use]
    pub const fn observer(mut self) -> Self {
        self.observes = true;
        self.wake = Some(SinkWake::Never);
        self
    }

    /// The sink has a descriptor ([`Sink::fd`](crate::Sink::fd)) for an event loop.
    #[must_use]
    pub const fn pollable(mut self) -> Self {
        self.wake = Some(SinkWake::Fd);
        self
    }
}
