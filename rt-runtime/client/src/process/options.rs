//! What a process sink and a process source are told when they are made.

use crate::error::RequestError;
use crate::options::{SinkOptions, SourceOptions};
use insane_core::limits::{INLINE_BYTES_MAX, MESSAGE_BYTES_MAX};
use insane_core::{Nanos, Schema};
use std::time::Duration;

/// Most messages that a source keeps for late joiners.
pub const HISTORY_MAX: usize = 16;

/// What a process sink shows once its value is stale.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum OnStale {
    /// The last value.
    #[default]
    Hold,
    /// These bytes; also before the first value has arrived.
    Substitute(Vec<u8>),
}

/// Options of a [`ProcessSink`](crate::ProcessSink).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessOptions {
    pub(crate) size: u32,
    pub(crate) depth: u32,
    pub(crate) period: Option<Nanos>,
    pub(crate) max_missed: u32,
    pub(crate) on_stale: OnStale,
    pub(crate) schema: Option<Schema>,
}

impl ProcessOptions {
    /// Values of at most `size` bytes, without a period: nothing becomes stale. 64 messages
    /// of each sender fit between two looks.
    #[must_use]
    pub const fn new(size: u32) -> Self {
        ProcessOptions { size, depth: 64, period: None, max_missed: 0, on_stale: OnStale::Hold, schema: None }
    }

    /// A value is expected every `period`.
    #[must_use]
    pub fn period(mut self, period: Duration) -> Self {
        self.period = Some(period.into());
        self
    }

    /// So many values may fail in a row before the last one is stale; none by default.
    #[must_use]
    pub const fn max_missed(mut self, max_missed: u32) -> Self {
        self.max_missed = max_missed;
        self
    }

    /// What is shown then.
    #[must_use]
    pub fn on_stale(mut self, on_stale: OnStale) -> Self {
        self.on_stale = on_stale;
        self
    }

    /// Messages of each sender that fit between two looks, rounded up to a power of two. A
    /// sink that looks too rarely gets the oldest so many: senders drop what finds no room.
    #[must_use]
    pub const fn depth(mut self, depth: u32) -> Self {
        self.depth = depth;
        self
    }

    /// What the values are: see [`Schema`].
    #[must_use]
    pub const fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    pub(crate) fn check(&self) -> Result<(), RequestError> {
        check_size(self.size)?;
        if self.period == Some(Nanos::ZERO) {
            return Err(RequestError::Option("a period is longer than nothing"));
        }
        match &self.on_stale {
            OnStale::Substitute(bytes) if bytes.len() > self.size as usize => {
                Err(RequestError::Option("a substitute value is no longer than the sink's values"))
            }
            OnStale::Hold | OnStale::Substitute(_) => Ok(()),
        }
    }

    pub(crate) fn sink_options(&self) -> SinkOptions {
        let options = SinkOptions::default().depth(self.depth);
        self.schema.map_or(options, |schema| options.schema(schema))
    }
}

/// Options of a [`ProcessSource`](crate::ProcessSource).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessSourceOptions {
    pub(crate) size: u32,
    pub(crate) buffers: u32,
    pub(crate) history: usize,
    pub(crate) schema: Option<Schema>,
}

impl ProcessSourceOptions {
    /// Values of at most `size` bytes, and no history.
    #[must_use]
    pub const fn new(size: u32) -> Self {
        ProcessSourceOptions { size, buffers: 64, history: 0, schema: None }
    }

    /// The last so many values, at most [`HISTORY_MAX`], are kept for sinks that join later. None by default.
    /// The runtime's configuration may allow fewer (`history_max`).
    #[must_use]
    pub const fn history(mut self, history: usize) -> Self {
        self.history = history;
        self
    }

    /// Buffers that receivers share, where values are larger than 96 bytes; 64 by default.
    #[must_use]
    pub const fn buffers(mut self, buffers: u32) -> Self {
        self.buffers = buffers;
        self
    }

    /// What the values are: see [`Schema`].
    #[must_use]
    pub const fn schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    pub(crate) fn check(&self) -> Result<(), RequestError> {
        check_size(self.size)?;
        if self.history > HISTORY_MAX {
            return Err(RequestError::Option("a source keeps at most 16 values for late joiners"));
        }
        Ok(())
    }

    pub(crate) fn source_options(&self) -> SourceOptions {
        let options = if self.size as usize <= INLINE_BYTES_MAX {
            SourceOptions::small()
        } else {
            SourceOptions::default().buffers(self.size, self.buffers)
        };
        let options = SourceOptions { keeps: self.history > 0, ..options };
        match self.schema {
            Some(schema) => options.schema(schema),
            None => options,
        }
    }
}

fn check_size(size: u32) -> Result<(), RequestError> {
    if (1..=MESSAGE_BYTES_MAX).contains(&size) {
        return Ok(());
    }
    Err(RequestError::Option("a value of process data has 1 byte to 100 MB"))
}
