//! What the net does to frames, and that it does the same again.

use insane_core::time::Clock;
use insane_core::{Lane, MonoTime, Nanos, PeerIndex};
use insane_link::{FrameSink, Link, LinkSetup, SendOutcome};
use insane_sim::{Chance, Faults, SimConfig, SimError, SimLink, SimNet, WhenFull};
use std::net::SocketAddr;

fn a() -> SocketAddr {
    "10.0.0.1:7000".parse().unwrap()
}

fn b() -> SocketAddr {
    "10.0.0.2:7000".parse().unwrap()
}

fn open(net: &SimNet) -> (SimLink, SimLink) {
    (net.setup(a()).open(&[None, Some(b())]).unwrap(), net.setup(b()).open(&[Some(a()), None]).unwrap())
}

fn net(faults: Faults) -> (SimNet, SimLink, SimLink) {
    let net = SimNet::new(42, SimConfig { faults, ..SimConfig::default() });
    let (a, b) = open(&net);
    (net, a, b)
}

#[derive(Default)]
struct Numbers(Vec<u32>);

impl FrameSink for Numbers {
    fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
        self.0.push(u32::from_le_bytes(frame.try_into().unwrap()));
    }
}

fn send(link: &mut SimLink, peer: u16, number: u32) -> SendOutcome {
    link.send(PeerIndex(peer), Lane::LAST, &number.to_le_bytes(), (&[][..]).into())
}

fn receive(link: &mut SimLink) -> Vec<u32> {
    let mut numbers = Numbers::default();
    link.receive(u32::MAX, true, &mut numbers);
    numbers.0
}

/// Sends 500 frames, one a microsecond, and notes when which arrived.
fn trace(seed: u64, faults: Faults) -> Vec<(MonoTime, u32)> {
    let net = SimNet::new(seed, SimConfig { faults, ..SimConfig::default() });
    let (mut a, mut b) = open(&net);
    let mut trace = Vec::new();
    for number in 0..500 {
        assert_eq!(send(&mut a, 1, number), SendOutcome::Sent);
        net.advance(Nanos::from_micros(1));
        trace.extend(receive(&mut b).into_iter().map(|number| (net.clock().now(), number)));
    }
    while let Some(next) = net.next_arrival() {
        net.advance_to(next);
        trace.extend(receive(&mut b).into_iter().map(|number| (net.clock().now(), number)));
    }
    trace
}

const ROUGH: Faults = Faults {
    delay: Nanos(10_000),
    jitter: Nanos(5_000),
    loss: Chance::percent(10),
    duplication: Chance::percent(10),
    reordering: Chance::percent(10),
    reorder_by: Nanos(20_000),
    ..Faults::NONE
};

#[test]
fn one_seed_gives_one_history() {
    assert_eq!(trace(1, ROUGH), trace(1, ROUGH));
    assert_ne!(trace(1, ROUGH), trace(2, ROUGH));
}

#[test]
fn changing_one_fault_leaves_the_draws_of_the_others() {
    let numbers = |faults| trace(1, faults).into_iter().map(|(_, number)| number).collect::<Vec<_>>();
    let only_loss = Faults { loss: ROUGH.loss, ..Faults::NONE };
    let mut with_all = numbers(ROUGH);
    with_all.sort_unstable();
    with_all.dedup();
    assert_eq!(numbers(only_loss), with_all, "the same frames are lost");
}

#[test]
fn a_frame_arrives_after_its_delay_and_not_before() {
    let (net, mut a, mut b) = net(Faults { delay: Nanos(100), ..Faults::NONE });
    assert_eq!(net.next_arrival(), None);
    assert_eq!(send(&mut a, 1, 1), SendOutcome::Sent);
    assert_eq!(net.next_arrival(), Some(net.clock().now() + Nanos(100)));
    net.advance(Nanos(99));
    assert_eq!(receive(&mut b), []);
    net.advance(Nanos(1));
    assert_eq!(receive(&mut b), [1]);
}

#[test]
fn jitter_spreads_arrivals_and_keeps_their_order() {
    let times = trace(3, Faults { delay: Nanos(1_000), jitter: Nanos(50_000), ..Faults::NONE });
    assert!(times.windows(2).all(|pair| pair[0].1 < pair[1].1 && pair[0].0 <= pair[1].0));
    let mut gaps: Vec<_> = times.windows(2).map(|pair| pair[1].0.since(pair[0].0)).collect();
    gaps.sort_unstable();
    gaps.dedup();
    assert!(gaps.len() > 3, "{gaps:?}");
}

#[test]
fn loss_duplication_and_reordering_strike_as_often_as_told() {
    let (net, mut a, mut b) = net(Faults { delay: Nanos(10), ..ROUGH });
    let (mut out_of_order, mut highest) = (0, 0);
    for number in 0..10_000 {
        assert_eq!(send(&mut a, 1, number), SendOutcome::Sent);
        net.advance(Nanos::from_micros(1));
        for number in receive(&mut b) {
            out_of_order += u32::from(number < highest);
            highest = highest.max(number);
        }
    }
    net.advance(Nanos::from_secs(1));
    receive(&mut b);
    let counts = net.counts(self::a(), self::b());
    assert_eq!(counts.sent, 10_000);
    assert_eq!(counts.sent + counts.duplicated, counts.delivered + counts.lost);
    for count in [counts.lost, counts.duplicated, counts.held_back] {
        assert!((850..1250).contains(&count), "{counts:?}");
    }
    assert!(out_of_order > 500, "{out_of_order}");
    assert_eq!(net.counts(self::b(), self::a()).sent, 0);
}

