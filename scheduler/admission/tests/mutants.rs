//! Deliberate faults in synthesiser and checker: each must be noticed.
//!
//! A fault of the synthesiser is noticed when a plan is no schedule (by trying every
//! nanosecond, or by the checker, which shares no code with it), a bound is less than the
//! checker's, or a proof is not believed. A fault of the checker is noticed when it
//! accepts what is doctored, or refuses what is right.

mod common;

use common::{has_schedule, host, is_schedule, link, plant, stream};
use insane_admission::{Budget, Mutation, Reason, synthesise, turn_on};
use insane_certificate::{Certificate, Chain, Lane, Plant, Refutation, Step, Window};
use insane_checker::{check, is_refuted};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

fn random_plant() -> impl Strategy<Value = Plant> {
    let period = || prop::sample::select(vec![4_u64, 6, 8, 12]);
    let one = (period(), 1..4_u32, 0..4_u64, 0..12_u64, 0..2_usize, any::<bool>()).prop_map(
        |(period, bytes, release, room, host, far)| {
            let path: &[usize] = if far { &[host, 2] } else { &[host] };
            let deadline = (release + path.len() as u64 * u64::from(bytes) + room).min(release + 2 * period);
            stream(period, bytes, release, deadline, path)
        },
    );
    let blocked = (0..3_usize, 0..4_u64, 1..3_u64, period());
    (prop::collection::vec(one, 1..=4), blocked, 0..2_u64, 0..2_u64, 0..2_u32).prop_map(
        |(streams, (at, offset_ns, length_ns, period_ns), error, turn, foreign)| {
            let mut links = vec![link(Some(0)), link(Some(1)), link(None)];
            links[0].foreign_bytes = foreign;
            links[at].blocked.push(Window { offset_ns, length_ns, period_ns });
            plant(vec![host(error, (0, turn)), host(0, (0, 0))], links, streams)
        },
    )
}

/// With chains and lanes.
fn full_plant() -> Plant {
    let streams = vec![stream(40, 4, 3, 20, &[0, 2]), stream(60, 5, 0, 60, &[0]), stream(40, 4, 0, 40, &[1, 2])];
    let mut plant =
        plant(vec![host(1, (1, 2)), host(2, (1, 1))], vec![link(Some(0)), link(Some(1)), link(None)], streams);
    plant.links[0].foreign_bytes = 1;
    plant.links[0].frame_bytes_max = 5;
    plant.links[0].in_flight_bytes = 5;
    plant.links[0].blocked.push(Window { offset_ns: 2, length_ns: 1, period_ns: 120 });
    plant.streams[0].path[0].delay_ns = 2;
    let task = |host, offset_ns| Step::Task { host, period_ns: 60, offset_ns, response_ns: 3 };
    let steps = vec![task(0, 1), Step::Stream(0), task(1, 30)];
    plant.chains.push(Chain { name: "c".into(), steps, reaction_ns_max: 1_000, age_ns_max: 1_000 });
    let lane = |priority, burst_frames| Lane {
        name: "l".into(),
        link: 0,
        priority,
        frame_bytes: 2,
        burst_frames,
        interval_ns: 2_000,
        deadline_ns: 100_000,
    };
    plant.lanes = vec![lane(0, 1), lane(1, 2)];
    plant
}

fn plants() -> Vec<Plant> {
    let mut runner = TestRunner::deterministic();
    (0..600).map(|_| random_plant().new_tree(&mut runner).unwrap().current()).collect()
}

/// Whether anything that the synthesiser says is wrong.
fn synthesiser_is_noticed(plants: &[Plant]) -> bool {
    let budget = Budget { jumps: 500, rounds: 10 };
    let full = synthesise(&full_plant(), budget);
    if full.map_or(true, |plan| check(&full_plant(), &plan.certificate()).is_err()) {
        return true;
    }
    plants.iter().any(|plant| match synthesise(plant, budget) {
        Ok(plan) => !is_schedule(plant, plan.starts_ns()) || check(plant, &plan.certificate()).is_err(),
        Err(refusal) => match refusal.reason {
            Reason::Refuted(proof) => !is_refuted(plant, &proof) || has_schedule(plant),
            _ => false,
        },
    })
}

