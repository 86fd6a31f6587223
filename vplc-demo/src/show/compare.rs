//! The three runs side by side, and what they show.
//!
//! The rule: it is **shown** if, under load and with slots, the control error (root of the
//! mean square) stays within [`WITHIN`] times that of the unloaded run and the carriage
//! never comes down, and if, under the same load with everything best effort, it visibly
//! fails: the carriage comes down, or the control error is at least [`VISIBLE`] times that
//! of the unloaded run. The carriage must have stayed up in the unloaded run, with at most
//! [`STALE_MAX_PERCENT`] of its cycles stale, or there is nothing to compare with.

use super::picture::Picture;
use super::verdict::{Demand, Judgement, broken};
use super::{micros, millimetres, percent};
use crate::cause::Cause;
use crate::course::{AROUND_BYTES, Course, DATAGRAM_BYTES, PORT_MBPS, SAMPLES};
use crate::report::{DeviceReport, Flow};
use crate::stage::slots::{Basis, Slots};
use insane_core::Nanos;
use insane_wire::data::HEADER_BYTES;
use serde::Serialize;

/// Largest control error with slots under load, as a multiple of the unloaded one.
pub const WITHIN: f64 = 1.10;
/// From this multiple on a loop whose carriage still hovers has failed visibly.
pub const VISIBLE: f64 = 3.0;
/// Stale cycles of the unloaded run, of a hundred, up to which it is something to compare
/// with: a machine that shares its processors with others loses one or so.
pub const STALE_MAX_PERCENT: u64 = 3;

/// Columns of the table: names, and each run.
const NAMES: usize = 20;
const COLUMN: usize = 20;
/// Characters of a picture of the control error.
const STRIP: usize = 52;
/// Its full height, metres.
const STRIP_M: f64 = 1e-3;
/// Time between two places of the path, seconds.
pub const PATH_S: f64 = 5e-3;

/// One run that has ended.
#[derive(Debug, Serialize)]
pub struct Run {
    /// What it was.
    pub name: &'static str,
    /// Its best effort.
    #[serde(skip)]
    flows: &'static [Flow],
    /// All that was reported.
    #[serde(flatten)]
    pub picture: Picture,
    /// Slots of process data; none where it was best effort.
    pub slots: Vec<Slots>,
}

impl Run {
    fn device(&self) -> DeviceReport {
        self.picture.device.clone().unwrap_or_default()
    }

    /// Seconds after which the carriage first was down; `None`: it never was.
    #[must_use]
    pub fn fell_after(&self) -> Option<f64> {
        let at = self.picture.path.iter().position(|(gap, _)| gap.is_none())?;
        Some(at as f64 * PATH_S)
    }

    /// What best effort took of the port: payload, and what is around each frame.
    fn best_effort_share(&self) -> Option<f64> {
        let payload = DATAGRAM_BYTES - HEADER_BYTES;
        let bytes_per_s = |flow: &Flow| {
            let received = self.picture.flows.get(flow)?.1.as_ref()?;
            let (messages, megabytes) = received.rates()?;
            let frames = received.bytes.div_ceil(received.messages.max(1)).div_ceil(payload as u64);
            Some(megabytes * 1e6 + messages * (frames * (HEADER_BYTES + AROUND_BYTES) as u64) as f64)
        };
        let sum: f64 = self.flows.iter().filter_map(bytes_per_s).sum();
        (sum > 0.0).then(|| sum * 8.0 / (f64::from(PORT_MBPS) * 1e6))
    }

    /// What neither best effort, which always had something to send, nor process data
    /// used of the port: guards, and windows longer than their message.
    fn guard_share(&self) -> Option<f64> {
        let samples = self.slots.iter().find(|slots| slots.stream == SAMPLES && slots.period_ns > 0)?;
        let message_ns = f64::from(samples.bytes) * 8.0 * 1e3 / f64::from(PORT_MBPS);
        Some((1.0 - self.best_effort_share()? - message_ns / samples.period_ns as f64).max(0.0))
    }
}

/// The runs, in the order of the courses: unloaded, with slots, best effort.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Those that ended, or the last began.
    pub runs: Vec<Run>,
    #[serde(skip)]
    smoke: bool,
    #[serde(skip)]
    interrupted: bool,
}

impl Comparison {
    /// None yet. `smoke`: only whether they work is asked.
    #[must_use]
    pub fn new(smoke: bool) -> Self {
        Comparison { runs: Vec::new(), smoke, interrupted: false }
    }

