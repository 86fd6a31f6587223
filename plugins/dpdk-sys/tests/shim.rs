//! The shim and this side of it, where there is DPDK: `cargo xtask dpdk-shim` first.

use dpdk_sys::{Eal, EalError, EalOptions, Port, PortOptions, ShimError};
use insane_sys::Errno;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn options() -> EalOptions {
    let arguments = ["--no-huge", "--no-pci", "--no-telemetry", "--no-shconf"].map(str::to_owned).to_vec();
    EalOptions { arguments, memory_mib: 128, ..EalOptions::default() }
}

/// `None` where there is no shim, with a word on standard error.
fn eal() -> Option<Eal> {
    match Eal::start(&options()) {
        Ok(eal) => Some(eal),
        Err(EalError::Shim(reason @ ShimError::Missing { .. })) => {
            eprintln!("passed over: {reason}");
            None
        }
        Err(other) => panic!("{other}"),
    }
}

fn port_options(device: &str) -> PortOptions {
    PortOptions {
        device: device.to_owned(),
        packet_bytes: 1500,
        ring_frames: 256,
        pool_frames: 1023,
        is_promiscuous: true,
    }
}

#[test]
fn both_sides_mean_the_same_structures() {
    let Some(eal) = eal() else { return };
    let (theirs, ours) = eal.layouts();
    assert_eq!(theirs, ours);
    assert!(ours.len() > 20);
    assert!(eal.version().starts_with("DPDK 22.11"), "{}", eal.version());
}

#[test]
fn dpdk_is_started_once() {
    let Some(_eal) = eal() else { return };
    assert!(Eal::start(&options()).is_ok(), "the same again is the one that runs");
    let mut other = options();
    other.arguments.push("--log-level=8".to_owned());
    let error = Eal::start(&other).unwrap_err();
    assert!(matches!(error, EalError::Otherwise { .. }), "{error}");
}

#[test]
fn frames_go_from_one_port_to_the_other_and_come_back_to_their_port() {
    let Some(eal) = eal() else { return };
    eal.ring_pair("net_ring_a", "net_ring_b", 256).unwrap();
    let (mut a, about) = Port::open(eal, &port_options("net_ring_a")).unwrap();
    let (mut b, _) = Port::open(eal, &port_options("net_ring_b")).unwrap();
    assert!(about.is_vdev && about.is_up && about.driver == "net_ring", "{about:?}");
    assert!(about.pool_bytes > 1023 * 1500);
    // Many times more than the port has frames: all come back.
    for round in 0..200u32 {
        let mut frames = Vec::new();
        for number in 0..50u32 {
            let mut frame = a.reserve().unwrap();
            let bytes = [round.to_le_bytes(), number.to_le_bytes()].concat();
            a.room(&frame)[..8].copy_from_slice(&bytes);
            frame.set_len(8 + number as usize);
            frames.push(frame);
        }
        assert_eq!((a.send(&mut frames), frames.len()), (50, 0));
        for number in 0..50u32 {
            let frame = b.receive().unwrap();
            assert_eq!(frame.len(), 8 + number as usize);
            assert_eq!(b.bytes(&frame)[..8], [round.to_le_bytes(), number.to_le_bytes()].concat());
            b.release(frame);
        }
        assert!(b.receive().is_none());
    }
    assert_eq!(a.counts().sent, 10_000);
    assert_eq!(b.counts().received, 10_000);
}

#[test]
fn a_port_that_has_no_frame_left_says_so_and_a_full_ring_takes_no_more() {
    let Some(eal) = eal() else { return };
    eal.ring_pair("net_ring_c", "net_ring_d", 64).unwrap();
    let (mut c, _) = Port::open(eal, &port_options("net_ring_c")).unwrap();
    let mut all: Vec<_> = std::iter::from_fn(|| c.reserve()).collect();
    assert!((1023 - 32..=1023).contains(&all.len()), "{}", all.len());
    let distinct: BTreeSet<_> = all.iter().map(|frame| c.room(frame).as_ptr()).collect();
    assert_eq!(distinct.len(), all.len(), "no two frames share memory");
    all.iter_mut().for_each(|frame| frame.set_len(60));
    let before = all.len();
    let sent = c.send(&mut all) + c.send(&mut all) + c.send(&mut all);
    assert_eq!((sent, all.len()), (63, before - 63), "a ring of 64 holds 63");
    all.into_iter().for_each(|frame| c.release(frame));
    assert!(c.reserve().is_some());
}

