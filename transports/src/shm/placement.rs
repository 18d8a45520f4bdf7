//! On which memory node the parts of a segment lie.
//!
//! What one rank reads lies on the reader's node: a store to another node waits in a buffer while its writer goes on, a
//! load from there holds its reader up. So a pair's entries and slots are near the receiver; the header and the heap,
//! which all may read and their owner uses most, near the owner. Where only one node is in play nothing is asked for.
//!
//! A rank has a node if its processors are all on one. The kernel prefers the node and takes another if it is full.
#![allow(unsafe_code)] // mbind

use super::geometry::Geometry;
use super::segment::Segment;
use rustix::thread::{CpuSet, sched_getaffinity};
use std::io;
use std::ops::Range;
use std::path::Path;
use ubccl_core::MemoryNodes;

/// Addresses, both page-aligned.
pub(crate) type Addresses = Range<usize>;

/// What places memory: the kernel, or a test that takes notes.
pub(crate) trait Placer {
    /// Has pages of a range that are touched later come from a node if it has room.
    fn prefer(&mut self, range: Addresses, node: u32) -> io::Result<()>;
}

/// The kernel.
pub(crate) struct Kernel;

impl Placer for Kernel {
    fn prefer(&mut self, range: Addresses, node: u32) -> io::Result<()> {
        const WORD_BITS: usize = libc::c_ulong::BITS as usize;
        let mut mask = [0 as libc::c_ulong; 1024 / WORD_BITS];
        let word = mask.get_mut(node as usize / WORD_BITS).ok_or(io::ErrorKind::InvalidInput)?;
        *word |= 1 << (node as usize % WORD_BITS);
        // SAFETY: the kernel checks the range and reads the mask, which outlives the call and has as many bits as is said
        // (it counts one more); a policy changes where new pages come from and no byte of memory.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                range.start,
                range.len(),
                libc::MPOL_PREFERRED,
                mask.as_ptr(),
                mask.len() * WORD_BITS + 1,
                0,
            )
        };
        if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The node of this process, by the kernel's description below `system` (`/sys`); none if it may run on several, or has
/// none to choose from.
pub(crate) fn own_node(system: &Path) -> Option<u32> {
    let nodes = MemoryNodes::read(system).ok()?;
    let set = sched_getaffinity(None).ok()?;
    let cpus: Vec<u32> = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).map(|cpu| cpu as u32).collect();
    nodes.node_of(&cpus).filter(|_| nodes.nodes().len() > 1)
}

/// Places the segment of `rank` by the nodes of all ranks, before its pages are touched. A sandbox may forbid it: then
/// pages lie where they are first touched, which is said and nothing more.
pub(crate) fn place(
    segment: &Segment,
    geometry: &Geometry,
    rank: usize,
    nodes: &[Option<u32>],
    placer: &mut dyn Placer,
) {
    for (range, node) in wishes(geometry, segment.addresses(), rank, nodes) {
        if let Err(error) = placer.prefer(range, node) {
            tracing::debug!(target: "ubccl::shm", rank, node, "memory is not placed on its node: {error}");
            return;
        }
    }
}

/// What is to lie where: neighbours that go to one node are one range.
fn wishes(
    geometry: &Geometry,
    whole: Addresses,
    rank: usize,
    nodes: &[Option<u32>],
) -> Vec<(Addresses, u32)> {
    if nodes.iter().flatten().all(|node| Some(node) == nodes.iter().flatten().next()) {
        return Vec::new();
    }
    let own = nodes[rank];
    let pairs = geometry.pairs();
    let mut parts = vec![(0..pairs.start, own)];
    parts.extend(nodes.iter().enumerate().map(|(peer, &node)| (geometry.pair_range(peer), node.or(own))));
    parts.push((pairs.end..whole.len(), own));
    let mut wishes: Vec<(Addresses, u32)> = Vec::new();
    for (part, node) in parts {
        let Some(node) = node.filter(|_| !part.is_empty()) else { continue };
        let range = whole.start + part.start..whole.start + part.end;
        match wishes.last_mut() {
            Some((last, at)) if *at == node && last.end == range.start => last.end = range.end,
            _ => wishes.push((range, node)),
        }
    }
    wishes
}

#[cfg(test)]
mod tests {
    use super::*;
    use ubccl_core::endpoint::ConnectOptions;

    /// Takes notes.
    #[derive(Default)]
    struct Notes {
        calls: Vec<(Addresses, u32)>,
        is_forbidden: bool,
    }

    impl Placer for Notes {
        fn prefer(&mut self, range: Addresses, node: u32) -> io::Result<()> {
            self.calls.push((range, node));
            if self.is_forbidden { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
        }
    }

