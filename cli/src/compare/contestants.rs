//! Who is compared, and how each is told to run.

use super::Question;
use crate::failure::{Failure, Outcome};
use std::fmt;
use std::path::Path;

/// The peers there are.
pub(super) const PEERS: [&str; 5] = ["mpich", "openmpi", "impi", "oneccl", "gloo"];
/// Our two programs of a round are the same under two notes.
pub(super) const OURS: Contestant = Contestant { peer: "ubccl", note: "default" };
/// The second.
pub(super) const AGAIN: Contestant = Contestant { peer: "ubccl", note: "again" };

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

/// A program with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Contestant {
    /// Whose.
    pub(super) peer: &'static str,
    /// Which of its settings.
    pub(super) note: &'static str,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.peer, self.note)
    }
}

/// How a program is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) environment: Vec<(&'static str, String)>,
    pub(super) words: Vec<String>,
}

impl Contestant {
    /// A peer's entries of a part; none if it does not do it.
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
        notes.iter().filter(|_| fits).map(|&note| Contestant { peer, note }).collect()
    }

    /// Which of these operations it measures; `None` if none.
    pub(super) fn ops(&self, question: &Question, ops: &[&'static str]) -> Option<Vec<&'static str>> {
        // Ping-pong is for two ranks that run; it is the same with and without Open MPI's collectives.
        let no_ping_pong = question.part == Part::Crowded || self.note == "coll_sm" || self.peer == "oneccl";
        let ops: Vec<_> = ops.iter().copied().filter(|&op| !(no_ping_pong && op == "pingpong")).collect();
        (!ops.is_empty()).then_some(ops)
    }

    /// Whether ranks are bound to processors. Gloo works with a second thread.
    pub(super) fn is_pinned(&self, part: Part) -> bool {
        part != Part::Crowded && self.peer != "gloo"
    }

    /// A peer's launcher and program, up to the options that all programs have.
    pub(super) fn command(&self, part: Part, ranks: u32, peers_dir: &Path, home: &Path) -> CommandLine {
        let mut line = CommandLine { environment: self.environment(part, home), words: Vec::new() };
        let venv = home.join(format!("venv-{}", self.peer));
        let mpiexec = venv.join("bin/mpiexec").display().to_string();
        let program = |name: &str| home.join("bin").join(name).display().to_string();
        let count = ranks.to_string();
        let mut say = |words: &[&str]| line.words.extend(words.iter().map(|&word| word.to_owned()));
        match self.peer {
            "mpich" => say(&[&mpiexec, "-n", &count, &program("mpi_bench_mpich"), "--peer=mpich"]),
            "openmpi" => {
                say(&[&mpiexec]);
                if ranks > processors() {
                    say(&["--map-by", ":OVERSUBSCRIBE"]);
                }
                let bench = program("mpi_bench_openmpi");
                say(&["--bind-to", "none", "-n", &count, &bench, "--peer=openmpi"]);
            }
            "impi" => say(&[&mpiexec, "-n", &count, &program("mpi_bench_impi"), "--peer=impi"]),
            "oneccl" => say(&[&mpiexec, "-n", &count, &program("ccl_bench")]),
            _ => {
                let python = home.join("venv-torch/bin/python").display().to_string();
                let script = peers_dir.join("src/gloo_bench.py").display().to_string();
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
            "mpich (default)",
            "openmpi (default)",
            "openmpi (coll_sm)",
            "impi (default)",
            "oneccl (default)",
        ];
        assert_eq!(notes(Part::Shm, 2), shm);
        assert_eq!(notes(Part::Crowded, 8).len(), 5);
        assert_eq!(notes(Part::Crowded, 64).len(), 4, "gloo's ranks would take 16 GiB");
        assert_eq!(
            notes(Part::Tcp, 2),
            ["mpich (ofi-tcp)", "openmpi (btl-tcp)", "impi (ofi-tcp)", "gloo (default)"]
        );
    }

    #[test]
    fn more_ranks_than_processors_make_every_peer_yield() {
        for peer in ["mpich", "openmpi", "impi", "oneccl"] {
            let one = |part| {
                let contestant = Contestant::of(part, 8, peer)[0];
                contestant.command(part, 8, Path::new("/peers"), Path::new("/home")).environment
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
