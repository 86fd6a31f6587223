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
use std::sync::atomic::{AtomicU32, Ordering};

/// Waits for the end of its input, then removes all namespaces (and with them
/// the veth pairs). Signals to the whole process group must not end it before.
const JANITOR: &str =
    r#"trap '' INT TERM HUP; echo ready; cat >/dev/null; for name in "$@"; do ip netns del "$name"; done"#;

/// The two namespaces, and that of a switch, if there is one; removed on drop.
pub struct Hosts {
    names: Vec<String>,
    janitor: Child,
}

impl Hosts {
    /// Addresses of the two hosts.
    pub const ADDRESSES: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 231, 7, 1)), IpAddr::V4(Ipv4Addr::new(10, 231, 7, 2))];

    /// Addresses that no kernel has, for links that bypass it.
    pub const BYPASS_ADDRESSES: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 231, 7, 11)), IpAddr::V4(Ipv4Addr::new(10, 231, 7, 12))];

    /// The interface that each host has.
    pub const INTERFACE: &str = "eth0";

    /// The switch's port to the second host, where there is a switch.
    pub const SWITCH_PORT: &str = "port-b";

    /// The interface that each has where they are joined twice.
    pub const SECOND_INTERFACE: &str = "eth1";

    /// Addresses of the two hosts there.
    pub const SECOND_ADDRESSES: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 231, 8, 1)), IpAddr::V4(Ipv4Addr::new(10, 231, 8, 2))];

    /// Addresses there that no kernel has.
    pub const SECOND_BYPASS_ADDRESSES: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::new(10, 231, 8, 11)), IpAddr::V4(Ipv4Addr::new(10, 231, 8, 12))];

    /// Makes the namespaces, joins them and brings everything up.
    ///
    /// # Errors
    /// `Unavailable` without the right or the `ip` tool, with its words.
    pub fn make() -> Result<Self, Fault> {
        let hosts = Self::named(&["a", "b"])?;
        hosts.join()?;
        Ok(hosts)
    }

    /// Two hosts at a switch whose port to the second one sends at `mbps`, with all that is
    /// around a frame of Ethernet.
    ///
    /// # Errors
    /// As [`make`](Self::make), or without the tool `tc`.
    pub fn make_switched(mbps: u32) -> Result<Self, Fault> {
        let hosts = Self::named(&["a", "b", "s"])?;
        hosts.join_at_switch(mbps)?;
        Ok(hosts)
    }

    fn named(which: &[&str]) -> Result<Self, Fault> {
        let pid = std::process::id();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let names: Vec<String> = which.iter().map(|which| format!("lt{pid}.{count}{which}")).collect();
        // The janitor first: from here on nothing can be left behind.
        let mut janitor = Command::new("sh")
            .args(["-c", JANITOR, "janitor"])
            .args(&names)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(Fault::os("start a shell"))?;
        let mut ready = String::new();
        let output = janitor.stdout.take().expect("its output was piped");
        BufReader::new(output).read_line(&mut ready).map_err(Fault::os("wait for a shell"))?;
        let hosts = Hosts { names, janitor };
        for name in &hosts.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(hosts)
    }

    fn join_at_switch(&self, mbps: u32) -> Result<(), Fault> {
        let switch = &self.names[2];
        ip(&["-n", switch, "link", "add", "br0", "type", "bridge"])?;
        for (name, port) in self.names.iter().zip(["port-a", Self::SWITCH_PORT]) {
            ip(&["-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", switch])?;
            ip(&["-n", switch, "link", "set", port, "master", "br0", "up"])?;
        }
        ip(&["-n", switch, "link", "set", "br0", "up"])?;
        self.give_addresses()?;
        let rate = format!("{mbps}mbit");
        // A burst of one frame, so that two never pass together.
        let shaper = ["root", "tbf", "rate", &rate, "burst", "1600", "limit", "500000", "overhead", "24"];
        let arguments = [&["-n", switch, "qdisc", "add", "dev", Self::SWITCH_PORT][..], &shaper[..]].concat();
        tool("tc", &arguments)
    }

    fn join(&self) -> Result<(), Fault> {
        let [first, second] = [&self.names[0], &self.names[1]];
        ip(&["-n", first, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", second])?;
        self.give_addresses()
    }

    /// Joins both hosts by one more veth pair, [`SECOND_INTERFACE`](Self::SECOND_INTERFACE).
    ///
    /// # Errors
    /// As [`make`](Self::make), or the pair is there.
    pub fn join_again(&self) -> Result<(), Fault> {
        let [first, second] = [&self.names[0], &self.names[1]];
        let device = Self::SECOND_INTERFACE;
        ip(&["-n", first, "link", "add", device, "type", "veth", "peer", "name", device, "netns", second])?;
        for (name, address) in self.names.iter().zip(Self::SECOND_ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", device])?;
            ip(&["-n", name, "link", "set", device, "up"])?;
        }
        Ok(())
    }

    /// Deletes the second pair, at both hosts.
    ///
    /// # Errors
    /// There is none.
    pub fn cut(&self) -> Result<(), Fault> {
        ip(&["-n", &self.names[0], "link", "delete", Self::SECOND_INTERFACE])
    }

    fn give_addresses(&self) -> Result<(), Fault> {
        for (name, address) in self.names.iter().zip(Self::ADDRESSES) {
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "eth0"])?;
            ip(&["-n", name, "link", "set", "eth0", "up"])?;
        }
        Ok(())
    }

    /// Frames that an interface of both hosts has dropped, as it counts them itself. Veth loses
    /// nothing as long as the kernel is run to carry frames across; where other threads keep a
    /// core from that for some 20 ms, its queue of 256 frames runs over.
    ///
    /// # Errors
    /// The kernel's table cannot be read, or has no such interface.
    pub fn dropped(&self, interface: &str) -> Result<u64, Fault> {
        let read = || std::fs::read_to_string("/proc/thread-self/net/dev").map_err(Fault::os("read /proc/net/dev"));
        let tables = [self.on(0, read)?, self.on(1, read)?];
        let counts = tables.iter().map(|table| drops_of(table, interface)).sum::<Option<u64>>();
        counts.ok_or_else(|| Fault::Party(format!("the kernel counts nothing of {interface}")))
    }

    /// Name of one host's namespace, or the switch's ([`SWITCH`](Self::SWITCH)), for `ip netns exec`.
    #[must_use]
    pub fn name(&self, host: usize) -> &str {
        &self.names[host]
    }

    /// The number of the switch's namespace.
    pub const SWITCH: usize = 2;

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

