//! Waiting for several descriptors: eventfd and epoll.
//!
//! `Epoll::wait` fills an array of the caller and allocates nothing.

use crate::error::{Errno, OsError, attempted, check};
use insane_core::Nanos;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// A counter in the kernel that is readable while it is above zero. Neither side
/// blocks.
#[derive(Debug)]
pub struct Event(EventFd);

impl Event {
    /// A new event, not signalled.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> Result<Self, OsError> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        EventFd::from_value_and_flags(0, flags).map(Event).map_err(attempted("creating an eventfd"))
    }

    /// Makes it readable. Signals add up until [`Event::clear`].
    ///
    /// # Errors
    /// The descriptor is broken. A counter that is full is no error: it is readable.
    pub fn signal(&self) -> Result<(), OsError> {
        match self.0.write(1) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(OsError::new("signalling an eventfd", errno)),
        }
    }

    /// Makes it unreadable; returns how many signals there were.
    ///
    /// # Errors
    /// The descriptor is broken.
    pub fn clear(&self) -> Result<u64, OsError> {
        match self.0.read() {
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN) => Ok(0),
            Err(errno) => Err(OsError::new("clearing an eventfd", errno)),
        }
    }
}

/// Signals an eventfd that came from another process: makes it readable.
///
/// # Errors
/// The descriptor is no eventfd. A counter that is full is no error: it is readable.
pub fn signal(fd: impl AsFd) -> Result<(), OsError> {
    match nix::unistd::write(fd.as_fd(), &1_u64.to_ne_bytes()) {
        Ok(_) | Err(Errno::EAGAIN) => Ok(()),
        Err(errno) => Err(OsError::new("signalling an eventfd", errno)),
    }
}

impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// When epoll reports a descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// As long as there is something to read.
    Level,
    /// Once after something new came.
    Edge,
}

/// What is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Something to read, or room to write.
    ReadWrite,
}

/// One descriptor that is ready; an entry of the array given to [`Epoll::wait`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Ready(libc::epoll_event);

impl Ready {
    /// What an array starts with.
    pub const NONE: Ready = Ready(libc::epoll_event { events: 0, u64: 0 });

    /// The token given to [`Epoll::add`].
    #[must_use]
    pub fn token(&self) -> u64 {
        self.0.u64
    }

    /// There is something to read (the end of a connection included).
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.0.events & (libc::EPOLLIN | libc::EPOLLHUP | libc::EPOLLRDHUP | libc::EPOLLERR) as u32 != 0
    }

    /// There is room to write.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        self.0.events & libc::EPOLLOUT as u32 != 0
    }

    /// The other side is gone, or the descriptor is broken.
    #[must_use]
    pub fn is_hung_up(&self) -> bool {
        self.0.events & (libc::EPOLLHUP | libc::EPOLLRDHUP | libc::EPOLLERR) as u32 != 0
    }
}

impl std::fmt::Debug for Ready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (token, events) = (self.0.u64, self.0.events);
        write!(f, "Ready(token {token}, events {events:#x})")
    }
}

/// A set of descriptors to wait for.
#[derive(Debug)]
pub struct Epoll {
    fd: OwnedFd,
    /// Whether the kernel (5.11) takes a timeout in nanoseconds; learnt by trying.
    has_nanoseconds: AtomicBool,
}

