//! The links of a datapath, and by which of them a frame goes.

use crate::command::{LINK_TOKEN, PeerSwap, Port};
use crate::newcomers::PeerSet;
use crate::routes::Way;
use insane_core::limits::{LINKS_MAX, PEERS_MAX};
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{Link, SendOutcome, SwapRefused, Unfinished};
use insane_sys::SharedBytes;
use insane_sys::event::{Interest, Trigger};
use insane_wire::data::HEADER_BYTES;

/// Who hears the group of a link.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    hears: PeerSet,
    /// It is used for at least so many; 0: never.
    peers_min: u32,
}

/// How a message goes to several peers at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ByGroup {
    /// Place of the link whose group it goes to.
    pub link: u8,
    /// Whom it serves; all others get frames of their own.
    pub serves: PeerSet,
}

/// The links of one datapath.
#[derive(Debug)]
pub(crate) struct Links<L> {
    pub links: heapless::Vec<L, LINKS_MAX>,
    of_peer: [Option<u8>; PEERS_MAX],
    payload_bytes_max: u32,
    /// Who may be served by the group of each link.
    groups: [Group; LINKS_MAX],
    /// There is such a link.
    has_groups: bool,
    /// A link may hold what found no room at the last flush.
    pub unsent: bool,
    /// Which of them hand frames out in the order in which they were sent.
    pub ordered: [bool; LINKS_MAX],
    /// Frames that are handed over now leave at this instant.
    pub launch: Option<MonoTime>,
}

impl<L: Link> Links<L> {
    pub fn new(parts: Vec<L>, link_of_peer: &[Option<usize>]) -> Self {
        let mut links = heapless::Vec::new();
        for link in parts {
            assert!(links.push(link).is_ok(), "a datapath has at most {LINKS_MAX} links");
        }
        let mut of_peer = [None; PEERS_MAX];
        for (peer, link) in link_of_peer.iter().enumerate().take(PEERS_MAX) {
            of_peer[peer] = link.filter(|link| *link < links.len()).map(|link| link as u8);
        }
        let payload_bytes_max = links
            .iter()
            .map(|link: &L| link.capabilities().frame_bytes_max.saturating_sub(HEADER_BYTES as u32))
            .min()
            .unwrap_or(0);
        let mut ordered = [false; LINKS_MAX];
        ordered.iter_mut().zip(&links).for_each(|(ordered, link)| *ordered = link.capabilities().ordered);
        Links {
            links,
            of_peer,
            payload_bytes_max,
            groups: [Group::default(); LINKS_MAX],
            has_groups: false,
            unsent: false,
            ordered,
            launch: None,
        }
    }

    /// The link by which something goes to a peer.
    #[inline]
    pub fn by(&mut self, peer: PeerIndex, way: Way) -> Option<&mut L> {
        let link = match way.link() {
            Some(link) => link,
            None => (*self.of_peer.get(peer.index())?)?,
        };
        self.links.get_mut(link as usize)
    }

    /// Place of the link by which something goes to a peer.
    pub fn place_of(&self, peer: PeerIndex, way: Way) -> Option<u8> {
        way.link().or_else(|| self.of_peer.get(peer.index()).copied().flatten())
    }

    /// Hands a frame to this link.
    pub fn send_by(
        &mut self,
        link: u8,
        peer: PeerIndex,
        lane: Lane,
        head: &[u8],
        payload: SharedBytes<'_>,
    ) -> SendOutcome {
        match self.links.get_mut(usize::from(link)) {
            Some(link) => link.send(peer, lane, head, payload),
            None => SendOutcome::Failed,
        }
    }

    /// Hands a frame of the control plane to a link, for a peer or for the link's group.
    pub fn say(
        &mut self,
        link: usize,
        peer: Option<PeerIndex>,
        lane: Lane,
        head: &[u8],
        body: SharedBytes<'_>,
    ) -> SendOutcome {
        let Some(link) = self.links.get_mut(link) else { return SendOutcome::Failed };
        let outcome = match peer {
            Some(peer) => link.send(peer, lane, head, body),
            None => link.send_group(lane, head, body),
        };
        link.flush();
        self.unsent = true;
        outcome
    }

    /// From now on a peer is reached by another link, or by none.
    pub fn set_reach(&mut self, peer: PeerIndex, link: Option<u8>) {
        let Some(of_peer) = self.of_peer.get_mut(peer.index()) else { return };
        let link = link.filter(|link| usize::from(*link) < self.links.len());
        if let Some(old) = std::mem::replace(of_peer, link).filter(|old| Some(*old) != link) {
            // The group of a link serves those that are reached by it.
            self.groups[usize::from(old)].hears.remove(peer);
        }
    }

