//! The hot half of a sink.

use super::{Attachment, Change, Graveyard, Held, Mail, Mailbox, Owned, Pool, REPORT_TRIES, STALE, Stacked};
use crate::cell::Meta;
use crate::conn::RxConn;
use crate::counters::CounterBlock;
use crate::ring::{InlineBytes, Next, Payload, Plain, PlainInto};
use crate::wake::{self, Sleeper, Watched};
use insane_core::ConnId;
use insane_core::counters::PortCounter;
use insane_core::heap::BufferId;
use insane_core::limits::{FANIN_MAX, INLINE_BYTES_MAX};
use insane_sys::SharedBytes;
use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::Arc;
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
    /// The application holds as many messages as a sink lends out at once.
    #[error("as many messages are held as a sink lends out, {ROOMS} of one sender: release one first")]
    TooManyHeld,
}

/// Messages of a sink that are out at once. Each lies in a room of the port, so that a
/// [`Received`] is two words, and costs nothing to pass on.
const ROOMS: usize = 256;
/// Those of them that are in the pool; one is at hand, and serves a lone sender.
const POOLED: usize = ROOMS - 1;
/// In place of the number of a room in the pool: the room at hand, with a message in line
/// before which nothing was lost.
const PLAIN_AT_HAND: u32 = 0;
/// The same, with a message in a buffer. Then the pool's rooms follow.
const BUFFER_AT_HAND: u32 = 1;
/// In place of the plain epoch, while the room at hand is out; as [`STALE`] never an epoch.
const OUT: u64 = STALE + 2;

/// A message that is out. A plain one at hand has nothing here but its bytes, number and instant.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Room {
    inline: InlineBytes,
    /// Where the payload is, if it is in a buffer.
    start: *const u8,
    sequence: u64,
    source_ns: u64,
    /// The buffer that is to be given back, or [`NO_BUFFER`]: that is what a room holds
    /// while it is free, so that who puts a message in line there need not write it.
    buffer: u32,
    /// Its number in the pool, and two.
    place: u32,
    lost: u16,
    feed: u8,
    /// The free room below this one on the stack.
    below: Option<NonNull<Room>>,
}

impl Stacked for Room {
    #[inline(always)]
    unsafe fn below(place: NonNull<Room>) -> *mut Option<NonNull<Room>> {
        // SAFETY: the caller's promise.
        unsafe { &raw mut (*place.as_ptr()).below }
    }
}

/// No heap has a buffer of this number: 65,536 is the most.
const NO_BUFFER: u32 = u32::MAX;

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
    conn: Owned<RxConn>,
    life: Life,
}

struct Inner {
    epoch: u64,
    /// [`OUT`] while the room at hand is out, else as `lone_epoch`: one look tells both.
    plain_epoch: u64,
    /// The epoch, if one feed is in turn, which is live; else [`STALE`].
    lone_epoch: u64,
    /// That feed's connection and place, unless `lone_epoch` is [`STALE`]: a connection is
    /// taken out by this thread alone, as it reads its mail, which ends in setting these three
    /// anew; and whatever else ends a feed's life makes `lone_epoch` stale. What an agent
    /// posts meanwhile only lets a later look at the mail differ.
    lone: NonNull<RxConn>,
    lone_place: u8,
    attachment: Attachment,
    /// Places in `feeds` that are in turn.
    active: heapless::Vec<u8, FANIN_MAX>,
    next: usize,
    /// Whether one place is in turn.
    has_one: bool,
    /// One that is retired is alone in turn, before others: see [`line_up`](Self::line_up).
    is_narrow: bool,
    rooms: Pool<Room, POOLED>,
    feeds: Box<[Option<Feed>; FANIN_MAX]>,
    sleeper: Option<Sleeper>,
    counters: CounterBlock,
    /// Why the last look at the rings brought nothing, if there is a reason.
    error: Option<ConsumeError>,
    mailbox: Held<RxConn>,
}

/// The hot half of a sink.
pub struct SinkPort {
    inner: UnsafeCell<Inner>,
    /// The room at hand. Apart, since a message looks at it while `inner` is used.
    hand: UnsafeCell<Room>,
}

// SAFETY: as for `SourcePort`; the rooms are the port's own.
unsafe impl Send for SinkPort {}

