//! A certificate as a picture: links over one cycle, or a part of it.
//!
//! A row a link; a bar a window of a stream, hatched what is blocked. Bounded: a picture of
//! more than [`BARS_MAX`] bars is refused, since nobody could read it.

use super::words::cycle_ns;
use insane_certificate::{Certificate, Window};
use insane_core::Nanos;
use std::fmt::Write as _;

/// Bars of a picture at most.
pub const BARS_MAX: u64 = 4_096;
const LEFT: f64 = 150.0;
const WIDTH: f64 = 1_000.0;
const ROW: f64 = 44.0;
const BAR: f64 = 30.0;
const TOP: f64 = 58.0;
const LEGEND_COLUMNS: usize = 3;
/// Bars of other streams are told apart; colours come again after these.
const COLOURS: [&str; 12] = [
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#dd8452", "#8172b3", "#937860", "#55a868",
    "#c44e52", "#7f7f7f",
];
const DARK: &str = "#222222";

/// The colour of letters on a bar of this colour, `#rrggbb`: the one of higher contrast, by the
/// relative luminance of WCAG 2.
fn letters_on(colour: &str) -> &'static str {
    let luminance = |colour: &str| -> f64 {
        let part = |at: usize| {
            let value = u8::from_str_radix(colour.get(at..at + 2).unwrap_or("00"), 16).unwrap_or_default();
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    };
    let contrast = |one: f64, other: f64| (one.max(other) + 0.05) / (one.min(other) + 0.05);
    let bar = luminance(colour);
    if contrast(bar, luminance(DARK)) > contrast(bar, 1.0) { DARK } else { "white" }
}

/// What is drawn of the cycle, nanoseconds from its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// First instant.
    pub from_ns: u64,
    /// How much.
    pub length_ns: u64,
}

impl View {
    /// The whole cycle, or what the user wants of it.
    pub fn of(certificate: &Certificate, from_ns: u64, length_ns: Option<u64>) -> Result<View, String> {
        let cycle = cycle_ns(&certificate.plant);
        let length_ns = length_ns.or(cycle).ok_or("the schedule has no cycle that can be counted: give --for-us")?;
        if length_ns == 0 || from_ns.checked_add(length_ns).is_none() {
            return Err("there is nothing to draw in no time".into());
        }
        if let Some(cycle) = cycle.filter(|cycle| from_ns >= *cycle) {
            let (from, cycle) = (exact(from_ns, 1), exact(cycle, 1));
            return Err(format!("{from} are beyond the cycle of {cycle}, which comes again as it is"));
        }
        let view = View { from_ns, length_ns };
        let bars: u128 = windows(certificate).map(|(_, _, window)| u128::from(view.count(window))).sum();
        if bars > u128::from(BARS_MAX) {
            return Err(format!(
                "{bars} bars in {} are too many to read (most are {BARS_MAX}): give a shorter --for-us",
                Nanos(length_ns)
            ));
        }
        Ok(view)
    }

    fn end_ns(self) -> u64 {
        self.from_ns + self.length_ns
    }

    /// At least as many times as a window is seen.
    fn count(self, window: &Window) -> u64 {
        self.length_ns / window.period_ns.max(1) + 2
    }

    /// When a window is seen: start and end, cut at the edges.
    fn seen(self, window: &Window) -> impl Iterator<Item = (u64, u64)> {
        let Window { offset_ns, length_ns, period_ns } = *window;
        let period_ns = period_ns.max(1);
        // One before the first, which may reach into the picture.
        let first = self.from_ns.saturating_sub(offset_ns) / period_ns;
        let first = first.saturating_sub(1);
        (first..=first + self.count(window)).filter_map(move |number| {
            let start = number.checked_mul(period_ns)?.checked_add(offset_ns)?;
            let (from, to) = (start.max(self.from_ns), start.checked_add(length_ns)?.min(self.end_ns()));
            (from < to).then_some((from, to))
        })
    }

    fn x(self, at_ns: u64) -> f64 {
        LEFT + (at_ns - self.from_ns) as f64 / self.length_ns as f64 * WIDTH
    }
}

