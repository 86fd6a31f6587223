use crate::discovery::{Configured, Counters, Decision, Discovery, Event, Fact, Limits, LinkFact, Peer, Reason, Rules};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use insane_core::{HostId, Incarnation, MonoTime, Nanos};
use proptest::prelude::*;

const OWN: HostId = HostId(1);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn s(seconds: u64) -> MonoTime {
    MonoTime(1_000_000_000 * (100 + seconds))
}

fn link(name: &str, technology: &str, address: &str) -> LinkFact {
    LinkFact { name: name.into(), technology: technology.into(), address: at(address) }
}

fn rules() -> Rules {
    Rules { allow: vec!["10.0.0.0/24".parse().unwrap()], peers_max: 4, forget_after: Nanos::from_secs(30) }
}

fn machine() -> Discovery {
    let links = vec![link("net", "udp", "10.0.0.1:7400"), link("spare", "tcp", "10.0.0.1:7500")];
    Discovery::new(OWN, "own".into(), links, rules(), Limits::default())
}

/// The host of this number, at this address.
fn fact(host: u64, last: u8) -> Fact {
    Fact {
        host: HostId(host),
        incarnation: Incarnation(host),
        name: format!("host-{host}"),
        origin: at(&format!("10.0.0.{last}:7100")),
        links: vec![link("net", "udp", &format!("10.0.0.{last}:7400"))],
    }
}

fn peer(host: u64, last: u8) -> Peer {
    let addresses = vec![(0, at(&format!("10.0.0.{last}:7400")))];
    Peer { host: HostId(host), name: format!("host-{host}"), addresses }
}

fn refused(machine: &Discovery, reason: Reason) -> u64 {
    machine.counters().refused[Reason::ALL.iter().position(|other| other.name() == reason.name()).unwrap()]
}

/// Carries out all that is due.
fn carry_out(machine: &mut Discovery, now: MonoTime) -> Vec<Decision> {
    let mut decisions = Vec::new();
    while let Some(decision) = machine.poll(now) {
        assert_eq!(machine.poll(now), None, "one at a time");
        decisions.push(decision);
        machine.done();
    }
    decisions
}

#[test]
fn a_host_is_added_once_and_removed_when_it_is_not_heard_of() {
    let mut machine = machine();
    machine.on_fact(s(0), &fact(2, 2));
    assert_eq!(carry_out(&mut machine, s(0)), [Decision::Add(peer(2, 2))]);
    for second in 1..100 {
        machine.on_fact(s(second), &fact(2, 2));
        assert_eq!(carry_out(&mut machine, s(second)), []);
    }
    assert_eq!(machine.next_deadline(), Some(s(99) + Nanos::from_secs(30)));
    assert_eq!(carry_out(&mut machine, s(128)), []);
    assert_eq!(carry_out(&mut machine, s(129)), [Decision::Remove(HostId(2))]);
    assert_eq!((machine.found().count(), machine.next_deadline()), (0, None));
    machine.on_fact(s(130), &fact(2, 9));
    assert_eq!(carry_out(&mut machine, s(130)), [Decision::Add(peer(2, 9))], "elsewhere, at once");
    assert_eq!(machine.counters().changes, [2, 0, 1]);
}

#[test]
fn a_host_that_answers_as_a_peer_is_not_forgotten_and_keeps_its_place() {
    let mut machine = machine();
    machine.on_fact(s(0), &fact(2, 2));
    machine.on_answer(s(0), HostId(2));
    carry_out(&mut machine, s(0));
    for second in 1..200 {
        machine.on_answer(s(second), HostId(2));
        machine.on_answer(s(second), HostId(3));
        machine.on_fact(s(second), &fact(2, 3));
        assert_eq!(carry_out(&mut machine, s(second)), []);
    }
    assert_eq!(refused(&machine, Reason::TwinHost), 199);
    assert_eq!(carry_out(&mut machine, s(229)), [Decision::Remove(HostId(2))], "30 s after it answered last");
    // New rules hold all the same.
    machine.on_fact(s(230), &fact(4, 4));
    carry_out(&mut machine, s(230));
    machine.set_rules(Rules { allow: vec!["10.0.0.9".parse().unwrap()], ..rules() });
    machine.on_answer(s(231), HostId(4));
    assert_eq!(carry_out(&mut machine, s(231)), [Decision::Remove(HostId(4))]);
}

