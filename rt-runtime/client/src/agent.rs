//! The session's agent: one thread that talks to the runtime, maps what it passes, and
//! leaves prepared connections in the ports' mailboxes. Nothing here is on a hot path.

use crate::counters::{CounterPage, Line};
use crate::error::{RequestError, SessionError};
use crate::ports::{self, Beside, PartsError};
use crate::registry::{ConnRecord, ConnState, End, Far, Registry, SinkRecord, SourceRecord, StreamRecord};
use crate::stream::Given;
use insane_core::counters::PortCounter;
use insane_core::heap::ClassSpec;
use insane_core::{ChannelId, ConnId, Datapath, Priority, Qos, Schema, StreamId};
use insane_shm::port::{Attachment as PortAttachment, Mailbox, SinkPort, SourcePort};
use insane_sys::event::{Epoll, Event as Bell, Interest, Ready, Trigger};
use insane_sys::memfd;
use insane_sys::seqpacket::{self, RecvOutcome, SendOutcome};
use insane_sys::thread::{SchedPolicy, current_tid};
use insane_wire::control::{
    self, Code, DatapathCore, Event, Hello, PACKET_BYTES_MAX, Receiver, Request, Role, SinkWake,
};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a request waits for its answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a detached session looks for its runtime.
const REATTACH_PERIOD: Duration = Duration::from_millis(200);
/// How often ports are asked for dead connections and violations.
const COLLECT_PERIOD: Duration = Duration::from_secs(1);
/// How long after the session's return a direct ring of before may wait for the runtime to
/// join its ends again. An application that lives is back long before: it looks for its
/// runtime every [`REATTACH_PERIOD`].
const UNCLAIMED_TIMEOUT: Duration = Duration::from_secs(10);

const SOCKET_TOKEN: u64 = 1;
const BELL_TOKEN: u64 = 2;

/// What a request was about, so that the agent can build the answer's port before it
/// looks at the next event.
pub(crate) enum What {
    Stream {
        local: u32,
    },
    Source {
        uid: u64,
        stream: u32,
        channel: ChannelId,
        classes: Vec<ClassSpec>,
        reliable: bool,
        schema: Option<Schema>,
        keeps: bool,
        line: Option<Line>,
    },
    Sink {
        uid: u64,
        stream: u32,
        channel: ChannelId,
        depth: u32,
        wake: SinkWake,
        schema: Option<Schema>,
        observes: bool,
        line: Option<Line>,
    },
    /// A source of the runtime's earlier life.
    SourceAgain {
        uid: u64,
    },
    /// A sink of the runtime's earlier life.
    SinkAgain {
        uid: u64,
    },
    /// What is answered by a plain yes.
    Favour,
}

/// What the requester gets.
#[expect(clippy::large_enum_variant, reason = "one a request, moved once")]
pub(crate) enum Reply {
    Stream(Given),
    Source(SourcePort),
    Sink(SinkPort, Option<OwnedFd>),
    Done,
}

struct Waiting {
    what: What,
    reply: SyncSender<Result<Reply, RequestError>>,
}

/// What is made of the runtime's answer to a request.
#[expect(clippy::large_enum_variant, reason = "one a request, moved once")]
enum Built {
    /// Whoever waits gets this.
    Reply(Result<Reply, PartsError>),
    /// What was there before a restart is open again.
    Again,
    /// It is there no more, or was not asked for.
    Useless,
}

/// What became of such an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answered {
    /// Something new was handed over.
    Made,
    Again,
    /// Nobody waits any more, or it cannot be used here: what the runtime has opened is to be
    /// closed again.
    Useless,
}

/// A thread that the runtime has placed, by its number in this process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PlacedThread {
    tid: i32,
    priority: Option<u8>,
    core: Option<u16>,
}

impl PlacedThread {
    fn request(self, req: u32) -> Request {
        let PlacedThread { tid, priority, core } = self;
        Request::PlaceThread { req, tid: tid.unsigned_abs(), priority, core }
    }

