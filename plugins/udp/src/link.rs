//! The half that moves frames.

use crate::peers::PeerTable;
use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, SendOutcome};
use insane_sys::udp::{self, Address, Batch};
use insane_sys::{Errno, SharedBytes};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// Datagrams that one call takes when many wait. 32 share the cost of the call to
/// a few per cent of a datagram's own.
const BATCH: usize = 32;

/// Both ports of one peer, in the order of [`Class`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddresses(pub(crate) [Address; 2]);

/// Which of the two sockets; the number is its place in arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    RealTime = 0,
    BestEffort = 1,
}

impl Class {
    fn of(lane: Lane) -> Self {
        if lane.is_real_time() { Class::RealTime } else { Class::BestEffort }
    }
}

/// What the link counts that no outcome tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UdpCounts {
    /// Datagrams dropped: longer than `frame_bytes_max`.
    pub truncated: u64,
    /// Sends repeated, because the first attempt met an error of an earlier frame.
    pub repeated: u64,
}

/// Sockets, peers and the memory that frames are received into.
pub struct UdpLink {
    sockets: [UdpSocket; 2],
    tables: [PeerTable; 2],
    peers: Box<[Option<PeerAddresses>]>,
    local: SocketAddr,
    frame_bytes_max: usize,
    /// The socket that had a frame last.
    hot: Class,
    /// Calls in a row that found something. From the second on there is likely more
    /// than one frame waiting.
    streak: u32,
    /// Counts the single looks while best effort is quiet.
    glance: u8,
    /// Looks since the last real-time frame; stops at [`QUIET_LOOKS`].
    quiet: u32,
    /// The one peer there is, if the sockets are connected to it.
    lone: Option<PeerIndex>,
    /// Whether each socket holds frames of the lone peer only: connected, and found
    /// empty since, so that nothing from before is left in it.
    heard_alone: [bool; 2],
    single: Box<[u8]>,
    batch: Batch,
    counts: UdpCounts,
}

/// Every how many looks at a quiet best-effort socket the real-time one is looked at,
/// while real-time frames come.
const GLANCE_STRIDE: u8 = 4;
/// After so many looks without a real-time frame (20 ms of spinning: more than a cycle)
/// only thorough calls look for one. The first of a new series then waits for at most
/// fifteen empty looks (5 us), instead of three.
const QUIET_LOOKS: u32 = 65_536;

