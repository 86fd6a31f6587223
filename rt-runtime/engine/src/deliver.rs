//! Delivery into the sinks of this host.

use crate::command::{Dead, NewSink, Notice, Port, Topic};
use crate::routes::{RouteIndex, Routes};
use crate::{SINKS_MAX, WAKES_PER_TURN};
use insane_core::counters::DatapathCounter;
use insane_core::heap::BufferId;
use insane_core::limits::INLINE_BYTES_MAX;
use insane_core::{ConnId, DomainIndex};
use insane_shm::Violation;
use insane_shm::cell::Meta;
use insane_shm::conn::TxConn;
use insane_shm::counters::CounterBlock;
use insane_shm::heap::SenderHeap;
use insane_sys::SharedBytes;
use std::collections::VecDeque;

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
    /// It is in the list of those to be woken.
    listed: bool,
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
    free: Vec<u16>,
    /// Sinks that got something and were not yet asked whether to wake them.
    unwoken: VecDeque<u16>,
    /// Where the next idle look for returned buffers starts.
    reclaim_at: usize,
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
    pub fn new(routes: usize, domains: Vec<DomainParts>) -> Self {
        Outlets {
            routes: Routes::new(routes),
            sinks_of_domain: vec![0; domains.len()],
            domains,
            sinks: (0..SINKS_MAX).map(|_| None).collect(),
            free: (0..SINKS_MAX as u16).rev().collect(),
            unwoken: VecDeque::with_capacity(SINKS_MAX),
            reclaim_at: 0,
        }
    }

    /// Takes a sink in; it comes back if there is no place.
    #[expect(clippy::result_large_err, reason = "the refused item is handed back by value: the datapath frees nothing")]
    pub fn add(&mut self, sink: NewSink) -> Result<(), NewSink> {
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
        let NewSink { conn, domain, .. } = sink;
        self.sinks_of_domain[domain.index()] += 1;
        self.sinks[place as usize] =
            Some(SinkEntry { conn, route, domain, listed: false, dead: false, evicted: false });
        Ok(())
    }

    /// Lets a sink go, and takes its buffers back.
    pub fn remove(&mut self, conn: ConnId) -> Option<Dead> {
        let place = self.sinks.iter().position(|sink| sink.as_ref().is_some_and(|sink| sink.conn.id() == conn))?;
        let mut sink = self.sinks[place].take()?;
        if let Some(route) = self.routes.get_mut(sink.route) {
            route.sinks.retain(|at| *at as usize != place);
        }
        self.routes.release(sink.route);
        self.unwoken.retain(|at| *at as usize != place);
        self.free.push(place as u16);
        self.sinks_of_domain[sink.domain.index()] -= 1;
        sink.conn.abandon(Some(&mut self.domains[sink.domain.index()].heap));
        Some(Dead::Sink(sink.conn))
    }

    pub fn count(&self, domain: DomainIndex, counter: DatapathCounter, amount: u64) {
        if let Some(parts) = self.domains.get(domain.index()) {
            parts.counters.add(counter as usize, amount);
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
    #[inline]
    pub fn deliver(&mut self, port: &Port, route: RouteIndex, meta: Meta, content: Content<'_>) {
        if !self.deliver_plain(route, meta, &content) {
            self.deliver_to_all(port, route, meta, content);
        }
    }

    /// The plain case, straight through: private bytes that fit a cell, for one sink with
    /// room. Else it does nothing.
    #[inline]
    fn deliver_plain(&mut self, route: RouteIndex, meta: Meta, content: &Content<'_>) -> bool {
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
                // As many places as sinks, and each is listed once.
                self.unwoken.push_back(place);
            }
            self.domains[route.domain.index()].counters.add(DatapathCounter::MessagesToSinks as usize, 1);
            return true;
        }
        false
    }

    #[inline(never)]
    fn deliver_to_all(&mut self, port: &Port, route: RouteIndex, meta: Meta, content: Content<'_>) {
        let Some(entry) = self.routes.get(route) else { return };
        let Some(parts) = self.domains.get_mut(entry.domain.index()) else { return };
        let sinks = self.sinks_of_domain[entry.domain.index()];
        let len = content.len();
        let mut copy = [0; INLINE_BYTES_MAX];
        let share = if len <= INLINE_BYTES_MAX { 0 } else { share(parts.heap.geometry().buffers(), sinks) };
        let form = if len <= INLINE_BYTES_MAX {
            Some(Form::Inline(inline(&content, &mut copy, &mut parts.heap)))
        } else {
            buffer(&content, parts, &mut self.sinks, &entry.sinks).map(|id| Form::Heap(id, len as u32))
        };
        let Some(form) = form else {
            parts.counters.add(DatapathCounter::DroppedNoBuffer as usize, 1);
            for place in &entry.sinks {
                if let Some(sink) = &mut self.sinks[*place as usize] {
                    sink.conn.miss(1 + u64::from(meta.lost));
                }
            }
            return;
        };
        for place in &entry.sinks {
            let Some(sink) = &mut self.sinks[*place as usize] else { continue };
            if sink.dead {
                continue;
            }
            match push(sink, parts, (share, sinks), meta, &form) {
                Ok(true) => {
                    if !sink.listed && sink.conn.may_sleep() {
                        sink.listed = true;
                        // As many places as sinks, and each is listed once.
                        self.unwoken.push_back(*place);
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

    /// Whether a message of a reliable flow would reach every sink of its route that was
    /// not put out.
    pub fn admits(&mut self, port: &Port, route: RouteIndex, demand: Demand) -> bool {
        let Some(entry) = self.routes.get(route) else { return true };
        let Some(parts) = self.domains.get_mut(entry.domain.index()) else { return true };
        let share = reliable_share(parts, self.sinks_of_domain[entry.domain.index()], demand.len);
        let mut all_have_room = true;
        for place in &entry.sinks {
            let Some(sink) = &mut self.sinks[*place as usize] else { continue };
            if sink.dead || sink.evicted {
                continue;
            }
            match has_room(sink, parts, share) {
                Ok(has_room) => all_have_room &= has_room,
                Err(violation) => accuse(sink, parts, port, violation),
            }
        }
        all_have_room && (demand.has_buffer || !demand.is_large() || parts.heap.has_free(demand.len))
    }

    /// Puts out the sinks of a route that have no room: nobody waits for them any more.
    #[cold]
    pub fn evict(&mut self, route: RouteIndex, demand: Demand) {
        let Some(entry) = self.routes.get(route) else { return };
        let Some(parts) = self.domains.get_mut(entry.domain.index()) else { return };
        let share = reliable_share(parts, self.sinks_of_domain[entry.domain.index()], demand.len);
        for place in &entry.sinks {
            let Some(sink) = &mut self.sinks[*place as usize] else { continue };
            if !sink.dead && !sink.evicted && has_room(sink, parts, share) == Ok(false) {
                sink.evicted = true;
                parts.counters.add(DatapathCounter::Evictions as usize, 1);
            }
        }
    }

    /// Wakes sinks that got something and sleep; at most [`WAKES_PER_TURN`].
    #[inline]
    pub fn wake(&mut self) {
        if !self.unwoken.is_empty() {
            self.wake_some();
        }
    }

    fn wake_some(&mut self) {
        let mut wakes = 0;
        while wakes < WAKES_PER_TURN
            && let Some(place) = self.unwoken.pop_front()
        {
            let Some(sink) = &mut self.sinks[place as usize] else { continue };
            sink.listed = false;
            if sink.conn.wants_wake() {
                sink.conn.wake();
                wakes += 1;
                self.domains[sink.domain.index()].counters.add(DatapathCounter::Wakes as usize, 1);
            }
        }
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
        parts.counters.add(DatapathCounter::DroppedRingFull as usize, 1);
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
