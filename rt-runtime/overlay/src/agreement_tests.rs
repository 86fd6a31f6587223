//! What a host makes of what others say, and that hosts that were killed at any moment of an
//! activation come to agree, or are silent.

use crate::activation::ScheduleId;
use crate::agreement::{Heard, Judgement, Own, PATIENCE, SETTLE, Standing, judge};
use insane_core::{Nanos, TaiTime};
use proptest::prelude::*;
use std::vec::Vec;

const OLD: Standing = Standing { since: TaiTime(1_000_000_000), schedule: Some(ScheduleId(1)) };
const NEW: Standing = Standing { since: TaiTime(5_000_000_000), schedule: Some(ScheduleId(2)) };
const AFTER: TaiTime = TaiTime(9_000_000_000);

fn own(standing: Standing, next: Option<Standing>) -> Own {
    Own { standing, next, others: 1, heard: 0 }
}

fn says(standing: Standing) -> [Heard<u8>; 1] {
    [Heard { peer: 7, standing }]
}

#[test]
fn who_has_the_earlier_one_is_silent_and_who_has_the_later_one_goes_on() {
    let heard = |own: Own| Own { heard: 1, ..own };
    let late = Nanos::from_secs(9);
    assert_eq!(judge(&heard(own(OLD, None)), &says(NEW), AFTER, late), Judgement::Outdated(7));
    assert_eq!(judge(&heard(own(NEW, None)), &says(OLD), AFTER, late), Judgement::Keep);
    assert_eq!(judge(&heard(own(OLD, None)), &says(OLD), AFTER, late), Judgement::Keep);
    // The same schedule, activated again: it is the same.
    let again = Standing { since: NEW.since, ..OLD };
    assert_eq!(judge(&heard(own(OLD, None)), &says(again), AFTER, late), Judgement::Keep);
    // One that was forgotten later, and one that never was.
    let forgotten = Standing { since: NEW.since, schedule: None };
    assert_eq!(judge(&heard(own(OLD, None)), &says(forgotten), AFTER, late), Judgement::Outdated(7));
    assert_eq!(judge(&heard(own(OLD, None)), &says(Standing::NEVER), AFTER, late), Judgement::Keep);
    assert_eq!(judge(&heard(own(Standing::NEVER, None)), &says(OLD), AFTER, late), Judgement::Outdated(7));
}

#[test]
fn after_a_restart_others_are_waited_for_and_not_for_ever() {
    assert_eq!(judge::<u8>(&own(OLD, None), &[], AFTER, Nanos::ZERO), Judgement::Ask);
    assert_eq!(judge::<u8>(&own(OLD, None), &[], AFTER, PATIENCE), Judgement::Keep);
    let alone = Own { others: 0, ..own(OLD, None) };
    assert_eq!(judge::<u8>(&alone, &[], AFTER, Nanos::ZERO), Judgement::Keep);
}

#[test]
fn one_that_was_about_to_take_over_did_if_one_says_so() {
    let armed = own(OLD, Some(NEW));
    let heard = Own { heard: 1, ..armed };
    assert_eq!(judge(&heard, &says(NEW), AFTER, Nanos::ZERO), Judgement::TakeNext);
    // Before the instant, and until it is known of all: nothing is sent.
    assert_eq!(judge(&heard, &says(OLD), TaiTime(4_000_000_000), Nanos::from_secs(9)), Judgement::Undecided);
    assert_eq!(judge(&heard, &says(OLD), NEW.since + SETTLE, Nanos::from_secs(9)), Judgement::Keep);
    // Nobody is heard: it may be either, however long it takes.
    assert_eq!(judge::<u8>(&armed, &[], AFTER, Nanos::from_secs(3600)), Judgement::Undecided);
    // Who is alone in its schedule is in nobody's way with the old one.
    let alone = Own { others: 0, ..armed };
    assert_eq!(judge::<u8>(&alone, &[], AFTER, Nanos::ZERO), Judgement::Keep);
}

/// Hosts that were killed with any of the files that an activation leaves, and who hear each
/// other in any order.
#[derive(Clone, Copy, Debug)]
struct Host {
    standing: Standing,
    next: Option<Standing>,
}

proptest! {
    #[test]
    fn whoever_sends_in_slots_sends_in_the_same(
        files in prop::collection::vec(0..3_u8, 2..5),
        order in prop::collection::vec((0..4_usize, 0..4_usize), 0..40),
    ) {
        let host = |file: &u8| match file {
            0 => Host { standing: OLD, next: None },
            1 => Host { standing: OLD, next: Some(NEW) },
            _ => Host { standing: NEW, next: None },
        };
        let mut hosts: Vec<Host> = files.iter().map(host).collect();
        let count = hosts.len();
        let mut heard: Vec<Vec<Option<Standing>>> = std::vec![std::vec![None; count]; count];
        let judged = |host: &Host, heard: &[Option<Standing>]| {
            let told: Vec<Heard<usize>> =
                heard.iter().enumerate().filter_map(|(peer, one)| Some(Heard { peer, standing: (*one)? })).collect();
            let own = Own { standing: host.standing, next: host.next, others: count - 1, heard: told.len() };
            judge(&own, &told, AFTER, PATIENCE)
        };
        // Some words come first, and then all, until nothing changes.
        let all = || (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
        let rounds = order.iter().map(|(from, to)| (from % count, to % count)).chain((0..4).flat_map(|_| all()));
        for (from, to) in rounds {
            if from != to {
                heard[to][from] = Some(hosts[from].standing);
            }
            if judged(&hosts[to], &heard[to]) == Judgement::TakeNext {
                hosts[to] = Host { standing: NEW, next: None };
            }
        }
        let sending: Vec<Standing> = (0..count)
            .filter(|at| judged(&hosts[*at], &heard[*at]) == Judgement::Keep)
            .map(|at| hosts[at].standing)
            .collect();
        prop_assert!(sending.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", sending);
        prop_assert!(!sending.is_empty(), "somebody goes on");
        // Who was in force anywhere is what holds.
        let latest = if files.contains(&2) { NEW } else { OLD };
        prop_assert!(sending.iter().all(|one| *one == latest));
    }
}
