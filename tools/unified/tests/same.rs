//! What this package is for: crates from elsewhere have the same features in the step `gossip` of
//! the check as in the whole workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// The sets of features that each crate from elsewhere is compiled with.
fn features(selection: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}|{f}|"]).args(selection);
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
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
    crates
}

#[test]
fn with_gossip_crates_from_elsewhere_are_those_of_the_workspace() {
    let alone = features(&["--workspace"]);
    let gossip = features(&[
        "-p",
        "insane-discovery",
        "-p",
        "insaned",
        "-p",
        "insane-unified",
        "--features",
        "insane-discovery/gossip,insaned/gossip",
    ]);
    let shared: Vec<_> = gossip.iter().filter_map(|(name, with)| Some((name, with, alone.get(name)?))).collect();
    assert!(shared.len() > 80 && gossip.len() > shared.len(), "{} of {}", shared.len(), gossip.len());
    // What builds C has its own set of one or the other, beside that of all.
    let apart: Vec<_> = shared.iter().filter(|(_, with, without)| with.is_disjoint(without)).collect();
    assert!(apart.is_empty(), "these differ (crate, with gossip, without): {apart:#?}");
}
