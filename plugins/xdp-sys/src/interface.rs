//! What an interface is, asked by its name, in the network namespace of the calling thread.

use insane_sys::{Errno, OsError};
use std::ffi::CString;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Commands of ethtool's ioctl (linux/ethtool.h).
const ETHTOOL_GDRVINFO: u32 = 0x03;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GFLAGS: u32 = 0x25;
const ETHTOOL_SFLAGS: u32 = 0x26;
const ETHTOOL_GCHANNELS: u32 = 0x3c;
const ETHTOOL_SCHANNELS: u32 = 0x3d;
/// The device puts tags of VLANs into frames that are sent, and takes them from those that came.
const FLAG_TXVLAN: u32 = 1 << 7;
const FLAG_RXVLAN: u32 = 1 << 8;
/// `struct ethtool_drvinfo`: the command, then the driver's name in 32 bytes, then what is
/// of no interest here.
const DRIVER_INFO_BYTES: usize = 196;
const DRIVER_AT: usize = 4;
const DRIVER_BYTES: usize = 32;

/// One interface, as it was when it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Largest packet behind the Ethernet header, bytes.
    pub mtu_bytes: u32,
    /// It is up.
    pub is_up: bool,
    /// Its driver's name: `veth`, `igc`, …; empty if it tells none.
    pub driver: String,
    /// Tags of VLANs are taken from frames before an XDP program sees them, as the device says. (A
    /// veth pair says so always, and passes on what it gets.)
    pub strips_tags: bool,
    /// Queues that receive, in use; `None`: its driver does not say.
    pub receive_queues: Option<u32>,
}

