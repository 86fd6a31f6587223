//! Peers that come and go while the link is in use.

use super::alone::sealed;
use crate::Fixture;
use crate::frames::{Keep, PATIENCE, links, must_send, number_of, receive, send_pattern, take_what_is_there, wait_for};
use insane_core::PeerIndex;
use insane_link::{Link, SendOutcome, SwapRefused};
use insane_sys::clock::mono_now;
use insane_sys::guard;
use std::time::Instant;

/// The number of link 2 when it is back.
const BACK: PeerIndex = PeerIndex(5);

fn must_swap<L: Link>(link: &mut L, peer: PeerIndex, with: &mut Option<L::Peer>) {
    let swapped = link.swap_peer(peer, with);
    assert_eq!(swapped, Ok(()), "peer {peer}");
}

/// While a third peer goes and comes back, at one number and at another, two others speak
/// with each other: nothing of that is lost, reordered, or in another's name; also what was
/// sent and not flushed, and what had come and was not taken.
pub fn peers_come_and_go_unnoticed_by_others<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b, _c] = links(fixture);
    let mut number = 0;
    for round in 0..24u32 {
        let lane = if round % 2 == 0 { 1 } else { 6 };
        let first = number;
        for _ in 0..3 {
            must_send(&mut b, 0, lane, number, 70);
            must_send(&mut a, 1, lane, number, 70);
            number += 1;
        }
        b.flush();
        fixture.settle();
        let place = if round / 2 % 2 == 0 { PeerIndex(2) } else { BACK };
        let mut gone = None;
        if round % 2 == 0 {
            // At first it has been there from the start.
            must_swap(&mut a, place, &mut gone);
            assert_eq!(gone.is_some(), round == 0, "who was there comes back");
        } else {
            gone = Some(fixture.prepare(0, place, 2));
            must_swap(&mut a, place, &mut gone);
            assert!(gone.is_none());
        }
        for _ in 0..2 {
            must_send(&mut b, 0, lane, number, 70);
            must_send(&mut a, 1, lane, number, 70);
            number += 1;
        }
        a.flush();
        b.flush();
        for (link, from) in [(&mut a, 1), (&mut b, 0)] {
            let kept = wait_for(fixture, link, (number - first) as usize);
            assert!(kept.0.iter().all(|arrival| arrival.from == Some(PeerIndex(from))), "round {round}");
            assert_eq!(kept.numbers(), (first..number).collect::<Vec<_>>(), "round {round}");
        }
        if round % 2 == 1 {
            let mut none = None;
            must_swap(&mut a, place, &mut none);
            assert!(none.is_some(), "who was there comes back");
        }
    }
}

/// A peer that left is no peer: nothing goes to it, nothing comes in its name. When it
/// comes back under another number, it is known by that one.
pub fn a_peer_that_left_can_come_back<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b, mut c] = links(fixture);
    let mut with = None;
    must_send(&mut a, 2, 6, 1, 60);
    must_swap(&mut a, PeerIndex(2), &mut with);
    drop(with.take());
    assert_eq!(send_pattern(&mut a, 2, 6, 2, 60), SendOutcome::Failed);
    a.flush();
    let at_c = take_what_is_there(fixture, &mut c);
    assert!(at_c.0.iter().all(|arrival| arrival.from == Some(PeerIndex(0)) && number_of(&arrival.bytes) == 1));
    // It has not heard of that yet, where nothing tells it.
    let _ = send_pattern(&mut c, 0, 6, 3, 60);
    c.flush();
    let at_a = take_what_is_there(fixture, &mut a);
    assert!(at_a.0.iter().all(|arrival| arrival.from.is_none()), "in the name of a peer that left");
    assert_eq!(take_what_is_there(fixture, &mut b).0, [], "what was meant for another");

    with = Some(fixture.prepare(0, BACK, 2));
    must_swap(&mut a, BACK, &mut with);
    assert!(with.is_none());
    passes(fixture, &mut a, &mut c, (BACK, PeerIndex(0)));
    passes(fixture, &mut c, &mut a, (PeerIndex(0), BACK));
    assert_eq!(send_pattern(&mut a, 2, 6, 4, 60), SendOutcome::Failed);
    must_send(&mut b, 0, 1, 5, 60);
    b.flush();
    assert_eq!(wait_for(fixture, &mut a, 1).0[0].from, Some(PeerIndex(1)));
}

