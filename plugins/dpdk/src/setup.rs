//! The half that opens the device and checks what it is given.

use crate::config::{DpdkConfig, FRAME_BYTES_LIMIT, FRAME_BYTES_LOW};
use crate::device::{Device, Exchange};
use crate::keeper::DpdkKeeper;
use crate::link::{BEST_EFFORT_WAITING, DpdkLink, DpdkPeer, OUTBOX, Parts, REAL_TIME_WAITING};
use dpdk_sys::{BURST, Eal, EalError, Port, PortError, PortInfo, PortOptions};
use insane_core::PeerIndex;
use insane_core::limits::PEERS_MAX;
use insane_link::{Link, LinkSetup, PeerSetup, SwapRefused};
use insane_netstack::{Checksums, Host, HostError, IPV4_BYTES, IPV6_BYTES, Mac, SIDES, Stack, UDP_BYTES};
use insane_sys::OsError;
use insane_sys::clock::mono_now;
use insane_xdp_sys::interface::Interface;
use std::net::SocketAddr;
use std::sync::Arc;

/// Wanted length of the device's rings, frames: over 10 ms of an interface that brings 100,000
/// a second.
const RING_FRAMES: u32 = 1024;
/// Both of the device's rings full, all that waits here in both directions, and what the port
/// has between its calls.
const POOL_FRAMES: u32 =
    (2 * RING_FRAMES as usize + REAL_TIME_WAITING + BEST_EFFORT_WAITING + SIDES * OUTBOX + 3 * BURST) as u32;
/// Packet that every device carries, bytes.
const PACKET_BYTES: u32 = 1500;
/// Around the data of a frame: DPDK's own head, the mbuf, the head of the pool, and lines that
/// are left free so that frames do not share a channel of memory. At most.
const MBUF_BYTES: u64 = 128 + 128 + 64 + 128;
/// Least data of a frame, bytes.
const MBUF_DATA_BYTES: u64 = 2048;

/// Why the link does not open.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DpdkError {
    /// DPDK is not to be had.
    #[error(transparent)]
    Eal(#[from] EalError),
    /// The interface that the device is to use is missing, or not Ethernet.
    #[error("device {device}: interface {interface}: {source}")]
    Interface {
        /// The device.
        device: String,
        /// The interface's name.
        interface: String,
        /// What failed.
        source: OsError,
    },
    /// The interface is down.
    #[error("device {device}: interface {interface} is down (ip link set {interface} up)")]
    Down {
        /// The device.
        device: String,
        /// The interface's name.
        interface: String,
    },
    /// It is not the interface that was opened: it was made again, or has another hardware
    /// address.
    #[error(
        "device {device}: interface {interface} is another one now, or has another hardware address; it is opened anew"
    )]
    Changed {
        /// The device.
        device: String,
        /// The interface's name.
        interface: String,
    },
    /// The device is open, and does nothing.
    #[error("device {device} takes no frames: it has no carrier, or throws them away")]
    Failing {
        /// The device.
        device: String,
    },
    /// DPDK does not open the device.
    #[error("device {device}: {source}")]
    Device {
        /// The device.
        device: String,
        /// What failed.
        source: PortError,
    },
    /// NICs are kept from DPDK.
    #[error("device {device} is a NIC, and DPDK is started with --no-pci")]
    NoPci {
        /// The device.
        device: String,
    },
    /// The address, prefix or gateway cannot be.
    #[error("device {device}, {bind}: {source}{}", hint(source))]
    Address {
        /// The device.
        device: String,
        /// The address given.
        bind: SocketAddr,
        /// What is wrong.
        source: HostError,
    },
    /// Neither port can be chosen: no kernel knows of them.
    #[error("{bind}: the link needs a port from 1 to 65534, and the one after it")]
    Port {
        /// The address given.
        bind: SocketAddr,
    },
    /// `frame_bytes_max` is out of range.
    #[error("frame_bytes_max is {given}; on device {device} it must be from {FRAME_BYTES_LOW} to {most}")]
    FrameBytes {
        /// The value given.
        given: u32,
        /// The device.
        device: String,
        /// What it allows.
        most: u32,
    },
    /// The code point is out of range.
    #[error("real_time_dscp is {given}; it must be from 0 to 63")]
    Dscp {
        /// The value given.
        given: u8,
    },
    /// More peers than a runtime has.
    #[error("{given} peers; at most {PEERS_MAX} are possible")]
    TooManyPeers {
        /// How many were given.
        given: usize,
    },
    /// A peer that cannot be reached from the link's address.
    #[error(
        "peer {peer}: {address} cannot be reached from {bind}: another family, no port pair, no host, or no gateway"
    )]
    PeerUnusable {
        /// The peer.
        peer: PeerIndex,
        /// Its address.
        address: SocketAddr,
        /// The address of this host.
        bind: SocketAddr,
    },
    /// Two peers have one address: frames could not be told apart.
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

