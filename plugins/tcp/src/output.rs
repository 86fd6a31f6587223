//! Frames that `send` took and the kernel has not.
//!
//! Small frames are gathered here until [`push`](Output::push); of a large one only
//! what the kernel had no room for is copied. `full` says that bytes are left over
//! because the kernel had no room: then no frame is taken until they are gone, so there
//! is never more here than [`GATHER_BYTES`] and one frame.

use crate::PREFIX_BYTES;
use insane_sys::tcp::{self, Written};
use insane_sys::{Errno, SharedBytes};
use std::net::TcpStream;

/// Frames up to this length, prefix included, are gathered: copying 4 KiB costs a
/// tenth of a system call.
const SMALL_BYTES: usize = 4096;
/// As much is gathered before it is pushed out without waiting for a flush.
const GATHER_BYTES: usize = 16 * 1024;

/// See the module.
pub(crate) struct Output {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    full: bool,
    /// Bytes that the kernel took; wraps.
    written: u64,
}

/// What became of a frame.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Offer {
    Taken,
    Full,
    Broken(Errno),
}

/// What became of the bytes held.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Push {
    Done,
    Full,
    Broken(Errno),
}

/// Bytes that the output of one connection takes.
pub(crate) const fn output_bytes(frame_bytes_max: usize) -> usize {
    GATHER_BYTES + PREFIX_BYTES + frame_bytes_max
}

impl Output {
    pub(crate) fn new(frame_bytes_max: usize) -> Self {
        // Not zero: what is filled is there, and faults in no page later.
        let bytes = vec![u8::MAX; output_bytes(frame_bytes_max)].into_boxed_slice();
        Output { bytes, start: 0, end: 0, full: false, written: 0 }
    }

    /// Whether every frame that was taken is the kernel's now.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// How many bytes the kernel took since the start; wraps.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        (self.start, self.end, self.full) = (0, 0, false);
    }

    /// Takes a frame of at most `frame_bytes_max`, whole or not at all.
    #[inline]
    pub(crate) fn offer(&mut self, stream: &TcpStream, head: &[u8], payload: SharedBytes<'_>) -> Offer {
        let len = head.len() + payload.len();
        let no_room = self.full || (PREFIX_BYTES + len <= SMALL_BYTES && self.end + PREFIX_BYTES + len > GATHER_BYTES);
        if no_room {
            match self.push(stream) {
                Push::Done => {}
                Push::Full => return Offer::Full,
                Push::Broken(errno) => return Offer::Broken(errno),
            }
        }
        let before = self.end;
        self.append(&(len as u32).to_le_bytes());
        self.append(head);
        if PREFIX_BYTES + len <= SMALL_BYTES {
            self.append_shared(payload);
            return Offer::Taken;
        }
        self.offer_large(stream, before, payload)
    }

    /// Prefix and head stand behind `before` already.
    fn offer_large(&mut self, stream: &TcpStream, before: usize, payload: SharedBytes<'_>) -> Offer {
        let count = match tcp::write_both(stream, &self.bytes[..self.end], payload) {
            Written::Bytes(count) => count,
            Written::Full => 0,
            Written::Broken(errno) => return Offer::Broken(errno),
        };
        self.written = self.written.wrapping_add(count as u64);
        if count >= self.end {
            let rest = payload.part(count - self.end, usize::MAX);
            self.clear();
            self.append_shared(rest);
            self.full = !rest.is_empty();
            return Offer::Taken;
        }
        self.start = count;
        if count > before {
            self.append_shared(payload);
            self.full = true;
            return Offer::Taken;
        }
        // Not a byte of this frame went, so it was not taken.
        self.end = before;
        self.full = true;
        if self.start == self.end {
            self.clear();
        }
        Offer::Full
    }

    /// Pushes out what is held, with one call.
    #[inline]
    pub(crate) fn push(&mut self, stream: &TcpStream) -> Push {
        if self.is_empty() {
            return Push::Done;
        }
        match tcp::write(stream, &self.bytes[self.start..self.end]) {
            Written::Bytes(count) => {
                self.start += count;
                self.written = self.written.wrapping_add(count as u64);
            }
            Written::Full => {}
            Written::Broken(errno) => return Push::Broken(errno),
        }
        if self.start == self.end {
            self.clear();
            return Push::Done;
        }
        self.full = true;
        Push::Full
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    fn append_shared(&mut self, bytes: SharedBytes<'_>) {
        let room = &mut self.bytes[self.end..self.end + bytes.len()];
        self.end += bytes.copy_to(room);
    }
}
