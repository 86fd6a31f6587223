//! The first bytes of a connection, in both directions. Pure.
//!
//! ```text
//!  0           4         5       6          8                    12
//! +-----------+---------+-------+----------+--------------------+
//! | "INSt"    | version | class | port P   | frame_bytes_max    |
//! +-----------+---------+-------+----------+--------------------+
//! ```
//! Numbers are least significant byte first. Class: 0 real-time, 1 best effort. Port
//! P is the sender's own first port; with the address that the connection comes from
//! it says which peer the sender is, however many runtimes a host has.

use crate::class::Class;

/// Length of a hello, bytes.
pub const HELLO_BYTES: usize = 12;
/// The only version there is.
pub const VERSION: u8 = 1;

const MAGIC: [u8; 4] = *b"INSt";

/// What one side says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) class: Class,
    pub(crate) port: u16,
    pub(crate) frame_bytes_max: u32,
}

impl Hello {
    pub(crate) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.class as u8;
        bytes[6..8].copy_from_slice(&self.port.to_le_bytes());
        bytes[8..].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        bytes
    }

    /// `None`: no hello of this version.
    pub(crate) fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let [m0, m1, m2, m3, version, class, p0, p1, f0, f1, f2, f3] = *bytes;
        if [m0, m1, m2, m3] != MAGIC || version != VERSION {
            return None;
        }
        let class = *Class::BOTH.get(usize::from(class))?;
        let (port, frame_bytes_max) = (u16::from_le_bytes([p0, p1]), u32::from_le_bytes([f0, f1, f2, f3]));
        Some(Hello { class, port, frame_bytes_max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_has_its_form_and_no_other_is_one() {
        let hello = Hello { class: Class::BestEffort, port: 7400, frame_bytes_max: 65_000 };
        let bytes = hello.encode();
        assert_eq!(bytes, [b'I', b'N', b'S', b't', 1, 1, 0xe8, 0x1c, 0xe8, 0xfd, 0, 0]);
        assert_eq!(Hello::decode(&bytes), Some(hello));
        for at in 0..5 {
            let mut wrong = bytes;
            wrong[at] ^= 0x20;
            assert_eq!(Hello::decode(&wrong), None, "byte {at}");
        }
        for class in 2..=255 {
            let mut wrong = bytes;
            wrong[5] = class;
            assert_eq!(Hello::decode(&wrong), None, "class {class}");
        }
    }
}
