//! The kernel's table of neighbours: asked, heard, and made to look for somebody.
//!
//! ```text
//!   message    | length 4 | kind 2 | flags 2 | number 4 | sender 4 | body, padded to 4
//!   body       | family 1 | - 3 | interface 4 | state 2 | flags 1 | kind 1 | attributes
//!   attribute  | length 2 | kind 2 | bytes, padded to 4
//! ```
//! (rtnetlink(7); numbers in the order of this machine.) What comes is read as if anybody had
//! written it: no length in it is believed beyond the bytes that are there, and what is not
//! understood is left out. One call reads one datagram, and allocates nothing.

use crate::error::{Errno, OsError, attempted};
use crate::netlink::{attribute, routing_socket};
use nix::sys::socket::{MsgFlags, NetlinkAddr, recvfrom, send};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The group of rtnetlink that tells of neighbours (`RTMGRP_NEIGH`).
const NEIGHBOURS: u32 = 4;
/// Of a message, and of its body without attributes.
const HEAD_BYTES: usize = 16;
const BODY_BYTES: usize = 12;
/// `NLMSG_ERROR`: an answer without an entry.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`, `NLM_F_CREATE`.
const REQUEST: u16 = 1;
const CREATE: u16 = 0x400;
/// `NTF_PROXY`: an address that the kernel answers for in place of another.
const PROXY: u8 = 8;
/// States in which the kernel itself sends to the address that it has.
const USED: u16 =
    libc::NUD_PERMANENT | libc::NUD_NOARP | libc::NUD_REACHABLE | libc::NUD_STALE | libc::NUD_DELAY | libc::NUD_PROBE;
/// Room for a datagram: the kernel tells of one entry in each, and an answer has one.
pub const DATAGRAM_BYTES: usize = 8192;

/// Where a neighbour is, as the kernel has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whereabouts {
    /// It has this hardware address.
    At {
        /// The hardware address, that of one station.
        mac: [u8; 6],
        /// It is long since the neighbour was heard of, and the kernel does nothing about it
        /// before somebody sends there (`STALE`).
        is_old: bool,
    },
    /// The kernel is asking (`INCOMPLETE`).
    Asked,
    /// It asked, and nobody answered; or it never asked.
    Nowhere,
    /// The entry was removed: nothing is known, nor that there is nobody.
    Removed,
}

/// One message of the kernel's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message {
    /// An entry, as it is now.
    Entry {
        /// Whose answer it is: the number of the question; 0: nobody asked.
        number: u32,
        /// The interface, by its number.
        interface: u32,
        /// The neighbour.
        address: IpAddr,
        /// Where it is.
        whereabouts: Whereabouts,
    },
    /// What was asked under this number is refused; `ENOENT`: there is no such entry.
    Refused {
        /// The number of the question.
        number: u32,
        /// Why.
        errno: Errno,
    },
}

/// The messages of one datagram that are understood.
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Of these bytes.
    #[must_use]
    pub fn of(datagram: &'a [u8]) -> Self {
        Messages(datagram)
    }
}

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        while let Some(head) = self.0.first_chunk::<HEAD_BYTES>() {
            let length = number_at(head, 0)? as usize;
            if length < HEAD_BYTES {
                break;
            }
            let Some(body) = self.0.get(HEAD_BYTES..length) else { break };
            self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
            let number = number_at(head, 8)?;
            if let Some(message) = message(u16::from_ne_bytes([head[4], head[5]]), number, body) {
                return Some(message);
            }
        }
        self.0 = &[];
        None
    }
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn message(kind: u16, number: u32, body: &[u8]) -> Option<Message> {
    let is_removed = match kind {
        ERROR => {
            // An errno, negative; 0 is an acknowledgement.
            let errno = number_at(body, 0)?.cast_signed().checked_neg().filter(|errno| *errno > 0)?;
            return Some(Message::Refused { number, errno: Errno::from_raw(errno) });
        }
        libc::RTM_NEWNEIGH => false,
        libc::RTM_DELNEIGH => true,
        _ => return None,
    };
    let (fixed, attributes) = body.split_first_chunk::<BODY_BYTES>()?;
    let interface = number_at(fixed, 4)?;
    let (state, flags) = (u16::from_ne_bytes([fixed[8], fixed[9]]), fixed[10]);
    if flags & PROXY != 0 {
        return None;
    }
    let destination = attribute(attributes, libc::NDA_DST)?;
    let address = match i32::from(fixed[0]) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(destination).ok()?)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(destination).ok()?)),
        _ => return None,
    };
    let mac = attribute(attributes, libc::NDA_LLADDR).and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
    let whereabouts = match mac.filter(|mac| mac[0] & 1 == 0 && *mac != [0; 6]) {
        _ if is_removed => Whereabouts::Removed,
        Some(mac) if state & USED != 0 => Whereabouts::At { mac, is_old: state & libc::NUD_STALE != 0 },
        _ if state & libc::NUD_INCOMPLETE != 0 => Whereabouts::Asked,
        _ => Whereabouts::Nowhere,
    };
    Some(Message::Entry { number, interface, address, whereabouts })
}

