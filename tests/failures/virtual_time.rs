//! Deaths and silence in simulated worlds.

use crate::program::world;
use crate::support::oracle::Call;
use crate::support::ranks::collective;
use crate::support::{Random, seed};
use crate::{setup, virtual_transports};
use std::time::Duration;
use ubccl::sim::{World, WorldConfig};
use ubccl::{Cause, Collective, DataType, ErrorKind, ReduceOp};

const DEATHS: usize = 400;
/// The fabric tells the others of a death after this long.
const LONGEST_ROUNDS: u64 = 10_000;

fn calls(ranks: u32, random: &mut Random) -> Call {
    let root = random.below(u64::from(ranks)) as usize;
    let calls = [
        Call::AllReduce(ReduceOp::Sum),
        Call::AllGather,
        Call::ReduceScatter(ReduceOp::Max),
        Call::Broadcast { root },
        Call::Barrier,
        Call::Shift(1),
        Call::Reduce { op: ReduceOp::Sum, root },
        Call::Gather { root },
        Call::Scatter { root },
        Call::AllToAll,
        Call::GatherV { root, seed: 3 },
        Call::ScatterV { root, seed: 5 },
        Call::AllGatherV { seed: 7 },
        Call::ReduceScatterV { op: ReduceOp::Max, seed: 9 },
        Call::AllToAllV { seed: 10 },
    ];
    calls[random.below(calls.len() as u64) as usize]
}

/// Repeats a call until it fails: the number of the call that failed, and why.
fn until_an_error(
    world: &mut World,
    calls: &dyn Fn(u32) -> Collective<'static>,
    in_place: bool,
) -> (u64, Cause) {
    for number in 1..LONGEST_ROUNDS {
        match world.run_phantom(calls, in_place) {
            Ok(outcome) => assert_eq!(outcome.wrong, 0, "call {number} was done and is right"),
            Err(error) => return (number, error.cause().expect("it poisons").clone()),
        }
    }
    panic!("the death shows in no call")
}

#[test]
fn a_rank_that_dies_in_virtual_time_is_the_cause() {
    let mut random = Random(seed("virtual deaths"));
    let (mut inside, mut between) = (0, 0);
    for transport in virtual_transports() {
        for _ in 0..DEATHS {
            let ranks = 2 + random.below(7) as u32;
            let victim = random.below(u64::from(ranks)) as u32;
            let (call, in_place) = (calls(ranks, &mut random), random.below(2) == 0);
            let count = [0, 1, 100, 5000, 100_000][random.below(5) as usize];
            let calls = |rank| collective(call, DataType::F32, count, ranks, rank);
            let mut world = world(&setup(transport, ranks));
            let length = world.run_phantom(&calls, in_place).expect("nobody is dead yet").elapsed_ps;
            world.kill(victim, random.below(3 * length + 1));
            let (number, cause) = until_an_error(&mut world, &calls, in_place);
            let told = format!("{transport} {call:?} count {count}, {ranks} ranks: {cause}");
            assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Remote, victim), "{told}");
            // The first call was before the kill. The victim may be done with its part of the one that fails.
            let sequence = if matches!(call, Call::Shift(_)) { 0 } else { number + 1 };
            let operation = calls(victim).signature(0).describe();
            let is_inside = cause.operation == operation || sequence == 0;
            assert!(is_inside || cause.operation.is_empty(), "{told}");
            assert_eq!(cause.sequence, sequence, "{told}");
            *if is_inside { &mut inside } else { &mut between } += 1;
            assert_eq!(world.run_phantom(&calls, in_place).expect_err("it stays so").cause(), Some(&cause));
            assert_eq!(world.close().expect_err("it stays so").cause(), Some(&cause));
        }
    }
    println!("virtual deaths: {inside} in an operation, {between} with its part of one done");
}

#[test]
fn the_same_death_gives_the_same_history() {
    for transport in virtual_transports() {
        let history = || {
            let mut world = world(&setup(transport, 6));
            world.kill(4, 12_345_678);
            let calls = |_| Collective::all_reduce(70_000, DataType::F32, ReduceOp::Sum);
            (until_an_error(&mut world, &calls, false), world.stats(), world.now_ps())
        };
        assert_eq!(history(), history());
    }
}

#[test]
fn a_rank_that_takes_no_part_is_named() {
    for transport in virtual_transports() {
        for (ranks, absent) in [(2, 0), (3, 2), (5, 1)] {
            let waits = (absent + 1) % ranks;
            // Everybody but the absent one exchanges something with its neighbour.
            let call = |rank: u32| {
                let to = Some((rank + 1) % ranks).filter(|&to| to != absent && rank != absent);
                let from = Some((rank + ranks - 1) % ranks).filter(|_| rank != absent);
                Collective::send_receive(10, DataType::I32, to, from)
            };
            let error =
                world(&setup(transport, ranks)).run_phantom(&call, false).expect_err("one takes no part");
            let cause = error.cause().expect("it poisons");
            assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Timeout, absent), "{error}");
            assert!(cause.message.contains(&format!("rank {waits} waits for it")), "{error}");
        }
    }
}

#[test]
fn a_message_that_nobody_takes_is_found_at_the_end() {
    for transport in virtual_transports() {
        let mut world = world(&setup(transport, 3));
        let call =
            |rank: u32| Collective::send_receive(10, DataType::I32, Some(2).filter(|_| rank == 1), None);
        world.run_phantom(&call, false).expect("a send needs no receive yet");
        let error = world.close().expect_err("nobody received");
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(text.contains("rank 1 called sendrecv count=10 i32, rank 2 called close"), "{text}");
    }
}

#[test]
fn an_operation_past_its_virtual_deadline_is_a_timeout_and_one_within_it_is_not() {
    let sum = |_| Collective::all_reduce(1 << 20, DataType::F32, ReduceOp::Sum);
    let world = |timeout: Option<Duration>| {
        let config = WorldConfig { ranks: 5, ..WorldConfig::default() };
        let operation_timeout = timeout.unwrap_or(config.operation_timeout);
        World::new(WorldConfig { operation_timeout, ..config }).unwrap()
    };
    let elapsed_ns = world(None).run_phantom(&sum, false).unwrap().elapsed_ps / 1000;
    let mut enough = world(Some(Duration::from_nanos(elapsed_ns + 1)));
    // Each operation has a deadline of its own.
    for _ in 0..3 {
        assert_eq!(enough.run_phantom(&sum, false).unwrap().wrong, 0);
    }
    let mut short = world(Some(Duration::from_nanos(elapsed_ns - 1)));
    let error = short.run_phantom(&sum, false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("virtual ps"), "{error}");
    assert_eq!(short.run_phantom(&sum, false).unwrap_err().cause(), error.cause(), "it poisons");
}
