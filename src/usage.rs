//! What a communicator has moved, by link class, and what it keeps in memory, by kind.

use crate::Communicator;
use std::fmt;
use ubccl_core::Rank;
use ubccl_core::endpoint::{Counters, Endpoint};
use ubccl_core::plan::{Action, Lane, Loop, Peers, Place, Plan, Step};
use ubccl_core::usage::{MemoryKind, Over};

/// How far apart two ranks are. It is the place of the peer that counts, not the transport that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkClass {
    /// Threads of one process.
    SameProcess,
    /// Processes of one host.
    SameHost,
    /// Different hosts.
    Network,
    /// Ranks that share this level of a simulated fabric and no smaller one.
    Level(String),
}

impl fmt::Display for LinkClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkClass::SameProcess => "same process",
            LinkClass::SameHost => "same host",
            LinkClass::Network => "network",
            LinkClass::Level(name) => name,
        })
    }
}

/// What one rank has sent and received so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Over all links.
    pub total: Counters,
    /// For each class that a peer of this rank has.
    pub by_class: Vec<(LinkClass, Counters)>,
}

impl Traffic {
    /// What an endpoint counts, in the classes of its peers.
    pub(crate) fn of(
        endpoint: &dyn Endpoint,
        class_of: impl Fn(Rank) -> LinkClass,
        ranks: u32,
        me: Rank,
    ) -> Self {
        let mut traffic = Traffic { total: endpoint.counters(), by_class: Vec::new() };
        endpoint.count_links(&mut |over, counters| match over {
            Over::Peer(peer) if peer == me || peer >= ranks => {}
            Over::Peer(peer) => traffic.add(class_of(peer), counters),
            Over::Process => traffic.add(LinkClass::SameProcess, counters),
            Over::Level(name) => traffic.add(LinkClass::Level(name.to_owned()), counters),
        });
        traffic
    }

    fn add(&mut self, class: LinkClass, counters: Counters) {
        match self.by_class.iter_mut().find(|row| row.0 == class) {
            Some((_, sum)) => *sum += counters,
            None => self.by_class.push((class, counters)),
        }
    }

    /// Over links of one class.
    pub fn over(&self, class: &LinkClass) -> Counters {
        self.by_class.iter().find(|row| row.0 == *class).map_or(Counters::default(), |row| row.1)
    }
}

/// Bytes of memory that a communicator takes on one rank, by kind. The caller's buffers are the caller's, and what the
/// kernel keeps for sockets is not told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse([u64; MemoryKind::ALL.len()]);

impl MemoryUse {
    pub(crate) fn add(&mut self, kind: MemoryKind, bytes: u64) {
        self.0[kind as usize] += bytes;
    }

    /// Of one kind.
    pub fn of(&self, kind: MemoryKind) -> u64 {
        self.0[kind as usize]
    }

    /// Of every kind that is this rank's: all but [`MemoryKind::Mapped`], which other ranks count.
    pub fn total(&self) -> u64 {
        self.0.iter().sum::<u64>() - self.of(MemoryKind::Mapped)
    }
}

/// `1060864 B: shared 528384, mapped 1056768, …`: the total, then each kind.
impl fmt::Display for MemoryUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B:", self.total())?;
        for (k, kind) in MemoryKind::ALL.into_iter().enumerate() {
            write!(f, "{} {} {}", if k > 0 { "," } else { "" }, kind.name(), self.of(kind))?;
        }
        Ok(())
    }
}

impl Communicator {
    /// Messages and bytes that this rank has sent and received so far: in total, and for each class of peers (same
    /// process, same host, network).
    pub fn counters(&self) -> Traffic {
        let class_of = |peer| self.shared.control.link_class(peer);
        Traffic::of(self.shared.lock().links(), class_of, self.ranks(), self.rank())
    }

    /// Bytes of memory that this communicator takes on this rank, by kind.
    pub fn memory(&self) -> MemoryUse {
        let mut memory = self.shared.lock().memory();
        let kind = if self.rank() == 0 { MemoryKind::Shared } else { MemoryKind::Mapped };
        memory.add(kind, self.shared.control.board().bytes());
        memory
    }

    /// Logs it, if somebody asks.
    pub(crate) fn tell_memory(&self) {
        if tracing::enabled!(target: "ubccl::memory", tracing::Level::INFO) {
            tracing::info!(target: "ubccl::memory", rank = self.rank(), "{}", self.memory());
        }
    }
}

/// Bytes that a plan takes.
pub(crate) fn plan_bytes(plan: &Plan) -> usize {
    let listed = |peers: &Peers| match peers {
        Peers::List(list) => size_of_val(&**list),
        _ => 0,
    };
    let step = |step: &Step| {
        let peers = match &step.action {
            Action::Send { to, .. } => listed(to),
            Action::ReceiveReduce { sources, .. } => listed(sources),
            _ => 0,
        };
        size_of::<Step>() + size_of::<Place>() + size_of_val(&*step.after) + peers
    };
    let of_loop = |turns: &Loop| size_of::<Loop>() + turns.steps.iter().map(step).sum::<usize>();
    let lane = |lane: &Lane| size_of_val(lane) + lane.loops.iter().map(of_loop).sum::<usize>();
    size_of::<Plan>() + plan.lanes().iter().map(lane).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::{Choice, Collective, DataType, ReduceOp, Spec};

    #[test]
    fn the_total_leaves_out_what_others_count() {
        let mut memory = MemoryUse::default();
        for (k, kind) in MemoryKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, k);
            memory.add(kind, 10_u64.pow(k as u32));
        }
        assert_eq!(memory.total(), 1_111_101);
        assert!(memory.to_string().starts_with("1111101 B: shared 1, mapped 10,"), "{memory}");
    }

    #[test]
    fn a_plan_has_a_size_that_its_steps_make_up() {
        let plan = |ranks| {
            let call = Collective::all_reduce(1, DataType::F32, ReduceOp::Sum);
            crate::algorithm("mesh-one-shot").unwrap().plan(&Spec::new(
                &call,
                ranks,
                0,
                false,
                Choice::default(),
            ))
        };
        let steps: usize =
            plan(4).lanes().iter().flat_map(|lane| &lane.loops).map(|turns| turns.steps.len()).sum();
        let bytes = plan_bytes(&plan(4));
        assert!(bytes > steps * size_of::<Step>() && bytes < 64 << 10, "{bytes} for {steps} steps");
    }
}
