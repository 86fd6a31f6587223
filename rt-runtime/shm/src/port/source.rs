//! The hot half of a source.

mod past;

pub use past::{Earlier, end_of_past};

use super::{
    Attachment, Change, Graveyard, Held, LET_GO_MAX, Mail, Mailbox, Owned, Pool, REPORT_TRIES, STALE, Stacked, Words,
};
use crate::Violation;
use crate::cell::Meta;
use crate::conn::TxConn;
use crate::counters::CounterBlock;
use crate::heap::SenderHeap;
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::heap::{BufferId, Geometry};
use insane_core::limits::{FANOUT_MAX, INLINE_BYTES_MAX, OUTCOMES_KEPT};
use insane_sys::clock::mono_now;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// Small buffers that may be out at once; they live in the port, not in a heap.
const STAGES: usize = 32;
/// Those of them that are in the pool; one is at hand.
const POOLED: usize = STAGES - 1;
/// Local receivers, and the datapath.
const CONNS_MAX: usize = FANOUT_MAX + 1;
/// Loans between two looks at what receivers gave back, while buffers last: two lines of
/// what they gave back.
const LOANS_PER_LOOK: u32 = 2 * crate::returns::BATCH as u32;
/// No emit has this sequence number.
const NEVER: u64 = u64::MAX;
/// In place of a number: a small buffer, in a stage of the pool. No heap has a buffer of this
/// number: 65,536 is the most.
const STAGED: u32 = u32::MAX;
/// The same, in the stage at hand.
const AT_HAND: u32 = u32::MAX - 1;
/// What the word beside the epoch holds while the stage at hand is free.
const FREE: u64 = 1;
/// What it holds else, and in a forked child.
const TAKEN: u64 = 0;

/// Names one emit of one source. Another source does not notice that it is not its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    sequence: u64,
}

impl Token {
    /// The sequence number that the message bears.
    #[must_use]
    pub const fn sequence(self) -> u64 {
        self.sequence
    }
}

/// What became of an emit. The last [`OUTCOMES_KEPT`] are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It was published.
    Published {
        /// Receivers whose ring took it (the network counts as one).
        receivers: u16,
        /// Receivers whose ring was full.
        dropped: u16,
        /// Nobody holds the buffer any more. Messages of up to 96 bytes travel by
        /// copy and are released at once.
        released: bool,
    },
    /// Too long ago, or never emitted.
    Unknown,
}

/// Why an emit was refused. The buffer comes back with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Reliable stream: a receiver's ring is full, or it holds its share of the buffers. Try again
    /// later; a receiver of this host that takes nothing for half a second
    /// ([`STALL_TIMEOUT`](crate::conn::STALL_TIMEOUT)) is not waited for where another one goes on.
    #[error("a receiver of the reliable stream has no room")]
    NoRoom,
    /// The runtime is gone and no local receiver is left.
    #[error("the runtime is gone and no local receiver is left")]
    Detached,
    /// This process was forked from the one that owns the source.
    #[error("the source belongs to the process that this one was forked from")]
    Forked,
}

/// Whether an emit was taken.
#[must_use = "a refused buffer comes back and is lost if it is dropped"]
#[derive(Debug)]
pub enum Emit<B> {
    /// Published to whoever receives; the token asks for the outcome.
    Sent(Token),
    /// Nothing was published; here is the buffer, and why.
    Refused(B, Refusal),
}

impl<B> Emit<B> {
    /// The token, if it was sent.
    #[must_use]
    pub fn sent(self) -> Option<Token> {
        match self {
            Emit::Sent(token) => Some(token),
            Emit::Refused(..) => None,
        }
    }

    /// Whether it was sent.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        matches!(self, Emit::Sent(_))
    }
}

/// Why there is no buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GetBufferError {
    /// Larger than the source's largest buffer, bytes.
    #[error("the source's largest buffer has {max} bytes")]
    TooLarge {
        /// The largest.
        max: usize,
    },
    /// All are in use: by this application, or by receivers that still read them.
    #[error("all buffers of that size are in use")]
    Exhausted,
    /// This process was forked from the one that owns the source.
    #[error("the source belongs to the process that this one was forked from")]
    Forked,
}

/// Where a small buffer lies while it is out.
#[repr(C, align(64))]
struct Stage {
    bytes: [u8; INLINE_BYTES_MAX],
    below: Option<NonNull<Stage>>,
}

impl Stage {
    const EMPTY: Stage = Stage { bytes: [0; INLINE_BYTES_MAX], below: None };
}

