//! The configuration as it is written. `configs/reference.ron` shows every field;
//! `fields.rs` holds what each accepts.
//!
//! Numbers are wide and addresses are text, so that what is out of range is found by
//! the validation, which reports all of it at once, and not by the parser, which stops
//! at the first.

mod links;

pub use links::{Link, Multicast, Neighbours, Technology, XdpMode};

use insane_core::{Consumption, LatePolicy, Reliability};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Default of `idle: spin_then_block(us: ...)`, microseconds.
pub const SPIN_US: u64 = 50;
/// Default of `send_buffer_bytes`.
pub const SEND_BUFFER_BYTES: i64 = 1 << 20;
/// Default of `receive_buffer_bytes`.
pub const RECEIVE_BUFFER_BYTES: i64 = 4 << 20;
/// Default of `real_time_dscp`: expedited forwarding (RFC 3246).
pub const REAL_TIME_DSCP: i64 = 46;
/// Of so many queues an xdp link hears all.
pub const XDP_QUEUES: i64 = 8;
/// Default of `frame_bytes_max` of a `tcp` link: with the default chunk of best effort,
/// larger frames would make real time wait longer.
pub const TCP_FRAME_BYTES: i64 = 16_384;
/// Default of `frame_bytes_max` of an rdma link.
pub const RDMA_FRAME_BYTES: i64 = 16_384;
/// Default of `send_buffer_bytes` and `receive_buffer_bytes` of a `tcp` link.
pub const TCP_BUFFER_BYTES: i64 = 1 << 20;
/// Default of `user_timeout_ms` of a `tcp` link.
pub const USER_TIMEOUT_MS: i64 = 2_000;
/// Default of `discovery.gossip.peers_max`.
pub const GOSSIP_PEERS_MAX: i64 = 32;
/// Default of `discovery.gossip.forget_after_s`.
pub const FORGET_AFTER_S: i64 = 30;
/// Default of `eal.arguments`.
pub const EAL_ARGUMENTS: [&str; 4] = ["--no-huge", "--no-pci", "--no-telemetry", "--no-shconf"];
/// Default of `poll_us` of a `dpdk` link.
pub const POLL_US: i64 = 100;
/// Default of `turn_us` of a link.
pub const TURN_US: i64 = 100;
/// Default of `foreign_bytes` of a link: the largest frame of Ethernet, with all around it.
pub const FOREIGN_BYTES: i64 = 1_538;
/// Default of `control.socket`.
pub const SOCKET: &str = "/run/insane/insaned.sock";

/// Largest datagram that an Ethernet frame of 1,500 bytes carries whole, bytes.
#[must_use]
pub fn frame_bytes_default(bind: SocketAddr) -> u32 {
    if bind.is_ipv4() { 1500 - 20 - 8 } else { 1500 - 40 - 8 }
}

/// A configuration file.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which runtime this is. Default: the machine's host name.
    pub host: Host,
    /// Where applications attach.
    pub control: Control,
    /// Threads that move messages. Default: one, `main`, with all links and all lanes.
    pub datapaths: Vec<Datapath>,
    /// Ways to other hosts. Default: none.
    pub links: Vec<Link>,
    /// Remote runtimes. Default: none.
    pub peers: Vec<Peer>,
    /// How others are found. Default: not at all.
    pub discovery: Discovery,
    /// How DPDK is started, if a link needs it.
    pub eal: Eal,
    /// Tenants. Default: one, `default`, for the daemon's own user.
    pub domains: Vec<Domain>,
    /// Bounds and properties of memory.
    pub memory: Memory,
    /// Which technology a stream gets.
    pub policy: TechnologyPolicy,
    /// What the slots do without a disciplined clock.
    pub clock: Clock,
    /// What is logged, and how.
    pub log: Log,
}

