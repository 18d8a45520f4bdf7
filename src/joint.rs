//! The joint plan of a group: its messages in the order of the tables, sends beside receives.
//!
//! Why it ends: see [`ubccl_core::group`].

use ubccl_core::plan::{Association, Buffer, Index, Peers, Plan, PlanBuilder, Shape, Side, Trips};
use ubccl_core::{Algorithm, AlgorithmDescriptor, Error, Kind, Result, Spec};

/// Makes joint plans.
pub(crate) static JOINT: Joint = Joint;

/// See the module.
#[derive(Debug)]
pub(crate) struct Joint;

/// Messages under way each way.
const WINDOW: u32 = 64;

impl Algorithm for Joint {
    fn descriptor(&self) -> &'static AlgorithmDescriptor {
        &AlgorithmDescriptor {
            name: "joint",
            summary: "a group's messages, as listed",
            source: "semantics of ncclGroupStart and ncclGroupEnd",
        }
    }

    fn supports(&self, kind: Kind, _ranks: u32) -> Result<()> {
        match kind {
            Kind::Group => Ok(()),
            _ => Err(Error::unsupported(format!("a joint plan is for groups, not for {}", kind.name()))),
        }
    }

    fn plan(&self, spec: &Spec) -> Plan {
        let mut plan = PlanBuilder::new(spec, self.descriptor().name, Association::None);
        for (side, buffer) in [(Side::Send, Buffer::Input), (Side::Receive, Buffer::Output)] {
            let message = Shape::whole(buffer).block(side, Index::INNER);
            let peer = Index::INNER.peer_of(side);
            plan.lane(WINDOW);
            plan.repeat(Trips::ONCE, Trips::Entries(side));
            match side {
                Side::Send => plan.send(message, Peers::one(peer)),
                Side::Receive => plan.receive(message, peer),
            };
        }
        plan.finish()
    }
}
