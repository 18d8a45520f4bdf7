//! Profiles that are formulas say what plans are: as many steps, one after the other, and as many bytes of the busiest
//! rank as the verifier counts, for all kinds and roots, in place and not. (Profiles of schedules are made by the
//! schedules themselves: tests/profiles.rs.)

use ubccl_core::blocks::Blocks;
use ubccl_core::verify::{Report, verify_calls};
use ubccl_core::{Algorithm, Choice, Collective, DataType, Kind, Layout, Rank, ReduceOp, Spec};

/// The algorithms whose profiles are formulas.
const FORMULAS: [&str; 8] =
    ["ring", "mesh-one-shot", "mesh-two-shot", "linear", "pairwise", "binomial", "knomial-4", "in-network"];

/// Elements of each rank's block.
const BLOCK: u64 = 6;

/// A call whose blocks are all as long, and which every number of ranks, or all but one, cuts evenly.
struct Call {
    kind: Kind,
    ranks: u32,
    root: Rank,
    /// One length for each rank.
    counts: Vec<u64>,
}

impl Call {
    fn new(kind: Kind, ranks: u32, root: Rank) -> Self {
        Call { kind, ranks, root, counts: vec![BLOCK; ranks as usize] }
    }

    /// Elements of a vector that is cut into blocks, one for each rank or for each but the root.
    fn vector(&self) -> u64 {
        u64::from(self.ranks) * BLOCK * u64::from(self.ranks.max(2) - 1)
    }

    fn of(&self, rank: Rank) -> Collective<'_> {
        let (dtype, op, root) = (DataType::U8, ReduceOp::Max, self.root);
        let table = Blocks::packed(&self.counts);
        let of_root = (rank == root).then_some(table);
        let next = (self.ranks > 1).then_some((rank + 1) % self.ranks);
        let previous = (self.ranks > 1).then_some((rank + self.ranks - 1) % self.ranks);
        match self.kind {
            Kind::AllReduce => Collective::all_reduce(self.vector(), dtype, op),
            Kind::AllGather => Collective::all_gather(BLOCK, dtype),
            Kind::ReduceScatter => Collective::reduce_scatter(BLOCK, dtype, op),
            Kind::Broadcast => Collective::broadcast(self.vector(), dtype, root),
            Kind::Barrier => Collective::barrier(),
            Kind::SendReceive => Collective::send_receive(self.vector(), dtype, next, previous),
            Kind::Reduce => Collective::reduce(self.vector(), dtype, op, root),
            Kind::Gather => Collective::gather(BLOCK, dtype, root),
            Kind::Scatter => Collective::scatter(BLOCK, dtype, root),
            Kind::AllToAll => Collective::all_to_all(BLOCK, dtype),
            Kind::GatherV => Collective::gather_v(BLOCK, dtype, root, of_root),
            Kind::ScatterV => Collective::scatter_v(BLOCK, dtype, root, of_root),
            Kind::AllGatherV => Collective::all_gather_v(dtype, table),
            Kind::ReduceScatterV => Collective::reduce_scatter_v(dtype, op, &self.counts),
            Kind::AllToAllV => Collective::all_to_all_v(dtype, table, table),
            other => panic!("{} has no call of equal blocks", other.name()),
        }
    }

    /// Bytes of the longest buffer, for kinds whose tables not all ranks know as well.
    fn bytes(&self) -> u64 {
        let blocks = u64::from(self.ranks) * BLOCK;
        if self.kind.row().tabled { blocks } else { self.of(self.root).longest_bytes(self.ranks) }
    }
}

fn check(algorithm: &dyn Algorithm, call: &Call, layout: &str, in_place: bool) -> Result<(), String> {
    let (name, kind, ranks) = (algorithm.descriptor().name, call.kind.name(), call.ranks);
    let text = format!("{name} {kind}, {ranks} ranks ({layout}), root {}, in place: {in_place}", call.root);
    let spec = |rank| Spec::new(&call.of(rank), ranks, rank, in_place, Choice::default());
    let report = verify_calls(&|rank| algorithm.plan(&spec(rank)), &|rank| call.of(rank), ranks);
    let Report { depth, busiest, .. } = report.unwrap_or_else(|violation| panic!("{text}: {violation}"));
    let layout = Layout::parse(layout, ranks).unwrap();
    let profile = algorithm.profile(&spec(0), &layout);
    let (steps, bytes) = (profile.steps(), profile.bytes(call.bytes() as f64));
    if steps != depth || (bytes - busiest as f64).abs() > 1e-6 * bytes {
        return Err(format!(
            "{text}: {steps} steps with {bytes} bytes, not {depth} with {busiest}: {profile:?}"
        ));
    }
    let levels = layout.levels().len();
    let mut parts = profile.rounds.iter().flat_map(|round| &round.traffic).chain(&profile.busiest);
    match parts.find(|part| part.level >= levels || part.messages == 0) {
        Some(part) => Err(format!("{text}: {part:?} is on no link")),
        None => Ok(()),
    }
}

#[test]
fn profiles_are_what_the_verifier_counts() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for name in FORMULAS {
        let algorithm = ubccl_algorithms::find(name).unwrap();
        for ranks in [1, 2, 3, 4, 5, 7, 8, 12, 16, 33, 100] {
            for row in Kind::TABLE.iter().filter(|row| algorithm.supports(row.kind, ranks).is_ok()) {
                if row.kind == Kind::Group {
                    continue; // what it moves is not known before
                }
                let roots = if row.rooted { vec![0, ranks / 2, ranks - 1] } else { vec![0] };
                for root in roots {
                    let call = Call::new(row.kind, ranks, root);
                    for layout in ["", "node=4", "node=3;pod=6"] {
                        for in_place in [false, true] {
                            wrong.extend(check(algorithm, &call, layout, in_place).err());
                            checked += 1;
                        }
                    }
                }
            }
        }
    }
    let first: Vec<_> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {checked} profiles:\n{}", wrong.len(), first.join("\n"));
    assert!(checked > 1000, "only {checked} profiles were looked at");
}
