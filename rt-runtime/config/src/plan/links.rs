//! What is planned of links, and of what carries them.

use crate::raw::{Neighbours, XdpMode};
use insane_core::Nanos;
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};

/// One link of a datapath, and the peers it reaches.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LinkPlan {
    /// Name in reports and in the peers' tables.
    pub name: String,
    /// What carries it.
    pub technology: Technology,
    /// What is known of it in time; `None`: there are no slots.
    pub rate: Option<RatePlan>,
    /// Address of each peer by `PeerIndex`; `None`: not reached by this link. As long
    /// as `Plan::peers`.
    pub peers: Vec<Option<SocketAddr>>,
}

/// What is known of a link in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct RatePlan {
    /// Its rate, Mbit/s, 1 to 400,000.
    pub mbps: u32,
    /// Longest time from a decision to its frame being on its way, 1 us to 10 ms.
    pub turn: Nanos,
    /// Most bytes of others in front of a frame.
    pub foreign_bytes: u32,
    /// Whether it is asked before slots what has not left.
    pub completions: bool,
}

impl RatePlan {
    /// A link of this rate, the rest as by default.
    #[must_use]
    pub const fn of(mbps: u32) -> Self {
        let turn = Nanos::from_micros(crate::raw::TURN_US as u64);
        RatePlan { mbps, turn, foreign_bytes: crate::raw::FOREIGN_BYTES as u32, completions: false }
    }
}

/// What carries a link.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub enum Technology {
    /// Kernel UDP sockets.
    Udp(UdpPlan),
    /// Kernel TCP connections.
    Tcp(TcpPlan),
    /// AF_XDP sockets.
    Xdp(XdpPlan),
    /// RDMA connections.
    Rdma(RdmaPlan),
    /// A port of DPDK.
    Dpdk(DpdkPlan),
}

impl Technology {
    /// The name in the configuration and in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Technology::Udp(_) => "udp",
            Technology::Tcp(_) => "tcp",
            Technology::Xdp(_) => "xdp",
            Technology::Rdma(_) => "rdma",
            Technology::Dpdk(_) => "dpdk",
        }
    }

    /// Largest frame, header and payload together, bytes.
    #[must_use]
    pub const fn frame_bytes_max(&self) -> u32 {
        match self {
            Technology::Udp(udp) => udp.frame_bytes_max,
            Technology::Tcp(tcp) => tcp.frame_bytes_max,
            Technology::Xdp(xdp) => xdp.frame_bytes_max,
            Technology::Rdma(rdma) => rdma.frame_bytes_max,
            Technology::Dpdk(dpdk) => dpdk.frame_bytes_max,
        }
    }

    /// What a frame is longer on Ethernet than header and payload, bytes: headers of UDP or
    /// TCP (with time stamps) and IP, Ethernet's own with the tag
    /// of a VLAN, preamble, check and gap. For TCP an estimate: segments do not follow frames. For RDMA, too: over RoCE a message has
    /// UDP, base header and check (8 + 12 + 4) for each 1,024 to 4,096 bytes.
    #[must_use]
    pub const fn overhead_bytes(&self) -> u32 {
        let ip = if self.bind().is_ipv4() { 20 } else { 40 };
        let transport = match self {
            Technology::Udp(_) | Technology::Xdp(_) | Technology::Dpdk(_) => 8,
            Technology::Tcp(_) => 32,
            Technology::Rdma(_) => 24,
        };
        let tag = if self.vlan().is_some() { 4 } else { 0 };
        ip + transport + 14 + tag + 4 + 8 + 12
    }

    /// The VLAN whose tags the link writes itself, if it does.
    #[must_use]
    pub const fn vlan(&self) -> Option<u16> {
        match self {
            Technology::Xdp(xdp) => xdp.vlan,
            Technology::Dpdk(dpdk) => dpdk.vlan,
            Technology::Udp(_) | Technology::Tcp(_) | Technology::Rdma(_) => None,
        }
    }

    /// The group, where there is one.
    #[must_use]
    pub const fn multicast(&self) -> Option<MulticastPlan> {
        match self {
            Technology::Udp(udp) => udp.multicast,
            Technology::Tcp(_) | Technology::Xdp(_) | Technology::Dpdk(_) | Technology::Rdma(_) => None,
        }
    }

    /// Local address.
    #[must_use]
    pub const fn bind(&self) -> SocketAddr {
        match self {
            Technology::Udp(udp) => udp.bind,
            Technology::Tcp(tcp) => tcp.bind,
            Technology::Xdp(xdp) => xdp.bind,
            Technology::Rdma(rdma) => rdma.bind,
            Technology::Dpdk(dpdk) => dpdk.bind,
        }
    }
}

