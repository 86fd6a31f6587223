//! The receiving end of a best-effort flow: checks contents, counts what is lost.

use super::{Context, FLOW, REPORT_EVERY, RoleError, flow_qos, now};
use crate::pattern;
use crate::report::{Flow, FlowReport, Report};
use insane_rt::{Message, Session, SinkOptions};

/// Every how many words of a message one is looked at: all of telemetry; of a video
/// frame some 1,500, of a block some 480, others each time.
const fn stride(flow: Flow) -> usize {
    match flow {
        Flow::Video => 509,
        Flow::Telemetry => 1,
        Flow::Backup => 17,
    }
}

/// Messages a ring holds.
const fn depth(flow: Flow) -> u32 {
    match flow {
        Flow::Video => 4,
        Flow::Backup => 16,
        Flow::Telemetry => 256,
    }
}

/// Receives until it is asked to stop.
///
/// # Errors
/// See [`RoleError`].
pub fn run(session: &Session, context: &Context, flow: Flow) -> Result<(), RoleError> {
    let stream = session.stream(flow.name(), flow_qos(flow))?;
    let sink = stream.sink(FLOW, SinkOptions::default().depth(depth(flow)))?;
    context.take_place();
    let mut report = FlowReport::new(flow, true);
    let mut first = None;
    let mut told = now();
    while !context.stop.asked() {
        if let Some(message) = sink.consume_timeout(REPORT_EVERY)? {
            report.messages += 1;
            report.bytes += message.len() as u64;
            report.lost += u64::from(message.lost());
            report.damaged += u64::from(!is_right(&message, stride(flow)));
            let arrived = now();
            report.span_ns = arrived.since(*first.get_or_insert(arrived)).0;
        }
        if now().since(told) >= REPORT_EVERY.into() {
            told = now();
            context.report(Report::Flow(report.clone()));
        }
    }
    context.report(Report::Flow(report));
    Ok(())
}

/// Checks a message where it lies, without copying all of it.
fn is_right(message: &Message<'_>, stride: usize) -> bool {
    let shared = message.shared();
    pattern::check(message.len(), stride, |at| {
        let mut word = [0; 8];
        shared.part(at, 8).copy_to(&mut word);
        word
    })
}
