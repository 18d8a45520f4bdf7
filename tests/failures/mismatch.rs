//! Ranks that do not make the same calls.

use crate::program::{BARRIER, Program, Step, check_named, run, step};
use crate::support::oracle::Call;
use crate::support::ranks::{Setup, start_threads};
use crate::support::tables::tables;
use crate::{real_transports, setup};
use std::time::Duration;
use ubccl::{Collective, DataType, ErrorKind, ReduceOp};

/// Few elements (one-shot) and many (ring, several pieces on every transport).
const COUNTS: [usize; 2] = [24, 70_000];

/// Pairs of calls that differ in one thing: what most ranks call, and what the odd one does.
fn differences(ranks: usize, count: usize) -> Vec<(Step, Step)> {
    let sum = step(Call::AllReduce(ReduceOp::Sum), DataType::F32, count);
    let with = |call| Step { call, ..sum };
    let root = |root| with(Call::Broadcast { root });
    let mut pairs = vec![
        (sum, with(Call::AllGather)),
        (sum, with(Call::ReduceScatter(ReduceOp::Sum))),
        (with(Call::AllGather), with(Call::ReduceScatter(ReduceOp::Sum))),
        (root(0), sum),
        (root(ranks - 1), with(Call::AllGather)),
        (sum, BARRIER),
        (BARRIER, root(0)),
        (sum, Step { count: count + 1, ..sum }),
        (sum, Step { count: 0, ..sum }),
        (sum, Step { count: 20 * count, ..sum }),
        (root(0), Step { count: count - 1, ..root(0) }),
        (sum, Step { dtype: DataType::I32, ..sum }),
        (with(Call::AllGather), Step { dtype: DataType::U8, ..with(Call::AllGather) }),
        (sum, with(Call::AllReduce(ReduceOp::Max))),
        (with(Call::ReduceScatter(ReduceOp::Max)), with(Call::ReduceScatter(ReduceOp::Sum))),
    ];
    let (op, last) = (ReduceOp::Sum, ranks - 1);
    pairs.extend([
        (with(Call::Reduce { op, root: 0 }), sum),
        (with(Call::Reduce { op, root: 0 }), with(Call::Reduce { op, root: last })),
        (with(Call::Reduce { op, root: last }), with(Call::Reduce { op: ReduceOp::Max, root: last })),
        (with(Call::Gather { root: last }), with(Call::Gather { root: 0 })),
        (with(Call::Gather { root: 0 }), with(Call::AllGather)),
        (with(Call::Scatter { root: 0 }), root(0)),
        (with(Call::Scatter { root: 0 }), Step { count: count + 1, ..with(Call::Scatter { root: 0 }) }),
        (with(Call::AllToAll), with(Call::AllGather)),
        (with(Call::AllToAll), Step { count: count - 1, ..with(Call::AllToAll) }),
        (with(Call::AllToAll), with(Call::AllToAllV { seed: 2 })),
        (with(Call::GatherV { root: 0, seed: 1 }), with(Call::Gather { root: 0 })),
        (with(Call::ScatterV { root: last, seed: 1 }), with(Call::ScatterV { root: 0, seed: 1 })),
        (with(Call::AllGatherV { seed: 1 }), with(Call::AllToAllV { seed: 1 })),
        (with(Call::ReduceScatterV { op, seed: 1 }), with(Call::ReduceScatter(op))),
    ]);
    pairs.extend((1..ranks).map(|odd| (root(0), root(odd))));
    pairs.extend((0..ranks - 1).map(|odd| (root(ranks - 1), root(odd))));
    pairs
}

/// Every rank calls `usual`, but `odd` calls `other`; then all meet, and close.
fn program(ranks: u32, odd: u32, usual: &[Step], other: &[Step]) -> Program {
    let of = |rank| if rank == odd { other } else { usual };
    (0..ranks).map(|rank| [&[BARRIER], of(rank), &[BARRIER]].concat()).collect()
}

/// The ranks that may be odd: in both places where algorithms differ, and one between.
fn odd_ranks(ranks: u32) -> Vec<u32> {
    let mut odd = vec![0, ranks / 2, ranks - 1];
    odd.dedup();
    odd
}

fn for_every_transport(check: impl Fn(&Setup)) {
    for transport in ubccl::transports() {
        for ranks in [2, 3, 5] {
            check(&setup(transport.name, ranks));
        }
    }
}

#[test]
fn one_call_that_differs_is_an_error_of_every_rank_that_names_two_and_both_calls() {
    for_every_transport(|setup| {
        for count in COUNTS {
            for (usual, other) in differences(setup.ranks as usize, count) {
                for odd in odd_ranks(setup.ranks) {
                    let program = program(setup.ranks, odd, &[usual], &[other]);
                    check_named(setup, &program, &run(setup, &program));
                }
            }
        }
    });
}

