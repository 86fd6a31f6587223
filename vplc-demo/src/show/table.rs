//! The result as a table.

use super::picture::Picture;
use super::{micros, millimetres, percent};
use crate::cause::Cause;
use crate::percentiles::{LEVELS, Quantiles};
use crate::report::{ControllerReport, DeviceReport, Flow, FlowReport};
use insane_core::Nanos;

/// Renders the result. `offset` is the planned part of the round trip.
#[must_use]
pub fn render(picture: &Picture, offset: Nanos) -> String {
    let mut text = String::new();
    let nothing = (DeviceReport::default(), ControllerReport::default());
    let device = picture.device.as_ref().unwrap_or(&nothing.0);
    let controller = picture.controller.as_ref().unwrap_or(&nothing.1);
    cycles(&mut text, device);
    times(&mut text, device, controller, offset);
    plant(&mut text, device);
    flows(&mut text, picture);
    if device.records_lost > 0 {
        push(
            &mut text,
            format!("{} records were lost on the way to this table: it is incomplete", device.records_lost),
        );
    }
    if let Some(failure) = &picture.failure {
        push(&mut text, format!("failure: {failure}"));
    }
    for note in &picture.notes {
        push(&mut text, format!("note: {note}"));
    }
    text
}

fn push(text: &mut String, line: impl AsRef<str>) {
    text.push_str(line.as_ref().trim_end());
    text.push('\n');
}

fn cycles(text: &mut String, device: &DeviceReport) {
    push(text, format!("{:<22}{:>10}", "cycles", device.cycles));
    push(text, format!("{:<22}{:>10}   {}", "misses", device.misses, percent(device.misses, device.cycles)));
    for cause in Cause::ALL {
        let count = device.causes.of(cause);
        // What explains nothing is not worth a line, but whether all is explained is.
        if count > 0 || (cause == Cause::Unexplained && device.misses > 0) {
            push(text, format!("  {:<20}{count:>10}", cause.name()));
        }
    }
    push(text, "");
}

fn times(text: &mut String, device: &DeviceReport, controller: &ControllerReport, offset: Nanos) {
    let mut head = format!("{:<22}", "");
    LEVELS.iter().for_each(|(name, _)| head.push_str(&format!("{name:>11}")));
    push(text, format!("{head}{:>11}{:>10}", "max", "samples"));
    let rows = [
        ("round trip", &device.round_trip),
        ("wake-up, device", &device.wake),
        ("wake-up, controller", &controller.wake),
    ];
    for (name, quantiles) in rows {
        push(text, row(name, quantiles));
    }
    push(text, format!("(sensor sample to command, on the device's clock; {offset} of it are planned)"));
    push(text, "");
}

fn row(name: &str, quantiles: &Quantiles) -> String {
    let mut row = format!("{name:<22}");
    for level in quantiles.levels.into_iter().chain([quantiles.max]) {
        row.push_str(&format!("{:>11}", micros(level)));
    }
    format!("{row}{:>10}", quantiles.count)
}

fn plant(text: &mut String, device: &DeviceReport) {
    let rms = device.error_rms.map_or("-".into(), millimetres);
    let max = device.error_rms.map_or("-".into(), |_| millimetres(device.error_max));
    let fallen = match device.falls {
        _ if device.cycles == 0 => "no cycle was counted".into(),
        0 => "the carriage never came down".into(),
        1 => "the carriage came down once".into(),
        falls => format!("the carriage came down {falls} times"),
    };
    push(text, format!("{:<22}{rms} RMS, {max} max; {fallen}", "control error"));
    let lost = format!("{} lost, {} refused, {} damaged", device.lost, device.refused, device.damaged);
    push(text, format!("{:<22}{} commands; {lost}", "process data", device.commands));
}

fn flows(text: &mut String, picture: &Picture) {
    for (flow, (sent, received)) in &picture.flows {
        push(text, format!("{:<22}{}", flow.name(), describe(*flow, sent.as_ref(), received.as_ref())));
    }
}

