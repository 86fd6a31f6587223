//! Delivery into the sinks of this host.

use crate::command::{Dead, NewSink, Notice, Port, Topic};
use crate::routes::{RouteIndex, Routes};
use crate::waker::WakeQueue;
use crate::wakes::{PurseIndex, Wakes};
use crate::{SINKS_MAX, WAKE_LOOKS_PER_TURN, WAKES_PER_TURN};
use insane_core::counters::DatapathCounter;
use insane_core::heap::BufferId;
use insane_core::limits::INLINE_BYTES_MAX;
use insane_core::{ConnId, DomainIndex, MonoTime};
use insane_shm::Violation;
use insane_shm::cell::Meta;
use insane_shm::conn::TxConn;
use insane_shm::counters::CounterBlock;
use insane_shm::heap::SenderHeap;
use insane_shm::port::spare_buffers;
use insane_sys::SharedBytes;
use std::sync::Arc;

/// What a datapath has of each domain.
#[derive(Debug)]
pub struct DomainParts {
    /// Memory for received messages that do not fit a cell.
    pub heap: SenderHeap,
    /// What the datapath counts for the domain.
    pub counters: CounterBlock,
}

#[derive(Debug)]
struct SinkEntry {
    conn: TxConn,
    route: RouteIndex,
    domain: DomainIndex,
    /// How many sinks had joined with it; 0: it only watches.
    number: u64,
    /// It is in a list of those to be woken.
    listed: bool,
    /// Its stream is of a real-time lane.
    urgent: bool,
    /// Who pays for its wake-ups.
    purse: PurseIndex,
    /// Its client lied; it gets nothing more.
    dead: bool,
    /// It stalled a reliable flow for too long: until it takes a message again nobody
    /// waits for it, and what it misses it is told.
    evicted: bool,
}

/// The sinks of this host, and the memory they are served from.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub routes: Routes,
    pub domains: Vec<DomainParts>,
    sinks: Vec<Option<SinkEntry>>,
    /// Sinks of each domain, for their share of its buffers.
    sinks_of_domain: Vec<u32>,
    /// Sinks of each domain that only watch; they are not among the others.
    taps_of_domain: Vec<u32>,
    free: Vec<u16>,
    /// Sinks that have joined so far, those that only watch apart.
    joined: u64,
    /// Sinks that got something and were not yet asked whether to wake them.
    pub wakes: Wakes,
    /// Where the next idle look for returned buffers starts.
    reclaim_at: usize,
}

/// Sinks of this host, by when they joined: from the first of these numbers to the last. Those
/// that only watch have number 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Joined {
    first: u64,
    last: u64,
}

impl Joined {
    /// All, whenever they joined.
    pub const ALL: Joined = Joined { first: 0, last: u64::MAX };

    /// Those up to this number, and those that only watch.
    pub const fn up_to(last: u64) -> Self {
        Joined { first: 0, last }
    }

    /// Those behind `after`, up to `last`.
    pub const fn between(after: u64, last: u64) -> Self {
        Joined { first: after + 1, last }
    }

    fn has(self, sink: &SinkEntry) -> bool {
        (self.first..=self.last).contains(&sink.number)
    }
}

/// A message on its way into rings: private bytes, a client's bytes, or a buffer that
/// already holds it.
#[derive(Clone, Copy)]
pub(crate) enum Content<'a> {
    Private(&'a [u8]),
    Foreign(SharedBytes<'a>),
    Received(BufferId, u32),
}

impl Content<'_> {
    fn len(&self) -> usize {
        match self {
            Content::Private(bytes) => bytes.len(),
            Content::Foreign(bytes) => bytes.len(),
            Content::Received(_, len) => *len as usize,
        }
    }
}

