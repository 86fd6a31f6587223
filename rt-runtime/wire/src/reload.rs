//! The answer to [`Request::Reload`](crate::control::Request::Reload): what a new
//! configuration changes, and what became of it. JSON; unknown fields are ignored, missing
//! ones have their default.

use serde::{Deserialize, Serialize};

/// What became of a new configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Nothing of it was done, for the reasons given.
    #[default]
    Refused,
    /// It says what holds already.
    Unchanged,
    /// It could be applied; nothing was done, as asked.
    DryRun,
    /// It holds.
    Applied,
    /// Something failed on the way; everything done until then was undone.
    RolledBack,
    /// Something failed on the way, and something of what was done could not be undone.
    Broken,
}

/// One difference between what holds and the file.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChangeReport {
    /// Where it stands: `peers["cell-b"].links["net"]`.
    pub path: String,
    /// `added`, `removed` or `changed`.
    pub kind: String,
    /// Before, in the words of the file.
    pub old: Option<String>,
    /// After.
    pub new: Option<String>,
    /// It cannot change while the runtime is in use.
    pub needs_restart: bool,
    /// For whom it holds, where that is not everybody.
    pub holds_for: Option<String>,
}

/// A session, or a quota, that has more than the new configuration would give it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Excess {
    /// Of which domain.
    pub domain: String,
    /// What it is, and that it stays.
    pub what: String,
}

/// What other declarations mean for a stream that is open.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamEffect {
    /// Of which domain.
    pub domain: String,
    /// Its name.
    pub stream: String,
    /// What changes at once, and what when it is opened anew.
    pub what: String,
}

/// The whole answer.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ReloadReport {
    /// What became of it.
    pub outcome: Outcome,
    /// The file that was read.
    pub file: String,
    /// All differences, those that are refused included.
    pub changes: Vec<ChangeReport>,
    /// Why nothing, or not everything, was done.
    pub errors: Vec<String>,
    /// What should be known of the file all the same.
    pub warnings: Vec<String>,
    /// What was done and undone, after a failure.
    pub undone: Vec<String>,
    /// What exceeds the new rules and quotas, and stays.
    pub excess: Vec<Excess>,
    /// What other declarations mean for streams that are open.
    pub streams: Vec<StreamEffect>,
}

impl ReloadReport {
    /// Whether what the file says holds now, or would.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Unchanged | Outcome::DryRun | Outcome::Applied)
    }
}
