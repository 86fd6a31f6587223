//! Streams: one quality of service for all who open the same name in a domain.

use super::declared::{Asked, give};
use super::session::numbers_used_up;
use super::tables::{Contract, Hints, Stream};
use super::{Hub, Refusal};
use crate::action::Action;
use crate::declaration::Given;
use crate::quota::Amounts;
use insane_core::{
    Consumption, Datapath, Determinism, DomainIndex, Qos, Reliability, SessionId, StreamId, StreamKey, stream_check,
    stream_key,
};
use insane_wire::control::{Code, Event, name_fits};
use std::collections::BTreeSet;

const ONE_STREAM: Amounts =
    Amounts { sessions: 0, streams: 1, sources: 0, sinks: 0, connections: 0, bytes: 0, buffers: 0 };

impl Hub {
    pub(super) fn open_stream(
        &mut self,
        session: SessionId,
        req: u32,
        name: String,
        qos: Qos,
        isolated: bool,
    ) -> Result<(), Refusal> {
        if !name_fits(&name) {
            return Err(Refusal::new(Code::Invalid, "a stream's name is 1 to 64 bytes of printable text"));
        }
        check_qos(&qos)?;
        let domain = self.sessions[&session].domain;
        let asked = Asked { qos, isolated };
        let given = give(self.spec.domain(domain), &name, &asked).map_err(|why| Refusal::new(Code::Mismatch, why))?;
        check_qos(&given.qos)?;
        let Given { qos, isolated, history_max } = given;
        if isolated && self.spec.datapaths.is_empty() {
            return Err(Refusal::new(Code::Resources, "an isolated stream needs a datapath, and none is configured"));
        }
        let key = stream_key(&self.spec.domain(domain).name, &name);
        self.check_contract(key, domain, &name, &given, &asked)?;
        self.charge(domain, &ONE_STREAM)?;
        let Some(stream) = self.ids.stream() else {
            self.account(domain).release(&ONE_STREAM);
            return Err(numbers_used_up());
        };
        let check = stream_check(&self.spec.domain(domain).name, &name);
        let new = Contract {
            domain,
            name,
            check,
            qos,
            isolated,
            asked_isolated: asked.isolated,
            asked: asked.qos,
            hints: Hints::default(),
            history_max,
            opened: 0,
        };
        let contract = self.contracts.entry(key).or_insert(new);
        contract.opened += 1;
        // What is open stays as it is: that is what this opener gets.
        let (qos, history_max) = (contract.qos, contract.history_max);
        if contract.opened == 1 {
            self.actions.push_back(Action::Offer { key, check, on: true });
        }
        self.streams.insert(stream, Stream { session, key, sources: BTreeSet::new(), sinks: BTreeSet::new() });
        if let Some(row) = self.sessions.get_mut(&session) {
            row.streams.insert(stream);
        }
        self.send(session, Event::StreamOpened { req, stream, key, lane: qos.lane(), qos, history_max }, Vec::new());
        Ok(())
    }

    fn check_contract(
        &self,
        key: StreamKey,
        domain: DomainIndex,
        name: &str,
        given: &Given,
        asked: &Asked,
    ) -> Result<(), Refusal> {
        let Some(contract) = self.contracts.get(&key) else { return Ok(()) };
        if contract.domain != domain || contract.name != name {
            let reason = format!("the wire name of stream {name:?} is taken by another stream; choose another name");
            return Err(Refusal::new(Code::Resources, reason));
        }
        // The words of the configuration may have changed since: who asks for the same gets the
        // same.
        let is_isolated_alike = contract.isolated == given.isolated || contract.asked_isolated == asked.isolated;
        if !(contract.qos == given.qos || contract.asked == asked.qos) || !is_isolated_alike {
            let open = describe(&contract.qos, contract.isolated);
            let wanted = describe(&given.qos, given.isolated);
            let reason = format!("stream {name:?} is open as ({open}) and was asked for as ({wanted})");
            return Err(Refusal::new(Code::Mismatch, reason));
        }
        Ok(())
    }

    pub(super) fn close_stream_request(
        &mut self,
        session: SessionId,
        req: u32,
        stream: StreamId,
    ) -> Result<(), Refusal> {
        self.own_stream(session, stream)?;
        self.close_stream(stream);
        if let Some(row) = self.sessions.get_mut(&session) {
            row.streams.remove(&stream);
        }
        self.send(session, Event::Done { req }, Vec::new());
        Ok(())
    }

