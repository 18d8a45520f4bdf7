//! What a communicator may be told, and where from: argument, then environment, then default. Environment variables
//! are read here and nowhere else.

use crate::control::Rendezvous;
use std::time::Duration;
use ubccl_core::{Choice, Error, Result};

/// How a communicator is made. `Config::from_env` fills what the launcher put into the environment.
#[derive(Debug)]
pub struct Config {
    /// Where the ranks meet. Rank 0 makes it ([`Rendezvous::create`]) and passes its text on to the others.
    pub rendezvous: Option<Rendezvous>,
    /// This rank.
    pub rank: u32,
    /// How many ranks.
    pub ranks: u32,
    /// The transport's name.
    pub transport: String,
    /// An algorithm for every call, instead of the chooser's.
    pub algorithm: Option<String>,
    /// Lanes and chunk of every plan; the same on all ranks.
    pub choice: Choice,
    /// How long start-up may take.
    pub start_timeout: Duration,
    /// How long one operation may take before it fails and poisons the communicator.
    pub operation_timeout: Duration,
    /// After how long a waiting operation says which ranks are missing.
    pub warn_after: Duration,
    /// How long a waiting call spins before it sleeps; `None` decides by ranks and cores.
    pub spin: Option<Duration>,
}

/// The environment variables: name and what they set.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("UBCCL_RENDEZVOUS", "where the ranks meet, ubccl:1:address:port:secret"),
    ("UBCCL_RANK", "this process's rank, from 0"),
    ("UBCCL_SIZE", "how many ranks"),
    ("UBCCL_TRANSPORT", "the transport (default shm)"),
    ("UBCCL_ALGO", "an algorithm for every call (default: chosen by size)"),
    ("UBCCL_TIMEOUT", "seconds one operation may take (default 1800)"),
    ("UBCCL_START_TIMEOUT", "seconds start-up may take (default 120)"),
    ("UBCCL_CHUNK", "bytes of a chunk where an algorithm pipelines (default 262144)"),
    ("UBCCL_LANES", "lanes (channels) of every plan, 1 to 8 (default 1)"),
    ("UBCCL_SPIN_US", "microseconds a waiting call spins before it sleeps (default by ranks and cores)"),
];

impl Default for Config {
    fn default() -> Self {
        Config {
            rendezvous: None,
            rank: 0,
            ranks: 1,
            transport: "shm".into(),
            algorithm: None,
            choice: Choice::default(),
            start_timeout: Duration::from_secs(120),
            operation_timeout: Duration::from_secs(30 * 60),
            warn_after: Duration::from_secs(10),
            spin: None,
        }
    }
}

impl Config {
    /// The defaults, changed by what the environment says.
    ///
    /// Errors: InvalidArgument, naming the variable and what it may be.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// The same for a rank that was given as an argument.
    pub fn from_env_with(rank: u32, ranks: u32) -> Result<Self> {
        let config = Self::from_lookup(|name| match name {
            "UBCCL_RANK" => Some(rank.to_string()),
            "UBCCL_SIZE" => Some(ranks.to_string()),
            name => std::env::var(name).ok(),
        })?;
        Ok(config)
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |name: &str| -> Result<Option<u64>> {
            let Some(text) = lookup(name) else { return Ok(None) };
            let parsed = text.trim().parse::<u64>();
            parsed
                .map(Some)
                .map_err(|_| Error::invalid(format!("{name} is '{text}'; it must be a whole number")))
        };
        let mut config = Config::default();
        if let Some(text) = lookup("UBCCL_RENDEZVOUS") {
            config.rendezvous = Some(text.trim().parse()?);
        }
        let small = |name: &str| -> Result<Option<u32>> {
            number(name)?
                .map(|value| {
                    u32::try_from(value)
                        .map_err(|_| Error::invalid(format!("{name} is {value}; that is too large")))
                })
                .transpose()
        };
        config.rank = small("UBCCL_RANK")?.unwrap_or(config.rank);
        config.ranks = small("UBCCL_SIZE")?.unwrap_or(config.ranks);
        config.transport = lookup("UBCCL_TRANSPORT").unwrap_or(config.transport);
        config.algorithm = lookup("UBCCL_ALGO");
        let seconds = |name: &str| Ok::<_, Error>(number(name)?.map(Duration::from_secs));
        config.operation_timeout = seconds("UBCCL_TIMEOUT")?.unwrap_or(config.operation_timeout);
        config.start_timeout = seconds("UBCCL_START_TIMEOUT")?.unwrap_or(config.start_timeout);
        config.choice.chunk_bytes = small("UBCCL_CHUNK")?.unwrap_or(config.choice.chunk_bytes);
        if let Some(lanes) = number("UBCCL_LANES")? {
            config.choice.lanes = u8::try_from(lanes).unwrap_or(u8::MAX);
        }
        config.spin = number("UBCCL_SPIN_US")?.map(Duration::from_micros);
        config.check()?;
        Ok(config)
    }

    /// Checks what belongs together.
    ///
    /// Errors: InvalidArgument.
    pub(crate) fn check(&self) -> Result<()> {
        const MAX_RANKS: u32 = 1 << 20;
        let max_lanes = ubccl_core::plan::MAX_LANES;
        if self.ranks == 0 || self.ranks >= MAX_RANKS {
            return Err(Error::invalid(format!(
                "the number of ranks is {}; it must be 1 to 2^20 - 1",
                self.ranks
            )));
        }
        if self.rank >= self.ranks {
            let last = self.ranks - 1;
            return Err(Error::invalid(format!("rank {} is out of range; ranks are 0 to {last}", self.rank)));
        }
        if !(1..=max_lanes).contains(&usize::from(self.choice.lanes)) {
            return Err(Error::invalid(format!(
                "{} lanes; there may be 1 to {max_lanes}",
                self.choice.lanes
            )));
        }
        if self.choice.chunk_bytes == 0 {
            return Err(Error::invalid("the chunk is 0 bytes; it must be at least 1"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Config> {
        let found = |name: &str| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned());
        Config::from_lookup(found)
    }

    #[test]
    fn the_environment_overrides_defaults() {
        let config = with(&[("UBCCL_RANK", "3"), ("UBCCL_SIZE", "4"), ("UBCCL_TIMEOUT", "5")]).unwrap();
        assert_eq!((config.rank, config.ranks), (3, 4));
        assert_eq!(config.operation_timeout, Duration::from_secs(5));
        assert_eq!(config.transport, "shm");
    }

    #[test]
    fn bad_values_are_refused_with_the_variable_or_the_limit() {
        for (pairs, part) in [
            (&[("UBCCL_RANK", "x")][..], "UBCCL_RANK"),
            (&[("UBCCL_RANK", "4"), ("UBCCL_SIZE", "4")], "ranks are 0 to 3"),
            (&[("UBCCL_LANES", "9")], "1 to 8"),
            (&[("UBCCL_SIZE", "0")], "1 to 2^20"),
            (&[("UBCCL_CHUNK", "0")], "chunk"),
        ] {
            let message = with(pairs).unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
