//! Fuzz targets: what bytes from elsewhere reach first.
//!
//! | target | what it feeds | what must hold |
//! |---|---|---|
//! | `netstack` | frames to a stack, from Ethernet up | no panic; what is handed out was addressed, whole and of one host; answers amplify nothing |
//! | `data` | data headers, frames, bundles | what is read is what would be written; pieces lie inside |
//! | `overlay` | overlay, group, liveness and reliable bodies | what is read is what would be written |
//! | `control` | packets of the control socket | what is read survives being written |
//! | `neighbours` | what the kernel tells of neighbours | what is read stands there, and one station has it |
//!
//! Two engines run them. The tests of this crate replay the corpus and change it at random, from a
//! seed, without knowing what code is reached: they need nothing and run everywhere. `cargo xtask
//! fuzz` runs libFuzzer, which is guided by coverage, and needs a C++ compiler; the corpus
//! (`corpus/TARGET`) is what it found worth keeping.
//!
//! A target panics where something does not hold. Checks that guard a format (sums, hashes) are
//! put right first where the first byte of the input says so: nobody guesses them.
#![forbid(unsafe_code)]

pub mod mutate;
mod targets;

use std::path::PathBuf;

/// One way in.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of the folder of its corpus.
    pub name: &'static str,
    /// Feeds it. Panics where something does not hold.
    pub feed: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "netstack", feed: targets::netstack::feed },
    Target { name: "data", feed: targets::data::feed },
    Target { name: "overlay", feed: targets::overlay::feed },
    Target { name: "control", feed: targets::control::feed },
    Target { name: "neighbours", feed: targets::neighbours::feed },
];

impl Target {
    /// That of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        TARGETS.iter().find(|target| target.name == name).copied()
    }

    /// Its corpus: file names and contents, in the order of the names.
    ///
    /// # Panics
    /// It cannot be read.
    #[must_use]
    pub fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(self.name);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            let path = entry.expect("the corpus can be listed").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
        };
        let mut corpus: Vec<_> = entries.map(read).collect();
        corpus.sort();
        corpus
    }
}
