//! Two runtimes joined by several ways that lose, delay, repeat and cut, in virtual time; and
//! somebody who floods and forges.

use crate::links::{Counters, Event, Limits, Monitor};
use insane_core::{HostId, Incarnation, MonoTime, Nanos, PeerIndex};
use insane_wire::link::{LINK_BYTES, LinkBeat};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

const PEER: PeerIndex = PeerIndex(0);
const MS: Nanos = Nanos::from_millis(1);
/// Clocks of the two are this far apart: a year.
const APART: Nanos = Nanos::from_secs(365 * 24 * 3600);

/// One way, from an end to the other: how long a frame takes, and whether any passes.
#[derive(Clone, Copy)]
struct Path {
    delay: Nanos,
    cut: bool,
    loss_percent: u64,
    twice: bool,
}

struct Pair {
    now: MonoTime,
    ends: [Monitor; 2],
    /// By end that sends, then way.
    paths: [Vec<Path>; 2],
    /// By arrival, then a running number: to which end, by which way.
    wire: BTreeMap<(MonoTime, u64), (usize, usize, [u8; LINK_BYTES])>,
    sent: u64,
    draws: u64,
}

fn life(end: usize) -> (HostId, Incarnation) {
    (HostId(end as u64 + 1), Incarnation(end as u64 + 5))
}

impl Pair {
    fn new(delays_us: &[u64]) -> Self {
        let end = |end| Monitor::new(life(end).0, life(end).1, [delays_us.len()], Limits::default());
        let path = |us: &u64| Path { delay: Nanos::from_micros(*us), cut: false, loss_percent: 0, twice: false };
        let paths: Vec<Path> = delays_us.iter().map(path).collect();
        Pair {
            now: MonoTime(1_000_000_000),
            ends: [end(0), end(1)],
            paths: [paths.clone(), paths],
            wire: BTreeMap::new(),
            sent: 0,
            draws: 7,
        }
    }

    /// What the clock of an end shows.
    fn clock(&self, end: usize) -> MonoTime {
        if end == 0 { self.now } else { self.now + APART }
    }

    fn loses(&mut self, percent: u64) -> bool {
        self.draws = self.draws.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.draws >> 33) % 100 < percent
    }

    fn run(&mut self, span: Nanos) {
        let end = self.now + span;
        while self.now < end {
            self.now += Nanos::from_micros(100);
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (to, way, body) = entry.remove();
                let now = self.clock(to);
                self.ends[to].on_frame(now, PEER, way, Some(life(1 - to)), &body);
            }
            for from in 0..2 {
                self.poll(from);
            }
        }
    }

    fn poll(&mut self, from: usize) {
        let now = self.clock(from);
        if self.ends[from].next_deadline().is_some_and(|due| due > now) {
            return;
        }
        let mut body = [0; LINK_BYTES];
        while let Some((peer, way)) = self.ends[from].poll(now, &mut body) {
            assert_eq!(peer, PEER);
            self.sent += 1;
            let path = self.paths[from][way];
            if path.cut || self.loses(path.loss_percent) {
                continue;
            }
            for copy in 0..=u64::from(path.twice) {
                let number = self.sent * 2 + copy;
                self.wire.insert((self.now + path.delay + Nanos(copy * 3_000_000), number), (1 - from, way, body));
            }
        }
        assert!(self.ends[from].next_deadline().is_none_or(|due| due > now), "something is due and was not done");
    }

    fn up(&self, end: usize) -> Vec<bool> {
        (0..self.paths[0].len()).map(|way| self.ends[end].way(PEER, way).unwrap().up_since.is_some()).collect()
    }

    fn speaks(&self) -> [Option<usize>; 2] {
        [0, 1].map(|end: usize| self.ends[end].speaks_by(PEER))
    }

    fn events(&mut self, end: usize) -> Vec<Event> {
        std::iter::from_fn(|| self.ends[end].next_event()).collect()
    }

    fn cut(&mut self, way: usize, cut: bool) {
        for end in 0..2 {
            self.paths[end][way].cut = cut;
        }
    }
}

