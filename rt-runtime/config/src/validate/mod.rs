//! From the raw configuration to the plan: every bound, every reference between fields.
//!
//! All findings are gathered before anything is refused; where a value is wrong, a
//! placeholder takes its place, and the plan is thrown away at the end.

mod datapaths;
mod discovery;
mod interfaces;
mod network;
mod places;
mod policy;
mod streams;
mod tenants;

pub use places::{
    BUDGETED_SESSIONS, DOORBELLS_OF_DATAPATH, PORTS_OF_DATAPATH, RELIABLE_SOURCES_OF_DATAPATH, SLOTS_OF_DATAPATH,
};
pub use tenants::DOMAINS_MAX;

use crate::fields::{self, Accepts};
use crate::machine::Machine;
use crate::plan::{self, Plan};
use crate::raw;
use crate::report::Report;
use insane_core::{HostId, Nanos};
use insane_wire::control::name_fits;
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket, bytes: `sun_path` less its zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Checks everything; the plan is of use only if the report has no errors.
pub(crate) fn validate(config: &raw::Config, machine: &Machine, report: &mut Report<'_>) -> Plan {
    let host = host(&config.host, machine, report);
    let control = control(&config.control, report);
    let mut links = network::links(&config.links, report);
    let peers = network::peers(config, &host.name, &mut links, report);
    let eal = eal(&config.eal, report);
    let discovery = discovery::discovery(&config.discovery, &links, report);
    let datapaths = datapaths::datapaths(config, links, machine, report);
    network::warn_of_unreached_peers(&peers, &datapaths, report);
    interfaces::warn_of_packet_sockets(&config.links, &datapaths, report);
    let domains = tenants::domains(&config.domains, machine, &datapaths, report);
    streams::check_slots(&domains, &datapaths, report);
    let policy = policy::policy(&config.policy, &datapaths, report);
    let memory = memory(&config.memory, report);
    let clock = clock(&config.clock, report);
    Plan { host, control, datapaths, peers, discovery, eal, domains, memory, policy, clock, log: log(&config.log) }
}

fn host(raw: &raw::Host, machine: &Machine, report: &mut Report<'_>) -> plan::HostPlan {
    let name = raw.name.clone().unwrap_or_else(|| machine.hostname.clone());
    check_name(report, "host.name", &name);
    if raw.id == Some(0) {
        report.error("host.id", "0 stands for no host");
    }
    let id = raw.id.map_or_else(|| plan::host_id(&name), HostId);
    plan::HostPlan { name, id }
}

fn control(raw: &raw::Control, report: &mut Report<'_>) -> plan::ControlPlan {
    let path = Path::new(&raw.socket);
    if !path.is_absolute() {
        report.error("control.socket", "the path is not absolute");
    } else if raw.socket.len() > SOCKET_PATH_BYTES_MAX {
        report.error("control.socket", format!("the path has {} bytes", raw.socket.len()));
    } else if raw.socket.contains('\0') || path.file_name().is_none() || raw.socket.ends_with('/') {
        report.error("control.socket", "the path names no file");
    }
    if !(0..=0o777).contains(&raw.mode) || raw.mode & 0o600 != 0o600 {
        let is = format!("0o{:o} is not a mode of a socket that its owner can use", raw.mode);
        // Whoever knows chmod writes the digits alone, and they are taken for a decimal number.
        let digits = report.written("control.mode").and_then(|text| u32::from_str_radix(text, 8).ok());
        let meant = digits.filter(|mode| (0o600..=0o777).contains(mode) && mode & 0o600 == 0o600);
        let meant = meant.map_or(String::new(), |mode| format!("; did you mean 0o{mode:o}?"));
        report.error("control.mode", is + &meant);
    }
    if raw.state.as_ref().is_some_and(|path| !Path::new(path).is_absolute() || path.contains('\0')) {
        report.error("control.state", "the path is not absolute");
    }
    plan::ControlPlan {
        socket: Some(PathBuf::from(&raw.socket)),
        mode: (raw.mode & 0o777) as u32,
        state: raw.state.as_ref().map(PathBuf::from),
    }
}

