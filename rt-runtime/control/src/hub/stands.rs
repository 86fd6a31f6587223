//! By which link each stream with slots goes, and what becomes of it when that fails.
//!
//! A slot is room of one thread and of one link. The thread of a datapath sends by one link at a
//! time, and its slots are counted with the worst numbers of all its links: so what is admitted
//! here is checked once more on each of the others (`SlotBook::holds`), and where the checker
//! agrees the stream holds an *alternate certificate*. A stream that a schedule of several hosts
//! names holds one only where the schedule plans slots for it on another link of the datapath.
//!
//! A stream moves as a whole, with all its sources and to all its peers, by a table: the datapath
//! changes links when that takes over, at a boundary of its cycle (`insane_engine::SlotLinks`).
//! First comes where somebody has placed it, then the policy's choice, then the link by which its
//! peers are reached as long as nothing failed, then the others in their order. Of these it goes
//! by the first on which it holds a certificate, that reaches all its peers, and that has failed
//! to none. Where there is none, it stays or goes without slots, as `on_link_loss` of its
//! declaration says, and that is alarmed and counted.

use super::slots::SlotBook;
use super::{Hub, Reach, Refusal};
use crate::action::{Action, Note, Topic};
use insane_config::{LinkLoss, StreamPlan};
use insane_core::{ChannelId, DatapathIndex, MonoTime, PeerIndex, StreamKey};
use insane_wire::control::Code;
use std::collections::{BTreeMap, BTreeSet};

/// A stream with slots, at the datapath that sends it.
type At = (StreamKey, DatapathIndex);

/// Where a stream with slots stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stand {
    /// The link by which it goes; `None`: each peer by the one that is preferred there.
    pub link: Option<usize>,
    /// What is wrong.
    pub state: State,
}

/// What is wrong with where a stream with slots stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// Nothing: it has its slots on a link that works, as far as is known.
    #[default]
    InSlots,
    /// Its link has failed, and it has no other to go to.
    Stays,
    /// Its link has failed, and it goes without slots by the one by which all else goes.
    Degraded,
}

impl State {
    /// In reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::InSlots => "in slots",
            State::Stays => "stays",
            State::Degraded => "degraded",
        }
    }
}

/// What became of a stream with slots since its first source came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Moves from one link to another.
    pub moves: u64,
    /// How often its link failed and it stayed there.
    pub stays: u64,
    /// How often it went without slots.
    pub degradations: u64,
}

/// As [`Stand`], with what became of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    pub(super) stand: Stand,
    pub(super) tally: Tally,
}

/// What a report says of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandView {
    /// Where it stands.
    pub stand: Stand,
    /// What became of it.
    pub tally: Tally,
    /// Links on which it holds a certificate, by their places.
    pub held: Vec<usize>,
    /// What it does without one.
    pub on_link_loss: LinkLoss,
}

impl Hub {
    /// Looks where streams with slots are to stand, if anything may have changed that, and lets
    /// their datapaths know. To be called at each event.
    pub fn tend_stands(&mut self, now: MonoTime) {
        // A table that waits for its instant is not replaced before.
        if self.stands_of == Some(self.changes) || self.armed.is_some() {
            return;
        }
        let seen = self.changes;
        let (dirty, is_done) = self.decide_stands(Some(now));
        for datapath in dirty {
            self.stage(datapath, None);
        }
        self.stands_of = is_done.then_some(seen);
    }

    /// Decides anew; datapaths that need another table, and whether nothing has to wait. `now`:
    /// what was moved a moment ago waits.
    pub(super) fn decide_stands(&mut self, now: Option<MonoTime>) -> (BTreeSet<DatapathIndex>, bool) {
        let all = self.with_slots();
        self.stands.retain(|at, _| all.contains(at));
        let (mut dirty, mut is_done) = (BTreeSet::new(), true);
        for at in all {
            let before = self.stands.entry(at).or_default().stand;
            let after = self.wanted_stand(at, before);
            if after == before {
                continue;
            }
            let (key, datapath) = at;
            let has_moved =
                (before.link, before.state == State::Degraded) != (after.link, after.state == State::Degraded);
            if has_moved && let Some(now) = now {
                if self.moved_slots.get(&key).is_some_and(|at| now.since(*at) < super::MOVE_PERIOD) {
                    is_done = false;
                    continue;
                }
                self.moved_slots.insert(key, now);
                dirty.insert(datapath);
            }
            self.stand(at, after);
        }
        if let Some(now) = now {
            self.moved_slots.retain(|_, at| now.since(*at) < super::MOVE_PERIOD);
        }
        (dirty, is_done)
    }

