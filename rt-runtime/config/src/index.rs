//! Where in the text each field stands.
//!
//! A second, light pass over the RON text, beside the parser proper: it maps paths like
//! `datapaths[1].core` to ranges of bytes, so that what is found wrong after parsing
//! can still be shown in its line. It judges nothing: at the first thing that it does
//! not understand it stops, and keeps what it has. Depth is bounded by `DEPTH_MAX`;
//! every step consumes at least one byte, so the pass ends.

use std::ops::Range;

/// Deepest nesting that is followed.
const DEPTH_MAX: u32 = 64;

/// One value of the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// Its path from the top: `datapaths[1].core`; empty for the whole.
    pub path: String,
    /// Where its name stands, if it has one.
    pub key: Option<Range<usize>>,
    /// Where it stands, in bytes.
    pub value: Range<usize>,
}

/// Every value of a text, in the order in which they start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    nodes: Vec<Node>,
    line_starts: Vec<usize>,
}

/// A place for people: both count from 1, columns in characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl Index {
    /// Reads the text. Never fails; what cannot be read is not in the index.
    #[must_use]
    pub fn new(text: &str) -> Index {
        let mut scan = Scan { text, at: 0, depth: 0, nodes: Vec::new() };
        scan.skip();
        while scan.text[scan.at..].starts_with("#!") && scan.skip_attribute() {
            scan.skip();
        }
        let _ = scan.value(String::new(), None);
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Index { nodes: scan.nodes, line_starts }
    }

    /// All values, in the order in which they start.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The value of this path; if it is not written, the nearest one around it.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Node> {
        let mut path = path;
        loop {
            if let Some(node) = self.nodes.iter().find(|node| node.path == path) {
                return Some(node);
            }
            if path.is_empty() {
                return None;
            }
            path = &path[..path.rfind(['.', '[']).unwrap_or(0)];
        }
    }

    /// The path under which the table of fields knows the field at `path`: that of a
    /// technology other than `udp` has its name in between, since fields of one name accept
    /// different values there.
    #[must_use]
    pub fn field_path(&self, text: &str, path: &str) -> String {
        let Some((link, name)) = path.split_once(".technology.") else { return path.to_owned() };
        let technology = format!("{link}.technology");
        let node = self.nodes.iter().find(|node| node.path == technology);
        let value = node.and_then(|node| text.get(node.value.clone()));
        let is_it = |name: &&&str| {
            value.and_then(|value| value.strip_prefix(**name)).is_some_and(|rest| rest.trim_start().starts_with('('))
        };
        match ["tcp", "xdp", "rdma", "dpdk"].iter().find(is_it) {
            Some(other) => format!("{technology}.{other}.{name}"),
            None => path.to_owned(),
        }
    }

    /// The last value that starts at or before `offset`.
    #[must_use]
    pub fn last_before(&self, offset: usize) -> Option<&Node> {
        self.nodes.iter().rfind(|node| node.value.start <= offset)
    }

    /// The last value of this name whose name starts at or before `offset`.
    #[must_use]
    pub fn named_before(&self, text: &str, name: &str, offset: usize) -> Option<&Node> {
        let is_it = |node: &&Node| {
            node.key.as_ref().is_some_and(|key| key.start <= offset && text.get(key.clone()) == Some(name))
        };
        self.nodes.iter().rfind(is_it)
    }

    /// The innermost value around `offset`, its last byte not counted.
    #[must_use]
    pub fn around(&self, offset: usize) -> Option<&Node> {
        self.nodes.iter().rfind(|node| node.value.start <= offset && offset < node.value.end)
    }

    /// Line and column of a byte.
    #[must_use]
    pub fn place(&self, text: &str, offset: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = text.get(start..offset).unwrap_or("");
        Place { line, column: before.chars().count() + 1 }
    }

    /// The byte at a line and column; the end of the text if it is shorter.
    #[must_use]
    pub fn offset(&self, text: &str, place: Place) -> usize {
        let Some(start) = self.line_starts.get(place.line.saturating_sub(1)) else { return text.len() };
        let rest = &text[*start..];
        rest.char_indices().nth(place.column.saturating_sub(1)).map_or(text.len(), |(at, _)| start + at)
    }
}

/// The pass itself. Functions return `None` where they stop understanding.
struct Scan<'t> {
    text: &'t str,
    at: usize,
    depth: u32,
    nodes: Vec<Node>,
}

