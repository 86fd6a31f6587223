//! The other end of a link's wire, by which any bytes are put on it, past the kernel there.

use insane_conformance::wire::PATIENCE;
use insane_xdp_sys::Xsk;
use std::time::Instant;

/// Puts a frame on the wire.
pub fn throw(wire: &mut Xsk, frame: &[u8]) {
    let end = Instant::now() + PATIENCE;
    let chunk = loop {
        if let Some(chunk) = wire.reserve(0) {
            break chunk;
        }
        assert!(Instant::now() < end, "the wire is full");
        let _ = wire.kick_again(0);
    };
    wire.bytes(&chunk)[..frame.len()].copy_from_slice(frame);
    wire.submit(chunk, 0..frame.len());
    let _ = wire.kick(0);
}
