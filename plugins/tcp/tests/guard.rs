//! Connecting, accepting, refusing and losing connections allocates nothing.

mod common;

use common::*;
use insane_conformance::watch_allocations;
use insane_link::Link;
use insane_sys::clock::mono_now;
use insane_sys::guard;
use insane_tcp::TcpLink;
use std::io::Write;

watch_allocations!();

/// Counts, without memory.
struct Count(u32);

impl insane_link::FrameSink for Count {
    fn frame(&mut self, _from: Option<insane_core::PeerIndex>, _frame: &[u8]) {
        self.0 += 1;
    }
}

/// One turn of a datapath with this link, sealed.
fn turn(link: &mut TcpLink, count: &mut Count) {
    guard::seal_thread();
    link.tend(mono_now());
    link.receive(64, true, count);
    link.flush();
    guard::unseal_thread();
}

#[test]
fn set_up_and_loss_of_connections_allocate_nothing() {
    let before = guard::violations_here();
    guard::seal_thread();
    drop(std::hint::black_box(Box::new(0)));
    guard::unseal_thread();
    assert_eq!(guard::violations_here(), before + 2, "the guard watches");
    let before = guard::violations_here();

    let mut count = Count(0);
    let (mut a, mut b) = strangers();
    until("they connect", || {
        turn(&mut a, &mut count);
        turn(&mut b, &mut count);
        a.is_connected(PEER) && b.is_connected(PEER)
    });
    send(&mut a, REAL_TIME, b"frame");
    until("a frame comes", || {
        turn(&mut b, &mut count);
        count.0 == 1
    });
    drop(b);
    until("the loss is noticed, and an attempt fails", || {
        turn(&mut a, &mut count);
        a.counts().lost == 2 && a.counts().attempts_failed > 1
    });

    let mut link = waiting_link();
    let [mut real_time, best_effort] = RawPeer::connect(&mut link).0;
    let mut wrong = call(&link, 0);
    wrong.write_all(&hello(0, RAW_PORT + 1, FRAME_BYTES)).unwrap();
    let flood: Vec<_> = (0..40).map(|_| call(&link, 1)).collect();
    real_time.write_all(&[0; 16]).unwrap();
    drop(best_effort);
    until("all of it is noticed", || {
        turn(&mut link, &mut count);
        let counts = link.counts();
        counts.lost == 2 && counts.garbage == 1 && counts.hellos_refused == 1 && counts.crowded_out == 24
    });
    drop(flood);
    assert_eq!(guard::violations_here(), before);
}
