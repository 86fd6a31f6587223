//! Flows against an oracle that remembers everything.

use crate::flow::*;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, SourceId, StreamKey};
use insane_wire::data::Leg;
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;

fn key(n: u64) -> FlowKey {
    FlowKey {
        host: HostId(n % 3),
        incarnation: Incarnation(n / 3 % 2),
        source: SourceId((n / 6) as u32),
        stream: StreamKey(7),
    }
}

fn at_ms(ms: u64) -> MonoTime {
    MonoTime(0) + Nanos::from_millis(ms)
}

fn new(lost: u64) -> Verdict {
    Verdict::New { lost }
}

/// What the contract says, with unlimited memory.
#[derive(Default)]
struct Oracle {
    newest: HashMap<FlowKey, u64>,
    seen: HashSet<(FlowKey, u64)>,
}

impl Oracle {
    fn classify(&mut self, key: FlowKey, sequence: u64) -> Verdict {
        let first_time = self.seen.insert((key, sequence));
        match self.newest.get(&key) {
            Some(newest) if sequence <= *newest => {
                let remembered = newest - sequence < WINDOW;
                if !first_time && remembered { Verdict::Duplicate } else { Verdict::Late }
            }
            newest => {
                let lost = newest.map_or(0, |newest| sequence - newest - 1);
                self.newest.insert(key, sequence);
                new(lost)
            }
        }
    }
}

/// What a sender does, and what becomes of it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Emit {
        arrives: bool,
    },
    /// A sink joins, and nobody is told.
    Join,
    /// The last values are sent again: to whoever joined. Bit `i`: the `i`th is lost.
    Replay {
        lost: u8,
    },
    /// The last value of the past comes once more, delayed or duplicated.
    Echo,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        any::<bool>().prop_map(|arrives| Step::Emit { arrives }),
        Just(Step::Join),
        prop_oneof![Just(0), any::<u8>()].prop_map(|lost| Step::Replay { lost }),
        Just(Step::Echo),
    ]
}

/// The sinks of a host that receives one flow.
struct Sinks {
    table: FlowTable,
    got: Vec<Vec<u64>>,
}

impl Sinks {
    fn join(&mut self) {
        assert_eq!(self.table.sink_joined(), self.got.len() as u64 + 1);
        self.got.push(Vec::new());
    }

    fn take(&mut self, sequence: u64, is_past: bool) {
        let worth_collecting = self.table.expects(at_ms(0), &key(0), sequence, || is_past);
        let after = match self.table.classify(at_ms(0), &key(0), sequence, || is_past) {
            Verdict::New { .. } => 0,
            Verdict::Past { after } => after as usize,
            _ => return,
        };
        assert!(worth_collecting);
        self.got[after..].iter_mut().for_each(|sink| sink.push(sequence));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whoever joins whenever, whatever is lost: no sink gets a message twice or behind a
    /// newer one; and if none of the past was lost, each has the newest afterwards, and who
    /// had nothing before has all that was kept.
    #[test]
    fn the_past_reaches_those_who_lack_it_once_and_in_order(steps in prop::collection::vec(step(), 1..80)) {
        const KEPT: u64 = 3;
        let mut sinks = Sinks { table: FlowTable::new(1, 0), got: Vec::new() };
        sinks.join();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Emit { arrives } => {
                    next += 1;
                    if arrives {
                        sinks.take(next - 1, false);
                    }
                }
                Step::Join => sinks.join(),
                Step::Replay { lost } => {
                    let kept = next.saturating_sub(KEPT)..next;
                    let is_clean = sinks.got.iter().all(|got| got.is_empty() || got.last() == Some(&(next - 1)));
                    let empty: Vec<bool> = sinks.got.iter().map(Vec::is_empty).collect();
                    for (place, sequence) in kept.clone().enumerate() {
                        if lost & 1 << place == 0 {
                            sinks.take(sequence, true);
                        }
                    }
                    for (got, was_empty) in sinks.got.iter().zip(empty) {
                        if lost == 0 && next > 0 {
                            prop_assert_eq!(got.last(), Some(&(next - 1)), "the last value");
                            if was_empty && is_clean {
                                prop_assert!(got.iter().copied().eq(kept.clone()), "{:?}", got);
                            }
                        }
                    }
                }
                Step::Echo if next > 0 => sinks.take(next - 1, true),
                Step::Echo => {}
            }
            for got in &sinks.got {
                prop_assert!(got.is_sorted_by(|a, b| a < b), "{:?}", got);
            }
        }
    }
}

