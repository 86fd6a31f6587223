//! Findings for people: lines of 80 columns, the worst last, where the prompt will be.

use super::apply::{Applied, Fate, Step};
use super::finding::{Entry, Finding, State, score};
use super::host::Host;
use super::reader::excerpt;
use std::fmt::Write;

/// Columns of a line. Commands are never broken, so that they can be copied.
const COLUMNS: usize = 80;
/// Columns of `  remedy  `.
const LABEL: usize = 10;

/// Writes text, with colours or without.
pub struct Printer {
    /// Whether with colours.
    pub colour: bool,
}

impl Printer {
    /// What was looked at.
    pub fn head(&self, host: &Host, configuration: Option<&str>) -> String {
        let release = host.release.as_deref().map_or("of unknown version".to_owned(), excerpt);
        let cores = match host.online.as_ref().map(|cores| cores.0.len()) {
            Ok(1) => ", 1 core".to_owned(),
            Ok(cores) => format!(", {cores} cores"),
            Err(_) => String::new(),
        };
        let asked = configuration.map_or("no configuration".to_owned(), |file| format!("configuration {file}"));
        format!("Linux {release}{cores}; {asked}\n\n")
    }

    /// All findings and the score.
    pub fn findings(&self, findings: &[Finding]) -> String {
        let mut text = String::new();
        for state in [State::Good, State::Unread, State::Warning, State::Bad] {
            for finding in findings.iter().filter(|finding| finding.state == state) {
                text += &self.finding(finding);
            }
        }
        text + &self.sum(findings)
    }

    fn finding(&self, finding: &Finding) -> String {
        let Finding { entry, state, read, remedy } = finding;
        let mut text = String::new();
        // What is good needs one line; everything else has a paragraph.
        if *state != State::Good {
            text.push('\n');
        }
        let head = format!("{}  ", state.word());
        let body = wrapped(&format!("{}: {read}", entry.id), head.len(), COLUMNS);
        let painted = body.replacen(entry.id, &self.paint("1", entry.id), 1);
        let _ = writeln!(text, "{}  {painted}", self.paint(tone(*state), state.word()));
        if *state != State::Good {
            text += &labelled("why", entry.why);
            text += &labelled("remedy", remedy);
        }
        text
    }

    fn sum(&self, findings: &[Finding]) -> String {
        let count = |state| findings.iter().filter(|finding| finding.state == state).count();
        let [good, unread, warnings, bad] = [State::Good, State::Unread, State::Warning, State::Bad].map(count);
        let score = score(findings).map_or("No score".to_owned(), |score| format!("Score {score} of 100"));
        let plural = if warnings == 1 { "" } else { "s" };
        format!(
            "\n{}: {good} good, {warnings} warning{plural}, {bad} bad, {unread} not read.\n",
            self.paint("1", &score)
        )
    }

    /// Everything that is looked at.
    pub fn list(&self, entries: impl Iterator<Item = &'static Entry>) -> String {
        let mut text = String::new();
        for Entry { id, weight, reads, why, source, .. } in entries {
            let _ = writeln!(text, "{} (weight {weight})", self.paint("1", id));
            text += &labelled("reads", reads);
            text += &labelled("why", why);
            text += &labelled("source", source);
            text.push('\n');
        }
        text
    }

    /// One change, before it is made.
    pub fn change(&self, step: &Step) -> String {
        let change = &step.change;
        let line = format!("{}: {}: {} -> {}", step.id, change.path, excerpt(&change.from), change.to);
        format!("{}\n", wrapped(&line, 0, COLUMNS).replacen(step.id, &self.paint("1", step.id), 1))
    }

    /// What became of it.
    pub fn outcome(&self, step: &Step) -> String {
        let tone = match step.fate {
            Fate::Shown => "36",
            Fate::Made => "32",
            Fate::Failed(_) => "1;31",
        };
        let why = if let Fate::Failed(why) = &step.fate { format!(": {}", excerpt(why)) } else { String::new() };
        format!("  {}{why}\n", self.paint(tone, step.word()))
    }

    /// What was left, and why.
    pub fn left(&self, applied: &Applied) -> String {
        let mut text = String::new();
        for left in &applied.left {
            let line = wrapped(&format!("{}: {}", left.id, left.why), "left  ".len(), COLUMNS);
            let _ = writeln!(text, "left  {}", line.replacen(left.id, &self.paint("1", left.id), 1));
        }
        text
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn tone(state: State) -> &'static str {
    match state {
        State::Good => "32",
        State::Unread => "36",
        State::Warning => "1;33",
        State::Bad => "1;31",
    }
}

/// `  why     text`, continued below the text. Lines that begin with a mark or a blank are
/// to be copied, and stay whole.
fn labelled(label: &str, body: &str) -> String {
    let mut text = String::new();
    for (at, line) in body.lines().enumerate() {
        let label = if at == 0 { label } else { "" };
        let is_verbatim = line.starts_with("$ ") || line.starts_with("  ");
        let line = if is_verbatim { line.to_owned() } else { wrapped(line, LABEL, COLUMNS) };
        let _ = writeln!(text, "  {label:<8}{line}");
    }
    text
}

/// Text in lines of so many columns, the later ones indented; the first begins there too.
fn wrapped(text: &str, indent: usize, columns: usize) -> String {
    let mut lines = String::new();
    let mut column = indent;
    for (at, word) in text.split_whitespace().enumerate() {
        let width = word.chars().count();
        if at > 0 && column + 1 + width > columns {
            let _ = write!(lines, "\n{:indent$}", "");
            column = indent;
        } else if at > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += width;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_broken_between_words_and_commands_never() {
        let long = "a word and another one ".repeat(10);
        for line in labelled("why", &long).lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        let command = format!("$ {}", "argument ".repeat(20));
        assert_eq!(labelled("remedy", &command).lines().count(), 1);
        assert_eq!(wrapped("one two", 2, 8), "one\n  two");
        assert_eq!(wrapped(&"x".repeat(90), 2, 8).lines().count(), 1, "what cannot be broken is not");
    }
}
