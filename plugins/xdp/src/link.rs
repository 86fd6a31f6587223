//! The half that moves frames.

use crate::config::Mode;
use crate::inbox::{Open, Tally};
use crate::program::Program;
use crate::setup::NEIGHBOURS;
use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, MonoTime, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, SendOutcome, SwapRefused};
use insane_netstack::{NeighbourId, Received, Stack, Template};
use insane_sys::SharedBytes;
use insane_wire::bundle::{Opener, is_bundle};
use insane_xdp_sys::{Chunk, Kick, SIDES, Xsk, XskCounts};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

/// Room for an answer: an echo of the largest packet that fits a chunk.
const ANSWER_BYTES: usize = 4096;

/// Which of the two sockets; the number is its side, and its place in arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    RealTime = 0,
    BestEffort = 1,
}

impl Class {
    const ALL: [Class; SIDES] = [Class::RealTime, Class::BestEffort];

    fn of(lane: Lane) -> Self {
        if lane.is_real_time() { Class::RealTime } else { Class::BestEffort }
    }
}

/// A peer as the link keeps it.
#[derive(Clone, Debug)]
pub struct XdpPeer {
    /// With port P.
    address: SocketAddr,
    /// For both classes.
    templates: [Template; SIDES],
    /// Its way, while it is in a link.
    way: Option<NeighbourId>,
}

impl XdpPeer {
    pub(crate) fn new(address: SocketAddr, templates: [Template; SIDES]) -> Self {
        XdpPeer { address, templates, way: None }
    }
}

/// What the link counts that no outcome tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct XdpCounts {
    /// Frames that were refused because nobody has answered yet where their peer is.
    pub unresolved: u64,
    /// Frames that came and were none for the link: damaged, cut, a piece, spoofed.
    pub dropped: u64,
    /// Datagrams dropped: longer than `frame_bytes_max`.
    pub truncated: u64,
    /// Bundles of a peer dropped: a length in them did not add up.
    pub bundles_malformed: u64,
    /// Questions of neighbours and echoes that were answered.
    pub answered: u64,
    /// Answers and questions that found no room.
    pub answers_lost: u64,
    /// What the sockets count.
    pub sockets: XskCounts,
}

/// Sockets, peers, and the stack between them.
#[derive(Debug)]
pub struct XdpLink {
    /// Detached when it is dropped, and so before the sockets.
    _program: Program,
    xsk: Xsk,
    stack: Stack<NEIGHBOURS>,
    peers: Box<[Option<XdpPeer>; PEERS_MAX]>,
    /// Who sent the last frame: most come from the peer of the frame before.
    last: PeerIndex,
    local: SocketAddr,
    frame_bytes_max: usize,
    mode: Mode,
    /// When the link was tended last.
    now: MonoTime,
    open: [Option<Open>; SIDES],
    answer: Box<[u8; ANSWER_BYTES]>,
    counts: XdpCounts,
}

