//! Layout of the two regions of a connection, in units of 128-byte cells (two cache
//! lines: what adjacent-line prefetch fetches together).
//!
//! ```text
//! cells region (producer writes)          returns region (consumer writes)
//! cell 0    word 0 = closed, word 1 = bell cell 0    word 0 = head, word 8 = asks, word 9 = quiet
//! cell 1..  one message each              cell 1..  completions, 16 a cell
//!
//! message cell
//! word 0    lap stamp: ring position + 1; written last
//! word 1    length (32) | kind (8) | lost before this one (16) | to be told of at once (1) |
//!           0 (7): for a payload in line before which nothing was lost, the length alone
//! word 2    sequence number
//! word 3    source instant, ns; 0 = not stamped
//! word 4..  payload, up to 96 bytes; or buffer number (32)
//!
//! completion word
//!           position + 1, truncated (32) | buffer number (32)
//! ```
//!
//! A lap stamp never repeats (64 bits), so a cell says by itself whether it is the
//! one waited for: no shared tail exists. All integers are in the machine's order;
//! both sides are one machine.

use crate::sync::AtomicU64;
use insane_core::limits::INLINE_BYTES_MAX;

/// Words of a cell.
pub const CELL_WORDS: usize = 16;
/// Bytes of a cell.
pub const CELL_BYTES: usize = 128;
/// First payload word.
pub(crate) const PAYLOAD_WORD: usize = 4;
/// Payload words.
pub(crate) const PAYLOAD_WORDS: usize = CELL_WORDS - PAYLOAD_WORD;

pub(crate) const STAMP: usize = 0;
pub(crate) const SHAPE: usize = 1;
pub(crate) const SEQUENCE: usize = 2;
pub(crate) const SOURCE_TIME: usize = 3;

/// Word of the header cell of the cells region: 0, [`FINISHED`] or [`TAKEN_BACK`].
pub(crate) const CLOSED: usize = 0;
/// The producer is finished: nothing more will come, and what waits may be read.
pub(crate) const FINISHED: u64 = 1;
/// Besides, it has taken back the buffers that were lent on this connection and not given back.
pub(crate) const TAKEN_BACK: u64 = 2;
/// Word of the header cell of the cells region that the producer counts up to wake a
/// consumer that sleeps on it.
pub(crate) const BELL: usize = 1;
/// Word of the header cell of the returns region that holds the consumer's head.
pub(crate) const HEAD: usize = 0;
/// Word of the header cell of the returns region that a datapath counts up to ask for what
/// the producer keeps of the past. Not in the head's cache line, which moves often.
pub(crate) const ASKS: usize = 8;
/// Word of the header cell of the returns region that is odd while a datapath does not look at
/// the ring and wants to be told of the next message (see [`wish`](crate::wish)). It changes as
/// seldom as the asks beside it.
pub(crate) const QUIET: usize = 9;

const _: () = assert!(PAYLOAD_WORDS * 8 == INLINE_BYTES_MAX);
#[cfg(not(loom))]
const _: () = assert!(size_of::<Cell>() == CELL_BYTES);

/// One cell: sixteen words.
#[cfg(not(loom))]
pub type Cell = [AtomicU64; CELL_WORDS];

/// One cell under loom: its words, and the payload as memory whose every access loom
/// checks, since production reads and writes it with plain instructions.
#[cfg(loom)]
#[derive(Debug)]
pub struct Cell {
    pub(crate) words: [AtomicU64; CELL_WORDS],
    pub(crate) payload: loom::cell::UnsafeCell<[u8; INLINE_BYTES_MAX]>,
}

#[cfg(loom)]
impl std::ops::Index<usize> for Cell {
    type Output = AtomicU64;
    fn index(&self, word: usize) -> &AtomicU64 {
        &self.words[word]
    }
}

/// Bytes of the cells region of a ring that holds `depth` messages.
#[must_use]
pub const fn cells_bytes(depth: u32) -> u64 {
    ((depth as u64 + 1) * CELL_BYTES as u64).next_multiple_of(4096)
}

/// Bytes of the returns region with `returns` places for completions.
#[must_use]
pub const fn returns_bytes(returns: u32) -> u64 {
    ((returns as u64).div_ceil(CELL_WORDS as u64) * CELL_BYTES as u64 + CELL_BYTES as u64).next_multiple_of(4096)
}

