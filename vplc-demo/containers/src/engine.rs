//! What runs a bundle.

use crate::bundle::Bundle;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An OCI runtime of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// `runc`.
    Runc,
    /// `crun`.
    Crun,
}

impl Engine {
    /// All that are known.
    pub const ALL: [Engine; 2] = [Engine::Runc, Engine::Crun];

    /// Its command.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Engine::Runc => "runc",
            Engine::Crun => "crun",
        }
    }

    /// Whether it is installed.
    #[must_use]
    pub fn is_there(self) -> bool {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        folders.into_iter().any(|folder| folder.join(self.name()).is_file())
    }

    fn command(self, state: &Path) -> Command {
        let mut command;
        match self {
            Engine::Runc => command = Command::new("runc"),
            // It refuses to work where both versions of control groups are mounted, so it is
            // shown the first only; it makes no groups then.
            Engine::Crun => {
                let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec crun \"$@\"";
                command = Command::new("unshare");
                command.args(["--mount", "--propagation", "private", "sh", "-c", script, "crun"]);
                command.arg("--cgroup-manager=disabled");
            }
        }
        command.arg("--root").arg(state);
        command
    }

    /// Starts a container of that name, and gives the engine's process, which has the
    /// container's standard streams and ends when the container does. `state` is the engine's
    /// own folder.
    ///
    /// # Errors
    /// The engine does not start.
    pub fn run(self, bundle: &Bundle, name: &str, state: &Path, errors: Stdio) -> std::io::Result<(Child, Container)> {
        let pid_file = bundle.folder().join("pid");
        let _ = std::fs::remove_file(&pid_file);
        let child = self
            .command(state)
            .args(["run", "--bundle"])
            .arg(bundle.folder())
            .arg("--pid-file")
            .arg(&pid_file)
            .arg(name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // What a terminal sends is for whoever started this, and not for the engine.
            .process_group(0)
            .spawn()?;
        Ok((child, Container { engine: self, name: name.to_owned(), pid_file, state: state.to_owned() }))
    }
}

/// A container that runs; killed and removed with this value.
#[derive(Debug)]
pub struct Container {
    engine: Engine,
    name: String,
    pid_file: PathBuf,
    state: PathBuf,
}

impl Container {
    /// Its process 1, as the host numbers it; `None`: not yet.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }

    /// Kills it, if it still runs, and removes what the engine keeps of it.
    pub fn remove(&self) {
        // A container that has ended is removed by its engine; deleting it again says so.
        let mut delete = self.engine.command(&self.state);
        delete.args(["delete", "--force", &self.name]);
        let _ = delete.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.remove();
    }
}
