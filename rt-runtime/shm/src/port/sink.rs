//! The hot half of a sink.

use super::{Attachment, Change, Graveyard, Mail, Mailbox, REPORT_TRIES, STALE};
use crate::conn::RxConn;
use crate::counters::CounterBlock;
use crate::ring::{InlineBytes, Payload, Taken};
use crate::wake::{self, Sleeper, Watched};
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::heap::BufferId;
use insane_core::limits::{FANIN_MAX, INLINE_BYTES_MAX};
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
    /// The application holds as many small messages as a sink lends out at once.
    #[error("{ROOMS} small messages are held: release one first")]
    TooManyHeld,
}

/// Messages that travelled in a cell and are out at once: their bytes lie in the port,
/// so that a message is small to pass on.
const ROOMS: usize = 256;

#[repr(align(64))]
struct Room(UnsafeCell<InlineBytes>);

/// Marks the number of a room.
const IN_ROOM: u32 = 1 << 31;


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
    /// Rooms that are free, the last released on top, since it is still in the cache.
    rooms_free: [u8; ROOMS],
    rooms_free_count: usize,
    feeds: Box<[Option<Feed>; FANIN_MAX]>,
    sleeper: Option<Sleeper>,
    counters: CounterBlock,
    /// Why the last look at the rings brought nothing, if there is a reason.
    error: Option<ConsumeError>,
    mailbox: Arc<Mailbox<RxConn>>,
}

/// The hot half of a sink.
pub struct SinkPort {
    inner: UnsafeCell<Inner>,
    rooms: Box<[Room; ROOMS]>,
}

// SAFETY: as for `SourcePort`.
unsafe impl Send for SinkPort {}

/// A consumed message. Dropping it releases its buffer to the sender.
///
/// In a child that was forked while it was out, a payload that travelled in a buffer
/// reads as empty.
pub struct Received<'p> {
    port: &'p SinkPort,
    start: *const u8,
    sequence: u64,
    source_ns: u64,
    len: u32,
    /// The number of the buffer, or of the room with [`IN_ROOM`].
    place: u32,
    lost: u16,
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
            active: heapless::Vec::new(),
            next: 0,
            rooms_free: std::array::from_fn(|room| room as u8),
            rooms_free_count: ROOMS,
            feeds: Box::new([const { None }; FANIN_MAX]),
            sleeper: wake,
            counters,
            error: None,
            mailbox: Arc::clone(&mailbox),
        };
        let empty = || Room(UnsafeCell::new(InlineBytes([0; INLINE_BYTES_MAX])));
        let rooms = Box::new(std::array::from_fn(|_| empty()));
        Ok((SinkPort { inner: UnsafeCell::new(inner), rooms }, mailbox))
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
        let mut received = MaybeUninit::uninit();
        if self.poll(&mut received) {
            // SAFETY: `poll` wrote it.
            return Ok(Some(unsafe { received.assume_init() }));
        }
        self.inner().error.map_or(Ok(None), Err)
    }

    /// The hot half of [`consume`](Self::consume): the plain case, straight through.
    /// Whatever is not plain is left to [`poll_all`](Self::poll_all), untouched.
    /// If it returns `true`, `into` is written; else `error` is.
    #[inline(never)]
    fn poll<'p>(&'p self, into: &mut MaybeUninit<Received<'p>>) -> bool {
        let inner = self.inner();
        if inner.mailbox.epoch().load(Ordering::Acquire) == inner.epoch
            && let Some((number, room)) = self.room(inner)
            && let Some(&place) = inner.active.get(inner.next)
            && let Some(feed) = &mut inner.feeds[place as usize]
            && feed.life == Life::Live
            && let Some((taken, start)) = feed.conn.take_plain(room)
        {
            inner.end_turn();
            into.write(self.received(inner, &taken, start, number, place));
            return true;
        }
        self.poll_all(into)
    }

    #[inline(never)]
    fn poll_all<'p>(&'p self, into: &mut MaybeUninit<Received<'p>>) -> bool {
        let inner = self.inner();
        inner.error = None;
        if inner.mailbox.epoch().load(Ordering::Acquire) != inner.epoch
            && let Err(error) = inner.read_mail()
        {
            inner.error = Some(error);
            return false;
        }
        let Some((number, room)) = self.room(inner) else {
            inner.error = Some(ConsumeError::TooManyHeld);
            return false;
        };
        for _ in 0..inner.active.len() {
            let Some(&place) = inner.active.get(inner.next) else { break };
            inner.end_turn();
            let Some(feed) = &mut inner.feeds[place as usize] else { continue };
            match feed.conn.take(room) {
                Ok(Some((taken, start))) => {
                    if feed.life != Life::Live {
                        inner.count_down(place);
                    }
                    into.write(self.received(inner, &taken, start, number, place));
                    return true;
                }
                Ok(None) if feed.life == Life::Live => {}
                Ok(None) => inner.note_drained(place),
                Err(_) => inner.accuse(place),
            }
        }
        if inner.active.is_empty() && inner.attachment == Attachment::Detached {
            inner.error = Some(ConsumeError::Detached);
        }
        false
    }

    /// The room that is used next, and its number; it stays free until a message is in it.
    #[expect(clippy::mut_from_ref)]
    #[inline(always)]
    fn room(&self, inner: &Inner) -> Option<(u8, &mut InlineBytes)> {
        let top = inner.rooms_free_count.checked_sub(1)?;
        let number = inner.rooms_free[top];
        // SAFETY: the room is free, so no message refers to it; the one caller at a time
        // (module documentation) ends its use before it returns.
        Some((number, unsafe { &mut *self.rooms[number as usize].0.get() }))
    }

    #[inline(always)]
    fn received(&self, inner: &mut Inner, taken: &Taken, start: *const u8, room: u8, feed: u8) -> Received<'_> {
        inner.count_received(taken);
        let place = match taken.payload {
            Payload::Heap(id) => id.0,
            Payload::Inline => {
                inner.rooms_free_count -= 1;
                u32::from(room) | IN_ROOM
            }
        };
        let Taken { meta, len, .. } = *taken;
        let (sequence, source_ns, lost) = (meta.sequence, meta.source_ns, meta.lost);
        Received { port: self, start, sequence, source_ns, len, place, lost, feed }
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

    #[inline(always)]
    fn leave_room(&self, room: u32) {
        let inner = self.inner();
        // Exactly the rooms that are out are not on the stack, so there is a place for each.
        inner.rooms_free[inner.rooms_free_count] = room as u8;
        inner.rooms_free_count += 1;
    }

    fn is_trusted(&self, place: u8) -> bool {
        self.inner().feeds[place as usize].as_ref().is_some_and(|feed| feed.conn.is_trusted())
    }
}

