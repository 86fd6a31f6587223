//! The net itself: nodes, directions between them, and frames under way.
//!
//! All memory is reserved when the net is made or a link opens: `frames_max`
//! buffers, and for each node two heaps that could hold all of them.

use crate::faults::{Faults, PathCounts, WhenFull};
use crate::random::Random;
use insane_core::{MonoTime, Nanos};
use insane_link::SendOutcome;
use insane_sys::SharedBytes;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::SocketAddr;

/// A node's place in [`State::nodes`].
pub(crate) type NodeIndex = usize;

/// Where a frame waits: ordered by arrival, and by departure where that is equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Waiting {
    arrives: MonoTime,
    departed: u64,
    buffer: usize,
}

/// One address.
#[derive(Debug)]
struct Node {
    address: SocketAddr,
    open: bool,
    /// Its link takes no other peers than it has.
    refuses_peers: bool,
    /// It is a member of the group.
    is_member: bool,
    /// What is sent to the group does not get here.
    is_deaf: bool,
    /// Frames sent to the group.
    group_frames: u64,
    /// Frames on their way here: real-time lanes, and all others.
    inbox: [BinaryHeap<Reverse<Waiting>>; 2],
}

/// A frame under way.
#[derive(Debug)]
struct Buffer {
    /// Empty while the frame is being handed out.
    bytes: Box<[u8]>,
    len: usize,
    from: NodeIndex,
    to: NodeIndex,
}

/// One direction between two nodes.
#[derive(Debug)]
struct Path {
    faults: Faults,
    random: Random,
    under_way: [u32; 2],
    /// Latest arrival so far of each class: jitter does not overtake it.
    latest: [MonoTime; 2],
    counts: PathCounts,
}

/// What is drawn for one frame. All of it is drawn for every frame, so that setting
/// one fault leaves the draws of the others as they were.
struct Fate {
    lost: bool,
    twice: bool,
    journeys: [Journey; 2],
}

/// What is drawn for one copy of a frame.
struct Journey {
    jitter: Nanos,
    held_back: bool,
}

impl Path {
    fn draw(&mut self) -> Fate {
        let (faults, random) = (self.faults, &mut self.random);
        let lost = faults.loss.strikes(random);
        let twice = faults.duplication.strikes(random);
        let journeys = [(); 2].map(|()| Journey {
            jitter: Nanos(random.up_to(faults.jitter.0)),
            held_back: faults.reordering.strikes(random),
        });
        Fate { lost, twice, journeys }
    }
}

/// A frame taken out to be handed to a receiver; goes back with [`State::put_back`].
#[derive(Debug)]
pub(crate) struct Taken {
    buffer: usize,
    pub(crate) bytes: Box<[u8]>,
    pub(crate) len: usize,
    pub(crate) from: NodeIndex,
}

#[derive(Debug)]
pub(crate) struct State {
    seed: u64,
    default_faults: Faults,
    nodes: Vec<Node>,
    paths: BTreeMap<(NodeIndex, NodeIndex), Path>,
    buffers: Vec<Buffer>,
    free: Vec<usize>,
    departures: u64,
}

impl State {
    pub(crate) fn new(seed: u64, default_faults: Faults, frames_max: usize, frame_bytes_max: usize) -> Self {
        let buffer = |_| Buffer { bytes: vec![0; frame_bytes_max].into_boxed_slice(), len: 0, from: 0, to: 0 };
        State {
            seed,
            default_faults,
            nodes: Vec::new(),
            paths: BTreeMap::new(),
            buffers: (0..frames_max).map(buffer).collect(),
            free: (0..frames_max).rev().collect(),
            departures: 0,
        }
    }

    /// The node at `address`; made if it is new.
    pub(crate) fn node(&mut self, address: SocketAddr) -> NodeIndex {
        if let Some(known) = self.nodes.iter().position(|node| node.address == address) {
            return known;
        }
        let inbox = || BinaryHeap::with_capacity(self.buffers.len());
        self.nodes.push(Node {
            address,
            open: false,
            refuses_peers: false,
            is_member: false,
            is_deaf: false,
            group_frames: 0,
            inbox: [inbox(), inbox()],
        });
        self.nodes.len() - 1
    }

