//! From text to the raw configuration; the parser's errors in the form of all others.

use crate::diagnostic::nearest;
use crate::index::{Node, Place, skipped};
use crate::raw::Config;
use crate::report::Report;
use ron::error::{Error, SpannedError};
use ron::extensions::Extensions;

/// Fields of one text that are told together at most.
const FIELDS_MAX: usize = 64;

/// Parses the text of the report. `None`: errors were added to the report.
///
/// The parser ends at the first thing that it cannot read. A field that is to blame for that is
/// left out of a copy, which is read again for the next one: a copy that can be read at last is
/// nobody's configuration.
pub(crate) fn parse(report: &mut Report<'_>) -> Option<Config> {
    let options = ron::Options::default().with_default_extension(Extensions::IMPLICIT_SOME);
    let mut text = report.text().to_owned();
    for count in 0..FIELDS_MAX {
        let error = match options.from_str(&text) {
            Ok(config) => return (!report.has_errors()).then_some(config),
            Err(error) => error,
        };
        // Anything else may be missing only because a field was left out.
        if count > 0 && !is_about_a_field(&error.code) {
            return None;
        }
        let at = offset(report, &error);
        explain(report, &error, at);
        let blamed = match &error.code {
            Error::NoSuchStructField { found, .. } => report.index.named_before(report.text(), found, at),
            code if is_about_a_field(code) => report.index.last_before(at),
            _ => None,
        };
        let rest = blamed.and_then(|node| without(report.text(), &text, node)).filter(|rest| *rest != text)?;
        text = rest;
    }
    None
}

/// The copy with blanks instead of a field and the comma behind it. Lines and columns stay:
/// columns count characters, and `original` has the offsets of the index.
fn without(original: &str, copy: &str, node: &Node) -> Option<String> {
    let key = node.key.as_ref()?;
    let comma = node.value.end + skipped(original.get(node.value.end..)?);
    let end = if original[comma..].starts_with(',') { comma + 1 } else { node.value.end };
    let chars = |range: std::ops::Range<usize>| original.get(range).map(|text| text.chars().count());
    let (from, to) = (chars(0..key.start)?, chars(0..end)?);
    let blank = |(at, c): (usize, char)| if (from..to).contains(&at) && c != '\n' { ' ' } else { c };
    Some(copy.chars().enumerate().map(blank).collect())
}

/// Errors that a field is to blame for, which can be left out.
fn is_about_a_field(code: &Error) -> bool {
    matches!(code, Error::NoSuchStructField { .. } | Error::NoSuchEnumVariant { .. }) || is_about_a_value(code)
}

fn offset(report: &Report<'_>, error: &SpannedError) -> usize {
    let end = error.span.end;
    report.index.offset(report.text(), Place { line: end.line, column: end.col })
}

fn explain(report: &mut Report<'_>, error: &SpannedError, at: usize) {
    let text = report.text();
    let told = report.count();
    match &error.code {
        Error::NoSuchStructField { expected, found, .. } => unknown_field(report, at, expected, found),
        Error::NoSuchEnumVariant { expected, found, .. } => unknown_variant(report, at, expected, found),
        Error::MissingStructField { field, .. } => missing_field(report, at, field),
        Error::DuplicateStructField { field, .. } => {
            if let Some(node) = report.index.named_before(text, field, at).cloned() {
                report.error_at_last(&node, format!("the field `{field}` is given twice"));
            }
        }
        code if is_about_a_value(code) => wrong_value(report, at, code),
        code => not_ron(report, at, code),
    }
    if report.count() == told {
        report.error_in(at..at, "", lower_first(&error.code.to_string()), String::new());
    }
}

/// Brackets, commas, quotes: what no field is to blame for.
fn not_ron(report: &mut Report<'_>, at: usize, code: &Error) {
    let written = report.text().trim_end();
    // Behind the last character there is no line worth showing.
    let last = written.char_indices().last().map_or(0, |(last, _)| last);
    if at >= written.len() && !matches!(code, Error::ExpectedStringEnd) {
        let message = "the file ends before its last bracket is closed";
        return report.error_in(
            last..written.len(),
            "",
            message.into(),
            "`)`, `]` or `}`, one for each that is open".into(),
        );
    }
    let message = match code {
        Error::ExpectedComma => "a comma is missing before this".into(),
        Error::ExpectedStringEnd => "this text has no closing quote".into(),
        Error::TrailingCharacters => "something stands behind the end of the configuration".into(),
        code => format!("this is not RON: {}", lower_first(&code.to_string())),
    };
    report.error_in(at..at, "", message, String::new());
}

