//! A bundle: a folder with a root file system and the `config.json` of the OCI.

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where a container finds the directory of the control socket.
pub const SOCKET_FOLDER: &str = "/run/insane";
/// Where it finds its program.
const PROGRAM: &str = "/bin/program";
/// See the file.
const HOOK: &str = include_str!("../rt-group.sh");

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// A file could not be made or copied.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// It is not known what the program is linked with.
    #[error("`ldd {program}` says: {said}")]
    Libraries {
        /// The program.
        program: PathBuf,
        /// What was said.
        said: String,
    },
}

/// What a container is.
#[derive(Clone, Debug)]
pub struct Contents<'a> {
    /// Its host name.
    pub name: &'a str,
    /// What runs in it, as process 1.
    pub program: &'a Path,
    /// With these arguments.
    pub arguments: &'a [String],
    /// User and group.
    pub user: u32,
    /// The directory of the control socket, on the host.
    pub sockets: &'a Path,
}

/// A bundle on disk.
#[derive(Clone, Debug)]
pub struct Bundle {
    folder: PathBuf,
}

impl Bundle {
    /// Makes one in `folder`, which must not exist.
    ///
    /// # Errors
    /// See [`BundleError`].
    pub fn create(folder: &Path, contents: &Contents<'_>) -> Result<Self, BundleError> {
        let root = folder.join("rootfs");
        for place in ["bin", "dev", "proc", &SOCKET_FOLDER[1..]] {
            make_folder(&root.join(place))?;
        }
        copy(contents.program, &root.join(&PROGRAM[1..]))?;
        for library in libraries(contents.program)? {
            let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
            make_folder(inside.parent().unwrap_or(&root))?;
            copy(&library, &inside)?;
        }
        let hook = folder.join("rt-group.sh");
        write(&hook, HOOK)?;
        set_mode(&hook, 0o755)?;
        write(&folder.join("config.json"), &config(contents, &hook).to_string())?;
        Ok(Bundle { folder: folder.to_owned() })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The container's configuration (OCI runtime specification 1.0.2). There are no `rlimits`:
/// raising them would need a right, and the daemon gives what they are for.
#[must_use]
pub fn config(contents: &Contents<'_>, hook: &Path) -> Value {
    let mut arguments = vec![PROGRAM.to_owned()];
    arguments.extend_from_slice(contents.arguments);
    let hidden = ["nosuid", "nodev", "noexec"];
    json!({
        "ociVersion": "1.0.2",
        "hostname": contents.name,
        "process": {
            "terminal": false,
            "user": { "uid": contents.user, "gid": contents.user },
            "args": arguments,
            "env": [],
            "cwd": "/",
            "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] },
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": hidden },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
              "options": ["nosuid", "noexec", "mode=755", "size=64k"] },
            { "destination": SOCKET_FOLDER, "type": "bind", "source": contents.sockets,
              "options": ["bind", "ro", "nosuid", "nodev", "noexec"] },
        ],
        "hooks": { "createRuntime": [{ "path": hook }] },
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" },
            ],
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}

/// The files of shared libraries that a program needs, its loader among them; none for a
/// program that is linked statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, BundleError> {
    let failed = |said: String| BundleError::Libraries { program: program.to_owned(), said };
    let output = Command::new("ldd").arg(program).output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if said.contains("not a dynamic executable") || said.contains("statically linked") {
        return Ok(Vec::new());
    }
    if said.contains("not found") || !output.status.success() {
        return Err(failed(said.trim().to_owned()));
    }
    Ok(library_paths(&said))
}

/// The absolute paths in what `ldd` prints.
fn library_paths(said: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    said.lines().filter_map(path).collect()
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> BundleError {
    move |error| BundleError::File { path: path.to_owned(), error }
}

fn make_folder(path: &Path) -> Result<(), BundleError> {
    std::fs::create_dir_all(path).map_err(file_error(path))
}

fn copy(from: &Path, to: &Path) -> Result<(), BundleError> {
    std::fs::copy(from, to).map_err(file_error(from))?;
    set_mode(to, 0o755)
}

fn write(path: &Path, text: &str) -> Result<(), BundleError> {
    std::fs::write(path, text).map_err(file_error(path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), BundleError> {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(file_error(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents<'a>(arguments: &'a [String]) -> Contents<'a> {
        let sockets = Path::new("/srv/sockets");
        Contents { name: "cell", program: Path::new("/bin/sh"), arguments, user: 61_001, sockets }
    }

    #[test]
    fn libraries_are_read_from_ldd_with_their_loader() {
        let said = "\tlinux-vdso.so.1 (0x00007f)\n\tlibgcc_s.so.1 => /lib/x/libgcc_s.so.1 (0x7f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let expected = ["/lib/x/libgcc_s.so.1", "/lib64/ld-linux-x86-64.so.2"].map(PathBuf::from);
        assert_eq!(library_paths(said), expected);
    }

    #[test]
    fn a_container_has_no_right_and_no_way_to_one() {
        let config = config(&contents(&["controller".into()]), Path::new("/hook"));
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            assert_eq!(config["process"]["capabilities"][set], json!([]), "{set}");
        }
        assert_eq!(config["process"]["noNewPrivileges"], true);
        assert_eq!(config["process"]["user"]["uid"], 61_001);
        assert_eq!(config["process"]["args"], json!(["/bin/program", "controller"]));
        assert!(config["process"].get("rlimits").is_none());
        assert_eq!(config["root"]["readonly"], true);
        let binds: Vec<&Value> =
            config["mounts"].as_array().unwrap().iter().filter(|mount| mount["type"] == "bind").collect();
        assert_eq!(binds.len(), 1);
        assert_eq!((&binds[0]["source"], &binds[0]["destination"]), (&json!("/srv/sockets"), &json!("/run/insane")));
    }

    #[test]
    fn a_bundle_holds_its_program_with_all_libraries_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("insane-bundle-{}", std::process::id()));
        let bundle = Bundle::create(&folder, &contents(&[])).unwrap();
        let root = bundle.folder().join("rootfs");
        assert!(root.join("bin/program").is_file() && root.join("run/insane").is_dir());
        for library in libraries(Path::new("/bin/sh")).unwrap() {
            assert!(root.join(library.strip_prefix("/").unwrap()).is_file(), "{}", library.display());
        }
        assert_eq!(std::fs::read_dir(root.join("bin")).unwrap().count(), 1);
        let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
        assert!(serde_json::from_str::<Value>(&text).unwrap()["hooks"]["createRuntime"][0]["path"].is_string());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
