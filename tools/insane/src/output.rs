//! What all commands share: colours, findings, and the machine to compare with.

use insane_config::{Findings, Machine};
use std::io::{IsTerminal, Write};

/// Whether to use colours on a stream: a terminal, unless the user says NO_COLOR.
pub fn colour(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints findings to standard error, each followed by an empty line.
pub fn print_findings(findings: &Findings) -> std::io::Result<()> {
    let mut errors = std::io::stderr().lock();
    let colour = colour(&errors);
    for finding in &findings.0 {
        writeln!(errors, "{}", finding.render(colour))?;
    }
    Ok(())
}

/// This machine, or none in particular.
pub fn machine(elsewhere: bool) -> Machine {
    if elsewhere { Machine::unknown() } else { Machine::detect() }
}

/// `1 link`, `2 links`.
pub fn of(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

/// `1 error and 2 warnings`.
pub fn counted((errors, warnings): (usize, usize)) -> String {
    match (errors, warnings) {
        (0, warnings) => of(warnings, "warning"),
        (errors, 0) => of(errors, "error"),
        (errors, warnings) => format!("{} and {}", of(errors, "error"), of(warnings, "warning")),
    }
}
