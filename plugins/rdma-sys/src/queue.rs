//! Queue pairs, and what they tell.

use crate::abi::{Piece, QpHead, SEND_INLINE, SEND_SIGNALED, SendWork, WORK_SEND, WorkDone};
use crate::cm::CmId;
use crate::device::{Cq, Device};
use crate::memory::{Outbox, SharedQueue};
use insane_sys::{Errno, OsError};
use libc::c_int;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

/// Marks the numbers of receive buffers.
pub(crate) const RECEIVE_BIT: u64 = 1 << 63;

/// One work request that is done.
#[derive(Debug)]
pub struct Completion {
    pub(crate) id: u64,
    status: u32,
    len: u32,
    qp: u32,
}

impl Completion {
    pub(crate) fn of(done: &WorkDone) -> Self {
        Completion { id: done.wr_id, status: done.status, len: done.byte_len, qp: done.qp_num }
    }

    /// It did what it was to do; otherwise its connection is over.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.status == 0
    }

    /// The library's number of what went wrong; 0: nothing.
    #[must_use]
    pub fn status(&self) -> u32 {
        self.status
    }

    /// The number of the queue pair.
    #[must_use]
    pub fn qp(&self) -> u32 {
        self.qp
    }

    /// How much was received, bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Nothing was received.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The mark given to [`Qp::send`]; `None`: it is of a receive buffer.
    #[must_use]
    pub fn mark(&self) -> Option<u32> {
        (self.id & RECEIVE_BIT == 0).then_some(self.id as u32)
    }
}

/// What one look at a completion queue brought; each entry is handed out once.
pub struct Batch {
    entries: [WorkDone; Batch::LEN],
    at: usize,
    count: usize,
}

impl Batch {
    /// Most that one look brings.
    pub const LEN: usize = 16;

    pub(crate) fn empty() -> Self {
        Batch { entries: [WorkDone::default(); Batch::LEN], at: 0, count: 0 }
    }

    pub(crate) fn room(&mut self) -> *mut WorkDone {
        self.entries.as_mut_ptr()
    }

    pub(crate) fn filled(mut self, count: usize) -> Self {
        self.count = count.min(Batch::LEN);
        self
    }

    /// There may be more in the queue.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.count == Batch::LEN
    }

    /// There was nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl Iterator for Batch {
    type Item = Completion;

    fn next(&mut self) -> Option<Completion> {
        if self.at == self.count {
            return None;
        }
        let done = &self.entries[self.at];
        self.at += 1;
        Some(Completion::of(done))
    }
}

/// Whether a send's end is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// By a completion.
    Wanted,
    /// Only if it fails.
    None,
}

/// How large a queue pair is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QpOptions {
    /// Sends under way at a time.
    pub sends_max: u32,
    /// What is to be copied into the send queue itself if it is that small, bytes.
    pub inline_bytes: u32,
}

/// A queue pair with its connection.
#[derive(Debug)]
pub struct Qp {
    pub(crate) qp: NonNull<QpHead>,
    number: u32,
    inline_bytes: u32,
    post: unsafe extern "C" fn(*mut QpHead, *mut SendWork, *mut *mut SendWork) -> c_int,
    pub(crate) id: CmId,
    /// Held so that they go later.
    _queues: ([Arc<Cq>; 2], Arc<SharedQueue>),
    device: Device,
}

// SAFETY: the driver locks the queues, and librdmacm what it shares.
unsafe impl Send for Qp {}
// SAFETY: as above.
unsafe impl Sync for Qp {}

impl Qp {
    /// Of an identifier that has just got its queue pair.
    pub(crate) fn of(
        id: CmId,
        qp: NonNull<QpHead>,
        inline_bytes: u32,
        cqs: [Arc<Cq>; 2],
        shared: Arc<SharedQueue>,
        device: Device,
    ) -> Result<Arc<Self>, OsError> {
        // SAFETY: the driver has filled in its functions before the context was handed out.
        let post = unsafe { (*device.context().as_ptr()).ops.post_send };
        // SAFETY: the queue pair was just made, and lives as long as the identifier has it.
        let number = unsafe { (*qp.as_ptr()).qp_num };
        let post = post.ok_or(OsError::new("looking for the driver's functions", Errno::ENOSYS))?;
        Ok(Arc::new(Qp { qp, number, inline_bytes, post, id, _queues: (cqs, shared), device }))
    }

    /// The number that completions bear.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The identifier's own number (`context`): what events of the connection bear.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.id.tag()
    }

    /// Sends `len` bytes from `at` of an outbox. The completion bears `mark`; until it came,
    /// the bytes must stay as they are if they are to arrive like that.
    ///
    /// # Errors
    /// The queue is full, the range is none of the outbox, or the connection is over.
    #[inline]
    pub fn send(&self, outbox: &Outbox, at: usize, len: usize, mark: u32) -> Result<(), OsError> {
        self.post(outbox, at, len, mark, Notice::Wanted)
    }

    /// As [`send`](Self::send). Without a notice, the next completion of this queue pair that is
    /// noticed says that this send is done, too; a queue of which none is ever asked for fills up.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    #[inline]
    pub fn post(&self, outbox: &Outbox, at: usize, len: usize, mark: u32, notice: Notice) -> Result<(), OsError> {
        let notice = if notice == Notice::Wanted { SEND_SIGNALED } else { 0 };
        let address = outbox.address(at, len).ok_or(OsError::new("sending from an outbox", Errno::ERANGE))?;
        let mut piece = Piece { addr: address, length: len as u32, lkey: outbox.key() };
        let inline = if len <= self.inline_bytes as usize { SEND_INLINE } else { 0 };
        let mut work = SendWork {
            wr_id: u64::from(mark),
            next: null_mut(),
            sg_list: &raw mut piece,
            num_sge: 1,
            opcode: WORK_SEND,
            send_flags: notice | inline,
            imm_data: 0,
            unions: [0; 11],
        };
        let mut bad = null_mut();
        // SAFETY: the queue pair lives; the driver has read the request when it returns. The
        // memory is registered: once it is not any more, the device refuses to read it.
        let answer = unsafe { (self.post)(self.qp.as_ptr(), &raw mut work, &raw mut bad) };
        if answer == 0 { Ok(()) } else { Err(OsError::new("sending", Errno::from_raw(answer))) }
    }

    /// Ends the connection: what was not done comes back as not good. May be called again.
    pub fn disconnect(&self) {
        // SAFETY: the identifier lives. A refusal means that there is no connection.
        unsafe { (self.device.api().rdma_disconnect)(self.id.as_ptr()) };
    }
}

impl Drop for Qp {
    fn drop(&mut self) {
        // SAFETY: the identifier has this queue pair, and is dropped after it.
        unsafe { (self.device.api().rdma_destroy_qp)(self.id.as_ptr()) };
    }
}
