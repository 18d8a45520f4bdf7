//! Which algorithm a call gets: a rule until the tuner comes.
//!
//! | collective | small | middle | large |
//! |---|---|---|---|
//! | all-reduce, all-gather(v), reduce-scatter(v) | one-shot mesh, up to 4 KiB for each rank | | ring |
//! | broadcast | one-shot mesh | binomial | two-shot mesh; ring, if it is far longer than the circle |
//! | reduce | linear | binomial | two-shot mesh |
//! | gather, scatter | binomial, for blocks up to 4 KiB of more than 8 ranks | | linear |
//! | barrier | one-shot mesh, binomial for more than 32 ranks | | |
//!
//! The others have one way. What the wanted one can't do (an average on the ring) takes two shots, or what else can.

use ubccl_algorithms::knomial::BINOMIAL;
use ubccl_algorithms::linear::LINEAR;
use ubccl_algorithms::mesh_one_shot::MESH_ONE_SHOT;
use ubccl_algorithms::mesh_two_shot::MESH_TWO_SHOT;
use ubccl_algorithms::pairwise::PAIRWISE;
use ubccl_algorithms::ring::RING;
use ubccl_core::{Algorithm, Collective, Kind, Result};

/// Up to this many bytes for each rank, or of each rank's block, a call is small.
const SMALL_BYTES_PER_RANK: u64 = 4 << 10;
/// Up to this many bytes a vector goes to or from its root in one step, if that has few partners.
const ONE_STEP_BYTES: u64 = 64 << 10;
/// With up to so many ranks, a root that talks to all has few partners.
const FEW_PARTNERS: u32 = 4;
/// Up to this many bytes a vector goes down or up a tree.
const TREE_BYTES: u64 = 256 << 10;
/// From this many bytes for each rank on, the ring's start is nothing beside its end.
const CHAIN_BYTES_PER_RANK: u64 = 1 << 20;
/// Up to so many ranks, the root gathers and scatters itself.
const FEW_BLOCKS: u32 = 8;
/// Up to so many ranks, everybody tells everybody of a barrier.
const FEW_TO_TELL: u32 = 32;

/// Chooses algorithms.
#[derive(Clone, Copy, Default)]
pub(crate) struct Chooser {
    forced: Option<&'static dyn Algorithm>,
}

impl Chooser {
    /// By the rule, or always the named one.
    ///
    /// Errors: InvalidArgument, listing the names there are.
    pub(crate) fn new(forced: Option<&str>) -> Result<Self> {
        Ok(Chooser { forced: forced.map(ubccl_algorithms::find).transpose()? })
    }

