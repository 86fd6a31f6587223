//! The corpus is replayed, and changed at random: bounded, from a fixed seed, so that a failure
//! comes again. `cargo xtask fuzz` goes further.

use insane_fuzz::mutate::{Random, input};
use insane_fuzz::{TARGETS, Target};

/// Changed inputs for each target.
const INPUTS: usize = 20_000;

fn named(name: &str) -> Target {
    Target::named(name).unwrap()
}

/// Feeds an input, and shows it where something does not hold.
fn feed(target: &Target, bytes: &[u8], what: &str) {
    let held = std::panic::catch_unwind(|| (target.feed)(bytes));
    assert!(held.is_ok(), "{}, {what}: {}", target.name, bytes.escape_ascii());
}

fn replay_and_change(target: &Target) {
    let corpus = target.corpus();
    assert!(corpus.len() >= 5, "{} has a corpus", target.name);
    for (name, bytes) in &corpus {
        feed(target, bytes, name);
    }
    let corpus: Vec<_> = corpus.into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Random::new(1);
    for number in 0..INPUTS {
        feed(target, &input(&mut random, &corpus), &format!("input {number}"));
    }
}

#[test]
fn netstack_holds() {
    replay_and_change(&named("netstack"));
}

#[test]
fn data_holds() {
    replay_and_change(&named("data"));
}

#[test]
fn overlay_holds() {
    replay_and_change(&named("overlay"));
}

#[test]
fn control_holds() {
    replay_and_change(&named("control"));
}

#[test]
fn neighbours_holds() {
    replay_and_change(&named("neighbours"));
}

#[test]
fn each_target_has_a_test() {
    assert_eq!(
        TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(),
        ["netstack", "data", "overlay", "control", "neighbours"]
    );
}

#[test]
fn inputs_of_any_length_are_taken() {
    for target in TARGETS {
        for len in 0..300 {
            feed(target, &vec![0; len], "zeros");
            feed(target, &vec![0xff; len], "ones");
        }
    }
}
