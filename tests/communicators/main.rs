//! Several communicators at once: split by colour and by list, duplicated, closed, and ended by deaths.

#[path = "../support/mod.rs"]
mod support;

mod deaths;
mod leaks;
mod refusals;
mod several;
mod splits;
mod virtual_time;

use support::processes::play;
use support::ranks::Setup;
use ubccl::{Choice, Communicator, ReduceOp};

/// Not a test by itself: the ranks of the others' jobs play their scenarios here.
#[test]
fn a_rank() {
    play(&[("splitter", deaths::splitter), ("starter", deaths::starter), ("hoarder", leaks::hoarder)]);
}

/// The transports with communicators.
fn real_transports() -> Vec<&'static str> {
    let is_real = |t: &&ubccl::TransportDescriptor| t.clock == ubccl::Clock::Real;
    ubccl::transports().filter(is_real).map(|t| t.name).collect()
}

/// Those whose ranks may be processes.
fn process_transports() -> Vec<&'static str> {
    let fits =
        |t: &&ubccl::TransportDescriptor| t.clock == ubccl::Clock::Real && t.reach > ubccl::Reach::Process;
    ubccl::transports().filter(fits).map(|t| t.name).collect()
}

fn setup(transport: &'static str, ranks: u32) -> Setup {
    Setup { transport, ranks, algorithm: None, choice: Choice::default() }
}

/// A collective of this communicator tells who is in it: the members' numbers in `names`, in order, and their sum.
/// Long enough for every algorithm if `is_long`.
fn check_members(comm: &Communicator, name: u64, expected: &[u64], is_long: bool) {
    assert_eq!((comm.ranks() as usize, expected[comm.rank() as usize]), (expected.len(), name));
    let count = if is_long { 50_000 } else { 1 };
    let mut names = vec![0_i32; count * expected.len()];
    comm.all_gather(&vec![name as i32; count], &mut names).expect("all members gather");
    let told: Vec<u64> = names.chunks_exact(count).map(|of_one| of_one[count - 1] as u64).collect();
    assert_eq!(told, expected);
    let mut sums = vec![0_i32; count];
    comm.all_reduce(&vec![name as i32; count], &mut sums, ReduceOp::Sum).expect("all members reduce");
    let sum: u64 = expected.iter().sum();
    assert!(sums.iter().all(|&found| found as u64 == sum), "{sums:?} is not {sum} everywhere");
}
