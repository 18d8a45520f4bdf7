//! Operations of users through the whole library: their order, who does them, and what goes wrong with them.

#![allow(unreachable_pub, reason = "nothing is public outside a test program")]

mod support;

use support::oracle::{Call, outputs};
use support::ranks::{Case, Setup, WATCHDOG, on_threads, run, start_threads};
use support::{Random, seed};
use ubccl::sim::{RankMemory, World, WorldConfig};
use ubccl::{Choice, Clock, Collective, Communicator, DataType, Error, ErrorKind, ReduceOp, UserOp};

/// 10 a + b, wrapping, of 16-bit numbers: any other order or nesting shows.
fn append(_: usize, accumulator: &mut [u8], next: &[u8], dtype: DataType) {
    assert_eq!(dtype, DataType::U16);
    for (a, b) in accumulator.chunks_exact_mut(2).zip(next.chunks_exact(2)) {
        let [left, right] = [[a[0], a[1]], [b[0], b[1]]].map(u16::from_le_bytes);
        a.copy_from_slice(&left.wrapping_mul(10).wrapping_add(right).to_le_bytes());
    }
}

/// Exclusive or with the context.
fn xor(context: usize, accumulator: &mut [u8], next: &[u8], _: DataType) {
    accumulator.iter_mut().zip(next).for_each(|(a, b)| *a ^= *b ^ context as u8);
}

static APPEND: UserOp = UserOp::new("append", false, append, 0);
static XOR: UserOp = UserOp::new("exclusive or", true, xor, 0);

fn setup(transport: &'static str, ranks: u32, algorithm: Option<&'static str>) -> Setup {
    Setup { transport, ranks, algorithm, choice: Choice { lanes: 2, chunk_bytes: 4096, ..Choice::default() } }
}

fn cases(op: &'static UserOp, ranks: usize, random: &mut Random) -> Vec<Case> {
    let mut cases = Vec::new();
    let op = ReduceOp::User(op);
    for call in [Call::AllReduce(op), Call::ReduceScatter(op)] {
        for count in [0, 1, 1023, 30_001] {
            let elements = if matches!(call, Call::AllReduce(_)) { count } else { count * ranks };
            let input = |_| (0..2 * elements).map(|_| random.next() as u8).collect();
            let inputs: Vec<Vec<u8>> = (0..ranks).map(input).collect();
            for in_place in [false, true] {
                let inputs = inputs.clone();
                cases.push(Case { call, dtype: DataType::U16, count, in_place, inputs, skew: 2 });
            }
        }
    }
    cases
}

/// Where every rank's first byte of the reduced vector stands, and the fold by definition.
fn appended(case: &Case, rank: usize) -> Vec<u8> {
    let first = if matches!(case.call, Call::AllReduce(_)) { 0 } else { rank * case.count };
    let value = |input: &Vec<u8>, k: usize| u64::from(input[2 * k]) + 256 * u64::from(input[2 * k + 1]);
    let digits = |k| case.inputs.iter().map(|input| value(input, k)).reduce(|a, b| 10 * a + b).unwrap();
    (first..first + case.count).flat_map(|k| (digits(k) as u16).to_le_bytes()).collect()
}

#[test]
fn an_operation_that_does_not_commute_is_folded_in_rank_order_everywhere() {
    let mut random = Random(seed("append"));
    for transport in ubccl::transports() {
        for ranks in [1, 2, 3, 5] {
            for algorithm in [None, Some("mesh-one-shot")] {
                let setup = setup(transport.name, ranks, algorithm);
                let cases = cases(&APPEND, ranks as usize, &mut random);
                for (rank, results) in run(&setup, &cases).iter().enumerate() {
                    for (case, result) in cases.iter().zip(results) {
                        assert!(*result == appended(case, rank), "{setup:?}: rank {rank}, {:?}", case.call);
                    }
                }
            }
        }
    }
}

#[test]
fn an_operation_that_commutes_is_done_by_every_algorithm_that_reduces() {
    let mut random = Random(seed("xor"));
    for transport in ubccl::transports() {
        for name in ["ring", "mesh-one-shot"] {
            let setup = setup(transport.name, 3, Some(name));
            let cases = cases(&XOR, 3, &mut random);
            let results = run(&setup, &cases);
            for (index, case) in cases.iter().enumerate() {
                let as_ours = match case.call {
                    Call::AllReduce(_) => Call::AllReduce(ReduceOp::Xor),
                    _ => Call::ReduceScatter(ReduceOp::Xor),
                };
                let expected = outputs(as_ours, case.dtype, &case.inputs, case.count);
                for (rank, result) in results.iter().enumerate() {
                    assert!(result[index] == expected[rank], "{setup:?}: rank {rank}, {:?}", case.call);
                }
            }
        }
    }
}

