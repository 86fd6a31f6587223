//! The ring of message cells: one producer, one consumer, bounded, wait-free.
//!
//! Invariants:
//! - The producer writes cell `p mod depth` for position `p` only when
//!   `p - head_seen < depth`, where `head_seen` is a checked copy of the consumer's
//!   published head: so it never writes a cell that the consumer may still read.
//! - A cell's stamp is stored last (Release) and read first (Acquire): who sees the
//!   stamp sees the cell.
//! - The consumer publishes its head (Release) after its last read of a cell; the
//!   producer reads it (Acquire) before it writes there again.
//!
//! - A producer that takes back the buffers it has lent says so before it writes one of them, and
//!   the consumer looks after it has read one, or before it hands one out:
//!
//!   | producer | consumer |
//!   |---|---|
//!   | 1. closed = taken back; Release fence | 1. the bytes; Acquire fence |
//!   | 2. the bytes of other messages | 2. closed is still another? |
//!
//!   A consumer that reads a byte of another message in 1 sees in 2 that the buffers were taken
//!   back.
//!
//! - A producer that caught its consumer lying stays with it: no second look makes
//!   the consumer honest again.
//!
//! Bounds: `push` and `pop` do a constant amount of work. The head is published
//! every quarter of the ring, whenever the ring is found empty, and after each message
//! of which the producer asked to be told.

use crate::Violation;
use crate::cell::{
    ASKS, BELL, CLOSED, Cell, Cells, FINISHED, HEAD, Kind, Meta, PAYLOAD_WORD, QUIET, SEQUENCE, SHAPE, SOURCE_TIME,
    STAMP, TAKEN_BACK, shape, shape_asking, shape_asks, shape_inline_len, shape_is_heap, shape_kind, shape_len,
    shape_lost, shape_plain_len,
};
use crate::sync::{AtomicU64, Ordering, fence};
use insane_core::heap::BufferId;
use insane_core::limits::INLINE_BYTES_MAX;

/// Smallest depth of a ring.
pub const DEPTH_MIN: u32 = 2;
/// Largest depth of a ring.
pub const DEPTH_MAX: u32 = 65_536;

/// Messages that a producer asks to be told of at a time.
const ASKED_AT_ONCE: u64 = 256;

/// Whether a ring may have this depth: a power of two from [`DEPTH_MIN`] to [`DEPTH_MAX`].
#[must_use]
pub const fn depth_fits(depth: u32) -> bool {
    depth.is_power_of_two() && depth >= DEPTH_MIN && depth <= DEPTH_MAX
}

/// The producing end.
#[derive(Debug)]
pub struct Producer<C, R> {
    cells: C,
    returns: R,
    /// The depth, less one.
    mask: u64,
    tail: u64,
    head_seen: u64,
    /// What the consumer was caught at.
    lie: Option<Violation>,
    /// Of what waits before this position the consumer tells at once that it took it.
    asked_until: u64,
}

impl<C: Cells, R: Cells> Producer<C, R> {
    /// `cells` is written here, `returns` by the consumer; both start zeroed.
    ///
    /// # Panics
    /// If the depth does not fit, or the memory is too small for it.
    pub fn new(cells: C, returns: R, depth: u32) -> Self {
        assert!(depth_fits(depth) && cells.cell_count() > depth as usize && returns.cell_count() > 0);
        Producer { cells, returns, mask: u64::from(depth) - 1, tail: 0, head_seen: 0, lie: None, asked_until: 0 }
    }

    /// Whether one more message fits. Looks at the consumer's head only when the
    /// ring seems full.
    ///
    /// # Errors
    /// The consumer's head is impossible, or it was caught at something before.
    #[inline]
    pub fn has_room(&mut self) -> Result<bool, Violation> {
        if self.knows_room() { Ok(true) } else { self.refresh_head() }
    }

    /// Whether there is room without a look at the consumer's head.
    #[inline(always)]
    pub(crate) fn knows_room(&self) -> bool {
        self.tail.wrapping_sub(self.head_seen) <= self.mask
    }

    /// The position that has no room any more, as far as is known.
    #[inline(always)]
    pub(crate) fn room_until(&self) -> u64 {
        self.head_seen.wrapping_add(self.depth())
    }

