//! `insane reload`: another configuration for a running runtime, shown as a difference first.

use crate::observer::{Observer, StatusError};
use crate::output::colour;
use insane_config::LoadError;
use insane_core::Nanos;
use insane_wire::reload::{ChangeReport, Outcome, ReloadReport};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the session calls itself.
const NAME: &str = "insane reload";

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The configuration file; the one that the runtime was started with, if none is given.
    #[arg(value_name = "CONFIG.ron")]
    file: Option<PathBuf>,
    /// Only show what would change, and what would be refused.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    File(#[from] LoadError),
    #[error("error: {0}")]
    Runtime(#[from] StatusError),
}

/// Reloads, and shows what changed. Status 1 if the file does not hold now, or would not.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let report = match ask(arguments) {
        Ok(report) => report,
        Err(failure) => {
            writeln!(std::io::stderr(), "{failure}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    if arguments.json {
        let json = serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?;
        writeln!(std::io::stdout(), "{json}")?;
    } else {
        let mut output = std::io::stdout().lock();
        let colour = colour(&output);
        write!(output, "{}", render(&report, colour))?;
        for line in report.warnings.iter().chain(&report.errors) {
            writeln!(std::io::stderr(), "{line}")?;
        }
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(arguments: &Arguments) -> Result<ReloadReport, Failure> {
    let file =
        arguments.file.as_deref().map(|path| Ok::<_, LoadError>((path, insane_config::read(path)?))).transpose()?;
    let timeout = Nanos::from_millis(arguments.timeout);
    let mut observer = Observer::attach(&arguments.socket, timeout, NAME, None)?;
    let file = file.as_ref().map(|(path, text)| (name_of(path), text.as_bytes()));
    Ok(observer.reload(file.as_ref().map(|(name, text)| (name.as_str(), *text)), arguments.dry_run)?)
}

fn name_of(path: &Path) -> String {
    path.display().to_string()
}

/// The difference by sections, then what became of it.
fn render(report: &ReloadReport, colour: bool) -> String {
    let mut text = String::new();
    let mut section = "";
    for change in &report.changes {
        let this = change.path.split(['.', '[']).next().unwrap_or("");
        if this != section {
            section = this;
            let _ = writeln!(text, "{section}:");
        }
        text.push_str(&line(change, colour));
    }
    for excess in &report.excess {
        let _ = writeln!(text, "domain {:?}: {}", excess.domain, excess.what);
    }
    for effect in &report.streams {
        let _ = writeln!(text, "domain {:?}: open stream {:?}: {}", effect.domain, effect.stream, effect.what);
    }
    for undone in &report.undone {
        let _ = writeln!(text, "undone: {undone}");
    }
    let changes = match report.changes.len() {
        1 => "1 change".to_owned(),
        count => format!("{count} changes"),
    };
    let _ = match report.outcome {
        Outcome::Applied => writeln!(text, "{}: {changes} applied", report.file),
        Outcome::DryRun => writeln!(text, "{}: {changes} would be applied; nothing was done", report.file),
        Outcome::Unchanged => writeln!(text, "{}: nothing to change", report.file),
        Outcome::Refused => writeln!(text, "{}: refused; nothing has changed", report.file),
        Outcome::RolledBack => writeln!(text, "{}: failed, and undone; everything is as before", report.file),
        Outcome::Broken => writeln!(text, "{}: failed, and could not be undone; restart the runtime", report.file),
    };
    text
}

fn line(change: &ChangeReport, colour: bool) -> String {
    let (sign, code) = match (&change.old, &change.new) {
        (None, _) => ("+", "32"),
        (_, None) => ("-", "31"),
        _ => ("~", "33"),
    };
    let value = match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{old} -> {new}"),
        (old, new) => old.as_ref().or(new.as_ref()).cloned().unwrap_or_default(),
    };
    let mut text = format!("  {sign} {}: {value}", change.path);
    if colour {
        text = format!("\x1b[{code}m{text}\x1b[0m");
    }
    if change.needs_restart {
        text.push_str("  (refused: needs a restart)");
    } else if let Some(whom) = &change.holds_for {
        let _ = write!(text, "  ({whom})");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, old: Option<&str>, new: Option<&str>) -> ChangeReport {
        ChangeReport {
            path: path.into(),
            old: old.map(Into::into),
            new: new.map(Into::into),
            ..ChangeReport::default()
        }
    }

    #[test]
    fn a_difference_is_shown_by_section_and_says_what_became_of_it() {
        let report = ReloadReport {
            outcome: Outcome::Refused,
            file: "x.ron".into(),
            changes: vec![
                ChangeReport { needs_restart: true, ..change("links[\"net\"].bind", Some("a:1"), Some("a:2")) },
                change("peers[\"b\"]", Some("links[\"net\"]: c:1"), None),
                change("peers[\"d\"]", None, Some("links[\"net\"]: d:1")),
                ChangeReport {
                    holds_for: Some("later".into()),
                    ..change("domains[\"e\"].members", Some("[any]"), Some("[]"))
                },
            ],
            ..ReloadReport::default()
        };
        let expected = "links:\n  ~ links[\"net\"].bind: a:1 -> a:2  (refused: needs a restart)\n\
                        peers:\n  - peers[\"b\"]: links[\"net\"]: c:1\n  + peers[\"d\"]: links[\"net\"]: d:1\n\
                        domains:\n  ~ domains[\"e\"].members: [any] -> []  (later)\n\
                        x.ron: refused; nothing has changed\n";
        assert_eq!(render(&report, false), expected);
        assert!(render(&report, true).contains("\x1b[31m  - peers"));
        for (outcome, word) in [
            (Outcome::Applied, "4 changes applied"),
            (Outcome::DryRun, "nothing was done"),
            (Outcome::Unchanged, "nothing to change"),
            (Outcome::RolledBack, "everything is as before"),
            (Outcome::Broken, "restart the runtime"),
        ] {
            assert!(render(&ReloadReport { outcome, ..report.clone() }, false).contains(word), "{word}");
        }
    }
}