impl<'t> Scan<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn eat(&mut self, c: char) -> bool {
        let is_next = self.peek() == Some(c);
        if is_next {
            self.at += c.len_utf8();
        }
        is_next
    }

    /// Passes over blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            let comment = if self.rest().starts_with("//") {
                self.rest().find('\n').unwrap_or(self.rest().len())
            } else if self.rest().starts_with("/*") {
                block_comment(self.rest())
            } else {
                0
            };
            self.at += comment;
            if blank == 0 && comment == 0 {
                return;
            }
        }
    }

    /// `#![enable(...)]`. Returns false if it has no end.
    fn skip_attribute(&mut self) -> bool {
        let end = self.rest().find(']');
        self.at += end.map_or(0, |end| end + 1);
        end.is_some()
    }

    fn value(&mut self, path: String, key: Option<Range<usize>>) -> Option<()> {
        self.skip();
        let start = self.at;
        let node = self.nodes.len();
        self.nodes.push(Node { path: path.clone(), key, value: start..self.text.len() });
        if self.depth == DEPTH_MAX {
            return None;
        }
        self.depth += 1;
        self.content(&path)?;
        self.depth -= 1;
        self.nodes[node].value.end = self.at;
        Some(())
    }

    fn content(&mut self, path: &str) -> Option<()> {
        match self.peek()? {
            '(' => self.group(path, false),
            '[' => self.list(path),
            '{' => self.map(path),
            '"' => self.string(),
            '\'' => self.character(),
            'r' if self.rest().starts_with("r\"")
                || self.rest().starts_with("r#\"")
                || self.rest().starts_with("r##") =>
            {
                self.raw_string()
            }
            'b' if self.rest().starts_with("b\"") => {
                self.at += 1;
                self.string()
            }
            c if c.is_alphabetic() || c == '_' => self.named(path),
            _ => self.word().map(drop),
        }
    }

    /// A number, or anything else up to the next separator.
    fn word(&mut self) -> Option<&'t str> {
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || "(){}[],:/\"".contains(c)).unwrap_or(rest.len());
        self.at += end;
        (end > 0).then(|| &rest[..end])
    }

    /// `name`, or `name(...)`.
    fn named(&mut self, path: &str) -> Option<()> {
        let name = self.word()?;
        let end = self.at;
        self.skip();
        if self.peek() == Some('(') {
            self.group(path, name == "Some")
        } else {
            // The value ends with its name, and not with the blanks after it.
            self.at = end;
            Some(())
        }
    }

    /// `( name: value, ... )` or `( value, ... )`. What stands in `Some( )` has the path
    /// of the whole.
    fn group(&mut self, path: &str, transparent: bool) -> Option<()> {
        self.at += 1;
        for place in 0.. {
            self.skip();
            if self.eat(')') {
                return Some(());
            }
            match self.field_name() {
                Some(key) => {
                    let name = &self.text[key.clone()];
                    let inner = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                    self.value(inner, Some(key))?;
                }
                None if transparent => self.value(path.to_owned(), None)?,
                None => self.value(format!("{path}.{place}"), None)?,
            }
            self.separator(')')?;
        }
        None
    }

    /// A name with a colon after it; both are consumed. Otherwise nothing is.
    fn field_name(&mut self) -> Option<Range<usize>> {
        let start = self.at;
        if !self.peek().is_some_and(|c| c.is_alphabetic() || c == '_') {
            return None;
        }
        let _ = self.word();
        let key = start..self.at;
        self.skip();
        if self.eat(':') {
            return Some(key);
        }
        self.at = start;
        None
    }

    fn list(&mut self, path: &str) -> Option<()> {
        self.at += 1;
        for place in 0.. {
            self.skip();
            if self.eat(']') {
                return Some(());
            }
            self.value(format!("{path}[{place}]"), None)?;
            self.separator(']')?;
        }
        None
    }

    fn map(&mut self, path: &str) -> Option<()> {
        self.at += 1;
        loop {
            self.skip();
            if self.eat('}') {
                return Some(());
            }
            let start = self.at;
            // The key is a value too, but none that is looked up.
            let keep = self.nodes.len();
            self.value(String::new(), None)?;
            self.nodes.truncate(keep);
            let key = start..self.at;
            self.skip();
            if !self.eat(':') {
                return None;
            }
            let name = &self.text[key.clone()];
            self.value(format!("{path}[{name}]"), Some(key))?;
            self.separator('}')?;
        }
    }

    /// A comma, or the end that follows.
    fn separator(&mut self, end: char) -> Option<()> {
        self.skip();
        (self.eat(',') || self.peek() == Some(end)).then_some(())
    }

    fn string(&mut self) -> Option<()> {
        let mut escaped = false;
        for (at, c) in self.rest().char_indices().skip(1) {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    self.at += at + 1;
                    return Some(());
                }
                _ => {}
            }
        }
        None
    }

    fn character(&mut self) -> Option<()> {
        let rest = self.rest();
        let from = if rest[1..].starts_with('\\') { 3 } else { 2 };
        let end = rest.char_indices().skip(from).find(|(_, c)| *c == '\'')?.0;
        self.at += end + 1;
        Some(())
    }

    fn raw_string(&mut self) -> Option<()> {
        let rest = self.rest();
        let hashes = rest[1..].chars().take_while(|c| *c == '#').count();
        if !rest[1 + hashes..].starts_with('"') {
            return None;
        }
        let close = format!("\"{}", "#".repeat(hashes));
        let body = 2 + hashes;
        let end = rest[body..].find(&close)?;
        self.at += body + end + close.len();
        Some(())
    }
}

