//! One source's messages: from its ring to local sinks and to the links.

use crate::command::{Command, Notice, Port, Topic};
use crate::deliver::{Content, Copying, Outlets, is_piecemeal};
use crate::links::{ByGroup, Links};
use crate::newcomers::{Kept, Newcomers, PeerSet};
use crate::outflow::{Identity, Outflow, Progress};
use crate::routes::{Route, RouteIndex, Way};
use crate::watch::QUIET_AFTER;
use insane_core::counters::DatapathCounter;
use insane_core::{DomainIndex, HostId, Incarnation, Lane, MonoTime, PeerIndex, SessionId, SourceId};
use insane_link::{Link, SendOutcome};
use insane_shm::Violation;
use insane_shm::conn::RxConn;
use insane_shm::ring::{Payload, Popped};
use insane_sys::SharedBytes;
use insane_wire::data::{CLOSING, DataHeader, Flags, Fragment, FragmentPlan, HEADER_BYTES, Kind, Leg};
use insane_wire::flow_head::FlowHead;

/// Largest message of the past that sinks of this host get, bytes: it is copied at once, and no
/// more than a chunk may hold real time up.
const PAST_HERE_MAX: u32 = 16 << 10;

/// Bytes that a message without a frame is charged: what its way through costs.
const LOCAL_CHARGE: u32 = 64;

/// A message of which not every fragment went to every peer.
#[derive(Debug)]
pub(super) struct Underway {
    plan: FragmentPlan,
    fragment: Fragment,
    /// The last peer of the route that has this fragment: those with smaller numbers have it,
    /// too. Not a count: the route may change meanwhile.
    reached: Option<PeerIndex>,
    /// The message goes to these peers by a group; it does so to its last fragment.
    by_group: Option<ByGroup>,
    /// The group lacks this fragment.
    group_lacks_it: bool,
    /// The fragment's header.
    head: [u8; HEADER_BYTES],
}

pub(super) struct SourceEntry {
    pub conn: RxConn,
    pub source: SourceId,
    pub route: RouteIndex,
    pub domain: DomainIndex,
    pub lane: Lane,
    pub head: FlowHead,
    pub popped: Popped,
    /// A large message on its way to local sinks; its fragments follow when it is there.
    pub copying: Option<Copying>,
    pub underway: Option<Underway>,
    /// Of one that keeps its values: the message of now that was popped last.
    pub newest: u64,
    /// Peers that are to get what the source keeps of the past, if it keeps any.
    pub newcomers: Option<Newcomers>,
    /// Peers that do not get the message that was popped last.
    pub skip: PeerSet,
    /// Its messages go to each peer alone: those of sources with slots, whose room is counted
    /// for each peer.
    pub each_alone: bool,
    /// The link of its slots, which goes before that of its route.
    pub by: Way,
    /// Peers that its route ever had: they may remember its flow.
    pub met: PeerSet,
    /// What a reliable source has under way; it uses neither `popped` nor `underway`.
    pub reliable: Option<Box<Outflow>>,
    /// An unreliable source that was let go and has something left: the command to be
    /// answered, and when at the latest.
    pub leaving: Option<(Box<Command>, MonoTime)>,
    /// The scheduler knows that it has something.
    pub ready: bool,
    /// Whose it is.
    pub session: SessionId,
    /// Its session has a budget.
    pub has_budget: bool,
    /// A link by which it goes is paced.
    pub is_paced: bool,
    /// One of both: the lanes are asked even if it is alone.
    pub must_ask: bool,
    /// Its link had no room for anything when it was to send last.
    pub is_stuck: bool,
    /// It can ring, or nobody sleeps here: it may become quiet.
    pub may_rest: bool,
    /// Looks since it had something, while it is not quiet.
    pub idle_looks: u32,
    /// Its client lied; it is silent until the control plane removes it.
    pub dead: bool,
}

impl SourceEntry {
    pub const fn identity(&self, (host, incarnation): (HostId, Incarnation)) -> Identity {
        let SourceEntry { source, lane, domain, route, .. } = *self;
        Identity { host, incarnation, source, lane, domain, route }
    }

    /// The word in which the message that goes next bears its instant: its sender's claim.
    pub fn next_stamp(&self) -> Option<u64> {
        if self.is_midway() { Some(self.popped.meta.source_ns) } else { self.conn.next_source_ns() }
    }

