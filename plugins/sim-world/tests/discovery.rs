//! Hosts that find each other, small enough for every build. At full size: `cargo xtask sim`.
#![forbid(unsafe_code)]

use insane_sim_world::discovery::{DiscoveryConfig, run};

fn config(seed: u64, hosts: usize) -> DiscoveryConfig {
    DiscoveryConfig { seed, hosts, never_heals: false }
}

#[test]
fn hosts_find_lose_and_find_each_other_through_partition_restart_and_forgery() {
    // Of a cell and a part of another one.
    let outcome = run(config(1, 56), false);
    assert_eq!(outcome.violations, Vec::<String>::new());
    let [added, moved, removed] = outcome.changes;
    assert!(added > 50 * 49 && moved > 0 && removed > 56, "{outcome:?}");
    for reason in ["malformed", "outside", "own_host", "twin_host", "address_taken"] {
        assert!(outcome.refused[reason] > 0, "{reason}: {outcome:?}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again_and_the_checker_fails_where_it_should() {
    assert_eq!(run(config(2, 12), false), run(config(2, 12), false));
    let apart = run(DiscoveryConfig { never_heals: true, ..config(2, 12) }, false);
    assert!(apart.violations.iter().any(|fault| fault.contains("it was whole again")), "{:?}", apart.violations);
}
