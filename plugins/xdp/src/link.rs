//! The half that moves frames.

use crate::config::Mode;
use crate::device::{Device, Exchange};
use crate::inbox::{Open, Tally};
use crate::outbox::Growing;
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_kernel_neighbours::{KernelNeighbours, WORDS};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkCounts, SendOutcome, SwapRefused, Unfinished};
use insane_netstack::{Class, Known, Mac, NEIGHBOURS, NoPlace, Peer, Peers, Received, SIDES, Stack};
use insane_sys::SharedBytes;
use insane_wire::bundle::{Opener, is_bundle};
use insane_wire::data::HEADER_BYTES;
use insane_xdp_sys::{Chunk, Kick, Xsk, XskCounts};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Room for an answer: an echo of the largest packet that fits a chunk.
const ANSWER_BYTES: usize = 4096;
/// Words of the kernel's taken in one look after the link; each is compared with all neighbours.
const WORDS_AT_ONCE: usize = 16;

/// How often the kernel is asked what it dropped.
const LOSSES_ASKED_EACH: Nanos = Nanos::from_secs(1);
/// So many frames of real time may be on their way where an answer to a neighbour goes among them.
const ANSWERS_BESIDE: u32 = 64;

/// Each class has a socket.
const _: () = assert!(SIDES == insane_xdp_sys::SIDES);

/// A peer as the link keeps it.
pub type XdpPeer = Peer;

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
    /// Frames that were refused because the interface is missing.
    pub absent: u64,
    /// How often the interface went away.
    pub interface_lost: u64,
    /// Frames that the link had taken and the interface had not when it went away, and those that
    /// were dropped there for want of a carrier; those that shared a datagram which was ready to go
    /// count as one.
    pub unsent_lost: u64,
    /// How often the kernel refused to look for a neighbour.
    pub lookups_refused: u64,
    /// What the sockets count.
    pub sockets: XskCounts,
}

impl XdpCounts {
    /// With the names that they have in reports.
    fn named(&self) -> LinkCounts {
        let names = &[
            "frames_unresolved",
            "frames_dropped",
            "datagrams_truncated",
            "bundles_malformed",
            "answers_sent",
            "answers_lost",
            "frames_interface_missing",
            "interfaces_lost",
            "frames_unsent_lost",
            "lookups_refused",
            "ring_claims_refused",
            "send_calls_refused",
            "send_calls",
            "frames_ring_full",
            "frames_kernel_dropped",
            "fill_ring_empty",
        ];
        LinkCounts::new(
            names,
            [
                self.unresolved,
                self.dropped,
                self.truncated,
                self.bundles_malformed,
                self.answered,
                self.answers_lost,
                self.absent,
                self.interface_lost,
                self.unsent_lost,
                self.lookups_refused,
                self.sockets.claims_refused,
                self.sockets.kicks_failed,
                self.sockets.calls,
                self.sockets.ring_full,
                self.sockets.dropped,
                self.sockets.fill_empty,
            ],
        )
    }
}

/// Sockets, peers, and the stack between them.
#[derive(Debug)]
pub struct XdpLink {
    /// `None`: the interface is missing.
    device: Option<Box<Device>>,
    /// By which it comes and goes.
    exchange: Arc<Exchange>,
    /// Where neighbours are the kernel's.
    borrowed: Option<Arc<KernelNeighbours>>,
    /// It has come since its sockets were asked for.
    has_new_fds: bool,
    stack: Stack<NEIGHBOURS>,
    peers: Box<Peers>,
    local: SocketAddr,
    frame_bytes_max: usize,
    /// When the link was tended last, and when the kernel was asked what it dropped.
    now: MonoTime,
    losses_asked: MonoTime,
    open: [Option<Open>; SIDES],
    /// Which queue was looked at first in the last look at several.
    first_queue: usize,
    /// By which the next datagram of each class is known, most likely.
    known: [Known; SIDES],
    /// Datagrams that wait for the flush.
    growing: [Option<Growing>; SIDES],
    answer: Box<[u8; ANSWER_BYTES]>,
    counts: XdpCounts,
}

