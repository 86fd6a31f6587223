//! What a link offers for one stream and one peer.

use crate::health::Health;
use crate::technology::Technology;

/// A part of the capacity of a link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Amount {
    /// Streams, each counted once for every peer.
    pub streams: u32,
    /// Bandwidth, bits a second.
    pub bits_per_s: u64,
}

impl Amount {
    /// No bound.
    pub const UNBOUNDED: Amount = Amount { streams: u32::MAX, bits_per_s: u64::MAX };

    /// Whether so much has room in it.
    #[must_use]
    pub const fn holds(self, need: Amount) -> bool {
        self.streams >= need.streams && self.bits_per_s >= need.bits_per_s
    }

    /// Both; saturates.
    #[must_use]
    pub const fn plus(self, other: Amount) -> Amount {
        Amount {
            streams: self.streams.saturating_add(other.streams),
            bits_per_s: self.bits_per_s.saturating_add(other.bits_per_s),
        }
    }

    /// What is left; nothing where more is taken away than there is. Nothing can be taken away
    /// from what is unbounded.
    #[must_use]
    pub const fn minus(self, other: Amount) -> Amount {
        let streams = if self.streams == u32::MAX { u32::MAX } else { self.streams.saturating_sub(other.streams) };
        let bits_per_s =
            if self.bits_per_s == u64::MAX { u64::MAX } else { self.bits_per_s.saturating_sub(other.bits_per_s) };
        Amount { streams, bits_per_s }
    }
}

/// What of a bounded link the stream can get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Room {
    /// What nobody else uses.
    pub free: Amount,
    /// What is used by streams that have to give way to this one.
    pub lower: Amount,
}

/// One link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// What carries it.
    pub technology: Technology,
    /// The peer has it: there is an address for it.
    pub reaches: bool,
    /// How it is.
    pub health: Health,
    /// A time-sensitive stream may use it: its datapath has slots, or is configured to do
    /// without.
    pub takes_time_sensitive: bool,
    /// Traffic of the kernel by the same interface pays for it: with a program of XDP attached,
    /// large sends are cut up by the processor (no GSO), and the MTU is bounded.
    pub costs_kernel_traffic: bool,
    /// What the stream can get of it; `None`: its capacity is not bounded.
    pub room: Option<Room>,
}
