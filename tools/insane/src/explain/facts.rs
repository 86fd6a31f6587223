//! From a report to facts about one stream, each with its reason.
//!
//! The reasons are the rules of the control plane (`insane_control::spec`, `hub::route`) and
//! of the quality of service (`insane_core::qos`), said in words.

use super::choices::{self, Choices};
use crate::told::{self, qos_of};
use insane_config::planner::human;
use insane_core::{Nanos, Qos};
use insane_wire::status::{
    ChannelStatus, DatapathStatus, MismatchStatus, PeerStatus, QosStatus, SinkStatus, SourceStatus, StatusReport,
    StreamStatus,
};
use serde::Serialize;
use std::fmt::Write;

/// Everything about one stream.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Explanation {
    /// Its name.
    pub stream: String,
    /// Its tenant.
    pub domain: String,
    /// Its wire name, 16 hexadecimal digits.
    pub key: String,
    /// What it was given.
    pub facts: Vec<Fact>,
    /// Which link it takes to each peer.
    pub choices: Choices,
    /// Each of its channels on this host.
    pub channels: Vec<Channel>,
    /// Rights and resources that the runtime lacks, as far as they concern the stream.
    pub degraded: Vec<String>,
}

/// One channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Channel {
    /// Its number.
    pub channel: u32,
    /// What goes on there.
    pub facts: Vec<Fact>,
}

/// What is, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fact {
    /// What it is about.
    pub about: String,
    /// What is.
    pub what: String,
    /// Why it is so; `None`: somebody asked for it.
    pub why: Option<String>,
}

/// Whether what the slots rest on held.
fn assumptions(datapath: &DatapathStatus) -> Vec<Fact> {
    let monitors = &datapath.monitors;
    let violated = monitors.iter().filter(|monitor| monitor.out_of_spec_s.is_some());
    let row = |monitor: &insane_wire::status::MonitorStatus| {
        let since = monitor.out_of_spec_s.unwrap_or(0.0);
        let (name, times) = (&monitor.assumption, monitor.violations);
        let why = monitor.why.clone().unwrap_or_default();
        fact("assumptions", format!("out of spec for {since:.0} s by {name}, {times} times"), why)
    };
    let mut facts: Vec<Fact> = violated.map(row).collect();
    if facts.is_empty() && !monitors.is_empty() {
        let names: Vec<&str> = monitors.iter().map(|monitor| monitor.assumption.as_str()).collect();
        let mut why = format!("no violation was counted of {}", names.join(", "));
        // `status` shows the counter: whoever reads both must not see a contradiction.
        let overruns = datapath.counters.get("turn_overruns").copied().unwrap_or_default();
        if overruns > 0 {
            let _ = write!(
                why,
                "; turn_overruns is {overruns}, and counts each slot beyond turn_us: those are of before the slots \
                 rested on it, or within the share that the quantile leaves"
            );
        }
        facts.push(fact("assumptions", "in spec", why));
    }
    let measured = monitors.iter().filter_map(|monitor| Some((monitor, monitor.measured.as_ref()?)));
    facts.extend(measured.map(|(monitor, told)| {
        let why = told::rests_on(told).unwrap_or_else(|| "no stream rests on it yet".to_owned());
        fact(&monitor.assumption, told::measured(told), why)
    }));
    facts
}

fn fact(about: &str, what: impl Into<String>, why: impl Into<String>) -> Fact {
    Fact { about: about.to_owned(), what: what.into(), why: Some(why.into()) }
}

fn told(about: &str, what: impl Into<String>) -> Fact {
    Fact { about: about.to_owned(), what: what.into(), why: None }
}

/// Explains a stream of the report.
pub fn explain(report: &StatusReport, stream: &StreamStatus) -> Explanation {
    let datapath = stream.datapath.as_ref().and_then(|name| report.datapaths.iter().find(|path| path.name == *name));
    let view = View { report, stream, datapath, qos: stream.qos.as_ref().and_then(qos_of) };
    let mut facts = vec![view.asked()];
    facts.extend(view.declared());
    facts.extend([view.lane(), view.datapath()]);
    facts.extend(view.gates());
    facts.extend(view.slots());
    facts.extend(view.links());
    facts.extend(view.technology());
    facts.push(view.isolation());
    facts.extend(view.reliability());
    facts.extend(view.peers());
    facts.push(view.memory());
    facts.extend(view.threads());
    Explanation {
        stream: stream.name.clone(),
        domain: stream.domain.clone(),
        key: stream.key.clone(),
        facts,
        choices: Choices::default(),
        channels: stream.channels.iter().map(|channel| view.channel(channel)).collect(),
        degraded: view.degraded(),
    }
}

