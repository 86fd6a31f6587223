//! The contract between the datapath engine and a network plugin.
//!
//! A plugin has two halves. Its set-up half ([`LinkSetup`]) runs on the control
//! plane, may allocate and block, and hands over the other: a [`Link`], owned by
//! one datapath thread, that moves frames and neither allocates, blocks nor logs.
//!
//! Invariants of a `Link`:
//! - `send` either takes the whole frame or none of it; the payload's memory is
//!   not referred to after `send` returns, unless the capabilities say otherwise.
//!   It may hold a frame back, but not beyond the `flush` for which there is room.
//! - `receive` hands out at most `budget` frames; each borrow ends with the call.
//! - frames of one peer and lane are handed out in the order in which they came.
//! - what `send` took and holds back is pushed out by `flush`, and, as far as the
//!   technology was full then, by later calls of `flush` and `receive`.
//! - nothing a peer sends makes it panic.
//! - a link with a group ([`LinkCapabilities::multicast`]) sends one frame to all members at
//!   once. It hands a frame of the group out in the name of the peer that sent it, as any
//!   other, and never one of its own. Who is a member, and whether what is sent to the group
//!   gets there, the link does not know: that is asked above it.
//! - after `swap_peer` no frame is handed out in the name of the peer that left, none of
//!   its frames that were held back is sent to another, and frames of all others are
//!   neither lost nor reordered.
#![forbid(unsafe_code)]

mod exchange;

use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_sys::SharedBytes;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

pub use exchange::Exchange;

/// What a link can do. Fixed once the link is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkCapabilities {
    /// Name of the technology, as it stands in reports: `udp`, `sim`, …
    pub technology: &'static str,
    /// Largest frame (wire header and payload together) that `send` takes, bytes.
    pub frame_bytes_max: u32,
    /// Frames never arrive out of order.
    pub ordered: bool,
    /// The link repairs losses itself.
    pub lossless: bool,
    /// A launch time is honoured by the device, or by the queue before it: frames may be
    /// handed over with [`Link::send_at`].
    pub launch_time: bool,
    /// It has a group: `send_group` sends to all of its members, and what they send comes in.
    pub multicast: bool,
}

/// Frames that were taken by [`Link::send_at`] and dropped since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LaunchDrops {
    /// Their instant had passed when they could have gone.
    pub missed: u64,
    /// The queue did not take them: their instant had passed on the way there, or the clock
    /// was set meanwhile.
    pub refused: u64,
}

/// What a technology says of the frames that it took, see [`Link::unfinished`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unfinished {
    /// How much has not left: zero exactly where all has, and less with each frame that leaves.
    /// In which measure (bytes of the kernel's bookkeeping, frames) is the link's own affair.
    pub amount: u64,
    /// For how long after it left a frame may still be counted.
    pub lag: Nanos,
}

/// Most counters that a link tells of.
pub const LINK_COUNTERS_MAX: usize = 16;

/// What a link has counted, by name. Each only grows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkCounts {
    names: &'static [&'static str],
    values: [u64; LINK_COUNTERS_MAX],
}

impl LinkCounts {
    /// It counts nothing.
    pub const NONE: LinkCounts = LinkCounts { names: &[], values: [0; LINK_COUNTERS_MAX] };

    /// Names that say what is counted (`frames_lost`, `connections_made`), and so many values;
    /// at most [`LINK_COUNTERS_MAX`].
    #[must_use]
    pub fn new<const N: usize>(names: &'static [&'static str; N], given: [u64; N]) -> Self {
        const { assert!(N <= LINK_COUNTERS_MAX) };
        let mut values = [0; LINK_COUNTERS_MAX];
        values[..N].copy_from_slice(&given);
        LinkCounts { names, values }
    }

    /// The names, in the order of the values.
    #[must_use]
    pub const fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// As many values as names.
    #[must_use]
    pub fn values(&self) -> &[u64] {
        &self.values[..self.names.len().min(LINK_COUNTERS_MAX)]
    }
}

/// What became of one frame.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOutcome {
    /// The link has it.
    Sent,
    /// No room now; the same frame may be offered again in a later turn.
    Busy,
    /// The link will not take it (no such peer, peer not connected, too large, device
    /// gone); counted as lost.
    Failed,
}

/// Why a link does not take a peer. Nothing has changed then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SwapRefused {
    /// There is no such place.
    #[error("the link has no place for a peer of this number")]
    NoPlace,
    /// Another peer has that address: frames could not be told apart.
    #[error("peer {0} has that address")]
    AddressTaken(PeerIndex),
    /// The technology refuses, with its number of the error.
    #[error("the kernel refuses it (error {0})")]
    Technology(i32),
}

