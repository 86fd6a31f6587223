//! Connecting, answering, refusing and losing connections allocates nothing on a datapath.

mod common;

use common::*;
use insane_conformance::watch_allocations;
use insane_core::PeerIndex;
use insane_link::{FrameSink, Link};
use insane_rdma::RdmaLink;
use insane_sys::clock::mono_now;
use insane_sys::guard;

watch_allocations!();

/// Counts, without memory.
struct Count(u32);

impl FrameSink for Count {
    fn frame(&mut self, _from: Option<PeerIndex>, _frame: &[u8]) {
        self.0 += 1;
    }
}

/// One turn of a datapath with this link, sealed.
fn sealed_turn(link: &mut RdmaLink, count: &mut Count) {
    guard::seal_thread();
    link.tend(mono_now());
    link.receive(64, true, count);
    link.flush();
    guard::unseal_thread();
}

#[test]
fn set_up_and_loss_of_connections_allocate_nothing() {
    let Some(ip) = v4() else { return };
    let before = guard::violations_here();
    guard::seal_thread();
    drop(std::hint::black_box(Box::new(0)));
    guard::unseal_thread();
    assert_eq!(guard::violations_here(), before + 2, "the guard watches");
    let before = guard::violations_here();

    let mut count = Count(0);
    let (mut a, mut b) = strangers(ip);
    until("they connect", || {
        sealed_turn(&mut a, &mut count);
        sealed_turn(&mut b, &mut count);
        a.is_connected(PEER) && b.is_connected(PEER)
    });
    send(&mut a, REAL_TIME, b"frame");
    until("a frame comes", || {
        sealed_turn(&mut b, &mut count);
        count.0 == 1
    });
    drop(b);
    until("the loss is noticed", || {
        sealed_turn(&mut a, &mut count);
        a.counts().lost == a.counts().connected
    });
    assert!(!call(a.local_addr(), b"no hello"));
    sealed_turn(&mut a, &mut count);
    assert_eq!(guard::violations_here(), before);
}