impl UdpLink {
    pub(crate) fn new(
        sockets: [UdpSocket; 2],
        tables: [PeerTable; 2],
        peers: Box<[Option<PeerAddresses>]>,
        frame_bytes_max: u32,
        local: SocketAddr,
        lone: Option<PeerIndex>,
    ) -> Self {
        let frame_bytes_max = frame_bytes_max as usize;
        UdpLink {
            sockets,
            tables,
            peers,
            local,
            frame_bytes_max,
            hot: Class::RealTime,
            streak: 0,
            glance: 0,
            quiet: QUIET_LOOKS,
            lone,
            heard_alone: [false; 2],
            single: vec![0; frame_bytes_max].into_boxed_slice(),
            batch: Batch::new(BATCH, frame_bytes_max),
            counts: UdpCounts::default(),
        }
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What the link counted so far.
    #[must_use]
    pub fn counts(&self) -> UdpCounts {
        self.counts
    }

    /// Takes one datagram of `class` with one call. Returns how many datagrams it took
    /// and how many frames it handed out.
    #[inline]
    fn take_one<S: FrameSink>(&mut self, class: Class, sink: &mut S) -> (u32, u32) {
        let Some((len, from)) = self.next_datagram(class) else {
            self.heard_alone[class as usize] = self.lone.is_some();
            return (0, 0);
        };
        if len > self.single.len() {
            self.counts.truncated += 1;
            return (1, 0);
        }
        self.note_frame(class);
        sink.frame(from, &self.single[..len]);
        (1, 1)
    }

    #[inline]
    fn next_datagram(&mut self, class: Class) -> Option<(usize, Option<PeerIndex>)> {
        let (class, socket) = (class as usize, &self.sockets[class as usize]);
        if self.heard_alone[class] {
            return udp::recv(socket, &mut self.single).map(|len| (len, self.lone));
        }
        udp::recv_from(socket, &mut self.single).map(|(len, from)| (len, self.tables[class].find(from)))
    }

    /// Takes up to `budget` datagrams of `class`, [`BATCH`] a call, until one call
    /// brings fewer than asked. Returns how many datagrams it took and how many frames
    /// it handed out.
    fn take_burst<S: FrameSink>(&mut self, class: Class, budget: u32, sink: &mut S) -> (u32, u32) {
        let (mut taken, mut handed) = (0, 0);
        while taken < budget {
            let asked = (budget - taken).min(BATCH as u32);
            let got = self.batch.receive(&self.sockets[class as usize], asked as usize) as u32;
            for datagram in self.batch.datagrams() {
                if datagram.truncated {
                    self.counts.truncated += 1;
                    continue;
                }
                sink.frame(self.tables[class as usize].find(datagram.from), datagram.bytes);
                handed += 1;
            }
            taken += got;
            if got < asked {
                break;
            }
        }
        (taken, handed)
    }

    /// One, and as there was one, all others within the budget. A call for one costs less than
    /// one for many, and mostly there is none.
    fn take_all<S: FrameSink>(&mut self, class: Class, budget: u32, sink: &mut S) -> (u32, u32) {
        if budget == 0 {
            return (0, 0);
        }
        let (first, first_handed) = self.take_one(class, sink);
        if first == 0 {
            return (0, 0);
        }
        let (taken, handed) = self.take_burst(class, budget - 1, sink);
        (first + taken, first_handed + handed)
    }

    #[inline]
    fn note_frame(&mut self, class: Class) {
        self.hot = class;
        if class == Class::RealTime {
            self.quiet = 0;
        }
    }

    /// Where a single look goes: to the socket that had the last frame; but while best
    /// effort is quiet every fourth look goes to the real-time socket, so that its frames
    /// never wait for longer than three empty looks (1 us).
    #[inline]
    fn next_class(&mut self) -> Class {
        if self.hot == Class::RealTime || self.streak > 0 || self.quiet >= QUIET_LOOKS {
            return self.hot;
        }
        self.quiet += 1;
        self.glance = (self.glance + 1) % GLANCE_STRIDE;
        if self.glance == 0 { Class::RealTime } else { Class::BestEffort }
    }

    /// Looks at both sockets, real-time first.
    fn take_thoroughly<S: FrameSink>(&mut self, budget: u32, sink: &mut S) -> (u32, u32) {
        let (taken, handed) = self.take_all(Class::RealTime, budget, sink);
        let (taken_after, handed_after) = self.take_all(Class::BestEffort, budget - taken, sink);
        if taken > 0 {
            self.note_frame(Class::RealTime);
        } else if taken_after > 0 {
            self.note_frame(Class::BestEffort);
        }
        (taken + taken_after, handed + handed_after)
    }
}

impl Link for UdpLink {
    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "udp",
            frame_bytes_max: self.frame_bytes_max as u32,
            ordered: false,
            lossless: false,
            launch_time: false,
        }
    }

    #[inline]
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let Some(Some(addresses)) = self.peers.get(peer.index()) else { return SendOutcome::Failed };
        if head.len() + payload.len() > self.frame_bytes_max {
            return SendOutcome::Failed;
        }
        let class = Class::of(lane) as usize;
        let to = self.lone.is_none().then_some(&addresses.0[class]);
        let mut outcome = udp::send(&self.sockets[class], to, head, payload);
        // The kernel reports an earlier frame's fate at the next call, which then has
        // sent nothing; having been reported, it is gone.
        if let udp::SendOutcome::Failed(Errno::ECONNREFUSED | Errno::EHOSTUNREACH) = outcome {
            self.counts.repeated += 1;
            outcome = udp::send(&self.sockets[class], to, head, payload);
        }
        match outcome {
            udp::SendOutcome::Sent => SendOutcome::Sent,
            udp::SendOutcome::WouldBlock => SendOutcome::Busy,
            udp::SendOutcome::Failed(_) => SendOutcome::Failed,
        }
    }

    /// Nothing: `send` holds nothing back.
    fn flush(&mut self) {}

    /// While frames come one at a time, a call that need not be thorough costs one
    /// system call (see `next_class`). When two calls in a row found
    /// something, frames are taken in batches, and a best-effort batch is never taken
    /// before the real-time socket was looked at: at most two best-effort frames go
    /// ahead of a waiting real-time one until the next thorough call.
    #[inline]
    fn receive<S: FrameSink>(&mut self, budget: u32, thorough: bool, sink: &mut S) -> u32 {
        if budget == 0 {
            return 0;
        }
        let (taken, handed) = if thorough || (self.streak >= 2 && self.hot == Class::BestEffort) {
            self.take_thoroughly(budget, sink)
        } else if self.streak >= 2 {
            self.take_burst(self.hot, budget, sink)
        } else {
            let class = self.next_class();
            self.take_one(class, sink)
        };
        self.streak = if taken > 0 { self.streak.saturating_add(1) } else { 0 };
        handed
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(AsFd::as_fd)
    }
}

impl std::fmt::Debug for UdpLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpLink").field("local", &self.local).field("counts", &self.counts).finish_non_exhaustive()
    }
}
