//! A daemon starts without what its links run on (libraries, devices, interfaces, rights, huge
//! pages), serves by what is left, and its status says what is missing and why.
//!
//! It needs root and `ip`; without, it says so and passes over itself.
#![forbid(unsafe_code)]

mod hosts;
#[path = "../../control/tests/peer/mod.rs"]
mod peer;

use hosts::{Daemon, Plant, folder, wait_for, write};
use insane_rt::{ChannelId, Emit, Qos, Session, SinkOptions, SourceOptions};
use insane_wire::status::LinkStatus;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const CHANNEL: ChannelId = ChannelId(3);
/// Rights that a daemon may be without.
const RIGHTS: &str = "-bpf,-net_admin,-net_raw,-sys_admin";

fn link(daemon: &Daemon, name: &str) -> LinkStatus {
    let report = daemon.status();
    let mut links = report.datapaths.into_iter().flat_map(|datapath| datapath.links);
    links.find(|link| link.name == name).unwrap_or_else(|| panic!("a link {name}"))
}

/// The link is missing, for a reason with these words, and the daemon says so where an operator
/// looks first.
fn is_missing(daemon: &Daemon, name: &str, words: &[&str]) -> String {
    let found = link(daemon, name);
    let why = found.missing.clone().unwrap_or_else(|| panic!("it is not missing: {found:?}"));
    assert!(!found.up && words.iter().all(|word| why.contains(word)), "{name}: {why}");
    let degraded = daemon.status().degraded;
    let is_told = |line: &String| line.contains(&format!("link \"{name}\"")) && line.contains(&why);
    assert!(degraded.iter().any(is_told), "{degraded:#?}");
    // It quotes what has quotes in it.
    let log = daemon.log().replace("\\\"", "\"");
    assert!(log.contains(&why), "the log says it, too: {log}");
    why
}

/// Messages come from one daemon to the other.
fn serves(from: &Daemon, to: &Daemon) {
    let attach = |daemon: &Daemon| Session::attach(daemon.socket(), "app").unwrap();
    let (here, there) = (attach(from), attach(to));
    let sink = there.stream("s", Qos::default()).unwrap().sink(CHANNEL, SinkOptions::default()).unwrap();
    let source = here.stream("s", Qos::default()).unwrap().source(CHANNEL, SourceOptions::default()).unwrap();
    wait_for("the source sends to the peer", || source.receivers() == 1);
    wait_for("a message comes", || {
        if let Ok(mut buffer) = source.get_buffer(64) {
            buffer.fill(7);
            assert!(matches!(source.emit(buffer), Emit::Sent(_) | Emit::Refused(..)));
        }
        std::thread::sleep(Duration::from_millis(1));
        sink.consume().unwrap().is_some_and(|message| message.to_vec() == [7; 64])
    });
}

/// As [`Daemon::start`], by a command in front, and where the library for DPDK is looked for.
fn start_by(namespace: &hosts::Namespace, command: &[&str], shim: Option<&Path>, rest: &str) -> Daemon {
    let folder = folder("missing");
    write(&folder, "one", rest);
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    let mut ip = Command::new("ip");
    ip.args(["netns", "exec", &namespace.0]).args(command);
    ip.args([env!("CARGO_BIN_EXE_insaned"), "--config"]).arg(folder.join("insaned.ron"));
    ip.env("INSANED_GUARD", "abort").env_remove("NOTIFY_SOCKET");
    if let Some(shim) = shim {
        ip.env("INSANE_DPDK_SHIM", shim);
    }
    let child = ip.stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let mut daemon = Daemon { child, folder };
    daemon.wait_until_it_listens();
    daemon
}

/// Links in two datapaths, of four each at most.
fn config(real_time: &[(&str, String)], best_effort: &[(&str, String)], peers: &str, rest: &str) -> String {
    let names =
        |links: &[(&str, String)]| links.iter().map(|(name, _)| format!("{name:?}")).collect::<Vec<_>>().join(",");
    let links = real_time.iter().chain(best_effort);
    let links: Vec<String> = links.map(|(name, of)| format!("(name: {name:?}, technology: {of})")).collect();
    format!(
        "links: [{}], datapaths: [(name: \"rt\", serves: real_time, links: [{}]), \
         (name: \"be\", serves: best_effort, links: [{}])], peers: [{peers}], {rest}",
        links.join(","),
        names(real_time),
        names(best_effort)
    )
}

