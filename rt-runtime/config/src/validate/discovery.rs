//! Discovery: where it listens, whom it asks, whom it believes, what it tells.

use super::network::host_address;
use super::{check_name, number, quoted};
use crate::diagnostic::nearest;
use crate::plan::{GossipPlan, LinkPlan};
use crate::raw;
use crate::report::Report;
use insane_core::network::NetworkError;
use insane_core::{Nanos, Network};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Networks of `allow`.
const NETWORKS_MAX: usize = 32;
/// Addresses of `seeds`.
const SEEDS_MAX: usize = 16;

/// The plan of discovery, if it is wanted. All that is wrong is in the report.
pub(super) fn discovery(raw: &raw::Discovery, links: &[LinkPlan], report: &mut Report<'_>) -> Option<GossipPlan> {
    let raw = raw.gossip.as_ref()?;
    let path = |field: &str| format!("discovery.gossip.{field}");
    let bind = host_address(report, &path("bind"), &raw.bind);
    check_name(report, &path("cluster"), &raw.cluster);
    let allow = networks(&raw.allow, report);
    let seeds = seeds(&raw.seeds, &allow, report);
    let told = advertised(links, &raw.advertise, report);
    if let Some(bind) = bind {
        check_bind(bind, &allow, links, report);
    }
    if links.is_empty() {
        let message = "there is no link: hosts that are found could not be reached";
        report.error_accepting("discovery.gossip", message, "a configuration with at least one link in `links`");
    }
    let peers_max: u32 = number(report, &path("peers_max"), raw.peers_max);
    let seconds: u32 = number(report, &path("forget_after_s"), raw.forget_after_s);
    Some(GossipPlan {
        bind: bind?,
        cluster: raw.cluster.clone(),
        allow,
        seeds,
        links: told,
        peers_max: peers_max as usize,
        forget_after: Nanos::from_secs(seconds.into()),
    })
}

fn check_bind(bind: SocketAddr, allow: &[Network], links: &[LinkPlan], report: &mut Report<'_>) {
    let path = "discovery.gossip.bind";
    let udp = |link: &&LinkPlan| link.technology.name() == "udp";
    let taken = |link: &&LinkPlan| {
        let own = link.technology.bind();
        let everywhere = own.ip().is_unspecified() && own.is_ipv4() == bind.is_ipv4();
        (own.ip() == bind.ip() || everywhere) && [own.port(), own.port().saturating_add(1)].contains(&bind.port())
    };
    if let Some(link) = links.iter().filter(udp).find(taken) {
        let message = format!(
            "port {} is one of link \"{}\", which is bound to {}",
            bind.port(),
            link.name,
            link.technology.bind()
        );
        report.error_accepting(path, message, "a port that no udp link uses (each uses two)");
    }
    if !allow.is_empty() && !allow.iter().any(|network| network.contains(bind.ip())) {
        let message = format!("{} is outside `allow`: hosts with the same rule would not hear this one", bind.ip());
        report.warning(path, message, "an address in one of the networks of `allow`");
    }
}

fn networks(raw: &[String], report: &mut Report<'_>) -> Vec<Network> {
    let path = "discovery.gossip.allow";
    if raw.is_empty() {
        report.error(path, "nobody is allowed: no host would be found");
    } else if raw.len() > NETWORKS_MAX {
        report.error(path, format!("there are {} networks", raw.len()));
    }
    let mut networks = Vec::new();
    for (at, text) in raw.iter().enumerate() {
        let path = format!("{path}[{at}]");
        let accepted = "an address and the number of its first bits that count: \"10.0.0.0/24\"; or one address";
        match text.parse::<Network>() {
            Ok(network) => networks.push(network),
            Err(NetworkError::HostBits(meant)) => {
                let message = format!("\"{text}\" has bits set behind its prefix");
                report.error_accepting(&path, message, format!("\"{meant}\""));
            }
            Err(NetworkError::Prefix) => {
                report.error_accepting(&path, format!("\"{text}\" has no such number of bits"), accepted);
            }
            Err(NetworkError::Address) => {
                report.error_accepting(&path, format!("\"{text}\" is not a network"), accepted);
            }
        }
    }
    networks
}

/// Seeds may point at nothing, and at this host itself: one file may serve all hosts.
fn seeds(raw: &[String], allow: &[Network], report: &mut Report<'_>) -> Vec<SocketAddr> {
    if raw.len() > SEEDS_MAX {
        report.error("discovery.gossip.seeds", format!("there are {} seeds", raw.len()));
    }
    let mut seeds = Vec::new();
    for (at, text) in raw.iter().enumerate() {
        let path = format!("discovery.gossip.seeds[{at}]");
        let Some(seed) = host_address(report, &path, text) else { continue };
        if !allow.is_empty() && !allow.iter().any(|network| network.contains(seed.ip())) {
            let message = format!("{} is outside `allow`: its answers would not be heard", seed.ip());
            report.error_accepting(&path, message, "an address in one of the networks of `allow`");
        }
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    seeds
}

/// What others are told of the links.
fn advertised(
    links: &[LinkPlan],
    raw: &BTreeMap<String, String>,
    report: &mut Report<'_>,
) -> Vec<(String, &'static str, SocketAddr)> {
    let names = || links.iter().map(|link| link.name.as_str());
    for name in raw.keys().filter(|name| !links.iter().any(|link| link.name == **name)) {
        let path = format!("discovery.gossip.advertise[{name:?}]");
        let near = nearest(name, names()).map(|name| format!("; did you mean \"{name}\"?")).unwrap_or_default();
        report.error_at_key(&path, format!("there is no link \"{name}\"{near}"), quoted(names()));
    }
    let mut told = Vec::new();
    for link in links {
        let bind = link.technology.bind();
        let address = match raw.get(&link.name) {
            Some(text) => {
                let path = format!("discovery.gossip.advertise[{:?}]", link.name);
                let Some(address) = host_address(report, &path, text) else { continue };
                if address.is_ipv4() != bind.is_ipv4() || address.port() == u16::MAX {
                    let message = format!("{address} cannot be the address of link \"{}\", bound to {bind}", link.name);
                    report.error(&path, message);
                }
                address
            }
            None if bind.ip().is_unspecified() && !report.has_errors() => {
                let message =
                    format!("link \"{}\" is bound to {bind}, which is nothing that others could be told", link.name);
                let accepted =
                    format!("{{\"{}\": \"ADDRESS:{}\"}}, with the address that others reach", link.name, bind.port());
                report.error_accepting("discovery.gossip.advertise", message, accepted);
                continue;
            }
            None => bind,
        };
        told.push((link.name.clone(), link.technology.name(), address));
    }
    told
}
