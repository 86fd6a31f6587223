//! What a configuration is checked against: the machine, and the rights of the user.
//!
//! Read from `/proc` and `/sys` only, so that this crate needs no system call of its
//! own. What cannot be read is unknown, and what is unknown refuses nothing.

use std::fs;

/// The machine and the rights of the calling process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The host's name; the default of `host.name`.
    pub hostname: String,
    /// Effective user of this process; the default member of the default domain.
    pub uid: u32,
    /// Cores that are on line; `None`: unknown, or the file is for another machine.
    pub cores: Option<Vec<u16>>,
    /// Cores that the kernel keeps free of other threads (`isolcpus`); `None`: unknown.
    pub isolated: Option<Vec<u16>>,
    /// `MemAvailable`, bytes.
    pub available_bytes: Option<u64>,
    /// What this process may lock, bytes; `None`: without limit, or unknown.
    pub lockable_bytes: Option<u64>,
}

impl Machine {
    /// This machine, and the rights of this process.
    #[must_use]
    pub fn detect() -> Machine {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Machine {
            hostname: hostname(),
            uid: nth_word(&status, "Uid:", 1).and_then(|word| word.parse().ok()).unwrap_or(0),
            cores: fs::read_to_string("/sys/devices/system/cpu/online").ok().and_then(|list| core_list(&list)),
            isolated: fs::read_to_string("/sys/devices/system/cpu/isolated").ok().and_then(|list| isolated(&list)),
            available_bytes: fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)),
            lockable_bytes: if may_lock(&status) { None } else { lockable(&limits) },
        }
    }

    /// A machine of which nothing is known but its name: for files of other hosts.
    #[must_use]
    pub fn unknown() -> Machine {
        Machine {
            hostname: "localhost".into(),
            uid: 0,
            cores: None,
            isolated: None,
            available_bytes: None,
            lockable_bytes: None,
        }
    }
}

fn hostname() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".into() } else { name.into() }
}

/// The `n`th word after `key` at the start of a line.
fn nth_word<'a>(text: &'a str, key: &str, n: usize) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).and_then(|rest| rest.split_whitespace().nth(n))
}

/// Whether the effective capabilities hold CAP_IPC_LOCK, which lifts the limit.
fn may_lock(status: &str) -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    nth_word(status, "CapEff:", 0)
        .and_then(|hex| u64::from_str_radix(hex, 16).ok())
        .is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

fn lockable(limits: &str) -> Option<u64> {
    nth_word(limits, "Max locked memory", 0)?.parse().ok()
}

fn available(meminfo: &str) -> Option<u64> {
    nth_word(meminfo, "MemAvailable:", 0)?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Parses the kernel's form of a set of cores: `0-3,8`.
fn core_list(text: &str) -> Option<Vec<u16>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?);
    }
    (!cores.is_empty()).then_some(cores)
}

/// The same of a set that may be empty.
fn isolated(text: &str) -> Option<Vec<u16>> {
    if text.trim().is_empty() { Some(Vec::new()) } else { core_list(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(core_list("0-1\n"), Some(vec![0, 1]));
        assert_eq!(core_list("0,2-4,9"), Some(vec![0, 2, 3, 4, 9]));
        assert_eq!(core_list(""), None);
        assert_eq!(core_list("a-b"), None);
        assert_eq!((isolated("\n"), isolated("2-3")), (Some(vec![]), Some(vec![2, 3])));
    }

    #[test]
    fn limits_and_rights_are_read() {
        let limits =
            "Limit  Soft Limit Hard Limit Units\nMax locked memory         8388608              9000000 bytes\n";
        assert_eq!(lockable(limits), Some(8_388_608));
        assert_eq!(lockable("Max locked memory   unlimited  unlimited bytes"), None);
        assert_eq!(available("MemTotal: 5 kB\nMemAvailable:    1024 kB\n"), Some(1 << 20));
        assert!(may_lock("CapEff:\t0000000000004000\n"));
        assert!(!may_lock("CapEff:\t0000000000003fff\n"));
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let machine = Machine::detect();
        assert!(!machine.hostname.is_empty());
        assert!(machine.cores.is_some_and(|cores| !cores.is_empty()));
        assert!(machine.available_bytes.is_some_and(|bytes| bytes > 0));
    }
}
