//! The daemon in a process of its own.
//!
//! By default this program starts itself as the daemon (hidden command `serve`): the
//! same runtime, with the same configuration file and socket, as `insaned` hosts, and
//! always the one this program was built with. `--insaned PATH` starts the real one.

use super::plan::{self, Seat};
use super::{fault, plan::daemon_file};
use crate::cli::Plugin;
use crate::harness::fault::Fault;
use insane_config::RatePlan;
use insane_control::{Hosting, Runtime};
use insane_rt::{Session, SessionError};
use std::ffi::OsString;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a daemon may take to open its socket.
const START_BOUND: Duration = Duration::from_secs(20);
const START_PAUSE: Duration = Duration::from_millis(2);

/// What a daemon is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Its name on the network.
    pub name: &'a str,
    /// Where its link is bound, and what it is a link of.
    pub bind: SocketAddr,
    pub plugin: Plugin,
    /// The one peer, if any.
    pub peer: Option<(&'a str, SocketAddr)>,
    /// Where and how its datapath runs.
    pub seat: Seat,
    /// What is known of its link in time, if it is to have slots.
    pub rate: Option<RatePlan>,
    /// The network namespace it lives in, if not this one.
    pub namespace: Option<&'a str>,
    /// The real `insaned`, if it is to be used.
    pub program: Option<&'a Path>,
}

/// A running daemon; ended on drop, and by itself when this process dies.
pub struct Daemon {
    process: Child,
    folder: PathBuf,
}

impl Daemon {
    /// Starts a daemon and waits until its socket is there.
    ///
    /// # Errors
    /// It did not start, with its last words.
    pub fn start(wanted: &Wanted<'_>) -> Result<Self, Fault> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("latency-tests.{}.daemon{count}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(Fault::os("make a folder"))?;
        let (file, socket) = (folder.join("config.ron"), folder.join("socket"));
        std::fs::write(&file, daemon_file(wanted, &socket)).map_err(Fault::os("write a configuration"))?;
        let process = command(wanted, &file)?
            .stdin(Stdio::piped())
            // What it has to tell of its slots.
            .stdout(if wanted.rate.is_some() { Stdio::piped() } else { Stdio::null() })
            .stderr(Stdio::piped())
            .spawn()
            .map_err(Fault::os("start the daemon"))?;
        let mut daemon = Daemon { process, folder };
        daemon.wait_for_socket()?;
        Ok(daemon)
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn wait_for_socket(&mut self) -> Result<(), Fault> {
        let give_up = Instant::now() + START_BOUND;
        while !self.socket().exists() {
            let ended = self.process.try_wait().map_err(Fault::os("look after the daemon"))?;
            if ended.is_some() || Instant::now() > give_up {
                return Err(Fault::Party(format!("the daemon did not start: {}", self.last_words())));
            }
            std::thread::sleep(START_PAUSE);
        }
        Ok(())
    }

    /// The daemon's process, where it is this program's own.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// Ends a daemon that has slots; what became of them.
    ///
    /// # Errors
    /// It is not this program's own, or told something else.
    pub fn finish(mut self) -> Result<Told, Fault> {
        drop(self.process.stdin.take());
        let mut words = String::new();
        let output = self.process.stdout.as_mut().ok_or_else(|| Fault::Party("a daemon without slots".into()))?;
        output.read_to_string(&mut words).map_err(Fault::os("listen to the daemon"))?;
        Told::parse(&words).ok_or_else(|| Fault::Unavailable("this daemon does not tell of its slots".into()))
    }

    fn last_words(&mut self) -> String {
        let _ = self.process.kill();
        let mut words = String::new();
        if let Some(output) = self.process.stderr.as_mut() {
            let _ = output.read_to_string(&mut words);
        }
        words.trim().to_owned()
    }

    /// A session of this daemon.
    ///
    /// # Errors
    /// The daemon refused.
    pub fn attach(&self, name: &str) -> Result<Session, Fault> {
        let give_up = Instant::now() + START_BOUND;
        loop {
            match Session::attach(self.socket(), name) {
                // The socket is there a moment before somebody listens at it.
                Err(SessionError::Unreachable { .. }) if Instant::now() < give_up => std::thread::sleep(START_PAUSE),
                other => return other.map_err(fault("attach to the daemon")),
            }
        }
    }
}

/// Runs a program that does not watch its input, and ends it when the input ends:
/// whatever becomes of this process, no daemon outlives it.
const KEEPER: &str = r#"exec 3<&0
"$@" 3<&- </dev/null & daemon=$!
(cat <&3 >/dev/null; kill "$daemon" 2>/dev/null) &
exec 3<&-
wait "$daemon""#;

fn command(wanted: &Wanted<'_>, file: &Path) -> Result<Command, Fault> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(name) = wanted.namespace {
        words.extend(["ip", "netns", "exec", name].map(OsString::from));
    }
    match wanted.program {
        Some(program) => {
            words.extend(["sh", "-c", KEEPER, "keeper"].map(OsString::from));
            words.push(program.into());
        }
        None => {
            words.push(std::env::current_exe().map_err(Fault::os("find this program"))?.into());
            words.push("serve".into());
        }
    }
    words.extend([OsString::from("--config"), file.into()]);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    Ok(command)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What a runtime tells of its slots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Told {
    /// The last ones that were used: when each was to begin, and when its message was on its
    /// way, nanoseconds of the monotonic clock.
    pub slots: Vec<(u64, u64)>,
    /// What the first datapath counts as a whole.
    pub counters: Vec<(String, u64)>,
}

impl Told {
    /// Of a runtime of this process.
    #[must_use]
    pub fn of(runtime: &Runtime) -> Self {
        let slots = runtime.slot_log(0).map(|log| log.since(0).1).unwrap_or_default();
        let counters = runtime.status().map(|status| status.datapaths[0].counters.clone()).unwrap_or_default();
        Told {
            slots: slots.into_iter().map(|slot| (slot.planned.0, slot.sent.0)).collect(),
            counters: counters.into_iter().collect(),
        }
    }