impl DpdkError {
    /// Nothing but another process can change it: DPDK starts once, with its arguments, and
    /// keeps what it has of a memif.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            DpdkError::Eal(why) => !matches!(why, EalError::Shim(_)),
            DpdkError::NoPci { .. } => true,
            DpdkError::Device { device, .. } => device.starts_with("net_memif"),
            _ => false,
        }
    }

    /// What is open is not what there is now, so that it must be closed.
    pub(crate) fn is_of_another(&self) -> bool {
        !matches!(self, DpdkError::Down { .. } | DpdkError::Failing { .. })
    }
}

/// What to do about it.
fn hint(source: &HostError) -> &'static str {
    if *source == HostError::Mac { "; `mac` gives the link one" } else { "" }
}

/// What a link has for a hardware address while its device is missing: nothing is sent from
/// there.
const NO_MAC: Mac = Mac([2, 0, 0, 0, 0, 0]);

/// A link that does not know its peers yet.
#[derive(Debug)]
pub struct DpdkSetup {
    config: DpdkConfig,
    host: Host,
    frame_bytes_max: u32,
    exchange: Arc<Exchange>,
    /// The device as it was opened, and the interface below it; or why it is missing.
    opened: Result<(PortInfo, Option<Interface>), DpdkError>,
}

impl DpdkSetup {
    /// Checks the configuration, starts DPDK if it does not run, and opens the device, in the
    /// network namespace of the calling thread.
    ///
    /// # Errors
    /// A value is out of range, or DPDK or the device are not to be had, with the reason.
    pub fn bind(config: DpdkConfig) -> Result<Self, DpdkError> {
        check(&config)?;
        let opened = open_device(&config)?;
        Ok(Self::with(config, opened))
    }

    /// As [`bind`](Self::bind), but DPDK or a device that are not to be had are no error: the
    /// link opens without and refuses every frame ([`missing`](Self::missing) says why), and
    /// its [`keeper`](Self::keeper) tries again.
    ///
    /// # Errors
    /// A value is out of range.
    pub fn bind_or_miss(config: DpdkConfig) -> Result<Self, DpdkError> {
        check(&config)?;
        match open_device(&config) {
            Ok(opened) => Ok(Self::with(config, opened)),
            Err(why) => {
                let frame_bytes_max = frame_bytes(&config, u32::from(u16::MAX))?;
                let host = host(&config, config.mac.map_or(NO_MAC, Mac), Checksums::Verify);
                let exchange = Arc::new(Exchange::default());
                Ok(DpdkSetup { config, host, frame_bytes_max, exchange, opened: Err(why) })
            }
        }
    }

    fn with(config: DpdkConfig, opened: Opened) -> Self {
        let Opened { device, info, interface, frame_bytes_max } = opened;
        let host = host(&config, device.mac, device.checksums);
        let exchange = Arc::new(Exchange::default());
        exchange.give(device);
        DpdkSetup { config, host, frame_bytes_max, exchange, opened: Ok((info, interface)) }
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.config.bind
    }

    /// What the device is; `None`: it is missing.
    #[must_use]
    pub fn device(&self) -> Option<&PortInfo> {
        self.opened.as_ref().ok().map(|(info, _)| info)
    }

    /// Why the device is missing, if it is.
    #[must_use]
    pub fn missing(&self) -> Option<&DpdkError> {
        self.opened.as_ref().err()
    }

    /// What looks after the device from now on: one for each link.
    #[must_use]
    pub fn keeper(&self) -> DpdkKeeper {
        let config = DpdkConfig { frame_bytes_max: Some(self.frame_bytes_max), ..self.config.clone() };
        let opened = self.opened.as_ref().map(|(_, interface)| interface.clone());
        DpdkKeeper::new(config, Arc::clone(&self.exchange), opened)
    }
}