impl Epoll {
    /// An empty set.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> Result<Self, OsError> {
        // SAFETY: takes flags only.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }, "creating an epoll set")?;
        // SAFETY: a descriptor the kernel has just made for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll { fd, has_nanoseconds: AtomicBool::new(true) })
    }

    /// Adds `fd`; `token` comes back when it is ready. The descriptor leaves the set
    /// when its last copy is closed, or by [`Epoll::remove`].
    ///
    /// # Errors
    /// It is in the set already (`EEXIST`), cannot be waited for (`EPERM`), or a
    /// limit is reached.
    pub fn add(&self, fd: impl AsFd, token: u64, interest: Interest, trigger: Trigger) -> Result<(), OsError> {
        self.control(libc::EPOLL_CTL_ADD, fd.as_fd(), event(token, interest, trigger), "adding to an epoll set")
    }

    /// Changes token, interest and trigger of `fd`.
    ///
    /// # Errors
    /// It is not in the set (`ENOENT`).
    pub fn modify(&self, fd: impl AsFd, token: u64, interest: Interest, trigger: Trigger) -> Result<(), OsError> {
        self.control(libc::EPOLL_CTL_MOD, fd.as_fd(), event(token, interest, trigger), "changing an epoll set")
    }

    /// Takes `fd` out.
    ///
    /// # Errors
    /// It is not in the set (`ENOENT`).
    pub fn remove(&self, fd: impl AsFd) -> Result<(), OsError> {
        self.control(libc::EPOLL_CTL_DEL, fd.as_fd(), Ready::NONE.0, "removing from an epoll set")
    }

    fn control(
        &self,
        operation: i32,
        fd: BorrowedFd<'_>,
        mut event: libc::epoll_event,
        attempted: &'static str,
    ) -> Result<(), OsError> {
        // SAFETY: both descriptors are open; `event` lives through the call.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd.as_raw_fd(), &mut event) }, attempted)
            .map(drop)
    }

    /// Waits until something is ready, at most `timeout` (`None`: without end; zero:
    /// only looks). Returns how many entries of `ready` it filled: 0 when the time is
    /// over or a signal came.
    ///
    /// # Errors
    /// The set itself is broken, or `ready` is empty (`EINVAL`).
    pub fn wait(&self, ready: &mut [Ready], timeout: Option<Nanos>) -> Result<usize, OsError> {
        if self.has_nanoseconds.load(Ordering::Relaxed) {
            match self.wait_ns(ready, timeout) {
                Err(error) if error.errno == Errno::ENOSYS => self.has_nanoseconds.store(false, Ordering::Relaxed),
                other => return other,
            }
        }
        self.wait_ms(ready, timeout)
    }

    fn wait_ns(&self, ready: &mut [Ready], timeout: Option<Nanos>) -> Result<usize, OsError> {
        let time = timeout.map(|timeout| crate::futex::timespec(timeout.into()));
        let time: *const libc::timespec = time.as_ref().map_or(std::ptr::null(), |time| time);
        let room = libc::c_int::try_from(ready.len()).unwrap_or(libc::c_int::MAX);
        let mask = std::ptr::null::<libc::sigset_t>();
        // SAFETY: `Ready` is transparent over epoll_event and the array holds `room`;
        // `time` is null or points to the local above; no signal mask.
        let count = unsafe {
            libc::syscall(libc::SYS_epoll_pwait2, self.fd.as_raw_fd(), ready.as_mut_ptr(), room, time, mask, 0usize)
        };
        counted(count)
    }

    fn wait_ms(&self, ready: &mut [Ready], timeout: Option<Nanos>) -> Result<usize, OsError> {
        // Rounded up: waking early would make a caller with a deadline spin.
        let time = timeout.map_or(-1, |time| i32::try_from(time.0.div_ceil(1_000_000)).unwrap_or(i32::MAX));
        let room = libc::c_int::try_from(ready.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `Ready` is transparent over epoll_event and the array holds `room`.
        let count = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), ready.as_mut_ptr().cast(), room, time) };
        counted(libc::c_long::from(count))
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn counted(count: libc::c_long) -> Result<usize, OsError> {
    match usize::try_from(count) {
        Ok(count) => Ok(count),
        Err(_) => match Errno::last() {
            Errno::EINTR => Ok(0),
            errno => Err(OsError::new("waiting for an epoll set", errno)),
        },
    }
}

fn event(token: u64, interest: Interest, trigger: Trigger) -> libc::epoll_event {
    let mut events = libc::EPOLLIN | libc::EPOLLRDHUP;
    if interest == Interest::ReadWrite {
        events |= libc::EPOLLOUT;
    }
    if trigger == Trigger::Edge {
        events |= libc::EPOLLET;
    }
    libc::epoll_event { events: events as u32, u64: token }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn level_reports_until_cleared_and_edge_once() {
        for has_nanoseconds in [true, false] {
            let epoll = Epoll::new().unwrap();
            epoll.has_nanoseconds.store(has_nanoseconds, Ordering::Relaxed);
            let (level, edge) = (Event::new().unwrap(), Event::new().unwrap());
            epoll.add(&level, 1, Interest::Read, Trigger::Level).unwrap();
            epoll.add(&edge, 2, Interest::Read, Trigger::Edge).unwrap();
            let mut ready = [Ready::NONE; 4];
            assert_eq!(epoll.wait(&mut ready, Some(Nanos(1))).unwrap(), 0);

            level.signal().unwrap();
            edge.signal().unwrap();
            let count = epoll.wait(&mut ready, None).unwrap();
            let mut tokens: Vec<u64> = ready[..count].iter().map(Ready::token).collect();
            tokens.sort_unstable();
            assert_eq!(tokens, [1, 2]);
            assert!(ready[0].is_readable() && !ready[0].is_hung_up());

            assert_eq!(epoll.wait(&mut ready, Some(Nanos::ZERO)).unwrap(), 1);
            assert_eq!(ready[0].token(), 1);
            level.signal().unwrap();
            assert_eq!(level.clear().unwrap(), 2);
            assert_eq!(level.clear().unwrap(), 0);
            assert_eq!(epoll.wait(&mut ready, Some(Nanos::ZERO)).unwrap(), 0);

            epoll.remove(&edge).unwrap();
            edge.signal().unwrap();
            assert_eq!(epoll.wait(&mut ready, Some(Nanos::ZERO)).unwrap(), 0);
        }
    }

    #[test]
    fn a_peer_that_goes_is_reported_as_hung_up() {
        let (near, far) = crate::seqpacket::pair().unwrap();
        let epoll = Epoll::new().unwrap();
        epoll.add(&near, 9, Interest::ReadWrite, Trigger::Level).unwrap();
        let mut ready = [Ready::NONE; 1];
        assert_eq!(epoll.wait(&mut ready, None).unwrap(), 1);
        assert!(ready[0].is_writable() && !ready[0].is_hung_up());
        drop(far);
        assert_eq!(epoll.wait(&mut ready, None).unwrap(), 1);
        assert!(ready[0].is_hung_up());
    }

    #[test]
    fn a_full_counter_is_no_error() {
        let event = Event::new().unwrap();
        event.0.write(u64::MAX - 1).unwrap();
        event.signal().unwrap();
        assert_eq!(event.clear().unwrap(), u64::MAX - 1);
    }
}
