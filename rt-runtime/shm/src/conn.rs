//! The two ends of a connection: ring, completions, borrowed buffers, wake-up.

use crate::Violation;
use crate::cell::Meta;
use crate::heap::{ForeignHeap, SenderHeap};
use crate::region::{Region, RegionCells};
use crate::returns::{Borrowed, Giver, Taker, places};
use crate::ring::{Consumer, InlineBytes, Next, Payload, Plain, PlainInto, Popped, Producer, Taken};
use crate::wake::{Errand, Waker, Watched};
use crate::wish::Quiet;
use insane_core::heap::BufferId;
use insane_core::{ConnId, MonoTime, Nanos};
use insane_sys::SharedBytes;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How long a receiver of a reliable stream may take nothing while others wait for it: as long as
/// a peer may.
pub const STALL_TIMEOUT: Nanos = Nanos::from_millis(500);

/// The producing end: owned by a source, or by a datapath for a sink.
#[derive(Debug)]
pub struct TxConn {
    id: ConnId,
    ring: Producer<RegionCells, RegionCells>,
    taker: Taker<RegionCells>,
    borrowed: Borrowed,
    /// Buffers that the receiver may hold.
    share: u32,
    waker: Option<Waker>,
    /// Up to this position of the ring a message is plain: there is room, and no loss to
    /// report. One comparison then stands for both.
    plain_until: u64,
    /// Messages dropped for this receiver since the last one it got.
    missed: u16,
    /// Whether it leads to a sink of this host that is to get what was emitted before it
    /// joined, and has not got it yet.
    awaits_history: bool,
    /// Whether it leads to a sink of this host.
    direct: bool,
    /// How often the datapath had asked for what is kept of the past when it last got it.
    answered: u64,
    /// Its receiver only watches.
    observes: bool,
    /// Its receiver, of a reliable stream, took nothing for too long: until it has got the next
    /// message, nobody waits for it.
    is_put_out: bool,
    /// Behind the last message in a buffer that the receiver got.
    buffers_until: u64,
    /// Since when its ring has had no room, and since when it has held its share of buffers: each
    /// by itself, since small messages may come to their end while it holds its share, and go on.
    stalls: [Option<Stall>; 2],
}

/// A receiver of a reliable stream without room.
#[derive(Clone, Copy, Debug)]
struct Stall {
    since: MonoTime,
    /// What it had taken, and given back.
    mark: (u64, u64),
}

impl TxConn {
    /// `buffers` is the number of buffers of the sender's heap, 0 without one. Prepares
    /// everything; nothing allocates afterwards.
    ///
    /// # Panics
    /// If `cells` is not writable here or has its producer already, or a region is too small.
    #[must_use]
    pub fn new(
        id: ConnId,
        cells: Arc<Region>,
        returns: Arc<Region>,
        depth: u32,
        buffers: u32,
        waker: Option<Waker>,
    ) -> Self {
        cells.claim_writer();
        let returns = RegionCells::new(returns);
        TxConn {
            id,
            ring: Producer::new(RegionCells::new(cells), returns.clone(), depth),
            taker: Taker::new(returns, places(buffers)),
            borrowed: Borrowed::new(buffers),
            share: u32::MAX,
            waker,
            plain_until: 0,
            missed: 0,
            awaits_history: false,
            direct: false,
            answered: 0,
            observes: false,
            is_put_out: false,
            buffers_until: 0,
            stalls: [None; 2],
        }
    }

    /// Says that it leads to a sink of this host, and not to a datapath.
    #[must_use]
    pub const fn direct(mut self) -> Self {
        (self.awaits_history, self.direct) = (true, true);
        self
    }

    /// Whether the sink is still to get what was emitted before it joined; asked once. One
    /// that has got something newer meanwhile is not: messages come in order.
    pub(crate) const fn take_awaits_history(&mut self) -> bool {
        std::mem::replace(&mut self.awaits_history, false) && self.ring.is_unused()
    }

