//! Budgets against an oracle that tries every assignment.

use insane_core::{DatapathIndex, Determinism, LinkIndex, Nanos, Priority, Qos};
use insane_policy::budget::{Account, Cause, Claimed, LinkKey, Move, Wishes};
use insane_policy::{Amount, Importance, Request};
use proptest::prelude::*;
use std::collections::BTreeMap;

const LINKS: u8 = 3;
const CLAIMS: u8 = 5;

fn link(at: u8) -> LinkKey {
    (DatapathIndex(at % 2), LinkIndex(at))
}

fn wishes(of: &[u8]) -> Wishes {
    of.iter().map(|at| link(*at)).collect()
}

fn importance(timed: bool, priority: u8) -> Importance {
    let determinism = if timed { Determinism::periodic(Nanos::from_millis(1), 64) } else { Determinism::BestEffort };
    Request::new(Qos { determinism, priority: Priority::new(priority).unwrap(), ..Qos::default() }).importance()
}

fn streams(count: u32) -> Amount {
    Amount { streams: count, bits_per_s: u64::MAX }
}

fn one(bits_per_s: u64) -> Amount {
    Amount { streams: 1, bits_per_s }
}

fn moves<K: Copy + Ord>(account: &mut Account<K>) -> Vec<Move<K>> {
    account.settle();
    std::iter::from_fn(|| account.next_move()).collect()
}

/// The 5G case: ordinary streams have the fast link until premium ones come.
#[test]
fn a_newcomer_of_higher_priority_displaces_and_the_displaced_return() {
    let mut account = Account::new(8);
    account.set_limit(link(0), Some(streams(2)));
    let both = wishes(&[0, 1]);
    for (at, key) in ["video", "logs"].into_iter().enumerate() {
        assert_eq!(account.claim(key, importance(false, 2 - at as u8), one(0), &both), Claimed::Noted);
    }
    let first = moves(&mut account);
    assert!(first.iter().all(|step| step.to == Some(link(0)) && step.cause == Cause::New));
    assert_eq!(first.len(), 2);

    let _ = account.claim("robot", importance(true, 3), one(0), &both);
    let logs = |from, to, cause| Move { claim: "logs", from: Some(link(from)), to: Some(link(to)), cause };
    assert_eq!(
        moves(&mut account),
        [
            Move { claim: "robot", from: None, to: Some(link(0)), cause: Cause::New },
            logs(0, 1, Cause::Displaced("robot"))
        ]
    );
    assert_eq!(account.usage(link(0)), Some((Amount { streams: 2, bits_per_s: 0 }, streams(2))));
    assert_eq!(moves(&mut account), []);

    // Of the same importance the older stays.
    let _ = account.claim("camera", importance(false, 2), one(0), &both);
    assert_eq!(moves(&mut account), [Move { claim: "camera", from: None, to: Some(link(1)), cause: Cause::New }]);
    let room = account.room(link(0), "camera", importance(false, 2)).unwrap();
    assert_eq!((room.free.streams, room.lower.streams), (0, 0));
    let room = account.room(link(0), "nobody", importance(true, 7)).unwrap();
    assert_eq!((room.free.streams, room.lower.streams), (0, 2));

    account.release("video");
    let camera = Move { claim: "camera", from: Some(link(1)), to: Some(link(0)), cause: Cause::Room };
    assert_eq!(moves(&mut account), [camera]);
    account.release("robot");
    assert_eq!(moves(&mut account), [logs(1, 0, Cause::Room)]);
    // A link that failed is no wish any more.
    let _ = account.claim("logs", importance(false, 1), one(0), &wishes(&[1]));
    assert_eq!(moves(&mut account), [logs(0, 1, Cause::Wishes)]);
    // Less is allowed than is used.
    account.set_limit(link(0), Some(streams(0)));
    let camera = Move { claim: "camera", from: Some(link(0)), to: Some(link(1)), cause: Cause::NoRoom };
    assert_eq!(moves(&mut account), [camera]);
}

#[test]
fn an_account_has_as_many_claims_as_it_was_made_for() {
    let mut account = Account::new(1);
    assert_eq!(account.claim(1, importance(false, 0), one(0), &wishes(&[0])), Claimed::Noted);
    assert_eq!(account.claim(2, importance(true, 7), one(0), &wishes(&[0])), Claimed::Full);
    assert_eq!(account.claim(1, importance(false, 3), one(0), &wishes(&[1])), Claimed::Noted);
    assert_eq!(moves(&mut account).len(), 1);
    assert_eq!((account.held(1), account.held(2)), (Some(link(1)), None));
}

#[derive(Clone, Debug)]
enum Step {
    Claim { key: u8, timed: bool, priority: u8, bits: u64, wishes: Vec<u8> },
    Release(u8),
    Limit(u8, Option<(u32, u64)>),
}

