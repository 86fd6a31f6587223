//! Whether the loop held.
//!
//! The rule: the loop **held** if the device ran all its cycles, the carriage never
//! came down, and at most [`MISSES_MAX_PERCENT`] percent of the cycles missed. A run is
//! **broken**, whatever the plant did, if a part failed, if no messages flowed one
//! way or the other (best-effort flows included), or if a message arrived with other
//! contents than were sent. A smoke run asks only whether it is broken.

use super::picture::Picture;
use super::{micros, millimetres, percent};
use crate::device::Phase;
use crate::report::{DeviceReport, Flow};
use serde::Serialize;

/// Most misses of a loop that held.
pub const MISSES_MAX_PERCENT: u64 = 1;

/// What became of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The loop held.
    Held,
    /// It did not.
    DidNotHold,
    /// With slots the plant does not notice the load, without it visibly does.
    Shown,
    /// One of the two was not to be seen.
    NotShown,
    /// A smoke run in which everything works.
    Works,
    /// A person or a supervisor ended it.
    Interrupted,
    /// Something does not work.
    Broken,
}

impl Judgement {
    /// The exit status.
    #[must_use]
    pub const fn exit(self) -> u8 {
        match self {
            Judgement::Held | Judgement::Shown | Judgement::Works => 0,
            Judgement::DidNotHold | Judgement::NotShown => 1,
            Judgement::Broken => 2,
            Judgement::Interrupted => 130,
        }
    }
}

/// What is asked of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Demand {
    /// Only whether it works.
    pub smoke: bool,
    /// The flows that were to run.
    pub flows: &'static [Flow],
    /// It was ended before its time.
    pub interrupted: bool,
}

/// Judges a run; with the summary in one line.
#[must_use]
pub fn judge(picture: &Picture, demand: Demand) -> (Judgement, String) {
    let judgement = match (broken(picture, demand), &picture.device) {
        _ if demand.interrupted => Judgement::Interrupted,
        (Some(reason), _) => return (Judgement::Broken, format!("broken: {reason}")),
        _ if demand.smoke => Judgement::Works,
        (None, Some(device)) if held(device) => Judgement::Held,
        _ => Judgement::DidNotHold,
    };
    let word = match judgement {
        Judgement::Held => "held",
        Judgement::DidNotHold => "did not hold",
        Judgement::Shown => "shown",
        Judgement::NotShown => "not shown",
        Judgement::Works => "works",
        Judgement::Interrupted => "interrupted",
        Judgement::Broken => "broken",
    };
    let facts = picture.device.as_ref().map_or_else(|| "nothing was measured".into(), facts);
    (judgement, format!("{word}: {facts}"))
}

/// Whether a loop held: see the module.
fn held(device: &DeviceReport) -> bool {
    device.falls == 0 && device.cycles > 0 && device.misses * 100 <= device.cycles * MISSES_MAX_PERCENT
}

/// Why a run is broken; `None`: it is not.
pub fn broken(picture: &Picture, demand: Demand) -> Option<String> {
    if let Some(failure) = &picture.failure {
        // The rest of it, a log's last lines, stands in the table.
        return Some(failure.lines().next().unwrap_or_default().into());
    }
    let Some(device) = picture.device.as_ref().filter(|device| device.phase == Phase::Running) else {
        return Some("the plant was never released".into());
    };
    if picture.controller.as_ref().is_none_or(|controller| controller.samples == 0) {
        return Some("no sample reached the controller".into());
    }
    if device.commands == 0 {
        return Some("no command reached the device".into());
    }
    if !picture.finished {
        return Some("the device did not run all its cycles".into());
    }
    for flow in demand.flows {
        let received = picture.flows.get(flow).and_then(|(_, received)| received.as_ref());
        if received.is_none_or(|flow| flow.messages == 0) {
            return Some(format!("no {} arrived", flow.name()));
        }
    }
    let damaged = picture.damaged();
    (damaged > 0).then(|| format!("{damaged} messages arrived with other contents than were sent"))
}

