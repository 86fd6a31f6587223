//! From the links to the sinks.

use crate::command::{OverlayFrame, Port, Topic};
use crate::deliver::{Content, Joined, Outlets};
use crate::hold::{HOLD_MAX, Held, Holds, Kept, NotHeld};
use crate::inflow::{Arrived, Inflows};
use crate::routes::RouteIndex;
use crate::transmit::Transmitter;
use crate::turn::Turn;
use insane_core::counters::{DatapathCounter, TurnCounter};
use insane_core::heap::BufferId;
use insane_core::limits::{INLINE_BYTES_MAX, PEERS_MAX};
use insane_core::time::Clock;
use insane_core::{DomainIndex, HostId, Incarnation, MonoTime, Nanos, PeerIndex, Stamp};
use insane_link::{FrameSink, PLACE_HEAD_BYTES_MAX, Ticket};
use insane_overlay::flow::{FlowKey, FlowPlace, FlowTable, Verdict};
use insane_overlay::reassembly::{Arrival, Begin, Reassembler};
use insane_overlay::reliable::{self, Attention};
use insane_shm::cell::Meta;
use insane_shm::counters::CounterBlock;
use insane_wire::data::{DataHeader, Flags, HEADER_BYTES, HeaderError, Kind};
use insane_wire::flow_head::FlowHead;
use insane_wire::reliable::Body;

/// A fragmented message without progress is given up after this long.
const REASSEMBLY_TIMEOUT: Nanos = Nanos::from_millis(200);
/// A flow that nothing was heard of is forgotten after this long, or when others need its
/// place. What its sinks got is forgotten with it: one who joins later and gets the past
/// would bring it to them once more, so sources that seldom emit are remembered.
const FLOW_TIMEOUT: Nanos = Nanos::from_secs(24 * 60 * 60);
/// Messages given up, and flows looked at, in one housekeeping.
const HOUSEKEEPING_BUDGET: u32 = 16;

/// The memory of a message that is still arriving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Assembling {
    pub domain: DomainIndex,
    pub buffer: BufferId,
    /// Which of all that ever began: what a link's ticket names.
    pub birth: u64,
}

/// What came in, and what of it was seen before.
pub(crate) struct Receiver {
    flows: FlowTable,
    reassembler: Reassembler<Assembling>,
    pub inflows: Inflows,
    /// How long the thread was not run. What is measured against a silence, of reliable flows and of
    /// messages that arrive in pieces, is measured by a clock that stands still then.
    attention: Attention,
    /// What overtook others while its stream moved.
    holds: Holds,
    /// Which runtime, in which life, each peer is.
    lives: [Option<(HostId, Incarnation)>; PEERS_MAX],
    /// The message that last found no memory, so that it is counted once.
    refused: Option<(FlowKey, u64)>,
    /// The flow that frames are looked for first.
    recent: Option<Recent>,
    /// Frames in a row that were not of it.
    others: u8,
    /// Messages that began to be collected.
    births: u64,
}

const _: () = assert!(HEADER_BYTES <= PLACE_HEAD_BYTES_MAX, "a place is found by the header");

/// A flow of whole, unreliable messages that was received lately, and all that was looked
/// up for it. Forgotten with every command, which alone can change it.
struct Recent {
    peer: PeerIndex,
    head: FlowHead,
    place: FlowPlace,
    target: Target,
}

/// A flow, and where its messages go here.
#[derive(Clone, Copy)]
struct Target {
    key: FlowKey,
    route: RouteIndex,
    domain: DomainIndex,
}

/// After so many frames of others in a row their last takes the place of the recent flow:
/// it costs more to take it than to do without once.
const OTHERS_MAX: u8 = 8;

/// Hands the frames of one `receive` call on.
pub(crate) struct Intake<'e, 't, C: Clock> {
    pub turn: &'e Turn<'t, C>,
    pub receiver: &'e mut Receiver,
    pub transmitter: &'e mut Transmitter,
    pub outlets: &'e mut Outlets,
    pub port: &'e Port,
    pub counters: &'e CounterBlock,
    /// Place of the link that it comes by, and whether what comes there comes in the order in
    /// which it was sent.
    pub by: (usize, bool),
}

impl<C: Clock> FrameSink for Intake<'_, '_, C> {
    const HEAD_BYTES: usize = HEADER_BYTES;

