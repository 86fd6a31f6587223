//! What the messages of a channel are: a name for people, and a hash for programs.

use crate::limits::SCHEMA_NAME_BYTES_MAX;
use core::fmt;
use serde::{Deserialize, Serialize};

/// A description of the messages of a channel. Two are the same if their hashes are; the
/// names are for the one who is to mend it. How the hash is made is the applications'
/// affair: over the layout of a struct, say, or the text of a type.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Schema {
    hash: u64,
    /// UTF-8, filled up with zeros.
    name: [u8; SCHEMA_NAME_BYTES_MAX],
}

impl Schema {
    /// A schema. `None`: the name has not 1 to 32 bytes, or holds control characters.
    #[must_use]
    pub fn new(name: &str, hash: u64) -> Option<Self> {
        let mut bytes = [0; SCHEMA_NAME_BYTES_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Schema::from_parts(hash, bytes)
    }

    /// From what [`to_parts`](Self::to_parts) gave, checked as a claim of somebody else.
    #[must_use]
    pub fn from_parts(hash: u64, name: [u8; SCHEMA_NAME_BYTES_MAX]) -> Option<Self> {
        let schema = Schema { hash, name };
        schema.is_valid().then_some(schema)
    }

    /// The hash, and the name filled up with zeros.
    #[must_use]
    pub const fn to_parts(&self) -> (u64, [u8; SCHEMA_NAME_BYTES_MAX]) {
        (self.hash, self.name)
    }

    /// Whether the name is one. Always, unless somebody else wrote it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let used = self.name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let text = core::str::from_utf8(&self.name[..used]);
        used > 0 && text.is_ok_and(|text| !text.chars().any(char::is_control))
    }

    /// The hash.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        let used = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        core::str::from_utf8(&self.name[..used]).unwrap_or_default()
    }

    /// Whether messages of one are messages of the other.
    #[must_use]
    pub const fn matches(&self, other: &Schema) -> bool {
        self.hash == other.hash
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' ({:016x})", self.name(), self.hash)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Schema({self})")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_name_has_1_to_32_bytes_and_is_printable() {
        let longest = "ä".repeat(16);
        assert_eq!(Schema::new(&longest, 7).unwrap().name(), longest);
        for bad in ["", "x\ny", "a\0b", "0123456789012345678901234567890123"] {
            assert_eq!(Schema::new(bad, 7), None, "{bad:?}");
        }
        assert_eq!(Schema::from_parts(1, [0xff; SCHEMA_NAME_BYTES_MAX]), None);
        assert_eq!(Schema::from_parts(1, [0; SCHEMA_NAME_BYTES_MAX]), None);
    }

    #[test]
    fn the_hash_decides_and_both_are_told() {
        let (one, other) = (Schema::new("axis v1", 0x10).unwrap(), Schema::new("axis v2", 0x11).unwrap());
        assert!(!one.matches(&other) && one.matches(&Schema::new("axis, the first", 0x10).unwrap()));
        assert_eq!(one.to_string(), "'axis v1' (0000000000000010)");
        let (hash, name) = one.to_parts();
        assert_eq!(Schema::from_parts(hash, name), Some(one));
    }
}
