//! Structured logs on standard error: for people, or one JSON object a line.

use insane_config::{LogFormat, LogPlan};
use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;

/// Overrides the level of the configuration.
const VARIABLE: &str = "INSANED_LOG";

/// Starts logging. Called once.
pub fn start(plan: &LogPlan) {
    // The library of gossip has a line for each datagram that it cannot read or send; what is
    // of interest in that is counted.
    let level = format!("{},chitchat=off", plan.level.name());
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr);
    match plan.format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
