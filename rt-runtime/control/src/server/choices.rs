//! The policy, as the server asks it: now and then, and for reports.

use super::{Parts, Server};
use crate::datapath::Datapath;
use crate::hub::view::FlowView;
use crate::paces;
use crate::policy::World;
use crate::report::Scope;
use insane_core::{DatapathIndex, Nanos, PeerIndex, StreamKey};
use insane_policy::budget::LinkKey;
use insane_policy::report::PolicyReport;
use insane_wire::status::StatusReport;
use serde::Serialize;
use std::collections::BTreeMap;

/// Links are chosen anew after so long even if nothing was seen to change: a change that nobody
/// counts would be a bug, and is to cost a stream no more than this.
const CHOOSE_ANYWAY: Nanos = Nanos::from_secs(30);

/// A status report, with what the policy says beside it.
#[derive(Serialize)]
pub(super) struct Answered {
    #[serde(flatten)]
    pub(super) status: StatusReport,
    pub(super) policy: PolicyReport,
}

impl Parts {
    /// Calls `with` with all that the policy looks at.
    fn with_world<R>(&self, with: impl FnOnce(&World<'_>) -> R) -> R {
        let flows: Vec<FlowView<'_>> = self.hub.flows().filter(|flow| !flow.peers.is_empty()).collect();
        let health = |peer: PeerIndex, link: LinkKey| self.overlay.health(peer, link);
        let used = |stream: StreamKey, peer: PeerIndex, datapath: DatapathIndex| {
            let usual = || self.overlay.reached_by(peer, datapath.index());
            let link = self.hub.link_of(stream, peer, datapath).or_else(usual)?;
            Some((link, self.hub.way_of(stream, peer, datapath)))
        };
        let (plan, roster) = (&self.facts.plan, &self.roster);
        with(&World { plan, roster, flows: &flows, health: &health, used: &used })
    }
}

impl Server {
    /// Decides anew which link each stream is to take, if there is a choice, and moves those
    /// that are to take another than they do.
    pub(super) fn choose_links(&mut self) {
        let plan = &self.parts.facts.plan;
        let has_choice = plan.datapaths.iter().any(|datapath| datapath.links.len() > 1);
        let holds = paces::has_any(plan) || self.parts.datapaths.iter().any(Datapath::is_paced);
        if !has_choice && !holds {
            return;
        }
        // To look at thousands of streams takes milliseconds: only where the outcome may differ.
        let seen = (self.parts.hub.changes(), self.parts.overlay.changes());
        if self.choices_of == Some(seen) && self.now.since(self.chose_at) < CHOOSE_ANYWAY {
            return;
        }
        self.decide_links();
        let wanted = self.wanted_links();
        let is_done = self.parts.hub.choose(&wanted, self.now);
        self.pace_links();
        (self.choices_of, self.chose_at) = (is_done.then_some(seen), self.now);
    }

    /// Holds best effort to what is left of the budgets of links.
    fn pace_links(&mut self) {
        for ((datapath, link), most) in self.parts.with_world(paces::of_links) {
            if let Some(datapath) = self.parts.datapaths.get_mut(datapath.index()) {
                datapath.set_pace(link, most);
            }
        }
    }

    /// Decides, as of now.
    pub(super) fn decide_links(&mut self) {
        let (policy, now) = (&mut self.policy, self.now);
        self.parts.with_world(|world| policy.tend(now, world));
    }

    /// The links that streams are to take where they are others than those of whatever else
    /// goes there. For whom nothing is decided, or nothing can be, stays.
    fn wanted_links(&self) -> BTreeMap<(StreamKey, PeerIndex), usize> {
        let Parts { hub, overlay, .. } = &self.parts;
        let flows = hub.flows().flat_map(|flow| {
            let FlowView { key, datapath, peers, .. } = flow;
            peers.into_iter().filter_map(move |peer| Some((key, peer, datapath?)))
        });
        let wanted = flows.filter_map(|(key, peer, datapath)| {
            let link = match self.policy.link_for(key, peer) {
                Some((of, link)) if of == datapath => {
                    Some(link.index()).filter(|link| overlay.reached_by(peer, datapath.index()) != Some(*link))
                }
                _ => hub.chosen(key, peer),
            };
            Some(((key, peer), link?))
        });
        wanted.collect()
    }

    /// What was decided, and why.
    pub(super) fn report_choices(&self, scope: Scope) -> PolicyReport {
        self.parts.with_world(|world| self.policy.report(self.now, scope, world))
    }
}
