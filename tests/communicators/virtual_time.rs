//! Several communicators of a simulated world.

use crate::support::oracle::{Call, RUBBISH, exact_data, outputs, sizes};
use crate::support::ranks::collective;
use crate::support::{Random, seed};
use ubccl::sim::{
    CommunicatorId, Data, Issued, Job, Outcome, RankMemory, TaggedStep, TaggedWay, World, WorldConfig,
};
use ubccl::{Collective, DataType, ErrorKind, Rank, ReduceOp};

const WORLD: CommunicatorId = CommunicatorId::WORLD;

/// Every rank has one port each way: 1 byte takes 1 ns, latency 1 µs.
fn world(ranks: u32) -> World {
    let fabric = "custom:latency_ps=1000000,bytes_per_s=1000000000".into();
    World::new(WorldConfig { fabric, ranks, ..WorldConfig::default() }).expect("a world")
}

fn sum(count: u64) -> impl Fn(Rank) -> Collective<'static> {
    move |_| Collective::all_reduce(count, DataType::F32, ReduceOp::Sum)
}

/// A call with data for every rank of a communicator, and what it must give.
struct Step {
    on: CommunicatorId,
    call: Call,
    dtype: DataType,
    count: usize,
    ranks: u32,
    memory: Vec<RankMemory>,
    expected: Vec<Vec<u8>>,
}

impl Step {
    fn random(world: &World, on: CommunicatorId, random: &mut Random) -> Step {
        let ranks = world.members(on).expect("it exists").len();
        let root = random.below(ranks as u64) as usize;
        let call = [
            Call::AllReduce(ReduceOp::Sum),
            Call::AllGather,
            Call::ReduceScatter(ReduceOp::Max),
            Call::Broadcast { root },
            Call::Barrier,
            Call::Shift(root),
            Call::Reduce { op: ReduceOp::Sum, root },
            Call::Gather { root },
            Call::Scatter { root },
            Call::AllToAll,
        ][random.below(10) as usize];
        let dtype = [DataType::F32, DataType::I32, DataType::U8][random.below(3) as usize];
        let count = [0, 1, 7, 100, 3000][random.below(5) as usize];
        let count = if call == Call::Barrier { 0 } else { count };
        let of_rank = |rank| sizes(call, ranks, rank, count);
        let inputs: Vec<Vec<u8>> =
            (0..ranks).map(|rank| exact_data(call, dtype, of_rank(rank).0, random)).collect();
        let expected = outputs(call, dtype, &inputs, count);
        let apart = |(rank, input)| {
            let output = vec![RUBBISH; of_rank(rank).1 * dtype.size()];
            RankMemory::Apart { input, output }
        };
        let memory = inputs.into_iter().enumerate().map(apart).collect();
        Step { on, call, dtype, count, ranks: ranks as u32, memory, expected }
    }

    fn calls(&self) -> impl Fn(Rank) -> Collective<'static> + use<> {
        let (call, dtype, count, ranks) = (self.call, self.dtype, self.count, self.ranks);
        move |rank| collective(call, dtype, count, ranks, rank)
    }

    fn check(&self, memory: &[RankMemory]) {
        for (rank, (memory, expected)) in memory.iter().zip(&self.expected).enumerate() {
            assert_eq!(memory.output(), expected, "{:?} on {:?}, rank {rank}", self.call, self.on);
        }
    }
}

/// Splits a communicator that there is, at random; sometimes into nothing new.
fn split_randomly(world: &mut World, random: &mut Random) {
    let communicators: Vec<CommunicatorId> = world.communicators().collect();
    let of = communicators[random.below(communicators.len() as u64) as usize];
    let salt = random.next();
    let colour =
        |rank: Rank| Some(Random(salt ^ u64::from(rank)).below(3) as u32).filter(|&colour| colour > 0);
    match random.below(3) {
        0 => drop(world.duplicate(of).expect("nothing is wrong")),
        _ => drop(world.split(of, &colour, &|rank| -i64::from(rank)).expect("nothing is wrong")),
    }
}

/// Programs of steps on several communicators, one by one, issued ahead, and at once; the history of each.
fn random_program(program_seed: u64) -> (u64, u64, usize) {
    let mut random = Random(program_seed);
    let mut world = world(1 + random.below(8) as u32);
    let mut open: Vec<(Issued, Step)> = Vec::new();
    for _ in 0..30 {
        if random.below(6) == 0 {
            split_randomly(&mut world, &mut random);
        }
        let communicators: Vec<CommunicatorId> = world.communicators().collect();
        let on = communicators[random.below(communicators.len() as u64) as usize];
        let mut step = Step::random(&world, on, &mut random);
        if random.below(2) == 0 {
            let mut memory = std::mem::take(&mut step.memory);
            world.run_real_on(on, &step.calls(), &mut memory).expect("it runs");
            step.check(&memory);
        } else {
            let memory = std::mem::take(&mut step.memory);
            open.push((world.issue(on, &step.calls(), memory).expect("it is issued"), step));
        }
        while open.len() > random.below(6) as usize {
            let (issued, step) = open.swap_remove(random.below(open.len() as u64) as usize);
            step.check(&world.wait(issued).expect("it runs").1);
        }
    }
    for (issued, step) in open {
        step.check(&world.wait(issued).expect("it runs").1);
    }
    let found = (world.stats().hash, world.now_ps(), world.communicators().count());
    world.close().expect("nothing is left over");
    found
}