impl Outlets {
    pub fn new(routes: usize, domains: Vec<DomainParts>, waker: Option<Arc<WakeQueue>>) -> Self {
        Outlets {
            routes: Routes::new(routes),
            sinks_of_domain: vec![0; domains.len()],
            taps_of_domain: vec![0; domains.len()],
            domains,
            sinks: (0..SINKS_MAX).map(|_| None).collect(),
            free: (0..SINKS_MAX as u16).rev().collect(),
            joined: 0,
            wakes: Wakes::new(waker),
            reclaim_at: 0,
        }
    }

    /// Takes a sink in, the `number`th (0: it only watches); it comes back if there is no place.
    #[expect(clippy::result_large_err, reason = "the refused item is handed back by value: the datapath frees nothing")]
    pub fn add(&mut self, sink: NewSink, number: u64) -> Result<(), NewSink> {
        if self.domains.len() <= sink.domain.index() {
            return Err(sink);
        }
        let Some(route) = self.routes.hold(sink.topic, sink.domain) else { return Err(sink) };
        let place = self.free.pop();
        let listed = place.and_then(|place| {
            let sinks = &mut self.routes.get_mut(route)?.sinks;
            sinks.push(place).ok()
        });
        let (Some(place), Some(())) = (place, listed) else {
            self.free.extend(place);
            self.routes.release(route);
            return Err(sink);
        };
        let NewSink { conn, domain, session, lane, wakes_per_second, .. } = sink;
        *self.fellows(domain, conn.observes()) += 1;
        let purse = self.wakes.hold(session, wakes_per_second);
        let urgent = lane.is_real_time();
        self.joined = self.joined.max(number);
        self.sinks[place as usize] =
            Some(SinkEntry { conn, route, domain, number, listed: false, urgent, purse, dead: false, evicted: false });
        Ok(())
    }

    /// What a sink listens to.
    pub fn topic_of(&self, conn: ConnId) -> Option<Topic> {
        let sink = self.sinks.iter().flatten().find(|sink| sink.conn.id() == conn)?;
        self.routes.get(sink.route).map(|route| route.topic)
    }

    /// Lets a sink go, and takes its buffers back.
    pub fn remove(&mut self, conn: ConnId) -> Option<Dead> {
        let place = self.sinks.iter().position(|sink| sink.as_ref().is_some_and(|sink| sink.conn.id() == conn))?;
        let mut sink = self.sinks[place].take()?;
        if let Some(route) = self.routes.get_mut(sink.route) {
            route.sinks.retain(|at| *at as usize != place);
        }
        self.routes.release(sink.route);
        self.wakes.unlist(place as u16);
        self.wakes.release(sink.purse);
        self.free.push(place as u16);
        *self.fellows(sink.domain, sink.conn.observes()) -= 1;
        sink.conn.abandon(Some(&mut self.domains[sink.domain.index()].heap));
        Some(Dead::Sink(sink.conn))
    }

    /// The number of the sinks of a domain, or of those that only watch.
    fn fellows(&mut self, domain: DomainIndex, observe: bool) -> &mut u32 {
        let table = if observe { &mut self.taps_of_domain } else { &mut self.sinks_of_domain };
        &mut table[domain.index()]
    }

    pub fn count(&self, domain: DomainIndex, counter: DatapathCounter, amount: u64) {
        if let Some(parts) = self.domains.get(domain.index()) {
            parts.counters.add(counter as usize, amount);
        }
    }

    /// What a counter of a domain stands at.
    pub fn counted(&self, domain: DomainIndex, counter: DatapathCounter) -> u64 {
        self.domains.get(domain.index()).map_or(0, |parts| parts.counters.get(counter as usize))
    }

    /// Counts a frame of so many bytes that came for a domain.
    #[inline]
    pub fn count_received(&self, domain: DomainIndex, bytes: usize) {
        if let Some(parts) = self.domains.get(domain.index()) {
            parts.counters.add(DatapathCounter::FramesReceived as usize, 1);
            parts.counters.add(DatapathCounter::BytesReceived as usize, bytes as u64);
        }
    }

