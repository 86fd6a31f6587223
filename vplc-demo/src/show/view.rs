//! The live view: the carriage under its magnet, the numbers, and the control error
//! over time.

use super::canvas::{Canvas, Colour};
use super::picture::Picture;
use super::{millimetres, percent};
use crate::cause::Cause;
use crate::device::Phase;
use crate::percentiles::Quantiles;
use crate::plant::{GAP_MAX_M, GAP_MIN_M};
use crate::report::{DeviceReport, FlowReport};
use insane_core::Nanos;

/// Columns of the picture of the carriage.
const LEFT: usize = 26;
/// First row below the title.
const TOP: usize = 3;
/// Rows of the control error's graph.
const GRAPH: usize = 4;
/// Smallest terminal that is drawn on in full.
const SMALLEST: (usize, usize) = (60, 22);

/// What stands above the picture.
#[derive(Clone, Debug)]
pub struct Title {
    /// What is shown.
    pub headline: String,
    /// Which form it is.
    pub form: String,
    /// Seconds to run.
    pub seconds: u32,
}

/// Draws all of it.
#[must_use]
pub fn draw(picture: &Picture, title: &Title, (width, height): (usize, usize)) -> Canvas {
    let mut canvas = Canvas::new(width, height);
    let device = picture.device.clone().unwrap_or_default();
    head(&mut canvas, &device, title);
    if width < SMALLEST.0 || height < SMALLEST.1 {
        canvas.text(0, TOP, &summary(&device), Colour::Plain);
        let (columns, rows) = SMALLEST;
        canvas.text(0, TOP + 1, &format!("(the view needs {columns} columns and {rows} rows)"), Colour::Dim);
        return canvas;
    }
    let below = height - GRAPH - 2;
    carriage(&mut canvas, &device, below);
    numbers(&mut canvas, picture, &device);
    graph(&mut canvas, picture, below);
    canvas
}

fn summary(device: &DeviceReport) -> String {
    format!("{} cycles, {} misses", device.cycles, device.misses)
}

fn head(canvas: &mut Canvas, device: &DeviceReport, title: &Title) {
    canvas.text(0, 0, &title.headline, Colour::Bold);
    let right = format!("{:.1} of {} s   q: stop", device.cycles as f64 / 1e3, title.seconds);
    canvas.text(canvas.width().saturating_sub(right.len()), 0, &right, Colour::Plain);
    for (row, line) in (1..TOP).zip(lines(&title.form, canvas.width())) {
        canvas.text(0, row, line, Colour::Dim);
    }
}

/// Text in lines of at most so many columns; a word that is longer is a line of its own.
fn lines(text: &str, columns: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let fits = match rest.char_indices().nth(columns) {
            None => rest.len(),
            // A blank right behind the last column breaks the line as well as one before it.
            Some((end, c)) => {
                let words = &rest[..end + if c == ' ' { 1 } else { 0 }];
                words.rfind(' ').or_else(|| rest.find(' ')).unwrap_or(rest.len())
            }
        };
        let (line, after) = rest.split_at(fits);
        rest = after.trim_start();
        (!line.is_empty()).then_some(line)
    })
}

/// The magnet above, the carriage where it hovers, and a mark at the set point; to
/// scale, from the magnet to where the carriage counts as dropped.
fn carriage(canvas: &mut Canvas, device: &DeviceReport, below: usize) {
    canvas.text(0, TOP, &"▄".repeat(LEFT), Colour::Bold);
    canvas.text(0, TOP + 1, &format!("{:^LEFT$}", "magnet"), Colour::Dim);
    canvas.text(0, below - 1, &"▁".repeat(LEFT), Colour::Dim);
    let (first, last) = ((TOP + 1) * 4, below * 4 - 4);
    let row = |gap: f64| first + ((gap / GAP_MAX_M).clamp(0.0, 1.0) * (last - first) as f64) as usize;
    let set_point = row(device.set_point);
    for x in (0..LEFT * 2).filter(|x| x % 6 < 3) {
        canvas.dot(x, set_point, Colour::Dim);
    }
    let colour = match device.phase {
        Phase::Settling => Colour::Yellow,
        _ if device.down => Colour::Red,
        Phase::Leading | Phase::Running => Colour::Green,
    };
    let gap = if device.down { fallen_to(device.gap) } else { device.gap };
    for x in LEFT / 2..LEFT * 3 / 2 {
        for y in 0..4 {
            canvas.dot(x, row(gap) + y, colour);
        }
    }
    let word = match device.phase {
        Phase::Settling => "held by its clamp",
        _ if device.down => "DOWN",
        Phase::Leading | Phase::Running => "hovering",
    };
    canvas.text(0, below, &format!("{word:^LEFT$}"), colour);
}