/// Which technology a stream gets; see docs/POLICY.md.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TechnologyPolicy {
    /// The first rule whose conditions hold gives the order, 1 to 32. Default: those of
    /// docs/POLICY.md.
    pub rules: Option<Vec<PolicyRule>>,
    /// What streams may use of links, by name. Default: no link is bounded.
    pub budgets: BTreeMap<String, PolicyBudget>,
    /// What a best-effort stream counts as, kbit/s, 0 to 400,000,000. Default: 0.
    pub best_effort_kbps: i64,
    /// How long a new link may be silent while another hears the peer, milliseconds, 50 to
    /// 600,000. Default: 500.
    pub silent_ms: i64,
    /// How long a link that failed once has to be good again, milliseconds, 0 to 3,600,000.
    /// Default: 2,000.
    pub return_after_ms: i64,
    /// How long at most, however often it failed, milliseconds, 1 to 3,600,000. Default:
    /// 60,000.
    pub hold_down_max_ms: i64,
}

impl Default for TechnologyPolicy {
    fn default() -> Self {
        TechnologyPolicy {
            rules: None,
            budgets: BTreeMap::new(),
            best_effort_kbps: 0,
            silent_ms: 500,
            return_after_ms: 2_000,
            hold_down_max_ms: 60_000,
        }
    }
}

/// An order of technologies, and for which streams.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// For which. Default: for all.
    #[serde(default)]
    pub when: PolicyWhen,
    /// The best first; what is not named is not used.
    pub order: Vec<insane_policy::Technology>,
    /// Links that cost other traffic go last. Default: false.
    #[serde(default)]
    pub spare_others: bool,
}

/// Conditions, all of which have to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyWhen {
    /// Default: any.
    pub reliability: Option<Reliability>,
    /// Default: any.
    pub datapath: Option<insane_core::Datapath>,
    /// Default: any.
    pub consumption: Option<Consumption>,
    /// Default: any.
    pub determinism: Option<insane_policy::Kind>,
    /// Messages are known to be of this size at least, bytes, 1 to 100,000,000; so the stream is
    /// time-sensitive, and its size is that. Default: any.
    pub bytes_min: Option<i64>,
}

/// What streams may use of a link; one of both at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyBudget {
    /// Streams, each counted for every peer, 0 to 65,536. Default: no bound.
    pub streams: Option<i64>,
    /// Bandwidth of all, Mbit/s, 0 to 400,000: best effort is held to what is left of it. Default: no
    /// bound.
    pub mbps: Option<i64>,
}

/// How the slots follow the clock, and what they do when it is lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clock {
    /// The longest paired read of the clocks that is used, microseconds, 1 to 10,000. Default: 10.
    pub read_max_us: i64,
    /// How long holdover lasts, seconds, 0 to 86,400. Default: 60.
    pub holdover_s: i64,
    /// It ends sooner where the phase may be off by more, microseconds, 1 to 1,000,000.
    /// Default: `None`, by time alone.
    pub holdover_phase_us: Option<i64>,
    /// What comes then. Default: `free_run`.
    pub after_holdover: AfterHoldover,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { read_max_us: 10, holdover_s: 60, holdover_phase_us: None, after_holdover: AfterHoldover::FreeRun }
    }
}

/// What comes after holdover; alarmed in any case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterHoldover {
    /// Slots go on at the rate that was measured.
    Keep,
    /// Slots go on by the local clock.
    #[default]
    FreeRun,
    /// No slots until the clock is back.
    StopSlots,
}

/// Which runtime it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// Name in reports, 1 to 64 bytes. Default: the machine's host name.
    pub name: Option<String>,
    /// Identifier on the wire, unique among peers, not 0. Default: a hash of the name.
    pub id: Option<u64>,
}

/// Where applications attach.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Absolute path of the socket, at most 107 bytes. Default: [`SOCKET`].
    pub socket: String,
    /// Permission bits of the socket, 0o600 to 0o777. Default: 0o660.
    pub mode: i64,
    /// Absolute path of the directory that keeps what outlives the runtime. Default: that of
    /// the socket.
    pub state: Option<String>,
}

impl Default for Control {
    fn default() -> Self {
        Control { socket: SOCKET.into(), mode: 0o660, state: None }
    }
}

