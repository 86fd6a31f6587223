//! A whole runtime: control plane and datapaths, started from a plan.
//!
//! ```no_run
//! use insane_config::Plan;
//! use insane_control::runtime::{Hosting, Runtime};
//!
//! let runtime = Runtime::start(Plan::embedded_default(), Hosting::Thread)?;
//! let socket = runtime.attach_in_process()?; // a session begins with HELLO on it
//! # drop(socket);
//! runtime.stop();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! Several runtimes may live in one process; they share nothing but the process's
//! locked-memory setting.

use crate::datapath::{Datapath, SharedParts};
use crate::discovery::Discovering;
use crate::hub::Hub;
use crate::inline::InlineHost;
use crate::keepers::Keepers;
use crate::launch;
use crate::links::{self, OpenLinks};
use crate::memory::{CounterPages, DatapathMemory, HugeReport};
use crate::misses::MissFile;
use crate::objects::Objects;
use crate::overlay::Overlay;
use crate::plan_spec::hub_spec;
use crate::preparer::Preparer;
use crate::report::Facts;
use crate::roster::Roster;
use crate::server::{Letter, Listener, Parts, Server};
use crate::start::StartError;
use insane_config::{Budget, LayoutSizes, Machine, Plan, Severity, Technology};
use insane_core::{DatapathIndex, HostId, Incarnation, MonoTime};
use insane_engine::SlotLog;
use insane_engine::waker::WakerThread;
use insane_sys::clock::mono_now;
use insane_sys::event::Event;
use insane_sys::{OsError, seqpacket, thread};
use insane_wire::reload::ReloadReport;
use insane_wire::status::{StatusReport, ThreadStatus};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a report may take before the caller gives up.
const REPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a reload may take before the caller gives up.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Who turns the datapaths.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hosting {
    /// A thread each.
    Thread,
    /// The application's own calls, and a keeper thread while it is busy; one datapath.
    Inline,
}

/// What the control thread and the handle share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    beat: AtomicU64,
    failure: OnceLock<String>,
}

impl Shared {
    pub(crate) fn beat(&self, now: MonoTime) {
        self.beat.store(now.0, Ordering::Relaxed);
    }

    /// Notes the first thing after which the runtime is not whole any more.
    pub(crate) fn fail(&self, what: &str) {
        if self.failure.set(what.to_owned()).is_ok() {
            tracing::error!(what, "the runtime is not whole any more");
        }
    }
}

/// A running runtime. Dropping it stops it.
#[derive(Debug)]
pub struct Runtime {
    letters: Sender<Letter>,
    bell: Arc<Event>,
    shared: Arc<Shared>,
    control: Option<JoinHandle<()>>,
    inline: Option<Arc<InlineHost>>,
    threads: Vec<(String, i32)>,
    degraded: Vec<String>,
    links: Vec<(String, String)>,
    slot_logs: Vec<Option<Arc<SlotLog>>>,
    socket: Option<PathBuf>,
}

