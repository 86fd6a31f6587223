//! Sessions.

use crate::agent::{Reply, Shared, State, What, lock};
use crate::callback::Callbacks;
use crate::cyclic::{Cyclic, CyclicError, Place, place};
use crate::error::{LockError, RequestError, SessionError};
use crate::hosting::Hosting;
use crate::options::StreamOptions;
use crate::registry::StreamRecord;
use crate::stream::Stream;
use insane_config::Plan;
use insane_control::{InlineHost, Runtime};
use insane_core::{Datapath, Nanos, Priority, Qos};
use insane_sys::Errno;
use insane_sys::seqpacket;
use insane_sys::thread::lock_all_memory;
use insane_wire::control::Request;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Whether a session's runtime is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Attachment {
    /// The runtime answers.
    Attached,
    /// The runtime is gone, or back and has not yet opened again what the session had.
    /// Direct rings to local peers go on; the session reattaches when the runtime is back.
    Detached,
    /// The runtime closed the session, for this reason; it will not come back.
    Closed(String),
}

/// What streams, sources and sinks keep alive.
pub(crate) struct Core {
    pub shared: Arc<Shared>,
    pub callbacks: Mutex<Option<Callbacks>>,
    pub inline: Option<Arc<InlineHost>>,
    agent: Mutex<Option<JoinHandle<()>>>,
    stream_next: AtomicU32,
    /// The runtime in this process, for as long as the session lives.
    runtime: Option<Arc<Runtime>>,
}

impl Drop for Core {
    fn drop(&mut self) {
        if self.shared.is_forked() {
            // The threads, and the runtime in that process, are the parent's: there is
            // nobody here to wait for.
            std::mem::forget(self.callbacks.get_mut().map(Option::take));
            std::mem::forget(self.agent.get_mut().map(Option::take));
            std::mem::forget(self.runtime.take());
            return;
        }
        drop(lock(&self.callbacks).take());
        self.shared.stop();
        if let Some(agent) = lock(&self.agent).take() {
            let _ = agent.join();
        }
    }
}

/// One application attached to one runtime. Dropping the session and everything made
/// from it closes it.
#[derive(Clone)]
pub struct Session {
    core: Arc<Core>,
}

