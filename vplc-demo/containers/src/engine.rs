//! What runs a bundle.

use crate::bundle::Bundle;
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

    /// Starts a container of that name. Its standard streams are those of the child, which
    /// ends when the container does. `state` is the engine's own folder.
    ///
    /// # Errors
    /// The engine does not start.
    pub fn run(self, bundle: &Bundle, name: &str, state: &Path, errors: Stdio) -> std::io::Result<Container> {
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
            .spawn()?;
        Ok(Container { engine: self, name: name.to_owned(), child, pid_file, state: state.to_owned() })
    }
}

/// A container that runs; killed and removed with this value.
#[derive(Debug)]
pub struct Container {
    engine: Engine,
    name: String,
    /// The engine, with the container's standard streams.
    pub child: Child,
    pid_file: PathBuf,
    state: PathBuf,
}

impl Container {
    /// Its process 1, as the host numbers it; `None`: not yet.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        std::fs::read_to_string(&self.pid_file).ok()?.trim().parse().ok()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A container that has ended is removed by its engine; deleting it again says so.
        let mut delete = self.engine.command(&self.state);
        delete.args(["delete", "--force", &self.name]);
        let _ = delete.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
