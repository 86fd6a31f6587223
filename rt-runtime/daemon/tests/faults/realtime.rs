//! Threads that clients hand over: what the rule gives, and what attackers try.

use crate::peer::Peer;
use crate::world::{Daemon, Helper, Place, open_to_all, until};
use insane_rt::Code;
use insane_sys::privileges::{Capability, can_use_fifo, has_capability};
use insane_sys::thread::{SchedPolicy, current_tid, policy};
use insane_wire::control::{Event, Request};
use insane_wire::status::ThreadStatus;
use std::path::{Path, PathBuf};
use std::process::Command;

const QUIET: &str = "log: (level: warn)";
/// A rule that gives something, on the machine's first core.
const RULE: &str = "(priority_max: 40, cores: [0], threads_max: 2, locked_bytes_max: 268_435_456)";

fn domain(rule: &str) -> String {
    format!("(name: \"d\", members: [any], isolation: shared, realtime: {rule})")
}

/// Whether this test can have a daemon that may place threads, and clients that may not.
fn can_place() -> bool {
    let can = nix::unistd::geteuid().is_root()
        && can_use_fifo().is_ok()
        && ["setpriv", "unshare"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok());
    if !can {
        eprintln!("passed over: needs root, SCHED_FIFO, and setpriv and unshare of util-linux");
    }
    can
}

