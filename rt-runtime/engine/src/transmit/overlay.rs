//! Frames of the control plane: heartbeats of links and membership, mostly.
//!
//! Without slots they go when they come. Where there are slots, they are the last of real time: one
//! goes where it ends before the next slot and before its gate shuts, no late message waits, and
//! nothing of the lanes may go now or only a chunk of best effort, which waits for it. So they
//! displace no slot, and a guard is not touched.
//!
//! A table that leaves no room for [`PATIENCE`] does not cut its own link off: then one a turn goes
//! all the same. It is one of the frames that `foreign_bytes` of the link's timing allows for, which
//! are before each guard.
//!
//! Bounds: [`HELD_MAX`] are held, 1.5 KB each, and only where slots may be had. What comes beyond
//! that is lost: the control plane says everything again.

use crate::OVERLAY_BODY_MAX;
use crate::engine::Links;
use insane_core::{HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{Link, SendOutcome};
use insane_sys::SharedBytes;
use insane_wire::data::{DataHeader, HEADER_BYTES};
use std::collections::VecDeque;

/// For so long one waits for room between slots: less than a heartbeat of a link may be late.
const PATIENCE: Nanos = Nanos::from_millis(20);
/// Frames held: two heartbeats to each peer.
const HELD_MAX: usize = 128;

/// A frame of the control plane.
#[derive(Debug)]
pub(crate) struct Said {
    /// To whom; `None`: to the group of the link.
    pub peer: Option<PeerIndex>,
    /// Place of the link.
    pub link: usize,
    pub lane: Lane,
    pub body: heapless::Vec<u8, OVERLAY_BODY_MAX>,
}

impl Said {
    /// Hands it to its link; one that finds no room is lost, and said again. Bytes with the header.
    pub fn send<L: Link>(&self, (host, incarnation): (HostId, Incarnation), links: &mut Links<L>) -> usize {
        let head = DataHeader::overlay(host, incarnation, self.body.len() as u32);
        let head = DataHeader { lane: self.lane, ..head }.encode();
        let body = SharedBytes::from(self.body.as_slice());
        match links.say(self.link, self.peer, self.lane, &head, body) {
            SendOutcome::Sent | SendOutcome::Busy | SendOutcome::Failed => {}
        }
        HEADER_BYTES + self.body.len()
    }
}

/// Those that wait for room between slots, and until when each does.
#[derive(Debug)]
pub(super) struct HeldBack {
    frames: VecDeque<(MonoTime, Said)>,
}

impl HeldBack {
    pub fn new() -> Self {
        HeldBack { frames: VecDeque::with_capacity(HELD_MAX) }
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    pub fn push(&mut self, now: MonoTime, said: Said) {
        if self.frames.len() < HELD_MAX {
            self.frames.push_back((now + PATIENCE, said));
        }
    }

    /// Until when the first one waits for room.
    pub fn until(&self) -> Option<MonoTime> {
        self.frames.front().map(|(until, _)| *until)
    }

    /// The first one, where there is room: of that its lane and its bytes with the header are told.
    pub fn take_if(&mut self, may: impl FnOnce(Lane, usize) -> bool) -> Option<Said> {
        let (_, said) = self.frames.front()?;
        if may(said.lane, HEADER_BYTES + said.body.len()) { self.take() } else { None }
    }

    pub fn take(&mut self) -> Option<Said> {
        self.frames.pop_front().map(|(_, said)| said)
    }
}
