//! Packets with descriptors between processes of one host.
//!
//! Every descriptor that comes in is either returned or closed, also when the
//! sender sent more than fit, or beside an empty packet. No call blocks.

use crate::error::{Errno, OsError, attempted, check, check_size};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect as connect_to, listen as start_listening,
    socket, socketpair,
};
use nix::sys::stat::Mode;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// Most descriptors of one packet; further ones are closed by the kernel and the
/// packet is reported as truncated.
pub const FDS_MAX: usize = 8;

/// Why there is no listening or connected socket.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PathError {
    /// Somebody answers there already.
    #[error("{path}: another process is listening there")]
    InUse {
        /// The path asked for.
        path: PathBuf,
    },
    /// Something else than a socket stands there; it is left alone.
    #[error("{path}: exists and is not a socket")]
    NotASocket {
        /// The path asked for.
        path: PathBuf,
    },
    /// Nobody listens there, or the socket's queue of callers is full.
    #[error("{path}: nobody answers ({errno})")]
    NobodyThere {
        /// The path asked for.
        path: PathBuf,
        /// The kernel's answer.
        errno: Errno,
    },
    /// A call failed.
    #[error("{path}: {source}")]
    Os {
        /// The path asked for.
        path: PathBuf,
        /// What failed.
        source: OsError,
    },
}

/// Listens at `path`. A socket left behind by a process that is gone is replaced;
/// one that answers is not.
///
/// At first only this user may connect; change the file's permissions for others.
///
/// Two processes that start at once are kept apart by a lock on `path` with
/// `.lock` appended, held during the call; that file stays.
///
/// # Errors
/// See [`PathError`].
pub fn listen(path: &Path) -> Result<OwnedFd, PathError> {
    let os = |source| PathError::Os { path: path.to_owned(), source };
    let _lock = lock_beside(path)?;
    let address = UnixAddr::new(path).map_err(attempted("forming the address")).map_err(os)?;
    let listener = new_socket().map_err(os)?;
    // The file gets these bits when it is made: nobody else may come before the caller has
    // said who may.
    nix::sys::stat::fchmod(&listener, Mode::S_IRUSR | Mode::S_IWUSR).map_err(attempted("restricting")).map_err(os)?;
    match bind(listener.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) => {
            remove_stale(path)?;
            bind(listener.as_raw_fd(), &address).map_err(attempted("binding")).map_err(os)?;
        }
        other => other.map_err(attempted("binding")).map_err(os)?,
    }
    let backlog = Backlog::new(128).unwrap_or(Backlog::MAXALLOWABLE);
    start_listening(&listener, backlog).map_err(attempted("listening")).map_err(os)?;
    Ok(listener)
}

fn lock_beside(path: &Path) -> Result<nix::fcntl::Flock<std::fs::File>, PathError> {
    use std::os::unix::fs::OpenOptionsExt;
    let os = |errno| PathError::Os { path: path.to_owned(), source: OsError::new("locking the path", errno) };
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(name)
        .map_err(|error| os(Errno::from_raw(error.raw_os_error().unwrap_or(0))))?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive).map_err(|(_, errno)| os(errno))
}

fn remove_stale(path: &Path) -> Result<(), PathError> {
    use std::os::unix::fs::FileTypeExt;
    let os = |error: std::io::Error| PathError::Os {
        path: path.to_owned(),
        source: OsError::new("removing a stale socket", Errno::from_raw(error.raw_os_error().unwrap_or(0))),
    };
    if !std::fs::symlink_metadata(path).map_err(os)?.file_type().is_socket() {
        return Err(PathError::NotASocket { path: path.to_owned() });
    }
    match connect(path) {
        Err(PathError::NobodyThere { errno: Errno::ECONNREFUSED, .. }) => std::fs::remove_file(path).map_err(os),
        _ => Err(PathError::InUse { path: path.to_owned() }),
    }
}

