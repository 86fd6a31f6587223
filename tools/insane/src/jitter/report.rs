//! What is printed: one structure, as JSON or as text of at most 90 columns.

use super::Arguments;
use super::cause::{Cause, Late};
use super::evidence::Record;
use super::measure::Measured;
use super::metric::{EDGES, Metric};
use super::slots::Slots;
use insane_core::{MonoTime, Nanos};
use serde::Serialize;
use std::fmt::Write;

/// Quantiles: name, and one in how many is beyond.
const LEVELS: [(&str, u64); 6] =
    [("p50", 2), ("p90", 10), ("p99", 100), ("p99_9", 1_000), ("p99_99", 10_000), ("p99_999", 100_000)];
/// Columns of the longest bar.
const BAR: usize = 24;

/// Everything that is told.
#[derive(Debug, Serialize)]
pub struct Report {
    core: usize,
    policy: &'static str,
    priority: Option<u8>,
    period_ns: u64,
    seconds: u64,
    margin_ns_learnt: u64,
    notices: Vec<String>,
    series: Vec<Series>,
    /// What the sender's runtime measured of e_turn and e_wake, and what rests on it.
    sender: Vec<Measurement>,
}

#[derive(Debug, Serialize)]
struct Measurement {
    name: String,
    measured: String,
    rests_on: Option<String>,
}

#[derive(Debug, Serialize)]
struct Series {
    name: &'static str,
    what: &'static str,
    wakeup_latency_ns: Statistics,
    outlier_bound_ns: u64,
    outliers: u64,
    cycles_missed: u64,
    /// By size: the upper end of each class, and how many are below it and not below the one
    /// before; `null` is beyond all.
    distribution: Vec<(Option<u64>, u64)>,
    worst: Vec<Worst>,
}

/// `null`: the sample does not carry it.
#[derive(Debug, Serialize)]
struct Statistics {
    count: u64,
    min: Option<u64>,
    mean: Option<f64>,
    stddev: Option<f64>,
    #[serde(flatten)]
    quantiles: serde_json::Map<String, serde_json::Value>,
    max: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Worst {
    late_ns: u64,
    cycle: u64,
    planned_ns: u64,
    waited_ns: Option<u64>,
    involuntary_switches: u64,
    #[serde(flatten)]
    cause: Cause,
}

impl Report {
    /// Of what was measured.
    pub fn of(arguments: &Arguments, measured: &Measured, slots: Option<&Slots>) -> Report {
        let of_slots = slots.map(|slots| {
            let what = "messages in slots: from the start of the slot to the arrival";
            let mut series = Series::of("slots", what, &slots.metric, arguments.outlier(), &slots.record);
            for worst in &mut series.worst {
                worst.cause = slots.cause(worst.cycle, worst.cause.clone());
            }
            series
        });
        let series = |name, what, metric| Series::of(name, what, metric, arguments.outlier(), &measured.record);
        Report {
            core: measured.core,
            policy: if measured.is_fifo { "SCHED_FIFO" } else { "SCHED_OTHER" },
            priority: measured.is_fifo.then_some(arguments.priority),
            period_ns: arguments.period().0,
            seconds: arguments.seconds,
            margin_ns_learnt: measured.margin.0,
            notices: measured.notices.iter().chain(slots.iter().flat_map(|slots| &slots.notices)).cloned().collect(),
            series: vec![
                series("timer", "clock_nanosleep to an absolute instant", &measured.timer),
                series("task", "cyclic task: sleeps, then looks at the clock", &measured.task),
            ]
            .into_iter()
            .chain(of_slots)
            .collect(),
            sender: slots.map_or_else(Vec::new, |slots| {
                let row = |(name, told): &(String, insane_wire::status::MeasuredStatus)| Measurement {
                    name: name.clone(),
                    measured: crate::told::measured(told),
                    rests_on: crate::told::rests_on(told),
                };
                slots.measured.iter().map(row).collect()
            }),
        }
    }
}

impl Series {
    fn of(name: &'static str, what: &'static str, metric: &Metric, bound: Nanos, record: &Record) -> Series {
        let histogram = &metric.histogram;
        let quantiles =
            LEVELS.map(|(name, beyond)| (name.to_owned(), histogram.quantile(beyond).map(|at| at.0).into()));
        let worst = metric.worst().into_iter().map(|wake| {
            let around = record.around(wake.planned, wake.planned + wake.late);
            let late = Late { late: wake.late, waited: wake.own.waited };
            Worst {
                late_ns: wake.late.0,
                cycle: wake.cycle,
                planned_ns: wake.planned.0,
                waited_ns: wake.own.waited.map(|waited| waited.0),
                involuntary_switches: wake.own.switches,
                cause: Cause::of(late, record, around.as_ref()),
            }
        });
        Series {
            name,
            what,
            wakeup_latency_ns: Statistics {
                count: histogram.count(),
                min: histogram.min().map(|min| min.0),
                mean: metric.mean(),
                stddev: metric.stddev(),
                quantiles: quantiles.into_iter().collect(),
                max: histogram.max().map(|max| max.0),
            },
            outlier_bound_ns: bound.0,
            outliers: metric.outliers,
            cycles_missed: metric.missed,
            distribution: EDGES.into_iter().map(Some).chain([None]).zip(metric.classes).collect(),
            worst: worst.collect(),
        }
    }

