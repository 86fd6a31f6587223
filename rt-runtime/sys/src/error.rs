//! One error for all calls: what was attempted, and the kernel's answer.

pub use nix::errno::Errno;

/// A system call failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{attempted} failed: {errno}")]
pub struct OsError {
    /// What was attempted, as a short phrase.
    pub attempted: &'static str,
    /// The kernel's answer.
    pub errno: Errno,
}

impl OsError {
    /// An error with a known errno.
    #[must_use]
    pub const fn new(attempted: &'static str, errno: Errno) -> Self {
        OsError { attempted, errno }
    }

    /// The error of the call that this thread made last.
    #[must_use]
    pub fn last(attempted: &'static str) -> Self {
        OsError { attempted, errno: Errno::last() }
    }
}

impl From<OsError> for std::io::Error {
    fn from(error: OsError) -> Self {
        std::io::Error::from_raw_os_error(error.errno as i32)
    }
}

/// The value of a call that reports failure as -1.
pub(crate) fn check(value: libc::c_int, attempted: &'static str) -> Result<libc::c_int, OsError> {
    if value == -1 { Err(OsError::last(attempted)) } else { Ok(value) }
}

/// The value of a call that reports failure as -1, for calls that count bytes.
pub(crate) fn check_size(value: libc::ssize_t, attempted: &'static str) -> Result<usize, OsError> {
    usize::try_from(value).map_err(|_| OsError::last(attempted))
}

/// Adds to a plain errno what was attempted.
pub(crate) fn attempted(attempted: &'static str) -> impl FnOnce(Errno) -> OsError {
    move |errno| OsError { attempted, errno }
}
