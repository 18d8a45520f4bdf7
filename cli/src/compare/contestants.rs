//! Who is compared, and how each is told to run.

use crate::failure::{Failure, Outcome};
use std::fmt;
use std::path::{Path, PathBuf};

/// The types that are compared, by the programs' names.
pub(super) const FLOAT32: &str = "float32";
/// The second.
pub(super) const BFLOAT16: &str = "bfloat16";
/// Operations that move and do not reckon: whatever the type, only bytes count.
pub(super) const MOVE_ONLY: [&str; 5] = ["allgather", "broadcast", "alltoall", "barrier", "pingpong"];

/// The peers there are.
pub(super) const PEERS: [&str; 5] = ["mpich", "openmpi", "impi", "oneccl", "gloo"];
/// Who we are.
pub(super) const OURS: &str = "ubccl";
/// The least that an all-reduce in place of memory that both ranks can address may cost.
pub(super) const FLOOR: &str = "floor";
/// Our two programs of a round are the same under two notes.
pub(super) const FIRST: &str = "default";
/// The second.
pub(super) const AGAIN: &str = "again";
/// MPI has no name for bfloat16; these have one of their own.
pub(super) const BFLOAT16_PEERS: [&str; 2] = ["mpich", "impi"];

/// Every rank of gloo loads torch, a quarter of a GiB: above this it is left out.
const MOST_GLOO_RANKS: u32 = 32;

/// A way to run the ranks; peers need other settings in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Shared memory, a processor for each rank.
    Shm,
    /// Shared memory, more ranks than processors: everybody yields.
    Crowded,
    /// TCP over loopback, a processor for each rank.
    Tcp,
}

impl Part {
    pub(super) fn of(transport: &str, ranks: u32) -> Outcome<Self> {
        let is_crowded = ranks > processors();
        match (transport, is_crowded) {
            ("shm", false) => Ok(Part::Shm),
            ("shm", true) => Ok(Part::Crowded),
            ("tcp", false) => Ok(Part::Tcp),
            ("tcp", true) => Err(Failure::new(format!(
                "--compare over tcp needs a processor for each rank: --ranks {} at most",
                processors()
            ))),
            _ => Err(Failure::new(format!("--compare measures shm and tcp: the peers have no {transport}"))),
        }
    }

    pub(super) fn transport(self) -> &'static str {
        if self == Part::Tcp { "tcp" } else { "shm" }
    }
}

/// Processors that ranks may be bound to.
pub(super) fn processors() -> u32 {
    std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// Which memory is reduced, and what happens to it between the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Memory {
    /// Each rank's own.
    Ordinary,
    /// Which the library gave.
    Registered,
    /// The same, and each rank writes its buffer anew before each call.
    Rewritten,
}

/// A program with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Contestant {
    /// Whose.
    pub(super) peer: &'static str,
    /// Which of its settings.
    pub(super) note: &'static str,
    pub(super) dtype: &'static str,
    pub(super) memory: Memory,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = match self.memory {
            Memory::Ordinary => "",
            Memory::Registered => ", registered memory",
            Memory::Rewritten => ", registered memory, rewritten",
        };
        write!(f, "{} ({}, {}{memory})", self.peer, self.note, self.dtype)
    }
}

/// Where programs are.
#[derive(Clone, Debug, Default)]
pub(super) struct Folders {
    /// What `--compare` names.
    pub(super) peers_dir: PathBuf,
    /// Where the peers are installed.
    pub(super) home: PathBuf,
    /// Where ours are built.
    pub(super) built: PathBuf,
}

impl Folders {
    /// What is built from benches/peers/mpi_bfloat16.c for a peer.
    pub(super) fn bfloat16_program(&self, peer: &str) -> PathBuf {
        self.built.join(format!("mpi_bfloat16_{peer}"))
    }
}

/// How a program is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) words: Vec<String>,
}

impl Contestant {
    /// Our two programs.
    pub(super) fn ours(dtype: &'static str, memory: Memory) -> [Contestant; 2] {
        [FIRST, AGAIN].map(|note| Contestant { peer: OURS, note, dtype, memory })
    }

    /// The floor's program.
    pub(super) fn floor() -> Contestant {
        Contestant { peer: FLOOR, note: FIRST, dtype: FLOAT32, memory: Memory::Registered }
    }

    /// A peer's program for bfloat16, in the first of its settings.
    pub(super) fn of_bfloat16(part: Part, ranks: u32, peer: &'static str) -> Option<Contestant> {
        let contestant = Contestant::of(part, ranks, peer).into_iter().next()?;
        BFLOAT16_PEERS.contains(&peer).then_some(Contestant { dtype: BFLOAT16, ..contestant })
    }

