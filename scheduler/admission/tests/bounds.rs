//! Chains and sporadic lanes against a walk through time; certificates as text.

mod common;

use common::{host, link, plant, stream};
use insane_admission::{Budget, Reason, synthesise, synthesise_beside};
use insane_certificate::{Chain, ChainBound, Lane, Plant, Step, text};
use insane_checker::{Flaw, check};
use proptest::prelude::*;

#[test]
fn who_is_dismissed_makes_room_and_moves_nobody() {
    let streams: Vec<_> = (0..3).map(|_| stream(1_000, 300, 0, 1_000, &[0])).collect();
    let plant = plant(vec![host(0, (0, 0))], vec![link(Some(0))], streams);
    let mut plan = synthesise(&plant, Budget::default()).unwrap();
    let starts = plan.starts_ns().to_vec();
    let more = stream(1_000, 250, 0, 1_000, &[0]);
    assert!(plan.admit(more.clone(), Budget::default()).is_err(), "900 of 1,000 are taken");
    assert!(!plan.dismiss(3) && plan.dismiss(1));
    assert_eq!(plan.starts_ns(), [starts[0], starts[2]]);
    assert_eq!(check(plan.plant(), &plan.certificate()), Ok(()));
    assert_eq!(plan.admit(more, Budget::default()), Ok(2));
    assert_eq!(plan.starts_ns()[2], starts[1]);
    assert_eq!(check(plan.plant(), &plan.certificate()), Ok(()));
}

#[test]
fn what_is_kept_stays_and_what_may_not_stay_is_named() {
    let streams: Vec<_> = (0..3).map(|_| stream(1_000, 300, 0, 1_000, &[0])).collect();
    let plant = plant(vec![host(0, (0, 0))], vec![link(Some(0))], streams);
    let beside = |kept: &[Option<u64>]| synthesise_beside(&plant, kept, Budget::default());
    // The last one is moved between those that stay; those beyond the list are new.
    let plan = beside(&[Some(600), Some(0)]).unwrap();
    assert_eq!(plan.starts_ns(), [600, 0, 300]);
    assert_eq!(check(plan.plant(), &plan.certificate()), Ok(()));
    // Two that would overlap, one beyond its deadline, one that leaves too little between.
    for (kept, stream) in [(&[Some(0), Some(100)][..], 1), (&[Some(5_000)], 0), (&[Some(200), Some(650)], 2)] {
        let refusal = beside(kept).unwrap_err();
        assert_eq!((refusal.reason, refusal.stream), (Reason::NotFound, Some(stream)), "{kept:?}");
    }
}

fn task(host: usize, period_ns: u64, offset_ns: u64, response_ns: u64) -> Step {
    Step::Task { host, period_ns, offset_ns, response_ns }
}

