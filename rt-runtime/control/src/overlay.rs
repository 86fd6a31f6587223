//! The host of membership and of the liveness of links: frames come from the datapaths and go
//! out by them.

use crate::action::Topic;
use crate::datapath::Datapath;
use crate::hub::{Hub, Reach};
use crate::path;
use crate::roster::{Entry, Roster};
use insane_config::{DatapathPlan, MulticastPlan, Plan};
use insane_core::limits::PEERS_MAX;
use insane_core::{DatapathIndex, HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, Schema, StreamKey};
use insane_engine::{Command, OverlayFrame};
use insane_overlay::group::{self, Prober, Responder};
use insane_overlay::lanes::Pace;
use insane_overlay::links::{self, Monitor};
use insane_overlay::membership::{Event, Limits, Membership};
use insane_policy::budget::LinkKey;
use insane_policy::health::{self, Health, Signal, Tracker};
use insane_wire::data::VERSION;
use insane_wire::group::{GROUP_BYTES, GroupBody, is_group};
use insane_wire::link::{LINK_BYTES, is_link_beat};
use insane_wire::overlay::{BODY_BYTES_MAX, Interest};
use insane_wire::refusal::{Refusal, is_refusal};
use insane_wire::schedule::{ScheduleBody, is_schedule};
use insane_wire::status::{GroupStatus, PeerStatus, WayStatus};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use tracing::{info, warn};

/// Frames sent in one go, at most; the rest goes with the next.
const FRAMES_MAX: usize = 256;

/// A peer whose frames are of one more version is told of after so long.
const TELL_AGAIN_AFTER: Nanos = Nanos::from_secs(60);

/// Membership, and by which datapath each peer is spoken to.
pub(crate) struct Overlay {
    /// This runtime, and which life of it.
    own: (HostId, Incarnation),
    membership: Membership,
    monitor: Monitor,
    /// By which lane what goes to peers goes.
    lanes: Pace,
    /// By number; empty where there is no peer.
    names: Vec<String>,
    /// Names of the datapaths and of their links.
    links: Vec<(String, Vec<String>)>,
    /// The links that reach each peer, each with its datapath; the one that is preferred first.
    ways: Vec<Vec<(usize, usize)>>,
    /// How each of those is: all that chooses links goes by this.
    trackers: Vec<Vec<Tracker>>,
    /// Counts the changes of how they are, and of which there are.
    changes: u64,
    /// For each peer and datapath that reaches it: what is known of its links there.
    reaches: BTreeMap<(PeerIndex, usize), Reach>,
    /// Those that the hub does not know yet.
    untold: BTreeSet<(PeerIndex, usize)>,
    /// Links that have a group.
    groups: Vec<GroupOf>,
    /// Answers the probes of others.
    responder: Responder,
    /// What peers said of the schedules that they are under.
    schedules: VecDeque<(PeerIndex, ScheduleBody)>,
    /// Peers whose frames are of another version, and when that was last told.
    other_versions: BTreeMap<PeerIndex, (u8, MonoTime)>,
}

/// The group of one link.
struct GroupOf {
    datapath: usize,
    link: usize,
    plan: MulticastPlan,
    prober: Prober,
    /// Of the probe that went last: they alternate between real time and best effort.
    lane: Lane,
}

fn names_of(datapath: &DatapathPlan) -> (String, Vec<String>) {
    (datapath.name.clone(), datapath.links.iter().map(|link| link.name.clone()).collect())
}

impl Overlay {
    pub(crate) fn new(plan: &Plan, roster: &Roster, host: HostId, incarnation: Incarnation) -> Self {
        let mut overlay = Overlay {
            own: (host, incarnation),
            membership: Membership::new(host, incarnation, 0, Limits::default()),
            monitor: Monitor::new(host, incarnation, [], links::Limits::default()),
            lanes: Pace::new(),
            names: vec![String::new(); PEERS_MAX],
            links: plan.datapaths.iter().map(names_of).collect(),
            ways: vec![Vec::new(); PEERS_MAX],
            trackers: vec![Vec::new(); PEERS_MAX],
            changes: 0,
            reaches: BTreeMap::new(),
            untold: BTreeSet::new(),
            groups: groups(plan, (host, incarnation)),
            responder: Responder::new((host, incarnation)),
            schedules: VecDeque::new(),
            other_versions: BTreeMap::new(),
        };
        for (peer, entry) in roster.iter() {
            overlay.add_peer(peer, entry, plan);
        }
        overlay
    }

