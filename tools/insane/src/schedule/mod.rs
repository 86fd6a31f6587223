//! `insane schedule`: certificates of plants of several hosts.
//!
//! Whatever is written or shown here was accepted by the checker, which shares no code with
//! the synthesiser. A refusal is shown as a proof only where the checker finds it true.

mod activate;
mod draw;
mod forget;
mod measured;
mod plant;
mod taprio;
mod words;

use crate::output::print_findings;
use clap::Subcommand;
use insane_admission::{Budget, Reason, Refusal, synthesise_beside};
use insane_certificate::{Certificate, Plant, text};
use insane_config::{Findings, LoadError, Machine};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Largest certificate that is read, bytes.
const CERTIFICATE_BYTES_MAX: u64 = 64 << 20;

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find a schedule for a plant, check it, and write its certificate.
    Synth {
        /// The plant.
        #[arg(value_name = "PLANT.ron")]
        plant: PathBuf,
        /// Where the certificate goes; standard output, if nothing is given.
        #[arg(short, long, value_name = "CERT")]
        output: Option<PathBuf>,
        /// A certificate whose streams keep their slots, where the plant says the same of them.
        #[arg(long, value_name = "CERT")]
        keep: Option<PathBuf>,
    },
    /// Check a certificate from first principles.
    Check {
        /// The certificate.
        #[arg(value_name = "CERT")]
        certificate: PathBuf,
        /// The plant that it must be about.
        #[arg(long, value_name = "PLANT.ron")]
        plant: Option<PathBuf>,
    },
    /// Say what a certificate guarantees and assumes; of a plant, also why it has no schedule.
    Explain {
        /// The certificate, or a plant.
        #[arg(value_name = "CERT")]
        file: PathBuf,
    },
    /// Draw the links over one cycle.
    Draw {
        /// The certificate.
        #[arg(value_name = "CERT")]
        certificate: PathBuf,
        /// Where the picture goes.
        #[arg(short, long, value_name = "FILE.svg")]
        output: PathBuf,
        /// Where the picture begins, microseconds from the start of the cycle, and inside it.
        #[arg(long, value_name = "US", default_value_t = 0)]
        from_us: u64,
        /// How much is drawn, microseconds; the whole cycle, if nothing is given.
        #[arg(long, value_name = "US")]
        for_us: Option<u64>,
    },
    /// Let a schedule take over on all its hosts at one instant, or on none.
    Activate(activate::Arguments),
    /// Let hosts be under no schedule: who was named by one is admitted as others are. A schedule
    /// of several hosts ends on all of them: all are to be given.
    Forget(forget::Arguments),
    /// Print what a running host measured of e_turn and e_wake, for `hosts` of a plant.
    Measured(measured::Arguments),
    /// Gate lists of tc taprio.
    #[command(subcommand)]
    Taprio(Taprio),
}

#[derive(Subcommand)]
enum Taprio {
    /// Print the tc command for a link of a certificate: a gate for each slot, each blocked window
    /// and what is between them. Warns of what tc or the kernel does not take as it is.
    Export {
        /// The certificate.
        #[arg(value_name = "CERT")]
        certificate: PathBuf,
        /// The link.
        link: String,
        /// The device, if it is not called as the link.
        #[arg(long)]
        dev: Option<String>,
    },
    /// Print the tc command for the `gates` of a datapath of a host's configuration.
    Gates {
        /// The configuration.
        #[arg(value_name = "CONFIG.ron")]
        config: PathBuf,
        /// The datapath.
        datapath: String,
        /// The device.
        #[arg(long)]
        dev: String,
    },
    /// Print the windows in which a class may not send, for `blocked` of a plant's link.
    Import {
        /// A tc command, or what `tc qdisc show` or `tc -j qdisc show` prints.
        file: PathBuf,
        /// The traffic class of what the plant sends.
        #[arg(long, default_value_t = 0)]
        class: u32,
    },
}

