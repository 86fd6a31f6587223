//! A sender and its receivers over a network that loses, repeats, delays, reorders and
//! parts, in virtual time.

use crate::reliable::{
    Ack, Arrival, Attention, Limits, PEERS_MAX, Position, RECAPS_MAX, Receiver, Sender, Sync, UNSEEN_SHARE,
};
use insane_core::{Incarnation, MonoTime, Nanos, PeerIndex};
use std::collections::{BTreeMap, VecDeque};
use std::vec::Vec;

const LIFE: Incarnation = Incarnation(9);
const PAYLOAD_MAX: u32 = 1408;
const TICK: Nanos = Nanos::from_micros(20);
const LIMITS: Limits = Limits {
    window: 16,
    window_bytes: 40_000,
    flight_bytes: 16_000,
    evict_after: Nanos::from_millis(50),
    sync_after: Nanos::from_millis(1),
    sync_after_max: Nanos::from_millis(8),
    probe_after: Nanos::from_millis(10),
    repair_after: Nanos::from_micros(500),
};

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy)]
enum Frame {
    Data { from: Position, len: u32, message_len: u32 },
    Sync(Sync),
    Ack { life: u32, ack: Ack },
}

#[derive(Clone, Copy, Default)]
struct Faults {
    loss: u64,
    duplication: u64,
    /// Some frames are this many ticks late.
    reordering: u64,
}

fn len_of(sequence: u64) -> u32 {
    [0, 8, 96, 1408, 1409, 5_000, 20_000][(sequence % 7) as usize]
}

/// One runtime with one sink.
#[derive(Default)]
struct Node {
    machine: Option<Receiver>,
    /// What the sink has not consumed yet; 8 fit.
    ring: VecDeque<u64>,
    /// Messages released in this life, and the losses each told.
    got: Vec<(u64, u64)>,
    /// Where the sender stood when this life joined.
    joined_at: u64,
    was_evicted: bool,
    life: u32,
    parted_until: u64,
    stalled_until: u64,
    is_member: bool,
}

struct World {
    now: MonoTime,
    random: Random,
    faults: Faults,
    sender: Sender,
    nodes: Vec<Node>,
    /// By arrival, then a running number.
    wire: BTreeMap<(u64, u64), (usize, Frame)>,
    running: u64,
    released: u64,
    evictions: u64,
    repairs: u64,
    stalled_since: Option<MonoTime>,
    stall_max: Nanos,
}

impl World {
    fn new(seed: u64, nodes: usize, faults: Faults) -> World {
        let mut world = World {
            now: MonoTime(1_000_000_000),
            random: Random(seed),
            faults,
            sender: Sender::new(LIMITS, 5, 100),
            nodes: (0..nodes).map(|_| Node::default()).collect(),
            wire: BTreeMap::new(),
            running: 0,
            released: 100,
            evictions: 0,
            repairs: 0,
            stalled_since: None,
            stall_max: Nanos::ZERO,
        };
        for node in 0..nodes {
            world.join(node);
        }
        world
    }

    fn join(&mut self, node: usize) {
        self.sender.join(self.now, PeerIndex(node as u16));
        let end = self.sender.end();
        let node = &mut self.nodes[node];
        (node.is_member, node.joined_at) = (true, end);
    }

    /// A runtime dies and another life of it joins.
    fn crash(&mut self, node: usize) {
        self.check_life(node, false);
        self.sender.forget(PeerIndex(node as u16));
        self.nodes[node] = Node { life: self.nodes[node].life + 1, ..Node::default() };
        self.join(node);
    }

    fn send(&mut self, node: usize, frame: Frame) {
        let times = 1 + u64::from(self.random.chance(self.faults.duplication));
        for _ in 0..times {
            if self.now.0 < self.nodes[node].parted_until || self.random.chance(self.faults.loss) {
                continue;
            }
            let late = if self.random.chance(self.faults.reordering) { self.random.below(40) * TICK.0 } else { 0 };
            self.running += 1;
            self.wire.insert((self.now.0 + 2 * TICK.0 + late, self.running), (node, frame));
        }
    }

    /// Takes what arrives, emits if `emit` and there is room, sends what may be sent.
    fn tick(&mut self, emit: bool) {
        self.now += TICK;
        while let Some(entry) = self.wire.first_entry()
            && entry.key().0 <= self.now.0
        {
            let (node, frame) = entry.remove();
            self.arrive(node, frame);
        }
        for node in 0..self.nodes.len() {
            self.serve(node);
        }
        self.drive_sender(emit);
    }

