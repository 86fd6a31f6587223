//! The validated configuration: plain data with every default resolved.
//!
//! Nothing here needs to be parsed or checked again. Vectors are in the order of the
//! identifiers: `datapaths[i]` is `DatapathIndex(i)`, `peers[i]` is `PeerIndex(i)`,
//! `domains[i]` is `DomainIndex(i)`, `datapath.links[i]` is `LinkIndex(i)`, and
//! `link.peers[i]` is the address of `PeerIndex(i)`.

mod links;

pub use links::{
    DeviceName, DpdkPlan, InterfaceName, LinkPlan, MulticastPlan, RatePlan, RdmaPlan, TcpPlan, Technology, UdpPlan,
    XdpPlan,
};

use crate::raw::AfterHoldover;
use insane_core::heap::ClassSpec;
use insane_core::{
    Consumption, Datapath, DatapathIndex, Determinism, DomainIndex, HostId, Lane, Nanos, Network, PeerIndex, Priority,
    Reliability,
};
use insane_policy::{Amount, Rules, health};
use serde::Serialize;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::machine::Machine;

/// A whole runtime.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Plan {
    /// Which runtime this is.
    pub host: HostPlan,
    /// Where applications attach.
    pub control: ControlPlan,
    /// Threads that move messages; one to four. Every lane is served by exactly one.
    pub datapaths: Vec<DatapathPlan>,
    /// Remote runtimes; at most 64.
    pub peers: Vec<PeerPlan>,
    /// How others are found; `None`: not at all.
    pub discovery: Option<GossipPlan>,
    /// How DPDK is started.
    pub eal: EalPlan,
    /// Tenants; at least one.
    pub domains: Vec<DomainPlan>,
    /// Bounds and properties of memory.
    pub memory: MemoryPlan,
    /// Which technology a stream gets.
    pub policy: PolicyPlan,
    /// How the slots follow the clock, and what they do when it is lost.
    pub clock: ClockPlan,
    /// What is logged, and how.
    pub log: LogPlan,
}

/// Which technology a stream gets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PolicyPlan {
    /// Which technologies are preferred for which streams.
    pub rules: Rules,
    /// What streams may use of links; a link that is not there is not bounded.
    pub budgets: Vec<LinkBudget>,
    /// What a best-effort stream counts as, kbit/s.
    pub best_effort_kbps: u32,
    /// How long a new link may be silent while another hears the peer.
    pub silent_after: Nanos,
    /// How long a link that failed once has to be good again.
    pub return_after: Nanos,
    /// How long at most, however often it failed.
    pub hold_down_max: Nanos,
}

/// What streams may use of a link.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LinkBudget {
    /// Its name.
    pub link: String,
    /// Streams, each counted for every peer; `None`: no bound.
    pub streams: Option<u32>,
    /// Bandwidth of all, Mbit/s; `None`: no bound.
    pub mbps: Option<u32>,
}

impl LinkBudget {
    /// As accounts have it.
    #[must_use]
    pub fn amount(&self) -> Amount {
        let bits = |mbps: u32| u64::from(mbps) * 1_000_000;
        Amount {
            streams: self.streams.unwrap_or(Amount::UNBOUNDED.streams),
            bits_per_s: self.mbps.map_or(Amount::UNBOUNDED.bits_per_s, bits),
        }
    }
}

impl PolicyPlan {
    /// The times of hysteresis.
    #[must_use]
    pub const fn limits(&self) -> health::Limits {
        let PolicyPlan { silent_after, return_after, hold_down_max, .. } = *self;
        health::Limits { silent_after, return_after, hold_down_max }
    }

    /// What a best-effort stream counts as, bits a second.
    #[must_use]
    pub const fn best_effort_bits_per_s(&self) -> u64 {
        self.best_effort_kbps as u64 * 1_000
    }
}

impl Default for PolicyPlan {
    fn default() -> Self {
        let health::Limits { silent_after, return_after, hold_down_max } = health::Limits::default();
        PolicyPlan {
            rules: Rules::default(),
            budgets: Vec::new(),
            best_effort_kbps: 0,
            silent_after,
            return_after,
            hold_down_max,
        }
    }
}

/// How the slots follow the clock, and what they do when it is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct ClockPlan {
    /// The longest paired read of the clocks that is used.
    pub read_max: Nanos,
    /// How long holdover lasts.
    pub holdover: Nanos,
    /// It ends sooner where the phase may be off by more; `None`: by time alone.
    pub holdover_phase: Option<Nanos>,
    /// What comes then.
    pub after_holdover: AfterHoldover,
}