#[test]
fn each_way_is_known_by_itself_with_its_round_trip() {
    let mut pair = Pair::new(&[200, 3_000]);
    pair.run(MS);
    assert_eq!(pair.up(0), [true, false], "the quick one first: it is answered at once");
    pair.run(Nanos::from_millis(500));
    for end in 0..2 {
        assert_eq!(pair.up(end), [true, true]);
        for (way, wanted) in [(0, 400_000), (1, 6_000_000)] {
            let rtt = pair.ends[end].way(PEER, way).unwrap().rtt.unwrap();
            // A frame is taken at the next tick of a tenth of a millisecond.
            assert!(rtt.0.abs_diff(wanted) <= 200_000, "way {way}: {rtt}, and clocks are a year apart");
        }
        assert_eq!(pair.ends[end].counters(), Counters::default());
    }
    let up = |way| Event::Up { peer: PEER, way };
    assert_eq!(pair.events(0), [up(0), Event::Speaks { peer: PEER, way: 0 }, up(1)]);
}

#[test]
fn the_overlay_speaks_by_a_way_that_is_up_and_stays_with_it() {
    let mut pair = Pair::new(&[200, 200, 200]);
    pair.run(Nanos::from_millis(300));
    assert_eq!(pair.speaks(), [Some(0), Some(0)]);
    pair.cut(0, true);
    pair.run(Nanos::from_millis(250));
    assert_eq!(pair.speaks(), [Some(1), Some(1)], "sooner than membership gives a peer up");
    pair.cut(0, false);
    pair.run(Nanos::from_millis(300));
    assert_eq!(pair.up(0), [true; 3]);
    assert_eq!(pair.speaks(), [Some(1), Some(1)], "no need to change again");
    pair.cut(1, true);
    pair.run(Nanos::from_millis(250));
    assert_eq!(pair.speaks(), [Some(0), Some(0)]);
    pair.cut(0, true);
    pair.cut(2, true);
    pair.run(Nanos::from_millis(250));
    assert_eq!(pair.speaks(), [None, None]);
    assert_eq!(pair.ends[0].way(PEER, 0).unwrap().downs, 2);
    assert_eq!(pair.ends[0].way(PEER, 0).unwrap().rtt, None, "of a way that is down nothing is known");
}

#[test]
fn a_way_that_is_said_to_be_gone_is_down_at_once_and_up_when_heartbeats_pass_anew() {
    let mut pair = Pair::new(&[100, 100]);
    pair.run(Nanos::from_millis(500));
    assert_eq!((pair.up(0), pair.speaks()), (Vec::from([true, true]), [Some(0), Some(0)]));
    let _ = pair.events(0);
    let now = pair.clock(0);
    pair.ends[0].fail(now, PEER, 0);
    pair.ends[0].fail(now, PEER, 0);
    assert_eq!((pair.up(0), pair.speaks()[0]), (Vec::from([false, true]), Some(1)));
    assert_eq!(pair.events(0), [Event::Down { peer: PEER, way: 0 }, Event::Speaks { peer: PEER, way: 1 }]);
    assert_eq!(pair.ends[0].way(PEER, 0).unwrap().downs, 1, "said twice, it is one failure");
    // Nothing is wrong with it: what is sent from now on comes back.
    pair.run(Nanos::from_millis(200));
    assert_eq!(pair.up(0), [true, true]);
    // An old stamp that comes back says nothing.
    pair.paths[0][0].cut = true;
    let now = pair.clock(0);
    pair.ends[0].fail(now, PEER, 0);
    pair.run(Nanos::from_millis(500));
    assert_eq!(pair.up(0), [false, true]);
    pair.ends[0].fail(now, PEER, 9);
    pair.ends[0].fail(now, PeerIndex(9), 0);
}

#[test]
fn a_way_that_passes_in_one_direction_only_is_down_on_both_sides() {
    let mut pair = Pair::new(&[200, 200]);
    pair.run(Nanos::from_millis(300));
    pair.paths[0][0].cut = true;
    pair.run(Nanos::from_millis(350));
    assert_eq!((pair.up(0), pair.up(1)), (std::vec![false, true], std::vec![false, true]));
    assert_eq!(pair.speaks(), [Some(1), Some(1)]);
    // And from the beginning.
    let mut pair = Pair::new(&[200, 200]);
    pair.paths[1][0].cut = true;
    pair.run(Nanos::from_secs(2));
    assert_eq!((pair.up(0), pair.up(1)), (std::vec![false, true], std::vec![false, true]));
}