    /// The position of the next message.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        self.tail
    }

    #[cold]
    fn refresh_head(&mut self) -> Result<bool, Violation> {
        if let Some(violation) = self.lie {
            return Err(violation);
        }
        // Acquire pairs with the consumer's Release in `publish_head`: its reads of the
        // cells before the head are over.
        let claim = self.returns.cell(0)[HEAD].load(Ordering::Acquire);
        if claim < self.head_seen || claim > self.tail {
            self.distrust(Violation::Head);
            return Err(Violation::Head);
        }
        self.head_seen = claim;
        Ok(self.knows_room())
    }

    /// Whether so many messages fit.
    ///
    /// # Errors
    /// As [`has_room`](Self::has_room).
    pub(crate) fn has_room_for(&mut self, count: u64) -> Result<bool, Violation> {
        if self.pending() + count > self.depth() {
            self.refresh_head()?;
        }
        Ok(self.pending() + count <= self.depth())
    }

    /// How often the consumer has asked for what is kept of the past.
    #[inline]
    pub(crate) fn asks(&self) -> u64 {
        // Only a number: what is sent for it needs nothing else of the consumer.
        self.returns.cell(0)[ASKS].load(Ordering::Relaxed)
    }

    /// How many messages the consumer has taken, as far as it tells.
    pub(crate) fn taken(&self) -> u64 {
        // A ring that lies seems to be full of messages before its first.
        self.tail.saturating_sub(self.pending())
    }

    /// Asks to be told at once of each message that waits now in front of `end` when it is taken.
    /// At most [`ASKED_AT_ONCE`] steps. `false`: the consumer may take one of them of which it was
    /// not asked to tell before the next call. That one looks at the head, too, and so may find out
    /// a lie.
    #[cold]
    pub(crate) fn ask_for_each(&mut self, end: u64) -> bool {
        let _ = self.refresh_head();
        let (taken, end) = (self.taken(), self.tail.min(end));
        let from = self.asked_until.max(taken);
        let until = end.min(from + ASKED_AT_ONCE).max(from);
        for position in from..until {
            let word = &self.cells.cell(1 + (position & self.mask) as usize)[SHAPE];
            // Only the producer writes the word, and a consumer that has read it reads it no
            // more. Relaxed: one that sees it later tells later.
            word.store(shape_asking(word.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        self.asked_until = until;
        // It may have taken a quarter of the ring of which it has not told.
        until >= end || until > taken + self.mask / 4
    }

    /// From now on the ring has no room, and says why.
    #[cold]
    pub(crate) fn distrust(&mut self, violation: Violation) {
        self.lie.get_or_insert(violation);
        // Full for good, so that the hot path needs no look at `lie`.
        self.head_seen = self.tail.wrapping_sub(self.depth());
    }

    /// What the consumer was caught at.
    #[must_use]
    pub const fn lie(&self) -> Option<Violation> {
        self.lie
    }

    /// Messages the ring holds at most.
    #[must_use]
    pub const fn depth(&self) -> u64 {
        self.mask + 1
    }

    /// Whether no message was ever published.
    #[must_use]
    pub const fn is_unused(&self) -> bool {
        self.tail == 0
    }

    /// Messages that the consumer has, as far as is known, not yet taken.
    pub fn pending(&self) -> u64 {
        self.tail.wrapping_sub(self.head_seen)
    }

    /// Publishes a message whose payload travels in the cell.
    ///
    /// # Panics
    /// Without room (see [`has_room`](Self::has_room)), or with more than 96 bytes.
    #[inline]
    pub fn push_inline(&mut self, meta: Meta, payload: &[u8]) {
        self.assert_room();
        self.write_inline(meta, payload);
    }

    /// The caller has seen room.
    #[inline(always)]
    pub(crate) fn write_inline(&mut self, meta: Meta, payload: &[u8]) {
        assert!(payload.len() <= INLINE_BYTES_MAX, "too long for a cell");
        let shape = shape(payload.len() as u32, Kind::Inline, meta.lost);
        self.write(shape, meta, |cell| {
            // SAFETY: `write` hands out a cell of these cells, which the producer's memory
            // has writable, and which no honest consumer reads before its stamp; the
            // length was checked above.
            unsafe { C::write_payload(cell, payload) }
        });
    }

    /// Publishes a message whose payload is a buffer of the sender's heap.
    ///
    /// # Panics
    /// Without room (see [`has_room`](Self::has_room)).
    #[inline]
    pub fn push_heap(&mut self, meta: Meta, id: BufferId, len: u32) {
        self.assert_room();
        self.write_heap(meta, id, len);
    }

    /// The caller has seen room.
    #[inline(always)]
    pub(crate) fn write_heap(&mut self, meta: Meta, id: BufferId, len: u32) {
        let shape = shape(len, Kind::Heap, meta.lost);
        self.write(shape, meta, |cell| cell[PAYLOAD_WORD].store(u64::from(id.0), Ordering::Relaxed));
    }

    #[inline(always)]
    fn assert_room(&self) {
        assert!(self.knows_room(), "push without room");
    }

    #[inline(always)]
    fn write(&mut self, shape: u64, meta: Meta, write: impl FnOnce(&Cell)) {
        let tail = self.tail;
        // SAFETY: the index is 1 to `depth`, and `new` checked that there are more cells.
        let cell = unsafe { self.cells.cell_unchecked(1 + (tail & self.mask) as usize) };
        write(cell);
        cell[SHAPE].store(shape, Ordering::Relaxed);
        cell[SEQUENCE].store(meta.sequence, Ordering::Relaxed);
        cell[SOURCE_TIME].store(meta.source_ns, Ordering::Relaxed);
        // Release pairs with the consumer's Acquire in `take`: the cell is complete.
        cell[STAMP].store(tail + 1, Ordering::Release);
        self.tail = tail + 1;
    }

    /// The memory it writes.
    pub(crate) const fn cells(&self) -> &C {
        &self.cells
    }

    /// Counts up the word on which a sleeping consumer waits, and returns it; the system
    /// call that wakes is the caller's.
    pub(crate) fn ring_bell(&self) -> &AtomicU64 {
        let bell = &self.cells.cell(0)[BELL];
        // Only the producer writes the word. Release pairs with the consumer's Acquire in
        // `bell`: who sees the new count sees what was published before.
        bell.store(bell.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        bell
    }

    /// Says that nothing more will come.
    pub fn close(&mut self) {
        let closed = &self.cells.cell(0)[CLOSED];
        // Only the producer writes the word, and what was taken back stays so.
        if closed.load(Ordering::Relaxed) == 0 {
            closed.store(FINISHED, Ordering::Release);
        }
    }

    /// As [`close`](Self::close), and that the buffers which the consumer holds, or which wait in
    /// the ring, are taken back. To be said before one of them is written.
    pub fn take_back(&mut self) {
        self.cells.cell(0)[CLOSED].store(TAKEN_BACK, Ordering::Relaxed);
        // Release fence: pairs with the Acquire fence in `is_taken_back`. Who has read a byte that
        // is written from now on sees the word.
        fence(Ordering::Release);
    }
}

/// Where a popped message's payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Payload {
    /// Copied into [`Popped::inline`].
    Inline,
    /// In this buffer of the sender's heap. A claim, until the heap's geometry has
    /// located it.
    Heap(BufferId),
}

/// A message taken from the ring: private, whatever the producer writes later.
#[derive(Clone, Copy, Debug)]
pub struct Popped {
    /// Sequence, source instant, losses.
    pub meta: Meta,
    /// Bytes of the payload.
    pub len: u32,
    /// Where they are.
    pub payload: Payload,
    /// The bytes, when they travelled in the cell; the rest is stale.
    pub inline: InlineBytes,
}

/// Room for a payload that travels in the cell.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
pub struct InlineBytes(pub [u8; INLINE_BYTES_MAX]);

impl Popped {
    /// An empty message, to be filled by [`Consumer::pop`].
    pub const EMPTY: Popped = Popped {
        meta: Meta { sequence: 0, source_ns: 0, lost: 0 },
        len: 0,
        payload: Payload::Inline,
        inline: InlineBytes([0; INLINE_BYTES_MAX]),
    };
}

/// A message taken from the ring, without the bytes that travelled in the cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) meta: Meta,
    /// At most 96 if the payload is in line.
    pub(crate) len: u32,
    pub(crate) payload: Payload,
}

/// What [`Consumer::take_next`] found.
pub(crate) enum Next {
    /// No message.
    Nothing,
    /// One whose bytes were copied, and how many; it is taken.
    Inline(Meta, u32),
    /// One in a buffer, of so many bytes: a claim. It is not taken.
    Heap(Meta, u32, BufferId),
    /// What cannot be, or is to be told of: left to [`Consumer::take`].
    Odd,
}

/// Where [`Consumer::take_plain`] puts what it takes: at once, so that nothing of it is carried
/// further.
pub(crate) struct PlainInto<'a> {
    pub(crate) inline: &'a mut InlineBytes,
    pub(crate) sequence: &'a mut u64,
    pub(crate) source_ns: &'a mut u64,
}