#[test]
fn random_programs_on_several_communicators_give_what_the_oracle_says_and_the_same_again() {
    let mut random = Random(seed("virtual programs"));
    let mut communicators = 0;
    for _ in 0..100 {
        let program_seed = random.next();
        let found = random_program(program_seed);
        assert_eq!(found, random_program(program_seed), "the same program has the same history");
        communicators += found.2;
    }
    assert!(communicators > 300, "most programs have several communicators");
}

#[test]
fn phantom_data_is_checked_on_every_communicator() {
    let mut world = world(6);
    let thirds = world.split(WORLD, &|rank| Some(rank % 3), &|rank| -i64::from(rank)).expect("a split");
    let members: Vec<Vec<Rank>> =
        thirds.iter().map(|&id| world.members(id).expect("it exists").to_vec()).collect();
    assert_eq!(members, [[3, 0], [4, 1], [5, 2]]);
    let inner = world.split_ranks(thirds[2], &[1]).expect("a part of a part");
    assert_eq!(world.members(inner).expect("it exists"), [2]);
    for id in world.communicators() {
        for in_place in [false, true] {
            assert_eq!(world.run_phantom_on(id, &sum(1000), in_place).expect("it runs").wrong, 0);
            let gather = |_: Rank| Collective::all_gather(33, DataType::U8);
            assert_eq!(world.run_phantom_on(id, &gather, in_place).expect("it runs").wrong, 0);
        }
    }
    world.close().expect("nothing is left over");
}

fn phantom<'j>(on: CommunicatorId, calls: &'j dyn Fn(Rank) -> Collective<'static>) -> Job<'j, 'static> {
    Job { communicator: on, calls, data: Data::Phantom { in_place: false } }
}

#[test]
fn calls_at_the_same_time_share_ports_and_nothing_else() {
    let mut world = world(4);
    let call = sum(1 << 20);
    let halves = world.split(WORLD, &|rank| Some(rank / 2), &|_| 0).expect("a split");
    let alone = world.run_phantom_on(halves[0], &call, false).expect("it runs").elapsed_ps;
    let elapsed = |results: Vec<ubccl::Result<Outcome>>| {
        results.into_iter().map(|result| result.expect("it runs").elapsed_ps).collect::<Vec<_>>()
    };
    // Disjoint ranks: nothing is shared.
    let apart = world.run_together(&mut [phantom(halves[0], &call), phantom(halves[1], &call)]);
    assert_eq!(elapsed(apart), [alone, alone]);
    // The same ranks: one port for both, which is what the time goes into.
    let copy = world.duplicate(halves[0]).expect("a duplicate");
    let both = elapsed(world.run_together(&mut [phantom(halves[0], &call), phantom(copy, &call)]));
    let longest = both.iter().copied().max().expect("two");
    assert!(longest > 19 * alone / 10 && longest <= 2 * alone, "{both:?} together, {alone} alone");
    // One communicator: one after the other.
    let queued = elapsed(world.run_together(&mut [phantom(copy, &call), phantom(copy, &call)]));
    assert_eq!(queued, [alone, 2 * alone]);
}

#[test]
fn a_mismatch_ends_its_communicator_and_no_other() {
    let mut world = world(4);
    let copy = world.duplicate(WORLD).expect("a duplicate");
    let wrong = |rank| sum(if rank == 2 { 5 } else { 4 })(rank);
    let right = sum(100);
    let results =
        world.run_together(&mut [phantom(copy, &right), phantom(WORLD, &wrong), phantom(copy, &right)]);
    let [first, second, third] = results.try_into().expect("one result for each job");
    assert_eq!((first.expect("it runs").wrong, third.expect("it runs").wrong), (0, 0));
    let error = second.expect_err("ranks called different things");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("rank 2"), "{error}");
    assert_eq!(world.async_error(WORLD).expect("it exists").expect("poisoned").cause(), error.cause());
    assert!(world.async_error(copy).expect("it exists").is_none());
    assert!(world.split(WORLD, &|_| Some(0), &|_| 0).is_err(), "what is poisoned does not split");
    assert_eq!(world.run_phantom_on(copy, &right, true).expect("it runs").wrong, 0);
    assert_eq!(world.close().expect_err("one was poisoned").cause(), error.cause());
}