/// A flow in one line.
fn describe(flow: Flow, sent: Option<&FlowReport>, received: Option<&FlowReport>) -> String {
    let Some(received) = received.filter(|received| received.messages > 0) else {
        return "nothing arrived".into();
    };
    let what = match flow {
        Flow::Video => "frames",
        Flow::Telemetry => "messages",
        Flow::Backup => "blocks",
    };
    let rates = received
        .rates()
        .map_or("-".into(), |(messages, megabytes)| format!("{megabytes:.2} MB/s, {messages:.1} {what}/s"));
    let sent = sent.map_or("-".into(), |sent| sent.messages.to_string());
    let (arrived, lost, damaged) = (received.messages, received.lost, received.damaged);
    format!("{rates}; {arrived} {what} of {sent} sent, {lost} lost, {damaged} damaged")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::Causes;
    use crate::percentiles::Times;
    use crate::report::Report;

    fn picture() -> Picture {
        let mut round_trip = Times::new();
        (0..1_000).for_each(|n| round_trip.add(Nanos(560_000 + n)));
        let mut causes = Causes::default();
        causes.add(Cause::PeerLate, 2);
        let device = DeviceReport {
            cycles: 1_000,
            misses: 2,
            causes,
            round_trip: round_trip.quantiles(),
            error_rms: Some(1e-4),
            error_max: 3e-4,
            commands: 998,
            lost: 1,
            ..DeviceReport::default()
        };
        let mut picture = Picture::default();
        picture.take(Report::Device(Box::new(device)));
        let video = FlowReport {
            messages: 11,
            bytes: 68_428_800,
            span_ns: 1_000_000_000,
            ..FlowReport::new(Flow::Video, true)
        };
        picture.take(Report::Flow(video));
        picture.take(Report::Note { from: "device".into(), text: "a remark".into() });
        picture
    }

    #[test]
    fn the_table_has_what_was_measured() {
        let text = render(&picture(), Nanos::from_micros(500));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "cycles                      1000");
        assert_eq!(lines[1], "misses                         2   0.20 %");
        assert_eq!(lines[2], "  peer late                    2");
        assert_eq!(lines[3], "  unexplained                  0");
        assert_eq!(lines[4], "");
        assert!(text.contains("control error         0.100 mm RMS, 0.300 mm max; the carriage never came down\n"));
        assert!(text.contains("process data          998 commands; 1 lost, 0 refused, 0 damaged\n"));
        assert!(
            text.contains("video                 62.21 MB/s, 10.0 frames/s; 11 frames of - sent, 0 lost, 0 damaged\n")
        );
        assert!(text.ends_with("note: device: a remark\n"));
    }

    #[test]
    fn quantiles_without_enough_samples_are_a_dash() {
        let text = render(&picture(), Nanos::from_micros(500));
        let row = text.lines().find(|line| line.starts_with("round trip")).unwrap();
        let fields: Vec<&str> = row["round trip".len()..].split_whitespace().collect();
        assert_eq!(fields.len(), 3 * 2 + 2 + 2 + 1, "{row}");
        assert_eq!(fields[6..8], ["-", "-"], "{row}");
        assert_eq!(fields.last(), Some(&"1000"));
        let empty = text.lines().find(|line| line.starts_with("wake-up, device")).unwrap();
        assert_eq!(empty.matches('-').count(), 6 + 1, "{empty}");
    }

    #[test]
    fn columns_line_up() {
        let text = render(&picture(), Nanos::from_micros(500));
        let ends = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().len();
        assert_eq!(ends("round trip"), ends("wake-up, device"));
        assert!(text.lines().all(|line| line.len() <= 100), "{text}");
    }

    #[test]
    fn nothing_measured_is_a_table_too() {
        let text = render(&Picture::default(), Nanos::ZERO);
        assert!(
            text.contains("cycles                         0\n")
                && text.contains("- RMS, - max; no cycle was counted\n")
        );
    }
}
