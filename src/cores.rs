//! How many cores the ranks of a communicator have between them: what their affinities allow, and what the CPU quotas of
//! their control groups do.

use rustix::fs::stat;
use rustix::thread::{CpuSet, sched_getaffinity};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use ubccl_core::{Error, Exchange, Result};

/// Bytes of a mask of processors.
const MASK_BYTES: usize = CpuSet::MAX_CPU / 8;
/// A rank without a quota.
const UNLIMITED: u32 = u32::MAX;

/// Cores that the ranks may use together.
pub(crate) fn shared_by(exchange: &mut dyn Exchange) -> Result<u32> {
    let mine = Share::own()?.encode();
    let all = exchange.all_gather(&mine)?;
    let shares = all.iter().map(|blob| Share::decode(blob)).collect::<Result<Vec<_>>>()?;
    Ok(together(&shares))
}

/// Cores that this process may use.
pub(crate) fn own() -> u32 {
    Share::own().map_or(1, |share| together(&[share]))
}

/// What one rank may use.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Share {
    /// Whole cores that its control group allows, or [`UNLIMITED`].
    quota: u32,
    /// Which control group that is.
    group: u64,
    /// Its affinity.
    mask: [u8; MASK_BYTES],
}

impl Share {
    fn own() -> Result<Self> {
        let set =
            sched_getaffinity(None).map_err(|error| Error::system("sched_getaffinity was refused", error))?;
        let mut mask = [0_u8; MASK_BYTES];
        for cpu in (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)) {
            mask[cpu / 8] |= 1 << (cpu % 8);
        }
        let (quota, group) = quota(Path::new("/")).unwrap_or((UNLIMITED, 0));
        Ok(Share { quota, group, mask })
    }

    fn encode(&self) -> Vec<u8> {
        [&self.quota.to_le_bytes()[..], &self.group.to_le_bytes(), &self.mask].concat()
    }

    fn decode(blob: &[u8]) -> Result<Self> {
        let parsed = || {
            let (quota, rest) = blob.split_first_chunk::<4>()?;
            let (group, mask) = rest.split_first_chunk::<8>()?;
            let (quota, group) = (u32::from_le_bytes(*quota), u64::from_le_bytes(*group));
            Some(Share { quota, group, mask: mask.try_into().ok()? })
        };
        parsed().ok_or_else(|| Error::internal("a short CPU mask"))
    }
}

/// The union of the affinities, and no more than the groups allow: each its ranks together.
fn together(shares: &[Share]) -> u32 {
    let mut union = [0_u8; MASK_BYTES];
    // For each group its quota and how many ranks share it.
    let mut groups: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
    let mut unlimited = 0;
    for share in shares {
        union.iter_mut().zip(share.mask).for_each(|(into, bits)| *into |= bits);
        if share.quota == UNLIMITED {
            unlimited += 1;
            continue;
        }
        let (quota, ranks) = groups.entry(share.group).or_insert((share.quota, 0));
        (*quota, *ranks) = ((*quota).min(share.quota), *ranks + 1);
    }
    let cores = union.iter().map(|bits| bits.count_ones()).sum::<u32>().max(1);
    let [_, _, ..] = shares else {
        // Alone it may use its quota with as many threads as it likes.
        return groups.values().fold(cores, |cores, &(quota, _)| cores.min(quota));
    };
    // A group whose quota covers all of its ranks holds nobody up.
    if groups.values().all(|(quota, ranks)| quota >= ranks) {
        return cores;
    }
    let allowed = groups.values().map(|&(quota, ranks)| quota.min(ranks)).sum::<u32>();
    cores.min(allowed + unlimited)
}

/// The smallest CPU quota in whole cores, at least 1, that holds for this process, and the number of the group that has
/// it: of its control group or one around it, of either version, below the root of a file system (`/`).
///
/// Source: Linux, admin-guide/cgroup-v2 (cpu.max); scheduler/sched-bwc (cpu.cfs_quota_us, cpu.cfs_period_us).
fn quota(root: &Path) -> Option<(u32, u64)> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    text.lines().flat_map(|line| groups_of(root, line)).filter_map(|group| limit(&group)).min()
}

/// The folders of a line `0::/path` or `4:cpu,cpuacct:/path`: the group and those around it, innermost first. In a
/// container the path may be the host's: then only the mounted root is there.
fn groups_of(root: &Path, line: &str) -> Vec<PathBuf> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let mounts: &[&str] = match controllers {
        "" => &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
        list if list.split(',').any(|name| name == "cpu") => {
            &["sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct"]
        }
        _ => &[],
    };
    let around = |mount: &&str| -> Vec<PathBuf> {
        let mount = root.join(mount);
        let path = Path::new(path.trim_start_matches('/'));
        path.ancestors().map(|inner| mount.join(inner)).collect()
    };
    mounts.iter().flat_map(around).collect()
}

