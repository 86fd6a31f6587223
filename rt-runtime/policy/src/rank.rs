//! The one function: from a request and offers to an order, with reasons.
//!
//! ```text
//! what cannot or must not carry it      refused, with every reason
//! the others, by                        1. health: good, held down, unproven
//!                                       2. what others pay, where the rule spares them
//!                                       3. the place of the technology in the rule
//!                                       4. the order of the configuration
//! ```
//! Free capacity decides whether a link can be had, not how good it is: a stream does not
//! change its link because the load of one changes.

use crate::health::Health;
use crate::offer::Offer;
use crate::reason::{Aspect, REASONS_MAX, Reason};
use crate::request::Request;
use crate::rules::{Rule, Rules};
use insane_core::limits::LINKS_MAX;

/// What became of one offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Which offer, by its place among those that were given.
    pub offer: usize,
    /// Its place in the order, from 0; `None`: it is refused.
    pub place: Option<u8>,
    /// Why. A refused one has every reason that refuses it, and no other.
    pub reasons: heapless::Vec<Reason, REASONS_MAX>,
}

/// The order of the offers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ranking {
    /// Number of the rule, from 0.
    pub rule: usize,
    /// Every offer once: those with a place in their order, then the refused ones.
    pub verdicts: heapless::Vec<Verdict, LINKS_MAX>,
}

impl Ranking {
    /// The offers that can be used, the best first.
    pub fn usable(&self) -> impl Iterator<Item = usize> + '_ {
        self.verdicts.iter().filter(|verdict| verdict.place.is_some()).map(|verdict| verdict.offer)
    }

    /// The offer to use; `None`: none can carry the stream.
    #[must_use]
    pub fn first(&self) -> Option<usize> {
        self.usable().next()
    }
}

/// What is compared, the most important first; less is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    health: Health,
    costs: bool,
    place: u8,
    offer: usize,
}

impl Key {
    /// In what this is better than a greater one.
    fn better_in(&self, other: &Key) -> Aspect {
        if self.health != other.health {
            Aspect::Health
        } else if self.costs != other.costs {
            Aspect::Cost
        } else if self.place != other.place {
            Aspect::Order
        } else {
            Aspect::Configuration
        }
    }
}

/// Ranks `offers`, which are in the order of the configuration, for `request`.
/// `best_effort_bits_per_s` is what a best-effort stream counts as.
///
/// Total and deterministic: every request has a rule, and equal arguments give equal results.
/// Offers beyond [`LINKS_MAX`], which a datapath cannot have, are not looked at.
#[must_use]
pub fn rank(request: &Request, offers: &[Offer], rules: &Rules, best_effort_bits_per_s: u64) -> Ranking {
    let (number, rule) = rules.rule(request);
    let mut keys: heapless::Vec<Key, LINKS_MAX> = heapless::Vec::new();
    let mut refused: heapless::Vec<Verdict, LINKS_MAX> = heapless::Vec::new();
    for (at, offer) in offers.iter().take(LINKS_MAX).enumerate() {
        let reasons = refusals(request, offer, rule, best_effort_bits_per_s);
        // Neither list can be full: together they have no more entries than there are offers.
        match rule.place(offer.technology) {
            Some(place) if reasons.is_empty() => {
                let costs = rule.spares_others && offer.costs_kernel_traffic;
                let _ = keys.push(Key { health: offer.health, costs, place, offer: at });
            }
            _ => {
                let _ = refused.push(Verdict { offer: at, place: None, reasons });
            }
        }
    }
    keys.sort_unstable();
    let mut verdicts = heapless::Vec::new();
    for (place, key) in keys.iter().enumerate() {
        let before = place.checked_sub(1).map(|before| keys[before].better_in(key));
        let reasons = merits(request, &offers[key.offer], key.place, before, rule, best_effort_bits_per_s);
        let _ = verdicts.push(Verdict { offer: key.offer, place: Some(place as u8), reasons });
    }
    for verdict in refused {
        let _ = verdicts.push(verdict);
    }
    Ranking { rule: number, verdicts }
}

type Reasons = heapless::Vec<Reason, REASONS_MAX>;

/// All that keeps an offer from being used.
fn refusals(request: &Request, offer: &Offer, rule: &Rule, best_effort_bits_per_s: u64) -> Reasons {
    let need = request.need(best_effort_bits_per_s);
    let room = offer.room.map(|room| room.free.plus(room.lower));
    let no_slots = request.is_time_sensitive() && !offer.takes_time_sensitive;
    // One for each: streams before bandwidth, of which the second is not told with the first.
    let scarce = room.and_then(|room| match room {
        room if room.streams < need.streams => Some(Reason::NoStreamFree),
        room if room.bits_per_s < need.bits_per_s => {
            Some(Reason::NoBandwidthFree { need: need.bits_per_s, room: room.bits_per_s })
        }
        _ => None,
    });
    [
        (!offer.reaches).then_some(Reason::PeerLacksIt),
        rule.place(offer.technology).is_none().then_some(Reason::NotInOrder(offer.technology)),
        (offer.health == Health::Failed).then_some(Reason::Failed),
        no_slots.then_some(Reason::NoSlots),
        scarce,
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Why an offer that can be used has its place.
fn merits(
    request: &Request,
    offer: &Offer,
    place: u8,
    before: Option<Aspect>,
    rule: &Rule,
    best_effort_bits_per_s: u64,
) -> Reasons {
    let need = request.need(best_effort_bits_per_s);
    let cost = if rule.spares_others { Reason::CostAvoided } else { Reason::CostAccepted };
    [
        Some(before.map_or(Reason::First, Reason::Behind)),
        Some(Reason::Place(offer.technology, place)),
        (offer.health != Health::Good).then_some(Reason::Health(offer.health)),
        offer.room.is_some_and(|room| !room.free.holds(need)).then_some(Reason::Displaces),
        offer.costs_kernel_traffic.then_some(cost),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const _: () = assert!(REASONS_MAX >= 5, "there are as many refusals");
