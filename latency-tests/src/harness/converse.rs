//! Round trips: one end asks, the other answers, one message under way.

use super::clock::ticks;
use super::fault::Fault;
use super::stage::{Stage, until_stopped};
use super::watch::Idle;
use std::time::{Duration, Instant};

/// One end of a conversation: writes and verifies every byte of its messages
/// (or, for tokens, their numbers only).
pub trait End {
    /// Sends message `number`. False when there is no room now.
    ///
    /// # Errors
    /// The technology failed.
    fn send(&mut self, number: u64) -> Result<bool, Fault>;

    /// Takes the next message, verifies it and returns its number; `None` when
    /// there is none yet.
    ///
    /// # Errors
    /// The technology failed, or the message is not what was sent.
    fn receive(&mut self) -> Result<Option<u64>, Fault>;
}

/// How long and how a conversation goes on.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Round trips before counting starts.
    pub warm_up: u32,
    /// Round trips that are counted.
    pub count: u32,
    /// After this time the asking end is content with what it has.
    pub enough: Duration,
    /// After this time the conversation has failed.
    pub bound: Duration,
    /// What both ends do between polls.
    pub idle: Idle,
    /// How long the asking end is busy with something else before each message.
    pub think: Duration,
}

/// Fewest counted round trips of a cell that ran out of time.
const COUNT_MIN: usize = 100;
/// Round trips between two looks at the clock.
const LOOK_EVERY: u32 = 64;

/// The asking end: the times of the round trips, in ticks of the cycle counter.
///
/// # Errors
/// An answer was wrong or did not come.
#[inline(never)]
pub fn ask<E: End>(end: &mut E, pace: &Pace, stage: &Stage) -> Result<Vec<u64>, Fault> {
    let mut watch = stage.watch("the answering end", pace.idle, pace.bound);
    let mut times = Vec::with_capacity(pace.count as usize);
    let start = Instant::now();
    let mut last = ticks();
    for number in 0..pace.warm_up + pace.count {
        if !pace.think.is_zero() {
            last = think(pace.think);
        }
        while !end.send(u64::from(number))? {
            watch.idle()?;
        }
        let answer = loop {
            match end.receive()? {
                Some(answer) => break answer,
                None => watch.idle()?,
            }
        };
        if answer != u64::from(number) {
            return Err(Fault::Corrupt { expected: u64::from(number), found: answer });
        }
        // One read of the counter a round trip: the end of one is the start of the next.
        let now = ticks();
        if number >= pace.warm_up {
            times.push(now.wrapping_sub(last));
        }
        last = now;
        if number.is_multiple_of(LOOK_EVERY) {
            if start.elapsed() > pace.enough && times.len() >= COUNT_MIN {
                break;
            }
            // The look at the kernel's clock belongs to no round trip.
            last = ticks();
        }
    }
    Ok(times)
}

/// Is busy for so long; the ticks at its end.
#[cold]
fn think(length: Duration) -> u64 {
    let start = Instant::now();
    while start.elapsed() < length {
        std::hint::spin_loop();
    }
    ticks()
}

/// The answering end: sends every message back until the stage stops.
///
/// # Errors
/// A message was wrong, or none came.
#[inline(never)]
pub fn answer<E: End>(end: &mut E, pace: &Pace, stage: &Stage) -> Result<(), Fault> {
    let mut watch = stage.watch("the asking end", pace.idle, pace.bound);
    loop {
        let number = match end.receive()? {
            Some(number) => number,
            None => match watch.idle() {
                Ok(()) => continue,
                Err(ended) => return until_stopped(ended),
            },
        };
        while !end.send(number)? {
            if let Err(ended) = watch.idle() {
                return until_stopped(ended);
            }
        }
    }
}

/// One end made of a write end and a read end.
pub struct Duplex<P, T> {
    put: P,
    take: T,
}

impl<P, T> Duplex<P, T> {
    /// Joins the two.
    pub fn new(put: P, take: T) -> Self {
        Duplex { put, take }
    }
}

impl<P: End, T: End> End for Duplex<P, T> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        self.put.send(number)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        self.take.receive()
    }
}

/// Both ends of a conversation in one thread (T3): what arrives at the answering
/// end is sent back, and a round trip crosses the relay twice.
pub struct BothEnds<A, B> {
    asking: A,
    answering: B,
    /// An answer that met no room.
    pending: Option<u64>,
}

impl<A, B> BothEnds<A, B> {
    /// Joins the two ends.
    pub fn new(asking: A, answering: B) -> Self {
        BothEnds { asking, answering, pending: None }
    }
}

impl<A: End, B: End> End for BothEnds<A, B> {
    #[inline(always)]
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        self.asking.send(number)
    }

    #[inline(always)]
    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        if self.pending.is_none() {
            self.pending = self.answering.receive()?;
        }
        if let Some(number) = self.pending
            && self.answering.send(number)?
        {
            self.pending = None;
        }
        self.asking.receive()
    }
}

/// A party between the ends that moves what it finds.
pub trait Relay {
    /// Moves what is there; false when there was nothing.
    fn step(&mut self) -> bool;
}

/// Turns a relay's crank until the stage stops. What it does where there is nothing to move
/// depends on whether it has its core to itself.
///
/// # Errors
/// The bound passed.
#[inline(never)]
pub fn relay<R: Relay>(relay: &mut R, pace: &Pace, idle: Idle, stage: &Stage) -> Result<(), Fault> {
    let mut watch = stage.watch("the ends of the relay", idle, pace.bound);
    loop {
        if !relay.step()
            && let Err(ended) = watch.idle()
        {
            return until_stopped(ended);
        }
    }
}
