//! A call as the library takes it from every rank.

use crate::call::Call;
use ubccl::{Blocks, Collective, Error, Kind, Rank, Result};

/// The calls of all ranks, with the tables that some kinds need.
pub(super) struct Calls {
    call: Call,
    /// Lengths of parts, two rounds of them: every rank's table is a window, one for each rank long.
    lens: Vec<u64>,
}

impl Calls {
    /// The calls.
    ///
    /// Errors: Unsupported, if the kind is more than one call.
    pub(super) fn new(call: &Call) -> Result<Self> {
        if untabled(call, 0).is_some() {
            return Ok(Calls { call: *call, lens: Vec::new() });
        }
        match call.kind {
            Kind::GatherV | Kind::ScatterV | Kind::AllGatherV | Kind::ReduceScatterV | Kind::AllToAllV => {
                let round = || (0..call.ranks).map(|other| call.part(0, other).len);
                Ok(Calls { call: *call, lens: round().chain(round()).collect() })
            }
            other => {
                let text = format!("this program runs one call at a time, and {} is many", other.name());
                Err(Error::unsupported(text))
            }
        }
    }

    /// What one rank calls.
    pub(super) fn of(&self, rank: Rank) -> Collective<'_> {
        untabled(&self.call, rank).unwrap_or_else(|| self.tabled(rank))
    }

    fn tabled(&self, rank: Rank) -> Collective<'_> {
        let Call { kind, dtype, op, root, ranks, .. } = self.call;
        let lens = |row: Rank| &self.lens[row as usize..(row + ranks) as usize];
        let (own, table) = (lens(0)[rank as usize], Blocks::packed(lens(0)));
        let roots = (rank == root).then_some(table);
        match kind {
            Kind::GatherV => Collective::gather_v(own, dtype, root, roots),
            Kind::ScatterV => Collective::scatter_v(own, dtype, root, roots),
            Kind::AllGatherV => Collective::all_gather_v(dtype, table),
            Kind::ReduceScatterV => Collective::reduce_scatter_v(dtype, op, lens(0)),
            _ => {
                let table = Blocks::packed(lens(rank));
                Collective::all_to_all_v(dtype, table, table)
            }
        }
    }
}

/// One rank's call, if it needs no table.
pub(super) fn untabled(call: &Call, rank: Rank) -> Option<Collective<'static>> {
    let Call { kind, count, dtype, op, root, .. } = *call;
    Some(match kind {
        Kind::AllReduce => Collective::all_reduce(count, dtype, op),
        Kind::AllGather => Collective::all_gather(count, dtype),
        Kind::ReduceScatter => Collective::reduce_scatter(count, dtype, op),
        Kind::Broadcast => Collective::broadcast(count, dtype, root),
        Kind::Barrier => Collective::barrier(),
        Kind::SendReceive => {
            Collective::send_receive(count, dtype, Some(call.receiver_of(rank)), Some(call.sender_to(rank)))
        }
        Kind::Reduce => Collective::reduce(count, dtype, op, root),
        Kind::Gather => Collective::gather(count, dtype, root),
        Kind::Scatter => Collective::scatter(count, dtype, root),
        Kind::AllToAll => Collective::all_to_all(count, dtype),
        _ => return None,
    })
}
