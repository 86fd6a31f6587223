//! Synthesis, refutations and the checker against trying everything, and against Z3.

mod common;

use common::{has_schedule, host, is_schedule, link, plant, stream};
use insane_admission::{Budget, Reason, synthesise};
use insane_certificate::{Class, Plant, Window};
use insane_checker::{check, is_refuted};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::io::Write;
use std::process::{Command, Stdio};

/// Two hosts, each with a link, that meet at the port of a switch.
fn small(streams: usize, periods: &'static [u64]) -> impl Strategy<Value = Plant> {
    let one = (prop::sample::select(periods), 1..4_u32, 0..4_u64, 0..12_u64, 0..2_usize, any::<bool>(), any::<bool>())
        .prop_map(|(period, bytes, release, room, host, far, assured)| {
            let path: &[usize] = if far { &[host, 2] } else { &[host] };
            let hops = path.len() as u64;
            let deadline = (release + hops * u64::from(bytes) + room).min(release + 2 * period);
            let class = if assured { Class::Assured } else { Class::Statistical };
            insane_certificate::Stream { class, ..stream(period, bytes, release, deadline, path) }
        });
    let hosts = (0..2_u64, 0..2_u64, 0..2_u64)
        .prop_map(|(error, turn, more)| vec![host(error, (turn, turn + more)), host(0, (0, 0))]);
    let blocked = prop::collection::vec((0..3_usize, 0..4_u64, 1..3_u64, prop::sample::select(periods)), 0..2);
    (prop::collection::vec(one, 1..=streams), hosts, blocked, 0..2_u32).prop_map(
        |(streams, hosts, blocked, foreign)| {
            let mut links = vec![link(Some(0)), link(Some(1)), link(None)];
            links[0].foreign_bytes = foreign;
            for (at, offset_ns, length_ns, period_ns) in blocked {
                links[at].blocked.push(Window { offset_ns, length_ns, period_ns });
            }
            plant(hosts, links, streams)
        },
    )
}

