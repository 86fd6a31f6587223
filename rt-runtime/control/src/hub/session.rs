//! Sessions: HELLO, requests, the end.

use super::conn::Tell;
use super::port::Receives;
use super::tables::{Greeting, Hints, Owner, Session};
use super::{GREETING_MAX, HELLO_TIMEOUT, Hub, OBSERVERS_MAX, OBSERVERS_OF_USER_MAX, Packet, Refusal};
use crate::action::{Action, Beside, Note, ObjectKind, Writer};
use crate::quota::{Amounts, Bucket, Pace};
use crate::spec::Origin;
use insane_core::{ConnId, DomainIndex, MonoTime, SessionId};
use insane_wire::control::{
    Code, Event, Hello, PACKET_BYTES_MAX, Request, Role, SinkWake, VERSION_MAX, VERSION_MIN, decode, decode_hello,
    decode_hello_prefix, negotiate,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a status report costs, in requests: it walks all tables.
const STATUS_COST: u32 = 8;

impl Hub {
    /// A client has connected. Its HELLO must come within [`HELLO_TIMEOUT`].
    ///
    /// # Errors
    /// Its user has too many sockets that have not said HELLO, or numbers have run
    /// out; the host closes the socket.
    pub fn accept(&mut self, origin: Origin, now: MonoTime) -> Result<SessionId, Refusal> {
        let uid = origin.credentials().uid;
        let waiting = self.greeting.values().filter(|g| g.origin.credentials().uid == uid).count();
        if waiting >= GREETING_MAX && !origin.in_process() {
            let reason = format!("user {uid} has {waiting} connections that have not said HELLO");
            return Err(Refusal::new(Code::Quota, reason));
        }
        let session = self.ids.session().ok_or_else(numbers_used_up)?;
        self.greeting.insert(session, Greeting { origin, deadline: now + HELLO_TIMEOUT });
        Ok(session)
    }

    /// A packet came. Packets of sessions that are over are ignored.
    pub fn packet(&mut self, session: SessionId, packet: Packet<'_>, now: MonoTime) {
        let known = self.greeting.contains_key(&session) || self.sessions.contains_key(&session);
        if !known {
            return;
        }
        self.asked_at = now;
        let result = check_packet(packet).and_then(|()| match self.greeting.remove(&session) {
            Some(greeting) => check_descriptors(packet.fds, 1).and_then(|()| {
                self.adopts = packet.fds > 0;
                self.hello(session, greeting, packet.bytes, now)
            }),
            None => self.request(session, packet, now),
        });
        if let Err(refusal) = result {
            self.expel(session, refusal);
        }
    }

    /// The client has closed its socket or died.
    pub fn gone(&mut self, session: SessionId) {
        self.greeting.remove(&session);
        if self.end_session(session) {
            self.note(Note::SessionClosed { session, reason: None });
        }
    }

    /// Ends a session for the given reason. Harmless if it is over already.
    pub fn expel(&mut self, session: SessionId, refusal: Refusal) {
        self.greeting.remove(&session);
        if let Some(row) = self.sessions.remove(&session) {
            self.cut(&row);
            self.end_row(session, row);
        }
        self.close(session, refusal);
    }

    /// Its process lives, and its sources go on to local sinks with the same buffers: the datapaths
    /// are told to read them no more. What one reads before it hears of that may be other messages of
    /// this client by then, and harms nobody else.
    fn cut(&mut self, row: &Session) {
        let sources = row.streams.iter().filter_map(|stream| self.streams.get(stream)).flat_map(|row| &row.sources);
        let conns = sources.filter_map(|source| self.sources.get(source)).flat_map(|row| row.datapaths.values());
        let conns: Vec<ConnId> = conns.copied().collect();
        for conn in conns {
            self.retire(conn, Tell::Both);
        }
    }

    fn close(&mut self, session: SessionId, refusal: Refusal) {
        let Refusal { code, reason } = refusal;
        self.actions.push_back(Action::Close { session, code, reason: reason.clone() });
        self.note(Note::SessionClosed { session, reason: Some((code, reason)) });
    }

    /// Ends every session, since the runtime stops. None is told that others end: their
    /// rings need no runtime and go on.
    pub fn shutdown(&mut self) {
        let sessions = std::mem::take(&mut self.sessions);
        let greeting = std::mem::take(&mut self.greeting);
        let all: Vec<SessionId> = greeting.keys().chain(sessions.keys()).copied().collect();
        for (session, row) in sessions {
            self.cut(&row);
            self.end_row(session, row);
        }
        for session in all {
            self.close(session, Refusal::new(Code::Shutdown, "the runtime is shutting down"));
        }
    }

    fn hello(&mut self, session: SessionId, greeting: Greeting, bytes: &[u8], now: MonoTime) -> Result<(), Refusal> {
        let protocol = |e: insane_wire::control::DecodeError| Refusal::new(Code::Protocol, e.to_string());
        let prefix = decode_hello_prefix(bytes).map_err(protocol)?;
        let version = negotiate(prefix).ok_or_else(|| {
            let (min, max) = (prefix.version_min, prefix.version_max);
            let older = if max < VERSION_MIN { "the client is the older one" } else { "this runtime is the older one" };
            let reason = format!(
                "this runtime speaks protocol versions {VERSION_MIN} to {VERSION_MAX}, the client {min} to {max}: run \
                 both from one build ({older})"
            );
            Refusal::new(Code::Version, reason)
        })?;
        let hello = decode_hello(bytes).map_err(protocol)?;
        let operator = hello.role == Role::Observer && self.spec.is_operator(&greeting.origin);
        let chosen = self.spec.choose_domain(&greeting.origin, hello.domain.as_deref());
        // Who runs the runtime may watch it, whatever the access rules say.
        let domain = chosen.or(operator.then_some(DomainIndex(0))).ok_or_else(|| {
            let uid = greeting.origin.credentials().uid;
            let what = hello.domain.as_ref().map_or("any domain".into(), |name| format!("a domain {name:?}"));
            Refusal::new(Code::Access, format!("no access rule lets user {uid} into {what}"))
        })?;
        self.admit(session, greeting.origin, hello, version, domain, now)
    }

    fn admit(
        &mut self,
        session: SessionId,
        origin: Origin,
        hello: Hello,
        version: u16,
        domain: DomainIndex,
        now: MonoTime,
    ) -> Result<(), Refusal> {
        let lines = self.spec.counter_lines;
        let bytes = (self.spec.sizes.counters)(lines);
        let charge = match hello.role {
            Role::Application => Amounts { sessions: 1, bytes, ..Amounts::default() },
            Role::Observer => {
                self.check_observers(&origin)?;
                if self.adopts {
                    return Err(Refusal::new(Code::Protocol, "an observer has no memory to bring"));
                }
                Amounts::default()
            }
        };
        self.charge(domain, &charge)?;
        let who = origin.credentials().clone();
        let rate = self.account(domain).requests_per_second();
        let application = hello.role == Role::Application;
        let kind = ObjectKind::Counters { lines };
        let adopted = self.adopts;
        let writer = if adopted { Writer::Adopted } else { Writer::Session(session) };
        let counters = application.then(|| self.create(Owner::Session(session), kind, writer));
        let row = Session {
            origin,
            name: hello.name.clone(),
            role: hello.role,
            domain,
            bucket: Bucket::new(rate, now),
            counters,
            counters_mapped: !application || adopted,
            ports: 0,
            streams: BTreeSet::new(),
            doorbells: BTreeMap::new(),
            stale: 0,
            charge,
        };
        self.sessions.insert(session, row);
        let welcome = Event::Welcome {
            version,
            session,
            domain: self.spec.domain(domain).name.clone(),
            counters_bytes: if application { bytes as u32 } else { 0 },
            cores: self.spec.cores.clone(),
        };
        let beside = counters.filter(|_| !adopted).map(Beside::ReadWrite);
        self.send(session, welcome, beside.into_iter().collect());
        self.note(Note::SessionOpened { session, name: hello.name, who, domain });
        Ok(())
    }

    /// Operators have places of their own, and no other user has all of the rest.
    fn check_observers(&self, origin: &Origin) -> Result<(), Refusal> {
        let (uid, is_operator) = (origin.credentials().uid, self.spec.is_operator(origin));
        let observers = self.sessions.values().filter(|row| row.role == Role::Observer);
        let alike = observers.filter(|row| self.spec.is_operator(&row.origin) == is_operator);
        let (all, own) =
            alike.fold((0, 0), |(all, own), row| (all + 1, own + usize::from(row.origin.credentials().uid == uid)));
        if !is_operator && own >= OBSERVERS_OF_USER_MAX {
            let reason = format!("at most {OBSERVERS_OF_USER_MAX} tools of user {uid} may watch at a time");
            return Err(Refusal::new(Code::Quota, reason));
        }
        if all >= OBSERVERS_MAX {
            let whose = if is_operator { "who run the runtime" } else { "who do not run the runtime" };
            let reason = format!("at most {OBSERVERS_MAX} tools of those {whose} may watch at a time");
            return Err(Refusal::new(Code::Quota, reason));
        }
        Ok(())
    }

    /// Carries out a request. An error ends the session; a refusal does not.
    fn request(&mut self, session: SessionId, packet: Packet<'_>, now: MonoTime) -> Result<(), Refusal> {
        let request: Request = decode(packet.bytes).map_err(|e| Refusal::new(Code::Protocol, e.to_string()))?;
        check_descriptors(packet.fds, adoptable(&request))?;
        self.adopts = packet.fds > 0;
        let Some(req) = number(&request) else { return self.answer_of_client(session, &request, now) };
        let cost = match request {
            Request::Status { .. } => STATUS_COST,
            // Who runs the runtime must be able to widen a quota that leaves no request.
            Request::Reload { .. } | Request::Schedule { .. } if self.is_operator(session) => 0,
            _ => 1,
        };
        let result = self.pace(session, cost, now)?.and_then(|()| self.carry_out(session, request));
        if let Err(Refusal { code, reason }) = result {
            self.note(Note::Refused { session, code, reason: reason.clone() });
            self.send(session, Event::Failed { req, code, reason }, Vec::new());
        }
        Ok(())
    }

    fn carry_out(&mut self, session: SessionId, request: Request) -> Result<(), Refusal> {
        let observes = self.sessions[&session].role == Role::Observer;
        let is_for_observers = matches!(
            request,
            Request::Status { .. }
                | Request::Reload { .. }
                | Request::Schedule { .. }
                | Request::MoveStream { .. }
                | Request::SetQos { .. }
                | Request::Trace { .. }
        );
        if observes && !is_for_observers {
            return Err(Refusal::new(Code::Access, "an observer may ask for the status only"));
        }
        self.check_rules(session, &request)?;
        match request {
            Request::OpenStream { req, name, qos, isolated } => self.open_stream(session, req, name, qos, isolated),
            Request::CloseStream { req, stream } => self.close_stream_request(session, req, stream),
            Request::CreateSource { req, stream, channel, uid, classes, schema, keeps, line } => {
                self.create_source(session, req, stream, channel, uid, &classes, (schema, keeps, line))
            }
            Request::CloseSource { req, source } => self.close_source_request(session, req, source),
            Request::CreateSink { req, stream, channel, uid, depth, wake, schema, line } => {
                self.create_sink(session, req, stream, channel, uid, depth, Receives::Fully(wake), (schema, line))
            }
            Request::CreateTap { req, stream, channel, uid, depth, line } => {
                self.create_sink(session, req, stream, channel, uid, depth, Receives::Watching, (None, line))
            }
            Request::CloseSink { req, sink } => self.close_sink_request(session, req, sink),
            Request::Status { req } => {
                self.actions.push_back(Action::Status { session, req });
                Ok(())
            }
            Request::Reload { req, dry_run, file, last, piece } => {
                self.check_operator(session, "change the configuration")?;
                self.actions.push_back(Action::Reload { session, req, dry_run, file, last, piece });
                Ok(())
            }
            Request::Schedule { req, order } => {
                self.check_operator(session, "change the schedule")?;
                self.actions.push_back(Action::Schedule { session, req, order });
                Ok(())
            }
            Request::PlaceThread { req, tid, priority, core } => {
                self.check_other_process(session)?;
                self.actions.push_back(Action::PlaceThread { session, req, tid, priority, core });
                Ok(())
            }
            Request::LockMemory { req, bytes } => {
                self.check_other_process(session)?;
                self.actions.push_back(Action::LockMemory { session, req, bytes });
                Ok(())
            }
            Request::MoveStream { req, stream, link, peer } => {
                self.check_operator(session, "change the links of streams")?;
                self.actions.push_back(Action::MoveStream { session, req, stream, link, peer });
                Ok(())
            }
            Request::SetQos { req, stream, datapath, priority } => {
                self.set_qos(session, &stream, Hints { datapath, priority })?;
                self.send(session, Event::Done { req }, Vec::new());
                Ok(())
            }
            Request::Trace { req, datapath } => {
                // What a datapath does is of all tenants.
                self.check_operator(session, "take a trace")?;
                self.actions.push_back(Action::Trace { session, req, datapath });
                Ok(())
            }
            // Those without a number are answers; `request` has taken them out.
            Request::Mapped { .. }
            | Request::Kept { .. }
            | Request::SourceMapped { .. }
            | Request::SinkMapped { .. }
            | Request::SessionMapped
            | Request::Violation { .. } => Ok(()),
        }
    }

    fn check_operator(&self, session: SessionId, what: &str) -> Result<(), Refusal> {
        if self.is_operator(session) {
            return Ok(());
        }
        let uid = self.sessions[&session].origin.credentials().uid;
        let reason = format!("user {uid} may not {what}: only root and the user who runs the runtime may");
        Err(Refusal::new(Code::Access, reason))
    }

    /// The process that hosts the runtime has no other rights than the runtime.
    fn check_other_process(&self, session: SessionId) -> Result<(), Refusal> {
        if self.sessions[&session].origin.in_process() {
            let reason = "the runtime is in this very process, and may do no more than it";
            return Err(Refusal::new(Code::Access, reason));
        }
        Ok(())
    }

    /// A session that the access rules would not let in any more keeps what it has, and gets
    /// nothing new.
    fn check_rules(&self, session: SessionId, request: &Request) -> Result<(), Refusal> {
        let asks_for_more = matches!(
            request,
            Request::OpenStream { .. }
                | Request::CreateSource { .. }
                | Request::CreateSink { .. }
                | Request::CreateTap { .. }
                | Request::PlaceThread { .. }
                | Request::LockMemory { .. }
        );
        if !asks_for_more || !self.is_outside_rules(&self.sessions[&session]) {
            return Ok(());
        }
        let row = &self.sessions[&session];
        let (uid, domain) = (row.origin.credentials().uid, &self.spec.domain(row.domain).name);
        let reason = format!("the access rules have changed: none lets user {uid} into domain {domain:?} any more");
        Err(Refusal::new(Code::Access, reason))
    }

    /// Carries out what needs no answer. An error ends the session.
    fn answer_of_client(&mut self, session: SessionId, answer: &Request, now: MonoTime) -> Result<(), Refusal> {
        match answer {
            Request::Mapped { conn, step } => self.mapped(session, *conn, *step),
            Request::Kept { conn } => self.kept(session, *conn),
            Request::SourceMapped { source } => self.source_mapped(session, *source),
            Request::SinkMapped { sink } => self.sink_mapped(session, *sink),
            Request::SessionMapped => self.session_mapped(session),
            Request::Violation { conn } => self.violation(session, *conn, now),
            _ => Ok(()),
        }
    }

    fn session_mapped(&mut self, session: SessionId) -> Result<(), Refusal> {
        let Some(row) = self.sessions.get_mut(&session) else { return Ok(()) };
        if row.counters_mapped {
            return Err(Refusal::new(Code::Violation, "the counters page was acknowledged before, or there is none"));
        }
        row.counters_mapped = true;
        let counters = row.counters;
        self.seal(counters);
        Ok(())
    }

    /// Takes `cost` requests from the session's bucket. The outer error ends the
    /// session, the inner one refuses the request.
    pub(super) fn pace(
        &mut self,
        session: SessionId,
        cost: u32,
        now: MonoTime,
    ) -> Result<Result<(), Refusal>, Refusal> {
        let Some(row) = self.sessions.get_mut(&session) else { return Ok(Ok(())) };
        let pace = row.bucket.take(cost, now);
        let domain = row.domain;
        if pace == Pace::Fine {
            return Ok(Ok(()));
        }
        let account = self.account(domain);
        account.refuse_request();
        let rate = account.requests_per_second();
        let refusal = Refusal::new(Code::Quota, format!("more than {rate} requests a second"));
        if pace == Pace::Flood { Err(refusal) } else { Ok(Err(refusal)) }
    }

    /// Forgets an acknowledgement that crossed with the end of what it is about.
    pub(super) fn take_stale(&mut self, session: SessionId, what: &str) -> Result<(), Refusal> {
        let Some(row) = self.sessions.get_mut(&session) else { return Ok(()) };
        match row.stale.checked_sub(1) {
            Some(rest) => row.stale = rest,
            None => return Err(unasked(what)),
        }
        Ok(())
    }

    /// Notes that one more acknowledgement may come for something that is gone.
    pub(super) fn expect_stale(&mut self, session: SessionId) {
        if let Some(row) = self.sessions.get_mut(&session) {
            row.stale += 1;
        }
    }

    /// Removes a session with all it has; false if there is none.
    fn end_session(&mut self, session: SessionId) -> bool {
        // Out of the table first: nothing more is sent to it.
        let Some(row) = self.sessions.remove(&session) else { return false };
        self.end_row(session, row);
        true
    }

    /// Removes all that a session had, which is out of the table.
    fn end_row(&mut self, session: SessionId, row: Session) {
        for stream in &row.streams {
            self.close_stream(*stream);
        }
        for (datapath, object) in row.doorbells {
            self.actions.push_back(Action::RemoveDoorbell { datapath, session });
            self.discard(Some(object));
        }
        self.discard(row.counters);
        self.account(row.domain).release(&row.charge);
    }
}

/// Why an acknowledgement ends the session.
pub(super) fn unasked(what: &str) -> Refusal {
    Refusal::new(Code::Violation, format!("{what} was acknowledged, and nothing had been asked"))
}

pub(super) fn numbers_used_up() -> Refusal {
    Refusal::new(Code::Resources, "the numbers of this life of the runtime are used up")
}

/// Descriptors that may come beside a request: the memory of a source or sink that an
/// earlier life of the runtime created and sealed.
const fn adoptable(request: &Request) -> usize {
    match request {
        Request::CreateSource { classes, .. } => !classes.is_empty() as usize,
        Request::CreateSink { wake: SinkWake::Page, .. } => 1,
        Request::CreateSink { wake: SinkWake::Fd, .. } => 2,
        _ => 0,
    }
}

/// All of them, or none.
fn check_descriptors(came: usize, adoptable: usize) -> Result<(), Refusal> {
    if came == 0 || came == adoptable {
        return Ok(());
    }
    let reason = format!("{came} descriptors came beside a message that brings {adoptable} or none");
    Err(Refusal::new(Code::Protocol, reason))
}

fn check_packet(packet: Packet<'_>) -> Result<(), Refusal> {
    if packet.truncated || packet.bytes.len() > PACKET_BYTES_MAX {
        let reason = format!("a packet is at most {PACKET_BYTES_MAX} bytes; a longer one came, or descriptors");
        return Err(Refusal::new(Code::Protocol, reason));
    }
    Ok(())
}

/// The client's number of a request that is answered.
const fn number(request: &Request) -> Option<u32> {
    match request {
        Request::OpenStream { req, .. }
        | Request::CloseStream { req, .. }
        | Request::CreateSource { req, .. }
        | Request::CloseSource { req, .. }
        | Request::CreateSink { req, .. }
        | Request::CreateTap { req, .. }
        | Request::CloseSink { req, .. }
        | Request::Reload { req, .. }
        | Request::Schedule { req, .. }
        | Request::PlaceThread { req, .. }
        | Request::LockMemory { req, .. }
        | Request::MoveStream { req, .. }
        | Request::SetQos { req, .. }
        | Request::Trace { req, .. }
        | Request::Status { req } => Some(*req),
        Request::Mapped { .. }
        | Request::Kept { .. }
        | Request::SourceMapped { .. }
        | Request::SinkMapped { .. }
        | Request::SessionMapped
        | Request::Violation { .. } => None,
    }
}
