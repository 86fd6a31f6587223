//! Interleaved rounds. A round runs every side once, one after the other, with a
//! probe of the floor between them; figures are medians over rounds, and ratios
//! are taken inside a round, where both sides met the same machine.
//!
//! A round in which the floor moved is repeated whole, at most
//! [`ATTEMPTS_PER_ROUND`] times as often as rounds were wanted.

use super::fault::Fault;
use super::floor::{Distance, Floor, probe};
use super::sample::{Quantiles, Sample, empty, median, quantiles};
use super::{Bench, floor};
use crate::report::row::{Figures, Ratio, Row};
use hdrhistogram::Histogram;

/// Bound of the repetition.
const ATTEMPTS_PER_ROUND: u32 = 3;

/// One side of a comparison.
pub struct Side<'a> {
    /// What it is, for the report.
    pub label: String,
    /// Measures one cell.
    pub cell: Box<dyn FnMut() -> Result<Sample, Fault> + 'a>,
}

impl<'a> Side<'a> {
    /// A side called `label`.
    pub fn new(label: impl Into<String>, cell: impl FnMut() -> Result<Sample, Fault> + 'a) -> Self {
        Side { label: label.into(), cell: Box::new(cell) }
    }
}

/// One cell that counts.
pub struct Cell {
    sample: Sample,
    before: Floor,
    after: Floor,
}

/// All rounds of one comparison that count.
pub struct Rounds {
    labels: Vec<String>,
    /// Each holds one cell a side, in the sides' order.
    rounds: Vec<Vec<Cell>>,
    /// Cells dropped because the floor moved during them.
    pub dropped: u32,
}