#[test]
fn links_are_joined_by_name_technology_and_family() {
    let mut machine = machine();
    let mut other = fact(2, 2);
    other.links = vec![
        link("spare", "tcp", "10.0.0.2:7500"),
        link("net", "tcp", "10.0.0.2:7400"),
        link("other", "udp", "192.168.0.1:7400"),
        link("net", "udp", "10.0.0.2:7600"),
    ];
    machine.on_fact(s(0), &other);
    let addresses = vec![(0, at("10.0.0.2:7600")), (1, at("10.0.0.2:7500"))];
    assert_eq!(carry_out(&mut machine, s(0)), [Decision::Add(Peer { addresses, ..peer(2, 2) })]);
    let mut stranger = fact(3, 3);
    stranger.links = vec![link("net", "udp", "[2001:db8::1]:7400"), link("plant", "udp", "10.0.0.3:7400")];
    machine.on_fact(s(0), &stranger);
    assert_eq!((carry_out(&mut machine, s(0)), refused(&machine, Reason::NoLink)), (vec![], 1));
}

#[test]
fn a_host_that_comes_back_elsewhere_moves_when_the_old_place_is_silent() {
    let mut machine = machine();
    machine.on_fact(s(0), &fact(2, 2));
    carry_out(&mut machine, s(0));
    let moved = Fact { incarnation: Incarnation(9), ..fact(2, 3) };
    for second in 1..5 {
        machine.on_fact(s(second), &moved);
    }
    assert_eq!((carry_out(&mut machine, s(4)), refused(&machine, Reason::TwinHost)), (vec![], 4));
    machine.on_fact(s(5), &moved);
    assert_eq!(carry_out(&mut machine, s(5)), [Decision::Move(peer(2, 3))]);
    // In another life at the same place nothing is to be done; a lower number is as good.
    machine.on_fact(s(6), &Fact { incarnation: Incarnation(1), ..fact(2, 3) });
    assert_eq!(carry_out(&mut machine, s(6)), []);
    assert_eq!(machine.found().next().unwrap().1, Incarnation(1));
}

#[test]
fn of_two_hosts_with_one_identifier_the_first_stays() {
    let mut machine = machine();
    for second in 0..100 {
        machine.on_fact(s(second), &fact(2, 2));
        machine.on_fact(s(second), &fact(2, 3));
        let decisions = carry_out(&mut machine, s(second));
        assert_eq!(decisions, if second == 0 { vec![Decision::Add(peer(2, 2))] } else { vec![] });
    }
    assert_eq!(refused(&machine, Reason::TwinHost), 100);
    let [known] = machine.refused() else { panic!("{:?}", machine.refused()) };
    assert_eq!((known.host, known.times, known.origin), (HostId(2), 100, at("10.0.0.3:7100")));
}

