//! What a remedy says is done, in a model of the host; the finding must be gone then.

use super::tests::{CASES, cores, find, host, irq};
use crate::doctor::finding::State;
use crate::doctor::host::{Host, RtGroup};
use crate::doctor::reader::Read;
use crate::doctor::wanted::Wanted;
use insane_sys::host::Bounds;

/// Does what follows the rule's words in a remedy; false if there is nothing to do.
type Deed = fn(&str, &mut Host, &mut Wanted) -> bool;

/// The number that a text begins with.
fn number(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

/// The text up to the first of these.
fn until<'t>(text: &'t str, ends: &[char]) -> &'t str {
    text.split(ends).next().unwrap_or_default()
}

fn limit(value: Option<u64>, bounds: &mut Read<Bounds>) -> bool {
    *bounds = Ok(Bounds { soft: value, hard: value });
    value.is_some()
}

fn granted(list: &str, h: &mut Host) -> bool {
    let rights = [("net_admin", 12), ("net_raw", 13), ("ipc_lock", 14), ("sys_nice", 23), ("bpf", 39)];
    for name in until(list, &['+', '\n', ' ']).split(',') {
        let name = name.to_lowercase();
        let right = rights.iter().find(|(right, _)| name == format!("cap_{right}")).expect("a right that is known");
        h.calls.capabilities = h.calls.capabilities.clone().map(|held| held | 1 << right.1);
    }
    true
}

/// As whoever moves interrupts would: all of them.
fn moved_away(to: &str, h: &mut Host) -> bool {
    let threads = h.irq_threads.as_deref().unwrap_or_default();
    let mut irqs = h.irqs.take_known();
    irqs.extend(threads.iter().filter_map(|thread| Some(irq(thread.irq()?, &thread.name, to))));
    for one in &mut irqs {
        (one.allowed, one.cores) = (Ok(cores(to)), Ok(cores(to)));
    }
    h.irqs = Ok(irqs);
    true
}

trait TakeKnown<T> {
    fn take_known(&mut self) -> T;
}

impl<T: Default> TakeKnown<T> for Read<T> {
    fn take_known(&mut self) -> T {
        self.as_mut().map(std::mem::take).unwrap_or_default()
    }
}

/// An isolated core of its own, and no real-time policy.
fn isolated_as_other(h: &mut Host, w: &mut Wanted) -> bool {
    for datapath in w.datapaths.iter_mut().filter(|datapath| datapath.is_real_time) {
        (datapath.core, datapath.fifo) = (Some(3), None);
    }
    h.isolated = Ok(cores("2-3"));
    true
}

