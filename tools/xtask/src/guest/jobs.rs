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

/// Test programs that need a verbs device, and how long they may take, seconds.
const RDMA_TESTS: &[(&str, &str, u64)] = &[
    ("rdma-conformance", "insane-rdma/conformance", 180),
    ("rdma-link", "insane-rdma/link", 90),
    ("rdma-guard", "insane-rdma/guard", 60),
    ("rdma-missing", "insane-rdma/missing", 120),
    ("rdma-runtimes", "insane-rt/rdma", 180),
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
    let taprio = TAPRIO.replace("PLANT", include_str!("../../../../configs/plants/cells.ron"));
    jobs.push(Job { name: "taprio", limit_seconds: 60, script: taprio.replace("INSANE", &insane) });
    for &(name, test, limit_seconds) in TESTS {
        jobs.push(Job { name, limit_seconds, script: programs.test(test)? });
    }
    for &(name, test, limit_seconds) in RDMA_TESTS {
        jobs.push(Job { name, limit_seconds, script: format!("{RDMA_ALONE}{}", programs.test(test)?) });
    }
    jobs.push(Job { name: "jitter", limit_seconds: 60, script: JITTER.replace("INSANE", &insane) });
    let demo = programs.binary("vplc-demo")?;
    jobs.push(Job { name: "demo", limit_seconds: 90, script: DEMO.replace("DEMO", &demo) });
    Ok(jobs)
}

/// One of two guests that are joined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Its clock is the one that counts.
    Master,
    /// It follows.
    Slave,
}

impl Role {
    /// The last number of its address.
    const fn host(self) -> u8 {
        match self {
            Role::Master => 1,
            Role::Slave => 2,
        }
    }
}

/// The jobs of one of two guests with a clock each, and what it does before them.
pub fn joined(programs: &Programs, role: Role) -> Result<(String, Vec<Job>), NoProgram> {
    let (own, peer) = match role {
        Role::Master => (Role::Master.host(), Role::Slave.host()),
        Role::Slave => (Role::Slave.host(), Role::Master.host()),
    };
    let (options, ptp, test, rdma) = match role {
        Role::Master => ("", PTP_MASTER, "two-machines-1", "rdma-machines-1"),
        Role::Slave => ("-s", PTP_SLAVE, "two-machines-2", "rdma-machines-2"),
    };
    let setup = JOINED.replace("HOST", &own.to_string()).replace("OPTIONS", options);
    let setup = if role == Role::Master { format!("{setup}{DECLARED}") } else { setup };
    let name = if role == Role::Master { "ptp-master" } else { "ptp-slave" };
    let addresses = format!("export INSANE_OWN=10.79.0.{own}:7400 INSANE_PEER=10.79.0.{peer}:7400\n");
    let script = format!("{addresses}{}", programs.test("insane-rt/two_machines")?);
    let addresses = format!("export INSANE_RDMA_OWN=10.79.0.{own}:7600 INSANE_RDMA_PEER=10.79.0.{peer}:7600\n");
    let over_rdma = format!("{RDMA_JOINED}{addresses}{}", programs.test("insane-rt/two_machines_rdma")?);
    let jobs = vec![
        Job { name, limit_seconds: 120, script: ptp.to_owned() },
        Job { name: test, limit_seconds: 240, script },
        Job { name: rdma, limit_seconds: 120, script: over_rdma },
    ];
    Ok((setup, jobs))
}

/// The interface between the guests, the offset of TAI, and `ptp4l`, which keeps the kernel's
/// clock itself where time stamps are software's.
const JOINED: &str = r#"
ip addr add 10.79.0.HOST/24 dev eth0
ip link set eth0 up
perl -e '$b = "\0" x 208; substr($b, 0, 4) = pack("I", 0x80); substr($b, 48, 8) = pack("q", 37); exit(syscall(159, $b) < 0)' || echo "the offset of TAI is not set"
cat >/tmp/ptp.conf <<END
[global]
tx_timestamp_timeout 500
logAnnounceInterval 0
logSyncInterval -2
logMinDelayReqInterval -2
summary_interval -2
END
ptp4l -S -4 -m -q OPTIONS -f /tmp/ptp.conf -i eth0 >/tmp/ptp.log 2>&1 &
"#;

/// The master's clock follows nobody, and is declared to be right: otherwise the kernel says
/// that it is not synchronised (`adjtimex`: status and greatest error).
const DECLARED: &str = r#"
perl -e '$b = "\0" x 208; substr($b, 0, 4) = pack("I", 0x14); exit(syscall(159, $b) < 0)' || echo "the clock is not declared"
"#;

const PTP_MASTER: &str = "
for second in $(seq 100); do
    grep -q 'to MASTER\\|assuming the grand master role' /tmp/ptp.log && break
    sleep 1
done
cat /tmp/ptp.log
grep -q 'to MASTER\\|assuming the grand master role' /tmp/ptp.log
";

