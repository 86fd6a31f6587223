//! Hosting by a thread of its own: the daemon's datapaths, and the embedded default.
//!
//! The thread pins itself, takes its scheduling policy, seals itself against
//! allocation, and turns until its port says stop. What it may not have (a core, a
//! priority) is told, with the consequence, and it runs without.

use crate::command::{BELL_TOKEN, LINK_TOKEN};
use crate::doorbells::READY_MAX;
use crate::engine::{Engine, EngineConfig, EngineParts};
use crate::margin::Margin;
use crate::spin::SpinBudget;
use insane_core::time::Clock;
use insane_core::{MonoTime, Nanos, SessionId};
use insane_link::Link;
use insane_shm::region::Region;
use insane_shm::wake::Sleeper;
use insane_sys::clock::MonotonicClock;
use insane_sys::event::Ready;
use insane_sys::thread::SchedPolicy;
use insane_sys::{guard, thread};
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// What a datapath does when there is nothing to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Idle {
    /// It turns for ever: for a core of its own.
    Spin,
    /// It turns for ever, and lets who else is on its core run after each turn that moved nothing.
    Yield,
    /// It turns without work for twice what a sleep costs, this long at most, and not at all
    /// where that was in vain ([`SpinBudget`]); then it sleeps until something happens.
    SpinThenBlock(Nanos),
    /// It sleeps as soon as a turn moves nothing.
    Block,
}

impl Idle {
    const fn sleeps(self) -> bool {
        matches!(self, Idle::SpinThenBlock(_) | Idle::Block)
    }
}

/// How a datapath thread runs.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Name of the thread, at most 15 bytes.
    pub name: String,
    /// The core it is pinned to.
    pub core: Option<usize>,
    /// How the kernel schedules it.
    pub policy: SchedPolicy,
    /// What it does when there is nothing to do.
    pub idle: Idle,
}

/// What came of starting it.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its thread id.
    pub tid: i32,
    /// What it asked for and did not get, and what follows.
    pub degraded: Vec<String>,
}

/// A running datapath thread.
#[derive(Debug)]
pub struct DatapathThread {
    /// What came of starting it.
    pub started: Started,
    port: Arc<crate::Port>,
    handle: Option<JoinHandle<()>>,
}

/// Longest sleep: a backstop, should a wake-up ever be missed. In tests it would hide that.
const SLEEP_MAX: Nanos = if cfg!(test) { Nanos::from_secs(600) } else { Nanos::from_millis(100) };
/// Longest sleep while a fragmented message is arriving, a sink is yet to be woken, or a link
/// is being set up.
const SLEEP_COLLECTING: Nanos = Nanos::from_millis(10);
/// Longest sleep while a reliable flow waits for a peer or a sink.
const SLEEP_REPAIRING: Nanos = Nanos::from_millis(1);
/// Turns without work between two looks at the clock while spinning before a sleep.
const SPIN_STRIDE: u32 = 16;

impl DatapathThread {
    /// Starts a datapath. `wake_page` is written by it and mapped read-only by clients.
    ///
    /// # Errors
    /// No thread, or the kernel refuses a descriptor.
    pub fn start<L: Link + Send + 'static>(
        config: EngineConfig,
        parts: EngineParts<L>,
        wake_page: Arc<Region>,
        run: RunConfig,
    ) -> io::Result<Self> {
        let port = Arc::clone(&parts.port);
        let (report, reported) = mpsc::channel();
        let handle = std::thread::Builder::new().name(run.name.clone()).spawn(move || {
            let degraded = take_place(&run);
            let mut engine = Engine::new(config, parts, MonotonicClock);
            if run.idle.sleeps() {
                engine.watch_links();
            }
            let sleeper = Sleeper::new(wake_page);
            // The receiver may be gone if the starter was; the thread then ends by its port.
            let _ = report.send(Started { tid: thread::current_tid(), degraded });
            drop(report);
            guard::seal_thread();
            host(&mut engine, sleeper, run.idle);
            guard::unseal_thread();
        })?;
        let started = reported.recv().map_err(|_| io::Error::other("the datapath thread ended while starting"))?;
        Ok(DatapathThread { started, port, handle: Some(handle) })
    }

    /// Whether the thread still runs. It ends only by [`stop`](Self::stop), or by a bug.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| !handle.is_finished())
    }

    /// Ends the thread and waits for it.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.port.stop();
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

impl Drop for DatapathThread {
    fn drop(&mut self) {
        self.end();
    }
}

