//! Flows: which messages of a source are new to this runtime.
//!
//! A flow is what one source of one life of one runtime sends on one stream. Its
//! messages are numbered; this table decides for each completed message whether it is
//! released to the sinks. The contract is "newest data":
//!
//! - Sequences are released strictly rising. What is not newer than the newest released
//!   is dropped: as [`Verdict::Duplicate`] if it was seen before (within [`WINDOW`]
//!   messages), else as [`Verdict::Late`].
//! - A gap is counted as lost when the message behind it is released; a message of the
//!   gap that completes later stays lost.
//! - One absurd frame cannot wedge a flow. A jump of more than [`JUMP_MAX`] is only
//!   believed after [`CONSISTENT_MIN`] messages that agree with each other. A smaller
//!   jump is believed at once; was it wrong, then the true messages look late, and
//!   [`CONSISTENT_MIN`] of them restart the flow at their number, if they rise and nothing
//!   was released meanwhile. Each must come [`RESTART_STEP`] after the one before it, and the
//!   first as long after the last release: a source goes on, but what a link held back comes
//!   at once, as old as it is and however long the flow was quiet. Nothing is counted lost
//!   over a restart.
//! - A message that says it is of the past (its source kept it for those who join later)
//!   is released as any other where it is newer than the newest; else only to sinks that
//!   got nothing of the flow yet: [`Verdict::Past`]. The table does not know sinks, but
//!   counts them ([`FlowTable::sink_joined`]): those up to a count got the newest message,
//!   those up to another count the newest one of the past. So no sink gets a message twice
//!   or behind a newer one, as long as the flow is remembered.
//!
//! - A flow moves from one link to another in *legs* ([`Leg`]). A message of a leg ahead of
//!   the flow's is released if it is the next one: then whatever came before it is here.
//!   Else it is [`Verdict::Ahead`]: it may have overtaken messages of the leg before, and
//!   whoever asks keeps it until those are here, a fence says that no more will come
//!   ([`FlowTable::end_leg`]), or the time for that is up ([`FlowTable::go_on_to`]).
//! - A source that closes says so ([`FlowTable::close`]). Its flow is still remembered, so that
//!   what is under way to it is judged as ever and nothing is released twice; but when another
//!   one needs a place it gives way first, before any that is only idle, and after
//!   [`CLOSED_LINGER`] it is forgotten. A message behind the last one said makes that void, and so
//!   does one later than those under way that is not the last: so a false word costs what a full
//!   table costs an idle flow, and never a message.
//!
//! Bounds: all memory is taken in [`FlowTable::new`]: `capacity` flows of 128 bytes and
//! an index of at least twice as many places of 8 bytes. A look-up looks at no more than
//! [`PROBES_MAX`] places. When the table is full the flow that was idle longest makes
//! room, if it was idle for [`EVICT_AFTER`], unless one of the [`CLOSED_LOOKS`] that closed
//! first may go; otherwise the newcomer is refused. Idle is known to within [`REORDER_AFTER`].

use alloc::boxed::Box;
use alloc::vec;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, SourceId, StreamKey};
use insane_wire::data::Leg;

/// Messages behind the newest released one of which it is known whether they were seen.
pub const WINDOW: u64 = 128;
/// Largest jump of a sequence that is believed at once: half a minute of outage at ten
/// million messages a second.
pub const JUMP_MAX: u64 = 1 << 28;
/// Messages that must agree before an unlikely sequence is believed.
pub const CONSISTENT_MIN: u8 = 4;
/// Sequences agree if each is ahead of the one before by 1 to this many.
pub const CONSISTENT_STEP: u64 = 64;
/// So far apart are the late messages that restart a flow: it released nothing for a second then.
pub const RESTART_STEP: Nanos = Nanos::from_millis(250);
/// So far those of another leg than the flow's, where that is vouched for by [`CONSISTENT_MIN`]
/// messages without a gap: a connection may give out in small portions what it held back. Who
/// forges so many messages holds a flow up for as long as with one a second.
pub const RESTART_STEP_MOVED: Nanos = Nanos::from_secs(1);
/// A flow idle for this long makes room for a newcomer when the table is full.
pub const EVICT_AFTER: Nanos = Nanos::from_secs(1);
/// A flow keeps its place in the order of idleness for this long, to save work on every message.
pub const REORDER_AFTER: Nanos = Nanos::from_millis(100);
/// A flow whose source has closed, and which is complete, makes room after this long: longer than
/// frames differ in delay by whatever links they come.
pub const CLOSED_REST: Nanos = Nanos::from_millis(100);
/// A flow whose source has closed is forgotten after this long, if it was silent since.
pub const CLOSED_LINGER: Nanos = Nanos::from_secs(10);
/// Flows looked at for one that has closed and may go.
pub const CLOSED_LOOKS: u32 = 16;
/// Most places looked at in one look-up.
pub const PROBES_MAX: usize = 64;