/// Kernel UDP sockets: the real-time lanes use `bind`'s port, the others the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct UdpPlan {
    /// Local address and first port, 1 to 65,534.
    pub bind: SocketAddr,
    /// Largest datagram, bytes.
    pub frame_bytes_max: u32,
    /// Send buffer of each socket in the kernel, bytes.
    pub send_buffer_bytes: u32,
    /// Receive buffer of each socket in the kernel, bytes.
    pub receive_buffer_bytes: u32,
    /// `SO_BUSY_POLL`, microseconds; 0: off.
    pub busy_poll_us: u32,
    /// Differentiated services code point of real-time frames, 0 to 63.
    pub real_time_dscp: u8,
    /// How long before its slot a frame is handed over with a launch time, to 10 ms; zero: none
    /// has one.
    pub launch_lead: Nanos,
    /// The group that the link is a member of.
    pub multicast: Option<MulticastPlan>,
}

/// The group of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct MulticastPlan {
    /// Its address and first port, 1 to 65,534.
    pub group: SocketAddr,
    /// Networks that its frames may pass, the own one included.
    pub ttl: u8,
    /// Peers for which a message goes to the group, at least; 2 or more.
    pub from_peers: u32,
}

impl UdpPlan {
    /// Defaults at this address.
    #[must_use]
    pub fn at(bind: SocketAddr) -> Self {
        UdpPlan {
            bind,
            frame_bytes_max: crate::raw::frame_bytes_default(bind),
            send_buffer_bytes: crate::raw::SEND_BUFFER_BYTES as u32,
            receive_buffer_bytes: crate::raw::RECEIVE_BUFFER_BYTES as u32,
            busy_poll_us: 0,
            real_time_dscp: crate::raw::REAL_TIME_DSCP as u8,
            launch_lead: Nanos::ZERO,
            multicast: None,
        }
    }
}

/// Kernel TCP connections, two to a peer: the real-time lanes use `bind`'s port, the others
/// the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct TcpPlan {
    /// Local address, a particular one, and first port, 1 to 65,534.
    pub bind: SocketAddr,
    /// Largest frame, bytes; the same at all peers.
    pub frame_bytes_max: u32,
    /// Send buffer of each connection in the kernel, bytes.
    pub send_buffer_bytes: u32,
    /// Receive buffer of each connection in the kernel, bytes.
    pub receive_buffer_bytes: u32,
    /// `SO_BUSY_POLL`, microseconds; 0: off.
    pub busy_poll_us: u32,
    /// Differentiated services code point of real-time connections, 0 to 63.
    pub real_time_dscp: u8,
    /// How long a peer may leave data unacknowledged, milliseconds.
    pub user_timeout_ms: u32,
}

impl TcpPlan {
    /// Defaults at this address.
    #[must_use]
    pub fn at(bind: SocketAddr) -> Self {
        TcpPlan {
            bind,
            frame_bytes_max: crate::raw::TCP_FRAME_BYTES as u32,
            send_buffer_bytes: crate::raw::TCP_BUFFER_BYTES as u32,
            receive_buffer_bytes: crate::raw::TCP_BUFFER_BYTES as u32,
            busy_poll_us: 0,
            real_time_dscp: crate::raw::REAL_TIME_DSCP as u8,
            user_timeout_ms: crate::raw::USER_TIMEOUT_MS as u32,
        }
    }
}

/// AF_XDP sockets: the real-time lanes use `bind`'s port, the others the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct XdpPlan {
    /// The interface.
    pub interface: InterfaceName,
    /// The link's own address, which no interface has (or, with borrowed neighbours, this one has),
    /// and first port, 1 to 65,534.
    pub bind: SocketAddr,
    /// Whose that address is, and who finds neighbours.
    pub neighbours: Neighbours,
    /// The queue by which the link sends, and which it hears.
    pub queue: u32,
    /// Of how many queues it hears all.
    pub queues_max: u32,
    /// How frames leave the kernel.
    pub mode: XdpMode,
    /// The VLAN of the link, 1 to 4,094.
    pub vlan: Option<u16>,
    /// How many leading bits neighbours share with `bind`: 0 to 32, or 128.
    pub prefix_bits: u8,
    /// Who takes frames for hosts that are no neighbours.
    pub gateway: Option<IpAddr>,
    /// Largest frame, bytes.
    pub frame_bytes_max: u32,
    /// Differentiated services code point of real-time frames, 0 to 63.
    pub real_time_dscp: u8,
}

impl XdpPlan {
    /// Defaults on this interface, at this address.
    #[must_use]
    pub fn at(interface: InterfaceName, bind: SocketAddr) -> Self {
        XdpPlan {
            interface,
            bind,
            neighbours: Neighbours::Own,
            queue: 0,
            queues_max: crate::raw::XDP_QUEUES as u32,
            mode: XdpMode::Auto,
            vlan: None,
            prefix_bits: if bind.is_ipv4() { 24 } else { 64 },
            gateway: None,
            frame_bytes_max: crate::raw::frame_bytes_default(bind),
            real_time_dscp: crate::raw::REAL_TIME_DSCP as u8,
        }
    }
}

/// RDMA connections, two to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct RdmaPlan {
    /// Local address, one that a verbs device has, and port, 1 to 65,534.
    pub bind: SocketAddr,
    /// Largest frame, bytes; the same at all peers.
    pub frame_bytes_max: u32,
    /// Differentiated services code point of real-time connections, 0 to 63.
    pub real_time_dscp: u8,
}

