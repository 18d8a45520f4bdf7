//! How a call combines what the ranks bring.

use crate::communicator::Communicator;
use std::borrow::Cow;
use ubccl_core::{Collective, Error, ReduceOp, Result, UserOp, kernels};

/// How a call combines elements: an operation, or a sum of inputs that each rank multiplies first.
///
/// Every reducing call takes anything that becomes one: `ReduceOp::Sum`, a `&'static` [`UserOp`], or
/// `Reduction::PreMulSum(0.125)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reduction {
    /// An operation.
    Op(ReduceOp),
    /// The sum of every rank's input times that rank's scalar, which may differ between ranks. Each product is rounded
    /// to the element type before it is summed; for integers the scalar must be whole.
    ///
    /// Source: ncclRedOpCreatePreMulSum; torch's PREMUL_SUM.
    PreMulSum(f64),
}

impl From<ReduceOp> for Reduction {
    fn from(op: ReduceOp) -> Self {
        Reduction::Op(op)
    }
}

impl From<&'static UserOp> for Reduction {
    fn from(op: &'static UserOp) -> Self {
        Reduction::Op(ReduceOp::User(op))
    }
}

impl Reduction {
    /// What the plan combines with: products are made before it runs.
    pub const fn op(&self) -> ReduceOp {
        match self {
            Reduction::Op(op) => *op,
            Reduction::PreMulSum(_) => ReduceOp::PreMulSum,
        }
    }

    /// The input as the plan takes it.
    pub(crate) fn prepare<'i>(&self, call: &Collective<'_>, input: &'i [u8]) -> Result<Cow<'i, [u8]>> {
        let Reduction::PreMulSum(scalar) = self else { return Ok(Cow::Borrowed(input)) };
        let mut scaled = Vec::new();
        scaled.try_reserve_exact(input.len()).map_err(|error| {
            Error::system(format!("{call}: no memory for {} bytes of products", input.len()), error)
        })?;
        scaled.resize(input.len(), 0);
        kernels::scale(call.dtype(), *scalar, input, &mut scaled)?;
        Ok(Cow::Owned(scaled))
    }
}

impl Communicator {
    /// [`Communicator::run`] for a call that combines with `reduction`; a pre-multiplied sum makes a copy of the input.
    pub(crate) fn run_reducing(
        &self,
        call: &Collective<'_>,
        reduction: Reduction,
        input: &[u8],
        output: &mut [u8],
    ) -> Result<()> {
        self.run(call, &reduction.prepare(call, input)?, output)
    }

    /// [`Communicator::run_in_place`] likewise; a pre-multiplied sum multiplies this rank's input where it stands, once
    /// the call is known to be valid.
    pub(crate) fn run_reducing_in_place(
        &self,
        call: &Collective<'_>,
        reduction: Reduction,
        buffer: &mut [u8],
    ) -> Result<()> {
        let Reduction::PreMulSum(scalar) = reduction else { return self.run_in_place(call, buffer) };
        let (ranks, rank, size) = (self.ranks(), self.rank(), call.dtype().size());
        if call.output_elements(ranks, rank) == 0 {
            // What is only read stays as it is.
            return self.run_reducing(call, reduction, buffer, &mut []);
        }
        self.check_joint(call, buffer.len())?;
        let start = call.in_place_offsets(rank).0 as usize * size;
        let input = &mut buffer[start..][..call.input_elements(ranks, rank) as usize * size];
        kernels::scale_in_place(call.dtype(), scalar, input)?;
        self.run_in_place(call, buffer)
    }
}
