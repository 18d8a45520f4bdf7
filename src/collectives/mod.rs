//! The collectives by name, on typed buffers: each states its shapes and runs through [`Communicator::run`].

mod exchanges;
mod rooted;

use crate::communicator::Communicator;
use crate::reduction::Reduction;
use crate::region::Buffer;
use crate::work::Work;
use ubccl_core::{Collective, Element, Error, Rank, ReduceOp, Result};

impl Communicator {
    /// All-reduces `send` into `recv` on every rank.
    ///
    /// Shapes: send `[count]`, recv `[count]`, same type everywhere. In place: `all_reduce_in_place`.
    /// Order:  every rank calls in the same order; blocks until recv may be read and send reused.
    /// Cost:   `ubccl plan all_reduce` shows the plan; `algorithm_for` names the algorithm.
    /// Errors: InvalidArgument (nothing was sent); Mismatch, Timeout, Remote, Aborted: these poison the communicator.
    /// Source: ncclAllReduce, MPI_Allreduce.
    pub fn all_reduce<T: Element>(&self, send: &[T], recv: &mut [T], op: impl Into<Reduction>) -> Result<()> {
        let op = op.into();
        let call = Collective::all_reduce(send.len() as u64, T::DTYPE, op.op());
        self.run_reducing(&call, op, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// All-reduces `buffer` in place on every rank. See [`Communicator::all_reduce`].
    pub fn all_reduce_in_place<T: Element>(&self, buffer: &mut [T], op: impl Into<Reduction>) -> Result<()> {
        let op = op.into();
        let call = Collective::all_reduce(buffer.len() as u64, T::DTYPE, op.op());
        self.run_reducing_in_place(&call, op, bytemuck::cast_slice_mut(buffer))
    }

    /// Gathers everybody's `send` into `recv` on every rank, in rank order.
    ///
    /// Shapes: send `[count]`, recv `[ranks * count]`. In place: `all_gather_in_place`.
    /// Order, errors: as [`Communicator::all_reduce`].
    /// Source: ncclAllGather, MPI_Allgather.
    pub fn all_gather<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result<()> {
        let call = Collective::all_gather(send.len() as u64, T::DTYPE);
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Gathers in place: this rank's part already stands at `rank * count` in `buffer` (`[ranks * count]`).
    pub fn all_gather_in_place<T: Element>(&self, buffer: &mut [T]) -> Result<()> {
        let call = Collective::all_gather(self.share(buffer.len(), "all_gather")?, T::DTYPE);
        self.run_in_place(&call, bytemuck::cast_slice_mut(buffer))
    }

    /// Reduces everybody's `send` and leaves block `rank` of the result in `recv`.
    ///
    /// Shapes: send `[ranks * count]`, recv `[count]`. In place: `reduce_scatter_in_place`.
    /// Order, errors: as [`Communicator::all_reduce`].
    /// Source: ncclReduceScatter, MPI_Reduce_scatter_block.
    pub fn reduce_scatter<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        op: impl Into<Reduction>,
    ) -> Result<()> {
        let op = op.into();
        let call = Collective::reduce_scatter(recv.len() as u64, T::DTYPE, op.op());
        self.run_reducing(&call, op, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Reduce-scatters in place: the result stands at `rank * count` in `buffer` (`[ranks * count]`); the rest of the
    /// buffer is left as it was.
    pub fn reduce_scatter_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        op: impl Into<Reduction>,
    ) -> Result<()> {
        let op = op.into();
        let call = Collective::reduce_scatter(self.share(buffer.len(), "reduce_scatter")?, T::DTYPE, op.op());
        self.run_reducing_in_place(&call, op, bytemuck::cast_slice_mut(buffer))
    }

    /// Gives every rank the root's `buffer`.
    ///
    /// Shapes: buffer `[count]`: read on the root, written elsewhere. Out of place: `broadcast_from`.
    /// Order, errors: as [`Communicator::all_reduce`].
    /// Source: ncclBroadcast in place, MPI_Bcast.
    pub fn broadcast<T: Element>(&self, buffer: &mut [T], root: Rank) -> Result<()> {
        let call = Collective::broadcast(buffer.len() as u64, T::DTYPE, root);
        self.run_in_place(&call, bytemuck::cast_slice_mut(buffer))
    }

    /// Gives every rank the root's `send` in `recv`; `send` is read on the root only and may be empty elsewhere.
    pub fn broadcast_from<T: Element>(&self, send: &[T], recv: &mut [T], root: Rank) -> Result<()> {
        let call = Collective::broadcast(recv.len() as u64, T::DTYPE, root);
        let send = if self.rank() == root { send } else { &[] };
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Returns when every rank has called it.
    ///
    /// Order, errors: as [`Communicator::all_reduce`].
    /// Source: MPI_Barrier, HcclBarrier.
    pub fn barrier(&self) -> Result<()> {
        self.run(&Collective::barrier(), &[], &mut [])
    }

    /// All-reduces without waiting: the buffers come back from [`Work::wait`].
    pub fn all_reduce_async<A: Buffer, B: Buffer<Element = A::Element>>(
        &self,
        send: A,
        recv: B,
        op: ReduceOp,
    ) -> Result<Work<(A, B)>> {
        let call = Collective::all_reduce(send.elements().len() as u64, A::Element::DTYPE, op);
        self.run_async(&call, send, recv)
    }

    /// All-reduces in place without waiting: the buffer comes back from [`Work::wait`].
    pub fn all_reduce_in_place_async<B: Buffer>(&self, buffer: B, op: ReduceOp) -> Result<Work<B>> {
        let call = Collective::all_reduce(buffer.elements().len() as u64, B::Element::DTYPE, op);
        self.run_in_place_async(&call, buffer)
    }

    /// Shares a buffer of `ranks * count` elements out.
    fn share(&self, elements: usize, what: &str) -> Result<u64> {
        let (elements, ranks) = (elements as u64, u64::from(self.ranks()));
        if elements.is_multiple_of(ranks) {
            return Ok(elements / ranks);
        }
        Err(Error::invalid(format!(
            "{what}: a buffer of {elements} elements does not divide among {ranks} ranks"
        )))
    }
}
