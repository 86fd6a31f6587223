//! What the package `insane-unified` is for: crates from elsewhere have the same features in the step
//! `gossip` as in the whole workspace.

use crate::steps::GOSSIP;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Set by `cargo xtask`, which fetches all crates before.
const CHECK: &str = "INSANE_CHECK";

/// The sets of features that each crate from elsewhere is compiled with. `None`: not all crates of
/// the lock file are fetched, and this is no run of the whole check.
fn features(selection: &[&str]) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}|{f}|"]).args(selection);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let reason = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && reason.contains("--offline") && std::env::var_os(CHECK).is_none() {
        eprintln!("passed over: `cargo fetch --locked` has not run: {reason}");
        return None;
    }
    assert!(output.status.success(), "{reason}");
    let mut crates: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        // Others are headings.
        let Some((name, rest)) = line.split_once('|') else { continue };
        let set = rest.split('|').next().unwrap_or_default();
        // A crate of the workspace has its folder behind its name.
        if !name.contains("(/") {
            crates.entry(name.to_owned()).or_default().insert(set.to_owned());
        }
    }
    Some(crates)
}

#[test]
fn with_gossip_crates_from_elsewhere_are_those_of_the_workspace() {
    let Some(alone) = features(&["--workspace"]) else { return };
    let Some(gossip) = features(&GOSSIP) else { return };
    let shared: Vec<_> = gossip.iter().filter_map(|(name, with)| Some((name, with, alone.get(name)?))).collect();
    assert!(shared.len() > 80 && gossip.len() > shared.len(), "{} of {}", shared.len(), gossip.len());
    // What builds C has its own set of one or the other, beside that of all.
    let apart: Vec<_> = shared.iter().filter(|(_, with, without)| with.is_disjoint(without)).collect();
    assert!(apart.is_empty(), "these differ (crate, with gossip, without): {apart:#?}");
}
