//! Where the messages of each conversation go: to peers, to sinks of this host.
//!
//! A fixed table; a route lives while a source, a sink or a rule of the control plane
//! refers to it. Lookups hash the topic with a fixed, cheap mix: topics come from
//! clients that were let in and from peers that were configured, and a chain is never
//! longer than the table, whose size is bounded.

use crate::command::{Hop, Topic};
use crate::newcomers::PeerSet;
use insane_core::limits::{FANOUT_MAX, PEERS_MAX};
use insane_core::{DomainIndex, PeerIndex};

/// A place in the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RouteIndex(u32);

/// How a message goes to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Way(u8);

impl Way {
    /// By the link by which the peer is reached, whichever that is.
    pub const REACH: Way = Way(u8::MAX);

    /// By the link at this place; `None`: by that by which the peer is reached.
    pub const fn by(link: Option<u8>) -> Way {
        match link {
            Some(link) => Way(link),
            None => Way::REACH,
        }
    }

    /// Place of the link that it names, if it names one.
    #[inline]
    pub const fn link(self) -> Option<u8> {
        if self.0 == Self::REACH.0 { None } else { Some(self.0) }
    }
}

/// Peers, each with the place of the link by which it is reached, if by any.
pub(crate) type Hops = heapless::Vec<(PeerIndex, Option<u8>), PEERS_MAX>;

#[derive(Debug)]
pub(crate) struct Route {
    pub topic: Topic,
    pub domain: DomainIndex,
    /// Who refers to it: sources, sinks, a rule.
    holders: u32,
    pub has_rule: bool,
    /// Counts the changes of `peers`.
    pub version: u32,
    /// Peers that have a sink.
    pub peers: heapless::Vec<PeerIndex, PEERS_MAX>,
    /// The way to each peer, by its number; without meaning for all others.
    ways: [Way; PEERS_MAX],
    /// The peers that are reached as whatever else goes to them: a group may serve these.
    pub usual: PeerSet,
    /// Whether local sinks get local messages from here.
    pub local: bool,
    /// Places of the sinks of this host.
    pub sinks: heapless::Vec<u16, FANOUT_MAX>,
}

impl Route {
    /// From now on these peers have a sink.
    pub fn set_peers(&mut self, hops: &[Hop]) {
        self.peers.clear();
        self.usual = PeerSet::NONE;
        for Hop { peer, link } in hops {
            let Some(way) = self.ways.get_mut(peer.index()) else { continue };
            *way = Way::by(*link);
            if link.is_none() {
                self.usual.add(*peer);
            }
            // As many places as peers have numbers.
            let _ = self.peers.push(*peer);
        }
    }

    /// The way to one of its peers.
    #[inline]
    pub fn way(&self, peer: PeerIndex) -> Way {
        self.ways.get(peer.index()).copied().unwrap_or(Way::REACH)
    }
}

#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Option<Box<Route>>>,
    /// Boxes ready for use, so that a new route allocates nothing.
    #[expect(clippy::vec_box, reason = "the boxes themselves move into `routes`")]
    spare: Vec<Box<Route>>,
    free: Vec<u32>,
    /// Open addressing, linear; `EMPTY` ends a chain. Twice as many places as routes.
    index: Box<[u32]>,
}

const EMPTY: u32 = u32::MAX;

impl Routes {
    pub fn new(capacity: usize) -> Self {
        let blank = || {
            Box::new(Route {
                topic: Topic { key: insane_core::StreamKey(0), channel: insane_core::ChannelId(0) },
                domain: DomainIndex(0),
                holders: 0,
                has_rule: false,
                version: 0,
                peers: heapless::Vec::new(),
                ways: [Way::REACH; PEERS_MAX],
                usual: PeerSet::NONE,
                local: false,
                sinks: heapless::Vec::new(),
            })
        };
        Routes {
            routes: (0..capacity).map(|_| None).collect(),
            spare: (0..capacity).map(|_| blank()).collect(),
            free: (0..capacity as u32).rev().collect(),
            index: vec![EMPTY; (capacity * 2).next_power_of_two()].into(),
        }
    }