    /// There is one more peer.
    pub(crate) fn add_peer(&mut self, peer: PeerIndex, entry: &Entry, plan: &Plan) {
        self.names[peer.index()].clone_from(&entry.name);
        self.ways[peer.index()] = ways(plan, entry);
        self.changes += 1;
        self.trackers[peer.index()] = vec![Tracker::default(); self.ways[peer.index()].len()];
        self.reaches.retain(|(other, _), _| *other != peer);
        self.untold.retain(|(other, _)| *other != peer);
        for datapath in 0..plan.datapaths.len() {
            if let Some(home) = entry.reach(datapath) {
                let links = entry.each().filter(|(at, ..)| *at == datapath).map(|(_, link, _)| link).collect();
                self.reaches.insert((peer, datapath), Reach { home, link: home, links, failed: BTreeSet::new() });
                self.untold.insert((peer, datapath));
            }
        }
        self.monitor.set_ways(peer, self.ways[peer.index()].len());
        self.membership.add_peer(peer);
        for group in self.groups.iter_mut().filter(|group| entry.reach(group.datapath) == Some(group.link)) {
            group.prober.add(peer);
        }
    }

    /// A peer is none any more; what the hub knows of it, the caller drops.
    pub(crate) fn remove_peer(&mut self, peer: PeerIndex) {
        self.names[peer.index()].clear();
        self.ways[peer.index()].clear();
        self.trackers[peer.index()].clear();
        self.changes += 1;
        self.reaches.retain(|(other, _), _| *other != peer);
        self.untold.retain(|(other, _)| *other != peer);
        self.monitor.set_ways(peer, 0);
        self.membership.remove_peer(peer);
        self.other_versions.remove(&peer);
        self.groups.iter_mut().for_each(|group| group.prober.remove(peer));
    }

    /// When something is due, if ever.
    pub(crate) fn next_deadline(&self) -> Option<MonoTime> {
        let probes = self.groups.iter().filter_map(|group| group.prober.next_deadline());
        self.membership.next_deadline().into_iter().chain(self.monitor.next_deadline()).chain(probes).min()
    }

    /// A frame came in by the datapath `by`.
    pub(crate) fn frame(
        &mut self,
        now: MonoTime,
        by: usize,
        frame: &OverlayFrame,
        hub: &mut Hub,
        datapaths: &mut [Datapath],
    ) {
        let refusal = if is_refusal(&frame.body) { Refusal::decode(&frame.body).ok() } else { None };
        if let Some(refusal) = refusal {
            let life = self.membership.peer(frame.peer).and_then(|status| status.life);
            if life == Some((refusal.host, refusal.incarnation)) && refusal.to == self.own.1 {
                let topic = Topic { key: refusal.stream, channel: refusal.channel };
                hub.remote_refusal(frame.peer, topic, refusal.check, refusal.schema, now);
            }
        } else if is_schedule(&frame.body) {
            let life = self.membership.peer(frame.peer).and_then(|status| status.life);
            let body = ScheduleBody::decode(&frame.body).ok();
            let is_ours = |body: &ScheduleBody| life == Some((body.host, body.incarnation)) && body.to == self.own.1;
            if let Some(body) = body.filter(is_ours)
                && self.schedules.len() < FRAMES_MAX
            {
                self.schedules.push_back((frame.peer, body));
            }
        } else if is_link_beat(&frame.body) {
            let way =
                self.ways.get(frame.peer.index()).and_then(|ways| ways.iter().position(|way| *way == (by, frame.link)));
            let life = self.membership.peer(frame.peer).and_then(|status| status.life);
            // No way: it is counted there.
            self.monitor.on_frame(now, frame.peer, way.unwrap_or(usize::MAX), life, &frame.body);
            self.tell_links();
        } else if is_group(&frame.body) {
            self.group_frame(now, by, frame, datapaths);
        } else {
            // One that is no good counts there, too.
            self.membership.on_frame(now, frame.peer, &frame.body);
            self.pass_events(hub, datapaths);
        }
    }

