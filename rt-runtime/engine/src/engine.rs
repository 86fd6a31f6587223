//! The engine itself: its parts, and the turn.

use crate::command::{Command, Dead, Port, Topic};
use crate::deliver::{DomainParts, Outlets};
use crate::doorbells::{Doorbells, REST};
use crate::inflow::Inflows;
use crate::links::Links;
use crate::receive::{Intake, Receiver};
use crate::routes::{Hops, RouteIndex, Way};
use crate::transmit::{Said, SlotConfig, Transmitter, slots_of};
use crate::turn::Turn;
use crate::waker::WakeQueue;
use crate::{COMMANDS_PER_TURN, FRAMES_PER_TURN, ROUTES_MAX, SOURCES_MAX};
use insane_core::counters::TurnCounter;
use insane_core::time::Clock;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, PeerIndex, SessionId};
use insane_link::Link;
use insane_overlay::reliable;
use insane_scheduler::Limits;
use insane_shm::counters::CounterBlock;
use insane_shm::trace::TurnRecord;
use insane_sys::event::Ready;
use insane_wire::data::HEADER_BYTES;
use std::num::NonZeroU32;
use std::sync::Arc;

/// Messages moved by rings since the last frame came in, above which kernel sockets
/// are asked only every [`SOCKET_STRIDE`] turns: a relay between local applications
/// must not pay a system call a turn.
const RING_RUN: u32 = 64;
/// See [`RING_RUN`]. At 20 to 50 ns a turn this is 5 to 13 us.
const SOCKET_STRIDE: u64 = 256;
/// Turns without any work after which a datapath that may sleep no longer turns for what waits for
/// room at a link: some hundred microseconds, longer than a socket of the host needs to be emptied
/// by who reads it.
const NAPS_AFTER: u32 = 256;
/// Between two looks for that room.
const NAP: Nanos = Nanos::from_micros(100);
/// Every how many turns the link looks at all of its sockets.
const THOROUGH_STRIDE: u32 = 16;
/// Every how many turns housekeeping looks at the clock.
pub(crate) const HOUSEKEEPING_STRIDE: u64 = 1024;
/// Housekeeping is done this often.
const HOUSEKEEPING_PERIOD: Nanos = Nanos::from_millis(10);

/// Numbers of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineConfig {
    /// This runtime on the wire.
    pub host: HostId,
    /// This life of it.
    pub incarnation: Incarnation,
    /// Remote sources remembered.
    pub flows: usize,
    /// Fragmented messages collected at once, 1 to 256.
    pub reassemblies: usize,
    /// Largest message that is reassembled, bytes.
    pub message_bytes_max: u32,
    /// Bytes of a best-effort chunk: what a real-time message may have to wait for.
    pub chunk_bytes: NonZeroU32,
    /// The reliable contract between hosts.
    pub reliable: reliable::Limits,
    /// Reliable local sources; each takes about 20 KB.
    pub reliable_sources: usize,
    /// Reliable remote sources that are received.
    pub reliable_flows: usize,
    /// What is known of the links in time; without it there are no slots.
    pub slots: Option<SlotConfig>,
}

impl EngineConfig {
    /// What an engine has room for unless its planner says otherwise.
    #[must_use]
    pub fn new(host: HostId, incarnation: Incarnation) -> Self {
        EngineConfig {
            host,
            incarnation,
            flows: 1024,
            reassemblies: 16,
            message_bytes_max: insane_core::limits::MESSAGE_BYTES_MAX,
            chunk_bytes: const { NonZeroU32::new(16 * 1024).unwrap() },
            reliable: reliable::Limits::default(),
            reliable_sources: 64,
            reliable_flows: 256,
            slots: None,
        }
    }
}

