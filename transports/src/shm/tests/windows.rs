//! Plans whose messages do not fit the rings: what the verifier refuses gets stuck here, and what it proves ends.

use super::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use ubccl_core::plan::{
    Action, Association, Binding, Buffer, Cursor, Extent, Index, Peers, Plan, PlanBuilder, Shape, Slice,
    Trips,
};
use ubccl_core::verify::{Mode, Violation, verify};
use ubccl_core::{Choice, Collective, Spec};

const SMALL_PAIR: u64 = 16 << 10;

/// Direct reduce-scatter: the sum of this rank's block, then a send of every other block to its rank.
fn reduce_scatter(rank: Rank, ranks: u32, block: u64, window: u32) -> Plan {
    let call = Collective::reduce_scatter(block, DataType::U8, ReduceOp::Sum);
    let spec = Spec::new(&call, ranks, rank, false, Choice::default());
    let mut plan = PlanBuilder::new(&spec, "by hand", Association::Flat);
    let input = |index| Shape::whole(Buffer::Input).even(ranks, index);
    plan.lane(window);
    plan.straight();
    let everybody = Peers::Run { first: Index::fixed(0), stride: 1, count: ranks };
    plan.receive_reduce(everybody, input(Index::fixed(rank as i32)), Shape::whole(Buffer::Output));
    plan.repeat(Trips::Fixed(ranks - 1), Trips::ONCE);
    let to = Index::on_circle(rank as i32 + 1, ranks).per_outer(1);
    plan.send(input(to), Peers::one(to));
    plan.finish()
}

/// One rank that runs a plan of one lane without edges.
struct Runner {
    plan: Plan,
    binding: Binding,
    cursor: Cursor,
    completed: u64,
    input: Span,
    output: Span,
}

impl Runner {
    fn new(plan: Plan, block: u64, input: Span, output: Span) -> Self {
        let mut binding = Binding::default();
        binding.bind(&plan, &plan.spec().collective(block));
        let cursor = binding.start(&plan, 0);
        Runner { plan, binding, cursor, completed: 0, input, output }
    }

    fn is_done(&self) -> bool {
        self.completed == self.binding.total(0)
    }

    /// The next post, if the window has room for it.
    fn next(&mut self) -> Option<(u64, Post)> {
        let position = self.cursor.position;
        if position - self.completed == u64::from(self.plan.lanes()[0].window) {
            return None;
        }
        let step = self.binding.current(&self.plan, 0, &self.cursor)?;
        let span = |slice: &Slice| match self.binding.extent(slice, step.at) {
            Extent::Input(offset, len) => Span { offset, len, ..self.input },
            Extent::Output(offset, len) => Span { offset, len, ..self.output },
            Extent::Scratch(..) => unreachable!("these plans need no scratch"),
        };
        let post = match step.action {
            Action::Send { from, to } => {
                Post::Send { from: span(from), to: to.at(self.binding.sizes(), step.at) }
            }
            Action::ReceiveReduce { sources, own, into } => {
                sum(sources.at(self.binding.sizes(), step.at), span(own), span(into))
            }
            other => unreachable!("these plans have no {other}"),
        };
        self.binding.advance(&self.plan, 0, &mut self.cursor);
        Some((position, post))
    }
}

/// Runs the plans until all have ended (`true`) or nothing moves any more. The rings are smaller than a block.
fn ends(ranks: u32, window: u32) -> bool {
    let mut rig = Rig::new(ranks as usize, 1, SMALL_PAIR);
    let (block, inputs) = inputs(&rig, ranks);
    let mut runners = Vec::new();
    for (rank, input) in inputs.iter().enumerate() {
        let (input, output) = (rig.area(rank, input), rig.area(rank, &vec![0xEE; block]));
        let plan = reduce_scatter(rank as Rank, ranks, block as u64, window);
        runners.push(Runner::new(plan, block as u64, input, output));
    }
    loop {
        let mut moved = false;
        for (rank, runner) in runners.iter_mut().enumerate() {
            while let Some((token, post)) = runner.next() {
                rig.post(rank, token, &key(1, 0), post).unwrap();
                moved = true;
            }
            moved |= rig.endpoints[rank].poll(&mut rig.done[rank]).unwrap();
            runner.completed += rig.done[rank].drain(..).count() as u64;
        }
        if runners.iter().all(Runner::is_done) {
            check(&rig, &runners, &inputs, block);
            return true;
        }
        if !moved {
            return false;
        }
    }
}

/// Bytes of a block, which no ring holds, and what each rank brings: so small that no sum overflows.
fn inputs(rig: &Rig, ranks: u32) -> (usize, Vec<Vec<u8>>) {
    let outgoing = &rig.endpoints[0].outgoing[rig.endpoints[0].channels];
    let block = 9 * outgoing.memory.slot_bytes() + 5;
    let input = |rank| pattern(rank, ranks as usize * block).iter().map(|byte| byte % 3).collect();
    (block, (0..u64::from(ranks)).map(input).collect())
}

fn check(rig: &Rig, runners: &[Runner], inputs: &[Vec<u8>], block: usize) {
    for (rank, runner) in runners.iter().enumerate() {
        let sum = |at: usize| inputs.iter().map(|input| input[rank * block + at]).sum::<u8>();
        let expected: Vec<u8> = (0..block).map(sum).collect();
        assert!(rig.bytes(rank, runner.output) == expected, "rank {rank} of {}: a wrong sum", inputs.len());
    }
}

fn proof(ranks: u32, window: u32) -> Result<(), Violation> {
    verify(&|rank| reduce_scatter(rank, ranks, 100, window), ranks, 100).map(drop)
}

#[test]
fn a_window_too_narrow_for_all_sends_gets_stuck_as_the_verifier_says() {
    let refusal = proof(9, 8).expect_err("one send of each rank is not under way");
    assert!(matches!(refusal, Violation::Deadlock { mode: Mode::Rendezvous, .. }), "{refusal}");
    assert!(!ends(9, 8));
    assert_eq!(proof(9, 9), Ok(()));
    assert!(ends(9, 9));
}

#[test]
fn more_sends_than_a_window_with_one_peer_are_under_way() {
    // Each rank keeps descriptors of all the others, here all in one process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap();
    let ranks = 66;
    assert_eq!(proof(ranks, ranks), Ok(()));
    assert!(proof(ranks, 64).is_err());
    assert!(ends(ranks, ranks));
}
