//! Ends of two hosts whose schemas differ: the source's host sends nothing, and says so; the
//! sink's host tells its clients.

use super::Hub;
use crate::action::{Action, Note, Topic};
use insane_core::{MonoTime, Nanos, PeerIndex, Schema, SinkId};
use insane_wire::control::Event;
use std::collections::BTreeMap;

/// How often a refusal is said again.
const REPEAT: Nanos = Nanos::from_secs(1);
/// A refusal that was not heard for so long is over: three of them may be lost.
const FORGET: Nanos = Nanos::from_millis(3_500);

impl Hub {
    /// A peer says that its sources on a conversation are of this schema, and send nothing to
    /// the sinks of this host. Believed as far as sinks here do expect another one.
    pub fn remote_refusal(&mut self, peer: PeerIndex, topic: Topic, check: u64, theirs: Schema, now: MonoTime) {
        let is_meant = self.contracts.get(&topic.key).is_some_and(|contract| contract.check == check);
        let Some(channel) = self.channels.get_mut(&topic).filter(|_| is_meant) else { return };
        let sinks = &self.sinks;
        let of_another = |sink: &&SinkId| {
            let schema = sinks.get(sink).filter(|row| !row.observes).and_then(|row| row.schema);
            schema.is_some_and(|ours| !ours.matches(&theirs))
        };
        let refused: Vec<SinkId> = channel.sinks.iter().filter(of_another).copied().collect();
        let Some(ours) = refused.first().and_then(|sink| sinks.get(sink)?.schema) else { return };
        let before = channel.refused_by.insert(peer, (theirs, now));
        self.refused.insert(topic);
        if before.is_none_or(|(schema, _)| schema != theirs) {
            self.note(Note::SchemaRefused { peer, topic, ours, theirs });
        }
        for sink in refused {
            let Some(row) = self.sinks.get_mut(&sink) else { continue };
            // Several peers may refuse it; its client is told of one.
            if row.refused_by.is_none_or(|(by, schema)| by == peer && schema != theirs) {
                row.refused_by = Some((peer, theirs));
                let session = row.session;
                self.send(session, Event::SinkRefused { sink, theirs: Some(theirs) }, Vec::new());
            }
        }
    }

    /// Notes which peers are refused now, and tells those that were not before.
    pub(super) fn update_refusals(&mut self, topic: Topic) {
        let ours = self.source_schema(topic);
        let Some(contract) = self.contracts.get(&topic.key) else { return };
        let check = contract.check;
        let Some(channel) = self.channels.get_mut(&topic) else { return };
        let mut refuses = BTreeMap::new();
        if let Some(ours) = ours {
            let meant = channel.peers.iter().filter(|sinks| sinks.check == check);
            let differ = meant.filter(|sinks| sinks.schema.is_some_and(|theirs| !ours.matches(&theirs)));
            refuses.extend(differ.map(|sinks| (sinks.peer, ours)));
        }
        for (peer, ours) in refuses.iter().filter(|(peer, ours)| channel.refuses.get(peer) != Some(ours)) {
            self.actions.push_back(Action::Refuse { peer: *peer, topic, check, ours: *ours });
        }
        if refuses.is_empty() {
            self.refusing.remove(&topic);
        } else {
            self.refusing.insert(topic);
        }
        channel.refuses = refuses;
    }

    /// Says again what still holds, and forgets what is not heard any more.
    pub(super) fn tend_refusals(&mut self, now: MonoTime) {
        if now >= self.refuse_at && !self.refusing.is_empty() {
            self.refuse_at = now + REPEAT;
            for topic in &self.refusing {
                let (Some(channel), Some(contract)) = (self.channels.get(topic), self.contracts.get(&topic.key)) else {
                    continue;
                };
                let check = contract.check;
                let refuse = |(peer, ours): (&PeerIndex, &Schema)| Action::Refuse {
                    peer: *peer,
                    topic: *topic,
                    check,
                    ours: *ours,
                };
                self.actions.extend(channel.refuses.iter().map(refuse));
            }
            let channels = &self.channels;
            self.refusing.retain(|topic| channels.get(topic).is_some_and(|channel| !channel.refuses.is_empty()));
        }
        for topic in self.refused.clone() {
            self.forget_refusals(topic, now);
        }
    }

    fn forget_refusals(&mut self, topic: Topic, now: MonoTime) {
        let Some(channel) = self.channels.get_mut(&topic) else {
            self.refused.remove(&topic);
            return;
        };
        channel.refused_by.retain(|_, (_, heard_at)| now.since(*heard_at) < FORGET);
        let mut changed = Vec::new();
        for sink in &channel.sinks {
            if let Some(row) = self.sinks.get_mut(sink)
                && let Some((peer, theirs)) = row.refused_by
                && !channel.refused_by.contains_key(&peer)
            {
                let differs = |schema: &Schema| row.schema.is_some_and(|ours| !ours.matches(schema));
                let mut others = channel.refused_by.iter().map(|(peer, (schema, _))| (*peer, *schema));
                row.refused_by = others.find(|(_, schema)| differs(schema));
                let now = row.refused_by.map(|(_, schema)| schema);
                if now != Some(theirs) {
                    changed.push((row.session, *sink, now));
                }
            }
        }
        if channel.refused_by.is_empty() {
            self.refused.remove(&topic);
        }
        for (session, sink, theirs) in changed {
            self.send(session, Event::SinkRefused { sink, theirs }, Vec::new());
        }
    }
}
