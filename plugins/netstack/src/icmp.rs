//! Echo of ICMP (RFC 792) and ICMPv6 (RFC 4443), and the two messages of neighbour discovery
//! that a host needs (RFC 4861, sections 4.3 and 4.4).
//!
//! ```text
//!    0    1    2      4             8                    24
//!    +----+----+------+-------------+--------------------+------------------------+
//!    |type|code| check| flags       | address asked for  | options: hardware addr.|
//!    +----+----+------+-------------+--------------------+------------------------+
//! ```

use crate::checksum::Sum;
use crate::ethernet::Mac;
use core::net::Ipv6Addr;
use insane_mutation::mutate;

pub(crate) const ECHO_V4: u8 = 8;
pub(crate) const ECHO_REPLY_V4: u8 = 0;
pub(crate) const ECHO_V6: u8 = 128;
pub(crate) const ECHO_REPLY_V6: u8 = 129;
pub(crate) const SOLICITATION: u8 = 135;
pub(crate) const ADVERTISEMENT: u8 = 136;
/// Type, code, checksum, identifier, sequence.
pub(crate) const ECHO_BYTES: usize = 8;
/// A message of neighbour discovery with one option.
pub(crate) const NEIGHBOUR_BYTES: usize = 32;
/// Messages of neighbour discovery have taken no hop: nobody beyond a router can send them.
pub(crate) const NEIGHBOUR_HOPS: u8 = 255;

const NEIGHBOUR_HEAD_BYTES: usize = 24;
const OPTION_SOURCE: u8 = 1;
const OPTION_TARGET: u8 = 2;
const FLAG_SOLICITED: u8 = 0x40;
const FLAG_OVERRIDE: u8 = 0x20;

/// A message of neighbour discovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Neighbour {
    pub(crate) is_solicitation: bool,
    /// Of an advertisement: it answers a question.
    pub(crate) is_solicited: bool,
    pub(crate) target: Ipv6Addr,
    /// The sender's hardware address, or the target's.
    pub(crate) mac: Option<Mac>,
}

impl Neighbour {
    /// `None`: neither of the two, or not well formed. The checksum was looked at before.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<NEIGHBOUR_HEAD_BYTES>()?;
        let is_solicitation = match head[0] {
            SOLICITATION => true,
            ADVERTISEMENT => false,
            _ => return None,
        };
        let mut target = [0; 16];
        target.copy_from_slice(&head[8..24]);
        let target = Ipv6Addr::from(target);
        if head[1] != 0 || target.is_multicast() {
            return None;
        }
        let wanted = if is_solicitation { OPTION_SOURCE } else { OPTION_TARGET };
        let mut mac = None;
        let mut options = &bytes[NEIGHBOUR_HEAD_BYTES..];
        // Each is eight bytes at least, so there are as many turns as that at most.
        while let [kind, eighths, ..] = *options {
            let len = usize::from(eighths) * 8;
            // A length of zero makes the whole message void (section 4.6).
            let option = mutate!(OptionsUnread, options.get(..len), Some(&options[..len]));
            let option = option.filter(|option| !option.is_empty())?;
            if let (true, [_, 1, a, b, c, d, e, f]) = (kind == wanted, option) {
                mac = Some(Mac([*a, *b, *c, *d, *e, *f]));
            }
            options = &options[len..];
        }
        // What is left is less than the head of an option.
        options.is_empty().then_some(Neighbour {
            is_solicitation,
            is_solicited: head[4] & FLAG_SOLICITED != 0,
            target,
            mac,
        })
    }

    /// Writes it with its option into `room` of [`NEIGHBOUR_BYTES`] at least, without its
    /// checksum.
    pub(crate) fn write(&self, mac: Mac, room: &mut [u8]) {
        let room = &mut room[..NEIGHBOUR_BYTES];
        room.fill(0);
        room[0] = if self.is_solicitation { SOLICITATION } else { ADVERTISEMENT };
        if !self.is_solicitation {
            room[4] = FLAG_OVERRIDE | if self.is_solicited { FLAG_SOLICITED } else { 0 };
        }
        room[8..24].copy_from_slice(&self.target.octets());
        room[24] = if self.is_solicitation { OPTION_SOURCE } else { OPTION_TARGET };
        room[25] = 1;
        room[26..32].copy_from_slice(&mac.0);
    }
}

/// Puts the checksum into a message; `front`: what counts before its bytes.
pub(crate) fn seal(front: Sum, message: &mut [u8]) {
    message[2..4].fill(0);
    let check = front.bytes(message).check();
    message[2..4].copy_from_slice(&check.to_be_bytes());
}

/// The group in which all who may have `address` listen (RFC 4291, section 2.7.1).
pub(crate) fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let octets = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(octets[13]), u16::from_be_bytes([octets[14], octets[15]]))
}

/// The hardware address of a group (RFC 2464, section 7).
pub(crate) fn mac_of_group(group: Ipv6Addr) -> Mac {
    let octets = group.octets();
    Mac([0x33, 0x33, octets[12], octets[13], octets[14], octets[15]])
}