/// What came of reading.
#[derive(Debug)]
pub enum Read<'a> {
    /// A datagram.
    Messages(Messages<'a>),
    /// There is none now.
    Nothing,
    /// Some were lost: what is known may be wrong.
    Lost,
    /// The socket is of no use any more.
    Broken(OsError),
}

/// A socket at the kernel's table, which also hears of changes. Of the network namespace in which
/// it was made.
#[derive(Debug)]
pub struct NeighbourTable(OwnedFd);

impl NeighbourTable {
    /// It hears from now on.
    ///
    /// # Errors
    /// No descriptor is left, or the kernel has no rtnetlink.
    pub fn new() -> Result<Self, OsError> {
        routing_socket(NEIGHBOURS, "listening for changes of neighbours").map(NeighbourTable)
    }

    /// Asks where a neighbour at an interface is; the answer bears this `number`, which is not 0.
    ///
    /// # Errors
    /// The kernel takes no question now.
    pub fn ask(&self, interface: u32, address: IpAddr, number: u32) -> Result<(), OsError> {
        self.send(libc::RTM_GETNEIGH, REQUEST, 0, (interface, address, number))
    }

    /// Makes the kernel find out, as if somebody sent there. Not for an entry that an operator
    /// made: it would count as one that was learnt. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask). That the kernel refuses comes as a message.
    pub fn resolve(&self, interface: u32, address: IpAddr, number: u32) -> Result<(), OsError> {
        self.send(libc::RTM_NEWNEIGH, REQUEST | CREATE, libc::NTF_USE, (interface, address, number))
    }

    fn send(
        &self,
        kind: u16,
        flags: u16,
        entry_flags: u8,
        (interface, address, number): (u32, IpAddr, u32),
    ) -> Result<(), OsError> {
        let mut bytes = [0; HEAD_BYTES + BODY_BYTES + 4 + 16];
        let (family, address_bytes) = match address {
            IpAddr::V4(v4) => {
                bytes[HEAD_BYTES + BODY_BYTES + 4..][..4].copy_from_slice(&v4.octets());
                (libc::AF_INET, 4)
            }
            IpAddr::V6(v6) => {
                bytes[HEAD_BYTES + BODY_BYTES + 4..][..16].copy_from_slice(&v6.octets());
                (libc::AF_INET6, 16)
            }
        };
        let length = HEAD_BYTES + BODY_BYTES + 4 + address_bytes;
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&number.to_ne_bytes());
        let body = &mut bytes[HEAD_BYTES..];
        body[0] = family as u8;
        body[4..8].copy_from_slice(&interface.to_ne_bytes());
        body[10] = entry_flags;
        let attribute = &mut body[BODY_BYTES..];
        attribute[..2].copy_from_slice(&(4 + address_bytes as u16).to_ne_bytes());
        attribute[2..4].copy_from_slice(&libc::NDA_DST.to_ne_bytes());
        // Not connected: what has no destination goes to the kernel.
        let sent = send(self.0.as_raw_fd(), &bytes[..length], MsgFlags::MSG_DONTWAIT);
        sent.map(drop).map_err(attempted("asking for a neighbour"))
    }

    /// Takes the next datagram; `room` should have [`DATAGRAM_BYTES`].
    pub fn read<'a>(&self, room: &'a mut [u8]) -> Read<'a> {
        let received = loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), room) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        match received {
            // Longer than any that is known: what was cut off is lost.
            Ok((length, _)) if length >= room.len() => Read::Lost,
            Ok((length, from)) => {
                // Another process may send to this socket; only the kernel has number 0.
                let is_kernels = from.is_some_and(|from| from.pid() == 0);
                let length = if is_kernels { length } else { 0 };
                Read::Messages(Messages::of(room.get(..length).unwrap_or_default()))
            }
            Err(Errno::EAGAIN) => Read::Nothing,
            Err(Errno::ENOBUFS) => Read::Lost,
            Err(errno) => Read::Broken(OsError::new("hearing of neighbours", errno)),
        }
    }
}

