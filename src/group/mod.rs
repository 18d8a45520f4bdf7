//! Groups: any number of calls at once.
#![allow(unsafe_code)] // hands callers' buffers to the engine

mod entries;
mod owned;

pub(crate) use entries::Entries;
pub use owned::{GroupBuffers, GroupWork, Held, OwnedGroup};

use crate::communicator::{Communicator, Shared, check_in_place, check_size, host, host_mut};
use crate::engine::Buffers;
use crate::reduction::Reduction;
use entries::Place;
use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;
use ubccl_core::endpoint::{HostPointer, Memory};
use ubccl_core::plan::Side;
use ubccl_core::{Collective, DataType, Element, Error, Kind, Rank, ReduceOp, Result};

/// Groups of which the memory is kept.
const SPARE_GROUPS: usize = 4;

/// Calls that are collected to run at once: messages to and from any number of ranks, and collectives.
///
/// All messages of a group are concurrent: none waits for another, so that ranks may exchange in any pattern without
/// thinking of an order. Those of a pair keep their order, within a group, between groups and with [`Communicator::send`]
/// and [`Communicator::receive`]: the k-th sent meets the k-th received. Collectives of a group keep theirs.
///
/// A message of a rank to itself is copied: the k-th to the k-th, both in the same group. Buffers that are received
/// into lie apart.
/// ```
/// # fn exchange(comm: &ubccl::Communicator) -> ubccl::Result<()> {
/// let (next, previous) = ((comm.rank() + 1) % comm.ranks(), (comm.rank() + comm.ranks() - 1) % comm.ranks());
/// let (a, mut b) = ([comm.rank() as i32], [0]);
/// let mut group = comm.group();
/// group.send(&a, next)?;
/// group.receive(&mut b, previous)?;
/// group.run()?;
/// assert_eq!(b, [previous as i32]);
/// # Ok(())
/// # }
/// ```
/// Source: ncclGroupStart and ncclGroupEnd.
#[derive(Debug)]
#[must_use = "a group does nothing until run()"]
pub struct Group<'g> {
    collection: Collection,
    /// Products of pre-multiplied sums.
    products: Vec<Vec<u8>>,
    buffers: PhantomData<&'g mut [u8]>,
}

/// What both forms of a group collect; gives its memory back in the end.
#[derive(Debug)]
struct Collection {
    shared: Arc<Shared>,
    entries: Entries,
}

impl Communicator {
    /// Begins a group; its calls run at once by [`Group::run`].
    pub fn group(&self) -> Group<'_> {
        self.group_raw()
    }

    /// Begins a group that borrows nothing for less than the whole program, for raw memory. It does not keep the
    /// communicator open.
    pub fn group_raw(&self) -> Group<'static> {
        Group { collection: Collection::new(&self.shared), products: Vec::new(), buffers: PhantomData }
    }

    /// Begins a group that owns its buffers, so that nobody has to wait for it.
    pub fn group_owned(&self) -> OwnedGroup<'_> {
        OwnedGroup::new(Collection::new(&self.shared))
    }
}

impl<'g> Group<'g> {
    /// Sends `buffer` to `peer`.
    ///
    /// Errors: InvalidArgument, here and for every other call: it is not in the group then.
    pub fn send<T: Element>(&mut self, buffer: &'g [T], peer: Rank) -> Result<()> {
        self.collection.add(Side::Send, peer, place(buffer))
    }

    /// Receives into `buffer` what `peer` sends.
    pub fn receive<T: Element>(&mut self, buffer: &'g mut [T], peer: Rank) -> Result<()> {
        self.collection.add(Side::Receive, peer, place_mut(buffer))
    }

    /// All-reduces. See [`Communicator::all_reduce`].
    pub fn all_reduce<T: Element>(&mut self, send: &'g [T], recv: &'g mut [T], op: ReduceOp) -> Result<()> {
        let call = Collective::all_reduce(send.len() as u64, T::DTYPE, op);
        self.call(&call, bytemuck::cast_slice(send), bytemuck::cast_slice_mut(recv))
    }

