//! Why a link has its place, or none. Printed as a clause without a full stop.

use crate::health::Health;
use crate::technology::Technology;
use core::fmt;

/// Most reasons of one link: of the five that refuse each at most once, or those of a place.
pub const REASONS_MAX: usize = 5;

/// In what one link is better than the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aspect {
    /// It is in better health.
    Health,
    /// Others do not pay for it.
    Cost,
    /// The rule has its technology earlier.
    Order,
    /// It stands earlier in the configuration.
    Configuration,
}

/// One reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The peer has no address on it: it cannot be used.
    PeerLacksIt,
    /// The rule does not have its technology: it is not to be used.
    NotInOrder(Technology),
    /// It failed: it is not used.
    Failed,
    /// The stream is time-sensitive, and its datapath has no slots: it cannot be used.
    NoSlots,
    /// Its streams are as many as its budget allows, none of which gives way.
    NoStreamFree,
    /// The bandwidth of its budget is not enough, whoever gives way.
    NoBandwidthFree {
        /// What is needed, bits a second.
        need: u64,
        /// What could be had, bits a second.
        room: u64,
    },
    /// The place of its technology in the order of the rule, from 0.
    Place(Technology, u8),
    /// How it is, where that is not good.
    Health(Health),
    /// There is room only where less important streams give way.
    Displaces,
    /// Traffic of the kernel by its interface pays, which this request accepts.
    CostAccepted,
    /// Traffic of the kernel by its interface pays, so it goes behind all that cost nobody.
    CostAvoided,
    /// It is the first: it is what the stream is to use.
    First,
    /// In what the one before it is better.
    Behind(Aspect),
}

impl Reason {
    /// Whether it keeps the link from being used.
    #[must_use]
    pub const fn refuses(self) -> bool {
        matches!(
            self,
            Reason::PeerLacksIt
                | Reason::NotInOrder(_)
                | Reason::Failed
                | Reason::NoSlots
                | Reason::NoStreamFree
                | Reason::NoBandwidthFree { .. }
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reason::PeerLacksIt => f.write_str("the peer has no address on it"),
            Reason::NotInOrder(technology) => write!(f, "the rule does not name {technology}"),
            Reason::Failed => f.write_str("it failed: it is gone, or silent while another link hears the peer"),
            Reason::NoSlots => f.write_str("its datapath has no slots for a time-sensitive stream"),
            Reason::NoStreamFree => {
                f.write_str("its budget of streams is used up by streams that are as important, or more")
            }
            Reason::NoBandwidthFree { need, room } => {
                write!(f, "its budget leaves {}, and {} are needed", Bits(room), Bits(need))
            }
            Reason::Place(technology, place) => write!(f, "{technology} is number {} of the rule", place + 1),
            Reason::Health(Health::Good) => f.write_str("heartbeats pass"),
            Reason::Health(Health::HeldDown) => f.write_str("it failed, and has not been good for long enough since"),
            Reason::Health(Health::Unproven) => f.write_str("no heartbeat has passed by it yet"),
            Reason::Health(Health::Failed) => f.write_str("it failed"),
            Reason::Displaces => f.write_str("a less important stream has to give way"),
            Reason::CostAccepted => {
                f.write_str("kernel traffic of its interface pays (no GSO), which this request accepts")
            }
            Reason::CostAvoided => f.write_str("kernel traffic of its interface pays (no GSO), which is to be spared"),
            Reason::First => f.write_str("nothing that can carry the stream is before it"),
            Reason::Behind(Aspect::Health) => f.write_str("the one before is in better health"),
            Reason::Behind(Aspect::Cost) => f.write_str("the one before costs nobody anything"),
            Reason::Behind(Aspect::Order) => f.write_str("the one before stands earlier in the rule"),
            Reason::Behind(Aspect::Configuration) => {
                f.write_str("the one before is as good, and stands earlier in the configuration")
            }
        }
    }
}

/// A bandwidth, as people write it.
#[derive(Clone, Copy, Debug)]
pub struct Bits(pub u64);

impl fmt::Display for Bits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            u64::MAX => f.write_str("no bound"),
            bits if bits.is_multiple_of(1_000_000) && bits > 0 => write!(f, "{} Mbit/s", bits / 1_000_000),
            // Rounded up: what does not fit is not to look as if it did.
            bits => write!(f, "{} kbit/s", bits.div_ceil(1_000)),
        }
    }
}
