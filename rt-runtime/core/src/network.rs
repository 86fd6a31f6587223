//! A range of IP addresses, as rules name it.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

/// All addresses whose first `prefix` bits are those of `address`: `10.0.0.0/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text names no network.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NetworkError {
    /// No address before the stroke, or none at all.
    Address,
    /// No number of bits behind the stroke that such an address has.
    Prefix,
    /// Bits behind the prefix are set; the network that was meant is told.
    HostBits(Network),
}

impl Network {
    /// `None`: such an address has fewer bits.
    #[must_use]
    pub const fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if prefix <= bits { Some(Network { address, prefix }) } else { None }
    }

    /// Whether the address is in it. An address of the other family never is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && masked(self.address, self.prefix) == masked(address, self.prefix)
    }
}

/// The address with all bits behind the prefix cleared, as a number.
fn masked(address: IpAddr, prefix: u8) -> u128 {
    let (bits, width) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let behind = u32::from(width - prefix.min(width));
    bits.checked_shr(behind).and_then(|bits| bits.checked_shl(behind)).unwrap_or(0)
}

fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    if like.is_ipv4() { IpAddr::V4((bits as u32).into()) } else { IpAddr::V6(bits.into()) }
}

impl FromStr for Network {
    type Err = NetworkError;

    /// An address alone is the network of that one host.
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        let prefix = match prefix {
            None if address.is_ipv4() => 32,
            None => 128,
            Some(prefix) => prefix.parse().map_err(|_| NetworkError::Prefix)?,
        };
        let network = Network::new(address, prefix).ok_or(NetworkError::Prefix)?;
        let first = from_bits(address, masked(address, prefix));
        if first == address { Ok(network) } else { Err(NetworkError::HostBits(Network { address: first, prefix })) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn network(text: &str) -> Network {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_in_it_where_the_first_bits_are_the_same() {
        for (net, inside, outside) in [
            ("10.0.0.0/24", "10.0.0.255", "10.0.1.0"),
            ("10.0.0.128/25", "10.0.0.128", "10.0.0.127"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "2001:db8::1", "1.2.3.4"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("10.0.0.7", "10.0.0.7", "10.0.0.6"),
        ] {
            assert!(network(net).contains(inside.parse().unwrap()), "{net} {inside}");
            assert!(!network(net).contains(outside.parse().unwrap()), "{net} {outside}");
        }
        assert_eq!(network("10.0.0.7").to_string(), "10.0.0.7/32");
        assert_eq!(network("fe80::1").to_string(), "fe80::1/128");
    }

    #[test]
    fn what_is_no_network_is_said_so() {
        let fault = |text: &str| text.parse::<Network>().unwrap_err();
        assert_eq!(fault("plant"), NetworkError::Address);
        assert_eq!(fault("10.0.0.0/33"), NetworkError::Prefix);
        assert_eq!(fault("10.0.0.0/"), NetworkError::Prefix);
        assert_eq!(fault("10.0.0.1/24"), NetworkError::HostBits(network("10.0.0.0/24")));
        assert_eq!(fault("2001:db8::1/32"), NetworkError::HostBits(network("2001:db8::/32")));
    }
}