    /// All-reduces in place. See [`Communicator::all_reduce_in_place`].
    pub fn all_reduce_in_place<T: Element>(&mut self, buffer: &'g mut [T], op: ReduceOp) -> Result<()> {
        let call = Collective::all_reduce(buffer.len() as u64, T::DTYPE, op);
        self.call_in_place(&call, bytemuck::cast_slice_mut(buffer))
    }

    /// Any collective, on bytes. See [`Communicator::run`]. A send/receive is two messages.
    pub fn call(&mut self, call: &Collective<'_>, input: &'g [u8], output: &'g mut [u8]) -> Result<()> {
        self.collection.call(call, input, output)
    }

    /// Any collective in place. See [`Communicator::run_in_place`].
    pub fn call_in_place(&mut self, call: &Collective<'_>, buffer: &'g mut [u8]) -> Result<()> {
        self.collection.call_in_place(call, buffer)
    }

    /// Sends `count` elements of raw memory.
    ///
    /// # Safety
    /// `buffer` is readable for `count` elements (null is fine for none) and not written until the group is over.
    pub unsafe fn send_raw(
        &mut self,
        (buffer, count, dtype): (*const u8, u64, DataType),
        peer: Rank,
    ) -> Result<()> {
        let address = HostPointer(buffer.expose_provenance());
        self.collection.add(Side::Send, peer, Place { address, count, dtype })
    }

    /// Receives `count` elements into raw memory.
    ///
    /// # Safety
    /// `buffer` is writable for `count` elements (null is fine for none) and left alone until the group is over.
    pub unsafe fn receive_raw(
        &mut self,
        (buffer, count, dtype): (*mut u8, u64, DataType),
        peer: Rank,
    ) -> Result<()> {
        let address = HostPointer(buffer.expose_provenance());
        self.collection.add(Side::Receive, peer, Place { address, count, dtype })
    }

    /// Any collective on raw memory. See [`Communicator::run_raw`].
    ///
    /// # Safety
    /// As [`Communicator::run_raw`], until the group is over.
    pub unsafe fn call_raw(
        &mut self,
        call: &Collective<'_>,
        input: *const u8,
        output: *mut u8,
    ) -> Result<()> {
        let Collection { shared, .. } = &self.collection;
        call.check(shared.ranks, shared.rank)?;
        let buffers = shared.raw_buffers(call, input, output)?;
        self.collection.add_call(call, buffers)
    }

    /// The same for a call that combines with `reduction`. See [`Communicator::run_raw_reducing`].
    ///
    /// # Safety
    /// As [`Group::call_raw`].
    pub unsafe fn call_raw_reducing(
        &mut self,
        call: &Collective<'_>,
        reduction: Reduction,
        input: *const u8,
        output: *mut u8,
    ) -> Result<()> {
        let Collection { shared, .. } = &self.collection;
        call.check(shared.ranks, shared.rank)?;
        // SAFETY: the caller vouches for both.
        let products = unsafe { shared.multiply(call, reduction, input, output) }?;
        let input = products.as_ref().map_or(input, |products| products.as_ptr());
        // The vector's memory stays where it is when the vector moves.
        self.products.extend(products);
        // SAFETY: the caller vouches for both; products are kept until the group is over.
        unsafe { self.call_raw(call, input, output) }
    }

    /// Runs the group and blocks until all of it is done.
    ///
    /// Errors: InvalidArgument or Unsupported: nothing was sent. Otherwise as [`Communicator::all_reduce`].
    pub fn run(mut self) -> Result<()> {
        let Collection { shared, entries } = &mut self.collection;
        let mut engine = shared.lock();
        // SAFETY: all buffers are borrowed for as long as the group, or vouched for by who added them raw; when
        // `wait_borrowed` returns, nothing is under way.
        unsafe { entries.issue(shared, &mut engine, &|| None) }?;
        drop(engine);
        shared.wait_borrowed(shared.lock(), &entries.ops).map(drop)
    }

    /// Issues the group without waiting. The work gives no buffers back: there are none that it owns.
    ///
    /// # Safety
    /// Everything in the group was added raw, or stays borrowed: until the work's wait has returned, or the communicator
    /// is poisoned and [`Communicator::abort`] has returned, all memory is as its call needs it.
    pub unsafe fn issue_raw(self) -> Result<GroupWork> {
        let owned = self.products.into_iter().map(|products| Box::new(products) as Box<dyn Any + Send>);
        // SAFETY: the caller vouches.
        unsafe { self.collection.issue(owned.collect()) }
    }
}