/// Longest head that a [`FrameSink`] may ask for, bytes.
pub const PLACE_HEAD_BYTES_MAX: usize = 64;

/// Names a place that a [`FrameSink`] gave to one frame. Never given twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ticket(pub u64);

/// Where received frames go.
///
/// # Places
/// A technology that hands over bytes as they come would gather a large frame only to
/// have it copied to where it belongs. It may ask for that place instead, once the first
/// [`HEAD_BYTES`](Self::HEAD_BYTES) of the frame are there: [`place`](Self::place), then
/// [`memory`](Self::memory) for each piece that it fills in, then [`placed`](Self::placed)
/// once, and [`frame`](Self::frame) never for this one. Between calls of `receive` the place
/// may be taken away: `memory` is then `None`, and the rest of the frame is thrown away. A
/// frame that breaks off is simply never reported.
pub trait FrameSink {
    /// How much of a frame [`place`](Self::place) wants to see, bytes; at most
    /// [`PLACE_HEAD_BYTES_MAX`]. 0: no frame has a place.
    const HEAD_BYTES: usize = 0;

    /// One frame, header first. The memory belongs to the link and is private to
    /// this process, so it may be read as a slice. `from` is the peer whose
    /// address the frame bore, if it is one. A link that knows its peers by a handshake
    /// hands out frames of peers only, and counts strangers itself.
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]);

    /// Asks where the `rest` bytes behind the `head` of a frame belong. `None`: nowhere yet;
    /// the frame is gathered and handed out whole.
    fn place(&mut self, from: PeerIndex, head: &[u8], rest: usize) -> Option<Ticket> {
        let _ = (from, head, rest);
        None
    }

    /// The memory of a place, `rest` bytes. `None`: it was taken away.
    fn memory(&mut self, from: PeerIndex, head: &[u8], rest: usize, ticket: Ticket) -> Option<&mut [u8]> {
        let _ = (from, head, rest, ticket);
        None
    }

    /// The place is filled: this counts as the frame.
    fn placed(&mut self, from: PeerIndex, head: &[u8], rest: usize, ticket: Ticket) {
        let _ = (from, head, rest, ticket);
    }
}

/// The half of a plugin that moves frames. One datapath thread owns it.
pub trait Link {
    /// All that the link keeps of one peer, with its memory: made by [`PeerSetup`] on the
    /// control plane, and freed there.
    type Peer: Send + 'static;

    /// What the link can do.
    fn capabilities(&self) -> LinkCapabilities;

    /// Hands one frame, `head` followed by `payload`, to the technology.
    ///
    /// `payload` may be memory that a client can write while the frame is under
    /// way: the link neither reads it twice nor decides anything by it.
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome;

    /// As [`send`](Self::send), for a frame that no other follows before the flush: there is
    /// nothing to wait for, so that a link which holds frames back to send several at once
    /// may let this one go now.
    fn send_alone(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        self.send(peer, lane, head, payload)
    }

    /// As [`send`](Self::send), for a frame that leaves at `launch` and not before. Called only
    /// where the capabilities say so, in the order of the instants, some time ahead, and for
    /// real-time lanes. Such frames have a socket or queue of their own; what becomes of one
    /// after it was taken, [`take_launch_drops`](Self::take_launch_drops) tells.
    fn send_at(
        &mut self,
        peer: PeerIndex,
        lane: Lane,
        head: &[u8],
        payload: SharedBytes<'_>,
        launch: MonoTime,
    ) -> SendOutcome {
        let _ = launch;
        self.send(peer, lane, head, payload)
    }

    /// What was dropped since the last call; asked after each [`tend`](Self::tend).
    fn take_launch_drops(&mut self) -> LaunchDrops {
        LaunchDrops::default()
    }

    /// As [`send`](Self::send), to every member of the link's group but oneself, once. Frames
    /// to the group keep their order among each other, not with those to a peer.
    ///
    /// A link without a group refuses: [`SendOutcome::Failed`].
    fn send_group(&mut self, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let _ = (lane, head, payload);
        SendOutcome::Failed
    }

    /// What of the frames that were sent before the last flush has not left; without
    /// `best_effort`, of those of real-time lanes alone. `None`: the technology does not tell, or
    /// cannot tell what waits for the interface from what waits for its receiver: slots to all
    /// others wait for what is said here.
    ///
    /// Asked by a datapath with slots when one is near, and not while nothing was sent since it
    /// was zero: a system call or a few are affordable. Frames with a launch time are none of
    /// its business.
    fn unfinished(&mut self, best_effort: bool) -> Option<Unfinished> {
        let _ = best_effort;
        None
    }

