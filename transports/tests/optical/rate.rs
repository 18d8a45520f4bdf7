//! How fast messages go through post, step and poll. Prints, asserts no time.

use crate::harness::{Harness, INPUT, OUTPUT, key, receive, send, span};
use std::time::Instant;
use ubccl_core::endpoint::{Posted, Token};

#[test]
fn a_ring_of_384_ranks() {
    const RANKS: u32 = 384;
    const STEPS: u32 = 2000;
    let mut harness = Harness::new("cloudmatrix384", RANKS).with_phantom(4, 1024);
    let (from, into) = (span(INPUT, 0, 4096), span(OUTPUT, 0, 4096));
    let mut steps = vec![0; RANKS as usize];
    let mut open = vec![0; RANKS as usize];
    let mut woken: Vec<u32> = (0..RANKS).collect();
    let mut places = Vec::new();
    let mut tokens: Vec<Token> = Vec::new();
    let start = Instant::now();
    loop {
        for rank in woken.drain(..) {
            let at = rank as usize;
            tokens.clear();
            harness.endpoints[at].poll(&mut tokens).unwrap();
            open[at] -= tokens.len();
            while open[at] == 0 && steps[at] < STEPS {
                steps[at] += 1;
                let posts = [send(from, (rank + 1) % RANKS), receive(into, (rank + RANKS - 1) % RANKS)];
                for post in posts {
                    let posted = harness.endpoints[at].post(Token(0), &key(0), &post).unwrap();
                    open[at] += usize::from(posted == Posted::Pending);
                }
            }
        }
        if !harness.world.step(&mut places).unwrap() {
            break;
        }
        woken.extend(places.drain(..).map(|place| place.rank));
    }
    let (took, stats) = (start.elapsed(), harness.world.stats());
    assert_eq!(stats.messages, u64::from(RANKS * STEPS));
    println!(
        "{} messages in {took:?}: {:.2} million a second, hash {:016x}",
        stats.messages,
        stats.messages as f64 / took.as_secs_f64() / 1e6,
        stats.hash
    );
}
