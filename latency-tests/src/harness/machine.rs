//! Facts of the machine, for the report.

use serde::Serialize;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a reader has to know to judge the figures.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors that are on line.
    pub processors: usize,
    /// Release of the kernel.
    pub kernel: String,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Whether the kernel runs in a virtual machine.
    pub virtual_machine: bool,
    /// Runnable threads in the last minute when the run began: above 0.3, others disturbed it.
    pub load_before: f64,
    /// Instant of the run, seconds since 1970-01-01 UTC.
    pub started_s: u64,
}

impl Machine {
    /// Reads the facts; what the kernel does not tell is left empty.
    #[must_use]
    pub fn read() -> Self {
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let kilobytes = field(&memory, "MemTotal").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        Machine {
            processor: field(&processors, "model name").unwrap_or("unknown").to_owned(),
            processors: processors.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            memory_bytes: kilobytes.unwrap_or(0) * 1024,
            virtual_machine: field(&processors, "flags").is_some_and(|flags| flags.contains("hypervisor")),
            load_before: load.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0),
            started_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }
}

/// The value of the first line `name : value`.
fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_found_by_name() {
        let text = "processor\t: 0\nmodel name\t: Some CPU\n";
        assert_eq!(super::field(text, "model name"), Some("Some CPU"));
        assert_eq!(super::field(text, "flags"), None);
    }
}
