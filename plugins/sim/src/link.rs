//! The half that moves frames.

use crate::net::Shared;
use crate::state::NodeIndex;
use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, SendOutcome, SwapRefused};
use insane_sys::SharedBytes;
use std::os::fd::BorrowedFd;

/// A node that is a peer of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimPeer(pub(crate) NodeIndex);

/// One node's end of the net. Dropping it closes the node: frames on their way to
/// it are lost, and its address can be opened again.
#[derive(Debug)]
pub struct SimLink {
    shared: Shared,
    own: NodeIndex,
    peers: Box<[Option<NodeIndex>]>,
    /// It is a member of the net's group.
    is_member: bool,
}

impl SimLink {
    pub(crate) fn new(shared: Shared, own: NodeIndex, peers: Box<[Option<NodeIndex>]>, is_member: bool) -> Self {
        SimLink { shared, own, peers, is_member }
    }

    /// 0 for real-time lanes, 1 for all others.
    pub(crate) fn class(lane: Lane) -> usize {
        usize::from(!lane.is_real_time())
    }

    fn peer_of(&self, node: NodeIndex) -> Option<PeerIndex> {
        let index = self.peers.iter().position(|peer| *peer == Some(node))?;
        u16::try_from(index).ok().map(PeerIndex)
    }
}

impl Link for SimLink {
    type Peer = SimPeer;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "sim",
            frame_bytes_max: self.shared.frame_bytes_max,
            ordered: false,
            lossless: false,
            launch_time: false,
            multicast: self.is_member,
        }
    }

    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let Some(Some(to)) = self.peers.get(peer.index()) else { return SendOutcome::Failed };
        if head.len() + payload.len() > self.shared.frame_bytes_max as usize {
            return SendOutcome::Failed;
        }
        let now = self.shared.clock.base();
        self.shared.state().send(now, (self.own, *to), Self::class(lane), head, payload)
    }

    /// The net copies the frame for each member, by the direction to it with its faults. It
    /// is `Busy` only where nobody's copy was taken.
    fn send_group(&mut self, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        if !self.is_member || head.len() + payload.len() > self.shared.frame_bytes_max as usize {
            return SendOutcome::Failed;
        }
        let now = self.shared.clock.base();
        self.shared.state().send_group(now, self.own, Self::class(lane), head, payload)
    }

    /// Nothing: `send` holds nothing back.
    fn flush(&mut self) {}

    /// Every call is thorough.
    fn receive<S: FrameSink>(&mut self, budget: u32, _thorough: bool, sink: &mut S) -> u32 {
        let now = self.shared.clock.base();
        let mut handed = 0;
        for class in 0..2 {
            while handed < budget {
                let Some(taken) = self.shared.state().take(now, self.own, class) else { break };
                // The net is not locked here: a sink may send.
                sink.frame(self.peer_of(taken.from), &taken.bytes[..taken.len]);
                self.shared.state().put_back(taken);
                handed += 1;
            }
        }
        handed
    }

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<SimPeer>) -> Result<(), SwapRefused> {
        if self.shared.state().refuses_peers(self.own) {
            return Err(SwapRefused::Technology(0));
        }
        let new = with.map(|peer| peer.0);
        if let Some(other) = new.and_then(|node| self.peer_of(node)).filter(|other| *other != peer) {
            return Err(SwapRefused::AddressTaken(other));
        }
        let place = self.peers.get_mut(peer.index()).ok_or(SwapRefused::NoPlace)?;
        *with = std::mem::replace(place, new).map(SimPeer);
        Ok(())
    }

    /// None: virtual time wakes nobody. A datapath on this net polls.
    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::empty()
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        self.shared.state().close(self.own);
    }
}
