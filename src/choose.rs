//! Which algorithm a call gets. A rule until the tuner comes: one-shot mesh up to 4 KiB for each rank, ring above. What
//! the ring can't do (an average) takes two shots, or one where two are not needed.

use ubccl_algorithms::mesh_one_shot::MESH_ONE_SHOT;
use ubccl_algorithms::mesh_two_shot::MESH_TWO_SHOT;
use ubccl_algorithms::ring::RING;
use ubccl_core::{Algorithm, Collective, Kind, Result};

/// Up to this many bytes for each rank a call takes the one-shot mesh.
const ONE_SHOT_BYTES_PER_RANK: u64 = 4 << 10;

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
    let bytes = common_elements(call, ranks) * call.dtype().size() as u64;
    let small = bytes <= ONE_SHOT_BYTES_PER_RANK * u64::from(ranks);
    let is_one_shot = small || has_no_choice(call.kind());
    let wanted: &'static dyn Algorithm = if is_one_shot { &MESH_ONE_SHOT } else { &RING };
    let Err(refusal) = wanted.supports_call(call, ranks) else { return Ok(wanted) };
    let large: Option<&'static dyn Algorithm> = if is_one_shot { None } else { Some(&MESH_TWO_SHOT) };
    let mut others = large.into_iter().chain(ubccl_algorithms::index().iter().copied());
    others.find(|other| other.supports_call(call, ranks).is_ok()).ok_or(refusal)
}

/// Elements of the longest buffer of the call: by what every rank knows alike, since all must choose alike.
fn common_elements(call: &Collective<'_>, ranks: u32) -> u64 {
    if call.kind().row().tabled {
        let totals = [call.send(), call.receive()].map(|table| table.blocks().map_or(0, |b| b.total()));
        // Of other tables, a rank knows its own only: those kinds are done in one way.
        let is_common = matches!(call.kind(), Kind::AllGatherV | Kind::ReduceScatterV);
        return if is_common { totals[0].max(totals[1]) } else { 0 };
    }
    let root = call.root().unwrap_or(0);
    call.input_elements(ranks, root).max(call.output_elements(ranks, root))
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