impl Runtime {
    /// Starts a runtime: links, memory, datapaths, socket, control plane. What may be
    /// missing without harm (a core, a priority, locked memory) is in
    /// [`degraded`](Self::degraded).
    ///
    /// # Errors
    /// See [`StartError`]. Nothing is left running.
    pub fn start(mut plan: Plan, hosting: Hosting) -> Result<Self, StartError> {
        let machine = Machine::detect();
        // A reload is compared with what was asked for, not with what could be had.
        let written = plan.clone();
        let mut degraded = launch::settle(&mut plan);
        let spec = hub_spec(&plan, hosting, machine.uid)?;
        degraded.extend(of_time_namespace(insane_sys::clock::mono_lead_ns()));
        check_build(&plan)?;
        let planned_bytes = check_memory(&plan, &machine)?;
        // Before any thread is pinned: a pinned one sees only its own core.
        let _ = thread::cores();
        let locked = lock_memory(&plan, &mut degraded);
        let (host, incarnation) = (plan.host.id, next_incarnation());
        let answer = Arc::new(Event::new()?);
        let pages = CounterPages::new(&plan)?;
        let mut huge = HugeReport::default();
        let waker = start_waker(hosting)?;
        let shared_parts = SharedParts { answer: Arc::clone(&answer), waker: waker.as_ref().map(WakerThread::queue) };
        let mut misses = MissFile::new(&plan, incarnation, &mut degraded);
        let memory = (&pages, &misses);
        check_addresses(&plan)?;
        let mut open = open_links(&plan)?;
        let kept = open.iter_mut().flat_map(|links| std::mem::take(&mut links.kept)).collect();
        let datapaths = start_datapaths(&plan, (host, incarnation), hosting, (memory, open), &mut huge, &shared_parts)?;
        let keepers_failed = |source| StartError::Thread { what: "the keepers of links".into(), source };
        let keepers = Keepers::start(kept).map_err(keepers_failed)?;
        if huge.got < huge.wanted {
            degraded.push(format!("{} of {} heaps are of huge pages; the others cost more", huge.got, huge.wanted));
        }
        degraded.extend(datapaths.iter().flat_map(|datapath| datapath.degraded.iter().cloned()));
        let preparer = start_preparer(&plan, &answer)?;
        let mut threads: Vec<(String, i32)> = datapaths
            .iter()
            .filter_map(|datapath| Some((format!("datapath {}", datapath.plan.name), datapath.tid?)))
            .collect();
        threads.extend(preparer.as_ref().map(|preparer| ("preparer".to_owned(), preparer.tid)));
        threads.extend(keepers.as_ref().map(|keepers| ("link keeper".to_owned(), keepers.tid)));
        threads.extend(waker.as_ref().map(|waker| ("waker".to_owned(), waker.tid())));
        let bell = Arc::new(Event::new()?);
        let roster = Roster::new(&plan);
        let discovery = Discovering::start(&plan, incarnation, &roster, &bell)?;
        threads.extend(discovery.as_ref().map(Discovering::thread));
        let listener = plan.control.socket.as_deref().map(|path| listen(path, plan.control.mode)).transpose()?;
        misses.publish(&mut degraded);
        let socket = plan.control.socket.clone();
        let (letters, received) = channel();
        let shared = Arc::new(Shared::default());
        shared.beat(mono_now());
        let inline = datapaths.first().and_then(Datapath::inline);
        let links = datapaths.iter().flat_map(Datapath::links).map(|l| (l.name.clone(), l.address.clone())).collect();
        let slot_logs = datapaths.iter().map(Datapath::slot_log).collect();
        let overlay = Overlay::new(&plan, &roster, host, incarnation);
        let objects = Objects::new();
        let started = mono_now();
        let facts = Facts {
            plan: written,
            incarnation,
            started,
            pages,
            huge,
            locked,
            planned_bytes,
            degraded: degraded.clone(),
            threads: threads.clone(),
        };
        let parts = Parts {
            hub: Hub::new(spec),
            objects,
            keepers,
            datapaths,
            preparer,
            waker,
            overlay,
            roster,
            discovery,
            facts,
            listener,
            letters: received,
            mailbox: letters.clone(),
            bell: Arc::clone(&bell),
            answer,
            shared: Arc::clone(&shared),
        };
        let (control, tid) = start_control(parts)?;
        let mut all = vec![(CONTROL.to_owned(), tid)];
        all.extend(threads);
        let control = Some(control);
        Ok(Runtime { letters, bell, shared, control, inline, threads: all, degraded, links, slot_logs, socket })
    }

    /// A socket to the control plane for a session of this process. The session begins
    /// with HELLO; the access rules do not apply to it.
    ///
    /// # Errors
    /// No descriptor is left, or the runtime has ended (`ESHUTDOWN`).
    pub fn attach_in_process(&self) -> Result<OwnedFd, OsError> {
        let (ours, theirs) = seqpacket::pair()?;
        let ended = || OsError::new("attaching to the runtime", insane_sys::Errno::ESHUTDOWN);
        self.letters.send(Letter::Attach(ours)).map_err(|_| ended())?;
        self.bell.signal()?;
        Ok(theirs)
    }

    /// The engine for the application to turn; `None` unless hosted inline.
    #[must_use]
    pub fn inline(&self) -> Option<Arc<InlineHost>> {
        self.inline.clone()
    }

    /// When the slots of a datapath, in the order of the plan, were to begin and were used;
    /// `None` where there is no such datapath, or its links have no rate.
    #[must_use]
    pub fn slot_log(&self, datapath: usize) -> Option<Arc<SlotLog>> {
        self.slot_logs.get(datapath).cloned().flatten()
    }

    /// Every thread of the runtime, with where and how it runs now.
    #[must_use]
    pub fn threads(&self) -> Vec<ThreadStatus> {
        self.threads.iter().map(|(name, tid)| crate::report::thread_row(name, *tid)).collect()
    }

    /// Adds a thread of the host program to the runtime's list, so that reports show
    /// every one.
    pub fn list_thread(&mut self, name: &str, tid: i32) {
        self.threads.push((name.to_owned(), tid));
        let _ = self.letters.send(Letter::Thread(name.to_owned(), tid));
        let _ = self.bell.signal();
    }

    /// What the plan wants and this host does not give; one sentence each.
    #[must_use]
    pub fn degraded(&self) -> &[String] {
        &self.degraded
    }

    /// Name and local address of every link, in the order of the plan.
    #[must_use]
    pub fn links(&self) -> &[(String, String)] {
        &self.links
    }