impl Collection {
    fn new(shared: &Arc<Shared>) -> Self {
        let entries = shared.spare_groups.lock().pop().unwrap_or_default();
        Collection { shared: shared.clone(), entries }
    }

    fn add(&mut self, side: Side, peer: Rank, place: Place) -> Result<()> {
        self.entries.add(&self.shared, side, peer, place)
    }

    fn call(&mut self, call: &Collective<'_>, input: &[u8], output: &mut [u8]) -> Result<()> {
        let (ranks, rank) = (self.shared.ranks, self.shared.rank);
        call.check(ranks, rank)?;
        check_size(call, "input", input.len(), call.input_elements(ranks, rank))?;
        check_size(call, "output", output.len(), call.output_elements(ranks, rank))?;
        let input = host(input.as_ptr(), input.len());
        self.add_call(call, Buffers::Apart { input, output: host_mut(output) })
    }

    fn call_in_place(&mut self, call: &Collective<'_>, buffer: &mut [u8]) -> Result<()> {
        let (ranks, rank) = (self.shared.ranks, self.shared.rank);
        call.check(ranks, rank)?;
        check_in_place(call)?;
        check_size(call, "buffer", buffer.len(), call.in_place_elements(ranks, rank))?;
        self.add_call(call, Buffers::InPlace(host_mut(buffer)))
    }

    fn add_call(&mut self, call: &Collective<'_>, buffers: Buffers) -> Result<()> {
        match (call.kind(), buffers) {
            (Kind::Group, _) => Err(Error::invalid("a group has no groups in it; add their messages")),
            (Kind::SendReceive, Buffers::Apart { input, output }) => {
                if let Some(to) = call.to() {
                    self.add(Side::Send, to, place_of(call, &input))?;
                }
                call.from().map_or(Ok(()), |from| self.add(Side::Receive, from, place_of(call, &output)))
            }
            (Kind::SendReceive, Buffers::InPlace(_)) => Err(Error::invalid(format!(
                "{call}: in a group, a send/receive has two buffers: nothing says which message goes first"
            ))),
            (_, buffers) => {
                self.shared.check_call(call)?;
                self.entries.add_call(call, buffers);
                Ok(())
            }
        }
    }

    /// Issues all of it without waiting.
    ///
    /// # Safety
    /// As for `Entries::issue`; memory in `owned` is kept until the operations are over.
    unsafe fn issue(mut self, owned: Vec<Box<dyn Any + Send>>) -> Result<GroupWork> {
        let shared = self.shared.clone();
        let owned = owned::share(owned);
        let mut engine = shared.lock();
        // SAFETY: the caller vouches; each operation keeps what is owned.
        unsafe { self.entries.issue(&shared, &mut engine, &|| Some(Box::new(owned.clone()))) }?;
        shared.carry_on(engine, &self.entries.ops);
        Ok(GroupWork::new(shared.clone(), self.entries.ops.clone(), owned))
    }
}

impl Drop for Collection {
    fn drop(&mut self) {
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        let mut spare = self.shared.spare_groups.lock();
        if spare.len() < SPARE_GROUPS {
            spare.push(entries);
        }
    }
}

fn place<T: Element>(buffer: &[T]) -> Place {
    let address = HostPointer(buffer.as_ptr().expose_provenance());
    Place { address, count: buffer.len() as u64, dtype: T::DTYPE }
}

fn place_mut<T: Element>(buffer: &mut [T]) -> Place {
    let address = HostPointer(buffer.as_mut_ptr().expose_provenance());
    Place { address, count: buffer.len() as u64, dtype: T::DTYPE }
}

fn place_of(call: &Collective<'_>, memory: &Memory) -> Place {
    let address = match memory {
        Memory::Host { address, .. } => *address,
        Memory::Phantom { .. } => HostPointer(0),
    };
    Place { address, count: call.count(), dtype: call.dtype() }
}
