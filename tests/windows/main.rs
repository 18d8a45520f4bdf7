//! Windows on every real transport: order, bounds, ends of waits, death of a peer, several at once, nothing beside.

#[path = "../support/mod.rs"]
mod support;

mod ends;
mod simulated;

use std::time::Duration;
use support::processes::play;
use support::ranks::{Setup, on_threads, on_threads_as};
use ubccl::{Choice, Clock, Communicator, Config, Element, ErrorKind, ReduceOp, Window};

/// Not a test by itself: the ranks of the others' jobs play their scenarios here.
#[test]
fn a_rank() {
    play(&[("bereaved", ends::bereaved)]);
}

fn setups(ranks: u32) -> Vec<Setup> {
    let real = ubccl::transports().filter(|transport| transport.clock == Clock::Real);
    let setup = |transport: &ubccl::TransportDescriptor| Setup {
        transport: transport.name,
        ranks,
        algorithm: None,
        choice: Choice::default(),
    };
    real.map(setup).collect()
}

fn window<T: Element>(comm: &Communicator, count: usize) -> Window<T> {
    comm.window(count).expect("all ranks make it")
}

fn part<T: Element>(window: &Window<T>, rank: u32) -> Vec<T> {
    let mut part = vec![bytemuck::Zeroable::zeroed(); window.len()];
    window.get(rank, 0, &mut part).expect("it works");
    part
}

#[test]
fn who_has_seen_the_signal_sees_what_was_put_before() {
    for setup in setups(3) {
        on_threads(&setup, |comm| {
            let (window, acknowledged) = (window::<u32>(comm, 5000), window::<u8>(comm, 0));
            let (me, n) = (comm.rank(), comm.ranks());
            let (next, before) = ((me + 1) % n, (me + n - 1) % n);
            for round in 1..=200_u32 {
                let len = 1 + (round as usize * 37) % 5000;
                window.put(next, 5000 - len, &vec![round * 100 + me; len]).expect("it works");
                window.signal(next, 1).expect("it works");
                window.wait_signal(before, u64::from(round)).expect("it comes");
                let mut found = vec![0; len];
                window.get(me, 5000 - len, &mut found).expect("it works");
                assert!(found.iter().all(|&x| x == round * 100 + before), "round {round} of {window:?}");
                // It may write again; with two ranks the neighbours are one.
                acknowledged.signal(before, 1).expect("it works");
                acknowledged.wait_signal(next, u64::from(round)).expect("it comes");
            }
            window.close().expect("all close");
            acknowledged.close().expect("all close");
        });
    }
}

#[test]
fn everybody_puts_everywhere_and_a_fence_shows_it_all() {
    for ranks in [1, 2, 4] {
        for setup in setups(ranks) {
            on_threads(&setup, |comm| {
                let (me, n) = (comm.rank() as usize, comm.ranks() as usize);
                let window = window::<f64>(comm, n * 100);
                assert!(part(&window, me as u32).iter().all(|&x| x == 0.0), "it begins with zeros");
                window.fence().expect("all come");
                for round in 0..5 {
                    let value = |from: usize, to: usize| (round * 10_000 + from * 100 + to) as f64;
                    for to in 0..n {
                        window.put(to as u32, me * 100, &[value(me, to); 100]).expect("it works");
                    }
                    window.fence().expect("all come");
                    for of in 0..n {
                        let found = part(&window, of as u32);
                        for from in 0..n {
                            assert!(found[from * 100..][..100].iter().all(|&x| x == value(from, of)));
                        }
                    }
                    window.fence().expect("all come");
                }
                window.close().expect("all close");
            });
        }
    }
}

