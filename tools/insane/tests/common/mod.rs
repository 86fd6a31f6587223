//! A real `insaned` for the tests of commands that talk to one.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod plant;
pub mod screen;

use insane_wire::status::StatusReport;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Nothing here takes so long on a machine that works.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The `insane` command.
pub fn insane() -> Command {
    Command::new(env!("CARGO_BIN_EXE_insane"))
}

/// The daemon's program: of another package, so it stands beside the command, once built.
fn insaned() -> PathBuf {
    static BUILT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let build = || {
        let folder = Path::new(env!("CARGO_BIN_EXE_insane")).parent().unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--package", "insaned", "--bin", "insaned"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).env("CARGO_TARGET_DIR", folder.parent().unwrap());
        assert!(built.status().unwrap().success(), "insaned is built");
        folder.join("insaned")
    };
    BUILT.get_or_init(build).clone()
}

fn spawn(namespace: Option<&str>, folder: &Path) -> Child {
    let log = std::fs::File::options().append(true).create(true).open(folder.join("log")).unwrap();
    let mut command = match namespace {
        Some(namespace) => {
            // `ip` becomes the daemon, so its number is the daemon's.
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(insaned());
            command
        }
        None => Command::new(insaned()),
    };
    command.arg("--config").arg(folder.join("insaned.ron")).env_remove("NOTIFY_SOCKET");
    command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
}

/// Two daemons that are peers over loopback, `NAME-a` and `NAME-b`, each with one domain and one
/// datapath, which sleeps and has slots; `place` is said of that of the first.
pub fn peers_over_loopback(name: &str, place: &str) -> (Daemon, Daemon) {
    peers_that_wait(name, "block", place)
}

/// The same, where the first waits as `idle` says.
pub fn peers_that_wait(name: &str, idle: &str, place: &str) -> (Daemon, Daemon) {
    let base = 30_000 + (std::process::id() % 9_000) as u16;
    let free = |port: u16| [port, port + 1].iter().all(|port| std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok());
    let ports: Vec<u16> = (base..48_000).step_by(2).filter(|port| free(*port)).take(2).collect();
    let [a, b] = ["a", "b"].map(|side| format!("{name}-{side}"));
    let start = |name: &str, own: u16, peer: u16, other: &str, (idle, place): (&str, &str)| {
        let rest = format!(
            r#"datapaths: [(name: "main", idle: {idle}, links: ["l0"], {place})],
            links: [(name: "l0", technology: udp(bind: "127.0.0.1:{own}"), rate_mbps: 100, turn_us: 200)],
            peers: [(name: "{other}", links: {{"l0": "127.0.0.1:{peer}"}})],
            domains: [(name: "line", members: [any], receive: [(size: 2048, count: 256)])]"#
        );
        Daemon::start(name, &rest)
    };
    (start(&a, ports[0], ports[1], &b, (idle, place)), start(&b, ports[1], ports[0], &a, ("block", "")))
}

/// A running daemon in a folder of its own; both are gone at the end.
pub struct Daemon {
    child: Child,
    pub folder: PathBuf,
    namespace: Option<String>,
}

impl Daemon {
    /// Starts one with this configuration beside host and socket.
    pub fn start(name: &str, rest: &str) -> Daemon {
        Daemon::start_in(None, name, rest)
    }

    /// The same in a network namespace.
    pub fn start_in(namespace: Option<&str>, name: &str, rest: &str) -> Daemon {
        let folder = std::env::temp_dir().join(format!("insane-cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("insaned.sock");
        let config = folder.join("insaned.ron");
        let text = format!("(host: (name: \"{name}\"), control: (socket: {socket:?}), {rest})");
        std::fs::write(&config, text).unwrap();
        let namespace = namespace.map(str::to_owned);
        let mut daemon = Daemon { child: spawn(namespace.as_deref(), &folder), folder, namespace };
        daemon.wait_until_it_listens();
        daemon
    }

    fn wait_until_it_listens(&mut self) {
        let start = Instant::now();
        // The socket is there a moment before anybody listens.
        while insane_sys::seqpacket::connect(&self.socket()).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "the daemon does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Kills it with SIGKILL, and leaves everything as it is then.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it with SIGTERM.
    pub fn stop(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        assert!(self.child.wait().unwrap().success(), "{}", self.log());
    }

    /// Starts it again, with what it left.
    pub fn restart(&mut self) {
        self.child = spawn(self.namespace.as_deref(), &self.folder);
        self.wait_until_it_listens();
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("insaned.sock")
    }

    /// The command with this daemon's socket.
    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = insane();
        command.arg(name).arg("--socket").arg(self.socket()).args(arguments);
        command
    }

    pub fn status(&self) -> StatusReport {
        let output = self.command("status", &["--once", "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Two network namespaces joined by a cable, 10.77.0.1 and 10.77.0.2; gone at the end.
pub struct Namespaces([String; 2]);

pub fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

impl Namespaces {
    /// `None`: there is no right to make them, or no `ip`.
    pub fn pair(name: &str) -> Option<Namespaces> {
        let pair = Namespaces([1, 2].map(|at| format!("insane-{name}{at}-{}", std::process::id())));
        if !pair.0.iter().all(|name| ip(&format!("netns add {name}"))) {
            eprintln!("passed over: no right to make namespaces, or no `ip`");
            return None;
        }
        let [a, b] = &pair.0;
        assert!(ip(&format!("-n {a} link add eth0 type veth peer name eth0 netns {b}")));
        for (at, name) in pair.0.iter().enumerate() {
            assert!(ip(&format!("-n {name} addr add 10.77.0.{}/24 dev eth0", at + 1)));
            assert!(ip(&format!("-n {name} link set eth0 up")) && ip(&format!("-n {name} link set lo up")));
        }
        Some(pair)
    }

    pub fn name(&self, at: usize) -> &str {
        &self.0[at]
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for name in &self.0 {
            ip(&format!("netns del {name}"));
        }
    }
}

/// A child that is killed if the test ends before it does.
pub struct Process(pub Option<Child>);

impl Process {
    pub fn spawn(command: &mut Command) -> Process {
        Process(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.0.as_ref().unwrap().id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn wait(mut self) -> Output {
        wait_for("the command ends", || self.has_ended());
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "it never happens: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
