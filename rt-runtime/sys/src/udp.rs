//! UDP sockets for a thread that never blocks and, after set-up, never allocates.

use crate::SharedBytes;
use crate::bytes::copy_words;
use crate::error::{Errno, OsError, attempted, check};
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// What is asked of a socket. `Default` asks for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SocketOptions {
    /// Room for frames that came and were not taken, bytes; `None`: the system's.
    pub receive_buffer_bytes: Option<u32>,
    /// Room for frames that wait for the device, bytes; `None`: the system's.
    pub send_buffer_bytes: Option<u32>,
    /// Refuse a frame larger than the path's MTU instead of fragmenting it.
    pub dont_fragment: bool,
    /// Differentiated services code point, 0 to 63.
    pub dscp: Option<u8>,
    /// Priority inside the host's queues, 0 to 6.
    pub priority: Option<u8>,
    /// How long the kernel polls the device in a receive call, microseconds.
    pub busy_poll_us: Option<u32>,
    /// Other sockets may be bound to the same address and port if they say so, too: members
    /// of one group on one host, each of which gets what comes.
    pub shared: bool,
}

/// Opens a nonblocking socket at `address`, for that address family only.
///
/// Buffer sizes are asked for beyond the system's limit first (which needs a
/// right) and then within it; the kernel may grant less without an error.
///
/// # Errors
/// The address is in use or not of this host, or an option is refused.
pub fn bind(address: SocketAddr, options: &SocketOptions) -> Result<UdpSocket, OsError> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers.
    let fd = check(unsafe { libc::socket(family, kind, 0) }, "making a UDP socket")?;
    // SAFETY: a descriptor the kernel has just made for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1, "restricting a socket to IPv6")?;
    }
    if options.shared {
        set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1, "sharing the address of a group")?;
    }
    apply(&socket, address, options)?;
    let address = Address::from(address);
    // SAFETY: `address` holds an address of the stated length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len) };
    check(result, "binding a UDP socket")?;
    Ok(UdpSocket::from(socket))
}

/// Undoes `connect`: the socket takes datagrams of everybody again. One that was bound to
/// port 0 may lose its port.
///
/// # Errors
/// The kernel refuses.
pub fn disconnect(socket: &UdpSocket) -> Result<(), OsError> {
    // SAFETY: plain data, for which zeros are a value.
    let mut nobody: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    nobody.ss_family = libc::AF_UNSPEC as libc::sa_family_t;
    let len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `nobody` is an address of the stated length, and lives until the call returns.
    let result = unsafe { libc::connect(socket.as_raw_fd(), (&raw const nobody).cast(), len) };
    check(result, "disconnecting a UDP socket").map(drop)
}

/// Number of the interface that has this address.
///
/// # Errors
/// The kernel does not say, or no interface has it (`EADDRNOTAVAIL`).
pub fn interface_of(address: SocketAddr) -> Result<u32, OsError> {
    const ATTEMPTED: &str = "finding the interface of an address";
    if let SocketAddr::V6(v6) = address
        && v6.scope_id() != 0
    {
        return Ok(v6.scope_id());
    }
    let known = crate::host::interface_addresses()?;
    let Some((name, _)) = known.iter().find(|(_, ip)| *ip == address.ip()) else {
        return Err(OsError::new(ATTEMPTED, Errno::EADDRNOTAVAIL));
    };
    nix::net::if_::if_nametoindex(name.as_str()).map_err(attempted(ATTEMPTED))
}

/// What this socket sends to groups leaves by one interface, passes at most `ttl` - 1
/// routers, and is not handed to sockets of this host as well.
///
/// # Errors
/// The kernel refuses, or there is no such interface.
pub fn send_to_groups_by(socket: &UdpSocket, interface: u32, ttl: u8) -> Result<(), OsError> {
    const BY: &str = "choosing the interface of a group";
    const TTL: &str = "setting the reach of a group";
    const LOOP: &str = "keeping a group's frames from their sender";
    let is_v4 = socket.local_addr().map_or(true, |address| address.is_ipv4());
    if is_v4 {
        let by = libc::ip_mreqn {
            imr_multiaddr: libc::in_addr { s_addr: 0 },
            imr_address: libc::in_addr { s_addr: 0 },
            imr_ifindex: interface.cast_signed(),
        };
        set_value(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &by, BY)?;
        set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_TTL, i32::from(ttl), TTL)?;
        set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_LOOP, 0, LOOP)
    } else {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, interface.cast_signed(), BY)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, i32::from(ttl), TTL)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0, LOOP)
    }
}

