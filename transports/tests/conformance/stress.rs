//! Points 1 to 6 together: random traffic between all ranks, checked to the last byte.

use crate::cases::Case;
use crate::support::memory::{Area, Random, pattern};
use crate::support::oracle::reduce;
use crate::support::rank::TestRank;
use crate::support::work::{key, list, receive, send_to};
use std::collections::VecDeque;
use std::rc::Rc;
use ubccl_core::endpoint::{Post, Token};
use ubccl_core::{DataType, Rank, ReduceOp};

pub const CASES: &[Case] =
    &[Case::new("c2_random_traffic_arrives_whole_and_in_order", &[2, 3, 5, 8], |r| Box::pin(traffic(r)))
        .variants(3)];

/// One event of the traffic: a send to some, or a reduction of what some send to one.
struct Event {
    number: u64,
    lane: u8,
    len: usize,
    what: What,
}

enum What {
    Send { from: Rank, to: Vec<Rank> },
    Reduce { sources: Vec<Rank>, into: Rank },
}

impl Event {
    fn random(number: u64, ranks: u32, random: &mut Random) -> Self {
        let big = [70_000, 300_000, 1_500_000];
        let len = match random.below(20) {
            0 => {
                let limit = random.pick(&big);
                random.below(limit)
            }
            1..6 => random.below(9000),
            6..8 => 0,
            _ => random.below(80),
        };
        let mut all: Vec<Rank> = (0..ranks).collect();
        for at in (1..all.len()).rev() {
            all.swap(at, random.below(at + 1));
        }
        let some = all[1..].iter().take(1 + random.below(all.len().min(6) - 1));
        let what = if random.below(4) > 0 {
            What::Send { from: all[0], to: some.copied().collect() }
        } else {
            let mut sources: Vec<Rank> = some.copied().collect();
            if random.below(2) == 0 {
                sources.insert(random.below(sources.len() + 1), all[0]);
            }
            What::Reduce { sources, into: all[0] }
        };
        Event { number, lane: random.below(2) as u8, len, what }
    }

    /// What `rank` brings to it.
    fn content(&self, rank: Rank) -> Vec<u8> {
        pattern(self.number << 8 | u64::from(rank), self.len)
    }

    /// What a rank posts for it, and what its area must hold afterwards.
    fn part(&self, me: Rank, area: &Area) -> Option<(Post, Vec<u8>)> {
        match &self.what {
            What::Send { from, to } if *from == me => Some((send_to(area.all(), to), self.content(me))),
            What::Send { from, to } if to.contains(&me) => {
                Some((receive(area.all(), *from), self.content(*from)))
            }
            What::Reduce { sources, into } if *into == me => {
                let (dtype, op) = (DataType::U8, ReduceOp::Sum);
                let post = Post::ReceiveReduce {
                    sources: list(sources),
                    own: area.all(),
                    into: area.all(),
                    dtype,
                    op,
                };
                let all: Vec<_> = sources.iter().map(|&source| self.content(source)).collect();
                Some((post, reduce(dtype, op, &all)))
            }
            What::Reduce { sources, into } if sources.contains(&me) => {
                Some((send_to(area.all(), &[*into]), self.content(me)))
            }
            _ => None,
        }
    }

    fn involves(&self, me: Rank) -> bool {
        match &self.what {
            What::Send { from, to } => *from == me || to.contains(&me),
            What::Reduce { sources, into } => *into == me || sources.contains(&me),
        }
    }
}

/// A post under way and what it must leave in its area.
struct Flight {
    token: Token,
    area: Rc<Area>,
    expected: Vec<u8>,
    number: u64,
}

impl Flight {
    async fn land(self, rank: &TestRank) {
        rank.wait(&[self.token]).await;
        self.area.assert_holds(0, &self.expected, &format!("event {}", self.number));
    }
}

/// Every rank draws the same events from the seed and posts its part of each in order, as far as its windows allow.
async fn traffic(rank: Rc<TestRank>) {
    let mut random = Random(1000 + rank.variant as u64);
    let window = [64, 16, 3][rank.variant % 3];
    let mut under_way = [VecDeque::new(), VecDeque::new()];
    for number in 0..500 {
        let event = Event::random(number, rank.ranks, &mut random);
        if !event.involves(rank.me) {
            continue;
        }
        let lane: &mut VecDeque<Flight> = &mut under_way[usize::from(event.lane)];
        if lane.len() == window {
            lane.pop_front().expect("a window is not empty").land(&rank).await;
        }
        let area = rank.area_of(&event.content(rank.me));
        let (post, expected) = event.part(rank.me, &area).expect("it is involved");
        let token = rank.post(&key(1, event.lane), &post);
        lane.push_back(Flight { token, area, expected, number });
    }
    for flight in under_way.into_iter().flatten() {
        flight.land(&rank).await;
    }
}
