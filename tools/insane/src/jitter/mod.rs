//! `insane jitter`: how late this host wakes a thread that asked for an instant, and why.
//!
//! Two series, in turns on one thread, so that both meet the same weather:
//! - *timer*: `clock_nanosleep` to an absolute instant, and a look at the clock;
//! - *task*: a cyclic task of this runtime, which sleeps and then looks at the clock.
//!
//! # Names
//! `wakeup_latency` is isochron's (NXP): the wake-up less the planned instant, with its
//! `min`, `max`, `mean` and `stddev`. `outliers`, as in the TSN/RTC testbench (Linutronix),
//! counts what is beyond a bound that is given. A quantile is told only if ten samples lie
//! beyond it.
//!
//! # Bounds
//! The measurement ends after `--seconds`. The thread takes one core, `SCHED_FIFO` where it
//! may, and only where the process has a second core for everything else. It looks at the
//! clock for at most half of each period.
//!
//! # Causes
//! See [`cause`]: what counters can tell without tracing, likely and not proven.

mod cause;
mod evidence;
mod measure;
mod metric;
mod report;

use insane_core::Nanos;
use insane_rt::Session;
use std::io::Write;
use std::process::ExitCode;

/// What is measured.
#[derive(clap::Args, Clone, Copy, Debug)]
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
        .and_then(|session| measure::measure(&session, arguments));
    let measured = match measured {
        Ok(measured) => measured,
        Err(why) => {
            writeln!(std::io::stderr(), "error: {why}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let report = report::Report::of(arguments, &measured);
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