/// Certificates that are wrong in one thing each.
fn doctored(right: &Certificate) -> Vec<(&'static str, Plant, Certificate)> {
    let plant = &right.plant;
    let mut all = Vec::new();
    let mut other = |what, change: &dyn Fn(&mut Plant, &mut Certificate)| {
        let (mut plant, mut certificate) = (plant.clone(), right.clone());
        change(&mut plant, &mut certificate);
        all.push((what, plant, certificate));
    };
    // The certificate is about the doctored plant, its windows about the right one.
    let mut same = |what, change: &dyn Fn(&mut Plant)| {
        other(what, &|plant, certificate| {
            change(plant);
            certificate.plant = plant.clone();
        });
    };
    same("release after the start", &|plant| plant.streams[0].release_ns = right.placed[0].start_ns + 1);
    same("longest turn", &|plant| plant.hosts[0].turn.max_ns += 1);
    same("clock error", &|plant| plant.hosts[0].clock_error_ns += 1);
    same("foreign bytes", &|plant| plant.links[0].foreign_bytes += 1);
    same("path delay", &|plant| plant.streams[0].path[0].delay_ns += 1);
    same("blocked", &|plant| {
        let window = right.placed[1].windows[0].clone();
        plant.links[0].blocked.push(Window { length_ns: 1, ..window });
    });
    same("chain", &|plant| plant.chains[0].reaction_ns_max = right.chains[0].reaction_ns - 1);
    same("lane", &|plant| plant.lanes[1].deadline_ns = right.lanes[1] - 1);
    other("another plant", &|plant, _| plant.streams[0].name = "another".into());
    other("a longer message", &|plant, certificate| {
        plant.streams[1].bytes += 1;
        certificate.plant = plant.clone();
    });
    for stream in 0..3 {
        other("a start that is moved", &|_, certificate| certificate.placed[stream].start_ns += 1);
        other("a window that is cut", &|_, certificate| certificate.placed[stream].windows[0].length_ns -= 1);
    }
    other("a reaction that is shorter", &|_, certificate| certificate.chains[0].reaction_ns -= 1);
    other("data that are younger", &|_, certificate| certificate.chains[0].age_ns -= 1);
    for lane in 0..2 {
        other("a response that is shorter", &|_, certificate| certificate.lanes[lane] -= 1);
    }
    all
}

/// The windows of two streams, `apart` nanoseconds from start to start.
fn pair(apart: u64) -> (Plant, Certificate) {
    let streams = vec![stream(40, 5, 0, 40, &[0]), stream(40, 5, apart, 40, &[0])];
    let plant = plant(vec![host(0, (0, 0))], vec![link(Some(0))], streams);
    let placed = [0, apart].map(|start_ns| insane_certificate::Placed {
        start_ns,
        windows: vec![Window { offset_ns: start_ns, length_ns: 5, period_ns: 40 }],
    });
    (plant.clone(), Certificate { plant, placed: placed.to_vec(), chains: vec![], lanes: vec![] })
}

fn checker_is_noticed(right: &Certificate, plants: &[Plant]) -> bool {
    let budget = Budget { jumps: 500, rounds: 10 };
    let accepts = doctored(right).into_iter().any(|(_, plant, certificate)| check(&plant, &certificate).is_ok());
    let (touching, overlapping, late) = (pair(5), pair(4), pair(36));
    let half = plant(vec![host(0, (0, 0))], vec![link(Some(0))], vec![stream(10, 6, 0, 10, &[0])]);
    let mut tight = pair(5);
    (0..2).for_each(|at| {
        let deadline = 4 + 5 * at as u64;
        tight.0.streams[at].deadline_ns = deadline;
        tight.1.plant.streams[at].deadline_ns = deadline;
    });
    // A path that is longer by one nanosecond than the deadline bears.
    let mut far = pair(5);
    far.0.streams[1].deadline_ns = 10;
    far.0.streams[1].path[0].delay_ns = 1;
    far.1.plant = far.0.clone();
    let mut blocked = pair(5);
    blocked.0.links[0].blocked.push(Window { offset_ns: 9, length_ns: 1, period_ns: 20 });
    blocked.1.plant = blocked.0.clone();
    accepts
        || check(&far.0, &far.1).is_ok()
        || check(&blocked.0, &blocked.1).is_ok()
        || check(&right.plant, right).is_err()
        || check(&touching.0, &touching.1).is_err()
        || check(&overlapping.0, &overlapping.1).is_ok()
        || check(&late.0, &late.1).is_ok()
        || check(&tight.0, &tight.1).is_ok()
        || is_refuted(&half, &Refutation::Utilisation { link: 0 })
        || plants
            .iter()
            .any(|plant| synthesise(plant, budget).is_ok_and(|plan| check(plant, &plan.certificate()).is_err()))
}

#[test]
fn every_fault_is_noticed() {
    let plants = plants();
    turn_on(None);
    insane_checker::turn_on(None);
    synthesise(&full_plant(), Budget::default()).unwrap_or_else(|refusal| panic!("{refusal}"));
    assert!(!synthesiser_is_noticed(&plants), "there is a fault though none is turned on");
    let right = synthesise(&full_plant(), Budget::default()).unwrap().certificate();
    for (what, plant, certificate) in doctored(&right) {
        assert!(check(&plant, &certificate).is_err(), "{what} is accepted");
    }
    assert!(!checker_is_noticed(&right, &plants), "there is a fault though none is turned on");
    let mut alive = Vec::new();
    for &mutation in Mutation::ALL {
        turn_on(Some(mutation));
        let noticed = synthesiser_is_noticed(&plants);
        println!("synthesiser  {:<26} {}", format!("{mutation:?}"), if noticed { "killed" } else { "ALIVE" });
        alive.extend((!noticed).then(|| format!("{mutation:?}")));
    }
    turn_on(None);
    for &mutation in insane_checker::Mutation::ALL {
        insane_checker::turn_on(Some(mutation));
        let noticed = checker_is_noticed(&right, &plants);
        println!("checker      {:<26} {}", format!("{mutation:?}"), if noticed { "killed" } else { "ALIVE" });
        alive.extend((!noticed).then(|| format!("{mutation:?}")));
    }
    insane_checker::turn_on(None);
    assert!(alive.is_empty(), "not noticed: {alive:?}");
}