    /// Pushes out what `send` held back; called once after a burst. What finds no room
    /// then is kept, and goes with a later call.
    fn flush(&mut self);

    /// Whether there is something to do of which no descriptor tells: frames that found
    /// no room at the last `flush`, or that `receive` took from the technology and had no
    /// budget to hand out. A datapath does not sleep meanwhile.
    fn holds_frames(&self) -> bool {
        false
    }

    /// Takes up to `budget` frames, real-time lanes first, and hands each to `sink`.
    /// Returns how many.
    ///
    /// `thorough` is false on most turns while frames keep coming on one socket:
    /// the link may then look only there. At least every sixteenth call is thorough.
    fn receive<S: FrameSink>(&mut self, budget: u32, thorough: bool, sink: &mut S) -> u32;

    /// Descriptors that become readable when `receive` has something, for a
    /// datapath that sleeps. At most sixteen.
    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>>;

    /// Whether the descriptors are others since the last call. Asked after each
    /// [`tend`](Self::tend) by a datapath that sleeps, which then asks for them again; those
    /// that were given before must be closed soon.
    fn take_new_fds(&mut self) -> bool {
        false
    }

    /// What it counts that no outcome tells, for reports. Asked now and then by the datapath
    /// that owns it: a copy of numbers, without a call of the system. The names stay the same.
    fn link_counts(&self) -> LinkCounts {
        LinkCounts::NONE
    }

    /// How long a datapath may sleep at most, where no descriptor tells that `receive` has
    /// something. `None`: descriptors tell.
    fn sleep_max(&self) -> Option<Nanos> {
        None
    }

    /// Puts the peer that `with` holds, or none, in the place of this number, and leaves in
    /// `with` what was there: the same call again undoes it. Frames held back for the peer
    /// that leaves are pushed out as far as there is room, and are lost otherwise.
    /// Bounded, and free of allocations.
    ///
    /// # Errors
    /// Refused: everything is as before.
    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<Self::Peer>) -> Result<(), SwapRefused>;

    /// What needs the time and has no hurry: connecting, accepting, giving up. Called
    /// by the datapath every 10 ms or so, while it sleeps every 100 ms at least. As
    /// bounded as every other call, and free of allocations. Returns whether it
    /// wants to be called again after 10 ms even if the datapath sleeps.
    fn tend(&mut self, now: MonoTime) -> bool {
        let _ = now;
        false
    }
}

/// The set-up half of a plugin: control plane only.
pub trait LinkSetup {
    /// The half that moves frames.
    type Link: Link + Send;
    /// Why the technology is not to be had here.
    type Error: std::error::Error + Send + Sync + 'static;
    /// What prepares peers that come while the link is in use.
    type Peers: PeerSetup<Peer = <Self::Link as Link>::Peer, Error = Self::Error>;

    /// What prepares peers that come later. It stays on the control plane.
    fn peers(&self) -> Self::Peers;

    /// Opens the link with its peers: `peers[i]` is the address of `PeerIndex(i)`,
    /// `None` where that peer is not reached by this link.
    ///
    /// # Errors
    /// The technology is unavailable, with the reason.
    fn open(self, peers: &[Option<SocketAddr>]) -> Result<Self::Link, Self::Error>;
}

/// How a link is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkHealth {
    /// It has what it runs on.
    Up,
    /// It has not, for this reason, in words for an operator: frames are refused until it has.
    Missing(String),
}

/// The half of a plugin that gives a link what it runs on, and takes it back: where that may be
/// missing at the start, or go away and return. It stays on the control plane, on a thread
/// that may block; the link itself lives on, with its peers, and refuses frames meanwhile.
///
/// What is taken back is freed here and never on the datapath.
pub trait LinkKeeper: Send {
    /// Looks after the link once: tries to have what it lacks, or whether it still has it.
    /// Called again and again, by one thread; may block for a second or so.
    fn look(&mut self) -> LinkHealth;
}

/// The set-up half for peers that come while the link is in use: control plane only.
pub trait PeerSetup {
    /// What the link takes.
    type Peer: Send + 'static;
    /// Why it cannot be had.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Checks an address and takes all memory that the link needs for the peer there.
    /// Whether another peer has the address, only the link can say.
    ///
    /// # Errors
    /// The address cannot be reached by this link, with the reason.
    fn prepare(&self, peer: PeerIndex, address: SocketAddr) -> Result<Self::Peer, Self::Error>;
}