/// Goes through all causes of a hyperperiod: the longest time to an effect, and the
/// longest time that an effect rests on data from its cause on until the next effect.
fn chain_by_walking(points: &[(u64, u64, u64)], shift: &[i64]) -> (u64, u64) {
    let cycle = points
        .iter()
        .fold(1, |cycle, point| (1..).map(|k| cycle * k).find(|m: &u64| m.is_multiple_of(point.0)).unwrap())
        as i64;
    let read = |at: usize, k: i64| points[at].1 as i64 + shift[at] + k * points[at].0 as i64;
    let first_read = |at: usize, from: i64| (-200..).map(|k| read(at, k)).find(|&read| read >= from).unwrap();
    let last_write = |at: usize, until: i64| {
        (-200..).map(|k| read(at, k) + points[at].2 as i64).take_while(|&written| written <= until).last().unwrap()
    };
    let last = points.len() - 1;
    let (mut reaction, mut age) = (0, 0);
    for k in 0..cycle / points[0].0 as i64 {
        // The cause comes when the read before has just passed.
        let mut at = read(0, k) + points[0].2 as i64;
        (1..=last).for_each(|step| at = first_read(step, at) + points[step].2 as i64);
        reaction = reaction.max(at - read(0, k) + points[0].0 as i64);
    }
    for k in 0..cycle / points[last].0 as i64 {
        let effect = read(last, k) + points[last].2 as i64;
        let mut found = read(last, k);
        for step in (0..last).rev() {
            found = last_write(step, found) - points[step].2 as i64;
        }
        age = age.max(effect + points[last].0 as i64 - found);
    }
    (reaction as u64, age as u64)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn no_walk_through_a_chain_is_beyond_its_bound(
        points in prop::collection::vec((prop::sample::select(vec![4_u64, 6, 8, 12]), 0..12_u64, 0..9_u64), 1..4),
        errors in (0..3_u64, 0..3_u64),
        moved in prop::collection::vec(-1..=1_i64, 2),
    ) {
        let points: Vec<_> = points.into_iter().map(|(period, offset, response)| (period, offset % period, response)).collect();
        let steps = points.iter().enumerate().map(|(at, &(period, offset, response))| task(at % 2, period, offset, response)).collect();
        let mut plant = plant(vec![host(errors.0, (0, 0)), host(errors.1, (0, 0))], vec![link(Some(0))], vec![]);
        plant.chains.push(Chain { name: "c".into(), steps, reaction_ns_max: 1_000, age_ns_max: 1_000 });
        let plan = synthesise(&plant, Budget::default()).unwrap();
        let certificate = plan.certificate();
        prop_assert_eq!(check(&plant, &certificate), Ok(()));
        let bound = &certificate.chains[0];
        // The clocks stand anywhere within their errors.
        let hosts = [errors.0 as i64 * moved[0], errors.1 as i64 * moved[1]];
        let shift: Vec<_> = (0..points.len()).map(|at| hosts[at % 2]).collect();
        let (reaction, age) = chain_by_walking(&points, &shift);
        prop_assert!(reaction <= bound.reaction_ns && age <= bound.age_ns, "{reaction} {age} {bound:?}");
        // Of two steps of one clock the bound is what happens.
        if points.len() <= 2 && errors == (0, 0) {
            prop_assert_eq!((reaction, age), (bound.reaction_ns, bound.age_ns));
        }
        // A claim of one nanosecond less is no longer believed.
        for less in [(1, 0), (0, 1)] {
            let mut claimed = certificate.clone();
            claimed.chains[0] = ChainBound { reaction_ns: bound.reaction_ns - less.0, age_ns: bound.age_ns - less.1 };
            prop_assert_eq!(check(&plant, &claimed), Err(Flaw::Chain(0)));
        }
    }

    #[test]
    fn no_frame_of_a_lane_waits_beyond_its_bound(
        lanes in prop::collection::vec((1..6_u32, 1..3_u32, 20..90_u64), 1..4),
        slot in prop::option::of((prop::sample::select(vec![40_u64, 60, 100]), 1..8_u32)),
        seed: u64,
    ) {
        let plant = lanes_plant(&lanes, slot);
        let Ok(plan) = synthesise(&plant, Budget::default()) else { return Ok(()) };
        let certificate = plan.certificate();
        prop_assert_eq!(check(&plant, &certificate), Ok(()));
        let window = certificate.placed.first().map(|placed| (placed.windows[0].period_ns, placed.windows[0].length_ns));
        let waited = lanes_by_walking(&plant, window, seed);
        for (lane, waited) in waited.into_iter().enumerate() {
            prop_assert!(waited <= certificate.lanes[lane], "lane {lane} waited {waited}: {:?}", certificate.lanes);
        }
    }

    #[test]
    fn a_certificate_that_was_altered_by_one_bit_is_noticed(at: prop::sample::Index, bit in 0..8_u8) {
        let text = text::write(&synthesise(&lanes_plant(&[(5, 1, 50)], Some((40, 3))), Budget::default()).unwrap().certificate()).unwrap();
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(altered) = String::from_utf8(bytes) {
            prop_assert!(text::read(&altered).is_err());
        }
    }
}

/// Lanes of one host, the first goes first, over a link with one stream at most.
fn lanes_plant(lanes: &[(u32, u32, u64)], slot: Option<(u64, u32)>) -> Plant {
    let streams = slot.map(|(period, bytes)| stream(period, bytes, 0, period, &[0]));
    let mut plant = plant(vec![host(0, (1, 1))], vec![link(Some(0))], streams.into_iter().collect());
    plant.links[0].frame_bytes_max = 5;
    plant.links[0].in_flight_bytes = 5;
    let lane = |(priority, &(frame_bytes, burst_frames, interval_ns)): (usize, &(u32, u32, u64))| Lane {
        name: "lane".into(),
        link: 0,
        priority: priority as u8,
        frame_bytes,
        burst_frames,
        interval_ns,
        deadline_ns: 100_000,
    };
    plant.lanes = lanes.iter().enumerate().map(lane).collect();
    plant
}