/// What [`Consumer::take_plain`] found.
pub(crate) enum Plain {
    /// No message.
    Nothing,
    /// One of so many bytes, which was copied; it is taken.
    Inline(u32),
    /// One that is not that plain, or what cannot be. It is not taken.
    Other,
}

/// The consuming end.
#[derive(Debug)]
pub struct Consumer<C, R> {
    cells: C,
    returns: R,
    /// The depth, less one.
    mask: u64,
    position: u64,
    published: u64,
    /// Position from which something is due: the head is to be published, or a look was
    /// asked for.
    due: u64,
}

impl<C: Cells, R: Cells> Consumer<C, R> {
    /// `cells` is written by the producer, `returns` here; both start zeroed.
    ///
    /// # Panics
    /// If the depth does not fit, or the memory is too small for it.
    pub fn new(cells: C, returns: R, depth: u32) -> Self {
        assert!(depth_fits(depth) && cells.cell_count() > depth as usize && returns.cell_count() > 0);
        let depth = u64::from(depth);
        Consumer { cells, returns, mask: depth - 1, position: 0, published: 0, due: depth / 4 }
    }

    #[inline(always)]
    fn next_cell(&self) -> &Cell {
        // SAFETY: the index is 1 to `depth`, and `new` checked that there are more cells.
        unsafe { self.cells.cell_unchecked(1 + (self.position & self.mask) as usize) }
    }

