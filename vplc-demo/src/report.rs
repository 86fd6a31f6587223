//! What the parts of the demonstration tell the one who shows it: in memory when they
//! are threads of one process, as lines of JSON on standard output when they are
//! processes.

use crate::cause::Causes;
use crate::device::Phase;
use crate::percentiles::Quantiles;
use serde::{Deserialize, Serialize};

/// One message to the one who shows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub enum Report {
    /// The device's state; the whole of it every time.
    Device(Box<DeviceReport>),
    /// The controller's state; the whole of it every time.
    Controller(ControllerReport),
    /// One end of a best-effort flow; the whole of it every time.
    Flow(FlowReport),
    /// Something that the reader of the result should know.
    Note {
        /// Who says so.
        from: String,
        /// What.
        text: String,
    },
    /// A part cannot go on.
    Failed {
        /// Which.
        from: String,
        /// Why.
        text: String,
    },
    /// The device has run all cycles.
    Finished,
}

/// The device's state.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct DeviceReport {
    /// Whether cycles count yet.
    pub phase: Phase,
    /// Cycles since the release, those passed over included.
    pub cycles: u64,
    /// Cycles that missed.
    pub misses: u64,
    /// What is known of their causes; together as many as `misses`.
    pub causes: Causes,
    /// From sample to command, on the device's clock.
    pub round_trip: Quantiles,
    /// Lateness of the device's wake-ups.
    pub wake: Quantiles,
    /// How often the carriage came down.
    pub falls: u32,
    /// Whether it is down now.
    pub down: bool,
    /// Air gap now, metres.
    pub gap: f64,
    /// Set point now, metres.
    pub set_point: f64,
    /// Control error since the release, root of the mean square, metres.
    pub error_rms: Option<f64>,
    /// Largest control error since the release, metres.
    pub error_max: f64,
    /// Largest control error of each 50 ms since the last report, metres.
    pub error_trace: Vec<f64>,
    /// Gap and set point of every fifth cycle since the last report, metres; a carriage
    /// that is down has none.
    pub path: Vec<(Option<f64>, f64)>,
    /// Commands received, over the whole run.
    pub commands: u64,
    /// Commands and samples whose sequence numbers never came.
    pub lost: u64,
    /// Messages that were no commands.
    pub damaged: u64,
    /// Samples that the runtime did not take.
    pub refused: u64,
    /// Records that found no room on their way from the cyclic thread.
    pub records_lost: u64,
}

/// The controller's state.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct ControllerReport {
    /// Cycles run.
    pub cycles: u64,
    /// Cycles passed over.
    pub skipped: u64,
    /// Lateness of its wake-ups.
    pub wake: Quantiles,
    /// Samples received.
    pub samples: u64,
    /// Samples that never came.
    pub samples_lost: u64,
    /// Messages that were no samples.
    pub damaged: u64,
    /// Commands that the runtime did not take.
    pub refused: u64,
}

/// The best-effort flows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// Frames of 6.22 MB.
    Video,
    /// Messages of 200 B.
    Telemetry,
    /// Blocks of 64 KiB, as many as go through; none may be lost.
    Backup,
}

impl Flow {
    /// As it stands in tables; also the stream's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Flow::Video => "video",
            Flow::Telemetry => "telemetry",
            Flow::Backup => "backup",
        }
    }
}

/// One end of a best-effort flow.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FlowReport {
    /// Which.
    pub flow: Flow,
    /// The receiving end; else the sending one.
    pub receives: bool,
    /// Messages sent or received.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first message to the last, nanoseconds.
    pub span_ns: u64,
    /// Received: sequence numbers that never came.
    pub lost: u64,
    /// Received: messages whose content was not what was sent.
    pub damaged: u64,
    /// Sent: times that no buffer was free or the runtime did not take one.
    pub refused: u64,
}

impl FlowReport {
    /// An end that has moved nothing.
    #[must_use]
    pub fn new(flow: Flow, receives: bool) -> Self {
        FlowReport { flow, receives, messages: 0, bytes: 0, span_ns: 0, lost: 0, damaged: 0, refused: 0 }
    }

    /// Messages a second, and megabytes (10^6) a second: over the intervals between
    /// messages, so the first does not count.
    #[must_use]
    pub fn rates(&self) -> Option<(f64, f64)> {
        let seconds = self.span_ns as f64 * 1e-9;
        if self.messages < 2 || seconds <= 0.0 {
            return None;
        }
        let share = (self.messages - 1) as f64 / self.messages as f64;
        Some(((self.messages - 1) as f64 / seconds, self.bytes as f64 * share / seconds / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_survive_the_way_as_lines() {
        let device = DeviceReport { cycles: 7, error_trace: vec![1e-3], ..DeviceReport::default() };
        let reports = [
            Report::Device(Box::new(device)),
            Report::Controller(ControllerReport::default()),
            Report::Flow(FlowReport::new(Flow::Video, true)),
            Report::Note { from: "a".into(), text: "two\nlines".into() },
            Report::Finished,
        ];
        for report in reports {
            let line = serde_json::to_string(&report).unwrap();
            assert!(!line.contains('\n'));
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
    }

    #[test]
    fn rates_are_over_the_intervals() {
        let mut flow = FlowReport::new(Flow::Video, true);
        assert_eq!(flow.rates(), None);
        flow.messages = 11;
        flow.bytes = 11_000_000;
        flow.span_ns = 1_000_000_000;
        assert_eq!(flow.rates(), Some((10.0, 10.0)));
    }
}
