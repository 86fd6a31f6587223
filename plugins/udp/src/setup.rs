//! The half that opens sockets and checks what it is given.

use crate::config::{FRAME_BYTES_LIMIT, FRAME_BYTES_LOW, UdpConfig};
use crate::group::{Group, Members};
use crate::launch::{Launcher, NotHonoured};
use crate::link::{PeerAddresses, UdpLink, UdpPeer};
use insane_core::limits::PEERS_MAX;
use insane_core::peers::{PeerTable, Refused};
use insane_core::{Nanos, PeerIndex};
use insane_link::{LinkSetup, PeerSetup};
use insane_sys::interfaces::{LAG_UNKNOWN, completion_lag};
use insane_sys::udp::{SocketOptions, bind};
use insane_sys::{Errno, OsError, host};
use std::net::{SocketAddr, UdpSocket};

/// How often a free pair of ports is looked for.
const PAIR_ATTEMPTS: u32 = 64;

/// Why the link does not open.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UdpError {
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
    /// Port P+1 does not exist.
    #[error("{address}: the link needs the port after this one, too; the last usable port is 65534")]
    LastPort {
        /// The address given.
        address: SocketAddr,
    },
    /// A group's address is none.
    #[error("{address} is no group with a usable port and the one after it")]
    GroupUnusable {
        /// The address given.
        address: SocketAddr,
    },
    /// A group is joined at one interface, which the link's own address says.
    #[error("group {address}: {bind} is not a particular address of the same family")]
    GroupBind {
        /// The group.
        address: SocketAddr,
        /// The address of this host.
        bind: SocketAddr,
    },
    /// A socket does not open.
    #[error("{address}: {source}")]
    Socket {
        /// The address it was for.
        address: SocketAddr,
        /// What failed.
        source: OsError,
    },
    /// Launch times are asked for and not honoured.
    #[error("launch times are not honoured: {0}")]
    Launch(#[from] NotHonoured),
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
    /// A peer's address is none that can be sent to.
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
    /// Two peers share a port: frames could not be told apart.
    #[error("peers {first} and {second} share the address {address}")]
    PeerDuplicate {
        /// The one.
        first: PeerIndex,
        /// The other.
        second: PeerIndex,
        /// What they share.
        address: SocketAddr,
    },
}

/// Open sockets that do not know their peers yet.
#[derive(Debug)]
pub struct UdpSetup {
    config: UdpConfig,
    local: SocketAddr,
    real_time: UdpSocket,
    best_effort: UdpSocket,
    members: Option<Members>,
}

