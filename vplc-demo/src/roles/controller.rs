//! The controller: a program of `#[vplc::app]`, and a thread that counts and reports.

use super::{Context, PERIOD, PROCESS, REPORT_EVERY, RoleError, Setup, Stop, Way, process_qos};
use crate::controller::Controller;
use crate::percentiles::Times;
use crate::process_data::BYTES;
use crate::report::{ControllerReport, Report};
use crossbeam_queue::ArrayQueue;
use insane_core::{MonoTime, Nanos};
use insane_rt::{Session, SinkOptions, SourceOptions, Spin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vplc::{Activation, In, NonBlocking, Out, Placement, Running};

/// Cycles under way to the counting thread: four seconds' worth.
const STARTS: usize = 4_096;
/// Messages a ring holds.
const DEPTH: u32 = 64;
/// Of the task, in the program.
const PRIORITY: u8 = 1;

/// The task answers the newest sample before its message has its slot, 175 us after the start of
/// its cycle. What a datapath on its core takes is not bounded and not declared: the report shows
/// late cycles as they are.
#[vplc::app(tai = true, spin = 300us, jitter = 50us)]
mod app {
    use super::{Parts, Pause, Shown};
    use crate::controller::Controller;
    use vplc::{In, Out};

    #[shared]
    struct Shared {}

    #[local]
    struct Local {
        samples: In,
        commands: Out,
        controller: Controller,
        shown: Shown,
        pause: Pause,
    }

    #[init]
    fn init(_: init::Context, parts: Parts) -> (Shared, Local, init::Monotonics) {
        let Parts { samples, commands, controller, shown, pause } = parts;
        (Shared {}, Local { samples, commands, controller, shown, pause }, init::Monotonics())
    }

    #[task(priority = 1, cycle = 1ms, deadline = 175us, wcet = 100us,
           local = [samples, commands, controller, shown, pause])]
    fn control(cx: control::Context) {
        let control::LocalResources { samples, commands, controller, shown, pause, .. } = cx.local;
        if shown.is_to_end() {
            return cx.stop.ask();
        }
        let start = cx.activation;
        let done = super::take(samples, controller).and_then(|()| match controller.command(&start) {
            Some(command) => Ok(commands.put(&command)?),
            None => Ok(true),
        });
        match done {
            Ok(is_sent) => shown.cycle(start, controller, is_sent),
            Err(error) => {
                shown.fail(error);
                cx.stop.ask();
            }
        }
        pause.look(&start, controller.is_released());
    }
}

/// What the program is started with.
struct Parts {
    samples: In,
    commands: Out,
    controller: Controller,
    shown: Shown,
    pause: Pause,
}

// Its queue of samples has its capacity from the start.
impl NonBlocking for Controller {}

/// Takes the samples that wait, at most as many as the ring holds.
fn take(samples: &mut In, controller: &mut Controller) -> Result<(), RoleError> {
    for _ in 0..DEPTH {
        let mut bytes = [0; BYTES];
        let Some(received) = samples.next(&mut bytes)? else { break };
        controller.sample(if received.len == BYTES { &bytes } else { &[] }, received.lost);
    }
    Ok(())
}

/// What task and counting thread share: neither waits for the other.
#[derive(Debug)]
struct Shared {
    starts: ArrayQueue<Activation>,
    samples: AtomicU64,
    samples_lost: AtomicU64,
    damaged: AtomicU64,
    refused: AtomicU64,
    failure: ArrayQueue<RoleError>,
}

/// The task's end of it.
struct Shown {
    shared: Arc<Shared>,
    stop: Stop,
}

// Atomics, and queues without locks.
impl NonBlocking for Shown {}

impl Shown {
    fn is_to_end(&self) -> bool {
        self.stop.asked()
    }

    fn cycle(&self, start: Activation, controller: &Controller, is_sent: bool) {
        let shared = &self.shared;
        shared.refused.fetch_add(u64::from(!is_sent), Ordering::Relaxed);
        shared.samples.store(controller.samples(), Ordering::Relaxed);
        shared.samples_lost.store(controller.samples_lost(), Ordering::Relaxed);
        shared.damaged.store(controller.damaged(), Ordering::Relaxed);
        // A full queue means that the counting thread is starved; the cycle matters more.
        let _ = shared.starts.push(start);
    }

    /// The first one counts.
    fn fail(&self, error: RoleError) {
        let _ = self.shared.failure.push(error);
    }
}

/// A fault that is made on purpose (`--pause-ms`): the task stands still, once, in the middle of
/// the run.
struct Pause {
    length: Nanos,
    /// After the release.
    after: Nanos,
    released: Option<MonoTime>,
    is_over: bool,
}

// Unless the fault is asked for, it never waits.
impl NonBlocking for Pause {}

impl Pause {
    fn new(setup: &Setup) -> Self {
        let after = Nanos::from_millis(u64::from(setup.seconds) * 500);
        Pause { length: setup.pause, after, released: None, is_over: setup.pause == Nanos::ZERO }
    }

    fn look(&mut self, start: &Activation, is_released: bool) {
        if !self.is_over && is_released {
            self.is_over = start.woke.since(*self.released.get_or_insert(start.woke)) >= self.after;
            if self.is_over {
                std::thread::sleep(self.length.into());
            }
        }
    }
}