    fn drive_sender(&mut self, emit: bool) {
        while self.sender.give_up_recap(self.now).is_some() {}
        while let Some(peer) = self.sender.evict(self.now) {
            self.nodes[peer.index()].was_evicted = true;
            self.evictions += 1;
        }
        self.release();
        if self.sender.has_room() {
            self.stalled_since = None;
            if emit {
                let sequence = self.sender.push(self.now, len_of(self.sender.end()));
                assert_eq!(sequence + 1, self.sender.end());
            }
        } else {
            let since = *self.stalled_since.get_or_insert(self.now);
            self.stall_max = self.stall_max.max(self.now.since(since));
        }
        assert!(self.sender.held() <= u64::from(LIMITS.window));
        while let Some((peer, sync)) = self.sender.next_sync(self.now) {
            self.send(peer.index(), Frame::Sync(sync));
        }
        for _ in 0..8 {
            let Some(data) = self.sender.next_data(PAYLOAD_MAX) else { break };
            assert!(data.from.sequence >= self.released, "a message that was freed is sent");
            assert!(data.len <= PAYLOAD_MAX);
            self.repairs += u64::from(data.is_repair);
            self.sender.sent(self.now, &data);
            let message_len = len_of(data.from.sequence);
            self.send(data.peer.index(), Frame::Data { from: data.from, len: data.len, message_len });
        }
        self.release();
    }

    fn release(&mut self) {
        while let Some(sequence) = self.sender.release() {
            assert_eq!(sequence, self.released, "freed once, in order");
            self.released += 1;
            // Whoever was put out may not know yet that it begins later.
            for node in self.nodes.iter().filter(|node| node.is_member && !node.was_evicted) {
                let needs = node.joined_at <= sequence
                    && node.machine.is_none_or(|machine| machine.next().sequence <= sequence);
                assert!(!needs, "freed while it is needed");
            }
        }
    }

    fn arrive(&mut self, at: usize, frame: Frame) {
        let now = self.now;
        let node = &mut self.nodes[at];
        match frame {
            Frame::Ack { life, ack } => {
                if life == node.life && node.is_member {
                    assert!(self.sender.on_ack(now, PeerIndex(at as u16), &ack), "honest: {ack:?}");
                }
            }
            Frame::Sync(sync) => match &mut node.machine {
                Some(machine) => {
                    let _ = machine.on_sync(now, &sync);
                }
                None => node.machine = Some(Receiver::new(now, &sync)),
            },
            Frame::Data { from, len, message_len } => {
                let Some(machine) = &mut node.machine else { return };
                match machine.on_frame(now, &LIMITS, from, len, message_len) {
                    Arrival::Next { completes: true } if node.ring.len() == 8 => machine.refused(now),
                    Arrival::Next { completes } => {
                        assert_eq!(completes, from.offset + len == len_of(from.sequence));
                        let released = machine.stored(now, len);
                        assert_eq!(released.is_some(), completes);
                        if let Some(lost) = released {
                            node.got.push((from.sequence, lost));
                            node.ring.push_back(from.sequence);
                        }
                    }
                    Arrival::Duplicate | Arrival::Ahead => {}
                    other @ (Arrival::Skipped | Arrival::Inconsistent) => panic!("{other:?}"),
                }
            }
        }
    }

    /// A turn of a receiving runtime: its sink consumes, it acknowledges.
    fn serve(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        if self.now.0 >= node.stalled_until {
            node.ring.pop_front();
        }
        let Some(machine) = &mut node.machine else { return };
        if node.ring.len() < 8 {
            machine.reopen();
        }
        if machine.is_due() {
            let frame = Frame::Ack { life: node.life, ack: machine.ack(LIFE) };
            self.send(at, frame);
        }
    }

    fn check_life(&self, at: usize, at_rest: bool) {
        let node = &self.nodes[at];
        let mut next = None;
        for (sequence, lost) in &node.got {
            match next {
                Some(next) => assert_eq!(*sequence, next + lost, "exactly once, in order, or told as lost"),
                None => assert!(sequence - lost >= node.joined_at, "no history"),
            }
            assert!(*lost == 0 || node.was_evicted, "lost without eviction");
            next = Some(sequence + 1);
        }
        if !node.was_evicted && (at_rest || next.is_some()) {
            let (first, _) = node.got.first().copied().unwrap_or((self.sender.end(), 0));
            assert_eq!(first, node.joined_at, "from where it joined");
        }
        if at_rest {
            let machine = node.machine.expect("it was reached");
            assert_eq!(machine.next(), Position::start_of(self.sender.end()), "everything arrived");
            if let Some(next) = next {
                assert_eq!(next + machine.lost(), self.sender.end());
            }
        }
    }

    /// No more faults and no more messages: all must come to rest.
    fn come_to_rest(&mut self) {
        self.faults = Faults::default();
        let deadline = self.now + Nanos::from_secs(2);
        while self.now < deadline {
            self.tick(false);
            let all_in = (0..self.nodes.len()).all(|node| !self.sender.is_out(PeerIndex(node as u16)));
            if all_in && self.sender.is_settled() && self.wire.is_empty() {
                break;
            }
        }
        assert!(self.sender.is_settled() && self.sender.held() == 0, "does not come to rest");
        for node in 0..self.nodes.len() {
            self.check_life(node, true);
        }
    }
}