/// What an engine is made of; all memory is taken before [`Engine::new`] returns.
#[derive(Debug)]
pub struct EngineParts<L> {
    /// Its links, at most [`LINKS_MAX`](insane_core::limits::LINKS_MAX).
    pub links: Vec<L>,
    /// By which link each peer is reached: `link_of_peer[i]` is of `PeerIndex(i)`.
    pub link_of_peer: Vec<Option<usize>>,
    /// One for each domain of the configuration, in its order.
    pub domains: Vec<DomainParts>,
    /// What the datapath counts as a whole.
    pub counters: CounterBlock,
    /// The way to and from the control plane.
    pub port: Arc<Port>,
    /// Who makes wake-ups that a turn has no time for; without one they wait for the next
    /// turns.
    pub waker: Option<Arc<WakeQueue>>,
}

/// What a turn did, for who takes a trace. While nobody does, what is rare is written where it
/// happens and never taken back.
#[derive(Clone, Copy, Debug, Default)]
struct Deeds {
    messages: u32,
    frames: u32,
    took_commands: bool,
    woke: bool,
}

/// The datapath engine. See the crate's documentation.
pub struct Engine<L: Link, C: Clock> {
    clock: C,
    config: EngineConfig,
    links: Links<L>,
    transmitter: Transmitter,
    receiver: Receiver,
    outlets: Outlets,
    counters: CounterBlock,
    port: Arc<Port>,
    turns: u64,
    receives: u32,
    ring_run: u32,
    idle_run: u32,
    housekept_at: MonoTime,
    /// When the clock was last looked at.
    looked_at: MonoTime,
    /// A link has something under way, and wants to be tended soon.
    is_tending: bool,
    /// Links that hand out one frame in the next turn, a bit each, if messages are kept then.
    limited: u8,
    /// The host sleeps until a descriptor is readable.
    is_watching: bool,
    /// Those of the sessions that have sources here, if the host sleeps.
    doorbells: Doorbells,
    /// Number of the turn before which it slept.
    woke_at: u64,
    deeds: Deeds,
    /// The next turn has more to look at than sources and links.
    has_more: bool,
}

/// Whether messages that came or went left something that the next turn has to look at besides
/// sources and links.
#[inline]
fn has_more<L: Link>(links: &Links<L>, receiver: &Receiver, outlets: &Outlets) -> bool {
    links.unsent
        || receiver.inflows.is_waiting()
        || receiver.is_holding()
        || outlets.wakes.is_pending()
        || outlets.wakes.has_put_off()
}

impl<L: Link, C: Clock> Engine<L, C> {
    /// An engine without sources and sinks.
    ///
    /// # Panics
    /// With more than [`LINKS_MAX`](insane_core::limits::LINKS_MAX) links, or with slots that are handed over ahead
    /// (`lead_ns`) and a link that honours no launch times.
    #[must_use]
    pub fn new(config: EngineConfig, parts: EngineParts<L>, clock: C) -> Self {
        let links = Links::new(parts.links, &parts.link_of_peer);
        for (at, link) in links.links.iter().enumerate() {
            parts.port.name_link_counts(at, link.link_counts().names());
        }
        let hands_ahead = config.slots.is_some_and(|slots| slots.timing.lead_ns > 0);
        let launches = |link: &L| link.capabilities().launch_time;
        assert!(!hands_ahead || links.links.iter().all(launches), "frames go ahead only where they are held back");
        // Where bytes are counted as they are on the link, frames are so much larger.
        let overhead = config.slots.map_or(0, |slots| slots.overhead_bytes);
        let frame = links.payload_bytes_max() + HEADER_BYTES as u32 + overhead;
        let frame = NonZeroU32::new(frame).unwrap_or(NonZeroU32::MIN);
        let limits = Limits::new(config.chunk_bytes.max(frame).get(), frame.get()).unwrap_or_default();
        let own = (config.host, config.incarnation);
        let inflows = Inflows::new(own, config.reliable, config.reliable_flows);
        let seed = config.host.0 ^ config.incarnation.0.rotate_left(32);
        Engine {
            links,
            transmitter: Transmitter::new(
                own,
                limits,
                config.reliable,
                config.reliable_sources,
                config.slots.map(|slots| {
                    let logs =
                        (parts.port.open_slot_log(), Arc::clone(parts.port.epsilons()), parts.port.take_misses());
                    slots_of(slots, limits, &parts.counters, logs)
                }),
            ),
            receiver: Receiver::new(
                (config.flows, seed),
                (config.reassemblies, config.message_bytes_max),
                inflows,
                &config.reliable,
            ),
            outlets: Outlets::new(ROUTES_MAX, parts.domains, parts.waker),
            counters: parts.counters,
            doorbells: Doorbells::new(SOURCES_MAX, Arc::clone(parts.port.doorbells())),
            woke_at: 0,
            port: parts.port,
            turns: 0,
            receives: 0,
            ring_run: 0,
            idle_run: 0,
            housekept_at: clock.now(),
            looked_at: clock.now(),
            is_tending: false,
            limited: 0,
            is_watching: false,
            deeds: Deeds::default(),
            has_more: true,
            clock,
            config,
        }
    }

