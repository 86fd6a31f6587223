//! The technologies that rules can name.

use core::fmt;
use serde::{Deserialize, Serialize};

/// What carries a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Technology {
    /// Kernel UDP sockets.
    Udp,
    /// Kernel TCP connections.
    Tcp,
    /// AF_XDP sockets.
    Xdp,
    /// DPDK ports.
    Dpdk,
    /// RDMA queue pairs.
    Rdma,
    /// The simulated network of tests.
    Sim,
}

impl Technology {
    /// How many there are.
    pub const COUNT: usize = 6;

    /// All of them.
    pub const ALL: [Technology; Technology::COUNT] =
        [Technology::Udp, Technology::Tcp, Technology::Xdp, Technology::Dpdk, Technology::Rdma, Technology::Sim];

    /// The name in configurations, capabilities of links and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Technology::Udp => "udp",
            Technology::Tcp => "tcp",
            Technology::Xdp => "xdp",
            Technology::Dpdk => "dpdk",
            Technology::Rdma => "rdma",
            Technology::Sim => "sim",
        }
    }

    /// The technology of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Technology::ALL.into_iter().find(|technology| technology.name() == name)
    }
}

impl fmt::Display for Technology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for technology in Technology::ALL {
            assert_eq!(Technology::from_name(technology.name()), Some(technology));
        }
        assert_eq!(Technology::from_name("UDP"), None);
    }
}