/// Runs the sides in interleaved rounds.
///
/// # Errors
/// A side failed (its label stands before the reason), or no round was steady.
pub fn interleave(bench: &Bench, sides: &mut [Side<'_>]) -> Result<Rounds, Fault> {
    let wanted = if bench.effort.smoke { 1 } else { bench.effort.rounds };
    let labels = sides.iter().map(|side| side.label.clone()).collect();
    let mut done = Rounds { labels, rounds: Vec::new(), dropped: 0 };
    for _ in 0..wanted * ATTEMPTS_PER_ROUND {
        if done.rounds.len() == wanted as usize {
            break;
        }
        if let Some(round) = attempt(bench, sides, &mut done.dropped)? {
            done.rounds.push(round);
        }
    }
    if done.rounds.is_empty() { Err(Fault::Unsteady { dropped: done.dropped }) } else { Ok(done) }
}

/// One round; `None` when the floor moved.
fn attempt(bench: &Bench, sides: &mut [Side<'_>], dropped: &mut u32) -> Result<Option<Vec<Cell>>, Fault> {
    let mut round = Vec::with_capacity(sides.len());
    let mut before = probe(bench.cores, bench.rate)?;
    for side in sides {
        let sample = (side.cell)().map_err(|fault| match fault {
            Fault::Unavailable(_) => fault,
            other => Fault::Party(format!("{}: {other}", side.label)),
        })?;
        let after = probe(bench.cores, bench.rate)?;
        if before.moved(after) && !bench.effort.smoke {
            *dropped += 1;
            return Ok(None);
        }
        round.push(Cell { sample, before, after });
        before = after;
    }
    Ok(Some(round))
}

/// How a comparison appears in the report.
#[derive(Clone, Debug)]
pub struct Heading {
    /// `scenario/what/size`.
    pub name: String,
    /// Unit of the figures.
    pub unit: &'static str,
    /// Who runs where.
    pub topology: String,
}

/// The merged distribution of one side, for the report's curves.
pub struct Curve {
    /// All its times in the rounds that count, tenths of a nanosecond.
    pub histogram: Histogram<u64>,
}

/// One comparison as the report shows it: its rows share one set of curves.
pub struct Table {
    /// The row, of one distance.
    pub row: Row,
    /// Label of ours and of the baseline.
    pub labels: [String; 2],
    /// Their distributions; empty for rows of single values.
    pub curves: Vec<Curve>,
}

impl Rounds {
    /// Compares side `ours` with side `baseline`: one table for near rounds, one
    /// for far rounds, whichever there are.
    #[must_use]
    pub fn tables(&self, heading: &Heading, ours: usize, baseline: usize) -> Vec<Table> {
        let of = |distance| self.rounds.iter().filter(move |round| round[0].before.distance() == distance);
        [Distance::Near, Distance::Far]
            .into_iter()
            .filter_map(|distance| {
                let rounds: Vec<&Vec<Cell>> = of(distance).collect();
                (!rounds.is_empty()).then(|| self.table(heading, distance, &rounds, [ours, baseline]))
            })
            .collect()
    }

    fn table(&self, heading: &Heading, distance: floor::Distance, rounds: &[&Vec<Cell>], sides: [usize; 2]) -> Table {
        let cells = |side: usize| rounds.iter().map(move |round| &round[side]);
        let [ours, baseline] = sides;
        let row = Row {
            name: heading.name.clone(),
            unit: heading.unit.to_owned(),
            ours: figures(cells(ours)),
            baseline: figures(cells(baseline)),
            ratio: ratio(cells(ours).zip(cells(baseline))),
            n: cells(ours).map(|cell| cell.sample.n()).sum(),
            topology: format!("{} {}", heading.topology, distance.name()),
            floor_before_us: median(cells(ours).map(|cell| cell.before.one_way_us)),
            floor_after_us: median(cells(ours).map(|cell| cell.after.one_way_us)),
        };
        let curves = sides.into_iter().filter_map(|side| curve(cells(side))).collect();
        Table { row, labels: sides.map(|side| self.labels[side].clone()), curves }
    }
}

impl Rounds {
    /// How much a quantile of side `ours` is above `share` times that of `baseline`, in the
    /// unit of the times: the median over rounds, both placements together, and the same of
    /// the baseline itself. `None` where too few samples stand behind it.
    #[must_use]
    pub fn excess(&self, sides: [usize; 2], read: fn(Quantiles) -> Option<f64>, share: f64) -> Option<(f64, f64)> {
        let of = |round: &Vec<Cell>, side: usize| times(&round[side].sample).and_then(read);
        let pairs = self.rounds.iter().filter_map(|round| Some((of(round, sides[0])?, of(round, sides[1])?)));
        let pairs: Vec<(f64, f64)> = pairs.collect();
        Some((median(pairs.iter().map(|(ours, base)| ours - share * base))?, median(pairs.iter().map(|pair| pair.1))?))
    }

    /// Samples of one side in all rounds.
    #[must_use]
    pub fn samples(&self, side: usize) -> u64 {
        self.rounds.iter().map(|round| round[side].sample.n()).sum()
    }
}

/// Compares times, microseconds, that were not taken in rounds of their own.
#[must_use]
pub fn table(name: &str, topology: &str, labels: [&str; 2], sides: [&Histogram<u64>; 2]) -> Table {
    let [ours, baseline] = sides.map(quantiles);
    let figures = |of: Quantiles| Figures::Times { p50: of.p50, p99: of.p99, p999: of.p999, max: of.max };
    let row = Row {
        name: name.to_owned(),
        unit: "us".to_owned(),
        ours: figures(ours),
        baseline: figures(baseline),
        ratio: Ratio::Times { p50: share(ours.p50, baseline.p50), p99: share(ours.p99, baseline.p99) },
        n: sides[0].len(),
        topology: topology.to_owned(),
        floor_before_us: None,
        floor_after_us: None,
    };
    let curves = sides.into_iter().map(|side| Curve { histogram: side.clone() }).collect();
    Table { row, labels: labels.map(str::to_owned), curves }
}

/// The merged times of some cells; `None` for cells of single values.
fn curve<'c>(cells: impl Iterator<Item = &'c Cell>) -> Option<Curve> {
    let mut histogram = empty();
    for cell in cells {
        match &cell.sample {
            Sample::Times(times) => histogram.add(times).expect("all histograms have one shape"),
            Sample::Value { .. } => return None,
        }
    }
    Some(Curve { histogram })
}

fn figures<'c>(cells: impl Iterator<Item = &'c Cell>) -> Figures {
    let cells: Vec<&Cell> = cells.collect();
    let values: Vec<f64> = cells.iter().filter_map(|cell| value(&cell.sample)).collect();
    if !values.is_empty() {
        return Figures::Value { value: median(values).unwrap_or(0.0) };
    }
    let quantiles: Vec<Quantiles> = cells.iter().filter_map(|cell| times(&cell.sample)).collect();
    let over = |read: fn(&Quantiles) -> Option<f64>| median(quantiles.iter().filter_map(read));
    Figures::Times { p50: over(|q| q.p50), p99: over(|q| q.p99), p999: over(|q| q.p999), max: over(|q| q.max) }
}

fn ratio<'c>(pairs: impl Iterator<Item = (&'c Cell, &'c Cell)>) -> Ratio {
    let pairs: Vec<_> = pairs.collect();
    let values = |(ours, baseline): &(&Cell, &Cell)| share(value(&ours.sample), value(&baseline.sample));
    if pairs.iter().any(|(ours, _)| value(&ours.sample).is_some()) {
        return Ratio::Value { value: median(pairs.iter().filter_map(values)) };
    }
    let over = |read: fn(Quantiles) -> Option<f64>| {
        median(pairs.iter().filter_map(|(ours, baseline)| {
            share(times(&ours.sample).and_then(read), times(&baseline.sample).and_then(read))
        }))
    };
    Ratio::Times { p50: over(|q| q.p50), p99: over(|q| q.p99) }
}

