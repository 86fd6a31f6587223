//! By which link of its datapath a stream goes to each peer, and moves from one to another.
//!
//! A stream goes as whatever else goes to the peer, unless the policy has chosen another link
//! for it, or somebody has placed it by hand, which goes first; a link that failed is left by
//! all. A stream with slots is the exception: it goes where its certificates let it, by a table
//! of slots (module [`stands`](super::stands)), and not by a route.

use super::stands::State;
use super::{Hub, Refusal};
use crate::action::{Action, Topic};
use insane_core::{ChannelId, DatapathIndex, Determinism, DomainIndex, MonoTime, Nanos, PeerIndex, StreamKey};
use insane_wire::control::Code;
use std::collections::{BTreeMap, BTreeSet};

/// A stream is not moved again before so long: receivers tell four moves apart
/// (`insane_wire::data::Leg`), and keep what overtook for 20 ms.
pub const MOVE_PERIOD: Nanos = Nanos::from_millis(50);

/// What is known of the links of one datapath to a peer, by their places there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The preferred one.
    pub home: usize,
    /// The one by which the peer is reached now.
    pub link: usize,
    /// All that have an address of the peer.
    pub links: BTreeSet<usize>,
    /// Those that have failed.
    pub failed: BTreeSet<usize>,
}

/// Why a stream goes by the link it goes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// It has slots there, and no reason to go elsewhere.
    Tied,
    /// It has slots, and holds an alternate certificate on that link, where it went.
    Alternate,
    /// It has slots there, the link has failed, and it has no other to go to.
    Stays,
    /// The link of its slots has failed: it goes without, as whatever else goes to the peer.
    Degraded,
    /// Somebody has placed it there.
    Placed,
    /// The policy chose it, and it is another than that of whatever else goes to the peer.
    Chosen,
    /// As whatever else goes to the peer.
    Usual,
}

impl Hub {
    /// Links to a peer failed, or came back.
    pub fn set_links(&mut self, peer: PeerIndex, datapath: DatapathIndex, reach: Reach) {
        let (home, link) = (reach.home, reach.link);
        let before = self.links.insert((peer, datapath), reach).map_or(home, |before| before.link);
        let topics: Vec<Topic> = self
            .channels
            .iter()
            .filter(|(_, c)| c.peers.iter().any(|sinks| sinks.peer == peer))
            .map(|(topic, _)| *topic)
            .collect();
        let reached = (before != link).then_some(Action::SetReach { datapath, peer, link: link as u8 });
        // What stays is to be told so before all the rest moves, and may follow it home.
        let (first, last) = if link == home { (reached, None) } else { (None, reached) };
        self.actions.extend(first);
        topics.into_iter().for_each(|topic| self.update_routes(topic));
        self.actions.extend(last);
    }

    /// The link by which messages of a stream go to a peer, if it is another than that of
    /// whatever else goes there.
    pub(super) fn own_link(&self, key: StreamKey, peer: PeerIndex, datapath: DatapathIndex) -> Option<usize> {
        let reach = self.links.get(&(peer, datapath));
        let stand = self.standing(key, datapath);
        if stand.is_some_and(|stand| stand.state == State::Degraded) {
            return None;
        }
        if self.is_tied(key, datapath) {
            // Its table may say otherwise; a route never does.
            return reach.filter(|reach| reach.link != reach.home).map(|reach| reach.home);
        }
        let stands = |link: &&usize| reach.is_none_or(|reach| !reach.failed.contains(link));
        let placed = self.placed.get(&(key, peer)).filter(stands);
        placed.or_else(|| self.chosen.get(&(key, peer)).filter(stands)).copied()
    }

    /// Why a stream goes to a peer as it does.
    #[must_use]
    pub fn way_of(&self, key: StreamKey, peer: PeerIndex, datapath: DatapathIndex) -> Way {
        let own = self.own_link(key, peer, datapath);
        if self.is_tied(key, datapath) {
            let stand = self.standing(key, datapath).unwrap_or_default();
            match (stand.state, stand.link) {
                (State::Degraded, _) => Way::Degraded,
                (State::Stays, _) => Way::Stays,
                (State::InSlots, Some(_)) => Way::Alternate,
                (State::InSlots, None) => Way::Tied,
            }
        } else if own.is_none() {
            Way::Usual
        } else if own == self.placed.get(&(key, peer)).copied() {
            Way::Placed
        } else {
            Way::Chosen
        }
    }

    /// What the policy chose for a stream and a peer last, if that is another link than that of
    /// whatever else goes there.
    #[must_use]
    pub fn chosen(&self, key: StreamKey, peer: PeerIndex) -> Option<usize> {
        self.chosen.get(&(key, peer)).copied()
    }

