//! Conversations and flows over bare copying rings, directly or through a relay.

use crate::harness::converse::{End, Relay};
use crate::harness::fault::Fault;
use crate::harness::payload;
use insane_raw_baselines::{
    BytesConsumer, BytesProducer, Consumer, Producer, accept_ring, bytes_ring, offer_ring, ring,
};
use std::os::unix::net::UnixStream;

/// Bytes of the messages whose round trips are timed.
pub const MESSAGE_BYTES: usize = 64;
/// Places of a ring of small messages.
const CAPACITY: usize = 256;
/// A ring of large messages holds about this much.
const LARGE_RING_BYTES: usize = 32 << 20;

/// One end of a conversation, or of a flow, over two rings of messages of `SIZE`
/// bytes: payload composed in private memory, copied in, copied out, verified there.
pub struct RingEnd<const SIZE: usize> {
    put: Producer<SIZE>,
    take: Consumer<SIZE>,
    message: [u8; SIZE],
}

impl<const SIZE: usize> RingEnd<SIZE> {
    fn new(put: Producer<SIZE>, take: Consumer<SIZE>) -> Self {
        RingEnd { put, take, message: [0; SIZE] }
    }
}

impl<const SIZE: usize> End for RingEnd<SIZE> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if self.put.is_full() {
            return Ok(false);
        }
        let mut message = [0; SIZE];
        payload::write(&mut message, number);
        Ok(self.put.push(&message))
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        if self.take.pop(&mut self.message) { payload::read(&self.message).map(Some) } else { Ok(None) }
    }
}

/// Both ends of a direct conversation (T1).
#[must_use]
pub fn pair<const SIZE: usize>() -> (RingEnd<SIZE>, RingEnd<SIZE>) {
    let (put_there, take_there) = ring(CAPACITY);
    let (put_back, take_back) = ring(CAPACITY);
    (RingEnd::new(put_there, take_back), RingEnd::new(put_back, take_there))
}

/// One end that hears itself, on one thread.
#[must_use]
pub fn to_itself() -> RingEnd<MESSAGE_BYTES> {
    let (put, take) = ring(CAPACITY);
    RingEnd::new(put, take)
}

/// A relay between rings: each message is copied once, from place to place.
pub struct RingRelay {
    routes: Vec<(Consumer<MESSAGE_BYTES>, Producer<MESSAGE_BYTES>)>,
}

impl Relay for RingRelay {
    #[inline(always)]
    fn step(&mut self) -> bool {
        let mut moved = false;
        for (from, to) in &mut self.routes {
            moved |= to.forward(from);
        }
        moved
    }
}

/// One ring into the relay and one out of it.
struct Route {
    put: Producer<MESSAGE_BYTES>,
    relayed: (Consumer<MESSAGE_BYTES>, Producer<MESSAGE_BYTES>),
    take: Consumer<MESSAGE_BYTES>,
}

fn route() -> Route {
    let (put, relay_take) = ring(CAPACITY);
    let (relay_put, take) = ring(CAPACITY);
    Route { put, relayed: (relay_take, relay_put), take }
}

/// Both ends of a conversation through a relay (T2, T3).
#[must_use]
pub fn relayed_pair() -> (RingEnd<MESSAGE_BYTES>, RingEnd<MESSAGE_BYTES>, RingRelay) {
    let (there, back) = (route(), route());
    let asking = RingEnd::new(there.put, back.take);
    let answering = RingEnd::new(back.put, there.take);
    (asking, answering, RingRelay { routes: vec![there.relayed, back.relayed] })
}

/// An end of a conversation whose other end is a relay, with what the relay takes from and
/// gives to it.
#[must_use]
pub fn end_of_relay() -> (RingEnd<MESSAGE_BYTES>, Consumer<MESSAGE_BYTES>, Producer<MESSAGE_BYTES>) {
    let (put, relay_take) = ring(CAPACITY);
    let (relay_put, take) = ring(CAPACITY);
    (RingEnd::new(put, take), relay_take, relay_put)
}

/// The sending end of a flow whose message size is known only at run time.
pub struct FlowPut {
    put: BytesProducer,
    message: Vec<u8>,
}

/// The receiving end of such a flow.
pub struct FlowTake {
    take: BytesConsumer,
    message: Vec<u8>,
}

impl FlowPut {
    /// Makes a ring of small messages and passes it to the holder of the socket's
    /// other end.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn offer(socket: &UnixStream) -> Result<Self, Fault> {
        let put = offer_ring(socket, CAPACITY, MESSAGE_BYTES).map_err(Fault::os("offer a ring"))?;
        Ok(FlowPut { put, message: vec![0; MESSAGE_BYTES] })
    }
}

impl FlowTake {
    /// Takes the ring that [`FlowPut::offer`] passes.
    ///
    /// # Errors
    /// The operating system refused.
    pub fn accept(socket: &UnixStream) -> Result<Self, Fault> {
        let take = accept_ring(socket).map_err(Fault::os("accept a ring"))?;
        Ok(FlowTake { take, message: vec![0; MESSAGE_BYTES] })
    }
}

/// Both ends of a flow of messages of `size` bytes.
#[must_use]
pub fn flow(size: usize) -> (FlowPut, FlowTake) {
    let capacity = (LARGE_RING_BYTES / size).clamp(4, CAPACITY).next_power_of_two();
    let (put, take) = bytes_ring(capacity, size);
    (FlowPut { put, message: vec![0; size] }, FlowTake { take, message: vec![0; size] })
}

impl End for FlowPut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        if self.put.is_full() {
            return Ok(false);
        }
        payload::write(&mut self.message, number);
        Ok(self.put.push(&self.message))
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

impl End for FlowTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        if self.take.pop(&mut self.message) { payload::read(&self.message).map(Some) } else { Ok(None) }
    }
}

/// The sending end of a flow of bare numbers: the yardstick of tokens, where
/// nothing but the hand-over itself is paid for.
pub struct NumberPut(Producer<8>);
/// The receiving end of [`NumberPut`].
pub struct NumberTake(Consumer<8>);

/// Both ends of a flow of numbers.
#[must_use]
pub fn numbers() -> (NumberPut, NumberTake) {
    let (put, take) = ring(CAPACITY);
    (NumberPut(put), NumberTake(take))
}

impl End for NumberPut {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        Ok(self.0.push(&number.to_le_bytes()))
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        Ok(None)
    }
}

impl End for NumberTake {
    fn send(&mut self, _number: u64) -> Result<bool, Fault> {
        Ok(false)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        let mut number = [0; 8];
        Ok(self.0.pop(&mut number).then(|| u64::from_le_bytes(number)))
    }
}