/// All windows: link, stream (none: blocked).
fn windows(certificate: &Certificate) -> impl Iterator<Item = (usize, Option<usize>, &Window)> {
    let plant = &certificate.plant;
    let streams = plant.streams.iter().zip(&certificate.placed).enumerate();
    let of_streams = streams.flat_map(|(at, (stream, placed))| {
        stream.path.iter().zip(&placed.windows).map(move |(hop, window)| (hop.link, Some(at), window))
    });
    let links = plant.links.iter().enumerate();
    of_streams.chain(links.flat_map(|(at, link)| link.blocked.iter().map(move |window| (at, None, window))))
}

/// The picture, SVG.
pub fn svg(certificate: &Certificate, view: View) -> String {
    let plant = &certificate.plant;
    let rows = plant.links.len() as f64 * ROW;
    let legend = plant.streams.len().div_ceil(LEGEND_COLUMNS) as f64 * 20.0;
    let (width, height) = (LEFT + WIDTH + 30.0, TOP + rows + 50.0 + legend);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <defs><pattern id=\"blocked\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\"><rect width=\"6\" height=\"6\" fill=\"#eeeeee\"/><path d=\"M0,6 L6,0\" stroke=\"#999999\"/></pattern></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let cycle = cycle_ns(plant).map_or_else(String::new, |ns| format!(" of a cycle of {}", Nanos(ns)));
    let (from, to) = (Nanos(view.from_ns), Nanos(view.end_ns()));
    let _ =
        writeln!(text, "<text x=\"{LEFT}\" y=\"20\" font-size=\"15\">{from} to {to}{cycle}; hatched: blocked</text>");
    axis(&mut text, view, rows);
    for (at, link) in plant.links.iter().enumerate() {
        let y = TOP + at as f64 * ROW;
        let owner = link.host.and_then(|host| plant.hosts.get(host)).map_or("switch", |host| &host.name);
        let _ = writeln!(
            text,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{WIDTH}\" height=\"{BAR}\" fill=\"#f7f7f7\" stroke=\"#cccccc\"/>\
             <text x=\"8\" y=\"{:.1}\">{}</text><text x=\"8\" y=\"{:.1}\" fill=\"#777777\" font-size=\"10\">{}, {} Mbit/s</text>",
            y + 4.0,
            y + 18.0,
            escaped(&shortened(&link.name, 20)),
            y + 31.0,
            escaped(&shortened(owner, 14)),
            8_000_000 / u64::from(link.ps_per_byte.max(1)),
        );
    }
    for (link, stream, window) in windows(certificate) {
        bars(&mut text, certificate, view, (link, stream, window));
    }
    for (at, stream) in plant.streams.iter().enumerate() {
        let x = LEFT + (at % LEGEND_COLUMNS) as f64 * WIDTH / LEGEND_COLUMNS as f64;
        let y = TOP + rows + 40.0 + (at / LEGEND_COLUMNS) as f64 * 20.0;
        let said = format!("{}: {} B every {}", shortened(&stream.name, 24), stream.bytes, Nanos(stream.period_ns));
        let colour = COLOURS[at % COLOURS.len()];
        let _ = writeln!(
            text,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            y - 10.0,
            x + 18.0,
            escaped(&said),
        );
    }
    text.push_str("</svg>\n");
    text
}

fn bars(
    text: &mut String,
    certificate: &Certificate,
    view: View,
    (link, stream, window): (usize, Option<usize>, &Window),
) {
    let y = TOP + link as f64 * ROW + 4.0;
    let name = stream.map_or("blocked", |at| &certificate.plant.streams[at].name);
    let fill = stream.map_or("url(#blocked)", |at| COLOURS[at % COLOURS.len()]);
    for (from, to) in view.seen(window) {
        let (x, width) = (view.x(from), view.x(to) - view.x(from));
        let _ = write!(
            text,
            "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{:.2}\" height=\"{BAR}\" fill=\"{fill}\" stroke=\"white\" stroke-width=\"0.5\"><title>{}: {} to {}</title></rect>",
            width.max(1.0),
            escaped(name),
            Nanos(from),
            Nanos(to),
        );
        // About 7 pixels a letter.
        let letters = (width / 7.0) as usize;
        if stream.is_some() && letters >= name.chars().count() {
            let _ = write!(
                text,
                "<text x=\"{:.2}\" y=\"{:.1}\" fill=\"{}\" text-anchor=\"middle\" font-size=\"11\">{}</text>",
                x + width / 2.0,
                y + 19.0,
                letters_on(fill),
                escaped(name)
            );
        }
        text.push('\n');
    }
}