/// Every lane sends as much as it may from some instant on, or a little less; a frame of
/// the lowest kind is under way then, and slots come with any phase. A frame begins where
/// it ends one e_turn before the next slot; a slot is the link's alone.
fn lanes_by_walking(plant: &Plant, window: Option<(u64, u64)>, seed: u64) -> Vec<u64> {
    let mut random = seed;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (turn, largest) = (1, u64::from(plant.links[0].frame_bytes_max));
    let phase = window.map_or(0, |(period, _)| next(period));
    // The start of the slot at or after an instant, and whether the instant is within one.
    let slot = |at: u64| {
        let Some((period, length)) = window else { return (u64::MAX, None) };
        let into = (at + period - phase) % period;
        (at + (period - into) % period, (into < length).then(|| at + length - into))
    };
    let mut queues: Vec<Vec<u64>> = vec![vec![]; plant.lanes.len()];
    for (lane, queue) in plant.lanes.iter().zip(&mut queues) {
        let first = if next(2) == 0 { 1 } else { 1 + next(30) };
        queue.extend((0..lane.burst_frames).map(|_| first));
        let lazy = next(2) * 7;
        let mut at = first;
        for _ in 0..30 {
            at += lane.interval_ns + if lazy == 0 { 0 } else { next(lazy) };
            queue.push(at);
        }
    }
    let mut waited = vec![0; queues.len()];
    let mut sent = vec![0; queues.len()];
    // A lower frame has just begun at 0.
    let mut at = if slot(0).1.is_none() && largest + turn <= slot(0).0 { largest + turn } else { 0 };
    while let Some(soonest) = (0..queues.len()).filter_map(|lane| queues[lane].get(sent[lane])).min() {
        at = at.max(*soonest);
        if let Some(end) = slot(at).1 {
            at = end;
            continue;
        }
        if at + turn + largest > slot(at).0 {
            at = slot(at).0;
            continue;
        }
        let first =
            (0..queues.len()).find(|&lane| queues[lane].get(sent[lane]).is_some_and(|&came| came <= at)).unwrap();
        at += u64::from(plant.lanes[first].frame_bytes) + turn;
        waited[first] = waited[first].max(at - queues[first][sent[first]]);
        sent[first] += 1;
    }
    waited
}

#[test]
fn the_checker_believes_no_lane_that_claims_less() {
    // Alone, one frame of 5 behind 5 below, each with one e_turn: 12 ns.
    let plant = lanes_plant(&[(5, 1, 50)], None);
    let certificate = synthesise(&plant, Budget::default()).unwrap().certificate();
    assert_eq!(certificate.lanes, [12]);
    let mut claimed = certificate.clone();
    claimed.lanes[0] -= 1;
    assert_eq!(check(&plant, &claimed), Err(Flaw::Lane(0)));
    // With slots of 4 ns every 40 and guards of 6 beside it: 10 more.
    let plant = lanes_plant(&[(5, 1, 50)], Some((40, 3)));
    let certificate = synthesise(&plant, Budget::default()).unwrap().certificate();
    assert_eq!(certificate.lanes, [22]);
}

#[test]
fn the_first_frame_of_a_busy_period_need_not_be_the_worst() {
    // Davis et al. 2007, figure 2 in spirit: three lanes that fill the link; the lowest
    // waits longest with its second frame.
    let mut plant = lanes_plant(&[(20, 1, 50), (20, 1, 70), (20, 1, 70)], None);
    plant.hosts[0] = host(0, (0, 0));
    plant.links[0].frame_bytes_max = 20;
    plant.links[0].in_flight_bytes = 0;
    let certificate = synthesise(&plant, Budget::default()).unwrap().certificate();
    assert_eq!(check(&plant, &certificate), Ok(()));
    // First frame: 20 + 20 of the others, then 20: 60. Second: from 70 on at 100 + ...
    let first = 60;
    assert!(certificate.lanes[2] > first, "{:?}", certificate.lanes);
    let mut claimed = certificate;
    claimed.lanes[2] = first;
    assert_eq!(check(&plant, &claimed), Err(Flaw::Lane(2)));
}

#[test]
fn what_is_too_slow_is_refused_by_name() {
    let mut plant = lanes_plant(&[(5, 1, 50)], None);
    plant.lanes[0].deadline_ns = 11;
    assert_eq!(synthesise(&plant, Budget::default()).unwrap_err().reason, Reason::Lane(0));
    // More than the link has.
    let plant = lanes_plant(&[(5, 1, 5)], None);
    assert_eq!(synthesise(&plant, Budget::default()).unwrap_err().reason, Reason::Lane(0));
    let mut plant = common::plant(vec![host(0, (0, 0))], vec![link(Some(0))], vec![]);
    plant.chains.push(Chain { name: "c".into(), steps: vec![task(0, 10, 0, 2)], reaction_ns_max: 11, age_ns_max: 12 });
    let reason = synthesise(&plant, Budget::default()).unwrap_err().reason;
    assert_eq!(reason, Reason::Chain(0, ChainBound { reaction_ns: 12, age_ns: 12 }));
}

#[test]
fn text_is_read_as_it_was_written() {
    let certificate = synthesise(&lanes_plant(&[(5, 1, 50)], Some((40, 3))), Budget::default()).unwrap().certificate();
    let written = text::write(&certificate).unwrap();
    assert_eq!(text::read(&written), Ok(certificate));
    assert_eq!(text::read("something else"), Err(text::TextError::NoMark));
    assert_eq!(text::read(&written.replace("quantile_ppm", "quantile_ppn")), Err(text::TextError::Altered));
}
