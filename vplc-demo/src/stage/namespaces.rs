//! The form with rights: two network namespaces joined by veth, or by a switch in a third,
//! a daemon in each, and a process for every part.
//!
//! Two cores serve two hosts: a's daemon and controller share one core, b's daemon
//! and device the other, all `SCHED_FIFO`, the daemons' process-data datapaths first;
//! all of them block when there is nothing to do. Best-effort neighbours, and the
//! datapaths that carry for them, run wherever the ordinary scheduler puts them.

use super::host::Host;
use super::{Instants, Side, StageError, cast, place, setup, tail};
use crate::course::{Cable, Course, PORT_BYTES, PORT_MBPS};
use crate::options::{Carrier, Options};
use crate::report::Report;
use crate::roles::process::Order;
use crate::roles::{Role, Setup};
use insane_wire::status::StatusReport;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vplc_containers::bundle::{Bundle, Contents, SOCKET_FOLDER};
use vplc_containers::engine::{Container, Engine};

const TEMPLATE_A: &str = include_str!("../../hosts/a.ron");
const TEMPLATE_B: &str = include_str!("../../hosts/b.ron");
const SWITCHED_A: &str = include_str!("../../hosts/port-a.ron");
const SWITCHED_B: &str = include_str!("../../hosts/port-b.ron");
/// Of the network without a switch, bytes.
const MTU: &str = "9000";
/// How long a process may take to start, or to end by itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// User of the container; it has no entry anywhere, and needs none.
const CONTAINER_USER: u32 = 61_001;

/// The running processes. Fields are dropped in this order: processes first, then the
/// hosts whose threads they die with, then the files.
pub struct Namespaces {
    pub(super) reports: Receiver<Report>,
    parts: Vec<Process>,
    daemons: Vec<Process>,
    hosts: [Host; 2],
    _switch: Option<Host>,
    folder: Folder,
}

impl Namespaces {
    pub(super) fn start(
        insaned: &Path,
        engine: Option<Engine>,
        options: &Options,
        course: &Course,
    ) -> Result<Self, StageError> {
        let hosts = [Host::new("a")?, Host::new("b")?];
        let switch = match course.cable {
            Cable::Own => {
                join(&hosts)?;
                None
            }
            Cable::Switched => Some(join_at_switch(&hosts)?),
        };
        let (tell, reports) = channel();
        let folder = Folder::new()?;
        let mut stage = Namespaces { reports, parts: Vec::new(), daemons: Vec::new(), hosts, _switch: switch, folder };
        for side in [Side::A, Side::B] {
            stage.start_daemon(side, insaned, (course.cable, options.technology), &tell)?;
        }
        let instants = Instants::from_now(course.cable);
        for (side, role) in cast(course) {
            let setup = setup(options, course, role, place(side, role), instants);
            let process = match engine.filter(|_| role == Role::Controller) {
                Some(engine) => stage.start_container(engine, side, setup, &tell)?,
                None => {
                    let order = Order::Part { socket: stage.folder.socket(side), setup };
                    stage.start_process(side, role.name(), &order, &tell)?
                }
            };
            stage.parts.push(process);
        }
        Ok(stage)
    }

    /// The state of host a's daemon and of host b's.
    pub(super) fn status(&self) -> [Option<StatusReport>; 2] {
        [Side::A, Side::B].map(|side| super::slots::ask(&self.folder.socket(side)))
    }

