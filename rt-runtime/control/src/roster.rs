//! The peers there are, by their numbers. Pure.
//!
//! A number of a peer that left is not given to another before nothing names it any more:
//! every datapath has said that it forgot the peer, and after that its queue to the control
//! plane has been empty once, so that no frame of the old peer waits in it. Free numbers are
//! taken in turn, so that the one that became free last is used last.

use insane_config::Plan;
use insane_core::limits::PEERS_MAX;
use insane_core::{HostId, PeerIndex};
use std::net::SocketAddr;

/// How often a datapath is told to forget a peer: before and after it is told of the routes
/// without it. What it still holds for the peer is counted the first time; what a route made
/// it begin meanwhile goes with the second.
pub(crate) const FORGET_TWICE: u8 = 2;

/// Where a peer is known from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PeerSource {
    /// The configuration: it comes and goes with it.
    Configuration,
    /// Discovery: a reload leaves it alone.
    Discovery,
}

impl PeerSource {
    /// The name in reports.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            PeerSource::Configuration => "configuration",
            PeerSource::Discovery => "discovery",
        }
    }
}

/// One peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) source: PeerSource,
    /// Who it is, where that is known before it answers.
    pub(crate) host: Option<HostId>,
    /// Its address at each link of each datapath, in the runtime's order.
    pub(crate) addresses: Vec<Vec<Option<SocketAddr>>>,
}

impl Entry {
    /// The peer at this place of `plan`, with the links in the order of `running`.
    pub(crate) fn of(running: &Plan, plan: &Plan, at: usize) -> Entry {
        let links = || plan.datapaths.iter().flat_map(|datapath| &datapath.links);
        let address = |name: &str| links().find(|link| link.name == name)?.peers.get(at).copied().flatten();
        let of_datapath = |links: &[insane_config::LinkPlan]| links.iter().map(|link| address(&link.name)).collect();
        Entry {
            name: plan.peers[at].name.clone(),
            source: PeerSource::Configuration,
            host: None,
            addresses: running.datapaths.iter().map(|datapath| of_datapath(&datapath.links)).collect(),
        }
    }

    /// By which link of a datapath it is reached, as long as nothing is known of them: the
    /// first that has an address for it.
    pub(crate) fn reach(&self, datapath: usize) -> Option<usize> {
        self.addresses.get(datapath)?.iter().position(Option::is_some)
    }

    /// Whether both cannot be: they have a name or an address in common.
    pub(crate) fn is_like(&self, other: &Entry) -> bool {
        // Each link uses its port and the next one.
        let overlap = |a: SocketAddr, b: SocketAddr| a.ip() == b.ip() && a.port().abs_diff(b.port()) <= 1;
        let has = |(datapath, link, address)| {
            other.each().any(|(d, l, theirs)| (d, l) == (datapath, link) && overlap(theirs, address))
        };
        self.name == other.name || self.each().any(has)
    }

    /// Every address it has: datapath, link, address.
    pub(crate) fn each(&self) -> impl Iterator<Item = (usize, usize, SocketAddr)> + '_ {
        let links = |(at, links): (usize, &'_ Vec<Option<SocketAddr>>)| {
            let known: Vec<_> =
                links.iter().enumerate().filter_map(|(link, address)| Some((at, link, (*address)?))).collect();
            known
        };
        self.addresses.iter().enumerate().flat_map(links)
    }
}

/// What is still awaited of a datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wait {
    /// That it says so often that it has forgotten the peer.
    Forgets(u8),
    /// That its queue has been empty once.
    Drains,
    Nothing,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    Free,
    Taken(Entry),
    Leaving(Vec<Wait>),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Roster {
    places: Vec<Place>,
    /// Where the search for a free place begins.
    next: usize,
}

impl Roster {
    /// The peers of a plan, each at its number there.
    pub(crate) fn new(plan: &Plan) -> Self {
        let place = |at| if at < plan.peers.len() { Place::Taken(Entry::of(plan, plan, at)) } else { Place::Free };
        Roster { places: (0..PEERS_MAX).map(place).collect(), next: plan.peers.len() % PEERS_MAX }
    }

