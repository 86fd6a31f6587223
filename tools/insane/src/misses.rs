//! `insane misses`: which messages missed their slots, when, by how much, and why. Reads the
//! record that the runtime maps beside its control socket, and asks nobody: so it works after
//! the runtime has died.

use insane_core::{Cause, Nanos};
use insane_shm::misses::{Miss, MissReader, file_of, last_file_of, read};
use insane_wire::status::MissStatus;
use serde::Serialize;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The runtime's control socket; the record stands beside it.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// The record of the runtime's life before this one.
    #[arg(long)]
    last: bool,
    /// Read this record, wherever it is.
    #[arg(long, conflicts_with_all = ["socket", "last"])]
    file: Option<PathBuf>,
    /// How many of the last misses of each datapath to show.
    #[arg(long, default_value_t = 20)]
    count: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    number: u64,
    source: u32,
    sequence: u64,
    messages: u16,
    planned_ns: u64,
    noticed_ns: u64,
    emitted_ns: Option<u64>,
    cause: &'static str,
    fate: &'static str,
    from_ns: u64,
    to_ns: u64,
}

#[derive(Serialize)]
struct Record {
    datapath: String,
    incarnation: u64,
    pid: u64,
    written: u64,
    causes: Vec<(&'static str, u64)>,
    misses: Vec<Row>,
}

/// Shows the record.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let path = match (&arguments.file, arguments.last) {
        (Some(file), _) => file.clone(),
        (None, false) => file_of(&arguments.socket),
        (None, true) => last_file_of(&arguments.socket),
    };
    let readers = match read(&path) {
        Ok(readers) => readers,
        Err(error) => {
            eprintln!(
                "error: {}: {error}\nA runtime records misses where it has a control socket and a link with `rate_mbps`.",
                path.display()
            );
            return Ok(ExitCode::FAILURE);
        }
    };
    let records: Vec<Record> = readers.iter().map(|reader| record(reader, arguments.count)).collect();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&records).map_err(std::io::Error::other)?)?;
    } else {
        records.iter().try_for_each(|record| write!(out, "{}", table(record)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn record(reader: &MissReader, count: usize) -> Record {
    let written = reader.written();
    let causes = Cause::ALL.into_iter().map(|cause| (cause.name(), reader.count(cause)));
    let misses = reader.since(written.saturating_sub(count as u64));
    Record {
        datapath: reader.name(),
        incarnation: reader.life(),
        pid: reader.pid(),
        written,
        causes: causes.filter(|(_, count)| *count > 0).collect(),
        misses: misses.into_iter().map(|(number, miss)| row(number, &miss)).collect(),
    }
}

fn row(number: u64, miss: &Miss) -> Row {
    Row {
        number,
        source: miss.source,
        sequence: miss.sequence,
        messages: miss.messages,
        planned_ns: miss.planned.0,
        noticed_ns: miss.noticed.0,
        emitted_ns: Some(miss.emitted.0).filter(|emitted| *emitted > 0),
        cause: miss.cause.name(),
        fate: miss.fate.name(),
        from_ns: miss.from.0,
        to_ns: miss.to.0,
    }
}

fn table(record: &Record) -> String {
    let causes: Vec<String> = record.causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect();
    let causes = if causes.is_empty() { "none".to_owned() } else { causes.join(", ") };
    let mut shown = format!("datapath {} of process {}: missed slots: {causes}\n", record.datapath, record.pid);
    for row in &record.misses {
        let late = Nanos(row.noticed_ns.saturating_sub(row.planned_ns));
        shown += &format!(
            "  {:>14.6} s  source {} message {}: {}, {} after its slot, {}\n",
            row.planned_ns as f64 / 1e9,
            row.source,
            row.sequence,
            row.cause,
            late,
            row.fate
        );
    }
    shown
}

/// A miss of a report in a line.
pub fn words(miss: &MissStatus) -> String {
    let late = Nanos(miss.noticed_ns.saturating_sub(miss.planned_ns));
    let (source, sequence, cause, fate) = (miss.source, miss.sequence, &miss.cause, &miss.fate);
    format!("source {source} message {sequence}: {cause}, {late} after its slot, {fate}")
}