impl LinkSetup for DpdkSetup {
    type Link = DpdkLink;
    type Error = DpdkError;
    type Peers = DpdkPeers;

    fn peers(&self) -> DpdkPeers {
        DpdkPeers { host: self.host, local: self.config.bind, real_time_dscp: self.config.real_time_dscp }
    }

    fn open(self, peers: &[Option<SocketAddr>]) -> Result<DpdkLink, DpdkError> {
        if peers.len() > PEERS_MAX {
            return Err(DpdkError::TooManyPeers { given: peers.len() });
        }
        let setup = self.peers();
        let (bind, device) = (self.config.bind, self.config.device);
        let stack = Stack::new(self.host).map_err(|source| DpdkError::Address { device, bind, source })?;
        let mut link = DpdkLink::new(Parts {
            exchange: self.exchange,
            stack,
            local: bind,
            frame_bytes_max: self.frame_bytes_max,
            poll_each: self.config.poll_each,
            now: mono_now(),
        });
        for (index, address) in peers.iter().enumerate() {
            let Some(address) = *address else { continue };
            let peer = PeerIndex(index as u16);
            let mut with = Some(setup.prepare(peer, address)?);
            link.swap_peer(peer, &mut with).map_err(|refused| match refused {
                SwapRefused::AddressTaken(first) => DpdkError::PeerDuplicate { first, second: peer, address },
                _ => DpdkError::PeerUnusable { peer, address, bind },
            })?;
        }
        Ok(link)
    }
}

/// Checks peers that come later.
#[derive(Clone, Copy, Debug)]
pub struct DpdkPeers {
    host: Host,
    local: SocketAddr,
    real_time_dscp: u8,
}

impl PeerSetup for DpdkPeers {
    type Peer = DpdkPeer;
    type Error = DpdkError;

    fn prepare(&self, peer: PeerIndex, address: SocketAddr) -> Result<DpdkPeer, DpdkError> {
        let bind = self.local;
        DpdkPeer::new(&self.host, bind.port(), self.real_time_dscp, address).ok_or(DpdkError::PeerUnusable {
            peer,
            address,
            bind,
        })
    }
}

/// What is wrong whatever the device is.
fn check(config: &DpdkConfig) -> Result<(), DpdkError> {
    if config.real_time_dscp > 63 {
        return Err(DpdkError::Dscp { given: config.real_time_dscp });
    }
    if config.bind.port() == 0 || config.bind.port() == u16::MAX {
        return Err(DpdkError::Port { bind: config.bind });
    }
    check_host(config, host(config, config.mac.map_or(NO_MAC, Mac), Checksums::Verify))
}

fn check_host(config: &DpdkConfig, host: Host) -> Result<(), DpdkError> {
    let of_address = |source| DpdkError::Address { device: config.device.clone(), bind: config.bind, source };
    Stack::<1>::new(host).map(|_| ()).map_err(of_address)
}

/// A device that was opened, for frames of this size.
pub(crate) struct Opened {
    pub(crate) device: Box<Device>,
    info: PortInfo,
    /// The interface of the kernel's that it uses, if it does.
    pub(crate) interface: Option<Interface>,
    frame_bytes_max: u32,
}

/// Starts DPDK if it does not run, and opens the device.
pub(crate) fn open_device(config: &DpdkConfig) -> Result<Opened, DpdkError> {
    if is_pci(&config.device) && config.eal.arguments.iter().any(|argument| argument == "--no-pci") {
        return Err(DpdkError::NoPci { device: config.device.clone() });
    }
    let interface = interface(config)?;
    let packet_bytes_max = interface.as_ref().map_or(u32::from(u16::MAX), |interface| interface.mtu_bytes);
    let frame_bytes_max = frame_bytes(config, packet_bytes_max)?;
    let eal = Eal::start(&config.eal)?;
    let options = PortOptions {
        device: config.device.clone(),
        packet_bytes: frame_bytes_max + headers_bytes(config.bind.is_ipv4()),
        ring_frames: RING_FRAMES,
        pool_frames: POOL_FRAMES,
        is_promiscuous: config.mac.is_some(),
    };
    let (port, info) = Port::open(eal, &options).map_err(|source| refused(config, frame_bytes_max, source))?;
    let is_veth = interface.as_ref().is_some_and(|interface| interface.driver == "veth");
    // What the other end of a veth pair leaves unfinished never saw a wire.
    let checksums = if is_veth { Checksums::VerifyOrUnfinished } else { Checksums::Verify };
    let mac = Mac(config.mac.unwrap_or(info.mac));
    check_host(config, host(config, mac, checksums))?;
    let device = Box::new(Device { port, mac, checksums, is_vdev: info.is_vdev });
    Ok(Opened { device, info, interface, frame_bytes_max })
}