const NONE: u32 = u32::MAX;

/// Names one flow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FlowKey {
    /// Runtime of the source.
    pub host: HostId,
    /// Which life of that runtime.
    pub incarnation: Incarnation,
    /// The source.
    pub source: SourceId,
    /// The stream.
    pub stream: StreamKey,
}

/// Where a flow stands in the table, for who receives it again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowPlace {
    at: u32,
    /// On which leg its messages come.
    leg: Leg,
    /// Flows that had been removed from the table by then.
    removed: u64,
}

/// What is done with a completed message.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Release it. `lost` sequence numbers before it will never be released.
    New {
        /// How many.
        lost: u64,
    },
    /// It is of the past: release it to the sinks that joined after the first so many.
    Past {
        /// As [`FlowTable::sink_joined`] counted them.
        after: u64,
    },
    /// Keep it: it goes on a later leg than the flow, and others are missing before it.
    Ahead,
    /// Drop it: seen before.
    Duplicate,
    /// Drop it: older than what was released.
    Late,
    /// Drop it: its sequence is absurdly far ahead, and nothing confirms it yet.
    Suspect,
    /// Drop it: the table has no room for another flow.
    NoRoom,
}

/// What the table counts as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowCounters {
    /// Flows that made room for a newcomer.
    pub evicted: u64,
    /// Flows forgotten because they were idle ([`FlowTable::expire`]).
    pub expired: u64,
    /// Flows that made room, or were forgotten, because their source had closed.
    pub closed: u64,
    /// Newcomers refused.
    pub refused: u64,
    /// Messages whose sequence was absurdly far ahead.
    pub suspects: u64,
    /// Flows that went on at another sequence because several messages agreed on it.
    pub restarts: u64,
}

/// One flow, as reports show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlowStatus {
    /// Which.
    pub key: FlowKey,
    /// Newest sequence released.
    pub newest: u64,
    /// Sequence numbers lost so far.
    pub lost: u64,
    /// When a message was last released.
    pub released_at: MonoTime,
}

#[derive(Clone, Copy)]
struct Flow {
    key: FlowKey,
    newest: u64,
    lost: u64,
    /// Bit `i`: message `newest - i` was seen.
    seen: u128,
    released_at: MonoTime,
    /// When the flow was last put in front of the order, or closed.
    ordered_at: MonoTime,
    /// Sinks that had joined when the newest message was released.
    heard_by: u64,
    /// The newest message of the past that was released behind the newest one, and how many
    /// sinks had joined by then; 0: none was.
    past: u64,
    past_heard_by: u64,
    /// The lower half of the newest of the unlikely sequences that agree, when that came in
    /// units of 2^20 ns, how many there are, and whether they are late, not far ahead.
    unlikely: u32,
    unlikely_at: u32,
    unlikely_count: u8,
    unlikely_is_late: bool,
    /// On which leg its messages come.
    leg: Leg,
    /// It is in the order of those whose source has closed.
    closed: bool,
    /// The lower half of the number of its last message, if so.
    last: u32,
    newer: u32,
    older: u32,
}

/// Ends of a doubly linked list through the flows.
#[derive(Clone, Copy)]
struct Order {
    newest: u32,
    oldest: u32,
}

impl Order {
    const EMPTY: Order = Order { newest: NONE, oldest: NONE };
}

/// One place of the index: a part of the hash, to rarely look at a wrong flow.
#[derive(Clone, Copy)]
struct Place {
    tag: u32,
    flow: u32,
}

const EMPTY: Place = Place { tag: 0, flow: NONE };

/// The flows that this runtime receives. See the module for the rules.
pub struct FlowTable {
    flows: Box<[Flow]>,
    index: Box<[Place]>,
    seed: u64,
    live: usize,
    /// Chain of unused flows, linked by `older`.
    unused: u32,
    /// The order of idleness.
    open: Order,
    /// Those whose source has closed, in the order of that.
    closed: Order,
    /// Counts removals: no flow has moved since.
    removed: u64,
    /// Sinks that have joined so far.
    sinks: u64,
    counters: FlowCounters,
}

