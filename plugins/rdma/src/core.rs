//! A device in use: the connections of all peers on it, and their frames.

use crate::bundle::{self, HEADER_BYTES, Next};
use crate::class::Class;
use crate::connection::{Connection, Push};
use crate::counts::RdmaCounts;
use crate::door::{Desk, Door};
use crate::line::{FRESH_MAX, Use};
use crate::numbers::{Numbers, Whose};
use insane_core::limits::PEERS_MAX;
use insane_core::{Lane, MonoTime, PeerIndex};
use insane_link::{FrameSink, Link, LinkCapabilities, SendOutcome, SwapRefused};
use insane_rdma_sys::{Buffer, Channel, Completion, Cq, Inbox, Region};
use insane_sys::{Errno, SharedBytes};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Sets of peers are one word.
const _: () = assert!(PEERS_MAX <= 64);

/// Looks at one completion queue in one call, each of up to sixteen completions.
const LOOKS_MAX: usize = 4;
/// How often an event is looked for that a completion on an armed queue should bring: the
/// device may tell of it a little later, and tells nothing if it was done before it was armed.
const SUSPICIONS: u8 = 8;
/// Every so many calls that found nothing one looks for an event all the same.
const GLANCE_STRIDE: u8 = 32;
/// How long a link that closes waits for what it sent, milliseconds.
const LAST_WORDS_MS: u32 = 100;

/// What a peer has on a device: its connections of both classes, with their memory.
#[derive(Debug)]
pub(crate) struct Made {
    /// Of which device; each that was opened has another.
    pub(crate) generation: u64,
    pub(crate) connections: [Connection; 2],
    pub(crate) extra: Extra,
}

/// What a peer has beside its connections.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// Its receive buffers, until the link needs them.
    pub(crate) region: Option<Region>,
    /// It was in a link, and counts there.
    pub(crate) has_served: bool,
    /// Orphans when it left.
    pub(crate) orphans: u64,
}

/// A message that came, as far as it was not handed out.
#[derive(Debug)]
struct Waiting {
    buffer: Buffer,
    len: usize,
    at: usize,
    /// The number of its connection.
    qp: u32,
}

/// One class.
pub(crate) struct Side {
    cq: Arc<Cq>,
    connections: Box<[Option<Connection>]>,
    /// What came, in the order in which it did.
    waiting: VecDeque<Waiting>,
    /// Peers with frames that are to be sent.
    unsent: u64,
    /// Peers that are to be told what they may send.
    due: u64,
    /// Peers whose connection is over, and may have left something to be handed out.
    ended: u64,
    is_armed: bool,
    suspicions: u8,
}

impl Side {
    pub(crate) fn new(cq: Arc<Cq>, buffers_max: usize) -> Self {
        let connections = (0..PEERS_MAX).map(|_| None).collect();
        let waiting = VecDeque::with_capacity(buffers_max);
        Side { cq, connections, waiting, unsent: 0, due: 0, ended: 0, is_armed: false, suspicions: 0 }
    }

    fn forget(&mut self, peer: usize) {
        self.unsent &= !(1 << peer);
        self.due &= !(1 << peer);
        self.ended &= !(1 << peer);
    }
}

/// What a link is made of.
pub(crate) struct Parts {
    pub(crate) sides: [Side; 2],
    pub(crate) sent: Arc<Cq>,
    pub(crate) channel: Option<Arc<Channel>>,
    pub(crate) inbox: Inbox,
    pub(crate) desk: Arc<Desk>,
    pub(crate) door: Door,
    pub(crate) generation: u64,
    pub(crate) frame_bytes_max: u32,
}

