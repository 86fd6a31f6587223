//! Who may use links whose capacity is bounded. A pure state machine.
//!
//! Each claim has an importance and an order of wishes. The most important claim gets its
//! first wish that has room, then the next, and so on; of equally important ones the older
//! goes first. So a newcomer of higher importance displaces those of lower importance that are
//! in its way; they get their next wish, and [`Move`] says for whom they made room. When room
//! becomes free, they return. Nobody can get a better wish by giving up another one, and
//! the outcome depends on the claims alone, not on the order in which they came, age apart.
//!
//! What of the capacity belongs to whom is decided anew in each [`Account::settle`]: that is
//! at most [`LINKS_MAX`] looks a claim, after sorting.

use crate::offer::{Amount, Room};
use crate::request::Importance;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use insane_core::limits::LINKS_MAX;
use insane_core::{DatapathIndex, LinkIndex};

/// One link of one datapath.
pub type LinkKey = (DatapathIndex, LinkIndex);

/// Links in the order in which they are wished for.
pub type Wishes = heapless::Vec<LinkKey, LINKS_MAX>;

/// Why a claim has another link than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause<K> {
    /// It is new.
    New,
    /// Its wishes have changed: its quality of service did, or the health of a link.
    Wishes,
    /// A more important claim needed the room; one of those that have it now.
    Displaced(K),
    /// What it takes, or the budget, has changed, and there is no room for it any more.
    NoRoom,
    /// Room became free where it wishes to be.
    Room,
}

/// A claim has another link than before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Move<K> {
    /// Which claim.
    pub claim: K,
    /// The link it had.
    pub from: Option<LinkKey>,
    /// The link it has; `None`: none has room.
    pub to: Option<LinkKey>,
    /// Why.
    pub cause: Cause<K>,
}

/// What became of a claim.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claimed {
    /// It is noted.
    Noted,
    /// The account has as many as it was made for; nothing has changed.
    Full,
}

#[derive(Clone, Debug)]
struct Claim {
    importance: Importance,
    need: Amount,
    wishes: Wishes,
    /// Lower is older.
    age: u64,
    held: Option<LinkKey>,
    /// Not settled since it came.
    is_new: bool,
    /// The wishes are not those of the last time.
    has_changed: bool,
}

/// The budgets of all links, and who uses them. See the module.
#[derive(Clone, Debug)]
pub struct Account<K> {
    limits: BTreeMap<LinkKey, Amount>,
    claims: BTreeMap<K, Claim>,
    /// Who has each bounded link, as it was settled last.
    holders: BTreeMap<LinkKey, Vec<K>>,
    claims_max: usize,
    next_age: u64,
    is_settled: bool,
    moves: VecDeque<Move<K>>,
}

impl<K: Copy + Ord> Account<K> {
    /// Without budgets, for at most so many claims.
    #[must_use]
    pub const fn new(claims_max: usize) -> Self {
        Account {
            limits: BTreeMap::new(),
            claims: BTreeMap::new(),
            holders: BTreeMap::new(),
            claims_max,
            next_age: 0,
            is_settled: true,
            moves: VecDeque::new(),
        }
    }

    /// What a link has in all; `None`: it is not bounded.
    pub fn set_limit(&mut self, link: LinkKey, limit: Option<Amount>) {
        let before = match limit {
            Some(limit) => self.limits.insert(link, limit),
            None => self.limits.remove(&link),
        };
        self.is_settled &= before == limit;
    }

    /// A claim is there, or is another than before; it keeps its age.
    pub fn claim(&mut self, key: K, importance: Importance, need: Amount, wishes: &Wishes) -> Claimed {
        let is_full = self.claims.len() == self.claims_max;
        match self.claims.get_mut(&key) {
            Some(claim) => {
                let wishes_differ = claim.wishes != *wishes;
                if wishes_differ || (claim.importance, claim.need) != (importance, need) {
                    self.is_settled = false;
                    claim.has_changed |= wishes_differ;
                    (claim.importance, claim.need) = (importance, need);
                    claim.wishes.clone_from(wishes);
                }
            }
            None if is_full => return Claimed::Full,
            None => {
                let (wishes, age) = (wishes.clone(), self.next_age);
                let claim = Claim { importance, need, wishes, age, held: None, is_new: true, has_changed: false };
                self.claims.insert(key, claim);
                self.next_age += 1;
                self.is_settled = false;
            }
        }
        Claimed::Noted
    }

    /// A claim is gone; nothing is said of it any more.
    pub fn release(&mut self, key: K) {
        self.is_settled &= self.claims.remove(&key).is_none();
    }

    /// Only the claims for which this holds stay.
    pub fn retain(&mut self, mut stays: impl FnMut(&K) -> bool) {
        let before = self.claims.len();
        self.claims.retain(|key, _| stays(key));
        self.is_settled &= self.claims.len() == before;
    }

