//! Being told that a network interface came, went or changed.

use crate::error::{Errno, OsError};
use crate::netlink::routing_socket;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The group of rtnetlink that tells of interfaces (`RTMGRP_LINK`).
const LINKS: u32 = 1;

/// Readable when an interface of the network namespace in which it was made came, went or
/// changed. What happened is not told: whoever wants to know looks.
#[derive(Debug)]
pub struct InterfaceEvents(OwnedFd);

impl InterfaceEvents {
    /// From now on.
    ///
    /// # Errors
    /// No descriptor is left, or the kernel has no rtnetlink.
    pub fn new() -> Result<Self, OsError> {
        routing_socket(LINKS, "listening for changes of interfaces").map(InterfaceEvents)
    }

    /// Makes it unreadable until the next change. Returns whether there was one.
    pub fn clear(&self) -> bool {
        let mut scratch = [0; 4096];
        let mut was = false;
        // What comes without end meanwhile is left for the next call.
        for _ in 0..1024 {
            match recv(self.0.as_raw_fd(), &mut scratch, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                Ok(_) => was = true,
                // Some were lost, which says as much as one that came.
                Err(Errno::ENOBUFS) => was = true,
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        was
    }
}

impl AsFd for InterfaceEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