/// Takes one caller of a listening socket; `None` when there is none.
///
/// # Errors
/// A limit on descriptors is reached (`EMFILE`, `ENFILE`): the caller stays queued.
pub fn accept(listener: impl AsFd) -> Result<Option<OwnedFd>, OsError> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no address is asked for; the descriptor is open (`AsFd`).
    let fd = unsafe { libc::accept4(listener.as_fd().as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags) };
    match check(fd, "accepting a connection") {
        // SAFETY: a descriptor the kernel has just made for us.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        // A caller that hung up while it waited is no caller.
        Err(error) if matches!(error.errno, Errno::EAGAIN | Errno::ECONNABORTED | Errno::EINTR) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Connects to the socket at `path`.
///
/// # Errors
/// See [`PathError`].
pub fn connect(path: &Path) -> Result<OwnedFd, PathError> {
    let os = |source| PathError::Os { path: path.to_owned(), source };
    let address = UnixAddr::new(path).map_err(attempted("forming the address")).map_err(os)?;
    let stream = new_socket().map_err(os)?;
    match connect_to(stream.as_raw_fd(), &address) {
        Ok(()) => Ok(stream),
        Err(errno @ (Errno::ENOENT | Errno::ECONNREFUSED | Errno::EAGAIN)) => {
            Err(PathError::NobodyThere { path: path.to_owned(), errno })
        }
        Err(errno) => Err(os(OsError::new("connecting", errno))),
    }
}

/// Two connected ends.
///
/// # Errors
/// No descriptor is left.
pub fn pair() -> Result<(OwnedFd, OwnedFd), OsError> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, socket_flags()).map_err(attempted("making a pair"))
}

fn new_socket() -> Result<OwnedFd, OsError> {
    socket(AddressFamily::Unix, SockType::SeqPacket, socket_flags(), None).map_err(attempted("making a socket"))
}

fn socket_flags() -> SockFlag {
    SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK
}

/// What became of a packet.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOutcome {
    /// The other side has it in its queue.
    Sent,
    /// No room now.
    WouldBlock,
    /// The other side is gone.
    Closed,
}