impl Stacked for Stage {
    #[inline(always)]
    unsafe fn below(place: NonNull<Stage>) -> *mut Option<NonNull<Stage>> {
        // SAFETY: the caller's promise.
        unsafe { &raw mut (*place.as_ptr()).below }
    }
}

/// What became of an emit that was not plain.
#[derive(Clone, Copy)]
struct Emitted {
    sequence: u64,
    buffer: u32,
    receivers: u16,
    dropped: u16,
}

struct Inner {
    epoch: u64,
    sequence: u64,
    reliable: bool,
    attachment: Attachment,
    /// As `lone_epoch`, if besides the receiver never sleeps and nothing is to be done after an
    /// emit; else [`STALE`].
    plain_epoch: u64,
    /// The epoch, if there is one receiver, which does not only watch, and the stream is
    /// unreliable; else [`STALE`].
    lone_epoch: u64,
    /// That receiver, unless `lone_epoch` is [`STALE`]: a connection is taken out by this thread
    /// alone, as it reads its mail or finds a liar, and both end in setting these three anew.
    lone: NonNull<TxConn>,
    /// Something is done after each emit.
    has_sequel: bool,
    /// Those of `conns` that are receivers, and do not only watch.
    receivers: usize,
    stages: Pool<Stage, POOLED>,
    /// Since the last look at what receivers gave back.
    loans: u32,
    conns: heapless::Vec<Owned<TxConn>, CONNS_MAX>,
    /// Closed, and nobody's receivers; but these may still read what they hold.
    let_go: heapless::Vec<Owned<TxConn>, LET_GO_MAX>,
    heap: Option<SenderHeap>,
    /// Of the last emits those that were not plain: an emit that is not here took no
    /// buffer, went to one receiver, and was dropped for none.
    emitted: [Emitted; OUTCOMES_KEPT],
    counters: CounterBlock,
    /// Why the last emit was refused, if it was.
    refusal: Refusal,
    mailbox: Held<TxConn>,
    /// The epoch at which every sink had what was emitted before it joined.
    replayed_epoch: u64,
}

/// The hot half of a source.
pub struct SourcePort {
    inner: UnsafeCell<Inner>,
    /// The stage at hand. Apart, since a loan looks at it while `inner` is used.
    hand: UnsafeCell<Stage>,
}

// SAFETY: everything inside may move to another thread (`RegionCells`, `Region` and the
// mailbox are `Send`, stages and connections are the port's own); `UnsafeCell` keeps the port
// from being shared between threads, and
// loans borrow the port, so none is out when it moves.
unsafe impl Send for SourcePort {}

/// A buffer on loan: bytes to fill, then to emit. Dropped without being emitted, it is
/// free again. A child that was forked while it was out must not touch its bytes: they
/// are not mapped there.
pub struct Loan<'p> {
    port: &'p SourcePort,
    start: NonNull<u8>,
    len: usize,
    id: u32,
}

impl SourcePort {
    /// A port with nobody connected. `heap` holds what does not travel in a cell.
    ///
    /// # Errors
    /// No memory.
    pub fn new(
        heap: Option<SenderHeap>,
        reliable: bool,
        counters: CounterBlock,
    ) -> std::io::Result<(Self, Arc<Mailbox<TxConn>>)> {
        let mailbox = Arc::new(Mailbox::new()?);
        let inner = Inner {
            epoch: 1,
            sequence: 0,
            reliable,
            attachment: Attachment::Attached,
            plain_epoch: STALE,
            lone_epoch: STALE,
            lone: NonNull::dangling(),
            has_sequel: false,
            receivers: 0,
            stages: Pool::new(Box::new([const { Stage::EMPTY }; POOLED])),
            loans: 0,
            conns: heapless::Vec::new(),
            let_go: heapless::Vec::new(),
            heap,
            emitted: [Emitted { sequence: NEVER, buffer: STAGED, receivers: 0, dropped: 0 }; OUTCOMES_KEPT],
            counters,
            refusal: Refusal::NoRoom,
            mailbox: Held::new(&mailbox),
            replayed_epoch: STALE,
        };
        inner.mailbox.words.set_beside(FREE);
        Ok((SourcePort { inner: UnsafeCell::new(inner), hand: UnsafeCell::new(Stage::EMPTY) }, mailbox))
    }

    /// Says that what is to be done after an emit ([`emit_and`](Self::emit_and)) is always to be
    /// done; else that is only so where the emit leaves the usual path.
    #[must_use]
    pub fn with_sequel(mut self) -> Self {
        let inner = self.inner.get_mut();
        // Nothing is plain any more, also where mail was read before.
        (inner.has_sequel, inner.plain_epoch) = (true, STALE);
        self
    }

