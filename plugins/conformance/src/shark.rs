//! What is on a wire, as tshark tells it: a program that shares no code with what it watches.

use crate::wire::PATIENCE;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// How long tshark may say nothing before it is taken to have said all.
const QUIET: Duration = Duration::from_millis(50);

/// The fields of one packet, in the order in which they were asked for.
pub type Row = Vec<String>;

/// tshark that watches interfaces, until it is dropped.
#[derive(Debug)]
pub struct Shark {
    program: Child,
    lines: Receiver<String>,
}

impl Drop for Shark {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl Shark {
    /// Watches these interfaces, and tells these fields of each packet that passes `filter`. What
    /// is in a packet more than once stands in one field, with `;` between. `start` runs the
    /// command where the interfaces are, and may add options. `None` without tshark, with a word
    /// on standard error.
    pub fn watch(
        interfaces: &[&str],
        filter: &str,
        fields: &[&str],
        start: impl FnOnce(&mut Command) -> std::io::Result<Child>,
    ) -> Option<Self> {
        let mut command = Command::new("tshark");
        // It ends by itself, whatever becomes of this process.
        command.args(["-l", "-a", "duration:120", "-Y", filter, "-T", "fields", "-E", "aggregator=;"]);
        command.args(interfaces.iter().flat_map(|interface| ["-i", interface]));
        command.args(fields.iter().flat_map(|field| ["-e", field]));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let is_there = Command::new("tshark").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if is_there.is_err() {
            eprintln!("passed over: tshark is not installed");
            return None;
        }
        let mut program = start(&mut command).unwrap();
        let (give, lines) = channel();
        let printed = BufReader::new(program.stdout.take().unwrap()).lines().map_while(Result::ok);
        std::thread::spawn(move || printed.map(|line| give.send(line)).take_while(Result::is_ok).count());
        Some(Shark { program, lines })
    }

    /// The rows up to the one that is the last, which is sent by `again` until it is seen.
    ///
    /// # Panics
    /// It is never seen.
    pub fn rows_until(&self, mut is_last: impl FnMut(&Row) -> bool, mut again: impl FnMut()) -> Vec<Row> {
        let mut rows: Vec<Row> = Vec::new();
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "tshark does not show what was sent last: {rows:?}");
            again();
            // All that it has printed.
            while let Ok(line) = self.lines.recv_timeout(QUIET) {
                let row: Row = line.split('\t').map(str::to_owned).collect();
                if is_last(&row) {
                    return rows;
                }
                rows.push(row);
            }
        }
    }
}
