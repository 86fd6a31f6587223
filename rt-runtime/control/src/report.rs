//! The state of the runtime, as [`StatusReport`].

use crate::counted::{Counted, datapath_counts};
use crate::datapath::Datapath;
use crate::hub::Hub;
use crate::hub::stands::StandView;
use crate::hub::view::{ChannelView, SessionView, SinkView, SourceView, StreamView};
use crate::memory::{CounterPages, HugeReport};
use crate::objects::Objects;
use crate::overlay::Overlay;
use crate::places::Places;
use crate::roster::Roster;
use insane_config::diff::declared;
use insane_config::{HugePages, Idle, Isolation, Plan, Serves};
use insane_core::counters::TurnCounter;
use insane_core::{
    Consumption, DatapathIndex, Determinism, DomainIndex, HostId, Incarnation, LatePolicy, MonoTime, PeerIndex, Qos,
    Reliability, Schema, StreamKey,
};
use insane_sys::clock::mono_now;
use insane_sys::thread::{self, SchedPolicy};
use insane_wire::control::SinkWake;
use insane_wire::status::{
    ChannelGroupStatus, ChannelStatus, Counters, DatapathStatus, DeclaredStatus, DomainStatus, HostStatus,
    MemoryStatus, MismatchStatus, PeerStatus, QosStatus, SessionStatus, SinkStatus, SlotStatus, SourceStatus,
    StandingStatus, StatusReport, StreamStatus, ThreadStatus, TimeStatus, Usage, hex,
};
use std::collections::{BTreeMap, BTreeSet};

/// What does not change while the runtime lives, except with its configuration.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) plan: Plan,
    pub(crate) incarnation: Incarnation,
    pub(crate) started: MonoTime,
    pub(crate) pages: CounterPages,
    pub(crate) huge: HugeReport,
    pub(crate) locked: bool,
    pub(crate) planned_bytes: u64,
    pub(crate) degraded: Vec<String>,
    /// Name and number of every thread.
    pub(crate) threads: Vec<(String, i32)>,
}

/// How much of it somebody may see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scope {
    /// Everything.
    All,
    /// One domain, and the runtime as such.
    Domain(DomainIndex),
}

impl Scope {
    pub(crate) fn shows(self, domain: DomainIndex) -> bool {
        self == Scope::All || self == Scope::Domain(domain)
    }
}

/// The tables that a report is made of.
pub(crate) struct Tables<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) objects: &'a Objects,
    pub(crate) datapaths: &'a [Datapath],
    pub(crate) roster: &'a Roster,
    pub(crate) overlay: &'a Overlay,
    pub(crate) places: &'a Places,
    pub(crate) peers: Vec<PeerStatus>,
}

impl Facts {
    pub(crate) fn report(&self, now: MonoTime, scope: Scope, tables: Tables<'_>) -> StatusReport {
        let Tables { hub, objects, datapaths, roster, overlay, places, peers } = tables;
        // A certificate names the streams of all tenants.
        let sees_all = (0..self.plan.domains.len()).all(|at| scope.shows(DomainIndex(at as u16)));
        let certificate = |at: usize| hub.certificate(DatapathIndex(at as u8)).filter(|_| sees_all);
        let counted = Counted::new(hub.sessions().filter(|session| scope.shows(session.domain)), objects);
        let rows: Vec<_> = datapaths
            .iter()
            .enumerate()
            .map(|(at, path)| {
                let mut row = datapath_row(path, certificate(at), sees_all);
                row.carried = self.carried(scope, at);
                let links = row.links.iter_mut().enumerate();
                links.for_each(|(link, status)| status.group = overlay.group_status(at, link));
                row
            })
            .collect();
        StatusReport {
            format: insane_wire::status::FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: HostStatus {
                name: self.plan.host.name.clone(),
                id: hex(self.plan.host.id.0),
                incarnation: self.incarnation.0,
            },
            uptime_s: now.since(self.started).0 as f64 / 1e9,
            pid: std::process::id(),
            memory: self.memory(objects, datapaths),
            threads: self.thread_rows(),
            degraded: self.degraded_rows(datapaths, &rows),
            datapaths: rows,
            domains: self.domains(scope, hub, (&counted, datapaths), places),
            streams: self.streams(scope, hub, (roster, overlay), &counted),
            peers,
            schedule: None,
            discovery: None,
            reliable: reliable_numbers(),
        }
    }

