//! Tests of [`crate::group`]: by hand, and against an oracle that knows what passes.

use crate::group::{ANSWER_EVERY, Event, Limits, Prober, Responder, deaf_after};
use insane_core::limits::PEERS_MAX;
use insane_core::{HostId, Incarnation, MonoTime, Nanos, PeerIndex};
use insane_wire::group::{GROUP_BYTES, GroupBody};
use std::vec::Vec;

const OWN: (HostId, Incarnation) = (HostId(1), Incarnation(10));

fn life(peer: u16) -> (HostId, Incarnation) {
    (HostId(100 + u64::from(peer)), Incarnation(200 + u64::from(peer)))
}

fn answer(peer: u16, number: u64) -> GroupBody {
    let (host, incarnation) = life(peer);
    GroupBody { host, incarnation, to: Some(OWN.1), number }
}

/// A prober with peers 0 to `peers`, and its clock.
struct Case {
    prober: Prober,
    now: MonoTime,
}

impl Case {
    fn new(peers: u16) -> Self {
        let mut prober = Prober::new(OWN, 2, Limits::default());
        (0..peers).for_each(|peer| prober.add(PeerIndex(peer)));
        Case { prober, now: MonoTime(1) }
    }

    /// The next probe, answered by those of `answering`.
    fn probe(&mut self, answering: &[u16]) -> u64 {
        let mut bytes = [0; GROUP_BYTES];
        self.now = self.prober.next_deadline().unwrap().max(self.now);
        assert!(self.prober.poll(self.now, &mut bytes));
        assert!(!self.prober.poll(self.now, &mut bytes), "one probe at a time");
        let probe = GroupBody::decode(&bytes).unwrap();
        assert_eq!((probe.host, probe.incarnation, probe.to), (OWN.0, OWN.1, None));
        for peer in answering {
            assert!(self.prober.on_answer(PeerIndex(*peer), Some(life(*peer)), &answer(*peer, probe.number)));
        }
        probe.number
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.prober.next_event()).collect()
    }
}

#[test]
fn who_answers_hears_and_who_does_not_never_does() {
    let mut case = Case::new(3);
    case.probe(&[0, 1]);
    assert_eq!(case.events(), []);
    case.probe(&[0, 1]);
    assert_eq!(case.events(), [Event::Hears(PeerIndex(0)), Event::Hears(PeerIndex(1))]);
    for _ in 0..20 {
        case.probe(&[0, 1]);
    }
    assert_eq!(case.events(), []);
    assert_eq!(case.prober.hearing().collect::<Vec<_>>(), [PeerIndex(0), PeerIndex(1)]);
    assert!(!case.prober.hears(PeerIndex(2)) && case.prober.is_member(PeerIndex(2)));
}

#[test]
fn one_that_misses_too_many_is_deaf_in_time_and_has_to_answer_more_to_hear_again() {
    let limits = Limits::default();
    let mut case = Case::new(2);
    for _ in 0..limits.confirm {
        case.probe(&[0, 1]);
    }
    case.events();
    // One miss less than the bound is forgiven.
    for _ in 1..limits.missed_max {
        case.probe(&[1]);
    }
    case.probe(&[0, 1]);
    assert_eq!(case.events(), []);
    let reached_at = case.now;
    while case.events().is_empty() {
        case.probe(&[1]);
    }
    assert_eq!(case.now.since(reached_at), deaf_after(&limits));
    assert!(!case.prober.hears(PeerIndex(0)) && case.prober.hears(PeerIndex(1)));
    // The probe that went when it was found out counts already.
    case.probe(&[1]);
    for _ in 1..limits.confirm_again {
        case.probe(&[0, 1]);
        assert_eq!(case.events(), []);
    }
    // A gap in the row begins it anew.
    case.probe(&[1]);
    for _ in 1..limits.confirm_again {
        case.probe(&[0, 1]);
        assert_eq!(case.events(), []);
    }
    case.probe(&[0, 1]);
    assert_eq!(case.events(), [Event::Hears(PeerIndex(0))]);
}

#[test]
fn answers_of_others_to_others_or_twice_change_nothing() {
    let mut case = Case::new(2);
    let peer = PeerIndex(0);
    let number = case.probe(&[]);
    let good = answer(0, number);
    for (life_of, body) in [
        (None, good),
        (Some(life(1)), good),
        (Some(life(0)), GroupBody { to: Some(Incarnation(9)), ..good }),
        (Some(life(0)), GroupBody { to: None, ..good }),
        (Some(life(0)), GroupBody { number: number + 1, ..good }),
        (Some(life(0)), GroupBody { incarnation: Incarnation(5), ..good }),
    ] {
        assert!(!case.prober.on_answer(peer, life_of, &body));
    }
    assert!(!case.prober.on_answer(PeerIndex(7), Some(life(7)), &answer(7, number)), "no peer of this link");
    assert!(!case.prober.on_answer(PeerIndex(900), Some(life(0)), &good));
    assert!(case.prober.on_answer(peer, Some(life(0)), &good));
    assert!(!case.prober.on_answer(peer, Some(life(0)), &good), "twice");
    assert_eq!(case.events(), []);
    // One that is older than the bound is no sign of life.
    for _ in 0..Limits::default().missed_max {
        case.probe(&[]);
    }
    assert!(!case.prober.on_answer(peer, Some(life(0)), &answer(0, number)));
}

