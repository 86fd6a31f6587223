//! One machine under QEMU, without KVM: slow, and the same everywhere.

use super::fetch::{FetchError, file_error};
use super::image;
use super::jobs::Job;
use super::judge::{JobReport, Judge};
use crate::process;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// What booting may take beside the jobs, seconds: it takes ten to fifteen.
const BOOT_SECONDS: u64 = 90;

/// Ports on loopback by which two guests are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wire {
    pub own: u16,
    pub other: u16,
}

/// What all guests of a run share.
#[derive(Debug)]
pub struct Machine {
    pub kernel: PathBuf,
    pub base: Vec<u8>,
    pub shares: Vec<(String, PathBuf)>,
    pub cache: PathBuf,
}

/// One guest.
#[derive(Debug)]
pub struct Guest<'a> {
    pub name: &'a str,
    /// What it does between boot and jobs.
    pub setup: &'a str,
    pub jobs: &'a [Job],
    pub wire: Option<Wire>,
    /// Seconds by which its clock is off at the start.
    pub clock_off_seconds: i64,
    /// Processors.
    pub cores: u32,
}

impl Machine {
    /// Boots a guest, runs its jobs and judges what it says.
    ///
    /// # Errors
    /// Its image cannot be written. What goes wrong in the guest is in the report.
    pub fn run(&self, guest: &Guest<'_>) -> Result<(Vec<JobReport>, Result<(), String>), FetchError> {
        let word = word();
        let image = self.cache.join(format!("image-{}-{}", std::process::id(), guest.name));
        let mut bytes = self.base.clone();
        bytes.extend(image::init(&word, &self.shares, guest.setup, guest.jobs));
        std::fs::write(&image, bytes).map_err(file_error(&image))?;
        let mut command = self.command(guest, &image);
        let limit_seconds = BOOT_SECONDS + guest.jobs.iter().map(|job| job.limit_seconds).sum::<u64>();
        let mut judge = Judge::new(&word, guest.jobs.iter().map(|job| job.name));
        let ending = process::watch(&mut command, Duration::from_secs(limit_seconds), |line| {
            println!("{}| {line}", guest.name);
            judge.line(line);
        });
        // One that cannot be removed is found and replaced by nobody, and harms nothing.
        let _ = std::fs::remove_file(&image);
        Ok(judge.finish(&ending, limit_seconds))
    }

    fn command(&self, guest: &Guest<'_>, image: &Path) -> Command {
        let mut command = Command::new(QEMU);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max", "-M", "q35", "-m", "2048", "-smp"]);
        command.arg(guest.cores.to_string());
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=1"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(image);
        // Nothing of the kernel on the console but what ends it: marks must stay whole.
        command.args(["-append", "console=ttyS0 loglevel=2 panic=-1 mitigations=off"]);
        for (tag, path) in &self.shares {
            let path = path.display().to_string().replace(',', ",,");
            command.arg("-virtfs");
            command.arg(format!("local,path={path},mount_tag={tag},security_model=none,readonly=on,multidevs=remap"));
        }
        if let Some(wire) = guest.wire {
            let end = |side: &str, port: u16| format!("{side}.type=inet,{side}.host=127.0.0.1,{side}.port={port}");
            let (local, remote) = (end("local", wire.own), end("remote", wire.other));
            command.args(["-netdev", &format!("dgram,id=wire,{local},{remote}")]);
            let address = format!("52:54:00:00:{:02x}:{:02x}", wire.own >> 8, wire.own & 255);
            command.args(["-device", &format!("virtio-net-pci,netdev=wire,mac={address}")]);
        }
        if guest.clock_off_seconds != 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            let seconds = now.saturating_add_signed(guest.clock_off_seconds);
            command.args(["-rtc", &format!("base={}", date(seconds))]);
        }
        // What it complains of belongs beside what it prints, and `-serial` has standard output.
        command.stderr(Stdio::inherit());
        command
    }
}

/// A word that no job knows.
fn word() -> String {
    static BOOTS: AtomicU32 = AtomicU32::new(0);
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    format!("{:x}{nanos:08x}{:x}", std::process::id(), BOOTS.fetch_add(1, Ordering::Relaxed))
}

/// UTC as QEMU wants it: `YYYY-MM-DDThh:mm:ss`. Days to dates by eras of 400 years that begin
/// in March, as H. Hinnant describes (`civil_from_days`).
fn date(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01T00:00:00");
        assert_eq!(date(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(date(1_767_225_599), "2025-12-31T23:59:59");
    }

    #[test]
    fn no_two_boots_have_one_word() {
        assert_ne!(word(), word());
    }

    #[test]
    fn two_guests_are_joined_by_their_ports() {
        let machine = Machine {
            kernel: PathBuf::from("vmlinuz"),
            base: Vec::new(),
            shares: vec![("s0".into(), PathBuf::from("/a,b"))],
            cache: PathBuf::new(),
        };
        let wire = Some(Wire { own: 5_000, other: 5_001 });
        let guest = Guest { name: "a", setup: "", jobs: &[], wire, clock_off_seconds: 0, cores: 1 };
        let command = machine.command(&guest, Path::new("image"));
        let words: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        let netdev = "dgram,id=wire,local.type=inet,local.host=127.0.0.1,local.port=5000,\
                      remote.type=inet,remote.host=127.0.0.1,remote.port=5001";
        assert!(words.iter().any(|word| word == netdev), "{words:?}");
        assert!(words.iter().any(|word| word.starts_with("local,path=/a,,b,mount_tag=s0,")), "{words:?}");
    }
}
