//! The back end on `chitchat`: one ordinary thread with a tokio runtime of its own.
//!
//! The library has one socket, and would unfold whatever comes in. So the socket that the
//! network sees is ours ([`Gate`]): it looks at sender, size, shape and price of a datagram
//! first, and hands what passes to the library's socket, which is bound to the loopback
//! address and hears only the gate. What the library sends goes back the same way, and
//! nowhere but to addresses in `allow`.
//!
//! A host *lives* while its heartbeat moves: that, and no clock of another, is a sighting.
//! The library's own opinion of who lives only decides whom it talks to.
//!
//! Bounds: [`NODES_MAX`] hosts and [`PAIRS_MAX`] pairs in the library's tables, else it starts
//! anew, with empty ones; [`PRICE_PER_SECOND`] for what comes in; [`SIGHTINGS_MAX`] sightings
//! that wait. What is beyond is counted and dropped.

use crate::facts::{self, Unread};
use crate::seeds::Seeds;
use crate::shape;
use crate::{Backend, BackendReport, BackendRules, Settings, Sighting, StartError};
use async_trait::async_trait;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpSocket as LibrarySocket};
use chitchat::{
    ChitchatConfig, ChitchatEnvelope, ChitchatHandle, ChitchatId, FailureDetectorConfig, Heartbeat, ProtocolVersion,
    spawn_chitchat,
};
use insane_core::MonoTime;
use insane_sys::clock::mono_now;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

/// How often hosts talk, and how often it is looked who lives.
const PERIOD: Duration = Duration::from_secs(1);
/// Hosts in the library's tables.
const NODES_MAX: usize = 1024;
/// Pairs of text in the library's tables.
const PAIRS_MAX: usize = NODES_MAX * 24;
/// What may come in, by [`shape::cost`], bytes a second; four times that at once.
const PRICE_PER_SECOND: u64 = 2 << 20;
/// Sightings that wait for the control plane.
const SIGHTINGS_MAX: usize = 2048;
/// Strangers that are told of in one second.
const STRANGERS_PER_SECOND: u32 = 8;
/// How long the library may take for one datagram inside the host.
const PASS_TIMEOUT: Duration = Duration::from_millis(50);
/// Silent hosts leave the library's tables after so long.
const KEPT_AFTER_DEATH: Duration = Duration::from_secs(600);
/// Time before the library is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// What is counted, in the order of [`COUNTERS`].
#[derive(Clone, Copy)]
enum Counter {
    Received,
    Outside,
    Malformed,
    Flooded,
    NotSent,
    SightingsDropped,
    Restarts,
}

const COUNTERS: [&str; 7] = [
    "datagrams_received",
    "datagrams_outside",
    "datagrams_malformed",
    "datagrams_flooded",
    "datagrams_not_sent",
    "sightings_dropped",
    "restarts",
];

/// What the thread and the control plane share; neither holds the lock for long.
#[derive(Debug, Default)]
struct Changing {
    rules: BackendRules,
    /// Changes of the rules.
    edition: u64,
    report: BackendReport,
}

#[derive(Debug)]
struct Shared {
    changing: Mutex<Changing>,
    counters: [AtomicU64; COUNTERS.len()],
    stop: Notify,
}