    fn level(&self, name: &str) -> Option<Nanos> {
        self.wakeup_latency_ns.quantiles.get(name)?.as_u64().map(Nanos)
    }
}

/// For people.
pub fn text(report: &Report, colour: bool) -> String {
    let paint = |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let mut text = String::new();
    let priority = report.priority.map_or(String::new(), |priority| format!(" {priority}"));
    let _ = writeln!(
        text,
        "core {}, {}{priority}, a cycle of {}, {} s in turns",
        report.core,
        report.policy,
        Nanos(report.period_ns),
        report.seconds
    );
    for notice in &report.notices {
        let _ = writeln!(text, "{}  {notice}", paint("1;33", "notice"));
    }
    let _ = write!(
        text,
        "\n{}\n{}",
        paint("1", &table_row("wakeup latency", report, |series| series.name.to_owned())),
        rows(report)
    );
    for series in &report.series {
        let _ = writeln!(text, "\n{}  {}", paint("1", series.name), series.what);
        text += &bars(series, &paint);
        text += &worst(series, &paint);
    }
    for Measurement { name, measured, rests_on } in &report.sender {
        let _ = writeln!(text, "\n{name} of the sender's runtime\n  {measured}");
        if let Some(what) = rests_on {
            let _ = writeln!(text, "  {what}");
        }
    }
    let _ = writeln!(text, "\nA cell without a number: fewer than ten wake-ups lie beyond. Causes are likely ones,");
    let margin = Nanos(report.margin_ns_learnt);
    let _ = writeln!(text, "from counters; the task looks at the clock for the last {margin}. Bars are logarithmic.");
    text
}

fn table_row(label: &str, report: &Report, cell: impl Fn(&Series) -> String) -> String {
    let cells: String = report.series.iter().map(|series| format!("{:>16}", cell(series))).collect();
    format!("  {label:<22}{cells}")
}

fn rows(report: &Report) -> String {
    let time = |time: Option<Nanos>| time.map_or("-".to_owned(), |time| time.to_string());
    let float = |time: Option<f64>| time.map_or("-".to_owned(), |time| Nanos(time.round() as u64).to_string());
    let mut text = String::new();
    let mut row = |label: &str, cell: &dyn Fn(&Series) -> String| {
        let _ = writeln!(text, "{}", table_row(label, report, cell));
    };
    row("samples", &|series| series.wakeup_latency_ns.count.to_string());
    row("min", &|series| time(series.wakeup_latency_ns.min.map(Nanos)));
    row("mean", &|series| float(series.wakeup_latency_ns.mean));
    row("stddev", &|series| float(series.wakeup_latency_ns.stddev));
    for (name, _) in LEVELS {
        row(&name.replace('_', "."), &|series| time(series.level(name)));
    }
    row("max", &|series| time(series.wakeup_latency_ns.max.map(Nanos)));
    let bound = report.series.first().map_or(Nanos::ZERO, |series| Nanos(series.outlier_bound_ns));
    row(&format!("outliers > {bound}"), &|series| series.outliers.to_string());
    row("cycles missed", &|series| series.cycles_missed.to_string());
    text
}

/// Bars on a logarithmic scale: the rare ones are what one looks for.
fn bars(series: &Series, paint: &dyn Fn(&str, &str) -> String) -> String {
    let largest = series.distribution.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let width = |count: u64| ((1.0 + count as f64).ln() / (1.0 + largest as f64).ln() * BAR as f64).ceil() as usize;
    let mut text = String::new();
    for (below, count) in series.distribution.iter().filter(|(_, count)| *count > 0) {
        let is_beyond = below.is_none_or(|below| below > series.outlier_bound_ns);
        let tone = if is_beyond { "1;31" } else { "36" };
        let label = below.map_or(">= 1 s".to_owned(), |below| format!("< {}", round(below)));
        let bar = paint(tone, &"#".repeat(width(*count)));
        let blank = BAR - width(*count).min(BAR);
        let _ = writeln!(text, "  {label:<10}{bar}{:blank$} {count}", "");
    }
    text
}

/// A round number in its unit.
fn round(ns: u64) -> String {
    match ns {
        ns if ns < 1_000 => format!("{ns} ns"),
        ns if ns < 1_000_000 => format!("{} us", ns / 1_000),
        ns if ns < 1_000_000_000 => format!("{} ms", ns / 1_000_000),
        ns => format!("{} s", ns / 1_000_000_000),
    }
}

fn worst(series: &Series, paint: &dyn Fn(&str, &str) -> String) -> String {
    let mut text = String::new();
    for worst in &series.worst {
        let Cause { cause, detail } = &worst.cause;
        let tone = if *cause == "unexplained" { "33" } else { "0" };
        let detail =
            if detail.is_empty() { String::new() } else { format!(": {}", detail.replace("; ", ";\n             ")) };
        let at = MonoTime(worst.planned_ns);
        let seconds = format!("{}.{:06} s", at.0 / 1_000_000_000, at.0 % 1_000_000_000 / 1_000);
        let late = Nanos(worst.late_ns).to_string();
        let _ = writeln!(
            text,
            "  {late:>9}  at {seconds}, cycle {}\n             {}{detail}",
            worst.cycle,
            paint(tone, cause)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Since;
    use super::super::metric::Wake;
    use super::*;

    fn report(samples: u64) -> Report {
        let arguments = Arguments {
            seconds: 1,
            period_us: 1_000,
            core: None,
            priority: 80,
            margin_us: 200,
            outlier_us: 100,
            slots: None,
            json: false,
        };
        let series = |scale: u64| {
            let mut metric = Metric::new(arguments.outlier());
            for cycle in 0..samples {
                let own = Since { waited: Some(Nanos(scale * cycle)), switches: 0 };
                metric.record(Wake { cycle, planned: MonoTime(cycle * 1_000_000), late: Nanos(scale * cycle), own });
            }
            metric
        };
        let measured = Measured {
            core: 1,
            is_fifo: false,
            notices: vec!["runs without SCHED_FIFO".to_owned()],
            timer: series(200),
            task: series(1),
            margin: Nanos(50_000),
            record: Record::default(),
        };
        Report::of(&arguments, &measured, None)
    }

    #[test]
    fn the_text_fits_and_has_no_quantile_that_its_sample_does_not_carry() {
        let shown = text(&report(1_000), false);
        assert!(shown.lines().all(|line| line.chars().count() <= 90), "{shown}");
        for part in [
            "notice  runs without SCHED_FIFO",
            "Bars are logarithmic",
            "p99 ",
            "outliers > 100.0 us",
            "preempted: ready, and waited",
            "999",
        ] {
            assert!(shown.contains(part), "{part} in {shown}");
        }
        let line = shown.lines().find(|line| line.trim_start().starts_with("p99.9 ")).unwrap();
        assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["p99.9", "-", "-"]);
        assert!(!shown.contains('\x1b') && text(&report(10), true).contains('\x1b'));
    }

    #[test]
    fn the_json_names_what_isochron_names() {
        let value = serde_json::to_value(report(1_000)).unwrap();
        let latency = &value["series"][0]["wakeup_latency_ns"];
        assert_eq!((latency["count"].as_u64(), latency["max"].as_u64()), (Some(1_000), Some(199_800)));
        assert!(latency["p99"].is_u64() && latency["p99_9"].is_null() && latency["stddev"].is_f64());
        assert_eq!(value["series"][0]["worst"][0]["cause"], "preempted");
        assert_eq!(value["series"][0]["outliers"], 499);
    }

    #[test]
    fn nothing_measured_is_shown_as_nothing() {
        let shown = text(&report(0), false);
        assert!(shown.contains("samples"), "{shown}");
    }
}
