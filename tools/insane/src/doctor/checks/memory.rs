//! Memory that is not where it should be when it is needed.

use super::some_of;
use crate::doctor::finding::{Change, Entry, Mend, Outcome, bad, good, warning};
use crate::doctor::host::Host;
use crate::doctor::reader::{Known, excerpt};
use crate::doctor::wanted::Wanted;
use insane_config::HugePages;

const THP: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const SHMEM: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "transparent-huge-pages",
        weight: 2,
        reads: THP,
        why: "With `always` the kernel gathers and compacts pages of every process in the background, and stops it \
              meanwhile; the runtime asks for huge pages where it wants them.",
        source: "kernel docs: admin-guide/mm/transhuge",
        unread: "Run it on the host, where /sys is mounted.",
        check: huge_pages_for_all,
        mend: Mend::Changes(huge_pages_on_request),
    },
    Entry {
        id: "swap",
        weight: 4,
        reads: "/proc/swaps",
        why: "A page that was swapped out comes back from disk when a task touches it: milliseconds in the middle of \
              a cycle. Applications that lock nothing suffer it even where the runtime locks its own.",
        source: "kernel docs: admin-guide/sysctl/vm (swappiness); proc_swaps(5), mlock(2)",
        unread: "Run it on the host, where /proc is mounted.",
        check: swap,
        mend: Mend::ByHand("without swap, programs may be killed: the administrator's choice"),
    },
    Entry {
        id: "huge-pages",
        weight: 2,
        reads: SHMEM,
        why: "Heaps of huge pages need a small part of the address caches. The runtime makes them of ordinary shared \
              memory on request, which `deny` forbids; the reserved pool is not used.",
        source: "kernel docs: admin-guide/mm/transhuge (shmem_enabled); madvise(2) (MADV_COLLAPSE); commit 3de0c269adc6",
        unread: "Run it on the host, where /sys is mounted, with a kernel that has CONFIG_TRANSPARENT_HUGEPAGE.",
        check: huge_pages,
        mend: Mend::Changes(allow_huge_pages),
    },
];

fn huge_pages_for_all(host: &Host, _: &Wanted) -> Outcome {
    let chosen = host.huge_pages_for_all.known()?;
    match chosen.as_str() {
        "madvise" | "never" => good(chosen.as_str()),
        other => {
            warning(excerpt(other), format!("$ echo madvise > {THP}\nand boot with transparent_hugepage=madvise."))
        }
    }
}

fn huge_pages_on_request(host: &Host, _: &Wanted) -> Result<Vec<Change>, String> {
    let from = host.huge_pages_for_all.clone().map_err(|unread| unread.to_string())?;
    Ok(vec![Change { path: THP.into(), from, to: "madvise".into() }])
}

fn swap(host: &Host, wanted: &Wanted) -> Outcome {
    let swaps = host.swaps.known()?;
    if swaps.is_empty() {
        return good("none");
    }
    let names: Vec<String> = swaps.iter().map(|name| excerpt(name)).collect();
    let remedy =
        "$ swapoff -a\nand take it out of /etc/fstab; at least lock the runtime's memory (`memory: (lock: true)`).";
    match wanted.is_given && wanted.locked_bytes.is_none() {
        true => bad(format!("{}; the configuration locks nothing", some_of(&names)), remedy),
        false => warning(some_of(&names), remedy),
    }
}

fn huge_pages(host: &Host, wanted: &Wanted) -> Outcome {
    let told = |chosen: &str| match chosen {
        "never" => "shared memory gets them on request, as the runtime makes it, and never by itself".to_owned(),
        chosen => excerpt(chosen),
    };
    let reserved = host.reserved_huge_pages.as_ref().map_or(String::new(), |count| format!("; {count} pages reserved"));
    if wanted.huge_pages == HugePages::Never {
        // Nobody misses what was not asked for, so not knowing is no finding either.
        return match &host.huge_pages_of_shmem {
            Ok(chosen) => good(format!("{}; not asked for{reserved}", told(chosen))),
            Err(_) => Ok(None),
        };
    }
    let chosen = host.huge_pages_of_shmem.known()?;
    if chosen != "deny" {
        return good(format!("{}{reserved}", told(chosen)));
    }
    let remedy = format!("$ echo never > {SHMEM}\n(`never` by itself, which leaves room for requests).");
    match wanted.huge_pages {
        HugePages::Require => bad("deny, and the configuration requires them", remedy),
        _ => warning("deny, and the configuration tries them", remedy),
    }
}

fn allow_huge_pages(host: &Host, _: &Wanted) -> Result<Vec<Change>, String> {
    let from = host.huge_pages_of_shmem.clone().map_err(|unread| unread.to_string())?;
    Ok(vec![Change { path: SHMEM.into(), from, to: "never".into() }])
}
