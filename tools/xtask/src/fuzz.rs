//! libFuzzer over the targets of `insane-fuzz`: guided by coverage, on the stable compiler.
//!
//! Coverage is what LLVM counts where it is told to (`sancov-module`). Sanitizers need an unstable
//! compiler, and there is no `unsafe` in what is fed. What it finds is kept in a scratch folder;
//! `cargo xtask fuzz` adds what reaches more code to the corpus.

use crate::process::{self, Ending, cargo};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

/// Must be those of `insane_fuzz::TARGETS`: a test compares them.
pub const TARGETS: [&str; 5] = ["netstack", "data", "overlay", "control", "neighbours"];
/// What counts coverage, and comparisons, which it learns constants from.
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// Inputs of each target in the check.
const RUNS: u32 = 200_000;
/// Inputs that were found and are kept, of each target.
const FOUND_MAX: usize = 80;
/// Longest that one target's inputs may take in the check, and building before, seconds.
const LIMIT_SECONDS: u64 = 120;
const BUILD_SECONDS: u64 = 600;

/// Why nothing was fuzzed, or what was found.
#[derive(Debug, thiserror::Error)]
pub enum FuzzError {
    /// libFuzzer is C++.
    #[error("there is no C++ compiler (g++)")]
    NoCompiler,
    /// rustc does not say what it builds for.
    #[error("rustc does not tell its host")]
    NoHost,
    /// It was not built.
    #[error("the fuzzer was not built: {0}")]
    Build(String),
    /// The scratch folder cannot be made.
    #[error("{0}: {1}")]
    Folder(PathBuf, std::io::Error),
    /// Something does not hold.
    #[error("target {target}: {how}; the input is in {folder}")]
    Found {
        /// Which one.
        target: &'static str,
        /// How it ended.
        how: String,
        /// Where the input was written.
        folder: PathBuf,
    },
}

/// The fuzzer, built.
struct Fuzzer {
    program: PathBuf,
    corpus: PathBuf,
    scratch: PathBuf,
}

/// How long a target is fed.
#[derive(Clone, Copy, Debug)]
enum Bound {
    Runs(u32),
    Seconds(u64),
}

/// A bounded run of every target.
pub fn check(root: &Path) -> Result<(), FuzzError> {
    let fuzzer = Fuzzer::build(root)?;
    TARGETS.iter().try_for_each(|target| fuzzer.feed(target, Bound::Runs(RUNS)))
}

/// What `cargo xtask fuzz [TARGET] [--seconds N]` asks for: every target, or one, for 60 s or as
/// long as is said. Building takes minutes: what means nothing is refused before.
pub fn asked(options: &[&str]) -> Result<(Vec<&'static str>, u64), String> {
    let (target, seconds) = match options {
        [] => (None, "60"),
        ["--seconds", seconds] => (None, *seconds),
        [target] => (Some(*target), "60"),
        [target, "--seconds", seconds] => (Some(*target), *seconds),
        _ => return Err("fuzz takes a target, --seconds and a number, or nothing".to_owned()),
    };
    let targets = match target {
        None => TARGETS.to_vec(),
        Some(name) => {
            let known = TARGETS.into_iter().find(|target| *target == name);
            vec![known.ok_or_else(|| format!("`{name}` is no target of fuzz; there are {}", TARGETS.join(", ")))?]
        }
    };
    let seconds = seconds.parse().map_err(|_| format!("`{seconds}` is no number of seconds"))?;
    Ok((targets, seconds))
}

