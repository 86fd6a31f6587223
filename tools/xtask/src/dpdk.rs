//! The library in C that links DPDK (`plugins/dpdk-sys/shim`), made where DPDK's headers are.

use crate::process;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FOLDER: &str = "plugins/dpdk-sys/shim";
const SOURCE: &str = "shim.c";
/// As the runtime looks for it.
const LIBRARY: &str = "libinsane_dpdk.so";
/// Debian's package with the headers, whose version the name below asks for.
pub const PACKAGE: &str = "libdpdk-dev";
/// By which the package is known to be there.
pub const HEADERS: &str = "/usr/include/dpdk/rte_ethdev.h";
/// What the shim is written for.
const VERSION: [&str; 2] = ["libdpdk >= 22.11", "libdpdk < 22.12"];
/// What of DPDK it calls; drivers are loaded by DPDK itself.
const LIBRARIES: [&str; 6] =
    ["-lrte_ethdev", "-lrte_mbuf", "-lrte_mempool", "-lrte_ring", "-lrte_eal", "-lrte_net_ring"];
const FLAGS: [&str; 9] =
    ["-O2", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror", "-pthread"];

/// Why there is no shim.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// DPDK is not here.
    #[error("there is no DPDK 22.11 to build with ({0}): apt-get install {PACKAGE} pkg-config gcc")]
    NoDpdk(String),
    /// The compiler refuses the source.
    #[error("the C compiler refuses {FOLDER}/{SOURCE}: {0}")]
    Refused(String),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Makes the shim and puts it where cargo puts executables; returns where it is.
///
/// # Errors
/// [`ShimError`].
pub fn make(root: &Path) -> Result<Vec<PathBuf>, ShimError> {
    let asked = run(Command::new("pkg-config").arg("--cflags").args(VERSION)).map_err(ShimError::NoDpdk)?;
    let flags = String::from_utf8_lossy(&asked.stdout).into_owned();
    let target = process::target(root);
    std::fs::create_dir_all(&target).map_err(|source| ShimError::File { path: target.clone(), source })?;
    // Under another name first: a runtime may have the other loaded.
    let made = target.join(format!("{LIBRARY}.{}", std::process::id()));
    let mut compiler = Command::new("cc");
    compiler.current_dir(root.join(FOLDER)).args(FLAGS).args(flags.split_whitespace());
    compiler.arg(SOURCE).arg("-o").arg(&made).arg("-Wl,--as-needed").args(LIBRARIES);
    run(&mut compiler).map_err(ShimError::Refused)?;
    let placed = ["debug", "release", crate::optimised::PROFILE].map(|profile| place(&made, &target.join(profile)));
    let removed = std::fs::remove_file(&made).map_err(|source| ShimError::File { path: made, source });
    let placed = placed.into_iter().collect::<Result<Vec<_>, _>>()?;
    removed.map(|()| placed)
}

fn place(made: &Path, folder: &Path) -> Result<PathBuf, ShimError> {
    let (new, path) = (folder.join(format!("{LIBRARY}.new")), folder.join(LIBRARY));
    let of = |source| ShimError::File { path: path.clone(), source };
    std::fs::create_dir_all(folder).map_err(of)?;
    std::fs::copy(made, &new).map_err(of)?;
    std::fs::rename(&new, &path).map_err(of)?;
    Ok(path)
}

/// What it printed, or why it failed.
fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().to_string_lossy()))?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "))
    }
}