fn budget() -> Budget {
    Budget { jumps: 1_000, rounds: 20 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_is_a_schedule_and_what_is_refuted_has_none(plant in small(4, &[4, 6, 8, 12])) {
        match synthesise(&plant, budget()) {
            Ok(plan) => {
                prop_assert!(is_schedule(&plant, plan.starts_ns()));
                prop_assert_eq!(check(&plant, &plan.certificate()), Ok(()));
            }
            Err(refusal) => match refusal.reason {
                Reason::Refuted(proof) => {
                    prop_assert!(is_refuted(&plant, &proof), "{:?}", proof);
                    prop_assert!(!has_schedule(&plant), "{:?}", proof);
                }
                Reason::NotFound => {}
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn the_checker_accepts_exactly_the_schedules(plant in small(3, &[4, 6, 8, 12]), starts in prop::collection::vec(0..16_u64, 3)) {
        // Windows as a plan would have them, at starts that nobody has looked for.
        let plan = synthesise(&Plant { streams: vec![], ..plant.clone() }, budget()).unwrap();
        let mut certificate = plan.certificate();
        certificate.plant = plant.clone();
        for (one, &start) in plant.streams.iter().zip(&starts) {
            let mut alone = plant.clone();
            alone.links.iter_mut().for_each(|link| link.blocked.clear());
            alone.streams = vec![insane_certificate::Stream { release_ns: start, deadline_ns: 1_000_000, ..one.clone() }];
            let Ok(alone) = synthesise(&alone, budget()) else { return Ok(()) };
            certificate.placed.extend(alone.certificate().placed);
        }
        let in_period = plant.streams.iter().zip(&starts).all(|(one, &start)| start < one.release_ns + one.period_ns);
        let blocked_apart = is_blocked_apart(&plant);
        let expected = in_period && is_schedule(&plant, &starts[..plant.streams.len()]);
        // Blocked windows that overlap each other are not the checker's concern.
        prop_assert!(!blocked_apart || check(&plant, &certificate).is_ok() == expected, "{:?}", check(&plant, &certificate));
    }

    #[test]
    fn any_proof_that_the_checker_believes_is_true(plant in small(3, &[4, 6, 8]), link in 0..3_usize, from in 0..12_u64, length in 0..12_u64, a in 0..3_usize, b in 0..3_usize) {
        use insane_certificate::Refutation::{Blocked, DoesNotFit, Overload, Pair, Utilisation};
        let proofs = [DoesNotFit { stream: a }, Pair { link, a, b }, Blocked { link, stream: a, blocked: 0 }, Utilisation { link }, Overload { link, from_ns: from, to_ns: from + length }];
        if proofs.iter().any(|proof| is_refuted(&plant, proof)) {
            prop_assert!(!has_schedule(&plant));
        }
    }

    #[test]
    fn what_is_offered_is_admitted(plant in small(5, &[4, 6, 8, 12])) {
        let (last, others) = plant.streams.split_last().unwrap();
        let Ok(mut plan) = synthesise(&Plant { streams: others.to_vec(), ..plant.clone() }, budget()) else { return Ok(()) };
        match plan.clone().admit(last.clone(), budget()) {
            Ok(number) => {
                plan.admit(last.clone(), budget()).unwrap();
                prop_assert_eq!(number, others.len());
                prop_assert_eq!(check(&plant, &plan.certificate()), Ok(()));
            }
            Err(refusal) => {
                let offer = refusal.offer;
                let changed = [
                    offer.deadline_ns.map(|deadline_ns| insane_certificate::Stream { deadline_ns, ..last.clone() }),
                    offer.bytes.map(|bytes| insane_certificate::Stream { bytes, ..last.clone() }),
                    offer.period_ns.map(|period_ns| insane_certificate::Stream { period_ns, ..last.clone() }),
                ];
                for one in changed.into_iter().flatten() {
                    let mut plan = plan.clone();
                    prop_assert!(plan.admit(one, budget()).is_ok(), "{:?}", offer);
                    prop_assert_eq!(check(plan.plant(), &plan.certificate()), Ok(()));
                }
            }
        }
    }

    #[test]
    fn any_numbers_are_admitted_or_refused_by_name(period: u64, bytes: u32, release: u64, deadline: u64, delay: u64, error: u64, turn: u64, ps: u32, link_at in 0..5_usize, offset: u64, length: u64) {
        let mut plant = plant(vec![host(error, (turn, turn))], vec![link(Some(0)), link(None)], vec![stream(period, bytes, release, deadline, &[link_at])]);
        plant.links[0].ps_per_byte = ps;
        plant.links[0].blocked.push(Window { offset_ns: offset, length_ns: length, period_ns: period });
        plant.streams[0].path[0].delay_ns = delay;
        match synthesise(&plant, budget()) {
            Ok(plan) => prop_assert_eq!(check(&plant, &plan.certificate()), Ok(())),
            Err(refusal) => prop_assert!(!refusal.to_string().is_empty()),
        }
    }
}

fn is_blocked_apart(plant: &Plant) -> bool {
    plant.links.iter().all(|link| link.blocked.len() < 2)
        && plant.links.iter().flat_map(|link| &link.blocked).all(|window| window.offset_ns < window.period_ns)
}

/// The plant as SMT-LIB: the starts are unknown, or given.
fn smt(plant: &Plant, starts: Option<&[u64]>) -> String {
    let mut text = String::from("(set-option :timeout 5000)\n");
    let mut windows: Vec<(usize, String, i64, u64)> = Vec::new();
    for (number, one) in plant.streams.iter().enumerate() {
        let sender = &plant.hosts[plant.links[one.path[0].link].host.unwrap()];
        let turn = if one.class == Class::Assured { sender.turn.max_ns } else { sender.turn.quantile_ns } as i64;
        let error = sender.clock_error_ns as i64;
        let (mut early, mut late) = (0, turn);
        for (hop, at) in one.path.iter().zip(0..) {
            let entry = &plant.links[hop.link];
            late += i64::from(one.bytes + entry.foreign_bytes);
            let widen = if at > 0 { error } else { 0 };
            windows.push((
                hop.link,
                format!("(+ x{number} {})", early - widen + 1_000),
                late - early + 2 * widen,
                one.period_ns,
            ));
            early += i64::from(one.bytes);
        }
        let latest = (one.deadline_ns as i64 - late - error).min((one.release_ns + one.period_ns) as i64 - 1);
        text += &format!(
            "(declare-const x{number} Int)\n(assert (and (>= x{number} {}) (<= x{number} {})))\n",
            one.release_ns,
            format!("{latest}").replace('-', "(- ").to_string() + if latest < 0 { ")" } else { "" }
        );
        if let Some(starts) = starts {
            text += &format!("(assert (= x{number} {}))\n", starts[number]);
        }
        if plant.streams[number].path.iter().any(|_| late - early > one.period_ns as i64) {
            text += "(assert false)\n";
        }
    }
    let streams = windows.len();
    for (at, entry) in plant.links.iter().enumerate() {
        windows.extend(
            entry
                .blocked
                .iter()
                .map(|one| (at, format!("{}", one.offset_ns + 1_000), one.length_ns as i64, one.period_ns)),
        );
    }
    for (at, a) in windows.iter().enumerate().take(streams) {
        for b in windows[at + 1..].iter().filter(|b| b.0 == a.0) {
            let gcd = (1..=a.3.min(b.3)).rev().find(|step| a.3 % step == 0 && b.3 % step == 0).unwrap();
            let apart = format!("(mod (- {} {}) {gcd})", b.1, a.1);
            text += &format!("(assert (and (>= {apart} {}) (<= {apart} (- {gcd} {}))))\n", a.2, b.2);
        }
    }
    text + "(check-sat)\n"
}

fn z3(text: &str) -> Option<String> {
    let mut child =
        Command::new("z3").args(["-in", "-smt2"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    child.stdin.take()?.write_all(text.as_bytes()).ok()?;
    Some(String::from_utf8_lossy(&child.wait_with_output().ok()?.stdout).trim().to_owned())
}

#[test]
fn z3_finds_no_false_accept_and_no_false_refutation() {
    if z3("(check-sat)").is_none() {
        eprintln!("passed over: z3 is not installed (Debian: apt install z3)");
        return;
    }
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = small(12, &[24, 36, 48, 60, 72]);
    let (mut accepted, mut refuted, mut missed, mut rightly) = (0, 0, 0, 0);
    for _ in 0..120 {
        let plant = strategy.new_tree(&mut runner).unwrap().current();
        match synthesise(&plant, budget()) {
            Ok(plan) => {
                assert_eq!(z3(&smt(&plant, Some(plan.starts_ns()))).as_deref(), Some("sat"), "{plant:#?}");
                accepted += 1;
            }
            Err(refusal) => {
                let answer = z3(&smt(&plant, None)).unwrap();
                match refusal.reason {
                    Reason::Refuted(proof) => {
                        assert_ne!(answer, "sat", "{proof:?} {plant:#?}");
                        assert!(is_refuted(&plant, &proof));
                        refuted += 1;
                    }
                    _ => {
                        if answer == "sat" {
                            missed += 1
                        } else {
                            rightly += 1
                        }
                    }
                }
            }
        }
    }
    println!("accepted {accepted}, refuted {refuted}, not found {}: Z3 found {missed} of them", missed + rightly);
    assert!(accepted > 10 && refuted > 10, "{accepted} {refuted}");
}
