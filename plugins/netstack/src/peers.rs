//! The peers of one link: who they are, which way their frames go, and who sent what came.
//!
//! A peer has two ports, so that both classes of frames are told apart before they are read:
//! real-time frames go from port P to the peer's port P, all others from P+1 to its P+1. In a VLAN
//! frames of one class bear the priorities of their lanes ([`Marks`]).

use crate::ethernet::{self, Mac};
use crate::marks::Marks;
use crate::neighbour::NeighbourId;
use crate::outgoing::Template;
use crate::stack::{Host, Stack};
use core::net::SocketAddr;
use insane_core::limits::PEERS_MAX;
use insane_core::peers::PeerTable;
use insane_core::{Lane, MonoTime, PeerIndex};

/// How many classes there are.
pub const SIDES: usize = 2;

/// Places that the stack of a link needs: one for each peer, and one for a peer that comes before
/// another goes.
pub const NEIGHBOURS: usize = PEERS_MAX + 1;

/// Real-time lanes, or all others. The number is its place in arrays, and what is added to port P.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Of real-time lanes.
    RealTime = 0,
    /// Of all others.
    BestEffort = 1,
}

impl Class {
    /// Both.
    pub const ALL: [Class; SIDES] = [Class::RealTime, Class::BestEffort];

    /// That of a lane.
    #[must_use]
    #[inline]
    pub fn of(lane: Lane) -> Self {
        if lane.is_real_time() { Class::RealTime } else { Class::BestEffort }
    }
}

/// A peer as a link keeps it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// With port P.
    address: SocketAddr,
    /// For both classes.
    templates: [Template; SIDES],
    /// In a VLAN: frames have a tag.
    is_tagged: bool,
    /// Its way, while it is in a link.
    way: Option<NeighbourId>,
}

impl Peer {
    /// One that is reached from port P of `host`. `None`: it cannot be reached from there, is of
    /// another family, or has no such pair of ports.
    #[must_use]
    pub fn new(host: &Host, port: u16, real_time_dscp: u8, address: SocketAddr) -> Option<Self> {
        if address.port() == 0 {
            return None;
        }
        let next = address.port().checked_add(1)?;
        host.next_hop(address.ip())?;
        let marks = |lane| Marks::of(lane, real_time_dscp);
        let real_time = Template::new(host, port, address, marks(Lane::LAST_REAL_TIME))?;
        let to = SocketAddr::new(address.ip(), next);
        let best_effort = Template::new(host, port.checked_add(1)?, to, marks(Lane::LAST))?;
        Some(Peer { address, templates: [real_time, best_effort], is_tagged: host.vlan.is_some(), way: None })
    }

    /// The priority that frames of a lane bear, by which they differ inside their class; 0 without
    /// a VLAN, where nobody sees it.
    #[must_use]
    #[inline]
    pub fn priority(&self, lane: Lane) -> u8 {
        // The code point makes no difference here.
        if self.is_tagged { Marks::of(lane, 0).priority } else { 0 }
    }

    /// Writes the headers of a class, with this priority, in front of a payload:
    /// [`Template::write`].
    #[must_use]
    #[inline]
    pub fn write(&self, class: Class, priority: u8, to: Mac, frame: &mut [u8]) -> bool {
        let is_written = self.template(class).write(to, false, frame);
        if self.is_tagged && is_written {
            ethernet::set_priority(frame, priority);
        }
        is_written
    }

    /// Headers of its frames.
    #[must_use]
    #[inline]
    pub fn template(&self, class: Class) -> &Template {
        &self.templates[class as usize]
    }

    /// Where its frames go, once somebody has answered.
    #[must_use]
    #[inline]
    pub fn mac<const PLACES: usize>(&self, stack: &Stack<PLACES>) -> Option<Mac> {
        self.way.and_then(|way| stack.mac(way))
    }
}

/// Why a peer did not get its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPlace {
    /// There is no such place, or no way to it.
    Full,
    /// The peer at this place has its address.
    Taken(PeerIndex),
}

/// The peers that a link has.
#[derive(Clone, Debug)]
pub struct Peers {
    places: [Option<Peer>; PEERS_MAX],
    /// Who has which address.
    table: PeerTable,
}

impl Default for Peers {
    fn default() -> Self {
        Self::new()
    }
}

