//! The read end of a channel.

use crate::agent::lock;
use crate::message::Message;
use crate::stream::StreamCore;
use insane_core::Schema;
use insane_core::counters::PortCounter;
use insane_shm::port::{ConsumeError, SinkPort};
use insane_sys::seqpacket;
use insane_wire::control::SinkWake;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a blocking consume looks before it sleeps: about what a wake-up costs.
const SPIN: Duration = Duration::from_micros(30);
/// Longest sleep without another look: a backstop, should a wake-up ever be missed.
const SLEEP_MAX: Duration = Duration::from_millis(100);

/// The read end of a channel. `Send`, not `Sync`: one thread at a time uses it.
pub struct Sink {
    port: SinkPort,
    /// Readable when a message came, for event loops.
    reader: Option<OwnedFd>,
    stream: Arc<StreamCore>,
    uid: u64,
    wake: SinkWake,
}

impl Sink {
    pub(crate) fn new(
        port: SinkPort,
        reader: Option<OwnedFd>,
        stream: Arc<StreamCore>,
        uid: u64,
        wake: SinkWake,
    ) -> Self {
        Sink { port, reader, stream, uid, wake }
    }

    /// The next message, if one waits. Never blocks. Messages of one source come in its
    /// order; several sources take turns.
    ///
    /// # Errors
    /// The runtime is gone and no local source is left, or this is a forked child.
    #[inline(always)]
    pub fn consume(&self) -> Result<Option<Message<'_>>, ConsumeError> {
        if let Some(received) = self.port.consume()? {
            return Ok(Some(Message(received)));
        }
        if self.reader.is_some() || self.stream.core.inline.is_some() { self.consume_again() } else { Ok(None) }
    }

    /// With inline hosting the engine turns once; with a descriptor, it is made
    /// unreadable and senders are asked to make it readable again.
    #[inline(never)]
    fn consume_again(&self) -> Result<Option<Message<'_>>, ConsumeError> {
        if let Some(inline) = &self.stream.core.inline {
            inline.try_turn();
            if let Some(received) = self.port.take() {
                return Ok(Some(Message(received)));
            }
            self.port.why_none()?;
        }
        match &self.reader {
            Some(reader) => self.consume_armed(reader),
            None => Ok(None),
        }
    }

    #[inline(never)]
    fn consume_armed(&self, reader: &OwnedFd) -> Result<Option<Message<'_>>, ConsumeError> {
        seqpacket::wake_clear(reader);
        if self.port.arm()? { Ok(self.port.consume()?.map(Message)) } else { Ok(None) }
    }

    /// The next message; waits for one at most `timeout`. A sink that may sleep looks for
    /// 30 us, then sleeps; one that polls yields the processor between looks.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub fn consume_timeout(&self, timeout: Duration) -> Result<Option<Message<'_>>, ConsumeError> {
        let started = Instant::now();
        loop {
            if let Some(message) = self.consume()? {
                return Ok(Some(message));
            }
            let waited = started.elapsed();
            if waited >= timeout {
                return Ok(None);
            }
            let inline = self.stream.core.inline.is_some();
            if self.wake == SinkWake::Never || inline {
                std::thread::yield_now();
            } else if waited < SPIN {
                std::hint::spin_loop();
            } else {
                self.sleep((timeout - waited).min(SLEEP_MAX))?;
            }
        }
    }

    fn sleep(&self, timeout: Duration) -> Result<(), ConsumeError> {
        match &self.reader {
            None => self.port.sleep(timeout),
            Some(reader) => {
                let mut fds = [nix::poll::PollFd::new(reader.as_fd(), nix::poll::PollFlags::POLLIN)];
                let millis = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX).max(1);
                let _ = nix::poll::poll(&mut fds, millis);
                Ok(())
            }
        }
    }

    /// Whether a message waits.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub fn data_available(&self) -> Result<bool, ConsumeError> {
        self.port.is_ready()
    }

    /// Adds to one of the sink's counters.
    pub(crate) fn count(&self, counter: PortCounter, amount: u64) {
        self.port.count(counter, amount);
    }

    /// Whether a source, or the network, is connected.
    #[must_use]
    pub fn has_senders(&self) -> bool {
        self.port.has_senders()
    }

    /// The schema of sources of another host, if it is not this sink's: they send it nothing.
    /// A sink of one host with its source is refused when it is made; across hosts it
    /// becomes known within moments of that, holds while it is so, and is forgotten within
    /// four seconds.
    #[must_use]
    pub fn refused(&self) -> Option<Schema> {
        lock(&self.stream.core.shared.registry).sinks.get(&self.uid)?.refused
    }

    /// For event loops ([`SinkOptions::pollable`](crate::SinkOptions::pollable)): readable
    /// when messages may wait. Wait for it only after [`consume`](Self::consume) said that
    /// none does; it then stays unreadable until one comes.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.reader.as_ref().map(AsFd::as_fd)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stream.core.shared.close_sink(self.uid);
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sink")
    }
}