/// Makes the socket a member of `group` at one interface. What comes by another interface,
/// or to a group that only another socket of this host has joined, it does not get.
///
/// # Errors
/// `group` is none of the socket's family, there is no such interface, or it takes no more
/// groups.
pub fn join_group(socket: &UdpSocket, group: IpAddr, interface: u32) -> Result<(), OsError> {
    const JOIN: &str = "joining a group";
    const ONLY: &str = "keeping other groups away";
    match group {
        IpAddr::V4(group) => {
            let at = libc::ip_mreqn {
                imr_multiaddr: libc::in_addr { s_addr: group.to_bits().to_be() },
                imr_address: libc::in_addr { s_addr: 0 },
                imr_ifindex: interface.cast_signed(),
            };
            set(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, 0, ONLY)?;
            set_value(socket, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &at, JOIN)
        }
        IpAddr::V6(group) => {
            let at = libc::ipv6_mreq {
                ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() },
                ipv6mr_interface: interface,
            };
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_ALL, 0, ONLY)?;
            set_value(socket, libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP, &at, JOIN)
        }
    }
}

pub(crate) fn apply(socket: &OwnedFd, address: SocketAddr, options: &SocketOptions) -> Result<(), OsError> {
    let v4 = address.is_ipv4();
    if let Some(bytes) = options.receive_buffer_bytes {
        set_buffer(socket, [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF], bytes, "sizing a receive buffer")?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        set_buffer(socket, [libc::SO_SNDBUFFORCE, libc::SO_SNDBUF], bytes, "sizing a send buffer")?;
    }
    if options.dont_fragment {
        let (level, name, value) = if v4 {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO)
        };
        set(socket, level, name, value, "forbidding fragments")?;
    }
    if let Some(dscp) = options.dscp {
        let (level, name) = if v4 { (libc::IPPROTO_IP, libc::IP_TOS) } else { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) };
        set(socket, level, name, i32::from(dscp) << 2, "setting the code point")?;
    }
    // After the code point, which sets a priority of its own.
    if let Some(priority) = options.priority {
        set(socket, libc::SOL_SOCKET, libc::SO_PRIORITY, i32::from(priority), "setting the priority")?;
    }
    if let Some(time) = options.busy_poll_us {
        let time = i32::try_from(time).unwrap_or(i32::MAX);
        set(socket, libc::SOL_SOCKET, libc::SO_BUSY_POLL, time, "setting busy polling")?;
    }
    Ok(())
}

pub(crate) fn set_buffer(
    socket: &OwnedFd,
    names: [i32; 2],
    bytes: u32,
    attempted: &'static str,
) -> Result<(), OsError> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    let [force, ask] = names;
    set(socket, libc::SOL_SOCKET, force, bytes, attempted)
        .or_else(|_| set(socket, libc::SOL_SOCKET, ask, bytes, attempted))
}

pub(crate) fn set(
    socket: impl AsFd,
    level: i32,
    name: i32,
    value: i32,
    attempted: &'static str,
) -> Result<(), OsError> {
    set_value(socket, level, name, &value, attempted)
}

fn set_value<T: Copy>(
    socket: impl AsFd,
    level: i32,
    name: i32,
    value: &T,
    attempted: &'static str,
) -> Result<(), OsError> {
    // SAFETY: the kernel reads the bytes of one value, which lives until the call returns.
    let result = unsafe {
        let value = std::ptr::from_ref(value).cast();
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, name, value, size_of::<T>() as libc::socklen_t)
    };
    check(result, attempted).map(drop)
}

/// An address in the kernel's form, made once for each peer.
#[derive(Clone, Copy)]
pub struct Address {
    pub(crate) storage: libc::sockaddr_storage,
    pub(crate) len: libc::socklen_t,
}