struct View<'r> {
    report: &'r StatusReport,
    stream: &'r StreamStatus,
    datapath: Option<&'r DatapathStatus>,
    /// `None`: the runtime is of a version that says it otherwise.
    qos: Option<Qos>,
}

impl View<'_> {
    fn asked(&self) -> Fact {
        let asked = self.stream.asked.as_ref().or(self.stream.qos.as_ref());
        told("asked for", asked.map_or("the runtime does not say".to_owned(), in_words))
    }

    /// What the configuration fixes in place of what was asked for, and where it says so.
    fn declared(&self) -> Vec<Fact> {
        let Some(declared) = &self.stream.declared else { return Vec::new() };
        let place = format!("domains[{:?}].streams[{:?}]", self.stream.domain, declared.name);
        let fixes = |(name, value): (&String, &String)| {
            let what = match name.as_str() {
                "priority_max" | "history_max" => format!("{} at most {value}", name.trim_end_matches("_max")),
                _ => format!("{name} {value}"),
            };
            fact("declared", what, format!("the configuration says so: {place}.{name}"))
        };
        let mut facts: Vec<Fact> = declared.fixes.iter().map(fixes).collect();
        if self.stream.asked != self.stream.qos {
            let what = self.stream.qos.as_ref().map_or(String::new(), in_words);
            facts.push(fact("given", what, "what was asked for, with what is declared in its place"));
        }
        if !declared.later.is_empty() {
            let why = "the declaration has changed since it was opened, and an open stream keeps what it has";
            facts.push(fact("given later", declared.later.clone(), why));
        }
        facts
    }

    /// Where a value comes from.
    fn origin(&self, field: &str) -> &'static str {
        let is_declared = self.stream.declared.as_ref().is_some_and(|declared| declared.fixes.contains_key(field));
        if is_declared { "is declared by the configuration" } else { "was asked for" }
    }

    fn lane(&self) -> Fact {
        let lane = self.stream.lane;
        let group = if lane < 3 { "real-time" } else { "best-effort" };
        let why = match &self.qos {
            Some(qos) if qos.lane().get() == lane => format!("the rule: {}", qos.lane_rule()),
            _ => "by the rules of the runtime's version, which is not this tool's".to_owned(),
        };
        fact("lane", format!("{lane} of 0 (first) to 7, {group}"), why)
    }

    fn datapath(&self) -> Fact {
        let lane = self.stream.lane;
        match (&self.stream.datapath, self.datapath) {
            (Some(name), Some(datapath)) => {
                let core = datapath.core.map_or("not pinned".to_owned(), |core| format!("on core {core}"));
                let what = format!("{name}, {core}, idle: {}", datapath.idle);
                let serves = format!("it serves {} lanes", datapath.serves.replace('_', "-"));
                fact("datapath", what, format!("the first of the configuration for lane {lane}: {serves}"))
            }
            (Some(name), None) => told("datapath", name.clone()),
            (None, _) => fact(
                "datapath",
                "none: messages stay on this host",
                format!("no datapath of the configuration serves lane {lane}"),
            ),
        }
    }

    /// When its lane may send.
    fn gates(&self) -> Option<Fact> {
        let gates = self.datapath?.gates.as_ref()?;
        let why = format!("the configuration says so: `gates` of {}", self.stream.datapath.as_deref().unwrap_or(""));
        Some(fact("gates", gates.clone(), why))
    }

    /// Whether a stream with a period has slots, by which clock, and on what that rests.
    fn slots(&self) -> Vec<Fact> {
        if self.stream.qos.as_ref().is_none_or(|qos| qos.time.is_none()) {
            return Vec::new();
        }
        let Some(datapath) = self.datapath else { return Vec::new() };
        let Some(clock) = &datapath.slot_clock else {
            let why = "the rate of a link is not configured (rate_mbps), so nothing can be admitted; \
                       with `unscheduled: allow` sources go without, otherwise those that could reach a peer are refused";
            return vec![fact("slots", "none: the lane alone, an order without a bound in time", why)];
        };
        let mut facts = Vec::new();
        for source in self.stream.channels.iter().flat_map(|channel| &channel.sources) {
            let Some(slot) = &source.slot else { continue };
            let what = format!(
                "source {}: from {} in every {}, {} long, up to {} bytes of the link",
                source.id,
                Nanos(slot.start_ns),
                Nanos(slot.period_ns),
                Nanos(slot.length_ns),
                slot.bytes
            );
            let how = if slot.reserved { "reserved by the schedule of several hosts" } else { "admitted on this host" };
            facts.push(fact("slots", what, format!("{how}; the guarantee ends in the socket of the kernel")));
        }
        if facts.is_empty() {
            facts.push(fact("slots", "none yet", "a source is admitted when it is created, and none is open here"));
        } else {
            facts.extend(self.standing());
            facts.push(told("slots run by", clock.clone()));
            facts.extend(assumptions(datapath));
            let own: Vec<u32> =
                self.stream.channels.iter().flat_map(|channel| &channel.sources).map(|source| source.id).collect();
            let missed = datapath.last_misses.iter().filter(|miss| own.contains(&miss.source));
            facts.extend(
                missed.map(|miss| told("missed", format!("{:.1} s ago: {}", miss.ago_s, crate::misses::words(miss)))),
            );
            // Once for all of them.
            if let Some(last) = facts.last_mut().filter(|fact| fact.about == "missed") {
                last.why = Some("the first cause that fits is named; `insane misses` has the record".to_owned());
            }
            let count = |name: &str| datapath.counters.get(name).copied().unwrap_or(0);
            if count("slots_launched") > 0 {
                let what = format!("{} of {}, by launch time", count("slots_launched"), count("slots_sent"));
                let why =
                    format!("the interface's queue holds them until their slots; {} dropped", count("late_launch"));
                facts.push(fact("handed over ahead", what, why));
            }
        }
        facts
    }

    /// On which links its slots hold, and what becomes of it when its link fails.
    fn standing(&self) -> Vec<Fact> {
        let Some(standing) = &self.stream.standing else { return Vec::new() };
        let link = standing.link.as_deref().unwrap_or("the link that is preferred for each peer");
        let (what, why) = match standing.state.as_str() {
            "stays" => {
                (format!("it stays with {link}"), "that has failed, and it holds no certificate for another that works")
            }
            "degraded" => {
                ("it goes without".to_owned(), "the link of its slots has failed; it has them again when that is back")
            }
            _ => (
                format!("by {link}"),
                "the first that works of: placed by hand, the policy's choice, the usual one, the others",
            ),
        };
        let mut facts = vec![fact("slots by", what, why)];
        let without = match standing.on_link_loss.as_str() {
            "degrade" => "without one, it goes without slots when its link fails (on_link_loss: degrade)",
            _ => "without one, it stays when its link fails (on_link_loss: stay)",
        };
        let held = match &standing.certificates[..] {
            [] => "none: it stays on the link of its slots".to_owned(),
            links => links.join(", "),
        };
        facts.push(fact("certificates on", held, without));
        if (standing.moves, standing.stays, standing.degradations) != (0, 0, 0) {
            let what = format!(
                "moved {} times, stayed with a failed link {} times, went without slots {} times",
                standing.moves, standing.stays, standing.degradations
            );
            facts.push(fact(
                "since it was opened",
                what,
                "a move takes effect at a boundary of the cycle of its datapath's slots",
            ));
        }
        facts
    }

    fn links(&self) -> Vec<Fact> {
        let links = self.datapath.map_or(&[][..], |datapath| &datapath.links);
        let row = |link: &insane_wire::status::LinkStatus| {
            let state = if link.up { "up" } else { "down" };
            let what = format!(
                "{}: {} at {}, frames up to {} bytes, {state}",
                link.name, link.technology, link.address, link.frame_bytes_max
            );
            told("link", what)
        };
        match (links, self.datapath) {
            ([], Some(_)) => vec![fact("link", "none", "the configuration gives the datapath none")],
            _ => links.iter().map(row).collect(),
        }
    }

    /// What became of the wish for a fast technology.
    fn technology(&self) -> Option<Fact> {
        let links = &self.datapath?.links;
        let first = links.first()?;
        let (wish, origin) = (&self.stream.qos.as_ref()?.datapath, self.origin("datapath"));
        let why = if links.iter().all(|link| link.technology == first.technology) {
            format!("`{wish}` {origin}, and the datapath has links of this one technology only")
        } else {
            format!("`{wish}` {origin}; by which link each peer is reached, the policy says")
        };
        let mut names: Vec<&str> = links.iter().map(|link| link.technology.as_str()).collect();
        names.dedup();
        Some(fact("technology", names.join(", "), why))
    }

    fn isolation(&self) -> Fact {
        let domain = self.report.domains.iter().find(|domain| domain.name == self.stream.domain);
        let by_domain = domain.is_some_and(|domain| domain.isolation == "session");
        match (self.stream.isolated, by_domain) {
            (false, _) => fact(
                "local delivery",
                "direct rings: messages are read where they were written, the runtime is not on the way",
                "neither the stream nor its domain is isolated",
            ),
            (true, by_domain) => {
                let through = self.stream.datapath.as_deref().unwrap_or("?");
                let why = match (by_domain, self.origin("isolated")) {
                    (true, _) => "the domain has isolation: session",
                    (false, "was asked for") => "it was opened as isolated",
                    (false, _) => "it is declared as isolated by the configuration",
                };
                fact("local delivery", format!("through datapath {through}, which copies every message"), why)
            }
        }
    }

    fn reliability(&self) -> Vec<Fact> {
        let Some(asked) = &self.stream.qos else { return Vec::new() };
        if asked.reliability != "reliable" {
            let what = "the newest data: what meets no room is dropped, counted, and told to the receiver";
            return vec![fact("reliability", what, format!("unreliable {}", self.origin("reliability")))];
        }
        let why = format!("reliable {}", self.origin("reliability"));
        let local = "a full ring of a local sink refuses the emit and hands the buffer back";
        let mut facts = vec![fact("reliability", local, why)];
        let number = |name: &str| self.report.reliable.get(name).copied();
        let numbers =
            ["window_messages", "window_bytes", "flight_bytes", "evict_after_ns", "sync_after_ns", "repair_after_ns"]
                .map(number);
        if let [Some(messages), Some(bytes), Some(flight), Some(evict), Some(sync), Some(repair)] = numbers {
            let what = format!(
                "to other hosts: at most {messages} messages and {} of a source not acknowledged, {} under way to a \
                 peer; heartbeat after {}, the same repair every {} at most; a peer without progress is put out \
                 after {}",
                human(bytes),
                human(flight),
                Nanos(sync),
                Nanos(repair),
                Nanos(evict)
            );
            facts.push(fact("reliability", what, "the same for all streams of the runtime"));
        }
        facts
    }

    fn peers(&self) -> Vec<Fact> {
        let mut facts: Vec<Fact> = self.report.peers.iter().map(|peer| self.peer(peer)).collect();
        if facts.is_empty() {
            let looks = self.report.discovery.is_some();
            let why =
                if looks { "the configuration names none, and none was found" } else { "the configuration names none" };
            facts.push(fact("peers", "none", why));
        }
        let refused = self.report.discovery.iter().flat_map(|discovery| &discovery.refused);
        facts.extend(refused.map(|host| {
            let name = if host.name.is_empty() { "?" } else { &host.name };
            fact(&format!("host {name} at {}", host.from), "is no peer", host.why.clone())
        }));
        facts
    }

    fn peer(&self, peer: &PeerStatus) -> Fact {
        let source = if peer.source == "discovery" { " (found by discovery)" } else { "" };
        let about = format!("peer {}{source}", peer.name);
        let interested = self.stream.peers.contains(&peer.name);
        let usual = self.datapath.and_then(|datapath| {
            datapath.links.iter().find(|link| peer.links.contains(&link.name)).map(|link| link.name.clone())
        });
        // An older runtime does not say: it uses no other.
        let reached = self.stream.links.get(&peer.name).or(usual.as_ref()).cloned();
        let rtt = peer.rtt_ns.map_or(String::new(), |ns| format!(", round trip {}", Nanos(ns)));
        match (interested, reached) {
            (true, Some(link)) => {
                let state = if peer.up { "up" } else { "down" };
                let has_failed = |name: &String| peer.ways.iter().any(|way| way.link == *name && !way.up);
                let why = match usual.filter(|usual| *usual != link) {
                    None => "it has a sink of the stream".to_owned(),
                    Some(usual) if has_failed(&usual) => {
                        format!("it has a sink of the stream, and link {usual} has failed")
                    }
                    Some(usual) => {
                        format!(
                            "it has a sink of the stream, which left link {usual}: somebody moved it, or that had failed"
                        )
                    }
                };
                fact(&about, format!("gets messages by link {link}, {state}{rtt}"), why)
            }
            (true, None) => {
                fact(&about, "gets nothing", "it has a sink of the stream, but the stream's datapath has no link to it")
            }
            (false, _) if peer.up => fact(&about, "gets nothing", "it is there and has no sink of the stream"),
            (false, _) => {
                let why = peer.heard_ms_ago.map_or("it was never heard".to_owned(), |ms| {
                    format!("it is down: last heard {} ago", Nanos::from_millis(ms))
                });
                fact(&about, "gets nothing", why)
            }
        }
    }

    fn memory(&self) -> Fact {
        let sources = || self.stream.channels.iter().flat_map(|channel| &channel.sources);
        let sinks = || self.stream.channels.iter().flat_map(|channel| &channel.sinks);
        let buffers: u64 = sources().map(|source| u64::from(source.buffers)).sum();
        let heaps: u64 = sources().map(|source| source.heap_bytes).sum();
        let rings: u64 = sinks().map(|sink| sink.ring_bytes).sum();
        let what = format!("{buffers} buffers in {} of heaps, {} of rings", human(heaps), human(rings));
        fact("memory", what, "what its sources and sinks on this host asked for")
    }

    /// Threads that the runtime has placed for the sessions that use the stream here.
    fn threads(&self) -> Vec<Fact> {
        let channels = || self.stream.channels.iter();
        let uses = |id: u32| {
            channels().flat_map(|channel| &channel.sources).any(|source| source.session == id)
                || channels().flat_map(|channel| &channel.sinks).any(|sink| sink.session == id && !sink.observes)
        };
        let sessions = self.report.domains.iter().flat_map(|domain| &domain.sessions);
        let rows = sessions.filter(|session| uses(session.id)).flat_map(|session| {
            session.threads.iter().map(|thread| {
                let core = thread.core.map_or("the cores of its rule".to_owned(), |core| format!("core {core}"));
                let what = format!("{} {} on {core}", thread.policy, thread.priority);
                let why = format!(
                    "{} handed over its thread {}, and its domain's rule allows it",
                    { self.session(session.id) },
                    thread.tid
                );
                fact("thread", what, why)
            })
        });
        rows.collect()
    }

    fn channel(&self, channel: &ChannelStatus) -> Channel {
        let mut facts: Vec<Fact> = channel.sources.iter().map(|source| self.source(source, channel)).collect();
        facts.extend(channel.sinks.iter().map(|sink| self.sink(sink)));
        if self.report.peers.is_empty() {
            return Channel { channel: channel.channel, facts };
        }
        let listens = channel.sinks.iter().any(|sink| !sink.observes);
        facts.push(match (channel.announced, listens) {
            (true, _) => fact("interest", "the peers were told to send", "there is a sink here that can receive"),
            (false, true) => fact("interest", "the peers were not told yet", "no sink is joined to the datapaths yet"),
            (false, false) => fact("interest", "the peers were not told to send", "there is no sink here"),
        });
        facts.extend(self.group(channel));
        facts.extend(channel.mismatches.iter().map(|row| {
            let MismatchStatus { peer, sources, sinks, sinks_are_here } = row;
            let (from, to) = if *sinks_are_here { ("there", "here") } else { ("here", "there") };
            let what =
                if *sinks_are_here { format!("nothing from peer {peer}") } else { format!("nothing to peer {peer}") };
            fact("schema", what, format!("the sources {from} are of schema {sources}, the sinks {to} expect {sinks}"))
        }));
        Channel { channel: channel.channel, facts }
    }

    /// Whether messages of the channel go to several peers at once, and why not. Nothing where
    /// no link of the datapath has a group, or the channel sends to nobody.
    fn group(&self, channel: &ChannelStatus) -> Option<Fact> {
        let links = self.datapath.map_or(&[][..], |datapath| &datapath.links);
        let (link, group) = links.iter().find_map(|link| Some((link, link.group.as_ref()?)))?;
        if channel.sources.is_empty() || channel.peers.is_empty() {
            return None;
        }
        if let Some(by) = &channel.group {
            let (served, alone): (Vec<_>, Vec<_>) = channel.peers.iter().partition(|peer| by.peers.contains(peer));
            let names = |peers: &[&String]| peers.iter().map(|peer| peer.as_str()).collect::<Vec<_>>().join(", ");
            let mut what = format!("one frame to the group of link {} for peers {}", by.link, names(&served));
            if !alone.is_empty() {
                let _ = write!(what, "; frames of their own for peers {}, which do not hear it", names(&alone));
            }
            let why = format!("{} of {} hear it", served.len(), plural(channel.peers.len(), "peer"));
            return Some(fact("group", what, why));
        }
        let hear = channel.peers.iter().filter(|peer| group.hears.contains(peer)).count();
        let is_reliable = self.stream.qos.as_ref().is_some_and(|qos| qos.reliability == "reliable");
        let why = if is_reliable {
            "the stream is reliable: each peer is acknowledged and repaired by itself".to_owned()
        } else if channel.sources.iter().any(|source| source.slot.is_some()) {
            "its sources have slots, whose room is counted for each peer".to_owned()
        } else {
            format!(
                "{hear} of {} that have a sink hear the group of link {} ({}), which is used from {} on",
                plural(channel.peers.len(), "peer"),
                link.name,
                group.address,
                group.from_peers
            )
        };
        Some(fact("group", "not used: each peer gets frames of its own", why))
    }

    fn source(&self, source: &SourceStatus, channel: &ChannelStatus) -> Fact {
        let sinks = channel.sinks.iter().filter(|sink| !sink.observes).count();
        let mut ways = Vec::new();
        if source.direct > 0 {
            ways.push(format!("{} by direct ring", plural(source.direct as usize, "local sink")));
        }
        ways.extend(source.datapaths.iter().map(|name| format!("datapath {name}")));
        let to = if ways.is_empty() { "nobody".to_owned() } else { ways.join(" and ") };
        let what = format!(
            "of {}, {} in {}, to {to}",
            self.session(source.session),
            plural(source.buffers as usize, "buffer"),
            human(source.heap_bytes)
        );
        let mut why = Vec::new();
        if sinks == 0 && channel.peers.is_empty() {
            why.push("the channel has no sink anywhere".to_owned());
        }
        if !self.stream.isolated && (source.direct as usize) < sinks {
            let missing = sinks - source.direct as usize;
            why.push(format!("{} not joined: set-up is under way, or a quota is used up", plural(missing, "sink")));
        }
        let peers = if channel.peers.is_empty() { None } else { Some(format!("peers {}", channel.peers.join(", "))) };
        let local = (self.stream.isolated && sinks > 0).then(|| plural(sinks, "isolated local sink"));
        let behind: Vec<String> = local.into_iter().chain(peers).collect();
        if !source.datapaths.is_empty() {
            why.push(format!("the datapath serves {}", behind.join(" and ")));
        } else if !behind.is_empty() {
            why.push(format!("no datapath for {}: set-up is under way, or none reaches them", behind.join(" and ")));
        }
        let about = format!("source {}", source.id);
        if why.is_empty() { told(&about, what) } else { fact(&about, what, why.join("; ")) }
    }

    fn sink(&self, sink: &SinkStatus) -> Fact {
        let mut ways = Vec::new();
        if sink.direct > 0 {
            ways.push(format!("{} by direct ring", plural(sink.direct as usize, "local source")));
        }
        ways.extend(sink.datapaths.iter().map(|name| format!("datapath {name}")));
        let from = if ways.is_empty() { "nobody".to_owned() } else { ways.join(" and ") };
        let polls = self.stream.qos.as_ref().is_some_and(|qos| qos.consumption == "poll");
        let (wake, why) = match sink.wake.as_str() {
            _ if sink.observes => ("polls", "it only watches: a tap"),
            "never" if polls => ("polls and is never woken", "the stream's consumption is poll"),
            "never" => ("polls and is never woken", "it was opened as polled"),
            "page" => ("sleeps, and is woken by its senders (futex)", "the stream's consumption is low"),
            "fd" => ("is woken by a descriptor for its event loop", "it was opened as pollable"),
            _ => ("is woken in a way unknown to this tool", "the runtime is of another version"),
        };
        let what = format!(
            "of {}, from {from}, rings of {} messages ({}); {wake}",
            self.session(sink.session),
            sink.depth,
            human(sink.ring_bytes)
        );
        fact(&format!("{} {}", if sink.observes { "tap" } else { "sink" }, sink.id), what, why)
    }

    fn session(&self, id: u32) -> String {
        let sessions = self.report.domains.iter().flat_map(|domain| &domain.sessions);
        match sessions.into_iter().find(|session| session.id == id) {
            Some(session) => format!("\"{}\" (session {id}, process {})", session.name, session.pid),
            None => format!("session {id}"),
        }
    }

    /// What the runtime lacks, but for what concerns other datapaths only. The threads of
    /// datapaths are named `dp-NAME`, cut to 15 bytes.
    fn degraded(&self) -> Vec<String> {
        let thread = |name: &str| {
            let mut thread = format!("dp-{name}");
            while thread.len() > 15 {
                thread.pop();
            }
            thread
        };
        let about = |line: &str, name: &str| {
            line.starts_with(&format!("{}:", thread(name))) || line.starts_with(&format!("datapath {name} "))
        };
        let own = self.stream.datapath.as_deref();
        let other = |line: &&String| {
            let named = |path: &DatapathStatus| about(line, &path.name);
            self.report.datapaths.iter().any(|path| Some(path.name.as_str()) != own && named(path))
                && !own.is_some_and(|own| about(line, own))
        };
        self.report.degraded.iter().filter(|line| !other(line)).cloned().collect()
    }
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn in_words(asked: &QosStatus) -> String {
    let QosStatus { reliability, datapath, consumption, priority, time } = asked;
    let time = match time {
        None => "best effort".to_owned(),
        Some(time) => format!(
            "time-sensitive: period {}, offset {}, deadline {}, at most {} bytes, late: {}",
            Nanos(time.period_ns),
            Nanos(time.offset_ns),
            Nanos(time.deadline_ns),
            time.size_bytes,
            time.late
        ),
    };
    format!("{reliability}, {datapath}, consumption {consumption}, priority {priority}, {time}")
}

