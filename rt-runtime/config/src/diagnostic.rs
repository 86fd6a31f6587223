//! What is wrong with a configuration, and how it is shown.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// The runtime does not start with this.
    Error,
    /// It starts, but probably does not do what was meant.
    Warning,
}

/// One thing that is wrong. `Display` shows it as compilers do, with the line and a caret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Path of the field: `datapaths[1].core`; empty for the file as a whole.
    pub path: String,
    /// What stands there, shortened; empty if nothing does.
    pub value: String,
    /// What is wrong.
    pub message: String,
    /// What would be accepted; empty where the message says it.
    pub accepted: String,
    /// The line of the file.
    pub source: String,
    /// How many characters of it are meant, at least 1.
    pub marked: usize,
}

impl Diagnostic {
    /// The text for a terminal, with colours if wanted.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let paint = Paint { colour };
        let (name, tone) = match self.severity {
            Severity::Error => ("error", "1;31"),
            Severity::Warning => ("warning", "1;33"),
        };
        let gutter = " ".repeat(self.line.to_string().len());
        let bar = paint.with("1;34", "|");
        let (source, caret) = self.excerpt();
        let subject = if self.path.is_empty() { String::new() } else { format!("{}: ", self.path) };
        let mut text = format!(
            "{}: {}\n{gutter}{} {}:{}:{}\n{gutter} {bar}\n{} {bar} {source}\n{gutter} {bar} {}\n",
            paint.with(tone, name),
            paint.with("1", &format!("{subject}{}", self.message)),
            paint.with("1;34", "-->"),
            self.file,
            self.line,
            self.column,
            paint.with("1;34", &self.line.to_string()),
            paint.with(tone, &caret),
        );
        if !self.accepted.is_empty() {
            text += &format!("{gutter} {} accepted: {}\n", paint.with("1;34", "="), self.accepted);
        }
        text
    }
}

/// Characters of a line that are shown at most.
const LINE_CHARS_MAX: usize = 160;

impl Diagnostic {
    /// The part of the line that is shown, and the carets below it. Tabs and other
    /// control characters become single blanks: the caret stands under its character,
    /// and no file can steer the terminal.
    fn excerpt(&self) -> (String, String) {
        let length = self.source.chars().count();
        let from = if length > LINE_CHARS_MAX { (self.column - 1).saturating_sub(LINE_CHARS_MAX / 2) } else { 0 };
        let shown = self.source.chars().skip(from).take(LINE_CHARS_MAX);
        let mut line: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let mut blank = self.column - 1 - from;
        if from > 0 {
            line.insert_str(0, "... ");
            blank += 4;
        }
        if from + LINE_CHARS_MAX < length {
            line.push_str(" ...");
        }
        let marked = self.marked.min(LINE_CHARS_MAX);
        (line, format!("{}{}", " ".repeat(blank), "^".repeat(marked)))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

struct Paint {
    colour: bool,
}

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Everything that is wrong with one file, in the order of its lines.
#[derive(Clone, PartialEq, Eq, Debug, Default, thiserror::Error)]
pub struct Findings(pub Vec<Diagnostic>);

impl Findings {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the runtime would not start.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|finding| finding.severity == Severity::Error)
    }

    /// How many errors, and how many warnings.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let errors = self.0.iter().filter(|finding| finding.severity == Severity::Error).count();
        (errors, self.0.len() - errors)
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, finding) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{finding}")?;
        }
        Ok(())
    }
}

/// The candidate most like `word`, if one is near enough to be meant.
#[must_use]
pub fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().min(word.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance (Damerau-Levenshtein, adjacent transpositions) of the first 64 characters.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let swap = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + swap);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_one_that_may_be_meant() {
        let names = ["core", "policy", "idle", "links", "huge_pages"];
        assert_eq!(nearest("cores", names), Some("core"));
        assert_eq!(nearest("link", names), Some("links"));
        assert_eq!(nearest("hugepages", names), Some("huge_pages"));
        assert_eq!(nearest("Policy", names), Some("policy"));
        assert_eq!(nearest("corridor", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn transposed_letters_are_one_slip() {
        assert_eq!(distance("prefualt", "prefault"), 1);
        assert_eq!(distance("abc", ""), 3);
    }
}