    fn stand(&mut self, at: At, after: Stand) {
        let (key, datapath) = at;
        let standing = self.stands.entry(at).or_default();
        let before = std::mem::replace(&mut standing.stand, after);
        let tally = &mut standing.tally;
        tally.moves += u64::from(before.link != after.link && after.state != State::Degraded);
        tally.stays += u64::from(before.state != State::Stays && after.state == State::Stays);
        tally.degradations += u64::from(before.state != State::Degraded && after.state == State::Degraded);
        let stream = self.contracts.get(&key).map(|contract| contract.name.clone()).unwrap_or_default();
        self.note(Note::SlotsStand { datapath, stream, before, after });
        if (before.state == State::Degraded) != (after.state == State::Degraded) {
            self.update_routes_of(key);
        }
    }

    /// Every stream that has slots, at the datapath where it has them.
    fn with_slots(&self) -> BTreeSet<At> {
        let books =
            self.slots.iter().enumerate().filter_map(|(at, book)| Some((DatapathIndex(at as u8), book.as_ref()?)));
        books.flat_map(|(datapath, book)| book.keys().map(move |key| (key, datapath))).collect()
    }

    /// The peers that have a sink of a channel of the stream which has a source here.
    fn hearers(&self, key: StreamKey) -> BTreeSet<PeerIndex> {
        let all = Topic { key, channel: ChannelId(0) }..=Topic { key, channel: ChannelId(u32::MAX) };
        let Some(contract) = self.contracts.get(&key) else { return BTreeSet::new() };
        let sending = self.channels.range(all).filter(|(_, channel)| !channel.sources.is_empty());
        let meant = sending.flat_map(|(_, channel)| channel.peers.iter().filter(|sinks| sinks.check == contract.check));
        meant.map(|sinks| sinks.peer).collect()
    }

    fn wanted_stand(&self, at: At, before: Stand) -> Stand {
        let (key, datapath) = at;
        let peers = self.hearers(key);
        let reaches: Vec<Option<&Reach>> = peers.iter().map(|peer| self.links.get(&(*peer, datapath))).collect();
        let known = || reaches.iter().flatten().copied();
        let common = |of: &BTreeMap<(StreamKey, PeerIndex), usize>| {
            let mut links = peers.iter().map(|peer| of.get(&(key, *peer)).copied());
            let first = links.next()??;
            links.all(|link| link == Some(first)).then_some(first)
        };
        let held = self.held(at);
        let wished = common(&self.placed).into_iter().chain(common(&self.chosen)).map(Some);
        let order = wished.chain([None]).chain(held.iter().copied().map(Some));
        let is_home =
            |link: usize| !peers.is_empty() && reaches.iter().all(|reach| reach.is_some_and(|r| r.home == link));
        let plain = order.map(|link| link.filter(|link| !is_home(*link)));
        let works = |link: &Option<usize>| {
            let reached = link.is_none_or(|link| {
                held.contains(&link) && reaches.iter().all(|reach| reach.is_some_and(|r| r.links.contains(&link)))
            });
            reached && known().all(|reach| !reach.failed.contains(&link.unwrap_or(reach.home)))
        };
        if let Some(link) = plain.into_iter().find(works) {
            return Stand { link, state: State::InSlots };
        }
        // Another schedule may have taken the certificate of the link that it is on.
        let link = before.link.filter(|link| held.contains(link));
        // Where every link failed, all else stays, too: nobody knows a better one.
        let knows_better = |reach: &Reach| {
            let own = link.unwrap_or(reach.home);
            reach.failed.contains(&own) && reach.link != own
        };
        match (self.on_link_loss(key), before.state) {
            (LinkLoss::Degrade, State::Degraded) => before,
            (LinkLoss::Degrade, _) if known().any(knows_better) => Stand { link: None, state: State::Degraded },
            _ => Stand { link, state: State::Stays },
        }
    }

