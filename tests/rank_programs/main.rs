//! Programs of simulated ranks: user code in virtual time.

mod calls;
mod communicators;
mod failures;
mod faults;
mod time;

use std::future::Future;
use std::pin::Pin;
use ubccl::Result;
use ubccl::sim::{Communicator, Report, World};

/// One link of 1 us and 1 GB/s between any two ranks.
const PLAIN: &str = "custom:latency_ps=1000000,bytes_per_s=1000000000";

/// Runs a program on the plain fabric.
fn run<T>(ranks: u32, program: impl AsyncFn(Communicator<'_>) -> Result<T>) -> Report<T> {
    World::run(PLAIN, ranks, program).expect("the fabric is there")
}

/// What every rank returned.
fn results<T>(ranks: u32, program: impl AsyncFn(Communicator<'_>) -> Result<T>) -> Vec<T> {
    run(ranks, program).into_results().unwrap_or_else(|error| panic!("{ranks} ranks: {error}"))
}

/// Polls two futures side by side.
async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (Box::pin(a), Box::pin(b));
    let (mut left, mut right) = (None, None);
    std::future::poll_fn(move |context| {
        poll(&mut left, a.as_mut(), context);
        poll(&mut right, b.as_mut(), context);
        match (left.take(), right.take()) {
            (Some(left), Some(right)) => std::task::Poll::Ready((left, right)),
            (one, other) => {
                (left, right) = (one, other);
                std::task::Poll::Pending
            }
        }
    })
    .await
}

fn poll<F: Future>(done: &mut Option<F::Output>, future: Pin<&mut F>, context: &mut std::task::Context<'_>) {
    if done.is_none()
        && let std::task::Poll::Ready(output) = future.poll(context)
    {
        *done = Some(output);
    }
}