impl FlowTable {
    /// A table for up to `capacity` flows. `seed` should be random: it keeps senders from
    /// choosing names that collide in the index.
    ///
    /// # Panics
    /// If `capacity` is 0 or above 2^24.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Self {
        assert!((1..=1 << 24).contains(&capacity), "a flow table holds 1 to 2^24 flows");
        let unused = Flow {
            key: FlowKey { host: HostId(0), incarnation: Incarnation(0), source: SourceId(0), stream: StreamKey(0) },
            newest: 0,
            lost: 0,
            seen: 0,
            released_at: MonoTime(0),
            ordered_at: MonoTime(0),
            heard_by: 0,
            past: 0,
            past_heard_by: 0,
            unlikely: 0,
            unlikely_at: 0,
            unlikely_count: 0,
            unlikely_is_late: false,
            leg: Leg::FIRST,
            closed: false,
            last: 0,
            newer: NONE,
            older: NONE,
        };
        let mut flows = vec![unused; capacity].into_boxed_slice();
        for (at, flow) in flows.iter_mut().enumerate().take(capacity - 1) {
            flow.older = at as u32 + 1;
        }
        let places = (capacity * 2).next_power_of_two();
        FlowTable {
            flows,
            index: vec![EMPTY; places].into_boxed_slice(),
            seed,
            live: 0,
            unused: 0,
            open: Order::EMPTY,
            closed: Order::EMPTY,
            removed: 0,
            sinks: 0,
            counters: FlowCounters::default(),
        }
    }

    /// One more sink gets what is released from now on. Returns how many have joined: the
    /// number by which [`Verdict::Past`] knows it.
    pub const fn sink_joined(&mut self) -> u64 {
        self.sinks += 1;
        self.sinks
    }

    /// Decides over a completed message; remembers it as seen. `is_past`: whether it says
    /// that it is of the past; asked only where that matters.
    #[inline]
    pub fn classify(&mut self, now: MonoTime, key: &FlowKey, sequence: u64, is_past: impl FnOnce() -> bool) -> Verdict {
        let hash = self.hash(key);
        match self.find(hash, key) {
            Some(at) => self.classify_flow(now, at, (sequence, self.flows[at as usize].leg), is_past),
            None => self.admit(now, hash, key, sequence),
        }
    }

    /// As [`classify`](Self::classify), of a message that goes on this leg.
    #[inline]
    pub fn classify_on(
        &mut self,
        now: MonoTime,
        key: &FlowKey,
        (sequence, leg): (u64, Leg),
        is_past: impl FnOnce() -> bool,
    ) -> Verdict {
        let hash = self.hash(key);
        let Some(at) = self.find(hash, key) else {
            let verdict = self.admit(now, hash, key, sequence);
            if let Some(at) = self.find(hash, key) {
                self.flows[at as usize].leg = leg;
            }
            return verdict;
        };
        let flow = &mut self.flows[at as usize];
        if leg != flow.leg && flow.waits(sequence, leg) {
            return Verdict::Ahead;
        }
        self.classify_flow(now, at, (sequence, leg), is_past)
    }

    /// A fence came: `last` was the last message of a leg. `is_certain`: whatever of the leg
    /// comes at all came before the fence. Whether the flow is on a later leg now, so that
    /// what was kept may be asked for again.
    pub fn end_leg(&mut self, key: &FlowKey, leg: Leg, last: u64, is_certain: bool) -> bool {
        let Some(at) = self.find(self.hash(key), key) else { return false };
        let flow = &mut self.flows[at as usize];
        let is_over = is_certain && leg == flow.leg || flow.newest >= last;
        if !is_over || !leg.next().is_ahead_of(flow.leg) {
            return false;
        }
        flow.leg = leg.next();
        true
    }

    /// Nobody waits any longer for what is missing before this leg.
    pub fn go_on_to(&mut self, key: &FlowKey, leg: Leg) {
        if let Some(at) = self.find(self.hash(key), key) {
            self.flows[at as usize].leg = leg;
        }
    }

    /// Where a flow is, if it is known, for its messages that go on this leg.
    #[must_use]
    pub fn place(&self, key: &FlowKey, leg: Leg) -> Option<FlowPlace> {
        self.find(self.hash(key), key).map(|at| FlowPlace { at, leg, removed: self.removed })
    }

    /// As [`classify`](Self::classify), without a look-up. `None`: the flow may be somewhere
    /// else by now, or gone.
    #[inline]
    pub fn classify_at(
        &mut self,
        now: MonoTime,
        place: FlowPlace,
        sequence: u64,
        is_past: impl FnOnce() -> bool,
    ) -> Option<Verdict> {
        (place.removed == self.removed).then(|| self.classify_flow(now, place.at, (sequence, place.leg), is_past))
    }

    #[inline]
    fn classify_flow(&mut self, now: MonoTime, at: u32, on: (u64, Leg), is_past: impl FnOnce() -> bool) -> Verdict {
        let flow = &mut self.flows[at as usize];
        let verdict = flow.classify(now, on, self.sinks, &mut self.counters, is_past);
        if matches!(verdict, Verdict::New { .. }) && now.since(flow.ordered_at) >= REORDER_AFTER {
            self.reorder(now, at);
        }
        verdict
    }

    /// The source of a flow says that it has closed, and that `next` is the number behind its
    /// last message. Whether that can be; said again it changes nothing.
    pub fn close(&mut self, now: MonoTime, key: &FlowKey, next: u64) -> bool {
        let Some(at) = self.find(self.hash(key), key) else { return false };
        let flow = &self.flows[at as usize];
        let Some(last) =
            next.checked_sub(1).filter(|last| (flow.newest..=flow.newest.saturating_add(JUMP_MAX)).contains(last))
        else {
            return false;
        };
        if flow.closed && flow.last == last as u32 {
            return true;
        }
        self.unlink(at);
        let flow = &mut self.flows[at as usize];
        (flow.closed, flow.last) = (true, last as u32);
        self.link_newest(now, at);
        true
    }

    /// A flow that released something is not idle; one that has closed waits, by now, for no more
    /// than its last message.
    #[inline(never)]
    fn reorder(&mut self, now: MonoTime, at: u32) {
        let flow = &self.flows[at as usize];
        if !flow.closed || !flow.is_complete() {
            self.reopen(now, at);
        }
    }

    /// The flow that gives way first of those whose source has closed.
    fn closed_that_may_go(&mut self, now: MonoTime) -> Option<u32> {
        let mut at = self.closed.oldest;
        for _ in 0..CLOSED_LOOKS {
            let flow = self.flows.get(at as usize)?;
            let (newer, closed_for) = (flow.newer, now.since(flow.ordered_at));
            if flow.is_behind_its_end() {
                self.reopen(now, at);
            } else if closed_for < CLOSED_REST {
                return None;
            } else if flow.is_complete() || closed_for.min(now.since(flow.released_at)) >= EVICT_AFTER {
                return Some(at);
            } else if flow.released_at > flow.ordered_at {
                // It goes on: passed over it would stand here again and again.
                self.reopen(now, at);
            }
            at = newer;
        }
        None
    }

    /// Whether a message that is not complete yet is worth collecting: false if
    /// [`FlowTable::classify`] would drop it as a duplicate or as late, and not count it.
    #[must_use]
    #[inline]
    pub fn expects(&self, now: MonoTime, key: &FlowKey, sequence: u64, is_past: impl FnOnce() -> bool) -> bool {
        let Some(at) = self.find(self.hash(key), key) else { return true };
        let flow = &self.flows[at as usize];
        if sequence <= flow.newest && is_past() {
            return flow.past_after(sequence) < self.sinks;
        }
        sequence > flow.newest || (!flow.has_seen(sequence) && flow.late_for(now) >= RESTART_STEP)
    }

    /// Forgets up to `budget` flows that released nothing for `timeout`. Returns how many.
    /// A flow may be kept up to [`REORDER_AFTER`] longer. One whose source has closed is forgotten
    /// after [`CLOSED_LINGER`]; or, if it released something meanwhile, has not closed.
    pub fn expire(&mut self, now: MonoTime, timeout: Nanos, budget: u32) -> u32 {
        let mut done = 0;
        for _ in 0..budget {
            let Some(flow) = self.flows.get(self.closed.oldest as usize) else { break };
            if now.since(flow.ordered_at) < CLOSED_LINGER {
                break;
            }
            let at = self.closed.oldest;
            if now.since(flow.released_at) < CLOSED_LINGER {
                self.reopen(now, at);
                continue;
            }
            self.remove(at);
            self.counters.closed += 1;
            done += 1;
        }
        while done < budget {
            let oldest = self.open.oldest;
            if oldest == NONE || now.since(self.flows[oldest as usize].released_at) < timeout {
                break;
            }
            self.remove(oldest);
            self.counters.expired += 1;
            done += 1;
        }
        done
    }

    /// Forgets all flows of `host` but those of the lives that `keeps` names; called when a peer
    /// has restarted or left. Walks the whole table.
    pub fn retire_host(&mut self, host: HostId, keeps: impl Fn(Incarnation) -> bool) {
        for mut at in [self.open.oldest, self.closed.oldest] {
            while at != NONE {
                let flow = &self.flows[at as usize];
                let newer = flow.newer;
                if flow.key.host == host && !keeps(flow.key.incarnation) {
                    self.remove(at);
                }
                at = newer;
            }
        }
    }

    /// Flows in the table.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.live
    }

    /// Whether the table holds no flow.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// What the table counted.
    #[must_use]
    pub const fn counters(&self) -> FlowCounters {
        self.counters
    }

    /// All flows, those idle longest first; behind them those whose source has closed.
    pub fn iter(&self) -> impl Iterator<Item = FlowStatus> {
        let (mut at, mut then) = (self.open.oldest, self.closed.oldest);
        core::iter::from_fn(move || {
            if at == NONE {
                at = core::mem::replace(&mut then, NONE);
            }
            let flow = self.flows.get(at as usize)?;
            at = flow.newer;
            Some(FlowStatus { key: flow.key, newest: flow.newest, lost: flow.lost, released_at: flow.released_at })
        })
    }

    /// The first message of a flow.
    #[cold]
    fn admit(&mut self, now: MonoTime, hash: u64, key: &FlowKey, sequence: u64) -> Verdict {
        if self.unused == NONE && !self.make_room(now) {
            self.counters.refused += 1;
            return Verdict::NoRoom;
        }
        let at = self.unused;
        if !self.insert(hash, at) {
            self.counters.refused += 1;
            return Verdict::NoRoom;
        }
        let flow = &mut self.flows[at as usize];
        self.unused = flow.older;
        flow.start(now, key, sequence, self.sinks);
        self.link_newest(now, at);
        self.live += 1;
        Verdict::New { lost: 0 }
    }

    /// Takes a place from a flow that may go.
    fn make_room(&mut self, now: MonoTime) -> bool {
        if let Some(closed) = self.closed_that_may_go(now) {
            self.remove(closed);
            self.counters.closed += 1;
            return true;
        }
        let oldest = self.open.oldest;
        let Some(flow) = self.flows.get(oldest as usize) else { return false };
        if now.since(flow.released_at) < EVICT_AFTER {
            return false;
        }
        self.remove(oldest);
        self.counters.evicted += 1;
        true
    }

    fn remove(&mut self, at: u32) {
        self.unlink(at);
        self.erase(at);
        self.flows[at as usize].older = self.unused;
        self.unused = at;
        self.live -= 1;
        self.removed += 1;
    }

    // The orders: doubly linked lists through the flows, each of which is in one of them.

    const fn order(&mut self, closed: bool) -> &mut Order {
        if closed { &mut self.closed } else { &mut self.open }
    }

    fn link_newest(&mut self, now: MonoTime, at: u32) {
        let closed = self.flows[at as usize].closed;
        let second = core::mem::replace(&mut self.order(closed).newest, at);
        let flow = &mut self.flows[at as usize];
        flow.ordered_at = now;
        (flow.newer, flow.older) = (NONE, second);
        match self.flows.get_mut(second as usize) {
            Some(second) => second.newer = at,
            None => self.order(closed).oldest = at,
        }
    }

    fn unlink(&mut self, at: u32) {
        let Flow { newer, older, closed, .. } = self.flows[at as usize];
        match self.flows.get_mut(newer as usize) {
            Some(flow) => flow.older = older,
            None => self.order(closed).newest = older,
        }
        match self.flows.get_mut(older as usize) {
            Some(flow) => flow.newer = newer,
            None => self.order(closed).oldest = newer,
        }
    }

    /// A flow released something; if it was said to have closed, it has not.
    fn reopen(&mut self, now: MonoTime, at: u32) {
        self.unlink(at);
        self.flows[at as usize].closed = false;
        self.link_newest(now, at);
    }

    // The index: open addressing with linear probing, at most half full. Removal closes
    // the gap, so that no tombstones pile up.

    #[inline]
    fn hash(&self, key: &FlowKey) -> u64 {
        let hash = fold(key.host.0 ^ self.seed, key.stream.0 ^ 0x9e37_79b9_7f4a_7c15);
        fold(hash ^ key.incarnation.0, u64::from(key.source.0) ^ self.seed.rotate_left(32) ^ 0xd6e8_feb8_6659_fd93)
    }

    #[inline]
    fn find(&self, hash: u64, key: &FlowKey) -> Option<u32> {
        let mask = self.index.len() - 1;
        for probe in 0..PROBES_MAX {
            let place = self.index[(hash as usize).wrapping_add(probe) & mask];
            if place.flow == NONE {
                return None;
            }
            if place.tag == tag(hash) && self.flows[place.flow as usize].key == *key {
                return Some(place.flow);
            }
        }
        None
    }

    fn insert(&mut self, hash: u64, flow: u32) -> bool {
        let mask = self.index.len() - 1;
        for probe in 0..PROBES_MAX {
            let place = &mut self.index[(hash as usize).wrapping_add(probe) & mask];
            if place.flow == NONE {
                *place = Place { tag: tag(hash), flow };
                return true;
            }
        }
        false
    }

    fn erase(&mut self, flow: u32) {
        let mask = self.index.len() - 1;
        let start = self.hash(&self.flows[flow as usize].key) as usize;
        let Some(mut gap) =
            (0..PROBES_MAX).map(|probe| start.wrapping_add(probe) & mask).find(|at| self.index[*at].flow == flow)
        else {
            return;
        };
        let mut at = gap;
        // Ends at the first empty place; the index is at most half full, so there is one.
        loop {
            at = (at + 1) & mask;
            let place = self.index[at];
            if place.flow == NONE {
                break;
            }
            let home = self.hash(&self.flows[place.flow as usize].key) as usize & mask;
            // Move it into the gap unless its home lies behind the gap.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.index[gap] = place;
                gap = at;
            }
        }
        self.index[gap] = EMPTY;
    }
}