impl UdpSetup {
    /// Checks the configuration, opens both sockets and joins the group.
    ///
    /// # Errors
    /// A value is out of range, or a socket does not open.
    pub fn bind(config: UdpConfig) -> Result<Self, UdpError> {
        if !(FRAME_BYTES_LOW..=FRAME_BYTES_LIMIT).contains(&config.frame_bytes_max) {
            return Err(UdpError::FrameBytes { given: config.frame_bytes_max });
        }
        if config.real_time_dscp > 63 {
            return Err(UdpError::Dscp { given: config.real_time_dscp });
        }
        let (real_time, best_effort) = match config.bind.port() {
            0 => bind_any_pair(&config)?,
            _ => bind_pair(&config, config.bind)?,
        };
        let local = local_addr(&real_time, config.bind)?;
        let members = Members::join(&config, local, [&real_time, &best_effort])?;
        Ok(UdpSetup { config, local, real_time, best_effort, members })
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl LinkSetup for UdpSetup {
    type Link = UdpLink;
    type Error = UdpError;
    type Peers = UdpPeers;

    fn peers(&self) -> UdpPeers {
        UdpPeers { local: self.local }
    }

    fn open(self, peers: &[Option<SocketAddr>]) -> Result<UdpLink, UdpError> {
        if peers.len() > PEERS_MAX {
            return Err(UdpError::TooManyPeers { given: peers.len() });
        }
        let mut tables = Box::new([PeerTable::new(), PeerTable::new()]);
        let mut addresses = vec![None; PEERS_MAX].into_boxed_slice();
        let setup = self.peers();
        for (index, address) in peers.iter().enumerate() {
            let peer = PeerIndex(index as u16);
            let ports = address.map(|address| setup.checked_ports(peer, address)).transpose()?;
            for (table, address) in tables.iter_mut().zip(ports.iter().flatten()) {
                insert(table, *address, peer)?;
            }
            addresses[index] = ports.map(PeerAddresses::new);
        }
        let sockets = [self.real_time, self.best_effort];
        let lone = connect_to_lone_peer(&sockets, &addresses);
        let frame_bytes_max = self.config.frame_bytes_max;
        let launcher = self.config.launch_lead.map(|_| Launcher::open(&self.config, self.local)).transpose()?;
        let group = self.members.map(|members| Group::boxed(members, self.local, frame_bytes_max as usize));
        let lag = completion_lag_of(self.local);
        Ok(UdpLink::new(sockets, tables, addresses, frame_bytes_max, self.local, lone, (launcher, group, lag)))
    }
}

/// For how long the interface of this address may hold what it has sent.
fn completion_lag_of(local: SocketAddr) -> Nanos {
    let known = host::interface_addresses().unwrap_or_default();
    let device = known.into_iter().find(|(_, ip)| *ip == local.ip());
    device.and_then(|(name, _)| completion_lag(&name).ok()).unwrap_or(LAG_UNKNOWN)
}

/// Checks peers that come later.
#[derive(Clone, Copy, Debug)]
pub struct UdpPeers {
    local: SocketAddr,
}

impl PeerSetup for UdpPeers {
    type Peer = UdpPeer;
    type Error = UdpError;

    fn prepare(&self, peer: PeerIndex, address: SocketAddr) -> Result<UdpPeer, UdpError> {
        Ok(UdpPeer(PeerAddresses::new(self.checked_ports(peer, address)?)))
    }
}

impl UdpPeers {
    /// Both ports of a peer.
    fn checked_ports(&self, peer: PeerIndex, address: SocketAddr) -> Result<[SocketAddr; 2], UdpError> {
        if address.is_ipv4() != self.local.is_ipv4() {
            return Err(UdpError::PeerFamily { peer, address, bind: self.local });
        }
        let unusable = UdpError::PeerUnusable { peer, address };
        if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
            return Err(unusable);
        }
        // The flow label is no part of who sent a frame, and incoming addresses bear none.
        let mut address = address;
        if let SocketAddr::V6(v6) = &mut address {
            v6.set_flowinfo(0);
        }
        Ok([address, next_port(address).ok_or(unusable)?])
    }
}

/// Where there is one peer only, the kernel is told, and need not look for the way
/// with each frame (about a tenth of the cost of sending). It then drops frames of
/// strangers itself. Where that is not possible now (the network is still down),
/// frames bear the address as they do with several peers. Returns the peer if
/// the sockets are connected.
pub(crate) fn connect_to_lone_peer(sockets: &[UdpSocket; 2], peers: &[Option<PeerAddresses>]) -> Option<PeerIndex> {
    let mut reachable = (0..).zip(peers).filter_map(|(index, peer)| Some((PeerIndex(index), peer.as_ref()?)));
    let (Some((index, peer)), None) = (reachable.next(), reachable.next()) else { return None };
    let connect = |(socket, address): (&UdpSocket, &SocketAddr)| socket.connect(address).is_ok();
    let connected = sockets.iter().zip(&peer.ports).all(connect);
    connected.then_some(index)
}

fn insert(table: &mut PeerTable, address: SocketAddr, peer: PeerIndex) -> Result<(), UdpError> {
    table.insert(address, peer).map_err(|refused| match refused {
        Refused::Duplicate(first) => UdpError::PeerDuplicate { first, second: peer, address },
        Refused::Full => UdpError::TooManyPeers { given: PEERS_MAX + 1 },
    })
}

fn bind_pair(config: &UdpConfig, address: SocketAddr) -> Result<(UdpSocket, UdpSocket), UdpError> {
    let second = next_port(address).ok_or(UdpError::LastPort { address })?;
    Ok((bind_real_time(config, address)?, bind_best_effort(config, second)?))
}

fn bind_any_pair(config: &UdpConfig) -> Result<(UdpSocket, UdpSocket), UdpError> {
    for _attempt in 0..PAIR_ATTEMPTS {
        // A free port is asked for, and then bound by its number: a socket that was given its
        // port loses it when it is no longer connected to a lone peer.
        let first = local_addr(&bind_best_effort(config, config.bind)?, config.bind)?;
        if next_port(first).is_none() {
            continue;
        }
        match bind_pair(config, first) {
            Ok(pair) => return Ok(pair),
            Err(UdpError::Socket { source: OsError { errno: Errno::EADDRINUSE, .. }, .. }) => {}
            Err(other) => return Err(other),
        }
    }
    Err(UdpError::NoPortPair { address: config.bind })
}

fn bind_real_time(config: &UdpConfig, address: SocketAddr) -> Result<UdpSocket, UdpError> {
    // 6 is the highest priority that needs no right.
    let marks = SocketOptions { dscp: Some(config.real_time_dscp), priority: Some(6), ..options(config) };
    bind(address, &marks).map_err(|source| UdpError::Socket { address, source })
}

fn bind_best_effort(config: &UdpConfig, address: SocketAddr) -> Result<UdpSocket, UdpError> {
    bind(address, &options(config)).map_err(|source| UdpError::Socket { address, source })
}

pub(crate) fn options(config: &UdpConfig) -> SocketOptions {
    SocketOptions {
        receive_buffer_bytes: config.receive_buffer_bytes,
        send_buffer_bytes: config.send_buffer_bytes,
        busy_poll_us: config.busy_poll_us,
        // A frame that does not fit the path is refused, and counted, instead of being
        // cut into pieces of which each can be lost.
        dont_fragment: true,
        ..SocketOptions::default()
    }
}

fn local_addr(socket: &UdpSocket, asked: SocketAddr) -> Result<SocketAddr, UdpError> {
    socket.local_addr().map_err(|error| {
        let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
        UdpError::Socket { address: asked, source: OsError::new("reading the address of a socket", errno) }
    })
}

pub(crate) fn next_port(mut address: SocketAddr) -> Option<SocketAddr> {
    address.set_port(address.port().checked_add(1)?);
    Some(address)
}
