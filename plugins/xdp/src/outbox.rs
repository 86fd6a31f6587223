//! Frames for one peer, class and priority that are still to share a datagram.
//!
//! ```text
//!   in a chunk      |room  |headers|first frame|
//!                          |headers|first frame|                    no other followed
//!                   |headers|bundle|first frame|further|further|    others did
//! ```
//! The first frame is put where it stands in both forms, so that it is copied once. The second
//! decides: where two such fit into a datagram they go as a bundle ([`insane_wire::bundle`]).

use insane_core::PeerIndex;
use insane_netstack::Mac;
use insane_sys::SharedBytes;
use insane_wire::bundle::{HEAD_BYTES, Packer, WHOLE_BYTES};
use insane_xdp_sys::Chunk;

/// A datagram that may grow until the flush.
#[derive(Debug)]
pub(crate) struct Growing {
    pub(crate) chunk: Chunk,
    pub(crate) peer: PeerIndex,
    /// That of the tag, if there is one.
    pub(crate) priority: u8,
    /// Where the peer was when the first frame was taken.
    pub(crate) mac: Mac,
    /// Where in the chunk the last frame ends.
    end: usize,
    /// `None`: there is one frame, or it does not go into a bundle.
    packer: Option<Packer>,
}

impl Growing {
    /// Where the first frame stands, behind headers of so many bytes.
    pub(crate) const fn first_at(front: usize) -> usize {
        front + HEAD_BYTES
    }

    /// With a first frame that ends at `end`.
    pub(crate) const fn new(chunk: Chunk, (peer, priority): (PeerIndex, u8), mac: Mac, end: usize) -> Self {
        Growing { chunk, peer, priority, mac, end, packer: None }
    }

    /// Takes one frame more into the chunk's `bytes`; false if it belongs into the next datagram.
    /// Headers have `front` bytes, what follows them `bytes_max` at most.
    #[inline(never)]
    pub(crate) fn join(
        &mut self,
        bytes: &mut [u8],
        (front, bytes_max): (usize, usize),
        head: &[u8],
        payload: SharedBytes<'_>,
    ) -> bool {
        if self.packer.is_none() {
            let Some(first) = bytes.get(Self::first_at(front)..self.end) else { return false };
            if HEAD_BYTES + WHOLE_BYTES + 2 * first.len() > bytes_max {
                return false;
            }
            self.packer = Packer::new(first);
        }
        let Some(packer) = &mut self.packer else { return false };
        let Some(room) = bytes.get_mut(self.end..front + bytes_max) else { return false };
        let Some(written) = packer.push(head, payload.len(), room) else { return false };
        self.end += written + payload.copy_to(&mut room[written..written + payload.len()]);
        true
    }

    /// Frames in it.
    pub(crate) fn frames(&self) -> u16 {
        self.packer.as_ref().map_or(1, Packer::frames)
    }

    /// It grows no more: where in the chunk headers and all that follows them belong.
    #[inline]
    pub(crate) fn finish(&self, bytes: &mut [u8], front: usize) -> std::ops::Range<usize> {
        match &self.packer {
            Some(packer) if packer.frames() > 1 => {
                packer.finish(&mut bytes[front..self.end]);
                0..self.end
            }
            // Also where the second did not fit.
            _ => HEAD_BYTES..self.end,
        }
    }
}
