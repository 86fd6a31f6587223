//! Frames that no peer would send, put on the wire of a dpdk link: as for xdp links, they cost
//! nothing but their place, and frames of peers pass afterwards.

mod common;
#[path = "common/ring.rs"]
mod ring;

use common::dpdk;
use insane_conformance::Keep;
use insane_conformance::hostile::{self, FRAME_BYTES_MAX, FRAMES, Hostile, LINK, PEER};
use insane_conformance::wire::send;
use insane_core::{MonoTime, Nanos, PeerIndex};
use insane_link::Link;
use insane_sys::clock::mono_now;
use ring::{Wire, address, mac};
use std::net::SocketAddr;

#[test]
fn hostile_frames_cost_nothing_but_their_place() {
    let Some(_alone) = dpdk() else { return };
    for seed in 1..=2 {
        let mut wire = Wire::make(false, Some(FRAME_BYTES_MAX));
        let [own, peer]: [SocketAddr; 2] = [LINK.parse().unwrap(), PEER.parse().unwrap()];
        assert_eq!([own.ip(), peer.ip()], [address(2, wire.is_v6), address(1, wire.is_v6)]);
        let mut hostile = Hostile::new(mac(2), mac(1), seed);
        let (mut kept, mut ahead) = (Keep::default(), Nanos::ZERO);
        for number in 0..FRAMES {
            wire.put(&hostile.frame());
            if number % 16 == 0 {
                wire.link.receive(1 + number % 64, true, &mut kept);
                // The claims make it ask: it does so several times, and is answered.
                ahead = Nanos(ahead.0 + 1_000_000);
                wire.link.tend(MonoTime(mono_now().0 + ahead.0));
                wire.drain();
            }
        }
        while wire.link.receive(64, true, &mut kept) > 0 {}
        hostile::judge(&kept);
        let counts = wire.link.counts();
        assert!(counts.dropped > 1_000 && counts.truncated > 100, "{counts:?}");
        assert_eq!((counts.device_failed, counts.devices_lost, counts.device.no_memory), (0, 0, 0), "{counts:?}");
        // Frames pass both ways, and to the peer at its own hardware address.
        wire.drain();
        for number in 0..100u8 {
            let frame = [number; 60];
            send(&mut wire.link, 7, &frame);
            wire.link.flush();
            let came = wire.drain();
            let is_it = |bytes: &&Vec<u8>| bytes.ends_with(&frame) && bytes.starts_with(&mac(1));
            assert_eq!(came.iter().filter(is_it).count(), 1, "{came:?}");
            let mut kept = Keep::default();
            let from = SocketAddr::new(peer.ip(), peer.port() + 1);
            wire.put(&hostile.datagram(from, own.port() + 1, &frame, None));
            wire.link.receive(64, true, &mut kept);
            let came: Vec<_> = kept.0.iter().map(|came| (came.from, &came.bytes[..])).collect();
            assert_eq!(came, [(Some(PeerIndex(0)), &frame[..])]);
        }
    }
}
