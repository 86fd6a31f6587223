//! The half that opens listeners and checks what it is given.

use crate::class::Class;
use crate::config::{FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, TcpConfig, USER_TIMEOUT_MS_LIMIT, USER_TIMEOUT_MS_LOW};
use crate::connection::{Connection, Role};
use crate::door::{BACKLOG, Door};
use crate::hello::Hello;
use crate::link::{TcpLink, TcpPeer};
use crate::side::Side;
use insane_core::PeerIndex;
use insane_core::limits::PEERS_MAX;
use insane_link::{LinkSetup, PeerSetup};
use insane_sys::event::Epoll;
use insane_sys::tcp::{StreamOptions, listen};
use insane_sys::{Errno, OsError};
use std::net::{SocketAddr, TcpListener};

/// How often a free pair of ports is looked for.
const PAIR_ATTEMPTS: u32 = 64;

/// Why the link does not open.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TcpError {
    /// `frame_bytes_max` is out of range.
    #[error("frame_bytes_max is {given}; it must be from {FRAME_BYTES_LOW} to {FRAME_BYTES_LIMIT}")]
    FrameBytes {
        /// The value given.
        given: u32,
    },
    /// The code point is out of range.
    #[error("real_time_dscp is {given}; it must be from 0 to 63")]
    Dscp {
        /// The value given.
        given: u8,
    },
    /// `user_timeout_ms` is out of range.
    #[error("user_timeout_ms is {given}; it must be from {USER_TIMEOUT_MS_LOW} to {USER_TIMEOUT_MS_LIMIT}")]
    UserTimeout {
        /// The value given.
        given: u32,
    },
    /// The own address is none that peers could know this host by.
    #[error("{address} is no particular address; which side connects depends on the one that peers have for this host")]
    Unspecified {
        /// The address given.
        address: SocketAddr,
    },
    /// Port P+1 does not exist.
    #[error("{address}: the link needs the port after this one, too; the last usable port is 65534")]
    LastPort {
        /// The address given.
        address: SocketAddr,
    },
    /// A socket does not open.
    #[error("{address}: {source}")]
    Socket {
        /// The address it was for.
        address: SocketAddr,
        /// What failed.
        source: OsError,
    },
    /// No two neighbouring ports were free.
    #[error("{address}: found no two free neighbouring ports in {PAIR_ATTEMPTS} attempts")]
    NoPortPair {
        /// The address given.
        address: SocketAddr,
    },
    /// More peers than a runtime has.
    #[error("{given} peers; at most {PEERS_MAX} are possible")]
    TooManyPeers {
        /// How many were given.
        given: usize,
    },
    /// A peer's address is none that can be connected to.
    #[error("peer {peer}: {address} has no usable address or port")]
    PeerUnusable {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
    },
    /// IPv4 cannot reach IPv6, nor the other way round.
    #[error("peer {peer}: {address} and this host's {bind} are not both IPv4 or both IPv6")]
    PeerFamily {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
        /// The address of this host.
        bind: SocketAddr,
    },
    /// A peer has this host's own address.
    #[error("peer {peer}: {address} is this host's own address")]
    PeerIsSelf {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
    },
    /// Two peers share an address: they could not be told apart.
    #[error("peers {first} and {second} share the address {address}")]
    PeerDuplicate {
        /// The one.
        first: PeerIndex,
        /// The other.
        second: PeerIndex,
        /// What they share.
        address: SocketAddr,
    },
    /// The set of connections to be waited for cannot be had.
    #[error(transparent)]
    Os(#[from] OsError),
}

/// Listeners that do not know their peers yet. Peers that connect meanwhile wait in the
/// kernel.
#[derive(Debug)]
pub struct TcpSetup {
    config: TcpConfig,
    local: SocketAddr,
    listeners: [TcpListener; 2],
}

