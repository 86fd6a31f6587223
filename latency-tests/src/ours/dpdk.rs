//! How dpdk links are opened here, ours and the raw loop's: DPDK is started once a process.

use insane_config::{DeviceName, DpdkPlan, Technology, raw};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Addresses that no kernel has, one a host.
pub const ADDRESSES: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 231, 7, 31)), 7400),
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 231, 7, 32)), 7400),
];

/// Memory of DPDK for all links that are open at once, MiB.
const MEMORY_MIB: u32 = 256;

/// Packet sockets on the interface of host 0 or 1. Each host's device has a name of its own.
#[must_use]
pub fn device(host: usize) -> String {
    format!("net_af_packet{host},iface=eth0")
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
pub fn technology(bind: SocketAddr) -> Technology {
    let host = usize::from(bind == ADDRESSES[1]);
    let device = DeviceName::new(&device(host)).expect("a name that is short enough");
    Technology::Dpdk(DpdkPlan::at(device, bind))
}