impl Flow {
    /// Whether a message of another leg than the flow's is to be kept. The next one of a
    /// later leg takes the flow there, and so does one beyond the newest of a leg that seems to
    /// lie behind: its source has moved more often than can be told, or counts its legs anew.
    #[cold]
    fn waits(&mut self, sequence: u64, leg: Leg) -> bool {
        let step = sequence.wrapping_sub(self.newest);
        if step == 0 || step > JUMP_MAX {
            return false;
        }
        let may_have_overtaken = step > 1 && leg.is_ahead_of(self.leg);
        if !may_have_overtaken {
            self.leg = leg;
        }
        may_have_overtaken
    }

    /// Whether nothing more is to come, if its source has closed.
    const fn is_complete(&self) -> bool {
        self.newest as u32 == self.last
    }

    /// Whether it released something that was not to come, if its source has closed.
    const fn is_behind_its_end(&self) -> bool {
        (self.last.wrapping_sub(self.newest as u32) as i32) < 0
    }

    fn start(&mut self, now: MonoTime, key: &FlowKey, sequence: u64, sinks: u64) {
        self.key = *key;
        self.lost = 0;
        self.closed = false;
        self.restart(now, sequence, sinks);
    }

    fn restart(&mut self, now: MonoTime, sequence: u64, sinks: u64) {
        self.newest = sequence;
        self.seen = 1;
        self.released_at = now;
        self.heard_by = sinks;
        (self.past, self.past_heard_by) = (0, 0);
        self.unlikely_count = 0;
    }

