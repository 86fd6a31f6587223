//! Two network namespaces joined by a veth pair: the topology "two hosts".
//!
//! Names carry the process id. They are removed by a small shell that waits for
//! the end of its input, so they go away however this process ends, by SIGKILL too.

use super::fault::Fault;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

/// Waits for the end of its input, then removes both namespaces (and with them
/// the veth pair). Signals to the whole process group must not end it before.
const JANITOR: &str = r#"trap '' INT TERM HUP; echo ready; cat >/dev/null; ip netns del "$1"; ip netns del "$2""#;

/// The two namespaces; removed on drop.
pub struct Hosts {
    names: [String; 2],
    janitor: Child,
}

impl Hosts {
    /// Addresses of the two hosts.
    pub const ADDRESSES: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 231, 7, 1)), IpAddr::V4(Ipv4Addr::new(10, 231, 7, 2))];

    /// Makes the namespaces, joins them and brings everything up.
    ///
    /// # Errors
    /// `Unavailable` without the right or the `ip` tool, with its words.
    pub fn make() -> Result<Self, Fault> {
        let pid = std::process::id();
        let names = [format!("lt{pid}a"), format!("lt{pid}b")];
        // The janitor first: from here on nothing can be left behind.
        let mut janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor", &names[0], &names[1]])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Fault::os("start a shell"))?;
        let mut ready = String::new();
        let output = janitor.stdout.take().expect("its output was piped");
        BufReader::new(output).read_line(&mut ready).map_err(Fault::os("wait for a shell"))?;
        let hosts = Hosts { names, janitor };
        hosts.join()?;
        Ok(hosts)
    }

    fn join(&self) -> Result<(), Fault> {
        let [first, second] = &self.names;
        for name in &self.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        ip(&["-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second])?;
        for (name, address) in self.names.iter().zip(Self::ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
            ip(&["-n", name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// Name of one host's namespace, for `ip netns exec`.
    #[must_use]
    pub fn name(&self, host: usize) -> &str {
        &self.names[host]
    }

    /// Moves the calling thread, for the rest of its life, to one host.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn enter(&self, host: usize) -> Result<(), Fault> {
        let file = File::open(format!("/var/run/netns/{}", self.names[host])).map_err(Fault::os("open a namespace"))?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|error| Fault::os("enter a namespace")(error.into()))
    }

    /// Runs `make` on host `host`; threads that it starts stay there.
    ///
    /// # Errors
    /// As `make`, or the namespace cannot be entered.
    pub fn on<T: Send>(&self, host: usize, make: impl FnOnce() -> Result<T, Fault> + Send) -> Result<T, Fault> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| self.enter(host).and_then(|()| make()));
            inside.join().unwrap_or_else(|_| Err(Fault::Party("opening an end panicked".into())))
        })
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        // It removes the namespaces now; waiting keeps them from outliving the run.
        let _ = self.janitor.wait();
    }
}

fn ip(arguments: &[&str]) -> Result<(), Fault> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| {
        Fault::Unavailable(format!("namespaces need the tool ip (Debian: apt install iproute2): {error}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Fault::Unavailable(format!("ip {}: {} (two hosts need root)", arguments.join(" "), words.trim())))
}
