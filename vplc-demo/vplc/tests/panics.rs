//! What panics ends the process, and nobody goes on with what it left. Each case is a process.

use insane_rt::Session;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Where the part panics.
const WHERE: &str = "VPLC_TEST_PANICS";

fn panics_in(place: &str) -> bool {
    std::env::var(WHERE).is_ok_and(|told| told == place)
}

/// A task ran.
static RAN: AtomicBool = AtomicBool::new(false);

#[vplc::app]
mod app {
    use super::panics_in;

    #[shared]
    struct Shared {
        pair: (u32, u32),
    }
    #[local]
    struct Local {}

    #[init]
    fn init(_: init::Context) -> (Shared, Local, init::Monotonics) {
        assert!(!panics_in("init"));
        (Shared { pair: (0, 0) }, Local {}, init::Monotonics())
    }

    #[idle]
    fn idle(_: idle::Context) -> ! {
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(!panics_in("idle"));
        loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
    }

    /// A function, since tasks do not print.
    fn tell() {
        println!("\n@torn");
    }

    fn made() -> u32 {
        assert!(!panics_in("local"));
        0
    }

    #[task(priority = 1, cycle = 2ms, wcet = 200us, shared = [pair], local = [cycles: u32 = 0])]
    fn low(mut cx: low::Context) {
        super::RAN.store(true, super::Ordering::Relaxed);
        *cx.local.cycles += 1;
        if *cx.local.cycles == 10 {
            assert!(!panics_in("cycle"));
            let _ = more::spawn();
            // The more urgent task comes to wait for the lock where ceilings are not raised.
            cx.shared.pair.lock(|pair| {
                pair.0 += 1;
                let until = std::time::Instant::now() + std::time::Duration::from_millis(5);
                while panics_in("lock") && std::time::Instant::now() < until {}
                assert!(!panics_in("lock"));
                pair.1 += 1;
            });
        }
    }

    #[task(priority = 2, interval = 1ms, wcet = 100us)]
    fn more(_: more::Context) {
        assert!(!panics_in("spawned"));
    }

    #[task(priority = 3, cycle = 1ms, wcet = 100us, shared = [pair], local = [made: u32 = made()])]
    fn high(mut cx: high::Context) {
        cx.shared.pair.lock(|pair| {
            if pair.0 != pair.1 {
                tell();
            }
        });
    }
}

/// Runs the program as a process of its own; does nothing unless told where to panic.
#[test]
fn part_that_panics() {
    if std::env::var(WHERE).is_err() {
        return;
    }
    let session = Session::embedded("panics").unwrap();
    let start = || app::start(&session).map(|running| running.stop());
    if let Ok(Ok(stop)) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(start)) {
        // Nobody joins: what ends the process is not whoever waits for it.
        std::thread::sleep(Duration::from_secs(5));
        stop.ask();
        println!("\n@lives");
        return;
    }
    // The start panicked: tasks that had begun end.
    let mut standing = 0;
    for _ in 0..1_000 {
        standing = if RAN.swap(false, Ordering::Relaxed) { 0 } else { standing + 1 };
        if standing == 20 {
            println!("\n@stands");
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn part(place: &str) -> (Output, String) {
    let mut part = Command::new(std::env::current_exe().unwrap());
    part.args(["--exact", "part_that_panics", "--nocapture"]).env(WHERE, place);
    let output = part.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output, said)
}

#[test]
fn whatever_panics_ends_the_process_and_nobody_sees_what_it_left() {
    for (place, who) in [("cycle", "low"), ("spawned", "more"), ("lock", "a section of a lock"), ("idle", "idle")] {
        let (output, said) = part(place);
        assert_eq!(output.status.signal(), Some(6), "{place}: {said}");
        assert!(said.contains(&format!("vplc: {who} panicked: the program ends")), "{place}: {said}");
        assert!(said.contains("panicked at") && said.contains("tests/panics.rs"), "{place}: {said}");
        assert!(!said.contains("@torn") && !said.contains("@lives"), "{place}: {said}");
    }
}

#[test]
fn a_start_that_panics_leaves_no_task_running() {
    for place in ["init", "local"] {
        let (output, said) = part(place);
        assert!(output.status.success() && said.contains("@stands"), "{place}: {said}");
    }
}
