//! The file in which a schedule of several hosts outlives the runtime.
//!
//! ```text
//! insane-schedule 1 0123456789abcdef
//! {"host": "cell-a", "current": {…}, "next": null, "marks": […]}
//! ```
//! The number is the digest of `insane_certificate::text` over all bytes that follow its line,
//! so that no file in which a bit differs is read. A file is written beside the old one, synced,
//! and put in its place; then the directory is synced: after a crash of runtime or host there
//! is the old one or the new one, whole. It belongs to the runtime's user alone.

use crate::server::read_certificate;
use insane_certificate::{Certificate, text};
use insane_core::TaiTime;
use insane_overlay::activation::ScheduleId;
use insane_overlay::agreement::Standing;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const NAME: &str = "insane-schedule ";
/// The version of the format: raised when the body has other fields, or one means another thing.
/// A test below keeps what it looks like.
const VERSION: u32 = 1;
/// Largest file that is read: two certificates with every byte escaped, and the rest.
const BYTES_MAX: u64 = 16 << 20;

/// One schedule: that in force, or one that is about to take over.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The instant of TAI of its activation, or of when the schedule before was forgotten.
    pub(crate) since_ns: u64,
    /// All its hosts share one kernel.
    pub(crate) local_clock: bool,
    /// The text of its certificate; `None`: no schedule is in force.
    pub(crate) certificate: Option<String>,
}

impl Record {
    pub(crate) fn standing(&self) -> Standing {
        let schedule = self.certificate.as_ref().map(|text| ScheduleId(text::digest(text.as_bytes())));
        Standing { since: TaiTime(self.since_ns), schedule }
    }

    /// The certificate, believed by the checker.
    pub(crate) fn read(&self) -> Result<Option<Arc<Certificate>>, String> {
        let read = |text: &String| read_certificate(text.clone().into_bytes()).map(Arc::new);
        self.certificate.as_ref().map(read).transpose()
    }
}

/// What was not as the schedule in force assumes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mark {
    pub(crate) datapath: String,
    pub(crate) assumption: String,
    pub(crate) violations: u64,
    pub(crate) first_tai_ns: u64,
    pub(crate) last_tai_ns: u64,
}

/// What a file says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    /// The host's name: certificates know it by that.
    pub(crate) host: String,
    /// In force.
    pub(crate) current: Option<Record>,
    /// Committed, and not yet known to be in force.
    pub(crate) next: Option<Record>,
    pub(crate) marks: Vec<Mark>,
}

/// Why a file says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptError {
    #[error("it cannot be read ({0})")]
    Io(#[from] io::Error),
    #[error("it does not begin as a kept schedule does")]
    NoMark,
    #[error(
        "it is of version {0}, this runtime reads version {VERSION}: activate the schedule again, or run the build that wrote it"
    )]
    OtherVersion(u32),
    #[error("it is damaged: its digest is wrong")]
    Altered,
    #[error("it is whole, and no kept schedule ({0})")]
    Malformed(String),
}