    /// One bounded turn. Says whether it moved anything.
    #[inline(always)]
    pub fn turn(&mut self) -> bool {
        self.turns += 1;
        // Most turns have sources and links to look at, and nothing else. One flag says so,
        // where a look at each of the others would cost half of such a turn.
        if self.has_more | self.turns.is_multiple_of(HOUSEKEEPING_STRIDE) | self.port.has_commands() {
            self.turn_in_full()
        } else {
            self.turn_as::<true>()
        }
    }

    #[inline(never)]
    fn turn_in_full(&mut self) -> bool {
        self.turn_as::<false>()
    }

    /// A turn; `PLAIN`: nothing but sources and links has something to do as it begins
    /// ([`has_more`](Self::has_more) is false), so what is left out is without effect.
    #[inline(always)]
    fn turn_as<const PLAIN: bool>(&mut self) -> bool {
        let is_sampled = !PLAIN && self.turns.is_multiple_of(HOUSEKEEPING_STRIDE);
        let is_measured = !PLAIN && is_sampled | self.transmitter.trace.is_on();
        let started = if is_measured { Some(self.clock.now()) } else { None };
        let mut worked = !PLAIN && self.port.has_commands() && self.take_commands();
        let Engine { clock, links, receiver, outlets, counters, port, transmitter, deeds, .. } = self;
        let turn = Turn::new(clock, self.looked_at);
        if !PLAIN && links.unsent {
            // What found no room in an earlier turn: nobody may have sent anything since.
            links.flush();
        }
        // Sources first: with inline hosting a turn follows each emit, and what was emitted
        // must not wait for a look at the sockets.
        let moved = transmitter.run::<PLAIN, L, C>(&turn, links, outlets, port);
        self.ring_run = self.ring_run.saturating_add(moved);
        worked |= moved > 0;
        if !PLAIN {
            deeds.messages = moved;
        }
        // Links that may have more, a bit each.
        let mut rest = u8::MAX;
        let is_holding = !PLAIN && receiver.is_holding();
        let is_due = self.ring_run < RING_RUN || is_holding || self.turns.is_multiple_of(SOCKET_STRIDE);
        if !links.links.is_empty() && is_due {
            self.receives = self.receives.wrapping_add(1);
            // What is missing may be there already, at whatever socket.
            let thorough = is_holding || self.receives.is_multiple_of(THOROUGH_STRIDE);
            let limited = if is_holding { self.limited } else { 0 };
            let (mut frames, mut more) = (0, 0);
            for (by, (link, is_ordered)) in links.links.iter_mut().zip(links.ordered).enumerate() {
                // One and not none: real time that comes there goes first, and every turn.
                let budget = if limited >> by & 1 == 0 { FRAMES_PER_TURN } else { 1 };
                let from = (by, is_ordered);
                let mut intake = Intake { turn: &turn, receiver, transmitter, outlets, port, counters, by: from };
                let received = link.receive(budget, thorough, &mut intake);
                more |= u8::from(received >= budget) << by;
                frames += received;
            }
            if thorough {
                rest = more;
            }
            if frames > 0 {
                self.ring_run = 0;
                if !PLAIN {
                    deeds.frames = frames;
                }
                worked = true;
            }
        }
        let (seen, about_now) = (turn.seen(), turn.about_now());
        self.looked_at = about_now;
        // What is not plain comes of messages that moved, if not of commands.
        if !PLAIN || (worked && has_more(links, receiver, outlets)) {
            worked |= self.end_in_full(seen, rest);
        }
        if let Some(started) = started {
            self.end_measured(started);
        } else if self.looked_at.since(self.housekept_at) >= HOUSEKEEPING_PERIOD {
            // Who turns seldom would wait for long until the turn that is measured.
            self.housekeeping();
        }
        self.count_turn(worked);
        worked
    }

