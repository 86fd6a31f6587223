//! A fixed part of the simulation; the program runs as much of it as it is told.

#[test]
fn no_frame_is_outside_its_slot_and_none_is_displaced() {
    let tally = insane_slot_simulation::run(1, 60_000).unwrap_or_else(|fault| panic!("{fault}"));
    println!("{tally:#?}");
    // Everything that is checked did happen.
    assert!(tally.used > 5_000 && tally.empty > 1_000 && tally.polled_late > 50, "{tally:?}");
    assert!(tally.sent_late > 50 && tally.dropped > 50 && tally.took_over > 20 && tally.steps > 10, "{tally:?}");
    assert!(tally.skipped > 1_000 && tally.lane_bytes > 10_000_000 && tally.foreign > 1_000, "{tally:?}");
}

#[test]
fn a_seed_is_a_run() {
    let runs = [0, 1].map(|_| insane_slot_simulation::run(77, 5_000).unwrap_or_else(|fault| panic!("{fault}")));
    assert_eq!(runs[0], runs[1]);
}
