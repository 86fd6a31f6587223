//! What a link has for itself: a device of DPDK, its frames, and the place for a program at an
//! interface. And what its driver does to the links beside it.

use crate::plan::{DatapathPlan, DeviceName, Serves, Technology};
use crate::raw;
use crate::report::Report;

/// Says whether link `at` wants what one before it has.
pub(super) fn check_is_its_own(raw: &[raw::Link], at: usize, report: &mut Report<'_>) {
    check_device(raw, at, report);
    check_interface(raw, at, report);
    check_memory(&raw[at], at, report);
}

/// A frame is read and written as memory of this process alone, which it is not where a memif lends
/// the other process's.
fn check_memory(link: &raw::Link, at: usize, report: &mut Report<'_>) {
    let raw::Technology::Dpdk { device, .. } = &link.technology else { return };
    let lends = |device: DeviceName| {
        // Of an argument that is there twice DPDK takes the last.
        let mut arguments = device.as_str().split(',').skip(1);
        let is_no = |argument: &str| argument.strip_prefix("zero-copy=").is_none_or(|value| value == "no");
        device.as_str().starts_with("net_memif") && !arguments.all(is_no)
    };
    if DeviceName::new(device).is_some_and(lends) {
        let message = "with `zero-copy` its frames lie in memory that the process at the other end can write";
        report.error_accepting(&format!("links[{at}].technology.device"), message, "a memif without `zero-copy`");
    }
}

/// DPDK gives a device to one link.
fn check_device(raw: &[raw::Link], at: usize, report: &mut Report<'_>) {
    let device = |link: &raw::Link| match &link.technology {
        raw::Technology::Dpdk { device, .. } => Some(device_name(device).to_owned()),
        _ => None,
    };
    let Some(own) = device(&raw[at]) else { return };
    if let Some(first) = raw[..at].iter().position(|link| device(link).as_deref() == Some(&own)) {
        let message = format!("device \"{own}\" is taken: links[{first}] uses it");
        report.error_accepting(&format!("links[{at}].technology.device"), message, "a device that no other link has");
    }
}

/// What DPDK knows a device by: what stands before its arguments, and of a PCI address what stands
/// behind domain zero.
fn device_name(device: &str) -> &str {
    let name = device.split(',').next().unwrap_or_default();
    name.strip_prefix("0000:").unwrap_or(name)
}

/// A program that a link puts on an interface.
#[derive(PartialEq, Eq)]
struct Program {
    interface: String,
    /// The queue, where others' links may have the other queues: DPDK's share its program. `None`:
    /// the program is the link's alone.
    queue: Option<u32>,
}

impl Program {
    fn of(link: &raw::Link) -> Option<Self> {
        match &link.technology {
            raw::Technology::Xdp { interface, .. } => Some(Program { interface: interface.clone(), queue: None }),
            raw::Technology::Dpdk { device, .. } => {
                let device = DeviceName::new(device).filter(DeviceName::is_af_xdp)?;
                let queue = device.argument("start_queue").and_then(|text| text.parse().ok()).unwrap_or(0);
                Some(Program { interface: device.interface()?.to_owned(), queue: Some(queue) })
            }
            _ => None,
        }
    }

    /// Whether only one of them can be there.
    fn excludes(&self, other: &Program) -> bool {
        let are_of_dpdk = self.queue.is_some() && other.queue.is_some();
        self.interface == other.interface && (!are_of_dpdk || self.queue == other.queue)
    }
}

/// An interface runs one program of XDP: the link that opens second would be missing for ever.
fn check_interface(raw: &[raw::Link], at: usize, report: &mut Report<'_>) {
    let Some(own) = Program::of(&raw[at]) else { return };
    let excludes = |link: &raw::Link| Program::of(link).is_some_and(|other| other.excludes(&own));
    let Some(first) = raw[..at].iter().position(excludes) else { return };
    let field = if own.queue.is_some() { "device" } else { "interface" };
    let path = format!("links[{at}].technology.{field}");
    match own.queue {
        Some(queue)
            if Program::of(&raw[first]) == Some(Program { interface: own.interface.clone(), queue: Some(queue) }) =>
        {
            let message = format!("queue {queue} of interface \"{}\" is taken: links[{first}] uses it", own.interface);
            report.error_accepting(&path, message, "another `start_queue`, or another interface");
        }
        _ => {
            let message = format!(
                "interface \"{}\" is taken: it runs one program of XDP, whatever the queue, and links[{first}] puts one \
                 there",
                own.interface
            );
            report.error_accepting(
                &path,
                message,
                "an interface on which no other xdp link, nor dpdk by net_af_xdp, is",
            );
        }
    }
}

/// The driver of packet sockets waits in its call where the kernel takes no frame: the only link
/// by which a datapath can stand still.
pub(super) fn warn_of_packet_sockets(raw: &[raw::Link], datapaths: &[DatapathPlan], report: &mut Report<'_>) {
    for datapath in datapaths {
        let has_others = datapath.links.len() > 1;
        if !has_others && datapath.serves == Serves::BestEffort {
            continue;
        }
        for link in &datapath.links {
            let Technology::Dpdk(dpdk) = &link.technology else { continue };
            let Some(at) = raw.iter().position(|raw| raw.name == link.name) else { continue };
            if !dpdk.device.is_af_packet() {
                continue;
            }
            let what = if has_others { "all its links" } else { "its real-time lanes" };
            let message = format!(
                "where the interface takes no frames this driver waits, for as long as that lasts: datapath \"{}\" \
                 stands still with {what}",
                datapath.name
            );
            let accepted = "an xdp or udp link there, or a datapath for this link alone that `serves: best_effort`";
            report.warning(&format!("links[{at}].technology.device"), message, accepted);
        }
    }
}