    pub(crate) fn get(&self, peer: PeerIndex) -> Option<&Entry> {
        match self.places.get(peer.index())? {
            Place::Taken(entry) => Some(entry),
            Place::Free | Place::Leaving(_) => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (PeerIndex, &Entry)> {
        (0..PEERS_MAX as u16).map(PeerIndex).filter_map(|peer| Some((peer, self.get(peer)?)))
    }

    /// So many free numbers; `None` if there are fewer. They are taken by
    /// [`insert`](Self::insert).
    pub(crate) fn free(&self, count: usize) -> Option<Vec<PeerIndex>> {
        let numbers = (0..PEERS_MAX).map(|step| (self.next + step) % PEERS_MAX);
        let free = numbers.filter(|at| self.places[*at] == Place::Free).map(|at| PeerIndex(at as u16));
        let free: Vec<_> = free.take(count).collect();
        (free.len() == count).then_some(free)
    }

    /// Peers that there are, and numbers of peers that left and are not free yet.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let leaving = self.places.iter().filter(|place| matches!(place, Place::Leaving(_))).count();
        (self.iter().count(), leaving)
    }

    pub(crate) fn insert(&mut self, peer: PeerIndex, entry: Entry) {
        self.places[peer.index()] = Place::Taken(entry);
        self.next = (peer.index() + 1) % PEERS_MAX;
    }

    /// The peer leaves; each of so many datapaths is told [`FORGET_TWICE`].
    pub(crate) fn remove(&mut self, peer: PeerIndex, datapaths: usize) {
        self.places[peer.index()] = Place::Leaving(vec![Wait::Forgets(FORGET_TWICE); datapaths]);
    }

    /// A datapath has said once that it has forgotten a peer.
    pub(crate) fn forgotten(&mut self, datapath: usize, peer: PeerIndex) {
        if let Some(Place::Leaving(waits)) = self.places.get_mut(peer.index())
            && let Some(wait) = waits.get_mut(datapath)
            && let Wait::Forgets(times) = wait
        {
            *wait = if *times > 1 { Wait::Forgets(*times - 1) } else { Wait::Drains };
        }
    }

    /// Nothing of a datapath waits for the control plane.
    pub(crate) fn drained(&mut self, datapath: usize) {
        for place in &mut self.places {
            let Place::Leaving(waits) = place else { continue };
            if waits.get(datapath) == Some(&Wait::Drains) {
                waits[datapath] = Wait::Nothing;
            }
            if waits.iter().all(|wait| *wait == Wait::Nothing) {
                *place = Place::Free;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry { name: name.into(), source: PeerSource::Configuration, host: None, addresses: vec![] }
    }

    fn empty() -> Roster {
        Roster::new(&Plan::embedded_default())
    }

    #[test]
    fn a_number_is_not_used_again_before_nothing_names_it() {
        let mut roster = empty();
        roster.insert(PeerIndex(0), entry("a"));
        roster.remove(PeerIndex(0), 2);
        let is_free = |roster: &Roster| roster.free(PEERS_MAX).is_some();
        assert_eq!(roster.counts(), (0, 1));
        for _ in 0..FORGET_TWICE {
            roster.drained(0);
            roster.drained(1);
            assert!(!is_free(&roster), "it has not been forgotten");
            roster.forgotten(0, PeerIndex(0));
        }
        roster.forgotten(0, PeerIndex(0));
        roster.drained(0);
        assert!(!is_free(&roster), "the other datapath has not");
        for _ in 0..FORGET_TWICE {
            roster.forgotten(1, PeerIndex(0));
        }
        assert!(!is_free(&roster), "frames of it may wait");
        roster.drained(1);
        assert!(is_free(&roster));
    }

    #[test]
    fn the_number_that_became_free_last_is_used_last() {
        let mut roster = empty();
        let mut used = Vec::new();
        for _ in 0..PEERS_MAX {
            let peer = roster.free(1).unwrap()[0];
            roster.insert(peer, entry("a"));
            roster.remove(peer, 1);
            for _ in 0..FORGET_TWICE {
                roster.forgotten(0, peer);
            }
            roster.drained(0);
            used.push(peer);
        }
        used.sort_unstable();
        used.dedup();
        assert_eq!(used.len(), PEERS_MAX);
        for peer in roster.free(PEERS_MAX).unwrap() {
            roster.insert(peer, entry("b"));
        }
        assert_eq!((roster.free(1), roster.counts()), (None, (PEERS_MAX, 0)));
        roster.forgotten(0, PeerIndex(3));
        assert_eq!(roster.counts(), (PEERS_MAX, 0), "a late word about a peer that is there means nothing");
    }
}
