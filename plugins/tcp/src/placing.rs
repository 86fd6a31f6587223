//! A large frame whose payload goes straight to where it belongs.
//!
//! What has come of it when its place is found is copied there; the rest the kernel writes
//! there, and behind it, with the same call, the first [`AHEAD_BYTES`] of what follows into
//! the input, so that the head of the next large frame is there when this one is whole. In a
//! steady flow that is one call a frame, and one copy of a byte in all.

use crate::input::Input;
use insane_core::PeerIndex;
use insane_link::{FrameSink, PLACE_HEAD_BYTES_MAX, Ticket};
use insane_sys::tcp::{self, Read};
use std::net::TcpStream;

/// A frame with less payload is gathered: copying it costs less than a call of its own.
pub(crate) const PLACED_BYTES_MIN: usize = 8 * 1024;
/// What is read into the input where a large frame is expected: its head, and little that
/// would have to be copied.
pub(crate) const AHEAD_BYTES: usize = 1024;

/// See the module.
pub(crate) struct Placing {
    head: [u8; PLACE_HEAD_BYTES_MAX],
    head_len: usize,
    /// Bytes behind the head, and how many of them are there.
    rest: usize,
    have: usize,
    /// `None`: the place was taken away, the bytes are thrown away as they come.
    ticket: Option<Ticket>,
}

/// What came of a read.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filled {
    /// The frame is done with; whether the kernel had no more.
    Whole { is_last: bool },
    /// The kernel had no more.
    Part,
    /// The connection is over.
    Ended,
}

impl Placing {
    /// Finds a place for the cut frame at the front of the input, and takes out what is there
    /// of it.
    pub(crate) fn begin<S: FrameSink>(input: &mut Input, from: PeerIndex, sink: &mut S) -> Option<Self> {
        const { assert!(S::HEAD_BYTES <= PLACE_HEAD_BYTES_MAX, "no head is longer than the longest") }
        let (len, bytes) = input.cut()?;
        let rest = len.checked_sub(S::HEAD_BYTES)?;
        let (head, there) = bytes.split_at_checked(S::HEAD_BYTES)?;
        let ticket = sink.place(from, head, rest)?;
        let memory = sink.memory(from, head, rest, ticket)?;
        memory[..there.len()].copy_from_slice(there);
        let have = there.len();
        let mut placing =
            Placing { head: [0; PLACE_HEAD_BYTES_MAX], head_len: head.len(), rest, have, ticket: Some(ticket) };
        placing.head[..head.len()].copy_from_slice(head);
        input.clear();
        Some(placing)
    }

    /// Reads once.
    #[inline]
    pub(crate) fn fill<S: FrameSink>(
        &mut self,
        stream: &TcpStream,
        input: &mut Input,
        from: PeerIndex,
        sink: &mut S,
    ) -> Filled {
        let head = &self.head[..self.head_len];
        let missing = self.rest - self.have;
        let memory = self.ticket.and_then(|ticket| sink.memory(from, head, self.rest, ticket));
        let (read, asked) = if let Some(memory) = memory {
            let ahead = input.room(AHEAD_BYTES);
            let asked = missing + ahead.len();
            (tcp::read_both(stream, &mut memory[self.have..], ahead), asked)
        } else {
            self.ticket = None;
            let room = input.room(missing);
            let asked = room.len();
            (tcp::read(stream, room), asked)
        };
        let count = match read {
            Read::Bytes(count) => count,
            Read::Empty => return Filled::Part,
            Read::Closed | Read::Broken(_) => return Filled::Ended,
        };
        self.have += count.min(missing);
        input.filled(count - count.min(missing));
        if self.have < self.rest {
            // The kernel had no more, or (where bytes are thrown away) there was less room;
            // it tells again then.
            return Filled::Part;
        }
        if let Some(ticket) = self.ticket {
            sink.placed(from, head, self.rest, ticket);
        }
        Filled::Whole { is_last: count < asked }
    }
}
