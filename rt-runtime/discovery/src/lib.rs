//! How facts of other hosts are heard: the contract of a back end, and the one there is.
//!
//! A [`Backend`] tells others of this host and hears of theirs, on threads of its own. It
//! hands on a [`Sighting`] for each sign of life of a host, with all that is told of it, and
//! rings a bell; it decides nothing. Who becomes a peer is decided by
//! [`insane_overlay::discovery`] on the control plane. A back end never touches a datapath.
//!
//! With the feature `gossip` there is one on `chitchat`; without, [`start`] says so. Another
//! one needs `Backend` and a line in [`start`].
#![forbid(unsafe_code)]

pub mod facts;
#[cfg(feature = "gossip")]
mod gossip;
pub mod seeds;
#[cfg(any(feature = "gossip", test))]
mod shape;

use insane_core::{HostId, Incarnation, Network};
use insane_overlay::discovery::{Fact, LinkFact};
use seeds::SeedState;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// What a back end has heard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Sighting {
    /// A host lives, and this is told of it.
    Fact(Fact),
    /// A host lives, and what is told of it cannot be read.
    Malformed {
        /// Where its gossip comes from, as it says.
        origin: SocketAddr,
    },
    /// A host lives, and tells of itself in another format.
    OtherFormat {
        /// Where its gossip comes from, as it says.
        origin: SocketAddr,
        /// The number of its format.
        format: u32,
    },
    /// Somebody who is not allowed has sent something.
    Stranger {
        /// From where.
        origin: SocketAddr,
    },
}

/// What a back end starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// This host.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Local address, as others are told it.
    pub bind: SocketAddr,
    /// The group of hosts that find each other.
    pub cluster: String,
    /// Its links, as others are told of them.
    pub links: Vec<LinkFact>,
    /// What may change while it runs.
    pub rules: BackendRules,
}

/// What may change while a back end runs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendRules {
    /// Who is heard, and spoken to.
    pub allow: Vec<Network>,
    /// Who is asked first.
    pub seeds: Vec<SocketAddr>,
}

/// The state of a back end, for reports.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendReport {
    /// Hosts that it knows of, this one apart.
    pub hosts: u64,
    /// What it counts, by name.
    pub counters: BTreeMap<String, u64>,
    /// The seeds, and what became of each.
    pub seeds: Vec<(SocketAddr, SeedState)>,
}

/// A way to hear of other hosts. Dropping it ends its threads.
pub trait Backend: Send + fmt::Debug {
    /// The name in reports.
    fn name(&self) -> &'static str;
    /// The next thing that was heard; never waits.
    fn next_sighting(&mut self) -> Option<Sighting>;
    /// Other rules, from now on.
    fn set_rules(&mut self, rules: BackendRules);
    /// How it is.
    fn report(&self) -> BackendReport;
    /// The kernel's number of its thread.
    fn tid(&self) -> i32;
    /// Whether its thread still runs.
    fn is_alive(&self) -> bool;
}

/// Why no back end starts.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not in this build.
    #[error(
        "discovery.gossip is configured, and this program was built without the feature `gossip`: build it with \
         `cargo build --release -p insaned --features gossip`, or take `discovery` out of the configuration"
    )]
    NotBuilt,
    /// The address cannot be had.
    #[error("discovery.gossip.bind: cannot listen at {bind}: {source}")]
    Bind {
        /// Which.
        bind: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The thread, or a socket inside the host, cannot be had.
    #[error("discovery.gossip: {0}")]
    Io(#[from] std::io::Error),
}

/// Whether this build has a back end for gossip.
#[must_use]
pub const fn has_gossip() -> bool {
    cfg!(feature = "gossip")
}

/// Starts the back end; `ring` is called when something was heard.
///
/// # Errors
/// See [`StartError`].
#[cfg(feature = "gossip")]
pub fn start(settings: Settings, ring: impl Fn() + Send + Sync + 'static) -> Result<Box<dyn Backend>, StartError> {
    Ok(Box::new(gossip::Gossip::start(settings, Box::new(ring))?))
}

/// Says that there is none.
///
/// # Errors
/// Always [`StartError::NotBuilt`].
#[cfg(not(feature = "gossip"))]
pub fn start(_settings: Settings, _ring: impl Fn() + Send + Sync + 'static) -> Result<Box<dyn Backend>, StartError> {
    Err(StartError::NotBuilt)
}

#[cfg(all(test, not(feature = "gossip")))]
mod tests {
    use super::*;

    #[test]
    fn without_the_feature_the_remedy_is_told() {
        let settings = Settings {
            host: HostId(1),
            name: "a".into(),
            incarnation: Incarnation(1),
            bind: "127.0.0.1:7100".parse().unwrap(),
            cluster: "c".into(),
            links: vec![],
            rules: BackendRules::default(),
        };
        let error = start(settings, || {}).unwrap_err();
        assert!(error.to_string().contains("--features gossip"), "{error}");
    }
}
