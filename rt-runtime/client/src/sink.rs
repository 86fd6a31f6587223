//! The read end of a channel.

use crate::agent::lock;
use crate::message::Message;
use crate::stream::StreamCore;
use insane_core::counters::PortCounter;
use insane_core::{Nanos, Schema};
use insane_engine::spin::SpinBudget;
use insane_shm::port::{ConsumeError, SinkPort};
use insane_sys::clock::mono_now;
use insane_sys::seqpacket;
use insane_wire::control::SinkWake;
use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a blocking consume looks before it sleeps, at most: as a datapath by default.
const SPIN_MAX: Nanos = Nanos::from_micros(50);
/// Longest sleep without another look: a backstop, should a wake-up ever be missed.
const SLEEP_MAX: Nanos = Nanos::from_millis(100);

/// The read end of a channel. `Send`, not `Sync`: one thread at a time uses it.
pub struct Sink {
    port: SinkPort,
    /// Readable when a message came, for event loops.
    reader: Option<OwnedFd>,
    stream: Arc<StreamCore>,
    uid: u64,
    wake: SinkWake,
    /// How long a blocking consume looks before it sleeps.
    spin: Cell<SpinBudget>,
}

impl Sink {
    pub(crate) fn new(
        port: SinkPort,
        reader: Option<OwnedFd>,
        stream: Arc<StreamCore>,
        uid: u64,
        wake: SinkWake,
    ) -> Self {
        Sink { port, reader, stream, uid, wake, spin: Cell::new(SpinBudget::new(SPIN_MAX)) }
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
    /// twice what a sleep and its wake-up cost, 50 us at most, then sleeps; not at all where its
    /// last waits were longer. One that polls yields the processor between looks.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub fn consume_timeout(&self, timeout: Duration) -> Result<Option<Message<'_>>, ConsumeError> {
        match self.consume()? {
            Some(message) => Ok(Some(message)),
            None => self.wait(timeout.into()),
        }
    }

    /// Nothing is there.
    #[inline(never)]
    fn wait(&self, timeout: Nanos) -> Result<Option<Message<'_>>, ConsumeError> {
        let polls = self.wake == SinkWake::Never || self.stream.core.inline.is_some();
        let mut spin = self.spin.get();
        let mut now = mono_now();
        let until = now + timeout;
        while now < until {
            if polls {
                std::thread::yield_now();
            } else if spin.looks_on(now) {
                std::hint::spin_loop();
            } else {
                let length = until.since(now).min(SLEEP_MAX);
                self.sleep(length.into())?;
                let from = now;
                now = mono_now();
                spin.slept(from, now, now.since(from) < length);
            }
            if let Some(message) = self.consume()? {
                spin.found();
                self.spin.set(spin);
                return Ok(Some(message));
            }
            now = mono_now();
        }
        spin.give_up();
        self.spin.set(spin);
        Ok(None)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChannelId, Qos, Session, SinkOptions, SourceOptions};
    use insane_engine::spin::SETTLES_VAIN;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// How often this thread gave its core away to wait.
    fn waits() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn who_waits_long_soon_sleeps_at_once() {
        let session = Session::embedded("patient").unwrap();
        let stream = session.stream("s", Qos::default()).unwrap();
        let sink = stream.sink(ChannelId(1), SinkOptions::default()).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::small()).unwrap();
        source.wait_for_receivers(PATIENCE).unwrap();
        let budget = |sink: &Sink| sink.spin.get().get();
        let start = budget(&sink);
        assert!(start > Nanos::ZERO);
        // What waits is taken at the first look, and says nothing of waits.
        for _ in 0..10 * SETTLES_VAIN {
            assert!(source.emit_copy(b"now").unwrap().is_sent());
            assert!(sink.consume_timeout(PATIENCE).unwrap().is_some());
        }
        // Nor does a timeout within the looking.
        let before = waits();
        for _ in 0..10 * SETTLES_VAIN {
            assert!(sink.consume_timeout(Duration::from_nanos(100)).unwrap().is_none());
        }
        assert_eq!(budget(&sink), start);
        assert!(waits() - before < u64::from(SETTLES_VAIN), "it does not sleep");
        let before = waits();
        // Some more than it takes: a thread that is kept from running waits less than was meant.
        let mut settled = 0;
        while budget(&sink) > Nanos::ZERO || settled < SETTLES_VAIN {
            assert!(settled < 10 * SETTLES_VAIN, "it looks for {} still", budget(&sink));
            assert!(sink.consume_timeout(Duration::from_millis(2)).unwrap().is_none());
            settled += 1;
        }
        assert!(waits() - before >= u64::from(SETTLES_VAIN));
        // A message that ends a sleep which was long changes nothing.
        let waiter = std::thread::spawn(move || {
            let found = sink.consume_timeout(PATIENCE).unwrap().map(|message| message.to_vec());
            (found, budget(&sink))
        });
        std::thread::sleep(Duration::from_millis(20));
        assert!(source.emit_copy(b"woken").unwrap().is_sent());
        let (found, last) = waiter.join().unwrap();
        assert_eq!(found.as_deref(), Some(&b"woken"[..]));
        assert_eq!(last, Nanos::ZERO);
    }
}
