//! The half that moves frames.

use crate::device::{Device, Exchange};
use crate::health::{Health, Look};
use crate::inbox::{Datagram, Inbox, Tally};
use dpdk_sys::{BURST, Counts, Frame};
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, LinkCounts, SendOutcome, SwapRefused};
use insane_netstack::{Class, NEIGHBOURS, NoPlace, Peer, Peers, Received, SIDES, Stack};
use insane_sys::SharedBytes;
use insane_wire::bundle::{Opener, is_bundle};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Room for an answer: an echo of the largest packet.
const ANSWER_BYTES: usize = 9216;
/// Datagrams that wait to be handed out. More best-effort ones are dropped; of real-time ones
/// more stay with the device.
pub(crate) const REAL_TIME_WAITING: usize = 512;
pub(crate) const BEST_EFFORT_WAITING: usize = 1024;
/// Frames of each class that wait to be sent: one call of the driver.
pub(crate) const OUTBOX: usize = BURST;
/// Frames that one call takes from the device.
const PULLED_MAX: usize = 256;
/// How often a NIC on a bus is asked how it is: its registers are slow.
const NIC_ASKED_EACH: Nanos = Nanos::from_millis(100);

/// A peer as the link keeps it.
pub type DpdkPeer = Peer;

/// What the link counts that no outcome tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DpdkCounts {
    /// Frames that were refused because nobody has answered yet where their peer is.
    pub unresolved: u64,
    /// Frames that came and were none for the link: another's, damaged, a piece, spoofed.
    pub dropped: u64,
    /// Datagrams dropped: longer than `frame_bytes_max`.
    pub truncated: u64,
    /// Best-effort datagrams dropped: more came than were taken.
    pub flooded: u64,
    /// Bundles of a peer dropped: a length in them did not add up.
    pub bundles_malformed: u64,
    /// Questions of neighbours and echoes that were answered.
    pub answered: u64,
    /// Answers and questions that found no room.
    pub answers_lost: u64,
    /// Frames that were refused because the device fails, and those that waited for it then.
    pub device_failed: u64,
    /// Devices that were lost while the link was in use.
    pub devices_lost: u64,
    /// What the present device counts.
    pub device: Counts,
}

impl DpdkCounts {
    /// With the names that they have in reports. Without what the device counts: asking it may
    /// be slow.
    fn named(&self) -> LinkCounts {
        let names = &[
            "frames_unresolved",
            "frames_dropped",
            "datagrams_truncated",
            "datagrams_flooded",
            "bundles_malformed",
            "answers_sent",
            "answers_lost",
            "frames_device_missing",
            "devices_lost",
        ];
        LinkCounts::new(
            names,
            [
                self.unresolved,
                self.dropped,
                self.truncated,
                self.flooded,
                self.bundles_malformed,
                self.answered,
                self.answers_lost,
                self.device_failed,
                self.devices_lost,
            ],
        )
    }
}

/// What a link is made of.
pub(crate) struct Parts {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) stack: Stack<NEIGHBOURS>,
    pub(crate) local: SocketAddr,
    pub(crate) frame_bytes_max: u32,
    pub(crate) poll_each: Nanos,
    pub(crate) now: MonoTime,
}

/// Port, peers, and the stack between them.
#[derive(Debug)]
pub struct DpdkLink {
    /// `None`: it is missing, and every frame is refused.
    device: Option<Box<Device>>,
    exchange: Arc<Exchange>,
    stack: Stack<NEIGHBOURS>,
    peers: Box<Peers>,
    local: SocketAddr,
    frame_bytes_max: usize,
    poll_each: Nanos,
    /// When the link was tended last, and when its device was looked at.
    now: MonoTime,
    looked: MonoTime,
    inboxes: [Inbox; SIDES],
    outboxes: [Vec<Frame>; SIDES],
    health: Health,
    /// Frames that the driver took.
    taken: u64,
    answer: Box<[u8; ANSWER_BYTES]>,
    counts: DpdkCounts,
}