impl Default for ClockPlan {
    fn default() -> Self {
        ClockPlan {
            read_max: Nanos::from_micros(10),
            holdover: Nanos::from_secs(60),
            holdover_phase: None,
            after_holdover: AfterHoldover::FreeRun,
        }
    }
}

/// Which runtime it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HostPlan {
    /// Name in reports.
    pub name: String,
    /// Identifier on the wire, unique among peers; never 0.
    pub id: HostId,
}

/// Where applications attach.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ControlPlan {
    /// Path of the `SOCK_SEQPACKET` socket; `None`: embedded, nobody else attaches.
    pub socket: Option<PathBuf>,
    /// Permission bits of the socket.
    pub mode: u32,
    /// Directory of what outlives the runtime; `None`: that of the socket.
    pub state: Option<PathBuf>,
}

impl ControlPlan {
    /// Where the schedule of several hosts is kept; `None`: nobody attaches, so none comes.
    #[must_use]
    pub fn schedule_file(&self) -> Option<PathBuf> {
        let socket = self.socket.as_deref()?;
        let mut name = socket.file_name()?.to_owned();
        name.push(".schedule");
        let folder = self.state.as_deref().or_else(|| socket.parent())?;
        Some(folder.join(name))
    }
}

/// Which quantile of e_turn and e_wake is told, if nothing is configured, parts in a million.
pub const EPSILON_QUANTILE_PPM: u32 = 999_000;

/// One thread that moves messages.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DatapathPlan {
    /// Name in reports.
    pub name: String,
    /// The core it is pinned to; `None`: wherever the kernel likes.
    pub core: Option<u16>,
    /// How the kernel schedules it.
    pub policy: Policy,
    /// What it does when there is nothing to do.
    pub idle: Idle,
    /// Which lanes it carries.
    pub serves: Serves,
    /// Its links; at most eight.
    pub links: Vec<LinkPlan>,
    /// Sources of time-sensitive streams go in their lane, without a bound in time, where a
    /// link has no rate; otherwise they are refused.
    pub allows_unscheduled: bool,
    /// Which quantile of e_turn and e_wake is told, and assumed for streams of class
    /// `statistical`, parts in a million.
    pub epsilon_quantile_ppm: u32,
    /// When its lanes may send; `None`: always.
    pub gates: Option<GatesPlan>,
}

impl DatapathPlan {
    /// Whether it has slots: the rate of each of its links is known.
    #[must_use]
    pub fn has_slots(&self) -> bool {
        !self.links.is_empty() && self.links.iter().all(|link| link.rate.is_some())
    }
}

/// Windows of a gate list at most.
pub const GATE_WINDOWS_MAX: usize = 128;

/// When lanes may send: windows that fill a cycle.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GatesPlan {
    /// An instant of TAI at which a cycle begins, nanoseconds.
    pub base_ns: u64,
    /// One after the other, 1 to [`GATE_WINDOWS_MAX`]; together the cycle.
    pub windows: Vec<GateWindow>,
}

/// A part of the cycle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct GateWindow {
    /// Bit i: lane i may send.
    pub open_lanes: u8,
    /// How long.
    pub length: Nanos,
}

impl fmt::Display for GatesPlan {
    /// `lanes 0 1 2 for 400.0 us, none for 600.0 us, from TAI 0 ns`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for window in &self.windows {
            match window.open_lanes {
                0 => f.write_str("none")?,
                0xff => f.write_str("all lanes")?,
                lanes => {
                    f.write_str("lanes")?;
                    (0..8).filter(|lane| lanes >> lane & 1 == 1).try_for_each(|lane| write!(f, " {lane}"))?;
                }
            }
            write!(f, " for {}, ", window.length)?;
        }
        write!(f, "from TAI {} ns", self.base_ns)
    }
}

impl GatesPlan {
    /// The cycle.
    #[must_use]
    pub fn cycle(&self) -> Nanos {
        Nanos(self.windows.iter().fold(0, |sum: u64, window| sum.saturating_add(window.length.0)))
    }

