//! The hot half of a sink.

use super::{Attachment, Change, Graveyard, Mail, Mailbox, REPORT_TRIES, STALE};
use crate::conn::RxConn;
use crate::counters::CounterBlock;
use crate::ring::{InlineBytes, Payload, Taken};
use crate::wake::{self, Sleeper, Watched};
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::heap::BufferId;
use insane_core::limits::FANIN_MAX;
use insane_sys::SharedBytes;
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Why nothing can be consumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConsumeError {
    /// The runtime is gone and no local source is left.
    #[error("the runtime is gone and no local source is left")]
    Detached,
    /// This process was forked from the one that owns the sink.
    #[error("the sink belongs to the process that this one was forked from")]
    Forked,
    /// The sink was opened without a way to be woken.
    #[error("the sink polls: it was created without a wake-up")]
    NoWake,
}

/// How far the end of a feed is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Life {
    /// In turn.
    Live,
    /// In turn, but no more will come than what waited in the ring, at most so many:
    /// a sender that goes on writing does not keep its feed alive.
    Retired { left: u64 },
    /// Out of turn, its sender lied; to be reported.
    Accused,
    /// Out of turn; goes when its last message is released.
    Over,
}

struct Feed {
    conn: Box<RxConn>,
    life: Life,
}

struct Inner {
    epoch: u64,
    attachment: Attachment,
    /// Places in `feeds` that are in turn.
    active: heapless::Vec<u8, FANIN_MAX>,
    next: usize,
    feeds: Box<[Option<Feed>; FANIN_MAX]>,
    sleeper: Option<Sleeper>,
    counters: CounterBlock,
    mailbox: Arc<Mailbox<RxConn>>,
}

/// The hot half of a sink.
pub struct SinkPort {
    inner: UnsafeCell<Inner>,
}

/// What a look at the rings brought.
enum Poll {
    Message,
    Nothing,
    Failed(ConsumeError),
}

// SAFETY: as for `SourcePort`.
unsafe impl Send for SinkPort {}

/// A consumed message. Dropping it releases its buffer to the sender.
///
/// In a child that was forked while it was out, a payload that travelled in a buffer
/// reads as empty.
pub struct Received<'p> {
    port: &'p SinkPort,
    sequence: u64,
    source_ns: u64,
    len: u32,
    /// The buffer, if `in_heap`; else the first `len` bytes of `inline` are written.
    buffer: u32,
    lost: u16,
    feed: u8,
    in_heap: bool,
    inline: MaybeUninit<InlineBytes>,
}

impl SinkPort {
    /// A port with nobody connected. Without `wake` it only polls.
    ///
    /// # Errors
    /// No memory.
    pub fn new(wake: Option<Sleeper>, counters: CounterBlock) -> std::io::Result<(Self, Arc<Mailbox<RxConn>>)> {
        let mailbox = Arc::new(Mailbox::new()?);
        let inner = Inner {
            epoch: 1,
            attachment: Attachment::Attached,
            active: heapless::Vec::new(),
            next: 0,
            feeds: Box::new([const { None }; FANIN_MAX]),
            sleeper: wake,
            counters,
            mailbox: Arc::clone(&mailbox),
        };
        Ok((SinkPort { inner: UnsafeCell::new(inner) }, mailbox))
    }

    #[allow(clippy::mut_from_ref)]
    #[inline]
    fn inner(&self) -> &mut Inner {
        // SAFETY: as in `SourcePort::inner`.
        unsafe { &mut *self.inner.get() }
    }