    /// The algorithm for a call. Barriers and point-to-point calls, which algorithms are not
    /// forced for, take the rule's choice if the forced algorithm can't do them.
    ///
    /// Errors: Unsupported, if the forced algorithm can't do it.
    pub(crate) fn choose(&self, call: &Collective<'_>, ranks: u32) -> Result<&'static dyn Algorithm> {
        match self.forced {
            Some(forced) => match forced.supports_call(call, ranks) {
                Ok(()) => Ok(forced),
                Err(_) if has_no_choice(call.kind()) => by_rule(call, ranks),
                Err(error) => Err(error),
            },
            None => by_rule(call, ranks),
        }
    }
}

fn by_rule(call: &Collective<'_>, ranks: u32) -> Result<&'static dyn Algorithm> {
    let wanted = wanted(call, ranks);
    let Err(refusal) = wanted.supports_call(call, ranks) else { return Ok(wanted) };
    let two_shot: &'static dyn Algorithm = &MESH_TWO_SHOT;
    let mut others = std::iter::once(two_shot).chain(ubccl_algorithms::index().iter().copied());
    others.find(|other| other.supports_call(call, ranks).is_ok()).ok_or(refusal)
}

fn wanted(call: &Collective<'_>, ranks: u32) -> &'static dyn Algorithm {
    let bytes = call.longest_bytes(ranks);
    let is_small = bytes <= SMALL_BYTES_PER_RANK * u64::from(ranks);
    let is_one_step = bytes <= if ranks <= FEW_PARTNERS { ONE_STEP_BYTES } else { SMALL_BYTES_PER_RANK };
    match call.kind() {
        Kind::SendReceive => &MESH_ONE_SHOT,
        Kind::Barrier if ranks > FEW_TO_TELL => &BINOMIAL,
        Kind::Barrier => &MESH_ONE_SHOT,
        Kind::Gather | Kind::Scatter if is_small && ranks > FEW_BLOCKS => &BINOMIAL,
        Kind::Gather | Kind::Scatter | Kind::GatherV | Kind::ScatterV => &LINEAR,
        Kind::AllToAll | Kind::AllToAllV | Kind::Group => &PAIRWISE,
        Kind::Reduce if is_one_step => &LINEAR,
        Kind::Broadcast if is_one_step => &MESH_ONE_SHOT,
        Kind::Reduce | Kind::Broadcast if bytes <= TREE_BYTES => &BINOMIAL,
        Kind::Broadcast if bytes >= CHAIN_BYTES_PER_RANK * u64::from(ranks) => &RING,
        Kind::Reduce | Kind::Broadcast => &MESH_TWO_SHOT,
        _ if is_small => &MESH_ONE_SHOT,
        _ => &RING,
    }
}

/// Kinds that there is one good way for.
fn has_no_choice(kind: Kind) -> bool {
    matches!(kind, Kind::Barrier | Kind::SendReceive | Kind::Group)
}

impl std::fmt::Debug for Chooser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.forced.map(|forced| forced.descriptor().name);
        f.debug_struct("Chooser").field("forced", &name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::{DataType, ReduceOp};

    #[test]
    fn small_calls_take_one_shot_and_large_ones_the_ring() {
        let name = |count| {
            let call = Collective::all_reduce(count, DataType::F32, ReduceOp::Sum);
            Chooser::default().choose(&call, 2).unwrap().descriptor().name
        };
        assert_eq!((name(0), name(2048), name(2049)), ("mesh-one-shot", "mesh-one-shot", "ring"));
    }

    #[test]
    fn every_kind_has_one_whatever_its_size() {
        use ubccl_core::{Choice, Spec};
        for row in Kind::TABLE {
            for ranks in [1, 2, 4, 5, 8, 9, 33, 4096, 8192] {
                for count in [0, 1, 1000, 20_000, 1 << 20, 1 << 30] {
                    // A spec's own call, made from a call of the kind.
                    let seed = Collective::broadcast(count, DataType::F32, ranks - 1);
                    let spec =
                        Spec { kind: row.kind, ..Spec::new(&seed, ranks, 0, false, Choice::default()) };
                    // Scattered averages have no way beyond a window's width.
                    let op = if ranks <= 4096 { ReduceOp::Avg } else { ReduceOp::Sum };
                    let op = row.reduces.then_some(op);
                    let call = Spec { op, ..spec }.collective(count);
                    let chosen = Chooser::default().choose(&call, ranks);
                    assert!(chosen.is_ok(), "{call} of {ranks} ranks: {:?}", chosen.err());
                }
            }
        }
    }

    #[test]
    fn roots_talk_to_few_in_one_step_to_more_over_a_tree_and_share_what_is_long() {
        let name =
            |call: Collective, ranks| Chooser::default().choose(&call, ranks).unwrap().descriptor().name;
        let reduce = |count| Collective::reduce(count, DataType::U8, ReduceOp::Sum, 0);
        assert_eq!((name(reduce(65536), 4), name(reduce(65536), 5)), ("linear", "binomial"));
        assert_eq!((name(reduce(4096), 64), name(reduce(1 << 20), 64)), ("linear", "mesh-two-shot"));
        let broadcast = |count| Collective::broadcast(count, DataType::U8, 3);
        assert_eq!((name(broadcast(4096), 64), name(broadcast(4097), 64)), ("mesh-one-shot", "binomial"));
        assert_eq!((name(broadcast(8 << 20), 8), name(broadcast(8 << 20), 9)), ("ring", "mesh-two-shot"));
        let gather = |count| Collective::gather(count, DataType::U8, 1);
        assert_eq!(
            (name(gather(4096), 8), name(gather(4096), 9), name(gather(4097), 9)),
            ("linear", "binomial", "linear")
        );
        assert_eq!(
            (name(Collective::barrier(), 32), name(Collective::barrier(), 33)),
            ("mesh-one-shot", "binomial")
        );
    }

    #[test]
    fn averages_never_take_the_ring() {
        let name = |call: Collective| Chooser::default().choose(&call, 2).unwrap().descriptor().name;
        let (large, avg) = (1 << 20, ReduceOp::Avg);
        assert_eq!(name(Collective::all_reduce(2048, DataType::F32, avg)), "mesh-one-shot");
        assert_eq!(name(Collective::all_reduce(large, DataType::F32, avg)), "mesh-two-shot");
        assert_eq!(name(Collective::reduce_scatter(large, DataType::F32, avg)), "mesh-one-shot");
        let forced = Chooser::new(Some("ring")).unwrap();
        let error = forced.choose(&Collective::all_reduce(1, DataType::F32, avg), 2).err().unwrap();
        assert_eq!(error.kind(), ubccl_core::ErrorKind::Unsupported);
        assert!(error.message().contains("ring does not do avg"), "{error}");
        assert!(error.message().contains("name no algorithm"), "{error}");
    }

    #[test]
    fn large_sends_take_one_shot() {
        let call = Collective::send_receive(1 << 20, DataType::F64, Some(0), Some(0));
        assert_eq!(Chooser::default().choose(&call, 2).unwrap().descriptor().name, "mesh-one-shot");
    }

    #[test]
    fn a_forced_algorithm_is_taken_or_refused_but_never_replaced() {
        let chooser = Chooser::new(Some("mesh_two_shot")).unwrap();
        let call = Collective::all_gather(1, DataType::U8);
        assert!(chooser.choose(&call, 2).err().unwrap().to_string().contains("mesh-two-shot"));
        assert!(chooser.choose(&Collective::barrier(), 2).is_ok());
        assert!(chooser.choose(&Collective::send_receive(1, DataType::U8, Some(1), None), 2).is_ok());
        assert!(Chooser::new(Some("tree")).unwrap_err().to_string().contains("ring"));
    }
}
