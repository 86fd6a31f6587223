//! The demonstration: a controller and a remote I/O device, on two hosts in one
//! machine, keep a carriage hovering under a magnet by process data every millisecond
//! through insane-rt, beside a video stream and telemetry.
//!
//! `plant`, `law`, `controller`, `device`, `cause`, `ledger` and `percentiles` are pure;
//! `roles` are the parts as they run; `stage` starts them in one of two forms; `show`
//! is what a person sees.
#![forbid(unsafe_code)]

mod cause;
mod controller;
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

use insane_core::Nanos;
use options::Options;
use report::Report;
use serde::Serialize;
use show::picture::Picture;
use show::terminal::{Asked, Screen, Signals};
use show::verdict::{Demand, Judgement, judge};
use show::view::Title;
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
    let form = Form::choose(&options);
    say(&format!("{}\n", form.describe()));
    let stage = match Stage::start(&form, &options) {
        Ok(stage) => stage,
        Err(error) => return broken(&error.to_string()),
    };
    let (picture, interrupted) = watch(stage, signals, &options, &form);
    conclude(&picture, interrupted, &options, &form)
}

fn broken(reason: &str) -> ExitCode {
    say(&format!("broken: {reason}\n"));
    ExitCode::from(Judgement::Broken.exit())
}

/// Prints; nobody reading is no reason to panic.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Shows the run until it ends. Returns what is known, and whether it was interrupted.
fn watch(mut stage: Stage, mut signals: Signals, options: &Options, form: &Form) -> (Picture, bool) {
    let title = Title { form: form.describe(), seconds: options.seconds };
    let screen = if options.no_tui { None } else { Screen::enter() };
    let mut size = screen.as_ref().map(|_| show::terminal::size());
    let mut picture = Picture::default();
    let mut interrupted = false;
    let give_up = Instant::now() + Duration::from_secs(options.seconds.into()) + GRACE;
    let mut line_due = Instant::now() + Duration::from_secs(1);
    while !picture.finished && picture.failure.is_none() && !interrupted {
        match signals.wait(LOOK_MS) {
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
    stage.end();
    stage.reports().try_iter().for_each(|report| picture.take(report));
    drop(screen);
    (picture, interrupted)
}

/// What `--json` writes.
#[derive(Serialize)]
struct Outcome<'a> {
    form: String,
    seconds: u32,
    judgement: Judgement,
    summary: &'a str,
    #[serde(flatten)]
    picture: &'a Picture,
}

fn conclude(picture: &Picture, interrupted: bool, options: &Options, form: &Form) -> ExitCode {
    let demand = Demand { smoke: options.smoke, best_effort: !options.no_best_effort, interrupted };
    let (judgement, summary) = judge(picture, demand);
    say(&format!("\n{}\n", show::table::render(picture, Nanos::from_micros(options.offset_us))));
    let mut exit = judgement.exit();
    if let Some(file) = &options.json {
        let seconds = options.seconds;
        let outcome = Outcome { form: form.describe(), seconds, judgement, summary: &summary, picture };
        let text = serde_json::to_string_pretty(&outcome).map_err(std::io::Error::from);
        if let Err(error) = text.and_then(|text| std::fs::write(file, text + "\n")) {
            say(&format!("the result could not be written to {}: {error}\n", file.display()));
            exit = exit.max(Judgement::Broken.exit());
        }
    }
    say(&format!("{summary}\n"));
    ExitCode::from(exit)
}
