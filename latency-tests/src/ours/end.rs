//! Ends of conversations and flows over the runtime's public API.

use super::fault;
use crate::baseline::ring::MESSAGE_BYTES;
use crate::harness::converse::End;
use crate::harness::fault::Fault;
use crate::harness::payload;
use insane_rt::{
    Buffer, ChannelId, ConsumeError, Consumption, Emit, GetBufferError, Message, Outcome, Qos, Reliability, Session,
    Sink, SinkOptions, Source, SourceOptions, Stream, StreamOptions,
};
use std::time::Duration;

/// How long an end waits until somebody hears it.
const CONNECT_BOUND: Duration = Duration::from_secs(10);
/// A source has about this much memory, as the raw ring does.
const HEAP_BYTES: usize = 32 << 20;
const BUFFERS_MAX: usize = 256;
/// Messages that travel in the ring and need no buffer.
const INLINE_BYTES: usize = 96;
/// How often a refused message is offered again before the caller looks at its bound.
const OFFERS: u32 = 256;

/// What is done with a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handling {
    /// Every byte is written and read.
    Touch,
    /// Nothing is: the buffer alone changes hands.
    Token,
}

/// The contract of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Contract {
    /// Payload, bytes.
    pub size: usize,
    /// What is done with it.
    pub handling: Handling,
    /// Nothing is lost: a flow. Conversations have one message under way.
    pub reliable: bool,
    /// Local messages, too, go through the runtime's datapath.
    pub isolated: bool,
    /// Sinks may sleep and are woken.
    pub sleepy: bool,
    /// Buffers of the source; `None`: as many as its memory holds.
    pub buffers: Option<u32>,
}

impl Contract {
    /// Messages of 64 bytes, written and read, polled.
    pub const SMALL: Contract = Contract {
        size: MESSAGE_BYTES,
        handling: Handling::Touch,
        reliable: false,
        isolated: false,
        sleepy: false,
        buffers: None,
    };

    fn qos(&self) -> Qos {
        Qos {
            consumption: if self.sleepy { Consumption::Low } else { Consumption::Poll },
            reliability: if self.reliable { Reliability::Reliable } else { Reliability::Unreliable },
            ..Qos::default()
        }
    }

    fn buffers(&self) -> SourceOptions {
        if self.size <= INLINE_BYTES {
            return SourceOptions::small();
        }
        let most = (HEAP_BYTES / self.size).clamp(4, BUFFERS_MAX) as u32;
        SourceOptions::default().buffers(self.size as u32, self.buffers.unwrap_or(most))
    }

    /// Opens the stream of a name.
    ///
    /// # Errors
    /// The runtime refused.
    pub fn stream(&self, session: &Session, name: &str) -> Result<Stream, Fault> {
        let options = StreamOptions::default().isolated(self.isolated);
        session.stream_with(name, self.qos(), options).map_err(fault("open a stream"))
    }
}

/// The write end of a channel.
pub struct Put {
    source: Source,
    contract: Contract,
}

/// The read end of a channel.
pub struct Take {
    sink: Sink,
    contract: Contract,
    /// Where payloads of foreign processes are copied to, part by part.
    part: Vec<u8>,
}

/// Bytes of one part: a payload is verified while it is in the nearest cache.
const PART_BYTES: usize = 16 * 1024;

impl Put {
    /// Opens the write end.
    ///
    /// # Errors
    /// The runtime refused.
    pub fn open(stream: &Stream, channel: u32, contract: Contract) -> Result<Self, Fault> {
        let source = stream.source(ChannelId(channel), contract.buffers()).map_err(fault("open a source"))?;
        Ok(Put { source, contract })
    }

    /// Waits until somebody hears it.
    ///
    /// # Errors
    /// Nobody came.
    pub fn connect(&self) -> Result<(), Fault> {
        self.source.wait_for_receivers(CONNECT_BOUND).map_err(fault("wait for a receiver"))
    }

