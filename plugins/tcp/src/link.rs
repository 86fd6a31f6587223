//! The half that moves frames.

use crate::class::Class;
use crate::connection::{Connection, End, Phase, Took};
use crate::output::Offer;
use crate::side::{Side, TcpCounts};
use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkCounts, SendOutcome, SwapRefused, Unfinished};
use insane_sys::SharedBytes;
use insane_sys::event::{Epoll, Ready};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

/// Every how many looks at a quiet best-effort connection all are looked at: a real-time
/// frame waits for seven empty looks at most. A look at all costs one call more when it
/// finds something.
const GLANCE_STRIDE: u8 = 8;

/// One look sees every connection there can be, so that real time is among what it sees.
const READY_MAX: usize = 2 * PEERS_MAX;

/// A peer as the link keeps it: its connections of both classes, with their memory.
pub struct TcpPeer(pub(crate) [Connection; 2]);

impl std::fmt::Debug for TcpPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TcpPeer").field(&self.0[0].address).finish()
    }
}

/// A peer of two connections; both are there, or none.
fn peer_of(connections: [Option<Connection>; 2]) -> Option<TcpPeer> {
    let [real_time, best_effort] = connections;
    Some(TcpPeer([real_time?, best_effort?]))
}

/// Connections, and the memory of their frames.
pub struct TcpLink {
    sides: [Side; 2],
    epoll: Epoll,
    ready: Box<[Ready; READY_MAX]>,
    local: SocketAddr,
    frame_bytes_max: usize,
    /// The connection that had a frame last.
    hot: Option<(Class, usize)>,
    /// Calls in a row that found something.
    streak: u32,
    /// Counts the single looks while best effort is quiet.
    glance: u8,
    /// Where each class begins to take frames: the peers take turns.
    first: [u32; 2],
    counts: TcpCounts,
}