/// One thread that moves messages.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datapath {
    /// Name in reports, 1 to 64 bytes, unique.
    pub name: String,
    /// The core it is pinned to. Default: `None`, not pinned.
    #[serde(default)]
    pub core: Option<i64>,
    /// How the kernel schedules it. Default: `other`.
    #[serde(default)]
    pub policy: Policy,
    /// What it does when there is nothing to do. Default: `spin_then_block(us: 50)`.
    #[serde(default)]
    pub idle: Idle,
    /// Which lanes it carries. Default: `all`.
    #[serde(default)]
    pub serves: Serves,
    /// Names of its links, at most 8. Default: none.
    #[serde(default)]
    pub links: Vec<String>,
    /// What becomes of time-sensitive streams where a link has no `rate_mbps`. Default: `refuse`.
    #[serde(default)]
    pub unscheduled: Unscheduled,
    /// Which quantile of e_turn and e_wake is told, and assumed for streams of class
    /// `statistical`, parts in a million, 500,000 to 999,999. Default: 999,000.
    #[serde(default = "epsilon_quantile_ppm")]
    pub epsilon_quantile_ppm: i64,
    /// When its lanes may send (IEEE 802.1Qbv); needs `rate_mbps` of each of its links.
    /// Default: `None`, always.
    #[serde(default)]
    pub gates: Option<Gates>,
}

/// When lanes may send: windows that fill a cycle, again and again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// The cycle, microseconds, 10 to 10,000,000.
    pub cycle_us: i64,
    /// An instant of TAI at which a cycle begins, nanoseconds; it counts modulo the cycle.
    /// Default: 0.
    #[serde(default)]
    pub base_time_ns: i64,
    /// One after the other from the start of the cycle, 1 to 128.
    pub windows: Vec<GateWindow>,
}

/// A part of the cycle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateWindow {
    /// The lanes that may send, 0 to 7.
    pub lanes: Vec<i64>,
    /// How long, microseconds.
    pub us: i64,
}

fn epsilon_quantile_ppm() -> i64 {
    crate::plan::EPSILON_QUANTILE_PPM.into()
}

/// What becomes of time-sensitive streams where there are no slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unscheduled {
    /// Their sources are refused.
    #[default]
    Refuse,
    /// They go in their real-time lane: an order without a bound in time.
    Allow,
}

/// How the kernel schedules a datapath.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// `SCHED_OTHER`.
    #[default]
    Other,
    /// `SCHED_FIFO` at this priority, 1 to 98.
    Fifo(i64),
}

/// What a datapath does when there is nothing to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Idle {
    /// It looks again at once, for ever.
    Spin,
    /// It looks again as soon as others on its core have had a turn, for ever.
    Yield,
    /// It looks for twice what a sleep and its wake-up cost, which it learns, and not at all
    /// where that was in vain for some time; then it sleeps until something happens.
    SpinThenBlock {
        /// How long it looks at most, microseconds, 1 to 1,000,000; more than 100 is as 100.
        /// Default: 50.
        #[serde(default = "spin_us")]
        us: i64,
    },
    /// It sleeps until something happens.
    Block,
}

fn spin_us() -> i64 {
    SPIN_US as i64
}

impl Default for Idle {
    fn default() -> Self {
        Idle::SpinThenBlock { us: spin_us() }
    }
}

/// Which lanes a datapath carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Serves {
    /// The real-time lanes, 0 to 2.
    RealTime,
    /// The best-effort lanes, 3 to 7.
    BestEffort,
    /// Every lane.
    #[default]
    All,
}

/// One remote runtime.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Name in reports, 1 to 64 bytes, unique, not this host's.
    pub name: String,
    /// Its address on each of this host's links, by the link's name here.
    pub links: BTreeMap<String, String>,
}

/// How DPDK is started: once, when the first `dpdk` link opens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eal {
    /// Absolute path of the library that links DPDK. Default: beside the executable, or where
    /// the system finds it.
    pub shim: Option<String>,
    /// Arguments of DPDK's environment abstraction layer. Default: ordinary pages, no NICs, no
    /// telemetry, no files.
    pub arguments: Vec<String>,
}

impl Default for Eal {
    fn default() -> Self {
        Eal { shim: None, arguments: EAL_ARGUMENTS.map(str::to_owned).to_vec() }
    }
}

/// How other runtimes are found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Discovery {
    /// By gossip. Default: `None`, no port opens.
    pub gossip: Option<Gossip>,
}