#[test]
fn another_order_a_call_too_many_and_a_call_too_few_are_errors_of_every_rank() {
    for_every_transport(|setup| {
        for count in COUNTS {
            let sum = step(Call::AllReduce(ReduceOp::Sum), DataType::F32, count);
            let gather = Step { call: Call::AllGather, ..sum };
            let cast = Step { call: Call::Broadcast { root: 1 }, ..sum };
            for odd in odd_ranks(setup.ranks) {
                for (usual, other) in [
                    (&[sum, gather][..], &[gather, sum][..]),
                    (&[cast, sum], &[sum, cast]),
                    (&[cast, gather, BARRIER], &[gather, BARRIER, cast]),
                    // What is missing shifts all later calls.
                    (&[cast, gather], &[gather, sum]),
                    (&[sum, gather], &[sum, sum]),
                ] {
                    let program = program(setup.ranks, odd, usual, other);
                    check_named(setup, &program, &run(setup, &program));
                }
            }
        }
    });
}

/// Whoever closes first may have gone before the others' call was made: then the others are told that it left. If it
/// sees their call, it is told, and the others are. Nobody hangs, and nobody of those who call more goes free.
#[test]
fn a_last_call_that_some_ranks_do_not_make_is_an_error_of_all_who_make_it() {
    for transport in real_transports() {
        for ranks in [2, 3, 5] {
            for (call, odd) in [
                (Call::AllReduce(ReduceOp::Sum), 1),
                (Call::Broadcast { root: 0 }, ranks - 1),
                (Call::Broadcast { root: 1 }, 0),
                (Call::Barrier, 0),
            ] {
                let extra = step(call, DataType::F32, if call == Call::Barrier { 0 } else { 24 });
                for few in [true, false] {
                    let makes = |rank: u32| (rank == odd) != few;
                    let steps = |rank| if makes(rank) { vec![BARRIER, extra] } else { vec![BARRIER] };
                    let program: Program = (0..ranks).map(steps).collect();
                    let errors = run(&setup(transport, ranks), &program);
                    check_extra(&program, &errors, &makes);
                }
            }
        }
    }
}

fn check_extra(program: &Program, errors: &[Option<ubccl::Error>], makes: &dyn Fn(u32) -> bool) {
    let told: Vec<_> = errors.iter().flatten().collect();
    assert!(!told.is_empty(), "nobody got an error from {program:?}");
    for error in &told {
        let is_left =
            error.kind() == ErrorKind::Remote && error.message().contains("closed the communicator");
        assert!(is_left || error.kind() == ErrorKind::Mismatch, "{error}");
        assert_eq!(error.cause(), told[0].cause(), "one cause for all");
        let culprit = error.cause().expect("it poisons").culprit.rank;
        assert!(!is_left || !makes(culprit), "who left early is named: {error}");
    }
}

/// Ranks that each take another one for the root, in a circle: nobody sends anything, so no message can tell.
#[test]
fn ranks_that_wait_for_each_other_because_they_disagree_are_told() {
    for_every_transport(|setup| {
        let ranks = setup.ranks as usize;
        for count in COUNTS {
            let waits = |rank: usize| Call::Broadcast { root: (rank + 1) % ranks };
            let steps = |rank| vec![step(waits(rank), DataType::I32, count)];
            let program: Program = (0..ranks).map(steps).collect();
            check_named(setup, &program, &run(setup, &program));
        }
    });
}

#[test]
fn in_place_on_some_ranks_only_is_right() {
    for_every_transport(|setup| {
        let ranks = setup.ranks as usize;
        for count in COUNTS {
            for call in [
                Call::AllReduce(ReduceOp::Sum),
                Call::AllGather,
                Call::ReduceScatter(ReduceOp::Max),
                Call::Broadcast { root: ranks - 1 },
                Call::Shift(1),
                Call::Reduce { op: ReduceOp::Sum, root: 0 },
                Call::Gather { root: ranks - 1 },
                Call::Scatter { root: 0 },
                Call::AllToAll,
                Call::GatherV { root: 0, seed: 4 },
                Call::ScatterV { root: ranks - 1, seed: 5 },
                Call::AllGatherV { seed: 6 },
                Call::ReduceScatterV { op: ReduceOp::Max, seed: 7 },
                Call::AllToAllV { seed: 8 },
            ] {
                let steps = |rank| vec![Step { in_place: rank % 2 == 0, ..step(call, DataType::I32, count) }];
                let program: Program = (0..ranks).map(steps).collect();
                for (rank, error) in run(setup, &program).into_iter().enumerate() {
                    assert!(error.is_none(), "{setup:?}: rank {rank}: {error:?} from {call:?}");
                }
            }
        }
    });
}

