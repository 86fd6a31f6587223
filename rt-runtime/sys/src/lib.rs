//! Operating-system calls behind safe functions.
//!
//! One of the few crates with `unsafe`. Everything here is a thin, argued wrapper;
//! no policy lives here. An error says what was attempted and carries the errno
//! ([`OsError`]); what is no error (nothing to read, no room) is an outcome.

mod bytes;
pub mod clock;
mod error;
pub mod event;
pub mod foreign_thread;
pub mod futex;
pub mod guard;
pub mod host;
pub mod interfaces;
pub mod launch;
pub mod map;
pub mod memfd;
pub mod neighbours;
pub mod netlink;
pub mod pi_mutex;
pub mod privileges;
pub mod queue;
pub mod seqpacket;
pub mod tcp;
pub mod thread;
pub mod udp;

pub use bytes::SharedBytes;
pub use error::{Errno, OsError};
