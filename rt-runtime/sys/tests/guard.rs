//! The guard notices every way to allocate and to release, on sealed threads only.

use insane_sys::guard::{self, GuardAllocator};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: GuardAllocator = GuardAllocator;

fn noticed(action: impl FnOnce()) -> u64 {
    let before = guard::violations_here();
    guard::seal_thread();
    action();
    guard::unseal_thread();
    guard::violations_here() - before
}

#[test]
fn every_way_to_allocate_and_release_is_noticed() {
    let mut text = Vec::<u8>::with_capacity(4);
    let kept = Box::new(1);
    let before = guard::violations();
    assert_eq!(noticed(|| drop(kept)), 1, "release");
    assert_eq!(noticed(|| std::mem::forget(black_box(Box::new(1)))), 1, "allocation");
    assert_eq!(noticed(|| std::mem::forget(black_box(vec![0u8; 100]))), 1, "zeroed allocation");
    assert_eq!(noticed(|| text.reserve_exact(black_box(1000))), 1, "growth");
    assert!(guard::violations() >= before + 4);
}

#[test]
fn a_pause_and_other_threads_do_not_count() {
    assert_eq!(
        noticed(|| {
            let _outer = guard::pause();
            drop(black_box(Box::new(1)));
            drop(guard::pause());
            drop(black_box(Box::new(1)));
            assert!(!guard::is_sealed());
        }),
        0
    );
    guard::seal_thread();
    drop(guard::pause());
    assert!(guard::is_sealed(), "sealed again");
    guard::unseal_thread();
    std::thread::spawn(|| assert!(!guard::is_sealed())).join().unwrap();
}

#[test]
fn a_violation_aborts_where_that_is_asked_for() {
    const CHILD: &str = "INSANE_GUARD_CHILD";
    if std::env::var_os(CHILD).is_some() {
        guard::set_abort(true);
        guard::seal_thread();
        drop(black_box(Box::new(1)));
        std::process::exit(0);
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_violation_aborts_where_that_is_asked_for", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(6));
    assert!(String::from_utf8_lossy(&output.stderr).contains("sealed thread"));
}