    /// Whether the number is still that thread's: it has the priority that it was given. One
    /// that was given none counts as long as this process has a thread of that number.
    fn is_there(&self) -> bool {
        match self.priority {
            Some(priority) => insane_sys::thread::policy(self.tid) == Ok(Some(SchedPolicy::Fifo(priority))),
            None => Path::new("/proc/self/task").join(self.tid.to_string()).exists(),
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Attached,
    /// Attached again; not everything that the session had is open again yet.
    Returning,
    Detached,
    Closed(Code, String),
}

/// What the agent shares with the session's handles.
pub(crate) struct Shared {
    pub name: String,
    domain: Option<String>,
    /// Where to reattach; `None`: the runtime is in this process and lives as long.
    path: Option<PathBuf>,
    pub registry: Mutex<Registry>,
    waiting: Mutex<HashMap<u32, Waiting>>,
    req_next: AtomicU32,
    socket: Mutex<Option<Arc<OwnedFd>>>,
    state: Mutex<State>,
    /// Threads that the runtime has placed for this session.
    places: Mutex<Vec<PlacedThread>>,
    /// The agent's own requests after a reattachment that are not answered yet.
    reopening: Mutex<HashSet<u32>>,
    /// When everything was open again after the last reattachment; `None`: direct rings
    /// of before wait for nothing.
    returned_at: Mutex<Option<Instant>>,
    counters: Mutex<Option<Arc<CounterPage>>>,
    /// Whether the next HELLO brings the counters page: a runtime that does not take it
    /// (its pages are larger, say) gets the next one without.
    brings_counters: AtomicBool,
    pub domain_name: Mutex<String>,
    /// The cores of the runtime's datapaths, as it said last.
    cores: Mutex<Vec<DatapathCore>>,
    stop: AtomicBool,
    bell: Bell,
    /// The process that attached. A forked child shares its socket, and has no agent.
    process: u32,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(name: &str, domain: Option<&str>, path: Option<PathBuf>) -> Result<Arc<Self>, SessionError> {
        if !control::name_fits(name) || !domain.is_none_or(control::name_fits) {
            return Err(SessionError::Name);
        }
        Ok(Arc::new(Shared {
            name: name.into(),
            domain: domain.map(Into::into),
            path,
            registry: Mutex::default(),
            waiting: Mutex::default(),
            req_next: AtomicU32::new(1),
            socket: Mutex::new(None),
            state: Mutex::new(State::Detached),
            places: Mutex::default(),
            reopening: Mutex::default(),
            returned_at: Mutex::new(None),
            counters: Mutex::new(None),
            brings_counters: AtomicBool::new(true),
            domain_name: Mutex::default(),
            cores: Mutex::default(),
            stop: AtomicBool::new(false),
            bell: Bell::new()?,
            process: std::process::id(),
        }))
    }

    /// Whether this process was forked from the one that attached. It takes no lock:
    /// one that another thread held at the fork is never released here.
    pub fn is_forked(&self) -> bool {
        std::process::id() != self.process
    }

    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Says HELLO on a fresh socket and waits for the answer.
    pub fn greet(&self, socket: OwnedFd) -> Result<(), SessionError> {
        let hello = Hello { name: self.name.clone(), domain: self.domain.clone(), role: Role::Application };
        let kept = lock(&self.counters).clone().filter(|_| self.brings_counters.load(Ordering::Relaxed));
        let beside: Vec<BorrowedFd<'_>> = kept.iter().map(|page| page.fd()).collect();
        match seqpacket::send(&socket, &control::encode_hello(&hello), &beside)? {
            SendOutcome::Sent => {}
            SendOutcome::WouldBlock | SendOutcome::Closed => return Err(SessionError::Silent),
        }
        let (event, fds) = receive_one(&socket, ANSWER_TIMEOUT)?.ok_or(SessionError::Silent)?;
        let adopted = kept.is_some() && fds.is_empty();
        match event {
            Event::Welcome { domain, counters_bytes, cores, .. } => {
                if !adopted {
                    let page = Beside::new(fds).next().and_then(|fd| CounterPage::map(fd, counters_bytes));
                    *lock(&self.counters) = Some(page.map_err(|e| SessionError::Resources(e.to_string()))?);
                }
                *lock(&self.domain_name) = domain;
                *lock(&self.cores) = cores;
            }
            Event::Closing { code, reason } => return Err(SessionError::Refused { code, reason }),
            _ => return Err(SessionError::Silent),
        }
        *lock(&self.socket) = Some(Arc::new(socket));
        let has_streams = !lock(&self.registry).streams.is_empty();
        *lock(&self.state) = if has_streams { State::Returning } else { State::Attached };
        if adopted { Ok(()) } else { self.send(&Request::SessionMapped).map_err(|_| SessionError::Silent) }
    }

    /// A line for a new source, sink or task to count in, and its number; `None`: none is left,
    /// and it counts where nobody sees it.
    pub fn take_line(&self) -> (Option<Line>, Option<u32>) {
        let page = lock(&self.counters).clone();
        let line = page.as_ref().and_then(CounterPage::take);
        let number = line.as_ref().and_then(|line| line.number(page.as_ref()));
        (line, number)
    }

    /// Sends one request; waits a moment if the runtime is slow to read.
    pub fn send(&self, request: &Request) -> Result<(), RequestError> {
        self.send_beside(request, &[])
    }

    fn send_beside(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(), RequestError> {
        let packet = control::encode(request);
        let give_up = Instant::now() + ANSWER_TIMEOUT;
        loop {
            let Some(socket) = lock(&self.socket).clone() else { return Err(self.absent()) };
            match seqpacket::send(&*socket, &packet, fds) {
                Ok(SendOutcome::Sent) => return Ok(()),
                Ok(SendOutcome::WouldBlock) if Instant::now() < give_up => std::thread::sleep(Duration::from_millis(1)),
                Ok(SendOutcome::WouldBlock) => return Err(RequestError::Silent),
                Ok(SendOutcome::Closed) | Err(_) => return Err(self.absent()),
            }
        }
    }

    fn absent(&self) -> RequestError {
        match self.state() {
            State::Closed(code, reason) => RequestError::Closed { code, reason },
            State::Attached | State::Returning | State::Detached => RequestError::Detached,
        }
    }

    /// Sends a request and waits for what comes of it.
    pub fn request(&self, what: What, request: impl FnOnce(u32) -> Request) -> Result<Reply, RequestError> {
        if self.is_forked() {
            return Err(RequestError::Forked);
        }
        let req = self.req_next.fetch_add(1, Ordering::Relaxed);
        let (reply, answer) = mpsc::sync_channel(1);
        lock(&self.waiting).insert(req, Waiting { what, reply });
        if let Err(error) = self.send(&request(req)) {
            lock(&self.waiting).remove(&req);
            return Err(error);
        }
        answer.recv_timeout(ANSWER_TIMEOUT).unwrap_or_else(|_| {
            // If the agent has taken the request out, it is building the answer right now.
            if lock(&self.waiting).remove(&req).is_none()
                && let Ok(late) = answer.recv()
            {
                return late;
            }
            Err(match self.state() {
                State::Attached | State::Returning => RequestError::Silent,
                State::Detached | State::Closed(..) => self.absent(),
            })
        })
    }

    /// Whether the runtime is a process of its own, which may have rights that this one has not.
    pub fn has_daemon(&self) -> bool {
        self.path.is_some()
    }

    /// Why a thread of that priority may not be put on a core: it is a datapath's.
    pub fn refuses_core(&self, core: usize, priority: Option<u8>) -> Option<String> {
        let cores = lock(&self.cores);
        cores.iter().filter(|one| usize::from(one.core) == core).find_map(|one| one.refuses(priority))
    }

    /// Lets the runtime place the current thread; it is asked again after a restart.
    pub fn place_current(&self, priority: Option<u8>, core: Option<u16>) -> Result<(), RequestError> {
        let place = PlacedThread { tid: current_tid(), priority, core };
        // Several tasks of one thread ask for the same.
        if priority.is_some() && lock(&self.places).contains(&place) && place.is_there() {
            return Ok(());
        }
        self.request(What::Favour, |req| place.request(req))?;
        let mut places = lock(&self.places);
        places.retain(|other| other.tid != place.tid && other.is_there());
        places.push(place);
        Ok(())
    }

    /// Lets the runtime raise what this process may lock.
    pub fn raise_memlock(&self, bytes: u64) -> Result<(), RequestError> {
        self.request(What::Favour, |req| Request::LockMemory { req, bytes }).map(drop)
    }

    /// Lets a stream go by another link.
    pub fn move_stream(&self, stream: &str, link: Option<&str>, peer: Option<&str>) -> Result<(), RequestError> {
        let (stream, link, peer) = (stream.to_owned(), link.map(str::to_owned), peer.map(str::to_owned));
        self.request(What::Favour, |req| Request::MoveStream { req, stream, link, peer }).map(drop)
    }

    /// Changes what an open stream asks for.
    pub fn set_qos(
        &self,
        stream: &str,
        datapath: Option<Datapath>,
        priority: Option<Priority>,
    ) -> Result<(), RequestError> {
        let stream = stream.to_owned();
        self.request(What::Favour, |req| Request::SetQos { req, stream, datapath, priority }).map(drop)
    }

    /// Sends a request whose answer nobody waits for.
    pub fn tell(&self, request: impl FnOnce(u32) -> Request) {
        let req = self.req_next.fetch_add(1, Ordering::Relaxed);
        let _ = self.send(&request(req));
    }

    /// Ends the agent.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.bell.signal();
    }

    /// The agent's thread.
    pub fn run(self: &Arc<Self>) {
        while !self.stop.load(Ordering::Acquire) {
            let socket = lock(&self.socket).clone();
            match socket {
                Some(socket) => {
                    let _ = self.serve(&socket);
                    self.detach();
                }
                None => self.reattach(),
            }
        }
        *lock(&self.socket) = None;
    }

    fn serve(&self, socket: &OwnedFd) -> Result<(), insane_sys::OsError> {
        let epoll = Epoll::new()?;
        epoll.add(socket, SOCKET_TOKEN, Interest::Read, Trigger::Level)?;
        epoll.add(&self.bell, BELL_TOKEN, Interest::Read, Trigger::Level)?;
        let mut buffer = vec![0; PACKET_BYTES_MAX];
        let mut collected_at = Instant::now();
        loop {
            let mut ready = [Ready::NONE; 2];
            epoll.wait(&mut ready, Some(COLLECT_PERIOD.into()))?;
            let _ = self.bell.clear();
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
            loop {
                match seqpacket::recv(socket, &mut buffer)? {
                    RecvOutcome::Packet(packet) => {
                        let Ok(event) = control::decode::<Event>(&buffer[..packet.len]) else { return Ok(()) };
                        // Of a packet that is cut, descriptors are missing: this process can have no
                        // more of them. What came is of no use, and what belongs to it fails.
                        let fds = if packet.truncated { Vec::new() } else { packet.fds.into_iter().collect() };
                        if self.handle(event, fds).is_err() {
                            return Ok(());
                        }
                    }
                    RecvOutcome::Closed => return Ok(()),
                    RecvOutcome::WouldBlock => break,
                }
            }
            if collected_at.elapsed() >= COLLECT_PERIOD {
                collected_at = Instant::now();
                self.collect();
            }
        }
    }

    /// One event. An error means that the runtime speaks nonsense: the session detaches.
    fn handle(&self, event: Event, fds: Vec<OwnedFd>) -> Result<(), PartsError> {
        let mut beside = Beside::new(fds);
        let answered = match &event {
            Event::StreamOpened { req, .. }
            | Event::SourceCreated { req, .. }
            | Event::SinkCreated { req, .. }
            | Event::Done { req }
            | Event::Failed { req, .. } => Some(*req),
            _ => None,
        };
        match event {
            Event::StreamOpened { req, stream, lane, qos, history_max, .. } => {
                self.opened(req, stream, Given { lane, qos, history_max });
            }
            Event::SourceCreated { req, source, heap_bytes } => {
                let made = self.answer(req, |what, registry| {
                    let (uid, stream, channel, classes, reliable, (schema, keeps, line)) = match what {
                        What::Source { uid, stream, channel, classes, reliable, schema, keeps, line } => {
                            (uid, stream, channel, classes, reliable, (schema, keeps, line))
                        }
                        What::SourceAgain { uid } => {
                            let Some(record) = registry.sources.get_mut(&uid) else { return Built::Useless };
                            record.id = Some(source);
                            let _ = record.mailbox.set_attachment(PortAttachment::Attached);
                            return Built::Again;
                        }
                        _ => return Built::Useless,
                    };
                    let block = ports::counters(line.as_ref());
                    Built::Reply(ports::source_port(&mut beside, &classes, heap_bytes, reliable, block).map(|parts| {
                        let ports::SourceParts { port, mailbox, buffers, heap } = parts;
                        let id = Some(source);
                        let record =
                            SourceRecord { stream, channel, classes, schema, keeps, buffers, mailbox, heap, line, id };
                        registry.sources.insert(uid, record);
                        Reply::Source(port)
                    }))
                });
                match made {
                    Answered::Made if heap_bytes > 0 => drop(self.send(&Request::SourceMapped { source })),
                    Answered::Made | Answered::Again => {}
                    Answered::Useless => self.tell(|req| Request::CloseSource { req, source }),
                }
            }
            Event::SinkCreated { req, sink } => {
                let mut has_page = false;
                let made = self.answer(req, |what, registry| {
                    let (uid, stream, channel, depth, wake, schema, observes, line) = match what {
                        What::Sink { uid, stream, channel, depth, wake, schema, observes, line } => {
                            (uid, stream, channel, depth, wake, schema, observes, line)
                        }
                        What::SinkAgain { uid } => {
                            let Some(record) = registry.sinks.get_mut(&uid) else { return Built::Useless };
                            record.id = Some(sink);
                            let _ = record.mailbox.set_attachment(PortAttachment::Attached);
                            return Built::Again;
                        }
                        _ => return Built::Useless,
                    };
                    let block = ports::counters(line.as_ref());
                    has_page = wake != SinkWake::Never;
                    Built::Reply(sink_parts(&mut beside, wake).and_then(|(wake_fds, reader)| {
                        let (port, mailbox) = ports::sink_port(wake_fds.first(), block)?;
                        let id = Some(sink);
                        let record = SinkRecord {
                            stream,
                            channel,
                            depth,
                            wake,
                            schema,
                            observes,
                            refused: None,
                            mailbox,
                            wake_fds,
                            line,
                            id,
                        };
                        registry.sinks.insert(uid, record);
                        Ok(Reply::Sink(port, reader))
                    }))
                });
                match made {
                    Answered::Made if has_page => drop(self.send(&Request::SinkMapped { sink })),
                    Answered::Made | Answered::Again => {}
                    Answered::Useless => self.tell(|req| Request::CloseSink { req, sink }),
                }
            }
            // Closing is answered so, too, and nobody waits for that.
            Event::Done { req } => {
                self.answer(req, |_, _| Built::Reply(Ok(Reply::Done)));
            }
            Event::Failed { req, code, reason } => {
                let waiting = lock(&self.waiting).remove(&req);
                if let Some(waiting) = waiting {
                    lock(&self.registry).note_refusal(&waiting.what, code, &reason);
                    let _ = waiting.reply.try_send(Err(RequestError::Refused { code, reason }));
                }
            }
            // A runtime that shuts down may come back; anything else is final.
            Event::Closing { code: Code::Shutdown, .. } => {}
            Event::Closing { code, reason } => *lock(&self.state) = State::Closed(code, reason),
            Event::Welcome { .. }
            | Event::Status { .. }
            | Event::Reload { .. }
            | Event::Schedule { .. }
            | Event::Traced { .. } => {}
            Event::TxPrepare { conn, .. } | Event::TxOpen { conn, .. } => {
                let result = self.set_up(event, &mut beside);
                self.check(result, conn, End::Producer)?;
            }
            Event::RxPrepare { conn, .. } | Event::RxOpen { conn, .. } => {
                let result = self.set_up(event, &mut beside);
                self.check(result, conn, End::Consumer)?;
            }
            Event::SinkRefused { sink, theirs } => {
                let mut registry = lock(&self.registry);
                let record = registry.sinks.values_mut().find(|record| record.id == Some(sink));
                if let Some(record) = record {
                    record.refused = theirs;
                    // Only this thread counts it, so the word has one writer.
                    if let (Some(_), Some(block)) = (theirs, record.line.as_ref().and_then(Line::block)) {
                        block.add(PortCounter::SchemaRefused as usize, 1);
                    }
                }
            }
            Event::Activate { conn } => self.activate(conn),
            Event::Retire { conn } => self.retire(conn),
        }
        if let Some(req) = answered {
            self.settle(req);
        }
        Ok(())
    }

    /// One request of a reattachment less. After the last one the session is attached, and
    /// everything it had before can be used as before. What the new runtime refuses counts
    /// as answered: asking again would not change that.
    fn settle(&self, req: u32) {
        let mut reopening = lock(&self.reopening);
        if reopening.remove(&req) && reopening.is_empty() {
            self.has_returned();
        }
    }

    fn has_returned(&self) {
        let mut state = lock(&self.state);
        if *state == State::Returning {
            *state = State::Attached;
        }
        drop(state);
        *lock(&self.returned_at) = Some(Instant::now());
    }

    fn opened(&self, req: u32, id: StreamId, given: Given) {
        let mut opened = None;
        self.answer(req, |what, registry| {
            let What::Stream { local } = what else { return Built::Useless };
            let Some(record) = registry.streams.get_mut(&local) else { return Built::Useless };
            // Its ports were made for what it was given before the runtime's restart.
            let before = record.given.get_or_insert(given.qos);
            if before.reliability == given.qos.reliability {
                record.id = Some(id);
                opened = Some(local);
            } else {
                let reason = format!(
                    "its sources and sinks are made for {:?}, and it is declared {:?} now: open it anew",
                    before.reliability, given.qos.reliability
                );
                record.refuse(Code::Mismatch, &reason);
            }
            Built::Reply(Ok(Reply::Stream(given)))
        });
        match opened {
            Some(local) => self.recreate_ports(local, id),
            // It is another than its ports are made for, or nobody has it.
            None => self.tell(|req| Request::CloseStream { req, stream: id }),
        }
    }

    /// After a reattachment: opens the session's streams again. Their ports follow when
    /// each is open.
    fn reopen_streams(&self) {
        let streams: Vec<(u32, StreamRecord)> =
            lock(&self.registry).streams.iter().map(|(local, stream)| (*local, stream.clone())).collect();
        for (local, StreamRecord { name, qos, given, isolated, .. }) in streams {
            // What its ports are made for. Priority and technology are the configuration's word
            // again: what was changed of them while the stream was open ended with the runtime, and
            // who opened it before that and who after has to say the same now.
            let qos = Qos { priority: qos.priority, datapath: qos.datapath, ..given.unwrap_or(qos) };
            self.order(What::Stream { local }, &[], |req| Request::OpenStream { req, name, qos, isolated });
        }
        let places: Vec<PlacedThread> = lock(&self.places).iter().copied().filter(PlacedThread::is_there).collect();
        for place in places {
            self.order(What::Favour, &[], |req| place.request(req));
        }
        if lock(&self.reopening).is_empty() {
            self.has_returned();
        }
    }

    /// Creates the ports of a stream that were there before the runtime's restart; does
    /// nothing for a new stream. Heaps and wake pages go on: the runtime adopts them.
    fn recreate_ports(&self, local: u32, stream: StreamId) {
        let page = lock(&self.counters).clone();
        let number = |line: &Option<Line>| line.as_ref().and_then(|line| line.number(page.as_ref()));
        let registry = lock(&self.registry);
        let sources: Vec<_> = registry
            .sources
            .iter()
            .filter(|(_, source)| source.stream == local && source.id.is_none())
            .map(|(uid, source)| {
                let heap = source.heap.as_ref().and_then(|heap| heap.try_clone().ok());
                let more = (source.schema, source.keeps, number(&source.line));
                (*uid, source.channel, source.classes.clone(), more, heap)
            })
            .collect();
        let sinks: Vec<_> = registry
            .sinks
            .iter()
            .filter(|(_, sink)| sink.stream == local && sink.id.is_none())
            .map(|(uid, sink)| {
                let fds: Vec<OwnedFd> = sink.wake_fds.iter().filter_map(|fd| fd.try_clone().ok()).collect();
                let more = (sink.wake, sink.schema, sink.observes, number(&sink.line));
                (*uid, sink.channel, sink.depth, more, fds)
            })
            .collect();
        drop(registry);
        // The runtime of before may have gone before it heard that they are mapped here, and sealed
        // them; this one takes only what is sealed. What is sealed already stays as it is.
        let pages = sinks.iter().filter_map(|(.., fds)| fds.first());
        sources.iter().filter_map(|(.., heap)| heap.as_ref()).chain(pages).for_each(|memory| {
            let _ = memfd::seal_writers(memory);
        });
        for (uid, channel, classes, (schema, keeps, line), heap) in sources {
            let fds: Vec<BorrowedFd<'_>> = heap.iter().map(AsFd::as_fd).collect();
            let request = |req| Request::CreateSource { req, stream, channel, uid, classes, schema, keeps, line };
            self.order(What::SourceAgain { uid }, &fds, request);
        }
        for (uid, channel, depth, (wake, schema, observes, line), fds) in sinks {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let request = |req| {
                if observes {
                    Request::CreateTap { req, stream, channel, uid, depth, line }
                } else {
                    Request::CreateSink { req, stream, channel, uid, depth, wake, schema, line }
                }
            };
            self.order(What::SinkAgain { uid }, &fds, request);
        }
    }

    /// Sends a request of a reattachment: only the agent itself wants the answer.
    fn order(&self, what: What, fds: &[BorrowedFd<'_>], request: impl FnOnce(u32) -> Request) {
        let req = self.req_next.fetch_add(1, Ordering::Relaxed);
        let (reply, _) = mpsc::sync_channel(1);
        lock(&self.waiting).insert(req, Waiting { what, reply });
        // Before it is sent, and while the order that led to it is still open: the answers
        // are counted down by this thread, so the set is not empty in between.
        lock(&self.reopening).insert(req);
        if self.send_beside(&request(req), fds).is_err() {
            lock(&self.waiting).remove(&req);
            self.settle(req);
        }
    }

    /// Builds the answer to a request and hands it over.
    fn answer(&self, req: u32, build: impl FnOnce(What, &mut Registry) -> Built) -> Answered {
        let Some(Waiting { what, reply }) = lock(&self.waiting).remove(&req) else { return Answered::Useless };
        let built = build(what, &mut lock(&self.registry));
        match built {
            Built::Reply(built) => {
                let answered = if built.is_ok() { Answered::Made } else { Answered::Useless };
                let _ = reply.try_send(built.map_err(Into::into));
                answered
            }
            Built::Again => Answered::Again,
            Built::Useless => Answered::Useless,
        }
    }

    /// What this process has no descriptor or no memory for costs that connection only: the
    /// runtime is told, and tries it again later. An error means that the runtime speaks nonsense.
    fn check(&self, result: Result<(), PartsError>, conn: ConnId, end: End) -> Result<(), PartsError> {
        match result {
            Err(PartsError::Descriptors { .. } | PartsError::Map(_)) => {
                let mut registry = lock(&self.registry);
                if let Some(local) = registry.conn_of(conn, end) {
                    forget(&mut registry, local);
                }
                drop(registry);
                let _ = self.send(&Request::Violation { conn });
                Ok(())
            }
            result => result,
        }
    }

    fn set_up(&self, event: Event, beside: &mut Beside) -> Result<(), PartsError> {
        let mut registry = lock(&self.registry);
        let answer = match event {
            Event::TxPrepare { conn, source, to, depth } => {
                // A source that was just closed: the runtime will hear of it and unwind.
                let Some(port) = registry.source_uid(source) else { return Ok(()) };
                let far = Far::To(to);
                if let Some(kept) = keep(&mut registry, port, far, conn) {
                    kept
                } else {
                    let state = ConnState::TxPrepared { cells: ports::cells(beside, depth)?, depth };
                    registry.add_conn(ConnRecord { id: Some(conn), port, far, state, held_by_receiver: None });
                    Request::Mapped { conn, step: 1 }
                }
            }
            Event::RxPrepare { conn, sink, from, depth, returns } => {
                let Some(port) = registry.sink_uid(sink) else { return Ok(()) };
                let far = Far::From(from);
                if let Some(kept) = keep(&mut registry, port, far, conn) {
                    kept
                } else {
                    let (returns, hold) = ports::returns(beside, returns)?;
                    let state = ConnState::RxPrepared { returns, depth, hold: hold.filter(|_| !far.is_datapath()) };
                    registry.add_conn(ConnRecord { id: Some(conn), port, far, state, held_by_receiver: None });
                    Request::Mapped { conn, step: 1 }
                }
            }
            Event::TxOpen { conn, returns, wake } => {
                let Some(local) = registry.conn_of(conn, End::Producer) else { return Ok(()) };
                let Some(record) = registry.conns.get(&local) else { return Ok(()) };
                let buffers = registry.sources.get(&record.port).map_or(0, |source| source.buffers);
                let ConnState::TxPrepared { cells, depth } = &record.state else { return Err(PartsError::Range) };
                let (cells, depth) = (Arc::clone(cells), *depth);
                let far = record.far;
                let (end, memory) = ports::tx_conn(ConnId(local), cells, depth, buffers, returns, wake, beside)?;
                let end = match far {
                    // Who watches sees what is emitted from now on.
                    Far::To(Receiver::Tap(_)) => end.observing(),
                    _ if far.is_datapath() => end,
                    _ => end.direct(),
                };
                if let Some(record) = registry.conns.get_mut(&local) {
                    record.state = ConnState::TxReady(Box::new(end));
                    // Its receiver has mapped it, so what holds it is there.
                    let is_known = !far.is_datapath() && memfd::is_held(&memory).unwrap_or(false);
                    record.held_by_receiver = is_known.then_some(memory);
                }
                Request::Mapped { conn, step: 2 }
            }
            Event::RxOpen { conn, heap_bytes, classes, trusted } => {
                let Some(local) = registry.conn_of(conn, End::Consumer) else { return Ok(()) };
                let Some(record) = registry.conns.get_mut(&local) else { return Ok(()) };
                let ConnState::RxPrepared { returns, depth, hold } = &mut record.state else {
                    return Err(PartsError::Range);
                };
                let (returns, depth, hold) = (Arc::clone(returns), *depth, hold.take());
                let (port, far) = (record.port, record.far);
                let end = ports::rx_conn(
                    ConnId(local),
                    returns,
                    depth,
                    &classes,
                    heap_bytes,
                    trusted,
                    (beside, &mut registry.heaps),
                )?;
                let end = if far.is_datapath() { end } else { end.direct().holding(hold) };
                let Some(sink) = registry.sinks.get(&port) else { return Ok(()) };
                let mailbox = Arc::clone(&sink.mailbox);
                if leave(&mailbox, end, &mut registry.accused) {
                    if let Some(record) = registry.conns.get_mut(&local) {
                        record.state = ConnState::RxActive;
                    }
                    Request::Mapped { conn, step: 2 }
                } else {
                    registry.conns.remove(&local);
                    Request::Violation { conn }
                }
            }
            _ => return Ok(()),
        };
        drop(registry);
        let _ = self.send(&answer);
        Ok(())
    }

    fn activate(&self, conn: ConnId) {
        let mut registry = lock(&self.registry);
        let Some(local) = registry.conn_of(conn, End::Producer) else { return };
        let Some(record) = registry.conns.get_mut(&local) else { return };
        let port = record.port;
        let ConnState::TxReady(_) = record.state else { return };
        let ConnState::TxReady(end) = std::mem::replace(&mut record.state, ConnState::TxActive) else { return };
        let mailbox = registry.sources.get(&port).map(|source| Arc::clone(&source.mailbox));
        let added = mailbox.is_some_and(|mailbox| leave(&mailbox, *end, &mut registry.accused));
        if !added {
            registry.conns.remove(&local);
            drop(registry);
            let _ = self.send(&Request::Violation { conn });
        }
    }

    fn retire(&self, conn: ConnId) {
        let mut registry = lock(&self.registry);
        let producer = registry.conn_of(conn, End::Producer);
        let consumer = registry.conn_of(conn, End::Consumer);
        if let Some(local) = consumer {
            forget(&mut registry, local);
        }
        if let Some(local) = producer {
            // Where both ends are this session's, the application may be reading what the other
            // end holds, as bytes that do not change.
            if consumer.is_some() { let_go(&mut registry, local) } else { forget(&mut registry, local) }
        }
    }

    /// The runtime is gone (or said good-bye): what it carried ends, direct rings go on.
    fn detach(&self) {
        *lock(&self.socket) = None;
        {
            let mut state = lock(&self.state);
            if matches!(*state, State::Attached | State::Returning) {
                *state = State::Detached;
            }
        }
        lock(&self.reopening).clear();
        *lock(&self.returned_at) = None;
        let mut registry = lock(&self.registry);
        let gone: Vec<u32> = registry
            .conns
            .iter()
            .filter(|(_, conn)| {
                let is_open =
                    matches!(conn.state, ConnState::TxActive | ConnState::TxLetGo { .. } | ConnState::RxActive);
                conn.far.is_datapath() || !is_open
            })
            .map(|(local, _)| *local)
            .collect();
        for local in gone {
            forget(&mut registry, local);
        }
        for conn in registry.conns.values_mut() {
            conn.id = None;
        }
        for source in registry.sources.values_mut() {
            source.id = None;
            let _ = source.mailbox.set_attachment(PortAttachment::Detached);
        }
        for sink in registry.sinks.values_mut() {
            sink.id = None;
            sink.refused = None;
            let _ = sink.mailbox.set_attachment(PortAttachment::Detached);
        }
        for stream in registry.streams.values_mut() {
            (stream.id, stream.refused) = (None, None);
        }
        drop(registry);
        let waiting: Vec<Waiting> = lock(&self.waiting).drain().map(|(_, waiting)| waiting).collect();
        for waiting in waiting {
            let _ = waiting.reply.try_send(Err(self.absent()));
        }
    }

    fn reattach(&self) {
        let finished = matches!(self.state(), State::Closed(..));
        let socket = self.path.as_ref().filter(|_| !finished).and_then(|path| seqpacket::connect(path).ok());
        match socket.map(|socket| self.greet(socket)) {
            Some(Ok(())) => return self.reopen_streams(),
            Some(Err(SessionError::Refused { .. })) => {
                self.brings_counters.fetch_xor(true, Ordering::Relaxed);
            }
            Some(Err(_)) | None => {}
        }
        std::thread::sleep(REATTACH_PERIOD);
    }

    /// Frees what ports let go; tells the runtime of peers that wrote what cannot be.
    fn collect(&self) {
        let mut registry = lock(&self.registry);
        self.forget_unclaimed(&mut registry);
        see_to_what_was_let_go(&mut registry);
        let mut accused: Vec<ConnId> = std::mem::take(&mut registry.accused);
        for source in registry.sources.values() {
            accused.extend(source.mailbox.collect());
        }
        for sink in registry.sinks.values() {
            accused.extend(sink.mailbox.collect());
        }
        for (port, local) in std::mem::take(&mut registry.removals) {
            if !remove(&registry, port, local) {
                registry.removals.push((port, local));
            }
        }
        let conns: Vec<ConnId> =
            accused.iter().filter_map(|local| registry.conns.get(&local.0).and_then(|conn| conn.id)).collect();
        drop(registry);
        for conn in conns {
            let _ = self.send(&Request::Violation { conn });
        }
    }

    /// Lets go of direct rings of before whose other end has not come back. Nobody else
    /// could say that it is gone: it went while there was no runtime. Or it stands still, and
    /// will read what waits for it: so until it is known to be gone, it keeps that.
    fn forget_unclaimed(&self, registry: &mut Registry) {
        let is_over = |at: &mut Instant| at.elapsed() >= UNCLAIMED_TIMEOUT;
        if lock(&self.returned_at).take_if(is_over).is_none() {
            return;
        }
        let unclaimed = registry.conns.iter().filter(|(_, conn)| conn.id.is_none());
        let unclaimed: Vec<(u32, End)> = unclaimed.map(|(local, conn)| (*local, conn.far.end())).collect();
        for (local, end) in unclaimed {
            match end {
                End::Producer => let_go(registry, local),
                End::Consumer => forget(registry, local),
            }
        }
    }

    /// A source of this session is no more.
    pub fn close_source(&self, uid: u64) {
        if self.is_forked() {
            return;
        }
        let mut registry = lock(&self.registry);
        let record = registry.sources.remove(&uid);
        registry.conns.retain(|_, conn| conn.port != uid);
        drop(registry);
        if let Some(source) = record.and_then(|record| record.id) {
            self.tell(|req| Request::CloseSource { req, source });
        }
    }

    /// A sink of this session is no more.
    pub fn close_sink(&self, uid: u64) {
        if self.is_forked() {
            return;
        }
        let mut registry = lock(&self.registry);
        let record = registry.sinks.remove(&uid);
        registry.conns.retain(|_, conn| conn.port != uid);
        drop(registry);
        if let Some(sink) = record.and_then(|record| record.id) {
            self.tell(|req| Request::CloseSink { req, sink });
        }
    }

    /// A stream of this session is no more.
    pub fn close_stream(&self, local: u32) {
        if self.is_forked() {
            return;
        }
        let record = lock(&self.registry).streams.remove(&local);
        if let Some(stream) = record.and_then(|record| record.id) {
            self.tell(|req| Request::CloseStream { req, stream });
        }
    }
}

/// A ring that survived the runtime's restart serves on.
fn keep(registry: &mut Registry, port: u64, far: Far, conn: ConnId) -> Option<Request> {
    let local = registry.kept(port, far)?;
    registry.conns.get_mut(&local)?.id = Some(conn);
    Some(Request::Kept { conn })
}

/// Leaves a connection for its port. A mailbox may be full of what the port has let go;
/// emptied, it has room, unless the port's thread has not looked for very long. What the
/// port says of liars on that occasion goes to `accused`.
fn leave<T>(mailbox: &Mailbox<T>, end: T, accused: &mut Vec<ConnId>) -> bool {
    mailbox
        .add(Box::new(end))
        .or_else(|end| {
            accused.extend(mailbox.collect());
            mailbox.add(end)
        })
        .is_ok()
}

/// Takes a connection out of its port and the registry. If the port's mailbox is full
/// the removal is tried again with the next collection.
fn forget(registry: &mut Registry, local: u32) {
    let Some(conn) = registry.conns.remove(&local) else { return };
    let is_at_port = matches!(conn.state, ConnState::TxActive | ConnState::TxLetGo { .. } | ConnState::RxActive);
    if is_at_port && !remove(registry, conn.port, local) {
        registry.removals.push((conn.port, local));
    }
}

/// Has nothing more sent on a producing end. What its receiver holds is used anew once that is
/// known to read no more.
fn let_go(registry: &mut Registry, local: u32) {
    let Some(conn) = registry.conns.get_mut(&local) else { return };
    match conn.state {
        ConnState::TxActive if !conn.receiver_is_gone() => {
            (conn.id, conn.state) = (None, ConnState::TxLetGo { is_told: false });
            tell_of_let_go(registry, local);
        }
        ConnState::TxLetGo { .. } => {}
        _ => forget(registry, local),
    }
}

/// If the port's mailbox is full, it is told with the next collection.
fn tell_of_let_go(registry: &mut Registry, local: u32) {
    let Some(conn) = registry.conns.get_mut(&local) else { return };
    if let ConnState::TxLetGo { is_told } = &mut conn.state
        && !*is_told
    {
        *is_told = registry.sources.get(&conn.port).is_none_or(|source| source.mailbox.let_go(ConnId(local)));
    }
}

/// Tells ports what they could not be told yet, and ends what nobody reads any more.
fn see_to_what_was_let_go(registry: &mut Registry) {
    let is_let_go = |conn: &ConnRecord| matches!(conn.state, ConnState::TxLetGo { .. });
    let let_go: Vec<u32> = registry.conns.iter().filter(|(_, conn)| is_let_go(conn)).map(|(local, _)| *local).collect();
    for local in let_go {
        tell_of_let_go(registry, local);
        if registry.conns.get(&local).is_some_and(ConnRecord::receiver_is_gone) {
            forget(registry, local);
        }
    }
}

/// `false` if the port's mailbox is full.
fn remove(registry: &Registry, port: u64, local: u32) -> bool {
    if let Some(source) = registry.sources.get(&port) {
        source.mailbox.remove(ConnId(local))
    } else if let Some(sink) = registry.sinks.get(&port) {
        sink.mailbox.remove(ConnId(local))
    } else {
        true
    }
}

/// Wake page and wake socket's writer, to be kept; and the socket's reader.
fn sink_parts(beside: &mut Beside, wake: SinkWake) -> Result<(Vec<OwnedFd>, Option<OwnedFd>), PartsError> {
    Ok(match wake {
        SinkWake::Never => (Vec::new(), None),
        SinkWake::Page => (vec![beside.next()?], None),
        SinkWake::Fd => {
            let (page, reader, writer) = (beside.next()?, beside.next()?, beside.next()?);
            (vec![page, writer], Some(reader))
        }
    })
}

/// Waits for one event on a socket that nobody serves yet.
fn receive_one(socket: &OwnedFd, timeout: Duration) -> Result<Option<(Event, Vec<OwnedFd>)>, SessionError> {
    let epoll = Epoll::new()?;
    epoll.add(socket, SOCKET_TOKEN, Interest::Read, Trigger::Level)?;
    let give_up = Instant::now() + timeout;
    let mut buffer = vec![0; PACKET_BYTES_MAX];
    loop {
        match seqpacket::recv(socket, &mut buffer)? {
            RecvOutcome::Packet(packet) if !packet.truncated => {
                let event = control::decode(&buffer[..packet.len]).map_err(|_| SessionError::Silent)?;
                return Ok(Some((event, packet.fds.into_iter().collect())));
            }
            RecvOutcome::Packet(_) | RecvOutcome::Closed => return Ok(None),
            RecvOutcome::WouldBlock => {}
        }
        let left = give_up.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut ready = [Ready::NONE; 1];
        epoll.wait(&mut ready, Some(left.into()))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_ended_is_there_no_more_also_without_a_priority() {
        let place = |tid| PlacedThread { tid, priority: None, core: Some(0) };
        assert!(place(current_tid()).is_there());
        let ended = std::thread::spawn(current_tid).join().unwrap();
        // The kernel forgets it a moment after its end can be seen.
        let give_up = Instant::now() + Duration::from_secs(5);
        while place(ended).is_there() {
            assert!(Instant::now() < give_up, "it is forgotten");
            std::thread::yield_now();
        }
        let others = i32::try_from(std::os::unix::process::parent_id()).unwrap();
        assert!(!place(others).is_there(), "of another process");
    }
}
