//! Two runtimes on two machines that reach each other over rdma links alone. Each machine runs
//! this program with the addresses of both ends; `cargo xtask rt-guest` does. Without them there
//! is nothing to test.

use insane_config::{RdmaPlan, Technology};
use insane_rt::{
    ChannelId, ClassSpec, Emit, Hosting, Plan, Qos, Reliability, Session, Sink, SinkOptions, Source, SourceOptions,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Emulated machines are slow, and do not begin together.
const PATIENCE: Duration = Duration::from_secs(60);
const LARGEST: usize = 200_000;
/// Sizes that are sent in turn: in line, in a frame, in one of full size, in pieces.
const SIZES: [usize; 5] = [16, 700, 16_300, 40_000, LARGEST];
const MESSAGES: usize = 60;

fn address(variable: &str) -> Option<SocketAddr> {
    std::env::var(variable).ok().map(|text| text.parse().expect("an address"))
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Message `number` of the machine with this address.
fn message(from: SocketAddr, number: usize) -> Vec<u8> {
    let salt = usize::from(from.port()) + from.ip().to_string().bytes().map(usize::from).sum::<usize>();
    (0..SIZES[number % SIZES.len()]).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ number ^ salt) as u8).collect()
}

/// Takes what is there of the other end, in order and whole.
fn hear(sink: &Sink, peer: SocketAddr, heard: &mut usize) {
    while let Some(came) = sink.consume().unwrap() {
        assert_eq!(came.lost(), 0);
        assert!(came.bytes() == Some(&message(peer, *heard)[..]), "message {heard} is damaged");
        *heard += 1;
    }
}

#[test]
fn reliable_messages_of_every_size_cross_in_both_directions_at_once() {
    let (Some(own), Some(peer)) = (address("INSANE_RDMA_OWN"), address("INSANE_RDMA_PEER")) else {
        eprintln!("passed over: INSANE_RDMA_OWN and INSANE_RDMA_PEER do not name two machines");
        return;
    };
    let [own_name, peer_name] = [own, peer].map(|address| format!("host-{}", address.ip()));
    let mut plan = Plan::embedded_over(&own_name, Technology::Rdma(RdmaPlan::at(own)));
    plan.domains[0].receive =
        [(256, 256), (20_000, 64), (LARGEST as u32, 8)].map(|(size, count)| ClassSpec { size, count }).to_vec();
    plan.add_peer(&peer_name, &[("rdma", peer)]);
    let session = Session::embedded_with(plan, Hosting::Thread, "machine").unwrap();
    let qos = Qos { reliability: Reliability::Reliable, ..Qos::default() };
    let stream = session.stream("both ways", qos).unwrap();
    let channel = |address: SocketAddr| ChannelId(if address == own.min(peer) { 1 } else { 2 });
    let sink: Sink = stream.sink(channel(peer), SinkOptions::default()).unwrap();
    let options = SourceOptions::default().buffers(LARGEST as u32, 4);
    let source: Source = stream.source(channel(own), options).unwrap();
    wait_for("the other machine listens", || source.receivers() == 1);

    let (mut emitted, mut heard) = (0, 0);
    wait_for("all messages of both ends came", || {
        if emitted < MESSAGES
            && let Ok(mut buffer) = source.get_buffer(SIZES[emitted % SIZES.len()])
        {
            buffer.copy_from_slice(&message(own, emitted));
            if let Emit::Sent(_) = source.emit(buffer) {
                emitted += 1;
            }
        }
        hear(&sink, peer, &mut heard);
        emitted == MESSAGES && heard == MESSAGES
    });
    // The other may not have heard the last ones.
    std::thread::sleep(Duration::from_secs(5));
    println!("rt-guest: {emitted} messages out, {heard} in, over rdma");
}