    pub(crate) fn set_refusing_peers(&mut self, node: NodeIndex, refuses: bool) {
        self.nodes[node].refuses_peers = refuses;
    }

    pub(crate) fn refuses_peers(&self, node: NodeIndex) -> bool {
        self.nodes[node].refuses_peers
    }

    /// Opens the node; false if it is open.
    pub(crate) fn open(&mut self, node: NodeIndex) -> bool {
        !std::mem::replace(&mut self.nodes[node].open, true)
    }

    /// Closes the node; frames on their way to it are lost.
    pub(crate) fn close(&mut self, node: NodeIndex) {
        self.nodes[node].open = false;
        for class in 0..2 {
            while let Some(Reverse(waiting)) = self.nodes[node].inbox[class].pop() {
                let from = self.buffers[waiting.buffer].from;
                let path = self.path(from, node);
                path.under_way[class] -= 1;
                path.counts.lost += 1;
                self.free.push(waiting.buffer);
            }
        }
    }

    /// Makes sure that the direction exists, so that sending on it need not.
    pub(crate) fn prepare_path(&mut self, from: NodeIndex, to: NodeIndex) {
        self.path(from, to);
    }

    pub(crate) fn set_faults(&mut self, from: NodeIndex, to: NodeIndex, faults: Faults) {
        self.path(from, to).faults = faults;
    }

    pub(crate) fn faults(&mut self, from: NodeIndex, to: NodeIndex) -> Faults {
        self.path(from, to).faults
    }

    pub(crate) fn counts(&mut self, from: NodeIndex, to: NodeIndex) -> PathCounts {
        self.path(from, to).counts
    }

    fn path(&mut self, from: NodeIndex, to: NodeIndex) -> &mut Path {
        let (seed, faults) = (self.seed, self.default_faults);
        self.paths.entry((from, to)).or_insert_with(|| Path {
            faults,
            // A stream of its own: traffic elsewhere does not change what happens here.
            random: Random::new(seed, (from as u64) << 32 | to as u64),
            under_way: [0; 2],
            latest: [MonoTime(0); 2],
            counts: PathCounts::default(),
        })
    }

    /// Takes a frame in. `class` is 0 for real-time lanes, 1 for all others.
    pub(crate) fn send(
        &mut self,
        now: MonoTime,
        (from, to): (NodeIndex, NodeIndex),
        class: usize,
        head: &[u8],
        payload: SharedBytes<'_>,
    ) -> SendOutcome {
        let frames_max = self.buffers.len() as u32;
        let has_free = !self.free.is_empty();
        let is_open = self.nodes[to].open;
        let path = self.path(from, to);
        let full = path.under_way[class] >= path.faults.queue_frames_max.unwrap_or(frames_max);
        if !has_free || (full && path.faults.when_full == WhenFull::Busy) {
            path.counts.refused += 1;
            return SendOutcome::Busy;
        }
        path.counts.sent += 1;
        let Fate { lost, twice, journeys: [journey, second_journey] } = path.draw();
        let bytes = head.len() + payload.len();
        let too_large = path.faults.frame_bytes_max.is_some_and(|most| bytes > most as usize);
        if lost || full || too_large || path.faults.partitioned || !is_open {
            path.counts.lost += 1;
            return SendOutcome::Sent;
        }
        let first = self.fill(from, to, head, payload);
        self.launch(now, first, class, journey);
        if twice {
            self.duplicate(now, first, class, second_journey);
        }
        SendOutcome::Sent
    }

    /// Takes a frame in for every member but its sender.
    pub(crate) fn send_group(
        &mut self,
        now: MonoTime,
        from: NodeIndex,
        class: usize,
        head: &[u8],
        payload: SharedBytes<'_>,
    ) -> SendOutcome {
        let mut refused = false;
        let mut taken = false;
        for to in 0..self.nodes.len() {
            let node = &self.nodes[to];
            if to == from || !node.is_member || node.is_deaf {
                continue;
            }
            match self.send(now, (from, to), class, head, payload) {
                SendOutcome::Busy => refused = true,
                SendOutcome::Sent | SendOutcome::Failed => taken = true,
            }
        }
        if refused && !taken {
            return SendOutcome::Busy;
        }
        self.nodes[from].group_frames += 1;
        SendOutcome::Sent
    }

