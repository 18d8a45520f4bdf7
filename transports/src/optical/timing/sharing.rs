//! Max-min fair shares: flows over resources (ports, planes, links between switches), as fast as fairness lets each.
//!
//! A flow is as fast as its own cap, or as its share of the tightest resource on its way: the rates are those in which
//! none can be raised without lowering one that is no faster. Shares are computed anew only for flows that a change can
//! reach: resources whose flows ask together for no more than there is bind nobody and pass no change on. Where one
//! change would reach many flows, changes are collected for a short while (see [`Sharing::share`]).
//!
//! Everything is integers: rates in 1/64 byte per second, weights in 1/4096, rounded down; ends rounded up to whole
//! picoseconds.

mod outage;

use super::filling::{Filling, Levels, OPEN, Paths, Resource, widened};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Units of a rate in a byte per second.
const UNITS: u64 = 64;
/// A flow's weight on a resource of which it takes what its rate says.
pub(super) const WHOLE: u32 = 1 << 12;
/// The most a resource may pass, so that its units fit: 35 TB/s, above every port.
const MOST_BYTES_PER_S: u64 = (u64::MAX >> 1) / (UNITS * WHOLE as u64);
const PS_PER_S: u128 = 1_000_000_000_000;
/// A change that reaches no more flows than this is reckoned with at once; so are many changes that reach so many each.
const AT_ONCE: usize = 64;
/// Other changes wait for this part of the time that flows under way need on average.
const PATIENCE: u64 = 128;
const NEVER: u64 = u64::MAX;

/// A place on a flow's way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hop {
    pub(super) resource: u32,
    /// How much of the flow's rate it takes there, in parts of [`WHOLE`].
    pub(super) weight: u32,
}

/// A flow, until it has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowId(u32);

/// All resources and flows.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    resources: Vec<Resource>,
    flows: Vec<Flow>,
    ways: Paths,
    /// Of each flow its place in the list of each resource on its way: as long as ways are.
    places: Vec<u32>,
    /// What each flow gets by the solution that is being made, or [`OPEN`].
    next_rates: Vec<u64>,
    free: Vec<u32>,
    active: usize,
    /// When flows end, if nothing changes: time, order of creation, flow. What is out of date stays until it is met.
    ends: BinaryHeap<Reverse<(u64, u64, u32)>>,
    created: u64,
    /// Resources whose flows may have to change, new ones and those that wait.
    dirty: Vec<u32>,
    waiting: Vec<u32>,
    /// When those that wait are reckoned with.
    due_ps: Option<u64>,
    patience_ps: u64,
    changes: usize,
    /// Flows that begin now.
    begun: Vec<u32>,
    epoch: u32,
    reached: Reached,
    levels: Levels,
    /// Reckons with every change at once, whatever it reaches.
    is_exact: bool,
}

/// What a change can reach.
#[derive(Debug, Default)]
struct Reached {
    flows: Vec<u32>,
    resources: Vec<u32>,
}

#[derive(Debug, Default)]
struct Flow {
    tag: u32,
    order: u64,
    cap: u64,
    rate: u64,
    /// Units · picoseconds that were left at `since_ps`.
    left: u128,
    since_ps: u64,
    begin_ps: u64,
    end_ps: u64,
}

impl Sharing {
    /// Adds a resource that passes so much.
    pub(super) fn add_resource(&mut self, bytes_per_s: u64) -> u32 {
        let id = self.resources.len() as u32;
        let capacity = capacity(bytes_per_s);
        let flows = Vec::new();
        self.resources.push(Resource {
            capacity,
            whole: capacity,
            used: 0,
            asked: 0,
            flows,
            all_weights: 0,
            epoch: 0,
            residual: 0,
            weights: 0,
        });
        id
    }

    /// How many flows pass a resource.
    pub(super) fn load(&self, resource: u32) -> usize {
        self.resources[resource as usize].flows.len()
    }

