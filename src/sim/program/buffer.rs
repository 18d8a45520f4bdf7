//! What programs of simulated ranks pass to their calls: real elements, or as many that are only followed.

use crate::communicator::host_mut;
use std::marker::PhantomData;
use ubccl_core::endpoint::Memory;
use ubccl_core::{DataType, Element};

/// A buffer of a simulated rank: a `Vec` of elements, or a [`Phantom`].
pub trait Buffer: sealed::Sealed + Sized + Send + 'static {
    /// The type of its elements.
    const DTYPE: DataType;

    /// How many elements it has.
    fn elements(&self) -> usize;

    /// One of so many elements, to be written.
    fn blank(elements: usize) -> Self;
}

mod sealed {
    use super::Memory;

    pub trait Sealed {
        /// Where its elements are, if they are anywhere.
        fn memory(&mut self) -> Option<Memory>;
    }
}

impl<T: Element> sealed::Sealed for Vec<T> {
    fn memory(&mut self) -> Option<Memory> {
        Some(host_mut(bytemuck::cast_slice_mut(self)))
    }
}

impl<T: Element> Buffer for Vec<T> {
    const DTYPE: DataType = T::DTYPE;

    fn elements(&self) -> usize {
        self.len()
    }

    fn blank(elements: usize) -> Self {
        vec![T::zeroed(); elements]
    }
}

/// Elements without bytes: where real ones would not fit, what is followed is who contributed what. Each call on one
/// begins with this rank's own contribution, and what it gives is checked on all ranks: an element that is not what the
/// collective promises ends the communicator with an Internal error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phantom<T> {
    elements: usize,
    element: PhantomData<fn() -> T>,
}

impl<T: Element> Phantom<T> {
    /// One of so many elements.
    pub fn new(elements: usize) -> Self {
        Phantom { elements, element: PhantomData }
    }
}

impl<T: Element> sealed::Sealed for Phantom<T> {
    fn memory(&mut self) -> Option<Memory> {
        None
    }
}

impl<T: Element> Buffer for Phantom<T> {
    const DTYPE: DataType = T::DTYPE;

    fn elements(&self) -> usize {
        self.elements
    }

    fn blank(elements: usize) -> Self {
        Phantom::new(elements)
    }
}

/// Where bytes are.
pub(super) fn real(bytes: &mut [u8]) -> Memory {
    host_mut(bytes)
}
