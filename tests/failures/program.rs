//! Programs: what each rank calls, in order, and what must come of it if the ranks do not call the same.

use crate::support::Random;
use crate::support::oracle::{Call, RUBBISH, exact_data, outputs_over, sizes};
use crate::support::ranks::{Setup, collective, start_threads};
use crate::virtual_transports;
use ubccl::sim::{RankMemory, World, WorldConfig};
use ubccl::{Collective, Communicator, DataType, Error, ErrorKind, Kind};

/// One call of one rank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) call: Call,
    pub(crate) dtype: DataType,
    pub(crate) count: usize,
    pub(crate) in_place: bool,
}

pub(crate) fn step(call: Call, dtype: DataType, count: usize) -> Step {
    Step { call, dtype, count, in_place: false }
}

pub(crate) const BARRIER: Step = Step { call: Call::Barrier, dtype: DataType::U8, count: 0, in_place: false };

impl Step {
    pub(crate) fn collective(&self, ranks: u32, rank: u32) -> Collective<'static> {
        collective(self.call, self.dtype, self.count, ranks, rank)
    }

    /// How an error tells it.
    fn told(&self, ranks: u32, rank: u32) -> String {
        self.collective(ranks, rank).signature(0).describe()
    }

    /// What a rank brings: it depends on the rank (and on whether it multiplies), so that ranks that call differently
    /// bring parts of the same.
    fn input(&self, ranks: u32, rank: u32) -> Vec<u8> {
        let elements = sizes(self.call, ranks as usize, rank as usize, self.count).0;
        exact_data(self.call, self.dtype, elements, &mut Random(u64::from(rank) + 1))
    }

    /// What the call must give if everybody had called the same.
    fn expected(&self, ranks: u32, rank: u32) -> Vec<u8> {
        let inputs: Vec<Vec<u8>> = (0..ranks).map(|rank| self.input(ranks, rank)).collect();
        outputs_over(self.call, self.dtype, &inputs, self.count, self.in_place).swap_remove(rank as usize)
    }

    /// The one buffer of an in-place call.
    fn joint(&self, ranks: u32, rank: u32) -> Vec<u8> {
        let (call, size) = (self.collective(ranks, rank), self.dtype.size());
        let mut buffer = vec![RUBBISH; call.in_place_elements(ranks, rank) as usize * size];
        let input = self.input(ranks, rank);
        buffer[call.in_place_offsets(rank).0 as usize * size..][..input.len()].copy_from_slice(&input);
        buffer
    }

    fn run(&self, comm: &Communicator) -> Result<Vec<u8>, Error> {
        let (ranks, rank, size) = (comm.ranks(), comm.rank(), self.dtype.size());
        let call = self.collective(ranks, rank);
        let bytes = call.output_elements(ranks, rank) as usize * size;
        if self.in_place {
            let mut buffer = self.joint(ranks, rank);
            comm.run_in_place(&call, &mut buffer)?;
            return Ok(buffer[call.in_place_offsets(rank).1 as usize * size..][..bytes].to_vec());
        }
        let mut output = vec![RUBBISH; bytes];
        comm.run(&call, &self.input(ranks, rank), &mut output)?;
        Ok(output)
    }
}

/// What every rank calls.
pub(crate) type Program = Vec<Vec<Step>>;

/// Runs a program, closes, and answers the first error of each rank. A call that works gives the right bytes.
pub(crate) fn run(setup: &Setup, program: &Program) -> Vec<Option<Error>> {
    if virtual_transports().contains(&setup.transport) {
        let error = run_virtual(setup, program).err();
        return vec![error; setup.ranks as usize];
    }
    let steps = program.clone();
    start_threads(
        setup,
        |config| config,
        move |rank, comm| {
            let comm = comm.expect("all ranks come");
            for step in &steps[rank as usize] {
                match step.run(&comm) {
                    Ok(bytes) => {
                        assert!(
                            bytes == step.expected(comm.ranks(), rank),
                            "rank {rank}: wrong bytes from {step:?}"
                        );
                    }
                    Err(error) => return Some(check_poisoned(comm, step, error)),
                }
            }
            comm.close().err()
        },
    )
}

/// After an error every call gives the same cause, promptly.
fn check_poisoned(comm: Communicator, step: &Step, error: Error) -> Error {
    assert!(error.cause().is_some(), "{step:?} fails without a cause: {error}");
    let again = step.run(&comm).expect_err("a poisoned communicator stays so");
    assert_eq!(again.cause(), error.cause());
    let closed = comm.close().expect_err("a poisoned communicator has no good end");
    assert_eq!(closed.cause(), error.cause());
    error
}

