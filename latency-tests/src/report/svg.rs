//! Drawings as inline SVG: grouped bars on a logarithmic axis, and percentile
//! curves on the scale on which tails can be seen.

use super::quantity;
use crate::harness::rounds::Curve;
use crate::harness::sample::UNITS_PER_US;
use std::fmt::Write;

/// Colours of ours, the baseline, and what follows; styles name them, so that the
/// page decides how they look in light and dark.
const CLASSES: [&str; 2] = ["ours", "base"];

/// One bar: what it is, how much, whose.
pub struct Bar {
    /// Left of the bar.
    pub label: String,
    /// Length.
    pub value: f64,
    /// Zero is ours, one the baseline.
    pub side: usize,
}

const BAR_HEIGHT: f64 = 18.0;
const BAR_GAP: f64 = 4.0;
const BAR_LEFT: f64 = 150.0;
const BAR_WIDTH: f64 = 330.0;

/// Horizontal bars from zero, each with its value at its end.
#[must_use]
pub fn bars(bars: &[Bar], unit: &str) -> String {
    let largest = bars.iter().map(|bar| bar.value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
    let height = bars.len() as f64 * (BAR_HEIGHT + BAR_GAP) + BAR_GAP;
    let mut svg = format!(r#"<svg viewBox="0 0 580 {height}" role="img" class="bars">"#);
    for (at, bar) in bars.iter().enumerate() {
        let y = BAR_GAP + at as f64 * (BAR_HEIGHT + BAR_GAP);
        let width = (bar.value / largest * BAR_WIDTH).max(1.0);
        let (text_y, class) = (y + BAR_HEIGHT * 0.72, CLASSES[bar.side.min(1)]);
        let _ = write!(
            svg,
            r#"<text x="{}" y="{text_y}" class="label" text-anchor="end">{}</text><rect x="{BAR_LEFT}" y="{y}" width="{width:.1}" height="{BAR_HEIGHT}" rx="2" class="{class}"/><text x="{:.1}" y="{text_y}" class="value">{} {unit}</text>"#,
            BAR_LEFT - 8.0,
            escape(&bar.label),
            BAR_LEFT + width + 6.0,
            quantity(bar.value),
        );
    }
    svg + "</svg>"
}

const PLOT: Plot = Plot { left: 52.0, top: 10.0, width: 508.0, height: 170.0 };
/// Percentiles that the axis names.
const MARKS: [(f64, &str); 6] =
    [(0.0, "0"), (0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %")];
/// Points of one curve.
const POINTS: u32 = 160;

struct Plot {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

/// Where curves lie on the paper.
struct Scale {
    nines: f64,
    low: f64,
    high: f64,
}

impl Scale {
    fn x(&self, quantile: f64) -> f64 {
        PLOT.left + (-(1.0 - quantile).log10()).min(self.nines) / self.nines * PLOT.width
    }

    fn y(&self, us: f64) -> f64 {
        let share = (us.max(self.low).log10() - self.low.log10()) / (self.high.log10() - self.low.log10());
        PLOT.top + (1.0 - share) * PLOT.height
    }
}

/// Percentile curves: the time at each quantile, both axes logarithmic (the
/// horizontal one in the share beyond the quantile). Each curve ends where fewer
/// than ten samples lie beyond.
#[must_use]
pub fn percentiles(curves: &[Curve]) -> String {
    let shown: Vec<&Curve> = curves.iter().filter(|curve| curve.histogram.len() > 20).collect();
    let Some(samples) = shown.iter().map(|curve| curve.histogram.len()).max() else { return String::new() };
    let us = |units: u64| units as f64 / UNITS_PER_US;
    let last = |curve: &Curve| 1.0 - 10.0 / curve.histogram.len() as f64;
    let high = shown.iter().map(|curve| us(curve.histogram.value_at_quantile(last(curve)))).fold(0.0, f64::max);
    let low = shown.iter().map(|curve| us(curve.histogram.min().max(1))).fold(f64::MAX, f64::min);
    let scale = Scale { nines: (samples as f64 / 10.0).log10().max(1.0), low: low * 0.9, high: high * 1.15 };
    let mut svg = format!(r#"<svg viewBox="0 0 580 {}" role="img" class="curve">"#, PLOT.top + PLOT.height + 24.0);
    axes(&mut svg, &scale);
    for (side, curve) in shown.iter().enumerate().rev() {
        let end = -(1.0 - last(curve)).log10();
        let points: String = (0..=POINTS)
            .map(|point| {
                let quantile = 1.0 - 10_f64.powf(-end * f64::from(point) / f64::from(POINTS));
                let time = us(curve.histogram.value_at_quantile(quantile));
                format!("{:.1},{:.1} ", scale.x(quantile), scale.y(time))
            })
            .collect();
        let _ = write!(svg, r#"<polyline points="{points}" class="{}"/>"#, CLASSES[side.min(1)]);
    }
    svg + "</svg>"
}

fn axes(svg: &mut String, scale: &Scale) {
    let bottom = PLOT.top + PLOT.height;
    for (quantile, text) in MARKS.into_iter().filter(|(quantile, _)| -(1.0 - quantile).log10() <= scale.nines) {
        let x = scale.x(quantile);
        let _ = write!(
            svg,
            r#"<line x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{bottom}" class="grid"/><text x="{x:.1}" y="{}" class="tick" text-anchor="middle">{text}</text>"#,
            PLOT.top,
            bottom + 16.0,
        );
    }
    for us in ticks(scale.low, scale.high) {
        let y = scale.y(us);
        let _ = write!(
            svg,
            r#"<line x1="{}" x2="{}" y1="{y:.1}" y2="{y:.1}" class="grid"/><text x="{}" y="{:.1}" class="tick" text-anchor="end">{} us</text>"#,
            PLOT.left,
            PLOT.left + PLOT.width,
            PLOT.left - 6.0,
            y + 4.0,
            trimmed(us),
        );
    }
}

/// 1, 2 and 5 times the powers of ten between two values; where that would crowd
/// the axis, only the powers.
#[must_use]
pub fn ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (low.log10().floor() as i32)..=(high.log10().ceil() as i32);
    let steps: &[f64] = if high / low > 1_000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    decades
        .flat_map(|decade| steps.iter().map(move |step| step * 10_f64.powi(decade)))
        .filter(|tick| *tick >= low && *tick <= high)
        .collect()
}

/// A round number without needless digits.
#[must_use]
pub fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Text that stands safely in markup.
#[must_use]
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::sample::empty;

    #[test]
    fn ticks_lie_inside_and_do_not_crowd() {
        assert_eq!(ticks(0.15, 3.0), vec![0.2, 0.5, 1.0, 2.0]);
        assert_eq!(ticks(0.09, 200.0), vec![0.1, 1.0, 10.0, 100.0]);
        assert_eq!((trimmed(0.2), trimmed(10.0)), ("0.2".to_owned(), "10".to_owned()));
    }

    #[test]
    fn a_curve_stays_on_its_paper_and_names_are_escaped() {
        let mut histogram = empty();
        for us in 1..10_000_u64 {
            histogram.record(us * 10_000).unwrap();
        }
        let svg = percentiles(&[Curve { histogram }]);
        let points = svg.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        for point in points.split_whitespace() {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((PLOT.left..=PLOT.left + PLOT.width).contains(&x), "{point}");
            assert!((PLOT.top..=PLOT.top + PLOT.height).contains(&y), "{point}");
        }
        assert!(percentiles(&[]).is_empty());
        let svg = bars(&[Bar { label: "<a&b>".into(), value: 0.0, side: 0 }], "us");
        assert!(svg.contains("&lt;a&amp;b&gt;"));
    }
}