    fn home(&self, topic: Topic) -> usize {
        let mixed = (topic.key.0 ^ u64::from(topic.channel.0).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> 32) as usize & (self.index.len() - 1)
    }

    pub fn find(&self, topic: Topic) -> Option<RouteIndex> {
        let mut at = self.home(topic);
        loop {
            let place = self.index[at];
            if place == EMPTY {
                return None;
            }
            if self.routes[place as usize].as_ref().is_some_and(|route| route.topic == topic) {
                return Some(RouteIndex(place));
            }
            at = (at + 1) & (self.index.len() - 1);
        }
    }

    pub fn get(&self, index: RouteIndex) -> Option<&Route> {
        self.routes[index.0 as usize].as_deref()
    }

    pub fn get_mut(&mut self, index: RouteIndex) -> Option<&mut Route> {
        self.routes[index.0 as usize].as_deref_mut()
    }

    /// The route of a topic, one more holder; `None` if the table is full, or the topic
    /// belongs to another domain.
    pub fn hold(&mut self, topic: Topic, domain: DomainIndex) -> Option<RouteIndex> {
        if let Some(index) = self.find(topic) {
            let route = self.get_mut(index)?;
            if route.domain != domain {
                return None;
            }
            route.holders += 1;
            return Some(index);
        }
        let place = self.free.pop()?;
        let mut route = self.spare.pop()?;
        route.topic = topic;
        route.domain = domain;
        route.holders = 1;
        route.has_rule = false;
        route.local = false;
        route.set_peers(&[]);
        route.sinks.clear();
        self.routes[place as usize] = Some(route);
        let mut at = self.home(topic);
        while self.index[at] != EMPTY {
            at = (at + 1) & (self.index.len() - 1);
        }
        self.index[at] = place;
        Some(RouteIndex(place))
    }

    /// One holder less.
    pub fn release(&mut self, index: RouteIndex) {
        let Some(route) = self.get_mut(index) else { return };
        route.holders -= 1;
        if route.holders > 0 {
            return;
        }
        let topic = route.topic;
        let mut at = self.home(topic);
        while self.index[at] != index.0 {
            at = (at + 1) & (self.index.len() - 1);
        }
        self.close_gap(at);
        if let Some(route) = self.routes[index.0 as usize].take() {
            self.spare.push(route);
            self.free.push(index.0);
        }
    }

    /// Moves later members of the chain forward, so that no chain has a hole.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.index.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let place = self.index[at];
            if place == EMPTY {
                break;
            }
            let home = self.routes[place as usize].as_ref().map_or(at, |route| self.home(route.topic));
            // It may move to the gap only if the gap lies between its home and its place.
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(gap) & mask) {
                self.index[gap] = place;
                gap = at;
            }
        }
        self.index[gap] = EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::{ChannelId, StreamKey};
    use std::collections::HashMap;

    fn topic(number: u64) -> Topic {
        Topic { key: StreamKey(number / 3), channel: ChannelId(number as u32 % 3) }
    }

    #[test]
    fn behaves_like_a_map_whatever_comes_and_goes() {
        let mut routes = Routes::new(64);
        let mut model: HashMap<u64, (RouteIndex, u32)> = HashMap::new();
        let mut state = 7_u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = (state >> 33) % 90;
            if state & (1 << 32) == 0 {
                match (routes.hold(topic(number), DomainIndex(0)), model.len()) {
                    (Some(index), _) => model.entry(number).or_insert((index, 0)).1 += 1,
                    (None, len) => assert_eq!(len, 64),
                }
            } else if let Some((index, holders)) = model.get_mut(&number) {
                routes.release(*index);
                *holders -= 1;
                if *holders == 0 {
                    model.remove(&number);
                }
            }
            let found = routes.find(topic(number));
            assert_eq!(found, model.get(&number).map(|entry| entry.0));
        }
    }

    #[test]
    fn another_domain_cannot_join_a_topic() {
        let mut routes = Routes::new(2);
        assert!(routes.hold(topic(1), DomainIndex(0)).is_some());
        assert!(routes.hold(topic(1), DomainIndex(1)).is_none());
    }
}
