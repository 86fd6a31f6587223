//! `insane explain`: what a stream was given, and why.

mod choices;
mod facts;

use crate::observer::{Observer, StatusError};
use facts::Explanation;
use insane_core::Nanos;
use insane_policy::report::PolicyReport;
use insane_wire::status::{StatusReport, StreamStatus};
use serde::Deserialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Streams that are named where the one asked for is not there.
const NAMED_MAX: usize = 20;

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// Name of the stream.
    stream: String,
    /// Its domain, where several have a stream of that name.
    #[arg(long)]
    domain: Option<String>,
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Milliseconds to wait for an answer.
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    timeout: u64,
}

/// Why there is nothing to explain.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error("no stream \"{name}\" is open{place}; {others}")]
    NoStream { name: String, place: String, others: String },
    #[error("several domains have a stream \"{name}\": choose one with --domain: {domains}")]
    Several { name: String, domains: String },
}

/// Explains one stream.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let text = ask(arguments).and_then(|Answer { status, policy }| {
        let stream = choose(&status, &arguments.stream, arguments.domain.as_deref())?;
        let mut explanation = facts::explain(&status, stream);
        explanation.choices = choices::of_stream(&policy, stream);
        Ok(show(&explanation, arguments.json))
    });
    match text {
        Ok(text) => {
            std::io::stdout().write_all(text?.as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            writeln!(std::io::stderr(), "error: {error}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What a runtime answers, as far as it is asked here.
#[derive(Deserialize)]
struct Answer {
    #[serde(flatten)]
    status: StatusReport,
    /// Empty: the runtime is older than its policy.
    #[serde(default)]
    policy: PolicyReport,
}

fn ask(arguments: &Arguments) -> Result<Answer, ExplainError> {
    let timeout = Nanos::from_millis(arguments.timeout);
    let mut observer = Observer::attach(&arguments.socket, timeout, "insane explain", arguments.domain.as_deref())?;
    Ok(observer.status_as()?)
}

fn choose<'r>(report: &'r StatusReport, name: &str, domain: Option<&str>) -> Result<&'r StreamStatus, ExplainError> {
    let shown = || report.streams.iter().filter(|stream| domain.is_none_or(|domain| stream.domain == domain));
    let found: Vec<&StreamStatus> = shown().filter(|stream| stream.name == name).collect();
    let list = |names: Vec<String>| names.join(", ");
    match found[..] {
        [stream] => Ok(stream),
        [] => {
            let names: Vec<String> = shown().take(NAMED_MAX).map(|stream| format!("\"{}\"", stream.name)).collect();
            let more = shown().count().saturating_sub(NAMED_MAX);
            let others = match (names.len(), more) {
                (0, _) => "none is".to_owned(),
                (_, 0) => format!("these are: {}", list(names)),
                (_, more) => format!("these are: {} and {more} more", list(names)),
            };
            let place = domain.map_or(String::new(), |domain| format!(" in domain \"{domain}\""));
            Err(ExplainError::NoStream { name: name.to_owned(), place, others })
        }
        _ => {
            let domains = found.iter().map(|stream| stream.domain.clone()).collect();
            Err(ExplainError::Several { name: name.to_owned(), domains: list(domains) })
        }
    }
}

fn show(explanation: &Explanation, json: bool) -> std::io::Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(explanation).map_err(std::io::Error::other)? + "\n");
    }
    Ok(facts::render(explanation))
}