/// Why a command did not do what it was to do.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Read(#[from] LoadError),
    /// Shown one by one.
    #[error("{0}")]
    Findings(#[from] Findings),
    #[error("error: {}: {what}", path.display())]
    File { path: PathBuf, what: String },
    #[error("error: {0}")]
    Other(String),
    #[error("cannot write: {0}")]
    Output(#[from] std::io::Error),
}

/// Runs the command. Status 1: there is no schedule, a certificate does not hold, or a file
/// is wrong.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let done = match &arguments.command {
        Command::Synth { plant, output, keep } => synth(plant, output.as_deref(), keep.as_deref()),
        Command::Check { certificate, plant } => check(certificate, plant.as_deref()),
        Command::Explain { file } => explain(file),
        Command::Draw { certificate, output, from_us, for_us } => draw(certificate, output, *from_us, *for_us),
        Command::Activate(arguments) => activate::run(arguments),
        Command::Forget(arguments) => forget::run(arguments),
        Command::Measured(arguments) => measured::run(arguments),
        Command::Taprio(Taprio::Export { certificate, link, dev }) => export(certificate, link, dev.as_deref()),
        Command::Taprio(Taprio::Gates { config, datapath, dev }) => export_gates(config, datapath, dev),
        Command::Taprio(Taprio::Import { file, class }) => import(file, *class),
    };
    match done {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Failure::Output(error)) => Err(error),
        Err(Failure::Findings(findings)) => {
            print_findings(&findings)?;
            Ok(ExitCode::FAILURE)
        }
        Err(failure) => {
            writeln!(std::io::stderr(), "{failure}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn file_failure(path: &Path, what: impl ToString) -> Failure {
    Failure::File { path: path.to_owned(), what: what.to_string() }
}

fn read_text(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| file_failure(path, error))?;
    file.take(CERTIFICATE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|error| file_failure(path, error))?;
    if text.len() as u64 > CERTIFICATE_BYTES_MAX {
        return Err(file_failure(path, format!("more than {CERTIFICATE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

fn read_plant(path: &Path) -> Result<Plant, Failure> {
    let text = insane_config::read(path).map_err(|error| match error {
        LoadError::Read { source, .. } => Failure::Other(format!("cannot read the plant {}: {source}", path.display())),
        other => Failure::Read(other),
    })?;
    Ok(plant::parse(&path.display().to_string(), &text)?)
}

/// Whether a file is a plant, where a configuration was expected.
pub fn is_plant(path: &Path) -> bool {
    insane_config::read(path).is_ok_and(|text| plant::parse("", &text).is_ok())
}

/// A certificate that the checker accepts.
fn read_certificate(path: &Path) -> Result<Certificate, Failure> {
    let certificate = text::read(&read_text(path)?).map_err(|error| file_failure(path, error))?;
    holds(path, &certificate.plant, &certificate)?;
    Ok(certificate)
}

fn holds(path: &Path, plant: &Plant, certificate: &Certificate) -> Result<(), Failure> {
    insane_checker::check(plant, certificate)
        .map_err(|flaw| file_failure(path, format!("the certificate does not hold: {}", words::flaw(plant, &flaw))))
}

fn refused(path: &Path, plant: &Plant, refusal: &Refusal) -> Failure {
    // A proof is called one only after somebody else has looked at it.
    let is_proof = match &refusal.reason {
        Reason::Refuted(proof) => insane_checker::is_refuted(plant, proof),
        _ => true,
    };
    if is_proof {
        file_failure(path, words::refusal(plant, refusal))
    } else {
        file_failure(path, "the synthesiser's proof does not hold; this is a bug")
    }
}

/// The checked certificate of a plant.
fn schedule(path: &Path, plant: &Plant, kept: &[Option<u64>]) -> Result<Certificate, Failure> {
    let plan = synthesise_beside(plant, kept, Budget::default()).map_err(|refusal| refused(path, plant, &refusal))?;
    let certificate = plan.certificate();
    holds(path, plant, &certificate)?;
    Ok(certificate)
}

fn synth(path: &Path, output: Option<&Path>, keep: Option<&Path>) -> Result<(), Failure> {
    let plant = read_plant(path)?;
    let old = keep.map(read_certificate).transpose()?;
    let kept: Vec<Option<u64>> =
        plant.streams.iter().map(|stream| old.as_ref().and_then(|old| start_in(old, &plant, stream))).collect();
    let certificate = schedule(path, &plant, &kept)?;
    let text = text::write(&certificate).map_err(|error| Failure::Other(error.to_string()))?;
    let Some(output) = output else {
        std::io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    };
    std::fs::write(output, text).map_err(|error| file_failure(output, error))?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}: {}; checked", output.display(), words::summary(&plant))?;
    if old.is_some() {
        let count = kept.iter().flatten().count();
        writeln!(out, "{count} streams keep their slots, {} are new or changed", kept.len() - count)?;
    }
    Ok(())
}

/// Where a stream starts in an older certificate that says the same of it.
fn start_in(old: &Certificate, plant: &Plant, stream: &insane_certificate::Stream) -> Option<u64> {
    let names = |plant: &Plant, stream: &insane_certificate::Stream| -> Vec<(String, u64)> {
        stream.path.iter().map(|hop| (plant.links[hop.link].name.clone(), hop.delay_ns)).collect()
    };
    let at = old.plant.streams.iter().position(|one| one.name == stream.name)?;
    let before = &old.plant.streams[at];
    let same = insane_certificate::Stream { path: stream.path.clone(), ..before.clone() } == *stream;
    (same && names(&old.plant, before) == names(plant, stream)).then(|| old.placed[at].start_ns)
}

fn check(path: &Path, plant: Option<&Path>) -> Result<(), Failure> {
    let certificate = read_certificate(path)?;
    if let Some(plant) = plant {
        holds(path, &read_plant(plant)?, &certificate)?;
    }
    writeln!(std::io::stdout(), "{}: holds: {}", path.display(), words::summary(&certificate.plant))?;
    Ok(())
}

fn explain(path: &Path) -> Result<(), Failure> {
    let is_certificate = read_text(path)?.starts_with(text::MARK);
    let certificate = if is_certificate { read_certificate(path)? } else { schedule(path, &read_plant(path)?, &[])? };
    std::io::stdout().write_all(words::certificate(&certificate).as_bytes())?;
    Ok(())
}

fn draw(path: &Path, output: &Path, from_us: u64, for_us: Option<u64>) -> Result<(), Failure> {
    let certificate = read_certificate(path)?;
    let ns = |us: u64| us.checked_mul(1_000).ok_or_else(|| Failure::Other(format!("{us} us are beyond all time")));
    let view = draw::View::of(&certificate, ns(from_us)?, for_us.map(ns).transpose()?).map_err(Failure::Other)?;
    std::fs::write(output, draw::svg(&certificate, view)).map_err(|error| file_failure(output, error))
}

fn export(path: &Path, link: &str, device: Option<&str>) -> Result<(), Failure> {
    let certificate = read_certificate(path)?;
    let links = &certificate.plant.links;
    let at = links.iter().position(|one| one.name == link).ok_or_else(|| {
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        Failure::Other(format!("there is no link {link:?}; there are {}", names.join(", ")))
    })?;
    let list = taprio::from_certificate(&certificate, at).map_err(Failure::Other)?;
    write_command(&list, Some(links[at].ps_per_byte.into()), device.unwrap_or(link))
}

fn export_gates(config: &Path, name: &str, device: &str) -> Result<(), Failure> {
    let plan = match insane_config::load(config, &Machine::unknown()) {
        Ok(loaded) => loaded.plan,
        Err(LoadError::Invalid(findings)) => return Err(Failure::Findings(findings)),
        Err(error) => return Err(Failure::Read(error)),
    };
    let datapath = plan.datapaths.iter().find(|datapath| datapath.name == name).ok_or_else(|| {
        let names: Vec<&str> = plan.datapaths.iter().map(|datapath| datapath.name.as_str()).collect();
        Failure::Other(format!("there is no datapath {name:?}; there are {}", names.join(", ")))
    })?;
    let none = || Failure::Other(format!("datapath {name:?} has no gates: its lanes may always send"));
    let list = taprio::from_gates(datapath.gates.as_ref().ok_or_else(none)?).map_err(Failure::Other)?;
    write_command(&list, None, device)
}

fn write_command(list: &taprio::Taprio, ps_per_byte: Option<u64>, device: &str) -> Result<(), Failure> {
    for warning in list.warnings(ps_per_byte) {
        writeln!(std::io::stderr(), "{warning}")?;
    }
    // The command is for a shell of root, and the certificate may be somebody else's.
    if device.is_empty() || !device.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:@".contains(&byte)) {
        return Err(Failure::Other(format!("{device:?} is no name of a device for a command: give --dev")));
    }
    std::io::stdout().write_all(list.command(device).as_bytes())?;
    Ok(())
}

fn import(path: &Path, class: u32) -> Result<(), Failure> {
    let list =
        taprio::parse(&read_text(path)?).map_err(|error| Failure::Other(format!("{}:{error}", path.display())))?;
    if class >= list.classes {
        return Err(file_failure(path, format!("there is no class {class}: the list has {}", list.classes)));
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "blocked: [")?;
    for window in list.shut(class) {
        let insane_certificate::Window { offset_ns, length_ns, period_ns } = window;
        writeln!(out, "    (offset_ns: {offset_ns}, length_ns: {length_ns}, period_ns: {period_ns}),")?;
    }
    writeln!(out, "]")?;
    Ok(())
}
