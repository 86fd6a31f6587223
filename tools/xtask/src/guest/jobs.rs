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
    /// `PROGRAM` in it stands for the first that it needs.
    pub script: String,
    pub needs: Vec<Need>,
}

/// A program of the workspace that a job needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// A test program: `PACKAGE/TARGET`.
    Test(&'static str),
    /// Another, by name.
    Binary(&'static str),
}

/// Which jobs run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Choice {
    /// All of the check.
    All,
    /// These of it.
    Only(Vec<String>),
    /// Those that measure, with an optimised program; none of them is of the check.
    Measure,
}

impl Choice {
    /// Reads the options of `rt-guest`. `None`: they mean nothing.
    pub fn parse(options: &[&str]) -> Option<Self> {
        match options {
            [] => Some(Choice::All),
            ["--measure"] => Some(Choice::Measure),
            ["--only", names] => {
                let names: Vec<String> = names.split(',').map(str::to_owned).collect();
                names.iter().all(|name| names_of_all().contains(&name.as_str())).then_some(Choice::Only(names))
            }
            _ => None,
        }
    }

    fn takes(&self, job: &Job) -> bool {
        match self {
            Choice::All => true,
            Choice::Only(names) => names.iter().any(|name| name == job.name),
            Choice::Measure => false,
        }
    }
}

/// The jobs of all guests of a run.
#[derive(Debug)]
pub struct Jobs {
    pub alone: Vec<Job>,
    /// For two guests, joined, with what each does before.
    pub joined: [(String, Vec<Job>); 2],
}

impl Jobs {
    pub fn of(choice: &Choice) -> Self {
        let chosen = |jobs: Vec<Job>| jobs.into_iter().filter(|job| choice.takes(job)).collect();
        let joined = |role| {
            let (setup, jobs) = joined(role);
            (setup, chosen(jobs))
        };
        let alone = if *choice == Choice::Measure { measuring() } else { chosen(alone()) };
        Jobs { alone, joined: [joined(Role::Master), joined(Role::Slave)] }
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.alone.iter_mut().chain(self.joined.iter_mut().flat_map(|(_, jobs)| jobs))
    }

    /// What they need.
    pub fn needs(&self) -> Vec<Need> {
        let all = self.alone.iter().chain(self.joined.iter().flat_map(|(_, jobs)| jobs));
        all.flat_map(|job| job.needs.iter().copied()).collect()
    }

    /// Puts the programs into the scripts.
    ///
    /// # Errors
    /// cargo built none of that name.
    pub fn fill(&mut self, programs: &Programs) -> Result<(), NoProgram> {
        for job in self.all_mut() {
            if let Some(first) = job.needs.first() {
                job.script = job.script.replace("PROGRAM", &programs.path(*first)?.display().to_string());
            }
        }
        Ok(())
    }
}

