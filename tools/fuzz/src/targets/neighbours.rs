//! What the kernel tells of neighbours, as it comes by rtnetlink.
//!
//! ```text
//!   0..  a datagram: messages, one behind the other
//! ```

use insane_sys::neighbours::{Message, Messages, Whereabouts};
use std::net::IpAddr;

/// A message is not shorter than its head.
const HEAD_BYTES: usize = 16;

pub(crate) fn feed(datagram: &[u8]) {
    let stands_there = |bytes: &[u8]| datagram.windows(bytes.len()).any(|window| window == bytes);
    let mut count = 0;
    for message in Messages::of(datagram) {
        count += 1;
        assert!(count * HEAD_BYTES <= datagram.len(), "more messages than there is room for");
        match message {
            Message::Entry { number, interface, address, whereabouts } => {
                assert!(stands_there(&number.to_ne_bytes()) && stands_there(&interface.to_ne_bytes()));
                let is_there = match address {
                    IpAddr::V4(v4) => stands_there(&v4.octets()),
                    IpAddr::V6(v6) => stands_there(&v6.octets()),
                };
                assert!(is_there, "an address that nobody wrote");
                if let Whereabouts::At { mac, .. } = whereabouts {
                    assert!(stands_there(&mac), "a hardware address that nobody wrote");
                    assert!(mac[0] & 1 == 0 && mac != [0; 6], "a hardware address that is not one station's");
                }
            }
            Message::Refused { number, errno } => {
                assert!(stands_there(&number.to_ne_bytes()));
                assert!(errno as i32 >= 0, "an errno below zero");
            }
        }
    }
}
