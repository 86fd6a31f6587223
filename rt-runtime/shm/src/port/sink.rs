//! The hot half of a sink.

use super::{Attachment, Change, Mailbox};
use crate::Violation;
use crate::conn::RxConn;
use crate::counters::CounterBlock;
use crate::ring::{Payload, Popped};
use crate::wake::Sleeper;
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::heap::BufferId;
use insane_core::limits::FANIN_MAX;
use insane_sys::SharedBytes;
use std::cell::UnsafeCell;
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

struct Feed {
    conn: Box<RxConn>,
    /// No more will come than what waits in the ring.
    retired: bool,
}

struct Inner {
    epoch: u64,
    attachment: Attachment,
    forked: bool,
    /// Places in `feeds` that are taken, in turn order.
    active: heapless::Vec<u8, FANIN_MAX>,
    next: usize,
    feeds: Box<[Option<Feed>; FANIN_MAX]>,
    sleeper: Option<Sleeper>,
    counters: CounterBlock,
}

/// The hot half of a sink.
pub struct SinkPort {
    inner: UnsafeCell<Inner>,
    mailbox: Arc<Mailbox<RxConn>>,
}

// SAFETY: as for `SourcePort`.
unsafe impl Send for SinkPort {}

/// A consumed message. Dropping it releases its buffer to the sender.
pub struct Received<'p> {
    port: &'p SinkPort,
    popped: Popped,
    feed: u8,
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
            forked: false,
            active: heapless::Vec::new(),
            next: 0,
            feeds: Box::new([const { None }; FANIN_MAX]),
            sleeper: wake,
            counters,
        };
        Ok((SinkPort { inner: UnsafeCell::new(inner), mailbox: Arc::clone(&mailbox) }, mailbox))
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
    #[inline]
    pub fn consume(&self) -> Result<Option<Received<'_>>, ConsumeError> {
        let inner = self.inner();
        if self.mailbox.epoch().load(Ordering::Acquire) != inner.epoch {
            inner.read_mail(&self.mailbox)?;
        }
        let mut received = Received { port: self, popped: Popped::EMPTY, feed: NONE };
        for _ in 0..inner.active.len() {
            if inner.next >= inner.active.len() {
                inner.next = 0;
            }
            let place = inner.active[inner.next];
            inner.next += 1;
            let Some(feed) = &mut inner.feeds[place as usize] else { continue };
            match feed.conn.pop(&mut received.popped) {
                Ok(true) => {
                    received.feed = place;
                    inner.count_received(&received.popped);
                    return Ok(Some(received));
                }
                Ok(false) if !feed.retired => {}
                Ok(false) => inner.epoch = 0,
                Err(violation) => inner.accuse(place, violation),
            }
        }
        if inner.active.is_empty() && inner.attachment == Attachment::Detached {
            return Err(ConsumeError::Detached);
        }
        Ok(None)
    }

    /// Whether a message waits.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn is_ready(&self) -> Result<bool, ConsumeError> {
        let inner = self.inner();
        if self.mailbox.epoch().load(Ordering::Acquire) != inner.epoch {
            inner.read_mail(&self.mailbox)?;
        }
        Ok(inner.any_ready())
    }

    /// Whether anybody is connected.
    pub fn has_senders(&self) -> bool {
        let inner = self.inner();
        if self.mailbox.epoch().load(Ordering::Acquire) != inner.epoch {
            let _ = inner.read_mail(&self.mailbox);
        }
        !inner.active.is_empty()
    }

    /// Sleeps until a message may wait, or `timeout` is over. May return early.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn sleep(&self, timeout: Duration) -> Result<(), ConsumeError> {
        if self.arm()? {
            return Ok(());
        }
        if let Some(sleeper) = &self.inner().sleeper {
            sleeper.sleep(timeout);
        }
        self.disarm();
        Ok(())
    }

    /// Asks senders for a wake-up; `true` if a message waits already, and then nothing
    /// was asked.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn arm(&self) -> Result<bool, ConsumeError> {
        let inner = self.inner();
        let Some(sleeper) = &mut inner.sleeper else { return Err(ConsumeError::NoWake) };
        sleeper.arm();
        if self.is_ready()? {
            self.disarm();
            return Ok(true);
        }
        Ok(false)
    }

    /// Asks for no wake-up any longer.
    pub fn disarm(&self) {
        if let Some(sleeper) = &mut self.inner().sleeper {
            sleeper.disarm();
        }
    }

    fn release(&self, place: u8, id: BufferId) {
        if let Some(feed) = &mut self.inner().feeds[place as usize] {
            feed.conn.give_back(id);
            if feed.retired {
                self.inner().epoch = 0;
            }
        }
    }

    fn view(&self, place: u8, id: BufferId, len: u32) -> (SharedBytes<'_>, bool) {
        // SAFETY: a shared look at the feed; no method takes `&mut` to it while this
        // runs (module documentation). The view borrows the mapping, which lives until
        // the feed is removed, which waits until all its messages are released.
        let inner = unsafe { &*self.inner.get() };
        inner.feeds[place as usize]
            .as_ref()
            .map_or((SharedBytes::EMPTY, false), |feed| (feed.conn.view(id, len), feed.conn.is_trusted()))
    }
}

