//! Why something failed.

use insane_shm::port::{ConsumeError, GetBufferError};
use insane_sys::OsError;
use insane_wire::control::Code;
use std::path::PathBuf;

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Nobody listens there, or the socket is out of reach.
    #[error("cannot attach to the runtime at {}: {reason}", path.display())]
    Unreachable {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The runtime said no.
    #[error("the runtime refused the session ({code:?}): {reason}")]
    Refused {
        /// Which kind of reason.
        code: Code,
        /// The reason in words.
        reason: String,
    },
    /// The runtime did not answer in time.
    #[error("the runtime did not answer within two seconds")]
    Silent,
    /// The embedded runtime did not start.
    #[error("the embedded runtime did not start: {0}")]
    Start(String),
    /// The name is empty, longer than 64 bytes, or holds control characters.
    #[error("a name has 1 to 64 bytes and no control characters")]
    Name,
    /// The system refuses a thread, memory or a descriptor.
    #[error("the system refuses a resource: {0}")]
    Resources(String),
}

impl From<OsError> for SessionError {
    fn from(error: OsError) -> Self {
        SessionError::Resources(error.to_string())
    }
}

impl From<std::io::Error> for SessionError {
    fn from(error: std::io::Error) -> Self {
        SessionError::Resources(error.to_string())
    }
}

/// Why the memory of a process is not locked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LockError {
    /// The kernel refused.
    #[error(transparent)]
    System(#[from] OsError),
    /// The daemon did not raise the limit.
    #[error(transparent)]
    Runtime(#[from] RequestError),
}

/// Why a stream, source or sink could not be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RequestError {
    /// The runtime said no: now or, to the whole stream, when it came back
    /// ([`Stream::refused`](crate::Stream::refused)).
    #[error("the runtime refused ({code:?}): {reason}")]
    Refused {
        /// Which kind of reason.
        code: Code,
        /// The reason in words.
        reason: String,
    },
    /// The runtime is gone; the session reattaches when it is back.
    #[error("the runtime is gone")]
    Detached,
    /// The runtime closed the session.
    #[error("the runtime closed the session ({code:?}): {reason}")]
    Closed {
        /// Which kind of reason.
        code: Code,
        /// The reason in words.
        reason: String,
    },
    /// The runtime did not answer in time.
    #[error("the runtime did not answer within two seconds")]
    Silent,
    /// An option is out of its range.
    #[error("{0}")]
    Option(&'static str),
    /// The system refuses memory or a descriptor.
    #[error("the system refuses a resource: {0}")]
    Resources(String),
    /// This process was forked from the one that attached.
    #[error("a forked child cannot use its parent's session: attach anew")]
    Forked,
    /// Nobody came in time.
    #[error("no receiver came in time")]
    NoReceiver,
}

/// Why [`Source::get_buffer_timeout`](crate::Source::get_buffer_timeout) has no buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GetBufferTimeoutError {
    /// See [`GetBufferError`]; never `Exhausted`.
    #[error(transparent)]
    Failed(#[from] GetBufferError),
    /// None became free in time.
    #[error("no buffer became free in time")]
    TimedOut,
}

/// Why [`Sink::consume_timeout`](crate::Sink::consume_timeout) failed.
pub type ConsumeTimeoutError = ConsumeError;