fn udp(address: &str) -> String {
    format!("udp(bind: \"{address}\")")
}

fn xdp(interface: &str, address: &str) -> String {
    format!("xdp(interface: {interface:?}, bind: \"{address}\")")
}

fn dpdk(address: &str) -> String {
    dpdk_on("net_af_packet0,iface=eth0", address)
}

fn dpdk_on(device: &str, address: &str) -> String {
    format!("dpdk(device: {device:?}, bind: \"{address}\")")
}

/// A host that only has udp links.
fn plain(plant: &Plant, at: usize) -> Daemon {
    let links = [("lan", udp("10.77.0.2:7400"))];
    let others = [("spare", udp("10.77.0.2:7410"))];
    let peers = "(name: \"one\", links: {\"lan\": \"10.77.0.1:7400\", \"spare\": \"10.77.0.1:7410\"})";
    Daemon::start(&plant.hosts[at], "two", &config(&links, &others, peers, ""))
}

const PEERS: &str = "(name: \"two\", links: {\"lan\": \"10.77.0.2:7400\", \"spare\": \"10.77.0.2:7410\"})";

#[test]
fn a_daemon_runs_with_what_is_left_and_its_status_says_what_is_missing_and_why() {
    let Some(mut plant) = Plant::new() else { return };
    let (own, other) = (plant.add("10.77.0.1"), plant.add("10.77.0.2"));
    let host = &plant.hosts[own];
    assert!(host.ip("link add x0 type veth peer name x1") && host.ip("link set x0 up") && host.ip("link set x1 up"));
    let two = plain(&plant, other);

    // Another process has the interface x0 for its XDP program.
    let holder = [("main", xdp("x0", "10.79.0.9:7400"))];
    let holder_rest = config(&holder, &[("b", udp("127.0.0.1:7600"))], "", "");
    let holder = Daemon::start(host, "holder", &holder_rest);
    assert!(link(&holder, "main").up, "{:?}", link(&holder, "main"));

    let real_time = [
        ("lan", udp("10.77.0.1:7400")),
        ("nowhere", xdp("nosuch0", "10.79.0.1:7420")),
        ("taken", xdp("x0", "10.79.0.1:7430")),
        ("verbs", "rdma(bind: \"10.77.0.1:7440\")".to_owned()),
    ];
    let best_effort = [("spare", udp("10.77.0.1:7410")), ("port", dpdk("10.79.0.1:7450"))];
    let rest = config(&real_time, &best_effort, PEERS, "memory: (huge_pages: try), log: (level: info)");
    let mut one = start_by(host, &[], Some(Path::new("/nosuch.so")), &rest);
    is_missing(&one, "nowhere", &["interface nosuch0", "finding the interface"]);
    is_missing(&one, "taken", &["interface x0", "taken by another process"]);
    is_missing(&one, "port", &["library for DPDK cannot be loaded", "/nosuch.so"]);
    let verbs = is_missing(&one, "verbs", &[]);
    assert!(verbs.contains("RDMA") || verbs.contains("cannot be loaded"), "{verbs}");
    assert!(link(&one, "lan").up && link(&one, "spare").up);
    serves(&one, &two);
    serves(&two, &one);

    // What comes is had, while it runs.
    drop(holder);
    assert!(host.ip("link add nosuch0 type veth peer name nosuch1") && host.ip("link set nosuch0 up"));
    wait_for("both interfaces are had", || link(&one, "nowhere").up && link(&one, "taken").up);
    assert_eq!(link(&one, "nowhere").missing, None);
    // And what goes is told.
    assert!(host.ip("link delete nosuch0"));
    wait_for("it is missing again", || !link(&one, "nowhere").up);
    is_missing(&one, "nowhere", &["nosuch0"]);
    let names = |name: &str| link(&one, name).counters.into_keys().collect::<Vec<_>>();
    for counted in ["connections_made", "devices_lost", "frames_device_missing"] {
        assert!(names("verbs").iter().any(|name| name == counted), "{:?}", names("verbs"));
    }
    for counted in ["devices_lost", "frames_device_missing", "frames_unresolved"] {
        assert!(names("port").iter().any(|name| name == counted), "{:?}", names("port"));
    }
    serves(&one, &two);
    assert!(one.child.try_wait().unwrap().is_none(), "{}", one.log());
}

