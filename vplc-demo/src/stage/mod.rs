//! Where the demonstration plays: it starts the parts, hands on what they report, and
//! clears everything away at the end, however it ends.

mod daemon;
mod embedded;
mod host;
mod namespaces;
mod port;
pub mod slots;

use crate::course::{Cable, Course};
use crate::options::{Carrier, Options};
use crate::report::Report;
use crate::roles::{Grid, PERIOD, Place, Role, Setup};
use insane_core::{MonoTime, Nanos};
use slots::Slots;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use vplc_containers::engine::Engine;

/// Fresh cycles in a row before the clamp opens: half a second; a tenth in a smoke run and
/// where runs are compared.
const SETTLE: u32 = 500;
const SETTLE_SHORT: u32 = 100;
/// Where runs are compared: from the start until the clamp opens, and from there until best
/// effort begins and cycles count. The pushes then meet every run in the same cycles.
const UNTIL_RELEASE: Nanos = Nanos::from_millis(700);
const UNTIL_LOAD: Nanos = Nanos::from_millis(300);
/// Priority of device and controller; below that of the datapaths that they share a core with.
const FIFO: u8 = 50;
/// Priority of the datapaths of process data.
const FIFO_DATAPATH: u8 = 70;
/// Priority of the switch.
const FIFO_SWITCH: u8 = 90;

/// Why the demonstration cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The runtime or one of its sessions.
    #[error(transparent)]
    Session(#[from] insane_rt::SessionError),
    /// No free ports.
    #[error("no eight free UDP ports in a row were found on the loopback interface")]
    Ports,
    /// No engine for containers.
    #[error("no engine for containers is there: apt-get install runc")]
    NoEngine,
    /// The container's bundle.
    #[error("the container's bundle: {0}")]
    Bundle(#[from] vplc_containers::bundle::BundleError),
    /// The system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was attempted.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// Another program failed.
    #[error("{what}: {said}")]
    Program {
        /// What was attempted.
        what: String,
        /// What the program said.
        said: String,
    },
}

impl StageError {
    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> StageError {
        let what = what.into();
        |error| StageError::System { what, error }
    }
}

/// The two forms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Form {
    /// Two namespaces, two daemons, a process for every part.
    Namespaces {
        /// The daemon's file.
        insaned: PathBuf,
        /// What runs the controller in a container; `None`: it is a process like the others.
        engine: Option<Engine>,
    },
    /// Two runtimes in this process.
    Embedded {
        /// Why not namespaces.
        reason: String,
    },
}

impl Form {
    /// Chooses the form: namespaces where there are the rights and the tools for them.
    #[must_use]
    pub fn choose(options: &Options) -> Form {
        let embedded = |reason: &str| Form::Embedded { reason: reason.into() };
        if options.embedded {
            return embedded("asked for");
        }
        if !nix::unistd::geteuid().is_root() {
            return embedded("namespaces need root");
        }
        if insane_sys::thread::cores().len() < 2 {
            return embedded("two hosts need two cores");
        }
        if !is_program("ip") || !is_program("tc") {
            return embedded("the commands ip and tc (iproute2) are missing");
        }
        match daemon::find_or_build() {
            Ok(insaned) => {
                let engine = Engine::ALL.into_iter().find(|engine| options.containers && engine.is_there());
                Form::Namespaces { insaned, engine }
            }
            Err(error) => Form::Embedded { reason: error.to_string() },
        }
    }

    /// In one line.
    #[must_use]
    pub fn describe(&self, options: &Options) -> String {
        match (self, options.single) {
            (Form::Namespaces { engine: Some(engine), .. }, _) => format!(
                "two network namespaces joined by veth, two insaned, the controller in a container ({}), every other part a process",
                engine.name()
            ),
            (Form::Namespaces { .. }, true) => {
                "two network namespaces joined by veth, two insaned, every part a process".into()
            }
            (Form::Namespaces { .. }, false) => format!(
                "two network namespaces at a switch of 100 Mbit/s, two insaned over {}, processes",
                options.technology.name()
            ),
            (Form::Embedded { reason }, true) => {
                format!("two runtimes embedded in one process, over loopback ({reason})")
            }
            (Form::Embedded { reason }, false) => {
                format!("two runtimes in one process, a port of 100 Mbit/s between ({reason})")
            }
        }
    }
}

fn is_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).is_file())
}

/// A running demonstration. Dropping it ends it and clears everything away.
pub enum Stage {
    /// See [`Form::Namespaces`].
    Namespaces(namespaces::Namespaces),
    /// See [`Form::Embedded`].
    Embedded(embedded::Embedded),
}

