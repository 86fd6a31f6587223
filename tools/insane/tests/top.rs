//! `insane top` in a terminal of its own, against a real daemon.

mod common;

use common::screen::top_in_terminal;
use common::{Daemon, Process, text};
use insane_rt::{ChannelId, Qos, Session, SourceOptions};
use std::io::Write;
use std::process::Stdio;

#[test]
fn without_a_terminal_it_names_the_command_that_needs_none() {
    let output = common::insane().arg("top").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr), "error: top needs a terminal; `insane status` prints the same to anything\n");
}

#[test]
fn it_shows_the_daemon_and_q_ends_it_with_the_terminal_restored() {
    let daemon = Daemon::start("top", "domains: [(name: \"line\", members: [any])]");
    let session = Session::attach(daemon.socket(), "controller").unwrap();
    let stream = session.stream("axis", Qos::default()).unwrap();
    let _source = stream.source(ChannelId(1), SourceOptions::default()).unwrap();
    let Some(mut script) = top_in_terminal(&daemon, (24, 80), 50) else { return };
    let mut child = Process::spawn(&mut script);
    let mut keys = child.0.as_mut().unwrap().stdin.take().unwrap();
    // The keys are read whenever it is ready for them; it ends by the last.
    for key in ["2", "1", "q"] {
        std::thread::sleep(std::time::Duration::from_millis(700));
        keys.write_all(key.as_bytes()).unwrap();
    }
    let output = child.wait();
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");
    for part in ["on top, process", "controller", "axis", "Datapaths"] {
        assert!(shown.contains(part), "{part} in {shown:?}");
    }
    let (taken, left) = ("\u{1b}[?1049h", "\u{1b}[?1049l");
    assert!(shown.contains(taken) && shown.trim_end().rfind(left) > shown.rfind(taken), "{shown:?}");
}