    /// A peer's entries of a part, in float32; none if it does not do it.
    pub(super) fn of(part: Part, ranks: u32, peer: &'static str) -> Vec<Contestant> {
        let notes: &[&'static str] = match (part, peer) {
            (Part::Shm, "openmpi") => &["default", "coll_sm"],
            (Part::Shm, "gloo") | (Part::Tcp, "oneccl") => &[], // no shared memory; no TCP of its own here
            (Part::Shm, _) | (_, "gloo") => &["default"],
            (Part::Crowded, "mpich") => &["posix_coll=mpir"],
            (Part::Crowded, "openmpi") => &["yield_when_idle"],
            (Part::Crowded, "impi") => &["thread_yield2"],
            (Part::Crowded, _) => &["yield"],
            (Part::Tcp, "openmpi") => &["btl-tcp"],
            (Part::Tcp, _) => &["ofi-tcp"],
        };
        let fits = peer != "gloo" || ranks <= MOST_GLOO_RANKS;
        let of = |&note| Contestant { peer, note, dtype: FLOAT32, memory: Memory::Ordinary };
        notes.iter().filter(|_| fits).map(of).collect()
    }

    /// Which of these operations it measures, when these types are compared.
    pub(super) fn ops(&self, part: Part, dtypes: &[&'static str], ops: &[&'static str]) -> Vec<&'static str> {
        // Ping-pong is for two ranks that run; it is the same with and without Open MPI's collectives.
        let no_ping_pong = part == Part::Crowded || self.note == "coll_sm" || self.peer == "oneccl";
        // What only moves takes the same in any type: a peer does it once, in float32.
        let is_theirs = self.peer != OURS && self.memory == Memory::Ordinary;
        let skips = |op: &str| {
            let moves = MOVE_ONLY.contains(&op);
            let is_other_type =
                if self.dtype == FLOAT32 { !moves && !dtypes.contains(&FLOAT32) } else { moves };
            (no_ping_pong && op == "pingpong") || (is_theirs && is_other_type)
        };
        ops.iter().copied().filter(|op| !skips(op)).collect()
    }

    /// Whether ranks are bound to processors. Gloo works with a second thread.
    pub(super) fn is_pinned(&self, part: Part) -> bool {
        part != Part::Crowded && self.peer != "gloo"
    }

    /// A peer's launcher and program, up to the options that all programs have.
    pub(super) fn command(&self, part: Part, ranks: u32, folders: &Folders) -> CommandLine {
        let home = &folders.home;
        let mut line = CommandLine { environment: self.environment(part, home), words: Vec::new() };
        let venv = home.join(format!("venv-{}", self.peer));
        let mpiexec = venv.join("bin/mpiexec").display().to_string();
        let program = |name: &str| home.join("bin").join(name).display().to_string();
        let mpi = match self.dtype {
            BFLOAT16 => folders.bfloat16_program(self.peer).display().to_string(),
            _ => program(&format!("mpi_bench_{}", self.peer)),
        };
        let count = ranks.to_string();
        let mut say = |words: &[&str]| line.words.extend(words.iter().map(|&word| word.to_owned()));
        match self.peer {
            "mpich" | "impi" => say(&[&mpiexec, "-n", &count, &mpi, &format!("--peer={}", self.peer)]),
            "openmpi" => {
                say(&[&mpiexec]);
                if ranks > processors() {
                    say(&["--map-by", ":OVERSUBSCRIBE"]);
                }
                say(&["--bind-to", "none", "-n", &count, &mpi, "--peer=openmpi"]);
            }
            "oneccl" => say(&[&mpiexec, "-n", &count, &program("ccl_bench")]),
            _ => {
                let python = home.join("venv-torch/bin/python").display().to_string();
                let script = folders.peers_dir.join("src/gloo_bench.py").display().to_string();
                say(&[&python, &script, "--ranks", &count]);
            }
        }
        line
    }

    /// The variables that make a peer use the part's transport, and yield where it must.
    fn environment(&self, part: Part, home: &Path) -> Vec<(&'static str, String)> {
        let venv = home.join(format!("venv-{}", self.peer));
        let (root, libraries) = (venv.display().to_string(), venv.join("lib").display().to_string());
        let mut set: Vec<(&'static str, String)> = Vec::new();
        let mut say = |pairs: &[(&'static str, &str)]| {
            set.extend(pairs.iter().map(|&(name, value)| (name, value.to_owned())));
        };
        match self.peer {
            "openmpi" => say(&[("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")]),
            "impi" => say(&[("I_MPI_ROOT", &root), ("LD_LIBRARY_PATH", &libraries), ("I_MPI_PIN", "0")]),
            "oneccl" => say(&[("I_MPI_ROOT", &root), ("CCL_ROOT", &root), ("LD_LIBRARY_PATH", &libraries)]),
            "gloo" => say(&[("GLOO_SOCKET_IFNAME", "lo")]),
            _ => {}
        }
        match (part, self.peer) {
            (Part::Shm, "impi") => say(&[("I_MPI_FABRICS", "shm")]),
            (Part::Shm, "openmpi") if self.note == "coll_sm" => say(&[("OMPI_MCA_coll_sm_priority", "95")]),
            // Its shared-memory collectives spin and never yield.
            (Part::Crowded, "mpich") => say(&[
                ("MPIR_CVAR_ALLREDUCE_POSIX_INTRA_ALGORITHM", "mpir"),
                ("MPIR_CVAR_BARRIER_POSIX_INTRA_ALGORITHM", "mpir"),
                ("MPIR_CVAR_BCAST_POSIX_INTRA_ALGORITHM", "mpir"),
                ("MPIR_CVAR_REDUCE_POSIX_INTRA_ALGORITHM", "mpir"),
            ]),
            (Part::Crowded, "openmpi") => say(&[("OMPI_MCA_mpi_yield_when_idle", "1")]),
            (Part::Crowded, "impi") => say(&[("I_MPI_FABRICS", "shm"), ("I_MPI_THREAD_YIELD", "2")]),
            (Part::Crowded, "oneccl") => say(&[("CCL_YIELD", "sched_yield"), ("I_MPI_THREAD_YIELD", "2")]),
            (Part::Tcp, "mpich") => say(&[
                ("MPIR_CVAR_NOLOCAL", "1"),
                ("MPIR_CVAR_CH4_NETMOD", "ofi"),
                ("FI_PROVIDER", "tcp"),
                ("FI_TCP_IFACE", "lo"),
            ]),
            (Part::Tcp, "openmpi") => say(&[
                ("OMPI_MCA_pml", "ob1"),
                ("OMPI_MCA_btl", "tcp,self"),
                ("OMPI_MCA_btl_tcp_if_include", "lo"),
            ]),
            (Part::Tcp, "impi") => say(&[
                ("I_MPI_COLL_INTRANODE", "pt2pt"),
                ("I_MPI_FABRICS", "ofi"),
                ("FI_PROVIDER", "tcp"),
                ("FI_TCP_IFACE", "lo"),
            ]),
            _ => {}
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(part: Part, ranks: u32) -> Vec<String> {
        let of = |&peer: &&'static str| Contestant::of(part, ranks, peer);
        PEERS.iter().flat_map(of).map(|contestant| contestant.to_string()).collect()
    }

    #[test]
    fn every_peer_takes_part_where_it_can() {
        let shm = [
            "mpich (default, float32)",
            "openmpi (default, float32)",
            "openmpi (coll_sm, float32)",
            "impi (default, float32)",
            "oneccl (default, float32)",
        ];
        assert_eq!(notes(Part::Shm, 2), shm);
        assert_eq!(notes(Part::Crowded, 8).len(), 5);
        assert_eq!(notes(Part::Crowded, 64).len(), 4, "gloo's ranks would take 16 GiB");
        assert_eq!(
            notes(Part::Tcp, 2),
            [
                "mpich (ofi-tcp, float32)",
                "openmpi (btl-tcp, float32)",
                "impi (ofi-tcp, float32)",
                "gloo (default, float32)"
            ]
        );
    }

    #[test]
    fn a_peer_moves_in_float32_once_and_sums_in_the_type_that_is_compared() {
        let all = crate::compare::OPERATIONS;
        let sums = ["allreduce", "allreduce_inplace", "reduce_scatter"];
        let impi = Contestant::of(Part::Shm, 2, "impi")[0];
        assert_eq!(impi.ops(Part::Shm, &[FLOAT32, BFLOAT16], &all), all);
        let moved = impi.ops(Part::Shm, &[BFLOAT16], &all);
        assert!(moved.iter().all(|op| MOVE_ONLY.contains(op)) && moved.len() == MOVE_ONLY.len(), "{moved:?}");
        let summed = Contestant::of_bfloat16(Part::Shm, 2, "impi").unwrap();
        assert_eq!(summed.ops(Part::Shm, &[BFLOAT16], &all), sums);
        let [ours, _] = Contestant::ours(BFLOAT16, Memory::Ordinary);
        assert_eq!(ours.ops(Part::Shm, &[BFLOAT16], &all), all);
        assert_eq!(Contestant::of_bfloat16(Part::Shm, 2, "openmpi"), None, "it has no such type");
        assert_eq!(Contestant::floor().ops(Part::Shm, &[BFLOAT16], &sums[1..2]), sums[1..2]);
    }

    #[test]
    fn more_ranks_than_processors_make_every_peer_yield() {
        for peer in ["mpich", "openmpi", "impi", "oneccl"] {
            let one = |part| {
                let contestant = Contestant::of(part, 8, peer)[0];
                contestant.command(part, 8, &Folders::default()).environment
            };
            assert_ne!(one(Part::Shm), one(Part::Crowded), "{peer}");
        }
    }

    #[test]
    fn a_transport_that_the_peers_do_not_have_is_refused() {
        assert_eq!(Part::of("shm", 1).unwrap(), Part::Shm);
        assert_eq!(Part::of("shm", 1 << 19).unwrap(), Part::Crowded);
        for (transport, ranks) in [("tcp", 1 << 19), ("threads", 2)] {
            assert!(matches!(Part::of(transport, ranks), Err(Failure::Message(_))), "{transport}");
        }
    }
}
