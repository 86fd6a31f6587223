//! Who is at the other end of a socket, as the kernel says.

use crate::spec::Credentials;
use insane_core::Nanos;
use insane_sys::event::{Epoll, Interest, Ready, Trigger};
use insane_sys::{OsError, seqpacket};
use std::os::fd::{AsFd, OwnedFd};

/// The credentials of the other end, and a descriptor of its process where there is one.
pub(crate) fn of_socket(socket: impl AsFd) -> Result<(Credentials, Option<OwnedFd>), OsError> {
    let peer = seqpacket::peer_credentials(&socket)?;
    let process = seqpacket::peer_pidfd(&socket);
    let groups = process.as_ref().map(|process| groups(peer.pid, process)).unwrap_or_default();
    let pid = u32::try_from(peer.pid).unwrap_or(0);
    Ok((Credentials { pid, uid: peer.uid, gid: peer.gid, groups }, process))
}

/// The further groups of a process: none if it is gone by the time they are read, since
/// its number may then be another's.
fn groups(pid: i32, process: &OwnedFd) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    if is_gone(process) { Vec::new() } else { parse_groups(&status) }
}

/// Whether the process that the descriptor is of has ended.
pub(crate) fn is_gone(process: &OwnedFd) -> bool {
    let look = || -> Result<usize, OsError> {
        let epoll = Epoll::new()?;
        epoll.add(process, 0, Interest::Read, Trigger::Level)?;
        epoll.wait(&mut [Ready::NONE], Some(Nanos::ZERO))
    };
    look() != Ok(0)
}

fn parse_groups(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_who_we_are() {
        let (near, far) = seqpacket::pair().unwrap();
        let (who, process) = of_socket(&near).unwrap();
        assert_eq!(who.pid, std::process::id());
        assert!(!is_gone(&process.expect("the process lives")));
        drop(far);
        assert_eq!(parse_groups("Name:\tx\nGroups:\t4 20 \nVmPeak: 1"), [4, 20]);
        assert_eq!(parse_groups("Groups:\t\n"), Vec::<u32>::new());
        assert_eq!(parse_groups(""), Vec::<u32>::new());
    }
}
