//! What follows from a fabric's description: capacities, bisections, and the times of lone messages.

use super::fabric::Fabric;
use ubccl_core::topology::{Link, Ring};

/// What one level of a fabric can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricLevel {
    /// What a group is called.
    pub name: String,
    /// What it is made of, and of how many.
    pub holds: (u32, String),
    /// How many groups the machine has.
    pub groups: u32,
    /// Ranks of one group.
    pub group_ranks: u32,
    /// The link of two ranks that share such a group and no smaller one; of neighbours, if it is a ring.
    pub link: Link,
    /// What a ring takes more for each rank on the way. `None`: it is none.
    pub ring: Option<Ring>,
    /// What the ways out of one group pass, each way: its ranks' ports on the level above, or its links if they are
    /// fewer. `None` for the outermost level.
    pub out_bytes_per_s: Option<u64>,
    /// What passes, each way, between the halves of one group, cut between the groups that it holds.
    pub bisection_bytes_per_s: u64,
}

impl FabricLevel {
    /// How long a message of so many bytes takes with nothing else under way, both ranks' overheads included.
    pub fn lone_ps(&self, bytes: u64) -> u64 {
        let Link { send_overhead_ps, latency_ps, receive_overhead_ps, .. } = self.link;
        send_overhead_ps + latency_ps + self.link.serialisation_ps(bytes) + receive_overhead_ps
    }

    /// How much longer it takes to the rank that is farthest on a ring; nothing, where there is none.
    pub fn around_ps(&self) -> u64 {
        let passed = u64::from((self.holds.0 / 2).saturating_sub(1));
        self.ring.map_or(0, |ring| ring.hop_ps.saturating_mul(passed))
    }
}

impl Fabric {
    /// What each level can do, the innermost first.
    pub fn levels(&self) -> Vec<FabricLevel> {
        let topology = self.topology();
        let levels = topology.levels();
        let mut lower = topology.unit();
        let mut all = Vec::with_capacity(levels.len());
        for (index, level) in levels.iter().enumerate() {
            let group_ranks = topology.group_ranks(index);
            let within = all.last().and_then(|below: &FabricLevel| below.out_bytes_per_s);
            let port = level.link.port_rate_bytes_per_s();
            // A rank's own port is the way out of the smallest group there is. Halves of a ring have two links.
            let crossing = if level.ring.is_some() { level.holds.min(2) } else { level.holds / 2 };
            let bisection = u64::from(crossing).saturating_mul(within.unwrap_or(port));
            let above = levels.get(index + 1).map(|above| above.link.port_rate_bytes_per_s());
            let ports = above.map(|port| port.saturating_mul(u64::from(group_ranks)));
            all.push(FabricLevel {
                name: level.name.clone(),
                holds: (level.holds, lower.to_owned()),
                groups: topology.capacity() / group_ranks,
                group_ranks,
                link: level.link,
                ring: level.ring,
                out_bytes_per_s: ports
                    .map(|ports| self.uplink_bytes_per_s(index).map_or(ports, |up| up.min(ports))),
                bisection_bytes_per_s: bisection,
            });
            lower = &level.name;
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacities_follow_from_ports() {
        let text = "name = 'two'\n[topology]\nunit = 'NPU'\n[[topology.level]]\nname = 'node'\nholds = 8\n
            link = { latency_ps = 1000, rate_bytes_per_s = 100, port_bytes_per_s = 300, send_overhead_ps = 20 }
            [[topology.level]]\nname = 'pod'\nholds = 5\n
            link = { latency_ps = 3000, rate_bytes_per_s = 50, receive_overhead_ps = 7 }";
        let levels = Fabric::parse(text).unwrap().levels();
        let [node, pod] = &levels[..] else { panic!("{levels:?}") };
        assert_eq!((node.groups, node.group_ranks, node.holds.clone()), (5, 8, (8, "NPU".to_owned())));
        assert_eq!((node.bisection_bytes_per_s, node.out_bytes_per_s), (4 * 300, Some(8 * 50)));
        assert_eq!((pod.groups, pod.group_ranks, pod.holds.clone()), (1, 40, (5, "node".to_owned())));
        assert_eq!((pod.bisection_bytes_per_s, pod.out_bytes_per_s), (2 * 8 * 50, None));
        assert_eq!(node.around_ps(), 0);
        assert_eq!(node.lone_ps(1), 20 + 1000 + 10_000_000_000);
        assert_eq!(pod.lone_ps(0), 3007);
    }

    #[test]
    fn a_ring_is_cut_at_two_links() {
        let level = &Fabric::parse("ring").unwrap().levels()[0];
        assert_eq!((level.holds.0, level.bisection_bytes_per_s), (64, 2 * 50_000_000_000));
        assert_eq!(level.around_ps(), 31 * 209_794);
    }
}