fn eal(raw: &raw::Eal, report: &mut Report<'_>) -> plan::EalPlan {
    if raw.shim.as_ref().is_some_and(|path| !Path::new(path).is_absolute() || path.contains('\0')) {
        report.error("eal.shim", "the path is not absolute");
    }
    for (at, argument) in raw.arguments.iter().enumerate() {
        if argument.is_empty() || argument.contains('\0') {
            report.error(&format!("eal.arguments[{at}]"), "an argument is not empty, and has no zero in it");
        }
    }
    plan::EalPlan { shim: raw.shim.as_ref().map(PathBuf::from), arguments: raw.arguments.clone() }
}

fn memory(raw: &raw::Memory, report: &mut Report<'_>) -> plan::MemoryPlan {
    plan::MemoryPlan {
        limit_bytes: number(report, "memory.limit_bytes", raw.limit_bytes),
        lock: raw.lock,
        huge_pages: match raw.huge_pages {
            raw::HugePages::Never => plan::HugePages::Never,
            raw::HugePages::Try => plan::HugePages::Try,
            raw::HugePages::Require => plan::HugePages::Require,
        },
        prefault: raw.prefault,
    }
}

fn clock(raw: &raw::Clock, report: &mut Report<'_>) -> plan::ClockPlan {
    let phase = raw.holdover_phase_us.map(|us| number(report, "clock.holdover_phase_us", us));
    plan::ClockPlan {
        holdover: Nanos::from_secs(number(report, "clock.holdover_s", raw.holdover_s)),
        read_max: Nanos::from_micros(number(report, "clock.read_max_us", raw.read_max_us)),
        holdover_phase: phase.map(Nanos::from_micros),
        after_holdover: raw.after_holdover,
    }
}

fn log(raw: &raw::Log) -> plan::LogPlan {
    plan::LogPlan {
        level: match raw.level {
            raw::LogLevel::Error => plan::LogLevel::Error,
            raw::LogLevel::Warn => plan::LogLevel::Warn,
            raw::LogLevel::Info => plan::LogLevel::Info,
            raw::LogLevel::Debug => plan::LogLevel::Debug,
            raw::LogLevel::Trace => plan::LogLevel::Trace,
        },
        format: match raw.format {
            raw::LogFormat::Text => plan::LogFormat::Text,
            raw::LogFormat::Json => plan::LogFormat::Json,
        },
    }
}

/// A number inside the bounds of the table of fields; 0 if it is not.
fn number<T: TryFrom<i64> + Default>(report: &mut Report<'_>, path: &str, value: i64) -> T {
    if let Some(Accepts::Number(least, most, _)) = report.field(path).map(|field| field.accepts) {
        let shown = fields::grouped(value);
        if value < least {
            report.error(path, format!("{shown} is too small"));
        } else if value > most {
            report.error(path, format!("{shown} is too large"));
        }
    }
    T::try_from(value).unwrap_or_default()
}

/// Whether the name is one; says so if not.
fn check_name(report: &mut Report<'_>, path: &str, name: &str) -> bool {
    let fits = name_fits(name);
    if name.is_empty() {
        report.error(path, "the name is empty");
    } else if !fits && name.len() > insane_core::limits::NAME_BYTES_MAX {
        report.error(path, format!("the name has {} bytes", name.len()));
    } else if !fits {
        report.error(path, "the name holds a control character");
    }
    fits
}

/// Checks the names of a list, and that none is there twice.
fn check_names<'n>(report: &mut Report<'_>, list: &str, names: impl Iterator<Item = &'n str>) {
    let mut seen: Vec<&str> = Vec::new();
    for (at, name) in names.enumerate() {
        let path = format!("{list}[{at}].name");
        if check_name(report, &path, name)
            && let Some(first) = seen.iter().position(|other| *other == name)
        {
            let line = report.line(&format!("{list}[{first}].name"));
            let message = format!("\"{name}\" is the name of {list}[{first}] already (line {line})");
            report.error_accepting(&path, message, format!("a name that no other of the {list} has"));
        }
        seen.push(name);
    }
}

/// The names in quotes, for messages.
fn quoted<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<String> = names.map(|name| format!("\"{name}\"")).collect();
    if names.is_empty() { "none: no link is configured".into() } else { names.join(", ") }
}
