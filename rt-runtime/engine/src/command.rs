//! How the control plane reaches an engine: prepared commands down, spent ones back up.
//!
//! ```text
//! control plane --commands--> engine          bounded, boxed by the control plane
//! control plane <--spent----- engine          the same boxes, to be freed there
//! control plane <--notices--- engine          small, by value
//! control plane <--overlay--- engine          frames of the overlay, by value
//! ```
//! As many commands may be on the way as the spent queue has places, so the engine
//! always finds room to give one back.

use crate::doorbells::{Doorbell, DoorbellTally};
use crate::epsilons::Epsilons;
use crate::slot_log::SlotLog;
use crate::transmit::StageSlots;
use insane_core::limits::{LINKS_MAX, PEERS_MAX};
use insane_core::{
    ChannelId, ConnId, DomainIndex, HostId, Incarnation, Lane, PeerIndex, SessionId, SourceId, StreamKey,
};
use insane_link::{LINK_COUNTERS_MAX, LinkCounts, SwapRefused};
use insane_scheduler::Policing;
use insane_shm::Violation;
use insane_shm::conn::{RxConn, TxConn};
use insane_shm::misses::{MissLog, MissReader};
use insane_shm::trace::TraceLog;
use insane_sys::OsError;
use insane_sys::event::{Epoll, Event, Interest, Trigger};
use insane_sys::queue::TryQueue;
use std::any::Any;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Commands on the way, at most.
const COMMANDS_MAX: usize = 256;
/// Notices that wait, at most; more are counted and dropped.
const NOTICES_MAX: usize = 256;
/// Overlay frames that wait, at most; more are counted and dropped.
const OVERLAY_FRAMES_MAX: usize = 64;
/// Of those, frames of one peer, at most: one that floods leaves places to the others.
const OVERLAY_FRAMES_OF_PEER_MAX: u32 = 16;
/// In a word that holds a version: there is one.
const HAS_VERSION: u32 = 1 << 8;
/// Largest body of an overlay frame, bytes.
pub const OVERLAY_BODY_MAX: usize = 1400;
/// Token of the bell in the datapath's epoll set; those of doorbells are numbers of sessions.
pub(crate) const BELL_TOKEN: u64 = u64::MAX;
/// Token of the links' descriptors there.
pub(crate) const LINK_TOKEN: u64 = u64::MAX - 1;

/// A conversation: a channel of a stream.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Topic {
    /// The stream.
    pub key: StreamKey,
    /// The channel.
    pub channel: ChannelId,
}

/// A source's connection, prepared for the engine.
#[derive(Debug)]
pub struct NewSource {
    /// Where its messages come from.
    pub conn: RxConn,
    /// Its number on the wire.
    pub source: SourceId,
    /// What it speaks on.
    pub topic: Topic,
    /// Its tenant.
    pub domain: DomainIndex,
    /// Whose it is: sources of a session share a lane as one, and a budget.
    pub session: SessionId,
    /// What the session's sources may send by this datapath; a bucket that is smaller than a
    /// frame counts as one frame.
    pub budget: Option<Policing>,
    /// Its lane.
    pub lane: Lane,
    /// Its messages are acknowledged by the peers and repaired.
    pub reliable: bool,
    /// Its number among the sources with slots, below [`TIMED_MAX`](crate::TIMED_MAX): by it
    /// the tables of slots name it. `None`: it has none.
    pub slots: Option<u16>,
    /// It keeps its last values for sinks that join later; peers that do get them if it is
    /// not reliable.
    pub keeps: bool,
}

/// A sink's connection, prepared for the engine.
#[derive(Debug)]
pub struct NewSink {
    /// Where its messages go.
    pub conn: TxConn,
    /// What it listens to.
    pub topic: Topic,
    /// Its tenant.
    pub domain: DomainIndex,
    /// Whose it is: who pays for its wake-ups.
    pub session: SessionId,
    /// The lane of its stream: who is woken first.
    pub lane: Lane,
    /// Wake-ups a second of all sinks that the session has at this datapath; the first of
    /// them says it for all.
    pub wakes_per_second: NonZeroU32,
}

impl NewSink {
    /// Whether it only watches.
    #[must_use]
    pub const fn observes(&self) -> bool {
        self.conn.observes()
    }
}

/// A peer of a route, and how messages go there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hop {
    /// Its number.
    pub peer: PeerIndex,
    /// Place of the link among those of the datapath. `None`: the one by which the peer is
    /// reached, whichever that is.
    pub link: Option<u8>,
}

impl From<PeerIndex> for Hop {
    /// By the link by which the peer is reached.
    fn from(peer: PeerIndex) -> Self {
        Hop { peer, link: None }
    }
}

