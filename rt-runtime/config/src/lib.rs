//! Configuration: a file in RON becomes a validated [`Plan`], once.
//!
//! [`load`] reads a file into the raw form ([`raw::Config`]), checks everything that can
//! be checked before start, and resolves every default. What is wrong is reported with
//! file, line, column, path of the field, the value and what would be accepted; and all
//! of it at once ([`Findings`]). The memory planner ([`planner`]) says where every byte
//! goes and refuses what does not fit.
#![forbid(unsafe_code)]

pub mod diagnostic;
pub mod diff;
pub mod fields;
pub mod index;
pub mod machine;
pub mod plan;
pub mod planner;
pub mod raw;
mod report;
mod syntax;
mod validate;

pub use diagnostic::{Diagnostic, Findings, Severity};
pub use machine::Machine;
pub use plan::{
    BudgetPlan, ClockPlan, ControlPlan, DatapathPlan, DeviceName, DomainPlan, DpdkPlan, EalPlan, GossipPlan, HostPlan,
    HugePages, Idle, InterfaceName, Isolation, LinkBudget, LinkLoss, LinkPlan, LogFormat, LogLevel, LogPlan, Member,
    MemoryPlan, MulticastPlan, PeerPlan, Plan, Policy, PolicyPlan, Quota, RatePlan, RdmaPlan, RealtimePlan, Serves,
    StreamPlan, TcpPlan, Technology, UdpPlan, XdpPlan,
};
pub use planner::{Budget, LayoutSizes};
pub use raw::AfterHoldover;
pub use report::BYTE_ORDER_MARK;
pub use validate::{
    BUDGETED_SESSIONS, DOMAINS_MAX, DOORBELLS_OF_DATAPATH, PORTS_OF_DATAPATH, RELIABLE_SOURCES_OF_DATAPATH,
    SLOTS_OF_DATAPATH,
};

use report::Report;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Largest file that is read, bytes.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A plan, and what should be known about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// What the runtime is to be.
    pub plan: Plan,
    /// Warnings; never errors.
    pub warnings: Findings,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("error: cannot read the configuration {}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    #[error("error: {} is no configuration: it has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// The file is wrong: at least one error, and the warnings.
    #[error("{0}")]
    Invalid(#[from] Findings),
}

/// Reads and checks a file.
///
/// # Errors
/// It cannot be read, or at least one thing in it is wrong.
pub fn load(path: &Path, machine: &Machine) -> Result<Loaded, LoadError> {
    Ok(parse(&path.display().to_string(), &read(path)?, machine)?)
}

/// Reads the text of a file.
///
/// # Errors
/// It cannot be read, is not UTF-8, or has more than [`FILE_BYTES_MAX`].
pub fn read(path: &Path) -> Result<String, LoadError> {
    let fault = |source| LoadError::Read { path: path.to_owned(), source };
    let mut text = String::new();
    // Devices and pipes have no size, so the bound is on what is read.
    fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)).map_err(fault)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// Checks the text of a file of that name.
///
/// # Errors
/// At least one thing in it is wrong, or it may need more memory than there is.
pub fn parse(file: &str, text: &str, machine: &Machine) -> Result<Loaded, Findings> {
    let mut report = Report::new(file, text);
    let Some(plan) = plan_in(&mut report, machine) else { return Err(report.finish()) };
    for objection in Budget::of(&plan, &LayoutSizes::default()).objections(&plan, machine) {
        match objection.severity {
            Severity::Error => report.error_accepting(&objection.path, objection.message, objection.accepted),
            Severity::Warning => report.warning(&objection.path, objection.message, objection.accepted),
        }
    }
    if report.has_errors() { Err(report.finish()) } else { Ok(Loaded { plan, warnings: report.finish() }) }
}

/// As [`parse`], but without asking whether the memory suffices: for showing where it
/// would go.
///
/// # Errors
/// At least one thing in it is wrong.
pub fn parse_unbudgeted(file: &str, text: &str, machine: &Machine) -> Result<Loaded, Findings> {
    let mut report = Report::new(file, text);
    match plan_in(&mut report, machine) {
        Some(plan) => Ok(Loaded { plan, warnings: report.finish() }),
        None => Err(report.finish()),
    }
}

/// The plan, if nothing is wrong.
fn plan_in(report: &mut Report<'_>, machine: &Machine) -> Option<Plan> {
    let config = syntax::parse(report)?;
    let plan = validate::validate(&config, machine, report);
    (!report.has_errors()).then_some(plan)
}
