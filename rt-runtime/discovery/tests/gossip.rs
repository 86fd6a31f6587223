//! The back end on chitchat, over loopback: who hears whom, and what does no harm.
#![cfg(feature = "gossip")]

use insane_core::{HostId, Incarnation};
use insane_discovery::seeds::SeedState;
use insane_discovery::{Backend, BackendRules, Settings, Sighting, start};
use insane_overlay::discovery::LinkFact;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(40);

/// An address of this host that nobody has.
fn free(ip: &str) -> SocketAddr {
    UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap()
}

fn settings(host: u64, bind: SocketAddr, seeds: &[SocketAddr]) -> Settings {
    let address = SocketAddr::new(bind.ip(), 7400);
    Settings {
        host: HostId(host),
        name: format!("host-{host}"),
        incarnation: Incarnation(host),
        bind,
        cluster: "test".into(),
        links: vec![LinkFact { name: "net".into(), technology: "udp".into(), address }],
        rules: BackendRules { allow: vec!["127.0.0.0/25".parse().unwrap()], seeds: seeds.to_vec() },
    }
}

fn backend(settings: Settings) -> Box<dyn Backend> {
    start(settings, || {}).unwrap()
}

#[track_caller]
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn hears(backend: &mut dyn Backend, host: u64) -> bool {
    std::iter::from_fn(|| backend.next_sighting())
        .any(|sighting| matches!(sighting, Sighting::Fact(fact) if fact.host == HostId(host)))
}

fn count(backend: &dyn Backend, counter: &str) -> u64 {
    backend.report().counters[counter]
}

#[test]
fn hosts_that_know_one_seed_hear_of_each_other_and_noise_changes_nothing() {
    let ends = [free("127.0.0.1"), free("127.0.0.2"), free("127.0.0.3")];
    let nobody = free("127.0.0.9");
    let mut all: Vec<_> = (0..3).map(|at| backend(settings(at + 1, ends[at as usize], &[ends[0], nobody]))).collect();
    for at in 0..3 {
        for other in (1..=3).filter(|other| *other != at + 1) {
            wait_for("each hears each", || hears(&mut *all[at as usize], other));
        }
    }
    let seeds = |backend: &dyn Backend| backend.report().seeds;
    assert_eq!(seeds(&*all[0]), [(ends[0], SeedState::Own), (nobody, SeedState::Silent)]);
    wait_for("the seed is heard", || seeds(&*all[1]) == [(ends[0], SeedState::Heard), (nobody, SeedState::Silent)]);

    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stranger = UdpSocket::bind("127.0.0.200:0").unwrap();
    let mut bomb = vec![0x53, 0xb0, 0, 2];
    (0..10_000).for_each(|_| bomb.extend([1, 3, 0, 9, 9, 9]));
    bomb.push(0);
    for round in 0..200_u32 {
        let bytes: Vec<u8> = (0..round * 7).map(|at| (at * 31 + round) as u8).collect();
        noise.send_to(&bytes, ends[0]).unwrap();
        stranger.send_to(&[0x53, 0xb0, 0, 3], ends[0]).unwrap();
        noise.send_to(&bomb, ends[0]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    for counter in ["datagrams_malformed", "datagrams_outside", "datagrams_flooded"] {
        wait_for(counter, || count(&*all[0], counter) >= 100);
    }
    let strangers = std::iter::from_fn(|| all[0].next_sighting());
    let from = stranger.local_addr().unwrap();
    assert!(strangers.into_iter().any(|sighting| sighting == Sighting::Stranger { origin: from }));
    wait_for("they still hear each other", || hears(&mut *all[0], 2));
    wait_for("they still hear each other", || hears(&mut *all[2], 1));
    assert!(all.iter().all(|backend| backend.is_alive() && count(&**backend, "restarts") == 0));
}

#[test]
fn who_is_silent_is_not_heard_and_comes_back_in_another_place() {
    let (a, b, elsewhere) = (free("127.0.0.1"), free("127.0.0.2"), free("127.0.0.4"));
    let mut first = backend(settings(1, a, &[]));
    let second = backend(settings(2, b, &[a]));
    wait_for("it is heard", || hears(&mut *first, 2));
    drop(second);
    while first.next_sighting().is_some() {}
    std::thread::sleep(Duration::from_secs(3));
    // What was under way when it went.
    let _ = hears(&mut *first, 2);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!hears(&mut *first, 2), "a host that is gone shows no sign of life");
    // As by a clock that was set back: the life is an earlier one.
    let _again = backend(Settings { incarnation: Incarnation(0), ..settings(2, elsewhere, &[a]) });
    let mut origin = None;
    wait_for("it is heard again", || {
        let facts = std::iter::from_fn(|| first.next_sighting()).filter_map(|sighting| match sighting {
            Sighting::Fact(fact) => Some(fact.origin),
            _ => None,
        });
        origin = facts.last().or(origin);
        origin.is_some()
    });
    assert_eq!(origin, Some(elsewhere));
}

#[test]
fn who_is_outside_and_other_groups_are_not_heard_until_the_rules_change() {
    let (a, b, c) = (free("127.0.0.1"), free("127.0.0.130"), free("127.0.0.5"));
    let mut first = backend(settings(1, a, &[b, c]));
    let mut outside = settings(2, b, &[a]);
    outside.rules.allow = vec!["127.0.0.0/8".parse().unwrap()];
    let _outside = backend(outside);
    let _other = backend(Settings { cluster: "other".into(), ..settings(3, c, &[a]) });
    wait_for("it is turned away", || count(&*first, "datagrams_outside") > 2);
    wait_for("nothing is sent there", || count(&*first, "datagrams_not_sent") > 1);
    let mut never = || std::iter::from_fn(|| first.next_sighting()).all(|s| matches!(s, Sighting::Stranger { .. }));
    assert!(never());
    first.set_rules(BackendRules { allow: vec!["127.0.0.0/24".parse().unwrap()], seeds: vec![b] });
    wait_for("now it is heard", || hears(&mut *first, 2));
    assert!(!hears(&mut *first, 3));
    assert_eq!(first.report().seeds.len(), 1);
}

#[test]
fn an_address_that_is_taken_is_told() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap();
    let error = start(settings(1, bind, &[]), || {}).unwrap_err().to_string();
    assert!(error.starts_with(&format!("discovery.gossip.bind: cannot listen at {bind}")), "{error}");
}