    /// How its messages go to a peer of its route.
    #[inline]
    pub fn way(&self, route: &Route, peer: PeerIndex) -> Way {
        if self.by == Way::REACH { route.way(peer) } else { self.by }
    }

    /// Whether it has something for a link or a sink.
    #[inline]
    pub fn has_something(&mut self, payload_max: u32) -> bool {
        match &mut self.reliable {
            None => self.is_midway() || self.conn.is_ready(),
            Some(outflow) => outflow.can_go(&self.conn, payload_max),
        }
    }

    /// Counts a look that found nothing; whether it is quiet now. Others depend on a source
    /// that is real-time or reliable, which is always watched.
    #[inline]
    pub fn is_idle_again(&mut self) -> bool {
        self.idle_looks += 1;
        self.idle_looks >= QUIET_AFTER && self.may_rest && !self.lane.is_real_time() && self.reliable.is_none()
    }

    /// Nobody looks at it until its client rings; false: there is a message after all.
    #[cold]
    pub fn be_quiet(&mut self) -> bool {
        self.conn.be_quiet()
    }

    /// Whether an unreliable source has messages that did not go yet.
    pub fn is_unfinished(&self) -> bool {
        self.is_midway() || self.conn.is_ready()
    }

    /// Whether a message was taken from the ring and is not done with.
    pub const fn is_midway(&self) -> bool {
        self.copying.is_some() || self.underway.is_some()
    }

    /// Its messages go on another leg from now on: so does what is left of one that is under
    /// way, whose fragments find their places by whatever link they come.
    #[cold]
    pub fn go_on(&mut self, leg: Leg) {
        self.head.set_leg(leg);
        set_head(self);
    }

    /// The last message that has gone to the last fragment.
    pub fn last_whole(&self) -> u64 {
        let popped = self.popped.meta.sequence;
        let newest = if self.newcomers.is_some() { self.newest } else { popped };
        if self.is_midway() && popped == newest { newest.saturating_sub(1) } else { newest }
    }

    /// The frame that says that a leg ended with message `last`.
    pub fn fence(&self, leg: Leg, last: u64) -> [u8; HEADER_BYTES] {
        self.head.fence(leg, last)
    }

    /// The frame that says that nothing more of it comes; `None`: nothing ever went.
    pub fn closing(&self, (host, incarnation): (HostId, Incarnation), topic: Topic) -> Option<[u8; HEADER_BYTES]> {
        let Some(outflow) = &self.reliable else { return Some(self.head.closing(self.last_whole().saturating_add(1))) };
        let head = DataHeader {
            kind: Kind::Fence,
            lane: self.lane,
            flags: Flags::RELIABLE,
            sequence: outflow.next()?,
            source_instant: CLOSING,
            message_len: 0,
            ..DataHeader::reliable((host, incarnation), (topic.key, topic.channel), self.source)
        };
        Some(head.encode())
    }

    /// Messages that are lost if it is let go now. A liar's are not worth counting.
    pub fn left(&self) -> u64 {
        if self.dead {
            return 0;
        }
        let underway = self.reliable.as_ref().map_or(u64::from(self.is_midway()), |r| r.unacknowledged());
        underway + self.conn.waiting()
    }
}