fn take_place(run: &RunConfig) -> Vec<String> {
    let mut degraded = Vec::new();
    if let Some(core) = run.core
        && let Err(error) = thread::pin_current(core)
    {
        degraded.push(format!("{}: not pinned to core {core} ({error}); its latency varies more", run.name));
    }
    if run.policy != SchedPolicy::Other
        && let Err(error) = thread::set_policy_current(run.policy)
    {
        degraded.push(format!(
            "{}: no {:?} ({error}); other threads delay it. Give the runtime CAP_SYS_NICE or an rtprio limit",
            run.name, run.policy
        ));
    }
    degraded
}

fn host<L: Link, C: Clock>(engine: &mut Engine<L, C>, mut sleeper: Sleeper, idle: Idle) {
    let mut idle_turns = 0_u32;
    let mut margin = Margin::default();
    let mut spin = SpinBudget::new(if let Idle::SpinThenBlock(max) = idle { max } else { Nanos::ZERO });
    while !engine.port().is_stopping() {
        if engine.turn() {
            idle_turns = 0;
            spin.found();
            continue;
        }
        idle_turns = idle_turns.wrapping_add(1);
        match idle {
            Idle::Spin => std::hint::spin_loop(),
            Idle::Yield => std::thread::yield_now(),
            Idle::Block => {
                sleep(engine, &mut sleeper, &mut margin);
            }
            Idle::SpinThenBlock(_) => {
                // Without a budget it sleeps as soon as a turn moves nothing.
                if spin.get() > Nanos::ZERO && !idle_turns.is_multiple_of(SPIN_STRIDE) {
                    std::hint::spin_loop();
                    continue;
                }
                let now = MonotonicClock.now();
                if spin.looks_on(now) {
                    continue;
                }
                let Some(slept) = sleep(engine, &mut sleeper, &mut margin) else { continue };
                spin.slept(now, slept.until, slept.is_woken);
                // It spins again if more may follow; for a doorbell only if that brings work,
                // so that nobody keeps it awake by ringing.
                if engine.expects_more() {
                    spin.found();
                }
            }
        }
    }
}

/// A sleep that is over.
struct Slept {
    until: MonoTime,
    /// Something ended it, and not its time.
    is_woken: bool,
}

/// Sleeps until something happens, or until the next slot that has its message is the margin
/// away; not at all where it is nearer ([`Engine::sleep_until`]), or there is work.
fn sleep<L: Link, C: Clock>(engine: &mut Engine<L, C>, sleeper: &mut Sleeper, margin: &mut Margin) -> Option<Slept> {
    let mut wake_at = None;
    if let Some(until) = engine.sleep_until(margin.get()) {
        if until <= MonotonicClock.now() {
            std::hint::spin_loop();
            return None;
        }
        wake_at = Some(until);
    }
    engine.housekeeping();
    let mut timeout = match (engine.is_repairing(), engine.is_collecting() || engine.is_tending()) {
        (true, _) => SLEEP_REPAIRING,
        (false, true) => SLEEP_COLLECTING,
        (false, false) => SLEEP_MAX,
    };
    if let Some(most) = engine.sleep_max() {
        timeout = timeout.min(most);
    }
    let asked = wake_at.map(|until: MonoTime| (until, until.since(MonotonicClock.now())));
    // Only a sleep that the slot ends teaches how late one wakes.
    let asked = asked.filter(|(_, rest)| *rest < timeout);
    if let Some((_, rest)) = asked {
        timeout = rest;
    }
    let mut slept = None;
    sleeper.arm();
    if !engine.has_work() && !engine.port().is_stopping() && engine.settle_doorbells() {
        engine.count_sleep();
        let mut ready = [Ready::NONE; READY_MAX];
        let count = engine.port().epoll().wait(&mut ready, Some(timeout)).unwrap_or(0);
        ready[..count].iter().for_each(|ready| hear(engine, ready.token()));
        if count == 0 {
            engine.note_silence();
        }
        engine.note_ready(&ready[..count]);
        let now = insane_sys::clock::mono_now();
        engine.note_wake(now);
        if let Some((until, _)) = asked
            && count == 0
        {
            let late = now.since(until);
            margin.learn(late);
            engine.note_late_wake(late);
        }
        slept = Some(Slept { until: now, is_woken: count > 0 });
    }
    sleeper.disarm();
    slept
}

/// Something with this token ended a sleep. What a link has, each turn looks for.
fn hear<L: Link, C: Clock>(engine: &mut Engine<L, C>, token: u64) {
    match token {
        BELL_TOKEN => engine.port().silence_bell(),
        LINK_TOKEN => {}
        session => {
            if let Ok(session) = u32::try_from(session) {
                engine.note_ring(SessionId(session));
            }
        }
    }
}

#[cfg(test)]
mod tests;
