//! The BPF link by which an XDP program sees the frames of an interface (bpf(2), linux/bpf.h).
//!
//! It is the process's by a descriptor: closed, it is detached. Who has the right may detach it
//! by force, or put another program into its place, and the process is told nothing of that: it
//! has to ask.

use insane_sys::{Errno, OsError};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Commands of bpf(2).
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_GET_FD_BY_ID: libc::c_int = 30;
const LINK_GET_NEXT_ID: libc::c_int = 31;
const LINK_DETACH: libc::c_int = 34;
/// `enum bpf_attach_type`, `enum bpf_link_type`: XDP.
const ATTACH_XDP: u32 = 37;
const LINK_XDP: u32 = 6;
/// Links that one search looks at: more than a host has.
const LINKS_MAX: usize = 65_536;

/// `union bpf_attr` of `LINK_CREATE`.
#[repr(C)]
struct Create {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// `union bpf_attr` of `OBJ_GET_INFO_BY_FD`.
#[repr(C)]
struct AskInfo {
    fd: u32,
    info_len: u32,
    info: u64,
}

/// `union bpf_attr` of `LINK_GET_NEXT_ID` and `LINK_GET_FD_BY_ID`.
#[repr(C)]
struct ById {
    id: u32,
    next_id: u32,
    open_flags: u32,
}

/// `struct bpf_link_info` of an XDP link, as far as it is of interest here.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    _gap: u32,
    /// 0: it is detached.
    interface: u32,
    _rest: u32,
}

const _: () = assert!(size_of::<Info>() == 24 && std::mem::offset_of!(Info, interface) == 16);

/// A program at an interface; dropped, it is detached.
#[derive(Debug)]
pub struct Attachment {
    link: OwnedFd,
    /// As it was made.
    made: Info,
}

impl Attachment {
    /// Lets a loaded program see the frames of the interface of this number, in the driver or
    /// behind it.
    ///
    /// # Errors
    /// `EBUSY`, `EEXIST`: another program is there. `EOPNOTSUPP`, `EINVAL`, `ERANGE`: the driver does
    /// not do it. `ENODEV`: no such interface. `EPERM`: no right (CAP_NET_ADMIN, CAP_BPF).
    pub fn make(program: BorrowedFd<'_>, interface: u32, in_driver: bool) -> Result<Self, OsError> {
        // XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
        let flags = if in_driver { 1 << 2 } else { 1 << 1 };
        let mut wanted = Create { program: number(program), interface, attach_type: ATTACH_XDP, flags };
        // SAFETY: the attributes of this command, which hold no address.
        let fd = unsafe { bpf(LINK_CREATE, &mut wanted, "attaching the XDP program")? };
        // SAFETY: a new descriptor that nobody else has.
        let link = unsafe { OwnedFd::from_raw_fd(fd) };
        let made = info(&link)?;
        Ok(Attachment { link, made })
    }

    /// Whether the program is still at its interface: one call. Where the kernel does not say,
    /// it is.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        info(&self.link).map_or(true, |now| now == self.made)
    }
}

/// Detaches the program of this number from its interface, whoever attached it, as `bpftool link
/// detach` does: so that tests see what is done about it.
///
/// # Errors
/// `ENOENT`: it is at no interface by a link. `EPERM`: no right (CAP_SYS_ADMIN).
pub fn detach_by_force(program: u32) -> Result<(), OsError> {
    let mut at = ById { id: 0, next_id: 0, open_flags: 0 };
    for _ in 0..LINKS_MAX {
        // SAFETY: the attributes of this command, which hold no address.
        unsafe { bpf(LINK_GET_NEXT_ID, &mut at, "finding the link of an XDP program")? };
        at = ById { id: at.next_id, next_id: 0, open_flags: 0 };
        // SAFETY: as above.
        let fd = match unsafe { bpf(LINK_GET_FD_BY_ID, &mut at, "opening a link") } {
            // It went meanwhile.
            Err(gone) if gone.errno == Errno::ENOENT => continue,
            other => other?,
        };
        // SAFETY: a new descriptor that nobody else has.
        let link = unsafe { OwnedFd::from_raw_fd(fd) };
        let found = info(&link)?;
        if (found.kind, found.program) == (LINK_XDP, program) {
            let mut link = link.as_raw_fd() as u32;
            // SAFETY: the attributes of this command: one descriptor.
            return unsafe { bpf(LINK_DETACH, &mut link, "detaching an XDP program").map(|_| ()) };
        }
    }
    Err(OsError::new("finding the link of an XDP program", Errno::ENOENT))
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    // A descriptor is not negative.
    fd.as_raw_fd() as u32
}

fn info(link: &OwnedFd) -> Result<Info, OsError> {
    let mut info = Info::default();
    let mut asked =
        AskInfo { fd: link.as_raw_fd() as u32, info_len: size_of::<Info>() as u32, info: (&raw mut info) as u64 };
    // SAFETY: the address is of `info_len` bytes of numbers, alive during the call.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut asked, "asking for the link of an XDP program")? };
    Ok(info)
}

/// # Safety
/// `T` begins as `union bpf_attr` does for this command, and what is behind an address in it is
/// alive and may be written as that command does.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T, attempted: &'static str) -> Result<i32, OsError> {
    let len = size_of::<T>() as libc::c_uint;
    // SAFETY: the kernel reads and writes `len` bytes of a value that lives during the call; the
    // caller answers for what is behind addresses in it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), len) };
    if result < 0 { Err(OsError::last(attempted)) } else { Ok(result as i32) }
}