#[test]
fn the_ring_refuses_what_does_not_commute_and_the_chooser_goes_round_it() {
    let op = ReduceOp::User(&APPEND);
    on_threads(&setup("shm", 2, Some("ring")), move |comm| {
        let mut buffer = [comm.rank() as u16 + 1];
        let error = comm.all_reduce_in_place(&mut buffer, op).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.message().contains("ring does not do append"), "{error}");
        assert!(error.message().contains("rank order"), "{error}");
        comm.all_reduce_in_place(&mut buffer, ReduceOp::Sum).expect("nothing was sent before");
    });
    on_threads(&setup("shm", 2, None), move |comm| {
        for count in [1, 1 << 20] {
            let call = Collective::all_reduce(count, DataType::U16, op);
            let candidates = comm.candidates(&call).unwrap();
            let refusal = |name| {
                let found = candidates.iter().find(|candidate| candidate.algorithm.descriptor().name == name);
                found.expect("an algorithm that exists").cost.as_ref().err().map(|error| error.kind())
            };
            assert_eq!(refusal("ring"), Some(ErrorKind::Unsupported));
            assert_eq!(refusal(comm.algorithm_for(&call).unwrap()), None);
            let mut buffer = vec![comm.rank() as u16 + 1; count as usize];
            comm.all_reduce_in_place(&mut buffer, op).expect("it keeps the order");
            assert!(buffer.iter().all(|&value| value == 12), "1, then 2: {:?}", &buffer[..1]);
        }
    });
}

/// Every rank makes the call that `call` gives for it; answers what each got.
fn errors(
    setup: &Setup,
    call: fn(u32) -> Collective<'static>,
    input: fn(u32) -> Vec<u8>,
) -> Vec<Option<Error>> {
    let descriptor = ubccl::transports().find(|t| t.name == setup.transport).expect("of the index");
    if descriptor.clock == Clock::Virtual {
        let mut world = World::new(WorldConfig {
            ranks: setup.ranks,
            transport: setup.transport.into(),
            fabric: "custom:latency_ps=1000000,bytes_per_s=1000000000".into(),
            ..WorldConfig::default()
        })
        .expect("a world");
        let mut memory: Vec<_> = (0..setup.ranks)
            .map(|rank| {
                let elements = call(rank).output_elements(setup.ranks, rank) as usize;
                RankMemory::Apart {
                    input: input(rank),
                    output: vec![0; elements * call(rank).dtype().size()],
                }
            })
            .collect();
        return vec![world.run_real(&call, &mut memory).err(); setup.ranks as usize];
    }
    start_threads(
        setup,
        |config| config,
        move |rank, comm: Result<Communicator, Error>| {
            let comm = comm.expect("all ranks come");
            let call = call(rank);
            let elements = call.output_elements(comm.ranks(), rank) as usize;
            let mut output = vec![0; elements * call.dtype().size()];
            let began = std::time::Instant::now();
            let error = comm.run(&call, &input(rank), &mut output).and_then(|()| comm.barrier()).err();
            assert!(began.elapsed() < WATCHDOG / 4, "an error comes at once, not by a deadline");
            let again = comm.barrier().err();
            assert_eq!(again.as_ref().and_then(Error::cause), error.as_ref().and_then(Error::cause));
            error
        },
    )
}

#[test]
fn operations_of_different_names_are_a_mismatch() {
    fn call(rank: u32) -> Collective<'static> {
        static OTHER: UserOp = UserOp::new("another", true, xor, 0);
        let op = if rank == 0 { &OTHER } else { &XOR };
        Collective::all_reduce(10, DataType::U8, ReduceOp::User(op))
    }
    for transport in ubccl::transports() {
        for error in errors(&setup(transport.name, 3, None), call, |_| vec![1; 10]) {
            let error = error.expect("an error on every rank");
            assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
            assert!(error.to_string().contains("user-defined operation alike"), "{error}");
        }
    }
}

#[test]
fn a_panic_on_one_rank_is_an_error_of_every_rank_that_names_the_operation() {
    fn picky(_: usize, _: &mut [u8], next: &[u8], _: DataType) {
        assert!(!next.contains(&13), "thirteen is refused");
    }
    static PICKY: UserOp = UserOp::new("picky", false, picky, 0);
    fn call(_: u32) -> Collective<'static> {
        Collective::reduce_scatter(5000, DataType::U8, ReduceOp::User(&PICKY))
    }
    // Only rank 1 reduces the 13.
    fn input(rank: u32) -> Vec<u8> {
        let mut input = vec![rank as u8; 15_000];
        input[7000] = 13;
        input
    }
    for transport in ubccl::transports() {
        for error in errors(&setup(transport.name, 3, None), call, input) {
            let error = error.expect("an error on every rank");
            assert_eq!(error.kind(), ErrorKind::Remote, "{error}");
            let cause = error.cause().expect("a poisoned communicator has a cause");
            assert_eq!(cause.culprit.rank, 1, "{error}");
            assert!(cause.message.contains("'picky' panicked (thirteen is refused)"), "{error}");
        }
    }
}