/// Connections, and the memory of their frames.
pub(crate) struct Core {
    parts: Parts,
    extras: Box<[Extra]>,
    numbers: Numbers,
    /// A frame found no buffer that the device was done with.
    starved: bool,
    glance: u8,
    counts: RdmaCounts,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let extras = (0..PEERS_MAX).map(|_| Extra::default()).collect();
        let mut link =
            Core { parts, extras, numbers: Numbers::new(), starved: false, glance: 0, counts: RdmaCounts::default() };
        link.settle();
        link
    }

    /// What was counted since the device was opened.
    pub(crate) fn counts(&self) -> RdmaCounts {
        let mut counts = self.counts;
        self.parts.desk.count_into(&mut counts);
        counts
    }

    /// Whether both classes of a peer are connected.
    pub(crate) fn is_connected(&self, peer: PeerIndex) -> bool {
        let is_open =
            |side: &Side| side.connections.get(peer.index()).and_then(Option::as_ref).is_some_and(Connection::is_open);
        self.parts.sides.iter().all(is_open)
    }

    fn connection(&mut self, (class, peer): Whose) -> Option<&mut Connection> {
        self.parts.sides[class as usize].connections.get_mut(peer)?.as_mut()
    }

    /// Completions are told apart by the connections that there are now.
    fn number_anew(&mut self) {
        let sides = &self.parts.sides;
        let of_class = |class: Class| {
            let connections = sides[class as usize].connections.iter().enumerate();
            connections.filter_map(move |(peer, there)| Some((there.as_ref()?.number()?, (class, peer))))
        };
        self.numbers.set(Class::BOTH.into_iter().flat_map(of_class));
    }

    /// A connection is over. It is lost when what came by it was handed out.
    #[cold]
    fn end(&mut self, (class, peer): Whose) {
        let side = &mut self.parts.sides[class as usize];
        if let Some(Some(connection)) = side.connections.get_mut(peer)
            && connection.end()
        {
            side.ended |= 1 << peer;
        }
    }

    /// Loses the connections that are over and have left nothing.
    #[cold]
    fn lose_ended(&mut self, class: Class) {
        let side = &self.parts.sides[class as usize];
        let mut ended = side.ended;
        while ended != 0 {
            let peer = ended.trailing_zeros() as usize;
            ended &= ended - 1;
            let side = &self.parts.sides[class as usize];
            let number = side.connections[peer].as_ref().and_then(Connection::number);
            if !side.waiting.iter().any(|waiting| Some(waiting.qp) == number) {
                self.lose((class, peer), false);
            }
        }
    }

    #[cold]
    fn lose(&mut self, whose: Whose, is_garbage: bool) {
        let Some(connection) = self.connection(whose) else { return };
        if connection.live.is_none() {
            return;
        }
        connection.lose();
        // The device may never tell what it was waited for.
        self.starved = false;
        self.parts.sides[whose.0 as usize].forget(whose.1);
        self.counts.lost += 1;
        self.counts.garbage += u64::from(is_garbage);
        self.number_anew();
    }

    /// Takes what the door made, and lets go what it saw end.
    #[cold]
    fn absorb(&mut self) {
        let mut changed = false;
        for side in &mut self.parts.sides {
            for (peer, place) in side.connections.iter_mut().enumerate() {
                let Some(connection) = place else { continue };
                // As many as there can be.
                for _ in 0..FRESH_MAX {
                    let Some(fresh) = connection.line.fresh.pop() else { break };
                    self.counts.lost += u64::from(connection.live.is_some());
                    connection.go_live(fresh);
                    self.counts.connected += 1;
                    side.unsent &= !(1 << peer);
                    side.due &= !(1 << peer);
                    side.ended &= !(1 << peer);
                    changed = true;
                }
                if let Some(number) = connection.number()
                    && connection.line.has_ended(number)
                    && connection.end()
                {
                    side.ended |= 1 << peer;
                }
            }
        }
        if changed {
            self.starved = false;
            self.number_anew();
        }
    }

    /// Takes what came by one class from the device. Returns whether that was all.
    fn pump(&mut self, class: Class) -> bool {
        for _ in 0..LOOKS_MAX {
            let side = &mut self.parts.sides[class as usize];
            // A broken queue is a device that is gone: its connections end, too.
            let Ok(batch) = side.cq.poll() else { return true };
            if batch.is_empty() {
                return true;
            }
            if side.is_armed {
                side.suspicions = SUSPICIONS;
            }
            let is_full = batch.is_full();
            for completion in batch {
                self.came(class, completion);
            }
            if !is_full {
                return true;
            }
        }
        false
    }

    fn came(&mut self, class: Class, completion: Completion) {
        let (qp, len, is_good) = (completion.qp(), completion.len(), completion.is_good());
        let Some(buffer) = self.parts.inbox.buffer(completion) else { return };
        let mut whose = self.numbers.whose(qp);
        if whose.is_none() && is_good {
            // Of a connection that the door has just made.
            self.absorb();
            whose = self.numbers.whose(qp);
        }
        let whose = whose.filter(|whose| whose.0 == class);
        let Some(whose) = whose.filter(|_| is_good) else {
            self.give_back(buffer);
            match whose {
                Some(whose) => self.end(whose),
                None => self.counts.orphans += u64::from(is_good),
            }
            return;
        };
        let grant = bundle::grant(self.parts.inbox.bytes(&buffer, len));
        let has_frames = len > HEADER_BYTES;
        let side = &mut self.parts.sides[class as usize];
        let live = side.connections.get_mut(whose.1).and_then(Option::as_mut).and_then(|there| there.live.as_mut());
        let is_sound = live.zip(grant).is_some_and(|(live, grant)| {
            live.is_open |= !live.has_ended;
            (!has_frames || live.credit.arrive()) && live.credit.hear(grant)
        });
        if is_sound && has_frames {
            side.waiting.push_back(Waiting { buffer, len, at: HEADER_BYTES, qp });
            return;
        }
        self.give_back(buffer);
        if !is_sound {
            self.lose(whose, true);
        }
    }

    fn give_back(&mut self, buffer: Buffer) {
        // It came from there, so there is room.
        let _ = self.parts.inbox.give_back(buffer);
    }

    /// Learns what the device has sent.
    fn reap(&mut self) {
        for _ in 0..LOOKS_MAX {
            let Ok(batch) = self.parts.sent.poll() else { return };
            let is_full = batch.is_full();
            for completion in batch {
                self.starved = false;
                let Some(whose) = self.numbers.whose(completion.qp()) else { continue };
                match completion.mark() {
                    Some(mark) if completion.is_good() => {
                        if let Some(connection) = self.connection(whose) {
                            connection.sent(mark);
                        }
                    }
                    _ => self.end(whose),
                }
            }
            if !is_full {
                return;
            }
        }
    }

    /// Sends what waits for a peer. Returns whether nothing is left.
    fn push(&mut self, whose: Whose) -> bool {
        let Some(connection) = self.connection(whose) else { return true };
        let push = connection.push();
        let is_left = push == Push::NoGrant;
        let side = &mut self.parts.sides[whose.0 as usize];
        side.unsent = side.unsent & !(1 << whose.1) | u64::from(is_left) << whose.1;
        if push == Push::Broken {
            self.end(whose);
        }
        !is_left
    }

    /// Sends what waits, as far as it is granted.
    fn push_all(&mut self, class: Class) {
        let mut unsent = self.parts.sides[class as usize].unsent;
        while unsent != 0 {
            let peer = unsent.trailing_zeros() as usize;
            unsent &= unsent - 1;
            self.push((class, peer));
        }
    }

    /// Tells peers what they may send.
    fn grant_all(&mut self, class: Class) {
        let mut due = self.parts.sides[class as usize].due;
        while due != 0 {
            let peer = due.trailing_zeros() as usize;
            due &= due - 1;
            let Some(connection) = self.connection((class, peer)) else { continue };
            // A message with frames may have told it meanwhile.
            let is_due = connection.live.as_ref().is_some_and(|live| live.credit.is_due());
            match if is_due { connection.grant() } else { Push::Done } {
                Push::Done => self.parts.sides[class as usize].due &= !(1 << peer),
                Push::NoGrant => {}
                Push::Broken => {
                    self.parts.sides[class as usize].due &= !(1 << peer);
                    self.end((class, peer));
                }
            }
        }
    }

    /// Hands out what came by one class.
    fn hand_out<S: FrameSink>(&mut self, class: Class, budget: u32, sink: &mut S) -> u32 {
        let mut handed = 0;
        let frame_bytes_max = self.parts.frame_bytes_max as usize;
        while handed < budget {
            let Parts { sides, inbox, .. } = &mut self.parts;
            let side = &mut sides[class as usize];
            let Some(front) = side.waiting.front_mut() else { break };
            let whose = self.numbers.whose(front.qp);
            let mut is_garbage = false;
            if let Some((_, peer)) = whose {
                match bundle::next(inbox.bytes(&front.buffer, front.len), &mut front.at, frame_bytes_max) {
                    Next::Frame(frame) => {
                        sink.frame(Some(PeerIndex(peer as u16)), frame);
                        handed += 1;
                    }
                    Next::Garbage => is_garbage = true,
                }
                if !is_garbage && front.at < front.len {
                    continue;
                }
            }
            let Some(Waiting { buffer, .. }) = side.waiting.pop_front() else { break };
            self.give_back(buffer);
            match whose {
                Some(whose) if is_garbage => self.lose(whose, true),
                Some((_, peer)) => self.taken(class, peer),
                None => self.counts.orphans += 1,
            }
        }
        handed
    }

    /// A message was handed out, and its buffer is posted again.
    fn taken(&mut self, class: Class, peer: usize) {
        let side = &mut self.parts.sides[class as usize];
        let live = side.connections.get_mut(peer).and_then(Option::as_mut).and_then(|there| there.live.as_mut());
        if let Some(live) = live {
            live.credit.take();
            side.due |= u64::from(live.credit.is_due()) << peer;
        }
    }

    /// Before a datapath may sleep: descriptors are readable if something comes from now on,
    /// and not because of what was taken.
    fn settle(&mut self) {
        let Some(channel) = self.parts.channel.clone() else { return };
        self.glance = self.glance.wrapping_add(1);
        let is_suspect = self.parts.sides.iter().any(|side| side.suspicions > 0);
        if is_suspect || self.glance.is_multiple_of(GLANCE_STRIDE) {
            for side in &mut self.parts.sides {
                side.suspicions = side.suspicions.saturating_sub(1);
            }
            // At most one event of each queue.
            for _ in 0..Class::BOTH.len() {
                let Some(side) = channel.take().and_then(|number| self.parts.sides.get_mut(number)) else { break };
                (side.is_armed, side.suspicions) = (false, 0);
            }
        }
        for class in Class::BOTH {
            let side = &mut self.parts.sides[class as usize];
            if !side.is_armed && side.cq.arm().is_ok() {
                side.is_armed = true;
                // What was done before it was armed brings no event.
                self.pump(class);
            }
        }
    }

    /// Whether nothing is left to be handed out.
    fn is_quiet(&self) -> bool {
        self.parts.sides.iter().all(|side| side.waiting.is_empty())
    }

    /// A frame found no room: tries everything that makes some. Returns whether there is room.
    #[cold]
    fn make_room(&mut self, whose: Whose, len: usize) -> bool {
        self.reap();
        if !self.push(whose) {
            // Grants are among what came.
            self.pump(whose.0);
            self.push(whose);
        }
        let Some(connection) = self.connection(whose) else { return false };
        let has_room = connection.has_room(len);
        let waits = !has_room && connection.waits_for_device();
        self.starved |= waits;
        has_room
    }
}

