//! One solution of max-min fair shares: the tightest resource first, its flows get equal shares and are taken out.

use super::sharing::Hop;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// A rate that is not known yet.
pub(super) const OPEN: u64 = u64::MAX;

/// What each flow of a resource would get, with the resource; the least first.
pub(super) type Levels = BinaryHeap<Reverse<(u64, u32)>>;

/// Something that flows share.
#[derive(Debug)]
pub(super) struct Resource {
    /// What it passes, times [`WHOLE`](super::sharing::WHOLE): now, and without faults.
    pub(super) capacity: u64,
    pub(super) whole: u64,
    /// What its flows have, and what they would have if nothing but their caps bound them.
    pub(super) used: u64,
    pub(super) asked: u128,
    /// Each with its position on the flow's way.
    pub(super) flows: Vec<(u32, u32)>,
    pub(super) all_weights: u64,
    /// Marks of the last search, and what is left to share in it.
    pub(super) epoch: u32,
    pub(super) residual: u64,
    pub(super) weights: u64,
}

/// What flows cross, each as many places as the longest way so far: apart from the flows, since a solution reads nothing
/// else of most.
#[derive(Debug, Default)]
pub(super) struct Paths {
    most: usize,
    hops: Vec<Hop>,
    /// How long each is, and the last search that met it.
    pub(super) marks: Vec<Mark>,
}

/// See [`Paths`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mark {
    len: u32,
    pub(super) epoch: u32,
}

/// A solution that is being made, of the flows and resources that the last search reached.
#[derive(Debug)]
pub(super) struct Filling<'a> {
    pub(super) resources: &'a mut [Resource],
    pub(super) ways: &'a Paths,
    /// What each flow gets, or [`OPEN`].
    pub(super) next_rates: &'a mut [u64],
    /// Marks what was reached.
    pub(super) epoch: u32,
    /// How many of the flows have no rate yet.
    pub(super) open: usize,
}

impl Resource {
    #[inline]
    pub(super) fn binds(&self) -> bool {
        self.asked > u128::from(self.capacity)
    }

    #[inline]
    pub(super) fn level(&self) -> u64 {
        self.residual / self.weights
    }
}

impl Paths {
    #[inline]
    pub(super) fn hops(&self, flow: u32) -> &[Hop] {
        let first = flow as usize * self.most;
        &self.hops[first..first + self.marks[flow as usize].len as usize]
    }

    /// The last place on the way of a flow.
    pub(super) fn last_mut(&mut self, flow: u32) -> Option<&mut Hop> {
        let last = (self.marks[flow as usize].len as usize).checked_sub(1)?;
        self.hops.get_mut(flow as usize * self.most + last)
    }

    /// The most places that a way has had.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Sets the way of a flow.
    pub(super) fn set(&mut self, flow: u32, way: &[Hop]) {
        let flow = flow as usize;
        if self.marks.len() <= flow {
            self.marks.resize(flow + 1, Mark::default());
        }
        if way.len() > self.most {
            self.hops = widened(&self.hops, self.most, way.len());
            self.most = way.len();
        }
        self.hops.resize(self.hops.len().max(self.marks.len() * self.most), Hop::default());
        self.marks[flow].len = way.len() as u32;
        let first = flow * self.most;
        self.hops[first..first + way.len()].copy_from_slice(way);
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.hops.capacity() * size_of::<Hop>() + self.marks.capacity() * size_of::<Mark>()
    }
}

/// Rows of so many, made longer.
pub(super) fn widened<T: Copy + Default>(rows: &[T], most: usize, longer: usize) -> Vec<T> {
    let fill = longer - most;
    let rows = rows.chunks(most.max(1));
    rows.flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(T::default(), fill))).collect()
}

impl Filling<'_> {
    /// Gives each of these flows its rate. May sort them by what they ask for.
    pub(super) fn fill(
        &mut self,
        reached: &[u32],
        flows: &mut [u32],
        cap: impl Fn(u32) -> u64,
        levels: &mut Levels,
    ) {
        levels.clear();
        for &id in reached {
            let resource = &mut self.resources[id as usize];
            (resource.residual, resource.weights) = (resource.capacity, resource.all_weights);
            if resource.weights > 0 {
                levels.push(Reverse((resource.level(), id)));
            }
        }
        // Mostly no flow gets all it asks for where many share: they are sorted once one does.
        let mut least = flows.iter().map(|&id| cap(id)).min().unwrap_or(0);
        let (mut is_sorted, mut next) = (false, 0);
        while self.open > 0 {
            while is_sorted && !self.is_open(flows[next]) {
                next += 1;
            }
            if is_sorted {
                least = cap(flows[next]);
            }
            let tightest = self.tightest(levels);
            match tightest {
                Some((level, id)) if level < least => {
                    levels.pop();
                    self.fix_all(id, level);
                }
                _ if is_sorted => self.fix(flows[next], least),
                _ => {
                    flows.sort_unstable_by_key(|&id| cap(id));
                    is_sorted = true;
                }
            }
        }
    }

    /// The resource with the least for each of its flows, and how much that is.
    fn tightest(&self, levels: &mut Levels) -> Option<(u64, u32)> {
        loop {
            let mut first = levels.peek_mut()?;
            let Reverse((level, id)) = *first;
            let resource = &self.resources[id as usize];
            if resource.weights == 0 {
                PeekMut::pop(first);
                continue;
            }
            let now = resource.level();
            if now <= level {
                return Some((level, id));
            }
            *first = Reverse((now, id));
        }
    }

    #[inline]
    fn is_open(&self, flow: u32) -> bool {
        self.next_rates[flow as usize] == OPEN
    }

    /// Gives every flow of a resource that has no rate this one.
    fn fix_all(&mut self, resource: u32, rate: u64) {
        let list = std::mem::take(&mut self.resources[resource as usize].flows);
        for &(flow, _) in &list {
            if self.is_open(flow) {
                self.fix(flow, rate);
            }
        }
        self.resources[resource as usize].flows = list;
    }

    #[inline]
    fn fix(&mut self, flow: u32, rate: u64) {
        self.next_rates[flow as usize] = rate;
        self.open -= 1;
        for hop in self.ways.hops(flow) {
            let resource = &mut self.resources[hop.resource as usize];
            if resource.epoch == self.epoch {
                resource.residual -= rate * u64::from(hop.weight);
                resource.weights -= u64::from(hop.weight);
            }
        }
    }
}