    /// The next message, if one waits. Senders are asked in turn; the messages of one
    /// sender come in its order.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    #[inline(always)]
    pub fn consume(&self) -> Result<Option<Received<'_>>, ConsumeError> {
        // Written where it will lie: a message is 150 bytes, and is not copied around.
        let mut received = MaybeUninit::uninit();
        match self.poll(&mut received) {
            // SAFETY: `poll` wrote it.
            Poll::Message => Ok(Some(unsafe { received.assume_init() })),
            Poll::Nothing => Ok(None),
            Poll::Failed(error) => Err(error),
        }
    }

    /// The hot half of [`consume`](Self::consume); `into` is written if it says so.
    #[inline(never)]
    fn poll<'p>(&'p self, into: &mut MaybeUninit<Received<'p>>) -> Poll {
        let inner = self.inner();
        if inner.mailbox.epoch().load(Ordering::Acquire) != inner.epoch
            && let Err(error) = inner.read_mail()
        {
            return Poll::Failed(error);
        }
        let into = into.as_mut_ptr();
        // SAFETY: a place of a message that is not yet one; bytes that need not be
        // initialised are, as such.
        let inline = unsafe { &mut *(&raw mut (*into).inline) };
        for _ in 0..inner.active.len() {
            let Some(place) = inner.next_in_turn() else { break };
            let Some(feed) = &mut inner.feeds[place as usize] else { continue };
            let taken = match feed.conn.take(inline) {
                Ok(Some(taken)) => taken,
                Ok(None) => {
                    if feed.life != Life::Live {
                        inner.note_drained(place);
                    }
                    continue;
                }
                Err(_) => {
                    inner.accuse(place);
                    continue;
                }
            };
            if feed.life != Life::Live {
                inner.count_down(place);
            }
            inner.count_received(&taken);
            let (in_heap, buffer) = match taken.payload {
                Payload::Heap(id) => (true, id.0),
                Payload::Inline => (false, 0),
            };
            // SAFETY: valid for writes, as above; with `inline`, these are all the fields.
            unsafe {
                (&raw mut (*into).port).write(self);
                (&raw mut (*into).sequence).write(taken.meta.sequence);
                (&raw mut (*into).source_ns).write(taken.meta.source_ns);
                (&raw mut (*into).len).write(taken.len);
                (&raw mut (*into).buffer).write(buffer);
                (&raw mut (*into).lost).write(taken.meta.lost);
                (&raw mut (*into).feed).write(place);
                (&raw mut (*into).in_heap).write(in_heap);
            }
            return Poll::Message;
        }
        if inner.active.is_empty() && inner.attachment == Attachment::Detached {
            return Poll::Failed(ConsumeError::Detached);
        }
        Poll::Nothing
    }

    /// Whether a message waits.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn is_ready(&self) -> Result<bool, ConsumeError> {
        let inner = self.inner();
        if inner.mailbox.epoch().load(Ordering::Acquire) != inner.epoch {
            inner.read_mail()?;
        }
        Ok(inner.any_ready())
    }

    /// Whether anybody is connected.
    pub fn has_senders(&self) -> bool {
        let inner = self.inner();
        if inner.mailbox.epoch().load(Ordering::Acquire) != inner.epoch && inner.read_mail().is_err() {
            return false;
        }
        !inner.active.is_empty()
    }

    /// Sleeps until a message may wait, the agent left something in the mailbox, or
    /// `timeout` is over. May return early.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn sleep(&self, timeout: Duration) -> Result<(), ConsumeError> {
        let inner = self.inner();
        inner.arm()?;
        // The bells are read after the wish was made and before the last look at the rings.
        let bells = inner.watch();
        let is_ready = self.is_ready();
        if is_ready == Ok(false) {
            wake::sleep(&bells, timeout);
        }
        self.disarm();
        is_ready.map(drop)
    }

    /// Asks senders for a wake-up; `true` if a message waits already, and then nothing
    /// was asked. For a sink whose wake-up is a descriptor: changes in the mailbox do not
    /// signal it.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn arm(&self) -> Result<bool, ConsumeError> {
        self.inner().arm()?;
        let is_ready = self.is_ready();
        if is_ready != Ok(false) {
            self.disarm();
        }
        is_ready
    }

    /// Asks for no wake-up any longer.
    pub fn disarm(&self) {
        if let Some(sleeper) = &mut self.inner().sleeper
            && !self.inner().mailbox.is_forked()
        {
            sleeper.disarm();
        }
    }

    #[inline(never)]
    fn release(&self, place: u8, id: BufferId) {
        if self.inner().mailbox.is_forked() {
            // The ring is the parent's, and not mapped here.
            return;
        }
        let inner = self.inner();
        if let Some(feed) = &mut inner.feeds[place as usize] {
            feed.conn.give_back(id);
            if feed.life != Life::Live {
                inner.epoch = STALE;
            }
        }
    }

    #[inline(never)]
    fn view(&self, place: u8, id: BufferId, len: u32) -> (SharedBytes<'_>, bool) {
        if self.inner().mailbox.is_forked() {
            return (SharedBytes::EMPTY, true);
        }
        // SAFETY: a shared look at the feed; no method takes `&mut` to it while this
        // runs (module documentation). The view borrows the mapping, which lives until
        // the feed is removed, which waits until all its messages are released.
        let inner = unsafe { &*self.inner.get() };
        inner.feeds[place as usize]
            .as_ref()
            .map_or((SharedBytes::EMPTY, false), |feed| (feed.conn.view(id, len), feed.conn.is_trusted()))
    }
}