#[test]
fn a_death_ends_every_communicator_of_the_dead_and_no_other() {
    let mut world = world(4);
    let pair = world.split_ranks(WORLD, &[3, 1]).expect("a pair");
    let spared = world.split_ranks(WORLD, &[0, 2]).expect("another pair");
    let idle = world.split_ranks(WORLD, &[1]).expect("one rank");
    let call = sum(1 << 20);
    let of_all = world.run_phantom(&call, false).expect("nobody is dead yet").elapsed_ps;
    world.kill(1, of_all / 2);
    let memory: Vec<RankMemory> =
        (0..2).map(|_| RankMemory::Apart { input: vec![1; 4 << 20], output: vec![0; 4 << 20] }).collect();
    let issued = world.issue(pair, &call, memory).expect("it is issued");
    let results = world.run_together(&mut [phantom(WORLD, &call), phantom(spared, &call)]);
    let [dead, alive] = results.try_into().expect("one result for each job");
    assert_eq!(alive.expect("nobody in it died").wrong, 0);
    // The rank is named by its number in each communicator.
    for (error, rank) in [
        (dead.expect_err("rank 1 died"), 1),
        (world.wait(issued).expect_err("rank 1 of the world died"), 1),
        (world.run_phantom_on(idle, &call, false).expect_err("it died"), 0),
    ] {
        let cause = error.cause().expect("it poisons");
        assert_eq!((cause.kind, cause.culprit.rank), (ErrorKind::Remote, rank), "{error}");
    }
    let told = world.async_error(idle).expect("it exists").expect("poisoned").to_string();
    assert!(told.contains("it is rank 1 of the world"), "{told}");
    assert_eq!(world.run_phantom_on(spared, &call, false).expect("they live").wrong, 0);
}

/// The same tag and pair on three communicators, some in each direction: messages stay where they were sent.
#[test]
fn tagged_messages_stay_in_their_communicator() {
    let mut world = world(3);
    let pair = world.split_ranks(WORLD, &[2, 0]).expect("a pair");
    let copy = world.duplicate(WORLD).expect("a duplicate");
    let step = |rank, way, bytes: &[u8]| TaggedStep { rank, way, tag: 7, bytes: bytes.to_vec() };
    for (on, from, to) in [(WORLD, 2, 0), (pair, 0, 1), (copy, 2, 0), (pair, 1, 0)] {
        let sent = [on.0 as u8, from as u8];
        let mut steps = [
            step(to, TaggedWay::From(None), &[0; 2]),
            step(from, TaggedWay::To(to), &sent),
            step(from, TaggedWay::To(to), &[9]),
            step(to, TaggedWay::From(Some(from)), &[0]),
        ];
        world.run_tagged_on(on, &mut steps).expect("it works");
        assert_eq!((&steps[0].bytes[..], steps[0].way), (&sent[..], TaggedWay::From(Some(from))));
        assert_eq!((&steps[1].bytes[..], &steps[3].bytes[..]), (&sent[..], &[9][..]));
        let counted = world.counters_on(on, from).expect("it exists").total;
        assert!(counted.messages_sent >= 2, "{counted:?}");
    }
    assert_eq!(world.counters(0).total.messages_sent, 0, "what rank 0 sent, it sent in the pair");
    let mut lone = [step(0, TaggedWay::From(Some(1)), &[0])];
    let error = world.run_tagged_on(copy, &mut lone).expect_err("nobody sends");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(world.async_error(pair).expect("it exists").is_none());
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut world = world(3);
    let elsewhere = CommunicatorId(7);
    let refused = |result: Result<(), ubccl::Error>, problem: &str| {
        let error = result.expect_err(problem);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(problem), "{error}");
    };
    refused(world.members(elsewhere).map(drop), "no communicator 7");
    refused(world.run_phantom_on(elsewhere, &sum(1), false).map(drop), "no communicator 7");
    refused(world.split(elsewhere, &|_| None, &|_| 0).map(drop), "no communicator 7");
    refused(world.split_ranks(WORLD, &[0, 3]).map(drop), "no rank 3 in a communicator of 3");
    refused(world.split_ranks(WORLD, &[1, 1]).map(drop), "rank 1 cannot be in a communicator twice");
    let pair = world.split_ranks(WORLD, &[1, 2]).expect("a pair");
    refused(world.split_ranks(pair, &[2]).map(drop), "no rank 2 in a communicator of 2");
    // Memory comes back as it was.
    let mut memory = [vec![1, 2, 3, 4], vec![5, 6, 7]].map(RankMemory::InPlace);
    let before = memory.clone();
    refused(world.run_real_on(pair, &sum(1), &mut memory).map(drop), "rank 1's buffer has 3 bytes");
    refused(world.run_real_on(pair, &sum(1), &mut memory[..1]).map(drop), "2 ranks need as many memories");
    assert_eq!(memory, before);
    let issued = world.issue(pair, &sum(0), before[..0].to_vec()).map(drop);
    refused(issued, "2 ranks need as many memories");
    assert_eq!((world.now_ps(), world.stats().events), (0, 0));
    let left = world.issue(pair, &|_| Collective::barrier(), vec![RankMemory::InPlace(vec![]); 2]);
    drop(left.expect("it is issued"));
    refused(world.close(), "still under way");
}