    /// What a turn looks at behind sources and links, where there is anything. `seen`: the
    /// turn's look at the clock; `rest`: links that may have more, a bit each.
    #[inline(never)]
    fn end_in_full(&mut self, seen: Option<MonoTime>, rest: u8) -> bool {
        let Engine { clock, links, receiver, outlets, port, transmitter, .. } = self;
        let turn = Turn::resumed(clock, self.looked_at, seen);
        if receiver.inflows.is_waiting() {
            let now = receiver.seen(turn.now());
            let said = receiver.inflows.serve(now, links, outlets, port);
            transmitter.note_reports(|| turn.now(), said);
        }
        if receiver.is_holding() {
            receiver.end_holds(turn.now(), rest == 0, outlets, port);
            self.limited = receiver.limited(links.links.len(), rest);
        }
        self.looked_at = turn.about_now();
        let woke = outlets.wake(self.looked_at);
        self.deeds.woke = woke;
        if self.transmitter.is_closing() {
            self.finish_closing();
        }
        self.has_more = self.transmitter.is_more_than_lanes() || has_more(&self.links, &self.receiver, &self.outlets);
        woke
    }

    /// The end of a turn that began at `started`.
    #[cold]
    #[inline(never)]
    fn end_measured(&mut self, started: MonoTime) {
        let is_sampled = self.turns.is_multiple_of(HOUSEKEEPING_STRIDE);
        let kept_house = is_sampled || self.looked_at.since(self.housekept_at) >= HOUSEKEEPING_PERIOD;
        if kept_house {
            self.housekeeping();
        }
        if is_sampled {
            // Up to the look at the clock with which housekeeping begins.
            self.counters.raise(TurnCounter::TurnNsMax as usize, self.looked_at.since(started).0);
        }
        if self.transmitter.trace.is_on() {
            let Deeds { messages, frames, took_commands, woke } = std::mem::take(&mut self.deeds);
            let (begins, ends) = (started, self.clock.now());
            let idle_before = 0;
            let turn = TurnRecord { begins, ends, messages, frames, took_commands, woke, kept_house, idle_before };
            self.transmitter.trace.turn(&turn);
        }
    }

    #[inline]
    fn count_turn(&mut self, worked: bool) {
        self.counters.add(TurnCounter::Turns as usize, 1);
        if worked {
            self.idle_run = 0;
        } else {
            self.counters.add(TurnCounter::TurnsIdle as usize, 1);
            self.idle_run = self.idle_run.saturating_add(1);
            if u64::from(self.idle_run) == SOCKET_STRIDE {
                // No ring is busy any more: sockets are asked every turn again.
                self.ring_run = 0;
            }
        }
    }

    /// What has no hurry: gives up what stands still, takes returned buffers back, lets
    /// links connect.
    /// Called by the turn now and then, and by hosts that sleep before they do.
    pub fn housekeeping(&mut self) {
        // It touches everything.
        self.has_more = true;
        let now = self.clock.now();
        self.looked_at = now;
        self.outlets.reclaim_one(&self.port);
        if self.doorbells.has_put_out() {
            self.doorbells.take_back(self.port.epoll(), now);
        }
        if now.since(self.housekept_at) >= HOUSEKEEPING_PERIOD {
            self.housekept_at = now;
            self.receiver.housekeeping(now, &mut self.outlets);
            self.is_tending = self.links.tend(now);
            if self.is_watching && self.links.take_new_fds() {
                self.links.watch(&self.port);
            }
            self.links.tell_counts(&self.port);
            let drops = self.links.launch_drops();
            if drops > 0 {
                self.counters.add(TurnCounter::LateLaunch as usize, drops);
            }
        }
    }