    /// Every thread, with where and how it runs now.
    pub(crate) fn thread_rows(&self) -> Vec<ThreadStatus> {
        self.threads.iter().map(|(name, tid)| thread_row(name, *tid)).collect()
    }

    /// What is missing, and what follows; of links, what `rows` say of them.
    fn degraded_rows(&self, datapaths: &[Datapath], rows: &[DatapathStatus]) -> Vec<String> {
        let ended = datapaths.iter().filter(|datapath| !datapath.is_alive());
        let ended = ended.map(|datapath| format!("datapath {} has ended; restart the runtime", datapath.plan.name));
        let missing = rows.iter().flat_map(|row| {
            let of = &row.name;
            row.links.iter().filter_map(move |link| {
                let why = link.missing.as_ref()?;
                Some(format!("link \"{}\" of datapath {of} is missing: {why}", link.name))
            })
        });
        self.degraded.iter().cloned().chain(ended).chain(missing).collect()
    }

    fn memory(&self, objects: &Objects, datapaths: &[Datapath]) -> MemoryStatus {
        let (regions, bytes) = objects.totals();
        let own = datapaths.iter().map(|datapath| datapath.totals);
        let (own_bytes, own_regions) = own.fold((0, 0), |sum, totals| (sum.0 + totals.0, sum.1 + totals.1));
        let huge_pages = match (self.plan.memory.huge_pages, self.huge) {
            (HugePages::Never, _) => "never",
            (_, HugeReport { got: 0, .. }) => "none",
            (_, HugeReport { wanted, got }) if got < wanted => "some",
            _ => "all",
        };
        MemoryStatus {
            limit_bytes: self.plan.memory.limit_bytes,
            planned_bytes: self.planned_bytes,
            used_bytes: bytes + own_bytes,
            regions: regions as u64 + own_regions,
            locked: self.locked,
            prefaulted: self.plan.memory.prefault,
            huge_pages: huge_pages.to_owned(),
        }
    }

    fn domains(&self, scope: Scope, hub: &Hub, of: (&Counted, &[Datapath]), places: &Places) -> Vec<DomainStatus> {
        let mut rows = Vec::new();
        for (at, plan) in self.plan.domains.iter().enumerate() {
            let domain = DomainIndex(at as u16);
            if !scope.shows(domain) {
                continue;
            }
            let sessions = hub.sessions().filter(|session| session.domain == domain);
            rows.push(DomainStatus {
                name: plan.name.clone(),
                isolation: match plan.isolation {
                    Isolation::Shared => "shared",
                    Isolation::Session => "session",
                }
                .to_owned(),
                counters: self.domain_counters(at),
                sessions: sessions.map(|session| session_row(&session, of, places)).collect(),
                quotas: quotas(hub, at),
            });
        }
        rows
    }

    /// What all datapaths count for a domain.
    fn domain_counters(&self, domain: usize) -> Counters {
        datapath_counts((0..self.plan.datapaths.len()).filter_map(|datapath| self.pages.domain(domain, datapath).ok()))
    }

    /// What a datapath counts for the domains that are shown.
    fn carried(&self, scope: Scope, datapath: usize) -> Counters {
        let domains = (0..self.plan.domains.len()).filter(|at| scope.shows(DomainIndex(*at as u16)));
        datapath_counts(domains.filter_map(|domain| self.pages.domain(domain, datapath).ok()))
    }

