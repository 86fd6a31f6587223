//! An xdp link and the kernel: udp links as its peers, and all else on its interface.

use insane_conformance::Keep;
use insane_conformance::wire::{self, PATIENCE, frame, send, until_known, wait_for};
use insane_core::{Lane, Nanos, PeerIndex};
use insane_link::{Link, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use insane_udp::{UdpConfig, UdpLink, UdpSetup};
use insane_wire::bundle::{MARK, Opener};
use insane_xdp::{Mode, XdpConfig, XdpLink, XdpSetup, memory_bytes};
use insane_xdp_sys::interface;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::time::Instant;

const MODES: [Mode; 2] = [Mode::Native, Mode::Skb];
const XDP: &str = "10.9.0.2:7400";
const UDP: &str = "10.9.0.1:7400";

/// Two hosts that are joined: `x0` of the one is the xdp link's, and the kernel's 10.9.0.3.
struct Hosts(wire::Hosts);

impl Deref for Hosts {
    type Target = wire::Hosts;

    fn deref(&self) -> &wire::Hosts {
        &self.0
    }
}

impl Hosts {
    fn make() -> Option<Self> {
        let hosts = wire::Hosts::make()?;
        hosts.join();
        hosts.ours.ip("address add 10.9.0.3/24 dev x0\naddress add fd00::3/64 dev x0 nodad\n");
        Some(Hosts(hosts))
    }

    /// The xdp link at `xdp`, with the peers given.
    fn xdp(&self, mode: Mode, xdp: &str, peers: &[Option<SocketAddr>]) -> XdpLink {
        let config = XdpConfig { mode, ..XdpConfig::new("x0", xdp.parse().unwrap()) };
        let mut link = self.ours.inside(|| XdpSetup::bind(config).unwrap().open(peers).unwrap());
        until_known(&mut link, XdpLink::knows_all_ways);
        link
    }

    fn udp(&self, udp: &str, peer: &str) -> UdpLink {
        let setup = self.kernel.inside(|| UdpSetup::bind(UdpConfig::new(udp.parse().unwrap())).unwrap());
        setup.open(&[Some(peer.parse().unwrap())]).unwrap()
    }
}

#[test]
fn a_udp_link_is_a_peer_of_an_xdp_link() {
    for mode in MODES {
        for (xdp, udp) in [(XDP, UDP), ("[fd00::2]:7400", "[fd00::1]:7400")] {
            let Some(hosts) = Hosts::make() else { return };
            // Checksums are left unfinished here, and single frames pass all the same.
            let mut ours = hosts.xdp(mode, xdp, &[Some(udp.parse().unwrap())]);
            let mut kernel = hosts.udp(udp, xdp);
            for (number, lane) in (0..80).zip((0..8).cycle()) {
                let frame = frame(number, 1 + number * 18);
                send(&mut ours, lane, &frame);
                ours.flush();
                assert_eq!(wait_for(&mut kernel, &mut ours, 1), [frame.as_slice()], "to the kernel, lane {lane}");
                send(&mut kernel, lane, &frame);
                kernel.flush();
                assert_eq!(wait_for(&mut ours, &mut kernel, 1), [frame.as_slice()], "from the kernel, lane {lane}");
            }
            let counts = ours.counts();
            let wrong = (counts.dropped, counts.sockets.claims_refused, counts.sockets.kicks_failed);
            assert_eq!(wrong, (0, 0, 0));
        }
    }
}

#[test]
fn what_a_udp_link_sends_at_once_is_taken_apart() {
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
        let mut ours = hosts.xdp(mode, XDP, &[Some(UDP.parse().unwrap())]);
        let mut kernel = hosts.udp(UDP, XDP);
        for len in [20, 64, 700, 1400] {
            let frames: Vec<_> = (0..40).map(|number| frame(number, len)).collect();
            for lane in [0, 7] {
                for frame in &frames {
                    send(&mut kernel, lane, frame);
                }
                kernel.flush();
                assert_eq!(wait_for(&mut ours, &mut kernel, 40), frames, "{len} bytes each, lane {lane}");
                // And back, small ones in bundles.
                for frame in &frames {
                    send(&mut ours, lane, frame);
                }
                ours.flush();
                assert_eq!(wait_for(&mut kernel, &mut ours, 40), frames, "{len} bytes each, lane {lane}");
            }
        }
        assert_eq!((ours.counts().bundles_malformed, ours.counts().truncated), (0, 0));
    }
}

