//! Process data in a task: the calls of sinks and sources that never wait.

use insane_rt::{ConsumeError, Emit, GetBufferError, Sink, Source};

/// Messages looked at in one call; more wait for the next.
const LOOKS: usize = 64;

/// The read end of a channel.
pub struct In(Sink);

/// What [`In::newest`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes of the message.
    pub len: usize,
    /// Its number.
    pub sequence: u64,
}

impl In {
    /// Of a sink.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        In(sink)
    }

    /// Copies the newest message that waits, of at most `into.len()` bytes; older ones and
    /// longer ones are passed over. `None`: nothing new.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn newest(&mut self, into: &mut [u8]) -> Result<Option<Received>, ConsumeError> {
        let mut newest = None;
        for _ in 0..LOOKS {
            let Some(message) = self.0.consume()? else { break };
            if message.len() <= into.len() {
                let len = message.copy_to(into);
                newest = Some(Received { len, sequence: message.sequence() });
            }
        }
        Ok(newest)
    }
}

impl std::fmt::Debug for In {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("In")
    }
}

/// The write end of a channel.
pub struct Out(Source);

impl Out {
    /// Of a source.
    #[must_use]
    pub fn new(source: Source) -> Self {
        Out(source)
    }

    /// Sends a message; false: it was refused, since there is no room.
    ///
    /// # Errors
    /// See [`GetBufferError`].
    pub fn put(&mut self, message: &[u8]) -> Result<bool, GetBufferError> {
        Ok(matches!(self.0.emit_copy(message)?, Emit::Sent(_)))
    }
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Out")
    }
}