/// A table that differs shows where the two ranks of a block see different lengths.
#[test]
fn tables_that_differ_are_an_error_of_every_rank() {
    for_every_transport(|setup| {
        let ranks = setup.ranks as usize;
        for count in COUNTS {
            for call in [
                |seed| Call::AllToAllV { seed },
                |seed| Call::AllGatherV { seed },
                |seed| Call::ReduceScatterV { op: ReduceOp::Sum, seed },
            ] {
                for odd in odd_ranks(setup.ranks) {
                    let (usual, other) = (11, 101);
                    let (a, b) = (tables(usual, ranks, count), tables(other, ranks, count));
                    let me = odd as usize;
                    let differ = |peer: usize| {
                        peer != me
                            && (a.counts[me][peer], a.counts[peer][me])
                                != (b.counts[me][peer], b.counts[peer][me])
                    };
                    let is_shared = matches!(call(0), Call::AllToAllV { .. });
                    assert!(if is_shared { (0..ranks).any(differ) } else { a.columns[0] != b.columns[0] });
                    let of = |seed| step(call(seed), DataType::F32, count);
                    let program = program(setup.ranks, odd, &[of(usual)], &[of(other)]);
                    check_named(setup, &program, &run(setup, &program));
                }
            }
        }
    });
}

#[test]
fn point_to_point_calls_that_do_not_fit_are_named() {
    for transport in real_transports() {
        let of = |count, dtype, to, from| Collective::send_receive(count, dtype, to, from);
        for (sent, received) in [
            (of(8, DataType::F32, Some(1), None), of(16, DataType::F32, None, Some(0))),
            (of(50_000, DataType::F32, Some(1), None), of(50_001, DataType::F32, None, Some(0))),
            (of(8, DataType::F32, Some(1), None), of(8, DataType::I32, None, Some(0))),
            (of(0, DataType::F32, Some(1), None), of(1, DataType::F32, None, Some(0))),
        ] {
            let errors = start_threads(
                &setup(transport, 2),
                |config| config,
                move |rank, comm| {
                    let comm = comm.expect("both come");
                    let call = if rank == 0 { sent } else { received };
                    let size = call.dtype().size();
                    let input = vec![1; call.input_elements(2, rank) as usize * size];
                    let mut output = vec![0xee; call.output_elements(2, rank) as usize * size];
                    let result = comm.run(&call, &input, &mut output);
                    assert!(
                        output.iter().all(|&byte| byte == 0xee),
                        "a byte that does not fit reached the output"
                    );
                    result.and_then(|()| comm.barrier()).expect_err("the calls do not fit")
                },
            );
            assert_eq!(errors[0].cause(), errors[1].cause());
            let message = errors[0].to_string();
            assert_eq!(errors[0].kind(), ErrorKind::Mismatch, "{message}");
            for (rank, call) in [(0, sent), (1, received)] {
                let told = format!("rank {rank} called {}", call.signature(0).describe());
                assert!(message.contains(&told), "{told} is not in: {message}");
            }
        }
    }
}

#[test]
fn plans_that_would_differ_are_refused_at_the_start_by_name() {
    for transport in real_transports() {
        for odd in 0..3 {
            for (change, told) in [
                (("mesh-two-shot", 1, None), "mesh-two-shot"),
                (("ring", 1, Some(12_345)), "12345"),
                (("ring", 3, None), "3"),
            ] {
                let configure = |mut config: ubccl::Config| {
                    let (algorithm, lanes, chunk_bytes) =
                        if config.rank == odd { change } else { ("ring", 1, None) };
                    config.algorithm = Some(algorithm.into());
                    (config.lanes, config.chunk_bytes) = (lanes, chunk_bytes);
                    config
                };
                let errors = start_threads(&setup(transport, 3), configure, |_, comm| {
                    comm.expect_err("the ranks are not configured alike")
                });
                for (rank, error) in errors.iter().enumerate() {
                    let text = error.to_string();
                    assert_eq!(error.kind(), ErrorKind::Start, "{text}");
                    assert!(text.contains(told) && text.contains(&format!("rank {rank} ")), "{text}");
                    assert!(
                        text.matches("rank ").count() >= 2 && text.contains("configure all ranks alike"),
                        "{text}"
                    );
                }
            }
        }
    }
}

/// Two ranks that both receive from each other, or both wait to send much, are no mismatch: another thread of either
/// may still make the missing call. The deadline ends it and names who was waited for; the warning does so before.
#[test]
fn two_ranks_that_both_receive_end_with_the_deadline() {
    for transport in real_transports() {
        let configure = |config| ubccl::Config { operation_timeout: Duration::from_millis(300), ..config };
        let errors = start_threads(&setup(transport, 2), configure, |rank, comm| {
            let comm = comm.expect("both come");
            comm.receive(&mut [0_u8; 4], 1 - rank).expect_err("nobody sends")
        });
        assert_eq!(errors[0].cause(), errors[1].cause());
        let cause = errors[0].cause().expect("it poisons");
        assert_eq!(cause.kind, ErrorKind::Timeout);
        let waits = format!("waits for rank {}", cause.culprit.rank);
        assert!(
            cause.message.contains("sendrecv count=4 u8") && cause.message.contains(&waits),
            "{}",
            cause.message
        );
    }
}