/// What `/proc/net/dev` says that an interface dropped in receiving and sending.
fn drops_of(table: &str, interface: &str) -> Option<u64> {
    let of_it =
        |line: &'_ str| line.split_once(':').filter(|(name, _)| name.trim() == interface).map(|(_, of)| of.to_owned());
    let counters = table.lines().find_map(of_it)?;
    // Eight counters of what was received come first: bytes, packets, errors, drops and others.
    let count = |at: usize| counters.split_whitespace().nth(at)?.parse::<u64>().ok();
    Some(count(3)? + count(11)?)
}

fn ip(arguments: &[&str]) -> Result<(), Fault> {
    tool("ip", arguments)
}

fn tool(name: &str, arguments: &[&str]) -> Result<(), Fault> {
    let output = Command::new(name).args(arguments).output().map_err(|error| {
        Fault::Unavailable(format!("namespaces need the tool {name} (Debian: apt install iproute2): {error}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Fault::Unavailable(format!("{name} {}: {} (two hosts need root)", arguments.join(" "), words.trim())))
}

#[cfg(test)]
mod tests {
    use super::drops_of;

    #[test]
    fn drops_of_an_interface_are_added_both_ways() {
        let table = "Inter-|   Receive                            |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets\n    \
            lo:     9       8    7    1    0     0          0         0        9       8    7    2    0     0       0          0\n  \
            eth0: 100       1    0   30    0     0          0         0      100       1    0  400    0     0       0          0\n";
        assert_eq!(["eth0", "lo", "eth1"].map(|name| drops_of(table, name)), [Some(430), Some(3), None]);
    }
}
