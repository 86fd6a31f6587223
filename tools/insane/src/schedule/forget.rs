//! `insane schedule forget`: hosts that are under no schedule.
//!
//! A host that is under none silences the slots of the others of its schedule: it is an order
//! for all of them.

use super::Failure;
use super::activate::NAME;
use crate::observer::{Observer, StatusError};
use insane_core::Nanos;
use insane_wire::control::{ScheduleOrder, ScheduleWord};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// For a host to forget its schedule: it may be asking its peers, and has a disk.
const PATIENCE: Nanos = Nanos::from_secs(5);

/// Options of the command.
#[derive(clap::Args)]
pub struct Arguments {
    /// The control sockets of all hosts of the schedule.
    #[arg(long, required = true, value_delimiter = ',', value_name = "SOCKET,...")]
    hosts: Vec<PathBuf>,
    /// Also where hosts of the schedule are not given: for those that are gone for good. One that
    /// is not sends nothing in slots until it forgets the schedule, too.
    #[arg(long)]
    force: bool,
}

/// Lets every host be under no schedule. An error where a host of its schedule is not given, and
/// then none forgets it; or where one could not be asked, or has streams that would lose their
/// slots, and then the others forget it all the same.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !arguments.force {
        let said = arguments.hosts.iter().map(|socket| hosts_at(socket).ok());
        let missing = missing(&said.collect::<Vec<_>>());
        if !missing.is_empty() {
            return Err(Failure::Other(format!(
                "the schedule is of {} as well, which would send nothing in slots any more: give all control sockets, \
                 or --force, for a host that is gone",
                missing.join(", ")
            )));
        }
    }
    let mut failed = Vec::new();
    for socket in &arguments.hosts {
        let word = Observer::attach(socket, PATIENCE, NAME, None)
            .and_then(|mut observer| observer.order(ScheduleOrder::Forget));
        match word {
            Ok(ScheduleWord::Aborted) => writeln!(std::io::stdout(), "{}: under no schedule", socket.display())?,
            Ok(ScheduleWord::Cannot(why) | ScheduleWord::Refused(why)) => {
                failed.push(format!("{}: {why}", socket.display()));
            }
            Ok(_) => failed.push(format!("{}: its answer makes no sense", socket.display())),
            Err(error) => failed.push(format!("{}: {error}", socket.display())),
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Other(failed.join("\n"))) }
}

/// The name of a host, and of all hosts of its schedule.
fn hosts_at(socket: &Path) -> Result<(String, Vec<String>), StatusError> {
    let status = Observer::attach(socket, PATIENCE, NAME, None).and_then(|mut observer| observer.status())?;
    Ok((status.host.name, status.schedule.map(|schedule| schedule.hosts).unwrap_or_default()))
}

/// Hosts of the schedules that nobody was who answered. One that did not answer may be any.
fn missing(said: &[Option<(String, Vec<String>)>]) -> Vec<String> {
    let answered: BTreeSet<&String> = said.iter().flatten().map(|(name, _)| name).collect();
    let named: BTreeSet<&String> = said.iter().flatten().flat_map(|(_, hosts)| hosts).collect();
    let missing: Vec<String> = named.difference(&answered).map(|name| format!("{name:?}")).collect();
    let silent = said.iter().filter(|one| one.is_none()).count();
    if missing.len() > silent { missing } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_a_schedule_that_are_not_given_are_named() {
        let of =
            |name: &str, hosts: &[&str]| Some((name.to_owned(), hosts.iter().map(|&host| host.to_owned()).collect()));
        let both = ["a", "b"];
        assert_eq!(missing(&[of("a", &both)]), ["\"b\""]);
        assert!(missing(&[of("a", &both), of("b", &both)]).is_empty());
        assert!(missing(&[of("a", &both), of("b", &[])]).is_empty(), "one has forgotten it already");
        assert!(missing(&[of("a", &[])]).is_empty());
        assert!(missing(&[of("a", &both), None]).is_empty(), "it is given, and does not answer");
        assert_eq!(missing(&[of("a", &["a", "b", "c"]), None]), ["\"b\"", "\"c\""]);
    }
}
