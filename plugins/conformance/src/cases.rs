//! The cases. Each is a function over a [`Fixture`], panics where a promise is
//! broken, and says which.

mod alone;
mod content;
mod group;
mod load;
mod peers;
mod place;
mod swap;
mod turn;

pub use alone::{nothing_is_allocated, waiting_is_possible, what_it_can_do_is_fixed};
pub use content::{
    a_frame_is_head_and_payload, a_frame_over_the_limit_is_refused, a_sent_payload_may_change,
    every_size_up_to_the_limit_passes,
};
pub use group::{
    a_group_frame_reaches_every_member_once, a_group_has_every_size_and_lane, frames_to_the_group_and_to_one_are_apart,
    nothing_is_allocated_for_a_group,
};
pub use load::{a_burst_loses_nothing_unseen, a_full_link_recovers, what_has_left_is_told_as_gone};
pub use peers::{
    a_link_moves_between_threads, a_peer_that_is_none_is_refused, both_directions_at_once, every_peer_is_told_apart,
    strangers_are_no_peers,
};
pub use place::frames_in_their_places_are_whole;
pub use swap::{
    a_peer_that_left_can_come_back, a_refused_peer_changes_nothing, a_swap_is_undone_by_the_same_call,
    peers_are_swapped_without_allocation, peers_come_and_go_unnoticed_by_others,
};
pub use turn::{
    a_frame_sent_alone_keeps_its_place, every_lane_arrives, hurried_calls_find_everything,
    order_is_kept_within_peer_and_lane, real_time_goes_first, the_budget_is_respected,
};

#[cfg(doc)]
use crate::Fixture;
