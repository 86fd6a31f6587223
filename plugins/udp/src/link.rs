//! The half that moves frames.

use crate::group::Group;
use crate::hint::Hint;
use crate::inbox::{Inbox, Sender, Senders, Tally};
use crate::launch::Launcher;
use crate::setup::connect_to_lone_peer;
use crate::train::{Pushed, TRAIN_FRAME_BYTES_MAX, Train};
use insane_core::peers::{PeerTable, Refused};
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{FrameSink, LaunchDrops, Link, LinkCapabilities, LinkCounts, SendOutcome, SwapRefused, Unfinished};
use insane_sys::udp::{self, Address};
use insane_sys::{Errno, SharedBytes};
use insane_wire::bundle::{MARK, is_bundle};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

/// Both ports of one peer, in the order of [`Class`]: to compare, and as the kernel wants
/// them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddresses {
    pub(crate) ports: [SocketAddr; 2],
    raw: [Address; 2],
}

impl PeerAddresses {
    pub(crate) fn new(ports: [SocketAddr; 2]) -> Self {
        PeerAddresses { ports, raw: ports.map(Address::from) }
    }
}

/// A peer as the link keeps it: its addresses, checked.
#[derive(Clone, Copy, Debug)]
pub struct UdpPeer(pub(crate) PeerAddresses);

/// Which of the two sockets; the number is its place in arrays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Class {
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
    /// Frames lost after they were taken: the kernel refused them when they should have gone.
    pub frames_lost: u64,
    /// Bundles of a peer dropped: a length in them did not add up.
    pub bundles_malformed: u64,
    /// Calls that sent several datagrams at once.
    pub trains: u64,
    /// Sockets for which the kernel or the device does not cut what one call sends (0 to 2):
    /// they send one datagram a call.
    pub cutting_refused: u64,
    /// Sockets that could not be told that there are more peers than one.
    pub disconnects_failed: u64,
    /// Sockets for which the kernel does not join what comes (0 to 2).
    pub joining_refused: u64,
}

impl UdpCounts {
    /// With the names that they have in reports.
    fn named(&self) -> LinkCounts {
        let names = &[
            "datagrams_truncated",
            "sends_repeated",
            "frames_lost",
            "bundles_malformed",
            "trains_sent",
            "sockets_cutting_refused",
            "disconnects_failed",
            "sockets_joining_refused",
        ];
        LinkCounts::new(
            names,
            [
                self.truncated,
                self.repeated,
                self.frames_lost,
                self.bundles_malformed,
                self.trains,
                self.cutting_refused,
                self.disconnects_failed,
                self.joining_refused,
            ],
        )
    }
}

/// Sockets, peers and the memory that frames are received into.
pub struct UdpLink {
    sockets: [UdpSocket; 2],
    tables: Box<[PeerTable; 2]>,
    peers: Box<[Option<PeerAddresses>]>,
    local: SocketAddr,
    frame_bytes_max: usize,
    /// Where a look at one socket goes.
    hint: Hint,
    /// Calls in a row that found something. From the second on there is likely more
    /// than one frame waiting.
    streak: u32,
    /// The one peer there is, if the sockets are connected to it.
    lone: Option<PeerIndex>,
    /// Whether each socket holds frames of the lone peer only: connected, and found
    /// empty since, so that nothing from before is left in it.
    heard_alone: [bool; 2],
    inboxes: [Inbox; 2],
    /// Frames that wait for the flush.
    trains: [Train; 2],
    /// Whether the kernel cuts what one call sends.
    cuts: [bool; 2],
    counts: UdpCounts,
    /// For frames with a launch time, where these are honoured.
    launcher: Option<Launcher>,
    /// What it sends to all members of a group, and what they send.
    group: Option<Box<Group>>,
    /// For how long the interface may hold what it has sent.
    lag: Nanos,
}

/// What sends the frames of one class, to peers or to the group.
struct Out<'l> {
    train: &'l mut Train,
    socket: &'l UdpSocket,
    to: Option<&'l Address>,
    /// Whether the kernel cuts what one call sends.
    cuts: &'l mut bool,
    counts: &'l mut UdpCounts,
}

