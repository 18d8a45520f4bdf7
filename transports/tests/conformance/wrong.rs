//! The suite tested: every wrong double is caught by the case that is there to catch it.

use crate::cases::named;
use crate::run;
use crate::support::double::{Defect, Double};
use libtest_mimic::{Failed, Trial};
use std::time::Duration;
use ubccl_core::endpoint::Clock::{self, Real, Virtual};

/// Wrong doubles hang on purpose, and threads of this process are the only ones that take part.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is wrong, on which clock, which case finds it, and a word of what that says.
const WRONG: &[(Defect, Clock, &str, &str)] = &[
    (Defect::BlocksInPost, Real, "c1_a_window_of_sends_is_taken_before_anybody_receives", "hang in a call"),
    (Defect::RefusesPosts, Real, "c1_a_window_of_receives_is_taken_before_anybody_sends", "no room"),
    (Defect::ReordersALane, Real, "c2_messages_of_a_lane_keep_their_order", ""),
    (Defect::ReordersALane, Virtual, "c2_random_traffic_arrives_whole_and_in_order", ""),
    (Defect::HoldsUpLanes, Real, "c2_a_small_unreceived_message_holds_up_no_other_lane", "nothing happened"),
    (
        Defect::HoldsUpLanes,
        Virtual,
        "c2_a_large_unreceived_message_holds_up_no_other_lane",
        "nothing ever happens",
    ),
    (Defect::HoldsUpPeers, Real, "c2_an_unreceived_message_holds_up_no_other_peer", "nothing happened"),
    (Defect::MulticastsToTheFirst, Virtual, "c2_the_kth_send_meets_the_kth_receive_with_peer_lists", ""),
    (
        Defect::CompletesSendsEarly,
        Real,
        "c3_a_source_may_be_overwritten_once_its_send_completed",
        "wrong bytes",
    ),
    (Defect::WritesOneByteMore, Real, "c3_every_size_arrives_whole", "guard byte overwritten"),
    (Defect::MiscountsBytes, Real, "c3_counters_tell_what_was_posted", "1998"),
    (Defect::IgnoresStreams, Real, "c4_another_sequence_is_a_mismatch", "a fault was due"),
    (Defect::IgnoresStreams, Real, "c4_another_tag_is_a_mismatch", "a fault was due"),
    (Defect::IgnoresSignatures, Real, "c4_another_signature_is_a_mismatch", "a fault was due"),
    (
        Defect::IgnoresSignatures,
        Real,
        "c4_a_mismatch_among_the_sources_of_a_reduction_is_found",
        "a fault was due",
    ),
    (Defect::IgnoresLengths, Real, "c4_another_length_is_a_mismatch", ""),
    (
        Defect::WritesBeforeComparing,
        Virtual,
        "c4_another_signature_is_a_mismatch",
        "destination of a mismatch",
    ),
    (Defect::DropsEmptyMessages, Real, "c5_zero_bytes_are_a_message_like_any_other", "len: 0"),
    (Defect::ReducesInReverse, Real, "c6_the_order_of_the_list_is_the_order_of_the_sum", "wrong bytes"),
    (Defect::ReducesInReverse, Virtual, "c6_phantoms_tell_who_was_combined_in_which_order", "expression"),
    (Defect::PutsOwnFirst, Real, "c6_the_order_of_the_list_is_the_order_of_the_sum", "wrong bytes"),
    (Defect::RoundsEveryStep, Real, "c6_sums_of_bf16_round_once", "wrong bytes"),
    (Defect::KeepsPostsAfterCancel, Real, "c7_after_cancel_a_receive_writes_nothing", "memory after cancel"),
    (
        Defect::KeepsPostsAfterCancel,
        Virtual,
        "c7_after_cancel_a_reduction_writes_nothing",
        "memory after cancel",
    ),
    (Defect::InspectsNothing, Real, "c9_inspect_finds_a_message_of_another_call", "nothing happened"),
    (
        Defect::InspectsNothing,
        Virtual,
        "c9_inspect_finds_a_message_of_an_older_operation",
        "nothing ever happens",
    ),
    (Defect::InspectsTooMuch, Real, "c9_inspect_passes_what_can_still_be_taken", "inspect complains"),
    (Defect::LosesWakes, Real, "c10_wake_ends_the_current_or_the_next_sleep", "slept through a wake"),
    (Defect::NeverRings, Real, "c10_sleep_ends_when_a_message_arrives", "slept through an arrival"),
    (Defect::NeverRings, Real, "c10_the_descriptor_rings_when_a_message_arrives", "did not ring"),
    (Defect::NeverSleeps, Real, "c10_sleep_ends_when_its_time_is_up", "returns at once"),
    (Defect::ProbesNothing, Real, "c11_probe_tells_the_next_message_and_leaves_it_there", "nothing happened"),
    (Defect::ProbesNothing, Virtual, "c11_what_a_post_takes_is_told_no_more", "nothing ever happens"),
    (Defect::ProbesADirectLane, Real, "c11_probe_passes_other_lanes_other_peers_and_no_peers", "of rank 0"),
    (Defect::TakesWhatItProbes, Virtual, "c11_probe_tells_the_next_message_and_leaves_it_there", "again"),
    (Defect::NeverRings, Real, "c11_sleep_ends_when_a_message_without_a_post_arrives", "slept through"),
    (Defect::TurnsTimeBack, Virtual, "w1_every_run_of_traffic_keeps_time_going_forward", "World 1"),
    (Defect::HashesTheRun, Virtual, "w2_the_same_posts_give_the_same_events_and_hash", "differ"),
    (Defect::WakesInDisorder, Virtual, "w1_every_run_of_traffic_keeps_time_going_forward", "World 3"),
];

/// One trial for each row.
pub fn trials() -> Vec<Trial> {
    let rows = WRONG.iter();
    rows.map(|&(defect, clock, case, word)| {
        Trial::test(format!("wrong::{defect:?}::{case}"), move || is_caught(defect, clock, case, word))
    })
    .collect()
}

fn is_caught(defect: Defect, clock: Clock, case: &str, word: &str) -> Result<(), Failed> {
    let case = named(case);
    match run(Double::with_defect(clock, defect), case, case.ranks[case.ranks.len() - 1], PATIENCE) {
        Ok(()) => Err(format!("{} passes a transport that {defect:?}", case.name).into()),
        Err(message) if message.contains(word) => Ok(()),
        Err(message) => {
            Err(format!("{defect:?} was found, but by chance: '{word}' is not in: {message}").into())
        }
    }
}
