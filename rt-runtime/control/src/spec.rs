//! What the hub is told at start: tenants with their access rules and quotas,
//! datapaths, and the sizes of regions.

use crate::quota::Quota;
use insane_config::StreamPlan;
use insane_core::heap::Geometry;
use insane_core::limits::LANES;
use insane_core::{DatapathIndex, DomainIndex, Lane, PeerIndex};
use insane_engine::SlotConfig;
use insane_scheduler::Gates;
use insane_wire::control::{ClassSpec, DatapathCore};
use std::collections::BTreeSet;

/// Everything the hub is configured with.
#[derive(Clone, Debug)]
pub struct HubSpec {
    /// The tenants, by [`DomainIndex`].
    pub domains: Vec<DomainSpec>,
    /// The datapaths, by [`DatapathIndex`].
    pub datapaths: Vec<DatapathSpec>,
    /// Users who may see the state of all domains: root, and who runs the runtime.
    pub operators: BTreeSet<u32>,
    /// Lines of a session's counters page: sources and sinks it may have at a time.
    pub counter_lines: u32,
    /// How many bytes a region of each kind has.
    pub sizes: RegionSizes,
    /// The cores of datapaths that are pinned.
    pub cores: Vec<DatapathCore>,
}

/// Of the cores that a rule gives, those on which a thread of this priority disturbs no
/// datapath.
///
/// # Errors
/// None is left: why, and what helps.
pub fn undisturbed(cores: &[u16], priority: Option<u8>, datapaths: &[DatapathCore]) -> Result<Vec<u16>, String> {
    let why = |core: u16| datapaths.iter().filter(|one| one.core == core).find_map(|one| one.refuses(priority));
    let left: Vec<u16> = cores.iter().copied().filter(|core| why(*core).is_none()).collect();
    match cores.iter().find_map(|core| why(*core)).filter(|_| left.is_empty()) {
        Some(why) => Err(why),
        None => Ok(left),
    }
}

/// One tenant.
#[derive(Clone, Debug)]
pub struct DomainSpec {
    /// Its name.
    pub name: String,
    /// Who may be in it: whoever one of these rules accepts. Without rules, nobody
    /// who comes through the socket.
    pub access: Vec<AccessRule>,
    /// What it may use.
    pub quota: Quota,
    /// Whether every stream is isolated, whatever its opener asks for.
    pub isolated: bool,
    /// What is fixed or bounded of its streams, whatever their openers ask for.
    pub streams: Vec<StreamPlan>,
    /// What its threads may be given.
    pub realtime: RealtimeRule,
}

/// What the runtime may give to threads of a domain's sessions; the default is nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RealtimeRule {
    /// Most urgent `SCHED_FIFO` priority; `None`: the ordinary policy only.
    pub priority_max: Option<u8>,
    /// The cores that they are let run on.
    pub cores: BTreeSet<u16>,
    /// Threads of all its sessions together, at a time.
    pub threads_max: usize,
    /// What a process may be let lock, bytes.
    pub locked_bytes_max: u64,
}

impl RealtimeRule {
    /// The cores that a thread gets which asks for that priority and core.
    ///
    /// # Errors
    /// The rule does not allow it; the reason says what would be.
    pub fn cores_for(&self, priority: Option<u8>, core: Option<u16>) -> Result<Vec<u16>, String> {
        let remedy = "; it is changed by `realtime` of the domain in the configuration of the runtime";
        match (priority, self.priority_max) {
            (Some(0) | Some(100..), _) => return Err("a priority is 1 to 99".to_owned()),
            (Some(asked), None) => {
                return Err(format!("priority {asked} is asked for, and the domain's rule gives none{remedy}"));
            }
            (Some(asked), Some(most)) if asked > most => {
                return Err(format!(
                    "priority {asked} is asked for, and the domain's rule gives at most {most}{remedy}"
                ));
            }
            _ => {}
        }
        match core {
            _ if self.cores.is_empty() => Err(format!("the domain's rule gives no core{remedy}")),
            None => Ok(self.cores.iter().copied().collect()),
            Some(core) if self.cores.contains(&core) => Ok(vec![core]),
            Some(core) => {
                let cores: Vec<u16> = self.cores.iter().copied().collect();
                Err(format!("core {core} is asked for, and the domain's rule gives {cores:?}{remedy}"))
            }
        }
    }
}