impl Kept {
    fn encode(&self) -> io::Result<Vec<u8>> {
        let body = serde_json::to_vec(self).map_err(io::Error::from)?;
        let mut bytes = format!("{NAME}{VERSION} {:016x}\n", text::digest(&body)).into_bytes();
        bytes.extend(body);
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Kept, KeptError> {
        let rest = bytes.strip_prefix(NAME.as_bytes()).ok_or(KeptError::NoMark)?;
        let at = rest.iter().position(|byte| *byte == b'\n').ok_or(KeptError::NoMark)?;
        let (line, body) = (&rest[..at], &rest[at + 1..]);
        let line = std::str::from_utf8(line).map_err(|_| KeptError::NoMark)?;
        let (version, number) = line.split_once(' ').ok_or(KeptError::NoMark)?;
        if version != VERSION.to_string() {
            return Err(version.parse().map_or(KeptError::NoMark, KeptError::OtherVersion));
        }
        // The letters as they were written: a number has other spellings.
        if number != format!("{:016x}", text::digest(body)) {
            return Err(KeptError::Altered);
        }
        serde_json::from_slice(body).map_err(|error| KeptError::Malformed(error.to_string()))
    }

    /// Reads a file. `None`: there is none.
    pub(crate) fn read(path: &Path) -> Result<Option<Kept>, KeptError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut bytes = Vec::new();
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(KeptError::Malformed(format!("more than {BYTES_MAX} bytes")));
        }
        Kept::decode(&bytes).map(Some)
    }

    /// Puts a file in place of the one before.
    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let mut new = path.to_owned().into_os_string();
        new.push(".new");
        let new = PathBuf::from(new);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&self.encode()?)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        let record = |since_ns| Record { since_ns, local_clock: false, certificate: Some("a \"text\"\n".into()) };
        let mark = Mark {
            datapath: "main".into(),
            assumption: "e_turn".into(),
            violations: 3,
            first_tai_ns: 5,
            last_tai_ns: 6,
        };
        Kept { host: "cell-a".into(), current: Some(record(1)), next: Some(record(2)), marks: vec![mark] }
    }

    #[test]
    fn what_is_written_is_read_and_a_file_that_differs_by_a_bit_is_not() {
        let bytes = kept().encode().unwrap();
        assert_eq!(Kept::decode(&bytes).unwrap(), kept());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Kept::decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Kept::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
        let body = br#"{"host": "a", "current": null, "next": null, "marks": [], "more": 1}"#;
        let forged = [format!("{NAME}{VERSION} {:016x}\n", text::digest(body)).as_bytes(), body].concat();
        assert!(matches!(Kept::decode(&forged), Err(KeptError::Malformed(_))), "an unknown field");
        let other = String::from_utf8(bytes).unwrap().replacen(" 1 ", " 2 ", 1);
        let error = Kept::decode(other.as_bytes()).unwrap_err();
        assert!(matches!(error, KeptError::OtherVersion(2)));
        assert!(error.to_string().starts_with("it is of version 2, this runtime reads version 1: "), "{error}");
    }

    /// Who changes this raises [`VERSION`], and writes down here what it is then.
    #[test]
    fn the_format_is_what_its_number_says() {
        let record = r#"{"since_ns":1,"local_clock":false,"certificate":"a \"text\"\n"}"#;
        let next = record.replace('1', "2");
        let mark = r#"{"datapath":"main","assumption":"e_turn","violations":3,"first_tai_ns":5,"last_tai_ns":6}"#;
        let body = format!(r#"{{"host":"cell-a","current":{record},"next":{next},"marks":[{mark}]}}"#);
        let kept_form = format!("insane-schedule 1 {:016x}\n{body}", text::digest(body.as_bytes()));
        let bytes = String::from_utf8(kept().encode().unwrap()).unwrap();
        assert_eq!(bytes, kept_form, "it has changed: raise `VERSION`, then this");
    }

    #[test]
    fn a_file_takes_the_place_of_the_one_before_and_half_of_one_of_none() {
        let folder = std::env::temp_dir().join(format!("insane-kept-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("a.sock.schedule");
        assert!(Kept::read(&path).unwrap().is_none());
        kept().write(&path).unwrap();
        let later = Kept { next: None, ..kept() };
        later.write(&path).unwrap();
        // Whoever was killed while writing left this.
        fs::write(folder.join("a.sock.schedule.new"), &kept().encode().unwrap()[..40]).unwrap();
        assert_eq!(Kept::read(&path).unwrap(), Some(later.clone()));
        later.write(&path).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left over");
        assert!(kept().write(&folder.join("absent/a.schedule")).is_err());
        assert!(matches!(Kept::read(&folder), Err(KeptError::Io(_))), "a folder is no file");
        fs::remove_dir_all(&folder).unwrap();
    }
}