    #[expect(clippy::mut_from_ref, reason = "the port is one thread's; see below")]
    #[inline]
    fn inner(&self) -> &mut Inner {
        // SAFETY: the port is not `Sync`, so one thread is here; every caller is a
        // method of this file that ends its use before it returns and calls no code
        // that could come back in (module documentation).
        unsafe { &mut *self.inner.get() }
    }

    /// A buffer of `len` bytes. What it holds is left over from earlier messages.
    ///
    /// # Errors
    /// See [`GetBufferError`].
    #[inline(always)]
    pub fn get_buffer(&self, len: usize) -> Result<Loan<'_>, GetBufferError> {
        if len <= INLINE_BYTES_MAX {
            // A forked child reads that it is taken.
            let words = self.inner().mailbox.words;
            if words.beside() == FREE {
                words.set_beside(TAKEN);
                return Ok(Loan { port: self, start: self.at_hand(), len, id: AT_HAND });
            }
        }
        let (start, id) = self.get_another(len)?;
        Ok(Loan { port: self, start, len, id })
    }

    #[inline(always)]
    fn at_hand(&self) -> NonNull<u8> {
        NonNull::from(&self.hand).cast()
    }

    /// A buffer of the heap, or a small one that is not the one at hand.
    #[cold]
    #[inline(never)]
    fn get_another(&self, len: usize) -> Result<(NonNull<u8>, u32), GetBufferError> {
        let inner = self.inner();
        if inner.mailbox.now() != inner.epoch && !inner.read_mail() {
            return Err(GetBufferError::Forked);
        }
        if len <= INLINE_BYTES_MAX
            && let Some(stage) = inner.stages.take()
        {
            return Ok((stage.cast(), STAGED));
        }
        inner.loan_heap(len).ok_or_else(|| inner.no_buffer(len))
    }

    /// Whether anybody would get a message emitted now; who only watches does not count.
    pub fn has_receivers(&self) -> bool {
        self.receivers() > 0
    }

    /// Receivers of a message emitted now; a datapath counts as one, who only watches as none.
    pub fn receivers(&self) -> usize {
        let inner = self.inner();
        let is_here = inner.mailbox.now() == inner.epoch || inner.read_mail();
        if is_here { inner.receivers } else { 0 }
    }

    /// Publishes these messages, the oldest first, to the sinks of this host that joined since
    /// the last call, to datapaths that ask for them in the name of peers, and to nobody
    /// else: the newest that their rings hold and that find a buffer, 16 at most. A datapath whose
    /// ring has no room gets them with a later call. They count as no emit, and have no
    /// outcome. Returns how many receivers it were.
    pub fn replay(&self, earlier: &[Earlier<'_>]) -> usize {
        let inner = self.inner();
        if inner.mailbox.now() != inner.epoch && !inner.read_mail() {
            return 0;
        }
        let mut joined = 0;
        if inner.epoch != inner.replayed_epoch {
            joined += inner.replay(earlier);
        }
        if inner.conns.iter().any(|conn| conn.is_asked()) {
            joined += inner.answer(earlier);
        }
        joined
    }

    /// The next sequence number.
    pub fn next_sequence(&self) -> u64 {
        self.inner().sequence
    }

    /// Publishes a filled buffer to every receiver. `source_ns` is the instant that the
    /// message bears; 0: none. Never blocks.
    ///
    /// # Panics
    /// If the buffer is another port's.
    #[inline(always)]
    pub fn emit<'p>(&'p self, loan: Loan<'p>, source_ns: u64) -> Emit<Loan<'p>> {
        self.emit_and(loan, source_ns, || ())
    }

    /// As [`emit`](Self::emit), and `after` it: always where the port was made
    /// [with a sequel](Self::with_sequel).
    ///
    /// # Panics
    /// If the buffer is another port's.
    #[inline(always)]
    pub fn emit_and<'p>(&'p self, loan: Loan<'p>, source_ns: u64, after: impl FnOnce()) -> Emit<Loan<'p>> {
        let (start, len, id) = self.parts(loan);
        if id == AT_HAND {
            // SAFETY: the stage was the loan's alone, and the loan was ours.
            let bytes = unsafe { std::slice::from_raw_parts(self.at_hand().as_ptr(), len) };
            let inner = self.inner();
            let words = inner.mailbox.words;
            if let Some(token) = inner.emit_plain(words, bytes, source_ns) {
                words.set_beside(FREE);
                return Emit::Sent(token);
            }
        }
        match self.emit_otherwise(start, len, id, source_ns, after) {
            Some(token) => Emit::Sent(token),
            // Put together again.
            None => Emit::Refused(Loan { port: self, start, len, id }, self.inner().refusal),
        }
    }

    /// Start, length and number of a loan, so that it needs no place in memory.
    #[inline(always)]
    fn parts(&self, loan: Loan<'_>) -> (NonNull<u8>, usize, u32) {
        assert!(std::ptr::eq(self, loan.port), "a buffer is emitted by the source that lent it");
        let Loan { start, len, id, .. } = *std::mem::ManuallyDrop::new(loan);
        (start, len, id)
    }

    /// Only for the parts of a loan, once. They come one by one, so that they need no place in
    /// memory. `None`: refused, and the loan goes on.
    #[cold]
    #[inline(never)]
    fn emit_otherwise(
        &self,
        start: NonNull<u8>,
        len: usize,
        id: u32,
        source_ns: u64,
        after: impl FnOnce(),
    ) -> Option<Token> {
        let inner = self.inner();
        let emitted = if id >= AT_HAND {
            // SAFETY: the stage was the loan's alone, and the loan was ours.
            let bytes = unsafe { std::slice::from_raw_parts(start.as_ptr(), len) };
            let emitted = inner.emit_inline(bytes, source_ns);
            if emitted.is_some() {
                inner.leave_stage(start, id);
            }
            emitted
        } else {
            inner.emit_heap(BufferId(id), len, source_ns)
        };
        // Should `after` panic, what was refused is given up.
        let refused = emitted.is_none().then(|| Loan { port: self, start, len, id });
        after();
        std::mem::forget(refused);
        emitted
    }

    /// Publishes a copy of at most 96 bytes without a buffer; `None` if they are more.
    #[inline]
    pub fn emit_copy(&self, bytes: &[u8], source_ns: u64) -> Option<Emit<()>> {
        self.emit_copy_and(bytes, source_ns, || ())
    }

    /// As [`emit_copy`](Self::emit_copy), and `after` it, as with [`emit_and`](Self::emit_and).
    #[inline(always)]
    pub fn emit_copy_and(&self, bytes: &[u8], source_ns: u64, after: impl FnOnce()) -> Option<Emit<()>> {
        if bytes.len() > INLINE_BYTES_MAX {
            return None;
        }
        let inner = self.inner();
        if let Some(token) = inner.emit_plain(inner.mailbox.words, bytes, source_ns) {
            return Some(Emit::Sent(token));
        }
        Some(self.emit_copy_otherwise(bytes, source_ns, after))
    }

    #[cold]
    #[inline(never)]
    fn emit_copy_otherwise(&self, bytes: &[u8], source_ns: u64, after: impl FnOnce()) -> Emit<()> {
        let inner = self.inner();
        let emitted = match inner.emit_inline(bytes, source_ns) {
            Some(token) => Emit::Sent(token),
            None => Emit::Refused((), inner.refusal),
        };
        after();
        emitted
    }

    /// What became of an emit: remembered for the last [`OUTCOMES_KEPT`].
    pub fn outcome(&self, token: Token) -> Outcome {
        let inner = self.inner();
        inner.reclaim();
        let entry = inner.emitted[token.sequence as usize % OUTCOMES_KEPT];
        if token.sequence >= inner.sequence || inner.sequence - token.sequence > OUTCOMES_KEPT as u64 {
            return Outcome::Unknown;
        }
        if entry.sequence != token.sequence {
            // The emit that had the place before is older: this one was plain.
            return Outcome::Published { receivers: 1, dropped: 0, released: true };
        }
        let released = entry.buffer == STAGED
            || inner.heap.as_ref().is_none_or(|heap| !heap.is_lent(BufferId(entry.buffer)))
            || inner.is_used_since(entry.buffer, token.sequence);
        Outcome::Published { receivers: entry.receivers, dropped: entry.dropped, released }
    }

    /// Buffers of the heap that this application or a receiver holds.
    pub fn buffers_in_use(&self) -> u32 {
        let inner = self.inner();
        inner.reclaim();
        inner.heap.as_ref().map_or(0, SenderHeap::in_use)
    }

    #[inline(never)]
    fn give_up(&self, start: NonNull<u8>, id: u32) {
        let inner = self.inner();
        if id >= AT_HAND {
            inner.leave_stage(start, id);
        } else if let Some(heap) = &mut inner.heap {
            heap.release(BufferId(id));
        }
    }
}

