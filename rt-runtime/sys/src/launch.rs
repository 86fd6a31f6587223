//! Datagrams with a launch time (`SO_TXTIME`), and what is needed to tell whether the kernel
//! honours it: that a socket takes the option proves nothing.
//!
//! A sender has a socket of its own, and yet must bear the address and port of another
//! socket of this process, by which peers know it. So it is *parked*: bound to that port at an
//! address that no packet comes for, with a filter that lets nothing in, and each datagram
//! bears the true source address (`IP_PKTINFO`).

use crate::SharedBytes;
use crate::error::{Errno, OsError, check};
use crate::udp::{Address, SendOutcome, SocketOptions, apply, refusal, set};
use insane_core::TaiTime;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Where IPv4 senders are parked: an address for documentation (RFC 5737), which no host has.
const PARKED_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);
/// Where IPv6 senders are parked: an address for documentation (RFC 3849).
const PARKED_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xfe);
/// `IPV6_FREEBIND` of `linux/in6.h`, which the libc crate does not have.
const IPV6_FREEBIND: libc::c_int = 78;

/// The source address that each datagram of a sender bears.
#[derive(Clone, Copy, Debug)]
pub struct Source(IpAddr);

/// Control data of one datagram: a launch time (24 bytes) and a source address (up to 40).
type Control = [u64; 8];

/// Opens a sender for the port of `source` that leaves by the interface `device`, with launch
/// times on `CLOCK_TAI`; drops are told in its error queue.
///
/// # Errors
/// The kernel refuses an option: before 4.19 it has no launch times.
pub fn bind(source: SocketAddr, device: &str, options: &SocketOptions) -> Result<(UdpSocket, Source), OsError> {
    let v4 = source.is_ipv4();
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers.
    let fd = unsafe { libc::socket(if v4 { libc::AF_INET } else { libc::AF_INET6 }, kind, 0) };
    let fd = check(fd, "making a UDP socket for launch times")?;
    // SAFETY: a descriptor the kernel has just made for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    drop_all_that_comes(&socket)?;
    let (level, name, parked) = match v4 {
        true => (libc::IPPROTO_IP, libc::IP_FREEBIND, IpAddr::V4(PARKED_V4)),
        false => (libc::IPPROTO_IPV6, IPV6_FREEBIND, IpAddr::V6(PARKED_V6)),
    };
    set(&socket, level, name, 1, "binding to an address that no host has")?;
    // Links of this host may have one port at different addresses.
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1, "sharing a port")?;
    apply(&socket, source, options)?;
    bind_to_device(&socket, device)?;
    let txtime = libc::sock_txtime { clockid: libc::CLOCK_TAI, flags: libc::SOF_TXTIME_REPORT_ERRORS };
    // SAFETY: the kernel reads a `sock_txtime` of the stated length.
    let result = unsafe {
        let len = size_of::<libc::sock_txtime>() as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_TXTIME, (&raw const txtime).cast(), len)
    };
    check(result, "asking for launch times")?;
    let at = Address::from(SocketAddr::new(parked, source.port()));
    // SAFETY: `at` holds an address of the stated length.
    let result = unsafe { libc::bind(fd, at.as_ptr(), at.len) };
    check(result, "binding a UDP socket for launch times")?;
    Ok((UdpSocket::from(socket), Source(source.ip())))
}

/// A filter of one instruction: take zero bytes.
fn drop_all_that_comes(socket: &OwnedFd) -> Result<(), OsError> {
    let mut code = [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    // SAFETY: the kernel copies a program of one instruction, which lives until the call returns.
    let result = unsafe {
        let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
        let program = (&raw const program).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program, len)
    };
    check(result, "closing a socket to what comes").map(drop)
}

fn bind_to_device(socket: &OwnedFd, device: &str) -> Result<(), OsError> {
    // SAFETY: the kernel reads a name of the stated length.
    let result = unsafe {
        let len = device.len() as libc::socklen_t;
        let name = device.as_ptr().cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name, len)
    };
    check(result, "binding a socket to an interface").map(drop)
}

