//! What links with a budget of bandwidth may carry of best effort (ADR 0059).
//!
//! A best-effort stream sends what it likes; what it counts as in the budget bounds nothing. So a
//! datapath holds all best effort of such a link together to what time-sensitive streams leave
//! of its budget: premium streams go first there, as in any lane, and who waits does so in its
//! ring.

use crate::hub::view::FlowView;
use crate::policy::{World, links};
use insane_config::Plan;
use insane_core::Nanos;
use insane_policy::Request;
use insane_policy::budget::LinkKey;
use insane_scheduler::Policing;
use std::num::NonZeroU64;

/// Of the budget, what best effort has at least: one in so many parts. Time-sensitive streams that
/// were moved there by hand, or have slots there, may fill it; nobody is to stand still for ever.
const LEAST_PART: u64 = 20;
/// The same of a budget of nothing, bits a second: as little as a session's may be.
const LEAST_BITS: u64 = 8_000;

/// What may go at once after a rest: as much as in this time.
const BURST: Nanos = Nanos::from_millis(1);

/// Whether the plan bounds the bandwidth of any link.
pub(crate) fn has_any(plan: &Plan) -> bool {
    plan.policy.budgets.iter().any(|budget| budget.mbps.is_some())
}

/// The budget of bandwidth of a link, bits a second; `None`: it has none.
pub(crate) fn budget_bits_per_s(key: LinkKey, plan: &Plan) -> Option<u64> {
    let (_, link) = links(plan).find(|(other, _)| *other == key)?;
    let mbps = plan.policy.budgets.iter().find(|budget| budget.link == link.name)?.mbps?;
    Some(u64::from(mbps) * 1_000_000)
}

/// What all best effort of a link together may send, bits a second; `None`: no bound.
/// Looks at all flows: once for each link, and not for each flow.
pub(crate) fn best_effort_bits_per_s(key: LinkKey, world: &World<'_>) -> Option<u64> {
    let budget = budget_bits_per_s(key, world.plan)?;
    let goes_there = |flow: &&FlowView<'_>| flow.datapath == Some(key.0);
    let timed = world.flows.iter().filter(goes_there).map(|flow| {
        let request = Request::new(flow.qos);
        let by_it = |peer| (world.used)(flow.key, peer, key.0).is_some_and(|(used, _)| used == key.1.index());
        let peers = flow.peers.iter().filter(|peer| request.is_time_sensitive() && by_it(**peer)).count() as u64;
        request.need(0).bits_per_s.saturating_mul(peers)
    });
    let taken = timed.fold(0, u64::saturating_add);
    Some(budget.saturating_sub(taken).max(budget / LEAST_PART).max(LEAST_BITS))
}

/// The same of every link, as datapaths have it.
pub(crate) fn of_links(world: &World<'_>) -> Vec<(LinkKey, Option<Policing>)> {
    let policing = |key| {
        let rate = NonZeroU64::new(best_effort_bits_per_s(key, world)? / 8)?;
        let burst = rate.get().saturating_mul(BURST.0) / 1_000_000_000;
        Some(Policing { rate_bytes_per_s: rate, burst_bytes: u32::try_from(burst).unwrap_or(u32::MAX) })
    };
    links(world.plan).map(|(key, _)| (key, policing(key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::Way;
    use crate::roster::Roster;
    use insane_config::{Machine, parse};
    use insane_core::{DatapathIndex, Determinism, DomainIndex, LinkIndex, PeerIndex, Qos, StreamKey};
    use std::collections::BTreeSet;

    const CONFIG: &str = r#"(
        links: [
            (name: "plant", technology: udp(bind: "192.0.2.1:7400")),
            (name: "fast", technology: udp(bind: "192.0.2.9:7400")),
            (name: "office", technology: udp(bind: "192.0.2.9:7500")),
        ],
        datapaths: [(name: "main", links: ["plant", "fast", "office"], unscheduled: allow)],
        policy: (budgets: {"fast": (mbps: 10), "plant": (streams: 3), "office": (mbps: 1)}),
    )"#;

    /// Period, us, and size, bytes, if it has a time.
    type Timed = Option<(u64, u32)>;

    /// What each link lets go of best effort, kbit/s, with these streams, and the link by which they go to each of two peers.
    fn held_to(text: &str, streams: &[(Timed, [usize; 2])]) -> Vec<Option<u64>> {
        let plan = parse("host.ron", text, &Machine::unknown()).unwrap_or_else(|why| panic!("{why}")).plan;
        let roster = Roster::new(&plan);
        let view = |(at, (timed, _)): (usize, &(Timed, _))| FlowView {
            key: StreamKey(at as u64),
            domain: DomainIndex(0),
            name: "s",
            qos: Qos {
                determinism: timed
                    .map_or(Determinism::BestEffort, |(us, size)| Determinism::periodic(Nanos::from_micros(us), size)),
                ..Qos::default()
            },
            datapath: Some(DatapathIndex(0)),
            peers: BTreeSet::from([PeerIndex(0), PeerIndex(1)]),
        };
        let flows: Vec<FlowView<'_>> = streams.iter().enumerate().map(view).collect();
        let used = |key: StreamKey, peer: PeerIndex, _| Some((streams[key.0 as usize].1[peer.index()], Way::Usual));
        let world = World { plan: &plan, roster: &roster, flows: &flows, health: &|_, _| None, used: &used };
        let links = (0..3).map(|link| (DatapathIndex(0), LinkIndex(link)));
        let held = links.map(|key| best_effort_bits_per_s(key, &world)).collect::<Vec<_>>();
        let told = of_links(&world).into_iter().map(|(_, most)| most.map(|most| most.rate_bytes_per_s.get() * 8));
        assert_eq!(told.collect::<Vec<_>>(), held);
        held.into_iter().map(|bits| bits.map(|bits| bits / 1_000)).collect()
    }

    #[test]
    fn best_effort_has_what_those_with_a_time_leave_where_they_go() {
        // 100 bytes a millisecond are 800 kbit/s for each peer.
        let timed = Some((1_000, 100));
        assert_eq!(held_to(CONFIG, &[]), [None, Some(10_000), Some(1_000)]);
        assert_eq!(held_to(CONFIG, &[(None, [1, 1]), (timed, [0, 0])]), [None, Some(10_000), Some(1_000)]);
        assert_eq!(held_to(CONFIG, &[(None, [1, 1]), (timed, [0, 1])]), [None, Some(9_200), Some(1_000)]);
        assert_eq!(held_to(CONFIG, &[(timed, [1, 1]), (timed, [1, 1])]), [None, Some(6_800), Some(1_000)]);
        // Whatever is there, something goes.
        assert_eq!(held_to(CONFIG, &[(Some((1, 10_000)), [1, 1])]), [None, Some(500), Some(1_000)]);
        let nothing = CONFIG.replace("\"fast\": (mbps: 10)", "\"fast\": (mbps: 0)");
        assert_eq!(held_to(&nothing, &[(None, [1, 1])]), [None, Some(8), Some(1_000)]);
        let free = CONFIG.replace("\"fast\": (mbps: 10), ", "").replace("\"office\": (mbps: 1)", "");
        assert_eq!(held_to(&free, &[(timed, [1, 1])]), [None; 3]);
    }
}
