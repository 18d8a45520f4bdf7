//! Ranks of every transport of the index: threads with a communicator each in real time, a world in virtual time.

use super::memory::Guarded;
use super::oracle::{Call, RUBBISH};
use super::tables::tables;
use std::sync::mpsc;
use std::time::Duration;
use ubccl::sim::{RankMemory, World, WorldConfig};
use ubccl::{Blocks, Choice, Collective, Communicator, Config, DataType, Rendezvous};

/// Longer than anything takes; a test that hangs fails with this.
pub const WATCHDOG: Duration = Duration::from_secs(120);

/// How ranks are made.
#[derive(Clone, Debug)]
pub struct Setup {
    pub transport: &'static str,
    pub ranks: u32,
    pub algorithm: Option<&'static str>,
    pub choice: Choice,
}

impl Setup {
    /// Bytes of a chunk, unless the tuner chooses.
    fn chunk_bytes(&self) -> Option<u32> {
        let Choice { chunk_bytes, .. } = self.choice;
        (chunk_bytes != Choice::default().chunk_bytes).then_some(chunk_bytes)
    }
}

/// The call as one rank makes it.
pub fn collective(call: Call, dtype: DataType, count: usize, ranks: u32, rank: u32) -> Collective<'static> {
    let (n, me, count) = (ranks as usize, rank as usize, count as u64);
    match call {
        Call::AllReduce(op) => Collective::all_reduce(count, dtype, op),
        Call::AllGather => Collective::all_gather(count, dtype),
        Call::ReduceScatter(op) => Collective::reduce_scatter(count, dtype, op),
        Call::Broadcast { root } => Collective::broadcast(count, dtype, root as u32),
        Call::Barrier => Collective::barrier(),
        Call::Shift(shift) => {
            let shift = shift as u32 % ranks;
            Collective::send_receive(
                count,
                dtype,
                Some((rank + shift) % ranks),
                Some((rank + ranks - shift) % ranks),
            )
        }
        Call::Reduce { op, root } => Collective::reduce(count, dtype, op, root as u32),
        Call::Gather { root } => Collective::gather(count, dtype, root as u32),
        Call::Scatter { root } => Collective::scatter(count, dtype, root as u32),
        Call::AllToAll => Collective::all_to_all(count, dtype),
        Call::GatherV { root, seed } => {
            let t = tables(seed, n, count as usize);
            let blocks = (me == root).then(|| Blocks::at(&t.columns[root], &t.receive_starts[root]));
            Collective::gather_v(t.counts[me][root], dtype, root as u32, blocks)
        }
        Call::ScatterV { root, seed } => {
            let t = tables(seed, n, count as usize);
            let blocks = (me == root).then(|| Blocks::at(&t.counts[root], &t.send_starts[root]));
            Collective::scatter_v(t.counts[root][me], dtype, root as u32, blocks)
        }
        Call::AllGatherV { seed } => {
            let t = tables(seed, n, count as usize);
            Collective::all_gather_v(dtype, Blocks::at(&t.columns[0], &t.receive_starts[0]))
        }
        Call::ReduceScatterV { op, seed } => {
            Collective::reduce_scatter_v(dtype, op, &tables(seed, n, count as usize).columns[0])
        }
        Call::AllToAllV { seed } => {
            let t = tables(seed, n, count as usize);
            let send = Blocks::at(&t.counts[me], &t.send_starts[me]);
            Collective::all_to_all_v(dtype, send, Blocks::at(&t.columns[me], &t.receive_starts[me]))
        }
    }
}