    /// Links on which all sources of a stream hold a certificate, and on which it may be.
    fn held(&self, (key, datapath): At) -> Vec<usize> {
        let Some(book) = self.slots.get(datapath.index()).and_then(Option::as_ref) else { return Vec::new() };
        let named = self.declaration(key).and_then(|declared| declared.alternates.as_ref());
        let links = book.spec.links.iter().enumerate();
        let allowed = links.filter(|(_, link)| named.is_none_or(|named| named.contains(&link.name)));
        allowed.map(|(at, _)| at).filter(|link| book.holds(key, *link)).collect()
    }

    fn declaration(&self, key: StreamKey) -> Option<&StreamPlan> {
        self.declared(self.contracts.get(&key)?)
    }

    fn on_link_loss(&self, key: StreamKey) -> LinkLoss {
        self.declaration(key).and_then(|declared| declared.on_link_loss).unwrap_or_default()
    }

    /// Where a stream with slots stands; `None`: it has none at that datapath.
    pub(super) fn standing(&self, key: StreamKey, datapath: DatapathIndex) -> Option<Stand> {
        self.stands.get(&(key, datapath)).map(|standing| standing.stand)
    }

    /// Everything that a report says of a stream with slots; `None`: it has none.
    #[must_use]
    pub fn stand_of(&self, key: StreamKey, datapath: DatapathIndex) -> Option<StandView> {
        let at = (key, datapath);
        let standing = self.stands.get(&at)?;
        let (stand, tally) = (standing.stand, standing.tally);
        Some(StandView { stand, tally, held: self.held(at), on_link_loss: self.on_link_loss(key) })
    }

    /// Streams with slots that have lost something: their names, peers, datapath, and where they
    /// stand.
    #[must_use]
    pub fn alarms(&self) -> Vec<(&str, DatapathIndex, Stand)> {
        let wrong = self.stands.iter().filter(|(_, standing)| standing.stand.state != State::InSlots);
        wrong.filter_map(|((key, at), s)| Some((self.contracts.get(key)?.name.as_str(), *at, s.stand))).collect()
    }

    /// Whether a stream with slots may be placed on a link, by its place.
    ///
    /// # Errors
    /// It holds no certificate there, or not all its peers are reached by it, or some of them are
    /// left out by `peers`.
    pub fn may_place(
        &self,
        (key, datapath): (StreamKey, DatapathIndex),
        link: Option<usize>,
        peers: &[PeerIndex],
    ) -> Result<(), Refusal> {
        if self.standing(key, datapath).is_none() {
            return Ok(());
        }
        let refuse = |reason: &str| Err(Refusal::new(Code::NotAdmitted, reason));
        let hearers = self.hearers(key);
        if hearers.iter().any(|peer| !peers.contains(peer)) {
            return refuse(
                "a stream with slots moves to all its peers at once, and the link does not reach all, or not all are named",
            );
        }
        let home = |peer: &PeerIndex| self.links.get(&(*peer, datapath)).map(|reach| reach.home);
        match link {
            Some(link)
                if !self.held((key, datapath)).contains(&link)
                    && hearers.iter().any(|peer| home(peer) != Some(link)) =>
            {
                refuse("the stream has slots, and holds no certificate on that link")
            }
            _ => Ok(()),
        }
    }

    /// Sends a datapath the table of those who have slots there.
    pub(super) fn stage(&mut self, datapath: DatapathIndex, at: Option<MonoTime>) {
        let Some(book) = self.slots.get(datapath.index()).and_then(Option::as_ref) else { return };
        let (streams, links) = book.table(|key| self.standing(key, datapath).unwrap_or_default());
        let arrivals = Box::new(book.arrivals());
        self.actions.push_back(Action::StageSlots { datapath, streams, links, arrivals, at });
    }
}

impl SlotBook {
    /// The streams that have slots, each as often as it has sources.
    fn keys(&self) -> impl Iterator<Item = StreamKey> {
        self.all().map(|entry| entry.asked.key)
    }
}
