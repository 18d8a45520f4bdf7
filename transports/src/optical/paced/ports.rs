//! The ports of one rank in wall-clock time: the model's formulas ([`super::super`], `loggp`), on a clock that all ranks
//! share.

use crate::optical::Fabric;
use crate::optical::fabric::Costs;
use ubccl_core::endpoint::Stream;
use ubccl_core::topology::time_at_rate_ps;
use ubccl_core::{Rank, Result};

/// The injection and the reception port of one rank.
#[derive(Debug)]
pub(super) struct Ports {
    fabric: Fabric,
    rank: Rank,
    ranks: u32,
    injection_free_ps: u64,
    reception_free_ps: u64,
    /// When its copying and reducing are free again.
    compute_free_ps: u64,
    /// The operation that was posted for last, and when its engine is ready.
    operation: Option<Stream>,
    ready_ps: u64,
    /// The last collective that was started.
    started: u64,
}

/// When a message that is sent leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Injection {
    /// Its first byte reaches the receiver's port.
    pub(super) head_ps: u64,
    /// Its last byte has left.
    pub(super) sent_ps: u64,
}

impl Ports {
    pub(super) fn new(fabric: &Fabric, rank: Rank, ranks: u32) -> Self {
        Ports {
            fabric: fabric.clone(),
            rank,
            ranks,
            injection_free_ps: 0,
            reception_free_ps: 0,
            compute_free_ps: 0,
            operation: None,
            ready_ps: 0,
            started: 0,
        }
    }

    /// The engine that a post is for.
    ///
    /// Errors: Internal, for one that there is not.
    pub(super) fn engine(&self, wanted: Option<u8>) -> Result<u8> {
        self.fabric.engine(wanted)
    }

    /// Something is posted now for an operation: when its engine is ready. A collective's first post starts it.
    pub(super) fn operate(&mut self, now_ps: u64, engine: u8, stream: Stream) -> u64 {
        if self.operation != Some(stream) {
            (self.operation, self.ready_ps) = (Some(stream), now_ps);
            if let Stream::Collective(sequence) = stream
                && sequence > self.started
            {
                self.started = sequence;
                self.ready_ps = now_ps.saturating_add(self.fabric.costs(engine).start_ps);
            }
        }
        self.ready_ps.max(now_ps)
    }

    /// How long an engine takes to reduce so many terms of so many bytes to one.
    pub(super) fn reduction_ps(&self, engine: u8, terms: usize, bytes: u64) -> u64 {
        let Costs { reduce_bytes_per_s, fold_ps, .. } = *self.fabric.costs(engine);
        let folds = (terms as u64).saturating_sub(1);
        let bytes_ps =
            reduce_bytes_per_s.map_or(0, |rate| time_at_rate_ps(folds.saturating_mul(bytes), rate.get()));
        folds.saturating_mul(fold_ps).saturating_add(bytes_ps)
    }

    /// How long an engine takes to copy so many bytes.
    pub(super) fn copy_ps(&self, engine: u8, bytes: u64) -> u64 {
        let rate = self.fabric.costs(engine).copy_bytes_per_s;
        rate.map_or(0, |rate| time_at_rate_ps(bytes, rate.get()))
    }

    /// What takes so long may begin at that time: when it is done. A rank does one at a time.
    pub(super) fn compute(&mut self, from_ps: u64, duration_ps: u64) -> u64 {
        self.compute_free_ps = from_ps.max(self.compute_free_ps).saturating_add(duration_ps);
        self.compute_free_ps
    }

    /// A message is posted now, for an engine to send.
    pub(super) fn inject(&mut self, now_ps: u64, (engine, peer): (u8, Rank), bytes: u64) -> Injection {
        let link = self.fabric.link(engine, self.rank, peer);
        let serialisation_ps = link.serialisation_ps(bytes);
        let start_ps = now_ps.saturating_add(link.send_overhead_ps).max(self.injection_free_ps);
        self.injection_free_ps = start_ps.saturating_add(link.gap_ps.max(serialisation_ps));
        let passing_ps = self.fabric.topology().passing_ps(self.rank, peer, self.ranks);
        let head_ps = start_ps.saturating_add(link.latency_ps).saturating_add(passing_ps);
        Injection { head_ps, sent_ps: start_ps.saturating_add(serialisation_ps) }
    }

