//! A process without rights, on whose behalf a daemon gives priorities: locks raise to their
//! ceilings all the same. Needs root, and `insaned` built beside this test.

use insane_rt::Session;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Where the part without rights finds the daemon.
const SOCKET: &str = "VPLC_TEST_SOCKET";

#[vplc::app(core = 0, fifo = 20)]
mod app {
    /// Sections of the less urgent task that ran at the ceiling, and those that did not.
    #[derive(Default)]
    pub struct Seen {
        pub raised: u32,
        pub others: u32,
    }
    impl vplc::NonBlocking for Seen {}

    #[shared]
    struct Shared {
        seen: Seen,
    }
    #[local]
    struct Local {}
    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        (Shared { seen: Seen::default() }, Local {}, init::Monotonics())
    }

    /// Field 18 of `stat` is -1 - (real-time priority), a lent one too.
    fn runs_at() -> i32 {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        -1 - stat.rsplit(')').next().unwrap().split_whitespace().nth(15).unwrap().parse::<i32>().unwrap()
    }

    /// A function, since tasks do not print.
    fn tell(seen: &Seen) {
        println!("\n@raised {} others {}", seen.raised, seen.others);
    }

    #[task(priority = 1, cycle = 10ms, wcet = 2ms, shared = [seen], local = [cycles: u32 = 0])]
    fn low(mut cx: low::Context) {
        // The daemon may take its time to place the others.
        *cx.local.cycles += u32::from(super::HAS_STARTED.load(super::Relaxed));
        // The lenders begin last.
        if *cx.local.cycles > 10 {
            cx.shared.seen.lock(|seen| match runs_at() {
                23 => seen.raised += 1,
                _ => seen.others += 1,
            });
        }
        if *cx.local.cycles == 30 {
            cx.shared.seen.lock(|seen| tell(seen));
            cx.stop.ask();
        }
    }

    #[task(priority = 3, cycle = 3ms, wcet = 100us, shared = [seen])]
    fn high(mut cx: high::Context) {
        cx.shared.seen.lock(|_| ());
    }
}

static HAS_STARTED: AtomicBool = AtomicBool::new(false);

/// Runs the program as the process that it is in; does nothing unless told where the daemon is.
#[test]
fn part_without_rights() {
    let Ok(socket) = std::env::var(SOCKET) else { return };
    let session = Session::attach(socket, "given").unwrap();
    let running = app::start(&session).unwrap();
    HAS_STARTED.store(true, Relaxed);
    let notices = running.notices().join("; ");
    let report = running.join();
    println!("\n@unraised {} notices {notices}", report.unraised);
}

/// A directory with a daemon, both gone at the end.
struct Place(PathBuf, Option<Child>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.1 {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// What the part says under a daemon that places so many threads, where it may take a priority up
/// to `own_max` itself; `None`: it cannot be tried here.
fn said_under(threads_max: u32, own_max: Option<u8>) -> Option<String> {
    let own = std::env::current_exe().unwrap();
    let insaned = own.parent()?.parent()?.join("insaned");
    let has = |tool| Command::new(tool).arg("--version").output().is_ok();
    let can = nix::unistd::geteuid().is_root() && insane_sys::privileges::can_use_fifo().is_ok();
    if !can || !has("setpriv") || !has("chrt") || !insaned.exists() {
        eprintln!("passed over: needs root, SCHED_FIFO, setpriv and chrt of util-linux, and {}", insaned.display());
        return None;
    }
    let path =
        std::env::temp_dir().join(format!("vplc-given-{}-{threads_max}-{}", std::process::id(), own_max.unwrap_or(0)));
    std::fs::create_dir_all(&path).unwrap();
    open_to_all(&path);
    let (socket, config, program) = (path.join("insaned.sock"), path.join("insaned.ron"), path.join("program"));
    let rule = format!("(priority_max: 30, cores: [0], threads_max: {threads_max})");
    let mut text = String::new();
    write!(
        text,
        "(host: (name: \"test\"), control: (socket: {socket:?}, mode: 0o666), log: (level: warn),
          domains: [(name: \"d\", members: [any], isolation: shared, realtime: {rule})])"
    )
    .unwrap();
    std::fs::write(&config, text).unwrap();
    std::fs::copy(own, &program).unwrap();
    open_to_all(&program);
    let daemon = Command::new(insaned).arg("--config").arg(&config).stdout(Stdio::null()).spawn().unwrap();
    let place = Place(path, Some(daemon));
    let start = Instant::now();
    while insane_sys::seqpacket::connect(&socket).is_err() {
        assert!(start.elapsed() < Duration::from_secs(20), "the daemon does not answer");
        std::thread::sleep(Duration::from_millis(5));
    }
    // Who has a priority already may keep it, and take a lower one, as under RLIMIT_RTPRIO.
    let mut part = Command::new("chrt");
    match own_max {
        Some(priority) => part.args(["--fifo", &priority.to_string()]),
        None => part.args(["--other", "0"]),
    };
    part.arg("setpriv");
    part.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--no-new-privs"]);
    part.arg(&program).args(["--exact", "part_without_rights", "--nocapture"]).current_dir("/");
    let output = part.env(SOCKET, &socket).output().unwrap();
    drop(place);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    Some(said)
}

#[test]
fn ceilings_hold_where_the_daemon_gave_the_priority() {
    let Some(said) = said_under(3, None) else { return };
    assert!(said.contains("@raised 20 others 0"), "{said}");
    assert!(said.contains("@unraised 0 notices \n"), "{said}");
}

/// The less urgent task takes its place itself, and may not take its ceiling.
#[test]
fn a_ceiling_beyond_what_the_process_may_take_is_lent() {
    let Some(said) = said_under(2, Some(21)) else { return };
    assert!(said.contains("@raised 20 others 0"), "{said}");
    assert!(said.contains("@unraised 0 notices \n"), "{said}");
}

#[test]
fn a_ceiling_that_the_daemon_does_not_give_is_told_and_tasks_come_first() {
    let Some(said) = said_under(2, None) else { return };
    assert!(said.contains("@raised 0 others 20"), "{said}");
    assert!(said.contains("notices ceiling 23:") && said.contains("gives 2 threads"), "{said}");
    assert!(said.contains("let the domain's `realtime` rule"), "{said}");
    assert!(!said.contains("notices priority"), "both tasks have their places: {said}");
}