    /// How long a lane may send at a time, at most; windows that follow each other count as
    /// one. `Nanos(u64::MAX)`: without end.
    #[must_use]
    pub fn longest(&self, lane: Lane) -> Nanos {
        let is_open = |window: &GateWindow| window.open_lanes >> lane.get() & 1 == 1;
        if self.windows.iter().all(is_open) {
            return Nanos(u64::MAX);
        }
        let (mut longest, mut length) = (Nanos::ZERO, Nanos::ZERO);
        // Twice round, for what goes over the end of the cycle.
        for window in self.windows.iter().chain(&self.windows) {
            length = if is_open(window) { Nanos(length.0.saturating_add(window.length.0)) } else { Nanos::ZERO };
            longest = longest.max(length);
        }
        longest
    }
}

/// How the kernel schedules a datapath.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub enum Policy {
    /// `SCHED_OTHER`.
    #[default]
    Other,
    /// `SCHED_FIFO` at this priority, 1 to 98.
    Fifo(u8),
}

/// What a datapath does when there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Idle {
    /// It looks again at once, for ever.
    Spin,
    /// It looks again as soon as others on its core have had a turn, for ever.
    Yield,
    /// It looks for twice what a sleep costs, which it learns, then sleeps until something
    /// happens.
    SpinThenBlock {
        /// How long it looks at most.
        spin: Nanos,
    },
    /// It sleeps until something happens.
    Block,
}

impl Idle {
    /// Whether it ever sleeps, and so has to be woken.
    #[must_use]
    pub fn sleeps(self) -> bool {
        !matches!(self, Idle::Spin | Idle::Yield)
    }
}

impl Default for Idle {
    fn default() -> Self {
        Idle::SpinThenBlock { spin: Nanos::from_micros(crate::raw::SPIN_US) }
    }
}

/// Which lanes a datapath carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub enum Serves {
    /// Lanes 0 to 2.
    RealTime,
    /// Lanes 3 to 7.
    BestEffort,
    /// Every lane.
    #[default]
    All,
}

impl Serves {
    /// Whether the lane is among them.
    #[must_use]
    pub const fn lane(self, lane: Lane) -> bool {
        match self {
            Serves::All => true,
            Serves::RealTime => lane.is_real_time(),
            Serves::BestEffort => !lane.is_real_time(),
        }
    }
}

/// How DPDK is started.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EalPlan {
    /// The library that links it; `None`: beside the executable, or where the system finds it.
    pub shim: Option<PathBuf>,
    /// Arguments of its environment abstraction layer.
    pub arguments: Vec<String>,
}

impl Default for EalPlan {
    fn default() -> Self {
        EalPlan { shim: None, arguments: crate::raw::Eal::default().arguments }
    }
}

/// One remote runtime. Its addresses stand in the links.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PeerPlan {
    /// Name in reports.
    pub name: String,
}

/// Discovery by gossip.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct GossipPlan {
    /// Local address and UDP port; a particular one, which others are told.
    pub bind: SocketAddr,
    /// Name of the group of hosts that find each other.
    pub cluster: String,
    /// Where hosts have to be to become peers; at least one.
    #[serde(serialize_with = "as_texts")]
    pub allow: Vec<Network>,
    /// Who is asked first.
    pub seeds: Vec<SocketAddr>,
    /// What others are told of the own links: name, technology, address.
    pub links: Vec<(String, &'static str, SocketAddr)>,
    /// Peers by discovery, 1 to 64.
    pub peers_max: usize,
    /// After so long without a word a host is forgotten.
    pub forget_after: Nanos,
}

fn as_texts<S: serde::Serializer>(networks: &[Network], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(networks.iter().map(ToString::to_string))
}

/// One tenant.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct DomainPlan {
    /// Name; part of every stream's wire name.
    pub name: String,
    /// Who may attach.
    pub members: Vec<Member>,
    /// Whether memory is shared between its sessions.
    pub isolation: Isolation,
    /// What all its sessions together may use.
    pub quota: Quota,
    /// What its threads may be given.
    pub realtime: RealtimePlan,
    /// Receive heap that each datapath keeps for it: at most eight classes of rising size.
    pub receive: Vec<ClassSpec>,
    /// What is fixed or bounded of its streams.
    pub streams: Vec<StreamPlan>,
}

