//! What an operator chooses.

use dpdk_sys::EalOptions;
use insane_core::Nanos;
use insane_netstack::VlanId;
use std::net::{IpAddr, SocketAddr};

/// Smallest frame that a link must be able to carry, bytes: as the udp plugin has it.
pub const FRAME_BYTES_LOW: u32 = 508;
/// Largest frame, bytes: what a packet of 9,000 bytes holds over IPv4.
pub const FRAME_BYTES_LIMIT: u32 = 8972;

/// How DPDK is started where nobody says: on ordinary pages, without NICs and without files.
const ARGUMENTS: [&str; 4] = ["--no-huge", "--no-pci", "--no-telemetry", "--no-shconf"];

/// Where and how the link opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DpdkConfig {
    /// How DPDK is started, if it is not running: the same for all links of a process.
    pub eal: EalOptions,
    /// The device, with its arguments: `net_af_packet0,iface=eth0`, or a PCI address.
    pub device: String,
    /// The link's own address, which no interface of the kernel has, and port P; the link also
    /// takes port P+1.
    pub bind: SocketAddr,
    /// Hardware address. `None`: the device's. With another the device is asked to hear all
    /// frames (promiscuous).
    pub mac: Option<[u8; 6]>,
    /// The VLAN that the link is in: its frames have a tag, and only such are taken. `None`: none.
    pub vlan: Option<VlanId>,
    /// How many leading bits its neighbours share with it.
    pub prefix_bits: u8,
    /// Who takes frames for hosts that are no neighbours. `None`: such hosts are no peers.
    pub gateway: Option<IpAddr>,
    /// Largest frame, bytes. `None`: what fits a packet of 1,500 bytes.
    pub frame_bytes_max: Option<u32>,
    /// Differentiated services code point of real-time frames, 0 to 63.
    pub real_time_dscp: u8,
    /// How long a datapath that sleeps may not look for frames, at most.
    pub poll_each: Nanos,
}

impl DpdkConfig {
    /// The defaults: DPDK on ordinary pages and without NICs, the device's hardware address,
    /// no VLAN, neighbours of the same /24 or /64, no gateway, real-time frames marked as expedited
    /// (46, RFC 3246), a look every 100 us.
    #[must_use]
    pub fn new(device: impl Into<String>, bind: SocketAddr) -> Self {
        let arguments = ARGUMENTS.map(str::to_owned).to_vec();
        DpdkConfig {
            eal: EalOptions { arguments, ..EalOptions::default() },
            device: device.into(),
            bind,
            mac: None,
            vlan: None,
            prefix_bits: if bind.is_ipv4() { 24 } else { 64 },
            gateway: None,
            frame_bytes_max: None,
            real_time_dscp: 46,
            poll_each: Nanos::from_micros(100),
        }
    }

    /// The value of `iface=` in the device's arguments: an interface of the kernel's.
    #[must_use]
    pub fn interface(&self) -> Option<&str> {
        self.device.split(',').skip(1).find_map(|argument| argument.strip_prefix("iface="))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_stands_in_the_device() {
        let of = |device: &str| DpdkConfig::new(device, ([10, 0, 0, 1], 7400).into()).interface().map(str::to_owned);
        assert_eq!(of("net_af_packet0,iface=eth0,qpairs=1").as_deref(), Some("eth0"));
        assert_eq!(of("net_af_xdp1,start_queue=1,iface=x0").as_deref(), Some("x0"));
        assert_eq!(of("0000:03:00.0"), None);
        assert_eq!(of("iface=no"), None);
    }
}
