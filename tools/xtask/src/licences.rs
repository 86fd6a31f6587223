//! The check of all dependencies: each has a licence that may be combined with ours,
//! and none is there twice without a reason.
//!
//! Reads what `cargo metadata` says for this platform with every feature on, with and
//! without the flag of the loom tests, offline and from the lock file as it stands.

use crate::duplicates::ACCEPTED;
use crate::process::cargo;
use crate::spdx;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The licence of every crate of the workspace.
const OUR_LICENCE: &str = "MIT OR Apache-2.0";

/// Why the check did not pass.
#[derive(Debug, thiserror::Error)]
pub enum LicencesError {
    /// cargo or rustc could not be run, or refused.
    #[error("{program} failed: {reason}\n(the check works offline, once `cargo fetch --locked` has run)")]
    Tool {
        /// What was run.
        program: &'static str,
        /// What it said.
        reason: String,
    },
    /// The output of `cargo metadata` is not what it used to be.
    #[error("cannot read the output of cargo metadata: {0}")]
    Metadata(&'static str),
    /// Dependencies that are refused, one line each.
    #[error("{} refused:\n  {}", .0.len(), .0.join("\n  "))]
    Refused(Vec<String>),
}

/// One crate of the build.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Package {
    name: String,
    version: String,
    licence: Option<String>,
    ours: bool,
}

/// Checks the dependencies of the workspace at `root`, prints the table, and returns
/// one line about the result.
///
/// # Errors
/// [`LicencesError`].
pub fn check(root: &Path) -> Result<String, LicencesError> {
    let mut packages = parse(&metadata(root, "")?)?;
    packages.extend(parse(&metadata(root, "--cfg loom")?)?);
    packages.sort();
    packages.dedup();
    print_table(&packages);
    let refused = refusals(&packages, ACCEPTED);
    if refused.is_empty() {
        let foreign = packages.iter().filter(|package| !package.ours).count();
        Ok(format!("{foreign} dependencies, {} accepted duplicates", ACCEPTED.len()))
    } else {
        Err(LicencesError::Refused(refused))
    }
}

