//! Core and priority of a thread: taken where the process may, asked of the daemon where not.

use super::CyclicError;
use crate::agent::Shared;
use crate::error::RequestError;
use insane_sys::OsError;
use insane_sys::thread::{PinError, SchedPolicy, pin_current, set_policy_current};

/// What became of the place that a thread asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// What of core and priority was refused.
    pub misplaced: Vec<Misplaced>,
    /// Whether the daemon gave what this process could not take. The thread cannot raise its
    /// priority further by itself then.
    pub is_by_runtime: bool,
}

/// Why a thread is not where it was asked to be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Misplaced {
    /// It runs under the ordinary policy.
    #[error("runs without SCHED_FIFO priority {priority}: {reason}{}", told(runtime))]
    Policy {
        /// What was asked for.
        priority: u8,
        /// The kernel's reason.
        reason: OsError,
        /// Why the daemon did not give it either, if there is one to ask.
        runtime: Option<RequestError>,
    },
    /// It runs on any core.
    #[error(transparent)]
    Core(#[from] PinError),
}

fn told(runtime: &Option<RequestError>) -> String {
    runtime.as_ref().map(|error| format!("; {error}")).unwrap_or_default()
}

impl Misplaced {
    fn also(self, error: RequestError) -> Self {
        match self {
            Misplaced::Policy { priority, reason, .. } => Misplaced::Policy { priority, reason, runtime: Some(error) },
            core @ Misplaced::Core(_) => core,
        }
    }
}

/// Takes the place for the current thread.
pub(crate) fn take(shared: &Shared, fifo: Option<u8>, pin: Option<usize>) -> Result<Place, CyclicError> {
    if shared.is_forked() {
        return Err(CyclicError::Forked);
    }
    if let Some(why) = pin.and_then(|core| shared.refuses_core(core, fifo)) {
        return Err(CyclicError::CoreOfDatapath(why));
    }
    // Ordinary threads are woken up to 50 us late, to save the processor a wake-up,
    // unless they ask not to be. Refused: they are late.
    let _ = nix::sys::prctl::set_timerslack(1);
    let pinned = pin.map_or(Ok(()), pin_current).map_err(Misplaced::Core);
    let policy = fifo.map_or(Ok(()), |priority| {
        let set = set_policy_current(SchedPolicy::Fifo(priority));
        set.map_err(|reason| Misplaced::Policy { priority, reason, runtime: None })
    });
    let refused = pinned.is_err() || policy.is_err();
    if !refused || !shared.has_daemon() {
        let misplaced = [pinned, policy].into_iter().filter_map(Result::err).collect();
        return Ok(Place { misplaced, is_by_runtime: false });
    }
    // A number that no core has is refused as such; without one it would get any core.
    let core = pin.map(|core| u16::try_from(core).unwrap_or(u16::MAX));
    Ok(match shared.place_current(fifo, core) {
        Ok(()) => Place { misplaced: Vec::new(), is_by_runtime: true },
        Err(error) => {
            let policy = policy.map_err(|misplaced| misplaced.also(error));
            let misplaced = [pinned, policy].into_iter().filter_map(Result::err).collect();
            Place { misplaced, is_by_runtime: false }
        }
    })
}
