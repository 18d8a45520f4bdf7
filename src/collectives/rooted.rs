//! Collectives with a root: reduce, gather, scatter and their forms with tables.

use crate::communicator::Communicator;
use crate::reduction::Reduction;
use ubccl_core::{Blocks, Collective, Element, Rank, Result};

impl Communicator {
    /// Reduces everybody's `send` into `recv` on `root`.
    ///
    /// Shapes: send `[count]`; recv `[count]` on the root, not looked at elsewhere (it may be empty).
    ///         In place: `reduce_in_place`.
    /// Order:  every rank calls in the same order; blocks until recv may be read and send reused.
    /// Errors: InvalidArgument (nothing was sent); Mismatch, Timeout, Remote, Aborted: these poison the communicator.
    /// Source: ncclReduce, MPI_Reduce, HcclReduce.
    pub fn reduce<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        op: impl Into<Reduction>,
        root: Rank,
    ) -> Result<()> {
        let op = op.into();
        let call = Collective::reduce(send.len() as u64, T::DTYPE, op.op(), root);
        self.run_reducing(
            &call,
            op,
            bytemuck::cast_slice(send),
            bytemuck::cast_slice_mut(self.if_root(root, recv)),
        )
    }

    /// Reduces in place: on the root `buffer` (`[count]`) becomes the result, elsewhere it is only read.
    pub fn reduce_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        op: impl Into<Reduction>,
        root: Rank,
    ) -> Result<()> {
        let op = op.into();
        let call = Collective::reduce(buffer.len() as u64, T::DTYPE, op.op(), root);
        self.run_reducing_in_place(&call, op, bytemuck::cast_slice_mut(buffer))
    }

    /// Gathers everybody's `send` into `recv` on `root`, in rank order.
    ///
    /// Shapes: send `[count]`; recv `[ranks * count]` on the root, not looked at elsewhere. In place: `gather_in_place`.
    /// Order, errors: as [`Communicator::reduce`].
    /// Source: ncclGather, MPI_Gather.
    pub fn gather<T: Element>(&self, send: &[T], recv: &mut [T], root: Rank) -> Result<()> {
        let call = Collective::gather(send.len() as u64, T::DTYPE, root);
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(self.if_root(root, recv)))
    }

    /// Gathers in place: the root's own part already stands at `root * count` in its `buffer` (`[ranks * count]`);
    /// elsewhere `buffer` (`[count]`) is only read.
    pub fn gather_in_place<T: Element>(&self, buffer: &mut [T], root: Rank) -> Result<()> {
        let call = Collective::gather(self.share_of_root(root, buffer.len(), "gather")?, T::DTYPE, root);
        self.run_in_place(&call, bytemuck::cast_slice_mut(buffer))
    }

    /// Gives rank r block r of the root's `send` in `recv`.
    ///
    /// Shapes: send `[ranks * count]` on the root, not looked at elsewhere; recv `[count]`. In place:
    ///         `scatter_in_place`.
    /// Order, errors: as [`Communicator::reduce`].
    /// Source: ncclScatter, MPI_Scatter, HcclScatter.
    pub fn scatter<T: Element>(&self, send: &[T], recv: &mut [T], root: Rank) -> Result<()> {
        let call = Collective::scatter(recv.len() as u64, T::DTYPE, root);
        let send = if self.rank() == root { send } else { &[] };
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Scatters in place: the root's own part stays where it is in its `buffer` (`[ranks * count]`), which is only read;
    /// elsewhere `buffer` (`[count]`) is what comes.
    pub fn scatter_in_place<T: Element>(&self, buffer: &mut [T], root: Rank) -> Result<()> {
        let call = Collective::scatter(self.share_of_root(root, buffer.len(), "scatter")?, T::DTYPE, root);
        self.run_in_place(&call, bytemuck::cast_slice_mut(buffer))
    }

    /// Gathers blocks of different lengths on `root`.
    ///
    /// Shapes: send of any length; on the root `blocks` says how much comes from whom and where in recv it goes, and
    ///         recv reaches at least to the end of the last block; elsewhere blocks and recv are not looked at.
    /// Order, errors: as [`Communicator::reduce`]; what lies between the blocks is left as it was.
    /// Source: MPI_Gatherv.
    pub fn gather_v<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        blocks: Option<Blocks<'_>>,
        root: Rank,
    ) -> Result<()> {
        let blocks = blocks.filter(|_| self.rank() == root);
        let call = Collective::gather_v(send.len() as u64, T::DTYPE, root, blocks);
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(self.if_root(root, recv)))
    }

    /// Gathers blocks of different lengths in place: the root's own block already stands in its `buffer`, as `blocks`
    /// says; elsewhere `buffer` is what is sent, and is only read.
    pub fn gather_v_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        blocks: Option<Blocks<'_>>,
        root: Rank,
    ) -> Result<()> {
        let blocks = blocks.filter(|_| self.rank() == root);
        let own = self.own_count(buffer.len(), blocks);
        self.run_in_place(
            &Collective::gather_v(own, T::DTYPE, root, blocks),
            bytemuck::cast_slice_mut(buffer),
        )
    }

    /// Gives every rank its block of the root's `send`, of any length.
    ///
    /// Shapes: on the root `blocks` says how much goes to whom and where in send it lies; elsewhere blocks and send are
    ///         not looked at. recv is as long as this rank's block.
    /// Order, errors: as [`Communicator::reduce`].
    /// Source: MPI_Scatterv.
    pub fn scatter_v<T: Element>(
        &self,
        send: &[T],
        blocks: Option<Blocks<'_>>,
        recv: &mut [T],
        root: Rank,
    ) -> Result<()> {
        let blocks = blocks.filter(|_| self.rank() == root);
        let send = if self.rank() == root { send } else { &[] };
        let call = Collective::scatter_v(recv.len() as u64, T::DTYPE, root, blocks);
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Scatters blocks of different lengths in place: the root's own block stays where it is in its `buffer`; elsewhere
    /// `buffer` is what comes.
    pub fn scatter_v_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        blocks: Option<Blocks<'_>>,
        root: Rank,
    ) -> Result<()> {
        let blocks = blocks.filter(|_| self.rank() == root);
        let own = self.own_count(buffer.len(), blocks);
        self.run_in_place(
            &Collective::scatter_v(own, T::DTYPE, root, blocks),
            bytemuck::cast_slice_mut(buffer),
        )
    }

    /// What the root looks at and others need not have.
    fn if_root<'b, T>(&self, root: Rank, buffer: &'b mut [T]) -> &'b mut [T] {
        if self.rank() == root { buffer } else { &mut [] }
    }

    /// One rank's share of the one buffer of a gather or scatter in place.
    fn share_of_root(&self, root: Rank, elements: usize, what: &str) -> Result<u64> {
        if self.rank() == root { self.share(elements, what) } else { Ok(elements as u64) }
    }

    /// How long this rank's block is: as the root's table says, elsewhere all of the buffer.
    fn own_count(&self, elements: usize, blocks: Option<Blocks<'_>>) -> u64 {
        let listed = blocks.and_then(|blocks| blocks.counts.get(self.rank() as usize).copied());
        listed.unwrap_or(elements as u64)
    }
}
