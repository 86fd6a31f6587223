//! Meshes small enough for every build: each scenario keeps every rule, a seed gives the same
//! run again, and each checker is seen to fail.
#![forbid(unsafe_code)]

use insane_sim_world::defect::Defect;
use insane_sim_world::ledger::Rule;
use insane_sim_world::mesh::scenario::{Outcome, Scenario, run, small};

fn outcome(seed: u64, scenario: Scenario, defect: Option<Defect>) -> Outcome {
    run(small(seed, defect), scenario, false)
}

#[test]
fn every_scenario_keeps_every_rule() {
    for scenario in Scenario::ALL {
        for seed in 0..3 {
            let outcome = outcome(seed, scenario, None);
            let again = format!("cargo xtask sim --seed {seed} --scenario {} --hosts 10 --streams 40", scenario.name());
            assert_eq!(outcome.violations, [], "{again}\n{}", outcome.trace.join("\n"));
            assert!(outcome.joined.is_some() && outcome.agreed.is_some());
            let looked: Vec<Rule> =
                outcome.checks.iter().filter(|(_, looks)| *looks > 0).map(|(rule, _)| *rule).collect();
            assert_eq!(looked, Rule::ALL[..9], "{again}: every checker looked");
        }
    }
}

/// The scenarios have to do what they are named for, or they prove nothing.
#[test]
fn every_scenario_makes_its_trouble() {
    let sum = |scenario| (0..3).map(move |seed| outcome(seed, scenario, None));
    assert!(sum(Scenario::Calm).all(|run| run.events[1] == 0 && run.counts.2.resends == 0));
    assert!(sum(Scenario::Weather).any(|run| run.counts.0.lost > 0 && run.counts.0.duplicate > 0));
    assert!(Scenario::ALL.into_iter().all(|scenario| sum(scenario).any(|run| run.counts.0.closings > 0)));
    assert!(sum(Scenario::Weather).any(|run| run.counts.0.late > 0 && run.counts.0.incomplete > 0));
    assert!(sum(Scenario::Partition).all(|run| run.events[1] > 0), "peers went down");
    assert!(sum(Scenario::Crash).all(|run| run.events[2] > 0), "peers came in new lives");
    assert!(sum(Scenario::Twins).all(|run| run.counts.2.duplicate_host > 0));
    assert!(sum(Scenario::Mtu).all(|run| run.counts.0.incomplete + run.counts.0.lost > 0 && run.events[1] == 0));
    assert!(sum(Scenario::Clocks).all(|run| run.events[1] == 0 && run.counts.0.late == 0), "as if clocks agreed");
    assert!(sum(Scenario::Forge).all(|run| run.counts.0.malformed > 0 && run.counts.0.unknown > 0));
    assert!(sum(Scenario::Forge).all(|run| run.counts.0.no_listener > 0 && run.counts.2.resyncs > 0));
    assert!(sum(Scenario::Flood).all(|run| run.counts.0.overlay_dropped > 0));
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let (one, two) = (outcome(5, Scenario::Storm, None), outcome(5, Scenario::Storm, None));
    assert_eq!((one.totals, one.counts, one.events), (two.totals, two.counts, two.events));
    assert_ne!(one.totals, outcome(6, Scenario::Storm, None).totals);
}

/// With something wrong on purpose, the first rule that is broken.
fn first_broken(scenario: Scenario, defect: Defect) -> Option<(Rule, usize)> {
    (0..3).find_map(|seed| {
        let outcome = outcome(seed, scenario, Some(defect));
        outcome.violations.first().map(|first| (first.rule, outcome.trace.len()))
    })
}

#[test]
fn each_checker_fails_where_it_should() {
    for (defect, scenario, rule) in [
        (Defect::Unasked, Scenario::Calm, Rule::Interest),
        (Defect::Late, Scenario::Weather, Rule::Order),
        (Defect::Twice, Scenario::Weather, Rule::Duplicates),
        (Defect::Torn, Scenario::Calm, Rule::Content),
        (Defect::Kept, Scenario::Weather, Rule::Leaks),
        (Defect::Unbounded, Scenario::Flood, Rule::Bounds),
        (Defect::Deaf, Scenario::Calm, Rule::Convergence),
        (Defect::Swallowed, Scenario::Calm, Rule::Complete),
    ] {
        let Some((broken, lines)) = first_broken(scenario, defect) else { panic!("{defect:?} is not noticed") };
        assert_eq!(broken, rule, "{defect:?}");
        assert!(lines > 0, "{defect:?}: what happened before is told");
    }
    // Who is of another domain has no sink either: the second rule is broken beside it.
    let leaky = outcome(1, Scenario::Calm, Some(Defect::Leaky));
    assert!(leaky.violations.iter().any(|violation| violation.rule == Rule::Domain));
}