#[test]
fn certain_and_impossible_mean_that() {
    let (_net, mut a, mut b) = net(Faults { duplication: Chance::ALWAYS, ..Faults::NONE });
    for number in 0..50 {
        assert_eq!(send(&mut a, 1, number), SendOutcome::Sent);
        assert_eq!(receive(&mut b), [number, number]);
    }
    assert_eq!(Chance::percent(100), Chance::ALWAYS);
    assert_eq!(Chance::per_million(5_000_000), Chance::ALWAYS);
}

#[test]
fn a_narrow_hop_loses_what_is_too_large_and_says_nothing() {
    let (net, mut a, mut b) = net(Faults::NONE);
    net.set_faults(self::a(), self::b(), Faults { frame_bytes_max: Some(3), ..Faults::NONE });
    assert_eq!(send(&mut a, 1, 1), SendOutcome::Sent, "four bytes");
    assert_eq!(receive(&mut b), []);
    net.set_faults(self::a(), self::b(), Faults { frame_bytes_max: Some(4), ..Faults::NONE });
    assert_eq!(send(&mut a, 1, 2), SendOutcome::Sent);
    assert_eq!(receive(&mut b), [2]);
    assert_eq!(net.counts(self::a(), self::b()).lost, 1);
}

#[test]
fn a_partition_cuts_one_direction_until_it_is_joined() {
    let (net, mut near, mut far) = net(Faults::NONE);
    net.set_partitioned(a(), b(), true);
    assert_eq!(send(&mut near, 1, 1), SendOutcome::Sent);
    assert_eq!(send(&mut far, 0, 2), SendOutcome::Sent);
    assert_eq!(receive(&mut far), []);
    assert_eq!(receive(&mut near), [2]);
    net.set_partitioned(a(), b(), false);
    assert_eq!(send(&mut near, 1, 3), SendOutcome::Sent);
    assert_eq!(receive(&mut far), [3], "what was sent meanwhile is lost");
    assert_eq!(net.counts(a(), b()).lost, 1);
}

#[test]
fn a_full_direction_refuses_or_loses_as_told() {
    let full = Faults { delay: Nanos(10), queue_frames_max: Some(2), ..Faults::NONE };
    let (net, mut near, mut far) = net(full);
    let outcomes = [1, 2, 3].map(|number| send(&mut near, 1, number));
    assert_eq!(outcomes, [SendOutcome::Sent, SendOutcome::Sent, SendOutcome::Busy]);
    net.advance(Nanos(10));
    assert_eq!(receive(&mut far), [1, 2]);
    net.set_faults(a(), b(), Faults { when_full: WhenFull::Lose, ..full });
    for number in [4, 5, 6] {
        assert_eq!(send(&mut near, 1, number), SendOutcome::Sent);
    }
    net.advance(Nanos(10));
    assert_eq!(receive(&mut far), [4, 5]);
    let counts = net.counts(a(), b());
    assert_eq!((counts.sent, counts.refused, counts.lost), (5, 1, 1));
}

#[test]
fn a_link_that_is_gone_receives_nothing_and_its_address_is_free() {
    let (net, mut near, far) = net(Faults::NONE);
    let taken = net.setup(b()).open(&[]).unwrap_err();
    assert_eq!(taken, SimError::InUse { address: b() });
    assert_eq!(send(&mut near, 1, 1), SendOutcome::Sent);
    drop(far);
    assert_eq!(send(&mut near, 1, 2), SendOutcome::Sent);
    let mut far = net.setup(b()).open(&[Some(a())]).unwrap();
    assert_eq!(receive(&mut far), [], "frames of its earlier life");
    assert_eq!(send(&mut near, 1, 3), SendOutcome::Sent);
    assert_eq!(receive(&mut far), [3]);
    assert_eq!(net.counts(a(), b()).lost, 2);
}

#[test]
fn a_sink_may_answer_at_once() {
    struct Echo<'a>(&'a mut SimLink);
    impl FrameSink for Echo<'_> {
        fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
            assert_eq!(self.0.send(PeerIndex(0), Lane::LAST, frame, (&[][..]).into()), SendOutcome::Sent);
        }
    }
    let (net, mut near, mut far) = net(Faults::NONE);
    let mut answering = net.setup("10.0.0.3:7000".parse().unwrap()).open(&[Some(a())]).unwrap();
    assert_eq!(send(&mut near, 1, 5), SendOutcome::Sent);
    assert_eq!(far.receive(8, true, &mut Echo(&mut answering)), 1);
    assert_eq!(receive(&mut near), [5]);
}

#[test]
fn no_buffer_leaks() {
    let config = SimConfig { frames_max: 16, faults: Faults { ..ROUGH }, ..SimConfig::default() };
    let net = SimNet::new(5, config);
    let (mut near, mut far) = open(&net);
    for round in 0..2_000 {
        let _ = send(&mut near, 1, round);
        net.advance(Nanos(700));
        receive(&mut far);
    }
    net.advance(Nanos::from_secs(1));
    receive(&mut far);
    net.set_faults(a(), b(), Faults::NONE);
    for number in 0..16 {
        assert_eq!(send(&mut near, 1, number), SendOutcome::Sent, "all buffers are free again");
    }
    assert_eq!(send(&mut near, 1, 16), SendOutcome::Busy);
    drop(far);
    let mut far = net.setup(b()).open(&[Some(a())]).unwrap();
    for number in 0..16 {
        assert_eq!(send(&mut near, 1, number), SendOutcome::Sent, "those of a closed link, too");
    }
    assert_eq!(receive(&mut far).len(), 16);
}