/// Sends one packet with up to [`FDS_MAX`] descriptors beside it.
///
/// # Errors
/// `bytes` is empty or `fds` too many (`EINVAL`: an empty packet would look like
/// the end), the packet is larger than the socket's buffer (`EMSGSIZE`), or too many
/// descriptors are under way (`ETOOMANYREFS`).
pub fn send(fd: impl AsFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<SendOutcome, OsError> {
    if bytes.is_empty() || fds.len() > FDS_MAX {
        return Err(OsError::new("sending a packet", Errno::EINVAL));
    }
    let mut control = ControlBuffer::new();
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut message = empty_message();
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    if !fds.is_empty() {
        control.put_fds(&mut message, fds);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the message points to `bytes`, `part` and `control`, all alive.
    let sent = unsafe { libc::sendmsg(fd.as_fd().as_raw_fd(), &message, flags) };
    match check_size(sent, "sending a packet") {
        Ok(_) => Ok(SendOutcome::Sent),
        Err(error) => match error.errno {
            Errno::EAGAIN | Errno::ENOBUFS | Errno::EINTR => Ok(SendOutcome::WouldBlock),
            Errno::EPIPE | Errno::ECONNRESET => Ok(SendOutcome::Closed),
            _ => Err(error),
        },
    }
}

/// A packet that came in.
#[derive(Debug)]
pub struct Received {
    /// Bytes of the buffer that were filled.
    pub len: usize,
    /// The descriptors beside it, close-on-exec.
    pub fds: heapless::Vec<OwnedFd, FDS_MAX>,
    /// The packet was larger than the buffer, or had more than [`FDS_MAX`]
    /// descriptors, or the descriptor table is full: something is missing.
    pub truncated: bool,
}

/// What a receive call found.
#[must_use]
#[derive(Debug)]
pub enum RecvOutcome {
    /// A packet.
    Packet(Received),
    /// Nothing now.
    WouldBlock,
    /// The other side is gone (or sent an empty packet, which is taken for the same).
    Closed,
}

/// Takes one packet into `buffer`.
///
/// # Errors
/// The socket is broken.
pub fn recv(fd: impl AsFd, buffer: &mut [u8]) -> Result<RecvOutcome, OsError> {
    let mut control = ControlBuffer::new();
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut message = empty_message();
    message.msg_iov = &mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    // SAFETY: the message points to `buffer`, `part` and `control`, all alive and writable.
    let len =
        unsafe { libc::recvmsg(fd.as_fd().as_raw_fd(), &mut message, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC) };
    let len = match check_size(len, "receiving a packet") {
        Ok(len) => len,
        Err(error) => {
            return match error.errno {
                Errno::EAGAIN | Errno::EINTR => Ok(RecvOutcome::WouldBlock),
                Errno::ECONNRESET => Ok(RecvOutcome::Closed),
                _ => Err(error),
            };
        }
    };
    // Taken first, so that they are owned, and closed, on every path below.
    let (fds, too_many) = take_fds(&message);
    if len == 0 {
        return Ok(RecvOutcome::Closed);
    }
    let truncated = too_many || message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
    Ok(RecvOutcome::Packet(Received { len, fds, truncated }))
}

/// The descriptors of a message that `recvmsg` filled, and whether there were more
/// than fit (those are closed here).
fn take_fds(message: &libc::msghdr) -> (heapless::Vec<OwnedFd, FDS_MAX>, bool) {
    let (mut fds, mut too_many) = (heapless::Vec::new(), false);
    // SAFETY: the kernel filled the control buffer and its length; the CMSG functions
    // walk inside it.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: not null, so it points to a whole header inside the control buffer.
        let (level, kind, len) = unsafe { ((*header).cmsg_level, (*header).cmsg_type, (*header).cmsg_len) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: plain arithmetic.
            let bytes = len.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
            for index in 0..bytes / size_of::<RawFd>() {
                // SAFETY: the kernel put that many descriptors after the header, and
                // they are ours now; each is taken once.
                let fd = unsafe {
                    OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().add(index).read_unaligned())
                };
                too_many |= fds.push(fd).is_err();
            }
        }
        // SAFETY: `header` is inside the control buffer of `message`.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    (fds, too_many)
}

fn empty_message() -> libc::msghdr {
    // SAFETY: all zero is a message of nothing.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

/// Room for one control message of [`FDS_MAX`] descriptors, aligned as its header.
#[repr(C, align(8))]
struct ControlBuffer([u8; ControlBuffer::BYTES]);

impl ControlBuffer {
    // SAFETY: plain arithmetic.
    const BYTES: usize = unsafe { libc::CMSG_SPACE((FDS_MAX * size_of::<RawFd>()) as u32) } as usize;

    const fn new() -> Self {
        ControlBuffer([0; Self::BYTES])
    }

    /// Writes `fds` (1 to [`FDS_MAX`]) and lets `message` point here.
    fn put_fds(&mut self, message: &mut libc::msghdr, fds: &[BorrowedFd<'_>]) {
        assert!(!fds.is_empty() && fds.len() <= FDS_MAX);
        let bytes = (fds.len() * size_of::<RawFd>()) as u32;
        message.msg_control = self.0.as_mut_ptr().cast();
        // SAFETY: plain arithmetic; not above BYTES, since `fds.len() <= FDS_MAX`.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(bytes) } as usize;
        // SAFETY: the buffer has room for a header and `bytes`, and is aligned for it.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(bytes) as usize;
            for (index, fd) in fds.iter().enumerate() {
                libc::CMSG_DATA(header).cast::<RawFd>().add(index).write_unaligned(fd.as_raw_fd());
            }
        }
    }
}

/// Who is at the other end, as the kernel noted when the connection was made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PeerCredentials {
    /// Process, as this process's namespace numbers it; 0 if it is not in it.
    pub pid: i32,
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
}

/// Who is at the other end.
///
/// # Errors
/// The socket is not connected.
pub fn peer_credentials(fd: impl AsFd) -> Result<PeerCredentials, OsError> {
    let credentials = nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::PeerCredentials)
        .map_err(attempted("asking who is at the other end"))?;
    Ok(PeerCredentials { pid: credentials.pid(), uid: credentials.uid(), gid: credentials.gid() })
}

