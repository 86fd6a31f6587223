//! A link whose device is missing, goes away, or returns as another: it refuses frames and
//! counts them meanwhile, and goes on with the same peers.

mod common;

use common::{config, dpdk};
use insane_conformance::wire::{self, WORLD_LINK, WORLD_PEER, descriptors, named};
use insane_dpdk::{DpdkConfig, DpdkKeeper, DpdkLink, DpdkSetup, EalOptions};
use insane_link::{Link, LinkHealth, LinkKeeper, LinkSetup, SendOutcome};
use insane_sys::clock::mono_now;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

const FRAME_BYTES_MAX: u32 = 1000;

fn on_interface() -> DpdkConfig {
    let bind = WORLD_LINK.parse().unwrap();
    DpdkConfig { frame_bytes_max: Some(FRAME_BYTES_MAX), ..config("net_af_packet7,iface=x0", bind) }
}

fn open(setup: DpdkSetup) -> (DpdkLink, DpdkKeeper) {
    let keeper = setup.keeper();
    let peers: [Option<SocketAddr>; 1] = [Some(WORLD_PEER.parse().unwrap())];
    (setup.open(&peers).unwrap(), keeper)
}

type World = wire::World<DpdkLink, DpdkKeeper>;

/// Without an interface yet.
fn world() -> Option<World> {
    let hosts = wire::Hosts::make()?;
    let setup = hosts.ours.inside(|| DpdkSetup::bind_or_miss(on_interface()).unwrap());
    assert!(setup.missing().is_some());
    let (link, keeper) = open(setup);
    let is_ready = |link: &DpdkLink| link.knows_all_ways() && !link.is_failing();
    Some(World { hosts, link, keeper, is_ready })
}

/// A device that was down is tried with one frame a look.
fn exchange(world: &mut World, round: u32) {
    world.exchange(round, true);
}

/// The port was taken back and closed.
fn wait_until_lost(world: &mut World, times: u64) {
    world.wait_until("without its port", |link, _| named(link, "devices_lost") == times);
}

#[test]
fn a_link_opens_without_its_interface_and_works_when_that_comes() {
    let Some(_alone) = dpdk() else { return };
    let Some(mut world) = world() else { return };
    assert_eq!(world.link.capabilities().frame_bytes_max, FRAME_BYTES_MAX);
    assert_eq!(world.send(b"lost"), SendOutcome::Failed);
    assert!(!world.link.tend(mono_now()) && !world.link.holds_frames(), "nothing keeps a datapath awake");
    assert_eq!(world.link.sleep_max(), None);
    assert_eq!(named(&world.link, "frames_device_missing"), 1);
    let why = world.wait_until_missing();
    assert!(why.contains("interface x0: finding the interface") && !why.contains("restart"), "{why}");
    world.hosts.join();
    world.wait_until_up();
    assert_eq!(world.link.sleep_max(), Some(on_interface().poll_each));
    exchange(&mut world, 0);
    assert_eq!(named(&world.link, "devices_lost"), 0);
}

#[test]
fn an_interface_that_goes_and_returns_is_opened_again_each_time() {
    const ROUNDS: u32 = 30;
    let Some(_alone) = dpdk() else { return };
    let Some(mut world) = world() else { return };
    world.hosts.join();
    world.wait_until_up();
    exchange(&mut world, 0);
    let before = descriptors();
    for round in 1..=ROUNDS {
        // Every second time between two looks: there is an interface of that name at each.
        world.hosts.ours.ip("link delete x0\n");
        if round % 2 == 0 {
            world.hosts.join();
        }
        let why = world.wait_until_missing();
        let expected = if round % 2 == 0 { "is another one now" } else { "finding the interface" };
        assert!(why.contains("x0") && why.contains(expected), "{why}");
        wait_until_lost(&mut world, u64::from(round));
        if round % 2 == 1 {
            assert_eq!(world.send(b"lost"), SendOutcome::Failed);
            world.hosts.join();
        }
        world.wait_until_up();
        exchange(&mut world, round);
    }
    assert_eq!(named(&world.link, "devices_lost"), u64::from(ROUNDS));
    let kept = descriptors().saturating_sub(before);
    assert!(kept < ROUNDS as usize, "{kept} descriptors are left of ports that were closed");
}

#[test]
fn an_interface_that_is_down_is_missing_and_keeps_its_port() {
    let Some(_alone) = dpdk() else { return };
    let Some(mut world) = world() else { return };
    world.hosts.join();
    world.wait_until_up();
    exchange(&mut world, 0);
    world.hosts.ours.ip("link set x0 down\n");
    let why = world.wait_until_missing();
    assert!(why.contains("interface x0 is down"), "{why}");
    world.hosts.ours.ip("link set x0 up\n");
    world.wait_until_up();
    exchange(&mut world, 1);
    assert_eq!(named(&world.link, "devices_lost"), 0);
}

#[test]
fn another_hardware_address_or_a_smaller_mtu_is_noticed() {
    let Some(_alone) = dpdk() else { return };
    let Some(mut world) = world() else { return };
    world.hosts.join();
    world.wait_until_up();
    world.hosts.ours.ip("link set x0 address 02:00:00:00:00:77\n");
    wait_until_lost(&mut world, 1);
    world.wait_until_up();
    exchange(&mut world, 0);
    world.hosts.ours.ip("link set x0 mtu 900\n");
    wait_until_lost(&mut world, 2);
    let why = world.wait_until_missing();
    assert!(why.contains("frame_bytes_max is 1000") && why.contains("508 to 872"), "{why}");
    world.hosts.ours.ip("link set x0 mtu 1500\n");
    world.wait_until_up();
    exchange(&mut world, 1);
}

#[test]
fn what_dpdk_cannot_do_again_is_told_as_final() {
    let Some(_alone) = dpdk() else { return };
    // DPDK runs, with other arguments.
    let eal = EalOptions { arguments: vec!["--no-huge".into()], ..common::eal() };
    let bind = WORLD_LINK.parse().unwrap();
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
    let bind = WORLD_LINK.parse().unwrap();
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
