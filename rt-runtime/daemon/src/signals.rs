//! Signals as a descriptor: nothing runs inside a handler.

use insane_core::Nanos;
use insane_sys::OsError;
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// The end.
    Stop,
    /// A new look at the configuration.
    Reload,
}

/// SIGTERM, SIGINT and SIGHUP of this process.
#[derive(Debug)]
pub struct Signals {
    signals: SignalFd,
    epoll: Epoll,
}

impl Signals {
    /// Takes the signals from their handlers, for this thread and those it starts.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn take() -> Result<Self, OsError> {
        let failed = |errno: Errno| OsError::new("taking signals", errno);
        let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP]);
        set.thread_block().map_err(failed)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).map_err(failed)?;
        let epoll = Epoll::new()?;
        epoll.add(&signals, 0, Interest::Read, Trigger::Level)?;
        Ok(Signals { signals, epoll })
    }

    /// Waits for the next signal, at most `timeout`.
    ///
    /// # Errors
    /// The descriptors are broken.
    pub fn wait(&self, timeout: Nanos) -> Result<Option<Asked>, OsError> {
        self.epoll.wait(&mut [Ready::NONE], Some(timeout))?;
        let signal = self.signals.read_signal().map_err(|errno| OsError::new("reading a signal", errno))?;
        Ok(signal.map(|info| if info.ssi_signo == Signal::SIGHUP as u32 { Asked::Reload } else { Asked::Stop }))
    }
}
