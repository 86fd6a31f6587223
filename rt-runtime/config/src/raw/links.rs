//! Links as they are written.

use super::{
    FOREIGN_BYTES, POLL_US, RDMA_FRAME_BYTES, REAL_TIME_DSCP, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES,
    TCP_BUFFER_BYTES, TCP_FRAME_BYTES, TURN_US, USER_TIMEOUT_MS, XDP_QUEUES,
};
use serde::{Deserialize, Serialize};

/// One way to other hosts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Name in reports, for `datapaths` and for `peers`; 1 to 64 bytes, unique.
    pub name: String,
    /// What carries it.
    pub technology: Technology,
    /// Rate of what is between this host and its switch, Mbit/s, 1 to 400,000; never read
    /// from an interface. Default: `None`, and time-sensitive streams have no slots
    /// (see [`Unscheduled`](super::Unscheduled)).
    #[serde(default)]
    pub rate_mbps: Option<i64>,
    /// Longest time from a decision to its frame being on its way (e_turn), microseconds, 1
    /// to 10,000. Default: 100.
    #[serde(default = "turn_us")]
    pub turn_us: i64,
    /// Most bytes of others (sockets, datapaths) in front of a frame, bytes, 0 to 1,048,576.
    /// Default: 1,538, one frame.
    #[serde(default = "foreign_bytes")]
    pub foreign_bytes: i64,
    /// Whether the link is asked before slots what has not left, if its technology tells: then a
    /// link that is slower than its rate is noticed, and a neighbour that does not answer may hold
    /// up the datapath's slots for a moment. Default: false.
    #[serde(default)]
    pub completions: bool,
}

fn turn_us() -> i64 {
    TURN_US
}

fn foreign_bytes() -> i64 {
    FOREIGN_BYTES
}

/// What carries a link.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Technology {
    /// Kernel UDP sockets, two to a link.
    Udp {
        /// Local address and port P; the real-time lanes use P, the others P + 1.
        bind: String,
        /// Largest datagram, bytes, 508 to 65,000. Default: 1,472 (IPv4), 1,452 (IPv6).
        #[serde(default)]
        frame_bytes_max: Option<i64>,
        /// Send buffer of each socket, bytes. Default: 1,048,576.
        #[serde(default = "send_buffer_bytes")]
        send_buffer_bytes: i64,
        /// Receive buffer of each socket, bytes. Default: 4,194,304.
        #[serde(default = "receive_buffer_bytes")]
        receive_buffer_bytes: i64,
        /// `SO_BUSY_POLL`, microseconds, 0 to 10,000. Default: 0, off.
        #[serde(default)]
        busy_poll_us: i64,
        /// Differentiated services code point of real-time frames, 0 to 63. Default: 46.
        #[serde(default = "real_time_dscp")]
        real_time_dscp: i64,
        /// How long before its slot a frame is handed over with a launch time, microseconds, 0
        /// to 10,000. Default: 0, no launch times.
        #[serde(default)]
        launch_lead_us: i64,
        /// A group that gets one frame for several peers. Default: none.
        #[serde(default)]
        multicast: Option<Multicast>,
    },
    /// Kernel TCP connections, two to a peer.
    Tcp {
        /// Local address, a particular one, and port P; the real-time lanes use P, the
        /// others P + 1.
        bind: String,
        /// Largest frame, bytes, 508 to 1,048,576; the same at all peers. Default: 16,384.
        #[serde(default = "tcp_frame_bytes")]
        frame_bytes_max: i64,
        /// Send buffer of each connection, bytes. Default: 1,048,576.
        #[serde(default = "tcp_buffer_bytes")]
        send_buffer_bytes: i64,
        /// Receive buffer of each connection, bytes. Default: 1,048,576.
        #[serde(default = "tcp_buffer_bytes")]
        receive_buffer_bytes: i64,
        /// `SO_BUSY_POLL`, microseconds, 0 to 10,000. Default: 0, off.
        #[serde(default)]
        busy_poll_us: i64,
        /// Differentiated services code point of real-time connections, 0 to 63. Default: 46.
        #[serde(default = "real_time_dscp")]
        real_time_dscp: i64,
        /// How long a peer may leave data unacknowledged, milliseconds, 100 to 600,000.
        /// Default: 2,000.
        #[serde(default = "user_timeout_ms")]
        user_timeout_ms: i64,
    },
    /// AF_XDP sockets, two to a link.
    Xdp {
        /// Name of the interface, 1 to 15 bytes.
        interface: String,
        /// The link's own address, which no interface of this machine has (or, with borrowed
        /// neighbours, this one has), and port P; the real-time lanes use P, the others P + 1.
        bind: String,
        /// Whose that address is, and who finds neighbours. Default: the link's own.
        #[serde(default)]
        neighbours: Neighbours,
        /// The queue of the interface by which the link sends, and which it hears, 0 to 1,023.
        /// Default: 0.
        #[serde(default)]
        queue: i64,
        /// Of how many queues the link hears all; where there are more, it hears `queue` alone. 1 to
        /// 8. Default: 8.
        #[serde(default = "xdp_queues")]
        queues_max: i64,
        /// How frames leave the kernel. Default: the best that can be had.
        #[serde(default)]
        mode: XdpMode,
        /// The VLAN of the link, 1 to 4,094. Default: none.
        #[serde(default)]
        vlan: Option<i64>,
        /// How many leading bits neighbours share with `bind`, 0 to 128. Default: 24 (IPv4), 64
        /// (IPv6).
        #[serde(default)]
        prefix_bits: Option<i64>,
        /// Address of who takes frames for hosts that are no neighbours. Default: nobody.
        #[serde(default)]
        gateway: Option<String>,
        /// Largest frame, bytes, 508 to 3,794. Default: 1,472 (IPv4), 1,452 (IPv6).
        #[serde(default)]
        frame_bytes_max: Option<i64>,
        /// Differentiated services code point of real-time frames, 0 to 63. Default: 46.
        #[serde(default = "real_time_dscp")]
        real_time_dscp: i64,
    },
    /// RDMA connections, two to a peer.
    Rdma {
        /// Local address, one that a verbs device has, and port.
        bind: String,
        /// Largest frame, bytes, 508 to 65,536; the same at all peers. Default: 16,384.
        #[serde(default = "rdma_frame_bytes")]
        frame_bytes_max: i64,
        /// Differentiated services code point of real-time connections, 0 to 63. Default: 46.
        #[serde(default = "real_time_dscp")]
        real_time_dscp: i64,
    },
    /// A port of DPDK.
    Dpdk {
        /// The device with its arguments, 1 to 159 bytes.
        device: String,
        /// The link's own address, which no interface of this machine has, and port P; the
        /// real-time lanes use P, the others P + 1.
        bind: String,
        /// Hardware address. Default: the device's.
        #[serde(default)]
        mac: Option<String>,
        /// The VLAN of the link, 1 to 4,094. Default: none.
        #[serde(default)]
        vlan: Option<i64>,
        /// How many leading bits neighbours share with `bind`, 0 to 128. Default: 24 (IPv4), 64
        /// (IPv6).
        #[serde(default)]
        prefix_bits: Option<i64>,
        /// Address of who takes frames for hosts that are no neighbours. Default: nobody.
        #[serde(default)]
        gateway: Option<String>,
        /// Largest frame, bytes, 508 to 8,972. Default: 1,472 (IPv4), 1,452 (IPv6).
        #[serde(default)]
        frame_bytes_max: Option<i64>,
        /// Differentiated services code point of real-time frames, 0 to 63. Default: 46.
        #[serde(default = "real_time_dscp")]
        real_time_dscp: i64,
        /// How long a datapath that sleeps may not look for frames, microseconds, 1 to 10,000.
        /// Default: 100.
        #[serde(default = "poll_us")]
        poll_us: i64,
    },
}