/// Runs the controller until it is asked to stop.
///
/// # Errors
/// See [`RoleError`].
pub fn run(session: &Session, context: &Context) -> Result<(), RoleError> {
    let (running, shared) = start(session, context)?;
    running.notices().iter().for_each(|notice| context.note(notice.clone()));
    let mut counted = Counted::default();
    while !running.is_finished() {
        std::thread::sleep(REPORT_EVERY);
        context.report(counted.report(&shared));
    }
    let report = running.join();
    for task in report.tasks().filter(|task| !task.kept_wcet()) {
        let declared = Nanos(task.spec.wcet_ns);
        context.note(format!("a cycle took {} of processor time, and {declared} are declared", task.cpu_worst));
    }
    context.report(counted.report(&shared));
    shared.failure.pop().map_or(Ok(()), Err)
}

fn start(session: &Session, context: &Context) -> Result<(Running, Arc<Shared>), RoleError> {
    let setup = &context.setup;
    let stream = |way: Way| session.stream(way.stream(), process_qos(setup, way));
    let commands = stream(Way::Commands)?.source(PROCESS, SourceOptions::small())?;
    let samples = stream(Way::Samples)?.sink(PROCESS, SinkOptions::default().depth(DEPTH))?;
    let shared = Arc::new(Shared {
        starts: ArrayQueue::new(STARTS),
        samples: AtomicU64::new(0),
        samples_lost: AtomicU64::new(0),
        damaged: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        failure: ArrayQueue::new(1),
    });
    let parts = Parts {
        samples: In::new(samples),
        commands: Out::new(commands),
        controller: Controller::new(setup.hold_back, PERIOD),
        shown: Shown { shared: Arc::clone(&shared), stop: context.stop.clone() },
        pause: Pause::new(setup),
    };
    Ok((app::start_with(session, placement(setup), parts)?, shared))
}

/// Where this run has its controller, half a cycle after the device unless told otherwise.
fn placement(setup: &Setup) -> Placement {
    let Setup { place, grid, margin, offset, .. } = *setup;
    Placement {
        core: place.core,
        fifo: place.fifo.map(|fifo| fifo.saturating_sub(PRIORITY)),
        base: grid.base(offset),
        spin: Spin::Fixed(margin),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::course::Contract;
    use crate::process_data::Sample;
    use crate::roles::{Grid, Place, Role};
    use std::sync::mpsc::{Receiver, channel};

    fn context() -> (Context, Receiver<Report>) {
        let setup = Setup {
            role: Role::Controller,
            place: Place::default(),
            seconds: 1,
            settle: 1,
            contract: Contract::BestEffort,
            grid: Grid::Mono(MonoTime(0)),
            release_from: MonoTime(0),
            load_from: MonoTime(0),
            margin: Nanos::ZERO,
            offset: Nanos::from_micros(500),
            late: Nanos::ZERO,
            hold_back: 0,
            pause: Nanos::ZERO,
            video_fps: 0.0,
        };
        let (tell, told) = channel();
        (Context { setup, stop: Stop::default(), tell }, told)
    }

    #[test]
    fn the_program_has_the_period_and_takes_what_the_options_allow() {
        let (mut context, _told) = context();
        let session = Session::embedded("controller").unwrap();
        context.setup.margin = Nanos::from_micros(300);
        let (running, _) = start(&session, &context).unwrap();
        context.stop.ask();
        let report = running.join();
        let [thread] = &report.threads[..] else { panic!("{report:?}") };
        let task = report.task("control").unwrap();
        assert_eq!((Nanos(task.spec.cycle_ns), thread.fifo), (PERIOD, None));
        assert!(task.spec.deadline_ns <= super::super::READY.0, "before the slot of its message");
        context.setup.place.fifo = Some(50);
        assert_eq!(placement(&context.setup).fifo, Some(49), "and the priority is added");
    }

    #[test]
    fn it_begins_its_offset_after_the_grid_answers_and_ends_when_asked() {
        let (context, _told) = context();
        let session = Session::embedded("controller").unwrap();
        let other = session.clone();
        let stream = |way: Way| other.stream(way.stream(), process_qos(&context.setup, way)).unwrap();
        let source = stream(Way::Samples).source(PROCESS, SourceOptions::small()).unwrap();
        let sink = stream(Way::Commands).sink(PROCESS, SinkOptions::default()).unwrap();
        let (running, shared) = start(&session, &context).unwrap();
        source.wait_for_receivers(std::time::Duration::from_secs(5)).unwrap();
        let state = crate::plant::Plant::new(1).state();
        let set_point = crate::plant::SetPoint::at(0.0);
        let sample = Sample { cycle: 77, instant: MonoTime(5), state, set_point };
        let _ = source.emit_copy(&[0; 3]).unwrap();
        let _ = source.emit_copy(&sample.encode()).unwrap();
        let command = sink.consume_timeout(std::time::Duration::from_secs(5)).unwrap().expect("an answer");
        let command = crate::process_data::Command::decode(&command.to_vec()).unwrap();
        assert_eq!((command.echo_cycle, command.echo_instant), (77, MonoTime(5)));
        context.stop.ask();
        let _ = running.join();
        let start = shared.starts.pop().expect("a cycle");
        assert_eq!(start.due.0 % PERIOD.0, 500_000);
        let Report::Controller(report) = Counted::default().report(&shared) else { panic!() };
        assert_eq!((report.samples, report.damaged, report.samples_lost), (1, 1, 0));
    }
}
