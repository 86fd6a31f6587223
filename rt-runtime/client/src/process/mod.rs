//! Process data: what cyclic tasks exchange. Not a queue of messages, but a value that is
//! fresh, or stale, or was never received.
//!
//! It is built on sources and sinks, which do not know of it: who does not use it pays
//! nothing for it.

mod clocks;
mod freshness;
mod image;
mod options;
mod rest;
mod sink;
mod source;

pub use freshness::Edge;
pub use image::{Cycle, CycleImage, Image, ImageOptions, ImageRead, Member, Part, ProcessImage};
pub use options::{HISTORY_MAX, OnStale, ProcessOptions, ProcessSourceOptions};
pub use sink::{Lost, ProcessSink, Sample, Validity};
pub use source::ProcessSource;

use crate::callback::CallbackSink;
use crate::error::RequestError;
use crate::stream::Stream;
use insane_core::ChannelId;

impl Stream {
    /// Opens the read end of a channel of process data. It is polled: nobody wakes it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn process_sink(&self, channel: ChannelId, options: ProcessOptions) -> Result<ProcessSink, RequestError> {
        options.check()?;
        let sink = self.sink(channel, options.sink_options().polled())?;
        Ok(ProcessSink::new(sink, options))
    }

    /// Opens the read end of a channel of process data and calls `callback` with every new
    /// value and every edge, on the session's callback thread (`insane-callback`, ordinary
    /// priority, beside the callbacks of
    /// [`sink_with_callback`](Self::sink_with_callback), under their rules). A timer of that
    /// thread finds staleness: as late as the thread runs, never early. Values that came
    /// faster than the callback returns are overtaken.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn process_sink_with_callback(
        &self,
        channel: ChannelId,
        options: ProcessOptions,
        callback: impl FnMut(Sample<'_>) + Send + 'static,
    ) -> Result<CallbackSink, RequestError> {
        options.check()?;
        let sink = self.sink(channel, options.sink_options().pollable())?;
        self.attended(Box::new(sink::Called { sink: ProcessSink::new(sink, options), callback }))
    }

    /// Opens the write end of a channel of process data.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn process_source(
        &self,
        channel: ChannelId,
        options: ProcessSourceOptions,
    ) -> Result<ProcessSource, RequestError> {
        options.check()?;
        let options = ProcessSourceOptions { history: options.history.min(self.history_max()), ..options };
        let source = self.source(channel, options.source_options())?;
        Ok(ProcessSource::new(source, &options))
    }
}