/// What is fixed or bounded of the streams of one name, or of all whose names begin alike.
/// `None`: whatever the application asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct StreamPlan {
    /// A name, or how names begin and then `*`; unique in its domain.
    pub name: String,
    /// What happens to a message that meets no room or gets lost.
    pub reliability: Option<Reliability>,
    /// Which kind of technology.
    pub datapath: Option<Datapath>,
    /// How receivers wait.
    pub consumption: Option<Consumption>,
    /// Whether messages have a time.
    pub determinism: Option<Determinism>,
    /// The importance.
    pub priority: Option<Priority>,
    /// The most importance; more is taken for this.
    pub priority_max: Option<Priority>,
    /// Whether local messages go through the runtime and are copied there.
    pub isolated: Option<bool>,
    /// Values that a source keeps for late joiners at most.
    pub history_max: Option<u8>,
    /// Of a stream with slots: links on which it may hold alternate certificates, by names;
    /// `None`: all of its datapath.
    pub alternates: Option<Vec<String>>,
    /// Of a stream with slots: what becomes of it when its link fails and it holds no
    /// certificate for another; `None`: it stays.
    pub on_link_loss: Option<LinkLoss>,
}

/// What becomes of a stream with slots whose link has failed, and which holds no certificate for
/// another one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkLoss {
    /// It keeps its slots on the link, where messages are lost until that is back.
    #[default]
    Stay,
    /// It goes by the link by which all else goes, in its lane, without slots and without a
    /// bound in time, until its own is back.
    Degrade,
}

impl LinkLoss {
    /// In the words of the file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LinkLoss::Stay => "stay",
            LinkLoss::Degrade => "degrade",
        }
    }
}

impl StreamPlan {
    /// How well it names a stream: `None` if not at all, else more for the closer one. Its
    /// very name is closer than any beginning, a longer beginning than a shorter one.
    #[must_use]
    pub fn closeness(&self, stream: &str) -> Option<usize> {
        if self.name == stream {
            return Some(usize::MAX);
        }
        let beginning = self.name.strip_suffix('*')?;
        stream.starts_with(beginning).then_some(beginning.len())
    }

    /// The closest of several declarations for a stream.
    #[must_use]
    pub fn closest<'p>(of: &'p [StreamPlan], stream: &str) -> Option<&'p StreamPlan> {
        let close = of.iter().filter_map(|plan| Some((plan.closeness(stream)?, plan)));
        close.max_by_key(|(closeness, _)| *closeness).map(|(_, plan)| plan)
    }
}

/// What the runtime may give to threads of a domain's sessions, which have no right to take it
/// themselves. The default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RealtimePlan {
    /// Most urgent `SCHED_FIFO` priority; `None`: the ordinary policy only.
    pub priority_max: Option<u8>,
    /// The cores that they are let run on, by rising number; at least one if there is a
    /// priority.
    pub cores: Vec<u16>,
    /// Threads of all sessions together, at a time.
    pub threads_max: u32,
    /// What a process may be let lock, bytes.
    pub locked_bytes_max: u64,
}

/// Who may attach to a domain.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub enum Member {
    /// Processes of this user.
    Uid(u32),
    /// Processes of this group (primary or supplementary).
    Gid(u32),
    /// Everybody who may open the socket.
    Any,
}

impl Member {
    /// Whether a process with these credentials is meant.
    #[must_use]
    pub fn admits(self, uid: u32, gids: &[u32]) -> bool {
        match self {
            Member::Uid(member) => member == uid,
            Member::Gid(member) => gids.contains(&member),
            Member::Any => true,
        }
    }
}

/// Whether the sessions of a domain share memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub enum Isolation {
    /// They read each other's messages in place (one hop, no copy).
    #[default]
    Shared,
    /// Every message between two sessions is copied by the runtime.
    Session,
}

/// What all sessions of a domain together may use; reaching it refuses the request
/// and leaves everybody else untouched.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Quota {
    /// Attached sessions; with those of all other domains at most
    /// [`DOORBELLS_OF_DATAPATH`](crate::DOORBELLS_OF_DATAPATH), and with a budget, with those of all others that have
    /// one, [`BUDGETED_SESSIONS`](crate::BUDGETED_SESSIONS).
    pub sessions: u32,
    /// Open streams.
    pub streams: u32,
    /// Write ends; with those of all other domains at most [`PORTS_OF_DATAPATH`](crate::PORTS_OF_DATAPATH), and
    /// where a datapath has slots [`SLOTS_OF_DATAPATH`](crate::SLOTS_OF_DATAPATH) fewer.
    pub sources: u32,
    /// Read ends; likewise.
    pub sinks: u32,
    /// Pairs of rings.
    pub connections: u32,
    /// Bytes of shared memory made for them: source heaps, rings, wake and counters pages.
    pub bytes: u64,
    /// Buffers in source heaps.
    pub buffers: u32,
    /// Requests on the control socket, of each session.
    pub control_messages_per_second: u32,
    /// Wake-ups that a datapath makes for a session's sinks, of each session and datapath; a
    /// sink beyond that sleeps until its timeout, or until its session may have one again.
    pub wakes_per_second: u32,
    /// What all sources of a session together may send by a datapath; `None`: no bound.
    pub budget: Option<BudgetPlan>,
}

