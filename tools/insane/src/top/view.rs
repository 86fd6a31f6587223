//! What stands on the screen, and what keys do: pure, but for the frame that is drawn to.

use super::rows::{Key, Rows, Table, stale, totals};
use crate::status::table::{Before, count, duration, printable};
use insane_config::planner::human;
use insane_wire::status::StatusReport;
use ratatui::Frame;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Tabs};
use std::time::Instant;

/// Cells between two columns.
const GAP: usize = 2;

/// One report, and when it came.
pub struct Sample {
    /// The report.
    pub report: StatusReport,
    /// When.
    pub at: Instant,
}

/// What a key asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// To go on.
    More,
    /// To end.
    End,
}

/// How one table is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Look {
    /// The column that it is sorted by; `None`: the table's own.
    sorted: Option<usize>,
    reversed: bool,
    /// The row that is marked.
    row: usize,
    /// The first row on the screen.
    first: usize,
}

/// The whole view.
pub struct View {
    now: Option<Sample>,
    before: Option<Sample>,
    /// Why there is no new report.
    trouble: Option<String>,
    table: usize,
    looks: [Look; Table::ALL.len()],
    /// The screen stands still.
    paused: bool,
}

impl View {
    /// Of nothing yet.
    pub fn new() -> View {
        let looks = [Look::default(); Table::ALL.len()];
        View { now: None, before: None, trouble: None, table: 0, looks, paused: false }
    }

    /// Takes a report, or why there is none.
    pub fn take(&mut self, told: Result<Sample, String>) {
        match told {
            Ok(_) if self.paused => {}
            Ok(sample) => {
                self.trouble = None;
                self.before = self.now.replace(sample);
            }
            Err(trouble) => {
                // Nothing that comes later is a second away from what was before.
                self.before = None;
                self.trouble = Some(trouble);
            }
        }
    }

    /// Does what a key says.
    pub fn press(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::More;
        }
        let tables = Table::ALL.len();
        let columns = self.rows().columns.len();
        let sorted = self.sorted();
        let page = 10;
        let look = &mut self.looks[self.table];
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Asked::End,
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Asked::End,
            KeyCode::Tab | KeyCode::Right => self.table = (self.table + 1) % tables,
            KeyCode::BackTab | KeyCode::Left => self.table = (self.table + tables - 1) % tables,
            KeyCode::Char(digit @ '1'..='9') if (digit as usize) < '1' as usize + tables => {
                self.table = digit as usize - '1' as usize;
            }
            KeyCode::Char('s') => {
                look.sorted = Some((sorted + 1) % columns);
                look.reversed = false;
            }
            KeyCode::Char('S') => {
                look.sorted = Some((sorted + columns - 1) % columns);
                look.reversed = false;
            }
            KeyCode::Char('r') => look.reversed = !look.reversed,
            KeyCode::Down => look.row = look.row.saturating_add(1),
            KeyCode::Up => look.row = look.row.saturating_sub(1),
            KeyCode::PageDown => look.row = look.row.saturating_add(page),
            KeyCode::PageUp => look.row = look.row.saturating_sub(page),
            KeyCode::Home => look.row = 0,
            KeyCode::End => look.row = usize::MAX,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            _ => {}
        }
        Asked::More
    }

    fn table(&self) -> Table {
        Table::ALL[self.table]
    }

    fn before(&self) -> Before<'_> {
        let (now, before) = (self.now.as_ref()?, self.before.as_ref()?);
        Some((&before.report, now.at.saturating_duration_since(before.at).as_secs_f64()))
    }

    fn rows(&self) -> Rows {
        let nothing = StatusReport::default();
        let report = self.now.as_ref().map_or(&nothing, |sample| &sample.report);
        self.table().rows(report, self.before())
    }

    fn sorted(&self) -> usize {
        self.looks[self.table].sorted.unwrap_or_else(|| self.rows().sorted)
    }

    /// Draws it all.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let parts =
            Layout::vertical([Constraint::Length(3), Constraint::Length(1), Constraint::Min(2), Constraint::Length(1)]);
        let [head, tabs, body, foot] = parts.areas(frame.area());
        frame.render_widget(Paragraph::new(self.head(usize::from(head.width))), head);
        let titles = Table::ALL.iter().enumerate().map(|(at, table)| format!("{} {}", at + 1, table.title()));
        let marked = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Tabs::new(titles).select(self.table).highlight_style(marked).divider(" "), tabs);
        self.draw_table(frame, body);
        frame.render_widget(Paragraph::new(self.foot()), foot);
    }

    fn head(&self, width: usize) -> Vec<Line<'static>> {
        let Some(Sample { report, .. }) = &self.now else { return vec![Line::from("waiting for the first report")] };
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let host = format!(
            "insaned {} on {}, process {}, up {}",
            printable(&report.version),
            printable(&report.host.name),
            report.pid,
            duration(report.uptime_s)
        );
        let memory = &report.memory;
        let sessions: usize = report.domains.iter().map(|domain| domain.sessions.len()).sum();
        let found = report.discovery.as_ref().map_or(String::new(), |discovery| {
            format!(", found {}, refused {}", discovery.found.len(), discovery.refused.len())
        });
        let memory = format!(
            "memory {} of {}, sessions {sessions}, streams {}, peers up {}{found}",
            human(memory.used_bytes),
            human(memory.limit_bytes),
            report.streams.len(),
            report.peers.iter().filter(|peer| peer.up).count(),
        );
        let rates = match totals(report, self.before()) {
            None => Line::from("rates come with the second report"),
            Some(totals) => {
                let whole = |rate: f64| count(rate.round() as u64);
                let calm = format!(
                    "{} msg/s, {}/s, {} frames/s, {} wakes/s, {} turns/s, ",
                    whole(totals.messages),
                    human(totals.bytes as u64),
                    whole(totals.frames),
                    whole(totals.wakes),
                    whole(totals.turns)
                );
                let style = if totals.dropped > 0.0 { alarming() } else { Style::new() };
                Line::from(vec![Span::raw(calm), Span::styled(format!("{} dropped/s", whole(totals.dropped)), style)])
            }
        };
        vec![Line::styled(cut(&host, width), bold), Line::from(cut(&memory, width)), rates]
    }

    fn foot(&self) -> Line<'static> {
        if let Some(trouble) = &self.trouble {
            let first = trouble.lines().next().unwrap_or_default();
            return Line::styled(format!("{}; waiting for it to come back; q quits", printable(first)), alarming());
        }
        let keys = "q quit  tab/arrows table, row  s sort  r reverse  p pause";
        let degraded = self.now.as_ref().map_or(0, |sample| sample.report.degraded.len());
        let stale = self.now.as_ref().map_or(0, |sample| stale(&sample.report));
        let mut spans = vec![Span::styled(keys, Style::new().add_modifier(Modifier::DIM))];
        if self.paused {
            spans.push(Span::styled("  PAUSED", alarming()));
        } else {
            for (what, count) in [("degraded", degraded as u64), ("stale", stale)] {
                if count > 0 {
                    spans.push(Span::styled(format!("  {what}: {count}"), alarming()));
                }
            }
        }
        Line::from(spans)
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let sorted = self.sorted();
        let mut rows = self.rows();
        let look = &mut self.looks[self.table];
        rows.sort(sorted, look.reversed);
        // The head takes a line.
        let height = usize::from(area.height.saturating_sub(1));
        look.row = look.row.min(rows.rows.len().saturating_sub(1));
        look.first = look.first.min(look.row);
        look.first = look.first.max((look.row + 1).saturating_sub(height));
        let widths = widths(&rows, sorted, usize::from(area.width));
        let arrow = |column: usize| match (column == sorted, numeric(&rows, column) != look.reversed) {
            (false, _) => "",
            (true, true) => "▼",
            (true, false) => "▲",
        };
        let heads = rows.columns.iter().enumerate().map(|(at, name)| (format!("{name}{}", arrow(at)), Style::new()));
        let underlined = Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED);
        let mut lines = vec![line(heads.collect(), &rows, &widths).style(underlined)];
        for (at, row) in rows.rows.iter().enumerate().skip(look.first).take(height) {
            let style = |alarm: bool| if alarm { alarming() } else { Style::new() };
            let cells = row.iter().map(|cell| (cell.text.clone(), style(cell.alarm))).collect();
            let mark = if at == look.row { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
            lines.push(line(cells, &rows, &widths).style(mark));
        }
        if rows.rows.is_empty() {
            lines.push(Line::styled("none", Style::new().add_modifier(Modifier::DIM)));
        }
        frame.render_widget(Paragraph::new(lines), area);
    }
}