/// The names of all jobs of the check.
pub fn names_of_all() -> Vec<&'static str> {
    let joined = [Role::Master, Role::Slave].into_iter().flat_map(|role| joined(role).1);
    alone().iter().map(|job| job.name).chain(joined.map(|job| job.name)).collect()
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
    // Kernels before 6.17 say later than those since what they took of an AF_XDP ring.
    ("xdp-full", "insane-xdp/full", 60),
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

    fn path(&self, need: Need) -> Result<&Path, NoProgram> {
        let (known, name) = match need {
            Need::Test(name) => (&self.tests, name),
            Need::Binary(name) => (&self.binaries, name),
        };
        known.get(name).map(PathBuf::as_path).ok_or_else(|| NoProgram(name.to_owned()))
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

fn test(name: &'static str, limit_seconds: u64, before: &str, program: &'static str) -> Job {
    Job { name, limit_seconds, script: format!("{before}{TEST}"), needs: vec![Need::Test(program)] }
}

fn with_binary(name: &'static str, limit_seconds: u64, script: &str, program: &'static str) -> Job {
    Job { name, limit_seconds, script: script.to_owned(), needs: vec![Need::Binary(program)] }
}

/// The jobs of the guest that is alone.
fn alone() -> Vec<Job> {
    let mut jobs = vec![
        Job { name: "kernel", limit_seconds: 10, script: KERNEL.to_owned(), needs: Vec::new() },
        with_binary("doctor", 60, DOCTOR, "insane"),
    ];
    let plant = include_str!("../../../../configs/plants/cells.ron");
    // One axis more, and the list of its host is longer than tc takes.
    let axis = plant.lines().find(|line| line.contains("name: \"axes/3\"")).expect("the plant has three axes");
    let longer = plant.replacen(axis, &format!("{axis}\n{}", axis.replace("axes/3", "axes/4")), 1);
    let taprio = TAPRIO.replace("LONGER", &longer).replace("PLANT", plant);
    jobs.push(with_binary("taprio", 60, &taprio, "insane"));
    jobs.extend(TESTS.iter().map(|&(name, program, limit_seconds)| test(name, limit_seconds, "", program)));
    // Its test starts them.
    jobs.iter_mut().filter(|job| job.name == "daemon-slots").for_each(|job| job.needs.push(Need::Binary("insaned")));
    jobs.extend(RDMA_TESTS.iter().map(|&(name, program, limit)| test(name, limit, RDMA_ALONE, program)));
    jobs.push(with_binary("rdma-latency", 120, &format!("{RDMA_ALONE}{RDMA_LATENCY}"), "latency-tests"));
    let removed = format!("{RDMA_ALONE}export INSANE_RDMA_REMOVED=rxe0\n");
    jobs.push(test("rdma-removed", 60, &removed, "insane-rdma/removed"));
    jobs.push(with_binary("jitter", 60, JITTER, "insane"));
    jobs.push(with_binary("demo", 90, DEMO, "vplc-demo"));
    // The last one: it sets the clock.
    jobs.push(test("clock-steps", 150, "export INSANE_SETS_CLOCK=1\n", "insane-rt/clock_steps"));
    jobs
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
fn joined(role: Role) -> (String, Vec<Job>) {
    let (own, peer) = match role {
        Role::Master => (Role::Master.host(), Role::Slave.host()),
        Role::Slave => (Role::Slave.host(), Role::Master.host()),
    };
    let (options, ptp, names) = match role {
        Role::Master => ("", PTP_MASTER, ["ptp-master", "two-machines-1", "rdma-machines-1"]),
        Role::Slave => ("-s", PTP_SLAVE, ["ptp-slave", "two-machines-2", "rdma-machines-2"]),
    };
    let setup = JOINED.replace("HOST", &own.to_string()).replace("OPTIONS", options);
    let setup = if role == Role::Master { format!("{setup}{DECLARED}") } else { setup };
    let addresses = format!("export INSANE_OWN=10.79.0.{own}:7400 INSANE_PEER=10.79.0.{peer}:7400\n");
    let over_rdma =
        format!("{RDMA_JOINED}export INSANE_RDMA_OWN=10.79.0.{own}:7600 INSANE_RDMA_PEER=10.79.0.{peer}:7600\n");
    let jobs = vec![
        Job { name: names[0], limit_seconds: 120, script: ptp.to_owned(), needs: Vec::new() },
        test(names[1], 240, &addresses, "insane-rt/two_machines"),
        test(names[2], 120, &over_rdma, "insane-rt/two_machines_rdma"),
    ];
    (setup, jobs)
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

/// A device in software (RoCE) on one end of a pair, made anew by each job that needs it: it
/// speaks with itself. (`ip` alone would be busybox's.)
const RDMA_ALONE: &str = "
[ -e /sys/class/net/rdma0 ] || {
    /usr/sbin/ip link add rdma0 type veth peer name rdma1 || exit 1
    /usr/sbin/ip link set rdma0 up
    /usr/sbin/ip link set rdma1 up
    /usr/sbin/ip address add 10.80.0.1/24 dev rdma0
    /usr/sbin/ip address add fd80::1/64 dev rdma0 nodad
    sleep 1
}
[ ! -e /sys/class/infiniband/rxe0 ] || /usr/sbin/rdma link delete rxe0 || exit 1
/usr/sbin/rdma link add rxe0 type rxe netdev rdma0 || exit 1
sleep 1
export INSANE_RDMA=10.80.0.1 INSANE_RDMA_V6=fd80::1
";

/// The latency tests of rdma in their short form, in a build that is not optimised: that they
/// work is all that is asked.
const RDMA_LATENCY: &str = "
measure() {
    'PROGRAM' $2 --plugin rdma --smoke $3 >/tmp/latency || return 1
    cat /tmp/latency
    grep -q \"^$1 rows, 0 not measured here, 0 failed\" /tmp/latency
}
# The machine may stall for longer than a peer may be silent; then a message is lost.
often() { measure \"$@\" || measure \"$@\" || measure \"$@\" || exit 1; }
often 2 network
often 1 throughput '--size 1024'
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

/// The jobs that measure: the rdma plugin beside raw verbs, over the device in software.
fn measuring() -> Vec<Job> {
    let job = |name, limit_seconds, scenario: &str| {
        let script = format!("{RDMA_ALONE}'PROGRAM' {scenario} --plugin rdma");
        with_binary(name, limit_seconds, &script, "latency-tests")
    };
    vec![
        job("rdma-network", 400, "network --rounds 5"),
        job("rdma-throughput", 900, &format!("throughput --rounds 3 {FLOW_SIZES}")),
        job("rdma-instructions", 900, "instructions --smoke"),
    ]
}

const FLOW_SIZES: &str = "--size 64 --size 1024 --size 65536 --size 1048576 --size 6220800";

/// The kernel is one with PREEMPT_RT, by both of its words.
const KERNEL: &str = "
uname -v | grep -q PREEMPT_RT || exit 1
[ \"$(cat /sys/kernel/realtime)\" = 1 ] || exit 2
echo \"rt-guest: $(uname -r) $(uname -v)\"
";

/// Doctor sees it. Its own status is of the whole machine, which is none for real time.
const DOCTOR: &str = "
'PROGRAM' doctor --json >/tmp/doctor
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
'PROGRAM' schedule synth /tmp/plant.ron -o /tmp/plant.cert || exit 1
/usr/sbin/ip link add gate0 numtxqueues 4 type veth peer name gate1 || exit 2
/usr/sbin/ip link set gate0 up
/usr/sbin/ip link set gate1 up
for link in to-a to-b; do
    'PROGRAM' schedule taprio export /tmp/plant.cert $link --dev gate0 >/tmp/written || exit 3
    sed 's,^tc ,/usr/sbin/tc ,' /tmp/written >/tmp/command
    sh /tmp/command || exit 4
    sleep 1
    /usr/sbin/tc qdisc show dev gate0 root >/tmp/shown || exit 5
    /usr/sbin/tc -j qdisc show dev gate0 root >/tmp/shown.json || exit 6
    for class in 0 1; do
        'PROGRAM' schedule taprio import /tmp/written --class $class >/tmp/meant || exit 7
        for form in shown shown.json; do
            'PROGRAM' schedule taprio import /tmp/$form --class $class >/tmp/read || { cat /tmp/$form; exit 8; }
            cmp /tmp/meant /tmp/read || { cat /tmp/$form; exit 9; }
        done
    done
    # Another list is none of this schedule: the comparison would see it.
    sed 's/sched-entry S 01 /sched-entry S 03 /' /tmp/written >/tmp/other
    'PROGRAM' schedule taprio import /tmp/other --class 1 >/tmp/read
    cmp -s /tmp/meant /tmp/read && exit 10
    /usr/sbin/tc qdisc del dev gate0 root || exit 11
done
# A list that is longer than this tc takes is cut without an error: it is warned of, and reading
# it back shows it.
cat >/tmp/longer.ron <<'END'
LONGER
END
'PROGRAM' schedule synth /tmp/longer.ron -o /tmp/longer.cert || exit 15
'PROGRAM' schedule taprio export /tmp/longer.cert cell-a --dev gate0 >/tmp/long 2>/tmp/warning
grep -q 'tc of iproute2 takes 30' /tmp/warning || exit 12
sed 's,^tc ,/usr/sbin/tc ,' /tmp/long >/tmp/command
if sh /tmp/command; then
    /usr/sbin/tc qdisc show dev gate0 root >/tmp/shown
    'PROGRAM' schedule taprio import /tmp/shown --class 1 && exit 13
fi
# A list that stayed would cost a timer an entry when another job moves the clock by hours.
/usr/sbin/ip link del gate0 || exit 14
echo \"rt-guest: $(grep -c 'sched-entry' /tmp/written) gates of $link came back as they were written\"
";

/// A cyclic task with SCHED_FIFO runs and is measured; how late it is says nothing here.
const JITTER: &str = "
'PROGRAM' jitter --seconds 4 --period-us 5000 --json >/tmp/jitter || exit 1
cat /tmp/jitter | head -40
";

/// Two namespaces, two daemons, processes with SCHED_FIFO; judged by function.
const DEMO: &str = "
'PROGRAM' --single --seconds 5 --no-tui --smoke --no-best-effort >/tmp/demo 2>&1; status=$?
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
        let has = |need| programs.path(need).is_ok();
        assert!(programs.path(Need::Test("insane-udp/conformance")).unwrap().ends_with("conformance-1"));
        assert!(has(Need::Test("udp/t")));
        assert!(!has(Need::Binary("insane")), "that is its unit tests");
        assert!(programs.path(Need::Binary("insaned")).unwrap().ends_with("insaned-1"));
    }

    #[test]
    fn a_job_without_its_program_is_an_error() {
        assert!(Jobs::of(&Choice::All).fill(&Programs::default()).is_err());
    }

    #[test]
    fn jobs_are_chosen_by_name_and_unknown_ones_are_none() {
        let choice = Choice::parse(&["--only", "kernel,rdma-link"]).unwrap();
        let jobs = Jobs::of(&choice);
        assert_eq!(jobs.alone.iter().map(|job| job.name).collect::<Vec<_>>(), ["kernel", "rdma-link"]);
        assert!(jobs.joined.iter().all(|(_, jobs)| jobs.is_empty()));
        assert_eq!(jobs.needs(), [Need::Test("insane-rdma/link")]);
        for wrong in [&["--only"][..], &["--only", "kernel,nothing"], &["--only", ""], &["kernel"]] {
            assert_eq!(Choice::parse(wrong), None);
        }
        let all = names_of_all();
        assert!(all.iter().all(|name| all.iter().filter(|other| *other == name).count() == 1), "{all:?}");
    }
}
