//! `insane status`: what a runtime is doing, once or again and again.

pub mod table;

use crate::observer::{Observer, StatusError};
use insane_core::Nanos;
use insane_wire::status::StatusReport;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What the session calls itself.
const NAME: &str = "insane status";

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// Print one report and end.
    #[arg(long)]
    once: bool,
    /// Print JSON: one report, or one line a report.
    #[arg(long)]
    json: bool,
    /// Milliseconds between two reports.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=3_600_000))]
    interval: u64,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
}

/// One report, and when it came.
struct Sample {
    report: StatusReport,
    at: Instant,
}

/// Shows one report, or reports until the user ends it.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let timeout = Nanos::from_millis(arguments.timeout);
    let mut observer = match Observer::attach(&arguments.socket, timeout, NAME, None) {
        Ok(observer) => observer,
        Err(error) => return fail(&error),
    };
    if arguments.once {
        return match observer.status() {
            Ok(report) => print_once(&report, arguments.json),
            Err(error) => fail(&error),
        };
    }
    let mut screen = Screen { json: arguments.json, terminal: std::io::stdout().is_terminal() };
    let interval = Duration::from_millis(arguments.interval);
    let mut previous: Option<Sample> = None;
    loop {
        let started = Instant::now();
        match observer.status() {
            Ok(report) => {
                let sample = Sample { report, at: started };
                screen.show(&sample, previous.as_ref())?;
                previous = Some(sample);
            }
            Err(error) => {
                screen.note(&format!("{error}\nwaiting for it to come back; Ctrl-C ends"))?;
                previous = None;
                observer = attach_again(&arguments.socket, timeout, interval);
                continue;
            }
        }
        std::thread::sleep(interval.saturating_sub(started.elapsed()));
    }
}

/// Tries until somebody answers; the user ends it otherwise.
fn attach_again(socket: &std::path::Path, timeout: Nanos, interval: Duration) -> Observer {
    loop {
        std::thread::sleep(interval);
        if let Ok(observer) = Observer::attach(socket, timeout, NAME, None) {
            return observer;
        }
    }
}

fn print_once(report: &StatusReport, json: bool) -> std::io::Result<ExitCode> {
    let text = if json {
        serde_json::to_string_pretty(report).map_err(std::io::Error::other)? + "\n"
    } else {
        table::render(report, None)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &StatusError) -> std::io::Result<ExitCode> {
    writeln!(std::io::stderr(), "error: {error}")?;
    Ok(ExitCode::FAILURE)
}

/// Where reports appear: each in the place of the last on a terminal, else below it.
struct Screen {
    json: bool,
    terminal: bool,
}

impl Screen {
    fn show(&mut self, sample: &Sample, previous: Option<&Sample>) -> std::io::Result<()> {
        if self.json {
            let line = serde_json::to_string(&sample.report).map_err(std::io::Error::other)?;
            return writeln!(std::io::stdout(), "{line}");
        }
        let before = previous.map(|before| (&before.report, sample.at.duration_since(before.at).as_secs_f64()));
        self.draw(&table::render(&sample.report, before))
    }

    fn note(&mut self, text: &str) -> std::io::Result<()> {
        if self.json || !self.terminal {
            return writeln!(std::io::stderr(), "{text}");
        }
        self.draw(&format!("{text}\n"))
    }

    /// Home, every line with its rest cleared, then everything below cleared: no flicker.
    fn draw(&mut self, text: &str) -> std::io::Result<()> {
        let mut output = std::io::stdout().lock();
        if self.terminal {
            let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
            write!(output, "\x1b[H{lines}\x1b[J")?;
        } else {
            writeln!(output, "{text}")?;
        }
        output.flush()
    }
}
