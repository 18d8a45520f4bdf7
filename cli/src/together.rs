//! Ranks that another launcher started (`UBCCL_RENDEZVOUS`, `UBCCL_RANK`, `UBCCL_SIZE`): rank 0 gives the orders and
//! prints, and orders and answers travel through the communicator itself.

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::orders::{Answer, Crew, Order};
use crate::rank::Rank;
use crate::target::{DataType, Error, Kind, ReduceOp, Target};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// This process's rank among the others.
pub(crate) struct Together<T> {
    rank: Rank<T>,
}

impl<T: Target> Together<T> {
    /// A rank that has joined.
    pub(crate) fn new(target: T) -> Result<Self, Error> {
        Ok(Together { rank: Rank::new(target)? })
    }

    /// On every rank but 0: obeys until rank 0 has no more orders.
    pub(crate) fn follow(&mut self) -> Result<(), Error> {
        while let Some(order) = self.hear(None)? {
            let answer = self.rank.obey(&order)?;
            self.gather(&answer)?;
        }
        Ok(())
    }

    /// On rank 0: tells the others that there are no more orders.
    pub(crate) fn dismiss(&mut self) -> Result<(), Error> {
        self.hear(Some(&[])).map(|_: Option<Order>| ())
    }

    /// Leaves; gives the communicator back to be closed.
    pub(crate) fn into_target(self) -> T {
        self.rank.target
    }

    /// Broadcasts what rank 0 says: the length, then the bytes; no length says nothing.
    fn hear<M: DeserializeOwned>(&mut self, said: Option<&[u8]>) -> Result<Option<M>, Error> {
        let mut len = said.map_or(0, |bytes| bytes.len() as u64).to_le_bytes();
        self.broadcast(&mut len)?;
        let len = usize::try_from(u64::from_le_bytes(len)).unwrap_or(usize::MAX);
        if len == 0 {
            return Ok(None);
        }
        let mut bytes = said.map_or_else(|| vec![0; len], <[u8]>::to_vec);
        self.broadcast(&mut bytes)?;
        decode(&bytes).map(Some)
    }

    fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.select(Kind::Broadcast, bytes.len());
        self.rank.target.run_in_place(bytes)
    }

    /// Everybody's answer, in rank order, on every rank.
    fn gather(&mut self, answer: &Answer) -> Result<Vec<Answer>, Error> {
        let mut bytes = encode(answer)?;
        let lens = self.all_gather(&(bytes.len() as u64).to_le_bytes())?;
        let lens: Vec<usize> = lens
            .chunks_exact(8)
            .map(|len| len.iter().rev().fold(0, |n, &byte| n << 8 | usize::from(byte)))
            .collect();
        let longest = lens.iter().copied().max().unwrap_or(0);
        bytes.resize(longest, 0);
        let all = self.all_gather(&bytes)?;
        all.chunks_exact(longest.max(1))
            .zip(lens)
            .map(|(answer, len)| decode(&answer[..len.min(longest)]))
            .collect()
    }

    fn all_gather(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        self.select(Kind::AllGather, bytes.len());
        let mut all = vec![0; bytes.len() * self.rank.target.ranks() as usize];
        self.rank.target.run(bytes, &mut all)?;
        Ok(all)
    }

    fn select(&mut self, kind: Kind, bytes: usize) {
        let ranks = self.rank.target.ranks();
        let (count, dtype, op) = (bytes as u64, DataType::U8, ReduceOp::Max);
        self.rank.target.select(&Call { kind, count, dtype, op, root: 0, ranks });
    }
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(message)
        .map_err(|error| Error::internal(format!("a message has no JSON form: {error}")))
}

fn decode<M: DeserializeOwned>(bytes: &[u8]) -> Result<M, Error> {
    serde_json::from_slice(bytes).map_err(|error| {
        Error::internal(format!("a rank sent what this program does not understand: {error}"))
    })
}

impl<T: Target> Crew for Together<T> {
    fn run(&mut self, order: &Order) -> Outcome<Vec<Answer>> {
        let me = self.rank.target.rank();
        let bytes = encode(order)?;
        let answers = self.hear::<Order>(Some(&bytes)).and_then(|_| {
            let answer = self.rank.obey(order)?;
            self.gather(&answer)
        });
        answers.map_err(|error| Failure::new(format!("rank {me}: {error}")))
    }
}