    /// A probe that came by a group, or an answer to one of ours.
    fn group_frame(&mut self, now: MonoTime, by: usize, frame: &OverlayFrame, datapaths: &mut [Datapath]) {
        let Ok(body) = GroupBody::decode(&frame.body) else { return };
        let life = self.membership.peer(frame.peer).and_then(|status| status.life);
        if body.to.is_none() {
            if let Some(answer) = self.responder.on_probe(now, frame.peer, life, &body) {
                // By the datapath of the group, so that the prober knows which one it was.
                let lane = self.lanes.lane(now, frame.peer, &answer);
                datapaths[by].send_overlay(frame.peer, (frame.link, lane), &answer);
            }
            return;
        }
        let mut asked = self.groups.iter_mut().filter(|group| group.datapath == by);
        if let Some(group) = asked.find(|group| group.prober.is_member(frame.peer)) {
            group.prober.on_answer(frame.peer, life, &body);
        }
        self.tell_groups(datapaths);
    }

    /// Datapaths learn who hears the groups of their links.
    fn tell_groups(&mut self, datapaths: &mut [Datapath]) {
        for at in 0..self.groups.len() {
            let mut has_changed = false;
            while let Some(event) = self.groups[at].prober.next_event() {
                has_changed = true;
                match event {
                    group::Event::Hears(peer) => info!(peer = self.name(peer), "peer hears the group"),
                    group::Event::Deaf(peer) => {
                        warn!(peer = self.name(peer), "peer does not hear the group; it gets frames of its own");
                    }
                }
            }
            if has_changed {
                let GroupOf { datapath, link, plan, prober, .. } = &self.groups[at];
                let (hears, peers_min) = (prober.hearing().collect(), plan.from_peers);
                datapaths[*datapath].send(Command::SetGroup { link: *link, hears, peers_min });
            }
        }
    }

    /// The link by whose group a message to these peers goes from a datapath, and whom that
    /// serves: the rule of the engine (`insane_engine`, `Links::group_for`).
    pub(crate) fn group_for(&self, datapath: usize, peers: &BTreeSet<PeerIndex>) -> Option<(usize, Vec<PeerIndex>)> {
        self.groups.iter().filter(|group| group.datapath == datapath).find_map(|group| {
            let serves: Vec<_> = peers.iter().copied().filter(|peer| group.prober.hears(*peer)).collect();
            (serves.len() >= group.plan.from_peers as usize).then_some((group.link, serves))
        })
    }

    /// The group of a link, as reports show it.
    pub(crate) fn group_status(&self, datapath: usize, link: usize) -> Option<GroupStatus> {
        let group = self.groups.iter().find(|group| (group.datapath, group.link) == (datapath, link))?;
        Some(GroupStatus {
            address: group.plan.group.to_string(),
            from_peers: group.plan.from_peers,
            hears: group.prober.hearing().map(|peer| self.name(peer).to_owned()).collect(),
        })
    }