impl DomainSpec {
    /// Whether one of its rules lets this session in.
    #[must_use]
    pub fn admits(&self, origin: &Origin) -> bool {
        origin.in_process() || self.access.iter().any(|rule| rule.accepts(origin.credentials()))
    }
}

/// Accepts a process whose user is one of `uids` and one of whose groups is one of
/// `gids`; an empty set accepts any.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessRule {
    /// Accepted users.
    pub uids: BTreeSet<u32>,
    /// Accepted groups.
    pub gids: BTreeSet<u32>,
}

impl AccessRule {
    /// Whether the rule accepts this process.
    #[must_use]
    pub fn accepts(&self, who: &Credentials) -> bool {
        let user = self.uids.is_empty() || self.uids.contains(&who.uid);
        let group = self.gids.is_empty() || std::iter::once(&who.gid).chain(&who.groups).any(|g| self.gids.contains(g));
        user && group
    }
}

/// Who is at the other end of a socket, as the kernel says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Credentials {
    /// Process.
    pub pid: u32,
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Where a session comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Another process, through the listening socket: the access rules apply.
    Socket(Credentials),
    /// The process that hosts the runtime: it may do what it likes anyway.
    InProcess(Credentials),
}

impl Origin {
    /// The credentials, wherever the session comes from.
    #[must_use]
    pub const fn credentials(&self) -> &Credentials {
        match self {
            Origin::Socket(who) | Origin::InProcess(who) => who,
        }
    }

    /// Whether it is the hosting process itself.
    #[must_use]
    pub const fn in_process(&self) -> bool {
        matches!(self, Origin::InProcess(_))
    }
}

/// One datapath, as far as the hub must know it.
#[derive(Clone, Debug)]
pub struct DatapathSpec {
    /// Whether its thread may block, so that sources must look whether to wake it.
    pub may_sleep: bool,
    /// Which lanes it carries: `lanes[i]` is of lane i.
    pub lanes: [bool; LANES],
    /// Whether it has links: peers may come later.
    pub has_links: bool,
    /// The peers that its links reach now.
    pub peers: BTreeSet<PeerIndex>,
    /// Messages that a ring from a source holds: a power of two.
    pub tx_depth: u32,
    /// Its receive heap for each domain, by [`DomainIndex`].
    pub heaps: Vec<HeapSpec>,
    /// What is known of its links in time; `None`: no stream has slots there.
    pub slots: Option<SlotSpec>,
    /// Whether sources of time-sensitive streams may go without slots where there are none.
    pub allows_unscheduled: bool,
}

/// What is known of the links of a datapath in time: of several, the slowest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotSpec {
    /// Of which host, for certificates.
    pub host: String,
    /// Of which link, for certificates: of several the slowest.
    pub link: String,
    /// All links of the datapath, in its order: it sends by one at a time, whichever that is.
    pub links: Vec<SlotLink>,
    /// What the engine is told.
    pub config: SlotConfig,
    /// Largest payload of a frame, bytes.
    pub payload_bytes_max: u32,
    /// When lanes may send; `None`: always.
    pub gates: Option<Box<Gates>>,
    /// Which quantile of e_turn and e_wake streams of class `statistical` rest on, parts in a
    /// million.
    pub quantile_ppm: u32,
}

/// One link of a datapath with slots, by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotLink {
    /// Its name.
    pub name: String,
    /// Time of a byte, picoseconds, rounded up.
    pub ps_per_byte: u32,
    /// Bytes that others may have put before ours.
    pub foreign_bytes: u32,
    /// Largest frame of the lanes, bytes of the link.
    pub frame_bytes_max: u32,
}

impl DatapathSpec {
    /// Whether messages may come from peers here, now or later. It does not change while the
    /// runtime lives, so that what a source or sink is charged does not either.
    #[must_use]
    pub fn is_networked(&self) -> bool {
        self.has_links || !self.peers.is_empty()
    }
}

