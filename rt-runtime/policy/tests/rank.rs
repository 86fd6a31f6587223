//! Properties of the ranking, for any table, request and offers.

use insane_core::limits::LINKS_MAX;
use insane_core::{Consumption, Datapath, Determinism, Nanos, Priority, Qos, Reliability};
use insane_policy::health::Health;
use insane_policy::{Amount, Aspect, Kind, Offer, Reason, Request, Room, Rule, Rules, Technology, When, rank};
use proptest::prelude::*;

/// What best-effort streams count as, bits a second.
const BEST_EFFORT: u64 = 5;

fn request() -> impl Strategy<Value = Request> {
    let determinism = prop_oneof![
        Just(Determinism::BestEffort),
        (1..50u64, 1..200u32).prop_map(|(period, size)| Determinism::periodic(Nanos::from_secs(period), size)),
    ];
    (any::<[bool; 3]>(), determinism, 0..8u8).prop_map(|([reliable, fast, poll], determinism, priority)| {
        let qos = Qos {
            reliability: if reliable { Reliability::Reliable } else { Reliability::Unreliable },
            datapath: if fast { Datapath::Fast } else { Datapath::Standard },
            consumption: if poll { Consumption::Poll } else { Consumption::Low },
            determinism,
            priority: Priority::new(priority).unwrap(),
        };
        Request::new(qos)
    })
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![
        (0..3u32, 0..100u64).prop_map(|(streams, bits_per_s)| Amount { streams, bits_per_s }),
        Just(Amount::UNBOUNDED),
    ]
}

fn offer() -> impl Strategy<Value = Offer> {
    let room = proptest::option::of((amount(), amount()).prop_map(|(free, lower)| Room { free, lower }));
    let technology = proptest::sample::select(&Technology::ALL[..]);
    let health = proptest::sample::select(&Health::ALL[..]);
    (technology, proptest::bool::weighted(0.8), health, any::<[bool; 2]>(), room).prop_map(
        |(technology, reaches, health, [takes_time_sensitive, costs_kernel_traffic], room)| Offer {
            technology,
            reaches,
            health,
            takes_time_sensitive,
            costs_kernel_traffic,
            room,
        },
    )
}

fn offers() -> impl Strategy<Value = Vec<Offer>> {
    proptest::collection::vec(offer(), 0..=LINKS_MAX)
}

fn rules() -> impl Strategy<Value = Rules> {
    let order = || {
        (Just(Technology::ALL.to_vec()).prop_shuffle(), 1..=Technology::COUNT).prop_map(|(mut all, len)| {
            all.truncate(len);
            all
        })
    };
    let when = (any::<[Option<bool>; 4]>(), proptest::option::of(1..200u32)).prop_map(|(of, bytes_min)| When {
        reliability: of[0].map(|yes| if yes { Reliability::Reliable } else { Reliability::Unreliable }),
        datapath: of[1].map(|yes| if yes { Datapath::Fast } else { Datapath::Standard }),
        consumption: of[2].map(|yes| if yes { Consumption::Poll } else { Consumption::Low }),
        determinism: of[3].map(|yes| if yes { Kind::TimeSensitive } else { Kind::BestEffort }),
        bytes_min,
    });
    let some = proptest::collection::vec((when, order(), any::<bool>()), 0..6);
    let table = (some, order(), any::<bool>()).prop_map(|(some, order, spares_others)| {
        let mut all: Vec<Rule> = Vec::new();
        for (when, order, spares_others) in some {
            if when.is_possible() && !all.iter().any(|rule| rule.when.covers(&when)) && when != When::ALWAYS {
                all.push(Rule { when, order, spares_others });
            }
        }
        all.push(Rule { when: When::ALWAYS, order, spares_others });
        Rules::new(all).unwrap()
    });
    prop_oneof![Just(Rules::default()), table]
}