/// How frames of an xdp link leave the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpMode {
    /// The first of the others that can be had.
    #[default]
    Auto,
    /// By the device itself.
    ZeroCopy,
    /// In the driver, copied.
    Native,
    /// Behind the driver, copied.
    Skb,
}

impl XdpMode {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            XdpMode::Auto => "auto",
            XdpMode::ZeroCopy => "zero_copy",
            XdpMode::Native => "native",
            XdpMode::Skb => "skb",
        }
    }
}

/// Whose the address of an xdp link is, and who finds its neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Neighbours {
    /// The link's own.
    #[default]
    Own,
    /// The kernel's.
    Borrowed,
}

impl Neighbours {
    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Neighbours::Own => "own",
            Neighbours::Borrowed => "borrowed",
        }
    }
}

/// The group of a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Multicast {
    /// Address of the group and port Q; the real-time lanes use Q, the others Q + 1.
    pub group: String,
    /// Networks that its frames may pass, the own one included, 1 to 255. Default: 1.
    #[serde(default = "group_ttl")]
    pub ttl: i64,
    /// Peers for which a message goes to the group, at least, 2 to 64. Default: 2.
    #[serde(default = "from_peers")]
    pub from_peers: i64,
}

const fn group_ttl() -> i64 {
    1
}

const fn from_peers() -> i64 {
    2
}

impl Technology {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Technology::Udp { .. } => "udp",
            Technology::Tcp { .. } => "tcp",
            Technology::Xdp { .. } => "xdp",
            Technology::Rdma { .. } => "rdma",
            Technology::Dpdk { .. } => "dpdk",
        }
    }

    /// Local address, as it is written.
    #[must_use]
    pub fn bind(&self) -> &str {
        match self {
            Technology::Udp { bind, .. }
            | Technology::Tcp { bind, .. }
            | Technology::Xdp { bind, .. }
            | Technology::Rdma { bind, .. } => bind,
            Technology::Dpdk { bind, .. } => bind,
        }
    }
}

fn send_buffer_bytes() -> i64 {
    SEND_BUFFER_BYTES
}

fn receive_buffer_bytes() -> i64 {
    RECEIVE_BUFFER_BYTES
}

fn poll_us() -> i64 {
    POLL_US
}

fn real_time_dscp() -> i64 {
    REAL_TIME_DSCP
}

fn tcp_frame_bytes() -> i64 {
    TCP_FRAME_BYTES
}

fn xdp_queues() -> i64 {
    XDP_QUEUES
}

fn rdma_frame_bytes() -> i64 {
    RDMA_FRAME_BYTES
}

fn tcp_buffer_bytes() -> i64 {
    TCP_BUFFER_BYTES
}

fn user_timeout_ms() -> i64 {
    USER_TIMEOUT_MS
}