/// A message that came from no feed.
const NONE: u8 = u8::MAX;

impl std::fmt::Debug for SinkPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SinkPort")
    }
}

impl Inner {
    #[inline]
    fn count_received(&self, popped: &Popped) {
        self.counters.add(PortCounter::Messages as usize, 1);
        self.counters.add(PortCounter::Bytes as usize, u64::from(popped.len));
        if popped.meta.lost > 0 {
            self.counters.add(PortCounter::Lost as usize, u64::from(popped.meta.lost));
        }
    }

    fn any_ready(&self) -> bool {
        self.active.iter().any(|place| self.feeds[*place as usize].as_ref().is_some_and(|feed| feed.conn.is_ready()))
    }

    #[cold]
    fn accuse(&mut self, place: u8, _violation: Violation) {
        self.counters.add(PortCounter::Violations as usize, 1);
        // Taken out of the turn at once; the feed itself goes with the next mail.
        self.active.retain(|active| *active != place);
        self.epoch = 0;
    }

    #[cold]
    fn read_mail(&mut self, mailbox: &Mailbox<RxConn>) -> Result<(), ConsumeError> {
        if mailbox.epoch().load(Ordering::Acquire) == 0 {
            self.forked = true;
            return Err(ConsumeError::Forked);
        }
        let Ok(mut mail) = mailbox.mail.try_lock() else { return Ok(()) };
        self.epoch = mailbox.epoch().load(Ordering::Acquire);
        let mail = &mut *mail;
        for change in mail.changes.drain(..) {
            match change {
                Change::Add(conn) => self.add(conn, &mut mail.graveyard, &mut mail.violations),
                Change::Remove(id) => {
                    if let Some(feed) = self.feeds.iter_mut().flatten().find(|feed| feed.conn.id() == id) {
                        feed.retired = true;
                    }
                }
                Change::Attachment(attachment) => self.attachment = attachment,
            }
        }
        for place in 0..FANIN_MAX {
            self.bury(place, mail);
        }
        Ok(())
    }

    fn add(&mut self, conn: Box<RxConn>, graveyard: &mut Vec<Box<RxConn>>, violations: &mut Vec<ConnId>) {
        match self.feeds.iter().position(Option::is_none) {
            Some(place) => {
                self.feeds[place] = Some(Feed { conn, retired: false });
                let pushed = self.active.push(place as u8);
                debug_assert!(pushed.is_ok(), "as many places in turn as feeds");
            }
            None => {
                violations.push(conn.id());
                graveyard.push(conn);
            }
        }
    }

    /// Lets a feed go that is retired and drained, or whose sender lied, once none of
    /// its messages is out.
    fn bury(&mut self, place: usize, mail: &mut super::Mail<RxConn>) {
        let Some(feed) = &mut self.feeds[place] else { return };
        let accused = !self.active.contains(&(place as u8));
        if accused && !feed.retired {
            mail.violations.push(feed.conn.id());
            feed.retired = true;
        }
        let over = feed.retired && (accused || !feed.conn.is_ready()) && feed.conn.held() == 0;
        if over && let Some(mut feed) = self.feeds[place].take() {
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
        self.popped.len as usize
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.popped.len == 0
    }

    /// Sequence number that the source gave it.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.popped.meta.sequence
    }

    /// When the source emitted it, ns of the source's clock; 0: not stamped.
    #[must_use]
    pub const fn source_ns(&self) -> u64 {
        self.popped.meta.source_ns
    }

    /// Messages of its source lost just before it; saturates at 65,535.
    #[must_use]
    pub const fn lost(&self) -> u16 {
        self.popped.meta.lost
    }

    /// The payload in whatever memory it is.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> SharedBytes<'_> {
        match self.popped.payload {
            Payload::Inline => SharedBytes::from(&self.popped.inline.0[..self.len()]),
            Payload::Heap(id) => self.port.view(self.feed, id, self.popped.len).0,
        }
    }

    /// The payload as a slice, if nobody else can write it: it travelled in the cell, or
    /// the writer of its memory is the runtime or this process.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        match self.popped.payload {
            Payload::Inline => Some(&self.popped.inline.0[..self.len()]),
            Payload::Heap(id) => {
                let (view, trusted) = self.port.view(self.feed, id, self.popped.len);
                // SAFETY: a trusted sender is this code, and writes a buffer only while it is
                // loaned; this one is lent to us until `self` is dropped.
                trusted.then(|| unsafe { view.as_slice_unchecked() })
            }
        }
    }
}

impl Drop for Received<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Payload::Heap(id) = self.popped.payload
            && self.feed != NONE
        {
            self.port.release(self.feed, id);
        }
    }
}

impl std::fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Received(sequence {}, {} bytes)", self.sequence(), self.len())
    }
}