/// A copy of this program that everybody may run.
fn program(place: &Place) -> PathBuf {
    let program = place.path().join("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    open_to_all(&program);
    program
}

/// A command that runs a program as a user without rights, in a pid namespace of its own.
fn contained(program: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--", "setpriv", "--reuid=65534", "--regid=65534"]);
    command.args(["--clear-groups", "--inh-caps=-all", "--no-new-privs"]).arg(program).current_dir("/");
    command
}

/// What the daemon says of the placed threads of its only domain.
fn placed(daemon: &Daemon) -> Vec<ThreadStatus> {
    daemon.status().domains[0].sessions.iter().flat_map(|session| session.threads.clone()).collect()
}

fn fifo(priority: u8, then: &str) -> Vec<(&'static str, String)> {
    vec![("INSANED_FIFO", priority.to_string()), ("INSANED_THEN", then.to_owned())]
}

fn start(daemon: &Daemon, command: &mut Command, variables: &[(&'static str, String)]) -> Helper {
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Helper::spawn("cyclic", daemon.socket(), &variables, command)
}

#[test]
fn a_process_without_rights_in_a_namespace_of_its_own_gets_priority_and_core() {
    if !can_place() {
        return;
    }
    let place = Place::new("realtime");
    let daemon = Daemon::start(&place, &domain(RULE), QUIET);
    let mut helper = start(&daemon, &mut contained(&program(&place)), &fifo(40, "stay"));
    let said = helper.hear("placed");
    assert!(said.starts_with("by runtime: Some(Fifo(40)) cores 1 child Some(Other)"), "{said}");
    let threads = placed(&daemon);
    let [thread] = threads.as_slice() else { panic!("{threads:?}") };
    assert_eq!((thread.core, thread.policy.as_str(), thread.priority), (Some(0), "fifo", 40));
    let tid = i32::try_from(thread.tid).unwrap();
    assert_eq!(policy(tid).unwrap(), Some(SchedPolicy::Fifo(40)), "as this namespace counts");
    helper.finish();
    until("it is forgotten", || placed(&daemon).is_empty());
}

#[test]
fn what_the_rule_does_not_give_is_refused_in_words_and_the_task_runs_on() {
    if !can_place() {
        return;
    }
    for (rule, priority, reason) in [
        ("()", 1, "gives none"),
        (RULE, 41, "gives at most 40"),
        ("(priority_max: 40, cores: [1])", 40, "core 0 is asked for, and the domain's rule gives [1]"),
    ] {
        let place = Place::new("rules");
        let daemon = Daemon::start(&place, &domain(rule), QUIET);
        let mut helper = start(&daemon, &mut contained(&program(&place)), &fifo(priority, "stay"));
        let said = helper.hear("placed");
        assert!(said.starts_with("itself: Some(Other)") && said.contains(reason), "{said}");
        assert!(said.contains("`realtime` of the domain"), "{said}");
        assert_eq!(placed(&daemon), []);
        helper.finish();
    }
}

/// The daemon has the rights, and gives no place in which its own datapath would not run.
#[test]
fn no_thread_is_placed_before_the_datapath_of_its_core() {
    if !can_place() || insane_sys::thread::cores().len() < 2 {
        return;
    }
    let place = Place::new("before");
    let rest = format!("{QUIET}, datapaths: [(name: \"main\", core: 0, policy: fifo(30), idle: block)]");
    let rule = "(priority_max: 40, cores: [0, 1])";
    let daemon = Daemon::start(&place, &domain(rule), &rest);
    let mut peer = daemon.peer();
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(current_tid()).unwrap();
        let _ = ended.recv();
    });
    let tid = told.recv().unwrap().unsigned_abs();
    let asked = |priority, core| move |req| Request::PlaceThread { req, tid, priority: Some(priority), core };
    let (code, reason) = ask(&mut peer, asked(30, Some(0))).unwrap_err();
    assert!(code == Code::Access && reason.contains("less than 30") && reason.contains("\"main\""), "{reason}");
    assert_eq!(ask(&mut peer, asked(29, Some(0))), Ok(()));
    // Any core that the rule gives: those where it disturbs nobody.
    assert_eq!(ask(&mut peer, asked(40, None)), Ok(()));
    assert_eq!(placed(&daemon)[0].core, Some(1));
    drop(end);
    thread.join().unwrap();
}

#[test]
fn what_was_given_is_taken_back_when_the_session_ends_or_the_thread_goes_elsewhere() {
    if !can_place() || insane_sys::thread::cores().len() < 2 {
        return;
    }
    let place = Place::new("revoked");
    let daemon = Daemon::start(&place, &domain(RULE), QUIET);
    let program = program(&place);
    let mut leaves = start(&daemon, &mut contained(&program), &fifo(30, "leave"));
    assert!(leaves.hear("placed").starts_with("by runtime"));
    assert_eq!(leaves.finish(), "back to Some(Other)");
    let mut moves = start(&daemon, &mut contained(&program), &fifo(30, "move"));
    assert!(moves.hear("placed").starts_with("by runtime"));
    assert_eq!(moves.finish(), "back to Some(Other)");
    assert!(daemon.log().contains("taken back"), "{}", daemon.log());
}

#[test]
fn a_restart_of_the_daemon_costs_no_priority_and_the_next_one_knows_the_thread() {
    if !can_place() {
        return;
    }
    let place = Place::new("kept");
    for ends in ["terminated", "killed"] {
        let mut daemon = Daemon::start(&place, &domain(RULE), QUIET);
        let mut helper = start(&daemon, &mut contained(&program(&place)), &fifo(40, "stay"));
        helper.hear("placed");
        let tid = placed(&daemon)[0].tid;
        if ends == "killed" {
            daemon.kill();
        } else {
            daemon.terminate();
            daemon.exit_code();
        }
        assert_eq!(policy(i32::try_from(tid).unwrap()).unwrap(), Some(SchedPolicy::Fifo(40)), "{ends}");
        drop(daemon);
        let daemon = Daemon::start(&place, &domain(RULE), QUIET);
        until("the next daemon is told of it", || placed(&daemon).iter().any(|thread| thread.tid == tid));
        helper.finish();
    }
}

/// The answer to one request.
fn ask(peer: &mut Peer, request: impl FnOnce(u32) -> Request) -> Result<(), (Code, String)> {
    peer.send(&request(7));
    let answer = peer.until(|_, event| matches!(event, Event::Done { req: 7 } | Event::Failed { req: 7, .. }));
    match answer {
        Event::Failed { code, reason, .. } => Err((code, reason)),
        _ => Ok(()),
    }
}

fn place_thread(tid: i32) -> impl FnOnce(u32) -> Request {
    move |req| Request::PlaceThread { req, tid: tid.unsigned_abs(), priority: Some(1), core: Some(0) }
}

#[test]
fn threads_of_others_and_threads_that_ended_are_no_threads_to_hand_over() {
    let place = Place::new("others");
    let daemon = Daemon::start(&place, &domain(RULE), QUIET);
    let mut peer = daemon.peer();
    let dead = std::thread::spawn(current_tid).join().unwrap();
    let others = [daemon.pid().as_raw(), 1, nix::unistd::getppid().as_raw(), i32::MAX, 0];
    for tid in others {
        let before = policy(tid.max(0)).ok();
        let (code, reason) = ask(&mut peer, place_thread(tid)).unwrap_err();
        assert_eq!(code, Code::Access, "{reason}");
        assert!(reason.contains("has no thread"), "{reason}");
        assert_eq!(policy(tid.max(0)).ok(), before);
    }
    until("the kernel has forgotten the thread", || {
        ask(&mut peer, place_thread(dead)).is_err_and(|(_, reason)| reason.contains("has no thread"))
    });
    assert_eq!(placed(&daemon), []);
}

#[test]
fn a_thousand_requests_are_bounded_and_harm_nobody() {
    let place = Place::new("thousand");
    let others = ", (name: \"e\", members: [any], isolation: shared, realtime: (priority_max: 40, cores: [0]))";
    let daemon = Daemon::start(&place, &(domain(RULE) + others), QUIET);
    let mut peer = daemon.peer();
    let mut too_many = 0;
    for _ in 0..1_000 {
        let (code, reason) = ask(&mut peer, place_thread(1)).unwrap_err();
        too_many += u32::from(code == Code::Quota && reason.contains("threads a second"));
    }
    // 32 at once and 32 a second: a thousand answers that took under 30 s were not all given.
    assert!(too_many > 0);
    let session = insane_rt::Session::attach_in(daemon.socket(), "other", "e").unwrap();
    session.stream("s", insane_rt::Qos::default()).unwrap();
    assert_eq!(placed(&daemon), []);
}

#[test]
fn the_number_of_threads_is_bounded_and_one_that_ended_makes_room() {
    if !can_place() {
        return;
    }
    let place = Place::new("threads");
    let daemon = Daemon::start(&place, &domain(RULE), QUIET);
    let mut peer = daemon.peer();
    let sleeper = || {
        let (tell, told) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            tell.send(current_tid()).unwrap();
            let _ = ended.recv();
        });
        (told.recv().unwrap(), end)
    };
    let (one, two, three) = (sleeper(), sleeper(), sleeper());
    assert_eq!(ask(&mut peer, place_thread(one.0)), Ok(()));
    assert_eq!(ask(&mut peer, place_thread(two.0)), Ok(()));
    assert_eq!(ask(&mut peer, place_thread(two.0)), Ok(()), "the same once more");
    let (code, reason) = ask(&mut peer, place_thread(three.0)).unwrap_err();
    assert!(code == Code::Quota && reason.contains("gives 2 threads"), "{reason}");
    drop(one.1);
    until("the first has ended", || ask(&mut peer, place_thread(three.0)).is_ok());
}