/// Sends until a frame arrives: the technology may have to connect first.
fn passes<F: Fixture>(fixture: &mut F, from: &mut F::Link, to: &mut F::Link, (peer, expected): (PeerIndex, PeerIndex)) {
    let end = Instant::now() + 2 * PATIENCE;
    let mut kept = Keep::default();
    for number in 100.. {
        assert!(Instant::now() < end, "no frame passes to a peer that came later");
        let _ = send_pattern(from, peer.0, 1, number, 60);
        from.flush();
        fixture.settle();
        from.tend(mono_now());
        to.tend(mono_now());
        if receive(to, 64, true, &mut kept) > 0 {
            break;
        }
    }
    assert!(kept.0.iter().all(|arrival| arrival.from == Some(expected)), "the sender of a frame");
    take_what_is_there(fixture, to);
}

/// What was swapped out and is swapped in again is as it was: what needed a connection still
/// has it, and what had come before and was not taken is not lost.
pub fn a_swap_is_undone_by_the_same_call<F: Fixture>(fixture: &mut F) {
    let [mut a, _b, mut c] = links(fixture);
    let mut with = None;
    for round in 0..8 {
        must_send(&mut c, 0, 1, 2 * round, 80);
        c.flush();
        fixture.settle();
        must_swap(&mut a, PeerIndex(2), &mut with);
        assert!(with.is_some());
        must_swap(&mut a, PeerIndex(2), &mut with);
        assert!(with.is_none());
        must_send(&mut c, 0, 1, 2 * round + 1, 80);
        must_send(&mut a, 2, 6, round, 80);
        c.flush();
        a.flush();
        let at_a = wait_for(fixture, &mut a, 2);
        assert!(at_a.0.iter().all(|arrival| arrival.from == Some(PeerIndex(2))), "the sender of a frame");
        assert_eq!(at_a.numbers(), [2 * round, 2 * round + 1]);
        assert_eq!(wait_for(fixture, &mut c, 1).numbers(), [round]);
    }
}

/// A peer whose address another has, or for which there is no place, is refused; what was
/// to be put in is handed back, and frames go on.
pub fn a_refused_peer_changes_nothing<F: Fixture>(fixture: &mut F) {
    let [mut a, mut b, _c] = links(fixture);
    let mut twice = Some(fixture.prepare(0, BACK, 1));
    assert_eq!(a.swap_peer(BACK, &mut twice), Err(SwapRefused::AddressTaken(PeerIndex(1))));
    assert!(twice.is_some(), "it is handed back");
    for place in [64, 1000, u16::MAX] {
        let mut nowhere = Some(fixture.prepare(0, PeerIndex(place), 1));
        assert!(a.swap_peer(PeerIndex(place), &mut nowhere).is_err(), "place {place}");
        assert!(nowhere.is_some(), "it is handed back");
    }
    assert_eq!(send_pattern(&mut a, BACK.0, 1, 1, 60), SendOutcome::Failed);
    must_send(&mut a, 1, 1, 2, 60);
    must_send(&mut b, 0, 6, 3, 60);
    a.flush();
    b.flush();
    assert_eq!(wait_for(fixture, &mut b, 1).numbers(), [2]);
    assert_eq!(wait_for(fixture, &mut a, 1).numbers(), [3]);
}

/// What comes and goes is made and freed elsewhere.
pub fn peers_are_swapped_without_allocation<F: Fixture>(fixture: &mut F) {
    let [mut a, _b, _c] = links(fixture);
    let mut with = None;
    let before = guard::violations_here();
    for _ in 0..4 {
        let new = fixture.prepare(0, BACK, 2);
        sealed(|| must_swap(&mut a, PeerIndex(2), &mut with));
        with = Some(new);
        sealed(|| must_swap(&mut a, BACK, &mut with));
        sealed(|| must_swap(&mut a, BACK, &mut with));
        drop(with.take());
        with = Some(fixture.prepare(0, PeerIndex(2), 2));
        sealed(|| must_swap(&mut a, PeerIndex(2), &mut with));
    }
    assert_eq!(guard::violations_here(), before, "allocations while peers were swapped");
}
