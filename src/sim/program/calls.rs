//! The calls of a simulated rank by name.

use super::buffer::Buffer;
use super::communicator::{Communicator, both, one};
use super::work::Work;
use crate::communicator::host_mut;
use crate::engine::{TaggedCall, TaggedKind, Taken};
use ubccl_core::{Blocks, Collective, Element, Error, Rank, ReduceOp, Result};

/// Collectives. Each awaits to what it wrote; `_in_place` forms take and give one buffer, as there.
///
/// Units:  counts in elements.
/// Errors: InvalidArgument (nothing was sent); Mismatch, Timeout, Remote, Aborted: these poison the communicator.
impl<'p> Communicator<'p> {
    /// All-reduces `send`.
    ///
    /// Shapes: send `[count]`, gives `[count]`.
    /// Source: ncclAllReduce, MPI_Allreduce.
    pub fn all_reduce<B: Buffer>(&self, send: B, op: ReduceOp) -> Work<'p, B> {
        self.run_into(Ok(Collective::all_reduce(len(&send), B::DTYPE, op)), send)
    }

    /// All-reduces `buffer` (`[count]`) in place.
    pub fn all_reduce_in_place<B: Buffer>(&self, buffer: B, op: ReduceOp) -> Work<'p, B> {
        self.run_in_place(&Collective::all_reduce(len(&buffer), B::DTYPE, op), buffer)
    }

    /// Gathers everybody's `send` on every rank, in rank order.
    ///
    /// Shapes: send `[count]`, gives `[ranks * count]`.
    /// Source: ncclAllGather, MPI_Allgather.
    pub fn all_gather<B: Buffer>(&self, send: B) -> Work<'p, B> {
        self.run_into(Ok(Collective::all_gather(len(&send), B::DTYPE)), send)
    }

    /// Gathers in place: this rank's part stands at `rank * count` in `buffer` (`[ranks * count]`).
    pub fn all_gather_in_place<B: Buffer>(&self, buffer: B) -> Work<'p, B> {
        let count = self.share(&buffer, "all_gather");
        self.run_joint(count.map(|count| Collective::all_gather(count, B::DTYPE)), buffer)
    }

    /// Reduces everybody's `send` and gives block `rank` of the result.
    ///
    /// Shapes: send `[ranks * count]`, gives `[count]`.
    /// Source: ncclReduceScatter, MPI_Reduce_scatter_block.
    pub fn reduce_scatter<B: Buffer>(&self, send: B, op: ReduceOp) -> Work<'p, B> {
        let count = self.share(&send, "reduce_scatter");
        self.run_into(count.map(|count| Collective::reduce_scatter(count, B::DTYPE, op)), send)
    }

    /// Reduce-scatters in place: the result stands at `rank * count` in `buffer` (`[ranks * count]`).
    pub fn reduce_scatter_in_place<B: Buffer>(&self, buffer: B, op: ReduceOp) -> Work<'p, B> {
        let count = self.share(&buffer, "reduce_scatter");
        self.run_joint(count.map(|count| Collective::reduce_scatter(count, B::DTYPE, op)), buffer)
    }

    /// Gives every rank the root's `buffer` (`[count]`): read on the root, written elsewhere.
    ///
    /// Source: ncclBroadcast in place, MPI_Bcast.
    pub fn broadcast<B: Buffer>(&self, buffer: B, root: Rank) -> Work<'p, B> {
        self.run_in_place(&Collective::broadcast(len(&buffer), B::DTYPE, root), buffer)
    }

    /// Reduces everybody's `send` on `root`.
    ///
    /// Shapes: send `[count]`, gives `[count]` on the root and nothing elsewhere.
    /// Source: ncclReduce, MPI_Reduce.
    pub fn reduce<B: Buffer>(&self, send: B, op: ReduceOp, root: Rank) -> Work<'p, B> {
        self.run_into(Ok(Collective::reduce(len(&send), B::DTYPE, op, root)), send)
    }

    /// Reduces `buffer` (`[count]`) in place: the root's holds the result.
    pub fn reduce_in_place<B: Buffer>(&self, buffer: B, op: ReduceOp, root: Rank) -> Work<'p, B> {
        self.run_in_place(&Collective::reduce(len(&buffer), B::DTYPE, op, root), buffer)
    }

    /// Gathers everybody's `send` on `root`, in rank order.
    ///
    /// Shapes: send `[count]`, gives `[ranks * count]` on the root and nothing elsewhere.
    /// Source: MPI_Gather.
    pub fn gather<B: Buffer>(&self, send: B, root: Rank) -> Work<'p, B> {
        self.run_into(Ok(Collective::gather(len(&send), B::DTYPE, root)), send)
    }

    /// Gives every rank its block of the root's `send`, of `count` elements.
    ///
    /// Shapes: send `[ranks * count]` on the root, not looked at elsewhere; gives `[count]`.
    /// Source: MPI_Scatter.
    pub fn scatter<B: Buffer>(&self, send: B, count: usize, root: Rank) -> Work<'p, B> {
        self.run_into(Ok(Collective::scatter(count as u64, B::DTYPE, root)), self.if_root(root, send))
    }

    /// Gives rank r block r of everybody's `send`, in rank order.
    ///
    /// Shapes: send and what it gives `[ranks * count]`.
    /// Source: ncclAlltoAll, MPI_Alltoall.
    pub fn all_to_all<B: Buffer>(&self, send: B) -> Work<'p, B> {
        let count = self.share(&send, "all_to_all");
        self.run_into(count.map(|count| Collective::all_to_all(count, B::DTYPE)), send)
    }

    /// Exchanges in place: what comes from rank r takes the place of block r of `buffer` (`[ranks * count]`).
    pub fn all_to_all_in_place<B: Buffer>(&self, buffer: B) -> Work<'p, B> {
        let count = self.share(&buffer, "all_to_all");
        self.run_joint(count.map(|count| Collective::all_to_all(count, B::DTYPE)), buffer)
    }

    /// Exchanges blocks of any length.
    ///
    /// Shapes: `send_blocks` says how much of send goes to whom and where it lies, `recv_blocks` how much comes from whom
    ///         and where in what is given it stands, which reaches to the end of the last block.
    /// Source: MPI_Alltoallv, HcclAlltoAllV.
    pub fn all_to_all_v<B: Buffer>(
        &self,
        send: B,
        send_blocks: Blocks<'_>,
        recv_blocks: Blocks<'_>,
    ) -> Work<'p, B> {
        self.run_into(Ok(Collective::all_to_all_v(B::DTYPE, send_blocks, recv_blocks)), send)
    }

    /// Gathers blocks of different lengths on every rank; `blocks` says how much comes from whom, the same on every
    /// rank, and where it stands in what is given.
    ///
    /// Source: MPI_Allgatherv, HcclAllGatherV.
    pub fn all_gather_v<B: Buffer>(&self, send: B, blocks: Blocks<'_>) -> Work<'p, B> {
        self.run_into(Ok(Collective::all_gather_v(B::DTYPE, blocks)), send)
    }

    /// Reduces everybody's `send` and gives `counts[rank]` elements of the result, in rank order.
    ///
    /// Source: MPI_Reduce_scatter, HcclReduceScatterV.
    pub fn reduce_scatter_v<B: Buffer>(&self, send: B, counts: &[u64], op: ReduceOp) -> Work<'p, B> {
        self.run_into(Ok(Collective::reduce_scatter_v(B::DTYPE, op, counts)), send)
    }

    /// Gathers blocks of different lengths on `root`, where `blocks` says how much comes from whom and where it stands in
    /// what is given; elsewhere it is not looked at.
    ///
    /// Source: MPI_Gatherv.
    pub fn gather_v<B: Buffer>(&self, send: B, blocks: Option<Blocks<'_>>, root: Rank) -> Work<'p, B> {
        let blocks = blocks.filter(|_| self.rank() == root);
        self.run_into(Ok(Collective::gather_v(len(&send), B::DTYPE, root, blocks)), send)
    }

    /// Gives every rank its block, of `count` elements, of the root's `send`, where `blocks` says how much goes to whom
    /// and where it lies; elsewhere neither is looked at.
    ///
    /// Source: MPI_Scatterv.
    pub fn scatter_v<B: Buffer>(
        &self,
        send: B,
        blocks: Option<Blocks<'_>>,
        count: usize,
        root: Rank,
    ) -> Work<'p, B> {
        let blocks = blocks.filter(|_| self.rank() == root);
        let call = Collective::scatter_v(count as u64, B::DTYPE, root, blocks);
        self.run_into(Ok(call), self.if_root(root, send))
    }

    /// Is over when every rank has called it.
    ///
    /// Source: MPI_Barrier, HcclBarrier.
    pub fn barrier(&self) -> Work<'p, ()> {
        let nothing = Vec::<u8>::new();
        self.run_to(&Collective::barrier(), (nothing.clone(), nothing), |_| ())
    }

    fn if_root<B: Buffer>(&self, root: Rank, send: B) -> B {
        if self.rank() == root { send } else { B::blank(0) }
    }

    /// One rank's share of a buffer of `ranks * count` elements.
    fn share<B: Buffer>(&self, buffer: &B, what: &str) -> Result<u64> {
        let (elements, ranks) = (len(buffer), u64::from(self.ranks()));
        if elements.is_multiple_of(ranks) {
            return Ok(elements / ranks);
        }
        Err(Error::invalid(format!(
            "{what}: a buffer of {elements} elements does not divide among {ranks} ranks"
        )))
    }
}

