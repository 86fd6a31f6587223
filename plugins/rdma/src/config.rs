//! What an operator chooses.

use std::net::SocketAddr;

/// Largest `frame_bytes_max`.
pub const FRAME_BYTES_LIMIT: u32 = 64 * 1024;
/// Smallest `frame_bytes_max`: that of the `udp` link, so that whatever fits one fits
/// the other.
pub const FRAME_BYTES_LOW: u32 = 508;
/// Default of `frame_bytes_max`. Each peer has some seventy buffers of it; larger ones cost
/// memory that stays locked, and make a real-time message wait longer for a best-effort chunk.
pub const FRAME_BYTES_DEFAULT: u32 = 16 * 1024;

/// Where and how the link opens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RdmaConfig {
    /// An address of this host that a verbs device has, and port P. Port 0 chooses a free one.
    /// (These ports are those of RDMA connections, apart from those of tcp.)
    pub bind: SocketAddr,
    /// Largest frame, bytes; the same at all peers. Each peer takes
    /// [`peer_bytes`](crate::peer_bytes) of it.
    pub frame_bytes_max: u32,
    /// Differentiated services code point of real-time connections, 0 to 63, where the device
    /// marks its packets by it (RoCE).
    pub real_time_dscp: u8,
    /// The datapath sleeps at times: descriptors tell it when frames come. Where it never does,
    /// the device is not asked to interrupt.
    pub wakes: bool,
}

impl RdmaConfig {
    /// The defaults for `bind`: frames of [`FRAME_BYTES_DEFAULT`], real-time connections marked
    /// as expedited (46, RFC 3246), for a datapath that sleeps.
    #[must_use]
    pub fn new(bind: SocketAddr) -> Self {
        RdmaConfig { bind, frame_bytes_max: FRAME_BYTES_DEFAULT, real_time_dscp: 46, wakes: true }
    }
}