#[allow(clippy::needless_range_loop, reason = "a step's place, the same in every rank's program")]
fn run_virtual(setup: &Setup, program: &Program) -> Result<(), Error> {
    let ranks = setup.ranks;
    let mut world = world(setup);
    // A world runs one call of every rank at a time.
    let rounds = (0..program[0].len()).map(|at| program.iter().map(|steps| steps[at]).collect::<Vec<Step>>());
    for round in rounds {
        let step = |rank: u32| round[rank as usize];
        let memory = |rank: u32| match step(rank).in_place {
            true => RankMemory::InPlace(step(rank).joint(ranks, rank)),
            false => {
                let call = step(rank).collective(ranks, rank);
                let bytes = call.output_elements(ranks, rank) as usize * step(rank).dtype.size();
                RankMemory::Apart { input: step(rank).input(ranks, rank), output: vec![RUBBISH; bytes] }
            }
        };
        let mut memory: Vec<RankMemory> = (0..ranks).map(memory).collect();
        let calls = |rank| step(rank).collective(ranks, rank);
        if let Err(error) = world.run_real(&calls, &mut memory) {
            let again = world.run_real(&calls, &mut memory).expect_err("a poisoned world stays so");
            assert_eq!(again.cause(), error.cause());
            return Err(error);
        }
        for (rank, memory) in (0..).zip(&memory) {
            let RankMemory::Apart { output, .. } = memory else { continue };
            assert!(
                *output == step(rank).expected(ranks, rank),
                "rank {rank}: wrong bytes from {:?}",
                step(rank)
            );
        }
    }
    world.close()
}

pub(crate) fn world(setup: &Setup) -> World {
    World::new(WorldConfig {
        transport: setup.transport.into(),
        fabric: "custom:latency_ps=1000000,bytes_per_s=1000000000".into(),
        ranks: setup.ranks,
        algorithm: setup.algorithm.map(Into::into),
        lanes: 1,
        seed: 1,
        ..WorldConfig::default()
    })
    .expect("a world")
}

/// Checks that all ranks got one and the same mismatch, which names two ranks with what each called as the same
/// operation.
pub(crate) fn check_named(setup: &Setup, program: &Program, errors: &[Option<Error>]) {
    let told = |rank: usize| {
        let error = errors[rank].as_ref();
        error.unwrap_or_else(|| panic!("{setup:?}: rank {rank} got no error from {program:?}"))
    };
    for rank in 0..errors.len() {
        assert_eq!(
            told(rank).cause(),
            told(0).cause(),
            "{setup:?}: rank {rank} has another cause in {program:?}"
        );
    }
    let error = told(0);
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{setup:?}: {error}, in {program:?}");
    let named = named_calls(program, &error.to_string());
    let [(first, call), (second, other)] = &named[..] else {
        panic!("{setup:?}: not two ranks and their calls in: {error}; {program:?}");
    };
    // Ranks whose tables differ called the same.
    let has_tables = error.to_string().contains("table says");
    assert!(first != second && (call != other || has_tables), "{setup:?}: {error}");
    let of = |told: &str| told.rsplit_once(" as its ").map(|(_, number)| number.to_owned());
    if let (Some(one), Some(two)) = (of(call), of(other)) {
        assert_eq!(one, two, "{setup:?}: calls of different places are compared: {error}");
    }
}

/// The ranks that a message names together with a call that they really made.
#[allow(clippy::needless_range_loop, reason = "the index is the rank")]
fn named_calls(program: &Program, message: &str) -> Vec<(usize, String)> {
    let ranks = program.len() as u32;
    let mut named = Vec::new();
    for (rank, steps) in program.iter().enumerate() {
        let mut sequence = 0;
        let numbered = steps.iter().map(|step| {
            let told = step.told(ranks, rank as u32);
            if step.collective(ranks, rank as u32).kind() == Kind::SendReceive {
                return told;
            }
            sequence += 1;
            format!("{told} as its operation {sequence}")
        });
        let is_told = |call: &&String| {
            let text = format!("rank {rank} called {call}");
            // Not the beginning of another number.
            message
                .match_indices(&text)
                .any(|(at, _)| !message[at + text.len()..].starts_with(|c: char| c.is_ascii_digit()))
        };
        let calls: Vec<String> = numbered.chain(["close".to_owned()]).collect();
        named.extend(calls.iter().find(is_told).map(|call| (rank, call.clone())));
    }
    named
}
