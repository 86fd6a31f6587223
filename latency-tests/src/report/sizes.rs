//! The two plots of scenario `sweep`: every plugin over the sizes of a message, ours drawn
//! through and the bare technology dashed.

use super::page::main_figure;
use super::quantity;
use super::row::Row;
use super::svg::{escape, ticks, trimmed};
use std::fmt::Write;

const LEFT: f64 = 58.0;
const TOP: f64 = 10.0;
const WIDTH: f64 = 390.0;
const HEIGHT: f64 = 250.0;
const KEY_LEFT: f64 = LEFT + WIDTH + 16.0;
const KEY_HEIGHT: f64 = 20.0;
/// Colours that the page has.
const COLOURS: usize = 6;

/// One plugin's points: size, bytes; ours; bare.
struct Plugin<'r> {
    name: &'r str,
    points: Vec<(f64, f64, f64)>,
}

/// The rows of a kind (`latency`, `throughput`), by plugin, sizes rising. Where a size was met
/// with near and far cores, that with more samples stands for both.
fn plugins<'r>(rows: &[&'r Row], kind: &str) -> Vec<Plugin<'r>> {
    let mut plugins: Vec<Plugin<'r>> = Vec::new();
    let mut most: Vec<(&str, u64)> = Vec::new();
    for row in rows {
        let Some((name, size)) = of_sweep(&row.name, kind) else { continue };
        let (Some(ours), Some(bare)) = (main_figure(row.ours), main_figure(row.baseline)) else { continue };
        if ours <= 0.0 || bare <= 0.0 {
            continue;
        }
        let at = plugins.iter().position(|plugin| plugin.name == name).unwrap_or_else(|| {
            plugins.push(Plugin { name, points: Vec::new() });
            plugins.len() - 1
        });
        let points = &mut plugins[at].points;
        match points.iter_mut().find(|point| point.0 == size) {
            None => points.push((size, ours, bare)),
            Some(point) if most.iter().all(|(of, n)| *of != row.name || *n < row.n) => *point = (size, ours, bare),
            Some(_) => {}
        }
        most.push((&row.name, row.n));
    }
    plugins.iter_mut().for_each(|plugin| plugin.points.sort_by(|one, other| one.0.total_cmp(&other.0)));
    plugins
}

/// Plugin and size of a row of a kind.
fn of_sweep<'n>(name: &'n str, kind: &str) -> Option<(&'n str, f64)> {
    let (plugin, size) = name.strip_prefix("sweep/")?.strip_prefix(kind)?.strip_prefix('/')?.split_once('/')?;
    Some((plugin, size.strip_suffix('B')?.parse().ok()?))
}

/// Where points lie on the paper: both axes logarithmic.
struct Scale {
    sizes: (f64, f64),
    values: (f64, f64),
}

impl Scale {
    fn of(plugins: &[Plugin<'_>]) -> Option<Self> {
        let all = || plugins.iter().flat_map(|plugin| &plugin.points);
        let bounds = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
        };
        all().next()?;
        let sizes = bounds(&mut all().map(|point| point.0));
        let values = bounds(&mut all().flat_map(|point| [point.1, point.2]));
        Some(Scale { sizes, values: (values.0 * 0.85, values.1 * 1.15) })
    }

    fn at(&self, size: f64, value: f64) -> (f64, f64) {
        let share = |(low, high): (f64, f64), value: f64| {
            if high > low { (value / low).ln() / (high / low).ln() } else { 0.5 }
        };
        (LEFT + share(self.sizes, size) * WIDTH, TOP + (1.0 - share(self.values, value)) * HEIGHT)
    }
}