    /// Sends what is due. `limits` are the times of the policy.
    pub(crate) fn poll(&mut self, now: MonoTime, limits: &health::Limits, hub: &mut Hub, datapaths: &mut [Datapath]) {
        let mut beat = [0; LINK_BYTES];
        for _ in 0..FRAMES_MAX {
            let Some((peer, way)) = self.monitor.poll(now, &mut beat) else { break };
            let (datapath, link) = self.ways[peer.index()][way];
            let lane = self.lanes.lane(now, peer, &beat);
            datapaths[datapath].send_overlay(peer, (link, lane), &beat);
        }
        self.hear_other_versions(now, datapaths);
        self.leave_missing(now, datapaths);
        self.tell_links();
        self.watch_links(now, limits, datapaths);
        self.choose_links(hub);
        let mut probe = [0; GROUP_BYTES];
        for group in &mut self.groups {
            if group.prober.poll(now, &mut probe) {
                // Two in a row have to be answered, so both of the group's ports have to be open.
                group.lane = if group.lane == Lane::CONTROL { Lane::LAST_REAL_TIME } else { Lane::CONTROL };
                datapaths[group.datapath].send_group(group.link, group.lane, &probe);
            }
        }
        self.tell_groups(datapaths);
        let mut body = [0; BODY_BYTES_MAX];
        for _ in 0..FRAMES_MAX {
            let Some((peer, len)) = self.membership.poll(now, &mut body) else { break };
            if let Some((datapath, link)) = self.speaker(peer) {
                let lane = self.lanes.lane(now, peer, &body[..len]);
                datapaths[datapath].send_overlay(peer, (link, lane), &body[..len]);
            }
        }
        self.pass_events(hub, datapaths);
    }

    /// Peers of another build are told of: once, and again when it is a third one.
    fn hear_other_versions(&mut self, now: MonoTime, datapaths: &[Datapath]) {
        for peer in (0..PEERS_MAX as u16).map(PeerIndex) {
            let Some(version) = datapaths.iter().find_map(|datapath| datapath.other_version(peer)) else { continue };
            let known = self.other_versions.get(&peer);
            // Who forges the address of a peer does not fill the log.
            if known.is_none_or(|(known, told_at)| *known != version && now.since(*told_at) >= TELL_AGAIN_AFTER) {
                warn!(peer = self.name(peer), why = version_text(version), "peer cannot be heard");
                self.other_versions.insert(peer, (version, now));
            }
        }
    }

    /// Whether a peer answers.
    pub(crate) fn is_up(&self, peer: PeerIndex) -> bool {
        self.membership.peer(peer).is_some_and(|status| status.up)
    }

    /// The link of a datapath by which whatever goes to a peer goes.
    pub(crate) fn reached_by(&self, peer: PeerIndex, datapath: usize) -> Option<usize> {
        self.reaches.get(&(peer, datapath)).map(|reach| reach.link)
    }

    /// How a link of a datapath to a peer is; `None`: the peer has no address there.
    pub(crate) fn health(&self, peer: PeerIndex, (datapath, link): LinkKey) -> Option<Tracker> {
        let way = (datapath.index(), link.index());
        let at = self.ways.get(peer.index())?.iter().position(|other| *other == way)?;
        self.trackers[peer.index()].get(at).copied()
    }

    /// Counts the changes of how links are, and of which there are.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// What is seen of a way to a peer.
    fn signal(
        &self,
        (now, limits): (MonoTime, &health::Limits),
        peer: PeerIndex,
        way: usize,
        is_there: bool,
    ) -> Signal {
        let Some(status) = self.monitor.way(peer, way) else { return Signal::Unknown };
        let all = (0..self.ways[peer.index()].len()).filter_map(|other| self.monitor.way(peer, other));
        if is_there { path::signal(now, limits.silent_after, &status, all) } else { Signal::Gone }
    }

    /// Observes every link to every peer.
    fn watch_links(&mut self, now: MonoTime, limits: &health::Limits, datapaths: &[Datapath]) {
        for at in 0..self.ways.len() {
            for way in 0..self.ways[at].len() {
                let (datapath, link) = self.ways[at][way];
                let is_there = datapaths.get(datapath).is_some_and(|datapath| datapath.is_link_up(link));
                let signal = self.signal((now, limits), PeerIndex(at as u16), way, is_there);
                let tracker = &mut self.trackers[at][way];
                let before = tracker.health();
                self.changes += u64::from(tracker.observe(now, signal, limits) != before);
            }
        }
    }

