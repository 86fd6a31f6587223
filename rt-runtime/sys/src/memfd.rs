//! Memory without a name in the file system, sealed so that no holder of the
//! descriptor can shrink it under a reader's feet.
//!
//! Life of a region: [`create`] (sealed against SHRINK and GROW before anybody
//! else sees it), the one writer maps it, then [`seal_writers`] (FUTURE_WRITE and
//! SEAL), and only then is the descriptor shown to a reader.

use crate::error::{Errno, OsError, attempted, check};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Neither shorter: a reader's mapping never faults.
pub const SEAL_SHRINK: i32 = libc::F_SEAL_SHRINK;
/// Nor longer: a holder cannot make the runtime pay for more.
pub const SEAL_GROW: i32 = libc::F_SEAL_GROW;
/// No new writable mapping, no `write`, no hole; mappings that exist stay writable.
pub const SEAL_FUTURE_WRITE: i32 = libc::F_SEAL_FUTURE_WRITE;
/// No further seals.
pub const SEAL_SEAL: i32 = libc::F_SEAL_SEAL;

/// Creates a region of `len` zero bytes, sealed against SHRINK and GROW. `name`
/// is for a person who reads `/proc/PID/maps`.
///
/// # Errors
/// No descriptor or memory is left, or `len` is beyond what a file can hold.
pub fn create(name: &str, len: u64) -> Result<OwnedFd, OsError> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
        .map_err(attempted("creating a memfd"))?;
    let len = i64::try_from(len).map_err(|_| OsError::new("sizing a memfd", nix::errno::Errno::EFBIG))?;
    nix::unistd::ftruncate(&fd, len).map_err(attempted("sizing a memfd"))?;
    add_seals(&fd, SEAL_SHRINK | SEAL_GROW)?;
    Ok(fd)
}

/// Seals against any further writer and any further seal. Writable mappings that
/// exist stay writable; everybody else can only read from now on.
///
/// # Errors
/// The descriptor is no memfd, or sealing is already over.
pub fn seal_writers(fd: impl AsFd) -> Result<(), OsError> {
    add_seals(fd, SEAL_FUTURE_WRITE | SEAL_SEAL)
}

/// The seals that stand, as a set of the `SEAL_*` bits.
///
/// # Errors
/// The descriptor is no memfd.
pub fn seals(fd: impl AsFd) -> Result<i32, OsError> {
    // SAFETY: F_GET_SEALS takes no argument; the descriptor is open (`AsFd`).
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_GET_SEALS) }, "reading the seals of a memfd")
}

