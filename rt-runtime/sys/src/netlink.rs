//! What all that is asked and heard by netlink has in common.

use crate::error::{OsError, attempted};
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use std::os::fd::{AsRawFd, OwnedFd};

/// A socket at rtnetlink, of the network namespace in which it is made, that hears what is told to
/// these groups. It never blocks. `asked`: for what, in words.
pub(crate) fn routing_socket(groups: u32, asked: &'static str) -> Result<OwnedFd, OsError> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute);
    let fd = fd.map_err(attempted(asked))?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(attempted(asked))?;
    Ok(fd)
}

/// The first attribute of this kind among these: `length 2 | kind 2 | bytes`, padded to 4, numbers
/// in the order of this machine. The two topmost bits of a kind are flags. No length is believed
/// beyond the bytes that are there.
#[must_use]
pub fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(head) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let content = bytes.get(4..length)?;
        if u16::from_ne_bytes([head[2], head[3]]) & 0x3fff == wanted {
            return Some(content);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
    None
}
