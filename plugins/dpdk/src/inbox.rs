//! What came for one class and was not handed out yet.

use dpdk_sys::{Frame, Port};
use insane_core::PeerIndex;
use insane_link::FrameSink;
use insane_wire::bundle::Opener;
use std::collections::VecDeque;
use std::ops::Range;

/// How much one call may still do, and what it did.
#[derive(Debug)]
pub(crate) struct Tally {
    /// Frames that the budget leaves.
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
    fn hand<S: FrameSink>(&mut self, sink: &mut S, from: Option<PeerIndex>, frame: &[u8]) {
        sink.frame(from, frame);
        self.left -= 1;
        self.handed += 1;
    }
}

/// One datagram.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) frame: Frame,
    /// Where in the frame its payload is.
    pub(crate) at: Range<usize>,
    /// `None`: a stranger's, or the peer has left.
    pub(crate) from: Option<PeerIndex>,
    /// It is a bundle, opened so far.
    pub(crate) opener: Option<Opener>,
}

/// At most as many datagrams as it was made for.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: VecDeque<Datagram>,
    room: usize,
}

impl Inbox {
    pub(crate) fn new(room: usize) -> Self {
        Inbox { waiting: VecDeque::with_capacity(room), room }
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() == self.room
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes it, or gives it back for want of room.
    #[inline]
    pub(crate) fn put(&mut self, datagram: Datagram) -> Result<(), Datagram> {
        if self.is_full() {
            return Err(datagram);
        }
        self.waiting.push_back(datagram);
        Ok(())
    }

    /// Hands out as much as the budget allows.
    #[inline]
    pub(crate) fn hand_out<S: FrameSink>(&mut self, port: &mut Port, tally: &mut Tally, sink: &mut S) {
        while !tally.is_spent()
            && let Some(first) = self.waiting.front_mut()
        {
            let bytes = port.bytes(&first.frame).get_mut(first.at.clone()).unwrap_or_default();
            let is_done = match &mut first.opener {
                None => {
                    tally.hand(sink, first.from, bytes);
                    true
                }
                Some(opener) => {
                    while !tally.is_spent()
                        && let Some(frame) = opener.next(bytes)
                        && let Some(frame) = bytes.get(frame)
                    {
                        tally.hand(sink, first.from, frame);
                    }
                    opener.is_done()
                }
            };
            if is_done && let Some(done) = self.waiting.pop_front() {
                port.release(done.frame);
            }
        }
    }

    /// Gives everything back.
    pub(crate) fn clear(&mut self, port: &mut Port) {
        self.waiting.drain(..).for_each(|datagram| port.release(datagram.frame));
    }

    /// What waits of this peer is nobody's any more. At most as many looks as there is room.
    pub(crate) fn forget(&mut self, peer: PeerIndex) {
        for datagram in self.waiting.iter_mut().filter(|datagram| datagram.from == Some(peer)) {
            datagram.from = None;
        }
    }
}
