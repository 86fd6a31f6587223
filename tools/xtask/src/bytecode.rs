//! The bytecode of the XDP program, which is checked in so that building needs no clang:
//! making it, and seeing that it is what its source says.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Where source and bytecode are.
const FOLDER: &str = "plugins/xdp/bpf";
const SOURCE: &str = "redirect.c";
const BYTECODE: &str = "redirect.o";
/// The compiler that made it: another may make other bytes of the same source. Debian 12's.
const CLANG_MAJOR: u32 = 14;
/// Without debug information: that would name folders of the machine.
const FLAGS: [&str; 7] = ["-O2", "-target", "bpf", "-Wall", "-Wextra", "-Werror", "-c"];

/// What came of comparing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Compared {
    /// The bytes are the same.
    Same,
    /// There is no such compiler here; its absence in words.
    NoClang(String),
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum BytecodeError {
    /// The compiler of the right version is missing.
    #[error("{0}")]
    NoClang(String),
    /// The compiler refuses the source.
    #[error("clang refuses {FOLDER}/{SOURCE}: {0}")]
    Refused(String),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Source and bytecode differ.
    #[error(
        "{FOLDER}/{BYTECODE} is not what clang {CLANG_MAJOR} makes of {SOURCE}; `cargo xtask bytecode` makes it anew"
    )]
    Differs,
}

/// Makes the bytecode anew.
///
/// # Errors
/// [`BytecodeError`].
pub fn make(root: &Path) -> Result<(), BytecodeError> {
    let clang = clang().map_err(BytecodeError::NoClang)?;
    compile(root, &clang, Path::new(BYTECODE))
}

/// Compiles the source once more, and compares.
///
/// # Errors
/// [`BytecodeError`].
pub fn compare(root: &Path) -> Result<Compared, BytecodeError> {
    let clang = match clang() {
        Ok(clang) => clang,
        Err(reason) => return Ok(Compared::NoClang(reason)),
    };
    let made = std::env::temp_dir().join(format!("insane-redirect-{}.o", std::process::id()));
    let compiled = compile(root, &clang, &made);
    let there = read(&root.join(FOLDER).join(BYTECODE));
    let anew = compiled.and_then(|()| read(&made));
    // It is only there if it could be made.
    let _ = std::fs::remove_file(&made);
    if there? == anew? { Ok(Compared::Same) } else { Err(BytecodeError::Differs) }
}

/// The command of the right compiler.
fn clang() -> Result<String, String> {
    let mut found = format!("there is no clang {CLANG_MAJOR}");
    for command in [format!("clang-{CLANG_MAJOR}"), "clang".to_owned()] {
        let Ok(output) = Command::new(&command).arg("--version").output() else { continue };
        match major(&String::from_utf8_lossy(&output.stdout)) {
            Some(CLANG_MAJOR) => return Ok(command),
            other => {
                let version = other.map_or_else(|| "of no known version".to_owned(), |major| major.to_string());
                found = format!("{command} is {version}; the bytecode is of clang {CLANG_MAJOR}");
            }
        }
    }
    Err(found)
}

/// Of `… clang version 14.0.6 …`.
fn major(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("version ")?;
    version.split('.').next()?.parse().ok()
}

fn compile(root: &Path, clang: &str, to: &Path) -> Result<(), BytecodeError> {
    let folder = root.join(FOLDER);
    // The name of the source is in the bytecode: as it stands here, without its folder.
    let output = Command::new(clang).args(FLAGS).arg(SOURCE).arg("-o").arg(to).current_dir(&folder).output();
    let output = output.map_err(|source| BytecodeError::File { path: folder, source })?;
    if output.status.success() {
        Ok(())
    } else {
        Err(BytecodeError::Refused(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BytecodeError> {
    std::fs::read(path).map_err(|source| BytecodeError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_tells_its_version() {
        assert_eq!(major("Debian clang version 14.0.6\nTarget: x86_64-pc-linux-gnu"), Some(14));
        assert_eq!(major("clang version 19.1.7 (https://example)"), Some(19));
        assert_eq!(major("gcc (Debian) 12"), None);
    }

    #[test]
    fn what_is_not_its_source_is_noticed() {
        let root = std::env::temp_dir().join(format!("insane-bytecode-{}", std::process::id()));
        let folder = root.join(FOLDER);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(SOURCE), "int one(void) { return 1; }\n").unwrap();
        std::fs::write(folder.join(BYTECODE), "something else").unwrap();
        let compared = compare(&root);
        let made = make(&root).and_then(|()| compare(&root));
        std::fs::write(folder.join(SOURCE), "int one(void) { return 2; }\n").unwrap();
        let changed = compare(&root);
        std::fs::remove_dir_all(&root).unwrap();
        if let Ok(Compared::NoClang(reason)) = compared {
            eprintln!("passed over: {reason}");
            return;
        }
        assert!(matches!(compared, Err(BytecodeError::Differs)), "{compared:?}");
        assert!(matches!(made, Ok(Compared::Same)), "{made:?}");
        assert!(matches!(changed, Err(BytecodeError::Differs)), "{changed:?}");
    }
}