impl Drop for SourcePort {
    fn drop(&mut self) {
        if self.inner.get_mut().mailbox.is_forked() {
            // The rings are the parent's, and not mapped here.
            return;
        }
        let inner = self.inner.get_mut();
        for conn in &mut inner.conns {
            conn.abandon(None);
        }
    }
}

impl std::fmt::Debug for SourcePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SourcePort")
    }
}

impl Inner {
    /// Whether there is one receiver, unreliable, and no mail: then nothing is to be looked
    /// at before an emit.
    #[inline(always)]
    fn is_lone(&self) -> bool {
        self.mailbox.now() == self.lone_epoch
    }

    /// Whether an emit may go on; if not, `refusal` says why.
    fn may_emit(&mut self, in_buffer: bool) -> bool {
        if self.mailbox.now() != self.epoch && !self.read_mail() {
            self.refusal = Refusal::Forked;
            return false;
        }
        if self.receivers == 0 && self.attachment == Attachment::Detached {
            self.refusal = Refusal::Detached;
            return false;
        }
        if self.reliable && !self.all_have_room(in_buffer) && !self.put_out_who_stalls(in_buffer) {
            self.refusal = Refusal::NoRoom;
            self.count(PortCounter::Refused, 1);
            return false;
        }
        true
    }

    fn all_have_room(&mut self, in_buffer: bool) -> bool {
        // A receiver that lies about its head counts as having room: publishing finds
        // it out and drops it.
        // Nobody waits for who only watches, or was put out.
        self.conns.iter_mut().all(|conn| room(conn, in_buffer) != Ok(false) || conn.is_not_waited_for())
    }

