//! What a status report says in words, as the types that it means.

use insane_core::{Consumption, Datapath, Determinism, LatePolicy, Nanos, Priority, Qos, Reliability};
use insane_wire::status::QosStatus;

/// The quality of service that a report tells; `None` if it says what this version does not
/// know.
pub fn qos_of(told: &QosStatus) -> Option<Qos> {
    let determinism = match &told.time {
        None => Determinism::BestEffort,
        Some(time) => Determinism::TimeSensitive {
            period: Nanos(time.period_ns),
            offset: Nanos(time.offset_ns),
            deadline: Nanos(time.deadline_ns),
            size: time.size_bytes,
            late: match time.late.as_str() {
                "drop" => LatePolicy::Drop,
                "send_now" => LatePolicy::SendNow,
                "next_slot" => LatePolicy::NextSlot,
                "newest_wins" => LatePolicy::NewestWins,
                _ => return None,
            },
        },
    };
    Some(Qos {
        reliability: match told.reliability.as_str() {
            "unreliable" => Reliability::Unreliable,
            "reliable" => Reliability::Reliable,
            _ => return None,
        },
        datapath: match told.datapath.as_str() {
            "standard" => Datapath::Standard,
            "fast" => Datapath::Fast,
            _ => return None,
        },
        consumption: match told.consumption.as_str() {
            "poll" => Consumption::Poll,
            "low" => Consumption::Low,
            _ => return None,
        },
        determinism,
        priority: Priority::new(told.priority)?,
    })
}
