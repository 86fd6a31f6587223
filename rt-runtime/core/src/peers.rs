//! Who sent a frame: from address to peer, in constant time.

use crate::PeerIndex;
use crate::limits::PEERS_MAX;
use core::net::{IpAddr, SocketAddr};

/// Places of the table: a power of two, and at most half are taken.
const PLACES: usize = (2 * PEERS_MAX).next_power_of_two();

/// A table of at most [`PEERS_MAX`] addresses, open addressing with linear probing.
///
/// A search ends at the first free place. At most half the places are taken, and
/// only the configuration puts addresses in, so a stranger cannot make it long: it
/// is bounded by the longest run the configured addresses form.
#[derive(Clone, Debug)]
pub struct PeerTable {
    places: [Option<(SocketAddr, PeerIndex)>; PLACES],
    taken: usize,
    /// The place of the last hit: most frames come from the peer of the frame before.
    last: usize,
}

/// Why an address does not go in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// There are [`PEERS_MAX`] already.
    Full,
    /// This peer has it.
    Duplicate(PeerIndex),
}

impl Default for PeerTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PeerTable {
    /// An empty table.
    #[must_use]
    pub const fn new() -> Self {
        PeerTable { places: [None; PLACES], taken: 0, last: 0 }
    }

    /// Puts an address in.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn insert(&mut self, address: SocketAddr, peer: PeerIndex) -> Result<(), Refused> {
        if self.taken == PEERS_MAX {
            return Err(Refused::Full);
        }
        let mut place = first_place(address);
        while let Some((taken_by, other)) = self.places[place] {
            if taken_by == address {
                return Err(Refused::Duplicate(other));
            }
            place = (place + 1) % PLACES;
        }
        self.places[place] = Some((address, peer));
        self.taken += 1;
        Ok(())
    }

    /// Takes an address out, if it is there, and closes the gap: what stands behind it up to
    /// the next free place is put in anew.
    pub fn remove(&mut self, address: SocketAddr) {
        let mut place = first_place(address);
        loop {
            match self.places[place] {
                None => return,
                Some((known, _)) if known == address => break,
                Some(_) => place = (place + 1) % PLACES,
            }
        }
        self.places[place] = None;
        self.taken -= 1;
        self.last = place;
        place = (place + 1) % PLACES;
        while let Some((known, peer)) = self.places[place].take() {
            self.taken -= 1;
            // Its own place, at least, is free, and it was in the table once.
            let _ = self.insert(known, peer);
            place = (place + 1) % PLACES;
        }
    }

    /// Whose address it is.
    #[inline]
    pub fn find(&mut self, address: SocketAddr) -> Option<PeerIndex> {
        match self.places[self.last] {
            Some((known, peer)) if known == address => Some(peer),
            _ => self.search(address),
        }
    }

    fn search(&mut self, address: SocketAddr) -> Option<PeerIndex> {
        let mut place = first_place(address);
        while let Some((known, peer)) = self.places[place] {
            if known == address {
                self.last = place;
                return Some(peer);
            }
            place = (place + 1) % PLACES;
        }
        None
    }
}

/// A multiplicative hash (Fibonacci hashing: 2^64 divided by the golden ratio) of
/// address and port.
fn first_place(address: SocketAddr) -> usize {
    let bits = match address.ip() {
        IpAddr::V4(v4) => u64::from(v4.to_bits()),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64 ^ v6.to_bits() as u64,
    };
    let mixed = (bits ^ u64::from(address.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - PLACES.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv6Addr;

    fn address(number: u16) -> SocketAddr {
        if number.is_multiple_of(2) {
            ([10, 0, 0, number as u8], 7000 + number / 8).into()
        } else {
            (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number), 7000).into()
        }
    }

    #[test]
    fn a_full_table_finds_everybody_and_nobody_else() {
        let mut table = PeerTable::new();
        for number in 0..PEERS_MAX as u16 {
            table.insert(address(number), PeerIndex(number)).unwrap();
        }
        assert_eq!(table.insert(address(200), PeerIndex(0)), Err(Refused::Full));
        for _round in 0..2 {
            for number in 0..200 {
                let expected = (usize::from(number) < PEERS_MAX).then_some(PeerIndex(number));
                assert_eq!(table.find(address(number)), expected, "{}", address(number));
            }
        }
    }

    #[test]
    fn what_is_taken_out_is_not_found_and_hides_nobody() {
        let mut table = PeerTable::new();
        let mut known = std::collections::BTreeMap::new();
        let mut random = 7_u64;
        for _ in 0..20_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (random >> 40) as u16 % 150;
            if random >> 63 == 0 && known.len() < PEERS_MAX {
                let peer = PeerIndex(number);
                assert_eq!(table.insert(address(number), peer).is_ok(), known.insert(number, peer).is_none());
            } else {
                table.remove(address(number));
                known.remove(&number);
            }
            let asked = (random >> 20) as u16 % 150;
            assert_eq!(table.find(address(asked)), known.get(&asked).copied());
        }
        assert_eq!(table.taken, known.len());
    }

    #[test]
    fn port_and_scope_are_part_of_an_address() {
        let mut table = PeerTable::new();
        table.insert("[fe80::1%1]:7000".parse().unwrap(), PeerIndex(1)).unwrap();
        table.insert("[fe80::1%2]:7000".parse().unwrap(), PeerIndex(2)).unwrap();
        assert_eq!(table.find("[fe80::1%2]:7000".parse().unwrap()), Some(PeerIndex(2)));
        assert_eq!(table.find("[fe80::1%1]:7000".parse().unwrap()), Some(PeerIndex(1)));
        assert_eq!(table.find("[fe80::1%1]:7001".parse().unwrap()), None);
        let again = table.insert("[fe80::1%1]:7000".parse().unwrap(), PeerIndex(3));
        assert_eq!(again, Err(Refused::Duplicate(PeerIndex(1))));
    }
}