/// Characters of a line that are not passed; words are not broken.
const WIDTH: usize = 100;

/// As text. Names come from applications: what could steer a terminal is replaced.
pub fn render(explanation: &Explanation) -> String {
    let mut text =
        format!("stream \"{}\" of domain \"{}\" (key {})\n", explanation.stream, explanation.domain, explanation.key);
    let all = explanation.channels.iter().flat_map(|channel| &channel.facts).chain(&explanation.facts);
    let width = all.map(|fact| fact.about.chars().count()).max().unwrap_or(0);
    put(&mut text, &explanation.facts, width);
    choices::put(&mut text, &explanation.choices);
    for channel in &explanation.channels {
        let _ = writeln!(text, "channel {}", channel.channel);
        put(&mut text, &channel.facts, width);
    }
    if explanation.channels.is_empty() {
        text += "no channel of it has a source or a sink on this host\n";
    }
    if !explanation.degraded.is_empty() {
        text += "what the runtime lacks\n";
        explanation.degraded.iter().for_each(|line| wrap(&mut text, "  ! ", line));
    }
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn put(text: &mut String, facts: &[Fact], width: usize) {
    for fact in facts {
        wrap(text, &format!("  {:width$}  ", fact.about), &fact.what);
        if let Some(why) = &fact.why {
            wrap(text, &format!("  {:width$}    because: ", ""), why);
        }
    }
}

/// A line behind `head`, and its rest below, as far to the right.
pub(super) fn wrap(text: &mut String, head: &str, line: &str) {
    let indent = head.chars().count();
    text.push_str(head);
    let mut at = indent;
    for (number, word) in line.split_whitespace().enumerate() {
        let len = word.chars().count();
        if number > 0 && at + 1 + len > WIDTH {
            let _ = write!(text, "\n{:indent$}", "");
            at = indent;
        } else if number > 0 {
            text.push(' ');
            at += 1;
        }
        text.push_str(word);
        at += len;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_wire::status::{
        DatapathStatus, DomainStatus, LinkStatus, MonitorStatus, SessionStatus, ThreadStatus, WayStatus,
    };

    #[test]
    fn threads_of_the_sessions_that_use_the_stream_are_told_and_no_others() {
        let session = |id: u32, tid: u32| SessionStatus {
            id,
            name: format!("plc-{id}"),
            threads: vec![ThreadStatus {
                tid,
                core: Some(1),
                policy: "fifo".into(),
                priority: 50,
                ..ThreadStatus::default()
            }],
            ..SessionStatus::default()
        };
        let sink = SinkStatus { session: 2, ..SinkStatus::default() };
        let tap = SinkStatus { session: 3, observes: true, ..SinkStatus::default() };
        let channel = ChannelStatus { sinks: vec![sink, tap], ..ChannelStatus::default() };
        let stream = StreamStatus { channels: vec![channel], ..StreamStatus::default() };
        let domain =
            DomainStatus { sessions: vec![session(1, 71), session(2, 72), session(3, 73)], ..DomainStatus::default() };
        let report = StatusReport { domains: vec![domain], ..StatusReport::default() };
        let facts = explain(&report, &stream).facts;
        let threads: Vec<&Fact> = facts.iter().filter(|fact| fact.about == "thread").collect();
        let [thread] = threads.as_slice() else { panic!("{threads:?}") };
        assert_eq!(thread.what, "fifo 50 on core 1");
        assert!(thread.why.as_ref().unwrap().contains("\"plc-2\""), "{thread:?}");
        assert!(thread.why.as_ref().unwrap().contains("thread 72"), "{thread:?}");
    }

    #[test]
    fn what_is_in_spec_is_told_with_the_overruns_that_are_counted_and_no_violation() {
        let turn = MonitorStatus { assumption: "e_turn".into(), ..MonitorStatus::default() };
        let mut datapath = DatapathStatus { monitors: vec![turn], ..DatapathStatus::default() };
        let why = |datapath: &DatapathStatus| match assumptions(datapath).as_slice() {
            [Fact { what, why: Some(why), .. }] if what == "in spec" => why.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!(why(&datapath), "no violation was counted of e_turn");
        datapath.counters.insert("turn_overruns".into(), 75);
        assert!(why(&datapath).contains("turn_overruns is 75"), "{}", why(&datapath));
    }

    #[test]
    fn the_link_that_a_peer_gets_a_stream_by_is_told_with_why_it_is_not_the_usual_one() {
        let told = |link: &str, quick_is_up: bool| {
            let link_of = |name: &str| LinkStatus { name: name.into(), ..LinkStatus::default() };
            let links = ["quick", "safe"];
            let datapath =
                DatapathStatus { name: "main".into(), links: links.map(link_of).into(), ..DatapathStatus::default() };
            let way = WayStatus { link: "quick".into(), up: quick_is_up, ..WayStatus::default() };
            let peer = PeerStatus {
                name: "b".into(),
                up: true,
                links: links.map(String::from).into(),
                ways: vec![way],
                ..PeerStatus::default()
            };
            let stream = StreamStatus {
                datapath: Some("main".into()),
                peers: vec!["b".into()],
                links: [("b".to_owned(), link.to_owned())].into(),
                ..StreamStatus::default()
            };
            let report = StatusReport { datapaths: vec![datapath], peers: vec![peer], ..StatusReport::default() };
            let facts = explain(&report, &stream).facts;
            let fact = facts.into_iter().find(|fact| fact.about == "peer b").unwrap();
            (fact.what, fact.why.unwrap())
        };
        let (what, why) = told("quick", true);
        assert_eq!((what.as_str(), why.as_str()), ("gets messages by link quick, up", "it has a sink of the stream"));
        let (what, why) = told("safe", false);
        assert!(what.contains("by link safe") && why.ends_with("link quick has failed"), "{what}: {why}");
        let (_, why) = told("safe", true);
        assert!(why.contains("somebody moved it"), "{why}");
    }
}
