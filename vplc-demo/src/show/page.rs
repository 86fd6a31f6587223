//! The three runs as a page that needs nothing else: the carriage's path of each as SVG,
//! and the table.

use super::compare::{Comparison, PATH_S, Run, about_slots, rows};
use std::fmt::Write;

/// Of a picture, in its own units.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 170.0;
/// Room for the axis on the left, and for its words below.
const LEFT: f64 = 44.0;
const BELOW: f64 = 22.0;
/// Gaps from the upper edge to the lower, millimetres; what is beyond is cut.
const TOP_MM: f64 = 3.0;
const BOTTOM_MM: f64 = 9.0;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; \
color: #1c2430; background: #fff }
h1 { font-size: 1.4em } h2 { font-size: 1.05em; margin: 1.4em 0 .2em }
table { border-collapse: collapse; margin: 1.5em 0 } td, th { padding: .2em .9em; text-align: right; \
border-bottom: 1px solid #dde2ea; white-space: pre } td:first-child, th:first-child { text-align: left; padding-left: 0 }
svg { width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: #556 }
.frame { fill: #f7f9fc; stroke: #ccd3dd } .grid { stroke: #e3e8ef } .down { fill: #f6c9c4 }
.wanted { fill: none; stroke: #8a94a3; stroke-dasharray: 5 4 } .path { fill: none; stroke: #0b5cad; stroke-width: 1.4 }
.verdict { font-weight: 600 }
";

/// The page.
#[must_use]
pub fn render(comparison: &Comparison, form: &str, summary: &str) -> String {
    let mut page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>insane-rt: one plant, three runs</title><style>{STYLE}</style></head><body>\n\
         <h1>One plant, three runs</h1>\n<p class=\"verdict\">{}</p>\n\
         <p>A carriage hovers under a magnet; a controller on another host closes the loop every millisecond, over \
         {}. Plant, tasks and pushes are the same in all runs; only load and quality of service differ. \
         Drawn is the gap below the magnet (blue) and where it should be (dashed), every 5 ms, \
         from the instant at which best effort begins; red: the carriage is down.</p>\n",
        escaped(summary),
        escaped(form)
    );
    for run in &comparison.runs {
        let _ = write!(page, "<h2>{}</h2>\n{}\n", escaped(run.name), picture(run));
    }
    page.push_str("<table><tr><th></th>");
    comparison.runs.iter().for_each(|run| page.push_str(&format!("<th>{}</th>", escaped(run.name))));
    page.push_str("</tr>\n");
    for (name, cells) in rows(comparison) {
        let cells: String = cells.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        let _ = writeln!(page, "<tr><td>{}</td>{cells}</tr>", escaped(&name));
    }
    page.push_str("</table>\n<ul>\n");
    about_slots(comparison).iter().for_each(|line| page.push_str(&format!("<li>{}</li>\n", escaped(line.trim()))));
    page + "</ul>\n</body></html>\n"
}

fn picture(run: &Run) -> String {
    let path = &run.picture.path;
    let seconds = path.len() as f64 * PATH_S;
    let x = |at: usize| LEFT + (WIDTH - LEFT) * at as f64 / path.len().max(1) as f64;
    let y = |gap: f64| HEIGHT * ((gap * 1e3 - TOP_MM) / (BOTTOM_MM - TOP_MM)).clamp(0.0, 1.0);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=\"img\" aria-label=\"gap over time, {}\">\
         <rect class=\"frame\" x=\"{LEFT}\" y=\"0\" width=\"{}\" height=\"{HEIGHT}\"/>",
        HEIGHT + BELOW,
        escaped(run.name),
        WIDTH - LEFT
    );
    for stretch in downs(path) {
        let (from, to) = (x(stretch.start), x(stretch.end));
        let _ = write!(
            svg,
            "<rect class=\"down\" x=\"{from:.1}\" y=\"0\" width=\"{:.1}\" height=\"{HEIGHT}\"/>",
            to - from
        );
    }
    for mm in (TOP_MM as u32 + 1)..(BOTTOM_MM as u32) {
        let at = y(f64::from(mm) * 1e-3);
        let _ = write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>");
        let _ = write!(svg, "<text x=\"4\" y=\"{:.1}\">{mm} mm</text>", at + 4.0);
    }
    for second in 0..=seconds as u32 {
        let at = LEFT + (WIDTH - LEFT) * f64::from(second) / seconds.max(PATH_S);
        let anchor = if at > WIDTH - 20.0 { "end" } else { "start" };
        let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{second} s</text>", HEIGHT + 16.0);
    }
    let wanted: Vec<String> =
        path.iter().enumerate().map(|(at, (_, wanted))| format!("{:.1},{:.1}", x(at), y(*wanted))).collect();
    let _ = write!(svg, "<polyline class=\"wanted\" points=\"{}\"/>", wanted.join(" "));
    // One line for each stretch in which it hovers.
    let places: Vec<_> = path.iter().enumerate().collect();
    for stretch in places.split(|(_, (gap, _))| gap.is_none()).filter(|stretch| !stretch.is_empty()) {
        let points = stretch.iter().filter_map(|(at, (gap, _))| Some(format!("{:.1},{:.1}", x(*at), y((*gap)?))));
        let _ = write!(svg, "<polyline class=\"path\" points=\"{}\"/>", points.collect::<Vec<_>>().join(" "));
    }
    svg + "</svg>"
}

/// Where the carriage is down.
fn downs(path: &[(Option<f64>, f64)]) -> Vec<std::ops::Range<usize>> {
    let mut downs: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in path.iter().enumerate().filter(|(_, (gap, _))| gap.is_none()) {
        match downs.last_mut() {
            Some(last) if last.end == at => last.end = at + 1,
            _ => downs.push(at..at + 1),
        }
    }
    downs
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_a_picture_of_each_run_the_table_and_the_verdict() {
        let comparison = super::super::compare::tests::compared([1e-4, 1e-4, 9e-4], [0, 0, 1]);
        let page = render(&comparison, "a <form>", "shown: \"so\"");
        assert_eq!(page.matches("<svg ").count(), 3);
        assert_eq!(page.matches("class=\"down\"").count(), 1, "only the last came down, once");
        assert!(page.contains("a &lt;form&gt;") && page.contains("shown: &quot;so&quot;"), "{page}");
        assert!(page.contains("DOWN after 2.00 s") && page.contains("class statistical"));
    }

    #[test]
    fn what_is_down_is_told_in_stretches() {
        let path = [(None, 0.0), (Some(1.0), 0.0), (None, 0.0), (None, 0.0)];
        assert_eq!(downs(&path), [0..1, 2..4]);
        assert!(downs(&[]).is_empty());
    }
}
