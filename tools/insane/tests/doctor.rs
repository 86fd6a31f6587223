//! `insane doctor`, as a person runs it: over trees laid out like a machine, and over this
//! machine.

use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Files of a machine with four cores, of which 2 and 3 are kept free, and one card.
const FILES: &[(&str, &str)] = &[
    ("proc/cmdline", "root=/dev/vda isolcpus=domain,managed_irq,2-3 nohz_full=2-3 rcu_nocbs=2-3 -- isolcpus=9"),
    ("proc/sys/kernel/osrelease", "6.18.1-rt2"),
    ("proc/sys/kernel/version", "#1 SMP PREEMPT_RT"),
    ("proc/sys/kernel/sched_rt_runtime_us", "-1"),
    ("proc/sys/kernel/sched_rt_period_us", "1000000"),
    ("proc/sys/vm/nr_hugepages", "0"),
    ("proc/swaps", "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority"),
    ("proc/self/status", "Name:\tinsane\nCapEff:\t000001ffffffffff"),
    (
        "proc/self/limits",
        "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  1048576  files\n\
         Max locked memory  65536  65536  bytes\nMax realtime priority  0  0",
    ),
    ("proc/self/timerslack_ns", "1"),
    ("proc/self/cgroup", "1:cpu,cpuacct:/plc\n0::/"),
    ("proc/17/comm", "ksoftirqd/2"),
    ("proc/17/stat", KSOFTIRQD),
    ("proc/irq/30/smp_affinity_list", "0-3"),
    ("proc/irq/30/effective_affinity_list", "0"),
    ("proc/irq/30/eth0-rx-0/name", ""),
    ("proc/irq/31/smp_affinity_list", "0-3"),
    ("sys/kernel/realtime", "1"),
    ("sys/kernel/debug/sched/fair_server/cpu0/runtime", "50000000"),
    ("sys/kernel/debug/sched/fair_server/cpu0/period", "1000000000"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force"),
    ("sys/fs/cgroup/cpu,cpuacct/plc/cpu.rt_runtime_us", "900000"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
    ("sys/devices/system/cpu/present", "0-3"),
    ("sys/devices/system/cpu/online", "0-3"),
    ("sys/devices/system/cpu/isolated", "2-3"),
    ("sys/devices/system/cpu/nohz_full", "2-3"),
    ("sys/class/net/lo/ifindex", "1"),
    ("sys/class/net/eth0/ifindex", "2"),
    ("sys/class/net/eth0/device/msi_irqs/30", "msix"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
    ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0"),
    ("sys/class/net/eth0/napi_defer_hard_irqs", "0"),
    ("boot/config-6.18.1-rt2", "CONFIG_PREEMPT_RT=y\n# CONFIG_PREEMPT_RT_NEEDS_BH_LOCK is not set\n"),
];

/// A thread of the kernel, priority 0; its name holds a parenthesis, as names may.
const KSOFTIRQD: &str = "17 (ksoftirqd/2) S) S 2 0 0 0 -1 69238848 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0 0 0 0 0 0 0 0 0 \
                         2147483647 0 0 0 0 17 2 0 0 0 0 0";

/// Files of each of the four cores.
const OF_CORE: &[(&str, &str)] = &[
    ("cpufreq/scaling_governor", "performance"),
    ("cpuidle/state0/name", "POLL"),
    ("cpuidle/state0/latency", "0"),
    ("cpuidle/state0/disable", "0"),
    ("cpuidle/state1/name", "C6"),
    ("cpuidle/state1/latency", "133"),
    ("cpuidle/state1/disable", "1"),
];

/// A tree of one test, removed at its end.
struct Tree(PathBuf);

impl Tree {
    fn empty() -> Tree {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("insane-doctor-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
        let root = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&root).unwrap();
        Tree(root)
    }

    fn good() -> Tree {
        let tree = Tree::empty();
        for (path, text) in all_files() {
            tree.put(&path, &text);
        }
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let place = self.at(path);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(place, format!("{text}\n")).unwrap();
    }

    fn get(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap().trim().to_owned()
    }

    fn doctor(&self, more: &[&str]) -> Output {
        insane(&[&["doctor", "--root", self.0.to_str().unwrap()], more].concat())
    }

    fn findings(&self, more: &[&str]) -> BTreeMap<String, (String, String)> {
        findings(&self.doctor(&[more, &["--json"]].concat()))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn all_files() -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> =
        FILES.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    for core in 0..4 {
        for (path, text) in OF_CORE {
            files.push((format!("sys/devices/system/cpu/cpu{core}/{path}"), (*text).to_owned()));
        }
    }
    files
}

fn insane(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_insane")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)))
}

/// State and what was read, of each entry.
fn findings(output: &Output) -> BTreeMap<String, (String, String)> {
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let report = report(output);
    let all = report["findings"].as_array().unwrap().iter();
    all.map(|finding| (word(finding, "id"), (word(finding, "state"), word(finding, "read")))).collect()
}

fn states(findings: &BTreeMap<String, (String, String)>) -> BTreeMap<&str, &str> {
    findings.iter().map(|(id, (state, _))| (id.as_str(), state.as_str())).collect()
}

/// A configuration with one real-time datapath.
fn config(tree: &Tree, datapath: &str) -> String {
    let text = format!(
        "(datapaths: [(name: \"rt\", {datapath}, links: [\"net\"])],\n\
         links: [(name: \"net\", technology: udp(bind: \"192.0.2.1:7400\"))],\n\
         memory: (lock: true, huge_pages: try))"
    );
    tree.put("config.ron", &text);
    tree.at("config.ron").to_str().unwrap().to_owned()
}

/// What no tree can say: it takes a system call.
const CALLS: [&str; 3] = ["clock-sync", "nic-coalescing", "tai-offset"];

#[test]
fn a_good_machine_has_a_hundred_and_exit_status_zero() {
    let tree = Tree::good();
    let output = tree.doctor(&["--json"]);
    let found = findings(&output);
    for (id, (state, read)) in &found {
        let expected = if CALLS.contains(&id.as_str()) { "cannot read" } else { "good" };
        assert_eq!(state, expected, "{id}: {read}");
    }
    assert_eq!(report(&output)["score"], 100);
    assert_eq!(output.status.code(), Some(0));
    let expect = [
        ("kernel-version", "6.18.1-rt2"),
        ("rt-group-sched", "900000 us"),
        ("isolated-cores", "2-3"),
        ("irq-affinity", "none of 1 at cores 2-3"),
        ("cpu-idle", "0 us to leave POLL"),
        ("nic-queues", "eth0 has 2"),
        ("softirq-lock", "without it"),
    ];
    for (id, part) in expect {
        assert!(found[id].1.contains(part), "{id}: {}", found[id].1);
    }
    for finding in report(&output)["findings"].as_array().unwrap() {
        let keys: Vec<&String> = finding.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["id", "read", "remedy", "state", "why"]);
    }
}

#[test]
fn a_good_machine_suits_a_spinning_datapath_on_an_isolated_core() {
    let tree = Tree::good();
    let file = config(&tree, "core: 2, idle: spin");
    let output = tree.doctor(&[&file, "--json"]);
    let found = findings(&output);
    assert_eq!(output.status.code(), Some(0), "{found:?}");
    for id in ["datapath-cores", "core-sharing", "isolated-cores", "nohz-full", "irq-affinity"] {
        assert_eq!(found[id].0, "good", "{id}: {}", found[id].1);
    }
}

#[test]
fn every_flaw_of_a_file_is_found() {
    let cases = [
        ("proc/sys/kernel/osrelease", "5.10.0", "kernel-version", "bad"),
        ("sys/kernel/realtime", "0", "preempt-rt", "warning"),
        ("boot/config-6.18.1-rt2", "CONFIG_PREEMPT_RT_NEEDS_BH_LOCK=y", "softirq-lock", "warning"),
        ("proc/self/status", "CapEff:\t0", "cap-sys-nice", "warning"),
        ("proc/self/status", "CapEff:\t0", "limit-memlock", "warning"),
        ("proc/self/limits", "Max open files 10 10 files", "limit-nofile", "warning"),
        ("sys/fs/cgroup/cpu,cpuacct/plc/cpu.rt_runtime_us", "0", "rt-group-sched", "bad"),
        ("sys/kernel/debug/sched/fair_server/cpu0/runtime", "0", "fair-server", "warning"),
        ("sys/devices/system/cpu/isolated", "", "isolated-cores", "warning"),
        ("sys/devices/system/cpu/nohz_full", "(null)", "nohz-full", "warning"),
        ("proc/irq/30/effective_affinity_list", "3", "irq-affinity", "warning"),
        ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave", "cpu-governor", "warning"),
        ("sys/devices/system/cpu/cpu3/cpuidle/state1/disable", "0", "cpu-idle", "warning"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never", "transparent-huge-pages", "warning"),
        ("proc/swaps", "Filename Type\n/dev/sda2 partition 1 0 -2", "swap", "warning"),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet", "clock-source", "bad"),
        ("proc/self/timerslack_ns", "50000", "timer-slack", "warning"),
        ("sys/class/net/eth0/napi_defer_hard_irqs", "2", "nic-coalescing", "warning"),
    ];
    for (path, content, id, state) in cases {
        let tree = Tree::good();
        tree.put(path, content);
        let output = tree.doctor(&["--json"]);
        let found = findings(&output);
        assert_eq!(found[id].0, state, "{path}: {}", found[id].1);
        assert_eq!(output.status.code(), Some(i32::from(state == "bad")));
        assert!(report(&output)["score"].as_u64().unwrap() < 100);
    }
}

#[test]
fn the_rules_for_cores_are_kept() {
    let tree = Tree::good();
    tree.put("proc/irq/30/effective_affinity_list", "2");
    let found = tree.findings(&[&config(&tree, "core: 2, idle: spin")]);
    assert_eq!(found["core-sharing"].0, "bad");
    assert!(found["core-sharing"].1.contains("core 2, which serves interrupts 30"), "{:?}", found["core-sharing"]);
    let found = tree.findings(&[&config(&tree, "core: 2, policy: fifo(70)")]);
    assert_eq!(found["core-sharing"].0, "good", "it sleeps");
    let found = tree.findings(&[&config(&tree, "core: 1, policy: fifo(70), idle: spin")]);
    assert_eq!(found["isolated-cores"].0, "bad");
    assert_eq!(found["core-sharing"].0, "bad");
}

#[test]
fn a_core_that_does_not_exist_is_bad_and_no_error() {
    let tree = Tree::good();
    let output = tree.doctor(&[&config(&tree, "core: 17"), "--json"]);
    let found = findings(&output);
    assert_eq!(found["datapath-cores"].0, "bad");
    assert!(found["datapath-cores"].1.contains("core 17; on line are 0-3"), "{:?}", found["datapath-cores"]);
    assert_eq!(output.status.code(), Some(1));
    let output = tree.doctor(&[&config(&tree, "core: 70000")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("70000 is not the number of a core"), "{}", text(&output.stderr));
}

#[test]
fn a_thread_that_only_calls_itself_so_is_not_the_kernels() {
    let tree = Tree::good();
    let file = config(&tree, "core: 2, policy: fifo(70)");
    assert_eq!(tree.findings(&[&file])["softirq-threads"].0, "good");
    tree.put("proc/99/comm", "irq/30-fake");
    tree.put(
        "proc/99/stat",
        &KSOFTIRQD.replace(" 69238848 ", " 4194304 ").replace("17 2 0 0 0 0 0", "17 2 80 1 0 0 0"),
    );
    let found = tree.findings(&[&file]);
    assert!(found["irq-threads"].1.contains("no threads here"), "{:?}", found["irq-threads"]);
    tree.put("proc/99/stat", &KSOFTIRQD.replace("17 2 0 0 0 0 0", "17 2 80 1 0 0 0"));
    tree.put("proc/irq/30/effective_affinity_list", "2");
    let found = tree.findings(&[&config(&tree, "core: 2, policy: fifo(70)")]);
    assert!(found["irq-threads"].1.contains("but those of its own card"), "{:?}", found["irq-threads"]);
}

#[test]
fn an_empty_tree_says_that_nothing_can_be_read() {
    let tree = Tree::empty();
    let output = tree.doctor(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let found = findings(&output);
    assert!(states(&found).values().all(|state| *state == "cannot read"), "{found:?}");
    assert!(found.len() > 20);
    assert_eq!(report(&output)["score"], Value::Null);
    assert!(text(&tree.doctor(&[]).stdout).contains("No score: 0 good, 0 warnings, 0 bad"));
}

#[test]
fn a_missing_file_is_told_and_nothing_else_changes() {
    let whole = Tree::good();
    let before = whole.findings(&[]);
    for (path, _) in all_files() {
        let tree = Tree::good();
        std::fs::remove_file(tree.at(&path)).unwrap();
        let output = tree.doctor(&["--json"]);
        let found = findings(&output);
        assert_ne!(output.status.code(), None, "{path}");
        let worse = found.iter().filter(|(id, (state, _))| before.get(*id).is_some_and(|(was, _)| was != state));
        // A file without which others are looked up instead changes nothing.
        for (id, (state, read)) in worse {
            let may_be = ["nohz-full", "softirq-lock", "nic-queues", "cpu-idle", "irq-affinity"].contains(&id.as_str());
            assert!(state == "cannot read" || may_be, "{path}: {id} is {state}: {read}");
        }
    }
}

/// Puts something else where every file was, and looks that the report stays whole.
fn assault(name: &str, instead: impl Fn(&Path)) {
    let tree = Tree::good();
    let file = config(&tree, "core: 2, policy: fifo(70)");
    for (path, _) in all_files() {
        std::fs::remove_file(tree.at(&path)).unwrap();
        instead(&tree.at(&path));
    }
    let file = file.as_str();
    for arguments in [&[][..], &[file], &[file, "--dry-run"], &[file, "--apply"]] {
        survives(&tree, arguments, name);
    }
}

/// The same with one file at a time, so that it is seen beside what is sound.
fn assault_one_by_one(name: &str, instead: impl Fn(&Path)) {
    let tree = Tree::good();
    let file = config(&tree, "core: 2, policy: fifo(70)");
    for (path, content) in all_files() {
        std::fs::remove_file(tree.at(&path)).unwrap();
        instead(&tree.at(&path));
        survives(&tree, &[&file], &format!("{name} as {path}"));
        std::fs::remove_file(tree.at(&path)).unwrap();
        tree.put(&path, &content);
    }
}

fn survives(tree: &Tree, more: &[&str], what: &str) {
    let output = tree.doctor(&[more, &["--json"]].concat());
    assert!(matches!(output.status.code(), Some(0 | 1)), "{what}: {}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{what}: {}", text(&output.stderr));
    assert!(findings(&output).len() > 20, "{what}");
    let output = tree.doctor(more);
    assert!(output.stderr.is_empty(), "{what}: {}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{what} steers the terminal: {shown:?}");
}

#[test]
fn garbage_in_any_file_harms_nothing() {
    let write = |bytes: &'static [u8]| move |path: &Path| std::fs::write(path, bytes).unwrap();
    assault("no UTF-8", write(b"\xff\xfe\x00\x1b[2J\r\x9b\xc3("));
    assault("a strange list", write(b"0-3,5,^2\n"));
    assault_one_by_one("no UTF-8", write(b"\xff\xfe\x00\x1b[2J\r\x9b\xc3("));
    assault_one_by_one("a strange list", write(b"0-3,5,^2\n"));
    assault("nothing", write(b""));
    assault("a large number", write(b"99999999999999999999999999999999999\n"));
    assault("the largest number", write(b"18446744073709551615\n"));
    assault("a negative number", write(b"-9223372036854775808\n"));
    assault("all cores", write(b"0-65535,0-8191\n"));
    assault("lines", write(b"[\n]\n(\n)\n:::\n=,=\n\"\n"));
}

#[test]
fn what_is_no_ordinary_file_harms_nothing() {
    assault("a directory", |path| std::fs::create_dir(path).unwrap());
    assault("a dangling link", |path| symlink("/nowhere/at/all", path).unwrap());
    assault("a link to itself", |path| symlink(path, path).unwrap());
    assault("an endless file", |path| symlink("/dev/zero", path).unwrap());
    assault("a pipe", |path| {
        let made = Command::new("mkfifo").arg(path).status().unwrap();
        assert!(made.success());
    });
}

#[test]
fn a_huge_file_is_not_read_to_its_end() {
    let tree = Tree::good();
    // Sparse: a tebibyte.
    let huge = |path: &str| std::fs::File::create(tree.at(path)).unwrap().set_len(1 << 40).unwrap();
    huge("proc/cmdline");
    huge("proc/sys/kernel/sched_rt_runtime_us");
    let found = tree.findings(&[]);
    assert!(found["rt-throttling"].1.ends_with("it has more than 1048576 bytes"), "{:?}", found["rt-throttling"]);
    assert_eq!(found["rcu-nocbs"].0, "cannot read");
}

#[test]
fn a_denied_file_is_told_as_such() {
    let tree = Tree::good();
    let path = tree.at("proc/swaps");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_insane"));
    command.args(["doctor", "--json", "--root", tree.0.to_str().unwrap()]);
    if std::fs::read(&path).is_ok() {
        // Root may read everything: somebody else tries.
        command.uid(65_534).gid(65_534);
    }
    let Ok(output) = command.output() else {
        eprintln!("passed over: nobody else may run this program here");
        return;
    };
    let found = findings(&output);
    assert_eq!(found["swap"], ("cannot read".to_owned(), "/proc/swaps: permission denied".to_owned()));
    assert_eq!(found["clock-source"].0, "good");
}

/// A machine that can be mended: a governor, huge pages, an interrupt, throttling.
fn mendable() -> (Tree, String) {
    let tree = Tree::good();
    tree.put("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "powersave");
    tree.put("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never");
    tree.put("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise never [deny] force");
    tree.put("proc/irq/30/effective_affinity_list", "2");
    tree.put("proc/irq/31/disk/name", "");
    tree.put("proc/irq/31/effective_affinity_list", "2");
    tree.put("proc/sys/kernel/sched_rt_runtime_us", "950000");
    tree.put("proc/sys/kernel/osrelease", "6.1.0");
    tree.put("proc/self/timerslack_ns", "50000");
    let file = config(&tree, "core: 2, policy: other");
    (tree, file)
}

/// The files that [`mendable`] wants changed, and to what.
const MENDED: [(&str, &str, &str); 5] = [
    ("rt-throttling", "/proc/sys/kernel/sched_rt_runtime_us", "-1"),
    ("irq-affinity", "/proc/irq/31/smp_affinity_list", "0-1,3"),
    ("cpu-governor", "/sys/devices/system/cpu/cpu2/cpufreq/scaling_governor", "performance"),
    ("transparent-huge-pages", "/sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
    ("huge-pages", "/sys/kernel/mm/transparent_hugepage/shmem_enabled", "never"),
];

fn changes(output: &Output) -> Vec<(String, String, String, String)> {
    let report = report(output);
    let word = |change: &Value, key: &str| change[key].as_str().unwrap().to_owned();
    let all = report["applied"]["changes"].as_array().unwrap().iter();
    all.map(|change| (word(change, "id"), word(change, "path"), word(change, "to"), word(change, "outcome"))).collect()
}

fn expected(outcome: &str) -> Vec<(String, String, String, String)> {
    MENDED.iter().map(|(id, path, to)| ((*id).into(), (*path).into(), (*to).into(), outcome.into())).collect()
}

#[test]
fn apply_mends_what_can_be_mended_and_looks_again() {
    let (tree, file) = mendable();
    let before = tree.findings(&[&file]);
    let output = tree.doctor(&[&file, "--apply", "--json"]);
    assert_eq!(changes(&output), expected("changed"));
    for (_, path, to) in MENDED {
        assert_eq!(tree.get(path.trim_start_matches('/')), to, "{path}");
    }
    let after = findings(&output);
    // The interrupt is still at core 2 until it next arrives, and leaves it then.
    for (id, ..) in MENDED {
        assert_eq!((before[id].0.as_str(), after[id].0.as_str()), ("warning", "good"), "{id}");
    }
    let left = report(&output)["applied"]["left"].to_string();
    assert!(left.contains("timer-slack") && left.contains("whoever starts the runtime"), "{left}");
    // Then nothing is left that could be, and that is said.
    for (more, word) in [(&["--dry-run"][..], "would be"), (&["--apply"], "was")] {
        let shown = text(&tree.doctor(&[&[file.as_str()], more].concat()).stdout);
        assert!(shown.starts_with(&format!("Nothing {word} changed: ")), "{shown}");
    }
}

#[test]
fn a_dry_run_shows_the_same_and_changes_nothing() {
    for more in [&["--dry-run"][..], &["--apply", "--dry-run"]] {
        let (tree, file) = mendable();
        let output = tree.doctor(&[&[file.as_str(), "--json"], more].concat());
        assert_eq!(changes(&output), expected("would be changed"));
        assert_eq!(tree.get("sys/kernel/mm/transparent_hugepage/enabled"), "[always] madvise never");
        assert_eq!(tree.get("proc/sys/kernel/sched_rt_runtime_us"), "950000");
        let shown = text(&tree.doctor(&[&[file.as_str()], more].concat()).stdout);
        let first = "rt-throttling: /proc/sys/kernel/sched_rt_runtime_us: 950000 -> -1\n  would be changed\n";
        assert!(shown.starts_with(first), "{shown}");
    }
}

#[test]
fn a_change_that_fails_keeps_no_other_from_being_made() {
    let (tree, file) = mendable();
    let outside = Tree::empty();
    outside.put("precious", "untouched");
    let link = tree.at("proc/irq/31/smp_affinity_list");
    std::fs::remove_file(&link).unwrap();
    symlink(outside.at("precious"), &link).unwrap();
    let output = tree.doctor(&[&file, "--apply"]);
    let shown = text(&output.stdout);
    assert!(
        shown.contains("smp_affinity_list: not read -> 0-1,3\n  not changed: it leads out of the tree\n"),
        "{shown}"
    );
    assert_eq!(outside.get("precious"), "untouched");
    assert_eq!(tree.get("sys/devices/system/cpu/cpu2/cpufreq/scaling_governor"), "performance", "a later change");
}

#[test]
fn throttling_is_left_alone_where_a_datapath_never_sleeps_or_none_is_known() {
    for (datapath, why) in
        [(None, "only a configuration"), (Some("core: 2, policy: fifo(70), idle: spin"), "never sleeps")]
    {
        let (tree, _) = mendable();
        let file = datapath.map(|datapath| config(&tree, datapath));
        let output = tree.doctor(
            &[&["--apply", "--json"], file.as_slice().iter().map(String::as_str).collect::<Vec<_>>().as_slice()]
                .concat(),
        );
        assert_eq!(tree.get("proc/sys/kernel/sched_rt_runtime_us"), "950000");
        let left = report(&output)["applied"]["left"].to_string();
        assert!(left.contains("rt-throttling") && left.contains(why), "{left}");
    }
}

#[test]
fn this_machine_can_be_examined() {
    let output = insane(&["doctor", "--json"]);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    let found = findings(&output);
    assert!(found["kernel-version"].1.starts_with(|c: char| c.is_ascii_digit()));
    assert_ne!(found["tai-offset"].0, "cannot read", "the call is asked here");
    assert_ne!(found["cap-sys-nice"].0, "cannot read");
    assert!(report(&output)["score"].as_u64().unwrap() <= 100);
}

#[test]
fn lines_fit_a_terminal_but_for_what_is_to_be_copied() {
    let (tree, file) = mendable();
    let list = insane(&["doctor", "--list"]);
    for output in [insane(&["doctor"]), tree.doctor(&[&file, "--dry-run"]), list] {
        let shown = text(&output.stdout);
        for line in shown.lines().filter(|line| line.chars().count() > 80) {
            let is_one_word = line.split_whitespace().count() == 1;
            assert!(line.contains("$ ") || is_one_word, "{line}");
        }
        assert!(!shown.contains('\u{1b}'), "no colours into a pipe");
    }
}

#[test]
fn the_list_names_every_entry() {
    let output = insane(&["doctor", "--list"]);
    assert!(output.status.success());
    let shown = text(&output.stdout);
    for id in Tree::good().findings(&[]).keys() {
        assert!(shown.lines().any(|line| line.starts_with(&format!("{id} (weight "))), "{id}");
    }
}

#[test]
fn a_wrong_command_line_is_two() {
    for arguments in
        [&["--root", "/nowhere"][..], &["--root", "/dev/null"], &["--list", "--apply"], &["--fix"], &["a", "b"]]
    {
        assert_eq!(insane(&[&["doctor"], arguments].concat()).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_configuration_that_is_wrong_is_one() {
    let output = insane(&["doctor", "/nowhere/x.ron"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot read the configuration"));
}

#[test]
fn what_discovery_lacks_is_found() {
    let tree = Tree::good();
    let config = |gossip: &str| {
        let text = format!(
            "(links: [(name: \"n\", technology: udp(bind: \"10.0.0.1:7400\"))], \
                 discovery: (gossip: (cluster: \"c\", {gossip})))"
        );
        tree.put("plant.ron", &text);
        tree.findings(&[tree.at("plant.ron").to_str().unwrap()])
    };
    let found = config("bind: \"127.0.0.1:7100\", allow: [\"10.0.0.0/8\", \"8.0.0.0/8\"]");
    for (id, state, part) in [
        ("gossip-address", "bad", "beyond this machine"),
        ("gossip-seeds", "warning", "none: this host waits"),
        ("gossip-trust", "bad", "8.0.0.0/8 can be reached by anybody"),
    ] {
        assert!(found[id].0 == state && found[id].1.contains(part), "{id}: {:?}", found[id]);
    }
    let found = config("bind: \"10.0.0.1:7100\", allow: [\"10.0.0.0/8\"], seeds: [\"10.0.0.1:7100\"]");
    assert!(found["gossip-seeds"].1.contains("its own only seed"), "{:?}", found["gossip-seeds"]);
    assert_eq!(found["gossip-address"].0, "cannot read", "the interfaces of a tree are not known");
    assert!(!tree.findings(&[]).contains_key("gossip-trust"), "without discovery there is nothing to say");
}
