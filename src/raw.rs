//! Calls on raw memory, for interfaces to other languages.
#![allow(unsafe_code)] // the caller vouches for pointers

use crate::communicator::{Communicator, Shared, check_in_place};
use crate::engine::Buffers;
use crate::work::Work;
use ubccl_core::endpoint::{HostPointer, Memory};
use ubccl_core::{Collective, Error, Result};

impl Communicator {
    /// Any collective on raw memory; in place if the pointers stand to each other as
    /// [`Collective::in_place_offsets`] says (NCCL's rule). Blocks.
    ///
    /// # Safety
    /// `input` is readable and `output` writable for what the call needs on this rank (null is fine for nothing), and
    /// both are left alone until it returns. They overlap only if in place.
    pub unsafe fn run_raw(&self, call: &Collective<'_>, input: *const u8, output: *mut u8) -> Result<()> {
        let buffers = self.raw_buffers(call, input, output)?;
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
        let buffers = self.raw_buffers(call, input, output)?;
        // SAFETY: the caller vouches for both until the operation is over.
        let op = unsafe { self.shared.issue(call, buffers, Some(Box::new(()))) }?;
        Ok(Work::new(self.shared.clone(), op))
    }

    /// Checks a call, and sees whether it is in place.
    fn raw_buffers(&self, call: &Collective<'_>, input: *const u8, output: *mut u8) -> Result<Buffers> {
        self.shared.check_call(call)?;
        self.shared.raw_buffers(call, input, output)
    }
}

impl Shared {
    /// The buffers at two addresses; in place if they stand to each other as the kind says.
    ///
    /// Errors: InvalidArgument, if one that is needed is null.
    pub(crate) fn raw_buffers(
        &self,
        call: &Collective<'_>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<Buffers> {
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
        let (input, output) = (input.expose_provenance(), output.expose_provenance());
        Ok(Buffers::Apart { input: memory(input, needs), output: memory(output, gives) })
    }
}
