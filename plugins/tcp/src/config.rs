//! What an operator chooses.

use std::net::SocketAddr;

/// Largest `frame_bytes_max`.
pub const FRAME_BYTES_LIMIT: u32 = 1 << 20;
/// Smallest `frame_bytes_max`: that of the `udp` link, so that whatever fits one fits
/// the other.
pub const FRAME_BYTES_LOW: u32 = 508;
/// Default of `frame_bytes_max`. A real-time message waits for one best-effort chunk,
/// and a chunk holds one frame at least: larger frames save little (a system call
/// carries 16 KiB already) and make it wait longer.
pub const FRAME_BYTES_DEFAULT: u32 = 16 * 1024;
/// Shortest `user_timeout_ms`: a few retransmissions on a quick network.
pub const USER_TIMEOUT_MS_LOW: u32 = 100;
/// Longest `user_timeout_ms`: ten minutes.
pub const USER_TIMEOUT_MS_LIMIT: u32 = 600_000;

/// Where and how the link opens its sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TcpConfig {
    /// Address of this host, a particular one, and port P; the link also takes port P+1.
    /// Port 0 chooses a free pair.
    pub bind: SocketAddr,
    /// Largest frame, bytes; the same at all peers. Each connection takes
    /// [`connection_bytes`](crate::connection_bytes) of it.
    pub frame_bytes_max: u32,
    /// Room of each connection for bytes that were not taken yet, bytes. The system may
    /// grant less; `None`: its own choice.
    pub receive_buffer_bytes: Option<u32>,
    /// Room of each connection for bytes that are not acknowledged, bytes; as above.
    /// What is full makes a link busy, so this bounds how old data can get on the way.
    pub send_buffer_bytes: Option<u32>,
    /// How long the kernel polls the device in a receive call that finds nothing,
    /// microseconds; `None`: not at all.
    pub busy_poll_us: Option<u32>,
    /// Differentiated services code point of real-time connections, 0 to 63.
    pub real_time_dscp: u8,
    /// How long a peer may leave data unacknowledged (when there is none, the question
    /// whether it is there) until its connection is given up, milliseconds.
    pub user_timeout_ms: u32,
}

impl TcpConfig {
    /// The defaults for `bind`: frames of [`FRAME_BYTES_DEFAULT`], 1 MiB of receive and
    /// of send buffer, no busy polling, real-time connections marked as expedited (46,
    /// RFC 3246), two seconds until a silent peer is given up.
    #[must_use]
    pub fn new(bind: SocketAddr) -> Self {
        TcpConfig {
            bind,
            frame_bytes_max: FRAME_BYTES_DEFAULT,
            receive_buffer_bytes: Some(1 << 20),
            send_buffer_bytes: Some(1 << 20),
            busy_poll_us: None,
            real_time_dscp: 46,
            user_timeout_ms: 2_000,
        }
    }
}