impl std::fmt::Debug for SinkPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SinkPort")
    }
}

impl Inner {
    #[inline]
    fn next_in_turn(&mut self) -> Option<u8> {
        if self.next >= self.active.len() {
            self.next = 0;
        }
        let place = self.active.get(self.next).copied();
        self.next += 1;
        place
    }

    #[inline]
    fn count_received(&self, taken: &Taken) {
        self.counters.add(PortCounter::Messages as usize, 1);
        self.counters.add(PortCounter::Bytes as usize, u64::from(taken.len));
        if taken.meta.lost > 0 {
            self.counters.add(PortCounter::Lost as usize, u64::from(taken.meta.lost));
        }
    }

    fn any_ready(&self) -> bool {
        self.active.iter().any(|place| self.feeds[*place as usize].as_ref().is_some_and(|feed| feed.conn.is_ready()))
    }

    fn arm(&mut self) -> Result<(), ConsumeError> {
        if self.mailbox.is_forked() {
            return Err(ConsumeError::Forked);
        }
        self.sleeper.as_mut().map(Sleeper::arm).ok_or(ConsumeError::NoWake)
    }

    /// What a sleep is ended by: the bell of every sender, and the mailbox.
    fn watch(&self) -> heapless::Vec<Watched, { FANIN_MAX + 1 }> {
        let feeds = self.active.iter().filter_map(|place| self.feeds[*place as usize].as_ref());
        let senders = feeds.map(|feed| feed.conn.watched());
        senders.chain([Watched::new(self.mailbox.epoch(), self.epoch)]).collect()
    }

    /// A feed that is retired has no message more: it may go, unless some are still out.
    #[cold]
    fn note_drained(&mut self, place: u8) {
        if self.feeds[place as usize].as_ref().is_some_and(|feed| feed.conn.held() == 0) {
            self.epoch = STALE;
        }
    }

    /// One message less of a feed that is retired.
    #[cold]
    fn count_down(&mut self, place: u8) {
        if let Some(Feed { life: Life::Retired { left }, .. }) = &mut self.feeds[place as usize] {
            *left -= 1;
            if *left == 0 {
                self.end_turns(place, Life::Over);
            }
        }
    }

    #[cold]
    fn accuse(&mut self, place: u8) {
        self.counters.add(PortCounter::Violations as usize, 1);
        self.end_turns(place, Life::Accused);
        // Reported now or, if the agent is at the mailbox, at the next call.
        for _ in 0..REPORT_TRIES {
            let _ = self.read_mail();
            if self.epoch != STALE {
                return;
            }
            std::hint::spin_loop();
        }
    }

    /// Takes a feed out of the turn; it goes with the next mail.
    fn end_turns(&mut self, place: u8, life: Life) {
        if let Some(feed) = &mut self.feeds[place as usize] {
            feed.life = life;
        }
        self.active.retain(|active| *active != place);
        self.epoch = STALE;
    }