    /// Tells a peer whose life is known that its sinks get nothing. Lost, it is said again.
    pub(crate) fn refuse(
        &mut self,
        now: MonoTime,
        (peer, topic): (PeerIndex, Topic),
        (check, schema): (u64, Schema),
        datapaths: &mut [Datapath],
    ) {
        let Some((_, to)) = self.membership.peer(peer).and_then(|status| status.life) else { return };
        let (host, incarnation) = self.own;
        let refusal = Refusal { host, incarnation, to, stream: topic.key, check, channel: topic.channel, schema };
        if let Some((datapath, link)) = self.speaker(peer) {
            let body = refusal.encode();
            let lane = self.lanes.lane(now, peer, &body);
            datapaths[datapath].send_overlay(peer, (link, lane), &body);
        }
    }

    /// The next word of a peer about its schedule.
    pub(crate) fn next_schedule(&mut self) -> Option<(PeerIndex, ScheduleBody)> {
        self.schedules.pop_front()
    }

    /// Tells a peer that answers, whose life is known, under which schedule this host is. Lost,
    /// it is said again. `said` is given this runtime, its life and the peer's.
    pub(crate) fn tell_schedule(
        &mut self,
        now: MonoTime,
        peer: PeerIndex,
        said: impl Fn(HostId, Incarnation, Incarnation) -> ScheduleBody,
        datapaths: &mut [Datapath],
    ) {
        let Some((_, to)) = self.membership.peer(peer).filter(|status| status.up).and_then(|status| status.life) else {
            return;
        };
        if let Some((datapath, link)) = self.speaker(peer) {
            let body = said(self.own.0, self.own.1, to).encode();
            let lane = self.lanes.lane(now, peer, &body);
            datapaths[datapath].send_overlay(peer, (link, lane), &body);
        }
    }

    /// Heartbeats need not be waited for where a link itself says that it is gone.
    fn leave_missing(&mut self, now: MonoTime, datapaths: &[Datapath]) {
        for (at, datapath) in datapaths.iter().enumerate() {
            for link in (0..datapath.links().len()).filter(|link| !datapath.is_link_up(*link)) {
                for (peer, ways) in self.ways.iter().enumerate().filter(|(_, ways)| ways.len() > 1) {
                    if let Some(way) = ways.iter().position(|way| *way == (at, link)) {
                        self.monitor.fail(now, PeerIndex(peer as u16), way);
                    }
                }
            }
        }
    }

    /// Leaves links that have failed for others of their datapath, and returns to those that
    /// are preferred when they are good.
    fn choose_links(&mut self, hub: &mut Hub) {
        for ((peer, datapath), reach) in &mut self.reaches {
            let ways = self.ways[peer.index()].iter().zip(&self.trackers[peer.index()]);
            let of_here = ways.filter(|((at, _), _)| at == datapath);
            let links: Vec<(usize, Health)> = of_here.map(|((_, link), tracker)| (*link, tracker.health())).collect();
            if links.len() < 2 {
                continue;
            }
            // One that is held down is used for want of a better one, and by nobody else.
            let is_out = |health: Health| matches!(health, Health::Failed | Health::HeldDown);
            let out = links.iter().filter(|(_, health)| is_out(*health));
            let failed: BTreeSet<usize> = out.map(|(link, _)| *link).collect();
            let link = path::choose(reach.link, &links);
            let is_untold = self.untold.remove(&(*peer, *datapath));
            if (link, &failed) == (reach.link, &reach.failed) && !is_untold {
                continue;
            }
            if link != reach.link {
                let name = &self.names[peer.index()];
                let (of, names) = &self.links[*datapath];
                info!(
                    peer = name,
                    datapath = of,
                    from = names[reach.link],
                    to = names[link],
                    "messages go by another link"
                );
                for group in self.groups.iter_mut().filter(|group| group.datapath == *datapath) {
                    // Who is not reached by a link is not served by its group.
                    if group.link == link {
                        group.prober.add(*peer);
                    } else if group.link == reach.link {
                        group.prober.remove(*peer);
                    }
                }
            }
            (reach.link, reach.failed) = (link, failed);
            hub.set_links(*peer, DatapathIndex(*datapath as u8), reach.clone());
        }
    }

