//! Applications that are killed in the middle of everything.

use crate::world::{Daemon, Helper, Noise, OPEN, Pair, Place, until};
use std::time::Duration;

const KILLS: usize = 200;
/// Victims at a time: also joined to each other.
const AT_A_TIME: usize = 8;

#[test]
fn two_hundred_killed_clients_cost_nobody_a_message_and_leak_nothing() {
    let place = Place::new("crashes");
    let mut daemon = Daemon::start(&place, OPEN, "log: (level: error)");
    let mut pair = Pair::start(&daemon, "direct,isolated");
    let (before, report) = (daemon.footprint(), daemon.status());
    let mut noise = Noise(4);
    let mut killed = 0;
    while killed < KILLS {
        let seeds: Vec<String> = (0..AT_A_TIME).map(|at| (killed + at).to_string()).collect();
        let mut victims: Vec<Helper> =
            seeds.iter().map(|seed| Helper::start("victim", daemon.socket(), &[("INSANED_SEED", seed)])).collect();
        // Most are at work, some are still attaching.
        for victim in victims.iter_mut().take(AT_A_TIME / 2) {
            victim.hear("ready");
        }
        for victim in &mut victims {
            std::thread::sleep(Duration::from_millis(noise.below(12)));
            assert!(victim.is_alive(), "it ends by being killed, not by itself");
            victim.kill();
            killed += 1;
        }
        assert!(pair.is_alive() && daemon.is_alive(), "after {killed} kills");
    }
    // The observer itself is a session, in both reports.
    until("the tables are as before", || {
        let now = daemon.status();
        let used = |report: &insane_wire::status::StatusReport| {
            let quotas = report.domains[0].quotas.iter();
            quotas.map(|(name, usage)| (name.clone(), usage.used)).collect::<Vec<_>>()
        };
        now.memory.regions == report.memory.regions
            && now.memory.used_bytes == report.memory.used_bytes
            && now.domains[0].sessions.len() == report.domains[0].sessions.len()
            && used(&now) == used(&report)
    });
    daemon.returns_to(before);
    assert!(daemon.status().domains[0].counters["messages_from_sources"] > 1000, "there was load");
    // Says that every buffer has come back, too.
    let carried = pair.finish();
    assert!(carried.iter().all(|count| *count > 1000), "{carried:?}");
}
