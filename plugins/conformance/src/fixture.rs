//! What a plugin tells the suite.

use insane_core::PeerIndex;
use insane_link::Link;

/// Makes links, and passes the time.
pub trait Fixture {
    /// The links under test.
    type Link: Link + Send;

    /// `count` links (2 to 8) on one network that knows no other traffic, connected
    /// where the technology connects. `PeerIndex(j)` of link `i` is link `j`; a link's
    /// own index is a peer it does not reach.
    fn open(&mut self, count: usize) -> Vec<Self::Link>;

    /// As [`open`](Self::open), links that are members of one group, which nobody else is in.
    /// `None`: the technology has no groups, and links that are opened refuse to send to one.
    fn open_group(&mut self, count: usize) -> Option<Vec<Self::Link>> {
        let _ = count;
        None
    }

    /// Prepares link `to`, of those opened last, as the peer of number `peer` of link `of`.
    ///
    /// # Panics
    /// It cannot be prepared.
    fn prepare(&mut self, of: usize, peer: PeerIndex, to: usize) -> <Self::Link as Link>::Peer;

    /// Gives frames that were sent time to arrive. Called again and again while a case
    /// waits for frames, so it may be short.
    fn settle(&mut self);

    /// Sends `bytes` to link `to`, from an address that is nobody's peer.
    fn send_as_stranger(&mut self, to: usize, bytes: &[u8]);

    /// Whether a link with several peers hands out frames of strangers. False where a
    /// handshake tells who is a peer: strangers then get no frame through.
    fn hands_out_strangers(&self) -> bool {
        true
    }
}