/// `SO_PEERPIDFD` (Linux 6.5), by number: not every C library names it.
const SO_PEERPIDFD: i32 = 77;

/// A descriptor of the process at the other end, readable once that process is
/// gone; `None` where it is gone already or the kernel has no such descriptors.
///
/// On kernels before 6.5 the process is looked up by its number, which another may
/// bear by then.
#[must_use]
pub fn peer_pidfd(fd: impl AsFd) -> Option<OwnedFd> {
    let (mut pidfd, mut len): (RawFd, _) = (-1, size_of::<RawFd>() as libc::socklen_t);
    // SAFETY: the kernel writes one int into `pidfd`.
    let result = unsafe {
        let value = (&raw mut pidfd).cast();
        libc::getsockopt(fd.as_fd().as_raw_fd(), libc::SOL_SOCKET, SO_PEERPIDFD, value, &mut len)
    };
    if result == 0 && pidfd >= 0 {
        // SAFETY: a descriptor the kernel has just made for us, close-on-exec.
        return Some(unsafe { OwnedFd::from_raw_fd(pidfd) });
    }
    if Errno::last() != Errno::ENOPROTOOPT {
        return None;
    }
    open_pidfd(peer_credentials(fd).ok()?.pid)
}

fn open_pidfd(pid: i32) -> Option<OwnedFd> {
    // SAFETY: takes two ints.
    let pidfd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pidfd = RawFd::try_from(pidfd).ok().filter(|pidfd| *pidfd >= 0)?;
    // SAFETY: a descriptor the kernel has just made for us, close-on-exec.
    Some(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Two ends of a byte stream: who waits polls the first, who wakes has the second
/// and calls [`wake_send`]. Whatever the holder of one end does, the other never
/// blocks.
///
/// # Errors
/// No descriptor is left.
pub fn wake_socket_pair() -> Result<(OwnedFd, OwnedFd), OsError> {
    socketpair(AddressFamily::Unix, SockType::Stream, None, socket_flags()).map_err(attempted("making a wake pair"))
}

/// Whether `fd` is a Unix socket whose other end has no name: an end of a pair.
pub fn is_unnamed(fd: impl AsFd) -> bool {
    nix::sys::socket::getpeername::<nix::sys::socket::UnixAddr>(fd.as_fd().as_raw_fd())
        .is_ok_and(|peer| peer.path().is_none() && peer.as_abstract().is_none())
}

/// Makes the other end readable. A full queue counts as sent: it is readable.
pub fn wake_send(fd: impl AsFd) -> SendOutcome {
    let byte = 1u8;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: sends one byte that is alive.
    let sent = unsafe { libc::send(fd.as_fd().as_raw_fd(), (&raw const byte).cast(), 1, flags) };
    match check_size(sent, "waking") {
        Ok(_) => SendOutcome::Sent,
        Err(error) if matches!(error.errno, Errno::EAGAIN) => SendOutcome::Sent,
        Err(error) if matches!(error.errno, Errno::ENOBUFS | Errno::EINTR) => SendOutcome::WouldBlock,
        Err(_) => SendOutcome::Closed,
    }
}

/// Takes pending wakes, with one call. Returns false when the other end is gone.
pub fn wake_clear(fd: impl AsFd) -> bool {
    let mut bytes = [0u8; 512];
    // SAFETY: the kernel writes at most the array.
    let len = unsafe { libc::recv(fd.as_fd().as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
    match check_size(len, "clearing a wake") {
        Ok(len) => len > 0,
        Err(error) => matches!(error.errno, Errno::EAGAIN | Errno::EINTR),
    }
}

#[cfg(test)]
mod tests;