    /// Somebody has no room. Whether the emit goes on all the same: whoever has no room has
    /// taken nothing for too long, and another receiver has room; then those are put out.
    /// Where nobody could go on without them, they are waited for.
    #[cold]
    fn put_out_who_stalls(&mut self, in_buffer: bool) -> bool {
        // What somebody gave back shows that it lives, also where no buffer is wanted.
        self.reclaim();
        if self.receivers < 2 {
            return false;
        }
        let now = mono_now();
        let (mut others, mut is_over, mut lied) = (false, true, false);
        for conn in self.conns.iter_mut().filter(|conn| !conn.observes()) {
            match room(conn, in_buffer) {
                // Also one that was put out, and gets this message.
                Ok(true) => others = true,
                Ok(false) if conn.is_put_out() => {}
                // Each is asked: its time begins with the first question.
                Ok(false) => is_over &= conn.is_stalled(now, in_buffer),
                Err(_) => {}
            }
            // Who lies does not go on, and is no reason to put others out.
            lied |= conn.lie().is_some();
        }
        if lied {
            self.put_liars_out();
            return false;
        }
        if !(others && is_over) {
            return false;
        }
        let mut count = 0;
        for conn in self.conns.iter_mut().filter(|conn| !conn.is_not_waited_for()) {
            if room(conn, in_buffer) == Ok(false) {
                conn.put_out();
                count += 1;
            }
        }
        self.count(PortCounter::PutOut, count);
        true
    }

    /// Publishes up to 96 bytes in the plain case: to the one receiver, which has room and never
    /// sleeps. Any other is left to [`emit_inline`](Self::emit_inline), untouched.
    #[inline(always)]
    fn emit_plain(&mut self, words: Words, bytes: &[u8], source_ns: u64) -> Option<Token> {
        if words.now() != self.plain_epoch {
            return None;
        }
        let sequence = self.sequence;
        // SAFETY: `plain_epoch` is an epoch, so not stale: `lone` is the one of `conns` (see
        // the field), and none of those is referred to here.
        let conn = unsafe { self.lone.as_mut() };
        if !conn.push_inline_plain(Meta { sequence, source_ns, lost: 0 }, bytes) {
            return None;
        }
        self.count_from(sequence, bytes.len());
        Some(Token { sequence })
    }

    /// Publishes up to 96 bytes: here to one receiver with room.
    #[inline(always)]
    fn emit_inline(&mut self, bytes: &[u8], source_ns: u64) -> Option<Token> {
        let meta = Meta { sequence: self.sequence, source_ns, lost: 0 };
        if self.is_lone() {
            // SAFETY: as in `emit_plain`.
            let conn = unsafe { self.lone.as_mut() };
            if conn.push_inline_plain(meta, bytes) {
                let token = self.count_one(bytes.len());
                if conn.may_sleep() {
                    self.wake_the_one();
                }
                return Some(token);
            }
        }
        self.emit_inline_to_all(bytes, source_ns)
    }

    /// The end of a small loan.
    #[inline(always)]
    fn leave_stage(&mut self, start: NonNull<u8>, id: u32) {
        if id == STAGED {
            // SAFETY: a stage of this port's pool, and its loan is over.
            unsafe { self.stages.leave(start.cast()) };
        } else if !self.mailbox.is_forked() {
            // In a forked child it stays taken, so that the child is told.
            self.mailbox.words.set_beside(FREE);
        }
    }

