//! How dpdk links are opened here, ours and the raw loop's: DPDK is started once a process.

use crate::harness::netns::Hosts;
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

/// The same on the second interface.
#[must_use]
pub fn second_device(host: usize) -> String {
    format!("net_af_packet{},iface={}", 2 + host, Hosts::SECOND_INTERFACE)
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
    technology_on(&device(usize::from(bind == ADDRESSES[1])), bind)
}

/// A dpdk link on a device of that name.
#[must_use]
pub fn technology_on(device: &str, bind: SocketAddr) -> Technology {
    let device = DeviceName::new(device).expect("a name that is short enough");
    Technology::Dpdk(DpdkPlan::at(device, bind))
}