    /// Counts a frame of so many bytes that went for a domain.
    #[inline]
    pub fn count_sent(&self, domain: DomainIndex, bytes: u32) {
        if let Some(parts) = self.domains.get(domain.index()) {
            parts.counters.add(DatapathCounter::FramesSent as usize, 1);
            parts.counters.add(DatapathCounter::BytesSent as usize, u64::from(bytes));
        }
    }

    /// The route and whether anybody here listens.
    pub fn listeners(&self, topic: Topic) -> Option<(RouteIndex, DomainIndex, bool)> {
        let index = self.routes.find(topic)?;
        let route = self.routes.get(index)?;
        Some((index, route.domain, !route.sinks.is_empty()))
    }

    /// Puts one message into the ring of every sink of a route. What a full ring or a
    /// lack of memory keeps from one sink is counted, and costs the others nothing.
    #[inline(never)]
    pub fn deliver(&mut self, port: &Port, route: RouteIndex, meta: Meta, content: Content<'_>) {
        self.deliver_here(port, route, meta, content);
    }

    /// As [`deliver`](Self::deliver): its plain case in line, for what links bring.
    #[inline(always)]
    pub fn deliver_here(&mut self, port: &Port, route: RouteIndex, meta: Meta, content: Content<'_>) {
        if !self.deliver_plain(route, meta, &content) {
            self.deliver_to(Joined::ALL, port, route, meta, content);
        }
    }

    /// Sinks that have joined so far.
    pub const fn joined(&self) -> u64 {
        self.joined
    }

    /// Whether a sink of a route joined after this number of them.
    #[cold]
    pub fn has_joined_after(&self, route: RouteIndex, number: u64) -> bool {
        self.has_sink(route, |joined| joined > number)
    }

    /// Whether a sink of a route was one of the first `number` of them.
    #[cold]
    pub fn has_joined_by(&self, route: RouteIndex, number: u64) -> bool {
        self.has_sink(route, |joined| joined <= number)
    }

    fn has_sink(&self, route: RouteIndex, is_it: impl Fn(u64) -> bool) -> bool {
        let Some(route) = self.routes.get(route) else { return false };
        route.sinks.iter().any(|place| self.sinks[*place as usize].as_ref().is_some_and(|sink| is_it(sink.number)))
    }

    /// Those of a route that are `among` these miss so many messages, which the next one tells.
    #[cold]
    pub fn miss_among(&mut self, among: Joined, route: RouteIndex, count: u64) {
        let Some(route) = self.routes.get(route) else { return };
        for place in &route.sinks {
            if let Some(sink) = self.sinks[*place as usize].as_mut().filter(|sink| among.has(sink)) {
                sink.conn.miss(count);
            }
        }
    }

    /// Puts one message into the ring of every sink of a route that is `among` these.
    #[cold]
    pub fn deliver_among(&mut self, among: Joined, port: &Port, route: RouteIndex, meta: Meta, content: Content<'_>) {
        self.deliver_to(among, port, route, meta, content);
    }

    /// The plain case, straight through: private bytes that fit a cell, for one sink with
    /// room. Else it does nothing.
    #[inline(always)]
    pub fn deliver_plain(&mut self, route: RouteIndex, meta: Meta, content: &Content<'_>) -> bool {
        if let Content::Private(bytes) = content
            && bytes.len() <= INLINE_BYTES_MAX
            && let Some(route) = self.routes.get(route)
            && let [place] = route.sinks[..]
            && let Some(sink) = &mut self.sinks[place as usize]
            && !sink.dead
            && !sink.evicted
            && sink.conn.push_inline_plain(meta, bytes)
        {
            if !sink.listed && sink.conn.may_sleep() {
                sink.listed = true;
                self.wakes.list(place, sink.urgent);
            }
            self.domains[route.domain.index()].counters.add(DatapathCounter::MessagesToSinks as usize, 1);
            return true;
        }
        false
    }

