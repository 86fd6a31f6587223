//! The XDP program: loading it for one link, and attaching it.

use crate::config::{Neighbours, XdpConfig};
use aya::maps::{MapError, XskMap};
use aya::programs::{ProgramError, Xdp};
use aya::sys::SyscallError;
use aya::{Ebpf, EbpfError, EbpfLoader};
use insane_netstack::VlanId;
use insane_sys::{Errno, OsError};
use insane_xdp_sys::SIDES;
use insane_xdp_sys::attachment::Attachment;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};

/// What clang made of `bpf/redirect.c`; the check makes it again where there is a clang, and
/// compares.
static BYTECODE: &[u8] = aya::include_bytes_aligned!("../bpf/redirect.o");

/// Why the program cannot be had.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NoProgram {
    /// What the kernel said, if it was the kernel.
    pub(crate) errno: Option<Errno>,
    /// In words.
    pub(crate) reason: String,
}

/// A loaded program; dropped, it is detached.
pub(crate) struct Program {
    /// Shared so that the keeper may ask for it while the link has it; nobody else keeps it.
    attachment: Option<Arc<Attachment>>,
    /// Whose sockets come first in the map.
    first_queue: u32,
    /// Owns the maps and the program.
    loaded: Ebpf,
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Program").finish_non_exhaustive()
    }
}

impl Program {
    /// Loads it for the address and ports that the configuration has, and frames of these queues and
    /// its VLAN.
    pub(crate) fn load(config: &XdpConfig, queues: &Range<u32>) -> Result<Self, NoProgram> {
        let mut address = [0; 16];
        let mut is_ipv6 = 0u8;
        match config.bind {
            SocketAddr::V4(v4) => address[..4].copy_from_slice(&v4.ip().octets()),
            SocketAddr::V6(v6) => {
                address = v6.ip().octets();
                is_ipv6 = 1;
            }
        }
        let is_borrowed = u8::from(config.neighbours == Neighbours::Borrowed);
        let port = config.bind.port();
        let count = queues.end - queues.start;
        let vlan = config.vlan.map_or(0, VlanId::get);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("ADDRESS", &address, true)
            .override_global("IS_IPV6", &is_ipv6, true)
            .override_global("BORROWED", &is_borrowed, true)
            .override_global("PORT", &port, true)
            .override_global("QUEUE", &queues.start, true)
            .override_global("QUEUES", &count, true)
            .override_global("VLAN", &vlan, true);
        let mut loaded = loader.load(BYTECODE).map_err(|error| of_map(&error))?;
        xdp(&mut loaded)?.load().map_err(|error| of_program(&error))?;
        Ok(Program { attachment: None, first_queue: queues.start, loaded })
    }

    /// Which socket each class of a queue's frames goes to.
    pub(crate) fn point_to<'a>(
        &mut self,
        sockets: impl Iterator<Item = (u32, [BorrowedFd<'a>; SIDES])>,
    ) -> Result<(), NoProgram> {
        let missing = || NoProgram { errno: None, reason: "the program has no map of sockets".to_owned() };
        let map = self.loaded.map_mut("SOCKETS").ok_or_else(missing)?;
        let mut map = XskMap::try_from(map).map_err(|error| of_map(&error.into()))?;
        for (queue, sides) in sockets {
            let begin = (queue - self.first_queue) * SIDES as u32;
            for (place, socket) in (begin..).zip(sides) {
                map.set(place, socket, 0).map_err(|error| of_map(&error.into()))?;
            }
        }
        Ok(())
    }

    /// Lets it see the frames of the interface of this number, in the driver or behind it.
    pub(crate) fn attach(&mut self, interface: u32, in_driver: bool) -> Result<(), NoProgram> {
        let fd = xdp(&mut self.loaded)?.fd().map_err(|error| of_program(&error))?;
        let attached = Attachment::make(fd.as_fd(), interface, in_driver);
        let of_kernel = |error: OsError| NoProgram { errno: Some(error.errno), reason: error.to_string() };
        self.attachment = Some(Arc::new(attached.map_err(of_kernel)?));
        Ok(())
    }

    /// By which to ask whether it is still attached; nothing once it was dropped.
    pub(crate) fn attachment(&self) -> Weak<Attachment> {
        self.attachment.as_ref().map(Arc::downgrade).unwrap_or_default()
    }
}

fn xdp(loaded: &mut Ebpf) -> Result<&mut Xdp, NoProgram> {
    let missing = || NoProgram { errno: None, reason: "the bytecode has no program".to_owned() };
    loaded.program_mut("redirect").ok_or_else(missing)?.try_into().map_err(|error| of_program(&error))
}

fn of_program(error: &ProgramError) -> NoProgram {
    NoProgram { errno: errno(error), reason: in_words(error) }
}

fn of_map(error: &EbpfError) -> NoProgram {
    let inner: &dyn std::error::Error = match error {
        EbpfError::MapError(map @ MapError::SyscallError(_)) => map,
        other => other,
    };
    NoProgram { errno: errno(inner), reason: in_words(error) }
}

/// The kernel's number, wherever in the chain of reasons it is.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    let mut at = Some(error);
    while let Some(error) = at {
        let io = error.downcast_ref::<std::io::Error>();
        let io = io.or_else(|| error.downcast_ref::<SyscallError>().map(|call| &call.io_error));
        if let Some(number) = io.and_then(std::io::Error::raw_os_error) {
            return Some(Errno::from_raw(number));
        }
        at = error.source();
    }
    None
}

/// With all its reasons.
fn in_words(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut at = error.source();
    while let Some(error) = at {
        let more = error.to_string();
        if !words.contains(&more) {
            words = format!("{words}: {more}");
        }
        at = error.source();
    }
    words
}
