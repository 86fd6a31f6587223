//! The policy, as the server asks it: now and then, and for reports.

use super::{Parts, Server};
use crate::hub::view::FlowView;
use crate::policy::World;
use crate::report::Scope;
use insane_core::PeerIndex;
use insane_policy::budget::LinkKey;
use insane_policy::health::Signal;
use insane_policy::report::PolicyReport;
use insane_wire::status::StatusReport;
use serde::Serialize;

/// A status report, with what the policy says beside it.
#[derive(Serialize)]
pub(super) struct Answered {
    #[serde(flatten)]
    pub(super) status: StatusReport,
    pub(super) policy: PolicyReport,
}

impl Parts {
    /// What is seen of a link to a peer.
    fn signal(&self, peer: PeerIndex, (datapath, link): LinkKey) -> Signal {
        let is_up = self.datapaths.get(datapath.index()).is_some_and(|datapath| datapath.is_link_up(link.index()));
        if is_up { self.overlay.signal(peer, datapath.index(), link.index()) } else { Signal::Gone }
    }

    /// Calls `with` with all that the policy looks at.
    fn with_world<R>(&self, with: impl FnOnce(&World<'_>) -> R) -> R {
        let flows: Vec<FlowView<'_>> = self.hub.flows().filter(|flow| !flow.peers.is_empty()).collect();
        let signal = |peer: PeerIndex, link: LinkKey| self.signal(peer, link);
        with(&World { plan: &self.facts.plan, roster: &self.roster, flows: &flows, signal: &signal })
    }
}

impl Server {
    /// Decides anew which link each stream is to take.
    pub(super) fn choose_links(&mut self) {
        let (policy, now) = (&mut self.policy, self.now);
        self.parts.with_world(|world| policy.tend(now, world));
    }

    /// What was decided, and why.
    pub(super) fn report_choices(&self, scope: Scope) -> PolicyReport {
        self.parts.with_world(|world| self.policy.report(self.now, scope, world))
    }
}