    /// Whether it leads to a datapath that asks, for peers that joined, for what is kept of
    /// the past, and has not got it yet.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        !self.direct && self.ring.asks() != self.answered
    }

    /// As [`is_asked`](Self::is_asked): how often it has asked, if so many messages fit. It
    /// counts as answered then.
    pub(crate) fn take_ask(&mut self, count: u64) -> Option<u64> {
        if !self.is_asked() {
            return None;
        }
        if self.ring.has_room_for(count.min(self.ring.depth())) != Ok(true) {
            // The receiver may have been caught at a lie.
            self.plain_until = 0;
            return None;
        }
        self.answered = self.ring.asks();
        Some(self.answered)
    }

    /// As [`try_push_inline`](Self::try_push_inline), a message of the past: losses are told
    /// with one of now.
    pub(crate) fn try_push_past(&mut self, meta: Meta, payload: &[u8]) -> bool {
        let has_room = self.ring.has_room() == Ok(true);
        if has_room {
            self.ring.write_inline(meta, payload);
        }
        has_room
    }

    /// As [`try_push_heap`](Self::try_push_heap), a message of the past: losses are told with one
    /// of now, since who gets the past need not be who has missed something.
    pub(crate) fn try_push_past_heap(&mut self, meta: Meta, id: BufferId, len: u32) -> bool {
        let has_room = self.has_room_for_buffer() == Ok(true);
        if has_room {
            self.borrowed.set(id);
            self.ring.write_heap(meta, id, len);
            self.buffers_until = self.ring.position();
        }
        has_room
    }

    /// Messages the ring holds at most.
    pub(crate) const fn depth(&self) -> u64 {
        self.ring.depth()
    }

    /// The receiver only watches: it is not counted as one, and nobody waits for it.
    #[must_use]
    pub const fn observing(mut self) -> Self {
        self.observes = true;
        self
    }

    /// Whether the receiver only watches.
    #[inline]
    #[must_use]
    pub const fn observes(&self) -> bool {
        self.observes
    }

    /// Whether nobody waits for the receiver: it only watches, or was put out.
    #[inline]
    pub(crate) const fn is_not_waited_for(&self) -> bool {
        self.observes || self.is_put_out
    }

    /// Whether the receiver was put out, and has got no message since.
    pub(crate) const fn is_put_out(&self) -> bool {
        self.is_put_out
    }

    /// Whether the receiver, which has no room for a message, has taken nothing and given nothing
    /// back for [`STALL_TIMEOUT`]; never that of a datapath, which puts out by itself whoever
    /// keeps it from going on. Who holds its share of buffers and has taken them all is only
    /// looked at for what it gives back. The first call for one begins its time. It looks at the
    /// ring, and may find out a lie.
    #[cold]
    pub(crate) fn is_stalled(&mut self, now: MonoTime, in_buffer: bool) -> bool {
        if !self.direct {
            return false;
        }
        let holds_share = in_buffer && self.borrowed.count() >= self.share;
        let looked_at = if holds_share { self.buffers_until } else { u64::MAX };
        // A receiver tells of messages by quarters of the ring, and of buffers by batches. One
        // that others wait for is asked to tell of each that counts, and its time begins when it
        // is: not of those behind, which may come faster than they are asked for.
        let is_asked = self.ring.ask_for_each(looked_at);
        let mark = (self.ring.taken().min(looked_at), self.taker.position());
        let stall = &mut self.stalls[usize::from(holds_share)];
        match stall {
            Some(stall) if stall.mark == mark => now.since(stall.since) >= STALL_TIMEOUT,
            _ => {
                *stall = is_asked.then_some(Stall { since: now, mark });
                false
            }
        }
    }

    /// From now on nobody waits for the receiver, until it has got a message again: that one
    /// tells it what it has missed.
    #[cold]
    pub(crate) const fn put_out(&mut self) {
        self.is_put_out = true;
    }

    /// It is waited for without end: nobody is left for whose sake it would be put out. If somebody
    /// comes, its time begins anew.
    pub(crate) const fn take_in(&mut self) {
        self.is_put_out = false;
        self.stalls = [None; 2];
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> ConnId {
        self.id
    }

    /// Whether one more message fits.
    ///
    /// # Errors
    /// The receiver wrote what cannot be, now or earlier: close the connection.
    #[inline]
    pub fn has_room(&mut self) -> Result<bool, Violation> {
        self.ring.has_room()
    }

    /// What the receiver was caught at: then the connection has no room any more.
    #[must_use]
    pub const fn lie(&self) -> Option<Violation> {
        self.ring.lie()
    }

    /// Notes a message that this receiver does not get.
    #[inline]
    pub fn miss(&mut self, count: u64) {
        self.missed = self.missed.saturating_add(u16::try_from(count).unwrap_or(u16::MAX));
        self.plain_until = 0;
    }

    /// What a message that is about to be published bears: with it all losses are told,
    /// so the next one is plain if there is room.
    #[inline(always)]
    fn account(&mut self, mut meta: Meta) -> Meta {
        if self.missed > 0 {
            meta.lost = meta.lost.saturating_add(std::mem::take(&mut self.missed));
        }
        // Also without a loss: it may have made room just after it was put out.
        self.is_put_out = false;
        self.plain_until = self.ring.room_until();
        meta
    }

    /// Whether there is room, as far as is known, and no loss to report.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.ring.position() < self.plain_until
    }

    /// Publishes a message in line; the caller has seen [`has_room`](Self::has_room).
    ///
    /// # Panics
    /// Without room, or with more than 96 bytes.
    #[inline]
    pub fn push_inline(&mut self, meta: Meta, payload: &[u8]) {
        let meta = self.account(meta);
        self.ring.push_inline(meta, payload);
    }

    /// Publishes a message in line if there is room as far as is known, and no loss to
    /// report. Else it does nothing.
    ///
    /// # Panics
    /// With more than 96 bytes.
    #[inline(always)]
    #[must_use]
    pub fn push_inline_plain(&mut self, meta: Meta, payload: &[u8]) -> bool {
        let is_plain = self.is_plain();
        if is_plain {
            self.ring.write_inline(meta, payload);
        }
        is_plain
    }

    /// As [`push_inline_plain`](Self::push_inline_plain), a lent buffer; the caller counts
    /// one more holder.
    #[inline(always)]
    pub(crate) fn push_heap_plain(&mut self, meta: Meta, id: BufferId, len: u32) -> bool {
        let is_plain = self.is_plain() && self.borrowed.count() < self.share;
        if is_plain {
            self.borrowed.set(id);
            self.ring.write_heap(meta, id, len);
        }
        is_plain
    }

    /// Sets how many buffers the receiver may hold: so that one that never releases
    /// leaves some for the others.
    pub(crate) const fn set_share(&mut self, share: u32) {
        self.share = share;
    }

    /// How many buffers the receiver may hold beside those that it holds.
    pub(crate) fn share_left(&self) -> u32 {
        self.share.saturating_sub(self.borrowed.count())
    }

    /// Whether one more message in a buffer fits: into the ring, and into the receiver's share.
    ///
    /// # Errors
    /// The receiver's head is impossible: close the connection.
    #[inline]
    pub(crate) fn has_room_for_buffer(&mut self) -> Result<bool, Violation> {
        Ok(self.borrowed.count() < self.share && self.has_room()?)
    }

    /// Publishes a message in line if there is room.
    #[inline(always)]
    pub(crate) fn try_push_inline(&mut self, meta: Meta, payload: &[u8]) -> Result<bool, Violation> {
        if !self.ring.has_room()? {
            return Ok(false);
        }
        let meta = self.account(meta);
        self.ring.write_inline(meta, payload);
        Ok(true)
    }

    /// Publishes a lent buffer; the connection holds it until it is given back.
    ///
    /// # Panics
    /// Without room, or if the buffer is not lent.
    #[inline]
    pub fn push_heap(&mut self, heap: &mut SenderHeap, meta: Meta, id: BufferId, len: u32) {
        heap.retain(id);
        self.borrowed.set(id);
        let meta = self.account(meta);
        self.ring.push_heap(meta, id, len);
    }

    /// Publishes a lent buffer if there is room; if so, the caller counts one more holder.
    #[inline(always)]
    pub(crate) fn try_push_heap(&mut self, meta: Meta, id: BufferId, len: u32) -> Result<bool, Violation> {
        if !self.has_room_for_buffer()? {
            return Ok(false);
        }
        self.borrowed.set(id);
        let meta = self.account(meta);
        self.ring.write_heap(meta, id, len);
        self.buffers_until = self.ring.position();
        Ok(true)
    }

    /// Whether the receiver ever asks to be woken; else it polls.
    #[inline]
    #[must_use]
    pub const fn may_sleep(&self) -> bool {
        self.waker.is_some()
    }

    /// Whether the receiver asks to be woken. Call after publishing, once a burst.
    #[inline]
    pub fn wants_wake(&mut self) -> bool {
        let published = self.ring.position();
        self.waker.as_mut().is_some_and(|waker| waker.is_wanted(published))
    }

    /// Wakes the receiver: one system call.
    pub fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake(|| self.ring.ring_bell());
        }
    }

    /// As [`wake`](Self::wake), with the system call left to another thread; `None` where
    /// the receiver is never woken. Allocates nothing.
    #[must_use]
    pub fn wake_later(&self) -> Option<Errand> {
        let ring = || {
            self.ring.ring_bell();
        };
        self.waker.as_ref().map(|waker| waker.errand(self.ring.cells(), ring))
    }

    /// A wake-up that [`wants_wake`](Self::wants_wake) asked for was not made: it is asked
    /// for again while the receiver still sleeps.
    pub fn forget_wake(&mut self) {
        if let Some(waker) = &mut self.waker {
            waker.forget();
        }
    }

    /// Takes back the buffers that the receiver gave back. At most as many as the heap
    /// has buffers.
    ///
    /// # Errors
    /// It gave back what it does not hold, now or earlier: close the connection.
    #[inline]
    pub fn reclaim(&mut self, heap: &mut SenderHeap) -> Result<(), Violation> {
        while self.borrowed.count() > 0 {
            let Some(id) = self.taker.take() else { break };
            if let Err(violation) = self.borrowed.clear(id) {
                self.ring.distrust(violation);
                self.plain_until = 0;
                break;
            }
            heap.release(id);
        }
        self.ring.lie().map_or(Ok(()), Err)
    }

    /// Buffers that the receiver holds.
    #[must_use]
    pub const fn held(&self) -> u32 {
        self.borrowed.count()
    }

    /// Ends the connection and, with `heap`, takes back what the receiver holds, to be
    /// used again at once. So give the heap only if the receiver is dead, has let go of
    /// its end, or is expelled. One that lives is told before a buffer is used anew: it takes
    /// nothing more out of the ring from the first message in a buffer on. Of a message that it
    /// has taken already it sees other bytes come, and can only find that out afterwards
    /// ([`Received::is_whole`](crate::port::Received::is_whole)).
    pub fn abandon(&mut self, heap: Option<&mut SenderHeap>) {
        let Some(heap) = heap else { return self.ring.close() };
        self.ring.take_back();
        self.borrowed.drain(|id| heap.release(id));
    }
}