#[test]
fn every_reason_to_refuse_is_found_counted_and_told_once() {
    let mut machine = machine();
    machine.set_configured(vec![Configured { name: "fixed".into(), addresses: vec![(0, at("10.0.0.50:7400"))] }]);
    machine.on_fact(s(0), &fact(2, 2));
    let named = |name: &str, fact: Fact| Fact { name: name.into(), ..fact };
    let linked = |address: &str, fact: Fact| Fact { links: vec![link("net", "udp", address)], ..fact };
    let cases = [
        (Reason::Malformed, Fact { host: HostId(0), ..fact(3, 3) }),
        (Reason::Malformed, named("", fact(3, 3))),
        (Reason::Malformed, named(&"x".repeat(65), fact(3, 3))),
        (Reason::Malformed, named("a\u{1b}[31m", fact(3, 3))),
        (Reason::Malformed, linked("10.0.0.3:0", fact(3, 3))),
        (Reason::Malformed, linked("224.0.0.1:7400", fact(3, 3))),
        (Reason::Malformed, linked("0.0.0.0:7400", fact(3, 3))),
        (Reason::Malformed, Fact { links: vec![link("net", "udp", "10.0.0.3:7400"); 17], ..fact(3, 3) }),
        (Reason::Outside, Fact { origin: at("10.0.1.3:7100"), ..fact(3, 3) }),
        (Reason::Outside, linked("10.0.1.3:7400", fact(3, 3))),
        (Reason::OwnHost, fact(1, 3)),
        (Reason::TwinHost, fact(2, 3)),
        (Reason::NameTaken, named("own", fact(3, 3))),
        (Reason::NameTaken, named("host-2", fact(3, 3))),
        (Reason::AddressTaken, linked("10.0.0.1:7401", fact(3, 3))),
        (Reason::AddressTaken, linked("10.0.0.2:7401", fact(3, 3))),
        (Reason::Configured, named("fixed", fact(3, 3))),
        (Reason::Configured, linked("10.0.0.50:7399", fact(3, 3))),
        (Reason::NoLink, Fact { links: vec![], ..fact(3, 3) }),
    ];
    for (reason, fact) in &cases {
        let before = refused(&machine, *reason);
        machine.on_fact(s(0), fact);
        assert_eq!(refused(&machine, *reason), before + 1, "{reason:?} {fact:?}");
    }
    for host in 3..6 {
        machine.on_fact(s(0), &fact(host, host as u8));
    }
    machine.on_fact(s(0), &fact(6, 6));
    machine.on_fact(s(0), &fact(6, 6));
    assert_eq!(refused(&machine, Reason::Full), 2);
    let decisions = carry_out(&mut machine, s(0));
    assert_eq!(decisions.len(), 4, "{decisions:?}");
    machine.on_other_format(s(0), at("10.0.0.3:2"), 7);
    assert_eq!(refused(&machine, Reason::OtherFormat(7)), 1);
    assert!(machine.refused().last().unwrap().reason.to_string().contains("in format 7"));
    let mut told = Vec::new();
    while let Some(event) = machine.next_event() {
        let Event::Refused { reason, name, .. } = event else { panic!("{event:?}") };
        assert!(!name.chars().any(char::is_control));
        told.push(reason);
    }
    assert_eq!(told.iter().filter(|reason| **reason == Reason::Full).count(), 1);
    told.dedup();
    let all: Vec<Reason> = told;
    for reason in Reason::ALL {
        assert!(all.iter().any(|told| told.name() == reason.name()), "{reason:?}");
    }
    machine.on_malformed(s(1), at("10.0.0.3:1"));
    machine.on_stranger(s(1), at("10.9.0.3:1"));
    assert_eq!(machine.refused().last().unwrap().reason, Reason::Outside);
}

#[test]
fn the_configuration_takes_over_and_gives_back() {
    let mut machine = machine();
    machine.on_fact(s(0), &fact(2, 2));
    machine.on_fact(s(0), &fact(3, 3));
    carry_out(&mut machine, s(0));
    machine.set_configured(vec![Configured { name: "x".into(), addresses: vec![(0, at("10.0.0.2:7400"))] }]);
    assert_eq!(machine.next_event(), Some(Event::Displaced { host: HostId(2), name: "host-2".into() }));
    machine.on_fact(s(1), &fact(2, 2));
    assert_eq!(carry_out(&mut machine, s(1)), [], "who put it there has taken the other away");
    assert_eq!(refused(&machine, Reason::Configured), 1);
    machine.set_configured(vec![]);
    machine.on_fact(s(2), &fact(2, 2));
    assert_eq!(carry_out(&mut machine, s(2)), [Decision::Add(peer(2, 2))]);
}

