//! Fills the snapshot: which files say what, and what stands in for one that is missing.

use super::calls::Calls;
use super::cores::Cores;
use super::host::{FairServer, Host, IdleState, Irq, IrqThread, Nic, RtGroup};
use super::inflate::gunzip;
use super::reader::{Known, Read, Reader, Unread, Why};
use std::collections::BTreeMap;

/// Most interrupts, cores, interfaces and idle states that are looked at.
const IRQS_MAX: usize = 16_384;
const INTERFACES_MAX: usize = 256;
const STATES_MAX: usize = 32;

/// Where the cores are.
const CPU: &str = "/sys/devices/system/cpu";
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

impl Host {
    /// Reads everything.
    pub fn read(reader: &Reader) -> Host {
        let release = reader.text("/proc/sys/kernel/osrelease");
        let kernel = release.clone().and_then(|text| version(&text));
        let parameters = reader.text("/proc/cmdline").map(|line| parameters(&line));
        let present = cores(reader, &format!("{CPU}/present"), &Cores::default()).unwrap_or_default();
        let online = online(reader, &present);
        let config = kernel_config(reader, &release);
        let nohz_full = nohz_full(reader, &present);
        let names = interface_names(reader);
        let each_core = online.clone().unwrap_or_default().0;
        Host {
            kernel,
            build: reader.text("/proc/sys/kernel/version"),
            realtime: reader.text("/sys/kernel/realtime"),
            isolated: isolated(reader, &parameters, &present),
            rcu_nocbs: rcu_nocbs(&parameters, &nohz_full, &present),
            governors: each_core.iter().map(|core| (*core, governor(reader, *core))).collect(),
            idle_states: each_core.iter().map(|core| (*core, idle_states(reader, *core))).collect(),
            rt_share: rt_share(reader),
            fair_servers: fair_servers(reader),
            rt_group: rt_group(reader, &config, &parameters),
            irqs: irqs(reader, &present),
            irq_threads: irq_threads(reader),
            huge_pages_for_all: chosen(reader, "/sys/kernel/mm/transparent_hugepage/enabled"),
            huge_pages_of_shmem: chosen(reader, "/sys/kernel/mm/transparent_hugepage/shmem_enabled"),
            reserved_huge_pages: reader.number("/proc/sys/vm/nr_hugepages"),
            swaps: reader.text("/proc/swaps").and_then(|text| swaps(&text)),
            clock_source: reader.text(CLOCK_SOURCE),
            calls: Calls::of(reader, names.as_deref().unwrap_or_default()),
            nics: names.map(|names| names.into_iter().map(|name| nic(reader, name)).collect()),
            release,
            config,
            parameters,
            online,
            nohz_full,
        }
    }
}

/// `6.18.44-rt1`: 6 and 18.
fn version(text: &str) -> Read<(u32, u32)> {
    let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
    let mut parts = text.split('.');
    let (major, minor) = (parts.next().and_then(digits), parts.next().and_then(digits));
    major.zip(minor).ok_or_else(|| Unread::nonsense("/proc/sys/kernel/osrelease", text, "a version"))
}

/// Parameters of the kernel; what follows `--` is not for the kernel. Double quotes hold
/// blanks together.
fn parameters(line: &str) -> BTreeMap<String, String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => words.push(String::new()),
            c => words.last_mut().expect("there is a first word").push(c),
        }
    }
    let own = words.into_iter().take_while(|word| word != "--").filter(|word| !word.is_empty());
    own.map(|word| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), value.to_owned()),
        None => (word, String::new()),
    })
    .collect()
}

fn cores(reader: &Reader, path: &str, present: &Cores) -> Read<Cores> {
    let text = reader.text(path)?;
    Cores::parse(&text, present).ok_or_else(|| Unread::nonsense(path, &text, "a list of cores"))
}

