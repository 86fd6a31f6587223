//! `insane schedule measured`: e_turn and e_wake of a running host, in the words of a plant
//! file.
//!
//! A plant's turn counts twice: until a slot is looked at, and until its frame is on its way. Of
//! several datapaths each has its own lines: a plant takes those of the one that its links are of.

use super::Failure;
use crate::observer::Observer;
use crate::told;
use insane_core::Nanos;
use insane_wire::status::{MeasuredStatus, StatusReport};
use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let timeout = Nanos::from_millis(arguments.timeout);
    let report = Observer::attach(&arguments.socket, timeout, "insane schedule", None)
        .and_then(|mut observer| observer.status())
        .map_err(|error| Failure::Other(error.to_string()))?;
    let text = lines(&report).map_err(Failure::Other)?;
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// What holds for two alike: the longer of both, quantile and longest each, where both are carried
/// by their samples; else the one that is not.
fn both(one: &MeasuredStatus, other: &MeasuredStatus) -> MeasuredStatus {
    match (one.quantile_ns, other.quantile_ns) {
        (None, _) => one.clone(),
        (_, None) => other.clone(),
        (quantile_of_one, quantile_of_other) => MeasuredStatus {
            quantile_ns: quantile_of_one.max(quantile_of_other),
            max_ns: one.max_ns.max(other.max_ns),
            samples: one.samples.min(other.samples),
            ..one.clone()
        },
    }
}

/// The lines of all datapaths with slots.
fn lines(report: &StatusReport) -> Result<String, String> {
    let mut text = String::new();
    for datapath in report.datapaths.iter().filter(|datapath| datapath.slot_clock.is_some()) {
        let _ = writeln!(text, "// datapath {:?}", datapath.name);
        let measured = |assumption: &str| {
            let monitor = datapath.monitors.iter().find(|monitor| monitor.assumption == assumption);
            monitor.and_then(|monitor| monitor.measured.as_ref())
        };
        // A plant's turn holds for slots and for the chunks between them.
        let chunk = measured("e_chunk").filter(|chunk| chunk.samples > 0);
        let turn = measured("e_turn").map(|turn| chunk.map_or(turn.clone(), |chunk| both(turn, chunk)));
        for (one, field, times) in [(measured("e_wake").cloned(), "wake", 1), (turn, "turn", 2)] {
            match &one {
                Some(MeasuredStatus { quantile_ppm, quantile_ns: Some(quantile_ns), samples, max_ns, .. }) => {
                    let (quantile_ns, max_ns) = (quantile_ns.saturating_mul(times), max_ns.saturating_mul(times));
                    let _ = writeln!(
                        text,
                        "{field}: (quantile_ppm: {quantile_ppm}, quantile_ns: {quantile_ns}, max_ns: {max_ns}, \
                         samples: {samples}),"
                    );
                }
                Some(few) => {
                    let _ = writeln!(text, "// {field}: {}", told::measured(few));
                }
                None => {
                    let _ = writeln!(text, "// {field}: the runtime does not say");
                }
            }
        }
    }
    if text.is_empty() { Err("no datapath there has slots: no link has a rate (rate_mbps)".into()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_wire::status::{DatapathStatus, MonitorStatus};

    #[test]
    fn what_is_carried_by_its_samples_is_printed_for_a_plant_and_the_rest_is_a_comment() {
        let monitor = |assumption: &str, quantile_ns| MonitorStatus {
            assumption: assumption.into(),
            measured: Some(MeasuredStatus {
                quantile_ppm: 999_000,
                quantile_ns,
                samples: 20_000,
                max_ns: 9_000,
                ..MeasuredStatus::default()
            }),
            ..MonitorStatus::default()
        };
        let datapath = DatapathStatus {
            name: "main".into(),
            slot_clock: Some("tai".into()),
            monitors: vec![monitor("e_turn", Some(4_000)), monitor("e_wake", None)],
            ..DatapathStatus::default()
        };
        let report = StatusReport { datapaths: vec![datapath], ..StatusReport::default() };
        let text = lines(&report).unwrap();
        let mut with_chunks = report.clone();
        with_chunks.datapaths[0].monitors.push(monitor("e_chunk", Some(4_500)));
        assert!(lines(&with_chunks).unwrap().contains("turn: (quantile_ppm: 999000, quantile_ns: 9000,"));
        // The one may have the longer quantile, and the other the longest.
        let chunk = with_chunks.datapaths[0].monitors[2].measured.as_mut().unwrap();
        (chunk.quantile_ns, chunk.max_ns) = (Some(3_000), 11_000);
        let longer = "turn: (quantile_ppm: 999000, quantile_ns: 8000, max_ns: 22000, samples: 20000),\n";
        assert!(lines(&with_chunks).unwrap().contains(longer));
        with_chunks.datapaths[0].monitors[2].measured.as_mut().unwrap().quantile_ns = None;
        assert!(lines(&with_chunks).unwrap().contains("// turn: "), "chunks are not carried");
        let turn = "turn: (quantile_ppm: 999000, quantile_ns: 8000, max_ns: 18000, samples: 20000),\n";
        assert!(text.contains(turn), "{text}");
        assert!(text.contains("// wake: beyond measure in 99.9 % of 20000"), "{text}");
        assert!(lines(&StatusReport::default()).is_err());
    }
}