impl DpdkLink {
    pub(crate) fn new(parts: Parts) -> Self {
        DpdkLink {
            device: parts.exchange.ports.take(),
            exchange: parts.exchange,
            stack: parts.stack,
            peers: Box::default(),
            local: parts.local,
            frame_bytes_max: parts.frame_bytes_max as usize,
            poll_each: parts.poll_each,
            now: parts.now,
            looked: parts.now,
            inboxes: [Inbox::new(REAL_TIME_WAITING), Inbox::new(BEST_EFFORT_WAITING)],
            outboxes: [Vec::with_capacity(OUTBOX), Vec::with_capacity(OUTBOX)],
            health: Health::new(),
            taken: 0,
            answer: Box::new([0; ANSWER_BYTES]),
            counts: DpdkCounts::default(),
        }
    }

    /// The address with port P: what peers are told.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Whether every peer's way is known: before, frames for it are refused. Also `false` while
    /// one does not answer where it was, to which frames still go.
    #[must_use]
    pub fn knows_all_ways(&self) -> bool {
        !self.stack.is_asking()
    }

    /// Whether the device is missing, or has stopped to take frames.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.device.is_none() || self.health.is_failing()
    }

    /// What the link counted so far, and its device. Not for a datapath: some devices are slow
    /// to tell.
    pub fn counts(&mut self) -> DpdkCounts {
        DpdkCounts {
            device: self.device.as_mut().map(|device| device.port.counts()).unwrap_or_default(),
            ..self.counts
        }
    }

    /// Takes frames from the device and sorts them, so that real-time ones are found behind
    /// all others.
    #[inline]
    fn pull(&mut self) {
        for _ in 0..PULLED_MAX {
            if self.inboxes[Class::RealTime as usize].is_full() {
                break;
            }
            let Some(frame) = self.device.as_mut().and_then(|device| device.port.receive()) else { break };
            self.take_frame(frame);
        }
    }

    #[inline]
    fn take_frame(&mut self, frame: Frame) {
        let Some(device) = &mut self.device else { return };
        let bytes = device.port.bytes(&frame);
        match self.stack.receive(self.now, bytes, &mut self.answer[..]) {
            Received::Datagram { from, port, payload } => {
                let classes = Class::ALL.into_iter();
                if let Some(class) = classes.into_iter().find(|class| port == self.local.port() + *class as u16) {
                    return self.take_datagram(class, frame, (from, payload));
                }
                // To a port that nobody has.
                self.counts.dropped += 1;
            }
            Received::Answer(len) => {
                let is_sent = self.send_plain(len, true);
                self.counts.answered += u64::from(is_sent);
            }
            Received::Echo(len) => {
                let is_sent = self.send_plain(len, false);
                self.counts.answered += u64::from(is_sent);
            }
            Received::Heard => {}
            Received::Dropped(_) => self.counts.dropped += 1,
        }
        self.release(frame);
    }

    #[inline]
    fn release(&mut self, frame: Frame) {
        if let Some(device) = &mut self.device {
            device.port.release(frame);
        }
    }

    #[inline]
    fn take_datagram(&mut self, class: Class, frame: Frame, (from, at): (SocketAddr, Range<usize>)) {
        let from = self.peers.find(from, class);
        let Some(Device { port, .. }) = self.device.as_deref_mut() else { return };
        let payload = port.bytes(&frame).get(at.clone()).unwrap_or_default();
        let mut opener = None;
        if payload.len() > self.frame_bytes_max {
            self.counts.truncated += 1;
            return port.release(frame);
        }
        // A stranger's is not opened, so that it costs what a frame does.
        if is_bundle(payload) && from.is_some() {
            opener = Opener::new(payload);
            if opener.is_none() {
                self.counts.bundles_malformed += 1;
                return port.release(frame);
            }
        }
        if let Err(refused) = self.inboxes[class as usize].put(Datagram { frame, at, from, opener }) {
            self.counts.flooded += 1;
            port.release(refused.frame);
        }
    }

    /// Puts the first `len` bytes of `answer` among the best-effort frames; if it is urgent, as
    /// real time depends on it as well, among those of real time where the others have no room and
    /// few wait: a stranger's questions must not fill those.
    fn send_plain(&mut self, len: usize, is_urgent: bool) -> bool {
        let few = self.outboxes[Class::RealTime as usize].len() < OUTBOX / 8;
        let is_beside = is_urgent && !self.make_room(Class::BestEffort as usize) && few;
        let side = if is_beside { Class::RealTime } else { Class::BestEffort } as usize;
        let device = if self.make_room(side) { self.device.as_deref_mut() } else { None };
        let reserved = device.and_then(|device| device.port.reserve().map(|frame| (&mut device.port, frame)));
        let Some((port, mut frame)) = reserved else {
            self.counts.answers_lost += 1;
            return false;
        };
        let Some(room) = port.room(&frame).get_mut(..len) else {
            self.counts.answers_lost += 1;
            port.release(frame);
            return false;
        };
        room.copy_from_slice(&self.answer[..len]);
        frame.set_len(len);
        self.outboxes[side].push(frame);
        true
    }

    /// Whether a frame of this class may be added to those that wait.
    #[inline]
    fn make_room(&mut self, side: usize) -> bool {
        if self.outboxes[side].len() == OUTBOX {
            self.push_out();
        }
        self.outboxes[side].len() < OUTBOX
    }

    /// Two calls of the driver at most: best-effort frames go when no real-time frame waits.
    #[inline]
    fn push_out(&mut self) {
        let Some(Device { port, .. }) = self.device.as_deref_mut() else { return };
        for outbox in &mut self.outboxes {
            if outbox.is_empty() {
                continue;
            }
            self.taken += port.send(outbox) as u64;
            if !outbox.is_empty() {
                break;
            }
        }
    }

    fn are_unsent(&self) -> bool {
        self.outboxes.iter().any(|outbox| !outbox.is_empty())
    }

    /// Looks whether the device still does, and drops what waits if it does not.
    fn look_after(&mut self, now: MonoTime) {
        let are_waiting = self.are_unsent();
        let Some(Device { port, is_vdev, .. }) = self.device.as_deref_mut() else { return };
        if !*is_vdev && now.since(self.looked) < NIC_ASKED_EACH {
            return;
        }
        self.looked = now;
        // One that cannot say has a carrier.
        let is_up = port.is_up().unwrap_or(true);
        // A NIC says it by its carrier, and is slow to count.
        let counts = if *is_vdev { port.counts() } else { Counts::default() };
        let look = Look { is_up, sent: counts.sent, errors: counts.send_errors, taken: self.taken, are_waiting };
        self.health.look(look, now);
        self.exchange.set_failing(self.health.is_failing());
        if !self.health.is_failing() {
            return;
        }
        for outbox in &mut self.outboxes {
            while let Some(frame) = outbox.pop() {
                self.counts.device_failed += 1;
                port.release(frame);
            }
        }
    }

    /// A device was opened: frames come from its hardware address, and peers are asked for anew.
    #[cold]
    fn install(&mut self, device: Box<Device>) {
        self.stack.restart(device.mac, device.checksums, self.now);
        self.peers.set_source(device.mac);
        self.health = Health::new();
        self.taken = 0;
        self.looked = self.now;
        self.device = Some(device);
    }

    /// The device is wanted back: its port gets all frames back, and is closed elsewhere.
    #[cold]
    fn lose(&mut self) {
        let Some(mut device) = self.device.take() else { return };
        self.counts.devices_lost += 1;
        let unsent: usize = self.outboxes.iter().map(Vec::len).sum();
        self.counts.device_failed += unsent as u64;
        self.return_frames(&mut device);
        self.exchange.ports.give_back(device);
    }

    /// What came, and what was to be sent. At most as many as there is room for.
    fn return_frames(&mut self, device: &mut Device) {
        for inbox in &mut self.inboxes {
            inbox.clear(&mut device.port);
        }
        for frame in self.outboxes.iter_mut().flat_map(|outbox| outbox.drain(..)) {
            device.port.release(frame);
        }
    }
}