impl TcpSetup {
    /// Checks the configuration and opens both listeners.
    ///
    /// # Errors
    /// A value is out of range, or a socket does not open.
    pub fn bind(config: TcpConfig) -> Result<Self, TcpError> {
        if !(FRAME_BYTES_LOW..=FRAME_BYTES_LIMIT).contains(&config.frame_bytes_max) {
            return Err(TcpError::FrameBytes { given: config.frame_bytes_max });
        }
        if config.real_time_dscp > 63 {
            return Err(TcpError::Dscp { given: config.real_time_dscp });
        }
        if !(USER_TIMEOUT_MS_LOW..=USER_TIMEOUT_MS_LIMIT).contains(&config.user_timeout_ms) {
            return Err(TcpError::UserTimeout { given: config.user_timeout_ms });
        }
        if config.bind.ip().is_unspecified() {
            return Err(TcpError::Unspecified { address: config.bind });
        }
        let listeners = match config.bind.port() {
            0 => listen_on_any_pair(&config)?,
            _ => listen_on_pair(&config, config.bind)?,
        };
        let local = local_addr(&listeners[0], config.bind)?;
        Ok(TcpSetup { config, local, listeners })
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl LinkSetup for TcpSetup {
    type Link = TcpLink;
    type Error = TcpError;
    type Peers = TcpPeers;

    fn peers(&self) -> TcpPeers {
        TcpPeers { local: self.local, frame_bytes_max: self.config.frame_bytes_max }
    }

    fn open(self, peers: &[Option<SocketAddr>]) -> Result<TcpLink, TcpError> {
        if peers.len() > PEERS_MAX {
            return Err(TcpError::TooManyPeers { given: peers.len() });
        }
        let setup = self.peers();
        for (index, address) in peers.iter().enumerate() {
            let Some(address) = *address else { continue };
            let peer = PeerIndex(index as u16);
            setup.check(peer, address)?;
            if let Some(first) = peers[..index].iter().position(|other| *other == Some(address)) {
                return Err(TcpError::PeerDuplicate { first: PeerIndex(first as u16), second: peer, address });
            }
        }
        let epoll = Epoll::new()?;
        let [real_time, best_effort] = self.listeners;
        let side = |class, listener| {
            let own = setup.hello(class);
            let connect = |at: usize| peers.get(at).copied().flatten().map(|to| connection(&own, self.local, to));
            let connections = (0..PEERS_MAX).map(connect).collect();
            let mut source = self.local;
            source.set_port(0);
            Side::new(own, source, options(&self.config, class), Door::new(listener), connections)
        };
        let sides = [side(Class::RealTime, real_time), side(Class::BestEffort, best_effort)];
        Ok(TcpLink::new(sides, epoll, self.local, self.config.frame_bytes_max))
    }
}

/// Checks peers that come later, and takes the memory of their connections.
#[derive(Clone, Copy, Debug)]
pub struct TcpPeers {
    local: SocketAddr,
    frame_bytes_max: u32,
}

impl PeerSetup for TcpPeers {
    type Peer = TcpPeer;
    type Error = TcpError;

    fn prepare(&self, peer: PeerIndex, address: SocketAddr) -> Result<TcpPeer, TcpError> {
        self.check(peer, address)?;
        Ok(TcpPeer(Class::BOTH.map(|class| connection(&self.hello(class), self.local, address))))
    }
}

impl TcpPeers {
    const fn hello(&self, class: Class) -> Hello {
        Hello { class, port: self.local.port(), frame_bytes_max: self.frame_bytes_max }
    }

    fn check(&self, peer: PeerIndex, address: SocketAddr) -> Result<(), TcpError> {
        if address.is_ipv4() != self.local.is_ipv4() {
            return Err(TcpError::PeerFamily { peer, address, bind: self.local });
        }
        let is_usable = !address.ip().is_unspecified() && !address.ip().is_multicast() && address.port() != 0;
        if !is_usable || next_port(address).is_none() {
            return Err(TcpError::PeerUnusable { peer, address });
        }
        if place(address) == place(self.local) {
            return Err(TcpError::PeerIsSelf { peer, address });
        }
        Ok(())
    }
}

/// What decides who connects.
fn place(address: SocketAddr) -> (std::net::IpAddr, u16) {
    (address.ip(), address.port())
}

/// The connection of one class to a peer at `first`, its first port.
fn connection(own: &Hello, local: SocketAddr, first: SocketAddr) -> Connection {
    let role = if place(local) < place(first) { Role::Connects } else { Role::Accepts };
    let mut address = first;
    // Checked to be below 65535.
    address.set_port(first.port() + own.class as u16);
    let seed = u64::from(own.port) << 32 | u64::from(address.port()) << 8 | own.class as u64;
    Connection::new(address, first.port(), role, own.frame_bytes_max as usize, seed)
}

fn listen_on_pair(config: &TcpConfig, first: SocketAddr) -> Result<[TcpListener; 2], TcpError> {
    let second = next_port(first).ok_or(TcpError::LastPort { address: first })?;
    Ok([listener(config, Class::RealTime, first)?, listener(config, Class::BestEffort, second)?])
}

fn listen_on_any_pair(config: &TcpConfig) -> Result<[TcpListener; 2], TcpError> {
    for _ in 0..PAIR_ATTEMPTS {
        let first = listener(config, Class::RealTime, config.bind)?;
        let Some(second) = next_port(local_addr(&first, config.bind)?) else { continue };
        match listener(config, Class::BestEffort, second) {
            Ok(second) => return Ok([first, second]),
            Err(TcpError::Socket { source: OsError { errno: Errno::EADDRINUSE, .. }, .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Err(TcpError::NoPortPair { address: config.bind })
}

fn listener(config: &TcpConfig, class: Class, address: SocketAddr) -> Result<TcpListener, TcpError> {
    listen(address, BACKLOG, &options(config, class)).map_err(|source| TcpError::Socket { address, source })
}

fn options(config: &TcpConfig, class: Class) -> StreamOptions {
    let is_real_time = class == Class::RealTime;
    StreamOptions {
        receive_buffer_bytes: config.receive_buffer_bytes,
        send_buffer_bytes: config.send_buffer_bytes,
        dscp: is_real_time.then_some(config.real_time_dscp),
        // 6 is the highest priority that needs no right.
        priority: is_real_time.then_some(6),
        busy_poll_us: config.busy_poll_us,
        user_timeout_ms: Some(config.user_timeout_ms),
    }
}

fn local_addr(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, TcpError> {
    listener.local_addr().map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        TcpError::Socket { address: asked, source: OsError::new("reading the address of a socket", errno) }
    })
}

fn next_port(mut address: SocketAddr) -> Option<SocketAddr> {
    address.set_port(address.port().checked_add(1)?);
    Some(address)
}
