//! What a test holds of the net, and the set-up half of its links.

use crate::clock::SimClock;
use crate::faults::{Faults, PathCounts};
use crate::link::{SimLink, SimPeer};
use crate::state::{NodeIndex, State};
use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{LinkSetup, PeerSetup, SendOutcome};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bounds of a net, and what its directions do unless told otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimConfig {
    /// Largest frame, bytes.
    pub frame_bytes_max: u32,
    /// Most frames under way in the whole net; beyond that `send` says `Busy`. Memory
    /// is this times `frame_bytes_max`.
    pub frames_max: u32,
    /// Most peers of one link. A runtime has at most `PEERS_MAX`; state machines that are
    /// simulated without a runtime may have more.
    pub peers_max: usize,
    /// What a direction does until [`SimNet::set_faults`] says otherwise.
    pub faults: Faults,
}

impl Default for SimConfig {
    fn default() -> Self {
        SimConfig { frame_bytes_max: 1472, frames_max: 1024, peers_max: PEERS_MAX, faults: Faults::NONE }
    }
}

/// Why a link does not open.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SimError {
    /// A link is open at that address.
    #[error("{address}: a link is open there")]
    InUse {
        /// The address.
        address: SocketAddr,
    },
    /// More peers than the net lets a link have.
    #[error("{given} peers; at most {most} are possible")]
    TooManyPeers {
        /// How many were given.
        given: usize,
        /// How many are possible.
        most: usize,
    },
}

/// What net and links share. A lock, because a link moves to its datapath's thread;
/// in a simulation one thread drives all, and nobody waits.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    state: Arc<Mutex<State>>,
    pub(crate) clock: SimClock,
    pub(crate) frame_bytes_max: u32,
    peers_max: usize,
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between calls; a test that panicked elsewhere did not break it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A simulated network. Copies are handles of the same net.
#[derive(Clone, Debug)]
pub struct SimNet {
    shared: Shared,
}

impl SimNet {
    /// A net without nodes. Two nets of one seed and one history are alike.
    #[must_use]
    pub fn new(seed: u64, config: SimConfig) -> Self {
        let state = State::new(seed, config.faults, config.frames_max as usize, config.frame_bytes_max as usize);
        let state = Arc::new(Mutex::new(state));
        let SimConfig { frame_bytes_max, peers_max, .. } = config;
        SimNet { shared: Shared { state, clock: SimClock::new(), frame_bytes_max, peers_max } }
    }

    /// The set-up half of a link at `address`.
    #[must_use]
    pub fn setup(&self, address: SocketAddr) -> SimSetup {
        SimSetup { shared: self.shared.clone(), address, is_member: false }
    }

    /// The net's clock.
    #[must_use]
    pub fn clock(&self) -> SimClock {
        self.shared.clock.clone()
    }

    /// Lets time pass.
    pub fn advance(&self, time: Nanos) {
        self.shared.clock.set_base(self.shared.clock.base() + time);
    }

    /// Lets time pass until `until`; nothing if that has passed.
    pub fn advance_to(&self, until: MonoTime) {
        self.shared.clock.set_base(self.shared.clock.base().max(until));
    }

    /// When the next frame arrives anywhere (in the past, if it was not taken); `None`
    /// when none is under way. In the net's time, not that of a skewed clock.
    #[must_use]
    pub fn next_arrival(&self) -> Option<MonoTime> {
        self.shared.state().next_arrival()
    }

    /// What the direction does from now on.
    pub fn set_faults(&self, from: SocketAddr, to: SocketAddr, faults: Faults) {
        let mut state = self.shared.state();
        let (from, to) = (state.node(from), state.node(to));
        state.set_faults(from, to, faults);
    }

    /// Cuts the direction, or joins it again; its other faults stay.
    pub fn set_partitioned(&self, from: SocketAddr, to: SocketAddr, partitioned: bool) {
        let mut state = self.shared.state();
        let (from, to) = (state.node(from), state.node(to));
        let faults = state.faults(from, to);
        state.set_faults(from, to, Faults { partitioned, ..faults });
    }