    #[inline(never)]
    fn deliver_to(&mut self, among: Joined, port: &Port, route: RouteIndex, meta: Meta, content: Content<'_>) {
        let Some(entry) = self.routes.get(route) else { return };
        let Some(parts) = self.domains.get_mut(entry.domain.index()) else { return };
        let sinks = self.sinks_of_domain[entry.domain.index()];
        let taps = self.taps_of_domain[entry.domain.index()];
        let len = content.len();
        let mut copy = [0; INLINE_BYTES_MAX];
        let share = if len <= INLINE_BYTES_MAX { 0 } else { share(parts.heap.geometry().buffers(), sinks) };
        let form = if len <= INLINE_BYTES_MAX {
            Some(Form::Inline(inline(&content, &mut copy, &mut parts.heap)))
        } else {
            buffer(&content, parts, &mut self.sinks, &entry.sinks).map(|id| Form::Heap(id, len as u32))
        };
        let Some(form) = form else {
            if among != Joined::ALL {
                // It is no loss to those who have it.
                return parts.counters.add(DatapathCounter::DroppedNoBuffer as usize, 1);
            }
            return miss(parts, &mut self.sinks, &entry.sinks, meta);
        };
        for place in &entry.sinks {
            let Some(sink) = &mut self.sinks[*place as usize] else { continue };
            if sink.dead || !among.has(sink) {
                continue;
            }
            let share = if sink.conn.observes() { spare(parts, taps, len) } else { share };
            match push(sink, parts, (share, sinks), meta, &form) {
                Ok(true) => {
                    if !sink.listed && sink.conn.may_sleep() {
                        sink.listed = true;
                        self.wakes.list(*place, sink.urgent);
                    }
                }
                Ok(false) => {}
                Err(violation) => accuse(sink, parts, port, violation),
            }
        }
        if let Form::Heap(id, _) = form {
            parts.heap.release(id);
        }
    }

    /// Starts to copy a message for the sinks of a route piece by piece: a large one at once
    /// would hold everything else up. `None`: nobody listens, or there is no buffer, which
    /// is counted.
    pub fn start_copy(&mut self, route: RouteIndex, meta: Meta, len: u32) -> Option<Copying> {
        let entry = self.routes.get(route).filter(|route| !route.sinks.is_empty())?;
        let parts = self.domains.get_mut(entry.domain.index())?;
        let buffer = loan(parts, &mut self.sinks, &entry.sinks, len);
        if buffer.is_none() {
            miss(parts, &mut self.sinks, &entry.sinks, meta);
        }
        Some(Copying { buffer: buffer?, domain: entry.domain, len, done: 0 })
    }

    /// Copies the next piece, at most `budget` bytes, and says how many they were.
    pub fn copy_piece(&mut self, copying: &mut Copying, from: SharedBytes<'_>, budget: u32) -> u32 {
        let (at, len) = (copying.done as usize, copying.left().min(budget));
        let into = &mut self.domains[copying.domain.index()].heap.bytes_mut(copying.buffer)[at..][..len as usize];
        from.part(at, len as usize).copy_to(into);
        copying.done += len;
        len
    }

    /// Gives a copy up.
    pub fn discard(&mut self, copying: Copying) {
        self.domains[copying.domain.index()].heap.release(copying.buffer);
    }

    /// Whether a message of a reliable flow would reach every sink of its route that is `among`
    /// these and was not put out.
    pub fn admits(&mut self, port: &Port, among: Joined, route: RouteIndex, demand: Demand) -> bool {
        let Some(entry) = self.routes.get(route) else { return true };
        let Some(parts) = self.domains.get_mut(entry.domain.index()) else { return true };
        let share = reliable_share(parts, self.sinks_of_domain[entry.domain.index()], demand.len);
        let mut all_have_room = true;
        for place in &entry.sinks {
            let Some(sink) = &mut self.sinks[*place as usize] else { continue };
            if sink.dead || sink.evicted || sink.conn.observes() || !among.has(sink) {
                continue;
            }
            match has_room(sink, parts, share) {
                Ok(has_room) => all_have_room &= has_room,
                Err(violation) => accuse(sink, parts, port, violation),
            }
        }
        all_have_room && (demand.has_buffer || !demand.is_large() || parts.heap.has_free(demand.len))
    }

