//! Two hosts in the machine: network namespaces joined by veth, a daemon in each, and the
//! parts that play there.

use crate::cell::Part;
use crate::check::Failure;
use insane_wire::status::StatusReport;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take; nothing is judged by it but that it happens at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// Users of the three cells; they have no entry anywhere, and need none.
pub const USERS: [u32; 3] = [61_001, 61_002, 61_003];

/// By what the cyclic part goes between the hosts; the rest goes by udp on the same cable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Technology {
    /// The kernel's sockets.
    Udp,
    /// Past the kernel, by AF_XDP.
    Xdp,
    /// Past the kernel's protocols, by DPDK over packet sockets.
    Dpdk,
}

impl Technology {
    /// The word on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Technology::Udp => "udp",
            Technology::Xdp => "xdp",
            Technology::Dpdk => "dpdk",
        }
    }

    /// What it needs and is missing for this daemon, with what helps.
    pub fn lacks(self, insaned: &Path) -> Option<String> {
        let shim = insaned.with_file_name("libinsane_dpdk.so");
        let is_missing = self == Technology::Dpdk && !shim.is_file();
        is_missing.then(|| format!("there is no {}: cargo xtask dpdk-shim", shim.display()))
    }

    /// Where the cyclic link of host 1 or 2 is bound: one past the kernel has an address for itself.
    fn address(self, host: u8) -> String {
        match self {
            Technology::Udp => format!("10.79.0.{host}:7400"),
            Technology::Xdp | Technology::Dpdk => format!("10.79.0.1{host}:7400"),
        }
    }

    fn link(self, host: u8) -> String {
        let bind = self.address(host);
        match self {
            Technology::Udp => format!("udp(bind: {bind:?})"),
            Technology::Xdp => format!("xdp(interface: \"eth0\", bind: {bind:?})"),
            Technology::Dpdk => format!("dpdk(device: \"net_af_packet0,iface=eth0\", bind: {bind:?})"),
        }
    }
}