    /// Whether a message waits.
    #[inline]
    pub fn is_ready(&self) -> bool {
        let cell = self.next_cell();
        // Who looks takes the message next: both lines of the cell come at once.
        C::fetch_ahead(cell);
        // Acquire pairs with the producer's Release in `write`: the cell is complete.
        cell[STAMP].load(Ordering::Acquire) == self.position + 1
    }

    /// The word in which the next message bears its source instant, as its sender claims.
    /// `None`: no message waits.
    #[inline]
    pub fn next_source_ns(&self) -> Option<u64> {
        let cell = self.next_cell();
        // Acquire pairs with the producer's Release in `write`: the cell is complete.
        let is_ready = cell[STAMP].load(Ordering::Acquire) == self.position + 1;
        is_ready.then(|| cell[SOURCE_TIME].load(Ordering::Relaxed))
    }

    /// Messages the ring holds at most.
    pub fn depth(&self) -> u64 {
        self.mask + 1
    }

    /// Messages taken so far.
    pub(crate) const fn passed(&self) -> u64 {
        self.position
    }

    /// Whether the producer knows of every message taken.
    #[inline]
    pub(crate) fn is_published(&self) -> bool {
        self.position == self.published
    }

    /// Takes the next message into `into`; `false` if there is none.
    ///
    /// # Errors
    /// The cell holds no message that can be.
    #[inline(always)]
    pub fn pop(&mut self, into: &mut Popped) -> Result<bool, Violation> {
        let Some(taken) = self.take_here(&mut into.inline)? else { return Ok(false) };
        (into.meta, into.len, into.payload) = (taken.meta, taken.len, taken.payload);
        Ok(true)
    }

    /// Takes the next message. If its payload travelled in the cell, the first `len`
    /// bytes of `inline` are written, else none.
    ///
    /// # Errors
    /// The cell holds no message that can be.
    pub(crate) fn take(&mut self, inline: &mut InlineBytes) -> Result<Option<Taken>, Violation> {
        let is_asked = self.is_asked();
        let taken = self.take_here(inline)?;
        if is_asked {
            self.publish_head();
        }
        Ok(taken)
    }

    /// Whether the producer, who waits for it, asks to be told of the message that waits.
    #[inline(always)]
    pub(crate) fn is_asked(&self) -> bool {
        shape_asks(self.next_cell()[SHAPE].load(Ordering::Relaxed))
    }

