//! The bounds that the figures are held to: one RON file beside the table of
//! `docs/PERFORMANCE.md`.

use super::row::{Figures, Ratio, Row};
use serde::Deserialize;
use std::fmt::Write;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// All bounds.
    pub bounds: Vec<Bound>,
}

/// One promise about one row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Name of the row, exactly.
    pub row: String,
    /// Which figure.
    pub figure: Figure,
    /// Only rows of this distance; both when absent.
    #[serde(default)]
    pub floor: Option<Nearness>,
    /// Only rows whose topology starts with this word.
    #[serde(default)]
    pub topology: Option<String>,
    /// The figure is at most this.
    #[serde(default)]
    pub max: Option<f64>,
    /// The figure is at least this.
    #[serde(default)]
    pub min: Option<f64>,
    /// What the row needs that a run may lack; then a missing row is no failure.
    #[serde(default)]
    pub needs: Option<Need>,
}

/// A figure of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// `ratio.p50`.
    RatioP50,
    /// `ratio.p99`.
    RatioP99,
    /// `ratio.value`.
    RatioValue,
    /// `ours.value`.
    OursValue,
}

/// The distance of the cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nearness {
    /// Near.
    Near,
    /// Far.
    Far,
}

/// What a row needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// The build feature `peers`.
    Peers,
    /// The right to make network namespaces.
    Root,
    /// A tool that may be absent (valgrind, strace).
    Tool,
    /// The build feature `mutants`.
    Mutants,
}

/// What became of one bound.
#[derive(Clone, PartialEq, Debug)]
pub enum Verdict {
    /// Held, with the figure.
    Met(f64),
    /// Missed, with the figure.
    Missed(f64),
    /// The row or the figure is not there, for a reason that is allowed.
    NotMeasured,
    /// The row or the figure is not there and should be.
    Absent,
}

impl Bounds {
    /// Reads the file's text.
    ///
    /// # Errors
    /// What is wrong, with line and column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bounds: Bounds = ron::from_str(text).map_err(|error| format!("bounds: {error}"))?;
        for bound in &bounds.bounds {
            if bound.max.is_none() && bound.min.is_none() {
                return Err(format!("bounds: {} {:?} has neither max nor min", bound.row, bound.figure));
            }
        }
        Ok(bounds)
    }
}

impl Bound {
    /// Judges the bound by the rows of one run. A distance that never occurred in
    /// this run is not measured; a row that should be there is absent.
    #[must_use]
    pub fn judge(&self, rows: &[&Row]) -> Vec<(String, Verdict)> {
        let named: Vec<&&Row> = rows.iter().filter(|row| row.name == self.row && self.in_topology(row)).collect();
        if named.is_empty() {
            let verdict = if self.needs.is_some() { Verdict::NotMeasured } else { Verdict::Absent };
            return vec![(self.row.clone(), verdict)];
        }
        let judged: Vec<_> =
            named.into_iter().filter(|row| self.is_near_enough(row)).map(|row| self.judge_row(row)).collect();
        if judged.is_empty() { vec![(self.row.clone(), Verdict::NotMeasured)] } else { judged }
    }

    fn in_topology(&self, row: &Row) -> bool {
        self.topology.as_deref().is_none_or(|topology| row.topology.starts_with(topology))
    }

    fn is_near_enough(&self, row: &Row) -> bool {
        match self.floor {
            None => true,
            Some(Nearness::Near) => row.topology.ends_with(" near"),
            Some(Nearness::Far) => row.topology.ends_with(" far"),
        }
    }

    fn judge_row(&self, row: &Row) -> (String, Verdict) {
        let title = format!("{} ({})", row.name, row.topology);
        let verdict = match self.figure.of(row) {
            None => Verdict::Absent,
            Some(figure) if self.holds(figure) => Verdict::Met(figure),
            Some(figure) => Verdict::Missed(figure),
        };
        (title, verdict)
    }

    fn holds(&self, figure: f64) -> bool {
        self.max.is_none_or(|max| figure <= max) && self.min.is_none_or(|min| figure >= min)
    }

    /// `p50 <= 1.1`, as the last line prints it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.figure.name().to_owned();
        if let Some(min) = self.min {
            let _ = write!(text, " >= {min}");
        }
        if let Some(max) = self.max {
            let _ = write!(text, " <= {max}");
        }
        text
    }
}

impl Figure {
    fn name(self) -> &'static str {
        match self {
            Figure::RatioP50 => "p50 ratio",
            Figure::RatioP99 => "p99 ratio",
            Figure::RatioValue => "ratio",
            Figure::OursValue => "value",
        }
    }

    fn of(self, row: &Row) -> Option<f64> {
        match (self, row.ratio, row.ours) {
            (Figure::RatioP50, Ratio::Times { p50, .. }, _) => p50,
            (Figure::RatioP99, Ratio::Times { p99, .. }, _) => p99,
            (Figure::RatioValue, Ratio::Value { value }, _) => value,
            (Figure::OursValue, _, Figures::Value { value }) => Some(value),
            _ => None,
        }
    }
}

