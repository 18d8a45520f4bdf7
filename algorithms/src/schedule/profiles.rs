//! What a plan costs whose ranks do not all do alike, as the schedules of a few of them say.

use super::{Orders, Schedule};
use crate::rounds::loneliest;
use std::collections::BTreeSet;
use ubccl_core::{Layout, Profile, Spec};

/// What of schedules makes the profile: of kinds with a root its own and that of a rank alone in its groups, who takes what
/// others share; of the others those of a few ranks that differ.
pub(crate) fn profile<'a>(spec: &Spec, layout: &Layout, schedule: impl Fn(&Spec) -> Schedule<'a>) -> Profile {
    let of = |rank| schedule(&Spec { rank, ..*spec }).into_profile_and_orders();
    let ranks = match spec.root {
        Some(root) => vec![root, (root + spec.ranks / 2) % spec.ranks, loneliest(layout)],
        // Those alone in their groups, and those at either end of a group's links.
        None => vec![0, 1, loneliest(layout), spec.ranks / 2, spec.ranks / 2 + 1, spec.ranks - 1],
    };
    let ranks: BTreeSet<u32> = ranks.into_iter().filter(|&rank| rank < spec.ranks).collect();
    let (mut all, orders): (Vec<Profile>, Vec<Orders>) = ranks.into_iter().map(of).unzip();
    if spec.root.is_none() {
        Orders::compare(&orders, &mut all);
    }
    let mut profiles: Vec<Profile> = Vec::new();
    for profile in all {
        if !profiles.contains(&profile) {
            profiles.push(profile);
        }
    }
    let also = profiles.split_off(1);
    profiles.pop().unwrap_or_default().also(also)
}
