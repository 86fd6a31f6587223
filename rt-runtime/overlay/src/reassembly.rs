//! Reassembly: which bytes of a fragmented message have arrived.
//!
//! The payload's memory belongs to the caller, who hands in a *handle* of it when a
//! message begins. Every handle comes back exactly once: with the last fragment
//! ([`Arrival::Complete`]), because a newer message needed the place
//! ([`Begin::Started`]), because the message was given up ([`Reassembler::expire`],
//! [`Reassembler::give_up`]), or at once when it was not accepted.
//!
//! Fragments start at multiples of [`FRAGMENT_UNIT`] and are whole units long, except at
//! the message's end; each may have another size (see `insane_wire::data`). Anything
//! else, and a fragment that covers some bytes that arrived and some that did not, is
//! [`Arrival::Inconsistent`] and changes nothing.
//!
//! Bounds: all memory is taken in [`Reassembler::new`]: each place has one bit a unit,
//! `places * ceil(message_bytes_max / 4096) * 8` bytes in all, about `message_bytes_max / 512`
//! a place. A fragment costs a walk over its own bits; a message that comes in order
//! never clears more bits than it uses.

use crate::flow::FlowKey;
use alloc::boxed::Box;
use alloc::vec;
use insane_core::{MonoTime, Nanos};
use insane_wire::data::FRAGMENT_UNIT;

/// Most places of one reassembler; every operation may look at all of them.
pub const PLACES_MAX: usize = 256;

/// A message is waited for so many times longer while a fragment of it is being written: the
/// connection that it comes by delivers it in the end, or breaks.
pub const FILLING_FACTOR: u64 = 16;

/// What became of a fragment.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival<H> {
    /// New: copy it to its offset in the memory of `handle`.
    Store {
        /// The message's memory.
        handle: H,
    },
    /// New, and the last one missing: copy it, then the message is whole. The handle is
    /// the caller's again.
    Complete {
        /// The message's memory.
        handle: H,
    },
    /// These bytes are there already.
    Duplicate,
    /// Not a fragment of this message.
    Inconsistent,
    /// No such message has begun: [`Reassembler::begin`], then offer the fragment again.
    Unknown,
}

/// What became of the wish to collect a message.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Begin<H> {
    /// Its fragments will be collected.
    Started {
        /// Memory of another message, given up for this one.
        evicted: Option<H>,
    },
    /// Larger than this reassembler accepts; the handle comes back.
    TooLarge {
        /// The handle that was offered.
        refused: H,
    },
    /// It is being collected already; the handle comes back.
    Present {
        /// The handle that was offered.
        refused: H,
    },
}

#[derive(Clone, Copy)]
struct Collected<H> {
    key: FlowKey,
    sequence: u64,
    message_len: u32,
    /// Units that have not arrived.
    units_missing: u32,
    /// Words of the bitmap that are valid; those behind count as zero.
    words_valid: u32,
    progress_at: MonoTime,
    /// A fragment of it is being written into its memory.
    filling: bool,
    handle: H,
}

/// Collects the fragments of up to a fixed number of messages. See the module.
pub struct Reassembler<H> {
    places: Box<[Option<Collected<H>>]>,
    bits: Box<[u64]>,
    words_per_place: usize,
    message_bytes_max: u32,
    live: usize,
    /// The place of the previous fragment: the next one is mostly of the same message.
    recent: usize,
}

impl<H: Copy> Reassembler<H> {
    /// Room for `places` messages of up to `message_bytes_max` bytes each.
    ///
    /// # Panics
    /// If `places` is 0 or above [`PLACES_MAX`].
    #[must_use]
    pub fn new(places: usize, message_bytes_max: u32) -> Self {
        assert!((1..=PLACES_MAX).contains(&places), "a reassembler has 1 to {PLACES_MAX} places");
        let words_per_place = units(message_bytes_max).div_ceil(u64::BITS) as usize;
        Reassembler {
            places: vec![None; places].into_boxed_slice(),
            bits: vec![0; places * words_per_place].into_boxed_slice(),
            words_per_place,
            message_bytes_max,
            live: 0,
            recent: 0,
        }
    }