impl Shared {
    fn count(&self, counter: Counter) {
        self.counters[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admits(&self, address: SocketAddr) -> bool {
        self.changing().rules.allow.iter().any(|network| network.contains(address.ip()))
    }
}

/// Hands sightings to the control plane.
struct Outlet {
    sightings: SyncSender<Sighting>,
    ring: Box<dyn Fn() + Send + Sync>,
    shared: Arc<Shared>,
}

impl Outlet {
    fn tell(&self, sighting: Sighting) {
        if self.sightings.try_send(sighting).is_err() {
            self.shared.count(Counter::SightingsDropped);
        }
    }
}

/// The back end. Its thread ends with it.
#[derive(Debug)]
pub(crate) struct Gossip {
    shared: Arc<Shared>,
    sightings: Receiver<Sighting>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
}

impl Gossip {
    pub(crate) fn start(settings: Settings, ring: Box<dyn Fn() + Send + Sync>) -> Result<Gossip, StartError> {
        let bind = settings.bind;
        let front = std::net::UdpSocket::bind(bind).map_err(|source| StartError::Bind { bind, source })?;
        front.set_nonblocking(true)?;
        let (sent, sightings) = sync_channel(SIGHTINGS_MAX);
        let changing = Mutex::new(Changing { rules: settings.rules.clone(), ..Changing::default() });
        let shared = Arc::new(Shared { changing, counters: Default::default(), stop: Notify::new() });
        let outlet = Arc::new(Outlet { sightings: sent, ring, shared: Arc::clone(&shared) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let (report, reported) = sync_channel(1);
        let run = move || {
            let _ = report.send(insane_sys::thread::current_tid());
            let shared = Arc::clone(&outlet.shared);
            runtime.block_on(async move {
                tokio::select! {
                    ended = live(settings, front, outlet) => {
                        if let Err(error) = ended {
                            warn!(%error, "gossip has ended");
                        }
                    }
                    () = shared.stop.notified() => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("insane-gossip".into()).spawn(run)?;
        let tid = reported.recv().map_err(|_| io::Error::other("its thread ended while starting"))?;
        Ok(Gossip { shared, sightings, thread: Some(thread), tid })
    }
}

impl Backend for Gossip {
    fn name(&self) -> &'static str {
        "gossip"
    }

    fn next_sighting(&mut self) -> Option<Sighting> {
        self.sightings.try_recv().ok()
    }

    fn set_rules(&mut self, rules: BackendRules) {
        let mut changing = self.shared.changing();
        changing.rules = rules;
        changing.edition += 1;
    }

    fn report(&self) -> BackendReport {
        let mut report = self.shared.changing().report.clone();
        let counters = COUNTERS.iter().zip(&self.shared.counters);
        report.counters = counters.map(|(name, count)| ((*name).to_owned(), count.load(Ordering::Relaxed))).collect();
        report
    }

    fn tid(&self) -> i32 {
        self.tid
    }

    fn is_alive(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Gossip {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs the library, and starts it anew when it has ended or holds too much.
async fn live(settings: Settings, front: std::net::UdpSocket, outlet: Arc<Outlet>) -> anyhow::Result<()> {
    let front = Arc::new(UdpSocket::from_std(front)?);
    let mut seeds = Seeds::new(settings.bind, &settings.rules.seeds);
    for (seed, _) in seeds.states().filter(|(seed, _)| *seed == settings.bind) {
        info!(%seed, "a seed of discovery is this host itself; it is left alone");
    }
    // Outlives the library: who fell silent about when it ended is remembered all the same.
    let mut heard = BTreeMap::new();
    for life in 0_u64.. {
        let gate = GateMaker { front: Arc::clone(&front), outlet: Arc::clone(&outlet) };
        let library = spawn_chitchat(config(&settings, life), pairs(&settings), &gate).await?;
        let why = watch(&library, &mut seeds, &mut heard, &outlet).await;
        warn!(why, "gossip starts anew");
        library.abort();
        outlet.shared.count(Counter::Restarts);
        tokio::time::sleep(RESTART_AFTER).await;
    }
    Ok(())
}

fn pairs(settings: &Settings) -> Vec<(String, String)> {
    facts::to_pairs(&settings.name, settings.incarnation, &settings.links)
}

fn config(settings: &Settings, life: u64) -> ChitchatConfig {
    // A new life of the library is a new generation: others would not believe a heartbeat
    // that goes back.
    let generation = settings.incarnation.0.wrapping_add(life);
    let failures = FailureDetectorConfig { dead_node_grace_period: KEPT_AFTER_DEATH, ..Default::default() };
    ChitchatConfig {
        chitchat_id: ChitchatId::new(facts::node_id(settings.host), generation, settings.bind),
        cluster_id: settings.cluster.clone(),
        gossip_interval: PERIOD,
        listen_addr: settings.bind,
        // They are asked by `Seeds`.
        seed_nodes: Vec::new(),
        failure_detector_config: failures,
        marked_for_deletion_grace_period: KEPT_AFTER_DEATH,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V0,
    }
}

/// Looks who lives, and asks seeds, until the library has to be started anew. `heard`: whose
/// heartbeat moved lately, and when last, by this library and those before it.
async fn watch(
    library: &ChitchatHandle,
    seeds: &mut Seeds,
    heard: &mut BTreeMap<SocketAddr, MonoTime>,
    outlet: &Outlet,
) -> &'static str {
    let started_at = mono_now();
    let mut heartbeats: BTreeMap<ChitchatId, Heartbeat> = BTreeMap::new();
    let mut edition = 0;
    let ended = library.termination_watcher();
    tokio::pin!(ended);
    loop {
        let now = mono_now();
        let look = library.with_chitchat(|library| look(library, &heartbeats));
        let Look { sightings, heartbeats: seen, fresh, pairs } = look.await;
        if seen.len() > NODES_MAX || pairs > PAIRS_MAX {
            return "more was told than is kept";
        }
        heartbeats = seen;
        let is_news = !sightings.is_empty();
        sightings.into_iter().for_each(|sighting| outlet.tell(sighting));
        if is_news {
            (outlet.ring)();
        }
        heard.extend(fresh.into_iter().map(|address| (address, now)));
        heard.retain(|address, at| {
            let lives = now.since(*at).0 < 10 * PERIOD.as_nanos() as u64;
            if !lives && outlet.shared.admits(*address) {
                seeds.fell_silent(now, *address);
            }
            lives
        });
        let changed = {
            let mut changing = outlet.shared.changing();
            changing.report.hosts = heartbeats.len() as u64;
            changing.report.seeds = seeds.states().collect();
            // Together: rules that change after this look are seen by the next.
            (changing.edition != edition).then(|| (changing.edition, changing.rules.seeds.clone()))
        };
        if let Some((changed, rules)) = changed {
            edition = changed;
            seeds.set(&rules);
        }
        // A library that has just begun knows nobody: seeds are asked at once.
        let due = seeds.poll(now, |seed| heard.get(&seed).is_some_and(|at| *at >= started_at));
        for seed in due.tell_silent {
            info!(%seed, "a seed of discovery does not answer; it is asked again, ever more seldom");
        }
        for seed in due.ask {
            let _ = library.gossip(seed);
        }
        if timeout(PERIOD / 2, &mut ended).await.is_ok() {
            return "it had ended";
        }
    }
}

struct Look {
    sightings: Vec<Sighting>,
    heartbeats: BTreeMap<ChitchatId, Heartbeat>,
    /// Whose heartbeat moved.
    fresh: BTreeSet<SocketAddr>,
    pairs: usize,
}

/// Who has shown a sign of life since the last look. What is seen for the first time shows
/// none yet: it may be what is left of a host that died long ago.
fn look(library: &mut chitchat::Chitchat, known: &BTreeMap<ChitchatId, Heartbeat>) -> Look {
    let own = library.self_chitchat_id().clone();
    let mut look = Look { sightings: Vec::new(), heartbeats: BTreeMap::new(), fresh: BTreeSet::new(), pairs: 0 };
    for (id, state) in library.node_states().iter().filter(|(id, _)| **id != own) {
        look.pairs += state.num_key_values();
        look.heartbeats.insert(id.clone(), state.heartbeat());
        if known.get(id).is_none_or(|known| *known == state.heartbeat()) {
            continue;
        }
        let origin = id.gossip_advertise_addr;
        look.fresh.insert(origin);
        match facts::from_pairs(&id.node_id, origin, state.key_values()) {
            Ok(Some(fact)) => look.sightings.push(Sighting::Fact(fact)),
            Ok(None) => {}
            Err(Unread::Malformed) => look.sightings.push(Sighting::Malformed { origin }),
            Err(Unread::OtherFormat(format)) => look.sightings.push(Sighting::OtherFormat { origin, format }),
        }
    }
    look
}

/// Makes the gate.
struct GateMaker {
    front: Arc<UdpSocket>,
    outlet: Arc<Outlet>,
}

#[async_trait]
impl Transport for GateMaker {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let library = LibrarySocket::open((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        back.connect(library.local_addr()?).await?;
        Ok(Box::new(Gate {
            own: back.local_addr()?,
            front: Arc::clone(&self.front),
            outlet: Arc::clone(&self.outlet),
            library,
            back,
            passing: None,
            bucket: Bucket { left: 4 * PRICE_PER_SECOND, filled_at: mono_now() },
            strangers: (mono_now(), 0),
            incoming: vec![0; DATAGRAM_BYTES_MAX + 1],
            outgoing: vec![0; DATAGRAM_BYTES_MAX],
        }))
    }
}

/// See the module.
struct Gate {
    /// What the network sees.
    front: Arc<UdpSocket>,
    /// The library's socket, which hears only `back`.
    library: LibrarySocket,
    back: UdpSocket,
    own: SocketAddr,
    outlet: Arc<Outlet>,
    /// A datagram is with the library: from whom, and until when.
    passing: Option<(SocketAddr, Instant)>,
    bucket: Bucket,
    strangers: (MonoTime, u32),
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

#[derive(Debug)]
struct Bucket {
    left: u64,
    filled_at: MonoTime,
}

impl Bucket {
    fn take(&mut self, now: MonoTime, price: u64) -> bool {
        let more = (u128::from(now.since(self.filled_at).0) * u128::from(PRICE_PER_SECOND) / 1_000_000_000) as u64;
        if more > 0 {
            self.left = self.left.saturating_add(more).min(4 * PRICE_PER_SECOND);
            self.filled_at = now;
        }
        let may = price <= self.left;
        if may {
            self.left -= price;
        }
        may
    }
}

impl Gate {
    /// Whether what came from there may pass.
    fn judge(&mut self, length: usize, from: SocketAddr) -> Result<(), Counter> {
        if !self.outlet.shared.admits(from) {
            let now = mono_now();
            if now.since(self.strangers.0).0 >= 1_000_000_000 {
                self.strangers = (now, 0);
            }
            self.strangers.1 = self.strangers.1.saturating_add(1);
            if self.strangers.1 <= STRANGERS_PER_SECOND {
                self.outlet.tell(Sighting::Stranger { origin: from });
                (self.outlet.ring)();
            }
            return Err(Counter::Outside);
        }
        let datagram = self.incoming.get(..length).filter(|_| length <= DATAGRAM_BYTES_MAX);
        let price = datagram.and_then(shape::cost).ok_or(Counter::Malformed)?;
        if self.bucket.take(mono_now(), price) { Ok(()) } else { Err(Counter::Flooded) }
    }

    /// Passes the next good datagram to the library.
    async fn admit(&mut self) -> io::Result<()> {
        while self.passing.is_none() {
            let (length, from) = match self.front.recv_from(&mut self.incoming).await {
                Ok(came) => came,
                Err(_) => {
                    // Of a datagram that was sent before; nothing came.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            self.outlet.shared.count(Counter::Received);
            match self.judge(length, from) {
                Ok(()) if self.back.try_send(&self.incoming[..length]).is_ok() => {
                    self.passing = Some((from, Instant::now() + PASS_TIMEOUT));
                }
                Ok(()) => self.outlet.shared.count(Counter::Flooded),
                Err(counter) => self.outlet.shared.count(counter),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Socket for Gate {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.front.local_addr()?)
    }

    async fn send(&mut self, to: SocketAddr, envelope: ChitchatEnvelope) -> anyhow::Result<SendOutcome> {
        let sent = if self.outlet.shared.admits(to) {
            // Written by the library, taken back, and sent by the socket that others know.
            self.library.send(self.own, envelope).await?;
            match timeout(PASS_TIMEOUT, self.back.recv(&mut self.outgoing)).await {
                Ok(Ok(length)) => self.front.send_to(&self.outgoing[..length], to).await.ok(),
                _ => None,
            }
        } else {
            None
        };
        // A failure would be a log line of the library for each.
        if sent.is_none() {
            self.outlet.shared.count(Counter::NotSent);
        }
        Ok(SendOutcome { num_bytes_sent: sent.unwrap_or(0) })
    }

    /// May be cancelled anywhere: what is under way is in `passing` and in the sockets.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            self.admit().await?;
            let Some((from, until)) = self.passing else { continue };
            match timeout_at(until, self.library.recv()).await {
                // Somebody of this host who found the port.
                Ok(Ok(came)) if came.from_addr != self.own => {}
                Ok(Ok(came)) => {
                    self.passing = None;
                    return Ok(RecvOutcome { from_addr: from, ..came });
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    // The library could not read it.
                    self.passing = None;
                    self.outlet.shared.count(Counter::Malformed);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeds::{FORMER_EVERY, SeedState};
    use insane_core::{HostId, Incarnation, Nanos};

    #[test]
    fn who_was_heard_before_the_library_began_anew_is_remembered_and_asked() {
        let front = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        front.set_nonblocking(true).unwrap();
        let bind = front.local_addr().unwrap();
        // Nobody: what is sent there is lost.
        let [seed, gone] = [(Ipv4Addr::LOCALHOST, 9), ([127, 0, 0, 9].into(), 9)].map(SocketAddr::from);
        let rules = BackendRules { allow: vec!["127.0.0.0/8".parse().unwrap()], seeds: vec![seed] };
        let settings = Settings {
            host: HostId(1),
            name: "host-1".into(),
            incarnation: Incarnation(1),
            bind,
            cluster: "test".into(),
            links: Vec::new(),
            rules: rules.clone(),
        };
        let changing = Mutex::new(Changing { rules, ..Changing::default() });
        let shared = Arc::new(Shared { changing, counters: Default::default(), stop: Notify::new() });
        let (sightings, _kept) = sync_channel(1);
        let outlet = Arc::new(Outlet { sightings, ring: Box::new(|| {}), shared });

        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        runtime.block_on(async {
            let front = Arc::new(UdpSocket::from_std(front).unwrap());
            let gate = GateMaker { front, outlet: Arc::clone(&outlet) };
            let library = spawn_chitchat(config(&settings, 1), pairs(&settings), &gate).await.unwrap();
            let mut seeds = Seeds::new(bind, &settings.rules.seeds);
            let seconds_ago = |seconds| mono_now() - Nanos::from_secs(seconds);
            let mut heard = BTreeMap::from([(seed, seconds_ago(1)), (gone, seconds_ago(11))]);
            let watched = watch(&library, &mut seeds, &mut heard, &outlet);
            assert!(timeout(Duration::from_millis(100), watched).await.is_err(), "the library goes on");
            library.abort();
            assert_eq!(heard.into_keys().collect::<Vec<_>>(), [seed], "within ten seconds nobody is given up");
            let states: Vec<_> = seeds.states().collect();
            assert_eq!(states, [(seed, SeedState::Silent)], "this library has not heard it");
            assert!(seeds.poll(mono_now() + FORMER_EVERY, |_| false).ask.contains(&gone));
        });
    }
}