impl Interface {
    /// Asks the interface of this name.
    ///
    /// # Errors
    /// `ENODEV`: there is none. `EAFNOSUPPORT`: it is not Ethernet.
    pub fn find(name: &str) -> Result<Self, OsError> {
        let gone = OsError::new("finding the interface", Errno::ENODEV);
        let text = CString::new(name).map_err(|_| gone)?;
        // SAFETY: the text ends with a zero.
        let index = unsafe { libc::if_nametoindex(text.as_ptr()) };
        if index == 0 {
            return Err(gone);
        }
        let mut asked = Request::new(name)?;
        asked.call(libc::SIOCGIFHWADDR, "asking for the hardware address")?;
        // SAFETY: the kernel filled in this member.
        let hardware = unsafe { asked.request.ifr_ifru.ifru_hwaddr };
        if hardware.sa_family != libc::ARPHRD_ETHER {
            return Err(OsError::new("taking the interface for Ethernet", Errno::EAFNOSUPPORT));
        }
        let mut mac = [0; 6];
        for (byte, given) in mac.iter_mut().zip(hardware.sa_data) {
            *byte = given as u8;
        }
        asked.call(libc::SIOCGIFMTU, "asking for the MTU")?;
        // SAFETY: the kernel filled in this member.
        let mtu_bytes = u32::try_from(unsafe { asked.request.ifr_ifru.ifru_mtu }).unwrap_or(0);
        asked.call(libc::SIOCGIFFLAGS, "asking for the flags")?;
        // SAFETY: the kernel filled in this member.
        let is_up = i32::from(unsafe { asked.request.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0;
        let driver = driver(&mut asked).unwrap_or_default();
        let flags = asked.ethtool([ETHTOOL_GFLAGS, 0], "asking for the flags of the device");
        let strips_tags = flags.is_ok_and(|[_, flags]| strips_tags(flags, &driver));
        let receive_queues = asked.channels().ok().map(|channels| channels.receive.saturating_add(channels.combined));
        Ok(Interface { index, mac, mtu_bytes, is_up, driver, strips_tags, receive_queues })
    }
}

fn strips_tags(flags: u32, driver: &str) -> bool {
    flags & FLAG_RXVLAN != 0 && driver != "veth"
}

/// Lets the kernel finish checksums itself, cut what one call sends, and put tags of VLANs into
/// frames, before they reach the interface: `ethtool -K NAME tx off txvlan off`. A virtual
/// interface leaves all of it to a device that is not there. A link at its other end would get
/// frames that it can do nothing with, and those of all VLANs as if they had none.
///
/// # Errors
/// The interface does not exist or refuses, or the right is missing.
pub fn finish_frames(name: &str) -> Result<(), OsError> {
    let mut asked = Request::new(name)?;
    asked.ethtool([ETHTOOL_STXCSUM, 0], "turning off offloading")?;
    let [_, flags] = asked.ethtool([ETHTOOL_GFLAGS, 0], "asking for the flags")?;
    asked.ethtool([ETHTOOL_SFLAGS, flags & !FLAG_TXVLAN], "turning off tags by the device").map(|_| ())
}

/// Lets an interface have so many queues that receive, and that send, as `ethtool -L NAME rx N tx N`
/// does: so that tests see what is done about it.
///
/// # Errors
/// The interface does not exist or refuses, as it does where a socket has a queue that would go,
/// or the right is missing.
pub fn set_queues(name: &str, receive: u32, send: u32) -> Result<(), OsError> {
    let mut asked = Request::new(name)?;
    let wanted = Channels { receive, send, ..asked.channels()? };
    asked.ethtool(wanted.words(ETHTOOL_SCHANNELS), "setting the number of queues").map(|_| ())
}

fn driver(asked: &mut Request) -> Result<String, OsError> {
    let mut info = [0u32; DRIVER_INFO_BYTES / 4];
    info[0] = ETHTOOL_GDRVINFO;
    asked.request.ifr_ifru.ifru_data = info.as_mut_ptr().cast();
    asked.call(libc::SIOCETHTOOL, "asking for the driver")?;
    let bytes: Vec<u8> = info.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = bytes[DRIVER_AT..DRIVER_AT + DRIVER_BYTES].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// `struct ethtool_channels`: the command, bounds of the four kinds, then how many there are.
struct Channels {
    bounds: [u32; 4],
    receive: u32,
    send: u32,
    other: u32,
    combined: u32,
}

impl Channels {
    const fn words(&self, command: u32) -> [u32; 9] {
        let [a, b, c, d] = self.bounds;
        [command, a, b, c, d, self.receive, self.send, self.other, self.combined]
    }
}

/// An ioctl about one interface.
struct Request {
    /// Any socket will do.
    socket: UdpSocket,
    request: libc::ifreq,
}

impl Request {
    fn new(name: &str) -> Result<Self, OsError> {
        let no_socket = |error: std::io::Error| {
            OsError::new("opening a socket", Errno::from_raw(error.raw_os_error().unwrap_or(0)))
        };
        let socket = UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| UdpSocket::bind(("::1", 0)));
        let socket = socket.or_else(|_| UdpSocket::bind(("0.0.0.0", 0))).map_err(no_socket)?;
        // SAFETY: a structure of numbers and arrays of numbers, for which zero is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero.
        if name.len() >= request.ifr_name.len() {
            return Err(OsError::new("finding the interface", Errno::ENODEV));
        }
        for (byte, given) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *byte = given as libc::c_char;
        }
        Ok(Request { socket, request })
    }

    /// Its queues. Not every driver says.
    fn channels(&mut self) -> Result<Channels, OsError> {
        let asked = self.ethtool([ETHTOOL_GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0], "asking for the queues")?;
        let [_, a, b, c, d, receive, send, other, combined] = asked;
        Ok(Channels { bounds: [a, b, c, d], receive, send, other, combined })
    }

    /// A command with its numbers (one: `struct ethtool_value`), and what the kernel makes of them.
    fn ethtool<const WORDS: usize>(
        &mut self,
        mut value: [u32; WORDS],
        attempted: &'static str,
    ) -> Result<[u32; WORDS], OsError> {
        self.request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        self.call(libc::SIOCETHTOOL, attempted)?;
        Ok(value)
    }

    fn call(&mut self, what: libc::Ioctl, attempted: &'static str) -> Result<(), OsError> {
        // SAFETY: all requests of this module take an `ifreq`; where it holds an address,
        // that is of memory of the size that the command says, alive during the call.
        let result = unsafe { libc::ioctl(self.socket.as_raw_fd(), what, &raw mut self.request) };
        if result < 0 { Err(OsError::last(attempted)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_ethernet_interface_is_told() {
        for name in ["nosuch0", "", "a-name-that-is-too-long", "zero\0"] {
            assert_eq!(Interface::find(name).unwrap_err().errno, Errno::ENODEV, "{name:?}");
        }
        assert_eq!(Interface::find("lo").unwrap_err().errno, Errno::EAFNOSUPPORT);
    }

    #[test]
    fn a_device_that_takes_tags_is_known_and_a_veth_pair_takes_none() {
        let flags = FLAG_RXVLAN | FLAG_TXVLAN;
        assert!(strips_tags(flags, "igc") && strips_tags(FLAG_RXVLAN, ""));
        assert!(!strips_tags(FLAG_TXVLAN, "igc") && !strips_tags(flags, "veth"));
    }
}