/// Whether the link's frames pass the interface.
pub(crate) fn fits(config: &DpdkConfig, interface: &Interface) -> Result<(), DpdkError> {
    frame_bytes(config, interface.mtu_bytes).map(|_| ())
}

fn host(config: &DpdkConfig, mac: Mac, checksums: Checksums) -> Host {
    Host {
        mac,
        address: config.bind.ip(),
        prefix_bits: config.prefix_bits,
        gateway: config.gateway,
        vlan: config.vlan,
        checksums,
    }
}

/// The interface of the kernel's that the device uses, if it does. DPDK's drivers take one that
/// is down, and say little of one that is not there.
pub(crate) fn interface(config: &DpdkConfig) -> Result<Option<Interface>, DpdkError> {
    let Some(name) = config.interface() else { return Ok(None) };
    let (device, interface) = (|| config.device.clone(), || name.to_owned());
    let found = Interface::find(name).map_err(|source| DpdkError::Interface {
        device: device(),
        interface: interface(),
        source,
    })?;
    if found.is_up { Ok(Some(found)) } else { Err(DpdkError::Down { device: device(), interface: interface() }) }
}

/// `0000:03:00.0` or `03:00.0`, perhaps with arguments.
fn is_pci(device: &str) -> bool {
    let name = device.split(',').next().unwrap_or_default();
    let mut parts = name.rsplitn(3, ':');
    let is_hex = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit());
    let slot = parts.next().and_then(|slot| slot.split_once('.'));
    slot.is_some_and(|(device, function)| is_hex(device) && is_hex(function))
        && parts.next().is_some_and(is_hex)
        && parts.next().is_none_or(is_hex)
}

/// Headers of IP and UDP.
const fn headers_bytes(is_ipv4: bool) -> u32 {
    (UDP_BYTES + if is_ipv4 { IPV4_BYTES } else { IPV6_BYTES }) as u32
}

/// The largest frame, on a device that carries such packets.
fn frame_bytes(config: &DpdkConfig, packet_bytes_max: u32) -> Result<u32, DpdkError> {
    let headers = headers_bytes(config.bind.is_ipv4());
    let most = packet_bytes_max.saturating_sub(headers).min(FRAME_BYTES_LIMIT);
    let given = config.frame_bytes_max.unwrap_or((PACKET_BYTES - headers).min(most));
    if (FRAME_BYTES_LOW..=most).contains(&given) {
        Ok(given)
    } else {
        Err(DpdkError::FrameBytes { given, device: config.device.clone(), most })
    }
}

/// What a refusal means to an operator.
fn refused(config: &DpdkConfig, given: u32, source: PortError) -> DpdkError {
    let device = config.device.clone();
    match source.packet_bytes_max {
        Some(most) => {
            DpdkError::FrameBytes { given, device, most: most.saturating_sub(headers_bytes(config.bind.is_ipv4())) }
        }
        None => DpdkError::Device { device, source },
    }
}

/// Memory for the frames of a link, bytes, at most.
#[must_use]
pub const fn memory_bytes(frame_bytes_max: u32, is_ipv4: bool) -> u64 {
    // Ethernet's header and two tags; DPDK counts in lines of 64 bytes.
    let data = (frame_bytes_max as u64 + headers_bytes(is_ipv4) as u64 + 14 + 8).next_multiple_of(64);
    let data = if data > MBUF_DATA_BYTES { data } else { MBUF_DATA_BYTES };
    POOL_FRAMES as u64 * (data + MBUF_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pci_address_is_known_by_its_form() {
        for device in ["0000:03:00.0", "03:00.1", "0000:03:00.0,arg=1", "0000:af:1f.7"] {
            assert!(is_pci(device), "{device}");
        }
        for device in ["net_af_packet0,iface=a:b.c", "net_ring0", "", "::.", "eth0:1.2.3"] {
            assert!(!is_pci(device), "{device}");
        }
    }
}