    /// Puts out the sinks of a route that are `among` these and have no room: nobody waits for
    /// them any more.
    #[cold]
    pub fn evict(&mut self, among: Joined, route: RouteIndex, demand: Demand) {
        let Some(entry) = self.routes.get(route) else { return };
        let Some(parts) = self.domains.get_mut(entry.domain.index()) else { return };
        let share = reliable_share(parts, self.sinks_of_domain[entry.domain.index()], demand.len);
        for place in &entry.sinks {
            let Some(sink) = &mut self.sinks[*place as usize] else { continue };
            let may_stall = !sink.dead && !sink.evicted && !sink.conn.observes() && among.has(sink);
            if may_stall && has_room(sink, parts, share) == Ok(false) {
                sink.evicted = true;
                parts.counters.add(DatapathCounter::Evictions as usize, 1);
            }
        }
    }

    /// Wakes sinks that got something and sleep, real-time ones first: at most
    /// [`WAKES_PER_TURN`] itself, the others by the waker thread, if there is one and it
    /// has room, or in the next turns. Looks at [`WAKE_LOOKS_PER_TURN`] sinks, and at one
    /// whose session could not pay. Returns whether any was woken.
    #[inline]
    pub fn wake(&mut self, now: MonoTime) -> bool {
        (self.wakes.is_pending() || self.wakes.has_put_off()) && self.wake_listed(now)
    }

    fn wake_listed(&mut self, now: MonoTime) -> bool {
        let (mut made, mut handed) = (0, false);
        let put_off = self.wakes.next_put_off();
        for _ in 0..WAKE_LOOKS_PER_TURN {
            if made == WAKES_PER_TURN && self.wakes.thread.is_none() {
                break;
            }
            let Some(place) = self.wakes.next() else { break };
            match self.wake_one(place, now, made < WAKES_PER_TURN, Look::First) {
                Woken::No => {}
                Woken::Here => made += 1,
                Woken::Handed => handed = true,
                Woken::NoPlace => break,
            }
        }
        if let Some(place) = put_off {
            let woken = self.wake_one(place, now, made < WAKES_PER_TURN, Look::Again);
            made += usize::from(woken == Woken::Here);
            handed |= woken == Woken::Handed;
        }
        if handed && let Some(thread) = &self.wakes.thread {
            thread.ring();
        }
        made > 0 || handed
    }

    fn wake_one(&mut self, place: u16, now: MonoTime, may_call: bool, look: Look) -> Woken {
        let Some(sink) = &mut self.sinks[place as usize] else { return Woken::No };
        sink.listed = false;
        if !sink.conn.wants_wake() {
            return Woken::No;
        }
        let counters = &self.domains[sink.domain.index()].counters;
        if !self.wakes.pay(sink.purse, now) {
            sink.conn.forget_wake();
            sink.listed = true;
            self.wakes.put_off(place);
            counters.add(DatapathCounter::WakesRefused as usize, u64::from(look == Look::First));
            return Woken::No;
        }
        if may_call {
            sink.conn.wake();
            counters.add(DatapathCounter::Wakes as usize, 1);
            return Woken::Here;
        }
        let errand = self.wakes.thread.as_ref().zip(sink.conn.wake_later());
        if errand.is_some_and(|(thread, errand)| thread.push(errand, sink.urgent)) {
            counters.add(DatapathCounter::Wakes as usize, 1);
            counters.add(DatapathCounter::WakesHandedOver as usize, 1);
            return Woken::Handed;
        }
        sink.conn.forget_wake();
        sink.listed = true;
        self.wakes.refund(sink.purse);
        self.wakes.list_first(place, sink.urgent);
        Woken::NoPlace
    }

