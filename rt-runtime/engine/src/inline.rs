//! Hosting inside an application's own calls: the lowest latency, no thread switch.
//!
//! An inline session belongs to one thread, which turns the engine within its emits and
//! consumes. A keeper thread turns it when the application has not for a millisecond,
//! so that peers are answered while the application computes. The two meet at a
//! priority-inheriting lock that the hot path tries; only where it failed many times
//! does it wait, and then the keeper has the application's priority until it is done.
//!
//! Every look of the keeper interrupts an application that turns for itself, if they
//! share a core. So while it does, the keeper looks less and less often, down to once
//! in 8 ms: an application that then computes for long leaves its peers
//! unanswered for as long as that, once.

use crate::engine::{Engine, EngineConfig, EngineParts};
use insane_core::MonoTime;
use insane_core::time::Clock;
use insane_link::Link;
use insane_sys::clock::{MonotonicClock, mono_now};
use insane_sys::guard;
use insane_sys::map::ForkGuard;
use insane_sys::pi_mutex::PiMutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the application may leave the engine alone.
const KEEPER_PERIOD: Duration = Duration::from_millis(1);
/// How long it may, right after it turned for itself all the time.
const KEEPER_PERIOD_MAX: Duration = Duration::from_millis(8);
/// How soon it looks again where a slot is near.
const KEEPER_PERIOD_MIN: Duration = Duration::from_micros(50);
/// Turns the keeper makes when it steps in.
const KEEPER_TURNS: usize = 4;

/// Of so many tries that found the keeper at work, one waits for it: a keeper of lower
/// priority on the same core would otherwise never come to its end.
const TRIES: u32 = 256;

struct Shared<L: Link, C: Clock> {
    engine: PiMutex<Engine<L, C>>,
    /// Counted by who holds the engine.
    turns: AtomicU64,
    failed_tries: AtomicU32,
    /// When the keeper last looked, nanoseconds: saves the turns a look at the clock.
    looked_ns: AtomicU64,
    /// Wiped in a forked child, whose engine would take its parent's frames.
    guard: ForkGuard,
    stop: AtomicBool,
}

/// An engine that callers turn.
pub struct InlineEngine<L: Link + Send + 'static> {
    shared: Arc<Shared<L, MonotonicClock>>,
    keeper: Option<JoinHandle<()>>,
}

impl<L: Link + Send + 'static> InlineEngine<L> {
    /// Starts the engine and its keeper.
    ///
    /// # Errors
    /// No thread, or no lock.
    pub fn start(config: EngineConfig, parts: EngineParts<L>) -> io::Result<Self> {
        let mut engine = Engine::new(config, parts, MonotonicClock);
        engine.is_turned_by_callers();
        let engine = PiMutex::new(engine).map_err(io::Error::other)?;
        let guard = ForkGuard::new().map_err(io::Error::other)?;
        guard.word().store(1, Ordering::Relaxed);
        let (turns, failed_tries, stop) = (AtomicU64::new(0), AtomicU32::new(0), AtomicBool::new(false));
        let looked_ns = AtomicU64::new(0);
        let shared = Arc::new(Shared { engine, turns, failed_tries, looked_ns, guard, stop });
        let kept = Arc::clone(&shared);
        let keeper = std::thread::Builder::new().name("insane-keeper".into()).spawn(move || keep(&kept))?;
        Ok(InlineEngine { shared, keeper: Some(keeper) })
    }

    /// One turn, unless somebody else is at it, or this is a forked child. Says whether it
    /// moved anything.
    #[inline(never)]
    pub fn try_turn(&self) -> bool {
        let shared = &*self.shared;
        if shared.guard.word().load(Ordering::Relaxed) == 0 {
            return false;
        }
        let Some(mut engine) = shared.engine.try_lock() else { return self.turn_later() };
        // One writer at a time: who holds the engine.
        shared.turns.store(shared.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        engine.note_time(MonoTime(shared.looked_ns.load(Ordering::Relaxed)));
        engine.turn()
    }

    #[cold]
    fn turn_later(&self) -> bool {
        let tries = self.shared.failed_tries.fetch_add(1, Ordering::Relaxed);
        tries % TRIES == TRIES - 1 && turn_apart(&mut self.shared.engine.lock())
    }
}

impl<L: Link + Send + 'static> Drop for InlineEngine<L> {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(keeper) = self.keeper.take() {
            keeper.thread().unpark();
            let _ = keeper.join();
        }
    }
}

impl<L: Link + Send + 'static> std::fmt::Debug for InlineEngine<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InlineEngine")
    }
}

/// A turn of who turns seldom.
#[inline(never)]
fn turn_apart<L: Link, C: Clock>(engine: &mut Engine<L, C>) -> bool {
    engine.turn()
}

fn keep<L: Link, C: Clock>(shared: &Shared<L, C>) {
    guard::seal_thread();
    let (mut seen, mut period) = (0, KEEPER_PERIOD);
    while !shared.stop.load(Ordering::Acquire) {
        {
            let _unsealed = guard::pause();
            std::thread::park_timeout(period);
        }
        shared.looked_ns.store(mono_now().0, Ordering::Relaxed);
        let turns = shared.turns.load(Ordering::Relaxed);
        let is_left_alone = turns == seen;
        period = if is_left_alone { KEEPER_PERIOD } else { (period * 2).min(KEEPER_PERIOD_MAX) };
        if is_left_alone && let Some(mut engine) = shared.engine.try_lock() {
            for _ in 0..KEEPER_TURNS {
                if !turn_apart(&mut engine) {
                    break;
                }
            }
            engine.housekeeping();
            if let Some(due) = engine.slot_due() {
                // The keeper does not spin: a slot that nobody turns for may well be late.
                let rest = Duration::from(due.since(mono_now()));
                period = rest.clamp(KEEPER_PERIOD_MIN, KEEPER_PERIOD);
            }
        }
        seen = turns;
    }
    guard::unseal_thread();
}
