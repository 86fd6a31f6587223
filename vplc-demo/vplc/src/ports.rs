//! Process data in a task: the calls of sinks and sources that never wait.

use insane_rt::{ConsumeError, Emit, GetBufferError, Sink, Source};

/// Messages looked at in one call; more wait for the next.
const LOOKS: usize = 64;

/// The read end of a channel.
pub struct In {
    sink: Sink,
    /// Lost before messages that were passed over, and not told yet.
    lost: u64,
}

/// A message that came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Bytes of the message. Where there was room for fewer, the first ones were copied.
    pub len: usize,
    /// Its number.
    pub sequence: u64,
    /// Messages that were sent and never came: just before it, and, where older ones were passed
    /// over, before those.
    pub lost: u64,
}

impl In {
    /// Of a sink.
    #[must_use]
    pub fn new(sink: Sink) -> Self {
        In { sink, lost: 0 }
    }

    /// Copies the oldest message that waits, of one that is longer than `into` as much as there is
    /// room for. `None`: none waits. Who takes all that wait bounds how many it takes in a cycle.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn next(&mut self, into: &mut [u8]) -> Result<Option<Received>, ConsumeError> {
        let Some(message) = self.sink.consume()? else { return Ok(None) };
        message.copy_to(into);
        let lost = std::mem::take(&mut self.lost) + u64::from(message.lost());
        Ok(Some(Received { len: message.len(), sequence: message.sequence(), lost }))
    }

    /// Copies the newest message that waits, of at most `into.len()` bytes; older ones and
    /// longer ones are passed over; what was lost before those is told with what comes next.
    /// `None`: nothing new.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn newest(&mut self, into: &mut [u8]) -> Result<Option<Received>, ConsumeError> {
        let mut newest: Option<Received> = None;
        for _ in 0..LOOKS {
            let message = match self.sink.consume() {
                Ok(Some(message)) => message,
                // What came is shown first; the next call says so again.
                Err(error) if newest.is_none() => return Err(error),
                Ok(None) | Err(_) => break,
            };
            self.lost += u64::from(message.lost());
            if message.len() <= into.len() {
                let len = message.copy_to(into);
                let lost = std::mem::take(&mut self.lost) + newest.map_or(0, |older| older.lost);
                newest = Some(Received { len, sequence: message.sequence(), lost });
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

#[cfg(test)]
mod tests {
    use super::*;
    use insane_rt::{ChannelId, Qos, Session, SinkOptions, SourceOptions};

    const DEPTH: u64 = 4;

    fn pair() -> (Out, In) {
        let session = Session::embedded("ports").unwrap();
        let stream = session.stream("s", Qos::default()).unwrap();
        let sink = stream.sink(ChannelId(1), SinkOptions::default().depth(DEPTH as u32)).unwrap();
        let source = stream.source(ChannelId(1), SourceOptions::small()).unwrap();
        source.wait_for_receivers(std::time::Duration::from_secs(5)).unwrap();
        (Out::new(source), In::new(sink))
    }

    #[test]
    fn messages_come_one_by_one_and_what_was_lost_before_is_told() {
        let (mut output, mut input) = pair();
        let mut bytes = [0; 4];
        assert_eq!(input.next(&mut bytes).unwrap(), None);
        assert!(output.put(&[1, 2]).unwrap() && output.put(&[3; 9]).unwrap());
        assert_eq!(input.next(&mut bytes).unwrap(), Some(Received { len: 2, sequence: 0, lost: 0 }));
        assert_eq!(bytes, [1, 2, 0, 0]);
        assert_eq!(input.next(&mut bytes).unwrap(), Some(Received { len: 9, sequence: 1, lost: 0 }));
        assert_eq!((bytes, input.next(&mut bytes).unwrap()), ([3; 4], None));
    }

    #[test]
    fn who_takes_the_newest_hears_of_all_that_were_lost() {
        let (mut output, mut input) = pair();
        let mut bytes = [0; 8];
        // More than the ring holds, twice: what has no room is lost before the next that has.
        let mut last = 0;
        let mut came = 0;
        for round in 0..2_u64 {
            for at in 0..3 * DEPTH {
                last = round * 3 * DEPTH + at;
                let _ = output.put(&last.to_le_bytes()).unwrap();
            }
            while let Some(received) = input.next(&mut bytes).unwrap() {
                came += 1 + received.lost;
            }
        }
        let _ = output.put(&[0; 8]).unwrap();
        let received = input.newest(&mut bytes).unwrap().unwrap();
        assert_eq!(received.sequence, last + 1);
        assert_eq!(came + received.lost, received.sequence);
        // Of two that wait, the older carries what was lost before it.
        for at in 0..3 * DEPTH {
            let _ = output.put(&at.to_le_bytes()).unwrap();
        }
        let before = received.sequence;
        while input.next(&mut [0; 8]).unwrap().is_some() {}
        assert!(output.put(&[0; 9]).unwrap() && output.put(&[1; 8]).unwrap());
        let received = input.newest(&mut bytes).unwrap().unwrap();
        assert_eq!((received.sequence, received.lost), (before + 3 * DEPTH + 2, 3 * DEPTH - DEPTH));
        assert_eq!(bytes, [1; 8]);
    }

    #[test]
    fn what_was_lost_before_a_message_that_does_not_fit_is_told_with_the_next() {
        let (mut output, mut input) = pair();
        let mut bytes = [0; 8];
        // The ring is full, and the rest is lost before the long one.
        for at in 0..3 * DEPTH {
            let _ = output.put(&at.to_le_bytes()).unwrap();
        }
        while input.next(&mut bytes).unwrap().is_some() {}
        assert!(output.put(&[0; 9]).unwrap());
        assert_eq!(input.newest(&mut bytes).unwrap(), None, "it does not fit");
        assert!(output.put(&[1; 8]).unwrap());
        let received = input.newest(&mut bytes).unwrap().unwrap();
        assert_eq!((received.sequence, received.lost), (3 * DEPTH + 1, 3 * DEPTH - DEPTH));
        assert!(output.put(&[2; 8]).unwrap());
        assert_eq!(input.next(&mut bytes).unwrap().unwrap().lost, 0, "once");
    }
}