/// What a link carries of best effort at most.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// Place of the link among those of the datapath.
    pub link: u8,
    /// Frames with this runtime's headers, of all best-effort sources together; a burst smaller than
    /// a frame counts as one. `None`: no bound.
    pub most: Option<Policing>,
}

/// A change of one peer at one link.
pub struct PeerSwap {
    /// Its number.
    pub peer: PeerIndex,
    /// Place of the link among those of the datapath.
    pub link: usize,
    /// An `Option` of the link's `Peer`: what is put in; afterwards what was there.
    pub place: Box<dyn Any + Send>,
    /// Place of the link by which the peer is reached from then on; afterwards until then.
    pub reach: Option<usize>,
}

impl std::fmt::Debug for PeerSwap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PeerSwap { peer, link, reach, .. } = self;
        f.debug_struct("PeerSwap").field("peer", peer).field("link", link).field("reach", reach).finish()
    }
}

/// What the engine let go, for the control plane to free.
#[derive(Debug)]
pub enum Dead {
    /// Of a source.
    Source(RxConn),
    /// Of a sink.
    Sink(TxConn),
}

/// What the control plane wants, or a spent command on its way back. Commands travel boxed,
/// and the box is reused on the way back, so it does not matter that some are large.
#[derive(Debug)]
pub enum Command {
    /// Take messages from a source. Comes back `Spent`, or as it is when no place is left.
    AddSource(NewSource),
    /// Let a source go. Comes back `Removed` when the links have taken all that it emitted
    /// (of a reliable stream: when its peers have it), or have had the time of an eviction
    /// for it; what is left then is counted and lost.
    RemoveSource(ConnId),
    /// Take nothing more from a source, and read nothing more of what was taken: its client lives
    /// on, and is about to write its buffers anew. Comes back `Removed`; what was left is counted
    /// and lost.
    EndSource(ConnId),
    /// A source goes on in another lane of the same group (real-time or best-effort), in
    /// which its frames travel by the same sockets, so none overtakes another. A lane of the
    /// other group changes nothing. Comes back `Spent`.
    SetLane {
        /// Which connection.
        conn: ConnId,
        /// Its lane from now on.
        lane: Lane,
    },
    /// Deliver to a sink. Comes back `Spent`, or as it is when no place is left.
    AddSink(NewSink),
    /// Let a sink go. Comes back `Removed`.
    RemoveSink(ConnId),
    /// Where the messages of local sources go. Comes back `Spent`, or as it is when no
    /// place is left.
    SetRoute {
        /// The conversation.
        topic: Topic,
        /// Its tenant.
        domain: DomainIndex,
        /// The peers with a sink, in the order of their numbers, and the way to each.
        peers: heapless::Vec<Hop, PEERS_MAX>,
        /// Whether the sinks of this host get them from here, too.
        local: bool,
    },
    /// A sink joined at a peer: sources that keep their last values are asked for them, and
    /// they go to this peer alone. Sent before the peer is put on the route, if it is not on
    /// it. Comes back `Spent`.
    Welcome {
        /// The conversation.
        topic: Topic,
        /// Where the sink is.
        peer: PeerIndex,
    },
    /// They go nowhere.
    RemoveRoute(Topic),
    /// By which link a peer is reached from now on: whatever goes to it, but for messages of
    /// routes that name another link. Comes back `Spent`.
    SetReach {
        /// Which peer.
        peer: PeerIndex,
        /// Place of the link among those of the datapath; `None`: by none.
        link: Option<u8>,
    },
    /// Hold best effort to what a link may carry of it. Comes back `Spent`.
    SetPace(Pace),
    /// Which runtime, in which life, a peer is: frames of any other are dropped, flows
    /// of lives of it that no peer is known by are forgotten.
    SetPeerLife {
        /// Which peer.
        peer: PeerIndex,
        /// Which runtime it is.
        host: HostId,
        /// Which life of it; `None`: it is gone.
        incarnation: Option<Incarnation>,
    },
    /// Put a peer in its place at one link, or take it out. Comes back as [`Self::PeerSwapped`].
    SwapPeer(PeerSwap),
    /// It was tried; what left the link is inside, to be freed, or put back by the same
    /// command.
    PeerSwapped(PeerSwap, Result<(), SwapRefused>),
    /// A peer is none any more: forget its life, its flows, and what is held for it. Comes
    /// back as it is; after that nothing here names the peer, unless a later command does.
    RemovePeer(PeerIndex),
    /// Send an overlay frame.
    SendOverlay {
        /// To whom.
        peer: PeerIndex,
        /// Place of the link among those of the datapath.
        link: usize,
        /// How it goes.
        lane: Lane,
        /// Its body.
        body: heapless::Vec<u8, OVERLAY_BODY_MAX>,
    },
    /// Who hears the group of a link, and may be served by it: asked for by the control plane,
    /// which probes it. Comes back `Spent`.
    SetGroup {
        /// Place of the link among those of the datapath.
        link: usize,
        /// Those that hear. One that leaves the link is forgotten with that.
        hears: heapless::Vec<PeerIndex, PEERS_MAX>,
        /// The group is used for messages to at least so many of them; 0: never.
        peers_min: u32,
    },
    /// Send an overlay frame to the group of a link.
    SendGroup {
        /// Place of the link among those of the datapath.
        link: usize,
        /// How it goes: what real time takes and what best effort takes are asked for apart.
        lane: Lane,
        /// Its body.
        body: heapless::Vec<u8, OVERLAY_BODY_MAX>,
    },
    /// Put a table of slots in place of the one in force, at the next boundary of its cycle.
    /// Comes back as [`Self::SlotsStaged`].
    StageSlots(StageSlots),
    /// It waits for its instant, or not, and why; what it replaces is inside, to be freed.
    SlotsStaged(StageSlots, Result<(), insane_scheduler::TableError>),
    /// Record turns and slots there from now on, or nowhere. Comes back with what it replaces,
    /// to be freed.
    Trace(Option<TraceLog>),
    /// Let a session's doorbell wake the datapath's thread. Comes back `Spent`, or as it is when
    /// no place is left or the kernel refuses.
    AddDoorbell(Doorbell),
    /// No longer. Comes back as [`Self::DoorbellRemoved`].
    RemoveDoorbell(SessionId),
    /// It was carried out; what was removed is inside, to be freed, if it was there.
    DoorbellRemoved(Option<Doorbell>),
    /// It was carried out.
    Spent,
    /// A removal was carried out; `dead` is what was removed, if it was there.
    Removed {
        /// Which connection.
        conn: ConnId,
        /// What is left of it.
        dead: Option<Dead>,
    },
}

