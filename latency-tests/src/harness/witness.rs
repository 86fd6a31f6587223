//! Who sees every frame that comes to a host, with the instant at which the kernel took it: the
//! wake-ups of whoever reads do not count.

use super::fault::Fault;
use insane_sys::clock::mono_now;
use insane_sys::host::interface_index;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvmsg,
    setsockopt, socket, sockopt,
};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{SystemTime, UNIX_EPOCH};

/// Room for frames that nobody has read yet, bytes.
const ROOM_BYTES: usize = 32 << 20;
/// Frames taken at a time, at most.
const BURST: usize = 512;
/// Looks for the distance of two clocks.
const PAIRS: usize = 64;
/// What a frame has in front of its UDP payload: Ethernet, IPv4 without options, UDP.
const HEAD_BYTES: usize = 14 + 20 + 8;
/// Type of a packet that leaves (PACKET_OUTGOING of packet(7)).
const OUTGOING: u8 = 4;
/// What is around a frame on the wire: check, preamble, gap.
const AROUND_BYTES: u64 = 4 + 8 + 12;

/// The socket that sees all, or all that leaves by one interface.
pub struct Witness {
    socket: OwnedFd,
    leaves_by: Option<usize>,
    /// The wall clock less the monotonic one, nanoseconds.
    lead_ns: u64,
    buffer: Vec<u8>,
}

/// A UDP datagram that came.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'f> {
    /// When the kernel took it, nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// Its port.
    pub port: u16,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// What it carries.
    pub payload: &'f [u8],
}

impl Witness {
    /// Opens it in the network namespace of the calling thread.
    ///
    /// # Errors
    /// `Unavailable` without the right.
    pub fn open() -> Result<Self, Fault> {
        let refused =
            |error: Errno| Fault::Unavailable(format!("a socket that sees every frame: {error} (needs root)"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll).map_err(refused)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true).map_err(refused)?;
        setsockopt(&socket, sockopt::RcvBufForce, &ROOM_BYTES).map_err(refused)?;
        Ok(Witness { socket, leaves_by: None, lead_ns: lead_ns(), buffer: vec![0; 2048] })
    }

    /// As [`open`](Self::open); shown is what leaves by an interface, with the instant at which
    /// the kernel gave it to the device, after its queue.
    ///
    /// # Errors
    /// `Unavailable` without the right; there is no such interface.
    pub fn of_leaving(interface: &str) -> Result<Self, Fault> {
        let index = interface_index(interface).map_err(|error| Fault::Party(error.to_string()))?;
        Ok(Witness { leaves_by: Some(index as usize), ..Self::open()? })
    }

    /// Shows what came, a burst of it at most.
    ///
    /// # Errors
    /// The socket failed.
    pub fn look(&mut self, mut show: impl FnMut(Seen<'_>)) -> Result<(), Fault> {
        let mut room = nix::cmsg_space!(nix::sys::time::TimeSpec);
        for _ in 0..BURST {
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            let fd = self.socket.as_raw_fd();
            let taken = match recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut room), MsgFlags::MSG_DONTWAIT) {
                Ok(taken) => taken,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(Fault::os("look at frames")(error.into())),
            };
            let messages = taken.cmsgs().map_err(|error| Fault::os("look at frames")(error.into()))?;
            let stamp = messages.into_iter().find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(time) => {
                    Some(time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
                }
                _ => None,
            });
            let length = taken.bytes;
            let place = taken.address.as_ref().and_then(SockaddrStorage::as_link_addr);
            let is_shown = self
                .leaves_by
                .is_none_or(|index| place.is_some_and(|place| place.ifindex() == index && place.pkttype() == OUTGOING));
            let Some(stamp) = stamp.filter(|_| is_shown) else { continue };
            if let Some(seen) = datagram(&self.buffer[..length], stamp.saturating_sub(self.lead_ns)) {
                show(seen);
            }
        }
        Ok(())
    }
}

/// `None`: not a whole UDP datagram over IPv4.
fn datagram(frame: &[u8], at_ns: u64) -> Option<Seen<'_>> {
    let is_udp = frame.len() >= HEAD_BYTES && frame[12..15] == [0x08, 0x00, 0x45] && frame[23] == 17;
    let port = u16::from_be_bytes(*frame.get(36..)?.first_chunk()?);
    let wire_bytes = frame.len() as u64 + AROUND_BYTES;
    is_udp.then(|| Seen { at_ns, port, wire_bytes, payload: &frame[HEAD_BYTES..] })
}

/// By the pair of looks that lie nearest to each other.
fn lead_ns() -> u64 {
    let pair = |_| {
        let (before, wall, after) = (mono_now(), SystemTime::now(), mono_now());
        let wall = wall.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let length = after.since(before).0;
        (length, wall.saturating_sub(before.0 + length / 2))
    };
    (0..PAIRS).map(pair).min().map_or(0, |(_, lead)| lead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_are_told_from_other_frames() {
        let mut frame = [0; HEAD_BYTES + 3];
        frame[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
        frame[23] = 17;
        frame[36..38].copy_from_slice(&7_400_u16.to_be_bytes());
        frame[HEAD_BYTES..].copy_from_slice(&[1, 2, 3]);
        let seen = datagram(&frame, 5).unwrap();
        assert_eq!((seen.at_ns, seen.port, seen.payload), (5, 7_400, &[1, 2, 3][..]));
        assert_eq!(seen.wire_bytes, 45 + 24);
        frame[23] = 6;
        assert!(datagram(&frame, 5).is_none());
        assert!(datagram(&frame[..20], 5).is_none());
    }
}
