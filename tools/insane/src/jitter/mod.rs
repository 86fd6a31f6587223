//! `insane jitter`: how late this host wakes a thread that asked for an instant, and why.
//!
//! Two series, in turns on one thread, so that both meet the same weather:
//! - *timer*: `clock_nanosleep` to an absolute instant, and a look at the clock;
//! - *task*: a cyclic task of this runtime, which sleeps and then looks at the clock.
//!
//! With `--slots` a third one, after them: *slots*, messages of a stream with slots between two
//! runtimes, from the start of the slot, as the sender's runtime tells it, to the arrival.
//!
//! # Names
//! `wakeup_latency` is isochron's (NXP): the wake-up less the planned instant, with its
//! `min`, `max`, `mean` and `stddev`. `outliers`, as in the TSN/RTC testbench (Linutronix),
//! counts what is beyond a bound that is given. A quantile is told only if ten samples lie
//! beyond it.
//!
//! # Bounds
//! The measurement ends after `--seconds`, and with `--slots` after as many more. The thread takes one core, `SCHED_FIFO` where it
//! may, and only where the process has a second core for everything else. It looks at the
//! clock for at most half of each period.
//!
//! # Causes
//! See [`cause`]: what counters can tell without tracing, likely and not proven. A message that
//! missed its slot has the cause that the sender's runtime noted; one that did not was late
//! behind it, on the way or in waking this thread.

mod cause;
mod evidence;
mod measure;
mod metric;
mod report;
mod slots;

use insane_core::Nanos;
use insane_rt::Session;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// What is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Arguments {
    /// How long to measure, both series together.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Length of a cycle, microseconds.
    #[arg(long, default_value_t = 1_000, value_name = "US", value_parser = clap::value_parser!(u64).range(50..=100_000))]
    pub period_us: u64,
    /// The core to measure on; otherwise the last one of this process.
    #[arg(long)]
    pub core: Option<usize>,
    /// SCHED_FIFO priority.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=98))]
    pub priority: u8,
    /// How long the cyclic task may look at the clock before an instant, microseconds; it
    /// learns how much of that it needs.
    #[arg(long, default_value_t = 200, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=500))]
    pub margin_us: u64,
    /// Wake-ups later than this are outliers, microseconds.
    #[arg(long, default_value_t = 100, value_name = "US")]
    pub outlier_us: u64,
    /// Measure messages in slots, too, between two runtimes that are peers, both of this machine
    /// (in namespaces, say): their control sockets, the sender's first. That takes `--seconds`
    /// once more.
    #[arg(long, num_args = 2, value_names = ["SENDER", "RECEIVER"])]
    pub slots: Option<Vec<PathBuf>>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

impl Arguments {
    fn period(&self) -> Nanos {
        Nanos::from_micros(self.period_us)
    }

    fn outlier(&self) -> Nanos {
        Nanos::from_micros(self.outlier_us)
    }
}

/// Measures and prints.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let measured = Session::embedded("jitter")
        .map_err(|error| error.to_string())
        .and_then(|session| measure::measure(&session, arguments))
        .and_then(|measured| {
            let slots = arguments.slots.as_deref().map(|sockets| slots::measure(arguments, measured.core, sockets));
            Ok((measured, slots.transpose()?))
        });
    let (measured, slots) = match measured {
        Ok(both) => both,
        Err(why) => {
            writeln!(std::io::stderr(), "error: {why}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let report = report::Report::of(arguments, &measured, slots.as_ref());
    let mut output = std::io::stdout().lock();
    if arguments.json {
        let text = serde_json::to_string_pretty(&report).map_err(std::io::Error::other)?;
        writeln!(output, "{text}")?;
    } else {
        let colour = crate::output::colour(&output);
        output.write_all(report::text(&report, colour).as_bytes())?;
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}
