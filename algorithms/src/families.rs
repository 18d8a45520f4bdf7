//! Families that stand alone as well: a composition of one level.

use crate::composition::{Tier, profile, schedule, supports};
use crate::halving_doubling::HalvingDoubling;
use crate::nb::Nb;
use crate::nhr::Nhr;
use crate::team::Family;
use ubccl_core::plan::Plan;
use ubccl_core::{Algorithm, AlgorithmDescriptor, Kind, Layout, Profile, Result, Spec};

/// A family over all ranks.
pub struct Alone {
    family: &'static dyn Family,
    descriptor: &'static AlgorithmDescriptor,
}

/// Recursive halving and doubling.
pub static HALVING_DOUBLING: Alone = Alone {
    family: &HalvingDoubling,
    descriptor: &AlgorithmDescriptor {
        name: "halving-doubling",
        summary: "partners at powers of two; 2 log2 steps and least bytes, two steps more for other counts",
        source: "Rabenseifner, ICCS 2004",
    },
};

/// NHR, nonuniform hierarchical ring.
pub static NHR: Alone = Alone {
    family: &Nhr,
    descriptor: &AlgorithmDescriptor {
        name: "nhr",
        summary: "shifted trees; 2 log2 steps and least bytes for any count, most of them to near ranks",
        source: "HCCL, nonuniform hierarchical ring",
    },
};

/// NB, nonuniform Bruck.
pub static NB: Alone = Alone {
    family: &Nb,
    descriptor: &AlgorithmDescriptor {
        name: "nb",
        summary: "what a rank knows doubles; log2 steps and least bytes for any count, in one or two messages a step",
        source: "Bruck et al., IEEE TPDS 8 (1997)",
    },
};

impl Alone {
    fn tiers(&self) -> [Tier; 1] {
        [Tier { level: 0, family: self.family }]
    }
}

impl Algorithm for Alone {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        self.descriptor
    }

    fn supports(&self, kind: Kind, ranks: u32) -> Result<()> {
        supports(self.descriptor.name, (&self.tiers(), &[ranks]), kind, ranks)
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let flat = Layout::flat(spec.ranks);
        schedule(spec, self.descriptor.name, &self.tiers(), &flat, &flat).finish()
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        let flat = Layout::flat(spec.ranks);
        profile(spec, self.descriptor.name, &self.tiers(), &flat, layout)
    }
}