/// Point to point. Messages of a pair arrive in order; those with tags are matched by tag, as MPI does it.
///
/// Errors: as of the collectives.
impl<'p> Communicator<'p> {
    /// Sends `send` to `peer`, which receives as many elements; gives the buffer back.
    ///
    /// Source: ncclSend, MPI_Send.
    pub fn send<B: Buffer>(&self, send: B, peer: Rank) -> Work<'p, B> {
        let call = Collective::send_receive(len(&send), B::DTYPE, Some(peer), None);
        self.run_to(&call, (send, B::blank(0)), |taken| both(taken).0)
    }

    /// Receives `count` elements of `peer`.
    ///
    /// Source: ncclRecv, MPI_Recv.
    pub fn receive<B: Buffer>(&self, count: usize, peer: Rank) -> Work<'p, B> {
        let call = Collective::send_receive(count as u64, B::DTYPE, None, Some(peer));
        self.run_into(Ok(call), B::blank(0))
    }

    /// Sends `send` to `to` and receives as many elements from `from`, both at once.
    ///
    /// Source: MPI_Sendrecv.
    pub fn send_receive<B: Buffer>(&self, send: B, to: Rank, from: Rank) -> Work<'p, B> {
        self.run_into(Ok(Collective::send_receive(len(&send), B::DTYPE, Some(to), Some(from))), send)
    }

    /// Sends real data with a tag; gives the buffer back.
    ///
    /// Source: MPI_Send.
    pub fn send_tagged<T: Element>(&self, mut send: Vec<T>, peer: Rank, tag: u32) -> Work<'p, Vec<T>> {
        let memory = host_mut(bytemuck::cast_slice_mut(&mut send));
        let call =
            TaggedCall { what: TaggedKind::Send(peer), tag, count: len(&send), dtype: T::DTYPE, memory };
        Work::new(self.inside, self.issue_tagged(call, (Some(peer), None), Box::new(send)), one)
    }

    /// Receives `count` elements of real data with a tag, from `source` or from any rank, and says whose they are.
    ///
    /// Source: MPI_Recv with MPI_ANY_SOURCE.
    pub fn receive_tagged<T: Element>(
        &self,
        count: usize,
        source: Option<Rank>,
        tag: u32,
    ) -> Work<'p, (Vec<T>, Rank)> {
        let mut buffer = vec![T::zeroed(); count];
        let memory = host_mut(bytemuck::cast_slice_mut(&mut buffer));
        let what = TaggedKind::Receive(source);
        let call = TaggedCall { what, tag, count: count as u64, dtype: T::DTYPE, memory };
        Work::new(self.inside, self.issue_tagged(call, (None, source), Box::new(buffer)), received)
    }

    fn issue_tagged(
        &self,
        call: TaggedCall,
        (to, from): (Option<Rank>, Option<Rank>),
        owned: Box<dyn std::any::Any + Send>,
    ) -> Result<u64> {
        Collective::send_receive(call.count, call.dtype, to, from).check(self.ranks(), self.rank())?;
        self.inside.issue_tagged(self.place(), call, owned)
    }
}

fn received<T: Element>(taken: Taken) -> (Vec<T>, Rank) {
    let source = taken.source.expect("a tagged receive that is done has a source");
    (one(taken), source)
}

fn len<B: Buffer>(buffer: &B) -> u64 {
    buffer.elements() as u64
}