    /// Takes a run that has ended.
    pub fn add(&mut self, course: &Course, picture: Picture, slots: Vec<Slots>, interrupted: bool) {
        self.interrupted |= interrupted;
        self.runs.push(Run { name: course.name, flows: course.flows, picture, slots });
    }

    /// Whether another run is of no use.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.interrupted || self.broken().is_some()
    }

    fn broken(&self) -> Option<String> {
        self.runs.iter().find_map(|run| {
            let demand = Demand { smoke: self.smoke, flows: run.flows, interrupted: self.interrupted };
            broken(&run.picture, demand).map(|reason| format!("{}: {reason}", run.name))
        })
    }

    /// Control error of a run as a multiple of that of the unloaded one. `None` where one of them
    /// was not measured, or the carriage came down unloaded: there is nothing to compare with.
    #[must_use]
    pub fn ratio(&self, run: &Run) -> Option<f64> {
        let alone = self.runs.first()?.device();
        let error = alone.error_rms.filter(|error| alone.falls == 0 && *error > 0.0)?;
        Some(run.device().error_rms? / error)
    }

    /// Judges the runs; with the summary in one line.
    #[must_use]
    pub fn judge(&self) -> (Judgement, String) {
        if self.interrupted {
            return (Judgement::Interrupted, format!("interrupted: {} runs were begun", self.runs.len()));
        }
        if let Some(reason) = self.broken() {
            return (Judgement::Broken, format!("broken: {reason}"));
        }
        let [alone, slots, best_effort] = self.runs.as_slice() else {
            return (Judgement::Broken, "broken: a run is missing".into());
        };
        let ratios = (self.ratio(slots).unwrap_or(f64::INFINITY), self.ratio(best_effort).unwrap_or(f64::INFINITY));
        let fell = |run: &Run| run.device().falls > 0;
        let fate = if fell(best_effort) { "it came down".into() } else { format!("{:.2} of it", ratios.1) };
        let facts = match self.ratio(slots) {
            Some(ratio) => format!("in slots {ratio:.2} of the unloaded error; best effort: {fate}"),
            None => "the unloaded run is nothing to compare with".into(),
        };
        if self.smoke {
            return (Judgement::Works, format!("works: {facts}"));
        }
        let objection = if fell(alone) {
            Some("the carriage came down even unloaded: this machine is too busy".into())
        } else if alone.device().misses * 100 > alone.device().cycles * STALE_MAX_PERCENT {
            let stale = percent(alone.device().misses, alone.device().cycles);
            Some(format!("{stale} of cycles stale even unloaded: this machine is too busy"))
        } else if fell(slots) {
            Some("the carriage came down although it had slots".into())
        } else if ratios.0 > WITHIN {
            Some(format!("in slots {:.2} of the unloaded error, more than {WITHIN:.2}", ratios.0))
        } else if !fell(best_effort) && ratios.1 < VISIBLE {
            Some(format!("best effort held: {:.2} of the unloaded error", ratios.1))
        } else {
            None
        };
        match objection {
            None => (Judgement::Shown, format!("shown: {facts}")),
            Some(objection) => (Judgement::NotShown, format!("not shown: {objection}")),
        }
    }
}

/// A row of the table: its name, and a cell for each run.
pub type Row = (String, Vec<String>);