    /// As [`take`](Self::take), in line: what is taken is handed on in registers.
    #[inline(always)]
    fn take_here(&mut self, inline: &mut InlineBytes) -> Result<Option<Taken>, Violation> {
        if !self.is_ready() {
            self.publish_head();
            return Ok(None);
        }
        let taken = Self::read(self.next_cell(), inline).ok_or(Violation::Cell)?;
        self.position += 1;
        self.publish_if_due();
        Ok(Some(taken))
    }

    /// The plain case of [`take_next`](Self::take_next): a message in line, before which
    /// none was lost. Whatever is not that plain is left untouched. Nothing is published:
    /// the caller looks whether that [is due](Self::is_due).
    #[inline(always)]
    pub(crate) fn take_plain(&mut self, into: PlainInto<'_>) -> Plain {
        let (cell, next) = (self.next_cell(), self.position + 1);
        // Both lines of the cell come at once, and not the second after the first.
        C::fetch_ahead(cell);
        // Acquire pairs with the producer's Release in `write`: the cell is complete.
        if cell[STAMP].load(Ordering::Acquire) != next {
            return Plain::Nothing;
        }
        let shape = cell[SHAPE].load(Ordering::Relaxed);
        let Some(len) = shape_plain_len(shape) else { return Plain::Other };
        *into.sequence = cell[SEQUENCE].load(Ordering::Relaxed);
        *into.source_ns = cell[SOURCE_TIME].load(Ordering::Relaxed);
        // SAFETY: as in `read`; the length was checked.
        unsafe { C::read_payload(cell, len as usize, into.inline.0.as_mut_ptr()) };
        self.position = next;
        Plain::Inline(len)
    }

    /// Whether the caller has something to see to.
    #[inline(always)]
    pub(crate) fn is_due(&self) -> bool {
        self.position >= self.due
    }

    /// Asks that something be [due](Self::is_due) with the next message.
    #[inline(always)]
    pub(crate) fn look_soon(&mut self) {
        self.due = 0;
    }

    /// Nothing but the head is due.
    #[inline(always)]
    pub(crate) fn look_later(&mut self) {
        self.due = self.published + self.depth() / 4;
    }

    /// Publishes the head if a quarter of the ring was taken since the last time.
    #[inline(always)]
    pub(crate) fn publish_if_due(&mut self) {
        if self.position >= self.due && self.position - self.published > self.mask / 4 {
            self.store_head();
        }
    }

    /// Takes the next message if it is in line. One in a buffer is only read, and left
    /// there until [`pass`](Self::pass).
    #[inline(always)]
    pub(crate) fn take_next(&mut self, inline: &mut InlineBytes) -> Next {
        let (cell, next) = (self.next_cell(), self.position + 1);
        // Both lines of the cell come at once, and not the second after the first.
        C::fetch_ahead(cell);
        // Acquire pairs with the producer's Release in `write`: the cell is complete.
        if cell[STAMP].load(Ordering::Acquire) != next {
            return Next::Nothing;
        }
        let shape = cell[SHAPE].load(Ordering::Relaxed);
        let Some(len) = shape_inline_len(shape) else { return Self::read_heap(cell, shape) };
        let sequence = cell[SEQUENCE].load(Ordering::Relaxed);
        let source_ns = cell[SOURCE_TIME].load(Ordering::Relaxed);
        // SAFETY: as in `read`; the length was checked.
        unsafe { C::read_payload(cell, len as usize, inline.0.as_mut_ptr()) };
        self.position = next;
        self.publish_if_due();
        Next::Inline(Meta { sequence, source_ns, lost: shape_lost(shape) }, len)
    }