    /// The counter of that name.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.counters.iter().find(|(of, _)| of == name).map_or(0, |(_, count)| *count)
    }

    /// Two words a line.
    fn text(&self) -> String {
        let counters = self.counters.iter().map(|(name, count)| format!("{name} {count}\n"));
        counters.chain(self.slots.iter().map(|(planned, sent)| format!("{planned} {sent}\n"))).collect()
    }

    /// `None`: something else, or no counter.
    fn parse(text: &str) -> Option<Self> {
        let mut told = Told::default();
        for line in text.lines() {
            let (first, second) = line.split_once(' ')?;
            let second = second.parse().ok()?;
            match first.parse() {
                Ok(planned) => told.slots.push((planned, second)),
                Err(_) => told.counters.push((first.to_owned(), second)),
            }
        }
        (!told.counters.is_empty()).then_some(told)
    }
}

/// The daemon's half: runs until the input ends, so it cannot outlive its parent.
///
/// # Errors
/// The configuration is wrong or the runtime does not start.
pub fn serve(config: &Path) -> Result<(), Fault> {
    let runtime = Runtime::start(plan::read(config)?, Hosting::Thread).map_err(fault("start the runtime"))?;
    let mut nothing = [0; 1];
    while std::io::stdin().read(&mut nothing).is_ok_and(|length| length > 0) {}
    print!("{}", Told::of(&runtime).text());
    runtime.stop();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Told;

    #[test]
    fn what_is_told_is_read() {
        let told = Told { slots: vec![(1_000, 1_004), (2_000, 2_003)], counters: vec![("slots_sent".into(), 2)] };
        assert_eq!(Told::parse(&told.text()), Some(told));
        assert_eq!(Told::parse(""), None);
        assert_eq!(Told::parse("nothing of the kind"), None);
    }
}