    /// Whether a source, the control plane or the memory of a link has something: the
    /// last look before sleeping. Sources that a turn does not look at are not looked at here
    /// either: their clients ring. What a link has had no room for, or could not let go, in
    /// 256 turns of which nothing came is none: [`sleep_max`](Self::sleep_max) bounds
    /// the sleep.
    #[must_use]
    pub fn has_work(&mut self) -> bool {
        let naps = self.naps();
        self.port.has_commands()
            || (self.links.are_holding() && !naps)
            || self.outlets.wakes.is_pending()
            || self.transmitter.has_work(self.links.payload_bytes_max(), naps && !self.transmitter.has_slots())
    }

    /// Whether all that there is to do waits for room at a link, and has for a while.
    fn naps(&self) -> bool {
        self.idle_run >= NAPS_AFTER
            && (self.links.are_holding() || (!self.transmitter.has_slots() && self.transmitter.is_stuck()))
    }

    /// The doorbell of a session ended a sleep, or kept it from beginning.
    pub fn note_ring(&mut self, session: SessionId) {
        self.transmitter.note_ring(session);
    }

    /// A sleep ended by its timeout.
    pub const fn note_silence(&mut self) {
        self.transmitter.note_silence();
    }

    /// Whether a link is setting something up, so that sleep must end in time to tend it.
    #[must_use]
    pub const fn is_tending(&self) -> bool {
        self.is_tending
    }

    /// Whether a reliable flow waits for a peer or a sink, or a stream is moving from one link
    /// to another, so that sleep must be short: the next heartbeat, the next look for room.
    #[must_use]
    pub fn is_repairing(&self) -> bool {
        self.receiver.inflows.is_waiting() || self.receiver.is_holding() || self.transmitter.is_waiting()
    }

    /// Whether a message is still arriving, or a sink waits to be woken until its session
    /// can pay, so that sleep must end in time.
    #[must_use]
    pub fn is_collecting(&self) -> bool {
        self.receiver.is_collecting() || self.outlets.wakes.has_put_off()
    }

    /// How long a sleep may be at most: frames of some link, messages of a session whose doorbell
    /// was put out, and room at a link come without a word. `None`: all tell.
    #[must_use]
    pub fn sleep_max(&self) -> Option<Nanos> {
        let rest = self.doorbells.has_put_out().then_some(REST);
        let nap = self.naps().then_some(NAP);
        self.links.sleep_max().into_iter().chain(rest).chain(nap).min()
    }

    /// The last thing before a sleep: whoever ended the one before with nothing to say pays for
    /// it. False: somebody cannot, and the sleep is to be shorter than it would have been.
    pub fn settle_doorbells(&mut self) -> bool {
        let in_vain = u64::from(self.idle_run) >= self.turns - self.woke_at;
        let transmitter = &self.transmitter;
        self.doorbells.settle(self.port.epoll(), self.looked_at, in_vain, |session| transmitter.taken_from(session))
    }

    /// These descriptors ended a sleep.
    pub fn note_ready(&mut self, ready: &[Ready]) {
        self.doorbells.note(ready);
        self.woke_at = self.turns;
    }

    /// Whether something ended the last sleep of which more may be on its way: not a doorbell,
    /// since what that rang for is in a ring or nowhere, and not the sleep's time.
    #[must_use]
    pub const fn expects_more(&self) -> bool {
        self.doorbells.had_others()
    }

    /// The way to and from the control plane.
    #[must_use]
    pub const fn port(&self) -> &Arc<Port> {
        &self.port
    }

    /// Counts one sleep of the host.
    pub fn count_sleep(&mut self) {
        self.counters.add(TurnCounter::Sleeps as usize, 1);
    }

    /// The host slept until `now`: as [`note_time`](Self::note_time), and a slot that passed
    /// meanwhile was slept through.
    pub fn note_wake(&mut self, now: MonoTime) {
        self.has_more = true;
        self.note_time(now);
        self.transmitter.note_wake(now);
    }

