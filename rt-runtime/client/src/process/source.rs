//! The write end of process data: stamps what it emits, and keeps the last values for those
//! who join later.

use super::clocks::{Clocks, word};
use super::options::{HISTORY_MAX, ProcessSourceOptions};
use crate::error::RequestError;
use crate::source::Source;
use insane_core::{ClockQuality, MonoTime, SourceInstant};
use insane_shm::port::{Earlier, Emit, GetBufferError};
use insane_sys::clock;
use std::time::Duration;

/// A value that was emitted.
struct Past {
    sequence: u64,
    instant: SourceInstant,
    len: usize,
}

/// The last values, in memory of their own.
struct History {
    /// Room for each value, one behind the other.
    bytes: Box<[u8]>,
    size: usize,
    /// The oldest first, once all places are taken; `next` is the oldest then.
    past: Vec<Past>,
    places: usize,
    next: usize,
}

/// The write end of a channel of process data. `Send`, not `Sync`.
///
/// Every value bears the instant of its emit: TAI where this host's clock is synchronised,
/// else the host's monotonic clock, which only sinks of this host can make sense of.
///
/// # Late joiners
/// With [`history`](ProcessSourceOptions::history), a sink that joins later gets the last
/// values whose clock is known once, marked as such, before any newer one. It gets them with the next emit, or
/// with [`attend`](Self::attend), which a source that seldom emits calls now and then. So do
/// sinks of other hosts. On an unreliable stream what is lost on the way to them is not sent
/// again. On a reliable stream the past and all that follows arrive without a gap, also at a
/// sink that joins where its host has one already. Sinks of isolated streams on this host get
/// values of at most 16 KiB.
pub struct ProcessSource {
    source: Source,
    history: History,
    clocks: Clocks,
}

impl ProcessSource {
    pub(super) fn new(source: Source, options: &ProcessSourceOptions) -> Self {
        let size = options.size as usize;
        let history = History {
            bytes: vec![0; size * options.history].into(),
            size,
            past: Vec::with_capacity(options.history),
            places: options.history,
            next: 0,
        };
        ProcessSource { source, history, clocks: Clocks::new(clock::mono_now()) }
    }

    /// Publishes a copy of `value`, which bears the present instant. Never blocks; whether
    /// and why it may be refused is as with [`Source::emit`](crate::Source::emit).
    ///
    /// # Errors
    /// The value is larger than was said at creation, no buffer is free, or this is a
    /// forked child.
    pub fn emit(&mut self, value: &[u8]) -> Result<Emit<()>, GetBufferError> {
        let instant = self.clocks.stamp(clock::mono_now());
        self.emit_as(value, instant)
    }

    /// As [`emit`](Self::emit), with an instant of the caller's: a cyclic task gives the
    /// planned start of its cycle, so that the values of one cycle bear the same instant.
    ///
    /// # Errors
    /// As [`emit`](Self::emit).
    pub fn emit_as(&mut self, value: &[u8], instant: SourceInstant) -> Result<Emit<()>, GetBufferError> {
        if value.len() > self.history.size {
            return Err(GetBufferError::TooLarge { max: self.history.size });
        }
        self.attend();
        let emitted = self.source.emit_copy_at(value, word(instant, false))?;
        if let Emit::Sent(token) = &emitted {
            self.history.keep(value, token.sequence(), instant);
        }
        Ok(emitted)
    }

    /// Sends the last values to sinks that have joined since the last emit; returns how many
    /// have, those of other hosts counting as one. Costs a look at two words if none has.
    pub fn attend(&mut self) -> usize {
        let mut earlier = [Earlier::default(); HISTORY_MAX];
        let mut count = 0;
        for (place, past) in earlier.iter_mut().zip(self.history.oldest_first()) {
            *place = past;
            count += 1;
        }
        self.source.replay(&earlier[..count])
    }

    /// The present, as the next value would bear it.
    pub fn now(&mut self) -> SourceInstant {
        self.clocks.stamp(clock::mono_now())
    }

    /// An instant of this host's `CLOCK_MONOTONIC`, to be borne by values for sinks of this
    /// host. `None` in a time namespace that is not understood.
    #[must_use]
    pub fn monotonic(&self, at: MonoTime) -> Option<SourceInstant> {
        self.clocks.of_host(at).map(SourceInstant::Monotonic)
    }

    /// Receivers of a value emitted now; the network counts as one.
    #[must_use]
    pub fn receivers(&self) -> usize {
        self.source.receivers()
    }

    /// Waits until a value emitted now would reach somebody.
    ///
    /// # Errors
    /// Nobody came in time.
    pub fn wait_for_receivers(&self, timeout: Duration) -> Result<(), RequestError> {
        self.source.wait_for_receivers(timeout)
    }
}

impl History {
    fn keep(&mut self, value: &[u8], sequence: u64, instant: SourceInstant) {
        // Without a clock its word could not say that it is of the past.
        if self.places == 0 || instant.quality() == ClockQuality::None {
            return;
        }
        let at = self.next;
        self.bytes[at * self.size..][..value.len()].copy_from_slice(value);
        let past = Past { sequence, instant, len: value.len() };
        match self.past.get_mut(at) {
            Some(place) => *place = past,
            // Within the capacity that it was made with.
            None => self.past.push(past),
        }
        self.next = (at + 1) % self.places;
    }

    fn oldest_first(&self) -> impl Iterator<Item = Earlier<'_>> {
        let count = self.past.len();
        let oldest = if count == self.places { self.next } else { 0 };
        (0..count).map(move |number| {
            let at = (oldest + number) % count;
            let Past { sequence, instant, len } = &self.past[at];
            Earlier {
                sequence: *sequence,
                source_ns: word(*instant, true),
                bytes: &self.bytes[at * self.size..][..*len],
            }
        })
    }
}

impl std::fmt::Debug for ProcessSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProcessSource({} bytes, history {})", self.history.size, self.history.places)
    }
}
