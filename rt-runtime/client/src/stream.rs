//! Streams.

use crate::agent::{Reply, What, lock};
use crate::callback::{Attended, CallbackSink, Callbacks, Called};
use crate::error::RequestError;
use crate::message::Message;
use crate::options::{SinkOptions, SourceOptions};
use crate::registry::StreamRecord;
use crate::session::Core;
use crate::sink::Sink;
use crate::source::Source;
use insane_core::{ChannelId, Consumption, Lane, Qos, Reliability, StreamId};
use insane_wire::control::{Request, SinkWake};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

pub(crate) struct StreamCore {
    pub core: Arc<Core>,
    local: u32,
    given: Given,
}

/// What the runtime gave a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Given {
    pub lane: Lane,
    pub qos: Qos,
    /// Values that its sources may keep for late joiners, at most.
    pub history_max: u8,
}

impl Drop for StreamCore {
    fn drop(&mut self) {
        self.core.shared.close_stream(self.local);
    }
}

/// A contract of quality of service under a name. It stays open while this handle, a
/// source or a sink of it lives.
#[derive(Clone)]
pub struct Stream {
    inner: Arc<StreamCore>,
}

impl Stream {
    pub(crate) fn new(core: Arc<Core>, local: u32, given: Given) -> Self {
        Stream { inner: Arc::new(StreamCore { core, local, given }) }
    }

    /// The lane the runtime gave it when it was opened. The runtime's configuration may move it
    /// later, within the real-time or the best-effort lanes.
    #[must_use]
    pub fn lane(&self) -> Lane {
        self.inner.given.lane
    }

    /// What it was given when it was opened: what was asked for, as far as the runtime's
    /// configuration fixes nothing else.
    #[must_use]
    pub fn qos(&self) -> Qos {
        self.inner.given.qos
    }

    /// Values that a source may keep for late joiners.
    pub(crate) fn history_max(&self) -> usize {
        self.inner.given.history_max.into()
    }

    fn id(&self) -> Result<StreamId, RequestError> {
        if self.inner.core.shared.is_forked() {
            return Err(RequestError::Forked);
        }
        let registry = lock(&self.inner.core.shared.registry);
        registry.streams.get(&self.inner.local).map_or(Err(RequestError::Detached), StreamRecord::number)
    }

    /// Why the runtime that came back has not opened the stream again, though the session is
    /// attached: its configuration declares the stream otherwise than its sources and sinks are
    /// made for, somebody else has opened it otherwise, or a quota is used up. The reason names the
    /// stream, what was asked for and what is declared. It is logged, too, and every new
    /// source or sink of the stream is refused with it. Sources and sinks that there are go on
    /// by direct rings, else as without a runtime. To use the new declaration, drop the stream with
    /// all that is of it, and open it anew. `None`: it is open, or the session is not attached.
    #[must_use]
    pub fn refused(&self) -> Option<RequestError> {
        lock(&self.inner.core.shared.registry).streams.get(&self.inner.local)?.refused.clone()
    }

    /// Opens the write end of a channel.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn source(&self, channel: ChannelId, options: SourceOptions) -> Result<Source, RequestError> {
        if options.geometry().is_none() {
            return Err(RequestError::Option(
                "a source has at most 8 sizes of buffers, rising, 1 byte to 100 MB each, and at most 65,536 buffers",
            ));
        }
        let (stream, uid) = (self.id()?, fresh_uid());
        let SourceOptions { classes, schema, keeps } = options;
        let (counts, line) = self.inner.core.shared.take_line();
        let what = What::Source {
            uid,
            stream: self.inner.local,
            channel,
            classes: classes.clone(),
            reliable: self.inner.given.qos.reliability == Reliability::Reliable,
            schema,
            keeps,
            line: counts,
        };
        let reply = self.inner.core.shared.request(what, |req| Request::CreateSource {
            req,
            stream,
            channel,
            uid,
            classes,
            schema,
            keeps,
            line,
        })?;
        match reply {
            Reply::Source(port) => Ok(Source::new(port, Arc::clone(&self.inner), uid)),
            _ => Err(RequestError::Silent),
        }
    }

    /// Opens the read end of a channel.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn sink(&self, channel: ChannelId, options: SinkOptions) -> Result<Sink, RequestError> {
        let depth = options.depth.checked_next_power_of_two().filter(|depth| insane_shm::ring::depth_fits(*depth));
        let Some(depth) = depth else {
            return Err(RequestError::Option("a sink's depth is 2 to 65,536 messages"));
        };
        let wake = options.wake.unwrap_or(match self.inner.given.qos.consumption {
            Consumption::Poll => SinkWake::Never,
            Consumption::Low => SinkWake::Page,
        });
        let observes = options.observes;
        if observes && wake != SinkWake::Never {
            return Err(RequestError::Option("a sink that only watches polls"));
        }
        let (stream, uid) = (self.id()?, fresh_uid());
        let schema = options.schema;
        let (counts, line) = self.inner.core.shared.take_line();
        let local = self.inner.local;
        let what = What::Sink { uid, stream: local, channel, depth, wake, schema, observes, line: counts };
        let reply = self.inner.core.shared.request(what, |req| {
            if observes {
                Request::CreateTap { req, stream, channel, uid, depth, line }
            } else {
                Request::CreateSink { req, stream, channel, uid, depth, wake, schema, line }
            }
        })?;
        match reply {
            Reply::Sink(port, reader) => Ok(Sink::new(port, reader, Arc::clone(&self.inner), uid, wake)),
            _ => Err(RequestError::Silent),
        }
    }

    /// Opens the read end of a channel and calls `callback` for every message, on the
    /// session's callback thread (`insane-callback`, ordinary priority). The callback
    /// may emit, and may block; while it does, no other callback of the session runs.
    /// It must not drop its own [`CallbackSink`]. One that panics is called no more, and its
    /// sink is closed ([`CallbackSink::panicked`]); the session's others go on.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn sink_with_callback(
        &self,
        channel: ChannelId,
        options: SinkOptions,
        callback: impl FnMut(Message<'_>) + Send + 'static,
    ) -> Result<CallbackSink, RequestError> {
        let sink = self.sink(channel, options.pollable())?;
        self.attended(Box::new(Called { sink, callback }))
    }

    /// Leaves a sink to the session's callback thread.
    pub(crate) fn attended(&self, sink: Box<dyn Attended>) -> Result<CallbackSink, RequestError> {
        let mut callbacks = lock(&self.inner.core.callbacks);
        if callbacks.is_none() {
            *callbacks = Some(Callbacks::start().map_err(|error| RequestError::Resources(error.to_string()))?);
        }
        match callbacks.as_ref() {
            Some(callbacks) => Ok(callbacks.add(sink)),
            None => Err(RequestError::Silent),
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream(lane {})", self.inner.given.lane)
    }
}

/// A number that no other source or sink has: 64 random bits.
fn fresh_uid() -> u64 {
    // `RandomState` is seeded by the system and counts up: fresh for every call.
    RandomState::new().build_hasher().finish()
}
