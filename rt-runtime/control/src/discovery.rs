//! The host of discovery: sightings come from the back end, decisions go to the server.

use crate::report::hex_of;
use crate::roster::{Entry, PeerSource, Roster};
use insane_config::{GossipPlan, Plan};
use insane_core::{HostId, Incarnation, MonoTime};
use insane_discovery::{Backend, BackendRules, Settings, Sighting, StartError};
use insane_overlay::discovery::{
    Configured, Decision, Discovery, Event as Told, Limits, LinkFact, Peer, Reason, Rules,
};
use insane_sys::event::Event;
use insane_wire::status::{Counters, DiscoveryStatus, FoundStatus, RefusedStatus, SeedStatus};
use std::net::SocketAddr;
use std::sync::Arc;
use tracing::{error, info, warn};

/// Sightings taken in one round.
const SIGHTINGS_PER_ROUND: usize = 256;

/// What decides, and what hears.
#[derive(Debug)]
pub(crate) struct Discovering {
    machine: Discovery,
    backend: Box<dyn Backend>,
    bell: Arc<Event>,
    /// That the back end has ended was logged.
    end_is_told: bool,
}

/// Own links as others are told of them, in the runtime's order.
fn own_links(plan: &Plan, gossip: &GossipPlan) -> Vec<LinkFact> {
    let links = plan.datapaths.iter().flat_map(|datapath| &datapath.links);
    let told = |link: &insane_config::LinkPlan| {
        let told = gossip.links.iter().find(|(name, ..)| *name == link.name);
        let address = told.map_or(link.technology.bind(), |(.., address)| *address);
        LinkFact { name: link.name.clone(), technology: link.technology.name().to_owned(), address }
    };
    links.map(told).collect()
}

fn rules(gossip: &GossipPlan) -> Rules {
    let GossipPlan { allow, peers_max, forget_after, .. } = gossip;
    Rules { allow: allow.clone(), peers_max: *peers_max, forget_after: *forget_after }
}

fn backend_rules(gossip: &GossipPlan) -> BackendRules {
    BackendRules { allow: gossip.allow.clone(), seeds: gossip.seeds.clone() }
}

/// The peers of the configuration, with their addresses by the places of own links.
fn configured(plan: &Plan, roster: &Roster) -> Vec<Configured> {
    let fixed = roster.iter().filter(|(_, entry)| entry.source == PeerSource::Configuration);
    let flat = |datapath: usize, link: usize| {
        plan.datapaths[..datapath].iter().map(|datapath| datapath.links.len()).sum::<usize>() + link
    };
    fixed
        .map(|(_, entry)| Configured {
            name: entry.name.clone(),
            addresses: entry.each().map(|(datapath, link, address)| (flat(datapath, link), address)).collect(),
        })
        .collect()
}

/// A found host, as the roster has peers.
pub(crate) fn entry(plan: &Plan, peer: &Peer) -> Entry {
    let mut addresses = Vec::new();
    let mut first = 0;
    for datapath in &plan.datapaths {
        let at = |link: usize| peer.addresses.iter().find(|(place, _)| *place == first + link).map(|(_, to)| *to);
        addresses.push((0..datapath.links.len()).map(at).collect::<Vec<Option<SocketAddr>>>());
        first += datapath.links.len();
    }
    Entry { name: peer.name.clone(), source: PeerSource::Discovery, host: Some(peer.host), addresses }
}

impl Discovering {
    /// Starts the back end, if the plan wants one.
    pub(crate) fn start(
        plan: &Plan,
        incarnation: Incarnation,
        roster: &Roster,
        bell: &Arc<Event>,
    ) -> Result<Option<Self>, StartError> {
        let Some(gossip) = &plan.discovery else { return Ok(None) };
        let links = own_links(plan, gossip);
        let settings = Settings {
            host: plan.host.id,
            name: plan.host.name.clone(),
            incarnation,
            bind: gossip.bind,
            cluster: gossip.cluster.clone(),
            links: links.clone(),
            rules: backend_rules(gossip),
        };
        let ring = Arc::clone(bell);
        let backend = insane_discovery::start(settings, move || {
            let _ = ring.signal();
        })?;
        let name = plan.host.name.clone();
        let mut machine = Discovery::new(plan.host.id, name, links, rules(gossip), Limits::default());
        machine.set_configured(configured(plan, roster));
        Ok(Some(Discovering { machine, backend, bell: Arc::clone(bell), end_is_told: false }))
    }

    /// Name and number of its thread.
    pub(crate) fn thread(&self) -> (String, i32) {
        (self.backend.name().to_owned(), self.backend.tid())
    }