    #[inline]
    fn classify(
        &mut self,
        now: MonoTime,
        (sequence, leg): (u64, Leg),
        sinks: u64,
        counters: &mut FlowCounters,
        is_past: impl FnOnce() -> bool,
    ) -> Verdict {
        if sequence > self.newest {
            let step = sequence - self.newest;
            if step <= JUMP_MAX {
                self.heard_by = sinks;
                return self.advance(now, sequence, step);
            }
            counters.suspects += 1;
            return self.unlikely(now, (sequence, leg), sinks, Verdict::Suspect, counters);
        }
        if is_past() {
            return self.look_back(sequence, sinks);
        }
        let behind = self.newest - sequence;
        if behind < WINDOW {
            let bit = 1 << behind;
            let was_seen = self.seen & bit != 0;
            self.seen |= bit;
            if was_seen {
                return Verdict::Duplicate;
            }
        }
        if self.late_for(now) < self.restart_step(leg) {
            return Verdict::Late;
        }
        self.unlikely(now, (sequence, leg), sinks, Verdict::Late, counters)
    }

    /// A message of the past that is not newer than the newest: for sinks that got neither
    /// that, nor a newer one of the past.
    #[cold]
    fn look_back(&mut self, sequence: u64, sinks: u64) -> Verdict {
        let after = self.past_after(sequence);
        if after >= sinks {
            return Verdict::Duplicate;
        }
        if sequence == self.newest {
            // The past is complete: every sink has the newest message.
            self.heard_by = sinks;
            return Verdict::Past { after };
        }
        self.past = if self.past_heard_by > self.heard_by { self.past.max(sequence) } else { sequence };
        self.past_heard_by = sinks;
        Verdict::Past { after }
    }

