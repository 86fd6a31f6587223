//! Rows of the JSON output.
//!
//! `{"rows": [{"name", "unit", "ours": {"p50","p99","p999","max"}, "baseline": {...},
//! "ratio": {"p50","p99"}, "n", "topology", "floor_before_us", "floor_after_us"}]}`;
//! rows of single numbers (rates, counts) carry `value` in ours, baseline and ratio.
//! A figure that too few samples stand behind is `null`.

use super::super::harness::machine::Machine;
use serde::Serialize;

/// One comparison.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Row {
    /// `scenario/what/size`; a rival's row ends with the rival's name.
    pub name: String,
    /// Unit of ours and baseline.
    pub unit: String,
    /// The runtime's figures.
    pub ours: Figures,
    /// The raw baseline's, or the rival's.
    pub baseline: Figures,
    /// Ours over baseline.
    pub ratio: Ratio,
    /// Samples behind ours.
    pub n: u64,
    /// Who runs where, and whether the cores were near or far.
    pub topology: String,
    /// Median floor before our cells, microseconds one way.
    pub floor_before_us: Option<f64>,
    /// Median floor after our cells, microseconds one way.
    pub floor_after_us: Option<f64>,
}

/// Figures of one side: medians over rounds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Figures {
    /// Of times.
    Times {
        /// The median.
        p50: Option<f64>,
        /// The 99th percentile.
        p99: Option<f64>,
        /// The 99.9th percentile; reported, not judged.
        p999: Option<f64>,
        /// The longest; reported, not judged.
        max: Option<f64>,
    },
    /// A single number.
    Value {
        /// In the row's unit.
        value: f64,
    },
}

/// Ours over baseline: the median of the ratios of single rounds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(untagged)]
pub enum Ratio {
    /// Of times.
    Times {
        /// Of the medians.
        p50: Option<f64>,
        /// Of the 99th percentiles.
        p99: Option<f64>,
    },
    /// Of single numbers.
    Value {
        /// `None` when the baseline is zero.
        value: Option<f64>,
    },
}

/// The whole output.
#[derive(Serialize)]
pub struct Output<'a> {
    /// All rows.
    pub rows: Vec<&'a Row>,
    /// The machine.
    pub machine: &'a Machine,
    /// Cells dropped because the floor moved.
    pub cells_dropped: u32,
    /// Rows that could not be measured here, each with its reason.
    pub not_measured: &'a [String],
}
