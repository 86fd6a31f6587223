//! Discovery, as the configuration asks for it.

use super::some_of;
use crate::doctor::finding::{Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::Host;
use crate::doctor::reader::Known;
use crate::doctor::wanted::Wanted;
use insane_core::Network;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const UNREAD: &str = "Run it on this machine itself (without --root).";

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "gossip-address",
        weight: 4,
        reads: "discovery.gossip.bind; addresses of the interfaces",
        why: "Others answer to the address that gossip is bound to: on a loopback address, or on one that no \
              interface has, nobody hears of this host, and no peer is found.",
        source: "configs/reference.ron (discovery)",
        unread: UNREAD,
        check: address,
        mend: Mend::ByHand("only you know by which network the others reach this host"),
    },
    Entry {
        id: "gossip-seeds",
        weight: 3,
        reads: "discovery.gossip.seeds; addresses of the interfaces",
        why: "A host that starts asks its seeds. Where all of them are this host itself, it asks nobody, and is found \
              only if another host has it as a seed.",
        source: "configs/reference.ron (discovery)",
        unread: UNREAD,
        check: seeds,
        mend: Mend::ByHand("only you know which hosts live"),
    },
    Entry {
        id: "gossip-trust",
        weight: 5,
        reads: "discovery.gossip.allow, .bind; addresses of the interfaces",
        why: "Gossip is not authenticated: whoever can send from an address in `allow` can make hosts there peers, \
              which get messages, and can use up `peers_max`.",
        source: "configs/reference.ron (discovery); RFC 1918, RFC 4193",
        unread: UNREAD,
        check: trust,
        mend: Mend::ByHand("only you know whom you trust"),
    },
];

fn address(host: &Host, wanted: &Wanted) -> Outcome {
    let Some(gossip) = &wanted.gossip else { return Ok(None) };
    let ip = gossip.bind.ip();
    if ip.is_loopback() {
        let others = gossip.seeds.iter().filter(|seed| !seed.ip().is_loopback()).map(ToString::to_string);
        let others: Vec<String> =
            others.chain(gossip.allow.iter().filter(|n| !n.contains(ip)).map(ToString::to_string)).collect();
        return match others.is_empty() {
            true => good(format!("{}: hosts of this machine only", gossip.bind)),
            false => bad(
                format!("{}, and {} are beyond this machine", gossip.bind, some_of(&others)),
                "Bind gossip to the address by which the others reach this host:\n$ ip -brief address",
            ),
        };
    }
    let known = host.calls.addresses.known()?;
    match known.iter().find(|(_, own)| *own == ip) {
        Some((interface, _)) => good(format!("{}, of {interface}", gossip.bind)),
        None => bad(
            format!("{}: no interface has this address now", gossip.bind),
            "Bring the interface up before the runtime starts, or bind gossip to another address:\n$ ip -brief address",
        ),
    }
}

fn seeds(host: &Host, wanted: &Wanted) -> Outcome {
    let Some(gossip) = &wanted.gossip else { return Ok(None) };
    if gossip.seeds.is_empty() {
        return warning("none: this host waits until another asks it", "Name one or two hosts that live in `seeds`.");
    }
    let is_bind = |seed: &&std::net::SocketAddr| **seed == gossip.bind;
    let remedy = "Name another host of the cluster in `seeds`; the list may be the same on all of them.";
    if gossip.seeds.iter().all(|seed| is_bind(&seed)) {
        return warning("this host is its own only seed", remedy);
    }
    let known = host.calls.addresses.known()?;
    let is_own = |seed: &&std::net::SocketAddr| {
        is_bind(seed) || seed.port() == gossip.bind.port() && known.iter().any(|(_, own)| *own == seed.ip())
    };
    let others: Vec<String> = gossip.seeds.iter().filter(|seed| !is_own(seed)).map(ToString::to_string).collect();
    if others.is_empty() {
        return warning(format!("all {} are addresses of this host", gossip.seeds.len()), remedy);
    }
    good(some_of(&others))
}

/// Networks that nobody is reached in from the Internet, with the bits of their prefix.
const PRIVATE: [(IpAddr, u8); 7] = [
    (IpAddr::V4(Ipv4Addr::new(10, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(172, 16, 0, 0)), 12),
    (IpAddr::V4(Ipv4Addr::new(192, 168, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(169, 254, 0, 0)), 16),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0)), 7),
    (IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), 10),
];

/// Whether all of a network lies in a private one.
fn is_private(network: &Network) -> bool {
    let text = network.to_string();
    let (base, prefix) = text.split_once('/').unwrap_or((&text, "128"));
    let (Ok(base), Ok(prefix)) = (base.parse::<IpAddr>(), prefix.parse::<u8>()) else { return false };
    base.is_loopback()
        || PRIVATE.iter().any(|(private, bits)| {
            prefix >= *bits && Network::new(*private, *bits).is_some_and(|private| private.contains(base))
        })
}

fn trust(host: &Host, wanted: &Wanted) -> Outcome {
    let Some(gossip) = &wanted.gossip else { return Ok(None) };
    let open: Vec<String> =
        gossip.allow.iter().filter(|network| !is_private(network)).map(ToString::to_string).collect();
    if !open.is_empty() {
        return bad(
            format!("{} can be reached by anybody", some_of(&open)),
            "Allow the private networks of the plant only, and let the firewall drop the rest:\n\
             $ nft add rule inet filter input udp dport GOSSIP_PORT ip saddr != PLANT_NETWORK drop",
        );
    }
    let known = host.calls.addresses.known()?;
    let interface = known.iter().find(|(_, own)| *own == gossip.bind.ip()).map(|(name, _)| name.as_str());
    let allow: Vec<String> = gossip.allow.iter().map(ToString::to_string).collect();
    good(format!("{} by {}", some_of(&allow), interface.unwrap_or("an interface that is not there yet")))
}