impl Address {
    /// Room for any address.
    pub(crate) const EMPTY: Address = Address {
        // SAFETY: all zero is an address of no family.
        storage: unsafe { MaybeUninit::zeroed().assume_init() },
        len: size_of::<libc::sockaddr_storage>() as libc::socklen_t,
    };

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        (&raw const self.storage).cast()
    }

    /// The address; `None` if it is of another family than IP.
    #[must_use]
    #[inline]
    pub fn get(&self) -> Option<SocketAddr> {
        match libc::c_int::from(self.storage.ss_family) {
            libc::AF_INET => {
                // SAFETY: the family says which form it has; the storage is large and
                // aligned enough for each.
                let v4 = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from_bits(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { &*(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                Some(SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let mut prepared = Address::EMPTY;
        match address {
            SocketAddr::V4(v4) => {
                let form = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: v4.ip().to_bits().to_be() },
                    sin_zero: [0; 8],
                };
                prepared.len = size_of::<libc::sockaddr_in>() as libc::socklen_t;
                // SAFETY: the storage is large and aligned enough for every form.
                unsafe { (&raw mut prepared.storage).cast::<libc::sockaddr_in>().write(form) };
            }
            SocketAddr::V6(v6) => {
                let form = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo().to_be(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
                prepared.len = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
                // SAFETY: as above.
                unsafe { (&raw mut prepared.storage).cast::<libc::sockaddr_in6>().write(form) };
            }
        }
        prepared
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Address({:?})", self.get())
    }
}

/// What became of a datagram.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOutcome {
    /// The kernel has it.
    Sent,
    /// No room now.
    WouldBlock,
    /// Refused.
    Failed(Errno),
}

/// Largest datagram that is put together in this process; see [`send`].
const SMALL_BYTES: usize = 256;
/// What a head mostly has: that of the runtime's frames.
const HEAD_BYTES: usize = 64;

/// Sends `head` and `payload` as one datagram with one call, to `to` (`None`: to
/// whom the socket is connected, which saves the kernel looking for the way).
///
/// Like the other hot calls of this module it does without the C library's function, which
/// is a place where a thread may be cancelled, and pays for that at every call.
///
/// The payload is read once, whoever writes it meanwhile: by the kernel, or, where
/// the datagram is small, by a copy made here. Telling the kernel of two parts costs
/// more than copying 256 bytes.
#[inline(never)]
pub fn send(socket: impl AsFd, to: Option<&Address>, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
    send_here(socket, to, head, payload)
}

/// As [`send`], in line, for who sends a frame by itself most of the time.
#[inline(always)]
pub fn send_here(socket: impl AsFd, to: Option<&Address>, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
    let fd = socket.as_fd().as_raw_fd();
    let (name, name_len) = to.map_or((std::ptr::null(), 0), |to| (to.as_ptr(), to.len));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let len = head.len() + payload.len();
    let sent = if len <= SMALL_BYTES {
        let mut bytes = [MaybeUninit::<u8>::uninit(); SMALL_BYTES];
        let start = bytes.as_mut_ptr().cast::<u8>();
        // SAFETY: `len` is at most SMALL_BYTES, and head and payload make it up: the room
        // holds both, one behind the other, and overlaps neither. Name and bytes are alive
        // during the call, and only read; the first `len` bytes were written.
        unsafe {
            match head.first_chunk::<HEAD_BYTES>() {
                // A copy of constant length. By words, as the head was most likely written a
                // moment ago: a longer read would have to wait until those are in the cache.
                Some(words) if head.len() == HEAD_BYTES => copy_words::<{ HEAD_BYTES / 8 }>(words.as_ptr(), start),
                _ => std::ptr::copy_nonoverlapping(head.as_ptr(), start, head.len()),
            }
            payload.copy_to_ptr(start.add(head.len()));
            libc::syscall(libc::SYS_sendto, fd, start, len, flags, name, name_len) as isize
        }
    } else {
        let mut parts = [
            libc::iovec { iov_base: head.as_ptr().cast_mut().cast(), iov_len: head.len() },
            libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() },
        ];
        // SAFETY: all zero is a message of nothing.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_name = name.cast_mut().cast();
        message.msg_namelen = name_len;
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = if payload.is_empty() { 1 } else { 2 };
        // SAFETY: name and parts are alive, and only read; `payload` is readable
        // (`SharedBytes::new`).
        unsafe { libc::syscall(libc::SYS_sendmsg, fd, &raw const message, flags) as isize }
    };
    if sent >= 0 { SendOutcome::Sent } else { refusal() }
}

/// As [`send`], for a datagram that stands in one piece already.
#[inline]
pub fn send_whole(socket: impl AsFd, to: Option<&Address>, bytes: &[u8]) -> SendOutcome {
    let fd = socket.as_fd().as_raw_fd();
    let (name, name_len) = to.map_or((std::ptr::null(), 0), |to| (to.as_ptr(), to.len));
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: name and bytes are alive during the call, and only read.
    let sent = unsafe { libc::syscall(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, name, name_len) };
    if sent >= 0 { SendOutcome::Sent } else { refusal() }
}

/// How much of what was sent by this socket has not left the host, in bytes of the kernel's own
/// bookkeeping, which are more than those of the frames: zero exactly if all has left, and 0
/// where the kernel does not say. (`SIOCOUTQ`: what the device has sent and not yet given back
/// counts, as does what waits for a neighbour's answer.)
pub fn unfinished(socket: impl AsFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one number, which is alive.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Why the call that just failed did.
#[cold]
pub(crate) fn refusal() -> SendOutcome {
    match Errno::last() {
        Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR => SendOutcome::WouldBlock,
        errno => SendOutcome::Failed(errno),
    }
}

/// [`send`] to an address.
#[inline]
pub fn send_to(socket: impl AsFd, to: &Address, head: &[u8], payload: SharedBytes<'_>) -> SendOutcome {
    send(socket, Some(to), head, payload)
}

/// Takes one datagram into `buffer`: its whole length, which is above that of
/// `buffer` if it was cut, and its sender. `None` when there is none.
///
/// An error left over from an earlier send is passed over once, so that it does
/// not hide a datagram.
#[inline]
pub fn recv_from(socket: impl AsFd, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    let fd = socket.as_fd().as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let mut from = Address::EMPTY;
    for _attempt in 0..2 {
        // SAFETY: the kernel writes at most `buffer`, and at most the storage, whose size
        // stands in `len`.
        let len = unsafe {
            let name = &raw mut from.storage;
            libc::syscall(libc::SYS_recvfrom, fd, buffer.as_mut_ptr(), buffer.len(), flags, name, &raw mut from.len)
        };
        if let Ok(len) = usize::try_from(len) {
            return from.get().map(|from| (len, from));
        }
        if Errno::last_raw() == libc::EAGAIN || Errno::last_raw() == libc::EINTR {
            break;
        }
    }
    None
}

/// As [`recv_from`], without the sender: for a connected socket, where the kernel
/// has checked it, and which saves a tenth of the call.
#[inline(always)]
pub fn recv(socket: impl AsFd, buffer: &mut [u8]) -> Option<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    for _attempt in 0..2 {
        // SAFETY: the kernel writes at most `buffer`.
        let len = unsafe {
            let nobody = std::ptr::null_mut::<u8>();
            libc::syscall(libc::SYS_recvfrom, fd, buffer.as_mut_ptr(), buffer.len(), flags, nobody, nobody)
        };
        if let Ok(len) = usize::try_from(len) {
            return Some(len);
        }
        if Errno::last_raw() == libc::EAGAIN || Errno::last_raw() == libc::EINTR {
            break;
        }
    }
    None
}

/// Largest number of segments that one call of [`send_segments`] takes: more than 64 are
/// refused by kernels before 6.9.
pub const SEGMENTS_MAX: usize = 64;
/// Largest payload of an IPv4 datagram, and of all segments of one call together, bytes.
pub const DATAGRAM_BYTES_MAX: usize = 65_535 - 20 - 8;

/// Control data of one call: room for one number, aligned as a header must be.
type Control = [u64; 4];

/// Sends `bytes` as one datagram for each `segment_bytes` of them (the last may be shorter)
/// with one call; to whom, as [`send`]. The kernel or the device cuts them.
///
/// All go or none. What the path cannot do is `Failed`: a kernel before 4.18, or a device
/// that leaves checksums to the kernel.
pub fn send_segments(socket: impl AsFd, to: Option<&Address>, bytes: &[u8], segment_bytes: u16) -> SendOutcome {
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control: Control = [0; 4];
    // SAFETY: all zero is a message of nothing.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    if let Some(to) = to {
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.len;
    }
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    // SAFETY: `control` is aligned for a header and holds one with a number behind it; name,
    // part and control are alive during the call, and name and bytes only read.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as libc::c_uint) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as libc::c_uint) as _;
        libc::CMSG_DATA(header).cast::<u16>().write_unaligned(segment_bytes);
        libc::sendmsg(socket.as_fd().as_raw_fd(), &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    if sent >= 0 { SendOutcome::Sent } else { refusal() }
}

/// From now on the socket takes datagrams of one sender that the kernel has in one piece
/// as one ([`Datagram::segment_bytes`]). They are then cut unless they are received by a
/// [`Batch`] with room for [`DATAGRAM_BYTES_MAX`].
///
/// # Errors
/// A kernel before 5.0 cannot.
pub fn receive_joined(socket: impl AsFd) -> Result<(), OsError> {
    set(&socket, libc::SOL_UDP, libc::UDP_GRO, 1, "receiving datagrams joined")
}

/// Room for several datagrams that one call takes.
///
/// ```text
///   messages[i] --> parts[i] --> bytes[i * datagram_bytes ..][.. datagram_bytes]
///               --> from[i]
///               --> controls[i]
/// ```
/// All five are boxed slices that are never replaced, so the pointers among them
/// hold while `self` moves.
pub struct Batch {
    bytes: Box<[u8]>,
    datagram_bytes: usize,
    from: Box<[Address]>,
    /// Referred to by `messages` only.
    _parts: Box<[libc::iovec]>,
    /// As above.
    _controls: Box<[Control]>,
    messages: Box<[libc::mmsghdr]>,
    filled: usize,
}

// SAFETY: the pointers lead only into the boxes that the batch itself owns.
unsafe impl Send for Batch {}

/// What is known of one datagram of a [`Batch`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// How many of its bytes are there.
    pub len: usize,
    /// Its sender.
    pub from: SocketAddr,
    /// It was longer than the room for it.
    pub truncated: bool,
    /// Several datagrams that were joined ([`receive_joined`]): each has this many bytes,
    /// but the last, which may have fewer.
    pub segment_bytes: Option<usize>,
}

impl Batch {
    /// Room for `datagrams` of `datagram_bytes` each.
    ///
    /// # Panics
    /// Either is 0.
    #[must_use]
    pub fn new(datagrams: usize, datagram_bytes: usize) -> Self {
        assert!(datagrams > 0 && datagram_bytes > 0, "a batch has room for something");
        let mut bytes = vec![0; datagrams * datagram_bytes].into_boxed_slice();
        let mut from = vec![Address::EMPTY; datagrams].into_boxed_slice();
        let mut controls = vec![[0; 4]; datagrams].into_boxed_slice();
        let part = |room: &mut [u8]| libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
        let mut parts: Box<[libc::iovec]> = bytes.chunks_exact_mut(datagram_bytes).map(part).collect();
        let header = |((part, from), control): ((&mut libc::iovec, &mut Address), &mut Control)| {
            // SAFETY: all zero is a message of nothing.
            let mut message: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message.msg_hdr.msg_name = (&raw mut from.storage).cast();
            message.msg_hdr.msg_control = control.as_mut_ptr().cast();
            message
        };
        let messages = parts.iter_mut().zip(from.iter_mut()).zip(controls.iter_mut()).map(header).collect();
        Batch { bytes, datagram_bytes, from, _parts: parts, _controls: controls, messages, filled: 0 }
    }

    /// How many datagrams fit.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.messages.len()
    }

    /// Takes up to `max` datagrams (and up to the capacity) with one call; returns how
    /// many. What the batch held before is gone.
    ///
    /// An error left over from an earlier send is passed over once.
    pub fn receive(&mut self, socket: impl AsFd, max: usize) -> usize {
        self.filled = 0;
        let max = max.min(self.capacity());
        for message in &mut self.messages[..max] {
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            message.msg_hdr.msg_controllen = size_of::<Control>() as _;
        }
        for _attempt in 0..2 {
            // SAFETY: `messages` holds `max` entries, whose pointers lead into the boxes of
            // `self`, which is borrowed mutably; nobody reads them meanwhile.
            let count = unsafe {
                let fd = socket.as_fd().as_raw_fd();
                let no_timeout = std::ptr::null_mut();
                libc::recvmmsg(fd, self.messages.as_mut_ptr(), max as libc::c_uint, libc::MSG_DONTWAIT, no_timeout)
            };
            if let Ok(count) = usize::try_from(count) {
                self.filled = count;
                break;
            }
            if matches!(Errno::last(), Errno::EAGAIN | Errno::EINTR) {
                break;
            }
        }
        self.filled
    }

    /// Datagram `at` of the last call, in the order in which they came; `None` past the
    /// last, and for one that has no sender.
    #[must_use]
    pub fn datagram(&self, at: usize) -> Option<Datagram> {
        let message = self.messages[..self.filled].get(at)?;
        Some(Datagram {
            len: (message.msg_len as usize).min(self.datagram_bytes),
            from: self.from[at].get()?,
            truncated: message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            segment_bytes: segment_bytes(&message.msg_hdr),
        })
    }

    /// The whole room of datagram `at`; its bytes are at the start.
    ///
    /// # Panics
    /// There is no such room.
    #[must_use]
    pub fn room(&mut self, at: usize) -> &mut [u8] {
        &mut self.bytes[at * self.datagram_bytes..][..self.datagram_bytes]
    }
}