#[test]
fn loss_and_repetition_do_not_bring_a_way_down() {
    let mut pair = Pair::new(&[500, 500]);
    for end in 0..2 {
        for path in &mut pair.paths[end] {
            (path.loss_percent, path.twice) = (2, true);
        }
    }
    pair.run(Nanos::from_secs(30));
    for end in 0..2 {
        assert_eq!(pair.up(end), [true, true]);
        let downs: u64 = (0..2).map(|way| pair.ends[end].way(PEER, way).unwrap().downs).sum();
        assert_eq!(downs, 0);
        assert!(pair.ends[end].counters().stale > 500, "copies count for nothing");
    }
    assert!(pair.sent < 2 * 2 * 30 * 21, "{} heartbeats: nothing makes more of them", pair.sent);
}

#[test]
fn the_only_way_to_a_peer_is_asked_rarely() {
    let mut pair = Pair::new(&[200]);
    pair.run(Nanos::from_secs(10));
    assert_eq!(pair.up(0), [true]);
    assert!(pair.sent <= 2 * (20 + 2), "{} heartbeats in ten seconds", pair.sent);
    assert!(pair.ends[0].way(PEER, 0).unwrap().rtt.is_some());
    pair.cut(0, true);
    pair.run(Nanos::from_millis(2_500));
    assert_eq!(pair.up(0), [false]);
}

#[test]
fn a_flood_costs_a_counted_drop_and_forgeries_do_no_lasting_harm() {
    let mut pair = Pair::new(&[200, 200]);
    pair.run(Nanos::from_millis(300));
    let (host, incarnation) = life(1);
    let beat = LinkBeat { host, incarnation, to: life(0).1, stamp: u64::MAX, echo: 0, held: Nanos::ZERO };
    let (now, sent) = (pair.now, pair.sent);
    for _ in 0..10_000 {
        pair.ends[0].on_frame(now, PEER, 0, Some(life(1)), &beat.encode());
    }
    let counters = pair.ends[0].counters();
    assert!(counters.flooded >= 10_000 - 8, "{counters:?}");
    pair.run(Nanos::from_millis(10));
    assert!(pair.sent <= sent + 4, "a flood is not answered");
    // The stamp that was forged is newer than any: true ones count again when it is old.
    pair.run(Nanos::from_secs(1));
    assert_eq!(pair.up(0), [true, true]);

    // Names and lives that membership does not know, one's own name, unknown ways, garbage.
    let before = pair.ends[0].counters();
    let now = pair.clock(0);
    for (host, incarnation) in [(HostId(9), incarnation), (host, Incarnation(99)), life(0)] {
        let forged = LinkBeat { host, incarnation, ..beat };
        pair.ends[0].on_frame(now, PEER, 1, Some(life(1)), &forged.encode());
    }
    pair.ends[0].on_frame(now, PEER, 2, Some(life(1)), &beat.encode());
    pair.ends[0].on_frame(now, PeerIndex(1), 0, None, &beat.encode());
    pair.ends[0].on_frame(now, PEER, 1, Some(life(1)), &[5; 56]);
    let after = pair.ends[0].counters();
    assert_eq!((after.foreign - before.foreign, after.malformed - before.malformed), (3, 3));
    // A life forged before membership knew any gives way to the true one.
    let mut fresh = Monitor::new(life(0).0, life(0).1, [2], Limits::default());
    let forged = LinkBeat { incarnation: Incarnation(1 << 60), stamp: 1, ..beat };
    fresh.on_frame(now, PEER, 0, None, &forged.encode());
    fresh.on_frame(now, PEER, 0, Some(life(1)), &LinkBeat { stamp: 1, ..beat }.encode());
    assert_eq!(fresh.counters(), Counters::default());
}