    fn start_daemon(
        &mut self,
        side: Side,
        insaned: &Path,
        (cable, carrier): (Cable, Carrier),
        tell: &Sender<Report>,
    ) -> Result<(), StageError> {
        let (name, template) = match (side, cable) {
            (Side::A, Cable::Own) => ("insaned-a", TEMPLATE_A),
            (Side::B, Cable::Own) => ("insaned-b", TEMPLATE_B),
            (Side::A, Cable::Switched) => ("insaned-a", SWITCHED_A),
            (Side::B, Cable::Switched) => ("insaned-b", SWITCHED_B),
        };
        let socket = self.folder.socket(side);
        let config = self.folder.0.join(format!("{name}.ron"));
        let text = carried(configuration(template, &socket, insane_sys::thread::cores()), carrier);
        std::fs::write(&config, text).map_err(StageError::system(format!("writing {}", config.display())))?;
        let arguments = vec!["--config".into(), config.display().to_string()];
        let order = Order::Become { program: insaned.into(), arguments };
        let mut process = self.start_process(side, name, &order, tell)?;
        let give_up = Instant::now() + PATIENCE;
        while !socket.exists() {
            let dead = process.death();
            if dead.is_some() || Instant::now() >= give_up {
                let said =
                    dead.unwrap_or_else(|| format!("no control socket within {PATIENCE:?}\n{}", tail(&process.log)));
                return Err(StageError::Program { what: name.into(), said });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.daemons.push(process);
        Ok(())
    }

    /// Starts this very program on that host with an order. Standard output is read
    /// for reports; what is no report, and standard error, goes to a log.
    fn start_process(
        &self,
        side: Side,
        name: &str,
        order: &Order,
        tell: &Sender<Report>,
    ) -> Result<Process, StageError> {
        let what = format!("starting {name}");
        let log = self.folder.0.join(format!("{name}.log"));
        let errors = File::create(&log).map_err(StageError::system(&what))?;
        let is_daemon = matches!(order, Order::Become { .. });
        let output = if is_daemon { errors.try_clone().map(Stdio::from) } else { Ok(Stdio::piped()) };
        let program = std::env::current_exe().map_err(StageError::system(&what))?;
        // The types of an order hold nothing that JSON cannot.
        let order = serde_json::to_string(order).unwrap_or_default();
        let mut command = Command::new(program);
        command
            .args([crate::PART_ARGUMENT, &order])
            .stdin(Stdio::piped())
            .stdout(output.map_err(StageError::system(&what))?)
            .stderr(errors)
            // Ctrl-C is for the demonstration, which then ends its parts in order.
            .process_group(0);
        let host = &self.hosts[usize::from(side == Side::B)];
        let mut child = host.call(move || command.spawn())?.map_err(StageError::system(&what))?;
        let input = child.stdin.take();
        let output = read_reports(&mut child, tell);
        Ok(Process { name: name.into(), child, input, output, log, dead: false, container: None })
    }

    /// Starts a part in a container that has no rights, and of this host the control socket.
    fn start_container(
        &self,
        engine: Engine,
        side: Side,
        setup: Setup,
        tell: &Sender<Report>,
    ) -> Result<Process, StageError> {
        let name = setup.role.name();
        let what = format!("starting {name} in a container");
        let socket = self.folder.socket(side);
        let inside = Path::new(SOCKET_FOLDER).join(socket.file_name().unwrap_or_default());
        // The types of an order hold nothing that JSON cannot.
        let order = serde_json::to_string(&Order::Part { socket: inside, setup }).unwrap_or_default();
        let program = std::env::current_exe().map_err(StageError::system(&what))?;
        let arguments = [crate::PART_ARGUMENT.to_owned(), order];
        let sockets = socket.parent().unwrap_or(Path::new("/"));
        let contents = Contents { name, program: &program, arguments: &arguments, user: CONTAINER_USER, sockets };
        let bundle = Bundle::create(&self.folder.0.join(name), &contents)?;
        let log = self.folder.0.join(format!("{name}.log"));
        let errors = File::create(&log).map_err(StageError::system(&what))?;
        let id = format!("insane-demo-{}-{name}", std::process::id());
        let state = self.folder.0.join("state");
        let started = engine.run(&bundle, &id, &state, errors.into());
        let (mut child, container) = started.map_err(StageError::system(&what))?;
        let input = child.stdin.take();
        let output = read_reports(&mut child, tell);
        Ok(Process { name: name.into(), child, input, output, log, dead: false, container: Some(container) })
    }

    pub(super) fn look_for_dead(&mut self) -> Option<Report> {
        self.parts.iter_mut().chain(&mut self.daemons).find_map(|process| {
            let text = process.death()?;
            Some(Report::Failed { from: process.name.clone(), text })
        })
    }

    /// Parts end by themselves, then the daemons; who does not is killed.
    pub(super) fn end(&mut self) {
        self.parts.iter_mut().for_each(Process::ask_to_end);
        self.parts.iter_mut().for_each(Process::end);
        self.daemons.iter_mut().for_each(Process::end);
    }
}

/// Passes on what a part reports on its standard output.
fn read_reports(child: &mut Child, tell: &Sender<Report>) -> Option<JoinHandle<()>> {
    child.stdout.take().map(|output| {
        let tell = tell.clone();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            for report in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
                if tell.send(report).is_err() {
                    break;
                }
            }
        })
    })
}

/// The veth pair of the configurations, made inside the two namespaces: nothing of it
/// is ever seen outside.
fn join(hosts: &[Host; 2]) -> Result<(), StageError> {
    let [a, b] = hosts;
    a.ip(&["link", "add", "veth-a", "type", "veth", "peer", "name", "veth-b"])?;
    a.ip(&["link", "set", "veth-b", "netns", &b.namespace()])?;
    for (host, device, address) in [(a, "veth-a", "10.77.0.1/24"), (b, "veth-b", "10.77.0.2/24")] {
        host.ip(&["address", "add", address, "dev", device])?;
        host.ip(&["link", "set", device, "mtu", MTU, "up"])?;
    }
    Ok(())
}