    /// Begins a flow of so many bytes (at least one), no faster than `cap_bytes_per_s`. It gets its rate when
    /// [`Sharing::share`] is called next, at the same time.
    pub(super) fn begin(
        &mut self,
        tag: u32,
        bytes: u64,
        cap_bytes_per_s: u64,
        way: &[Hop],
        now_ps: u64,
    ) -> FlowId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.flows.push(Flow::default());
            self.next_rates.push(OPEN);
            self.flows.len() as u32 - 1
        });
        self.created += 1;
        self.active += 1;
        let alone = way.iter().map(|hop| self.resources[hop.resource as usize].whole / u64::from(hop.weight));
        let cap = alone.min().unwrap_or(u64::MAX).min(capacity(cap_bytes_per_s) / u64::from(WHOLE)).max(1);
        let flow = &mut self.flows[id as usize];
        flow.tag = tag;
        flow.order = self.created;
        (flow.cap, flow.rate) = (cap, 0);
        (flow.left, flow.since_ps, flow.begin_ps, flow.end_ps) = (work(bytes), now_ps, now_ps, NEVER);
        let most = self.ways.most();
        self.ways.set(id, way);
        if self.ways.most() > most {
            self.places = widened(&self.places, most, self.ways.most());
        }
        let most = self.ways.most();
        self.places.resize(self.places.len().max(self.flows.len() * most), 0);
        for (position, &hop) in (0_u32..).zip(way) {
            let resource = &mut self.resources[hop.resource as usize];
            self.places[id as usize * most + position as usize] = resource.flows.len() as u32;
            resource.flows.push((id, position));
            resource.all_weights += u64::from(hop.weight);
            resource.asked += u128::from(cap) * u128::from(hop.weight);
        }
        self.begun.push(id);
        FlowId(id)
    }

    /// A flow takes less of the last resource on its way from now on. Shares change with the next other changes, or by
    /// themselves as soon as those would.
    pub(super) fn lighten(&mut self, FlowId(id): FlowId, weight: u32, now_ps: u64) {
        let Some(hop) = self.ways.last_mut(id) else { return };
        let lighter = u64::from(hop.weight.saturating_sub(weight));
        hop.weight -= lighter as u32;
        let (resource, flow) = (&mut self.resources[hop.resource as usize], &self.flows[id as usize]);
        if resource.binds() {
            self.dirty.push(hop.resource);
            self.changes += 1;
            let due_ps = now_ps.saturating_add(self.patience_ps);
            self.due_ps = Some(self.due_ps.map_or(due_ps, |other_ps| other_ps.min(due_ps)));
        }
        resource.all_weights -= lighter;
        resource.used -= flow.rate * lighter;
        resource.asked -= u128::from(flow.cap) * u128::from(lighter);
    }

    /// The next time at which a flow ends or shares change.
    pub(super) fn next_ps(&self) -> Option<u64> {
        let end_ps = self.ends.peek().map(|end| end.0.0);
        match (end_ps, self.due_ps) {
            (Some(end_ps), Some(due_ps)) => Some(end_ps.min(due_ps)),
            (end_ps, due_ps) => end_ps.or(due_ps),
        }
    }

    /// Takes the flows that end now out, and appends their tags in order of their ends. Shares are rounded down, so flows
    /// that should end together may be a picosecond apart, or 2⁻³² of what they took: these are one time.
    pub(super) fn end(&mut self, now_ps: u64, ended: &mut Vec<u32>) {
        while let Some(&Reverse((end_ps, order, id))) = self.ends.peek() {
            let flow = &self.flows[id as usize];
            let is_current = flow.order == order && flow.end_ps == end_ps;
            let slack_ps = if is_current { 1 + (now_ps.saturating_sub(flow.begin_ps) >> 32) } else { 0 };
            if end_ps > now_ps.saturating_add(slack_ps) {
                break;
            }
            self.ends.pop();
            if is_current {
                ended.push(flow.tag);
                self.remove(id);
            }
        }
    }

    fn remove(&mut self, id: u32) {
        let flow = &mut self.flows[id as usize];
        let (rate, cap) = (flow.rate, flow.cap);
        (flow.end_ps, flow.order) = (NEVER, 0);
        let (mut changes, most) = (false, self.ways.most());
        for (position, &hop) in self.ways.hops(id).iter().enumerate() {
            let place = self.places[id as usize * most + position];
            let resource = &mut self.resources[hop.resource as usize];
            if resource.binds() && resource.flows.len() > 1 {
                self.dirty.push(hop.resource);
                changes = true;
            }
            resource.used -= rate * u64::from(hop.weight);
            resource.asked -= u128::from(cap) * u128::from(hop.weight);
            resource.all_weights -= u64::from(hop.weight);
            resource.flows.swap_remove(place as usize);
            if let Some(&(moved, position)) = resource.flows.get(place as usize) {
                debug_assert!(moved != id, "a flow passes a resource once");
                self.places[moved as usize * most + position as usize] = place;
            }
        }
        self.changes += usize::from(changes);
        self.free.push(id);
        self.active -= 1;
        if self.active == 0 {
            self.ends.clear();
            self.waiting.clear();
            (self.due_ps, self.patience_ps) = (None, 0);
        }
    }

    /// Gives every flow its rate, after the flows that end and begin now did so.
    ///
    /// If few flows share a resource with one that changed, and so on, or if many changed at once, this is exact. A lone
    /// change that reaches more than [`AT_ONCE`] flows waits, with others, for a [`PATIENCE`]th of what flows under way
    /// need on average: until then what an ended flow leaves is idle, and one that begins has what is idle. One that
    /// begins waits no longer than 1/[`AT_ONCE`] of what it needs with an equal share of its tightest resource.
    pub(super) fn share(&mut self, now_ps: u64) {
        self.greet(now_ps);
        let is_due = self.due_ps.is_some_and(|due_ps| due_ps <= now_ps);
        if is_due {
            self.due_ps = None;
            self.dirty.append(&mut self.waiting);
        }
        if self.dirty.is_empty() {
            return self.start_rest(now_ps);
        }
        let must = is_due || self.patience_ps == 0 || self.is_exact;
        let most = if must { usize::MAX } else { AT_ONCE * (self.changes + 1) };
        self.changes = 0;
        if self.reach(most) {
            self.solve();
            self.apply(now_ps);
            self.dirty.clear();
        } else {
            self.waiting.append(&mut self.dirty);
            self.due_ps = self.due_ps.or(Some(now_ps.saturating_add(self.patience_ps)));
        }
        self.start_rest(now_ps);
    }

    /// Marks what flows that begin bring into disorder; those that share with nobody have their cap.
    fn greet(&mut self, now_ps: u64) {
        for k in 0..self.begun.len() {
            let id = self.begun[k];
            let bound = self.dirty.len();
            let crossed = self.ways.hops(id).iter().map(|hop| hop.resource);
            self.dirty.extend(crossed.filter(|&at| self.resources[at as usize].binds()));
            if self.dirty.len() == bound {
                self.set_rate(id, self.flows[id as usize].cap, now_ps);
            } else {
                self.changes += 1;
            }
        }
    }

    /// Flows that began and have no share yet get what is idle, and do not wait longer than they can bear.
    fn start_rest(&mut self, now_ps: u64) {
        let mut begun = std::mem::take(&mut self.begun);
        for id in begun.drain(..) {
            let flow = &self.flows[id as usize];
            if flow.rate > 0 {
                continue;
            }
            let idle = |hop: &Hop| {
                let resource = &self.resources[hop.resource as usize];
                resource.capacity.saturating_sub(resource.used) / u64::from(hop.weight)
            };
            let rate = self.ways.hops(id).iter().map(idle).min().unwrap_or(0).min(flow.cap);
            // No share is less than an equal one of the tightest resource.
            let equal = |hop: &Hop| {
                let resource = &self.resources[hop.resource as usize];
                resource.capacity / resource.all_weights
            };
            let share = self.ways.hops(id).iter().map(equal).min().unwrap_or(0);
            // Where nothing passes it waits for what changes that, not for this.
            let share = if share == 0 { flow.cap } else { share.min(flow.cap) };
            let longest_ps = time_ps(flow.left, share);
            self.set_rate(id, rate, now_ps);
            let bearable_ps = now_ps.saturating_add(longest_ps / AT_ONCE as u64);
            self.due_ps = Some(self.due_ps.map_or(bearable_ps, |due_ps| due_ps.min(bearable_ps)));
        }
        self.begun = begun;
    }

    /// Finds all flows and resources that the dirty resources' flows share with, as long as they are not more than `most`.
    fn reach(&mut self, most: usize) -> bool {
        if self.dirty.iter().any(|&resource| self.resources[resource as usize].flows.len() > most) {
            return false;
        }
        self.epoch += 1;
        let Sharing { resources, ways, next_rates, epoch, reached, dirty, .. } = self;
        let (epoch, Reached { flows, resources: marked }) = (*epoch, reached);
        flows.clear();
        marked.clear();
        for &resource in &*dirty {
            if std::mem::replace(&mut resources[resource as usize].epoch, epoch) != epoch {
                marked.push(resource);
            }
        }
        let mut next = 0;
        while let Some(&resource) = marked.get(next) {
            next += 1;
            let list = std::mem::take(&mut resources[resource as usize].flows);
            for &(id, _) in &list {
                if std::mem::replace(&mut ways.marks[id as usize].epoch, epoch) == epoch {
                    continue;
                }
                next_rates[id as usize] = OPEN;
                flows.push(id);
                for hop in ways.hops(id) {
                    let other = &mut resources[hop.resource as usize];
                    if other.epoch != epoch && other.binds() {
                        other.epoch = epoch;
                        marked.push(hop.resource);
                    }
                }
            }
            resources[resource as usize].flows = list;
            if flows.len() > most {
                return false;
            }
        }
        true
    }

    fn solve(&mut self) {
        let Sharing { resources, flows, ways, next_rates, reached, levels, epoch, .. } = self;
        let mut filling = Filling { resources, ways, next_rates, epoch: *epoch, open: reached.flows.len() };
        filling.fill(&reached.resources, &mut reached.flows, |flow| flows[flow as usize].cap, levels);
    }

    /// Makes the solution true from now on, and notes how long flows still need.
    fn apply(&mut self, now_ps: u64) {
        let reached = std::mem::take(&mut self.reached.flows);
        let mut left_ps: u128 = 0;
        for &id in &reached {
            let next_rate = self.next_rates[id as usize];
            if next_rate != self.flows[id as usize].rate {
                self.set_rate(id, next_rate, now_ps);
            }
            let end_ps = self.flows[id as usize].end_ps;
            left_ps += u128::from(if end_ps < NEVER { end_ps.saturating_sub(now_ps) } else { 0 });
        }
        let mean_ps = u64::try_from(left_ps / (reached.len() as u128).max(1)).unwrap_or(NEVER);
        if reached.len() > AT_ONCE {
            self.patience_ps = (mean_ps / PATIENCE).max(1);
        }
        self.reached.flows = reached;
        if self.ends.len() > 4 * self.active + 1024 {
            let flows = &self.flows;
            self.ends.retain(|&Reverse((end_ps, order, id))| {
                flows[id as usize].order == order && flows[id as usize].end_ps == end_ps
            });
        }
    }

    fn set_rate(&mut self, id: u32, rate: u64, now_ps: u64) {
        let flow = &mut self.flows[id as usize];
        let done = u128::from(flow.rate) * u128::from(now_ps - flow.since_ps);
        flow.left = flow.left.saturating_sub(done);
        flow.since_ps = now_ps;
        for hop in self.ways.hops(id) {
            let used = &mut self.resources[hop.resource as usize].used;
            *used = *used + rate * u64::from(hop.weight) - flow.rate * u64::from(hop.weight);
        }
        flow.rate = rate;
        flow.end_ps = match rate {
            0 => NEVER,
            _ => now_ps.saturating_add(time_ps(flow.left, rate)),
        };
        if flow.end_ps < NEVER {
            self.ends.push(Reverse((flow.end_ps, flow.order, id)));
        }
    }

    /// Bytes of memory it has taken.
    pub(super) fn memory_bytes(&self) -> usize {
        let lists = self.resources.iter().map(|resource| resource.flows.capacity() * size_of::<(u32, u32)>());
        let of_flow = size_of::<Flow>() + size_of::<u64>();
        let ways = self.ways.memory_bytes() + self.places.capacity() * size_of::<u32>();
        let tables =
            self.flows.capacity() * of_flow + self.resources.capacity() * size_of::<Resource>() + ways;
        tables + lists.sum::<usize>() + self.ends.capacity() * size_of::<(u64, u64, u32)>()
    }
}

