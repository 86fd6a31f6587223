//! The end of the daemon, foreseen or not, and a start without any right.

use crate::world::{Daemon, OPEN, Pair, Place, closing, open_to_all, until};
use insane_rt::{Attachment, ChannelId, Code, Qos, RequestError, SinkOptions, SourceOptions, StreamOptions};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

const QUIET: &str = "log: (level: error)";
/// What the runtime's users are promised. It takes some milliseconds.
const PROMISED: Duration = Duration::from_secs(1);

#[test]
fn a_killed_daemon_is_an_error_within_a_second_and_direct_rings_go_on() {
    let place = Place::new("killed");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let session = daemon.attach("watcher");
    let stream = session.stream("s", Qos::default()).unwrap();
    let isolated = session.stream_with("i", Qos::default(), StreamOptions::default().isolated(true)).unwrap();
    let lonely = isolated.sink(ChannelId(1), SinkOptions::default()).unwrap();
    let mut pair = Pair::start(&daemon, "direct");

    daemon.kill();
    let killed = Instant::now();
    while session.attachment() != Attachment::Detached {
        assert!(killed.elapsed() < PROMISED, "{:?}", session.attachment());
        std::thread::sleep(Duration::from_millis(1));
    }
    let asked = Instant::now();
    assert_eq!(session.stream("new", Qos::default()).unwrap_err(), RequestError::Detached);
    assert_eq!(stream.source(ChannelId(1), SourceOptions::default()).unwrap_err(), RequestError::Detached);
    assert_eq!(stream.sink(ChannelId(1), SinkOptions::default()).unwrap_err(), RequestError::Detached);
    assert!(lonely.consume_timeout(Duration::from_secs(20)).is_err(), "no message can come any more");
    assert!(asked.elapsed() < PROMISED, "errors, not timeouts");

    // For a while nobody is there but the two.
    std::thread::sleep(Duration::from_millis(300));
    assert!(pair.is_alive());
    let carried = pair.finish();
    assert!(carried[0] > 500, "{carried:?}");
}

#[test]
fn a_daemon_starts_again_where_a_killed_one_left_its_socket() {
    let place = Place::new("again");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    daemon.kill();
    assert!(place.socket().exists(), "left behind");
    let mut next = Daemon::start(&place, OPEN, QUIET);
    drop(next.attach("new"));
    next.terminate();
    assert_eq!(next.exit_code(), Some(0));
    assert!(!place.socket().exists());
}

#[test]
fn a_daemon_that_is_told_to_stop_says_so_and_direct_rings_go_on() {
    let place = Place::new("term");
    let mut daemon = Daemon::start(&place, OPEN, QUIET);
    let session = daemon.attach("watcher");
    let stream = session.stream("s", Qos::default()).unwrap();
    let mut peer = daemon.peer();
    let mut pair = Pair::start(&daemon, "direct");
    daemon.terminate();
    let told = Instant::now();
    assert_eq!(daemon.exit_code(), Some(0), "{}", daemon.log());
    assert!(told.elapsed() < PROMISED, "{:?}", told.elapsed());
    assert!(!place.socket().exists(), "the socket is removed");
    let (code, reason) = closing(&mut peer).expect("a reason");
    assert!(code == Code::Shutdown && reason.contains("shutting down"), "{code:?} {reason}");
    // A session of the library waits for the next daemon.
    until("the session is detached", || session.attachment() == Attachment::Detached);
    assert_eq!(stream.sink(ChannelId(1), SinkOptions::default()).unwrap_err(), RequestError::Detached);
    std::thread::sleep(Duration::from_millis(300));
    assert!(pair.finish()[0] > 500);
}

