//! The half that moves frames.

use crate::net::Shared;
use crate::state::{NodeIndex, Taken};
use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, SendOutcome, SwapRefused, Ticket};
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
    /// The frame of each class that is on its way to its place.
    open: [Option<Open>; 2],
    /// It is a member of the net's group.
    is_member: bool,
}

#[derive(Debug)]
struct Open {
    taken: Taken,
    peer: PeerIndex,
    ticket: Ticket,
}

impl SimLink {
    pub(crate) fn new(shared: Shared, own: NodeIndex, peers: Box<[Option<NodeIndex>]>, is_member: bool) -> Self {
        SimLink { shared, own, peers, open: [None, None], is_member }
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

/// Frames from this length on may go to places: longer than any head.
const PLACED_BYTES_MIN: usize = 256;
const _: () = assert!(PLACED_BYTES_MIN > insane_link::PLACE_HEAD_BYTES_MAX);
/// A byte that differs from frame to frame: of the header's check.
const MARK_AT: usize = 4;
/// The bits of it that say whether a frame which goes to its place takes two calls: one of 16.
const HELD_MASK: u8 = 0b1_1110;
const HELD_MARK: u8 = 0b1_0010;

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
                // The net is not locked here: a sink may send.
                if let Some(open) = self.open[class].take() {
                    self.finish(sink, open);
                } else {
                    let Some(taken) = self.shared.state().take(now, self.own, class) else { break };
                    self.open[class] = self.hand(sink, taken);
                    if self.open[class].is_some() {
                        break;
                    }
                }
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
        for open in &mut self.open {
            if let Some(open) = open.take_if(|open| open.peer == peer) {
                self.shared.state().put_back(open.taken);
            }
        }
        Ok(())
    }

    fn holds_frames(&self) -> bool {
        self.open.iter().any(Option::is_some)
    }

    /// None: virtual time wakes nobody. A datapath on this net polls.
    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::empty()
    }
}

impl SimLink {
    /// Hands a frame out, or begins to: every other large one goes to its place in two pieces,
    /// now and then the second with the next call, as over a technology that hands over bytes
    /// as they come. Returns what is left to do.
    fn hand<S: FrameSink>(&self, sink: &mut S, taken: Taken) -> Option<Open> {
        let from = self.peer_of(taken.from);
        let frame = &taken.bytes[..taken.len];
        let mark = if frame.len() >= PLACED_BYTES_MIN && S::HEAD_BYTES > 0 { frame[MARK_AT] } else { 0 };
        let place = from.filter(|_| mark & 1 == 1).and_then(|peer| {
            let (head, payload) = frame.split_at(S::HEAD_BYTES);
            Some((peer, sink.place(peer, head, payload.len())?))
        });
        let Some((peer, ticket)) = place else {
            sink.frame(from, frame);
            self.put_back(taken);
            return None;
        };
        let open = Open { taken, peer, ticket };
        open.fill(sink, Half::First);
        if mark & HELD_MASK == HELD_MARK {
            return Some(open);
        }
        self.finish(sink, open);
        None
    }

    fn finish<S: FrameSink>(&self, sink: &mut S, open: Open) {
        if open.fill(sink, Half::Second) {
            let (head, payload) = open.taken.bytes[..open.taken.len].split_at(S::HEAD_BYTES);
            sink.placed(open.peer, head, payload.len(), open.ticket);
        }
        self.put_back(open.taken);
    }

    fn put_back(&self, taken: Taken) {
        self.shared.state().put_back(taken);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    First,
    Second,
}

impl Open {
    /// Fills one half of the place; false if it was taken away.
    fn fill<S: FrameSink>(&self, sink: &mut S, half: Half) -> bool {
        let (head, payload) = self.taken.bytes[..self.taken.len].split_at(S::HEAD_BYTES);
        let Some(memory) = sink.memory(self.peer, head, payload.len(), self.ticket) else { return false };
        let middle = payload.len() / 2;
        let part = if half == Half::First { 0..middle } else { middle..payload.len() };
        memory[part.clone()].copy_from_slice(&payload[part]);
        true
    }
}

impl Drop for SimLink {
    fn drop(&mut self) {
        for open in self.open.iter_mut().filter_map(Option::take) {
            self.shared.state().put_back(open.taken);
        }
        self.shared.state().close(self.own);
    }
}