/// The consuming end: owned by a sink, or by a datapath for a source.
#[derive(Debug)]
pub struct RxConn {
    id: ConnId,
    ring: Consumer<RegionCells, RegionCells>,
    giver: Giver<RegionCells>,
    heap: Option<ForeignHeap>,
    trusted: bool,
    direct: bool,
    held: u32,
    /// Messages that were given up since their buffers were taken back, and not yet told of.
    given_up: u64,
    /// As long as this is there, the sender does not use a buffer anew that was not given back.
    hold: Option<OwnedFd>,
    /// To be told of the next message, as nobody looks at the ring.
    quiet: Quiet,
}

impl RxConn {
    /// `heap` is the sender's. `trusted`: its writer is the runtime or this process.
    ///
    /// # Panics
    /// If `returns` is not writable here or has its consumer already, or a region is too
    /// small.
    #[must_use]
    pub fn new(
        id: ConnId,
        cells: Arc<Region>,
        returns: Arc<Region>,
        depth: u32,
        heap: Option<ForeignHeap>,
        trusted: bool,
    ) -> Self {
        returns.claim_writer();
        let returns = RegionCells::new(returns);
        let places = places(heap.as_ref().map_or(0, ForeignHeap::buffers));
        // Never keep back more than a quarter of a class.
        let batch_max = heap.as_ref().map_or(0, ForeignHeap::fewest) / 4;
        let ring = Consumer::new(RegionCells::new(cells), returns.clone(), depth);
        RxConn {
            id,
            quiet: Quiet::new(),
            ring,
            giver: Giver::new(returns, places).with_batch_max(batch_max as usize),
            heap,
            trusted,
            direct: false,
            held: 0,
            given_up: 0,
            hold: None,
        }
    }