impl XdpLink {
    pub(crate) fn new(
        program: Program,
        xsk: Xsk,
        stack: Stack<NEIGHBOURS>,
        local: SocketAddr,
        frame_bytes_max: u32,
        mode: Mode,
        now: MonoTime,
    ) -> Self {
        XdpLink {
            _program: program,
            xsk,
            stack,
            peers: Box::new([const { None }; PEERS_MAX]),
            last: PeerIndex(0),
            local,
            frame_bytes_max: frame_bytes_max as usize,
            mode,
            now,
            open: [None, None],
            answer: Box::new([0; ANSWER_BYTES]),
            counts: XdpCounts::default(),
        }
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The mode that was had.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether every peer's way is known: before, frames for it are refused.
    #[must_use]
    pub fn knows_all_ways(&self) -> bool {
        !self.stack.is_asking()
    }

    /// What the link counted so far.
    #[must_use]
    pub fn counts(&self) -> XdpCounts {
        XdpCounts { sockets: self.xsk.counts(), ..self.counts }
    }

    /// Which peer sends from this address to this class. At most [`PEERS_MAX`] looks.
    #[inline]
    fn find(&mut self, from: SocketAddr, class: Class) -> Option<PeerIndex> {
        // Both of its ports follow from the first.
        let first = SocketAddr::new(from.ip(), from.port().checked_sub(class as u16)?);
        let is_it = |peer: &Option<XdpPeer>| peer.as_ref().is_some_and(|peer| peer.address == first);
        if self.peers.get(self.last.index()).is_some_and(is_it) {
            return Some(self.last);
        }
        let at = self.peers.iter().position(is_it)?;
        self.last = PeerIndex(at as u16);
        Some(self.last)
    }

    /// Hands out of one class as much as the budget allows.
    #[inline]
    fn take<S: FrameSink>(&mut self, class: Class, tally: &mut Tally, sink: &mut S) {
        let side = class as usize;
        while !tally.is_spent() {
            if let Some(open) = self.open[side].take() {
                self.open[side] = open.hand_out(&mut self.xsk, tally, sink);
            } else if let Some(chunk) = self.xsk.receive(side) {
                self.take_frame(class, chunk, tally, sink);
            } else {
                break;
            }
        }
    }

    #[inline]
    fn take_frame<S: FrameSink>(&mut self, class: Class, chunk: Chunk, tally: &mut Tally, sink: &mut S) {
        let frame = self.xsk.bytes(&chunk);
        match self.stack.receive(self.now, frame, &mut self.answer[..]) {
            Received::Datagram { from, port, payload } if port == self.local.port() + class as u16 => {
                return self.take_datagram(class, chunk, (from, payload), tally, sink);
            }
            Received::Answer(len) => {
                let is_sent = self.send_plain(len);
                self.counts.answered += u64::from(is_sent);
            }
            Received::Heard => {}
            // Also a datagram to a port that nobody has.
            Received::Datagram { .. } | Received::Dropped(_) => self.counts.dropped += 1,
        }
        tally.use_one();
        self.xsk.give_back(chunk);
    }

    #[inline]
    fn take_datagram<S: FrameSink>(
        &mut self,
        class: Class,
        chunk: Chunk,
        (from, at): (SocketAddr, std::ops::Range<usize>),
        tally: &mut Tally,
        sink: &mut S,
    ) {
        let from = self.find(from, class);
        let payload = self.xsk.bytes(&chunk).get(at.clone()).unwrap_or_default();
        if payload.len() > self.frame_bytes_max {
            self.counts.truncated += 1;
            tally.use_one();
        } else if is_bundle(payload) && from.is_some() {
            if let Some(opener) = Opener::new(payload) {
                self.open[class as usize] = Some(Open { chunk, at, opener, from });
                return;
            }
            self.counts.bundles_malformed += 1;
            tally.use_one();
        } else {
            // Also a stranger's bundle: not opened, so that it costs what a frame does.
            tally.hand(sink, from, payload);
        }
        self.xsk.give_back(chunk);
    }

    /// Puts the first `len` bytes of `answer` into the best-effort queue.
    fn send_plain(&mut self, len: usize) -> bool {
        let Some(chunk) = self.xsk.reserve(Class::BestEffort as usize) else {
            self.counts.answers_lost += 1;
            return false;
        };
        let Some(frame) = self.xsk.bytes(&chunk).get_mut(..len) else {
            self.counts.answers_lost += 1;
            self.xsk.give_back(chunk);
            return false;
        };
        frame.copy_from_slice(&self.answer[..len]);
        self.xsk.submit(chunk, len);
        true
    }

    /// Whether a peer's address is another's.
    fn who_has(&self, address: SocketAddr, but: PeerIndex) -> Option<PeerIndex> {
        let others = self.peers.iter().enumerate().filter(|(at, _)| *at != but.index());
        let has = |peer: &Option<XdpPeer>| peer.as_ref().is_some_and(|peer| peer.address == address);
        others.filter(|(_, peer)| has(peer)).map(|(at, _)| PeerIndex(at as u16)).next()
    }
}

impl Link for XdpLink {
    type Peer = XdpPeer;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "xdp",
            frame_bytes_max: self.frame_bytes_max as u32,
            ordered: false,
            lossless: false,
            launch_time: false,
            multicast: false,
        }
    }

    #[inline]
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let len = head.len() + payload.len();
        let Some(Some(to)) = self.peers.get(peer.index()) else { return SendOutcome::Failed };
        if len > self.frame_bytes_max {
            return SendOutcome::Failed;
        }
        let Some(mac) = to.way.and_then(|way| self.stack.mac(way)) else {
            self.counts.unresolved += 1;
            return SendOutcome::Failed;
        };
        let side = Class::of(lane) as usize;
        let Some(chunk) = self.xsk.reserve(side) else {
            // What waits for the flush may be all there is.
            return match self.xsk.kick_again(side) {
                Kick::Done | Kick::More => SendOutcome::Busy,
                Kick::Refused => SendOutcome::Failed,
            };
        };
        let template = &to.templates[side];
        let front = template.head_bytes();
        let total = front + len;
        // It fits: chunks are chosen for the largest frame.
        let frame = &mut self.xsk.bytes(&chunk)[..total];
        frame[front..front + head.len()].copy_from_slice(head);
        payload.copy_to(&mut frame[front + head.len()..]);
        // A frame that begins like a bundle would be taken for one.
        if is_bundle(&frame[front..]) || !template.write(mac, false, frame) {
            self.xsk.give_back(chunk);
            return SendOutcome::Failed;
        }
        self.xsk.submit(chunk, total);
        SendOutcome::Sent
    }

    #[inline]
    fn flush(&mut self) {
        for class in Class::ALL {
            let _: Kick = self.xsk.kick(class as usize);
        }
    }

    fn holds_frames(&self) -> bool {
        self.open.iter().any(Option::is_some) || Class::ALL.iter().any(|class| self.xsk.has_unsent(*class as usize))
    }

    fn receive<S: FrameSink>(&mut self, budget: u32, _thorough: bool, sink: &mut S) -> u32 {
        let mut tally = Tally::new(budget);
        // A look at a ring costs no system call, so every call is thorough.
        for class in Class::ALL {
            self.take(class, &mut tally, sink);
        }
        self.xsk.refill();
        // What found no room before, and answers to what came.
        self.flush();
        tally.handed
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.xsk.sockets().into_iter()
    }

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<XdpPeer>) -> Result<(), SwapRefused> {
        if peer.index() >= self.peers.len() {
            return Err(SwapRefused::NoPlace);
        }
        if let Some(new) = with {
            if let Some(by) = self.who_has(new.address, peer) {
                return Err(SwapRefused::AddressTaken(by));
            }
            // The way before the other's is let go: the same neighbour keeps its place.
            new.way = self.stack.acquire(new.address.ip(), self.now);
            if new.way.is_none() {
                return Err(SwapRefused::NoPlace);
            }
        }
        std::mem::swap(&mut self.peers[peer.index()], with);
        if let Some(old) = with
            && let Some(way) = old.way.take()
        {
            self.stack.release(way);
        }
        for open in self.open.iter_mut().flatten() {
            if open.from == Some(peer) {
                open.from = None;
            }
        }
        Ok(())
    }

    fn tend(&mut self, now: MonoTime) -> bool {
        self.now = now;
        // At most one question for each place.
        for _ in 0..NEIGHBOURS {
            let Some(len) = self.stack.poll(now, &mut self.answer[..]) else { break };
            let _ = self.send_plain(len);
        }
        self.flush();
        self.stack.is_asking()
    }
}