/// Sends `head` and `payload` as one datagram to `to` that the interface's queue lets go at
/// `launch`. Where the queue drops it, [`drops`] tells.
pub fn send(
    socket: impl AsFd,
    to: &Address,
    source: Source,
    head: &[u8],
    payload: SharedBytes<'_>,
    launch: TaiTime,
) -> SendOutcome {
    let mut parts = [
        libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() },
        libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() },
    ];
    let mut control: Control = [0; 8];
    // SAFETY: all zero is a message of nothing.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_name = to.as_ptr().cast_mut().cast();
    message.msg_namelen = to.len;
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = if payload.is_empty() { 1 } else { 2 };
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: `control` is aligned for headers and holds one with a number (24 bytes) and one
    // with the larger of both forms of a source (40 bytes); each is written where the C
    // library's macros say. Name, parts and control are alive during the call; name and bytes
    // are only read, and `payload` is readable (`SharedBytes::new`).
    let sent = unsafe {
        let space = |len: usize| libc::CMSG_SPACE(len as libc::c_uint) as usize;
        let source_len = match source.0 {
            IpAddr::V4(_) => size_of::<libc::in_pktinfo>(),
            IpAddr::V6(_) => size_of::<libc::in6_pktinfo>(),
        };
        message.msg_controllen = (space(size_of::<u64>()) + space(source_len)) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_TXTIME;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<u64>() as libc::c_uint) as _;
        libc::CMSG_DATA(header).cast::<u64>().write_unaligned(launch.0);
        // Not CMSG_NXTHDR: it looks at the length of the next, which is not written yet.
        let header = control.as_mut_ptr().cast::<u8>().add(space(size_of::<u64>())).cast::<libc::cmsghdr>();
        (*header).cmsg_len = libc::CMSG_LEN(source_len as libc::c_uint) as _;
        match source.0 {
            IpAddr::V4(ip) => {
                (*header).cmsg_level = libc::IPPROTO_IP;
                (*header).cmsg_type = libc::IP_PKTINFO;
                let mut info: libc::in_pktinfo = MaybeUninit::zeroed().assume_init();
                info.ipi_spec_dst.s_addr = ip.to_bits().to_be();
                libc::CMSG_DATA(header).cast::<libc::in_pktinfo>().write_unaligned(info);
            }
            IpAddr::V6(ip) => {
                (*header).cmsg_level = libc::IPPROTO_IPV6;
                (*header).cmsg_type = libc::IPV6_PKTINFO;
                let mut info: libc::in6_pktinfo = MaybeUninit::zeroed().assume_init();
                info.ipi6_addr.s6_addr = ip.octets();
                libc::CMSG_DATA(header).cast::<libc::in6_pktinfo>().write_unaligned(info);
            }
        }
        libc::sendmsg(socket.as_fd().as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent >= 0 { SendOutcome::Sent } else { refusal() }
}

/// Datagrams that a queue dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Drops {
    /// The launch instant had passed when the queue could have let it go.
    pub missed: u64,
    /// The queue did not take it: its instant had passed already, or it has another clock.
    pub refused: u64,
}

/// Takes at most `budget` entries from the error queue of a sender and adds what they tell
/// to `drops`.
pub fn drops(socket: impl AsFd, budget: u32, drops: &mut Drops) {
    // Values of linux/errqueue.h.
    const ORIGIN_TXTIME: u8 = 6;
    const CODE_REFUSED: u8 = 1;
    for _ in 0..budget {
        let mut control: [u64; 32] = [0; 32];
        // SAFETY: all zero is a message of nothing.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the kernel writes at most `control`, whose size it is told.
        if unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &mut message, flags) } < 0 {
            return;
        }
        // SAFETY: the kernel filled `control`; the walk follows its headers within the length
        // that it stated, and the data of an error is a `sock_extended_err`.
        let error = unsafe {
            let mut header = libc::CMSG_FIRSTHDR(&message);
            let mut error = None;
            while !header.is_null() {
                let kind = ((*header).cmsg_level, (*header).cmsg_type);
                if kind == (libc::IPPROTO_IP, libc::IP_RECVERR) || kind == (libc::IPPROTO_IPV6, libc::IPV6_RECVERR) {
                    error = Some(libc::CMSG_DATA(header).cast::<libc::sock_extended_err>().read_unaligned());
                }
                header = libc::CMSG_NXTHDR(&message, header);
            }
            error
        };
        match error {
            Some(error) if error.ee_origin == ORIGIN_TXTIME && error.ee_code == CODE_REFUSED => drops.refused += 1,
            Some(error) if error.ee_origin == ORIGIN_TXTIME => drops.missed += 1,
            // An answer from the network; sends tell of those.
            _ => {}
        }
    }
}

/// Most messages of one answer about queues; a message holds several queues.
const ANSWERS_MAX: u32 = 1024;

