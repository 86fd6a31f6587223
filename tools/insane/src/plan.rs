//! `insane plan`: where every byte goes that a configuration may need.

use crate::output::{machine, print_findings};
use insane_config::{Budget, Findings, LayoutSizes, LoadError, Machine, parse, parse_unbudgeted, planner, read};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Prints the table even of what does not fit, then what is wrong with it.
pub fn run(file: &Path, json: bool, elsewhere: bool) -> std::io::Result<ExitCode> {
    match budget(file, &machine(elsewhere)) {
        Ok((budget, findings)) => {
            let mut output = std::io::stdout().lock();
            if json {
                let text = serde_json::to_string_pretty(&budget).map_err(std::io::Error::other)?;
                writeln!(output, "{text}")?;
            } else {
                output.write_all(planner::render(&budget).as_bytes())?;
            }
            output.flush()?;
            if !findings.is_empty() && !json {
                writeln!(std::io::stderr())?;
            }
            print_findings(&findings)?;
            Ok(if findings.has_errors() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        Err(LoadError::Invalid(findings)) => {
            print_findings(&findings)?;
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            writeln!(std::io::stderr(), "{error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The budget, and what is to be said about it.
fn budget(file: &Path, machine: &Machine) -> Result<(Budget, Findings), LoadError> {
    let text = read(file)?;
    let name = file.display().to_string();
    let loaded = parse_unbudgeted(&name, &text, machine)?;
    let findings = match parse(&name, &text, machine) {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings,
    };
    Ok((Budget::of(&loaded.plan, &LayoutSizes::default()), findings))
}
