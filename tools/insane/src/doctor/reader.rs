//! Reads files below one directory: `/`, or a tree laid out like it.
//!
//! What is read is a claim: every read is bounded, only regular files are opened (a pipe
//! would wait for ever), bytes that are no UTF-8 are replaced, and a path never leaves the
//! tree, whatever symbolic links it holds.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Largest text that is read, bytes. A kernel configuration has about 300 KiB.
pub const TEXT_BYTES_MAX: u64 = 1 << 20;
/// Most entries of a directory that are looked at.
pub const ENTRIES_MAX: usize = 1 << 16;

/// A fact, or why it is not known.
pub type Read<T> = Result<T, Unread>;

/// What could not be read, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unread {
    /// A path or the name of a call.
    pub what: String,
    /// Why.
    pub why: Why,
}

/// Why something could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Why {
    /// There is no such file.
    Missing,
    /// The caller may not.
    Denied,
    /// It does not hold what it should, or the kernel refused otherwise.
    Other(String),
}

impl Unread {
    /// It holds something else than it should.
    pub fn nonsense(what: &str, text: &str, expected: &str) -> Unread {
        Unread { what: what.to_owned(), why: Why::Other(format!("\"{}\" is not {expected}", excerpt(text))) }
    }

    /// Any other reason.
    pub fn because(what: &str, why: impl Into<String>) -> Unread {
        Unread { what: what.to_owned(), why: Why::Other(why.into()) }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Missing => "there is no such file",
            Why::Denied => "permission denied",
            Why::Other(why) => why,
        })
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

/// Borrows a fact, or clones why it is not known: for `?` in a check.
pub trait Known<T> {
    /// The fact.
    fn known(&self) -> Result<&T, Unread>;
}

impl<T> Known<T> for Read<T> {
    fn known(&self) -> Result<&T, Unread> {
        self.as_ref().map_err(Clone::clone)
    }
}

/// The start of a text as one line that cannot steer a terminal.
pub fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    let text = text.trim();
    let mut line: String =
        text.chars().take(CHARS_MAX).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
    if text.chars().nth(CHARS_MAX).is_some() {
        line.push_str("...");
    }
    line
}

/// Reads below one directory.
pub struct Reader {
    root: PathBuf,
}

impl Reader {
    /// A reader of the tree at `root`.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn at(root: &Path) -> std::io::Result<Reader> {
        let root = root.canonicalize()?;
        if root.is_dir() {
            return Ok(Reader { root });
        }
        Err(std::io::Error::new(std::io::ErrorKind::NotADirectory, "it is not a directory"))
    }

    /// Whether the tree is this machine's own.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The bytes of a file, at most [`TEXT_BYTES_MAX`].
    pub fn bytes(&self, path: &str) -> Read<Vec<u8>> {
        let file = self.file(path, std::fs::OpenOptions::new().read(true))?;
        let mut bytes = Vec::new();
        file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| refusal(path, &error))?;
        if bytes.len() as u64 > TEXT_BYTES_MAX {
            return Err(Unread::because(path, format!("it has more than {TEXT_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    /// The text of a file, without white space at its end.
    pub fn text(&self, path: &str) -> Read<String> {
        let bytes = self.bytes(path)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
    }

    /// The number that a file holds.
    pub fn number<N: std::str::FromStr>(&self, path: &str) -> Read<N> {
        let text = self.text(path)?;
        text.trim().parse().map_err(|_| Unread::nonsense(path, &text, "a number"))
    }

    /// Names in a directory, numbers in their order. More than [`ENTRIES_MAX`] are cut off.
    pub fn entries(&self, path: &str) -> Read<Vec<String>> {
        let entries = std::fs::read_dir(self.resolve(path)?).map_err(|error| refusal(path, &error))?;
        let names = entries.take(ENTRIES_MAX).flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort_by(|a, b| number_at_end(a).cmp(&number_at_end(b)).then_with(|| a.cmp(b)));
        Ok(names)
    }

    /// Whether there is such a file or directory that may be looked at.
    pub fn has(&self, path: &str) -> bool {
        self.resolve(path).is_ok()
    }

    /// Replaces what a file holds; never makes one.
    pub fn write(&self, path: &str, text: &str) -> Read<()> {
        let mut file = self.file(path, std::fs::OpenOptions::new().write(true).truncate(true))?;
        // One call: the kernel takes a value whole.
        file.write_all(format!("{text}\n").as_bytes()).map_err(|error| refusal(path, &error))
    }

    fn file(&self, path: &str, how: &std::fs::OpenOptions) -> Read<std::fs::File> {
        let place = self.resolve(path)?;
        let kind = std::fs::metadata(&place).map_err(|error| refusal(path, &error))?.file_type();
        if !kind.is_file() {
            return Err(Unread::because(path, "it is not a file"));
        }
        how.open(&place).map_err(|error| refusal(path, &error))
    }

    /// Where a path of the system lies in the tree.
    fn resolve(&self, path: &str) -> Read<PathBuf> {
        let place = self.root.join(path.trim_start_matches('/'));
        let place = place.canonicalize().map_err(|error| refusal(path, &error))?;
        if place.starts_with(&self.root) {
            return Ok(place);
        }
        Err(Unread::because(path, "it leads out of the tree"))
    }
}

fn refusal(path: &str, error: &std::io::Error) -> Unread {
    let why = match error.kind() {
        std::io::ErrorKind::NotFound => Why::Missing,
        std::io::ErrorKind::PermissionDenied => Why::Denied,
        _ => {
            let text = error.to_string();
            Why::Other(text.split(" (os error").next().unwrap_or(&text).to_owned())
        }
    };
    Unread { what: path.to_owned(), why }
}

/// `cpu10` comes after `cpu9`.
fn number_at_end(name: &str) -> Option<u64> {
    let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    name[name.len() - digits..].parse().ok()
}
