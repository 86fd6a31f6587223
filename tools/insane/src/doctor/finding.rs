//! Findings, and the score that they add up to.

use super::host::Host;
use super::reader::Unread;
use super::wanted::Wanted;
use serde_json::{Value, json};

/// How something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum State {
    /// As it should be.
    Good,
    /// Not known.
    Unread,
    /// It costs determinism.
    Warning,
    /// It breaks determinism, or what the configuration asks for.
    Bad,
}

impl State {
    /// The word in reports.
    pub const fn word(self) -> &'static str {
        match self {
            State::Good => "good",
            State::Unread => "cannot read",
            State::Warning => "warning",
            State::Bad => "bad",
        }
    }
}

/// What a check says of what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// How it is; never [`State::Unread`].
    pub state: State,
    /// What was read.
    pub read: String,
    /// What to do. Lines that begin with `$ ` are commands; empty where all is good.
    pub remedy: String,
}

/// All is good.
pub fn good(read: impl Into<String>) -> Outcome {
    Ok(Some(Verdict { state: State::Good, read: read.into(), remedy: String::new() }))
}

/// It costs determinism.
pub fn warning(read: impl Into<String>, remedy: impl Into<String>) -> Outcome {
    Ok(Some(Verdict { state: State::Warning, read: read.into(), remedy: remedy.into() }))
}

/// It breaks determinism.
pub fn bad(read: impl Into<String>, remedy: impl Into<String>) -> Outcome {
    Ok(Some(Verdict { state: State::Bad, read: read.into(), remedy: remedy.into() }))
}

/// A verdict; nothing where the question does not arise; or what is not known.
pub type Outcome = Result<Option<Verdict>, Unread>;

/// A value of a file, and what it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The file.
    pub path: String,
    /// What it holds now.
    pub from: String,
    /// What it should hold.
    pub to: String,
}

/// What `--apply` does about a finding.
pub enum Mend {
    /// Nothing, for this reason.
    ByHand(&'static str),
    /// These changes, or nothing for the reason that it gives.
    Changes(fn(&Host, &Wanted) -> Result<Vec<Change>, String>),
}

/// One thing that is looked at.
pub struct Entry {
    /// Its name, which stays the same in later versions.
    pub id: &'static str,
    /// How much it counts in the score.
    pub weight: u32,
    /// What is read.
    pub reads: &'static str,
    /// Why it matters for cyclic tasks and datapaths.
    pub why: &'static str,
    /// Where the facts come from.
    pub source: &'static str,
    /// What to do where it cannot be read.
    pub unread: &'static str,
    /// Looks at it.
    pub check: fn(&Host, &Wanted) -> Outcome,
    /// What `--apply` does about it.
    pub mend: Mend,
}

/// What was found at one entry.
#[derive(Clone)]
pub struct Finding {
    /// The entry.
    pub entry: &'static Entry,
    /// How it is.
    pub state: State,
    /// What was read, or why it could not be.
    pub read: String,
    /// What to do.
    pub remedy: String,
}

impl Finding {
    /// Looks at one entry; nothing where the question does not arise.
    pub fn of(entry: &'static Entry, host: &Host, wanted: &Wanted) -> Option<Finding> {
        let (state, read, remedy) = match (entry.check)(host, wanted) {
            Ok(None) => return None,
            Ok(Some(verdict)) => (verdict.state, verdict.read, verdict.remedy),
            Err(unread) => (State::Unread, unread.to_string(), entry.unread.to_owned()),
        };
        Some(Finding { entry, state, read: clean(&read.replace('\n', " ")), remedy: clean(&remedy) })
    }

    /// For machines.
    pub fn json(&self) -> Value {
        json!({
            "id": self.entry.id,
            "state": self.state.word(),
            "read": self.read,
            "why": self.entry.why,
            "remedy": self.remedy,
        })
    }
}

/// Text of files and names cannot steer the terminal; lines stay.
fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// 0 to 100: the weights of what is good and half the weights of warnings, of the weights of
/// all that could be read, rounded down. Only a host without a flaw has 100. `None`: nothing
/// could be read.
pub fn score(findings: &[Finding]) -> Option<u32> {
    let (mut reached, mut most) = (0, 0);
    for finding in findings {
        let weight = finding.entry.weight;
        match finding.state {
            State::Unread => continue,
            State::Good => reached += 2 * weight,
            State::Warning => reached += weight,
            State::Bad => {}
        }
        most += 2 * weight;
    }
    (reached * 100).checked_div(most)
}