/// The plot of a kind; empty where it has no rows.
#[must_use]
pub fn plot(rows: &[&Row], kind: &str, title: &str, unit: &str) -> String {
    let plugins = plugins(rows, kind);
    let Some(scale) = Scale::of(&plugins) else { return String::new() };
    let (bottom, height) = (TOP + HEIGHT, TOP + HEIGHT + 24.0);
    let mut svg = format!(
        r#"<section class="card"><h3>{}</h3><svg viewBox="0 0 580 {height}" role="img" class="curve">"#,
        escape(title)
    );
    for value in ticks(scale.values.0, scale.values.1) {
        let (_, y) = scale.at(scale.sizes.0, value);
        let (right, text_x, text_y) = (LEFT + WIDTH, LEFT - 6.0, y + 4.0);
        let text = if value < 1_000.0 { trimmed(value) } else { quantity(value) };
        let _ = write!(
            svg,
            r#"<line x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}" class="grid"/><text x="{text_x}" y="{text_y:.1}" class="tick" text-anchor="end">{text}{unit}</text>"#,
        );
    }
    let mut sizes: Vec<f64> = plugins.iter().flat_map(|plugin| &plugin.points).map(|point| point.0).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    for size in sizes {
        let (x, _) = scale.at(size, scale.values.0);
        let text_y = bottom + 16.0;
        let _ = write!(
            svg,
            r#"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}" class="grid"/><text x="{x:.1}" y="{text_y}" class="tick" text-anchor="middle">{size} B</text>"#,
        );
    }
    for (at, plugin) in plugins.iter().enumerate() {
        let colour = at % COLOURS;
        for (is_bare, class) in [(true, " dashed"), (false, "")] {
            let points: Vec<String> = plugin
                .points
                .iter()
                .map(|(size, ours, bare)| scale.at(*size, if is_bare { *bare } else { *ours }))
                .map(|(x, y)| format!("{x:.1},{y:.1}"))
                .collect();
            let _ = write!(svg, r#"<polyline points="{}" class="key{colour}{class}"/>"#, points.join(" "));
            if !is_bare {
                for point in points {
                    let _ = write!(svg, r#"<polyline points="{point} {point}" class="key{colour} point"/>"#);
                }
            }
        }
        key(&mut svg, at, plugin.name, &format!("key{colour}"));
    }
    key(&mut svg, plugins.len() + 1, "insane-rt", "key-line");
    key(&mut svg, plugins.len() + 2, "bare", "key-line dashed");
    svg + "</svg></section>"
}

/// One line of what the lines mean.
fn key(svg: &mut String, at: usize, text: &str, class: &str) {
    let y = TOP + 8.0 + at as f64 * KEY_HEIGHT;
    let (text_x, text_y) = (KEY_LEFT + 32.0, y + 4.0);
    let end = KEY_LEFT + 24.0;
    let _ = write!(
        svg,
        r#"<polyline points="{KEY_LEFT},{y} {end},{y}" class="{class}"/><text x="{text_x}" y="{text_y}" class="label">{}</text>"#,
        escape(text)
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::row::{Figures, Ratio};

    fn row(name: &str, ours: f64, n: u64) -> Row {
        Row {
            name: name.into(),
            unit: "us".into(),
            ours: Figures::Value { value: ours },
            baseline: Figures::Value { value: 2.0 },
            ratio: Ratio::Value { value: None },
            n,
            topology: String::new(),
            floor_before_us: None,
            floor_after_us: None,
        }
    }

    #[test]
    fn every_plugin_has_a_line_of_its_sizes_in_order() {
        let rows = [
            row("sweep/latency/udp/1024B", 4.0, 5),
            row("sweep/latency/udp/64B", 3.0, 5),
            // Near and far.
            row("sweep/latency/udp/64B", 9.0, 7),
            row("sweep/latency/udp/64B", 8.0, 6),
            row("sweep/latency/tcp/64B", 5.0, 5),
            row("sweep/throughput/udp/64B", 100.0, 5),
            row("network/veth/64B/inline", 1.0, 5),
        ];
        let rows: Vec<&Row> = rows.iter().collect();
        let found = plugins(&rows, "latency");
        assert_eq!(found.iter().map(|plugin| plugin.name).collect::<Vec<_>>(), ["udp", "tcp"]);
        assert_eq!(found[0].points, [(64.0, 9.0, 2.0), (1024.0, 4.0, 2.0)]);
        let svg = plot(&rows, "latency", "<Round trips>", " us");
        assert!(svg.contains("&lt;Round trips&gt;") && svg.contains(">udp<") && svg.contains("1024 B"));
        for point in svg.split("points=\"").skip(1).flat_map(|text| text.split('"').next().unwrap().split(' ')) {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((0.0..=580.0).contains(&x) && (TOP..=TOP + HEIGHT).contains(&y), "{point}");
        }
    }

    #[test]
    fn without_rows_there_is_no_plot() {
        assert!(plot(&[], "latency", "", "").is_empty());
        assert!(plot(&[&row("local/64B", 1.0, 1)], "latency", "", "").is_empty());
    }
}
