//! `insane qos`: changes what a stream asks for while it is used.

use crate::observer::{Observer, StatusError};
use insane_core::{Datapath, Nanos, Priority};
use std::io::Write;
use std::path::PathBuf;
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
    /// Which kind of technology it is to get; without it what its first opener asked for.
    #[arg(long, value_enum)]
    datapath: Option<Kind>,
    /// Its importance; without it what its first opener asked for.
    #[arg(long, value_name = "0..7", value_parser = clap::value_parser!(u8).range(0..=7))]
    priority: Option<u8>,
    /// The domain of the stream; the first that the access rules allow, if none is given.
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
}

/// Changes it, and says so. Status 1 if it stays as it is.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    if let Err(error) = ask(arguments) {
        writeln!(std::io::stderr(), "error: {error}")?;
        return Ok(ExitCode::FAILURE);
    }
    let kind = arguments.datapath.map_or("as asked for", |kind| match kind {
        Kind::Standard => "standard",
        Kind::Fast => "fast",
    });
    let priority = arguments.priority.map_or("as asked for".to_owned(), |priority| priority.to_string());
    writeln!(std::io::stdout(), "stream {:?}: datapath {kind}, priority {priority}", arguments.stream)?;
    Ok(ExitCode::SUCCESS)
}

fn ask(arguments: &Arguments) -> Result<(), StatusError> {
    let timeout = Nanos::from_millis(arguments.timeout);
    let mut observer = Observer::attach(&arguments.socket, timeout, NAME, arguments.domain.as_deref())?;
    let datapath = arguments.datapath.map(|kind| match kind {
        Kind::Standard => Datapath::Standard,
        Kind::Fast => Datapath::Fast,
    });
    observer.set_qos(&arguments.stream, datapath, arguments.priority.and_then(Priority::new))
}
