//! The sending side of reliable sources: what is held until every peer has it.

use crate::command::{Command, Port};
use crate::deliver::{Content, Copying, Demand, Joined, Outlets, is_piecemeal};
use crate::links::Links;
use crate::newcomers::{Kept, Newcomers, PeerSet};
use crate::routes::{Route, RouteIndex};
use crate::transmit::deliver_past;
use insane_core::counters::DatapathCounter;
use insane_core::limits::PEERS_MAX;
use insane_core::{DomainIndex, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, SourceId, Stamp};
use insane_link::{Link, SendOutcome};
use insane_overlay::reliable::{Ack, Data, Limits, Sender, Sync, WINDOW_MAX};
use insane_shm::Violation;
use insane_shm::conn::RxConn;
use insane_shm::ring::{Payload, Popped};
use insane_sys::SharedBytes;
use insane_wire::data::{DataHeader, Flags, HEADER_BYTES, Kind};
use insane_wire::reliable::Body;
use std::ops::Range;

/// Messages of the past that a peer gets at most: as many as sources keep.
const PAST_MAX: u64 = 16;

/// Bytes that a message is charged when it is taken from its ring.
const TAKE_CHARGE: u32 = 64;

/// Who sends, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity {
    pub host: HostId,
    pub incarnation: Incarnation,
    pub source: SourceId,
    pub lane: Lane,
    pub domain: DomainIndex,
    pub route: RouteIndex,
}

/// How far a grant got.
pub(crate) struct Progress {
    pub bytes: u32,
    pub more: bool,
    pub blocked: bool,
}

impl Progress {
    /// Whether there is more, and somebody takes it.
    pub const fn goes_on(&self) -> bool {
        self.more && !self.blocked
    }

    /// Whether there is something, and nobody took any of it.
    pub const fn is_stuck(&self) -> bool {
        self.blocked && self.bytes == 0
    }
}

/// The messages of one reliable source that are under way. Made before the engine runs,
/// given to one source after the other.
pub(crate) struct Outflow {
    limits: Limits,
    sender: Sender,
    /// Message `n` is at place `n mod WINDOW_MAX`; its buffer is not given back yet.
    held: [Popped; WINDOW_MAX],
    /// Whether a first message has told where the numbers begin.
    started: bool,
    token: u64,
    /// [`Route::version`] as of the last look.
    version: Option<u32>,
    /// A message was taken from the ring and waits for room in the local sinks, or to be
    /// copied for them.
    waiting: Option<Popped>,
    /// It is a large one, of which this much is copied for them.
    copying: Option<Copying>,
    /// It waits for room.
    is_blocked: bool,
    /// Since when, and what its thread had missed by then: as of the first look that found it so.
    blocked_at: Option<(MonoTime, Nanos)>,
    /// It waited for too long: whatever it finds, it goes on.
    forced: bool,
    /// Messages of the past that came from the ring so far, by their numbers; what is held of
    /// the window already is not put there again.
    past: Range<u64>,
    /// Recaps so far: their numbers rise, whatever source uses this.
    recaps: u32,
    /// Peers that are to get another recap when one under way is over.
    again: PeerSet,
    /// The command that lets the source go, since when it waits for the rest, and what its thread
    /// had missed by then.
    closing: Option<(Box<Command>, MonoTime, Nanos)>,
}

impl Outflow {
    pub fn boxed(limits: Limits) -> Box<Self> {
        Box::new(Outflow {
            limits,
            sender: Sender::new(limits, 0, 0),
            held: [Popped::EMPTY; WINDOW_MAX],
            started: false,
            token: 0,
            version: None,
            waiting: None,
            copying: None,
            is_blocked: false,
            blocked_at: None,
            forced: false,
            past: 0..0,
            recaps: 0,
            again: PeerSet::NONE,
            closing: None,
        })
    }

