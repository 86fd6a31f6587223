//! TCP sockets for a thread that never blocks and, after set-up, never allocates.
//!
//! Every socket sends at once (`TCP_NODELAY`). `TCP_QUICKACK` is left alone: where an
//! answer follows, the acknowledgement travels with it, and a sender whose segments
//! are not held back does not wait for one.

use crate::SharedBytes;
use crate::error::{Errno, OsError, check};
use crate::udp::{Address, set, set_buffer};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Seconds without traffic after which the kernel asks whether the other side is still
/// there, and between two such questions.
const KEEPALIVE_S: i32 = 1;

/// What is asked of a socket. `Default` asks for nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StreamOptions {
    /// Room for bytes that came and were not taken, bytes; `None`: the system's.
    pub receive_buffer_bytes: Option<u32>,
    /// Room for bytes that are not acknowledged, bytes; `None`: the system's.
    pub send_buffer_bytes: Option<u32>,
    /// Differentiated services code point, 0 to 63.
    pub dscp: Option<u8>,
    /// Priority inside the host's queues, 0 to 6.
    pub priority: Option<u8>,
    /// How long the kernel polls the device in a receive call, microseconds.
    pub busy_poll_us: Option<u32>,
    /// How long the other side may leave data, or the question whether it is there,
    /// unanswered, milliseconds; then the connection is broken. `None`: the system's,
    /// many minutes.
    pub user_timeout_ms: Option<u32>,
}

/// Opens a nonblocking listener at `address`, for that address family only. The address
/// may be one that connections of an earlier life still use.
///
/// Buffer sizes are asked for as in [`udp::bind`](crate::udp::bind).
///
/// # Errors
/// The address is in use or not of this host, or an option is refused.
pub fn listen(address: SocketAddr, backlog: u16, options: &StreamOptions) -> Result<TcpListener, OsError> {
    let socket = socket(address)?;
    size_buffers(&socket, options)?;
    mark(&socket, address.is_ipv4(), options)?;
    bind(&socket, address)?;
    // SAFETY: takes numbers.
    check(unsafe { libc::listen(socket.as_raw_fd(), i32::from(backlog)) }, "listening on a TCP socket")?;
    Ok(TcpListener::from(socket))
}

/// Begins to connect `from` an own address to `to`; a port of 0 in `from` lets the
/// kernel choose. The connection stands when [`write()`] takes the first bytes; until
/// then it answers [`Written::Full`].
///
/// # Errors
/// The way there or `from` does not exist, or an option is refused.
pub fn connect(from: SocketAddr, to: SocketAddr, options: &StreamOptions) -> Result<TcpStream, OsError> {
    let socket = socket(to)?;
    size_buffers(&socket, options)?;
    mark(&socket, to.is_ipv4(), options)?;
    // The port is then chosen with the destination known, so that 28,000 connections to
    // each are possible. A help, no need.
    let _ = set(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1, "choosing the port late");
    bind(&socket, from)?;
    let to = Address::from(to);
    // SAFETY: `to` holds an address of the stated length.
    let result = unsafe { libc::connect(socket.as_raw_fd(), to.as_ptr(), to.len) };
    match check(result, "connecting a TCP socket") {
        Ok(_) => {}
        Err(error) if matches!(error.errno, Errno::EINPROGRESS | Errno::EINTR) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from(socket))
}

/// Takes the next connection of a listener, nonblocking, with the address it came
/// from; `None` if there is none. Buffer sizes are those of the listener.
///
/// # Errors
/// No descriptor or memory is left, or an option is refused. A connection that ended
/// before it was taken is no error.
pub fn accept(listener: &TcpListener, options: &StreamOptions) -> Result<Option<(TcpStream, SocketAddr)>, OsError> {
    let mut from = Address::EMPTY;
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: the kernel writes at most the storage, whose size stands in `len`.
    let result = unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut from.storage).cast(), &mut from.len, flags) };
    let fd = match check(result, "accepting a TCP connection") {
        Ok(fd) => fd,
        Err(error) => match error.errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => return Err(error),
            // Nothing there, or the fate of a connection that is over (accept(2)).
            _ => return Ok(None),
        },
    };
    // SAFETY: a descriptor the kernel has just made for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let Some(address) = from.get() else { return Ok(None) };
    mark(&socket, address.is_ipv4(), options)?;
    Ok(Some((TcpStream::from(socket), address)))
}

