//! Starting DPDK, once a process.

use crate::abi::{Functions, RawPort};
use crate::cores;
use crate::library::{self, ShimError};
use insane_sys::Errno;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How DPDK is started.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EalOptions {
    /// The shim; `None`: where the crate's documentation says.
    pub shim: Option<PathBuf>,
    /// Arguments of its environment abstraction layer: `--no-huge`, `--no-pci`, …
    pub arguments: Vec<String>,
    /// Memory for all ports, MiB, if the arguments do not say (`-m`) and there are no huge
    /// pages, which would be taken as needed.
    pub memory_mib: u32,
    /// Cores that DPDK's own threads keep off, if the arguments do not say where they run and
    /// others are left to the calling thread.
    pub keep_off: Vec<usize>,
}

/// Why DPDK does not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum EalError {
    /// The shim is not to be had.
    #[error(transparent)]
    Shim(#[from] ShimError),
    /// DPDK refuses. It cannot be asked again in this process.
    #[error("DPDK does not start with the arguments {arguments:?}: {errno}{}", quoted(said))]
    Refused {
        /// What it was given.
        arguments: Vec<String>,
        /// Why.
        errno: Errno,
        /// Its own words.
        said: String,
    },
    /// It runs, with other arguments.
    #[error("DPDK runs already with the arguments {running:?}, and is started once a process; not with {given:?}")]
    Otherwise {
        /// With which.
        running: Vec<String>,
        /// What was asked for.
        given: Vec<String>,
    },
    /// An argument that C cannot have.
    #[error("an argument of DPDK contains a zero byte")]
    Zero,
}

/// What DPDK had to say, for the end of a message.
pub(crate) fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(" ({said})") }
}

/// DPDK, started.
#[derive(Clone, Copy, Debug)]
pub struct Eal {
    functions: &'static Functions,
}

/// What became of the one start of this process.
struct Start {
    arguments: Vec<String>,
    result: Result<Eal, EalError>,
}

static START: Mutex<Option<Start>> = Mutex::new(None);
/// One at a time: DPDK's lists of devices have no lock of their own.
static CONTROL: Mutex<()> = Mutex::new(());

