//! A plan with what one rank's engine makes of it once.

use std::ops::Deref;
use ubccl_core::Spec;
use ubccl_core::direct::{Direct, DirectLimits};
use ubccl_core::endpoint::OnePassCall;
use ubccl_core::plan::Plan;

/// A plan, and how it is done in one round of publications if it can be.
#[derive(Debug)]
pub(crate) struct Planned {
    plan: Plan,
    direct: Option<Direct>,
    direct_limit: u64,
    /// From how many elements on it may be done in one pass over registered memory.
    one_pass_from: Option<u64>,
    number: u32,
    most_edges: usize,
}

impl Planned {
    /// The plan that an algorithm makes, for an endpoint that takes publications within these limits and passes of shares of
    /// so many bytes, of ranks that share cores or do not.
    pub(crate) fn new(
        spec: &Spec,
        algorithm: impl Fn(&Spec) -> Plan,
        (limits, one_pass_from): (DirectLimits, Option<u64>),
        is_crowded: bool,
    ) -> Self {
        let plan = algorithm(spec);
        let direct = if limits.any > 0 { Direct::of(spec, algorithm, is_crowded) } else { None };
        let direct_limit = direct.as_ref().map_or(0, |direct| direct.limit(limits));
        let steps = plan.lanes().iter().flat_map(|lane| &lane.loops).flat_map(|turn| &turn.steps);
        let most_edges = steps.map(|step| step.after.len()).max().unwrap_or(0);
        let suits = || OnePassCall::suits(spec, plan.association());
        let elements = |share: u64| (share * u64::from(spec.ranks)).div_ceil(spec.dtype.size() as u64);
        let one_pass_from = one_pass_from.filter(|_| spec.ranks > 1 && suits()).map(elements);
        Planned { number: plan.number(), most_edges, plan, direct, direct_limit, one_pass_from }
    }

    /// Its round of publications, if it has but one round and the endpoint takes publications.
    #[inline]
    pub(crate) fn direct(&self) -> Option<&Direct> {
        self.direct.as_ref()
    }

    /// Whether a call of `count` elements, longer than publications, may be done in one pass if all have their buffers in
    /// registered memory. All ranks agree on that.
    #[inline]
    pub(crate) fn may_be_one_pass(&self, count: u64) -> bool {
        self.one_pass_from.is_some_and(|least| count >= least)
    }

    /// [`Plan::number`], computed once.
    #[inline]
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The most edges that a step of it has.
    #[inline]
    pub(crate) fn most_edges(&self) -> usize {
        self.most_edges
    }

    /// Bytes of a block of a call of `count` elements, if its publications are within the endpoint's limit. All ranks agree on
    /// that.
    #[inline]
    pub(crate) fn direct_block(&self, count: u64) -> Option<u64> {
        let direct = self.direct.as_ref()?;
        let block_bytes = count.checked_mul(direct.dtype.size() as u64)?;
        let longest = block_bytes.checked_mul(direct.longest)?;
        (longest <= self.direct_limit).then_some(block_bytes)
    }
}

impl Deref for Planned {
    type Target = Plan;

    #[inline]
    fn deref(&self) -> &Plan {
        &self.plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::collective::Collective;
    use ubccl_core::{Choice, DataType, ReduceOp};

    #[test]
    fn only_exchanges_take_the_longest_publications() {
        let limits = DirectLimits { any: 64, exchange: 256 };
        let blocks = |call: fn(u64) -> Collective<'static>, algorithm: &str| {
            let spec = Spec::new(&call(1), 3, 1, false, Choice::default());
            let algorithm = crate::algorithm(algorithm).unwrap();
            let plan = Planned::new(&spec, |spec| algorithm.plan(spec), (limits, None), false);
            [64, 65, 256, 257].map(|count| plan.direct_block(count).is_some())
        };
        let gather = |count| Collective::all_gather(count, DataType::U8);
        let reduce = |count| Collective::all_reduce(count, DataType::U8, ReduceOp::Max);
        let exchange = |count| Collective::all_to_all(count, DataType::U8);
        let broadcast = |count| Collective::broadcast(count, DataType::U8, 0);
        assert_eq!(blocks(gather, "mesh-one-shot"), [true, true, true, false]);
        assert_eq!(blocks(reduce, "mesh-one-shot"), [true, true, true, false]);
        assert_eq!(
            blocks(exchange, "pairwise"),
            [true, true, false, false],
            "two blocks, the own one is not published"
        );
        assert_eq!(blocks(broadcast, "linear"), [true, false, false, false]);
    }
}