    /// Says that it comes from a source of this host, and not from a datapath.
    #[must_use]
    pub const fn direct(mut self) -> Self {
        self.direct = true;
        self
    }

    /// Keeps this descriptor as long as the connection: by it the sender's agent sees that
    /// somebody may still read ([`insane_sys::memfd::hold`]).
    #[must_use]
    pub fn holding(mut self, hold: Option<OwnedFd>) -> Self {
        self.hold = hold;
        self
    }

    /// Whether it comes from a source of this host, and not from a datapath.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    /// Its number.
    #[must_use]
    pub const fn id(&self) -> ConnId {
        self.id
    }

    /// Whether the heap's writer is the runtime or this process.
    #[must_use]
    pub const fn is_trusted(&self) -> bool {
        self.trusted
    }

    /// Buffers held and not yet given back.
    #[must_use]
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// Of a datapath: from now on a sender that [can ring](Waker::of_datapath) does so with its
    /// next message, and nobody need look. `false`: there is one already, and nothing changes.
    #[must_use]
    pub fn be_quiet(&mut self) -> bool {
        self.quiet.arm(self.ring.quiet_word(), self.ring.position());
        let is_quiet = !self.ring.is_ready();
        if !is_quiet {
            self.heed();
        }
        is_quiet
    }

    /// Somebody looks at it again, and the sender need not ring.
    pub fn heed(&mut self) {
        self.quiet.disarm(self.ring.quiet_word());
    }