    /// Takes back what one sink returned: housekeeping of an idle turn, so that the
    /// number of buffers in use is true without traffic.
    pub fn reclaim_one(&mut self, port: &Port) {
        self.reclaim_at = (self.reclaim_at + 1) % SINKS_MAX;
        if let Some(sink) = &mut self.sinks[self.reclaim_at]
            && !sink.dead
        {
            let parts = &mut self.domains[sink.domain.index()];
            if let Err(violation) = sink.conn.reclaim(&mut parts.heap) {
                accuse(sink, parts, port, violation);
            }
        }
    }

    /// A buffer for a message that is still arriving.
    pub fn loan(&mut self, route: RouteIndex, len: u32) -> Option<BufferId> {
        let entry = self.routes.get(route)?;
        let parts = self.domains.get_mut(entry.domain.index())?;
        loan(parts, &mut self.sinks, &entry.sinks, len)
    }
}

/// A message that is being copied for local sinks; its buffer is nobody else's yet.
#[derive(Debug)]
#[must_use = "its buffer is to be delivered or discarded"]
pub(crate) struct Copying {
    buffer: BufferId,
    domain: DomainIndex,
    len: u32,
    done: u32,
}

impl Copying {
    /// Bytes still to be copied.
    pub const fn left(&self) -> u32 {
        self.len - self.done
    }

    /// All of it, to be delivered.
    pub fn finished(self) -> Content<'static> {
        debug_assert!(self.left() == 0);
        Content::Received(self.buffer, self.len)
    }
}

/// Whether so large a message is copied in pieces, with so much of a grant left. Small ones
/// are not worth it, though they go a little beyond the grant, as frames do.
pub(crate) const fn is_piecemeal(len: u32, budget: u32) -> bool {
    len > budget && len > COPY_WHOLE_MAX
}

/// Bytes that are always copied at once: a page, less than 1 us.
const COPY_WHOLE_MAX: u32 = 4096;

/// Whether a sink's purse was asked before for the same message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    First,
    Again,
}

/// What came of a look at a listed sink.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// It is awake, or cannot pay.
    No,
    /// By this thread.
    Here,
    /// By the waker thread, soon.
    Handed,
    /// Neither has time: it is listed as the next one.
    NoPlace,
}

enum Form<'a> {
    Inline(&'a [u8]),
    Heap(BufferId, u32),
}

fn inline<'a>(content: &Content<'a>, copy: &'a mut [u8; INLINE_BYTES_MAX], heap: &mut SenderHeap) -> &'a [u8] {
    match content {
        Content::Private(bytes) => bytes,
        Content::Foreign(bytes) => {
            let len = bytes.copy_to(copy);
            &copy[..len]
        }
        Content::Received(id, len) => {
            let len = *len as usize;
            copy[..len].copy_from_slice(&heap.bytes_mut(*id)[..len]);
            heap.release(*id);
            &copy[..len]
        }
    }
}

/// A lent buffer that holds the content; the caller is one holder.
fn buffer(
    content: &Content<'_>,
    parts: &mut DomainParts,
    sinks: &mut [Option<SinkEntry>],
    route: &[u16],
) -> Option<BufferId> {
    let len = content.len();
    let id = match content {
        Content::Received(id, _) => *id,
        Content::Private(bytes) => {
            let id = loan(parts, sinks, route, len as u32)?;
            parts.heap.bytes_mut(id)[..len].copy_from_slice(bytes);
            id
        }
        Content::Foreign(bytes) => {
            let id = loan(parts, sinks, route, len as u32)?;
            bytes.copy_to(&mut parts.heap.bytes_mut(id)[..len]);
            id
        }
    };
    parts.heap.lend(id);
    Some(id)
}

/// Tells every sink of a route that it lacks a message: no buffer was free.
fn miss(parts: &DomainParts, sinks: &mut [Option<SinkEntry>], route: &[u16], meta: Meta) {
    parts.counters.add(DatapathCounter::DroppedNoBuffer as usize, 1);
    for place in route {
        if let Some(sink) = &mut sinks[*place as usize] {
            sink.conn.miss(1 + u64::from(meta.lost));
        }
    }
}