#[test]
fn another_life_and_leaving_end_it() {
    let mut case = Case::new(3);
    for _ in 0..2 {
        case.probe(&[0, 1, 2]);
    }
    case.events();
    case.prober.forget(PeerIndex(0));
    case.prober.remove(PeerIndex(1));
    case.prober.forget(PeerIndex(9));
    assert_eq!(case.events(), [Event::Deaf(PeerIndex(0)), Event::Deaf(PeerIndex(1))]);
    case.probe(&[0]);
    case.probe(&[0]);
    assert_eq!(case.events(), [Event::Hears(PeerIndex(0))]);
}

#[test]
fn few_peers_are_not_probed() {
    let mut case = Case::new(1);
    assert_eq!(case.prober.next_deadline(), None);
    assert!(!case.prober.poll(MonoTime(u64::MAX), &mut [0; GROUP_BYTES]));
    case.prober.add(PeerIndex(5));
    assert!(case.prober.next_deadline().is_some());
    for _ in 0..2 {
        case.probe(&[0, 5]);
    }
    case.prober.remove(PeerIndex(5));
    assert!(case.prober.next_deadline().is_some(), "one that hears can still become deaf");
}

#[test]
fn a_flood_of_probes_is_answered_at_its_own_pace() {
    let (host, incarnation) = life(3);
    let mut responder = Responder::new(OWN);
    let probe = GroupBody { host, incarnation, to: None, number: 1 };
    let mut answers = 0;
    for at in 0..1000 {
        let now = MonoTime(1) + Nanos::from_millis(at);
        let Some(bytes) = responder.on_probe(now, PeerIndex(3), Some(life(3)), &probe) else { continue };
        let expected = GroupBody { host: OWN.0, incarnation: OWN.1, to: Some(incarnation), number: 1 };
        assert_eq!(GroupBody::decode(&bytes), Ok(expected));
        answers += 1;
    }
    assert_eq!(answers, 1_000_000_000 / ANSWER_EVERY.0);
    let later = MonoTime(1) + Nanos::from_secs(10);
    assert!(responder.on_probe(later, PeerIndex(3), None, &probe).is_none(), "membership does not know it yet");
    assert!(responder.on_probe(later, PeerIndex(3), Some(life(4)), &probe).is_none());
    assert!(responder.on_probe(later, PeerIndex(PEERS_MAX as u16), Some(life(3)), &probe).is_none());
    let answer = GroupBody { to: Some(OWN.1), ..probe };
    assert!(responder.on_probe(later, PeerIndex(3), Some(life(3)), &answer).is_none());
}

/// Random losses; the oracle counts answers and misses in a row.
#[test]
fn behaves_like_a_count_of_answers_in_a_row() {
    let limits = Limits::default();
    let mut case = Case::new(4);
    let mut model = [(false, false, 0_u32, 0_u32); 4];
    let mut random = 1_u64;
    let mut changes = 0;
    for _ in 0..20_000 {
        // What the last probes said is judged when the next goes out.
        for (hears, failed, row, missed) in &mut model {
            if *missed >= limits.missed_max {
                *row = 0;
                if *hears {
                    (*hears, *failed) = (false, true);
                    changes += 1;
                }
            }
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let answering: Vec<u16> =
            (0..4).filter(|peer| (random >> (20 + 8 * peer)) & 0xff >= 40 * u64::from(*peer)).collect();
        case.probe(&answering);
        for (peer, (hears, failed, row, missed)) in model.iter_mut().enumerate() {
            if answering.contains(&(peer as u16)) {
                *row = if *missed == 0 { *row + 1 } else { 1 };
                *missed = 0;
                let needed = if *failed { limits.confirm_again } else { limits.confirm };
                if !*hears && *row >= needed {
                    *hears = true;
                    changes += 1;
                }
            } else {
                *missed += 1;
            }
        }
        for (peer, (hears, ..)) in model.iter().enumerate() {
            assert_eq!(case.prober.hears(PeerIndex(peer as u16)), *hears, "peer {peer}");
        }
    }
    assert_eq!(case.events().len(), changes);
    assert!(changes > 100, "{changes}");
}
