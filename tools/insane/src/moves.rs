//! `insane move`: lets a stream go by another link while it is used.

use crate::observer::{Asked, StatusError};
use std::io::Write;
use std::process::ExitCode;

/// What the session calls itself.
const NAME: &str = "insane move";

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The stream, which is open on this host.
    stream: String,
    /// The link, one of the stream's datapath; without it the stream goes as the policy says.
    #[arg(long, value_name = "NAME")]
    link: Option<String>,
    /// Only what goes to this peer; without it to all that the link reaches.
    #[arg(long, value_name = "NAME")]
    peer: Option<String>,
    #[command(flatten)]
    asked: Asked,
}

/// Moves the stream, and says so. Status 1 if it stays.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    if let Err(error) = ask(arguments) {
        writeln!(std::io::stderr(), "error: {error}")?;
        return Ok(ExitCode::FAILURE);
    }
    let how = match &arguments.link {
        Some(link) => format!("by link {link:?}"),
        None => "as everything else".to_owned(),
    };
    let whom = arguments.peer.as_ref().map_or_else(String::new, |peer| format!(" to peer {peer:?}"));
    writeln!(std::io::stdout(), "stream {:?} goes {how}{whom}", arguments.stream)?;
    Ok(ExitCode::SUCCESS)
}

fn ask(arguments: &Arguments) -> Result<(), StatusError> {
    let mut observer = arguments.asked.attach(NAME)?;
    observer.move_stream(&arguments.stream, arguments.link.as_deref(), arguments.peer.as_deref())
}
