//! What a source keeps of the past, on its way to receivers that came later.
//!
//! A direct sink is given it once, when it joins. A datapath is given it when it asks, and told
//! by one message more that it was all. What does not fit a ring, or finds no buffer, is left out
//! from its old end on.

use super::{Inner, NEVER, STAGED, wake_if_wanted};
use crate::cell::Meta;
use insane_core::heap::BufferId;
use insane_core::limits::INLINE_BYTES_MAX;
use insane_core::{ConnId, MonoTime, SourceInstant, Stamp};
use std::ptr::NonNull;

/// Messages of the past that a receiver gets at most: as many as sources keep.
const KEPT_MAX: usize = 16;

/// A message that was emitted earlier, as its source kept it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Earlier<'a> {
    /// The number that it bore.
    pub sequence: u64,
    /// The instant that it is to bear.
    pub source_ns: u64,
    /// What it held.
    pub bytes: &'a [u8],
}

/// What the last message of an answer to a datapath that asked for the past bears: a number
/// of no emit, and in place of its instant how often the datapath had asked.
const fn end_meta(asks: u64) -> Meta {
    let asks = MonoTime(asks & ASKS_MASK);
    let source_ns = Stamp { instant: SourceInstant::Monotonic(asks), is_history: true }.encode();
    Meta { sequence: NEVER, source_ns, lost: 0 }
}

/// Of the number of asks, what fits an instant.
const ASKS_MASK: u64 = u32::MAX as u64;

/// Whether a message ends the answer to the ask of this number. Its payload is the number of
/// the source's next message, 8 bytes little-endian: a claim.
#[must_use]
pub fn end_of_past(meta: &Meta, asks: u64) -> bool {
    *meta == end_meta(asks)
}

impl Inner {
    #[cold]
    pub(super) fn replay(&mut self, earlier: &[Earlier<'_>]) -> usize {
        self.replayed_epoch = self.epoch;
        let mut joined = 0;
        // Each is asked once, so there are as many rounds as receivers.
        while let Some(conn) = self.conns.iter_mut().find_map(|conn| conn.take_awaits_history().then_some(conn)) {
            joined += 1;
            let (id, depth) = (conn.id(), conn.depth());
            self.replay_to(id, depth, earlier);
            if let Some(conn) = self.conns.iter_mut().find(|conn| conn.id() == id) {
                wake_if_wanted(conn, &self.counters);
            }
        }
        joined
    }

    /// Gives the datapaths that ask what is kept, and says that it is all.
    #[cold]
    pub(super) fn answer(&mut self, earlier: &[Earlier<'_>]) -> usize {
        let mut answered = 0;
        let is_large = earlier.iter().any(|message| message.bytes.len() > INLINE_BYTES_MAX);
        if is_large {
            self.reclaim();
        }
        // The newest matter most: the older ones only while there is a buffer for each.
        let free = self.heap.as_ref().filter(|_| is_large).map(|heap| heap.geometry().buffers() - heap.in_use());
        let fitting = free.map_or(earlier.len(), |free| earlier.len().min(free as usize));
        // One more for the end.
        let cells = fitting as u64 + 1;
        while let Some((id, asks, depth)) =
            self.conns.iter_mut().find_map(|conn| Some((conn.id(), conn.take_ask(cells)?, conn.depth())))
        {
            answered += 1;
            let fitting = &earlier[earlier.len() - fitting..];
            self.replay_to(id, depth - 1, fitting);
            if let Some(conn) = self.conns.iter_mut().find(|conn| conn.id() == id) {
                // Where buffers ran out meanwhile there is still the room for this.
                let next = self.sequence;
                conn.try_push_past(end_meta(asks), &next.to_le_bytes());
                wake_if_wanted(conn, &self.counters);
            }
        }
        answered
    }

    /// Gives one receiver the newest of these for which there are places, at most so many, and
    /// buffers, no more than are left of its share: those are taken first, from the newest on.
    /// The connection is looked for behind that, since a loan may find out liars and change who
    /// is here.
    fn replay_to(&mut self, id: ConnId, places: u64, earlier: &[Earlier<'_>]) {
        let mut staged = heapless::Vec::<_, KEPT_MAX>::new();
        let mut share = self.conns.iter().find(|conn| conn.id() == id).map_or(0, |conn| conn.share_left());
        for message in earlier.iter().rev().take(places.min(KEPT_MAX as u64) as usize) {
            let Some(loan) = self.stage(message, &mut share) else { break };
            assert!(staged.push((message, loan)).is_ok(), "no more are taken than there is room for");
        }
        let mut is_taken = true;
        while let Some((message, loan)) = staged.pop() {
            let meta = Meta { sequence: message.sequence, source_ns: message.source_ns, lost: 0 };
            let conn = self.conns.iter_mut().find(|conn| conn.id() == id).filter(|_| is_taken);
            is_taken = match loan {
                None => conn.is_some_and(|conn| conn.try_push_past(meta, message.bytes)),
                Some(buffer) => {
                    let len = message.bytes.len() as u32;
                    let is_taken = conn.is_some_and(|conn| conn.try_push_past_heap(meta, buffer, len));
                    if let Some(heap) = &mut self.heap {
                        heap.lend_to(buffer, u16::from(is_taken));
                    }
                    is_taken
                }
            };
        }
    }

    /// A buffer of a share with what the message held, or none where it goes in line; `None`: no
    /// buffer is free, or the share is used up.
    fn stage(&mut self, message: &Earlier<'_>, share: &mut u32) -> Option<Option<BufferId>> {
        let bytes = message.bytes;
        if bytes.len() <= INLINE_BYTES_MAX {
            return Some(None);
        }
        *share = share.checked_sub(1)?;
        let (start, buffer) = self.loan_heap(bytes.len())?;
        // SAFETY: the buffer was just loaned, has at least so many bytes, and is nobody else's.
        unsafe { start.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        // Whoever had the buffer before has let go of it.
        for emitted in self.emitted.iter_mut().filter(|emitted| emitted.buffer == buffer) {
            emitted.buffer = STAGED;
        }
        Some(Some(BufferId(buffer)))
    }
}