    /// The link that speaks to a peer, and its datapath: one that is up, or else the one that
    /// is preferred.
    fn speaker(&self, peer: PeerIndex) -> Option<(usize, usize)> {
        self.ways.get(peer.index())?.get(self.monitor.speaks_by(peer).unwrap_or(0)).copied()
    }

    fn tell_links(&mut self) {
        while let Some(event) = self.monitor.next_event() {
            if let links::Event::Speaks { peer, .. } = event {
                self.membership.speak_anew(peer);
            }
            match event {
                // What a lone link does, membership tells.
                links::Event::Up { peer, way } if self.ways[peer.index()].len() > 1 => {
                    info!(peer = self.name(peer), link = self.link(peer, way), "a link to the peer is up");
                }
                links::Event::Down { peer, way } if self.ways[peer.index()].len() > 1 => {
                    warn!(peer = self.name(peer), link = self.link(peer, way), "a link to the peer is down");
                }
                links::Event::Speaks { peer, way } if self.ways[peer.index()].len() > 1 => {
                    info!(peer = self.name(peer), link = self.link(peer, way), "the overlay speaks by this link");
                }
                links::Event::Up { .. } | links::Event::Down { .. } | links::Event::Speaks { .. } => {}
            }
        }
    }

    pub(crate) fn set_interest(&mut self, interest: Interest, on: bool) {
        if let Err(error) = self.membership.set_interest(interest, on) {
            warn!(key = %interest.stream, channel = %interest.channel, %error, "peers do not hear of a sink");
        }
    }

    pub(crate) fn set_offer(&mut self, key: StreamKey, check: u64, on: bool) {
        if let Err(error) = self.membership.set_offer(key, check, on) {
            warn!(%key, %error, "a stream's wire name is taken");
        }
    }

    fn pass_events(&mut self, hub: &mut Hub, datapaths: &mut [Datapath]) {
        while let Some(event) = self.membership.next_event() {
            match event {
                Event::RemoteInterest { peer, interest, on } => {
                    let topic = Topic { key: interest.stream, channel: interest.channel };
                    hub.remote_interest(peer, topic, interest.check, (interest.schema, interest.joins), on);
                }
                Event::PeerUp { peer, host, incarnation } | Event::PeerIncarnation { peer, host, incarnation } => {
                    info!(peer = self.name(peer), %host, life = %incarnation, "peer is up");
                    hub.peer_gone(peer);
                    self.other_versions.remove(&peer);
                    self.groups.iter_mut().for_each(|group| group.prober.forget(peer));
                    for datapath in datapaths.iter_mut() {
                        datapath.send(Command::SetPeerLife { peer, host, incarnation: Some(incarnation) });
                    }
                }
                // Its life stays known to the datapaths: what it still sends counts, and
                // if it comes back as it was, nothing is delivered twice.
                Event::PeerDown { peer } => {
                    warn!(peer = self.name(peer), "peer is not heard any more");
                    hub.peer_gone(peer);
                }
                Event::Collision { peer, stream } => {
                    warn!(peer = self.name(peer), key = %stream, "peer has another stream of the same wire name");
                }
                Event::DuplicateHostId { peer, host } => {
                    warn!(peer = self.name(peer), %host, "peer uses the identifier of another runtime; it is not heard");
                }
                Event::InterestRefused { peer, count } => {
                    warn!(peer = self.name(peer), count, "peer has more sinks than this runtime keeps");
                }
            }
        }
    }

    fn name(&self, peer: PeerIndex) -> &str {
        self.names.get(peer.index()).map_or("?", String::as_str)
    }

