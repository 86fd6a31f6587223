//! The device's threads: a cyclic one, and one that counts and reports.

use super::{Context, PERIOD, PROCESS, REPORT_EVERY, RoleError, Way, now, process_qos};
use crate::cause::{FRESH_CYCLES, Stall};
use crate::device::{Device, Phase};
use crate::ledger::{Ledger, Record};
use crate::report::{DeviceReport, Report};
use crossbeam_queue::ArrayQueue;
use insane_core::{MonoTime, Nanos};
use insane_rt::{Activation, Emit, Message, Session, Sink, SinkOptions, Source, SourceOptions};
use nix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Records under way to the counting thread: two a cycle, four seconds' worth.
const RECORDS: usize = 8_192;
/// Messages a ring holds.
const DEPTH: u32 = 64;
/// Before the next deadline the device stops listening, so that a late wake-up from
/// listening does not become a late cycle.
const LISTEN_GUARD: Nanos = Nanos::from_micros(150);
/// Between two looks whether it is to end, when all cycles have run.
const END_LOOK: Duration = Duration::from_millis(5);
/// How long the clamp waits for a fresh loop.
const SETTLE_MAX: Nanos = Nanos::from_secs(10);

/// What the two threads share.
struct Shared {
    records: ArrayQueue<Record>,
    records_lost: AtomicU64,
    refused: AtomicU64,
    damaged: AtomicU64,
}

/// Runs the device until it is asked to stop; says when all cycles have run.
///
/// # Errors
/// See [`RoleError`].
pub fn run(session: &Session, context: &Context) -> Result<(), RoleError> {
    let stream = |way: Way| session.stream(way.stream(), process_qos(&context.setup, way));
    let source = stream(Way::Samples)?.source(PROCESS, SourceOptions::small())?;
    let sink = stream(Way::Commands)?.sink(PROCESS, SinkOptions::default().depth(DEPTH))?;
    let shared = Shared {
        records: ArrayQueue::new(RECORDS),
        records_lost: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        damaged: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let of_thread = &shared;
        let cyclic = std::thread::Builder::new().name("device".into()).spawn_scoped(scope, move || {
            let mut cyclic = Cyclic::new(context, of_thread, source, sink);
            let ended = cyclic.run(session);
            (ended, cyclic.source)
        })?;
        let mut ledger = Ledger::new(context.setup.late, Nanos(FRESH_CYCLES * PERIOD.0));
        while !cyclic.is_finished() {
            std::thread::sleep(REPORT_EVERY);
            context.report(count(&shared, &mut ledger));
        }
        let (ended, source) = cyclic.join().map_err(|_| RoleError::Panicked)?;
        context.report(count(&shared, &mut ledger));
        if ended? {
            context.report(Report::Finished);
            // Until then its slots can be asked about.
            while !context.stop.asked() {
                std::thread::sleep(END_LOOK);
            }
        }
        drop(source);
        Ok(())
    })
}

fn count(shared: &Shared, ledger: &mut Ledger) -> Report {
    for _ in 0..RECORDS {
        let Some(record) = shared.records.pop() else { break };
        ledger.add(record);
    }
    Report::Device(Box::new(DeviceReport {
        records_lost: shared.records_lost.load(Ordering::Relaxed),
        refused: shared.refused.load(Ordering::Relaxed),
        damaged: shared.damaged.load(Ordering::Relaxed),
        ..ledger.report()
    }))
}

/// The cyclic thread.
struct Cyclic<'a> {
    context: &'a Context,
    shared: &'a Shared,
    source: Source,
    sink: Sink,
    device: Device,
    heard: bool,
}

impl<'a> Cyclic<'a> {
    fn new(context: &'a Context, shared: &'a Shared, source: Source, sink: Sink) -> Self {
        let setup = &context.setup;
        let device = Device::new(setup.settle, setup.release_from, setup.load_from);
        Cyclic { context, shared, source, sink, device, heard: false }
    }