    /// The policy has chosen: from now on streams go to peers by these links, and all others as
    /// whatever else goes there. A stream that was moved a moment ago stays until it is chosen
    /// for once more; says whether there was none.
    #[must_use]
    pub fn choose(&mut self, wanted: &BTreeMap<(StreamKey, PeerIndex), usize>, now: MonoTime) -> bool {
        self.moved_at.retain(|_, at| now.since(*at) < MOVE_PERIOD);
        let known = wanted.keys().chain(self.chosen.keys());
        let others: BTreeSet<StreamKey> =
            known.filter(|flow| wanted.get(flow) != self.chosen.get(flow)).map(|(key, _)| *key).collect();
        let mut is_done = true;
        for key in others {
            if self.moved_at.contains_key(&key) {
                is_done = false;
                continue;
            }
            self.moved_at.insert(key, now);
            // Many may move at once: of each no more is looked at than is its own.
            let flows = (key, PeerIndex(0))..=(key, PeerIndex(u16::MAX));
            let gone: Vec<_> = self.chosen.range(flows.clone()).map(|(flow, _)| *flow).collect();
            for flow in gone {
                self.chosen.remove(&flow);
            }
            self.chosen.extend(wanted.range(flows).map(|(flow, link)| (*flow, *link)));
            self.update_routes_of(key);
        }
        is_done
    }

    /// Counts what may have changed flows, or the links by which they go.
    #[must_use]
    pub const fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn update_routes_of(&mut self, key: StreamKey) {
        let all = Topic { key, channel: ChannelId(0) }..=Topic { key, channel: ChannelId(u32::MAX) };
        let topics: Vec<Topic> = self.channels.range(all).map(|(topic, _)| *topic).collect();
        topics.into_iter().for_each(|topic| self.update_routes(topic));
    }

    /// Whether a stream has slots at a datapath, and so cannot move.
    fn is_tied(&self, key: StreamKey, datapath: DatapathIndex) -> bool {
        let has_cycle = |qos: &insane_core::Qos| matches!(qos.determinism, Determinism::TimeSensitive { .. });
        self.has_slots(datapath) && self.contracts.get(&key).is_some_and(|contract| has_cycle(&contract.qos))
    }

    /// The link by which messages of a stream go to a peer; `None`: by that by which everything
    /// goes as long as nothing failed.
    #[must_use]
    pub fn link_of(&self, key: StreamKey, peer: PeerIndex, datapath: DatapathIndex) -> Option<usize> {
        let reach = || self.links.get(&(peer, datapath)).map(|reach| reach.link);
        let stand = self.standing(key, datapath).and_then(|stand| stand.link);
        stand.or_else(|| self.own_link(key, peer, datapath)).or_else(reach)
    }

    /// The datapath by which a stream of a domain goes out.
    ///
    /// # Errors
    /// There is no such stream.
    pub fn movable(&self, domain: DomainIndex, name: &str) -> Result<(StreamKey, DatapathIndex), Refusal> {
        let is_it = |contract: &&super::Contract| contract.domain == domain && contract.name == name;
        let found = self.contracts.iter().find(|(_, contract)| is_it(contract));
        let Some((key, contract)) = found else {
            return Err(Refusal::new(Code::Unknown, format!("no stream {name:?} is open in the domain")));
        };
        let Some(datapath) = self.spec.datapath_of(contract.qos.lane()) else {
            return Err(Refusal::new(Code::Unknown, format!("no datapath serves the lane of stream {name:?}")));
        };
        Ok((*key, datapath))
    }

    /// From now on messages of a stream go to these peers by this link; `None`: as whatever
    /// else goes there.
    ///
    /// # Errors
    /// It was moved a moment ago.
    pub fn move_stream(
        &mut self,
        key: StreamKey,
        peers: &[PeerIndex],
        link: Option<usize>,
        now: MonoTime,
    ) -> Result<(), Refusal> {
        self.moved_at.retain(|_, at| now.since(*at) < MOVE_PERIOD);
        if self.moved_at.contains_key(&key) {
            let reason = format!("the stream was moved less than {MOVE_PERIOD} ago; try again");
            return Err(Refusal::new(Code::Quota, reason));
        }
        self.moved_at.insert(key, now);
        for peer in peers {
            match link {
                Some(link) => self.placed.insert((key, *peer), link),
                None => self.placed.remove(&(key, *peer)),
            };
        }
        self.update_routes_of(key);
        Ok(())
    }
}
