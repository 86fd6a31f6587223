//! Finding and loading the shim.

use crate::abi::{ABI, Functions, WORD};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use std::path::{Path, PathBuf};

/// The shim's file.
pub const SHIM_NAME: &str = "libinsane_dpdk.so";
/// Names a shim where the configuration names none: for tests.
pub const SHIM_VARIABLE: &str = "INSANE_DPDK_SHIM";

/// Why there is no shim.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ShimError {
    /// There is none, or what it needs is missing.
    #[error(
        "the library for DPDK cannot be loaded ({reason}); `cargo xtask dpdk-shim` makes {SHIM_NAME}, which belongs \
         beside the executable and needs DPDK 22.11"
    )]
    Missing {
        /// What the system said.
        reason: String,
    },
    /// It is of another version.
    #[error(
        "{} is not of this version: it speaks {} (sizes {:08x}), the runtime {ABI} (sizes {:08x}); \
         `cargo xtask dpdk-shim` makes it anew",
        path.display(), found >> 32, *found as u32, WORD as u32
    )]
    Version {
        /// Which.
        path: PathBuf,
        /// What it says of itself.
        found: u64,
    },
    /// It is none.
    #[error("{} is no library for DPDK: {reason}", path.display())]
    NoShim {
        /// Which.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
}

/// The shim to be loaded; `None`: wherever the system finds it.
fn find(configured: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = configured {
        return Some(path.to_owned());
    }
    if let Some(path) = std::env::var_os(SHIM_VARIABLE) {
        return Some(path.into());
    }
    let executable = std::env::current_exe().ok()?;
    let folder = executable.parent()?;
    let above = if folder.ends_with("deps") { folder.parent() } else { None };
    [Some(folder), above].into_iter().flatten().map(|folder| folder.join(SHIM_NAME)).find(|path| path.is_file())
}

/// Whether there is a shim of this version, with all that it needs: it is loaded, and DPDK is not
/// started.
///
/// # Errors
/// [`ShimError`].
pub fn check_shim(configured: Option<&Path>) -> Result<(), ShimError> {
    load(configured).map(|_| ())
}

/// Loads the shim, for ever.
pub(crate) fn load(configured: Option<&Path>) -> Result<Functions, ShimError> {
    let path = find(configured).unwrap_or_else(|| SHIM_NAME.into());
    // SAFETY: what runs when the shim and DPDK's libraries are loaded is their registering with
    // each other, which touches nothing of this process.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    let library = library.map_err(|error| ShimError::Missing { reason: error.to_string() })?;
    // Also a library that is none of ours: others may have its code, and nothing is gained.
    let library: &'static Library = Box::leak(Box::new(library));
    let no_shim = |error: libloading::Error| ShimError::NoShim { path: path.clone(), reason: error.to_string() };
    // SAFETY: in every version of the header it takes nothing and returns a number.
    let abi = unsafe { library.get::<unsafe extern "C" fn() -> u64>(b"insane_dpdk_abi\0") }.map_err(no_shim)?;
    // SAFETY: it reads nothing.
    let found = unsafe { abi() };
    if found != WORD {
        return Err(ShimError::Version { path, found });
    }
    // SAFETY: the version was compared, and the library stays.
    unsafe { Functions::of(library) }.map_err(no_shim)
}