/// A receiver that forgot a flow at rest, for lack of places, goes on with the next message.
#[test]
fn who_forgot_a_flow_at_rest_goes_on_with_what_is_next() {
    let mut world = World::new(3, 1, Faults::default());
    let (peer, now) = (PeerIndex(0), world.now);
    let sender = &mut world.sender;
    let hear = |sender: &mut Sender, receiver: &mut Receiver, now: MonoTime| {
        while let Some(data) = sender.next_data(PAYLOAD_MAX) {
            assert_eq!(receiver.on_frame(now, &LIMITS, data.from, data.len, 8), Arrival::Next { completes: true });
            assert_eq!(receiver.stored(now, data.len), Some(0));
            sender.sent(now, &data);
        }
        let ack = receiver.ack(LIFE);
        assert!(sender.on_ack(now, peer, &ack));
    };
    let (_, sync) = sender.next_sync(now).unwrap();
    let mut receiver = Receiver::new(now, &sync);
    assert!(sender.on_ack(now, peer, &receiver.ack(LIFE)));
    for _ in 0..5 {
        sender.push(now, 8);
        hear(sender, &mut receiver, now);
    }
    assert!(sender.is_settled());

    let later = now + Nanos::from_secs(70);
    sender.push(later, 8);
    let lost = sender.next_data(PAYLOAD_MAX).unwrap();
    sender.sent(later, &lost);
    let later = later + LIMITS.sync_after;
    let (_, sync) = sender.next_sync(later).unwrap();
    let mut anew = Receiver::new(later, &sync);
    assert_eq!(anew.next(), Position::start_of(105));
    assert!(sender.on_ack(later, peer, &anew.ack(LIFE)));
    hear(sender, &mut anew, later);
    assert_eq!((anew.next(), anew.lost()), (Position::start_of(106), 0));
    assert!(sender.is_settled());
    assert_eq!(sender.evict(later + LIMITS.evict_after), None);
}

#[test]
fn under_faults_everything_arrives_exactly_once_and_in_order() {
    let mut repairs = 0;
    for seed in 0..40 {
        let faults = Faults { loss: seed % 16, duplication: seed % 5 * 4, reordering: seed % 3 * 6 };
        let mut world = World::new(seed, 3, faults);
        for _ in 0..6_000 {
            world.tick(true);
        }
        world.come_to_rest();
        assert_eq!(world.evictions, 0, "seed {seed}: losses alone put nobody out");
        assert!(world.sender.end() > 200, "seed {seed}: {} messages", world.sender.end() - 100);
        repairs += world.repairs;
    }
    assert!(repairs > 3_000);
}

#[test]
fn without_faults_nothing_is_sent_twice() {
    let mut world = World::new(1, 3, Faults::default());
    for _ in 0..6_000 {
        world.tick(true);
    }
    world.come_to_rest();
    // Sinks consume a message a tick: there is always room.
    assert_eq!((world.repairs, world.evictions), (0, 0));
    assert!(world.sender.end() > 900);
}

#[test]
fn partitions_stalls_crashes_and_late_joiners() {
    let (mut evictions, mut lives) = (0, 0);
    for seed in 0..40 {
        let faults = Faults { loss: seed % 8, duplication: seed % 4 * 3, reordering: seed % 3 * 4 };
        let mut world = World::new(seed ^ 0xabcd, 4, faults);
        world.sender.leave(world.now, PeerIndex(3));
        world.nodes[3] = Node::default();
        for tick in 0..20_000 {
            if world.random.below(1_500) == 0 {
                let node = world.random.below(3) as usize;
                let until = world.now.0 + world.random.below(3) * 60_000_000 + 1_000_000;
                match world.random.below(3) {
                    0 => world.nodes[node].parted_until = until,
                    1 => world.nodes[node].stalled_until = until,
                    _ => {
                        world.crash(node);
                        lives += 1;
                    }
                }
            }
            if tick == 9_000 {
                world.join(3);
            }
            let emit = world.random.chance(60);
            world.tick(emit);
        }
        evictions += world.evictions;
        world.come_to_rest();
    }
    assert!(evictions > 50 && lives > 50, "{evictions} evictions, {lives} lives");
}

#[test]
fn a_dead_peer_stalls_the_others_until_its_eviction_and_no_longer() {
    let mut world = World::new(3, 3, Faults::default());
    for _ in 0..1_000 {
        world.tick(true);
    }
    world.nodes[1].parted_until = u64::MAX;
    let before = world.nodes[0].got.len();
    for _ in 0..10_000 {
        world.tick(true);
    }
    assert_eq!(world.evictions, 1);
    assert!(world.stall_max <= Nanos(LIMITS.evict_after.0 + TICK.0), "{}", world.stall_max);
    assert!(world.stall_max > Nanos(LIMITS.evict_after.0 / 2), "it does stall them until then");
    assert!(world.nodes[0].got.len() > before + 300, "then they go on");
    // It is back, and knows what it missed.
    world.nodes[1].parted_until = 0;
    for _ in 0..2_000 {
        world.tick(true);
    }
    let told: u64 = world.nodes[1].got.iter().map(|(_, lost)| lost).sum();
    assert!(told > 300, "{told}");
    world.come_to_rest();
    assert_eq!(world.evictions, 1, "once");
}

