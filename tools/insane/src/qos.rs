//! `insane qos`: changes what a stream asks for while it is used.

use crate::observer::{Asked, StatusError};
use insane_core::{Datapath, Priority};
use std::io::Write;
use std::process::ExitCode;

/// What the session calls itself.
const NAME: &str = "insane qos";

/// A kind of technology.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Kind {
    Standard,
    Fast,
}

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The stream, which is open on this host.
    stream: String,
    /// Which kind of technology it is to get. Without it that stays as it is; without this and
    /// --priority both are again what the stream's first opener asked for.
    #[arg(long, value_enum)]
    datapath: Option<Kind>,
    /// Its importance; without it as it is, likewise.
    #[arg(long, value_name = "0..7", value_parser = clap::value_parser!(u8).range(0..=7))]
    priority: Option<u8>,
    #[command(flatten)]
    asked: Asked,
}

/// Changes it, and says so. Status 1 if it stays as it is.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    if let Err(error) = ask(arguments) {
        writeln!(std::io::stderr(), "error: {error}")?;
        return Ok(ExitCode::FAILURE);
    }
    let is_back = arguments.datapath.is_none() && arguments.priority.is_none();
    let unnamed = if is_back { "as asked for" } else { "as it was" };
    let kind = arguments.datapath.map_or(unnamed, |kind| match kind {
        Kind::Standard => "standard",
        Kind::Fast => "fast",
    });
    let priority = arguments.priority.map_or(unnamed.to_owned(), |priority| priority.to_string());
    writeln!(std::io::stdout(), "stream {:?}: datapath {kind}, priority {priority}", arguments.stream)?;
    Ok(ExitCode::SUCCESS)
}

fn ask(arguments: &Arguments) -> Result<(), StatusError> {
    let mut observer = arguments.asked.attach(NAME)?;
    let datapath = arguments.datapath.map(|kind| match kind {
        Kind::Standard => Datapath::Standard,
        Kind::Fast => Datapath::Fast,
    });
    observer.set_qos(&arguments.stream, datapath, arguments.priority.and_then(Priority::new))
}