/// What the kernel said about the size of joined datagrams.
fn segment_bytes(message: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel wrote `msg_controllen` bytes of whole headers into the control data
    // of the batch that `message` is of; an entry of this kind holds one int.
    let bytes = unsafe {
        let header = libc::CMSG_FIRSTHDR(message);
        if header.is_null() || (*header).cmsg_level != libc::SOL_UDP || (*header).cmsg_type != libc::UDP_GRO {
            return None;
        }
        libc::CMSG_DATA(header).cast::<libc::c_int>().read_unaligned()
    };
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} of {} datagrams)", self.filled, self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(v6: bool) -> SocketAddr {
        if v6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() }
    }

    fn pair(v6: bool) -> (UdpSocket, UdpSocket) {
        let options = SocketOptions { dont_fragment: true, dscp: Some(46), priority: Some(6), ..Default::default() };
        (bind(here(v6), &options).unwrap(), bind(here(v6), &SocketOptions::default()).unwrap())
    }

    fn send_bytes(socket: &UdpSocket, to: SocketAddr, head: &[u8], payload: &[u8]) -> SendOutcome {
        send_to(socket, &Address::from(to), head, SharedBytes::from(payload))
    }

    #[test]
    fn an_address_survives_its_form() {
        for text in ["127.0.0.1:80", "[::1]:65535", "[fe80::1:2%7]:9", "255.1.2.3:0"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::from(address).get(), Some(address));
        }
        assert_eq!(Address::EMPTY.get(), None);
    }

    #[test]
    fn a_socket_that_is_disconnected_hears_everybody_at_its_port() {
        for v6 in [false, true] {
            let (a, b) = pair(v6);
            let free = bind(here(v6), &SocketOptions::default()).unwrap().local_addr().unwrap();
            let socket = bind(free, &SocketOptions::default()).unwrap();
            for _ in 0..3 {
                socket.connect(a.local_addr().unwrap()).unwrap();
                assert_ne!(send_bytes(&b, free, b"", b"refused"), SendOutcome::WouldBlock);
                disconnect(&socket).unwrap();
                assert_eq!(socket.local_addr().unwrap(), free);
                assert!(socket.peer_addr().is_err());
                // What the kernel said of the refused one is told with the next.
                while send_bytes(&b, free, b"", b"taken") != SendOutcome::Sent {}
                let mut buffer = [0; 16];
                let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
                let len = loop {
                    match socket.recv(&mut buffer) {
                        Ok(len) => break len,
                        Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
                    }
                };
                assert_eq!(&buffer[..len], b"taken");
            }
        }
    }

    #[test]
    fn a_datagram_is_head_and_payload_together() {
        for v6 in [false, true] {
            let (a, b) = pair(v6);
            let to = b.local_addr().unwrap();
            assert_eq!(send_bytes(&a, to, b"head ", b"payload"), SendOutcome::Sent);
            assert_eq!(send_bytes(&a, to, b"head only", b""), SendOutcome::Sent);
            let mut buffer = [0; 6];
            assert_eq!(recv_from(&b, &mut buffer), Some((12, a.local_addr().unwrap())), "cut, and told so");
            assert_eq!(&buffer, b"head p");
            let mut buffer = [0; 60];
            assert_eq!(recv_from(&b, &mut buffer).unwrap().0, 9);
            assert_eq!(&buffer[..9], b"head only");
            assert_eq!(recv_from(&b, &mut buffer), None);
        }
    }

    #[test]
    fn every_split_of_head_and_payload_is_one_datagram() {
        for v6 in [false, true] {
            let (a, b) = pair(v6);
            let to = Address::from(b.local_addr().unwrap());
            a.connect(b.local_addr().unwrap()).unwrap();
            let bytes: Vec<u8> = (0..600u32).map(|at| (at * 7) as u8).collect();
            for len in [1, 2, 100, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, 600] {
                for head in [0, 1, 24, SMALL_BYTES - 1, SMALL_BYTES, SMALL_BYTES + 1, len].map(|head| head.min(len)) {
                    for to in [None, Some(&to)] {
                        let payload = SharedBytes::from(&bytes[head..len]);
                        assert_eq!(send(&a, to, &bytes[..head], payload), SendOutcome::Sent);
                        let mut buffer = [0; 700];
                        assert_eq!(recv_from(&b, &mut buffer).unwrap().0, len);
                        assert_eq!(buffer[..len], bytes[..len]);
                        assert_eq!(send_whole(&a, to, &bytes[..len]), SendOutcome::Sent);
                        let mut buffer = [0; 50];
                        assert_eq!(recv(&b, &mut buffer), Some(len));
                        assert_eq!(buffer[..len.min(50)], bytes[..len.min(50)]);
                        assert_eq!(recv(&b, &mut buffer), None);
                    }
                }
            }
        }
    }

    #[test]
    fn an_error_of_an_earlier_datagram_is_reported_once() {
        let (a, b) = pair(false);
        a.connect(b.local_addr().unwrap()).unwrap();
        let address = b.local_addr().unwrap();
        drop(b);
        let empty = SharedBytes::EMPTY;
        assert_eq!(send(&a, None, b"nobody there", empty), SendOutcome::Sent);
        assert_eq!(send(&a, None, b"told now", empty), SendOutcome::Failed(Errno::ECONNREFUSED));
        assert_eq!(send(&a, None, b"nobody there", empty), SendOutcome::Sent);
        let b = bind(address, &SocketOptions::default()).unwrap();
        assert_eq!(send_bytes(&b, a.local_addr().unwrap(), b"answer", b""), SendOutcome::Sent);
        assert_eq!(recv_from(&a, &mut [0; 10]), Some((6, address)), "the error does not hide the datagram");
    }

    #[test]
    fn a_batch_takes_what_is_there_up_to_its_bound() {
        for v6 in [false, true] {
            let (a, b) = pair(v6);
            let to = b.local_addr().unwrap();
            for number in 0..5u8 {
                assert_eq!(send_bytes(&a, to, &[number], &[number; 20][..number as usize]), SendOutcome::Sent);
            }
            let mut batch = Batch::new(4, 4);
            let mut batch = std::thread::spawn(move || {
                assert_eq!(batch.receive(&b, 3), 3);
                let firsts: Vec<_> = (0..3).map(|at| batch.room(at)[0]).collect();
                assert_eq!(firsts, [0, 1, 2]);
                assert_eq!(batch.datagram(3), None);
                assert_eq!(batch.receive(&b, 100), 2);
                (batch, b)
            })
            .join()
            .unwrap();
            let from = a.local_addr().unwrap();
            let expected = |truncated| Datagram { len: 4, from, truncated, segment_bytes: None };
            assert_eq!((batch.0.datagram(0), &*batch.0.room(0)), (Some(expected(false)), &[3; 4][..]));
            assert_eq!((batch.0.datagram(1), &*batch.0.room(1)), (Some(expected(true)), &[4; 4][..]));
            assert_eq!(batch.0.receive(&batch.1, 4), 0);
            assert_eq!(batch.0.datagram(0), None);
        }
    }

    #[test]
    fn segments_are_datagrams_and_may_be_received_joined() {
        for v6 in [false, true] {
            let (a, b) = pair(v6);
            let to = Address::from(b.local_addr().unwrap());
            let bytes: Vec<u8> = (0..2_500u32).map(|at| (at * 7) as u8).collect();
            assert_eq!(send_segments(&a, Some(&to), &bytes, 1_000), SendOutcome::Sent);
            let mut buffer = [0; 2_000];
            for segment in bytes.chunks(1_000) {
                assert_eq!(recv(&b, &mut buffer), Some(segment.len()));
                assert_eq!(&buffer[..segment.len()], segment);
            }
            receive_joined(&b).unwrap();
            a.connect(b.local_addr().unwrap()).unwrap();
            assert_eq!(send_segments(&a, None, &bytes, 1_000), SendOutcome::Sent);
            assert_eq!(send_bytes(&a, b.local_addr().unwrap(), b"alone", b""), SendOutcome::Sent);
            let mut batch = Batch::new(2, DATAGRAM_BYTES_MAX);
            assert_eq!(batch.receive(&b, 2), 2);
            let from = a.local_addr().unwrap();
            let joined = Datagram { len: 2_500, from, truncated: false, segment_bytes: Some(1_000) };
            assert_eq!((batch.datagram(0), &batch.room(0)[..2_500]), (Some(joined), &bytes[..]));
            let alone = Datagram { len: 5, from, truncated: false, segment_bytes: None };
            assert_eq!((batch.datagram(1), &batch.room(1)[..5]), (Some(alone), &b"alone"[..]));
            // Larger than the path takes: nothing goes.
            assert!(matches!(send_segments(&a, None, &vec![0; 70_000], 1_000), SendOutcome::Failed(_)));
            assert_eq!(batch.receive(&b, 2), 0);
        }
    }

    #[test]
    fn every_member_of_a_group_gets_what_is_sent_to_it() {
        let group: SocketAddr = "239.192.77.1:0".parse().unwrap();
        let by = interface_of(here(false)).unwrap();
        let shared = SocketOptions { shared: true, ..Default::default() };
        let first = bind(group, &shared).unwrap();
        let at = first.local_addr().unwrap();
        let members = [first, bind(at, &shared).unwrap()];
        let (sender, stranger) = pair(false);
        send_to_groups_by(&sender, by, 1).unwrap();
        assert_eq!(send_bytes(&sender, at, b"before ", b"joining"), SendOutcome::Sent);
        for member in &members {
            join_group(member, at.ip(), by).unwrap();
        }
        assert_eq!(send_bytes(&sender, at, b"to all", b""), SendOutcome::Sent);
        for member in &members {
            let mut buffer = [0; 20];
            assert_eq!(recv_from(member, &mut buffer), Some((6, sender.local_addr().unwrap())));
            assert_eq!(recv_from(member, &mut buffer), None);
        }
        assert_eq!(recv_from(&stranger, &mut [0; 20]), None);
        assert_eq!(join_group(&members[0], here(false).ip(), by).unwrap_err().errno, Errno::EINVAL);
        assert_eq!(interface_of("192.0.2.1:1".parse().unwrap()).unwrap_err().errno, Errno::EADDRNOTAVAIL);
    }

    #[test]
    fn refusals_are_told_apart() {
        let (a, b) = pair(false);
        let to = b.local_addr().unwrap();
        let too_large = vec![0; 70_000];
        assert_eq!(send_bytes(&a, to, b"x", &too_large), SendOutcome::Failed(Errno::EMSGSIZE));
        let other_family = (Ipv6Addr::LOCALHOST, 9).into();
        assert!(matches!(send_bytes(&a, other_family, b"x", b""), SendOutcome::Failed(_)));
        assert_eq!(bind(to, &SocketOptions::default()).unwrap_err().errno, Errno::EADDRINUSE);
        let elsewhere = "192.0.2.1:0".parse().unwrap();
        assert_eq!(bind(elsewhere, &SocketOptions::default()).unwrap_err().errno, Errno::EADDRNOTAVAIL);
    }

    #[test]
    fn options_reach_the_socket() {
        let options = SocketOptions {
            receive_buffer_bytes: Some(65_536),
            send_buffer_bytes: Some(32_768),
            busy_poll_us: Some(0),
            ..Default::default()
        };
        let socket = bind(here(true), &options).unwrap();
        // The kernel doubles what is asked, for its own bookkeeping.
        let receive = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::RcvBuf).unwrap();
        let send = nix::sys::socket::getsockopt(&socket, nix::sys::socket::sockopt::SndBuf).unwrap();
        assert_eq!((receive, send), (131_072, 65_536));
        let (marked, _) = pair(false);
        let read = |level, name| {
            let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
            // SAFETY: the kernel writes one int.
            let result =
                unsafe { libc::getsockopt(marked.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) };
            assert_eq!(result, 0);
            value
        };
        assert_eq!(read(libc::IPPROTO_IP, libc::IP_TOS), 46 << 2);
        assert_eq!(read(libc::SOL_SOCKET, libc::SO_PRIORITY), 6);
        assert_eq!(read(libc::IPPROTO_IP, libc::IP_MTU_DISCOVER), libc::IP_PMTUDISC_DO);
        // Only IPv6: the same port is free for IPv4.
        let port = socket.local_addr().unwrap().port();
        assert!(bind((Ipv4Addr::UNSPECIFIED, port).into(), &SocketOptions::default()).is_ok());
    }
}