impl std::fmt::Debug for SinkPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SinkPort")
    }
}

impl Inner {
    #[inline]
    fn end_turn(&mut self) {
        self.next = if self.next + 1 < self.active.len() { self.next + 1 } else { 0 };
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
        self.next = 0;
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
            self.next = 0;
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

    #[inline(always)]
    const fn is_in_room(&self) -> bool {
        self.place & IN_ROOM != 0
    }

    /// The payload in whatever memory it is.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> SharedBytes<'_> {
        if !self.is_in_room() && self.port.inner().mailbox.is_forked() {
            return SharedBytes::EMPTY;
        }
        // SAFETY: a room is the message's own; a buffer was located in the sender's heap, and
        // its feed keeps that mapped until all its messages are released. Both as long as
        // `self` is there, which `_` borrows.
        unsafe { SharedBytes::new(self.start, self.len()) }
    }

    /// The payload as a slice, if nobody else can write it: it travelled in the cell, or
    /// the writer of its memory is the runtime or this process.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        if self.is_in_room() {
            // SAFETY: `len` bytes, at most 96, were copied to the room, which is the
            // message's own.
            return Some(unsafe { std::slice::from_raw_parts(self.start, self.len()) });
        }
        // SAFETY: a trusted sender is this code, and writes a buffer only while it is
        // loaned; this one is lent to us until `self` is dropped.
        self.port.is_trusted(self.feed).then(|| unsafe { self.shared().as_slice_unchecked() })
    }
}

impl Drop for Received<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.is_in_room() {
            self.port.leave_room(self.place);
        } else {
            self.port.release(self.feed, BufferId(self.place));
        }
    }
}

impl std::fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Received(sequence {}, {} bytes)", self.sequence, self.len)
    }
}
