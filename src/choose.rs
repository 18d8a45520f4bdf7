//! Which algorithm a call gets. A rule until the tuner comes: one-shot mesh up to 4 KiB for each rank, ring above.

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
            Some(forced) => match forced.supports(call.kind(), ranks) {
                Ok(()) => Ok(forced),
                Err(_) if has_no_choice(call.kind()) => by_rule(call, ranks),
                Err(error) => Err(error),
            },
            None => by_rule(call, ranks),
        }
    }
}

fn by_rule(call: &Collective<'_>, ranks: u32) -> Result<&'static dyn Algorithm> {
    if call.kind() == Kind::Group {
        return Ok(&crate::joint::JOINT);
    }
    let elements = call.input_elements(ranks, call.root().unwrap_or(0));
    let bytes = elements.max(call.output_elements(ranks, 0)) * call.dtype().size() as u64;
    let small = bytes <= ONE_SHOT_BYTES_PER_RANK * u64::from(ranks);
    let wanted: &'static dyn Algorithm = if small || has_no_choice(call.kind()) {
        &ubccl_algorithms::mesh_one_shot::MESH_ONE_SHOT
    } else {
        &ubccl_algorithms::ring::RING
    };
    let Err(refusal) = wanted.supports(call.kind(), ranks) else { return Ok(wanted) };
    let others = ubccl_algorithms::index().iter().copied();
    others.into_iter().find(|other| other.supports(call.kind(), ranks).is_ok()).ok_or(refusal)
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
    fn a_forced_algorithm_is_taken_or_refused_but_never_replaced() {
        let chooser = Chooser::new(Some("mesh_two_shot")).unwrap();
        let call = Collective::all_gather(1, DataType::U8);
        assert!(chooser.choose(&call, 2).err().unwrap().to_string().contains("mesh-two-shot"));
        assert!(chooser.choose(&Collective::barrier(), 2).is_ok());
        assert!(chooser.choose(&Collective::send_receive(1, DataType::U8, Some(1), None), 2).is_ok());
        assert!(Chooser::new(Some("tree")).unwrap_err().to_string().contains("ring"));
    }
}