    fn link(&self, peer: PeerIndex, way: usize) -> &str {
        let way = self.ways.get(peer.index()).and_then(|ways| ways.get(way));
        way.and_then(|(datapath, link)| self.links.get(*datapath)?.1.get(*link)).map_or("?", String::as_str)
    }

    pub(crate) fn report(&self, now: MonoTime, roster: &Roster, plan: &Plan) -> Vec<PeerStatus> {
        roster.iter().map(|(peer, entry)| self.report_peer(now, plan, peer, entry)).collect()
    }

    fn report_peer(&self, now: MonoTime, plan: &Plan, peer: PeerIndex, entry: &Entry) -> PeerStatus {
        let status = self.membership.peer(peer);
        let heard = status.filter(|status| status.life.is_some()).map(|status| now.since(status.heard_at));
        let reaching = entry.each().map(|(datapath, link, _)| plan.datapaths[datapath].links[link].name.clone());
        PeerStatus {
            name: entry.name.clone(),
            up: self.is_up(peer),
            why_down: self.other_versions.get(&peer).filter(|_| !self.is_up(peer)).map(|(one, _)| version_text(*one)),
            incarnation: status.and_then(|status| status.life).map_or(0, |(_, incarnation)| incarnation.0),
            rtt_ns: self.monitor.speaks_by(peer).and_then(|way| {
                let Nanos(ns) = self.monitor.way(peer, way)?.rtt?;
                Some(ns)
            }),
            heard_ms_ago: heard.map(|Nanos(ns)| ns / 1_000_000),
            links: reaching.collect(),
            source: entry.source.name().to_owned(),
            ways: (0..self.ways[peer.index()].len()).filter_map(|way| self.report_way(now, plan, peer, way)).collect(),
        }
    }

    fn report_way(&self, now: MonoTime, plan: &Plan, peer: PeerIndex, way: usize) -> Option<WayStatus> {
        let status = self.monitor.way(peer, way)?;
        let (datapath, link) = self.ways[peer.index()][way];
        let datapath = &plan.datapaths[datapath];
        let link = &datapath.links[link];
        let ms = |since: MonoTime| now.since(since).0 / 1_000_000;
        Some(WayStatus {
            link: link.name.clone(),
            datapath: datapath.name.clone(),
            up: status.up_since.is_some(),
            up_ms: status.up_since.map(ms),
            heard_ms_ago: status.heard_at.map(ms),
            rtt_ns: status.rtt.map(|Nanos(ns)| ns),
            downs: status.downs,
            speaks: status.speaks,
        })
    }
}

/// Why a peer that sends frames of another version is not heard, and what helps.
fn version_text(version: u8) -> String {
    let older = if version < VERSION { "the peer's is the older one" } else { "this runtime is the older one" };
    format!(
        "it sends frames of version {version}, this runtime reads version {VERSION}: run one build on both ({older})"
    )
}

/// A prober for every link that has a group, without peers.
fn groups(plan: &Plan, own: (HostId, Incarnation)) -> Vec<GroupOf> {
    let links = plan.datapaths.iter().enumerate().flat_map(|(datapath, plan)| {
        plan.links.iter().enumerate().map(move |(link, plan)| (datapath, link, plan.technology.multicast()))
    });
    let group = |(datapath, link, multicast): (usize, usize, Option<MulticastPlan>)| {
        let plan = multicast?;
        let prober = Prober::new(own, plan.from_peers as usize, group::Limits::default());
        Some(GroupOf { datapath, link, plan, prober, lane: Lane::CONTROL })
    };
    links.filter_map(group).collect()
}

/// The links that reach a peer, each with its datapath: those of the datapath that carries the
/// overlay's lane first.
fn ways(plan: &Plan, entry: &Entry) -> Vec<(usize, usize)> {
    let first = plan.datapath_of(Lane::CONTROL).index();
    let mut ways: Vec<_> = entry.each().map(|(datapath, link, _)| (datapath, link)).collect();
    ways.sort_unstable_by_key(|(datapath, link)| (*datapath != first, *datapath, *link));
    ways
}
