//! Interest and routes: which datapaths a conversation needs, and what they and the
//! peers are told.

use super::conn::Tell;
use super::tables::{Announced, Ends, RemoteSinks, Stage};
use super::{Hub, INTEREST_MAX};
use crate::action::{Action, Note, Route, Topic};
use insane_core::{ConnId, DatapathIndex, PeerIndex, Schema, SinkId, SourceId};
use insane_wire::overlay::JOINS_MAX;
use std::collections::{BTreeMap, BTreeSet};

impl Hub {
    pub(super) fn change_interest(&mut self, sinks: RemoteSinks, topic: Topic, on: bool) {
        if on && self.interest >= INTEREST_MAX {
            return;
        }
        let channel = self.channels.entry(topic).or_default();
        let changed = if on { channel.peers.insert(sinks) } else { channel.peers.remove(&sinks) };
        if changed {
            self.interest = if on { self.interest + 1 } else { self.interest - 1 };
        }
        if on && changed {
            self.note_mismatch(topic, sinks);
            self.welcome(topic, sinks);
        }
        self.update_routes(topic);
    }

    /// A sink of a peer has joined: it is to get what sources of this host keep of the past.
    fn welcome(&mut self, topic: Topic, RemoteSinks { peer, check, schema, .. }: RemoteSinks) {
        let (Some(channel), Some(contract)) = (self.channels.get(&topic), self.contracts.get(&topic.key)) else {
            return;
        };
        let keeps = channel.sources.iter().any(|source| self.sources.get(source).is_some_and(|row| row.keeps));
        let differs = self.source_schema(topic).zip(schema).is_some_and(|(ours, theirs)| !ours.matches(&theirs));
        if keeps
            && !differs
            && contract.check == check
            && let Some(datapath) = self.spec.datapath_to(contract.qos.lane(), peer)
        {
            self.actions.push_back(Action::Welcome { datapath, topic, peer });
        }
    }

    fn note_mismatch(&mut self, topic: Topic, RemoteSinks { peer, check, schema: theirs, .. }: RemoteSinks) {
        let is_meant = self.contracts.get(&topic.key).is_some_and(|contract| contract.check == check);
        if is_meant
            && let (Some(ours), Some(theirs)) = (self.source_schema(topic), theirs)
            && !ours.matches(&theirs)
        {
            self.note(Note::SchemaMismatch { peer, topic, ours, theirs });
        }
    }

    /// What the messages of this host's sources are, if one of them says so: all that do say
    /// the same.
    pub(super) fn source_schema(&self, topic: Topic) -> Option<Schema> {
        let channel = self.channels.get(&topic)?;
        channel.sources.iter().find_map(|source| self.sources.get(source)?.schema)
    }

    pub(super) fn drop_interest(&mut self, peer: PeerIndex) {
        let all = self.channels.iter().flat_map(|(topic, channel)| channel.peers.iter().map(|sinks| (*topic, *sinks)));
        let gone: Vec<(Topic, RemoteSinks)> = all.filter(|(_, sinks)| sinks.peer == peer).collect();
        for (topic, sinks) in gone {
            self.change_interest(sinks, topic, false);
        }
    }

    /// Tells the peers when a sink can receive what comes from them, and when the last is
    /// gone. Earlier, and the first messages would find no ring. Of each sink, since it may
    /// want what sources keep of the past.
    pub(super) fn update_interest(&mut self, topic: Topic) {
        let Some(channel) = self.channels.get(&topic) else { return };
        let Some(contract) = self.contracts.get(&topic.key) else { return };
        let check = contract.check;
        let datapaths = self.spec.rx_datapaths(contract.qos.lane(), contract.isolated);
        let before = channel.announced;
        let sinks: Vec<SinkId> = if self.spec.is_networked() {
            channel.sinks.iter().filter(|sink| self.receives(**sink, &datapaths)).copied().collect()
        } else {
            Vec::new()
        };
        let schema = sinks.iter().find_map(|sink| self.sinks.get(sink)?.schema);
        let mut joins = before.map_or(self.joins, |before| before.joins);
        for sink in &sinks {
            if let Some(row) = self.sinks.get_mut(sink).filter(|row| !row.has_joined) {
                row.has_joined = true;
                self.joins = self.joins.wrapping_add(1) & JOINS_MAX;
                joins = self.joins;
            }
        }
        let now = (!sinks.is_empty()).then_some(Announced { schema, joins });
        if now == before {
            return;
        }
        if let Some(channel) = self.channels.get_mut(&topic) {
            channel.announced = now;
        }
        // The new first: where only that changes, messages go on.
        if let Some(Announced { schema, joins }) = now {
            self.actions.push_back(Action::Interest { topic, check, schema, joins, on: true });
        }
        if let Some(Announced { schema, joins }) = before {
            self.actions.push_back(Action::Interest { topic, check, schema, joins, on: false });
        }
    }