impl Stage {
    /// Starts all parts.
    ///
    /// # Errors
    /// See [`StageError`].
    pub fn start(form: &Form, options: &Options, course: &Course) -> Result<Stage, StageError> {
        match form {
            Form::Namespaces { engine: None, .. } if options.containers => Err(StageError::NoEngine),
            Form::Embedded { reason } if options.technology != Carrier::Udp => {
                Err(StageError::Program { what: options.technology.name().into(), said: reason.clone() })
            }
            Form::Embedded { reason } if options.containers => {
                Err(StageError::Program { what: "containers".into(), said: reason.clone() })
            }
            Form::Namespaces { insaned, engine } => {
                namespaces::Namespaces::start(insaned, *engine, options, course).map(Stage::Namespaces)
            }
            Form::Embedded { .. } => embedded::Embedded::start(options, course).map(Stage::Embedded),
        }
    }

    /// What the runtimes say of the slots of process data; those that have none are left out.
    #[must_use]
    pub fn slots(&self) -> Vec<Slots> {
        let reports = match self {
            Stage::Namespaces(stage) => stage.status(),
            Stage::Embedded(stage) => stage.status(),
        };
        let sides = [Side::A, Side::B].into_iter().zip(reports);
        sides.filter_map(|(side, report)| slots::slots_of(side, &report?)).collect()
    }

    /// What the parts report.
    #[must_use]
    pub fn reports(&self) -> &Receiver<Report> {
        match self {
            Stage::Namespaces(stage) => &stage.reports,
            Stage::Embedded(stage) => &stage.reports,
        }
    }

    /// Looks whether a part has died without a word.
    pub fn look_for_dead(&mut self) -> Option<Report> {
        match self {
            Stage::Namespaces(stage) => stage.look_for_dead(),
            Stage::Embedded(_) => None,
        }
    }

    /// Asks all parts to end and waits for them; their last reports can still be read.
    pub fn end(&mut self) {
        match self {
            Stage::Namespaces(stage) => stage.end(),
            Stage::Embedded(stage) => stage.end(),
        }
    }
}

/// Host a is the controller's, host b the device's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The controller's.
    A,
    /// The device's.
    B,
}

/// The parts and their hosts, receivers first. Best effort goes the way of the samples,
/// from the machine to the controller's host.
fn cast(course: &Course) -> Vec<(Side, Role)> {
    let mut parts = vec![(Side::A, Role::Controller), (Side::B, Role::Device)];
    for flow in course.flows {
        parts.push((Side::A, Role::Recorder(*flow)));
        parts.push((Side::B, Role::Sender(*flow)));
    }
    parts
}

/// The core of a host's cyclic work, by the cores this process may use.
fn core(side: Side) -> Option<usize> {
    insane_sys::thread::cores().get(usize::from(side == Side::B)).copied()
}

/// A part's place: device and controller on their host's core, at FIFO.
fn place(side: Side, role: Role) -> Place {
    match role {
        Role::Device | Role::Controller => Place { core: core(side), fifo: Some(FIFO) },
        _ => Place::default(),
    }
}

/// The instants that all parts of a run share.
#[derive(Clone, Copy, Debug)]
struct Instants {
    grid: Grid,
    release_from: MonoTime,
    load_from: MonoTime,
}

impl Instants {
    /// Of a run that starts now.
    fn from_now(cable: Cable) -> Self {
        let (release_from, load_from) = match cable {
            Cable::Own => (MonoTime(0), MonoTime(0)),
            Cable::Switched => {
                let release = insane_sys::clock::mono_now() + UNTIL_RELEASE;
                (release, release + UNTIL_LOAD)
            }
        };
        Instants { grid: Grid::from_now(), release_from, load_from }
    }
}

fn setup(options: &Options, course: &Course, role: Role, place: Place, instants: Instants) -> Setup {
    let is_short = options.smoke || course.cable == Cable::Switched;
    Setup {
        role,
        place,
        seconds: options.seconds,
        settle: if is_short { SETTLE_SHORT } else { SETTLE },
        contract: course.contract,
        grid: instants.grid,
        release_from: instants.release_from,
        load_from: instants.load_from,
        margin: Nanos::from_micros(options.margin_us),
        offset: Nanos::from_micros(options.offset_us),
        late: Nanos::from_micros(options.late_us),
        hold_back: (Nanos::from_millis(options.hold_back_ms).0 / PERIOD.0) as usize,
        pause: Nanos::from_millis(options.pause_ms),
        video_fps: options.video_fps,
    }
}

/// The end of a log, for an error message: from the last error on that a program ended with, else
/// its last lines.
fn tail(path: &Path) -> String {
    last_words(&std::fs::read_to_string(path).unwrap_or_default())
}

fn last_words(log: &str) -> String {
    const LINES: usize = 5;
    let lines: Vec<&str> = log.lines().collect();
    let error = lines.iter().rposition(|line| line.starts_with("error: "));
    let from = error.unwrap_or(lines.len().saturating_sub(LINES));
    lines[from..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_shown_from_the_error_that_ended_it() {
        let log = "1 WARN warning: x\n  --> a.ron:1\n  |\n  | y\n  | ^\n  = accepted: z\nerror: no card\nthere is one";
        assert_eq!(last_words(log), "error: no card\nthere is one");
        assert_eq!(last_words("1\n2\n3\n4\n5\n6"), "2\n3\n4\n5\n6");
        assert_eq!(last_words(""), "");
    }
}