    fn placed(
        nodes: &[Option<u32>],
        rank: usize,
        is_forbidden: bool,
    ) -> (Geometry, Addresses, Vec<(Addresses, u32)>) {
        let geometry = Geometry::new(nodes.len() as u32, &ConnectOptions::default()).unwrap();
        let (segment, _file) = Segment::create(rank as u32, &geometry).unwrap();
        let mut notes = Notes { calls: Vec::new(), is_forbidden };
        place(&segment, &geometry, rank, nodes, &mut notes);
        (geometry, segment.addresses(), notes.calls)
    }

    #[test]
    fn slots_lie_near_their_reader_and_the_rest_near_its_owner() {
        let nodes = [Some(0), Some(0), Some(3), Some(3)];
        for rank in 0..4 {
            let (geometry, whole, calls) = placed(&nodes, rank, false);
            let node_at =
                |address: usize| calls.iter().find(|call| call.0.contains(&address)).map(|call| call.1);
            for (peer, &node) in nodes.iter().enumerate() {
                let pair = geometry.pair_range(peer);
                assert_eq!(node_at(whole.start + pair.start), node, "{rank} {peer}");
                assert_eq!(node_at(whole.start + pair.end - 1), node, "{rank} {peer}");
            }
            assert_eq!(node_at(whole.start), nodes[rank], "the header");
            assert_eq!(node_at(whole.end - 1), nodes[rank], "the heap");
            assert!(
                calls.iter().all(|call| call.0.start % 4096 == 0 && call.0.end % 4096 == 0),
                "{calls:x?}"
            );
            // Header and first two pairs, two pairs and heap, or the owner's parts apart: never one call a pair.
            assert!(calls.len() <= 4, "{calls:x?}");
        }
    }

    #[test]
    fn one_node_needs_no_placement() {
        for nodes in [&[Some(0), Some(0)][..], &[None, None], &[Some(1), None, Some(1)]] {
            assert_eq!(placed(nodes, 0, false).2, []);
        }
    }

    #[test]
    fn a_reader_without_a_node_leaves_its_slots_near_the_writer() {
        let (geometry, whole, calls) = placed(&[Some(0), Some(1), None], 1, false);
        let pair = whole.start + geometry.pair_range(2).start;
        assert_eq!(calls.iter().find(|call| call.0.contains(&pair)).map(|call| call.1), Some(1));
        let (geometry, whole, calls) = placed(&[Some(0), Some(1), None], 2, false);
        let own = whole.start + geometry.pair_range(2).start;
        assert!(!calls.iter().any(|call| call.0.contains(&own)), "an owner without a node asks for nothing");
    }

    #[test]
    fn where_placing_is_forbidden_it_is_tried_once() {
        assert_eq!(placed(&[Some(0), Some(1)], 0, true).2.len(), 1);
    }

    #[test]
    fn the_kernel_takes_the_call() {
        let geometry = Geometry::new(2, &ConnectOptions::default()).unwrap();
        let (segment, _file) = Segment::create(0, &geometry).unwrap();
        let whole = segment.addresses();
        // Node 0 is there on any machine; a kernel without NUMA, or a sandbox, may refuse the call as a whole.
        match Kernel.prefer(whole.start..whole.start + 4096, 0) {
            Ok(()) => {
                let far = Kernel.prefer(whole.start..whole.start + 4096, 1023);
                assert_eq!(far.unwrap_err().raw_os_error(), Some(libc::EINVAL), "there is no node 1023");
            }
            Err(error) => {
                assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{error}")
            }
        }
        assert_eq!(Kernel.prefer(0..4096, 1 << 20).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_rank_has_a_node_if_its_processors_are_all_on_one() {
        let root = std::env::temp_dir().join(format!("ubccl-placement-{}", std::process::id()));
        let node = root.join("devices/system/node");
        let own = |lists: [&str; 2]| {
            std::fs::create_dir_all(&node).unwrap();
            std::fs::write(node.join("online"), "0-1").unwrap();
            for (id, list) in lists.iter().enumerate() {
                let folder = node.join(format!("node{id}"));
                std::fs::create_dir_all(&folder).unwrap();
                for (file, text) in
                    [("cpulist", *list), ("distance", "10 20"), ("meminfo", "Node 0 MemTotal: 1 kB")]
                {
                    std::fs::write(folder.join(file), text).unwrap();
                }
            }
            own_node(&root)
        };
        let all = format!("0-{}", CpuSet::MAX_CPU - 1);
        assert_eq!([own(["", &all]), own([&all, ""]), own(["", ""])], [Some(1), Some(0), None]);
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(own_node(&root), None, "no NUMA in this kernel");
    }
}
