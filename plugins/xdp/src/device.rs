//! What a link runs on.

use crate::config::Mode;
use crate::program::Program;
use insane_netstack::{Checksums, Mac};
use insane_xdp_sys::Xsk;

/// How it gets there and back.
pub(crate) type Exchange = insane_link::Exchange<Device>;

/// Sockets and program of an interface, as it was when they were opened.
#[derive(Debug)]
pub(crate) struct Device {
    /// Detached when it is dropped, and so before the sockets.
    _program: Program,
    pub(crate) xsk: Xsk,
    pub(crate) mode: Mode,
    pub(crate) mac: Mac,
    pub(crate) checksums: Checksums,
}

impl Device {
    pub(crate) fn new(program: Program, xsk: Xsk, mode: Mode, mac: Mac, checksums: Checksums) -> Box<Self> {
        Box::new(Device { _program: program, xsk, mode, mac, checksums })
    }
}