    /// How many sinks have it already, or something newer.
    fn past_after(&self, sequence: u64) -> u64 {
        // What went to sinks of the past is of no account once they all got a newer message.
        if sequence <= self.past { self.heard_by.max(self.past_heard_by) } else { self.heard_by }
    }

    #[inline]
    fn advance(&mut self, now: MonoTime, sequence: u64, step: u64) -> Verdict {
        self.seen = if step < WINDOW { self.seen << step | 1 } else { 1 };
        self.newest = sequence;
        self.released_at = now;
        self.unlikely_count = 0;
        self.lost += step - 1;
        Verdict::New { lost: step - 1 }
    }

    fn has_seen(&self, sequence: u64) -> bool {
        let behind = self.newest.wrapping_sub(sequence);
        behind < WINDOW && self.seen & 1 << behind != 0
    }

    /// For how long nothing was released, and no late message counted for a restart.
    #[inline]
    fn late_for(&self, now: MonoTime) -> Nanos {
        let quiet = now.since(self.released_at);
        if self.unlikely_count == 0 || !self.unlikely_is_late {
            return quiet;
        }
        // An idle flow is forgotten long before this comes around.
        let units = coarse(now).wrapping_sub(self.unlikely_at) as i32;
        quiet.min(Nanos((units.max(0) as u64) << COARSE_BITS))
    }