impl UdpLink {
    pub(crate) fn new(
        sockets: [UdpSocket; 2],
        tables: Box<[PeerTable; 2]>,
        peers: Box<[Option<PeerAddresses>]>,
        frame_bytes_max: u32,
        local: SocketAddr,
        lone: Option<PeerIndex>,
        (launcher, group, lag): (Option<Launcher>, Option<Box<Group>>, Nanos),
    ) -> Self {
        let frame_bytes_max = frame_bytes_max as usize;
        UdpLink {
            sockets,
            tables,
            peers,
            local,
            frame_bytes_max,
            hint: Hint::new(),
            streak: 0,
            lone,
            heard_alone: [false; 2],
            inboxes: [Inbox::new(frame_bytes_max), Inbox::new(frame_bytes_max)],
            trains: [Train::new(frame_bytes_max), Train::new(frame_bytes_max)],
            cuts: [true; 2],
            counts: UdpCounts::default(),
            launcher,
            group,
            lag,
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

    /// Puts the new addresses of a peer in place of the old ones; nothing has changed if that
    /// is refused.
    fn swap_addresses(
        &mut self,
        peer: PeerIndex,
        old: Option<PeerAddresses>,
        new: Option<PeerAddresses>,
    ) -> Result<(), SwapRefused> {
        if peer.index() >= self.peers.len() {
            return Err(SwapRefused::NoPlace);
        }
        for (class, table) in self.tables.iter_mut().enumerate() {
            let taken = new.and_then(|new| table.find(new.ports[class])).filter(|by| *by != peer);
            if let Some(by) = taken {
                return Err(SwapRefused::AddressTaken(by));
            }
        }
        for (class, table) in self.tables.iter_mut().enumerate() {
            if let Some(old) = old {
                table.remove(old.ports[class]);
            }
            // There is room: at most as many as places of peers, of which this is one.
            let inserted = new.map_or(Ok(()), |new| table.insert(new.ports[class], peer));
            debug_assert!(!matches!(inserted, Err(Refused::Full | Refused::Duplicate(_))));
        }
        self.peers[peer.index()] = new;
        Ok(())
    }

    /// What is held back for a peer that leaves goes now, or is lost.
    fn finish_trains_of(&mut self, peer: PeerIndex) {
        for class in [Class::RealTime, Class::BestEffort] {
            if self.trains[class as usize].peer() == peer && !self.send_train::<false>(class) {
                let train = &mut self.trains[class as usize];
                let (mut range, segment) = train.rest();
                while !range.is_empty() {
                    let end = range.end.min(range.start + segment);
                    self.counts.frames_lost += train.frames_in(range.start..end);
                    range.start = end;
                }
                train.clear();
            }
        }
    }

    /// Connects to the one peer that there is, or to nobody where there are none or several.
    fn connect_anew(&mut self, changed: PeerIndex) {
        let mut there = self.peers.iter().flatten();
        let is_lone = there.next().is_some() && there.next().is_none();
        if is_lone && self.lone.is_some_and(|lone| lone != changed) {
            return;
        }
        if self.lone.take().is_some() {
            for socket in &self.sockets {
                // It can only fail with a socket that is none; then nothing comes in any more.
                self.counts.disconnects_failed += u64::from(udp::disconnect(socket).is_err());
            }
        }
        // What is in the sockets now may be of others.
        self.heard_alone = [false; 2];
        if is_lone {
            self.lone = connect_to_lone_peer(&self.sockets, &self.peers);
            if self.lone.is_none() {
                // One of the two may be connected all the same.
                for socket in &self.sockets {
                    let _ = udp::disconnect(socket);
                }
            }
        }
    }

    /// Sends one datagram now.
    #[inline(never)]
    fn send_now(&mut self, class: Class, peer: PeerIndex, head: &[u8], payload: SharedBytes<'_>) -> udp::SendOutcome {
        let to = address(&self.peers, self.lone, peer, class);
        let socket = &self.sockets[class as usize];
        let outcome = udp::send_here(socket, to, head, payload);
        if is_of_an_earlier(outcome) {
            self.counts.repeated += 1;
            return udp::send(socket, to, head, payload);
        }
        outcome
    }

    /// The train of a class, and where it goes: to its peer, or to the group. `None`: there
    /// is no group.
    #[inline]
    fn out<const GROUP: bool>(&mut self, class: Class) -> Option<Out<'_>> {
        let at = class as usize;
        let (train, to) = if GROUP {
            let group = self.group.as_deref_mut()?;
            (&mut group.trains[at], Some(&group.to[at]))
        } else {
            let train = &mut self.trains[at];
            let to = address(&self.peers, self.lone, train.peer(), class);
            (train, to)
        };
        Some(Out { train, socket: &self.sockets[at], to, cuts: &mut self.cuts[at], counts: &mut self.counts })
    }

    /// Sends what the class holds back; false if some of it found no room, and is kept.
    #[inline]
    fn send_train<const GROUP: bool>(&mut self, class: Class) -> bool {
        if !GROUP && self.trains[class as usize].is_empty() {
            return true;
        }
        let Some(Out { train, socket, to, counts, .. }) = self.out::<GROUP>(class) else { return true };
        if train.is_empty() {
            return true;
        }
        let (range, segment) = train.rest();
        if range.len() > segment {
            return self.send_segments::<GROUP>(class);
        }
        let bytes = train.bytes(range.clone());
        let mut outcome = udp::send_whole(socket, to, bytes);
        if is_of_an_earlier(outcome) {
            counts.repeated += 1;
            outcome = udp::send_whole(socket, to, bytes);
        }
        match outcome {
            udp::SendOutcome::Sent => {}
            udp::SendOutcome::WouldBlock => return false,
            udp::SendOutcome::Failed(_) => counts.frames_lost += train.frames_in(range),
        }
        train.clear();
        true
    }

    /// Real-time frames do not wait until best effort is put together. What finds no room there
    /// is on another socket.
    fn send_real_time(&mut self) {
        self.send_train::<false>(Class::RealTime);
        if self.group.is_some() {
            self.send_train::<true>(Class::RealTime);
        }
    }

    /// Sends all that is held back.
    #[inline(never)]
    fn send_trains(&mut self) {
        for class in [Class::RealTime, Class::BestEffort] {
            self.send_train::<false>(class);
            if self.group.is_some() {
                self.send_train::<true>(class);
            }
        }
    }

    /// Several datagrams: with one call if that can be, else with one each.
    #[inline(never)]
    fn send_segments<const GROUP: bool>(&mut self, class: Class) -> bool {
        let Some(Out { train, socket, to, cuts, counts }) = self.out::<GROUP>(class) else { return true };
        let (mut range, segment) = train.rest();
        let mut suspect = false;
        if *cuts && let Ok(segment) = u16::try_from(segment) {
            let mut outcome = udp::send_segments(socket, to, train.bytes(range.clone()), segment);
            if is_of_an_earlier(outcome) {
                counts.repeated += 1;
                outcome = udp::send_segments(socket, to, train.bytes(range.clone()), segment);
            }
            match outcome {
                udp::SendOutcome::Sent => {
                    counts.trains += 1;
                    train.clear();
                    return true;
                }
                udp::SendOutcome::WouldBlock => return false,
                // Either datagrams of this size do not go at all, or only not together.
                udp::SendOutcome::Failed(_) => suspect = true,
            }
        }
        while !range.is_empty() {
            let datagram = range.start..range.end.min(range.start + segment);
            let mut outcome = udp::send_whole(socket, to, train.bytes(datagram.clone()));
            if is_of_an_earlier(outcome) {
                counts.repeated += 1;
                outcome = udp::send_whole(socket, to, train.bytes(datagram.clone()));
            }
            match outcome {
                udp::SendOutcome::Sent if suspect => {
                    suspect = false;
                    *cuts = false;
                    counts.cutting_refused += 1;
                }
                udp::SendOutcome::Sent => {}
                udp::SendOutcome::WouldBlock => return false,
                udp::SendOutcome::Failed(_) => counts.frames_lost += train.frames_in(datagram.clone()),
            }
            range.start = datagram.end;
            train.went_up_to(range.start);
        }
        true
    }

    /// Puts a frame into the train of its class; sends that first where the frame does not
    /// belong into it. What goes to the group has no peer, and the number says nothing.
    #[inline]
    fn hold<const GROUP: bool>(
        &mut self,
        class: Class,
        peer: PeerIndex,
        head: &[u8],
        payload: SharedBytes<'_>,
    ) -> SendOutcome {
        for _attempt in 0..2 {
            let train = if GROUP {
                let Some(group) = &mut self.group else { return SendOutcome::Failed };
                &mut group.trains[class as usize]
            } else {
                &mut self.trains[class as usize]
            };
            match train.push(peer, head, payload) {
                Pushed::Taken => return SendOutcome::Sent,
                Pushed::Refused => return SendOutcome::Failed,
                Pushed::Full => {
                    if !self.send_train::<GROUP>(class) {
                        return SendOutcome::Busy;
                    }
                }
            }
        }
        SendOutcome::Failed
    }

    /// Runs `take` on what one class brought, and on its inbox.
    #[inline(always)]
    fn with<const GROUP: bool, S: FrameSink>(
        &mut self,
        class: Class,
        tally: &mut Tally,
        sink: &mut S,
        take: impl FnOnce(&mut Inbox, &UdpSocket, &mut Senders<'_>, &mut UdpCounts, &mut Tally, &mut S),
    ) {
        let class = class as usize;
        let table = &mut self.tables[class];
        if GROUP {
            let Some(group) = &mut self.group else { return };
            let mut senders = Senders { table, alone: None, own: Some(group.own[class]) };
            take(&mut group.inboxes[class], &group.sockets[class], &mut senders, &mut self.counts, tally, sink);
            return;
        }
        let alone = if self.heard_alone[class] { self.lone } else { None };
        let mut senders = Senders { table, alone, own: None };
        take(&mut self.inboxes[class], &self.sockets[class], &mut senders, &mut self.counts, tally, sink);
    }

    /// Whether something is left of earlier calls.
    #[inline]
    fn has_rest<const GROUP: bool>(&self, class: Class) -> bool {
        let inboxes = match &self.group {
            Some(group) if GROUP => &group.inboxes,
            _ => &self.inboxes,
        };
        !inboxes[class as usize].is_empty()
    }

    /// The plain case of a look at one class, straight through: one datagram of the lone peer, the
    /// only one that the socket hears. Frames handed out; `None`: it is not that plain, and
    /// nothing was done.
    #[inline(always)]
    fn take_plain<S: FrameSink>(&mut self, class: Class, budget: u32, sink: &mut S) -> Option<u32> {
        let from = self.lone.filter(|_| self.heard_alone[class as usize])?;
        let room = self.inboxes[class as usize].plain_room()?;
        let Some(len) = udp::recv(&self.sockets[class as usize], room) else {
            self.streak = 0;
            return Some(0);
        };
        self.streak += 1;
        self.hint.note(class);
        match room.get(..len) {
            Some(frame) if !is_bundle(frame) => {
                sink.frame(Some(from), frame);
                Some(1)
            }
            _ => Some(self.take_taken(class, from, len, budget, sink)),
        }
    }

    /// Hands out what is in the datagram of `len` bytes that was just taken: a bundle, or one
    /// that was cut.
    #[inline(never)]
    fn take_taken<S: FrameSink>(
        &mut self,
        class: Class,
        from: PeerIndex,
        len: usize,
        budget: u32,
        sink: &mut S,
    ) -> u32 {
        let mut tally = Tally::new(budget);
        self.with::<false, S>(class, &mut tally, sink, |inbox, socket, senders, counts, tally, sink| {
            inbox.open_single(len, &Sender::Known(from), socket, senders, counts, tally, sink);
        });
        tally.handed
    }

    /// What is left of earlier calls, else one datagram.
    #[inline(never)]
    fn take_one<const GROUP: bool, S: FrameSink>(&mut self, class: Class, tally: &mut Tally, sink: &mut S) {
        if self.has_rest::<GROUP>(class) {
            self.take_rest::<GROUP, S>(class, tally, sink);
            return;
        }
        let mut found = false;
        self.with::<GROUP, S>(class, tally, sink, |inbox, socket, senders, counts, tally, sink| {
            found = inbox.take_one(socket, senders, counts, tally, sink);
        });
        if found {
            self.note_frame::<GROUP>(class);
        } else if !GROUP {
            self.heard_alone[class as usize] = self.lone.is_some();
        }
    }

    /// What is left of earlier calls.
    #[inline(never)]
    fn take_rest<const GROUP: bool, S: FrameSink>(&mut self, class: Class, tally: &mut Tally, sink: &mut S) {
        tally.taken += 1;
        self.with::<GROUP, S>(class, tally, sink, |inbox, socket, senders, counts, tally, sink| {
            inbox.hand_out(socket, senders, counts, tally, sink);
        });
        self.note_frame::<GROUP>(class);
    }

    /// As much as the budget allows, many datagrams a call.
    #[inline(never)]
    fn take_burst<const GROUP: bool, S: FrameSink>(&mut self, class: Class, tally: &mut Tally, sink: &mut S) {
        if self.has_rest::<GROUP>(class) {
            self.take_rest::<GROUP, S>(class, tally, sink);
        }
        self.with::<GROUP, S>(class, tally, sink, |inbox, socket, senders, counts, tally, sink| {
            inbox.take_burst(socket, senders, counts, tally, sink);
        });
    }

    /// One, and as there was one, all others within the budget. A call for one costs less than
    /// one for many, and mostly there is none. Returns whether there was anything.
    fn take_all<const GROUP: bool, S: FrameSink>(&mut self, class: Class, tally: &mut Tally, sink: &mut S) -> bool {
        let before = tally.taken;
        if !tally.is_spent() {
            self.take_one::<GROUP, S>(class, tally, sink);
            if tally.taken > before {
                self.take_burst::<GROUP, S>(class, tally, sink);
            }
        }
        tally.taken > before
    }

    #[inline]
    fn note_frame<const GROUP: bool>(&mut self, class: Class) {
        self.hint.note(class);
        if let Some(group) = &mut self.group {
            group.is_hot = GROUP;
        }
    }

    /// Looks at both sockets, real-time first.
    fn take_thoroughly<S: FrameSink>(&mut self, tally: &mut Tally, sink: &mut S) {
        let had_real_time = self.take_all::<false, S>(Class::RealTime, tally, sink);
        let had_best_effort = self.take_all::<false, S>(Class::BestEffort, tally, sink);
        if had_best_effort {
            self.note_frame::<false>(Class::BestEffort);
        }
        if had_real_time {
            self.note_frame::<false>(Class::RealTime);
        }
    }

    /// As [`take_thoroughly`](Self::take_thoroughly), at all four sockets: in each class what
    /// came to this link alone first.
    fn take_from_all<S: FrameSink>(&mut self, tally: &mut Tally, sink: &mut S) {
        let mut first = None;
        for class in [Class::RealTime, Class::BestEffort] {
            if self.take_all::<false, S>(class, tally, sink) {
                first.get_or_insert((class, false));
            }
            if self.take_all::<true, S>(class, tally, sink) {
                first.get_or_insert((class, true));
            }
        }
        match first {
            Some((class, true)) => self.note_frame::<true>(class),
            Some((class, false)) => self.note_frame::<false>(class),
            None => {}
        }
    }

    /// A call of a link with a group. A single look goes to the socket that had the last
    /// frame, as far as there is a group; thorough calls find what came by another.
    #[inline(never)]
    fn take_with_group<S: FrameSink>(&mut self, thorough: bool, tally: &mut Tally, sink: &mut S) {
        if thorough || self.streak >= 2 {
            self.take_from_all(tally, sink);
            return;
        }
        let class = self.hint.next(self.streak > 0);
        if self.group.as_ref().is_some_and(|group| group.is_hot) {
            self.take_one::<true, S>(class, tally, sink);
        } else {
            self.take_one::<false, S>(class, tally, sink);
        }
    }
}

/// Where a frame of a class goes; `None` for the peer that the socket is connected to.
#[inline]
fn address(
    peers: &[Option<PeerAddresses>],
    lone: Option<PeerIndex>,
    peer: PeerIndex,
    class: Class,
) -> Option<&Address> {
    if lone.is_some() {
        return None;
    }
    peers.get(peer.index())?.as_ref().map(|addresses| &addresses.raw[class as usize])
}

/// The kernel reports an earlier frame's fate at the next call, which then has sent
/// nothing; having been reported, it is gone.
#[inline]
fn is_of_an_earlier(outcome: udp::SendOutcome) -> bool {
    matches!(outcome, udp::SendOutcome::Failed(Errno::ECONNREFUSED | Errno::EHOSTUNREACH))
}

impl Link for UdpLink {
    type Peer = UdpPeer;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "udp",
            frame_bytes_max: self.frame_bytes_max as u32,
            ordered: false,
            lossless: false,
            launch_time: self.launcher.is_some(),
            multicast: self.group.is_some(),
        }
    }

