//! Fleets small enough for every build: all is accounted for, a seed gives the same run
//! again, and a frame that nobody sent is noticed. A million messages go through in the
//! check's step `sim`.
#![forbid(unsafe_code)]

use insane_sim_world::fleet::{FleetConfig, Outcome, run};
use insane_sim_world::ledger::Rule;

fn fleet(seed: u64, messages: u64, reliable: bool) -> Outcome {
    run(FleetConfig { seed, hosts: 5, messages, reliable, stray: false }, false)
}

#[test]
fn every_message_is_delivered_or_counted_where_it_was_dropped() {
    let (mut full, mut downs) = (0, 0);
    for seed in 0..2 {
        let outcome = fleet(seed, 15_000, false);
        let again = format!("cargo xtask sim --seed {seed} --scenario fleet");
        assert_eq!(outcome.violations, [], "{again}\n{}", outcome.trace.join("\n"));
        let count = |domain: usize, name| outcome.counters[domain].get(name).copied().unwrap_or(0);
        for domain in [0, 1] {
            for counter in ["lost", "dropped_duplicate", "dropped_late", "messages_to_sinks"] {
                assert!(count(domain, counter) > 0, "{again}: {counter} of domain {domain}");
            }
        }
        assert!(count(1, "dropped_incomplete") > 0 && outcome.network.0 > 0 && outcome.network.1 > 0, "{again}");
        full += count(0, "dropped_ring_full") + count(1, "dropped_ring_full");
        downs += outcome.downs;
    }
    assert!(full > 0 && downs > 0, "rings were full {full} times, peers went down {downs} times");
}

/// A partition for which membership takes a peer for dead: it is told its gap all the same.
#[test]
fn reliable_streams_arrive_once_in_order_or_tell_their_gap() {
    let mut downs = 0;
    for seed in 0..2 {
        let outcome = fleet(seed, 3_000, true);
        let again = format!("cargo xtask sim --seed {seed} --scenario reliable");
        assert_eq!(outcome.violations, [], "{again}\n{}", outcome.trace.join("\n"));
        assert!(outcome.counters[0].get("repairs").is_some_and(|repairs| *repairs > 0), "{again}");
        downs += outcome.downs;
    }
    assert!(downs > 0, "no partition was long enough");
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let (one, two) = (fleet(3, 5_000, false), fleet(3, 5_000, false));
    assert_eq!((one.totals, one.counters, one.network), (two.totals, two.counters, two.network));
}

#[test]
fn a_frame_that_nobody_sent_is_noticed() {
    let outcome = run(FleetConfig { seed: 1, hosts: 3, messages: 500, reliable: false, stray: true }, false);
    assert!(outcome.violations.iter().any(|violation| violation.rule == Rule::Accounts));
}