/// The table's rows.
#[must_use]
pub fn rows(comparison: &Comparison) -> Vec<Row> {
    let runs = &comparison.runs;
    let mut rows = Vec::new();
    let mut row = |name: &str, cell: &dyn Fn(&Run) -> String| rows.push((name.into(), runs.iter().map(cell).collect()));
    row("control error, RMS", &|run| run.device().error_rms.map_or("-".into(), millimetres));
    row("  of the unloaded", &|run| comparison.ratio(run).map_or("-".into(), |ratio| format!("{ratio:.2}")));
    row("control error, max", &|run| {
        run.device().error_rms.map_or("-".into(), |_| millimetres(run.device().error_max))
    });
    row("carriage", &|run| match run.fell_after() {
        _ if run.device().cycles == 0 => "-".into(),
        _ if run.device().falls == 0 => "hovered".into(),
        Some(after) => format!("DOWN after {after:.2} s"),
        None => "DOWN".into(),
    });
    row("cycles", &|run| run.device().cycles.to_string());
    row("stale cycles", &|run| {
        let device = run.device();
        format!("{} ({})", device.misses, percent(device.misses, device.cycles))
    });
    for cause in Cause::ALL {
        if runs.iter().any(|run| run.device().causes.of(cause) > 0) {
            row(&format!("  {}", cause.name()), &|run| run.device().causes.of(cause).to_string());
        }
    }
    row("round trip, p50", &|run| micros(run.device().round_trip.level("p50")));
    row("round trip, p99", &|run| micros(run.device().round_trip.level("p99")));
    let mut flows: Vec<Flow> = runs.iter().flat_map(|run| run.flows).copied().collect();
    flows.sort_unstable();
    flows.dedup();
    for flow in flows {
        row(flow.name(), &|run| rate(run, flow));
    }
    row("slots since start", &|run| match run.slots.as_slice() {
        [] => "none".into(),
        slots => slots.iter().map(|slots| slots.used).sum::<u64>().to_string(),
    });
    row("  late", &|run| match run.slots.as_slice() {
        [] => "-".into(),
        slots => slots.iter().flat_map(|slots| &slots.late).map(|(_, count)| count).sum::<u64>().to_string(),
    });
    let share = |share: Option<f64>| share.map_or("-".into(), |share| format!("{:.1} %", share * 100.0));
    row("best effort's share", &|run| share(run.best_effort_share()));
    row("guards' share", &|run| share(run.guard_share()));
    rows
}

fn rate(run: &Run, flow: Flow) -> String {
    let received = run.picture.flows.get(&flow).and_then(|(_, received)| received.as_ref());
    match received.and_then(|received| received.rates()) {
        _ if !run.flows.contains(&flow) || run.device().cycles == 0 => "-".into(),
        Some((messages, _)) if flow == Flow::Telemetry => format!("{messages:.0} /s"),
        Some((_, megabytes)) => format!("{megabytes:.2} MB/s"),
        None => "nothing arrived".into(),
    }
}

/// What is to be said of the slots, in lines.
#[must_use]
pub fn about_slots(comparison: &Comparison) -> Vec<String> {
    let Some(run) = comparison.runs.iter().rfind(|run| !run.slots.is_empty()) else { return Vec::new() };
    let mut lines = vec!["slots, and late ones, are counted since the runtimes started: longer than cycles".into()];
    for slots in &run.slots {
        let (start, length, period) = (Nanos(slots.start_ns), Nanos(slots.length_ns), Nanos(slots.period_ns));
        let class = slots.basis.as_ref().map_or("not told", |basis| basis.class);
        lines.push(format!("{}: class {class}; {length} at {start} of every {period}", slots.stream));
    }
    lines.extend(run.slots.first().and_then(|slots| slots.basis.as_ref()).into_iter().flat_map(on_what));
    for slots in &run.slots {
        lines.extend(counted(&format!("  late, {}:", slots.stream), &slots.late));
        lines.extend(counted(&format!("  assumed and not held, {}:", slots.stream), &slots.violated));
    }
    lines
}

/// Counts below their name, the runtime's words for them after ours; no line where there are none.
fn counted(name: &str, counts: &[(String, u64)]) -> Vec<String> {
    if counts.is_empty() {
        return Vec::new();
    }
    let line = |(what, count): &(String, u64)| match plainly(what) {
        Some(words) => format!("    {count:>6}  {words} ({what})"),
        None => format!("    {count:>6}  {what}"),
    };
    std::iter::once(name.to_owned()).chain(counts.iter().map(line)).collect()
}

/// What a counter of the runtime, or an assumption of a certificate, is about.
fn plainly(name: &str) -> Option<&'static str> {
    Some(match name {
        "late_application" => "the message came after its slot",
        "late_ring_full" => "the link took nothing",
        "late_wake" => "the datapath woke too late",
        "late_turn" => "the datapath took too long, or was not run",
        "late_unturned" => "nobody turned the datapath",
        "late_link_busy" => "the link was busy",
        "late_unexplained" => "no cause is known",
        "e_turn" => "a message in a slot took longer to hand over",
        "e_chunk" => "best effort took longer to hand over",
        "e_wake" => "the datapath woke later",
        "clock" => "the clock was off by more",
        "link" => "the link held more",
        "release" => "a message came later",
        "size" => "a message was larger",
        _ => return None,
    })
}

