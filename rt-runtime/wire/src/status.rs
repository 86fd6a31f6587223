//! The answer to [`Request::Status`](crate::control::Request::Status): the state of
//! one runtime, as JSON.
//!
//! Producer and reader may be of different versions: every field has a default, an
//! unknown field is skipped, and what could grow (policies, idle strategies, lanes,
//! counters) is text or a map and not an enum. Maps are ordered, so that two reports
//! of one state are equal byte for byte.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The number of this format. It is raised with every field that is added, changed or dropped:
/// who reads a report of another number knows that it may miss something, and says so
/// ([`other_format`]). `tests/formats.rs` sees to that.
pub const FORMAT: u32 = 2;

/// What to say to somebody who reads a report of another format; `None`: it is this one's.
#[must_use]
pub fn other_format(report: &StatusReport) -> Option<String> {
    let StatusReport { format, version, .. } = report;
    (*format != FORMAT).then(|| {
        format!(
            "the runtime (version {version}) reports in format {format}, this tool reads format {FORMAT}: what one of \
             them does not know is not shown. Take both from one build"
        )
    })
}

/// Counters by name (`insane_core::counters`); each only grows, maxima apart.
pub type Counters = BTreeMap<String, u64>;

/// The state of one runtime.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StatusReport {
    /// [`FORMAT`] of who wrote it; 0: of a time before formats had numbers.
    pub format: u32,
    /// Version of the runtime's package.
    pub version: String,
    /// The runtime itself.
    pub host: HostStatus,
    /// Seconds since it started.
    pub uptime_s: f64,
    /// Its process.
    pub pid: u32,
    /// What its memory is used for.
    pub memory: MemoryStatus,
    /// Every thread of the runtime.
    pub threads: Vec<ThreadStatus>,
    /// Every datapath, in the order of the configuration.
    pub datapaths: Vec<DatapathStatus>,
    /// Every tenant, in the order of the configuration.
    pub domains: Vec<DomainStatus>,
    /// Every open stream.
    pub streams: Vec<StreamStatus>,
    /// Every remote runtime, of the configuration or found.
    pub peers: Vec<PeerStatus>,
    /// How others are found; `None`: they are not looked for.
    pub discovery: Option<DiscoveryStatus>,
    /// Numbers of the reliable contract between hosts: `window_messages`, `window_bytes`,
    /// `flight_bytes`, `evict_after_ns`, `sync_after_ns`, `repair_after_ns`.
    pub reliable: BTreeMap<String, u64>,
    /// Each right or resource that is missing, and what follows from that; one
    /// sentence each. Empty: the runtime is as the configuration wants it.
    pub degraded: Vec<String>,
    /// The schedule of several hosts; `None`: none was ever staged, or who asks may not see
    /// all tenants.
    pub schedule: Option<ScheduleStatus>,
}

/// Which runtime it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HostStatus {
    /// Name from the configuration.
    pub name: String,
    /// `HostId`, as 16 hexadecimal digits (JSON numbers hold only 53 bits everywhere).
    pub id: String,
    /// Which life of it.
    pub incarnation: u64,
}

/// The runtime's memory, bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryStatus {
    /// Bound from the configuration.
    pub limit_bytes: u64,
    /// What the planner computed for full use.
    pub planned_bytes: u64,
    /// What is mapped now.
    pub used_bytes: u64,
    /// Regions that exist now.
    pub regions: u64,
    /// Whether memory is locked.
    pub locked: bool,
    /// Whether memory is touched before use.
    pub prefaulted: bool,
    /// What became of huge pages: `never`, `none`, `some`, `all`.
    pub huge_pages: String,
}

/// One thread of the runtime.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ThreadStatus {
    /// What it is for: `control`, `datapath real-time`, …
    pub name: String,
    /// The kernel's number for it.
    pub tid: u32,
    /// The core it is pinned to, if it is.
    pub core: Option<u16>,
    /// Scheduling policy: `other`, `fifo`.
    pub policy: String,
    /// Real-time priority, 1 to 99; 0 under `other`.
    pub priority: u8,
}