    /// Decides who has what. What it changes, [`next_move`](Self::next_move) tells, the most
    /// important claim first; it is to be called until `None` before the next one.
    pub fn settle(&mut self) {
        if core::mem::replace(&mut self.is_settled, true) {
            return;
        }
        let order = self.order();
        let mut left = self.limits.clone();
        let held: Vec<(K, Option<LinkKey>)> = order.iter().map(|key| (*key, self.give(*key, &mut left))).collect();
        let before: BTreeMap<K, Option<LinkKey>> = self.claims.iter().map(|(key, claim)| (*key, claim.held)).collect();
        self.holders = self.limits.keys().map(|link| (*link, Vec::new())).collect();
        for (key, now) in &held {
            if let Some(holders) = now.and_then(|link| self.holders.get_mut(&link)) {
                holders.push(*key);
            }
            let Some(claim) = self.claims.get_mut(key) else { continue };
            let from = core::mem::replace(&mut claim.held, *now);
            let (is_new, has_changed) = (claim.is_new, claim.has_changed);
            (claim.is_new, claim.has_changed) = (false, false);
            if from == *now && !is_new {
                continue;
            }
            let cause = match from {
                _ if is_new => Cause::New,
                // What it had is not wished for any more, or something better came to be.
                _ if has_changed && !still_first(claim, from, *now) => Cause::Wishes,
                Some(from) if worse(claim, from, *now) => {
                    // Who took its place: the first that has it and had not.
                    let newcomers = held.iter().take_while(|(other, _)| other != key);
                    let mut newcomers = newcomers.filter(|(other, has)| *has == Some(from) && before[other] != *has);
                    newcomers.next().map_or(Cause::NoRoom, |(other, _)| Cause::Displaced(*other))
                }
                _ => Cause::Room,
            };
            self.moves.push_back(Move { claim: *key, from, to: *now, cause });
        }
    }

    /// The claims, the one that goes first first.
    fn order(&self) -> Vec<K> {
        let mut order: Vec<K> = self.claims.keys().copied().collect();
        order.sort_by_key(|key| {
            let claim = &self.claims[key];
            (core::cmp::Reverse(claim.importance), claim.age)
        });
        order
    }

    /// The first wish of a claim that has room in what is left, which is taken.
    fn give(&self, key: K, left: &mut BTreeMap<LinkKey, Amount>) -> Option<LinkKey> {
        let claim = &self.claims[&key];
        let link =
            claim.wishes.iter().copied().find(|link| left.get(link).is_none_or(|left| left.holds(claim.need)))?;
        if let Some(left) = left.get_mut(&link) {
            *left = left.minus(claim.need);
        }
        Some(link)
    }

    /// What changed, oldest first.
    pub fn next_move(&mut self) -> Option<Move<K>> {
        self.moves.pop_front()
    }

    /// The link that a claim has; `None`: none, or there is no such claim.
    #[must_use]
    pub fn held(&self, key: K) -> Option<LinkKey> {
        self.claims.get(&key)?.held
    }

    fn holders(&self, link: LinkKey) -> impl Iterator<Item = (K, &Claim)> {
        let holders = self.holders.get(&link).into_iter().flatten();
        holders.filter_map(|key| Some((*key, self.claims.get(key)?)))
    }

    /// What a claim could have of a link: what others leave free, and what those that go after
    /// it use, as it was settled last. A claim that is not there would go after all that are as important. `None`: it
    /// is not bounded.
    #[must_use]
    pub fn room(&self, link: LinkKey, key: K, importance: Importance) -> Option<Room> {
        let limit = *self.limits.get(&link)?;
        let age = self.claims.get(&key).map_or(u64::MAX, |claim| claim.age);
        let (mut used, mut lower) = (Amount::default(), Amount::default());
        for (_, claim) in self.holders(link).filter(|(other, _)| *other != key) {
            used = used.plus(claim.need);
            if (claim.importance, core::cmp::Reverse(claim.age)) < (importance, core::cmp::Reverse(age)) {
                lower = lower.plus(claim.need);
            }
        }
        Some(Room { free: limit.minus(used), lower })
    }

    /// What of a link is used, and what it has in all; `None`: it is not bounded.
    #[must_use]
    pub fn usage(&self, link: LinkKey) -> Option<(Amount, Amount)> {
        let limit = *self.limits.get(&link)?;
        let used = self.holders(link).fold(Amount::default(), |sum, (_, claim)| sum.plus(claim.need));
        Some((used, limit))
    }
}

/// Whether the claim still wishes for `from` before `to`.
fn still_first(claim: &Claim, from: Option<LinkKey>, to: Option<LinkKey>) -> bool {
    from.is_some_and(|from| worse(claim, from, to))
}

/// Whether `to` is a later wish than `from`, which is one.
fn worse(claim: &Claim, from: LinkKey, to: Option<LinkKey>) -> bool {
    let place = |link: LinkKey| claim.wishes.iter().position(|wish| *wish == link);
    match (place(from), to.and_then(place)) {
        (Some(from), Some(to)) => from < to,
        (Some(_), None) => true,
        (None, _) => false,
    }
}