/// What the engine tells the control plane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    /// The client at the other end of a connection wrote what cannot be. The engine no
    /// longer uses it; the control plane removes it.
    Violation {
        /// Which connection.
        conn: ConnId,
        /// What was wrong.
        violation: Violation,
    },
}

/// An overlay frame that came in, without its header.
#[derive(Clone, Debug)]
pub struct OverlayFrame {
    /// From whom.
    pub peer: PeerIndex,
    /// By which link of the datapath.
    pub link: usize,
    /// The runtime it says it is.
    pub host: HostId,
    /// The life of it.
    pub incarnation: Incarnation,
    /// Its body.
    pub body: heapless::Vec<u8, OVERLAY_BODY_MAX>,
}

/// Where a datapath leaves what one of its links counts.
#[derive(Debug)]
struct LinkCells {
    /// Set once, when the engine is made.
    names: OnceLock<&'static [&'static str]>,
    values: [AtomicU64; LINK_COUNTERS_MAX],
}

impl LinkCells {
    const fn new() -> Self {
        LinkCells { names: OnceLock::new(), values: [const { AtomicU64::new(0) }; LINK_COUNTERS_MAX] }
    }
}

/// The one way between the control plane and an engine; shared by both.
#[derive(Debug)]
pub struct Port {
    commands: TryQueue<Box<Command>>,
    on_the_way: AtomicUsize,
    spent: TryQueue<Box<Command>>,
    notices: TryQueue<Notice>,
    overlay: TryQueue<OverlayFrame>,
    /// How many of them each peer has.
    overlay_of: [AtomicU32; PEERS_MAX],
    /// The version of the last frame of each peer that was refused for it, and `HAS_VERSION`; 0:
    /// none since it was asked for.
    other_versions: [AtomicU32; PEERS_MAX],
    bell: Event,
    answer: Arc<Event>,
    epoll: Epoll,
    doorbells: Arc<DoorbellTally>,
    stop: AtomicBool,
    /// By what the slots run, as `ClockState::number` has it.
    slot_clock: AtomicU8,
    /// The slots' time less the monotonic clock, nanoseconds, modulo 2^64; see `slot_offset`.
    slot_offset: AtomicU64,
    slot_table: AtomicU32,
    /// Where the datapath notes its slots, if it has any.
    slot_log: OnceLock<Arc<SlotLog>>,
    /// What the datapath measures of e_turn and e_wake.
    epsilons: Arc<Epsilons>,
    link_counts: [LinkCells; LINKS_MAX],
    /// Where it is to note misses, until it takes it.
    misses: Mutex<Option<MissLog>>,
    miss_reader: OnceLock<MissReader>,
}

