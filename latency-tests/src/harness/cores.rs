//! Pinning. The processors are read once, before any thread is pinned, because
//! a pinned thread sees only its own.

use super::fault::Fault;
use core_affinity::CoreId;

/// The two processors of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Where the measured application runs ("cpu0" in the topologies).
    pub app: CoreId,
    /// Where its partner, or the runtime, runs ("cpu1").
    pub other: CoreId,
}

impl Cores {
    /// The first two processors this process may use.
    ///
    /// # Errors
    /// There are fewer than two.
    pub fn find() -> Result<Self, Fault> {
        let ids = core_affinity::get_core_ids().unwrap_or_default();
        match ids[..] {
            [app, other, ..] => Ok(Cores { app, other }),
            _ => Err(Fault::Unavailable("two processors are needed".into())),
        }
    }
}

/// Pins the calling thread.
///
/// # Errors
/// The kernel refused.
pub fn pin(core: CoreId) -> Result<(), Fault> {
    if core_affinity::set_for_current(core) {
        Ok(())
    } else {
        Err(Fault::Unavailable(format!("processor {} refused the thread", core.id)))
    }
}
