//! The demonstration: a controller and a remote I/O device, on two hosts in one
//! machine, keep a carriage hovering under a magnet by process data every millisecond
//! through insane-rt: three runs side by side, or a single one.
//!
//! `plant`, `law`, `controller`, `device`, `cause`, `ledger` and `percentiles` are pure;
//! `course` is what differs between runs; `roles` are the parts as they run; `stage`
//! starts them in one of two forms; `show` is what a person sees.
#![forbid(unsafe_code)]

mod cause;
mod controller;
mod course;
mod device;
mod law;
mod ledger;
mod options;
mod pattern;
mod percentiles;
mod plant;
mod process_data;
mod report;
mod roles;
mod show;
mod stage;

use course::{COMPARED, Course};
use insane_core::Nanos;
use options::Options;
use report::Report;
use serde::Serialize;
use show::compare::Comparison;
use show::picture::Picture;
use show::terminal::{Asked, Screen, Signals};
use show::verdict::{Demand, Judgement, judge};
use show::view::Title;
use stage::slots::Slots;
use stage::{Form, Stage};
use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// First argument of the processes that the demonstration starts from itself.
const PART_ARGUMENT: &str = "part-of-demo";
/// Between two looks at signals, reports and the view.
const LOOK_MS: u16 = 50;
/// How much longer than its seconds a run may take: to start and to settle.
const GRACE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(PART_ARGUMENT) {
        return roles::process::obey(&arguments.next().unwrap_or_default());
    }
    let options = Options::from_command_line();
    // Read before any thread is pinned: a pinned thread sees only its own core.
    let _ = insane_sys::thread::cores();
    let signals = match Signals::take() {
        Ok(signals) => signals,
        Err(error) => return broken(&format!("cannot take over signals: {error}")),
    };
    // Minutes of runs are not to end with a result that nobody can write down.
    for (what, file) in [("report", &options.report), ("result", &options.json)] {
        let Some(file) = file else { continue };
        if let Err(error) = probe(file) {
            return broken(&format!("the {what} could not be written to {}: {error}", file.display()));
        }
    }
    let form = Form::choose(&options);
    say(&format!("{}\n", form.describe(&options)));
    let mut show = Show { signals, options: &options, form: &form };
    if options.single { show.single() } else { show.three() }
}

fn broken(reason: &str) -> ExitCode {
    say(&format!("broken: {reason}\n"));
    ExitCode::from(Judgement::Broken.exit())
}

/// Prints; nobody reading is no reason to panic.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// What is known of a run when it has ended.
struct Ended {
    picture: Picture,
    slots: Vec<Slots>,
    interrupted: bool,
}

/// The demonstration, from here on in one of its forms.
struct Show<'a> {
    signals: Signals,
    options: &'a Options,
    form: &'a Form,
}

