//! Registered memory as the buffer of calls: on every transport, mixed with ordinary memory, in part, freed and again.

mod support;

use support::ranks::{Setup, on_threads};
use ubccl::{Choice, Clock, Collective, Communicator, DataType, MemoryKind, ReduceOp, Region};

/// Every algorithm of all-reduce and every real transport.
fn setups(ranks: u32) -> Vec<Setup> {
    let algorithms = ["ring", "mesh-two-shot", "mesh-one-shot", "halving-doubling"];
    let real = || ubccl::transports().filter(|transport| transport.clock == Clock::Real);
    let setup = |algorithm| {
        real().map(move |transport| Setup {
            transport: transport.name,
            ranks,
            algorithm,
            choice: Choice { lanes: 2, chunk_bytes: 16 << 10, ..Choice::default() },
        })
    };
    algorithms.into_iter().flat_map(|algorithm| setup(Some(algorithm))).chain(setup(None)).collect()
}

fn filled(comm: &Communicator, count: usize) -> Region<f32> {
    let mut region = comm.alloc(count).expect("there is memory");
    region.iter_mut().zip(input(comm.rank(), count)).for_each(|(x, value)| *x = value);
    region
}

/// Small whole numbers, so that any order of adding gives the same.
fn input(rank: u32, count: usize) -> Vec<f32> {
    (0..count).map(|k| ((k * 7 + rank as usize * 13) % 101) as f32).collect()
}

fn summed(ranks: u32, count: usize) -> Vec<f32> {
    (0..count).map(|k| (0..ranks).map(|rank| ((k * 7 + rank as usize * 13) % 101) as f32).sum()).collect()
}

#[test]
fn a_region_is_a_buffer_like_any_other() {
    for ranks in [2, 3] {
        for setup in setups(ranks) {
            on_threads(&setup, move |comm| {
                for count in [0, 1, 3000, 100_001] {
                    let expected = summed(ranks, count);
                    let mut region = filled(comm, count);
                    comm.all_reduce_in_place(&mut region, ReduceOp::Sum).expect("it works");
                    assert_eq!(*region, *expected, "in place, {count}");
                    // Some ranks with registered memory and some without, and either buffer.
                    let ordinary = input(comm.rank(), count);
                    let (send, mut recv) = (filled(comm, count), vec![-1.0; count]);
                    match comm.rank() % 2 {
                        0 => comm.all_reduce(&send, &mut recv, ReduceOp::Sum).expect("it works"),
                        _ => comm.all_reduce(&ordinary, &mut region, ReduceOp::Sum).expect("it works"),
                    }
                    let got: &[f32] = if comm.rank() % 2 == 0 { &recv } else { &region };
                    assert_eq!(*got, *expected, "apart, {count}");
                    assert_eq!(*send, *ordinary, "the input stays as it was");
                }
            });
        }
    }
}

/// Fractions, whose sum depends on the order.
fn fractions(rank: u32, count: usize) -> Vec<f32> {
    (0..count).map(|k| 1.0 / (1.0 + ((k * 7919 + rank as usize * 104_729) % 10_007) as f32)).collect()
}

/// What one pass makes is what the steps of the plan make, bit for bit, and one pass it is: it counts two messages for each
/// peer, and the plan has more.
#[test]
fn registered_memory_on_all_ranks_is_reduced_in_one_pass_to_the_same_bits() {
    for ranks in [2, 3, 4] {
        let choice = Choice { lanes: 2, chunk_bytes: 16 << 10, ..Choice::default() };
        let setup = Setup { transport: "shm", ranks, algorithm: Some("mesh-two-shot"), choice };
        on_threads(&setup, |comm| {
            let sent = || comm.counters().total.messages_sent;
            for op in [ReduceOp::Sum, ReduceOp::Avg, ReduceOp::Min] {
                let count = 200_003;
                let mut expected = fractions(comm.rank(), count);
                let before = sent();
                comm.all_reduce_in_place(&mut expected, op).expect("it works");
                let by_steps = sent() - before;
                let mut region = comm.alloc::<f32>(count).expect("there is memory");
                region.copy_from_slice(&fractions(comm.rank(), count));
                let before = sent();
                comm.all_reduce_in_place(&mut region, op).expect("it works");
                assert_eq!(sent() - before, 2 * (u64::from(comm.ranks()) - 1));
                assert!(by_steps > sent() - before, "{by_steps}");
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert!(bits(&region) == bits(&expected), "{}", op.name());
            }
        });
    }
}