#[test]
fn a_slow_sink_holds_back_the_source_and_loses_nothing() {
    let mut world = World::new(4, 2, Faults { loss: 2, ..Faults::default() });
    for _ in 0..40 {
        // Stalled for less than the time of eviction, again and again.
        world.nodes[1].stalled_until = world.now.0 + 40_000_000;
        for _ in 0..2_100 {
            world.tick(true);
        }
        let behind = world.nodes[0].got.len().abs_diff(world.nodes[1].got.len());
        assert!(behind as u64 <= u64::from(LIMITS.window), "the other is held back with it");
    }
    world.come_to_rest();
    assert_eq!(world.evictions, 0);
    assert!(world.nodes[1].got.iter().all(|(_, lost)| *lost == 0));
}

#[test]
fn who_leaves_is_waited_for_no_longer() {
    let mut world = World::new(5, 2, Faults::default());
    world.nodes[1].parted_until = u64::MAX;
    for _ in 0..500 {
        world.tick(true);
    }
    assert!(!world.sender.has_room());
    world.sender.leave(world.now, PeerIndex(1));
    world.nodes[1].is_member = false;
    world.release();
    assert!(world.sender.has_room());
    let sync = Sync { token: 5, base: 0, sent: Position::default(), fresh: true, keeps: false, recap: 0, past: 0 };
    world.nodes[1] = Node { machine: Some(Receiver::new(world.now, &sync)), ..Node::default() };
    world.nodes.truncate(1);
    world.come_to_rest();
}

fn acked(next: Position, limit: u64) -> Ack {
    Ack { token: 5, life: LIFE, next, limit, nak: false, gone: false, recap: 0 }
}

/// A sender with one peer that knows where it begins, and two messages of 3000 bytes.
fn sender_of_two(now: MonoTime) -> Sender {
    let mut sender = Sender::new(LIMITS, 5, 100);
    sender.join(now, PeerIndex(0));
    sender.push(now, 3_000);
    sender.push(now, 3_000);
    assert!(sender.next_data(PAYLOAD_MAX).is_none(), "it has not said what it takes");
    assert!(sender.next_sync(now).is_some_and(|(_, sync)| sync.fresh && sync.base == 100));
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(100), 164)));
    sender
}

/// The same, with both messages sent, and nothing acknowledged.
fn sender_whose_two_are_under_way(now: MonoTime) -> Sender {
    let mut sender = sender_of_two(now);
    while let Some(data) = sender.next_data(PAYLOAD_MAX) {
        sender.sent(now, &data);
    }
    sender
}

#[test]
fn a_false_acknowledgement_changes_nothing() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_of_two(now);
    for _ in 0..4 {
        let data = sender.next_data(PAYLOAD_MAX).unwrap();
        sender.sent(now, &data);
    }
    let false_positions = [
        Position::start_of(102),
        Position { sequence: 101, offset: 2_816 },
        Position { sequence: 101, offset: 64_000 },
        // Sent long ago, but no place in that message.
        Position { sequence: 100, offset: 64_000 },
        Position { sequence: u64::MAX, offset: 0 },
    ];
    for next in false_positions {
        assert!(!sender.on_ack(now, PeerIndex(0), &acked(next, u64::MAX)), "{next:?}");
        assert_eq!((sender.release(), sender.held()), (None, 2));
    }
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position { sequence: 100, offset: 1_408 }, 164)));
    // Of nobody known: ignored.
    assert!(sender.on_ack(now, PeerIndex(7), &acked(Position::start_of(102), 164)));
    assert_eq!(sender.release(), None);
}

/// A sender whose one peer has three of four messages of one frame, and a recap of it from the
/// second one on.
fn sender_with_recap(now: MonoTime) -> Sender {
    let mut sender = Sender::new(LIMITS, 5, 100);
    sender.join(now, PeerIndex(0));
    let _ = sender.next_sync(now);
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(100), 164)));
    for _ in 0..4 {
        sender.push(now, 1_000);
    }
    for _ in 0..3 {
        let data = sender.next_data(PAYLOAD_MAX).unwrap();
        sender.sent(now, &data);
    }
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(103), 164)));
    while sender.release().is_some() {}
    assert_eq!((sender.held(), sender.recall(101, |_| 1_000)), (1, 101..103));
    assert!(sender.recap(now, PeerIndex(0), 101, 7));
    assert!(!sender.recap(now, PeerIndex(0), 101, 8), "one at a time");
    assert!(!sender.recap(now, PeerIndex(3), 101, 9), "nobody is there");
    sender
}

fn recapped(next: u64, recap: u32, gone: bool) -> Ack {
    Ack { recap, gone, ..acked(Position::start_of(next), 164) }
}

