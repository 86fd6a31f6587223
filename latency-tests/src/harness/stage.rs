//! Several parties of one measurement, each a pinned thread, that meet before
//! they start and all stop when the leading one has finished or any has failed.

use super::cores::pin;
use super::fault::Fault;
use super::watch::{Ended, Idle, Watch};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// How long a party waits for the others to open their ends.
const MEET_BOUND: Duration = Duration::from_secs(20);

/// What the parties of one measurement share.
pub struct Stage {
    stop: AtomicBool,
    opened: AtomicU32,
    parties: u32,
}

impl Stage {
    /// Waits until every party has opened its end.
    ///
    /// # Errors
    /// Another party failed, or never came.
    pub fn meet(&self) -> Result<(), Fault> {
        // Release and Acquire: what a party opened is there before others use it.
        self.opened.fetch_add(1, Ordering::Release);
        let mut watch = Watch::new("another party", Idle::Yield, MEET_BOUND, &self.stop);
        while self.opened.load(Ordering::Acquire) < self.parties {
            watch.idle()?;
        }
        Ok(())
    }

    /// A watch that ends with this measurement.
    #[must_use]
    pub fn watch(&self, what: &'static str, idle: Idle, bound: Duration) -> Watch<'_> {
        Watch::new(what, idle, bound, &self.stop)
    }

    /// Whether the measurement is over.
    #[must_use]
    pub fn stopped(&self) -> bool {
        // Relaxed: the flag carries no data.
        self.stop.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Raises the stop flag when its thread leaves, in whatever way: a party that
/// panics must not leave the others waiting for it.
struct EndOnExit<'a>(&'a Stage);

impl Drop for EndOnExit<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// What a party does.
type Role<'a> = Box<dyn FnOnce(&Stage) -> Result<(), Fault> + Send + 'a>;

/// One party that is not the leading one. It runs until the stage stops.
pub struct Party<'a> {
    core: usize,
    run: Role<'a>,
}

impl<'a> Party<'a> {
    /// A party on `core`. It must call [`Stage::meet`] once it is ready.
    pub fn new(core: usize, run: impl FnOnce(&Stage) -> Result<(), Fault> + Send + 'a) -> Self {
        Party { core, run: Box::new(run) }
    }
}

/// Runs the leading party on `core` beside `others` and returns what it measured.
///
/// # Errors
/// The first real failure: the leading party's own, else another party's.
pub fn perform<T: Send>(
    core: usize,
    lead: impl FnOnce(&Stage) -> Result<T, Fault> + Send,
    others: Vec<Party<'_>>,
) -> Result<T, Fault> {
    let stage = Stage {
        stop: AtomicBool::new(false),
        opened: AtomicU32::new(0),
        parties: 1 + u32::try_from(others.len()).expect("a handful of parties"),
    };
    let stage = &stage;
    std::thread::scope(|scope| {
        let others: Vec<_> = others
            .into_iter()
            .map(|party| {
                scope.spawn(move || {
                    // A party that fails ends the measurement; one that is done leaves it running.
                    let guard = EndOnExit(stage);
                    pin(party.core).and_then(|()| (party.run)(stage))?;
                    std::mem::forget(guard);
                    Ok(())
                })
            })
            .collect();
        let lead = scope.spawn(move || {
            let _end = EndOnExit(stage);
            pin(core).and_then(|()| lead(stage))
        });
        let measured = lead.join().unwrap_or_else(|_| Err(Fault::Party("the leading party panicked".into())));
        let mut failed = None;
        for other in others {
            let result = other.join().unwrap_or_else(|_| Err(Fault::Party("a party panicked".into())));
            failed = failed.or(result.err());
        }
        match (measured, failed) {
            (Ok(measured), None) => Ok(measured),
            (_, Some(fault)) | (Err(fault), None) => Err(fault),
        }
    })
}

/// Turns the end of a party that answers until it is stopped into success.
///
/// # Errors
/// The party ended for another reason.
pub fn until_stopped(ended: Ended) -> Result<(), Fault> {
    match ended {
        Ended::Stopped => Ok(()),
        Ended::TimedOut(fault) => Err(fault),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::cores::Cores;

    #[test]
    fn a_party_that_fails_or_panics_ends_the_measurement_with_its_reason() {
        let Ok(cores) = Cores::find().inspect_err(|fault| eprintln!("passed over: {fault}")) else { return };
        let lead = |stage: &Stage| -> Result<(), Fault> {
            stage.meet()?;
            let mut watch = stage.watch("the lead", Idle::Yield, Duration::from_secs(60));
            loop {
                watch.idle()?;
            }
        };
        let failing = Party::new(cores.other, |stage| {
            stage.meet()?;
            Err(Fault::Party("broken".into()))
        });
        let fault = perform(cores.app, lead, vec![failing]).unwrap_err();
        assert_eq!(fault.to_string(), "broken");

        let panicking = Party::new(cores.other, |_| panic!("on purpose"));
        let fault = perform(cores.app, lead, vec![panicking]).unwrap_err();
        assert_eq!(fault.to_string(), "a party panicked");
    }
}
