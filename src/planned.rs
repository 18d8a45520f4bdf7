//! A plan with what one rank's engine makes of it once.

use std::ops::Deref;
use ubccl_core::Spec;
use ubccl_core::direct::{Direct, DirectLimits};
use ubccl_core::plan::Plan;

/// A plan, and how it is done in one round of publications if it can be.
#[derive(Debug)]
pub(crate) struct Planned {
    plan: Plan,
    direct: Option<Direct>,
    direct_limit: u64,
    number: u32,
    most_edges: usize,
}

impl Planned {
    /// The plan that an algorithm makes, for an endpoint that takes publications within these limits.
    pub(crate) fn new(spec: &Spec, algorithm: impl Fn(&Spec) -> Plan, limits: DirectLimits) -> Self {
        let plan = algorithm(spec);
        let direct = if limits.any > 0 { Direct::of(spec, algorithm) } else { None };
        let direct_limit = direct.as_ref().map_or(0, |direct| direct.limit(limits));
        let steps = plan.lanes().iter().flat_map(|lane| &lane.loops).flat_map(|turn| &turn.steps);
        let most_edges = steps.map(|step| step.after.len()).max().unwrap_or(0);
        Planned { number: plan.number(), most_edges, plan, direct, direct_limit }
    }

    /// Its round of publications, if it has but one round and the endpoint takes publications.
    #[inline]
    pub(crate) fn direct(&self) -> Option<&Direct> {
        self.direct.as_ref()
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

    /// Bytes of a block of a call of `count` elements, if its publications are within the endpoint's limit. All ranks agree on that.
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
