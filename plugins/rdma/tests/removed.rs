//! A device that is removed while links use it. In a program of its own: librdmacm keeps what it
//! opened until the process ends, and the kernel waits for that where the driver cannot do
//! without (soft-RoCE).

mod common;

use common::*;
use insane_link::{Link, LinkHealth, LinkKeeper, LinkSetup, SendOutcome};
use insane_rdma::{RdmaConfig, RdmaKeeper, RdmaLink, RdmaSetup};
use insane_sys::clock::mono_now;
use std::net::SocketAddr;
use std::process::Command;

fn kept(at: SocketAddr, peer: SocketAddr) -> (RdmaLink, RdmaKeeper) {
    let setup = RdmaSetup::bind_or_wait(RdmaConfig::new(at)).unwrap();
    let keeper = setup.keeper();
    (setup.open(&[Some(peer)]).unwrap(), keeper)
}

#[test]
fn a_device_that_is_removed_under_traffic_is_let_go_and_its_link_says_so() {
    let Ok(device) = std::env::var("INSANE_RDMA_REMOVED") else {
        eprintln!("passed over: INSANE_RDMA_REMOVED names no device that may be removed");
        return;
    };
    let Some(ip) = v4() else { return };
    let [at, to] = [21_850, 21_851].map(|port| SocketAddr::new(ip, port));
    let (mut link, mut keeper) = kept(at, to);
    let (mut other, mut other_keeper) = kept(to, at);
    connect(&mut link, &mut other);
    for lane in [REAL_TIME, BEST_EFFORT] {
        while offer(&mut link, lane, &[7; 9_000]) == SendOutcome::Sent {}
        link.flush();
    }
    // It ends when this process does.
    let removal = format!("rdma link delete {device} &");
    assert!(Command::new("sh").args(["-c", &removal]).status().unwrap().success());
    until("both have let go", || {
        for (link, keeper) in [(&mut link, &mut keeper), (&mut other, &mut other_keeper)] {
            keeper.look();
            turn(link, &mut Keep::default());
        }
        !link.has_device() && !other.has_device()
    });
    for (link, keeper) in [(&mut link, &mut keeper), (&mut other, &mut other_keeper)] {
        let LinkHealth::Missing(why) = keeper.look() else { panic!("the device is gone") };
        assert!(why.contains(&ip.to_string()), "{why}");
        assert!(!link.tend(mono_now()) && !link.holds_frames() && link.readable_fds().count() == 0);
        assert_eq!(offer(link, REAL_TIME, b"gone"), SendOutcome::Failed);
        assert_eq!(link.counts().devices_lost, 1);
    }
}