fn facts(device: &DeviceReport) -> String {
    let good = device.cycles - device.misses.min(device.cycles);
    let fallen = match device.falls {
        0 => String::new(),
        1 => ", the carriage came down once".into(),
        falls => format!(", the carriage came down {falls} times"),
    };
    let round_trip = ["p99", "p90", "p50"].iter().find_map(|level| {
        device.round_trip.level(level).map(|time| format!(", round trip {level} {}", micros(Some(time))))
    });
    format!(
        "{good} of {} cycles ({} missed){fallen}{}, control error {} RMS",
        device.cycles,
        percent(device.misses, device.cycles),
        round_trip.unwrap_or_default(),
        device.error_rms.map_or("-".into(), millimetres),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{ControllerReport, FlowReport, Report};

    fn run(change: impl FnOnce(&mut DeviceReport)) -> Picture {
        let mut device = DeviceReport {
            phase: Phase::Running,
            cycles: 10_000,
            misses: 100,
            commands: 10_000,
            error_rms: Some(1e-4),
            ..DeviceReport::default()
        };
        change(&mut device);
        let mut picture = Picture::default();
        picture.take(Report::Device(Box::new(device)));
        picture.take(Report::Controller(ControllerReport { samples: 9_999, ..ControllerReport::default() }));
        for flow in [Flow::Video, Flow::Telemetry] {
            picture.take(Report::Flow(FlowReport { messages: 5, ..FlowReport::new(flow, true) }));
        }
        picture.take(Report::Finished);
        picture
    }

    const FULL: Demand = Demand { smoke: false, flows: &[Flow::Video, Flow::Telemetry], interrupted: false };

    #[test]
    fn the_rule() {
        assert_eq!(judge(&run(|_| {}), FULL).0, Judgement::Held);
        assert_eq!(judge(&run(|d| d.misses = 101), FULL).0, Judgement::DidNotHold);
        assert_eq!(judge(&run(|d| d.falls = 1), FULL).0, Judgement::DidNotHold);
        let smoke = Demand { smoke: true, ..FULL };
        assert_eq!(judge(&run(|d| d.falls = 1), smoke).0, Judgement::Works);
        let interrupted = Demand { interrupted: true, ..FULL };
        assert_eq!(judge(&run(|_| {}), interrupted).0, Judgement::Interrupted);
        assert_eq!(judge(&Picture::default(), interrupted).0, Judgement::Interrupted);
    }

    #[test]
    fn what_does_not_work_is_broken_even_in_a_smoke_run() {
        let smoke = Demand { smoke: true, ..FULL };
        let mut cases = vec![Picture::default(), run(|d| d.commands = 0), run(|d| d.damaged = 1)];
        cases.push(run(|d| d.phase = Phase::Settling));
        cases.push(Picture { finished: false, ..run(|_| {}) });
        cases.push(Picture { failure: Some("x\ny".into()), ..run(|_| {}) });
        cases.push(Picture { controller: None, ..run(|_| {}) });
        cases.push(Picture { flows: Default::default(), ..run(|_| {}) });
        for picture in cases {
            let (judgement, line) = judge(&picture, smoke);
            assert_eq!(judgement, Judgement::Broken, "{picture:?}");
            assert!(line.starts_with("broken: ") && !line.contains('\n'), "{line}");
        }
        let without = Demand { flows: &[], ..FULL };
        assert_eq!(judge(&Picture { flows: Default::default(), ..run(|_| {}) }, without).0, Judgement::Held);
    }

    #[test]
    fn the_summary_says_what_counts() {
        let (_, line) = judge(&run(|d| d.misses = 2), FULL);
        assert_eq!(line, "held: 9998 of 10000 cycles (0.02 % missed), control error 0.100 mm RMS");
        let (_, line) = judge(&run(|d| d.falls = 2), FULL);
        assert!(line.starts_with("did not hold: 9900 of 10000 cycles (1.00 % missed), the carriage came down 2 times"));
    }
}
