//! The checksum of the Internet (RFC 1071): the complement of the sum of 16-bit words in
//! ones' complement.

/// A sum that grows. All pieces but the last have an even number of bytes.
///
/// It is kept in the order of bytes that the machine has: swapping the bytes of all words swaps
/// those of their sum (RFC 1071, section 2), so they are swapped once, at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Sum(0)
    }

    /// With one word more.
    #[must_use]
    #[inline]
    pub const fn word(self, word: u16) -> Self {
        Sum(self.0 + word.to_be() as u64)
    }

    /// With another sum, of pieces with an even number of bytes.
    #[must_use]
    #[inline]
    pub const fn and(self, other: Sum) -> Self {
        Sum(self.0 + other.0)
    }

    /// With these bytes more; an odd one at the end counts as followed by zero.
    ///
    /// Words of 64 bits are added, and what they carry: 2^16 is 1 in this arithmetic, and so are
    /// 2^32 and 2^64, so folding gives the same.
    #[must_use]
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (blocks, rest) = bytes.as_chunks::<32>();
        // Two sums, so that no addition waits for the one before it.
        let (mut even, mut odd) = (0, 0);
        for block in blocks {
            let (words, _) = block.as_chunks::<8>();
            even += wide(words[0]);
            odd += wide(words[1]);
            even += wide(words[2]);
            odd += wide(words[3]);
        }
        let (words, last) = rest.as_chunks::<8>();
        for word in words {
            even += wide(*word);
        }
        if !last.is_empty() {
            let mut word = [0; 8];
            word[..last.len()].copy_from_slice(last);
            odd += wide(word);
        }
        let sum = even + odd;
        let (low, carried) = (sum as u64, (sum >> 64) as u64);
        Sum(self.0 + (low & 0xffff_ffff) + (low >> 32) + carried)
    }

    /// The sum as 16 bits.
    #[must_use]
    #[inline]
    pub const fn folded(self) -> u16 {
        let mut sum = self.0;
        // 64 bits, then at most 33, 18, 17 and 16.
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be(sum as u16)
    }

    /// What goes into the field of the checksum.
    #[must_use]
    #[inline]
    pub const fn check(self) -> u16 {
        !self.folded()
    }

    /// Whether a sum over everything, the field included, is right.
    #[must_use]
    #[inline]
    pub const fn is_right(self) -> bool {
        self.folded() == 0xffff
    }
}

#[inline(always)]
const fn wide(word: [u8; 8]) -> u128 {
    u64::from_ne_bytes(word) as u128
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    /// RFC 1071, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::new().bytes(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
    }

    proptest! {
        #[test]
        fn it_is_the_sum_of_words(bytes in proptest::collection::vec(any::<u8>(), 0..3000), cut in 0usize..1500) {
            prop_assert_eq!(Sum::new().bytes(&bytes).check(), slow(&bytes));
            let cut = (2 * cut).min(bytes.len() / 2 * 2);
            let (front, back) = bytes.split_at(cut);
            prop_assert_eq!(Sum::new().bytes(front).bytes(back).check(), slow(&bytes));
            let mut whole: Vec<u8> = bytes.clone();
            whole.truncate(bytes.len() / 2 * 2);
            let check = Sum::new().bytes(&whole).check();
            prop_assert!(Sum::new().bytes(&whole).word(check).is_right());
        }
    }

    #[test]
    fn the_largest_sum_is_not_lost() {
        let bytes = std::vec![0xff; 70_001];
        assert_eq!(Sum(u64::from(u32::MAX) << 16).bytes(&bytes).folded(), {
            let mut all = std::vec![0xff; 70_000];
            all.extend_from_slice(&[0xff, 0]);
            !slow(&all)
        });
    }
}
