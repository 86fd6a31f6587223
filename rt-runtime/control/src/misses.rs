//! The file in which missed slots are recorded: beside the control socket, so that who may not
//! ask the runtime any more, because it died, can still read why messages were late.
//!
//! One file a life of the runtime; that of the life before is kept under another name, older
//! ones are not. It belongs to the runtime's user alone: it tells of all tenants. Its bytes are
//! there from the start, so writing it needs no space later.

use insane_config::Plan;
use insane_core::{Cause, Incarnation, MonoTime};
use insane_shm::misses::{BLOCK_BYTES, Miss, MissLog, MissReader, file_of};
use insane_shm::region::Region;
use insane_wire::status::{Counters, MissStatus};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Misses that a report tells of each datapath.
const TOLD: u64 = 8;

/// Where each datapath of the plan is to note its misses.
#[derive(Debug)]
pub(crate) struct MissFile {
    region: Option<Arc<Region>>,
    life: u64,
    /// The file has this name until the socket is this runtime's, and that name afterwards: a
    /// runtime that may not have the socket takes no record away from the one that has it.
    unpublished: Option<(PathBuf, PathBuf)>,
}

impl MissFile {
    /// Makes the file where a datapath has slots and the runtime a socket. Without it the
    /// record is in memory, and gone with the runtime: that is told.
    pub(crate) fn new(plan: &Plan, life: Incarnation, degraded: &mut Vec<String>) -> Self {
        let has_slots = plan.datapaths.iter().any(|own| crate::plan_spec::slot_spec(plan, own).is_some());
        let Some(socket) = plan.control.socket.as_deref().filter(|_| has_slots) else {
            return MissFile::in_memory(life.0);
        };
        MissFile::at(socket, plan.datapaths.len(), life.0).unwrap_or_else(|error| {
            degraded.push(told(socket, &error));
            MissFile::in_memory(life.0)
        })
    }

    const fn in_memory(life: u64) -> Self {
        MissFile { region: None, life, unpublished: None }
    }

    fn at(socket: &Path, datapaths: usize, life: u64) -> io::Result<Self> {
        if let Some(parent) = socket.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
            // As for the socket, which comes later; that tells if it cannot be.
            let _ = fs::create_dir(parent);
        }
        let path = file_of(socket);
        let mut name = path.clone().into_os_string();
        name.push(format!(".{life}"));
        let new = PathBuf::from(name);
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
        let mut made = MissFile { region: None, life, unpublished: Some((new, path)) };
        let bytes = datapaths * BLOCK_BYTES;
        file.write_all(&vec![0; bytes])?;
        let region = Region::map_writable(file.as_fd(), bytes)?;
        region.prefault()?;
        made.region = Some(region);
        Ok(made)
    }

    /// The socket is this runtime's: so are the names beside it.
    pub(crate) fn publish(&mut self, degraded: &mut Vec<String>) {
        let Some((new, path)) = self.unpublished.take() else { return };
        let mut last = path.clone().into_os_string();
        last.push(".last");
        // There may be none.
        let _ = fs::rename(&path, last);
        if let Err(error) = fs::rename(&new, &path) {
            degraded.push(format!(
                "missed slots are recorded in {}, not in {} ({error})",
                new.display(),
                path.display()
            ));
        }
    }

    pub(crate) fn log(&self, at: usize, name: &str) -> MissLog {
        let mapped = self.region.clone().and_then(|region| MissLog::new(region, at, self.life, name));
        mapped.unwrap_or_else(|| MissLog::private(self.life, name))
    }
}

impl Drop for MissFile {
    fn drop(&mut self) {
        if let Some((new, _)) = &self.unpublished {
            let _ = fs::remove_file(new);
        }
    }
}

fn told(socket: &Path, error: &io::Error) -> String {
    let path = file_of(socket);
    format!("missed slots are not recorded in {} ({error}); the record is gone with the runtime", path.display())
}

/// By cause, those that there are.
pub(crate) fn counts(reader: &MissReader) -> Counters {
    let counts = Cause::ALL.into_iter().map(|cause| (cause.name().to_owned(), reader.count(cause)));
    counts.filter(|(_, count)| *count > 0).collect()
}

/// The last ones.
pub(crate) fn last(reader: &MissReader, now: MonoTime) -> Vec<MissStatus> {
    let row = |(_, miss): (u64, Miss)| MissStatus {
        source: miss.source,
        sequence: miss.sequence,
        messages: miss.messages,
        planned_ns: miss.planned.0,
        noticed_ns: miss.noticed.0,
        ago_s: now.since(miss.noticed).0 as f64 / 1e9,
        cause: miss.cause.name().to_owned(),
        fate: miss.fate.name().to_owned(),
    };
    reader.since(reader.written().saturating_sub(TOLD)).into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use insane_core::Fate;
    use insane_shm::misses::{last_file_of, read};

    #[test]
    fn the_record_of_the_life_before_is_kept_and_what_is_no_record_is_refused() {
        let dir = std::env::temp_dir().join(format!("insane-misses-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let socket = dir.join("a.sock");
        let miss = |sequence| Miss {
            sequence,
            source: 3,
            planned: MonoTime(1_000),
            noticed: MonoTime(2_000),
            emitted: MonoTime(500),
            cause: Cause::WakeLate,
            fate: Fate::Dropped,
            messages: 1,
            from: MonoTime(900),
            to: MonoTime(1_900),
        };
        for life in 1..=3 {
            let mut file = MissFile::at(&socket, 2, life).unwrap();
            file.publish(&mut Vec::new());
            let log = file.log(1, "fast");
            log.note(&miss(life));
            let readers = read(&file_of(&socket)).unwrap();
            assert_eq!((readers.len(), readers[0].life(), readers[0].name()), (1, life, "fast".to_owned()));
            assert_eq!(readers[0].since(0), [(0, miss(life))]);
            assert_eq!(counts(&readers[0]), Counters::from([("wake late".to_owned(), 1)]));
            let told = last(&readers[0], MonoTime(1_000_002_000));
            assert_eq!((told[0].sequence, told[0].ago_s, told[0].fate.as_str()), (life, 1.0, "dropped"));
        }
        // One that never gets the socket leaves everything as it was.
        drop(MissFile::at(&socket, 2, 4).unwrap());
        assert_eq!(read(&file_of(&socket)).unwrap()[0].life(), 3);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 2);
        let before = read(&last_file_of(&socket)).unwrap();
        assert_eq!((before[0].life(), before[0].since(0)), (2, vec![(0, miss(2))]));
        fs::write(dir.join("short"), [0; 10]).unwrap();
        fs::write(dir.join("zero"), vec![0; BLOCK_BYTES]).unwrap();
        assert!(["short", "zero", "absent"].iter().all(|name| read(&dir.join(name)).is_err()));
        assert!(read(&dir).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