    /// Holds small frames back until the flush, or until they fill one call. What the
    /// kernel says of them is then no longer an outcome, but a count.
    #[inline]
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let Some(Some(_)) = self.peers.get(peer.index()) else { return SendOutcome::Failed };
        let len = head.len() + payload.len();
        if len > self.frame_bytes_max {
            return SendOutcome::Failed;
        }
        let class = Class::of(lane);
        if class == Class::BestEffort && (!self.trains[Class::RealTime as usize].is_empty() || self.group.is_some()) {
            self.send_real_time();
        }
        if len <= TRAIN_FRAME_BYTES_MAX {
            return self.hold::<false>(class, peer, head, payload);
        }
        if !self.send_train::<false>(class) {
            return SendOutcome::Busy;
        }
        if is_bundle(head) {
            return SendOutcome::Failed;
        }
        outcome(self.send_now(class, peer, head, payload))
    }

    #[inline(always)]
    fn send_alone(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let is_plain = head.len() >= MARK.len() && !is_bundle(head) && self.trains.iter().all(Train::is_empty);
        let len = head.len() + payload.len();
        if !is_plain || len > self.frame_bytes_max || !matches!(self.peers.get(peer.index()), Some(Some(_))) {
            return self.send(peer, lane, head, payload);
        }
        outcome(self.send_now(Class::of(lane), peer, head, payload))
    }

    /// Frames of a stream with slots go ahead of their instants, one by one: bundles would
    /// give several one instant.
    fn send_at(
        &mut self,
        peer: PeerIndex,
        lane: Lane,
        head: &[u8],
        payload: SharedBytes<'_>,
        launch: MonoTime,
    ) -> SendOutcome {
        let Some(Some(addresses)) = self.peers.get(peer.index()) else { return SendOutcome::Failed };
        match &self.launcher {
            _ if head.len() + payload.len() > self.frame_bytes_max || is_bundle(head) => SendOutcome::Failed,
            Some(launcher) => launcher.send(&addresses.raw[Class::RealTime as usize], head, payload, launch),
            None => self.send(peer, lane, head, payload),
        }
    }

    fn take_launch_drops(&mut self) -> LaunchDrops {
        self.launcher.as_mut().map(Launcher::take_drops).unwrap_or_default()
    }

    fn tend(&mut self, _now: MonoTime) -> bool {
        self.hint.tend();
        if let Some(launcher) = &mut self.launcher {
            launcher.look();
        }
        false
    }

    /// As [`send`](Self::send). What is held back for the group waits apart from what is for
    /// peers.
    fn send_group(&mut self, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let len = head.len() + payload.len();
        if len > self.frame_bytes_max || self.group.is_none() {
            return SendOutcome::Failed;
        }
        let class = Class::of(lane);
        if class == Class::BestEffort {
            self.send_real_time();
        }
        if len <= TRAIN_FRAME_BYTES_MAX {
            return self.hold::<true>(class, PeerIndex(0), head, payload);
        }
        if !self.send_train::<true>(class) {
            return SendOutcome::Busy;
        }
        if is_bundle(head) {
            return SendOutcome::Failed;
        }
        let Some(Out { socket, to, counts, .. }) = self.out::<true>(class) else { return SendOutcome::Failed };
        let mut sent = udp::send(socket, to, head, payload);
        if is_of_an_earlier(sent) {
            counts.repeated += 1;
            sent = udp::send(socket, to, head, payload);
        }
        outcome(sent)
    }

    fn unfinished(&mut self, best_effort: bool) -> Option<Unfinished> {
        let [real_time, other] = &self.sockets;
        let amount = udp::unfinished(real_time) + if best_effort { udp::unfinished(other) } else { 0 };
        Some(Unfinished { amount, lag: self.lag })
    }

    #[inline(always)]
    fn flush(&mut self) {
        // What went alone left nothing behind.
        if self.group.is_some() || self.trains.iter().any(|train| !train.is_empty()) {
            self.send_trains();
        }
    }

    #[inline]
    fn holds_frames(&self) -> bool {
        let holds = |trains: &[Train; 2], inboxes: &[Inbox; 2]| {
            trains.iter().any(|train| !train.is_empty()) || inboxes.iter().any(|inbox| !inbox.is_empty())
        };
        holds(&self.trains, &self.inboxes)
            || self.group.as_ref().is_some_and(|group| holds(&group.trains, &group.inboxes))
    }

    /// While frames come one at a time, a call that need not be thorough costs one
    /// system call (see `Hint`). When two calls in a row found
    /// something, frames are taken in batches, and a best-effort batch is never taken
    /// before the real-time socket was looked at: at most two best-effort datagrams go
    /// ahead of a waiting real-time one until the next thorough call.
    #[inline]
    fn receive<S: FrameSink>(&mut self, budget: u32, thorough: bool, sink: &mut S) -> u32 {
        if budget == 0 {
            return 0;
        }
        let mut tally = Tally::new(budget);
        if self.group.is_some() {
            self.take_with_group(thorough, &mut tally, sink);
        } else if thorough || (self.streak >= 2 && self.hint.hot() == Class::BestEffort) {
            self.take_thoroughly(&mut tally, sink);
        } else if self.streak >= 2 {
            self.take_burst::<false, S>(self.hint.hot(), &mut tally, sink);
        } else {
            let class = self.hint.next(self.streak > 0);
            if let Some(handed) = self.take_plain(class, budget, sink) {
                return handed;
            }
            self.take_one::<false, S>(class, &mut tally, sink);
        }
        self.streak = if tally.taken > 0 { self.streak.saturating_add(1) } else { 0 };
        tally.handed
    }

    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<UdpPeer>) -> Result<(), SwapRefused> {
        let old = self.peers.get(peer.index()).copied().flatten();
        self.finish_trains_of(peer);
        self.swap_addresses(peer, old, with.map(|new| new.0))?;
        *with = old.map(UdpPeer);
        let of_group = self.group.iter_mut().flat_map(|group| &mut group.inboxes);
        for inbox in self.inboxes.iter_mut().chain(of_group) {
            inbox.forget(peer);
        }
        self.connect_anew(peer);
        Ok(())
    }

    fn link_counts(&self) -> LinkCounts {
        self.counts().named()
    }

    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let of_group = self.group.iter().flat_map(|group| &group.sockets);
        self.sockets.iter().chain(of_group).map(AsFd::as_fd)
    }
}

