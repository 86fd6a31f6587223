//! Finds the daemon beside this program, and has it built where it is missing or older
//! than its sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// Folders of the workspace that the daemon is made from.
const SOURCES: [&str; 3] = ["rt-runtime", "plugins", "scheduler"];
/// Folders in them that are no part of it.
const APART: [&str; 6] = ["client", "conformance", "sim", "tests", "benches", "examples"];

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// This program's own file is unknown.
    #[error("this program's own file is unknown: {0}")]
    Myself(std::io::Error),
    /// It is not there, and nothing says how to build it.
    #[error("insaned is not beside this program; build it with: cargo build --release -p insaned")]
    Missing,
    /// The build failed.
    #[error("building insaned failed: {0}")]
    Build(String),
}

/// The daemon's file.
pub fn find_or_build() -> Result<PathBuf, DaemonError> {
    let myself = std::env::current_exe().map_err(DaemonError::Myself)?;
    let folder = myself.parent().unwrap_or(Path::new("."));
    let insaned = folder.join("insaned");
    // Both are set when cargo runs this program.
    let cargo = std::env::var_os("CARGO").zip(std::env::var_os("CARGO_MANIFEST_DIR"));
    let built = modified(&insaned);
    let Some((cargo, manifest)) = cargo else {
        return if built.is_some() { Ok(insaned) } else { Err(DaemonError::Missing) };
    };
    let workspace = Path::new(&manifest).parent().unwrap_or(Path::new("."));
    if built.is_some_and(|built| newest(workspace).is_none_or(|source| source <= built)) {
        return Ok(insaned);
    }
    let state = if built.is_some() { "is older than its sources" } else { "is not built yet" };
    eprintln!("insaned {state}: building it ...");
    build(&cargo, workspace, folder)?;
    if modified(&insaned).is_some() { Ok(insaned) } else { Err(DaemonError::Missing) }
}

/// Builds with this program's profile, into this program's target folder.
fn build(cargo: &std::ffi::OsStr, workspace: &Path, folder: &Path) -> Result<(), DaemonError> {
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "insaned"]).current_dir(workspace);
    match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(profile) => {
            command.args(["--profile", profile]);
        }
    }
    if let Some(target) = folder.parent() {
        command.arg("--target-dir").arg(target);
    }
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(DaemonError::Build(status.to_string())),
        Err(error) => Err(DaemonError::Build(error.to_string())),
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// When the daemon's sources last changed.
fn newest(workspace: &Path) -> Option<SystemTime> {
    let mut open: Vec<PathBuf> = SOURCES.iter().map(|folder| workspace.join(folder)).collect();
    let mut newest = modified(&workspace.join("Cargo.lock"));
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                let is_apart = APART.iter().any(|apart| path.ends_with(apart));
                open.extend((!is_apart).then_some(path));
            } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "toml") {
                newest = newest.max(modified(&path));
            }
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_of_the_daemon_are_found() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        assert!(newest(workspace) >= modified(&workspace.join("rt-runtime/daemon/src/main.rs")));
        for folder in SOURCES {
            assert!(workspace.join(folder).is_dir(), "{folder}");
        }
    }
}
