//! The controller's threads: a cyclic one, and one that counts and reports.

use super::{Context, PERIOD, PROCESS, REPORT_EVERY, RoleError, Way, process_qos};
use crate::controller::Controller;
use crate::percentiles::Times;
use crate::report::{ControllerReport, Report};
use crossbeam_queue::ArrayQueue;
use insane_core::Nanos;
use insane_rt::{Activation, Emit, Session, Sink, SinkOptions, Source, SourceOptions};
use std::sync::atomic::{AtomicU64, Ordering};

/// Cycles under way to the counting thread: four seconds' worth.
const STARTS: usize = 4_096;
/// Messages a ring holds.
const DEPTH: u32 = 64;

/// What the two threads share.
struct Shared {
    starts: ArrayQueue<Activation>,
    samples: AtomicU64,
    samples_lost: AtomicU64,
    damaged: AtomicU64,
    refused: AtomicU64,
}

/// Runs the controller until it is asked to stop.
///
/// # Errors
/// See [`RoleError`].
pub fn run(session: &Session, context: &Context) -> Result<(), RoleError> {
    let stream = |way: Way| session.stream(way.stream(), process_qos(&context.setup, way));
    let source = stream(Way::Commands)?.source(PROCESS, SourceOptions::small())?;
    let sink = stream(Way::Samples)?.sink(PROCESS, SinkOptions::default().depth(DEPTH))?;
    let shared = Shared {
        starts: ArrayQueue::new(STARTS),
        samples: AtomicU64::new(0),
        samples_lost: AtomicU64::new(0),
        damaged: AtomicU64::new(0),
        refused: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let of_thread = &shared;
        let cyclic = std::thread::Builder::new()
            .name("controller".into())
            .spawn_scoped(scope, move || cyclic(session, context, of_thread, &source, &sink))?;
        let mut counted = Counted::default();
        while !cyclic.is_finished() {
            std::thread::sleep(REPORT_EVERY);
            context.report(counted.report(&shared));
        }
        let ended = cyclic.join().map_err(|_| RoleError::Panicked)?;
        context.report(counted.report(&shared));
        ended
    })
}

fn cyclic(
    session: &Session,
    context: &Context,
    shared: &Shared,
    source: &Source,
    sink: &Sink,
) -> Result<(), RoleError> {
    let setup = &context.setup;
    let mut controller = Controller::new(setup.hold_back, PERIOD);
    let mut task = context.cyclic(session, setup.offset)?;
    let half = Nanos::from_millis(u64::from(setup.seconds) * 500);
    let mut released = None;
    let mut paused = setup.pause == Nanos::ZERO;
    while !context.stop.asked() {
        let Some(start) = task.wait() else { break };
        for _ in 0..DEPTH {
            let Some(message) = sink.consume()? else { break };
            let mut bytes = [0; crate::process_data::BYTES];
            let fits = message.len() == bytes.len() && message.copy_to(&mut bytes) == bytes.len();
            controller.sample(if fits { &bytes } else { &[] }, message.lost());
        }
        if let Some(command) = controller.command(&start)
            && let Emit::Refused(..) = source.emit_copy(&command)?
        {
            shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        shared.samples.store(controller.samples(), Ordering::Relaxed);
        shared.samples_lost.store(controller.samples_lost(), Ordering::Relaxed);
        shared.damaged.store(controller.damaged(), Ordering::Relaxed);
        // A full queue means that the counting thread is starved; the cycle matters more.
        let _ = shared.starts.push(start);
        if !paused && controller.is_released() {
            paused = start.woke.since(*released.get_or_insert(start.woke)) >= half;
            if paused {
                std::thread::sleep(setup.pause.into());
            }
        }
    }
    Ok(())
}

/// What the counting thread knows.
#[derive(Default)]
struct Counted {
    cycles: u64,
    skipped: u64,
    wake: Times,
}

impl Counted {
    fn report(&mut self, shared: &Shared) -> Report {
        for _ in 0..STARTS {
            let Some(start) = shared.starts.pop() else { break };
            self.cycles += 1;
            self.skipped += start.skipped;
            if let Some(late) = start.late {
                self.wake.add(late);
            }
        }
        Report::Controller(ControllerReport {
            cycles: self.cycles,
            skipped: self.skipped,
            wake: self.wake.quantiles(),
            samples: shared.samples.load(Ordering::Relaxed),
            samples_lost: shared.samples_lost.load(Ordering::Relaxed),
            damaged: shared.damaged.load(Ordering::Relaxed),
            refused: shared.refused.load(Ordering::Relaxed),
        })
    }
}
