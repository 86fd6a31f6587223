//! The kernel of the guest: Debian's PREEMPT_RT kernel, fetched by apt and unpacked, not
//! installed. Kept under the target folder, by its version.

use crate::process::{self, Ending};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The package that always depends on the newest one.
const NEWEST: &str = "linux-image-rt-amd64";
/// What the guest loads; what these need is found in the modules themselves.
const WANTED: &[&str] = &[
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "virtio_net",
    "veth",
    "macvlan",
    "sch_tbf",
    "sch_mqprio",
    "sch_etf",
    "sch_taprio",
    // rdma_rxe asks the kernel's ciphers for a check sum of this name.
    "crc32_generic",
    "rdma_rxe",
    "ib_uverbs",
    "rdma_ucm",
];
const FETCH_LIMIT: Duration = Duration::from_secs(300);
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A command failed.
    #[error("{what} failed ({ending})")]
    Command {
        /// What it was for.
        what: &'static str,
        /// How it ended.
        ending: String,
    },
    /// apt knows no such kernel.
    #[error("apt knows no kernel that {NEWEST} depends on; apt-get update brings its lists")]
    Unknown,
    /// A module is not in the package.
    #[error("the kernel has no module {0}")]
    NoModule(String),
}

/// A kernel, and the modules that the guest loads, in that order.
#[derive(Debug)]
pub struct Kernel {
    pub image: PathBuf,
    pub modules: Vec<PathBuf>,
}

pub fn file_error(path: &Path) -> impl FnOnce(io::Error) -> FetchError + '_ {
    move |error| FetchError::File { path: path.to_owned(), error }
}

/// The kernel from `cache`, or from apt; where that fails, once more with fresh lists.
///
/// # Errors
/// [`FetchError`]. Nothing half done is taken for a kernel later.
pub fn kernel(cache: &Path) -> Result<Kernel, FetchError> {
    fetched(cache).or_else(|error| {
        println!("{error}; with fresh lists, perhaps");
        let mut update = Command::new("apt-get");
        update.args(["update", "-q"]);
        // Judged by what comes of it.
        let _ = process::run(&mut update, FETCH_LIMIT, |_| {});
        fetched(cache)
    })
}

fn fetched(cache: &Path) -> Result<Kernel, FetchError> {
    let package = newest_package()?;
    let home = cache.join(&package);
    // One with other modules is of an older state of this list.
    let list = home.join("wanted");
    if std::fs::read_to_string(&list).is_ok_and(|wanted| wanted != WANTED.join("\n")) || !list.is_file() {
        let _ = std::fs::remove_dir_all(&home);
    }
    if !home.is_dir() {
        println!("fetching {package}");
        let fresh = cache.join("unpacking");
        if fresh.exists() {
            std::fs::remove_dir_all(&fresh).map_err(file_error(&fresh))?;
        }
        std::fs::create_dir_all(&fresh).map_err(file_error(&fresh))?;
        unpack(&package, &fresh)?;
        std::fs::rename(&fresh, &home).map_err(file_error(&home))?;
    }
    let names = std::fs::read_to_string(home.join("modules")).map_err(file_error(&home))?;
    let modules = names.lines().map(|name| home.join(name)).collect();
    Ok(Kernel { image: home.join("vmlinuz"), modules })
}

fn newest_package() -> Result<String, FetchError> {
    let mut found = None;
    let mut command = Command::new("apt-cache");
    command.args(["depends", NEWEST]).stderr(Stdio::null());
    let ending = process::watch(&mut command, QUERY_LIMIT, |line| {
        if let Some(name) = line.trim().strip_prefix("Depends: ")
            && name.starts_with("linux-image-")
        {
            found.get_or_insert_with(|| name.to_owned());
        }
    });
    succeeded("asking apt for the kernel's name", &ending)?;
    found.ok_or(FetchError::Unknown)
}

