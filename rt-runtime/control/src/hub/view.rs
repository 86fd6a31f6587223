//! What reports may know of the hub's tables.

use super::Hub;
use super::tables::Stage;
use crate::action::{ObjectId, Topic};
use crate::quota::Account;
use crate::spec::Credentials;
use insane_core::{ConnId, DomainIndex, Lane, PeerIndex, Qos, SessionId, StreamKey};
use insane_wire::control::Role;
use std::collections::BTreeSet;

/// How full the tables are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableSizes {
    /// Sockets that have not said HELLO.
    pub greeting: usize,
    /// Sessions.
    pub sessions: usize,
    /// Streams, once for each domain and name.
    pub contracts: usize,
    /// Opened streams.
    pub streams: usize,
    /// Sources.
    pub sources: usize,
    /// Sinks.
    pub sinks: usize,
    /// Conversations.
    pub channels: usize,
    /// Connections.
    pub conns: usize,
    /// Objects that the control plane holds.
    pub objects: usize,
    /// Uids in use.
    pub uids: usize,
    /// Pairs of ends that could not be joined yet.
    pub unjoined: usize,
}

/// A session.
#[derive(Clone, Debug)]
pub struct SessionView<'a> {
    /// Its number.
    pub id: SessionId,
    /// What it calls itself.
    pub name: &'a str,
    /// Who it is.
    pub who: &'a Credentials,
    /// Where it is.
    pub domain: DomainIndex,
    /// What it is for.
    pub role: Role,
    /// Streams it has open.
    pub streams: usize,
    /// Bytes of shared memory that are charged for it, direct connections apart.
    pub bytes: u64,
    /// Its counters page.
    pub counters: Option<ObjectId>,
}

/// A stream.
#[derive(Clone, Debug)]
pub struct StreamView<'a> {
    /// Its wire name.
    pub key: StreamKey,
    /// Its domain.
    pub domain: DomainIndex,
    /// Its name.
    pub name: &'a str,
    /// Its quality of service.
    pub qos: Qos,
    /// Its lane.
    pub lane: Lane,
    /// Sources on this host.
    pub sources: usize,
    /// Sinks on this host.
    pub sinks: usize,
    /// Peers that have a sink.
    pub peers: BTreeSet<PeerIndex>,
}

impl Hub {
    /// How full the tables are.
    #[must_use]
    pub fn table_sizes(&self) -> TableSizes {
        TableSizes {
            greeting: self.greeting.len(),
            sessions: self.sessions.len(),
            contracts: self.contracts.len(),
            streams: self.streams.len(),
            sources: self.sources.len(),
            sinks: self.sinks.len(),
            channels: self.channels.len(),
            conns: self.conns.len(),
            objects: self.objects.len(),
            uids: self.uids.len(),
            unjoined: self.unjoined.len(),
        }
    }

    /// All sessions that were let in.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView<'_>> {
        self.sessions.iter().map(|(id, row)| SessionView {
            id: *id,
            name: &row.name,
            who: row.origin.credentials(),
            domain: row.domain,
            role: row.role,
            streams: row.streams.len(),
            bytes: self.bytes_of(*id),
            counters: row.counters,
        })
    }

    fn bytes_of(&self, session: SessionId) -> u64 {
        let own = self.sessions.get(&session).map_or(0, |row| row.charge.bytes);
        let sources = self.sources.values().filter(|row| row.session == session).map(|row| row.charge.bytes);
        let sinks = self.sinks.values().filter(|row| row.session == session).map(|row| row.charge.bytes);
        own + sources.sum::<u64>() + sinks.sum::<u64>()
    }

    /// The domain of a session.
    #[must_use]
    pub fn domain_of(&self, session: SessionId) -> Option<DomainIndex> {
        self.sessions.get(&session).map(|row| row.domain)
    }

    /// Whether a session may see the state of all domains.
    #[must_use]
    pub fn is_operator(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|row| self.spec.is_operator(&row.origin))
    }

    /// All streams that are open.
    pub fn streams(&self) -> impl Iterator<Item = StreamView<'_>> {
        self.contracts.iter().map(|(key, row)| {
            let channels = || self.channels.iter().filter(move |(topic, _)| topic.key == *key).map(|(_, row)| row);
            StreamView {
                key: *key,
                domain: row.domain,
                name: &row.name,
                qos: row.qos,
                lane: row.qos.lane(),
                sources: channels().map(|channel| channel.sources.len()).sum(),
                sinks: channels().map(|channel| channel.sinks.len()).sum(),
                peers: channels()
                    .flat_map(|c| &c.peers)
                    .filter(|(_, check, _)| *check == row.check)
                    .map(|(p, ..)| *p)
                    .collect(),
            }
        })
    }

    /// What the domains use of their quotas, by [`DomainIndex`].
    #[must_use]
    pub fn accounts(&self) -> &[Account] {
        &self.accounts
    }

    /// Sources and sinks of a conversation on this host.
    #[must_use]
    pub fn members_of(&self, topic: Topic) -> (usize, usize) {
        self.channels.get(&topic).map_or((0, 0), |channel| (channel.sources.len(), channel.sinks.len()))
    }

    /// Whether a connection is in use.
    #[must_use]
    pub fn is_active(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|row| row.stage == Stage::Active)
    }

    /// Connections that a datapath has not let go of yet.
    #[must_use]
    pub fn retiring(&self) -> Vec<ConnId> {
        self.conns.iter().filter(|(_, row)| row.stage == Stage::Retiring).map(|(id, _)| *id).collect()
    }
}
