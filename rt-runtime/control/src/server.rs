//! The host of the hub: one thread, one epoll set.
//!
//! Takes packets from sessions, answers from datapaths and letters from the
//! [`Runtime`](crate::runtime::Runtime), gives them to the hub, and carries out what
//! the hub wants. No lock is shared with a datapath; nothing a session does makes this
//! thread wait.
//!
//! Bounds of one round: [`READY_MAX`] descriptors, [`PACKETS_PER_ROUND`] packets of each,
//! [`ANSWERS_PER_ROUND`] answers of each datapath.

use crate::action::{Action, Beside, Note};
use crate::datapath::{Answer, Datapath, Fate};
use crate::discovery::Discovering;
use crate::hub::{Hub, Packet, Refusal};
use crate::identity;
use crate::keepers::Keepers;
use crate::monitors::Monitors;
use crate::notes::{Names, Notes};
use crate::objects::Objects;
use crate::overlay::Overlay;
use crate::places::Places;
use crate::policy::Policy;
use crate::preparer::{Handover, Preparer};
use crate::report::{Facts, Scope, Tables};
use crate::roster::Roster;
use crate::runtime::Shared;
use crate::sockets::{Flushed, SessionSocket, Token};
use crate::spec::Origin;
use insane_core::{ConnId, MonoTime, Nanos, SessionId};
use insane_engine::Command;
use insane_engine::waker::WakerThread;
use insane_scheduler::Policing;
use insane_sys::clock::mono_now;
use insane_sys::event::{Epoll, Event, Interest, Ready, Trigger};
use insane_sys::seqpacket::{self, RecvOutcome};
use insane_wire::control::{self, Code, PACKET_BYTES_MAX, encode};
use insane_wire::overlay as wire;
use insane_wire::reload::ReloadReport;
use insane_wire::status::StatusReport;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::num::{NonZeroU32, NonZeroU64};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use tracing::{error, warn};

mod choices;
mod keeping;
mod links;
mod realtime;
mod reload;
mod schedule;
mod trace;

use choices::Answered;
use reload::{Asker, Checked, Reloads};
pub(crate) use schedule::read_certificate;
use schedule::{JudgedSchedule, Schedules};

/// Descriptors looked at in one round.
const READY_MAX: usize = 64;
/// Packets taken from one session in one round, so that none starves the others.
const PACKETS_PER_ROUND: usize = 16;
/// Answers taken from one datapath in one round.
const ANSWERS_PER_ROUND: usize = 256;
/// Callers taken in one round.
const CALLERS_PER_ROUND: usize = 16;
/// Bytes of one piece of a status report.
const PIECE_BYTES: usize = 8 * 1024;
/// Longest time between two ticks.
const TICK: Nanos = Nanos::from_millis(100);

/// What the runtime's handle asks for.
pub(crate) enum Letter {
    /// A session of this process, by its end of a pair.
    Attach(OwnedFd),
    /// A report.
    Status(Sender<StatusReport>),
    /// Where the configuration was read from.
    ConfigFile(PathBuf),
    /// The configuration to be read again, or tried.
    Reload { dry_run: bool, reply: Sender<ReloadReport> },
    /// A configuration that was read and checked.
    Checked(Box<Checked>),
    /// A certificate that was read and checked.
    Judged(Box<JudgedSchedule>),
    /// What is to outlive the runtime was written, or not.
    Kept(Result<(), String>),
    /// A thread that belongs to the runtime, by its name and number, for reports.
    Thread(String, i32),
    /// The end.
    Stop,
}

/// The listening socket.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: OwnedFd,
    /// Out of the epoll set for a while, since no descriptor was left for a caller.
    rests: bool,
}

impl Listener {
    pub(crate) const fn new(socket: OwnedFd) -> Self {
        Listener { socket, rests: false }
    }
}

/// What a server is made of.
pub(crate) struct Parts {
    pub(crate) hub: Hub,
    pub(crate) objects: Objects,
    /// Looks after links that may go and come; ends before those do.
    pub(crate) keepers: Option<Keepers>,
    pub(crate) datapaths: Vec<Datapath>,
    /// Touches memory, where the plan wants that.
    pub(crate) preparer: Option<Preparer>,
    /// Wakes sinks for the datapaths; `None` where applications turn them.
    pub(crate) waker: Option<WakerThread>,
    pub(crate) overlay: Overlay,
    pub(crate) roster: Roster,
    /// `None`: peers are those of the configuration.
    pub(crate) discovery: Option<Discovering>,
    pub(crate) facts: Facts,
    pub(crate) listener: Option<Listener>,
    pub(crate) letters: Receiver<Letter>,
    /// The other end of it, for threads of its own.
    pub(crate) mailbox: Sender<Letter>,
    pub(crate) bell: Arc<Event>,
    pub(crate) answer: Arc<Event>,
    pub(crate) shared: Arc<Shared>,
}

