//! What differs between runs: the contract of process data, who else uses the link, and
//! which link it is. Plant, controller, tasks and their places are the same in all.

use crate::options::Options;
use crate::report::Flow;
use serde::{Deserialize, Serialize};

/// Stream from the device's sensors to the controller.
pub const SAMPLES: &str = "plant/samples";
/// Stream from the controller to the device's actuator.
pub const COMMANDS: &str = "plant/commands";
/// Rate of the ports of the switch that three runs share, Mbit/s.
pub const PORT_MBPS: u32 = 100;
/// What a port of it holds at most, bytes; 40 ms at its rate.
pub const PORT_BYTES: usize = 500_000;

/// Bytes of IPv4, UDP and Ethernet around a datagram, with preamble and gap.
pub const AROUND_BYTES: usize = 20 + 8 + 14 + 4 + 8 + 12;
/// Largest datagram of the links to it, bytes.
pub const DATAGRAM_BYTES: usize = 1_472;

/// Of which quality process data is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contract {
    /// Time-sensitive, in a real-time lane: an order, no slots.
    Lane,
    /// Time-sensitive, in slots.
    Slots,
    /// As everything else.
    BestEffort,
}

/// The link between the two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cable {
    /// As fast as the machine; process data has a link and a datapath of its own.
    Own,
    /// One link for everything, through a switch of [`PORT_MBPS`].
    Switched,
}

/// One run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Course {
    /// In one or a few words.
    pub name: &'static str,
    /// Of process data.
    pub contract: Contract,
    /// Best effort beside it.
    pub flows: &'static [Flow],
    /// What both go over.
    pub cable: Cable,
}

const BESIDE: &[Flow] = &[Flow::Backup, Flow::Telemetry];

/// The three that are set side by side: alone first.
pub const COMPARED: [Course; 3] = [
    Course { name: "unloaded", contract: Contract::Slots, flows: &[], cable: Cable::Switched },
    Course { name: "loaded, slots", contract: Contract::Slots, flows: BESIDE, cable: Cable::Switched },
    Course { name: "loaded, best effort", contract: Contract::BestEffort, flows: BESIDE, cable: Cable::Switched },
];

impl Course {
    /// The single run.
    #[must_use]
    pub fn single(options: &Options) -> Self {
        let flows: &[Flow] = if options.no_best_effort { &[] } else { &[Flow::Video, Flow::Telemetry] };
        Course { name: "single", contract: Contract::Lane, flows, cable: Cable::Own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_differ_in_load_or_in_the_contract_and_in_nothing_else() {
        let [alone, slots, best_effort] = COMPARED;
        assert_eq!(Course { name: "", flows: &[], ..slots }, Course { name: "", ..alone });
        assert_eq!(Course { name: "", contract: Contract::Slots, ..best_effort }, Course { name: "", ..slots });
        assert!(alone.flows.is_empty() && !slots.flows.is_empty());
    }
}