    /// One fragment: bytes `offset` to `offset + len` of message `sequence`, which is
    /// `message_len` bytes long.
    #[inline]
    pub fn fragment(
        &mut self,
        now: MonoTime,
        key: &FlowKey,
        sequence: u64,
        message_len: u32,
        offset: u32,
        len: u32,
    ) -> Arrival<H> {
        let Some(at) = self.find(key, sequence) else { return Arrival::Unknown };
        self.recent = at;
        let Some(message) = self.places[at].as_mut() else { return Arrival::Unknown };
        let Some((first, end)) = unit_range(message_len, offset, len).filter(|_| message.message_len == message_len)
        else {
            return Arrival::Inconsistent;
        };
        let words = &mut self.bits[at * self.words_per_place..][..self.words_per_place];
        // Clear what an earlier message left, up to the last word of this fragment.
        let valid = message.words_valid as usize;
        let needed = end.div_ceil(u64::BITS) as usize;
        if needed > valid {
            words[valid..needed].fill(0);
            message.words_valid = needed as u32;
        }
        match arrived(words, first, end) {
            0 => {}
            count if count == end - first => return Arrival::Duplicate,
            _ => return Arrival::Inconsistent,
        }
        mark(words, first, end);
        message.progress_at = now;
        message.filling = false;
        message.units_missing -= end - first;
        let handle = message.handle;
        if message.units_missing > 0 {
            return Arrival::Store { handle };
        }
        self.places[at] = None;
        self.live -= 1;
        Arrival::Complete { handle }
    }

    /// The memory of a message none of whose bytes `offset` to `offset + len` have arrived,
    /// for somebody who is about to write them there and will then report the
    /// [`fragment`](Self::fragment). The message is waited for longer until then
    /// ([`FILLING_FACTOR`]), from the first such call on: asking again is no progress.
    /// `None`: there is no such message, or some of the bytes have arrived.
    pub fn fill(
        &mut self,
        now: MonoTime,
        key: &FlowKey,
        sequence: u64,
        message_len: u32,
        offset: u32,
        len: u32,
    ) -> Option<H> {
        let at = self.find(key, sequence)?;
        let message = self.places[at].as_mut().filter(|message| message.message_len == message_len)?;
        let (first, end) = unit_range(message_len, offset, len)?;
        // Words behind the valid ones hold what an earlier message left.
        let valid = end.min(message.words_valid * u64::BITS);
        let words = &self.bits[at * self.words_per_place..][..self.words_per_place];
        if first < valid && arrived(words, first, valid) > 0 {
            return None;
        }
        self.recent = at;
        if !message.filling {
            (message.filling, message.progress_at) = (true, now);
        }
        Some(message.handle)
    }

    /// Whether a message could begin without another being given up.
    #[must_use]
    pub fn has_place(&self) -> bool {
        self.live < self.places.len()
    }

    /// Whether message `sequence` of this flow has begun and is not complete.
    #[must_use]
    pub fn has_begun(&self, key: &FlowKey, sequence: u64) -> bool {
        self.find(key, sequence).is_some()
    }

    /// Starts to collect message `sequence`, whose bytes go to the memory of `handle`.
    ///
    /// If all places are taken the oldest message of the same flow that is older than
    /// this one is given up, or else, of all messages, the one without progress for longest.
    pub fn begin(&mut self, now: MonoTime, key: &FlowKey, sequence: u64, message_len: u32, handle: H) -> Begin<H> {
        if message_len > self.message_bytes_max {
            return Begin::TooLarge { refused: handle };
        }
        if self.find(key, sequence).is_some() {
            return Begin::Present { refused: handle };
        }
        let at = self.place_for(key, sequence);
        let evicted = self.take(at);
        self.places[at] = Some(Collected {
            key: *key,
            sequence,
            message_len,
            units_missing: units(message_len),
            words_valid: 0,
            progress_at: now,
            filling: false,
            handle,
        });
        self.live += 1;
        Begin::Started { evicted }
    }

    /// Gives up one message without progress for `timeout`, or [`FILLING_FACTOR`] times as
    /// long where a fragment is being written, and returns its memory; `None` if there is
    /// none. Call it as often as the turn's budget allows.
    #[inline]
    pub fn expire(&mut self, now: MonoTime, timeout: Nanos) -> Option<H> {
        if self.live == 0 {
            return None;
        }
        let longer = Nanos(timeout.0.saturating_mul(FILLING_FACTOR));
        let at =
            self.position(|message| now.since(message.progress_at) >= if message.filling { longer } else { timeout })?;
        self.take(at)
    }