impl RdmaPlan {
    /// Defaults at this address.
    #[must_use]
    pub fn at(bind: SocketAddr) -> Self {
        RdmaPlan {
            bind,
            frame_bytes_max: crate::raw::RDMA_FRAME_BYTES as u32,
            real_time_dscp: crate::raw::REAL_TIME_DSCP as u8,
        }
    }
}

/// A port of DPDK: the real-time lanes use `bind`'s port, the others the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct DpdkPlan {
    /// The device with its arguments.
    pub device: DeviceName,
    /// The link's own address, which no interface has, and first port, 1 to 65,534.
    pub bind: SocketAddr,
    /// Hardware address; `None`: the device's.
    pub mac: Option<[u8; 6]>,
    /// The VLAN of the link, 1 to 4,094.
    pub vlan: Option<u16>,
    /// How many leading bits neighbours share with `bind`: 0 to 32, or 128.
    pub prefix_bits: u8,
    /// Who takes frames for hosts that are no neighbours.
    pub gateway: Option<IpAddr>,
    /// Largest frame, bytes.
    pub frame_bytes_max: u32,
    /// Differentiated services code point of real-time frames, 0 to 63.
    pub real_time_dscp: u8,
    /// How long a datapath that sleeps may not look for frames.
    pub poll_each: Nanos,
}

impl DpdkPlan {
    /// Defaults on this device, at this address.
    #[must_use]
    pub fn at(device: DeviceName, bind: SocketAddr) -> Self {
        DpdkPlan {
            device,
            bind,
            mac: None,
            vlan: None,
            prefix_bits: if bind.is_ipv4() { 24 } else { 64 },
            gateway: None,
            frame_bytes_max: crate::raw::frame_bytes_default(bind),
            real_time_dscp: crate::raw::REAL_TIME_DSCP as u8,
            poll_each: Nanos::from_micros(crate::raw::POLL_US as u64),
        }
    }
}

/// Bytes of the longest name of a device with its arguments: a path of a socket has 107.
const DEVICE_NAME_BYTES: usize = 159;

/// A device of DPDK with its arguments: 1 to 159 bytes without white space and control characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DeviceName {
    /// Behind the name, zeros.
    bytes: [u8; DEVICE_NAME_BYTES],
}

impl DeviceName {
    /// Placeholder of a name that is wrong: no device has it.
    pub(crate) const NONE: DeviceName = DeviceName { bytes: [0; DEVICE_NAME_BYTES] };

    /// `None`: it can be no device's.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let is_allowed = |c: char| !(c.is_whitespace() || c.is_control());
        let has_name = !name.is_empty() && !name.starts_with([',', '-']);
        let mut bytes = [0; DEVICE_NAME_BYTES];
        (has_name && name.len() <= DEVICE_NAME_BYTES && name.chars().all(is_allowed)).then(|| {
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            DeviceName { bytes }
        })
    }

    /// The name, with the arguments.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(DEVICE_NAME_BYTES);
        // It was made of a text, whole.
        str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }

    /// The interface of the kernel's that it names, if it does.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.argument("iface")
    }

    /// The value of an argument, as it stands there.
    #[must_use]
    pub fn argument(&self, name: &str) -> Option<&str> {
        self.as_str().split(',').skip(1).find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether AF_XDP carries it: a program on the interface gives all frames of a queue to DPDK.
    #[must_use]
    pub fn is_af_xdp(&self) -> bool {
        self.as_str().starts_with("net_af_xdp")
    }

    /// Whether packet sockets carry it.
    #[must_use]
    pub fn is_af_packet(&self) -> bool {
        self.as_str().starts_with("net_af_packet")
    }
}

impl std::fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for DeviceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Bytes of the longest name of an interface (IFNAMSIZ less the zero at its end).
const INTERFACE_NAME_BYTES: usize = 15;

/// Name of an interface: 1 to 15 bytes without white space, control characters and slashes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct InterfaceName {
    /// Behind the name, zeros.
    bytes: [u8; INTERFACE_NAME_BYTES],
}

impl InterfaceName {
    /// Placeholder of a name that is wrong: no interface has it.
    pub(crate) const NONE: InterfaceName = InterfaceName { bytes: [0; INTERFACE_NAME_BYTES] };

    /// `None`: it can be no interface's.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let is_allowed = |c: char| !(c.is_whitespace() || c.is_control() || c == '/');
        let fits = !name.is_empty() && name.len() <= INTERFACE_NAME_BYTES;
        let mut bytes = [0; INTERFACE_NAME_BYTES];
        (fits && name.chars().all(is_allowed) && name != "." && name != "..").then(|| {
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            InterfaceName { bytes }
        })
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let end = self.bytes.iter().position(|byte| *byte == 0).unwrap_or(INTERFACE_NAME_BYTES);
        // It was made of a text, whole.
        str::from_utf8(&self.bytes[..end]).unwrap_or_default()
    }
}

impl std::fmt::Debug for InterfaceName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for InterfaceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}