    fn streams(
        &self,
        scope: Scope,
        hub: &Hub,
        (roster, overlay): (&Roster, &Overlay),
        counted: &Counted,
    ) -> Vec<StreamStatus> {
        let shown = hub.streams().filter(|stream| scope.shows(stream.domain));
        shown
            .map(|stream| {
                let sinks = || stream.channels.iter().flat_map(|channel| &channel.sinks);
                StreamStatus {
                    domain: self.plan.domains[stream.domain.index()].name.clone(),
                    name: stream.name.to_owned(),
                    key: hex(stream.key.0),
                    lane: stream.lane.get(),
                    sources: stream.channels.iter().map(|channel| channel.sources.len() as u32).sum(),
                    sinks: sinks().filter(|sink| !sink.observes).count() as u32,
                    taps: sinks().filter(|sink| sink.observes).count() as u32,
                    peers: peer_names(&stream.peers, roster),
                    links: self.links_of(hub, &stream, roster),
                    qos: Some(qos_row(&stream.qos)),
                    asked: Some(qos_row(&stream.asked)),
                    declared: stream.declared.map(|plan| DeclaredStatus {
                        name: plan.name.clone(),
                        fixes: declared(plan).into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                        later: stream.later.clone(),
                    }),
                    isolated: stream.isolated,
                    standing: stream.datapath.and_then(|at| self.standing_row(hub.stand_of(stream.key, at)?, at)),
                    datapath: stream.datapath.map(|at| self.plan.datapaths[at.index()].name.clone()),
                    channels: stream
                        .channels
                        .iter()
                        .map(|channel| {
                            let group = self.channel_group(&stream, channel, roster, overlay);
                            self.channel_row(channel, group, roster, counted)
                        })
                        .collect(),
                }
            })
            .collect()
    }

    fn standing_row(&self, view: StandView, at: DatapathIndex) -> Option<StandingStatus> {
        let links = &self.plan.datapaths.get(at.index())?.links;
        let name = |link: usize| links.get(link).map(|link| link.name.clone());
        let StandView { stand, tally, held, on_link_loss } = view;
        Some(StandingStatus {
            state: stand.state.name().to_owned(),
            link: stand.link.and_then(name),
            certificates: held.into_iter().filter_map(name).collect(),
            on_link_loss: on_link_loss.name().to_owned(),
            moves: tally.moves,
            stays: tally.stays,
            degradations: tally.degradations,
        })
    }

    /// The group by which a channel's messages go: none for those of reliable streams, and of
    /// sources with slots.
    fn channel_group(
        &self,
        stream: &StreamView<'_>,
        channel: &ChannelView,
        roster: &Roster,
        overlay: &Overlay,
    ) -> Option<ChannelGroupStatus> {
        let has_slots = channel.sources.iter().any(|source| source.slot.is_some());
        let datapath = stream.datapath?.index();
        if has_slots || stream.qos.reliability == Reliability::Reliable {
            return None;
        }
        let (link, serves) = overlay.group_for(datapath, &channel.peers)?;
        Some(ChannelGroupStatus {
            link: self.plan.datapaths[datapath].links[link].name.clone(),
            peers: peer_names(&serves.into_iter().collect(), roster),
        })
    }

    /// By which link a stream goes to each of its peers.
    fn links_of(&self, hub: &Hub, stream: &StreamView<'_>, roster: &Roster) -> BTreeMap<String, String> {
        let Some(datapath) = stream.datapath else { return BTreeMap::new() };
        let link = |peer: &PeerIndex| {
            let entry = roster.get(*peer)?;
            let usual = || entry.reach(datapath.index());
            let at = hub.link_of(stream.key, *peer, datapath).or_else(usual)?;
            Some((entry.name.clone(), self.plan.datapaths[datapath.index()].links.get(at)?.name.clone()))
        };
        stream.peers.iter().filter_map(link).collect()
    }