    /// Reads the message that [`take_plain`](Self::take_plain) has just left, if it is in a
    /// buffer. It is not taken.
    #[inline(always)]
    pub(crate) fn look_at_heap(&self) -> Next {
        let cell = self.next_cell();
        Self::read_heap(cell, cell[SHAPE].load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn read_heap(cell: &Cell, shape: u64) -> Next {
        let sequence = cell[SEQUENCE].load(Ordering::Relaxed);
        let source_ns = cell[SOURCE_TIME].load(Ordering::Relaxed);
        let id = u32::try_from(cell[PAYLOAD_WORD].load(Ordering::Relaxed));
        match (shape_is_heap(shape), id) {
            (true, Ok(id)) => {
                Next::Heap(Meta { sequence, source_ns, lost: shape_lost(shape) }, shape_len(shape), BufferId(id))
            }
            _ => Next::Odd,
        }
    }

    /// Takes the message in a buffer that [`take_next`](Self::take_next) has just read.
    #[inline(always)]
    pub(crate) fn pass(&mut self) {
        self.position += 1;
        self.publish_if_due();
    }

    /// Reads a cell that is ready. `None`: it holds no message that can be.
    #[inline(always)]
    fn read(cell: &Cell, inline: &mut InlineBytes) -> Option<Taken> {
        // One read a word: what is checked here is what is used.
        let shape = cell[SHAPE].load(Ordering::Relaxed);
        let sequence = cell[SEQUENCE].load(Ordering::Relaxed);
        let source_ns = cell[SOURCE_TIME].load(Ordering::Relaxed);
        let len = shape_len(shape);
        let payload = match shape_kind(shape)? {
            Kind::Inline if len as usize <= INLINE_BYTES_MAX => {
                // SAFETY: the cell is of these cells; the length was checked; `inline` is 96
                // bytes aligned to 16.
                unsafe { C::read_payload(cell, len as usize, inline.0.as_mut_ptr()) };
                Payload::Inline
            }
            Kind::Inline => return None,
            Kind::Heap => {
                let id = cell[PAYLOAD_WORD].load(Ordering::Relaxed);
                Payload::Heap(BufferId(u32::try_from(id).ok()?))
            }
        };
        let meta = Meta { sequence, source_ns, lost: shape_lost(shape) };
        Some(Taken { meta, len, payload })
    }

    /// Tells the producer of every message taken.
    #[inline]
    pub(crate) fn publish_head(&mut self) {
        if self.position != self.published {
            self.store_head();
        }
    }

    #[inline(always)]
    fn store_head(&mut self) {
        self.published = self.position;
        self.due = self.position + self.depth() / 4;
        // SAFETY: `new` checked that there is such a cell.
        let cell = unsafe { self.returns.cell_unchecked(0) };
        // Release pairs with the producer's Acquire in `refresh_head`.
        cell[HEAD].store(self.position, Ordering::Release);
    }

    /// Asks the producer for what it keeps of the past; returns how often that was done.
    pub(crate) fn ask(&mut self) -> u64 {
        let word = &self.returns.cell(0)[ASKS];
        // Only the consumer writes the word.
        let asks = word.load(Ordering::Relaxed).wrapping_add(1);
        word.store(asks, Ordering::Relaxed);
        asks
    }

    /// How many messages were taken.
    pub(crate) const fn position(&self) -> u64 {
        self.position
    }

    /// The word that tells the producer whether this side looks at the ring.
    pub(crate) fn quiet_word(&self) -> &AtomicU64 {
        &self.returns.cell(0)[QUIET]
    }

    /// How many messages wait, without taking them: the producer's claim, and never more
    /// than the ring holds. A search over the stamps, since those that are ready are next
    /// to each other.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let is_ready = |ahead: u64| {
            let position = self.position + ahead;
            let cell = self.cells.cell(1 + (position & self.mask) as usize);
            cell[STAMP].load(Ordering::Acquire) == position + 1
        };
        let (mut ready, mut end) = (0, self.depth());
        while ready < end {
            let middle = ready.midpoint(end);
            if is_ready(middle) {
                ready = middle + 1;
            } else {
                end = middle;
            }
        }
        ready
    }

    /// Whether the producer has said that nothing more will come. Messages may still wait.
    pub fn is_closed(&self) -> bool {
        self.cells.cell(0)[CLOSED].load(Ordering::Acquire) != 0
    }

    /// Whether the producer has taken back the buffers that were not given back. `false`: what was
    /// read of them before this call is what was sent.
    #[inline(always)]
    pub fn is_taken_back(&self) -> bool {
        // Acquire fence: pairs with the Release fence in `take_back`.
        fence(Ordering::Acquire);
        // SAFETY: `new` checked that there is such a cell.
        let header = unsafe { self.cells.cell_unchecked(0) };
        header[CLOSED].load(Ordering::Relaxed) == TAKEN_BACK
    }