impl XdpLink {
    pub(crate) fn new(
        (exchange, borrowed): (Arc<Exchange>, Option<Arc<KernelNeighbours>>),
        stack: Stack<NEIGHBOURS>,
        local: SocketAddr,
        frame_bytes_max: u32,
        now: MonoTime,
    ) -> Self {
        let device = exchange.take();
        XdpLink {
            device,
            exchange,
            borrowed,
            has_new_fds: false,
            stack,
            peers: Box::default(),
            local,
            frame_bytes_max: frame_bytes_max as usize,
            now,
            losses_asked: now,
            open: [None, None],
            first_queue: 0,
            known: [Known::new(); SIDES],
            growing: [None, None],
            answer: Box::new([0; ANSWER_BYTES]),
            counts: XdpCounts::default(),
        }
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The mode that was had; `None`: the interface is missing.
    #[must_use]
    pub fn mode(&self) -> Option<Mode> {
        self.device.as_ref().map(|device| device.mode)
    }

    /// Whether every peer's way is known: before, frames for it are refused. Also `false` while
    /// one does not answer where it was, to which frames still go.
    #[must_use]
    pub fn knows_all_ways(&self) -> bool {
        !self.stack.is_asking()
    }

    /// What the link counted so far.
    #[must_use]
    pub fn counts(&self) -> XdpCounts {
        let open = self.device.as_ref().map(|device| device.xsk.counts()).unwrap_or_default();
        let lookups_refused = self.borrowed.as_ref().map_or(0, |borrowed| borrowed.refused());
        let sockets = open.and(self.counts.sockets);
        let unsent_lost = self.counts.unsent_lost + sockets.send_dropped;
        XdpCounts { sockets, unsent_lost, lookups_refused, ..self.counts }
    }

    /// Hands out of one class as much as the budget allows, with what comes `next`: once for one
    /// queue, and once for several, so that one pays nothing for the others.
    #[inline(always)]
    fn take<S: FrameSink>(
        &mut self,
        class: Class,
        xsk: &mut Xsk,
        tally: &mut Tally,
        sink: &mut S,
        next: impl Fn(&mut Xsk) -> Option<Chunk>,
    ) {
        let side = class as usize;
        while !tally.is_spent() {
            if let Some(open) = self.open[side].take() {
                self.open[side] = open.hand_out(xsk, tally, sink);
            } else if let Some(chunk) = next(xsk) {
                self.take_frame(class, xsk, chunk, tally, sink);
            } else {
                break;
            }
        }
    }

    /// As [`take`](Self::take) of both classes, where there are several queues: of real time in all
    /// of them before best effort in any.
    #[inline(never)]
    fn take_of_queues<S: FrameSink>(&mut self, xsk: &mut Xsk, tally: &mut Tally, sink: &mut S) {
        let queues = xsk.queues();
        // Another is first each time, so that none waits for one that never runs dry.
        self.first_queue = (self.first_queue + 1) % queues;
        for class in Class::ALL {
            let side = class as usize;
            for number in 0..queues {
                let at = (self.first_queue + number) % queues;
                if self.open[side].is_some() || xsk.has_come_of(at, side) {
                    self.take(class, xsk, tally, sink, |xsk| xsk.receive_of(at, side));
                }
            }
        }
    }

    #[inline(always)]
    fn take_frame<S: FrameSink>(&mut self, class: Class, xsk: &mut Xsk, chunk: Chunk, tally: &mut Tally, sink: &mut S) {
        let frame = xsk.bytes(&chunk);
        let Some((from, at)) = self.known[class as usize].again(frame, self.stack.host().checksums) else {
            return self.take_any(class, xsk, chunk, tally, sink);
        };
        match frame.get(at.clone()) {
            Some(payload) if payload.len() <= self.frame_bytes_max && !is_bundle(payload) => {
                tally.hand(sink, Some(from), payload);
                xsk.give_back(chunk);
            }
            _ => self.take_datagram(class, xsk, chunk, (Some(from), at), tally, sink),
        }
    }

    /// As [`take_frame`](Self::take_frame), whatever it is.
    #[inline(never)]
    fn take_any<S: FrameSink>(&mut self, class: Class, xsk: &mut Xsk, chunk: Chunk, tally: &mut Tally, sink: &mut S) {
        let frame = xsk.bytes(&chunk);
        match self.stack.receive(self.now, frame, &mut self.answer[..]) {
            Received::Datagram { from, port, payload } if port == self.local.port() + class as u16 => {
                let from = self.peers.find(from, class);
                if let Some(from) = from {
                    self.known[class as usize].keep(from, frame, &payload);
                }
                return self.take_datagram(class, xsk, chunk, (from, payload), tally, sink);
            }
            Received::Answer(len) => {
                // A few of a stranger's questions take nothing from real time that it would miss.
                let is_urgent = xsk.unfinished(Class::RealTime as usize) < ANSWERS_BESIDE;
                let is_sent = send_plain(xsk, &self.answer[..len], is_urgent, &mut self.counts);
                self.counts.answered += u64::from(is_sent);
            }
            Received::Echo(len) => {
                let is_sent = send_plain(xsk, &self.answer[..len], false, &mut self.counts);
                self.counts.answered += u64::from(is_sent);
            }
            Received::Heard => {}
            // Also a datagram to a port that nobody has.
            Received::Datagram { .. } | Received::Dropped(_) => self.counts.dropped += 1,
        }
        tally.use_one();
        xsk.give_back(chunk);
    }

    #[inline(never)]
    fn take_datagram<S: FrameSink>(
        &mut self,
        class: Class,
        xsk: &mut Xsk,
        chunk: Chunk,
        (from, at): (Option<PeerIndex>, std::ops::Range<usize>),
        tally: &mut Tally,
        sink: &mut S,
    ) {
        let payload = xsk.bytes(&chunk).get(at.clone()).unwrap_or_default();
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
        xsk.give_back(chunk);
    }

    /// What [`receive`](Link::receive) does where there is something.
    #[inline(never)]
    fn take_all<S: FrameSink>(&mut self, budget: u32, sink: &mut S) -> u32 {
        let Some(mut device) = self.device.take() else { return 0 };
        let mut tally = Tally::new(budget);
        // A look at a ring costs no system call, so every call is thorough.
        if device.xsk.queues() > 1 {
            self.take_of_queues(&mut device.xsk, &mut tally, sink);
        } else {
            for class in Class::ALL {
                let side = class as usize;
                if self.open[side].is_some() || device.xsk.has_come(side) {
                    self.take(class, &mut device.xsk, &mut tally, sink, |xsk| xsk.receive(side));
                }
            }
        }
        device.xsk.refill();
        self.device = Some(device);
        // What found no room before, and answers to what came.
        self.flush();
        tally.handed
    }

    /// A device was opened: frames come from its hardware address, and peers are asked for anew.
    #[cold]
    fn install(&mut self, device: Box<Device>) {
        // Words about the interface before it.
        if let Some(borrowed) = &self.borrowed {
            for _ in 0..WORDS {
                let _ = borrowed.next_word();
            }
        }
        self.stack.restart(device.mac, device.checksums, self.now);
        self.known.iter_mut().for_each(Known::forget);
        self.peers.set_source(device.mac);
        self.device = Some(device);
        self.has_new_fds = true;
    }

    /// The interface is gone, down, or wanted back: what it was opened with is closed elsewhere.
    #[cold]
    fn lose(&mut self) {
        // Frames of its memory.
        self.open = [None, None];
        let growing = self.growing.iter_mut().filter_map(Option::take);
        self.counts.unsent_lost += growing.map(|growing| u64::from(growing.frames())).sum::<u64>();
        if let Some(mut device) = self.device.take() {
            device.xsk.count_losses();
            self.counts.interface_lost += 1;
            self.counts.sockets = device.xsk.counts().and(self.counts.sockets);
            self.counts.unsent_lost += u64::from(device.xsk.left());
            self.exchange.give_back(device);
        }
    }

    /// Asks where neighbours are, or has it asked by the kernel.
    fn ask(&mut self, now: MonoTime) {
        let Some(device) = &mut self.device else { return };
        // At most one question for each place.
        let Some(borrowed) = &self.borrowed else {
            for _ in 0..NEIGHBOURS {
                let Some(len) = self.stack.poll(now, &mut self.answer[..]) else { break };
                let _ = send_plain(&mut device.xsk, &self.answer[..len], true, &mut self.counts);
            }
            return;
        };
        for _ in 0..WORDS_AT_ONCE {
            let Some((address, told)) = borrowed.next_word() else { break };
            // It may be of a peer that left.
            let _ = self.stack.tell(address, told, now);
        }
        let mut has_asked = false;
        for _ in 0..NEIGHBOURS {
            let Some(question) = self.stack.next_question(now) else { break };
            borrowed.ask(question.address);
            has_asked = true;
        }
        if has_asked {
            borrowed.wake();
        }
    }

    /// A place for a frame of this peer, if there is one.
    #[inline]
    fn place(&mut self, peer: PeerIndex, class: Class, len: usize) -> Result<(Chunk, Mac), SendOutcome> {
        let Some(to) = self.peers.get(peer) else { return Err(SendOutcome::Failed) };
        if len > self.frame_bytes_max {
            return Err(SendOutcome::Failed);
        }
        let Some(device) = &mut self.device else {
            self.counts.absent += 1;
            return Err(SendOutcome::Failed);
        };
        let Some(mac) = to.mac(&self.stack) else {
            self.counts.unresolved += 1;
            return Err(SendOutcome::Failed);
        };
        let side = class as usize;
        let Some(chunk) = device.xsk.reserve(side) else {
            // What waits for the flush may be all there is.
            return Err(match device.xsk.kick_again(side) {
                Kick::Done | Kick::More => SendOutcome::Busy,
                Kick::Refused => {
                    self.lose();
                    self.counts.absent += 1;
                    SendOutcome::Failed
                }
            });
        };
        Ok((chunk, mac))
    }

    /// The datagram of a side grows no more, and goes with the next call of the kernel.
    #[inline]
    fn close(&mut self, class: Class) {
        let side = class as usize;
        let Some(growing) = self.growing[side].take() else { return };
        let (Some(device), Some(to)) = (&mut self.device, self.peers.get(growing.peer)) else { return };
        let bytes = device.xsk.bytes(&growing.chunk);
        let datagram = growing.finish(bytes, to.template(class).head_bytes());
        if to.write(class, growing.priority, growing.mac, &mut bytes[datagram.clone()]) {
            device.xsk.submit(growing.chunk, datagram);
        } else {
            device.xsk.give_back(growing.chunk);
        }
    }

    /// Whether a frame joined those that wait.
    #[inline]
    fn join(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> bool {
        let class = Class::of(lane);
        let (Some(device), Some(to)) = (&mut self.device, self.peers.get(peer)) else { return false };
        let is_alike = |growing: &&mut Growing| (growing.peer, growing.priority) == (peer, to.priority(lane));
        let Some(growing) = self.growing[class as usize].as_mut().filter(is_alike) else { return false };
        let bytes = device.xsk.bytes(&growing.chunk);
        growing.join(bytes, (to.template(class).head_bytes(), self.frame_bytes_max), head, payload)
    }
}

/// Copies a frame to where it belongs in a chunk: whether it has room there, and does not begin
/// as a bundle does, for which it would be taken.
#[inline(always)]
fn put(bytes: &mut [u8], at: usize, head: &[u8], payload: SharedBytes<'_>) -> bool {
    let len = head.len() + payload.len();
    let Some(room) = bytes.get_mut(at..at + len) else { return false };
    match (room.split_first_chunk_mut(), <&[u8; HEADER_BYTES]>::try_from(head)) {
        // A copy of constant length.
        (Some((front, behind)), Ok(head)) => {
            *front = *head;
            payload.copy_to(behind);
        }
        _ => {
            let (front, behind) = room.split_at_mut(head.len());
            front.copy_from_slice(head);
            payload.copy_to(behind);
        }
    }
    !is_bundle(room)
}

/// Puts a frame of the stack's own into the best-effort queue; an urgent one, which real time
/// depends on as well, into that of real time where the other is full.
fn send_plain(xsk: &mut Xsk, bytes: &[u8], is_urgent: bool, counts: &mut XdpCounts) -> bool {
    let beside = if is_urgent { Some(Class::RealTime as usize) } else { None };
    let Some(chunk) = xsk.reserve(Class::BestEffort as usize).or_else(|| xsk.reserve(beside?)) else {
        counts.answers_lost += 1;
        return false;
    };
    let Some(frame) = xsk.bytes(&chunk).get_mut(..bytes.len()) else {
        counts.answers_lost += 1;
        xsk.give_back(chunk);
        return false;
    };
    frame.copy_from_slice(bytes);
    xsk.submit(chunk, 0..bytes.len());
    true
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

    /// Small frames of one peer and class, in a VLAN of one priority, share datagrams until the
    /// flush.
    #[inline]
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let class = Class::of(lane);
        let side = class as usize;
        if self.growing[side].is_some() {
            if self.join(peer, lane, head, payload) {
                return SendOutcome::Sent;
            }
            self.close(class);
        }
        let (chunk, mac) = match self.place(peer, class, head.len() + payload.len()) {
            Ok(place) => place,
            Err(outcome) => return outcome,
        };
        let (Some(device), Some(to)) = (&mut self.device, self.peers.get(peer)) else {
            return SendOutcome::Failed;
        };
        let at = Growing::first_at(to.template(class).head_bytes());
        let end = at + head.len() + payload.len();
        // A frame that begins like a bundle would be taken for one.
        if !put(device.xsk.bytes(&chunk), at, head, payload) {
            device.xsk.give_back(chunk);
            return SendOutcome::Failed;
        }
        self.growing[side] = Some(Growing::new(chunk, (peer, to.priority(lane)), mac, end));
        SendOutcome::Sent
    }

    #[inline]
    fn send_alone(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let class = Class::of(lane);
        let side = class as usize;
        let len = head.len() + payload.len();
        // The plain case; whatever else it is, `send` tells, and counts.
        if self.growing[side].is_none()
            && len <= self.frame_bytes_max
            && let (Some(device), Some(to)) = (&mut self.device, self.peers.get(peer))
            && let Some(mac) = to.mac(&self.stack)
            && let Some(chunk) = device.xsk.reserve(side)
        {
            let at = to.template(class).head_bytes();
            let bytes = device.xsk.bytes(&chunk).get_mut(..at + len).unwrap_or_default();
            if put(bytes, at, head, payload) && to.write(class, to.priority(lane), mac, bytes) {
                device.xsk.submit(chunk, 0..at + len);
                return SendOutcome::Sent;
            }
            device.xsk.give_back(chunk);
            return SendOutcome::Failed;
        }
        self.send(peer, lane, head, payload)
    }

    /// Datagrams whose chunks the kernel has not given back: a look at a ring. While the interface
    /// is missing, none.
    fn unfinished(&mut self, best_effort: bool) -> Option<Unfinished> {
        let Some(device) = &mut self.device else { return Some(Unfinished::default()) };
        let classes = &Class::ALL[..if best_effort { 2 } else { 1 }];
        let amount = classes.iter().map(|class| u64::from(device.xsk.unfinished(*class as usize))).sum();
        Some(Unfinished { amount, lag: device.lag })
    }

    #[inline]
    fn flush(&mut self) {
        // Asked with each look, and most have nothing.
        if self.growing.iter().any(Option::is_some) {
            Class::ALL.iter().for_each(|class| self.close(*class));
        }
        if let Some(device) = &mut self.device
            && device.xsk.has_unsent_of_any()
        {
            let kicks = Class::ALL.map(|class| device.xsk.kick(class as usize));
            if kicks.contains(&Kick::Refused) {
                self.lose();
            }
        }
    }

    #[inline]
    fn holds_frames(&self) -> bool {
        let Some(device) = &self.device else { return false };
        let is_growing = self.growing.iter().any(Option::is_some);
        is_growing || self.open.iter().any(Option::is_some) || device.xsk.has_unsent_of_any()
    }

    #[inline]
    fn receive<S: FrameSink>(&mut self, budget: u32, _thorough: bool, sink: &mut S) -> u32 {
        let Some(device) = &mut self.device else { return 0 };
        // Most looks find nothing, and have nothing to do.
        let is_idle = !device.xsk.has_come_to_any()
            && !device.xsk.has_unsent_of_any()
            && self.open.iter().all(Option::is_none)
            && self.growing.iter().all(Option::is_none);
        if is_idle {
            device.xsk.wake_device();
            return 0;
        }
        self.take_all(budget, sink)
    }

    fn link_counts(&self) -> LinkCounts {
        self.counts().named()
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.device.iter().flat_map(|device| device.xsk.sockets()).flat_map(|(_, sides)| sides)
    }

    fn take_new_fds(&mut self) -> bool {
        std::mem::take(&mut self.has_new_fds)
    }

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<XdpPeer>) -> Result<(), SwapRefused> {
        // What waits goes to who was there.
        for class in Class::ALL {
            self.close(class);
        }
        self.peers.swap(&mut self.stack, peer, with, self.now).map_err(|refused| match refused {
            NoPlace::Taken(by) => SwapRefused::AddressTaken(by),
            NoPlace::Full => SwapRefused::NoPlace,
        })?;
        self.known.iter_mut().for_each(Known::forget);
        for open in self.open.iter_mut().flatten() {
            if open.from == Some(peer) {
                open.from = None;
            }
        }
        Ok(())
    }

    fn tend(&mut self, now: MonoTime) -> bool {
        self.now = now;
        if self.device.is_none()
            && let Some(device) = self.exchange.take()
        {
            self.install(device);
        }
        let is_over = |device: &Device| self.exchange.is_recalled() || device.xsk.is_gone();
        if self.device.as_deref().is_some_and(is_over) {
            self.lose();
        }
        if self.device.is_none() {
            return false;
        }
        if now.since(self.losses_asked) >= LOSSES_ASKED_EACH
            && let Some(device) = &mut self.device
        {
            self.losses_asked = now;
            device.xsk.count_losses();
        }
        self.ask(now);
        self.flush();
        self.stack.is_asking()
    }
}