    /// The whole state. `None`: the control plane has ended, or is busy for seconds.
    #[must_use]
    pub fn status(&self) -> Option<StatusReport> {
        let (reply, report) = channel();
        self.letters.send(Letter::Status(reply)).ok()?;
        self.bell.signal().ok()?;
        report.recv_timeout(REPORT_TIMEOUT).ok()
    }

    /// Says from which file the plan was read, so that it can be read again.
    pub fn set_config_file(&self, path: &Path) {
        let _ = self.letters.send(Letter::ConfigFile(path.to_owned()));
        let _ = self.bell.signal();
    }

    /// Reads that file again, and makes it hold as a whole, or not at all; with `dry_run`
    /// only says what would change. `None`: the control plane has ended, or the datapaths have
    /// not answered for seconds; what became of it is logged then.
    #[must_use]
    pub fn reload(&self, dry_run: bool) -> Option<ReloadReport> {
        let (reply, report) = channel();
        self.letters.send(Letter::Reload { dry_run, reply }).ok()?;
        self.bell.signal().ok()?;
        report.recv_timeout(RELOAD_TIMEOUT).ok()
    }

    /// Why the runtime is not whole any more, if so: a thread of it has ended.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        let ended = self.control.as_ref().is_none_or(JoinHandle::is_finished);
        let control = ended.then(|| "the control plane has ended".to_owned());
        self.shared.failure.get().cloned().or(control)
    }

    /// When the control plane last went round; it does at least every 100 ms.
    #[must_use]
    pub fn last_beat(&self) -> MonoTime {
        MonoTime(self.shared.beat.load(Ordering::Relaxed))
    }

    /// Stops it: sessions are told, threads end, the socket is removed.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.letters.send(Letter::Stop);
        let _ = self.bell.signal();
        if let Some(control) = self.control.take() {
            // A panic there has been reported by its own message.
            let _ = control.join();
            if let Some(path) = self.socket.take() {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether this program was built with all that a plan asks for.
///
/// # Errors
/// It was not; the text names the remedy.
pub fn check_build(plan: &Plan) -> Result<(), StartError> {
    if plan.discovery.is_some() && !insane_discovery::has_gossip() {
        return Err(insane_discovery::StartError::NotBuilt.into());
    }
    Ok(())
}

/// Whether this host has the addresses of the links. Those of interfaces that may come later
/// (xdp, rdma, dpdk) are not asked for.
///
/// # Errors
/// [`StartError::NoInterface`]: the first that no interface has.
pub fn check_addresses(plan: &Plan) -> Result<(), StartError> {
    for datapath in &plan.datapaths {
        for link in &datapath.links {
            let mut address = match &link.technology {
                Technology::Udp(udp) => udp.bind,
                Technology::Tcp(tcp) => tcp.bind,
                Technology::Xdp(_) | Technology::Rdma(_) | Technology::Dpdk(_) => continue,
            };
            // Any free port: only the kernel knows which addresses it lets a socket have.
            address.set_port(0);
            let answer = std::net::UdpSocket::bind(address).map_err(|error| error.kind());
            if answer.is_err_and(|kind| kind == ErrorKind::AddrNotAvailable) {
                let (datapath, link) = (datapath.name.clone(), link.name.clone());
                return Err(StartError::NoInterface { datapath, link, address });
            }
        }
    }
    Ok(())
}

const CONTROL: &str = "control";

fn start_control(mut parts: Parts) -> Result<(JoinHandle<()>, i32), StartError> {
    let failed = |source| StartError::Thread { what: "the control plane".into(), source };
    let (report, reported) = channel();
    let run = move || {
        let tid = thread::current_tid();
        parts.facts.threads.insert(0, (CONTROL.to_owned(), tid));
        let server = Server::new(parts).map_err(StartError::from);
        let started = server.as_ref().map(|_| tid).map_err(|error| error.to_string());
        let _ = report.send(started);
        if let Ok(server) = server {
            server.run();
        }
    };
    let handle = std::thread::Builder::new().name("insane-control".into()).spawn(run).map_err(failed)?;
    match reported.recv() {
        Ok(Ok(tid)) => Ok((handle, tid)),
        Ok(Err(reason)) => Err(failed(std::io::Error::other(reason))),
        Err(_) => Err(failed(std::io::Error::other("it ended while starting"))),
    }
}

/// Opens the links of all datapaths. Some may be missing, but not all that there are.
fn open_links(plan: &Plan) -> Result<Vec<OpenLinks>, StartError> {
    let eal = links::eal_options(plan);
    let open = plan.datapaths.iter().map(|datapath| links::open(datapath, plan.peers.len(), &eal));
    let mut open: Vec<OpenLinks> = open.collect::<Result<_, _>>()?;
    if !open.iter().any(OpenLinks::has_any_open) {
        let missing = open.iter_mut().zip(&plan.datapaths).find_map(|(links, of)| Some((links.missing.take()?, of)));
        if let Some(((link, source), of)) = missing {
            return Err(StartError::Link { datapath: of.name.clone(), link, source: Box::new(source) });
        }
    }
    Ok(open)
}

fn start_datapaths(
    plan: &Plan,
    life: (HostId, Incarnation),
    hosting: Hosting,
    ((pages, misses), open): ((&CounterPages, &MissFile), Vec<OpenLinks>),
    huge: &mut HugeReport,
    shared: &SharedParts,
) -> Result<Vec<Datapath>, StartError> {
    let mut datapaths = Vec::new();
    for ((at, datapath), open) in plan.datapaths.iter().enumerate().zip(open) {
        let misses = misses.log(at, &datapath.name);
        let memory = DatapathMemory::new(plan, at, (pages, misses), huge)?;
        let index = DatapathIndex(at as u8);
        datapaths.push(Datapath::start(plan, index, life, hosting, open, memory, shared)?);
    }
    Ok(datapaths)
}

/// Where applications turn the datapath, they wake each other within their own calls.
fn start_waker(hosting: Hosting) -> Result<Option<WakerThread>, StartError> {
    let failed = |source| StartError::Thread { what: "the waker".into(), source };
    (hosting == Hosting::Thread).then(WakerThread::start).transpose().map_err(failed)
}

fn start_preparer(plan: &Plan, answer: &Arc<Event>) -> Result<Option<Preparer>, StartError> {
    let failed = |source| StartError::Thread { what: "the preparer of memory".into(), source };
    plan.memory.prefault.then(|| Preparer::start(Arc::clone(answer))).transpose().map_err(failed)
}

/// Refuses a plan that does not fit; returns the bytes it needs at most.
fn check_memory(plan: &Plan, machine: &Machine) -> Result<u64, StartError> {
    let budget = Budget::of(plan, &LayoutSizes::default());
    let objections = budget.objections(plan, machine);
    match objections.into_iter().find(|objection| objection.severity == Severity::Error) {
        Some(objection) => Err(StartError::DoesNotFit(objection.to_string())),
        None => Ok(budget.total_bytes),
    }
}

/// What a time namespace means: its monotonic clock is not that of the host's other processes.
fn of_time_namespace(lead_ns: Option<i64>) -> Option<String> {
    match lead_ns {
        Some(0) => None,
        Some(lead) => Some(format!(
            "this runtime is in a time namespace, whose monotonic clock leads that of the host by {lead} ns: \
             instants of applications in another one are of another clock. Start it outside, or all in the same"
        )),
        None => Some(
            "whether this runtime is in a time namespace is not known: instants of applications may be of another \
             clock"
                .to_owned(),
        ),
    }
}

fn lock_memory(plan: &Plan, degraded: &mut Vec<String>) -> bool {
    if !plan.memory.lock {
        return false;
    }
    let locked = thread::lock_all_memory();
    if let Err(error) = &locked {
        degraded.push(format!(
            "memory is not locked ({error}); a page may have to come back from disk. Give the runtime CAP_IPC_LOCK or raise RLIMIT_MEMLOCK"
        ));
    }
    locked.is_ok()
}

fn listen(path: &Path, mode: u32) -> Result<Listener, StartError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        // One level: what is above it, in `/run` or a volume, is made by who owns that.
        match std::fs::create_dir(parent) {
            Err(source) if !parent.exists() => {
                return Err(StartError::Directory { path: parent.to_owned(), source });
            }
            _ => {}
        }
    }
    let socket = seqpacket::listen(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(|source| {
        let _ = std::fs::remove_file(path);
        StartError::Mode { path: path.to_owned(), source }
    })?;
    Ok(Listener::new(socket))
}

/// Larger after every start, also of several runtimes in one process and after a
/// restart of the host, as long as its clock is not set back.
fn next_incarnation() -> Incarnation {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64).max(1);
    let last = LAST.fetch_max(now, Ordering::Relaxed);
    if now > last { Incarnation(now) } else { Incarnation(LAST.fetch_add(1, Ordering::Relaxed) + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_namespace_is_told() {
        assert_eq!(of_time_namespace(Some(0)), None);
        assert!(of_time_namespace(Some(-7)).is_some_and(|text| text.contains("-7 ns")));
        assert!(of_time_namespace(None).is_some());
    }

    #[test]
    fn incarnations_only_grow() {
        let lives: Vec<Incarnation> = (0..1000).map(|_| next_incarnation()).collect();
        assert!(lives.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