/// Looks for returned buffers only when none is free: first at the sinks of the route.
fn loan(parts: &mut DomainParts, sinks: &mut [Option<SinkEntry>], route: &[u16], len: u32) -> Option<BufferId> {
    if let Some(id) = parts.heap.loan(len) {
        return Some(id);
    }
    for place in route {
        if let Some(sink) = &mut sinks[*place as usize] {
            // A violation shows again at the next push, which ends the connection.
            let _ = sink.conn.reclaim(&mut parts.heap);
        }
    }
    parts.heap.loan(len)
}

/// Buffers that one sink may hold, so that one that never releases leaves some for the
/// others: its share of all but one, and at least one.
fn share(buffers: u32, sinks: u32) -> u32 {
    (buffers.saturating_sub(1) / sinks.max(1)).max(1)
}

/// Buffers of those for `len` bytes that one of the sinks that only watch may hold.
#[cold]
fn spare(parts: &DomainParts, taps: u32, len: usize) -> u32 {
    if len <= INLINE_BYTES_MAX { 0 } else { spare_buffers(parts.heap.geometry(), len as u32, taps) }
}

/// What a message of a reliable flow needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Demand {
    /// Its bytes.
    pub len: u32,
    /// The buffer for them is there already.
    pub has_buffer: bool,
}

impl Demand {
    const fn is_large(self) -> bool {
        self.len as usize > INLINE_BYTES_MAX
    }
}

/// As [`share`], of the buffers that hold `len` bytes: a sink that stands still must not
/// use up a scarce class before anybody notices.
fn reliable_share(parts: &DomainParts, sinks: u32, len: u32) -> Option<u32> {
    if len as usize <= INLINE_BYTES_MAX {
        return None;
    }
    let fits = parts.heap.geometry().classes().iter().filter(|class| len <= class.size);
    let buffers = fits.map(|class| class.count).sum();
    // One sink alone has nobody to leave anything to.
    Some(if sinks <= 1 { buffers } else { share(buffers, sinks) })
}

/// Whether a sink can take a message; `share`: of the buffers that it needs.
fn has_room(sink: &mut SinkEntry, parts: &mut DomainParts, share: Option<u32>) -> Result<bool, Violation> {
    if !sink.conn.has_room()? {
        return Ok(false);
    }
    let Some(share) = share else { return Ok(true) };
    sink.conn.reclaim(&mut parts.heap)?;
    Ok(sink.conn.held() < share)
}

fn push(
    sink: &mut SinkEntry,
    parts: &mut DomainParts,
    (share, sinks): (u32, u32),
    meta: Meta,
    form: &Form<'_>,
) -> Result<bool, Violation> {
    let may_return = !sink.evicted || {
        // It takes part again when it has made room for any message.
        let strictest = reliable_share(parts, sinks, parts.heap.geometry().size_max());
        has_room(sink, parts, strictest)?
    };
    let fits = may_return
        && sink.conn.has_room()?
        && match form {
            Form::Inline(_) => true,
            Form::Heap(..) => {
                sink.conn.reclaim(&mut parts.heap)?;
                sink.conn.held() < share
            }
        };
    if !fits {
        sink.conn.miss(1 + u64::from(meta.lost));
        if !sink.conn.observes() {
            parts.counters.add(DatapathCounter::DroppedRingFull as usize, 1);
        }
        return Ok(false);
    }
    match form {
        Form::Inline(bytes) => sink.conn.push_inline(meta, bytes),
        Form::Heap(id, len) => sink.conn.push_heap(&mut parts.heap, meta, *id, *len),
    }
    sink.evicted = false;
    parts.counters.add(DatapathCounter::MessagesToSinks as usize, 1);
    Ok(true)
}

#[cold]
fn accuse(sink: &mut SinkEntry, parts: &mut DomainParts, port: &Port, violation: Violation) {
    sink.dead = true;
    sink.conn.abandon(Some(&mut parts.heap));
    parts.counters.add(DatapathCounter::Violations as usize, 1);
    port.tell(Notice::Violation { conn: sink.conn.id(), violation });
}