#[test]
fn the_past_neither_restarts_a_flow_nor_counts_as_lost() {
    let mut table = FlowTable::new(1, 0);
    table.sink_joined();
    assert_eq!(table.classify(at_ms(0), &key(0), 50, || true), new(0), "the first that is heard of it");
    assert_eq!(table.classify(at_ms(0), &key(0), 51, || true), new(0));
    assert_eq!(table.classify(at_ms(0), &key(0), 52, || false), new(0));
    // Long afterwards: messages of now would restart the flow at their number.
    for _ in 0..CONSISTENT_MIN {
        for sequence in 50..53 {
            assert_eq!(table.classify(at_ms(5_000), &key(0), sequence, || true), Verdict::Duplicate);
            assert!(!table.expects(at_ms(5_000), &key(0), sequence, || true));
        }
    }
    assert_eq!(table.classify(at_ms(5_000), &key(0), 53, || false), new(0));
    assert_eq!(table.counters().restarts, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn verdicts_are_those_of_the_oracle(
        seed: u64,
        steps in prop::collection::vec((0..40_u64, 0..400_u64, 0..20_u64), 1..400),
    ) {
        let mut table = FlowTable::new(40, seed);
        let mut oracle = Oracle::default();
        let mut base: HashMap<u64, u64> = HashMap::new();
        for (flow, jitter, step) in steps {
            let base = base.entry(flow).or_insert(500);
            *base += step;
            let sequence = *base - jitter;
            prop_assert_eq!(table.classify(at_ms(0), &key(flow), sequence, || false), oracle.classify(key(flow), sequence));
            for sequence in sequence - 3..sequence + 3 {
                let expected = sequence > oracle.newest[&key(flow)];
                prop_assert_eq!(table.expects(at_ms(0), &key(flow), sequence, || false), expected);
            }
        }
        prop_assert_eq!(table.len(), base.len());
    }

    /// Whatever comes, in whatever order and at whatever time: unless the flow restarted
    /// or was forgotten, what is released rises.
    #[test]
    fn released_sequences_rise(steps in prop::collection::vec((any::<bool>(), any::<u64>(), 0..300_u64), 1..300)) {
        let mut table = FlowTable::new(4, 1);
        let (mut now, mut newest, mut restarts) = (0, None, 0);
        for (wild, sequence, delay) in steps {
            now += delay;
            let sequence = if wild { sequence } else { sequence % 1000 };
            let verdict = table.classify(at_ms(now), &key(0), sequence, || false);
            let restarted = table.counters().restarts > restarts;
            restarts = table.counters().restarts;
            if let Verdict::New { lost } = verdict {
                let rises = newest.is_none_or(|newest| sequence > newest && lost == sequence - newest - 1);
                prop_assert!(rises || restarted && lost == 0);
                newest = Some(sequence);
            }
        }
    }

    /// The index and the order of idleness against a map, under churn.
    #[test]
    fn flows_come_and_go(seed: u64, steps in prop::collection::vec((0..60_u64, 0..4_u8, 0..700_u64), 1..500)) {
        let mut table = FlowTable::new(16, seed);
        let mut oracle: HashMap<FlowKey, (u64, u64)> = HashMap::new();
        let mut now = 0;
        for (n, action, delay) in steps {
            match action {
                0 => {
                    let expired = table.expire(at_ms(now), Nanos::from_secs(2), 100) as usize;
                    let before = oracle.len();
                    oracle.retain(|_, (_, released)| now - *released < 2000);
                    prop_assert!(oracle.len() + expired <= before, "forgot a flow that was not idle");
                    // A flow may be kept a little longer than asked.
                    let table_keys: HashSet<FlowKey> = table.iter().map(|flow| flow.key).collect();
                    prop_assert!(oracle.keys().all(|key| table_keys.contains(key)));
                    for flow in table.iter().filter(|flow| !oracle.contains_key(&flow.key)) {
                        prop_assert!(now - flow.released_at.0 / 1_000_000 < 2100);
                    }
                    for flow in table.iter() {
                        oracle.entry(flow.key).or_insert((flow.newest, flow.released_at.0 / 1_000_000));
                    }
                }
                1 => {
                    table.retire_host(key(n).host, |life| life == key(n).incarnation);
                    oracle.retain(|k, _| k.host != key(n).host || k.incarnation == key(n).incarnation);
                }
                _ => {
                    now += delay;
                    let sequence = oracle.get(&key(n)).map_or(10, |(newest, _)| newest + 2);
                    let verdict = table.classify(at_ms(now), &key(n), sequence, || false);
                    if oracle.contains_key(&key(n)) {
                        prop_assert_eq!(verdict, new(1));
                    } else if oracle.len() < 16 {
                        prop_assert_eq!(verdict, new(0));
                    } else if verdict == new(0) {
                        let present: HashSet<FlowKey> = table.iter().map(|flow| flow.key).collect();
                        let gone: Vec<_> = oracle.iter().filter(|(k, _)| !present.contains(k)).collect();
                        prop_assert_eq!(gone.len(), 1);
                        let idle = now - gone[0].1.1;
                        let idle_max = oracle.values().map(|(_, released)| now - released).max().unwrap();
                        prop_assert!(idle >= 1000 && idle + 100 >= idle_max, "idle {} of {}", idle, idle_max);
                        oracle.retain(|k, _| present.contains(k));
                    } else {
                        prop_assert_eq!(verdict, Verdict::NoRoom);
                        // The flow in front of the order may hide one that was idle a little longer.
                        prop_assert!(oracle.values().filter(|(_, released)| now - released >= 1100).count() == 0);
                    }
                    if verdict != Verdict::NoRoom {
                        oracle.insert(key(n), (sequence, now));
                    }
                }
            }
            let flows: HashMap<FlowKey, (u64, u64)> =
                table.iter().map(|flow| (flow.key, (flow.newest, flow.released_at.0 / 1_000_000))).collect();
            prop_assert_eq!(&flows, &oracle);
            prop_assert_eq!(table.len(), oracle.len());
            for n in 0..60 {
                prop_assert_eq!(table.expects(at_ms(now), &key(n), 0, || false), !oracle.contains_key(&key(n))
                    || now - oracle[&key(n)].1 >= 250);
            }
        }
    }
}

#[test]
fn a_late_message_is_dropped_and_then_known() {
    let mut table = FlowTable::new(1, 0);
    let mut classify = |sequence| table.classify(at_ms(0), &key(0), sequence, || false);
    assert_eq!(classify(5), new(0));
    assert_eq!(classify(8), new(2));
    assert_eq!(classify(8), Verdict::Duplicate);
    assert_eq!(classify(7), Verdict::Late);
    assert_eq!(classify(7), Verdict::Duplicate);
    assert_eq!(classify(8 + WINDOW), new(WINDOW - 1));
    assert_eq!(classify(8), Verdict::Late, "beyond the window nobody knows");
    assert_eq!(table.iter().next().unwrap().lost, 2 + WINDOW - 1);
}

#[test]
fn one_forged_far_sequence_changes_nothing() {
    let mut table = FlowTable::new(1, 0);
    assert_eq!(table.classify(at_ms(0), &key(0), 100, || false), new(0));
    for forged in [u64::MAX, 100 + JUMP_MAX + 1, 1 << 40] {
        assert_eq!(table.classify(at_ms(0), &key(0), forged, || false), Verdict::Suspect);
    }
    assert_eq!(table.classify(at_ms(1), &key(0), 101, || false), new(0));
    assert_eq!(table.counters().suspects, 3);
}

#[test]
fn a_believed_forgery_wedges_a_flow_for_a_second_and_no_longer() {
    let mut table = FlowTable::new(1, 0);
    assert_eq!(table.classify(at_ms(0), &key(0), 100, || false), new(0));
    assert_eq!(table.classify(at_ms(0), &key(0), 100 + JUMP_MAX, || false), new(JUMP_MAX - 1));
    let first_new = (1..2000).find(|ms| table.classify(at_ms(*ms), &key(0), 100 + ms, || false) == new(0)).unwrap();
    assert!((1000..1010).contains(&first_new), "{first_new}");
    assert_eq!(table.classify(at_ms(2000), &key(0), 101 + first_new, || false), new(0));
    assert_eq!(table.counters().restarts, 1);
}

/// Whatever leg the forger names, and however slowly the source goes on.
#[test]
fn a_forged_leg_wedges_a_flow_for_no_longer() {
    for forged in legs() {
        for period in [1, 100, 400, 3_000] {
            let mut table = FlowTable::new(1, 0);
            let mut on = |ms, sequence, leg| {
                let mut verdict = table.classify_on(at_ms(ms), &key(0), (sequence, leg), || false);
                if verdict == Verdict::Ahead {
                    table.go_on_to(&key(0), leg);
                    verdict = table.classify_on(at_ms(ms), &key(0), (sequence, leg), || false);
                }
                verdict
            };
            assert!((1..=100).all(|sequence| on(0, sequence, Leg::FIRST) == new(0)));
            assert_eq!(on(0, 1 << 20, forged), new((1 << 20) - 101));
            let heard = (1..2000).find(|n| on(n * period, 100 + n, Leg::FIRST) == new(0)).unwrap();
            let most = (1010 / period + 1).max(4 * 250_u64.div_ceil(period)).max(4);
            assert!(heard <= most, "{forged:?} {period}: {heard}");
            assert!((1..9).all(|n| on((heard + n) * period, 100 + heard + n, Leg::FIRST) == new(0)), "it goes on");
        }
    }
}

/// A link gives out at once, or nearly, what it held back, however long the other one had nothing.
#[test]
fn what_a_link_held_back_is_never_released_behind_newer_messages() {
    let [first, second, ..] = legs();
    // Messages by the new link, its silence behind them, and the time from one message that was
    // held back to the next, in ms.
    for (moved, rest, apart) in [(1, 1_000, 0), (1, 86_000_000, 3), (3, 1_500, 5), (50, 5_000, 30), (50, 1_000, 0)] {
        let mut table = FlowTable::new(1, 0);
        let mut on = |ms, sequence, leg| table.classify_on(at_ms(ms), &key(0), (sequence, leg), || false);
        assert!((0..=100).all(|sequence| on(0, sequence, first) == new(0)));
        assert_eq!(on(0, 301, second), Verdict::Ahead);
        table.go_on_to(&key(0), second);
        let mut on = |ms, sequence, leg| table.classify_on(at_ms(ms), &key(0), (sequence, leg), || false);
        assert!((301..301 + moved).all(|sequence| matches!(on(20, sequence, second), Verdict::New { .. })));
        assert_eq!(on(600, 101, first), Verdict::Late, "a straggler");
        for held in 102..200 {
            let verdict = on(20 + rest + apart * (held - 102), held, first);
            assert!(
                matches!(verdict, Verdict::Late | Verdict::Duplicate),
                "{held} {moved} {rest} {apart}: {verdict:?}"
            );
        }
        assert_eq!(on(20 + rest + 4_000, 301 + moved, second), new(0));
        assert_eq!(table.counters().restarts, 0);
    }
}

/// Behind a leg that is vouched for, others take four seconds: and no more.
#[test]
fn a_source_that_begins_anew_on_another_leg_is_heard_in_bounded_time() {
    for (leg, bound_ms) in [(legs()[2], 1_010), (Leg::FIRST, 4_010), (legs()[5], 4_010)] {
        let mut table = FlowTable::new(1, 0);
        let mut on = |ms, sequence, leg| table.classify_on(at_ms(ms), &key(0), (sequence, leg), || false);
        assert!((5_000..5_004).all(|sequence| on(0, sequence, legs()[2]) == new(0)));
        let heard = (1..5_000).find(|ms| on(*ms, *ms / 2, leg) == new(0)).unwrap();
        assert!((bound_ms - 10..bound_ms).contains(&heard), "{leg:?}: {heard}");
        assert!((1..9).all(|n| on(heard, heard / 2 + n, leg) == new(0)), "it goes on");
        // Nobody waits for what came before: the flow is on its leg.
        assert_eq!(on(heard, heard / 2 + 20, leg), new(11));
    }
}

#[test]
fn a_source_that_counts_anew_is_believed_after_four_messages() {
    let mut table = FlowTable::new(1, 0);
    assert_eq!(table.classify(at_ms(0), &key(0), 3, || false), new(0));
    let far = 1 << 50;
    for scattered in [far - 9, far - 8, far - 7, far + 100, far - 90, far - 10_000, far - 1000] {
        assert_eq!(table.classify(at_ms(0), &key(0), scattered, || false), Verdict::Suspect);
    }
    let verdicts: Vec<_> = (0..6).map(|n| table.classify(at_ms(n), &key(0), far + 2 * n, || false)).collect();
    assert_eq!(verdicts[..3], [Verdict::Suspect; 3]);
    assert_eq!(verdicts[3..], [new(0), new(1), new(1)]);
    assert_eq!(table.counters().suspects, 7 + 4);
}

#[test]
fn the_ends_of_the_number_range_are_ordinary() {
    let mut table = FlowTable::new(2, 0);
    assert_eq!(table.classify(at_ms(0), &key(0), u64::MAX - 1, || false), new(0));
    assert_eq!(table.classify(at_ms(0), &key(0), u64::MAX, || false), new(0));
    assert_eq!(table.classify(at_ms(0), &key(0), u64::MAX, || false), Verdict::Duplicate);
    assert_eq!(table.classify(at_ms(0), &key(0), 0, || false), Verdict::Late);
    assert_eq!(table.classify(at_ms(0), &key(1), 0, || false), new(0));
    assert_eq!(table.classify(at_ms(0), &key(1), 0, || false), Verdict::Duplicate);
}

#[test]
fn a_full_table_refuses_until_one_is_idle() {
    let mut table = FlowTable::new(2, 0);
    assert_eq!(table.classify(at_ms(0), &key(0), 0, || false), new(0));
    assert_eq!(table.classify(at_ms(10), &key(1), 0, || false), new(0));
    assert_eq!(table.classify(at_ms(999), &key(2), 0, || false), Verdict::NoRoom);
    assert_eq!(table.classify(at_ms(1000), &key(2), 0, || false), new(0));
    assert!(table.iter().all(|flow| flow.key != key(0)), "the one idle longest made room");
    let counters = table.counters();
    assert_eq!((counters.refused, counters.evicted), (1, 1));
}

#[test]
fn a_new_life_is_another_flow_and_the_old_one_can_be_retired() {
    let mut table = FlowTable::new(4, 0);
    let old = FlowKey { incarnation: Incarnation(1), ..key(0) };
    let young = FlowKey { incarnation: Incarnation(2), ..key(0) };
    assert_eq!(table.classify(at_ms(0), &old, 900, || false), new(0));
    assert_eq!(table.classify(at_ms(0), &young, 0, || false), new(0));
    table.retire_host(old.host, |life| life == young.incarnation);
    assert_eq!(table.iter().map(|flow| flow.key).collect::<Vec<_>>(), [young]);
    table.retire_host(old.host, |_| false);
    assert!(table.is_empty());
}

fn legs() -> [Leg; 8] {
    std::array::from_fn(|number| (0..number).fold(Leg::FIRST, |leg, _| leg.next()))
}

#[test]
fn what_overtook_others_on_a_later_leg_waits_until_nothing_is_missing_before_it() {
    let [first, second, third, ..] = legs();
    let mut table = FlowTable::new(1, 0);
    let mut on = |sequence, leg| table.classify_on(at_ms(0), &key(0), (sequence, leg), || false);
    assert_eq!(on(10, first), new(0));
    assert_eq!(on(13, second), Verdict::Ahead);
    assert_eq!(on(15, third), Verdict::Ahead, "two moves soon after each other");
    assert_eq!(on(11, first), new(0));
    assert_eq!(on(13, second), Verdict::Ahead);
    assert_eq!(on(12, first), new(0));
    assert_eq!(on(13, second), new(0));
    assert_eq!(on(15, third), Verdict::Ahead);
    assert_eq!(on(13, first), Verdict::Duplicate, "by the other link");
    assert_eq!(on(14, second), new(0));
    assert_eq!(on(15, third), new(0));
    assert_eq!(on(17, third), new(1), "on its own leg a gap is a loss at once");
    assert_eq!(on(16, second), Verdict::Late);
}

#[test]
fn a_fence_ends_a_leg_that_is_in_order_or_complete() {
    let [first, second, third, ..] = legs();
    let mut table = FlowTable::new(1, 0);
    assert!(!table.end_leg(&key(0), first, 10, true), "nobody knows the flow");
    assert_eq!(table.classify_on(at_ms(0), &key(0), (10, first), || false), new(0));
    assert_eq!(table.classify_on(at_ms(0), &key(0), (13, second), || false), Verdict::Ahead);
    assert!(!table.end_leg(&key(0), first, 12, false), "messages of the leg may still come");
    assert!(!table.end_leg(&key(0), second, 14, true), "another leg is before it");
    assert_eq!(table.classify_on(at_ms(0), &key(0), (13, second), || false), Verdict::Ahead);
    assert!(table.end_leg(&key(0), first, 12, true));
    assert!(!table.end_leg(&key(0), first, 12, true), "it was ended before");
    assert_eq!(table.classify_on(at_ms(0), &key(0), (13, second), || false), new(2));
    // All of the leg is here: no order is needed.
    assert!(table.end_leg(&key(0), second, 13, false));
    assert_eq!(table.classify_on(at_ms(0), &key(0), (15, third), || false), new(1));
    // Nothing to wait for, after moves that nobody told.
    assert!(table.end_leg(&key(0), legs()[5], 0, false));
    assert_eq!(table.classify_on(at_ms(0), &key(0), (20, legs()[6]), || false), new(4));
}

#[test]
fn when_time_is_up_a_flow_goes_on_and_what_is_missing_is_lost() {
    let [first, second, ..] = legs();
    let mut table = FlowTable::new(1, 0);
    assert_eq!(table.classify_on(at_ms(0), &key(0), (10, first), || false), new(0));
    assert_eq!(table.classify_on(at_ms(0), &key(0), (13, second), || false), Verdict::Ahead);
    table.go_on_to(&key(0), second);
    assert_eq!(table.classify_on(at_ms(0), &key(0), (13, second), || false), new(2));
    assert_eq!(table.classify_on(at_ms(0), &key(0), (12, first), || false), Verdict::Late);
    assert_eq!(table.classify_on(at_ms(0), &key(0), (14, first), || false), new(0), "one of before that is still new");
}

/// A source whose connection was made anew begins with the first leg, and one that a peer did
/// not hear for a while may have moved any number of times. The next move is waited for again.
#[test]
fn a_flow_goes_on_from_whatever_leg_its_source_is_on() {
    for known in 0..8 {
        for now in 0..8 {
            let mut table = FlowTable::new(1, 0);
            let mut on =
                |sequence, leg: usize| table.classify_on(at_ms(0), &key(0), (sequence, legs()[leg % 8]), || false);
            assert_eq!(on(10, known), new(0));
            assert_eq!(on(11, now), new(0));
            assert_eq!(on(13, now + 1), Verdict::Ahead, "{known} {now}");
            assert_eq!(on(12, now), new(0));
            assert_eq!(on(13, now + 1), new(0));
        }
    }
    // With a gap before it: what may have overtaken is kept, and nothing else.
    for behind in 5..8 {
        let mut table = FlowTable::new(1, 0);
        assert_eq!(table.classify_on(at_ms(0), &key(0), (10, Leg::FIRST), || false), new(0));
        assert_eq!(table.classify_on(at_ms(0), &key(0), (20, legs()[behind]), || false), new(9));
        assert_eq!(table.classify_on(at_ms(0), &key(0), (22, legs()[behind].next()), || false), Verdict::Ahead);
    }
}

proptest! {
    /// By whatever two links the messages of two legs come, in order on each: kept as they
    /// are asked to be, all are released, once and in order.
    #[test]
    fn two_legs_in_any_order_are_released_as_one(split in 1..40_u64, rest in 1..40_u64, picks: Vec<bool>) {
        let [first, second, ..] = legs();
        let mut table = FlowTable::new(1, 0);
        let (mut old, mut moved) = ((1..split).peekable(), (split..split + rest).peekable());
        let (mut kept, mut released) = (std::collections::VecDeque::new(), Vec::from([0]));
        prop_assert_eq!(table.classify_on(at_ms(0), &key(0), (0, first), || false), new(0));
        let mut picks = picks.into_iter();
        while old.peek().is_some() || moved.peek().is_some() {
            let by_new = picks.next().unwrap_or(true);
            let (sequence, leg) = match (if by_new { moved.next() } else { None }, old.peek()) {
                (Some(sequence), _) => (sequence, second),
                (None, Some(_)) => (old.next().unwrap(), first),
                (None, None) => (moved.next().unwrap(), second),
            };
            match table.classify_on(at_ms(0), &key(0), (sequence, leg), || false) {
                Verdict::Ahead => kept.push_back(sequence),
                verdict => {
                    prop_assert_eq!(verdict, new(0));
                    released.push(sequence);
                }
            }
            while let Some(next) = kept.front()
                && table.classify_on(at_ms(0), &key(0), (*next, second), || false) == new(0)
            {
                released.extend(kept.pop_front());
            }
        }
        prop_assert_eq!(released, (0..split + rest).collect::<Vec<_>>());
    }
}

proptest! {
    /// Whatever is said of a flow's end, true or not, once or again, early or late: it is judged as
    /// if nothing had been said.
    #[test]
    fn what_is_said_of_its_end_changes_no_verdict(
        steps in prop::collection::vec((0..4_u64, 0..200_u64, 0..130_u64, any::<bool>()), 1..200),
    ) {
        let (mut table, mut plain) = (FlowTable::new(8, 0), FlowTable::new(8, 0));
        let mut now = 0;
        for (flow, sequence, delay, is_end) in steps {
            // Less than the time after which flows that have closed are forgotten.
            now = (now + delay).min(9_000);
            if is_end {
                table.close(at_ms(now), &key(flow), if sequence == 199 { u64::MAX } else { sequence });
                table.expire(at_ms(now), Nanos::from_secs(60), 8);
            } else {
                let verdicts =
                    [&mut table, &mut plain].map(|table| table.classify(at_ms(now), &key(flow), sequence, || false));
                prop_assert_eq!(verdicts[0], verdicts[1], "flow {} message {} at {}", flow, sequence, now);
            }
            prop_assert_eq!(table.len(), plain.len());
        }
    }

    /// Who gives way to a newcomer, against a map: one that has closed, if any may go, and else
    /// the one that was idle for longest.
    #[test]
    fn flows_that_have_closed_give_way_first(
        steps in prop::collection::vec((0..40_u64, 0..5_u8, 0..400_u64), 1..500),
    ) {
        let mut table = FlowTable::new(16, 0);
        let mut oracle: HashMap<FlowKey, Known> = HashMap::new();
        // Those that closed, in that order.
        let mut order: Vec<FlowKey> = Vec::new();
        let mut now = 0;
        for (n, action, delay) in steps {
            now += delay;
            match action {
                // Complete, with more to come, or false.
                0 | 1 => {
                    let Some(known) = oracle.get_mut(&key(n)) else { continue };
                    let next = known.newest + [1, 2, 0, 4][n as usize % 4];
                    let is_possible = next > known.newest;
                    prop_assert_eq!(table.close(at_ms(now), &key(n), next), is_possible);
                    if is_possible && known.closed.is_none_or(|(_, said)| said != next) {
                        known.closed = Some((now, next));
                        order.retain(|other| *other != key(n));
                        order.push(key(n));
                    }
                }
                _ => {
                    let sequence = oracle.get(&key(n)).map_or(10, |known| known.newest + 1);
                    if oracle.len() == 16 && !oracle.contains_key(&key(n)) {
                        look_for_room(&mut oracle, &order, now);
                    }
                    let verdict = table.classify(at_ms(now), &key(n), sequence, || false);
                    if verdict == Verdict::NoRoom {
                        prop_assert_eq!(oracle.len(), 16);
                        continue;
                    }
                    prop_assert_eq!(verdict, new(0));
                    let present: HashSet<FlowKey> = table.iter().map(|flow| flow.key).collect();
                    let may_go = |known: &Known| known.may_go(now);
                    let gone: Vec<_> = oracle.iter().filter(|(key, _)| !present.contains(key)).collect();
                    prop_assert!(gone.len() <= usize::from(oracle.len() == 16), "without need");
                    if let Some((_, gone)) = gone.first() {
                        prop_assert!(may_go(gone) || now - gone.released >= 1000);
                        prop_assert!(may_go(gone) || !oracle.values().any(may_go), "another had closed");
                    }
                    oracle.retain(|key, _| present.contains(key));
                    let known = oracle.entry(key(n)).or_insert(Known { newest: 0, released: 0, closed: None });
                    (known.newest, known.released) = (sequence, now);
                    // One that goes on has not closed, unless that was all that was missing.
                    known.closed = known.closed.filter(|(at, next)| {
                        sequence + 1 == *next || sequence < *next && now - at < 100
                    });
                }
            }
            let flows: HashMap<FlowKey, u64> = table.iter().map(|flow| (flow.key, flow.newest)).collect();
            prop_assert_eq!(flows.len(), table.len());
            prop_assert_eq!(flows, oracle.iter().map(|(key, known)| (*key, known.newest)).collect());
        }
    }
}

/// What an oracle knows of a flow, in milliseconds: when its source closed and what it said was
/// the next number.
struct Known {
    newest: u64,
    released: u64,
    closed: Option<(u64, u64)>,
}

impl Known {
    fn may_go(&self, now: u64) -> bool {
        self.closed.is_some_and(|(at, next)| {
            let is_complete = self.newest + 1 == next;
            is_complete && now - at >= 100 || self.newest < next && (now - at).min(now - self.released) >= 1000
        })
    }
}

/// Flows that went on are found not to have closed, up to one that may go or closed just now.
fn look_for_room(oracle: &mut HashMap<FlowKey, Known>, order: &[FlowKey], now: u64) {
    for key in order {
        let Some(known) = oracle.get_mut(key) else { continue };
        let Some((at, _)) = known.closed else { continue };
        if now - at < 100 || known.may_go(now) {
            return;
        }
        known.closed = known.closed.filter(|_| known.released <= at);
    }
}

#[test]
fn sources_that_come_and_go_leave_a_quiet_flow_alone() {
    let mut table = FlowTable::new(4, 0);
    assert_eq!(table.classify(at_ms(0), &key(0), 0, || false), new(0));
    for number in 1..200 {
        let now = at_ms(40 * number);
        assert_eq!(table.classify(now, &key(number), 0, || false), new(0));
        assert!(table.close(now, &key(number), 1));
    }
    assert!(table.iter().any(|flow| flow.key == key(0)));
    let counters = table.counters();
    assert_eq!((counters.evicted, counters.refused, counters.closed), (0, 0, 196));
}

#[test]
fn flows_that_said_falsely_that_they_closed_stand_in_the_way_of_none_that_did() {
    let liars = CLOSED_LOOKS as u64;
    let mut table = FlowTable::new(CLOSED_LOOKS as usize + 2, 0);
    // A quiet one, and then an honest one, which closes behind all the others.
    assert_eq!(table.classify(at_ms(0), &key(0), 0, || false), new(0));
    for n in 1..=liars {
        assert_eq!(table.classify(at_ms(0), &key(n), 0, || false), new(0));
        assert!(table.close(at_ms(0), &key(n), 1_000_000));
    }
    assert_eq!(table.classify(at_ms(10), &key(100), 0, || false), new(0));
    for round in 0..20 {
        let now = 500 * (round + 1);
        for n in 1..=liars {
            assert_eq!(table.classify(at_ms(now), &key(n), round + 1, || false), new(0));
        }
        assert!(table.close(at_ms(now), &key(100 + round), 1));
        assert_eq!(table.classify(at_ms(now + 200), &key(101 + round), 0, || false), new(0));
    }
    assert!(table.iter().any(|flow| flow.key == key(0)));
    let counters = table.counters();
    assert_eq!((counters.evicted, counters.refused, counters.closed), (0, 0, 20));
}

#[test]
fn flows_that_close_anew_and_go_on_at_once_stand_in_the_way_once() {
    let liars = CLOSED_LOOKS as u64;
    let mut table = FlowTable::new(CLOSED_LOOKS as usize + 1, 0);
    for n in 1..=liars {
        assert_eq!(table.classify(at_ms(0), &key(n), 0, || false), new(0));
        assert!(table.close(at_ms(0), &key(n), 1_000_000));
        // Too soon to tell it from what was under way.
        assert_eq!(table.classify(at_ms(50), &key(n), 1, || false), new(0));
    }
    assert_eq!(table.classify(at_ms(60), &key(100), 0, || false), new(0));
    assert!(table.close(at_ms(60), &key(100), 1));
    assert_eq!(table.classify(at_ms(200), &key(101), 0, || false), Verdict::NoRoom);
    assert_eq!(table.classify(at_ms(200), &key(101), 0, || false), new(0));
}

#[test]
fn a_flow_with_a_message_under_way_waits_for_it() {
    let mut table = FlowTable::new(1, 0);
    assert_eq!(table.classify(at_ms(0), &key(0), 0, || false), new(0));
    assert!(table.close(at_ms(10), &key(0), 3));
    assert_eq!(table.classify(at_ms(900), &key(1), 0, || false), Verdict::NoRoom);
    assert_eq!(table.classify(at_ms(950), &key(0), 2, || false), new(1));
    assert_eq!(table.classify(at_ms(960), &key(0), 2, || false), Verdict::Duplicate);
    assert_eq!(table.classify(at_ms(970), &key(1), 0, || false), new(0), "all of it is here");
}

#[test]
fn what_has_closed_is_forgotten_after_a_while_and_what_goes_on_has_not_closed() {
    let mut table = FlowTable::new(4, 0);
    for number in 0..3 {
        assert_eq!(table.classify(at_ms(0), &key(number), 0, || false), new(0));
        assert!(table.close(at_ms(0), &key(number), if number == 2 { 1_000 } else { 1 }));
    }
    // One goes on beyond its end, and one within it.
    assert_eq!(table.classify(at_ms(5_000), &key(1), 1, || false), new(0));
    assert_eq!(table.classify(at_ms(5_000), &key(2), 1, || false), new(0));
    assert!(table.close(at_ms(6_000), &key(0), 1), "said again");
    assert_eq!(table.expire(at_ms(9_999), Nanos::from_secs(60), 16), 0);
    assert_eq!(table.expire(at_ms(10_000), Nanos::from_secs(60), 16), 1);
    assert_eq!(table.expire(at_ms(30_000), Nanos::from_secs(60), 16), 0);
    assert_eq!(table.iter().map(|flow| flow.key).collect::<Vec<_>>(), [key(1), key(2)]);
    assert!(!table.close(at_ms(30_000), &key(0), 1), "nothing is known of it");
}
