//! The suite that every plugin passes: each promise of `insane-link`, as a case.
//!
//! A plugin describes how its links are made ([`Fixture`]) and, in a test binary of
//! its own, names the suite once for each configuration:
//!
//! ```ignore
//! insane_conformance::watch_allocations!();
//! mod v4 {
//!     insane_conformance::conformance_tests!(crate::MyFixture::v4());
//! }
//! ```
//!
//! Every case becomes a `#[test]` of its name. A case waits for frames with a bound
//! ([`PATIENCE`]), which is used up only where a frame is missing; none asserts how
//! fast anything is.
#![forbid(unsafe_code)]

mod fixture;
mod frames;

pub mod cases;
pub mod hostile;
pub mod shark;
pub mod wire;

pub use fixture::Fixture;
pub use frames::{Arrival, Keep, PATIENCE};

#[doc(hidden)]
pub use insane_sys::guard::GuardAllocator;

/// Installs the allocator that the case `nothing_is_allocated` relies on. Once in a
/// test binary.
#[macro_export]
macro_rules! watch_allocations {
    () => {
        #[global_allocator]
        static WATCHED: $crate::GuardAllocator = $crate::GuardAllocator;
    };
}

/// Declares one `#[test]` for each case. The argument is an expression that makes a
/// [`Fixture`]; it is evaluated once a test.
#[macro_export]
macro_rules! conformance_tests {
    ($fixture:expr) => {
        $crate::conformance_tests!(@cases Some($fixture););
    };
    (@cases $fixture:expr;) => {
        $crate::conformance_tests!(@cases $fixture;
            a_frame_is_head_and_payload,
            every_size_up_to_the_limit_passes,
            a_frame_over_the_limit_is_refused,
            a_peer_that_is_none_is_refused,
            every_lane_arrives,
            order_is_kept_within_peer_and_lane,
            a_frame_sent_alone_keeps_its_place,
            real_time_goes_first,
            the_budget_is_respected,
            hurried_calls_find_everything,
            a_sent_payload_may_change,
            frames_in_their_places_are_whole,
            both_directions_at_once,
            every_peer_is_told_apart,
            strangers_are_no_peers,
            a_burst_loses_nothing_unseen,
            a_full_link_recovers,
            what_has_left_is_told_as_gone,
            waiting_is_possible,
            nothing_is_allocated,
            a_link_moves_between_threads,
            peers_come_and_go_unnoticed_by_others,
            a_peer_that_left_can_come_back,
            a_swap_is_undone_by_the_same_call,
            a_refused_peer_changes_nothing,
            peers_are_swapped_without_allocation,
            what_it_can_do_is_fixed,
            a_group_frame_reaches_every_member_once,
            a_group_has_every_size_and_lane,
            frames_to_the_group_and_to_one_are_apart,
            nothing_is_allocated_for_a_group,
        );
    };
    (@cases $fixture:expr; $($case:ident,)*) => {
        $(#[test]
        fn $case() {
            if let Some(mut fixture) = $fixture {
                $crate::cases::$case(&mut fixture);
            }
        })*
    };
}

/// As [`conformance_tests`], for a technology that is not to be had on every host: the
/// argument makes an `Option`, and where it is `None` (which has said why) a case passes.
#[macro_export]
macro_rules! conformance_tests_where_possible {
    ($fixture:expr) => {
        $crate::conformance_tests!(@cases $fixture;);
    };
}
