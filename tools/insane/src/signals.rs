//! Ctrl-C as a question that can be asked, so that a command ends in order.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGINT, SIGTERM and SIGHUP of this process.
#[derive(Debug)]
pub struct Signals(SignalFd);

impl Signals {
    /// Takes the signals from their handlers, for this thread and those it starts.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn take() -> std::io::Result<Self> {
        let set = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        set.thread_block()?;
        Ok(Signals(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// Whether one came.
    pub fn came(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}
