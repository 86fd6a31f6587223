//! Source ports that spread flows over queues and paths.

/// A port for a flow: one of `count` from `first` on, the same for the same `flow` each time.
/// For receivers that do not know their peer by its port; those of this runtime do, so its
/// links send from the ports that their peers know (ADR 0045).
///
/// Receive queues and equal-cost paths choose by a hash of the ports, so flows on several
/// ports go over several of them. `count` 0 counts as 1.
#[must_use]
pub const fn source_port(flow: u64, first: u16, count: u16) -> u16 {
    let room = (u16::MAX - first) as u64 + 1;
    let count = if count == 0 { 1 } else { count as u64 };
    let count = if count < room { count } else { room };
    // Fibonacci hashing: 2^64 divided by the golden ratio; the upper half, scaled.
    let mixed = flow.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    first + ((mixed * count) >> 32) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_spread_and_stay() {
        let mut hits = [0; 16];
        for flow in 0..1600 {
            let port = source_port(flow, 49_152, 16);
            assert_eq!(port, source_port(flow, 49_152, 16));
            hits[usize::from(port - 49_152)] += 1;
        }
        assert!(hits.iter().all(|hits| (50..=200).contains(hits)), "{hits:?}");
    }

    #[test]
    fn a_port_is_never_beyond_the_last() {
        for flow in 0..1000 {
            assert!(source_port(flow, 65_530, 100) >= 65_530);
            assert_eq!(source_port(flow, 7000, 0), 7000);
        }
    }
}