/// Runs `body` on one thread for each rank with what came of its start, and gives the results in rank order.
/// `configure` changes the configurations of single ranks.
pub fn start_threads<T: Send + 'static>(
    setup: &Setup,
    configure: impl Fn(Config) -> Config,
    body: impl Fn(u32, Result<Communicator, ubccl::Error>) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let rendezvous = Rendezvous::create().expect("a rendezvous on loopback");
    let text = rendezvous.text();
    let mut first = Some(rendezvous);
    let (sender, receiver) = mpsc::channel();
    for rank in 0..setup.ranks {
        let rendezvous = first.take().unwrap_or_else(|| text.parse().expect("its own text parses"));
        let config = Config {
            rendezvous: Some(rendezvous),
            rank,
            ranks: setup.ranks,
            transport: setup.transport.into(),
            algorithm: setup.algorithm.map(Into::into),
            lanes: setup.choice.lanes,
            chunk_bytes: setup.chunk_bytes(),
            operation_timeout: WATCHDOG / 2,
            start_timeout: WATCHDOG / 2,
            ..Config::default()
        };
        let (sender, body, config) = (sender.clone(), body.clone(), configure(config));
        let run = move || {
            let result = body(rank, Communicator::init(config));
            sender.send((rank, result)).expect("the test is listening");
        };
        std::thread::Builder::new().name(format!("rank {rank}")).spawn(run).expect("a thread");
    }
    drop(sender);
    let mut results: Vec<_> = (0..setup.ranks).map(|_| None).collect();
    for _ in 0..setup.ranks {
        let (rank, result) = receiver.recv_timeout(WATCHDOG).unwrap_or_else(|error| {
            panic!("{setup:?}: a rank died or the watchdog barked: {error}");
        });
        results[rank as usize] = Some(result);
    }
    results.into_iter().map(|result| result.expect("every rank answered once")).collect()
}

/// Runs `body` on one thread for each rank, with a communicator each, and gives the results in rank order.
pub fn on_threads<T: Send + 'static>(
    setup: &Setup,
    body: impl Fn(&Communicator) -> T + Clone + Send + 'static,
) -> Vec<T> {
    on_threads_as(setup, |config| config, body)
}

/// The same; `configure` changes the configurations.
pub fn on_threads_as<T: Send + 'static>(
    setup: &Setup,
    configure: impl Fn(Config) -> Config,
    body: impl Fn(&Communicator) -> T + Clone + Send + 'static,
) -> Vec<T> {
    let run = move |_rank, comm: Result<Communicator, ubccl::Error>| {
        let comm = comm.expect("all ranks come");
        let result = body(&comm);
        (result, comm.close())
    };
    let results = start_threads(setup, configure, run).into_iter().enumerate();
    let closed = |(rank, (result, closed)): (usize, (T, Result<(), ubccl::Error>))| {
        closed.unwrap_or_else(|error| panic!("{setup:?}: rank {rank} did not close: {error}"));
        result
    };
    results.map(closed).collect()
}

/// Where ranks stand, and what they wish.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// As a configuration has it.
    pub layout: Option<&'static str>,
    /// What a simulated machine is.
    pub fabric: &'static str,
    pub reproducible: bool,
}

/// Nowhere in particular.
pub const ANYWHERE: Standing = Standing {
    layout: None,
    fabric: "custom:latency_ps=1000000,bytes_per_s=1000000000",
    reproducible: false,
};

/// One call with data: what it needs and what it gave.
#[derive(Clone, Debug)]
pub struct Case {
    pub call: Call,
    pub dtype: DataType,
    pub count: usize,
    pub in_place: bool,
    pub inputs: Vec<Vec<u8>>,
    pub skew: usize,
}

/// Runs the cases on every rank, in order; answers each rank's outputs, case by case. Checks guard bytes, and that an
/// input out of place is unchanged.
pub fn run(setup: &Setup, cases: &[Case]) -> Vec<Vec<Vec<u8>>> {
    run_at(&ANYWHERE, setup, cases)
}

/// The same, of ranks that stand so.
pub fn run_at(standing: &Standing, setup: &Setup, cases: &[Case]) -> Vec<Vec<Vec<u8>>> {
    let descriptor =
        ubccl::transports().find(|t| t.name == setup.transport).expect("a transport of the index");
    if descriptor.clock == ubccl::Clock::Virtual {
        return run_virtual(standing, setup, cases);
    }
    let cases = cases.to_vec();
    let (ranks, Standing { layout, reproducible, .. }) = (setup.ranks, *standing);
    let configure = |config| Config { layout: layout.map(Into::into), reproducible, ..config };
    on_threads_as(setup, configure, move |comm| cases.iter().map(|case| run_one(comm, case, ranks)).collect())
}

