//! The budget as a table for people.

use super::{Budget, Group, Item, Kind};
use crate::fields::grouped;

/// Bytes in the unit a person would choose, with one decimal: `58.3 MiB`.
#[must_use]
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS[unit])
}

/// The table: a line an item, a sum a group, and the verdict.
#[must_use]
pub fn render(budget: &Budget) -> String {
    let rows: Vec<[String; 5]> = budget.groups.iter().flat_map(rows).collect();
    let total =
        ["total".to_owned(), String::new(), String::new(), human(budget.total_bytes), grouped_u64(budget.total_bytes)];
    let limit = [
        "limit (memory.limit_bytes)".to_owned(),
        String::new(),
        String::new(),
        human(budget.limit_bytes),
        grouped_u64(budget.limit_bytes),
    ];
    let head = ["", "kind", "count x each", "size", "bytes"].map(str::to_owned);
    let all = || std::iter::once(&head).chain(&rows).chain([&total, &limit]);
    let widths: Vec<usize> =
        (0..5).map(|column| all().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let rule = "-".repeat(widths.iter().sum::<usize>() + 8);

    let mut text = format!("Memory of \"{}\" when every quota is used up\n\n", budget.host);
    text += &line(&head, &widths);
    for (row, is_group) in rows.iter().map(|row| (row, !row[0].starts_with(' '))) {
        if is_group {
            text += &format!("{rule}\n");
        }
        text += &line(row, &widths);
    }
    text += &format!("{rule}\n");
    text += &line(&total, &widths);
    text += &line(&limit, &widths);
    text += &verdict(budget);
    text
}

fn verdict(budget: &Budget) -> String {
    if budget.total_bytes <= budget.limit_bytes {
        let percent = budget.total_bytes as f64 * 100.0 / budget.limit_bytes as f64;
        return format!("\nFits: {percent:.0} % of the limit, {} to spare.\n", human(budget.spare_bytes()));
    }
    format!("\nDoes not fit: {} too much.\n", human(budget.total_bytes - budget.limit_bytes))
}

fn rows(group: &Group) -> Vec<[String; 5]> {
    let mut rows =
        vec![[group.name.clone(), String::new(), String::new(), human(group.bytes), grouped_u64(group.bytes)]];
    rows.extend(group.items.iter().map(row));
    rows
}

fn row(item: &Item) -> [String; 5] {
    let kind = match item.kind {
        Kind::Shared => "shared",
        Kind::Private => "private",
        Kind::Kernel => "kernel",
    };
    let product = if item.count == 1 { String::new() } else { format!("{} x {}", item.count, human(item.each_bytes)) };
    [format!("  {}", item.name), kind.into(), product, human(item.bytes), grouped_u64(item.bytes)]
}

/// Names to the left, numbers to the right; nothing after the last character.
fn line(row: &[String; 5], widths: &[usize]) -> String {
    let text = format!(
        "{:<w0$}  {:<w1$}  {:>w2$}  {:>w3$}  {:>w4$}",
        row[0],
        row[1],
        row[2],
        row[3],
        row[4],
        w0 = widths[0],
        w1 = widths[1],
        w2 = widths[2],
        w3 = widths[3],
        w4 = widths[4]
    );
    format!("{}\n", text.trim_end())
}

fn grouped_u64(bytes: u64) -> String {
    grouped(i64::try_from(bytes).unwrap_or(i64::MAX))
}