fn metadata(root: &Path, rustflags: &str) -> Result<Value, LicencesError> {
    let failed = |program, reason: String| LicencesError::Tool { program, reason };
    let rustc = std::process::Command::new("rustc")
        .arg("-vV")
        .current_dir(root)
        .output()
        .map_err(|error| failed("rustc -vV", error.to_string()))?;
    let host = String::from_utf8_lossy(&rustc.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .ok_or_else(|| failed("rustc -vV", "it names no host platform".to_owned()))?;
    let output = cargo(root)
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--all-features", "--filter-platform"])
        .arg(host)
        .env("RUSTFLAGS", rustflags)
        .output()
        .map_err(|error| failed("cargo metadata", error.to_string()))?;
    if !output.status.success() {
        return Err(failed("cargo metadata", String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|_| LicencesError::Metadata("it is not JSON"))
}

/// The crates of the resolved graph, by name and version.
fn parse(metadata: &Value) -> Result<Vec<Package>, LicencesError> {
    let list = |value: &Value, what| value.as_array().cloned().ok_or(LicencesError::Metadata(what));
    let text = |value: &Value, what| value.as_str().map(str::to_owned).ok_or(LicencesError::Metadata(what));
    let ours = list(&metadata["workspace_members"], "no workspace_members")?;
    let mut used = BTreeSet::new();
    for node in list(&metadata["resolve"]["nodes"], "no resolve.nodes")? {
        used.insert(text(&node["id"], "a node without an id")?);
    }
    let mut packages = Vec::new();
    for package in list(&metadata["packages"], "no packages")? {
        if used.contains(&text(&package["id"], "a package without an id")?) {
            packages.push(Package {
                name: text(&package["name"], "a package without a name")?,
                version: text(&package["version"], "a package without a version")?,
                licence: package["license"].as_str().map(str::to_owned),
                ours: ours.contains(&package["id"]),
            });
        }
    }
    Ok(packages)
}

/// One line for everything that is not as it should be.
fn refusals(packages: &[Package], accepted: &[(&str, &str)]) -> Vec<String> {
    let mut refused: Vec<String> = packages
        .iter()
        .filter_map(|package| licence_refusal(package).map(|why| named(package) + ": " + &why))
        .collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().push(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    for (name, versions) in &versions {
        if !accepted.iter().any(|entry| entry.0 == *name) {
            refused.push(format!("{name}: in the build as {}; duplicates.rs gives no reason", versions.join(" and ")));
        }
    }
    for (name, _) in accepted.iter().filter(|entry| !versions.contains_key(entry.0)) {
        refused.push(format!("{name}: listed in duplicates.rs, but in the build once at most"));
    }
    refused
}

fn licence_refusal(package: &Package) -> Option<String> {
    let Some(licence) = &package.licence else {
        return Some("names no licence".to_owned());
    };
    if package.ours && licence != OUR_LICENCE {
        return Some(format!("is ours, and its licence is `{licence}` instead of `{OUR_LICENCE}`"));
    }
    match spdx::is_allowed(licence) {
        Ok(true) => None,
        Ok(false) => Some(format!("its licence `{licence}` does not go with `{OUR_LICENCE}`")),
        Err(error) => Some(format!("its licence `{licence}` is no SPDX expression: {error}")),
    }
}

fn named(package: &Package) -> String {
    format!("{} {}", package.name, package.version)
}

fn print_table(packages: &[Package]) {
    let foreign: Vec<_> = packages.iter().filter(|package| !package.ours).collect();
    let width = foreign.iter().map(|package| named(package).len()).max().unwrap_or(0);
    for package in foreign {
        println!("{:width$}  {}", named(package), package.licence.as_deref().unwrap_or("(none)"));
    }
    for (name, reason) in ACCEPTED {
        println!("twice: {name}: {reason}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, version: &str, licence: Option<&str>) -> Package {
        Package { name: name.into(), version: version.into(), licence: licence.map(str::to_owned), ours: false }
    }

    #[test]
    fn only_the_resolved_graph_counts() {
        let metadata = json!({
            "workspace_members": ["path+a"],
            "resolve": { "nodes": [{ "id": "path+a" }, { "id": "b" }] },
            "packages": [
                { "id": "b", "name": "b", "version": "2.0.0", "license": null },
                { "id": "path+a", "name": "a", "version": "0.1.0", "license": "MIT OR Apache-2.0" },
                { "id": "unused", "name": "unused", "version": "1.0.0", "license": "GPL-3.0" },
            ],
        });
        let ours = Package { ours: true, ..package("a", "0.1.0", Some(OUR_LICENCE)) };
        assert_eq!(parse(&metadata).unwrap(), [package("b", "2.0.0", None), ours]);
        assert!(matches!(parse(&json!({})), Err(LicencesError::Metadata("no workspace_members"))));
    }

    #[test]
    fn licences_are_refused_with_a_reason() {
        let refused = refusals(
            &[
                package("fine", "1.0.0", Some("MIT/Apache-2.0")),
                package("gpl", "1.0.0", Some("GPL-3.0")),
                package("none", "1.0.0", None),
                package("odd", "1.0.0", Some("MIT or so")),
                Package { ours: true, ..package("mine", "0.1.0", Some("MIT")) },
            ],
            &[],
        );
        assert_eq!(refused.len(), 4, "{refused:?}");
        for (line, part) in
            refused.iter().zip(["gpl 1.0.0: its licence", "names no", "no SPDX expression", "instead of"])
        {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn duplicates_need_a_reason_and_reasons_a_duplicate() {
        let packages = [
            package("a", "1.0.0", Some("MIT")),
            package("a", "2.0.0", Some("MIT")),
            package("b", "1.0.0", Some("MIT")),
        ];
        assert_eq!(refusals(&packages, &[]).len(), 1);
        assert!(refusals(&packages, &[])[0].contains("1.0.0 and 2.0.0"));
        assert!(refusals(&packages, &[("a", "because")]).is_empty());
        assert!(refusals(&packages, &[("a", "because"), ("b", "no more")])[0].contains("once at most"));
    }
}