/// Without `/sys`, a core has a line of its own in `/proc/stat` while it is on line.
fn online(reader: &Reader, present: &Cores) -> Read<Cores> {
    let at_sys = cores(reader, &format!("{CPU}/online"), present);
    if at_sys.is_ok() {
        return at_sys;
    }
    let counted = reader.text("/proc/stat").unwrap_or_default();
    let core = |line: &str| line.strip_prefix("cpu")?.split(' ').next()?.parse().ok();
    let counted: Cores = counted.lines().filter_map(core).collect();
    if counted.is_empty() { at_sys } else { Ok(counted) }
}

/// What a parameter says; nothing if it was not given.
fn cores_of_parameter(parameters: &Read<BTreeMap<String, String>>, name: &str, present: &Cores) -> Read<Cores> {
    let Some(value) = parameters.known()?.get(name) else { return Ok(Cores::default()) };
    // `isolcpus` has flags before its cores.
    let is_flag = |part: &&str| ["nohz", "domain", "managed_irq"].contains(part);
    let list: Vec<&str> = value.split(',').skip_while(is_flag).collect();
    let what = format!("{name}= of /proc/cmdline");
    Cores::parse(&list.join(","), present).ok_or_else(|| Unread::nonsense(&what, value, "a list of cores"))
}

/// From the boot, and from partitions of cgroup v2.
fn isolated(reader: &Reader, parameters: &Read<BTreeMap<String, String>>, present: &Cores) -> Read<Cores> {
    let at_boot = match cores(reader, &format!("{CPU}/isolated"), present) {
        Err(Unread { why: Why::Missing, .. }) if parameters.is_ok() => {
            cores_of_parameter(parameters, "isolcpus", present)
        }
        read => read,
    };
    let partitions = cores(reader, "/sys/fs/cgroup/cpuset.cpus.isolated", present).unwrap_or_default();
    at_boot.map(|cores| cores.0.into_iter().chain(partitions.0).collect())
}

fn nohz_full(reader: &Reader, present: &Cores) -> Read<Option<Cores>> {
    match cores(reader, &format!("{CPU}/nohz_full"), present) {
        Ok(cores) => Ok(Some(cores)),
        Err(Unread { why: Why::Missing, .. }) if reader.has(&format!("{CPU}/online")) => Ok(None),
        Err(unread) => Err(unread),
    }
}

/// `nohz_full` implies it.
fn rcu_nocbs(
    parameters: &Read<BTreeMap<String, String>>,
    nohz_full: &Read<Option<Cores>>,
    present: &Cores,
) -> Read<Cores> {
    let implied = match nohz_full {
        Ok(cores) => cores.clone().unwrap_or_default(),
        Err(_) => cores_of_parameter(parameters, "nohz_full", present)?,
    };
    let told = cores_of_parameter(parameters, "rcu_nocbs", present)?;
    Ok(told.0.into_iter().chain(implied.0).collect())
}

/// The text configuration beside the kernel, or the one inside it.
fn kernel_config(reader: &Reader, release: &Read<String>) -> Read<BTreeMap<String, char>> {
    const INSIDE: &str = "/proc/config.gz";
    if let Ok(release) = release
        && let Ok(text) = reader.text(&format!("/boot/config-{release}"))
    {
        return Ok(options(&text));
    }
    let packed = reader.bytes(INSIDE)?;
    let text = gunzip(&packed).ok_or_else(|| Unread::because(INSIDE, "it cannot be unpacked"))?;
    Ok(options(&String::from_utf8_lossy(&text)))
}

fn options(text: &str) -> BTreeMap<String, char> {
    let option = |line: &str| match line.strip_prefix("# CONFIG_") {
        Some(rest) => Some((rest.strip_suffix(" is not set")?.to_owned(), 'n')),
        None => {
            let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
            Some((name.to_owned(), value.chars().next()?))
        }
    };
    text.lines().filter_map(option).collect()
}

fn governor(reader: &Reader, core: u16) -> Read<String> {
    reader.text(&format!("{CPU}/cpu{core}/cpufreq/scaling_governor"))
}

