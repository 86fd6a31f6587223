//! What an operator chooses.

use insane_netstack::VlanId;
use std::net::{IpAddr, SocketAddr};

/// Smallest frame that a link must be able to carry, bytes: as the udp plugin has it.
pub const FRAME_BYTES_LOW: u32 = 508;

/// Most queues of an interface that a link hears: its XDP program has places for so many.
pub const QUEUES_LIMIT: u32 = 8;

/// How frames leave the kernel; see the crate's documentation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// The first of the others that can be had.
    #[default]
    Auto,
    /// By the device.
    ZeroCopy,
    /// By the driver, copied.
    Native,
    /// Behind the driver, copied.
    Skb,
}

impl Mode {
    /// As it stands in configurations and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::ZeroCopy => "zero_copy",
            Mode::Native => "native",
            Mode::Skb => "skb",
        }
    }
}

/// Whose the link's address and neighbours are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Neighbours {
    /// The link's own: no kernel has the address, and the link asks and answers for itself.
    #[default]
    Own,
    /// The kernel's: the interface has the address, and the kernel finds neighbours and answers
    /// them. Datagrams to the two ports are the link's, all else the kernel's.
    Borrowed,
}

/// Where and how the link opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XdpConfig {
    /// Name of the interface.
    pub interface: String,
    /// The queue of it by which the link sends. It hears that one, and all others where the
    /// interface has no more than `queues_max`.
    pub queue: u32,
    /// How many queues the link hears at most, 1 to [`QUEUES_LIMIT`].
    pub queues_max: u32,
    /// How.
    pub mode: Mode,
    /// The link's own address, which no interface of the kernel has (or, with borrowed neighbours,
    /// this one has), and port P; the link also takes port P+1.
    pub bind: SocketAddr,
    /// Whose that address is, and who finds neighbours.
    pub neighbours: Neighbours,
    /// The VLAN that the link is in: its frames have a tag, and only such are taken. `None`: none,
    /// as it has to be where neighbours are borrowed.
    pub vlan: Option<VlanId>,
    /// How many leading bits its neighbours share with it.
    pub prefix_bits: u8,
    /// Who takes frames for hosts that are no neighbours. `None`: such hosts are no peers.
    pub gateway: Option<IpAddr>,
    /// Largest frame, bytes. `None`: what fits the interface's MTU.
    pub frame_bytes_max: Option<u32>,
    /// Differentiated services code point of real-time frames, 0 to 63.
    pub real_time_dscp: u8,
}

impl XdpConfig {
    /// The defaults: queue 0 and the others where there are no more than eight, the best mode that
    /// can be had, an own address, no VLAN, neighbours of the same /24 or /64, no gateway, frames that
    /// fit the MTU, real-time frames marked as expedited (46, RFC 3246).
    #[must_use]
    pub fn new(interface: impl Into<String>, bind: SocketAddr) -> Self {
        XdpConfig {
            interface: interface.into(),
            queue: 0,
            queues_max: QUEUES_LIMIT,
            mode: Mode::Auto,
            bind,
            neighbours: Neighbours::Own,
            vlan: None,
            prefix_bits: if bind.is_ipv4() { 24 } else { 64 },
            gateway: None,
            frame_bytes_max: None,
            real_time_dscp: 46,
        }
    }
}