/// What the classes rest on.
fn on_what(basis: &Basis) -> [String; 3] {
    let (quantile, longest) = (Nanos(basis.turn_quantile_ns), Nanos(basis.turn_max_ns));
    let known = match basis.turn_samples {
        0 => "as configured".into(),
        samples => format!("{samples} samples"),
    };
    [
        format!("  e_turn is how long it takes to hand a message over ({known}):"),
        format!("    class statistical rests on its quantile, {quantile},"),
        format!("    class assured on the longest, {longest}"),
    ]
}

/// Renders the table, the control error over time, and what is to be said of slots; for a
/// terminal of 80 columns.
#[must_use]
pub fn render(comparison: &Comparison) -> String {
    let mut lines = Vec::new();
    let line = |name: &str, cells: &[String]| {
        let cells: String = cells.iter().map(|cell| format!("{cell:>COLUMN$}")).collect();
        format!("{name:<NAMES$}{cells}").trim_end().to_owned()
    };
    let names: Vec<String> = comparison.runs.iter().map(|run| run.name.to_owned()).collect();
    lines.push(line("", &names));
    lines.extend(rows(comparison).iter().map(|(name, cells)| line(name, cells)));
    lines.push(String::new());
    lines.push(format!("control error over time (full height {}, x: down)", millimetres(STRIP_M)));
    lines.extend(comparison.runs.iter().map(|run| format!("{:<NAMES$} {}", run.name, strip(&run.picture.path))));
    lines.push(String::new());
    lines.extend(about_slots(comparison));
    for run in &comparison.runs {
        lines.extend(run.picture.failure.iter().map(|failure| format!("failure: {}: {failure}", run.name)));
        lines.extend(run.picture.notes.iter().map(|note| format!("note: {}: {note}", run.name)));
    }
    lines.join("\n") + "\n"
}