impl Port {
    /// A port whose engine signals `answer` when there is something to collect.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new(answer: Arc<Event>) -> Result<Arc<Self>, OsError> {
        let port = Port {
            commands: TryQueue::new(COMMANDS_MAX),
            on_the_way: AtomicUsize::new(0),
            spent: TryQueue::new(COMMANDS_MAX),
            notices: TryQueue::new(NOTICES_MAX),
            overlay: TryQueue::new(OVERLAY_FRAMES_MAX),
            overlay_of: [const { AtomicU32::new(0) }; PEERS_MAX],
            other_versions: [const { AtomicU32::new(0) }; PEERS_MAX],
            bell: Event::new()?,
            answer,
            epoll: Epoll::new()?,
            doorbells: Arc::default(),
            stop: AtomicBool::new(false),
            slot_clock: AtomicU8::new(0),
            slot_offset: AtomicU64::new(0),
            slot_table: AtomicU32::new(0),
            slot_log: OnceLock::new(),
            epsilons: Arc::default(),
            link_counts: [const { LinkCells::new() }; LINKS_MAX],
            misses: Mutex::new(None),
            miss_reader: OnceLock::new(),
        };
        port.epoll.add(&port.bell, BELL_TOKEN, Interest::Read, Trigger::Level)?;
        Ok(Arc::new(port))
    }

    /// Sends a command; it comes back if too many are on the way: collect, then try again.
    ///
    /// # Errors
    /// The command itself.
    pub fn send(&self, command: Command) -> Result<(), Box<Command>> {
        let command = Box::new(command);
        if self.on_the_way.load(Ordering::Relaxed) >= COMMANDS_MAX {
            return Err(command);
        }
        self.on_the_way.fetch_add(1, Ordering::Relaxed);
        self.commands.push(command).inspect_err(|_| {
            self.on_the_way.fetch_sub(1, Ordering::Relaxed);
        })?;
        let _ = self.bell.signal();
        Ok(())
    }

    /// The next command that came back.
    pub fn collect(&self) -> Option<Box<Command>> {
        let command = self.spent.pop()?;
        self.on_the_way.fetch_sub(1, Ordering::Relaxed);
        Some(command)
    }

    /// The next notice.
    pub fn notice(&self) -> Option<Notice> {
        self.notices.pop()
    }

    /// The next overlay frame that came in.
    pub fn overlay_frame(&self) -> Option<OverlayFrame> {
        let frame = self.overlay.pop()?;
        if let Some(waiting) = self.overlay_of.get(frame.peer.index()) {
            // Relaxed: only a number; the frame itself is handed over by the queue.
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Some(frame)
    }

    /// Of which version the frames of a peer are that were refused for that since it was last
    /// asked; `None`: none was.
    pub fn other_version(&self, peer: PeerIndex) -> Option<u8> {
        let noted = self.other_versions.get(peer.index())?;
        // Relaxed: the number says all. Most peers have none, and then nothing is written.
        let has_one = noted.load(Ordering::Relaxed) != 0;
        has_one.then(|| noted.swap(0, Ordering::Relaxed) as u8)
    }

    /// What is counted of the doorbells of all sessions.
    #[must_use]
    pub const fn doorbells(&self) -> &Arc<DoorbellTally> {
        &self.doorbells
    }

    /// Asks the engine's host to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.bell.signal();
    }

    /// By what the slots run, in words; the local clock until the first stream with slots.
    #[must_use]
    pub fn slot_clock(&self) -> &'static str {
        // Relaxed: a number for reports, nothing hangs on it.
        insane_clock::ClockState::words(self.slot_clock.load(Ordering::Relaxed))
    }

    /// The slots' time less the monotonic clock, nanoseconds, modulo 2^64, as of 10 ms or so ago;
    /// 0 until the first stream with slots, and where they run by the local clock from the start.
    #[must_use]
    pub fn slot_offset(&self) -> u64 {
        self.slot_offset.load(Ordering::Relaxed)
    }

    pub(crate) fn set_slot_offset(&self, offset_ns: u64) {
        self.slot_offset.store(offset_ns, Ordering::Relaxed);
    }

    /// Whether the slots run by TAI.
    #[must_use]
    pub fn is_slot_clock_locked(&self) -> bool {
        self.slot_clock.load(Ordering::Relaxed) == insane_clock::ClockState::Locked.number()
    }

    /// The number of the table of slots that is in force; 0 until the first.
    #[must_use]
    pub fn slot_table(&self) -> u32 {
        // Relaxed: who asks looks again.
        self.slot_table.load(Ordering::Relaxed)
    }

    pub(crate) fn set_slot_table(&self, number: u32) {
        self.slot_table.store(number, Ordering::Relaxed);
    }

    /// What became of the last slots; `None` where no link has a rate.
    #[must_use]
    pub fn slot_log(&self) -> Option<Arc<SlotLog>> {
        self.slot_log.get().cloned()
    }

    /// The log, made at the first call: set-up only.
    pub(crate) fn open_slot_log(&self) -> Arc<SlotLog> {
        Arc::clone(self.slot_log.get_or_init(Arc::default))
    }

    /// What the datapath measures of e_turn and e_wake; nothing where no link has a rate.
    #[must_use]
    pub const fn epsilons(&self) -> &Arc<Epsilons> {
        &self.epsilons
    }

    /// Where misses are to be noted: before the engine is made, else it has memory of its own.
    pub fn set_misses(&self, log: MissLog) {
        *self.misses.lock().unwrap_or_else(PoisonError::into_inner) = Some(log);
    }

    /// The misses so far; `None` where no link has a rate.
    #[must_use]
    pub fn misses(&self) -> Option<MissReader> {
        self.miss_reader.get().cloned()
    }

    /// The record of misses, at the one call: set-up only.
    pub(crate) fn take_misses(&self) -> MissLog {
        let set = self.misses.lock().unwrap_or_else(PoisonError::into_inner).take();
        let log = set.unwrap_or_else(|| MissLog::private(0, ""));
        let _ = self.miss_reader.set(log.reader());
        log
    }

    /// What a link has counted, by name, some 10 ms ago (100 while the datapath sleeps).
    pub fn link_counts(&self, link: usize) -> impl Iterator<Item = (&'static str, u64)> {
        let cells = self.link_counts.get(link);
        let names = cells.and_then(|cells| cells.names.get().copied()).unwrap_or_default();
        // Relaxed: numbers for reports, nothing hangs on them.
        let values = cells.into_iter().flat_map(|cells| &cells.values).map(|value| value.load(Ordering::Relaxed));
        names.iter().copied().zip(values)
    }

    /// Of the engine: what its links count is called so.
    pub(crate) fn name_link_counts(&self, link: usize, names: &'static [&'static str]) {
        if let Some(cells) = self.link_counts.get(link) {
            let _ = cells.names.set(names);
        }
    }

    /// Of the engine: what a link has counted so far.
    pub(crate) fn tell_link_counts(&self, link: usize, counts: &LinkCounts) {
        let Some(cells) = self.link_counts.get(link) else { return };
        for (cell, value) in cells.values.iter().zip(counts.values()) {
            cell.store(*value, Ordering::Relaxed);
        }
    }

    pub(crate) fn set_slot_clock(&self, number: u8) {
        self.slot_clock.store(number, Ordering::Relaxed);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    pub(crate) fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    pub(crate) fn silence_bell(&self) {
        let _ = self.bell.clear();
    }

    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    pub(crate) fn next_command(&self) -> Option<Box<Command>> {
        self.commands.pop()
    }

    pub(crate) fn give_back(&self, command: Box<Command>) {
        // `send` lets no more on the way than `spent` has places.
        if let Err(command) = self.spent.push(command) {
            // A bug elsewhere must not free memory here: leak the box instead.
            Box::leak(command);
        }
        let _ = self.answer.signal();
    }

    pub(crate) fn tell(&self, notice: Notice) {
        // A full queue means the control plane already has hundreds to act on; the
        // counter of violations still counts this one.
        let _ = self.notices.push(notice);
        let _ = self.answer.signal();
    }

    pub(crate) fn note_version(&self, peer: PeerIndex, version: u8) {
        if let Some(noted) = self.other_versions.get(peer.index()) {
            noted.store(HAS_VERSION | u32::from(version), Ordering::Relaxed);
        }
    }

    pub(crate) fn pass_overlay(&self, frame: OverlayFrame) -> bool {
        let Some(waiting) = self.overlay_of.get(frame.peer.index()) else { return false };
        // The engine alone adds, so the number cannot pass the bound in between.
        if waiting.load(Ordering::Relaxed) >= OVERLAY_FRAMES_OF_PEER_MAX {
            return false;
        }
        // Before the push: whoever pops it must find it counted.
        waiting.fetch_add(1, Ordering::Relaxed);
        let passed = self.overlay.push(frame).is_ok();
        if !passed {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        let _ = self.answer.signal();
        passed
    }
}
