//! What one socket brought and was not handed out yet: at most one frame, opened.
//!
//! All others stay in the socket's ring until they are asked for.

use insane_core::PeerIndex;
use insane_link::FrameSink;
use insane_wire::bundle::Opener;
use insane_xdp_sys::{Chunk, Xsk};
use std::ops::Range;

/// How much one call may still do, and what it did.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Frames, answers and drops that the budget leaves.
    left: u32,
    /// Frames handed out.
    pub(crate) handed: u32,
}

impl Tally {
    pub(crate) const fn new(budget: u32) -> Self {
        Tally { left: budget, handed: 0 }
    }

    #[inline]
    pub(crate) const fn is_spent(&self) -> bool {
        self.left == 0
    }

    #[inline]
    pub(crate) fn hand<S: FrameSink>(&mut self, sink: &mut S, from: Option<PeerIndex>, frame: &[u8]) {
        sink.frame(from, frame);
        self.left -= 1;
        self.handed += 1;
    }

    pub(crate) fn use_one(&mut self) {
        self.left -= 1;
    }
}

/// A bundle whose frames are being handed out.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) chunk: Chunk,
    /// Where in the chunk's frame the bundle is.
    pub(crate) at: Range<usize>,
    pub(crate) opener: Opener,
    /// `None` once the peer has left.
    pub(crate) from: Option<PeerIndex>,
}

impl Open {
    /// Hands out as much as the budget allows; gives itself back if that was not all.
    pub(crate) fn hand_out<S: FrameSink>(mut self, xsk: &mut Xsk, tally: &mut Tally, sink: &mut S) -> Option<Self> {
        let bytes = xsk.bytes(&self.chunk).get_mut(self.at.clone()).unwrap_or_default();
        while !tally.is_spent()
            && let Some(frame) = self.opener.next(bytes)
            && let Some(frame) = bytes.get(frame)
        {
            tally.hand(sink, self.from, frame);
        }
        if self.opener.is_done() {
            xsk.give_back(self.chunk);
            None
        } else {
            Some(self)
        }
    }
}