impl AsFd for NeighbourTable {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    /// A message about `V4` at interface 3, with these attributes.
    fn told(kind: u16, state: u16, flags: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut body = vec![libc::AF_INET as u8, 0, 0, 0];
        body.extend(3u32.to_ne_bytes());
        body.extend(state.to_ne_bytes());
        body.extend([flags, 0]);
        for (kind, bytes) in attributes {
            body.extend((4 + bytes.len() as u16).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(*bytes);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut message = ((HEAD_BYTES + body.len()) as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend([0, 0]);
        message.extend(9u32.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        message
    }

    fn only(bytes: &[u8]) -> Option<Whereabouts> {
        let mut messages = Messages::of(bytes);
        let whereabouts = messages.next().map(|message| match message {
            Message::Entry { number: 9, interface: 3, address: V4, whereabouts } => whereabouts,
            other => panic!("{other:?}"),
        });
        assert_eq!(messages.next(), None);
        whereabouts
    }

    #[test]
    fn entries_are_read_by_their_states() {
        let destination = (libc::NDA_DST, &[10, 0, 0, 7][..]);
        let both = [destination, (libc::NDA_LLADDR, &MAC[..])];
        let at = |is_old| Some(Whereabouts::At { mac: MAC, is_old });
        for (state, expected) in [
            (libc::NUD_REACHABLE, at(false)),
            (libc::NUD_PERMANENT, at(false)),
            (libc::NUD_DELAY, at(false)),
            (libc::NUD_PROBE, at(false)),
            (libc::NUD_STALE, at(true)),
            (libc::NUD_FAILED, Some(Whereabouts::Nowhere)),
            (libc::NUD_NONE, Some(Whereabouts::Nowhere)),
            (libc::NUD_INCOMPLETE, Some(Whereabouts::Asked)),
        ] {
            assert_eq!(only(&told(libc::RTM_NEWNEIGH, state, 0, &both)), expected, "state {state}");
        }
        let reachable =
            |attributes: &[(u16, &[u8])]| only(&told(libc::RTM_NEWNEIGH, libc::NUD_REACHABLE, 0, attributes));
        assert_eq!(reachable(&[destination]), Some(Whereabouts::Nowhere), "without a hardware address");
        for odd in [&[0; 6][..], &[1, 0, 0, 0, 0, 1], &[2; 5], &[2; 8]] {
            assert_eq!(reachable(&[destination, (libc::NDA_LLADDR, odd)]), Some(Whereabouts::Nowhere), "{odd:?}");
        }
        assert_eq!(only(&told(libc::RTM_DELNEIGH, libc::NUD_REACHABLE, 0, &both)), Some(Whereabouts::Removed));
        // Of other families, of proxies, without an address, of other kinds.
        assert_eq!(only(&told(libc::RTM_NEWNEIGH, libc::NUD_PERMANENT, PROXY, &both)), None);
        assert_eq!(reachable(&[(libc::NDA_DST, &[0; 16])]), None);
        assert_eq!(reachable(&[(libc::NDA_LLADDR, &MAC)]), None);
        assert_eq!(only(&told(libc::RTM_GETNEIGH, 0, 0, &both)), None);
        let mut bridge = told(libc::RTM_NEWNEIGH, libc::NUD_REACHABLE, 0, &both);
        bridge[HEAD_BYTES] = libc::AF_BRIDGE as u8;
        assert_eq!(only(&bridge), None);
    }

    #[test]
    fn refusals_are_read_and_acknowledgements_are_none() {
        let refused = |errno: i32| {
            let mut bytes = told(ERROR, 0, 0, &[]);
            bytes[HEAD_BYTES..HEAD_BYTES + 4].copy_from_slice(&errno.to_ne_bytes());
            Messages::of(&bytes).next()
        };
        assert_eq!(refused(-libc::ENOENT), Some(Message::Refused { number: 9, errno: Errno::ENOENT }));
        for errno in [0, 5, i32::MIN] {
            assert_eq!(refused(errno), None, "{errno}");
        }
    }

    #[test]
    fn lengths_are_not_believed() {
        let one =
            told(libc::RTM_NEWNEIGH, libc::NUD_STALE, 0, &[(libc::NDA_DST, &[10, 0, 0, 7]), (libc::NDA_LLADDR, &MAC)]);
        let two = [one.clone(), one.clone()].concat();
        assert_eq!(Messages::of(&two).count(), 2);
        for cut in 0..two.len() {
            assert_eq!(Messages::of(&two[..cut]).count(), cut / one.len(), "{cut} bytes");
        }
        for length in [0u32, 1, 15, two.len() as u32 + 1, u32::MAX] {
            let mut odd = two.clone();
            odd[..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages::of(&odd).count(), 0, "{length}");
        }
        for length in [0u16, 3, 9, u16::MAX] {
            let mut odd = one.clone();
            odd[HEAD_BYTES + BODY_BYTES..][..2].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(Messages::of(&odd).count(), 0, "{length}");
        }
    }
}
