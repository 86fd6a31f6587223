//! What a version of a format looks like, kept beside its number.

use std::fmt::Write;
use std::path::PathBuf;

/// Set: files that are missing, or of an earlier version, are written. What is kept of a version
/// is never changed.
const WRITE: &str = "INSANE_WRITE_FORMATS";

/// Holds a format against what is kept of its version, in `golden/NAME.txt`: the version, then
/// the lines. `number` says where the number stands.
#[track_caller]
pub fn hold(name: &str, number: &str, version: u32, lines: &[String]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/formats/golden").join(format!("{name}.txt"));
    let mut ours = format!("version {version}\n");
    lines.iter().for_each(|line| writeln!(ours, "{line}").unwrap());
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    if kept == ours {
        return;
    }
    let kept_version: Option<u32> = kept.lines().next().and_then(|line| line.strip_prefix("version ")?.parse().ok());
    if std::env::var_os(WRITE).is_some() && kept_version.is_none_or(|kept| kept < version) {
        std::fs::write(&path, ours).unwrap();
        return;
    }
    let news =
        ours.lines().find(|line| kept.lines().all(|kept| kept != *line)).unwrap_or("(fewer lines, or another order)");
    let what_to_do = if kept_version == Some(version) {
        format!("it has changed, and its number has not: raise {number}")
    } else {
        format!("what is kept is of another version than {number}")
    };
    panic!(
        "format {name:?}, version {version}: {what_to_do}; then run the test with {WRITE}=1 once, and commit \
         {}\nnew: {news}",
        path.display()
    );
}

/// Bytes as text.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}