/// Waits until `condition` gives something.
pub fn until<T>(what: &str, mut condition: impl FnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= give_up {
            return Err(Failure(format!("it did not come to this within {PATIENCE:?}: {what}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A folder, removed with this value.
#[derive(Debug)]
pub struct Folder(pub PathBuf);

impl Folder {
    /// A new one that everybody may enter.
    pub fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("insane-containers-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A host: a network namespace, gone with this value.
#[derive(Debug)]
pub struct Host {
    namespace: String,
    folder: PathBuf,
    core: usize,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

fn ip(arguments: &str) -> Result<(), Failure> {
    let output = Command::new("ip").args(arguments.split(' ')).output()?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(Failure(format!("ip {arguments}: {said}"))) }
}

/// Two hosts with a cable, each with a core of its own.
pub fn hosts(folder: &Path, cores: &[usize]) -> Result<[Host; 2], Failure> {
    let id = std::process::id();
    let host = |name: &str, core: usize| -> Result<Host, Failure> {
        let namespace = format!("insane-{name}-{id}");
        ip(&format!("netns add {namespace}"))?;
        let host = Host { namespace, folder: folder.join(name), core };
        std::fs::create_dir(&host.folder)?;
        std::fs::create_dir(host.sockets())?;
        ip(&format!("-n {} link set lo up", host.namespace))?;
        Ok(host)
    };
    let (first, last) = (cores.first().copied().unwrap_or(0), cores.last().copied().unwrap_or(0));
    let hosts = [host("a", first)?, host("b", last)?];
    let [a, b] = [&hosts[0].namespace, &hosts[1].namespace];
    ip(&format!("link add eth0 netns {a} type veth peer name eth0 netns {b}"))?;
    for (namespace, address) in [(a, "10.79.0.1/24"), (b, "10.79.0.2/24")] {
        ip(&format!("-n {namespace} addr add {address} dev eth0"))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
    }
    Ok(hosts)
}

impl Host {
    /// The directory of the control socket, and nothing else.
    pub fn sockets(&self) -> PathBuf {
        self.folder.join("sockets")
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.sockets().join("insaned.sock")
    }

    /// The core of its cyclic work.
    pub fn core(&self) -> usize {
        self.core
    }

    fn configuration(&self, own: u8, technology: Technology) -> String {
        let (socket, core, peer) = (self.socket(), self.core, 3 - own);
        let (cyclic, other) = (technology.link(own), technology.address(peer));
        let [one, two, three] = USERS;
        let cell = |name: &str, user: u32| {
            let rule = format!("realtime: (priority_max: 50, cores: [{core}], threads_max: 1)");
            format!("(name: {name:?}, members: [uid({user})], quota: (bytes: 16_777_216), {rule}),")
        };
        format!(
            "(host: (name: {:?}), control: (socket: {socket:?}, mode: 0o666), log: (level: warn),\n\
             datapaths: [\n\
             (name: \"cyclic\", core: {core}, policy: fifo(70), idle: block, serves: real_time, links: [\"cyclic\"],\n\
              unscheduled: allow),\n\
             (name: \"bulk\", idle: block, serves: best_effort, links: [\"bulk\"])],\n\
             links: [(name: \"cyclic\", technology: {cyclic}),\n\
             (name: \"bulk\", technology: udp(bind: \"10.79.0.{own}:7410\"))],\n\
             peers: [(name: \"other\", links: {{\"cyclic\": {other:?}, \"bulk\": \"10.79.0.{peer}:7410\"}})],\n\
             domains: [{} {} (name: \"office\", members: [uid({three})])])\n",
            self.namespace,
            cell("cell-1", one),
            cell("cell-2", two),
        )
    }

    /// Starts its daemon, that of host 1 or 2, and waits until it answers.
    pub fn daemon(&self, insaned: &Path, own: u8, technology: Technology) -> Result<Daemon, Failure> {
        let config = self.folder.join("insaned.ron");
        std::fs::write(&config, self.configuration(own, technology))?;
        let log = self.folder.join("log");
        // It dies with this program, however that ends; the parts end with their input.
        let mut command = self.command(Path::new("setpriv"));
        command
            .args(["--pdeathsig", "KILL"])
            .arg(insaned)
            .arg("--config")
            .arg(&config)
            .stderr(File::create(&log)?)
            .stdout(Stdio::null())
            .stdin(Stdio::null());
        let mut daemon = Daemon { child: command.spawn()?, socket: self.socket(), log };
        until("a daemon has its control socket", || {
            daemon.check()?;
            Ok(daemon.socket.exists().then_some(()))
        })?;
        Ok(daemon)
    }

    /// A command that runs on this host.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace]).arg(program);
        command
    }

    /// Starts a part on this host, as that user, without rights.
    pub fn part(&self, program: &Path, part: Part, user: u32) -> Result<Process, Failure> {
        let mut command = self.command(Path::new("setpriv"));
        command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "--inh-caps=-all"]);
        command.arg("--no-new-privs").arg(program).args(arguments(part, &self.socket(), self.core));
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Process::new(format!("{part:?} of user {user}"), child))
    }
}

/// The command line of a part.
pub fn arguments(part: Part, socket: &Path, core: usize) -> Vec<String> {
    let part = format!("{part:?}").to_lowercase();
    let words = ["cell", &part, "--socket", &socket.display().to_string(), "--core", &core.to_string()];
    words.map(str::to_owned).to_vec()
}

/// A daemon, killed with this value.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Whether it lives.
    pub fn check(&mut self) -> Result<(), Failure> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                Err(Failure(format!("a daemon has ended ({status}): {log}")))
            }
        }
    }

    /// Its state, by `insane status`.
    pub fn status(&self, insane: &Path) -> Result<StatusReport, Failure> {
        let output =
            Command::new(insane).args(["status", "--once", "--json", "--socket"]).arg(&self.socket).output()?;
        serde_json::from_slice(&output.stdout)
            .map_err(|error| Failure(format!("insane status: {error}: {}", String::from_utf8_lossy(&output.stderr))))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a part has said last.
#[derive(Clone, Debug, Default)]
struct Said {
    place: Option<String>,
    counts: (u64, u64),
}

/// A part that speaks; asked to end, and ended, with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Option<Child>,
    input: Option<ChildStdin>,
    said: Arc<Mutex<Said>>,
}

impl Process {
    /// Listens to a child whose standard streams are pipes.
    pub fn new(name: String, mut child: Child) -> Self {
        let (said, input) = listen(&mut child);
        Process { name, child: Some(child), input, said }
    }

    /// The two numbers that it counts.
    pub fn counts(&mut self) -> Result<(u64, u64), Failure> {
        if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
            return Err(Failure(format!("{} has ended: {status}", self.name)));
        }
        Ok(self.said.lock().unwrap_or_else(PoisonError::into_inner).counts)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Some(mut child) = self.child.take() {
            let give_up = Instant::now() + Duration::from_secs(2);
            while child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < give_up {
                std::thread::sleep(Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What somebody in a container says.
#[derive(Debug)]
pub struct Voice {
    said: Arc<Mutex<Said>>,
    _input: Option<ChildStdin>,
}

impl Voice {
    /// Listens to a container.
    pub fn new(child: &mut Child) -> Self {
        let (said, input) = listen(child);
        Voice { said, _input: input }
    }

    /// How it came to its place, once it has said so.
    pub fn place(&self) -> Option<String> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).place.clone()
    }
}

fn listen(child: &mut Child) -> (Arc<Mutex<Said>>, Option<ChildStdin>) {
    let said = Arc::new(Mutex::new(Said::default()));
    let (output, heard) = (child.stdout.take(), Arc::clone(&said));
    std::thread::spawn(move || {
        let lines = output.map(|output| BufReader::new(output).take(u64::MAX).lines());
        for line in lines.into_iter().flatten().map_while(Result::ok) {
            let mut said = heard.lock().unwrap_or_else(PoisonError::into_inner);
            match line.split(' ').collect::<Vec<_>>().as_slice() {
                ["counts", one, two] => said.counts = (one.parse().unwrap_or(0), two.parse().unwrap_or(u64::MAX)),
                _ => said.place = Some(line),
            }
        }
    });
    (said, child.stdin.take())
}