fn socket(address: SocketAddr) -> Result<OwnedFd, OsError> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers.
    let fd = check(unsafe { libc::socket(family, kind, 0) }, "making a TCP socket")?;
    // SAFETY: a descriptor the kernel has just made for us.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    if address.is_ipv6() {
        set(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1, "restricting a socket to IPv6")?;
    }
    set(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1, "allowing an address to be used again")?;
    Ok(socket)
}

fn bind(socket: &OwnedFd, address: SocketAddr) -> Result<(), OsError> {
    let address = Address::from(address);
    // SAFETY: `address` holds an address of the stated length.
    let result = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr(), address.len) };
    check(result, "binding a TCP socket").map(drop)
}

/// Before listening or connecting: what the window can grow to is agreed on then.
fn size_buffers(socket: &OwnedFd, options: &StreamOptions) -> Result<(), OsError> {
    if let Some(bytes) = options.receive_buffer_bytes {
        set_buffer(socket, [libc::SO_RCVBUFFORCE, libc::SO_RCVBUF], bytes, "sizing a receive buffer")?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        set_buffer(socket, [libc::SO_SNDBUFFORCE, libc::SO_SNDBUF], bytes, "sizing a send buffer")?;
    }
    Ok(())
}

/// What an accepted socket does not reliably have from its listener.
fn mark(socket: &OwnedFd, v4: bool, options: &StreamOptions) -> Result<(), OsError> {
    set(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1, "sending without delay")?;
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
    if let Some(time) = options.user_timeout_ms {
        let time = i32::try_from(time).unwrap_or(i32::MAX);
        set(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, time, "setting the user timeout")?;
        // An idle connection has no data whose acknowledgement could be missing.
        set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, KEEPALIVE_S, "setting the keep-alive time")?;
        set(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, KEEPALIVE_S, "setting the keep-alive interval")?;
        set(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1, "keeping a connection alive")?;
    }
    Ok(())
}

/// What became of bytes to be sent.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Written {
    /// The kernel has this many of them, one at least (none, if there were none).
    Bytes(usize),
    /// No room now, or not connected yet.
    Full,
    /// The connection is over.
    Broken(Errno),
}

/// Sends `bytes`, as much as the kernel has room for.
///
/// As in [`udp::send`](crate::udp::send), neither this nor the other hot calls of this module go
/// by the C library's function.
#[inline]
pub fn write(stream: impl AsFd, bytes: &[u8]) -> Written {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: `bytes` is alive, and only read.
    let sent = unsafe {
        let (fd, nobody) = (stream.as_fd().as_raw_fd(), std::ptr::null::<libc::sockaddr>());
        libc::syscall(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), flags, nobody, 0)
    };
    written(sent as libc::ssize_t)
}

/// Sends `bytes`, then `payload`, with one call, as much as the kernel has room for.
/// What it takes of the payload it reads once, whoever writes it meanwhile.
#[inline]
pub fn write_both(stream: impl AsFd, bytes: &[u8], payload: SharedBytes<'_>) -> Written {
    let mut parts = [
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() },
        libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() },
    ];
    // SAFETY: all zero is a message of nothing.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = 2;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the parts are alive, and only read; `payload` is readable
    // (`SharedBytes::new`).
    let sent = unsafe { libc::syscall(libc::SYS_sendmsg, stream.as_fd().as_raw_fd(), &raw const message, flags) };
    written(sent as libc::ssize_t)
}

fn written(sent: libc::ssize_t) -> Written {
    match usize::try_from(sent) {
        Ok(bytes) => Written::Bytes(bytes),
        Err(_) => match Errno::last() {
            Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR | Errno::EINPROGRESS | Errno::EALREADY => Written::Full,
            errno => Written::Broken(errno),
        },
    }
}

