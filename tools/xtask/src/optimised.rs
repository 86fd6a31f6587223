//! Programs that steps run optimised and judge by function, built at once.
//!
//! Built one by one, each would choose features of the crates below it, and those would be
//! compiled anew for each.

use crate::process::{self, Ending, cargo};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The profile of `Cargo.toml` by which they are built, and the folder of what is built by it.
pub const PROFILE: &str = "quick";
/// Their packages. Daemon and `insane` are here since demo and containers start them.
const PACKAGES: [&str; 5] = ["insaned", "insane-cli", "insane-sim-world", "vplc-demo", "vplc-containers"];
const BUILD_LIMIT: Duration = Duration::from_secs(15 * 60);

/// They are there.
#[derive(Debug)]
pub struct Programs<'a> {
    root: &'a Path,
}

impl<'a> Programs<'a> {
    /// Has them built, where they are not.
    ///
    /// # Errors
    /// How building ended, in words.
    pub fn built(root: &'a Path) -> Result<Self, String> {
        let mut command = cargo(root);
        command.args(["build", "--profile", PROFILE, "--locked"]);
        // Where they are looked for, whatever the user's settings say.
        command.arg("--target-dir").arg(process::target(root)).env_remove("CARGO_BUILD_TARGET");
        command.args(PACKAGES.iter().flat_map(|package| ["-p", package]));
        match process::run(&mut command, BUILD_LIMIT, |_| {}) {
            Ending::Exited(status) if status.success() => Ok(Programs { root }),
            ending => Err(format!("the optimised programs were not built: {ending:?}")),
        }
    }

    /// One of them, run in the workspace's folder.
    pub fn run(&self, name: &str) -> Command {
        let mut command = Command::new(process::target(self.root).join(PROFILE).join(name));
        // It names the folder of this program. By it the demo would look for the sources of the
        // daemon, which has just been built.
        command.current_dir(self.root).env_remove("CARGO_MANIFEST_DIR");
        command
    }
}