fn capacity(bytes_per_s: u64) -> u64 {
    bytes_per_s.min(MOST_BYTES_PER_S) * UNITS * u64::from(WHOLE)
}

fn work(bytes: u64) -> u128 {
    u128::from(bytes) * PS_PER_S * u128::from(UNITS)
}

/// How long work takes at a rate, rounded up.
#[inline]
fn time_ps(work: u128, rate: u64) -> u64 {
    match u64::try_from(work) {
        Ok(work) => work.div_ceil(rate),
        Err(_) => u64::try_from(work.div_ceil(u128::from(rate))).unwrap_or(NEVER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_PER_S: u64 = 1_000_000_000;

    fn ports(sharing: &mut Sharing, ports: u32) {
        (0..2 * ports).for_each(|_| {
            sharing.add_resource(BYTES_PER_S);
        });
    }

    /// Injection ports are even, reception ports odd.
    fn way(from: u32, to: u32) -> [Hop; 2] {
        [2 * from, 2 * to + 1].map(|resource| Hop { resource, weight: WHOLE })
    }

    /// Runs until nothing is left: when each tag ended.
    fn run(sharing: &mut Sharing) -> Vec<(u32, u64)> {
        let mut ends = Vec::new();
        sharing.share(0);
        while let Some(now_ps) = sharing.next_ps() {
            let mut ended = Vec::new();
            sharing.end(now_ps, &mut ended);
            ends.extend(ended.into_iter().map(|tag| (tag, now_ps)));
            sharing.share(now_ps);
            for resource in &sharing.resources {
                assert!(resource.used <= resource.capacity, "more than there is");
            }
        }
        ends
    }

    #[test]
    fn shares_are_max_min_fair() {
        let mut sharing = Sharing::default();
        ports(&mut sharing, 8);
        // Three into port 0, one of whose senders also sends to port 4: thirds, and two thirds.
        for (tag, (from, to)) in (0..).zip([(1, 0), (2, 0), (3, 0), (2, 4)]) {
            sharing.begin(tag, 3000, u64::MAX, &way(from, to), 0);
        }
        sharing.share(0);
        let rates: Vec<u64> = sharing.flows.iter().map(|flow| flow.rate / UNITS).collect();
        assert_eq!(rates, [333_333_333, 333_333_333, 333_333_333, 666_666_666]);
        for (id, flow) in (0..).zip(&sharing.flows) {
            let tightest = sharing.ways.hops(id).iter().any(|hop| {
                let resource = &sharing.resources[hop.resource as usize];
                let is_full = resource.capacity - resource.used < 4 * u64::from(WHOLE);
                let is_fastest =
                    resource.flows.iter().all(|other| sharing.flows[other.0 as usize].rate <= flow.rate);
                is_full && is_fastest
            });
            assert!(tightest, "each flow is among the fastest of a resource that is full");
        }
        let ends: Vec<u64> = run(&mut sharing).iter().map(|end| end.1.div_ceil(1000)).collect();
        assert_eq!(ends, [4500, 9001, 9001, 9001]);
    }

    fn draw(random: &mut u64) -> u64 {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *random >> 40
    }

    /// How far the worst flow's end is from the exact one, and the last end, as shares of the exact ones.
    fn errors(ends: impl Fn(bool) -> Vec<(u32, u64)>) -> (f64, f64) {
        let sorted = |is_exact| {
            let mut ends = ends(is_exact);
            ends.sort_unstable();
            ends
        };
        let (exact, near) = (sorted(true), sorted(false));
        assert_eq!((exact.len(), near.len()), (24 * 23, 24 * 23));
        let mut worst = 0.0_f64;
        for (exact, near) in exact.iter().zip(&near) {
            assert_eq!(exact.0, near.0);
            worst = worst.max((near.1 as f64 / exact.1 as f64 - 1.0).abs());
        }
        let last = |ends: &[(u32, u64)]| ends.iter().map(|end| end.1).max().unwrap() as f64;
        let last = last(&near) / last(&exact) - 1.0;
        println!("worst flow {worst:.4}, last {last:.6}");
        (worst, last.abs())
    }

    fn pairs() -> impl Iterator<Item = (u32, (u32, u32))> {
        (0..).zip((0..24).flat_map(|from| (0..24).map(move |to| (from, to))).filter(|(from, to)| from != to))
    }

    #[test]
    fn collected_changes_are_near_exact_ones() {
        let (worst, last) = errors(|is_exact| {
            let mut sharing = Sharing { is_exact, ..Sharing::default() };
            ports(&mut sharing, 24);
            let mut random = 5_u64;
            for (tag, (from, to)) in pairs() {
                let bytes = 1_000_000 / (1 + draw(&mut random) % 100);
                sharing.begin(tag, bytes, u64::MAX, &way(from, to), 0);
            }
            run(&mut sharing)
        });
        assert!(worst > 0.0, "changes were collected");
        assert!(worst < 0.05 && last < 0.01);
    }

    /// Each sender has eight of its flows under way, in an order of its own.
    #[test]
    fn flows_that_begin_among_others_do_not_wait_long() {
        let (worst, last) = errors(|is_exact| {
            let mut sharing = Sharing { is_exact, ..Sharing::default() };
            ports(&mut sharing, 24);
            let mut random = 7_u64;
            let mut to_come = vec![Vec::new(); 24];
            for (tag, (from, to)) in pairs() {
                to_come[from as usize].push((draw(&mut random), tag, to));
            }
            to_come.iter_mut().for_each(|flows| flows.sort_unstable());
            let next = |sharing: &mut Sharing, flows: &mut Vec<_>, from, now_ps| {
                if let Some((size, tag, to)) = flows.pop() {
                    sharing.begin(tag, 1_000_000 / (1 + size % 100), u64::MAX, &way(from, to), now_ps);
                }
            };
            for (from, flows) in (0..).zip(&mut to_come) {
                (0..8).for_each(|_| next(&mut sharing, flows, from, 0));
            }
            sharing.share(0);
            let (mut ends, mut ended) = (Vec::new(), Vec::new());
            while let Some(now_ps) = sharing.next_ps() {
                sharing.end(now_ps, &mut ended);
                for tag in ended.drain(..) {
                    ends.push((tag, now_ps));
                    let from = tag / 23;
                    next(&mut sharing, &mut to_come[from as usize], from, now_ps);
                }
                sharing.share(now_ps);
            }
            ends
        });
        assert!(worst > 0.0, "changes were collected");
        assert!(worst < 0.1 && last < 0.02);
    }
}
