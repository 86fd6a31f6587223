//! The reliable contract between hosts: acknowledgement, credit, repair, eviction.
//!
//! One [`Sender`] stands for one source and all peers that have a sink for it, one
//! [`Receiver`] for one source at one of those peers. Both are bookkeepers of
//! *positions* (message, bytes into it): payloads stay with the caller.
//!
//! - **Window.** The sender holds every message until all peers have acknowledged it, and
//!   takes no further one when [`Limits::window`] messages or [`Limits::window_bytes`]
//!   are held. The source's ring then fills, and emit is refused: nothing is lost, and
//!   nobody blocks.
//! - **Order.** A receiver accepts the frame at its position and no other; what is ahead of
//!   it is dropped and asked for again (NAK), and the sender goes back to there. So neither
//!   side sorts or stores out of order: a loss costs the bytes that were under way behind
//!   it, at most [`Limits::flight_bytes`] to each peer.
//! - **Credit.** A receiver acknowledges only what it has handed on, and grants as many
//!   messages as it expects to find room for; without room it grants none. It may refuse a
//!   frame in spite of a grant: then it is sent again.
//! - **Heartbeat.** While anything is not acknowledged the sender tells how far it has
//!   sent, so that a lost tail is noticed, and repeats it at growing intervals. The
//!   receiver answers each time, so lost acknowledgements and grants are repaired, too.
//! - **Eviction.** A peer that acknowledges nothing new for [`Limits::evict_after`] is put
//!   out, so it stalls the others no longer than that; the window is theirs again. It is
//!   asked now and then whether it is back. If so it continues with the next message
//!   taken from the source, and learns how many it missed. For a time in which the sender
//!   itself stood still no peer is blamed ([`Sender::look`]).
//! - **Joining.** A new peer gets what is taken from the source after it was added. From then
//!   on everything arrives exactly once, in order, or is told as lost. Where the source keeps
//!   its last values, the sender holds them again ([`Sender::recall`]), and the peer's part
//!   begins at the first of them: to the receiver they are messages like any others.
//! - **Recap.** Sinks that join at a peer later than others get the last values by a part of
//!   the flow that is acknowledged by itself ([`Sender::recap`]). It goes first until it has
//!   come to where the flow is; there the peer joins both and says so. What it brings the
//!   peer's other sinks had already, so none of those waits for it; but it holds its place in the
//!   window, as a peer that is behind does, until it is there or stands still for
//!   [`Limits::evict_after`]. A peer's recaps have one part in [`RECAP_SHARE`] of
//!   the time, of which as much may be owed as one costs that stands still: who asks again and
//!   again holds the window no longer, nor does who leaves and joins again.
//!
//! A sequence number says which message of a flow it is, once and for all, so a delayed
//! or repeated frame can never be taken for another one, and no connection numbers are
//! needed: [`Sync::base`] alone says where a receiver's part begins.
//!
//! Bounds: all memory is in the machines themselves, about [`WINDOW_MAX`] times 16,
//! [`PEERS_MAX`] times 8 and [`PEERS_MAX`] + [`RECAPS_MAX`] times 130 bytes for a sender, 130 bytes
//! for a receiver. Each call looks at each peer once, at most.

mod receiver;
mod sender;

pub use insane_core::limits::PEERS_MAX;
pub use insane_wire::reliable::{Ack, Position, Sync};
pub use receiver::{Arrival, Receiver};
pub use sender::{Data, Sender};

use insane_core::{MonoTime, Nanos};

/// Recaps of one sender at a time.
pub const RECAPS_MAX: usize = 8;

/// The recaps to a peer may hold the window for one part in so many of the time.
pub const RECAP_SHARE: u64 = 8;

/// A time in which the thread of the senders was not run counts for one part in so many of
/// [`Limits::evict_after`] at most.
pub const UNSEEN_SHARE: u64 = 8;

/// How long the thread that serves senders was not run: it has not read what their peers said
/// meanwhile, and these may have stood still with it. One for all senders of a thread, since not
/// each of them is served in each of its turns.
#[derive(Clone, Copy, Debug)]
pub struct Attention {
    /// So much of the time between two turns is not missed.
    counts: Nanos,
    looked_at: Option<MonoTime>,
    missed: Nanos,
}

impl Attention {
    /// For senders of these limits, from the first turn on.
    #[must_use]
    pub const fn new(limits: &Limits) -> Self {
        let counts = Nanos(limits.evict_after.0 / UNSEEN_SHARE);
        Attention { counts, looked_at: None, missed: Nanos(0) }
    }

    /// To be called in each turn; the time that was missed so far, in all.
    #[inline]
    pub fn turn(&mut self, now: MonoTime) -> Nanos {
        let unseen = now.since(self.looked_at.replace(now).unwrap_or(now));
        self.missed.0 += unseen.0.saturating_sub(self.counts.0);
        self.missed
    }
}

/// Most messages that a sender holds.
pub const WINDOW_MAX: usize = 64;

/// Numbers of the contract; the same for all flows of a runtime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Messages of one source that are not acknowledged by all its peers, 1 to [`WINDOW_MAX`].
    pub window: u32,
    /// Bytes of those; a larger message goes alone.
    pub window_bytes: u64,
    /// Bytes under way to one peer; a larger frame goes alone.
    pub flight_bytes: u32,
    /// A peer without progress is put out after this long: what it may stall the others.
    pub evict_after: Nanos,
    /// The first heartbeat comes this long after the last frame; each further one after
    /// twice the time.
    pub sync_after: Nanos,
    /// Longest time between two heartbeats.
    pub sync_after_max: Nanos,
    /// How often a peer that was put out is asked whether it is back.
    pub probe_after: Nanos,
    /// The same loss is reported, and repaired, at most this often.
    pub repair_after: Nanos,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            window: WINDOW_MAX as u32,
            window_bytes: 16 << 20,
            flight_bytes: 128 << 10,
            evict_after: Nanos::from_millis(500),
            sync_after: Nanos::from_millis(1),
            sync_after_max: Nanos::from_millis(32),
            probe_after: Nanos::from_millis(100),
            repair_after: Nanos::from_micros(500),
        }
    }
}