/// DPDK's AF_XDP wants a queue for itself; its packet sockets share the interface with everybody.
#[test]
fn a_daemon_whose_dpdk_finds_its_interface_taken_runs_with_what_is_left() {
    let shim = Path::new(env!("CARGO_BIN_EXE_insaned")).with_file_name("libinsane_dpdk.so");
    if !shim.exists() {
        return eprintln!("passed over: {} is missing (cargo xtask dpdk-shim)", shim.display());
    }
    let Some(mut plant) = Plant::new() else { return };
    let (own, other) = (plant.add("10.77.0.1"), plant.add("10.77.0.2"));
    let host = &plant.hosts[own];
    assert!(host.ip("link add x0 type veth peer name x1") && host.ip("link set x0 up") && host.ip("link set x1 up"));
    let two = plain(&plant, other);
    let holder_rest = config(&[("main", xdp("x0", "10.79.0.9:7400"))], &[("b", udp("127.0.0.1:7600"))], "", "");
    let holder = Daemon::start(host, "holder", &holder_rest);
    assert!(link(&holder, "main").up, "{:?}", link(&holder, "main"));
    let real_time = [("lan", udp("10.77.0.1:7400")), ("taken", dpdk_on("net_af_xdp0,iface=x0", "10.79.0.1:7430"))];
    let shared = [("spare", udp("10.77.0.1:7410")), ("shared", dpdk_on("net_af_packet0,iface=x0", "10.79.0.1:7440"))];
    let one = start_by(host, &[], None, &config(&real_time, &shared, PEERS, "log: (level: info)"));
    is_missing(&one, "taken", &["net_af_xdp0,iface=x0"]);
    assert!(link(&one, "shared").up && link(&one, "lan").up, "{:?}", link(&one, "shared"));
    serves(&one, &two);
    serves(&two, &one);
    drop(holder);
    wait_for("what is free is had", || link(&one, "taken").up);
}

#[test]
fn a_daemon_without_rights_runs_with_what_is_left() {
    let has_setpriv = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !has_setpriv {
        return eprintln!("passed over: needs the command setpriv");
    }
    let Some(mut plant) = Plant::new() else { return };
    let (own, other) = (plant.add("10.77.0.1"), plant.add("10.77.0.2"));
    let two = plain(&plant, other);
    let real_time = [("lan", udp("10.77.0.1:7400")), ("fast", xdp("eth0", "10.79.0.1:7420"))];
    let best_effort = [("spare", udp("10.77.0.1:7410"))];
    let rest = config(&real_time, &best_effort, PEERS, "");
    let setpriv = ["setpriv", "--bounding-set", RIGHTS, "--inh-caps", RIGHTS];
    let one = start_by(&plant.hosts[own], &setpriv, None, &rest);
    is_missing(&one, "fast", &["eth0", "permission denied", "CAP_BPF"]);
    serves(&one, &two);
    serves(&two, &one);
}

/// DPDK is started once a process: without the huge pages that it is told to use, it is not had.
#[test]
fn a_daemon_whose_dpdk_finds_no_huge_pages_runs_with_what_is_left() {
    let Some(mut plant) = Plant::new() else { return };
    let (own, other) = (plant.add("10.77.0.1"), plant.add("10.77.0.2"));
    let two = plain(&plant, other);
    let real_time = [("lan", udp("10.77.0.1:7400"))];
    let best_effort = [("spare", udp("10.77.0.1:7410")), ("port", dpdk("10.77.0.3:7450"))];
    // More than any machine has.
    let arguments = "eal: (arguments: [\"--in-memory\", \"--no-pci\", \"--no-telemetry\", \"-m\", \"1000000\"])";
    let one = start_by(&plant.hosts[own], &[], None, &config(&real_time, &best_effort, PEERS, arguments));
    let why = link(&one, "port").missing.expect("there are not as many huge pages");
    if why.contains("library for DPDK cannot be loaded") {
        eprintln!("passed over: {why}");
    } else {
        wait_for("the keeper has looked", || link(&one, "port").missing.is_some_and(|why| why.contains("restart")));
        is_missing(&one, "port", &["DPDK does not start", "needs a restart of the runtime"]);
    }
    serves(&one, &two);
    serves(&two, &one);
}
