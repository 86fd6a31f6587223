//! What a lane becomes on the wire.

use insane_core::Lane;

/// Marks of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Marks {
    /// Priority of the VLAN tag (PCP), 0 to 7; without a tag nobody sees it.
    pub priority: u8,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
}

impl Marks {
    /// Those of a lane. Priorities follow the names of IEEE 802.1Q, table I-2: lanes 0 to 2
    /// are 6, 5 and 4 (internetwork control, voice, video; 7 stays the network's own), the
    /// control lane and the one after it 3 and 2, ordinary traffic 0, the last lane 1
    /// (background: below 0). Code points: `real_time_dscp` for real-time lanes, none for
    /// all others, as the udp plugin has it.
    #[must_use]
    pub const fn of(lane: Lane, real_time_dscp: u8) -> Self {
        let priority = match lane.get() {
            0 => 6,
            1 => 5,
            2 => 4,
            3 => 3,
            4 => 2,
            5 | 6 => 0,
            _ => 1,
        };
        Marks { priority, dscp: if lane.is_real_time() { real_time_dscp & 63 } else { 0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_lane_is_never_marked_above_one_before_it() {
        // The order in which bridges take priorities: 1 is below 0.
        let rank = |priority: u8| [1, 0, 2, 3, 4, 5, 6, 7][usize::from(priority)];
        let marks: Vec<Marks> = (0..8).filter_map(Lane::new).map(|lane| Marks::of(lane, 46)).collect();
        assert!(marks.windows(2).all(|pair| rank(pair[0].priority) >= rank(pair[1].priority)), "{marks:?}");
        let points: Vec<u8> = marks.iter().map(|marks| marks.dscp).collect();
        assert_eq!(points, [46, 46, 46, 0, 0, 0, 0, 0]);
    }
}