#[test]
fn a_part_of_a_region_is_written_and_nothing_else() {
    for setup in setups(2) {
        on_threads(&setup, |comm| {
            let (count, from, to) = (60_000, 1001, 52_003);
            let mut region = filled(comm, count);
            comm.all_reduce_in_place(&mut region[from..to], ReduceOp::Sum).expect("it works");
            let (own, sums) = (input(comm.rank(), count), summed(2, count));
            assert_eq!(region[..from], own[..from]);
            assert_eq!(region[from..to], sums[from..to]);
            assert_eq!(region[to..], own[to..]);
        });
    }
}

#[test]
fn asynchronous_calls_own_regions_and_give_them_back() {
    for setup in setups(3) {
        on_threads(&setup, |comm| {
            let count = 30_000;
            let first = comm.all_reduce_in_place_async(filled(comm, count), ReduceOp::Sum).expect("issued");
            let recv = comm.alloc(count).expect("there is memory");
            let second = comm.all_reduce_async(filled(comm, count), recv, ReduceOp::Sum).expect("issued");
            let call = Collective::all_reduce(count as u64, DataType::F32, ReduceOp::Sum);
            let third =
                comm.run_async(&call, input(comm.rank(), count), filled(comm, count)).expect("issued");
            let expected = summed(3, count);
            assert_eq!(*third.wait().expect("it works").1, *expected);
            assert_eq!(*second.wait().expect("it works").1, *expected);
            assert_eq!(*first.wait().expect("it works"), *expected);
        });
    }
}

#[test]
fn every_kind_takes_regions() {
    let ranks = 3_u32;
    for setup in setups(ranks).into_iter().filter(|setup| setup.algorithm.is_none()) {
        on_threads(&setup, move |comm| {
            let (count, me, n) = (20_000_usize, comm.rank() as usize, comm.ranks() as usize);
            let mut all = comm.alloc::<f32>(n * count).expect("there is memory");
            comm.all_gather(&filled(comm, count), &mut all).expect("it works");
            for rank in 0..n {
                assert_eq!(all[rank * count..][..count], *input(rank as u32, count));
            }
            let mut part = comm.alloc::<f32>(count).expect("there is memory");
            comm.reduce_scatter(&all, &mut part, ReduceOp::Sum).expect("it works");
            let whole: Vec<f32> = input(me as u32, count).iter().map(|x| x * n as f32).collect();
            assert_eq!(*part, *whole);
            comm.broadcast(&mut part, 1).expect("it works");
            assert_eq!(part[5], input(1, count)[5] * n as f32);
            let mut swapped = comm.alloc::<f32>(n * count).expect("there is memory");
            comm.all_to_all(&all, &mut swapped).expect("it works");
            for rank in 0..n {
                assert_eq!(swapped[rank * count..][..count], *input(me as u32, count), "from {rank}");
            }
            let next = (me + 1) % n;
            let before = (me + n - 1) % n;
            let call =
                Collective::send_receive(count as u64, DataType::F32, Some(next as u32), Some(before as u32));
            let work = comm.run_async(&call, filled(comm, count), part).expect("issued");
            assert_eq!(*work.wait().expect("it works").1, *input(before as u32, count));
        });
    }
}

#[test]
fn memory_is_counted_until_it_is_dropped_and_outlives_the_communicator() {
    for setup in setups(2).into_iter().filter(|setup| setup.algorithm.is_none()) {
        let is_shm = setup.transport == "shm";
        let kept = on_threads(&setup, move |comm| {
            let regions = || comm.memory().of(MemoryKind::Regions);
            assert_eq!(regions(), 0);
            let region = comm.alloc::<u64>(100_000).expect("there is memory");
            assert!(region.iter().all(|&x| x == 0));
            let counted = if is_shm { 800_000..1_000_000 } else { 0..1 };
            assert!(counted.contains(&regions()), "{} of {region:?}", regions());
            drop(region);
            assert_eq!(regions(), 0);
            filled(comm, 10)
        });
        let is_common = setup.transport != "tcp";
        for (rank, region) in (0..).zip(kept) {
            assert_eq!(region.is_registered(), is_common);
            assert_eq!(*region, *input(rank, 10));
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let comm = Communicator::init(ubccl::Config::default()).expect("one rank");
    let error = comm.alloc::<f64>(usize::MAX / 4).unwrap_err().to_string();
    assert!(error.contains("f64") && error.contains("addresses"), "{error}");
    assert!(comm.alloc::<u8>(0).expect("nothing is fine").is_empty());
    assert!(comm.alloc::<u8>(1 << 46).is_err(), "no host has that much memory");
}
