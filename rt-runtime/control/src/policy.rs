//! The policy of this runtime: which link each stream is to take to each peer.
//!
//! [`insane_policy`] decides; here its arguments are gathered from the plan, the roster and
//! what the overlay hears, and its answers are kept. A *flow* is a stream that has a source
//! here, and a peer that has a sink of it.
//!
//! What is decided is carried out by the hub ([`Hub::choose`](crate::hub::Hub::choose)), which
//! moves the streams. What goes before it (slots, moves by hand) and what is still under way
//! stands in reports beside it.
//!
//! Bounds: [`FLOWS_MAX`] flows.

use crate::hub::Way;
use crate::hub::view::FlowView;
use crate::paces;
use crate::report::{Scope, hex_of_key};
use crate::roster::{Entry, Roster};
use insane_config::{DatapathPlan, Plan};
use insane_core::limits::LINKS_MAX;
use insane_core::{DatapathIndex, DomainIndex, LinkIndex, MonoTime, PeerIndex, StreamKey};
use insane_policy::budget::{Account, Cause, Claimed, LinkKey, Wishes};
use insane_policy::health::{Health, Tracker};
use insane_policy::reason::Bits;
use insane_policy::report::{BudgetReport, FlowReport, PolicyReport, RankedReport};
use insane_policy::{Amount, Offer, Ranking, Reason, Request, Technology, Verdict, rank};
use std::collections::BTreeMap;
use tracing::debug;

/// Flows whose use of budgets is counted. Others use links that are not bounded.
const FLOWS_MAX: usize = 4096;

/// A stream and a peer.
type Flow = (StreamKey, PeerIndex);

/// What the policy looks at.
pub(crate) struct World<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) roster: &'a Roster,
    pub(crate) flows: &'a [FlowView<'a>],
    /// How a link to a peer is; `None`: the peer has no address there.
    pub(crate) health: &'a dyn Fn(PeerIndex, LinkKey) -> Option<Tracker>,
    /// By which link of a datapath a stream goes to a peer, and why.
    pub(crate) used: &'a dyn Fn(StreamKey, PeerIndex, DatapathIndex) -> Option<(usize, Way)>,
}

/// What was last decided of a flow.
#[derive(Clone, Copy, Debug)]
struct Decision {
    link: Option<LinkKey>,
    since: MonoTime,
    cause: Option<Cause<Flow>>,
}

/// What one report says of links with a budget of bandwidth, found once for all its flows.
struct Paces {
    /// Whether the reader may see what others take.
    sees_all: bool,
    /// What all best effort of a link is held to, bits a second; for who does not see all, the
    /// budget, which is not told.
    of_links: BTreeMap<LinkKey, u64>,
}

