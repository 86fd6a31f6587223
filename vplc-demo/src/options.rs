//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// A controller and a remote I/O device, on two hosts in one machine, keep a carriage
/// hovering under a magnet: process data every millisecond through insane-rt, beside
/// a video stream and telemetry.
///
/// With root: two network namespaces, two insaned, a process for every part.
/// Without: two runtimes embedded in this process, over loopback. The last line says
/// whether the loop held; the exit status is 0 if it did, 1 if it did not, 2 if the
/// demonstration could not run, 130 if it was interrupted.
#[derive(Parser, Clone, Debug)]
#[command(version, about, long_about = None)]
pub struct Options {
    /// How long the loop is counted.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub seconds: u32,
    /// Video frames of 6.22 MB a second; 0: as many as go through.
    #[arg(long, default_value_t = 10.0, value_name = "F", value_parser = rate)]
    pub video_fps: f64,
    /// No video and no telemetry beside the loop.
    #[arg(long)]
    pub no_best_effort: bool,
    /// Two runtimes in this process even where there are the rights for namespaces.
    #[arg(long)]
    pub embedded: bool,
    /// The controller in a container without rights (runc or crun; root): the daemon gives its
    /// thread the priority. Who cannot have that is told so.
    #[arg(long, conflicts_with = "embedded")]
    pub containers: bool,
    /// Lines instead of the live view.
    #[arg(long)]
    pub no_tui: bool,
    /// A short run (2 s unless --seconds says otherwise) that fails only when something
    /// is broken, not when the machine was too slow.
    #[arg(long)]
    pub smoke: bool,
    /// Also write the result there.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// How long a cyclic task looks at the clock before its deadline, microseconds:
    /// punctuality for processor time.
    #[arg(long, default_value_t = 0, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=300))]
    pub margin_us: u64,
    /// When the controller's cycle starts, microseconds after the device's.
    #[arg(long, default_value_t = 500, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=900))]
    pub offset_us: u64,
    /// A wake-up later than this explains a miss, microseconds.
    #[arg(long, default_value_t = 200, value_name = "US")]
    pub late_us: u64,
    /// See it fall: the controller uses samples that are N ms old.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000))]
    pub hold_back_ms: u64,
    /// See it fall: the controller stands still for N ms in the middle of the run.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub pause_ms: u64,
}

/// A smoke run's seconds.
const SMOKE_SECONDS: u32 = 2;

impl Options {
    /// The command line, with `--smoke` applied where `--seconds` is not given.
    #[must_use]
    pub fn from_command_line() -> Self {
        Self::settled(std::env::args_os())
    }

    fn settled(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Self {
        use clap::{CommandFactory, FromArgMatches, parser::ValueSource};
        let matches = Options::command().get_matches_from(arguments);
        let mut options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if options.smoke && matches.value_source("seconds") == Some(ValueSource::DefaultValue) {
            options.seconds = SMOKE_SECONDS;
        }
        options
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.0..=10_000.0).contains(&rate) => Ok(rate),
        _ => Err("a rate is a number from 0 to 10000".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Options {
        Options::settled(std::iter::once("demo").chain(arguments.iter().copied()).map(Into::into))
    }

    #[test]
    fn the_command_line_is_sound_and_has_its_defaults() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        let options = parsed(&[]);
        assert_eq!((options.seconds, options.video_fps, options.smoke), (10, 10.0, false));
    }

    #[test]
    fn smoke_is_short_unless_told_otherwise() {
        assert_eq!(parsed(&["--smoke"]).seconds, SMOKE_SECONDS);
        assert_eq!(parsed(&["--smoke", "--seconds", "10"]).seconds, 10);
    }

    #[test]
    fn rates_are_rates() {
        assert!(rate("2.5").is_ok() && rate("0").is_ok());
        assert!(rate("-1").is_err() && rate("NaN").is_err() && rate("fast").is_err() && rate("inf").is_err());
    }
}