    fn place(&mut self, from: PeerIndex, head: &[u8], rest: usize) -> Option<Ticket> {
        let header = self.header(from, head, rest)?;
        self.receiver.place(self.turn.now(), &header, rest as u32, self.outlets).map(Ticket)
    }

    fn memory(&mut self, from: PeerIndex, head: &[u8], rest: usize, ticket: Ticket) -> Option<&mut [u8]> {
        let header = self.header(from, head, rest)?;
        let seen = self.receiver.seen(self.turn.now());
        let place = self.receiver.placed_at(seen, &header, rest as u32, ticket.0)?;
        let memory = self.outlets.domains[place.domain.index()].heap.bytes_mut(place.buffer);
        memory.get_mut(header.fragment_offset as usize..)?.get_mut(..rest)
    }

    fn placed(&mut self, from: PeerIndex, head: &[u8], rest: usize, ticket: Ticket) {
        if let Some(header) = self.header(from, head, rest) {
            let payload = Payload::Placed { len: rest as u32, birth: ticket.0 };
            self.receiver.data(self.turn, (from, self.by.0), &header, payload, self.outlets, self.port, self.counters);
        }
    }

    #[inline]
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        let Some(peer) = from else {
            self.counters.add(TurnCounter::FramesUnknownPeer as usize, 1);
            return;
        };
        if !self.receiver.again(self.turn, peer, frame, self.outlets, self.port) {
            self.other(peer, frame);
        }
    }
}

impl<C: Clock> Intake<'_, '_, C> {
    /// A frame that is not of the recent flow. Apart, so that the plain case has a small frame on
    /// the stack: what the control plane gets is copied there.
    #[inline(never)]
    fn other(&mut self, peer: PeerIndex, frame: &[u8]) {
        match DataHeader::decode_frame(frame) {
            Ok((header, payload)) if header.kind == Kind::Data => {
                if !self.receiver.is_of_this_life(peer, &header) {
                    self.counters.add(TurnCounter::FramesOtherLife as usize, 1);
                    return;
                }
                let payload = Payload::Bytes(payload);
                self.receiver.data(
                    self.turn,
                    (peer, self.by.0),
                    &header,
                    payload,
                    self.outlets,
                    self.port,
                    self.counters,
                );
            }
            Ok((header, body)) if header.kind == Kind::Overlay => self.overlay(peer, &header, body),
            Ok((header, _)) if header.kind == Kind::Fence => self.fence(peer, &header),
            Ok((header, body)) => self.report(peer, &header, body),
            Err(HeaderError::Version(version)) => self.other_version(peer, version),
            Err(_) => self.counters.add(TurnCounter::FramesMalformed as usize, 1),
        }
    }

    /// The header of a data frame of this peer's present life with `rest` bytes of payload.
    fn header(&self, from: PeerIndex, head: &[u8], rest: usize) -> Option<DataHeader> {
        let header = DataHeader::decode(head).ok()?;
        let is_sound = header.kind == Kind::Data && header.takes(rest);
        (is_sound && self.receiver.is_of_this_life(from, &header)).then_some(header)
    }

    /// A peer that runs another build.
    #[cold]
    fn other_version(&mut self, peer: PeerIndex, version: u8) {
        self.counters.add(TurnCounter::FramesOtherVersion as usize, 1);
        self.port.note_version(peer, version);
    }

    /// A report on a reliable flow.
    #[inline(never)]
    fn report(&mut self, peer: PeerIndex, header: &DataHeader, body: &[u8]) {
        if !self.receiver.is_of_this_life(peer, header) {
            self.counters.add(TurnCounter::FramesOtherLife as usize, 1);
            return;
        }
        let now = self.turn.now();
        let is_sound = match Body::decode(body) {
            Ok(Body::Sync(sync)) => {
                let topic = Topic { key: header.stream, channel: header.channel };
                let listens = self.outlets.listeners(topic).is_some_and(|(_, _, listens)| listens);
                let flow = (flow_key(header), topic, header.lane);
                let now = self.receiver.seen(now);
                self.receiver.inflows.on_sync(now, peer, flow, &sync, listens, self.outlets);
                true
            }
            Ok(Body::Ack(ack)) => self.transmitter.on_ack(now, peer, header.source, &ack),
            Err(_) => false,
        };
        if !is_sound {
            self.counters.add(TurnCounter::FramesMalformed as usize, 1);
        }
    }