    /// A sleep that a slot ended did so that late.
    pub fn note_late_wake(&mut self, late: Nanos) {
        self.transmitter.note_late_wake(late);
    }

    /// The next instant at which a turn has something to do about slots, or about a budget that
    /// all sources wait for, so that sleep must end before it. `None`: there is none.
    #[inline]
    #[must_use]
    pub fn slot_due(&self) -> Option<MonoTime> {
        self.transmitter.slot_due()
    }

    /// Until when a thread may sleep for [`slot_due`](Self::slot_due): until `margin` before it, and
    /// the rest is waited for with open eyes. Until that instant itself where slots are handed over
    /// further ahead, and where all waits for a budget, so that waking late is early enough; and for
    /// a slot that is to begin and has no message: its doorbell ends the sleep, and the task that is
    /// to emit it may need this very core.
    #[must_use]
    pub fn sleep_until(&self, margin: Nanos) -> Option<MonoTime> {
        let due = self.slot_due()?;
        let sleeps_to_it = self.slot_lead() > margin || self.transmitter.may_wake_late(due);
        Some(if sleeps_to_it { due } else { due - margin })
    }

    /// How long before its instant a slot is handed over: so late may a sleep end that a slot
    /// ends. Zero without launch times.
    fn slot_lead(&self) -> Nanos {
        self.config.slots.map_or(Nanos::ZERO, |slots| Nanos(slots.timing.lead_ns))
    }

    /// By what the slots run; `None`: there are none.
    #[must_use]
    pub fn slot_clock(&self) -> Option<insane_clock::ClockState> {
        self.transmitter.slot_clock()
    }

    /// Turns are made by the application: a slot that nobody turned for is counted as such.
    pub fn is_turned_by_callers(&mut self) {
        self.transmitter.is_turned_by_callers();
    }

    /// Tells the engine an instant that has passed, after a time without turns.
    #[inline]
    pub fn note_time(&mut self, passed: insane_core::MonoTime) {
        self.looked_at = self.looked_at.max(passed);
    }

    /// The host sleeps by the port's set of descriptors: those of the links are in it from now
    /// on, also where a link gets others. Sources of sessions that have no doorbell here are looked
    /// at in each of its turns.
    pub fn watch_links(&mut self) {
        self.is_watching = true;
        let _ = self.links.take_new_fds();
        self.links.watch(&self.port);
    }

    #[cold]
    fn take_commands(&mut self) -> bool {
        self.deeds.took_commands = true;
        for _ in 0..COMMANDS_PER_TURN {
            let Some(mut command) = self.port.next_command() else { break };
            let taken = std::mem::replace(&mut *command, Command::Spent);
            let mut is_due = true;
            if let Command::RemoveSource(conn) = taken {
                let Some(now_or_never) = self.transmitter.close(self.clock.now(), conn, command) else { continue };
                (command, is_due) = now_or_never;
                if !is_due {
                    *command = Command::Removed { conn, dead: None };
                }
            }
            if is_due {
                *command = self.execute(taken);
            }
            self.port.give_back(command);
        }
        true
    }

    /// A sink joined at this host: sources that keep their values are asked for them, where
    /// local messages go this way.
    #[cold]
    fn welcome_here(&mut self, topic: Topic) {
        if let Some(index) = self.outlets.routes.find(topic)
            && self.outlets.routes.get(index).is_some_and(|route| route.local)
        {
            self.transmitter.welcome_here(index);
        }
    }

    /// Removes sources that were let go and are finished.
    #[cold]
    fn finish_closing(&mut self) {
        let now = self.clock.now();
        for _ in 0..COMMANDS_PER_TURN {
            let Some((conn, mut command)) = self.transmitter.closed(now) else { break };
            *command = self.execute(Command::RemoveSource(conn));
            self.port.give_back(command);
        }
    }

    /// The peers of a route, each with the place of its link.
    #[cold]
    fn hops_of(&self, index: RouteIndex) -> Option<Hops> {
        let route = self.outlets.routes.get(index)?;
        Some(route.peers.iter().map(|peer| (*peer, self.links.place_of(*peer, route.way(*peer)))).collect())
    }

