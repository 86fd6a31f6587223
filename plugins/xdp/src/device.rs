//! What a link runs on.

use crate::config::Mode;
use crate::program::Program;
use insane_core::Nanos;
use insane_kernel_neighbours::HeldPorts;
use insane_netstack::{Checksums, Mac};
use insane_xdp_sys::Xsk;

/// How it gets there and back.
pub(crate) type Exchange = insane_link::Exchange<Device>;

/// Sockets and program of an interface, as it was when they were opened.
#[derive(Debug)]
pub(crate) struct Device {
    /// Detached when it is dropped, and so before the sockets.
    _program: Program,
    /// Where the address is the kernel's: given back behind the program, so that no frame of the
    /// link finds nobody there.
    _ports: Option<HeldPorts>,
    pub(crate) xsk: Xsk,
    pub(crate) mode: Mode,
    pub(crate) mac: Mac,
    pub(crate) checksums: Checksums,
    /// For how long the interface may hold what it has sent.
    pub(crate) lag: Nanos,
}

impl Device {
    pub(crate) fn new(
        program: Program,
        ports: Option<HeldPorts>,
        xsk: Xsk,
        mode: Mode,
        (mac, checksums, lag): (Mac, Checksums, Nanos),
    ) -> Box<Self> {
        Box::new(Device { _program: program, _ports: ports, xsk, mode, mac, checksums, lag })
    }
}
