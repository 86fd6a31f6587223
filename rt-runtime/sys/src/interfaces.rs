//! Being told that a network interface came, went or changed, and how late it says what it sent.

use crate::error::{Errno, OsError};
use crate::netlink::routing_socket;
use insane_core::Nanos;
use nix::sys::socket::{MsgFlags, recv};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// The group of rtnetlink that tells of interfaces (`RTMGRP_LINK`).
const LINKS: u32 = 1;
/// The only interface of its kind, in each network namespace.
const LOOPBACK: &str = "lo";

/// For how long an interface may hold what it has sent where nobody says: longer than devices do.
pub const LAG_UNKNOWN: Nanos = Nanos::from_millis(1);

/// How long after a frame left the interface may still hold it: devices give back what they sent
/// several at a time (interrupt coalescing). Nothing for the loopback, which lets go of a frame at
/// once. An interface that has no such setting may be on top of one that has (VLAN, bond, bridge,
/// macvlan, a veth into a bridge): what it sent counts until that one gave it back, so it is
/// [`LAG_UNKNOWN`]. In the network namespace of the calling thread.
///
/// # Errors
/// There is no interface of that name, or the kernel does not say.
pub fn completion_lag(name: &str) -> Result<Nanos, OsError> {
    const ATTEMPTED: &str = "asking how an interface gives back what it sent";
    /// `ETHTOOL_GCOALESCE` of linux/ethtool.h.
    const ASK: u32 = 0x0e;
    /// Numbers of `struct ethtool_coalesce`, and the places of two: microseconds and frames.
    const NUMBERS: usize = 23;
    const TX_US: usize = 5;
    const TX_FRAMES: usize = 6;
    /// What interrupts and the work behind them take besides.
    const BESIDES: Nanos = Nanos::from_micros(100);
    let socket = UdpSocket::bind("0.0.0.0:0").map_err(|_| OsError::last(ATTEMPTED))?;
    let mut numbers = [0_u32; NUMBERS];
    numbers[0] = ASK;
    // SAFETY: plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(OsError::new(ATTEMPTED, Errno::ENODEV));
    }
    for (at, byte) in name.bytes().enumerate() {
        request.ifr_name[at] = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = numbers.as_mut_ptr().cast();
    // SAFETY: the kernel reads and writes the request and the numbers behind it, as many as the
    // command has; both are alive.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) } {
        0 => Ok(match (numbers[TX_US], numbers[TX_FRAMES]) {
            (0, 0 | 1) => BESIDES,
            // Frames alone are waited for: nothing says for how long.
            (0, _) => LAG_UNKNOWN,
            (us, _) => Nanos(Nanos::from_micros(u64::from(us)).0 + BESIDES.0),
        }),
        _ if Errno::last() == Errno::EOPNOTSUPP => Ok(if name == LOOPBACK { Nanos::ZERO } else { LAG_UNKNOWN }),
        _ => Err(OsError::last(ATTEMPTED)),
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    /// In a network namespace that ends with its thread.
    #[test]
    fn what_is_on_top_of_others_may_hold_frames_and_the_loopback_does_not() {
        let in_namespace = || {
            let is_apart = unshare(CloneFlags::CLONE_NEWNET).is_ok();
            let add = ["link", "add", "one", "type", "veth", "peer", "name", "two"];
            if !is_apart || !Command::new("ip").args(add).status().is_ok_and(|status| status.success()) {
                eprintln!("passed over: no network namespace, or no veth");
                return;
            }
            assert_eq!(completion_lag("lo").unwrap(), Nanos::ZERO);
            // Its other end may be in a bridge with a device.
            assert_eq!(completion_lag("one").unwrap(), LAG_UNKNOWN);
            assert!(completion_lag("none").is_err());
        };
        std::thread::spawn(in_namespace).join().unwrap();
    }
}