/// The classes of a heap that the runtime itself writes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeapSpec {
    /// The classes, by rising size.
    pub classes: Vec<ClassSpec>,
    /// Bytes in all.
    pub bytes: u64,
    /// Buffers in all.
    pub buffers: u32,
}

impl HeapSpec {
    /// `None` where [`Geometry::new`] is.
    #[must_use]
    pub fn new(classes: &[ClassSpec]) -> Option<Self> {
        let geometry = Geometry::new(classes)?;
        Some(HeapSpec { classes: classes.to_vec(), bytes: geometry.bytes(), buffers: geometry.buffers() })
    }
}

/// Bytes of the regions; in production the functions of `insane_shm`.
#[derive(Clone, Copy, Debug)]
pub struct RegionSizes {
    /// Cells of a ring of this depth.
    pub cells: fn(u32) -> u64,
    /// Returns with this many places for completions.
    pub returns: fn(u32) -> u64,
    /// Counters page of this many lines.
    pub counters: fn(u32) -> u64,
    /// A wake page.
    pub wake_page: u64,
}

impl HubSpec {
    /// Whether any datapath reaches a peer, or may at some time.
    #[must_use]
    pub fn is_networked(&self) -> bool {
        self.datapaths.iter().any(DatapathSpec::is_networked)
    }

    /// The domain `origin` gets: the one it asks for, or else the first that accepts it.
    #[must_use]
    pub fn choose_domain(&self, origin: &Origin, asked: Option<&str>) -> Option<DomainIndex> {
        let fits = |domain: &DomainSpec| asked.is_none_or(|name| name == domain.name) && domain.admits(origin);
        let at = self.domains.iter().position(fits);
        at.map(|at| DomainIndex(at as u16))
    }

    /// Whether this is one of the users who may see everything.
    #[must_use]
    pub fn is_operator(&self, origin: &Origin) -> bool {
        origin.in_process() || self.operators.contains(&origin.credentials().uid)
    }

    /// The datapath that carries the streams of this lane.
    #[must_use]
    pub fn datapath_of(&self, lane: Lane) -> Option<DatapathIndex> {
        let at = self.datapaths.iter().position(|datapath| datapath.lanes[usize::from(lane.get())]);
        at.map(|at| DatapathIndex(at as u8))
    }

    /// The datapath by which streams of this lane reach `peer`, if they do.
    #[must_use]
    pub fn datapath_to(&self, lane: Lane, peer: PeerIndex) -> Option<DatapathIndex> {
        self.datapath_of(lane).filter(|at| self.datapath(*at).peers.contains(&peer))
    }

    /// The datapaths that may have messages for a sink: each that may have peers (the other
    /// host decides by which it sends), and the one that relays an isolated stream.
    #[must_use]
    pub fn rx_datapaths(&self, lane: Lane, isolated: bool) -> Vec<DatapathIndex> {
        let relay = if isolated { self.datapath_of(lane) } else { None };
        let indices = (0..self.datapaths.len()).map(|at| DatapathIndex(at as u8));
        indices.filter(|at| Some(*at) == relay || self.datapath(*at).is_networked()).collect()
    }

    /// The datapath that a source of the stream may be connected to at some time.
    #[must_use]
    pub fn tx_datapath(&self, lane: Lane, isolated: bool) -> Option<DatapathIndex> {
        self.datapath_of(lane).filter(|at| isolated || self.datapath(*at).is_networked())
    }

    pub(crate) fn datapath(&self, at: DatapathIndex) -> &DatapathSpec {
        &self.datapaths[at.index()]
    }

