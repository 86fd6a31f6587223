//! How dpdk links are opened here, ours and the raw loop's: DPDK is started once a process.

use crate::harness::netns::Hosts;
use insane_config::{DeviceName, DpdkPlan, Technology, raw};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

/// Addresses that no kernel has, one a host.
pub const ADDRESSES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 231, 7, 31)), 7400),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 231, 7, 32)), 7400),
];

/// Memory of DPDK for all links that are open at once, MiB.
const MEMORY_MIB: u32 = 256;

/// By what DPDK reaches the other host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Device {
    /// Packet sockets on the host's interface.
    PacketSocket,
    /// AF_XDP on it.
    AfXdp,
    /// Memory that both share; the interface has no part in it.
    Memif,
}

impl Device {
    /// Of host 0 or 1. Each host's device has a name of its own.
    #[must_use]
    pub fn name(self, host: usize) -> String {
        match self {
            Device::PacketSocket => format!("net_af_packet{host},iface=eth0"),
            Device::AfXdp => format!("net_af_xdp{host},iface=eth0"),
            Device::Memif => memif(host),
        }
    }
}

/// DPDK gives a memif back only when the process ends, so each pair is a new one: host 0 begins
/// it, and host 1 comes second.
fn memif(host: usize) -> String {
    static PAIRS: AtomicU32 = AtomicU32::new(0);
    let pair = if host == 0 { PAIRS.fetch_add(1, Ordering::Relaxed) } else { PAIRS.load(Ordering::Relaxed) - 1 };
    // Not an abstract name: DPDK goes on listening there when a port is closed.
    let socket = std::env::temp_dir().join(format!("latency-tests.{}.memif{pair}", std::process::id()));
    let role = if host == 0 { "server" } else { "client" };
    format!("net_memif{},role={role},id=0,socket-abstract=no,socket={}", 2 * pair + host as u32, socket.display())
}

/// Frames of a packet socket that is to lose none while its thread is not run: four times as many
/// as DPDK takes unasked.
const DEEP_FRAMES: u32 = 2_048;

/// Deep packet sockets on an interface of a host.
#[must_use]
pub fn deep_device(host: usize, interface: &str) -> String {
    let number = if interface == Hosts::SECOND_INTERFACE { 2 + host } else { host };
    format!("net_af_packet{number},iface={interface},framecnt={DEEP_FRAMES}")
}

/// The arguments of DPDK.
#[must_use]
pub fn arguments() -> Vec<String> {
    let mut arguments = raw::Eal::default().arguments;
    arguments.extend(["-m".to_owned(), MEMORY_MIB.to_string()]);
    arguments
}

/// A dpdk link at one of [`ADDRESSES`].
#[must_use]
pub fn technology(device: Device, bind: SocketAddr) -> Technology {
    technology_on(&device.name(usize::from(bind == ADDRESSES[1])), bind)
}

/// A dpdk link on a device of that name.
#[must_use]
pub fn technology_on(device: &str, bind: SocketAddr) -> Technology {
    let device = DeviceName::new(device).expect("a name that is short enough");
    Technology::Dpdk(DpdkPlan::at(device, bind))
}
