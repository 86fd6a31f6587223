//! Children that end: each has a time limit, after which it and everything it
//! started is killed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a child that prints nothing is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the last lines may take after a child has ended. Whoever still holds the
/// pipe then is a process that left its parent, and is not waited for.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How a child ended.
#[derive(Debug)]
pub enum Ending {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed at its time limit.
    TimedOut,
    /// It did not start.
    NotStarted(std::io::Error),
}

/// cargo, in the workspace at `root`.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Tests that need what the step `fetch` fetches do not pass over themselves in a check.
    command.current_dir(root).env("INSANE_CHECK", "1");
    command
}

/// The folder that cargo builds into, of the workspace at `root`.
pub fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder))
}

/// Runs a command with a time limit. What it prints goes to our standard output as it
/// comes, and each line of its standard output to `line`.
pub fn run(command: &mut Command, limit: Duration, mut line: impl FnMut(&str)) -> Ending {
    watch(command, limit, |text| {
        println!("{text}");
        line(text);
    })
}

/// As [`run`], but what it prints goes to `line` alone.
pub fn watch(command: &mut Command, limit: Duration, mut line: impl FnMut(&str)) -> Ending {
    let deadline = Instant::now() + limit;
    let mut child = match command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) => return Ending::NotStarted(error),
    };
    let lines = read_lines(&mut child);
    let mut until = deadline;
    let mut ending = None;
    loop {
        match lines.recv_timeout(LOOK_EVERY) {
            Ok(text) => line(&text),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) if ending.is_some() => break,
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
        }
        if ending.is_none() {
            ending = look(&mut child, deadline);
            if ending.is_some() {
                until = Instant::now() + LAST_LINES;
            }
        } else if Instant::now() > until {
            break;
        }
    }
    ending.unwrap_or(Ending::TimedOut)
}

/// Whether the child has ended; past the deadline it has.
fn look(child: &mut Child, deadline: Instant) -> Option<Ending> {
    match child.try_wait() {
        Ok(Some(status)) => Some(Ending::Exited(status)),
        Ok(None) if Instant::now() < deadline => None,
        Ok(None) | Err(_) => {
            kill_tree(child.id());
            // A killed child is reaped; a failure here leaves a zombie until we end.
            let _ = child.wait();
            Some(Ending::TimedOut)
        }
    }
}

fn read_lines(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut bytes = Vec::new();
            while stdout.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
                bytes.clear();
                if sender.send(text).is_err() {
                    return;
                }
            }
        });
    }
    lines
}

/// Kills a process and its descendants, each by its number.
fn kill_tree(root: u32) {
    let parents = parents();
    let mut doomed = vec![root];
    let mut at = 0;
    while let Some(&parent) = doomed.get(at) {
        doomed.extend(parents.iter().filter(|pair| pair.1 == parent).map(|pair| pair.0));
        at += 1;
    }
    for pid in doomed {
        if let Ok(pid) = i32::try_from(pid) {
            // One that has just ended by itself is as good as killed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// All processes as (process, parent).
fn parents() -> Vec<(u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            Some((pid, parent_in(&stat)?))
        })
        .collect()
}

/// The parent in a line of `/proc/PID/stat`: the second word after the last `)`, for a
/// program's name may hold anything.
fn parent_in(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn lines_and_status_come_through() {
        let mut lines = Vec::new();
        let ending = run(&mut shell("echo one; printf two; exit 3"), Duration::from_secs(60), |line| {
            lines.push(line.to_owned());
        });
        assert!(matches!(ending, Ending::Exited(status) if status.code() == Some(3)), "{ending:?}");
        assert_eq!(lines, ["one", "two"]);
    }

    #[test]
    fn a_child_past_its_limit_is_killed_with_its_children() {
        let mut grandchild = None;
        let ending = run(&mut shell("sleep 600 & echo $!; wait"), Duration::from_secs(1), |line| {
            grandchild = line.parse::<u32>().ok();
        });
        assert!(matches!(ending, Ending::TimedOut), "{ending:?}");
        let grandchild = grandchild.expect("the shell names its child");
        // A killed process takes a moment to go; one that was missed sleeps on.
        let gone = (0..600).any(|_| {
            std::thread::sleep(LOOK_EVERY / 10);
            let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
            let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim().chars().next());
            matches!(state, None | Some('Z' | 'X'))
        });
        assert!(gone, "{grandchild} still runs");
    }

    #[test]
    fn what_is_not_there_does_not_start() {
        let ending = run(&mut Command::new("/nowhere/at-all"), Duration::from_secs(1), |_| {});
        assert!(matches!(ending, Ending::NotStarted(_)));
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("12 (a) b (c) S 7 12 12"), Some(7));
        assert_eq!(parent_in("garbage"), None);
    }
}
