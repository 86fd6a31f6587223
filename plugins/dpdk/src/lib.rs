//! Link over a port of DPDK 22.11, IPv4 and IPv6.
//!
//! The link has an IP address of its own, which no kernel has: it asks for its neighbours and
//! answers them and echoes itself ([`insane_netstack`]), as an xdp link does. What goes over
//! the wire is what the udp plugin sends: port P carries real-time lanes, port P+1 all others,
//! and links over udp and AF_XDP are good peers. This link sends each frame as a datagram of
//! its own, and opens the bundles that a udp link may send.
//!
//! DPDK is started once a process, when its first link opens; what is needed for that, and
//! where it is looked for, is told in [`dpdk_sys`].
//!
//! | device | what it is | its address stands |
//! |---|---|---|
//! | a PCI address | a NIC that the kernel has let go (vfio-pci); needs huge pages | alone on the NIC |
//! | `net_af_packet0,iface=IF` | an interface of the kernel, by packet sockets | beside the kernel's |
//! | `net_af_xdp0,iface=IF` | a queue of an interface, which the kernel no longer hears | instead of the kernel's |
//! | `net_memif0,…` | memory shared with another process of this host | alone |
//! | `net_virtio_user0,…` | a virtual machine's or container's switch | alone |
//!
//! # A device that is missing
//! A link may open without DPDK or its device, and lose and regain it: a [`DpdkKeeper`] looks
//! after it. A library that is not installed yet and an interface of the kernel's that comes,
//! goes or returns are tried again. DPDK itself starts once a process, and what it refused then
//! needs another.
//!
//! Nothing is allocated by this code after [`LinkSetup::open`]; what a driver does is its own.
//! A port has one queue each way. Frames that came are sorted by class at once: real-time
//! frames behind a best-effort flood are found, and of the flood what has no room is dropped.
//! Questions and answers about neighbours are taken before that and wait for nobody. What a flood
//! does to the ring of the device itself it does to all of them.
//!
//! No descriptor tells when a frame comes: a datapath that sleeps looks every so often
//! ([`DpdkConfig::poll_each`]).
//!
//! # What the interface has to be
//! Frames for the address must come to the device: on an interface of the kernel's with the
//! interface's own hardware address, hence by ARP. A host that forwards packets would forward
//! what is for the link, too. The other end of a veth pair must finish its frames itself
//! (`ethtool -K IF tx off txvlan off`). What is said of VLANs of the xdp plugin holds here, but that
//! packet sockets see every tag. Who shares memory with a device (memif, virtio) is trusted as a
//! driver is.
#![forbid(unsafe_code)]

mod config;
mod device;
mod health;
mod inbox;
mod keeper;
mod link;
mod setup;

pub use config::{DpdkConfig, FRAME_BYTES_LIMIT, FRAME_BYTES_LOW};
pub use dpdk_sys::{EalError, EalOptions, PortError, ShimError};
pub use insane_netstack::VlanId;
pub use keeper::DpdkKeeper;
pub use link::{DpdkCounts, DpdkLink, DpdkPeer};
pub use setup::{DpdkError, DpdkPeers, DpdkSetup, memory_bytes};

#[cfg(doc)]
use insane_link::LinkSetup;