    #[cold]
    fn read_mail(&mut self) -> Result<(), ConsumeError> {
        let mailbox = Arc::clone(&self.mailbox);
        if mailbox.is_forked() {
            return Err(ConsumeError::Forked);
        }
        let Some((mut mail, epoch)) = mailbox.try_open() else { return Ok(()) };
        self.epoch = epoch;
        let mail = &mut *mail;
        for change in mail.changes.drain(..) {
            match change {
                Change::Add(conn) => self.add(conn, &mut mail.graveyard, &mut mail.violations),
                Change::Remove(id) => self.retire(id),
                Change::Attachment(attachment) => self.attachment = attachment,
            }
        }
        for place in 0..FANIN_MAX {
            self.bury(place, mail);
        }
        Ok(())
    }

    fn add(&mut self, conn: Box<RxConn>, graveyard: &mut Graveyard<RxConn>, violations: &mut Vec<ConnId>) {
        match self.feeds.iter().position(Option::is_none) {
            Some(place) => {
                self.feeds[place] = Some(Feed { conn, life: Life::Live });
                let pushed = self.active.push(place as u8);
                debug_assert!(pushed.is_ok(), "as many places in turn as feeds");
            }
            None => {
                violations.push(conn.id());
                graveyard.push(conn);
            }
        }
    }

    fn retire(&mut self, id: ConnId) {
        let of_id = |feed: &&mut Feed| feed.conn.id() == id && feed.life == Life::Live;
        if let Some(feed) = self.feeds.iter_mut().flatten().find(of_id) {
            feed.life = Life::Retired { left: feed.conn.depth() };
        }
    }

    /// Reports a feed whose sender lied, and lets a feed go that is retired and drained,
    /// or over, once none of its messages is out.
    fn bury(&mut self, place: usize, mail: &mut Mail<RxConn>) {
        let Some(feed) = &mut self.feeds[place] else { return };
        let may_go = match feed.life {
            Life::Live => return,
            Life::Retired { .. } => !feed.conn.is_ready(),
            Life::Accused => {
                mail.violations.push(feed.conn.id());
                feed.life = Life::Over;
                true
            }
            Life::Over => true,
        };
        if !may_go || feed.conn.held() > 0 {
            return;
        }
        if let Some(mut feed) = self.feeds[place].take() {
            feed.conn.flush();
            self.active.retain(|active| *active as usize != place);
            mail.graveyard.push(feed.conn);
        }
    }
}

impl Received<'_> {
    /// Bytes of the payload.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Sequence number that the source gave it.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When the source emitted it, ns of the source's clock; 0: not stamped.
    #[must_use]
    pub const fn source_ns(&self) -> u64 {
        self.source_ns
    }

    /// Messages of its source lost just before it; saturates at 65,535.
    #[must_use]
    pub const fn lost(&self) -> u16 {
        self.lost
    }

    /// The payload in whatever memory it is.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> SharedBytes<'_> {
        match self.inline_bytes() {
            Some(bytes) => SharedBytes::from(bytes),
            None => self.port.view(self.feed, BufferId(self.buffer), self.len).0,
        }
    }

    /// The payload as a slice, if nobody else can write it: it travelled in the cell, or
    /// the writer of its memory is the runtime or this process.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.inline_bytes().or_else(|| {
            let (view, trusted) = self.port.view(self.feed, BufferId(self.buffer), self.len);
            // SAFETY: a trusted sender is this code, and writes a buffer only while it is
            // loaned; this one is lent to us until `self` is dropped.
            trusted.then(|| unsafe { view.as_slice_unchecked() })
        })
    }

    #[inline]
    fn inline_bytes(&self) -> Option<&[u8]> {
        // SAFETY: a payload that travelled in the cell was copied to the first `len` bytes,
        // at most 96.
        (!self.in_heap).then(|| unsafe { std::slice::from_raw_parts(self.inline.as_ptr().cast(), self.len()) })
    }
}

impl Drop for Received<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.in_heap {
            self.port.release(self.feed, BufferId(self.buffer));
        }
    }
}

impl std::fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Received(sequence {}, {} bytes)", self.sequence, self.len)
    }
}
