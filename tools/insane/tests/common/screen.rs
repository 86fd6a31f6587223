//! `insane top` in a terminal of its own, and what stands on its screen.

use super::Daemon;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Milliseconds between two reports.
pub const INTERVAL_MS: u64 = 250;

/// The screen: what stands in each place, as far as the sequences that `top` sends go.
struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// A sequence under way, or bytes of a character.
    pending: Vec<u8>,
}

impl Screen {
    fn new((rows, columns): (usize, usize)) -> Screen {
        Screen { cells: vec![vec![' '; columns]; rows], row: 0, column: 0, pending: Vec::new() }
    }

    fn take(&mut self, byte: u8) {
        self.pending.push(byte);
        match self.pending[..] {
            [0x1b] | [0x1b, b'['] => {}
            [0x1b, b'[', ref parameters @ .., last] => {
                if last.is_ascii_alphabetic() {
                    let parameters = String::from_utf8_lossy(parameters).into_owned();
                    self.obey(last, &parameters);
                    self.pending.clear();
                }
            }
            [0x1b, _] => self.pending.clear(),
            [b'\r' | b'\n' | 0x07 | 0x08] => self.pending.clear(),
            _ => {
                if let Ok(text) = std::str::from_utf8(&self.pending)
                    && let Some(shown) = text.chars().next()
                {
                    if let Some(cell) = self.cells.get_mut(self.row).and_then(|row| row.get_mut(self.column)) {
                        *cell = shown;
                    }
                    self.column += 1;
                    self.pending.clear();
                } else if self.pending.len() >= 4 {
                    self.pending.clear();
                }
            }
        }
    }

    fn obey(&mut self, order: u8, parameters: &str) {
        let mut numbers = parameters.split(';').map(|number| number.parse::<usize>().unwrap_or(1).max(1));
        match order {
            b'H' => {
                self.row = numbers.next().unwrap_or(1) - 1;
                self.column = numbers.next().unwrap_or(1) - 1;
            }
            b'J' => self.cells.iter_mut().flatten().for_each(|cell| *cell = ' '),
            _ => {}
        }
    }

    fn lines(&self) -> Vec<String> {
        self.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }
}

/// A running `insane top`.
pub struct Top {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<Screen>>,
}

/// `insane top` of a daemon in a terminal of so many rows and columns, its keys and what it shows in
/// pipes. `None`: there is no program that lends it a terminal.
pub fn top_in_terminal(daemon: &Daemon, (rows, columns): (usize, usize), interval_ms: u64) -> Option<Command> {
    if !Command::new("script").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("passed over: `script` is not installed");
        return None;
    }
    let top = format!(
        "stty rows {rows} cols {columns}; exec {} top --socket {} --interval {interval_ms}",
        env!("CARGO_BIN_EXE_insane"),
        daemon.socket().display()
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--flush", "--command", &top, "/dev/null"]).env("TERM", "xterm");
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    Some(script)
}

impl Top {
    /// `None`: there is no program that lends it a terminal.
    pub fn start(daemon: &Daemon, size: (usize, usize)) -> Option<Top> {
        let mut script = top_in_terminal(daemon, size, INTERVAL_MS)?;
        let mut child = script.spawn().unwrap();
        let (keys, mut shown) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let screen = Arc::new(Mutex::new(Screen::new(size)));
        let drawn = Arc::clone(&screen);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = shown.read(&mut bytes) {
                let mut screen = drawn.lock().unwrap();
                bytes[..len].iter().for_each(|byte| screen.take(*byte));
            }
        });
        Some(Top { child, keys, screen })
    }

    pub fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
    }

    pub fn lines(&self) -> Vec<String> {
        self.screen.lock().unwrap().lines()
    }

    /// What stands in the row of that name below a column's head. Cells hold no space, but
    /// for the unit of an amount of bytes.
    pub fn cell(&self, name: &str, column: &str) -> Option<String> {
        let lines = self.lines();
        let heads: Vec<String> = lines[4].split("  ").map(|head| head.trim().replace(['▼', '▲'], "")).collect();
        let at = heads.iter().filter(|head| !head.is_empty()).position(|head| head == column)?;
        let row = lines[5..].iter().find(|line| line.split_whitespace().next() == Some(name))?;
        row.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).nth(at).map(str::to_owned)
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        // It ends by the key; whoever does not, ends with its terminal.
        let _ = self.keys.write_all(b"q");
        let start = std::time::Instant::now();
        while !matches!(self.child.try_wait(), Ok(Some(_))) {
            if start.elapsed() > super::PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
