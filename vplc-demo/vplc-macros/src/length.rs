//! Lengths of time as literals: `62.5us`, `1ms`, `1_000ns`, `2s`.

/// Nanoseconds. `None`: no number with a unit, no whole nanosecond, or more than 584 years.
pub fn parse(text: &str) -> Option<u64> {
    let at = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(at);
    let unit_ns: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return None,
    };
    let number: String = number.chars().filter(|letter| *letter != '_').collect();
    let (whole, part) = number.split_once('.').unwrap_or((&number, ""));
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit_ns)?;
    if part.is_empty() {
        return Some(whole);
    }
    let scale = 10_u64.checked_pow(u32::try_from(part.len()).ok()?)?;
    let scaled = part.parse::<u64>().ok()?.checked_mul(unit_ns)?;
    (scaled % scale == 0).then(|| whole.checked_add(scaled / scale)).flatten()
}

/// As a person would write it.
pub fn show(ns: u64) -> String {
    let (unit_ns, unit) = match ns {
        ns if ns >= 1_000_000_000 => (1_000_000_000, "s"),
        ns if ns >= 1_000_000 => (1_000_000, "ms"),
        ns if ns >= 1_000 => (1_000, "us"),
        _ => (1, "ns"),
    };
    let (whole, rest) = (ns / unit_ns, ns % unit_ns);
    if rest == 0 {
        return format!("{whole} {unit}");
    }
    let digits = unit_ns.ilog10() as usize;
    let part = format!("{rest:0digits$}");
    format!("{whole}.{} {unit}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read_exactly_or_not_at_all() {
        for (text, ns) in [("1ms", 1_000_000), ("62.5us", 62_500), ("1_000ns", 1_000), ("0.000000001s", 1)] {
            assert_eq!(parse(text), Some(ns), "{text}");
        }
        for text in ["1", "ms", "1min", "0.5ns", "99999999999999999999s", "1.5.5ms", "-1ms", "1e3us", ""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn lengths_are_shown_without_loss() {
        for (ns, text) in [(0, "0 ns"), (62_500, "62.5 us"), (1_000_001, "1.000001 ms"), (2_000_000_000, "2 s")] {
            assert_eq!(show(ns), text);
        }
    }
}