const RULES: &[(&str, Deed)] = &[
    ("$ setcap ", |rest, h, _| granted(rest, h)),
    ("AmbientCapabilities=", |rest, h, _| granted(rest, h)),
    ("USER - rtprio ", |rest, h, _| limit(number(rest), &mut h.calls.priority)),
    ("LimitRTPRIO=", |rest, h, _| limit(number(rest), &mut h.calls.priority)),
    ("USER - memlock ", |rest, h, _| limit(number(rest).map(|kib| kib * 1024), &mut h.calls.locked)),
    ("LimitMEMLOCK=", |rest, h, _| limit(number(rest), &mut h.calls.locked)),
    ("USER hard nofile ", |rest, h, _| limit(number(rest), &mut h.calls.descriptors)),
    ("LimitNOFILE=", |rest, h, _| limit(number(rest), &mut h.calls.descriptors)),
    ("$ sysctl -w kernel.sched_rt_runtime_us=-1", |_, h, _| {
        h.rt_share.as_mut().unwrap().0 = -1;
        true
    }),
    ("`idle: spin_then_block(us: ...)`", |_, _, w| {
        w.datapaths.iter_mut().for_each(|datapath| datapath.spins = false);
        true
    }),
    ("`policy: other`", |_, h, w| isolated_as_other(h, w)),
    ("policy: fifo(", |rest, _, w| {
        let Some(priority) = number(rest) else { return false };
        w.datapaths.iter_mut().filter_map(|datapath| datapath.fifo.as_mut()).for_each(|own| *own = priority as u8);
        true
    }),
    ("$ chrt -f -p ", |rest, h, _| {
        let name = rest.split_once("$(pgrep -").unwrap().1[2..].trim_matches(['\'', ')', '\n']);
        let name = until(name, &['\'', ')']);
        let mut threads = h.irq_threads.as_mut().unwrap().iter_mut();
        threads.find(|thread| thread.name == name).expect("it is there").priority = number(rest).unwrap() as u8;
        true
    }),
    ("ove the interrupt to another core", |_, h, _| moved_away("0", h)),
    ("ove the card's interrupts to another core", |_, h, _| moved_away("0", h)),
    ("$ echo ", |rest, h, _| {
        let (value, path) = rest.split_once(" > ").unwrap();
        let path = until(path, &['\n']);
        if path.starts_with("/proc/irq/") {
            return moved_away(value, h);
        }
        match path {
            "/sys/kernel/mm/transparent_hugepage/shmem_enabled" => h.huge_pages_of_shmem = Ok(value.into()),
            "/sys/kernel/mm/transparent_hugepage/enabled" => h.huge_pages_for_all = Ok(value.into()),
            "/sys/class/net/eth0/napi_defer_hard_irqs" => h.nics.as_mut().unwrap()[0].defer = Ok(0),
            "/sys/fs/cgroup/cpu/x/cpu.rt_runtime_us" => {
                h.rt_group = Ok(RtGroup::Ration { path: path.into(), runtime_us: value.parse().unwrap() });
            }
            _ => {
                let core =
                    number(path.strip_prefix("/sys/kernel/debug/sched/fair_server/cpu").expect("known")).unwrap();
                let mut servers = h.fair_servers.as_mut().unwrap().iter_mut();
                servers.find(|server| u64::from(server.core) == core).unwrap().runtime_ns = value.parse().unwrap();
            }
        }
        true
    }),
    ("`busy_poll_us: 50`", |_, _, w| {
        w.datapaths.iter_mut().for_each(|datapath| datapath.polls_its_cards = true);
        true
    }),
    ("\n  ", |rest, h, _| {
        let list = |name: &str| rest.split_whitespace().find_map(|word| word.strip_prefix(name)).map(cores);
        let (isolated, full, rcu) = (list("isolcpus="), list("nohz_full="), list("rcu_nocbs="));
        let any = isolated.is_some() || full.is_some() || rcu.is_some();
        isolated.into_iter().for_each(|list| h.isolated = Ok(list));
        full.into_iter().for_each(|list| h.nohz_full = Ok(Some(list)));
        rcu.into_iter().for_each(|list| h.rcu_nocbs = Ok(list));
        any
    }),
    ("rt_group_sched=0", |_, h, _| {
        h.rt_group = Ok(RtGroup::Off);
        true
    }),
    ("Give it a core of ", |rest, h, w| {
        let core = h.online.as_ref().unwrap().0.last().copied();
        assert!(rest.starts_with(&h.online.as_ref().unwrap().to_string()));
        w.datapaths.iter_mut().filter(|datapath| datapath.is_real_time).for_each(|datapath| datapath.core = core);
        true
    }),
    ("$ cpupower frequency-set -g performance", |_, h, _| {
        h.governors.values_mut().for_each(|governor| *governor = Ok("performance".into()));
        true
    }),
    ("$ cpupower idle-set -D ", |rest, h, _| {
        let most = number(rest).unwrap();
        let states = h.idle_states.values_mut().filter_map(|states| states.as_mut().ok()).flatten();
        states.for_each(|state| state.is_enabled &= state.exit_us < most);
        true
    }),
    ("$ swapoff -a", |_, h, _| {
        h.swaps = Ok(vec![]);
        true
    }),
    ("$ ethtool -C eth0 rx-usecs 0", |_, h, _| {
        h.calls.coalescing.get_mut("eth0").unwrap().as_mut().unwrap().receive_us = 0;
        true
    }),
    ("$ ethtool -L eth0 combined ", |rest, h, _| {
        h.nics.as_mut().unwrap()[0].receive_queues = Ok(number(rest).unwrap() as usize as _);
        true
    }),
    ("TimerSlackNSec=", |rest, h, _| {
        h.calls.timer_slack_ns = Ok(number(rest).unwrap() as _);
        true
    }),
    ("Install Linux 6.1 or later", |_, h, _| {
        h.kernel = Ok((6, 1));
        true
    }),
    ("$ apt install linux-image-rt-amd64", |_, h, _| {
        h.realtime = Ok("1".into());
        true
    }),
    ("Use Linux 6.18 or later without that option", |_, h, _| {
        (h.kernel, h.config) = (Ok((6, 18)), Ok([("PREEMPT_RT_NEEDS_BH_LOCK".to_owned(), 'n')].into()));
        true
    }),
    ("Use a kernel with CONFIG_NO_HZ_FULL", |_, h, _| {
        h.nohz_full = Ok(Some(Default::default()));
        true
    }),
    ("Use a kernel with CONFIG_RCU_NOCB_CPU", |_, h, _| {
        h.config = Ok([("RCU_NOCB_CPU".to_owned(), 'y')].into());
        true
    }),
    ("boot with tsc=reliable", |_, h, _| {
        h.clock_source = Ok("tsc".into());
        true
    }),
    ("Prefer tsc", |_, h, _| {
        h.clock_source = Ok("tsc".into());
        true
    }),
    ("$ apt install chrony", |_, h, _| {
        h.calls.clock.as_mut().unwrap().is_synchronised = true;
        true
    }),
    ("`leapsectz right/UTC`", |_, h, _| {
        h.calls.clock.as_mut().unwrap().tai_offset_s = 37;
        true
    }),
    ("ind gossip to", |_, h, w| {
        let own = h.calls.addresses.as_ref().unwrap().iter().find(|(name, _)| name == "eth0").unwrap().1;
        w.gossip.as_mut().unwrap().bind = (own, 7100).into();
        true
    }),
    ("Bring the interface up", |_, h, w| {
        let ip = w.gossip.as_ref().unwrap().bind.ip();
        h.calls.addresses.as_mut().unwrap().push(("eth1".into(), ip));
        true
    }),
    ("in `seeds`", |_, _, w| {
        w.gossip.as_mut().unwrap().seeds.push("10.0.0.99:7100".parse().unwrap());
        true
    }),
    ("Allow the private networks of the plant only", |_, _, w| {
        let network = insane_core::Network::new([10, 0, 0, 0].into(), 24).unwrap();
        w.gossip.as_mut().unwrap().allow = vec![network];
        true
    }),
];