/// Length in bytes.
///
/// # Errors
/// The descriptor cannot be asked.
pub fn len(fd: impl AsFd) -> Result<u64, OsError> {
    let stat = nix::sys::stat::fstat(fd).map_err(attempted("reading the length of a memfd"))?;
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

/// What tells this memory from all other: two descriptors of the same have the same.
///
/// # Errors
/// The descriptor cannot be asked.
pub fn identity(fd: impl AsFd) -> Result<(u64, u64), OsError> {
    let stat = nix::sys::stat::fstat(fd).map_err(attempted("identifying a memfd"))?;
    Ok((stat.st_dev, stat.st_ino))
}

/// A hold on a region: whoever has a descriptor of the same memory can ask whether one
/// [is held](is_held). It ends when it is dropped, and with the process. One that is inherited
/// by a forked child lasts until that is gone, too.
///
/// # Errors
/// The memory cannot be opened anew, which takes `/proc`, or the kernel refuses the lock.
pub fn hold(fd: impl AsFd) -> Result<OwnedFd, OsError> {
    // Opened anew: a lock belongs to what was opened, and that is shared by all to whom a
    // descriptor is passed.
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_CLOEXEC;
    let own = nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty())
        .map_err(attempted("opening a memfd anew"))?;
    let lock = whole(libc::F_RDLCK);
    // SAFETY: F_OFD_SETLK reads one `flock`; the descriptor is open.
    check(unsafe { libc::fcntl(own.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }, "holding a memfd")?;
    Ok(own)
}

/// Whether somebody, also this process, has a [`hold`] on the memory.
///
/// # Errors
/// The descriptor cannot be asked.
pub fn is_held(fd: impl AsFd) -> Result<bool, OsError> {
    let mut lock = whole(libc::F_WRLCK);
    // SAFETY: F_OFD_GETLK reads and writes one `flock`; the descriptor is open (`AsFd`).
    let asked = unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    check(asked, "asking who holds a memfd")?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

/// A lock of this kind on all of a file.
const fn whole(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

fn add_seals(fd: impl AsFd, seals: i32) -> Result<(), OsError> {
    // SAFETY: F_ADD_SEALS takes an int; the descriptor is open (`AsFd`).
    check(unsafe { libc::fcntl(fd.as_fd().as_raw_fd(), libc::F_ADD_SEALS, seals) }, "sealing a memfd").map(drop)
}

/// Whether `fd` is memory as this module makes it: ordinary pages (huge pages could run
/// out under a reader), `len` bytes or more, and every seal set.
///
/// # Errors
/// It is not, or the kernel does not say.
pub fn check_sealed(fd: impl AsFd, len: u64) -> Result<(), OsError> {
    let fd = fd.as_fd();
    let wrong = |attempted| Err(OsError::new(attempted, Errno::EINVAL));
    let all = SEAL_SHRINK | SEAL_GROW | SEAL_FUTURE_WRITE | SEAL_SEAL;
    let system = nix::sys::statfs::fstatfs(fd).map_err(attempted("looking at adopted memory"))?;
    if system.filesystem_type() != nix::sys::statfs::TMPFS_MAGIC {
        return wrong("adopting memory that is no ordinary memfd");
    }
    if seals(fd)? & all != all {
        return wrong("adopting memory that is not sealed");
    }
    if self::len(fd)? < len {
        return wrong("adopting memory that is too small");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, fallocate};
    use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
    use std::num::NonZeroUsize;

    const LEN: usize = 8192;

    fn map(fd: &OwnedFd, prot: ProtFlags) -> Result<std::ptr::NonNull<libc::c_void>, Errno> {
        // SAFETY: a new mapping at an address the kernel chooses.
        unsafe { mmap(None, NonZeroUsize::new(LEN).unwrap(), prot, MapFlags::MAP_SHARED, fd, 0) }
    }

    #[test]
    fn a_new_region_has_its_length_and_can_change_it_no_more() {
        let fd = create("test", LEN as u64).unwrap();
        assert_eq!(len(&fd).unwrap(), LEN as u64);
        assert_eq!(seals(&fd).unwrap(), SEAL_SHRINK | SEAL_GROW);
        assert_eq!(nix::unistd::ftruncate(&fd, 1), Err(Errno::EPERM));
        assert_eq!(nix::unistd::ftruncate(&fd, 1 << 20), Err(Errno::EPERM));
    }

    #[test]
    fn after_sealing_only_the_mapping_that_exists_can_write() {
        let fd = create("test", LEN as u64).unwrap();
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let writer = map(&fd, both).unwrap();
        seal_writers(&fd).unwrap();

        assert_eq!(map(&fd, both), Err(Errno::EPERM), "a second writable mapping");
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        assert_eq!(fallocate(&fd, hole, 0, 4096), Err(Errno::EPERM), "a hole");
        assert_eq!(nix::unistd::ftruncate(&fd, 0), Err(Errno::EPERM), "a truncation");
        assert_eq!(nix::unistd::write(&fd, b"x"), Err(Errno::EPERM), "a write");
        assert_eq!(seal_writers(&fd).unwrap_err().errno, Errno::EPERM, "a further seal");

        let reader = map(&fd, ProtFlags::PROT_READ).unwrap();
        // SAFETY: both mappings hold LEN bytes, and only this thread touches them.
        unsafe {
            writer.cast::<u8>().as_ptr().write_volatile(7);
            assert_eq!(reader.cast::<u8>().as_ptr().read_volatile(), 7);
            // The reader's mapping cannot be turned into a writer's.
            assert_eq!(nix::sys::mman::mprotect(reader, LEN, both), Err(Errno::EACCES));
            munmap(writer, LEN).unwrap();
            munmap(reader, LEN).unwrap();
        }
    }

    #[test]
    fn a_hold_is_seen_by_all_and_ends_when_it_is_dropped() {
        let fd = create("test", LEN as u64).unwrap();
        seal_writers(&fd).unwrap();
        let passed_on = fd.try_clone().unwrap();
        assert!(!is_held(&fd).unwrap());
        let (first, second) = (hold(&fd).unwrap(), hold(&passed_on).unwrap());
        drop(first);
        // Also who shares what was opened, as one to whom it was passed does.
        assert!(is_held(&fd).unwrap() && is_held(&passed_on).unwrap());
        // To close another descriptor of the memory ends no hold.
        drop(passed_on);
        assert!(is_held(&fd).unwrap());
        drop(second);
        assert!(!is_held(&fd).unwrap());
    }

    #[test]
    fn an_impossible_length_is_refused() {
        assert_eq!(create("test", u64::MAX).unwrap_err().errno, Errno::EFBIG);
    }
}