fn idle_states(reader: &Reader, core: u16) -> Read<Vec<IdleState>> {
    let place = format!("{CPU}/cpu{core}/cpuidle");
    let names = reader.entries(&place)?;
    let names = names.iter().filter(|name| name.starts_with("state")).take(STATES_MAX);
    names
        .map(|state| {
            Ok(IdleState {
                name: reader.text(&format!("{place}/{state}/name"))?,
                exit_us: reader.number(&format!("{place}/{state}/latency"))?,
                is_enabled: !reader.text(&format!("{place}/{state}/disable")).is_ok_and(|text| text == "1"),
            })
        })
        .collect()
}

fn rt_share(reader: &Reader) -> Read<(i64, i64)> {
    Ok((reader.number("/proc/sys/kernel/sched_rt_runtime_us")?, reader.number("/proc/sys/kernel/sched_rt_period_us")?))
}

fn fair_servers(reader: &Reader) -> Read<Vec<FairServer>> {
    const PLACE: &str = "/sys/kernel/debug/sched/fair_server";
    let server = |name: &String| {
        let core = name.strip_prefix("cpu")?.parse().ok()?;
        let number = |file: &str| reader.number(&format!("{PLACE}/{name}/{file}"));
        Some(number("runtime").and_then(|runtime_ns| Ok(FairServer { core, runtime_ns, period_ns: number("period")? })))
    };
    reader.entries(PLACE)?.iter().filter_map(server).collect()
}

fn rt_group(
    reader: &Reader,
    config: &Read<BTreeMap<String, char>>,
    parameters: &Read<BTreeMap<String, String>>,
) -> Read<RtGroup> {
    const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"];
    let groups = reader.text("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let is_cpu = parts.nth(1)?.split(',').any(|controller| controller == "cpu");
        is_cpu.then(|| parts.next()).flatten()
    });
    for hierarchy in HIERARCHIES {
        // Inside a container the group's own directory is often mounted at the top.
        for group in [group.unwrap_or_default(), ""] {
            let path = format!("{hierarchy}{}/cpu.rt_runtime_us", group.trim_end_matches('/'));
            match reader.number(&path) {
                Ok(runtime_us) => return Ok(RtGroup::Ration { path, runtime_us }),
                Err(Unread { why: Why::Missing, .. }) => {}
                Err(unread) => return Err(unread),
            }
        }
    }
    let set = |name: &str| config.known().map(|options| options.get(name).is_some_and(|value| *value == 'y'));
    let told = parameters.as_ref().ok().and_then(|parameters| parameters.get("rt_group_sched")).map(String::as_str);
    match set("RT_GROUP_SCHED") {
        Ok(false) => Ok(RtGroup::Off),
        Ok(true) if told == Some("0") || set("RT_GROUP_SCHED_DEFAULT_DISABLED")? && told != Some("1") => {
            Ok(RtGroup::Off)
        }
        Ok(true) => Ok(RtGroup::On),
        // A hierarchy of the cpu controller without the file is one of a kernel without it.
        Err(_) if HIERARCHIES.iter().any(|place| reader.has(&format!("{place}/cpu.shares"))) => Ok(RtGroup::Off),
        Err(unread) => Err(unread),
    }
}

fn irqs(reader: &Reader, present: &Cores) -> Read<Vec<Irq>> {
    const FILES: [&str; 6] =
        ["affinity_hint", "effective_affinity", "effective_affinity_list", "smp_affinity", "smp_affinity_list", "node"];
    let irq = |number: u32| {
        let place = format!("/proc/irq/{number}");
        let entries = reader.entries(&place).ok()?;
        // Each handler has a directory of its own; nothing arrives where there is none.
        let name = entries.into_iter().find(|name| !FILES.contains(&name.as_str()) && name != "spurious")?;
        let allowed = cores(reader, &format!("{place}/smp_affinity_list"), present);
        let effective = cores(reader, &format!("{place}/effective_affinity_list"), present);
        let cores = match (&allowed, effective) {
            // Some controllers move an interrupt only when it next arrives: where it may be
            // is where it will be.
            (Ok(allowed), Ok(effective)) if effective.both(allowed).is_empty() => Ok(allowed.clone()),
            (_, Ok(effective)) if !effective.is_empty() => Ok(effective),
            (allowed, _) => (*allowed).clone(),
        };
        Some(Irq { number, name, allowed, cores })
    };
    let entries = reader.entries("/proc/irq")?;
    Ok(entries.iter().filter_map(|name| name.parse().ok()).take(IRQS_MAX).filter_map(irq).collect())
}

