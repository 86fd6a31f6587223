//! Who should be there and who should get what: the truth that the checkers compare with.
//! Nothing here is asked of the code under test.

use crate::random::Random;
use insane_core::{ChannelId, StreamKey, stream_check, stream_key};
use insane_engine::Topic;
use std::collections::BTreeSet;

/// Tenants of a mesh.
pub const DOMAINS: usize = 5;
/// Sinks of one stream, at most, when the mesh begins.
pub const SINKS_MAX: usize = 4;

/// One stream, with its one source.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// Its tenant.
    pub domain: usize,
    /// Its name.
    pub name: String,
    /// Its conversation.
    pub topic: Topic,
    /// The second hash of its name.
    pub check: u64,
    /// The host that sends.
    pub source: usize,
    /// The hosts that listen, as things stand now.
    pub sinks: BTreeSet<usize>,
}

/// Hosts, tenants and streams.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tenants of each host.
    pub members: Vec<BTreeSet<usize>>,
    /// The streams.
    pub streams: Vec<StreamPlan>,
}

/// The name of a tenant.
#[must_use]
pub fn domain_name(domain: usize) -> String {
    format!("line{domain}")
}

impl Plan {
    /// Draws one. Every host is in one tenant, every fourth in a second one.
    #[must_use]
    pub fn new(random: &mut Random, hosts: usize, streams: usize) -> Self {
        let members: Vec<BTreeSet<usize>> = (0..hosts)
            .map(|host| {
                let first = host % DOMAINS;
                let second = (host % 4 == 0).then_some((first + 1) % DOMAINS);
                std::iter::once(first).chain(second).collect()
            })
            .collect();
        let of_domain: Vec<Vec<usize>> = (0..DOMAINS)
            .map(|domain| (0..hosts).filter(|host| members[*host].contains(&domain)).collect::<Vec<_>>())
            .collect();
        let streams = (0..streams)
            .map(|number| {
                let domain = number % DOMAINS;
                let hosts = &of_domain[domain];
                let source = hosts[random.place(hosts.len())];
                let wanted = 1 + random.place(SINKS_MAX);
                let sinks = (0..wanted).map(|_| hosts[random.place(hosts.len())]).filter(|host| *host != source);
                let name = format!("s{number}");
                let key: StreamKey = stream_key(&domain_name(domain), &name);
                StreamPlan {
                    domain,
                    topic: Topic { key, channel: ChannelId(1 + (number % 3) as u32) },
                    check: stream_check(&domain_name(domain), &name),
                    source,
                    sinks: sinks.collect(),
                    name,
                }
            })
            .collect();
        Plan { members, streams }
    }

    /// The hosts of a tenant.
    pub fn hosts_of(&self, domain: usize) -> impl Iterator<Item = usize> {
        (0..self.members.len()).filter(move |host| self.members[*host].contains(&domain))
    }
}