/// The host of the hub. See the module's documentation.
pub(crate) struct Server {
    parts: Parts,
    epoll: Epoll,
    sockets: BTreeMap<SessionId, SessionSocket>,
    notes: Notes,
    now: MonoTime,
    tick_at: MonoTime,
    stops: bool,
    buffer: Box<[u8; PACKET_BYTES_MAX]>,
    /// What came beside the packet under way and may be adopted.
    adoptable: VecDeque<OwnedFd>,
    reloads: Reloads,
    schedules: Schedules,
    places: Places,
    policy: Policy,
    /// Of which changes of the hub and of the overlay links were last chosen, if that was
    /// carried out, and when.
    choices_of: Option<(u64, u64)>,
    chose_at: MonoTime,
    /// The last look at queues that hold frames back.
    queues_at: MonoTime,
    /// Of each datapath.
    monitors: Vec<Monitors>,
}

impl Server {
    pub(crate) fn new(parts: Parts) -> Result<Self, insane_sys::OsError> {
        let epoll = Epoll::new()?;
        epoll.add(&parts.bell, Token::Mailbox.encode(), Interest::Read, Trigger::Level)?;
        epoll.add(&parts.answer, Token::Answer.encode(), Interest::Read, Trigger::Level)?;
        let mut server = Server {
            parts,
            epoll,
            sockets: BTreeMap::new(),
            adoptable: VecDeque::new(),
            reloads: Reloads::default(),
            schedules: Schedules::default(),
            places: Places::default(),
            policy: Policy::new(),
            choices_of: None,
            chose_at: MonoTime(0),
            queues_at: MonoTime(0),
            monitors: Vec::new(),
            notes: Notes::default(),
            now: mono_now(),
            tick_at: MonoTime(0),
            stops: false,
            buffer: Box::new([0; PACKET_BYTES_MAX]),
        };
        server.recall_schedule();
        if let Some(listener) = &mut server.parts.listener {
            listener.rests = server.schedules.keeping.is_recalling();
            if !listener.rests {
                server.epoll.add(&listener.socket, Token::Listener.encode(), Interest::Read, Trigger::Level)?;
            }
        }
        Ok(server)
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        while !self.stops {
            self.round();
        }
        // A restart is to cost no task a cycle: what was given stays with who has it.
        self.places.keep();
        self.save_last();
        self.parts.hub.shutdown();
        self.pump();
        // Dropping the datapaths ends their threads.
    }

    fn round(&mut self) {
        let mut ready = [Ready::NONE; READY_MAX];
        let count = match self.epoll.wait(&mut ready, Some(self.timeout())) {
            Ok(count) => count,
            Err(error) => {
                self.parts.shared.fail(&format!("the control plane cannot wait: {error}"));
                self.stops = true;
                0
            }
        };
        self.now = mono_now();
        for ready in &ready[..count] {
            self.handle(ready);
        }
        if self.now >= self.tick_at {
            self.tick();
        }
        let Parts { hub, datapaths, overlay, facts, .. } = &mut self.parts;
        overlay.poll(self.now, &facts.plan.policy.limits(), hub, datapaths);
        hub.go_on();
        hub.tend_stands(self.now);
        self.pump();
        self.discover();
        self.parts.shared.beat(self.now);
    }

    fn timeout(&self) -> Nanos {
        if self.parts.hub.is_readmitting() {
            return Nanos::ZERO;
        }
        let now = mono_now();
        let next = self.parts.overlay.next_deadline().map_or(self.tick_at, |at| at.min(self.tick_at));
        next.since(now)
    }

