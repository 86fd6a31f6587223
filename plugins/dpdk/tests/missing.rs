//! A link whose device is missing, goes away, or returns as another: it refuses frames and
//! counts them meanwhile, and goes on with the same peers.

mod common;

use common::{Namespace, config, dpdk};
use insane_core::{Lane, PeerIndex};
use insane_dpdk::{DpdkConfig, DpdkKeeper, DpdkLink, DpdkSetup, EalOptions};
use insane_link::{FrameSink, Link, LinkHealth, LinkKeeper, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const PEER: &str = "10.9.0.1:7400";
/// Where it has frames of the lane that is used here: not a real-time one.
const PEER_SOCKET: &str = "10.9.0.1:7401";
const PEER_INDEX: PeerIndex = PeerIndex(0);
const FRAME_BYTES_MAX: u32 = 1000;

#[derive(Default)]
struct Keep(Vec<Vec<u8>>);

impl FrameSink for Keep {
    fn frame(&mut self, _from: Option<PeerIndex>, frame: &[u8]) {
        self.0.push(frame.to_vec());
    }
}

fn on_interface() -> DpdkConfig {
    let bind = "10.9.0.2:7400".parse().unwrap();
    DpdkConfig { frame_bytes_max: Some(FRAME_BYTES_MAX), ..config("net_af_packet7,iface=x0", bind) }
}

fn open(setup: DpdkSetup) -> (DpdkLink, DpdkKeeper) {
    let keeper = setup.keeper();
    let peers: [Option<SocketAddr>; 1] = [Some(PEER.parse().unwrap())];
    (setup.open(&peers).unwrap(), keeper)
}

/// A host with a link at `x0`, and one with the kernel at `p0`.
struct World {
    ours: Namespace,
    kernel: Namespace,
    link: DpdkLink,
    keeper: DpdkKeeper,
}

impl World {
    /// Without an interface yet.
    fn make() -> Option<Self> {
        let (ours, kernel) = (Namespace::make()?, Namespace::make()?);
        let setup = ours.inside(|| DpdkSetup::bind_or_miss(on_interface()).unwrap());
        assert!(setup.missing().is_some());
        let (link, keeper) = open(setup);
        Some(World { ours, kernel, link, keeper })
    }

    /// Joins both hosts by a veth pair. Its hardware addresses are others each time.
    fn join(&self) {
        self.ours.ip(&format!("link add x0 type veth peer name p0 netns {}\nlink set x0 up\n", self.kernel.path()));
        self.kernel.ip("address add 10.9.0.1/24 dev p0\nlink set p0 up\n");
    }

    fn look(&mut self) -> LinkHealth {
        let keeper = &mut self.keeper;
        self.ours.inside(|| keeper.look())
    }

    /// What the datapath and the keeper do, until the keeper says so.
    fn wait_until(&mut self, what: &str, is_it: impl Fn(&LinkHealth) -> bool) -> LinkHealth {
        let end = Instant::now() + PATIENCE;
        loop {
            let health = self.look();
            self.link.tend(mono_now());
            if is_it(&health) {
                return health;
            }
            assert!(Instant::now() < end, "never {what}: {health:?}");
        }
    }

    fn wait_until_up(&mut self) {
        self.wait_until("up", |health| *health == LinkHealth::Up);
        let end = Instant::now() + PATIENCE;
        while !self.link.knows_all_ways() || self.link.is_failing() {
            assert!(Instant::now() < end, "the kernel does not answer: {:?}", self.link.counts());
            self.link.tend(mono_now());
            self.link.receive(64, true, &mut Keep::default());
        }
    }

    /// The reason, in words.
    fn wait_until_missing(&mut self) -> String {
        let health = self.wait_until("missing", |health| *health != LinkHealth::Up);
        let LinkHealth::Missing(why) = health else { unreachable!() };
        why
    }

    /// The port was taken back and closed.
    fn wait_until_lost(&mut self, times: u64) {
        let end = Instant::now() + PATIENCE;
        while self.link.counts().devices_lost != times {
            assert!(Instant::now() < end, "the link keeps what it has");
            self.look();
            self.link.tend(mono_now());
        }
    }

    fn send(&mut self, frame: &[u8]) -> SendOutcome {
        let outcome = self.link.send(PEER_INDEX, Lane::CONTROL, frame, (&[][..]).into());
        self.link.flush();
        outcome
    }

    /// Frames pass both ways.
    fn exchange(&mut self, round: u32) {
        let socket = self.kernel.inside(|| UdpSocket::bind(PEER_SOCKET)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let (there, back) = (format!("there {round}"), format!("back {round}"));
        let (mut came, mut kept) = ([0; 100], Keep::default());
        let end = Instant::now() + PATIENCE;
        let (from, len) = loop {
            // A device that was down is tried with one frame a look.
            let _ = self.send(there.as_bytes());
            self.link.tend(mono_now());
            self.link.receive(64, true, &mut kept);
            match socket.recv_from(&mut came) {
                Ok((len, from)) => break (from, len),
                Err(_) => assert!(Instant::now() < end, "round {round}: nothing comes: {:?}", self.link.counts()),
            }
        };
        assert_eq!((&came[..len], from), (there.as_bytes(), "10.9.0.2:7401".parse().unwrap()));
        socket.send_to(back.as_bytes(), from).unwrap();
        while !kept.0.iter().any(|frame| frame == back.as_bytes()) {
            assert!(Instant::now() < end, "round {round}: no answer comes: {:?}", kept.0);
            self.link.receive(64, true, &mut kept);
            self.link.tend(mono_now());
        }
    }
}

fn named(link: &DpdkLink, name: &str) -> u64 {
    let counts = link.link_counts();
    let mut rows = counts.names().iter().zip(counts.values());
    *rows.find(|(given, _)| **given == name).unwrap_or_else(|| panic!("nothing is called {name}")).1
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_link_opens_without_its_interface_and_works_when_that_comes() {
    let Some(_alone) = dpdk() else { return };
    let Some(mut world) = World::make() else { return };
    assert_eq!(world.link.capabilities().frame_bytes_max, FRAME_BYTES_MAX);
    assert_eq!(world.send(b"lost"), SendOutcome::Failed);
    assert!(!world.link.tend(mono_now()) && !world.link.holds_frames(), "nothing keeps a datapath awake");
    assert_eq!(world.link.sleep_max(), None);
    assert_eq!(named(&world.link, "frames_device_missing"), 1);
    let why = world.wait_until_missing();
    assert!(why.contains("interface x0: finding the interface") && !why.contains("restart"), "{why}");
    world.join();
    world.wait_until_up();
    assert_eq!(world.link.sleep_max(), Some(on_interface().poll_each));
    world.exchange(0);
    assert_eq!(named(&world.link, "devices_lost"), 0);
}

#[test]
fn an_interface_that_goes_and_returns_is_opened_again_each_time() {
    const ROUNDS: u32 = 30;
    let Some(_alone) = dpdk() else { return };
    let Some(mut world) = World::make() else { return };
    world.join();
    world.wait_until_up();
    world.exchange(0);
    let before = descriptors();
    for round in 1..=ROUNDS {
        // Every second time between two looks: there is an interface of that name at each.
        world.ours.ip("link delete x0\n");
        if round % 2 == 0 {
            world.join();
        }
        let why = world.wait_until_missing();
        let expected = if round % 2 == 0 { "is another one now" } else { "finding the interface" };
        assert!(why.contains("x0") && why.contains(expected), "{why}");
        world.wait_until_lost(u64::from(round));
        if round % 2 == 1 {
            assert_eq!(world.send(b"lost"), SendOutcome::Failed);
            world.join();
        }
        world.wait_until_up();
        world.exchange(round);
    }
    assert_eq!(named(&world.link, "devices_lost"), u64::from(ROUNDS));
    let kept = descriptors().saturating_sub(before);
    assert!(kept < ROUNDS as usize, "{kept} descriptors are left of ports that were closed");
}

#[test]
fn an_interface_that_is_down_is_missing_and_keeps_its_port() {
    let Some(_alone) = dpdk() else { return };
    let Some(mut world) = World::make() else { return };
    world.join();
    world.wait_until_up();
    world.exchange(0);
    world.ours.ip("link set x0 down\n");
    let why = world.wait_until_missing();
    assert!(why.contains("interface x0 is down"), "{why}");
    world.ours.ip("link set x0 up\n");
    world.wait_until_up();
    world.exchange(1);
    assert_eq!(named(&world.link, "devices_lost"), 0);
}

#[test]
fn another_hardware_address_or_a_smaller_mtu_is_noticed() {
    let Some(_alone) = dpdk() else { return };
    let Some(mut world) = World::make() else { return };
    world.join();
    world.wait_until_up();
    world.ours.ip("link set x0 address 02:00:00:00:00:77\n");
    world.wait_until_lost(1);
    world.wait_until_up();
    world.exchange(0);
    world.ours.ip("link set x0 mtu 900\n");
    world.wait_until_lost(2);
    let why = world.wait_until_missing();
    assert!(why.contains("frame_bytes_max is 1000") && why.contains("508 to 872"), "{why}");
    world.ours.ip("link set x0 mtu 1500\n");
    world.wait_until_up();
    world.exchange(1);
}

#[test]
fn what_dpdk_cannot_do_again_is_told_as_final() {
    let Some(_alone) = dpdk() else { return };
    // DPDK runs, with other arguments.
    let eal = EalOptions { arguments: vec!["--no-huge".into()], ..common::eal() };
    let bind = "10.9.0.2:7400".parse().unwrap();
    let setup = DpdkSetup::bind_or_miss(DpdkConfig { eal, ..config("net_null5", bind) }).unwrap();
    let (_link, mut keeper) = open(setup);
    let nic = DpdkSetup::bind_or_miss(config("0000:03:00.0", bind)).unwrap();
    let (_nic, mut of_nic) = open(nic);
    for _ in 0..2 {
        let LinkHealth::Missing(why) = keeper.look() else { panic!("it cannot be") };
        assert!(why.contains("DPDK runs already") && why.contains("needs a restart of the runtime"), "{why}");
        let LinkHealth::Missing(why) = of_nic.look() else { panic!("it cannot be") };
        assert!(why.contains("--no-pci") && why.contains("needs a restart of the runtime"), "{why}");
    }
}

/// Without the library nothing is final: it may be installed while the process runs.
#[test]
fn a_library_that_is_missing_is_looked_for_until_it_is_there() {
    let Some(_alone) = dpdk() else { return };
    // DPDK runs in this process.
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", "part_library", "--ignored", "--nocapture"]).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "a part of a_library_that_is_missing_is_looked_for_until_it_is_there"]
fn part_library() {
    let bind = "10.9.0.2:7400".parse().unwrap();
    let library = std::env::temp_dir().join(format!("insane-missing-{}.so", std::process::id()));
    let arguments = common::eal().arguments;
    let eal = EalOptions { shim: Some(library.clone()), arguments, memory_mib: 64, ..EalOptions::default() };
    let config = DpdkConfig { eal, mac: Some([2, 0, 0, 0, 0, 2]), ..config("net_null5", bind) };
    let (mut link, mut keeper) = open(DpdkSetup::bind_or_miss(config).unwrap());
    for _ in 0..2 {
        let LinkHealth::Missing(why) = keeper.look() else { panic!("there is nothing") };
        assert!(why.contains(library.to_str().unwrap()) && !why.contains("restart"), "{why}");
    }
    let is_there = |path: &PathBuf| path.join(dpdk_sys::SHIM_NAME).is_file();
    let own = std::env::current_exe().unwrap();
    let folder = own.ancestors().map(Path::to_path_buf).find(is_there);
    let shim = std::env::var_os(dpdk_sys::SHIM_VARIABLE).map(PathBuf::from);
    let Some(shim) = shim.or_else(|| folder.map(|folder| folder.join(dpdk_sys::SHIM_NAME))) else {
        return eprintln!("passed over: where the library is, only the system knows");
    };
    std::fs::copy(shim, &library).unwrap();
    let health = keeper.look();
    std::fs::remove_file(&library).unwrap();
    assert_eq!(health, LinkHealth::Up);
    link.tend(mono_now());
    assert!(!link.is_failing());
}
