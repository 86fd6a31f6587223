//! Who calls, who is answered: a thread of the link's own.
//!
//! Making and freeing queue pairs takes memory and up to milliseconds in the driver, which a
//! datapath has not. So the datapath gets connections that stand, and lets them go; this thread
//! does the rest. A queue pair is freed when the link has let it go and half a second has
//! passed, in which the datapath takes what was flushed from it: its buffers come back.

use crate::backoff::{self, Backoff};
use crate::class::Class;
use crate::counts::RdmaCounts;
use crate::hello::Hello;
use crate::line::{Fresh, Line, Role, Signals, Use};
use insane_core::{MonoTime, Nanos};
use insane_rdma_sys::{Arrived, CmEvent, CmEvents, CmId, Connecting, Cq, Device, Qp};
use insane_sys::OsError;
use insane_sys::clock::mono_now;
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How long an attempt may take.
const HANDSHAKE_MAX: Nanos = Nanos::from_secs(5);
/// How long the way is looked for at a time, milliseconds.
const RESOLVE_MS: u32 = 2_000;
/// From the end of a connection to the freeing of its queues.
const DRAIN: Nanos = Nanos::from_millis(500);
/// Events that are taken between two looks at the lines.
const EVENTS_MAX: usize = 64;
/// 4.096 us times 2^15: an unanswered packet goes again after 134 ms at first.
const ACK_TIMEOUT: u8 = 15;
/// Longest and shortest sleep.
const SLEEP_MAX: Nanos = Nanos::from_millis(500);
const SLEEP_MIN: Nanos = Nanos::from_millis(5);
/// How long a door that closes waits for the other sides to confirm the end: a goodbye that is
/// lost is repeated only as long as there is somebody to do it.
const GOODBYE_MAX: Nanos = Nanos::from_millis(200);

/// What the control plane, the link and the door share.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) signals: Arc<Signals>,
    /// Lines that the door does not know yet. Never locked by the link.
    newcomers: Mutex<Vec<Arc<Line>>>,
    /// Lines that have served, and are not done with.
    pub(crate) alive: AtomicUsize,
    attempts_failed: AtomicU64,
    strangers: AtomicU64,
    hellos_refused: AtomicU64,
    replaced: AtomicU64,
}

impl Desk {
    pub(crate) fn new() -> Result<Arc<Self>, OsError> {
        Ok(Arc::new(Desk {
            signals: Arc::new(Signals::new()?),
            newcomers: Mutex::new(Vec::new()),
            alive: AtomicUsize::new(0),
            attempts_failed: AtomicU64::new(0),
            strangers: AtomicU64::new(0),
            hellos_refused: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
        }))
    }