    fn channel_row(
        &self,
        channel: &ChannelView,
        group: Option<ChannelGroupStatus>,
        roster: &Roster,
        counted: &Counted,
    ) -> ChannelStatus {
        let names = |datapaths: &[DatapathIndex]| {
            datapaths.iter().map(|at| self.plan.datapaths[at.index()].name.clone()).collect()
        };
        let source = |source: &SourceView| SourceStatus {
            id: source.id.0,
            session: source.session.0,
            buffers: source.buffers,
            heap_bytes: source.heap_bytes,
            direct: source.direct as u32,
            datapaths: names(&source.datapaths),
            slot: source.slot.map(|slot| SlotStatus {
                start_ns: slot.slots.offset_ns(),
                length_ns: slot.slots.length_ns(),
                period_ns: slot.slots.period_ns(),
                bytes: slot.bytes,
                reserved: source.is_reserved,
            }),
            counters: counted.of_port(source.session, source.line),
        };
        let sink = |sink: &SinkView| SinkStatus {
            id: sink.id.0,
            session: sink.session.0,
            depth: sink.depth,
            wake: match sink.wake {
                SinkWake::Never => "never",
                SinkWake::Page => "page",
                SinkWake::Fd => "fd",
            }
            .to_owned(),
            observes: sink.observes,
            direct: sink.direct as u32,
            datapaths: names(&sink.datapaths),
            ring_bytes: sink.ring_bytes,
            counters: counted.of_port(sink.session, sink.line),
        };
        let mismatch = |sinks_are_here: bool| {
            move |(peer, sources, sinks): &(PeerIndex, Schema, Schema)| {
                let peer = roster.get(*peer)?.name.clone();
                Some(MismatchStatus { peer, sources: sources.to_string(), sinks: sinks.to_string(), sinks_are_here })
            }
        };
        let refuses = channel.refuses.iter().filter_map(mismatch(false));
        ChannelStatus {
            channel: channel.channel.0,
            sources: channel.sources.iter().map(source).collect(),
            sinks: channel.sinks.iter().map(sink).collect(),
            peers: peer_names(&channel.peers, roster),
            group,
            announced: channel.announced,
            mismatches: refuses.chain(channel.refused_by.iter().filter_map(mismatch(true))).collect(),
        }
    }
}

/// An identifier as reports write it.
pub(crate) fn hex_of(host: HostId) -> String {
    hex(host.0)
}

/// The wire name of a stream, likewise.
pub(crate) fn hex_of_key(key: StreamKey) -> String {
    hex(key.0)
}

fn peer_names(peers: &BTreeSet<PeerIndex>, roster: &Roster) -> Vec<String> {
    peers.iter().filter_map(|peer| roster.get(*peer)).map(|entry| entry.name.clone()).collect()
}

fn qos_row(qos: &Qos) -> QosStatus {
    QosStatus {
        reliability: match qos.reliability {
            Reliability::Unreliable => "unreliable",
            Reliability::Reliable => "reliable",
        }
        .to_owned(),
        datapath: match qos.datapath {
            insane_core::Datapath::Standard => "standard",
            insane_core::Datapath::Fast => "fast",
        }
        .to_owned(),
        consumption: match qos.consumption {
            Consumption::Poll => "poll",
            Consumption::Low => "low",
        }
        .to_owned(),
        priority: qos.priority.get(),
        time: match qos.determinism {
            Determinism::BestEffort => None,
            Determinism::TimeSensitive { period, offset, deadline, size, late } => Some(TimeStatus {
                period_ns: period.0,
                offset_ns: offset.0,
                deadline_ns: deadline.0,
                size_bytes: size,
                late: match late {
                    LatePolicy::Drop => "drop",
                    LatePolicy::SendNow => "send_now",
                    LatePolicy::NextSlot => "next_slot",
                    LatePolicy::NewestWins => "newest_wins",
                }
                .to_owned(),
            }),
        },
    }
}