    fn receives(&self, sink: SinkId, datapaths: &[DatapathIndex]) -> bool {
        let active = |conn: &ConnId| self.conns.get(conn).is_some_and(|row| row.stage == Stage::Active && row.attached);
        // Who only watches sees what comes here anyway, and calls for nothing.
        let Some(row) = self.sinks.get(&sink).filter(|row| !row.observes) else { return false };
        datapaths.iter().all(|datapath| row.datapaths.get(datapath).is_some_and(active))
    }

    /// Brings the routes of a conversation, and its sources' connections to datapaths,
    /// in line with who is interested.
    pub(super) fn update_routes(&mut self, topic: Topic) {
        self.changes += 1;
        let Some(channel) = self.channels.get(&topic) else { return };
        let sources: Vec<SourceId> = channel.sources.iter().copied().collect();
        self.update_refusals(topic);
        let wanted = self.wanted_routes(topic);
        self.set_routes(topic, &wanted);
        for source in sources {
            self.connect_source(source, &wanted);
        }
        self.remove_routes(topic, &wanted);
        if self.channels.get(&topic).is_some_and(super::tables::Channel::is_unused) {
            self.channels.remove(&topic);
        }
    }

    /// Where the sources' messages should go: nowhere without sources.
    fn wanted_routes(&self, topic: Topic) -> BTreeMap<DatapathIndex, Route> {
        let mut wanted: BTreeMap<DatapathIndex, Route> = BTreeMap::new();
        let (Some(channel), Some(contract)) = (self.channels.get(&topic), self.contracts.get(&topic.key)) else {
            return wanted;
        };
        if channel.sources.is_empty() {
            return wanted;
        }
        let ours = self.source_schema(topic);
        let differs = |theirs: &Option<Schema>| ours.zip(*theirs).is_some_and(|(ours, theirs)| !ours.matches(&theirs));
        let meant = || channel.peers.iter().filter(|sinks| sinks.check == contract.check);
        let refused: BTreeSet<PeerIndex> =
            meant().filter(|sinks| differs(&sinks.schema)).map(|sinks| sinks.peer).collect();
        let peers: BTreeSet<PeerIndex> = match self.is_withheld(topic) {
            true => BTreeSet::new(),
            false => meant().map(|sinks| sinks.peer).collect(),
        };
        for peer in peers.difference(&refused) {
            if let Some(datapath) = self.spec.datapath_to(contract.qos.lane(), *peer) {
                let route = wanted.entry(datapath).or_default();
                route.peers.push(*peer);
                if let Some(link) = self.own_link(topic.key, *peer, datapath) {
                    route.links.insert(*peer, link as u8);
                }
            }
        }
        if contract.isolated
            && !channel.sinks.is_empty()
            && let Some(datapath) = self.spec.datapath_of(contract.qos.lane())
        {
            // Sinks that only watch get what is sent anyway: a source that nobody else
            // listens to must not see a receiver. Nor must it see one that its messages
            // would not find yet.
            let has_receiver = channel.sinks.iter().any(|sink| self.receives(*sink, &[datapath]));
            if has_receiver || wanted.contains_key(&datapath) {
                wanted.entry(datapath).or_default().local = true;
            }
        }
        wanted
    }

    fn set_routes(&mut self, topic: Topic, wanted: &BTreeMap<DatapathIndex, Route>) {
        let Some(domain) = self.contracts.get(&topic.key).map(|contract| contract.domain) else { return };
        let Some(channel) = self.channels.get_mut(&topic) else { return };
        for (datapath, route) in wanted {
            if channel.routes.get(datapath) != Some(route) {
                channel.routes.insert(*datapath, route.clone());
                let route = route.clone();
                self.actions.push_back(Action::SetRoute { datapath: *datapath, topic, domain, route });
            }
        }
    }

    /// Removes routes that are not wanted and that no connection needs any more.
    fn remove_routes(&mut self, topic: Topic, wanted: &BTreeMap<DatapathIndex, Route>) {
        let Some(channel) = self.channels.get_mut(&topic) else { return };
        let draining = &channel.draining;
        let actions = &mut self.actions;
        channel.routes.retain(|datapath, _| {
            let stays = wanted.contains_key(datapath) || draining.contains_key(datapath);
            if !stays {
                actions.push_back(Action::RemoveRoute { datapath: *datapath, topic });
            }
            stays
        });
    }

    fn connect_source(&mut self, source: SourceId, wanted: &BTreeMap<DatapathIndex, Route>) {
        let Some(row) = self.sources.get(&source) else { return };
        let missing: Vec<DatapathIndex> =
            wanted.keys().filter(|datapath| !row.datapaths.contains_key(datapath)).copied().collect();
        let spare: Vec<ConnId> =
            row.datapaths.iter().filter(|(datapath, _)| !wanted.contains_key(datapath)).map(|(_, c)| *c).collect();
        for datapath in missing {
            self.join(Ends::ToDatapath { source, datapath }, false);
        }
        for conn in spare {
            self.retire(conn, Tell::Both);
        }
    }
}