/// Discovery by gossip.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gossip {
    /// Local address, a particular one, and UDP port.
    pub bind: String,
    /// Name of the group of hosts that find each other, 1 to 64 bytes.
    pub cluster: String,
    /// Networks whose hosts may become peers; at least one.
    pub allow: Vec<String>,
    /// `bind` of hosts that are asked first. Default: none.
    #[serde(default)]
    pub seeds: Vec<String>,
    /// Addresses of own links that are bound to no particular one, by name. Default: none.
    #[serde(default)]
    pub advertise: BTreeMap<String, String>,
    /// Peers by discovery, 1 to 64. Default: 32.
    #[serde(default = "gossip_peers_max")]
    pub peers_max: i64,
    /// A host that is not heard of for so long is forgotten, seconds, 5 to 86,400. Default: 30.
    #[serde(default = "forget_after_s")]
    pub forget_after_s: i64,
}

fn gossip_peers_max() -> i64 {
    GOSSIP_PEERS_MAX
}

fn forget_after_s() -> i64 {
    FORGET_AFTER_S
}

/// One tenant.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Name; part of every stream's wire name; 1 to 64 bytes, unique.
    pub name: String,
    /// Who may attach; at least one.
    pub members: Vec<Member>,
    /// Whether its sessions share memory. Default: `shared`. With `session` nobody sees a message
    /// change after it was sent; secrets need domains of their own.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// What all its sessions together may use.
    #[serde(default)]
    pub quota: Quota,
    /// What its threads may be given.
    #[serde(default)]
    pub realtime: Realtime,
    /// Receive heap of each datapath for it, 1 to 8 classes of rising size. Default:
    /// `receive_default`.
    #[serde(default)]
    pub receive: Option<Vec<Class>>,
    /// What is fixed or bounded of its streams, whatever applications ask for; at most 256.
    /// Default: nothing.
    #[serde(default)]
    pub streams: Vec<Stream>,
}

/// What is fixed or bounded of the streams of one name, or of all whose names begin alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Name of a stream, or how names begin and then `*`; 1 to 64 bytes, unique.
    pub name: String,
    /// Default: as asked for.
    #[serde(default)]
    pub reliability: Option<Reliability>,
    /// Default: as asked for.
    #[serde(default)]
    pub datapath: Option<insane_core::Datapath>,
    /// Default: as asked for.
    #[serde(default)]
    pub consumption: Option<Consumption>,
    /// Default: as asked for.
    #[serde(default)]
    pub determinism: Option<Determinism>,
    /// 0 to 7. Default: as asked for.
    #[serde(default)]
    pub priority: Option<i64>,
    /// More is taken for this, 0 to 7. Default: 7.
    #[serde(default)]
    pub priority_max: Option<i64>,
    /// Whether local messages go through the runtime. Default: as asked for.
    #[serde(default)]
    pub isolated: Option<bool>,
    /// Values that a source keeps for late joiners at most, 0 to 16. Default: 16.
    #[serde(default)]
    pub history_max: Option<i64>,
    /// Names of links on which a stream with slots may hold alternate certificates. Default: all
    /// of its datapath.
    #[serde(default)]
    pub alternates: Option<Vec<String>>,
    /// What becomes of a stream with slots whose link has failed. Default: `stay`.
    #[serde(default)]
    pub on_link_loss: Option<crate::plan::LinkLoss>,
}

/// Whether messages have a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Determinism {
    /// No time is promised.
    BestEffort,
    /// One message a period, in the real-time lanes.
    TimeSensitive {
        /// Length of the cycle, nanoseconds, 1 to 3,600,000,000,000.
        period_ns: i64,
        /// Earliest start of the slot in the cycle, nanoseconds. Default: 0.
        #[serde(default)]
        offset_ns: i64,
        /// Latest departure after the start of the cycle, nanoseconds. Default: the period.
        #[serde(default)]
        deadline_ns: Option<i64>,
        /// Largest payload, bytes, 1 to 100,000,000.
        size_bytes: i64,
        /// What is done when a slot is missed. Default: `next_slot`.
        #[serde(default)]
        late: LatePolicy,
    },
}

