//! A plugin to read and to begin with: kernel datagrams, by the standard library alone.
//!
//! It keeps every rule of `insane-link` (docs/PLUGINS.md lists them) in as few lines as
//! possible, one system call a frame; `insane-udp` is what the runtime uses. A test holds it
//! below 300 lines.
//!
//! Each class of lanes has a socket: real-time lanes port P, all others P+1. A frame is one
//! datagram.
//!
//! Bounds: a turn makes one call for each frame of its budget and one more for each socket;
//! memory is two buffers of a frame and a table of [`PEERS_MAX`] addresses.
#![forbid(unsafe_code)]

use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkCounts, LinkSetup, PeerSetup, SendOutcome, SwapRefused};
use insane_sys::SharedBytes;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// Largest frame, bytes: what an Ethernet packet holds over IPv6.
pub const FRAME_BYTES_MAX: usize = 1452;

/// The sockets, by class.
const CLASSES: usize = 2;

fn class_of(lane: Lane) -> usize {
    if lane.is_real_time() { 0 } else { 1 }
}

/// Why the link does not open.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// The kernel refuses an address.
    #[error("{address}: {source}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A peer that datagrams from the link's address cannot reach.
    #[error("peer {peer}: {address} cannot be reached from {local}: another family, or no pair of ports")]
    Unusable {
        /// Its number.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
        /// The link's.
        local: SocketAddr,
    },
    /// The link refuses a peer.
    #[error("peer {peer}: {source}")]
    Refused {
        /// Its number.
        peer: PeerIndex,
        /// Why.
        source: SwapRefused,
    },
}

/// The half that opens the link: on the control plane, where it may allocate and block.
#[derive(Debug)]
pub struct ExampleSetup {
    sockets: [UdpSocket; CLASSES],
    local: SocketAddr,
}

impl ExampleSetup {
    /// Binds both sockets.
    ///
    /// # Errors
    /// A port is in use, there is no port after it, or the address is not this host's.
    pub fn bind(local: SocketAddr) -> Result<Self, ExampleError> {
        let open = |address: SocketAddr| {
            let socket = UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let open = |address| open(address).map_err(|source| ExampleError::Bind { address, source });
        let next =
            second(local).ok_or(ExampleError::Bind { address: local, source: ErrorKind::InvalidInput.into() })?;
        Ok(ExampleSetup { sockets: [open(local)?, open(next)?], local })
    }
}

/// Where the best-effort class of an address is.
fn second(first: SocketAddr) -> Option<SocketAddr> {
    match first.port() {
        0 => None,
        port => Some(SocketAddr::new(first.ip(), port.checked_add(1)?)),
    }
}

impl LinkSetup for ExampleSetup {
    type Link = ExampleLink;
    type Error = ExampleError;
    type Peers = ExamplePeers;

    fn peers(&self) -> ExamplePeers {
        ExamplePeers { local: self.local }
    }

    fn open(self, peers: &[Option<SocketAddr>]) -> Result<ExampleLink, ExampleError> {
        let setup = self.peers();
        // All memory that the link will ever need.
        let mut link = ExampleLink {
            sockets: self.sockets,
            peers: Box::new([None; PEERS_MAX]),
            outgoing: Box::new([0; FRAME_BYTES_MAX]),
            incoming: Box::new([0; FRAME_BYTES_MAX + 1]),
            counts: Counts::default(),
        };
        for (index, address) in peers.iter().enumerate() {
            let Some(address) = *address else { continue };
            let peer = PeerIndex(u16::try_from(index).unwrap_or(u16::MAX));
            let mut with = Some(setup.prepare(peer, address)?);
            link.swap_peer(peer, &mut with).map_err(|source| ExampleError::Refused { peer, source })?;
        }
        Ok(link)
    }
}

/// The half that prepares peers that come later.
#[derive(Debug)]
pub struct ExamplePeers {
    local: SocketAddr,
}

impl PeerSetup for ExamplePeers {
    type Peer = ExamplePeer;
    type Error = ExampleError;