#[test]
fn what_is_not_the_links_goes_on_to_the_kernel() {
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
        let mut link = hosts.xdp(mode, XDP, &[Some(UDP.parse().unwrap())]);
        for address in ["10.9.0.3:0", "[fd00::3]:0"] {
            // The same ports as the link's, too, on the kernel's own address.
            let at: SocketAddr = address.replace(":0", ":7400").parse().unwrap();
            let datagrams = hosts.ours.inside(|| UdpSocket::bind(at)).unwrap();
            datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
            let listener = hosts.ours.inside(|| TcpListener::bind(address)).unwrap();
            let to = listener.local_addr().unwrap();
            let mut client = hosts.kernel.inside(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            for stream in [&client, &server] {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
            }
            let mut bytes = [0; 5];
            client.write_all(b"login").unwrap();
            server.read_exact(&mut bytes).unwrap();
            server.write_all(&bytes).unwrap();
            client.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"login");
            let any: SocketAddr = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
            let sender = hosts.kernel.inside(|| UdpSocket::bind(any)).unwrap();
            sender.send_to(b"datagram", at).unwrap();
            assert_eq!(datagrams.recv(&mut [0; 64]).unwrap(), 8);
        }
        let mut kept = Keep::default();
        link.receive(64, true, &mut kept);
        assert_eq!((kept.0.len(), link.counts().dropped), (0, 0), "nothing of that came to the link");
    }
}

#[test]
fn a_best_effort_flood_costs_no_real_time_frame() {
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
        let mut ours = hosts.xdp(mode, XDP, &[Some(UDP.parse().unwrap())]);
        let mut kernel = hosts.udp(UDP, XDP);
        // So that the kernel knows where the link is, and nothing of this waits for that.
        send(&mut kernel, 0, b"first");
        kernel.flush();
        wait_for(&mut ours, &mut kernel, 1);
        for _ in 0..5_000 {
            // Far more than a ring holds. Refused or not: it is a flood.
            let _ = kernel.send(PeerIndex(0), Lane::LAST, &[7; 1000], (&[][..]).into());
            kernel.flush();
        }
        for number in 0..100u8 {
            send(&mut kernel, 0, &[number]);
            kernel.flush();
        }
        let mut real_time = Vec::new();
        let end = Instant::now() + PATIENCE;
        while real_time.len() < 100 && Instant::now() < end {
            let mut kept = Keep::default();
            ours.receive(100, true, &mut kept);
            real_time.extend(kept.0.iter().filter(|came| came.bytes.len() == 1).map(|came| came.bytes[0]));
        }
        assert_eq!(real_time, (0..100).collect::<Vec<_>>());
        let mut rest = Keep::default();
        assert_eq!(ours.receive(1, true, &mut rest), 1);
        assert_eq!(rest.0[0].bytes, [7; 1000], "the flood did arrive");
        // And what of it had no room is counted.
        assert_eq!(ours.counts().sockets.ring_full, 0, "nobody asked yet");
        ours.tend(mono_now() + Nanos::from_secs(1));
        let lost = ours.counts().sockets.ring_full;
        while ours.receive(64, true, &mut rest) > 0 {}
        let came = rest.0.len() as u64;
        assert!(lost > 0 && came + lost <= 5_000, "{came} came and {lost} had no room");
    }
}

/// Best effort has all its chunks on their way whenever the neighbour is asked, for as long as it
/// takes to give it up: the questions go nevertheless, it answers, and it is heard.
#[test]
fn a_full_queue_of_best_effort_keeps_no_question_back() {
    const FRAMES: u32 = 1024;
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        let mut ours = hosts.xdp(mode, XDP, &[Some(UDP.parse().unwrap())]);
        let full = frame(0, 1400);
        let mut now = mono_now() + Nanos::from_secs(31);
        for _ in 0..4 {
            // The last one waits for the flush. Fewer do it, where the kernel still has some.
            for _ in 0..FRAMES {
                if ours.send(PeerIndex(0), Lane::LAST, &full, (&[][..]).into()) != SendOutcome::Sent {
                    break;
                }
            }
            ours.tend(now);
            now += Nanos::from_millis(251);
        }
        let counts = ours.counts();
        assert_eq!((counts.answers_lost, counts.unresolved), (0, 0), "{mode:?}");
        let end = Instant::now() + PATIENCE;
        assert!(!ours.knows_all_ways(), "it was asked in vain, as far as anybody heard");
        while !ours.knows_all_ways() {
            assert!(Instant::now() < end, "its answer is not heard");
            ours.receive(64, true, &mut Keep::default());
        }
        send(&mut ours, 0, &full);
        ours.flush();
    }
}

