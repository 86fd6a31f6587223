//! What the service manager is told, and the daemon's own watch over its runtime.

use crate::Failure;
use crate::signals::{Asked, Signals};
use insane_control::Runtime;
use insane_core::Nanos;
use insane_sys::clock::mono_now;
use sd_notify::NotifyState;
use tracing::{error, info, warn};

/// How often the daemon looks after its runtime.
const PERIOD: Nanos = Nanos::from_millis(500);

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Service {
    /// Time between two signs of life that it asks for.
    watchdog: Option<Nanos>,
}

impl Service {
    /// Says that the runtime serves.
    #[must_use]
    pub fn ready(status: &str) -> Self {
        let mut micros = 0;
        let watchdog = sd_notify::watchdog_enabled(false, &mut micros).then(|| Nanos::from_micros(micros));
        tell(&[NotifyState::Ready, NotifyState::Status(status)]);
        Service { watchdog }
    }

    /// Says that the runtime ends.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// Looks after the runtime until a signal asks for the end, or a part of it ends.
    ///
    /// # Errors
    /// What ended.
    pub fn watch(&self, signals: &Signals, runtime: &Runtime) -> Result<(), Failure> {
        let period = self.watchdog.map_or(PERIOD, |watchdog| Nanos(watchdog.0 / 3).min(PERIOD));
        let mut violations = 0;
        loop {
            match signals.wait(period)? {
                Some(Asked::Stop) => {
                    info!("told to stop");
                    return Ok(());
                }
                Some(Asked::Reload) => reload(runtime),
                None => {}
            }
            crate::check(runtime)?;
            self.show_life(runtime);
            let counted = insane_sys::guard::violations();
            if counted > violations {
                error!(violations = counted, "allocations on datapath threads: a bug");
                violations = counted;
            }
        }
    }

    /// A sign of life, if the control plane shows one: it goes round every 100 ms.
    fn show_life(&self, runtime: &Runtime) {
        if let Some(watchdog) = self.watchdog
            && mono_now().since(runtime.last_beat()) < watchdog
        {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Reads the configuration again, and tells the service manager, which may wait for it
/// (`Type=notify-reload`), when that begins and ends. What came of it is in the log of the
/// runtime: the daemon serves in either case.
fn reload(runtime: &Runtime) {
    tell(&[NotifyState::Reloading, NotifyState::MonotonicUsec(i128::from(mono_now().0 / 1_000))]);
    let status = match runtime.reload(false) {
        Some(report) if report.is_good() => "configuration reloaded",
        Some(_) => "configuration refused, the earlier one holds; the log says why",
        None => "reload not finished; the log says what becomes of it",
    };
    info!(status, "SIGHUP");
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

fn tell(state: &[NotifyState<'_>]) {
    // Without a service manager this does nothing.
    if let Err(error) = sd_notify::notify(false, state) {
        warn!(%error, "the service manager is not told");
    }
}