/// All verdicts of one run, ready to print.
pub struct Check {
    /// One line a bound and row.
    pub lines: Vec<String>,
    /// Everything on one line.
    pub summary: String,
    /// No bound was missed, and no row was absent that should be there.
    pub passed: bool,
}

/// Holds the rows to the bounds of the scenarios that ran.
#[must_use]
pub fn check(bounds: &Bounds, rows: &[&Row], ran: impl Fn(&str) -> bool) -> Check {
    let (mut met, mut missed, mut not_measured) = (0, 0, 0);
    let mut lines = Vec::new();
    let mut figures = Vec::new();
    let scenario = |row: &str| row.split('/').next().unwrap_or_default().to_owned();
    for bound in bounds.bounds.iter().filter(|bound| ran(&scenario(&bound.row))) {
        for (title, verdict) in bound.judge(rows) {
            let text = bound.text();
            let word = match verdict {
                Verdict::Met(figure) => {
                    met += 1;
                    format!("{figure:.3} met")
                }
                Verdict::Missed(figure) => {
                    missed += 1;
                    format!("{figure:.3} MISSED")
                }
                Verdict::NotMeasured => {
                    not_measured += 1;
                    "not measured".to_owned()
                }
                Verdict::Absent => {
                    missed += 1;
                    "ABSENT".to_owned()
                }
            };
            if verdict != Verdict::NotMeasured {
                figures.push(format!("{title} {text}: {word}"));
            }
            lines.push(format!("{title:<44} {text:<18} {word}"));
        }
    }
    let summary = format!("check: {met} met, {missed} missed, {not_measured} not measured; {}", figures.join("; "));
    Check { lines, summary, passed: missed == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, topology: &str, p50: Option<f64>) -> Row {
        let figures = Figures::Times { p50, p99: None, p999: None, max: None };
        Row {
            name: name.into(),
            unit: "us".into(),
            ours: figures,
            baseline: figures,
            ratio: Ratio::Times { p50, p99: None },
            n: 1,
            topology: topology.into(),
            floor_before_us: None,
            floor_after_us: None,
        }
    }

    fn bounds(text: &str) -> Bounds {
        Bounds::parse(text).unwrap()
    }

    const ONE: &str = r#"(bounds: [(row: "local/64B", figure: ratio_p50, max: Some(1.1))])"#;

    #[test]
    fn a_missed_bound_fails_and_its_figure_is_on_the_last_line() {
        let slow = row("local/64B", "T1 near", Some(1.2));
        let result = check(&bounds(ONE), &[&slow], |_| true);
        assert!(!result.passed);
        assert!(result.summary.contains("1.200 MISSED"), "{}", result.summary);
        let fast = row("local/64B", "T1 near", Some(1.0));
        assert!(check(&bounds(ONE), &[&fast], |_| true).passed);
    }

    #[test]
    fn a_row_that_should_be_there_fails_and_one_of_another_scenario_does_not() {
        assert!(!check(&bounds(ONE), &[], |_| true).passed);
        assert!(check(&bounds(ONE), &[], |scenario| scenario == "hop").passed);
        let no_figure = row("local/64B", "T1 near", None);
        assert!(!check(&bounds(ONE), &[&no_figure], |_| true).passed);
    }

    #[test]
    fn a_bound_for_near_cores_does_not_judge_far_ones() {
        let text =
            r#"(bounds: [(row: "a/b", figure: ratio_p50, floor: Some(near), max: Some(0.3), needs: Some(peers))])"#;
        let far = row("a/b", "T1 far", Some(0.35));
        let result = check(&bounds(text), &[&far], |_| true);
        assert!(result.passed);
        assert!(result.summary.contains("1 not measured"), "{}", result.summary);
        assert!(check(&bounds(text), &[], |_| true).passed, "the row needs the feature");
    }

    #[test]
    fn a_wrong_file_is_refused_with_a_place() {
        let error = Bounds::parse("(bounds: [(row: \"a\", figur: ratio_p50)])").unwrap_err();
        assert!(error.contains("1:"), "{error}");
        assert!(Bounds::parse(r#"(bounds: [(row: "a", figure: ratio_p50)])"#).is_err(), "neither max nor min");
    }

    #[test]
    fn the_file_of_this_crate_is_right() {
        let bounds = bounds(include_str!("../../bounds.ron"));
        assert!(!bounds.bounds.is_empty());
    }
}