/// What there was to read.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    /// This many bytes, one at least.
    Bytes(usize),
    /// Nothing now.
    Empty,
    /// The other side has closed; nothing will come any more.
    Closed,
    /// The connection is over.
    Broken(Errno),
}

/// Takes what has come, as much as there is room for.
///
/// # Panics
/// There is no room at all: the answer could not be told from the end.
#[inline]
pub fn read(stream: impl AsFd, room: &mut [u8]) -> Read {
    assert!(!room.is_empty(), "reading into no room");
    let fd = stream.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `room`.
    let got = unsafe {
        let nobody = std::ptr::null_mut::<libc::sockaddr>();
        let no_len = std::ptr::null_mut::<libc::socklen_t>();
        libc::syscall(libc::SYS_recvfrom, fd, room.as_mut_ptr(), room.len(), libc::MSG_DONTWAIT, nobody, no_len)
    };
    got_to_read(got as libc::ssize_t)
}

/// Takes what has come with one call, `first` before `second`, as much as there is room for.
///
/// # Panics
/// There is no room at all.
#[inline]
pub fn read_both(stream: impl AsFd, first: &mut [u8], second: &mut [u8]) -> Read {
    assert!(!first.is_empty() || !second.is_empty(), "reading into no room");
    let mut parts = [
        libc::iovec { iov_base: first.as_mut_ptr().cast(), iov_len: first.len() },
        libc::iovec { iov_base: second.as_mut_ptr().cast(), iov_len: second.len() },
    ];
    // SAFETY: all zero is a message of nothing.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = 2;
    // SAFETY: the kernel writes at most the parts, which are two exclusive borrows.
    let got =
        unsafe { libc::syscall(libc::SYS_recvmsg, stream.as_fd().as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    got_to_read(got as libc::ssize_t)
}

fn got_to_read(got: libc::ssize_t) -> Read {
    match usize::try_from(got) {
        Ok(0) => Read::Closed,
        Ok(bytes) => Read::Bytes(bytes),
        Err(_) => match Errno::last() {
            Errno::EAGAIN | Errno::EINTR => Read::Empty,
            errno => Read::Broken(errno),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::{Duration, Instant};

    const OPTIONS: StreamOptions = StreamOptions {
        receive_buffer_bytes: Some(65_536),
        send_buffer_bytes: Some(32_768),
        dscp: Some(46),
        priority: Some(6),
        busy_poll_us: None,
        user_timeout_ms: Some(1500),
    };

    fn here(v6: bool) -> SocketAddr {
        if v6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() }
    }

    fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "it does not come");
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn pair(v6: bool) -> (TcpStream, TcpStream) {
        let listener = listen(here(v6), 4, &OPTIONS).unwrap();
        let a = connect(here(v6), listener.local_addr().unwrap(), &OPTIONS).unwrap();
        let (b, from) = until(|| accept(&listener, &OPTIONS).unwrap());
        assert_eq!(from, a.local_addr().unwrap());
        (a, b)
    }

    fn read_all(stream: &TcpStream, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        until(|| {
            let mut room = vec![0; count - bytes.len()];
            if let Read::Bytes(got) = read(stream, &mut room) {
                bytes.extend(&room[..got]);
            }
            (bytes.len() == count).then_some(())
        });
        bytes
    }

    #[test]
    fn bytes_and_payload_arrive_in_their_order() {
        for v6 in [false, true] {
            let (a, b) = pair(v6);
            assert_eq!(read(&b, &mut [0; 4]), Read::Empty);
            assert_eq!(write(&a, b"one "), Written::Bytes(4));
            assert_eq!(write_both(&a, b"two ", b"three".as_slice().into()), Written::Bytes(9));
            assert_eq!(write_both(&a, b"", b"!".as_slice().into()), Written::Bytes(1));
            assert_eq!(read_all(&b, 14), b"one two three!");
            assert_eq!(write(&b, b"back"), Written::Bytes(4));
            assert_eq!(read_all(&a, 4), b"back");
            assert_eq!(write(&b, b"in two parts"), Written::Bytes(12));
            let (mut first, mut second) = ([0; 7], [0; 9]);
            let got = until(|| Some(read_both(&a, &mut first, &mut second)).filter(|read| *read != Read::Empty));
            assert_eq!(got, Read::Bytes(12));
            assert_eq!((&first, &second[..5]), (b"in two ", &b"parts"[..]));
        }
    }

    #[test]
    fn a_full_socket_takes_a_part_and_then_nothing() {
        let (a, b) = pair(false);
        let bytes: Vec<u8> = (0..3_000_000u32).map(|at| (at >> 4) as u8).collect();
        let mut sent = 0;
        loop {
            match write_both(&a, &bytes[sent..sent + 10], bytes[sent + 10..].into()) {
                Written::Bytes(count) => sent += count,
                Written::Full => break,
                Written::Broken(errno) => panic!("{errno}"),
            }
        }
        assert!(sent > 0 && sent < bytes.len());
        assert_eq!(read_all(&b, sent), bytes[..sent]);
    }

    #[test]
    fn the_ends_of_a_connection_are_told_apart() {
        let (a, b) = pair(false);
        assert_eq!(write(&a, b"last"), Written::Bytes(4));
        drop(a);
        assert_eq!(read_all(&b, 4), b"last");
        until(|| (read(&b, &mut [0; 4]) == Read::Closed).then_some(()));

        let (a, b) = pair(false);
        assert_eq!(write(&a, b"not read"), Written::Bytes(8));
        read_all(&b, 1);
        // Closed with bytes unread: a reset.
        drop(b);
        until(|| (read(&a, &mut [0; 4]) == Read::Broken(Errno::ECONNRESET)).then_some(()));
        assert_eq!(write(&a, b"more"), Written::Broken(Errno::EPIPE));
    }

    #[test]
    fn nobody_there_is_told_by_the_first_write() {
        let address = listen(here(false), 1, &OPTIONS).unwrap().local_addr().unwrap();
        match connect(here(false), address, &OPTIONS) {
            Ok(stream) => {
                let refused = until(|| match write(&stream, b"anybody?") {
                    Written::Full => None,
                    other => Some(other),
                });
                assert_eq!(refused, Written::Broken(Errno::ECONNREFUSED));
            }
            Err(error) => assert_eq!(error.errno, Errno::ECONNREFUSED),
        }
    }

    #[test]
    fn an_address_is_free_again_at_once_and_taken_while_it_is_listened_on() {
        let listener = listen(here(false), 4, &OPTIONS).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(listen(address, 4, &OPTIONS).unwrap_err().errno, Errno::EADDRINUSE);
        let a = connect(here(false), address, &OPTIONS).unwrap();
        let (b, _) = until(|| accept(&listener, &OPTIONS).unwrap());
        // This side closes first: its port waits for stray segments for a minute.
        drop((listener, b));
        until(|| (read(&a, &mut [0; 4]) == Read::Closed).then_some(()));
        drop(a);
        listen(address, 4, &OPTIONS).unwrap();
        let elsewhere = "192.0.2.1:0".parse().unwrap();
        assert_eq!(listen(elsewhere, 4, &OPTIONS).unwrap_err().errno, Errno::EADDRNOTAVAIL);
    }

    #[test]
    fn options_reach_both_ends() {
        for v6 in [false, true] {
            let (a, b) = pair(v6);
            for stream in [&a, &b] {
                let read = |level, name| {
                    let (mut value, mut len) = (0i32, size_of::<i32>() as libc::socklen_t);
                    // SAFETY: the kernel writes one int.
                    let result =
                        unsafe { libc::getsockopt(stream.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) };
                    assert_eq!(result, 0);
                    value
                };
                // The kernel doubles what is asked, for its own bookkeeping.
                assert_eq!(read(libc::SOL_SOCKET, libc::SO_RCVBUF), 131_072);
                assert_eq!(read(libc::SOL_SOCKET, libc::SO_SNDBUF), 65_536);
                assert_eq!(read(libc::SOL_SOCKET, libc::SO_PRIORITY), 6);
                assert_eq!(read(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
                assert_eq!(read(libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
                assert_eq!(read(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), 1500);
                let code_point =
                    if v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
                assert_eq!(read(code_point.0, code_point.1), 46 << 2);
            }
        }
    }
}
