//! After warm-up an operation allocates nothing.
#![allow(unsafe_code)] // a counting global allocator

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use support::oracle::{Call, sizes};
use support::ranks::{Setup, collective, on_threads};
use support::{Random, seed};
use ubccl::{Choice, Clock, Collective, Communicator, DataType, ReduceOp};

struct Counting;

static IS_COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

fn note() {
    if IS_COUNTING.load(Ordering::Relaxed) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const RANKS: u32 = 3;
const ROUNDS: usize = 1000;

/// 32 different calls: kinds, types, operations, sizes from nothing to several chunks.
fn specs(ranks: usize, random: &mut Random) -> Vec<(Call, DataType, usize)> {
    let calls = [
        Call::AllReduce(ReduceOp::Sum),
        Call::AllReduce(ReduceOp::Max),
        Call::AllGather,
        Call::ReduceScatter(ReduceOp::Sum),
        Call::Broadcast { root: 0 },
        Call::Broadcast { root: ranks - 1 },
        Call::Shift(1),
        Call::Barrier,
    ];
    let types = [DataType::F32, DataType::BF16, DataType::I32, DataType::U8];
    (0..32)
        .map(|k| {
            let count = [0, 1, 33, 2000, 9000, 70_000][random.below(6) as usize] + k;
            (calls[k % calls.len()], types[(k / calls.len()) % types.len()], count)
        })
        .collect()
}

/// Messages round the ring and to oneself, and collectives, in one group.
fn run_group(comm: &Communicator, own: &mut [i32], around: &mut [i32]) {
    let (me, ranks) = (comm.rank(), comm.ranks());
    let (first, second) = own.split_at_mut(2500);
    let (here, there) = around.split_at_mut(2500);
    let mut group = comm.group();
    group.send(first, (me + 1) % ranks).expect("a message");
    group.send(&first[..7], me).expect("a message");
    group.receive(here, (me + 2) % ranks).expect("a message");
    group.receive(&mut there[..7], me).expect("a message");
    group.all_reduce_in_place(second, ReduceOp::Max).expect("a call");
    group.run().expect("the group works");
}

/// Tagged messages round the ring, from a rank by name and from any.
fn pass_on(comm: &Communicator, own: &[i32], around: &mut [i32]) {
    let (me, ranks) = (comm.rank(), comm.ranks());
    for (source, len) in [(Some((me + 2) % ranks), 3), (None, 600)] {
        let send = || comm.send_tagged(&own[..len], (me + 1) % ranks, 1).expect("it is sent");
        // A send may wait for its receive: not all ranks send first.
        if me > 0 {
            send();
        }
        comm.receive_tagged(&mut around[..len], source, 1).expect("it comes");
        if me == 0 {
            send();
        }
    }
}

#[test]
fn warm_operations_allocate_nothing() {
    for transport in ubccl::transports().filter(|transport| transport.clock == Clock::Real) {
        let counted = count(transport.name);
        assert_eq!(
            counted, [0; RANKS as usize],
            "{}: allocations in {ROUNDS} warm operations on each of {RANKS} ranks",
            transport.name
        );
    }
    // The counter counts.
    IS_COUNTING.store(true, Ordering::Relaxed);
    drop(std::hint::black_box(vec![1_u8; 100]));
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > 0);
}

/// What is allocated anywhere in the process while all ranks are warm, as each of them saw it in the end.
fn count(transport: &'static str) -> Vec<u64> {
    let mut random = Random(seed("no allocation"));
    let specs = specs(RANKS as usize, &mut random);
    let (grouped, tagged) = (specs.len(), specs.len() + 1);
    let order: Vec<usize> = (0..ROUNDS).map(|_| random.below(specs.len() as u64 + 2) as usize).collect();
    let setup = Setup { transport, ranks: RANKS, algorithm: None, choice: Choice::default() };
    let meet = Arc::new(Barrier::new(RANKS as usize));
    on_threads(&setup, move |comm| {
        let rank = comm.rank() as usize;
        let calls: Vec<Collective> = specs
            .iter()
            .map(|&(call, dtype, count)| collective(call, dtype, count, RANKS, rank as u32))
            .collect();
        let mut memory: Vec<(Vec<u8>, Vec<u8>)> = specs
            .iter()
            .map(|&(call, dtype, count)| {
                let (input, output) = sizes(call, RANKS as usize, rank, count);
                (vec![1; input * dtype.size()], vec![0; output * dtype.size()])
            })
            .collect();
        let (mut own, mut around) = (vec![0_i32; 5000], vec![0_i32; 5000]);
        let mut run = |k: usize| {
            if k == grouped {
                return run_group(comm, &mut own, &mut around);
            }
            if k == tagged {
                return pass_on(comm, &own, &mut around);
            }
            let (input, output) = &mut memory[k];
            comm.run(&calls[k], input, output).expect("the call works");
        };
        (0..=tagged).for_each(&mut run);
        meet.wait();
        IS_COUNTING.store(true, Ordering::Relaxed);
        meet.wait();
        order.iter().copied().for_each(&mut run);
        meet.wait();
        IS_COUNTING.store(false, Ordering::Relaxed);
        meet.wait();
        ALLOCATIONS.load(Ordering::Relaxed)
    })
}
