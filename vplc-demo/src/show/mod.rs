//! What a person sees: the live view or lines while it runs; a table and a verdict, or
//! several runs side by side, at the end.

pub mod canvas;
pub mod compare;
pub mod lines;
pub mod page;
pub mod picture;
pub mod table;
pub mod terminal;
pub mod verdict;
pub mod view;

use insane_core::Nanos;

/// A length of time for columns of numbers: microseconds up to 100 ms.
fn micros(time: Option<Nanos>) -> String {
    match time {
        None => "-".into(),
        Some(time) if time.0 < 100_000_000 => format!("{:.1} us", time.0 as f64 / 1e3),
        Some(time) => format!("{:.1} ms", time.0 as f64 / 1e6),
    }
}

/// A control error.
fn millimetres(error: f64) -> String {
    format!("{:.3} mm", error * 1e3)
}

/// A part of a whole, in percent.
fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.2} %", part as f64 * 100.0 / whole as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(micros(None), "-");
        assert_eq!(micros(Some(Nanos(1_550))), "1.6 us");
        assert_eq!(micros(Some(Nanos::from_millis(150))), "150.0 ms");
        assert_eq!(millimetres(1.234e-4), "0.123 mm");
        assert_eq!(percent(1, 0), "-");
        assert_eq!(percent(1, 10_000), "0.01 %");
    }
}
