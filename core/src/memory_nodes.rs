//! Memory nodes (NUMA) of a host: which processors and how much memory each has, and how far they are from each other.

use crate::error::{Error, Result};
use std::fmt;
use std::fs;
use std::path::Path;

/// The memory nodes of a host, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryNodes {
    nodes: Vec<MemoryNode>,
}

/// One memory node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryNode {
    /// Its number; numbers may have gaps.
    pub id: u32,
    /// Its processors, in order; none if it has memory only.
    pub cpus: Vec<u32>,
    /// Its memory.
    pub memory_bytes: u64,
    /// How far each node is, in the order of the list of nodes: the firmware's numbers, 10 for itself.
    pub distances: Vec<u32>,
}

impl MemoryNodes {
    /// Reads what the kernel says below `/sys`, or a folder like it.
    ///
    /// Errors: System, if a node's files are missing; Internal, naming the file, if one is not as Linux writes it.
    /// Source: Linux, Documentation/ABI/stable/sysfs-devices-node.
    pub fn read(system: &Path) -> Result<Self> {
        let folder = system.join("devices/system/node");
        let ids =
            cpu_list(&read(&folder.join("online"))?).ok_or_else(|| malformed(&folder.join("online")))?;
        let nodes = ids.iter().map(|&id| MemoryNode::read(id, &folder, ids.len())).collect::<Result<_>>()?;
        Ok(MemoryNodes { nodes })
    }

    /// The nodes, by number.
    pub fn nodes(&self) -> &[MemoryNode] {
        &self.nodes
    }

    /// The node that has all of these processors; none if there is no such, or no processor.
    pub fn node_of(&self, cpus: &[u32]) -> Option<u32> {
        let has_all = |node: &&MemoryNode| cpus.iter().all(|cpu| node.cpus.binary_search(cpu).is_ok());
        self.nodes.iter().find(has_all).filter(|_| !cpus.is_empty()).map(|node| node.id)
    }

    /// How far two nodes are from each other; none if one does not exist.
    pub fn distance(&self, from: u32, to: u32) -> Option<u32> {
        let index = |id| self.nodes.iter().position(|node| node.id == id);
        Some(self.nodes[index(from)?].distances[index(to)?])
    }
}

impl MemoryNode {
    fn read(id: u32, folder: &Path, nodes: usize) -> Result<Self> {
        let file = |name: &str| folder.join(format!("node{id}")).join(name);
        let parsed = |name: &str, parse: &dyn Fn(&str) -> Option<Vec<u32>>| -> Result<Vec<u32>> {
            parse(&read(&file(name))?).ok_or_else(|| malformed(&file(name)))
        };
        let numbers = |text: &str| text.split_whitespace().map(|word| word.parse().ok()).collect();
        let distances =
            parsed("distance", &|text| Option::filter(numbers(text), |list: &Vec<u32>| list.len() == nodes))?;
        let cpus = parsed("cpulist", &cpu_list)?;
        let memory_bytes =
            memory_bytes(&read(&file("meminfo"))?).ok_or_else(|| malformed(&file("meminfo")))?;
        Ok(MemoryNode { id, cpus, memory_bytes, distances })
    }
}

/// `2 memory nodes: 0 with processors 0-3 and 8 GiB; 1 …`.
impl fmt::Display for MemoryNodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} memory nodes", self.nodes.len())?;
        for (index, node) in self.nodes.iter().enumerate() {
            let MemoryNode { id, cpus, memory_bytes, distances } = node;
            let (mark, mib) = (if index == 0 { ":" } else { ";" }, memory_bytes >> 20);
            write!(f, "{mark} {id} has {} processors, {mib} MiB, distances {distances:?}", cpus.len())?;
        }
        Ok(())
    }
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).map_err(|error| {
        Error::system(format!("cannot read {}: memory is not placed by nodes", file.display()), error)
    })
}

fn malformed(file: &Path) -> Error {
    Error::internal(format!("{} is not as Linux writes it", file.display()))
}

/// `0-3,8,10-11`, or nothing.
fn cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut list = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        // No machine has more; a list that says so is no list.
        if last < first || last - first > 1 << 16 {
            return None;
        }
        list.extend(first..=last);
    }
    list.is_sorted().then_some(list)
}

/// `Node 0 MemTotal:  24684096 kB` among other lines.
fn memory_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("MemTotal:"))?;
    let number = line.split_whitespace().rev().nth(1)?;
    number.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// A folder that looks like `/sys`, gone with the value.
    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("ubccl-nodes-{}-{name}", std::process::id()));
            for (file, text) in files {
                let path = root.join("devices/system/node").join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Fake(root)
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const THREE: &[(&str, &str)] = &[
        ("online", "0-1,4\n"),
        ("node0/cpulist", "0-1,8-9\n"),
        ("node0/distance", "10 21 28\n"),
        ("node0/meminfo", "Node 0 MemTotal:       24684096 kB\nNode 0 MemFree:  1 kB\n"),
        ("node1/cpulist", "2-3,10-11\n"),
        ("node1/distance", "21 10 28\n"),
        ("node1/meminfo", "Node 1 MemTotal:       1024 kB\n"),
        ("node4/cpulist", "\n"),
        ("node4/distance", "28 28 10\n"),
        ("node4/meminfo", "Node 4 MemTotal:       2048 kB\n"),
    ];

    #[test]
    fn nodes_have_processors_memory_and_distances() {
        let fake = Fake::new("three", THREE);
        let nodes = MemoryNodes::read(&fake.0).unwrap();
        let cpus: Vec<&[u32]> = nodes.nodes().iter().map(|node| &node.cpus[..]).collect();
        assert_eq!(cpus, [&[0, 1, 8, 9][..], &[2, 3, 10, 11], &[]]);
        let memory: Vec<u64> = nodes.nodes().iter().map(|node| node.memory_bytes).collect();
        assert_eq!(memory, [24684096 << 10, 1 << 20, 2 << 20]);
        assert_eq!(
            [(0, 1), (1, 4), (4, 4), (0, 2)].map(|(a, b)| nodes.distance(a, b)),
            [Some(21), Some(28), Some(10), None]
        );
        for (cpus, node) in
            [(&[8][..], Some(0)), (&[2, 11], Some(1)), (&[1, 2], None), (&[], None), (&[7], None)]
        {
            assert_eq!(nodes.node_of(cpus), node, "{cpus:?}");
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_named() {
        let without = |name: &str| -> Vec<(&str, &str)> {
            THREE.iter().copied().filter(|file| file.0 != name).collect()
        };
        for (name, text) in
            [("online", "x"), ("node1/distance", "21 10"), ("node4/meminfo", ""), ("node0/cpulist", "3-1")]
        {
            let missing = Fake::new("missing", &without(name));
            let error = MemoryNodes::read(&missing.0).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            drop(missing);
            let mut files = without(name);
            files.push((name, text));
            let malformed = Fake::new("malformed", &files);
            let error = MemoryNodes::read(&malformed.0).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("as Linux writes it"), "{error}");
        }
    }

    #[test]
    fn this_machine_can_be_read() {
        // A kernel without NUMA has no such folder; with it, this process runs on some node's processors.
        if let Ok(nodes) = MemoryNodes::read(Path::new("/sys")) {
            assert!(nodes.nodes().iter().any(|node| !node.cpus.is_empty()), "{nodes}");
        }
    }
}