    /// Says whether all cycles have run.
    fn run(&mut self, session: &Session) -> Result<bool, RoleError> {
        let setup = &self.context.setup;
        let mut task = self.context.cyclic(session)?;
        let began = now();
        let mut gauge = StallGauge::new();
        let mut released = None;
        let mut listened = false;
        while !self.context.stop.asked() {
            let overslept = listened && task.due().is_some_and(|due| now() > due);
            let Some(mut start) = task.wait() else { break };
            if overslept {
                // It was asleep, listening, when the deadline passed: a late wake-up.
                start.late = Some(Nanos(start.woke.since(start.due).0 + start.skipped * PERIOD.0));
            }
            let stall = gauge.look(&start);
            self.take_commands()?;
            self.cycle(start, stall)?;
            self.settle_at_last(&start, began)?;
            if self.device.phase() == Phase::Running {
                let since = start.cycle - *released.get_or_insert(start.cycle);
                if since >= u64::from(setup.seconds) * (1_000_000_000 / PERIOD.0) {
                    return Ok(true);
                }
            }
            task.done();
            let next = start.due + PERIOD;
            listened = self.listen(start.cycle, next - setup.margin - LISTEN_GUARD)?;
        }
        Ok(false)
    }

    fn cycle(&mut self, start: Activation, stall: Stall) -> Result<(), RoleError> {
        let (sample, record) = self.device.cycle(start, stall);
        if let Emit::Refused(..) = self.source.emit_copy(&sample)? {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        write_down(self.shared, Record::Cycle(record));
        Ok(())
    }

    /// All commands that wait; at most as many as the ring holds.
    fn take_commands(&mut self) -> Result<(), RoleError> {
        for _ in 0..DEPTH {
            let Some(message) = self.sink.consume()? else { break };
            take(&message, &mut self.device, self.shared);
            self.heard = true;
        }
        Ok(())
    }

    /// Waits for the answer to this cycle's sample, to know when it came; at the
    /// latest until `until`. Says whether there was time to wait at all.
    fn listen(&mut self, cycle: u64, until: MonoTime) -> Result<bool, RoleError> {
        let mut listened = false;
        loop {
            let left = until.since(now());
            if left == Nanos::ZERO {
                return Ok(listened);
            }
            listened = true;
            let Some(message) = self.sink.consume_timeout(Duration::from(left))? else { continue };
            self.heard = true;
            if take(&message, &mut self.device, self.shared) >= Some(cycle) {
                return Ok(listened);
            }
        }
    }

    /// A loop that does not become fresh is released all the same: the plant shows
    /// what that means.
    fn settle_at_last(&mut self, start: &Activation, began: MonoTime) -> Result<(), RoleError> {
        if self.device.phase() != Phase::Settling || start.woke.since(began) < SETTLE_MAX {
            return Ok(());
        }
        if !self.heard {
            return Err(RoleError::NoController(SETTLE_MAX.0 / 1_000_000_000));
        }
        self.context.note("the loop did not settle; the clamp opened all the same".into());
        self.device.release(start.woke);
        Ok(())
    }
}

/// Gives a message to the device; returns the cycle that it answers.
fn take(message: &Message<'_>, device: &mut Device, shared: &Shared) -> Option<u64> {
    let mut bytes = [0; crate::process_data::BYTES];
    let fits = message.len() == bytes.len() && message.copy_to(&mut bytes) == bytes.len();
    let command = device.command(now(), if fits { &bytes } else { &[] }, message.lost());
    shared.damaged.store(device.damaged(), Ordering::Relaxed);
    let command = command?;
    write_down(shared, Record::Command(command));
    Some(command.echo_cycle)
}

fn write_down(shared: &Shared, record: Record) {
    if shared.records.push(record).is_err() {
        shared.records_lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells code that runs too long from a thread that loses its processor.
struct StallGauge {
    woke: MonoTime,
    used: Nanos,
}

impl StallGauge {
    fn new() -> Self {
        StallGauge { woke: now(), used: used() }
    }

    fn look(&mut self, start: &Activation) -> Stall {
        let used_now = used();
        let (passed, worked) = (start.woke.since(self.woke), used_now.0 - self.used.0);
        *self = StallGauge { woke: start.woke, used: used_now };
        match start.late {
            Some(_) => Stall::None,
            None if worked > passed.0 / 2 => Stall::Overrun,
            None => Stall::Preempted,
        }
    }
}

/// Processor time of the current thread. Zero where the kernel does not tell, which
/// makes every stall a preemption.
fn used() -> Nanos {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Nanos::ZERO, |time| Duration::from(time).into())
}