#[test]
fn a_recap_goes_first_and_no_further_than_its_flow() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_with_recap(now);
    let sync = std::iter::from_fn(|| sender.next_sync(now)).find(|(_, sync)| sync.recap == 7);
    let sent = Position::start_of(101);
    let expected = Sync { token: 5, base: 101, sent, fresh: true, keeps: false, recap: 7, past: 104 };
    assert_eq!(sync, Some((PeerIndex(0), expected)));
    // Not before it is confirmed; neither one of another number nor of the flow does that.
    assert!(sender.on_ack(now, PeerIndex(0), &recapped(101, 6, false)));
    let data = sender.next_data(PAYLOAD_MAX).unwrap();
    assert_eq!((data.from.sequence, data.is_past), (103, false), "the flow goes on");
    assert!(sender.on_ack(now, PeerIndex(0), &recapped(101, 7, false)));
    for number in 101..103 {
        let data = sender.next_data(PAYLOAD_MAX).unwrap();
        assert_eq!((data.from.sequence, data.is_past), (number, false));
        sender.sent(now, &data);
    }
    let data = sender.next_data(PAYLOAD_MAX).unwrap();
    assert_eq!(data.from.sequence, 103, "the flow's turn");
    sender.sent(now, &data);
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(104), 164)));
    assert_eq!(sender.release(), None, "held for the recap");
    assert!(sender.on_ack(now, PeerIndex(0), &recapped(103, 7, true)));
    assert!(!sender.is_recapping(PeerIndex(0)) && sender.is_settled());
    assert_eq!(std::iter::from_fn(|| sender.release()).count(), 3);
}

/// What becomes of a recap costs its peer nothing; it ends with that.
#[test]
fn a_recap_that_stands_still_ends_alone() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_with_recap(now);
    let data = sender.next_data(PAYLOAD_MAX).unwrap();
    sender.sent(now, &data);
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(104), 164)));
    let late = now + LIMITS.evict_after;
    assert_eq!((sender.evict(late), sender.give_up_recap(late)), (None, Some(PeerIndex(0))));
    assert_eq!(sender.give_up_recap(late), None);
    assert!(!sender.is_recapping(PeerIndex(0)) && !sender.is_out(PeerIndex(0)) && sender.is_settled());

    let mut sender = sender_with_recap(now);
    assert!(sender.on_ack(now, PeerIndex(0), &Ack { gone: true, ..acked(Position::start_of(103), 103) }));
    assert!(sender.is_out(PeerIndex(0)) && !sender.is_recapping(PeerIndex(0)));

    let mut sender = Sender::new(LIMITS, 5, 100);
    sender.push(now, 8);
    for index in (0..PEERS_MAX as u16).map(PeerIndex) {
        sender.join_at(now, index, 100);
        let has_place = usize::from(index.0) < RECAPS_MAX;
        assert_eq!(sender.recap(now, index, 100, 1 + u32::from(index.0)), has_place);
    }
    assert_eq!(sender.peers().count(), PEERS_MAX, "recaps take no peer's place");
    sender.leave(now, PeerIndex(0));
    assert!(sender.recap(now, PeerIndex(40), 100, 99));
}

/// For how much of a minute a peer's recaps hold the window, and how many there are. It asks
/// again and again; `wait`: so long it takes for each answer, if it answers.
fn recaps_in_a_minute(wait: Option<Nanos>) -> (Nanos, u32) {
    const STEP: Nanos = Nanos::from_millis(1);
    let began = MonoTime(1_000_000);
    let mut sender = sender_with_recap(began);
    let (mut now, mut number, mut held, mut from, mut asked_at) = (began, 7, 0, 101, began);
    while now.since(began) < Nanos::from_secs(60) {
        now += STEP;
        while sender.give_up_recap(now).is_some() {}
        if sender.is_recapping(PeerIndex(0)) {
            held += STEP.0;
            if wait.is_some_and(|wait| now.since(asked_at) >= wait) {
                (from, asked_at) = (from + 1, now);
                assert!(sender.on_ack(now, PeerIndex(0), &recapped(from, number, from == 103)));
            }
        } else if sender.recap(now, PeerIndex(0), 101, number + 1) {
            (number, from, asked_at) = (number + 1, 101, now);
        }
    }
    (Nanos(held), number - 6)
}

#[test]
fn who_asks_for_recaps_again_and_again_holds_the_window_for_its_share_and_no_longer() {
    let share = Nanos::from_millis(60_000 / crate::reliable::RECAP_SHARE);
    let slack = 3 * LIMITS.evict_after.0;
    for wait in [None, Some(Nanos(LIMITS.evict_after.0 * 4 / 5)), Some(Nanos::from_millis(3))] {
        let (held, count) = recaps_in_a_minute(wait);
        assert!(count > 10 && held.0 >= share.0 - slack, "{held:?} in {count}");
        assert!(held.0 <= share.0 + slack, "{held:?} in {count}");
    }
}