/// Whether an offer can carry a request by a rule: written anew, to judge the function by.
fn can_carry(request: &Request, offer: &Offer, rule: &Rule) -> bool {
    let timed = matches!(request.qos.determinism, Determinism::TimeSensitive { .. });
    let fits = match offer.room {
        None => true,
        Some(Room { free, lower }) => {
            let need = request.need(BEST_EFFORT);
            u64::from(free.streams) + u64::from(lower.streams) >= u64::from(need.streams)
                && u128::from(free.bits_per_s) + u128::from(lower.bits_per_s) >= u128::from(need.bits_per_s)
        }
    };
    offer.reaches
        && offer.health != Health::Failed
        && rule.order.contains(&offer.technology)
        && (!timed || offer.takes_time_sensitive)
        && fits
}

fn place(request: &Request, offers: &[Offer], rules: &Rules, of: usize) -> Option<u8> {
    let ranking = rank(request, offers, rules, BEST_EFFORT);
    ranking.verdicts.iter().find(|verdict| verdict.offer == of).unwrap().place
}

/// Whether a place is as good or better; none is the worst.
fn no_worse(now: Option<u8>, before: Option<u8>) -> bool {
    match (now, before) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(now), Some(before)) => now <= before,
    }
}

proptest! {
    /// Every offer is judged once; those that can carry the request have the places 0, 1, ...
    /// and come first; a second look says the same.
    #[test]
    fn total_deterministic_and_right(request in request(), offers in offers(), rules in rules()) {
        let ranking = rank(&request, &offers, &rules, BEST_EFFORT);
        prop_assert_eq!(&ranking, &rank(&request, &offers, &rules, BEST_EFFORT));
        let mut judged: Vec<usize> = ranking.verdicts.iter().map(|verdict| verdict.offer).collect();
        judged.sort_unstable();
        prop_assert_eq!(judged, (0..offers.len()).collect::<Vec<_>>());
        let (number, rule) = rules.rule(&request);
        prop_assert_eq!(number, ranking.rule);
        prop_assert!(rule.when.holds(&request));
        prop_assert!(rules.all()[..number].iter().all(|rule| !rule.when.holds(&request)));
        let usable = ranking.usable().count();
        for (at, verdict) in ranking.verdicts.iter().enumerate() {
            let fits = can_carry(&request, &offers[verdict.offer], rule);
            prop_assert_eq!(verdict.place.is_some(), fits, "{:?}", verdict);
            prop_assert_eq!(verdict.place, (at < usable).then_some(at as u8));
        }
    }

    /// Each has a reason, and the reasons are those of its place: a refused one has nothing
    /// but refusals, one with a place says what puts it behind the one before.
    #[test]
    fn reasons_are_complete(request in request(), offers in offers(), rules in rules()) {
        let ranking = rank(&request, &offers, &rules, BEST_EFFORT);
        let rule = &rules.all()[ranking.rule];
        let mut before: Option<&Offer> = None;
        for verdict in &ranking.verdicts {
            let offer = &offers[verdict.offer];
            let has = |reason: Reason| verdict.reasons.contains(&reason);
            if verdict.place.is_none() {
                prop_assert!(!verdict.reasons.is_empty());
                prop_assert!(verdict.reasons.iter().all(|reason| reason.refuses()));
                // With everything set right that is named, it can be used.
                let mut cured = *offer;
                let mut rule = rule.clone();
                for reason in &verdict.reasons {
                    match *reason {
                        Reason::PeerLacksIt => cured.reaches = true,
                        Reason::Failed => cured.health = Health::Good,
                        Reason::NoSlots => cured.takes_time_sensitive = true,
                        Reason::NotInOrder(technology) => rule.order.push(technology),
                        Reason::NoStreamFree | Reason::NoBandwidthFree { .. } => cured.room = None,
                        _ => unreachable!(),
                    }
                }
                prop_assert!(can_carry(&request, &cured, &rule), "{:?}", verdict);
                continue;
            }
            prop_assert!(verdict.reasons.iter().all(|reason| !reason.refuses()));
            prop_assert_eq!(has(Reason::First), before.is_none());
            let at = rule.order.iter().position(|one| *one == offer.technology).unwrap() as u8;
            prop_assert!(has(Reason::Place(offer.technology, at)));
            prop_assert_eq!(has(Reason::Health(offer.health)), offer.health != Health::Good);
            let need = request.need(BEST_EFFORT);
            prop_assert_eq!(has(Reason::Displaces), offer.room.is_some_and(|room| !room.free.holds(need)));
            let cost = offer.costs_kernel_traffic;
            prop_assert_eq!(has(Reason::CostAvoided), cost && rule.spares_others);
            prop_assert_eq!(has(Reason::CostAccepted), cost && !rule.spares_others);
            if let Some(before) = before {
                let place = |offer: &Offer| rule.order.iter().position(|one| *one == offer.technology);
                let spared = |offer: &Offer| rule.spares_others && offer.costs_kernel_traffic;
                let aspect = if before.health != offer.health {
                    Aspect::Health
                } else if spared(before) != spared(offer) {
                    Aspect::Cost
                } else if place(before) != place(offer) {
                    Aspect::Order
                } else {
                    Aspect::Configuration
                };
                prop_assert!(has(Reason::Behind(aspect)), "{:?}", verdict);
            }
            before = Some(offer);
        }
    }

    /// Better health, more room, an address, slots: none lowers a rank.
    #[test]
    fn better_is_never_worse(
        request in request(), offers in offers(), rules in rules(),
        which in any::<proptest::sample::Index>(), better in offer(), more in amount(),
    ) {
        prop_assume!(!offers.is_empty());
        let at = which.index(offers.len());
        let before = place(&request, &offers, &rules, at);
        let change = |improve: &dyn Fn(&mut Offer)| {
            let mut offers = offers.clone();
            improve(&mut offers[at]);
            no_worse(place(&request, &offers, &rules, at), before)
        };
        prop_assert!(change(&|offer| offer.health = offer.health.min(better.health)), "health");
        prop_assert!(change(&|offer| offer.reaches = true), "reach");
        prop_assert!(change(&|offer| offer.takes_time_sensitive = true), "slots");
        prop_assert!(change(&|offer| offer.costs_kernel_traffic = false), "cost");
        prop_assert!(change(&|offer| offer.room = None), "no bound");
        let free = |offer: &mut Offer| {
            if let Some(room) = &mut offer.room {
                room.free = room.free.plus(more);
            }
        };
        prop_assert!(change(&free), "free");
        let lower = |offer: &mut Offer| {
            if let Some(room) = &mut offer.room {
                room.lower = room.lower.plus(more);
            }
        };
        prop_assert!(change(&lower), "lower");
    }

    /// The same request of a higher priority, for which more others give way, can use whatever
    /// the one of the lower priority can, in the same order.
    #[test]
    fn premium_is_never_worse(
        request in request(), offers in offers(), rules in rules(), premium in 6..8u8, more in amount(),
    ) {
        prop_assume!(request.qos.priority.get() < premium);
        let mut favoured = request;
        favoured.qos.priority = Priority::new(premium).unwrap();
        prop_assert!(favoured.importance() > request.importance());
        let mut theirs = offers.clone();
        for room in theirs.iter_mut().filter_map(|offer| offer.room.as_mut()) {
            room.lower = room.lower.plus(more);
        }
        let ordinary: Vec<usize> = rank(&request, &offers, &rules, BEST_EFFORT).usable().collect();
        let ranked: Vec<usize> = rank(&favoured, &theirs, &rules, BEST_EFFORT).usable().collect();
        let common: Vec<usize> = ranked.iter().copied().filter(|offer| ordinary.contains(offer)).collect();
        prop_assert_eq!(common, ordinary);
    }

    /// No table is accepted that leaves a request without a rule, or has rules in vain.
    #[test]
    fn accepted_tables_have_a_use_for_every_rule(rules in rules(), requests in proptest::collection::vec(request(), 1..40)) {
        for request in requests {
            let (number, rule) = rules.rule(&request);
            prop_assert!(rule.when.holds(&request));
            for earlier in &rules.all()[..number] {
                prop_assert!(!earlier.when.covers(&rule.when));
            }
        }
    }
}
