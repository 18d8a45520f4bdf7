//! `ubccl plan`: the plans of a call, and the verifier's verdict.

use crate::args::PlanArgs;
use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::report::print;
use crate::target;
use std::io::Write;

/// Prints the plans of all ranks, or of one, and the verdict on all.
pub(crate) fn run(args: &PlanArgs, out: &mut dyn Write) -> Outcome<()> {
    let PlanArgs { collective: kind, ranks, datatype: dtype, op, root, .. } = *args;
    let call = Call { kind, count: 0, dtype, op, root, ranks }.sized(args.bytes);
    let planner = target::planner(&args.how.settings(), ranks, None)?;
    for rank in args.rank.map_or(0..ranks, |rank| rank..rank + 1) {
        if rank >= ranks {
            return Err(Failure::new(format!("--rank {rank} is not a rank; ranks are 0 to {}", ranks - 1)));
        }
        print(out, &target::plan(&planner, &call, rank, args.in_place)?.to_string())?;
    }
    match target::prove(&planner, &call, args.in_place)? {
        Ok(proof) => print(out, &format!("verified for {}: {proof}\n", target::describe(&call)?)),
        Err(violation) => {
            print(out, &format!("REJECTED for {}: {violation}\n", target::describe(&call)?))?;
            Err(Failure::Told)
        }
    }
}