/// One datapath.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DatapathStatus {
    /// Name from the configuration.
    pub name: String,
    /// The core it is pinned to, if it is.
    pub core: Option<u16>,
    /// Idle strategy: `spin`, `yield`, `spin_then_block`, `block`.
    pub idle: String,
    /// Lanes it serves: `real_time`, `best_effort`, `all`.
    pub serves: String,
    /// Its links.
    pub links: Vec<LinkStatus>,
    /// What it counts as a whole (`TurnCounter`), and of the doorbells of all sessions.
    pub counters: Counters,
    /// What it counts for the tenants whom who asks may see (`DatapathCounter`), added up.
    pub carried: Counters,
    /// By what its slots run; `None`: the rate of a link is not configured, so there are no
    /// slots.
    pub slot_clock: Option<String>,
    /// The certificate of all streams that have slots there, in its text form; `None`: there
    /// is none, or who asks may not see all tenants.
    pub certificate: Option<String>,
    /// The slots' time less the monotonic clock of the host, nanoseconds, modulo 2^64; `None`:
    /// there are no slots.
    pub slot_offset_ns: Option<u64>,
    /// When its lanes may send, in words; `None`: always.
    pub gates: Option<String>,
    /// What its certificates assume, and how that holds; empty: it has no slots.
    pub monitors: Vec<MonitorStatus>,
    /// How many messages missed their slots, by cause (`insane_core::Cause`).
    pub misses: Counters,
    /// The last of them, the oldest first; empty where who asks may not see all tenants.
    pub last_misses: Vec<MissStatus>,
}

/// A message that missed its slot.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MissStatus {
    /// Its source.
    pub source: u32,
    /// Its sequence number; of several that were replaced together, the first one's.
    pub sequence: u64,
    /// How many messages that were.
    pub messages: u16,
    /// The start of the slot that it missed, monotonic clock of the host, nanoseconds.
    pub planned_ns: u64,
    /// When it left after all or was dropped, likewise.
    pub noticed_ns: u64,
    /// How many seconds ago that was.
    pub ago_s: f64,
    /// Why.
    pub cause: String,
    /// What became of it.
    pub fate: String,
}

/// How an assumption of certificates holds on a datapath.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MonitorStatus {
    /// Which: `e_turn`, `e_wake`, `clock`, `link`, `release`, `size`, `launch`, `e_chunk`.
    pub assumption: String,
    /// How often it did not, under the schedule in force.
    pub violations: u64,
    /// For how many seconds the datapath has been out of spec for that; `None`: it is not.
    pub out_of_spec_s: Option<f64>,
    /// How many seconds ago it was violated last.
    pub last_s: Option<f64>,
    /// What it was, in words.
    pub why: Option<String>,
    /// What was measured of it; `None`: it is no time that is measured.
    pub measured: Option<MeasuredStatus>,
}

/// What a datapath measured of a time that certificates assume.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MeasuredStatus {
    /// Which quantile is told, parts in a million.
    pub quantile_ppm: u32,
    /// That quantile of the last samples, nanoseconds; `None`: they are too few for it, or so
    /// many slots were missed for it that nobody knows.
    pub quantile_ns: Option<u64>,
    /// How many those are, with the slots that were missed.
    pub samples: u64,
    /// The longest since the runtime started, nanoseconds.
    pub max_ns: u64,
    /// What is assumed of the quantile, nanoseconds; `None`: no stream rests on it.
    pub assumed_quantile_ns: Option<u64>,
    /// What is assumed of the longest (class `assured`), nanoseconds; `None`: no stream rests
    /// on it.
    pub assumed_max_ns: Option<u64>,
}

/// The schedule of several hosts at this one.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleStatus {
    /// Digest of its certificate; empty: none is in force.
    pub id: String,
    /// How many streams it has, on all hosts.
    pub streams: u32,
    /// Its hosts, by name; none where none is in force.
    pub hosts: Vec<String>,
    /// It waits for its instant.
    pub is_armed: bool,
    /// Since when it is in force, TAI in nanoseconds; 0: none ever was.
    pub since_tai_ns: u64,
    /// It was in force before the runtime was restarted, and was taken up again.
    pub is_recalled: bool,
    /// Why nothing is sent in slots.
    pub withheld: Option<String>,
    /// Why the last one that was committed is not in force.
    pub failure: Option<String>,
    /// What became of schedules so far: staged, refused, activated, aborted, expired, failed.
    pub counts: Counters,
}