/// As [`recaps_in_a_minute`], of a peer that takes nothing and ends each of them for itself just
/// before it would be given up.
fn recaps_that_are_evaded(evade: impl Fn(&mut Sender, MonoTime)) -> Nanos {
    const STEP: Nanos = Nanos::from_millis(1);
    let began = MonoTime(1_000_000);
    let mut sender = sender_with_recap(began);
    let (mut now, mut number, mut held, mut asked_at) = (began, 7, 0, began);
    while now.since(began) < Nanos::from_secs(60) {
        now += STEP;
        assert_eq!(sender.give_up_recap(now), None);
        if sender.is_recapping(PeerIndex(0)) {
            held += STEP.0;
            if now.since(asked_at) >= Nanos(LIMITS.evict_after.0 - STEP.0) {
                evade(&mut sender, now);
                assert!(!sender.is_recapping(PeerIndex(0)));
                // It holds what the flow has, so that there is something to recap.
                let _ = sender.recall(101, |_| 1_000);
            }
        } else if sender.recap(now, PeerIndex(0), 101, number + 1) {
            (number, asked_at) = (number + 1, now);
        }
    }
    assert!(number > 17, "{number}");
    Nanos(held)
}

#[test]
fn who_breaks_recaps_off_and_joins_again_holds_the_window_for_its_share_and_no_longer() {
    let share = Nanos::from_millis(60_000 / crate::reliable::RECAP_SHARE);
    let slack = 3 * LIMITS.evict_after.0;
    let gone = |sender: &mut Sender, now| {
        assert!(sender.on_ack(now, PeerIndex(0), &Ack { gone: true, ..acked(Position::start_of(103), 103) }));
        assert!(sender.is_out(PeerIndex(0)));
        assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(104), 164)));
        assert!(!sender.is_out(PeerIndex(0)));
    };
    let gone_for_good = |sender: &mut Sender, now| {
        assert!(sender.on_ack(now, PeerIndex(0), &Ack { gone: true, ..acked(Position::start_of(103), 103) }));
        sender.leave(now, PeerIndex(0));
        sender.join(now, PeerIndex(0));
    };
    let by_route = |sender: &mut Sender, now| {
        sender.leave(now, PeerIndex(0));
        sender.join(now, PeerIndex(0));
    };
    for held in [recaps_that_are_evaded(gone), recaps_that_are_evaded(gone_for_good), recaps_that_are_evaded(by_route)]
    {
        assert!(held.0.abs_diff(share.0) <= slack, "{held:?}");
    }
}

#[test]
fn another_life_of_a_peer_owes_nothing_for_recaps() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_with_recap(now);
    let late = now + Nanos(10 * LIMITS.evict_after.0);
    assert_eq!(sender.give_up_recap(late), Some(PeerIndex(0)));
    assert!(!sender.can_recap(late, PeerIndex(0)));
    sender.forget(PeerIndex(0));
    sender.join(late, PeerIndex(0));
    assert!(sender.can_recap(late, PeerIndex(0)));
}

#[test]
fn a_message_is_sent_from_where_it_broke_off() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_of_two(now);
    for (offset, len) in [(0, 1_408), (1_408, 1_408), (2_816, 184)] {
        let data = sender.next_data(PAYLOAD_MAX).unwrap();
        assert_eq!((data.from, data.len, data.is_repair), (Position { sequence: 100, offset }, len, false));
        sender.sent(now, &data);
    }
    let broken = Position { sequence: 100, offset: 1_408 };
    let nak = Ack { nak: true, ..acked(broken, 164) };
    assert!(sender.on_ack(now, PeerIndex(0), &nak));
    let again = sender.next_data(PAYLOAD_MAX).unwrap();
    assert_eq!((again.from, again.is_repair), (broken, true));
    sender.sent(now, &again);
    // The network repeats the report: the repair is not repeated.
    assert!(sender.on_ack(now, PeerIndex(0), &nak));
    assert_eq!(sender.next_data(PAYLOAD_MAX).unwrap().from.offset, 2_816);
    // The receiver repeats it: it is.
    assert!(sender.on_ack(now + LIMITS.repair_after, PeerIndex(0), &nak));
    assert_eq!(sender.next_data(PAYLOAD_MAX).unwrap().from, broken);
}

#[test]
fn credit_and_flight_bound_what_is_under_way() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_of_two(now);
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(100), 101)));
    while let Some(data) = sender.next_data(PAYLOAD_MAX) {
        assert_eq!(data.from.sequence, 100, "no credit for more");
        sender.sent(now, &data);
    }
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(100), 200)));
    let mut under_way = 3_000;
    while sender.has_room() {
        sender.push(now, 3_000);
    }
    while let Some(data) = sender.next_data(PAYLOAD_MAX) {
        under_way += data.len;
        sender.sent(now, &data);
    }
    assert!(under_way <= LIMITS.flight_bytes && under_way > LIMITS.flight_bytes - 2 * PAYLOAD_MAX, "{under_way}");
    assert!(sender.held() < 16 && sender.held() >= 13, "40 kB of 3 kB and a header each: {}", sender.held());
}

