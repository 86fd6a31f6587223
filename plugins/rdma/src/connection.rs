//! One class of one peer: its connection, and what is to be sent by it.

use crate::bundle::{HEADER_BYTES, PREFIX_BYTES};
use crate::credit::{Credit, SPARE, WINDOW};
use crate::line::{Fresh, Line, Use};
use insane_core::{MonoTime, Nanos};
use insane_rdma_sys::{Device, Outbox, Qp, VerbsError};
use insane_sys::SharedBytes;
use std::sync::Arc;

/// Buffers that are sent from: a window under way, one that was read and not told yet, one
/// that is filled.
pub(crate) const BUFFERS: u32 = WINDOW + 2;
/// Messages that only grant, under way at a time.
const GRANTS: u32 = 4;
/// Sends under way at a time.
pub(crate) const SENDS_MAX: u32 = BUFFERS + GRANTS;
/// Room of a grant: a cache line.
const GRANT_BYTES: usize = 64;
/// Small frames are gathered in a buffer of at least so many bytes.
const GATHER_BYTES: usize = 4096;
/// From here on a message goes without waiting for a flush.
const LARGE_BYTES: usize = 4096;
/// How long a connection without a grant is busy, before its frames fail: longer than a
/// receiver on a shared core is kept waiting, and short beside the time until it is given up,
/// for all receivers of a source wait with it.
const STALL_MAX: Nanos = Nanos::from_millis(100);
/// Marks the sends that only grant.
const GRANT_MARK: u32 = 1;

/// Bytes of one buffer, of either side.
pub(crate) const fn buffer_bytes(frame_bytes_max: u32) -> usize {
    let largest = HEADER_BYTES + PREFIX_BYTES + frame_bytes_max as usize;
    let bytes = if largest < GATHER_BYTES { GATHER_BYTES } else { largest };
    bytes.next_multiple_of(64)
}

/// Receive buffers of one connection.
pub(crate) const RECEIVES: u32 = WINDOW + SPARE;

/// Bytes that one connection sends from.
pub(crate) const fn outbox_bytes(frame_bytes_max: u32) -> usize {
    BUFFERS as usize * buffer_bytes(frame_bytes_max) + GRANTS as usize * GRANT_BYTES
}

/// A connection that the link has.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) qp: Arc<Qp>,
    pub(crate) credit: Credit,
    /// It may be sent by.
    pub(crate) is_open: bool,
    /// It is over; what came by it is still handed out.
    pub(crate) has_ended: bool,
    /// Messages with frames that went, and those that the device is done with; both wrap.
    posted: u32,
    done: u32,
    /// Grants under way, and where the next one is put.
    grants: u32,
    grant_at: u32,
}

/// Notices, with the few looks at the clock that there are, that nothing moves.
#[derive(Clone, Copy, Debug, Default)]
struct Stall {
    /// Messages sent when it was last seen to move, and when that was.
    moved: (u32, MonoTime),
    /// A frame was refused since.
    refused: bool,
    stalled: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) line: Arc<Line>,
    pub(crate) live: Option<Live>,
    outbox: Outbox,
    buffer_bytes: usize,
    /// Bytes in the buffer that is being filled; 0: none is.
    fill: usize,
    stall: Stall,
}

/// What became of a message.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Push {
    /// It went, or there was none.
    Done,
    /// It waits for a grant.
    NoGrant,
    /// The connection is over.
    Broken,
}

impl Connection {
    pub(crate) fn new(line: Arc<Line>, device: &Device, frame_bytes_max: u32) -> Result<Self, VerbsError> {
        let outbox = Outbox::new(device, outbox_bytes(frame_bytes_max))?;
        let buffer_bytes = buffer_bytes(frame_bytes_max);
        Ok(Connection { line, live: None, outbox, buffer_bytes, fill: 0, stall: Stall::default() })
    }

    /// Takes a connection from the door in place of what there was.
    pub(crate) fn go_live(&mut self, fresh: Fresh) {
        let Fresh { qp, window, is_open } = fresh;
        let credit = Credit::new(window);
        self.live = Some(Live { qp, credit, is_open, has_ended: false, posted: 0, done: 0, grants: 0, grant_at: 0 });
        self.fill = 0;
        self.stall = Stall::default();
        if is_open {
            // The other side sends nothing until it heard of us.
            let _ = self.grant();
        }
    }

    /// The connection is over.
    pub(crate) fn lose(&mut self) {
        self.live = None;
        self.fill = 0;
        self.line.let_go();
    }

    /// The connection is over, and what came by it is to be handed out before it is lost.
    /// Returns whether that is news.
    pub(crate) fn end(&mut self) -> bool {
        let Some(live) = &mut self.live else { return false };
        live.is_open = false;
        !std::mem::replace(&mut live.has_ended, true)
    }

    /// The number of the connection.
    pub(crate) fn number(&self) -> Option<u32> {
        self.live.as_ref().map(|live| live.qp.number())
    }