/// A carriage that is down lies below, or sticks to the magnet.
fn fallen_to(gap: f64) -> f64 {
    if gap <= GAP_MIN_M { 0.0 } else { GAP_MAX_M }
}

fn numbers(canvas: &mut Canvas, picture: &Picture, device: &DeviceReport) {
    let mut at = TOP;
    let mut line = |text: String, colour: Colour| {
        canvas.text(LEFT + 3, at, &text, colour);
        at += 1;
    };
    line(format!("cycles   {:>8}", device.cycles), Colour::Plain);
    let bad = if device.misses > 0 { Colour::Yellow } else { Colour::Plain };
    line(format!("misses   {:>8}   {}", device.misses, percent(device.misses, device.cycles)), bad);
    line(causes(device), Colour::Dim);
    line(format!("{:<21}{:>9}{:>9}{:>10}", "times in us", "p50", "p99", "max"), Colour::Dim);
    line(times("round trip", &device.round_trip), Colour::Plain);
    line(times("wake-up, device", &device.wake), Colour::Plain);
    let controller = picture.controller.clone().unwrap_or_default();
    line(times("wake-up, controller", &controller.wake), Colour::Plain);
    line(String::new(), Colour::Plain);
    let rms = device.error_rms.map_or("-".into(), millimetres);
    line(format!("control error  {rms} RMS, {} max", millimetres(device.error_max)), Colour::Cyan);
    if device.falls > 0 {
        line(format!("the carriage came down: {}", device.falls), Colour::Red);
    }
    for (flow, (sent, received)) in &picture.flows {
        let (rate, fate) = flow_lines(sent.as_ref(), received.as_ref());
        line(format!("{:<11}{rate}", flow.name()), Colour::Plain);
        line(format!("{:<11}{fate}", ""), Colour::Dim);
    }
    if let Some(note) = picture.notes.last() {
        line(format!("note: {note}"), Colour::Dim);
    }
}

/// How fast a flow goes, and what became of its messages.
fn flow_lines(sent: Option<&FlowReport>, received: Option<&FlowReport>) -> (String, String) {
    let Some(received) = received.filter(|received| received.messages > 0) else {
        return ("nothing arrived yet".into(), String::new());
    };
    let rates = received
        .rates()
        .map_or(String::new(), |(messages, megabytes)| format!("{megabytes:.2} MB/s, {messages:.1} a second"));
    let sent = sent.map_or(0, |sent| sent.messages).max(received.messages);
    (rates, format!("{} of {sent}, {} lost, {} damaged", received.messages, received.lost, received.damaged))
}

fn causes(device: &DeviceReport) -> String {
    let known = Cause::ALL.iter().filter(|cause| device.causes.of(**cause) > 0);
    let known: Vec<String> = known.map(|cause| format!("{} {}", cause.name(), device.causes.of(*cause))).collect();
    if known.is_empty() { String::new() } else { known.join(", ") }
}

fn times(name: &str, quantiles: &Quantiles) -> String {
    let micros = |time: Option<Nanos>| time.map_or("-".into(), |time| format!("{:.1}", time.0 as f64 / 1e3));
    let [p50, p99, max] = [quantiles.level("p50"), quantiles.level("p99"), quantiles.max].map(micros);
    format!("{name:<21}{p50:>9}{p99:>9}{max:>10}")
}

/// Largest control error of each 50 ms: bars of eighths of a row, the newest on the right.
fn graph(canvas: &mut Canvas, picture: &Picture, below: usize) {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let shown = picture.trace.len().min(canvas.width());
    let newest = picture.trace.iter().skip(picture.trace.len() - shown);
    let scale = scale(newest.clone().copied().fold(0.0, f64::max));
    let label = format!("control error, largest of each 50 ms; full height {} mm", scale * 1e3);
    canvas.text(0, below + 1, &label, Colour::Dim);
    let first = canvas.width() - shown;
    for (x, error) in (first..).zip(newest) {
        let eighths = ((error / scale).min(1.0) * (GRAPH * 8) as f64).ceil() as usize;
        let colour = if *error > 1e-3 { Colour::Red } else { Colour::Cyan };
        for row in 0..GRAPH {
            let filled = eighths.saturating_sub(row * 8).min(8);
            canvas.text(x, below + 1 + GRAPH - row, EIGHTHS[filled].encode_utf8(&mut [0; 4]), colour);
        }
    }
}