/// Two hosts at a switch in a third namespace. Each of its ports sends at the rate of the
/// configurations, preamble, check sum and gap of each frame counted, and holds as much as
/// such a switch does. A burst is one frame, so that two never pass together.
fn join_at_switch(hosts: &[Host; 2]) -> Result<Host, StageError> {
    let switch = Host::new("s")?;
    switch.ip(&["link", "add", "bridge", "type", "bridge"])?;
    let ends = [("veth-a", "port-a", "10.77.0.1/24"), ("veth-b", "port-b", "10.77.0.2/24")];
    let (rate, room) = (format!("{PORT_MBPS}mbit"), PORT_BYTES.to_string());
    for (host, (device, port, address)) in hosts.iter().zip(ends) {
        host.ip(&["link", "add", device, "type", "veth", "peer", "name", port])?;
        host.ip(&["link", "set", port, "netns", &switch.namespace()])?;
        switch.ip(&["link", "set", port, "master", "bridge", "up"])?;
        let shaper = ["root", "tbf", "rate", &rate, "burst", "1600", "limit", &room, "overhead", "24"];
        switch.run("tc", &[&["qdisc", "add", "dev", port], &shaper[..]].concat())?;
        host.ip(&["address", "add", address, "dev", device])?;
        host.ip(&["link", "set", device, "up"])?;
    }
    switch.ip(&["link", "set", "bridge", "up"])?;
    Ok(switch)
}