/// The kernel's answer in the engine's words.
const fn outcome(outcome: udp::SendOutcome) -> SendOutcome {
    match outcome {
        udp::SendOutcome::Sent => SendOutcome::Sent,
        udp::SendOutcome::WouldBlock => SendOutcome::Busy,
        udp::SendOutcome::Failed(_) => SendOutcome::Failed,
    }
}

impl std::fmt::Debug for UdpLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UdpLink").field("local", &self.local).field("counts", &self.counts).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{UdpConfig, UdpSetup};
    use insane_link::LinkSetup;
    use std::net::Ipv4Addr;

    struct Keep(Vec<Vec<u8>>);

    impl FrameSink for Keep {
        fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
            self.0.push(frame.to_vec());
        }
    }

    /// A kernel or device that cuts nothing: the datagrams of a train go one by one.
    #[test]
    fn without_cutting_everything_arrives_the_same() {
        let setup = || UdpSetup::bind(UdpConfig::new((Ipv4Addr::LOCALHOST, 0).into())).unwrap();
        let (a, b) = (setup(), setup());
        let (at_a, at_b) = (a.local_addr(), b.local_addr());
        let (mut a, mut b) = (a.open(&[Some(at_b)]).unwrap(), b.open(&[Some(at_a)]).unwrap());
        a.cuts = [false; 2];
        for len in [100, 1472] {
            let frames: Vec<_> = (0..60).map(|number| vec![number; len]).collect();
            for frame in &frames {
                assert_eq!(a.send(PeerIndex(0), Lane::LAST, frame, SharedBytes::EMPTY), SendOutcome::Sent);
            }
            a.flush();
            let mut kept = Keep(Vec::new());
            let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while kept.0.len() < frames.len() && std::time::Instant::now() < end {
                b.receive(16, true, &mut kept);
            }
            assert_eq!(kept.0, frames);
        }
        assert_eq!((a.counts().trains, a.counts().frames_lost), (0, 0));
    }
}