    /// The end of a leg of a flow.
    #[cold]
    fn fence(&mut self, peer: PeerIndex, header: &DataHeader) {
        if !self.receiver.is_of_this_life(peer, header) {
            self.counters.add(TurnCounter::FramesOtherLife as usize, 1);
            return;
        }
        if header.closes_flow() {
            return self.receiver.close(self.turn.now(), header);
        }
        self.receiver.fence(self.turn.now(), header, self.by.1, self.outlets, self.port);
    }

    #[inline(never)]
    fn overlay(&mut self, peer: PeerIndex, header: &DataHeader, body: &[u8]) {
        let Ok(body) = heapless::Vec::from_slice(body) else {
            self.counters.add(TurnCounter::FramesMalformed as usize, 1);
            return;
        };
        let frame = OverlayFrame { peer, link: self.by.0, host: header.host, incarnation: header.incarnation, body };
        let counter =
            if self.port.pass_overlay(frame) { TurnCounter::OverlayFrames } else { TurnCounter::OverlayFramesDropped };
        self.counters.add(counter as usize, 1);
    }
}

impl Receiver {
    pub fn new(
        (flows, seed): (usize, u64),
        (places, message_bytes_max): (usize, u32),
        inflows: Inflows,
        limits: &reliable::Limits,
    ) -> Self {
        Receiver {
            flows: FlowTable::new(flows, seed),
            reassembler: Reassembler::new(places, message_bytes_max),
            inflows,
            attention: Attention::new(limits),
            holds: Holds::new(),
            lives: [None; PEERS_MAX],
            refused: None,
            recent: None,
            others: 0,
            births: 0,
        }
    }

    /// What the clock shows that stands still while the thread is not run.
    #[inline]
    pub fn seen(&mut self, now: MonoTime) -> MonoTime {
        MonoTime(now.0 - self.attention.turn(now).0)
    }

