//! Tasks of the project: `cargo xtask test` is the whole check, `cargo xtask licences`
//! the check of the dependencies alone, `cargo xtask sim` runs simulated worlds, `cargo xtask
//! bytecode` makes what is checked in of the XDP program, `cargo xtask dpdk-shim` the library
//! that links DPDK.
#![forbid(unsafe_code)]

mod bytecode;
mod dpdk;
mod duplicates;
mod fuzz;
mod guest;
mod licences;
mod optimised;
mod process;
mod spdx;
mod steps;
mod tally;
#[cfg(test)]
mod unified;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [--only STEP,…] [--skip STEP,…]   run the steps of the check, or some of them
  test --list                            name the steps
  ci                                     the same as test; what .ci/run calls
  sim [OPTION]…                          run simulated worlds; sim --help tells the options
  fuzz [TARGET] [--seconds N]            fuzz, guided by coverage; the corpus keeps what it finds (g++)
  rt-guest [--only JOB,…]                run tests on a PREEMPT_RT kernel, in an emulated machine
  rt-guest --list                        name its jobs
  rt-guest --measure                     rdma beside raw verbs in that machine: figures, no bounds
  containers                             run controllers in containers, kill each in turn (root)
  containers --demo [OPTION]…            the demo, its controller in a container (root)
  licences                               check licences and duplicates of all dependencies (offline)
  bytecode                               make the bytecode of the XDP program anew (clang 14)
  dpdk-shim                              make the library that links DPDK (libdpdk-dev 22.11)
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        // Those that run programs of their own pass it on.
        [command, "--help" | "-h"] if *command != "sim" => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        ["test" | "ci", options @ ..] => match steps::Selection::parse(options) {
            Ok(selection) => steps::run(&workspace_root(), &selection),
            Err(error) => refuse(&error.to_string()),
        },
        ["sim", options @ ..] => steps::simulate(&workspace_root(), options),
        ["fuzz", options @ ..] => match fuzz::asked(options) {
            Ok((targets, seconds)) => fuzz::command(&workspace_root(), &targets, seconds),
            Err(reason) => refuse(&reason),
        },
        ["rt-guest", options @ ..] => match guest::command(&workspace_root(), options) {
            Some(code) => code,
            None => refuse("these options of rt-guest mean nothing; rt-guest --list names the jobs"),
        },
        ["containers"] => steps::contain(&workspace_root()),
        ["containers", "--demo", options @ ..] => steps::demo_in_containers(&workspace_root(), options),
        ["licences"] => match licences::check(&workspace_root()) {
            Ok(summary) => {
                println!("{summary}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        ["bytecode"] => match bytecode::make(&workspace_root()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        ["dpdk-shim"] => match dpdk::make(&workspace_root()) {
            Ok(paths) => {
                paths.iter().for_each(|path| println!("{}", path.display()));
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        },
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        [] => refuse("no command"),
        [other, ..] => refuse(&format!("`{other}` with these arguments is no command")),
    }
}

fn refuse(reason: &str) -> ExitCode {
    eprintln!("error: {reason}\n\n{USAGE}");
    ExitCode::from(2)
}

/// The folder of the workspace's `Cargo.toml`: two above this package, which cargo
/// names at run time, so that a moved checkout works without a rebuild.
fn workspace_root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let mut root = PathBuf::from(package);
    root.pop();
    root.pop();
    root
}