impl Session {
    /// Attaches to the daemon whose control socket is at `path`, in the first domain
    /// that its access rules allow.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn attach(path: impl AsRef<Path>, name: &str) -> Result<Self, SessionError> {
        Self::attach_to(path.as_ref(), name, None)
    }

    /// As [`attach`](Self::attach), in the domain of that name.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn attach_in(path: impl AsRef<Path>, name: &str, domain: &str) -> Result<Self, SessionError> {
        Self::attach_to(path.as_ref(), name, Some(domain))
    }

    fn attach_to(path: &Path, name: &str, domain: Option<&str>) -> Result<Self, SessionError> {
        let shared = Shared::new(name, domain, Some(path.to_path_buf()))?;
        let socket = seqpacket::connect(path)
            .map_err(|error| SessionError::Unreachable { path: path.into(), reason: error.to_string() })?;
        shared.greet(socket)?;
        Self::start(shared, None)
    }

    /// Starts a runtime inside this process, without peers, and attaches to it: nothing
    /// to configure, nothing to start.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn embedded(name: &str) -> Result<Self, SessionError> {
        Self::embedded_with(Plan::embedded_default(), Hosting::Thread, name)
    }

    /// Starts a runtime inside this process as the plan says and attaches to it.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub fn embedded_with(plan: Plan, hosting: Hosting, name: &str) -> Result<Self, SessionError> {
        let hosting = match hosting {
            Hosting::Thread => insane_control::Hosting::Thread,
            Hosting::Inline => insane_control::Hosting::Inline,
        };
        let runtime = Runtime::start(plan, hosting).map_err(|error| SessionError::Start(error.to_string()))?;
        Self::join(Arc::new(runtime), name)
    }

    fn join(runtime: Arc<Runtime>, name: &str) -> Result<Self, SessionError> {
        let shared = Shared::new(name, None, None)?;
        let socket = runtime.attach_in_process().map_err(|error| SessionError::Start(error.to_string()))?;
        shared.greet(socket)?;
        Self::start(shared, Some(runtime))
    }

    /// The runtime inside this process, for tools that measure; `None`: it is a daemon.
    #[must_use]
    pub fn runtime(&self) -> Option<&Runtime> {
        self.core.runtime.as_deref()
    }

    /// One more session on this session's embedded runtime.
    ///
    /// # Errors
    /// See [`SessionError`]; a session of a daemon has no embedded runtime.
    pub fn sibling(&self, name: &str) -> Result<Self, SessionError> {
        match &self.core.runtime {
            Some(runtime) => Self::join(Arc::clone(runtime), name),
            None => Err(SessionError::Start("the session's runtime is a daemon: attach to it".into())),
        }
    }

    fn start(shared: Arc<Shared>, runtime: Option<Arc<Runtime>>) -> Result<Self, SessionError> {
        let of_agent = Arc::clone(&shared);
        let agent = std::thread::Builder::new().name("insane-agent".into()).spawn(move || of_agent.run())?;
        let core = Core {
            shared,
            callbacks: Mutex::new(None),
            inline: runtime.as_ref().and_then(|runtime| runtime.inline()),
            agent: Mutex::new(Some(agent)),
            stream_next: AtomicU32::new(1),
            runtime,
        };
        Ok(Session { core: Arc::new(core) })
    }

    /// Opens a stream: a contract under a name, shared by all who open the same name in
    /// the domain, on every host.
    ///
    /// # Errors
    /// See [`RequestError`]; opening with another quality of service than others is refused.
    pub fn stream(&self, name: &str, qos: Qos) -> Result<Stream, RequestError> {
        self.stream_with(name, qos, StreamOptions::default())
    }

    /// As [`stream`](Self::stream), with options.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn stream_with(&self, name: &str, qos: Qos, options: StreamOptions) -> Result<Stream, RequestError> {
        if !insane_wire::control::name_fits(name) {
            return Err(RequestError::Option("a stream's name has 1 to 64 bytes and no control characters"));
        }
        let shared = &self.core.shared;
        if shared.is_forked() {
            return Err(RequestError::Forked);
        }
        let local = self.core.stream_next.fetch_add(1, Ordering::Relaxed);
        let isolated = options.isolated;
        let record = StreamRecord { name: name.into(), qos, given: None, isolated, id: None, refused: None };
        lock(&shared.registry).streams.insert(local, record);
        let answer =
            shared.request(What::Stream { local }, |req| Request::OpenStream { req, name: name.into(), qos, isolated });
        match answer {
            Ok(Reply::Stream(given)) => Ok(Stream::new(Arc::clone(&self.core), local, given)),
            Ok(_) => Err(RequestError::Silent),
            Err(error) => {
                lock(&shared.registry).streams.remove(&local);
                Err(error)
            }
        }
    }

    /// A cyclic task: every `period`, at `offset` inside it. It begins with
    /// [`start`](Cyclic::start), on the thread that calls that.
    pub fn cyclic(&self, period: Nanos, offset: Nanos) -> Cyclic {
        Cyclic::new(Arc::clone(&self.core), period, offset)
    }

    /// Puts the current thread under `SCHED_FIFO` at that priority, and on that core, of both what
    /// is named, as a cyclic task does when it starts ([`Cyclic::fifo`], [`Cyclic::core`]); for
    /// threads that others wake. The thread keeps its place.
    ///
    /// # Errors
    /// The core is that of a datapath, or this process was forked. A place that is refused is no
    /// error ([`Place::misplaced`]).
    pub fn place_current(&self, priority: Option<u8>, core: Option<usize>) -> Result<Place, CyclicError> {
        place::take(&self.core.shared, priority, core)
    }

    /// Keeps all memory of this process, present and future, in RAM. Where the process may not
    /// lock so much itself and the runtime is a daemon, that is asked to raise its limit to
    /// `bytes`, within the rule of the domain (`realtime.locked_bytes_max`).
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn lock_memory(&self, bytes: u64) -> Result<(), LockError> {
        let shared = &self.core.shared;
        if shared.is_forked() {
            return Err(LockError::Runtime(RequestError::Forked));
        }
        match lock_all_memory() {
            Err(error) if shared.has_daemon() && matches!(error.errno, Errno::EPERM | Errno::ENOMEM) => {
                shared.raise_memlock(bytes)?;
                Ok(lock_all_memory()?)
            }
            other => Ok(other?),
        }
    }

    /// Lets the messages that an open stream of this host sends to one peer, or to all, go by
    /// another link of its datapath, from the next one on. Planned like that nothing is lost,
    /// repeated or reordered over links that lose nothing. `link`: its name; `None`: as whatever
    /// else goes to the peers. Only for who runs the runtime.
    ///
    /// # Errors
    /// There is no such stream, link or peer, the link has no address of the peer, the stream has
    /// slots and holds no certificate there, or it was moved less than 50 ms ago: [`RequestError::Refused`], with the reason.
    pub fn move_stream(&self, stream: &str, link: Option<&str>, peer: Option<&str>) -> Result<(), RequestError> {
        if self.core.shared.is_forked() {
            return Err(RequestError::Forked);
        }
        self.core.shared.move_stream(stream, link, peer)
    }

    /// Changes what an open stream of this host asks for while it is used: which kind of
    /// technology, and how important it is. The policy chooses its links anew, and it moves where
    /// they are others; nothing is lost, repeated or reordered by that over links that lose
    /// nothing. `None`: as it is; `None` of both: both as its first opener asked for. It holds for
    /// all who have the stream open, and is forgotten when the last of them closes it. Everything
    /// else was agreed upon when it was opened. For who has it open, and who runs the runtime.
    ///
    /// # Errors
    /// There is no such stream, it is not this session's, or the configuration declares it
    /// otherwise: [`RequestError::Refused`], with the reason.
    pub fn set_qos(
        &self,
        stream: &str,
        datapath: Option<Datapath>,
        priority: Option<Priority>,
    ) -> Result<(), RequestError> {
        if self.core.shared.is_forked() {
            return Err(RequestError::Forked);
        }
        self.core.shared.set_qos(stream, datapath, priority)
    }

    /// Whether the runtime is there.
    #[must_use]
    pub fn attachment(&self) -> Attachment {
        match self.core.shared.state() {
            State::Attached => Attachment::Attached,
            State::Detached | State::Returning => Attachment::Detached,
            State::Closed(_, reason) => Attachment::Closed(reason),
        }
    }

    /// The domain the session is in.
    #[must_use]
    pub fn domain(&self) -> String {
        lock(&self.core.shared.domain_name).clone()
    }

    /// With [`Hosting::Inline`]: one turn of the engine, as emit and consume do. Says
    /// whether it moved anything; always false otherwise.
    #[inline]
    pub fn turn(&self) -> bool {
        self.core.inline.as_ref().is_some_and(|inline| inline.try_turn())
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Session({}, {:?})", self.core.shared.name, self.attachment())
    }
}