#[test]
#[should_panic(expected = "a frame of another port")]
fn a_frame_is_not_looked_into_by_way_of_another_port() {
    let Some(eal) = eal() else { panic!("a frame of another port: passed over: no shim") };
    eal.ring_pair("net_ring_e", "net_ring_f", 64).unwrap();
    let (mut e, _) = Port::open(eal, &port_options("net_ring_e")).unwrap();
    let (mut f, _) = Port::open(eal, &port_options("net_ring_f")).unwrap();
    let frame = e.reserve().unwrap();
    f.bytes(&frame);
}

#[test]
fn a_device_that_is_not_there_is_told_in_words() {
    let Some(eal) = eal() else { return };
    let error = Port::open(eal, &port_options("net_nosuch0")).unwrap_err();
    assert_eq!(error.stage, "finding the device");
    let error = Port::open(eal, &port_options("net_af_packet7,iface=nosuch7")).unwrap_err();
    assert!(error.said.contains("No such device"), "DPDK said why: {error}");
    let huge = PortOptions { packet_bytes: 9000, ..port_options("net_null7") };
    let error = Port::open(eal, &PortOptions { pool_frames: 1 << 20, ..huge }).unwrap_err();
    assert!(error.stage.contains("-m"), "memory has its end: {error}");
    let (mut port, _) = Port::open(eal, &port_options("net_null7")).unwrap();
    assert_eq!(port.is_up(), Ok(true), "what failed left nothing behind");
}

#[test]
fn dpdk_leaves_the_cores_of_others_alone() {
    let Some(_eal) = eal() else { return };
    // A process of its own: this one has started DPDK with what it was given.
    let mut part = Command::new(std::env::current_exe().unwrap());
    let output = part.args(["--exact", "part_threads_of_dpdk", "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("threads of DPDK: "), "{text}");
}

#[test]
#[ignore = "a part of dpdk_leaves_the_cores_of_others_alone"]
fn part_threads_of_dpdk() {
    let status = |path: &Path| std::fs::read_to_string(path.join("status")).unwrap_or_default();
    let allowed = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.map(|list| list.trim().to_owned()).unwrap_or_default()
    };
    let before: BTreeSet<PathBuf> = tasks();
    let mine = allowed(&status(Path::new("/proc/thread-self")));
    let others = (1..1024).collect();
    let eal = Eal::start(&EalOptions { keep_off: others, ..options() }).unwrap();
    let (_port, _) = Port::open(eal, &port_options("net_null0")).unwrap();
    assert_eq!(allowed(&status(Path::new("/proc/thread-self"))), mine, "the caller is where it was");
    let new: Vec<String> = tasks().difference(&before).map(|task| allowed(&status(task))).collect();
    println!("\nthreads of DPDK: {new:?}");
    assert!(!new.is_empty() && new.iter().all(|list| list == "0"), "{new:?}");
}

fn tasks() -> BTreeSet<PathBuf> {
    std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What a shim of another version says of itself, made by the C compiler alone.
#[test]
fn a_shim_of_another_version_is_not_used() {
    let folder = std::env::temp_dir().join(format!("insane-shim-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, library) = (folder.join("other.c"), folder.join("other.so"));
    std::fs::write(&source, "unsigned long long insane_dpdk_abi(void) { return 7ull << 32 | 42; }\n").unwrap();
    let made = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    // In a process of its own: here DPDK may run already.
    let mut part = Command::new(std::env::current_exe().unwrap());
    let part = part.args(["--exact", "part_other_version", "--ignored", "--nocapture"]);
    let output = part.env("INSANE_DPDK_SHIM", &library).output().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("passed over: there is no C compiler");
        return;
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("is not of this version: it speaks 7 (sizes 0000002a)"), "{text}");
    assert!(text.contains("`cargo xtask dpdk-shim` makes it anew"), "{text}");
}

#[test]
#[ignore = "a part of a_shim_of_another_version_is_not_used"]
fn part_other_version() {
    let error = Eal::start(&options()).unwrap_err();
    println!("\n{error}");
    assert_ne!(error, EalError::Zero);
    assert!(!matches!(error, EalError::Refused { errno: Errno::EINVAL, .. }));
}