    /// A message's head came at that time; when the message is there.
    pub(super) fn receive(&mut self, head_ps: u64, (engine, peer): (u8, Rank), bytes: u64) -> u64 {
        let link = self.fabric.link(engine, peer, self.rank);
        let delivered_ps = head_ps.max(self.reception_free_ps).saturating_add(link.serialisation_ps(bytes));
        self.reception_free_ps = delivered_ps;
        delivered_ps.saturating_add(link.receive_overhead_ps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports() -> Ports {
        let toml = "name = 'slow'\n[topology]\nunit = 'NPU'\n[[topology.level]]\nname = 'node'\nholds = 4\n
            link = { latency_ps = 5000, rate_bytes_per_s = 1_000_000_000_000, send_overhead_ps = 10,
            receive_overhead_ps = 20, gap_ps = 100 }";
        Ports::new(&Fabric::parse(toml).unwrap(), 0, 4)
    }

    #[test]
    fn messages_follow_one_another_through_a_port() {
        let mut ports = ports();
        assert_eq!(ports.inject(1000, (0, 1), 64), Injection { head_ps: 6010, sent_ps: 1074 });
        // After the gap, which is longer than 64 bytes take.
        assert_eq!(ports.inject(1000, (0, 2), 300), Injection { head_ps: 6110, sent_ps: 1410 });
        assert_eq!(ports.inject(1000, (0, 1), 0), Injection { head_ps: 6410, sent_ps: 1410 });
        assert_eq!(ports.inject(9000, (0, 1), 1), Injection { head_ps: 14_010, sent_ps: 9011 });
    }

    #[test]
    fn a_message_takes_the_link_of_its_engine() {
        let mut ports = Ports::new(&Fabric::parse("cloudmatrix384-die+write+read").unwrap(), 0, 64);
        // What Table 1 says of 512 bytes to another NPU of the node.
        for (engine, published_ps) in [(0, 1_300_000), (1, 1_200_000)] {
            let start_ps = u64::from(engine) * 5_000_000;
            let head_ps = ports.inject(start_ps, (engine, 2), 512).head_ps;
            assert_eq!(ports.receive(head_ps, (engine, 2), 512), start_ps + published_ps);
        }
        assert!(ports.engine(Some(2)).is_err());
    }

    #[test]
    fn a_collective_starts_once_and_its_folds_follow_one_another() {
        let toml = "name = 'slow'\n[topology]\nunit = 'NPU'\n[[topology.level]]\nname = 'node'\nholds = 4\n
            link = { latency_ps = 5000, rate_bytes_per_s = 1_000_000_000_000 }\n[[engine]]\nname = 'software'\n
            start_ps = 7000\nfold_ps = 50\nreduce_bytes_per_s = 1_000_000_000\ncopy_bytes_per_s = 500_000_000";
        let mut ports = Ports::new(&Fabric::parse(toml).unwrap(), 0, 4);
        let [one, two] = [1, 2].map(Stream::Collective);
        assert_eq!(ports.operate(1000, 0, one), 8000);
        assert_eq!([3000, 9000].map(|now_ps| ports.operate(now_ps, 0, one)), [8000, 9000]);
        assert_eq!(ports.operate(9000, 0, Stream::Direct), 9000, "messages start at once");
        assert_eq!(ports.operate(9100, 0, one), 9100, "it has started");
        assert_eq!(ports.operate(9200, 0, two), 16_200);
        assert_eq!([1, 3].map(|terms| ports.reduction_ps(0, terms, 8)), [0, 16_100]);
        assert_eq!(ports.copy_ps(0, 8), 16_000);
        assert_eq!(ports.compute(20_000, 16_100), 36_100);
        assert_eq!(ports.compute(30_000, 16_000), 52_100);
    }

    #[test]
    fn what_comes_together_is_received_in_turn() {
        let mut ports = ports();
        assert_eq!(ports.receive(6000, (0, 1), 64), 6084);
        assert_eq!(ports.receive(6000, (0, 2), 1000), 7084);
        assert_eq!(ports.receive(9000, (0, 3), 1), 9021);
    }
}