    /// Takes a frame of the recent flow; false if it is not one. It does what
    /// [`data`](Self::data) does, without looking anything up.
    #[inline]
    fn again<C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        peer: PeerIndex,
        frame: &[u8],
        outlets: &mut Outlets,
        port: &Port,
    ) -> bool {
        let Some(recent) = self.recent.as_ref().filter(|recent| recent.peer == peer) else { return false };
        let Some((sequence, source_ns, payload)) = recent.head.decode_whole(frame) else { return false };
        let Some(verdict) =
            self.flows.classify_at(turn.about_now(), recent.place, sequence, || Stamp::is_of_history(source_ns))
        else {
            return false;
        };
        self.others = 0;
        outlets.count_received(recent.target.domain, frame.len());
        let meta = Meta { sequence, source_ns, lost: 0 };
        let content = Content::Private(payload);
        // The plain case of `conclude`.
        if verdict == (Verdict::New { lost: 0 })
            && self.reassembler.is_empty()
            && !self.is_holding()
            && outlets.deliver_plain(recent.target.route, meta, &content)
        {
            return true;
        }
        let target = recent.target;
        self.conclude(verdict, &target, meta, content, outlets, port);
        if self.is_holding() {
            self.release_held(turn.about_now(), &target.key, outlets, port);
        }
        true
    }

    /// Remembers the flow of a whole message that was received, unless another one keeps
    /// being received.
    #[inline]
    fn remember(&mut self, peer: PeerIndex, header: &DataHeader, target: Target) {
        self.others = self.others.saturating_add(1);
        // One of the same flow is of a later leg, or the first of its life at this peer.
        let is_other = |recent: &Recent| recent.target.key != target.key;
        if self.recent.as_ref().is_some_and(is_other) && self.others < OTHERS_MAX {
            return;
        }
        self.others = 0;
        let head = FlowHead::new(header);
        self.recent =
            self.flows.place(&target.key, header.flags.leg()).map(|place| Recent { peer, head, place, target });
    }

    /// One more sink is here; the number of those that joined so far.
    pub const fn sink_joined(&mut self) -> u64 {
        self.flows.sink_joined()
    }

    /// The last sink of a conversation has gone: reliable flows to it end, and begin anew with
    /// the next one.
    pub fn nobody_is_left(&mut self, topic: Topic) {
        self.inflows.nobody_is_left(topic);
    }

    /// What was looked up may not be so any more.
    pub fn forget_recent(&mut self) {
        self.recent = None;
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the parts of an intake, and what the frame says")]
    fn data<C: Clock>(
        &mut self,
        turn: &Turn<'_, C>,
        (peer, by): (PeerIndex, usize),
        header: &DataHeader,
        payload: Payload<'_>,
        outlets: &mut Outlets,
        port: &Port,
        counters: &CounterBlock,
    ) {
        let topic = Topic { key: header.stream, channel: header.channel };
        let Some((route, domain, heard)) = outlets.listeners(topic) else {
            counters.add(TurnCounter::FramesNoListener as usize, 1);
            if header.flags.contains(Flags::RELIABLE) {
                self.inflows.nobody_listens(&flow_key(header), topic);
            }
            return;
        };
        outlets.count_received(domain, payload.len() + HEADER_BYTES);
        if !heard {
            outlets.count(domain, DatapathCounter::DroppedNoSink, 1);
            if header.flags.contains(Flags::RELIABLE) {
                self.inflows.nobody_listens(&flow_key(header), topic);
            }
            return;
        }
        let key = flow_key(header);
        if header.flags.contains(Flags::RELIABLE) {
            let now = self.seen(turn.now());
            self.inflows.data(&Arrived { now, key, header, payload, route, domain }, outlets, port);
            return;
        }
        let target = Target { key, route, domain };
        if let Payload::Bytes(payload) = payload
            && header.is_whole(payload.len())
        {
            // Flows know time to a tenth of a second.
            let verdict = self.release(
                (turn.about_now(), || turn.now(), by),
                &target,
                header,
                Content::Private(payload),
                outlets,
                port,
            );
            if verdict != Released::Kept {
                self.remember(peer, header, target);
            }
            return;
        }
        let now = turn.now();
        let arrived = Fragmented { now, seen: self.seen(now), target, header, payload };
        if let Some(buffer) = self.collect(&arrived, outlets) {
            let content = Content::Received(buffer, header.message_len);
            if self.release((now, || now, by), &target, header, content, outlets, port) == Released::No {
                outlets.domains[domain.index()].heap.release(buffer);
            }
        }
    }

    /// Delivers a whole message if it is new, or keeps it if it overtook others: until when, is
    /// counted from `now`, which is asked only then. `by`: place of the link that it came by.
    #[inline]
    fn release(
        &mut self,
        (about_now, now, by): (MonoTime, impl FnOnce() -> MonoTime, usize),
        target: &Target,
        header: &DataHeader,
        content: Content<'_>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> Released {
        let meta = Meta { sequence: header.sequence, source_ns: header.source_instant, lost: 0 };
        let is_past = || Stamp::is_of_history(header.source_instant);
        let at = (header.sequence, header.flags.leg());
        let verdict = self.flows.classify_on(about_now, &target.key, at, is_past);
        if verdict == Verdict::Ahead {
            return self.keep((now(), by), target, header, content, outlets, port);
        }
        let released = self.conclude(verdict, target, meta, content, outlets, port);
        if self.is_holding() {
            self.release_held(about_now, &target.key, outlets, port);
        }
        if released { Released::Yes } else { Released::No }
    }

    /// Keeps a message that overtook others. Where that cannot be, nobody waits for those any
    /// longer.
    #[cold]
    fn keep(
        &mut self,
        (now, by): (MonoTime, usize),
        target: &Target,
        header: &DataHeader,
        content: Content<'_>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> Released {
        let Target { key, route, domain } = *target;
        let (kept, is_ours) = match content {
            Content::Private(bytes) if bytes.len() <= INLINE_BYTES_MAX => {
                let mut inline = [0; INLINE_BYTES_MAX];
                inline[..bytes.len()].copy_from_slice(bytes);
                (Some(Kept::Inline(bytes.len() as u8, inline)), false)
            }
            Content::Private(bytes) => {
                let buffer = outlets.loan(route, bytes.len() as u32);
                if let Some(buffer) = buffer {
                    outlets.domains[domain.index()].heap.bytes_mut(buffer)[..bytes.len()].copy_from_slice(bytes);
                }
                (buffer.map(|buffer| Kept::Buffer(buffer, bytes.len() as u32)), true)
            }
            Content::Received(buffer, len) => (Some(Kept::Buffer(buffer, len)), false),
            Content::Foreign(_) => (None, false),
        };
        let (sequence, leg) = (header.sequence, header.flags.leg());
        let topic = Topic { key: header.stream, channel: header.channel };
        let (source_ns, until) = (header.source_instant, now + HOLD_MAX);
        let link = by as u8;
        let held = kept.map(|content| Held { key, sequence, leg, source_ns, topic, domain, by: link, until, content });
        let result = held.map_or(Err(NotHeld::NoPlace), |held| self.holds.put(now, held));
        if result.is_ok() {
            outlets.count(domain, DatapathCounter::HeldBack, 1);
            return Released::Kept;
        }
        if let (true, Some(Kept::Buffer(buffer, _))) = (is_ours, kept) {
            outlets.domains[domain.index()].heap.release(buffer);
        }
        if result == Err(NotHeld::Duplicate) {
            outlets.count(domain, DatapathCounter::DroppedDuplicate, 1);
            return Released::No;
        }
        outlets.count(domain, DatapathCounter::HoldsEnded, 1);
        // The flow is on the leg of each in turn, so that none is kept once more: whatever legs
        // its sender names, this ends.
        while let Some(held) = self.holds.first_of(&key).filter(|held| held.sequence < sequence) {
            self.flows.go_on_to(&key, held.leg);
            self.release_first(now, &key, outlets, port);
        }
        self.flows.go_on_to(&key, leg);
        self.release((now, || now, by), target, header, content, outlets, port)
    }

    /// Delivers the first message of a flow that is kept, if nothing is missing before it any
    /// more; says whether it was one.
    fn release_first(&mut self, now: MonoTime, key: &FlowKey, outlets: &mut Outlets, port: &Port) -> bool {
        let Some(&Held { sequence, leg, source_ns, .. }) = self.holds.first_of(key) else { return false };
        let verdict = self.flows.classify_on(now, key, (sequence, leg), || Stamp::is_of_history(source_ns));
        if verdict == Verdict::Ahead {
            return false;
        }
        let Some(held) = self.holds.take_first_of(key) else { return false };
        // Its sinks, and even its route, may have gone meanwhile.
        let target = outlets.listeners(held.topic).filter(|(_, domain, heard)| *heard && *domain == held.domain);
        if target.is_none() {
            outlets.count(held.domain, DatapathCounter::DroppedNoSink, 1);
        }
        let meta = Meta { sequence, source_ns, lost: 0 };
        let content = match &held.content {
            Kept::Inline(len, bytes) => Content::Private(&bytes[..usize::from(*len)]),
            Kept::Buffer(buffer, len) => Content::Received(*buffer, *len),
        };
        let released = target.is_some_and(|(route, domain, _)| {
            let target = Target { key: *key, route, domain };
            self.conclude(verdict, &target, meta, content, outlets, port)
        });
        if !released {
            free_held(&held, outlets);
        }
        true
    }

    /// Delivers what is kept of a flow as far as nothing is missing before it any more.
    #[cold]
    fn release_held(&mut self, now: MonoTime, key: &FlowKey, outlets: &mut Outlets, port: &Port) {
        while self.release_first(now, key, outlets, port) {}
    }

    /// Whether messages are kept that overtook others.
    #[inline]
    pub const fn is_holding(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Releases what was kept for long enough. While links still have frames for this
    /// datapath, as when its thread had to wait for its core, what is missing may be among
    /// those: then it is kept for longer.
    #[cold]
    pub fn end_holds(&mut self, now: MonoTime, has_drained: bool, outlets: &mut Outlets, port: &Port) {
        let until = self.holds.looked(now, has_drained);
        while let Some(key) = self.holds.overdue(until) {
            let Some(&Held { leg, domain, .. }) = self.holds.first_of(&key) else { break };
            outlets.count(domain, DatapathCounter::HoldsEnded, 1);
            self.flows.go_on_to(&key, leg);
            self.release_held(now, &key, outlets, port);
        }
    }

    /// Which of so many links hand out one frame in the next turn, because what they bring is
    /// ahead of what others still have; see [`Holds::limited`].
    #[cold]
    pub fn limited(&mut self, links: usize, rest: u8) -> u8 {
        self.holds.limited(links, rest)
    }

    /// A flow has ended.
    fn close(&mut self, now: MonoTime, header: &DataHeader) {
        let key = flow_key(header);
        if header.flags.contains(Flags::RELIABLE) {
            let now = self.seen(now);
            self.inflows.close(now, &key, Topic { key: header.stream, channel: header.channel }, header.sequence);
        } else {
            self.flows.close(now, &key, header.sequence);
        }
    }

    /// A leg of a flow has ended.
    #[cold]
    fn fence(&mut self, now: MonoTime, header: &DataHeader, is_ordered: bool, outlets: &mut Outlets, port: &Port) {
        let key = flow_key(header);
        if self.flows.end_leg(&key, header.flags.leg(), header.sequence, is_ordered) && self.is_holding() {
            self.release_held(now, &key, outlets, port);
        }
    }

    /// Forgets what is kept of flows of a runtime that `keep` does not want.
    fn forget_held(&mut self, host: HostId, keep: impl Fn(&FlowKey) -> bool, outlets: &mut Outlets) {
        while let Some(held) = self.holds.take_of_host(host, &keep) {
            outlets.count(held.domain, DatapathCounter::DroppedIncomplete, 1);
            free_held(&held, outlets);
        }
    }

    /// Delivers a whole message if the verdict is that it is new; says whether it was.
    /// `meta` has no losses yet.
    #[inline]
    fn conclude(
        &mut self,
        verdict: Verdict,
        &Target { ref key, route, domain }: &Target,
        meta: Meta,
        content: Content<'_>,
        outlets: &mut Outlets,
        port: &Port,
    ) -> bool {
        let dropped = match verdict {
            Verdict::New { lost } => {
                if lost > 0 {
                    outlets.count(domain, DatapathCounter::Lost, lost);
                }
                let lost = u16::try_from(lost).unwrap_or(u16::MAX);
                outlets.deliver_here(port, route, Meta { lost, ..meta }, content);
                // What is older and still incomplete will never be released.
                let is_older = |other: &FlowKey, sequence, _| other == key && sequence < meta.sequence;
                while let Some(older) = self.reassembler.give_up(is_older) {
                    give_up(older, outlets);
                }
                return true;
            }
            Verdict::Past { after } => {
                outlets.deliver_among(Joined::between(after, u64::MAX), port, route, meta, content);
                return true;
            }
            Verdict::Duplicate => DatapathCounter::DroppedDuplicate,
            Verdict::Late | Verdict::Suspect => DatapathCounter::DroppedLate,
            Verdict::NoRoom => DatapathCounter::DroppedNoFlow,
            // Kept before it comes here.
            Verdict::Ahead => return false,
        };
        outlets.count(domain, dropped, 1);
        false
    }

    /// Puts a fragment where it belongs; the buffer of the message if it is now whole.
    fn collect(&mut self, arrived: &Fragmented<'_>, outlets: &mut Outlets) -> Option<BufferId> {
        if let Payload::Placed { len, birth } = arrived.payload
            && self.placed_at(arrived.seen, arrived.header, len, birth).is_none()
        {
            // Given up, and counted, since the link was given the memory.
            return None;
        }
        let mut arrival = self.offer(arrived);
        if arrival == Arrival::Unknown {
            self.start(arrived, outlets)?;
            arrival = self.offer(arrived);
        }
        let (handle, complete) = match arrival {
            Arrival::Store { handle } => (handle, false),
            Arrival::Complete { handle } => (handle, true),
            Arrival::Duplicate => {
                outlets.count(arrived.target.domain, DatapathCounter::DroppedDuplicate, 1);
                return None;
            }
            Arrival::Inconsistent | Arrival::Unknown => {
                outlets.count(arrived.target.domain, DatapathCounter::DroppedIncomplete, 1);
                return None;
            }
        };
        let from = arrived.header.fragment_offset as usize;
        if let Payload::Bytes(payload) = arrived.payload {
            let memory = outlets.domains[handle.domain.index()].heap.bytes_mut(handle.buffer);
            memory[from..from + payload.len()].copy_from_slice(payload);
        }
        complete.then_some(handle.buffer)
    }

    fn offer(&mut self, arrived: &Fragmented<'_>) -> Arrival<Assembling> {
        self.reassembler.fragment(
            arrived.seen,
            &arrived.target.key,
            arrived.header.sequence,
            arrived.header.message_len,
            arrived.header.fragment_offset,
            arrived.payload.len() as u32,
        )
    }

    /// Begins to collect a message: only one that would be released, and only with memory.
    fn start(&mut self, arrived: &Fragmented<'_>, outlets: &mut Outlets) -> Option<()> {
        let Fragmented { now, seen, target: Target { key, route, domain }, header, .. } = arrived;
        if !self.flows.expects(*now, key, header.sequence, || Stamp::is_of_history(header.source_instant)) {
            outlets.count(*domain, DatapathCounter::DroppedLate, 1);
            return None;
        }
        if outlets.domains[domain.index()].heap.geometry().size_max() < header.message_len {
            self.refuse(arrived, DatapathCounter::DroppedTooLarge, outlets);
            return None;
        }
        let mut buffer = outlets.loan(*route, header.message_len);
        if buffer.is_none() {
            // An older message of this flow, or the one that stands still for longest,
            // makes room; it will not be complete before this one anyway.
            if let Some(weak) = self.reassembler.give_up_for(key, header.sequence) {
                give_up(weak, outlets);
                buffer = outlets.loan(*route, header.message_len);
            }
        }
        let Some(buffer) = buffer else {
            self.refuse(arrived, DatapathCounter::DroppedNoBuffer, outlets);
            return None;
        };
        let handle = self.born(*domain, buffer);
        match self.reassembler.begin(*seen, key, header.sequence, header.message_len, handle) {
            Begin::Started { evicted } => {
                if let Some(evicted) = evicted {
                    give_up(evicted, outlets);
                }
                Some(())
            }
            Begin::TooLarge { refused } | Begin::Present { refused } => {
                outlets.domains[domain.index()].heap.release(refused.buffer);
                outlets.count(*domain, DatapathCounter::DroppedTooLarge, 1);
                None
            }
        }
    }

    fn born(&mut self, domain: DomainIndex, buffer: BufferId) -> Assembling {
        self.births += 1;
        Assembling { domain, buffer, birth: self.births }
    }

    /// A place for a frame that is coming in, by the birth of its message. Only where that
    /// costs nobody anything: whatever is unusual is left to the frame as a whole.
    fn place(&mut self, now: MonoTime, header: &DataHeader, len: u32, outlets: &mut Outlets) -> Option<u64> {
        let topic = Topic { key: header.stream, channel: header.channel };
        let (route, domain, _) = outlets.listeners(topic).filter(|(_, _, heard)| *heard)?;
        let key = flow_key(header);
        let seen = self.seen(now);
        if header.flags.contains(Flags::RELIABLE) {
            return self.inflows.place(seen, key, (header, len), (route, domain), outlets);
        }
        let sequence = header.sequence;
        if !self.reassembler.has_begun(&key, sequence) {
            let is_past = || Stamp::is_of_history(header.source_instant);
            if !self.reassembler.has_place() || !self.flows.expects(now, &key, sequence, is_past) {
                return None;
            }
            let buffer = outlets.loan(route, header.message_len)?;
            let handle = self.born(domain, buffer);
            match self.reassembler.begin(seen, &key, sequence, header.message_len, handle) {
                Begin::Started { evicted } => debug_assert!(evicted.is_none(), "there was a place"),
                Begin::TooLarge { refused } | Begin::Present { refused } => {
                    outlets.domains[domain.index()].heap.release(refused.buffer);
                    return None;
                }
            }
        }
        let (offset, message_len) = (header.fragment_offset, header.message_len);
        self.reassembler.fill(seen, &key, sequence, message_len, offset, len).map(|handle| handle.birth)
    }

    /// The memory of the message of this birth, if its frame with this header is still to be
    /// written there.
    fn placed_at(&mut self, seen: MonoTime, header: &DataHeader, len: u32, birth: u64) -> Option<Assembling> {
        let key = flow_key(header);
        let place = if header.flags.contains(Flags::RELIABLE) {
            self.inflows.placed_at(&key, header, len)
        } else {
            let (offset, message_len) = (header.fragment_offset, header.message_len);
            self.reassembler.fill(seen, &key, header.sequence, message_len, offset, len)
        };
        place.filter(|place| place.birth == birth)
    }

    /// Counts a message, not each of its fragments.
    fn refuse(&mut self, arrived: &Fragmented<'_>, counter: DatapathCounter, outlets: &Outlets) {
        let this = Some((arrived.target.key, arrived.header.sequence));
        if self.refused != this {
            self.refused = this;
            outlets.count(arrived.target.domain, counter, 1);
        }
    }

    /// Gives up what stands still. Bounded.
    pub fn housekeeping(&mut self, now: MonoTime, outlets: &mut Outlets) {
        let seen = self.seen(now);
        for _ in 0..HOUSEKEEPING_BUDGET {
            let Some(expired) = self.reassembler.expire(seen, REASSEMBLY_TIMEOUT) else { break };
            give_up(expired, outlets);
        }
        self.flows.expire(now, FLOW_TIMEOUT, HOUSEKEEPING_BUDGET);
        self.inflows.housekeeping(seen, outlets);
    }

    /// Whether a frame is of the runtime and life that the control plane knows at this
    /// peer's address; or nothing is known of it yet, and no other peer is that runtime in
    /// another life: with each word of that one its flows would be forgotten, and whatever is
    /// repeated of them would be new.
    #[inline]
    fn is_of_this_life(&self, peer: PeerIndex, header: &DataHeader) -> bool {
        match self.lives.get(peer.index()) {
            Some(Some(life)) => *life == (header.host, header.incarnation),
            Some(None) => self.is_of_no_other(header),
            None => false,
        }
    }

    #[cold]
    fn is_of_no_other(&self, header: &DataHeader) -> bool {
        let mut lives = self.lives.iter().flatten();
        lives.all(|(host, incarnation)| *host != header.host || *incarnation == header.incarnation)
    }

    /// Learns which runtime a peer is, and forgets its earlier lives. Says whether another
    /// one was known at its address.
    pub fn set_peer_life(
        &mut self,
        peer: PeerIndex,
        host: HostId,
        incarnation: Option<Incarnation>,
        outlets: &mut Outlets,
    ) -> bool {
        let mut is_another = false;
        if let Some(life) = self.lives.get_mut(peer.index()) {
            let new = incarnation.map(|incarnation| (host, incarnation));
            is_another = life.is_some() && *life != new;
            *life = new;
        }
        self.forget_lives(host, outlets);
        is_another
    }

    /// Forgets a peer that is none any more, and whatever came from it.
    pub fn remove_peer(&mut self, peer: PeerIndex, outlets: &mut Outlets) {
        self.inflows.remove_peer(peer, outlets);
        if let Some((host, _)) = self.lives.get_mut(peer.index()).and_then(Option::take) {
            self.forget_lives(host, outlets);
        }
    }

    /// Forgets what came from a runtime in lives that are known of no peer. Another peer may have
    /// its name, or its new life another address: what that one still sends counts, so it must not
    /// be new again.
    fn forget_lives(&mut self, host: HostId, outlets: &mut Outlets) {
        let lives = self.lives;
        let keeps = |incarnation| lives.contains(&Some((host, incarnation)));
        self.inflows.retire(host, keeps, outlets);
        self.flows.retire_host(host, keeps);
        let is_old = |key: &FlowKey, _, _| key.host == host && !keeps(key.incarnation);
        while let Some(old) = self.reassembler.give_up(is_old) {
            give_up(old, outlets);
        }
        self.forget_held(host, |key| keeps(key.incarnation), outlets);
    }

    /// Whether messages are still arriving, so that housekeeping is due even without traffic.
    pub fn is_collecting(&self) -> bool {
        !self.reassembler.is_empty()
    }
}

/// What became of a whole message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Released {
    Yes,
    No,
    /// It overtook others, and its memory is in use.
    Kept,
}