impl Report<'_> {
    /// An error at the name of a node that need not be the first of its path.
    fn error_at_last(&mut self, node: &Node, message: String) {
        let range = node.key.clone().unwrap_or_else(|| node.value.clone());
        self.error_in(range, &node.path, message, "each field once".into());
    }
}

fn unknown_field(report: &mut Report<'_>, at: usize, expected: &[&str], found: &str) {
    let Some(node) = report.index.named_before(report.text(), found, at).cloned() else { return };
    let outer = node.path.rfind('.').map_or("", |end| &node.path[..end]);
    let place = if outer.is_empty() { "at the top level".to_owned() } else { format!("in `{outer}`") };
    let message = format!("there is no field `{found}` {place}{}", meant(found, expected));
    let range = node.key.clone().unwrap_or(at..at);
    report.error_in(range, &node.path, message, expected.join(", "));
}

fn unknown_variant(report: &mut Report<'_>, at: usize, expected: &[&str], found: &str) {
    let Some(node) = report.index.last_before(at).cloned() else { return };
    let path = named_path(&node.path);
    let accepted = accepted_near(report, path).unwrap_or_else(|| expected.join(", "));
    let message = format!("`{found}` is not accepted here{}", meant(found, expected));
    report.error_in(node.value, path, message, accepted);
}

fn missing_field(report: &mut Report<'_>, at: usize, field: &str) {
    let Some(outer) = report.index.around(at).cloned() else { return };
    let path = if outer.path.is_empty() { field.to_owned() } else { format!("{}.{field}", outer.path) };
    report.error(&path, format!("the field `{field}` is missing"));
}

fn wrong_value(report: &mut Report<'_>, at: usize, code: &Error) {
    let Some(node) = report.index.last_before(at).cloned().filter(|node| !node.path.is_empty()) else {
        return no_configuration(report);
    };
    let path = named_path(&node.path);
    let message = match code {
        Error::IntegerOutOfBounds => "the number is out of range".to_owned(),
        Error::InvalidValueForType { expected, found } => format!("{found} instead of {expected}"),
        Error::ExpectedBoolean => "`true` or `false` is expected".into(),
        Error::ExpectedInteger => "a whole number is expected".into(),
        Error::ExpectedString => "text in double quotes is expected".into(),
        Error::ExpectedArray => "a list `[...]` is expected".into(),
        Error::ExpectedMap => "a map `{...}` is expected".into(),
        Error::ExpectedStructLike | Error::ExpectedNamedStructLike(_) => {
            "fields `(name: value, ...)` are expected".into()
        }
        Error::InvalidIdentifier(_) | Error::SuggestRawIdentifier(_) => {
            "the name of a field is expected before the value".into()
        }
        code => lower_first(&code.to_string()),
    };
    let accepted = accepted_near(report, path).unwrap_or_default();
    report.error_in(node.value, path, message, accepted);
}

/// The text as a whole is something else.
fn no_configuration(report: &mut Report<'_>) {
    let written = report.text().trim();
    let message = if written.is_empty() { "the file is empty" } else { "a configuration stands in parentheses" };
    let at = report.text().find(written).unwrap_or(0);
    let accepted = "(host: (...), datapaths: [...], links: [...], ...), or () for all defaults";
    report.error_in(at..at, "", message.into(), accepted.into());
}

/// What the field, or the one around it, accepts.
fn accepted_near(report: &Report<'_>, path: &str) -> Option<String> {
    let outer = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
    report.field(path).or_else(|| report.field(outer)).map(|field| field.accepted())
}

/// Errors that say that a value is not of the kind that its field wants.
fn is_about_a_value(code: &Error) -> bool {
    matches!(
        code,
        Error::ExpectedArray
            | Error::ExpectedBoolean
            | Error::ExpectedInteger
            | Error::ExpectedFloat
            | Error::ExpectedOption
            | Error::ExpectedMap
            | Error::ExpectedString
            | Error::ExpectedUnit
            | Error::ExpectedStructLike
            | Error::ExpectedNamedStructLike(_)
            | Error::ExpectedDifferentStructName { .. }
            | Error::ExpectedIdentifier
            | Error::IntegerOutOfBounds
            | Error::InvalidIntegerDigit { .. }
            | Error::InvalidValueForType { .. }
            | Error::ExpectedDifferentLength { .. }
            | Error::InvalidIdentifier(_)
            | Error::SuggestRawIdentifier(_)
            | Error::Message(_)
    )
}

/// The path up to the last part that has a name: `policy` of `policy.0`.
fn named_path(path: &str) -> &str {
    match path.rsplit_once('.') {
        Some((outer, last)) if last.starts_with(|c: char| c.is_ascii_digit()) => outer,
        _ => path,
    }
}

fn meant(found: &str, expected: &[&str]) -> String {
    nearest(found, expected.iter().copied()).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
