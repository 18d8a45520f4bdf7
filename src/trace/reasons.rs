//! Why ranks posted when they did: a plan's edges, a lane's order and window, or what the rank saw just then.

use super::{Operation, Recording};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use ubccl_core::Rank;
use ubccl_core::endpoint::{CommunicatorId, Place, Stream};
use ubccl_core::record::{At, Post, PostId, Reason, Record, Stretch};

/// A recording, indexed.
pub(super) struct Reasons<'a> {
    record: &'a Record,
    operations: BTreeMap<(CommunicatorId, u64), &'a Operation>,
    /// Posts of each place and stream: by lane and ordinal.
    posts: BTreeMap<(Place, Stream), Vec<Vec<u32>>>,
    /// What each rank saw, in order of time: made when it is first asked for.
    moments: OnceCell<Vec<Vec<Moment>>>,
}

/// A rank saw something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Moment {
    at_ps: u64,
    /// The post that completed, or that sent the message: it was there before.
    post: u32,
    /// Where it stands: a post, a message or a stretch.
    seen: Seen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Seen {
    Done(u32),
    Arrived(u32),
    Ended(u32),
}

impl<'a> Reasons<'a> {
    pub(super) fn new(recording: &'a Recording) -> Self {
        let record = &recording.record;
        let operations = recording.operations.iter();
        let mut posts: BTreeMap<(Place, Stream), Vec<Vec<u32>>> = BTreeMap::new();
        for (id, post) in (0..).zip(&record.posts) {
            let lanes = posts.entry((post.place, post.stream)).or_default();
            if lanes.len() <= usize::from(post.lane) {
                lanes.resize(usize::from(post.lane) + 1, Vec::new());
            }
            lanes[usize::from(post.lane)].push(id);
        }
        Reasons {
            record,
            operations: operations.map(|one| ((one.communicator, one.sequence), one)).collect(),
            posts,
            moments: OnceCell::new(),
        }
    }

