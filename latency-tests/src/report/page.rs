//! The page for a person: one self-contained file, drawings inline.

use super::bounds::Check;
use super::quantity;
use super::row::{Figures, Ratio, Row};
use super::sizes::plot;
use super::svg::{Bar, bars, escape, percentiles};
use crate::harness::machine::Machine;
use crate::harness::rounds::Table;
use crate::harness::sample::median;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");

/// Everything that the page shows.
pub struct Page<'a> {
    /// The comparisons, in the order of the run.
    pub tables: &'a [Table],
    /// The machine.
    pub machine: &'a Machine,
    /// Cells dropped because the floor moved.
    pub dropped: u32,
    /// What is missing, and why.
    pub missing: &'a [String],
    /// The check, if one was asked for.
    pub check: Option<&'a Check>,
    /// A short form, whose figures mean nothing.
    pub smoke: bool,
}

impl Page<'_> {
    /// The file's text.
    #[must_use]
    pub fn html(&self) -> String {
        let mut html = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        html.push_str("<meta name=\"viewport\" content=\"width=device-width\"><title>insane-rt: latency tests</title>");
        let _ = write!(html, "<style>{STYLE}</style></head><body>");
        self.head(&mut html);
        self.verdicts(&mut html);
        self.overview(&mut html);
        for scenario in scenarios(self.tables) {
            let _ = write!(
                html,
                "<h2>{}</h2><p class=\"about\">{}</p><div class=\"cards\">",
                escape(&scenario),
                about(&scenario)
            );
            if scenario == "sweep" {
                let rows: Vec<&Row> = self.tables.iter().map(|table| &table.row).collect();
                html.push_str(&plot(&rows, "latency", "Round trips over the size of a message, p50", " us"));
                html.push_str(&plot(&rows, "throughput", "One way over the size of a message", "/s"));
            }
            for table in self.tables.iter().filter(|table| scenario_of(&table.row) == scenario) {
                card(&mut html, table);
            }
            html.push_str("</div>");
        }
        self.missing(&mut html);
        html.push_str("</body></html>\n");
        html
    }

    fn head(&self, html: &mut String) {
        html.push_str("<header><h1>insane-rt <span>latency tests</span></h1>");
        html.push_str(
            "<p class=\"key\"><i class=\"ours\"></i>ours <i class=\"base\"></i>baseline or rival</p></header>",
        );
        if self.smoke {
            html.push_str("<p class=\"warn\">Short form: it shows that everything works. Its times mean nothing.</p>");
        }
        let machine = self.machine;
        let floors = median(self.tables.iter().filter_map(|table| table.row.floor_before_us));
        let facts = [
            ("processor", format!("{} × {}", machine.processors, machine.processor)),
            ("kernel", machine.kernel.clone() + if machine.virtual_machine { ", virtual machine" } else { "" }),
            ("memory", format!("{} GiB", machine.memory_bytes >> 30)),
            ("run", utc(machine.started_s)),
            ("load before", format!("{:.2}", machine.load_before)),
            ("floor", floors.map_or("-".to_owned(), |us| format!("{} us one way (median)", quantity(us)))),
            ("cells dropped", self.dropped.to_string()),
        ];
        html.push_str("<dl class=\"facts\">");
        for (name, fact) in facts {
            let _ = write!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", escape(&fact));
        }
        html.push_str("</dl>");
        if machine.load_before > 0.3 && !self.smoke {
            html.push_str(
                "<p class=\"warn\">Other programs were running when this began: read the tails with care.</p>",
            );
        }
    }

    fn verdicts(&self, html: &mut String) {
        let Some(check) = self.check else { return };
        let (class, word) =
            if check.passed { ("met", "every bound was met") } else { ("missed", "a bound was missed") };
        let _ = write!(
            html,
            "<details class=\"check {class}\"{}><summary>Check: {word}</summary><pre>",
            if check.passed { "" } else { " open" }
        );
        for line in &check.lines {
            let _ = writeln!(html, "{}", escape(line));
        }
        html.push_str("</pre></details>");
    }

    /// All ratios at a glance.
    fn overview(&self, html: &mut String) {
        html.push_str(
            "<table><thead><tr><th>row<th>topology<th>ours<th>baseline<th>ratio<th>p99 ratio<th>n</tr></thead><tbody>",
        );
        for table in self.tables {
            let row = &table.row;
            let (ours, baseline) = (main_figure(row.ours), main_figure(row.baseline));
            let (ratio, tail) = match row.ratio {
                Ratio::Times { p50, p99 } => (p50, p99),
                Ratio::Value { value } => (value, None),
            };
            let text = |value: Option<f64>| value.map_or("-".to_owned(), quantity);
            let _ = write!(
                html,
                "<tr><td>{}<td>{}<td class=\"n\">{} {unit}<td class=\"n\">{} {unit}<td class=\"n strong\">{}<td class=\"n\">{}<td class=\"n\">{}</tr>",
                escape(&row.name),
                escape(&row.topology),
                text(ours),
                text(baseline),
                text(ratio),
                text(tail),
                row.n,
                unit = escape(&row.unit),
            );
        }
        html.push_str("</tbody></table><p class=\"about\">Times are medians over rounds of each round's p50. A ratio is the median of the rounds' own ratios, ours over baseline: below 1 is better for times, above 1 for rates.</p>");
    }

    fn missing(&self, html: &mut String) {
        if self.missing.is_empty() {
            return;
        }
        html.push_str("<h2>Not measured</h2><ul class=\"missing\">");
        for line in self.missing {
            let _ = write!(html, "<li>{}</li>", escape(line));
        }
        html.push_str("</ul>");
    }
}

