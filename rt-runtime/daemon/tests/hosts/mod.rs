//! Real daemons, each in a network namespace of its own, and a bridge that joins them.
#![allow(dead_code, reason = "each test uses a part of it")]

use crate::peer::Peer;
use insane_sys::seqpacket;
use insane_wire::control::{Event, Request, Role};
use insane_wire::status::StatusReport;
use nix::unistd::Pid;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Gossip is slow by intention, and the machine may have other things to do.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[track_caller]
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "it does not happen: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn ip(arguments: &str) -> bool {
    let mut command = Command::new("ip");
    command.args(arguments.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// A namespace with its loopback up, gone at the end.
pub struct Namespace(pub String);

impl Namespace {
    /// `None`: there is no right to make one, or no `ip`.
    pub fn new() -> Option<Namespace> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("insane-host-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        if !ip(&format!("netns add {name}")) {
            eprintln!("passed over: no right to make namespaces, or no `ip`");
            return None;
        }
        let namespace = Namespace(name);
        assert!(namespace.ip("link set lo up"));
        Some(namespace)
    }

    pub fn ip(&self, arguments: &str) -> bool {
        ip(&format!("-n {} {arguments}", self.0))
    }

    /// Runs this on a thread inside.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let path = format!("/var/run/netns/{}", self.0);
        let enter = move || {
            let file = std::fs::File::open(path).unwrap();
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            action()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

/// A daemon with its folder; both are gone at the end.
pub struct Daemon {
    pub child: Child,
    pub folder: PathBuf,
}

pub fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("insaned-host-{name}-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Writes the file of a host; what else stands in it is given.
pub fn write(folder: &Path, name: &str, rest: &str) {
    let socket = folder.join("insaned.sock");
    let text = format!(
        "(host: (name: {name:?}), control: (socket: {socket:?}), domains: [(name: \"d\", members: [any])], {rest})"
    );
    std::fs::write(folder.join("insaned.ron"), text).unwrap();
}

impl Daemon {
    pub fn start(namespace: &Namespace, name: &str, rest: &str) -> Daemon {
        let folder = folder(name);
        write(&folder, name, rest);
        let mut daemon = Daemon { child: Daemon::spawn(namespace, &folder), folder };
        daemon.wait_until_it_listens();
        daemon
    }

    pub fn spawn(namespace: &Namespace, folder: &Path) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &namespace.0, env!("CARGO_BIN_EXE_insaned"), "--config"]);
        command.arg(folder.join("insaned.ron")).env("INSANED_GUARD", "abort").env_remove("NOTIFY_SOCKET");
        command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }

    pub fn wait_until_it_listens(&mut self) {
        wait_for("it listens", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it does not start: {}", self.log());
            seqpacket::connect(&self.socket()).is_ok()
        });
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("insaned.sock")
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    pub fn status(&self) -> StatusReport {
        let mut tool = Peer::new(seqpacket::connect(&self.socket()).unwrap());
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
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.folder.display(), self.log());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Namespaces of hosts, all on one bridge.
pub struct Plant {
    pub hub: Namespace,
    pub hosts: Vec<Namespace>,
}

impl Plant {
    pub fn new() -> Option<Plant> {
        let hub = Namespace::new()?;
        if !hub.ip("link add br0 type bridge") {
            eprintln!("passed over: the kernel has no bridge");
            return None;
        }
        assert!(hub.ip("link set br0 up") && hub.ip("addr add 10.77.0.254/16 dev br0"));
        Some(Plant { hub, hosts: Vec::new() })
    }

    /// One more host with this address.
    pub fn add(&mut self, address: &str) -> usize {
        let (at, host) = (self.hosts.len(), Namespace::new().unwrap());
        self.hosts.push(host);
        self.plug(at);
        assert!(self.hosts[at].ip(&format!("addr add {address}/16 dev eth0")));
        at
    }

    /// Gives a host its interface, with a hardware address that it never had.
    pub fn plug(&self, at: usize) {
        let host = &self.hosts[at];
        let pair = format!("link add v{at} type veth peer name eth0 netns {}", host.0);
        assert!(self.hub.ip(&pair) && self.hub.ip(&format!("link set v{at} master br0 up")));
        assert!(host.ip("link set eth0 up"));
    }

    /// Deletes its interface.
    pub fn unplug(&self, at: usize) {
        assert!(self.hub.ip(&format!("link delete v{at}")));
    }

    /// A socket in the hub's namespace.
    pub fn stranger(&self) -> UdpSocket {
        self.hub.inside(|| UdpSocket::bind("0.0.0.0:0").unwrap())
    }
}
