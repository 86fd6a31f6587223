//! `--apply`: changes what can be mended while the machine runs.
//!
//! Each change is one value of one file. It is shown before it is made and read back
//! afterwards; one that fails does not keep the next from being made.

use super::finding::{Change, Finding, Mend, State};
use super::host::Host;
use super::reader::{Reader, excerpt};
use super::wanted::Wanted;
use serde_json::{Value, json};

/// What became of one change.
pub enum Fate {
    /// Only shown (`--dry-run`).
    Shown,
    /// The file holds the new value.
    Made,
    /// It holds another one, for this reason.
    Failed(String),
}

/// One change and what became of it.
pub struct Step {
    /// The finding that it mends.
    pub id: &'static str,
    /// The change.
    pub change: Change,
    /// What became of it.
    pub fate: Fate,
}

/// Something that is not good and was not touched.
pub struct Left {
    /// The finding.
    pub id: &'static str,
    /// Why nothing was done about it.
    pub why: String,
}

/// All changes, and what was left.
#[derive(Default)]
pub struct Applied {
    /// In the order in which they were made.
    pub steps: Vec<Step>,
    /// The rest.
    pub left: Vec<Left>,
}

/// The changes that the findings call for, none of them made yet.
pub fn plan(findings: &[Finding], host: &Host, wanted: &Wanted) -> Applied {
    let mut plan = Applied::default();
    for finding in findings.iter().filter(|finding| matches!(finding.state, State::Warning | State::Bad)) {
        let id = finding.entry.id;
        let changes = match finding.entry.mend {
            Mend::ByHand(why) => Err(why.to_owned()),
            Mend::Changes(changes) => changes(host, wanted),
        };
        match changes {
            Err(why) => plan.left.push(Left { id, why }),
            Ok(changes) if changes.is_empty() => {
                plan.left.push(Left { id, why: "no file is there to change it".into() });
            }
            Ok(changes) => {
                plan.steps.extend(changes.into_iter().map(|change| Step { id, change, fate: Fate::Shown }));
            }
        }
    }
    plan
}

/// Makes one change, and reads it back.
pub fn make(change: &Change, reader: &Reader) -> Fate {
    if let Err(unread) = reader.write(&change.path, &change.to) {
        return Fate::Failed(unread.why.to_string());
    }
    match reader.text(&change.path) {
        Ok(now) if holds(&now, &change.to) => Fate::Made,
        Ok(now) => Fate::Failed(format!("it still says {}", excerpt(&now))),
        Err(unread) => Fate::Failed(unread.why.to_string()),
    }
}

/// Whether a file says a value: alone, or as the chosen one of several.
fn holds(text: &str, value: &str) -> bool {
    text.trim() == value || text.split_whitespace().any(|word| word == format!("[{value}]"))
}

impl Step {
    /// What became of it, in a word.
    pub const fn word(&self) -> &'static str {
        match self.fate {
            Fate::Shown => "would be changed",
            Fate::Made => "changed",
            Fate::Failed(_) => "not changed",
        }
    }
}

impl Applied {
    /// For machines.
    pub fn json(&self) -> Value {
        let step = |step: &Step| {
            let Change { path, from, to } = &step.change;
            let why = if let Fate::Failed(why) = &step.fate { Some(why) } else { None };
            json!({"id": step.id, "path": path, "from": from, "to": to, "outcome": step.word(), "why": why})
        };
        let left = |left: &Left| json!({"id": left.id, "why": left.why});
        json!({
            "changes": self.steps.iter().map(step).collect::<Vec<_>>(),
            "left": self.left.iter().map(left).collect::<Vec<_>>(),
        })
    }
}
