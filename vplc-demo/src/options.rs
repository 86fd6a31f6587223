//! The command line.

use clap::Parser;
use std::path::PathBuf;

/// A controller and a remote I/O device, on two hosts in one machine, keep a carriage
/// hovering under a magnet: process data every millisecond through insane-rt.
///
/// Three runs side by side, over a switch port of 100 Mbit/s: alone; beside a backup
/// and telemetry, process data in slots; the same with everything best effort. With
/// --single one run, on a link without such a port, beside video and telemetry.
///
/// With root: network namespaces, two insaned, a process for every part. Without: two
/// runtimes embedded in this process, over loopback. The last line says what came of
/// it; the exit status is 0 if the slots showed what they should (--single: if the
/// loop held) or the right to real-time priority is all that was missing, 1 if not, 2 if
/// the demonstration could not run, 130 if it was interrupted.
#[derive(Parser, Clone, Debug)]
#[command(version, about, long_about = None)]
pub struct Options {
    /// How long the loop is counted, in each run.
    #[arg(long, default_value_t = COMPARED_SECONDS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400), long_help = "How long the loop is counted, in each run [default: 4; 10 with --single; 2 with --smoke]", hide_default_value = true)]
    pub seconds: u32,
    /// Three runs: also write what they were, with the carriage's path, as a page.
    #[arg(long, value_name = "FILE", conflicts_with = "single")]
    pub report: Option<PathBuf>,
    /// One run, beside video, on a link that is as fast as the machine.
    #[arg(long)]
    pub single: bool,
    /// Three runs: what carries the link between the hosts. xdp goes past the kernel and needs
    /// root; the switch and everything else are the same.
    #[arg(long, value_enum, default_value_t = Carrier::Udp, conflicts_with_all = ["single", "embedded"])]
    pub technology: Carrier,
    /// Single: video frames of 6.22 MB a second; 0: as many as go through.
    #[arg(long, default_value_t = 10.0, value_name = "F", value_parser = rate, requires = "single")]
    pub video_fps: f64,
    /// Single: no video and no telemetry beside the loop.
    #[arg(long, requires = "single")]
    pub no_best_effort: bool,
    /// Two runtimes in this process even where there are the rights for namespaces.
    #[arg(long)]
    pub embedded: bool,
    /// Single: the controller in a container without rights (runc or crun; root): the daemon gives
    /// its thread the priority. Who cannot have that is told so.
    #[arg(long, conflicts_with = "embedded", requires = "single")]
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
    /// Single: when the controller's cycle starts, microseconds after the device's.
    #[arg(long, default_value_t = OFFSET_US, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=900), requires = "single")]
    pub offset_us: u64,
    /// A wake-up later than this explains a miss, microseconds.
    #[arg(long, default_value_t = 200, value_name = "US")]
    pub late_us: u64,
    /// Single, see it fall: the controller uses samples that are N ms old.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=1_000), requires = "single")]
    pub hold_back_ms: u64,
    /// Single, see it fall: the controller stands still for N ms in the middle.
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=60_000), requires = "single")]
    pub pause_ms: u64,
}

/// What carries the link between the hosts.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Carrier {
    /// The kernel's sockets.
    Udp,
    /// AF_XDP.
    Xdp,
    /// DPDK, over packet sockets.
    Dpdk,
}

impl Carrier {
    /// As in a configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Carrier::Udp => "udp",
            Carrier::Xdp => "xdp",
            Carrier::Dpdk => "dpdk",
        }
    }
}

/// Seconds of each of three runs, of a single one, and of a smoke run.
const COMPARED_SECONDS: u32 = 4;
const SINGLE_SECONDS: u32 = 10;
const SMOKE_SECONDS: u32 = 2;
/// From the device's cycle to the controller's.
const OFFSET_US: u64 = 500;

impl Options {
    /// The command line, with the seconds of its kind of run where `--seconds` is not given.
    #[must_use]
    pub fn from_command_line() -> Self {
        Self::settled(std::env::args_os())
    }

    fn settled(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Self {
        use clap::{CommandFactory, FromArgMatches, parser::ValueSource};
        // `cargo demo` ends in `--` itself; whoever writes one more means no positional argument.
        let arguments = arguments.into_iter().enumerate().filter(|(at, text)| *at != 1 || text != "--");
        let matches = Options::command().get_matches_from(arguments.map(|(_, text)| text));
        let mut options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        if matches.value_source("seconds") == Some(ValueSource::DefaultValue) {
            options.seconds = match (options.smoke, options.single) {
                (true, _) => SMOKE_SECONDS,
                (false, true) => SINGLE_SECONDS,
                (false, false) => COMPARED_SECONDS,
            };
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
        assert_eq!((options.seconds, options.video_fps, options.smoke, options.single), (4, 10.0, false, false));
        assert_eq!(parsed(&["--single"]).seconds, 10);
    }

    #[test]
    fn smoke_is_short_unless_told_otherwise() {
        assert_eq!(parsed(&["--smoke"]).seconds, SMOKE_SECONDS);
        assert_eq!(parsed(&["--smoke", "--seconds", "10"]).seconds, 10);
    }

    #[test]
    fn the_dashes_of_cargo_may_come_twice() {
        assert_eq!(parsed(&["--", "--seconds", "3"]).seconds, parsed(&["--seconds", "3"]).seconds);
    }

    #[test]
    fn rates_are_rates() {
        assert!(rate("2.5").is_ok() && rate("0").is_ok());
        assert!(rate("-1").is_err() && rate("NaN").is_err() && rate("fast").is_err() && rate("inf").is_err());
    }
}
