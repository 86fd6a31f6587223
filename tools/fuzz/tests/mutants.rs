//! Each target notices faults that are planted in what it feeds, from the corpus and the changes
//! that the check makes, and none where there is none.
#![cfg(feature = "mutants")]

use insane_fuzz::Target;
use insane_fuzz::mutate::{Random, input};

/// Changed inputs until a fault has to be noticed.
const INPUTS: usize = 100_000;

/// Whether a target notices anything.
fn notices(target: &str) -> bool {
    let target = Target::named(target).unwrap();
    let corpus: Vec<_> = target.corpus().into_iter().map(|(_, bytes)| bytes).collect();
    let mut random = Random::new(7);
    let changed = (0..INPUTS).map(|_| input(&mut random, &corpus));
    corpus.iter().cloned().chain(changed).any(|bytes| std::panic::catch_unwind(|| (target.feed)(&bytes)).is_err())
}

/// Which target has to notice a fault of the formats.
fn of_wire(fault: insane_wire::mutants::Mutation) -> &'static str {
    use insane_wire::mutants::Mutation;
    match fault {
        Mutation::PieceBeyondMessage | Mutation::RangeUnread | Mutation::BundleBeyondDatagram => "data",
        Mutation::MoreChangesThanVersions | Mutation::ProbeOfNobody | Mutation::ReportNotBlank => "overlay",
        Mutation::NameOfAnyLength => "control",
    }
}

/// One test: what is planted counts for the whole process.
#[test]
fn planted_faults_are_noticed() {
    // What is noticed is not of interest.
    std::panic::set_hook(Box::new(|_| {}));
    let mut unseen = Vec::new();
    for &fault in insane_netstack::mutants::Mutation::ALL {
        insane_netstack::mutants::turn_on(Some(fault));
        if !notices("netstack") {
            unseen.push(fault.what());
        }
    }
    insane_netstack::mutants::turn_on(None);
    for &fault in insane_wire::mutants::Mutation::ALL {
        insane_wire::mutants::turn_on(Some(fault));
        if !notices(of_wire(fault)) {
            unseen.push(fault.what());
        }
    }
    insane_wire::mutants::turn_on(None);
    let _ = std::panic::take_hook();
    assert_eq!(unseen, Vec::<&str>::new(), "faults that no target noticed");
    for target in insane_fuzz::TARGETS {
        assert!(!notices(target.name), "{} holds without a fault", target.name);
    }
}
