//! All-to-all, and the collectives in which every rank's length may differ.

use crate::communicator::Communicator;
use crate::reduction::Reduction;
use ubccl_core::{Blocks, Collective, Element, Result};

impl Communicator {
    /// Gives rank r block r of everybody's `send`, in rank order in `recv`.
    ///
    /// Shapes: send and recv `[ranks * count]`. In place: `all_to_all_in_place`.
    /// Order:  every rank calls in the same order; blocks until recv may be read and send reused.
    /// Errors: InvalidArgument (nothing was sent); Mismatch, Timeout, Remote, Aborted: these poison the communicator.
    /// Source: ncclAlltoAll, MPI_Alltoall, HcclAlltoAll.
    pub fn all_to_all<T: Element>(&self, send: &[T], recv: &mut [T]) -> Result<()> {
        let call = Collective::all_to_all(self.share(send.len(), "all_to_all")?, T::DTYPE);
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Exchanges in place: block r of `buffer` (`[ranks * count]`) goes to rank r, and what comes from r takes its
    /// place.
    pub fn all_to_all_in_place<T: Element>(&self, buffer: &mut [T]) -> Result<()> {
        let call = Collective::all_to_all(self.share(buffer.len(), "all_to_all")?, T::DTYPE);
        self.run_in_place(&call, bytemuck::cast_slice_mut(buffer))
    }

    /// Exchanges blocks of any length.
    ///
    /// Shapes: `send_blocks` says how much of send goes to whom and where it lies, `recv_blocks` how much comes from
    ///         whom and where in recv it goes; what one rank sends another is as long as the other expects. The buffers
    ///         reach at least to the end of their last blocks. Blocks that are sent may overlap.
    /// Order, errors: as [`Communicator::all_to_all`]; InvalidArgument if receive blocks overlap; Mismatch, naming two
    ///         ranks and both lengths, if they differ. What lies between the blocks is left as it was.
    /// Source: MPI_Alltoallv, HcclAlltoAllV.
    pub fn all_to_all_v<T: Element>(
        &self,
        send: &[T],
        send_blocks: Blocks<'_>,
        recv: &mut [T],
        recv_blocks: Blocks<'_>,
    ) -> Result<()> {
        let call = Collective::all_to_all_v(T::DTYPE, send_blocks, recv_blocks);
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Exchanges blocks of any length in place: what comes from a rank takes the place of what goes to it, and is as
    /// long.
    pub fn all_to_all_v_in_place<T: Element>(&self, buffer: &mut [T], blocks: Blocks<'_>) -> Result<()> {
        let call = Collective::all_to_all_v(T::DTYPE, blocks, blocks);
        self.run_in_place(&call, bytemuck::cast_slice_mut(buffer))
    }

    /// Gathers blocks of different lengths on every rank.
    ///
    /// Shapes: `blocks` says how much comes from whom, the same on every rank, and where in this rank's recv it goes;
    ///         send is as long as this rank's block. In place: `all_gather_v_in_place`.
    /// Order, errors: as [`Communicator::all_to_all_v`].
    /// Source: MPI_Allgatherv, HcclAllGatherV.
    pub fn all_gather_v<T: Element>(&self, send: &[T], recv: &mut [T], blocks: Blocks<'_>) -> Result<()> {
        let call = Collective::all_gather_v(T::DTYPE, blocks);
        self.run(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Gathers in place: this rank's block already stands in `buffer`, as `blocks` says.
    pub fn all_gather_v_in_place<T: Element>(&self, buffer: &mut [T], blocks: Blocks<'_>) -> Result<()> {
        self.run_in_place(&Collective::all_gather_v(T::DTYPE, blocks), bytemuck::cast_slice_mut(buffer))
    }

    /// Reduces everybody's `send` and leaves `counts[r]` elements of the result on rank r, in rank order.
    ///
    /// Shapes: send as long as all counts together, recv `[counts[rank]]`; every rank gives the same counts. In place:
    ///         `reduce_scatter_v_in_place`.
    /// Order, errors: as [`Communicator::all_to_all`].
    /// Source: MPI_Reduce_scatter, HcclReduceScatterV.
    pub fn reduce_scatter_v<T: Element>(
        &self,
        send: &[T],
        recv: &mut [T],
        counts: &[u64],
        op: impl Into<Reduction>,
    ) -> Result<()> {
        let op = op.into();
        let call = Collective::reduce_scatter_v(T::DTYPE, op.op(), counts);
        self.run_reducing(&call, op, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// Reduce-scatters in place: the result stands where this rank's block of `buffer` was; the rest is left as it was.
    pub fn reduce_scatter_v_in_place<T: Element>(
        &self,
        buffer: &mut [T],
        counts: &[u64],
        op: impl Into<Reduction>,
    ) -> Result<()> {
        let op = op.into();
        let call = Collective::reduce_scatter_v(T::DTYPE, op.op(), counts);
        self.run_reducing_in_place(&call, op, bytemuck::cast_slice_mut(buffer))
    }
}