#[test]
fn a_put_writes_its_elements_and_nothing_beside_them() {
    fn check<T: Element + PartialEq + std::fmt::Debug>(comm: &Communicator, guard: T, value: T) {
        let window = window::<T>(comm, 300);
        let peer = (comm.rank() + 1) % comm.ranks();
        for (offset, len) in [(0, 0), (0, 1), (1, 1), (7, 100), (299, 1), (300, 0), (3, 297)] {
            window.put(peer, 0, &[guard; 300]).expect("it works");
            window.put(peer, offset, &vec![value; len]).expect("it works");
            window.flush(peer).expect("it works");
            let found = part(&window, peer);
            for (at, x) in found.iter().enumerate() {
                let is_inside = at >= offset && at < offset + len;
                assert_eq!(*x, if is_inside { value } else { guard }, "{at} of {offset} + {len}");
            }
            window.fence().expect("all come");
        }
        window.close().expect("all close");
    }
    for setup in setups(2) {
        on_threads(&setup, |comm| {
            check(comm, 0xA5_u8, 1);
            check(comm, -2_i16, 1);
            check(comm, 0.5_f32, 1.25);
            check(comm, u64::MAX, 1);
        });
    }
}

#[test]
fn what_does_not_exist_is_refused_and_harms_nothing() {
    for setup in setups(2) {
        on_threads(&setup, |comm| {
            let window = window::<u16>(comm, 10);
            let refused = |result: ubccl::Result<()>, words: &[&str]| {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
                assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
            };
            refused(window.put(2, 0, &[1]), &["no rank 2", "window 1", "2 ranks"]);
            refused(
                window.put(0, 10, &[1]),
                &["1 elements from element 10", "rank 0's part of window 1", "10 elements"],
            );
            refused(window.put(0, 4, &[1; 7]), &["7 elements from element 4"]);
            refused(window.get(1, usize::MAX, &mut [0; 2]), &["not in rank 1's part"]);
            refused(window.signal(7, 1), &["no rank 7"]);
            refused(window.wait_signal(9, 1), &["no rank 9"]);
            refused(window.flush(2), &["no rank 2"]);
            window.fence().expect("all come");
            assert_eq!(part(&window, 0), [0; 10]);
            window.close().expect("all close");
        });
    }
}

#[test]
fn ranks_that_ask_for_different_windows_are_told_and_go_on() {
    for setup in setups(3) {
        on_threads(&setup, |comm| {
            let count = if comm.rank() == 2 { 11 } else { 10 };
            let error = comm.window::<i32>(count).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
            assert!(text.contains("rank 2") && text.contains("11") && text.contains("10"), "{text}");
            let mut sum = [1];
            comm.all_reduce_in_place(&mut sum, ReduceOp::Sum).expect("the communicator is as it was");
            assert_eq!(sum, [3]);
        });
    }
}

#[test]
fn several_windows_and_collectives_are_apart() {
    for setup in setups(2) {
        on_threads(&setup, |comm| {
            let peer = 1 - comm.rank();
            let windows: Vec<_> = (0..3).map(|_| window::<i64>(comm, 1000)).collect();
            for (k, window) in (1..).zip(&windows) {
                window.put(peer, 0, &[k * 10 + i64::from(comm.rank()); 1000]).expect("it works");
                window.signal(peer, k as u64).expect("it works");
            }
            let mut sum = vec![1_i64; 10_000];
            comm.all_reduce_in_place(&mut sum, ReduceOp::Sum).expect("it works");
            assert!(sum.iter().all(|&x| x == 2));
            for (k, window) in (1..).zip(&windows) {
                window.wait_signal(peer, k as u64).expect("it comes");
                assert_eq!(window.signalled(peer).expect("it works"), k as u64);
                assert!(part(window, comm.rank()).iter().all(|&x| x == k * 10 + i64::from(peer)));
            }
            windows.into_iter().for_each(|window| window.close().expect("all close"));
        });
    }
}

#[test]
fn large_puts_cross_and_come_whole() {
    for setup in setups(2) {
        on_threads(&setup, |comm| {
            let (me, peer, len) = (comm.rank(), 1 - comm.rank(), 1 << 20);
            let window = window::<f32>(comm, len);
            let data: Vec<f32> = (0..len).map(|k| (k % 1000) as f32 + me as f32 * 0.5).collect();
            window.put(peer, 0, &data).expect("it works");
            window.signal(peer, 1).expect("it works");
            window.wait_signal(peer, 1).expect("it comes");
            let found = part(&window, me);
            assert!((0..len).all(|k| found[k] == (k % 1000) as f32 + peer as f32 * 0.5));
            window.close().expect("all close");
        });
    }
}