/// Each way that a remedy offers is taken, and what is said then is done, too, until the entry is
/// good, or its question no longer arises.
#[test]
fn who_does_what_a_remedy_says_is_rid_of_the_finding() {
    let mut used = std::collections::BTreeSet::new();
    for (id, wanted, change, state, _) in CASES {
        if !matches!(state, State::Warning | State::Bad) {
            continue;
        }
        let fresh = || {
            let mut host = host();
            change(&mut host);
            // No address is left to bind to where there is none: the model's card has one again.
            if host.calls.addresses.as_ref().is_ok_and(Vec::is_empty) {
                host.calls.addresses = Ok(vec![("eth0".into(), [192, 0, 2, 7].into())]);
            }
            (host, wanted())
        };
        let first = {
            let (host, wanted) = fresh();
            find(id, &host, &wanted).expect("it arises").remedy
        };
        let mut ways = 0;
        for (way, (words, _)) in RULES.iter().enumerate().filter(|(_, (words, _))| first.contains(words)) {
            let (mut host, mut wanted) = fresh();
            let Some(left) = follow(id, way, (&mut host, &mut wanted)) else { continue };
            assert_eq!(left, "", "{id}: {first:?} by {words:?}");
            used.insert(words);
            ways += 1;
        }
        assert!(ways > 0, "{id}: nobody can do what it says: {first:?}");
    }
    for (words, _) in RULES {
        assert!(used.contains(words), "no remedy says {words:?} any more");
    }
}

/// What is left of the finding when all was done, the rule at `way` first; `None`: that one does
/// nothing. A rule that asks for two steps ("lower ..., then") has both in one remedy.
fn follow(id: &str, way: usize, (host, wanted): (&mut Host, &mut Wanted)) -> Option<String> {
    let done = |at: usize, remedy: &str, host: &mut Host, wanted: &mut Wanted| {
        let (words, deed) = RULES[at];
        remedy.split_once(words).is_some_and(|(_, rest)| deed(rest, host, wanted))
    };
    let mut finding = find(id, host, wanted)?;
    if !done(way, &finding.remedy, host, wanted) {
        return None;
    }
    if finding.remedy.contains(", then\n") {
        for (at, (words, _)) in RULES.iter().enumerate() {
            let is_step = ["policy: fifo(", "$ chrt -f -p "].contains(words);
            let _ = is_step && at != way && done(at, &finding.remedy, host, wanted);
        }
    }
    // What is named is one of several, or was the worst of it.
    for _ in 0..4 {
        match find(id, host, wanted) {
            None => return Some(String::new()),
            Some(next) if next.state == State::Good => return Some(String::new()),
            Some(next) => finding = next,
        }
        let ways = std::iter::once(way).chain(0..RULES.len());
        let other = ways.into_iter().find(|at| done(*at, &finding.remedy, host, wanted));
        if other.is_none() {
            break;
        }
    }
    Some(format!("{}: {}", finding.read, finding.remedy))
}