impl Link for Core {
    type Peer = Made;

    fn capabilities(&self) -> LinkCapabilities {
        LinkCapabilities {
            technology: "rdma",
            frame_bytes_max: self.parts.frame_bytes_max,
            ordered: true,
            // What is under way when a connection breaks is lost.
            lossless: false,
            launch_time: false,
            multicast: false,
        }
    }

    #[inline]
    fn send(&mut self, peer: PeerIndex, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        let whose = (Class::of(lane), peer.index());
        let len = head.len() + payload.len();
        if len == 0 || len > self.parts.frame_bytes_max as usize {
            return SendOutcome::Failed;
        }
        let Some(connection) = self.connection(whose).filter(|there| there.is_open()) else {
            return SendOutcome::Failed;
        };
        if !connection.has_room(len) && !self.make_room(whose, len) {
            let Some(connection) = self.connection(whose).filter(|there| there.is_open()) else {
                return SendOutcome::Failed;
            };
            return if connection.refuse() { SendOutcome::Failed } else { SendOutcome::Busy };
        }
        let Some(connection) = self.connection(whose) else { return SendOutcome::Failed };
        let may_go = connection.append(head, payload);
        self.parts.sides[whose.0 as usize].unsent |= 1 << whose.1;
        if may_go {
            self.push(whose);
        }
        SendOutcome::Sent
    }