/// One link.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkStatus {
    /// Name from the configuration.
    pub name: String,
    /// `udp`, `sim`, …
    pub technology: String,
    /// Local address, as text.
    pub address: String,
    /// Whether it is open.
    pub up: bool,
    /// Why it is not, in words; it is tried again unless they say otherwise. `None`: it is.
    pub missing: Option<String>,
    /// What it counts on the wire, by name: of what the name begins with, so many. Frames that
    /// the technology carried as they were are counted by datapath and domain, not here.
    pub counters: Counters,
    /// Largest frame, bytes.
    pub frame_bytes_max: u32,
    /// Its group; `None`: it has none.
    pub group: Option<GroupStatus>,
}

/// The group of a link.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupStatus {
    /// Its address and port, as text.
    pub address: String,
    /// A message goes to it for at least so many peers.
    pub from_peers: u32,
    /// Peers that answer the probes sent to it.
    pub hears: Vec<String>,
}

/// One tenant.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DomainStatus {
    /// Name from the configuration.
    pub name: String,
    /// `shared` or `session`.
    pub isolation: String,
    /// What all datapaths count for it (`DatapathCounter`), added up.
    pub counters: Counters,
    /// Its sessions.
    pub sessions: Vec<SessionStatus>,
    /// What is used of each quota, by the name that it has in the configuration.
    pub quotas: BTreeMap<String, Usage>,
}

/// How much of a quota is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Now (for a rate: in the last full second).
    pub used: u64,
    /// At most.
    pub limit: u64,
    /// How often more was asked for and refused.
    pub refused: u64,
}

/// One attached application.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SessionStatus {
    /// Chosen by the runtime.
    pub id: u32,
    /// What the application would like to be called.
    pub name: String,
    /// Its process, as the kernel says.
    pub pid: u32,
    /// Its user, as the kernel says.
    pub uid: u32,
    /// Its open streams.
    pub streams: u32,
    /// Bytes of its regions.
    pub bytes: u64,
    /// The access rules have changed since it attached, and would not let it in any more: it
    /// keeps what it has and gets nothing new.
    pub outside_rules: bool,
    /// Threads of it that the runtime has placed, with where and how they run now. Their
    /// names are claims.
    pub threads: Vec<ThreadStatus>,
    /// What its sources, sinks and cyclic tasks count (`PortCounter`), added up, those that are
    /// gone included: the session writes these itself, a claim. And what the datapaths count of its doorbells: wake-ups of which nothing
    /// came, `doorbells_in_vain`, and how often one was not waited for because of them,
    /// `doorbells_put_out`.
    pub counters: Counters,
}

/// One open stream.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamStatus {
    /// Its tenant.
    pub domain: String,
    /// Its name.
    pub name: String,
    /// `StreamKey`, as 16 hexadecimal digits.
    pub key: String,
    /// Lane of the packet scheduler, 0 (first) to 7.
    pub lane: u8,
    /// Write ends on this host.
    pub sources: u32,
    /// Read ends on this host; those that only watch are not counted.
    pub sinks: u32,
    /// Read ends on this host that only watch.
    pub taps: u32,
    /// Names of the peers that have a sink of it.
    pub peers: Vec<String>,
    /// By which link its messages go to each of them, by names.
    pub links: BTreeMap<String, String>,
    /// What it was given; `None`: an older runtime does not say.
    pub qos: Option<QosStatus>,
    /// What its first opener asked for; `None`: an older runtime does not say.
    pub asked: Option<QosStatus>,
    /// What the configuration fixes or bounds of it.
    pub declared: Option<DeclaredStatus>,
    /// Whether local messages, too, go through a datapath and are copied there.
    pub isolated: bool,
    /// The datapath that serves its lane; `None`: none does.
    pub datapath: Option<String>,
    /// Its channels that have a source or a sink on this host.
    pub channels: Vec<ChannelStatus>,
    /// Of one with slots: by which link it has them; `None`: it has none.
    pub standing: Option<StandingStatus>,
}