/// Memory made of cells. In production a [`Region`](crate::region::Region); under
/// loom a vector.
pub trait Cells {
    /// The cell at `index`.
    ///
    /// # Panics
    /// Past the end.
    fn cell(&self, index: usize) -> &Cell;

    /// The cell at `index`, which is not checked.
    ///
    /// # Safety
    /// `index` is less than [`cell_count`](Self::cell_count).
    #[inline(always)]
    unsafe fn cell_unchecked(&self, index: usize) -> &Cell {
        self.cell(index)
    }

    /// Word `at`, counted through all cells, which is not checked.
    ///
    /// # Safety
    /// `at` is less than [`cell_count`](Self::cell_count) times [`CELL_WORDS`].
    #[inline(always)]
    unsafe fn word_unchecked(&self, at: usize) -> &AtomicU64 {
        &self.cell(at / CELL_WORDS)[at % CELL_WORDS]
    }

    /// How many there are; always the same.
    fn cell_count(&self) -> usize;

    /// Asks for the second cache line of a cell, where a payload beyond 32 bytes goes on, so
    /// that it comes together with the first.
    #[inline(always)]
    fn fetch_ahead(_cell: &Cell) {}

    /// Writes `bytes` into the payload of a cell, with plain stores.
    ///
    /// # Safety
    /// The cell is of such memory and writable here, `bytes` are at most 96, and no other
    /// thread of this process looks at the payload until the stamp is stored.
    unsafe fn write_payload(cell: &Cell, bytes: &[u8]);

    /// Copies the first `len` bytes (at most 96) of a cell's payload into `into`, which
    /// holds 96; each word is read once. Bytes behind them may be copied as well.
    ///
    /// # Safety
    /// The cell is of such memory, `len` is at most 96, `into` is writable for 96 bytes,
    /// aligned to 16.
    unsafe fn read_payload(cell: &Cell, len: usize, into: *mut u8);
}

/// What a message cell holds besides its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Meta {
    /// Sequence number given by the source.
    pub sequence: u64,
    /// When the source emitted it, ns; 0: not stamped.
    pub source_ns: u64,
    /// Messages of its flow lost just before this one; saturates.
    pub lost: u16,
}

/// Where the payload is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Inline = 0,
    Heap = 2,
}

pub(crate) const fn shape(len: u32, kind: Kind, lost: u16) -> u64 {
    len as u64 | (kind as u64) << 32 | (lost as u64) << 40
}

/// Whether the producer asks to be told at once that the message was taken. It sets this while
/// the message waits, and nothing else of it changes.
pub(crate) const fn shape_asks(word: u64) -> bool {
    word & ASKED != 0
}

/// The word with that asked for.
pub(crate) const fn shape_asking(word: u64) -> u64 {
    word | ASKED
}

const ASKED: u64 = 1 << 56;

pub(crate) const fn shape_len(word: u64) -> u32 {
    word as u32
}

pub(crate) const fn shape_kind(word: u64) -> Option<Kind> {
    match (word >> 32) as u8 {
        0 => Some(Kind::Inline),
        2 => Some(Kind::Heap),
        _ => None,
    }
}

/// Whether it is in a buffer, and nothing is asked for.
#[inline(always)]
pub(crate) const fn shape_is_heap(word: u64) -> bool {
    word & (ASKED | 0xff << 32) == (Kind::Heap as u64) << 32
}

/// The length of a payload in line, at most 96, if that is what the word says, and nothing is
/// asked for.
#[inline(always)]
pub(crate) const fn shape_inline_len(word: u64) -> Option<u32> {
    // Length, kind and the ask in one comparison, since the kind in line is zero.
    let len = word & (ASKED | 0xff_ffff_ffff);
    if len <= INLINE_BYTES_MAX as u64 { Some(len as u32) } else { None }
}

/// The same, if besides no message was lost before this one.
#[inline(always)]
pub(crate) const fn shape_plain_len(word: u64) -> Option<u32> {
    // Length, kind and losses in one comparison.
    if word <= INLINE_BYTES_MAX as u64 { Some(word as u32) } else { None }
}

pub(crate) const fn shape_lost(word: u64) -> u16 {
    (word >> 40) as u16
}
