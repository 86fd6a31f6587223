//! A message: what one send carries. Pure.
//!
//! ```text
//!  0          4          8
//! +----------+----------+-----------------+----------+------
//! | grant    | length   | header, payload | length   | ...
//! +----------+----------+-----------------+----------+------
//! ```
//! Numbers are four bytes, least significant first. Grant: how many messages with frames the
//! other side may have sent in all since the connection began; it wraps. A message that ends
//! behind it grants, and no more.

/// Bytes in front of the frames.
pub(crate) const HEADER_BYTES: usize = 4;
/// Bytes in front of each frame: its length.
pub(crate) const PREFIX_BYTES: usize = 4;

/// What stands at a place in a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Next<'m> {
    /// A frame; the next one begins behind it.
    Frame(&'m [u8]),
    /// Nothing that could be a frame.
    Garbage,
}

fn number(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// What a message grants. `None`: it is too short to be one.
pub(crate) fn grant(message: &[u8]) -> Option<u32> {
    number(message, 0)
}

/// The frame at `at`, which is moved behind it.
pub(crate) fn next<'m>(message: &'m [u8], at: &mut usize, frame_bytes_max: usize) -> Next<'m> {
    let Some(len) = number(message, *at) else { return Next::Garbage };
    let (start, len) = (*at + PREFIX_BYTES, len as usize);
    if len == 0 || len > frame_bytes_max {
        return Next::Garbage;
    }
    match message.get(start..start + len) {
        Some(frame) => {
            *at = start + len;
            Next::Frame(frame)
        }
        None => Next::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_one_after_another_and_nothing_else_does() {
        let mut message = 7_u32.to_le_bytes().to_vec();
        for frame in [&b"one"[..], b"four", b"x"] {
            message.extend((frame.len() as u32).to_le_bytes());
            message.extend(frame);
        }
        assert_eq!(grant(&message), Some(7));
        assert_eq!(grant(&message[..3]), None);
        let mut at = HEADER_BYTES;
        assert_eq!(next(&message, &mut at, 4), Next::Frame(b"one"));
        assert_eq!(next(&message, &mut at, 4), Next::Frame(b"four"));
        assert_eq!(next(&message, &mut at, 4), Next::Frame(b"x"));
        assert_eq!(at, message.len());
        assert_eq!(next(&message, &mut at, 4), Next::Garbage);
        // Too large, cut, of no bytes, or no length at all.
        assert_eq!(next(&message, &mut 4, 2), Next::Garbage);
        assert_eq!(next(&message[..10], &mut 4, 4), Next::Garbage);
        assert_eq!(next(&[0; 8], &mut 4, 4), Next::Garbage);
        assert_eq!(next(&[1; 6], &mut 4, 4), Next::Garbage);
        assert_eq!(next(&[255; 64], &mut 4, usize::MAX), Next::Garbage);
    }
}