    fn tick(&mut self) {
        self.tick_at = self.now + TICK;
        self.parts.hub.tick(self.now);
        self.tend_schedule();
        self.tend_standing();
        self.watch_assumptions();
        self.watch_places();
        self.tell_who_answers();
        self.choose_links();
        self.admit_callers();
        let waiting: Vec<SessionId> = self.sockets.iter().filter(|(_, s)| s.is_waiting()).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|session| self.flush(session));
        if let Some(ended) = self.parts.datapaths.iter().find(|datapath| !datapath.is_alive()) {
            self.parts.shared.fail(&format!("datapath {} has ended", ended.plan.name));
        }
        if self.parts.keepers.as_ref().is_some_and(|keepers| !keepers.is_alive()) {
            self.parts.shared.fail("the keeper of links has ended");
        }
        if self.parts.waker.as_ref().is_some_and(|waker| !waker.is_alive()) {
            self.parts.shared.fail("the waker has ended");
        }
    }

    /// Callers are heard, unless they have to wait.
    fn admit_callers(&mut self) {
        if self.schedules.keeping.is_recalling() {
            return;
        }
        if let Some(listener) = self.parts.listener.as_mut().filter(|listener| listener.rests) {
            let token = Token::Listener.encode();
            listener.rests = self.epoll.add(&listener.socket, token, Interest::Read, Trigger::Level).is_err();
        }
    }

    /// Found peers that answer are not to be forgotten.
    fn tell_who_answers(&mut self) {
        let Parts { discovery: Some(discovery), overlay, roster, .. } = &mut self.parts else { return };
        let up = roster.iter().filter(|(peer, _)| overlay.is_up(*peer));
        up.filter_map(|(_, entry)| entry.host).for_each(|host| discovery.answers(self.now, host));
    }

    fn handle(&mut self, ready: &Ready) {
        match Token::decode(ready.token()) {
            Some(Token::Listener) => self.take_callers(),
            Some(Token::Answer) => self.take_answers(),
            Some(Token::Mailbox) => self.take_letters(),
            Some(Token::Session(session)) => {
                if ready.is_writable() {
                    self.flush(session);
                }
                if ready.is_readable() {
                    self.take_packets(session);
                }
            }
            Some(Token::Process(session)) => self.lose(session),
            None => {}
        }
        self.pump();
    }

    fn take_callers(&mut self) {
        for _ in 0..CALLERS_PER_ROUND {
            let Some(listener) = &mut self.parts.listener else { return };
            match seqpacket::accept(&listener.socket) {
                Ok(Some(socket)) => self.take_caller(socket),
                Ok(None) => return,
                Err(error) => {
                    warn!(%error, "a caller waits");
                    let _ = self.epoll.remove(&listener.socket);
                    listener.rests = true;
                    return;
                }
            }
        }
    }

    fn take_caller(&mut self, socket: OwnedFd) {
        // A caller that has no credentials is gone.
        let Ok((who, process)) = identity::of_socket(&socket) else { return };
        self.admit(socket, Origin::Socket(who), process);
    }

    fn admit(&mut self, socket: OwnedFd, origin: Origin, process: Option<OwnedFd>) {
        match self.parts.hub.accept(origin, self.now) {
            Ok(session) => match SessionSocket::new(session, socket, process, &self.epoll) {
                Ok(socket) => drop(self.sockets.insert(session, socket)),
                Err(error) => {
                    warn!(%error, "a session cannot be watched");
                    self.parts.hub.gone(session);
                }
            },
            Err(Refusal { code, reason }) => {
                warn!(?code, reason, "caller turned away");
                let _ = seqpacket::send(&socket, &encode(&control::Event::Closing { code, reason }), &[]);
            }
        }
    }

    fn take_packets(&mut self, session: SessionId) {
        for _ in 0..PACKETS_PER_ROUND {
            let Some(socket) = self.sockets.get(&session) else { return };
            match socket.receive(&mut self.buffer) {
                RecvOutcome::Packet(packet) => {
                    let bytes = &self.buffer[..packet.len.min(PACKET_BYTES_MAX)];
                    let (fds, truncated) = (packet.fds.len(), packet.truncated);
                    self.adoptable = packet.fds.into_iter().collect();
                    self.parts.hub.packet(session, Packet { bytes, fds, truncated }, self.now);
                    self.pump();
                    self.adoptable.clear();
                }
                RecvOutcome::WouldBlock => return,
                RecvOutcome::Closed => return self.lose(session),
            }
        }
    }

    fn take_answers(&mut self) {
        let _ = self.parts.answer.clear();
        while let Some(handover) = self.parts.preparer.as_ref().and_then(Preparer::next_done) {
            self.finish_handover(handover);
        }
        let mut more = false;
        for at in 0..self.parts.datapaths.len() {
            for taken in 0..=ANSWERS_PER_ROUND {
                if taken == ANSWERS_PER_ROUND {
                    more = true;
                    break;
                }
                let Some(answer) = self.parts.datapaths[at].answer() else {
                    self.parts.roster.drained(at);
                    break;
                };
                self.take_answer(at, answer);
            }
        }
        self.hear_standings();
        if more {
            let _ = self.parts.answer.signal();
        }
    }

    /// What came from the datapath `at`.
    fn take_answer(&mut self, at: usize, answer: Answer) {
        let Parts { hub, datapaths, overlay, .. } = &mut self.parts;
        match answer {
            Answer::Detached(conn) => hub.detached(conn),
            Answer::NoPlace(conn) => hub.attach_failed(conn, "the datapath has no place left"),
            Answer::NoRoute(topic) => {
                error!(key = %topic.key, channel = %topic.channel, "the datapath has no place for a route");
            }
            Answer::NoSlots(error) => error!(%error, "the datapath did not take a table of slots"),
            Answer::NoDoorbell(session) => {
                warn!(%session, "a session cannot wake its datapath; it is served at the next look");
            }
            Answer::Violated(conn, violation) => {
                warn!(%conn, %violation, "a client wrote what cannot be");
                hub.violated(conn);
            }
            Answer::PeerSwapped(swap, swapped) => self.peer_swapped(at, swap, swapped),
            Answer::PeerForgotten(peer) => self.peer_forgotten(at, peer),
            Answer::Overlay(frame) => overlay.frame(self.now, at, &frame, hub, datapaths),
        }
    }

    fn take_letters(&mut self) {
        let _ = self.parts.bell.clear();
        loop {
            match self.parts.letters.try_recv() {
                Ok(Letter::Attach(socket)) => {
                    // A pair's credentials are our own; no pidfd is needed to notice our end.
                    let who = identity::of_socket(&socket).map(|(who, _)| who).unwrap_or_default();
                    self.admit(socket, Origin::InProcess(who), None);
                }
                Ok(Letter::Status(reply)) => {
                    let report = self.report(Scope::All);
                    // Who asked may have given up.
                    let _ = reply.send(report);
                }
                Ok(Letter::ConfigFile(path)) => self.reloads.own_file = Some(path),
                Ok(Letter::Reload { dry_run, reply }) => self.reload_own_file(dry_run, Asker::Handle(reply)),
                Ok(Letter::Checked(checked)) => self.file_checked(*checked),
                Ok(Letter::Judged(judged)) => self.schedule_judged(*judged),
                Ok(Letter::Kept(written)) => self.schedule_kept(written),
                Ok(Letter::Thread(name, tid)) => self.parts.facts.threads.push((name, tid)),
                Ok(Letter::Stop) | Err(TryRecvError::Disconnected) => {
                    self.stops = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    /// The client is gone.
    fn lose(&mut self, session: SessionId) {
        if self.part_with(session).is_some() {
            self.parts.hub.gone(session);
        }
    }

    /// Ends all that goes by a session but for what the hub has of it; its socket, if it was there.
    fn part_with(&mut self, session: SessionId) -> Option<SessionSocket> {
        self.reloads.forget(session);
        self.schedules.forget(session);
        self.places.forget(session);
        self.end_traces(session);
        let socket = self.sockets.remove(&session)?;
        socket.leave(&self.epoll);
        Some(socket)
    }

    fn flush(&mut self, session: SessionId) {
        if let Some(flushed) = self.sockets.get_mut(&session).map(|socket| socket.flush(self.now, &self.epoll)) {
            self.judge(session, flushed);
        }
    }

    fn judge(&mut self, session: SessionId, flushed: Flushed) {
        match flushed {
            Flushed::Fine => {}
            Flushed::Gone => self.lose(session),
            Flushed::Stuck => {
                let reason = "the session does not read what it is sent";
                self.parts.hub.expel(session, Refusal { code: Code::Quota, reason: reason.to_owned() });
            }
        }
    }

    /// Carries out what the hub wants.
    fn pump(&mut self) {
        while let Some(action) = self.parts.hub.next_action() {
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Send { session, event, beside } => self.send(session, &event, &beside),
            Action::Close { session, code, reason } => {
                if let Some(socket) = self.part_with(session) {
                    socket.close(encode(&control::Event::Closing { code, reason }), self.now, &self.epoll);
                }
            }
            Action::Create { object, kind, writer } => {
                if let Err(error) = self.parts.objects.create(object, kind, writer, &mut self.adoptable) {
                    self.parts.hub.object_failed(object, &error.to_string());
                }
            }
            Action::Seal(object) => {
                if let Err(error) = self.parts.objects.seal(object) {
                    self.parts.hub.object_failed(object, &error.to_string());
                    self.parts.objects.remove(object);
                }
            }
            Action::Drop(object) => self.parts.objects.remove(object),
            Action::Interest { topic, check, schema, joins, on } => {
                let interest = wire::Interest { stream: topic.key, check, channel: topic.channel, schema, joins };
                self.parts.overlay.set_interest(interest, on);
            }
            Action::Refuse { peer, topic, check, ours } => {
                self.parts.overlay.refuse(self.now, (peer, topic), (check, ours), &mut self.parts.datapaths);
            }
            Action::Offer { key, check, on } => self.parts.overlay.set_offer(key, check, on),
            Action::Status { session, req } => self.answer_status(session, req),
            Action::Reload { session, req, dry_run, file, last, piece } => {
                self.take_reload((session, req), dry_run, file, last, &piece);
            }
            Action::Schedule { session, req, order } => self.take_schedule(session, req, order),
            Action::PlaceThread { session, req, tid, priority, core } => {
                let done = self.place_thread(session, tid, priority, core);
                self.answer_done(session, req, done);
            }
            Action::LockMemory { session, req, bytes } => {
                let done = self.lock_memory(session, bytes);
                self.answer_done(session, req, done);
            }
            Action::MoveStream { session, req, stream, link, peer } => {
                let done = self.move_stream(session, &stream, link.as_deref(), peer.as_deref());
                self.answer_done(session, req, done);
            }
            Action::Trace { session, req, datapath } => self.take_trace(session, req, &datapath),
            Action::Note(note) => self.note(&note),
            command => self.command(command),
        }
    }

    /// Carries out what concerns a datapath.
    fn note(&mut self, note: &Note) {
        let names = Names { plan: &self.parts.facts.plan, roster: &self.parts.roster };
        self.notes.write(note, self.now, names);
    }

    fn command(&mut self, action: Action) {
        let Parts { hub, objects, datapaths, facts, .. } = &mut self.parts;
        match action {
            Action::AddTx(add) => {
                let budget = facts.plan.domains[add.domain.index()].quota.budget.and_then(|budget| {
                    let rate_bytes_per_s = NonZeroU64::new(budget.bytes_per_second)?;
                    Some(Policing { rate_bytes_per_s, burst_bytes: budget.burst_bytes })
                });
                let prepared = datapaths[add.datapath.index()].prepare_tx(&add, budget, objects);
                self.start_handover(add.conn, prepared);
            }
            Action::AddRx(add) => {
                let buffers = hub.spec().datapaths[add.datapath.index()].heaps[add.domain.index()].buffers;
                let wakes = NonZeroU32::new(facts.plan.domains[add.domain.index()].quota.wakes_per_second);
                let wakes = wakes.unwrap_or(NonZeroU32::MIN);
                let prepared = datapaths[add.datapath.index()].prepare_rx(&add, buffers, wakes, objects);
                self.start_handover(add.conn, prepared);
            }
            Action::RemoveTx { datapath, conn, at_once } => {
                let command = if at_once { Command::EndSource(conn) } else { Command::RemoveSource(conn) };
                datapaths[datapath.index()].remove(conn, command);
            }
            Action::SetLane { datapath, conn, lane } => {
                datapaths[datapath.index()].send(Command::SetLane { conn, lane })
            }
            Action::RemoveRx { datapath, conn } => {
                datapaths[datapath.index()].remove(conn, Command::RemoveSink(conn));
            }
            Action::AddDoorbell { datapath, session, object } => {
                let Some(doorbell) = objects.doorbell(object) else { return };
                datapaths[datapath.index()].add_doorbell(session, doorbell);
            }
            Action::RemoveDoorbell { datapath, session } => datapaths[datapath.index()].remove_doorbell(session),
            Action::SetRoute { datapath, topic, domain, route } => {
                datapaths[datapath.index()].set_route(topic, domain, &route);
            }
            Action::StageSlots { datapath, streams, links, arrivals, at } => {
                if let Err(error) = datapaths[datapath.index()].stage_slots(&streams, &links, arrivals, at) {
                    error!(%error, "a table of slots that was admitted and checked is no table");
                }
            }
            Action::SetReach { datapath, peer, link } => {
                datapaths[datapath.index()].send(Command::SetReach { peer, link: Some(link) });
            }
            Action::Welcome { datapath, topic, peer } => datapaths[datapath.index()].welcome(topic, peer),
            Action::RemoveRoute { datapath, topic } => {
                datapaths[datapath.index()].send(Command::RemoveRoute(topic));
            }
            // `carry_out` has taken the others.
            _ => {}
        }
    }

    /// Sends a connection on its way to its datapath, by the preparer if there is one.
    fn start_handover(&mut self, conn: ConnId, prepared: io::Result<Handover>) {
        let handover = match prepared {
            Ok(handover) => handover,
            Err(error) => return self.parts.hub.attach_failed(conn, &error.to_string()),
        };
        let datapath = handover.datapath;
        let refused = match &self.parts.preparer {
            Some(preparer) => preparer.submit(handover).err().map(|handover| *handover),
            None => Some(handover),
        };
        match refused {
            Some(handover) => self.finish_handover(handover),
            None => self.parts.datapaths[datapath.index()].expect(conn),
        }
    }

    fn finish_handover(&mut self, handover: Handover) {
        let conn = handover.conn;
        let fate = self.parts.datapaths[handover.datapath.index()].hand_over(handover);
        match fate {
            // The datapath takes commands in order: what is sent to it from now on finds it.
            Fate::Wanted => self.parts.hub.attached(conn),
            Fate::Removed => self.parts.hub.detached(conn),
        }
    }

    fn send(&mut self, session: SessionId, event: &control::Event, beside: &[Beside]) {
        let descriptors: Option<Vec<Arc<OwnedFd>>> = beside.iter().map(|item| self.descriptor(item)).collect();
        let Some(descriptors) = descriptors else {
            error!(%session, ?event, "a descriptor is missing: a bug");
            let reason = "the runtime has lost a descriptor";
            self.parts.hub.expel(session, Refusal { code: Code::Resources, reason: reason.to_owned() });
            return;
        };
        let Some(socket) = self.sockets.get_mut(&session) else { return };
        let flushed = socket.send(encode(event), descriptors, self.now, &self.epoll);
        self.judge(session, flushed);
    }

    fn descriptor(&self, item: &Beside) -> Option<Arc<OwnedFd>> {
        match item {
            Beside::DatapathWakePage(at) => Some(self.parts.datapaths[at.index()].wake_page()),
            Beside::DatapathHeap(at, domain) => self.parts.datapaths[at.index()].heap(*domain),
            Beside::DatapathTrace(at) => self.parts.datapaths[at.index()].trace_memory(),
            _ => self.parts.objects.descriptor(item),
        }
    }

    fn report(&mut self, scope: Scope) -> StatusReport {
        let Parts { hub, objects, datapaths, overlay, roster, facts, discovery, .. } = &mut self.parts;
        let peers = overlay.report(self.now, roster, &facts.plan);
        let tables = Tables { hub, objects, datapaths, roster, overlay, places: &self.places, peers };
        let mut report = facts.report(self.now, scope, tables);
        if let Some(discovery) = discovery {
            report.discovery = discovery.report(self.now, &facts.plan);
            report.degraded.extend(discovery.degraded());
        }
        report.degraded.extend(self.alarms());
        report.degraded.extend(self.schedules.keeping.flaws());
        self.report_schedule(&mut report, scope);
        report
    }

    fn answer_status(&mut self, session: SessionId, req: u32) {
        // As of now: a stream may have been opened since the last look.
        self.decide_links();
        let hub = &self.parts.hub;
        let Some(domain) = hub.domain_of(session) else { return };
        let scope = if hub.is_operator(session) { Scope::All } else { Scope::Domain(domain) };
        let report = Answered { status: self.report(scope), policy: self.report_choices(scope) };
        let json = match serde_json::to_vec(&report).map_err(io::Error::from) {
            Ok(json) => json,
            Err(error) => {
                let (code, reason) = (Code::Resources, error.to_string());
                return self.send(session, &control::Event::Failed { req, code, reason }, &[]);
            }
        };
        let pieces = json.len().div_ceil(PIECE_BYTES);
        for (at, piece) in json.chunks(PIECE_BYTES).enumerate() {
            let event = control::Event::Status { req, last: at + 1 == pieces, piece: piece.to_vec() };
            self.send(session, &event, &[]);
        }
    }
}