impl Drop for DpdkLink {
    /// Its port gets all frames back.
    fn drop(&mut self) {
        if let Some(mut device) = self.device.take() {
            self.return_frames(&mut device);
        }
    }
}

impl Link for DpdkLink {
    type Peer = DpdkPeer;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "dpdk",
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
        let Some(to) = self.peers.get(peer) else { return SendOutcome::Failed };
        if len > self.frame_bytes_max {
            return SendOutcome::Failed;
        }
        if self.device.is_none() {
            self.counts.device_failed += 1;
            return SendOutcome::Failed;
        }
        let Some(mac) = to.mac(&self.stack) else {
            self.counts.unresolved += 1;
            return SendOutcome::Failed;
        };
        if !self.health.allows() {
            self.counts.device_failed += 1;
            return SendOutcome::Failed;
        }
        let class = Class::of(lane);
        let side = class as usize;
        if !self.make_room(side) {
            return SendOutcome::Busy;
        }
        let (Some(device), Some(to)) = (self.device.as_deref_mut(), self.peers.get(peer)) else {
            return SendOutcome::Failed;
        };
        let port = &mut device.port;
        let Some(mut frame) = port.reserve() else {
            // What the device holds may be all there is.
            self.push_out();
            return SendOutcome::Busy;
        };
        let front = to.template(class).head_bytes();
        let total = front + len;
        // It fits: the port's frames are made for the largest.
        let room = &mut port.room(&frame)[..total];
        room[front..front + head.len()].copy_from_slice(head);
        payload.copy_to(&mut room[front + head.len()..]);
        // A frame that begins like a bundle would be taken for one.
        if is_bundle(&room[front..]) || !to.write(class, to.priority(lane), mac, room) {
            port.release(frame);
            return SendOutcome::Failed;
        }
        frame.set_len(total);
        self.outboxes[side].push(frame);
        SendOutcome::Sent
    }

    #[inline]
    fn flush(&mut self) {
        self.push_out();
    }

    fn holds_frames(&self) -> bool {
        self.inboxes.iter().any(|inbox| !inbox.is_empty()) || self.are_unsent()
    }

    #[inline]
    fn receive<S: FrameSink>(&mut self, budget: u32, _thorough: bool, sink: &mut S) -> u32 {
        let mut tally = Tally::new(budget);
        // A look at the device's ring costs no system call, so every call is thorough.
        if budget > 0 {
            self.pull();
        }
        let Some(Device { port, .. }) = self.device.as_deref_mut() else { return 0 };
        for inbox in &mut self.inboxes {
            inbox.hand_out(port, &mut tally, sink);
        }
        // What found no room before, and answers to what came.
        self.push_out();
        tally.handed
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::empty()
    }

    fn link_counts(&self) -> LinkCounts {
        self.counts.named()
    }

    fn sleep_max(&self) -> Option<Nanos> {
        self.device.is_some().then_some(self.poll_each)
    }

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<DpdkPeer>) -> Result<(), SwapRefused> {
        self.peers.swap(&mut self.stack, peer, with, self.now).map_err(|refused| match refused {
            NoPlace::Taken(by) => SwapRefused::AddressTaken(by),
            NoPlace::Full => SwapRefused::NoPlace,
        })?;
        for inbox in &mut self.inboxes {
            inbox.forget(peer);
        }
        Ok(())
    }

    fn tend(&mut self, now: MonoTime) -> bool {
        self.now = now;
        if self.device.is_none()
            && let Some(device) = self.exchange.ports.take()
        {
            self.install(device);
        }
        if self.exchange.ports.is_recalled() {
            self.lose();
        }
        if self.device.is_none() {
            return false;
        }
        self.look_after(now);
        // At most one question for each place.
        for _ in 0..NEIGHBOURS {
            let Some(len) = self.stack.poll(now, &mut self.answer[..]) else { break };
            let _ = self.send_plain(len, true);
        }
        self.push_out();
        self.stack.is_asking() || self.health.is_failing()
    }
}
