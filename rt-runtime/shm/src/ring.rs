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
//! Bounds: `push` and `pop` do a constant amount of work. The head is published
//! every quarter of the ring, and whenever the ring is found empty.

use crate::Violation;
use crate::cell::{
    CLOSED, Cells, HEAD, Kind, Meta, PAYLOAD_WORD, SEQUENCE, SHAPE, SOURCE_TIME, STAMP, shape, shape_kind, shape_len,
    shape_lost,
};
use crate::sync::Ordering;
use insane_core::heap::BufferId;
use insane_core::limits::INLINE_BYTES_MAX;

/// Smallest depth of a ring.
pub const DEPTH_MIN: u32 = 2;
/// Largest depth of a ring.
pub const DEPTH_MAX: u32 = 65_536;

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
    depth: u64,
    tail: u64,
    head_seen: u64,
}

impl<C: Cells, R: Cells> Producer<C, R> {
    /// `cells` is written here, `returns` by the consumer; both start zeroed.
    ///
    /// # Panics
    /// If the depth does not fit, or the memory is too small for it.
    pub fn new(cells: C, returns: R, depth: u32) -> Self {
        assert!(depth_fits(depth) && cells.cell_count() > depth as usize && returns.cell_count() > 0);
        Producer { cells, returns, depth: u64::from(depth), tail: 0, head_seen: 0 }
    }

    /// Whether one more message fits. Looks at the consumer's head only when the
    /// ring seems full.
    ///
    /// # Errors
    /// The consumer's head is impossible.
    #[inline]
    pub fn has_room(&mut self) -> Result<bool, Violation> {
        if self.tail - self.head_seen < self.depth { Ok(true) } else { self.refresh_head() }
    }

    #[cold]
    fn refresh_head(&mut self) -> Result<bool, Violation> {
        // Acquire pairs with the consumer's Release in `publish_head`: its reads of the
        // cells before the head are over.
        let claim = self.returns.cell(0)[HEAD].load(Ordering::Acquire);
        if claim < self.head_seen || claim > self.tail {
            return Err(Violation::Head);
        }
        self.head_seen = claim;
        Ok(self.tail - self.head_seen < self.depth)
    }

    /// Messages that the consumer has, as far as is known, not yet taken.
    pub fn pending(&self) -> u64 {
        self.tail - self.head_seen
    }

    /// Publishes a message whose payload travels in the cell.
    ///
    /// # Panics
    /// Without room (see [`has_room`](Self::has_room)), or with more than 96 bytes.
    #[inline]
    pub fn push_inline(&mut self, meta: Meta, payload: &[u8]) {
        assert!(payload.len() <= INLINE_BYTES_MAX);
        let index = self.claim();
        self.cells.write_payload(index, payload);
        self.publish(index, shape(payload.len() as u32, Kind::Inline, meta.lost), meta);
    }

    /// Publishes a message whose payload is a buffer of the sender's heap.
    ///
    /// # Panics
    /// Without room (see [`has_room`](Self::has_room)).
    #[inline]
    pub fn push_heap(&mut self, meta: Meta, id: BufferId, len: u32) {
        let index = self.claim();
        self.cells.cell(index)[PAYLOAD_WORD].store(u64::from(id.0), Ordering::Relaxed);
        self.publish(index, shape(len, Kind::Heap, meta.lost), meta);
    }

    #[inline]
    fn claim(&self) -> usize {
        assert!(self.tail - self.head_seen < self.depth, "push without room");
        1 + (self.tail & (self.depth - 1)) as usize
    }

    #[inline]
    fn publish(&mut self, index: usize, shape: u64, meta: Meta) {
        let cell = self.cells.cell(index);
        cell[SHAPE].store(shape, Ordering::Relaxed);
        cell[SEQUENCE].store(meta.sequence, Ordering::Relaxed);
        cell[SOURCE_TIME].store(meta.source_ns, Ordering::Relaxed);
        self.tail += 1;
        // Release pairs with the consumer's Acquire in `pop`: the cell is complete.
        cell[STAMP].store(self.tail, Ordering::Release);
    }

    /// Says that nothing more will come.
    pub fn close(&mut self) {
        self.cells.cell(0)[CLOSED].store(1, Ordering::Release);
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

    /// The payload that travelled in the cell; empty if it is in the heap.
    #[inline]
    #[must_use]
    pub fn inline_bytes(&self) -> &[u8] {
        match self.payload {
            Payload::Inline => &self.inline.0[..self.len as usize],
            Payload::Heap(_) => &[],
        }
    }
}

/// The consuming end.
#[derive(Debug)]
pub struct Consumer<C, R> {
    cells: C,
    returns: R,
    depth: u64,
    position: u64,
    published: u64,
}

impl<C: Cells, R: Cells> Consumer<C, R> {
    /// `cells` is written by the producer, `returns` here; both start zeroed.
    ///
    /// # Panics
    /// If the depth does not fit, or the memory is too small for it.
    pub fn new(cells: C, returns: R, depth: u32) -> Self {
        assert!(depth_fits(depth) && cells.cell_count() > depth as usize && returns.cell_count() > 0);
        Consumer { cells, returns, depth: u64::from(depth), position: 0, published: 0 }
    }

    /// Whether a message waits.
    #[inline]
    pub fn is_ready(&self) -> bool {
        let index = 1 + (self.position & (self.depth - 1)) as usize;
        self.cells.cell(index)[STAMP].load(Ordering::Acquire) == self.position + 1
    }

    /// Takes the next message into `into`; `false` if there is none.
    ///
    /// # Errors
    /// The cell holds no message that can be.
    #[inline]
    pub fn pop(&mut self, into: &mut Popped) -> Result<bool, Violation> {
        let index = 1 + (self.position & (self.depth - 1)) as usize;
        let cell = self.cells.cell(index);
        // Acquire pairs with the producer's Release in `publish`.
        if cell[STAMP].load(Ordering::Acquire) != self.position + 1 {
            self.publish_head();
            return Ok(false);
        }
        let shape = cell[SHAPE].load(Ordering::Relaxed);
        into.meta.sequence = cell[SEQUENCE].load(Ordering::Relaxed);
        into.meta.source_ns = cell[SOURCE_TIME].load(Ordering::Relaxed);
        into.meta.lost = shape_lost(shape);
        into.len = shape_len(shape);
        match shape_kind(shape) {
            Some(Kind::Inline) if into.len as usize <= INLINE_BYTES_MAX => {
                into.payload = Payload::Inline;
                self.cells.read_payload(index, &mut into.inline.0[..into.len as usize]);
            }
            Some(Kind::Heap) => {
                let id = cell[PAYLOAD_WORD].load(Ordering::Relaxed);
                into.payload = Payload::Heap(BufferId(u32::try_from(id).map_err(|_| Violation::Cell)?));
            }
            _ => return Err(Violation::Cell),
        }
        self.position += 1;
        if self.position - self.published >= self.depth / 4 {
            self.publish_head();
        }
        Ok(true)
    }

    #[inline]
    fn publish_head(&mut self) {
        if self.position != self.published {
            self.published = self.position;
            // Release pairs with the producer's Acquire in `refresh_head`.
            self.returns.cell(0)[HEAD].store(self.position, Ordering::Release);
        }
    }

    /// Whether the producer has said that nothing more will come. Messages may still wait.
    pub fn is_closed(&self) -> bool {
        self.cells.cell(0)[CLOSED].load(Ordering::Acquire) != 0
    }
}
