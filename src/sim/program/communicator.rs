//! A communicator as the program of one simulated rank has it.

use super::buffer::Buffer;
use super::inside::{Inside, Issue};
use super::work::{Compute, Work};
use crate::communicator::{check_in_place, check_own, check_size};
use crate::engine::{Buffers, Taken};
use crate::sim::check::phantom_buffers;
use crate::split::{CARD_BYTES, Card, Wish};
use std::time::Duration;
use ubccl_core::endpoint::{CommunicatorId, Place};
use ubccl_core::{Cause, Collective, Culprit, DataType, Error, ErrorKind, Rank, Result};

/// A communicator of a simulated world, as one of its ranks has it. Its calls are those of
/// [`ubccl::Communicator`](crate::Communicator), in virtual time:
///
/// - A call issues its operation at once and gives a [`Work`]; awaiting that gives the buffers back. What a rank does
///   between the two overlaps with the operation.
/// - Calls take the buffers that they need for as long as they run, and give back what they wrote.
/// - Every rank makes the same collective calls on a communicator in the same order.
/// - Virtual time passes only while a program awaits: operations, and [`Communicator::compute`].
///
/// **When something goes wrong**, one cause ends the communicator on every rank, as in real time: what is under way
/// and every later call fails with it.
#[derive(Clone, Copy, Debug)]
pub struct Communicator<'p> {
    pub(super) inside: &'p Inside,
    id: CommunicatorId,
    rank: Rank,
    ranks: u32,
    world_rank: Rank,
}

impl<'p> Communicator<'p> {
    /// The communicator of all ranks, as this one has it.
    pub(super) fn of_world(inside: &'p Inside, rank: Rank, ranks: u32) -> Self {
        Communicator { inside, id: CommunicatorId::WORLD, rank, ranks, world_rank: rank }
    }

    /// This rank.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// How many ranks.
    pub fn ranks(&self) -> u32 {
        self.ranks
    }

    /// This rank's number in the communicator of all.
    pub fn world_rank(&self) -> Rank {
        self.world_rank
    }

    /// Which communicator of the world it is.
    pub fn id(&self) -> CommunicatorId {
        self.id
    }

