//! Pinning. The processors are read once, before any thread is pinned, because
//! a pinned thread sees only its own.

use super::fault::Fault;
use insane_sys::thread;

/// The two processors of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Where the measured application runs ("cpu0" in the topologies).
    pub app: usize,
    /// Where its partner, or the runtime, runs ("cpu1").
    pub other: usize,
}

impl Cores {
    /// The first two processors this process may use.
    ///
    /// # Errors
    /// There are fewer than two.
    pub fn find() -> Result<Self, Fault> {
        match *thread::cores() {
            [app, other, ..] => Ok(Cores { app, other }),
            _ => Err(Fault::Unavailable("two processors are needed".into())),
        }
    }
}

/// Pins the calling thread.
///
/// # Errors
/// The kernel refused.
pub fn pin(core: usize) -> Result<(), Fault> {
    thread::pin_current(core).map_err(|error| Fault::Unavailable(format!("processor {core}: {error}")))
}