#[test]
fn an_interface_that_is_deleted_fails_frames_and_wakes_nobody() {
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        let mut ours = hosts.xdp(mode, XDP, &[Some(UDP.parse().unwrap())]);
        // A datapath that sleeps has them in its set until they are closed.
        let watched: Vec<_> = ours.readable_fds().map(|fd| fd.try_clone_to_owned().unwrap()).collect();
        assert_eq!(watched.len(), 2);
        hosts.ours.ip("link delete x0\n");
        let mut outcomes = Vec::new();
        for _ in 0..3_000 {
            outcomes.push(ours.send(PeerIndex(0), Lane::CONTROL, b"lost", (&[][..]).into()));
            ours.flush();
            ours.receive(64, true, &mut Keep::default());
            ours.tend(mono_now());
        }
        assert!(outcomes.ends_with(&[SendOutcome::Failed]), "nobody waits for an interface that is gone");
        let sent = outcomes.iter().filter(|outcome| **outcome == SendOutcome::Sent).count();
        let counts = ours.counts();
        assert_eq!(counts.unsent_lost, sent as u64, "what was taken in good faith is counted: {counts:?}");
        assert!(sent <= 1, "the first flush tells");
        assert_eq!(counts.absent, outcomes.len() as u64 - sent as u64);
        assert_eq!(counts.interface_lost, 1);
        assert!(!ours.holds_frames(), "nor spins for it");
        assert_eq!(ours.readable_fds().count(), 0);
        let mut fds: Vec<_> = watched.iter().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 0, "nor is woken by it: {fds:?}");
    }
}

/// As the bare loop: a call for each frame that is sent alone, one for a burst of what the kernel
/// takes in one, and none to receive or to look.
#[test]
fn a_frame_costs_one_call_and_receiving_none() {
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        hosts.kernel.inside(|| interface::finish_frames("p0")).unwrap();
        let mut ours = hosts.xdp(mode, XDP, &[Some(UDP.parse().unwrap())]);
        let mut kernel = hosts.udp(UDP, XDP);
        send(&mut kernel, 0, b"first");
        kernel.flush();
        wait_for(&mut ours, &mut kernel, 1);
        let before = ours.counts().sockets.calls;
        for number in 0..100 {
            send(&mut ours, 0, &frame(number, 64));
            ours.flush();
        }
        assert_eq!(ours.counts().sockets.calls - before, 100, "{mode:?}: one each");
        for number in 0..32 {
            send(&mut ours, 0, &frame(number, 1400));
        }
        ours.flush();
        let calls = ours.counts().sockets.calls - before - 100;
        assert!((1..=2).contains(&calls), "{mode:?}: {calls} calls for a burst");
        let before = ours.counts().sockets.calls;
        for number in 0..50 {
            send(&mut kernel, 7, &frame(number, 64));
            kernel.flush();
        }
        let mut kept = Keep::default();
        let end = Instant::now() + PATIENCE;
        while kept.0.len() < 50 {
            assert!(Instant::now() < end, "{} of 50 frames came", kept.0.len());
            ours.receive(8, true, &mut kept);
        }
        assert_eq!(ours.counts().sockets.calls, before, "{mode:?}: none to receive");
    }
}

#[test]
fn buffers_come_back_whatever_was_in_them() {
    const BURST: usize = 64;
    // More of each kind than the link has buffers: none is smaller than 2 KiB.
    let bursts = memory_bytes(600, true, 1) as usize / 2048 / BURST + 1;
    let bundle = b"Bnd\x01\x10\0\x02\0\x02\0ab\x02\0cd";
    let odd = b"Bnd\x01\x11\0\x02\0\x02\0ab\x02\0cd";
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        let config = XdpConfig { mode, frame_bytes_max: Some(600), ..XdpConfig::new("x0", XDP.parse().unwrap()) };
        let open = || XdpSetup::bind(config).unwrap().open(&[Some(UDP.parse().unwrap())]).unwrap();
        let mut ours = hosts.ours.inside(open);
        let socket = |at: &str| hosts.kernel.inside(|| UdpSocket::bind(at)).unwrap();
        let (peer, stranger) = (socket(UDP), socket("10.9.0.1:0"));
        let mut burst = |from: &UdpSocket, to: &str, bytes: &[u8], count: usize, expected: (usize, usize)| {
            (0..count).for_each(|_| assert_eq!(from.send_to(bytes, to).unwrap(), bytes.len()));
            let lost = |link: &XdpLink| {
                let counts = link.counts();
                (counts.dropped + counts.truncated + counts.bundles_malformed) as usize
            };
            let (before, end) = (lost(&ours), Instant::now() + PATIENCE);
            let mut kept = Keep::default();
            while (kept.0.len(), lost(&ours) - before) != expected && Instant::now() < end {
                ours.receive(10, true, &mut kept);
                ours.tend(mono_now());
            }
            assert_eq!((kept.0.len(), lost(&ours) - before), expected, "{mode:?}, to {to}: {}", bytes.escape_ascii());
        };
        // So that the kernel knows where the link is: only few datagrams wait for that.
        burst(&peer, XDP, b"first", 1, (1, 0));
        for _ in 0..bursts {
            burst(&peer, XDP, b"frame", BURST, (BURST, 0));
            burst(&peer, XDP, bundle, BURST, (2 * BURST, 0));
            burst(&stranger, XDP, bundle, BURST, (BURST, 0));
            burst(&peer, XDP, odd, BURST, (0, BURST));
            burst(&peer, XDP, &[0; 601], BURST, (0, BURST));
            burst(&peer, "10.9.0.2:9", b"nobody's", BURST, (0, BURST));
        }
    }
}

