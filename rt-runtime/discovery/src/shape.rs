//! What a datagram of gossip would cost, before anybody unfolds it. Pure.
//!
//! The library unfolds what it gets, and a small datagram may unfold to hundreds of
//! megabytes. So its shape is walked first, without unfolding: what is no datagram of the
//! version that is spoken here is dropped, and of the others the cost is known.
//!
//! ```text
//! 45139 (u16, little endian) | version 0 | kind | ...
//! kind 0: digest, cluster (text)     kind 1: digest, blocks
//! kind 2: blocks                     kind 3: nothing
//! digest: count (u16), then for each: text, 8 bytes, family (4 or 6), address, port, 24 bytes
//! blocks: 1 packed or 2 plain, length (u16), bytes; at the end 0
//! text: length (u16), bytes
//! ```

/// What a packed block may unfold to, bytes.
const UNFOLDED_BYTES_MAX: u64 = 65_536;
/// What a host takes in the library's tables, bytes, about.
const HOST_BYTES: u64 = 640;

/// The cost of a datagram, bytes; `None`: it is none.
pub(crate) fn cost(datagram: &[u8]) -> Option<u64> {
    let mut walk = Walk(datagram);
    if walk.take(2)? != 45_139_u16.to_le_bytes() || walk.byte()? != 0 {
        return None;
    }
    let mut cost = datagram.len() as u64;
    match walk.byte()? {
        0 => {
            cost += walk.digest()?;
            walk.text()?;
        }
        1 => cost += walk.digest()? + walk.blocks()?,
        2 => cost += walk.blocks()?,
        3 => {}
        _ => return None,
    }
    walk.0.is_empty().then_some(cost)
}

struct Walk<'d>(&'d [u8]);

impl<'d> Walk<'d> {
    fn take(&mut self, count: usize) -> Option<&'d [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn length(&mut self) -> Option<usize> {
        self.take(2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]).into())
    }

    fn text(&mut self) -> Option<()> {
        let length = self.length()?;
        self.take(length).map(|_| ())
    }

    fn digest(&mut self) -> Option<u64> {
        let count = self.length()?;
        for _ in 0..count {
            self.text()?;
            self.take(8)?;
            let address = match self.byte()? {
                4 => 4,
                6 => 16,
                _ => return None,
            };
            self.take(address + 2 + 24)?;
        }
        Some(count as u64 * HOST_BYTES)
    }

    fn blocks(&mut self) -> Option<u64> {
        let mut cost = 0;
        loop {
            match self.byte()? {
                0 => return Some(cost),
                1 => cost += UNFOLDED_BYTES_MAX,
                2 => {}
                _ => return None,
            }
            let length = self.length()?;
            self.take(length)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question, with so many hosts.
    fn question(hosts: u16) -> Vec<u8> {
        let mut bytes = vec![0x53, 0xb0, 0, 0];
        bytes.extend(hosts.to_le_bytes());
        for _ in 0..hosts {
            bytes.extend([2, 0, b'a', b'b']);
            bytes.extend([0; 8]);
            bytes.extend([4, 10, 0, 0, 1, 1, 1]);
            bytes.extend([0; 24]);
        }
        bytes.extend([1, 0, b'c']);
        bytes
    }

    #[test]
    fn hosts_and_packed_blocks_have_their_price() {
        assert_eq!(cost(&question(0)), Some(9));
        assert_eq!(cost(&question(10)), Some(question(10).len() as u64 + 10 * HOST_BYTES));
        let mut bomb = vec![0x53, 0xb0, 0, 2];
        for _ in 0..1000 {
            bomb.extend([1, 3, 0, 9, 9, 9]);
        }
        bomb.push(0);
        assert_eq!(cost(&bomb), Some(bomb.len() as u64 + 1000 * UNFOLDED_BYTES_MAX));
        assert_eq!(cost(&[0x53, 0xb0, 0, 3]), Some(4));
    }

    #[test]
    fn what_is_cut_or_too_long_or_another_version_is_none() {
        let whole = question(3);
        for length in 0..whole.len() {
            assert_eq!(cost(&whole[..length]), None, "{length}");
        }
        let longer: Vec<u8> = whole.iter().copied().chain([0]).collect();
        assert_eq!(cost(&longer), None);
        for (at, value) in [(0, 0), (2, 1), (3, 4), (3, 255)] {
            let mut other = whole.clone();
            other[at] = value;
            assert_eq!(cost(&other), None, "byte {at} is {value}");
        }
        assert_eq!(cost(&[0x53, 0xb0, 0, 2, 3]), None);
    }
}