/// Held while ports are opened and closed.
pub(crate) fn control() -> MutexGuard<'static, ()> {
    // It guards nothing that could be half done on this side.
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Eal {
    /// Starts DPDK, or returns it if it was started with the same arguments. A start that
    /// failed for want of the shim may be tried again, one that DPDK refused may not.
    ///
    /// DPDK's drivers are loaded with the first start, and those for mlx4 and mlx5 change the
    /// process's environment as they are: until it returns, no other thread may start a program
    /// that inherits the environment, or read the environment through C.
    ///
    /// # Errors
    /// [`EalError`].
    pub fn start(options: &EalOptions) -> Result<Eal, EalError> {
        let mut start = START.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(start) = &*start {
            let same = start.arguments == options.arguments;
            let other = || EalError::Otherwise { running: start.arguments.clone(), given: options.arguments.clone() };
            return if same { start.result.clone() } else { Err(other()) };
        }
        let functions: &'static Functions = Box::leak(Box::new(library::load(options.shim.as_deref())?));
        let eal = Eal { functions };
        let result = eal.init(options).map(|()| eal);
        *start = Some(Start { arguments: options.arguments.clone(), result: result.clone() });
        result
    }

    /// What DPDK calls itself: `DPDK 22.11.11`.
    #[must_use]
    pub fn version(&self) -> String {
        // SAFETY: it returns a text that lives as long as the library.
        let text = unsafe { CStr::from_ptr((self.functions.version)()) };
        text.to_string_lossy().into_owned()
    }

    /// Joins two new ports of these names, which begin with `net_ring_`, by rings of `frames` frames, a power of two, for
    /// tests and measurements in one process. [`Port::open`](crate::Port::open) opens them.
    ///
    /// # Errors
    /// DPDK refuses.
    pub fn ring_pair(&self, first: &str, second: &str, frames: u32) -> Result<(), EalError> {
        let text = |name: &str| CString::new(name).map_err(|_| EalError::Zero);
        let (first, second) = (text(first)?, text(second)?);
        let _control = control();
        // SAFETY: texts of C, alive during the call; DPDK copies them.
        let result = unsafe { (self.functions.ring_pair)(first.as_ptr(), second.as_ptr(), frames) };
        if result == 0 { Ok(()) } else { Err(self.refused(&[], result)) }
    }

    /// Where the fields of all structures are, one after another: in C, and on this side.
    #[must_use]
    pub fn layouts(&self) -> (Vec<u32>, Vec<u32>) {
        let ours = crate::abi::offsets();
        let mut theirs = vec![u32::MAX; 2 * ours.len()];
        // SAFETY: it writes at most as many as there is room for.
        let count = unsafe { (self.functions.offsets)(theirs.as_mut_ptr(), theirs.len() as u32) };
        theirs.truncate(count as usize);
        (theirs, ours)
    }

    pub(crate) fn functions(&self) -> &'static Functions {
        self.functions
    }

    /// The first words of DPDK since the last call.
    pub(crate) fn reason(&self) -> String {
        let mut text = [0 as c_char; 256];
        // SAFETY: it writes into the array, at most as much as its length, with a zero.
        unsafe {
            (self.functions.reason)(text.as_mut_ptr(), text.len() as u32);
            CStr::from_ptr(text.as_ptr())
        }
        .to_string_lossy()
        .into_owned()
    }

    fn refused(&self, arguments: &[String], result: c_int) -> EalError {
        let errno = Errno::from_raw(-result);
        EalError::Refused { arguments: arguments.to_vec(), errno, said: self.reason() }
    }

    /// On a thread of its own: EAL takes the thread that starts it for its own and pins it, and
    /// what it starts inherits that.
    fn init(&self, options: &EalOptions) -> Result<(), EalError> {
        let mut all = vec!["insane".to_owned()];
        all.extend(options.arguments.iter().cloned());
        let has =
            |names: &[&str]| options.arguments.iter().any(|given| names.iter().any(|name| given.starts_with(name)));
        let cores = cores::without(&cores::allowed(), &options.keep_off);
        if !has(&["-l", "-c", "--lcores"]) && !cores.is_empty() {
            all.push(cores::as_argument(&cores));
        }
        if has(&["--no-huge"]) && !has(&["-m", "--socket-mem"]) && options.memory_mib > 0 {
            all.push("-m".to_owned());
            all.push(options.memory_mib.to_string());
        }
        let texts: Result<Vec<CString>, _> = all.iter().map(|text| CString::new(text.as_str())).collect();
        let texts = texts.map_err(|_| EalError::Zero)?;
        let init = self.functions.init;
        let thread = std::thread::Builder::new().name("dpdk-start".to_owned());
        let started = thread.spawn(move || {
            // Without the right to it, EAL's threads run where this process may.
            let _ = cores::keep_to(&cores);
            // They must live for ever: EAL keeps the addresses.
            let pointers = texts.into_iter().map(CString::into_raw).chain([std::ptr::null_mut()]);
            let pointers: &'static mut [*mut c_char] = Box::leak(pointers.collect());
            // SAFETY: texts of C that live for ever, and a null at the end, as `main` has them;
            // called once a process (`START`).
            unsafe { init((pointers.len() - 1) as c_int, pointers.as_mut_ptr()) }
        });
        // No thread, or one that panicked: as if DPDK had said so.
        let result = started.ok().and_then(|thread| thread.join().ok()).unwrap_or(-libc::EAGAIN);
        if result == 0 { Ok(()) } else { Err(self.refused(&all[1..], result)) }
    }
}

/// What C calls a port.
#[derive(Debug)]
pub(crate) struct PortPointer(pub(crate) *mut RawPort);

// SAFETY: DPDK's ports belong to no thread; that one at a time uses it, its owner sees to.
unsafe impl Send for PortPointer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_shim_is_told_and_can_be_tried_again() {
        for _ in 0..2 {
            let missing = EalOptions { shim: Some("/nosuch/shim.so".into()), ..EalOptions::default() };
            let text = Eal::start(&missing).unwrap_err().to_string();
            assert!(text.contains("/nosuch/shim.so") && text.contains("cargo xtask dpdk-shim"), "{text}");
            let other = EalOptions { shim: Some("libc.so.6".into()), ..EalOptions::default() };
            let text = Eal::start(&other).unwrap_err().to_string();
            assert!(text.contains("libc.so.6 is no library for DPDK") && text.contains("insane_dpdk_abi"), "{text}");
        }
    }
}
