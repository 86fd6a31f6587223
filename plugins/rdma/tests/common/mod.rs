//! Where there is a verbs device, and callers that are no peers.
#![allow(dead_code, reason = "each test binary uses a part")]

use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, LinkSetup, SendOutcome};
use insane_rdma::{RdmaConfig, RdmaLink, RdmaSetup};
use insane_rdma_sys::{CmEvent, CmEvents, CmId, Connecting, Cq, Device, Inbox, QpOptions};
use insane_sys::clock::mono_now;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The one peer of each link.
pub const PEER: PeerIndex = PeerIndex(0);
pub const REAL_TIME: u8 = 0;
pub const BEST_EFFORT: u8 = 7;

/// An address of a verbs device of this host, from the environment. `None`, having said so:
/// there is none.
pub fn device(variable: &str) -> Option<IpAddr> {
    let Ok(text) = std::env::var(variable) else {
        eprintln!("passed over: {variable} names no address of a verbs device");
        return None;
    };
    let ip: IpAddr = text.parse().unwrap();
    match Device::at((ip, 0).into()) {
        Ok(_) => Some(ip),
        Err(error) => {
            eprintln!("passed over: {error}");
            None
        }
    }
}

/// IPv4.
pub fn v4() -> Option<IpAddr> {
    device("INSANE_RDMA")
}

/// IPv6.
pub fn v6() -> Option<IpAddr> {
    device("INSANE_RDMA_V6")
}

pub fn setup(ip: IpAddr) -> RdmaSetup {
    RdmaSetup::bind(RdmaConfig::new((ip, 0).into())).unwrap()
}

/// Two links that are not connected yet.
pub fn strangers(ip: IpAddr) -> (RdmaLink, RdmaLink) {
    let (a, b) = (setup(ip), setup(ip));
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    (a.open(&[Some(at_b)]).unwrap(), b.open(&[Some(at_a)]).unwrap())
}

pub fn pair(ip: IpAddr) -> (RdmaLink, RdmaLink) {
    let (mut a, mut b) = strangers(ip);
    connect(&mut a, &mut b);
    (a, b)
}

pub fn turn(link: &mut RdmaLink, kept: &mut Keep) {
    link.tend(mono_now());
    link.receive(64, true, kept);
    link.flush();
}

#[track_caller]
pub fn connect(a: &mut RdmaLink, b: &mut RdmaLink) {
    until("the links connect", || {
        turn(a, &mut Keep::default());
        turn(b, &mut Keep::default());
        a.is_connected(PEER) && b.is_connected(PEER)
    });
}

/// Waits with patience, never asserts how long it took.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Waits until all that was connected is lost. (An attempt that had to be repeated counts twice.)
#[track_caller]
pub fn until_lost(link: &mut RdmaLink) {
    let end = Instant::now() + Duration::from_secs(20);
    while link.counts().lost != link.counts().connected {
        assert!(Instant::now() < end, "the end is never noticed: {link:?}");
        turn(link, &mut Keep::default());
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[derive(Default)]
pub struct Keep(pub Vec<Vec<u8>>);

impl FrameSink for Keep {
    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        assert_eq!(from, Some(PEER));
        self.0.push(frame.to_vec());
    }
}

#[track_caller]
pub fn wait_for(link: &mut RdmaLink, count: usize) -> Vec<Vec<u8>> {
    let mut kept = Keep::default();
    until("frames come", || {
        turn(link, &mut kept);
        kept.0.len() >= count
    });
    assert_eq!(kept.0.len(), count);
    kept.0
}

pub fn offer(link: &mut RdmaLink, lane: u8, frame: &[u8]) -> SendOutcome {
    let (head, payload) = frame.split_at(frame.len() / 2);
    link.send(PEER, Lane::new(lane).unwrap(), head, payload.into())
}

#[track_caller]
pub fn send(link: &mut RdmaLink, lane: u8, frame: &[u8]) {
    assert_eq!(offer(link, lane, frame), SendOutcome::Sent);
    link.flush();
}

/// Calls an address with words that are no hello of a peer, and waits for the answer. Returns
/// whether the connection came to be.
pub fn call(to: SocketAddr, words: &[u8]) -> bool {
    let device = Device::at(to).unwrap();
    let cq = Cq::new(&device, 64, None, 0).unwrap();
    let inbox = Inbox::new(&device, 4096, 4, 1).unwrap();
    let events = CmEvents::new().unwrap();
    let id = CmId::new(&events, 1).unwrap();
    id.resolve_address((to.ip(), 0).into(), to, 2_000).unwrap();
    let (mut seeking, mut calling) = (Some(id), None);
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        match events.take() {
            Some(CmEvent::AddressResolved { .. }) => seeking.as_ref().unwrap().resolve_route(2_000).unwrap(),
            Some(CmEvent::RouteResolved { .. }) => {
                let with = Connecting::into(&inbox, QpOptions { sends_max: 4, inline_bytes: 0 });
                let qp = seeking.take().unwrap().queues(&device, [cq.clone(), cq.clone()], &with).unwrap();
                qp.connect(words).unwrap();
                calling = Some(qp);
            }
            Some(CmEvent::Established { .. }) => return true,
            Some(CmEvent::Failed { .. } | CmEvent::Ended { .. }) => return false,
            Some(CmEvent::Call(_) | CmEvent::Other) | None => std::thread::sleep(Duration::from_micros(200)),
        }
    }
    drop(calling);
    panic!("nobody answers the call");
}

/// A hello as `hello.rs` describes it.
pub fn hello(class: u8, port: u16, frame_bytes_max: u32) -> Vec<u8> {
    let mut bytes = b"INSr\x01".to_vec();
    bytes.push(class);
    bytes.extend(port.to_le_bytes());
    bytes.extend(frame_bytes_max.to_le_bytes());
    bytes.extend(16_u16.to_le_bytes());
    bytes
}