    /// Takes what was heard.
    pub(crate) fn hear(&mut self, now: MonoTime) {
        for taken in 0..=SIGHTINGS_PER_ROUND {
            if taken == SIGHTINGS_PER_ROUND {
                let _ = self.bell.signal();
                break;
            }
            match self.backend.next_sighting() {
                Some(Sighting::Fact(fact)) => self.machine.on_fact(now, &fact),
                Some(Sighting::Malformed { origin }) => self.machine.on_malformed(now, origin),
                Some(Sighting::OtherFormat { origin, format }) => self.machine.on_other_format(now, origin, format),
                Some(Sighting::Stranger { origin }) => self.machine.on_stranger(now, origin),
                None => break,
            }
        }
        while let Some(event) = self.machine.next_event() {
            match event {
                Told::Refused { host, name, origin, reason } => {
                    warn!(%host, name, %origin, reason = reason.name(), why = %reason, "a host is refused");
                }
                Told::Displaced { host, name } => {
                    info!(%host, name, "a peer of the configuration takes the place of a found one");
                }
            }
        }
        if !self.backend.is_alive() && !self.end_is_told {
            self.end_is_told = true;
            error!("discovery has ended; the peers stay as they are until the runtime is restarted");
        }
    }

    /// A found peer answers.
    pub(crate) fn answers(&mut self, now: MonoTime, host: HostId) {
        self.machine.on_answer(now, host);
    }

    /// What is to be done. Without a back end nobody is heard, which says nothing of the peers.
    pub(crate) fn poll(&mut self, now: MonoTime) -> Option<Decision> {
        if self.backend.is_alive() { self.machine.poll(now) } else { None }
    }

    /// It has been done, or could not be.
    pub(crate) fn answer(&mut self, now: MonoTime, is_done: bool) {
        if is_done { self.machine.done() } else { self.machine.failed(now) }
    }

    /// The plan has changed, and the roster with it.
    pub(crate) fn reconfigure(&mut self, plan: &Plan, roster: &Roster) {
        let Some(gossip) = &plan.discovery else { return };
        self.backend.set_rules(backend_rules(gossip));
        self.machine.set_rules(rules(gossip));
        self.machine.set_configured(configured(plan, roster));
    }

    /// What is missing, if something is.
    pub(crate) fn degraded(&self) -> Option<String> {
        let ended = !self.backend.is_alive();
        ended.then(|| "discovery has ended; peers stay as they are. Restart the runtime".to_owned())
    }

    pub(crate) fn report(&self, now: MonoTime, plan: &Plan) -> Option<DiscoveryStatus> {
        let gossip = plan.discovery.as_ref()?;
        let ms = |at: MonoTime| now.since(at).0 / 1_000_000;
        let backend = self.backend.report();
        let found = self.machine.found().map(|(peer, incarnation, heard_at)| FoundStatus {
            name: peer.name.clone(),
            host: hex_of(peer.host),
            incarnation: incarnation.0,
            heard_ms_ago: ms(heard_at),
        });
        let refused = self.machine.refused().iter().map(|refused| RefusedStatus {
            name: refused.name.clone(),
            host: hex_of(refused.host),
            from: refused.origin.to_string(),
            reason: refused.reason.name().to_owned(),
            why: refused.reason.to_string(),
            times: refused.times,
            ms_ago: ms(refused.last_at),
        });
        let seed = |(address, state): &(SocketAddr, insane_discovery::seeds::SeedState)| SeedStatus {
            address: address.to_string(),
            state: state.name().to_owned(),
        };
        Some(DiscoveryStatus {
            backend: self.backend.name().to_owned(),
            bind: gossip.bind.to_string(),
            cluster: gossip.cluster.clone(),
            allow: gossip.allow.iter().map(ToString::to_string).collect(),
            peers_max: gossip.peers_max as u64,
            hosts: backend.hosts,
            ended: !self.backend.is_alive(),
            found: found.collect(),
            refused: refused.collect(),
            seeds: backend.seeds.iter().map(seed).collect(),
            counters: self.counters().into_iter().chain(backend.counters).collect(),
        })
    }

    fn counters(&self) -> Counters {
        let counters = self.machine.counters();
        let [added, moved, removed] = counters.changes;
        let own = [
            ("facts", counters.facts),
            ("facts_dropped", counters.dropped),
            ("peers_added", added),
            ("peers_moved", moved),
            ("peers_removed", removed),
            ("changes_failed", counters.failed),
        ];
        let refused = Reason::ALL.iter().zip(counters.refused);
        let refused = refused.map(|(reason, times)| (format!("refused_{}", reason.name()), times));
        own.into_iter().map(|(name, times)| (name.to_owned(), times)).chain(refused).collect()
    }
}
