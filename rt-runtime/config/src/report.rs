//! Gathers what is wrong with one file, and finds its place in the text.

use crate::diagnostic::{Diagnostic, Findings, Severity};
use crate::fields::{self, Field};
use crate::index::{Index, Node};
use std::ops::Range;

/// Characters of a value that a message shows at most.
const VALUE_CHARS_MAX: usize = 60;

/// What some editors put before the text of a file.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// The findings of one file, in the making.
pub(crate) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    /// Where each field stands.
    pub index: Index,
    findings: Vec<(usize, Diagnostic)>,
}

impl<'t> Report<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Report<'t> {
        // Some editors put it before the text, and it says nothing.
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        Report { file, text, index: Index::new(text), findings: Vec::new() }
    }

    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// An error in the value of a field; what it accepts comes from the table of fields.
    pub(crate) fn error(&mut self, path: &str, message: impl Into<String>) {
        let accepted = self.field(path).map(|field| field.accepted()).unwrap_or_default();
        self.error_accepting(path, message, accepted);
    }

    /// The field at a path, in the table of fields.
    pub(crate) fn field(&self, path: &str) -> Option<&'static Field> {
        fields::field(&self.index.field_path(self.text, path))
    }

    /// An error in the value of a field.
    pub(crate) fn error_accepting(&mut self, path: &str, message: impl Into<String>, accepted: impl Into<String>) {
        let range = self.value_range(path);
        self.add(Severity::Error, range, path, message.into(), accepted.into());
    }

    /// An error in the name of a field (or in the key of a map's entry).
    pub(crate) fn error_at_key(&mut self, path: &str, message: impl Into<String>, accepted: impl Into<String>) {
        let key = self.index.find(path).and_then(|node| node.key.clone());
        let range = key.unwrap_or_else(|| self.value_range(path));
        self.add(Severity::Error, range, path, message.into(), accepted.into());
    }

    /// A warning about the value of a field.
    pub(crate) fn warning(&mut self, path: &str, message: impl Into<String>, accepted: impl Into<String>) {
        let range = self.value_range(path);
        self.add(Severity::Warning, range, path, message.into(), accepted.into());
    }

    /// An error at a range of the text.
    pub(crate) fn error_in(&mut self, range: Range<usize>, path: &str, message: String, accepted: String) {
        self.add(Severity::Error, range, path, message, accepted);
    }

    /// The value of a field, as it is written.
    pub(crate) fn written(&self, path: &str) -> Option<&'t str> {
        let node = self.index.find(path).filter(|node| node.path == path)?;
        self.text.get(node.value.clone())
    }

    /// The line in which a field stands, for messages that refer to it.
    pub(crate) fn line(&self, path: &str) -> usize {
        self.index.place(self.text, self.value_range(path).start).line
    }

    /// Where a value stands. What is not written is shown at its surroundings: at the
    /// name of those, or at their first character.
    fn value_range(&self, path: &str) -> Range<usize> {
        match self.index.find(path) {
            Some(node) if node.path == path && !path.is_empty() => node.value.clone(),
            Some(node) => outer_range(node),
            None => 0..0,
        }
    }

    fn add(&mut self, severity: Severity, range: Range<usize>, path: &str, message: String, accepted: String) {
        let place = self.index.place(self.text, range.start);
        let source = self.text.lines().nth(place.line - 1).unwrap_or("").to_owned();
        let value = self.text.get(range.clone()).unwrap_or("");
        let on_line = value.lines().next().unwrap_or("").chars().count();
        let room = source.chars().count().saturating_sub(place.column - 1);
        let diagnostic = Diagnostic {
            severity,
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            path: path.to_owned(),
            value: shortened(value),
            message: printable(&message),
            accepted,
            source,
            marked: on_line.min(room).max(1),
        };
        self.findings.push((range.start, diagnostic));
    }

    /// All findings by their place.
    pub(crate) fn finish(mut self) -> Findings {
        self.findings.sort_by_key(|(at, _)| *at);
        Findings(self.findings.into_iter().map(|(_, finding)| finding).collect())
    }

    /// How many findings there are.
    pub(crate) fn count(&self) -> usize {
        self.findings.len()
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.findings.iter().any(|(_, finding)| finding.severity == Severity::Error)
    }
}

/// Where to point when something inside `node` is meant that is not written.
fn outer_range(node: &Node) -> Range<usize> {
    node.key.clone().unwrap_or(node.value.start..(node.value.start + 1).min(node.value.end))
}

/// Messages may quote the file; no file can steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn shortened(value: &str) -> String {
    let first = value.lines().next().unwrap_or("");
    if first.len() == value.len() && first.chars().count() <= VALUE_CHARS_MAX {
        return first.to_owned();
    }
    let mut text: String = first.chars().take(VALUE_CHARS_MAX).collect();
    text.push_str(" ...");
    text
}
