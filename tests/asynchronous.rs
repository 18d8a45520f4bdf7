//! Operations that nobody waits for yet: works, futures, and who makes their progress.

mod support;

use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use support::ranks::{Setup, WATCHDOG, on_threads};
use ubccl::{Choice, Clock, Collective, DataType, ReduceOp};

fn real_setups(ranks: u32) -> impl Iterator<Item = Setup> {
    let real = ubccl::transports().filter(|transport| transport.clock == Clock::Real);
    real.map(move |transport| Setup {
        transport: transport.name,
        ranks,
        algorithm: Some("ring"),
        choice: Choice { lanes: 1, chunk_bytes: 4096, ..Choice::default() },
    })
}

#[test]
fn works_may_be_waited_for_in_any_order_and_give_their_buffers_back() {
    for setup in real_setups(3) {
        on_threads(&setup, |comm| {
            let works: Vec<_> = (1..=6_u32)
                .map(|k| {
                    let send = vec![k as f32; 5000 * k as usize];
                    let recv = vec![0.0; send.len()];
                    comm.all_reduce_async(send, recv, ReduceOp::Sum).expect("it is issued")
                })
                .collect();
            for (work, k) in works.into_iter().rev().zip((1..=6_u32).rev()) {
                let (send, recv) = work.wait().expect("it works");
                assert!(send.iter().all(|&x| x == k as f32), "the input comes back as it was");
                assert_eq!(recv.len(), 5000 * k as usize);
                assert!(recv.iter().all(|&x| x == 3.0 * k as f32));
            }
        });
    }
}

/// Every rank but the last goes away without waiting; only the service threads can carry the ring's steps for them.
#[test]
fn an_operation_nobody_waits_for_makes_progress() {
    for setup in real_setups(3) {
        let (done, seen) = mpsc::channel();
        let (done, seen) = (Arc::new(Mutex::new(done)), Arc::new(Mutex::new(seen)));
        on_threads(&setup, move |comm| {
            let call = Collective::all_reduce(40_000, DataType::I32, ReduceOp::Sum);
            let work =
                comm.run_in_place_async(&call, vec![comm.rank() as i32 + 1; 40_000]).expect("it is issued");
            if comm.rank() + 1 == comm.ranks() {
                assert!(work.wait().expect("it works").iter().all(|&x| x == 6));
                let done = done.lock().expect("nobody panicked");
                (1..comm.ranks()).for_each(|_| done.send(()).expect("the others listen"));
            } else {
                seen.lock()
                    .expect("nobody panicked")
                    .recv_timeout(WATCHDOG)
                    .expect("the last rank gets through");
                assert!(work.wait().expect("it works").iter().all(|&x| x == 6));
            }
        });
    }
}

/// More messages to one peer than an endpoint takes at once, both ways, some of them large, on several lanes.
#[test]
fn any_number_of_point_to_point_operations_may_be_under_way() {
    const MESSAGES: usize = 300;
    for setup in real_setups(2) {
        let setup = Setup { choice: Choice { lanes: 3, ..setup.choice }, ..setup };
        let meet = Arc::new(Barrier::new(2));
        on_threads(&setup, move |comm| {
            let peer = 1 - comm.rank();
            let length = |k: usize| if k.is_multiple_of(50) { 100_000 } else { 3 };
            let send = |k: usize| {
                let call = Collective::send_receive(length(k) as u64, DataType::I32, Some(peer), None);
                comm.run_async(&call, vec![(k as i32) << 1 | comm.rank() as i32; length(k)], Vec::new())
            };
            let receive = |k: usize| {
                let call = Collective::send_receive(length(k) as u64, DataType::I32, None, Some(peer));
                comm.run_async(&call, Vec::new(), vec![-1; length(k)])
            };
            let sends: Vec<_> = (0..MESSAGES).map(|k| send(k).expect("it is issued")).collect();
            meet.wait();
            let receives: Vec<_> = (0..MESSAGES).map(|k| receive(k).expect("it is issued")).collect();
            for (k, work) in receives.into_iter().enumerate() {
                let (_, got) = work.wait().expect("it works");
                assert!(got.iter().all(|&x| x == (k as i32) << 1 | peer as i32), "message {k}");
            }
            sends.into_iter().for_each(|work| drop(work.wait().expect("it works")));
        });
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park_timeout(WATCHDOG),
        }
    }
}

#[test]
fn a_work_is_a_future() {
    for setup in real_setups(2) {
        let meet = Arc::new(Barrier::new(2));
        on_threads(&setup, move |comm| {
            let buffer = vec![comm.rank() as f32; 30_000];
            if comm.rank() == 1 {
                meet.wait(); // rank 0 has polled once at least before this one comes
            }
            let work = comm.all_reduce_in_place_async(buffer, ReduceOp::Max).expect("it is issued");
            if comm.rank() == 0 {
                assert!(!work.test().expect("nothing is wrong"), "rank 1 has not come");
                meet.wait();
            }
            assert!(block_on(work).expect("it works").iter().all(|&x| x == 1.0));
        });
    }
}