/// Who may attach to a domain.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Member {
    /// Processes of this user.
    Uid(i64),
    /// Processes of this group.
    Gid(i64),
    /// Everybody who may open the socket.
    Any,
}

/// Whether the sessions of a domain share memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// They read each other's messages in place.
    Shared,
    /// The runtime copies every message between two sessions.
    Session,
}

/// What the runtime may give to threads of a domain's sessions. What is not given has its
/// default: nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Realtime {
    /// Most urgent `SCHED_FIFO` priority; 0: none. Default: 0.
    pub priority_max: i64,
    /// The cores that such threads run on. Default: none.
    pub cores: Vec<i64>,
    /// Threads at a time. Default: 8.
    pub threads_max: i64,
    /// What a process may be let lock, bytes. Default: 0.
    pub locked_bytes_max: i64,
}

impl Default for Realtime {
    fn default() -> Self {
        Realtime { priority_max: 0, cores: Vec::new(), threads_max: 8, locked_bytes_max: 0 }
    }
}

/// What all sessions of a domain together may use. What is not given has its default.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Attached sessions; those of all domains together at most 4,096, those of all that have
    /// `bytes_per_second` at most 256. Default: 64.
    pub sessions: i64,
    /// Open streams. Default: 256.
    pub streams: i64,
    /// Write ends; those of all domains together at most 4,096, where a datapath has slots
    /// 3,840. Default: 256.
    pub sources: i64,
    /// Read ends; those of all domains together at most 4,096. Default: 256.
    pub sinks: i64,
    /// Pairs of rings. Default: 512.
    pub connections: i64,
    /// Bytes of shared memory made for them: source heaps, rings, wake and counters
    /// pages. Default: 268,435,456.
    pub bytes: i64,
    /// Buffers in source heaps. Default: 16,384.
    pub buffers: i64,
    /// Requests on the control socket, of each session. Default: 10,000.
    pub control_messages_per_second: i64,
    /// Wake-ups caused by each session. Default: 100,000.
    pub wakes_per_second: i64,
    /// Bytes that the sources of each session may send by each datapath. Default: `None`, no
    /// bound.
    pub bytes_per_second: Option<i64>,
    /// Of those, at once after a rest. Default: 262,144.
    pub burst_bytes: i64,
}

impl Default for Quota {
    fn default() -> Self {
        let quota = crate::plan::Quota::default();
        Quota {
            sessions: quota.sessions.into(),
            streams: quota.streams.into(),
            sources: quota.sources.into(),
            sinks: quota.sinks.into(),
            connections: quota.connections.into(),
            bytes: quota.bytes as i64,
            buffers: quota.buffers.into(),
            control_messages_per_second: quota.control_messages_per_second.into(),
            wakes_per_second: quota.wakes_per_second.into(),
            bytes_per_second: None,
            burst_bytes: 256 << 10,
        }
    }
}

/// One size class of a receive heap.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Bytes of one buffer, 1 to 100,000,000.
    pub size: i64,
    /// How many, 1 to 65,536.
    pub count: i64,
}

/// Bounds and properties of memory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memory {
    /// What everything together may take, bytes. Default: 1,073,741,824.
    pub limit_bytes: i64,
    /// Whether it is locked in RAM. Default: false.
    pub lock: bool,
    /// Whether receive heaps are made of huge pages. Default: `never`. A source's heap is its
    /// client's, which tries in any case.
    pub huge_pages: HugePages,
    /// Whether every page is touched before its first use. Default: true.
    pub prefault: bool,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { limit_bytes: 1 << 30, lock: false, huge_pages: HugePages::Never, prefault: true }
    }
}

/// Whether heaps are made of huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HugePages {
    /// No.
    #[default]
    Never,
    /// Where they are to be had.
    Try,
    /// Start fails without.
    Require,
}

/// What is logged, and how.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// The least important level that is logged. Default: `info`.
    pub level: LogLevel,
    /// Lines for people or for machines. Default: `text`.
    pub format: LogFormat,
}

/// Importance of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is not as the configuration wants it.
    Warn,
    /// What happens seldom.
    #[default]
    Info,
    /// Every session, stream and connection.
    Debug,
    /// Every control message.
    Trace,
}

/// Form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
