//! How the programs of a world ended.

use crate::sim::World;
use ubccl_core::endpoint::WorldStats;
use ubccl_core::{Error, ErrorKind, Rank, Result};

/// How one rank's program ended.
#[derive(Debug)]
pub enum End<T> {
    /// It returned this.
    Returned(T),
    /// It returned this error.
    Failed(Error),
    /// It panicked and said this.
    Panicked(String),
    /// Its rank died.
    Died,
}

/// The end of one rank's program, and when it came.
#[derive(Debug)]
pub struct Ended<T> {
    /// How.
    pub end: End<T>,
    /// When, in picoseconds since the world began; of a rank that died, when it was known.
    pub at_ps: u64,
}

impl<T> Ended<T> {
    /// What went wrong, if anything did.
    pub fn failure(&self) -> Option<String> {
        let at = told_time(self.at_ps);
        match &self.end {
            End::Returned(_) => None,
            End::Failed(error) => Some(format!("failed at {at}: {error}")),
            End::Panicked(said) => Some(format!("panicked at {at}: {said}")),
            End::Died => Some(format!("ended with its rank, whose death was known at {at}")),
        }
    }
}

/// What became of the programs of a world.
#[derive(Debug)]
pub struct Report<T> {
    /// By rank.
    pub ended: Vec<Ended<T>>,
    /// Picoseconds until the last one ended.
    pub elapsed_ps: u64,
    /// Everything that happened. The same programs in the same world give the same.
    pub stats: WorldStats,
    /// What was found when all had ended: Mismatch for a message that nobody received, Timeout for an operation that
    /// nobody awaited and that could not end. Looked for only if all returned.
    pub closed: Result<()>,
    /// The world, for its counters.
    pub world: World,
}

impl<T> Report<T> {
    /// What every rank returned, in rank order.
    ///
    /// Errors: the earliest failure, which names its rank, how and when it failed; otherwise what closing found. Its
    ///         kind is the error's; Internal for a panic.
    pub fn into_results(self) -> Result<Vec<T>> {
        if let Some(error) = self.first_failure() {
            return Err(error);
        }
        self.closed?;
        let returned = self.ended.into_iter().filter_map(|ended| match ended.end {
            End::Returned(result) => Some(result),
            End::Failed(_) | End::Panicked(_) | End::Died => None,
        });
        Ok(returned.collect())
    }

    /// The earliest failure; of those at one time a rank's own before what it brought upon others.
    pub fn first_failure(&self) -> Option<Error> {
        let failed = (0..).zip(&self.ended).filter(|(_, ended)| !matches!(ended.end, End::Returned(_)));
        let first = failed.min_by_key(|(rank, ended)| (ended.at_ps, ended.end.is_brought_on(), *rank));
        first.and_then(|(rank, ended)| Some(failure(rank, ended, ended.failure()?)))
    }

    /// What went wrong, in rank order.
    pub fn failures(&self) -> impl Iterator<Item = (Rank, String)> + '_ {
        (0..).zip(&self.ended).filter_map(|(rank, ended)| Some((rank, ended.failure()?)))
    }
}

impl<T> End<T> {
    /// Whether another rank may be to blame.
    fn is_brought_on(&self) -> bool {
        matches!(self, End::Failed(error) if error.cause().is_some())
    }
}

fn failure<T>(rank: Rank, ended: &Ended<T>, told: String) -> Error {
    let kind = match &ended.end {
        End::Failed(error) => error.kind(),
        End::Died => ErrorKind::Remote,
        End::Panicked(_) | End::Returned(_) => ErrorKind::Internal,
    };
    Error::new(kind, format!("the program of rank {rank} {told}"))
}

/// A virtual time for people.
pub(crate) fn told_time(ps: u64) -> String {
    match ps {
        0..1_000_000 => format!("{:.3} ns", ps as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3} us", ps as f64 / 1e6),
        1_000_000_000..1_000_000_000_000 => format!("{:.3} ms", ps as f64 / 1e9),
        _ => format!("{:.3} s", ps as f64 / 1e12),
    }
}