    #[inline(never)]
    fn emit_inline_to_all(&mut self, bytes: &[u8], source_ns: u64) -> Option<Token> {
        if !self.may_emit(false) {
            return None;
        }
        let mut sent = Sent::default();
        let meta = Meta { sequence: self.sequence, source_ns, lost: 0 };
        for conn in &mut self.conns {
            if conn.try_push_inline(meta, bytes) == Ok(true) {
                sent.taken(conn);
                wake_if_wanted(conn, &self.counters);
            } else {
                sent.not_taken(conn);
            }
        }
        Some(self.after_emit(STAGED, bytes.len(), sent))
    }

    #[inline(always)]
    fn emit_heap(&mut self, id: BufferId, len: usize, source_ns: u64) -> Option<Token> {
        let meta = Meta { sequence: self.sequence, source_ns, lost: 0 };
        if self.is_lone()
            && let Some(heap) = &mut self.heap
        {
            // SAFETY: as in `emit_plain`.
            let conn = unsafe { self.lone.as_mut() };
            if conn.push_heap_plain(meta, id, len as u32) {
                heap.lend_to(id, 1);
                let is_last = self.loans + 1 >= LOANS_PER_LOOK || !heap.has_more(id);
                let token = self.note(id.0, len, 1, 0);
                if conn.may_sleep() {
                    self.wake_the_one();
                }
                if is_last {
                    self.look_ahead();
                }
                return Some(token);
            }
        }
        self.emit_heap_to_all(id, len, source_ns)
    }

    #[inline(never)]
    fn emit_heap_to_all(&mut self, id: BufferId, len: usize, source_ns: u64) -> Option<Token> {
        // What came back since the buffer was lent counts: a refused emit is tried again
        // with the same buffer.
        self.reclaim();
        if !self.may_emit(true) {
            return None;
        }
        let mut sent = Sent::default();
        let meta = Meta { sequence: self.sequence, source_ns, lost: 0 };
        let observers = (self.conns.len() - self.receivers) as u32;
        for conn in &mut self.conns {
            if conn.observes() {
                let geometry = self.heap.as_ref().map(|heap| heap.geometry());
                conn.set_share(geometry.map_or(0, |geometry| spare_buffers(geometry, len as u32, observers)));
            }
            if conn.try_push_heap(meta, id, len as u32) == Ok(true) {
                sent.taken(conn);
                wake_if_wanted(conn, &self.counters);
            } else {
                sent.not_taken(conn);
            }
        }
        // Nothing was taken back meanwhile, so nobody missed that the buffer is lent.
        self.heap.as_mut()?.lend_to(id, sent.receivers + sent.observers);
        Some(self.after_emit(id.0, len, sent))
    }

    /// Whether an emit after this one, which is remembered, took the same buffer: at most
    /// [`OUTCOMES_KEPT`] steps.
    fn is_used_since(&self, buffer: u32, sequence: u64) -> bool {
        (sequence + 1..self.sequence)
            .map(|later| (later, &self.emitted[later as usize % OUTCOMES_KEPT]))
            .any(|(later, emitted)| emitted.sequence == later && emitted.buffer == buffer)
    }

    /// Remembers what became of an emit that was not plain.
    #[inline(always)]
    fn note(&mut self, buffer: u32, len: usize, receivers: u16, dropped: u16) -> Token {
        let token = self.count_one(len);
        let Token { sequence } = token;
        self.emitted[sequence as usize % OUTCOMES_KEPT] = Emitted { sequence, buffer, receivers, dropped };
        token
    }

    #[inline(always)]
    fn count_one(&mut self, len: usize) -> Token {
        let sequence = self.sequence;
        self.count_from(sequence, len);
        Token { sequence }
    }

    /// As [`count_one`](Self::count_one), which has this number.
    #[inline(always)]
    fn count_from(&mut self, sequence: u64, len: usize) {
        self.sequence = sequence + 1;
        self.counters.add_one_and(PortCounter::Messages as usize, len as u64);
    }

    /// Wakes the one receiver if it asks for that.
    #[inline(never)]
    fn wake_the_one(&mut self) {
        if let Some(conn) = self.conns.first_mut() {
            wake_if_wanted(conn, &self.counters);
        }
    }

    #[inline(always)]
    fn after_emit(&mut self, buffer: u32, len: usize, sent: Sent) -> Token {
        let Sent { receivers, dropped, lied, .. } = sent;
        let token = self.note(buffer, len, receivers, dropped);
        if dropped > 0 || lied {
            self.after_drop(dropped, lied);
        }
        token
    }