/// A consumed message. Dropping it releases its buffer to the sender.
///
/// In a child that was forked while it was out, a payload that travelled in a buffer
/// reads as empty.
pub struct Received<'p> {
    port: &'p SinkPort,
    word: Word,
}

/// Length of a message (32 bits), and where it is (32): [`PLAIN_AT_HAND`], [`BUFFER_AT_HAND`],
/// or the number of a room. One word, so that a message is handed on in two registers; and of a
/// plain message it is the length alone.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    #[inline(always)]
    const fn new(len: u32, place: u32) -> Self {
        Word(len as u64 | (place as u64) << 32)
    }

    #[inline(always)]
    const fn len(self) -> u32 {
        self.0 as u32
    }

    #[inline(always)]
    const fn place(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether it is plain and at hand.
    #[inline(always)]
    const fn is_plain(self) -> bool {
        self.0 <= INLINE_BYTES_MAX as u64
    }
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
            plain_epoch: STALE,
            lone_epoch: STALE,
            lone: NonNull::dangling(),
            lone_place: 0,
            attachment: Attachment::Attached,
            active: heapless::Vec::new(),
            is_narrow: false,
            next: 0,
            has_one: false,
            rooms: Pool::new(Box::new(std::array::from_fn(|place| Room {
                place: place as u32 + BUFFER_AT_HAND + 1,
                ..Room::EMPTY
            }))),
            feeds: Box::new([const { None }; FANIN_MAX]),
            sleeper: wake,
            counters,
            error: None,
            mailbox: Held::new(&mailbox),
        };
        Ok((SinkPort { inner: UnsafeCell::new(inner), hand: UnsafeCell::new(Room::EMPTY) }, mailbox))
    }

    #[expect(clippy::mut_from_ref, reason = "the port is one thread's; see below")]
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
        match self.poll() {
            Some(word) => Ok(Some(Received { port: self, word })),
            None => self.inner().error.map_or(Ok(None), Err),
        }
    }

    /// As [`consume`](Self::consume), without the reason where there is none: that is asked for
    /// with [`why_none`](Self::why_none).
    #[inline(always)]
    pub fn take(&self) -> Option<Received<'_>> {
        self.poll().map(|word| Received { port: self, word })
    }

    /// The hot half of [`consume`](Self::consume): a message in line of the one live sender,
    /// straight through, into the room at hand. Whatever is not that plain is left to
    /// [`poll_in_turn`](Self::poll_in_turn), untouched. The room that the word names is out; if
    /// there is none, `error` says whether why.
    #[inline(always)]
    fn poll(&self) -> Option<Word> {
        let inner = self.inner();
        if inner.mailbox.now() == inner.plain_epoch {
            // SAFETY: `plain_epoch` was an epoch, so not stale: `lone` is the connection of a
            // feed (see the field), and none of those is referred to here.
            let conn = unsafe { inner.lone.as_mut() };
            // SAFETY: `plain_epoch` was not `OUT`, so no message has the room at hand, and nothing
            // else looks at it before this reference ends.
            let hand = unsafe { &mut *self.hand.get() };
            let Room { inline, sequence, source_ns, .. } = hand;
            match conn.take_plain(PlainInto { inline, sequence, source_ns }) {
                Plain::Inline(len) => {
                    inner.counters.add_one_and(PortCounter::Messages as usize, u64::from(len));
                    inner.plain_epoch = OUT;
                    return Some(Word::new(len, PLAIN_AT_HAND));
                }
                // A spinning receiver is here most of the time.
                Plain::Nothing => {
                    conn.rest();
                    inner.error = None;
                    return None;
                }
                Plain::Other => return self.poll_other(),
            }
        }
        self.poll_in_turn()
    }

    /// Why the last look, which found nothing, cannot find anything.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    #[inline]
    pub fn why_none(&self) -> Result<(), ConsumeError> {
        self.inner().error.map_or(Ok(()), Err)
    }

    /// The next plain case: a message in a buffer, of the one live sender.
    #[cold]
    #[inline(never)]
    fn poll_other(&self) -> Option<Word> {
        let inner = self.inner();
        // SAFETY: as in `poll`, which called this, and no mail was read since.
        let conn = unsafe { inner.lone.as_mut() };
        if let Some((meta, len, id, start)) = conn.take_in_buffer() {
            // SAFETY: as in `poll`.
            let hand = unsafe { &mut *self.hand.get() };
            (hand.start, hand.buffer) = (start, id.0);
            inner.fill(hand, meta, len, inner.lone_place);
            inner.plain_epoch = OUT;
            return Some(Word::new(len, BUFFER_AT_HAND));
        }
        self.poll_in_turn()
    }

    /// As [`poll`](Self::poll), of the feed whose turn it is.
    #[cold]
    #[inline(never)]
    fn poll_in_turn(&self) -> Option<Word> {
        let inner = self.inner();
        if inner.mailbox.now() == inner.epoch
            && let Some(room) = inner.free_room()
            && let Some(&place) = inner.active.get(inner.next)
            && let Some(feed) = &mut inner.feeds[place as usize % FANIN_MAX]
            && feed.life == Life::Live
        {
            match feed.conn.take_next(&mut room.inline) {
                Next::Inline(meta, len) => return Some(self.deliver(room, meta, len, place)),
                Next::Heap(meta, len, id) => return self.poll_heap(place, meta, len, id),
                Next::Nothing | Next::Odd => {}
            }
        }
        self.poll_all()
    }

    /// The next plain case: a message in a buffer, which was just read from its cell.
    #[inline(always)]
    fn poll_heap(&self, place: u8, meta: Meta, len: u32, id: BufferId) -> Option<Word> {
        let inner = self.inner();
        if let Some(room) = inner.free_room()
            && let Some(feed) = &mut inner.feeds[place as usize % FANIN_MAX]
            && let Some(start) = feed.conn.take_heap(id, len)
        {
            room.start = start;
            room.buffer = id.0;
            return Some(self.deliver(room, meta, len, place));
        }
        self.poll_all()
    }

    #[inline(never)]
    fn poll_all(&self) -> Option<Word> {
        let inner = self.inner();
        inner.error = None;
        if inner.mailbox.now() != inner.epoch
            && let Err(error) = inner.read_mail()
        {
            inner.error = Some(error);
            return None;
        }
        let Some(room) = inner.free_room() else {
            inner.error = inner.any_ready().then_some(ConsumeError::TooManyHeld);
            return None;
        };
        let (mut turns, mut lines) = (inner.active.len(), FANIN_MAX);
        while turns > 0 {
            turns -= 1;
            let Some(&place) = inner.active.get(inner.next) else { break };
            let Some(feed) = &mut inner.feeds[place as usize] else { break };
            let found = feed.conn.take(&mut room.inline);
            let given_up = feed.conn.take_given_up();
            if given_up > 0 {
                inner.counters.add(PortCounter::Lost as usize, given_up);
            }
            match found {
                Ok(Some((taken, start))) => {
                    if feed.life != Life::Live {
                        inner.count_down(place);
                    }
                    if let Payload::Heap(id) = taken.payload {
                        room.start = start;
                        room.buffer = id.0;
                    }
                    return Some(self.deliver(room, taken.meta, taken.len, place));
                }
                Ok(None) if feed.life == Life::Live => inner.end_turn(),
                Ok(None) => {
                    let was_narrow = inner.is_narrow;
                    inner.note_drained(place);
                    if was_narrow && lines > 0 {
                        (turns, lines) = (inner.active.len(), lines - 1);
                    }
                }
                Err(_) => inner.accuse(place),
            }
        }
        if inner.active.is_empty() && inner.attachment == Attachment::Detached {
            inner.error = Some(ConsumeError::Detached);
        }
        None
    }

    /// Whether a message waits.
    ///
    /// # Errors
    /// See [`ConsumeError`].
    pub fn is_ready(&self) -> Result<bool, ConsumeError> {
        let inner = self.inner();
        if inner.mailbox.now() != inner.epoch {
            inner.read_mail()?;
        }
        Ok(inner.any_ready())
    }

    /// Adds to one of the port's counters: those that the port itself does not count.
    pub fn count(&self, counter: PortCounter, amount: u64) {
        self.inner().counters.add(counter as usize, amount);
    }

    /// Whether anybody is connected.
    pub fn has_senders(&self) -> bool {
        let inner = self.inner();
        if inner.mailbox.now() != inner.epoch && inner.read_mail().is_err() {
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
        let inner = self.inner();
        if !inner.mailbox.is_forked()
            && let Some(sleeper) = &mut inner.sleeper
        {
            sleeper.disarm();
        }
    }

    /// Hands out a room of the pool, with a message in it.
    #[inline(always)]
    fn deliver(&self, room: &mut Room, meta: Meta, len: u32, feed: u8) -> Word {
        let inner = self.inner();
        inner.fill(room, meta, len, feed);
        inner.end_turn();
        inner.rooms.free = room.below;
        Word::new(len, room.place)
    }

    /// The room at hand, or that of the pool.
    #[inline(always)]
    fn room(&self, word: Word) -> NonNull<Room> {
        match (word.place() as usize).checked_sub(BUFFER_AT_HAND as usize + 1) {
            None => NonNull::from(&self.hand).cast(),
            Some(number) => self.inner().rooms.place(number),
        }
    }

    /// The end of a message.
    #[inline(always)]
    fn release(&self, word: Word) {
        if word.is_plain() {
            let inner = self.inner();
            inner.plain_epoch = inner.lone_epoch;
        } else {
            self.release_other(word);
        }
    }

    #[cold]
    #[inline(never)]
    fn release_other(&self, word: Word) {
        let room = self.room(word);
        // SAFETY: the room is one of the port's, its message is over, and this is the only
        // reference to it.
        let Room { buffer, feed, .. } = unsafe { &mut *room.as_ptr() };
        let id = std::mem::replace(buffer, NO_BUFFER);
        let feed = *feed;
        if id != NO_BUFFER {
            self.give_back(feed, BufferId(id));
        }
        let inner = self.inner();
        if word.place() == BUFFER_AT_HAND {
            inner.plain_epoch = inner.lone_epoch;
        } else {
            // SAFETY: a room of this port's pool that nothing refers to any more.
            unsafe { inner.rooms.leave(room) };
        }
    }

    #[inline(always)]
    fn give_back(&self, feed: u8, id: BufferId) {
        let inner = self.inner();
        if inner.mailbox.now() == inner.lone_epoch && feed == inner.lone_place {
            // SAFETY: as in `poll`, for `lone_epoch`.
            unsafe { inner.lone.as_mut() }.give_back(id);
        } else {
            inner.give_back(feed, id);
        }
    }

    /// The bytes of a message that is not plain. By its word, so that the message needs no place
    /// in memory.
    ///
    /// # Safety
    /// The message of this word is out, for as long as what is returned is used.
    #[cold]
    #[inline(never)]
    unsafe fn bytes_otherwise(&self, word: Word) -> Option<&[u8]> {
        // SAFETY: the message is out (the caller's promise), so its room keeps still.
        let room = unsafe { self.room(word).as_ref() };
        if room.buffer == NO_BUFFER {
            return room.inline.0.get(..word.len() as usize);
        }
        // A forked child does not have the memory.
        let len = if self.inner().mailbox.is_forked() { 0 } else { word.len() as usize };
        // SAFETY: a trusted sender is this code, and writes a buffer only while it is loaned; this
        // one is lent to us until the message is dropped, and its feed keeps it mapped.
        self.is_trusted(room.feed).then(|| unsafe { std::slice::from_raw_parts(room.start, len) })
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
    /// The room that is used next; it stays on the stack until a message is in it.
    #[inline(always)]
    fn free_room<'r>(&self) -> Option<&'r mut Room> {
        // SAFETY: the room is free, so no message refers to it; the one caller at a time
        // (module documentation) ends its use before it returns, and nothing else follows
        // the pointer meanwhile.
        self.rooms.top().map(|room| unsafe { &mut *room.as_ptr() })
    }

    /// Counts a message that is going to be in this room.
    #[inline(always)]
    fn fill(&mut self, room: &mut Room, meta: Meta, len: u32, feed: u8) {
        if meta.lost > 0 {
            self.counters.add(PortCounter::Lost as usize, u64::from(meta.lost));
        }
        self.counters.add_one_and(PortCounter::Messages as usize, u64::from(len));
        (room.sequence, room.source_ns, room.lost, room.feed) = (meta.sequence, meta.source_ns, meta.lost, feed);
    }

    /// The next call looks into the mailbox.
    fn unsettle(&mut self) {
        (self.epoch, self.lone_epoch) = (STALE, STALE);
        self.note_lone();
    }

    /// The plain epoch follows the lone one, while the room at hand is not out.
    fn note_lone(&mut self) {
        if self.plain_epoch != OUT {
            self.plain_epoch = self.lone_epoch;
        }
    }

    #[inline(always)]
    fn end_turn(&mut self) {
        if !self.has_one {
            self.next = if self.next + 1 < self.active.len() { self.next + 1 } else { 0 };
        }
    }

    #[inline(never)]
    fn give_back(&mut self, place: u8, id: BufferId) {
        if self.mailbox.is_forked() {
            // The ring is the parent's, and not mapped here.
            return;
        }
        if let Some(feed) = &mut self.feeds[place as usize] {
            feed.conn.give_back(id);
            if feed.life != Life::Live {
                self.unsettle();
            }
        }
    }

    fn any_ready(&mut self) -> bool {
        self.widen();
        self.active.iter().any(|place| self.feeds[*place as usize].as_ref().is_some_and(|feed| feed.conn.is_ready()))
    }

    fn arm(&mut self) -> Result<(), ConsumeError> {
        if self.mailbox.is_forked() {
            return Err(ConsumeError::Forked);
        }
        self.sleeper.as_mut().map(Sleeper::arm).ok_or(ConsumeError::NoWake)
    }

    /// What a sleep is ended by: the bell of every sender, and the mailbox.
    fn watch(&mut self) -> heapless::Vec<Watched, { FANIN_MAX + 1 }> {
        self.widen();
        let feeds = self.active.iter().filter_map(|place| self.feeds[*place as usize].as_ref());
        let senders = feeds.map(|feed| feed.conn.watched());
        senders.chain([Watched::new(self.mailbox.epoch(), self.epoch)]).collect()
    }

    /// A feed that is retired has no message more: it may go, unless some are still out.
    #[cold]
    fn note_drained(&mut self, place: u8) {
        self.end_turn();
        self.widen();
        if self.feeds[place as usize].as_ref().is_some_and(|feed| feed.conn.held() == 0) {
            self.unsettle();
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
        (self.next, self.has_one) = (0, self.active.len() == 1);
        self.widen();
        self.unsettle();
    }

    /// What waits in feeds of a datapath that are retired goes before everything else, one feed after
    /// the other: a sender of theirs may have another feed by now, and what is in that was emitted
    /// later. It is no more than their rings hold. Else all are in turn: a source of this host
    /// goes on with its feed when the runtime returns, and gets no turn before others by closing it.
    #[cold]
    fn line_up(&mut self) {
        let feeds = self.feeds.iter().enumerate().filter_map(|(place, feed)| Some((place as u8, feed.as_ref()?)));
        let goes_first =
            |feed: &Feed| matches!(feed.life, Life::Retired { .. }) && !feed.conn.is_direct() && feed.conn.is_ready();
        let waiting = feeds.clone().filter(|(_, feed)| goes_first(feed));
        // Numbers of connections rise.
        let first = waiting.min_by_key(|(_, feed)| feed.conn.id()).map(|(place, _)| place);
        if first.is_none() && !self.is_narrow {
            return;
        }
        let in_turn = feeds.filter(|(_, feed)| matches!(feed.life, Life::Live | Life::Retired { .. }));
        let in_turn = in_turn.map(|(place, _)| place).filter(|place| first.is_none_or(|first| first == *place));
        self.active = in_turn.collect();
        self.is_narrow = first.is_some();
        (self.next, self.has_one) = (0, self.active.len() == 1);
    }

    /// Lets others be in turn again when what went before them is read.
    #[inline]
    fn widen(&mut self) {
        if self.is_narrow {
            self.line_up();
        }
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
                Change::Remove(id) | Change::LetGo(id) => self.retire(id),
                Change::Attachment(attachment) => self.attachment = attachment,
            }
        }
        for place in 0..FANIN_MAX {
            self.bury(place, mail);
        }
        self.line_up();
        self.find_lone();
        Ok(())
    }

    /// Notes who is alone in turn and live, if somebody is.
    fn find_lone(&mut self) {
        self.lone_epoch = STALE;
        if let [place] = self.active[..]
            && let Some(Feed { conn, life: Life::Live }) = &self.feeds[place as usize]
        {
            (self.lone, self.lone_place) = (conn.place(), place);
            self.lone_epoch = self.epoch;
        }
        self.note_lone();
    }

    fn add(&mut self, conn: Box<RxConn>, graveyard: &mut Graveyard<RxConn>, violations: &mut Vec<ConnId>) {
        match self.feeds.iter().position(Option::is_none) {
            Some(place) => {
                self.feeds[place] = Some(Feed { conn: Owned::new(conn), life: Life::Live });
                let pushed = self.active.push(place as u8);
                debug_assert!(pushed.is_ok(), "as many places in turn as feeds");
                self.has_one = self.active.len() == 1;
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
            (self.next, self.has_one) = (0, self.active.len() == 1);
            mail.graveyard.push(feed.conn.into_box());
        }
    }
}

impl Room {
    const EMPTY: Room = Room {
        inline: InlineBytes([0; INLINE_BYTES_MAX]),
        start: std::ptr::null(),
        sequence: 0,
        source_ns: 0,
        buffer: NO_BUFFER,
        place: 0,
        lost: 0,
        feed: 0,
        below: None,
    };
}

impl Received<'_> {
    #[inline(always)]
    fn room(&self) -> &Room {
        // SAFETY: the room is this message's until it is dropped: the port, which is borrowed,
        // touches only rooms that are not out.
        unsafe { self.port.room(self.word).as_ref() }
    }

    /// The buffer that the payload is in, if it is in one.
    #[inline(always)]
    fn buffer(&self) -> u32 {
        if self.word.is_plain() { NO_BUFFER } else { self.room().buffer }
    }

    /// Bytes of the payload.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.word.len() as usize
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.word.len() == 0
    }

    /// Sequence number that the source gave it.
    #[inline]
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.room().sequence
    }

    /// When the source emitted it, ns of the source's clock; 0: not stamped.
    #[inline]
    #[must_use]
    pub fn source_ns(&self) -> u64 {
        self.room().source_ns
    }

    /// Messages of its source lost just before it; saturates at 65,535.
    #[inline]
    #[must_use]
    pub fn lost(&self) -> u16 {
        if self.word.is_plain() { 0 } else { self.room().lost }
    }

    /// Whether it came straight from a source of this host, and not through a datapath. Only
    /// sure before the sink is asked for anything else: a small one does not keep its sender's
    /// place from the next sender.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        let inner = self.port.inner();
        let feed = if self.word.is_plain() { inner.lone_place } else { self.room().feed };
        inner.feeds[feed as usize].as_ref().is_some_and(|feed| feed.conn.is_direct())
    }

    /// Whether what was read of the payload before this call is what its source sent. `false`: the
    /// sender's runtime, or its session, has put this receiver out while it held the message, and
    /// taken the buffer back, so that its bytes may be those of others. That is only known of one
    /// in a buffer after it was read.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        if self.buffer() == NO_BUFFER {
            return true;
        }
        let inner = self.port.inner();
        // A forked child has neither the ring nor the buffer.
        !inner.mailbox.is_forked()
            && inner.feeds[self.room().feed as usize].as_ref().is_some_and(|feed| !feed.conn.is_taken_back())
    }

    /// The payload in whatever memory it is.
    #[inline]
    #[must_use]
    pub fn shared(&self) -> SharedBytes<'_> {
        if self.buffer() == NO_BUFFER {
            return SharedBytes::from(self.inline_bytes());
        }
        if self.port.inner().mailbox.is_forked() {
            return SharedBytes::EMPTY;
        }
        // SAFETY: the buffer was located in the sender's heap, and its feed keeps that mapped
        // until all its messages are released; `self` is borrowed as long.
        unsafe { SharedBytes::new(self.room().start, self.len()) }
    }

    /// The payload as a slice, if nobody else can write it: it travelled in the cell, or
    /// the writer of its memory is the runtime or this process.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        if self.word.is_plain() {
            Some(self.inline_bytes())
        } else {
            // SAFETY: this message is out, and borrowed as long as what is returned.
            unsafe { self.port.bytes_otherwise(self.word) }
        }
    }

    #[inline(always)]
    fn inline_bytes(&self) -> &[u8] {
        // SAFETY: a payload that travelled in the cell has at most 96 bytes, and the room
        // as many; all are initialised.
        unsafe { self.room().inline.0.get_unchecked(..self.len()) }
    }
}

impl Drop for Received<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.port.release(self.word);
    }
}

impl std::fmt::Debug for Received<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Received(sequence {}, {} bytes)", self.sequence(), self.len())
    }
}