/// By which link a stream with slots goes, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StandingStatus {
    /// `in slots`, `stays` with a link that has failed, `degraded`: without slots.
    pub state: String,
    /// The link by which it goes to all its peers; `None`: each by the one that is preferred.
    pub link: Option<String>,
    /// Links on which it holds certificates.
    pub certificates: Vec<String>,
    /// What becomes of it when its link fails and it holds no certificate for another that
    /// works: `stay`, `degrade`.
    pub on_link_loss: String,
    /// Moves from one link to another.
    pub moves: u64,
    /// How often its link failed and it stayed.
    pub stays: u64,
    /// How often it went without slots.
    pub degradations: u64,
}

/// A declaration of the configuration that is for a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DeclaredStatus {
    /// Its name, or how names begin and then `*`.
    pub name: String,
    /// Each field that it fixes or bounds, and how, in the words of the file.
    pub fixes: BTreeMap<String, String>,
    /// What of it holds when the stream is opened anew, in a sentence; empty: it holds.
    pub later: String,
}

/// A quality of service, in the words of `insane_core::qos`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct QosStatus {
    /// `unreliable`, `reliable`.
    pub reliability: String,
    /// `standard`, `fast`.
    pub datapath: String,
    /// `poll`, `low`.
    pub consumption: String,
    /// 0 (least) to 7.
    pub priority: u8,
    /// Whether and when its messages have a time; `None`: best effort.
    pub time: Option<TimeStatus>,
}

/// The time-sensitive part of a quality of service.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeStatus {
    /// Length of the cycle, nanoseconds.
    pub period_ns: u64,
    /// Start of the slot in it, nanoseconds.
    pub offset_ns: u64,
    /// Latest departure, nanoseconds after the start of the cycle.
    pub deadline_ns: u64,
    /// Largest payload, bytes.
    pub size_bytes: u32,
    /// `drop`, `send_now`, `next_slot`, `newest_wins`.
    pub late: String,
}

/// One channel of a stream, as far as this host takes part.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelStatus {
    /// Its number.
    pub channel: u32,
    /// Write ends on this host.
    pub sources: Vec<SourceStatus>,
    /// Read ends on this host, those that only watch among them.
    pub sinks: Vec<SinkStatus>,
    /// Names of the peers that have a sink.
    pub peers: Vec<String>,
    /// The group by which messages go to several of them at once; `None`: each gets its own.
    pub group: Option<ChannelGroupStatus>,
    /// Whether the peers were told that there is a sink here.
    pub announced: bool,
    /// Peers with which there are no messages, since schemas differ.
    pub mismatches: Vec<MismatchStatus>,
}

/// How messages of a channel go to several peers at once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelGroupStatus {
    /// Name of the link whose group it is.
    pub link: String,
    /// Names of the peers that it serves.
    pub peers: Vec<String>,
}

/// Sources and sinks of two hosts whose schemas differ.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MismatchStatus {
    /// Name of the peer.
    pub peer: String,
    /// Name and hash of the sources' schema.
    pub sources: String,
    /// Name and hash of the schema that the sinks expect.
    pub sinks: String,
    /// Whether it is the sinks that are on this host, else the sources.
    pub sinks_are_here: bool,
}

/// One write end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SourceStatus {
    /// Its number.
    pub id: u32,
    /// Whose it is.
    pub session: u32,
    /// Buffers of its heap.
    pub buffers: u32,
    /// Bytes of its heap.
    pub heap_bytes: u64,
    /// Sinks of this host that it is joined to by direct rings now, those that only watch
    /// not counted.
    pub direct: u32,
    /// Datapaths that it is joined to now, by name.
    pub datapaths: Vec<String>,
    /// Its slots; `None`: it has none.
    pub slot: Option<SlotStatus>,
    /// What it counts (`PortCounter`): the session writes this itself, a claim. A counter that is
    /// not there is 0. `None`: where it counts is not known.
    pub counters: Option<Counters>,
}

/// The slots of a source.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotStatus {
    /// Start in the cycle, nanoseconds.
    pub start_ns: u64,
    /// Length, nanoseconds.
    pub length_ns: u64,
    /// Period, nanoseconds.
    pub period_ns: u64,
    /// Bytes of the link that fit: headers included, for all peers.
    pub bytes: u32,
    /// A schedule of several hosts reserves them; otherwise they were found here.
    pub reserved: bool,
}