    /// The sources of a route, whose peers and links were these, go on by its present ones.
    #[cold]
    fn move_sources(&mut self, index: RouteIndex, before: &Hops) {
        if let Some(after) = self.hops_of(index) {
            self.transmitter.move_sources(self.clock.now(), index, before, &after);
        }
    }

    #[cold]
    fn set_reach(&mut self, peer: PeerIndex, link: Option<u8>) {
        let old = self.links.place_of(peer, Way::REACH);
        self.links.set_reach(peer, link);
        self.follow_reach(peer, old);
    }

    /// A peer is reached by another link than before: whatever names none has moved there.
    #[cold]
    fn follow_reach(&mut self, peer: PeerIndex, old: Option<u8>) {
        if old == self.links.place_of(peer, Way::REACH) {
            return;
        }
        let now = self.clock.now();
        for place in 0..self.transmitter.sources() {
            let Some(index) = self.transmitter.route_of(place) else { continue };
            let Some(after) = self.hops_of(index) else { continue };
            let is_usual = self.outlets.routes.get(index).is_some_and(|route| route.usual.contains(peer));
            let mut before = after.clone();
            before.iter_mut().filter(|(other, _)| is_usual && *other == peer).for_each(|(_, link)| *link = old);
            self.transmitter.move_source(now, place, &before, &after);
        }
        if self.transmitter.has_paces() {
            self.follow_paces(None);
        }
    }

    /// Sources pay for the links by which they go, where those are paced: all, or those of a route.
    #[cold]
    fn follow_paces(&mut self, of: Option<RouteIndex>) {
        for at in 0..self.transmitter.sources() {
            let Some(index) = self.transmitter.route_of(at) else { continue };
            if of.is_none_or(|of| of == index)
                && let Some(hops) = self.hops_of(index)
            {
                self.transmitter.pay_for_link(at, &hops);
            }
        }
    }

