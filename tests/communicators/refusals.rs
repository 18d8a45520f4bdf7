//! Ranks that ask for different things, or for what cannot be: every rank is told, and the parent goes on.

use crate::support::ranks::on_threads;
use crate::{check_members, real_transports, setup};
use ubccl::{Communicator, Error, ErrorKind, Rank, ReduceOp};

const EVERYBODY: [u64; 3] = [0, 1, 2];

/// Every rank makes its call, which fails; the texts, by rank. Afterwards the parent works.
fn refused(
    transport: &'static str,
    call: impl Fn(&Communicator) -> Result<Option<Communicator>, Error> + Clone + Send + 'static,
) -> Vec<String> {
    on_threads(&setup(transport, 3), move |comm| {
        let error = call(comm).expect_err("the ranks do not agree");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        check_members(comm, u64::from(comm.rank()), &EVERYBODY, false);
        comm.duplicate().expect("it can still be split").close().expect("nothing is left over");
        error.to_string()
    })
}

#[test]
fn lists_that_differ_name_two_ranks_on_all_of_them() {
    for transport in real_transports() {
        let lists: [&[Rank]; 3] = [&[0, 1], &[0, 1], &[1, 0]];
        for error in refused(transport, move |comm| comm.split_ranks(lists[comm.rank() as usize])) {
            assert!(error.contains("rank 0 and rank 2 have different lists"), "{error}");
        }
    }
}

#[test]
fn a_wrong_list_on_one_rank_is_told_on_all_and_nobody_waits() {
    for transport in real_transports() {
        for (list, problem) in
            [(&[1, 1][..], "rank 1 is in the list twice"), (&[0, 3], "no rank 3"), (&[], "is empty")]
        {
            let errors = refused(transport, move |comm| {
                comm.split_ranks(if comm.rank() == 1 { list } else { &[0, 1] })
            });
            assert!(errors[1].contains(problem), "{errors:?}");
            assert!(
                errors[0].contains("rank 1's list of ranks is wrong") && errors[0] == errors[2],
                "{errors:?}"
            );
        }
    }
}

#[test]
fn different_kinds_of_split_name_two_ranks_and_both_calls() {
    for transport in real_transports() {
        let errors = refused(transport, |comm| match comm.rank() {
            1 => comm.duplicate().map(Some),
            _ => comm.split(None, 0),
        });
        for error in errors {
            assert!(error.contains("rank 0 called split, rank 1 called duplicate"), "{error}");
        }
    }
}

#[test]
fn another_call_in_the_place_of_a_split_is_a_mismatch_that_names_two_ranks() {
    for transport in real_transports() {
        let run = |rank: u32, comm: Result<Communicator, Error>| {
            let comm = comm.expect("all ranks come");
            let error = match rank {
                2 => comm.all_reduce(&[1.0_f32], &mut [0.0], ReduceOp::Sum).err(),
                _ => comm.split(Some(0), 0).err(),
            };
            let error = error.or_else(|| comm.barrier().err()).expect("ranks called different things");
            (error.kind(), error.to_string())
        };
        for (kind, text) in crate::support::ranks::start_threads(&setup(transport, 3), |config| config, run) {
            assert_eq!(kind, ErrorKind::Mismatch, "{text}");
            assert!(text.contains("rank 2") && text.contains("all_reduce"), "{text}");
        }
    }
}