    /// Whether the link at `address` refuses every change of its peers from now on, as one
    /// does whose technology is out of something.
    pub fn set_refusing_peers(&self, address: SocketAddr, refuses: bool) {
        let mut state = self.shared.state();
        let node = state.node(address);
        state.set_refusing_peers(node, refuses);
    }

    /// Whether what is sent to the group gets to the link at `address` no more, as behind a
    /// switch that filters it; what is sent to the link alone still does.
    pub fn set_deaf(&self, address: SocketAddr, deaf: bool) {
        let mut state = self.shared.state();
        let node = state.node(address);
        state.set_deaf(node, deaf);
    }

    /// Frames that the link at `address` has sent to the group, each counted once.
    #[must_use]
    pub fn group_frames(&self, address: SocketAddr) -> u64 {
        let mut state = self.shared.state();
        let node = state.node(address);
        state.group_frames(node)
    }

    /// What happened in the direction so far.
    #[must_use]
    pub fn counts(&self, from: SocketAddr, to: SocketAddr) -> PathCounts {
        let mut state = self.shared.state();
        let (from, to) = (state.node(from), state.node(to));
        state.counts(from, to)
    }

    /// Sends arbitrary bytes as if `from` had: what an attacker or a broken host does.
    /// The direction's faults apply. Bytes beyond `frame_bytes_max` are refused.
    pub fn inject(&self, from: SocketAddr, to: SocketAddr, lane: Lane, bytes: &[u8]) -> SendOutcome {
        if bytes.len() > self.shared.frame_bytes_max as usize {
            return SendOutcome::Failed;
        }
        let mut state = self.shared.state();
        let path = (state.node(from), state.node(to));
        state.send(self.shared.clock.base(), path, SimLink::class(lane), bytes, (&[][..]).into())
    }
}

/// The set-up half of a simulated link.
#[derive(Debug)]
pub struct SimSetup {
    shared: Shared,
    address: SocketAddr,
    is_member: bool,
}

impl SimSetup {
    /// The link is a member of the net's group.
    #[must_use]
    pub fn in_group(mut self) -> Self {
        self.is_member = true;
        self
    }
}

impl LinkSetup for SimSetup {
    type Link = SimLink;
    type Error = SimError;
    type Peers = SimPeers;

    fn peers(&self) -> SimPeers {
        let own = self.shared.state().node(self.address);
        SimPeers { shared: self.shared.clone(), own }
    }

    fn open(self, peers: &[Option<SocketAddr>]) -> Result<SimLink, SimError> {
        let most = self.shared.peers_max;
        if peers.len() > most {
            return Err(SimError::TooManyPeers { given: peers.len(), most });
        }
        let nodes = {
            let mut state = self.shared.state();
            let own = state.node(self.address);
            if !state.open(own) {
                return Err(SimError::InUse { address: self.address });
            }
            state.set_member(own, self.is_member);
            let mut places = vec![None; most].into_boxed_slice();
            for (place, address) in places.iter_mut().zip(peers) {
                *place = address.map(|address| state.node(address));
            }
            let peers = places;
            for peer in peers.iter().flatten() {
                state.prepare_path(own, *peer);
            }
            (own, peers)
        };
        let (own, peers) = nodes;
        Ok(SimLink::new(self.shared, own, peers, self.is_member))
    }
}

/// Prepares peers of one node that come later.
#[derive(Clone, Debug)]
pub struct SimPeers {
    shared: Shared,
    own: NodeIndex,
}

impl PeerSetup for SimPeers {
    type Peer = SimPeer;
    type Error = SimError;

    /// Every address can be reached; nobody need be there.
    fn prepare(&self, _peer: PeerIndex, address: SocketAddr) -> Result<SimPeer, SimError> {
        let mut state = self.shared.state();
        let node = state.node(address);
        state.prepare_path(self.own, node);
        Ok(SimPeer(node))
    }
}