/// What the sources of each session may send by each datapath: bytes of frames, with the
/// headers of this runtime, for each peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct BudgetPlan {
    /// On average.
    pub bytes_per_second: u64,
    /// At once after a rest; one frame at least, whatever it says.
    pub burst_bytes: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Quota {
            sessions: 64,
            streams: 256,
            sources: 256,
            sinks: 256,
            connections: 512,
            bytes: 256 << 20,
            buffers: 16_384,
            control_messages_per_second: 10_000,
            wakes_per_second: 100_000,
            budget: None,
        }
    }
}

/// Receive heap of a domain that says nothing else: from process data to a few video frames.
#[must_use]
pub fn receive_default() -> Vec<ClassSpec> {
    [(256, 1024), (2048, 1024), (65_536, 128), (1 << 20, 16), (8 << 20, 4)]
        .map(|(size, count)| ClassSpec { size, count })
        .to_vec()
}

/// Bounds and properties of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct MemoryPlan {
    /// What everything together may take, bytes.
    pub limit_bytes: u64,
    /// Whether all of it is locked in RAM.
    pub lock: bool,
    /// Whether receive heaps are made of huge pages.
    pub huge_pages: HugePages,
    /// Whether every page is touched before its first use.
    pub prefault: bool,
}

/// Whether heaps are made of huge pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LogPlan {
    /// The least important level that is logged.
    pub level: LogLevel,
    /// Lines for people or for machines.
    pub format: LogFormat,
}

/// Importance of a log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize)]
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

impl LogLevel {
    /// The name as the log library knows it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The identifier of a runtime that was given none: a hash of its name, never 0.
#[must_use]
pub fn host_id(name: &str) -> HostId {
    HostId(insane_core::stream_key("host", name).0.max(1))
}

impl Plan {
    /// A runtime inside an application: one unpinned datapath that spins for a while and
    /// then sleeps, no links, no socket, one domain for the calling process's own user.
    #[must_use]
    pub fn embedded_default() -> Plan {
        Plan {
            host: HostPlan { name: "embedded".into(), id: host_id("embedded") },
            control: ControlPlan { socket: None, mode: 0o600, state: None },
            datapaths: vec![DatapathPlan {
                name: "main".into(),
                core: None,
                policy: Policy::Other,
                idle: Idle::default(),
                serves: Serves::All,
                links: Vec::new(),
                allows_unscheduled: false,
                epsilon_quantile_ppm: EPSILON_QUANTILE_PPM,
                gates: None,
            }],
            peers: Vec::new(),
            discovery: None,
            eal: EalPlan::default(),
            domains: vec![DomainPlan {
                name: "default".into(),
                members: vec![Member::Uid(Machine::detect().uid)],
                isolation: Isolation::Shared,
                quota: Quota::default(),
                realtime: RealtimePlan::default(),
                receive: receive_default(),
                streams: Vec::new(),
            }],
            memory: MemoryPlan { limit_bytes: 1 << 30, lock: false, huge_pages: HugePages::Never, prefault: false },
            policy: PolicyPlan::default(),
            clock: ClockPlan::default(),
            log: LogPlan::default(),
        }
    }

    /// [`Plan::embedded_default`] under another name, with one `udp` link of that name at `bind`.
    #[must_use]
    pub fn embedded_udp(name: &str, bind: SocketAddr) -> Plan {
        Plan::embedded_over(name, Technology::Udp(UdpPlan::at(bind)))
    }

    /// [`Plan::embedded_default`] under another name, with one link that has the name of
    /// its technology.
    #[must_use]
    pub fn embedded_over(name: &str, technology: Technology) -> Plan {
        let mut plan = Plan::embedded_default();
        plan.host = HostPlan { name: name.into(), id: host_id(name) };
        let link = LinkPlan { name: technology.name().into(), technology, rate: None, peers: Vec::new() };
        plan.datapaths[0].links.push(link);
        plan
    }