    /// Virtual time since the world began, without what is shorter than a nanosecond.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.now_ps() / 1000)
    }

    /// The same in picoseconds.
    pub fn now_ps(&self) -> u64 {
        self.inside.now_ps()
    }

    /// Lets this much virtual time pass from now on, as if the rank computed. What was issued before moves on
    /// meanwhile. Several at once pass side by side, and they do not slow the copies and reductions of operations.
    pub fn compute(&self, duration: Duration) -> Compute<'p> {
        self.compute_ps(u64::try_from(duration.as_nanos().saturating_mul(1000)).unwrap_or(u64::MAX))
    }

    /// The same in picoseconds.
    pub fn compute_ps(&self, duration_ps: u64) -> Compute<'p> {
        Compute::new(self.inside, self.world_rank, duration_ps)
    }

    /// Any collective: what the named calls do. Gives back input and output.
    ///
    /// Shapes: as the call's kind says; elements of the call's type.
    /// Errors: InvalidArgument, Unsupported: nothing was sent; Mismatch, Timeout, Remote, Aborted: these poison the
    ///         communicator.
    pub fn run<B: Buffer>(&self, call: &Collective<'_>, input: B, output: B) -> Work<'p, (B, B)> {
        Work::new(self.inside, self.issue_apart(call, input, output), both)
    }

    /// Any collective in place, by [`Collective::in_place_offsets`]. See [`Communicator::run`].
    pub fn run_in_place<B: Buffer>(&self, call: &Collective<'_>, buffer: B) -> Work<'p, B> {
        Work::new(self.inside, self.issue_in_place(call, buffer), one)
    }

    /// The same, giving something else back.
    pub(super) fn run_to<B: Buffer, R>(
        &self,
        call: &Collective<'_>,
        (input, output): (B, B),
        open: fn(Taken) -> R,
    ) -> Work<'p, R> {
        Work::new(self.inside, self.issue_apart(call, input, output), open)
    }

    /// Any collective on a new output, which is given back alone.
    pub(super) fn run_into<B: Buffer>(&self, call: Result<Collective<'_>>, input: B) -> Work<'p, B> {
        let issued = call.and_then(|call| {
            call.check(self.ranks, self.rank)?;
            let output = B::blank(call.output_elements(self.ranks, self.rank) as usize);
            self.issue_apart(&call, input, output)
        });
        Work::new(self.inside, issued, second)
    }

    /// The same in place, if there is such a call.
    pub(super) fn run_joint<B: Buffer>(&self, call: Result<Collective<'_>>, buffer: B) -> Work<'p, B> {
        Work::new(self.inside, call.and_then(|call| self.issue_in_place(&call, buffer)), one)
    }

    /// Splits as [`ubccl::Communicator::split`](crate::Communicator::split) does, and costs what an all-gather of a few
    /// bytes costs.
    ///
    /// Errors: as there; this communicator can still be used after InvalidArgument.
    pub async fn split(&self, colour: Option<u32>, key: i64) -> Result<Option<Communicator<'p>>> {
        self.split_by(Wish::Colour { colour, key }).await
    }

    /// Makes a communicator of these ranks, in this order. All ranks of this one call it with the same list; those not
    /// in it get `None`. See [`Communicator::split`].
    pub async fn split_ranks(&self, ranks: &[Rank]) -> Result<Option<Communicator<'p>>> {
        self.split_by(Wish::List(ranks)).await
    }

    /// Makes another communicator of all ranks, with the same numbers. See [`Communicator::split`].
    pub async fn duplicate(&self) -> Result<Communicator<'p>> {
        let duplicate = self.split_by(Wish::Duplicate).await?;
        Ok(duplicate.expect("every rank is in the group of a duplicate"))
    }

    /// Ends the communicator on every rank: operations under way or issued later fail with this cause.
    pub fn abort(&self, why: &str) {
        let culprit = Culprit { rank: self.rank, host: String::new(), pid: 0 };
        let message = format!("it called abort: {why}");
        let cause =
            Cause { kind: ErrorKind::Aborted, culprit, operation: String::new(), sequence: 0, message };
        let world = &mut self.inside.state.borrow_mut().world;
        world.communicators[self.id.0 as usize].poison(Error::from(cause));
    }

    /// The first cause, if the communicator is poisoned.
    pub fn async_error(&self) -> Option<Error> {
        self.inside.state.borrow().world.communicators[self.id.0 as usize].poisoned.clone()
    }

    async fn split_by(&self, wish: Wish<'_>) -> Result<Option<Communicator<'p>>> {
        // A rank whose own arguments are wrong takes part all the same, so that the others need not wait for it.
        let problem = wish.check(self.ranks);
        let mine = Card::new(&wish, problem.is_ok(), None).encode().to_vec();
        let call = Collective::all_gather(CARD_BYTES as u64, DataType::U8);
        let all = vec![0_u8; CARD_BYTES * self.ranks as usize];
        let (split, issued) = self.issue_own(&call, mine, all);
        let (_, all) = Work::new(self.inside, issued, both::<Vec<u8>>).await?;
        problem?;
        let group = wish.group(&Card::decode_all(&all)?, self.rank)?;
        let Some(place) = group.iter().position(|&rank| rank == self.rank) else { return Ok(None) };
        let id = self.inside.child(self.id, split, &group)?;
        let ranks = group.len() as u32;
        Ok(Some(Communicator { id, rank: place as Rank, ranks, ..*self }))
    }

    pub(super) fn place(&self) -> Place {
        Place { communicator: self.id, rank: self.rank }
    }

    fn issue_apart<B: Buffer>(&self, call: &Collective<'_>, mut input: B, mut output: B) -> Result<u64> {
        self.check::<B>(call)?;
        let size = B::DTYPE.size();
        let (needs, gives) =
            (call.input_elements(self.ranks, self.rank), call.output_elements(self.ranks, self.rank));
        check_size(call, "input", input.elements() * size, needs)?;
        check_size(call, "output", output.elements() * size, gives)?;
        let buffers = match (input.memory(), output.memory()) {
            (Some(input), Some(output)) => Buffers::Apart { input, output },
            _ => phantom_buffers(call, self.ranks, self.rank, false),
        };
        let issue = Issue { call, buffers, owned: Box::new((input, output)), is_own: false };
        self.inside.issue(self.place(), issue)
    }

    fn issue_in_place<B: Buffer>(&self, call: &Collective<'_>, mut buffer: B) -> Result<u64> {
        self.check::<B>(call)?;
        check_in_place(call)?;
        let needs = call.in_place_elements(self.ranks, self.rank);
        check_size(call, "buffer", buffer.elements() * B::DTYPE.size(), needs)?;
        let buffers = match buffer.memory() {
            Some(memory) => Buffers::InPlace(memory),
            None => phantom_buffers(call, self.ranks, self.rank, true),
        };
        let issue = Issue { call, buffers, owned: Box::new(buffer), is_own: false };
        self.inside.issue(self.place(), issue)
    }

    /// A call of the library itself; which of this rank's collectives it is.
    fn issue_own(
        &self,
        call: &Collective<'_>,
        mut input: Vec<u8>,
        mut output: Vec<u8>,
    ) -> (u64, Result<u64>) {
        let memory = super::buffer::real;
        let buffers = Buffers::Apart { input: memory(&mut input), output: memory(&mut output) };
        let issue = Issue { call, buffers, owned: Box::new((input, output)), is_own: true };
        let issued = self.inside.issue(self.place(), issue);
        let engines = &self.inside.state.borrow().world.communicators[self.id.0 as usize].engines;
        (engines[self.rank as usize].sequence(), issued)
    }

    fn check<B: Buffer>(&self, call: &Collective<'_>) -> Result<()> {
        if call.dtype() != B::DTYPE && call.input_elements(self.ranks, self.rank) > 0 {
            return Err(Error::invalid(format!("{call}: the buffers hold {}", B::DTYPE.name())));
        }
        call.check(self.ranks, self.rank)?;
        check_own(call, self.rank)
    }
}

pub(super) fn both<B: Buffer>(taken: Taken) -> (B, B) {
    let owned = taken.owned.expect("a simulated operation owns its buffers");
    *owned.downcast().expect("the buffers have the type they were issued with")
}

fn second<B: Buffer>(taken: Taken) -> B {
    both(taken).1
}

pub(super) fn one<B: Buffer>(taken: Taken) -> B {
    let owned = taken.owned.expect("a simulated operation owns its buffer");
    *owned.downcast().expect("the buffer has the type it was issued with")
}