/// One read end.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SinkStatus {
    /// Its number.
    pub id: u32,
    /// Whose it is.
    pub session: u32,
    /// Messages that each of its rings holds.
    pub depth: u32,
    /// How it is woken: `never` (it polls), `page`, `fd`.
    pub wake: String,
    /// Whether it only watches.
    pub observes: bool,
    /// Sources of this host that it is joined to by direct rings now.
    pub direct: u32,
    /// Datapaths that it is joined to now, by name.
    pub datapaths: Vec<String>,
    /// Bytes of its rings.
    pub ring_bytes: u64,
    /// What it counts, as of a source.
    pub counters: Option<Counters>,
}

/// One remote runtime.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerStatus {
    /// Name from the configuration.
    pub name: String,
    /// Whether it answers.
    pub up: bool,
    /// Why it does not, where that is known: it sends frames of another version.
    pub why_down: Option<String>,
    /// Which life of it answered last; 0: none yet.
    pub incarnation: u64,
    /// Estimate of the round trip by the link that the overlay speaks by, nanoseconds, the
    /// waking of both control planes included; `None`: no link is up.
    pub rtt_ns: Option<u64>,
    /// How long ago it was heard, milliseconds; `None`: never.
    pub heard_ms_ago: Option<u64>,
    /// Links by which it is reached.
    pub links: Vec<String>,
    /// Where it is known from: `configuration` or `discovery`.
    pub source: String,
    /// Each link whose heartbeats it gets, in the order of preference: one of each datapath
    /// that reaches it.
    pub ways: Vec<WayStatus>,
}

/// A link to one peer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WayStatus {
    /// Name of the link.
    pub link: String,
    /// Name of its datapath.
    pub datapath: String,
    /// Whether heartbeats pass by it in both directions.
    pub up: bool,
    /// For how long it has been up, milliseconds; `None`: it is not.
    pub up_ms: Option<u64>,
    /// How long ago a heartbeat came by it, milliseconds; `None`: never.
    pub heard_ms_ago: Option<u64>,
    /// Estimate of the round trip, nanoseconds; `None`: it is not up.
    pub rtt_ns: Option<u64>,
    /// How often it went down.
    pub downs: u64,
    /// Whether the overlay speaks by it. Messages go by the link of their lane.
    pub speaks: bool,
}

/// Discovery of other hosts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DiscoveryStatus {
    /// What hears of them: `gossip`.
    pub backend: String,
    /// Its own address.
    pub bind: String,
    /// The group of hosts that find each other.
    pub cluster: String,
    /// Networks whose hosts may become peers.
    pub allow: Vec<String>,
    /// Peers by discovery, at most.
    pub peers_max: u64,
    /// Hosts that the back end has heard of, living or not, this one apart.
    pub hosts: u64,
    /// Its thread has ended: peers stay as they are.
    pub ended: bool,
    /// Hosts that are, or are to be, peers.
    pub found: Vec<FoundStatus>,
    /// Hosts that were refused lately.
    pub refused: Vec<RefusedStatus>,
    /// Who is asked first.
    pub seeds: Vec<SeedStatus>,
    /// What is counted.
    pub counters: Counters,
}

/// A host that was found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FoundStatus {
    /// Its name.
    pub name: String,
    /// Its identifier, 16 hexadecimal digits.
    pub host: String,
    /// Which life of it, as it says.
    pub incarnation: u64,
    /// How long ago it showed a sign of life, milliseconds.
    pub heard_ms_ago: u64,
}

/// A host that was refused.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedStatus {
    /// Its name, as it says; empty: it is not known.
    pub name: String,
    /// Its identifier, as it says, 16 hexadecimal digits; zeros: it is not known.
    pub host: String,
    /// Where it was heard from.
    pub from: String,
    /// Why, in a word: `outside`, `twin_host`, ...
    pub reason: String,
    /// Why, in a sentence.
    pub why: String,
    /// How often.
    pub times: u64,
    /// How long ago the last time was, milliseconds.
    pub ms_ago: u64,
}

/// A seed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SeedStatus {
    /// Its address.
    pub address: String,
    /// `own`, `silent` or `heard`.
    pub state: String,
}

/// The identifier as the report writes it: 16 hexadecimal digits.
#[must_use]
pub fn hex(id: u64) -> String {
    format!("{id:016x}")
}
