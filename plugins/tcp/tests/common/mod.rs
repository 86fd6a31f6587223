//! Links, and peers made of plain sockets.
#![allow(dead_code, reason = "each test binary uses a part")]

use insane_core::{Lane, PeerIndex};
use insane_link::{FrameSink, Link, LinkSetup, SendOutcome, Ticket};
use insane_sys::clock::mono_now;
use insane_tcp::{TcpConfig, TcpLink, TcpSetup};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// The one peer of each link.
pub const PEER: PeerIndex = PeerIndex(0);
pub const REAL_TIME: u8 = 0;
pub const BEST_EFFORT: u8 = 7;

/// An address on a host of this number. The lower number connects.
pub fn host(number: u8) -> SocketAddr {
    (Ipv4Addr::new(127, 0, 0, number), 0).into()
}

pub fn next(mut address: SocketAddr) -> SocketAddr {
    address.set_port(address.port() + 1);
    address
}

/// Of a link that gives nobody up while a test takes its time.
pub fn patient(number: u8) -> TcpConfig {
    TcpConfig { user_timeout_ms: 60_000, ..TcpConfig::new(host(number)) }
}

pub fn setup(number: u8) -> TcpSetup {
    TcpSetup::bind(patient(number)).unwrap()
}

/// Two links that are not connected yet; the first connects.
pub fn strangers() -> (TcpLink, TcpLink) {
    let (a, b) = (setup(1), setup(2));
    let (at_a, at_b) = (a.local_addr(), b.local_addr());
    (a.open(&[Some(at_b)]).unwrap(), b.open(&[Some(at_a)]).unwrap())
}

pub fn pair() -> (TcpLink, TcpLink) {
    let (mut a, mut b) = strangers();
    connect(&mut a, &mut b);
    (a, b)
}

pub fn connect(a: &mut TcpLink, b: &mut TcpLink) {
    until("the links connect", || {
        a.tend(mono_now());
        b.tend(mono_now());
        a.is_connected(PEER) && b.is_connected(PEER)
    });
}

/// Waits with patience, never asserts how long it took.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "it never happens that {what}");
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
pub fn wait_for(link: &mut TcpLink, count: usize) -> Vec<Vec<u8>> {
    let mut kept = Keep::default();
    until("frames come", || {
        link.tend(mono_now());
        link.receive(64, true, &mut kept);
        kept.0.len() >= count
    });
    assert_eq!(kept.0.len(), count);
    kept.0
}

pub fn offer(link: &mut TcpLink, lane: u8, frame: &[u8]) -> SendOutcome {
    let (head, payload) = frame.split_at(frame.len() / 2);
    link.send(PEER, Lane::new(lane).unwrap(), head, payload.into())
}

#[track_caller]
pub fn send(link: &mut TcpLink, lane: u8, frame: &[u8]) {
    assert_eq!(offer(link, lane, frame), SendOutcome::Sent);
    link.flush();
}

/// A hello as `hello.rs` describes it.
pub fn hello(class: u8, port: u16, frame_bytes_max: u32) -> Vec<u8> {
    let mut bytes = b"INSt\x01".to_vec();
    bytes.push(class);
    bytes.extend(port.to_le_bytes());
    bytes.extend(frame_bytes_max.to_le_bytes());
    bytes
}

pub fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_le_bytes()[..], frame].concat()
}

/// The port that [`RawPeer`] says is its own. Lower than any that a link gets, so it
/// is the one to connect.
pub const RAW_PORT: u16 = 1;
pub const FRAME_BYTES: u32 = 16 * 1024;

/// A link that waits for a peer that we play ourselves.
pub fn waiting_link() -> TcpLink {
    setup(1).open(&[Some((Ipv4Addr::LOCALHOST, RAW_PORT).into())]).unwrap()
}

/// Both connections of a peer, by hand.
pub struct RawPeer(pub [TcpStream; 2]);

impl RawPeer {
    pub fn connect(link: &mut TcpLink) -> RawPeer {
        let before = link.counts().connected;
        let streams = [0, 1].map(|class| {
            let mut stream = call(link, class);
            stream.write_all(&hello(class, RAW_PORT, FRAME_BYTES)).unwrap();
            stream
        });
        until("the peer is known", || {
            link.tend(mono_now());
            link.is_connected(PEER) && link.counts().connected == before + 2
        });
        for (class, mut stream) in streams.iter().enumerate() {
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer.to_vec(), hello(class as u8, link.local_addr().port(), FRAME_BYTES));
        }
        RawPeer(streams)
    }
}

/// A connection to the link that has not said anything.
pub fn call(link: &TcpLink, class: u8) -> TcpStream {
    let address = if class == 0 { link.local_addr() } else { next(link.local_addr()) };
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

/// Whether the link has closed this connection.
pub fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let answer = stream.read(&mut [0; 64]);
    stream.set_nonblocking(false).unwrap();
    match answer {
        Ok(count) => count == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

/// Two listeners at neighbouring ports.
pub fn listeners(number: u8) -> [TcpListener; 2] {
    loop {
        let first = TcpListener::bind(host(number)).unwrap();
        let Some(_) = first.local_addr().unwrap().port().checked_add(1) else { continue };
        if let Ok(second) = TcpListener::bind(next(first.local_addr().unwrap())) {
            return [first, second];
        }
    }
}

/// Gives every frame a place, and keeps what came.
#[derive(Default)]
pub struct Places {
    pub frames: Vec<Vec<u8>>,
    open: Option<(Ticket, Vec<u8>)>,
    tickets: u64,
    pub placed: usize,
}

impl Places {
    /// Takes the open place away.
    pub fn take_away(&mut self) -> bool {
        self.open.take().is_some()
    }
}

impl FrameSink for Places {
    const HEAD_BYTES: usize = 64;

    fn frame(&mut self, from: Option<PeerIndex>, frame: &[u8]) {
        assert_eq!(from, Some(PEER));
        self.frames.push(frame.to_vec());
    }

    fn place(&mut self, _: PeerIndex, head: &[u8], rest: usize) -> Option<Ticket> {
        assert_eq!(head.len(), Self::HEAD_BYTES);
        self.tickets += 1;
        self.open = Some((Ticket(self.tickets), vec![0; rest]));
        Some(Ticket(self.tickets))
    }

    fn memory(&mut self, _: PeerIndex, _: &[u8], rest: usize, ticket: Ticket) -> Option<&mut [u8]> {
        let (_, memory) = self.open.as_mut().filter(|(open, _)| *open == ticket)?;
        assert_eq!(memory.len(), rest);
        Some(memory)
    }

    fn placed(&mut self, _: PeerIndex, head: &[u8], _: usize, ticket: Ticket) {
        let (open, memory) = self.open.take().expect("a place");
        assert_eq!(open, ticket);
        self.placed += 1;
        self.frames.push([head, &memory].concat());
    }
}