/// The quota of one group in whole cores, and the group's number.
fn limit(group: &Path) -> Option<(u32, u64)> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    let number = |text: Option<String>| text?.trim().parse::<i64>().ok();
    let (quota_us, period_us) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?) // no number: max
        }
        None => (number(read("cpu.cfs_quota_us"))?, number(read("cpu.cfs_period_us"))?),
    };
    if quota_us <= 0 || period_us <= 0 {
        return None; // -1: no quota
    }
    let cores = u32::try_from(quota_us / period_us).unwrap_or(UNLIMITED - 1).max(1);
    Some((cores, stat(group).ok()?.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that looks like `/`, gone with the value.
    struct Fake(PathBuf);

    impl Fake {
        fn new(files: &[(&str, &str)]) -> Self {
            let name = format!("ubccl-cores-{}-{:?}", std::process::id(), std::thread::current().id());
            let root = std::env::temp_dir().join(name);
            for (file, text) in files {
                let path = root.join(file);
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

    fn cores(files: &[(&str, &str)]) -> Option<u32> {
        quota(&Fake::new(files).0).map(|(cores, _)| cores)
    }

    #[test]
    fn the_tightest_group_around_a_process_counts_in_version_2() {
        let of = |own: &str, around: &str| {
            cores(&[
                ("proc/self/cgroup", "0::/jobs/mine\n"),
                ("sys/fs/cgroup/jobs/mine/cpu.max", own),
                ("sys/fs/cgroup/jobs/cpu.max", around),
            ])
        };
        let cases = [
            (("max 100000\n", "max 100000\n"), None),
            (("400000 100000\n", "max 100000\n"), Some(4)),
            (("max 100000\n", "300000 100000\n"), Some(3)),
            (("400000 100000\n", "250000 100000\n"), Some(2)), // half a core more is no core
            (("20000 100000\n", "max 100000\n"), Some(1)),
            (("nonsense", "200000 100000\n"), Some(2)),
        ];
        for ((own, around), expected) in cases {
            assert_eq!(of(own, around), expected, "{own:?} {around:?}");
        }
    }

    #[test]
    fn version_1_has_a_quota_and_a_period() {
        for mount in ["cpu", "cpu,cpuacct"] {
            let of = |quota: &str| {
                let (own, period) = (format!("sys/fs/cgroup/{mount}/docker/x/cpu.cfs_quota_us"), "100000\n");
                let periods = own.replace("quota", "period");
                cores(&[
                    ("proc/self/cgroup", "9:pids:/\n4:cpu,cpuacct:/docker/x\n"),
                    (&own, quota),
                    (&periods, period),
                ])
            };
            assert_eq!([of("-1\n"), of("150000\n"), of("800000\n")], [None, Some(1), Some(8)], "{mount}");
        }
    }

    #[test]
    fn in_a_container_the_mounted_root_is_looked_at() {
        let files = [("proc/self/cgroup", "0::/of/the/host\n"), ("sys/fs/cgroup/cpu.max", "200000 100000\n")];
        assert_eq!(cores(&files), Some(2));
        assert_eq!(cores(&[("proc/self/cgroup", "1:name=systemd:/\n")]), None);
        assert_eq!(cores(&[]), None, "no control groups");
    }

    fn share(quota: u32, group: u64, cpus: &[usize]) -> Share {
        let mut mask = [0; MASK_BYTES];
        cpus.iter().for_each(|cpu| mask[cpu / 8] |= 1 << (cpu % 8));
        Share { quota, group, mask }
    }

    #[test]
    fn affinities_are_united_and_quotas_limit_the_ranks_that_share_them() {
        let free = |cpus: &[usize]| share(UNLIMITED, 0, cpus);
        assert_eq!(together(&[free(&[0]), free(&[0]), free(&[5])]), 2, "two ranks on one processor");
        assert_eq!(together(&[free(&[0, 1]), free(&[0, 1])]), 2);
        let all: Vec<usize> = (0..8).collect();
        let in_group = |quota, group| share(quota, group, &all);
        assert_eq!(together(&[in_group(1, 7), in_group(1, 7)]), 1, "a quota for both");
        assert_eq!(together(&[in_group(1, 7), in_group(1, 8)]), 8, "a quota for each holds nobody up");
        assert_eq!(
            together(&[in_group(2, 7), in_group(2, 7), in_group(2, 7), free(&all)]),
            3,
            "one of four waits"
        );
        assert_eq!(together(&[in_group(3, 7)]), 3, "alone: what it may use");
        assert_eq!(together(&[share(3, 7, &[1])]), 1);
        assert_eq!(together(&[free(&[])]), 1, "something runs it");
    }

    #[test]
    fn a_share_comes_back_and_a_short_one_is_an_error() {
        let mine = Share::own().unwrap();
        assert_eq!(Share::decode(&mine.encode()).unwrap(), mine);
        assert!(Share::decode(&mine.encode()[1..]).is_err());
        assert!(own() >= 1);
    }
}