impl TcpLink {
    pub(crate) fn new(sides: [Side; 2], epoll: Epoll, local: SocketAddr, frame_bytes_max: u32) -> Self {
        TcpLink {
            sides,
            epoll,
            ready: Box::new([Ready::NONE; READY_MAX]),
            local,
            frame_bytes_max: frame_bytes_max as usize,
            hot: None,
            streak: 0,
            glance: 0,
            first: [0; 2],
            counts: TcpCounts::default(),
        }
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What the link counted so far.
    #[must_use]
    pub fn counts(&self) -> TcpCounts {
        self.counts
    }

    /// Whether both classes of a peer are connected.
    #[must_use]
    pub fn is_connected(&self, peer: PeerIndex) -> bool {
        let is_live = |side: &Side| {
            let connection = side.connections.get(peer.index()).and_then(Option::as_ref);
            connection.is_some_and(|connection| matches!(connection.phase, Phase::Live { .. }))
        };
        self.sides.iter().all(is_live)
    }

    /// Takes what one connection has.
    #[inline]
    fn take<S: FrameSink>(&mut self, class: Class, peer: usize, budget: u32, sink: &mut S) -> u32 {
        let side = &mut self.sides[class as usize];
        let Some(Some(connection)) = side.connections.get_mut(peer) else { return 0 };
        let (handed, took) = connection.take(PeerIndex(peer as u16), budget, sink);
        match took {
            Took::All => side.holding &= !(1 << peer),
            Took::Part => side.holding |= 1 << peer,
            Took::Ended(end) => side.lose(peer, end, &self.epoll, &mut self.counts),
        }
        handed
    }

    /// Asks the kernel which connections have something, and pushes out where it has room
    /// again. Returns the peers of each class that may have frames.
    fn look(&mut self) -> [u64; 2] {
        let mut readable = [self.sides[0].holding, self.sides[1].holding];
        // A broken set would be a bug of this process; its frames are then not found.
        let count = self.epoll.wait(&mut self.ready[..], Some(Nanos::ZERO)).unwrap_or(0);
        for event in &self.ready[..count] {
            let (class, peer) = Side::of_token(event.token());
            let Some(side) = self.sides.get_mut(class) else { continue };
            if event.is_writable() {
                side.push(peer, &self.epoll, &mut self.counts);
            }
            if event.is_readable() && peer < PEERS_MAX {
                readable[class] |= 1 << peer;
            }
        }
        readable
    }

    /// Looks at all connections, real-time first.
    fn take_thoroughly<S: FrameSink>(&mut self, budget: u32, sink: &mut S) -> u32 {
        let readable = self.look();
        let mut handed = 0;
        let mut hot = None;
        for class in Class::BOTH {
            let first = self.first[class as usize];
            let mut left = readable[class as usize].rotate_right(first);
            while left != 0 && handed < budget {
                let peer = (left.trailing_zeros() + first) % u64::BITS;
                left &= left - 1;
                let got = self.take(class, peer as usize, budget - handed, sink);
                if got > 0 {
                    hot = hot.or(Some((class, peer as usize)));
                    handed += got;
                }
                self.first[class as usize] = (peer + 1) % u64::BITS;
            }
        }
        self.hot = hot.or(self.hot);
        handed
    }

    /// Whether a call that need not be thorough looks everywhere all the same: a burst of
    /// best effort never goes on without a look at real time, and while best effort is
    /// quiet every eighth look is one.
    #[inline]
    fn looks_everywhere(&mut self) -> bool {
        if !matches!(self.hot, Some((Class::BestEffort, _))) {
            return false;
        }
        self.glance = (self.glance + 1) % GLANCE_STRIDE;
        self.streak >= 2 || (self.streak == 0 && self.glance == 0)
    }
}

impl Link for TcpLink {
    type Peer = TcpPeer;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "tcp",
            frame_bytes_max: self.frame_bytes_max as u32,
            ordered: true,
            // What is under way when a connection breaks is lost.
            lossless: false,
            launch_time: false,
            multicast: false,
        }
    }

    #[inline]
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let side = &mut self.sides[Class::of(lane) as usize];
        let Some(Some(connection)) = side.connections.get_mut(peer.index()) else { return SendOutcome::Failed };
        let len = head.len() + payload.len();
        if len == 0 || len > self.frame_bytes_max {
            return SendOutcome::Failed;
        }
        let Phase::Live { stream, .. } = &connection.phase else { return SendOutcome::Failed };
        let offer = connection.output.offer(stream, head, payload);
        let bit = 1 << peer.index();
        side.unsent = if connection.output.is_empty() { side.unsent & !bit } else { side.unsent | bit };
        match offer {
            Offer::Taken => SendOutcome::Sent,
            Offer::Full => refused(connection),
            Offer::Broken(_) => {
                side.lose(peer.index(), End::Gone, &self.epoll, &mut self.counts);
                SendOutcome::Failed
            }
        }
    }

    /// A connection does not tell: what it has not sent waits as well for a reader that is slow (its
    /// window) or for the network (that of congestion), and then says nothing of the interface, by
    /// which slots to others go.
    fn unfinished(&mut self, _best_effort: bool) -> Option<Unfinished> {
        None
    }

    #[inline]
    fn flush(&mut self) {
        for side in &mut self.sides {
            let mut unsent = side.unsent;
            while unsent != 0 {
                let peer = unsent.trailing_zeros() as usize;
                unsent &= unsent - 1;
                side.push(peer, &self.epoll, &mut self.counts);
            }
        }
    }

    /// While frames come on one connection, a call that need not be thorough costs one
    /// system call, which takes all that has come there.
    #[inline]
    fn receive<S: FrameSink>(&mut self, budget: u32, thorough: bool, sink: &mut S) -> u32 {
        if budget == 0 {
            return 0;
        }
        let handed = if thorough || self.looks_everywhere() {
            self.take_thoroughly(budget, sink)
        } else if let Some((class, peer)) = self.hot {
            self.take(class, peer, budget, sink)
        } else {
            0
        };
        self.streak = if handed > 0 { self.streak.saturating_add(1) } else { 0 };
        handed
    }

    /// The connections that leave are closed by whoever frees them.
    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<TcpPeer>) -> Result<(), SwapRefused> {
        let at = peer.index();
        let [real_time, best_effort] = &mut self.sides;
        if at >= real_time.connections.len() {
            return Err(SwapRefused::NoPlace);
        }
        let mut new = match with.take() {
            Some(TcpPeer(connections)) => connections.map(Some),
            None => [None, None],
        };
        let address = new[0].as_ref().map(|connection| connection.address);
        let has_it = |other: &Option<Connection>| other.as_ref().is_some_and(|other| Some(other.address) == address);
        if let Some(taken) = real_time.connections.iter().position(has_it).filter(|taken| *taken != at) {
            *with = peer_of(new);
            return Err(SwapRefused::AddressTaken(PeerIndex(taken as u16)));
        }
        let [new_real_time, new_best_effort] = &mut new;
        real_time.swap(at, new_real_time, &self.epoll, &mut self.counts);
        best_effort.swap(at, new_best_effort, &self.epoll, &mut self.counts);
        *with = peer_of(new);
        Ok(())
    }

    /// One: all connections are behind it. Neither listeners nor unknown callers are.
    fn link_counts(&self) -> LinkCounts {
        self.counts().named()
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.epoll.as_fd())
    }

    #[inline]
    fn holds_frames(&self) -> bool {
        self.sides[0].holding | self.sides[1].holding != 0
    }

    fn tend(&mut self, now: MonoTime) -> bool {
        let TcpLink { sides, epoll, counts, .. } = self;
        // Both, whatever the first says.
        let [real_time, best_effort] = sides.each_mut().map(|side| side.tend(now, epoll, counts));
        real_time || best_effort
    }
}

/// A frame found no room.
#[inline]
fn refused(connection: &mut Connection) -> SendOutcome {
    if connection.refuse() { SendOutcome::Failed } else { SendOutcome::Busy }
}

impl Drop for TcpLink {
    /// What was sent and not flushed goes out, as far as there is room.
    fn drop(&mut self) {
        self.flush();
    }
}

impl std::fmt::Debug for TcpLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpLink").field("local", &self.local).field("counts", &self.counts).finish_non_exhaustive()
    }
}
