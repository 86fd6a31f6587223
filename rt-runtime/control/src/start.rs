//! What can be wrong at the start.

use insane_sys::OsError;
use insane_sys::seqpacket::PathError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a link does not open.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// A udp link.
    #[error(transparent)]
    Udp(#[from] insane_udp::UdpError),
    /// A tcp link.
    #[error(transparent)]
    Tcp(#[from] insane_tcp::TcpError),
    /// An xdp link.
    #[error(transparent)]
    Xdp(#[from] insane_xdp::XdpError),
    /// An rdma link.
    #[error(transparent)]
    Rdma(#[from] insane_rdma::RdmaError),
    /// A dpdk link.
    #[error(transparent)]
    Dpdk(#[from] insane_dpdk::DpdkError),
}

/// The address as `ip address` knows it; of IPv6, with what else may be the matter.
fn without_port(address: &SocketAddr) -> String {
    let SocketAddr::V6(v6) = address else { return address.ip().to_string() };
    let scope = Some(v6.scope_id()).filter(|scope| *scope != 0).map(|scope| format!("%{scope}"));
    let scope = scope.unwrap_or_default();
    format!("{}{scope} (or it is tentative still, or on another interface than its scope names)", v6.ip())
}

/// Why the runtime does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The plan contradicts itself. Plans that come from a file never do.
    #[error("the plan is not usable: {0}")]
    Plan(String),
    /// The memory planner objects.
    #[error("the plan does not fit: {0}")]
    DoesNotFit(String),
    /// A link does not open.
    #[error("datapath \"{datapath}\", link \"{link}\": {source}")]
    Link {
        /// Of which datapath.
        datapath: String,
        /// Which link.
        link: String,
        /// Why.
        source: Box<LinkError>,
    },
    /// A link is to have an address that is none of this host.
    #[error(
        "datapath \"{datapath}\", link \"{link}\": no interface of this host has the address {}; \
         `ip address` shows which there are",
        without_port(address)
    )]
    NoInterface {
        /// Of which datapath.
        datapath: String,
        /// Which link.
        link: String,
        /// The address, with its scope if it has one; its port says nothing.
        address: SocketAddr,
    },
    /// Discovery cannot start.
    #[error(transparent)]
    Discovery(#[from] insane_discovery::StartError),
    /// The socket for applications cannot be had.
    #[error("the socket for applications: {0}")]
    Socket(#[from] PathError),
    /// The directory of the socket is missing, and cannot be made.
    #[error(
        "the socket for applications: its directory {} cannot be made ({source}); \
         only the last level of it is made, the one above it must exist",
        path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mode of the socket cannot be set.
    #[error("cannot set the mode of {}: {source}", path.display())]
    Mode {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Memory of the runtime itself cannot be had.
    #[error("{what}: {source}")]
    Memory {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A system call failed.
    #[error(transparent)]
    Os(#[from] OsError),
    /// No thread.
    #[error("cannot start the thread of {what}: {source}")]
    Thread {
        /// Whose.
        what: String,
        /// Why.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_no_interface_has_is_told_with_its_scope() {
        let told = |address: &str| without_port(&address.parse().unwrap());
        assert_eq!(told("192.0.2.1:0"), "192.0.2.1");
        let why = "(or it is tentative still, or on another interface than its scope names)";
        assert_eq!(told("[fe80::1%3]:0"), format!("fe80::1%3 {why}"));
        assert_eq!(told("[2001:db8::1]:0"), format!("2001:db8::1 {why}"));
    }
}