    pub(super) fn stretch(&self, index: u32) -> &'a Stretch {
        &self.record.stretches[index as usize]
    }

    pub(super) fn post(&self, id: PostId) -> &'a Post {
        &self.record.posts[id.0 as usize]
    }

    /// More steps than a walk back can have.
    pub(super) fn limit(&self) -> usize {
        2 * (self.record.stretches.len() + self.record.posts.len() + self.record.messages.len()) + 2
    }

    /// Why a rank of an operation was done at `end_ps`: its last post.
    pub(super) fn of_end(&self, operation: &Operation, index: usize, end_ps: u64) -> Reason {
        let place = Place { communicator: operation.communicator, rank: index as Rank };
        let lanes = self.posts.get(&(place, Stream::Collective(operation.sequence)));
        let mut ids = lanes.into_iter().flatten().flatten().map(|&id| PostId(id));
        ids.rfind(|&id| self.post(id).done_ps == Some(end_ps))
            .map_or(Reason::Unknown, |id| self.post(id).done_by)
    }

    /// Why something was posted at `now_ps`.
    pub(super) fn of_post(&self, id: PostId, now_ps: u64) -> Reason {
        let cause = self.by_plan(id, now_ps).or_else(|| self.in_general(id, now_ps));
        cause.unwrap_or(Reason::Unknown)
    }

    /// By the plan that it is a step of: the last of what it had to come after.
    fn by_plan(&self, id: PostId, now_ps: u64) -> Option<Reason> {
        let post = self.post(id);
        let Stream::Collective(sequence) = post.stream else { return None };
        let operation = self.operations.get(&(post.place.communicator, sequence))?;
        let (plan, binding) = operation.ranks.get(post.place.rank as usize)?.plan.as_ref()?;
        let lanes = self.posts.get(&(post.place, post.stream))?;
        let lane = &lanes[usize::from(post.lane)];
        let mut ordinal = post.ordinal;
        loop {
            let step = binding.instance(plan, usize::from(post.lane), u64::from(ordinal))?;
            let targets = step.after.iter().filter_map(|after| binding.target(plan, after, step.at));
            let posts = targets.filter_map(|(lane, position)| lanes.get(lane)?.get(position as usize));
            if let Some(reason) = posts.filter_map(|&id| self.done_at(id, now_ps)).next() {
                return Some(reason);
            }
            // Nothing it names: it waited for its turn in the lane, or for room in the window.
            ordinal = ordinal.checked_sub(1)?;
            if self.record.posts[lane[ordinal as usize] as usize].posted_ps < now_ps {
                let earlier = lane[..=ordinal as usize].iter().rev();
                return earlier.filter_map(|&id| self.done_at(id, now_ps)).next();
            }
        }
    }

    /// Why a post completed, if it did so at this time.
    fn done_at(&self, id: u32, now_ps: u64) -> Option<Reason> {
        let post = &self.record.posts[id as usize];
        (post.done_ps == Some(now_ps)).then_some(post.done_by)
    }

    /// Without a plan: the last thing that its rank saw at this time, of what was there before it.
    fn in_general(&self, id: PostId, now_ps: u64) -> Option<Reason> {
        let moments = self.moments_at(self.post(id).rank, now_ps);
        let before = |moment: &&Moment| moment.post < id.0 || matches!(moment.seen, Seen::Ended(_));
        moments.iter().rfind(before).map(|moment| self.reason(moment.seen))
    }

    /// The last thing that a rank saw at a time.
    pub(super) fn of_moment(&self, rank: Rank, at_ps: u64) -> Reason {
        self.moments_at(rank, at_ps).last().map_or(Reason::Unknown, |moment| self.reason(moment.seen))
    }

    /// When a rank last saw something before this time.
    pub(super) fn last_seen_ps(&self, rank: Rank, before_ps: u64) -> u64 {
        let moments = &self.moments()[rank as usize];
        let end = moments.partition_point(|moment| moment.at_ps < before_ps);
        end.checked_sub(1).map_or(0, |last| moments[last].at_ps)
    }

    fn moments_at(&self, rank: Rank, at_ps: u64) -> &[Moment] {
        let moments = &self.moments()[rank as usize];
        let first = moments.partition_point(|moment| moment.at_ps < at_ps);
        let end = moments.partition_point(|moment| moment.at_ps <= at_ps);
        &moments[first..end]
    }

    fn reason(&self, seen: Seen) -> Reason {
        match seen {
            Seen::Done(id) => self.record.posts[id as usize].done_by,
            Seen::Arrived(message) => self.record.messages[message as usize].arrived_by,
            Seen::Ended(stretch) => Reason::After(stretch),
        }
    }

    fn moments(&self) -> &Vec<Vec<Moment>> {
        self.moments.get_or_init(|| {
            let mut moments = vec![Vec::new(); self.record.ranks as usize];
            for (id, post) in (0..).zip(&self.record.posts) {
                let seen = post.done_ps.filter(|_| post.done_by != Reason::Unknown);
                let moment = seen.map(|at_ps| Moment { at_ps, post: id, seen: Seen::Done(id) });
                moments[post.rank as usize].extend(moment);
            }
            for (id, message) in (0..).zip(&self.record.messages) {
                let seen = message.arrived_ps.filter(|_| message.arrived_by != Reason::Unknown);
                let post = message.sent_by.0;
                let moment = seen.map(|at_ps| Moment { at_ps, post, seen: Seen::Arrived(id) });
                moments[message.to as usize].extend(moment);
            }
            for (id, stretch) in (0..).zip(&self.record.stretches) {
                // What a rank does by itself leads to its next post; the rest is somebody's post or message.
                if let (At::Rank(rank), Reason::Unknown) = (stretch.at, stretch.reason) {
                    let at_ps = stretch.until_ps;
                    moments[rank as usize].push(Moment { at_ps, post: 0, seen: Seen::Ended(id) });
                }
            }
            moments.iter_mut().for_each(|moments| moments.sort_unstable());
            moments
        })
    }
}