    /// Closes a stream with its sources and sinks.
    pub(super) fn close_stream(&mut self, stream: StreamId) {
        let Some(row) = self.streams.get(&stream) else { return };
        let (sources, sinks) = (row.sources.clone(), row.sinks.clone());
        for source in sources {
            self.close_source(source);
        }
        for sink in sinks {
            self.close_sink(sink);
        }
        let Some(row) = self.streams.remove(&stream) else { return };
        let Some(contract) = self.contracts.get_mut(&row.key) else { return };
        contract.opened -= 1;
        let domain = contract.domain;
        let check = contract.check;
        if contract.opened == 0 {
            self.contracts.remove(&row.key);
            self.placed.retain(|(key, _), _| *key != row.key);
            self.chosen.retain(|(key, _), _| *key != row.key);
            self.actions.push_back(Action::Offer { key: row.key, check, on: false });
        }
        self.account(domain).release(&ONE_STREAM);
    }

    /// Other hints hold for an open stream: who has it open says so, or who runs the runtime. Its
    /// lane follows at once, and the policy chooses its links anew.
    pub(super) fn set_qos(&mut self, session: SessionId, name: &str, hints: Hints) -> Result<(), Refusal> {
        let domain = self.sessions[&session].domain;
        let is_it = |contract: &&mut Contract| contract.domain == domain && contract.name == name;
        let Some((key, contract)) = self.contracts.iter_mut().find(|(_, contract)| is_it(contract)) else {
            return Err(Refusal::new(Code::Unknown, format!("no stream {name:?} is open in the domain")));
        };
        let row = &self.sessions[&session];
        let has_it = row.streams.iter().any(|stream| self.streams.get(stream).is_some_and(|row| row.key == *key));
        if !has_it && !self.spec.is_operator(&row.origin) {
            let reason = "only who has a stream open, and who runs the runtime, may change what it asks for";
            return Err(Refusal::new(Code::Access, reason));
        }
        let hints = hints.over(contract.hints);
        let asked = Asked { qos: hints.on(contract.asked), isolated: contract.asked_isolated };
        let given = give(self.spec.domain(domain), name, &asked).map_err(|why| Refusal::new(Code::Mismatch, why))?;
        if (given.qos.datapath, given.qos.priority) != (asked.qos.datapath, asked.qos.priority) {
            let what = describe(&given.qos, given.isolated);
            let reason = format!("the configuration declares otherwise: with that it would be ({what})");
            return Err(Refusal::new(Code::Mismatch, reason));
        }
        contract.hints = hints;
        contract.qos.datapath = given.qos.datapath;
        self.follow_declarations();
        self.changes += 1;
        Ok(())
    }

    /// The stream, if it is the session's.
    pub(super) fn own_stream(&self, session: SessionId, stream: StreamId) -> Result<&Stream, Refusal> {
        let row = self.streams.get(&stream).filter(|row| row.session == session);
        row.ok_or_else(|| Refusal::new(Code::Unknown, format!("this session has no stream {stream}")))
    }
}

fn check_qos(qos: &Qos) -> Result<(), Refusal> {
    let Determinism::TimeSensitive { period, offset, deadline, .. } = qos.determinism else { return Ok(()) };
    if period.0 > 0 && offset < deadline && deadline <= period {
        return Ok(());
    }
    let reason = format!(
        "a time-sensitive stream needs offset < deadline <= period; asked for: offset {offset}, deadline {deadline}, period {period}"
    );
    Err(Refusal::new(Code::Invalid, reason))
}

/// A quality of service in words.
pub(crate) fn describe(qos: &Qos, isolated: bool) -> String {
    let reliability = match qos.reliability {
        Reliability::Unreliable => "unreliable",
        Reliability::Reliable => "reliable",
    };
    let datapath = match qos.datapath {
        Datapath::Standard => "standard",
        Datapath::Fast => "fast",
    };
    let consumption = match qos.consumption {
        Consumption::Poll => "poll",
        Consumption::Low => "low",
    };
    let determinism = match qos.determinism {
        Determinism::BestEffort => "best effort".to_owned(),
        Determinism::TimeSensitive { period, offset, deadline, size, late } => format!(
            "time-sensitive: period {period}, offset {offset}, deadline {deadline}, {size} bytes, late: {late:?}"
        ),
    };
    let priority = qos.priority.get();
    let isolated = if isolated { ", isolated" } else { "" };
    format!("{reliability}, {datapath}, {consumption}, {determinism}, priority {priority}{isolated}")
}