struct Fragmented<'a> {
    /// What flows go by.
    now: MonoTime,
    /// The same instant by the clock of what is collected: [`Receiver::seen`].
    seen: MonoTime,
    target: Target,
    header: &'a DataHeader,
    payload: Payload<'a>,
}

/// The payload of a frame.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    /// As it came.
    Bytes(&'a [u8]),
    /// In its place already.
    Placed {
        /// Bytes.
        len: u32,
        /// Of the message.
        birth: u64,
    },
}

impl Payload<'_> {
    pub const fn len(self) -> usize {
        match self {
            Payload::Bytes(bytes) => bytes.len(),
            Payload::Placed { len, .. } => len as usize,
        }
    }
}

const fn flow_key(header: &DataHeader) -> FlowKey {
    FlowKey { host: header.host, incarnation: header.incarnation, source: header.source, stream: header.stream }
}

fn give_up(handle: Assembling, outlets: &mut Outlets) {
    outlets.count(handle.domain, DatapathCounter::DroppedIncomplete, 1);
    outlets.domains[handle.domain.index()].heap.release(handle.buffer);
}

fn free_held(held: &Held, outlets: &mut Outlets) {
    if let Kept::Buffer(buffer, _) = held.content {
        outlets.domains[held.domain.index()].heap.release(buffer);
    }
}