#[test]
fn a_peer_that_comes_back_is_known_by_nothing_of_before() {
    let mut pair = Pair::new(&[100, 100]);
    pair.run(Nanos::from_secs(1));
    assert_eq!(pair.ends[0].speaks_by(PEER), Some(0));
    pair.ends[0].set_ways(PEER, 0);
    pair.run(Nanos::from_secs(1));
    let none = &pair.ends[0];
    assert!(none.way(PEER, 0).is_none() && none.speaks_by(PEER).is_none() && none.next_deadline().is_none());
    assert!(none.counters().malformed > 0, "heartbeats of one that is no peer are counted");
    pair.ends[0].set_ways(PEER, 2);
    assert!(pair.ends[0].way(PEER, 1).is_some_and(|way| way.up_since.is_none() && way.downs == 0));
    pair.run(Nanos::from_secs(1));
    assert_eq!(pair.ends[0].speaks_by(PEER), Some(0));
    // Numbers need not be given out in order.
    pair.ends[0].set_ways(PeerIndex(5), 1);
    assert!(pair.ends[0].way(PeerIndex(5), 0).is_some() && pair.ends[0].way(PeerIndex(4), 0).is_none());
}

#[test]
fn a_new_life_is_known_anew() {
    let mut pair = Pair::new(&[200, 200]);
    pair.run(Nanos::from_millis(300));
    pair.events(0);
    let (host, _) = life(1);
    let reborn = Incarnation(77);
    // Its clock begins anew, too.
    let mut other = Monitor::new(host, reborn, [2], Limits::default());
    let mut body = [0; LINK_BYTES];
    let (_, way) = other.poll(MonoTime(5), &mut body).unwrap();
    let now = pair.clock(0);
    pair.ends[0].on_frame(now, PEER, way, Some((host, reborn)), &body);
    let status = pair.ends[0].way(PEER, way).unwrap();
    assert_eq!((status.up_since, status.rtt), (None, None), "nothing came back from this life yet");
    assert_eq!(pair.speaks()[0], Some(1));
    let mut answered = false;
    while let Some((_, by)) = pair.ends[0].poll(now, &mut body) {
        answered |= by == way;
        other.on_frame(MonoTime(400_000), PEER, by, Some(life(0)), &body);
    }
    assert!(answered, "at once");
    assert!(other.way(PEER, way).unwrap().up_since.is_some());
}

proptest! {
    /// Whatever comes in, at whatever time, nothing breaks, and no frame leaves too often.
    #[test]
    fn anything_may_come(
        frames in prop::collection::vec((any::<u64>(), 0..3_usize, any::<[u64; 3]>(), any::<bool>(), 0..100_000_000_u64), 0..200),
    ) {
        let mut monitor = Monitor::new(life(0).0, life(0).1, [2], Limits::default());
        let mut now = MonoTime(1);
        let mut body = [0; LINK_BYTES];
        let (mut sent, mut lives) = (0_u64, 0_u64);
        for (incarnation, way, [stamp, echo, held], known, step) in frames {
            now += Nanos(step);
            let incarnation = Incarnation(incarnation.max(1));
            lives += 1;
            let beat = LinkBeat {
                host: HostId(2),
                incarnation,
                to: life(0).1,
                stamp: stamp.max(1),
                echo: echo.max(1),
                held: Nanos(held),
            };
            monitor.on_frame(now, PEER, way, known.then_some((HostId(2), incarnation)), &beat.encode());
            while monitor.poll(now, &mut body).is_some() {
                sent += 1;
            }
            prop_assert!(monitor.next_deadline() > Some(now));
            while monitor.next_event().is_some() {}
            prop_assert_eq!(monitor.speaks_by(PEER), (0..2).find(|way| monitor.way(PEER, *way).unwrap().speaks));
        }
        prop_assert!(sent <= 2 * (1 + now.0 / 50_000_000) + lives);
    }
}

/// One end is not run for a while; what came meanwhile is read after it has looked at the time.
#[test]
fn for_a_pause_of_its_own_a_runtime_leaves_no_way_and_notices_a_dead_one_as_soon_as_ever() {
    for is_dead in [false, true] {
        let mut pair = Pair::new(&[100, 200]);
        pair.run(Nanos::from_secs(1));
        assert_eq!(pair.up(0), [true, true]);
        let _ = pair.events(0);
        if is_dead {
            pair.paths[1][0].cut = true;
        }
        pair.now += Nanos::from_secs(30);
        pair.poll(0);
        assert_eq!(pair.up(0), [true, true], "it has not seen anything yet");
        assert_eq!(pair.events(0), []);
        pair.run(Nanos::from_millis(350));
        assert_eq!(pair.up(0), [!is_dead, true]);
        assert_eq!(pair.events(0).len(), usize::from(is_dead) * 2, "down, and spoken by the other");
    }
}
