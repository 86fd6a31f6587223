//! The parts of the demonstration as they run: a thread each in the embedded form, a
//! process each with namespaces. They share nothing but messages through the
//! runtime; what they report goes to whoever shows it.

pub mod controller;
pub mod device;
pub mod process;
pub mod recorder;
pub mod sender;

use crate::course::Contract;
use crate::report::{Flow, Report};
use insane_core::{ChannelId, MonoTime, Nanos, Priority, Qos, TaiTime};
use insane_rt::{Base, CyclicTask, Determinism, LatePolicy, Overrun, Reliability, Session, Spin};
use insane_sys::thread::{SchedPolicy, pin_current, set_name, set_policy_current};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Length of a cycle of device and controller.
pub const PERIOD: Nanos = Nanos::from_millis(1);
/// When the device's cycles start, after each whole period of the clock: away from the
/// kernel's tick, which comes at whole milliseconds.
const PHASE: Nanos = Nanos::from_micros(375);
/// From the start of a cycle to the slot of its message: waking late and computing.
const READY: Nanos = Nanos::from_micros(175);
/// Channel of process data.
const PROCESS: ChannelId = ChannelId(1);
/// The only channel of a best-effort stream.
const FLOW: ChannelId = ChannelId(1);
/// Bytes of a video frame: 1,920 x 1,080 pixels of three bytes.
pub const FRAME_BYTES: usize = 1_920 * 1_080 * 3;
/// Bytes of a telemetry message.
pub const TELEMETRY_BYTES: usize = 200;
/// Bytes of a block of a backup.
pub const BLOCK_BYTES: usize = 65_536;
/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// What a part does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Owns the plant.
    Device,
    /// Closes the loop.
    Controller,
    /// Sends a best-effort flow.
    Sender(Flow),
    /// Receives and checks a best-effort flow.
    Recorder(Flow),
}

impl Role {
    /// Name of its session, thread and log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::Device => "device",
            Role::Controller => "controller",
            Role::Sender(Flow::Video) => "camera",
            Role::Recorder(Flow::Video) => "recorder",
            Role::Sender(Flow::Telemetry) => "meter",
            Role::Recorder(Flow::Telemetry) => "historian",
            Role::Sender(Flow::Backup) => "disk",
            Role::Recorder(Flow::Backup) => "archive",
        }
    }
}

/// Where and how urgently a part runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    /// Pinned to that core.
    pub core: Option<usize>,
    /// `SCHED_FIFO` at that priority.
    pub fifo: Option<u8>,
}

/// The instants from which device and controller count their cycles; they are on one
/// clock here, as two hosts with PTP are. It is the clock that slots run by.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum Grid {
    /// The monotonic clock.
    Mono(MonoTime),
    /// TAI, where it is disciplined.
    Tai(TaiTime),
}

impl Grid {
    /// A grid from now on, at the phase of the device's cycles.
    #[must_use]
    pub fn from_now() -> Self {
        let align = |now: u64| now - now % PERIOD.0 + PHASE.0;
        let pair = insane_core::time::Clock::pair(&insane_sys::clock::MonotonicClock);
        match pair {
            Some(pair) if pair.has_offset && pair.is_synchronised => Grid::Tai(TaiTime(align(pair.tai.0))),
            _ => Grid::Mono(MonoTime(align(now().0))),
        }
    }

    /// What a task's cycles are counted from that begin `offset` after those of the grid.
    fn base(self, offset: Nanos) -> Base {
        match self {
            Grid::Mono(epoch) => Base::Mono(epoch + offset),
            Grid::Tai(epoch) => Base::Tai(epoch + offset),
        }
    }
}

/// One way of process data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// From the device's sensors to the controller.
    Samples,
    /// From the controller to the device's actuator.
    Commands,
}

impl Way {
    /// Name of its stream.
    const fn stream(self) -> &'static str {
        match self {
            Way::Samples => crate::course::SAMPLES,
            Way::Commands => crate::course::COMMANDS,
        }
    }
}

/// What a part needs to know.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Setup {
    /// What it does.
    pub role: Role,
    /// Where it runs.
    pub place: Place,
    /// Seconds that the device counts, from the release.
    pub seconds: u32,
    /// Fresh cycles in a row before the release.
    pub settle: u32,
    /// Of which quality process data is.
    pub contract: Contract,
    /// When device and controller start their cycles.
    pub grid: Grid,
    /// The clamp does not open before.
    pub release_from: MonoTime,
    /// Best effort does not begin, and cycles do not count, before.
    pub load_from: MonoTime,
    /// How long a cyclic task looks at the clock before its deadline.
    pub margin: Nanos,
    /// From the start of the device's cycle to that of the controller's.
    pub offset: Nanos,
    /// A wake-up later than this explains a miss.
    pub late: Nanos,
    /// Cycles by which the controller holds samples back.
    pub hold_back: usize,
    /// The controller stands still for this long, once, in the middle of the run.
    pub pause: Nanos,
    /// Video frames a second; 0: as many as go through.
    pub video_fps: f64,
}