#[test]
fn without_any_right_it_starts_and_says_what_is_missing() {
    let place = Place::new("rights");
    let rest = "datapaths: [(name: \"rt\", core: Some(0), policy: fifo(50))], memory: (lock: true, huge_pages: try), \
                log: (level: warn)";
    let config = place.config(OPEN, rest);
    let program = place.path().join("insaned");
    std::fs::copy(env!("CARGO_BIN_EXE_insaned"), &program).unwrap();
    open_to_all(&program);
    // No right comes from a limit, either.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -l 64; ulimit -r 0; exec \"$0\" --config \"$1\""]).arg(&program).arg(&config);
    command.current_dir(place.path());
    if nix::unistd::getuid().is_root() {
        let nobody = nix::unistd::Uid::from_raw(65_534);
        nix::unistd::chown(place.path(), Some(nobody), None).unwrap();
        command.uid(65_534).gid(65_534);
    }
    let mut daemon = Daemon::spawn(&place, &mut command);
    let report = daemon.status();
    let says = |words: [&str; 2]| report.degraded.iter().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(says(["Fifo(50)", "CAP_SYS_NICE"]), "{:#?}", report.degraded);
    assert!(says(["memory is not locked", "CAP_IPC_LOCK"]), "{:#?}", report.degraded);
    assert!(!report.memory.locked);
    assert!(daemon.log().contains("CAP_IPC_LOCK"), "the log says it, too: {}", daemon.log());
    // It serves all the same.
    let mut pair = Pair::start(&daemon, "direct,isolated");
    std::thread::sleep(Duration::from_millis(100));
    assert!(pair.finish().iter().all(|count| *count > 0));
    daemon.terminate();
    assert_eq!(daemon.exit_code(), Some(0));
}

/// A daemon in this place that gets no huge pages.
fn without_huge_pages(place: &Place, wish: &str) -> Command {
    let domain = "(name: \"d\", members: [any], receive: Some([(size: 1_000_000, count: 4)]))";
    let rest = format!("datapaths: [(name: \"net\")], memory: (huge_pages: {wish}), log: (level: warn)");
    let config = place.config(domain, &rest);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "roles::role", "--ignored", "--nocapture"]);
    command.env("INSANED_ROLE", "no_huge_pages").env("INSANED_SOCKET", place.socket()).env("INSANED_CONFIG", config);
    // Its input stays open: at its end a part ends, too.
    command.stdin(std::process::Stdio::piped());
    command
}

#[test]
fn huge_pages_that_are_not_there_are_told_or_end_the_start_as_it_was_asked() {
    let place = Place::new("huge");
    let mut daemon = Daemon::spawn(&place, &mut without_huge_pages(&place, "try"));
    let report = daemon.status();
    let says = |line: &String| line.contains("0 of 1 heaps are of huge pages");
    assert!(report.degraded.iter().any(says), "{:#?}", report.degraded);
    assert!(daemon.log().contains("0 of 1 heaps are of huge pages"), "the log says it, too: {}", daemon.log());
    daemon.terminate();
    assert_eq!(daemon.exit_code(), Some(0));
    let output = without_huge_pages(&place, "require").output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && words.contains("`require`, and the kernel gives none"), "{words}");
}

#[test]
fn a_datapath_that_may_have_its_priority_and_core_has_them() {
    if insane_sys::privileges::can_use_fifo().is_err() {
        eprintln!("passed over: this process may not use SCHED_FIFO");
        return;
    }
    let place = Place::new("fifo");
    let rest = "datapaths: [(name: \"rt\", core: Some(0), policy: fifo(7), idle: block)], log: (level: warn)";
    let daemon = Daemon::start(&place, OPEN, rest);
    let report = daemon.status();
    let row = report.threads.iter().find(|row| row.name == "datapath rt").expect("its row");
    assert_eq!((row.core, row.policy.as_str(), row.priority), (Some(0), "fifo", 7), "as the report says");
    let of_kernel = insane_sys::thread::policy(row.tid as i32).unwrap();
    assert_eq!(of_kernel, Some(insane_sys::thread::SchedPolicy::Fifo(7)), "and the kernel");
    let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(row.tid as i32)).unwrap();
    let cores: Vec<usize> = (0..nix::sched::CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap()).collect();
    assert_eq!(cores, [0]);
    assert!(!report.degraded.iter().any(|line| line.contains("rt:")), "{:#?}", report.degraded);
}
