//! Who is in which communicator, at which place.

use crate::support::ranks::on_threads;
use crate::support::{Random, seed};
use crate::{check_members, real_transports, setup};
use ubccl::Communicator;

/// Asked for by every rank: colours (some none) and keys (some alike).
#[derive(Clone, Debug)]
struct Wishes(Vec<(Option<u32>, i64)>);

impl Wishes {
    fn random(ranks: usize, colours: u64, random: &mut Random) -> Wishes {
        let mut one = || {
            let colour = random.below(colours * 4 + 1); // a few have none
            let colour = (colour < colours * 4).then_some(colour as u32 % colours as u32 * 77);
            let key = [i64::MIN, -1, 0, 0, 3, i64::MAX][random.below(6) as usize];
            (colour, key)
        };
        Wishes((0..ranks).map(|_| one()).collect())
    }

    /// The ranks that get into one communicator with this one, in order: the definition, spelled out.
    fn group(&self, rank: usize) -> Option<Vec<u64>> {
        let colour = self.0[rank].0?;
        let mut group: Vec<usize> = Vec::new();
        for other in 0..self.0.len() {
            if self.0[other].0 == Some(colour) {
                let place = group.iter().position(|&member| self.0[member].1 > self.0[other].1);
                group.insert(place.unwrap_or(group.len()), other);
            }
        }
        Some(group.into_iter().map(|rank| rank as u64).collect())
    }
}

fn split(comm: &Communicator, wishes: &Wishes) -> Option<Communicator> {
    let (colour, key) = wishes.0[comm.rank() as usize];
    let part = comm.split(colour, key).unwrap_or_else(|error| panic!("{wishes:?}: {error}"));
    assert_eq!(part.is_some(), colour.is_some(), "{wishes:?}");
    part
}

#[test]
fn groups_have_the_ranks_of_one_colour_by_key_then_by_rank() {
    let mut random = Random(seed("splits"));
    for transport in real_transports() {
        for ranks in [1, 2, 3, 5] {
            let rounds: Vec<Wishes> =
                (1..=3).map(|colours| Wishes::random(ranks, colours, &mut random)).collect();
            on_threads(&setup(transport, ranks as u32), move |comm| {
                let everybody: Vec<u64> = (0..ranks as u64).collect();
                let mut parts = Vec::new();
                for wishes in &rounds {
                    let me = comm.rank() as usize;
                    if let Some(part) = split(comm, wishes) {
                        check_members(&part, me as u64, &wishes.group(me).expect("it has a colour"), false);
                        parts.push((part, wishes.group(me).expect("it has a colour")));
                    }
                    check_members(comm, me as u64, &everybody, false);
                }
                // All of them still work, side by side, and close in any order.
                for (part, group) in &parts {
                    check_members(part, u64::from(comm.rank()), group, true);
                }
                parts.into_iter().rev().for_each(|(part, _)| part.close().expect("nothing is left over"));
                check_members(comm, u64::from(comm.rank()), &everybody, true);
            });
        }
    }
}

#[test]
fn parts_are_split_again_and_outlive_what_they_came_from() {
    for transport in real_transports() {
        on_threads(&setup(transport, 5), |comm| {
            let me = comm.rank();
            // Even ranks, backwards: 4 2 0; odd ones: 3 1.
            let half = comm.split(Some(me % 2), -i64::from(me)).expect("a split").expect("a colour");
            let group = if me % 2 == 0 { vec![4, 2, 0] } else { vec![3, 1] };
            check_members(&half, u64::from(me), &group, false);
            // All but the last of each half: 4 2 and 3.
            let inner = half.split((half.rank() + 1 < half.ranks()).then_some(9), 0).expect("a split");
            half.close().expect("its parts do not need it");
            assert_eq!(inner.is_some(), me > 1);
            if let Some(inner) = inner {
                check_members(&inner, u64::from(me), &group[..group.len() - 1], true);
                let copy = inner.duplicate().expect("a duplicate of a part of a part");
                drop(inner);
                check_members(&copy, u64::from(me), &group[..group.len() - 1], false);
                copy.close().expect("nothing is left over");
            }
        });
    }
}

#[test]
fn lists_say_who_and_in_which_order() {
    for transport in real_transports() {
        on_threads(&setup(transport, 4), |comm| {
            let me = comm.rank();
            for list in [&[2, 0, 3][..], &[1], &[3, 2, 1, 0], &[0, 1, 2, 3]] {
                let part = comm.split_ranks(list).expect("the lists are the same");
                assert_eq!(part.is_some(), list.contains(&me));
                if let Some(part) = part {
                    let names: Vec<u64> = list.iter().map(|&rank| u64::from(rank)).collect();
                    check_members(&part, u64::from(me), &names, false);
                    part.close().expect("nothing is left over");
                }
            }
        });
    }
}