    fn execute(&mut self, command: Command) -> Command {
        self.receiver.forget_recent();
        match command {
            Command::AddSource(source) => {
                let Some(route) = self.outlets.routes.hold(source.topic, source.domain) else {
                    return Command::AddSource(source);
                };
                let entry = self.outlets.routes.get(route);
                let peers = entry.map_or((&[][..], false), |route| (&route.peers[..], route.local));
                let may_rest = !self.is_watching || self.doorbells.has(source.session);
                match self.transmitter.add(source, route, peers, may_rest) {
                    Ok(()) => {
                        if self.transmitter.has_paces() {
                            self.follow_paces(Some(route));
                        }
                        Command::Spent
                    }
                    Err(source) => {
                        self.outlets.routes.release(route);
                        Command::AddSource(source)
                    }
                }
            }
            Command::RemoveSource(conn) | Command::EndSource(conn) => {
                self.transmitter.tell_closing(self.clock.now(), conn, &self.links, &self.outlets);
                let removed = self.transmitter.remove(conn, &mut self.outlets);
                let dead = removed.map(|(dead, route)| {
                    self.outlets.routes.release(route);
                    dead
                });
                Command::Removed { conn, dead }
            }
            Command::SetLane { conn, lane } => {
                self.transmitter.set_lane(conn, lane);
                Command::Spent
            }
            Command::AddSink(sink) => {
                let number = if sink.observes() { 0 } else { self.receiver.sink_joined() };
                let topic = sink.topic;
                match self.outlets.add(sink, number) {
                    Ok(()) => {
                        if number > 0 {
                            self.welcome_here(topic);
                        }
                        Command::Spent
                    }
                    Err(sink) => Command::AddSink(sink),
                }
            }
            Command::RemoveSink(conn) => {
                let topic = self.outlets.topic_of(conn);
                let dead: Option<Dead> = self.outlets.remove(conn);
                if let Some(topic) = topic
                    && !self.outlets.listeners(topic).is_some_and(|(.., listens)| listens)
                {
                    self.receiver.nobody_is_left(topic);
                }
                Command::Removed { conn, dead }
            }
            Command::SetRoute { topic, domain, peers, local } => {
                let known = self.outlets.routes.find(topic);
                let ruled = known.and_then(|index| self.outlets.routes.get(index)).is_some_and(|route| route.has_rule);
                let index = if ruled { known } else { self.outlets.routes.hold(topic, domain) };
                let before = index.and_then(|index| self.hops_of(index));
                match index.and_then(|index| self.outlets.routes.get_mut(index)) {
                    Some(route) => {
                        let is_new_here = local && !route.local;
                        (route.has_rule, route.local) = (true, local);
                        route.set_peers(&peers);
                        route.version = route.version.wrapping_add(1);
                        if let (Some(index), Some(before)) = (index, before) {
                            self.move_sources(index, &before);
                        }
                        if self.transmitter.has_paces() {
                            self.follow_paces(index);
                        }
                        if is_new_here {
                            self.welcome_here(topic);
                        }
                        Command::Spent
                    }
                    None => Command::SetRoute { topic, domain, peers, local },
                }
            }
            Command::Welcome { topic, peer } => {
                if let Some(index) = self.outlets.routes.find(topic)
                    && let Some(route) = self.outlets.routes.get(index)
                {
                    self.transmitter.welcome(index, peer, !route.peers.contains(&peer));
                }
                Command::Spent
            }
            Command::RemoveRoute(topic) => {
                if let Some(index) = self.outlets.routes.find(topic)
                    && let Some(route) = self.outlets.routes.get_mut(index)
                    && route.has_rule
                {
                    route.has_rule = false;
                    route.local = false;
                    route.set_peers(&[]);
                    route.version = route.version.wrapping_add(1);
                    self.outlets.routes.release(index);
                }
                Command::Spent
            }
            Command::SetPeerLife { peer, host, incarnation } => {
                if self.receiver.set_peer_life(peer, host, incarnation, &mut self.outlets) {
                    self.transmitter.forget_peer(peer);
                }
                Command::Spent
            }
            Command::SendOverlay { peer, link, lane, body } => {
                let said = Said { peer: Some(peer), link, lane, body };
                self.transmitter.say(self.clock.now(), said, &mut self.links);
                Command::Spent
            }
            Command::SetGroup { link, hears, peers_min } => {
                self.links.set_group(link, &hears, peers_min);
                Command::Spent
            }
            Command::SendGroup { link, lane, body } => {
                let said = Said { peer: None, link, lane, body };
                self.transmitter.say(self.clock.now(), said, &mut self.links);
                Command::Spent
            }
            Command::SetReach { peer, link } => {
                self.set_reach(peer, link);
                Command::Spent
            }
            Command::SetPace(pace) => {
                self.transmitter.set_pace(&pace);
                self.follow_paces(None);
                Command::Spent
            }
            Command::SwapPeer(mut swap) => {
                let old = self.links.place_of(swap.peer, Way::REACH);
                let swapped = self.links.swap_peer(&mut swap);
                self.follow_reach(swap.peer, old);
                Command::PeerSwapped(swap, swapped)
            }
            Command::StageSlots(mut stage) => {
                let staged = self.transmitter.stage(&mut stage, self.clock.now());
                Command::SlotsStaged(stage, staged)
            }
            Command::Trace(log) => {
                self.deeds = Deeds::default();
                Command::Trace(self.transmitter.trace.replace(log))
            }
            Command::AddDoorbell(bell) => match self.doorbells.add(self.port.epoll(), bell) {
                Ok(()) => Command::Spent,
                Err(bell) => Command::AddDoorbell(bell),
            },
            Command::RemoveDoorbell(session) => {
                Command::DoorbellRemoved(self.doorbells.remove(self.port.epoll(), session))
            }
            Command::RemovePeer(peer) => {
                self.receiver.remove_peer(peer, &mut self.outlets);
                self.transmitter.remove_peer(peer, &self.outlets);
                Command::RemovePeer(peer)
            }
            done @ (Command::Spent
            | Command::Removed { .. }
            | Command::DoorbellRemoved(_)
            | Command::PeerSwapped(..)
            | Command::SlotsStaged(..)) => done,
        }
    }
}