#[test]
fn a_peer_that_is_not_there_is_found_when_it_comes() {
    let Some(hosts) = Hosts::make() else { return };
    let config = XdpConfig::new("x0", XDP.parse().unwrap());
    let late = "10.9.0.9:7400";
    let peers = [Some(late.parse().unwrap())];
    let mut ours = hosts.ours.inside(|| XdpSetup::bind(config).unwrap().open(&peers).unwrap());
    for _ in 0..3 {
        assert!(ours.tend(mono_now()), "it asks, and wants to go on asking");
        let sent = ours.send(PeerIndex(0), Lane::LAST, b"frame", (&[][..]).into());
        assert_eq!(sent, SendOutcome::Failed, "there is no way yet");
    }
    assert_eq!(ours.counts().unresolved, 3);
    hosts.kernel.ip("address add 10.9.0.9/24 dev p0\n");
    let mut kernel = hosts.udp(late, XDP);
    let end = Instant::now() + PATIENCE;
    while !ours.knows_all_ways() && Instant::now() < end {
        ours.tend(mono_now());
        ours.receive(64, true, &mut Keep::default());
    }
    send(&mut ours, 7, b"frame");
    ours.flush();
    assert_eq!(wait_for(&mut kernel, &mut ours, 1), [b"frame"]);
    assert!(!ours.tend(mono_now()), "nothing is left to ask");
}

#[test]
fn small_frames_share_datagrams_until_the_flush() {
    for mode in MODES {
        let Some(hosts) = Hosts::make() else { return };
        let mut ours = hosts.xdp(mode, XDP, &[Some(UDP.parse().unwrap())]);
        // In the place of a udp link, so that datagrams are seen.
        let sockets = hosts.kernel.inside(|| ["10.9.0.1:7400", "10.9.0.1:7401"].map(|at| UdpSocket::bind(at).unwrap()));
        for (side, lane) in [(0, 0), (1, 7)] {
            let socket = &sockets[side];
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for (len, count) in [(1, 1), (64, 40), (700, 6), (1400, 3)] {
                let frames: Vec<_> = (0..count).map(|number| frame(number, len)).collect();
                let before = ours.counts().sockets.calls;
                for frame in &frames {
                    send(&mut ours, lane, frame);
                }
                assert_eq!(ours.counts().sockets.calls, before, "nothing goes before the flush");
                ours.flush();
                let (mut came, mut datagrams) = (Vec::new(), 0);
                while came.len() < count {
                    let mut datagram = [0; 2048];
                    let bytes = socket.recv(&mut datagram).unwrap();
                    datagrams += 1;
                    let datagram = &mut datagram[..bytes];
                    let Some(mut opener) = Opener::new(datagram) else {
                        came.push(datagram.to_vec());
                        continue;
                    };
                    while let Some(range) = opener.next(datagram) {
                        came.push(datagram[range].to_vec());
                    }
                }
                assert_eq!(came, frames, "{mode:?}, lane {lane}, {len} bytes");
                let in_one = ((1472 - 10 + 2) / (len + 2)).max(1);
                assert_eq!(datagrams, count.div_ceil(in_one), "{mode:?}, lane {lane}, {len} bytes");
                assert!(!ours.holds_frames());
            }
            // What begins as a bundle does is refused, since it would be taken for one.
            let refused = ours.send(PeerIndex(0), Lane::new(lane).unwrap(), &MARK, (&[][..]).into());
            assert_eq!(refused, SendOutcome::Failed);
        }
    }
}
