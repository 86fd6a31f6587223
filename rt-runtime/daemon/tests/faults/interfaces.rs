//! Interfaces that go away below the links of a running daemon and return, again and again, and
//! the daemon that is killed on top of it: applications on both hosts stay, and hear each other
//! again each time.

use crate::cable::{TwoHosts, Way};
use crate::world::{Daemon, until};
use insane_rt::{Attachment, ChannelId, Qos, Session, Sink, SinkOptions, Source, SourceOptions};
use std::time::Duration;

/// Every second time the interface is gone for so short that nobody may have seen it missing.
const ROUNDS: usize = 4;

/// An application that sends to the other one and hears it.
struct App {
    session: Session,
    source: Source,
    sink: Sink,
}

impl App {
    fn new(daemon: &Daemon, own: u32, other: u32) -> App {
        let session = daemon.attach("app");
        let stream = session.stream("s", Qos::default()).unwrap();
        let sink = stream.sink(ChannelId(other), SinkOptions::default()).unwrap();
        let source = stream.source(ChannelId(own), SourceOptions::default()).unwrap();
        App { session, source, sink }
    }

    /// What it sends now is heard by the other one, though much before it may have been lost.
    fn reaches(&self, other: &App, what: &str) {
        until(&format!("{what}: a message comes"), || {
            let _ = self.source.emit_copy(what.as_bytes());
            std::iter::from_fn(|| other.sink.consume().unwrap()).any(|message| message.to_vec() == what.as_bytes())
        });
    }
}

/// Why the only link of a daemon is missing.
fn missing(daemon: &Daemon) -> Option<String> {
    daemon.status().datapaths[0].links[0].missing.clone()
}

#[test]
fn an_interface_that_flaps_and_a_killed_daemon_are_survived_over_xdp() {
    flaps(Way::Xdp);
}

#[test]
fn an_interface_that_flaps_and_a_killed_daemon_are_survived_over_dpdk() {
    flaps(Way::Dpdk);
}

#[test]
fn an_interface_that_flaps_and_a_killed_daemon_are_survived_over_af_xdp_of_dpdk() {
    flaps(Way::DpdkXdp);
}

fn flaps(way: Way) {
    let Some(mut hosts) = TwoHosts::start("flaps", way) else { return };
    let (near, far) = (App::new(&hosts.a, 1, 2), App::new(&hosts.b, 2, 1));
    let converse = |what: &str| {
        near.reaches(&far, &format!("{what}, there"));
        far.reaches(&near, &format!("{what}, back"));
    };
    converse("first");
    let before = hosts.b.footprint().descriptors;
    for round in 0..ROUNDS {
        hosts.unplug_b(true);
        if round % 2 == 0 {
            until("it is told as missing", || missing(&hosts.b).is_some());
            assert!(missing(&hosts.b).unwrap().contains("eth0"), "{:?}", missing(&hosts.b));
        } else {
            hosts.unplug_b(false);
            std::thread::sleep(Duration::from_millis(10));
            hosts.unplug_b(true);
        }
        hosts.unplug_b(false);
        converse(&format!("round {round}"));
        until("it is told as up", || missing(&hosts.b).is_none());
        assert!(hosts.a.is_alive() && hosts.b.is_alive());
    }
    // DPDK 22.11 leaves its socket of AF_XDP open when its port is closed, and what belongs to that;
    // every second time there are two interfaces.
    let kept_by_dpdk = if way == Way::DpdkXdp { 3 * ROUNDS } else { 0 };
    let left = hosts.b.footprint().descriptors.saturating_sub(before);
    assert!(left < ROUNDS + kept_by_dpdk, "{left} descriptors are left of interfaces that are gone");
    // The daemon dies, the interface is another one, and the application is attached again.
    hosts.b.kill();
    hosts.unplug_b(true);
    hosts.unplug_b(false);
    hosts.start_b_again();
    until("the session returns", || far.session.attachment() == Attachment::Attached);
    converse("after the kill");
}