/// The graph's full height, metres: the next of a few round numbers.
fn scale(largest: f64) -> f64 {
    const ROUND: [f64; 6] = [0.25e-3, 0.5e-3, 1e-3, 2e-3, 5e-3, 10e-3];
    ROUND.into_iter().find(|round| largest <= *round).unwrap_or(10e-3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;

    fn drawn(change: impl FnOnce(&mut DeviceReport), size: (usize, usize)) -> String {
        let mut device = DeviceReport {
            phase: Phase::Running,
            cycles: 4_200,
            gap: 0.006,
            set_point: 0.006,
            error_trace: vec![1e-4, 2e-4, 3e-4],
            ..DeviceReport::default()
        };
        change(&mut device);
        let mut picture = Picture::default();
        picture.take(Report::Device(Box::new(device)));
        draw(&picture, &Title { headline: "x".into(), form: "a form".into(), seconds: 10 }, size).plain()
    }

    #[test]
    fn it_says_how_far_it_is_and_how_the_carriage_does() {
        let text = drawn(|_| {}, (100, 30));
        assert!(text.contains("4.2 of 10 s") && text.contains("hovering") && text.contains("a form"), "{text}");
        assert!(drawn(|d| d.down = true, (100, 30)).contains("DOWN"));
        assert!(drawn(|d| d.phase = Phase::Settling, (100, 30)).contains("clamp"));
    }

    #[test]
    fn a_long_form_goes_on_in_the_next_line_and_a_small_terminal_is_told_what_is_needed() {
        let form = "two network namespaces at a switch of 100 Mbit/s, two insaned over udp, every part a process";
        let title = Title { headline: "x".into(), form: form.into(), seconds: 10 };
        let text = draw(&Picture::default(), &title, (80, 24)).plain();
        let said: Vec<&str> = text.lines().skip(1).take(2).map(str::trim_end).collect();
        assert_eq!(said.join(" "), form, "{text}");
        assert_eq!(lines("ab cd", 2).collect::<Vec<_>>(), ["ab", "cd"]);
        assert_eq!(lines("abcd e", 2).collect::<Vec<_>>(), ["abcd", "e"]);
        let small = drawn(|_| {}, (60, 20));
        assert!(small.contains("needs 60 columns and 22 rows"), "{small}");
    }

    #[test]
    fn the_carriage_is_drawn_lower_where_it_hovers_lower() {
        let row = |gap: f64| {
            let text = drawn(|d| d.gap = gap, (100, 40));
            text.lines()
                .position(|line| line.chars().nth(LEFT / 2).is_some_and(|c| c == '\u{28ff}' || c == '⣶' || c == '⣤'))
                .unwrap()
        };
        assert!(row(0.003) < row(0.006) && row(0.006) < row(0.010));
    }

    #[test]
    fn any_size_of_terminal_is_survived() {
        for width in [0, 1, 20, 59, 60, 80, 300] {
            for height in [0, 1, 5, 21, 22, 24, 100] {
                let text = drawn(|d| d.down = true, (width, height));
                assert!(text.lines().all(|line| line.chars().count() <= width));
            }
        }
    }

    #[test]
    fn numbers_fit_a_usual_terminal() {
        use crate::percentiles::Times;
        use crate::report::Flow;
        let mut times = Times::new();
        (0..2_000).for_each(|_| times.add(Nanos::from_millis(1_234)));
        let device = DeviceReport { round_trip: times.quantiles(), ..DeviceReport::default() };
        let mut picture = Picture::default();
        picture.take(Report::Device(Box::new(device)));
        let flow = FlowReport { messages: 9_999_999, lost: 1_000, ..FlowReport::new(Flow::Telemetry, true) };
        picture.take(Report::Flow(flow));
        let text =
            draw(&picture, &Title { headline: "x".into(), form: "a form".into(), seconds: 10 }, (80, 24)).plain();
        let row = text.lines().find(|line| line.contains("round trip")).unwrap();
        let max: f64 = row.split_whitespace().last().unwrap().parse().unwrap();
        assert!((max / 1_234_000.0 - 1.0).abs() < 1e-3, "{row}");
        assert!(text.contains("9999999 of 9999999, 1000 lost, 0 damaged"), "{text}");
    }

    #[test]
    fn bars_grow_with_the_error() {
        let text = drawn(|_| {}, (100, 30));
        let last = text.lines().last().unwrap();
        assert_eq!(last.chars().count(), 100);
        assert!(text.contains("full height 0.5 mm"), "{text}");
    }
}