fn value(sample: &Sample) -> Option<f64> {
    match sample {
        Sample::Value { value, .. } => Some(*value),
        Sample::Times(_) => None,
    }
}

fn times(sample: &Sample) -> Option<Quantiles> {
    match sample {
        Sample::Times(histogram) => Some(quantiles(histogram)),
        Sample::Value { .. } => None,
    }
}

/// `None` where a figure is missing or the baseline is zero.
fn share(ours: Option<f64>, baseline: Option<f64>) -> Option<f64> {
    let (ours, baseline) = (ours?, baseline?);
    (baseline > 0.0).then_some(ours / baseline)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(floor_us: f64, value: f64) -> Cell {
        let floor = Floor { one_way_us: floor_us };
        Cell { sample: Sample::Value { value, n: 10 }, before: floor, after: floor }
    }

    fn timed(us: &[f64]) -> Cell {
        let mut histogram = empty();
        for time in us {
            histogram.record_n((time * super::super::sample::UNITS_PER_US) as u64, 1_000).unwrap();
        }
        let floor = Floor { one_way_us: 0.06 };
        Cell { sample: Sample::Times(histogram), before: floor, after: floor }
    }

    fn heading() -> Heading {
        Heading { name: "x/y".into(), unit: "us", topology: "T1".into() }
    }

    fn rounds(rounds: Vec<Vec<Cell>>) -> Rounds {
        Rounds { labels: vec!["ours".into(), "raw".into()], rounds, dropped: 0 }
    }

    #[test]
    fn near_and_far_are_reported_apart_and_the_ratio_is_taken_inside_a_round() {
        let measured = rounds(vec![
            vec![cell(0.06, 10.0), cell(0.06, 5.0)],
            vec![cell(0.06, 30.0), cell(0.06, 10.0)],
            vec![cell(0.06, 40.0), cell(0.06, 10.0)],
            vec![cell(0.24, 7.0), cell(0.24, 7.0)],
        ]);
        let tables = measured.tables(&heading(), 0, 1);
        assert_eq!(tables.len(), 2);
        let near = &tables[0].row;
        assert_eq!(near.topology, "T1 near");
        assert_eq!(near.n, 30);
        assert_eq!(near.ours, Figures::Value { value: 30.0 });
        assert_eq!(near.baseline, Figures::Value { value: 10.0 });
        assert_eq!(near.ratio, Ratio::Value { value: Some(3.0) });
        assert_eq!(tables[1].row.topology, "T1 far");
        assert_eq!(tables[1].row.ratio, Ratio::Value { value: Some(1.0) });
    }

    #[test]
    fn what_is_above_a_share_of_the_baseline_is_taken_inside_a_round() {
        let measured = rounds(vec![
            vec![timed(&[3.0]), timed(&[2.0])],
            vec![timed(&[5.0]), timed(&[4.0])],
            vec![timed(&[9.0]), timed(&[2.0])],
        ]);
        let (above, base) = measured.excess([0, 1], |q| q.p50, 1.0).unwrap();
        assert!((above - 1.0).abs() < 0.02 && (base - 2.0).abs() < 0.02, "{above} {base}");
        assert!(measured.excess([0, 1], |q| q.p50, 2.0).unwrap().0 < 0.0);
        assert_eq!(measured.excess([0, 1], |_| None, 1.0), None);
    }

    #[test]
    fn times_give_quantiles_and_curves() {
        let measured = rounds(vec![vec![timed(&[1.0, 2.0, 2.0]), timed(&[1.0, 1.0, 4.0])]]);
        let tables = measured.tables(&heading(), 0, 1);
        let Ratio::Times { p50: Some(p50), p99: Some(p99) } = tables[0].row.ratio else { panic!("two ratios") };
        assert!((p50 - 2.0).abs() < 0.01, "{p50}");
        assert!((p99 - 0.5).abs() < 0.01, "{p99}");
        assert_eq!(tables[0].curves.len(), 2);
        assert_eq!(tables[0].curves[0].histogram.len(), 3_000);
    }

    #[test]
    fn a_baseline_of_zero_gives_no_ratio() {
        let measured = rounds(vec![vec![cell(0.06, 0.0), cell(0.06, 0.0)]]);
        assert_eq!(measured.tables(&heading(), 0, 1)[0].row.ratio, Ratio::Value { value: None });
    }
}
