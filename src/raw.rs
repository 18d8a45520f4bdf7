//! Calls on raw memory, for interfaces to other languages.
#![allow(unsafe_code)] // the caller vouches for pointers

use crate::communicator::{Communicator, Shared, check_in_place};
use crate::engine::{Buffers, Lengths};
use crate::reduction::Reduction;
use crate::work::Work;
use ubccl_core::endpoint::{HostPointer, Memory};
use ubccl_core::{Collective, Error, Result, kernels};

impl Communicator {
    /// Any collective on raw memory; in place if the pointers stand to each other as
    /// [`Collective::in_place_offsets`] says (NCCL's rule). Blocks.
    ///
    /// # Safety
    /// `input` is readable and `output` writable for what the call needs on this rank (null is fine for nothing), and
    /// both are left alone until it returns. They overlap only if in place.
    pub unsafe fn run_raw(&self, call: &Collective<'_>, input: *const u8, output: *mut u8) -> Result<()> {
        // SAFETY: the caller vouches for both until this returns.
        if let Some(result) = unsafe { self.shared.repeat(call, (input, output), Lengths::Vouched) } {
            return result;
        }
        let buffers = self.shared.raw_buffers(call, input, output)?;
        // SAFETY: the caller vouches for both until this returns, by which time nothing is under way.
        unsafe { self.shared.run_blocking(call, buffers) }
    }

    /// The same without waiting. The call's tables are copied.
    ///
    /// # Safety
    /// As [`Communicator::run_raw`], until [`Work::wait`] has returned (an error too), [`Work::test`] has answered
    /// `true`, or [`Communicator::abort`] has returned. Dropping the work does not end the operation.
    pub unsafe fn issue_raw(
        &self,
        call: &Collective<'_>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<Work<()>> {
        let buffers = self.shared.raw_buffers(call, input, output)?;
        // SAFETY: the caller vouches for both until the operation is over.
        let op = unsafe { self.shared.issue(call, buffers, Some(Box::new(()))) }?;
        Ok(Work::without_buffers(self.shared.clone(), op))
    }

    /// [`Communicator::run_raw`] for a call that combines with `reduction`, whose operation it names. A pre-multiplied
    /// sum makes a copy of the input; in place it multiplies where the input stands.
    ///
    /// # Safety
    /// As [`Communicator::run_raw`].
    pub unsafe fn run_raw_reducing(
        &self,
        call: &Collective<'_>,
        reduction: Reduction,
        input: *const u8,
        output: *mut u8,
    ) -> Result<()> {
        // SAFETY: the caller vouches for both.
        match unsafe { self.shared.multiply(call, reduction, input, output) }? {
            // SAFETY: the caller vouches for both until this returns.
            None => unsafe { self.run_raw(call, input, output) },
            // SAFETY: the products live until this returns, and are apart from everything.
            Some(products) => unsafe { self.run_raw(call, products.as_ptr(), output) },
        }
    }

    /// The same without waiting; see [`Communicator::issue_raw`].
    ///
    /// # Safety
    /// As [`Communicator::issue_raw`].
    pub unsafe fn issue_raw_reducing(
        &self,
        call: &Collective<'_>,
        reduction: Reduction,
        input: *const u8,
        output: *mut u8,
    ) -> Result<Work<()>> {
        // SAFETY: the caller vouches for both.
        let Some(products) = (unsafe { self.shared.multiply(call, reduction, input, output) })? else {
            // SAFETY: the caller vouches for both until the operation is over.
            return unsafe { self.issue_raw(call, input, output) };
        };
        let buffers = self.shared.raw_buffers(call, products.as_ptr(), output)?;
        // SAFETY: the products' memory stays where it is when the vector moves into the box, which the engine keeps until
        // the operation is over; the caller vouches for the output until then.
        let op = unsafe { self.shared.issue(call, buffers, Some(Box::new(products))) }?;
        Ok(Work::without_buffers(self.shared.clone(), op))
    }
}

impl Shared {
    /// The input of a pre-multiplied sum, multiplied: a copy, or nothing if it was done in place. Of any other reduction
    /// nothing. The call was checked before anything is written.
    ///
    /// # Safety
    /// As [`Communicator::run_raw`].
    pub(crate) unsafe fn multiply(
        &self,
        call: &Collective<'_>,
        reduction: Reduction,
        input: *const u8,
        output: *mut u8,
    ) -> Result<Option<Vec<u8>>> {
        let Reduction::PreMulSum(scalar) = reduction else { return Ok(None) };
        let is_in_place = matches!(self.raw_buffers(call, input, output)?, Buffers::InPlace(_));
        let len = call.input_elements(self.ranks, self.rank) as usize * call.dtype().size();
        if is_in_place {
            // SAFETY: the check says that both are there, and the caller vouches that the one buffer may be written.
            let place = unsafe { std::slice::from_raw_parts_mut(input.cast_mut(), len) };
            kernels::scale_in_place(call.dtype(), scalar, place)?;
            return Ok(None);
        }
        if len == 0 {
            return Ok(Some(Vec::new()));
        }
        // SAFETY: the check says that it is not null, and the caller vouches that it may be read.
        let input = unsafe { std::slice::from_raw_parts(input, len) };
        reduction.prepare(call, input).map(|products| Some(products.into_owned()))
    }

    /// The buffers at two addresses; in place if they stand to each other as the kind says.
    ///
    /// Errors: InvalidArgument, if the call is wrong or a buffer that is needed is null.
    pub(crate) fn raw_buffers(
        &self,
        call: &Collective<'_>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<Buffers> {
        self.check_call(call)?;
        let (ranks, rank) = (self.ranks, self.rank);
        let size = call.dtype().size() as u64;
        let (needs, gives) = (call.input_elements(ranks, rank), call.output_elements(ranks, rank));
        for (what, is_null, elements) in
            [("input", input.is_null(), needs), ("output", output.is_null(), gives)]
        {
            if is_null && elements > 0 {
                return Err(Error::invalid(format!("{call}: the {what} is null")));
            }
        }
        let (ahead, behind) = call.in_place_offsets(rank);
        let is_same = input.addr()
            == output
                .addr()
                .wrapping_add(((ahead - behind.min(ahead)) * size) as usize)
                .wrapping_sub(((behind - ahead.min(behind)) * size) as usize);
        let memory = |address: usize, elements: u64| Memory::Host {
            address: HostPointer(address),
            len: elements * size,
        };
        if is_same && needs > 0 && gives > 0 {
            check_in_place(call)?;
            let first = input.expose_provenance() - (ahead * size) as usize;
            output.expose_provenance();
            return Ok(Buffers::InPlace(memory(first, call.in_place_elements(ranks, rank))));
        }
        check_apart(call, (input.addr(), needs * size), (output.addr(), gives * size))?;
        let (input, output) = (input.expose_provenance(), output.expose_provenance());
        Ok(Buffers::Apart { input: memory(input, needs), output: memory(output, gives) })
    }
}

/// Buffers that overlap without being in place are a mistake. Those with tables may lie in each other's gaps.
fn check_apart(call: &Collective<'_>, input: (usize, u64), output: (usize, u64)) -> Result<()> {
    let end = |(start, len): (usize, u64)| (start as u64).saturating_add(len);
    let is_apart = end(input) <= output.0 as u64 || end(output) <= input.0 as u64;
    if is_apart || input.1 == 0 || output.1 == 0 || call.kind().is_tabled() {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{call}: input and output overlap without being in place; in place, the smaller one is this rank's block of \
         the larger one"
    )))
}
