//! What an operator chooses.

use insane_core::Nanos;
use std::net::SocketAddr;

/// Largest `frame_bytes_max`: what fits an IP packet (65,535 bytes) with some room
/// for headers and options.
pub const FRAME_BYTES_LIMIT: u32 = 65_000;
/// Smallest `frame_bytes_max`: what every IPv4 host takes (RFC 791: 576 bytes) less
/// its headers.
pub const FRAME_BYTES_LOW: u32 = 508;

/// Where and how the link opens its sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UdpConfig {
    /// Address of this host and port P; the link also takes port P+1. Port 0 chooses
    /// a free pair.
    pub bind: SocketAddr,
    /// Largest frame, bytes; [`frame_bytes_default`] fits Ethernet's MTU of 1500.
    /// The path's MTU less the headers (IPv4: 28, IPv6: 48) is the most that arrives.
    pub frame_bytes_max: u32,
    /// Room of each socket for frames that were not taken yet, bytes. The system may
    /// grant less; `None`: its own choice.
    pub receive_buffer_bytes: Option<u32>,
    /// Room of each socket for frames that wait for the device, bytes; as above.
    pub send_buffer_bytes: Option<u32>,
    /// How long the kernel polls the device in a receive call that finds nothing,
    /// microseconds; `None`: not at all.
    pub busy_poll_us: Option<u32>,
    /// Differentiated services code point of real-time frames, 0 to 63.
    pub real_time_dscp: u8,
    /// How long before its instant a frame with a launch time is handed over. `None`: none has
    /// one. Where launch times are not honoured, the link does not open; [`launch_queue`] says
    /// before whether they are.
    ///
    /// [`launch_queue`]: crate::launch_queue
    pub launch_lead: Option<Nanos>,
    /// A group that the link is a member of, and sends to; `None`: it is in none.
    pub group: Option<UdpGroup>,
}

/// A group of links that get one frame at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UdpGroup {
    /// Its address, of the family of `bind`, and port Q; like the link's own, the next one
    /// belongs to it, too. The same at all members.
    pub address: SocketAddr,
    /// Networks that frames to the group pass, the own one included; 1: they stay in it.
    pub ttl: u8,
}

impl UdpConfig {
    /// The defaults for `bind`: frames for an MTU of 1500, 4 MiB of receive and 1 MiB of send
    /// buffer, no busy polling, no launch times, no group, real-time frames marked as expedited
    /// (46, RFC 3246).
    #[must_use]
    pub fn new(bind: SocketAddr) -> Self {
        UdpConfig {
            bind,
            frame_bytes_max: frame_bytes_default(bind),
            receive_buffer_bytes: Some(4 << 20),
            send_buffer_bytes: Some(1 << 20),
            busy_poll_us: None,
            real_time_dscp: 46,
            launch_lead: None,
            group: None,
        }
    }
}

/// Largest frame that fits an MTU of 1500 bytes: 1472 for IPv4, 1452 for IPv6.
#[must_use]
pub const fn frame_bytes_default(bind: SocketAddr) -> u32 {
    match bind {
        SocketAddr::V4(_) => 1500 - 20 - 8,
        SocketAddr::V6(_) => 1500 - 40 - 8,
    }
}