#[test]
fn a_message_that_is_given_up_counts_as_lost() {
    let now = MonoTime(1_000_000);
    let sync = Sync { token: 5, base: 7, sent: Position::start_of(7), fresh: true, keeps: false, recap: 0, past: 0 };
    let mut receiver = Receiver::new(now, &sync);
    let at = |offset| Position { sequence: 7, offset };
    assert_eq!(receiver.on_frame(now, &LIMITS, at(0), 64, 128), Arrival::Next { completes: false });
    assert_eq!(receiver.stored(now, 64), None);
    assert!(receiver.is_partial());
    assert_eq!(receiver.on_frame(now, &LIMITS, at(64), 64, 192), Arrival::Inconsistent);
    receiver.skip();
    assert!(!receiver.is_partial());
    assert_eq!(receiver.on_frame(now, &LIMITS, at(64), 64, 128), Arrival::Skipped);
    assert_eq!(receiver.ack(LIFE).next, Position::start_of(8));
    assert_eq!(receiver.on_frame(now, &LIMITS, Position::start_of(8), 5, 5), Arrival::Next { completes: true });
    assert_eq!(receiver.stored(now, 5), Some(1));
    assert_eq!(receiver.lost(), 0);
    // The acknowledgement may have been lost: it is repeated.
    let _ = receiver.ack(LIFE);
    assert_eq!(receiver.on_frame(now, &LIMITS, Position::start_of(8), 5, 5), Arrival::Duplicate);
    assert!(receiver.is_due());
    // The flow goes on later: what is given up is not what comes then.
    receiver.skip();
    assert!(receiver.on_sync(now, &Sync { base: 20, fresh: false, ..sync }));
    assert_eq!(receiver.on_frame(now, &LIMITS, Position::start_of(20), 5, 5), Arrival::Next { completes: true });
    assert_eq!(receiver.stored(now, 5), Some(11));
}

#[test]
fn the_window_bounds_messages_without_bytes() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_of_two(now);
    while sender.has_room() {
        sender.push(now, 0);
    }
    assert_eq!(sender.held(), u64::from(LIMITS.window));
}

#[test]
fn a_late_acknowledgement_is_not_a_false_one() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_of_two(now);
    let mut early = None;
    for _ in 0..200 {
        while let Some(data) = sender.next_data(PAYLOAD_MAX) {
            sender.sent(now, &data);
        }
        let ack = acked(Position { sequence: 100, offset: 1_408 }, 1_000);
        assert!(sender.on_ack(now, PeerIndex(0), early.get_or_insert(ack)));
        assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(sender.end()), 1_000)));
        while sender.release().is_some() {}
        sender.push(now, 0);
    }
}

#[test]
fn peers_take_turns() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_of_two(now);
    sender.join(now, PeerIndex(1));
    assert!(sender.on_ack(now, PeerIndex(1), &acked(Position::start_of(102), 200)));
    for _ in 0..3 {
        sender.push(now, 5_000);
    }
    let mut order = Vec::new();
    while let Some(data) = sender.next_data(PAYLOAD_MAX) {
        order.push(data.peer.0);
        sender.sent(now, &data);
    }
    assert_eq!(order[..6], [0, 1, 0, 1, 0, 1], "{order:?}");
}

#[test]
fn a_time_without_a_look_is_held_against_nobody() {
    let mut now = MonoTime(1_000_000);
    let mut sender = sender_whose_two_are_under_way(now);
    let mut attention = Attention::new(&LIMITS);
    for look in 1..=UNSEEN_SHARE {
        let missed = attention.turn(now);
        sender.look(now, missed);
        assert_eq!(sender.evict(now), None, "look {look}");
        now += Nanos::from_secs(look);
    }
    let missed = attention.turn(now);
    sender.look(now, missed);
    assert_eq!(sender.evict(now), Some(PeerIndex(0)));
}

#[test]
fn what_was_before_the_first_look_was_not_missed() {
    let mut attention = Attention::new(&LIMITS);
    assert_eq!(attention.turn(MonoTime(1_000_000_000_000)), Nanos::ZERO);
}

/// Who is one of many senders is served seldom, by a thread that is run all the time.
#[test]
fn a_time_in_which_others_were_served_counts() {
    let mut now = MonoTime(1_000_000);
    let mut attention = Attention::new(&LIMITS);
    attention.turn(now);
    let mut sender = sender_whose_two_are_under_way(now);
    let until = now + LIMITS.evict_after;
    while now < until {
        assert_eq!(sender.evict(now), None);
        now += Nanos::from_millis(5);
        attention.turn(now);
    }
    sender.look(now, attention.turn(now));
    assert_eq!(sender.evict(now), Some(PeerIndex(0)));
}