/// A thread must not keep what it was given because it was given twice.
#[test]
fn what_was_given_by_two_sessions_or_two_daemons_is_taken_back_all_the_same() {
    if !can_place() {
        return;
    }
    let place = Place::new("twice");
    let (tell, told) = std::sync::mpsc::channel();
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(current_tid()).unwrap();
        let _ = ended.recv();
    });
    let tid = told.recv().unwrap();
    let is_back = || policy(tid).unwrap() == Some(SchedPolicy::Other);

    let daemon = Daemon::start(&place, &domain(RULE), QUIET);
    let (mut one, mut two) = (daemon.peer(), daemon.peer());
    assert_eq!(ask(&mut one, place_thread(tid)), Ok(()));
    assert_eq!(ask(&mut two, place_thread(tid)), Ok(()));
    drop(one);
    until("the first session is gone", || daemon.used("sessions") == 1);
    assert_eq!(policy(tid).unwrap(), Some(SchedPolicy::Fifo(1)), "the second still has it");
    drop(two);
    until("the thread is an ordinary one", is_back);

    let mut first = daemon.peer();
    assert_eq!(ask(&mut first, place_thread(tid)), Ok(()));
    drop(daemon);
    assert!(!is_back(), "a daemon that is killed takes nothing back");
    let daemon = Daemon::start(&place, &domain(RULE), QUIET);
    let mut second = daemon.peer();
    assert_eq!(ask(&mut second, place_thread(tid)), Ok(()));
    drop(second);
    until("the thread is an ordinary one again", is_back);
    drop(end);
    thread.join().unwrap();
}

/// A group of the cpu controller without a share of real-time, removed at the end.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_group_without_a_share_of_time_is_named() {
    let group = Group(PathBuf::from(format!("/sys/fs/cgroup/cpu/insane-test-{}", std::process::id())));
    let is_divided = || std::fs::read_to_string(group.0.join("cpu.rt_runtime_us")).is_ok_and(|us| us.trim() == "0");
    if !can_place() || std::fs::create_dir(&group.0).is_err() || !is_divided() {
        eprintln!("passed over: the kernel does not divide real-time among groups (RT_GROUP_SCHED)");
        return;
    }
    let place = Place::new("group");
    let daemon = Daemon::start(&place, &domain(RULE), QUIET);
    let mut command = Command::new("sh");
    let script = format!("echo $$ > {}/cgroup.procs && exec setpriv --reuid=65534 --inh-caps=-all \"$0\" \"$@\"", {
        group.0.display()
    });
    command.args(["-c", &script]).arg(program(&place)).current_dir("/");
    let mut helper = start(&daemon, &mut command, &fifo(40, "stay"));
    let said = helper.hear("placed");
    assert!(said.starts_with("itself") && said.contains("cpu.rt_runtime_us is 0"), "{said}");
    helper.finish();
}

#[test]
fn what_may_be_locked_is_raised_within_the_rule_or_the_missing_right_is_named() {
    if !can_place() {
        return;
    }
    let place = Place::new("locked");
    let daemon = Daemon::start(&place, &domain(RULE), QUIET);
    let mut peer = daemon.peer();
    let (code, reason) = ask(&mut peer, |req| Request::LockMemory { req, bytes: 1 << 40 }).unwrap_err();
    assert!(code == Code::Access && reason.contains("gives 268435456"), "{reason}");
    let mut command = Command::new("prlimit");
    command.args(["--memlock=65536", "setpriv", "--reuid=65534", "--inh-caps=-all"]).arg(program(&place));
    let said = Helper::spawn("lock", daemon.socket(), &[], command.current_dir("/")).finish();
    if has_capability(Capability::SysResource) {
        assert_eq!(said, "locked");
    } else {
        assert!(said.contains("lacks CAP_SYS_RESOURCE") && said.contains("RLIMIT_MEMLOCK"), "{said}");
    }
}
