//! Questions and answers about neighbours, where best effort has filled all that there is room
//! for: real time depends on them as well, so they go with it, a few at a time.
//!
//! The device is a ring that nobody empties until the test does, so that what leaves, and in which
//! order, does not depend on how quick the machine is.

mod common;
#[path = "common/ring.rs"]
mod ring;

use common::dpdk;
use dpdk_sys::BURST;
use insane_conformance::Keep;
use insane_conformance::wire::{PEER, send};
use insane_core::{Lane, MonoTime, Nanos};
use insane_link::{Link, SendOutcome};
use insane_sys::clock::mono_now;
use ring::{RING, Wire, address, neighbour};

/// Frames that the device holds: one place of its ring stays empty.
const HELD: usize = RING as usize - 1;
/// Answers that may wait among the frames of real time.
const BESIDE: usize = BURST / 8;
/// Longer than any question or answer.
const FLOOD: [u8; 1000] = [7; 1000];
const URGENT: [u8; 1000] = [1; 1000];

/// All that the link has to send, as it comes out when the device takes frames again.
fn drain_all(wire: &mut Wire) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    for _ in 0..8 {
        came.extend(wire.drain());
        wire.link.flush();
    }
    came
}

/// Device and link have no room for one more frame of this lane, after so many.
fn fill(wire: &mut Wire, lane: Lane, bytes: &[u8]) -> usize {
    for count in 0..1000 {
        if wire.link.send(PEER, lane, bytes, (&[][..]).into()) == SendOutcome::Busy {
            return count;
        }
        wire.link.flush();
    }
    panic!("it is never full");
}

/// So many strangers ask where the link is.
fn strangers_ask(wire: &mut Wire, count: usize) {
    for last in 100..100 + count {
        let (mut stranger, mut question) = (neighbour(last, wire.is_v6), [0; 128]);
        stranger.acquire(address(2, wire.is_v6), mono_now()).unwrap();
        let len = stranger.poll(mono_now(), &mut question).unwrap();
        wire.put(&question[..len]);
    }
    wire.link.receive(64, true, &mut Keep::default());
}

fn is_flood(bytes: &[u8]) -> bool {
    bytes.ends_with(&FLOOD)
}

fn is_urgent(bytes: &[u8]) -> bool {
    bytes.ends_with(&URGENT)
}

/// Neither: it is of the neighbours' protocol.
fn is_word(bytes: &[u8]) -> bool {
    bytes.len() < 100
}

#[test]
fn a_question_goes_before_the_best_effort_that_waits_and_its_answer_is_heard() {
    let Some(_alone) = dpdk() else { return };
    for v6 in [false, true] {
        let mut wire = Wire::make(v6, None);
        assert_eq!(fill(&mut wire, Lane::LAST, &FLOOD), HELD + BURST);
        // What is known of the peer counts no more.
        let later: MonoTime = mono_now() + Nanos::from_secs(31);
        wire.link.tend(later);
        assert_eq!((wire.link.counts().answers_lost, wire.link.counts().unresolved), (0, 0));
        let came = drain_all(&mut wire);
        assert_eq!(came.len(), HELD + 1 + BURST);
        assert_eq!(
            came.iter().position(|frame| is_word(frame)),
            Some(HELD),
            "behind what the device had, and before all that waits"
        );
        assert_eq!(came.iter().filter(|frame| is_flood(frame)).count(), HELD + BURST);
        // The answer is heard: otherwise it would ask again, and not know the way in the end.
        wire.link.receive(64, true, &mut Keep::default());
        for count in 1..=4 {
            wire.link.tend(later + Nanos::from_millis(count * 251));
        }
        assert_eq!((wire.drain(), wire.link.knows_all_ways()), (Vec::new(), true));
    }
}

#[test]
fn answers_go_before_the_best_effort_that_waits_and_leave_real_time_its_room() {
    let Some(_alone) = dpdk() else { return };
    for v6 in [false, true] {
        let mut wire = Wire::make(v6, None);
        assert_eq!(fill(&mut wire, Lane::LAST, &FLOOD), HELD + BURST);
        let answered = wire.link.counts().answered;
        strangers_ask(&mut wire, 3 * BESIDE);
        let counts = wire.link.counts();
        assert_eq!(counts.answered - answered, BESIDE as u64, "so many are answered at once");
        assert_eq!(counts.answers_lost, 2 * BESIDE as u64, "and the others may ask again");
        // Nobody's questions keep frames of real time out.
        for _ in 0..BURST - BESIDE {
            send(&mut wire.link, 0, &URGENT);
        }
        assert_eq!(wire.link.send(PEER, Lane::LAST, &FLOOD, (&[][..]).into()), SendOutcome::Busy);
        let came = drain_all(&mut wire);
        let rest = &came[HELD..];
        assert!(came[..HELD].iter().all(|frame| is_flood(frame)), "what the device had is under way");
        assert!(rest[..BESIDE].iter().all(|frame| is_word(frame)), "answers");
        assert!(rest[BESIDE..BURST].iter().all(|frame| is_urgent(frame)), "real time");
        assert!(rest[BURST..].iter().all(|frame| is_flood(frame)) && rest.len() == 2 * BURST, "best effort");
        // Now there is room, and everybody is answered in turn.
        let before = wire.link.counts();
        strangers_ask(&mut wire, 3 * BESIDE);
        let after = wire.link.counts();
        assert_eq!((after.answered - before.answered, after.answers_lost), (3 * BESIDE as u64, before.answers_lost));
    }
}

/// Real time, too, has all its room taken: an answer waits for nobody, and costs no frame.
#[test]
fn where_real_time_is_full_as_well_an_answer_is_given_up_and_counted() {
    let Some(_alone) = dpdk() else { return };
    let mut wire = Wire::make(false, None);
    assert_eq!(fill(&mut wire, Lane::LAST, &FLOOD), HELD + BURST);
    assert_eq!(fill(&mut wire, Lane::CONTROL, &URGENT), 0, "lanes that are not real time share one room");
    let real_time = Lane::new(0).unwrap();
    assert_eq!(fill(&mut wire, real_time, &URGENT), BURST);
    strangers_ask(&mut wire, 1);
    assert_eq!(wire.link.counts().answers_lost, 1);
    let came = drain_all(&mut wire);
    assert_eq!(came.iter().filter(|frame| is_urgent(frame)).count(), BURST);
    assert_eq!(came.iter().filter(|frame| is_flood(frame)).count(), HELD + BURST);
    assert!(!came.iter().any(|frame| is_word(frame)));
}
