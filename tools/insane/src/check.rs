//! `insane check`: everything that is wrong with configuration files.

use crate::output::{counted, machine, print_findings};
use crate::schedule::is_plant;
use insane_config::{LoadError, Machine, load};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Checks every file; one line each on standard output, findings on standard error.
pub fn run(files: &[PathBuf], elsewhere: bool) -> std::io::Result<ExitCode> {
    let machine = machine(elsewhere);
    let mut all_good = true;
    for file in files {
        all_good &= check(file, &machine)?;
    }
    Ok(if all_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(file: &Path, machine: &Machine) -> std::io::Result<bool> {
    let (verdict, is_good) = match load(file, machine) {
        Ok(loaded) if loaded.warnings.is_empty() => ("ok".to_owned(), true),
        Ok(loaded) => {
            print_findings(&loaded.warnings)?;
            (format!("ok, with {}", counted(loaded.warnings.count())), true)
        }
        Err(LoadError::Invalid(_)) if is_plant(file) => {
            let file = file.display();
            writeln!(std::io::stderr(), "error: {file} is a plant: `insane schedule synth {file}` checks it\n")?;
            ("a plant, not a configuration".to_owned(), false)
        }
        Err(LoadError::Invalid(findings)) => {
            print_findings(&findings)?;
            (counted(findings.count()), false)
        }
        Err(error) => {
            writeln!(std::io::stderr(), "{error}\n")?;
            ("not read".to_owned(), false)
        }
    };
    writeln!(std::io::stdout(), "{}: {verdict}", file.display())?;
    Ok(is_good)
}
