//! The write end of a channel.

use crate::Buffer;
use crate::error::{GetBufferTimeoutError, RequestError};
use crate::message::Message;
use crate::session::Core;
use crate::stream::StreamCore;
use insane_shm::port::{Earlier, Emit, GetBufferError, Outcome, Refusal, SourcePort, Token};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Between two looks for a free buffer or a receiver.
const PAUSE: Duration = Duration::from_micros(50);

/// The write end of a channel. `Send`, not `Sync`: one thread at a time uses it.
pub struct Source {
    port: SourcePort,
    stream: Arc<StreamCore>,
    uid: u64,
}

impl Source {
    pub(crate) fn new(port: SourcePort, stream: Arc<StreamCore>, uid: u64) -> Self {
        // Where this thread turns the engine, it does so after each emit.
        let port = if stream.core.inline.is_some() { port.with_sequel() } else { port };
        Source { port, stream, uid }
    }

    fn core(&self) -> &Core {
        &self.stream.core
    }

    #[inline(always)]
    fn turn(&self) {
        if let Some(inline) = &self.stream.core.inline {
            inline.try_turn();
        }
    }

    /// Borrows a buffer of `len` bytes; what it holds is left over from earlier messages.
    /// Never blocks.
    ///
    /// # Errors
    /// None is free, `len` is more than the source's buffers have, or this is a forked child.
    #[inline(always)]
    pub fn get_buffer(&self, len: usize) -> Result<Buffer<'_>, GetBufferError> {
        self.port.get_buffer(len)
    }

    /// As [`get_buffer`](Self::get_buffer), but waits for receivers to give one back.
    ///
    /// # Errors
    /// As [`get_buffer`](Self::get_buffer), and the timeout.
    pub fn get_buffer_timeout(&self, len: usize, timeout: Duration) -> Result<Buffer<'_>, GetBufferTimeoutError> {
        let give_up = Instant::now() + timeout;
        loop {
            match self.port.get_buffer(len) {
                Ok(buffer) => return Ok(buffer),
                Err(GetBufferError::Exhausted) if Instant::now() < give_up => {
                    self.turn();
                    std::thread::sleep(PAUSE);
                }
                Err(GetBufferError::Exhausted) => return Err(GetBufferTimeoutError::TimedOut),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Publishes a filled buffer to every sink of the channel, here and on other hosts.
    /// Never blocks: what happens when a receiver has no room is the stream's
    /// [`Reliability`](insane_core::Reliability).
    #[inline(always)]
    pub fn emit<'s>(&'s self, buffer: Buffer<'s>) -> Emit<Buffer<'s>> {
        self.emit_at(buffer, 0)
    }

    /// As [`emit`](Self::emit), with the instant that the message bears, ns of a clock
    /// that source and sink agree on; 0: none.
    #[inline(always)]
    pub fn emit_at<'s>(&'s self, buffer: Buffer<'s>, source_ns: u64) -> Emit<Buffer<'s>> {
        self.port.emit_and(buffer, source_ns, || self.turn())
    }

    /// Publishes a copy of `bytes`. Up to 96 bytes need no buffer.
    ///
    /// # Errors
    /// As [`get_buffer`](Self::get_buffer).
    #[inline(always)]
    pub fn emit_copy(&self, bytes: &[u8]) -> Result<Emit<()>, GetBufferError> {
        self.emit_copy_at(bytes, 0)
    }

    /// As [`emit_copy`](Self::emit_copy), with the instant that the message bears, as with
    /// [`emit_at`](Self::emit_at).
    ///
    /// # Errors
    /// As [`get_buffer`](Self::get_buffer).
    #[inline(always)]
    pub fn emit_copy_at(&self, bytes: &[u8], source_ns: u64) -> Result<Emit<()>, GetBufferError> {
        match self.port.emit_copy_and(bytes, source_ns, || self.turn()) {
            Some(emitted) => Ok(emitted),
            None => self.emit_copy_in_buffer(bytes, source_ns),
        }
    }

    #[inline(never)]
    fn emit_copy_in_buffer(&self, bytes: &[u8], source_ns: u64) -> Result<Emit<()>, GetBufferError> {
        let mut buffer = self.get_buffer(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Ok(forget_buffer(self.emit_at(buffer, source_ns)))
    }

    /// Sends what was emitted earlier to the sinks that joined since the last call; how many
    /// did, the network counting as one.
    pub(crate) fn replay(&self, earlier: &[Earlier<'_>]) -> usize {
        let joined = self.port.replay(earlier);
        if joined > 0 {
            self.turn();
        }
        joined
    }

    /// Publishes what was consumed. The payload is copied once, into a buffer of this
    /// source; the message stays the caller's.
    ///
    /// One copy is what it takes. The buffer is in the heap of the message's sender, who
    /// alone writes there and alone knows, in private memory, which connection holds it. To
    /// pass it on in place, this source's receivers would have to map that heap, although
    /// its sender never let them; they could give it back only through this source, so that
    /// a slow one of them would use up the sender's buffers in this sink's name; and the
    /// sender, who may overwrite what it was told is free, or die, would have to be believed
    /// by receivers that are none of its own. Even where this session wrote the message
    /// itself, two sources have two heaps, and a buffer has one owner. Who wants one payload
    /// at many sinks without a copy lets them all listen to its first source.
    ///
    /// # Errors
    /// As [`get_buffer`](Self::get_buffer).
    pub fn emit_message(&self, message: &Message<'_>) -> Result<Emit<()>, GetBufferError> {
        let mut buffer = self.get_buffer(message.len())?;
        message.copy_to(&mut buffer);
        Ok(forget_buffer(self.emit(buffer)))
    }

    /// What became of an emit: known for the source's last 64.
    #[must_use]
    pub fn outcome(&self, token: Token) -> Outcome {
        self.port.outcome(token)
    }

    /// Whether a message emitted now would reach a local sink or the network.
    #[must_use]
    pub fn has_receivers(&self) -> bool {
        self.port.has_receivers()
    }

    /// Receivers of a message emitted now; the network counts as one.
    #[must_use]
    pub fn receivers(&self) -> usize {
        self.port.receivers()
    }

    /// Waits until a message emitted now would reach somebody.
    ///
    /// # Errors
    /// Nobody came in time.
    pub fn wait_for_receivers(&self, timeout: Duration) -> Result<(), RequestError> {
        let give_up = Instant::now() + timeout;
        while !self.port.has_receivers() {
            if Instant::now() >= give_up {
                return Err(RequestError::NoReceiver);
            }
            self.turn();
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Buffers that this application or a receiver holds.
    #[must_use]
    pub fn buffers_in_use(&self) -> u32 {
        self.port.buffers_in_use()
    }
}

fn forget_buffer(emitted: Emit<Buffer<'_>>) -> Emit<()> {
    match emitted {
        Emit::Sent(token) => Emit::Sent(token),
        Emit::Refused(_, refusal) => {
            let refusal: Refusal = refusal;
            Emit::Refused((), refusal)
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.core().shared.close_source(self.uid);
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Source")
    }
}