/// Puts the kernel, its modules and their order into `home`.
fn unpack(package: &str, home: &Path) -> Result<(), FetchError> {
    let mut download = Command::new("apt-get");
    // Where apt's own user may not write, it says so and goes on as who runs it.
    download.args(["download", "-q", package]).current_dir(home).stderr(Stdio::null());
    succeeded("apt-get download", &process::watch(&mut download, FETCH_LIMIT, |_| {}))?;
    let archive = files_in(home)?.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb"));
    let archive = archive.ok_or(FetchError::Unknown)?;
    let all = home.join("all");
    let mut extract = Command::new("dpkg-deb");
    extract.arg("-x").arg(&archive).arg(&all);
    succeeded("dpkg-deb -x", &process::watch(&mut extract, FETCH_LIMIT, |_| {}))?;
    let image = files_in(&all.join("boot"))?.into_iter().find(|path| name_of(path).starts_with("vmlinuz"));
    let image = image.ok_or(FetchError::Unknown)?;
    std::fs::rename(&image, home.join("vmlinuz")).map_err(file_error(&image))?;
    let mut names = Vec::new();
    for module in in_order(&modules_below(&all.join("lib/modules"))?, WANTED)? {
        let name = name_of(&module);
        std::fs::rename(&module, home.join(&name)).map_err(file_error(&module))?;
        names.push(name);
    }
    let list = home.join("modules");
    std::fs::write(&list, names.join("\n")).map_err(file_error(&list))?;
    let list = home.join("wanted");
    std::fs::write(&list, WANTED.join("\n")).map_err(file_error(&list))?;
    std::fs::remove_dir_all(&all).map_err(file_error(&all))?;
    std::fs::remove_file(&archive).map_err(file_error(&archive))
}

fn succeeded(what: &'static str, ending: &Ending) -> Result<(), FetchError> {
    match ending {
        Ending::Exited(status) if status.success() => Ok(()),
        other => Err(FetchError::Command { what, ending: format!("{other:?}") }),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let entries = std::fs::read_dir(folder).map_err(file_error(folder))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// All modules below a folder, by their name with `_` for `-`.
fn modules_below(folder: &Path) -> Result<BTreeMap<String, PathBuf>, FetchError> {
    let mut modules = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in files_in(&folder)? {
            // A link to the build folder leads out of the package.
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Some(name) = name_of(&path).strip_suffix(".ko") {
                modules.insert(name.replace('-', "_"), path);
            }
        }
    }
    Ok(modules)
}

/// The wanted modules and all that they need, each behind what it needs.
fn in_order(modules: &BTreeMap<String, PathBuf>, wanted: &[&str]) -> Result<Vec<PathBuf>, FetchError> {
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    // A name is taken from the stack when all it needs has been put out before it.
    let mut stack: Vec<(String, bool)> = wanted.iter().rev().map(|name| ((*name).to_owned(), false)).collect();
    while let Some((name, is_ready)) = stack.pop() {
        let path = modules.get(&name).ok_or_else(|| FetchError::NoModule(name.clone()))?;
        if is_ready {
            order.push(path.clone());
            continue;
        }
        if !seen.insert(name.clone()) {
            continue;
        }
        let bytes = std::fs::read(path).map_err(file_error(path))?;
        stack.push((name, true));
        stack.extend(needs(&bytes).into_iter().map(|need| (need, false)));
    }
    Ok(order)
}

/// What a module needs: the words behind `depends=` in its section `.modinfo`, which is a row
/// of texts with a zero behind each.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|bytes| bytes == KEY) else { return Vec::new() };
    let rest = &module[at + KEY.len()..];
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let words = String::from_utf8_lossy(&rest[..end]).replace('-', "_");
    words.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_read_from_the_module() {
        assert_eq!(needs(b"\x7fELF\0alias=x\0depends=virtio,virtio-ring\0name=y\0"), ["virtio", "virtio_ring"]);
        assert_eq!(needs(b"a\0depends=\0retpoline=Y\0"), [""; 0]);
        assert_eq!(needs(b"garbage"), [""; 0]);
    }

    #[test]
    fn modules_come_behind_what_they_need_and_once() {
        let folder = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        let nested = folder.join("6.1/kernel/net");
        std::fs::create_dir_all(&nested).unwrap();
        for (name, text) in [("a", "\0depends=b,c-d\0"), ("b", "\0depends=c_d\0"), ("c-d", "\0depends=\0"), ("e", "")] {
            std::fs::write(nested.join(format!("{name}.ko")), text).unwrap();
        }
        let modules = modules_below(&folder).unwrap();
        let order: Vec<String> =
            in_order(&modules, &["e", "a", "b"]).unwrap().iter().map(|path| name_of(path)).collect();
        assert_eq!(order, ["e.ko", "c-d.ko", "b.ko", "a.ko"]);
        assert!(matches!(in_order(&modules, &["f"]), Err(FetchError::NoModule(name)) if name == "f"));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
