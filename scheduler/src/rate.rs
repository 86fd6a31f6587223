//! How long bytes take on a link.

use insane_mutation::mutate;

/// Picoseconds in a nanosecond.
const PS: u64 = 1_000;
/// Longest stretch of time whose bytes are asked for: more is as good as this.
const AVAILABLE_NS_MAX: u64 = 10_000_000_000;

/// The rate of a link as the time of a byte, rounded up to a whole picosecond: exact for
/// 10 and 100 Mbit/s, 1, 2.5, 10, 25, 40 and 100 Gbit/s; any other rate counts as at most
/// one picosecond a byte slower. A product with `u32` bytes is below 2^64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkRate {
    ps_per_byte: u32,
}

impl LinkRate {
    /// `None` for zero and for less than 1,863 bit/s.
    #[must_use]
    pub const fn from_bits_per_s(bits_per_s: u64) -> Option<Self> {
        if bits_per_s == 0 {
            return None;
        }
        let ps = 8_000_000_000_000_u64.div_ceil(bits_per_s);
        if ps > u32::MAX as u64 { None } else { Some(LinkRate { ps_per_byte: ps as u32 }) }
    }

    /// Picoseconds of one byte.
    #[must_use]
    pub const fn ps_per_byte(self) -> u32 {
        self.ps_per_byte
    }

    /// How long `bytes` take, nanoseconds, rounded up; saturates.
    #[must_use]
    pub fn duration_ns(self, bytes: u64) -> u64 {
        let ps = bytes.saturating_mul(self.ps_per_byte as u64);
        mutate!(DurationRoundsDown, ps.div_ceil(PS), ps / PS)
    }

    /// How many whole bytes go in `ns`, rounded down; of at most ten seconds.
    #[must_use]
    pub const fn bytes_in(self, ns: u64) -> u64 {
        let ns = if ns > AVAILABLE_NS_MAX { AVAILABLE_NS_MAX } else { ns };
        ns * PS / self.ps_per_byte as u64
    }
}
