//! Ordered: each block is summed by one rank, over all ranks in their order, then handed round by another family.
//!
//! ```text
//! all-reduce, the vector cut into p blocks, of which rank r owns one:
//!   send block q to its owner, for every q;   own block = x[0] + x[1] + … + x[p-1], rounded once
//!   all-gather of the blocks: round the ring (ordered-ring), by NB (ordered-nb) or NHR (ordered-nhr)
//!
//! 4 ranks, ordered-nb, what each holds:    rank 0     rank 1     rank 2     rank 3
//!   after the sums                         0          1          2          3
//!   d = 1                                  0 1        1 2        2 3        3 0
//!   d = 2                                  0 1 2 3    1 2 3 0    2 3 0 1    3 0 1 2
//! ```
//!
//! | collective | steps | bytes sent per rank (n bytes in the vector, p ranks) | elements reduced |
//! |---|---|---|---|
//! | all-reduce, ordered-ring | 1 + p−1 | 2(p−1)/p·n | (p−1)/p·n |
//! | all-reduce, ordered-nb, ordered-nhr | 1 + ⌈log2 2p/3⌉ | 2(p−1)/p·n | (p−1)/p·n |
//!
//! Every element is combined in one reduction over ranks 0 to p−1, in that order, on one rank: the same bits as those of
//! both meshes. Beside the two-shot mesh this one sends p−1 messages once and not twice. All p−1 contributions of a block
//! are under way at once, since a sum that is rounded once is one step. For up to 1024 ranks.
//!
//! Source: the direct reduce-scatter is HCCL's mesh; that a fixed order makes sums reproducible is as in J. Demmel and
//! H. D. Nguyen, ARITH 21 (2013), who pay with more arithmetic for any order.

use crate::nb::Nb;
use crate::nhr::Nhr;
use crate::ring::TeamRing;
use crate::schedule::{self, Grid, Schedule};
use crate::share::{mesh_window, refuse};
use crate::team::{Family, Team};
use std::ops::Range;
use ubccl_core::plan::{Association, MAX_WINDOW_PER_PEER, Plan};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Error, Kind, Layout, Profile, ReduceOp, Result, Spec};

/// Sums in rank order, then an all-gather.
pub struct Ordered {
    gathers: &'static dyn Family,
    descriptor: &'static AlgorithmDescriptor,
}

/// Ranks above which a plan that names a message to each would be no small plan.
const MOST_RANKS: u32 = 1024;

const SOURCE: &str = "direct reduce-scatter in rank order, then an all-gather";

/// With the ring's all-gather.
pub static ORDERED_RING: Ordered = Ordered {
    gathers: &TeamRing,
    descriptor: &AlgorithmDescriptor {
        name: "ordered-ring",
        summary: "sums in rank order, then round the ring; reproducible, for up to 64 ranks",
        source: SOURCE,
    },
};

/// With NB's all-gather.
pub static ORDERED_NB: Ordered = Ordered {
    gathers: &Nb,
    descriptor: &AlgorithmDescriptor {
        name: "ordered-nb",
        summary: "sums in rank order, then nonuniform Bruck; reproducible, half the mesh's messages",
        source: SOURCE,
    },
};

/// With NHR's all-gather.
pub static ORDERED_NHR: Ordered = Ordered {
    gathers: &Nhr,
    descriptor: &AlgorithmDescriptor {
        name: "ordered-nhr",
        summary: "sums in rank order, then NHR; reproducible, most bytes of the second half to near ranks",
        source: SOURCE,
    },
};

impl Ordered {
    fn schedule<'a>(&self, spec: &Spec, machine: &'a Layout) -> Schedule<'a> {
        let (parts, shares) = self.gathers.shares(spec.ranks);
        let grid = Grid::new(&[parts]);
        let mut schedule = Schedule::new(spec, self.descriptor.name, Association::Flat, machine, grid);
        let one = |share: &Range<u32>| vec![share.clone()];
        let team = Team {
            ranks: (0..spec.ranks).collect(),
            me: spec.rank as usize,
            blocks: shares.iter().map(one).collect(),
        };
        schedule.phase(mesh_window(spec));
        schedule.round();
        schedule.reduce(&team.blocks([0]), &team.others());
        for by in 1..team.len() as isize {
            schedule.send(&team.blocks([by]), &[team.rank(by)]);
        }
        schedule.phase(self.gathers.window(team.len()));
        self.gathers.all_gather(&mut schedule, &team);
        schedule
    }
}

impl Algorithm for Ordered {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        self.descriptor
    }

    fn supports(&self, kind: Kind, ranks: u32) -> Result<()> {
        let name = self.descriptor.name;
        if kind != Kind::AllReduce {
            return refuse(name, kind, "it is an all-reduce; in rank order reduce the meshes and linear");
        }
        if ranks > MOST_RANKS {
            return Err(Error::unsupported(format!(
                "{name} does at most {MOST_RANKS} ranks, not {ranks}: its plan names every message; use mesh-two-shot"
            )));
        }
        // A lane that talks to more than 64 ranks names each of them in at most 64 steps: two are the first half's, and an
        // all-gather sends to and receives from one.
        let messages = 2 + 2 * self.gathers.messages(ranks);
        if ranks > MAX_WINDOW_PER_PEER && messages > MAX_WINDOW_PER_PEER {
            return Err(Error::unsupported(format!(
                "{name} does not do {ranks} ranks: two of them would exchange more than {MAX_WINDOW_PER_PEER} messages \
                 in a lane that talks to all; use ordered-nb"
            )));
        }
        Ok(())
    }

    /// Any: an element is combined once, from all ranks in their order.
    fn supports_op(&self, _op: ReduceOp) -> Result<()> {
        Ok(())
    }

    fn plan(&self, spec: &Spec) -> Plan {
        self.schedule(spec, &Layout::flat(spec.ranks)).finish()
    }

    fn profile(&self, spec: &Spec, layout: &Layout) -> Profile {
        schedule::profile(spec, layout, |spec| self.schedule(spec, layout))
    }
}