fn step() -> impl Strategy<Value = Step> {
    let wishes =
        (Just((0..LINKS).collect::<Vec<u8>>()).prop_shuffle(), 0..=usize::from(LINKS)).prop_map(|(mut all, len)| {
            all.truncate(len);
            all
        });
    prop_oneof![
        4 => (0..CLAIMS, any::<bool>(), 0..3u8, 0..6u64, wishes).prop_map(|(key, timed, priority, bits, wishes)| {
            Step::Claim { key, timed, priority, bits, wishes }
        }),
        1 => (0..CLAIMS).prop_map(Step::Release),
        1 => (0..LINKS, proptest::option::of((0..3u32, 0..12u64))).prop_map(|(at, limit)| Step::Limit(at, limit)),
    ]
}

/// A claim as the oracle keeps it.
#[derive(Clone, Debug)]
struct Kept {
    key: u8,
    importance: Importance,
    bits: u64,
    wishes: Vec<u8>,
    age: usize,
}

/// Of all assignments that keep every budget the one that is best for the most important
/// claim, of those the one that is best for the next, and so on: all are tried.
fn oracle(claims: &[Kept], limits: &BTreeMap<u8, (u32, u64)>) -> BTreeMap<u8, Option<u8>> {
    let mut claims = claims.to_vec();
    claims.sort_by(|a, b| b.importance.cmp(&a.importance).then(a.age.cmp(&b.age)));
    // A choice is the number of a wish; behind the last: none.
    let mut best: Option<Vec<usize>> = None;
    let mut choice = vec![0; claims.len()];
    loop {
        let chosen = || claims.iter().zip(&choice).map(|(claim, at)| (claim, claim.wishes.get(*at)));
        let keeps = limits.iter().all(|(link, (streams, bits))| {
            let on = || chosen().filter(|(_, wish)| *wish == Some(link));
            on().count() as u32 <= *streams && on().map(|(claim, _)| claim.bits).sum::<u64>() <= *bits
        });
        if keeps && best.as_ref().is_none_or(|best| choice < *best) {
            best = Some(choice.clone());
        }
        let Some(at) = (0..choice.len()).rev().find(|at| choice[*at] < claims[*at].wishes.len()) else { break };
        choice[at] += 1;
        choice[at + 1..].fill(0);
    }
    let best = best.unwrap();
    claims.iter().zip(best).map(|(claim, at)| (claim.key, claim.wishes.get(at).copied())).collect()
}

proptest! {
    /// After each step everybody has what the oracle says; the moves lead there; who is
    /// displaced is so by one that goes first; what an account says of room is true.
    #[test]
    fn everybody_gets_what_the_oracle_says(steps in proptest::collection::vec(step(), 1..40)) {
        let mut account: Account<u8> = Account::new(usize::from(CLAIMS));
        let (mut kept, mut limits): (Vec<Kept>, _) = (Vec::new(), BTreeMap::new());
        let mut has: BTreeMap<u8, Option<u8>> = BTreeMap::new();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Claim { key, timed, priority, bits, wishes: of } => {
                    let importance = importance(timed, priority);
                    prop_assert_eq!(account.claim(key, importance, one(bits), &wishes(&of)), Claimed::Noted);
                    match kept.iter_mut().find(|claim| claim.key == key) {
                        Some(claim) => (claim.importance, claim.bits, claim.wishes) = (importance, bits, of),
                        None => kept.push(Kept { key, importance, bits, wishes: of, age: at }),
                    }
                }
                Step::Release(key) => {
                    account.release(key);
                    kept.retain(|claim| claim.key != key);
                    has.remove(&key);
                }
                Step::Limit(at, limit) => {
                    let amount = limit.map(|(streams, bits_per_s)| Amount { streams, bits_per_s });
                    account.set_limit(link(at), amount);
                    limits.remove(&at);
                    limits.extend(limit.map(|limit| (at, limit)));
                }
            }
            account.settle();
            let goes_first = |key: u8| {
                let claim = kept.iter().find(|claim| claim.key == key).unwrap();
                (claim.importance, std::cmp::Reverse(claim.age))
            };
            let expected = oracle(&kept, &limits);
            while let Some(Move { claim, from, to, cause }) = account.next_move() {
                let plain = |link: Option<LinkKey>| link.map(|(_, LinkIndex(at))| at);
                let before = has.insert(claim, plain(to));
                prop_assert_eq!(before.flatten(), plain(from));
                prop_assert_eq!(cause == Cause::New, before.is_none());
                if let Cause::Displaced(by) = cause {
                    prop_assert!(goes_first(by) > goes_first(claim));
                    prop_assert_eq!(expected[&by], plain(from));
                }
            }
            prop_assert_eq!(&has, &expected);
            for claim in &kept {
                prop_assert_eq!(account.held(claim.key), expected[&claim.key].map(link));
                // It has the first of its wishes in which there is room for it.
                let first = claim.wishes.iter().copied().find(|at| {
                    let room = account.room(link(*at), claim.key, claim.importance);
                    room.is_none_or(|room| room.free.plus(room.lower).holds(one(claim.bits)))
                });
                prop_assert_eq!(first, expected[&claim.key]);
            }
        }
    }
}
