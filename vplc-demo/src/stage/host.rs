//! A host in the machine: a thread in a network namespace of its own.
//!
//! The namespace has no name and stands in no file system: it lives while this
//! thread, or a process started from it, lives. The processes die with the thread
//! (they ask the kernel for that), so whatever ends the demonstration, kill -9
//! included, ends the namespace and its devices too.

use super::StageError;
use nix::sched::{CloneFlags, unshare};
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, and the way to it.
pub struct Host {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    namespace: PathBuf,
}

impl Host {
    /// Makes the namespace, its loopback interface up.
    pub fn new(name: &str) -> Result<Self, StageError> {
        let (jobs, to_do) = channel::<Job>();
        let (ready, is_ready) = channel();
        let body = move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).map(|()| insane_sys::thread::current_tid());
            let is_made = made.is_ok();
            let _ = ready.send(made);
            if is_made {
                to_do.iter().for_each(|job| job());
            }
        };
        let thread = std::thread::Builder::new().name(format!("host-{name}")).spawn(body);
        let thread = thread.map_err(StageError::system("starting a thread"))?;
        let made = is_ready.recv().unwrap_or(Err(nix::errno::Errno::EAGAIN));
        let tid = made.map_err(|error| StageError::system("making a network namespace")(error.into()))?;
        let namespace = format!("/proc/{}/task/{tid}/ns/net", std::process::id()).into();
        let host = Host { jobs: Some(jobs), thread: Some(thread), namespace };
        host.ip(&["link", "set", "lo", "up"])?;
        Ok(host)
    }

    /// Runs something inside the namespace, and waits for it.
    pub fn call<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> Result<R, StageError> {
        let lost =
            || StageError::System { what: "a host's thread".into(), error: std::io::ErrorKind::BrokenPipe.into() };
        let (answer, answered) = channel();
        let job: Job = Box::new(move || {
            let _ = answer.send(job());
        });
        self.jobs.as_ref().ok_or_else(lost)?.send(job).map_err(|_| lost())?;
        answered.recv().map_err(|_| lost())
    }

    /// Where the kernel shows the namespace.
    pub fn namespace(&self) -> String {
        self.namespace.display().to_string()
    }

    /// Runs `ip` with these arguments inside the namespace.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), StageError> {
        self.run("ip", arguments)
    }

    /// Runs a program with these arguments inside the namespace.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Result<(), StageError> {
        let what = format!("{program} {}", arguments.join(" "));
        let mut command = Command::new(program);
        command.args(arguments);
        let output = self.call(move || command.output())?.map_err(StageError::system(&what))?;
        if output.status.success() {
            return Ok(());
        }
        Err(StageError::Program { what, said: String::from_utf8_lossy(&output.stderr).trim().into() })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