    fn prepare(&self, peer: PeerIndex, address: SocketAddr) -> Result<ExamplePeer, ExampleError> {
        let local = self.local;
        let is_of_family = address.is_ipv4() == local.is_ipv4();
        let next = second(address).filter(|_| is_of_family);
        let next = next.ok_or(ExampleError::Unusable { peer, address, local })?;
        Ok(ExamplePeer { addresses: [address, next] })
    }
}

/// A peer as the link keeps it: where each class of it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExamplePeer {
    addresses: [SocketAddr; CLASSES],
}

/// What no outcome tells.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    truncated: u64,
    refused: u64,
}

/// The half that moves frames: it neither allocates, blocks nor logs.
#[derive(Debug)]
pub struct ExampleLink {
    sockets: [UdpSocket; CLASSES],
    peers: Box<[Option<ExamplePeer>; PEERS_MAX]>,
    /// A frame is put together here, and taken apart there. One byte more tells a datagram
    /// that is too long.
    outgoing: Box<[u8; FRAME_BYTES_MAX]>,
    incoming: Box<[u8; FRAME_BYTES_MAX + 1]>,
    counts: Counts,
}

impl ExampleLink {
    /// The peer whose class is at this address. At most [`PEERS_MAX`] looks.
    fn find(&self, class: usize, from: SocketAddr) -> Option<PeerIndex> {
        let is_it = |peer: &Option<ExamplePeer>| peer.is_some_and(|peer| peer.addresses[class] == from);
        self.peers.iter().position(is_it).map(|at| PeerIndex(at as u16))
    }

    /// Hands out up to `budget` frames of one class.
    fn take<S: FrameSink>(&mut self, class: usize, budget: u32, sink: &mut S) -> u32 {
        let mut handed = 0;
        // What is thrown away counts as well, else a flood of it would hold up the turn.
        for _ in 0..budget {
            match self.sockets[class].recv_from(&mut self.incoming[..]) {
                Ok((len, _)) if len > FRAME_BYTES_MAX => self.counts.truncated += 1,
                Ok((len, from)) => {
                    let from = self.find(class, from);
                    sink.frame(from, &self.incoming[..len]);
                    handed += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Of a frame that was sent before: nobody has that port.
                Err(_) => self.counts.refused += 1,
            }
        }
        handed
    }
}

impl Link for ExampleLink {
    type Peer = ExamplePeer;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "example",
            frame_bytes_max: FRAME_BYTES_MAX as u32,
            ordered: false,
            lossless: false,
            launch_time: false,
            multicast: false,
        }
    }

    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let Some(Some(to)) = self.peers.get(peer.index()) else { return SendOutcome::Failed };
        let len = head.len() + payload.len();
        let Some(frame) = self.outgoing.get_mut(..len) else { return SendOutcome::Failed };
        frame[..head.len()].copy_from_slice(head);
        // The one time that a client's memory is read.
        payload.copy_to(&mut frame[head.len()..]);
        let class = class_of(lane);
        // The kernel tells an error of an earlier frame instead of sending this one, once.
        for _ in 0..2 {
            match self.sockets[class].send_to(frame, to.addresses[class]) {
                Ok(_) => return SendOutcome::Sent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return SendOutcome::Busy,
                Err(_) => self.counts.refused += 1,
            }
        }
        SendOutcome::Failed
    }

    fn flush(&mut self) {
        // Nothing is held back.
    }

    fn receive<S: FrameSink>(&mut self, budget: u32, _thorough: bool, sink: &mut S) -> u32 {
        let mut handed = 0;
        // Real-time lanes first. Every call looks everywhere.
        for class in 0..CLASSES {
            handed += self.take(class, budget - handed, sink);
        }
        handed
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }

    fn link_counts(&self) -> LinkCounts {
        let names = &["datagrams_truncated", "calls_refused"];
        LinkCounts::new(names, [self.counts.truncated, self.counts.refused])
    }

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<ExamplePeer>) -> Result<(), SwapRefused> {
        let own = self.peers.get(peer.index()).ok_or(SwapRefused::NoPlace)?;
        let is_moved = with.is_some_and(|new| Some(new) != *own);
        if let (true, Some(new)) = (is_moved, with.as_ref())
            && let Some(other) = self.find(0, new.addresses[0])
        {
            return Err(SwapRefused::AddressTaken(other));
        }
        // Who sent a datagram is looked up when it is handed out: none is handed out in the
        // name of one that left.
        std::mem::swap(&mut self.peers[peer.index()], with);
        Ok(())
    }
}
