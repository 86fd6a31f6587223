//! Data headers, frames and bundles, as a link hands them to the engine.
//!
//! ```text
//!   0    bit 0: a bundle, else a frame; bit 1: the check is put right | 1.. the datagram
//! ```

use insane_core::limits::MESSAGE_BYTES_MAX;
use insane_wire::bundle::{Opener, is_bundle};
use insane_wire::data::{DataHeader, HEADER_BYTES, seal};

pub(crate) fn feed(input: &[u8]) {
    let Some((&what, datagram)) = input.split_first() else { return };
    let mut datagram = datagram.to_vec();
    if what & 1 != 0 {
        return open(datagram);
    }
    if what & 2 != 0 {
        seal(&mut datagram);
    }
    if let Ok(header) = DataHeader::decode(&datagram) {
        assert_eq!(header.encode()[..], datagram[..HEADER_BYTES], "a header that nobody writes");
        assert!(header.message_len <= MESSAGE_BYTES_MAX, "a message longer than any");
    }
    if let Ok((header, payload)) = DataHeader::decode_frame(&datagram) {
        assert_eq!(payload.len(), datagram.len() - HEADER_BYTES);
        let end = u64::from(header.fragment_offset) + payload.len() as u64;
        assert!(end <= u64::from(header.message_len), "a piece beyond its message");
    }
}

fn open(mut datagram: Vec<u8>) {
    let Some(mut opener) = Opener::new(&datagram) else { return };
    assert!(is_bundle(&datagram));
    let (mut behind, mut frames) = (0, 0);
    while let Some(frame) = opener.next(&mut datagram) {
        assert!(frame.start < frame.end && frame.end <= datagram.len(), "a frame beyond the bundle");
        assert!(frame.end > behind, "no frame further than the one before");
        (behind, frames) = (frame.end, frames + 1);
        assert!(frames <= datagram.len(), "more frames than bytes");
        let _ = DataHeader::decode_frame(&datagram[frame]);
    }
    assert!(opener.is_done(), "what was checked is taken out to its end");
}
