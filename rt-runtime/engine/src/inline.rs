//! Hosting inside an application's own calls: the lowest latency, no thread switch.
//!
//! An inline session belongs to one thread, which turns the engine within its emits and
//! consumes. A keeper thread turns it when the application has not for a millisecond,
//! so that peers are answered while the application computes. The two meet at a
//! priority-inheriting lock that the hot path only ever *tries*.

use crate::engine::{Engine, EngineConfig, EngineParts};
use insane_core::time::Clock;
use insane_link::Link;
use insane_sys::clock::MonotonicClock;
use insane_sys::guard;
use insane_sys::pi_mutex::PiMutex;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long the application may leave the engine alone.
const KEEPER_PERIOD: Duration = Duration::from_millis(1);
/// Turns the keeper makes when it steps in.
const KEEPER_TURNS: usize = 4;

struct Shared<L: Link, C: Clock> {
    engine: PiMutex<Engine<L, C>>,
    turns: AtomicU64,
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
        let engine = PiMutex::new(Engine::new(config, parts, MonotonicClock)).map_err(io::Error::other)?;
        let shared = Arc::new(Shared { engine, turns: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let kept = Arc::clone(&shared);
        let keeper = std::thread::Builder::new().name("insane-keeper".into()).spawn(move || keep(&kept))?;
        Ok(InlineEngine { shared, keeper: Some(keeper) })
    }

    /// One turn, unless somebody else is at it. Says whether it moved anything.
    #[inline]
    pub fn try_turn(&self) -> bool {
        let Some(mut engine) = self.shared.engine.try_lock() else { return false };
        self.shared.turns.fetch_add(1, Ordering::Relaxed);
        engine.turn()
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

fn keep<L: Link, C: Clock>(shared: &Shared<L, C>) {
    guard::seal_thread();
    let mut seen = 0;
    while !shared.stop.load(Ordering::Acquire) {
        {
            let _unsealed = guard::pause();
            std::thread::park_timeout(KEEPER_PERIOD);
        }
        let turns = shared.turns.load(Ordering::Relaxed);
        if turns == seen
            && let Some(mut engine) = shared.engine.try_lock()
        {
            for _ in 0..KEEPER_TURNS {
                if !engine.turn() {
                    break;
                }
            }
            engine.housekeeping();
        }
        seen = turns;
    }
    guard::unseal_thread();
}
