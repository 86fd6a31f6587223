//! Raw AF_XDP: one socket and a program that hands it every frame.

use super::ring::MESSAGE_BYTES;
use crate::harness::converse::{End, Relay};
use crate::harness::fault::Fault;
use crate::harness::payload;
use insane_raw_baselines::{Consumer, Producer, XdpSocket};
use std::io::ErrorKind;
use std::net::Ipv4Addr;

/// Ethernet, IPv4, UDP.
const HEAD_BYTES: usize = 14 + 20 + 8;
/// Frames of a flow that go with one call: as many as the kernel takes in one.
const BATCH: u32 = 32;

/// One end of a conversation by messages of one size.
pub struct XdpEnd {
    socket: XdpSocket,
    /// Messages that are sent together.
    batch: u32,
}

/// What the frames of one end are.
#[derive(Clone, Copy)]
pub struct Route {
    /// Hardware addresses.
    pub from: [u8; 6],
    pub to: [u8; 6],
    /// In the driver (native), or behind it.
    pub in_driver: bool,
    /// Bytes of a message.
    pub size: usize,
    /// One after another, or as fast as it goes.
    pub is_flow: bool,
}

impl XdpEnd {
    /// An end on queue 0 of `interface`, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// `Unavailable` without the right; otherwise the kernel's reason.
    pub fn open(interface: &str, route: Route) -> Result<Self, Fault> {
        let head = head(&route);
        let opened =
            XdpSocket::open(interface, route.in_driver, &head, route.size).map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => Fault::Unavailable(format!("AF_XDP needs root: {error}")),
                _ => Fault::os("open an AF_XDP socket")(error),
            });
        Ok(XdpEnd { socket: opened?, batch: if route.is_flow { BATCH } else { 1 } })
    }
}

/// Who owns the socket for an application: takes its messages from a ring and sends each with a
/// call of its own, and puts what comes into another ring.
pub struct XdpRelay {
    /// The socket.
    pub end: XdpEnd,
    /// What the application gives.
    pub from: Consumer<MESSAGE_BYTES>,
    /// What it gets.
    pub to: Producer<MESSAGE_BYTES>,
}

impl Relay for XdpRelay {
    #[inline(always)]
    fn step(&mut self) -> bool {
        let socket = &mut self.end.socket;
        let mut message = [0; MESSAGE_BYTES];
        let is_out = self.from.pop(&mut message)
            && socket.put(|frame| frame.copy_from_slice(&message))
            // A call that fails moves nothing: the ends wait for it in vain, and say so.
            && socket.kick().is_ok();
        let to = &mut self.to;
        let is_in = !to.is_full()
            && socket.take(|frame| frame.try_into().is_ok_and(|frame| to.push(frame))).is_some_and(|moved| moved);
        is_out || is_in
    }
}

/// Headers of a datagram without a checksum, which IPv4 allows.
fn head(route: &Route) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..6].copy_from_slice(&route.to);
    head[6..12].copy_from_slice(&route.from);
    head[12..14].copy_from_slice(&[8, 0]);
    let length = |bytes: usize| (bytes as u16).to_be_bytes();
    let ip = &mut head[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&length(28 + route.size));
    (ip[8], ip[9]) = (64, 17);
    ip[12..16].copy_from_slice(&Ipv4Addr::new(10, 231, 7, 21).octets());
    ip[16..20].copy_from_slice(&Ipv4Addr::new(10, 231, 7, 22).octets());
    let words = ip.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let check = !(((sum & 0xffff) + (sum >> 16)) as u16);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let udp = &mut head[34..];
    udp[..4].copy_from_slice(&[0x5e, 0xb2, 0x5e, 0xb2]);
    udp[4..6].copy_from_slice(&length(8 + route.size));
    head
}

impl End for XdpEnd {
    fn send(&mut self, number: u64) -> Result<bool, Fault> {
        let is_put = self.socket.put(|message| payload::write(message, number));
        if self.socket.unsent() >= self.batch || !is_put {
            self.socket.kick().map_err(Fault::os("send on an AF_XDP socket"))?;
        }
        Ok(is_put)
    }

    fn receive(&mut self) -> Result<Option<u64>, Fault> {
        self.socket.take(payload::read).transpose()
    }
}