/// A daemon's configuration: the template with this run's socket, and the cores that
/// this process may use in place of 0 and 1.
fn configuration(template: &str, socket: &Path, cores: &[usize]) -> String {
    let line = |line: &str| {
        if line.trim_start().starts_with("control:") {
            // The user of a container is nobody's: who may attach is for `domains` to say.
            return format!("    control: (socket: {:?}, mode: 0o666),", socket.display().to_string());
        }
        let mut line = line.to_owned();
        for (place, core) in cores.iter().enumerate().take(2) {
            let written = [format!("core: {place},"), format!("cores: [{place}],")];
            let of_this_run = [format!("core: {core},"), format!("cores: [{core}],")];
            if let Some(at) = written.iter().position(|written| line.contains(written)) {
                line = line.replace(&written[at], &of_this_run[at]);
                break;
            }
        }
        line
    };
    template.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The same configuration over another technology. A link past the kernel has an address of its
/// own beside the kernel's, on the same interface.
fn carried(text: String, carrier: Carrier) -> String {
    let link = |interface: &str, bind: &str| match carrier {
        Carrier::Udp => None,
        Carrier::Xdp => Some(format!("xdp(interface: {interface:?}, bind: {bind})")),
        Carrier::Dpdk => Some(format!("dpdk(device: \"net_af_packet0,iface={interface}\", bind: {bind})")),
    };
    [('1', "veth-a"), ('2', "veth-b")].into_iter().fold(text, |text, (host, interface)| {
        let (of_kernel, own) = (format!("\"10.77.0.{host}:7400\""), format!("\"10.77.0.1{host}:7400\""));
        match link(interface, &own) {
            Some(link) => text.replace(&format!("udp(bind: {of_kernel})"), &link).replace(&of_kernel, &own),
            None => text,
        }
    })
}

/// A process that dies with this value.
struct Process {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Option<JoinHandle<()>>,
    log: PathBuf,
    dead: bool,
    /// What it runs in, if that is a container; `child` is its engine then.
    container: Option<Container>,
}

impl Process {
    /// What is to be said if it has ended, which nobody asked it to; once. The device
    /// ends by itself when it has run all cycles.
    fn death(&mut self) -> Option<String> {
        match self.child.try_wait() {
            Ok(Some(status)) if !self.dead => {
                self.dead = true;
                let is_done = status.success() && self.name == Role::Device.name();
                (!is_done).then(|| format!("{status}\n{}", tail(&self.log)))
            }
            _ => None,
        }
    }

    fn ask_to_end(&mut self) {
        drop(self.input.take());
    }

    fn end(&mut self) {
        self.ask_to_end();
        let is_part = self.output.is_some();
        if !is_part {
            // A daemon does not read its input: it is told by the signal meant for that.
            let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
            if matches!(self.child.try_wait(), Ok(None)) {
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            }
        }
        let give_up = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < give_up {
            std::thread::sleep(Duration::from_millis(5));
        }
        // An engine that is killed leaves its container: that goes first.
        drop(self.container.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(output) = self.output.take() {
            let _ = output.join();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.ask_to_end();
        drop(self.container.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a folder's name starts with; the process's number follows.
const FOLDER: &str = "insane-demo-";

/// Removes what a demonstration left that was killed with no time to clear away.
fn sweep(temporary: &Path) {
    for entry in std::fs::read_dir(temporary).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(FOLDER)).and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// A folder of this run for sockets, configurations and logs; removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Self, StageError> {
        sweep(&std::env::temp_dir());
        let path = std::env::temp_dir().join(format!("{FOLDER}{}", std::process::id()));
        let what = format!("making {}", path.display());
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(StageError::system(&what))?;
        let folder = Folder(path);
        for side in [Side::A, Side::B] {
            let sockets = folder.socket(side);
            std::fs::create_dir(sockets.parent().unwrap_or(&folder.0)).map_err(StageError::system(&what))?;
        }
        Ok(folder)
    }

    fn socket(&self, side: Side) -> PathBuf {
        // In a folder of its own: a container is given that folder.
        self.0.join(if side == Side::A { "a/insaned.sock" } else { "b/insaned.sock" })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_take_socket_and_cores_and_are_configurations() {
        let machine = insane_config::Machine { cores: Some(vec![2, 5]), ..insane_config::Machine::detect() };
        for template in [TEMPLATE_A, TEMPLATE_B, SWITCHED_A, SWITCHED_B] {
            let text = configuration(template, Path::new("/tmp/x/a.sock"), &[2, 5]);
            assert_eq!(text.matches("socket: \"/tmp/x/a.sock\"").count(), 1, "{text}");
            assert!(text.contains("core: 2,") != text.contains("core: 5,"), "{text}");
            let loaded = insane_config::parse("demo", &text, &machine).expect("the template is valid");
            assert_eq!(loaded.plan.control.socket, Some("/tmp/x/a.sock".into()));
        }
    }

    #[test]
    fn another_technology_changes_the_link_and_nothing_else() {
        let machine = insane_config::Machine { cores: Some(vec![0, 1]), ..insane_config::Machine::detect() };
        for (template, interface, own, peer) in
            [(SWITCHED_A, "veth-a", "10.77.0.11", "10.77.0.12"), (SWITCHED_B, "veth-b", "10.77.0.12", "10.77.0.11")]
        {
            let plan = |carrier| {
                let text = carried(configuration(template, Path::new("/tmp/s"), &[0, 1]), carrier);
                insane_config::parse("demo", &text, &machine).expect("it is valid").plan
            };
            let udp = plan(Carrier::Udp);
            for carrier in [Carrier::Xdp, Carrier::Dpdk] {
                let other = plan(carrier);
                let (before, link) = (&udp.datapaths[0].links[0], &other.datapaths[0].links[0]);
                let (on, bind) = match &link.technology {
                    insane_config::Technology::Xdp(way) => (way.interface.as_str(), way.bind),
                    insane_config::Technology::Dpdk(way) => {
                        (way.device.interface().expect("one of the kernel's"), way.bind)
                    }
                    other => panic!("{carrier:?}: {other:?}"),
                };
                assert_eq!((on, bind), (interface, format!("{own}:7400").parse().unwrap()));
                assert_eq!(link.peers, [Some(format!("{peer}:7400").parse().unwrap())]);
                assert_eq!((before.rate, &udp.peers, &udp.domains), (link.rate, &other.peers, &other.domains));
            }
        }
    }

    #[test]
    fn only_what_the_dead_left_is_swept() {
        let temporary = std::env::temp_dir().join(format!("insane-sweep-{}", std::process::id()));
        // Above the largest number a process can have; alive; and none of ours.
        let names = [format!("{FOLDER}4194305"), format!("{FOLDER}{}", std::process::id()), format!("{FOLDER}x")];
        names.iter().for_each(|name| std::fs::create_dir_all(temporary.join(name)).unwrap());
        sweep(&temporary);
        let left: Vec<bool> = names.iter().map(|name| temporary.join(name).exists()).collect();
        std::fs::remove_dir_all(&temporary).unwrap();
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn a_core_that_was_put_in_is_not_replaced_again() {
        let text = configuration("core: 0, x\ncore: 1, y", Path::new("s"), &[1, 0]);
        assert_eq!(text, "core: 1, x\ncore: 0, y");
    }
}
