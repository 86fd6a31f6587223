//! A network namespace without a name, which goes with the last thread and socket in it.

use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

pub struct Namespace(File);

impl Namespace {
    /// `None` without the right or the tool, with a word on standard error.
    pub fn make() -> Option<Self> {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).ok()?;
            File::open("/proc/thread-self/ns/net").ok()
        };
        let file = std::thread::spawn(make).join().unwrap();
        let has_ip = Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
        match file {
            Some(file) if has_ip => Some(Namespace(file)),
            _ => {
                eprintln!("passed over: needs root and the command ip");
                None
            }
        }
    }

    /// Runs `action` on a thread inside.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let entered = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).unwrap();
                action()
            });
            entered.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A path by which `ip` finds it.
    #[allow(dead_code, reason = "not every test binary has two namespaces")]
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// Gives `ip` these commands, one a line.
    pub fn ip(&self, commands: &str) {
        self.inside(|| {
            let mut ip = Command::new("ip");
            let mut ip = ip.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            ip.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
            assert!(ip.wait().unwrap().success(), "ip refuses one of:\n{commands}");
        });
    }
}