    /// Waits until so many hear it.
    ///
    /// # Errors
    /// They never came.
    pub fn connect_to(&self, receivers: usize) -> Result<(), Fault> {
        let give_up = std::time::Instant::now() + CONNECT_BOUND;
        while self.source.receivers() < receivers {
            if std::time::Instant::now() > give_up {
                return Err(Fault::Party(format!("{} of {receivers} receivers came", self.source.receivers())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Whether somebody hears it now.
    pub fn is_heard(&self) -> bool {
        self.source.has_receivers()
    }
}

impl End for Put {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let mut buffer = match self.source.get_buffer(self.contract.size) {
            Ok(buffer) => buffer,
            Err(error) => return no_buffer(error),
        };
        if self.contract.handling == Handling::Touch {
            payload::write(&mut buffer, number);
        }
        match self.source.emit(buffer) {
            Emit::Sent(_) => Ok(true),
            Emit::Refused(buffer, _) => Ok(offer_again(&self.source, buffer)),
        }
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

#[cold]
#[inline(never)]
fn no_buffer(error: GetBufferError) -> Result<bool, Fault> {
    match error {
        GetBufferError::Exhausted => Ok(false),
        error => Err(fault("get a buffer")(error)),
    }
}

/// Offers a refused message for a while, so that a large one is not composed anew
/// each time the caller looks at its bound.
#[cold]
#[inline(never)]
fn offer_again<'s>(source: &'s Source, mut buffer: Buffer<'s>) -> bool {
    for _ in 0..OFFERS {
        match source.emit(buffer) {
            Emit::Sent(_) => return true,
            Emit::Refused(back, _) => buffer = back,
        }
    }
    false
}

/// The write end of a channel of messages of one size, which the program was compiled with: as
/// the ring's is, beside which it is counted.
pub struct FixedPut(Put);

impl FixedPut {
    /// A write end of messages of [`MESSAGE_BYTES`].
    #[must_use]
    pub fn new(put: Put) -> Self {
        FixedPut(put)
    }
}

impl End for FixedPut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let source = &self.0.source;
        let mut buffer = match source.get_buffer(MESSAGE_BYTES) {
            Ok(buffer) => buffer,
            Err(error) => return no_buffer(error),
        };
        payload::write(&mut buffer, number);
        match source.emit(buffer) {
            Emit::Sent(_) => Ok(true),
            Emit::Refused(buffer, _) => Ok(offer_again(source, buffer)),
        }
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

/// The read end of a channel of messages of that size.
pub struct FixedTake(Take);

impl FixedTake {
    /// A read end of messages of [`MESSAGE_BYTES`].
    #[must_use]
    pub fn new(take: Take) -> Self {
        FixedTake(take)
    }
}

impl End for FixedTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        let message = match self.0.sink.consume() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(error) => return Err(cannot_consume(error)),
        };
        let read = match message.bytes() {
            Some(bytes) if bytes.len() == MESSAGE_BYTES => payload::read(bytes),
            _ => return Err(Fault::Corrupt { expected: MESSAGE_BYTES as u64, found: message.len() as u64 }),
        };
        // Given back in each branch, so that the number need not be kept meanwhile.
        match read {
            Ok(number) => {
                message.release();
                Ok(Some(number))
            }
            Err(fault) => Err(fault),
        }
    }
}

/// A write end whose message is lost where there is no room, as its contract says, and
/// which then says so.
pub struct Flood(Put);

impl Flood {
    /// A write end that floods.
    #[must_use]
    pub fn new(put: Put) -> Self {
        Flood(put)
    }
}

impl End for Flood {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let Put { source, contract } = &self.0;
        let mut buffer = match source.get_buffer(contract.size) {
            Ok(buffer) => buffer,
            Err(error) => return no_buffer(error),
        };
        payload::write(&mut buffer, number);
        let Emit::Sent(token) = source.emit(buffer) else { return Ok(false) };
        Ok(matches!(source.outcome(token), Outcome::Published { dropped: 0, .. }))
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

/// The write end of a channel of small messages, composed by the application and
/// copied by the emit itself.
pub struct CopyPut(Put);

impl CopyPut {
    /// A write end that copies.
    #[must_use]
    pub fn new(put: Put) -> Self {
        CopyPut(put)
    }
}

impl End for CopyPut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let mut message = [0; MESSAGE_BYTES];
        payload::write(&mut message, number);
        match self.0.source.emit_copy(&message) {
            Ok(emitted) => Ok(emitted.is_sent()),
            Err(error) => no_buffer(error),
        }
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

/// The write end of a channel whose payloads are composed in memory of the application's
/// own, of any size, and copied by the emit.
pub struct ComposePut {
    put: Put,
    own: Vec<u8>,
}

impl ComposePut {
    /// A write end that composes.
    #[must_use]
    pub fn new(put: Put) -> Self {
        let own = vec![0; put.contract.size];
        ComposePut { put, own }
    }
}

impl End for ComposePut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        payload::write(&mut self.own, number);
        for _ in 0..OFFERS {
            match self.put.source.emit_copy(&self.own) {
                Ok(Emit::Sent(_)) => return Ok(true),
                Ok(Emit::Refused(..)) => {}
                Err(error) => return no_buffer(error),
            }
        }
        Ok(false)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

impl Take {
    /// Opens the read end.
    ///
    /// # Errors
    /// The runtime refused.
    pub fn open(stream: &Stream, channel: u32, contract: Contract) -> Result<Self, Fault> {
        let depth = BUFFERS_MAX as u32;
        let sink =
            stream.sink(ChannelId(channel), SinkOptions::default().depth(depth)).map_err(fault("open a sink"))?;
        Ok(Take { sink, contract, part: vec![0; PART_BYTES] })
    }
}

impl End for Take {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        let message = match self.sink.consume() {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(None),
            Err(error) => return Err(cannot_consume(error)),
        };
        if message.len() != self.contract.size {
            return Err(Fault::Corrupt { expected: self.contract.size as u64, found: message.len() as u64 });
        }
        match (self.contract.handling, message.bytes()) {
            (Handling::Token, _) => Ok(Some(message.sequence())),
            (Handling::Touch, Some(bytes)) => payload::read(bytes).map(Some),
            (Handling::Touch, None) => read_foreign(&message, &mut self.part).map(Some),
        }
    }
}

impl Take {
    /// As `receive`, but sleeps until a message comes, at most `timeout`.
    fn wait(&mut self, timeout: Duration) -> Result<Option<u64>, Fault> {
        let Some(message) = self.sink.consume_timeout(timeout).map_err(cannot_consume)? else { return Ok(None) };
        message.bytes().map_or_else(|| read_foreign(&message, &mut self.part), payload::read).map(Some)
    }
}

#[cold]
#[inline(never)]
fn cannot_consume(error: ConsumeError) -> Fault {
    fault("consume")(error)
}

/// Reads a payload that its sender could still write: copied part by part, as a safe
/// program has to, and verified from the copy.
#[cold]
#[inline(never)]
fn read_foreign(message: &Message<'_>, part: &mut [u8]) -> Result<u64, Fault> {
    let shared = message.shared();
    let mut reader = payload::Reader::new(message.len());
    let mut at = 0;
    while at < message.len() {
        let length = shared.part(at, part.len()).copy_to(part);
        reader.add(&part[..length]);
        at += length;
    }
    reader.finish()
}

/// One end of a conversation: writes one channel, reads the other.
pub struct Both {
    put: Put,
    take: Take,
    /// Keeps the runtime alive where this end is all there is of it.
    _session: Session,
}

impl Both {
    /// Opens the end that asks (channel 1 there, channel 2 back), or the one that
    /// answers. Does not wait for the other.
    ///
    /// # Errors
    /// The runtime refused.
    pub fn open(session: Session, name: &str, contract: Contract, asks: bool) -> Result<Self, Fault> {
        let stream = contract.stream(&session, name)?;
        let (writes, reads) = if asks { (1, 2) } else { (2, 1) };
        let take = Take::open(&stream, reads, contract)?;
        let put = Put::open(&stream, writes, contract)?;
        Ok(Both { put, take, _session: session })
    }

    /// Sleeps until a message comes, at most so long.
    ///
    /// # Errors
    /// The runtime is gone, or the message is not what was sent.
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<u64>, Fault> {
        self.take.wait(timeout)
    }

    /// Waits until the other end hears this one.
    ///
    /// # Errors
    /// It never came.
    pub fn connect(self) -> Result<Self, Fault> {
        self.put.connect()?;
        Ok(self)
    }
}

/// An end that sleeps until its message comes.
pub struct Sleepy(pub Both);

impl End for Sleepy {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        self.0.put.send(number)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        self.0.take.wait(crate::baseline::futex::SLEEP_MAX)
    }
}

impl End for Both {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        self.put.send(number)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        self.take.receive()
    }
}