/// Why a part cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// No session.
    #[error(transparent)]
    Session(#[from] insane_rt::SessionError),
    /// No stream, source or sink.
    #[error(transparent)]
    Request(#[from] insane_rt::RequestError),
    /// A sink gave up.
    #[error("receiving: {0}")]
    Consume(#[from] insane_rt::ConsumeError),
    /// A source gave up.
    #[error("sending: {0}")]
    Buffer(#[from] insane_rt::GetBufferError),
    /// A source gave up while waiting.
    #[error("sending: {0}")]
    BufferTimeout(#[from] insane_rt::GetBufferTimeoutError),
    /// The device never heard from the controller.
    #[error("no command came from the controller within {0} s")]
    NoController(u64),
    /// A thread ended by a panic.
    #[error("a thread of this part panicked")]
    Panicked,
    /// A cyclic task could not be had.
    #[error(transparent)]
    Cyclic(#[from] insane_rt::CyclicError),
    /// A program could not be started.
    #[error(transparent)]
    Start(#[from] vplc::StartError),
    /// A thread could not be started.
    #[error("the system refuses a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Asks all parts to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Asks them now.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether they are asked.
    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a part is given to run in.
#[derive(Clone, Debug)]
pub struct Context {
    /// What it needs to know.
    pub setup: Setup,
    /// When to end.
    pub stop: Stop,
    /// Where reports go.
    pub tell: Sender<Report>,
}

impl Context {
    /// Sends a report. Nobody listening is no error: the demonstration is ending.
    fn report(&self, report: Report) {
        let _ = self.tell.send(report);
    }

    fn note(&self, text: String) {
        self.report(Report::Note { from: self.setup.role.name().into(), text });
    }

    /// Makes the current thread a cyclic task of the grid; what is refused is told and not
    /// fatal.
    fn cyclic(&self, session: &Session) -> Result<CyclicTask, RoleError> {
        let Setup { place, grid, margin, .. } = self.setup;
        set_name(self.setup.role.name());
        let task = session.cyclic(PERIOD, Nanos::ZERO).base(grid.base(Nanos::ZERO));
        let mut task = task.overrun(Overrun::RunLate).spin(Spin::Fixed(margin));
        if let Some(core) = place.core {
            task = task.core(core);
        }
        if let Some(priority) = place.fifo {
            task = task.fifo(priority);
        }
        let task = task.start()?;
        task.misplaced().iter().for_each(|what| self.note(what.to_string()));
        Ok(task)
    }

    /// Takes the current thread to its place; what is refused is told and not fatal.
    fn take_place(&self) {
        set_name(self.setup.role.name());
        if let Some(core) = self.setup.place.core
            && let Err(error) = pin_current(core)
        {
            self.note(error.to_string());
        }
        if let Some(priority) = self.setup.place.fifo
            && let Err(error) = set_policy_current(SchedPolicy::Fifo(priority))
        {
            self.note(format!("runs without SCHED_FIFO: {error}"));
        }
    }
}

/// Runs a part on a session until it is asked to stop, or the device has run all
/// cycles.
///
/// # Errors
/// See [`RoleError`].
pub fn run(session: &Session, context: &Context) -> Result<(), RoleError> {
    match context.setup.role {
        Role::Device => device::run(session, context),
        Role::Controller => controller::run(session, context),
        Role::Sender(flow) => sender::run(session, context, flow),
        Role::Recorder(flow) => recorder::run(session, context, flow),
    }
}

/// Process data: one message a cycle. Its contract is all that differs between runs.
fn process_qos(setup: &Setup, way: Way) -> Qos {
    let size = crate::process_data::BYTES as u32;
    let determinism = match setup.contract {
        Contract::Lane => Determinism::periodic(PERIOD, size),
        Contract::Slots => {
            let start = match way {
                Way::Samples => PHASE,
                Way::Commands => Nanos(PHASE.0 + setup.offset.0),
            };
            let offset = Nanos((start.0 + READY.0) % PERIOD.0);
            // Of two that wait, only the newest is of use: a queue would make all that follow old.
            Determinism::TimeSensitive { period: PERIOD, offset, deadline: PERIOD, size, late: LatePolicy::NewestWins }
        }
        Contract::BestEffort => Determinism::BestEffort,
    };
    Qos { determinism, priority: Priority::MAX, ..Qos::default() }
}

/// Best effort; telemetry before video and backup, which loses nothing.
fn flow_qos(flow: Flow) -> Qos {
    let (level, reliability) = match flow {
        Flow::Video => (1, Reliability::Unreliable),
        Flow::Backup => (1, Reliability::Reliable),
        Flow::Telemetry => (3, Reliability::Unreliable),
    };
    Qos { priority: Priority::new(level).unwrap_or_default(), reliability, ..Qos::default() }
}

fn now() -> MonoTime {
    insane_sys::clock::mono_now()
}
