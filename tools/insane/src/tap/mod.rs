//! `insane tap`: the messages of a domain as they pass, as a pcap-ng file or as lines.
//!
//! The tap is a session like any other: the kernel says who it is, and the access rules of
//! the domain decide. On every channel that is in use it opens a sink that only watches,
//! so nobody waits for it and nobody counts it. A tap that is too slow misses messages,
//! and each packet says how many were lost before it.
//!
//! A packet is the data header of `insane_wire::data` and the payload, as a frame between
//! runtimes would be: one dissector reads both. What that header has no field for stands in
//! the file's own: each channel is an interface, named `DOMAIN/STREAM:CHANNEL`.

mod output;
mod pcapng;
mod watch;

use crate::observer::{Observer, StatusError};
use crate::signals::Signals;
use insane_core::Nanos;
use insane_rt::{Attachment, Session, SessionError};
use output::Output;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use watch::{Filter, Watch};

/// What the session calls itself.
const NAME: &str = "insane tap";
/// How often the runtime is asked for channels that are new.
const LIST_PERIOD: Duration = Duration::from_millis(500);
/// A pause when nothing waits; a ring of the default depth holds what 2 million messages a
/// second bring meanwhile.
const PAUSE: Duration = Duration::from_micros(500);
/// How long written packets may wait for more.
const FLUSH_PERIOD: Duration = Duration::from_millis(100);

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// The domain; the first that lets this user in, unless it is given.
    #[arg(long)]
    domain: Option<String>,
    /// This stream only.
    #[arg(long)]
    stream: Option<String>,
    /// This channel only.
    #[arg(long)]
    channel: Option<u32>,
    /// End after so many messages.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    seconds: Option<u64>,
    /// Messages that the tap's ring from each source holds.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(2..=65_536))]
    depth: u32,
    /// Write pcap-ng to this file; `-` is standard output. Without it: a line a message.
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    write: Option<PathBuf>,
    /// Milliseconds to wait for an answer of the runtime.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
}

/// Why there is no tap, or no longer.
#[derive(Debug, thiserror::Error)]
enum TapError {
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error(
        "this user may not tap here: {0}\n\
         A tap reads messages: the domain's `members` in the runtime's configuration decide, for root, too."
    )]
    Refused(SessionError),
    #[error(transparent)]
    Session(SessionError),
    #[error("cannot write {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("the runtime closed the tap: {0}")]
    Closed(String),
    #[error("signals cannot be taken: {0}")]
    Signals(std::io::Error),
}

/// Taps until the user, or a limit, ends it.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    match tap(arguments) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // Who reads the pipe has seen enough.
        Err(TapError::File { source, .. }) if source.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => {
            writeln!(std::io::stderr(), "error: {error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn tap(arguments: &Arguments) -> Result<(), TapError> {
    // Before any thread is started: they inherit it.
    let signals = Signals::take().map_err(TapError::Signals)?;
    let timeout = Nanos::from_millis(arguments.timeout);
    let domain = arguments.domain.as_deref();
    let session = match domain {
        Some(domain) => Session::attach_in(&arguments.socket, NAME, domain),
        None => Session::attach(&arguments.socket, NAME),
    };
    let session = session.map_err(|error| why_not(arguments, timeout, error))?;
    let domain = session.domain();
    let list = || Observer::attach(&arguments.socket, timeout, NAME, Some(&domain));
    let mut observer = Some(list()?);
    let path = arguments.write.as_deref();
    let failed = |source| TapError::File {
        path: path.map_or("standard output".into(), |path| path.display().to_string()),
        source,
    };
    let mut output = Output::open(path).map_err(failed)?;
    let filter = Filter { stream: arguments.stream.clone(), channel: arguments.channel, depth: arguments.depth };
    let mut watch = Watch::new(session.clone(), filter);
    let ends = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let (mut listed, mut flushed): (Option<Instant>, _) = (None, Instant::now());
    while left > 0 && !signals.came() && ends.is_none_or(|end| Instant::now() < end) {
        if let Attachment::Closed(reason) = session.attachment() {
            output.finish().map_err(failed)?;
            return Err(TapError::Closed(reason));
        }
        if listed.is_none_or(|at| at.elapsed() >= LIST_PERIOD) {
            // A runtime that is gone may come back, and the session with it.
            observer = observer.or_else(|| list().ok());
            match observer.as_mut().map(Observer::status) {
                Some(Ok(report)) => watch.update(&report, &mut output).map_err(failed)?,
                Some(Err(_)) => observer = None,
                None => {}
            }
            listed = Some(Instant::now());
        }
        let took = watch.take(&mut output, left).map_err(failed)?;
        left -= took;
        if took == 0 || flushed.elapsed() >= FLUSH_PERIOD {
            output.flush().map_err(failed)?;
            flushed = Instant::now();
        }
        if took == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    output.finish().map_err(failed)?;
    let _ = writeln!(std::io::stderr(), "{}", output.summary());
    Ok(())
}

/// The same words for a runtime that is not there as the other commands have.
fn why_not(arguments: &Arguments, timeout: Nanos, error: SessionError) -> TapError {
    match error {
        SessionError::Refused { .. } => TapError::Refused(error),
        SessionError::Unreachable { .. } => match Observer::attach(&arguments.socket, timeout, NAME, None) {
            Err(told) => TapError::Status(told),
            Ok(_) => TapError::Session(error),
        },
        error => TapError::Session(error),
    }
}