    /// Passes over all messages that wait; returns how many those are.
    #[cold]
    pub(crate) fn give_up(&mut self) -> u64 {
        let waiting = self.waiting();
        self.position += waiting;
        self.publish_head();
        waiting
    }

    /// The word that the producer counts up to wake this side.
    pub(crate) fn bell(&self) -> &AtomicU64 {
        &self.cells.cell(0)[BELL]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cell::{cells_bytes, returns_bytes};
    use crate::region::{Region, RegionCells};
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn ends(depth: u32) -> (Producer<RegionCells, RegionCells>, Consumer<RegionCells, RegionCells>) {
        let region = |len: u64| RegionCells::new(Region::anonymous(len as usize).unwrap());
        let (cells, returns) = (region(cells_bytes(depth)), region(returns_bytes(0)));
        (Producer::new(cells.clone(), returns.clone(), depth), Consumer::new(cells, returns, depth))
    }

    #[derive(Clone, Debug)]
    enum Step {
        Inline(Vec<u8>, Meta),
        Heap(u32, u32, Meta),
        Pop,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let meta = (any::<u64>(), any::<u64>(), any::<u16>()).prop_map(|(sequence, source_ns, lost)| Meta {
            sequence,
            source_ns,
            lost,
        });
        let step = prop_oneof![
            (prop::collection::vec(any::<u8>(), 0..97), meta.clone())
                .prop_map(|(bytes, meta)| Step::Inline(bytes, meta)),
            (any::<u32>(), any::<u32>(), meta).prop_map(|(id, len, meta)| Step::Heap(id, len, meta)),
            Just(Step::Pop),
            Just(Step::Pop),
        ];
        prop::collection::vec(step, 0..300)
    }

    fn check(popped: &Popped, step: &Step) {
        match step {
            Step::Inline(bytes, meta) => {
                assert_eq!((popped.meta, popped.payload), (*meta, Payload::Inline));
                assert_eq!(popped.inline.0[..popped.len as usize], **bytes);
            }
            Step::Heap(id, len, meta) => {
                assert_eq!((popped.meta, popped.payload), (*meta, Payload::Heap(BufferId(*id))));
                assert_eq!(popped.len, *len);
            }
            Step::Pop => unreachable!("never pushed"),
        }
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue(depth_log in 1..6_u32, steps in steps()) {
            let (mut producer, mut consumer) = ends(1 << depth_log);
            let mut oracle = VecDeque::new();
            let mut popped = Popped::EMPTY;
            for step in steps {
                match &step {
                    Step::Pop => {
                        prop_assert_eq!(consumer.is_ready(), !oracle.is_empty());
                        let was_popped = consumer.pop(&mut popped).unwrap();
                        prop_assert_eq!(was_popped, !oracle.is_empty());
                        if was_popped {
                            check(&popped, &oracle.pop_front().unwrap());
                        }
                    }
                    _ if !producer.has_room().unwrap() => {
                        // The head is published every quarter: so much may be unknown.
                        prop_assert!(oracle.len() as u64 + (1 << depth_log) / 4 >= 1 << depth_log);
                    }
                    Step::Inline(bytes, meta) => {
                        producer.push_inline(*meta, bytes);
                        oracle.push_back(step);
                    }
                    Step::Heap(id, len, meta) => {
                        producer.push_heap(*meta, BufferId(*id), *len);
                        oracle.push_back(step);
                    }
                }
                prop_assert!(oracle.len() <= 1 << depth_log);
                prop_assert_eq!(consumer.waiting(), oracle.len() as u64);
            }
        }
    }

    #[test]
    #[should_panic(expected = "push without room")]
    fn a_full_ring_is_not_pushed() {
        let (mut producer, _consumer) = ends(2);
        for _ in 0..3 {
            producer.push_inline(Meta::default(), &[]);
        }
    }

    #[test]
    #[should_panic(expected = "too long for a cell")]
    fn what_does_not_fit_a_cell_is_not_pushed() {
        ends(2).0.push_inline(Meta::default(), &[0; 97]);
    }

    #[test]
    fn depths_are_powers_of_two() {
        assert!([2, 4, 65_536].into_iter().all(depth_fits));
        assert!(![0, 1, 3, 131_072].into_iter().any(depth_fits));
    }
}