    /// The word in which the message that waits bears its source instant: a claim of its
    /// sender, and the one that is taken may bear another. `None`: no message waits.
    #[inline]
    #[must_use]
    pub fn next_source_ns(&self) -> Option<u64> {
        self.ring.next_source_ns()
    }

    /// Whether a message waits.
    #[inline]
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ring.is_ready()
    }

    /// Asks the source for what it keeps of the past, if anything; returns how often that
    /// was done: the answer ends with a message that says so (see
    /// [`end_of_past`](crate::port::end_of_past)).
    pub fn ask_for_past(&mut self) -> u64 {
        self.ring.ask()
    }

    /// How many messages wait, as their sender claims: at most [`depth`](Self::depth). For
    /// counting what is given up.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.ring.waiting()
    }

    /// Messages taken so far.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.ring.passed()
    }

    /// Whether the producer is finished; messages may still wait.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ring.is_closed()
    }

    /// Messages the ring holds at most.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.ring.depth()
    }

    /// Whether the sender has taken back the buffers that were not given back. `false`: what was
    /// read of one before this call is what was sent.
    #[inline]
    #[must_use]
    pub fn is_taken_back(&self) -> bool {
        self.ring.is_taken_back()
    }

    /// How many messages were given up since the last call, because their buffers had been taken
    /// back: they are lost.
    #[inline(always)]
    pub(crate) const fn take_given_up(&mut self) -> u64 {
        std::mem::replace(&mut self.given_up, 0)
    }

    /// Gives up a message whose buffer was taken back, and all that wait behind it: they are the
    /// last ones of this ring.
    #[cold]
    fn give_up(&mut self) {
        self.given_up += 1 + self.ring.give_up();
        self.giver.flush();
    }

    /// Takes the next message. A payload in the heap has been located, so
    /// [`view`](Self::view) of it succeeds, and it must be given back. If the sender has taken its
    /// buffers back, there is none from the first one in a buffer on.
    ///
    /// # Errors
    /// The sender wrote what cannot be: close the connection.
    #[inline(always)]
    pub fn pop(&mut self, into: &mut Popped) -> Result<bool, Violation> {
        let is_taken = self.ring.pop(into)?;
        if is_taken && let Payload::Heap(id) = into.payload {
            if self.ring.is_taken_back() {
                into.payload = Payload::Inline;
                self.give_up();
                return Ok(false);
            }
            if self.locate(id, into.len).is_none() {
                // It is not held, so nobody may give it back.
                into.payload = Payload::Inline;
                return Err(Violation::Cell);
            }
            self.held += 1;
        }
        self.keep_nothing_back();
        Ok(is_taken)
    }

    /// As [`pop`](Self::pop), into private memory if it is in line; and where the payload
    /// is then.
    pub(crate) fn take(&mut self, inline: &mut InlineBytes) -> Result<Option<(Taken, *const u8)>, Violation> {
        let Some(taken) = self.ring.take(inline)? else {
            self.keep_nothing_back();
            return Ok(None);
        };
        if matches!(taken.payload, Payload::Heap(_)) && self.ring.is_taken_back() {
            self.give_up();
            return Ok(None);
        }
        let start = self.hold(&taken, inline).ok_or(Violation::Cell)?;
        self.keep_nothing_back();
        Ok(Some((taken, start)))
    }

    /// Takes the next message if it is in line. One in a buffer is left for
    /// [`take_heap`](Self::take_heap).
    #[inline(always)]
    pub(crate) fn take_next(&mut self, inline: &mut InlineBytes) -> Next {
        let next = self.ring.take_next(inline);
        if matches!(next, Next::Inline(..)) {
            self.keep_nothing_back();
        }
        next
    }

    /// Takes the next message if it is plain: in line, and none lost before it.
    #[inline(always)]
    pub(crate) fn take_plain(&mut self, into: PlainInto<'_>) -> Plain {
        let plain = self.ring.take_plain(into);
        if matches!(plain, Plain::Inline(_)) && self.ring.is_due() {
            self.see_to_what_is_due();
        }
        plain
    }

    /// The head, and buffers that were kept back.
    #[inline(never)]
    fn see_to_what_is_due(&mut self) {
        self.ring.publish_if_due();
        self.ring.look_later();
        self.keep_nothing_back();
    }

    /// Takes the message that [`take_plain`](Self::take_plain) has just left, if it is in a
    /// buffer that there is; and says where its payload is.
    #[inline(always)]
    pub(crate) fn take_in_buffer(&mut self) -> Option<(Meta, u32, BufferId, *const u8)> {
        let Next::Heap(meta, len, id) = self.ring.look_at_heap() else { return None };
        let start = self.take_heap(id, len)?;
        Some((meta, len, id, start))
    }

    /// Takes the message in a buffer that [`take_next`](Self::take_next) has just read, and
    /// says where its payload is. `None`, and nothing is taken: nowhere, or the sender has taken
    /// its buffers back.
    #[inline(always)]
    pub(crate) fn take_heap(&mut self, id: BufferId, len: u32) -> Option<*const u8> {
        let start = self.locate(id, len)?;
        if self.ring.is_taken_back() {
            return None;
        }
        self.ring.pass();
        self.held += 1;
        self.keep_nothing_back();
        Some(start)
    }

    /// Tells the sender all that it should know, when there is no message.
    #[inline(always)]
    pub fn rest(&mut self) {
        self.ring.publish_head();
        self.giver.flush();
    }

    /// Where a payload is, counted as held if it is in the heap. `None`: nowhere.
    #[inline(always)]
    fn hold(&mut self, taken: &Taken, inline: &InlineBytes) -> Option<*const u8> {
        match taken.payload {
            Payload::Inline => Some(inline.0.as_ptr()),
            Payload::Heap(id) => {
                let start = self.locate(id, taken.len)?;
                self.held += 1;
                Some(start)
            }
        }
    }

    #[inline(always)]
    fn locate(&self, id: BufferId, len: u32) -> Option<*const u8> {
        self.heap.as_ref()?.locate(id, len)
    }

    /// Returns wait for a batch only while the receiver is behind with a ring that the
    /// sender does not see moving: whoever may sleep or stop now keeps nothing. Nor does who is
    /// asked to tell of each message.
    #[inline(always)]
    fn keep_nothing_back(&mut self) {
        if self.giver.is_holding_back() {
            self.flush_unless_behind();
        }
    }

    /// While something is kept back, each message is followed by a look here.
    #[inline(never)]
    fn flush_unless_behind(&mut self) {
        if self.is_behind() {
            self.ring.look_soon();
        } else {
            self.giver.flush();
            self.ring.look_later();
        }
    }

    #[inline(always)]
    fn is_behind(&self) -> bool {
        !self.ring.is_published() && self.ring.is_ready() && !self.ring.is_asked()
    }

    /// The bytes of a buffer of the sender's heap; empty if there is no such buffer.
    #[inline]
    #[must_use]
    pub fn view(&self, id: BufferId, len: u32) -> SharedBytes<'_> {
        self.heap.as_ref().and_then(|heap| heap.view(id, len)).unwrap_or(SharedBytes::EMPTY)
    }

    /// Gives a buffer back to its sender; while messages wait, it may wait for a batch.
    ///
    /// # Panics
    /// If none is held: a bug of the receiver.
    #[inline]
    pub fn give_back(&mut self, id: BufferId) {
        assert!(self.held > 0, "nothing is held");
        self.held -= 1;
        if self.is_behind() {
            self.giver.give(id);
            self.ring.look_soon();
        } else {
            self.giver.give_now(id);
        }
    }

    /// Writes out what waits for a batch.
    pub fn flush(&mut self) {
        self.giver.flush();
    }

    /// The bell that the sender rings for a sleeper, as it reads now.
    pub(crate) fn watched(&self) -> Watched {
        let bell = self.ring.bell();
        // Acquire pairs with the Release in `Producer::ring_bell`: the look at the ring that
        // follows sees what was published before this count.
        Watched::new(bell, bell.load(Ordering::Acquire))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::cell::{cells_bytes, returns_bytes};

    #[test]
    fn who_makes_room_just_after_it_was_put_out_is_waited_for() {
        let region = |bytes: u64| Region::anonymous(bytes as usize).unwrap();
        let (cells, returns) = (region(cells_bytes(2)), region(returns_bytes(0)));
        let mut tx = TxConn::new(ConnId(1), cells, returns, 2, 0, None).direct();
        tx.put_out();
        assert!(tx.is_not_waited_for());
        assert_eq!(tx.try_push_inline(Meta::default(), b"x"), Ok(true));
        assert!(!tx.is_not_waited_for(), "it missed nothing");
    }

    const MS: u64 = 1_000_000;

    /// A direct ring of this depth that is full.
    fn full(depth: u32) -> (TxConn, RxConn) {
        let region = |bytes: u64| Region::anonymous(bytes as usize).unwrap();
        let (cells, returns) = (region(cells_bytes(depth)), region(returns_bytes(0)));
        let rx = RxConn::new(ConnId(1), Arc::clone(&cells), Arc::clone(&returns), depth, None, true);
        let mut tx = TxConn::new(ConnId(1), cells, returns, depth, 0, None).direct();
        while tx.try_push_inline(Meta::default(), b"x") == Ok(true) {}
        (tx, rx)
    }

    #[test]
    fn the_time_of_a_full_ring_begins_with_the_first_question_and_anew_with_each_message_taken() {
        let (mut tx, mut rx) = full(4);
        let begin = 7 * MS;
        let mut is_stalled = |at: u64| tx.is_stalled(MonoTime(at), false);
        assert!(!is_stalled(begin) && !is_stalled(begin + STALL_TIMEOUT.0 - 1));
        assert!(is_stalled(begin + STALL_TIMEOUT.0));
        // It was asked to tell of each, so it does.
        assert_eq!(rx.ring.take(&mut InlineBytes([0; 96])).map(|taken| taken.is_some()), Ok(true));
        assert!(!is_stalled(begin + STALL_TIMEOUT.0));
        assert!(is_stalled(begin + 2 * STALL_TIMEOUT.0));
    }

    #[test]
    fn the_time_of_a_deep_ring_begins_when_whatever_is_taken_next_is_told_of() {
        let (mut tx, mut rx) = full(2048);
        let mut popped = Popped::EMPTY;
        // A quarter less one: it has told of none.
        for _ in 0..511 {
            assert_eq!(rx.pop(&mut popped), Ok(true));
        }
        let mut is_stalled = |at: u64| tx.is_stalled(MonoTime(at), false);
        // Of 256 more with each question.
        assert!(!is_stalled(0) && !is_stalled(STALL_TIMEOUT.0), "it may be taking, untold");
        assert!(!is_stalled(2 * STALL_TIMEOUT.0 - 1));
        assert!(is_stalled(2 * STALL_TIMEOUT.0));
        assert_eq!(rx.ring.take(&mut InlineBytes([0; 96])).map(|taken| taken.is_some()), Ok(true));
        assert!(!is_stalled(2 * STALL_TIMEOUT.0), "it has told of 512");
        assert_eq!(tx.has_room(), Ok(true));
    }
}