    #[inline]
    fn flush(&mut self) {
        for class in Class::BOTH {
            if self.parts.sides[class as usize].unsent == 0 {
                continue;
            }
            self.push_all(class);
            if self.parts.sides[class as usize].unsent != 0 {
                self.pump(class);
                self.push_all(class);
            }
        }
    }

    /// Costs no system call while nothing comes.
    #[inline]
    fn receive<S: FrameSink>(&mut self, budget: u32, _thorough: bool, sink: &mut S) -> u32 {
        if budget == 0 {
            return 0;
        }
        if self.parts.desk.signals.is_told() {
            self.absorb();
        }
        self.reap();
        let mut handed = 0;
        let had_all = Class::BOTH.map(|class| self.pump(class));
        for class in Class::BOTH {
            handed += self.hand_out(class, budget - handed, sink);
            self.push_all(class);
            self.grant_all(class);
            if self.parts.sides[class as usize].ended != 0 && had_all[class as usize] {
                self.lose_ended(class);
            }
        }
        if self.is_quiet() {
            self.settle();
        }
        handed
    }

    /// The connections that leave are ended by whoever frees them.
    fn swap_peer(&mut self, peer: PeerIndex, with: &mut Option<Made>) -> Result<(), SwapRefused> {
        let (at, generation) = (peer.index(), self.parts.generation);
        if at >= PEERS_MAX {
            return Err(SwapRefused::NoPlace);
        }
        if let Some(new) = with {
            let address = new.connections[0].line.address;
            let has_it = |there: &Option<Connection>| there.as_ref().is_some_and(|there| there.line.address == address);
            let taken = self.parts.sides[0].connections.iter().position(has_it);
            if let Some(taken) = taken.filter(|taken| *taken != at) {
                return Err(SwapRefused::AddressTaken(PeerIndex(taken as u16)));
            }
            self.admit(new)?;
        }
        self.push((Class::RealTime, at));
        self.push((Class::BestEffort, at));
        let new = with.take();
        let (new, extra) = match new {
            Some(Made { connections, extra, .. }) => (connections.map(Some), extra),
            None => ([None, None], Extra::default()),
        };
        let returns_late = extra.has_served && extra.orphans != self.counts.orphans;
        let mut old_extra = std::mem::replace(&mut self.extras[at], extra);
        old_extra.orphans = self.counts.orphans;
        let mut old = [None, None];
        for ((side, old), new) in self.parts.sides.iter_mut().zip(&mut old).zip(new) {
            *old = std::mem::replace(&mut side.connections[at], new);
            side.forget(at);
            if let Some(gone) = old {
                gone.line.set_use(Use::Rests);
            }
            if let Some(come) = &side.connections[at] {
                come.line.set_use(Use::Serves);
                side.unsent |= u64::from(come.has_unsent()) << at;
                side.ended |= u64::from(come.live.as_ref().is_some_and(|live| live.has_ended)) << at;
            }
        }
        self.number_anew();
        if returns_late {
            // Messages came that nobody took, perhaps its own.
            for class in Class::BOTH {
                self.lose((class, at), false);
            }
        }
        let [real_time, best_effort] = old;
        *with = real_time.zip(best_effort).map(|(real_time, best_effort)| Made {
            generation,
            connections: [real_time, best_effort],
            extra: old_extra,
        });
        Ok(())
    }