/// It was set once, since it was off by seconds, and follows now (`s2`).
const PTP_SLAVE: &str = "
for second in $(seq 100); do
    [ \"$(grep -c ' s2 ' /tmp/ptp.log)\" -ge 10 ] && break
    sleep 1
done
head -20 /tmp/ptp.log
tail -5 /tmp/ptp.log
[ \"$(grep -c ' s2 ' /tmp/ptp.log)\" -ge 10 ] || exit 1
grep -q ' s1 ' /tmp/ptp.log || exit 2
echo \"rt-guest: $(grep ' s2 ' /tmp/ptp.log | tail -1 | sed 's/^[^:]*: //')\"
";

/// A device in software (RoCE) on one end of a pair, made by the first job that needs it: it
/// speaks with itself. (`ip` alone would be busybox's.)
const RDMA_ALONE: &str = "
[ -e /sys/class/infiniband/rxe0 ] || {
    /usr/sbin/ip link add rdma0 type veth peer name rdma1 || exit 1
    /usr/sbin/ip link set rdma0 up
    /usr/sbin/ip link set rdma1 up
    /usr/sbin/ip address add 10.80.0.1/24 dev rdma0
    /usr/sbin/ip address add fd80::1/64 dev rdma0 nodad
    /usr/sbin/rdma link add rxe0 type rxe netdev rdma0 || exit 1
    sleep 1
}
export INSANE_RDMA=10.80.0.1 INSANE_RDMA_V6=fd80::1
";

/// The same on the interface between the guests.
const RDMA_JOINED: &str = "
/usr/sbin/rdma link add rxe0 type rxe netdev eth0 || exit 1
";

/// A test that lacks something says so and passes; here nothing may be lacking.
const TEST: &str = "
'PROGRAM' --test-threads=2 --nocapture >/tmp/output 2>&1; status=$?
cat /tmp/output
grep 'passed over: ' /tmp/output && exit 99
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

/// Gate lists of a schedule are taken by the kernel as they were written, and read back as they
/// were meant, from what `tc` shows in words and as JSON. (`tc` alone would be busybox's.)
const TAPRIO: &str = "
cat >/tmp/plant.ron <<'END'
PLANT
END
INSANE schedule synth /tmp/plant.ron -o /tmp/plant.cert || exit 1
/usr/sbin/ip link add gate0 numtxqueues 4 type veth peer name gate1 || exit 2
/usr/sbin/ip link set gate0 up
/usr/sbin/ip link set gate1 up
for link in to-a to-b; do
    INSANE schedule taprio export /tmp/plant.cert $link --dev gate0 >/tmp/written || exit 3
    sed 's,^tc ,/usr/sbin/tc ,' /tmp/written >/tmp/command
    sh /tmp/command || exit 4
    sleep 1
    /usr/sbin/tc qdisc show dev gate0 root >/tmp/shown || exit 5
    /usr/sbin/tc -j qdisc show dev gate0 root >/tmp/shown.json || exit 6
    for class in 0 1; do
        INSANE schedule taprio import /tmp/written --class $class >/tmp/meant || exit 7
        for form in shown shown.json; do
            INSANE schedule taprio import /tmp/$form --class $class >/tmp/read || { cat /tmp/$form; exit 8; }
            cmp /tmp/meant /tmp/read || { cat /tmp/$form; exit 9; }
        done
    done
    # Another list is none of this schedule: the comparison would see it.
    sed 's/sched-entry S 01 /sched-entry S 03 /' /tmp/written >/tmp/other
    INSANE schedule taprio import /tmp/other --class 1 >/tmp/read
    cmp -s /tmp/meant /tmp/read && exit 10
    /usr/sbin/tc qdisc del dev gate0 root || exit 11
done
# A list that is longer than this tc takes is cut without an error: it is warned of, and reading
# it back shows it.
INSANE schedule taprio export /tmp/plant.cert cell-a --dev gate0 >/tmp/long 2>/tmp/warning
grep -q 'tc of iproute2 takes 30' /tmp/warning || exit 12
sed 's,^tc ,/usr/sbin/tc ,' /tmp/long >/tmp/command
if sh /tmp/command; then
    /usr/sbin/tc qdisc show dev gate0 root >/tmp/shown
    INSANE schedule taprio import /tmp/shown --class 1 && exit 13
fi
echo \"rt-guest: $(grep -c 'sched-entry' /tmp/written) gates of $link came back as they were written\"
";

/// A cyclic task with SCHED_FIFO runs and is measured; how late it is says nothing here.
const JITTER: &str = "
INSANE jitter --seconds 4 --period-us 5000 --json >/tmp/jitter || exit 1
cat /tmp/jitter | head -40
";

/// Two namespaces, two daemons, processes with SCHED_FIFO; judged by function.
const DEMO: &str = "
DEMO --single --seconds 5 --no-tui --smoke --no-best-effort >/tmp/demo 2>&1; status=$?
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