fn alarming() -> Style {
    Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)
}

fn numeric(rows: &Rows, column: usize) -> bool {
    rows.rows.first().is_some_and(|row| matches!(row[column].key, Key::Number(_)))
}

/// Columns as wide as what they hold, from the left as many as fit; long names give way
/// first. 0: not shown.
fn widths(rows: &Rows, sorted: usize, width: usize) -> Vec<usize> {
    let cell = |column: usize| rows.rows.iter().map(move |row| row[column].text.chars().count());
    let natural = |(column, name): (usize, &String)| {
        // With room for the arrow of the column that it is sorted by.
        cell(column).max().unwrap_or(0).max(name.chars().count() + usize::from(column == sorted))
    };
    let mut widths: Vec<usize> = rows.columns.iter().enumerate().map(natural).collect();
    let needed = |widths: &[usize]| widths.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP);
    // The names give way first, down to so many characters.
    for (column, least) in [(0, 16), (1, 11)] {
        let over = needed(&widths).saturating_sub(width);
        let spare = widths.get(column).map_or(0, |width| width.saturating_sub(least));
        if !rows.is_numeric(column) {
            widths[column] -= over.min(spare);
        }
    }
    let mut used = 0;
    let mut fit = true;
    for width_of in &mut widths {
        fit &= used + *width_of <= width;
        if fit {
            used += *width_of + GAP;
        } else {
            *width_of = 0;
        }
    }
    widths
}

fn line(cells: Vec<(String, Style)>, rows: &Rows, widths: &[usize]) -> Line<'static> {
    let mut spans = Vec::new();
    for (column, (text, style)) in cells.into_iter().enumerate().filter(|(column, _)| widths[*column] > 0) {
        if !spans.is_empty() {
            spans.push(Span::raw(" ".repeat(GAP)));
        }
        let (text, width) = (cut(&text, widths[column]), widths[column]);
        let text = if rows.is_numeric(column) { format!("{text:>width$}") } else { format!("{text:<width$}") };
        spans.push(Span::styled(text, style));
    }
    Line::from(spans)
}

/// At most `width` characters; a dot stands for what is missing.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(std::iter::once('.')).take(width).collect()
}