/// Length of the blanks and comments at the start of `text`.
pub(crate) fn skipped(text: &str) -> usize {
    let mut scan = Scan { text, at: 0, depth: 0, nodes: Vec::new() };
    scan.skip();
    scan.at
}

/// Length of the block comment at the start of `text`; they nest. All of it if unclosed.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r##"#![enable(implicit_some)]
// A comment with ( and "quotes.
(
    host: (name: "cell-ä", id: Some(7)), /* nested /* comment */ , */
    datapaths: [
        (name: r#"a "raw" one"#, policy: fifo(80), idle: spin_then_block(us: 50)),
        (core : 1,links:["x","y"]),
    ],
    peers: [(links: {"net": "10.0.0.1:1"})],
)"##;

    fn value(path: &str) -> &'static str {
        let index = Index::new(TEXT);
        let node = index.nodes.iter().find(|node| node.path == path).unwrap_or_else(|| panic!("no {path}"));
        &TEXT[node.value.clone()]
    }

    #[test]
    fn every_kind_of_value_has_its_path() {
        assert_eq!(value("host.name"), "\"cell-ä\"");
        assert_eq!(value("host.id"), "Some(7)");
        assert_eq!(value("datapaths[0].name"), "r#\"a \"raw\" one\"#");
        assert_eq!(value("datapaths[0].policy"), "fifo(80)");
        assert_eq!(value("datapaths[0].policy.0"), "80");
        assert_eq!(value("datapaths[0].idle.us"), "50");
        assert_eq!(value("datapaths[1].core"), "1");
        assert_eq!(value("datapaths[1].links[1]"), "\"y\"");
        assert_eq!(value("peers[0].links[\"net\"]"), "\"10.0.0.1:1\"");
    }

    #[test]
    fn places_count_characters_from_one_and_go_both_ways() {
        let index = Index::new(TEXT);
        let node = index.find("host.id").unwrap();
        let place = index.place(TEXT, node.value.start);
        assert_eq!(place, Place { line: 4, column: 32 });
        assert_eq!(index.offset(TEXT, place), node.value.start);
        assert_eq!(index.offset(TEXT, Place { line: 99, column: 1 }), TEXT.len());
    }

    #[test]
    fn what_is_not_written_is_found_in_its_surroundings() {
        let index = Index::new(TEXT);
        assert_eq!(index.find("datapaths[1].idle.us").unwrap().path, "datapaths[1]");
        assert_eq!(index.find("log.level").unwrap().path, "");
    }

    #[test]
    fn broken_text_gives_what_came_before() {
        let index = Index::new("(a: 1, b: [2, (c: \"open");
        assert_eq!(index.nodes.last().unwrap().path, "b[1].c");
        for deep in ["(".repeat(5000), "[".repeat(5000), "{".repeat(5000), "a(".repeat(5000)] {
            assert!(Index::new(&deep).nodes.len() <= 65);
        }
    }
}
