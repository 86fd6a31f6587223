//! Identifiers. Each names one kind of thing; none converts into another.

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        id!($(#[$doc])* $name($int), "{}");
    };
    ($(#[$doc:meta])* $name:ident($int:ty), $shown:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $shown, self.0)
            }
        }
        impl $name {
            /// The identifier as an index into a table.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

id!(
    /// One runtime on the network; unique among its peers, from the configuration
    /// (or derived from the host name). Shown as 16 hexadecimal digits.
    HostId(u64),
    "{:016x}"
);
id!(
    /// One life of a runtime: larger after every start, so that frames of an
    /// earlier life are told apart.
    Incarnation(u64)
);
id!(
    /// A stream on the wire: a hash of domain and stream name ([`stream_key`]). Shown as 16
    /// hexadecimal digits.
    StreamKey(u64),
    "{:016x}"
);
id!(
    /// A channel of a stream, chosen by the application.
    ChannelId(u32)
);
id!(
    /// One application attached to one runtime; chosen by the runtime.
    SessionId(u32)
);
id!(
    /// One opened stream of one session; chosen by the runtime.
    StreamId(u32)
);
id!(
    /// A write end; chosen by the runtime, unique in one incarnation.
    SourceId(u32)
);
id!(
    /// A read end; chosen by the runtime, unique in one incarnation.
    SinkId(u32)
);
id!(
    /// A connection: one producer, one consumer, one pair of rings.
    ConnId(u32)
);
id!(
    /// A tenant of this runtime, by its place in the configuration.
    DomainIndex(u16)
);
id!(
    /// A remote runtime, by its place in this runtime's peer table.
    PeerIndex(u16)
);
id!(
    /// A link of a datapath, by its place in the datapath.
    LinkIndex(u8)
);
id!(
    /// A datapath thread, by its place in the configuration.
    DatapathIndex(u8)
);

/// The wire name of a stream: FNV-1a (64 bit) over domain, a zero byte, and name.
///
/// Two different names may collide; JOIN carries the second, independent
/// [`stream_check`] hash, so a collision is refused and not delivered.
#[must_use]
pub const fn stream_key(domain: &str, name: &str) -> StreamKey {
    StreamKey(fnv1a(domain, name, 0xcbf2_9ce4_8422_2325))
}

/// The second hash of a stream's name; see [`stream_key`].
#[must_use]
pub const fn stream_check(domain: &str, name: &str) -> u64 {
    fnv1a(domain, name, 0x6c62_272e_07bb_0142)
}

const fn fnv1a(domain: &str, name: &str, basis: u64) -> u64 {
    let hash = fnv1a_bytes(domain.as_bytes(), basis);
    let hash = fnv1a_bytes(&[0], hash);
    fnv1a_bytes(name.as_bytes(), hash)
}

const fn fnv1a_bytes(bytes: &[u8], mut hash: u64) -> u64 {
    let mut at = 0;
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boundary_between_domain_and_name_counts() {
        assert_ne!(stream_key("ab", "c"), stream_key("a", "bc"));
        assert_ne!(stream_key("a", "b").0, stream_check("a", "b"));
    }
}
