//! Messages as applications see them.

use insane_core::{SourceInstant, Stamp};
use insane_shm::port::Received;
use insane_sys::SharedBytes;

/// A consumed message. Dropping it gives its memory back to the sender.
#[derive(Debug)]
pub struct Message<'s>(pub(crate) Received<'s>);

impl Message<'_> {
    /// Bytes of the payload.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number its source gave it, from 0, one more for each emit.
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.0.sequence()
    }

    /// Messages of its source lost just before it; saturates at 65,535. What comes from other hosts
    /// shares one ring: what that had no room for is told with the next message that it takes,
    /// whichever of their sources it is of.
    #[inline]
    #[must_use]
    pub fn lost(&self) -> u16 {
        self.0.lost()
    }

    /// The word its source gave it: the instant of [`Source::emit_at`](crate::Source::emit_at),
    /// ns; `None` if it gave none. What a [`ProcessSource`](crate::ProcessSource) gives also
    /// names the clock: see [`source_instant`](Self::source_instant).
    #[must_use]
    pub fn source_ns(&self) -> Option<u64> {
        Some(self.0.source_ns()).filter(|ns| *ns != 0)
    }

    /// The instant its source gave it, with what is known of its clock.
    #[must_use]
    pub fn source_instant(&self) -> SourceInstant {
        self.stamp().instant
    }

    /// Whether its source emitted it before this sink joined, and sent it because of that.
    #[must_use]
    pub fn is_history(&self) -> bool {
        self.stamp().is_history
    }

    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::decode(self.0.source_ns())
    }

    /// Whether it came straight from a source of this host.
    pub(crate) fn is_direct(&self) -> bool {
        self.0.is_direct()
    }

    /// The payload as a slice, where nobody else can write its memory: it travelled in
    /// the ring (up to 96 bytes), came over the network, or its sender is this process.
    /// `None` where a peer process still can: use [`shared`](Self::shared).
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.0.bytes()
    }

    /// The payload wherever it is, as a view that copies.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> SharedBytes<'_> {
        self.0.shared()
    }

    /// Whether what was read of the payload before this call is what its source sent. `false` only
    /// where this session was put out while it held the message (or its source's was): its senders
    /// have their buffers back then, and the bytes may be those of other messages. A message that
    /// waits meanwhile is never handed out: it is counted as lost. To be asked after reading, by
    /// who may stand still for seconds with a message in its hands.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.0.is_whole()
    }

    /// Copies into `into` as much as fits both; returns how much that was.
    #[inline]
    pub fn copy_to(&self, into: &mut [u8]) -> usize {
        self.0.shared().copy_to(into)
    }

    /// A copy of the payload.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.shared().to_vec()
    }

    /// Gives the memory back now; the same as dropping the message.
    pub fn release(self) {}
}
