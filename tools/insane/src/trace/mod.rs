//! `insane trace`: what the kernel does on the core of a datapath (wake-ups, switches,
//! interrupts, softirqs, timers), beside the datapath's turns, the slots that it used and the
//! messages that missed theirs, on one timeline. All bear instants of the monotonic clock.
//!
//! Only a trace can tell that the *host* took the core away: see [`judge`].
//!
//! Built with the feature `trace`, which needs the headers of libelf and zlib; needs root
//! (CAP_BPF and CAP_PERFMON), and a kernel with BTF.

#[cfg(feature = "trace")]
mod capture;
mod draw;
#[cfg_attr(not(feature = "trace"), allow(dead_code, reason = "only a capture makes events"))]
mod events;
mod judge;
#[cfg_attr(not(feature = "trace"), allow(dead_code, reason = "only a capture lets a datapath tell"))]
mod own;
mod text;

use crate::observer::Observer;
use events::Event;
use insane_core::Nanos;
use insane_shm::misses::{Miss, MissReader, file_of, read};
use own::{Recording, Told};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Misses that are shown, each with what was around it; those that were the latest.
const SHOWN: usize = 10;

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The runtime's control socket.
    #[arg(long, default_value = insane_config::raw::SOCKET)]
    socket: PathBuf,
    /// The datapath; the first one that has slots, if none is named.
    #[arg(long)]
    datapath: Option<String>,
    /// Watch this core, and no runtime: what runs on it, without turns and misses.
    #[arg(long, conflicts_with_all = ["socket", "datapath"])]
    core: Option<u16>,
    /// How long, seconds.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Write a picture, too: a page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What is watched.
struct Watched {
    core: u16,
    /// The thread of the datapath; zero: none.
    tid: u32,
    name: String,
    misses: Option<MissReader>,
}

/// One miss with what is thought of it.
struct Shown {
    miss: Miss,
    judged: judge::Judged,
}

/// Watches, then shows.
pub fn run(arguments: &Arguments) -> std::io::Result<ExitCode> {
    let (watched, recording) = match find(arguments) {
        Ok(found) => found,
        Err(error) => return fail(&error),
    };
    let before = watched.misses.as_ref().map_or(0, MissReader::written);
    let (events, lost, told) = match capture_for(watched.core, Duration::from_secs(arguments.seconds), recording) {
        Ok(captured) => captured,
        Err(error) => return fail(&error),
    };
    let misses = watched.misses.as_ref().map(|reader| reader.since(before)).unwrap_or_default();
    let mut shown: Vec<Shown> =
        misses.into_iter().map(|(_, miss)| Shown { miss, judged: judge::judge(&miss, &events, watched.tid) }).collect();
    let mut out = std::io::stdout().lock();
    write!(out, "{}", text::summary(&watched, &events, lost, &shown))?;
    if let Some(told) = &told {
        write!(out, "{}", told.summary())?;
    }
    let told = told.unwrap_or_default();
    shown.sort_by_key(|shown| std::cmp::Reverse(shown.miss.noticed.since(shown.miss.planned)));
    shown.truncate(SHOWN);
    shown.sort_by_key(|shown| shown.miss.planned);
    for one in &shown {
        write!(out, "{}", text::around(one, &events, &told, watched.tid))?;
    }
    if let (true, Some(last)) = (shown.is_empty(), told.last()) {
        write!(out, "{}", text::calm(last, &events, &told, watched.tid))?;
    }
    if let Some(path) = &arguments.html {
        if let Err(error) = std::fs::write(path, draw::page(&watched, &events, &told, &shown)) {
            return fail(&format!("{}: {error}", path.display()));
        }
        writeln!(out, "\ndrawn in {}", path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn fail(error: &str) -> std::io::Result<ExitCode> {
    eprintln!("error: {error}");
    Ok(ExitCode::FAILURE)
}

/// What the kernel told, how much of that was lost, and what the datapath told.
type Captured = (Vec<Event>, u64, Option<Told>);

#[cfg(feature = "trace")]
fn capture_for(core: u16, time: Duration, mut recording: Option<Recording>) -> Result<Captured, String> {
    let mut capture = capture::Capture::start(u32::from(core)).map_err(|error| error.to_string())?;
    if let Some(recording) = &mut recording {
        recording.begin()?;
    }
    let until = Instant::now() + time;
    while Instant::now() < until {
        capture.poll(Duration::from_millis(20)).map_err(|error| error.to_string())?;
        recording.iter_mut().for_each(Recording::take);
    }
    let told = recording.map(Recording::finish);
    let (events, lost) = capture.finish().map_err(|error| error.to_string())?;
    Ok((events, lost, told))
}

#[cfg(not(feature = "trace"))]
fn capture_for(_core: u16, time: Duration, _recording: Option<Recording>) -> Result<Captured, String> {
    let _until = Instant::now() + time;
    Err("this `insane` was built without the feature `trace`: cargo build --release -p insane-cli --features trace"
        .into())
}

fn find(arguments: &Arguments) -> Result<(Watched, Option<Recording>), String> {
    if let Some(core) = arguments.core {
        return Ok((Watched { core, tid: 0, name: format!("core {core}"), misses: None }, None));
    }
    let mut observer = Observer::attach(&arguments.socket, Nanos::from_secs(5), "insane trace", None)
        .map_err(|error| error.to_string())?;
    let report = observer.status().map_err(|error| error.to_string())?;
    let wanted = |datapath: &&insane_wire::status::DatapathStatus| match &arguments.datapath {
        Some(name) => datapath.name == *name,
        None => datapath.slot_clock.is_some(),
    };
    let datapath = report.datapaths.iter().find(wanted).ok_or_else(|| match &arguments.datapath {
        Some(name) => format!("there is no datapath {name:?}"),
        None => "no datapath has slots; name one by --datapath".to_owned(),
    })?;
    let core = datapath.core.ok_or_else(|| {
        format!("datapath {} is pinned to no core: what happens on one core says nothing of it", datapath.name)
    })?;
    let thread = report.threads.iter().find(|thread| thread.name == format!("datapath {}", datapath.name));
    let path = file_of(&arguments.socket);
    let misses = match datapath.slot_clock {
        Some(_) => {
            let readers = read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let names: Vec<String> = readers.iter().map(MissReader::name).collect();
            closest(&names, &datapath.name).and_then(|at| readers.into_iter().nth(at))
        }
        None => None,
    };
    let recording = Recording::new(observer, &datapath.name, &report);
    let tid = thread.map_or(0, |thread| thread.tid);
    Ok((Watched { core, tid, name: datapath.name.clone(), misses }, Some(recording)))
}

/// The record of a datapath: a record has room for the beginning of a name only, and one
/// name may be the beginning of another.
fn closest(records: &[String], datapath: &str) -> Option<usize> {
    let fit = records.iter().enumerate().filter(|(_, record)| datapath.starts_with(record.as_str()));
    fit.max_by_key(|(_, record)| record.len()).map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datapath_whose_name_begins_as_another_has_its_own_record() {
        let records = ["main", "main2", &"x".repeat(32)].map(str::to_owned);
        assert_eq!(closest(&records, "main2"), Some(1));
        assert_eq!(closest(&records, "main"), Some(0));
        assert_eq!(closest(&records, &"x".repeat(40)), Some(2), "a long name is cut");
        assert_eq!(closest(&records, "other"), None);
    }
}