    pub(crate) fn introduce(&self, line: Arc<Line>) {
        self.newcomers.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Adds what the door counted.
    pub(crate) fn count_into(&self, counts: &mut RdmaCounts) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        counts.attempts_failed = read(&self.attempts_failed);
        counts.strangers = read(&self.strangers);
        counts.hellos_refused = read(&self.hellos_refused);
        counts.replaced = read(&self.replaced);
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What connections are made with.
#[derive(Debug)]
pub(crate) struct Maker {
    pub(crate) device: Device,
    pub(crate) events: CmEvents,
    /// Held as long as calls are to be answered.
    pub(crate) _listener: CmId,
    pub(crate) connecting: Connecting,
    pub(crate) sent: Arc<Cq>,
    /// By class.
    pub(crate) came: [Arc<Cq>; 2],
    /// This host's address with its port.
    pub(crate) local: SocketAddr,
    pub(crate) own: Hello,
    pub(crate) dscp: u8,
}

impl Maker {
    fn hello(&self, class: Class) -> Hello {
        Hello { class, ..self.own }
    }

    fn cqs(&self, class: Class) -> [Arc<Cq>; 2] {
        [Arc::clone(&self.sent), Arc::clone(&self.came[class as usize])]
    }

    fn dscp(&self, class: Class) -> Option<u8> {
        (class == Class::RealTime).then_some(self.dscp)
    }

    /// Begins to call.
    fn dial(&self, line: &Line, tag: u64) -> Option<CmId> {
        let id = CmId::new(&self.events, tag).ok()?;
        id.set_options(self.dscp(line.class), ACK_TIMEOUT);
        let mut from = self.local;
        from.set_port(0);
        id.resolve_address(from, line.address, RESOLVE_MS).ok()?;
        Some(id)
    }
}

/// How far a line is.
#[derive(Debug)]
enum Phase {
    Down {
        retry_at: MonoTime,
    },
    /// The way is looked for.
    Seeking {
        id: CmId,
        since: MonoTime,
    },
    /// We called.
    Calling {
        qp: Arc<Qp>,
        since: MonoTime,
    },
    /// We answered, and the caller is to confirm it; the link has the connection.
    Answering {
        qp: Arc<Qp>,
        since: MonoTime,
    },
    /// The link has it.
    Stands {
        qp: Arc<Qp>,
        since: MonoTime,
    },
}

#[derive(Debug)]
struct Known {
    line: Arc<Line>,
    /// What events of the present attempt or connection bear.
    tag: u64,
    phase: Phase,
    backoff: Backoff,
    has_served: bool,
}

/// A connection that is over.
#[derive(Debug)]
struct Closing {
    qp: Arc<Qp>,
    line: Arc<Line>,
    since: MonoTime,
    /// The other side knows.
    is_confirmed: bool,
}

/// The thread, as the link holds it.
#[derive(Debug)]
pub(crate) struct Door {
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
}

impl Door {
    pub(crate) fn open(maker: Maker, desk: Arc<Desk>) -> Result<Self, OsError> {
        let epoll = Epoll::new()?;
        epoll.add(&desk.signals.bell, 0, Interest::Read, Trigger::Level)?;
        epoll.add(&maker.events, 1, Interest::Read, Trigger::Level)?;
        let porter = Porter { maker, desk: Arc::clone(&desk), known: Vec::new(), closing: Vec::new(), tags: 0 };
        let thread = std::thread::Builder::new().name("rdma-door".to_owned()).spawn(move || porter.run(&epoll));
        let thread = thread.map_err(|error| {
            let errno = insane_sys::Errno::from_raw(error.raw_os_error().unwrap_or(0));
            OsError::new("starting the thread that makes RDMA connections", errno)
        })?;
        Ok(Door { desk, thread: Some(thread) })
    }

    /// Ends all connections, and the thread.
    pub(crate) fn close(&mut self) {
        self.desk.signals.stopping.store(true, Ordering::Release);
        self.desk.signals.tell_door();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close();
    }
}

struct Porter {
    maker: Maker,
    desk: Arc<Desk>,
    known: Vec<Known>,
    closing: Vec<Closing>,
    tags: u64,
}

impl Porter {
    fn run(mut self, epoll: &Epoll) {
        while !self.desk.signals.stopping.load(Ordering::Acquire) {
            let _ = self.desk.signals.bell.clear();
            self.meet();
            for _ in 0..EVENTS_MAX {
                let Some(event) = self.maker.events.take() else { break };
                self.event(event, mono_now());
            }
            let now = mono_now();
            for at in 0..self.known.len() {
                self.step(at, now);
            }
            self.free(now);
            let _ = epoll.wait(&mut [Ready::NONE; 2], Some(self.rest(now)));
        }
        self.say_goodbye(epoll);
    }

    /// Ends all that stands, and waits a little for the other sides to know.
    fn say_goodbye(&mut self, epoll: &Epoll) {
        let began = mono_now();
        for at in 0..self.known.len() {
            self.end(at, began);
        }
        let _ = self.desk.signals.bell.clear();
        loop {
            while let Some(event) = self.maker.events.take() {
                // Nobody new is let in.
                match event {
                    CmEvent::Call(arrived) => arrived.reject(),
                    event => self.event(event, began),
                }
            }
            let waited = mono_now().since(began);
            if waited >= GOODBYE_MAX || self.closing.iter().all(|closing| closing.is_confirmed) {
                return;
            }
            let _ = epoll.wait(&mut [Ready::NONE; 2], Some(SLEEP_MIN));
        }
    }

    fn meet(&mut self) {
        let newcomers = std::mem::take(&mut *self.desk.newcomers.lock().unwrap_or_else(PoisonError::into_inner));
        for line in newcomers {
            let seed =
                u64::from(self.maker.local.port()) << 32 | u64::from(line.address.port()) << 8 | line.class as u64;
            let phase = Phase::Down { retry_at: MonoTime(0) };
            self.known.push(Known { line, tag: 0, phase, backoff: Backoff::new(seed), has_served: false });
        }
    }

    /// How long nothing is to be done unless something happens.
    fn rest(&self, now: MonoTime) -> Nanos {
        let retries = self.known.iter().filter_map(|known| match known.phase {
            Phase::Down { retry_at } if known.line.is_used() == Use::Serves && known.line.role == Role::Calls => {
                Some(retry_at.since(now))
            }
            _ => None,
        });
        // Whoever still holds one rings when he lets go.
        let frees = self.closing.iter().map(|closing| (closing.since + DRAIN).since(now));
        let frees = frees.filter(|rest| *rest > Nanos::ZERO);
        let next = retries.chain(frees).min().unwrap_or(SLEEP_MAX);
        next.clamp(SLEEP_MIN, SLEEP_MAX)
    }

    fn tag(&mut self) -> u64 {
        self.tags += 1;
        self.tags
    }

    /// What is to be done for a line without an event.
    fn step(&mut self, at: usize, now: MonoTime) {
        let state = self.known[at].line.is_used();
        self.known[at].has_served |= state == Use::Serves;
        let known = &self.known[at];
        match &known.phase {
            Phase::Down { retry_at } => {
                if state == Use::Serves && known.line.role == Role::Calls && *retry_at <= now {
                    self.dial(at, now);
                }
            }
            Phase::Seeking { since, .. } => {
                if state != Use::Serves {
                    self.known[at].phase = Phase::Down { retry_at: now };
                } else if now.since(*since) > HANDSHAKE_MAX {
                    self.fail(at, now);
                }
            }
            Phase::Calling { since, .. } => {
                if state != Use::Serves || now.since(*since) > HANDSHAKE_MAX {
                    self.fail(at, now);
                }
            }
            Phase::Answering { qp, since } => {
                if now.since(*since) > HANDSHAKE_MAX || is_let_go(qp, &known.line) || state == Use::Gone {
                    self.end(at, now);
                }
            }
            Phase::Stands { qp, .. } => {
                if is_let_go(qp, &known.line) || state == Use::Gone {
                    self.end(at, now);
                }
            }
        }
    }

    fn dial(&mut self, at: usize, now: MonoTime) {
        let tag = self.tag();
        let known = &mut self.known[at];
        known.tag = tag;
        match self.maker.dial(&known.line, tag) {
            Some(id) => known.phase = Phase::Seeking { id, since: now },
            None => self.fail(at, now),
        }
    }

    /// An attempt failed.
    fn fail(&mut self, at: usize, now: MonoTime) {
        count(&self.desk.attempts_failed);
        self.end(at, now);
    }

    /// Whatever there is is over, and tried again later.
    fn end(&mut self, at: usize, now: MonoTime) {
        let known = &mut self.known[at];
        if let Phase::Stands { since, .. } = known.phase
            && now.since(since) >= backoff::LONGEST
        {
            known.backoff.reset();
        }
        // What comes of it later is nobody's.
        known.tag = 0;
        let down = Phase::Down { retry_at: now + known.backoff.next() };
        let (Phase::Calling { qp, .. } | Phase::Answering { qp, .. } | Phase::Stands { qp, .. }) =
            std::mem::replace(&mut known.phase, down)
        else {
            return;
        };
        qp.disconnect();
        known.line.set_ended(qp.number());
        // The link may not have taken it yet.
        self.closing.push(Closing { qp, line: Arc::clone(&known.line), since: now, is_confirmed: false });
    }

    /// Frees connections that nobody has any more, and forgets lines that are done with.
    fn free(&mut self, now: MonoTime) {
        self.closing.retain(|closing| now.since(closing.since) < DRAIN || !is_let_go(&closing.qp, &closing.line));
        let (closing, desk) = (&self.closing, &self.desk);
        self.known.retain(|known| {
            let is_done = known.line.is_used() == Use::Gone
                && matches!(known.phase, Phase::Down { .. })
                && !closing.iter().any(|closing| Arc::ptr_eq(&closing.line, &known.line));
            if is_done && known.has_served {
                desk.alive.fetch_sub(1, Ordering::Relaxed);
            }
            !is_done
        });
    }

    fn of_tag(&self, tag: u64) -> Option<usize> {
        self.known.iter().position(|known| known.tag == tag && tag != 0)
    }

    fn event(&mut self, event: CmEvent, now: MonoTime) {
        match event {
            CmEvent::AddressResolved { tag } => {
                let Some(at) = self.of_tag(tag) else { return };
                let Phase::Seeking { id, .. } = &self.known[at].phase else { return };
                if id.resolve_route(RESOLVE_MS).is_err() {
                    self.fail(at, now);
                }
            }
            CmEvent::RouteResolved { tag } => {
                if let Some(at) = self.of_tag(tag) {
                    self.call(at, now);
                }
            }
            CmEvent::Call(arrived) => self.answer(arrived, now),
            CmEvent::Established { tag, private } => {
                if let Some(at) = self.of_tag(tag) {
                    self.established(at, &private, now);
                }
            }
            CmEvent::Failed { tag, .. } => {
                if let Some(at) = self.of_tag(tag) {
                    self.fail(at, now);
                }
            }
            CmEvent::Ended { tag } => {
                if let Some(at) = self.of_tag(tag) {
                    self.end(at, now);
                }
                let confirmed = self.closing.iter_mut().find(|closing| closing.qp.tag() == tag);
                if let Some(closing) = confirmed {
                    closing.is_confirmed = true;
                }
            }
            CmEvent::Other => {}
        }
    }

    /// The way is known: queues, and the call itself.
    fn call(&mut self, at: usize, now: MonoTime) {
        let known = &mut self.known[at];
        let Phase::Seeking { since, .. } = known.phase else { return };
        let Phase::Seeking { id, .. } = std::mem::replace(&mut known.phase, Phase::Down { retry_at: now }) else {
            return;
        };
        let class = known.line.class;
        let made = id.queues(&self.maker.device, self.maker.cqs(class), &self.maker.connecting);
        match made {
            Ok(qp) => {
                let is_called = qp.connect(&self.maker.hello(class).encode()).is_ok();
                known.phase = Phase::Calling { qp, since };
                if !is_called {
                    self.fail(at, now);
                }
            }
            Err(_) => self.fail(at, now),
        }
    }

    fn established(&mut self, at: usize, private: &[u8], now: MonoTime) {
        let known = &mut self.known[at];
        let own = self.maker.hello(known.line.class);
        match std::mem::replace(&mut known.phase, Phase::Down { retry_at: now }) {
            Phase::Answering { qp, .. } => known.phase = Phase::Stands { qp, since: now },
            Phase::Calling { qp, since } => {
                let expected = |hello: &Hello| {
                    let window = hello.window;
                    *hello == Hello { port: known.line.address.port(), window, ..own }
                };
                let Some(hello) = Hello::decode(private).filter(expected) else {
                    known.phase = Phase::Calling { qp, since };
                    count(&self.desk.hellos_refused);
                    return self.fail(at, now);
                };
                let fresh = Fresh { qp: Arc::clone(&qp), window: u32::from(hello.window), is_open: true };
                known.phase = Phase::Stands { qp, since: now };
                known.line.hand_over(fresh);
            }
            other => known.phase = other,
        }
    }

    /// Somebody calls. A new call of a peer replaces what stands: it would not call if that
    /// still served it.
    fn answer(&mut self, arrived: Arrived, now: MonoTime) {
        let from = arrived.from;
        let is_expected = |known: &Known| {
            known.line.role == Role::Answers
                && known.line.is_used() == Use::Serves
                && is_same_host(known.line.address, from)
        };
        if !self.known.iter().any(is_expected) {
            count(&self.desk.strangers);
            return arrived.reject();
        }
        let hello = Hello::decode(&arrived.private);
        let at = hello.and_then(|hello| {
            let is_it = |known: &Known| {
                let own = self.maker.hello(known.line.class);
                let port = known.line.address.port();
                is_expected(known) && hello == Hello { port, window: hello.window, ..own }
            };
            self.known.iter().position(is_it)
        });
        let (Some(at), Some(hello)) = (at, hello) else {
            count(&self.desk.hellos_refused);
            return arrived.reject();
        };
        if matches!(self.known[at].phase, Phase::Stands { .. } | Phase::Answering { .. }) {
            count(&self.desk.replaced);
            self.end(at, now);
        }
        let tag = self.tag();
        let known = &mut self.known[at];
        let class = known.line.class;
        arrived.set_options(self.maker.dscp(class), ACK_TIMEOUT);
        let made = arrived.queues(tag, &self.maker.device, self.maker.cqs(class), &self.maker.connecting);
        let Ok(qp) = made else { return self.fail(at, now) };
        // The link knows it before the caller may send.
        known.line.hand_over(Fresh { qp: Arc::clone(&qp), window: u32::from(hello.window), is_open: false });
        let is_answered = qp.accept(&self.maker.hello(class).encode()).is_ok();
        known.tag = tag;
        known.phase = Phase::Answering { qp, since: now };
        if !is_answered {
            self.fail(at, now);
        }
    }
}

/// Nobody but the door has the connection: neither the link nor what waits for it.
fn is_let_go(qp: &Arc<Qp>, line: &Line) -> bool {
    if Arc::strong_count(qp) > 1 && line.is_used() == Use::Gone {
        // Nobody empties it any more.
        while line.fresh.pop().is_some() {}
    }
    Arc::strong_count(qp) == 1
}

/// Whether both are of one host, whatever the port.
fn is_same_host(a: SocketAddr, b: SocketAddr) -> bool {
    let scope = |address| if let SocketAddr::V6(v6) = address { v6.scope_id() } else { 0 };
    a.ip() == b.ip() && scope(a) == scope(b)
}
