//! The host of membership: frames come from the datapaths and go out by them.

use crate::action::Topic;
use crate::datapath::Datapath;
use crate::hub::Hub;
use crate::roster::{Entry, Roster};
use insane_config::Plan;
use insane_core::limits::PEERS_MAX;
use insane_core::{HostId, Incarnation, Lane, MonoTime, Nanos, PeerIndex, Schema, StreamKey};
use insane_engine::{Command, OverlayFrame};
use insane_overlay::membership::{Event, Limits, Membership};
use insane_wire::overlay::{BODY_BYTES_MAX, Interest};
use insane_wire::status::PeerStatus;
use tracing::{info, warn};

/// Frames sent in one go, at most; the rest goes with the next.
const FRAMES_MAX: usize = 256;

/// Membership, and by which datapath each peer is spoken to.
pub(crate) struct Overlay {
    membership: Membership,
    /// By number; empty where there is no peer.
    names: Vec<String>,
    by: Vec<Option<usize>>,
}

impl Overlay {
    pub(crate) fn new(plan: &Plan, roster: &Roster, host: HostId, incarnation: Incarnation) -> Self {
        let mut overlay = Overlay {
            membership: Membership::new(host, incarnation, 0, Limits::default()),
            names: vec![String::new(); PEERS_MAX],
            by: vec![None; PEERS_MAX],
        };
        for (peer, entry) in roster.iter() {
            overlay.add_peer(peer, entry, plan);
        }
        overlay
    }

    /// There is one more peer.
    pub(crate) fn add_peer(&mut self, peer: PeerIndex, entry: &Entry, plan: &Plan) {
        self.names[peer.index()].clone_from(&entry.name);
        self.by[peer.index()] = speaker(plan, entry);
        self.membership.add_peer(peer);
    }

    /// A peer is none any more; what the hub knows of it, the caller drops.
    pub(crate) fn remove_peer(&mut self, peer: PeerIndex) {
        self.names[peer.index()].clear();
        self.by[peer.index()] = None;
        self.membership.remove_peer(peer);
    }

    /// When something is due, if ever.
    pub(crate) fn next_deadline(&self) -> Option<MonoTime> {
        self.membership.next_deadline()
    }

    pub(crate) fn frame(&mut self, now: MonoTime, frame: &OverlayFrame, hub: &mut Hub, datapaths: &mut [Datapath]) {
        self.membership.on_frame(now, frame.peer, &frame.body);
        self.pass_events(hub, datapaths);
    }

    /// Sends what is due.
    pub(crate) fn poll(&mut self, now: MonoTime, hub: &mut Hub, datapaths: &mut [Datapath]) {
        let mut body = [0; BODY_BYTES_MAX];
        for _ in 0..FRAMES_MAX {
            let Some((peer, len)) = self.membership.poll(now, &mut body) else { break };
            if let Some(at) = self.by.get(peer.index()).copied().flatten() {
                datapaths[at].send_overlay(peer, &body[..len]);
            }
        }
        self.pass_events(hub, datapaths);
    }

    pub(crate) fn set_interest(&mut self, topic: Topic, check: u64, schema: Option<Schema>, on: bool) {
        let interest = Interest { stream: topic.key, check, channel: topic.channel, schema };
        if let Err(error) = self.membership.set_interest(interest, on) {
            warn!(key = %topic.key, channel = %topic.channel, %error, "peers do not hear of a sink");
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
                    hub.remote_interest(peer, topic, interest.check, interest.schema, on);
                }
                Event::PeerUp { peer, host, incarnation } | Event::PeerIncarnation { peer, host, incarnation } => {
                    info!(peer = self.name(peer), %host, %incarnation, "peer is up");
                    hub.peer_gone(peer);
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

    pub(crate) fn report(&self, now: MonoTime, roster: &Roster, plan: &Plan) -> Vec<PeerStatus> {
        roster.iter().map(|(peer, entry)| self.report_peer(now, plan, peer, entry)).collect()
    }

    fn report_peer(&self, now: MonoTime, plan: &Plan, peer: PeerIndex, entry: &Entry) -> PeerStatus {
        let status = self.membership.peer(peer);
        let heard = status.filter(|status| status.life.is_some()).map(|status| now.since(status.heard_at));
        let reaching = entry.each().map(|(datapath, link, _)| plan.datapaths[datapath].links[link].name.clone());
        PeerStatus {
            name: entry.name.clone(),
            up: status.is_some_and(|status| status.up),
            incarnation: status.and_then(|status| status.life).map_or(0, |(_, incarnation)| incarnation.0),
            rtt_ns: None,
            heard_ms_ago: heard.map(|Nanos(ns)| ns / 1_000_000),
            links: reaching.collect(),
            source: entry.source.name().to_owned(),
        }
    }
}

/// The datapath that speaks to a peer: the one that carries the overlay's lane, or
/// else any that reaches it.
fn speaker(plan: &Plan, entry: &Entry) -> Option<usize> {
    let reaches = |at: &usize| entry.reach(*at).is_some();
    let first = plan.datapath_of(Lane::CONTROL).index();
    std::iter::once(first).chain(0..plan.datapaths.len()).find(reaches)
}