fn run_one(comm: &Communicator, case: &Case, ranks: u32) -> Vec<u8> {
    let rank = comm.rank();
    let call = collective(case.call, case.dtype, case.count, ranks, rank);
    let size = case.dtype.size();
    let input = &case.inputs[rank as usize];
    let output_bytes = call.output_elements(ranks, rank) as usize * size;
    if case.in_place {
        let mut buffer = Guarded::new(&joint(&call, ranks, rank, size, input), case.skew);
        comm.run_in_place(&call, buffer.get_mut()).unwrap_or_else(|error| panic!("{call} in place: {error}"));
        buffer.check(&format!("{call} in place on rank {rank}"));
        let from = call.in_place_offsets(rank).1 as usize * size;
        return buffer.get()[from..][..output_bytes].to_vec();
    }
    let source = Guarded::new(input, case.skew);
    let mut output = Guarded::new(&vec![RUBBISH; output_bytes], case.skew);
    comm.run(&call, source.get(), output.get_mut()).unwrap_or_else(|error| panic!("{call}: {error}"));
    source.check(&format!("{call} input on rank {rank}"));
    output.check(&format!("{call} output on rank {rank}"));
    assert_eq!(source.get(), &input[..], "{call}: rank {rank}'s input was changed");
    output.get().to_vec()
}

fn run_virtual(standing: &Standing, setup: &Setup, cases: &[Case]) -> Vec<Vec<Vec<u8>>> {
    let config = WorldConfig {
        transport: setup.transport.into(),
        fabric: standing.fabric.into(),
        layout: standing.layout.map(Into::into),
        reproducible: standing.reproducible,
        ranks: setup.ranks,
        algorithm: setup.algorithm.map(Into::into),
        lanes: setup.choice.lanes,
        chunk_bytes: setup.chunk_bytes(),
        seed: 1,
        ..WorldConfig::default()
    };
    let mut world = World::new(config).expect("a world");
    let mut results = vec![Vec::new(); setup.ranks as usize];
    for case in cases {
        let calls = |rank| collective(case.call, case.dtype, case.count, setup.ranks, rank);
        let size = case.dtype.size();
        let mut memory: Vec<RankMemory> = (0..setup.ranks)
            .map(|rank| {
                let (call, input) = (calls(rank), &case.inputs[rank as usize]);
                let output = vec![RUBBISH; call.output_elements(setup.ranks, rank) as usize * size];
                match case.in_place {
                    true => RankMemory::InPlace(joint(&call, setup.ranks, rank, size, input)),
                    false => RankMemory::Apart { input: input.clone(), output },
                }
            })
            .collect();
        world.run_real(&calls, &mut memory).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        for (rank, memory) in memory.into_iter().enumerate() {
            let call = calls(rank as u32);
            let bytes = call.output_elements(setup.ranks, rank as u32) as usize * size;
            results[rank].push(match memory {
                RankMemory::InPlace(buffer) => {
                    let from = call.in_place_offsets(rank as u32).1 as usize * size;
                    buffer[from..][..bytes].to_vec()
                }
                RankMemory::Apart { input, output } => {
                    assert_eq!(input, case.inputs[rank], "{call}: rank {rank}'s input was changed");
                    output
                }
            });
        }
    }
    results
}

/// The one buffer of an in-place call before it: the input in its place, rubbish elsewhere.
pub fn joint(call: &Collective<'_>, ranks: u32, rank: u32, size: usize, input: &[u8]) -> Vec<u8> {
    let mut buffer = vec![RUBBISH; call.in_place_elements(ranks, rank) as usize * size];
    let from = call.in_place_offsets(rank).0 as usize * size;
    if !input.is_empty() {
        buffer[from..][..input.len()].copy_from_slice(input);
    }
    buffer
}
