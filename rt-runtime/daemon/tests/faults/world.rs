//! A place, a daemon in it, and what can be seen of both from outside.

use crate::peer::Peer;
use insane_rt::Session;
use insane_sys::seqpacket;
use insane_wire::control::{Code, Event, Request, Role};
use insane_wire::status::StatusReport;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A tenant that everybody may join.
pub const OPEN: &str = "(name: \"d\", members: [any])";

/// Waits until `condition` holds.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it does not happen: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Numbers without a pattern, the same in every run.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        // splitmix64 (Steele, Lea, Flood 2014).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// A directory of its own for each test, open to every user, removed at the end.
pub struct Place(PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("insaned-fault-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        open_to_all(&path);
        Place(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn socket(&self) -> PathBuf {
        self.0.join("insaned.sock")
    }

    /// Writes a configuration: these tenants, and whatever else.
    pub fn config(&self, domains: &str, rest: &str) -> PathBuf {
        let path = self.0.join("insaned.ron");
        let socket = self.socket();
        let text = format!(
            "(host: (name: \"test\"), control: (socket: {socket:?}, mode: 0o666), domains: [{domains}], {rest})"
        );
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// Lets every user enter a directory, or run a program.
pub fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a process holds, as the kernel says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Footprint {
    pub descriptors: usize,
    /// Mappings of shared memory.
    pub regions: usize,
    /// Other mappings: programs, stacks, and what the allocator has.
    pub others: usize,
    pub resident_kib: u64,
}

/// A daemon, killed at the end if it still runs.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts one with this configuration, and waits until it answers.
    pub fn start(place: &Place, domains: &str, rest: &str) -> Self {
        let config = place.config(domains, rest);
        Self::spawn(place, Command::new(env!("CARGO_BIN_EXE_insaned")).arg("--config").arg(config))
    }

    /// Starts this command, which becomes a daemon in this place.
    pub fn spawn(place: &Place, command: &mut Command) -> Self {
        let log = place.path().join("log");
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let child = command
            .env("INSANED_GUARD", "abort")
            .env_remove("NOTIFY_SOCKET")
            .stderr(file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut daemon = Daemon { child, socket: place.socket(), log };
        until("the daemon answers", || {
            assert!(daemon.is_alive(), "it has ended: {}", daemon.log());
            seqpacket::connect(&daemon.socket).is_ok()
        });
        daemon
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn terminate(&self) {
        kill(self.pid(), Signal::SIGTERM).unwrap();
    }

    /// Waits for its end.
    pub fn exit_code(&mut self) -> Option<i32> {
        let child = &mut self.child;
        let mut status = None;
        until("the daemon ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    /// A session of this process.
    pub fn attach(&self, name: &str) -> Session {
        Session::attach(&self.socket, name).unwrap()
    }

    /// A session that speaks the protocol by hand.
    pub fn peer(&self) -> Peer {
        Peer::attach(self.connect())
    }

    /// A connection that has said nothing yet.
    pub fn connect(&self) -> std::os::fd::OwnedFd {
        let start = Instant::now();
        loop {
            match seqpacket::connect(&self.socket) {
                Ok(socket) => return socket,
                // The queue of callers is full for the moment.
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn status(&self) -> StatusReport {
        let mut tool = Peer::new(self.connect());
        tool.hello(Role::Observer);
        tool.send(&Request::Status { req: 1 });
        let mut json = Vec::new();
        loop {
            let Some((Event::Status { last, piece, .. }, _)) = tool.wait() else { panic!("a piece") };
            json.extend(piece);
            if last {
                return serde_json::from_slice(&json).unwrap();
            }
        }
    }

    /// What the first tenant uses of one of its quotas.
    pub fn used(&self, what: &str) -> u64 {
        self.status().domains[0].quotas[what].used
    }

    /// What the daemon holds. A report maps the counters pages of all sessions, so one
    /// is made first.
    pub fn footprint(&self) -> Footprint {
        let _ = self.status();
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", self.pid())).unwrap();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let maps = read("maps");
        let regions = maps.lines().filter(|line| line.contains("/memfd:insane")).count();
        Footprint {
            descriptors: std::fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().count(),
            regions,
            others: maps.lines().count() - regions,
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// Waits until the daemon holds no more than it held then: not one descriptor, and
    /// not one mapping of shared memory. Its private memory may grow by `KIB_MORE` in
    /// `OTHERS_MORE` pieces: the allocator keeps what tables once needed.
    pub fn returns_to(&self, before: Footprint) {
        const KIB_MORE: u64 = 8 * 1024;
        const OTHERS_MORE: usize = 16;
        let start = Instant::now();
        loop {
            let now = self.footprint();
            let same = now.descriptors <= before.descriptors
                && now.regions <= before.regions
                && now.others <= before.others + OTHERS_MORE
                && now.resident_kib <= before.resident_kib + KIB_MORE;
            if same {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "before {before:?}, now {now:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            eprintln!("the daemon's last words: {:#?}", tail.into_iter().rev().collect::<Vec<_>>());
        }
    }
}

/// What the runtime says at the end of a session.
pub fn closing(peer: &mut Peer) -> Option<(Code, String)> {
    while let Some((event, _)) = peer.wait() {
        if let Event::Closing { code, reason } = event {
            peer.closed = Some((code, reason));
        }
    }
    peer.closed.clone()
}

/// An application in a process of its own.
pub struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    role: String,
}

impl Helper {
    pub fn start(role: &str, socket: &Path, variables: &[(&str, &str)]) -> Self {
        Self::spawn(role, socket, variables, &mut Command::new(std::env::current_exe().unwrap()))
    }

    /// Starts this command, which runs a copy of this program.
    pub fn spawn(role: &str, socket: &Path, variables: &[(&str, &str)], command: &mut Command) -> Self {
        command
            .args(["--exact", "roles::role", "--ignored", "--nocapture"])
            .env("INSANED_ROLE", role)
            .env("INSANED_SOCKET", socket)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if role == "victim" {
            command.stderr(Stdio::null());
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Helper { input: child.stdin.take(), child, output, role: role.to_owned() }
    }

    /// Reads up to a line that it marks with `@` and this word; the rest of that line.
    pub fn hear(&mut self, word: &str) -> String {
        let mark = format!("@{word}");
        loop {
            let mut line = String::new();
            let len = self.output.read_line(&mut line).unwrap();
            assert!(len > 0, "{} ended before it said {word}", self.role);
            if let Some(at) = line.find(&mark) {
                return line[at + mark.len()..].trim().to_owned();
            }
        }
    }

    /// Tells it to stop, without waiting.
    pub fn tell(&mut self) {
        drop(self.input.take());
    }

    /// Tells it to stop and waits for its last words.
    pub fn finish(&mut self) -> String {
        self.tell();
        let last = self.hear("done");
        assert!(self.child.wait().unwrap().success(), "{} failed", self.role);
        last
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two applications that exchange numbered messages, and fail if one is lost, changed,
/// doubled or out of order.
pub struct Pair {
    a: Helper,
    b: Helper,
}

impl Pair {
    /// `paths`: `direct`, `isolated` or both, with a comma.
    pub fn start(daemon: &Daemon, paths: &str) -> Self {
        let variables = [("INSANED_PATHS", paths)];
        let mut b = Helper::start("pair_b", daemon.socket(), &variables);
        b.hear("ready");
        let mut a = Helper::start("pair_a", daemon.socket(), &variables);
        a.hear("ready");
        Pair { a, b }
    }

    /// Ends the exchange; how many messages each path carried.
    pub fn finish(&mut self) -> Vec<u64> {
        let sent = self.a.finish();
        let taken = self.b.finish();
        assert_eq!(sent, taken, "what was sent on each path, and what arrived");
        sent.split(',').map(|count| count.parse().unwrap()).collect()
    }

    pub fn is_alive(&mut self) -> bool {
        self.a.is_alive() && self.b.is_alive()
    }
}