/// As [`send_some`], for a reliable source.
#[inline(never)]
pub(super) fn send_reliable<L: Link>(
    now: MonoTime,
    entry: &mut SourceEntry,
    identity: (HostId, Incarnation),
    budget: u32,
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> Result<Progress, Violation> {
    let id = entry.identity(identity);
    match &mut entry.reliable {
        Some(outflow) => {
            let conn = (&mut entry.conn, &mut entry.newcomers);
            outflow.send_some(now, budget, &id, conn, links, outlets, port)
        }
        None => Ok(Progress { bytes: 0, more: false, blocked: false }),
    }
}

/// What a source may send in one go.
#[derive(Clone, Copy)]
pub(super) struct Grant {
    /// It goes on while fewer bytes have gone.
    pub bytes: u32,
    /// What a message and a frame count beyond their own bytes.
    pub overhead: u32,
    /// No other source has anything.
    pub alone: bool,
}

/// A client lied: its source is silent from now on.
#[cold]
pub(super) fn condemn(entry: &mut SourceEntry, violation: Violation, outlets: &Outlets, port: &Port) -> Progress {
    outlets.count(entry.domain, DatapathCounter::Violations, 1);
    port.tell(Notice::Violation { conn: entry.conn.id(), violation });
    entry.dead = true;
    Progress { bytes: 0, more: false, blocked: false }
}

/// Sends whole messages and fragments within a grant.
pub(super) fn send_some<L: Link>(
    entry: &mut SourceEntry,
    grant: Grant,
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> Result<Progress, Violation> {
    let mut bytes = 0_u32;
    while bytes < grant.bytes {
        let left = grant.bytes - bytes;
        if entry.copying.is_some() {
            bytes = bytes.saturating_add(copy_on(entry, left, links, outlets, port));
        } else if entry.underway.is_none() {
            if !entry.conn.pop(&mut entry.popped)? {
                return Ok(Progress { bytes, more: false, blocked: false });
            }
            let alone = grant.alone && bytes == 0 && !entry.conn.is_ready();
            let charge = begin(entry, (left, alone), links, outlets, port);
            bytes = bytes.saturating_add(charge + grant.overhead);
            if alone && !entry.is_midway() && !entry.conn.is_ready() {
                // As most do that go alone: nothing came meanwhile.
                entry.conn.rest();
                return Ok(Progress { bytes, more: false, blocked: false });
            }
        } else {
            match send_frame(entry, links, outlets) {
                Some(sent) => bytes = bytes.saturating_add(sent + grant.overhead),
                None => return Ok(Progress { bytes, more: true, blocked: true }),
            }
        }
    }
    let more = entry.is_midway() || entry.conn.is_ready();
    Ok(Progress { bytes, more, blocked: false })
}

/// A message was taken from the ring: local delivery now, or in pieces; then the frame if it
/// is the only one, else fragments to come. `alone`: no other message waits. Returns what it
/// cost so far, bytes.
#[inline(always)]
pub(super) fn begin<L: Link>(
    entry: &mut SourceEntry,
    (budget, alone): (u32, bool),
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> u32 {
    match begin_plain(entry, alone, links, outlets) {
        Plain::Sent(bytes) => bytes,
        Plain::Busy => fragment(entry, links, outlets).max(LOCAL_CHARGE),
        Plain::No => begin_any(entry, (budget, alone), links, outlets, port),
    }
}

/// What became of a message that may be plain.
enum Plain {
    /// It went, or failed for good, and is done with: what it cost, bytes.
    Sent(u32),
    /// The link is busy. The message was counted, and nothing of it went.
    Busy,
    /// It is not, and nothing was done.
    No,
}

/// The plain case of [`begin`], straight through: a message of one frame for one peer, and for
/// nobody of this host, of a source that keeps nothing of the past.
#[inline(always)]
fn begin_plain<L: Link>(entry: &mut SourceEntry, alone: bool, links: &mut Links<L>, outlets: &Outlets) -> Plain {
    let Some(route) = outlets.routes.get(entry.route) else { return Plain::No };
    let [peer] = route.peers[..] else { return Plain::No };
    let Some(parts) = outlets.domains.get(entry.domain.index()) else { return Plain::No };
    if route.local || entry.newcomers.is_some() || entry.popped.len > links.payload_bytes_max() {
        return Plain::No;
    }
    let way = entry.way(route, peer);
    let head = header(entry, 0);
    let payload = payload_of(&entry.popped, &entry.conn);
    let outcome = if alone {
        links.send_alone((peer, way), entry.lane, &head, payload)
    } else {
        links.send((peer, way), entry.lane, &head, payload)
    };
    let bytes = entry.popped.len + HEADER_BYTES as u32;
    let counters = &parts.counters;
    counters.add(DatapathCounter::MessagesFromSources as usize, 1);
    match outcome {
        SendOutcome::Sent => {
            counters.add(DatapathCounter::FramesSent as usize, 1);
            counters.add(DatapathCounter::BytesSent as usize, u64::from(bytes));
        }
        SendOutcome::Failed => counters.add(DatapathCounter::FramesFailed as usize, 1),
        SendOutcome::Busy => return Plain::Busy,
    }
    finish(entry);
    Plain::Sent(bytes.max(LOCAL_CHARGE))
}

/// As [`begin`], whatever message it is.
#[inline(never)]
fn begin_any<L: Link>(
    entry: &mut SourceEntry,
    (budget, alone): (u32, bool),
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> u32 {
    if let Some(newcomers) = &mut entry.newcomers {
        match newcomers.sort(&entry.popped.meta) {
            Kept::Now(but) => {
                entry.skip = but;
                entry.newest = entry.popped.meta.sequence;
                newcomers.heard_by(outlets.joined());
            }
            Kept::Past(but) => return begin_past(entry, but, links, outlets, port),
            Kept::End(_) => {
                finish(entry);
                return LOCAL_CHARGE;
            }
        }
    }
    outlets.count(entry.domain, DatapathCounter::MessagesFromSources, 1);
    let Some(route) = outlets.routes.get(entry.route) else {
        finish(entry);
        return LOCAL_CHARGE;
    };
    let mut charge = LOCAL_CHARGE;
    if route.local {
        charge = charge.max(entry.popped.len);
        let meta = entry.popped.meta;
        match entry.popped.payload {
            Payload::Inline => {
                let bytes = inline_bytes(&entry.popped);
                outlets.deliver(port, entry.route, meta, Content::Private(bytes));
            }
            Payload::Heap(_) if is_piecemeal(entry.popped.len, budget) => {
                entry.copying = outlets.start_copy(entry.route, meta, entry.popped.len);
                if entry.copying.is_some() {
                    return 0;
                }
            }
            Payload::Heap(id) => {
                let bytes = entry.conn.view(id, entry.popped.len);
                outlets.deliver(port, entry.route, meta, Content::Foreign(bytes));
            }
        }
    }
    charge.max(send_or_fragment(entry, alone, links, outlets))
}

/// As [`begin`], a message that was emitted before those joined that it is for: peers, and
/// sinks of this host that get local messages from here.
#[cold]
fn begin_past<L: Link>(
    entry: &mut SourceEntry,
    but: PeerSet,
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> u32 {
    if let Some(newcomers) = &mut entry.newcomers {
        deliver_past(&entry.popped, &entry.conn, newcomers, entry.route, outlets, port);
    }
    let is_for_any =
        outlets.routes.get(entry.route).is_some_and(|route| route.peers.iter().any(|peer| !but.contains(*peer)));
    entry.skip = but;
    if is_for_any {
        send_or_fragment(entry, false, links, outlets).max(LOCAL_CHARGE)
    } else {
        finish(entry);
        LOCAL_CHARGE
    }
}

/// Gives a message of the past to the sinks of this host that wait for it, if they get local
/// messages from here.
#[cold]
pub(crate) fn deliver_past(
    popped: &Popped,
    conn: &RxConn,
    newcomers: &mut Newcomers,
    route: RouteIndex,
    outlets: &mut Outlets,
    port: &Port,
) {
    let Some(entry) = outlets.routes.get(route).filter(|entry| entry.local) else { return };
    let among = newcomers.is_past_to(outlets.joined());
    if popped.len > PAST_HERE_MAX {
        return outlets.count(entry.domain, DatapathCounter::DroppedTooLarge, 1);
    }
    let content = match popped.payload {
        Payload::Inline => Content::Private(inline_bytes(popped)),
        Payload::Heap(id) => Content::Foreign(conn.view(id, popped.len)),
    };
    outlets.deliver_among(among, port, route, popped.meta, content);
}

/// Copies more of a message for local sinks, at most `budget` bytes, and delivers it when
/// all of it is there. The bytes that were copied.
#[inline(never)]
pub(super) fn copy_on<L: Link>(
    entry: &mut SourceEntry,
    budget: u32,
    links: &mut Links<L>,
    outlets: &mut Outlets,
    port: &Port,
) -> u32 {
    let (Some(mut copying), Payload::Heap(id)) = (entry.copying.take(), entry.popped.payload) else { return 0 };
    let copied = outlets.copy_piece(&mut copying, entry.conn.view(id, entry.popped.len), budget);
    if copying.left() > 0 {
        entry.copying = Some(copying);
    } else {
        outlets.deliver(port, entry.route, entry.popped.meta, copying.finished());
        send_or_fragment(entry, false, links, outlets);
    }
    copied
}

/// Local sinks have the message, or get none: now the peers. Sends the frame if it is the
/// only one; the bytes that went. Else fragments are to come.
fn send_or_fragment<L: Link>(entry: &mut SourceEntry, alone: bool, links: &mut Links<L>, outlets: &mut Outlets) -> u32 {
    let Some(route) = outlets.routes.get(entry.route) else {
        finish(entry);
        return 0;
    };
    if route.peers.is_empty() || (!entry.skip.is_empty() && all_are_in(entry.skip, &route.peers)) {
        if !route.local {
            outlets.count(entry.domain, DatapathCounter::DroppedNoPeer, 1);
        }
        finish(entry);
        return 0;
    }
    if let Some(sent) = send_whole(entry, alone, links, outlets) {
        finish(entry);
        return sent;
    }
    fragment(entry, links, outlets)
}

/// The message goes in fragments, if in one that is to wait for its link; those are to come.
#[inline(never)]
fn fragment<L: Link>(entry: &mut SourceEntry, links: &mut Links<L>, outlets: &mut Outlets) -> u32 {
    let plan = FragmentPlan::new(entry.popped.len, links.payload_bytes_max());
    let Some((plan, fragment)) = plan.and_then(|mut plan| plan.next().map(|fragment| (plan, fragment))) else {
        outlets.count(entry.domain, DatapathCounter::DroppedTooLarge, 1);
        finish(entry);
        return 0;
    };
    // Who joined and waits for the past must not get this message before it: each alone then.
    let by_group = if entry.each_alone || !entry.skip.is_empty() {
        None
    } else {
        outlets.routes.get(entry.route).and_then(|route| links.group_for(route.usual))
    };
    let group_lacks_it = by_group.is_some();
    entry.underway =
        Some(Underway { plan, fragment, reached: None, by_group, group_lacks_it, head: [0; HEADER_BYTES] });
    set_head(entry);
    0
}

#[cold]
fn all_are_in(set: PeerSet, peers: &[PeerIndex]) -> bool {
    peers.iter().all(|peer| set.contains(*peer))
}

/// A message of one frame for one peer. The bytes that went; `None` if it is not that plain, or
/// the link is busy, and nothing went.
fn send_whole<L: Link>(entry: &SourceEntry, alone: bool, links: &mut Links<L>, outlets: &mut Outlets) -> Option<u32> {
    let route = outlets.routes.get(entry.route)?;
    let [peer] = route.peers[..] else { return None };
    if entry.popped.len > links.payload_bytes_max() {
        return None;
    }
    let head = header(entry, 0);
    let payload = payload_of(&entry.popped, &entry.conn);
    let sent = entry.popped.len + HEADER_BYTES as u32;
    let outcome = if alone {
        links.send_alone((peer, entry.way(route, peer)), entry.lane, &head, payload)
    } else {
        links.send((peer, entry.way(route, peer)), entry.lane, &head, payload)
    };
    count_frame(outcome, entry.domain, sent, outlets)
}

/// Counts a frame that was offered to a link; `None` if it was busy.
#[inline]
fn count_frame(outcome: SendOutcome, domain: DomainIndex, bytes: u32, outlets: &Outlets) -> Option<u32> {
    match outcome {
        SendOutcome::Sent => outlets.count_sent(domain, bytes),
        SendOutcome::Failed => outlets.count(domain, DatapathCounter::FramesFailed, 1),
        SendOutcome::Busy => return None,
    }
    Some(bytes)
}

#[inline]
fn payload_of<'e>(popped: &'e Popped, conn: &'e RxConn) -> SharedBytes<'e> {
    match popped.payload {
        Payload::Inline => SharedBytes::from(inline_bytes(popped)),
        Payload::Heap(id) => conn.view(id, popped.len),
    }
}

/// Sends the current fragment to the next peer that does not have it; `None` if its
/// link is busy. The bytes that went.
pub(super) fn send_frame<L: Link>(entry: &mut SourceEntry, links: &mut Links<L>, outlets: &mut Outlets) -> Option<u32> {
    let underway = entry.underway.as_mut()?;
    let route = outlets.routes.get(entry.route);
    let peers = route.map_or(&[][..], |route| &route.peers);
    let Fragment { offset, len } = underway.fragment;
    let mut sent = 0;
    let skip = underway.by_group.map_or(entry.skip, |by| by.serves.or(entry.skip));
    // The route may have changed since the message began: a peer that came late lacks
    // fragments and drops the rest, one that left is not asked any more.
    let mut left = next_peers(peers, underway.reached, skip);
    if let Some(by) = underway.by_group
        && underway.group_lacks_it
    {
        let payload = payload_of(&entry.popped, &entry.conn).part(offset as usize, len as usize);
        let outcome = links.send_group(by, entry.lane, &underway.head, payload);
        sent = count_frame(outcome, entry.domain, len + HEADER_BYTES as u32, outlets)?;
        outlets.count(entry.domain, DatapathCounter::GroupFrames, 1);
        underway.group_lacks_it = false;
        if left.next().is_some() {
            return Some(sent);
        }
    } else if let Some(peer) = left.next() {
        let payload = payload_of(&entry.popped, &entry.conn).part(offset as usize, len as usize);
        let usual = || route.map_or(Way::REACH, |route| route.way(*peer));
        let way = if entry.by == Way::REACH { usual() } else { entry.by };
        let outcome = links.send((*peer, way), entry.lane, &underway.head, payload);
        sent = count_frame(outcome, entry.domain, len + HEADER_BYTES as u32, outlets)?;
        underway.reached = Some(*peer);
    }
    if left.next().is_none() {
        match underway.plan.next() {
            Some(fragment) => {
                underway.fragment = fragment;
                underway.reached = None;
                underway.group_lacks_it = underway.by_group.is_some();
                set_head(entry);
            }
            None => finish(entry),
        }
    }
    Some(sent)
}

/// The peers of a route, which stand in the order of their numbers, behind `reached`, but
/// for those to be left out.
fn next_peers(peers: &[PeerIndex], reached: Option<PeerIndex>, skip: PeerSet) -> impl Iterator<Item = &PeerIndex> {
    peers.iter().filter(move |peer| reached.is_none_or(|reached| **peer > reached) && !skip.contains(**peer))
}

/// Encodes the header of the current fragment, the same for every peer.
fn set_head(entry: &mut SourceEntry) {
    let Some(underway) = &entry.underway else { return };
    let head = header(entry, underway.fragment.offset);
    if let Some(underway) = &mut entry.underway {
        underway.head = head;
    }
}

#[inline]
fn header(entry: &SourceEntry, fragment_offset: u32) -> [u8; HEADER_BYTES] {
    let Popped { meta, len, .. } = &entry.popped;
    entry.head.encode(meta.sequence, meta.source_ns, *len, fragment_offset)
}

fn inline_bytes(popped: &Popped) -> &[u8] {
    &popped.inline.0[..(popped.len as usize).min(popped.inline.0.len())]
}

/// The message is done with: its buffer goes back.
pub(super) fn finish(entry: &mut SourceEntry) {
    entry.underway = None;
    if let Payload::Heap(id) = entry.popped.payload {
        entry.conn.give_back(id);
        entry.popped.payload = Payload::Inline;
    }
}

/// The message that was popped last goes no further, however far it came.
pub(super) fn abandon(entry: &mut SourceEntry, outlets: &mut Outlets) {
    if let Some(copying) = entry.copying.take() {
        outlets.discard(copying);
    }
    finish(entry);
}

impl<L: Link> Links<L> {
    /// Hands a frame to the link by which it goes to the peer.
    #[inline]
    pub fn send(
        &mut self,
        (peer, way): (PeerIndex, Way),
        lane: Lane,
        head: &[u8],
        payload: SharedBytes<'_>,
    ) -> SendOutcome {
        if let Some(launch) = self.launch {
            return self.send_at((peer, way), lane, head, payload, launch);
        }
        match self.by(peer, way) {
            Some(link) => link.send(peer, lane, head, payload),
            None => SendOutcome::Failed,
        }
    }

    #[cold]
    fn send_at(
        &mut self,
        (peer, way): (PeerIndex, Way),
        lane: Lane,
        head: &[u8],
        payload: SharedBytes<'_>,
        launch: MonoTime,
    ) -> SendOutcome {
        match self.by(peer, way) {
            Some(link) => link.send_at(peer, lane, head, payload, launch),
            None => SendOutcome::Failed,
        }
    }

    /// As [`send`](Self::send); no other frame follows before the flush.
    #[inline]
    fn send_alone(
        &mut self,
        (peer, way): (PeerIndex, Way),
        lane: Lane,
        head: &[u8],
        payload: SharedBytes<'_>,
    ) -> SendOutcome {
        match self.by(peer, way) {
            Some(link) => link.send_alone(peer, lane, head, payload),
            None => SendOutcome::Failed,
        }
    }
}