fn card(html: &mut String, table: &Table) {
    let row = &table.row;
    let _ =
        write!(html, "<section class=\"card\"><h3>{} <small>{}</small></h3>", escape(&row.name), escape(&row.topology));
    let mut drawn = Vec::new();
    let mut add = |label: &str, side: usize, value: Option<f64>| {
        if let Some(value) = value {
            drawn.push(Bar { label: label.to_owned(), value, side });
        }
    };
    match (row.ours, row.baseline) {
        (Figures::Times { p50, p99, .. }, Figures::Times { p50: base_p50, p99: base_p99, .. }) => {
            add(&format!("{} p50", table.labels[0]), 0, p50);
            add(&format!("{} p50", table.labels[1]), 1, base_p50);
            add(&format!("{} p99", table.labels[0]), 0, p99);
            add(&format!("{} p99", table.labels[1]), 1, base_p99);
        }
        (ours, baseline) => {
            add(&table.labels[0], 0, main_figure(ours));
            add(&table.labels[1], 1, main_figure(baseline));
        }
    }
    html.push_str(&bars(&drawn, short_unit(&row.unit)));
    html.push_str(&percentiles(&table.curves));
    if let Figures::Times { p999, max, .. } = row.ours {
        let text = |value: Option<f64>| value.map_or("-".to_owned(), quantity);
        let _ = write!(html, "<p class=\"note\">ours p99.9 {} us, longest {} us; ", text(p999), text(max));
    } else {
        html.push_str("<p class=\"note\">");
    }
    let floor = |us: Option<f64>| us.map_or("-".to_owned(), quantity);
    let _ = write!(
        html,
        "floor {} us before, {} us after</p></section>",
        floor(row.floor_before_us),
        floor(row.floor_after_us)
    );
}

/// The one figure of a side.
#[must_use]
pub fn main_figure(figures: Figures) -> Option<f64> {
    match figures {
        Figures::Times { p50, .. } => p50,
        Figures::Value { value } => Some(value),
    }
}

fn short_unit(unit: &str) -> &str {
    match unit {
        "messages/s" => "/s",
        other => other,
    }
}

fn scenario_of(row: &Row) -> String {
    row.name.split('/').next().unwrap_or_default().to_owned()
}

fn scenarios(tables: &[Table]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in tables.iter().map(|table| scenario_of(&table.row)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn about(scenario: &str) -> &'static str {
    match scenario {
        "local" => {
            "Round trips between two applications on one host, each busy on a core of its own (T1), beside a bare copying ring."
        }
        "hop" => {
            "Round trips through the daemon, beside a bare copying relay. T3: both ends in one thread; T2: both ends yield to each other on one core."
        }
        "network" => "Round trips between two runtimes over a plugin, beside a loop written with the bare technology.",
        "throughput" => {
            "One way as fast as the other side takes, beside a bare copying ring: every byte written and read (touch), or buffers handed over untouched (tokens)."
        }
        "sweep" => {
            "Every plugin over the sizes of a message, between two hosts joined by veth, beside a loop written with the bare technology."
        }
        "setup" => "From create_stream to the first message, beside a shared-memory ring set up by hand over a socket.",
        "instructions" => {
            "Instructions of one emit, consume and return, counted under callgrind, beside one push and pop of the bare ring."
        }
        "syscalls" => "System calls of one local message in poll mode, counted under strace.",
        "selftest" => "Every baseline beside itself: how far a ratio is from 1 says how much of any ratio is noise.",
        _ => "",
    }
}

/// Seconds since 1970 as a date and time (civil-from-days, Howard Hinnant's
/// algorithm).
fn utc(seconds: u64) -> String {
    let days = (seconds / 86_400).cast_signed() + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let time = seconds % 86_400;
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", time / 3_600, time % 3_600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01 00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34 UTC");
        assert_eq!(utc(1_767_225_599), "2025-12-31 23:59 UTC");
    }

    #[test]
    fn a_page_without_rows_still_says_what_is_missing() {
        let machine = Machine::read();
        let missing = vec!["hop/T3 <x>: no daemon".to_owned()];
        let page = Page { tables: &[], machine: &machine, dropped: 2, missing: &missing, check: None, smoke: true };
        let html = page.html();
        assert!(html.contains("hop/T3 &lt;x&gt;"), "names are escaped");
        assert!(html.contains("Short form"));
    }
}