    /// A new source uses it; peers repeat `token`.
    pub fn reset(&mut self, token: u64) {
        self.started = false;
        self.token = token;
        self.version = None;
        self.waiting = None;
        self.copying = None;
        (self.is_blocked, self.blocked_at) = (false, None);
        self.forced = false;
        self.past = 0..0;
        self.again = PeerSet::NONE;
        self.closing = None;
    }

    /// The source is let go; what it has emitted is still sent. Takes the command, unless
    /// nothing is left or one is here already.
    pub fn close(
        &mut self,
        (now, missed): (MonoTime, Nanos),
        command: Box<Command>,
        conn: &RxConn,
    ) -> Option<Box<Command>> {
        if self.closing.is_some() || self.is_drained(conn) {
            return Some(command);
        }
        self.closing = Some((command, now, missed));
        None
    }

    pub const fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// The command to be answered, once everything has arrived or has had its time: that in which
    /// the thread was run.
    pub fn closed(&mut self, (now, missed): (MonoTime, Nanos), conn: &RxConn) -> Option<Box<Command>> {
        let (_, since, before) = self.closing.as_ref()?;
        if !self.is_drained(conn) && seen(now.since(*since), missed, *before) < self.limits.evict_after {
            return None;
        }
        self.closing.take().map(|(command, ..)| command)
    }

    fn is_drained(&self, conn: &RxConn) -> bool {
        self.waiting.is_none() && !conn.is_ready() && (!self.started || self.sender.held() == 0)
    }

    /// Messages that were taken from the ring and not acknowledged by every peer.
    pub fn unacknowledged(&self) -> u64 {
        u64::from(self.waiting.is_some()) + if self.started { self.sender.held() } else { 0 }
    }

    pub const fn token(&self) -> u64 {
        self.token
    }

    /// The number of the message that would be taken next; `None`: none ever was.
    pub fn next(&self) -> Option<u64> {
        self.started.then(|| self.sender.end())
    }

    /// Gives everything back that is held.
    pub fn clear(&mut self, conn: &mut RxConn, outlets: &mut Outlets) {
        if let Some(copying) = self.copying.take() {
            outlets.discard(copying);
        }
        if let Some(popped) = self.waiting.take() {
            give_back(&popped, conn);
        }
        self.forget_past(conn);
        if self.started {
            for number in self.sender.end() - self.sender.held()..self.sender.end() {
                give_back(&self.held[number as usize % WINDOW_MAX], conn);
            }
        }
        self.started = false;
    }

    /// Whether a frame may be sent or a message taken.
    pub fn can_go(&mut self, conn: &RxConn, payload_max: u32) -> bool {
        if self.is_blocked {
            return false;
        }
        if !self.started {
            return self.waiting.is_some() || conn.is_ready();
        }
        (self.sender.has_room() && (self.waiting.is_some() || conn.is_ready()))
            || self.sender.next_data(payload_max).is_some()
    }

    /// Whether time alone may make something due.
    pub fn is_waiting(&self) -> bool {
        self.is_blocked || self.closing.is_some() || (self.started && self.sender.is_waiting())
    }

    /// Messages that a peer that takes part has not acknowledged.
    pub fn owed_to(&self, peer: PeerIndex) -> u64 {
        if self.started { self.sender.owed_to(peer) } else { 0 }
    }

    /// A peer has another life: it joins anew.
    pub fn forget(&mut self, peer: PeerIndex) {
        self.sender.forget(peer);
        self.version = None;
    }

    /// An acknowledgement came in; false if it cannot be one.
    pub fn on_ack(&mut self, now: MonoTime, from: PeerIndex, ack: &Ack, conn: &mut RxConn) -> bool {
        let is_honest = !self.started || self.sender.on_ack(now, from, ack);
        self.release(conn);
        is_honest
    }