/// The largest control error of each stretch as a bar.
fn strip(path: &[(Option<f64>, f64)]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let stretch = |n: usize| &path[path.len() * n / STRIP..path.len() * (n + 1) / STRIP];
    let bar = |places: &[(Option<f64>, f64)]| {
        if places.is_empty() {
            return ' ';
        }
        let error = |(gap, set_point): &(Option<f64>, f64)| gap.map(|gap| (gap - set_point).abs());
        let largest = places.iter().map(error).try_fold(0.0_f64, |largest, error| Some(largest.max(error?)));
        largest.map_or('x', |largest| BARS[((largest / STRIP_M * 8.0) as usize).min(7)])
    };
    (0..STRIP).map(|n| bar(stretch(n))).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::course::COMPARED;
    use crate::device::Phase;
    use crate::report::{ControllerReport, FlowReport, Report};

    fn picture(course: &Course, rms: f64, falls: u32) -> Picture {
        let path = (0..800).map(|n| ((falls == 0 || n < 400).then_some(0.006 + rms), 0.006)).collect();
        let device = DeviceReport {
            phase: Phase::Running,
            cycles: 4_000,
            misses: 4,
            commands: 4_000,
            error_rms: Some(rms),
            error_max: rms * 3.0,
            falls,
            path,
            ..DeviceReport::default()
        };
        let mut picture = Picture::default();
        picture.take(Report::Device(Box::new(device)));
        picture.take(Report::Controller(ControllerReport { samples: 9, ..ControllerReport::default() }));
        for flow in course.flows {
            let flow = FlowReport { messages: 5, bytes: 5 << 16, span_ns: 1 << 30, ..FlowReport::new(*flow, true) };
            picture.take(Report::Flow(flow));
        }
        picture.take(Report::Finished);
        picture
    }

    fn slots() -> Slots {
        Slots {
            stream: "plant/samples".into(),
            basis: Some(Basis {
                class: "statistical",
                turn_quantile_ns: 100_000,
                turn_max_ns: 120_000,
                turn_samples: 0,
            }),
            start_ns: 550_000,
            length_ns: 116_000,
            period_ns: 1_000_000,
            bytes: 200,
            clock: "local clock".into(),
            used: 4_000,
            late: vec![("late_wake".into(), 3), ("late_turn".into(), 999_999), ("late_application".into(), 999_999)],
            violated: vec![("e_turn".into(), 2)],
        }
    }

    /// Three runs with these errors and falls.
    pub fn compared(errors: [f64; 3], falls: [u32; 3]) -> Comparison {
        let mut comparison = Comparison::new(false);
        for (at, course) in COMPARED.iter().enumerate() {
            let slots = if at < 2 { vec![slots()] } else { Vec::new() };
            comparison.add(course, picture(course, errors[at], falls[at]), slots, false);
        }
        comparison
    }

    #[test]
    fn the_rule() {
        let judged = |errors, falls| compared(errors, falls).judge().0;
        assert_eq!(judged([1e-4, 1.09e-4, 3.01e-4], [0; 3]), Judgement::Shown);
        assert_eq!(judged([1e-4, 1.11e-4, 3e-4], [0; 3]), Judgement::NotShown);
        assert_eq!(judged([1e-4, 0.9e-4, 2.9e-4], [0; 3]), Judgement::NotShown);
        assert_eq!(judged([1e-4, 1e-4, 1e-4], [0, 0, 1]), Judgement::Shown);
        assert_eq!(judged([1e-4, 1e-4, 9e-4], [0, 1, 1]), Judgement::NotShown);
        assert_eq!(judged([1e-4, 1e-4, 9e-4], [1, 0, 1]), Judgement::NotShown);
        let mut stale = compared([1e-4, 1e-4, 9e-4], [0, 0, 1]);
        stale.runs[0].picture.device.as_mut().unwrap().misses = 120;
        assert_eq!(stale.judge().0, Judgement::Shown);
        stale.runs[0].picture.device.as_mut().unwrap().misses = 121;
        let (judgement, line) = stale.judge();
        assert!(judgement == Judgement::NotShown && line.contains("3.02 % of cycles stale"), "{line}");
    }

    #[test]
    fn what_is_broken_or_interrupted_is_not_judged() {
        let mut comparison = Comparison::new(false);
        comparison.add(&COMPARED[0], Picture::default(), Vec::new(), false);
        assert!(comparison.is_over());
        let (judgement, line) = comparison.judge();
        assert_eq!((judgement, line.as_str()), (Judgement::Broken, "broken: unloaded: the plant was never released"));
        comparison.interrupted = true;
        assert_eq!(comparison.judge().0, Judgement::Interrupted);
        let mut smoke = compared([1e-4, 9e-4, 1e-4], [0; 3]);
        smoke.smoke = true;
        assert_eq!(smoke.judge().0, Judgement::Works);
        smoke.runs.pop();
        assert_eq!(smoke.judge().0, Judgement::Broken);
    }

    #[test]
    fn the_table_fits_a_usual_terminal_and_names_class_guard_and_causes() {
        let text = render(&compared([1e-4, 1.05e-4, 9e-4], [0, 0, 1]));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for part in [
            "1.05",
            "DOWN after 2.00 s",
            "4.3 %",
            "94.1 %",
            "class statistical",
            "the longest, 120.0 us",
            "(as configured)",
            "3  the datapath woke too late (late_wake)",
            "2  a message in a slot took longer to hand over (e_turn)",
            "slots since start",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_was_not_measured_or_has_nothing_to_be_compared_with_is_a_dash() {
        let cells = |comparison: &Comparison, name: &str| {
            rows(comparison).into_iter().find(|(row, _)| row == name).map(|(_, cells)| cells).unwrap()
        };
        let fell = compared([9e-4, 1e-4, 9e-4], [1, 0, 1]);
        assert_eq!(cells(&fell, "  of the unloaded"), ["-", "-", "-"]);
        let smoke = Comparison { smoke: true, ..fell };
        assert_eq!(smoke.judge().1, "works: the unloaded run is nothing to compare with");
        let mut ended = compared([1e-4, 1e-4, 9e-4], [0; 3]);
        let device = ended.runs[1].picture.device.as_mut().unwrap();
        (device.cycles, device.error_rms) = (0, None);
        ended.runs[1].picture.flows.clear();
        for name in ["carriage", "backup", "  of the unloaded"] {
            assert_eq!(cells(&ended, name)[1], "-", "{name}");
        }
        assert_eq!(cells(&ended, "carriage")[0], "hovered");
    }

    #[test]
    fn a_strip_shows_the_largest_error_and_where_it_was_down() {
        let mut path = vec![(Some(0.006), 0.006); 100];
        path[50] = (Some(0.0066), 0.006);
        path.extend([(None, 0.006); 4]);
        let strip = strip(&path);
        assert_eq!(strip.chars().count(), STRIP);
        assert!(strip.starts_with('▁') && strip.contains('▅') && strip.ends_with('x'), "{strip}");
        assert_eq!(super::strip(&[]).trim(), "");
    }
}
