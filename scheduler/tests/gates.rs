//! Gate lists against a walk through time, nanosecond by nanosecond.

use insane_core::TaiTime;
use insane_scheduler::{GATE_ENTRIES_MAX, GateEntry, GateError, Gates, LANES};
use proptest::prelude::*;

fn entries() -> impl Strategy<Value = Vec<GateEntry>> {
    let entry = (any::<u8>(), 1..12_u64).prop_map(|(open_lanes, interval_ns)| GateEntry { open_lanes, interval_ns });
    prop::collection::vec(entry, 1..6)
}

/// The mask of each nanosecond of a cycle.
fn written_down(entries: &[GateEntry], cycle: u64) -> Vec<u8> {
    let mut masks: Vec<u8> =
        entries.iter().flat_map(|entry| vec![entry.open_lanes; entry.interval_ns as usize]).collect();
    masks.resize(cycle as usize, entries.last().unwrap().open_lanes);
    masks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]

    #[test]
    fn every_instant_is_as_written_down(list in entries(), idle in 0..9_u64, base in 0..500_u64, at in 0..600_u64) {
        let sum: u64 = list.iter().map(|entry| entry.interval_ns).sum();
        let cycle = sum + idle;
        let masks = written_down(&list, cycle);
        let gates = Gates::new(TaiTime(base), Some(cycle), 0, &list).unwrap();
        let Some(state) = gates.state(TaiTime(at), None) else {
            prop_assert!(at < base);
            return Ok(());
        };
        prop_assert!(at >= base);
        let mask = |at: u64| masks[((at - base) % cycle) as usize];
        prop_assert_eq!(state.open_lanes, mask(at));
        prop_assert!(state.until.0 > at && (at..state.until.0).all(|instant| mask(instant) == mask(at)));
        for lane in 0..LANES {
            let shuts = (at..at + 2 * cycle).find(|&instant| mask(instant) >> lane & 1 == 0).unwrap_or(u64::MAX);
            prop_assert_eq!(state.shuts[lane], TaiTime(shuts));
        }
    }

    #[test]
    fn windows_are_what_is_open_and_the_rest_is_shut(list in entries(), idle in 0..9_u64, lane in 0..LANES as u8) {
        let cycle = list.iter().map(|entry| entry.interval_ns).sum::<u64>() + idle;
        let gates = Gates::new(TaiTime(0), Some(cycle), 0, &list).unwrap();
        let mut open = vec![None; cycle as usize];
        for (windows, is_open) in
            [(gates.open_windows(lane).collect::<Vec<_>>(), true), (gates.shut_windows(lane).collect(), false)]
        {
            for window in windows {
                for at in window.offset_ns()..window.offset_ns() + window.length_ns() {
                    // No nanosecond is in two windows.
                    prop_assert_eq!(open[(at % cycle) as usize].replace(is_open), None);
                }
            }
        }
        let expected: Vec<_> = written_down(&list, cycle).iter().map(|mask| Some(mask >> lane & 1 == 1)).collect();
        prop_assert_eq!(open, expected);
    }

    #[test]
    fn base_times_of_any_age_roll_forward_by_whole_cycles(base: u64, now: u64, interval in 1..u64::MAX >> 4) {
        let list = [GateEntry { open_lanes: 1, interval_ns: interval }, GateEntry { open_lanes: 2, interval_ns: 1 }];
        let gates = Gates::new(TaiTime(base), None, 0, &list).unwrap();
        if let Some(start) = gates.cycle_start_from(TaiTime(now)) {
            prop_assert!(start.0 >= now && start.0 >= base && (start.0 - base) % gates.cycle_ns() == 0);
            prop_assert!(start.0 == base || start.0 - now < gates.cycle_ns());
        }
        if let Some(state) = gates.state(TaiTime(now), None) {
            prop_assert_eq!(state.open_lanes, if (now - base) % (interval + 1) < interval { 1 } else { 2 });
        }
    }

    #[test]
    fn any_list_is_gates_or_a_named_error(base: u64, cycle: Option<u64>, extension: u64, masks in prop::collection::vec((any::<u8>(), any::<u64>()), 0..GATE_ENTRIES_MAX + 3), now: u64, next: Option<u64>) {
        let list: Vec<_> = masks.into_iter().map(|(open_lanes, interval_ns)| GateEntry { open_lanes, interval_ns }).collect();
        match Gates::new(TaiTime(base), cycle, extension, &list) {
            Ok(gates) => { let _ = gates.state(TaiTime(now), next.map(TaiTime)); }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn the_last_cycle_is_extended_over_a_short_rest_and_begun_before_a_long_one() {
    let list = [GateEntry { open_lanes: 1, interval_ns: 60 }, GateEntry { open_lanes: 2, interval_ns: 40 }];
    let gates = Gates::new(TaiTime(1_000), None, 30, &list).unwrap();
    let open = |at, next| gates.state(TaiTime(at), Some(TaiTime(next))).map(|state| (state.open_lanes, state.until.0));
    // 30 ns would be left of the cycle that begins at 1,200.
    assert_eq!(open(1_150, 1_230), Some((1, 1_160)));
    assert_eq!(open(1_160, 1_230), Some((2, 1_200)));
    assert_eq!(open(1_200, 1_230), Some((2, 1_230)));
    assert_eq!(open(1_229, 1_230), Some((2, 1_230)));
    // 31 ns: the cycle begins, and is cut.
    assert_eq!(open(1_200, 1_231), Some((1, 1_231)));
    // The very first cycle has none before it.
    assert_eq!(open(1_010, 1_020), Some((1, 1_020)));
    // A hand-over at a cycle's start extends nothing.
    assert_eq!(open(1_199, 1_200), Some((2, 1_200)));
}

#[test]
fn named_errors() {
    let one = GateEntry { open_lanes: 1, interval_ns: 10 };
    let new = |cycle, extension, list: &[GateEntry]| Gates::new(TaiTime(0), cycle, extension, list).unwrap_err();
    assert_eq!(new(None, 0, &[]), GateError::Empty);
    assert_eq!(new(None, 0, &vec![one; GATE_ENTRIES_MAX + 1]), GateError::TooManyEntries);
    assert_eq!(new(None, 0, &[one, GateEntry { interval_ns: 0, ..one }]), GateError::ZeroInterval(1));
    assert_eq!(new(Some(0), 0, &[one]), GateError::ZeroCycle);
    assert_eq!(new(Some(1 << 62), 0, &[one]), GateError::CycleTooLong);
    assert_eq!(new(Some(9), 0, &[one]), GateError::LongerThanCycle(1));
    assert_eq!(new(Some(10), 10, &[one]), GateError::ExtensionTooLong);
    let huge = GateEntry { open_lanes: 1, interval_ns: u64::MAX };
    assert_eq!(new(None, 0, &[huge, huge]), GateError::CycleTooLong);
}