impl Peers {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Peers { places: [const { None }; PEERS_MAX], table: PeerTable::new() }
    }

    /// The peer at this place.
    #[must_use]
    #[inline]
    pub fn get(&self, peer: PeerIndex) -> Option<&Peer> {
        self.places.get(peer.index())?.as_ref()
    }

    /// Which peer sends from this address to this class.
    #[inline]
    pub fn find(&mut self, from: SocketAddr, class: Class) -> Option<PeerIndex> {
        // Both of its ports follow from the first.
        self.table.find(SocketAddr::new(from.ip(), from.port().checked_sub(class as u16)?))
    }

    /// Puts `with` in the place of who is there, who comes back in it. Ways are acquired and
    /// released with the stack.
    ///
    /// # Errors
    /// Nothing has changed then.
    pub fn swap<const PLACES: usize>(
        &mut self,
        stack: &mut Stack<PLACES>,
        peer: PeerIndex,
        with: &mut Option<Peer>,
        now: MonoTime,
    ) -> Result<(), NoPlace> {
        let Some(place) = self.places.get_mut(peer.index()) else { return Err(NoPlace::Full) };
        if let Some(new) = with {
            if let Some(by) = self.table.find(new.address).filter(|by| *by != peer) {
                return Err(NoPlace::Taken(by));
            }
            // It may have been prepared when the device was missing, or another.
            new.set_source(stack.host().mac);
            // The way before the other's is let go: the same neighbour keeps its place.
            new.way = stack.acquire(new.address.ip(), now);
            if new.way.is_none() {
                return Err(NoPlace::Full);
            }
        }
        core::mem::swap(place, with);
        if let Some(old) = with {
            self.table.remove(old.address);
            if let Some(way) = old.way.take() {
                stack.release(way);
            }
        }
        if let Some(new) = place {
            // There is one place in the table for each here, and nobody else has the address.
            let _ = self.table.insert(new.address, peer);
        }
        Ok(())
    }

    /// Frames come from this hardware address from now on.
    pub fn set_source(&mut self, mac: Mac) {
        self.places.iter_mut().flatten().for_each(|peer| peer.set_source(mac));
    }
}

impl Peer {
    fn set_source(&mut self, mac: Mac) {
        self.templates.iter_mut().for_each(|template| template.set_source(mac));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::Checksums;

    const NOW: MonoTime = MonoTime(0);

    fn host() -> Host {
        Host {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            address: [10, 0, 0, 1].into(),
            prefix_bits: 24,
            gateway: None,
            vlan: None,
            checksums: Checksums::Verify,
        }
    }

    fn prepared(address: &str) -> Option<Peer> {
        Peer::new(&host(), 7400, 46, address.parse().unwrap())
    }

    #[test]
    fn a_peer_that_cannot_be_reached_is_none() {
        assert!(prepared("10.0.0.2:65534").is_some());
        for address in ["10.0.0.2:0", "10.0.0.2:65535", "10.0.1.2:7400", "[fd00::1]:7400"] {
            assert!(prepared(address).is_none(), "{address}");
        }
    }

    #[test]
    fn peers_are_found_by_the_ports_of_their_class_and_have_one_place_each() {
        let (mut stack, mut peers) = (Stack::<NEIGHBOURS>::new(host()).unwrap(), Peers::new());
        for (place, address) in [(3, "10.0.0.2:7400"), (5, "10.0.0.2:7402")] {
            let mut with = prepared(address);
            assert_eq!(peers.swap(&mut stack, PeerIndex(place), &mut with, NOW), Ok(()));
            assert!(with.is_none());
        }
        let mut find = |from: &str, class| peers.find(from.parse().unwrap(), class).map(|peer| peer.0);
        for _ in 0..2 {
            assert_eq!(find("10.0.0.2:7400", Class::RealTime), Some(3));
            assert_eq!(find("10.0.0.2:7403", Class::BestEffort), Some(5));
            assert_eq!(find("10.0.0.2:7400", Class::BestEffort), None);
            assert_eq!(find("10.0.0.3:7400", Class::RealTime), None);
            assert_eq!(find("10.0.0.2:0", Class::BestEffort), None);
        }
        let mut again = prepared("10.0.0.2:7400");
        assert_eq!(peers.swap(&mut stack, PeerIndex(5), &mut again, NOW), Err(NoPlace::Taken(PeerIndex(3))));
        assert_eq!(peers.swap(&mut stack, PeerIndex(PEERS_MAX as u16), &mut again, NOW), Err(NoPlace::Full));
        assert!(again.is_some(), "it is handed back");
        // In its own place it may be replaced by itself, and the old one comes back without a way.
        assert_eq!(peers.swap(&mut stack, PeerIndex(3), &mut again, NOW), Ok(()));
        assert!(again.is_some_and(|old| old.way.is_none()));
        assert!(stack.is_asking(), "its neighbour is still wanted");
        for place in [3, 5] {
            let mut nobody = None;
            assert_eq!(peers.swap(&mut stack, PeerIndex(place), &mut nobody, NOW), Ok(()));
            assert!(nobody.is_some() && peers.get(PeerIndex(place)).is_none());
        }
        assert!(!stack.is_asking(), "nobody is");
        // Who is gone is known no more, and another may have the address.
        assert_eq!(peers.find("10.0.0.2:7400".parse().unwrap(), Class::RealTime), None);
        let mut with = prepared("10.0.0.2:7400");
        assert_eq!(peers.swap(&mut stack, PeerIndex(9), &mut with, NOW), Ok(()));
        assert_eq!(peers.find("10.0.0.2:7400".parse().unwrap(), Class::RealTime), Some(PeerIndex(9)));
    }
}