/// Fuzzes targets for so many seconds each; the corpus keeps what reaches more code.
pub fn command(root: &Path, targets: &[&'static str], seconds: u64) -> ExitCode {
    let run = || -> Result<(), FuzzError> {
        let fuzzer = Fuzzer::build(root)?;
        for target in targets {
            fuzzer.feed(target, Bound::Seconds(seconds))?;
            fuzzer.keep(target)?;
        }
        Ok(())
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Fuzzer {
    /// In a target folder of its own: the flags would rebuild everything in the other.
    fn build(root: &Path) -> Result<Self, FuzzError> {
        let has_compiler = Command::new("g++").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !has_compiler.is_ok_and(|status| status.success()) {
            return Err(FuzzError::NoCompiler);
        }
        let target = process::target(root).join("fuzz");
        let told = Command::new("rustc").arg("-vV").current_dir(root).output().map_err(|_| FuzzError::NoHost)?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let host = told.lines().find_map(|line| line.strip_prefix("host: ")).ok_or(FuzzError::NoHost)?;
        let mut command = cargo(root);
        // With a target, the flags are not those of what runs while building.
        command.args(["build", "--locked", "--release", "-p", "insane-fuzz", "--features", "coverage"]);
        command.args(["--target", host]).env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", COVERAGE);
        // As it is tested: overflows are noticed. Coverage and link-time optimisation do not go together.
        command.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
        command.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
        ended(&process::run(&mut command, Duration::from_secs(BUILD_SECONDS), |_| {})).map_err(FuzzError::Build)?;
        let program = target.join(host).join("release/insane-fuzz");
        Ok(Fuzzer { program, corpus: root.join("tools/fuzz/corpus"), scratch: target.join("found") })
    }

    /// Feeds a target with its corpus and what follows from it.
    fn feed(&self, target: &'static str, bound: Bound) -> Result<(), FuzzError> {
        let folder = self.scratch.join(target);
        std::fs::create_dir_all(&folder).map_err(|error| FuzzError::Folder(folder.clone(), error))?;
        let mut command = self.command(target);
        let limit = match bound {
            Bound::Runs(runs) => {
                command.args([format!("-runs={runs}"), format!("-max_total_time={LIMIT_SECONDS}")]);
                LIMIT_SECONDS
            }
            Bound::Seconds(seconds) => {
                command.arg(format!("-max_total_time={seconds}"));
                seconds
            }
        };
        command.args(["-seed=1", "-max_len=4096", "-timeout=10", "-rss_limit_mb=1024", "-verbosity=0"]);
        command.arg("-print_final_stats=1").arg(format!("-artifact_prefix={}/", folder.display()));
        command.arg(&folder).arg(self.corpus.join(target));
        let ending = process::run(&mut command, Duration::from_secs(limit + 60), |_| {});
        ended(&ending).map_err(|how| FuzzError::Found { target, how, folder })
    }

    /// Adds to the corpus what reaches more code than it does.
    fn keep(&self, target: &'static str) -> Result<(), FuzzError> {
        let folder = self.scratch.join(target);
        let mut command = self.command(target);
        let corpus = self.corpus.join(target);
        // Code that is reached counts, not how often.
        command.args(["-set_cover_merge=1", "-use_counters=0", "-max_len=4096", "-verbosity=0"]);
        command.arg(&corpus).arg(&folder);
        let ending = process::run(&mut command, Duration::from_secs(LIMIT_SECONDS), |_| {});
        ended(&ending).map_err(|how| FuzzError::Found { target, how, folder })?;
        thin_out(&corpus).map_err(|error| FuzzError::Folder(corpus, error))
    }

    fn command(&self, target: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env("INSANE_FUZZ_TARGET", target);
        command
    }
}

/// Of inputs that were found the shortest go, which others begin with, until there are few enough.
fn thin_out(corpus: &Path) -> std::io::Result<()> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(corpus)? {
        let entry = entry?;
        let name = entry.file_name();
        // Those that were written by hand have names of words.
        let is_found = name.len() == 40 && name.to_string_lossy().chars().all(|c| c.is_ascii_hexdigit());
        if is_found {
            found.push((entry.metadata()?.len(), entry.path()));
        }
    }
    found.sort();
    let many = found.len().saturating_sub(FOUND_MAX);
    found[..many].iter().try_for_each(|(_, path)| std::fs::remove_file(path))
}

/// How it ended, if not well.
fn ended(ending: &Ending) -> Result<(), String> {
    match ending {
        Ending::Exited(status) if status.success() => Ok(()),
        Ending::Exited(status) => Err(status.to_string()),
        Ending::TimedOut => Err("it did not end".to_owned()),
        Ending::NotStarted(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_nothing_is_refused_before_anything_is_built() {
        assert_eq!(asked(&[]), Ok((TARGETS.to_vec(), 60)));
        assert_eq!(asked(&["data", "--seconds", "5"]), Ok((vec!["data"], 5)));
        for (options, says) in [
            (&["date"][..], "`date` is no target"),
            (&["--seconds"], "`--seconds` is no target"),
            (&["data", "--seconds", "5s"], "`5s` is no number"),
            (&["data", "control"], "takes a target"),
        ] {
            assert!(asked(options).is_err_and(|error| error.contains(says)), "{options:?}");
        }
    }

    #[test]
    fn every_target_has_a_corpus_and_every_corpus_a_target() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        let entries = std::fs::read_dir(corpus).unwrap();
        let mut found: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        found.sort();
        let mut targets = TARGETS;
        targets.sort_unstable();
        assert_eq!(found, targets);
    }
}