/// The numbers of the reliable contract that every datapath runs with.
fn reliable_numbers() -> BTreeMap<String, u64> {
    let limits = crate::datapath::reliable_limits();
    [
        ("window_messages", u64::from(limits.window)),
        ("window_bytes", limits.window_bytes),
        ("flight_bytes", u64::from(limits.flight_bytes)),
        ("evict_after_ns", limits.evict_after.0),
        ("sync_after_ns", limits.sync_after.0),
        ("repair_after_ns", limits.repair_after.0),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn quotas(hub: &Hub, domain: usize) -> BTreeMap<String, Usage> {
    let account = &hub.accounts()[domain];
    let rows = account.rows().map(|(name, used, limit, refused)| (name.to_owned(), Usage { used, limit, refused }));
    let rate = Usage {
        // The rate of each session has its own bucket; there is no sum to show.
        used: 0,
        limit: account.requests_per_second().into(),
        refused: account.requests_refused(),
    };
    rows.chain([("control_messages_per_second".to_owned(), rate)]).collect()
}

fn session_row(
    session: &SessionView<'_>,
    (counted, datapaths): (&Counted, &[Datapath]),
    places: &Places,
) -> SessionStatus {
    let mut counters = counted.of_session(session.id);
    for (name, count) in datapaths.iter().flat_map(|datapath| datapath.doorbell_counts(Some(session.id))) {
        *counters.entry(name.to_owned()).or_default() += count;
    }
    SessionStatus {
        id: session.id.0,
        name: session.name.to_owned(),
        pid: session.who.pid,
        uid: session.who.uid,
        streams: session.streams as u32,
        bytes: session.bytes,
        outside_rules: session.outside_rules,
        threads: places.of(session.id).map(|(name, tid)| thread_row(&name, tid)).collect(),
        counters,
    }
}

fn datapath_row(datapath: &Datapath, certificate: Option<String>, sees_all: bool) -> DatapathStatus {
    let misses = datapath.misses();
    let counters = TurnCounter::ALL.iter().map(|c| (c.name(), datapath.turn_counters.get(*c as usize)));
    let counters = counters.chain(datapath.doorbell_counts(None));
    DatapathStatus {
        name: datapath.plan.name.clone(),
        core: datapath.tid.and_then(core_of),
        idle: match datapath.plan.idle {
            Idle::Spin => "spin",
            Idle::Yield => "yield",
            Idle::SpinThenBlock { .. } => "spin_then_block",
            Idle::Block => "block",
        }
        .to_owned(),
        serves: match datapath.plan.serves {
            Serves::RealTime => "real_time",
            Serves::BestEffort => "best_effort",
            Serves::All => "all",
        }
        .to_owned(),
        links: datapath.link_rows(),
        counters: counters.map(|(name, value)| (name.to_owned(), value)).collect(),
        carried: Counters::new(),
        slot_clock: datapath.slot_clock().map(str::to_owned),
        slot_offset_ns: datapath.slot_offset(),
        gates: datapath.plan.gates.as_ref().map(ToString::to_string),
        certificate,
        monitors: Vec::new(),
        misses: misses.as_ref().map(crate::misses::counts).unwrap_or_default(),
        last_misses: misses.filter(|_| sees_all).map(|read| crate::misses::last(&read, mono_now())).unwrap_or_default(),
    }
}

/// Where and how a thread runs.
pub(crate) fn thread_row(name: &str, tid: i32) -> ThreadStatus {
    let (policy, priority) = match thread::policy(tid) {
        Ok(Some(SchedPolicy::Fifo(priority))) => ("fifo", priority),
        Ok(Some(SchedPolicy::Other)) => ("other", 0),
        Ok(None) | Err(_) => ("unknown", 0),
    };
    ThreadStatus {
        name: name.to_owned(),
        tid: tid.unsigned_abs(),
        core: core_of(tid),
        policy: policy.to_owned(),
        priority,
    }
}

/// The core that a thread is pinned to: the only one of its affinity.
fn core_of(tid: i32) -> Option<u16> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_shows_its_core_and_an_unpinned_one_none() {
        let cores = thread::cores();
        std::thread::spawn(move || {
            thread::pin_current(cores[0]).unwrap();
            let row = thread_row("test", thread::current_tid());
            assert_eq!(row.core, Some(cores[0] as u16));
            assert_eq!((row.policy.as_str(), row.priority), ("other", 0));
        })
        .join()
        .unwrap();
        if cores.len() > 1 {
            assert_eq!(core_of(thread::current_tid()), None);
        }
    }
}
