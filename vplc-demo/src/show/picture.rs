//! All that is known at present, from the parts' reports.

use crate::report::{ControllerReport, DeviceReport, Flow, FlowReport, Report};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};

/// How many stretches of the control error are kept: ten seconds.
const TRACE: usize = 200;
/// How much of the carriage's path is kept: a minute.
const PATH: usize = 12_000;

/// All that is known at present.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Picture {
    /// The device's last report.
    pub device: Option<DeviceReport>,
    /// The controller's last report.
    pub controller: Option<ControllerReport>,
    /// The flows' last reports: sent and received.
    pub flows: BTreeMap<Flow, (Option<FlowReport>, Option<FlowReport>)>,
    /// Remarks, in the order in which they came.
    pub notes: Vec<String>,
    /// Why the demonstration cannot go on.
    pub failure: Option<String>,
    /// The device has run all cycles.
    pub finished: bool,
    /// Largest control error of each 50 ms, metres; the newest last.
    #[serde(skip)]
    pub trace: VecDeque<f64>,
    /// Gap, none while the carriage is down, and set point of every fifth cycle, metres;
    /// the first [`PATH`].
    #[serde(skip)]
    pub path: Vec<(Option<f64>, f64)>,
}

impl Picture {
    /// Takes a report.
    pub fn take(&mut self, report: Report) {
        match report {
            Report::Device(mut device) => {
                self.trace.extend(device.error_trace.drain(..));
                self.trace.drain(..self.trace.len().saturating_sub(TRACE));
                device.path.truncate(PATH - self.path.len());
                self.path.append(&mut device.path);
                self.device = Some(*device);
            }
            Report::Controller(controller) => self.controller = Some(controller),
            Report::Flow(flow) => {
                let ends = self.flows.entry(flow.flow).or_default();
                let end = if flow.receives { &mut ends.1 } else { &mut ends.0 };
                *end = Some(flow);
            }
            Report::Note { from, text } => self.notes.push(format!("{from}: {text}")),
            // The first failure is the cause; others follow from it.
            Report::Failed { from, text } => {
                self.failure.get_or_insert_with(|| format!("{from}: {text}"));
            }
            Report::Finished => self.finished = true,
        }
    }

    /// Messages that arrived with other contents than were sent.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        let flows = self.flows.values().filter_map(|(_, received)| received.as_ref()).map(|flow| flow.damaged);
        flows.sum::<u64>()
            + self.device.as_ref().map_or(0, |device| device.damaged)
            + self.controller.as_ref().map_or(0, |controller| controller.damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_is_bounded_and_keeps_the_newest() {
        let mut picture = Picture::default();
        for n in 0..100 {
            let error_trace = (0..10).map(|m| f64::from(n * 10 + m)).collect();
            picture.take(Report::Device(Box::new(DeviceReport { error_trace, ..DeviceReport::default() })));
        }
        assert_eq!(picture.trace.len(), TRACE);
        assert_eq!(picture.trace.back(), Some(&999.0));
    }

    #[test]
    fn the_first_failure_stays() {
        let mut picture = Picture::default();
        for text in ["first", "second"] {
            picture.take(Report::Failed { from: "x".into(), text: text.into() });
        }
        assert_eq!(picture.failure.as_deref(), Some("x: first"));
    }

    #[test]
    fn damage_is_counted_wherever_it_is_seen() {
        let mut picture = Picture::default();
        picture.take(Report::Flow(FlowReport { damaged: 1, ..FlowReport::new(Flow::Video, true) }));
        picture.take(Report::Device(Box::new(DeviceReport { damaged: 2, ..DeviceReport::default() })));
        picture.take(Report::Controller(ControllerReport { damaged: 4, ..ControllerReport::default() }));
        assert_eq!(picture.damaged(), 7);
    }
}