    pub(crate) fn domain(&self, at: DomainIndex) -> &DomainSpec {
        &self.domains[at.index()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(uids: &[u32], gids: &[u32]) -> AccessRule {
        AccessRule { uids: uids.iter().copied().collect(), gids: gids.iter().copied().collect() }
    }

    fn datapath(lanes: std::ops::Range<usize>, peers: &[u16]) -> DatapathSpec {
        DatapathSpec {
            may_sleep: false,
            lanes: std::array::from_fn(|lane| lanes.contains(&lane)),
            has_links: !peers.is_empty(),
            peers: peers.iter().map(|p| PeerIndex(*p)).collect(),
            tx_depth: 8,
            heaps: Vec::new(),
            slots: None,
            allows_unscheduled: true,
        }
    }

    fn spec(domains: &[(&str, Vec<AccessRule>)], datapaths: Vec<DatapathSpec>) -> HubSpec {
        let domain = |(name, access): &(&str, Vec<AccessRule>)| DomainSpec {
            name: (*name).into(),
            access: access.clone(),
            quota: Quota::UNLIMITED,
            isolated: false,
            streams: Vec::new(),
            realtime: RealtimeRule::default(),
        };
        let sizes = RegionSizes { cells: u64::from, returns: u64::from, counters: u64::from, wake_page: 1 };
        HubSpec {
            domains: domains.iter().map(domain).collect(),
            datapaths,
            operators: BTreeSet::new(),
            counter_lines: 4,
            sizes,
            cores: Vec::new(),
        }
    }

    #[test]
    fn user_and_group_must_both_be_accepted() {
        let who = Credentials { pid: 1, uid: 7, gid: 70, groups: vec![71] };
        assert!(rule(&[], &[]).accepts(&who));
        assert!(rule(&[7], &[71]).accepts(&who));
        assert!(!rule(&[7], &[72]).accepts(&who));
        assert!(!rule(&[8], &[70]).accepts(&who));
    }

    #[test]
    fn the_first_accepting_domain_is_chosen_and_none_without_rules() {
        let spec = spec(&[("closed", vec![]), ("seven", vec![rule(&[7], &[])]), ("all", vec![rule(&[], &[])])], vec![]);
        let from = |uid| Origin::Socket(Credentials { uid, ..Credentials::default() });
        assert_eq!(spec.choose_domain(&from(7), None), Some(DomainIndex(1)));
        assert_eq!(spec.choose_domain(&from(8), None), Some(DomainIndex(2)));
        assert_eq!(spec.choose_domain(&from(8), Some("seven")), None);
        assert_eq!(spec.choose_domain(&from(8), Some("closed")), None);
        let own = Origin::InProcess(Credentials::default());
        assert_eq!(spec.choose_domain(&own, Some("closed")), Some(DomainIndex(0)));
    }

    #[test]
    fn a_thread_gets_what_the_rule_gives_and_nothing_by_default() {
        let nothing = RealtimeRule::default();
        assert!(nothing.cores_for(Some(1), None).unwrap_err().contains("gives none"));
        assert!(nothing.cores_for(None, Some(0)).unwrap_err().contains("no core"));
        let rule = RealtimeRule { priority_max: Some(50), cores: BTreeSet::from([1, 3]), ..RealtimeRule::default() };
        assert_eq!(rule.cores_for(Some(50), Some(3)), Ok(vec![3]));
        assert_eq!(rule.cores_for(Some(1), None), Ok(vec![1, 3]));
        assert!(rule.cores_for(Some(51), Some(3)).unwrap_err().contains("at most 50"));
        assert!(rule.cores_for(Some(50), Some(2)).unwrap_err().contains("gives [1, 3]"));
        for none in [0, 100, 255] {
            assert!(rule.cores_for(Some(none), Some(3)).is_err());
        }
    }

    #[test]
    fn the_lane_decides_the_datapath() {
        let spec = spec(&[], vec![datapath(0..3, &[0, 1]), datapath(3..8, &[1, 2]), datapath(0..0, &[])]);
        let lane = |number| Lane::new(number).unwrap();
        assert_eq!(spec.datapath_of(lane(2)), Some(DatapathIndex(0)));
        assert_eq!(spec.datapath_to(lane(2), PeerIndex(1)), Some(DatapathIndex(0)));
        assert_eq!(spec.datapath_to(lane(2), PeerIndex(2)), None, "reached by another lane's datapath only");
        assert_eq!(spec.datapath_to(lane(7), PeerIndex(2)), Some(DatapathIndex(1)));
        assert_eq!(spec.rx_datapaths(lane(7), false), [DatapathIndex(0), DatapathIndex(1)]);
        assert_eq!(spec.tx_datapath(lane(0), false), Some(DatapathIndex(0)));
    }
}