    /// Gives up one message for which `which` (flow, sequence, memory) is true and returns
    /// its memory; `None` if there is none. Call it until then.
    ///
    /// For messages older than what a flow released, flows of a peer that left, and
    /// sinks that closed.
    #[inline]
    pub fn give_up(&mut self, mut which: impl FnMut(&FlowKey, u64, H) -> bool) -> Option<H> {
        if self.live == 0 {
            return None;
        }
        let at = self.position(|message| which(&message.key, message.sequence, message.handle))?;
        self.take(at)
    }

    /// Gives up the message that [`Reassembler::begin`] would give up for `sequence` if all
    /// places were taken, and returns its memory: for a caller that has no memory left.
    pub fn give_up_for(&mut self, key: &FlowKey, sequence: u64) -> Option<H> {
        let at = self.weakest(key, sequence)?;
        self.take(at)
    }

    /// Messages being collected.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether no message is being collected.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    #[inline]
    fn find(&self, key: &FlowKey, sequence: u64) -> Option<usize> {
        let is_it = |message: &Collected<H>| message.sequence == sequence && message.key == *key;
        if self.places[self.recent].as_ref().is_some_and(is_it) {
            return Some(self.recent);
        }
        if self.live == 0 { None } else { self.position(is_it) }
    }

    fn position(&self, mut which: impl FnMut(&Collected<H>) -> bool) -> Option<usize> {
        self.places.iter().position(|place| place.as_ref().is_some_and(&mut which))
    }

    fn place_for(&self, key: &FlowKey, sequence: u64) -> usize {
        if let Some(free) = self.places.iter().position(Option::is_none) {
            return free;
        }
        self.weakest(key, sequence).unwrap_or(0)
    }

    fn weakest(&self, key: &FlowKey, sequence: u64) -> Option<usize> {
        let messages = || self.places.iter().enumerate().filter_map(|(at, place)| Some((at, place.as_ref()?)));
        messages()
            .filter(|(_, message)| message.key == *key && message.sequence < sequence)
            .min_by_key(|(_, message)| message.sequence)
            .or_else(|| messages().min_by_key(|(_, message)| message.progress_at))
            .map(|(at, _)| at)
    }

    fn take(&mut self, at: usize) -> Option<H> {
        let message = self.places[at].take()?;
        self.live -= 1;
        Some(message.handle)
    }
}

/// Units of a message; one without payload has one, so that it, too, arrives.
const fn units(message_len: u32) -> u32 {
    let units = message_len.div_ceil(FRAGMENT_UNIT);
    if units == 0 { 1 } else { units }
}

/// The units that a fragment covers, first to one past the last; `None` if it is none.
const fn unit_range(message_len: u32, offset: u32, len: u32) -> Option<(u32, u32)> {
    if !offset.is_multiple_of(FRAGMENT_UNIT) || offset > message_len || len > message_len - offset {
        return None;
    }
    let is_last = len == message_len - offset;
    if !is_last && !len.is_multiple_of(FRAGMENT_UNIT) || len == 0 && message_len > 0 {
        return None;
    }
    let end = if is_last { units(message_len) } else { (offset + len) / FRAGMENT_UNIT };
    Some((offset / FRAGMENT_UNIT, end))
}

/// The words that bits `first` to `end` touch, each with the mask of its part.
fn masks(first: u32, end: u32) -> impl Iterator<Item = (usize, u64)> {
    let words = first / u64::BITS..end.div_ceil(u64::BITS);
    words.map(move |word| {
        let from = first.saturating_sub(word * u64::BITS);
        let to = (end - word * u64::BITS).min(u64::BITS);
        (word as usize, u64::MAX << from & u64::MAX >> (u64::BITS - to))
    })
}

fn arrived(words: &[u64], first: u32, end: u32) -> u32 {
    masks(first, end).map(|(word, mask)| (words[word] & mask).count_ones()).sum()
}

fn mark(words: &mut [u64], first: u32, end: u32) {
    for (word, mask) in masks(first, end) {
        words[word] |= mask;
    }
}