impl Paces {
    fn new(sees_all: bool, world: &World<'_>) -> Self {
        let pace = |key| match sees_all {
            true => paces::best_effort_bits_per_s(key, world),
            false => paces::budget_bits_per_s(key, world.plan),
        };
        Paces { sees_all, of_links: links(world.plan).filter_map(|(key, _)| Some((key, pace(key)?))).collect() }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Policy {
    account: Account<Flow>,
    decisions: BTreeMap<Flow, Decision>,
    bounded: Vec<LinkKey>,
}

impl Policy {
    pub(crate) fn new() -> Self {
        Policy { account: Account::new(FLOWS_MAX), decisions: BTreeMap::new(), bounded: Vec::new() }
    }

    /// Looks at everything anew, and decides.
    pub(crate) fn tend(&mut self, now: MonoTime, world: &World<'_>) {
        self.set_budgets(world.plan);
        let flows = || world.flows.iter().flat_map(|flow| flow.peers.iter().map(move |peer| (flow, *peer)));
        let there: std::collections::BTreeSet<Flow> = flows().map(|(flow, peer)| (flow.key, peer)).collect();
        self.account.retain(|flow| there.contains(flow));
        self.decisions.retain(|flow, _| there.contains(flow));
        for (flow, peer) in flows() {
            self.claim(now, world, flow, peer);
        }
        self.account.settle();
        while let Some(step) = self.account.next_move() {
            debug!(stream = %step.claim.0, peer = %step.claim.1, ?step.from, ?step.to, ?step.cause, "the policy's choice");
            self.decisions.insert(step.claim, Decision { link: step.to, since: now, cause: Some(step.cause) });
        }
    }

    fn set_budgets(&mut self, plan: &Plan) {
        let limit = |name: &str| plan.policy.budgets.iter().find(|budget| budget.link == name).map(|of| of.amount());
        self.bounded.clear();
        for (key, link) in links(plan) {
            let limit = limit(&link.name);
            self.account.set_limit(key, limit);
            self.bounded.extend(limit.map(|_| key));
        }
    }

    fn claim(&mut self, now: MonoTime, world: &World<'_>, flow: &FlowView<'_>, peer: PeerIndex) {
        let key = (flow.key, peer);
        let request = Request::new(flow.qos);
        let Some(datapath) = flow.datapath else { return };
        // What of a budget is free, the account decides.
        let offers = self.offers(world, flow, peer, false);
        let ranking = ranked(world.plan, &request, &offers);
        let wishes: Wishes = ranking.usable().map(|at| (datapath, LinkIndex(at as u8))).collect();
        let need = request.need(world.plan.policy.best_effort_bits_per_s());
        if self.account.claim(key, request.importance(), need, &wishes) == Claimed::Full {
            let link = wishes.iter().find(|link| !self.bounded.contains(link)).copied();
            let fresh = Decision { link, since: now, cause: None };
            let known = self.decisions.entry(key).or_insert(fresh);
            if known.link != link {
                *known = fresh;
            }
        }
    }

    /// What every link of a flow's datapath offers to it, in the order of the configuration.
    fn offers(&self, world: &World<'_>, flow: &FlowView<'_>, peer: PeerIndex, with_room: bool) -> Vec<Offer> {
        let Some(datapath) = flow.datapath else { return Vec::new() };
        let Some(plan) = world.plan.datapaths.get(datapath.index()) else { return Vec::new() };
        let entry = world.roster.get(peer);
        let importance = Request::new(flow.qos).importance();
        let offer = |(at, link): (usize, &insane_config::LinkPlan)| {
            let key = (datapath, LinkIndex(at as u8));
            let technology = Technology::from_name(link.technology.name()).unwrap_or(Technology::Sim);
            Offer {
                technology,
                reaches: entry.is_some_and(|entry| address(entry, key).is_some()),
                health: (world.health)(peer, key).map_or(Health::Unproven, |tracker| tracker.health()),
                takes_time_sensitive: takes_time_sensitive(plan),
                costs_kernel_traffic: puts_a_program_on_its_interface(&link.technology),
                room: if with_room { self.account.room(key, (flow.key, peer), importance) } else { None },
            }
        };
        plan.links.iter().take(LINKS_MAX).enumerate().map(offer).collect()
    }

    /// The link that a stream is to take to a peer; `None`: none can carry it, or nothing was
    /// decided yet, and it is best to stay where one is.
    pub(crate) fn link_for(&self, stream: StreamKey, peer: PeerIndex) -> Option<LinkKey> {
        self.decisions.get(&(stream, peer))?.link
    }

    /// Everything, for who may see it.
    pub(crate) fn report(&self, now: MonoTime, scope: Scope, world: &World<'_>) -> PolicyReport {
        let sees_all = (0..world.plan.domains.len()).all(|at| scope.shows(DomainIndex(at as u16)));
        let shown = world.flows.iter().filter(|flow| scope.shows(flow.domain));
        let flows = shown.flat_map(|flow| flow.peers.iter().map(move |peer| (flow, *peer)));
        let paces = Paces::new(sees_all, world);
        PolicyReport {
            flows: flows.map(|(flow, peer)| self.report_flow(now, &paces, world, flow, peer)).collect(),
            budgets: self.bounded.iter().filter_map(|key| self.report_budget(*key, &paces, world)).collect(),
        }
    }

    fn report_budget(&self, key: LinkKey, paces: &Paces, world: &World<'_>) -> Option<BudgetReport> {
        let sees_all = paces.sees_all;
        let (used, limit) = self.account.usage(key)?;
        Some(BudgetReport {
            link: link_name(world.plan, key)?,
            streams_used: sees_all.then_some(used.streams),
            streams_max: (limit.streams != Amount::UNBOUNDED.streams).then_some(limit.streams),
            bits_per_s_used: sees_all.then_some(used.bits_per_s),
            bits_per_s_max: (limit.bits_per_s != Amount::UNBOUNDED.bits_per_s).then_some(limit.bits_per_s),
            best_effort_bits_per_s: paces.of_links.get(&key).copied().filter(|_| sees_all),
        })
    }

    fn report_flow(
        &self,
        now: MonoTime,
        paces: &Paces,
        world: &World<'_>,
        flow: &FlowView<'_>,
        peer: PeerIndex,
    ) -> FlowReport {
        let sees_all = paces.sees_all;
        let request = Request::new(flow.qos);
        let offers = self.offers(world, flow, peer, true);
        let ranking = ranked(world.plan, &request, &offers);
        let datapath = flow.datapath.unwrap_or_default();
        let name = |at: usize| link_name(world.plan, (datapath, LinkIndex(at as u8)));
        let limits = world.plan.policy.limits();
        let held = |at: usize| (world.health)(peer, (datapath, LinkIndex(at as u8)))?.held_for(now, &limits);
        let decision = self.decisions.get(&(flow.key, peer));
        let takes = self.link_for(flow.key, peer);
        let mut without = offers.clone();
        if let Some(offer) = takes.and_then(|(_, link)| without.get_mut(link.index())) {
            offer.health = Health::Failed;
        }
        let need = request.need(world.plan.policy.best_effort_bits_per_s());
        let used = (world.used)(flow.key, peer, datapath);
        let rule = &world.plan.policy.rules.all()[ranking.rule];
        FlowReport {
            domain: world.plan.domains[flow.domain.index()].name.clone(),
            stream: flow.name.to_owned(),
            peer: world.roster.get(peer).map_or_else(String::new, |entry| entry.name.clone()),
            rule: format!("rule {}, for {}", ranking.rule + 1, rule.when),
            links: ranking
                .verdicts
                .iter()
                .map(|verdict| RankedReport {
                    link: name(verdict.offer).unwrap_or_default(),
                    held_ms: held(verdict.offer).map(|held| held.0.div_ceil(1_000_000)),
                    ..report_link(verdict, &offers[verdict.offer], sees_all)
                })
                .collect(),
            takes: takes.and_then(|key| link_name(world.plan, key)),
            takes_s: decision.map_or(0.0, |decision| now.since(decision.since).0 as f64 / 1e9),
            because: self.because(decision, sees_all, world),
            fallback: ranked(world.plan, &request, &without).first().and_then(name),
            need: format!("1 stream, {}", Bits(need.bits_per_s)),
            used: used.and_then(|(link, _)| name(link)),
            used_because: used_because(used, takes.filter(|(at, _)| *at == datapath).map(|(_, link)| link.index()))
                .to_owned()
                + &held_to(used, flow, paces),
        }
    }

    /// Why a flow has the link it has.
    fn because(&self, decision: Option<&Decision>, sees_all: bool, world: &World<'_>) -> String {
        let Some(decision) = decision else { return "nothing was decided yet".to_owned() };
        match decision.cause {
            None => format!("more than {FLOWS_MAX} flows are counted: it has no part in budgets"),
            Some(Cause::New) => "it is the first of its wishes that had room when it came".to_owned(),
            Some(Cause::Wishes) => {
                "its order of the links changed: by its quality of service, an address, or the health of a link"
                    .to_owned()
            }
            Some(Cause::NoRoom) => "the budget of the link it had does not hold it any more".to_owned(),
            Some(Cause::Room) => "room became free".to_owned(),
            Some(Cause::Displaced((key, peer))) if sees_all => {
                let stream = world.flows.iter().find(|flow| flow.key == key);
                let stream = stream.map_or_else(|| hex_of_key(key), |flow| format!("\"{}\"", flow.name));
                let peer = world.roster.get(peer).map_or("?", |entry| entry.name.as_str());
                format!("it gave way to stream {stream} to peer {peer}, which goes first")
            }
            Some(Cause::Displaced(_)) => "it gave way to a stream that goes first".to_owned(),
        }
    }
}

/// Why a flow goes by the link that it really goes by.
fn used_because(used: Option<(usize, Way)>, chosen: Option<usize>) -> &'static str {
    match used {
        None => "no link of its datapath has an address of the peer",
        Some((_, Way::Tied)) => "it has slots there",
        Some((_, Way::Alternate)) => "it has slots there, for which it holds an alternate certificate",
        Some((_, Way::Stays)) => "it has slots there, and holds no certificate for another link that works: it stays",
        Some((_, Way::Degraded)) => "the link of its slots has failed: it goes without, as all else to that peer",
        Some((_, Way::Placed)) => "it was moved there by hand",
        Some((link, _)) if Some(link) == chosen => "it is the policy's choice",
        Some(_) if chosen.is_none() => "it stays where it was: the policy has nothing better for it",
        Some(_) => "its move to the policy's choice is under way, or that link has just failed",
    }
}

/// To what best effort by that link is held.
fn held_to(used: Option<(usize, Way)>, flow: &FlowView<'_>, paces: &Paces) -> String {
    let key = flow.datapath.zip(used).map(|(at, (link, _))| (at, LinkIndex(link as u8)));
    let most = key.filter(|_| !Request::new(flow.qos).is_time_sensitive());
    match most.and_then(|key| paces.of_links.get(&key)) {
        None => String::new(),
        Some(_) if !paces.sees_all => "; all best effort there is held to what is left of the link's budget".to_owned(),
        Some(bits) => {
            format!("; all best effort there together is held to {}, what is left of its budget", Bits(*bits))
        }
    }
}

fn ranked(plan: &Plan, request: &Request, offers: &[Offer]) -> Ranking {
    rank(request, offers, &plan.policy.rules, plan.policy.best_effort_bits_per_s())
}

/// A link in the order of a flow; its name and what time does to it are the caller's.
fn report_link(verdict: &Verdict, offer: &Offer, sees_all: bool) -> RankedReport {
    let words = |reason: &Reason| match reason {
        // How much others take is not for who may not see them.
        Reason::NoBandwidthFree { .. } if !sees_all => "its budget of bandwidth has no room for it".to_owned(),
        reason => reason.to_string(),
    };
    RankedReport {
        technology: offer.technology.name().to_owned(),
        place: verdict.place.map(|place| place + 1),
        health: offer.health.name().to_owned(),
        reasons: verdict.reasons.iter().map(words).collect(),
        ..RankedReport::default()
    }
}

/// Whether a program of XDP is on an interface of the kernel's while the link is there.
fn puts_a_program_on_its_interface(technology: &insane_config::Technology) -> bool {
    match technology {
        insane_config::Technology::Xdp(_) => true,
        insane_config::Technology::Dpdk(dpdk) => dpdk.device.is_af_xdp(),
        _ => false,
    }
}

/// Slots, or the configuration does without: the rule of admission (`plan_spec`, `hub::slots`).
fn takes_time_sensitive(datapath: &DatapathPlan) -> bool {
    datapath.allows_unscheduled || datapath.links.iter().all(|link| link.rate.is_some())
}

fn address(entry: &Entry, (datapath, link): LinkKey) -> Option<std::net::SocketAddr> {
    *entry.addresses.get(datapath.index())?.get(link.index())?
}

pub(crate) fn links(plan: &Plan) -> impl Iterator<Item = (LinkKey, &insane_config::LinkPlan)> {
    plan.datapaths.iter().enumerate().flat_map(|(at, datapath)| {
        let key = move |link: usize| (DatapathIndex(at as u8), LinkIndex(link as u8));
        datapath.links.iter().enumerate().map(move |(link, plan)| (key(link), plan))
    })
}

fn link_name(plan: &Plan, (datapath, link): LinkKey) -> Option<String> {
    Some(plan.datapaths.get(datapath.index())?.links.get(link.index())?.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_config::{Machine, parse};
    use insane_core::{Consumption, Datapath, Determinism, Nanos, Priority, Qos, Reliability};
    use insane_policy::health::Signal;
    use std::collections::BTreeSet;

    const CONFIG: &str = r#"(
        links: [
            (name: "office", technology: tcp(bind: "192.0.2.1:7500")),
            (name: "plant", technology: udp(bind: "192.0.2.1:7400")),
            (name: "fast", technology: xdp(interface: "eth0", bind: "192.0.2.9:7400")),
        ],
        datapaths: [(name: "main", links: ["office", "plant", "fast"], unscheduled: allow)],
        peers: [
            (name: "b", links: {"office": "192.0.2.2:7500", "plant": "192.0.2.2:7400", "fast": "192.0.2.8:7400"}),
            (name: "c", links: {"plant": "192.0.2.3:7400"}),
        ],
        policy: (budgets: {"fast": (streams: 1, mbps: 10)}, best_effort_kbps: 1000),
        domains: [(name: "line", members: [any]), (name: "other", members: [any])],
    )"#;

    /// A host whose heartbeats are whatever a test says.
    struct Host {
        plan: Plan,
        roster: Roster,
        policy: Policy,
        flows: Vec<(u64, &'static str, Qos, BTreeSet<PeerIndex>)>,
        signals: BTreeMap<(PeerIndex, LinkKey), Signal>,
        trackers: BTreeMap<(PeerIndex, LinkKey), Tracker>,
        now: MonoTime,
        /// The link by which all flows go.
        by: usize,
        /// How often somebody asked for that.
        asked: std::cell::Cell<u32>,
    }

    impl Host {
        fn new() -> Self {
            let plan = parse("host.ron", CONFIG, &Machine::unknown()).unwrap_or_else(|why| panic!("{why}")).plan;
            let roster = Roster::new(&plan);
            let (policy, now) = (Policy::new(), MonoTime(0));
            let (flows, signals, trackers) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
            let (by, asked) = (0, std::cell::Cell::new(0));
            let mut host = Host { plan, roster, policy, flows, signals, trackers, now, by, asked };
            for link in 0..3 {
                host.hear(0, link, Signal::Heard);
            }
            host.hear(1, 1, Signal::Heard);
            host
        }

        fn hear(&mut self, peer: u16, link: u8, signal: Signal) {
            self.signals.insert((PeerIndex(peer), (DatapathIndex(0), LinkIndex(link))), signal);
        }

        fn open(&mut self, key: u64, name: &'static str, qos: Qos, peers: &[u16]) {
            self.flows.push((key, name, qos, peers.iter().copied().map(PeerIndex).collect()));
        }

        fn with<R>(&mut self, with: impl FnOnce(&mut Policy, MonoTime, &World<'_>) -> R) -> R {
            let view = |(key, name, qos, peers): &(u64, &'static str, Qos, BTreeSet<PeerIndex>)| FlowView {
                key: StreamKey(*key),
                domain: DomainIndex((*key % 2) as u16),
                name,
                qos: *qos,
                datapath: Some(DatapathIndex(0)),
                peers: peers.clone(),
            };
            let flows: Vec<FlowView<'_>> = self.flows.iter().map(view).collect();
            let health = |peer: PeerIndex, link: LinkKey| self.trackers.get(&(peer, link)).copied();
            let used = |_, _, _| {
                self.asked.set(self.asked.get() + 1);
                Some((self.by, Way::Usual))
            };
            let world = World { plan: &self.plan, roster: &self.roster, flows: &flows, health: &health, used: &used };
            with(&mut self.policy, self.now, &world)
        }

        /// The link of each flow after so much time, in which one looks every 100 ms.
        fn after(&mut self, millis: u64) -> Vec<Option<u8>> {
            for _ in 0..millis / 100 {
                self.now += Nanos::from_millis(100);
                for (link, signal) in &self.signals {
                    let tracker = self.trackers.entry(*link).or_insert(Tracker::new(self.now));
                    let _ = tracker.observe(self.now, *signal, &self.plan.policy.limits());
                }
                self.with(|policy, now, world| policy.tend(now, world));
            }
            let flows = self.flows.iter().flat_map(|(key, _, _, peers)| peers.iter().map(move |peer| (*key, *peer)));
            flows.map(|(key, peer)| self.policy.link_for(StreamKey(key), peer).map(|(_, link)| link.0)).collect()
        }

        fn report(&mut self, scope: Scope) -> PolicyReport {
            self.with(|policy, now, world| policy.report(now, scope, world))
        }
    }

    fn fast(priority: u8) -> Qos {
        Qos { datapath: Datapath::Fast, priority: Priority::new(priority).unwrap(), ..Qos::default() }
    }

    #[test]
    fn each_flow_has_the_best_link_for_what_it_asks_and_nobody_gets_what_its_peer_lacks() {
        let mut host = Host::new();
        host.open(2, "logs", Qos::default(), &[0, 1]);
        host.open(4, "axis", fast(5), &[0, 1]);
        assert_eq!(host.after(100), [Some(1), Some(1), Some(2), Some(1)]);
        let report = host.report(Scope::All);
        let axis = report.flows.iter().find(|flow| flow.stream == "axis" && flow.peer == "b").unwrap();
        assert_eq!(axis.takes.as_deref(), Some("fast"));
        assert_eq!(axis.fallback.as_deref(), Some("plant"));
        assert_eq!(axis.used.as_deref(), Some("office"));
        assert!(axis.used_because.contains("under way"), "{}", axis.used_because);
        let names: Vec<_> = axis.links.iter().map(|row| (row.place, row.link.as_str())).collect();
        assert_eq!(names, [(Some(1), "fast"), (Some(2), "plant"), (Some(3), "office")]);
        let to_c = report.flows.iter().find(|flow| flow.stream == "axis" && flow.peer == "c").unwrap();
        let office = to_c.links.iter().find(|row| row.link == "office").unwrap();
        assert_eq!((office.place, &office.reasons[0][..]), (None, "the peer has no address on it"));
        assert_eq!((to_c.takes.as_deref(), to_c.fallback.as_deref()), (Some("plant"), None));
    }

    #[test]
    fn what_costs_others_is_spared_by_whatever_program_it_does_so() {
        let in_place_of_fast = |technology: &str| {
            let mut host = Host::new();
            let text = CONFIG.replace("xdp(interface: \"eth0\", bind: \"192.0.2.9:7400\")", technology);
            host.plan = parse("host.ron", &text, &Machine::unknown()).unwrap_or_else(|why| panic!("{why}")).plan;
            host.open(2, "logs", Qos::default(), &[0]);
            host.after(100);
            let mut links = host.report(Scope::All).flows.remove(0).links;
            let place = links.iter().position(|row| row.link == "fast").unwrap();
            links.swap_remove(place).reasons
        };
        let avoided = Reason::CostAvoided.to_string();
        for (device, costs) in [("net_af_xdp0,iface=eth0", true), ("net_af_packet0,iface=eth0", false)] {
            let reasons = in_place_of_fast(&format!("dpdk(device: \"{device}\", bind: \"192.0.2.9:7400\")"));
            assert_eq!(reasons.contains(&avoided), costs, "{device}: {reasons:?}");
        }
    }

    /// A rule that no stream has is a promise to nobody.
    #[test]
    fn each_rule_is_somebodys() {
        let mut host = Host::new();
        for bits in 0..16_u64 {
            let is = |bit: u64| bits & (1 << bit) != 0;
            let qos = Qos {
                datapath: if is(0) { Datapath::Fast } else { Datapath::Standard },
                reliability: if is(1) { Reliability::Reliable } else { Reliability::Unreliable },
                consumption: if is(2) { Consumption::Poll } else { Consumption::Low },
                determinism: if is(3) {
                    Determinism::periodic(Nanos::from_millis(1), 1 << 20)
                } else {
                    Determinism::BestEffort
                },
                ..Qos::default()
            };
            host.open(bits, "s", qos, &[0]);
        }
        host.after(100);
        let used: BTreeSet<String> = host.report(Scope::All).flows.into_iter().map(|flow| flow.rule).collect();
        assert_eq!(used.len(), host.plan.policy.rules.all().len(), "{used:?}");
    }

    #[test]
    fn what_is_used_has_its_reason() {
        let because = |used, chosen| used_because(used, chosen);
        assert!(because(Some((1, Way::Tied)), Some(0)).contains("slots"));
        assert!(because(Some((1, Way::Placed)), Some(1)).contains("by hand"));
        assert_eq!(because(Some((1, Way::Chosen)), Some(1)), "it is the policy's choice");
        assert_eq!(because(Some((0, Way::Usual)), Some(0)), "it is the policy's choice");
        assert!(because(Some((0, Way::Usual)), Some(1)).contains("under way"));
        assert!(because(Some((0, Way::Usual)), None).contains("nothing better"));
        assert!(because(None, None).contains("no link"));
    }

    #[test]
    fn what_best_effort_is_held_to_is_found_once_for_all_flows_of_a_report() {
        let asked = |count: u64, scope: Scope, told: &str| {
            let mut host = Host { by: 2, ..Host::new() };
            let timed = Qos { determinism: Determinism::periodic(Nanos::from_millis(1), 100), ..fast(0) };
            for number in 0..count {
                host.open(4 * number, "logs", Qos::default(), &[0]);
                host.open(4 * number + 2, "axis", timed, &[0]);
            }
            host.after(100);
            host.asked.set(0);
            let report = host.report(scope);
            for flow in report.flows {
                assert_eq!(flow.used_because.contains(told), flow.stream == "logs", "{}", flow.used_because);
            }
            host.asked.get()
        };
        // Each flow for its own row, and those with a time once more for the link.
        assert_eq!(asked(3, Scope::All, "held to 7600 kbit/s, what is left of its budget"), 3 * 3);
        assert_eq!(asked(6, Scope::All, "held to 5200 kbit/s, what is left of its budget"), 6 * 3);
        // Who does not see all is told no rate: nobody looks for it.
        assert_eq!(asked(6, Scope::Domain(DomainIndex(0)), "held to what is left of the link's budget"), 6 * 2);
    }

    #[test]
    fn who_comes_with_more_importance_displaces_and_the_displaced_say_so() {
        let mut host = Host::new();
        host.open(2, "video", fast(2), &[0]);
        assert_eq!(host.after(100), [Some(2)]);
        let timed = Qos { determinism: Determinism::periodic(Nanos::from_millis(1), 100), ..fast(0) };
        host.open(3, "axis", timed, &[0]);
        assert_eq!(host.after(100), [Some(1), Some(2)]);
        host.after(1_900);
        let report = host.report(Scope::All);
        assert_eq!(report.flows[0].because, "it gave way to stream \"axis\" to peer b, which goes first");
        assert!((report.flows[0].takes_s - 1.9).abs() < 0.01, "{}", report.flows[0].takes_s);
        let fast_row = report.flows[0].links.iter().find(|row| row.link == "fast").unwrap();
        assert_eq!(fast_row.place, None);
        assert!(fast_row.reasons[0].contains("budget of streams is used up"), "{fast_row:?}");
        let budget = BudgetReport {
            link: "fast".into(),
            streams_used: Some(1),
            streams_max: Some(1),
            bits_per_s_used: Some(800_000),
            bits_per_s_max: Some(10_000_000),
            // In these tests all streams still go by the first link.
            best_effort_bits_per_s: Some(10_000_000),
        };
        assert_eq!(report.budgets, [budget]);
        // Who sees one tenant only learns nothing of the other's streams.
        let report = host.report(Scope::Domain(DomainIndex(0)));
        assert_eq!(report.flows.len(), 1);
        assert_eq!(report.flows[0].because, "it gave way to a stream that goes first");
        assert_eq!((report.budgets[0].streams_used, report.budgets[0].streams_max), (None, Some(1)));
        // More bandwidth than the budget has.
        host.flows[1].2.determinism = Determinism::periodic(Nanos::from_millis(1), 1_251);
        assert_eq!(host.after(100), [Some(2), Some(1)]);
        assert_eq!(host.report(Scope::All).flows[0].because, "room became free");
        let axis = &host.report(Scope::All).flows[1];
        let fast_row = axis.links.iter().find(|row| row.link == "fast").unwrap();
        assert_eq!(fast_row.reasons[0], "its budget leaves 10 Mbit/s, and 10008 kbit/s are needed");
        host.flows[1].0 = 4;
        host.after(100);
        let axis = host.report(Scope::Domain(DomainIndex(0))).flows.remove(1);
        let fast_row = axis.links.iter().find(|row| row.link == "fast").unwrap();
        assert_eq!(fast_row.reasons[0], "its budget of bandwidth has no room for it");
        // Another file says otherwise.
        host.plan.policy.budgets.clear();
        assert_eq!(host.after(100), [Some(2), Some(2)]);
    }

    #[test]
    fn a_link_that_fails_is_left_at_once_and_returned_to_with_hysteresis() {
        let mut host = Host::new();
        host.open(2, "axis", fast(5), &[0]);
        assert_eq!(host.after(100), [Some(2)]);
        host.hear(0, 2, Signal::Silent);
        assert_eq!(host.after(100), [Some(1)]);
        host.hear(0, 2, Signal::Heard);
        assert_eq!(host.after(2_000), [Some(1)]);
        let row = host.report(Scope::All).flows[0].links.iter().find(|row| row.link == "fast").cloned().unwrap();
        assert_eq!((row.place, row.health.as_str(), row.held_ms), (Some(3), "held down", Some(100)));
        assert_eq!(host.after(100), [Some(2)]);
        // Flapping: it takes ever longer to return, so the changes are few.
        let mut changes = 0;
        for _ in 0..100 {
            host.hear(0, 2, Signal::Gone);
            let before = host.after(100);
            host.hear(0, 2, Signal::Heard);
            changes += u32::from(host.after(5_000) != before);
        }
        assert!((1..=3).contains(&changes), "{changes}");
        // It is gone, and so is every other: the flow has none.
        for link in 0..3 {
            host.hear(0, link, Signal::Gone);
        }
        assert_eq!(host.after(100), [None]);
        assert_eq!(host.report(Scope::All).flows[0].fallback, None);
    }

    #[test]
    fn what_is_closed_leaves_nothing_behind() {
        let mut host = Host::new();
        for key in 0..50 {
            host.open(2, "s", fast(5), &[0]);
            assert_eq!(host.after(100), [Some(2)], "{key}");
            host.flows.clear();
            assert_eq!(host.after(100), []);
        }
        assert_eq!(host.policy.decisions.len(), 0);
        assert_eq!(host.policy.account.usage((DatapathIndex(0), LinkIndex(2))).unwrap().0.streams, 0);
    }
}