    /// How far apart the late messages of a leg have to be.
    fn restart_step(&self, leg: Leg) -> Nanos {
        const VOUCHED: u128 = (1 << CONSISTENT_MIN) - 1;
        let has_moved = leg != self.leg && self.seen & VOUCHED == VOUCHED;
        if has_moved { RESTART_STEP_MOVED } else { RESTART_STEP }
    }

    /// A sequence that nobody would expect: believed once enough of them agree.
    #[cold]
    fn unlikely(
        &mut self,
        now: MonoTime,
        (sequence, leg): (u64, Leg),
        sinks: u64,
        otherwise: Verdict,
        counters: &mut FlowCounters,
    ) -> Verdict {
        let is_late = otherwise == Verdict::Late;
        let step_max = if is_late { JUMP_MAX } else { CONSISTENT_STEP };
        let step = u64::from((sequence as u32).wrapping_sub(self.unlikely));
        let is_alike = self.unlikely_count > 0 && self.unlikely_is_late == is_late;
        let agrees = is_alike && (1..=step_max).contains(&step);
        self.unlikely_count = if agrees { self.unlikely_count + 1 } else { 1 };
        (self.unlikely, self.unlikely_at, self.unlikely_is_late) = (sequence as u32, coarse(now), is_late);
        if self.unlikely_count < CONSISTENT_MIN {
            return otherwise;
        }
        self.restart(now, sequence, sinks);
        self.leg = leg;
        counters.restarts += 1;
        Verdict::New { lost: 0 }
    }
}

const COARSE_BITS: u32 = 20;

const fn coarse(now: MonoTime) -> u32 {
    (now.0 >> COARSE_BITS) as u32
}

const fn tag(hash: u64) -> u32 {
    (hash >> 32) as u32
}

const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128).wrapping_mul(b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

const _: () = assert!(size_of::<Flow>() == 128);
const _: () = assert!(WINDOW == u128::BITS as u64);
