//! Declarations of the configuration, and the streams that are open when they change.
//!
//! What a stream is given is agreed upon when it is opened: rings, memory and the peers' flows
//! are made by it. Its priority alone is nothing but a place in the order of sending, so it
//! follows the declarations while the stream is open.

use super::Hub;
use super::stream::describe;
use super::tables::{Contract, Stage};
use crate::action::Action;
use crate::declaration::{self, Given};
use crate::spec::DomainSpec;
use insane_config::StreamPlan;
use insane_core::{DatapathIndex, DomainIndex, Qos, StreamKey};

/// What an opener asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) qos: Qos,
    pub(super) isolated: bool,
}

/// What a stream of a domain is given, or why nothing.
pub(super) fn give(domain: &DomainSpec, name: &str, asked: &Asked) -> Result<Given, String> {
    let declared = StreamPlan::closest(&domain.streams, name);
    let given = declaration::give(declared, &asked.qos, asked.isolated)?;
    Ok(Given { isolated: given.isolated || domain.isolated, ..given })
}

/// What other declarations mean for an open stream.
struct Effect {
    qos: Qos,
    later: String,
}

fn effect(contract: &Contract, domain: &DomainSpec) -> Effect {
    let asked = Asked { qos: contract.hints.on(contract.asked), isolated: contract.asked_isolated };
    match give(domain, &contract.name, &asked) {
        Err(why) => {
            Effect { qos: contract.qos, later: format!("it keeps what it has; opened anew it is refused: {why}") }
        }
        Ok(given) => {
            let qos = Qos { priority: given.qos.priority, ..contract.qos };
            let same = (given.qos, given.isolated, given.history_max) == (qos, contract.isolated, contract.history_max);
            let later = if same {
                String::new()
            } else {
                let history = if given.history_max == contract.history_max {
                    String::new()
                } else {
                    format!(", history of at most {}", given.history_max)
                };
                format!("opened anew it is ({}{history})", describe(&given.qos, given.isolated))
            };
            Effect { qos, later }
        }
    }
}

impl Hub {
    /// What these rules would mean for the streams that are open: of each that they change, its
    /// domain, its name, and what, in words.
    #[must_use]
    pub fn effects(&self, domains: &[DomainSpec]) -> Vec<(DomainIndex, String, String)> {
        let mut effects = Vec::new();
        for contract in self.contracts.values() {
            let Some(domain) = domains.get(contract.domain.index()) else { continue };
            let before = effect(contract, self.spec.domain(contract.domain));
            let Effect { qos, later } = effect(contract, domain);
            let mut words = Vec::new();
            if qos != contract.qos {
                let (from, to) = (contract.qos, qos);
                words.push(format!(
                    "priority {} -> {}, lane {} -> {}: at once, for sources that send, too",
                    from.priority.get(),
                    to.priority.get(),
                    from.lane(),
                    to.lane()
                ));
            }
            if later != before.later {
                words.push(if later.is_empty() { "it is now as the configuration says".to_owned() } else { later });
            }
            if !words.is_empty() {
                effects.push((contract.domain, contract.name.clone(), words.join("; ")));
            }
        }
        effects
    }

    /// What of the declarations holds only when a stream is opened anew; empty: nothing.
    pub(super) fn later(&self, contract: &Contract) -> String {
        effect(contract, self.spec.domain(contract.domain)).later
    }

    /// The declaration that is for a stream.
    pub(super) fn declared(&self, contract: &Contract) -> Option<&StreamPlan> {
        StreamPlan::closest(&self.spec.domain(contract.domain).streams, &contract.name)
    }

    /// Gives open streams the priorities that the declarations have now. Cannot fail.
    pub(super) fn follow_declarations(&mut self) {
        let mut moved: Vec<StreamKey> = Vec::new();
        for (key, contract) in &mut self.contracts {
            let qos = effect(contract, &self.spec.domains[contract.domain.index()]).qos;
            if qos.lane() != contract.qos.lane() {
                moved.push(*key);
            }
            contract.qos = qos;
        }
        for source in self.sources.values().filter(|source| moved.contains(&source.topic.key)) {
            let lane = self.contracts[&source.topic.key].qos.lane();
            // Those that are not active yet are handed over with the lane of that time.
            let active = |(datapath, conn): (&DatapathIndex, &insane_core::ConnId)| {
                let row = self.conns.get(conn)?;
                (row.stage == Stage::Active).then_some(Action::SetLane { datapath: *datapath, conn: *conn, lane })
            };
            self.actions.extend(source.datapaths.iter().filter_map(active));
        }
    }
}
