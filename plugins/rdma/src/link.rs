//! The half that moves frames: by the device that there is, or by none.

use crate::core::{Core, Made};
use crate::counts::RdmaCounts;
use crate::device::{Exchange, Running};
use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, MonoTime, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkCounts, SendOutcome, SwapRefused};
use insane_sys::SharedBytes;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// A peer as the link keeps it.
#[derive(Debug)]
pub struct RdmaPeer {
    pub(crate) address: SocketAddr,
    /// Its number in the registry.
    pub(crate) id: u64,
    /// Held as long as the peer may come to be in a link.
    pub(crate) _token: Arc<()>,
    /// What it has on a device, unless that is in use there.
    pub(crate) made: Option<Made>,
}

/// Peers, and the device that their connections are on.
pub struct RdmaLink {
    /// `None`: it is missing, and every frame is refused.
    running: Option<Box<Running>>,
    exchange: Arc<Exchange>,
    /// Its descriptors are others since they were asked for.
    has_new_fds: bool,
    peers: Box<[Option<RdmaPeer>]>,
    local: SocketAddr,
    frame_bytes_max: u32,
    /// Without those of the device in use.
    counts: RdmaCounts,
}

impl RdmaLink {
    pub(crate) fn new(
        running: Option<Box<Running>>,
        exchange: Arc<Exchange>,
        local: SocketAddr,
        frame_bytes_max: u32,
    ) -> Self {
        let peers = (0..PEERS_MAX).map(|_| None).collect();
        let counts = RdmaCounts::default();
        RdmaLink { running, exchange, has_new_fds: false, peers, local, frame_bytes_max, counts }
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether there is a device.
    #[must_use]
    pub fn has_device(&self) -> bool {
        self.running.is_some()
    }

    /// What the link counted so far.
    #[must_use]
    pub fn counts(&self) -> RdmaCounts {
        let of_device = self.running.as_ref().map(|running| running.core.counts());
        self.counts.and(of_device.unwrap_or_default())
    }

    /// Whether both classes of a peer are connected.
    #[must_use]
    pub fn is_connected(&self, peer: PeerIndex) -> bool {
        self.running.as_ref().is_some_and(|running| running.core.is_connected(peer))
    }

    fn core(&mut self) -> Option<&mut Core> {
        self.running.as_deref_mut().map(|running| &mut running.core)
    }

    /// A device was opened: all peers have their connections on it from now on.
    #[cold]
    fn install(&mut self, mut running: Box<Running>) {
        for (at, place) in self.peers.iter_mut().enumerate() {
            let Some(peer) = place else { continue };
            let mut with = fit(&mut running, peer);
            // One that is refused has no connection on this device.
            let _ = running.core.swap_peer(PeerIndex(at as u16), &mut with);
            put_back(peer, with);
        }
        self.running = Some(running);
        self.has_new_fds = true;
    }

    /// The device is gone, or wanted back: what was made on it is freed elsewhere.
    #[cold]
    fn lose(&mut self) {
        let Some(running) = self.running.take() else { return };
        self.counts = self.counts.and(running.core.counts());
        self.counts.devices_lost += 1;
        self.has_new_fds = true;
        self.exchange.give_back(running);
    }

    /// Whether a peer's address is another's.
    fn who_has(&self, address: SocketAddr, but: PeerIndex) -> Option<PeerIndex> {
        let others = self.peers.iter().enumerate().filter(|(at, _)| *at != but.index());
        let has = |peer: &Option<RdmaPeer>| peer.as_ref().is_some_and(|peer| peer.address == address);
        others.filter(|(_, peer)| has(peer)).map(|(at, _)| PeerIndex(at as u16)).next()
    }
}

/// What the peer has on this device, if it has.
fn fit(running: &mut Running, peer: &mut RdmaPeer) -> Option<Made> {
    let generation = running.generation;
    let is_on_it = |made: &Option<Made>| made.as_ref().is_some_and(|made| made.generation == generation);
    if !is_on_it(&peer.made)
        && let Some(spare) = running.spares.iter_mut().find(|spare| spare.id == peer.id && is_on_it(&spare.made))
    {
        std::mem::swap(&mut spare.made, &mut peer.made);
    }
    if is_on_it(&peer.made) { peer.made.take() } else { None }
}

/// What comes back of a peer. Where nothing does, the peer keeps what it has of another device.
fn put_back(peer: &mut RdmaPeer, made: Option<Made>) {
    if made.is_some() {
        debug_assert!(peer.made.is_none(), "it was taken from there");
        peer.made = made;
    }
}

impl Link for RdmaLink {
    type Peer = RdmaPeer;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "rdma",
            frame_bytes_max: self.frame_bytes_max,
            ordered: true,
            // What is under way when a connection breaks is lost.
            lossless: false,
            launch_time: false,
            multicast: false,
        }
    }

    #[inline]
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        match &mut self.running {
            Some(running) => running.core.send(peer, lane, head, payload),
            None => {
                self.counts.absent += 1;
                SendOutcome::Failed
            }
        }
    }

    #[inline]
    fn flush(&mut self) {
        if let Some(core) = self.core() {
            core.flush();
        }
    }

    /// Costs no system call while nothing comes.
    #[inline]
    fn receive<S: FrameSink>(&mut self, budget: u32, thorough: bool, sink: &mut S) -> u32 {
        self.core().map_or(0, |core| core.receive(budget, thorough, sink))
    }

    /// The connections that leave are ended by whoever frees them.
    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<RdmaPeer>) -> Result<(), SwapRefused> {
        if peer.index() >= self.peers.len() {
            return Err(SwapRefused::NoPlace);
        }
        if let Some(by) = with.as_ref().and_then(|new| self.who_has(new.address, peer)) {
            return Err(SwapRefused::AddressTaken(by));
        }
        if let Some(running) = self.running.as_deref_mut() {
            let mut made = with.as_mut().and_then(|new| fit(running, new));
            let swapped = running.core.swap_peer(peer, &mut made);
            let whose = if swapped.is_ok() { &mut self.peers[peer.index()] } else { &mut *with };
            if let Some(whose) = whose {
                put_back(whose, made);
            }
            swapped?;
        }
        std::mem::swap(&mut self.peers[peer.index()], with);
        Ok(())
    }

    /// What came, and what the door says.
    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.running.iter().flat_map(|running| running.core.readable_fds())
    }

    fn take_new_fds(&mut self) -> bool {
        std::mem::take(&mut self.has_new_fds)
    }

    fn link_counts(&self) -> LinkCounts {
        self.counts().named()
    }

    #[inline]
    fn holds_frames(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.core.holds_frames())
    }

    fn tend(&mut self, now: MonoTime) -> bool {
        if self.running.is_none()
            && let Some(running) = self.exchange.take()
        {
            self.install(running);
        }
        if self.exchange.is_recalled() {
            self.lose();
        }
        self.core().is_some_and(|core| core.tend(now))
    }
}

impl std::fmt::Debug for RdmaLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RdmaLink")
            .field("local", &self.local)
            .field("has_device", &self.has_device())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}
