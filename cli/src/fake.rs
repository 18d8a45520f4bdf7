//! A communicator for tests: ranks are threads, collectives are written as their definitions say, and it can be
//! made to fail in the ways a check must notice.

use crate::call::Call;
use crate::failure::{Failure, Outcome};
use crate::floats;
use crate::orders::{Answer, Crew, How, Order};
use crate::rank::Rank;
use crate::target::{DataType, Error, Kind, ReduceOp, Target};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier, Mutex};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// From this call on (counted from 0) nothing happens any more.
    NothingFrom(u64),
    /// The last rank's input is left out, or replaced by the first rank's.
    LosesLastRank,
    /// The two halves of every output are exchanged.
    SwapsHalves,
    /// The last element of every output is not written.
    ForgetsLastElement,
    /// In place, a call writes over what it must leave as it is.
    ScribblesOnInput,
    /// A barrier lets everybody pass.
    OpenBarrier,
}

struct Hub {
    barrier: Barrier,
    inputs: Mutex<Vec<Vec<u8>>>,
}

/// One rank's side.
pub(crate) struct Fake {
    hub: Arc<Hub>,
    rank: u32,
    ranks: u32,
    call: Option<Call>,
    fault: Fault,
    calls: u64,
}

/// Reduces one element of all ranks by definition: in f64 and i128.
fn combine(dtype: DataType, op: ReduceOp, column: &[&[u8]]) -> Vec<u8> {
    let bits = column.iter().map(|bytes| {
        let mut whole = [0; 8];
        whole[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(whole)
    });
    let result = match floats::of(dtype.name()) {
        Some(layout) => {
            layout.nearest(combine_floats(op, &bits.map(|b| layout.value(b)).collect::<Vec<_>>()))
        }
        None => {
            let unused = 128 - 8 * dtype.size() as u32;
            let widen = |bits: u64| match dtype.name().starts_with('i') {
                true => i128::from(bits) << unused >> unused,
                false => i128::from(bits),
            };
            combine_integers(op, &bits.map(widen).collect::<Vec<_>>()) as u64
        }
    };
    result.to_le_bytes()[..dtype.size()].to_vec()
}

fn combine_floats(op: ReduceOp, values: &[f64]) -> f64 {
    let fold = |combine: fn(f64, f64) -> f64| values.iter().copied().reduce(combine).unwrap();
    match op {
        ReduceOp::Sum => fold(|a, b| a + b),
        ReduceOp::Prod => fold(|a, b| a * b),
        ReduceOp::Max => fold(f64::max),
        ReduceOp::Min => fold(f64::min),
        ReduceOp::Avg => fold(|a, b| a + b) / values.len() as f64,
        other => panic!("{other:?} is not for floats"),
    }
}

fn combine_integers(op: ReduceOp, values: &[i128]) -> i128 {
    let fold = |combine: fn(i128, i128) -> i128| values.iter().copied().reduce(combine).unwrap();
    match op {
        ReduceOp::Sum => fold(|a, b| a + b),
        ReduceOp::Prod => fold(i128::wrapping_mul),
        ReduceOp::Max => fold(i128::max),
        ReduceOp::Min => fold(i128::min),
        ReduceOp::Avg => fold(|a, b| a + b) / values.len() as i128,
        ReduceOp::And => fold(|a, b| a & b),
        ReduceOp::Or => fold(|a, b| a | b),
        ReduceOp::Xor => fold(|a, b| a ^ b),
        other => panic!("the fake does not know {other:?}"),
    }
}

impl Fake {
    fn result(&self, call: &Call, inputs: &[Vec<u8>]) -> Vec<u8> {
        let size = call.dtype.size();
        let block = call.count as usize * size;
        let reduce = |from: usize, len: usize| -> Vec<u8> {
            let column = |at: usize| inputs.iter().map(|rank| &rank[at..at + size]).collect::<Vec<_>>();
            (from..from + len)
                .step_by(size)
                .flat_map(|at| combine(call.dtype, call.op, &column(at)))
                .collect()
        };
        let part = |rank: u32, other: u32| {
            let part = call.part(rank, other);
            part.start as usize * size..(part.start + part.len) as usize * size
        };
        let own = part(self.rank, self.rank);
        let is_root = self.rank == call.root;
        match call.shape() {
            Kind::AllReduce => reduce(0, block),
            Kind::Reduce if is_root => reduce(0, block),
            Kind::ReduceScatter => reduce(own.start, own.len()),
            Kind::AllGather => inputs.concat(),
            Kind::Gather if is_root => inputs.concat(),
            Kind::Broadcast => inputs[call.root as usize].clone(),
            // Nothing comes from a root whose input a fault has lost.
            Kind::Scatter => inputs[call.root as usize].get(own).unwrap_or_default().to_vec(),
            Kind::AllToAll => {
                let from = (0..self.ranks).zip(inputs);
                from.flat_map(|(other, input)| &input[part(other, self.rank)]).copied().collect()
            }
            Kind::SendReceive => inputs[call.sender_to(self.rank) as usize].clone(),
            _ => Vec::new(),
        }
    }

    fn exchange(&self, input: &[u8]) -> Vec<Vec<u8>> {
        self.hub.inputs.lock().unwrap()[self.rank as usize] = input.to_vec();
        self.hub.barrier.wait();
        let mut inputs = self.hub.inputs.lock().unwrap().clone();
        self.hub.barrier.wait();
        if self.fault == Fault::LosesLastRank {
            let first = inputs[0].clone();
            *inputs.last_mut().unwrap() = first;
        }
        inputs
    }

    /// The result, unless the fault is that there is none.
    fn perform(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        let call = self.call.expect("a call is selected");
        self.calls += 1;
        let nothing = matches!(self.fault, Fault::NothingFrom(call) if self.calls > call);
        if nothing || (self.fault == Fault::OpenBarrier && call.kind == Kind::Barrier) {
            return None;
        }
        let mut result = self.result(&call, &self.exchange(input));
        if self.fault == Fault::SwapsHalves {
            let middle = result.len() / 2;
            result.rotate_left(middle);
        }
        if self.fault == Fault::ForgetsLastElement {
            result.truncate(result.len().saturating_sub(call.dtype.size()));
        }
        Some(result)
    }
}

impl Target for Fake {
    fn breakdown(&mut self, begin: bool) -> Option<[u64; 4]> {
        (!begin).then_some([1, 2, 3, 4])
    }

    fn rank(&self) -> u32 {
        self.rank
    }

    fn ranks(&self) -> u32 {
        self.ranks
    }

    fn select(&mut self, call: &Call) {
        self.call = Some(*call);
    }

    fn run(&mut self, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        if let Some(result) = self.perform(input) {
            output[..result.len()].copy_from_slice(&result);
        }
        Ok(())
    }

    fn run_in_place(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let call = self.call.expect("a call is selected");
        let size = call.dtype.size();
        let own = call.part(self.rank, self.rank);
        let (start, end) = (own.start as usize * size, (own.start + own.len) as usize * size);
        let is_root = self.rank == call.root;
        let (input, at) = match call.shape() {
            Kind::AllGather => (start..end, 0),
            Kind::Gather if is_root => (start..end, 0),
            Kind::ReduceScatter => (0..buffer.len(), start),
            Kind::Scatter if is_root => (0..buffer.len(), start),
            Kind::Broadcast | Kind::Scatter if !is_root => (0..0, 0),
            _ => (0..buffer.len(), 0),
        };
        let input = buffer[input].to_vec();
        if let Some(result) = self.perform(&input) {
            if self.fault == Fault::ScribblesOnInput {
                buffer.fill(0);
            }
            buffer[at..at + result.len()].copy_from_slice(&result);
        }
        Ok(())
    }

    fn barrier(&mut self) -> Result<(), Error> {
        self.hub.barrier.wait();
        Ok(())
    }

    fn force(&mut self, _: Option<&How>) -> Result<(), Error> {
        Ok(())
    }

    fn how(&self) -> Result<How, Error> {
        Ok(How { algorithm: "by definition".into(), ..How::default() })
    }
}

/// Ranks that are threads.
pub(crate) struct Threads {
    orders: Vec<Sender<Order>>,
    answers: Vec<Receiver<Result<Answer, Error>>>,
}

impl Threads {
    /// Starts the ranks.
    pub(crate) fn start(ranks: u32, fault: Fault) -> Self {
        let inputs = Mutex::new(vec![Vec::new(); ranks as usize]);
        let hub = Arc::new(Hub { barrier: Barrier::new(ranks as usize), inputs });
        let mut threads = Threads { orders: Vec::new(), answers: Vec::new() };
        for rank in 0..ranks {
            let fake = Fake { hub: Arc::clone(&hub), rank, ranks, call: None, fault, calls: 0 };
            let (orders, inbox) = channel();
            let (outbox, answers) = channel();
            std::thread::spawn(move || {
                let mut rank = Rank::new(fake).unwrap();
                for order in inbox {
                    outbox.send(rank.obey(&order)).unwrap();
                }
            });
            threads.orders.push(orders);
            threads.answers.push(answers);
        }
        threads
    }
}

impl Crew for Threads {
    fn run(&mut self, order: &Order) -> Outcome<Vec<Answer>> {
        for rank in &self.orders {
            rank.send(order.clone()).unwrap();
        }
        self.answers.iter().map(|rank| rank.recv().unwrap().map_err(Failure::from)).collect()
    }
}
