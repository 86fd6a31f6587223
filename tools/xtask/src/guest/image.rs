//! The guest's first and only file system: an archive in the format `newc` that the kernel
//! unpacks into memory. Test programs are not in it, only the libraries that they need: they
//! are seen through a share, at the very path that they have on the host.
//!
//! ```text
//! newc: "070701" and 13 numbers of 8 hexadecimal digits (inode, mode, uid, gid, links, mtime,
//!       length, device 2, special device 2, length of the name with its zero, check)
//!       | name, zero, padding to 4 | bytes, padding to 4 |     ... ended by "TRAILER!!!"
//! ```

use super::fetch::{FetchError, Kernel, file_error};
use super::jobs::Job;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const LINK: u32 = 0o120_777;

/// An archive in memory.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let inode = self.names.len() + 1;
        let numbers = [inode as u32, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for number in numbers {
            self.bytes.extend_from_slice(format!("{number:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// An entry with the folders above it, if its name is new.
    fn put(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/');
        for (at, _) in name.match_indices('/') {
            if self.names.insert(name[..at].to_owned()) {
                self.entry(&name[..at], FOLDER, &[]);
            }
        }
        if self.names.insert(name.to_owned()) {
            self.entry(name, mode, content);
        }
    }

    pub fn folder(&mut self, path: &str) {
        self.put(path, FOLDER, &[]);
    }

    pub fn text(&mut self, path: &str, content: &str) {
        self.put(path, PLAIN, content.as_bytes());
    }

    pub fn script(&mut self, path: &str, content: &str) {
        self.put(path, PROGRAM, content.as_bytes());
    }

    pub fn link(&mut self, path: &str, to: &str) {
        self.put(path, LINK, to.as_bytes());
    }

    /// A file of the host.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file(&mut self, path: &str, from: &Path) -> Result<(), FetchError> {
        let content = std::fs::read(from).map_err(file_error(from))?;
        self.put(path, PROGRAM, &content);
        Ok(())
    }

    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

/// What every guest has: the kernel's modules, `busybox`, `tools` under `/usr/sbin`, the
/// libraries of these and of `programs`, and those that are `loaded` by name at run time.
pub fn base(
    kernel: &Kernel,
    tools: &[PathBuf],
    programs: &[PathBuf],
    loaded: &[PathBuf],
) -> Result<Archive, FetchError> {
    let mut archive = Archive::default();
    for folder in ["proc", "sys", "dev", "tmp", "run", "root", "mnt", "var/run", "sbin", "usr/bin"] {
        archive.folder(folder);
    }
    archive.file("bin/busybox", Path::new("/bin/busybox"))?;
    archive.link("bin/sh", "busybox");
    archive.text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n");
    archive.text("etc/group", "root:x:0:\nnogroup:x:65534:\n");
    archive.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
    // libibverbs asks here which drivers it has.
    archive.text("etc/libibverbs.d/rxe.driver", "driver rxe\n");
    for (number, module) in kernel.modules.iter().enumerate() {
        archive.file(&format!("modules/{number:03}.ko"), module)?;
    }
    for tool in tools {
        archive.file(&format!("usr/sbin/{}", tool.file_name().unwrap_or_default().to_string_lossy()), tool)?;
    }
    for library in libraries(tools.iter().chain(programs).chain(loaded))? {
        archive.file(&library, Path::new(&library))?;
    }
    for library in loaded {
        archive.file(&library.display().to_string(), library)?;
    }
    Ok(archive)
}

/// The libraries that programs load, by `ldd`: every word of its answer that is a path.
fn libraries<'p>(programs: impl Iterator<Item = &'p PathBuf>) -> Result<BTreeSet<String>, FetchError> {
    let mut command = Command::new("ldd");
    let output = command.args(programs).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = output.map_err(file_error(Path::new("ldd")))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| !line.ends_with(':'));
    Ok(lines.flat_map(str::split_whitespace).filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}

/// What is of one boot alone: its jobs, and the script that the kernel starts.
pub fn init(word: &str, shares: &[(String, PathBuf)], setup: &str, jobs: &[Job]) -> Vec<u8> {
    let mut archive = Archive::default();
    let mut script = String::from(INIT);
    for (tag, path) in shares {
        let path = path.display();
        script += &format!("mkdir -p '{path}'\n");
        script += &format!("mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro {tag} '{path}'\n");
    }
    script += setup;
    for (number, job) in jobs.iter().enumerate() {
        let Job { name, limit_seconds, .. } = job;
        let file = format!("/jobs/{number:02}");
        script += &format!("echo; echo '@@{word} begin {name}'\n");
        script += &format!("(cd /tmp; exec timeout -s KILL {limit_seconds} sh {file}) </dev/null 2>&1; status=$?\n");
        script += &format!("echo; echo \"@@{word} end {name} $status\"\n");
        archive.script(&file, &job.script);
    }
    script += &format!("echo '@@{word} done'\n{END}");
    archive.script("init", &script);
    archive.finish()
}

/// Before the jobs.
const INIT: &str = "#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
for module in /modules/*; do insmod $module || echo \"$module is not loaded\"; done
ip link set lo up
hostname guest
";

/// After them: the code goes to the exit port (0xf4), octal 020 is [`super::judge::CODE_DONE`].
const END: &str = "sleep 1
printf '\\020' | dd of=/dev/port bs=1 seek=244 count=1 2>/dev/null
poweroff -f
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_as_the_format_says() {
        let mut archive = Archive::default();
        archive.text("/etc/a", "hello");
        archive.text("etc/a", "once only");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(text.matches("070701").count(), 3, "a folder, a file, the end");
        let file = text.find("etc/a").unwrap() - 110;
        assert_eq!(&text[file..file + 6], "070701");
        assert_eq!(&text[file + 14..file + 22], "000081a4", "a plain file");
        assert_eq!(&text[file + 54..file + 62], "00000005", "its length");
        assert_eq!(&text[file + 94..file + 102], "00000006", "the length of its name");
        // 110 and 6 make a multiple of four: the content stands right behind.
        assert_eq!(&text[file + 116..file + 121], "hello");
        assert!(!text.contains("once only"));
    }

    #[test]
    fn the_code_of_the_script_is_the_one_that_is_judged() {
        let code = END.split_once("printf '\\0").unwrap().1.split_once('\'').unwrap().0;
        assert_eq!(u8::from_str_radix(code, 8), Ok(super::super::judge::CODE_DONE));
    }
}