/// What the kernel says of its queues (`RTM_GETQDISC`): calls `visit` with each message, header
/// included. For set-up: it waits up to a second for each answer.
///
/// # Errors
/// No such socket, or no answer.
pub fn queues(mut visit: impl FnMut(&[u8])) -> Result<(), OsError> {
    const ATTEMPTED: &str = "asking for the queues of an interface";
    const HEADER: usize = 16;
    const RTM_GETQDISC: u16 = 38;
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes numbers.
    let fd = check(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) }, ATTEMPTED)?;
    // SAFETY: a descriptor the kernel has just made for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let patience = libc::timeval { tv_sec: 1, tv_usec: 0 };
    // SAFETY: the kernel reads a `timeval` of the stated length.
    let result = unsafe {
        let len = size_of::<libc::timeval>() as libc::socklen_t;
        libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const patience).cast(), len)
    };
    check(result, ATTEMPTED)?;
    // nlmsghdr (length, kind, flags, sequence, port), tcmsg (family and padding, interface,
    // handle, parent, info): all zero but for the first three.
    let mut request = [0_u8; HEADER + 20];
    request[..4].copy_from_slice(&(HEADER as u32 + 20).to_ne_bytes());
    request[4..6].copy_from_slice(&RTM_GETQDISC.to_ne_bytes());
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    request[6..8].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the kernel reads the request.
    let sent = unsafe { libc::send(fd, request.as_ptr().cast(), request.len(), 0) };
    check(sent as i32, ATTEMPTED)?;
    let mut answer = vec![0_u8; 64 << 10];
    for _ in 0..ANSWERS_MAX {
        // SAFETY: the kernel writes at most `answer`.
        let len = unsafe { libc::recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) };
        let len = check(len as i32, ATTEMPTED)? as usize;
        let mut rest = &answer[..len];
        while let Some(header) = rest.first_chunk::<HEADER>() {
            let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let kind = i32::from(u16::from_ne_bytes([header[4], header[5]]));
            if length < HEADER || length > rest.len() || kind == libc::NLMSG_ERROR {
                return Err(OsError::new(ATTEMPTED, Errno::EIO));
            }
            if kind == libc::NLMSG_DONE {
                return Ok(());
            }
            visit(&rest[..length]);
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_shares_the_port_and_hears_nothing() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let own = crate::udp::bind("127.0.0.1:0".parse().unwrap(), &SocketOptions::default()).unwrap();
        let at = own.local_addr().unwrap();
        let (sender, source) = bind(at, "lo", &SocketOptions::default()).unwrap();
        let to = Address::from(receiver.local_addr().unwrap());
        // The loopback has no queue: the frame goes at once, whatever its instant.
        let launch = TaiTime(crate::clock::tai_now().0 + 1_000_000);
        assert_eq!(send(&sender, &to, source, b"head", SharedBytes::from(&b"load"[..]), launch), SendOutcome::Sent);
        let mut bytes = [0; 16];
        let (len, from) = receiver.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..len], from), (&b"headload"[..], at), "it bears the address of the other socket");
        // An answer goes to the socket whose address it is.
        receiver.send_to(b"answer", at).unwrap();
        own.set_nonblocking(false).unwrap();
        own.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        assert_eq!(own.recv(&mut bytes).unwrap(), 6);
        assert_eq!(crate::udp::recv(&sender, &mut bytes), None);
        let mut told = Drops::default();
        drops(&sender, 16, &mut told);
        assert_eq!(told, Drops::default());
    }

    #[test]
    fn a_sender_over_ipv6_bears_its_source() {
        let Ok(receiver) = UdpSocket::bind("[::1]:0") else {
            eprintln!("passed over: no IPv6 here");
            return;
        };
        receiver.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        let own = crate::udp::bind("[::1]:0".parse().unwrap(), &SocketOptions::default()).unwrap();
        let at = own.local_addr().unwrap();
        let (sender, source) = bind(at, "lo", &SocketOptions::default()).unwrap();
        let to = Address::from(receiver.local_addr().unwrap());
        let launch = crate::clock::tai_now();
        assert_eq!(send(&sender, &to, source, b"frame", SharedBytes::EMPTY, launch), SendOutcome::Sent);
        let mut bytes = [0; 16];
        assert_eq!(receiver.recv_from(&mut bytes).unwrap(), (5, at));
    }

    #[test]
    fn queues_are_told_whole() {
        let mut count = 0;
        queues(|message| {
            assert!(message.len() >= 36, "header and tcmsg");
            count += 1;
        })
        .unwrap();
        let interfaces = std::fs::read_dir("/sys/class/net").unwrap().count();
        assert!(count >= 1 || interfaces <= 1, "{interfaces} interfaces, {count} queues");
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let refused = bind("127.0.0.1:9".parse().unwrap(), "nowhere0", &SocketOptions::default());
        assert_eq!(refused.unwrap_err().errno, Errno::ENODEV);
    }
}