    /// Two embedded runtimes, "a" and "b", that reach each other over loopback. Each
    /// uses its port and the next one.
    #[must_use]
    pub fn loopback_pair(port_a: u16, port_b: u16) -> (Plan, Plan) {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut a = Plan::embedded_udp("a", at(port_a));
        let mut b = Plan::embedded_udp("b", at(port_b));
        a.add_peer("b", &[("udp", at(port_b))]);
        b.add_peer("a", &[("udp", at(port_a))]);
        (a, b)
    }

    /// Adds a peer that is reached by the named links; links of other names do not reach it.
    pub fn add_peer(&mut self, name: &str, addresses: &[(&str, SocketAddr)]) -> PeerIndex {
        let peer = PeerIndex(self.peers.len() as u16);
        self.peers.push(PeerPlan { name: name.into() });
        for link in self.datapaths.iter_mut().flat_map(|datapath| &mut datapath.links) {
            let address = addresses.iter().find(|(to, _)| *to == link.name).map(|(_, address)| *address);
            link.peers.push(address);
        }
        peer
    }

    /// The datapath that carries a lane.
    #[must_use]
    pub fn datapath_of(&self, lane: Lane) -> DatapathIndex {
        let at = self.datapaths.iter().position(|datapath| datapath.serves.lane(lane));
        DatapathIndex(at.unwrap_or(0) as u8)
    }

    /// The domain that a process gets: the one it asks for, or the first that admits it.
    /// `None`: no domain of that name, or none that admits it.
    #[must_use]
    pub fn domain_for(&self, asked: Option<&str>, uid: u32, gids: &[u32]) -> Option<DomainIndex> {
        let fits = |domain: &DomainPlan| {
            asked.is_none_or(|name| name == domain.name) && domain.members.iter().any(|m| m.admits(uid, gids))
        };
        self.domains.iter().position(fits).map(|at| DomainIndex(at as u16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_pair_knows_each_other() {
        let (a, b) = Plan::loopback_pair(7400, 7410);
        assert_eq!(a.peers[0].name, "b");
        assert_eq!(a.datapaths[0].links[0].peers, [Some(b.datapaths[0].links[0].technology.bind())]);
        assert_eq!(b.datapaths[0].links[0].peers, [Some(a.datapaths[0].links[0].technology.bind())]);
        assert_ne!(a.host.id, b.host.id);
    }

    #[test]
    fn every_lane_has_its_datapath() {
        let mut plan = Plan::embedded_default();
        plan.datapaths.push(DatapathPlan { serves: Serves::BestEffort, ..plan.datapaths[0].clone() });
        plan.datapaths[0].serves = Serves::RealTime;
        for number in 0..8 {
            let lane = Lane::new(number).unwrap();
            assert_eq!(plan.datapath_of(lane).0, u8::from(number >= 3));
        }
    }

    #[test]
    fn the_closest_declaration_is_the_one() {
        let named = |name: &str| StreamPlan { name: name.into(), ..StreamPlan::default() };
        let all = [named("*"), named("axis/*"), named("axis/1*"), named("axis/1"), named("video")];
        for (stream, closest) in
            [("axis/1", "axis/1"), ("axis/12", "axis/1*"), ("axis/2", "axis/*"), ("axis", "*"), ("video", "video")]
        {
            assert_eq!(StreamPlan::closest(&all, stream).unwrap().name, closest, "{stream}");
        }
        assert_eq!(StreamPlan::closest(&all[1..], "videos"), None);
    }

    #[test]
    fn members_decide_the_domain() {
        let mut plan = Plan::embedded_default();
        plan.domains[0].members = vec![Member::Uid(7)];
        plan.domains.push(DomainPlan {
            name: "group".into(),
            members: vec![Member::Gid(20)],
            ..plan.domains[0].clone()
        });
        assert_eq!(plan.domain_for(None, 7, &[20]), Some(DomainIndex(0)));
        assert_eq!(plan.domain_for(Some("group"), 7, &[20]), Some(DomainIndex(1)));
        assert_eq!(plan.domain_for(None, 8, &[20]), Some(DomainIndex(1)));
        assert_eq!(plan.domain_for(Some("default"), 8, &[20]), None);
        assert_eq!(plan.domain_for(None, 8, &[21]), None);
    }
}