#[test]
fn other_rules_put_out_who_is_outside_and_keep_who_is_too_many() {
    let mut machine = machine();
    for host in 2..5 {
        machine.on_fact(s(0), &fact(host, host as u8));
    }
    carry_out(&mut machine, s(0));
    let allow = vec!["10.0.0.2".parse().unwrap(), "10.0.0.3".parse().unwrap()];
    machine.set_rules(Rules { allow, peers_max: 1, ..rules() });
    assert_eq!(carry_out(&mut machine, s(0)), [Decision::Remove(HostId(4))]);
    machine.on_fact(s(1), &fact(4, 4));
    machine.on_fact(s(1), &fact(3, 3));
    assert_eq!((carry_out(&mut machine, s(1)), machine.found().count()), (vec![], 2));
}

#[test]
fn what_could_not_be_done_is_tried_again_and_not_at_once() {
    let mut machine = machine();
    machine.on_fact(s(0), &fact(2, 2));
    assert!(machine.poll(s(0)).is_some());
    machine.failed(s(0));
    assert_eq!((machine.poll(s(4)), machine.next_deadline()), (None, Some(s(5))));
    assert_eq!(carry_out(&mut machine, s(5)), [Decision::Add(peer(2, 2))]);
    assert_eq!(machine.counters().failed, 1);
}

#[test]
fn a_host_that_is_heard_of_while_it_is_taken_out_comes_back() {
    let mut machine = machine();
    machine.on_fact(s(0), &fact(2, 2));
    carry_out(&mut machine, s(0));
    assert_eq!(machine.poll(s(40)), Some(Decision::Remove(HostId(2))));
    machine.on_fact(s(40), &fact(2, 2));
    machine.done();
    assert_eq!(carry_out(&mut machine, s(40)), [Decision::Add(peer(2, 2))]);
}

#[test]
fn a_storm_costs_counted_drops_and_nobody_its_place() {
    let mut machine = machine();
    machine.on_fact(s(0), &fact(2, 2));
    carry_out(&mut machine, s(0));
    for host in 0..100_000_u64 {
        machine.on_fact(s(0), &Fact { origin: at("10.0.7.7:7100"), ..fact(host + 10, 7) });
    }
    let Counters { facts, dropped, .. } = *machine.counters();
    assert_eq!((facts, dropped), (100_001, 99_001));
    assert_eq!((machine.refused().len(), machine.found().count()), (32, 1));
    let mut events = 0;
    while machine.next_event().is_some() {
        events += 1;
    }
    assert_eq!(events, 32);
    machine.on_fact(s(1), &fact(3, 3));
    assert_eq!(carry_out(&mut machine, s(1)).len(), 1, "the next second is free again");
}

proptest! {
    /// Whatever is told: names, addresses and identifiers of peers stay unique, the
    /// configuration's are nobody's, and bounds hold.
    #[test]
    fn whatever_is_told_no_two_peers_are_alike(
        steps in proptest::collection::vec((0_u64..8, 0_u8..8, 0_u8..8, 0_u64..4, 0_u8..12), 1..200)
    ) {
        let mut machine = machine();
        let fixed = Configured { name: "host-7".to_string(), addresses: vec![(0, at("10.0.0.7:7400"))] };
        machine.set_configured(vec![fixed]);
        let mut now = s(0);
        let mut peers: Vec<Peer> = Vec::new();
        for (host, last, name, seconds, what) in steps {
            now += Nanos::from_secs(seconds);
            let name: String = format!("host-{name}");
            machine.on_fact(now, &Fact { name, ..fact(host, last) });
            let Some(decision) = machine.poll(now) else { continue };
            if what == 0 {
                machine.failed(now);
                continue;
            }
            peers.retain(|peer| peer.host != decision.host());
            if let Decision::Add(peer) | Decision::Move(peer) = decision {
                peers.push(peer);
            }
            machine.done();
            prop_assert!(peers.len() <= 4);
            for (at, peer) in peers.iter().enumerate() {
                prop_assert!(peer.host != OWN && peer.name != "host-7" && peer.name != "own");
                prop_assert!(peer.addresses != [(0, "10.0.0.7:7400".parse().unwrap())]);
                for other in &peers[..at] {
                    prop_assert!(other.host != peer.host && other.addresses != peer.addresses);
                    prop_assert!(other.name != peer.name);
                }
            }
        }
    }
}