#[test]
fn a_sleeper_is_woken_by_its_signal() {
    for setup in setups(2) {
        let no_spin = |config: Config| Config { spin: Duration::ZERO, ..config };
        on_threads_as(&setup, no_spin, |comm| {
            let window = window::<u8>(comm, 0);
            assert!(window.is_empty());
            let peer = 1 - comm.rank();
            for round in 1..=50 {
                if comm.rank() == 0 {
                    window.signal(peer, 1).expect("it works");
                }
                window.wait_signal(peer, round).expect("it comes");
                if comm.rank() == 1 {
                    window.signal(peer, 1).expect("it works");
                }
            }
            window.close().expect("all close");
        });
    }
}

/// The owner is in a collective that cannot end before it has been read and written: others get at its part all the same.
#[test]
fn a_rank_that_waits_elsewhere_keeps_nobody_from_its_part() {
    for setup in setups(2) {
        on_threads(&setup, |comm| {
            let (me, peer) = (comm.rank(), 1 - comm.rank());
            let (first, second) = (window::<u16>(comm, 300_000), window::<u16>(comm, 10));
            if me == 0 {
                first.put(peer, 0, &vec![3; 300_000]).expect("it works");
                first.flush(peer).expect("it is served");
                let mut found = [0; 10];
                second.get(peer, 0, &mut found).expect("it is served");
                assert_eq!(found, [0; 10]);
                first.signal(peer, 7).expect("it works");
            }
            let mut sum = [1_i32; 3];
            comm.all_reduce_in_place(&mut sum, ReduceOp::Sum).expect("all come");
            assert_eq!(sum, [2; 3]);
            if me == 1 {
                first.wait_signal(peer, 7).expect("it comes");
                assert!(part(&first, me).iter().all(|&x| x == 3));
            }
            first.close().expect("all close");
            second.close().expect("all close");
        });
    }
}

/// Each rank puts in another order of windows, more than messages under way may be.
#[test]
fn puts_wait_for_nobody() {
    for setup in setups(2) {
        on_threads(&setup, |comm| {
            let peer = 1 - comm.rank();
            let mut windows: Vec<_> = (0..2).map(|_| window::<u8>(comm, 1 << 20)).collect();
            windows.rotate_left(comm.rank() as usize);
            for window in &windows {
                for _ in 0..8 {
                    window.put(peer, 0, &vec![7; 1 << 20]).expect("it works");
                }
                for _ in 0..3000 {
                    window.signal(peer, 1).expect("it works");
                }
            }
            for window in &windows {
                window.wait_signal(peer, 3000).expect("they come");
                assert!(part(window, comm.rank()).iter().all(|&x| x == 7));
            }
            windows.rotate_right(comm.rank() as usize);
            windows.into_iter().for_each(|window| window.close().expect("all close"));
        });
    }
}

#[test]
fn threads_share_a_window() {
    for setup in setups(2) {
        on_threads(&setup, |comm| {
            let peer = 1 - comm.rank();
            let window = window::<u32>(comm, 400);
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| window.wait_signal(peer, 400).expect("they come"));
                for thread in 0..4_usize {
                    let window = &window;
                    scope.spawn(move || {
                        for at in (thread..400).step_by(4) {
                            window.put(peer, at, &[at as u32 + 1]).expect("it works");
                            window.signal(peer, 1).expect("it works");
                        }
                        let mut own = [0];
                        window.get(peer, thread, &mut own).expect("it works");
                        assert_eq!(own, [thread as u32 + 1], "a get sees this rank's own puts");
                    });
                }
                waiter.join().expect("it ends");
            });
            assert_eq!(part(&window, comm.rank()), (1..=400).collect::<Vec<_>>());
            window.close().expect("all close");
        });
    }
}
