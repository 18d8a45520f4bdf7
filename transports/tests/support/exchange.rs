//! An [`Exchange`] between the threads of one process.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;
use ubccl_core::{Deadline, Error, ErrorKind, Exchange, Result};

/// One rank's side of an exchange between threads.
pub struct LocalExchange {
    table: Arc<Table>,
    rank: u32,
    call: usize,
    deadline: Instant,
}

struct Table {
    ranks: u32,
    /// Per call, what each rank gave.
    calls: Mutex<Vec<Vec<Option<Vec<u8>>>>>,
    changed: Condvar,
}

impl LocalExchange {
    /// The exchanges of all ranks of one communicator.
    pub fn all(ranks: u32, deadline: Instant) -> Vec<LocalExchange> {
        let table = Arc::new(Table { ranks, calls: Mutex::default(), changed: Condvar::new() });
        (0..ranks).map(|rank| LocalExchange { table: table.clone(), rank, call: 0, deadline }).collect()
    }

    fn missing(&self, blobs: &[Option<Vec<u8>>]) -> Error {
        let missing: Vec<_> =
            (0..).zip(blobs).filter(|(_, blob)| blob.is_none()).map(|(r, _)| r).collect::<Vec<u32>>();
        let message = format!("rank {}: no blob from ranks {missing:?} in call {}", self.rank, self.call);
        Error::new(ErrorKind::Start, message)
    }
}

impl Exchange for LocalExchange {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn ranks(&self) -> u32 {
        self.table.ranks
    }

    fn all_gather(&mut self, blob: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut calls = self.table.calls.lock().unwrap();
        if calls.len() == self.call {
            calls.push(vec![None; self.table.ranks as usize]);
        }
        calls[self.call][self.rank as usize] = Some(blob.to_vec());
        self.table.changed.notify_all();
        while calls[self.call].iter().any(Option::is_none) {
            let left = self.deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.missing(&calls[self.call]));
            }
            calls = self.table.changed.wait_timeout(calls, left).unwrap().0;
        }
        self.call += 1;
        Ok(calls[self.call - 1].iter().flatten().cloned().collect())
    }

    fn deadline(&self) -> Deadline {
        Deadline::at(self.deadline)
    }
}