    /// Changes one peer at one link.
    pub fn swap_peer(&mut self, swap: &mut PeerSwap) -> Result<(), SwapRefused> {
        let reach = swap.reach.map(|link| link as u8);
        let of_peer = self.of_peer.get_mut(swap.peer.index()).ok_or(SwapRefused::NoPlace)?;
        let link = self.links.get_mut(swap.link).ok_or(SwapRefused::NoPlace)?;
        // Prepared for a link of another technology: a bug of the control plane, refused.
        let with = swap.place.downcast_mut::<Option<L::Peer>>().ok_or(SwapRefused::NoPlace)?;
        link.swap_peer(swap.peer, with)?;
        // Whoever comes in its place is to be asked first.
        self.groups[swap.link].hears.remove(swap.peer);
        swap.reach = std::mem::replace(of_peer, reach).map(usize::from);
        // What was held back for it may have found no room.
        self.unsent = true;
        Ok(())
    }

    /// Takes note of who hears the group of a link.
    pub fn set_group(&mut self, link: usize, hears: &[PeerIndex], peers_min: u32) {
        let can = self.links.get(link).is_some_and(|link| link.capabilities().multicast);
        let Some(group) = self.groups.get_mut(link).filter(|_| can) else { return };
        let by_link = hears
            .iter()
            .filter(|peer| self.of_peer.get(peer.index()).copied().flatten().is_some_and(|of| usize::from(of) == link));
        let mut known = PeerSet::NONE;
        by_link.for_each(|peer| known.add(*peer));
        *group = Group { hears: known, peers_min };
        self.has_groups = self.groups.iter().any(|group| group.peers_min > 0);
    }

    /// The group by which a message to these peers goes, if one serves enough of them: of
    /// several the first.
    #[inline]
    pub fn group_for(&self, peers: PeerSet) -> Option<ByGroup> {
        if !self.has_groups {
            return None;
        }
        self.groups.iter().zip(0..).find_map(|(group, link)| {
            let serves = peers.and(group.hears);
            let is_worth_it = group.peers_min > 0 && serves.len() >= group.peers_min;
            is_worth_it.then_some(ByGroup { link, serves })
        })
    }

    /// Hands a frame to the link of a group.
    pub fn send_group(&mut self, by: ByGroup, lane: Lane, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
        match self.links.get_mut(usize::from(by.link)) {
            Some(link) => link.send_group(lane, head, payload),
            None => SendOutcome::Failed,
        }
    }

    /// Payload bytes of the smallest frame of all links, so that a fragment fits each.
    pub const fn payload_bytes_max(&self) -> u32 {
        self.payload_bytes_max
    }

    /// What of the frames of these links (a bit each) has not left, as far as they tell; `None`:
    /// none of them does.
    pub fn unfinished(&mut self, asked: u8, best_effort: bool) -> Option<Unfinished> {
        let asked = self.links.iter_mut().enumerate().filter(|(at, _)| asked >> at & 1 != 0);
        let said = asked.filter_map(|(_, link)| link.unfinished(best_effort));
        said.reduce(|a, b| Unfinished { amount: a.amount + b.amount, lag: a.lag.max(b.lag) })
    }

    #[inline]
    pub fn flush(&mut self) {
        self.unsent = false;
        for link in &mut self.links {
            link.flush();
            self.unsent |= link.holds_frames();
        }
    }

    /// Lets every link do what needs the time; whether one has something under way.
    pub fn tend(&mut self, now: MonoTime) -> bool {
        let mut under_way = false;
        for link in &mut self.links {
            under_way |= link.tend(now);
        }
        under_way
    }

    /// Waits for the descriptors of links in the datapath's set; those that are there stay.
    pub fn watch(&self, port: &Port) {
        for fd in self.links.iter().flat_map(Link::readable_fds) {
            let _ = port.epoll().add(fd, LINK_TOKEN, Interest::Read, Trigger::Level);
        }
    }

    /// Whether any link has other descriptors than before.
    pub fn take_new_fds(&mut self) -> bool {
        let mut any = false;
        for link in &mut self.links {
            any |= link.take_new_fds();
        }
        any
    }

    /// Leaves what each link has counted where reports find it.
    pub fn tell_counts(&self, port: &Port) {
        for (at, link) in self.links.iter().enumerate() {
            port.tell_link_counts(at, &link.link_counts());
        }
    }

    /// What launch queues dropped since the last call.
    pub fn launch_drops(&mut self) -> u64 {
        let drops = self.links.iter_mut().map(Link::take_launch_drops);
        drops.map(|drops| drops.missed + drops.refused).sum()
    }

    /// How long a sleep may be at most where no descriptor tells of some link's frames.
    pub fn sleep_max(&self) -> Option<Nanos> {
        self.links.iter().filter_map(Link::sleep_max).min()
    }

    /// Whether a link has something to do of which no descriptor tells.
    #[inline]
    pub fn are_holding(&self) -> bool {
        self.links.iter().any(Link::holds_frames)
    }
}