impl Show<'_> {
    fn single(&mut self) -> ExitCode {
        let course = Course::single(self.options);
        match self.run(&course, "insane-rt: a control loop of 1 ms between two hosts") {
            Ok(ended) => self.conclude(&course, &ended),
            Err(error) => broken(&error.to_string()),
        }
    }

    fn three(&mut self) -> ExitCode {
        let mut comparison = Comparison::new(self.options.smoke);
        for (number, course) in COMPARED.iter().enumerate() {
            let title = format!("insane-rt: run {} of {}, {}", number + 1, COMPARED.len(), course.name);
            if self.options.no_tui {
                say(&format!("run {} of {}: {}\n", number + 1, COMPARED.len(), course.name));
            }
            match self.run(course, &title) {
                Ok(ended) => comparison.add(course, ended.picture, ended.slots, ended.interrupted),
                Err(error) => return broken(&error.to_string()),
            }
            if comparison.is_over() {
                break;
            }
        }
        let (judgement, summary) = comparison.judge();
        let form = self.form.describe(self.options);
        say(&format!("\n{}\n", show::compare::render(&comparison)));
        // Who lacks the right has seen what the machine can do, and is told; nothing is broken.
        let lacks_right = judgement == Judgement::NotShown && insane_sys::privileges::can_use_fifo().is_err();
        let mut exit = if lacks_right { 0 } else { judgement.exit() };
        if let Some(file) = &self.options.report {
            let page = show::page::render(&comparison, &form, &summary);
            exit = exit.max(write("report", file, Ok(page)));
        }
        let outcome = Compared { form, seconds: self.options.seconds, judgement, summary: &summary, runs: &comparison };
        exit = exit.max(self.write_json(&outcome));
        if lacks_right {
            say("without real-time priority (root, or ulimit -r) this needs more than two idle cores\n");
        }
        say(&format!("{summary}\n"));
        ExitCode::from(exit)
    }

    /// Shows a run until it ends.
    fn run(&mut self, course: &Course, headline: &str) -> Result<Ended, stage::StageError> {
        let options = self.options;
        let mut stage = Stage::start(self.form, options, course)?;
        let title = Title { headline: headline.into(), form: self.form.describe(options), seconds: options.seconds };
        let screen = if options.no_tui { None } else { Screen::enter() };
        let mut size = screen.as_ref().map(|_| show::terminal::size());
        let mut picture = Picture::default();
        let mut interrupted = false;
        let give_up = Instant::now() + Duration::from_secs(options.seconds.into()) + GRACE;
        let mut line_due = Instant::now() + Duration::from_secs(1);
        while !picture.finished && picture.failure.is_none() && !interrupted {
            match self.signals.wait(LOOK_MS) {
                Some(Asked::End) => interrupted = true,
                Some(Asked::Resize) if size.is_some() => size = Some(show::terminal::size()),
                _ => {}
            }
            stage.reports().try_iter().for_each(|report| picture.take(report));
            if let Some(dead) = stage.look_for_dead() {
                stage.reports().try_iter().for_each(|report| picture.take(report));
                picture.take(dead);
            }
            if Instant::now() >= give_up {
                picture.take(Report::Failed { from: "demo".into(), text: "the run did not end in time".into() });
            }
            if let (Some(screen), Some(size)) = (&screen, size) {
                screen.show(&show::view::draw(&picture, &title, size).ansi());
                interrupted |= screen.quit_pressed();
            } else if Instant::now() >= line_due {
                line_due += Duration::from_secs(1);
                say(&format!("{}\n", show::lines::progress(&picture)));
            }
        }
        let slots = stage.slots();
        stage.end();
        stage.reports().try_iter().for_each(|report| picture.take(report));
        drop(screen);
        Ok(Ended { picture, slots, interrupted })
    }

    fn conclude(&self, course: &Course, ended: &Ended) -> ExitCode {
        let Ended { picture, interrupted, .. } = ended;
        let demand = Demand { smoke: self.options.smoke, flows: course.flows, interrupted: *interrupted };
        let (judgement, summary) = judge(picture, demand);
        say(&format!("\n{}\n", show::table::render(picture, Nanos::from_micros(self.options.offset_us))));
        let form = self.form.describe(self.options);
        let outcome = Outcome { form, seconds: self.options.seconds, judgement, summary: &summary, picture };
        let exit = judgement.exit().max(self.write_json(&outcome));
        say(&format!("{summary}\n"));
        ExitCode::from(exit)
    }

    /// Returns an exit status.
    fn write_json(&self, outcome: &impl Serialize) -> u8 {
        let Some(file) = &self.options.json else { return 0 };
        let text = serde_json::to_string_pretty(outcome).map(|text| text + "\n");
        write("result", file, text.map_err(std::io::Error::from))
    }
}

/// Whether a file can be written. One that is there keeps what it has, and none is left behind.
fn probe(file: &std::path::Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true);
    match options.clone().create_new(true).open(file) {
        Ok(_) => std::fs::remove_file(file),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => options.create(true).open(file).map(drop),
        Err(error) => Err(error),
    }
}

/// Writes a file; returns an exit status.
fn write(what: &str, file: &std::path::Path, text: std::io::Result<String>) -> u8 {
    match text.and_then(|text| std::fs::write(file, text)) {
        Ok(()) => 0,
        Err(error) => {
            say(&format!("the {what} could not be written to {}: {error}\n", file.display()));
            Judgement::Broken.exit()
        }
    }
}

/// What `--json` writes of a single run.
#[derive(Serialize)]
struct Outcome<'a> {
    form: String,
    seconds: u32,
    judgement: Judgement,
    summary: &'a str,
    #[serde(flatten)]
    picture: &'a Picture,
}

/// What `--json` writes of three.
#[derive(Serialize)]
struct Compared<'a> {
    form: String,
    seconds: u32,
    judgement: Judgement,
    summary: &'a str,
    #[serde(flatten)]
    runs: &'a Comparison,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_leaves_what_was_there() {
        let file = std::env::temp_dir().join(format!("insane-demo-probe-{}", std::process::id()));
        probe(&file).unwrap();
        assert!(!file.exists());
        std::fs::write(&file, "result").unwrap();
        probe(&file).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "result");
        std::fs::remove_file(&file).unwrap();
        assert!(probe(&file.join("below")).is_err());
    }
}
