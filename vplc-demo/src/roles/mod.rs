//! The parts of the demonstration as they run: a thread each in the embedded form, a
//! process each with namespaces. They share nothing but messages through the
//! runtime; what they report goes to whoever shows it.

pub mod controller;
pub mod device;
pub mod process;
pub mod recorder;
pub mod sender;

use crate::report::{Flow, Report};
use insane_core::{ChannelId, MonoTime, Nanos, Priority, Qos};
use insane_rt::{Base, CyclicTask, Determinism, Overrun, Session, Spin};
use insane_sys::thread::{SchedPolicy, pin_current, set_name, set_policy_current};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

/// Length of a cycle of device and controller.
pub const PERIOD: Nanos = Nanos::from_millis(1);
/// Name of the stream that carries process data.
const PLANT: &str = "plant";
/// Channel from the device's sensors.
const SENSORS: ChannelId = ChannelId(1);
/// Channel to the device's actuator.
const ACTUATOR: ChannelId = ChannelId(2);
/// The only channel of a best-effort stream.
const FLOW: ChannelId = ChannelId(1);
/// Bytes of a video frame: 1,920 x 1,080 pixels of three bytes.
pub const FRAME_BYTES: usize = 1_920 * 1_080 * 3;
/// Bytes of a telemetry message.
pub const TELEMETRY_BYTES: usize = 200;
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
    /// The instant from which device and controller count their cycles; they are on
    /// one clock here, as two hosts with PTP are.
    pub epoch: MonoTime,
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

    /// Makes the current thread a cyclic task, counted from the epoch; what is refused is
    /// told and not fatal.
    fn cyclic(&self, session: &Session, offset: Nanos) -> Result<CyclicTask, RoleError> {
        let Setup { place, epoch, margin, .. } = self.setup;
        set_name(self.setup.role.name());
        let mut task =
            session.cyclic(PERIOD, offset).base(Base::Mono(epoch)).overrun(Overrun::RunLate).spin(Spin::Fixed(margin));
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

/// Process data: one message a cycle in the real-time lanes.
fn process_qos() -> Qos {
    let size = crate::process_data::BYTES as u32;
    Qos { determinism: Determinism::periodic(PERIOD, size), priority: Priority::MAX, ..Qos::default() }
}

/// Best effort; telemetry before video.
fn flow_qos(flow: Flow) -> Qos {
    let level = match flow {
        Flow::Video => 1,
        Flow::Telemetry => 3,
    };
    Qos { priority: Priority::new(level).unwrap_or_default(), ..Qos::default() }
}

fn now() -> MonoTime {
    insane_sys::clock::mono_now()
}
