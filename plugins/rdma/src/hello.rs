//! What both sides say of themselves while they connect. Pure.
//!
//! ```text
//!  0           4         5       6          8                    12       14
//! +-----------+---------+-------+----------+--------------------+--------+
//! | "INSr"    | version | class | port P   | frame_bytes_max    | window |
//! +-----------+---------+-------+----------+--------------------+--------+
//! ```
//! Numbers are least significant byte first. Class: 0 real-time, 1 best effort. Port P is the
//! sender's own port; with the address that the call comes from it says which peer the sender
//! is. Window: how many messages it has room for before it grants more.

use crate::class::Class;

/// Length of a hello, bytes.
pub(crate) const HELLO_BYTES: usize = 14;
/// The only version there is.
const VERSION: u8 = 1;
const MAGIC: [u8; 4] = *b"INSr";

/// What one side says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Hello {
    pub(crate) class: Class,
    pub(crate) port: u16,
    pub(crate) frame_bytes_max: u32,
    pub(crate) window: u16,
}

impl Hello {
    pub(crate) fn encode(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.class as u8;
        bytes[6..8].copy_from_slice(&self.port.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.frame_bytes_max.to_le_bytes());
        bytes[12..].copy_from_slice(&self.window.to_le_bytes());
        bytes
    }

    /// `None`: no hello of this version. What stands behind it is of no meaning: networks fill
    /// up the words of a call.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let [m0, m1, m2, m3, version, class, p0, p1, f0, f1, f2, f3, w0, w1, ..] = *bytes else { return None };
        if [m0, m1, m2, m3] != MAGIC || version != VERSION {
            return None;
        }
        let class = *Class::BOTH.get(usize::from(class))?;
        let (port, frame_bytes_max) = (u16::from_le_bytes([p0, p1]), u32::from_le_bytes([f0, f1, f2, f3]));
        let window = u16::from_le_bytes([w0, w1]);
        (window > 0).then_some(Hello { class, port, frame_bytes_max, window })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_has_its_form_and_no_other_is_one() {
        let hello = Hello { class: Class::BestEffort, port: 7400, frame_bytes_max: 65_000, window: 16 };
        let bytes = hello.encode();
        assert_eq!(bytes, [b'I', b'N', b'S', b'r', 1, 1, 0xe8, 0x1c, 0xe8, 0xfd, 0, 0, 16, 0]);
        assert_eq!(Hello::decode(&bytes), Some(hello));
        assert_eq!(Hello::decode(&[&bytes[..], &[0; 42]].concat()), Some(hello));
        assert_eq!(Hello::decode(&bytes[..HELLO_BYTES - 1]), None);
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
        assert_eq!(Hello::decode(&Hello { window: 0, ..hello }.encode()), None);
    }
}