    #[cold]
    fn after_drop(&mut self, dropped: u16, lied: bool) {
        self.count(PortCounter::Dropped, u64::from(dropped));
        if lied {
            self.put_liars_out();
        }
    }

    #[inline]
    fn count(&self, counter: PortCounter, amount: u64) {
        self.counters.add(counter as usize, amount);
    }

    #[inline(never)]
    fn loan_heap(&mut self, len: usize) -> Option<(NonNull<u8>, u32)> {
        let len = u32::try_from(len).ok()?;
        // A look at what came back takes a cache line from the receiver, who then waits for it
        // with the next buffer it gives back: so only every few loans. Not more, so that
        // few buffers are in turn, and those are still in the cache.
        if self.loans + 1 < LOANS_PER_LOOK
            && let Some((id, start)) = self.heap.as_mut()?.loan_best_at(len)
        {
            self.loans += 1;
            return Some((start, id.0));
        }
        self.loan_after_look(len)
    }

    /// The look at what came back that the next loan would make: made now, while the message is
    /// under way, and not when the next one is waited for.
    #[inline(never)]
    fn look_ahead(&mut self) {
        self.loans = 0;
        self.reclaim();
    }

    #[inline(never)]
    fn loan_after_look(&mut self, len: u32) -> Option<(NonNull<u8>, u32)> {
        self.loans = 0;
        self.reclaim();
        let (id, start) = self.heap.as_mut()?.loan_at(len)?;
        Some((start, id.0))
    }

    #[cold]
    fn no_buffer(&self, len: usize) -> GetBufferError {
        let max = self.heap.as_ref().map_or(0, |heap| heap.geometry().size_max() as usize).max(INLINE_BYTES_MAX);
        if len > max {
            return GetBufferError::TooLarge { max };
        }
        self.count(PortCounter::NoBuffer, 1);
        GetBufferError::Exhausted
    }

    /// Takes back what receivers gave back. At most receivers x buffers steps.
    #[inline]
    fn reclaim(&mut self) {
        if self.mailbox.is_forked() {
            return;
        }
        let Some(heap) = &mut self.heap else { return };
        let mut lied = false;
        for conn in self.conns.iter_mut().chain(&mut self.let_go) {
            lied |= conn.reclaim(heap).is_err();
        }
        if lied {
            self.put_liars_out();
        }
    }