    /// Peers come and go, are put out and told how far this is: once a turn, or where there are
    /// many, in turns. `missed`: for how long the thread was not run. How many heartbeats went by
    /// real time.
    pub fn serve<L: Link>(
        &mut self,
        (now, missed): (MonoTime, Nanos),
        id: &Identity,
        (conn, newcomers): (&mut RxConn, &mut Option<Newcomers>),
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> u32 {
        self.unblock((now, missed), id, outlets, port);
        if !self.started {
            return 0;
        }
        let Some(route) = outlets.routes.get(id.route) else { return 0 };
        if self.version != Some(route.version) {
            self.follow(now, route, newcomers.as_ref());
        }
        self.sender.look(now, missed);
        while let Some(peer) = self.sender.give_up_recap(now) {
            outlets.count(id.domain, DatapathCounter::RecapsGivenUp, 1);
            // What was lost of it is asked for once more; those who stopped waiting refuse it.
            self.again.add(peer);
        }
        while self.sender.evict(now).is_some() {
            outlets.count(id.domain, DatapathCounter::Evictions, 1);
        }
        let head = DataHeader::reliable((id.host, id.incarnation), (route.topic.key, route.topic.channel), id.source);
        // Those of real time go by it: what floods best effort does not reach them. The lane tells
        // the receiver by which one to answer.
        let lane = if id.lane.is_real_time() { id.lane } else { Lane::CONTROL };
        let head = DataHeader { lane, ..head };
        let mut sent = 0;
        while let Some((peer, sync)) = self.sender.next_sync(now) {
            // A heartbeat that finds no room is repeated.
            let body = Body::Sync(Sync { keeps: newcomers.is_some(), ..sync }).encode();
            let _ = links.send((peer, route.way(peer)), lane, &head.encode(), SharedBytes::from(&body[..]));
            sent += 1;
        }
        if sent > 0 {
            links.flush();
        }
        self.release(conn);
        if !self.again.is_empty() {
            self.ask_again(now, route, conn, newcomers.as_mut());
        }
        if lane.is_real_time() { sent } else { 0 }
    }

    /// Asks once more for the past where a recap was in the way of another.
    #[cold]
    fn ask_again(&mut self, now: MonoTime, route: &Route, conn: &mut RxConn, newcomers: Option<&mut Newcomers>) {
        let Some(newcomers) = newcomers else { return };
        for peer in route.peers.iter().filter(|peer| self.again.contains(**peer)) {
            if self.sender.can_recap(now, *peer) {
                newcomers.join(*peer, false, 0, || conn.ask_for_past());
            }
        }
        let sender = &self.sender;
        self.again.retain(|peer| !sender.can_recap(now, peer));
    }

    /// Joins who is new in the route, lets go who left it.
    #[cold]
    fn follow(&mut self, now: MonoTime, route: &Route, newcomers: Option<&Newcomers>) {
        self.version = Some(route.version);
        if self.closing.is_some() && route.peers.is_empty() {
            // The route went with the source; the rest is still for those who had joined.
            return;
        }
        let gone = self.sender.peers().filter(|peer| !route.peers.contains(peer));
        let gone: heapless::Vec<PeerIndex, PEERS_MAX> = gone.collect();
        for peer in gone {
            self.sender.leave(now, peer);
        }
        // Those who wait for the past join with it.
        let waiting = newcomers.map_or(PeerSet::NONE, Newcomers::waiting);
        for peer in route.peers.iter().filter(|peer| !waiting.contains(**peer)) {
            self.sender.join(now, *peer);
        }
    }

    fn unblock(&mut self, (now, missed): (MonoTime, Nanos), id: &Identity, outlets: &mut Outlets, port: &Port) {
        let (true, Some(popped)) = (self.is_blocked, &self.waiting) else { return };
        let demand = self.demand(popped);
        let (since, before) = *self.blocked_at.get_or_insert((now, missed));
        if outlets.admits(port, Joined::ALL, id.route, demand) {
            (self.is_blocked, self.blocked_at) = (false, None);
        } else if seen(now.since(since), missed, before) >= stall_max(&self.limits) {
            // Its reader may have stood still with this thread: only what was seen counts.
            outlets.evict(Joined::ALL, id.route, demand);
            (self.is_blocked, self.blocked_at, self.forced) = (false, None, true);
        }
    }

    /// Sends frames and takes messages while fewer than `budget` bytes have gone.
    #[expect(clippy::too_many_arguments, reason = "the parts of an engine, each borrowed by itself")]
    pub fn send_some<L: Link>(
        &mut self,
        now: MonoTime,
        budget: u32,
        id: &Identity,
        (conn, newcomers): (&mut RxConn, &mut Option<Newcomers>),
        links: &mut Links<L>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> Result<Progress, Violation> {
        let payload_max = links.payload_bytes_max();
        let mut bytes = 0_u32;
        while bytes < budget {
            if self.started
                && let Some(data) = self.sender.next_data(payload_max)
            {
                if !self.send(now, &data, id, conn, links, outlets) {
                    return Ok(Progress { bytes, more: true, blocked: true });
                }
                bytes = bytes.saturating_add(data.len + HEADER_BYTES as u32);
            } else if let Some(taken) = self.take(now, budget - bytes, id, (conn, newcomers), outlets, port)? {
                bytes = bytes.saturating_add(taken);
            } else {
                break;
            }
        }
        let more = self.can_go(conn, payload_max);
        Ok(Progress { bytes, more, blocked: false })
    }

    /// Sends one frame; false if its link is busy.
    fn send<L: Link>(
        &mut self,
        now: MonoTime,
        data: &Data,
        id: &Identity,
        conn: &RxConn,
        links: &mut Links<L>,
        outlets: &Outlets,
    ) -> bool {
        let Some(route) = outlets.routes.get(id.route) else { return false };
        let popped = &self.held[data.from.sequence as usize % WINDOW_MAX];
        let head = DataHeader {
            kind: Kind::Data,
            lane: id.lane,
            flags: Flags::RELIABLE,
            stream: route.topic.key,
            host: id.host,
            incarnation: id.incarnation,
            sequence: data.from.sequence,
            source_instant: if data.is_past { Stamp::of_past(popped.meta.source_ns) } else { popped.meta.source_ns },
            channel: route.topic.channel,
            source: id.source,
            message_len: popped.len,
            fragment_offset: data.from.offset,
        };
        let payload = match popped.payload {
            Payload::Inline => SharedBytes::from(inline_bytes(popped)),
            Payload::Heap(buffer) => conn.view(buffer, popped.len),
        };
        let payload = payload.part(data.from.offset as usize, data.len as usize);
        match links.send((data.peer, route.way(data.peer)), id.lane, &head.encode(), payload) {
            SendOutcome::Sent => {
                outlets.count(id.domain, DatapathCounter::FramesSent, 1);
                let bytes = u64::from(data.len) + HEADER_BYTES as u64;
                outlets.count(id.domain, DatapathCounter::BytesSent, bytes);
            }
            // It counts as lost on its way.
            SendOutcome::Failed => outlets.count(id.domain, DatapathCounter::FramesFailed, 1),
            SendOutcome::Busy => return false,
        }
        if data.is_repair {
            outlets.count(id.domain, DatapathCounter::Repairs, 1);
        }
        self.sender.sent(now, data);
        true
    }

    /// Takes the next message into the window, or copies a piece of it for local sinks; the
    /// bytes that cost. `None` if there is none, or no room.
    fn take(
        &mut self,
        now: MonoTime,
        budget: u32,
        id: &Identity,
        (conn, newcomers): (&mut RxConn, &mut Option<Newcomers>),
        outlets: &mut Outlets,
        port: &Port,
    ) -> Result<Option<u32>, Violation> {
        if self.is_blocked || (self.started && !self.sender.has_room()) {
            return Ok(None);
        }
        let popped = match self.waiting.take() {
            Some(popped) => popped,
            None => {
                let mut popped = Popped::EMPTY;
                if !conn.pop(&mut popped)? {
                    return Ok(None);
                }
                if let Some(newcomers) = newcomers
                    && self.take_past(now, &popped, id, (conn, newcomers), outlets, port)
                {
                    return Ok(Some(TAKE_CHARGE));
                }
                outlets.count(id.domain, DatapathCounter::MessagesFromSources, 1);
                popped
            }
        };
        let Some(route) = outlets.routes.get(id.route).filter(|_| self.is_next(&popped)) else {
            give_back(&popped, conn);
            return Err(Violation::Cell);
        };
        let (local, is_lonely) = (route.local, route.peers.is_empty());
        if !self.started {
            self.started = true;
            self.sender = Sender::new(self.limits, self.token, popped.meta.sequence);
            self.version = None;
        }
        if self.version != Some(route.version) {
            self.follow(now, route, newcomers.as_ref());
        }
        if let (Some(copying), Payload::Heap(buffer)) = (&mut self.copying, popped.payload)
            && copying.left() > 0
        {
            let copied = outlets.copy_piece(copying, conn.view(buffer, popped.len), budget);
            self.waiting = Some(popped);
            return Ok(Some(copied));
        }
        if local {
            if !self.forced && !outlets.admits(port, Joined::ALL, id.route, self.demand(&popped)) {
                self.waiting = Some(popped);
                self.is_blocked = true;
                return Ok(None);
            }
            let content = match (self.copying.take(), popped.payload) {
                (Some(copying), _) => Some(copying.finished()),
                (None, Payload::Inline) => Some(Content::Private(inline_bytes(&popped))),
                (None, Payload::Heap(_)) if is_piecemeal(popped.len, budget) => {
                    self.copying = outlets.start_copy(id.route, popped.meta, popped.len);
                    if self.copying.is_some() {
                        self.waiting = Some(popped);
                        return Ok(Some(TAKE_CHARGE));
                    }
                    None
                }
                (None, Payload::Heap(buffer)) => Some(Content::Foreign(conn.view(buffer, popped.len))),
            };
            self.forced = false;
            if let Some(newcomers) = newcomers {
                newcomers.heard_by(outlets.joined());
            }
            if let Some(content) = content {
                outlets.deliver(port, id.route, popped.meta, content);
            }
        } else if let Some(copying) = self.copying.take() {
            outlets.discard(copying);
        } else if is_lonely {
            outlets.count(id.domain, DatapathCounter::DroppedNoPeer, 1);
        }
        let number = self.sender.push(now, popped.len);
        self.held[number as usize % WINDOW_MAX] = popped;
        self.release(conn);
        Ok(Some(TAKE_CHARGE))
    }

    /// A message from the ring of a source that keeps its values: whether it was one of the
    /// past, or their end, and is done with.
    #[cold]
    fn take_past(
        &mut self,
        now: MonoTime,
        popped: &Popped,
        id: &Identity,
        (conn, newcomers): (&mut RxConn, &mut Newcomers),
        outlets: &mut Outlets,
        port: &Port,
    ) -> bool {
        match newcomers.sort(&popped.meta) {
            Kept::Now(_) => {
                // Nobody who keeps the rules emits between its past and the end of that.
                self.forget_past(conn);
                false
            }
            Kept::Past(_) => {
                deliver_past(popped, conn, newcomers, id.route, outlets, port);
                self.stage_past(popped, conn);
                true
            }
            Kept::End(answered) => {
                let claim = <[u8; 8]>::try_from(inline_bytes(popped)).map(u64::from_le_bytes);
                give_back(popped, conn);
                self.join_with_past(now, claim.unwrap_or(u64::MAX), answered, id, outlets);
                self.forget_past(conn);
                self.version = None;
                true
            }
        }
    }

    /// Keeps a message of the past until all of them are here. They have to follow each other,
    /// or only those behind the gap are of use.
    fn stage_past(&mut self, popped: &Popped, conn: &mut RxConn) {
        let number = popped.meta.sequence;
        if self.past.end != number || self.past.end - self.past.start >= PAST_MAX {
            self.forget_past(conn);
            self.past = number..number;
        }
        let is_before = !self.started
            || (number < self.sender.end() && number >= self.sender.end().saturating_sub(WINDOW_MAX as u64));
        if number >= u64::MAX / 2 || !is_before {
            self.past = 0..0;
            return give_back(popped, conn);
        }
        self.past.end = number + 1;
        if self.is_held(number) {
            give_back(popped, conn);
        } else {
            self.held[number as usize % WINDOW_MAX] = *popped;
        }
    }

    /// Whether a message is in the sender's window.
    fn is_held(&self, number: u64) -> bool {
        self.started && (self.sender.end() - self.sender.held()..self.sender.end()).contains(&number)
    }

    /// Peers that waited for the past join where it begins, and what is of now follows it.
    /// `next`: the number of the source's next message, as it says.
    fn join_with_past(&mut self, now: MonoTime, next: u64, answered: PeerSet, id: &Identity, outlets: &Outlets) {
        let Some(route) = outlets.routes.get(id.route) else { return };
        if next >= u64::MAX / 2 || self.started && next != self.sender.end() {
            return;
        }
        let past = if self.past.end == next { self.past.clone() } else { next..next };
        let mut joining = route.peers.iter().copied().filter(|peer| answered.contains(*peer)).peekable();
        if joining.peek().is_none() {
            return;
        }
        if !self.started {
            self.started = true;
            self.sender = Sender::new(self.limits, self.token, next);
        }
        for peer in joining {
            let is_known = self.sender.peers().any(|known| known == peer);
            if self.sender.is_out(peer) {
                self.sender.leave(now, peer);
            }
            let held = &self.held;
            let _ = self.sender.recall(past.start, |number| held[number as usize % WINDOW_MAX].len);
            self.sender.join_at(now, peer, past.start);
            // Some of its sinks may be of the flow since earlier, which is further, and others not.
            self.recaps = self.recaps.wrapping_add(1).max(1);
            if !self.sender.recap(now, peer, past.start, self.recaps) && is_known {
                self.again.add(peer);
            }
        }
    }

    /// Gives back what is kept of a past that nobody joined with.
    fn forget_past(&mut self, conn: &mut RxConn) {
        for number in std::mem::replace(&mut self.past, 0..0) {
            if !self.is_held(number) {
                give_back(&self.held[number as usize % WINDOW_MAX], conn);
            }
        }
    }

    /// What a message needs at a local sink.
    const fn demand(&self, popped: &Popped) -> Demand {
        Demand { len: popped.len, has_buffer: self.copying.is_some() }
    }

    /// Whether the client numbers its messages as it must.
    fn is_next(&self, popped: &Popped) -> bool {
        let sequence = popped.meta.sequence;
        if self.started { sequence == self.sender.end() } else { sequence < u64::MAX / 2 }
    }

    /// Gives back what every peer has. While a past is coming, what is held of it stays.
    fn release(&mut self, conn: &mut RxConn) {
        if !self.started || !self.past.is_empty() {
            return;
        }
        while let Some(number) = self.sender.release() {
            give_back(&self.held[number as usize % WINDOW_MAX], conn);
        }
    }
}

/// A sink may stall its flow this long: less than a peer may stall its source, so that a
/// slow sink does not cost its host the flow.
pub(crate) fn stall_max(limits: &Limits) -> Nanos {
    Nanos(limits.evict_after.0 / 2)
}

/// What of a time was seen, where `missed` of all time was not by its end and `before` by its
/// beginning.
fn seen(time: Nanos, missed: Nanos, before: Nanos) -> Nanos {
    Nanos(time.0.saturating_sub(missed.0.saturating_sub(before.0)))
}

fn inline_bytes(popped: &Popped) -> &[u8] {
    &popped.inline.0[..(popped.len as usize).min(popped.inline.0.len())]
}

fn give_back(popped: &Popped, conn: &mut RxConn) {
    if let Payload::Heap(buffer) = popped.payload {
        conn.give_back(buffer);
    }
}