    /// Whether frames may be sent.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.is_open)
    }

    /// Frames wait to be sent.
    #[inline]
    pub(crate) fn has_unsent(&self) -> bool {
        self.fill > 0
    }

    /// Sends are under way.
    pub(crate) fn is_sending(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.posted != live.done || live.grants > 0)
    }

    /// A frame of `len` bytes fits behind those that wait.
    #[inline]
    pub(crate) fn has_room(&self, len: usize) -> bool {
        match &self.live {
            Some(_) if self.fill > 0 => self.fill + PREFIX_BYTES + len <= self.buffer_bytes,
            Some(live) => live.posted.wrapping_sub(live.done) < BUFFERS,
            None => false,
        }
    }

    /// A buffer can be filled as soon as the device tells what it is done with.
    pub(crate) fn waits_for_device(&self) -> bool {
        let is_full = |live: &Live| live.posted.wrapping_sub(live.done) >= BUFFERS;
        self.fill == 0 && self.live.as_ref().is_some_and(is_full)
    }

    /// Puts a frame behind those that wait; [`has_room`](Self::has_room) said so. Returns
    /// whether so much waits that it may go.
    #[inline]
    pub(crate) fn append(&mut self, head: &[u8], payload: SharedBytes<'_>) -> bool {
        let Some(live) = &self.live else { return false };
        let start = (live.posted % BUFFERS) as usize * self.buffer_bytes;
        let buffer = &mut self.outbox.bytes()[start..start + self.buffer_bytes];
        let mut at = if self.fill == 0 { HEADER_BYTES } else { self.fill };
        let len = (head.len() + payload.len()) as u32;
        buffer[at..at + PREFIX_BYTES].copy_from_slice(&len.to_le_bytes());
        at += PREFIX_BYTES;
        buffer[at..at + head.len()].copy_from_slice(head);
        at += head.len();
        at += payload.copy_to(&mut buffer[at..at + payload.len()]);
        self.fill = at;
        at >= LARGE_BYTES
    }

    /// Sends what waits, if it is granted.
    #[inline]
    pub(crate) fn push(&mut self) -> Push {
        if self.fill == 0 {
            return Push::Done;
        }
        let Some(live) = self.live.as_mut().filter(|live| !live.has_ended) else { return Push::Broken };
        if !live.credit.may_send() {
            return Push::NoGrant;
        }
        let start = (live.posted % BUFFERS) as usize * self.buffer_bytes;
        live.credit.send();
        let grant = live.credit.tell();
        self.outbox.bytes()[start..start + HEADER_BYTES].copy_from_slice(&grant.to_le_bytes());
        if live.qp.send(&self.outbox, start, self.fill, 0).is_err() {
            return Push::Broken;
        }
        live.posted = live.posted.wrapping_add(1);
        self.fill = 0;
        Push::Done
    }

    /// Tells the other side what it may send, with a message of its own; later, if too many
    /// of these are under way.
    pub(crate) fn grant(&mut self) -> Push {
        let Some(live) = self.live.as_mut().filter(|live| !live.has_ended) else { return Push::Broken };
        if live.grants == GRANTS {
            return Push::NoGrant;
        }
        let start = BUFFERS as usize * self.buffer_bytes + live.grant_at as usize * GRANT_BYTES;
        let grant = live.credit.tell();
        self.outbox.bytes()[start..start + HEADER_BYTES].copy_from_slice(&grant.to_le_bytes());
        if live.qp.send(&self.outbox, start, HEADER_BYTES, GRANT_MARK).is_err() {
            return Push::Broken;
        }
        live.grants += 1;
        live.grant_at = (live.grant_at + 1) % GRANTS;
        Push::Done
    }

    /// The device is done with a send.
    pub(crate) fn sent(&mut self, mark: u32) {
        let Some(live) = &mut self.live else { return };
        if mark == GRANT_MARK {
            live.grants = live.grants.saturating_sub(1);
        } else {
            live.done = live.done.wrapping_add(1);
        }
    }

    /// A frame found no room. Returns whether that has gone on for too long.
    pub(crate) fn refuse(&mut self) -> bool {
        self.stall.refused = true;
        self.stall.stalled && self.stall.moved.0 == self.posted()
    }

    fn posted(&self) -> u32 {
        self.live.as_ref().map_or(0, |live| live.posted)
    }

    /// Looks whether anything moves.
    pub(crate) fn watch(&mut self, now: MonoTime) {
        let posted = self.posted();
        let stall = &mut self.stall;
        if !stall.refused || stall.moved.0 != posted {
            *stall = Stall { moved: (posted, now), refused: false, stalled: false };
        } else {
            stall.stalled = now.since(stall.moved.1) >= STALL_MAX;
        }
    }
}

impl Drop for Connection {
    /// On the control plane: the door ends what stands.
    fn drop(&mut self) {
        self.live = None;
        self.line.set_use(Use::Gone);
    }
}
