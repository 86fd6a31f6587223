//! The sending end of a best-effort flow: video frames or telemetry, numbered and
//! filled with a pattern that the other end can check.

use super::{BLOCK_BYTES, Context, FLOW, FRAME_BYTES, REPORT_EVERY, RoleError, TELEMETRY_BYTES, flow_qos, now};
use crate::pattern;
use crate::report::{Flow, FlowReport, Report};
use insane_core::{MonoTime, Nanos};
use insane_rt::{Emit, GetBufferTimeoutError, Session, Source, SourceOptions};
use insane_sys::clock::sleep_until;
use std::time::Duration;

/// Frames that a camera has in memory: one being filled, one under way, one spare.
const FRAMES: u32 = 3;
/// Telemetry messages a second.
const TELEMETRY_HZ: f64 = 1_000.0;
/// Telemetry buffers: a quarter of a second.
const TELEMETRY_BUFFERS: u32 = 256;
/// Blocks of a backup: more than are under way to a peer at a time.
const BLOCKS: u32 = 8;
/// How long a sender waits for a buffer before it looks whether it is to stop.
const WAIT: Duration = Duration::from_millis(100);

/// Sends until it is asked to stop.
///
/// # Errors
/// See [`RoleError`].
pub fn run(session: &Session, context: &Context, flow: Flow) -> Result<(), RoleError> {
    let stream = session.stream(flow.name(), flow_qos(flow))?;
    let (bytes, buffers, rate) = match flow {
        Flow::Video => (FRAME_BYTES, FRAMES, context.setup.video_fps),
        Flow::Telemetry => (TELEMETRY_BYTES, TELEMETRY_BUFFERS, TELEMETRY_HZ),
        Flow::Backup => (BLOCK_BYTES, BLOCKS, 0.0),
    };
    let source = stream.source(FLOW, SourceOptions::default().buffers(bytes as u32, buffers))?;
    context.take_place();
    let pace = Pace::new(rate);
    let mut sender = Sending { source, bytes, report: FlowReport::new(flow, false), began: now(), told: now() };
    while !context.stop.asked() {
        if sender.source.has_receivers() && now() >= context.setup.load_from {
            if pace.is_due(sender.began, sender.report.messages) {
                sender.send()?;
            }
        } else {
            // Nobody to send to, or too early: the pace begins with the first message.
            std::thread::sleep(Duration::from_millis(5));
            sender.began = now();
        }
        if now().since(sender.told) >= REPORT_EVERY.into() {
            sender.tell(context);
        }
    }
    sender.tell(context);
    Ok(())
}

struct Sending {
    source: Source,
    bytes: usize,
    report: FlowReport,
    began: MonoTime,
    told: MonoTime,
}

impl Sending {
    fn send(&mut self) -> Result<(), RoleError> {
        let mut buffer = match self.source.get_buffer_timeout(self.bytes, WAIT) {
            Ok(buffer) => buffer,
            Err(GetBufferTimeoutError::TimedOut) => {
                self.report.refused += 1;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        pattern::fill(&mut buffer, self.report.messages);
        match self.source.emit(buffer) {
            Emit::Sent(_) => {
                self.report.messages += 1;
                self.report.bytes += self.bytes as u64;
                self.report.span_ns = now().since(self.began).0;
            }
            Emit::Refused(..) => self.report.refused += 1,
        }
        Ok(())
    }

    fn tell(&mut self, context: &Context) {
        self.told = now();
        context.report(Report::Flow(self.report.clone()));
    }
}

/// When messages are due.
struct Pace(Option<f64>);

impl Pace {
    /// So many a second; 0: at once.
    fn new(per_second: f64) -> Self {
        Pace((per_second > 0.0).then(|| 1e9 / per_second))
    }

    /// Whether message `number` is due; if it is not, sleeps until it is, but not for
    /// ever: a slow rate must not keep the sender from ending.
    fn is_due(&self, began: MonoTime, number: u64) -> bool {
        let Some(interval) = self.0 else { return true };
        let due = began + Nanos((interval * number as f64) as u64);
        sleep_until(due.min(now() + WAIT.into()));
        now() >= due
    }
}