    /// Reports and lets go the connections whose receiver wrote what cannot be: now, or
    /// if the agent is at the mailbox, at the next call.
    #[cold]
    fn put_liars_out(&mut self) {
        (self.epoch, self.plain_epoch, self.lone_epoch) = (STALE, STALE, STALE);
        for _ in 0..REPORT_TRIES {
            self.read_mail();
            if self.epoch != STALE {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Takes the changes that the agent left. `false` in a forked child.
    #[cold]
    fn read_mail(&mut self) -> bool {
        let mailbox = Arc::clone(&self.mailbox);
        if mailbox.is_forked() {
            return false;
        }
        // The agent holds the lock only to push; if it does right now, the next call looks again.
        let Some((mut mail, epoch)) = mailbox.try_open() else { return true };
        self.epoch = epoch;
        let mail = &mut *mail;
        for change in mail.changes.drain(..) {
            match change {
                Change::Add(conn) => {
                    if let Err(conn) = self.conns.push(Owned::new(conn)) {
                        mail.violations.push(conn.id());
                        mail.graveyard.push(conn.into_box());
                    }
                }
                Change::Remove(id) => self.remove(id, &mut mail.graveyard),
                Change::LetGo(id) => self.let_go(id, &mut mail.graveyard),
                Change::Attachment(attachment) => self.attachment = attachment,
            }
        }
        self.remove_liars(mail);
        self.receivers = self.conns.iter().filter(|conn| !conn.observes()).count();
        self.share_out();
        if self.receivers < 2 || self.conns.iter().all(|conn| conn.is_not_waited_for()) {
            // Nobody goes on for whose sake one was put out: it is waited for without end.
            self.conns.iter_mut().for_each(|conn| conn.take_in());
        }
        let is_lone = !self.reliable && self.conns.len() == 1 && self.receivers == 1;
        let is_plain = is_lone && !self.has_sequel && !self.conns[0].may_sleep();
        self.lone_epoch = if is_lone { self.epoch } else { STALE };
        self.plain_epoch = if is_plain { self.epoch } else { STALE };
        self.lone = self.conns.first().map_or(NonNull::dangling(), Owned::place);
        true
    }

    /// Gives each of several receivers an equal share of all buffers but one, at least
    /// one: a receiver that never releases does not starve the others. A lone receiver
    /// may hold them all. Who only watches takes nothing from these shares: what it may
    /// hold is told with each message.
    fn share_out(&mut self) {
        let buffers = self.heap.as_ref().map_or(0, |heap| heap.geometry().buffers());
        // One buffer may be held by several.
        let kept: u32 = self.let_go.iter().map(|conn| conn.held()).sum();
        let buffers = buffers.saturating_sub(kept);
        let receivers = self.receivers as u32;
        let share = if receivers < 2 { u32::MAX } else { (buffers.saturating_sub(1) / receivers).max(1) };
        for conn in &mut self.conns {
            conn.set_share(share);
        }
    }

    fn remove_liars(&mut self, mail: &mut Mail<TxConn>) {
        while let Some(liar) = self.conns.iter().chain(&self.let_go).find(|conn| conn.lie().is_some()) {
            let id = liar.id();
            self.counters.add(PortCounter::Violations as usize, 1);
            mail.violations.push(id);
            self.remove(id, &mut mail.graveyard);
        }
    }

    /// Ends a connection, also one that was let go: what its receiver holds is used anew.
    fn remove(&mut self, id: ConnId, graveyard: &mut Graveyard<TxConn>) {
        if let Some(mut conn) = take_out(&mut self.conns, id).or_else(|| take_out(&mut self.let_go, id)) {
            conn.abandon(self.heap.as_mut());
            graveyard.push(conn.into_box());
        }
    }

    /// Sends nothing more on a connection, whose receiver may still read what it holds.
    fn let_go(&mut self, id: ConnId, graveyard: &mut Graveyard<TxConn>) {
        let Some(mut conn) = take_out(&mut self.conns, id) else { return };
        conn.abandon(None);
        // Without a place for it what it holds stays lent for good.
        let left = if conn.held() > 0 { self.let_go.push(conn) } else { Err(conn) };
        if let Err(conn) = left {
            graveyard.push(conn.into_box());
        }
    }
}

/// What became of one message so far.
#[derive(Clone, Copy, Default)]
struct Sent {
    receivers: u16,
    /// Who got it and only watches: holds a buffer as a receiver does, and counts as none.
    observers: u16,
    dropped: u16,
    lied: bool,
}

impl Sent {
    /// Counts who got the message.
    #[inline(always)]
    fn taken(&mut self, conn: &TxConn) {
        if conn.observes() {
            self.observers += 1;
        } else {
            self.receivers += 1;
        }
    }

    /// Counts a receiver that did not get the message. Who only watches is told, and
    /// nobody else.
    #[cold]
    fn not_taken(&mut self, conn: &mut TxConn) {
        if conn.lie().is_some() {
            self.lied = true;
        } else {
            conn.miss(1);
            self.dropped += u16::from(!conn.observes());
        }
    }
}

/// How many buffers each of several sinks that only watch may hold when a message of `len`
/// bytes comes: its part of a quarter of the buffers of that size, and none of fewer than
/// three, which a source and a receiver need for themselves.
#[must_use]
pub fn spare_buffers(geometry: &Geometry, len: u32, observers: u32) -> u32 {
    let count = geometry.classes().iter().find(|class| len <= class.size).map_or(0, |class| class.count);
    let spare = if count < 3 { 0 } else { (count / 4).max(1) };
    spare / observers.max(1)
}

#[inline(always)]
fn room(conn: &mut TxConn, in_buffer: bool) -> Result<bool, Violation> {
    if in_buffer { conn.has_room_for_buffer() } else { conn.has_room() }
}

#[inline]
fn wake_if_wanted(conn: &mut TxConn, counters: &CounterBlock) {
    if conn.wants_wake() {
        wake(conn, counters);
    }
}

#[cold]
fn wake(conn: &TxConn, counters: &CounterBlock) {
    conn.wake();
    counters.add(PortCounter::Wakes as usize, 1);
}

fn take_out<const N: usize>(conns: &mut heapless::Vec<Owned<TxConn>, N>, id: ConnId) -> Option<Owned<TxConn>> {
    let at = conns.iter().position(|conn| conn.id() == id)?;
    Some(conns.swap_remove(at))
}

impl Loan<'_> {
    /// Bytes of the message, as asked for.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes the message shorter. Longer is not possible: it stays as it is.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];
    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the loan alone owns these bytes (a stage that is off the stack, or
        // a buffer in state *loaned*), they lie in memory that the port keeps, and the
        // loan borrows the port.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Loan<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes this the one reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Loan<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Taken apart, so that the loan needs no place in memory.
        self.port.give_up(self.start, self.id);
    }
}

impl std::fmt::Debug for Loan<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Loan({} bytes)", self.len)
    }
}