    /// What came, and what the door says.
    fn readable_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let channel = self.parts.channel.as_ref();
        let answer = channel.map(|_| self.parts.desk.signals.answer.as_fd());
        channel.map(|channel| channel.as_fd()).into_iter().chain(answer)
    }

    #[inline]
    fn holds_frames(&self) -> bool {
        !self.is_quiet() || self.starved
    }

    fn tend(&mut self, now: MonoTime) -> bool {
        // What the door tells is heard in `receive`, too; this also hears what nobody told.
        self.parts.desk.signals.is_told();
        self.absorb();
        self.reap();
        for class in Class::BOTH {
            // A side that answered may send once it heard from the other.
            self.pump(class);
        }
        for side in &mut self.parts.sides {
            for connection in side.connections.iter_mut().flatten() {
                connection.watch(now);
            }
        }
        false
    }
}

impl Core {
    /// A peer that comes for the first time brings its receive buffers, if they are needed:
    /// there are as many as the connections may want at once that served here and are not
    /// freed. Buffers that were posted cannot be taken back, so they stay when a peer goes.
    fn admit(&mut self, new: &mut Made) -> Result<(), SwapRefused> {
        if new.extra.has_served {
            return Ok(());
        }
        let alive = self.parts.desk.alive.load(Ordering::Relaxed) + Class::BOTH.len();
        if self.parts.inbox.regions() * Class::BOTH.len() < alive {
            let Some(region) = new.extra.region.take() else { return Err(SwapRefused::NoPlace) };
            if let Err(region) = self.parts.inbox.add(region) {
                new.extra.region = Some(region);
                return Err(SwapRefused::Technology(Errno::ENOBUFS as i32));
            }
        }
        new.extra.has_served = true;
        self.parts.desk.alive.fetch_add(Class::BOTH.len(), Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Core {
    /// What was sent and not flushed goes out, as far as it is granted.
    fn drop(&mut self) {
        self.flush();
        let is_sending = |link: &Core| {
            let connections = link.parts.sides.iter().flat_map(|side| side.connections.iter().flatten());
            connections.into_iter().any(Connection::is_sending)
        };
        for _ in 0..LAST_WORDS_MS {
            self.reap();
            if !is_sending(self) {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for side in &mut self.parts.sides {
            side.connections.fill_with(|| None);
        }
        self.parts.door.close();
    }
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