/// Threads of the kernel stand among the processes.
fn irq_threads(reader: &Reader) -> Read<Vec<IrqThread>> {
    /// Flag of threads of the kernel (include/linux/sched.h).
    const PF_KTHREAD: u64 = 0x0020_0000;
    let thread = |pid: &String| {
        let name = reader.text(&format!("/proc/{pid}/comm")).ok()?;
        if !name.starts_with("irq/") && !name.starts_with("ksoftirqd/") {
            return None;
        }
        let stat = reader.text(&format!("/proc/{pid}/stat")).ok()?;
        // The name may hold anything; fields 3 and on follow its last parenthesis. The 9th
        // are flags, the 40th is the real-time priority (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let flags: u64 = fields.get(9 - 3)?.parse().ok()?;
        // Any process may take such a name.
        let is_of_kernel = flags & PF_KTHREAD != 0;
        is_of_kernel.then_some(IrqThread { name, priority: fields.get(40 - 3)?.parse().ok()? })
    };
    let entries = reader.entries("/proc")?;
    let pids: Vec<&String> = entries.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect();
    if pids.is_empty() {
        return Err(Unread::because("/proc", "it has no processes"));
    }
    let threads: Vec<IrqThread> = pids.into_iter().filter_map(thread).collect();
    match threads.iter().any(|thread| thread.softirq_core().is_some()) {
        true => Ok(threads),
        // Every core has a ksoftirqd, so this is a container with processes of its own.
        false => Err(Unread::because("/proc", "the kernel's threads are not visible from here")),
    }
}

/// The word in brackets, or the only one.
fn chosen(reader: &Reader, path: &str) -> Read<String> {
    let text = reader.text(path)?;
    let mut words = text.split_whitespace();
    let in_brackets = words.clone().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
    let only = words.next().filter(|_| words.next().is_none());
    in_brackets.or(only).map(str::to_owned).ok_or_else(|| Unread::nonsense(path, &text, "a choice"))
}

fn swaps(text: &str) -> Read<Vec<String>> {
    let mut lines = text.lines();
    match lines.next() {
        Some(head) if head.starts_with("Filename") => {
            Ok(lines.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
        }
        _ => Err(Unread::nonsense("/proc/swaps", text, "a list of swaps")),
    }
}

fn interface_names(reader: &Reader) -> Read<Vec<String>> {
    let mut names = reader.entries("/sys/class/net")?;
    // `bonding_masters` is a file between the interfaces.
    names.retain(|name| name != "lo" && reader.has(&format!("/sys/class/net/{name}/ifindex")));
    names.truncate(INTERFACES_MAX);
    Ok(names)
}

fn nic(reader: &Reader, name: String) -> Nic {
    let place = format!("/sys/class/net/{name}");
    // A device of virtio hangs below the one on the bus.
    let mut irqs: Vec<u32> = ["device/msi_irqs", "device/../msi_irqs"]
        .iter()
        .flat_map(|below| reader.entries(&format!("{place}/{below}")).unwrap_or_default())
        .filter_map(|irq| irq.parse().ok())
        .collect();
    irqs.extend(reader.number::<u32>(&format!("{place}/device/irq")).ok().filter(|irq| *irq > 0));
    irqs.sort_unstable();
    irqs.dedup();
    let queues = reader.entries(&format!("{place}/queues"));
    Nic {
        is_physical: reader.has(&format!("{place}/device")),
        receive_queues: queues.map(|names| names.iter().filter(|name| name.starts_with("rx-")).count()),
        defer: reader.number(&format!("{place}/napi_defer_hard_irqs")),
        irqs,
        name,
    }
}
