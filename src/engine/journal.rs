//! What an engine has begun, for recordings: which plan, laid out for which call.

use crate::planned::Planned;
use std::sync::Arc;
use ubccl_core::Signature;
use ubccl_core::endpoint::Stream;
use ubccl_core::plan::Binding;

/// An operation that was begun.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) stream: Stream,
    pub(crate) signature: Signature,
    pub(crate) plan: Arc<Planned>,
    pub(crate) binding: Binding,
}
