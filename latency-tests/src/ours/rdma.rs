//! Where rdma is measured: on a verbs device of this host that speaks with itself.

use crate::harness::fault::Fault;
use insane_config::{RdmaPlan, Technology};
use std::net::{IpAddr, SocketAddr};

/// What names an address of the device, as for the plugin's own tests.
pub const VARIABLE: &str = "INSANE_RDMA";
/// Ports of the two runtimes.
const PORTS: [u16; 2] = [7_600, 7_602];

/// The address of the device.
///
/// # Errors
/// `Unavailable`: none is named.
pub fn address() -> Result<IpAddr, Fault> {
    let text = std::env::var(VARIABLE)
        .map_err(|_| Fault::Unavailable(format!("{VARIABLE} names no address of a verbs device")))?;
    text.parse().map_err(|_| Fault::Party(format!("{VARIABLE}: {text:?} is no address")))
}

/// Addresses of two runtimes.
///
/// # Errors
/// As [`address`].
pub fn addresses() -> Result<[SocketAddr; 2], Fault> {
    address().map(|ip| PORTS.map(|port| SocketAddr::new(ip, port)))
}

/// An rdma link there.
#[must_use]
pub fn technology(bind: SocketAddr) -> Technology {
    Technology::Rdma(RdmaPlan::at(bind))
}
