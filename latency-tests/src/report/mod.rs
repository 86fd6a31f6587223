//! What comes out: rows as JSON, the check against bounds, the page for a person.

pub mod bounds;
pub mod page;
pub mod row;
pub mod sizes;
pub mod svg;

use row::{Figures, Ratio, Row};

/// One row as the terminal shows it.
#[must_use]
pub fn line(row: &Row) -> String {
    let text = |figure: Option<f64>| figure.map_or("-".to_owned(), quantity);
    match (row.ours, row.baseline, row.ratio) {
        (
            Figures::Times { p50, p99, p999, max },
            Figures::Times { p50: base_p50, p99: base_p99, .. },
            Ratio::Times { p50: ratio_p50, p99: ratio_p99 },
        ) => format!(
            "{:<34} {:<18} p50 {:>8} p99 {:>8} p99.9 {:>8} max {:>8} | baseline p50 {:>8} p99 {:>8} | ratio {} {} [{}]",
            row.name,
            row.topology,
            text(p50),
            text(p99),
            text(p999),
            text(max),
            text(base_p50),
            text(base_p99),
            text(ratio_p50),
            text(ratio_p99),
            row.unit,
        ),
        (Figures::Value { value }, Figures::Value { value: base }, Ratio::Value { value: ratio }) => format!(
            "{:<34} {:<18} {:>10} | baseline {:>10} | ratio {} [{}]",
            row.name,
            row.topology,
            quantity(value),
            quantity(base),
            text(ratio),
            row.unit,
        ),
        _ => format!("{:<34} {:<18} figures of two kinds", row.name, row.topology),
    }
}

/// A number with three significant digits, and k, M or G where it is large.
#[must_use]
pub fn quantity(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{scaled:.digits$}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn numbers_keep_three_digits() {
        let cases = [
            (0.2354, "0.235"),
            (6.553, "6.55"),
            (17.4, "17.4"),
            (2258.0, "2258"),
            (63_200_000.0, "63.2M"),
            (12_345.0, "12.3k"),
        ];
        for (value, text) in cases {
            assert_eq!(quantity(value), text);
        }
    }
}
