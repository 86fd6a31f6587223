//! The checks: pure functions of the snapshot and of what the configuration asks.

mod cores;
mod discovery;
mod interrupts;
mod kernel;
mod memory;
mod network;
mod power;
#[cfg(test)]
mod remedy_tests;
mod rights;
mod scheduling;
#[cfg(test)]
mod tests;
mod time;

use super::finding::Entry;
use super::wanted::Datapath;

/// Everything that is looked at, in the order of reports.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    let groups: [&'static [Entry]; 10] = [
        kernel::ENTRIES,
        rights::ENTRIES,
        scheduling::ENTRIES,
        cores::ENTRIES,
        interrupts::ENTRIES,
        power::ENTRIES,
        memory::ENTRIES,
        time::ENTRIES,
        network::ENTRIES,
        discovery::ENTRIES,
    ];
    groups.into_iter().flatten()
}

/// The first few of many, with commas.
fn some_of(all: &[String]) -> String {
    const SHOWN: usize = 4;
    match all.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", all[..SHOWN].join(", ")),
        _ => all.join(", "),
    }
}

/// `datapath "real-time"`.
fn named(datapath: &Datapath) -> String {
    format!("datapath \"{}\"", datapath.name)
}

/// What the boot loader has to be told.
fn at_boot(parameters: &str) -> String {
    format!("Add to the kernel's command line, then boot again:\n  {parameters}")
}
