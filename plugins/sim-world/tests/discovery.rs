//! Hosts that find each other, small enough for every build. At full size: `cargo xtask sim`.
#![forbid(unsafe_code)]

use insane_sim_world::discovery::{DiscoveryConfig, run};

fn config(seed: u64) -> DiscoveryConfig {
    DiscoveryConfig { seed, hosts: 60, never_heals: false }
}

#[test]
fn hosts_find_lose_and_find_each_other_through_partition_restart_and_forgery() {
    for seed in 0..3 {
        let outcome = run(config(seed), false);
        assert_eq!(outcome.violations, Vec::<String>::new(), "seed {seed}");
        let [added, moved, removed] = outcome.changes;
        assert!(added > 60 * 8 && moved > 0 && removed > 60, "{outcome:?}");
        for reason in ["malformed", "outside", "own_host", "twin_host", "name_taken", "address_taken"] {
            assert!(outcome.refused[reason] > 0, "{reason}: {outcome:?}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_run_again_and_the_checker_fails_where_it_should() {
    assert_eq!(run(config(1), false), run(config(1), false));
    let apart = run(DiscoveryConfig { never_heals: true, ..config(1) }, false);
    assert!(apart.violations.iter().any(|fault| fault.contains("it was whole again")), "{:?}", apart.violations);
}