/// Between four and ten marks, at round instants.
fn axis(text: &mut String, view: View, rows: f64) {
    let step = mark_ns(view.length_ns);
    let mut at = view.from_ns.next_multiple_of(step);
    while at <= view.end_ns() {
        let x = view.x(at);
        let _ = writeln!(
            text,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#dddddd\"/><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555555\">{}</text>",
            TOP - 6.0,
            TOP + rows,
            TOP - 12.0,
            exact(at, step),
        );
        let Some(next) = at.checked_add(step) else { return };
        at = next;
    }
}

/// An instant of which multiples of `step_ns` are told apart: in the largest unit that the instant
/// has one of, with as many digits as the step has.
fn exact(at_ns: u64, step_ns: u64) -> String {
    let units = [("s", 9), ("ms", 6), ("us", 3), ("ns", 0)];
    let (unit, digits) = units.into_iter().find(|(_, digits)| at_ns >= 10_u64.pow(*digits)).unwrap_or(("ns", 0));
    let (whole, rest) = (at_ns / 10_u64.pow(digits), at_ns % 10_u64.pow(digits));
    let mut rest = format!("{rest:0width$}", width = digits as usize);
    let needed = (digits as usize).saturating_sub(step_ns.max(1).ilog10() as usize);
    while rest.len() > needed || (digits > 0 && rest.ends_with('0')) {
        rest.pop();
    }
    if digits == 0 || rest.is_empty() { format!("{whole} {unit}") } else { format!("{whole}.{rest} {unit}") }
}

/// The greatest 1, 2 or 5 times a power of ten of which the length has at least four.
fn mark_ns(length_ns: u64) -> u64 {
    let steps = (0..19).flat_map(|power| [1, 2, 5].map(|times| times * 10_u64.pow(power) as u128));
    steps.take_while(|step| step * 4 <= u128::from(length_ns)).last().unwrap_or(1) as u64
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_between_four_and_ten() {
        for length in [4, 7, 1_000, 4_000_000, 4_999_999, 8_000_000, 86_400_000_000_000] {
            let step = mark_ns(length);
            assert!((4..=10).contains(&(length / step)), "{length} {step}");
        }
        assert_eq!(mark_ns(1), 1);
    }

    #[test]
    fn marks_of_an_axis_are_told_apart_wherever_it_begins() {
        for (length, from) in [(5_000, 3_990_000), (4_000_000, 0), (20, 86_399_000_000_000), (7, 100_000_000)] {
            let step = mark_ns(length);
            let marks: Vec<String> = (0..4).map(|at| exact(from + at * step, step)).collect();
            assert!((1..4).all(|at| !marks[..at].contains(&marks[at])), "{marks:?}");
        }
        assert_eq!(exact(3_991_500, 500), "3.9915 ms");
        assert_eq!([exact(0, 500), exact(2_000_000, 500_000), exact(7, 1)], ["0 ns", "2 ms", "7 ns"]);
    }

    #[test]
    fn letters_are_dark_on_light_bars_and_light_on_dark_ones() {
        assert_eq!(["#ccbb44", "#66ccee"].map(letters_on), [DARK; 2]);
        assert_eq!(["#4477aa", "#228833", "#aa3377"].map(letters_on), ["white"; 3]);
    }

    #[test]
    fn a_window_is_seen_where_it_is_and_cut_at_the_edges() {
        let window = Window { offset_ns: 90, length_ns: 20, period_ns: 100 };
        let seen = |from_ns, length_ns| View { from_ns, length_ns }.seen(&window).collect::<Vec<_>>();
        assert_eq!(seen(0, 200), [(90, 110), (190, 200)]);
        assert_eq!(seen(100, 50), [(100, 110)]);
        assert_eq!(seen(110, 70), []);
        assert_eq!(seen(95, 5), [(95, 100)]);
    }
}
