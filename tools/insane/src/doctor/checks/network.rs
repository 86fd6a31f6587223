//! Network cards: those of the configuration, or all physical ones.

use super::some_of;
use crate::doctor::finding::{Entry, Mend, Outcome, good, warning};
use crate::doctor::host::{Host, Nic};
use crate::doctor::reader::{Known, Unread};
use crate::doctor::wanted::{Hears, Wanted};
use insane_sys::host::Channels;

/// Waiting longer for a second packet costs more than it saves.
const GATHER_US_GOOD: u32 = 10;

pub const ENTRIES: &[Entry] = &[
    Entry {
        id: "nic-queues",
        weight: 3,
        reads: "/sys/class/net/*/queues, ETHTOOL_GCHANNELS",
        why: "With one queue, real-time packets stand behind every best-effort packet that came before them, on the \
              core that this queue interrupts. A link over AF_XDP hears all queues where they are few (its \
              `queues_max`) and the driver says how many; else it hears one, and nothing of what the card puts into \
              the others.",
        source: "kernel docs: networking/scaling; ethtool(8)",
        unread: "Run it on the host, where /sys is mounted:\n$ ethtool -l INTERFACE",
        check: queues,
        mend: Mend::ByHand("changing queues takes the link down for a moment"),
    },
    Entry {
        id: "nic-coalescing",
        weight: 3,
        reads: "ETHTOOL_GCOALESCE, /sys/class/net/*/napi_defer_hard_irqs",
        why: "A card that gathers packets before it interrupts delays each by up to that time; one that adapts delays \
              it by an amount that nobody knows.",
        source: "kernel docs: networking/napi, networking/ethtool-netlink (coalesce); ethtool(8)",
        unread: "Run it on this machine itself (without --root):\n$ ethtool -c INTERFACE",
        check: coalescing,
        mend: Mend::ByHand("it costs throughput, and some drivers reset the link"),
    },
];

fn queues(host: &Host, wanted: &Wanted) -> Outcome {
    host.nics.known()?;
    let nics = wanted.nics(host);
    if nics.is_empty() {
        return Ok(None);
    }
    let mut shown = Vec::new();
    let mut remedy = Vec::new();
    for nic in nics {
        let count = *nic.receive_queues.known()?;
        shown.push(format!("{} has {count}", nic.name));
        if let Some(hears) = wanted.hears(&nic.name) {
            let is_told = !matches!(host.calls.channels.get(&nic.name), Some(Err(_)));
            if count > 1 && !(is_told && count <= hears.queues_max as usize) {
                shown.push(format!("of which link {} hears queue {} alone", hears.link, hears.queue));
                let most = if is_told { hears.queues_max } else { 1 };
                remedy.push(fewer_queues(nic, hears, most) + &steering(nic, hears));
            } else if count > 1 {
                shown.push(format!("all of which link {} hears", hears.link));
            }
        } else if count < 2 {
            remedy.push(more_queues(nic, host.calls.channels.get(&nic.name)));
        }
    }
    let read = some_of(&shown);
    if remedy.is_empty() { good(read) } else { warning(read, remedy.join("\n")) }
}

/// A name as an argument of a command: the kernel lets interfaces be called almost anything.
fn in_shell(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if name.chars().all(is_plain) { name.to_owned() } else { format!("'{}'", name.replace('\'', "'\\''")) }
}

/// So few that a link over AF_XDP hears all of them.
fn fewer_queues(nic: &Nic, Hears { queue, link, .. }: &Hears, most: u32) -> String {
    if *queue >= most {
        return String::new();
    }
    format!("Of no more than these link {link} hears all:\n$ ethtool -L {} combined {most}\n", in_shell(&nic.name))
}

/// A link over AF_XDP that does not hear all queues is deaf to what the card puts into another, by a
/// hash of its own.
fn steering(nic: &Nic, Hears { queue, port, .. }: &Hears) -> String {
    let name = &in_shell(&nic.name);
    let rule = |port: u32| format!("$ ethtool -N {name} flow-type udp4 dst-port {port} action {queue}\n");
    let (first, next) = (rule(u32::from(*port)), rule(u32::from(*port) + 1));
    format!(
        "Rules of the card put what is for the link into its queue (ARP as well, where it can; they are not seen \
         from here):\n{first}{next}$ ethtool -X {name} start {queue} equal 1"
    )
}

fn more_queues(nic: &Nic, channels: Option<&Result<Channels, Unread>>) -> String {
    let name = &in_shell(&nic.name);
    match channels {
        Some(Ok(channels)) if channels.combined_max >= 2 => format!("$ ethtool -L {name} combined 2"),
        Some(Ok(channels)) if channels.receive_max >= 2 => format!("$ ethtool -L {name} rx 2"),
        Some(Ok(_)) => format!("{name} has no more; carry best-effort traffic over another card."),
        _ => {
            format!("$ ethtool -l {name}\ntells whether it has more; else carry best-effort traffic over another card.")
        }
    }
}

fn coalescing(host: &Host, wanted: &Wanted) -> Outcome {
    host.nics.known()?;
    let nics = wanted.nics(host);
    if nics.is_empty() {
        return Ok(None);
    }
    let (mut slow, mut remedy, mut quick) = (Vec::new(), Vec::new(), Vec::new());
    let mut unread = None;
    for nic in nics {
        let (name, quoted) = (&nic.name, in_shell(&nic.name));
        if let Ok(defer @ 1..) = nic.defer {
            slow.push(format!("{name} leaves interrupts off for {defer} empty polls"));
            remedy.push(format!("$ echo 0 > /sys/class/net/{quoted}/napi_defer_hard_irqs"));
        }
        match host.calls.coalescing.get(name) {
            Some(Ok(set)) if set.is_adaptive => {
                slow.push(format!("{name} adapts (now {} us)", set.receive_us));
                remedy.push(format!("$ ethtool -C {quoted} adaptive-rx off adaptive-tx off rx-usecs 0"));
            }
            Some(Ok(set)) if set.receive_us > GATHER_US_GOOD => {
                slow.push(format!("{name} gathers for {} us", set.receive_us));
                remedy.push(format!("$ ethtool -C {quoted} rx-usecs 0"));
            }
            // What gathers by count alone waits for ever for the last packet, unless it is one.
            Some(Ok(set)) if set.receive_us == 0 && set.receive_frames > 1 => {
                slow.push(format!("{name} gathers {} packets", set.receive_frames));
                remedy.push(format!("$ ethtool -C {quoted} rx-frames 1"));
            }
            Some(Ok(set)) => quick.push(format!("{name} gathers for {} us", set.receive_us)),
            Some(Err(reason)) => {
                unread = Some(Unread { what: format!("{} of {name}", reason.what), why: reason.why.clone() });
            }
            None => unread = Some(Unread::because(&format!("ETHTOOL_GCOALESCE of {name}"), "not asked")),
        }
    }
    match (slow.is_empty(), unread) {
        (false, _) => warning(some_of(&slow), remedy.join("\n")),
        (true, Some(unread)) => Err(unread),
        (true, None) => good(some_of(&quick)),
    }
}