#[test]
fn time_without_anything_to_acknowledge_evicts_nobody() {
    let mut now = MonoTime(1_000_000);
    let mut sender = sender_whose_two_are_under_way(now);
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(102), 200)));
    now += Nanos::from_secs(10);
    assert_eq!(sender.evict(now), None);
    sender.push(now, 10);
    assert_eq!(sender.evict(now), None, "its time begins with the message");
    now += LIMITS.evict_after;
    assert_eq!(sender.evict(now), Some(PeerIndex(0)));
    assert_eq!((sender.evict(now), sender.release(), sender.release()), (None, Some(100), Some(101)));
    assert_eq!(sender.release(), Some(102));
    // What it says of before does not bring it back.
    assert!(sender.on_ack(now, PeerIndex(0), &acked(Position::start_of(102), 200)));
    assert!(sender.is_out(PeerIndex(0)));
    for _ in 0..4 {
        sender.push(now, 10);
        assert!(sender.release().is_some());
    }
    // It is asked to begin with what it can still have.
    now += LIMITS.probe_after;
    let (_, sync) = sender.next_sync(now).unwrap();
    assert_eq!((sync.base, sync.sent, sync.fresh), (107, Position::start_of(107), false));
}

#[test]
fn without_room_no_credit_and_no_acknowledgement() {
    let now = MonoTime(1_000_000);
    let sync = Sync { token: 5, base: 7, sent: Position::start_of(7), fresh: true, keeps: false, recap: 0, past: 0 };
    let mut receiver = Receiver::new(now, &sync);
    assert_eq!(receiver.ack(LIFE).limit, 7 + 64);
    assert!(!receiver.is_due());
    assert_eq!(receiver.on_frame(now, &LIMITS, Position::start_of(7), 5, 5), Arrival::Next { completes: true });
    receiver.refused(now);
    let ack = receiver.ack(LIFE);
    assert_eq!((ack.next, ack.limit, ack.nak), (Position::start_of(7), 7, true));
    let later = now + Nanos::from_millis(3);
    assert_eq!(receiver.blocked_for(later), Some(Nanos::from_millis(3)));
    receiver.reopen();
    let ack = receiver.ack(LIFE);
    assert_eq!((receiver.blocked_for(later), ack.limit, ack.nak), (None, 8, true));
    // Or a frame that comes anyway finds it.
    assert_eq!(receiver.on_frame(later, &LIMITS, Position::start_of(7), 5, 5), Arrival::Next { completes: true });
    receiver.refused(later);
    assert_eq!(receiver.stored(later, 5), Some(0));
    assert_eq!((receiver.blocked_for(later), receiver.ack(LIFE).limit), (None, 8 + 2));
    // A frame far ahead is one loss, reported once, then again after a while.
    assert_eq!(receiver.on_frame(later, &LIMITS, Position::start_of(9), 5, 5), Arrival::Ahead);
    assert!(receiver.ack(LIFE).nak);
    assert_eq!(receiver.on_frame(later, &LIMITS, Position::start_of(9), 5, 5), Arrival::Ahead);
    assert!(!receiver.is_due());
    let again = later + LIMITS.repair_after;
    assert_eq!(receiver.on_frame(again, &LIMITS, Position::start_of(9), 5, 5), Arrival::Ahead);
    assert!(receiver.ack(LIFE).nak);
}

#[test]
fn a_heartbeat_of_an_earlier_attachment_is_not_answered() {
    let now = MonoTime(1_000_000);
    let sync = |token, base| Sync {
        token,
        base,
        sent: Position::start_of(base),
        fresh: false,
        keeps: false,
        recap: 0,
        past: 0,
    };
    let mut receiver = Receiver::new(now, &sync(8, 7));
    let _ = receiver.ack(LIFE);
    assert!(!receiver.on_sync(now, &sync(5, 9)) && !receiver.is_due());
    assert!(receiver.on_sync(now, &sync(9, 9)));
    assert_eq!((receiver.ack(LIFE).token, receiver.lost()), (9, 2));
    assert!(receiver.on_sync(now, &Sync { fresh: true, ..sync(9, 12) }));
    assert_eq!(receiver.lost(), 0, "what it was no member for is no loss");
}

#[test]
fn who_does_not_listen_any_more_is_out_at_once_and_back_without_losses() {
    let now = MonoTime(1_000_000);
    let mut sender = sender_of_two(now);
    assert!(sender.on_ack(now, PeerIndex(0), &Ack { gone: true, ..acked(Position::start_of(100), 100) }));
    assert!(sender.is_out(PeerIndex(0)) && sender.release() == Some(100) && sender.release() == Some(101));
    assert!(sender.next_sync(now).is_none());
    let later = now + LIMITS.probe_after;
    let (_, sync) = sender.next_sync(later).unwrap();
    assert_eq!((sync.base, sync.fresh), (102, true));
    // Without credit it stays out.
    assert!(sender.on_ack(later, PeerIndex(0), &acked(Position::start_of(102), 102)));
    assert!(sender.is_out(PeerIndex(0)));
    assert!(sender.on_ack(later, PeerIndex(0), &acked(Position::start_of(102), 103)));
    assert!(!sender.is_out(PeerIndex(0)) && sender.is_settled());
    sender.push(later, 10);
    assert_eq!(sender.next_data(PAYLOAD_MAX).unwrap().from, Position::start_of(102));
}