    pub(crate) fn set_member(&mut self, node: NodeIndex, is_member: bool) {
        self.nodes[node].is_member = is_member;
        let members: Vec<_> = (0..self.nodes.len()).filter(|other| self.nodes[*other].is_member).collect();
        // Paths exist before the first frame: a datapath allocates nothing.
        for other in members.into_iter().filter(|other| is_member && *other != node) {
            self.prepare_path(node, other);
            self.prepare_path(other, node);
        }
    }

    pub(crate) fn set_deaf(&mut self, node: NodeIndex, is_deaf: bool) {
        self.nodes[node].is_deaf = is_deaf;
    }

    pub(crate) fn group_frames(&self, node: NodeIndex) -> u64 {
        self.nodes[node].group_frames
    }

    /// Copies a frame into a free buffer; there is one.
    fn fill(&mut self, from: NodeIndex, to: NodeIndex, head: &[u8], payload: SharedBytes<'_>) -> usize {
        let Some(index) = self.free.pop() else { unreachable!("the caller saw a free buffer") };
        let buffer = &mut self.buffers[index];
        buffer.bytes[..head.len()].copy_from_slice(head);
        let copied = payload.copy_to(&mut buffer.bytes[head.len()..]);
        buffer.len = head.len() + copied;
        (buffer.from, buffer.to) = (from, to);
        index
    }

    /// A second copy, if there is a buffer for it.
    fn duplicate(&mut self, now: MonoTime, first: usize, class: usize, journey: Journey) {
        let Some(second) = self.free.pop() else { return };
        let [original, copy] = self
            .buffers
            .get_disjoint_mut([first, second])
            .unwrap_or_else(|_| unreachable!("a buffer in use is not free"));
        copy.bytes[..original.len].copy_from_slice(&original.bytes[..original.len]);
        (copy.len, copy.from, copy.to) = (original.len, original.from, original.to);
        let (from, to) = (original.from, original.to);
        self.path(from, to).counts.duplicated += 1;
        self.launch(now, second, class, journey);
    }

    /// Puts a filled buffer on its way.
    fn launch(&mut self, now: MonoTime, buffer: usize, class: usize, journey: Journey) {
        let (from, to) = (self.buffers[buffer].from, self.buffers[buffer].to);
        let path = self.path(from, to);
        let mut arrives = now + path.faults.delay + journey.jitter;
        if journey.held_back {
            path.counts.held_back += 1;
            arrives += path.faults.reorder_by;
        } else {
            arrives = arrives.max(path.latest[class]);
            path.latest[class] = arrives;
        }
        path.under_way[class] += 1;
        self.departures += 1;
        let waiting = Waiting { arrives, departed: self.departures, buffer };
        self.nodes[to].inbox[class].push(Reverse(waiting));
    }

    /// The next frame of `class` that has arrived at `node`.
    pub(crate) fn take(&mut self, now: MonoTime, node: NodeIndex, class: usize) -> Option<Taken> {
        let inbox = &mut self.nodes[node].inbox[class];
        if inbox.peek()?.0.arrives > now {
            return None;
        }
        let Reverse(waiting) = inbox.pop()?;
        let buffer = &mut self.buffers[waiting.buffer];
        let (bytes, len, from) = (std::mem::take(&mut buffer.bytes), buffer.len, buffer.from);
        let path = self.path(from, node);
        path.under_way[class] -= 1;
        path.counts.delivered += 1;
        Some(Taken { buffer: waiting.buffer, bytes, len, from })
    }

    pub(crate) fn put_back(&mut self, taken: Taken) {
        self.buffers[taken.buffer].bytes = taken.bytes;
        self.free.push(taken.buffer);
    }

    /// When the next frame arrives anywhere.
    pub(crate) fn next_arrival(&self) -> Option<MonoTime> {
        let inboxes = self.nodes.iter().flat_map(|node| &node.inbox);
        inboxes.filter_map(|inbox| inbox.peek().map(|waiting| waiting.0.arrives)).min()
    }
}
