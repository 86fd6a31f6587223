//! What runs in the guests. A job is a shell script; its exit status says whether it did what
//! it should, and a line `rt-guest: …` what is worth reading in the table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// One job.
#[derive(Clone, Debug)]
pub struct Job {
    pub name: &'static str,
    /// It is killed after this time, seconds.
    pub limit_seconds: u64,
    pub script: String,
}

/// The programs of the workspace that run in a guest.
#[derive(Debug, Default)]
pub struct Programs {
    /// Test programs, by `PACKAGE/TARGET`.
    tests: BTreeMap<String, PathBuf>,
    /// Others, by name.
    binaries: BTreeMap<String, PathBuf>,
}

/// A program is missing: the list below names one that cargo did not build.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("cargo built no {0}")]
pub struct NoProgram(String);

/// Test programs, and how long they may take, seconds.
const TESTS: &[(&str, &str, u64)] = &[
    ("udp-conformance", "insane-udp/conformance", 120),
    ("udp-bundles", "insane-udp/bundles", 60),
    ("udp-launch", "insane-udp/launch", 60),
    ("slots-launched", "insane-rt/launch", 120),
    ("engine-slots", "insane-engine/slots", 180),
    ("clock-servo", "insane-clock/servo", 60),
    ("daemon-slots", "insane-cli/slots", 120),
];

impl Programs {
    /// Takes one line of what `cargo test --no-run --message-format=json` prints.
    pub fn add_line(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<serde_json::Value>(line) else { return };
        let Some(path) = message["executable"].as_str().map(PathBuf::from) else { return };
        let name = message["target"]["name"].as_str().unwrap_or_default();
        let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
        if message["target"]["kind"][0] == "bin" && message["profile"]["test"] == false {
            self.binaries.insert(name.to_owned(), path);
        } else if message["target"]["kind"][0] == "test"
            && let Some(package) = package_of(message["package_id"].as_str().unwrap_or_default(), manifest)
        {
            self.tests.insert(format!("{package}/{name}"), path);
        }
    }

    /// Every program that a guest runs.
    pub fn all(&self) -> Vec<PathBuf> {
        self.tests.values().chain(self.binaries.values()).cloned().collect()
    }

    fn test(&self, name: &str) -> Result<String, NoProgram> {
        let path = self.tests.get(name).ok_or_else(|| NoProgram(name.to_owned()))?;
        Ok(TEST.replace("PROGRAM", &path.display().to_string()))
    }

    fn binary(&self, name: &str) -> Result<String, NoProgram> {
        let path = self.binaries.get(name).ok_or_else(|| NoProgram(name.to_owned()))?;
        Ok(format!("'{}'", path.display()))
    }
}

/// The package in an id: `…#NAME@VERSION`, or `…/NAME#VERSION` where the folder bears the name.
fn package_of(id: &str, manifest: &Path) -> Option<String> {
    let (_, end) = id.rsplit_once('#')?;
    match end.split_once('@') {
        Some((name, _)) => Some(name.to_owned()),
        None => manifest.parent()?.file_name()?.to_str().map(str::to_owned),
    }
}

/// The jobs of the guest that is alone.
pub fn alone(programs: &Programs) -> Result<Vec<Job>, NoProgram> {
    let insane = programs.binary("insane")?;
    let mut jobs = vec![
        Job { name: "kernel", limit_seconds: 10, script: KERNEL.to_owned() },
        Job { name: "doctor", limit_seconds: 60, script: DOCTOR.replace("INSANE", &insane) },
    ];
    for &(name, test, limit_seconds) in TESTS {
        jobs.push(Job { name, limit_seconds, script: programs.test(test)? });
    }
    jobs.push(Job { name: "jitter", limit_seconds: 60, script: JITTER.replace("INSANE", &insane) });
    let demo = programs.binary("vplc-demo")?;
    jobs.push(Job { name: "demo", limit_seconds: 90, script: DEMO.replace("DEMO", &demo) });
    Ok(jobs)
}

/// A test that lacks something says so and passes; here nothing may be lacking.
const TEST: &str = "
'PROGRAM' --test-threads=2 --nocapture >/tmp/output 2>&1; status=$?
cat /tmp/output
grep 'not tested' /tmp/output && exit 99
exit $status
";

/// The kernel is one with PREEMPT_RT, by both of its words.
const KERNEL: &str = "
uname -v | grep -q PREEMPT_RT || exit 1
[ \"$(cat /sys/kernel/realtime)\" = 1 ] || exit 2
echo \"rt-guest: $(uname -r) $(uname -v)\"
";

/// Doctor sees it. Its own status is of the whole machine, which is none for real time.
const DOCTOR: &str = "
INSANE doctor --json >/tmp/doctor
grep -A 4 '\"id\": \"preempt-rt\"' /tmp/doctor
grep -A 4 '\"id\": \"preempt-rt\"' /tmp/doctor | grep -q '\"state\": \"good\"' || exit 1
echo \"rt-guest: preempt-rt is good\"
";

/// A cyclic task with SCHED_FIFO runs and is measured; how late it is says nothing here.
const JITTER: &str = "
INSANE jitter --seconds 4 --period-us 5000 --json >/tmp/jitter || exit 1
cat /tmp/jitter | head -40
";

/// Two namespaces, two daemons, processes with SCHED_FIFO; judged by function.
const DEMO: &str = "
DEMO --seconds 5 --no-tui --smoke --no-best-effort >/tmp/demo 2>&1; status=$?
tail -30 /tmp/demo
exit $status
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_taken_from_what_cargo_says() {
        let mut programs = Programs::default();
        let line = |kind: &str, name: &str, test: bool, id: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"{id}","manifest_path":"/w/plugins/udp/Cargo.toml","target":{{"kind":["{kind}"],"name":"{name}"}},"profile":{{"test":{test}}},"executable":"/t/{name}-1"}}"#
            )
        };
        programs.add_line(&line("test", "conformance", true, "path+file:///w/plugins/udp#insane-udp@0.1.0"));
        programs.add_line(&line("bin", "insane", true, "path+file:///w/tools/insane#insane-cli@0.1.0"));
        programs.add_line(&line("bin", "insaned", false, "path+file:///w/rt-runtime/daemon#insaned@0.1.0"));
        programs.add_line(&line("test", "t", true, "path+file:///w/plugins/udp#0.1.0"));
        programs.add_line(r#"{"reason":"build-finished","success":true}"#);
        programs.add_line("no JSON");
        assert!(programs.test("insane-udp/conformance").unwrap().contains("/t/conformance-1"));
        assert!(programs.test("udp/t").is_ok());
        assert_eq!(programs.binary("insane"), Err(NoProgram("insane".into())), "that is its unit tests");
        assert_eq!(programs.binary("insaned").unwrap(), "'/t/insaned-1'");
    }

    #[test]
    fn a_job_without_its_program_is_an_error() {
        assert!(alone(&Programs::default()).is_err());
    }
}
